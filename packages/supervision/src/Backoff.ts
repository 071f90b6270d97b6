/**
 * How long a supervisor waits before it starts a crashed child again.
 *
 * OTP restarts at once, so a child that fails fast burns its supervisor's whole intensity within microseconds. A backoff
 * puts a delay in front of each attempt. It is reset when an incarnation stayed up for `resetAfter`, or as soon as the child
 * reports progress (`self.progress()` in an actor, `ChildSpec.progress` in an effect). While a child waits, messages to it
 * wait in its mailbox, and `terminateChild` ends the wait.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { ExitReason } from "./ExitReason.ts"

/**
 * A delay per attempt, and the quiet time that makes the next crash the first again. The schedule is stepped once per
 * attempt with the reason of the crash; when it is done, the child is given up with `BackoffExhausted`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Backoff {
  readonly schedule: Schedule.Schedule<unknown, ExitReason>
  readonly resetAfter: Duration.Duration
}

/**
 * @category options
 * @since 0.1.0
 */
export interface ExponentialOptions {
  /** The first delay. Default 200 milliseconds. */
  readonly from?: Duration.Input | undefined
  /** The longest delay, jitter included. Default 30 seconds. */
  readonly to?: Duration.Input | undefined
  /** What each delay is multiplied by, above 1. Default 2. */
  readonly factor?: number | undefined
  /** Draws each delay between 80 and 120 percent of its value. Default true. */
  readonly jitter?: boolean | undefined
  /** Attempts before the child is given up. Default: no limit but the supervisor's intensity. */
  readonly attempts?: number | undefined
  /** Quiet time after which the delays begin anew. Default: the mean of `from` and `to`. */
  readonly resetAfter?: Duration.Input | undefined
}

/**
 * Delays that grow by a factor up to a limit.
 *
 * **Example** (A child that depends on a flaky service)
 *
 * ```ts
 * import { Backoff, ChildSpec } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * const poll = Effect.never
 * const spec = ChildSpec.effect("poll", poll, { backoff: Backoff.exponential({ from: "1 second", to: "1 minute" }) })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const exponential = (options: ExponentialOptions = {}): Backoff => {
  const from = Duration.fromInputUnsafe(options.from ?? "200 millis")
  const to = Duration.fromInputUnsafe(options.to ?? "30 seconds")
  const growing: Schedule.Schedule<unknown> = Schedule.exponential(from, options.factor ?? 2)
  const drawn = options.jitter === false ? growing : Schedule.jittered(growing)
  const capped = Schedule.modifyDelay(drawn, ({ duration }) => Effect.succeed(Duration.min(duration, to)))
  return schedule(options.attempts === undefined ? capped : Schedule.upTo(capped, { times: options.attempts }), {
    resetAfter: options.resetAfter ?? Duration.millis((Duration.toMillis(from) + Duration.toMillis(to)) / 2)
  })
}

/**
 * The same delay before every attempt. It has nothing to reset.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fixed = (delay: Duration.Input): Backoff => schedule(Schedule.spaced(delay), { resetAfter: delay })

/**
 * Any schedule as a backoff. `resetAfter` defaults to one minute of quiet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const schedule = (
  schedule: Schedule.Schedule<unknown, ExitReason>,
  options: { readonly resetAfter?: Duration.Input | undefined } = {}
): Backoff => ({ schedule, resetAfter: Duration.fromInputUnsafe(options.resetAfter ?? "1 minute") })
