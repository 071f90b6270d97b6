import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { uptime } from "./uptime.ts"

/** A limit on one try that stands still while the service holds the try back. In milliseconds. */
export interface Deadline {
  /** The service holds the try back, or does not any more. Saying it again changes nothing. */
  readonly hold: (held: boolean) => Effect.Effect<void>
  /** Returns when the time is up. */
  readonly reached: Effect.Effect<void>
  /** How long it has stood still. */
  readonly stood: Effect.Effect<number>
}

/** `patience` is for how long it may stand still at the most; after that the time counts. */
export const make = (limit: number, patience: number): Effect.Effect<Deadline> =>
  Effect.map(uptime, (began) => {
    let left = limit
    let stood = 0
    let held = false
    let since = began
    let changed = Deferred.makeUnsafe<void>()
    const settle = Effect.map(uptime, (now) => {
      const passed = Math.max(0, now - since)
      const still = held ? Math.min(passed, Math.max(0, patience - stood)) : 0
      since = now
      stood += still
      left -= passed - still
    })
    return {
      hold: (next) =>
        Effect.suspend(() => {
          if (next === held) return Effect.void
          return Effect.andThen(settle, () => {
            held = next
            const told = changed
            changed = Deferred.makeUnsafe<void>()
            return Deferred.succeed(told, undefined)
          })
        }),
      reached: Effect.gen(function* () {
        while (true) {
          yield* settle
          if (left <= 0) return
          const wait = left + (held ? Math.max(0, patience - stood) : 0)
          yield* Effect.timeoutOption(Deferred.await(changed), wait)
        }
      }),
      stood: Effect.map(settle, () => stood)
    }
  })
