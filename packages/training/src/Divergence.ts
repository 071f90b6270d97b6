/**
 * What a run does when its loss is no number any more, or leaves its course.
 *
 * - **DV1** a step whose loss is not finite is never committed unless the policy says `ignore`;
 * - **DV2** neither a rollback nor any restore behind it uses a checkpoint that holds the step at which it began, and retention
 *   keeps one that is too old to hold it (CP2);
 * - **DV3** a skipped step is written down before the rollback, so that every later attempt, and every later process, leaves the
 *   same batch out;
 * - **DV4** after `limit` rollbacks, those of earlier starts among them, the run ends with `Diverged`. Such an end is no rollback.
 *
 * A gradient that is no number cannot be taken back from a server, so leaving a batch out costs a restore. Looking at the loss
 * finds neither a slow drift nor damage that the loss does not show.
 */
import { type InvalidOption, invalidOption } from "./JournalError.ts"

/**
 * - `stop`: the run ends with `Diverged`; started again it goes on from a checkpoint from before
 * - `rollBack`: back to a checkpoint from before, and the same steps once more; for damage that passes
 * - `skip`: the same, and the batch of that step is left out from now on
 * - `ignore`: nothing
 */
export type Action = "stop" | "rollBack" | "skip" | "ignore"

export interface DivergenceOptions {
  /** What is looked at. A sum (`...:sum`) is taken per trained position. Default `"loss:sum"`. */
  readonly metric?: string | undefined
  /** When it is not a finite number. Default `"stop"`. */
  readonly notFinite?: Action | undefined
  /** When it is far above what it was. Default: not looked at. */
  readonly spike?: SpikeOptions | undefined
  /** Rollbacks in the life of the run, of both kinds together; ends by `stop`, or by this limit, are none. Default 3. */
  readonly limit?: number | undefined
}

export interface SpikeOptions {
  readonly action: Action
  /** So many standard deviations above the moving mean. Default 5. */
  readonly sigmas?: number | undefined
  /** For so many steps in a row. Default 3. */
  readonly steps?: number | undefined
  /** Steps that are watched before any is judged, after every restore as well. Default 20. */
  readonly warmup?: number | undefined
}

/** Checked, without gaps. */
export interface Divergence {
  readonly metric: string
  readonly notFinite: Action
  readonly spike: Required<{ readonly [K in keyof SpikeOptions]: NonNullable<SpikeOptions[K]> }> | undefined
  readonly limit: number
}

export const resolve = (options: DivergenceOptions = {}): Divergence => ({
  metric: options.metric ?? "loss:sum",
  notFinite: options.notFinite ?? "stop",
  spike:
    options.spike === undefined
      ? undefined
      : {
          action: options.spike.action,
          sigmas: options.spike.sigmas ?? 5,
          steps: options.spike.steps ?? 3,
          warmup: options.spike.warmup ?? 20
        },
  limit: options.limit ?? 3
})

/** So many steps behind one it may still be found to be the first bad one. A checkpoint is beyond doubt when they are committed. */
export const hindsight = ({ spike }: Divergence): number =>
  spike === undefined || spike.action === "ignore" ? 0 : spike.steps - 1

export const invalid = ({ limit, spike }: Divergence): InvalidOption | undefined => {
  const whole = (field: string, value: number, least: number) =>
    Number.isSafeInteger(value) && value >= least
      ? undefined
      : invalidOption(`divergence.${field}`, value, `must be a whole number, ${least} or more`)
  return (
    whole("limit", limit, 0) ??
    (spike === undefined
      ? undefined
      : (whole("spike.steps", spike.steps, 1) ??
        whole("spike.warmup", spike.warmup, 2) ??
        (spike.sigmas > 0 ? undefined : invalidOption("divergence.spike.sigmas", spike.sigmas, "must be above 0"))))
  )
}

/** What was found, and from which step on. */
export interface Finding {
  readonly action: Exclude<Action, "ignore">
  /** The first bad step. */
  readonly step: number
  readonly detail: string
}

/** How much the newest step weighs in the moving mean. */
const weight = 0.05

/** Judges the steps of one attempt in their order. */
export const detector = (divergence: Divergence) => {
  const { metric, notFinite, spike } = divergence
  let seen = 0
  let mean = 0
  let variance = 0
  let high = 0
  return {
    judge: (step: number, metrics: Readonly<Record<string, number>>, positions: number): Finding | undefined => {
      const raw = metrics[metric]
      if (raw === undefined) return undefined
      if (!Number.isFinite(raw)) {
        return notFinite === "ignore"
          ? undefined
          : { action: notFinite, step, detail: `${metric} of step ${step} is ${raw}` }
      }
      if (spike === undefined || spike.action === "ignore") return undefined
      const value = metric.endsWith(":sum") && positions > 0 ? raw / positions : raw
      const limit = mean + spike.sigmas * Math.sqrt(variance)
      if (seen >= spike.warmup && value > limit) {
        if (++high < spike.steps) return undefined
        const onset = step - high + 1
        const times = high === 1 ? "" : ` for ${high} steps`
        const detail = `${metric} was above ${limit.toPrecision(4)}${times} (${value.toPrecision(4)} at step ${step})`
        return { action: spike.action, step: onset, detail }
      }
      high = 0
      const share = seen === 0 ? 1 : Math.max(weight, 1 / (seen + 1))
      const change = value - mean
      mean += share * change
      variance = (1 - share) * (variance + share * change * change)
      seen++
      return undefined
    }
  }
}
