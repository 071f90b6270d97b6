import { DateTime, Deferred, Effect, Layer, Option, PubSub, Stream } from "effect"
import {
  type ApiFuture,
  type Checkpoint,
  RestClient,
  ServiceClient,
  Time,
  TinkerError,
  type TrainingClient,
  type TrainingRun
} from "@tinkex/tinker"
import { Fenced, NotFound, type Reason, RequestFailed, ServerFailure } from "@tinkex/tinker/TinkerError"

export const fail = (reason: Reason) => new TinkerError({ reason })

export const unavailable = fail(new ServerFailure({ operation: "test", status: 503, detail: "down" }))
export const broken = (path: string) =>
  fail(
    new RequestFailed({ operation: "load_weights", requestId: "r", category: "server", detail: `${path} is truncated` })
  )

interface Run {
  corrupted: boolean
  lastRequest: number
  readonly checkpoints: Array<Checkpoint.Checkpoint>
  readonly metadata: Record<string, string>
}

/** A service without a network: runs, checkpoints, and a record of what was asked for. */
export class FakeTinker {
  readonly runs = new Map<string, Run>()
  readonly requests: Array<string> = []
  readonly clients = new Map<string, TrainingClient.TrainingClient>()
  /** Hooks; each may fail, die or hang. */
  onRead: (runId: string) => Effect.Effect<void, TinkerError> = () => Effect.void
  onList: (offset: number) => Effect.Effect<void, TinkerError> = () => Effect.void
  onCreate: () => Effect.Effect<void, TinkerError> = () => Effect.void
  onLoad: (path: string, modelId: string) => Effect.Effect<void, TinkerError> = () => Effect.void
  /** Models being made or loaded at this moment, and the most there ever were. */
  busy = 0
  mostBusy = 0
  made = 0

  /** Ranks other than 8, by path; `unknown` is a checkpoint that only its list knows. */
  readonly ranks = new Map<string, number | "unknown">()
  /** Operations that the owners of the clients have sent. */
  readonly sent = new Map<string, number>()

  checkpoint(id: string, step: number): Checkpoint.Checkpoint {
    return {
      checkpointId: `weights/step-${step}`,
      checkpointType: "training",
      userMetadata: Option.none(),
      time: DateTime.makeUnsafe(step * 1000),
      tinkerPath: `tinker://${id}/weights/step-${step}`,
      sizeBytes: Option.some(1000),
      public: false,
      expiresAt: Option.none()
    }
  }

  addRun(id: string, steps: ReadonlyArray<number> = []) {
    const checkpoints = steps.map((step) => this.checkpoint(id, step))
    const run: Run = { corrupted: false, lastRequest: 0, checkpoints, metadata: {} }
    this.runs.set(id, run)
    return run
  }

  poison(id: string) {
    const run = this.runs.get(id)
    if (run !== undefined) run.corrupted = true
  }

  private view(id: string, run: Run): TrainingRun.TrainingRun {
    return {
      trainingRunId: id,
      baseModel: "base",
      modelOwner: "me",
      isLora: true,
      corrupted: run.corrupted,
      loraRank: Option.some(8),
      lastRequestTime: Number.isNaN(run.lastRequest)
        ? new Time.UnparsedTime({ raw: "yesterday" })
        : DateTime.makeUnsafe(run.lastRequest),
      lastCheckpoint: Option.none(),
      lastSamplerCheckpoint: Option.none(),
      userMetadata: Option.some(run.metadata)
    }
  }

  private find(id: string) {
    const run = this.runs.get(id)
    return run === undefined
      ? Effect.fail(fail(new NotFound({ operation: "get", status: 404, detail: `no ${id}` })))
      : Effect.succeed(run)
  }

  /** A client of a run; its failure is completed by `breakClient`. */
  client(modelId: string): TrainingClient.TrainingClient {
    const failure = Deferred.makeUnsafe<TinkerError>()
    this.failures.set(modelId, failure)
    const queue = Effect.runSync(PubSub.unbounded<ApiFuture.QueueState>())
    this.queues.set(modelId, queue)
    const unused = () => Effect.die("not part of this fake")
    const client: TrainingClient.TrainingClient = {
      modelId,
      sessionId: "session",
      nextSeq: Effect.sync(() => 2 + (this.sent.get(modelId) ?? 0)),
      prepare: {
        forwardBackward: unused,
        forward: unused,
        optimStep: unused,
        saveState: unused,
        saveWeightsForSampler: unused,
        saveWeightsEphemeral: unused,
        loadState: unused
      },
      forwardBackward: unused,
      forward: unused,
      optimStep: unused,
      saveState: unused,
      saveWeightsForSampler: unused,
      saveWeightsEphemeral: unused,
      forwardBackwardCustom: unused,
      loadState: (path) =>
        Effect.sync(() => {
          this.requests.push(`load ${path}`)
          return {
            requestIds: ["r"],
            queueState: Stream.empty,
            result: Effect.suspend(() => this.onLoad(path, modelId)).pipe(Effect.as({ path: Option.some(path) }))
          }
        }),
      info: unused,
      unload: () => Effect.sync(() => void this.requests.push(`unload ${modelId}`)),
      failure: Deferred.await(failure),
      queueState: Stream.fromPubSub(queue),
      fence: (why) =>
        Effect.suspend(() => {
          this.requests.push(`fence ${modelId}`)
          return Deferred.succeed(failure, fail(new Fenced({ runId: modelId, why })))
        })
    }
    this.clients.set(modelId, client)
    return client
  }
  private readonly failures = new Map<string, Deferred.Deferred<TinkerError>>()

  private readonly queues = new Map<string, PubSub.PubSub<ApiFuture.QueueState>>()

  /** The service holds the operations of a run back, or lets them go on. */
  holdBack(modelId: string, state: ApiFuture.QueueState["state"]) {
    const queue = this.queues.get(modelId)
    return queue === undefined
      ? Effect.die(`no client ${modelId}`)
      : PubSub.publish(queue, { state, reason: undefined })
  }

  breakClient(modelId: string, error: TinkerError) {
    const failure = this.failures.get(modelId)
    return failure === undefined ? Effect.die(`no client ${modelId}`) : Deferred.succeed(failure, error)
  }

  get layer(): Layer.Layer<RestClient | ServiceClient> {
    const rest = Layer.mock(RestClient, {
      getTrainingRun: (id) =>
        Effect.suspend(() => {
          this.requests.push(`get ${id}`)
          return this.onRead(id)
        }).pipe(
          Effect.andThen(this.find(id)),
          Effect.map((run) => this.view(id, run))
        ),
      listRunFlags: ({ limit = 20, offset = 0 } = {}) =>
        Effect.suspend(() => {
          this.requests.push(`page ${offset}+${limit}`)
          return this.onList(offset)
        }).pipe(
          Effect.map(() => {
            const all = [...this.runs].toReversed()
            const runs = all.slice(offset, offset + limit).map(([trainingRunId, run]) => ({
              trainingRunId,
              corrupted: run.corrupted,
              lastRequestMillis: Number.isNaN(run.lastRequest) ? undefined : run.lastRequest
            }))
            return { runs, totalCount: all.length }
          })
        ),
      listCheckpoints: (id) =>
        Effect.sync(() => void this.requests.push(`list ${id}`)).pipe(
          Effect.andThen(this.find(id)),
          Effect.map((run) => run.checkpoints)
        ),
      weightsInfo: (path) =>
        Effect.suspend(() => {
          this.requests.push(`weightsInfo ${path}`)
          const rank = this.ranks.get(path) ?? 8
          if (rank === "unknown") {
            return Effect.fail(fail(new NotFound({ operation: "weights info", status: 404, detail: `no ${path}` })))
          }
          return Effect.succeed({
            baseModel: "base",
            isLora: true,
            loraRank: Option.some(rank),
            trainMlp: Option.none(),
            trainAttn: Option.none(),
            trainUnembed: Option.none()
          })
        })
    })
    const service = Layer.unwrap(
      Effect.map(RestClient, (rest) =>
        Layer.mock(ServiceClient, {
          rest,
          attachTrainingClient: ({ modelId }) => Effect.sync(() => this.client(modelId)),
          createLoraTrainingClient: (options) =>
            Effect.gen({ self: this }, function* () {
              this.requests.push("create")
              this.busy++
              this.mostBusy = Math.max(this.mostBusy, this.busy)
              yield* this.onCreate().pipe(Effect.ensuring(Effect.sync(() => this.busy--)))
              const id = `new-${++this.made}`
              Object.assign(this.addRun(id).metadata, options.userMetadata)
              yield* Effect.addFinalizer(() => Effect.sync(() => void this.requests.push(`closed ${id}`)))
              return this.client(id)
            })
        })
      )
    )
    return Layer.provideMerge(service, rest)
  }
}
