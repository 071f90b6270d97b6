import * as Effect from "effect/Effect"

/** So many in a row may come back to try again while somebody waits for a first turn. */
const inARow = 3

/**
 * A fixed number of places, given out in the order of asking. Those who come back to try again go before those who have not had
 * a turn, but not for ever: after three of them one of the others is let in.
 */
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

  let repeats = 0
  const release = Effect.sync(() => {
    const turn = again.length > 0 && (repeats < inARow || fresh.length === 0) ? again : fresh
    repeats = turn === again ? repeats + 1 : 0
    const enter = turn.shift()
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
