/**
 * When a run saves, and which of its checkpoints it keeps. Both are pure functions. What retention guarantees (RP13):
 *
 * - **CP1** the newest proven checkpoint, and everything newer, is never deletable;
 * - **CP2** nothing is deletable until a checkpoint newer than it is *proven*, that is, has been loaded once and worked, and
 *   *mature*: the run's flag was still clear a while after it was saved, and so many steps have come behind it that no policy for a
 *   diverging loss can reject it any more. A listing and a size are not enough to throw away what came before. Where the newest
 *   `keepLast` are all younger, one more stays: the newest that is old enough;
 * - **CP3** at least the newest `keepLast` checkpoints stay, with the `keepBest` best ones, every one whose step is a multiple
 *   of `keepEvery`, and every pinned one: the union of all four.
 *
 * The final checkpoint of a run is made by the trainer, whatever the policy says. Saves hold the optimizer too.
 *
 * ```ts
 * import { CheckpointPolicy } from "@tinkex/training"
 *
 * const policy = CheckpointPolicy.everySteps(50, { keepLast: 3, keepBest: 1, metric: "eval/loss" })
 * policy.invalid // => undefined
 *
 * const gguf = CheckpointPolicy.fromTrainingIr({ strategy: "steps", save_every: 100, format: "gguf" })
 * gguf.invalid?.field // => "checkpoints.format"
 * ```
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Cadence from "./Cadence.ts"
import { type InvalidOption, invalidOption } from "./JournalError.ts"

/** What retention needs to know of a checkpoint. */
export interface Kept {
  readonly path: string
  /** Steps applied in it. */
  readonly step: number
  /** Loaded once, and worked. */
  readonly proven: boolean
  /** The run's flag was clear long enough after it was saved, and no divergence can reach back behind it. Default true. */
  readonly mature?: boolean | undefined
  /** Somebody wants it kept. Default false. */
  readonly pinned?: boolean | undefined
  /** What was measured at its step. */
  readonly metrics?: Readonly<Record<string, number>> | undefined
}

export interface Retention {
  /** May be deleted now, oldest first. */
  readonly deletable: ReadonlyArray<string>
  /** Proving this one would make more of them deletable; absent when nothing is too many. */
  readonly prove: string | undefined
}

/** Where a run stands when a step has just been placed in the sequence and a save could take the place behind it. */
export interface Moment {
  /** Steps placed so far, this one included; 1 after the first. */
  readonly steps: number
  /** Whether this step was the last of an epoch; false where the data knows none. */
  readonly epochEnded: boolean
  /** Epochs completed so far. */
  readonly epochs: number
  /** Tokens trained on since the last save was placed. */
  readonly tokens: number
  /** Milliseconds since the last save was placed, or since the attempt began. Time in which the run was paused does not count. */
  readonly elapsed: number
  /** A save is on its way and not answered. */
  readonly saving: boolean
  /** An evaluation at this very place has improved on all before it. */
  readonly improved: boolean
  /** What a save has been costing the run of late, in milliseconds; `undefined` until one was measured. */
  readonly saveCost: number | undefined
  /** Milliseconds for which the run has been watched for failures, and how many there were. */
  readonly observed: { readonly millis: number; readonly failures: number }
}

export interface CheckpointPolicy {
  /** Whether a save takes the place behind the step that was just placed. */
  readonly due: (moment: Moment) => boolean
  /** What may go. `verified` are the checkpoints that could be restored, in any order. */
  readonly retain: (verified: ReadonlyArray<Kept>) => Retention
  /** How long the server keeps a save that is not renewed; the trainer renews those that it wants. `undefined`: for ever. */
  readonly ttl: Duration.Duration | undefined
  /** Which of two values of the metric is better; `undefined` where the policy looks at none. */
  readonly best: { readonly metric: string; readonly mode: "min" | "max" } | undefined
  /** It saves when an evaluation improves, so the run must have one. */
  readonly needsEvaluation: boolean
  /** The policy as data, for the journal and for people. */
  readonly config: Schema.Json
  /** What is wrong with the options, if anything is; the trainer refuses such a policy. */
  readonly invalid: InvalidOption | undefined
}

/** What is kept; the same for every schedule. */
export interface RetentionOptions {
  /** The newest so many stay, at least 1; `"all"` deletes nothing. Default 3. */
  readonly keepLast?: number | "all" | undefined
  /** The best so many by `metric` stay too. Default 0; 1 where `saveBest` is set. */
  readonly keepBest?: number | undefined
  /** Saves as well whenever an evaluation improves on all before it. Default false. */
  readonly saveBest?: boolean | undefined
  /** By which `keepBest` and `saveBest` go: of the step itself, or of an evaluation there. Default `"loss:sum"`. */
  readonly metric?: string | undefined
  /** Default `"min"`. */
  readonly mode?: "min" | "max" | undefined
  /** Checkpoints of every so many steps stay. Default: none for that reason. */
  readonly keepEvery?: number | undefined
  /** At least an hour. The server drops what nobody renews for so long, for example after a crash for good. Default: never. */
  readonly ttl?: Duration.Input | undefined
}

const isCount = (value: number) => Number.isSafeInteger(value) && value >= 1
const wholeNumber = "must be a whole number above 0"

const refuse = (field: string, value: unknown, problem: string) => invalidOption(`checkpoints.${field}`, value, problem)

interface Trigger {
  readonly due: (moment: Moment) => boolean
  readonly config: Readonly<Record<string, Schema.Json>>
  readonly invalid?: InvalidOption | undefined
  readonly needsEvaluation?: boolean | undefined
}

const make = (trigger: Trigger, options: RetentionOptions): CheckpointPolicy => {
  const { keepEvery, keepLast = 3, metric = "loss:sum", mode = "min", saveBest = false } = options
  const keepBest = options.keepBest ?? (saveBest || trigger.needsEvaluation === true ? 1 : 0)
  const ttl = options.ttl === undefined ? undefined : Option.getOrUndefined(Duration.fromInput(options.ttl))
  const invalid =
    trigger.invalid ??
    (keepLast !== "all" && !isCount(keepLast)
      ? refuse("keepLast", keepLast, wholeNumber)
      : !Number.isSafeInteger(keepBest) || keepBest < 0
        ? refuse("keepBest", keepBest, "must be a whole number, 0 or more")
        : keepEvery !== undefined && !isCount(keepEvery)
          ? refuse("keepEvery", keepEvery, wholeNumber)
          : metric === ""
            ? refuse("metric", metric, "must not be empty")
            : options.ttl !== undefined && (ttl === undefined || Duration.isLessThan(ttl, Duration.hours(1)))
              ? refuse("ttl", options.ttl, "must be at least an hour")
              : undefined)
  return {
    due: saveBest ? (moment) => moment.improved || trigger.due(moment) : trigger.due,
    retain: retain({ keepLast, keepBest, keepEvery, metric, mode }),
    ttl,
    best: keepBest > 0 || saveBest || trigger.needsEvaluation === true ? { metric, mode } : undefined,
    needsEvaluation: trigger.needsEvaluation === true,
    config: {
      ...trigger.config,
      keepLast,
      ...(keepBest > 0 || saveBest ? { keepBest, saveBest, metric, mode } : {}),
      ...(keepEvery === undefined ? {} : { keepEvery }),
      ...(ttl === undefined ? {} : { ttlSeconds: Duration.toSeconds(ttl) })
    },
    invalid
  }
}

/** Saves after every `steps` steps: with 3, after steps 3, 6, 9 and so on have been applied. */
export const everySteps = (steps: number, options: RetentionOptions = {}): CheckpointPolicy =>
  make(
    {
      due: (moment) => moment.steps % steps === 0,
      config: { kind: "every_steps", steps },
      invalid: isCount(steps) ? undefined : refuse("everySteps", steps, wholeNumber)
    },
    options
  )

/** Saves at the end of every `epochs`-th epoch. Data that knows no epochs never ends one. */
export const everyEpochs = (epochs: number, options: RetentionOptions = {}): CheckpointPolicy =>
  make(
    {
      due: (moment) => moment.epochEnded && moment.epochs % epochs === 0,
      config: { kind: "every_epochs", epochs },
      invalid: isCount(epochs) ? undefined : refuse("everyEpochs", epochs, wholeNumber)
    },
    options
  )

/** Saves after the step with which `tokens` tokens or more have been trained on since the last save. */
export const everyTokens = (tokens: number, options: RetentionOptions = {}): CheckpointPolicy =>
  make(
    {
      due: (moment) => moment.tokens >= tokens,
      config: { kind: "every_tokens", tokens },
      invalid: isCount(tokens) ? undefined : refuse("everyTokens", tokens, wholeNumber)
    },
    options
  )

const positive = (field: string, input: Duration.Input) => {
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  const millis = duration === undefined ? Number.NaN : Duration.toMillis(duration)
  return millis > 0 && Number.isFinite(millis)
    ? { millis, invalid: undefined }
    : { millis: Number.POSITIVE_INFINITY, invalid: refuse(field, input, "must be a finite time above 0") }
}

/** Saves after the step with which so much time has passed since the last save. A paused run does not save. */
export const everyTime = (interval: Duration.Input, options: RetentionOptions = {}): CheckpointPolicy => {
  const { invalid, millis } = positive("everyTime", interval)
  return make(
    {
      due: (moment) => moment.elapsed >= millis,
      config: { kind: "every_time", seconds: Number.isFinite(millis) ? millis / 1000 : null },
      invalid
    },
    options
  )
}

/** Saves again as soon as the save before is answered, and not more often than `floor` (default 5 seconds). */
export const continuous = (
  options: RetentionOptions & { readonly floor?: Duration.Input | undefined } = {}
): CheckpointPolicy => {
  const { invalid, millis } = positive("floor", options.floor ?? "5 seconds")
  return make(
    {
      due: (moment) => !moment.saving && moment.elapsed >= millis,
      config: { kind: "continuous", floorSeconds: Number.isFinite(millis) ? millis / 1000 : null },
      invalid
    },
    options
  )
}

/**
 * Saves at the interval that costs least: Daly's, from what a save is measured to cost this run and from how often it fails.
 * Until there is anything to measure it goes by `saveCost` (default 1 second) and `timeBetweenFailures` (default 6 hours), which
 * counts like one failure that was seen. With `overhead` (default 0.035) saves take at most that share of the time.
 * See `Cadence.optimalInterval`.
 */
export const adaptive = (
  options: RetentionOptions & {
    readonly saveCost?: Duration.Input | undefined
    readonly timeBetweenFailures?: Duration.Input | undefined
    readonly overhead?: number | undefined
  } = {}
): CheckpointPolicy => {
  const cost = positive("saveCost", options.saveCost ?? "1 second")
  const mtbf = positive("timeBetweenFailures", options.timeBetweenFailures ?? "6 hours")
  const overhead = options.overhead ?? 0.035
  return make(
    {
      due: ({ elapsed, observed, saveCost = cost.millis, saving }) =>
        !saving &&
        elapsed >=
          Cadence.optimalInterval({
            saveCost,
            timeBetweenFailures: (mtbf.millis + observed.millis) / (1 + observed.failures),
            overhead
          }),
      config: { kind: "adaptive", saveCostMillis: cost.millis, timeBetweenFailuresMillis: mtbf.millis, overhead },
      invalid:
        cost.invalid ??
        mtbf.invalid ??
        (overhead > 0 && overhead < 1
          ? undefined
          : refuse("overhead", overhead, "must be a share of the time, above 0 and below 1"))
    },
    options
  )
}

/** Saves when an evaluation improves on all before it, and at no other time. A run without an evaluation is refused. */
export const onImprovement = (options: Omit<RetentionOptions, "saveBest"> = {}): CheckpointPolicy =>
  make({ due: (moment) => moment.improved, config: { kind: "on_improvement" }, needsEvaluation: true }, options)

/**
 * The `CheckpointPolicy` of the TrainingIR, as it is written there. A count is of completed optimizer steps (or epochs), so
 * nothing is saved before the first; `keep_last` of 0 or null keeps all.
 */
export const TrainingIr = Schema.Struct({
  /** `all` saves after every step, `last` only at the end, `best` when an evaluation improves. Default `steps`. */
  strategy: Schema.optionalKey(Schema.Literals(["steps", "epoch", "best", "last", "all"])),
  /** Steps or epochs. Default 100. 0 never saves. */
  save_every: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  /** Default 5. */
  keep_last: Schema.optionalKey(Schema.NullOr(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)))),
  /** Keeps the best one too, and saves it where the run has an evaluation. Default true. */
  save_best: Schema.optionalKey(Schema.Boolean),
  /** Default `loss`, which is the service's `loss:sum` unless an evaluation reports a `loss`. */
  best_metric: Schema.optionalKey(Schema.String),
  /** Default `min`. */
  best_mode: Schema.optionalKey(Schema.Literals(["min", "max"])),
  /** `safetensors` is what the service has; `pytorch`, `gguf` and `onnx` are refused. */
  format: Schema.optionalKey(Schema.Literals(["safetensors", "pytorch", "gguf", "onnx"])),
  /** True is refused: a Tinker server has no access to the Hub. */
  push_to_hub: Schema.optionalKey(Schema.Boolean),
  hub_repo: Schema.optionalKey(Schema.NullOr(Schema.String))
})

const decodeIr = Schema.decodeUnknownResult(TrainingIr)

/**
 * The policy that a TrainingIR asks for. What it writes and a Tinker run cannot honour (another `format`, `push_to_hub`) and
 * what is no such policy at all is refused when the trainer is started, with the field and what to do (`invalid`).
 */
export const fromTrainingIr = (input: unknown): CheckpointPolicy => {
  const decoded = decodeIr(input, { onExcessProperty: "error" })
  if (Result.isFailure(decoded)) {
    const problem = `is no TrainingIR checkpoint policy (${decoded.failure.message})`
    return { ...none, invalid: invalidOption("checkpoints", safeJson(input), problem) }
  }
  const ir = decoded.success
  const { best_metric = "loss", best_mode = "min", format, save_best = true, save_every = 100, strategy = "steps" } = ir
  const keepLast = ir.keep_last === null || ir.keep_last === 0 ? "all" : (ir.keep_last ?? 5)
  const kept: RetentionOptions = {
    keepLast,
    ...(save_best ? { saveBest: true, metric: best_metric, mode: best_mode } : {})
  }
  const never = { ...none, config: { ...Object(none.config), trainingIr: { ...ir } } }
  const policy = ((): CheckpointPolicy => {
    switch (strategy) {
      case "steps":
        return save_every === 0 ? (save_best ? onBest(kept) : never) : everySteps(save_every, kept)
      case "epoch":
        return save_every === 0 ? (save_best ? onBest(kept) : never) : everyEpochs(save_every, kept)
      case "all":
        return everySteps(1, kept)
      case "best":
        return onImprovement({ keepLast, metric: best_metric, mode: best_mode })
      case "last":
        return save_best ? onBest(kept) : never
    }
  })()
  const unsupported =
    format !== undefined && format !== "safetensors"
      ? refuse(
          "format",
          format,
          `must be "safetensors": the server decides how it keeps weights. Download the archive and convert it`
        )
      : ir.push_to_hub === true
        ? refuse(
            "push_to_hub",
            true,
            "must be false: the server cannot reach the Hub. Export the checkpoint and push it"
          )
        : undefined
  return unsupported === undefined ? policy : { ...policy, invalid: unsupported }
}

/** Only what `save_best` adds. */
const onBest = (options: RetentionOptions) => make({ due: () => false, config: { kind: "last" } }, options)

const safeJson = (value: unknown): string => {
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return String(value)
  }
}

/** A value of the metric `loss` that nobody reported is the service's `loss:sum`. */
export const metricOf = (metrics: Readonly<Record<string, number>> | undefined, metric: string): number | undefined => {
  const value = metrics?.[metric] ?? (metric === "loss" ? metrics?.["loss:sum"] : undefined)
  return value !== undefined && Number.isFinite(value) ? value : undefined
}

/** Whether `value` is better than every one before it; a value that is missing or no number never is. */
export const improves = (
  value: number | undefined,
  before: ReadonlyArray<number | undefined>,
  mode: "min" | "max"
): boolean =>
  value !== undefined && before.every((old) => old === undefined || (mode === "min" ? value < old : value > old))

/**
 * The one to prove is the oldest of those newest ones that stay anyhow: it lets go of everything that is too many, and of the
 * candidates it had the most time to show that its run was damaged when it was saved. Where those are all too young, it is the
 * newest of the older ones; else a run that saves more often than a checkpoint takes to mature would keep them all.
 */
const retain =
  (options: {
    readonly keepLast: number | "all"
    readonly keepBest: number
    readonly keepEvery: number | undefined
    readonly metric: string
    readonly mode: "min" | "max"
  }) =>
  (verified: ReadonlyArray<Kept>): Retention => {
    const { keepBest, keepEvery, keepLast, metric, mode } = options
    if (keepLast === "all") return { deletable: [], prove: undefined }
    const newestFirst = verified.toSorted((a, b) => b.step - a.step)
    const sign = mode === "min" ? 1 : -1
    const best = new Set(
      newestFirst
        .flatMap((kept) => {
          const value = metricOf(kept.metrics, metric)
          return value === undefined ? [] : [{ path: kept.path, value }]
        })
        .toSorted((a, b) => sign * (a.value - b.value))
        .slice(0, keepBest)
        .map(({ path }) => path)
    )
    const excess = newestFirst
      .slice(keepLast)
      .filter(
        ({ path, pinned, step }) =>
          pinned !== true && !best.has(path) && (keepEvery === undefined || step % keepEvery !== 0)
      )
    const sound = newestFirst.find((kept) => kept.proven && kept.mature !== false)
    const deletable = excess.filter((kept) => sound !== undefined && kept.step < sound.step)
    const isMature = (kept: Kept) => kept.mature !== false
    const guardian = newestFirst.slice(0, keepLast).findLast(isMature) ?? newestFirst.find(isMature)
    const freed = guardian?.proven === false ? excess.filter(({ step }) => step < guardian.step) : []
    return {
      deletable: deletable.map((kept) => kept.path).toReversed(),
      prove: freed.length > deletable.length ? guardian?.path : undefined
    }
  }

/** No saves but the final one, and no deletions. A failure then costs the whole run. */
export const none: CheckpointPolicy = make({ due: () => false, config: { kind: "none" } }, { keepLast: "all" })
