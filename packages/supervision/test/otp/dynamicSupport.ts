import { Actor, type ExitReason, SupervisorError } from "@tinkex/supervision"
import { Effect, Exit, Metric, Scope } from "effect"
import { TestClock } from "effect/testing"

/** Why a request was refused. */
export const refusal = <A, R>(request: Effect.Effect<A, SupervisorError.SupervisorError, R>) =>
  Effect.map(Effect.flip(request), (error) => error.reason._tag)

/** The same with the words. */
export const problem = <A, R>(request: Effect.Effect<A, SupervisorError.SupervisorError, R>) =>
  Effect.map(Effect.flip(request), (error) => `${error.reason._tag}: ${error.message}`)

/** Starts something in a scope of its own, so that a test can stop it. */
export const closable = <A, E, R>(start: Effect.Effect<A, E, R | Scope.Scope>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const it = yield* Effect.provideService(start, Scope.Scope, scope)
    return { it, close: Scope.close(scope, Exit.void) }
  })

/**
 * To be run before an interrupted fiber sleeps in a finalizer: a test clock that was never moved starts a warning with the
 * first sleep, and that start can be interrupted wherever it is.
 */
export const woundUp = TestClock.adjust(0)

export const statuses = (children: ReadonlyArray<{ readonly id: string; readonly status: string }>) =>
  children.map(({ id, status }) => `${id} ${status}`)

export const counts = (specs: number, active: number, supervisors: number, workers: number) => ({
  specs,
  active,
  supervisors,
  workers
})

/** How many `SupervisorError` reasons deep the failure of a start lies, and what it is at the bottom. */
export const rootOf = (exit: ExitReason.ExitReason): unknown => {
  if (exit._tag !== "Crash") return exit._tag
  const { error } = exit
  if (!(error instanceof SupervisorError.SupervisorError)) return error
  return error.reason._tag === "StartFailed" ? rootOf(error.reason.exit) : error.reason._tag
}

/** What the next init of a `Moody` does. */
export type Mood = "ok" | "info" | "ignore" | "error" | "throw" | "hang"

/** An actor whose starts turn out as its argument says at that time. */
export interface Mind {
  mood: Mood
  starts: number
}

export class Moody extends Actor.make("Moody", {
  init: (mind: Mind) =>
    Effect.suspend(() => {
      mind.starts++
      switch (mind.mood) {
        case "ok":
          return Effect.succeed<{ mind: Mind } | Actor.WithInfo<{ mind: Mind }> | Actor.Ignore>({ mind })
        case "info":
          return Effect.succeed(Actor.withInfo({ mind }, `start ${mind.starts}`))
        case "ignore":
          return Effect.succeed(Actor.ignore)
        case "error":
          return Effect.fail("no good")
        case "throw":
          throw new Error("nonsense")
        default:
          return Effect.never
      }
    }),
  call: { ping: (self) => self.generation },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

export const mind = (mood: Mood = "ok"): Mind => ({ mood, starts: 0 })

/** Counts the fibers that are alive, of those that run with `here` around them and below. */
export const census = () => {
  let alive = 0
  const here = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => void alive++,
      recordFiberEnd: () => void alive--
    })
  return { here, alive: () => alive }
}
