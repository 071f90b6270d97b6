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
 * - **R8** a checkpoint saved after the run was last seen well is tried last (F53); a run that fails three times without a new
 *   checkpoint ends as `NoProgress`;
 * - **R9** where the program has a `Journal`, one process recovers a run and all others that watch it by the same name follow; a
 *   writer that lost the run is refused before it makes a model, and a process that died in the middle of a recovery goes on with it.
 *
 * What it does not promise: that the loop of an owner who ignores a fence stops, that a checkpoint saved while the backend
 * was already failing is sound (one that loads and is not flagged right after is taken), or, without a shared `Journal`,
 * anything across processes: what it knows of owned runs is then in memory.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import { Telemetry } from "@tinkex/tinker/Telemetry"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import { Journal } from "@tinkex/training/Journal"
import * as Restore from "@tinkex/training/Restore"
import { RunGuard } from "@tinkex/training/RunGuard"
import * as Executor from "./Executor.ts"
import type { Health } from "./Health.ts"
import * as EventLog from "./internal/eventLog.ts"
import * as Failures from "./internal/failures.ts"
import * as Forwarding from "./internal/forwarding.ts"
import * as Guard from "./internal/guard.ts"
import * as JournaledRun from "./internal/journaledRun.ts"
import * as OwnedRun from "./internal/ownedRun.ts"
import * as Tree from "./internal/tree.ts"
import { uptime } from "./internal/uptime.ts"
import * as Watches from "./internal/watches.ts"
import * as Monitor from "./Monitor.ts"
import { AlreadyRecovering, CheckpointRefused, make as refuse, type RecoveryError } from "./RecoveryError.ts"
import type { RecoveryEvent } from "./RecoveryEvent.ts"
import * as RecoveryPolicy from "./RecoveryPolicy.ts"
import type { MetricsOf, Recovered, RunStatus, StepOf, WatchOptions } from "./WatchedRun.ts"

export interface PlanOptions {
  /** Default: that of the watch, else the policy's. */
  readonly strategy?: CheckpointSelector.Strategy | undefined
  /** Default: that of the watch, if there is one. */
  readonly stepOf?: StepOf | undefined
  /** Default: that of the watch, if there is one. */
  readonly metricsOf?: MetricsOf | undefined
  /** Steps that the loop has seen the results of; with it the plan says which would be computed again. */
  readonly committed?: number | undefined
}

export interface RecoverOptions extends Omit<PlanOptions, "committed"> {
  /** Default: the policy's. */
  readonly restoreOptimizer?: boolean | undefined
}

export interface ShutdownOptions {
  /** For everything together. Default 30 seconds. */
  readonly limit?: Duration.Input | undefined
  /** Done for every watched run whose client is known and whose recovery does not go on; for example a last save. */
  readonly save?:
    | ((run: { readonly runId: string; readonly client: TrainingClient }) => Effect.Effect<unknown, unknown>)
    | undefined
}

/** What a shutdown came to. */
export interface ShutdownReport {
  /** Failed runs whose recovery was cut off. They can be recovered by whoever comes next. */
  readonly cancelled: ReadonlyArray<string>
  readonly saved: ReadonlyArray<string>
  /** Runs whose save failed or took too long, and why. */
  readonly notSaved: ReadonlyArray<{ readonly runId: string; readonly why: string }>
}

const make = Effect.fnUntraced(function* (policy: RecoveryPolicy.RecoveryPolicy) {
  const services: OwnedRun.Services = { rest: yield* RestClient, service: yield* ServiceClient }
  const log = yield* EventLog.make
  const telemetry = yield* Effect.serviceOption(Telemetry)
  if (Option.isSome(telemetry) && (yield* telemetry.value.isEnabled)) {
    yield* Effect.forkScoped(Forwarding.forward(telemetry.value, log.events), { startImmediately: true })
  }
  const monitor = yield* Monitor.make(policy, log, services.rest)
  const tree = yield* Effect.orDie(Tree.start(monitor.run))
  const executor = Executor.make(policy, log, tree.refs.executor, monitor.outage)
  const journal = yield* Effect.serviceOption(Journal)
  const watches = yield* Watches.make(policy, log, monitor, executor, services, journal)
  const { current, endWith, inBackground, lookAfter, openIncident, policyOf, recover, release, runs, takeUp, track } =
    watches
  const startedAt = yield* uptime
  let shuttingDown = false

  // untraced: the finalizer would keep the span of every one of a hundred thousand watches
  const watch = Effect.fnUntraced(function* (options: WatchOptions): Effect.fn.Return<void, never, Scope.Scope> {
    const scope = yield* Effect.scope
    const tracked = track(options.runId)
    const watch: Watches.Watch = { options, scope }
    tracked.watch = watch
    if (options.name !== undefined) tracked.name = options.name
    if (options.stepOf !== undefined) tracked.run.stepOf = options.stepOf
    if (options.metricsOf !== undefined) tracked.run.metricsOf = options.metricsOf
    if (options.client !== undefined && options.client.modelId === current(tracked)) tracked.client = options.client
    yield* endWith(scope, tracked)
    if (tracked.phase === "recovering") return
    yield* lookAfter(tracked, watch)
    if (Option.isSome(journal)) {
      yield* inBackground(Effect.catch(takeUp(tracked), (error) => Effect.logWarning(error.message)))
    }
  })

  const plan = Effect.fn("Recovery.plan")(function* (runId: string, options: PlanOptions = {}) {
    const tracked: Watches.Tracked | undefined = runs.get(runId)
    const strategy =
      options.strategy ??
      tracked?.watch?.options.strategy ??
      (tracked === undefined ? policy : policyOf(tracked)).strategy
    const trained =
      tracked === undefined && Option.isSome(journal) ? yield* JournaledRun.find(journal.value, runId) : Option.none()
    if (Option.isSome(trained)) {
      return yield* JournaledRun.plan(services.rest, trained.value, strategy).pipe(
        Effect.mapError((error) => Failures.fromTinker(runId, error))
      )
    }
    const run = tracked?.run ?? OwnedRun.make(runId)
    const sighting = yield* monitor.inspect(run.lineage.at(-1) ?? runId)
    return yield* OwnedRun.plan(
      services,
      { ...run, stepOf: options.stepOf ?? run.stepOf, metricsOf: options.metricsOf ?? run.metricsOf },
      {
        wellUntil: Option.getOrUndefined(
          Option.map(sighting, ({ flagged, wellUntil }) => (flagged ? wellUntil : undefined))
        ),
        incident: Watches.idOf(run.lineage.at(-1) ?? runId),
        strategy,
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
    if (tracked.phase === "recovering") {
      const trainingRunId = current(tracked)
      return yield* refuse(new AlreadyRecovering({ runId: trainingRunId, incident: Watches.idOf(trainingRunId) }))
    }
    if (options.stepOf !== undefined) tracked.run.stepOf = options.stepOf
    if (options.metricsOf !== undefined) tracked.run.metricsOf = options.metricsOf
    tracked.phase = "recovering"
    return yield* Effect.gen(function* () {
      // where the journal knows of a newer attempt, that one is the one to recover
      while (true) {
        const incident = yield* openIncident(tracked, "requested", "somebody asked for it", "manual")
        const recovered = yield* recover(tracked, incident, scope, {
          strategy: options.strategy ?? tracked.watch?.options.strategy ?? policyOf(tracked).strategy,
          optimizer: options.restoreOptimizer ?? policyOf(tracked).restoreOptimizer
        })
        if (recovered !== undefined) return recovered
        tracked.phase = "recovering"
      }
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
            onCreated: (client) => report({ _tag: "ClientCreated", trainingRunId: client.modelId }),
            onQueueState: (state) => report({ _tag: "QueueState", state })
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

  const distinct = Effect.sync(() => [...new Set(runs.values())])

  const shutdown = Effect.fn("Recovery.shutdown")(function* (options: ShutdownOptions = {}) {
    shuttingDown = true
    const limit = Duration.toMillis(options.limit ?? "30 seconds")
    const until = (yield* uptime) + limit
    const left = Effect.map(uptime, (now) => Duration.millis(Math.max(0, until - now)))
    const { save } = options
    // a last save must not wait for recoveries of other runs, nor take their time
    const share = save === undefined ? limit : limit / 2
    const cancelled = yield* executor.drain(Duration.millis(share))
    const saved: Array<string> = []
    const notSaved: Array<ShutdownReport["notSaved"][number]> = []
    const saving = (yield* distinct).flatMap((tracked) => {
      const { client, phase } = tracked
      return client === undefined || phase !== "watched" ? [] : [{ runId: current(tracked), client }]
    })
    if (save !== undefined) {
      yield* Effect.forEach(
        saving,
        (run) =>
          Effect.suspend(() => save(run)).pipe(
            Effect.timeoutOption(limit / 2),
            Effect.matchCause({
              onSuccess: (done) =>
                Option.isSome(done)
                  ? saved.push(run.runId)
                  : notSaved.push({ runId: run.runId, why: "it took too long" }),
              onFailure: (cause) =>
                notSaved.push({ runId: run.runId, why: Cause.pretty(cause).split("\n", 1)[0] ?? "" })
            })
          ),
        { concurrency: 16, discard: true }
      ).pipe(Effect.timeoutOption(yield* left))
      const known = new Set([...saved, ...notSaved.map(({ runId }) => runId)])
      for (const { runId } of saving) {
        if (!known.has(runId)) notSaved.push({ runId, why: "there was no time left" })
      }
    }
    const report: ShutdownReport = { cancelled, saved, notSaved }
    return report
  })

  const health = Effect.gen(function* () {
    const now = yield* uptime
    const [watched, swept, standing] = yield* Effect.all([monitor.size, monitor.lastSweep, monitor.outage.current])
    const recovering = (yield* executor.running).length
    const givenUp = (yield* distinct).filter(({ phase }) => phase === "given_up").length
    // five sweeps, and as long as one read may take
    const late = 5 * Duration.toMillis(policy.pollInterval) + 120_000
    const live = watched === 0 || now - Math.max(swept ?? startedAt, startedAt) < late
    const { down } = standing
    const reasons: Array<string> = []
    if (!live) reasons.push(`no sweep has ended for more than ${Duration.format(Duration.millis(late))}`)
    if (down !== undefined) {
      const since = Duration.format(Duration.millis(Math.round(now - down.since)))
      reasons.push(`the service has not answered for ${since} (${down.tag})`)
    }
    if (shuttingDown) reasons.push("it is shutting down")
    const result: Health = {
      live,
      ready: live && down === undefined && !shuttingDown,
      degraded: down !== undefined,
      reasons,
      watched,
      recovering,
      givenUp,
      lastSweep: swept === undefined ? null : Duration.millis(now - swept)
    }
    return result
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
    shutdown,
    health,
    events: log.events,
    status: Effect.map(distinct, (all) =>
      all.map((tracked) => ({
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
    /**
     * What a restore would do now: the chosen checkpoint, its fallbacks, the rejected ones with reasons. Only reads. A run of a
     * trainer, where the program has its journal, may be named by its name, and its plan knows what the journal vouches for.
     */
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
    /**
     * Ends in good order: no recovery begins any more, those that go on may end, then the rest is cancelled and every watched run
     * with a client is saved, if the options say how. Takes no longer than `limit`. The sweeps go on until the layer is closed.
     */
    readonly shutdown: (options?: ShutdownOptions) => Effect.Effect<ShutdownReport>
    /** For probes. */
    readonly health: Effect.Effect<Health>
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
