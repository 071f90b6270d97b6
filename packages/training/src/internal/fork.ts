import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { RestClient } from "@tinkex/tinker/RestClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { OpenJournal } from "../Journal.ts"
import type { RunState } from "../RunState.ts"
import { TrainingError } from "../TrainingError.ts"

/** Runs of the account that are looked at, newest first: one request for each hundred. */
const most = 1000

const wholeNumber = (text: string | undefined): number | undefined => {
  const value = Number(text)
  return text !== undefined && Number.isSafeInteger(value) ? value : undefined
}

/**
 * Refuses to go on from a journal whose copy has gone further (RP26). Every model of a run carries the id of its journal and the
 * number of the writer that made it: one made by a writer that this journal has never heard of was made from a copy. This finds
 * a fork, it cannot prevent one. Where the list cannot be read, a journal that was never moved goes on, with a warning.
 */
export const refuse = Effect.fnUntraced(function* (
  run: string,
  open: OpenJournal,
  state: RunState,
  rest: RestClient["Service"]
): Effect.fn.Return<void, TrainingError | TinkerError> {
  const journalId = state.run?.journalId
  const known = open.records.at(-1)?.epoch ?? 0
  if (journalId === undefined) return
  let newest: { readonly trainingRunId: string; readonly attempt: number; readonly epoch: number } | undefined
  const ours = new Set(state.attempts.flatMap(({ trainingRunId }) => trainingRunId ?? []))
  yield* rest.streamTrainingRuns().pipe(
    Stream.take(most),
    Stream.runForEach(({ trainingRunId, userMetadata }) =>
      Effect.sync(() => {
        const labels = Option.getOrUndefined(userMetadata)
        if (labels?.["tinkex.journal"] !== journalId || ours.has(trainingRunId)) return
        const epoch = wholeNumber(labels["tinkex.epoch"]) ?? 0
        const attempt = wholeNumber(labels["tinkex.attempt"]) ?? 0
        if (epoch > known && attempt > 0 && epoch >= (newest?.epoch ?? 0)) newest = { trainingRunId, attempt, epoch }
      })
    ),
    Effect.catchTag("TinkerError", (error) =>
      open.foreign
        ? Effect.fail(error)
        : Effect.logWarning(`Whether run "${run}" has gone on elsewhere could not be found out: ${error.message}`)
    )
  )
  if (newest !== undefined) return yield* TrainingError.foreignJournal({ run, known, ...newest })
})
