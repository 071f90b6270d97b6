/**
 * A supervision tree as data.
 *
 * `snapshot(ref)` reads the tree below a supervisor as it is at this moment; `changes(ref)` is a stream of snapshots
 * that begins with the present one. A snapshot is plain data, and nothing in it comes from the state or the messages of
 * an actor. `// =>` shows what an expression returns.
 *
 * ```ts
 * import { Actor, ChildSpec, SupervisionTree, Supervisor } from "@tinkex/supervision"
 * import { Effect, Schema } from "effect"
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: {
 *     balance: (self) => self.state.balance,
 *     corrupt: (): number => {
 *       throw new Error("bit flip")
 *     }
 *   }
 * }) {}
 *
 * const bank = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({
 *     name: "bank",
 *     children: [
 *       ChildSpec.supervisor("accounts", { children: [ChildSpec.actor("alice", Account, 100)] }),
 *       ChildSpec.effect("statement", Effect.void, { restart: "transient" })
 *     ]
 *   })
 *   const { alice } = tree.refs.accounts.refs
 *   yield* Effect.flip(alice.call.corrupt())
 *   yield* alice.call.balance() // => 100
 *   const now = yield* SupervisionTree.snapshot(tree)
 *   console.log(SupervisionTree.format(now))
 *   // bank (running)
 *   //   accounts (running)
 *   //     alice (running, 1 restarts, last: crash (Error: bit flip))
 *   //   statement (stopped, last: normal)
 *   const all = SupervisionTree.flatten(now)
 *   all.filter(({ restarts }) => restarts > 0).map(({ path }) => path) // => [ 'bank/accounts/alice' ]
 *   const text = yield* Schema.encodeEffect(SupervisionTree.json)(now)
 *   text.slice(0, 42) // => "{\"path\":\"bank\",\"id\":\"bank\",\"kind\":\"supervi"
 * })
 * ```
 *
 * **Guarantees.** A snapshot is consistent: it is read in one step (V1). `changes` emits after every structural event
 * and skips those that nobody could see because they happened in the same turn (V2).
 *
 * **Not guaranteed.** A change of a mailbox's depth alone is no event, so `changes` does not wake up for it. Each
 * snapshot reads the whole tree: of one with many thousands of children, read a part, or less often.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { SupervisionEvent } from "./SupervisionEvent.ts"

/**
 * One child of a tree, the root included.
 *
 * | field | meaning |
 * | --- | --- |
 * | `path`, `id`, `kind` | which child, and what it is |
 * | `status` | `running`, `starting`, `restarting` (waits for an attempt), `stopping` or `stopped` |
 * | `restart` | its restart type |
 * | `generation` | incarnations so far |
 * | `age` | for how long the present incarnation has been up; absent unless it is running |
 * | `restarts` | how often it was restarted; for a supervisor also how much of its intensity is spent |
 * | `attempt` | the number of the restart that it waits for, with a backoff |
 * | `lastExit` | how its last incarnation ended, in words |
 * | `mailbox` | messages that wait, and how many may |
 * | `suspended` | an actor that was told to handle no messages |
 * | `zombies` | incarnations of it that were left behind and still run |
 * | `children` | in start order |
 *
 * @category models
 * @since 0.1.0
 */
export interface Node {
  readonly path: string
  readonly id: string
  readonly kind: "actor" | "effect" | "supervisor"
  readonly status: "running" | "starting" | "restarting" | "stopping" | "stopped"
  readonly restart: "permanent" | "transient" | "temporary"
  readonly generation: number
  readonly age?: number
  readonly restarts: number
  readonly intensity?: { readonly spent: number; readonly restarts: number; readonly within: number }
  readonly attempt?: number
  readonly lastExit?: string
  readonly mailbox?: { readonly depth: number; readonly capacity: number | "unbounded" }
  readonly suspended?: boolean
  readonly zombies: number
  readonly children: ReadonlyArray<Node>
}

const Count = Schema.Int

/**
 * The schema of a node; times are whole milliseconds.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Node: Schema.Codec<Node> = Schema.Struct({
  path: Schema.String,
  id: Schema.String,
  kind: Schema.Literals(["actor", "effect", "supervisor"]),
  status: Schema.Literals(["running", "starting", "restarting", "stopping", "stopped"]),
  restart: Schema.Literals(["permanent", "transient", "temporary"]),
  generation: Count,
  age: Schema.optionalKey(Count),
  restarts: Count,
  intensity: Schema.optionalKey(Schema.Struct({ spent: Count, restarts: Count, within: Schema.Number })),
  attempt: Schema.optionalKey(Count),
  lastExit: Schema.optionalKey(Schema.String),
  mailbox: Schema.optionalKey(
    Schema.Struct({ depth: Count, capacity: Schema.Union([Count, Schema.Literal("unbounded")]) })
  ),
  suspended: Schema.optionalKey(Schema.Boolean),
  zombies: Count,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Node> => Node))
})

/**
 * A snapshot as JSON text.
 *
 * @category schemas
 * @since 0.1.0
 */
export const json = Schema.fromJsonString(Node)

/**
 * What can be looked into: the ref of any kind of supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface Observable {
  readonly snapshot: Effect.Effect<Node>
  readonly events: Stream.Stream<SupervisionEvent>
}

/**
 * The tree below a supervisor, now.
 *
 * @category accessors
 * @since 0.1.0
 */
export const snapshot = (supervisor: Observable): Effect.Effect<Node> => supervisor.snapshot

/**
 * The tree as it is, and again after each change. Ends with the tree.
 *
 * @category accessors
 * @since 0.1.0
 */
export const changes = (supervisor: Observable): Stream.Stream<Node> =>
  Stream.concat(
    Stream.fromEffect(supervisor.snapshot),
    supervisor.events.pipe(
      Stream.chunks,
      Stream.mapEffect(() => supervisor.snapshot)
    )
  )

/**
 * Every node of a tree, parents before their children.
 *
 * @category accessors
 * @since 0.1.0
 */
export const flatten = (node: Node): ReadonlyArray<Node> => [node, ...node.children.flatMap(flatten)]

/**
 * A tree in lines of text, for a terminal or a log.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (node: Node, indent = ""): string => {
  const notes = [
    node.status,
    node.restarts > 0 ? `${node.restarts} restarts` : "",
    node.mailbox !== undefined && node.mailbox.depth > 0 ? `${node.mailbox.depth} waiting` : "",
    node.zombies > 0 ? `${node.zombies} zombies` : "",
    node.lastExit === undefined ? "" : `last: ${node.lastExit}`
  ]
  const line = `${indent}${node.id} (${notes.filter((note) => note !== "").join(", ")})`
  return [line, ...node.children.map((child) => format(child, `${indent}  `))].join("\n")
}
