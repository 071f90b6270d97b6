/** What each operation says, in bytes, and what its result means. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import { InvalidInput, TinkerError } from "../TinkerError.ts"
import type {
  AdamParams,
  ForwardBackwardOutput,
  LoadResult,
  LossOptions,
  OperationKind,
  OptimStepResult,
  SaveResult
} from "../TrainingClient.ts"
import type { Datum } from "../wire/Datum.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Header from "../wire/Headers.ts"
import * as Json from "../wire/Json.ts"
import * as Protobuf from "../wire/Protobuf.ts"
import * as Zstd from "../wire/Zstd.ts"
import * as Chunks from "./chunks.ts"
import type { Poll } from "./poll.ts"
import { badResponse, type ClientConfig, decodeValue, encodeJson, type Outgoing } from "./transport.ts"

/** An operation before it has a place. */
export interface Draft<Part, A> {
  readonly kind: OperationKind
  /** What the service calls it when its result is asked for. */
  readonly requestType: string
  readonly digest: string
  /** Requests that it takes, and with them numbers. */
  readonly count: number
  /** The `index`-th request, called once. */
  readonly request: (
    index: number,
    to: { readonly modelId: string; readonly seqId: number }
  ) => Pick<Outgoing, "endpoint" | "body" | "contentType" | "headers">
  readonly decode: Poll<Part>["decode"]
  readonly combine: (parts: ReadonlyArray<Part>) => A
}

const invalid = (operation: string, field: string, problem: string) =>
  new TinkerError({ reason: new InvalidInput({ operation, field, problem }) })

const emptyPass = { modelId: "", seqId: 0, data: [], lossFn: "", lossFnConfig: {}, forwardOnly: false }

/**
 * The message is put together from three encodings: its address, the data, the rest. Fields of a protobuf message may be
 * concatenated, so the data is encoded once, and hashed without the address and without regard to how it is split.
 */
export const pass = (
  kind: "forward_backward" | "forward",
  data: ReadonlyArray<Datum>,
  options: LossOptions,
  config: ClientConfig
): Effect.Effect<Draft<ForwardBackwardOutput, ForwardBackwardOutput>, TinkerError> =>
  Effect.suspend(() => {
    if (data.length === 0) return Effect.fail(invalid(kind, "data", "is empty: give at least one datum"))
    if (options.loss === "") return Effect.fail(invalid(kind, "loss", "is empty"))
    const chunks = Chunks.split(data, {
      maxLength: config.fwdbwd_max_chunk_len,
      maxBytes: config.fwdbwd_max_chunk_bytes_count
    })
    return Effect.try({
      try: () => {
        const rest = Protobuf.encodeForwardBackwardRequest({
          ...emptyPass,
          lossFn: options.loss,
          lossFnConfig: sorted(options.lossConfig ?? {}),
          forwardOnly: kind === "forward"
        })
        const parts = chunks.map((data) => Protobuf.encodeForwardBackwardRequest({ ...emptyPass, data }))
        const hash = createHash("sha256").update("pass\n").update(rest)
        for (const part of parts) hash.update(part)
        return { rest, parts, digest: hash.digest("hex") }
      },
      catch: (cause) => invalid(kind, "data", `cannot be encoded: ${cause instanceof Error ? cause.message : "?"}`)
    }).pipe(
      Effect.map(({ digest, parts, rest }) => ({
        kind,
        requestType: kind === "forward" ? "Forward" : "ForwardBackward",
        digest,
        count: chunks.length,
        request: (index, { modelId, seqId }) => {
          const address = Protobuf.encodeForwardBackwardRequest({ ...emptyPass, modelId, seqId })
          const bytes = Buffer.concat([address, parts[index] ?? new Uint8Array(), rest])
          return {
            endpoint: Endpoint.forwardBackward,
            body: config.proto_compress_fwdbwd ? Zstd.compress(bytes) : bytes,
            contentType: Header.protobuf,
            ...(config.proto_compress_fwdbwd ? { headers: { "content-encoding": "zstd" } } : {})
          }
        },
        decode: {
          _tag: "binary",
          read: (bytes) =>
            Protobuf.decodeForwardBackwardOutput(bytes).pipe(
              Effect.mapError((error) => badResponse(kind, error.message))
            )
        },
        combine: Chunks.combine
      }))
    )
  })

const sorted = (config: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(config).toSorted(([a], [b]) => (a < b ? -1 : 1)))

/** An operation of one JSON request, whose digest is that of what it says beside its address. */
const single = <A>(options: {
  readonly kind: OperationKind
  readonly requestType: string
  readonly endpoint: { readonly method: string; readonly path: string }
  readonly says: Record<string, unknown>
  readonly read: (value: unknown) => Effect.Effect<A, TinkerError>
}): Draft<A, A> => ({
  kind: options.kind,
  requestType: options.requestType,
  digest: createHash("sha256")
    .update(`${options.kind}\n${JSON.stringify(options.says)}`)
    .digest("hex"),
  count: 1,
  request: (_, { modelId, seqId }) => ({
    endpoint: options.endpoint,
    body: encodeJson({ ...options.says, model_id: modelId, seq_id: seqId, type: options.kind })
  }),
  decode: { _tag: "json", read: options.read },
  // One request, hence one part.
  combine: (parts) => parts[0] as A
})

export const optimStep = (params: AdamParams): Effect.Effect<Draft<OptimStepResult, OptimStepResult>, TinkerError> => {
  const kind = "optim_step"
  const adam = {
    learning_rate: params.learningRate,
    beta1: params.beta1 ?? 0.9,
    beta2: params.beta2 ?? 0.95,
    eps: params.eps ?? 1e-12,
    weight_decay: params.weightDecay ?? 0,
    grad_clip_norm: params.gradClipNorm ?? 0
  }
  for (const [field, value] of Object.entries(adam)) {
    // JSON would turn it into null, and the service into a default.
    if (!Number.isFinite(value)) return Effect.fail(invalid(kind, field, `is ${value} and must be a finite number`))
  }
  return Effect.succeed(
    single({
      kind,
      requestType: "OptimStep",
      endpoint: Endpoint.optimStep,
      says: { adam_params: adam },
      read: (value) =>
        Effect.map(decodeValue(kind, Json.OptimStep)(value), ({ metrics }) => ({
          metrics: Object.fromEntries(
            Object.entries(metrics ?? {}).map(([name, metric]) => [name, metric ?? Number.NaN])
          )
        }))
    })
  )
}

export const saveState = (
  name: string,
  ttl: Duration.Input | undefined
): Effect.Effect<Draft<SaveResult, SaveResult>, TinkerError> => {
  const kind = "save_weights"
  if (!/^[A-Za-z0-9_.-]{1,255}$/.test(name)) {
    const problem = `"${name.slice(0, 80)}" must be 1 to 255 of A-Z a-z 0-9 . _ -`
    return Effect.fail(invalid(kind, "name", problem))
  }
  const given = ttl === undefined ? undefined : Duration.fromInput(ttl)
  const seconds = given?._tag === "Some" ? Duration.toSeconds(given.value) : undefined
  if (ttl !== undefined && (seconds === undefined || !Number.isInteger(seconds) || seconds < 1)) {
    return Effect.fail(invalid(kind, "ttl", "must be a whole number of seconds above 0"))
  }
  return Effect.succeed(
    single({
      kind,
      requestType: "SaveWeights",
      endpoint: Endpoint.saveWeights,
      says: { path: name, ...(seconds === undefined ? {} : { ttl_seconds: seconds }), overwrite: false },
      read: (value) => Effect.map(decodeValue(kind, Json.SaveWeights)(value), ({ path }) => ({ path }))
    })
  )
}

export const loadState = (
  path: string,
  optimizer: boolean
): Effect.Effect<Draft<LoadResult, LoadResult>, TinkerError> => {
  const kind = "load_weights"
  if (!path.startsWith("tinker://")) {
    return Effect.fail(invalid(kind, "path", `"${path.slice(0, 80)}" is not of the form tinker://<run>/weights/<name>`))
  }
  return Effect.succeed(
    single({
      kind,
      requestType: "LoadWeights",
      endpoint: Endpoint.loadWeights,
      says: { path, optimizer },
      read: (value) =>
        Effect.map(decodeValue(kind, Json.LoadWeights)(value), ({ path }) => ({ path: path ?? undefined }))
    })
  )
}
