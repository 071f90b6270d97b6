import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Goodput from "../Goodput.ts"
import type { JournalError, OpenJournal } from "../Journal.ts"
import type { JournalRecord } from "../JournalRecord.ts"
import * as RunState from "../RunState.ts"

/** The open journal together with what its records add up to, so that nobody has to fold it again to decide something. */
export interface RunLog {
  readonly state: () => RunState.RunState
  readonly account: () => Goodput.Account
  /** Returns when the record would survive a power loss. */
  readonly append: (record: JournalRecord) => Effect.Effect<void, JournalError>
  /** Keeps its place in the order and becomes durable with the next group. */
  readonly appendLazy: (record: JournalRecord) => Effect.Effect<void, JournalError>
}

export const make = Effect.fnUntraced(function* (journal: OpenJournal) {
  const clock = yield* Clock.Clock
  let state = RunState.fold(journal.records.map((stamped) => stamped.record))
  let account = Goodput.fold(journal.records)
  const known = (record: JournalRecord) => {
    state = RunState.apply(state, record)
    account = Goodput.apply(account, clock.currentTimeMillisUnsafe(), record)
  }
  // The journal has written this writer's epoch already.
  if (journal.records.length > 0) account = Goodput.taken(account, clock.currentTimeMillisUnsafe())
  const log: RunLog = {
    state: () => state,
    account: () => account,
    // Known from the call on, not from the flush: what is decided meanwhile must see it. After a failed write nothing more is
    // decided, since every later append fails too.
    append: (record) =>
      Effect.suspend(() => {
        known(record)
        return journal.append(record)
      }),
    appendLazy: (record) =>
      Effect.suspend(() => {
        known(record)
        return journal.appendLazy(record)
      })
  }
  return log
})
