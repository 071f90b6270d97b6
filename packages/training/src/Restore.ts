/**
 * How a run is brought back: the plan, which is pure, and the restore of one checkpoint onto a fresh model.
 *
 * A live run, a restarted process and somebody who owns the loop all come through here. What it guarantees:
 *
 * - **RS1** a plan reads and never writes;
 * - **RS2** a load is the first request of a model that nobody has used (the server allows nothing else);
 * - **RS3** the shape of the model comes from the server's own description of the checkpoint and, where the run's shape is
 *   known, must agree with it;
 * - **RS4** a checkpoint is called bad (`CheckpointRefused`) only when the server refuses it or the run is flagged right
 *   after the load; a lost connection, a lost session or a busy server never condemns a checkpoint;
 * - **RS5** a model made for a restore that did not work out is unloaded, best effort.
 *
 * What it cannot promise: that loaded numbers are those that were saved. The server says they are; `prove` asks it for a
 * forward pass, which finds a checkpoint that loads and then fails. Where a probe was stored with it (`probe` of the trainer), the
 * same batch must have the same log-probabilities, which finds wrong weights. A cold optimizer shows in neither.
 */
import * as Data from "effect/Data"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ApiFuture, QueueState } from "@tinkex/tinker/ApiFuture"
import * as CheckpointPath from "@tinkex/tinker/CheckpointPath"
import type { Checkpoint } from "@tinkex/tinker/Checkpoint"
import type { Datum } from "@tinkex/tinker/Datum"
import { RestClient, type WeightsInfo } from "@tinkex/tinker/RestClient"
import { ServiceClient } from "@tinkex/tinker/ServiceClient"
import * as Time from "@tinkex/tinker/Time"
import { TinkerError } from "@tinkex/tinker/TinkerError"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import * as CheckpointSelector from "./CheckpointSelector.ts"
import { whatHappened } from "./internal/whatHappened.ts"
import type { ModelConfig } from "./JournalRecord.ts"
import * as Probe from "./internal/probe.ts"
import * as QueueChanges from "./internal/queueChanges.ts"
import { astray, metricsOf, type RunState } from "./RunState.ts"

/** The checkpoint cannot be used, and trying it again would not help. */
export class CheckpointRefused extends Data.TaggedError("CheckpointRefused")<{
  readonly path: string
  readonly why: string
}> {
  override get message() {
    return `Checkpoint ${this.path} cannot be restored: ${this.why}. Use an older one.`
  }
}

/** What a restore would do, decided without touching anything. */
export interface Plan {
  readonly run: string
  /** The attempt that would be replaced. */
  readonly trainingRunId: Option.Option<string>
  readonly incident: Option.Option<string>
  readonly strategy: CheckpointSelector.Strategy
  readonly chosen: Option.Option<CheckpointSelector.Candidate>
  /** Tried in this order if the chosen one turns out to be bad. */
  readonly fallbacks: ReadonlyArray<CheckpointSelector.Candidate>
  readonly rejected: ReadonlyArray<CheckpointSelector.Rejected>
  /** Those of the above that were saved after the run was last known to be well. They are tried last. */
  readonly suspect: ReadonlyArray<string>
  /** No checkpoint was ever verified: the run would begin again from its base model. */
  readonly fromBase: boolean
  /** Steps whose results the client has seen. */
  readonly committed: number
  /** Steps `from` (inclusive) to `to` (exclusive) would be computed again; unknown where the chosen step is unknown. */
  readonly replay: Option.Option<{ readonly from: number; readonly to: number }>
}

/** Decides a restore from candidates. Pure. */
export const plan = (options: {
  readonly run: string
  readonly trainingRunId: Option.Option<string>
  readonly incident: Option.Option<string>
  readonly candidates: ReadonlyArray<CheckpointSelector.Candidate>
  readonly quarantined: ReadonlyMap<string, string>
  readonly deleted?: ReadonlySet<string> | undefined
  readonly strategy: CheckpointSelector.Strategy
  readonly committed: number
  readonly baseAllowed: boolean
  readonly now: DateTime.Utc
  /** The newest time, by the server's clock, at which the run is known to have been well. */
  readonly wellUntil?: DateTime.Utc | undefined
}): Plan => {
  const { chosen, order, rejected, suspect } = CheckpointSelector.select(options)
  const fromBase =
    Option.isNone(chosen) &&
    options.baseAllowed &&
    options.strategy._tag !== "Specific" &&
    !options.candidates.some((candidate) => candidate.verified && candidate.unfit === undefined)
  const from = fromBase ? Option.some(0) : Option.flatMap(chosen, (candidate) => candidate.step)
  return {
    run: options.run,
    trainingRunId: options.trainingRunId,
    incident: options.incident,
    strategy: options.strategy,
    chosen,
    fallbacks: order.slice(1),
    rejected,
    suspect: suspect.map(({ path }) => path),
    fromBase,
    committed: options.committed,
    replay: Option.map(from, (from) => ({ from, to: Math.max(from, options.committed) }))
  }
}

/** Why a checkpoint is of no use to a run that has left its course, if it is of none. */
export const whyAstray = (state: RunState, record: { readonly attempt: number; readonly step: number }) => {
  const onset = astray(state, record)
  return onset === undefined ? undefined : `it holds step ${onset}, at which the run left its course`
}

/** The plan for a journaled run: its candidates are the checkpoints that its journal calls verified. */
export const planJournaled = (
  state: RunState,
  options: {
    readonly run: string
    readonly strategy: CheckpointSelector.Strategy
    readonly now: DateTime.Utc
  }
): Plan => {
  const last = state.attempts.at(-1)
  const incident = last?.closed
  const wellUntil = incident?.wellUntil
  const time = (millis: number | undefined) => Option.map(Option.fromUndefinedOr(millis), DateTime.makeUnsafe)
  return plan({
    run: options.run,
    trainingRunId: Option.fromUndefinedOr(last?.trainingRunId),
    incident: Option.fromUndefinedOr(incident?.id),
    candidates: state.verified.map((record) => ({
      path: record.path,
      name: record.name,
      step: Option.some(record.step),
      // The flag was clear when it was verified; where it rose late, that says little of what was saved shortly before.
      verified: !(
        wellUntil !== undefined &&
        record.attempt === incident?.attempt &&
        record.savedAt !== undefined &&
        record.savedAt > wellUntil
      ),
      proven: state.proven.has(record.path),
      sizeBytes: Option.fromNullOr(record.sizeBytes),
      expiresAt: time(state.expires.get(record.path)),
      savedAt: time(record.savedAt),
      source: "journal" as const,
      metrics: metricsOf(state, record),
      unfit: whyAstray(state, record)
    })),
    quarantined: state.quarantined,
    deleted: state.deleted,
    strategy: options.strategy,
    committed: last === undefined ? 0 : last.committed,
    baseAllowed: true,
    now: options.now,
    wellUntil: wellUntil === undefined ? undefined : DateTime.makeUnsafe(wellUntil)
  })
}

/**
 * The checkpoints of a training run as the server lists them. `stepOf` and `metricsOf` tell the step of one and what was
 * measured there, where its owner can: the wire knows neither. They count as unverified, since nobody has vouched for what
 * came before the save.
 */
export const candidates = Effect.fn("Restore.candidates")(function* (
  runId: string,
  stepOf: (checkpoint: Checkpoint) => Option.Option<number> = () => Option.none(),
  metricsOf: (checkpoint: Checkpoint) => Readonly<Record<string, number>> | undefined = () => undefined
) {
  const rest = yield* RestClient
  const listed = yield* rest.listCheckpoints(runId)
  return listed.map((checkpoint): CheckpointSelector.Candidate => ({
    path: checkpoint.tinkerPath,
    name: checkpoint.checkpointId.slice(checkpoint.checkpointId.indexOf("/") + 1),
    step: stepOf(checkpoint),
    verified: false,
    proven: false,
    sizeBytes: checkpoint.sizeBytes,
    expiresAt: Option.flatMap(checkpoint.expiresAt, Time.toOption),
    savedAt: Time.toOption(checkpoint.time),
    source: "server",
    metrics: metricsOf(checkpoint)
  }))
})

/** What speaks against loading a checkpoint into a model of the run's shape. */
const mismatch = (expected: ModelConfig, info: WeightsInfo): string | undefined => {
  if (expected.baseModel !== info.baseModel) {
    return `it is of base model ${info.baseModel}, the run of ${expected.baseModel}`
  }
  const rank = Option.getOrUndefined(info.loraRank)
  if (expected.rank !== rank) return `it has rank ${rank}, the run ${expected.rank}`
  for (const [part, wanted, found] of [
    ["MLP", expected.trainMlp, info.trainMlp],
    ["attention", expected.trainAttn, info.trainAttn],
    ["unembedding", expected.trainUnembed, info.trainUnembed]
  ] as const) {
    if (Option.isSome(found) && found.value !== wanted) {
      return found.value ? `it trains the ${part}, the run does not` : `the run trains the ${part}, it does not`
    }
  }
  return undefined
}

/** Whether an error of the load itself speaks against the checkpoint, rather than against the moment. */
const condemns = (error: TinkerError): boolean => {
  switch (error.reason._tag) {
    case "RequestFailed":
    case "BadRequest":
    case "NotFound":
    case "Conflict":
      return true
    default:
      return false
  }
}

/** Awaits a result, and passes on what the service says of it meanwhile. */
const heard = Effect.fnUntraced(function* <A>(future: ApiFuture<A>, tell: (state: QueueState) => Effect.Effect<void>) {
  const told = yield* Effect.forkChild(Stream.runForEach(future.queueState, tell))
  return yield* Effect.ensuring(future.result, Effect.andThen(Fiber.interrupt(told), tell(QueueChanges.active)))
})

/**
 * Makes a fresh model and loads one checkpoint into it.
 *
 * `optimizer` restores Adam's state too (default everywhere in this library: true). `expected` is the shape of the run, if
 * known; without it the shape is the checkpoint's own. `onCreated` is told of the new model before the load, `onQueueState` of
 * pauses. Fails with
 * `CheckpointRefused` for a bad checkpoint and with `TinkerError` for anything that a later try may survive. The client lives
 * in the caller's scope; where the restore fails, its model is unloaded.
 */
export const fromCheckpoint = Effect.fn("Restore.fromCheckpoint")(function* <E = never>(
  path: string,
  options: {
    readonly optimizer: boolean
    readonly expected?: ModelConfig | undefined
    readonly userMetadata?: Record<string, string> | undefined
    readonly onCreated?: ((client: TrainingClient) => Effect.Effect<void, E>) | undefined
    /** Told when the service holds the model, the load or the probe back, and when it does not any more. */
    readonly onQueueState?: ((state: QueueState) => Effect.Effect<void>) | undefined
    /** A batch, and its log-probabilities when the checkpoint was saved: other ones refuse it. Costs a forward pass. */
    readonly probe?: { readonly batch: ReadonlyArray<Datum>; readonly logprobs: ReadonlyArray<number> } | undefined
  }
): Effect.fn.Return<TrainingClient, CheckpointRefused | TinkerError | E, ServiceClient | RestClient | Scope.Scope> {
  const rest = yield* RestClient
  const service = yield* ServiceClient
  const tell = QueueChanges.make(options.onQueueState ?? (() => Effect.void))
  const refuse = (why: string) => new CheckpointRefused({ path, why })
  const info = yield* rest
    .weightsInfo(path)
    .pipe(
      Effect.catchIf(condemns, (error) => Effect.fail(refuse(`the server does not know it (${whatHappened(error)})`)))
    )
  if (!info.isLora || Option.isNone(info.loraRank)) return yield* refuse("it is not a LoRA checkpoint")
  const against = options.expected === undefined ? undefined : mismatch(options.expected, info)
  if (against !== undefined) return yield* refuse(against)
  const client = yield* service.createLoraTrainingClient({
    baseModel: info.baseModel,
    rank: info.loraRank.value,
    trainMlp: options.expected?.trainMlp ?? Option.getOrElse(info.trainMlp, () => true),
    trainAttn: options.expected?.trainAttn ?? Option.getOrElse(info.trainAttn, () => true),
    trainUnembed: options.expected?.trainUnembed ?? Option.getOrElse(info.trainUnembed, () => true),
    userMetadata: options.userMetadata,
    onQueueState: tell
  })
  return yield* Effect.gen(function* () {
    yield* tell(QueueChanges.active)
    if (options.onCreated !== undefined) yield* options.onCreated(client)
    yield* heard(yield* client.loadState(path, { optimizer: options.optimizer }), tell)
    const run = yield* rest.getTrainingRun(client.modelId)
    if (run.corrupted) return yield* refuse("the run was flagged as corrupted right after the load")
    if (options.probe !== undefined) {
      const forward = yield* client.forward(options.probe.batch, { loss: "cross_entropy" })
      const found = Probe.read(yield* heard(forward, tell))
      const off = found === undefined ? undefined : Probe.mismatch(options.probe.logprobs, found)
      if (off !== undefined) return yield* refuse(off)
    }
    return client
  }).pipe(
    Effect.catchIf(
      (error): error is TinkerError => error instanceof TinkerError,
      (error) => {
        if (condemns(error)) return Effect.fail(refuse(whatHappened(error)))
        if (error.reason._tag !== "RunLost") return Effect.fail(error)
        // Lost with its session, or poisoned by what it loaded? Only the second is the checkpoint's doing.
        return Effect.flatMap(rest.getTrainingRun(client.modelId), ({ corrupted }) =>
          Effect.fail(corrupted ? refuse(whatHappened(error)) : error)
        )
      }
    ),
    Effect.onExit((exit) => (exit._tag === "Success" ? Effect.void : abandon(client)))
  )
})

/** Unloads a model that is not wanted any more. Whether the server agrees is not our concern. */
export const abandon = (client: TrainingClient): Effect.Effect<void> =>
  client.unload().pipe(
    Effect.timeoutOption("10 seconds"),
    Effect.catch((error) => Effect.logDebug(`Model ${client.modelId} was not unloaded: ${error.message}`)),
    Effect.asVoid
  )

/**
 * Loads a checkpoint into a scratch model, asks for one forward pass and unloads the model: evidence, beyond a listing and
 * a size, that the checkpoint can carry a run. `probe` is any small batch of the run's data, and without one there is no forward pass; with `logprobs`, which it had when
 * the checkpoint was saved, it has to have them again. Fails with `CheckpointRefused` when it cannot be loaded, its loss is not
 * a finite number, or the log-probabilities are other ones.
 */
export const prove = Effect.fn("Restore.prove")(function* (
  path: string,
  options: {
    readonly expected: ModelConfig
    readonly probe: ReadonlyArray<Datum>
    readonly logprobs?: ReadonlyArray<number> | undefined
    readonly userMetadata?: Record<string, string> | undefined
  }
) {
  const client = yield* fromCheckpoint(path, {
    optimizer: true,
    expected: options.expected,
    userMetadata: options.userMetadata
  })
  yield* Effect.gen(function* () {
    if (options.probe.length === 0) return
    const forward = yield* client.forward(options.probe, { loss: "cross_entropy" })
    const output = yield* forward.result
    const loss = output.metrics["loss:sum"]
    if (loss !== undefined && !Number.isFinite(loss)) {
      return yield* new CheckpointRefused({ path, why: `a forward pass on it gives a loss of ${loss}` })
    }
    const found = options.logprobs === undefined ? undefined : Probe.read(output)
    const off =
      options.logprobs === undefined || found === undefined ? undefined : Probe.mismatch(options.logprobs, found)
    if (off !== undefined) return yield* new CheckpointRefused({ path, why: off })
  }).pipe(
    Effect.catchTag("TinkerError", (error) =>
      Effect.fail(condemns(error) ? new CheckpointRefused({ path, why: whatHappened(error) }) : error)
    ),
    Effect.ensuring(abandon(client))
  )
}, Effect.scoped)

/** The run that a checkpoint path belongs to, for messages. */
export const runOf = (path: string): string =>
  Option.match(CheckpointPath.parse(path), { onNone: () => path, onSome: (parsed) => parsed.runId })
