/**
 * How long a supervisor waits before it starts a crashed child again.
 *
 * OTP restarts at once, so a child that fails fast burns its supervisor's whole intensity within microseconds. A
 * backoff puts a delay in front of each attempt. While a child waits, messages to it wait in its mailbox, and
 * `terminateChild` ends the wait. In our bank a child fetches exchange rates from somebody who is often down. `// =>`
 * shows what an expression returns.
 *
 * ```ts
 * import { Backoff, ChildSpec, SupervisionEvent, Supervisor } from "@tinkex/supervision"
 * import { Duration, Effect, Stream } from "effect"
 *
 * let tries = 0
 * const fetchRates: Effect.Effect<never, string> = Effect.gen(function* () {
 *   if (++tries < 4) return yield* Effect.fail("busy")
 *   yield* ChildSpec.progress // it works: the next crash is the first again
 *   return yield* Effect.never
 * })
 *
 * const rates = ChildSpec.effect("rates", fetchRates, {
 *   backoff: Backoff.exponential({ from: "1 millis", to: "1 minute", jitter: false })
 * })
 *
 * const bank = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({ intensity: { restarts: 5, within: "1 minute" }, children: [rates] })
 *   const delays = yield* tree.events.pipe(
 *     Stream.filter(SupervisionEvent.SupervisionEvent.guards.RestartDelayed),
 *     Stream.take(3),
 *     Stream.runCollect
 *   )
 *   delays.map(({ delay }) => Duration.format(delay)) // => [ '1ms', '2ms', '4ms' ]
 * })
 * ```
 *
 * The delays begin anew when an incarnation stayed up for `resetAfter`, and as soon as the child reports progress
 * (`self.progress()` in an actor, `ChildSpec.progress` in an effect).
 *
 * | constructor | delays | gives the child up |
 * | --- | --- | --- |
 * | `exponential` | 200 milliseconds, then twice as long each time, up to 30 seconds, with jitter | after `attempts`, by default never |
 * | `fixed` | the same before each attempt | never |
 * | `schedule` | those of any `Schedule`; its input is the reason of the crash | when the schedule is done |
 *
 * A backoff is an option of a child (`ChildSpec`) or, for all children that name none, of their supervisor. Each
 * attempt costs intensity as well, so allow as many restarts as there are attempts within the window, or the supervisor
 * gives up first. When the schedule is done, the supervisor gives up with `ChildGivenUp`; a `budget` with
 * `exceeded: "stop"` makes it go on without this child. What is no duration, a `factor` that is not above 1 and
 * `attempts` that are no whole number throw where the backoff is made. A schedule that fails is a `CallbackFailed` event and costs the delay, not the
 * restart. Under `one_for_all` and `rest_for_one` the other children of the group are stopped before the wait.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { ExitReason } from "./ExitReason.ts"

/**
 * A delay per attempt, and the quiet time that makes the next crash the first again. The schedule is stepped once per
 * attempt with the reason of the crash; when it is done, the supervisor gives up with `ChildGivenUp`.
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
  const { attempts, factor = 2 } = options
  if (!(factor > 1 && Number.isFinite(factor))) {
    throw new RangeError(`Backoff.exponential: factor is ${factor}. Give a number above 1.`)
  }
  if (attempts !== undefined && !(Number.isSafeInteger(attempts) && attempts >= 0)) {
    throw new RangeError(`Backoff.exponential: attempts is ${attempts}. Give a whole number from 0, or leave it out.`)
  }
  const growing: Schedule.Schedule<unknown> = Schedule.exponential(from, factor)
  const drawn = options.jitter === false ? growing : Schedule.jittered(growing)
  const capped = Schedule.modifyDelay(drawn, ({ duration }) => Effect.succeed(Duration.min(duration, to)))
  return schedule(attempts === undefined ? capped : Schedule.upTo(capped, { times: attempts }), {
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
