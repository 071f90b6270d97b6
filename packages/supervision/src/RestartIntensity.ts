/**
 * How many restarts a supervisor grants before it gives up.
 *
 * `restarts` of them are granted in every window of `within`; the next one inside the window is refused. The window is
 * exact to the millisecond and inclusive: a restart that is precisely `within` old still counts. The cost of a decision does
 * not depend on the number of restarts, unlike OTP's, which walks a list.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"

/**
 * @category models
 * @since 0.1.0
 */
export interface RestartIntensityOptions {
  /** Restarts granted per window, a whole number from 0. Default 3. */
  readonly restarts?: number | undefined
  /** Length of the window, above zero. Default 5 seconds. */
  readonly within?: Duration.Input | undefined
}

/**
 * Options with their defaults, found to make sense.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits {
  readonly restarts: number
  readonly within: Duration.Duration
}

/**
 * The memory of one supervisor: the times of its latest granted restarts.
 *
 * @category models
 * @since 0.1.0
 */
export interface RestartIntensity {
  /** Asks for one restart at the time `now`, in whole milliseconds of a clock that never goes back. */
  readonly spend: (now: number) => boolean
  /** Restarts that still count at `now`. */
  readonly spent: (now: number) => number
  /** Other limits from now on; what was granted still counts. */
  readonly change: (limits: Limits) => void
}

/**
 * Fills in the defaults; the problem and its field when an option makes no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const limitsOf = (
  options: RestartIntensityOptions = {}
): Limits | { readonly field: string; readonly problem: string } => {
  const { restarts = 3 } = options
  if (!Number.isSafeInteger(restarts) || restarts < 0) {
    return { field: "intensity.restarts", problem: `it is ${String(restarts)}; give a whole number from 0` }
  }
  const within = Duration.fromInput(options.within ?? "5 seconds")
  if (within._tag === "None" || !Duration.isFinite(within.value) || Duration.toMillis(within.value) <= 0) {
    const given = within._tag === "None" ? String(options.within) : Duration.format(within.value)
    return { field: "intensity.within", problem: `it is ${given}; give a finite time above zero` }
  }
  return { restarts, within: within.value }
}

/**
 * Starts with an empty memory.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (limits: Limits): RestartIntensity => {
  let { restarts } = limits
  let window = Duration.toMillis(limits.within)
  // a ring that never shrinks: limits that are lowered and raised again forget nothing
  let size = restarts
  let times: Array<number> = []
  let oldest = 0
  // what was outside a window once stays forgotten when the window becomes longer
  let horizon = Number.NEGATIVE_INFINITY
  const inOrder = () => [...times.slice(oldest), ...times.slice(0, oldest)]
  return {
    spend(now) {
      horizon = Math.max(horizon, now - window)
      const { length } = times
      if (restarts === 0) return false
      if (length >= restarts) {
        const time = times[(oldest + length - restarts) % length]
        if (time === undefined || time >= horizon) return false
      }
      if (length < size) {
        times.push(now)
      } else {
        times[oldest] = now
        oldest = (oldest + 1) % size
      }
      return true
    },
    spent: (now) => times.filter((time) => time >= Math.max(horizon, now - window)).length,
    change(next) {
      restarts = next.restarts
      window = Duration.toMillis(next.within)
      if (restarts <= size) return
      times = inOrder()
      oldest = 0
      size = restarts
    }
  }
}
