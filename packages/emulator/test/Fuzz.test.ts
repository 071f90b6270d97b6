/**
 * Requests that are nearly right: valid ones of every endpoint, broken at random places. Whatever comes of it, it is an answer
 * below 500, and the server trains on as if nothing had been.
 *
 * The seed is printed with a failure. `TINKEX_FUZZ=100000 npx vitest run --project emulator Fuzz` takes about a minute; without
 * the variable 4,000 requests are sent.
 */
import * as Protobuf from "@tinkex/tinker/wire/Protobuf"
import * as Zstd from "@tinkex/tinker/wire/Zstd"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Emulator } from "../src/index.ts"
import * as Api from "./api.ts"

const count = Number(process.env["TINKEX_FUZZ"] ?? 4000)
const seed = Number(process.env["TINKEX_FUZZ_SEED"] ?? 20261125)

const randomOf = (seed: number) => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  return { below: (n: number) => Math.floor(next() * n), next }
}

interface Template {
  readonly method: "GET" | "POST" | "PUT" | "DELETE"
  readonly path: string
  readonly body?: Uint8Array
  readonly headers?: Record<string, string>
}

const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

const templates = (session: string, model: string, sampler: string): ReadonlyArray<Template> => {
  const post = (path: string, value: unknown): Template => ({
    method: "POST",
    path: `/api/v1/${path}`,
    body: text(value),
    headers: { "content-type": "application/json" }
  })
  const get = (path: string): Template => ({ method: "GET", path: `/api/v1/${path}` })
  const pass = Protobuf.encodeForwardBackwardRequest({
    modelId: model,
    seqId: 7,
    data: Api.batches[0] ?? [],
    lossFn: "cross_entropy",
    lossFnConfig: {},
    forwardOnly: false
  })
  const binary = (body: Uint8Array, more: Record<string, string>): Template => ({
    method: "POST",
    path: "/api/v1/forward_backward",
    body,
    headers: { "content-type": "application/x-protobuf", ...more }
  })
  const checkpoint = `training_runs/${model}/checkpoints/weights/one`
  const prompt = { chunks: [{ type: "encoded_text", tokens: [1, 2, 3] }] }
  const params = { max_tokens: 2, seed: 3, stop: ["x"], temperature: 1, top_k: -1, top_p: 1 }
  return [
    post("client/config", { sdk_version: "x" }),
    post("auth/token", {}),
    post("create_session", { tags: ["a"], user_metadata: { a: "b" }, sdk_version: "x", project_id: "p" }),
    post("session_heartbeat", { session_id: session }),
    post("create_model", Api.modelBody(session, 3)),
    post("get_info", { model_id: model }),
    binary(pass, {}),
    binary(Zstd.compress(pass), { "content-encoding": "zstd" }),
    post("forward", {
      forward_input: {
        data: [
          { model_input: prompt, loss_fn_inputs: { target_tokens: { data: [2, 3, 4], dtype: "int64", shape: [3] } } }
        ],
        loss_fn: "cross_entropy"
      },
      model_id: model,
      seq_id: 9
    }),
    post("forward_backward", {
      forward_backward_input: {
        data: [
          {
            model_input: prompt,
            loss_fn_inputs: {
              target_tokens: {
                data: [2, 3],
                dtype: "int64",
                shape: [3, 2],
                sparse_crow_indices: [0, 1, 1, 2],
                sparse_col_indices: [0, 1]
              }
            }
          }
        ],
        loss_fn: "cross_entropy"
      },
      model_id: model,
      seq_id: 1
    }),
    post("optim_step", { adam_params: { learning_rate: 0.01, beta1: 0.9 }, model_id: model, seq_id: 8 }),
    post("save_weights", { model_id: model, path: "one", seq_id: 5, ttl_seconds: 100, overwrite: true }),
    post("save_weights_for_sampler", { model_id: model, sampling_session_seq_id: 4, seq_id: 6 }),
    post("load_weights", {
      path: `tinker://${model}/weights/one`,
      optimizer: true,
      session_id: session,
      model_seq_id: 9
    }),
    post("weights_info", { tinker_path: `tinker://${model}/weights/one` }),
    post("create_sampling_session", { session_id: session, sampling_session_seq_id: 1, base_model: "tiny/byte-lm-16" }),
    post("asample", {
      sampling_session_id: sampler,
      seq_id: 4,
      num_samples: 2,
      prompt,
      sampling_params: params,
      prompt_logprobs: true,
      topk_prompt_logprobs: 2,
      prompt_alt_tokens_k: 2,
      target_prompt_logprobs: {
        data: [2, 3],
        dtype: "int64",
        shape: [2, 2],
        sparse_crow_indices: [0, 1, 2],
        sparse_col_indices: [0, 1]
      }
    }),
    post("retrieve_future", { request_id: `${sampler}:4`, allow_metadata_only: true }),
    post("telemetry", { events: [], platform: "x", sdk_version: "x", session_id: session, process_uuid: "u" }),
    post("retrieve_futures", {
      target: { type: "sampling_session", sampling_session_id: sampler, cloned_sampler_id: 0 },
      prev_cursor: 0,
      timeout: 0
    }),
    post("copy_weights", { session_id: session, model_seq_id: 11, source_path: `tinker://${model}/weights/one` }),
    get("training_runs?limit=5&offset=1&access_scope=owned&project_id=p"),
    get(`training_runs/${model}`),
    get(`training_runs/${model}/checkpoints`),
    get("checkpoints?limit=2&offset=0"),
    get(`samplers/${sampler}`),
    get(`sessions/${session}`),
    get(`sessions/${session}/trace_export`),
    get(`${checkpoint}/archive`),
    get("audit?event_type=all&day=1970-01-01"),
    get("billing/usage/events?starting_on=1970-01-01T00:00:00Z&ending_before=1970-01-02T00:00:00Z"),
    { ...post(`${checkpoint}/ttl`, { ttl_seconds: 1000 }), method: "PUT" },
    { ...post(`sessions/${session}/project`, { project_id: "q" }), method: "PUT" },
    { ...post(`${checkpoint}/publish`, ""), method: "POST" },
    { ...post(`${checkpoint}/publish`, ""), method: "DELETE" }
  ]
}

const numbers = [
  "-1",
  "1e400",
  "9007199254740993",
  "1e308",
  "-0",
  "0.5",
  "null",
  '"x"',
  "[]",
  "{}",
  "true",
  "18446744073709551616"
]

type Random = ReturnType<typeof randomOf>

const broken = (bytes: Uint8Array, random: Random): Uint8Array => {
  const out = [...bytes]
  for (let times = 1 + random.below(3); times > 0; times--) {
    const at = random.below(out.length + 1)
    switch (random.below(6)) {
      case 0:
        out[Math.min(at, out.length - 1)] = random.below(256)
        break
      case 1:
        out.splice(at, 1 + random.below(20))
        break
      case 2:
        out.splice(at, 0, ...Array.from({ length: 1 + random.below(20) }, () => random.below(256)))
        break
      case 3:
        out.length = Math.min(out.length, at)
        break
      case 4:
        out.splice(at, 0, ...out.slice(at, at + random.below(50)))
        break
      default: {
        const words = new TextDecoder("latin1").decode(Uint8Array.from(out))
        const found = [...words.matchAll(/-?\d+(\.\d+)?|true|false|null/g)]
        const hit = found[random.below(found.length)]
        if (hit === undefined) break
        const value = numbers[random.below(numbers.length)] ?? ""
        out.splice(hit.index, hit[0].length, ...new TextEncoder().encode(value))
      }
    }
  }
  return Uint8Array.from(out)
}

/** What a path may hold after a client has taken it apart. */
const brokenPath = (path: string, random: Random): string =>
  new TextDecoder("latin1").decode(broken(new TextEncoder().encode(path), random)).replace(/[^!-~]/g, "_")

describe("Emulator", () => {
  it.live(
    `answers ${count} broken requests below 500 and goes on (seed ${seed})`,
    () =>
      Effect.gen(function* () {
        const { control } = yield* Emulator
        const session = yield* Api.createSession
        const model = yield* Api.createModel(session)
        const opened = yield* Api.post("create_sampling_session", {
          session_id: session,
          sampling_session_seq_id: 0,
          base_model: "tiny/byte-lm-16"
        })
        const all = templates(session, model, opened.body.sampling_session_id ?? "")
        const random = randomOf(seed)
        const statuses = new Map<number, number>()
        const before = process.memoryUsage().heapUsed
        for (let i = 0; i < count; i++) {
          const template = all[random.below(all.length)]
          if (template === undefined) continue
          const [prefix = "", rest = ""] = template.path.split(/(?<=\/api\/v1\/)/)
          const path = random.below(4) === 0 ? `${prefix}${brokenPath(rest, random)}` : template.path
          const bytes = template.body === undefined ? undefined : broken(template.body, random)
          const answer = yield* Api.raw(template.method, path, { bytes, headers: template.headers ?? {} })
          statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
          const said = () => `seed ${seed}, request ${i}: ${template.method} ${path}\n${answer.text.slice(0, 300)}`
          if (answer.status >= 500) assert.fail(said())
          const id = /"request_id":"([^"]+)"/.exec(answer.text)?.[1]
          if (id === undefined) continue
          const result = yield* Api.raw("POST", "/api/v1/retrieve_future", {
            bytes: text({ request_id: id }),
            headers: { "content-type": "application/json" }
          })
          if (result.text.includes("internal error")) assert.fail(`${said()}\n${result.text}`)
        }
        // Most are refused; some still mean something.
        assert.isAbove(statuses.get(422) ?? 0, count / 20)
        assert.isAbove(statuses.get(200) ?? 0, count / 50)
        assert.isBelow(process.memoryUsage().heapUsed - before, 400_000_000)

        const fresh = yield* Api.createModel(yield* Api.createSession)
        yield* Api.train(fresh, 1, 0, 2)
        const untouched = yield* Effect.gen(function* () {
          const { control } = yield* Emulator
          const model = yield* Api.newModel
          yield* Api.train(model, 1, 0, 2)
          return yield* control.stateHash(model)
        }).pipe(Api.provided())
        assert.strictEqual(yield* control.stateHash(fresh), untouched)
      }).pipe(Api.provided({ api: "0.38", tokenExchange: false, longPoll: "1 millis", sessionTimeout: "1 day" })),
    900_000
  )
})
