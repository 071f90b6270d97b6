/** A bare client for these tests: requests as bytes, no retries, no reordering. */
import * as Json from "@tinkex/tinker/wire/Json"
import * as Protobuf from "@tinkex/tinker/wire/Protobuf"
import type { Datum } from "@tinkex/tinker/wire/Datum"
import { fromTokens } from "@tinkex/tinker/wire/Datum"
import { int64, float32 } from "@tinkex/tinker/wire/Tensor"
import { Effect, Schema } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { Emulator, type EmulatorOptions } from "../src/index.ts"

export interface Answer {
  readonly status: number
  readonly type: string
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly bytes: Uint8Array
  readonly body: Body
}

/** Every field that these tests look at; a test that reads one that is absent fails by its value. */
export interface Body {
  readonly request_id: string
  readonly model_id?: string
  readonly session_id?: string
  readonly type?: string
  readonly path?: string
  readonly queue_state?: string
  readonly queue_state_reason?: string
  readonly error?: string
  readonly category?: string
  readonly status?: string
  readonly detail?: unknown
  readonly metrics?: Readonly<Record<string, number>>
  readonly loss_fn_outputs?: ReadonlyArray<Readonly<Record<string, { readonly data: ReadonlyArray<number> }>>>
  readonly training_runs?: ReadonlyArray<typeof Json.TrainingRun.Type>
  readonly checkpoints?: ReadonlyArray<typeof Json.Checkpoint.Type>
  readonly cursor?: typeof Json.Cursor.Type
  readonly corrupted?: boolean
  readonly client_counter?: number
  readonly sample_sequence_ids?: ReadonlyArray<string>
  readonly tinker_path?: string
  readonly urls?: Readonly<Record<string, string>>
  readonly data?: ReadonlyArray<object>
  readonly model_owner?: string
  readonly sessions?: ReadonlyArray<string>
  readonly jwt?: string
  readonly sampling_session_id?: string
  readonly sampler_ids?: ReadonlyArray<string>
  readonly sequences?: ReadonlyArray<{ readonly tokens: ReadonlyArray<number> }>
  readonly last_checkpoint?: typeof Json.Checkpoint.Type | null
  readonly last_sampler_checkpoint?: typeof Json.Checkpoint.Type | null
  readonly training_run_ids?: ReadonlyArray<string>
  readonly supported_models?: ReadonlyArray<{ readonly model_name?: string }>
  readonly base_model?: string
  readonly lora_rank?: number
}

export const datum = (text: string): Datum => {
  const tokens = Array.from(new TextEncoder().encode(text))
  return {
    modelInput: fromTokens(tokens.slice(0, -1)),
    lossFnInputs: {
      target_tokens: int64(tokens.slice(1)),
      weights: float32(Float32Array.from({ length: tokens.length - 1 }, () => 1))
    }
  }
}

export const batches: ReadonlyArray<ReadonlyArray<Datum>> = [
  [datum("the quick brown fox"), datum("jumps over")],
  [datum("the lazy dog"), datum("and runs away")],
  [datum("to the hills"), datum("far away")]
]

export const request = Effect.fnUntraced(function* (
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  options: {
    readonly json?: unknown
    readonly bytes?: Uint8Array
    readonly headers?: Record<string, string>
    readonly key?: string | null
  } = {}
) {
  const client = yield* HttpClient.HttpClient
  const { url } = yield* Emulator
  const key = options.key === undefined ? "tml-test" : options.key
  let request = HttpClientRequest.make(method)(`${url}${path}`).pipe(
    HttpClientRequest.setHeaders(key === null ? {} : { "x-api-key": key })
  )
  if (options.bytes !== undefined) {
    request = HttpClientRequest.bodyUint8Array(request, options.bytes, "application/x-protobuf")
  } else if ("json" in options) {
    const text = typeof options.json === "string" ? options.json : JSON.stringify(options.json)
    request = HttpClientRequest.bodyText(request, text, "application/json")
  }
  request = HttpClientRequest.setHeaders(request, options.headers ?? {})
  const response = yield* client.execute(request)
  const bytes = new Uint8Array(yield* response.arrayBuffer)
  const type = response.headers["content-type"] ?? ""
  const text = new TextDecoder().decode(bytes)
  // Whether the fields are there is what the tests check.
  const body = (type.includes("json") ? JSON.parse(text) : {}) as Body
  const answer: Answer = { status: response.status, type, headers: response.headers, bytes, body }
  return answer
})

/** A request as it is, and the text of whatever comes back. */
export const raw = Effect.fnUntraced(function* (
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  options: { readonly bytes: Uint8Array | undefined; readonly headers: Record<string, string> }
) {
  const client = yield* HttpClient.HttpClient
  const { url } = yield* Emulator
  let request = HttpClientRequest.make(method)(`${url}${path}`).pipe(
    HttpClientRequest.setHeader("x-api-key", "tml-test")
  )
  if (options.bytes !== undefined) request = HttpClientRequest.bodyUint8Array(request, options.bytes)
  const response = yield* client.execute(HttpClientRequest.setHeaders(request, options.headers))
  return { status: response.status, text: yield* response.text }
})

export const post = (path: string, json: unknown, headers: Record<string, string> = {}) =>
  request("POST", `/api/v1/${path}`, { json, headers })
export const get = (path: string) => request("GET", `/api/v1/${path}`)

export const expectOk = (answer: Answer) =>
  answer.status === 200
    ? Effect.succeed(answer)
    : Effect.die(new Error(`status ${answer.status}: ${JSON.stringify(answer.body)}`))

/** One poll. */
export const poll = (requestId: string, accept = "application/json") =>
  post("retrieve_future", { request_id: requestId, allow_metadata_only: true }, { accept })

/** Submits and waits for the result, whatever it is. */
export const settle = <E, R>(submission: Effect.Effect<Answer, E, R>) =>
  Effect.gen(function* () {
    const submitted = yield* Effect.flatMap(submission, expectOk)
    let answer = yield* poll(submitted.body.request_id)
    for (let i = 0; i < 1000 && answer.body.type === "try_again"; i++) answer = yield* poll(submitted.body.request_id)
    return answer.body
  })

export const createSession = Effect.map(
  Effect.flatMap(post("create_session", { tags: [], sdk_version: "test", type: "create_session" }), expectOk),
  ({ body }): string => Schema.decodeUnknownSync(Json.CreateSession)(body).session_id
)

export const modelBody = (sessionId: string, n = 0, more: Record<string, unknown> = {}) => ({
  session_id: sessionId,
  model_seq_id: n,
  base_model: "tiny/byte-lm-16",
  lora_config: { rank: 4, seed: 7 },
  type: "create_model",
  ...more
})

export const createModel = Effect.fnUntraced(function* (sessionId: string, n = 0, more: Record<string, unknown> = {}) {
  const result = yield* settle(post("create_model", modelBody(sessionId, n, more)))
  if (result.model_id === undefined) return yield* Effect.die(new Error(JSON.stringify(result)))
  return result.model_id
})

export const newModel = Effect.flatMap(createSession, (session) => createModel(session))

export const forwardBackward = (
  modelId: string,
  seqId: number,
  data: ReadonlyArray<Datum>,
  options: { readonly forwardOnly?: boolean; readonly loss?: string; readonly headers?: Record<string, string> } = {}
) =>
  request("POST", "/api/v1/forward_backward", {
    bytes: Protobuf.encodeForwardBackwardRequest({
      modelId,
      seqId,
      data,
      lossFn: options.loss ?? "cross_entropy",
      lossFnConfig: {},
      forwardOnly: options.forwardOnly ?? false
    }),
    headers: options.headers ?? {}
  })

export const optimStep = (modelId: string, seqId: number, adam: Record<string, number> = { learning_rate: 0.05 }) =>
  post("optim_step", { model_id: modelId, seq_id: seqId, adam_params: adam, type: "optim_step" })

export const saveWeights = (modelId: string, seqId: number, name: string, more: Record<string, unknown> = {}) =>
  post("save_weights", { model_id: modelId, seq_id: seqId, path: name, overwrite: false, ...more })

export const loadWeights = (modelId: string, seqId: number, path: string, optimizer = true) =>
  post("load_weights", { model_id: modelId, seq_id: seqId, path, optimizer })

/** Steps `from` to `to` of the lineage, two operations each, beginning with number `seqId`; gives the next number. */
export const train = Effect.fnUntraced(function* (modelId: string, seqId: number, from: number, to: number) {
  let seq = seqId
  for (let step = from; step < to; step++) {
    const forward = yield* settle(forwardBackward(modelId, seq++, batches[step % batches.length] ?? []))
    const update = yield* settle(optimStep(modelId, seq++))
    if ("error" in forward || "error" in update) return seq
  }
  return seq
})

/** The emulator in process. */
export const provided = (options: EmulatorOptions = {}) => Effect.provide(Emulator.layerHttpClient(options))
