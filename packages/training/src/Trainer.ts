/**
 * Fine-tunes a model and carries on, whatever fails in between.
 *
 * Running the same program again continues the run: everything that is needed stands in the `Journal`. What it guarantees
 * (the numbers are those of `docs/guarantees.md`):
 *
 * - **P1** the final state has applied every step exactly once, in order: an attempt that may have missed or repeated a step is
 *   given up, and the run goes on from a checkpoint that holds a known prefix;
 * - **P2** against a deterministic server the final weights, optimizer state and metrics are those of a run that never failed;
 * - **P3** one process at a time advances a run: a second one is refused by the journal's lease;
 * - **P5** every end is a result or a typed error, and every wait has a deadline or a watcher;
 * - **P7** without a guard (`@tinkex/recovery`) a failed attempt ends the program. Running it again is then what recovers.
 *
 * What it does not promise: that a server which says it restored the optimizer did so, or that damage which neither the flag
 * nor a failing request shows is found.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import { TinkerError } from "@tinkex/tinker/TinkerError"
import type { AdamParams } from "@tinkex/tinker/TrainingClient"
import * as Checkpointer from "./Checkpointer.ts"
import * as CheckpointName from "./CheckpointName.ts"
import * as CheckpointPolicy from "./CheckpointPolicy.ts"
import * as CheckpointSelector from "./CheckpointSelector.ts"
import type { Dataset } from "./Dataset.ts"
import * as Attempt from "./internal/attempt.ts"
import * as Digest from "./internal/digest.ts"
import * as RunLog from "./internal/runLog.ts"
import { Journal, type JournalError, type OpenJournal } from "./Journal.ts"
import type { ModelConfig } from "./JournalRecord.ts"
import * as LearningRate from "./LearningRate.ts"
import * as Restore from "./Restore.ts"
import {
  type Incident,
  type IncidentCause,
  type Restored,
  type RestoreOptions,
  type RestoreProgress,
  RunGuard
} from "./RunGuard.ts"
import { TrainingError } from "./TrainingError.ts"

/** What to fine-tune, on what, and how. */
export interface FineTuneOptions<E = never, R = never> {
  /** The run's name, `[A-Za-z0-9._-]`, at most 120 characters. The same name continues the same run. */
  readonly name: string
  readonly model: {
    readonly baseModel: string
    /** LoRA rank. Default 32. */
    readonly rank?: number | undefined
    /** Seed of the LoRA factors; fixed for the life of the run, so that a restart from the base model is the same model. Default 0. */
    readonly seed?: number | undefined
    readonly trainMlp?: boolean | undefined
    readonly trainAttn?: boolean | undefined
    readonly trainUnembed?: boolean | undefined
  }
  /** The batches, for example `Dataset.jsonl("data.jsonl", { batchSize: 32 })`. */
  readonly data: Effect.Effect<Dataset, E, R>
  /** A function of the step, or a constant. */
  readonly learningRate: LearningRate.LearningRate | number
  /** Adam's other parameters; the server's defaults where absent. */
  readonly adam?: Omit<AdamParams, "learningRate"> | undefined
  /** When to save and what to keep. Default: every 50 steps, the last 3. A final save is always made. */
  readonly checkpoints?: CheckpointPolicy.CheckpointPolicy | undefined
  /** Steps sent ahead of the oldest one that is not committed, 0 to 8. Default 1. */
  readonly pipelining?: number | undefined
  /** A label for the code that makes the batches; a changed one is refused. Default "1". */
  readonly programVersion?: string | undefined
  /**
   * What the server does with an operation that it receives a second time from another process: D0 runs it again, D1 refuses
   * it, D2 answers with the original while its future lives, D3 for the life of the model. Default D0, the weakest.
   */
  readonly capability?: "D0" | "D1" | "D2" | "D3" | undefined
  /** Continue although the configuration, the data or the program version has changed. Default false. */
  readonly force?: boolean | undefined
  /** Load the final checkpoint into a scratch model and ask it for a forward pass before the run counts as complete. Default true. */
  readonly rehearse?: boolean | undefined
  /** Labels stored with every model of the run, beside ours. */
  readonly userMetadata?: Record<string, string> | undefined
  /** Hears what happens. It cannot fail; one that dies is logged and changes nothing. */
  readonly onEvent?: ((event: TrainerEvent) => Effect.Effect<void>) | undefined
}

/** What a trainer tells its observer. */
export type TrainerEvent =
  | { readonly _tag: "RunOpened"; readonly run: string; readonly totalSteps: number; readonly attempts: number }
  | {
      readonly _tag: "AttemptStarted"
      readonly attempt: number
      readonly trainingRunId: string
      readonly path: string | null
      readonly step: number
      readonly how: "base" | "restored" | "reattached"
    }
  | { readonly _tag: "StepCommitted"; readonly step: number; readonly metrics: Record<string, number> }
  | { readonly _tag: "Checkpoint"; readonly outcome: Checkpointer.SaveOutcome }
  | { readonly _tag: "IncidentDetected"; readonly incident: Incident }
  | { readonly _tag: "RestoreProgress"; readonly progress: RestoreProgress }
  | { readonly _tag: "Completed"; readonly report: RunReport }

/** One failure that the run survived. */
export interface IncidentReport {
  readonly id: string
  readonly cause: IncidentCause
  readonly detail: string
  readonly attempt: number
  readonly trainingRunId: string
  /** Steps committed when it was detected. */
  readonly step: number
  /** From the last good answer to the detection. */
  readonly timeToDetect: Duration.Duration
  /** From the detection to a model that takes steps again. */
  readonly timeToRecover: Duration.Duration
  /** The checkpoint that was used; `null` for the base model. */
  readonly path: string | null
  /** The step at which the run went on. */
  readonly resumedAt: number
  /** Committed steps that had to be computed again. */
  readonly replayed: number
  readonly quarantined: ReadonlyArray<string>
}

/** How a run ended well. */
export interface RunReport {
  readonly run: string
  /** The training run that holds the final state. */
  readonly trainingRunId: string
  /** The final checkpoint. */
  readonly path: string
  readonly steps: number
  readonly attempts: number
  /** Failures survived by this process. */
  readonly incidents: ReadonlyArray<IncidentReport>
  /** The step at which this process took the run up; 0 for a new run. */
  readonly startedAt: number
  /** Metrics of the first and of the last step committed by this process. */
  readonly first: Record<string, number>
  readonly last: Record<string, number>
  readonly elapsed: Duration.Duration
  /** The run was complete before this process began. */
  readonly already: boolean
}

/** Breaker: so many attempts in a row that commit no new step end the run (RP17). */
const fruitlessAttempts = 3
const finalSaveTries = 3

/**
 * Runs supervised fine-tuning to its last step, from wherever the journal says it stands.
 *
 * Fails with `TrainingError`; a reason whose `isRetryable` is true means that running the program again may go further.
 *
 * ```ts ignore
 * Trainer.fineTune({
 *   name: "support-tone-v3",
 *   model: { baseModel: "Qwen/Qwen3-8B", rank: 32 },
 *   data: Dataset.jsonl("data.jsonl", { batchSize: 32, epochs: 3, shuffleSeed: 7 }),
 *   learningRate: LearningRate.linear({ peak: 1e-4, warmup: 20 })
 * })
 * ```
 */
export const fineTune = Effect.fn("Trainer.fineTune")(function* <E = never, R = never>(
  options: FineTuneOptions<E, R>
): Effect.fn.Return<RunReport, TrainingError | E, R | Journal | ServiceClient | RestClient> {
  const settings = yield* validate(options)
  yield* Effect.annotateCurrentSpan({ "tinkex.run": settings.name })
  const dataset = yield* options.data
  return yield* Effect.scoped(run(settings, dataset)).pipe(
    Effect.catchTag("JournalError", (error: JournalError) => Effect.fail(TrainingError.fromJournal(error)))
  )
})

interface Settings {
  readonly name: string
  readonly model: ModelConfig
  readonly learningRate: LearningRate.LearningRate
  readonly adam: Omit<AdamParams, "learningRate">
  readonly checkpoints: CheckpointPolicy.CheckpointPolicy
  readonly pipelining: number
  readonly programVersion: string
  readonly capability: "D0" | "D1" | "D2" | "D3"
  readonly force: boolean
  readonly rehearse: boolean
  readonly userMetadata: Record<string, string>
  readonly onEvent: (event: TrainerEvent) => Effect.Effect<void>
}

const validate = Effect.fnUntraced(function* <E, R>(options: FineTuneOptions<E, R>) {
  const rank = options.model.rank ?? 32
  const pipelining = options.pipelining ?? 1
  const refuse = (field: string, value: unknown, problem: string) => TrainingError.invalidOption(field, value, problem)
  if (!Number.isInteger(rank) || rank < 1) return yield* refuse("model.rank", rank, "must be a whole number above 0")
  if (!Number.isInteger(pipelining) || pipelining < 0 || pipelining > 8) {
    return yield* refuse("pipelining", pipelining, "must be a whole number from 0 to 8")
  }
  if (options.model.baseModel.trim() === "")
    return yield* refuse("model.baseModel", options.model.baseModel, "is empty")
  const learningRate =
    typeof options.learningRate === "number" ? LearningRate.constant(options.learningRate) : options.learningRate
  const { onEvent } = options
  const checkpoints = options.checkpoints ?? CheckpointPolicy.everySteps(50)
  const invalid = learningRate.invalid ?? checkpoints.invalid
  if (invalid !== undefined) return yield* new TrainingError({ reason: invalid })
  const settings: Settings = {
    name: options.name,
    model: {
      baseModel: options.model.baseModel,
      rank,
      seed: options.model.seed ?? 0,
      trainMlp: options.model.trainMlp ?? true,
      trainAttn: options.model.trainAttn ?? true,
      trainUnembed: options.model.trainUnembed ?? true
    },
    learningRate,
    adam: options.adam ?? {},
    checkpoints,
    pipelining,
    programVersion: options.programVersion ?? "1",
    capability: options.capability ?? "D0",
    force: options.force ?? false,
    rehearse: options.rehearse ?? true,
    userMetadata: options.userMetadata ?? {},
    onEvent: (event) =>
      onEvent === undefined
        ? Effect.void
        : onEvent(event).pipe(
            Effect.catchDefect((defect) => Effect.logWarning(`onEvent died on ${event._tag}`, defect))
          )
  }
  return settings
})

/** The part of the settings that decides the result: a change of it makes another run. */
const identity = (settings: Settings, dataset: Dataset) => ({
  model: settings.model,
  learningRate: settings.learningRate.config,
  adam: Object.fromEntries(Object.entries(settings.adam).map(([name, value]) => [name, value ?? null])),
  data: dataset.config,
  totalSteps: dataset.totalSteps
})

const openRun = Effect.fnUntraced(function* (
  settings: Settings,
  dataset: Dataset,
  open: OpenJournal,
  log: RunLog.RunLog
) {
  const config = identity(settings, dataset)
  const header = log.state().run
  const now = {
    configDigest: Digest.ofJson(config),
    dataDigest: dataset.digest,
    programVersion: settings.programVersion
  }
  if (header === undefined) {
    const journalId = crypto.randomUUID()
    const runHash = Digest.ofText(`${settings.name}\n${journalId}`).slice(0, 8)
    yield* log.append({
      _tag: "Run",
      journalId,
      run: open.run,
      runHash,
      config,
      ...now,
      totalSteps: dataset.totalSteps,
      seed: settings.model.seed,
      capability: settings.capability,
      model: settings.model
    })
    return runHash
  }
  const diff = [
    ...Digest.diff(header.config, config),
    ...(header.dataDigest === now.dataDigest ? [] : [`data: its contents have changed`]),
    ...(header.programVersion === now.programVersion
      ? []
      : [`programVersion: ${header.programVersion} -> ${now.programVersion}`])
  ]
  if (diff.length > 0 && !settings.force) return yield* TrainingError.configChanged(settings.name, diff)
  return header.runHash
})

const run = Effect.fnUntraced(function* (settings: Settings, dataset: Dataset) {
  const began = yield* Clock.currentTimeMillis
  const journals = yield* Journal
  const service = yield* ServiceClient
  const rest = yield* RestClient
  const guard = yield* RunGuard
  const runScope = yield* Effect.scope
  const open = yield* journals.open(settings.name)
  const log = RunLog.make(open)
  const { onEvent } = settings
  const total = dataset.totalSteps
  const runHash = yield* openRun(settings, dataset, open, log)
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
  let scope: Scope.Closeable = yield* Scope.fork(runScope)

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

  const metadata = (attempt: number) => ({
    ...settings.userMetadata,
    "tinkex.run": settings.name,
    "tinkex.journal": log.state().run?.journalId ?? "",
    "tinkex.epoch": String(open.epoch),
    "tinkex.attempt": String(attempt)
  })

  const nextNumber = () => (log.state().attempts.at(-1)?.attempt ?? 0) + 1

  const freshScope = Effect.suspend(() =>
    Scope.close(scope, Exit.void).pipe(
      Effect.andThen(Scope.fork(runScope)),
      Effect.tap((next) => Effect.sync(() => (scope = next)))
    )
  )

  /** A new attempt from a checkpoint, or from the base model. Durable before anything is asked of the server (RP15). */
  const begin = Effect.fnUntraced(function* (
    from: { readonly path: string; readonly step: number } | undefined,
    incident: string | null,
    restoring: RestoreOptions
  ) {
    const attempt = nextNumber()
    const path = from?.path ?? null
    const step = from?.step ?? 0
    yield* log.append({ _tag: "Attempt", attempt, from: path, fromStep: step, incident })
    const own = yield* freshScope
    const created = (client: { readonly modelId: string; readonly sessionId: string }) =>
      log
        .append({ _tag: "Created", attempt, trainingRunId: client.modelId, sessionId: client.sessionId })
        .pipe(Effect.andThen(restoring.onProgress({ _tag: "ClientCreated", trainingRunId: client.modelId, attempt })))
    const client =
      path === null
        ? yield* service
            .createLoraTrainingClient({ ...settings.model, userMetadata: metadata(attempt) })
            .pipe(Effect.tap(created), Scope.provide(own))
        : yield* Restore.fromCheckpoint(path, {
            optimizer: restoring.optimizer,
            expected: settings.model,
            userMetadata: metadata(attempt),
            onCreated: created
          }).pipe(Scope.provide(own))
    yield* log.append({
      _tag: "Started",
      attempt,
      trainingRunId: client.modelId,
      sessionId: client.sessionId,
      nextSeq: yield* client.nextSeq
    })
    yield* restoring.onProgress({ _tag: "Resumed", trainingRunId: client.modelId, step })
    return { client, attempt, path, step }
  })

  const currentPlan = (strategy: CheckpointSelector.Strategy) =>
    Effect.map(DateTime.now, (now) => Restore.planJournaled(log.state(), { run: settings.name, strategy, now }))

  const end = (error: TrainingError) =>
    log
      .append({ _tag: "Ended", tag: error.reason._tag, detail: error.message })
      .pipe(Effect.andThen(Effect.fail(error)))

  /** One try: the candidates in their order, each at most once, a bad one quarantined on the way (RP14, RP16). */
  const restore = Effect.fnUntraced(
    function* (incident: Incident | undefined, restoring: RestoreOptions) {
      yield* Checkpointer.adopt(log, rest)
      const quarantined: Array<string> = []
      while (true) {
        if (log.state().attemptsWithoutProgress >= fruitlessAttempts) {
          return yield* end(TrainingError.noProgress(settings.name, log.state()))
        }
        const plan = yield* currentPlan(restoring.strategy)
        const chosen = Option.getOrUndefined(plan.chosen)
        if (chosen === undefined && !plan.fromBase) {
          return yield* end(TrainingError.noCheckpoint(settings.name, plan.rejected))
        }
        const from =
          chosen === undefined ? undefined : { path: chosen.path, step: Option.getOrElse(chosen.step, () => 0) }
        yield* restoring.onProgress({
          _tag: "CheckpointSelected",
          path: from?.path ?? null,
          step: from?.step ?? 0,
          rejected: plan.rejected.length
        })
        const started = yield* Effect.result(begin(from, incident?.id ?? null, restoring))
        if (started._tag === "Success") {
          const restored: Restored = { ...started.success, quarantined }
          return restored
        }
        const error = started.failure
        if (error._tag !== "CheckpointRefused") return yield* error
        quarantined.push(error.path)
        yield* log.append({ _tag: "Quarantine", path: error.path, why: error.why })
        yield* restoring.onProgress({ _tag: "Quarantined", path: error.path, why: error.why })
      }
    },
    (effect) =>
      effect.pipe(
        Effect.catchTag("TinkerError", (error: TinkerError) => Effect.fail(TrainingError.service(error))),
        Effect.catchTag("JournalError", (error: JournalError) => Effect.fail(TrainingError.fromJournal(error))),
        Effect.provideService(ServiceClient, service),
        Effect.provideService(RestClient, rest)
      )
  )

  /** Goes on with the model of a process that is known to be dead, where that is safe (RP22, RP23). */
  const reattach = Effect.fnUntraced(
    function* () {
      const state = log.state()
      const attempt = state.attempts.at(-1)
      if (attempt?.started !== true || attempt.closed !== undefined || !open.formerOwnerDead) return undefined
      if (attempt.trainingRunId == null || attempt.sessionId == null) return undefined
      const unresolved = [...attempt.steps.values()].filter((step) => step.step >= attempt.committed)
      const capability = state.run?.capability ?? "D0"
      const before = attempt.steps.get(attempt.committed - 1)
      const openSave =
        before?.save != null &&
        !state.verified.some((record) => record.name === before.save?.name) &&
        !state.saveDead.has(before.save.name)
          ? before
          : undefined
      if ((unresolved.length > 0 || openSave !== undefined) && capability !== "D3") return undefined
      const saveOp = openSave?.ops.find((op) => op.kind === "save_weights")
      const nextSeq =
        saveOp?.seqIds[0] ?? unresolved[0]?.ops[0]?.seqIds[0] ?? lastSeq(attempt.steps.values()) ?? attempt.nextSeq ?? 1
      const run = yield* rest.getTrainingRun(attempt.trainingRunId)
      if (run.corrupted) {
        yield* log.append({
          _tag: "Incident",
          id: incidentId(runHash, attempt.attempt),
          attempt: attempt.attempt,
          cause: "poisoned",
          detail: "found flagged at a restart",
          step: attempt.committed
        })
        return undefined
      }
      const own = yield* freshScope
      const client = yield* service
        .attachTrainingClient({ modelId: attempt.trainingRunId, sessionId: attempt.sessionId, nextSeq })
        .pipe(
          Effect.tap((client) => client.info),
          Scope.provide(own)
        )
      yield* log.append({ _tag: "Reattached", attempt: attempt.attempt })
      const live: LiveAttempt = {
        client,
        attempt: attempt.attempt,
        path: attempt.from,
        step: attempt.committed,
        resend: new Map(unresolved.map((step) => [step.step, step])),
        resendSave: openSave,
        how: "reattached"
      }
      return live
    },
    Effect.catchTag("TinkerError", (error: TinkerError) =>
      Effect.logInfo(`The model of the last process cannot be continued: ${error.message}`).pipe(Effect.as(undefined))
    )
  )

  const announce = (progress: RestoreProgress) => onEvent({ _tag: "RestoreProgress", progress })
  const plainRestore: RestoreOptions = {
    strategy: CheckpointSelector.latest,
    optimizer: true,
    onProgress: announce
  }

  const takeUp = Effect.fnUntraced(function* () {
    const reattached = log.state().attempts.length === 0 ? undefined : yield* reattach()
    if (reattached !== undefined) return reattached
    const restored = yield* restore(undefined, plainRestore)
    return fromRestored(restored)
  })

  const detected = Effect.fnUntraced(function* (live: LiveAttempt, failure: Attempt.AttemptFailed) {
    const now = yield* DateTime.now
    const committed = log.state().attempts.at(-1)?.committed ?? live.step
    const incident: Incident = {
      id: incidentId(runHash, live.attempt),
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

  const recover = Effect.fnUntraced(function* (live: LiveAttempt, failure: Attempt.AttemptFailed) {
    const detectedAt = yield* Clock.currentTimeMillis
    const timeToDetect = Duration.millis(Math.max(0, detectedAt - lastGood))
    const incident = yield* detected(live, failure)
    if (Option.isNone(guard)) {
      const plan = yield* currentPlan(CheckpointSelector.latest)
      return yield* TrainingError.runFailed(incident, plan)
    }
    const restored = yield* guard.value.recover({
      incident,
      plan: currentPlan(CheckpointSelector.latest),
      restore: (restoring) =>
        restoring.onProgress({ _tag: "Fenced", trainingRunId: live.client.modelId }).pipe(
          Effect.andThen(
            restore(incident, {
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
    return fromRestored(restored)
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
  const runAttempt = Effect.fnUntraced(function* (live: LiveAttempt) {
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
        .pipe(Scope.provide(scope))
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
    }).pipe(Scope.provide(scope))
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
  const finalCheckpoint = Effect.fnUntraced(function* (live: LiveAttempt, checkpointer: Checkpointer.Checkpointer) {
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
        Restore.prove(path, { expected: settings.model, probe: batch.slice(0, 1), userMetadata: metadata(0) })
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

interface LiveAttempt {
  readonly client: Restored["client"]
  readonly attempt: number
  readonly path: string | null
  readonly step: number
  readonly resend: ReadonlyMap<number, Attempt.StepRecord>
  readonly resendSave: Attempt.StepRecord | undefined
  readonly how: "base" | "restored" | "reattached"
}

const fromRestored = (restored: Restored): LiveAttempt => ({
  client: restored.client,
  attempt: restored.attempt,
  path: restored.path,
  step: restored.step,
  resend: new Map(),
  resendSave: undefined,
  how: restored.path === null ? "base" : "restored"
})

const incidentId = (runHash: string, attempt: number) => `inc-${Digest.ofText(`${runHash}/${attempt}`).slice(0, 10)}`

const lastSeq = (steps: Iterable<Attempt.StepRecord>): number | undefined => {
  let max: number | undefined
  for (const step of steps) {
    for (const op of step.ops) for (const seq of op.seqIds) max = Math.max(max ?? 0, seq + 1)
  }
  return max
}
