/** How the recovery itself stands, for probes: a load balancer, an orchestrator, a person. */
import type * as Duration from "effect/Duration"

export interface Health {
  /** The sweeps go on. Where this is false, restart the process: the runs lose nothing by it. */
  readonly live: boolean
  /** A recovery that is asked for now would begin: nothing is shutting down and the service answers. */
  readonly ready: boolean
  /** The service does not answer: flags cannot be seen, recoveries wait. Failures in band are still noticed. */
  readonly degraded: boolean
  /** Why one of the above is not as it should be, in words for a person. */
  readonly reasons: ReadonlyArray<string>
  /** Runs under watch, those of trainers included. */
  readonly watched: number
  /** Recoveries that go on. */
  readonly recovering: number
  /** Runs that were given up and that nobody has armed anew. */
  readonly givenUp: number
  /** Since the last sweep ended; `null` before the first. */
  readonly lastSweep: Duration.Duration | null
}

/** The HTTP status for a probe of one kind: 200, or 503 where it fails. */
export const statusOf = (health: Health, probe: "live" | "ready"): 200 | 503 => (health[probe] ? 200 : 503)
