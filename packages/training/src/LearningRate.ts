/**
 * Learning rates as pure functions of the step, so that a step taken again after a restore has the rate it had before.
 *
 * With step `k` (0 is the first), `S` steps in all and `w` steps of warm-up, each schedule rises as
 * `peak * (k + 1) / (w + 1)` while `k < w`. From then on, with `p = (k - w) / (S - w)`:
 *
 * - constant: `peak`
 * - linear: `peak * (1 - p) + final * p`
 * - cosine: `peak * c + final * (1 - c)` with `c = (1 + cos(pi * p)) / 2`
 *
 * The first step after the warm-up has the peak. `final` would be reached one step after the last, so that with `final = 0` no
 * step is taken at a rate of 0.
 */
import type * as Schema from "effect/Schema"
import { type InvalidOption, invalidOption } from "./JournalError.ts"

export interface LearningRate {
  /** The rate of step `step` (0 is the first) in a run of `totalSteps`. */
  readonly at: (step: number, totalSteps: number) => number
  /** The schedule as data, for the journal and for people. */
  readonly config: Schema.Json
  /** What is wrong with the options, if anything is; the trainer refuses such a schedule. */
  readonly invalid: InvalidOption | undefined
}

export interface DecayOptions {
  /** The highest rate. */
  readonly peak: number
  /** Steps of warm-up. Default 0. */
  readonly warmup?: number | undefined
  /** The rate that the decay ends at. Default 0. */
  readonly final?: number | undefined
}

/** The same rate throughout, after `warmup` steps (default 0). */
export const constant = (rate: number, options: { readonly warmup?: number | undefined } = {}): LearningRate =>
  schedule("constant", { peak: rate, warmup: options.warmup, final: rate }, () => 1)

/** Falls in a straight line. */
export const linear = (options: DecayOptions): LearningRate => schedule("linear", options, (p) => 1 - p)

/** Falls along half a cosine: slowly at first and at the end. */
export const cosine = (options: DecayOptions): LearningRate =>
  schedule("cosine", options, (p) => (1 + Math.cos(Math.PI * p)) / 2)

/** `decay` goes from 1 at 0 to 0 at 1. */
const schedule = (kind: string, options: DecayOptions, decay: (p: number) => number): LearningRate => {
  const { final = 0, peak, warmup = 0 } = options
  const isRate = (value: number) => Number.isFinite(value) && value >= 0
  return {
    at: (step, totalSteps) => {
      const k = Math.max(0, step)
      if (k < warmup) return (peak * (k + 1)) / (warmup + 1)
      const p = Math.min(1, (k - warmup) / Math.max(1, totalSteps - warmup))
      const part = decay(p)
      return peak * part + final * (1 - part)
    },
    config: kind === "constant" ? { kind, rate: peak, warmup } : { kind, peak, warmup, final },
    invalid: !isRate(peak)
      ? invalidOption("learningRate.peak", peak, "must be a number, 0 or more")
      : !isRate(final) || final > peak
        ? invalidOption("learningRate.final", final, `must be a number from 0 to the peak (${peak})`)
        : !Number.isSafeInteger(warmup) || warmup < 0
          ? invalidOption("learningRate.warmup", warmup, "must be a whole number, 0 or more")
          : undefined
  }
}
