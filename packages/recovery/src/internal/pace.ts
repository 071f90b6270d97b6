import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { uptime } from "./uptime.ts"

/** How often the service is asked. */
export interface Pace {
  /** Waits for leave to send one request: in no second more than the limit, and none while the service wants quiet. */
  readonly leave: Effect.Effect<void>
  /** The service wants to hear nothing for so long. */
  readonly hush: (duration: Duration.Duration) => Effect.Effect<void>
}

export const make = (perSecond: number): Pace => {
  // when the last `perSecond` requests left, or are going to
  const left = new Float64Array(perSecond).fill(Number.NEGATIVE_INFINITY)
  let turn = 0
  let quietUntil = Number.NEGATIVE_INFINITY

  const untilQuietEnds: Effect.Effect<void> = Effect.flatMap(uptime, (now) =>
    now < quietUntil ? Effect.andThen(Effect.sleep(Duration.millis(quietUntil - now)), untilQuietEnds) : Effect.void
  )

  return {
    leave: Effect.flatMap(uptime, (now) => {
      const at = Math.max(now, quietUntil, (left[turn] ?? 0) + 1000)
      left[turn] = at
      turn = (turn + 1) % perSecond
      return at > now ? Effect.andThen(Effect.sleep(Duration.millis(at - now)), untilQuietEnds) : Effect.void
    }),
    hush: (duration) =>
      Effect.map(uptime, (now) => void (quietUntil = Math.max(quietUntil, now + Duration.toMillis(duration))))
  }
}
