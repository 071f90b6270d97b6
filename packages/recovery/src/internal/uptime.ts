import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** Milliseconds on the monotonic clock. Whatever is waited for or measured is measured by it: a wall clock that jumps changes timestamps only. */
export const uptime: Effect.Effect<number> = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)
