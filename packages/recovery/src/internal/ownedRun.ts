import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { RestClient } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import * as Restore from "@tinkex/training/Restore"
import type { Progress } from "../Executor.ts"
import { make as refuse, NoCheckpoint, type RecoveryError } from "../RecoveryError.ts"
import type { StepOf } from "../WatchedRun.ts"
import * as Failures from "./failures.ts"

/** A run whose loop is somebody else's: what is known of it is what the service lists and what its owner tells. */
export interface OwnedRun {
  /** The training runs that carried it, oldest first; the last one is the current one. */
  readonly lineage: Array<string>
  /** Checkpoints that are not to be tried any more, and why. */
  readonly refused: Map<string, string>
  stepOf?: StepOf | undefined
}

/** What a restore gave. */
export interface Restored {
  readonly client: TrainingClient
  readonly checkpoint: CheckpointSelector.Candidate
  readonly quarantined: ReadonlyArray<string>
}

export interface Services {
  readonly rest: RestClient["Service"]
  readonly service: ServiceClient["Service"]
}

const current = (run: OwnedRun): string => run.lineage.at(-1) ?? ""

const provide =
  ({ rest, service }: Services) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(Effect.provideService(RestClient, rest), Effect.provideService(ServiceClient, service))

/** What a restore would do now. Only reads. */
export const plan = Effect.fnUntraced(function* (
  services: Services,
  run: OwnedRun,
  options: {
    readonly incident: string
    readonly strategy: CheckpointSelector.Strategy
    /** Steps that the loop has seen the results of. */
    readonly committed?: number | undefined
  }
): Effect.fn.Return<Restore.Plan, TinkerError> {
  const { committed } = options
  const stepOf: StepOf = (checkpoint) =>
    Option.filter(run.stepOf?.(checkpoint) ?? Option.none(), (step) => Number.isInteger(step) && step >= 0)
  const listed = yield* Effect.forEach(run.lineage, (runId) => Restore.candidates(runId, stepOf)).pipe(
    provide(services)
  )
  const decided = Restore.plan({
    run: current(run),
    trainingRunId: Option.some(current(run)),
    incident: Option.some(options.incident),
    candidates: listed.flat(),
    quarantined: run.refused,
    strategy: options.strategy,
    committed: committed ?? 0,
    baseAllowed: false,
    now: yield* DateTime.now
  })
  return committed === undefined ? { ...decided, replay: Option.none() } : decided
})

const isNewer = (a: CheckpointSelector.Candidate, b: CheckpointSelector.Candidate): boolean =>
  Option.isSome(a.step) && Option.isSome(b.step)
    ? a.step.value > b.step.value
    : Option.isSome(a.savedAt) &&
      Option.isSome(b.savedAt) &&
      a.savedAt.value.epochMilliseconds > b.savedAt.value.epochMilliseconds

/** One checkpoint into a fresh model, in a scope of its own below the owner's; the scope is closed if it does not work out. */
export const load = Effect.fnUntraced(function* (
  services: Services,
  path: string,
  options: {
    readonly optimizer: boolean
    readonly scope: Scope.Scope
    readonly userMetadata: Record<string, string>
    readonly report: (progress: Progress) => Effect.Effect<void>
  }
) {
  const own = yield* Scope.fork(options.scope)
  return yield* Restore.fromCheckpoint(path, {
    optimizer: options.optimizer,
    userMetadata: options.userMetadata,
    onCreated: (client) => options.report({ _tag: "ClientCreated", trainingRunId: client.modelId })
  }).pipe(
    Scope.provide(own),
    provide(services),
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(own, exit)))
  )
})

/**
 * One try: everything is read anew, then the usable checkpoints are tried in their order until one loads. A bad one is set
 * aside for good; whatever else goes wrong ends the try.
 */
export const restore = Effect.fnUntraced(function* (
  services: Services,
  run: OwnedRun,
  options: {
    readonly incident: string
    readonly strategy: CheckpointSelector.Strategy
    readonly optimizer: boolean
    readonly scope: Scope.Scope
    readonly fence: Option.Option<TrainingClient>
    readonly report: (progress: Progress) => Effect.Effect<void>
  }
): Effect.fn.Return<Restored, RecoveryError> {
  const { report } = options
  const runId = current(run)
  const failed = (error: TinkerError) => Failures.fromTinker(runId, error)
  if (Option.isSome(options.fence)) {
    yield* options.fence.value.fence(`its run is being restored (${options.incident})`)
    yield* report({ _tag: "Fenced" })
  }
  const known = yield* services.rest.getTrainingRun(runId).pipe(Effect.mapError(failed))
  const decided = yield* plan(services, run, options).pipe(Effect.mapError(failed))
  const order = [...Option.toArray(decided.chosen), ...decided.fallbacks]
  const rejected = decided.rejected.map(({ candidate, reason }) => ({ path: candidate.path, reason }))
  const quarantined: Array<string> = []
  for (const candidate of order) {
    yield* report({
      _tag: "CheckpointSelected",
      path: candidate.path,
      step: Option.getOrNull(candidate.step),
      rejected: rejected.length
    })
    const loaded = yield* load(services, candidate.path, {
      ...options,
      userMetadata: {
        ...Option.getOrElse(known.userMetadata, () => ({})),
        "tinkex.recovered_from": runId,
        "tinkex.incident": options.incident
      }
    }).pipe(Effect.result)
    if (loaded._tag === "Success") {
      const newer = [...order, ...decided.rejected.map(({ candidate }) => candidate)].filter((other) =>
        isNewer(other, candidate)
      )
      for (const { path } of newer) {
        if (!run.refused.has(path)) run.refused.set(path, `newer than ${candidate.path}, which the run went on from`)
      }
      const { modelId } = loaded.success
      yield* report({ _tag: "Resumed", trainingRunId: modelId, step: Option.getOrNull(candidate.step) })
      return { client: loaded.success, checkpoint: candidate, quarantined }
    }
    if (loaded.failure._tag === "TinkerError") return yield* Failures.fromTinker(runId, loaded.failure, true)
    const { path, why } = loaded.failure
    run.refused.set(path, why)
    quarantined.push(path)
    rejected.push({ path, reason: why })
    yield* report({ _tag: "Quarantined", path, why })
  }
  return yield* refuse(new NoCheckpoint({ runId, rejected }))
})
