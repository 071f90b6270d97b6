/** What each operation says, in bytes, and what its result means. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { createHash } from "node:crypto"
import type { TinkerError } from "../TinkerError.ts"
import type {
  EphemeralSaveResult,
  ForwardBackwardOutput,
  LoadOptions,
  LoadResult,
  LossOptions,
  OperationKind,
  OptimizerParams,
  OptimStepResult,
  SaveOptions,
  SaveResult,
  SaveStateOptions
} from "../TrainingClient.ts"
import type { CallOptions } from "../CallOptions.ts"
import * as CheckpointPath from "../wire/CheckpointPath.ts"
import type { Datum } from "../wire/Datum.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Header from "../wire/Headers.ts"
import * as Json from "../wire/Json.ts"
import * as Protobuf from "../wire/Protobuf.ts"
import * as Zstd from "../wire/Zstd.ts"
import { checkTrainingPath, checkTtl, invalid } from "./arguments.ts"
import * as CallLimits from "./callOptions.ts"
import * as Chunks from "./chunks.ts"
import * as DatumRules from "./datumRules.ts"
import type { Poll } from "./poll.ts"
import { badResponse, type ClientConfig, decodeValue, encodeJson, type Outgoing } from "./transport.ts"

/** An operation before it has a place. */
export interface Draft<Part, A> {
  readonly kind: OperationKind
  /** What the service calls it when its result is asked for. */
  readonly requestType: string
  /** Of all that it says but its address; worked out when it is first asked for. */
  readonly digest: string
  /** Requests that it takes, and with them numbers. */
  readonly count: number
  /** What the caller allows each request. */
  readonly limits: CallLimits.Limits
  /** Bytes of the `index`-th request, before compression. */
  readonly bytes: (index: number) => number
  /** The `index`-th request, made once. */
  readonly request: (
    index: number,
    to: { readonly modelId: string; readonly seqId: number }
  ) => Effect.Effect<Pick<Outgoing, "endpoint" | "body" | "contentType" | "headers">>
  readonly decode: Poll<Part>["decode"]
  readonly combine: (parts: ReadonlyArray<Part>) => A
  /** The checkpoint that a named save makes, and the result that it comes to where its own answer is lost. */
  readonly checkpoint?: {
    readonly kind: CheckpointPath.CheckpointPath["kind"]
    readonly name: string
    readonly found: (path: string) => A
  }
}

const emptyPass = { modelId: "", seqId: 0, data: [], lossFn: "", lossFnConfig: {}, forwardOnly: false }

/**
 * The message is put together from three encodings: its address, the data, the rest. Fields of a protobuf message may be
 * concatenated, so the data is encoded once, and hashed without the address and without regard to how it is split.
 */
export const pass = Effect.fnUntraced(function* (
  kind: "forward_backward" | "forward",
  data: ReadonlyArray<Datum>,
  options: LossOptions,
  config: ClientConfig
): Effect.fn.Return<Draft<ForwardBackwardOutput, ForwardBackwardOutput>, TinkerError> {
  const breach = DatumRules.breach(data, options)
  if (breach !== undefined) return yield* invalid(kind, breach.field, breach.problem)
  const limits = yield* CallLimits.parse(kind, options)
  const rest = Protobuf.encodeForwardBackwardRequest({
    ...emptyPass,
    lossFn: options.loss,
    lossFnConfig: sorted(options.lossConfig ?? {}),
    forwardOnly: kind === "forward"
  })
  const chunks = Chunks.split(data, {
    maxLength: config.fwdbwd_max_chunk_len,
    maxBytes: config.fwdbwd_max_chunk_bytes_count
  })
  const parts: Array<Uint8Array> = []
  let before = 0
  let written = 0
  for (const chunk of chunks) {
    if (written > turnBytes) {
      written = 0
      yield* Effect.yieldNow
    }
    const part = yield* encode(kind, chunk, rest, before)
    parts.push(part)
    before += chunk.length
    written += part.byteLength
  }
  return {
    kind,
    requestType: kind === "forward" ? "Forward" : "ForwardBackward",
    get digest() {
      const hash = createHash("sha256").update("pass\n").update(rest)
      for (const part of parts) hash.update(part.subarray(addressRoom, part.byteLength - rest.byteLength))
      return hash.digest("hex")
    },
    count: chunks.length,
    limits,
    bytes: (index) => (parts[index]?.byteLength ?? 0) - addressRoom,
    request: (index, { modelId, seqId }) =>
      Effect.suspend(() => {
        const address = Protobuf.encodeForwardBackwardRequest({ ...emptyPass, modelId, seqId })
        const bytes = behind(address, parts[index] ?? new Uint8Array(addressRoom))
        const plain = { endpoint: Endpoint.forwardBackward, contentType: Header.protobuf }
        return config.proto_compress_fwdbwd
          ? Effect.map(Zstd.compressAside(bytes), (body) => ({
              ...plain,
              body,
              headers: { "content-encoding": "zstd" }
            }))
          : Effect.succeed({ ...plain, body: bytes })
      }),
    decode: {
      _tag: "binary",
      read: (bytes) =>
        Protobuf.decodeForwardBackwardOutput(bytes).pipe(Effect.mapError((error) => badResponse(kind, error.message)))
    },
    combine: Chunks.combine
  }
})

/** The data of one request with what stands behind it, and room for the address before it. */
const encode = (
  kind: "forward_backward" | "forward",
  data: ReadonlyArray<Datum>,
  rest: Uint8Array,
  before: number
): Effect.Effect<Uint8Array, TinkerError> =>
  Effect.try({
    try: () => {
      const part = Protobuf.encodeData(data, { before: addressRoom, after: rest.byteLength })
      part.set(rest, part.byteLength - rest.byteLength)
      return part
    },
    catch: (cause) => {
      const { field, problem } = DatumRules.unwritable(data, before) ?? {
        field: "data",
        problem: `cannot be encoded: ${cause instanceof Error ? cause.message : String(cause)}`
      }
      return invalid(kind, field, problem)
    }
  })

/** So much is written in a few milliseconds; then others get their turn. */
const turnBytes = 4_000_000

/** Bytes before the data of a request, for the address, which is known only when it has a place. */
const addressRoom = 512

/** An address and what follows it, in one piece. */
const behind = (address: Uint8Array, part: Uint8Array): Uint8Array => {
  if (address.byteLength > addressRoom) return Buffer.concat([address, part.subarray(addressRoom)])
  const start = addressRoom - address.byteLength
  part.set(address, start)
  return part.subarray(start)
}

const sorted = (config: Protobuf.LossFnConfig): Protobuf.LossFnConfig =>
  Object.fromEntries(Object.entries(config).toSorted(([a], [b]) => (a < b ? -1 : 1)))

/** An operation of one JSON request, whose digest is that of what it says beside its address. */
const single = <A>(options: {
  readonly kind: OperationKind
  readonly requestType: string
  readonly endpoint: { readonly method: string; readonly path: string }
  readonly says: Record<string, unknown>
  /** Part of the request and not of the digest: what another process would have to say otherwise. */
  readonly aside?: Record<string, unknown>
  readonly limits: CallLimits.Limits
  readonly read: (value: unknown) => Effect.Effect<A, TinkerError>
  readonly checkpoint?: Draft<A, A>["checkpoint"]
}): Draft<A, A> => ({
  kind: options.kind,
  requestType: options.requestType,
  digest: createHash("sha256")
    .update(`${options.kind}\n${JSON.stringify(options.says)}`)
    .digest("hex"),
  count: 1,
  limits: options.limits,
  bytes: () => 0,
  request: (_, { modelId, seqId }) =>
    Effect.sync(() => ({
      endpoint: options.endpoint,
      body: encodeJson({ ...options.says, ...options.aside, model_id: modelId, seq_id: seqId, type: options.kind })
    })),
  decode: { _tag: "json", read: options.read },
  // One request, hence one part.
  combine: (parts) => parts[0] as A,
  ...(options.checkpoint === undefined ? {} : { checkpoint: options.checkpoint })
})

/** Which values make sense in the arithmetic of an optimizer. */
const optimizerRules: Record<string, { readonly fits: (value: number) => boolean; readonly must: string }> = {
  learning_rate: { fits: (value) => value >= 0, must: "0 or above" },
  beta1: { fits: (value) => value >= 0 && value < 1, must: "from 0 to below 1" },
  beta2: { fits: (value) => value >= 0 && value < 1, must: "from 0 to below 1" },
  eps: { fits: (value) => value >= 0, must: "0 or above" },
  weight_decay: { fits: (value) => value >= 0, must: "0 or above" },
  grad_clip_norm: { fits: (value) => value >= 0, must: "0 (no clipping) or above" }
}

/** What the service calls the parameters, with its own defaults filled in. */
const optimizerSays = (
  params: OptimizerParams
): { readonly key: string; readonly type?: string; readonly values: Readonly<Record<string, number>> } =>
  params.optimizer === "dimuon"
    ? {
        key: "optimizer_params",
        type: "dimuon",
        values: {
          learning_rate: params.learningRate,
          grad_clip_norm: params.gradClipNorm ?? 0,
          beta1: params.beta1 ?? 0.9
        }
      }
    : {
        key: "adam_params",
        values: {
          learning_rate: params.learningRate,
          beta1: params.beta1 ?? 0.9,
          beta2: params.beta2 ?? 0.95,
          eps: params.eps ?? 1e-12,
          weight_decay: params.weightDecay ?? 0,
          grad_clip_norm: params.gradClipNorm ?? 0
        }
      }

export const optimStep = Effect.fnUntraced(function* (
  params: OptimizerParams,
  options: CallOptions | undefined
): Effect.fn.Return<Draft<OptimStepResult, OptimStepResult>, TinkerError> {
  const kind = "optim_step"
  const { key, type, values } = optimizerSays(params)
  for (const [field, value] of Object.entries(values)) {
    // JSON would turn it into null, and the service into a default.
    if (!Number.isFinite(value)) return yield* invalid(kind, field, `is ${value} and must be a finite number`)
    const rule = optimizerRules[field]
    if (rule !== undefined && !rule.fits(value)) {
      return yield* invalid(kind, field, `is ${value} and must be ${rule.must}`)
    }
  }
  return single({
    kind,
    requestType: "OptimStep",
    endpoint: Endpoint.optimStep,
    says: { [key]: type === undefined ? values : { type, ...values } },
    limits: yield* CallLimits.parse(kind, options),
    read: (value) =>
      Effect.map(decodeValue(kind, Json.OptimStep)(value), ({ metrics }) => ({
        metrics: Object.fromEntries(Object.entries(metrics ?? {}).map(([name, metric]) => [name, metric ?? Number.NaN]))
      }))
  })
})

const checkName = (kind: OperationKind, name: string): Effect.Effect<void, TinkerError> =>
  /^[A-Za-z0-9_.-]{1,255}$/.test(name) && CheckpointPath.isSegment(name)
    ? Effect.void
    : Effect.fail(invalid(kind, "name", `"${name.slice(0, 80)}" must be 1 to 255 of A-Z a-z 0-9 . _ - and not . or ..`))

const timeToLive = (
  kind: OperationKind,
  ttl: Duration.Input | undefined
): Effect.Effect<{ readonly ttl_seconds?: number }, TinkerError> =>
  ttl === undefined ? Effect.succeed({}) : Effect.map(checkTtl(kind, ttl), (seconds) => ({ ttl_seconds: seconds }))

const labels = (options: SaveOptions | undefined) =>
  options?.userMetadata === undefined ? {} : { user_metadata: options.userMetadata }

export const saveState = Effect.fnUntraced(function* (
  name: string,
  options: SaveStateOptions | undefined
): Effect.fn.Return<Draft<SaveResult, SaveResult>, TinkerError> {
  const kind = "save_weights"
  yield* checkName(kind, name)
  return single({
    kind,
    requestType: "SaveWeights",
    endpoint: Endpoint.saveWeights,
    says: {
      path: name,
      ...(yield* timeToLive(kind, options?.ttl)),
      overwrite: options?.overwrite ?? false,
      ...labels(options)
    },
    limits: yield* CallLimits.parse(kind, options),
    read: (value) => Effect.map(decodeValue(kind, Json.SaveWeights)(value), ({ path }) => ({ path })),
    checkpoint: { kind: "weights", name, found: (path) => ({ path }) }
  })
})

const samplerSave = { kind: "save_weights_for_sampler", requestType: "SaveWeightsForSampler" } as const

export const saveWeightsForSampler = Effect.fnUntraced(function* (
  name: string,
  options: SaveOptions | undefined
): Effect.fn.Return<Draft<SaveResult, SaveResult>, TinkerError> {
  const { kind } = samplerSave
  yield* checkName(kind, name)
  return single({
    ...samplerSave,
    endpoint: Endpoint.saveWeightsForSampler,
    says: { path: name, ...(yield* timeToLive(kind, options?.ttl)), ...labels(options) },
    limits: yield* CallLimits.parse(kind, options),
    read: (value) =>
      Effect.flatMap(decodeValue(kind, Json.SaveWeightsForSampler)(value), ({ path }) =>
        path == null ? Effect.fail(badResponse(kind, "it has no path")) : Effect.succeed({ path })
      ),
    checkpoint: { kind: "sampler_weights", name, found: (path) => ({ path }) }
  })
})

/** `nextSampler` is asked once the arguments are known to be good. */
export const saveWeightsEphemeral = Effect.fnUntraced(function* (
  options: SaveOptions | undefined,
  nextSampler: () => number
): Effect.fn.Return<Draft<EphemeralSaveResult, EphemeralSaveResult>, TinkerError> {
  const { kind } = samplerSave
  const says = { ...(yield* timeToLive(kind, options?.ttl)), ...labels(options) }
  const limits = yield* CallLimits.parse(kind, options)
  return single({
    ...samplerSave,
    endpoint: Endpoint.saveWeightsForSampler,
    says,
    aside: { sampling_session_seq_id: nextSampler() },
    limits,
    read: (value) =>
      Effect.flatMap(decodeValue(kind, Json.SaveWeightsForSampler)(value), ({ sampling_session_id: id }) =>
        id == null
          ? Effect.fail(badResponse(kind, "it has no sampling_session_id"))
          : Effect.succeed({ samplingSessionId: id })
      )
  })
})

/** `nextSeq` is the number that the load would get. */
export const loadState = Effect.fnUntraced(function* (
  path: string,
  options: LoadOptions,
  nextSeq: number
): Effect.fn.Return<Draft<LoadResult, LoadResult>, TinkerError> {
  const kind = "load_weights"
  yield* checkTrainingPath(kind, path)
  if (nextSeq > 1) {
    // The service would refuse it, and with it everything behind it.
    const problem = `would be operation ${nextSeq} of its model, and services load only as the first: make a new model of ${path}`
    return yield* invalid(kind, "loadState", problem)
  }
  const token = options.weightsAccessToken
  return single({
    kind,
    requestType: "LoadWeights",
    endpoint: Endpoint.loadWeights,
    says: { path, optimizer: options.optimizer },
    ...(token === undefined
      ? {}
      : { aside: { weights_access_token: Redacted.isRedacted(token) ? Redacted.value(token) : token } }),
    limits: yield* CallLimits.parse(kind, options),
    read: (value) =>
      Effect.map(decodeValue(kind, Json.LoadWeights)(value), ({ path }) => ({ path: Option.fromNullishOr(path) }))
  })
})
