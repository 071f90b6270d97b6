import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Datum } from "@tinkex/tinker/Datum"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import { TinkerError } from "@tinkex/tinker/TinkerError"
import * as Checkpointer from "../Checkpointer.ts"
import * as CheckpointName from "../CheckpointName.ts"
import * as CheckpointPolicy from "../CheckpointPolicy.ts"
import * as CheckpointSelector from "../CheckpointSelector.ts"
import * as Divergence from "../Divergence.ts"
import * as Goodput from "../Goodput.ts"
import { Journal, type Spool } from "../Journal.ts"
import { JournalError } from "../JournalError.ts"
import * as Restore from "../Restore.ts"
import { type Incident, type IncidentCause, type RestoreOptions, type RestoreProgress, RunGuard } from "../RunGuard.ts"
import type { IncidentReport, RunReport } from "../RunReport.ts"
import * as RunState from "../RunState.ts"
import type { StepClient } from "../StepClient.ts"
import { TrainingError } from "../TrainingError.ts"
import * as Attempt from "./attempt.ts"
import * as Attempts from "./attempts.ts"
import * as Fork from "./fork.ts"
import * as RunLog from "./runLog.ts"
import * as RunMetrics from "./runMetrics.ts"
import * as SectionLimits from "./sectionLimits.ts"
import * as Settings from "./settings.ts"
import * as Vigil from "./vigil.ts"
import { whatHappened } from "./whatHappened.ts"

const finalSaveTries = 3
/** In milliseconds: how late a flag is taken to be at the most, where nobody says otherwise. */
const longestHorizon = 120_000
/** The share of its time that a run waits at its end for a late flag. */
const settlingShare = 0.01

/** Where a step keeps what it has gathered. */
export interface Spooling {
  readonly get: (step: number, name: string) => Effect.Effect<Option.Option<string>, JournalError>
  /** Returns when it would survive a power loss. */
  readonly put: (step: number, name: string, text: string) => Effect.Effect<void, JournalError>
}

/** A loop as its journal and its attempts see it. */
export interface LoopProgram<E, R> extends Settings.Identity {
  readonly initial: Schema.Json
  /** See `Attempt.StepProgram`. */
  readonly lookAhead: number
  readonly stepsPerEpoch: number | undefined
  readonly take: (
    context: { readonly client: StepClient; readonly step: number; readonly state: Schema.Json },
    spooling: Spooling
  ) => Effect.Effect<Attempt.StepOutcome, E | TinkerError | TrainingError, R>
  readonly evaluation: { readonly every: number; readonly run: Attempt.EvaluationProgram<E, R>["run"] } | undefined
  /** What a rehearsal asks the loaded model about; nothing where it is empty. */
  readonly rehearsal: Effect.Effect<ReadonlyArray<Datum>, TrainingError>
}

const spoolingOf = (log: RunLog.RunLog, spool: Spool): Spooling => ({
  get: (step, name) => {
    const digest = log.state().spooled.get(step)?.digests[name]
    return digest === undefined ? Effect.succeedNone : spool.get(digest)
  },
  put: (step, name, text) =>
    Effect.flatMap(spool.put(text), (digest) =>
      log.append({ _tag: "Spooled", attempt: log.state().attempts.at(-1)?.attempt ?? 0, step, name, digest })
    )
})

/** A run from where its journal says that it stands, to its end. */
export const run = Effect.fnUntraced(function* <E, R>(
  settings: Settings.Settings,
  loop: LoopProgram<E, R>
): Effect.fn.Return<
  RunReport,
  E | TrainingError | JournalError | TinkerError,
  R | Journal | ServiceClient | RestClient | Scope.Scope
> {
  const began = yield* Clock.currentTimeMillis
  const journals = yield* Journal
  const service = yield* ServiceClient
  const rest = yield* RestClient
  const guard = yield* RunGuard
  const open = yield* journals.open(settings.name)
  const log = yield* RunLog.make(open)
  const { onEvent } = settings
  const total = loop.totalSteps
  const runHash = yield* Settings.openRun(settings, loop, open, log)
  const attempts = yield* Attempts.make({ settings, runHash, open, log, initial: loop.initial })
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
      goodput: Goodput.of(log.account()),
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

  if (open.records.length > 0 && !settings.takeOver) yield* Fork.refuse(settings.name, open, log.state(), rest)

  const announce = (progress: RestoreProgress) => onEvent({ _tag: "RestoreProgress", progress })
  const plainRestore: RestoreOptions = {
    strategy: CheckpointSelector.latest,
    optimizer: true,
    onProgress: announce
  }

  yield* Checkpointer.renewing({
    policy: settings.checkpoints,
    log,
    rest,
    onOutcome: (outcome) => onEvent({ _tag: "Checkpoint", outcome })
  })

  const takeUp = Effect.fnUntraced(function* () {
    const reattached = log.state().attempts.length === 0 ? undefined : yield* attempts.reattach()
    if (reattached !== undefined) return reattached
    const restored = yield* attempts.restore(undefined, plainRestore).pipe(
      // Who has a guard wants the run to go on; that no attempt comes about at all ends with `NoProgress`.
      Effect.retry({
        schedule: Schedule.spaced("5 seconds"),
        while: (error) => Option.isSome(guard) && error.reason._tag === "RestoreLost"
      })
    )
    return Attempts.fromRestored(restored, attempts.stateOf(restored.path))
  })

  const isCondemned = (path: string): boolean => {
    const { attempts } = log.state()
    const failed = attempts.filter(
      ({ closed, committed, from, fromStep }) => from === path && closed?.cause === "poisoned" && committed <= fromStep
    )
    return failed.length > 1 || RunState.candidates(log.state()).some((other) => other.path !== path)
  }

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
    const at = now.epochMilliseconds
    yield* log.append({
      _tag: "Incident",
      id: incident.id,
      attempt: incident.attempt,
      cause: incident.cause,
      detail: incident.detail,
      step: incident.step,
      at,
      ...(failure.onset === undefined ? {} : { onset: failure.onset }),
      ...(failure.late === true ? { wellUntil: at - (settings.horizon ?? longestHorizon) } : {})
    })
    // Poisoned before it committed anything: what it was loaded from is to blame (RP16). That may be chance, so the last one gets
    // a second try.
    if (failure.cause === "poisoned" && live.path !== null && committed <= live.step && isCondemned(live.path)) {
      yield* log.append({ _tag: "Quarantine", path: live.path, why: "poisoned before its first step was committed" })
    }
    yield* onEvent({ _tag: "IncidentDetected", incident })
    return incident
  })

  const recover = Effect.fnUntraced(function* (live: Attempts.LiveAttempt, failure: Attempt.AttemptFailed) {
    const detectedAt = yield* Clock.currentTimeMillis
    const timeToDetect = Duration.millis(Math.max(0, detectedAt - lastGood))
    const incident = yield* detected(live, failure)
    const plan = attempts.currentPlan(CheckpointSelector.latest)
    // Whoever sets a policy for a loss that diverges has asked for this restore.
    if (Option.isNone(guard) && failure.cause !== "diverged") {
      return yield* TrainingError.runFailed(incident, yield* plan)
    }
    const restore = (restoring: RestoreOptions) =>
      restoring.onProgress({ _tag: "Fenced", trainingRunId: live.client.modelId }).pipe(
        Effect.andThen(
          attempts.restore(incident, {
            ...restoring,
            onProgress: (progress) => announce(progress).pipe(Effect.andThen(restoring.onProgress(progress)))
          })
        )
      )
    const restored = yield* Option.match(guard, {
      onNone: () => restore({ ...plainRestore, onProgress: () => Effect.void }),
      onSome: (guard) => guard.recover({ incident, plan, restore })
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
    return Attempts.fromRestored(restored, attempts.stateOf(restored.path))
  })

  const spooling = spoolingOf(log, open.spool)
  const limits = SectionLimits.make(settings.stall)
  const metricLog = yield* RunMetrics.open(settings.name, open.records)

  const epochsAt = (steps: number) => {
    const { stepsPerEpoch } = loop
    return stepsPerEpoch === undefined
      ? { epochs: 0, epochEnded: false }
      : { epochs: Math.floor(steps / stepsPerEpoch), epochEnded: steps % stepsPerEpoch === 0 }
  }

  /** Rolls back, leaves out or stops, as the policy says; in any case before the step counts. */
  const onFinding = Effect.fnUntraced(function* (finding: Divergence.Finding) {
    const rollbacks = log
      .state()
      .incidents.filter(({ cause, stopped }) => cause === "diverged" && stopped !== true).length
    if (finding.action === "stop" || rollbacks >= settings.divergence.limit) {
      // Written down, so that neither the plan nor the next process takes a checkpoint that holds the step.
      const last = log.state().attempts.at(-1)
      if (last !== undefined) {
        yield* log.append({
          _tag: "Incident",
          id: Attempts.incidentId(runHash, last.attempt),
          attempt: last.attempt,
          cause: "diverged",
          detail: finding.detail,
          step: last.committed,
          at: yield* Clock.currentTimeMillis,
          onset: finding.step,
          stopped: true
        })
      }
      const plan = yield* attempts.currentPlan(CheckpointSelector.latest)
      return yield* TrainingError.diverged(settings.name, finding, rollbacks, plan)
    }
    if (finding.action === "skip") yield* log.append({ _tag: "Skipped", step: finding.step, why: finding.detail })
    return yield* new Attempt.AttemptFailed({ cause: "diverged", detail: finding.detail, onset: finding.step })
  })

  /** What evaluations before `steps` have found, of the metric that the policy goes by. */
  const improved = (steps: number, metrics: Readonly<Record<string, number>>): boolean => {
    const { best } = settings.checkpoints
    if (best === undefined) return false
    const before = [...log.state().evaluations].filter(([at]) => at < steps)
    return CheckpointPolicy.improves(
      CheckpointPolicy.metricOf(metrics, best.metric),
      before.map(([, metrics]) => CheckpointPolicy.metricOf(metrics, best.metric)),
      best.mode
    )
  }

  const program = (live: Attempts.LiveAttempt): Omit<Attempt.StepProgram<E, R>, "finish"> => {
    const detector = Divergence.detector(settings.divergence)
    return {
      totalSteps: total,
      pipelining: settings.pipelining,
      lookAhead: loop.lookAhead,
      take: (context) => loop.take(context, spooling),
      skipped: (step) => log.state().skipped.get(step),
      epochsAt,
      saveAt: (attempt, place) => {
        if (place.steps === total) return CheckpointName.make({ runHash, attempt, step: total, kind: "final" })
        const { elapsed, failures, wasted } = Goodput.of(log.account())
        const observed = { millis: elapsed - wasted.paused - wasted.down, failures }
        return settings.checkpoints.due({ ...place, observed })
          ? CheckpointName.make({ runHash, attempt, step: place.steps, kind: place.improved ? "best" : "auto" })
          : undefined
      },
      ttlSeconds:
        settings.checkpoints.ttl === undefined ? undefined : Math.ceil(Duration.toSeconds(settings.checkpoints.ttl)),
      probe: settings.probe,
      evaluation:
        loop.evaluation === undefined
          ? undefined
          : {
              due: (steps) =>
                steps > 0 &&
                (steps % (loop.evaluation?.every ?? 1) === 0 || steps === total) &&
                !log.state().evaluations.has(steps),
              run: loop.evaluation.run,
              done: (step, metrics) => {
                const best = improved(step, metrics)
                return onEvent({ _tag: "Evaluated", step, metrics, best }).pipe(Effect.as(best))
              }
            },
      judge: (step, metrics, positions) => {
        const finding = detector.judge(step, metrics, positions)
        return finding === undefined ? Effect.void : onFinding(finding)
      },
      onCommit: (step, metrics) =>
        Effect.gen(function* () {
          lastGood = yield* Clock.currentTimeMillis
          const why = log.state().skipped.get(step)
          if (why === undefined) {
            first ??= metrics
            last = metrics
          }
          yield* metricLog.append({ step, attempt: live.attempt, trainingRunId: live.client.modelId, metrics })
          yield* onEvent(
            why === undefined ? { _tag: "StepCommitted", step, metrics } : { _tag: "StepSkipped", step, why }
          )
        })
    }
  }

  /** Steps until the end of the run, then the final checkpoint. */
  const runAttempt = Effect.fnUntraced(function* (live: Attempts.LiveAttempt) {
    const reported = yield* Deferred.make<never, Attempt.AttemptFailed>()
    const reportFailure = (cause: IncidentCause, detail: string) =>
      Deferred.fail(reported, new Attempt.AttemptFailed({ cause, detail, late: cause === "poisoned" })).pipe(
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
    const step = () => log.state().attempts.at(-1)?.committed ?? live.step
    const vigil = yield* Vigil.make({
      trainingRunId: live.client.modelId,
      limits,
      pauseLimit: settings.pauseLimit,
      log,
      rest,
      fail: reportFailure,
      onPause: (cause, detail) => onEvent({ _tag: "Paused", cause, detail, step: step() }),
      onResume: (cause, lasted) => onEvent({ _tag: "Resumed", cause, lasted, step: step() })
    }).pipe(Scope.provide(attempts.scope()))
    const checkpointer = yield* Checkpointer.make({
      attempt: live.attempt,
      trainingRunId: live.client.modelId,
      policy: settings.checkpoints,
      horizon: settings.horizon ?? longestHorizon,
      hindsight: Divergence.hindsight(settings.divergence),
      log,
      rest,
      prove: (path) => proveCheckpoint(path),
      report: reportFailure,
      onOutcome: (outcome) =>
        (outcome._tag === "Verified" ? unspool(log, open.spool) : Effect.void).pipe(
          Effect.andThen(onEvent({ _tag: "Checkpoint", outcome }))
        )
    }).pipe(Scope.provide(attempts.scope()))
    yield* metricLog.rewind(live.step)
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
      state: live.state,
      resend: live.resend,
      resendSave: live.resendSave,
      reported
    }
    const finish = (state: Schema.Json) => finalCheckpoint(live, checkpointer, state)
    return yield* Attempt.drive(attempt, { ...program(live), finish }, log, checkpointer, rest, vigil)
  })

  /**
   * The final checkpoint is verified and, unless waived, rehearsed; a save that is lost or refused is made again (RP12). The run's
   * flag has to be clear a while later, too (RP27).
   */
  const finalCheckpoint = Effect.fnUntraced(function* (
    live: Attempts.LiveAttempt,
    checkpointer: Checkpointer.Checkpointer,
    state: Schema.Json
  ) {
    let refusals = 0
    let why = ""
    for (let retry = 1; ; retry++) {
      yield* checkpointer.settle
      const found = log
        .state()
        .verified.findLast(
          (record) =>
            record.attempt === live.attempt && record.step === total && !log.state().quarantined.has(record.path)
        )
      if (found !== undefined) {
        const proven =
          !settings.rehearse || log.state().proven.has(found.path)
            ? undefined
            : yield* Effect.result(proveCheckpoint(found.path))
        if (proven?._tag !== "Failure") {
          if (proven !== undefined) yield* log.append({ _tag: "Proven", path: found.path })
          yield* settleFlag(live, found.savedAt ?? 0)
          return found.path
        }
        if (proven.failure._tag !== "CheckpointRefused") return yield* proven.failure
        yield* log.append({ _tag: "Quarantine", path: found.path, why: proven.failure.why })
      }
      if (retry > finalSaveTries) {
        // A model that refuses every save is gone, whether it is flagged or not: another one can take its place.
        if (refusals === finalSaveTries) {
          return yield* new Attempt.AttemptFailed({
            cause: "failed",
            detail: `the model refuses its last save: ${why}`
          })
        }
        return yield* TrainingError.notSaved(settings.name, finalSaveTries)
      }
      const name = CheckpointName.make({ runHash, attempt: live.attempt, step: total, kind: "final", retry })
      const save = yield* live.client.prepare.saveState(name)
      yield* log.append({
        _tag: "Save",
        attempt: live.attempt,
        name,
        binds: total,
        op: { kind: save.kind, seqIds: save.seqIds, digest: save.digest },
        userState: state
      })
      const future = yield* save.submit
      const saved = yield* Effect.result(future.result)
      if (saved._tag === "Success") {
        yield* checkpointer.saved({
          name,
          binds: total,
          path: saved.success.path,
          userState: state,
          metrics: last,
          probe: undefined,
          savedAt: yield* Clock.currentTimeMillis,
          expiresAt: undefined
        })
      } else if (Attempt.endsAttempt(saved.failure)) return yield* saved.failure
      else {
        if (saved.failure.reason._tag === "RequestFailed") refusals++
        why = whatHappened(saved.failure)
        yield* checkpointer.lost(name, saved.failure.message)
      }
    }
  })

  /** A flag that rises late is waited for; the run is not over before. */
  const settleFlag = Effect.fnUntraced(function* (live: Attempts.LiveAttempt, savedAt: number) {
    const now = yield* Clock.currentTimeMillis
    const taken = Goodput.of(log.account()).elapsed
    const horizon = settings.horizon ?? Math.min(longestHorizon, settlingShare * taken)
    const left = savedAt + horizon - now
    if (left > 0) yield* Effect.sleep(Duration.millis(left))
    const { corrupted } = yield* rest.getTrainingRun(live.client.modelId)
    if (!corrupted) return
    const detail = "the run was flagged after its final save"
    return yield* new Attempt.AttemptFailed({ cause: "poisoned", detail, late: true })
  })

  const proveCheckpoint = (path: string) =>
    (settings.probe === undefined ? loop.rehearsal : Effect.succeed(settings.probe)).pipe(
      Effect.flatMap((probe) =>
        Restore.prove(path, {
          expected: settings.model,
          probe,
          logprobs:
            settings.probe === undefined
              ? undefined
              : log.state().verified.find((record) => record.path === path)?.probe,
          userMetadata: attempts.metadata(0)
        })
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
    const failure =
      outcome.failure instanceof Attempt.AttemptFailed &&
      outcome.failure.otherwise !== undefined &&
      Option.isNone(guard)
        ? TrainingError.service(outcome.failure.otherwise)
        : outcome.failure
    if (!(failure instanceof Attempt.AttemptFailed)) {
      if (failure instanceof TrainingError && failure.reason._tag === "Service") {
        yield* attempts.excuse(failure.reason.error)
      }
      return yield* Effect.fail(failure)
    }
    live = yield* recover(live, failure)
  }
})

/** Gives up what steps have gathered that no restore can come back to. */
const unspool = (log: RunLog.RunLog, spool: Spool) =>
  Effect.suspend(() => {
    const state = log.state()
    if (state.spooled.size === 0) return Effect.void
    const oldest = Math.min(...RunState.candidates(state).map(({ step }) => step))
    const gone = [...state.spooled].filter(([step]) => step < oldest)
    return Effect.forEach(
      gone,
      ([step, { digests }]) =>
        Effect.forEach(Object.values(digests), spool.drop, { discard: true }).pipe(
          Effect.andThen(log.appendLazy({ _tag: "Unspooled", step }))
        ),
      { discard: true }
    ).pipe(
      Effect.catchTag("JournalError", (error) =>
        Effect.logWarning(`Something gathered was not removed: ${error.message}`)
      )
    )
  })
