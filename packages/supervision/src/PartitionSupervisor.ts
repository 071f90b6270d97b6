/**
 * The same child several times, with keys spread over the copies.
 *
 * One actor that everybody needs is a queue for everybody. Several copies, each responsible for a part of the keys, are
 * several queues. Here the books of a bank are kept by four clerks, and an account number always leads to the same one.
 * `// =>` shows what an expression returns.
 *
 * ```ts
 * import { Actor, ChildSpec, PartitionSupervisor } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Clerk extends Actor.make("Clerk", {
 *   init: (desk: number) => ({ desk, books: new Map<number, number>() }),
 *   call: {
 *     desk: (self) => self.state.desk,
 *     deposit(self, { account, amount }: { readonly account: number; readonly amount: number }) {
 *       const balance = (self.state.books.get(account) ?? 0) + amount
 *       self.state.books.set(account, balance)
 *       return balance
 *     }
 *   }
 * }) {}
 *
 * const bank = Effect.gen(function* () {
 *   const clerks = yield* PartitionSupervisor.start({
 *     name: "clerks",
 *     partitions: 4,
 *     child: (desk) => ChildSpec.actor("clerk", Clerk, desk)
 *   })
 *   yield* clerks.route(4711).call.desk() // => 3
 *   yield* clerks.route(4711).call.deposit({ account: 4711, amount: 10 }) // => 10
 *   yield* clerks.route(4711).call.deposit({ account: 4711, amount: 5 }) // => 15
 *   clerks.partitions.map((clerk) => clerk.path).join(" ") // => "clerks/0 clerks/1 clerks/2 clerks/3"
 * })
 * ```
 *
 * | option | meaning | default |
 * | --- | --- | --- |
 * | `child` | a function from the index, which counts from 0, to a spec; the index becomes its id | |
 * | `partitions` | how many, a whole number from 1 | the processors that the runtime reports |
 * | `intensity` | restarts for all partitions together, see `Supervisor` | 3 within 5 seconds |
 * | `backoff` | delay before each restart, for partitions that name none of their own | none |
 * | `autoShutdown`, `giveUp`, `when` | as for `Supervisor` | `never`, `crash`, always |
 * | `name` | the first part of every path in the tree, for a root | `"supervisor"` |
 *
 * `start` is refused with `InvalidRequest` when an option makes no sense or `child` throws, with `StartFailed`, in
 * which case the partitions before are stopped again, and with `Ignored` when its `when` says so.
 *
 * **Guarantees.** A key always leads to the same partition, over restarts and in other processes (P1): whole numbers by
 * their absolute value modulo the number of partitions, anything else by its hash. Each partition is a child of an
 * ordinary supervisor of the strategy `one_for_one`, with the index as its id (P2).
 *
 * **Not guaranteed.** All partitions run on one thread. What they buy is shorter queues, and that a partition that
 * crashes, or waits, leaves the others alone. The number of partitions cannot change while they run. An object without
 * a hash of its own value, such as a function, leads to the same partition only within its process.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type ChildOptions, type ChildSpec, specOf } from "./ChildSpec.ts"
import { ownSettingsOf } from "./internal/settings.ts"
import { Blueprint } from "./internal/child.ts"
import { type CommonOptions, type Plan, blueprintOf, invalid, planOf } from "./internal/plan.ts"
import { startListed } from "./internal/rootSupervisor.ts"
import { type Facade, SupervisorBlueprint } from "./internal/supervisorChild.ts"
import { observe } from "./internal/supervisorRef.ts"
import { SupervisorError } from "./SupervisorError.ts"
import type { Supervising } from "./SupervisorRef.ts"

/**
 * @category options
 * @since 0.1.0
 */
export interface PartitionSupervisorOptions<Ref, R> extends CommonOptions {
  /** How many, a whole number from 1. Default: the processors that the runtime reports. */
  readonly partitions?: number | undefined
  /** The spec of one partition. Its id is replaced by the index, which counts from 0. */
  readonly child: (partition: number) => ChildSpec<string, Ref, R>
}

/**
 * The handle of a partition supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartitionSupervisorRef<out Ref> extends Supervising {
  /** The handles of all partitions, by index. */
  readonly partitions: ReadonlyArray<Ref>
  /** The partition of a key. */
  readonly route: (key: unknown) => Ref
}

/**
 * The index of the partition that a key leads to.
 *
 * @category routing
 * @since 0.1.0
 */
export const partitionOf = (key: unknown, partitions: number): number => {
  const number = typeof key === "number" && Number.isSafeInteger(key) ? key : Hash.hash(key)
  return Math.abs(number) % partitions
}

const partitionPlanOf = (
  name: string,
  options: PartitionSupervisorOptions<unknown, unknown>
): Plan | SupervisorError => {
  const { child, partitions = globalThis.navigator?.hardwareConcurrency ?? 1, ...common } = options
  if (!Number.isSafeInteger(partitions) || partitions < 1) {
    const problem = `it is ${String(partitions)}; give a whole number from 1`
    return invalid(name, { field: "partitions", problem })
  }
  if (typeof child !== "function") {
    const problem = `it is ${String(child)}; give a function from the index to a child spec`
    return invalid(name, { field: "child", problem })
  }
  const children: Array<{ readonly blueprint: Blueprint }> = []
  for (let index = 0; index < partitions; index++) {
    let blueprint: ReturnType<typeof blueprintOf>
    try {
      blueprint = blueprintOf(child(index), "child")
    } catch (error) {
      return invalid(name, { field: "child", problem: `it threw ${String(error)} for partition ${index}` })
    }
    if (!(blueprint instanceof Blueprint)) return invalid(name, blueprint)
    children.push({ blueprint: blueprint.with(blueprint.settings, String(index)) })
  }
  return planOf(name, { ...common, children })
}

const facade: Facade = (supervisor): PartitionSupervisorRef<unknown> => {
  const partitions = supervisor.listed.map((child) => child.ref)
  return {
    ...observe(supervisor),
    partitions,
    route: (key) => partitions[partitionOf(key, partitions.length)]
  }
}

/**
 * Starts all partitions. They belong to the surrounding scope and stop with it.
 *
 * **Example** (Four workers)
 *
 * ```ts
 * import { Actor, ChildSpec, PartitionSupervisor } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Worker extends Actor.make("Worker", {
 *   init: (partition: number) => ({ partition }),
 *   call: { where: (self) => self.state.partition }
 * }) {}
 *
 * const program = Effect.gen(function* () {
 *   const workers = yield* PartitionSupervisor.start({
 *     partitions: 4,
 *     child: (partition) => ChildSpec.actor("worker", Worker, partition)
 *   })
 *   return yield* workers.route(-6).call.where() // 2
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fn("PartitionSupervisor.start")(function* <Ref, R>(
  options: PartitionSupervisorOptions<Ref, R> & { readonly name?: string | undefined }
): Effect.fn.Return<PartitionSupervisorRef<Ref>, SupervisorError, R | Scope.Scope> {
  const name = options.name ?? "supervisor"
  const supervisor = yield* startListed(name, partitionPlanOf(name, options), facade)
  return supervisor.ref as PartitionSupervisorRef<Ref> // the facade's, over the specs of that type
})

/**
 * A partition supervisor as a child of another.
 *
 * @category constructors
 * @since 0.1.0
 */
export const childSpec = <const Id extends string, Ref, R>(
  id: Id,
  options: PartitionSupervisorOptions<Ref, R> & ChildOptions
): ChildSpec<Id, PartitionSupervisorRef<Ref>, R> => {
  const [settings, problem] = ownSettingsOf(id, options)
  return specOf(id, new SupervisorBlueprint(id, settings, problem, partitionPlanOf(id, options), facade))
}

/**
 * The partitions as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <Ref, R>(
  options: PartitionSupervisorOptions<Ref, R> & { readonly name?: string | undefined }
): Layer.Layer<never, SupervisorError, Exclude<R, Scope.Scope>> => Layer.effectDiscard(start(options))
