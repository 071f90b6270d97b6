/**
 * What happens to a save after the server has acknowledged it. An acknowledgement is not a checkpoint:
 *
 * - **CK1** a save becomes *verified* when everything before it in its attempt has succeeded, the server lists it with a
 *   plausible size and the run's flag, read after the listing, is clear;
 * - **CK2** a save that is absent or failed is dead: its name is never believed again and the run trains on;
 * - **CK3** no verified checkpoint is deleted before a newer one is *proven* by a load and a forward pass into a scratch
 *   model, or by a run that went on from it, and *mature*: the flag was clear a while after it was saved, and the loss has
 *   been watched for so long that no divergence can reach back behind it;
 * - **CK4** a deletion is written down before it is asked for, so that a crash in between leaves no candidate that may be gone.
 *
 * - **CK5** where the policy has a time to live, every checkpoint that could be restored is renewed before half of it is over,
 *   paused, being restored or not; a deletion that fails is tried again, and what is never deleted the server drops in the end.
 *
 * All of it runs beside the loop, one save after another, and never delays a step. A listing, a size and a probe are evidence
 * and not proof that the numbers are right.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Checkpoint } from "@tinkex/tinker/Checkpoint"
import type { RestClient } from "@tinkex/tinker/RestClient"
import * as Time from "@tinkex/tinker/Time"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type * as CheckpointPolicy from "./CheckpointPolicy.ts"
import type { RunLog } from "./internal/runLog.ts"
import type { CheckpointRefused } from "./Restore.ts"
import type { JournalError } from "./Journal.ts"
import type { IncidentCause } from "./RunGuard.ts"
import * as RunState from "./RunState.ts"
import type { TrainingError } from "./TrainingError.ts"

/** A save that the server has acknowledged. */
export interface Saved {
  readonly name: string
  /** Steps applied in it. */
  readonly binds: number
  readonly path: string
  /** The state of the loop at that place. */
  readonly userState: Schema.Json
  /** Of the step that it is right behind. */
  readonly metrics: Readonly<Record<string, number>> | undefined
  /** Log-probabilities of the probe, as the model gave them there. */
  readonly probe: ReadonlyArray<number> | undefined
  /** Both in milliseconds since the epoch. */
  readonly savedAt: number
  readonly expiresAt: number | undefined
}

/** What became of a save. */
export type SaveOutcome =
  | { readonly _tag: "Verified"; readonly path: string; readonly step: number; readonly sizeBytes: number | null }
  | { readonly _tag: "Lost"; readonly name: string; readonly why: string }
  | { readonly _tag: "Deleted"; readonly path: string }
  | { readonly _tag: "Kept"; readonly path: string; readonly why: string }
  | { readonly _tag: "Renewed"; readonly path: string }

export interface Checkpointer {
  /** Hands over an acknowledged save; returns at once. */
  readonly saved: (save: Saved) => Effect.Effect<void, JournalError>
  /** Writes off a save that failed. */
  readonly lost: (name: string, why: string) => Effect.Effect<void, JournalError>
  /** Waits until everything handed over so far has been dealt with. */
  readonly settle: Effect.Effect<void>
}

/** Smaller than any safetensors file with a tensor in it: such a listing is a stump. */
const plausibleBytes = 16

const patient = Schedule.exponential("250 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 4 }))

/**
 * Starts the checkpointer of one attempt in the current scope.
 *
 * `prove` loads a checkpoint into a scratch model and asks it for a forward pass; it is called only when something could be
 * deleted. `report` is told when the run turns out to be flagged; `onOutcome` hears what became of each save. `horizon` is how
 * many milliseconds after a save the flag must still be clear before older ones may go, `hindsight` how many steps behind it must be
 * committed until no policy for a diverging loss can reject it (`Divergence.hindsight`).
 */
export const make = (options: {
  readonly attempt: number
  readonly trainingRunId: string
  readonly policy: CheckpointPolicy.CheckpointPolicy
  readonly horizon: number
  readonly hindsight: number
  readonly log: RunLog
  readonly rest: RestClient["Service"]
  readonly prove: (path: string) => Effect.Effect<void, CheckpointRefused | TinkerError | TrainingError>
  readonly report: (cause: IncidentCause, detail: string) => Effect.Effect<void>
  readonly onOutcome: (outcome: SaveOutcome) => Effect.Effect<void>
}): Effect.Effect<Checkpointer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { attempt, log, onOutcome, rest, trainingRunId } = options
    const work = yield* Queue.unbounded<Saved | { readonly barrier: Deferred.Deferred<void> }>()

    const lost = (name: string, why: string) =>
      log.append({ _tag: "SaveDead", name, why }).pipe(Effect.andThen(onOutcome({ _tag: "Lost", name, why })))

    const verify = Effect.fnUntraced(function* (save: Saved) {
      const row = yield* find(rest, trainingRunId, save.path).pipe(Effect.retry(patient))
      if (Option.isNone(row)) return yield* lost(save.name, "the server acknowledged it and does not list it")
      const sizeBytes = Option.getOrNull(row.value.sizeBytes)
      if (sizeBytes !== null && sizeBytes < plausibleBytes) {
        return yield* lost(save.name, `the server lists it with ${sizeBytes} bytes`)
      }
      const run = yield* rest.getTrainingRun(trainingRunId).pipe(Effect.retry(patient))
      if (run.corrupted) {
        return yield* options.report("poisoned", `the run was flagged when ${save.name} was to be verified`)
      }
      yield* log.append({
        _tag: "Verified",
        path: save.path,
        name: save.name,
        attempt,
        step: save.binds,
        sizeBytes,
        userState: save.userState,
        savedAt: save.savedAt,
        ...(save.metrics === undefined ? {} : { metrics: save.metrics }),
        ...(save.probe === undefined ? {} : { probe: save.probe }),
        ...(save.expiresAt === undefined ? {} : { expiresAt: save.expiresAt })
      })
      yield* onOutcome({ _tag: "Verified", path: save.path, step: save.binds, sizeBytes })
      yield* retain
    })

    /** Deletions that are written down and that the server has not carried out. */
    const undone = new Set<string>()

    // The flag of the present attempt has just been read and was clear.
    const retain = Effect.gen(function* () {
      for (const path of undone) yield* remove(path)
      const now = yield* Clock.currentTimeMillis
      const retention = () => options.policy.retain(kept(log.state(), { ...options, now }))
      const before = retention()
      if (before.prove !== undefined && !(yield* proved(before.prove))) return
      for (const path of retention().deletable) yield* remove(path)
    })

    const proved = (path: string | undefined): Effect.Effect<boolean, JournalError> =>
      path === undefined
        ? Effect.succeed(true)
        : options.prove(path).pipe(
            Effect.andThen(log.append({ _tag: "Proven", path })),
            Effect.as(true),
            Effect.catchTag("CheckpointRefused", (refused) =>
              log
                .append({ _tag: "Quarantine", path, why: refused.why })
                .pipe(Effect.andThen(onOutcome({ _tag: "Kept", path, why: refused.why })), Effect.as(false))
            ),
            // A server that is too busy to prove a checkpoint only postpones the deletion of older ones.
            Effect.catchTag(["TinkerError", "TrainingError"], (error) =>
              onOutcome({ _tag: "Kept", path, why: error.message }).pipe(Effect.as(false))
            )
          )

    const remove = (path: string) =>
      (undone.has(path) ? Effect.void : log.append({ _tag: "DeleteIntent", path })).pipe(
        Effect.andThen(rest.deleteCheckpoint(path)),
        // Somebody else may have been faster.
        Effect.catchIf(
          (error) => error._tag === "TinkerError" && error.reason._tag === "NotFound",
          () => Effect.void
        ),
        Effect.andThen(log.appendLazy({ _tag: "Deleted", path })),
        Effect.tap(() => Effect.sync(() => undone.delete(path))),
        Effect.andThen(onOutcome({ _tag: "Deleted", path })),
        Effect.catchTag("TinkerError", (error) => {
          const why = `it could not be deleted yet: ${error.message}`
          undone.add(path)
          return onOutcome({ _tag: "Kept", path, why })
        })
      )

    yield* Queue.take(work).pipe(
      Effect.flatMap((item) =>
        "barrier" in item
          ? Deferred.succeed(item.barrier, undefined)
          : verify(item).pipe(
              // Not verified is not lost: adoption may still find it after a restart.
              Effect.catchTag("TinkerError", (error) =>
                onOutcome({ _tag: "Lost", name: item.name, why: `it could not be verified: ${error.message}` })
              )
            )
      ),
      Effect.forever,
      Effect.catchTag("JournalError", (error) => options.report("ambiguous", error.message)),
      Effect.catchDefect((defect) => options.report("failed", `the checkpointer died: ${String(defect)}`)),
      Effect.forkScoped
    )

    return {
      saved: (save) => Queue.offer(work, save).pipe(Effect.asVoid),
      lost,
      settle: Deferred.make<void>().pipe(
        Effect.tap((barrier) => Queue.offer(work, { barrier })),
        Effect.flatMap(Deferred.await)
      )
    }
  })

/** What retention needs to know, of every checkpoint that could be restored. */
const kept = (
  state: RunState.RunState,
  {
    attempt,
    hindsight,
    horizon,
    now
  }: { readonly attempt: number; readonly hindsight: number; readonly horizon: number; readonly now: number }
): ReadonlyArray<CheckpointPolicy.Kept> => {
  const committed = state.attempts.at(-1)?.committed ?? 0
  // When an attempt was last known to be well: the present one is now, an earlier one when it ended.
  const wellAt = new Map(state.attempts.map(({ attempt, closed }) => [attempt, closed?.at ?? now]))
  wellAt.set(attempt, now)
  return RunState.candidates(state).map((record) => ({
    path: record.path,
    step: record.step,
    proven: state.proven.has(record.path),
    mature:
      record.step + hindsight <= committed &&
      (record.savedAt === undefined || (wellAt.get(record.attempt) ?? now) - record.savedAt >= horizon),
    pinned: state.pinned.has(record.path),
    metrics: RunState.metricsOf(state, record)
  }))
}

/** Keeps what could be restored from expiring for as long as the scope lives, also while no model carries the run. */
export const renewing = (options: {
  readonly policy: CheckpointPolicy.CheckpointPolicy
  readonly log: RunLog
  readonly rest: RestClient["Service"]
  readonly onOutcome: (outcome: SaveOutcome) => Effect.Effect<void>
}): Effect.Effect<void, never, Scope.Scope> => {
  const { ttl } = options.policy
  if (ttl === undefined) return Effect.void
  return Effect.sleep(Duration.divideUnsafe(ttl, 4)).pipe(
    Effect.andThen(renew(options.log, options.rest, ttl, options.onOutcome)),
    Effect.forever,
    // Whoever appends next meets the same.
    Effect.catchTag("JournalError", (error) =>
      Effect.logWarning(`No checkpoint is renewed any more: ${error.message}`)
    ),
    Effect.forkScoped,
    Effect.asVoid
  )
}

/** Asks the server to keep what could be restored; a checkpoint that it does not know any more is none. */
const renew = Effect.fnUntraced(function* (
  log: RunLog,
  rest: RestClient["Service"],
  ttl: Duration.Duration,
  onOutcome: (outcome: SaveOutcome) => Effect.Effect<void>
) {
  const millis = Duration.toMillis(ttl)
  for (const { path } of RunState.candidates(log.state())) {
    const now = yield* Clock.currentTimeMillis
    const expiresAt = log.state().expires.get(path)
    if (expiresAt === undefined || expiresAt - now > millis / 2) continue
    const pinned = log.state().pinned.has(path)
    const renewed = yield* Effect.result(rest.setCheckpointTtl(path, pinned ? null : ttl))
    if (renewed._tag === "Success") {
      yield* log.appendLazy({ _tag: "Renewed", path, expiresAt: pinned ? null : now + millis })
      yield* onOutcome({ _tag: "Renewed", path })
    } else if (renewed.failure.reason._tag === "NotFound") {
      yield* log.append({ _tag: "Quarantine", path, why: "the server does not have it any more" })
    } else {
      yield* onOutcome({ _tag: "Kept", path, why: `it could not be renewed: ${renewed.failure.message}` })
    }
  }
})

const find = (
  rest: RestClient["Service"],
  runId: string,
  path: string
): Effect.Effect<Option.Option<Checkpoint>, TinkerError> =>
  rest
    .listCheckpoints(runId)
    .pipe(Effect.map((rows) => Option.fromUndefinedOr(rows.find((row) => row.tinkerPath === path))))

/**
 * Adopts the saves of a dead process whose acknowledgement was never read (RP11): only those of the newest attempt, only if
 * nothing closed it as poisoned or diverged, and only where every step that they hold is known to have been committed. Each one becomes
 * verified or dead; nothing else changes.
 */
export const adopt = Effect.fnUntraced(function* (log: RunLog, rest: RestClient["Service"]) {
  const last = log.state().attempts.at(-1)
  const saves = RunState.adoptable(log.state())
  if (last?.trainingRunId === undefined || saves.length === 0) return
  const rows = yield* rest.listCheckpoints(last.trainingRunId)
  const run = yield* rest.getTrainingRun(last.trainingRunId)
  if (run.corrupted) return
  for (const save of saves) {
    const row = rows.find((row) => row.checkpointId === `weights/${save.name}`)
    const sizeBytes = row === undefined ? null : Option.getOrNull(row.sizeBytes)
    const expires = row === undefined ? undefined : Option.getOrUndefined(Option.flatMap(row.expiresAt, Time.toOption))
    // Known to expire, it is renewed like any other.
    const expiresAt = expires?.epochMilliseconds
    if (row === undefined || (sizeBytes !== null && sizeBytes < plausibleBytes)) {
      yield* log.append({ _tag: "SaveDead", name: save.name, why: "not on the server after a restart" })
    } else {
      yield* log.append({
        _tag: "Verified",
        path: row.tinkerPath,
        name: save.name,
        attempt: last.attempt,
        step: save.binds,
        sizeBytes,
        userState: save.userState,
        ...(save.metrics === undefined ? {} : { metrics: save.metrics }),
        ...(expiresAt === undefined ? {} : { expiresAt })
      })
    }
  }
})
