/**
 * What a supervisor starts, and how.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AnyActor, Argument, Returned, Services } from "./Actor.ts"
import type { ActorRef } from "./ActorRef.ts"
import type { EffectRef } from "./EffectRef.ts"
import { ActorBlueprint } from "./internal/actorChild.ts"
import type { Blueprint, Restart, Settings } from "./internal/child.ts"
import { EffectBlueprint } from "./internal/effectChild.ts"
import { type SupervisorOptions, planOf } from "./internal/plan.ts"
import { SupervisorBlueprint } from "./internal/supervisorChild.ts"
import type { SupervisorRef } from "./SupervisorRef.ts"

/**
 * Brand of child specs.
 *
 * @category type ids
 * @since 0.1.0
 */
export const TypeId = "~@tinkex/supervision/ChildSpec" as const

/**
 * A child to be: its id, the type of its handle, and what it needs. The needs are taken from the program when the spec is
 * handed to a supervisor, and every incarnation gets the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildSpec<out Id extends string, out Ref, out R> {
  readonly [TypeId]: { readonly ref: (_: never) => Ref; readonly services: (_: never) => R }
  readonly id: Id
  /** @internal */
  readonly blueprint: Blueprint
}

/**
 * @category models
 * @since 0.1.0
 */
export type Any = ChildSpec<string, unknown, unknown>

/**
 * The handles of a list of specs, by id.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Refs<Children extends ReadonlyArray<Any>> = {
  readonly [Spec in Children[number] as Spec["id"]]: Returned<Spec[typeof TypeId]["ref"]>
}

/**
 * What a list of specs needs.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Requirements<Children extends ReadonlyArray<Any>> = Returned<Children[number][typeof TypeId]["services"]>

/**
 * @category options
 * @since 0.1.0
 */
export interface ChildOptions {
  /**
   * `permanent` (default): restarted after every end. `transient`: restarted after a crash. `temporary`: never restarted,
   * forgotten at its end.
   */
  readonly restart?: Restart | undefined
  /**
   * How long a stop may take before the child is fenced and left behind: a duration, `"infinity"`, or `"brutal"` for no
   * wait at all. Default 5 seconds; infinity for supervisors.
   */
  readonly shutdown?: Duration.Input | "infinity" | "brutal" | undefined
  /** How long `init` may take. Default: no limit. */
  readonly startLimit?: Duration.Input | undefined
}

const settingsOf = (options: ChildOptions, usual: Duration.Duration): Settings => {
  const shutdown = options.shutdown ?? usual
  return {
    restart: options.restart ?? "permanent",
    shutdown:
      shutdown === "brutal"
        ? shutdown
        : shutdown === "infinity"
          ? Duration.infinity
          : Duration.fromInputUnsafe(shutdown),
    startLimit: options.startLimit === undefined ? undefined : Duration.fromInputUnsafe(options.startLimit)
  }
}

const workerShutdown = Duration.seconds(5)
const workerSettings = settingsOf({}, workerShutdown)

const workerSettingsOf = (options: ChildOptions | undefined): Settings =>
  options === undefined ? workerSettings : settingsOf(options, workerShutdown)

// the phantom member exists for the compiler only, which is why the record needs a name for its type
const specOf = <Id extends string, Ref, R>(id: Id, blueprint: Blueprint): ChildSpec<Id, Ref, R> =>
  ({ [TypeId]: {}, id, blueprint }) as never

/**
 * An actor with the argument of its `init`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const actor = <const Id extends string, A extends AnyActor>(
  id: Id,
  actor: A,
  arg: Argument<A>,
  options?: ChildOptions
): ChildSpec<Id, ActorRef<A>, Services<A>> =>
  specOf(id, new ActorBlueprint(id, workerSettingsOf(options), actor.definition, arg))

/**
 * An effect that runs in a fiber of its own, with a fresh scope per incarnation. It counts as started at its first step.
 * Unlike an actor it is usually started to end: say so with `restart: "transient"` or `"temporary"`. Its end is observed
 * through the `exit` of its handle.
 *
 * @category constructors
 * @since 0.1.0
 */
export const effect = <const Id extends string, A, E, R>(
  id: Id,
  effect: Effect.Effect<A, E, R>,
  options?: ChildOptions
): ChildSpec<Id, EffectRef<A, E>, Exclude<R, Scope.Scope>> => {
  // its services are in the context that the supervisor captured with this spec
  const run = Effect.scoped(effect) as Effect.Effect<A, E>
  return specOf(id, new EffectBlueprint(id, workerSettingsOf(options), run))
}

/**
 * A supervisor as a child. When it is restarted, its listed children begin anew and those that were added to it are gone.
 *
 * @category constructors
 * @since 0.1.0
 */
export const supervisor = <const Id extends string, const Children extends ReadonlyArray<Any>>(
  id: Id,
  options: SupervisorOptions<Children> & ChildOptions
): ChildSpec<Id, SupervisorRef<Refs<Children>>, Requirements<Children>> =>
  specOf(id, new SupervisorBlueprint(id, settingsOf(options, Duration.infinity), planOf(id, options)))
