/**
 * Supervisors: they start children in order, restart what crashes, and stop everything in reverse.
 *
 * **Guarantees.** Children start one after the other; when one fails, those before it are stopped in reverse order and the
 * start fails (S1). An end is answered by the child's restart type and the strategy; one group restart costs one unit of
 * intensity, and so does every failed attempt (S2). More restarts than the intensity allows end the supervisor: its other
 * children are stopped in reverse order, and its exit is a crash with `MaxRestartsExceeded` (S3). A stop takes no longer
 * than the child's shutdown limit: what does not end by then is fenced, left behind, and reported as a zombie until it ends
 * (S4). No child outlives its supervisor except such a zombie, also when the supervisor itself has a defect (S5). Every end,
 * restart, loss and zombie is an event (S6).
 *
 * **Not guaranteed.** There is no kill: a fiber that is uninterruptible, or never yields, goes on behind the fence and may
 * still hold a port or a file when its successor starts. There is no delay between attempts to restart. A layer that is
 * provided inside an init is shared with the incarnation before, unless it is `Layer.fresh`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Any, type Refs, type Requirements } from "./ChildSpec.ts"
import { supervisorSettingsOf } from "./internal/settings.ts"
import { type SupervisorOptions, planOf } from "./internal/plan.ts"
import { startRoot } from "./internal/rootSupervisor.ts"
import { SupervisorBlueprint, SupervisorChild, plain } from "./internal/supervisorChild.ts"
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
 * up, and with `InvalidRequest` when the options make no sense; interrupting the start stops what had been started.
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
  const [settings, problem] = supervisorSettingsOf({ restart: "temporary" })
  const blueprint = new SupervisorBlueprint(name, settings, problem, planOf(name, options), plain)
  const supervisor = yield* startRoot((context, system) => new SupervisorChild(undefined, blueprint, context, system))
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
