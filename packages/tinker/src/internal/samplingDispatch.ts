/** How samples reach the service: so many at once, so many bytes at once, and none while it wants none. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import { BillingPaused, type RateLimited, TinkerError } from "../TinkerError.ts"
import * as ByteBudget from "./byteBudget.ts"
import { billingPauseMillis } from "./transport.ts"

const submissionsAtOnce = 400
/** For so long after a pause that the service asked for ... */
const cautionMillis = 10_000
/** ... so many submissions at once, each of which weighs so much more. */
const cautiousAtOnce = 10
const cautiousWeight = 20

const largeBytes = 131_072
const pauseMillis = 1000
const largePauseMillis = 5000

/** A pause for the billing's sake that comes so long after the last one is another one. */
const settledMillis = 300_000
const tellEveryMillis = 60_000

const pauses = Metric.counter("tinkex.tinker.sampling_pauses", { incremental: true })

export interface Dispatch {
  /**
   * Sends one request of this weight when there is room. `send` fails with `RateLimited` where the service has too much to do,
   * and with `BillingPaused` where the account has to be settled first: then all wait and it is run again, with its place kept,
   * until `giveUp` says why not, or for as long as the service allows for billing.
   */
  readonly submit: <A>(
    bytes: number,
    send: Effect.Effect<A, TinkerError>,
    giveUp: (now: number) => TinkerError | undefined
  ) => Effect.Effect<A, TinkerError>
}

/** One for all samplers of a service client: they share the account's limits. */
export const make = (limits: { readonly bytes: number; readonly billingMillis: number }): Dispatch => {
  const places = Semaphore.makeUnsafe(submissionsAtOnce)
  const cautiousPlaces = Semaphore.makeUnsafe(cautiousAtOnce)
  const budget = ByteBudget.make(limits.bytes)
  /** A longer pause is never cut short by a shorter one, nor by a success of another request. */
  let pausedUntil = Number.NEGATIVE_INFINITY

  /** When the account's billing was first and last found in the way, and the log told of it. */
  let billing: { readonly since: number; last: number; told: number } | undefined

  const waitForBilling = Effect.fnUntraced(function* (refusal: BillingPaused) {
    const now = yield* Clock.currentTimeMillis
    if (billing === undefined || now - billing.last > settledMillis) {
      billing = { since: now, last: now, told: Number.NEGATIVE_INFINITY }
    }
    billing.last = now
    const waited = now - billing.since
    if (waited >= limits.billingMillis) {
      const { detail, operation } = refusal
      return yield* new TinkerError({
        reason: new BillingPaused({ operation, detail, waited: Duration.millis(waited) })
      })
    }
    pausedUntil = Math.max(pausedUntil, now + billingPauseMillis)
    if (now - billing.told < tellEveryMillis) return
    billing.told = now
    yield* Effect.logWarning(`Samples wait for the account's billing: ${refusal.detail}`)
  })

  const waitForRoom = Effect.fnUntraced(function* (refusal: RateLimited, bytes: number) {
    const now = yield* Clock.currentTimeMillis
    const hint = refusal.retryAfter === undefined ? undefined : Duration.toMillis(refusal.retryAfter)
    pausedUntil = Math.max(pausedUntil, now + (hint ?? (bytes <= largeBytes ? pauseMillis : largePauseMillis)))
    yield* Metric.update(pauses, 1)
  })

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
      if (reason._tag === "BillingPaused") yield* waitForBilling(reason)
      else if (reason._tag === "RateLimited") yield* waitForRoom(reason, bytes)
      else return yield* outcome.failure
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
