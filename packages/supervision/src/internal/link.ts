import * as Context from "effect/Context"

/** The part of an actor that a chain of calls looks at. */
export interface Busy {
  readonly path: string
  readonly current: Handled | undefined
}

/** The message a handler works on. A caller that was refused or left no longer waits for it. */
export interface Handled {
  readonly waiting: boolean
}

/** One handler in a chain of actors that wait for each other. It counts only while its message is still being handled. */
export class Link {
  readonly actor: Busy
  readonly message: Handled
  readonly caller: Link | undefined

  constructor(actor: Busy, message: Handled, caller: Link | undefined) {
    this.actor = actor
    this.message = message
    this.caller = caller
  }
}

/** The handler on whose behalf a fiber runs. */
export const CurrentHandler = Context.Reference<Link | undefined>("@tinkex/supervision/CurrentHandler", {
  defaultValue: () => undefined
})

/** The circle that a call to `target` would close: the waiting actors from the target to itself, or nothing. */
export const circle = (link: Link | undefined, target: Busy): ReadonlyArray<string> | undefined => {
  for (let at = link; at !== undefined; at = at.caller) {
    if (at.actor.current !== at.message) return undefined
    if (at.actor === target) return path(link, at)
    if (!at.message.waiting) return undefined
  }
  return undefined
}

const path = (link: Link | undefined, first: Link): ReadonlyArray<string> => {
  const names = [first.actor.path]
  for (let at = link; at !== undefined; at = at === first ? undefined : at.caller) names.unshift(at.actor.path)
  return names
}
