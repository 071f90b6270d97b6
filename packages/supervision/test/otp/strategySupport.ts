import { Actor, ChildSpec, ExitReason, SupervisorError, SupervisorRef } from "@tinkex/supervision"
import { type Duration, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"

/** Starts as long as `broken` is not set, and counts how often it was asked to. */
export interface Health {
  broken: boolean
  attempts: number
}

export const health = (): Health => ({ broken: false, attempts: 0 })

export class Fragile extends Actor.make("Fragile", {
  init: (arg: Health) =>
    Effect.suspend(() => {
      arg.attempts++
      return arg.broken ? Effect.fail("broken") : Effect.succeed(arg)
    }),
  call: { generation: (self) => self.generation },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

export const fragile = <const Id extends string>(id: Id, arg: Health, options?: ChildSpec.ChildOptions) =>
  ChildSpec.actor(id, Fragile, arg, options)

/** Attempts without end for all that a test cares about. */
export const endless = { restarts: 1_000_000_000 }

export const reasonOf = (exit: ExitReason.ExitReason) =>
  exit._tag === "Crash" && exit.error instanceof SupervisorError.SupervisorError ? exit.error.reason : undefined

export const refusal = <A, R>(effect: Effect.Effect<A, SupervisorError.SupervisorError, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason._tag)

export const statuses = (tree: Pick<SupervisorRef.Supervising, "whichChildren">) =>
  Effect.map(tree.whichChildren, (children) => children.map(({ id, status }) => `${id} ${status}`))

/** The first sleep of a test must not be one in a finalizer: the test clock would let it be interrupted. */
export const clockInUse = TestClock.adjust(0)

/** An effect child that writes down its life, and takes its time to end. Needs `clockInUse`. */
export const lingering = <const Id extends string>(
  id: Id,
  log: Array<string>,
  time: Duration.Input,
  options?: ChildSpec.EffectOptions
) =>
  ChildSpec.effect(
    id,
    Effect.gen(function* () {
      log.push(`+${id}`)
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          Effect.sleep(time),
          Effect.sync(() => log.push(`-${id}`))
        )
      )
      return yield* Effect.never
    }),
    options
  )

/** A tree that the test ends itself, if the test's own end does not come first. */
export const opened = <A, E, R>(start: Effect.Effect<A, E, R | Scope.Scope>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const tree = yield* Effect.provideService(start, Scope.Scope, scope)
    return {
      tree,
      close: Scope.close(scope, Exit.void),
      closeWith: (exit: Exit.Exit<unknown, unknown>) => Scope.close(scope, exit)
    }
  })

/** The middle of several measurements. */
export const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN

/** Real milliseconds, which the test clock knows nothing of. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const began = performance.now()
    return Effect.map(effect, () => performance.now() - began)
  })
