import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { ApiFuture, QueueState } from "../ApiFuture.ts"
import { Fenced, SubmissionRefused, TinkerError } from "../TinkerError.ts"
import type { ModelInfo, Prepared, TrainingClient } from "../TrainingClient.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Json from "../wire/Json.ts"
import * as Lane from "./lane.ts"
import * as Operations from "./operations.ts"
import { retrieve } from "./poll.ts"
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
  load_weights: "TrainingClient.loadState"
} as const

/** Failing, these leave the model as it was. */
const harmless: ReadonlySet<string> = new Set(["forward", "save_weights"])

interface Placed<A> extends Prepared<A> {
  /** Lets the operation go when its turn comes, without waiting for that. */
  readonly begin: Effect.Effect<void>
}

interface Awaited {
  readonly fail: (error: TinkerError) => void
  fiber: Fiber.Fiber<void> | undefined
}

/** A client of a model that exists; lives in the surrounding scope. */
export const make = Effect.fnUntraced(function* (options: {
  readonly transport: Transport
  readonly session: Session
  readonly config: ClientConfig
  readonly modelId: string
  readonly nextSeq: number
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

  /** Submits the requests of one operation, one after the other; each answer is the id of a result to come. */
  const submitAll = Effect.fnUntraced(function* <Part, A>(
    draft: Operations.Draft<Part, A>,
    seqIds: ReadonlyArray<number>
  ) {
    const requestIds: Array<string> = []
    for (const [index, seqId] of seqIds.entries()) {
      const operation = `${draft.kind} ${seqId}`
      yield* Metric.update(submissions, 1)
      const accepted = yield* transport
        .exchange({
          operation,
          ...draft.request(index, { modelId, seqId }),
          explain: Status.lostModel(modelId, draft.kind)
        })
        .pipe(Effect.flatMap(decodeJson(operation, Json.Submitted)))
      requestIds.push(accepted.request_id)
    }
    return requestIds
  })

  /** Begins to fetch the result of an accepted operation. */
  const follow = Effect.fnUntraced(function* <Part, A>(
    draft: Operations.Draft<Part, A>,
    seqIds: ReadonlyArray<number>,
    requestIds: ReadonlyArray<string>
  ): Effect.fn.Return<ApiFuture<A>> {
    const result = Deferred.makeUnsafe<A, TinkerError>()
    const state = yield* SubscriptionRef.make<QueueState>({ state: "active", reason: undefined })
    const one: Awaited = {
      fail: (error) => Deferred.doneUnsafe(result, Effect.fail(error)),
      fiber: undefined
    }
    awaited.add(one)
    const fetchAll = Effect.forEach(
      requestIds,
      (requestId, index) =>
        retrieve(transport, {
          operation: `${draft.kind} ${seqIds[index]}`,
          requestId,
          requestType: draft.requestType,
          runId: modelId,
          kind: draft.kind,
          decode: draft.decode,
          onState: (next) => {
            const known = SubscriptionRef.getUnsafe(state)
            return known.state === next.state && known.reason === next.reason
              ? Effect.void
              : SubscriptionRef.set(state, next)
          },
          toleranceMillis
        }),
      { concurrency: "unbounded" }
    ).pipe(
      Effect.map(draft.combine),
      Effect.onExit((exit) => {
        awaited.delete(one)
        Deferred.doneUnsafe(result, exit)
        const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
        if (error?._tag !== "Some") return Effect.void
        if (error.value.reason._tag === "RunLost") return lose(error.value)
        if (!harmless.has(draft.kind)) noteFailure(error.value)
        return Effect.void
      }),
      Effect.asVoid,
      // Whoever awaits the result has the failure, and `failure` has it too.
      Effect.ignore
    )
    one.fiber = yield* Effect.forkIn(fetchAll, scope)
    if (!awaited.has(one)) one.fiber.interruptUnsafe()
    return {
      requestIds,
      result: Deferred.await(result),
      queueState: SubscriptionRef.changes(state).pipe(Stream.interruptWhen(Effect.exit(Deferred.await(result))))
    }
  })

  /** Gives an operation its place; from here on the order is fixed (T1). */
  const reserve = <Part, A>(draft: Operations.Draft<Part, A>): Effect.Effect<Placed<A>, TinkerError> =>
    Effect.withFiber((owner) => {
      if (stopped !== undefined) return Effect.fail(stopped)
      const seqIds = Array.from({ length: draft.count }, () => nextSeq++)
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
        Effect.flatMap((requestIds) => follow(draft, seqIds, requestIds)),
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
      const traced = Effect.withSpan(spanNames[draft.kind], {
        attributes: { "tinker.run.id": modelId, "tinker.seq_id": first }
      })
      const submit = Effect.uninterruptibleMask((restore) =>
        Effect.andThen(begin, restore(Deferred.await(accepted)))
      ).pipe(traced)
      return Effect.succeed({ kind: draft.kind, seqIds, digest: draft.digest, submit, begin })
    })

  const place = {
    forwardBackward: (data, options) =>
      Effect.flatMap(Operations.pass("forward_backward", data, options, config), reserve),
    forward: (data, options) => Effect.flatMap(Operations.pass("forward", data, options, config), reserve),
    optimStep: (params) => Effect.flatMap(Operations.optimStep(params), reserve),
    saveState: (name, options) => Effect.flatMap(Operations.saveState(name, options?.ttl), reserve),
    loadState: (path, options) => Effect.flatMap(Operations.loadState(path, options.optimizer), reserve)
  } satisfies TrainingClient["prepare"]

  /** Both halves in one go: no interruption comes between the place and its submission. */
  const now = <A>(placed: Effect.Effect<Placed<A>, TinkerError>): Effect.Effect<ApiFuture<A>, TinkerError> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(placed, ({ begin, submit }) => Effect.andThen(begin, restore(submit)))
    )

  const aboutModel = { body: encodeJson({ model_id: modelId }), explain: Status.lostModel(modelId, "model") }

  const info = Effect.fn("TrainingClient.info")(function* () {
    const operation = `get info of ${modelId}`
    const found = yield* transport
      .exchange({ operation, endpoint: Endpoint.getInfo, ...aboutModel })
      .pipe(Effect.flatMap(decodeJson(operation, Json.ModelInfo)))
    const data = found.model_data
    return {
      modelId: found.model_id,
      modelName: found.model_name ?? data.model_name ?? undefined,
      tokenizerId: data.tokenizer_id?.split(":")[0],
      arch: data.arch ?? undefined,
      isLora: found.is_lora ?? undefined,
      loraRank: found.lora_rank ?? undefined
    } satisfies ModelInfo
  })

  const unload = Effect.fn("TrainingClient.unload")(function* () {
    const operation = `unload ${modelId}`
    const submitted = yield* transport
      .exchange({ operation, endpoint: Endpoint.unloadModel, ...aboutModel })
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
    optimStep: (params) => now(place.optimStep(params)),
    saveState: (name, options) => now(place.saveState(name, options)),
    loadState: (path, options) => now(place.loadState(path, options)),
    info: info(),
    unload: unload(),
    failure: Deferred.await(failure),
    fence: (why) => Effect.sync(() => stop(fenced(why)))
  }
})
