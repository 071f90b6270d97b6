import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as ExitReason from "../ExitReason.ts"
import type { SupervisorError } from "../SupervisorError.ts"
import { ActorBlueprint } from "./actorChild.ts"
import type { Definition } from "./definition.ts"
import { StartChild, dynamicPlanOf } from "./dynamicChild.ts"
import type { Registration } from "./names.ts"
import { invalid } from "./plan.ts"
import { relationsOf } from "./relations.ts"
import { startDynamic } from "./rootSupervisor.ts"
import { idProblem, nameProblem, workerSettingsOf } from "./settings.ts"
import { detached } from "./system.ts"
import { type Target, childOf } from "./target.ts"

interface StartOptions {
  readonly id?: string | undefined
  readonly startLimit?: Duration.Input | undefined
  readonly names?: ReadonlyArray<Registration> | undefined
}

/** Starts one temporary actor under a supervisor of its own, which only gives it a place to live in. */
export const startAlone = (
  definition: Definition,
  arg: unknown,
  options: StartOptions
): Effect.Effect<Target, SupervisorError, Scope.Scope> =>
  Effect.gen(function* () {
    const id = options.id ?? definition.name
    const [settings, problem] = workerSettingsOf({ ...options, restart: "temporary" })
    const found = idProblem(id) ?? problem ?? nameProblem(settings, definition)
    if (found !== undefined) return yield* invalid(String(id), found)
    const supervisor = yield* startDynamic("actor", dynamicPlanOf(id, {}), () => undefined)
    const context = detached(yield* Effect.context<never>())
    const blueprint = new ActorBlueprint(id, settings, undefined, definition, arg)
    return (yield* new StartChild(supervisor, { blueprint }, context)) as Target // the ref of an actor
  })

/** Starts an actor, tells who it is, and ends as it does. */
export const enterAlone = <E, R>(
  definition: Definition,
  options: StartOptions,
  announce: ((ref: unknown) => Effect.Effect<void, E, R>) | undefined
): Effect.Effect<void, SupervisorError | E, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      const ref = yield* startAlone(definition, undefined, options)
      const child = childOf(ref)
      const ended = Effect.callback<ExitReason.ExitReason>((resume) => {
        if (child.status !== "up") return resume(Effect.succeed(child.lastExit ?? ExitReason.normal))
        const watcher = { notify: (_: number, reason: ExitReason.ExitReason) => resume(Effect.succeed(reason)) }
        const { watchers } = relationsOf(child)
        watchers.add(watcher)
        return Effect.sync(() => watchers.delete(watcher))
      })
      if (announce !== undefined) yield* announce(ref)
      const reason = yield* ended
      if (reason._tag === "Crash") return yield* Exit.failCause(reason.cause) as Exit.Exit<never> // its own failure
      if (reason._tag === "Killed") return yield* Effect.interrupt
    })
  )
