/** Tells the log why results take their time, no more than once a minute. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { QueueState } from "../ApiFuture.ts"

const everyMillis = 60_000

/** `limited` is what a limited rate means where the service does not say it. */
export const make = (limited: string): ((operation: string, state: QueueState) => Effect.Effect<void>) => {
  let told = Number.NEGATIVE_INFINITY
  return (operation, { reason, state }) =>
    state === "active"
      ? Effect.void
      : Effect.flatMap(Clock.currentTimeMillis, (now) => {
          if (now - told < everyMillis) return Effect.void
          told = now
          const why = reason ?? (state === "paused_rate_limit" ? limited : state === "paused_capacity" ? short : state)
          return Effect.logInfo(`${operation} waits: ${why}`)
        })
}

const short = "the service is short of capacity"
