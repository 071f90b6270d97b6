import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { JournalError } from "../JournalError.ts"

/** Where the lines go. */
export interface Sink<Line> {
  /** Appends the lines, all of them or none, after making sure that nobody else has written. */
  readonly write: (lines: ReadonlyArray<Line>) => Effect.Effect<void, JournalError>
  /** Makes everything written so far durable. */
  readonly sync: Effect.Effect<void, JournalError>
  /** What an append is refused with once the scope is closed. */
  readonly closed: JournalError
  /** What a fault of the program itself is called. */
  readonly broken: (detail: string) => JournalError
}

/**
 * One fiber writes; while it waits for the disk, the lines of all callers gather for its next turn. Lazy lines wait for the next
 * durable one, or for the end, and go out with it in their order: they cost neither a write nor a flush. The first failure is the last thing that
 * happens: what the disk holds after it is unknown, and a second flush may report success without having written anything.
 *
 * `line` makes of a record what the sink writes; if it throws, its place is not used up.
 */
export const make = <A, Line>(
  sink: Sink<Line>,
  line: (value: A, millis: number) => Line
): Effect.Effect<
  {
    readonly append: (value: A) => Effect.Effect<void, JournalError>
    readonly appendLazy: (value: A) => Effect.Effect<void, JournalError>
  },
  never,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const wake = Latch.makeUnsafe()
    let lines: Array<Line> = []
    let waiting: Deferred.Deferred<void, JournalError> | undefined
    let refusal: JournalError | undefined
    let ending = false

    const write = Effect.gen(function* () {
      while (refusal === undefined) {
        if (waiting === undefined && !ending) yield* wake.await
        if (lines.length === 0) return
        wake.closeUnsafe()
        const taken = lines
        const group = waiting
        lines = []
        waiting = undefined
        const exit = yield* Effect.exit(Effect.andThen(sink.write(taken), sink.sync))
        if (Exit.isFailure(exit)) {
          const fail = exit.cause.reasons.find(Cause.isFailReason)
          refusal = fail === undefined ? sink.broken(Cause.pretty(exit.cause)) : fail.error
        }
        const outcome = refusal === undefined ? Effect.void : Effect.fail(refusal)
        if (group !== undefined) Deferred.doneUnsafe(group, outcome)
        if (waiting !== undefined && refusal !== undefined) Deferred.doneUnsafe(waiting, outcome)
      }
    })

    const fiber = yield* Effect.forkScoped(write)
    // Runs before the fiber's own scope ends it: what was accepted is written, whoever was interrupted meanwhile.
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        ending = true
        wake.openUnsafe()
        return Fiber.await(fiber)
      }).pipe(
        Effect.andThen(
          Effect.suspend(() => {
            const lost = refusal
            refusal ??= sink.closed
            return lost === undefined
              ? Effect.void
              : Effect.logWarning(`The journal was closed after a failure: ${lost.message}`)
          })
        )
      )
    )

    // Waking the writer may run it on the spot, so whoever waits must be known before.
    const enqueue = (value: A, durable: boolean): Effect.Effect<void, JournalError> => {
      if (refusal !== undefined || ending) return Effect.fail(refusal ?? sink.closed)
      lines.push(line(value, clock.currentTimeMillisUnsafe()))
      if (!durable) return Effect.void
      const group = (waiting ??= Deferred.makeUnsafe())
      wake.openUnsafe()
      return Deferred.await(group)
    }

    return {
      append: (value) => Effect.suspend(() => enqueue(value, true)),
      appendLazy: (value) => Effect.suspend(() => enqueue(value, false))
    }
  })
