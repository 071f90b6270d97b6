/**
 * Random numbers that a step can draw again: they are a function of the run's seed and of the step, and of nothing else, so that
 * a step taken once more after a restore, or by another process, draws what it drew before. Fixed for ever (xoshiro128**).
 *
 * ```ts
 * import { SeededRandom } from "@tinkex/training"
 *
 * const dice = SeededRandom.make(7, 100)
 * const again = SeededRandom.make(7, 100)
 * dice.int(6) === again.int(6) // => true
 * ```
 */
import { below, generator } from "./internal/shuffle.ts"

export interface SeededRandom {
  /** From 0, inclusive, to 1, exclusive; one of 2^32 values. */
  readonly next: () => number
  /** A whole number from 0, inclusive, to `bound`, exclusive; each is equally likely. `bound` is at most 2^32. */
  readonly int: (bound: number) => number
  /** The same things in another order. */
  readonly shuffle: <A>(items: ReadonlyArray<A>) => Array<A>
}

/** The numbers of one step of a run with this seed. */
export const make = (seed: number, step: number): SeededRandom => {
  const next = generator(`tinkex/step/1/${seed}/${step}`)
  const int = (bound: number) => below(next, bound)
  return {
    next: () => next() / 2 ** 32,
    int,
    shuffle: (items) => {
      const shuffled = [...items]
      for (let i = shuffled.length - 1; i > 0; i--) {
        const j = int(i + 1)
        // both places exist: 0 <= j <= i < length
        const moved = shuffled[i] as (typeof shuffled)[number]
        shuffled[i] = shuffled[j] as (typeof shuffled)[number]
        shuffled[j] = moved
      }
      return shuffled
    }
  }
}
