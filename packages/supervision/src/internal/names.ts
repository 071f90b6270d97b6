import { AlreadyRegistered, SupervisorError } from "../SupervisorError.ts"
import type { Child } from "./child.ts"
import type { Definition } from "./definition.ts"

/** A name that a child takes before its init runs, and gives back when the incarnation ends. */
export interface Registration {
  /** The owner's path when the name is taken, else what gives it back. */
  readonly take: (child: Child) => string | (() => void)
  readonly key: unknown
  /** Of the actors that may have the name. */
  readonly definition: Definition
}

/** Takes all names of a child, or none. */
export const takeNames = (child: Child): SupervisorError | undefined => {
  const { names } = child.settings
  for (const { key, take } of names) {
    const taken = take(child)
    if (typeof taken === "string") {
      child.releaseNames()
      const about = { supervisor: child.owner.path, child: child.id, key: String(key), owner: taken }
      return new SupervisorError({ reason: new AlreadyRegistered(about) })
    }
    const { rare } = child
    ;(rare.leases ??= []).push(taken)
  }
  return undefined
}
