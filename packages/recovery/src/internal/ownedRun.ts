import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { QueueState } from "@tinkex/tinker/ApiFuture"
import { RestClient, type WeightsInfo } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type { TrainingRun } from "@tinkex/tinker/TrainingRun"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import * as Restore from "@tinkex/training/Restore"
import type { Incident, Progress } from "../Executor.ts"
import { make as refuse, NoCheckpoint, NoProgress, type RecoveryError } from "../RecoveryError.ts"
import type { MetricsOf, StepOf } from "../WatchedRun.ts"
import type { Claim } from "./claim.ts"
import * as Failures from "./failures.ts"

/** A run whose loop is somebody else's: what is known of it is what the service lists and what its owner tells. */
export interface OwnedRun {
  /** The training runs that carried it, oldest first; the last one is the current one. */
  lineage: ReadonlyArray<string>
  /** For each of them the checkpoint that it began from, where it is known. */
  origins: ReadonlyArray<string | null>
  /** Checkpoints that are not to be tried any more, and why. */
  refused: ReadonlyMap<string, string>
  /** The place in the sequence of the current client at which its owner got it. */
  handedAt?: number | undefined
  stepOf?: StepOf | undefined
  metricsOf?: MetricsOf | undefined
}

// most of a hundred thousand runs never fail: they share what they do not use
const noOrigin: ReadonlyArray<null> = [null]
const noneRefused: ReadonlyMap<string, string> = new Map()

export const make = (runId: string): OwnedRun => ({
  lineage: [runId],
  origins: noOrigin,
  refused: noneRefused,
  handedAt: undefined,
  stepOf: undefined,
  metricsOf: undefined
})

/** A checkpoint is not to be tried any more. What was said of it first stands. */
export const setAside = (run: OwnedRun, path: string, why: string): void => {
  if (!run.refused.has(path)) run.refused = new Map(run.refused).set(path, why)
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

/** Why a checkpoint cannot carry a run of this shape. */
const mismatch = (run: TrainingRun, info: WeightsInfo): string | undefined => {
  if (!info.isLora) return "it is not a LoRA checkpoint"
  if (info.baseModel !== run.baseModel) return `it is of base model ${info.baseModel}, the run of ${run.baseModel}`
  const [found, wanted] = [Option.getOrUndefined(info.loraRank), Option.getOrUndefined(run.loraRank)]
  return wanted !== undefined && found !== wanted ? `it has rank ${found ?? "none"}, the run ${wanted}` : undefined
}

interface PlanOptions {
  readonly incident: string
  readonly strategy: CheckpointSelector.Strategy
  /** Steps that the loop has seen the results of. */
  readonly committed?: number | undefined
  /** The newest time, by the service's clock, at which the run is known to have been well; in milliseconds since 1970. */
  readonly wellUntil?: number | undefined
  /** The run as the service describes it; read where it is not given. */
  readonly known?: TrainingRun | undefined
}

/**
 * What a restore would do now. Only reads: the lists of the run's attempts, and the description of the checkpoint that would be
 * used, until one fits the run.
 */
export const plan = Effect.fnUntraced(function* (
  services: Services,
  run: OwnedRun,
  options: PlanOptions
): Effect.fn.Return<Restore.Plan, TinkerError> {
  const { committed, wellUntil } = options
  const { rest } = services
  const known = options.known ?? (yield* rest.getTrainingRun(current(run)))
  const stepOf: StepOf = (checkpoint) =>
    Option.filter(run.stepOf?.(checkpoint) ?? Option.none(), (step) => Number.isInteger(step) && step >= 0)
  const listed = yield* Effect.forEach(run.lineage, (runId) =>
    Restore.candidates(runId, stepOf, run.metricsOf).pipe(
      // an old attempt may have been deleted with all that it saved
      Effect.catchIf(
        ({ reason }) => reason._tag === "NotFound" && runId !== current(run),
        () => Effect.succeed([])
      )
    )
  ).pipe(provide(services))
  const unfit = new Map<string, string>()
  const fits = new Set<string>()
  const judged = (candidate: CheckpointSelector.Candidate): CheckpointSelector.Candidate => {
    const why = unfit.get(candidate.path)
    return why === undefined ? candidate : { ...candidate, unfit: why }
  }
  const now = yield* DateTime.now
  while (true) {
    const decided = Restore.plan({
      run: current(run),
      trainingRunId: Option.some(current(run)),
      incident: Option.some(options.incident),
      candidates: listed.flat().map(judged),
      quarantined: run.refused,
      strategy: options.strategy,
      committed: committed ?? 0,
      baseAllowed: false,
      now,
      wellUntil: wellUntil === undefined ? undefined : DateTime.makeUnsafe(wellUntil)
    })
    const chosen = Option.getOrUndefined(decided.chosen)
    if (chosen === undefined || fits.has(chosen.path)) {
      return committed === undefined ? { ...decided, replay: Option.none() } : decided
    }
    const why = yield* rest.weightsInfo(chosen.path).pipe(
      Effect.map((info) => mismatch(known, info)),
      Effect.catchIf(
        ({ reason }) => reason._tag === "NotFound" || reason._tag === "BadRequest",
        () => Effect.succeed("the service does not know it")
      )
    )
    if (why === undefined) fits.add(chosen.path)
    else unfit.set(chosen.path, why)
  }
})

const isNewer = (a: CheckpointSelector.Candidate, b: CheckpointSelector.Candidate): boolean =>
  Option.isSome(a.step) && Option.isSome(b.step)
    ? a.step.value > b.step.value
    : Option.isSome(a.savedAt) &&
      Option.isSome(b.savedAt) &&
      a.savedAt.value.epochMilliseconds > b.savedAt.value.epochMilliseconds

/** One checkpoint into a fresh model, in a scope of its own below the owner's; the scope is closed if it does not work out. */
export const load = Effect.fnUntraced(function* <E = never>(
  services: Services,
  path: string,
  options: {
    readonly optimizer: boolean
    readonly scope: Scope.Scope
    readonly userMetadata: Record<string, string>
    readonly onCreated: (client: TrainingClient) => Effect.Effect<void, E>
    readonly onQueueState: (state: QueueState) => Effect.Effect<void>
    /** Part of the load: where it fails, the model is unloaded again. */
    readonly onLoaded?: ((client: TrainingClient) => Effect.Effect<void, E>) | undefined
  }
) {
  const own = yield* Scope.fork(options.scope)
  return yield* Restore.fromCheckpoint(path, {
    optimizer: options.optimizer,
    userMetadata: options.userMetadata,
    onCreated: options.onCreated,
    onQueueState: options.onQueueState
  }).pipe(
    Effect.tap((client) =>
      Effect.onExit(options.onLoaded?.(client) ?? Effect.void, (exit) =>
        Exit.isSuccess(exit) ? Effect.void : Restore.abandon(client)
      )
    ),
    Scope.provide(own),
    provide(services),
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(own, exit)))
  )
})

/** A model fails at its first steps if it fails before so many operations. */
const firstSteps = 4
/** So many attempts in a row that save nothing end a run. */
const fruitless = 3

const isOf = (path: string, trainingRunId: string | undefined): boolean => Restore.runOf(path) === trainingRunId

/** Attempts in a row, the current one last, that began from a checkpoint and saved none; those of a bad checkpoint do not count. */
const withoutProgress = ({ lineage, origins, refused }: OwnedRun): number => {
  let count = 0
  for (let i = lineage.length - 1; i > 0; i--) {
    const origin = origins[i]
    if (origin == null) break
    if (!refused.has(origin)) count++
    if (isOf(origin, lineage[i - 1])) break
  }
  return count
}

/**
 * One try: everything is read anew, then the usable checkpoints are tried in their order until one loads. A bad one is set
 * aside for good; whatever else goes wrong ends the try.
 */
export const restore = Effect.fnUntraced(function* (
  services: Services,
  run: OwnedRun,
  options: {
    readonly incident: Incident
    readonly strategy: CheckpointSelector.Strategy
    readonly optimizer: boolean
    readonly scope: Scope.Scope
    readonly fence: Option.Option<TrainingClient>
    readonly claim: Claim | undefined
    readonly report: (progress: Progress) => Effect.Effect<void>
  }
): Effect.fn.Return<Restored, RecoveryError> {
  const { claim, incident, report } = options
  const runId = current(run)
  const failed = (error: TinkerError) => Failures.fromTinker(runId, error)
  const quarantined: Array<string> = []
  const reject = (path: string, why: string) =>
    Effect.suspend(() => {
      if (run.refused.has(path)) return Effect.void
      setAside(run, path, why)
      return claim?.quarantine(path, why) ?? Effect.void
    })
  const quarantine = (path: string, why: string) => {
    quarantined.push(path)
    return Effect.andThen(reject(path, why), report({ _tag: "Quarantined", path, why }))
  }
  if (Option.isSome(options.fence)) {
    yield* options.fence.value.fence(`its run is being restored (${incident.id})`)
    yield* report({ _tag: "Fenced" })
  }
  const known = yield* services.rest.getTrainingRun(runId).pipe(Effect.mapError(failed))
  const listed = yield* plan(services, run, {
    ...options,
    incident: incident.id,
    known,
    wellUntil: known.corrupted ? incident.wellUntil : undefined
  }).pipe(Effect.mapError(failed))

  // flagged at its first steps and nothing saved since: what it was loaded from is to blame; the last one gets a second try
  const usable = [...Option.toArray(listed.chosen), ...listed.fallbacks]
  const origin = run.origins.at(-1)
  const began = run.handedAt
  const sent =
    Option.isSome(options.fence) && began !== undefined ? (yield* options.fence.value.nextSeq) - began : undefined
  const toBlame =
    known.corrupted &&
    origin != null &&
    sent !== undefined &&
    sent > 0 &&
    sent <= firstSteps &&
    !run.refused.has(origin) &&
    (usable.some(({ path }) => path !== origin) || run.origins.filter((path) => path === origin).length > 1) &&
    !usable.some(({ path }) => isOf(path, runId))
  if (toBlame) yield* quarantine(origin, "the run that was restored from it was flagged at its first steps")
  const order = usable.filter(({ path }) => !run.refused.has(path))

  const [first] = order
  const attempts = withoutProgress(run)
  if (first !== undefined && incident.cause !== "requested" && attempts >= fruitless && !isOf(first.path, runId)) {
    return yield* refuse(new NoProgress({ runId, attempts, path: first.path }))
  }
  const rejected = listed.rejected.map(({ candidate, reason }) => ({ path: candidate.path, reason }))
  for (const candidate of order) {
    yield* report({
      _tag: "CheckpointSelected",
      path: candidate.path,
      step: Option.getOrNull(candidate.step),
      rejected: rejected.length + quarantined.length
    })
    if (claim !== undefined) yield* claim.begin(candidate.path, candidate.step)
    const loaded = yield* load<RecoveryError>(services, candidate.path, {
      ...options,
      userMetadata: {
        ...Option.getOrElse(known.userMetadata, () => ({})),
        "tinkex.recovered_from": runId,
        "tinkex.incident": incident.id
      },
      onCreated: (client) =>
        Effect.andThen(
          claim?.created(client) ?? Effect.void,
          report({ _tag: "ClientCreated", trainingRunId: client.modelId })
        ),
      onQueueState: (state) => report({ _tag: "QueueState", state }),
      onLoaded: (client) => claim?.started(client) ?? Effect.void
    }).pipe(Effect.result)
    if (loaded._tag === "Success") {
      const newer = [...order, ...listed.rejected.map(({ candidate }) => candidate)].filter((other) =>
        isNewer(other, candidate)
      )
      for (const { path } of newer) {
        yield* reject(path, `newer than ${candidate.path}, which the run went on from`)
      }
      const { modelId } = loaded.success
      yield* report({ _tag: "Resumed", trainingRunId: modelId, step: Option.getOrNull(candidate.step) })
      return { client: loaded.success, checkpoint: candidate, quarantined }
    }
    const { failure } = loaded
    if (failure._tag === "RecoveryError") return yield* failure
    if (failure._tag === "TinkerError") return yield* Failures.fromTinker(runId, failure, true)
    yield* quarantine(failure.path, failure.why)
  }
  const tried = quarantined.map((path) => ({ path, reason: run.refused.get(path) ?? "it is bad" }))
  return yield* refuse(new NoCheckpoint({ runId, rejected: [...tried, ...rejected] }))
})
