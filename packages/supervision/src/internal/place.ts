import * as Context from "effect/Context"
import type { Child } from "./child.ts"

/**
 * Where in a tree a fiber works: the child, for one incarnation of it. `live` ends with that incarnation, which is how a
 * late fiber of the old one is told from the new one.
 */
export class Place {
  readonly child: Child
  /** The paths of those on whose behalf a task runs, the nearest first. */
  readonly callers: ReadonlyArray<string>
  live = true

  constructor(child: Child, callers: ReadonlyArray<string> = []) {
    this.child = child
    this.callers = callers
  }
}

export const CurrentPlace = Context.Reference<Place | undefined>("@tinkex/supervision/Place", {
  defaultValue: () => undefined
})
