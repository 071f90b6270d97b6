/**
 * Restores live runs that fail, by policy or by hand.
 *
 * For a `Trainer` the layer is all: it guards every run of the program. Those who own their loop `watch` a training run and are
 * handed a new client, or call `plan`, `recoverRun` and `recoverFromCheckpoint` themselves.
 *
 * - **R1** nothing recovers by itself unless the policy says `enabled: true`; a failure of a watched run is then only told as
 *   `detected`, and manual calls work (P7);
 * - **R2** `plan` reads and never writes (P7);
 * - **R3** one incident per attempt, whoever sees it first and however often;
 * - **R4** the old client is fenced before a new one exists; each try makes a fresh model;
 * - **R5** a checkpoint that the service refuses is set aside for this run and the next older one is tried;
 * - **R6** a recovered attempt is watched in turn, and what was said of the run before still holds;
 * - **R7** callbacks run outside the workers and against a limit; one that fails, dies or hangs is a `callback_failed` event and
 *   changes nothing.
 *
 * What it does not promise: that the loop of an owner who ignores a fence stops, that a checkpoint saved while the backend
 * was already failing is sound (one that loads and is not flagged right after is taken), or anything across processes:
 * what it knows of owned runs is in memory. A `Trainer` keeps a journal; use it where that matters.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import * as Restore from "@tinkex/training/Restore"
import { type IncidentCause, RunGuard } from "@tinkex/training/RunGuard"
import * as Executor from "./Executor.ts"
import * as EventLog from "./internal/eventLog.ts"
import * as Failures from "./internal/failures.ts"
import * as Guard from "./internal/guard.ts"
import * as OwnedRun from "./internal/ownedRun.ts"
import * as Tree from "./internal/tree.ts"
import * as Monitor from "./Monitor.ts"
import {
  AlreadyRecovering,
  CheckpointRefused,
  make as refuse,
  NotRecoverable,
  type RecoveryError
} from "./RecoveryError.ts"
import type { Cause as IncidentReason, RecoveryEvent, Source } from "./RecoveryEvent.ts"
import * as RecoveryPolicy from "./RecoveryPolicy.ts"

/** A run that was brought back. */
export interface Recovered {
  readonly previous: { readonly runId: string; readonly client: Option.Option<TrainingClient> }
  /** The new attempt; the same as `client.modelId`. */
  readonly runId: string
  /** Loaded, and at `step`. It lives in the scope of the watch, or of the caller who asked for the recovery. */
  readonly client: TrainingClient
  readonly checkpoint: CheckpointSelector.Candidate
  /** Steps applied in it, where `stepOf` could tell. */
  readonly step: Option.Option<number>
  readonly incident: string
  /** Checkpoints that turned out to be bad on the way. */
  readonly quarantined: ReadonlyArray<string>
}

/** A run to look after. */
export interface WatchOptions {
  readonly runId: string
  /** With its client a failure is noticed at the request that meets it, and the client is fenced before the restore. */
  readonly client?: TrainingClient | undefined
  /** Tells the step of a checkpoint. Without it the newest by time is taken. */
  readonly stepOf?: OwnedRun.StepOf | undefined
  /** Replaces the policy's strategy for this run. */
  readonly strategy?: CheckpointSelector.Strategy | undefined
  /** Handed the new client. May take as long as the policy's `callbackLimit`. */
  readonly onRecovered?: ((recovered: Recovered) => Effect.Effect<unknown, unknown>) | undefined
  /** Told when the run was given up, under the id of the attempt that could not be replaced. */
  readonly onFailure?:
    | ((failure: { readonly runId: string; readonly error: RecoveryError }) => Effect.Effect<unknown, unknown>)
    | undefined
}

export interface PlanOptions {
  /** Default: that of the watch, else the policy's. */
  readonly strategy?: CheckpointSelector.Strategy | undefined
  /** Default: that of the watch, if there is one. */
  readonly stepOf?: OwnedRun.StepOf | undefined
  /** Steps that the loop has seen the results of; with it the plan says which would be computed again. */
  readonly committed?: number | undefined
}

export interface RecoverOptions extends Omit<PlanOptions, "committed"> {
  /** Default: the policy's. */
  readonly restoreOptimizer?: boolean | undefined
}

/** How a run stands that this layer has heard of. */
export interface RunStatus {
  /** The current attempt. */
  readonly runId: string
  /** The attempts before it, oldest first. */
  readonly before: ReadonlyArray<string>
  /**
   * `idle`: not watched. `reported`: failed, but the policy is not enabled. `given_up`: no recovery succeeded; watching the run
   * again, or `recoverRun`, arms it anew.
   */
  readonly phase: "idle" | "watched" | "recovering" | "reported" | "given_up"
}

interface Watch {
  readonly options: WatchOptions
  readonly scope: Scope.Scope
}

interface Tracked {
  readonly run: OwnedRun.OwnedRun
  phase: RunStatus["phase"]
  watch: Watch | undefined
  client: TrainingClient | undefined
  target: Monitor.Target | undefined
}

const idOf = (failed: string): string => `inc-${createHash("sha256").update(failed).digest("hex").slice(0, 10)}`

/** What an error of its client means for a run; none where nothing failed but somebody decided. */
const causeOf = ({ reason }: TinkerError): IncidentCause | undefined => {
  switch (reason._tag) {
    case "Fenced":
      return undefined
    case "RunLost":
      return "lost"
    case "SessionLost":
      return "session_lost"
    case "RequestFailed":
      return "failed"
    default:
      return "ambiguous"
  }
}

const make = Effect.fnUntraced(function* (policy: RecoveryPolicy.RecoveryPolicy) {
  const services: OwnedRun.Services = { rest: yield* RestClient, service: yield* ServiceClient }
  const log = yield* EventLog.make
  const monitor = yield* Monitor.make(policy, log, services.rest)
  const tree = yield* Effect.orDie(Tree.start(monitor.run))
  const executor = Executor.make(policy, log, tree.refs.executor)
  const background = yield* FiberSet.make<void>()
  const runs = new Map<string, Tracked>()

  const current = ({ run }: Tracked): string => run.lineage.at(-1) ?? ""

  const track = (runId: string): Tracked => {
    const known = runs.get(runId)
    if (known !== undefined) return known
    const tracked: Tracked = {
      run: { lineage: [runId], refused: new Map() },
      phase: "idle",
      watch: undefined,
      client: undefined,
      target: undefined
    }
    runs.set(runId, tracked)
    return tracked
  }

  const inBackground = (effect: Effect.Effect<void>) =>
    Effect.asVoid(
      FiberSet.run(
        background,
        Effect.catchCause(effect, (cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.logError("A recovery's follow-up died", cause)
        )
      )
    )

  const callBack = (
    tracked: Tracked,
    about: { readonly runId: string; readonly incident: string },
    callback: "onRecovered" | "onFailure",
    call: () => Effect.Effect<unknown, unknown>
  ) =>
    Effect.gen(function* () {
      const began = yield* Clock.currentTimeMillis
      const tell = (detail: string) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          log.emit({
            _tag: "callback_failed",
            run: tracked.run.lineage[0] ?? about.runId,
            trainingRunId: about.runId,
            attempt: null,
            incident: about.incident,
            try: 0,
            duration: Duration.millis(now - began),
            callback,
            detail
          })
        )
      yield* Effect.suspend(call).pipe(
        Effect.timeoutOption(policy.callbackLimit),
        Effect.flatMap((done) =>
          Option.isSome(done) ? Effect.void : tell(`it took longer than ${Duration.format(policy.callbackLimit)}`)
        ),
        Effect.catchCause((cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.interrupt : tell(Cause.pretty(cause).split("\n", 1)[0] ?? "")
        )
      )
    }).pipe(inBackground)

  const openIncident = Effect.fnUntraced(function* (
    tracked: Tracked,
    cause: IncidentReason,
    detail: string,
    source: Source
  ): Effect.fn.Return<Executor.Incident> {
    const trainingRunId = current(tracked)
    const sighting = yield* monitor.inspect(trainingRunId)
    return {
      id: idOf(trainingRunId),
      run: tracked.run.lineage[0] ?? trainingRunId,
      trainingRunId,
      attempt: null,
      cause,
      detail,
      source,
      lastSeenWell: Option.map(sighting, ({ seenWell }) => seenWell)
    }
  })

  const stopSweeping = (tracked: Tracked) => {
    const { target } = tracked
    tracked.target = undefined
    return target === undefined ? Effect.void : monitor.remove(target)
  }

  /** Has the current attempt of a watched run looked after, by sweep and through its client. */
  const lookAfter = Effect.fnUntraced(function* (tracked: Tracked, watch: Watch) {
    const runId = current(tracked)
    tracked.phase = "watched"
    const target: Monitor.Target = {
      trainingRunId: runId,
      run: tracked.run.lineage[0] ?? runId,
      attempt: null,
      onFlag: (detail) => failed(tracked, runId, "poisoned", detail, "sweep")
    }
    yield* stopSweeping(tracked)
    tracked.target = target
    yield* monitor.add(target)
    const { client } = tracked
    if (client === undefined) return
    yield* client.failure.pipe(
      Effect.flatMap((error) => {
        const cause = causeOf(error)
        if (cause === undefined) return Effect.logDebug(`The client of ${runId} was fenced: ${error.message}`)
        const blame = error.reason._tag === "RequestFailed" && error.category === "user"
        return failed(tracked, runId, cause, error.message, "client", blame)
      }),
      Effect.forkIn(watch.scope)
    )
  })

  /** The first sign of an attempt's failure opens its incident; later ones, and those of attempts before it, change nothing. */
  const failed = Effect.fnUntraced(function* (
    tracked: Tracked,
    runId: string,
    cause: IncidentCause,
    detail: string,
    source: Source,
    userFault = false
  ): Effect.fn.Return<void> {
    const { watch } = tracked
    if (watch === undefined || tracked.phase !== "watched" || current(tracked) !== runId) return
    const incident = yield* openIncident(tracked, cause, detail, source)
    if (!policy.enabled) {
      tracked.phase = "reported"
      return yield* Executor.announce(log, incident)
    }
    tracked.phase = "recovering"
    const refusal = refuse(new NotRecoverable({ runId, cause, detail }))
    const options = { optimizer: policy.restoreOptimizer, strategy: watch.options.strategy ?? policy.strategy }
    yield* inBackground(
      recover(tracked, incident, watch.scope, options, userFault ? refusal : undefined).pipe(
        Effect.matchEffect({
          onFailure: (error) => {
            if (tracked.watch === undefined) return Effect.void
            tracked.phase = "given_up"
            const { onFailure } = tracked.watch.options
            if (onFailure === undefined) return Effect.void
            return callBack(tracked, { runId, incident: incident.id }, "onFailure", () => onFailure({ runId, error }))
          },
          onSuccess: (recovered) => {
            const onRecovered = tracked.watch?.options.onRecovered
            if (onRecovered === undefined) return Effect.void
            return callBack(tracked, { runId, incident: incident.id }, "onRecovered", () => onRecovered(recovered))
          }
        })
      )
    )
  })

  const recover = (
    tracked: Tracked,
    incident: Executor.Incident,
    scope: Scope.Scope,
    options: { readonly strategy: CheckpointSelector.Strategy; readonly optimizer: boolean },
    refusal?: RecoveryError
  ): Effect.Effect<Recovered, RecoveryError> => {
    const previous = { runId: incident.trainingRunId, client: Option.fromNullishOr(tracked.client) }
    const bad = new Set<string>()
    return executor
      .recover({
        incident,
        restore: (report) =>
          refusal === undefined
            ? OwnedRun.restore(services, tracked.run, {
                ...options,
                incident: incident.id,
                scope,
                fence: previous.client,
                report: (progress) => {
                  if (progress._tag === "Quarantined") bad.add(progress.path)
                  return report(progress)
                }
              })
            : Effect.fail(refusal),
        outcome: ({ checkpoint, client }) => ({
          newTrainingRunId: client.modelId,
          path: checkpoint.path,
          step: Option.getOrNull(checkpoint.step),
          quarantined: [...bad]
        })
      })
      .pipe(
        Effect.flatMap(({ checkpoint, client }) =>
          Effect.gen(function* () {
            yield* stopSweeping(tracked)
            tracked.run.lineage.push(client.modelId)
            tracked.client = client
            tracked.phase = "idle"
            runs.set(client.modelId, tracked)
            if (tracked.watch !== undefined) yield* lookAfter(tracked, tracked.watch)
            const recovered: Recovered = {
              previous,
              runId: client.modelId,
              client,
              checkpoint,
              step: checkpoint.step,
              incident: incident.id,
              quarantined: [...bad]
            }
            return recovered
          })
        )
      )
  }

  const release = Effect.fnUntraced(function* (tracked: Tracked, why: string) {
    tracked.watch = undefined
    tracked.phase = "idle"
    yield* stopSweeping(tracked)
    yield* executor.cancel(current(tracked), why)
  })

  const watch = Effect.fn("Recovery.watch")(function* (
    options: WatchOptions
  ): Effect.fn.Return<void, never, Scope.Scope> {
    const scope = yield* Effect.scope
    const tracked = track(options.runId)
    const watch: Watch = { options, scope }
    tracked.watch = watch
    if (options.stepOf !== undefined) tracked.run.stepOf = options.stepOf
    if (options.client !== undefined && options.client.modelId === current(tracked)) tracked.client = options.client
    yield* Effect.addFinalizer(() =>
      tracked.watch === watch ? release(tracked, "the scope of its watch was closed") : Effect.void
    )
    if (tracked.phase !== "recovering") yield* lookAfter(tracked, watch)
  })

  const plan = Effect.fn("Recovery.plan")(function* (runId: string, options: PlanOptions = {}) {
    const tracked: Tracked | undefined = runs.get(runId)
    const run: OwnedRun.OwnedRun = tracked?.run ?? { lineage: [runId], refused: new Map() }
    return yield* OwnedRun.plan(
      services,
      { ...run, stepOf: options.stepOf ?? run.stepOf },
      {
        incident: idOf(run.lineage.at(-1) ?? runId),
        strategy: options.strategy ?? tracked?.watch?.options.strategy ?? policy.strategy,
        committed: options.committed
      }
    ).pipe(
      Effect.mapError((error) => Failures.fromTinker(runId, error)),
      Effect.catchDefect((defect) => Effect.fail(Failures.fromDefect(runId, defect)))
    )
  })

  const recoverRun = Effect.fn("Recovery.recoverRun")(function* (runId: string, options: RecoverOptions = {}) {
    const scope = yield* Effect.scope
    const tracked = track(runId)
    const incident = yield* openIncident(tracked, "requested", "somebody asked for it", "manual")
    if (tracked.phase === "recovering") {
      return yield* refuse(new AlreadyRecovering({ runId: incident.trainingRunId, incident: incident.id }))
    }
    if (options.stepOf !== undefined) tracked.run.stepOf = options.stepOf
    tracked.phase = "recovering"
    return yield* recover(tracked, incident, scope, {
      strategy: options.strategy ?? tracked.watch?.options.strategy ?? policy.strategy,
      optimizer: options.restoreOptimizer ?? policy.restoreOptimizer
    }).pipe(
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (exit._tag === "Failure") tracked.phase = tracked.watch === undefined ? "idle" : "given_up"
        })
      )
    )
  })

  const recoverFromCheckpoint = Effect.fn("Recovery.recoverFromCheckpoint")(function* (
    path: string,
    options: { readonly restoreOptimizer?: boolean | undefined } = {}
  ) {
    const scope = yield* Effect.scope
    const id = idOf(path)
    return yield* executor.recover({
      incident: {
        id,
        run: Restore.runOf(path),
        trainingRunId: path,
        attempt: null,
        cause: "requested",
        detail: "somebody asked for this checkpoint",
        source: "manual",
        lastSeenWell: Option.none()
      },
      restore: (report) =>
        Effect.gen(function* () {
          yield* report({ _tag: "CheckpointSelected", path, step: null, rejected: 0 })
          const client = yield* OwnedRun.load(services, path, {
            optimizer: options.restoreOptimizer ?? policy.restoreOptimizer,
            scope,
            userMetadata: { "tinkex.recovered_from": Restore.runOf(path), "tinkex.incident": id },
            report
          }).pipe(
            Effect.mapError((error) =>
              error._tag === "TinkerError"
                ? Failures.fromTinker(path, error, true)
                : refuse(new CheckpointRefused({ path, why: error.why }))
            )
          )
          yield* report({ _tag: "Resumed", trainingRunId: client.modelId, step: null })
          return { client, path, runId: client.modelId }
        }),
      outcome: ({ runId }) => ({ newTrainingRunId: runId, path, step: null, quarantined: [] })
    })
  })

  const service: Recovery["Service"] = {
    policy,
    watch,
    unwatch: (runId) =>
      Effect.suspend(() => {
        const tracked = runs.get(runId)
        return tracked?.watch === undefined ? Effect.void : release(tracked, "its run was unwatched")
      }),
    plan,
    recoverRun,
    recoverFromCheckpoint,
    events: log.events,
    status: Effect.sync(() =>
      [...new Set(runs.values())].map((tracked) => ({
        runId: current(tracked),
        before: tracked.run.lineage.slice(0, -1),
        phase: tracked.phase
      }))
    )
  }
  return { service, guard: Guard.make(policy, monitor, executor) }
})

/** The recovery layer. See the top of this module. */
export class Recovery extends Context.Service<
  Recovery,
  {
    /** The policy in force, with every default filled in. */
    readonly policy: RecoveryPolicy.RecoveryPolicy
    /**
     * Looks after a run until the scope closes: its failure opens an incident, and the new attempt is looked after in turn. Any
     * attempt's id names the run. Watching a watched run takes the watch over.
     */
    readonly watch: (options: WatchOptions) => Effect.Effect<void, never, Scope.Scope>
    /** Ends a watch and cancels a recovery that goes on for it. */
    readonly unwatch: (runId: string) => Effect.Effect<void>
    /** What a restore would do now: the chosen checkpoint, its fallbacks, the rejected ones with reasons. Only reads. */
    readonly plan: (runId: string, options?: PlanOptions) => Effect.Effect<Restore.Plan, RecoveryError>
    /** Restores a run onto a fresh model that lives in the caller's scope, by the policy's tries and waits. */
    readonly recoverRun: (
      runId: string,
      options?: RecoverOptions
    ) => Effect.Effect<Recovered, RecoveryError, Scope.Scope>
    /** Loads one named checkpoint, of whatever run, onto a fresh model in the caller's scope. */
    readonly recoverFromCheckpoint: (
      path: string,
      options?: { readonly restoreOptimizer?: boolean | undefined }
    ) => Effect.Effect<
      { readonly client: TrainingClient; readonly path: string; readonly runId: string },
      RecoveryError,
      Scope.Scope
    >
    /** What happens from now on. A reader that falls behind by more than 1024 events loses the oldest; `n` shows the gap. */
    readonly events: Stream.Stream<RecoveryEvent>
    /** The runs that this layer has heard of, other than those of a trainer. */
    readonly status: Effect.Effect<ReadonlyArray<RunStatus>>
  }
>()("@tinkex/recovery/Recovery") {
  /**
   * Starts the recovery under supervision and, where the policy is enabled, guards every trainer of the program.
   *
   * ```ts ignore
   * run.pipe(Effect.provide(Recovery.layer({ enabled: true })), Effect.provide(Tinker.layerConfig()))
   * ```
   */
  static readonly layer = (
    options?: RecoveryPolicy.RecoveryPolicyOptions
  ): Layer.Layer<Recovery, RecoveryError, ServiceClient | RestClient> => layerOf(RecoveryPolicy.make(options))

  /** The same by the `TINKEX_RECOVERY_*` variables, see `RecoveryPolicy.fromConfig`; `overrides` win over them. */
  static readonly layerConfig = (
    overrides?: RecoveryPolicy.RecoveryPolicyOptions
  ): Layer.Layer<Recovery, RecoveryError, ServiceClient | RestClient> => layerOf(RecoveryPolicy.fromConfig(overrides))
}

const layerOf = (policy: Effect.Effect<RecoveryPolicy.RecoveryPolicy, RecoveryError>) =>
  Layer.effectContext(
    Effect.gen(function* () {
      const checked = yield* policy
      const { guard, service } = yield* make(checked)
      const context = Context.make(Recovery, service)
      return checked.enabled ? Context.add(context, RunGuard, Option.some(guard)) : context
    })
  )
