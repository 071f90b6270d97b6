/** How many bytes may be on their way at once. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"

/**
 * Waits, in the order of arrival, while the budget is overdrawn, and then takes its bytes: one request may overdraw it, so that
 * a request larger than the whole budget is sent too. The bytes are given back when the effect ends, however it ends.
 */
export interface ByteBudget {
  readonly spend: (bytes: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** What is left; below 0 while overdrawn. */
  readonly left: () => number
}

interface Turn {
  readonly cost: number
  readonly come: Deferred.Deferred<void>
  taken: boolean
}

export const make = (bytes: number): ByteBudget => {
  let left = bytes
  const waiting: Array<Turn> = []

  const give = (cost: number) => {
    left += cost
    while (left >= 0) {
      const next = waiting.shift()
      if (next === undefined) return
      left -= next.cost
      next.taken = true
      Deferred.doneUnsafe(next.come, Effect.void)
    }
  }
  const leave = (turn: Turn) => {
    // It may be let in and interrupted before it goes on.
    if (turn.taken) return give(turn.cost)
    waiting.splice(waiting.indexOf(turn), 1)
  }

  return {
    spend: (cost) => (effect) =>
      Effect.uninterruptibleMask((restore) => {
        const use = Effect.ensuring(
          restore(effect),
          Effect.sync(() => give(cost))
        )
        // Whoever waits is let in as soon as it is not overdrawn, so nobody does.
        if (left >= 0) {
          left -= cost
          return use
        }
        const turn: Turn = { cost, come: Deferred.makeUnsafe<void>(), taken: false }
        waiting.push(turn)
        return restore(Deferred.await(turn.come)).pipe(
          Effect.onInterrupt(() => Effect.sync(() => leave(turn))),
          Effect.andThen(use)
        )
      }),
    left: () => left
  }
}
