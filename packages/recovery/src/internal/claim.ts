import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type { Journal, JournalError, OpenJournal } from "@tinkex/training/Journal"
import type { JournalRecord } from "@tinkex/training/JournalRecord"
import * as RunState from "@tinkex/training/RunState"
import { JournalFailed, make as refuse, OwnedElsewhere, type RecoveryError } from "../RecoveryError.ts"
import type { Incident } from "../Executor.ts"

/** What the journal of a run says of it, for whoever did not write it. */
export interface Known {
  /** The training runs that carried it, oldest first. */
  readonly lineage: ReadonlyArray<string>
  /** For each of them the checkpoint that it began from. */
  readonly origins: ReadonlyArray<string | null>
  /** Path to why. */
  readonly refused: ReadonlyMap<string, string>
  /** The incident that ended the newest attempt, if it has ended and nobody has finished its recovery. */
  readonly open:
    | { readonly cause: Extract<JournalRecord, { _tag: "Incident" }>["cause"]; readonly detail: string }
    | undefined
  /** Why it was given up for good, if it was. */
  readonly ended: string | undefined
  /** Models that were made and never became an attempt: their maker died, or failed to take them away. */
  readonly leaked: ReadonlyArray<{ readonly trainingRunId: string; readonly sessionId: string }>
}

/** The right to recover a run, held until its scope closes. Everything is durable before it is done. */
export interface Claim {
  readonly known: Known
  /** The newest attempt has failed. */
  readonly opened: (incident: Incident) => Effect.Effect<void, RecoveryError>
  /** A restore from a checkpoint begins. */
  readonly begin: (path: string, step: Option.Option<number>) => Effect.Effect<void, RecoveryError>
  readonly created: (client: TrainingClient) => Effect.Effect<void, RecoveryError>
  /** It is the new attempt; from now on everybody else follows it. */
  readonly started: (client: TrainingClient) => Effect.Effect<void, RecoveryError>
  readonly quarantine: (path: string, why: string) => Effect.Effect<void, RecoveryError>
  readonly ended: (error: RecoveryError) => Effect.Effect<void, RecoveryError>
}

/** The name under which a run is kept whose owner gives it none. */
export const nameOf = (runId: string): string => `watched-${runId.replace(/[^A-Za-z0-9._-]/g, "-")}`.slice(0, 120)

const know = (state: RunState.RunState): Known => {
  const started = state.attempts.filter((attempt) => attempt.started)
  const newest = started.at(-1)
  const closed = state.terminal === undefined ? newest?.closed : undefined
  return {
    lineage: started.flatMap(({ trainingRunId }) => trainingRunId ?? []),
    origins: started.map(({ from }) => from),
    refused: state.quarantined,
    open: closed === undefined ? undefined : { cause: closed.cause, detail: closed.detail },
    ended: state.terminal?._tag === "Ended" ? state.terminal.detail : undefined,
    leaked: state.attempts.flatMap(({ sessionId, started, trainingRunId }) =>
      started || trainingRunId === undefined || sessionId === undefined ? [] : [{ trainingRunId, sessionId }]
    )
  }
}

const foldOf = (records: OpenJournal["records"]) => RunState.fold(records.map(({ record }) => record))

const failed =
  (runId: string) =>
  (error: JournalError): RecoveryError => {
    const { reason } = error
    return reason._tag === "LeaseHeld" || reason._tag === "Fenced"
      ? refuse(new OwnedElsewhere({ runId, why: error.message }))
      : refuse(new JournalFailed({ runId, detail: error.message }))
  }

/** What is known of a run, without a claim to it; nothing if nobody has ever claimed it. */
export const read = (journal: Journal["Service"], name: string, runId: string) =>
  journal.read(name).pipe(
    Effect.map((records) => Option.some(know(foldOf(records)))),
    Effect.catchReason("JournalError", "RunNotFound", () => Effect.succeedNone),
    Effect.mapError(failed(runId))
  )

/**
 * Claims a run. Fails with `OwnedElsewhere` while somebody else has it. `lineage` is what the claimer knows of it: a journal that
 * is new begins with it.
 */
export const take = Effect.fnUntraced(function* (
  journal: Journal["Service"],
  name: string,
  lineage: ReadonlyArray<string>
): Effect.fn.Return<Claim, RecoveryError, Scope.Scope> {
  const runId = lineage.at(-1) ?? name
  const open = yield* journal.open(name).pipe(Effect.mapError(failed(runId)))
  let state = foldOf(open.records)
  const append = (record: JournalRecord) =>
    open.append(record).pipe(
      Effect.mapError(failed(runId)),
      Effect.tap(() => Effect.sync(() => (state = RunState.apply(state, record))))
    )
  const begin = (attempt: number, from: string | null, step: Option.Option<number>, incident: string | null) =>
    append({ _tag: "Attempt", attempt, from, fromStep: Option.getOrElse(step, () => 0), incident })
  const last = () => state.attempts.at(-1)?.attempt ?? 0
  const written = new Set(know(state).lineage)
  // one by one: whoever wrote them first may have died in between
  for (const trainingRunId of lineage) {
    if (written.has(trainingRunId)) continue
    const attempt = last() + 1
    yield* begin(attempt, null, Option.none(), null)
    // somebody else made it: its session and its place in the sequence are theirs
    yield* append({ _tag: "Started", attempt, trainingRunId, sessionId: "", nextSeq: 0 })
  }
  const current = () => state.attempts.findLast(({ started }) => started)
  return {
    known: know(state),
    opened: ({ cause, detail, id }) => {
      const attempt = current()
      return cause === "requested" || attempt === undefined || attempt.closed !== undefined
        ? Effect.void
        : append({ _tag: "Incident", id, attempt: attempt.attempt, cause, detail, step: attempt.fromStep })
    },
    begin: (path, step) => begin(last() + 1, path, step, current()?.closed?.id ?? null),
    created: ({ modelId, sessionId }) =>
      append({ _tag: "Created", attempt: last(), trainingRunId: modelId, sessionId }),
    started: (client) =>
      Effect.flatMap(client.nextSeq, (nextSeq) =>
        append({
          _tag: "Started",
          attempt: last(),
          trainingRunId: client.modelId,
          sessionId: client.sessionId,
          nextSeq
        })
      ),
    quarantine: (path, why) => append({ _tag: "Quarantine", path, why }),
    ended: (error) => append({ _tag: "Ended", tag: error.reason._tag, detail: error.message })
  }
})
