/** How a run comes by a model that can take its next step. */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import * as Checkpointer from "../Checkpointer.ts"
import type * as CheckpointSelector from "../CheckpointSelector.ts"
import type { JournalError, OpenJournal } from "../Journal.ts"
import * as Restore from "../Restore.ts"
import type { Incident, Restored, RestoreOptions } from "../RunGuard.ts"
import { TrainingError } from "../TrainingError.ts"
import type { StepRecord } from "./attempt.ts"
import * as Digest from "./digest.ts"
import * as QueueChanges from "./queueChanges.ts"
import type { RunLog } from "./runLog.ts"
import type { Settings } from "./settings.ts"
import { whatHappened } from "./whatHappened.ts"

/** Breaker: so many attempts in a row that commit no new step end the run (RP17). */
const fruitlessAttempts = 3

/** A model that is ready for step `step`. */
export interface LiveAttempt {
  readonly client: Restored["client"]
  readonly attempt: number
  readonly path: string | null
  readonly step: number
  /** The state of the loop at that step. */
  readonly state: Schema.Json
  readonly resend: ReadonlyMap<number, StepRecord>
  readonly resendSave: StepRecord | undefined
  readonly how: "base" | "restored" | "reattached"
}

export const fromRestored = (restored: Restored, state: Schema.Json): LiveAttempt => ({
  state,
  client: restored.client,
  attempt: restored.attempt,
  path: restored.path,
  step: restored.step,
  resend: new Map(),
  resendSave: undefined,
  how: restored.path === null ? "base" : "restored"
})

/** Two observers of one failure name it alike. */
export const incidentId = (runHash: string, attempt: number) =>
  `inc-${Digest.ofText(`${runHash}/${attempt}`).slice(0, 10)}`

/** The trouble is with the way to the service, or with the account. */
const isElsewhere = ({ reason }: TinkerError): boolean => {
  switch (reason._tag) {
    case "Unauthorized":
    case "Forbidden":
    case "BillingPaused":
    case "RateLimited":
    case "ServerFailure":
    case "Timeout":
    case "Transport":
      return true
    default:
      return false
  }
}

const lastSeq = (steps: Iterable<StepRecord>): number | undefined => {
  let max: number | undefined
  for (const step of steps) {
    for (const op of step.ops) for (const seq of op.seqIds) max = Math.max(max ?? 0, seq + 1)
  }
  return max
}

/** The attempts of one run, made one after another in scopes of their own below the current one. */
export const make = Effect.fnUntraced(function* (context: {
  readonly settings: Settings
  readonly runHash: string
  readonly open: OpenJournal
  readonly log: RunLog
  /** The state of the loop before its first step. */
  readonly initial: Schema.Json
}) {
  const { log, open, runHash, settings } = context
  const service = yield* ServiceClient
  const rest = yield* RestClient
  const runScope = yield* Effect.scope
  let scope: Scope.Closeable = yield* Scope.fork(runScope)

  const metadata = (attempt: number) => ({
    ...settings.userMetadata,
    "tinkex.run": settings.name,
    "tinkex.journal": log.state().run?.journalId ?? "",
    "tinkex.epoch": String(open.epoch),
    "tinkex.attempt": String(attempt)
  })

  const probeOf = (path: string) => {
    const logprobs = log.state().verified.find((record) => record.path === path)?.probe
    return settings.probe === undefined || logprobs === undefined ? undefined : { batch: settings.probe, logprobs }
  }

  /** The state of the loop after so many steps, as the checkpoint holds it. */
  const stateOf = (path: string | null): Schema.Json => {
    const held = log.state().verified.find((record) => record.path === path)
    return held === undefined ? context.initial : held.userState
  }

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
    const onQueueState = QueueChanges.make((state) => {
      const cause =
        state.state === "paused_capacity" ? "capacity" : state.state === "paused_rate_limit" ? "rate_limit" : undefined
      return log
        .appendLazy(cause === undefined ? { _tag: "Resumed", cause: state.state } : { _tag: "Paused", cause })
        .pipe(
          // Whoever appends next meets the same.
          Effect.catchTag("JournalError", (error) => Effect.logWarning(error.message)),
          Effect.andThen(restoring.onProgress({ _tag: "QueueState", state }))
        )
    })
    const client = yield* (
      path === null
        ? service.createLoraTrainingClient({ ...settings.model, userMetadata: metadata(attempt), onQueueState }).pipe(
            Effect.tap(() => onQueueState(QueueChanges.active)),
            Effect.tap(created)
          )
        : Restore.fromCheckpoint(path, {
            optimizer: restoring.optimizer,
            expected: settings.model,
            userMetadata: metadata(attempt),
            onCreated: created,
            onQueueState,
            probe: probeOf(path)
          })
    ).pipe(
      Scope.provide(own),
      // Whatever becomes of it, nothing is held back any more.
      Effect.ensuring(onQueueState(QueueChanges.active))
    )
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

  /**
   * An attempt that took no step because the service was away, would not let us in, or kept us waiting until somebody lost patience,
   * says nothing against the run: it is given back, so that starting the program again and again does not end the run for good.
   */
  const giveBack = Effect.fnUntraced(function* (detail: string) {
    const last = log.state().attempts.at(-1)
    if (last === undefined || last.closed !== undefined || last.committed > last.fromStep) return
    yield* log.append({
      _tag: "Incident",
      id: incidentId(runHash, last.attempt),
      attempt: last.attempt,
      cause: "paused",
      detail,
      step: last.committed
    })
  })
  const excuse = (error: TinkerError) => (isElsewhere(error) ? giveBack(whatHappened(error)) : Effect.void)

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
        const started = yield* begin(from, incident?.id ?? null, restoring).pipe(
          Effect.onInterrupt(() => Effect.ignore(giveBack("it was stopped before its model was ready"))),
          Effect.result
        )
        if (started._tag === "Success") {
          const restored: Restored = { ...started.success, quarantined }
          return restored
        }
        const error = started.failure
        if (error._tag === "TinkerError") yield* excuse(error)
        if (error._tag !== "CheckpointRefused") return yield* error
        quarantined.push(error.path)
        yield* log.append({ _tag: "Quarantine", path: error.path, why: error.why })
        yield* restoring.onProgress({ _tag: "Quarantined", path: error.path, why: error.why })
      }
    },
    (effect) =>
      effect.pipe(
        Effect.catchTag("TinkerError", (error: TinkerError) =>
          Effect.fail(TrainingError.whileRestoring(settings.name, error))
        ),
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
      // What an evaluation, or a save of its own, has sent is not known step by step.
      if (attempt.evaluating || attempt.saves.size > 0) return undefined
      const unresolved = [...attempt.steps.values()].filter((step) => step.step >= attempt.committed)
      const capability = state.run?.capability ?? "D0"
      const before = attempt.steps.get(attempt.committed - 1)
      if (before === undefined && attempt.committed > attempt.fromStep) return undefined
      const openSave =
        before?.save != null &&
        !state.verified.some((record) => record.name === before.save?.name) &&
        !state.saveDead.has(before.save.name)
          ? before
          : undefined
      if ((unresolved.length > 0 || openSave !== undefined) && capability !== "D3") return undefined
      // Behind a save that may be missing a probe may be missing too, and then the place of everything behind it is unknown.
      if (openSave !== undefined && openSave.ops.at(-1)?.kind === "forward" && unresolved.length > 0) return undefined
      const saveOp = openSave?.ops.find((op) => op.kind === "save_weights")
      const nextSeq =
        saveOp?.seqIds[0] ??
        unresolved[0]?.ops[0]?.seqIds[0] ??
        Math.max(lastSeq(attempt.steps.values()) ?? 1, attempt.nextSeq ?? 1)
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
          Effect.tap((client) => client.info()),
          Scope.provide(own)
        )
      yield* log.append({ _tag: "Reattached", attempt: attempt.attempt })
      const live: LiveAttempt = {
        client,
        attempt: attempt.attempt,
        path: attempt.from,
        step: attempt.committed,
        state: before === undefined ? stateOf(attempt.from) : before.userState,
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

  return {
    stateOf,
    restore,
    excuse,
    reattach,
    currentPlan,
    metadata,
    /** What belongs to the newest attempt lives here; the next one closes it. */
    scope: () => scope
  }
})
