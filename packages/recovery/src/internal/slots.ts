import * as Effect from "effect/Effect"

/** A fixed number of places. Those who come back to try again go before those who have not had a turn. */
export interface Slots {
  readonly hold: (again: boolean) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (places: number): Slots => {
  let free = places
  const again: Array<() => void> = []
  const fresh: Array<() => void> = []

  const take = (queue: Array<() => void>) =>
    Effect.callback<void>((resume) => {
      if (free > 0) {
        free--
        return resume(Effect.void)
      }
      const enter = () => resume(Effect.void)
      queue.push(enter)
      return Effect.sync(() => {
        const at = queue.indexOf(enter)
        if (at >= 0) queue.splice(at, 1)
      })
    })

  const release = Effect.sync(() => {
    const enter = again.shift() ?? fresh.shift()
    if (enter === undefined) free++
    else enter()
  })

  return {
    hold: (isAgain) => (effect) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(restore(take(isAgain ? again : fresh)), () => Effect.ensuring(restore(effect), release))
      )
  }
}
