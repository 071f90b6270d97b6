/**
 * What a supervisor starts, and how.
 *
 * A spec is a value: an id, what to run, and options. Nothing happens before it is handed to a supervisor, and the same
 * spec may be handed to several. There are three kinds: an actor with the argument of its `init`, an effect that runs
 * in a fiber of its own, and a supervisor with children of its own.
 *
 * ```ts
 * import { Actor, ChildSpec, Supervisor } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: { balance: (self) => self.state.balance }
 * }) {}
 *
 * const accounts = ChildSpec.supervisor("accounts", {
 *   strategy: "one_for_all",
 *   children: [ChildSpec.actor("alice", Account, 100), ChildSpec.actor("bob", Account, 50)]
 * })
 * const statement = ChildSpec.effect("statement", Effect.succeed("150 in 2 accounts"), { restart: "temporary" })
 *
 * const bank = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({ name: "bank", children: [accounts, statement] })
 *   yield* tree.refs.accounts.refs.bob.call.balance() // => 50
 *   yield* Effect.flatten(tree.refs.statement.exit) // => "150 in 2 accounts"
 * })
 * ```
 *
 * **Services.** What `init`, handlers and effects need is taken from the program where the spec is handed over, and
 * every incarnation gets the same. `ChildSpec.provide` builds a layer anew for each incarnation instead: a connection
 * that broke is not inherited.
 *
 * **Options.** All of them have a default, and `tree.childSpec(id)` shows most of what is stored.
 *
 * | option | values | default |
 * | --- | --- | --- |
 * | `restart` | `permanent`: after every end. `transient`: after a crash or kill | `permanent` |
 * | | `temporary`: never; forgotten at its end, and so are its arguments | |
 * | `shutdown` | how long a stop may take: a duration, `"infinity"`, or `"brutal"` for no time | 5 seconds |
 * | `stuck` | what follows when that was not enough. `abandon`: it is left behind as a zombie | `abandon` |
 * | | `wait`: everything waits until it has ended. `fail`: its supervisor ends, with `ChildStuck` | |
 * | `startLimit` | how long a start may take, layers included: a duration | 30 seconds |
 * | `readiness` | for effects. `immediate`: up at the first step. `signalled`: up when it runs `ready` | `immediate` |
 * | `backoff` | a `Backoff`, or `"none"` where the supervisor has one for all | the supervisor's |
 * | `budget` | `restarts` (3) `within` (5 seconds) for this child alone; when `exceeded`, | no limit of its own |
 * | | the supervisor gives up (`escalate`, default) or only the child stays down (`stop`) | |
 * | `decide` | what a crash means, see `Decision` | the restart type |
 * | `significant` | its end may end its supervisor, see `autoShutdown`; not for permanent children | `false` |
 * | `names` | of a `Registry`, taken before init; for actors | none |
 *
 * For supervisors `shutdown` and `startLimit` are infinite by default, because their children have limits, and
 * `backoff` is that of their children: the delay of a nested supervisor is set on the one above it.
 *
 * ```ts
 * const fixed = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({ children: [ChildSpec.actor("alice", Account, 0, { shutdown: "brutal" })] })
 *   const { restart, shutdown, stuck } = yield* tree.childSpec("alice")
 *   const stored = [restart, shutdown, stuck].join(", ") // => "permanent, brutal, abandon"
 * })
 * ```
 *
 * **Mistakes.** A spec with a mistake can be made. It is refused with `InvalidRequest` where the spec is handed over,
 * and nothing is started; `ChildSpec.validate` asks beforehand. `backoff` and `decide` are checked by the compiler
 * only.
 *
 * ```ts
 * const mistake = Effect.gen(function* () {
 *   const twice = [ChildSpec.actor("alice", Account, 1), ChildSpec.actor("alice", Account, 2)]
 *   const { reason } = yield* Effect.flip(ChildSpec.validate(twice))
 *   const field = reason._tag === "InvalidRequest" ? reason.field : "" // => "children[1].id"
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Pipeable, pipeArguments } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import type { AnyActor, Argument, Returned, Services } from "./Actor.ts"
import type { ActorRef } from "./ActorRef.ts"
import type { EffectRef } from "./EffectRef.ts"
import { ActorBlueprint } from "./internal/actorChild.ts"
import type { Blueprint } from "./internal/child.ts"
import { EffectBlueprint, EffectChild } from "./internal/effectChild.ts"
import { CurrentPlace } from "./internal/place.ts"
import { type AutoShutdown, type SupervisorOptions, blueprintsOf, invalid, oneOf, planOf } from "./internal/plan.ts"
import { type ChildOptions, idProblem, nameProblem, ownSettingsOf, workerSettingsOf } from "./internal/settings.ts"
import { SupervisorBlueprint, plain } from "./internal/supervisorChild.ts"
import type { SupervisorError } from "./SupervisorError.ts"
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
export interface ChildSpec<out Id extends string, out Ref, out R> extends Pipeable {
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

class Spec implements Pipeable {
  readonly [TypeId] = phantom
  readonly id: string
  readonly blueprint: Blueprint

  constructor(id: string, blueprint: Blueprint) {
    this.id = id
    this.blueprint = blueprint
  }

  pipe(): never {
    return pipeArguments(this, arguments) as never // what the last function returns
  }
}

const phantom = {}

/** @internal */
// the phantom member exists for the compiler only, which is why the record needs a name for its type
export const specOf = <Id extends string, Ref, R>(id: Id, blueprint: Blueprint): ChildSpec<Id, Ref, R> =>
  new Spec(id, blueprint) as never

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
): ChildSpec<Id, ActorRef<A>, Services<A>> => {
  const checked = workerSettingsOf(options)
  const settings = checked[0] // taking both apart at once would iterate
  const problem = checked[1]
  const definition = actor?.definition
  const missing =
    definition === undefined
      ? { field: "actor", problem: `it is ${String(actor)}; give a class from Actor.make` }
      : undefined
  const found = idProblem(id) ?? missing ?? problem ?? nameProblem(settings, definition)
  return specOf(id, new ActorBlueprint(id, settings, found, definition, arg))
}

/**
 * @category options
 * @since 0.1.0
 */
export interface EffectOptions extends ChildOptions {
  /** `immediate` (default): it counts as started at its first step. `signalled`: when it has run `ChildSpec.ready`. */
  readonly readiness?: "immediate" | "signalled" | undefined
}

/**
 * An effect that runs in a fiber of its own, with a fresh scope per incarnation. Unlike an actor it is usually started to
 * end: say so with `restart: "transient"` or `"temporary"`. Its end is observed through the `exit` of its handle.
 *
 * @category constructors
 * @since 0.1.0
 */
export const effect = <const Id extends string, A, E, R>(
  id: Id,
  effect: Effect.Effect<A, E, R>,
  options?: EffectOptions
): ChildSpec<Id, EffectRef<A, E>, Exclude<R, Scope.Scope>> => specOf(id, effectBlueprint(id, effect, options, []))

/** @internal */
export const effectBlueprint = <A, E, R>(
  id: string,
  effect: Effect.Effect<A, E, R>,
  options: EffectOptions | undefined,
  callers: ReadonlyArray<string>
): Blueprint => {
  const [settings, problem] = workerSettingsOf(options)
  const missing = Effect.isEffect(effect)
    ? oneOf("readiness", options?.readiness, ["immediate", "signalled"])
    : { field: "effect", problem: `it is ${String(effect)}; give an Effect` }
  // its services are in the context that the supervisor captured with this spec
  const run = (missing === undefined ? Effect.scoped(effect) : Effect.void) as Effect.Effect<A, E>
  const signalsReady = options?.readiness === "signalled"
  const found = idProblem(id) ?? missing ?? problem ?? nameProblem(settings, undefined)
  return new EffectBlueprint(id, settings, found, run, { signalsReady, callers })
}

/**
 * Says that the effect child in which this runs is up; what was started after it waits for that. Nothing happens anywhere
 * else, or the second time.
 *
 * @category effects
 * @since 0.1.0
 */
export const ready: Effect.Effect<void> = Effect.map(CurrentPlace, (place) => {
  if (place?.child instanceof EffectChild) place.child.isReady(place)
})

/**
 * Says that the child in which this runs is doing well: its delays and its budget begin anew. For an actor, also
 * `self.progress()`. Nothing happens outside a child.
 *
 * @category effects
 * @since 0.1.0
 */
export const progress: Effect.Effect<void> = Effect.map(CurrentPlace, (place) => {
  if (place?.live === true) place.child.progress()
})

/**
 * A supervisor as a child. When it is restarted, its listed children begin anew and those that were added to it are gone.
 *
 * @category constructors
 * @since 0.1.0
 */
export const supervisor = <const Id extends string, const Children extends ReadonlyArray<Any>>(
  id: Id,
  options: SupervisorOptions<Children> & ChildOptions
): ChildSpec<Id, SupervisorRef<Refs<Children>>, Requirements<Children>> => {
  const [settings, problem] = ownSettingsOf(id, options)
  return specOf(id, new SupervisorBlueprint(id, settings, problem, planOf(id, options), plain))
}

/**
 * Builds a layer for each incarnation of a child and closes it after the child's end: what is in it is as young as the
 * incarnation. Layers that the program provides around the supervisor are shared and live on.
 *
 * **Example** (A connection that is opened anew with every restart)
 *
 * ```ts
 * import { ChildSpec } from "@tinkex/supervision"
 * import { Context, Effect, Layer } from "effect"
 *
 * class Connection extends Context.Service<Connection, { readonly send: (text: string) => Effect.Effect<void> }>()(
 *   "Connection"
 * ) {}
 * declare const live: Layer.Layer<Connection>
 *
 * const greet = Effect.flatMap(Connection, (connection) => connection.send("hello"))
 * const spec = ChildSpec.effect("greet", greet).pipe(ChildSpec.provide(live))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const provide =
  <A, E, R>(layer: Layer.Layer<A, E, R>) =>
  <Id extends string, Ref, Needs>(
    spec: ChildSpec<Id, Ref, Needs>
  ): ChildSpec<Id, Ref, Exclude<Needs, A> | Exclude<R, Scope.Scope>> => {
    const { id, blueprint } = spec
    const { settings } = blueprint
    // its services are in the context that the supervisor captured with the spec
    const own = layer as Layer.Layer<unknown, unknown>
    const both = settings.layer === undefined ? own : Layer.provideMerge(settings.layer, own)
    return specOf(id, blueprint.with({ ...settings, layer: both as Layer.Layer<unknown, unknown> }))
  }

/**
 * Checks a list of specs without starting anything: the first problem, or nothing.
 *
 * @category validation
 * @since 0.1.0
 */
export const validate = (
  specs: ReadonlyArray<unknown>,
  options: { readonly autoShutdown?: AutoShutdown | undefined } = {}
): Effect.Effect<void, SupervisorError> =>
  Effect.suspend(() => {
    const checked = blueprintsOf(specs, options.autoShutdown ?? "never")
    return "field" in checked ? Effect.fail(invalid("validate", checked)) : Effect.void
  })

export type { ChildOptions }
