import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { ApiFuture, QueueState } from "../ApiFuture.ts"
import type { CallOptions } from "../CallOptions.ts"
import type { CustomLoss } from "../CustomLoss.ts"
import { Fenced, SubmissionRefused, TinkerError } from "../TinkerError.ts"
import type { CustomOutput, ModelInfo, Prepared, TrainingClient } from "../TrainingClient.ts"
import type { Datum } from "../wire/Datum.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Json from "../wire/Json.ts"
import * as CallLimits from "./callOptions.ts"
import * as Custom from "./customLoss.ts"
import * as Lane from "./lane.ts"
import * as Operations from "./operations.ts"
import { retrieve } from "./poll.ts"
import * as QueueNotice from "./queueNotice.ts"
import * as Saved from "./savedCheckpoint.ts"
import type { Session } from "./session.ts"
import * as Status from "./status.ts"
import { type ClientConfig, decodeJson, encodeJson, type Transport } from "./transport.ts"

const submissions = Metric.counter("tinkex.tinker.submissions", { incremental: true })

/** Results of a lost run that were on their way get so long to arrive. */
const graceMillis = 30_000

const spanNames = {
  forward_backward: "TrainingClient.forwardBackward",
  forward: "TrainingClient.forward",
  optim_step: "TrainingClient.optimStep",
  save_weights: "TrainingClient.saveState",
  save_weights_for_sampler: "TrainingClient.saveWeightsForSampler",
  load_weights: "TrainingClient.loadState"
} as const

/** Failing, these leave the model as it was. */
const harmless: ReadonlySet<string> = new Set(["forward", "save_weights", "save_weights_for_sampler"])

interface Placed<A> extends Prepared<A> {
  /** Lets the operation go when its turn comes, without waiting for that. */
  readonly begin: Effect.Effect<void>
}

interface Awaited {
  readonly fail: (error: TinkerError) => void
  fiber: Fiber.Fiber<void> | undefined
}

const active: QueueState = { state: "active", reason: undefined }

/** A client of a model that exists; lives in the surrounding scope. */
export const make = Effect.fnUntraced(function* (options: {
  readonly transport: Transport
  readonly session: Session
  readonly config: ClientConfig
  readonly modelId: string
  readonly nextSeq: number
  /** Whether every operation that the model ever saw is this client's. */
  readonly fresh: boolean
  readonly toleranceMillis: number
}): Effect.fn.Return<TrainingClient, never, Scope.Scope> {
  const { config, modelId, session, toleranceMillis, transport } = options
  // A scope of our own: when the caller's ends, waiters learn why before the fibers that serve them are interrupted.
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) =>
    Effect.suspend(() => {
      stop(fenced("its scope was closed"))
      return Scope.close(scope, exit)
    })
  )
  const failure = Deferred.makeUnsafe<TinkerError>()
  const awaited = new Set<Awaited>()
  const notice = QueueNotice.make("more training clients are at work than the service allows at once")
  /** Which results are held back, and why. */
  const heldBack = new Map<Awaited, QueueState>()
  const queue = yield* SubscriptionRef.make(active)
  const tellQueue = Effect.suspend(() => {
    const next = heldBack.values().next().value ?? active
    return SubscriptionRef.getUnsafe(queue) === next ? Effect.void : SubscriptionRef.set(queue, next)
  })
  /** How often this client has saved under each name. */
  const saves = new Map<string, number>()
  let nextSeq = options.nextSeq
  /** Why nothing more is sent. */
  let stopped: TinkerError | undefined

  const fenced = (why: string) => new TinkerError({ reason: new Fenced({ runId: modelId, why }) })
  const noteFailure = (error: TinkerError) => {
    Deferred.doneUnsafe(failure, Effect.succeed(error))
  }

  /** Nothing more is sent. What is accepted may still come to its end. */
  const freeze = (error: TinkerError) => {
    stopped ??= error
    noteFailure(stopped)
    lane.clear()
  }
  /** Nothing more is sent, and nothing more is awaited. */
  const stop = (error: TinkerError) => {
    freeze(error)
    for (const one of awaited) {
      one.fail(error)
      one.fiber?.interruptUnsafe()
    }
    awaited.clear()
  }
  const lose = (error: TinkerError) =>
    Effect.suspend(() => {
      if (stopped !== undefined) return Effect.void
      freeze(error)
      return Effect.asVoid(
        Effect.forkIn(
          Effect.andThen(
            Effect.sleep(graceMillis),
            Effect.sync(() => stop(error))
          ),
          scope
        )
      )
    })

  const lane = Lane.make({
    scope,
    stallMillis: transport.deadlineMillis,
    onStall: () => stop(fenced("an operation was prepared and not submitted, while later ones waited for it"))
  })

  const forget = session.onLost(stop)
  yield* Effect.addFinalizer(() => Effect.sync(forget))

  /**
   * Whether a name that the service calls taken can only have been taken by an earlier try of the same save: nobody else ever
   * saved anything of this model, and this client saved under that name but once.
   */
  const isOwn = (checkpoint: { readonly kind: string; readonly name: string }) =>
    options.fresh && saves.get(`${checkpoint.kind}/${checkpoint.name}`) === 1

  /** The id of the result to come; or none, where the service has taken an earlier try and says no more than that. */
  const submitOne = <Part, A>(draft: Operations.Draft<Part, A>, index: number, seqId: number) => {
    const operation = `${draft.kind} ${seqId}`
    const explain = Status.lostModel(modelId, draft.kind)
    let takenBefore = false
    const sent = Effect.flatMap(draft.request(index, { modelId, seqId }), (request) =>
      transport.exchange({
        operation,
        ...request,
        ...draft.limits,
        headers: { ...draft.limits.headers, ...request.headers },
        explain: (reply, detail, repeated) => {
          takenBefore = repeated && reply.status === 409
          return explain(reply, detail, repeated)
        }
      })
    )
    return sent.pipe(
      transport.batches().spend(draft.bytes(index)),
      Effect.flatMap(decodeJson(operation, Json.Submitted)),
      Effect.map(({ request_id }): string | TinkerError => request_id),
      Effect.catchIf(
        (error) =>
          takenBefore && error.reason._tag === "Conflict" && draft.checkpoint !== undefined && isOwn(draft.checkpoint),
        Effect.succeed
      )
    )
  }

  /**
   * Submits the requests of one operation. Of several the first goes last: a service that works in order then begins with none
   * before it has all, and one that cannot be submitted leaves the model as it was.
   */
  const submitAll = Effect.fnUntraced(function* <Part, A>(
    draft: Operations.Draft<Part, A>,
    seqIds: ReadonlyArray<number>
  ) {
    yield* Metric.update(submissions, seqIds.length)
    const [first = 0, ...others] = seqIds
    const rest = config.parallel_fwdbwd_chunks
      ? yield* Effect.forEach(others, (seqId, i) => submitOne(draft, i + 1, seqId), { concurrency: "unbounded" })
      : []
    const answers = [yield* submitOne(draft, 0, first), ...rest]
    if (!config.parallel_fwdbwd_chunks) {
      for (const [i, seqId] of others.entries()) answers.push(yield* submitOne(draft, i + 1, seqId))
    }
    return answers
  })

  const fetchOne = <Part, A>(
    draft: Operations.Draft<Part, A>,
    seqId: number,
    requestId: string,
    onState: (state: QueueState) => Effect.Effect<void>
  ) =>
    retrieve(transport, {
      operation: `${draft.kind} ${seqId}`,
      requestId,
      requestType: draft.requestType,
      runId: modelId,
      kind: draft.kind,
      decode: draft.decode,
      onState,
      toleranceMillis
    })

  /** Begins to fetch the result of an accepted operation. */
  const follow = Effect.fnUntraced(function* <Part, A>(
    draft: Operations.Draft<Part, A>,
    seqIds: ReadonlyArray<number>,
    answers: ReadonlyArray<string | TinkerError>
  ): Effect.fn.Return<ApiFuture<A>> {
    const result = Deferred.makeUnsafe<A, TinkerError>()
    const state = yield* SubscriptionRef.make(active)
    const one: Awaited = {
      fail: (error) => Deferred.doneUnsafe(result, Effect.fail(error)),
      fiber: undefined
    }
    awaited.add(one)
    const onState = (next: QueueState) => {
      const known = SubscriptionRef.getUnsafe(state)
      const told = notice(`${draft.kind} ${seqIds[0] ?? 0}`, next)
      if (known.state === next.state && known.reason === next.reason) return told
      if (next.state === "active") heldBack.delete(one)
      else heldBack.set(one, next)
      return SubscriptionRef.set(state, next).pipe(Effect.andThen(tellQueue), Effect.andThen(told))
    }
    const [answer] = answers
    const { checkpoint } = draft
    const fetchAll = (
      typeof answer === "object" && checkpoint !== undefined
        ? Effect.map(
            Saved.find(transport, { runId: modelId, ...checkpoint, toleranceMillis }, answer),
            checkpoint.found
          )
        : Effect.map(
            Effect.forEach(
              answers.filter((answer) => typeof answer === "string"),
              (requestId, index) => fetchOne(draft, seqIds[index] ?? 0, requestId, onState),
              { concurrency: "unbounded" }
            ),
            draft.combine
          )
    ).pipe(
      Effect.onExit((exit) => {
        awaited.delete(one)
        Deferred.doneUnsafe(result, exit)
        const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
        const after = heldBack.delete(one) ? tellQueue : Effect.void
        if (error?._tag !== "Some") return after
        if (error.value.reason._tag === "RunLost") return Effect.andThen(after, lose(error.value))
        if (!harmless.has(draft.kind)) noteFailure(error.value)
        return after
      }),
      Effect.asVoid,
      // Whoever awaits the result has the failure, and `failure` has it too.
      Effect.ignore
    )
    one.fiber = yield* Effect.forkIn(fetchAll, scope)
    if (!awaited.has(one)) one.fiber.interruptUnsafe()
    return {
      requestIds: answers.filter((answer) => typeof answer === "string"),
      result: Deferred.await(result),
      queueState: SubscriptionRef.changes(state).pipe(Stream.interruptWhen(Effect.exit(Deferred.await(result))))
    }
  })

  /** Gives an operation its place; from here on the order is fixed (T1). */
  const reserve = <Part, A>(draft: Operations.Draft<Part, A>): Effect.Effect<Placed<A>, TinkerError> =>
    Effect.withFiber((owner) => {
      if (stopped !== undefined) return Effect.fail(stopped)
      const seqIds = Array.from({ length: draft.count }, () => nextSeq++)
      if (draft.checkpoint !== undefined) {
        const name = `${draft.checkpoint.kind}/${draft.checkpoint.name}`
        saves.set(name, (saves.get(name) ?? 0) + 1)
      }
      const accepted = Deferred.makeUnsafe<ApiFuture<A>, TinkerError>()
      const first = seqIds[0] ?? 0

      const refuse = (error: TinkerError) =>
        Effect.suspend(() => {
          Deferred.doneUnsafe(accepted, Effect.fail(error))
          if (error.reason._tag === "RunLost") return lose(error)
          freeze(
            new TinkerError({
              reason: new SubmissionRefused({ runId: modelId, seqId: first, detail: error.message })
            })
          )
          return Effect.void
        })
      const run = submitAll(draft, seqIds).pipe(
        Effect.flatMap((answers) => follow(draft, seqIds, answers)),
        Effect.flatMap((future) => Deferred.succeed(accepted, future)),
        // Clearing the lane interrupts the fiber that this runs in.
        Effect.catch((error) => Effect.uninterruptible(refuse(error))),
        // A defect is a fault of this program: the caller gets it, and nothing is sent after it.
        Effect.onError((cause) =>
          Effect.sync(() => {
            Deferred.doneUnsafe(accepted, Effect.failCause(cause))
            if (!Cause.hasInterruptsOnly(cause)) stop(fenced(`an operation broke this client: ${Cause.pretty(cause)}`))
          })
        ),
        Effect.asVoid
      )
      const enter = lane.reserve({
        run,
        drop: () => Deferred.doneUnsafe(accepted, Effect.fail(stopped ?? fenced("it was stopped")))
      })
      const release = owner.addObserver((exit) => {
        if (Exit.isFailure(exit))
          stop(fenced(`operation ${first} was prepared, and its fiber ended before it submitted`))
      })
      let entered = false
      const begin = Effect.suspend(() => {
        if (entered) return Effect.void
        entered = true
        release()
        return enter
      })
      let digest: string | undefined
      const traced = Effect.withSpan(spanNames[draft.kind], {
        attributes: { "tinker.run.id": modelId, "tinker.seq_id": first }
      })
      const submit = Effect.uninterruptibleMask((restore) =>
        Effect.andThen(begin, restore(Deferred.await(accepted)))
      ).pipe(traced)
      return Effect.succeed({
        kind: draft.kind,
        seqIds,
        get digest() {
          return (digest ??= draft.digest)
        },
        submit,
        begin
      })
    })

  const placing = Semaphore.makeUnsafe(1)
  /** Calls take their places in the order in which they were made, also where one needs some time to be written. */
  const take = <Part, A>(draft: Effect.Effect<Operations.Draft<Part, A>, TinkerError>) =>
    Semaphore.withPermit(placing, Effect.flatMap(draft, reserve))

  const place = {
    forwardBackward: (data, options) => take(Operations.pass("forward_backward", data, options, config)),
    forward: (data, options) => take(Operations.pass("forward", data, options, config)),
    optimStep: (params, options) => take(Operations.optimStep(params, options)),
    saveState: (name, options) => take(Operations.saveState(name, options)),
    saveWeightsForSampler: (name, options) => take(Operations.saveWeightsForSampler(name, options)),
    saveWeightsEphemeral: (options) => take(Operations.saveWeightsEphemeral(options, session.nextSampler)),
    loadState: (path, options) => {
      const token = options.weightsAccessToken
      if (token !== undefined) transport.conceal(Redacted.isRedacted(token) ? Redacted.value(token) : token)
      return take(Effect.suspend(() => Operations.loadState(path, options, nextSeq)))
    }
  } satisfies TrainingClient["prepare"]

  /** Both halves in one go: no interruption comes between the place and its submission. */
  const now = <A>(placed: Effect.Effect<Placed<A>, TinkerError>): Effect.Effect<ApiFuture<A>, TinkerError> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(placed, ({ begin, submit }) => Effect.andThen(begin, restore(submit)))
    )

  const forwardBackwardCustom = Effect.fn("TrainingClient.forwardBackwardCustom")(function* <E, R>(
    data: ReadonlyArray<Datum>,
    loss: CustomLoss<E, R>,
    given?: CallOptions
  ): Effect.fn.Return<ApiFuture<CustomOutput>, TinkerError | E, R> {
    const crossEntropy = { ...given, loss: "cross_entropy" }
    const first = yield* now(place.forward(yield* Custom.forwardData(data), crossEntropy))
    const batch = yield* Custom.batchOf(data, yield* first.result)
    const told = loss(batch)
    const value = Effect.isEffect(told) ? yield* told : told
    const pass = yield* now(place.forwardBackward(yield* Custom.backwardData(batch, value), crossEntropy))
    return { ...pass, result: Effect.map(pass.result, Custom.outputOf(value)) }
  })

  const aboutModel = (operation: string, given: CallOptions | undefined) =>
    Effect.map(CallLimits.parse(operation, given), (limits) => ({
      operation,
      ...limits,
      body: encodeJson({ model_id: modelId }),
      explain: Status.lostModel(modelId, "model")
    }))

  const info = Effect.fn("TrainingClient.info")(function* (given?: CallOptions) {
    const operation = `get info of ${modelId}`
    const found = yield* transport
      .exchange({ endpoint: Endpoint.getInfo, ...(yield* aboutModel(operation, given)) })
      .pipe(Effect.flatMap(decodeJson(operation, Json.ModelInfo)))
    const data = found.model_data
    return {
      modelId: found.model_id,
      modelName: Option.fromNullishOr(found.model_name ?? data.model_name),
      tokenizerId: Option.fromNullishOr(data.tokenizer_id?.split(":")[0]),
      arch: Option.fromNullishOr(data.arch),
      isLora: Option.fromNullishOr(found.is_lora),
      loraRank: Option.fromNullishOr(found.lora_rank)
    } satisfies ModelInfo
  })

  const unload = Effect.fn("TrainingClient.unload")(function* (given?: CallOptions) {
    const operation = `unload ${modelId}`
    const submitted = yield* transport
      .exchange({ endpoint: Endpoint.unloadModel, ...(yield* aboutModel(operation, given)) })
      .pipe(Effect.flatMap(decodeJson(operation, Json.Submitted)))
    yield* Effect.sync(() => stop(fenced("its model was unloaded")))
    yield* retrieve(transport, {
      operation,
      requestId: submitted.request_id,
      requestType: "UnloadModel",
      runId: modelId,
      kind: "unload_model",
      decode: { _tag: "json", read: () => Effect.void },
      onState: () => Effect.void,
      toleranceMillis
    })
  })

  return {
    modelId,
    sessionId: session.id,
    nextSeq: Effect.sync(() => nextSeq),
    prepare: place,
    forwardBackward: (data, options) => now(place.forwardBackward(data, options)),
    forward: (data, options) => now(place.forward(data, options)),
    forwardBackwardCustom,
    optimStep: (params, options) => now(place.optimStep(params, options)),
    saveState: (name, options) => now(place.saveState(name, options)),
    saveWeightsForSampler: (name, options) => now(place.saveWeightsForSampler(name, options)),
    saveWeightsEphemeral: (options) => now(place.saveWeightsEphemeral(options)),
    loadState: (path, options) => now(place.loadState(path, options)),
    info,
    unload,
    failure: Deferred.await(failure),
    queueState: SubscriptionRef.changes(queue).pipe(Stream.interruptWhen(Deferred.await(failure))),
    fence: (why) => Effect.sync(() => stop(fenced(why)))
  }
})
