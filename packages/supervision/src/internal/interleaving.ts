import * as Context from "effect/Context"

/** Decides whose turn is next. A test provides one to have the same order again; without it turns are taken in order. */
export interface Interleaving {
  /** An index below `waiting`, which is at least 1. */
  readonly pick: (waiting: number) => number
}

export const CurrentInterleaving = Context.Reference<Interleaving | undefined>("@tinkex/supervision/Interleaving", {
  defaultValue: () => undefined
})
