/**
 * Tells the service how a session goes: that it began and ended, which calls failed and why. The service's operators read it.
 *
 * It never fails a call and never makes one wait: events go into a queue of 10,000, beyond which the newest are dropped with a
 * warning, and are sent in the background, at most 100 to a request, every 10 seconds or when there are that many. What cannot
 * be delivered is tried again, ever more slowly; a service that does not want it is not asked again. Closing the connection
 * tries for 5 seconds to deliver the rest. An event holds the kind of an error and its message, with all credentials blanked
 * out; no prompts, no data, no stack traces.
 *
 * Off unless `TinkerOptions.telemetry` is true; see there for what `Tinker.layerConfig` does.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"

export type Severity = "DEBUG" | "INFO" | "WARNING" | "ERROR" | "CRITICAL"

export interface EventOptions {
  /** Default `INFO`. */
  readonly severity?: Severity | undefined
  /** Default: nothing. */
  readonly data?: Readonly<Record<string, unknown>> | undefined
}

export class Telemetry extends Context.Service<
  Telemetry,
  {
    /** Whether anything is sent: it was asked for, and the service takes it. */
    readonly isEnabled: Effect.Effect<boolean>
    /** Something of the program's own, under a name of which there are few. */
    readonly event: (name: string, options?: EventOptions) => Effect.Effect<void>
    /** An error: what its user can mend as a warning, everything else as an unhandled exception. Calls that fail report themselves. */
    readonly error: (error: unknown) => Effect.Effect<void>
    /** Sends what waits; false where it is not all gone within the limit, 30 seconds unless given. */
    readonly flush: (limit?: Duration.Input) => Effect.Effect<boolean>
  }
>()("@tinkex/tinker/Telemetry") {}
