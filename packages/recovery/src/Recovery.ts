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
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import * as Restore from "@tinkex/training/Restore"
import { RunGuard } from "@tinkex/training/RunGuard"
import * as Executor from "./Executor.ts"
import * as EventLog from "./internal/eventLog.ts"
import * as Failures from "./internal/failures.ts"
import * as Guard from "./internal/guard.ts"
import * as OwnedRun from "./internal/ownedRun.ts"
import * as Tree from "./internal/tree.ts"
import * as Watches from "./internal/watches.ts"
import * as Monitor from "./Monitor.ts"
import { AlreadyRecovering, CheckpointRefused, make as refuse, type RecoveryError } from "./RecoveryError.ts"
import type { RecoveryEvent } from "./RecoveryEvent.ts"
import * as RecoveryPolicy from "./RecoveryPolicy.ts"
import type { Recovered, RunStatus, StepOf, WatchOptions } from "./WatchedRun.ts"

export interface PlanOptions {
  /** Default: that of the watch, else the policy's. */
  readonly strategy?: CheckpointSelector.Strategy | undefined
  /** Default: that of the watch, if there is one. */
  readonly stepOf?: StepOf | undefined
  /** Steps that the loop has seen the results of; with it the plan says which would be computed again. */
  readonly committed?: number | undefined
}

export interface RecoverOptions extends Omit<PlanOptions, "committed"> {
  /** Default: the policy's. */
  readonly restoreOptimizer?: boolean | undefined
}

const make = Effect.fnUntraced(function* (policy: RecoveryPolicy.RecoveryPolicy) {
  const services: OwnedRun.Services = { rest: yield* RestClient, service: yield* ServiceClient }
  const log = yield* EventLog.make
  const monitor = yield* Monitor.make(policy, log, services.rest)
  const tree = yield* Effect.orDie(Tree.start(monitor.run))
  const executor = Executor.make(policy, log, tree.refs.executor, monitor.outage)
  const watches = yield* Watches.make(policy, log, monitor, executor, services)
  const { current, lookAfter, openIncident, recover, release, runs, track } = watches

  const watch = Effect.fn("Recovery.watch")(function* (
    options: WatchOptions
  ): Effect.fn.Return<void, never, Scope.Scope> {
    const scope = yield* Effect.scope
    const tracked = track(options.runId)
    const watch: Watches.Watch = { options, scope }
    tracked.watch = watch
    if (options.stepOf !== undefined) tracked.run.stepOf = options.stepOf
    if (options.client !== undefined && options.client.modelId === current(tracked)) tracked.client = options.client
    yield* Effect.addFinalizer(() =>
      tracked.watch === watch ? release(tracked, "the scope of its watch was closed") : Effect.void
    )
    if (tracked.phase !== "recovering") yield* lookAfter(tracked, watch)
  })

  const plan = Effect.fn("Recovery.plan")(function* (runId: string, options: PlanOptions = {}) {
    const tracked: Watches.Tracked | undefined = runs.get(runId)
    const run: OwnedRun.OwnedRun = tracked?.run ?? { lineage: [runId], refused: new Map() }
    return yield* OwnedRun.plan(
      services,
      { ...run, stepOf: options.stepOf ?? run.stepOf },
      {
        incident: Watches.idOf(run.lineage.at(-1) ?? runId),
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
    const id = Watches.idOf(path)
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
