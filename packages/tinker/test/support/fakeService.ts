// A scripted service in place of the network: every request is recorded, every answer can be replaced.
import { Effect, Layer } from "effect"
import { HttpClient, HttpClientError, HttpClientResponse, type HttpClientRequest } from "effect/http"
import { Tinker, type TinkerOptions } from "../../src/Tinker.ts"
import * as Protobuf from "../../src/wire/Protobuf.ts"
import * as SampleRequest from "../../src/wire/SampleRequest.ts"
import * as SampleResponse from "../../src/wire/SampleResponse.ts"

export const key = "tml-secret-0123456789"

export interface Seen {
  /** Without the prefix `/api/v1/`. */
  readonly path: string
  readonly url: string
  readonly method: string
  readonly headers: Record<string, string | undefined>
  readonly body: Uint8Array
  /** The body as JSON, where it is JSON. */
  readonly json: Record<string, unknown>
  /** How many requests for this path came before. */
  readonly nth: number
}

export type Answer =
  | { readonly status?: number; readonly json: unknown; readonly headers?: Record<string, string> }
  | { readonly status?: number; readonly bytes: Uint8Array; readonly headers?: Record<string, string> }
  | { readonly status?: number; readonly text: string; readonly headers?: Record<string, string> }
  | { readonly refused: unknown }
  | "silence"

export const refused: Answer = { refused: new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED") }) }
export const failing = (status: number, detail = "broken", headers?: Record<string, string>): Answer => ({
  status,
  json: { detail },
  ...(headers === undefined ? {} : { headers })
})

type Script = (seen: Seen) => Answer | undefined | Effect.Effect<Answer | undefined>

export const output = (
  metrics: Record<string, number> = { "loss:sum": 1.5 },
  values: ReadonlyArray<number> = [-1, -2]
): Answer => ({
  bytes: Protobuf.encodeForwardBackwardOutput({
    lossFnOutputType: "TorchLossReturn",
    lossFnOutputs: [{ logprobs: { dtype: "float32", data: values, shape: [values.length] } }],
    metrics
  }),
  headers: { "content-type": "application/x-protobuf" }
})

/** The result of a sampling request: so many samples of one token. */
export const sampled = (count = 1, response: Partial<SampleResponse.SampleResponse> = {}): Answer => ({
  bytes: SampleResponse.encode({
    sequences: Array.from({ length: count }, () => ({ stopReason: "stop", tokens: [7], logprobs: [-0.5] })),
    promptLogprobs: undefined,
    topkPromptLogprobs: undefined,
    promptCacheHitTokens: 0,
    ...response
  }),
  headers: { "content-type": "application/x-protobuf" }
})

/** What a healthy service says. Request ids name the operation and its number. */
export const healthy = (seen: Seen): Answer => {
  switch (seen.path) {
    case "client/config":
      return { json: {} }
    case "create_session":
      return { json: { session_id: `s${seen.nth}` } }
    case "session_heartbeat":
      return { json: { type: "session_heartbeat" } }
    case "create_model":
      return { json: { request_id: `create:${seen.json.session_id}:train:${seen.json.model_seq_id}` } }
    case "optim_step":
    case "save_weights":
    case "load_weights":
      return { json: { request_id: `${seen.path}:${seen.json.seq_id ?? "new"}` } }
    case "save_weights_for_sampler":
      return { json: { request_id: `sampler:${seen.json.path ?? ""}:${seen.json.sampling_session_seq_id ?? ""}` } }
    case "create_sampling_session":
      return { json: { sampling_session_id: `${seen.json.session_id}:sample:${seen.json.sampling_session_seq_id}` } }
    case "asample": {
      const asked = Effect.runSync(SampleRequest.decode(seen.body))
      const prompt = asked.promptLogprobs ? asked.prompt.chunks.flatMap(tokensOf).length : 0
      return { json: { request_id: `sample:${asked.seqId}:${asked.numSamples}:${prompt}` } }
    }
    case "unload_model":
      return { json: { request_id: "unload:" } }
    case "forward_backward": {
      const { seqId } = Effect.runSync(Protobuf.decodeForwardBackwardRequest(seen.body))
      return { json: { request_id: `forward_backward:${seqId}` } }
    }
    case "get_info":
      return { json: { model_id: seen.json.model_id, model_data: { tokenizer_id: "org/tok:x" }, lora_rank: 8 } }
    case "weights_info":
      return { json: { base_model: "org/base", is_lora: true, lora_rank: 16, train_mlp: false } }
    case "retrieve_future": {
      const [kind = "", ...rest] = String(seen.json.request_id).split(":")
      if (kind === "create") return { json: { model_id: rest.join(":"), type: "create_model" } }
      if (kind === "optim_step") return { json: { metrics: { grad_norm: Number(rest[0]) } } }
      if (kind === "save_weights") return { json: { path: `tinker://run/weights/${rest[0]}` } }
      if (kind === "sampler") {
        return rest[0] === ""
          ? { json: { path: null, sampling_session_id: `s0:sample:${rest[1]}` } }
          : { json: { path: `tinker://run/sampler_weights/${rest[0]}` } }
      }
      if (kind === "forward_backward") return output({ "loss:sum": Number(rest[0]) })
      if (kind === "sample") {
        const [, count, prompt] = rest.map(Number)
        const promptLogprobs = Array.from({ length: prompt ?? 0 }, (_, i) => (i === 0 ? undefined : -i))
        return sampled(count, promptLogprobs.length === 0 ? {} : { promptLogprobs })
      }
      if (kind === "load_weights" || kind === "unload") return { json: { type: kind } }
      return failing(404, `no request ${kind}`)
    }
    default:
      return failing(404, "Not Found")
  }
}

const tokensOf = (chunk: SampleRequest.FullSampleRequest["prompt"]["chunks"][number]): ReadonlyArray<number> =>
  chunk.type === "encoded_text" ? Array.from(chunk.tokens) : []

const bytesOf = (request: HttpClientRequest.HttpClientRequest): Uint8Array =>
  request.body._tag === "Uint8Array" ? request.body.body : new Uint8Array()

export interface Fake {
  readonly seen: Array<Seen>
  readonly of: (path: string) => Array<Seen>
  /** Asked first; what it leaves undefined is answered as by a healthy service. */
  script: Script
  readonly layer: Layer.Layer<HttpClient.HttpClient>
}

const bodiless = new Set([204, 205, 304])

export const make = (script: Script = () => undefined): Fake => {
  const seen: Array<Seen> = []
  const fake: Fake = {
    seen,
    of: (path) => seen.filter((one) => one.path === path),
    script,
    layer: Layer.succeed(
      HttpClient.HttpClient,
      HttpClient.make((request, url) =>
        Effect.gen(function* () {
          const body = bytesOf(request)
          const path = url.pathname.replace(/^.*\/api\/v1\//, "")
          let json: Record<string, unknown> = {}
          try {
            json = JSON.parse(new TextDecoder().decode(body))
          } catch {
            // Protobuf, or nothing.
          }
          const one: Seen = {
            path,
            url: url.href,
            method: request.method,
            headers: { ...request.headers },
            body: Uint8Array.from(body),
            json,
            nth: seen.filter((other) => other.path === path).length
          }
          seen.push(one)
          const told = fake.script(one)
          const answer = (Effect.isEffect(told) ? yield* told : told) ?? healthy(one)
          if (answer === "silence") return yield* Effect.never
          if ("refused" in answer) {
            return yield* new HttpClientError.HttpClientError({
              reason: new HttpClientError.TransportError({ request, cause: answer.refused })
            })
          }
          const content =
            "json" in answer ? JSON.stringify(answer.json) : "text" in answer ? answer.text : Buffer.from(answer.bytes)
          return HttpClientResponse.fromWeb(
            request,
            new Response(bodiless.has(answer.status ?? 200) ? null : content, {
              status: answer.status ?? 200,
              headers: { ...("json" in answer ? { "content-type": "application/json" } : {}), ...answer.headers }
            })
          )
        })
      )
    )
  }
  return fake
}

/** The SDK over a fake service. */
export const connect = (fake: Fake, options: Partial<TinkerOptions> = {}) =>
  Tinker.layer({ apiKey: key, baseUrl: "http://service.test/prefix", ...options }).pipe(Layer.provide(fake.layer))

export const datum = (...tokens: ReadonlyArray<number>) => ({
  modelInput: { chunks: [{ type: "encoded_text" as const, tokens }] },
  lossFnInputs: {
    target_tokens: { dtype: "int64" as const, data: tokens.map((token) => token + 1), shape: [tokens.length] },
    weights: { dtype: "float32" as const, data: tokens.map(() => 1), shape: [tokens.length] }
  }
})
