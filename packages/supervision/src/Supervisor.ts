/**
 * Supervisors: they start children in order, restart what crashes, and stop everything in reverse.
 *
 * The examples of this package run a bank whose accounts are actors. This page opens it, breaks an account, and closes
 * it. `// =>` shows what an expression returns.
 *
 * ```ts
 * import { Actor, ChildSpec, Supervisor } from "@tinkex/supervision"
 * import { Effect, Schema } from "effect"
 *
 * class NotEnough extends Schema.TaggedError<NotEnough>()("NotEnough", { missing: Schema.Number }) {}
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: {
 *     balance: (self) => self.state.balance,
 *     deposit: (self, amount: number) => (self.state.balance += amount),
 *     *withdraw(self, amount: number) {
 *       const missing = amount - self.state.balance
 *       if (missing > 0) return yield* new NotEnough({ missing })
 *       return (self.state.balance -= amount)
 *     },
 *     corrupt: (): number => {
 *       throw new Error("bit flip")
 *     }
 *   }
 * }) {}
 *
 * const accounts = [ChildSpec.actor("alice", Account, 100), ChildSpec.actor("bob", Account, 50)] as const
 * const bank = Supervisor.start({ name: "bank", children: accounts })
 * ```
 *
 * `start` is an Effect. It returns when the init of the last child is done, and what it returns lives as long as the
 * surrounding scope. `refs` has a handle per child, with its type:
 *
 * ```ts
 * const customers = Effect.gen(function* () {
 *   const { alice, bob } = (yield* bank).refs
 *   yield* alice.call.deposit(30) // => 130
 *   yield* bob.call.withdraw(20) // => 30
 * })
 * ```
 *
 * **A crash.** A typed failure is an answer, and the account lives on. Anything thrown ends its incarnation: who waits
 * for an answer gets `TargetExit`, and the supervisor starts the account again with the argument of its spec. The
 * handle stays good; what is sent to it meanwhile waits for the next incarnation.
 *
 * ```ts
 * const trouble = Effect.gen(function* () {
 *   const { alice, bob } = (yield* bank).refs
 *   yield* alice.call.deposit(30) // => 130
 *   const refused = yield* Effect.flip(alice.call.withdraw(500))
 *   refused._tag // => "NotEnough"
 *   yield* alice.call.balance() // => 130
 *   const lost = yield* Effect.flip(alice.call.corrupt())
 *   lost.reason._tag // => "TargetExit"
 *   yield* alice.call.balance() // => 100
 *   yield* bob.call.balance() // => 50
 * })
 * ```
 *
 * The first 30 are gone: state is not kept across a crash. Whatever must survive belongs in a database, or in an actor
 * that does less and so crashes less. Messages that wait can be kept, see `acrossRestart` in `Actor`.
 *
 * **What else is restarted.** Who depends on a child that was started before it usually wants to begin anew with it:
 *
 * | `strategy` | restarted together with a crashed child |
 * | --- | --- |
 * | `one_for_one` (default) | nobody |
 * | `one_for_all` | all children |
 * | `rest_for_one` | those that were started after it |
 *
 * ```ts
 * const together = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({
 *     strategy: "rest_for_one",
 *     children: [ChildSpec.actor("vault", Account, 0), ...accounts]
 *   })
 *   yield* Effect.flip(tree.refs.alice.call.corrupt())
 *   yield* tree.refs.alice.call.balance() // => 100
 *   const children = yield* tree.whichChildren // the latest first
 *   children.map((child) => `${child.id} ${child.generation}`) // => [ 'bob 2', 'alice 2', 'vault 1' ]
 * })
 * ```
 *
 * **The budget.** `intensity` (default 3 restarts within 5 seconds) is shared by all children. When a crash asks for
 * more, the supervisor gives up: it stops all children and ends, and its own supervisor decides what to do about that.
 * Nobody decides for a root. Its end is `tree.exit`, or `tree.join`, which fails with the reason:
 *
 * ```ts
 * const broke = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({
 *     name: "bank",
 *     intensity: { restarts: 1, within: "1 minute" },
 *     children: accounts
 *   })
 *   yield* Effect.flip(tree.refs.alice.call.corrupt())
 *   yield* Effect.flip(tree.refs.alice.call.corrupt())
 *   const why = yield* Effect.flip(tree.join)
 *   why.reason._tag // => "MaxRestartsExceeded"
 * })
 * ```
 *
 * A program that is of no use without its tree waits for `join` beside its work; the scope alone does not tell it.
 * Children can have delays, budgets and failure policies of their own: see `Backoff`, `ChildSpec` and `Decision`.
 *
 * **Opening hours.** Children can be added and stopped while the tree runs. Requests are served one at a time; queries
 * answer at once, also while a child starts.
 *
 * ```ts
 * const changes = Effect.gen(function* () {
 *   const tree = yield* bank
 *   const carol = yield* tree.startChild(ChildSpec.actor("carol", Account, 10))
 *   yield* carol.call.deposit(5) // => 15
 *   yield* tree.terminateChild("bob")
 *   yield* tree.countChildren // => { specs: 3, active: 2, supervisors: 0, workers: 3 }
 *   yield* tree.restartChild("bob")
 *   yield* tree.refs.bob.call.balance() // => 50
 *   yield* tree.reconfigure({ intensity: { restarts: 10 } })
 *   const twice = yield* Effect.flip(tree.startChild(ChildSpec.actor("carol", Account, 0)))
 *   twice.reason._tag // => "AlreadyStarted"
 * })
 * ```
 *
 * | request | refused with |
 * | --- | --- |
 * | `start` | `StartFailed`, `InvalidRequest`, `Ignored` |
 * | `startChild` | `AlreadyStarted` (it runs), `AlreadyPresent` (it is known and down), `StartFailed`, `Ignored`, `InvalidRequest` |
 * | `terminateChild` | `NotFound` |
 * | `restartChild` | `NotFound`, `Running`, `Restarting`, `StartFailed`, `Ignored` |
 * | `deleteChild` | `NotFound`, `Running`, `Restarting` |
 * | `childSpec` | `NotFound` |
 * | `reconfigure` | `InvalidRequest` |
 *
 * Each of them is also refused with `SupervisorStopped` once the supervisor has ended, except `childSpec`, and with
 * `InvalidRequest` inside the init of a child that this supervisor is waiting for.
 *
 * **Guarantees.** Children start one after the other; when one fails, those before it are stopped in reverse order and
 * the start fails (S1). An end is answered by the child's restart type and the strategy; one group restart costs one
 * unit of intensity, and so does every failed attempt; what is started or stopped by request costs nothing (S2). More
 * restarts than the intensity allows end the supervisor: its other children are stopped in reverse order, and its exit
 * is a crash with `MaxRestartsExceeded`, or a plain shutdown if `giveUp` says so (S3). A stop takes no longer than the
 * child's shutdown limit: what does not end by then is fenced, left behind, and reported as a zombie until it ends; a
 * child whose spec says `stuck: "wait"` is waited for instead (S4). No child outlives its supervisor except such a
 * zombie, also when the supervisor itself has a defect (S5). Every end, restart, loss and zombie is an event (S6).
 *
 * **Not guaranteed.** There is no kill: a fiber that is uninterruptible, or never yields, goes on behind the fence and
 * may still hold a port or a file when its successor starts. Without a `backoff` there is no delay between attempts to
 * restart, so a child that fails at once uses up the intensity at once. A layer that both the program and an init
 * provide is built once for all incarnations; `ChildSpec.provide`, or `Layer.fresh`, builds it for each.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Any, type Refs, type Requirements } from "./ChildSpec.ts"
import { type SupervisorOptions, planOf } from "./internal/plan.ts"
import { startListed } from "./internal/rootSupervisor.ts"
import { plain } from "./internal/supervisorChild.ts"
import type { SupervisorError } from "./SupervisorError.ts"
import type { SupervisorRef } from "./SupervisorRef.ts"

/**
 * @category options
 * @since 0.1.0
 */
export interface RootOptions<Children> extends SupervisorOptions<Children> {
  /** The first part of every path in this tree. Default `"supervisor"`. */
  readonly name?: string | undefined
}

/**
 * Starts a tree. It belongs to the surrounding scope and stops with it. Fails with `StartFailed` when a child does not come
 * up, with `InvalidRequest` when the options make no sense, and with `Ignored` when its `when` says that there is nothing to
 * run; interrupting the start stops what had been started.
 *
 * **Example** (Supervising a counter)
 *
 * ```ts
 * import { Actor, ChildSpec, Supervisor } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Counter extends Actor.make("Counter", {
 *   init: (start: number) => ({ total: start }),
 *   call: { add: (self, n: number) => (self.state.total += n) }
 * }) {}
 *
 * const program = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({ children: [ChildSpec.actor("counter", Counter, 1)] })
 *   return yield* tree.refs.counter.call.add(2)
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fn("Supervisor.start")(function* <const Children extends ReadonlyArray<Any>>(
  options: RootOptions<Children>
): Effect.fn.Return<SupervisorRef<Refs<Children>>, SupervisorError, Requirements<Children> | Scope.Scope> {
  const name = options.name ?? "supervisor"
  const supervisor = yield* startListed(name, planOf(name, options), plain)
  // the refs were made from the same list of specs that the type is computed from
  return supervisor.ref as SupervisorRef<Refs<Children>>
})

/**
 * A tree as a layer: it starts with the program and stops with it. To hand out its refs, write
 * `Layer.effect(Bank, Effect.map(Supervisor.start(options), (tree) => tree.refs))`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const Children extends ReadonlyArray<Any>>(
  options: RootOptions<Children>
): Layer.Layer<never, SupervisorError, Exclude<Requirements<Children>, Scope.Scope>> =>
  Layer.effectDiscard(start(options))

export type { SupervisorOptions }
