// Draws from many prompts at once, round after round, and prints the CPU time that one request took this process, in
// microseconds: user and system time together, after as many rounds to warm up. `sdk` is our client; `bare` sends the same two
// requests over the same transport and does nothing else.
//
//   node … sampleClient.ts sdk|bare URL CONCURRENT ROUNDS
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer, References, type Scope } from "effect"
import { HttpBody, HttpClient, HttpClientRequest } from "effect/http"
import { ModelInput, ServiceClient, Tinker } from "@tinkex/tinker"

const [, , contender = "", url = ""] = process.argv
const [concurrent, rounds] = process.argv.slice(4).map(Number)
if (!(Number(concurrent) > 0) || !(Number(rounds) > 0)) throw new Error("give a URL and two numbers")

const baseModel = "tiny/byte-lm-16"
const prompts = Array.from({ length: Number(concurrent) }, (_, row) =>
  Array.from({ length: 256 }, (_, i) => (i * 7 + row) % 256)
)

type Draw = (prompt: ReadonlyArray<number>) => Effect.Effect<unknown, unknown>
type Contender = Effect.Effect<Draw, unknown, ServiceClient | HttpClient.HttpClient | Scope.Scope>

const sdk: Contender = Effect.gen(function* () {
  const service = yield* ServiceClient
  const sampler = yield* service.createSamplingClient({ baseModel })
  return (prompt) => sampler.sample(ModelInput.fromTokens(prompt), { maxTokens: 16, seed: 1 })
})

const bare: Contender = Effect.gen(function* () {
  const client = yield* HttpClient.HttpClient
  const post = (path: string, body: unknown, accept = "application/json") =>
    Effect.flatMap(
      client.execute(
        HttpClientRequest.post(`${url}/api/v1/${path}`, {
          headers: { "x-api-key": "tml-bench", accept },
          body: HttpBody.jsonUnsafe(body)
        })
      ),
      (answer) => answer.arrayBuffer
    )
  const read = (path: string, body: unknown) =>
    Effect.map(post(path, body), (bytes): Record<string, unknown> => JSON.parse(new TextDecoder().decode(bytes)))
  const { session_id } = yield* read("create_session", { tags: [], user_metadata: {}, sdk_version: "0.25.0" })
  const { sampling_session_id } = yield* read("create_sampling_session", {
    session_id,
    sampling_session_seq_id: 0,
    base_model: baseModel
  })
  let seq = 0
  return (tokens) =>
    Effect.flatMap(
      read("asample", {
        sampling_session_id,
        seq_id: seq++,
        num_samples: 1,
        prompt: { chunks: [{ type: "encoded_text", tokens }] },
        sampling_params: { max_tokens: 16, seed: 1 },
        prompt_logprobs: false,
        topk_prompt_logprobs: 0
      }),
      ({ request_id }) => post("retrieve_future", { request_id, allow_metadata_only: true }, "application/x-protobuf")
    )
})

const program = Effect.gen(function* () {
  const draw = yield* contender === "bare" ? bare : sdk
  const round = Effect.forEach(prompts, draw, { concurrency: "unbounded", discard: true })
  const all = Effect.repeat(round, { times: Number(rounds) - 1 })
  yield* all
  const before = process.cpuUsage()
  yield* all
  const { system, user } = process.cpuUsage(before)
  console.log((system + user) / (Number(concurrent) * Number(rounds)))
}).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))

const Live = Tinker.layer({ apiKey: "tml-bench", baseUrl: url }).pipe(Layer.provideMerge(NodeHttpClient.layerUndici))

await Effect.runPromise(Effect.provide(program, Live))
process.exit(0)
