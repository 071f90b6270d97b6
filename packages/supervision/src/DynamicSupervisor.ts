/**
 * Supervisors whose children are added while they run.
 *
 * An ordinary supervisor knows its children when it starts, by id and in order. A dynamic one starts with none, takes any
 * spec at any time, and knows each child by the handle that `startChild` returned; two children may have the same id. Its
 * children are independent of each other: what is done with one never waits for another, and when the supervisor stops, all
 * of them are asked at the same time, each with its own limit.
 *
 * **Guarantees.** Never more than `maxChildren` are listed, those that wait for a restart included (D1). A child that ended
 * for good leaves nothing behind, and a temporary one never keeps its arguments (D2). Restarts, intensity, backoff, fencing
 * and events are those of every supervisor (D3). Starting and stopping cost the same per child, however many there are (D4).
 *
 * **Not guaranteed.** There is no order among the children, at the start, at the end or ever. A child that was terminated
 * is gone: there is nothing to restart or delete.
 *
 * **Example** (One counter per visitor)
 *
 * ```ts
 * import { Actor, ChildSpec, DynamicSupervisor } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Counter extends Actor.make("Counter", {
 *   init: (start: number) => ({ total: start }),
 *   call: { add: (self, n: number) => (self.state.total += n) }
 * }) {}
 *
 * const program = Effect.gen(function* () {
 *   const visitors = yield* DynamicSupervisor.start({ maxChildren: 10_000 })
 *   const first = yield* visitors.startChild(ChildSpec.actor("visitor", Counter, 0, { restart: "temporary" }))
 *   const second = yield* visitors.startChild(ChildSpec.actor("visitor", Counter, 10))
 *   yield* first.call.add(1) //  1
 *   yield* second.call.add(1) // 11
 *   yield* visitors.terminateChild(first)
 *   return yield* visitors.countChildren // { specs: 1, active: 1, supervisors: 0, workers: 1 }
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type ChildOptions, type ChildSpec, specOf } from "./ChildSpec.ts"
import { supervisorSettingsOf, withoutOwnBackoff } from "./internal/settings.ts"
import { DynamicBlueprint, DynamicChild, type DynamicFacade, dynamicPlanOf } from "./internal/dynamicChild.ts"
import type { CommonOptions } from "./internal/plan.ts"
import { startRoot } from "./internal/rootSupervisor.ts"
import { checked, observe } from "./internal/supervisorRef.ts"
import { type Target, childOf } from "./internal/target.ts"
import type { SupervisorError } from "./SupervisorError.ts"
import type { Supervising } from "./SupervisorRef.ts"

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
  /** Takes new options while everything runs; what is left out stays. A lower limit keeps the children that there are. */
  readonly reconfigure: (options: DynamicSupervisorOptions) => Effect.Effect<void, SupervisorError>
}

const facade: DynamicFacade = (supervisor): DynamicSupervisorRef => ({
  ...observe(supervisor),
  startChild: <Id extends string, Ref, R>(spec: ChildSpec<Id, Ref, R>) =>
    checked(supervisor.path, spec, (blueprint, context) => supervisor.startChild<Ref>(blueprint, context)),
  terminateChild: (child) => Effect.suspend(() => supervisor.terminateChild(childOf(child))),
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
  const [settings, problem] = supervisorSettingsOf({ restart: "temporary" })
  const blueprint = new DynamicBlueprint(name, settings, problem, dynamicPlanOf(name, options), facade)
  const supervisor = yield* startRoot((context, system) => new DynamicChild(undefined, blueprint, context, system))
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
  const [settings, problem] = supervisorSettingsOf(options)
  return specOf(id, new DynamicBlueprint(id, withoutOwnBackoff(settings), problem, dynamicPlanOf(id, options), facade))
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
