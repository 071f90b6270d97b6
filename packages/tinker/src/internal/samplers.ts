/** Makes samplers from whatever has weights. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { SamplingClient, SamplingHandle, SamplingOptions } from "../SamplingClient.ts"
import { InvalidInput, TinkerError } from "../TinkerError.ts"
import type { TrainingClient } from "../TrainingClient.ts"
import * as CheckpointPath from "../wire/CheckpointPath.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as SamplingSession from "../wire/SamplingSession.ts"
import * as CallLimits from "./callOptions.ts"
import * as Sampling from "./samplingClient.ts"
import * as Dispatch from "./samplingDispatch.ts"
import type { Session } from "./session.ts"
import type { Transport } from "./transport.ts"

const operation = "create a sampler"

const invalid = (field: string, problem: string) =>
  new TinkerError({ reason: new InvalidInput({ operation, field, problem }) })

const defaultProgressTimeout: Duration.Input = "2 hours"
const blocks = 1_000_000_000

/** A sampler before its client. */
interface Opened {
  readonly samplingSessionId: string
  readonly sessionId: string
  readonly session: Session | undefined
  readonly runId: string
  readonly firstSeq: bigint
}

const sourceFields = ["baseModel", "modelPath", "weightsOf", "handle"] as const

const breach = (options: SamplingOptions): { field: string; problem: string } | undefined => {
  const given = sourceFields.filter((field) => field in options && Reflect.get(options, field) !== undefined)
  const fits = given.length === 1 || (given.length === 2 && given[0] === "baseModel" && given[1] === "modelPath")
  if (!fits) {
    const problem =
      given.length === 0
        ? "are all missing: say whose weights to sample from"
        : "contradict each other: give one (a base model may stand beside a path)"
    return { field: (given.length === 0 ? sourceFields : given).join(", "), problem }
  }
  if ("baseModel" in options && options.baseModel !== undefined && options.baseModel.trim() === "") {
    return { field: "baseModel", problem: "is empty" }
  }
  if ("modelPath" in options) {
    const { modelPath } = options
    if (!modelPath.startsWith("tinker://")) {
      return { field: "modelPath", problem: `"${modelPath.slice(0, 80)}" does not begin with tinker://` }
    }
    if (/^tinker:\/\/[^/]+\/weights\//.test(modelPath)) {
      const problem = `"${modelPath.slice(0, 200)}" is a checkpoint for training; save one with saveWeightsForSampler`
      return { field: "modelPath", problem }
    }
  }
  if ("handle" in options) {
    for (const field of ["sessionId", "samplingSessionId"] as const) {
      if (!CheckpointPath.isSegment(options.handle[field])) return { field: `handle.${field}`, problem: "is no id" }
    }
  }
  const { maxConcurrent } = options
  if (maxConcurrent !== undefined && !(Number.isSafeInteger(maxConcurrent) && maxConcurrent > 0)) {
    return { field: "maxConcurrent", problem: `is ${maxConcurrent} and must be a whole number above 0` }
  }
  return undefined
}

export const make = (options: {
  readonly transport: Transport
  readonly scope: Scope.Scope
  readonly toleranceMillis: number
  /** Uses the current session, or a new one where it is found dead. */
  readonly inSession: <A>(use: (live: Session) => Effect.Effect<A, TinkerError>) => Effect.Effect<A, TinkerError>
  /** The session of that id, if it is the one of this process. */
  readonly own: (sessionId: string) => Session | undefined
  /** Keeps the session of another process alive too. */
  readonly keep: (sessionId: string) => Effect.Effect<Session>
}): ((options: SamplingOptions) => Effect.Effect<SamplingClient, TinkerError>) => {
  const { inSession, own, scope, toleranceMillis, transport } = options
  let dispatch: Dispatch.Dispatch | undefined
  const kept = new Map<string, Session>()

  const fromWeights = (
    source: { readonly baseModel?: string | undefined; readonly modelPath?: string | undefined },
    call: SamplingOptions
  ): Effect.Effect<Opened, TinkerError> =>
    inSession((live) => {
      const body = {
        session_id: live.id,
        sampling_session_seq_id: live.nextSampler(),
        ...(source.baseModel === undefined ? {} : { base_model: source.baseModel }),
        ...(source.modelPath === undefined ? {} : { model_path: source.modelPath }),
        type: "create_sampling_session"
      }
      return transport
        .request(Endpoint.createSamplingSession, {
          operation,
          body,
          decode: SamplingSession.CreateSamplingSession,
          call
        })
        .pipe(
          Effect.map(({ sampling_session_id: samplingSessionId }) => ({
            samplingSessionId,
            sessionId: live.id,
            session: live,
            runId: runOf(source.modelPath) ?? samplingSessionId,
            firstSeq: 0n
          }))
        )
    })

  const fromClient = Effect.fnUntraced(function* (
    client: TrainingClient,
    call: SamplingOptions
  ): Effect.fn.Return<Opened, TinkerError> {
    const { deadline, headers, retries } = call
    const saved = yield* client.saveWeightsEphemeral({ deadline, headers, retries })
    const { samplingSessionId } = yield* saved.result
    const { modelId, sessionId } = client
    return { samplingSessionId, sessionId, session: own(sessionId), runId: modelId, firstSeq: 0n }
  })

  /** A number that no other process has: as the service says, or one of so many that two are hardly ever the same. */
  const blockOf = Effect.fnUntraced(function* (samplingSessionId: string, call: SamplingOptions) {
    const config = yield* transport.boot
    if (!config.sample_join_sampling_session) return yield* Random.nextIntBetween(1, blocks)
    const joined = yield* transport.request(Endpoint.joinSamplingSession, {
      operation: `join sampler ${samplingSessionId}`,
      body: { sampling_session_id: samplingSessionId, type: "join_sampling_session" },
      decode: SamplingSession.JoinSamplingSession,
      call
    })
    return joined.client_counter
  })

  const fromHandle = Effect.fnUntraced(function* (handle: SamplingHandle, call: SamplingOptions) {
    const { samplingSessionId, sessionId } = handle
    let session = own(sessionId) ?? kept.get(sessionId)
    if (session === undefined || session.isLost()) {
      session = yield* options.keep(sessionId)
      kept.set(sessionId, session)
    }
    const firstSeq = BigInt(yield* blockOf(samplingSessionId, call)) * Sampling.blockSize
    return { samplingSessionId, sessionId, session, runId: samplingSessionId, firstSeq }
  })

  const opened = (given: SamplingOptions): Effect.Effect<Opened, TinkerError> => {
    if ("weightsOf" in given) return fromClient(given.weightsOf, given)
    return "handle" in given ? fromHandle(given.handle, given) : fromWeights(given, given)
  }

  return Effect.fn("ServiceClient.createSamplingClient")(function* (given: SamplingOptions) {
    const problem = breach(given)
    if (problem !== undefined) return yield* invalid(problem.field, problem.problem)
    const limits = yield* CallLimits.parse(operation, given)
    const progress = Duration.fromInput(given.progressTimeout ?? defaultProgressTimeout)
    if (Option.isNone(progress) || !(Duration.toMillis(progress.value) > 0)) {
      return yield* invalid("progressTimeout", 'must be a duration above 0, such as "30 minutes"')
    }
    const config = yield* transport.bootFor(operation, limits)
    dispatch ??= Dispatch.make({
      bytes: config.sample_dispatch_bytes_semaphore_size,
      billingMillis: config.billing_exception_max_pause_duration_sec * 1000
    })
    return yield* Sampling.make({
      transport,
      config,
      dispatch,
      scope,
      toleranceMillis,
      ...(yield* opened(given)),
      progressMillis: Duration.toMillis(progress.value),
      maxConcurrent: given.maxConcurrent
    })
  })
}

/** Sampler paths of some servers have more parts than two. */
const runOf = (path: string | undefined): string | undefined => /^tinker:\/\/([^/]+)/.exec(path ?? "")?.[1]
