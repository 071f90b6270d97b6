/** The one queue of a model: turns are taken in the order of their reservation, one at a time. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"

export interface Turn {
  /** Does the work; never fails. */
  readonly run: Effect.Effect<void>
  /** Told that it will not be run. */
  readonly drop: () => void
}

interface Reserved extends Turn {
  open: boolean
  readonly opened: Deferred.Deferred<void>
}

export interface Lane {
  /** Takes the next place. The returned effect says that the turn may be run when its place is reached. */
  readonly reserve: (turn: Turn) => Effect.Effect<void>
  /** Drops every turn that is not finished, the running one included. Nothing is run afterwards. */
  readonly clear: () => void
}

/**
 * `onStall` is told when opened turns have waited for `stallMillis` behind one that nobody opens. No fiber lives while nothing
 * is to be done.
 */
export const make = (options: {
  readonly scope: Scope.Scope
  readonly stallMillis: number
  readonly onStall: () => void
}): Lane => {
  const queue: Array<Reserved> = []
  let pump: Fiber.Fiber<void> | undefined
  let pumping = false
  let cleared = false

  const work = Effect.gen(function* () {
    while (true) {
      const head = queue[0]
      if (head === undefined) break
      if (!head.open) {
        if (!queue.some((turn) => turn.open)) break
        const opened = yield* Deferred.await(head.opened).pipe(Effect.timeoutOption(options.stallMillis))
        if (opened._tag === "None" && queue[0] === head && !head.open) options.onStall()
        continue
      }
      yield* head.run
      if (queue[0] === head) queue.shift()
    }
    pumping = false
  })

  const clear = () => {
    cleared = true
    for (const turn of queue.splice(0)) turn.drop()
    pump?.interruptUnsafe()
    pump = undefined
    pumping = false
  }

  return {
    reserve: (turn) => {
      const reserved: Reserved = { ...turn, open: false, opened: Deferred.makeUnsafe<void>() }
      queue.push(reserved)
      return Effect.suspend(() => {
        reserved.open = true
        Deferred.doneUnsafe(reserved.opened, Effect.void)
        if (pumping || !queue.includes(reserved)) return Effect.void
        pumping = true
        return Effect.map(Effect.forkIn(work, options.scope), (fiber) => {
          pump = fiber
          if (cleared) fiber.interruptUnsafe()
        })
      })
    },
    clear
  }
}
