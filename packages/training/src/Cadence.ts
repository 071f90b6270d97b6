/**
 * How long to train between two saves, for a given cost of a save and a given rate of failures.
 *
 * With interval `T` of work, `C` the time that a save costs and `M` the mean time between failures, `C / (T + C)` of the time
 * goes into saves and `(T + C) / (2 M)` into work that is done again. Young found the least sum at `sqrt(2 C M)`; Daly's
 * correction counts in that a failure may strike again before the next save:
 *
 * `T* = sqrt(2 C M) * (1 + sqrt(C / 2M) / 3 + (C / 2M) / 9) - C` where `C < 2M`, else `M`.
 *
 * ```ts
 * import { Cadence } from "@tinkex/training"
 *
 * const hours = 3_600_000
 * Math.round(Cadence.optimalInterval({ saveCost: 500, timeBetweenFailures: 6 * hours }) / 1000) // => 147
 * Math.round(Cadence.optimalInterval({ saveCost: 500, timeBetweenFailures: hours / 2 }) / 1000) // => 42
 * ```
 */

export interface CadenceOptions {
  /** Milliseconds by which one save holds the run up. */
  readonly saveCost: number
  /** Milliseconds. */
  readonly timeBetweenFailures: number
  /** Saves may take at most this share of the time, even if that is not the optimum. Default: no limit. */
  readonly overhead?: number | undefined
}

/** Daly's interval in milliseconds; a save that costs nothing may follow every step. */
export const optimalInterval = ({ overhead, saveCost: c, timeBetweenFailures: m }: CadenceOptions): number => {
  const ratio = c / (2 * m)
  const daly = c < 2 * m ? Math.sqrt(2 * c * m) * (1 + Math.sqrt(ratio) / 3 + ratio / 9) - c : m
  return overhead === undefined ? daly : Math.max(daly, c * (1 / overhead - 1))
}
