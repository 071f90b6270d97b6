import { Actor, type ChildSpec, type ExitReason, type SupervisorError, type SupervisorRef } from "@tinkex/supervision"
import { Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"

/** Why a request was refused. */
export const refusal = <A, R>(request: Effect.Effect<A, SupervisorError.SupervisorError, R>) =>
  Effect.map(Effect.flip(request), ({ reason }) => reason)

/** The name of the refusal. */
export const refusedAs = <A, R>(request: Effect.Effect<A, SupervisorError.SupervisorError, R>) =>
  Effect.map(refusal(request), ({ _tag }) => _tag)

/** What a child did not come up with, or why a supervisor gave up. */
export const errorOf = (exit: ExitReason.ExitReason) => (exit._tag === "Crash" ? exit.error : undefined)

/** `id status` of all entries, the latest first. */
export const statuses = (supervisor: SupervisorRef.Supervising) =>
  Effect.map(supervisor.whichChildren, (children) => children.map(({ id, status }) => `${id} ${status}`))

/** `specs/active/supervisors/workers`. */
export const counts = (supervisor: SupervisorRef.Supervising) =>
  Effect.map(supervisor.countChildren, ({ active, specs, supervisors, workers }) =>
    [specs, active, supervisors, workers].join("/")
  )

/** Input that no compiler has seen, where a spec should be. */
export const untyped = (input: unknown) => input as ChildSpec.ChildSpec<"x", unknown, never> // the engine is to find out

/**
 * Starts something in a scope of its own, which `stop` closes. The clock is touched first: the very first sleep on a test
 * clock forks its warning in an interruptible region, which would end a finalizer that sleeps.
 */
export const stoppable = <A, E, R>(start: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    yield* TestClock.adjust(0)
    const scope = yield* Scope.make()
    const tree = yield* Effect.provideService(start, Scope.Scope, scope)
    return { tree, stop: Scope.close(scope, Exit.void) }
  })

/** Its init says that there is nothing to run. */
export class Idle extends Actor.make("Idle", { init: (_arg: void) => Actor.ignore }) {}

/** Starts as long as `broken` is not set, and counts the attempts. */
export class Fragile extends Actor.make("Fragile", {
  init: (arg: { broken: boolean; attempts: number }) =>
    Effect.suspend(() => {
      arg.attempts++
      return arg.broken ? Effect.fail("broken") : Effect.succeed(arg)
    }),
  call: { ping: (self) => self.generation },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}
