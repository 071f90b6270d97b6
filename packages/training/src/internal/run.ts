import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import * as Checkpointer from "../Checkpointer.ts"
import * as CheckpointName from "../CheckpointName.ts"
import * as CheckpointSelector from "../CheckpointSelector.ts"
import type { Dataset } from "../Dataset.ts"
import { Journal } from "../Journal.ts"
import * as Restore from "../Restore.ts"
import { type Incident, type IncidentCause, type RestoreOptions, type RestoreProgress, RunGuard } from "../RunGuard.ts"
import type { IncidentReport, RunReport } from "../RunReport.ts"
import { TrainingError } from "../TrainingError.ts"
import * as Attempt from "./attempt.ts"
import * as Attempts from "./attempts.ts"
import * as RunLog from "./runLog.ts"
import * as Settings from "./settings.ts"

const finalSaveTries = 3

/** A run from where its journal says that it stands, to its end. */
export const run = Effect.fnUntraced(function* (settings: Settings.Settings, dataset: Dataset) {
  const began = yield* Clock.currentTimeMillis
  const journals = yield* Journal
  const service = yield* ServiceClient
  const rest = yield* RestClient
  const guard = yield* RunGuard
  const open = yield* journals.open(settings.name)
  const log = RunLog.make(open)
  const { onEvent } = settings
  const total = dataset.totalSteps
  const runHash = yield* Settings.openRun(settings, dataset, open, log)
  const attempts = yield* Attempts.make({ settings, runHash, open, log })
  yield* onEvent({
    _tag: "RunOpened",
    run: settings.name,
    totalSteps: total,
    attempts: log.state().attempts.length
  })

  const terminal = log.state().terminal
  if (terminal?._tag === "Ended" && !settings.force) return yield* TrainingError.ended(settings.name, terminal)

  const incidents: Array<IncidentReport> = []
  let first: Record<string, number> | undefined
  let last: Record<string, number> = {}
  let lastGood = began

  const report = Effect.fnUntraced(function* (
    trainingRunId: string,
    path: string,
    startedAt: number,
    already: boolean
  ) {
    const result: RunReport = {
      run: settings.name,
      trainingRunId,
      path,
      steps: total,
      attempts: log.state().attempts.length,
      incidents,
      startedAt,
      first: first ?? {},
      last,
      elapsed: Duration.millis((yield* Clock.currentTimeMillis) - began),
      already
    }
    yield* onEvent({ _tag: "Completed", report: result })
    return result
  })

  if (terminal?._tag === "Completed") {
    last = terminal.metrics
    const path = terminal.path ?? ""
    return yield* report(Restore.runOf(path), path, total, true)
  }

  const announce = (progress: RestoreProgress) => onEvent({ _tag: "RestoreProgress", progress })
  const plainRestore: RestoreOptions = {
    strategy: CheckpointSelector.latest,
    optimizer: true,
    onProgress: announce
  }

  const takeUp = Effect.fnUntraced(function* () {
    const reattached = log.state().attempts.length === 0 ? undefined : yield* attempts.reattach()
    if (reattached !== undefined) return reattached
    const restored = yield* attempts.restore(undefined, plainRestore)
    return Attempts.fromRestored(restored)
  })

  const detected = Effect.fnUntraced(function* (live: Attempts.LiveAttempt, failure: Attempt.AttemptFailed) {
    const now = yield* DateTime.now
    const committed = log.state().attempts.at(-1)?.committed ?? live.step
    const incident: Incident = {
      id: Attempts.incidentId(runHash, live.attempt),
      run: settings.name,
      attempt: live.attempt,
      trainingRunId: live.client.modelId,
      cause: failure.cause,
      detail: failure.detail,
      step: committed,
      detectedAt: now
    }
    yield* log.append({
      _tag: "Incident",
      id: incident.id,
      attempt: incident.attempt,
      cause: incident.cause,
      detail: incident.detail,
      step: incident.step
    })
    // Poisoned before it committed anything: what it was loaded from is to blame (RP16).
    if (failure.cause === "poisoned" && live.path !== null && committed <= live.step) {
      yield* log.append({ _tag: "Quarantine", path: live.path, why: "poisoned before its first step was committed" })
    }
    yield* onEvent({ _tag: "IncidentDetected", incident })
    return incident
  })

  const recover = Effect.fnUntraced(function* (live: Attempts.LiveAttempt, failure: Attempt.AttemptFailed) {
    const detectedAt = yield* Clock.currentTimeMillis
    const timeToDetect = Duration.millis(Math.max(0, detectedAt - lastGood))
    const incident = yield* detected(live, failure)
    if (Option.isNone(guard)) {
      const plan = yield* attempts.currentPlan(CheckpointSelector.latest)
      return yield* TrainingError.runFailed(incident, plan)
    }
    const restored = yield* guard.value.recover({
      incident,
      plan: attempts.currentPlan(CheckpointSelector.latest),
      restore: (restoring) =>
        restoring.onProgress({ _tag: "Fenced", trainingRunId: live.client.modelId }).pipe(
          Effect.andThen(
            attempts.restore(incident, {
              ...restoring,
              onProgress: (progress) => announce(progress).pipe(Effect.andThen(restoring.onProgress(progress)))
            })
          )
        )
    })
    lastGood = yield* Clock.currentTimeMillis
    incidents.push({
      id: incident.id,
      cause: incident.cause,
      detail: incident.detail,
      attempt: incident.attempt,
      trainingRunId: incident.trainingRunId,
      step: incident.step,
      timeToDetect,
      timeToRecover: Duration.millis(lastGood - detectedAt),
      path: restored.path,
      resumedAt: restored.step,
      replayed: Math.max(0, incident.step - restored.step),
      quarantined: restored.quarantined
    })
    return Attempts.fromRestored(restored)
  })

  const program: Omit<Attempt.StepProgram, "finish"> = {
    totalSteps: total,
    pipelining: settings.pipelining,
    prepare: Effect.fnUntraced(function* (client, step) {
      const batch = yield* dataset.batch(step)
      const pass = yield* client.prepare.forwardBackward(batch, { loss: "cross_entropy" })
      const update = yield* client.prepare.optimStep({
        ...settings.adam,
        learningRate: settings.learningRate.at(step, total)
      })
      return { pass, update }
    }),
    saveAfter: (attempt, step) =>
      step + 1 === total
        ? CheckpointName.make({ runHash, attempt, step: total, kind: "final" })
        : settings.checkpoints.dueAfter(step)
          ? CheckpointName.make({ runHash, attempt, step: step + 1, kind: "auto" })
          : undefined,
    onCommit: (step, metrics) =>
      Effect.gen(function* () {
        lastGood = yield* Clock.currentTimeMillis
        first ??= metrics
        last = metrics
        yield* onEvent({ _tag: "StepCommitted", step, metrics })
      })
  }

  /** Steps until the end of the run, then the final checkpoint. */
  const runAttempt = Effect.fnUntraced(function* (live: Attempts.LiveAttempt) {
    const reported = yield* Deferred.make<never, Attempt.AttemptFailed>()
    const reportFailure = (cause: IncidentCause, detail: string) =>
      Deferred.fail(reported, new Attempt.AttemptFailed({ cause, detail })).pipe(
        Effect.andThen(live.client.fence(detail)),
        Effect.asVoid
      )
    if (Option.isSome(guard)) {
      yield* guard.value
        .watch(
          { run: settings.name, attempt: live.attempt, trainingRunId: live.client.modelId, client: live.client },
          reportFailure
        )
        .pipe(Scope.provide(attempts.scope()))
    }
    const checkpointer = yield* Checkpointer.make({
      attempt: live.attempt,
      trainingRunId: live.client.modelId,
      policy: settings.checkpoints,
      log,
      rest,
      prove: (path) => proveCheckpoint(path),
      report: reportFailure,
      onOutcome: (outcome) => onEvent({ _tag: "Checkpoint", outcome })
    }).pipe(Scope.provide(attempts.scope()))
    yield* onEvent({
      _tag: "AttemptStarted",
      attempt: live.attempt,
      trainingRunId: live.client.modelId,
      path: live.path,
      step: live.step,
      how: live.how
    })
    const attempt: Attempt.Attempt = {
      number: live.attempt,
      client: live.client,
      path: live.path,
      fromStep: live.step,
      resend: live.resend,
      resendSave: live.resendSave,
      reported
    }
    const finish = finalCheckpoint(live, checkpointer)
    return yield* Attempt.drive(attempt, { ...program, finish }, log, checkpointer, rest)
  })

  /** The final checkpoint is verified and, unless waived, rehearsed; a save that is lost or refused is made again (RP12). */
  const finalCheckpoint = Effect.fnUntraced(function* (
    live: Attempts.LiveAttempt,
    checkpointer: Checkpointer.Checkpointer
  ) {
    for (let retry = 1; ; retry++) {
      yield* checkpointer.settle
      const state = log.state()
      const final = state.verified.findLast(
        (record) => record.attempt === live.attempt && record.step === total && !state.quarantined.has(record.path)
      )
      if (final !== undefined) {
        if (!settings.rehearse || state.proven.has(final.path)) return final.path
        const rehearsed = yield* Effect.result(proveCheckpoint(final.path))
        if (rehearsed._tag === "Success") {
          yield* log.append({ _tag: "Proven", path: final.path })
          return final.path
        }
        if (rehearsed.failure._tag !== "CheckpointRefused") return yield* rehearsed.failure
        yield* log.append({ _tag: "Quarantine", path: final.path, why: rehearsed.failure.why })
      }
      if (retry > finalSaveTries) return yield* TrainingError.notSaved(settings.name, finalSaveTries)
      const name = CheckpointName.make({ runHash, attempt: live.attempt, step: total, kind: "final", retry })
      const save = yield* live.client.prepare.saveState(name)
      yield* log.append({
        _tag: "Step",
        attempt: live.attempt,
        step: total,
        ops: [{ kind: save.kind, seqIds: save.seqIds, digest: save.digest }],
        save: { name, binds: total },
        userState: null
      })
      const future = yield* save.submit
      const saved = yield* Effect.result(future.result)
      if (saved._tag === "Success") yield* checkpointer.saved({ name, binds: total, path: saved.success.path })
      else if (Attempt.endsAttempt(saved.failure)) return yield* saved.failure
      else yield* checkpointer.lost(name, saved.failure.message)
    }
  })

  const proveCheckpoint = (path: string) =>
    dataset.batch(0).pipe(
      Effect.flatMap((batch) =>
        Restore.prove(path, { expected: settings.model, probe: batch.slice(0, 1), userMetadata: attempts.metadata(0) })
      ),
      Effect.provideService(ServiceClient, service),
      Effect.provideService(RestClient, rest)
    )

  let live = yield* takeUp()
  const startedAt = live.step
  while (true) {
    const outcome = yield* Effect.result(runAttempt(live))
    if (outcome._tag === "Success") {
      yield* log.append({ _tag: "Completed", path: outcome.success, step: total, metrics: last })
      return yield* report(live.client.modelId, outcome.success, startedAt, false)
    }
    if (outcome.failure._tag !== "AttemptFailed") return yield* outcome.failure
    live = yield* recover(live, outcome.failure)
  }
})
