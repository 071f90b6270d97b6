/**
 * Supervisors whose children are added while they run.
 *
 * An ordinary supervisor knows its children when it starts, by id and in order. A dynamic one starts with none, takes
 * any spec at any time, and knows each child by the handle that `startChild` returned; two children may have the same
 * id. In our bank, customers open accounts. `// =>` shows what an expression returns.
 *
 * ```ts
 * import { Actor, ChildSpec, DynamicSupervisor, Supervisor } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: {
 *     balance: (self) => self.state.balance,
 *     deposit: (self, amount: number) => (self.state.balance += amount),
 *     corrupt: (): number => {
 *       throw new Error("bit flip")
 *     }
 *   }
 * }) {}
 *
 * const open = (amount: number) => ChildSpec.actor("account", Account, amount)
 *
 * const customers = Effect.gen(function* () {
 *   const accounts = yield* DynamicSupervisor.start({ name: "accounts", maxChildren: 2 })
 *   const first = yield* accounts.startChild(open(100))
 *   const second = yield* accounts.startChild(open(50))
 *   yield* second.call.deposit(5) // => 55
 *
 *   const refused = yield* Effect.flip(accounts.startChild(open(0)))
 *   refused.reason._tag // => "MaxChildren"
 *
 *   yield* Effect.flip(first.call.corrupt())
 *   yield* first.call.balance() // => 100
 *
 *   yield* accounts.terminateChild(first)
 *   yield* accounts.countChildren // => { specs: 1, active: 1, supervisors: 0, workers: 1 }
 * })
 * ```
 *
 * Restart types, budgets, backoff and everything else that `ChildSpec` offers work as in an ordinary supervisor of the
 * strategy `one_for_one`. A child that comes and goes is `temporary`: it leaves when it ends, and its supervisor does
 * not give up because it crashes.
 *
 * ```ts
 * const visits = Effect.gen(function* () {
 *   const accounts = yield* DynamicSupervisor.start()
 *   const guest = yield* accounts.startChild(ChildSpec.actor("guest", Account, 0, { restart: "temporary" }))
 *   yield* Effect.flip(guest.call.corrupt())
 *   const gone = yield* Effect.flip(guest.call.balance())
 *   gone.reason._tag // => "NoProcess"
 *   yield* accounts.countChildren // => { specs: 0, active: 0, supervisors: 0, workers: 0 }
 * })
 * ```
 *
 * `childSpec` puts one below an ordinary supervisor. When it gives up, or is dragged along, it begins anew without
 * children, so whoever opened them stands behind it, under `rest_for_one`:
 *
 * ```ts
 * class Tellers extends Actor.make("Tellers", {
 *   *init(accounts: DynamicSupervisor.DynamicSupervisorRef) {
 *     return { open: yield* accounts.startChild(open(10)) }
 *   },
 *   call: {
 *     *total(self) {
 *       return yield* self.state.open.call.balance()
 *     }
 *   }
 * }) {}
 *
 * const bank = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({
 *     strategy: "rest_for_one",
 *     children: [DynamicSupervisor.childSpec("accounts")]
 *   })
 *   const tellers = yield* tree.startChild(ChildSpec.actor("tellers", Tellers, tree.refs.accounts))
 *   yield* tellers.call.total() // => 10
 * })
 * ```
 *
 * | option | meaning | default |
 * | --- | --- | --- |
 * | `maxChildren` | children that may be listed at a time, those that wait for a restart included | no limit |
 * | `intensity` | restarts for all children together, see `Supervisor` | 3 within 5 seconds |
 * | `backoff` | delay before each restart, for children that name none of their own | none |
 * | `autoShutdown`, `giveUp`, `when` | as for `Supervisor` | `never`, `crash`, always |
 * | `name` | the first part of every path in the tree, for a root | `"supervisor"` |
 *
 * | request | refused with |
 * | --- | --- |
 * | `start` | `InvalidRequest`, `Ignored` |
 * | `startChild` | `MaxChildren`, `StartFailed`, `Ignored` (nothing is kept then), `InvalidRequest` |
 * | `terminateChild`, `childSpec` | `NotFound` for the handle of a stranger, or of a child that is gone |
 * | `reconfigure` | `InvalidRequest` |
 *
 * All but `childSpec` are refused with `SupervisorStopped` once it has ended.
 *
 * **Guarantees.** Never more than `maxChildren` are listed, those that wait for a restart included (D1). A child that
 * ended for good leaves nothing behind, and a temporary one never keeps its arguments (D2). Restarts, intensity,
 * backoff, fencing and events are those of every supervisor (D3). Starting and stopping cost the same per child,
 * however many there are (D4). What is done with one child never waits for another, and when the supervisor stops, all
 * are asked at the same time, each with its own limit (D5).
 *
 * **Not guaranteed.** There is no order among the children, at the start, at the end or ever. A child that was
 * terminated is gone: there is nothing to restart or delete. A lower `maxChildren` stops nobody.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type ChildOptions, type ChildSpec, specOf } from "./ChildSpec.ts"
import { ownSettingsOf } from "./internal/settings.ts"
import { DynamicBlueprint, type DynamicFacade, StartChild, dynamicPlanOf } from "./internal/dynamicChild.ts"
import type { CommonOptions } from "./internal/plan.ts"
import { startDynamic } from "./internal/rootSupervisor.ts"
import { observe, settingsOf } from "./internal/supervisorRef.ts"
import { type Target, childOf, generationOf } from "./internal/target.ts"
import type { SupervisorError } from "./SupervisorError.ts"
import type { ChildSettings, Supervising } from "./SupervisorRef.ts"

/**
 * @category options
 * @since 0.1.0
 */
export interface DynamicSupervisorOptions extends CommonOptions {
  /** Children that may be listed at a time, a whole number from 0. Default: no limit. */
  readonly maxChildren?: number | undefined
}

/**
 * @category options
 * @since 0.1.0
 */
export interface RootOptions extends DynamicSupervisorOptions {
  /** The first part of every path in this tree. Default `"supervisor"`. */
  readonly name?: string | undefined
}

/**
 * The handle of a dynamic supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface DynamicSupervisorRef extends Supervising {
  /**
   * Adds a child and starts it. Refused with `MaxChildren` when there is no room, with `StartFailed` when it does not come
   * up, and with `Ignored` when it has nothing to run.
   */
  readonly startChild: <Id extends string, Ref, R>(
    spec: ChildSpec<Id, Ref, R>
  ) => Effect.Effect<Ref, SupervisorError, R>
  /** Stops a child by its handle, also one that waits for a restart. Refused with `NotFound` for any other. */
  readonly terminateChild: (child: Target) => Effect.Effect<void, SupervisorError>
  /** The stored spec of a child. Refused with `NotFound` for any other. */
  readonly childSpec: (child: Target) => Effect.Effect<ChildSettings, SupervisorError>
  /** Takes new options while everything runs; what is left out stays. A lower limit keeps the children that there are. */
  readonly reconfigure: (options: DynamicSupervisorOptions) => Effect.Effect<void, SupervisorError>
}

const facade: DynamicFacade = (supervisor): DynamicSupervisorRef => ({
  ...observe(supervisor),
  startChild: <Id extends string, Ref, R>(spec: ChildSpec<Id, Ref, R>) =>
    new StartChild(supervisor, spec) as Effect.Effect<Ref, SupervisorError, R>, // its ref is what the spec's type names
  terminateChild: (child) => Effect.suspend(() => supervisor.terminateChild(childOf(child), generationOf(child))),
  childSpec: (handle) =>
    Effect.suspend(() => {
      const child = childOf(handle)
      const refused = supervisor.notFound(child, generationOf(handle))
      return refused === undefined ? Effect.succeed(settingsOf(child)) : Effect.fail(refused)
    }),
  reconfigure: (options) => supervisor.reconfigure(options)
})

/**
 * Starts a dynamic supervisor. It belongs to the surrounding scope and stops with it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fn("DynamicSupervisor.start")(function* (
  options: RootOptions = {}
): Effect.fn.Return<DynamicSupervisorRef, SupervisorError, Scope.Scope> {
  const name = options.name ?? "supervisor"
  const supervisor = yield* startDynamic(name, dynamicPlanOf(name, options), facade)
  return supervisor.ref as DynamicSupervisorRef // the facade's
})

/**
 * A dynamic supervisor as a child of another. After a restart it begins without children.
 *
 * @category constructors
 * @since 0.1.0
 */
export const childSpec = <const Id extends string>(
  id: Id,
  options: DynamicSupervisorOptions & ChildOptions = {}
): ChildSpec<Id, DynamicSupervisorRef, never> => {
  const [settings, problem] = ownSettingsOf(id, options)
  return specOf(id, new DynamicBlueprint(id, settings, problem, dynamicPlanOf(id, options), facade))
}

/**
 * A dynamic supervisor as a layer. To hand it out, write
 * `Layer.effect(Visitors, DynamicSupervisor.start({ maxChildren: 100 }))`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: RootOptions = {}): Layer.Layer<never, SupervisorError> =>
  Layer.effectDiscard(start(options))
