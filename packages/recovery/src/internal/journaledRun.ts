import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { RestClient } from "@tinkex/tinker/RestClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import * as CheckpointName from "@tinkex/training/CheckpointName"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import type { Journal } from "@tinkex/training/Journal"
import * as Restore from "@tinkex/training/Restore"
import * as RunState from "@tinkex/training/RunState"
import type { StepOf } from "../WatchedRun.ts"

interface JournaledRun {
  readonly name: string
  readonly state: RunState.RunState
}

const read = (journal: Journal["Service"], name: string) =>
  journal.read(name).pipe(
    Effect.map((records): JournaledRun => ({ name, state: RunState.fold(records.map(({ record }) => record)) })),
    Effect.option
  )

/** The trainer's run of this name, or the one that an attempt with this id belongs to. A journal that cannot be read knows none. */
export const find = Effect.fnUntraced(function* (journal: Journal["Service"], nameOrId: string) {
  const named = yield* read(journal, nameOrId)
  if (Option.exists(named, ({ state }) => state.run !== undefined)) return named
  for (const name of yield* Effect.orElseSucceed(journal.list, () => [])) {
    const found = yield* read(journal, name)
    const has = ({ state }: JournaledRun) =>
      state.run !== undefined && state.attempts.some(({ trainingRunId }) => trainingRunId === nameOrId)
    if (Option.exists(found, has)) return found
  }
  return Option.none<JournaledRun>()
})

const stepOf: StepOf = ({ checkpointId }) =>
  Option.map(CheckpointName.parse(checkpointId.slice(checkpointId.indexOf("/") + 1)), ({ step }) => step)

/**
 * What a restore of a trainer's run would do now: the checkpoints that its journal vouches for, as far as the service still lists
 * them, then those that only the service knows. Only reads.
 */
export const plan = Effect.fnUntraced(function* (
  rest: RestClient["Service"],
  { name, state }: JournaledRun,
  strategy: CheckpointSelector.Strategy
): Effect.fn.Return<Restore.Plan, TinkerError> {
  const now = yield* DateTime.now
  const journaled = Restore.planJournaled(state, { run: name, strategy, now })
  const lineage = state.attempts.flatMap(({ trainingRunId }) => trainingRunId ?? [])
  const lists = yield* Effect.forEach(lineage, (runId) =>
    Restore.candidates(runId, stepOf).pipe(
      Effect.catchReason("TinkerError", "NotFound", () =>
        Effect.succeed<ReadonlyArray<CheckpointSelector.Candidate>>([])
      )
    )
  ).pipe(Effect.provideService(RestClient, rest))
  const listed = new Map(lists.flat().map((candidate) => [candidate.path, candidate]))
  const known = [
    ...Option.toArray(journaled.chosen),
    ...journaled.fallbacks,
    ...journaled.rejected.map(({ candidate }) => candidate)
  ]
  const candidates = known.map((candidate): CheckpointSelector.Candidate => {
    const found = listed.get(candidate.path)
    if (found === undefined) return Object.assign({}, candidate, { unfit: candidate.unfit ?? gone })
    listed.delete(candidate.path)
    return Object.assign({}, candidate, { expiresAt: found.expiresAt, sizeBytes: found.sizeBytes })
  })
  for (const candidate of listed.values()) {
    candidates.push(state.saveDead.has(candidate.name) ? Object.assign({}, candidate, { unfit: givenUp }) : candidate)
  }
  return Restore.plan({
    run: name,
    trainingRunId: journaled.trainingRunId,
    incident: journaled.incident,
    candidates,
    quarantined: state.quarantined,
    deleted: state.deleted,
    strategy,
    committed: journaled.committed,
    baseAllowed: true,
    now
  })
})

const gone = "the service does not list it any more"
const givenUp = "its save was given up"
