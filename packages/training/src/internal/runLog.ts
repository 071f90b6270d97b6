import * as Effect from "effect/Effect"
import type { JournalError, OpenJournal } from "../Journal.ts"
import type { JournalRecord } from "../JournalRecord.ts"
import * as RunState from "../RunState.ts"

/** The open journal together with what its records add up to, so that nobody has to fold it again to decide something. */
export interface RunLog {
  readonly state: () => RunState.RunState
  /** Returns when the record would survive a power loss. */
  readonly append: (record: JournalRecord) => Effect.Effect<void, JournalError>
  /** Keeps its place in the order and becomes durable with the next group. */
  readonly appendLazy: (record: JournalRecord) => Effect.Effect<void, JournalError>
}

export const make = (journal: OpenJournal): RunLog => {
  let state = RunState.fold(journal.records.map((stamped) => stamped.record))
  return {
    state: () => state,
    // Known from the call on, not from the flush: what is decided meanwhile must see it. After a failed write nothing more is
    // decided, since every later append fails too.
    append: (record) =>
      Effect.suspend(() => {
        state = RunState.apply(state, record)
        return journal.append(record)
      }),
    appendLazy: (record) =>
      Effect.suspend(() => {
        state = RunState.apply(state, record)
        return journal.appendLazy(record)
      })
  }
}
