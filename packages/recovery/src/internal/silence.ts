import * as Duration from "effect/Duration"
import type { RecoveryPolicy } from "../RecoveryPolicy.ts"

/** How quiet a run is, in whole milliseconds of our own clock: the service's may differ by minutes. */
export interface Silence {
  /** The run's last request by the service's clock, as of the last read that showed the run well. */
  heard: number | undefined
  /** Since when it is the same. */
  since: number
  /** How often it has changed. */
  changes: number
  /** The longest time between two changes. */
  longest: number
  told: boolean
  acted: boolean
}

/** Changes to learn from before a run's own habits count. */
const warmUp = 8
const factor = 5

/** Starts the count anew, for instance after a pause: what lies before is nobody's habit. */
export const restart = (silence: Silence, now: number): void => {
  silence.since = now
  silence.told = false
  silence.acted = false
}

/** A run was seen. */
export const hear = (silence: Silence, last: number, now: number): void => {
  if (silence.heard === last) return
  if (silence.heard !== undefined) {
    silence.changes++
    silence.longest = Math.max(silence.longest, now - silence.since)
  }
  silence.heard = last
  restart(silence, now)
}

/**
 * After how much of it a silence is told: five times the longest one that the run has shown, but no less than three sweeps and
 * no more than `stalledAfter`, which alone counts until the run has been active eight times.
 */
export const limit = ({ changes, longest }: Silence, policy: RecoveryPolicy): number => {
  const most = Duration.toMillis(policy.stalledAfter)
  if (changes < warmUp) return most
  return Math.min(most, Math.max(factor * longest, 3 * Duration.toMillis(policy.pollInterval)))
}
