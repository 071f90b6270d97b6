/** Runs of the journal, read without taking their lease: as a list, and by name or by the id of one of their attempts. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Journal } from "@tinkex/training/Journal"
import * as RunState from "@tinkex/training/RunState"

/** How a run stands, as far as its journal tells. */
export type Status = "complete" | "ended" | "failed" | "open"

export interface JournaledRun {
  readonly name: string
  readonly state: RunState.RunState
}

/** `failed`: its last attempt has ended with an incident and nothing has followed. */
export const statusOf = ({ attempts, terminal }: RunState.RunState): Status =>
  terminal?._tag === "Completed"
    ? "complete"
    : terminal?._tag === "Ended"
      ? "ended"
      : attempts.at(-1)?.closed === undefined
        ? "open"
        : "failed"

const read = Effect.fnUntraced(function* (name: string) {
  const journal = yield* Journal
  const records = yield* journal.read(name)
  return { name, state: RunState.fold(records.map(({ record }) => record)) } satisfies JournaledRun
})

/** All that can be read, and what is wrong with the rest. */
export const list = Effect.gen(function* () {
  const journal = yield* Journal
  const names = yield* journal.list
  const runs: Array<JournaledRun> = []
  const unreadable: Array<string> = []
  for (const name of names) {
    const run = yield* Effect.result(read(name))
    if (run._tag === "Success") runs.push(run.success)
    else unreadable.push(run.failure.message)
  }
  return { runs, unreadable }
})

/** The run of this name, or the one that an attempt with this training run id belongs to. A damaged journal fails. */
export const find = Effect.fnUntraced(function* (run: string) {
  const named = yield* read(run).pipe(
    Effect.asSome,
    Effect.catchReasons("JournalError", {
      RunNotFound: () => Effect.succeedNone,
      InvalidOption: () => Effect.succeedNone
    })
  )
  if (Option.isSome(named)) return named
  const { runs } = yield* list
  return Option.fromUndefinedOr(
    runs.find(({ state }) => state.attempts.some(({ trainingRunId }) => trainingRunId === run))
  )
})
