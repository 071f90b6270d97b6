import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { QueueState } from "../ApiFuture.ts"
import type { CallOptions } from "../CallOptions.ts"
import { Sampler } from "../Sampler.ts"
import type { SampleAllOptions, Sampled, SampleOptions, SampleResponse, SamplingClient } from "../SamplingClient.ts"
import { BillingPaused, InvalidInput, RateLimited, Stuck, Timeout, TinkerError } from "../TinkerError.ts"
import type { ModelInput } from "../wire/Datum.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Header from "../wire/Headers.ts"
import * as SampleRequest from "../wire/SampleRequest.ts"
import * as Wire from "../wire/SampleResponse.ts"
import * as SamplingSession from "../wire/SamplingSession.ts"
import * as CallLimits from "./callOptions.ts"
import * as Completions from "./completions.ts"
import { retrieve } from "./poll.ts"
import * as PromptRules from "./promptRules.ts"
import * as QueueNotice from "./queueNotice.ts"
import type { Reply } from "./request.ts"
import type { Dispatch } from "./samplingDispatch.ts"
import * as SampleRules from "./sampleRules.ts"
import type { Session } from "./session.ts"
import * as Status from "./status.ts"
import { backoff, badResponse, type ClientConfig, decodeJson, encodeJson, type Transport } from "./transport.ts"

const samples = Metric.counter("tinkex.tinker.samples", { incremental: true })
const resubmissions = Metric.counter("tinkex.tinker.resubmissions", { incremental: true })

/** Requests that another process sends from a session get numbers in a block of their own. */
export const blockSize = 1_000_000_000n

const defaultConcurrency = 100
/** So often a number may turn out to be taken before that is no accident any more. */
const conflictsAllowed = 3
const cancellationsAtOnce = 16
const cancelMillis = 10_000
/** Between two looks at whether waiting for a completion still makes sense. */
const lookMillis = 10_000

const invalid = (operation: string, field: string, problem: string) =>
  Effect.fail(new TinkerError({ reason: new InvalidInput({ operation, field, problem }) }))

const active: QueueState = { state: "active", reason: undefined }

/** The service's own word that it wants no samples now, for who holds the others back. */
const wantsPause =
  (operation: string) =>
  (reply: Reply, detail: string): TinkerError | undefined => {
    if (reply.headers[Header.shouldRetry] === "false") return undefined
    switch (reply.status) {
      case 402:
        return new TinkerError({ reason: new BillingPaused({ operation, detail, waited: Duration.zero }) })
      case 429:
        return new TinkerError({ reason: new RateLimited({ operation, detail, retryAfter: hintOf(reply) }) })
      default:
        return undefined
    }
  }

const hintOf = (reply: Reply): Duration.Duration | undefined => {
  // Seconds; for a date, which would need the clock, the usual pause stands in.
  const hint = Status.retryHintMillis(reply, Number.NaN)
  return hint === undefined ? undefined : Duration.millis(hint)
}

/** Whether the same request may be sent anew under another number. */
const isLostAnswer = ({ reason }: TinkerError): boolean => {
  switch (reason._tag) {
    case "PromiseExpired":
    case "Transport":
    case "Timeout":
    case "ServerFailure":
    case "RateLimited":
    case "Conflict":
      return true
    default:
      return false
  }
}

/** A sampler that exists. Its background work, where there is any, lives in `scope`. */
export const make = Effect.fnUntraced(function* (options: {
  readonly transport: Transport
  readonly config: ClientConfig
  readonly dispatch: Dispatch
  readonly scope: Scope.Scope
  readonly toleranceMillis: number
  /** What keeps the sampler alive, where that is known here. */
  readonly session: Session | undefined
  readonly sessionId: string
  readonly samplingSessionId: string
  /** Whose weights they are, for errors. */
  readonly runId: string
  readonly firstSeq: bigint
  readonly progressMillis: number
  readonly maxConcurrent: number | undefined
}) {
  const { config, dispatch, runId, samplingSessionId, scope, session, sessionId, toleranceMillis, transport } = options
  const { progressMillis } = options
  const permits = Math.min(options.maxConcurrent ?? Number.POSITIVE_INFINITY, config.sample_max_concurrent_requests)
  const places = Semaphore.makeUnsafe(permits)
  const cancelPlaces = Semaphore.makeUnsafe(cancellationsAtOnce)
  const state = yield* SubscriptionRef.make(active)
  const notice = QueueNotice.make("more weights are sampled from than the service allows at once")
  const completions = config.sample_use_retrieve_futures
    ? Completions.make({
        transport,
        samplingSessionId,
        clone: Number(options.firstSeq / blockSize),
        scope,
        toleranceMillis
      })
    : undefined

  let nextSeq = options.firstSeq
  let atWork = 0
  /** The last sign that waiting makes sense: a sample, a pause that the service speaks of, or the first request after none. */
  let hopeAt = 0

  const giveUp = (now: number): TinkerError | undefined => {
    if (session?.isLost() === true) {
      let lost: TinkerError | undefined
      session.onLost((error) => {
        lost = error
      })()
      return lost
    }
    const silence = now - hopeAt
    return config.sample_enable_stuck_detection && silence >= progressMillis
      ? new TinkerError({
          reason: new Stuck({ samplingSessionId, requests: atWork, silence: Duration.millis(silence) })
        })
      : undefined
  }

  const onState = (next: QueueState) => {
    const known = SubscriptionRef.getUnsafe(state)
    const changed = known.state !== next.state || known.reason !== next.reason
    if (next.state === "active") return changed ? SubscriptionRef.set(state, next) : Effect.void
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      hopeAt = now
      const tell = notice(`Sampler ${samplingSessionId}`, next)
      return changed ? Effect.andThen(SubscriptionRef.set(state, next), tell) : tell
    })
  }

  const abandon = (requestId: string) =>
    Effect.suspend(() => {
      if (!transport.dynamic().sample_cancel_enabled) return Effect.void
      const cancel = transport
        .send({
          operation: `cancel sample ${requestId}`,
          endpoint: Endpoint.cancelFuture,
          body: encodeJson({ request_id: requestId }),
          timeoutMillis: cancelMillis
        })
        .pipe(Effect.catch((error) => Effect.logDebug(`A sample goes on that nobody wants: ${error.message}`)))
      return Effect.asVoid(Effect.forkIn(Semaphore.withPermit(cancelPlaces, cancel), scope))
    })

  /** Waits for the news that a result is there, for as long as that makes sense. */
  const come = Effect.fnUntraced(function* (completions: Completions.Completions, requestId: string) {
    while ((yield* Effect.timeoutOption(completions.wait(requestId), lookMillis))._tag === "None") {
      const over = giveUp(yield* Clock.currentTimeMillis)
      if (over !== undefined) return yield* over
    }
  })

  /** One submission and its result. */
  const attempt = Effect.fnUntraced(function* (
    body: (seqId: bigint) => Uint8Array,
    bytes: number,
    limits: CallLimits.Limits,
    seqId: bigint
  ) {
    const operation = `sample ${seqId}`
    const send = transport
      .exchange({
        operation,
        endpoint: Endpoint.asample,
        body: body(seqId),
        maxRetries: limits.maxRetries,
        headers: { ...limits.headers, [Header.samplingBackpressure]: "1" },
        ownPauses: true,
        explain: wantsPause(operation)
      })
      .pipe(Effect.flatMap(decodeJson(operation, SamplingSession.SampleSubmitted)))
    const { request_id: requestId, sample_sequence_ids: names } = yield* dispatch.submit(bytes, send, giveUp)
    const fetch = retrieve(transport, {
      operation,
      requestId,
      requestType: "Sample",
      runId,
      kind: "sample",
      decode: {
        _tag: "binary",
        read: (bytes) => Effect.mapError(Wire.decode(bytes), (error) => badResponse(operation, error.message))
      },
      onState,
      giveUp,
      toleranceMillis
    })
    const awaited = completions === undefined ? fetch : Effect.andThen(come(completions, requestId), fetch)
    const response = yield* Effect.onInterrupt(awaited, () => abandon(requestId))
    if (names && names.length !== response.sequences.length) {
      const problem = `it names ${names.length} samples and gives ${response.sequences.length}`
      return yield* badResponse(operation, problem)
    }
    const sequences = response.sequences.map((sequence, i) => ({ ...sequence, sequenceId: names?.[i] }))
    return { ...response, sequences } satisfies SampleResponse
  })

  /** Until there is a result, or an end that a new try would not mend. */
  const untilAnswered = Effect.fnUntraced(function* (
    body: (seqId: bigint) => Uint8Array,
    bytes: number,
    limits: CallLimits.Limits,
    stubborn: boolean
  ) {
    const most = stubborn ? (limits.maxRetries ?? Number.POSITIVE_INFINITY) : 0
    let conflicts = 0
    for (let lost = 0; ; lost++) {
      const outcome = yield* Effect.result(attempt(body, bytes, limits, nextSeq++))
      const now = yield* Clock.currentTimeMillis
      if (Result.isSuccess(outcome)) {
        hopeAt = now
        if (SubscriptionRef.getUnsafe(state).state !== "active") yield* SubscriptionRef.set(state, active)
        return outcome.success
      }
      const error = outcome.failure
      if (error.reason._tag === "NotFound" && session !== undefined) {
        yield* session.check
        return yield* giveUp(now) ?? error
      }
      if (!isLostAnswer(error) || lost >= most) return yield* error
      if (error.reason._tag === "Conflict" && ++conflicts > conflictsAllowed) return yield* error
      yield* Metric.update(resubmissions, 1)
      const delay = yield* backoff(lost, 500, 10_000)
      yield* Effect.logDebug(`A sample is asked for anew in ${delay} ms: ${error.message}`)
      yield* Effect.sleep(delay)
      const over = giveUp(now + delay)
      if (over !== undefined) return yield* over
    }
  })

  /** One request among those that this client may have at work. */
  const inPlace = <A>(work: Effect.Effect<A, TinkerError>) =>
    Semaphore.withPermit(
      places,
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        if (atWork === 0) hopeAt = now
        const over = giveUp(now)
        if (over !== undefined) return Effect.fail(over)
        atWork++
        return Effect.ensuring(
          work,
          Effect.sync(() => {
            atWork--
          })
        )
      })
    )

  const draw = Effect.fnUntraced(function* (
    operation: string,
    prompt: ModelInput,
    given: SampleOptions,
    stubborn: boolean
  ) {
    const problem = SampleRules.breach(prompt, given)
    if (problem !== undefined) return yield* invalid(operation, problem.field, problem.problem)
    const limits = yield* CallLimits.parse(operation, given)
    const numSamples = given.numSamples ?? 1
    const work = Effect.suspend(() => {
      const body = SampleRequest.prepare({
        samplingSessionId,
        numSamples,
        prompt,
        params: given,
        promptLogprobs: given.promptLogprobs ?? false,
        topkPromptLogprobs: given.topkPromptLogprobs ?? 0,
        topkSampleLogprobs: given.topkSampleLogprobs,
        promptLogprobsLastN: given.promptLogprobsLastN,
        targetPromptLogprobs: given.targetPromptLogprobs,
        promptAltTokensK: given.promptAltTokensK,
        recordStabilityInfo: given.recordStabilityInfo
      })
      return untilAnswered(body, SampleRequest.estimateBytes(prompt), limits, stubborn)
    })
    const { deadlineMillis } = limits
    const response = yield* deadlineMillis === undefined
      ? inPlace(work)
      : Effect.timeoutOrElse(inPlace(work), {
          duration: deadlineMillis,
          orElse: () =>
            Effect.fail(new TinkerError({ reason: new Timeout({ operation, limit: Duration.millis(deadlineMillis) }) }))
        })
    yield* Metric.update(samples, numSamples)
    const whole = SampleRules.complete(prompt, given, response)
    return Result.isSuccess(whole) ? whole.success : yield* badResponse(operation, `it ${whole.failure}`)
  })

  const span = { attributes: { "tinker.sampling_session.id": samplingSessionId }, captureStackTrace: false }
  const stubborn = !config.sample_no_retries

  const sample = (prompt: ModelInput, given: SampleOptions = {}) =>
    draw("sample", prompt, given, stubborn).pipe(Effect.withSpan("SamplingClient.sample", span))

  const sampleAll = <E, R>(
    prompts: Iterable<ModelInput> | Stream.Stream<ModelInput, E, R>,
    given: SampleAllOptions = {}
  ): Stream.Stream<Sampled, E | TinkerError, R> => {
    const { concurrency = defaultConcurrency } = given
    if (!(PromptRules.isCount(concurrency) && concurrency > 0)) {
      return Stream.fromEffect(invalid("sample", "concurrency", `is ${concurrency} and must be a whole number above 0`))
    }
    const stream: Stream.Stream<ModelInput, E, R> = Stream.isStream(prompts) ? prompts : Stream.fromIterable(prompts)
    return stream.pipe(
      Stream.zipWithIndex,
      Stream.mapEffect(
        ([prompt, index]) => Effect.map(Effect.result(sample(prompt, given)), (result) => ({ index, prompt, result })),
        { concurrency, unordered: true }
      )
    )
  }

  const computeLogprobs = Effect.fn("SamplingClient.computeLogprobs")(function* (
    prompt: ModelInput,
    call?: CallOptions
  ) {
    const operation = "compute logprobs"
    const response = yield* draw(operation, prompt, { ...call, maxTokens: 1, promptLogprobs: true }, true)
    // Otherwise it would not be complete.
    return response.promptLogprobs ?? []
  })

  const client: SamplingClient = {
    samplingSessionId,
    sessionId,
    handle: { sessionId, samplingSessionId },
    sample,
    sampleAll,
    computeLogprobs,
    queueState: SubscriptionRef.changes(state),
    info: Effect.fn("SamplingClient.info")(function* (call?: CallOptions) {
      const found = yield* transport.request(Endpoint.sampler(samplingSessionId), {
        operation: `get sampler ${samplingSessionId}`,
        decode: Sampler,
        call
      })
      return found
    })
  }
  return client
})
