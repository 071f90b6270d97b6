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
}

/**
 * Fills in the defaults; the problem as text when an option makes no sense.
 *
 * @category constructors
 * @since 0.1.0
 */
export const limitsOf = (options: RestartIntensityOptions = {}): Limits | string => {
  const { restarts = 3 } = options
  const within = Duration.fromInputUnsafe(options.within ?? "5 seconds")
  if (!Number.isSafeInteger(restarts) || restarts < 0) {
    return `intensity.restarts is ${restarts}; give a whole number from 0`
  }
  return Duration.isFinite(within) && Duration.toMillis(within) > 0
    ? { restarts, within }
    : `intensity.within is ${Duration.format(within)}; give a finite time above zero`
}

/**
 * Starts with an empty memory.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ restarts, within }: Limits): RestartIntensity => {
  const window = Duration.toMillis(within)
  const times: Array<number> = []
  let oldest = 0
  return {
    spend(now) {
      if (times.length < restarts) {
        times.push(now)
        return true
      }
      const time = times[oldest]
      if (time === undefined || time >= now - window) return false
      times[oldest] = now
      oldest = (oldest + 1) % restarts
      return true
    }
  }
}
