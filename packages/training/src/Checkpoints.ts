/**
 * The checkpoints of a journaled run, for whoever has to do with them outside the run: which there are, which is the best, which
 * must not be deleted, and the weights of one as a folder on this machine.
 *
 * - **CH1** `list` and `best` read the journal and ask nobody; they may be called while the run goes on;
 * - **CH2** `pin` and `unpin` write, so they take the run's lease: a run that goes on refuses them (`LeaseHeld`);
 * - **CH3** an exported folder is complete and checked, or not there: see `CheckpointArchive` in `@tinkex/tinker`.
 */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import * as CheckpointArchive from "@tinkex/tinker/CheckpointArchive"
import { RestClient } from "@tinkex/tinker/RestClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import * as CheckpointPolicy from "./CheckpointPolicy.ts"
import { Journal } from "./Journal.ts"
import type { JournalError } from "./JournalError.ts"
import * as Restore from "./Restore.ts"
import * as RunState from "./RunState.ts"
import { TrainingError } from "./TrainingError.ts"

/** A checkpoint as the journal knows it. */
export interface RunCheckpoint {
  /** `tinker://<training run>/weights/<name>` */
  readonly path: string
  readonly name: string
  readonly attempt: number
  /** Steps applied in it. */
  readonly step: number
  readonly sizeBytes: number | null
  /** Of its last step, and of an evaluation there. */
  readonly metrics: Readonly<Record<string, number>>
  /** Loaded once, and worked. */
  readonly proven: boolean
  readonly pinned: boolean
  /** Why it cannot be restored any more, if it cannot. */
  readonly unusable: string | undefined
}

const stateOf = (run: string) =>
  Effect.flatMap(Journal, (journal) => journal.read(run)).pipe(
    Effect.map((records) => RunState.fold(records.map(({ record }) => record))),
    Effect.mapError((error: JournalError) => TrainingError.fromJournal(error))
  )

const listed = (state: RunState.RunState): ReadonlyArray<RunCheckpoint> =>
  state.verified.map((record) => {
    const bad = state.quarantined.get(record.path)
    return {
      path: record.path,
      name: record.name,
      attempt: record.attempt,
      step: record.step,
      sizeBytes: record.sizeBytes,
      metrics: RunState.metricsOf(state, record) ?? {},
      proven: state.proven.has(record.path),
      pinned: state.pinned.has(record.path),
      unusable:
        bad ?? (state.deleted.has(record.path) ? "it was deleted" : undefined) ?? Restore.whyAstray(state, record)
    }
  })

/** All that were ever verified, oldest first. */
export const list = (run: string): Effect.Effect<ReadonlyArray<RunCheckpoint>, TrainingError, Journal> =>
  Effect.map(stateOf(run), listed).pipe(Effect.withSpan("Checkpoints.list"))

export interface BestOptions {
  /** Default `"loss:sum"`. */
  readonly metric?: string | undefined
  /** Default `"min"`. */
  readonly mode?: "min" | "max" | undefined
}

/** The best of those that are still there; none where the metric was measured at none. The newest of equally good ones. */
export const best = (
  run: string,
  { metric = "loss:sum", mode = "min" }: BestOptions = {}
): Effect.Effect<Option.Option<RunCheckpoint>, TrainingError, Journal> =>
  Effect.map(list(run), (checkpoints) => {
    const sign = mode === "min" ? 1 : -1
    const measured = checkpoints.flatMap((checkpoint) => {
      const value =
        checkpoint.unusable === undefined ? CheckpointPolicy.metricOf(checkpoint.metrics, metric) : undefined
      return value === undefined ? [] : [{ checkpoint, value }]
    })
    const [first] = measured.toSorted((a, b) => sign * (a.value - b.value) || b.checkpoint.step - a.checkpoint.step)
    return Option.fromUndefinedOr(first?.checkpoint)
  })

const setPinned = Effect.fnUntraced(function* (run: string, path: string, pinned: boolean) {
  const journal = yield* Journal
  const rest = yield* RestClient
  const known = (yield* list(run)).find((checkpoint) => checkpoint.path === path && checkpoint.unusable === undefined)
  if (known === undefined) {
    return yield* TrainingError.invalidOption("checkpoint", path, `is none of run "${run}" that can still be used`)
  }
  yield* Effect.scoped(
    Effect.gen(function* () {
      const open = yield* journal.open(run)
      // The server must not drop it either. What is unpinned stays until the run's policy lets it go.
      if (pinned) yield* rest.setCheckpointTtl(path, null)
      yield* open.append({ _tag: "Pinned", path, pinned })
      if (pinned) yield* open.append({ _tag: "Renewed", path, expiresAt: null })
    })
  ).pipe(
    Effect.catchTag("JournalError", (error: JournalError) => Effect.fail(TrainingError.fromJournal(error))),
    Effect.catchTag("TinkerError", (error: TinkerError) => Effect.fail(TrainingError.service(error)))
  )
})

/** Keeps a checkpoint until it is unpinned, whatever the run's policy says; it has no time to live any more. */
export const pin = Effect.fn("Checkpoints.pin")((run: string, path: string) => setPinned(run, path, true))

/** Leaves a checkpoint to the run's policy again. */
export const unpin = Effect.fn("Checkpoints.unpin")((run: string, path: string) => setPinned(run, path, false))

/**
 * Brings the weights of the best checkpoint into a folder: the adapter's settings and its safetensors, checked against each other
 * and against the mark of completeness. Fails with `NoCheckpoint` where the metric was measured at none that is still there.
 */
export const exportBest = Effect.fn("Checkpoints.exportBest")(function* (
  run: string,
  directory: string,
  options: BestOptions & CheckpointArchive.FolderOptions = {}
): Effect.fn.Return<
  { readonly checkpoint: RunCheckpoint; readonly contents: CheckpointArchive.Contents },
  TrainingError,
  Journal | RestClient | FileSystem.FileSystem | Path.Path
> {
  const found = yield* best(run, options)
  if (Option.isNone(found)) {
    const metric = options.metric ?? "loss:sum"
    const rejected = (yield* list(run)).map((candidate) => ({
      candidate,
      reason: candidate.unusable ?? `${metric} was not measured`
    }))
    return yield* TrainingError.noCheckpoint(run, rejected)
  }
  const contents = yield* CheckpointArchive.download(found.value.path, directory, options).pipe(
    Effect.mapError((error: TinkerError) => TrainingError.service(error))
  )
  return { checkpoint: found.value, contents }
})
