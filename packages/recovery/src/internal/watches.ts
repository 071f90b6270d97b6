import { createHash } from "node:crypto"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import type { IncidentCause } from "@tinkex/training/RunGuard"
import type { Journal } from "@tinkex/training/Journal"
import * as Restore from "@tinkex/training/Restore"
import * as Executor from "../Executor.ts"
import type * as Monitor from "../Monitor.ts"
import { make as refuse, NotRecoverable, type RecoveryError } from "../RecoveryError.ts"
import type { Cause as IncidentReason, Source } from "../RecoveryEvent.ts"
import type { RecoveryPolicy } from "../RecoveryPolicy.ts"
import type { Recovered, RunStatus, WatchOptions } from "../WatchedRun.ts"
import * as Claim from "./claim.ts"
import type { EventLog } from "./eventLog.ts"
import * as OwnedRun from "./ownedRun.ts"
import { uptime } from "./uptime.ts"

export interface Watch {
  readonly options: WatchOptions
  readonly scope: Scope.Scope
}

export interface Tracked {
  readonly run: OwnedRun.OwnedRun
  /** Of its journal, where it has one of its own. */
  name: string | undefined
  phase: RunStatus["phase"]
  watch: Watch | undefined
  client: TrainingClient | undefined
  target: Monitor.Target | undefined
}

/** An incident's id is a function of what failed: two observers make the same one. */
export const idOf = (failed: string): string => `inc-${createHash("sha256").update(failed).digest("hex").slice(0, 10)}`

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

/** Ends of a recovery that are not the end of its run. */
const notTheEnd = new Set(["Cancelled", "OwnedElsewhere", "JournalFailed"])

/** The runs of those who own their loop: who watches them, how they stand, and what their failure sets off. */
export const make = Effect.fnUntraced(function* (
  standard: RecoveryPolicy,
  log: EventLog,
  monitor: Monitor.Monitor,
  executor: Executor.Executor,
  services: OwnedRun.Services,
  journal: Option.Option<Journal["Service"]>
) {
  const background = yield* FiberSet.make<void>()
  const runs = new Map<string, Tracked>()

  const current = ({ run }: Tracked): string => run.lineage.at(-1) ?? ""

  /** The policy of a run: that of its watch, or the layer's. */
  const policyOf = ({ watch }: Tracked): RecoveryPolicy => watch?.options.policy ?? standard

  const nameOf = ({ name, run }: Tracked): string => name ?? Claim.nameOf(run.lineage[0] ?? "")

  const track = (runId: string): Tracked => {
    const known = runs.get(runId)
    if (known !== undefined) return known
    const tracked: Tracked = {
      run: OwnedRun.make(runId),
      name: undefined,
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
      const began = yield* uptime
      const { callbackLimit } = policyOf(tracked)
      const tell = (detail: string) =>
        Effect.flatMap(uptime, (now) =>
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
        Effect.timeoutOption(callbackLimit),
        Effect.flatMap((done) =>
          Option.isSome(done) ? Effect.void : tell(`it took longer than ${Duration.format(callbackLimit)}`)
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
      lastSeenWell: Option.map(sighting, ({ seenWell }) => seenWell),
      wellUntil: Option.getOrUndefined(Option.map(sighting, ({ wellUntil }) => wellUntil))
    }
  })

  /** Takes over what the journal knows of a run. */
  const learn = Effect.fnUntraced(function* (tracked: Tracked, known: Claim.Known) {
    const { run } = tracked
    for (const [path, why] of known.refused) OwnedRun.setAside(run, path, why)
    const before = current(tracked)
    const newest = known.lineage.at(-1)
    // a journal that ends before this attempt was written by somebody who did not know of it
    if (newest === undefined || newest === before || !known.lineage.includes(before)) return
    run.lineage = known.lineage
    run.origins = known.origins
    run.handedAt = undefined
    tracked.client = undefined
    for (const runId of known.lineage) runs.set(runId, tracked)
    yield* log.emit({
      _tag: "superseded",
      run: run.lineage[0] ?? before,
      trainingRunId: before,
      attempt: null,
      incident: null,
      try: 0,
      duration: null,
      newTrainingRunId: newest
    })
  })

  /** Models that somebody made for this run and never used. Whether the service still has them is not our concern. */
  const sweepUp = (known: Claim.Known) =>
    Effect.forEach(
      known.leaked,
      ({ sessionId, trainingRunId }) =>
        services.service.attachTrainingClient({ modelId: trainingRunId, sessionId, nextSeq: 1 }).pipe(
          Effect.flatMap(Restore.abandon),
          Effect.scoped,
          Effect.timeoutOption("20 seconds"),
          Effect.catchCause((cause) =>
            Cause.hasInterruptsOnly(cause)
              ? Effect.interrupt
              : Effect.logDebug(`The unused model ${trainingRunId} was not unloaded`, cause)
          )
        ),
      { discard: true }
    )

  const stopSweeping = (tracked: Tracked) => {
    const { target } = tracked
    tracked.target = undefined
    return target === undefined ? Effect.void : monitor.remove(target)
  }

  // a class, so that a hundred thousand of them share their functions
  class WatchTarget implements Monitor.Target {
    readonly attempt = null
    readonly #tracked: Tracked
    readonly trainingRunId: string
    constructor(tracked: Tracked, trainingRunId: string) {
      this.#tracked = tracked
      this.trainingRunId = trainingRunId
    }
    get run() {
      return this.#tracked.run.lineage[0] ?? this.trainingRunId
    }
    onFlag(detail: string) {
      return failed(this.#tracked, this.trainingRunId, "poisoned", detail, "sweep")
    }
    onStall(detail: string) {
      return failed(this.#tracked, this.trainingRunId, "stalled", detail, "sweep")
    }
  }

  const watchesOf = new WeakMap<Scope.Scope, Set<Tracked>>()

  /** Ends the watch with its scope: with one finalizer for all watches of a scope. */
  const endWith = (scope: Scope.Scope, tracked: Tracked) =>
    Effect.suspend(() => {
      const known = watchesOf.get(scope)
      if (known !== undefined) {
        known.add(tracked)
        return Effect.void
      }
      const all = new Set([tracked])
      watchesOf.set(scope, all)
      const ours = () => [...all].filter(({ watch }) => watch?.scope === scope)
      return Scope.addFinalizer(
        scope,
        Effect.suspend(() =>
          Effect.forEach(ours(), (one) => release(one, "the scope of its watch was closed"), {
            concurrency: "unbounded",
            discard: true
          })
        )
      )
    })

  /** Has the current attempt of a watched run looked after, by sweep and through its client. */
  const lookAfter = Effect.fnUntraced(function* (tracked: Tracked, watch: Watch) {
    const runId = current(tracked)
    tracked.phase = "watched"
    const target = new WatchTarget(tracked, runId)
    yield* stopSweeping(tracked)
    tracked.target = target
    yield* monitor.add(target)
    const { client } = tracked
    if (client === undefined) return
    yield* client.queueState.pipe(
      Stream.runForEach((state) => monitor.noteQueue(runId, state)),
      Effect.forkIn(watch.scope)
    )
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
    if (!standard.enabled) {
      tracked.phase = "reported"
      return yield* Executor.announce(log, incident)
    }
    tracked.phase = "recovering"
    const refusal = refuse(new NotRecoverable({ runId, cause, detail }))
    const policy = policyOf(tracked)
    const options = { optimizer: policy.restoreOptimizer, strategy: watch.options.strategy ?? policy.strategy }
    yield* inBackground(
      whenOurs(tracked, watch, recover(tracked, incident, watch.scope, options, userFault ? refusal : undefined)).pipe(
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
            if (recovered === undefined || onRecovered === undefined) return Effect.void
            return callBack(tracked, { runId, incident: incident.id }, "onRecovered", () => onRecovered(recovered))
          }
        })
      )
    )
  })

  /** While another process recovers the run this one waits, and then follows what it finds; nothing is recovered twice. */
  const whenOurs = Effect.fnUntraced(function* (
    tracked: Tracked,
    watch: Watch,
    recovery: Effect.Effect<Recovered | undefined, RecoveryError>
  ): Effect.fn.Return<Recovered | undefined, RecoveryError> {
    const policy = policyOf(tracked)
    const patience = Duration.sum(Duration.times(policy.attemptDeadline, policy.maxAttempts), policy.pauseLimit)
    const until = (yield* uptime) + Duration.toMillis(patience)
    while (true) {
      const ended = yield* Effect.result(recovery)
      if (ended._tag === "Success") return ended.success
      const { failure } = ended
      if (failure.reason._tag !== "OwnedElsewhere" || (yield* uptime) >= until) return yield* failure
      yield* Effect.sleep(policy.baseDelay)
      if (tracked.watch !== watch) return undefined
    }
  })

  /** Restores the current attempt. Nothing comes back where another process turns out to have done it. */
  const recover = (
    tracked: Tracked,
    incident: Executor.Incident,
    scope: Scope.Scope,
    options: { readonly strategy: CheckpointSelector.Strategy; readonly optimizer: boolean },
    refusal?: RecoveryError
  ): Effect.Effect<Recovered | undefined, RecoveryError> =>
    Effect.scoped(
      Effect.gen(function* () {
        const claim = Option.isNone(journal)
          ? undefined
          : yield* Claim.take(journal.value, nameOf(tracked), tracked.run.lineage)
        if (claim !== undefined) {
          yield* learn(tracked, claim.known)
          if (current(tracked) !== incident.trainingRunId) {
            tracked.phase = "idle"
            if (tracked.watch !== undefined) yield* lookAfter(tracked, tracked.watch)
            return undefined
          }
          const { ended } = claim.known
          if (ended !== undefined && incident.cause !== "requested") {
            const { cause, trainingRunId } = incident
            return yield* refuse(new NotRecoverable({ runId: trainingRunId, cause, detail: ended }))
          }
          yield* claim.opened(incident)
          yield* inBackground(sweepUp(claim.known))
        }
        return yield* recoverClaimed(tracked, incident, scope, { ...options, claim }, refusal).pipe(
          Effect.tapError((error) =>
            // what somebody asked for and did not get says nothing of what a later incident may get
            claim === undefined ||
            error.isRetryable ||
            incident.cause === "requested" ||
            notTheEnd.has(error.reason._tag)
              ? Effect.void
              : Effect.catch(claim.ended(error), (problem) => Effect.logWarning(problem.message))
          )
        )
      })
    )

  const recoverClaimed = (
    tracked: Tracked,
    incident: Executor.Incident,
    scope: Scope.Scope,
    options: {
      readonly strategy: CheckpointSelector.Strategy
      readonly optimizer: boolean
      readonly claim: Claim.Claim | undefined
    },
    refusal?: RecoveryError
  ): Effect.Effect<Recovered, RecoveryError> => {
    const previous = { runId: incident.trainingRunId, client: Option.fromNullishOr(tracked.client) }
    const bad = new Set<string>()
    return executor
      .recover({
        incident,
        policy: policyOf(tracked),
        restore: (report) =>
          refusal === undefined
            ? OwnedRun.restore(services, tracked.run, {
                ...options,
                incident,
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
            tracked.run.lineage = [...tracked.run.lineage, client.modelId]
            tracked.run.origins = [...tracked.run.origins, checkpoint.path]
            tracked.run.handedAt = yield* client.nextSeq
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

  /** Goes on where a process that died left the run. */
  const takeUp = Effect.fnUntraced(function* (tracked: Tracked) {
    if (Option.isNone(journal)) return
    const known = yield* Claim.read(journal.value, nameOf(tracked), current(tracked))
    if (Option.isNone(known) || tracked.watch === undefined || tracked.phase !== "watched") return
    const before = current(tracked)
    yield* learn(tracked, known.value)
    if (current(tracked) !== before) yield* lookAfter(tracked, tracked.watch)
    const { open } = known.value
    if (open === undefined) return
    const detail = `${open.detail} (found in the journal)`
    yield* failed(tracked, current(tracked), open.cause, detail, "journal")
  })

  const release = Effect.fnUntraced(function* (tracked: Tracked, why: string) {
    if (tracked.watch !== undefined) watchesOf.get(tracked.watch.scope)?.delete(tracked)
    tracked.watch = undefined
    tracked.phase = "idle"
    yield* stopSweeping(tracked)
    yield* executor.cancel(current(tracked), why)
  })

  return { runs, track, current, policyOf, endWith, lookAfter, openIncident, recover, release, takeUp, inBackground }
})
