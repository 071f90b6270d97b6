/**
 * When, how often and how patiently a run is restored.
 *
 * A policy is checked as a whole before anything uses it: an unknown or impossible option is a typed error that names the
 * field and the value, never a silent default.
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as SchemaIssue from "effect/SchemaIssue"
import * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import { InvalidPolicy, RecoveryError } from "./RecoveryError.ts"

/** How a policy is written down. Everything has a default. */
export interface RecoveryPolicyOptions {
  /** Whether anything recovers by itself. Manual calls work either way. Default false. */
  readonly enabled?: boolean | undefined
  /** Tries for one incident, 1 to 1000. Default 3. */
  readonly maxAttempts?: number | undefined
  /** The wait after the first failed try; it doubles after each further one. Default 5 seconds. */
  readonly baseDelay?: Duration.Input | undefined
  /** The longest wait between two tries, jitter included. Default 60 seconds. */
  readonly maxDelay?: Duration.Input | undefined
  /** Spreads each wait over 80 to 120 percent of its length, so that runs which failed together do not return together. Default true. */
  readonly jitter?: boolean | undefined
  /** Replaces the waits above; it may also end the tries before `maxAttempts` does. */
  readonly schedule?: Schedule.Schedule<unknown, RecoveryError> | undefined
  /** Time between two sweeps over the watched runs. Default 30 seconds. */
  readonly pollInterval?: Duration.Input | undefined
  /** Restores Adam's moments too; without them a run goes on, but not as if it had never failed. Default true. */
  readonly restoreOptimizer?: boolean | undefined
  /** Which checkpoint: `latest` with older ones as fallback, `best(metric, mode)`, `specific(path)` or `custom(name, choose)`. Default latest. */
  readonly strategy?: CheckpointSelector.Strategy | undefined
  /**
   * How long one try may take before it is stopped and counted as failed. It stands still while the service holds the try back (see
   * `pauseLimit`). Default 15 minutes.
   */
  readonly attemptDeadline?: Duration.Input | undefined
  /** Tries that run at the same time, over all runs, 1 to 1024; those that the service has no room for are not counted, up to ten times as many. Default 4. */
  readonly maxConcurrent?: number | undefined
  /** How long `onRecovered` and `onFailure` may take. Default 30 seconds. */
  readonly callbackLimit?: Duration.Input | undefined
  /** How long a recovery waits, all in all, for capacity, a rate limit or billing; such waits use up no try. Default 24 hours. */
  readonly pauseLimit?: Duration.Input | undefined
  /**
   * A watched run without any request for this long is `stalled`, and for less where its own habits say so: see
   * the guide. Default 30 minutes.
   */
  readonly stalledAfter?: Duration.Input | undefined
  /** What a silence of `stalledAfter` leads to: an event, or a recovery too. A run that only waits for its owner is silent as well. Default report. */
  readonly onStall?: "report" | "recover" | undefined
  /** Requests of the sweeps in any one second, 1 to 1000. Default 34, which reads 100,000 runs in half a minute. */
  readonly maxRequestsPerSecond?: number | undefined
  /** Recoveries of one run by one cause within `recoveryWindow`, 1 to 100,000; the next one ends it as `BudgetSpent`. Default 100. */
  readonly maxRecoveries?: number | undefined
  /** Default 1 hour. */
  readonly recoveryWindow?: Duration.Input | undefined
}

const parseDuration = (input: unknown): Option.Option<Duration.Duration> => Duration.fromInput(input as Duration.Input) // fromInput catches what is no duration at all

const DurationInput = Schema.Unknown.check(
  Schema.makeFilter((input) => Option.isSome(parseDuration(input)) || 'it must be a duration such as "30 seconds"')
).pipe(
  Schema.decodeTo(Schema.Duration, {
    decode: SchemaGetter.transform((input) => Option.getOrElse(parseDuration(input), () => Duration.zero)),
    encode: SchemaGetter.transform((duration): unknown => duration)
  })
)

const span = (minimum: Duration.Duration, fallback: Duration.Duration) =>
  DurationInput.check(
    Schema.makeFilter(
      (duration) =>
        (Duration.isGreaterThanOrEqualTo(duration, minimum) && Duration.isFinite(duration)) ||
        `it must be a finite time of at least ${Duration.format(minimum)}`
    )
  ).pipe(Schema.withDecodingDefaultType(Effect.succeed(fallback)))

const count = (maximum: number, fallback: number) =>
  Schema.Number.check(
    Schema.makeFilter(
      (n) => (Number.isInteger(n) && n >= 1 && n <= maximum) || `it must be a whole number from 1 to ${maximum}`
    )
  ).pipe(Schema.withDecodingDefaultType(Effect.succeed(fallback)))

const flag = (fallback: boolean) => Schema.Boolean.pipe(Schema.withDecodingDefaultType(Effect.succeed(fallback)))

/** A checked policy: every option is present. */
export const RecoveryPolicy = Schema.Struct({
  enabled: flag(false),
  maxAttempts: count(1000, 3),
  baseDelay: span(Duration.millis(1), Duration.seconds(5)),
  maxDelay: span(Duration.millis(1), Duration.seconds(60)),
  jitter: flag(true),
  schedule: Schema.optional(
    Schema.declare((u): u is Schedule.Schedule<unknown, RecoveryError> => Schedule.isSchedule(u), {
      expected: "a Schedule"
    })
  ),
  pollInterval: span(Duration.millis(100), Duration.seconds(30)),
  restoreOptimizer: flag(true),
  strategy: CheckpointSelector.Strategy.pipe(Schema.withDecodingDefaultType(Effect.succeed(CheckpointSelector.latest))),
  attemptDeadline: span(Duration.millis(100), Duration.minutes(15)),
  maxConcurrent: count(1024, 4),
  callbackLimit: span(Duration.millis(1), Duration.seconds(30)),
  pauseLimit: span(Duration.zero, Duration.hours(24)),
  stalledAfter: span(Duration.seconds(1), Duration.minutes(30)),
  onStall: Schema.Literals(["report", "recover"]).pipe(
    Schema.withDecodingDefaultType(Effect.succeed("report" as const))
  ),
  maxRequestsPerSecond: count(1000, 34),
  maxRecoveries: count(100_000, 100),
  recoveryWindow: span(Duration.seconds(1), Duration.hours(1))
}).check(
  Schema.makeFilter((policy) =>
    Duration.isLessThan(policy.maxDelay, policy.baseDelay)
      ? { path: ["maxDelay"], issue: `it must not be shorter than baseDelay (${Duration.format(policy.baseDelay)})` }
      : undefined
  )
)
export type RecoveryPolicy = typeof RecoveryPolicy.Type

/** The newest usable checkpoint, older ones as fallback. */
export const latest: CheckpointSelector.Strategy = CheckpointSelector.latest

/** Exactly this checkpoint, without a fallback. It must belong to the run that is recovered. */
export const specific = (path: string): CheckpointSelector.Strategy => CheckpointSelector.specific(path)

/** The checkpoint with the lowest (`min`) or highest (`max`) value of a metric, the next best as fallback. */
export const best = (metric: string, mode: "min" | "max"): CheckpointSelector.Strategy =>
  CheckpointSelector.best(metric, mode)

/** Those that a function of yours picks from the usable ones, in its order. See `CheckpointSelector.custom`. */
export const custom = (name: string, choose: CheckpointSelector.Choose): CheckpointSelector.Strategy =>
  CheckpointSelector.custom(name, choose)

const show = (value: unknown): string => {
  if (Duration.isDuration(value)) return Duration.format(value)
  if (typeof value === "string") return JSON.stringify(value)
  return typeof value === "object" && value !== null ? "an object" : String(value)
}

const invalid = (field: string, value: string, problem: string) =>
  new RecoveryError({ reason: new InvalidPolicy({ field, value, problem }) })

const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

/** Checks options and fills in the defaults. Fails with `InvalidPolicy`, which names the first bad field and its value. */
export const make = (options: RecoveryPolicyOptions = {}): Effect.Effect<RecoveryPolicy, RecoveryError> =>
  Schema.decodeUnknownEffect(RecoveryPolicy)(options, { onExcessProperty: "error" }).pipe(
    Effect.mapError((error) => {
      const first = formatIssue(error.issue).issues[0]
      const field = String(first?.path?.[0] ?? "policy")
      const value: unknown = Object.entries(options).find(([key]) => key === field)?.[1]
      return invalid(field, show(value), first?.message ?? error.message)
    })
  )

/**
 * The waits between the tries of a policy: exponential from `baseDelay`, never above `maxDelay`, jitter included. With the
 * defaults and without jitter these are 5, 10, 20, 40, 60, 60, ... seconds. It does not count the tries.
 */
export const schedule = (policy: RecoveryPolicy): Schedule.Schedule<unknown, RecoveryError> => {
  if (policy.schedule !== undefined) return policy.schedule
  const capped = Schedule.min([Schedule.exponential(policy.baseDelay, 2), Schedule.spaced(policy.maxDelay)])
  if (!policy.jitter) return capped
  return capped.pipe(
    Schedule.jittered,
    Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, policy.maxDelay)))
  )
}

interface Form {
  readonly expects: string
  readonly read: (text: string) => Option.Option<unknown>
}

const boolean: Form = {
  expects: "true or false",
  read: (text) =>
    text === "true" || text === "1"
      ? Option.some(true)
      : text === "false" || text === "0"
        ? Option.some(false)
        : Option.none()
}
const integer: Form = {
  expects: "a whole number",
  read: (text) => (/^\d{1,9}$/.test(text) ? Option.some(Number(text)) : Option.none())
}
const duration: Form = { expects: 'a duration such as "30 seconds"', read: parseDuration }
const stall: Form = {
  expects: '"report" or "recover"',
  read: (text) => (text === "report" || text === "recover" ? Option.some(text) : Option.none())
}
const strategy: Form = {
  expects: '"latest", "best:<metric>:min", "best:<metric>:max" or the tinker:// path of a checkpoint',
  read: (text) => {
    if (text === "latest") return Option.some(latest)
    if (text.startsWith("tinker://")) return Option.some(specific(text))
    const [, metric, mode] = /^best:(.+):(min|max)$/.exec(text) ?? []
    return metric === undefined ? Option.none() : Option.some(best(metric, mode === "max" ? "max" : "min"))
  }
}

const forms: { readonly [Field in Exclude<keyof RecoveryPolicyOptions, "schedule">]-?: Form } = {
  enabled: boolean,
  maxAttempts: integer,
  baseDelay: duration,
  maxDelay: duration,
  jitter: boolean,
  pollInterval: duration,
  restoreOptimizer: boolean,
  strategy,
  attemptDeadline: duration,
  maxConcurrent: integer,
  callbackLimit: duration,
  pauseLimit: duration,
  stalledAfter: duration,
  onStall: stall,
  maxRequestsPerSecond: integer,
  maxRecoveries: integer,
  recoveryWindow: duration
}

const variableOf = (field: string) => `TINKEX_RECOVERY_${field.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`

/**
 * Reads a policy from the environment; `overrides` win over it. Absent or empty variables mean the default. Fails with
 * `InvalidPolicy`, which names the variable.
 *
 * | variable | option | form |
 * | --- | --- | --- |
 * | `TINKEX_RECOVERY_ENABLED` | `enabled` | `true` or `false` |
 * | `TINKEX_RECOVERY_MAX_ATTEMPTS` | `maxAttempts` | whole number |
 * | `TINKEX_RECOVERY_BASE_DELAY` | `baseDelay` | duration, `5 seconds` |
 * | `TINKEX_RECOVERY_MAX_DELAY` | `maxDelay` | duration |
 * | `TINKEX_RECOVERY_JITTER` | `jitter` | `true` or `false` |
 * | `TINKEX_RECOVERY_POLL_INTERVAL` | `pollInterval` | duration |
 * | `TINKEX_RECOVERY_RESTORE_OPTIMIZER` | `restoreOptimizer` | `true` or `false` |
 * | `TINKEX_RECOVERY_STRATEGY` | `strategy` | `latest`, `best:loss:min`, or the path of a checkpoint, `tinker://...` |
 * | `TINKEX_RECOVERY_ATTEMPT_DEADLINE` | `attemptDeadline` | duration |
 * | `TINKEX_RECOVERY_MAX_CONCURRENT` | `maxConcurrent` | whole number |
 * | `TINKEX_RECOVERY_CALLBACK_LIMIT` | `callbackLimit` | duration |
 * | `TINKEX_RECOVERY_PAUSE_LIMIT` | `pauseLimit` | duration |
 * | `TINKEX_RECOVERY_STALLED_AFTER` | `stalledAfter` | duration |
 * | `TINKEX_RECOVERY_ON_STALL` | `onStall` | `report` or `recover` |
 * | `TINKEX_RECOVERY_MAX_REQUESTS_PER_SECOND` | `maxRequestsPerSecond` | whole number |
 * | `TINKEX_RECOVERY_MAX_RECOVERIES` | `maxRecoveries` | whole number |
 * | `TINKEX_RECOVERY_RECOVERY_WINDOW` | `recoveryWindow` | duration |
 */
export const fromConfig = Effect.fnUntraced(function* (
  overrides: RecoveryPolicyOptions = {}
): Effect.fn.Return<RecoveryPolicy, RecoveryError> {
  const read: Record<string, unknown> = {}
  for (const [field, form] of Object.entries(forms)) {
    const name = variableOf(field)
    const text = yield* Config.option(Config.String(name)).pipe(
      Effect.mapError((error) => invalid(name, "unreadable", error.message))
    )
    if (Option.isNone(text) || text.value.trim() === "") continue
    const value = form.read(text.value.trim())
    if (Option.isNone(value)) return yield* invalid(name, show(text.value), `it must be ${form.expects}`)
    read[field] = value.value
  }
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined)
  return yield* make({ ...read, ...Object.fromEntries(given) })
})
