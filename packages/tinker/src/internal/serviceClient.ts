import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { QueueState } from "../ApiFuture.ts"
import type { CallOptions } from "../CallOptions.ts"
import type { RestClient } from "../RestClient.ts"
import type { FromStateOptions, LoraOptions, ServiceClient } from "../ServiceClient.ts"
import { Timeout, TinkerError } from "../TinkerError.ts"
import type { TrainingClient } from "../TrainingClient.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Json from "../wire/Json.ts"
import * as Wire from "../wire/Rest.ts"
import { checkPath, checkTrainingPath, checkTtl, invalid } from "./arguments.ts"
import * as CallLimits from "./callOptions.ts"
import { retrieve } from "./poll.ts"
import * as Rest from "./restClient.ts"
import * as Samplers from "./samplers.ts"
import * as Session from "./session.ts"
import * as Status from "./status.ts"
import * as Training from "./trainingClient.ts"
import type { Reporter } from "./telemetry.ts"
import { decodeValue, protocolVersion, type Transport } from "./transport.ts"

interface NewModel {
  readonly baseModel: string
  readonly rank: number
  readonly seed: number | undefined
  readonly trainMlp: boolean
  readonly trainAttn: boolean
  readonly trainUnembed: boolean
  readonly userMetadata: Record<string, string> | undefined
  readonly optimizer: LoraOptions["optimizer"]
  readonly onQueueState: LoraOptions["onQueueState"]
  readonly call: CallOptions
}

/** Of what was given, that which is said of each call. */
const callOf = ({ deadline, headers, retries }: CallOptions): CallOptions => ({ deadline, headers, retries })

/** How services answer to a session that they do not know. */
const refusesSession = (error: unknown): error is TinkerError =>
  error instanceof TinkerError && ["NotFound", "Forbidden", "BadRequest", "RunLost"].includes(error.reason._tag)

const metadata = (given: Record<string, string> | undefined) => (given === undefined ? {} : { user_metadata: given })

/** A credential of another account, once it looks like one; it is not repeated where it does not. */
const accessToken = (given: Redacted.Redacted | string | undefined): Effect.Effect<string | undefined, TinkerError> => {
  const token = Redacted.isRedacted(given) ? Redacted.value(given) : given
  return token === undefined || /^(?:tml-|eyJ)[\x21-\x7e]+$/.test(token)
    ? Effect.succeed(token)
    : Effect.fail(invalid("create_model", "weightsAccessToken", "must begin with tml- (an API key) or eyJ (a JWT)"))
}

/** Where another process has numbered the samplers of a session before: a number that it has most likely not reached. */
const elsewhere = Effect.map(Random.nextIntBetween(1, 2000), (block) => block * 1_000_000)

/** Sessions live in the surrounding scope, clients in those of their callers. */
export const make = Effect.fnUntraced(function* (options: {
  readonly transport: Transport
  readonly rest: RestClient["Service"]
  readonly reporter: Reporter
  readonly tags: ReadonlyArray<string>
  readonly userMetadata: Record<string, string>
  readonly projectId: string | undefined
  readonly heartbeatMillis: number
  readonly toleranceMillis: number
}): Effect.fn.Return<ServiceClient["Service"], never, Scope.Scope> {
  const { heartbeatMillis, reporter, rest, toleranceMillis, transport } = options
  const scope = yield* Effect.scope
  const lock = Semaphore.makeUnsafe(1)
  let current: Session.Session | undefined
  /** Whether the service's settings are kept up to date, which begins with the first session. */
  let fresh = false

  const createSession = Effect.gen(function* () {
    const operation = "create session"
    const created = yield* transport.request(Endpoint.createSession, {
      operation,
      body: {
        tags: options.tags,
        user_metadata: options.userMetadata,
        sdk_version: protocolVersion,
        ...(options.projectId === undefined ? {} : { project_id: options.projectId }),
        type: "create_session"
      },
      decode: Json.CreateSession
    })
    if (created.info_message) yield* Effect.logInfo(created.info_message)
    if (created.warning_message) yield* Effect.logWarning(created.warning_message)
    if (created.error_message) yield* Effect.logError(created.error_message)
    yield* reporter.begin(created.session_id)
    if (!fresh) {
      fresh = true
      yield* Effect.forkIn(Effect.ignore(transport.keepFresh), scope)
    }
    return yield* Session.keep(transport, created.session_id, heartbeatMillis).pipe(Scope.provide(scope))
  })

  const session = Semaphore.withPermit(
    lock,
    Effect.suspend(() =>
      current !== undefined && !current.isLost()
        ? Effect.succeed(current)
        : Effect.tap(createSession, (created) =>
            Effect.sync(() => {
              current = created
            })
          )
    )
  )

  /**
   * Uses the current session. Where it refuses, a heartbeat tells whether it is still there. One that the service does not say to be
   * alive is replaced, also where heartbeats fail for another reason, and the use begins again.
   */
  const inSession = <A, E, R>(use: (live: Session.Session) => Effect.Effect<A, E | TinkerError, R>) =>
    Effect.flatMap(session, (live) =>
      use(live).pipe(
        Effect.catchIf(refusesSession, (error) =>
          Effect.flatMap(live.check, (alive) => {
            if (alive) return Effect.fail(error)
            if (current === live) current = undefined
            return Effect.flatMap(session, use)
          })
        )
      )
    )

  const open = Effect.fnUntraced(function* (model: {
    readonly modelId: string
    readonly session: Session.Session
    readonly nextSeq: number
    readonly fresh: boolean
  }) {
    const config = yield* transport.boot
    return yield* Training.make({ transport, config, toleranceMillis, ...model })
  })

  /** Waits for the result of a request that makes a model. */
  const made = <A>(
    operation: string,
    requestType: string,
    kind: string,
    requestId: string,
    runId: string,
    read: (value: unknown) => Effect.Effect<A, TinkerError>,
    tell: (state: QueueState) => Effect.Effect<void> = () => Effect.void
  ) =>
    retrieve(transport, {
      operation,
      requestId,
      requestType,
      runId,
      kind,
      decode: { _tag: "json", read },
      onState: (state) =>
        state.state === "active"
          ? tell(state)
          : Effect.andThen(Effect.logInfo(`${operation} waits: ${state.reason ?? state.state}`), tell(state)),
      toleranceMillis
    })

  /** Nobody waits any more for a model that is being made: it is unloaded once it is there, so that it costs nothing. */
  const disown = (operation: string, ready: Effect.Effect<string, TinkerError>) =>
    Effect.flatMap(ready, (modelId) =>
      transport.request(Endpoint.unloadModel, {
        operation: `unload ${modelId}`,
        body: { model_id: modelId },
        decode: Json.Submitted
      })
    ).pipe(
      Effect.catch((error) => Effect.logDebug(`What came of "${operation}" was not unloaded: ${error.message}`)),
      Effect.forkIn(scope)
    )

  const createModel = Effect.fnUntraced(function* (model: NewModel) {
    const operation = `create a model of ${model.baseModel}`
    if (model.baseModel.trim() === "") return yield* invalid("create_model", "baseModel", "is empty")
    if (!Number.isInteger(model.rank) || model.rank < 1) {
      return yield* invalid("create_model", "rank", `is ${model.rank} and must be a whole number above 0`)
    }
    if (model.seed !== undefined && !Number.isSafeInteger(model.seed)) {
      return yield* invalid("create_model", "seed", `is ${model.seed} and must be a whole number`)
    }
    if (!model.trainMlp && !model.trainAttn && !model.trainUnembed) {
      return yield* invalid(
        "create_model",
        "trainMlp, trainAttn, trainUnembed",
        "are all false: nothing would be trained"
      )
    }
    const { live, model_id } = yield* inSession((live) => {
      const modelSeq = live.nextModel()
      return transport
        .request(Endpoint.createModel, {
          operation,
          body: {
            session_id: live.id,
            model_seq_id: modelSeq,
            base_model: model.baseModel,
            ...metadata(model.userMetadata),
            lora_config: {
              rank: model.rank,
              ...(model.seed === undefined ? {} : { seed: model.seed }),
              train_unembed: model.trainUnembed,
              train_mlp: model.trainMlp,
              train_attn: model.trainAttn
            },
            ...(model.optimizer === "dimuon" ? { optimizer_config: { type: "dimuon", version: 1 } } : {}),
            type: "create_model"
          },
          call: model.call,
          decode: Json.Submitted
        })
        .pipe(
          Effect.flatMap(({ request_id }) => {
            const read = decodeValue(operation, Json.CreateModel)
            const runId = `${live.id}:train:${modelSeq}`
            const ready = made(operation, "CreateModel", "create_model", request_id, runId, read, model.onQueueState)
            return Effect.onInterrupt(ready, () =>
              disown(
                operation,
                Effect.map(ready, ({ model_id }) => model_id)
              )
            )
          }),
          Effect.map(({ model_id }) => ({ live, model_id }))
        )
    })
    return yield* open({ modelId: model_id, session: live, nextSeq: 1, fresh: true })
  })

  /** One request makes the model and loads it; its id follows from the session. */
  const createByLoading = Effect.fnUntraced(function* (
    path: string,
    given: FromStateOptions,
    token: string | undefined
  ) {
    const operation = `create a model from ${path}`
    const { live, modelId } = yield* inSession((live) => {
      const modelSeq = live.nextModel()
      const modelId = `${live.id}:train:${modelSeq}`
      return transport
        .request(Endpoint.loadWeights, {
          operation,
          body: {
            session_id: live.id,
            model_seq_id: modelSeq,
            path,
            optimizer: given.optimizer,
            ...(given.baseModel === undefined ? {} : { base_model: given.baseModel }),
            ...metadata(given.userMetadata),
            ...(token === undefined ? {} : { weights_access_token: token }),
            type: "load_weights"
          },
          call: callOf(given),
          decode: Json.Submitted
        })
        .pipe(
          Effect.flatMap(({ request_id }) => {
            const read = decodeValue(operation, Json.LoadWeights)
            const ready = made(operation, "LoadWeights", "load_weights", request_id, modelId, read)
            return Effect.onInterrupt(ready, () => disown(operation, Effect.as(ready, modelId)))
          }),
          Effect.as({ live, modelId })
        )
    })
    return yield* open({ modelId, session: live, nextSeq: 1, fresh: true })
  })

  const abandon = (client: TrainingClient) =>
    client.unload().pipe(
      Effect.timeout("10 seconds"),
      Effect.catch((error) => Effect.logDebug(`Model ${client.modelId} was not unloaded: ${error.message}`))
    )

  /** What another account shows to whom has its token. */
  const onBehalf = (credential: string) =>
    Rest.make({
      ...transport,
      request: (endpoint, options) => transport.request(endpoint, { ...options, credential })
    })

  const createSamplingClient = Samplers.make({
    transport,
    scope,
    toleranceMillis,
    inSession,
    own: (sessionId) => (current?.id === sessionId ? current : undefined),
    keep: (sessionId) =>
      Effect.flatMap(elsewhere, (first) => Session.keep(transport, sessionId, heartbeatMillis, first)).pipe(
        Scope.provide(scope)
      )
  })

  return {
    rest,
    createSamplingClient,
    session: Effect.map(session, ({ id }) => id),
    createLoraTrainingClient: Effect.fn("ServiceClient.createLoraTrainingClient")(function* (given) {
      yield* Effect.annotateCurrentSpan({ "tinker.base_model": given.baseModel })
      return yield* createModel({
        baseModel: given.baseModel,
        rank: given.rank ?? 32,
        seed: given.seed,
        trainMlp: given.trainMlp ?? true,
        trainAttn: given.trainAttn ?? true,
        trainUnembed: given.trainUnembed ?? true,
        userMetadata: given.userMetadata,
        optimizer: given.optimizer,
        onQueueState: given.onQueueState,
        call: callOf(given)
      })
    }),
    createTrainingClientFromState: Effect.fn("ServiceClient.createTrainingClientFromState")(function* (path, given) {
      yield* Effect.annotateCurrentSpan({ "tinker.path": path })
      yield* checkTrainingPath("create_model", path)
      if (given.baseModel?.trim() === "") return yield* invalid("create_model", "baseModel", "is empty")
      const token = yield* accessToken(given.weightsAccessToken)
      if (token !== undefined) transport.conceal(token)
      const limits = yield* CallLimits.parse("create_model", callOf(given))
      const config = yield* transport.bootFor("create_model", limits)
      if (config.create_model_via_load_weights) return yield* createByLoading(path, given, token)
      const owner = token === undefined ? rest : onBehalf(token)
      const info = yield* owner.weightsInfo(path, callOf(given))
      if (!info.isLora || Option.isNone(info.loraRank)) {
        return yield* invalid("create_model", "path", `${path} is not a LoRA checkpoint`)
      }
      const client = yield* createModel({
        baseModel: given.baseModel ?? info.baseModel,
        rank: info.loraRank.value,
        seed: undefined,
        trainMlp: Option.getOrElse(info.trainMlp, () => true),
        trainAttn: Option.getOrElse(info.trainAttn, () => true),
        trainUnembed: Option.getOrElse(info.trainUnembed, () => true),
        userMetadata: given.userMetadata,
        optimizer: undefined,
        onQueueState: undefined,
        call: callOf(given)
      })
      const loading = { ...callOf(given), optimizer: given.optimizer, weightsAccessToken: token }
      yield* client.loadState(path, loading).pipe(
        Effect.flatMap(({ result }) => result),
        // Nobody will ever have this model.
        Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : abandon(client)))
      )
      return client
    }),
    copyWeights: Effect.fn("ServiceClient.copyWeights")(function* (path, given = {}) {
      const operation = `copy ${path}`
      yield* checkPath(operation, path)
      const token = yield* accessToken(given.weightsAccessToken)
      if (token !== undefined) transport.conceal(token)
      const seconds = given.ttl === undefined ? undefined : yield* checkTtl(operation, given.ttl)
      const { tinker_path } = yield* inSession((live) =>
        transport.request(Endpoint.copyWeights, {
          operation,
          body: {
            session_id: live.id,
            model_seq_id: live.nextModel(),
            source_path: path,
            ...(seconds === undefined ? {} : { ttl_seconds: seconds }),
            ...(token === undefined ? {} : { weights_access_token: token })
          },
          call: given,
          decode: Wire.CopyWeights
        })
      )
      return tinker_path
    }),
    finishSession: Effect.fn("ServiceClient.finishSession")(function* (given = {}) {
      const { detail, outcome = "success" } = given
      const { deadlineMillis } = yield* CallLimits.parse("finish session", callOf(given))
      const finish = Effect.gen(function* () {
        const live = current
        if (live === undefined || live.isLost()) return false
        const heard = yield* transport.request(Endpoint.finishSession(live.id), {
          operation: `finish session ${live.id}`,
          body: { reason: { type: outcome }, ...(detail === undefined ? {} : { detail }) },
          call: given,
          accepts: ({ status }) => status === 404 || status === 410,
          decode: (reply) => Effect.succeed(Status.isOk(reply))
        })
        yield* live.end(`this client has finished it (${outcome})`)
        return heard
      })
      // Not while one is being opened, which may take longer than there is time.
      const inTurn = Semaphore.withPermit(lock, finish)
      if (deadlineMillis === undefined) return yield* inTurn
      const limit = Duration.millis(deadlineMillis)
      return yield* Effect.timeoutOrElse(inTurn, {
        duration: limit,
        orElse: () => Effect.fail(new TinkerError({ reason: new Timeout({ operation: "finish session", limit }) }))
      })
    }),
    attachTrainingClient: Effect.fn("ServiceClient.attachTrainingClient")(function* (given) {
      if ((given.nextSeq | 0) !== given.nextSeq || given.nextSeq < 1) {
        // A pass has 32 bits for it.
        return yield* invalid(
          "attach",
          "nextSeq",
          `is ${given.nextSeq} and must be a whole number from 1 to below 2^31`
        )
      }
      yield* Effect.annotateCurrentSpan({ "tinker.run.id": given.modelId })
      const live =
        current?.id === given.sessionId && !current.isLost()
          ? current
          : yield* Session.keep(transport, given.sessionId, heartbeatMillis, yield* elsewhere)
      return yield* open({ modelId: given.modelId, session: live, nextSeq: given.nextSeq, fresh: false })
    })
  }
})
