/** How samples reach the service: so many at once, so many bytes at once, and none while it wants none. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import type { TinkerError } from "../TinkerError.ts"
import * as ByteBudget from "./byteBudget.ts"

const submissionsAtOnce = 400
/** For so long after a pause that the service asked for ... */
const cautionMillis = 10_000
/** ... so many submissions at once, each of which weighs so much more. */
const cautiousAtOnce = 10
const cautiousWeight = 20

const largeBytes = 131_072
const pauseMillis = 1000
const largePauseMillis = 5000

const pauses = Metric.counter("tinkex.tinker.sampling_pauses", { incremental: true })

export interface Dispatch {
  /**
   * Sends one request of this weight when there is room. `send` fails with `RateLimited` where the service has too much to do:
   * then all wait and it is run again, with its place kept, until `giveUp` says why not.
   */
  readonly submit: <A>(
    bytes: number,
    send: Effect.Effect<A, TinkerError>,
    giveUp: (now: number) => TinkerError | undefined
  ) => Effect.Effect<A, TinkerError>
}

/** One for all samplers of a service client: they share the account's limits. */
export const make = (budgetBytes: number): Dispatch => {
  const places = Semaphore.makeUnsafe(submissionsAtOnce)
  const cautiousPlaces = Semaphore.makeUnsafe(cautiousAtOnce)
  const budget = ByteBudget.make(budgetBytes)
  /** A longer pause is never cut short by a shorter one, nor by a success of another request. */
  let pausedUntil = Number.NEGATIVE_INFINITY

  const untilTaken = Effect.fnUntraced(function* <A>(
    bytes: number,
    send: Effect.Effect<A, TinkerError>,
    giveUp: (now: number) => TinkerError | undefined
  ): Effect.fn.Return<A, TinkerError> {
    while (true) {
      const before = yield* Clock.currentTimeMillis
      if (before < pausedUntil) {
        const over = giveUp(before)
        if (over !== undefined) return yield* over
        // Those that wait together do not return together.
        const left = pausedUntil - before
        yield* Effect.sleep(left + (yield* Random.next) * Math.min(left, pauseMillis) * 0.25)
        continue
      }
      const outcome = yield* Effect.result(send)
      if (Result.isSuccess(outcome)) return outcome.success
      const { reason } = outcome.failure
      if (reason._tag !== "RateLimited") return yield* outcome.failure
      const now = yield* Clock.currentTimeMillis
      const hint = reason.retryAfter === undefined ? undefined : Duration.toMillis(reason.retryAfter)
      const pause = hint ?? (bytes <= largeBytes ? pauseMillis : largePauseMillis)
      pausedUntil = Math.max(pausedUntil, now + pause)
      yield* Metric.update(pauses, 1)
    }
  })

  return {
    submit: (bytes, send, giveUp) =>
      Semaphore.withPermit(
        places,
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const sending = untilTaken(bytes, send, giveUp)
          return now - pausedUntil < cautionMillis
            ? Semaphore.withPermit(cautiousPlaces, budget.spend(bytes * cautiousWeight)(sending))
            : budget.spend(bytes)(sending)
        })
      )
  }
}
