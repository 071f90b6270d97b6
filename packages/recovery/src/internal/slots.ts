import * as Effect from "effect/Effect"

/** So many in a row may come back to try again while somebody waits for a first turn. */
const inARow = 3
/** So many may hang on for each place, while others use theirs. */
const lentPerPlace = 10

/** What somebody has who was let in. */
export interface Place {
  /** Lets another one in meanwhile, unless too many have done so. Saying it again changes nothing. */
  readonly lend: Effect.Effect<void>
  /** Goes on at once, and nobody else is let in before as many have left. */
  readonly takeBack: Effect.Effect<void>
}

/**
 * A fixed number of places, given out in the order of asking. Those who come back to try again go before those who have not had
 * a turn, but not for ever: after three of them one of the others is let in.
 */
export interface Slots {
  readonly hold: (again: boolean) => <A, E, R>(use: (place: Place) => Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (places: number): Slots => {
  /** Below zero while more go on than there are places for. */
  let free = places
  let lent = 0
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
  const giveUp = () => {
    if (free < 0) {
      free++
      return
    }
    const turn = again.length > 0 && (repeats < inARow || fresh.length === 0) ? again : fresh
    repeats = turn === again ? repeats + 1 : 0
    const enter = turn.shift()
    if (enter === undefined) free++
    else enter()
  }

  const makePlace = () => {
    let isLent = false
    const takeBack = () => {
      if (!isLent) return
      isLent = false
      lent--
      free--
    }
    return {
      lend: Effect.sync(() => {
        if (isLent || lent >= places * lentPerPlace) return
        isLent = true
        lent++
        giveUp()
      }),
      takeBack: Effect.sync(takeBack),
      leave: Effect.sync(() => {
        takeBack()
        giveUp()
      })
    }
  }

  return {
    hold: (isAgain) => (use) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(restore(take(isAgain ? again : fresh)), () => {
          const place = makePlace()
          return Effect.ensuring(restore(use(place)), place.leave)
        })
      )
  }
}
