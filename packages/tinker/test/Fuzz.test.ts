// Damaged answers and requests: whatever a service says, a call ends, with a result or a typed error; whatever a client says, the
// server's half of the codecs does the same. Every case is drawn from the seed that is printed, by its number:
//
//   TINKEX_FUZZ=100000 npx vitest run --project tinker packages/tinker/test/Fuzz.test.ts     (about 3 minutes)
//   TINKEX_FUZZ_SEED=7 TINKEX_FUZZ_ONLY=1234 ...                                             (one case again)
//
// Without TINKEX_FUZZ a slice of 3,000 is run. Of five cases one damages the bytes of results and requests at the codecs, one what
// a caller hands over, and three the answers of a whole service.
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as CustomLoss from "../src/CustomLoss.ts"
import { RestClient } from "../src/RestClient.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import * as Tensor from "../src/TensorData.ts"
import * as Errors from "../src/TinkerError.ts"
import type { TrainingClient } from "../src/TrainingClient.ts"
import type { Chunk } from "../src/wire/Datum.ts"
import * as Json from "../src/wire/Json.ts"
import * as Protobuf from "../src/wire/Protobuf.ts"
import * as SampleRequest from "../src/wire/SampleRequest.ts"
import * as SampleResponse from "../src/wire/SampleResponse.ts"
import type { WireError } from "../src/wire/WireError.ts"
import * as Zstd from "../src/wire/Zstd.ts"
import * as Fake from "./support/fakeService.ts"
import * as Mutate from "./support/mutate.ts"

const cases = Number(process.env["TINKEX_FUZZ"] ?? 3000)
const seed = Number(process.env["TINKEX_FUZZ_SEED"] ?? 20_260_801)
const only = process.env["TINKEX_FUZZ_ONLY"]
const longestMessage = 2000

setFlagsFromString("--expose-gc")
const collect: unknown = runInNewContext("gc")
const heapAfterCollection = (): number => {
  if (typeof collect === "function") collect()
  return process.memoryUsage().heapUsed
}

const encodeError = Schema.encodeEffect(Schema.toCodecJson(Errors.TinkerError))

const diceOf = (nth: number) => Mutate.dice(Math.imul(seed, 2_654_435_761) + nth)
const numbers = (parts: number, part: number) =>
  only === undefined
    ? Array.from({ length: Math.ceil(cases / parts) }, (_, i) => i * parts + part)
    : Number(only) % parts === part
      ? [Number(only)]
      : []

// ---- the codecs

const request = Protobuf.encodeForwardBackwardRequest({
  modelId: "s:train:0",
  seqId: 3,
  data: [
    {
      modelInput: {
        chunks: [
          { type: "encoded_text", tokens: [7, 8] },
          { type: "image", data: Uint8Array.of(1, 2), format: "png", expectedTokens: 2 },
          { type: "dmel", dmel: Uint8Array.of(0, 1, 2) }
        ]
      },
      lossFnInputs: {
        target_tokens: Tensor.int64([8, 9]),
        weights: { dtype: "float32", data: [1.5], shape: [2, 3], csr: { crow: [0, 0, 1], col: [2] } }
      }
    }
  ],
  lossFn: "ppo",
  lossFnConfig: { clip_low_threshold: 0.5 },
  forwardOnly: true
})
const output = Protobuf.encodeForwardBackwardOutput({
  lossFnOutputType: "T",
  lossFnOutputs: [
    { logprobs: Tensor.float32([-1, -2]) },
    { logprobs: Tensor.float32([-3]) },
    { ids: Tensor.int64([1]) },
    {}
  ],
  metrics: { "loss:sum": 2.5 }
})
const sample = SampleResponse.encode({
  sequences: [{ stopReason: "length", tokens: [5, 6], logprobs: [-0.5, -1] }],
  promptLogprobs: [undefined, -0.25],
  topkPromptLogprobs: [undefined, [[11, -0.25]]],
  promptCacheHitTokens: 1
})
const asked = SampleRequest.encode({
  samplingSessionId: "s:sample:0",
  seqId: 500_658_873_000_000_001n,
  numSamples: 2,
  prompt: { chunks: [{ type: "encoded_text", tokens: [1, 2] }] },
  params: { maxTokens: 4, stop: ["\n"] },
  promptLogprobs: true,
  topkPromptLogprobs: 2
})

const requestBodies: ReadonlyArray<[Schema.Codec<unknown, unknown>, unknown]> = [
  [Json.CreateModelRequest, { session_id: "s", model_seq_id: 0, base_model: "b", lora_config: { rank: 8, seed: 1 } }],
  [Json.OptimStepRequest, { adam_params: { learning_rate: 0.1 }, model_id: "m", seq_id: 2 }],
  [Json.SaveWeightsRequest, { model_id: "m", path: "a", seq_id: 3, ttl_seconds: 60 }],
  [Json.SaveWeightsForSamplerRequest, { model_id: "m", sampling_session_seq_id: 1, seq_id: 3 }],
  [Json.LoadWeightsRequest, { path: "tinker://r/weights/a", optimizer: true, model_id: "m", seq_id: 1 }],
  [Json.RetrieveFutureRequest, { request_id: "r", allow_metadata_only: true }]
]

type Decode = (bytes: Uint8Array) => Effect.Effect<unknown, WireError>
const codecs: ReadonlyArray<[Decode, Uint8Array]> = [
  [Protobuf.decodeForwardBackwardRequest, request],
  [Protobuf.decodeForwardBackwardOutput, output],
  [SampleResponse.decode, sample],
  [SampleRequest.decode, asked],
  [(body) => Zstd.decompress(body, { maxBytes: 4096 }), Zstd.compress(request)]
]

// ---- the service

/** What a call does with a service of which one path answers with damage. */
type Program = (
  service: ServiceClient["Service"],
  rest: RestClient["Service"]
) => Effect.Effect<unknown, Errors.TinkerError>

const data = [Fake.datum(1, 2), Fake.datum(3)]
const loss = { loss: "cross_entropy" }

const trained =
  (use: (client: TrainingClient) => Effect.Effect<unknown, Errors.TinkerError>): Program =>
  (service) =>
    Effect.scoped(Effect.flatMap(service.createLoraTrainingClient({ baseModel: "org/base" }), use))

const programs: ReadonlyArray<[ReadonlyArray<string>, Program]> = [
  [
    ["client/config", "client/dynamic_config", "create_session", "create_model", "retrieve_future", "get_info"],
    trained((client) => client.info())
  ],
  [
    ["forward_backward", "retrieve_future", "optim_step", "session_heartbeat"],
    trained((client) =>
      Effect.gen(function* () {
        const pass = yield* client.forwardBackward(data, loss)
        const update = yield* client.optimStep({ learningRate: 0.1 })
        return [yield* pass.result, yield* update.result, yield* Stream.runCollect(pass.queueState)]
      })
    )
  ],
  [
    ["forward_backward", "retrieve_future"],
    trained((client) =>
      Effect.flatMap(
        client.forwardBackwardCustom(
          data,
          CustomLoss.perToken((p) => ({ loss: -p, slope: -1 }))
        ),
        ({ result }) => result
      )
    )
  ],
  [
    ["save_weights", "save_weights_for_sampler", "retrieve_future", "training_runs/s0:train:0/checkpoints"],
    trained((client) =>
      Effect.gen(function* () {
        const saves = [
          yield* client.saveState("a"),
          yield* client.saveWeightsForSampler("b"),
          yield* client.saveWeightsEphemeral()
        ]
        return yield* Effect.forEach(saves, (save): Effect.Effect<unknown, Errors.TinkerError> => save.result)
      })
    )
  ],
  [
    ["weights_info", "create_model", "load_weights", "retrieve_future", "unload_model"],
    (service) =>
      Effect.scoped(
        Effect.flatMap(service.createTrainingClientFromState("tinker://r/weights/a", { optimizer: true }), (client) =>
          client.unload()
        )
      )
  ],
  [
    ["create_sampling_session", "asample", "retrieve_future"],
    (service) =>
      Effect.flatMap(service.createSamplingClient({ baseModel: "org/base", progressTimeout: "1 minute" }), (sampler) =>
        sampler.sample({ chunks: [{ type: "encoded_text", tokens: [1, 2] }] }, { maxTokens: 1, promptLogprobs: true })
      )
  ],
  [
    ["training_runs", "training_runs/r", "training_runs/r/checkpoints", "checkpoints"],
    (_, rest) =>
      Effect.gen(function* () {
        yield* rest.listTrainingRuns()
        yield* rest.getTrainingRun("r")
        yield* rest.listCheckpoints("r")
      })
  ]
]

const checkpoint = {
  checkpoint_id: "weights/a",
  checkpoint_type: "training",
  time: "2026-08-01T10:00:00Z",
  tinker_path: "tinker://r/weights/a",
  size_bytes: 10,
  public: false
}
const run = {
  training_run_id: "r",
  base_model: "org/base",
  model_owner: "me",
  is_lora: true,
  lora_rank: 8,
  corrupted: false,
  last_request_time: "2026-08-01T10:00:00Z",
  last_checkpoint: checkpoint
}
const cursor = { offset: 0, limit: 20, total_count: 1 }

const listed = (path: string): unknown => {
  if (path === "training_runs") return { training_runs: [run], cursor }
  if (path === "training_runs/r") return run
  return path.endsWith("checkpoints") ? { checkpoints: [checkpoint], cursor } : undefined
}

const statuses = [
  200, 201, 204, 302, 304, 400, 401, 402, 403, 404, 408, 409, 410, 413, 418, 422, 425, 429, 500, 502, 503, 504
]
const headers: ReadonlyArray<Record<string, string>> = [
  {},
  { "content-type": "text/html" },
  { "content-type": "application/x-protobuf" },
  { "content-type": "application/json; charset=utf-16" },
  { "retry-after": "-1" },
  { "retry-after": "Wed, 99 Oct 2099 99:99:99 GMT" },
  { "retry-after-ms": "1e300", "retry-after": "1e300" },
  { "x-should-retry": "true" },
  { "x-should-retry": "maybe" },
  { location: "http://elsewhere.test/?key=1" }
]

/** A damaged form of a good answer. */
const damage = (d: Mutate.Dice, good: Fake.Answer): Fake.Answer => {
  if (good === "silence" || "refused" in good) return good
  const status = d.below(3) === 0 ? d.pick(statuses) : 200
  const extra = { ...good.headers, ...(d.below(3) === 0 ? d.pick(headers) : {}) }
  switch (d.below(12)) {
    case 0:
      return Fake.refused
    case 1:
      return { refused: new Error(`connect failed with ${Fake.key}`) }
    case 2:
      return "silence"
    case 3:
      return { status, text: `<html>${"x".repeat(d.pick([0, 10, 200_000]))}${Fake.key}</html>`, headers: extra }
    case 4:
      return {
        status,
        json: { detail: `Model s0:train:0 ${d.pick(["not loaded", "is corrupted", Fake.key])}` },
        headers: extra
      }
    case 5:
      return {
        status,
        json: {
          error: d.pick(["boom", Fake.key, "x".repeat(100_000), 7, null]),
          category: d.pick(["user", "server", 3])
        }
      }
    case 6:
      return {
        json: {
          type: "try_again",
          queue_state: d.pick(["paused_capacity", "?", 4]),
          queue_state_reason: d.pick([Fake.key, 5])
        }
      }
    case 7:
      return { json: { status: "complete_metadata", response_payload_size: d.pick([0, 1e15, -1, "1", 2 ** 60]) } }
  }
  if ("bytes" in good) return { status, bytes: Mutate.bytes(d, good.bytes), headers: extra }
  if ("text" in good) return { ...good, status }
  return {
    status,
    text: Mutate.jsonText(d, good.json),
    headers: { "content-type": "application/json", ...extra }
  }
}

const oddNumbers = [0, -0, 1, -1, 0.5, 2 ** 31, 2 ** 53, -(2 ** 63), 1e300, Number.NaN, Number.POSITIVE_INFINITY]
const oddTexts = [
  "",
  "a",
  "..",
  "a/b",
  "é",
  "\u0000",
  "x".repeat(5000),
  "tinker://r/weights/a",
  "tinker://r/weights/a?b"
]

const oddTensor = (d: Mutate.Dice): Tensor.TensorData => {
  const length = d.below(4)
  const data = Array.from({ length }, () => (d.below(20) === 0 ? d.pick(oddNumbers) : d.below(100)))
  const shape = d.below(15) === 0 ? [d.pick(oddNumbers), d.below(3)] : [length]
  const tensor = d.below(2) === 0 ? Tensor.int64(data, shape) : Tensor.float32(data, shape)
  if (d.below(15) > 0) return tensor
  const indices = () => Array.from({ length: d.below(4) }, () => d.below(3) - (d.below(9) === 0 ? 2 : 0))
  return { ...tensor, shape: [d.below(3), d.below(3)], csr: { crow: indices(), col: indices() } }
}

const oddChunk = (d: Mutate.Dice): Chunk => {
  const raw = Uint8Array.from({ length: d.below(6) }, () => d.below(12))
  switch (d.below(12)) {
    case 0:
      return { type: "image", data: raw, format: "png", expectedTokens: d.pick(oddNumbers) }
    case 1:
      return { type: "dmel", dmel: raw }
    case 2:
      return { type: "image_asset_pointer", location: d.pick(oddTexts), format: "jpeg" }
    default:
      return {
        type: "encoded_text",
        tokens: Array.from({ length: d.below(4) }, () => (d.below(20) === 0 ? d.pick(oddNumbers) : 5))
      }
  }
}

/** A call with arguments that have the right types, and that are wrong in many other ways. */
const handOver = (
  d: Mutate.Dice,
  client: TrainingClient
): Effect.Effect<{ readonly result: Effect.Effect<unknown, Errors.TinkerError> }, Errors.TinkerError> => {
  const options = {
    ...(d.below(20) === 0 ? { deadline: d.pick(oddNumbers) } : {}),
    ...(d.below(20) === 0 ? { retries: d.pick(oddNumbers) } : {}),
    ...(d.below(20) === 0 ? { headers: { [d.pick(["x-a", "", "a b", "x-api-key"])]: d.pick(oddTexts) } } : {})
  }
  switch (d.below(6)) {
    case 0:
      return client.optimStep(
        { learningRate: d.pick(oddNumbers), beta1: d.pick([0.9, 0.9, 2]), eps: d.pick(oddNumbers) },
        options
      )
    case 1:
      return client.saveState(d.pick(oddTexts), { ...options, ttl: d.pick(oddNumbers) })
    case 2:
      return client.loadState(d.pick(oddTexts), { ...options, optimizer: true })
    default: {
      const data = Array.from({ length: d.below(8) === 0 ? 0 : 1 + d.below(2) }, () => ({
        modelInput: { chunks: Array.from({ length: d.below(3) }, () => oddChunk(d)) },
        lossFnInputs: Object.fromEntries(
          ["target_tokens", "weights", "q"].filter(() => d.below(3) > 0).map((name) => [name, oddTensor(d)])
        )
      }))
      return client.forward(data, {
        ...options,
        loss: d.pick(["own", "own", "own", "cross_entropy", ""]),
        lossConfig: d.below(6) === 0 ? { beta: d.pick(oddNumbers) } : {}
      })
    }
  }
}

const options = { deadline: "20 seconds", pollTolerance: "20 seconds", heartbeat: "1 minute" } as const

describe("damage", () => {
  it.effect(
    `to bytes and bodies ends in a value or a WireError (seed ${seed})`,
    () =>
      Effect.gen(function* () {
        for (const nth of numbers(5, 0)) {
          const d = diceOf(nth)
          const [decode, whole] = d.pick(codecs)
          const bad =
            d.below(20) === 0 ? Uint8Array.from({ length: d.below(200) }, () => d.below(256)) : Mutate.bytes(d, whole)
          const exit = yield* Effect.exit(decode(bad))
          if (Exit.isFailure(exit)) {
            const told = Cause.squash(exit.cause)
            const typed = exit.cause.reasons.every(
              (reason) => reason._tag === "Fail" && reason.error._tag === "WireError"
            )
            assert.isTrue(typed, `seed ${seed}, case ${nth}: ${String(told)}`)
            assert.isBelow(told instanceof Error ? told.message.length : 0, longestMessage, `seed ${seed}, case ${nth}`)
          }
          const [schema, body] = d.pick(requestBodies)
          const read = yield* Effect.exit(Schema.decodeUnknownEffect(schema)(Mutate.json(d, body)))
          const typed = Exit.isSuccess(read) || read.cause.reasons.every((reason) => reason._tag === "Fail")
          assert.isTrue(typed, `seed ${seed}, case ${nth}`)
        }
      }),
    900_000
  )

  it.effect(
    `to what a caller hands over is refused with its name, or sent (seed ${seed})`,
    () => {
      const fake = Fake.make()
      return Effect.gen(function* () {
        const service = yield* ServiceClient
        const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
        let refused = 0
        const all = numbers(5, 1)
        for (const nth of all) {
          const d = diceOf(nth)
          fake.seen.length = 0
          const exit = yield* Effect.exit(Effect.flatMap(handOver(d, client), ({ result }) => result))
          const what = `seed ${seed}, case ${nth}`
          if (Exit.isSuccess(exit)) continue
          refused++
          const [reason] = exit.cause.reasons
          if (reason?._tag !== "Fail") assert.fail(`${what}: ${Cause.pretty(exit.cause)}`)
          assert.strictEqual(reason.error.reason._tag, "InvalidInput", `${what}: ${reason.error.message}`)
          assert.isBelow(reason.error.message.length, longestMessage, what)
          assert.strictEqual(fake.seen.length, 0, what)
        }
        if (only !== undefined) return
        assert.isAbove(refused, all.length / 4)
        assert.isBelow(refused, all.length * 0.95)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    },
    900_000
  )

  it.effect(
    `to a service's answers ends in a result or a TinkerError, soon, and tells no key (seed ${seed})`,
    () => {
      const unhandled: Array<unknown> = []
      const onUnhandled = (reason: unknown) => void unhandled.push(reason)
      const one = Effect.fnUntraced(function* (nth: number) {
        const d = diceOf(nth)
        const [paths, program] = d.pick(programs)
        const path = d.pick(paths)
        const damaged = { left: 1 + d.below(3), skip: d.below(3) }
        const fake = Fake.make((seen) => {
          const list = listed(seen.path)
          const good: Fake.Answer = list === undefined ? Fake.healthy(seen) : { json: list }
          if (seen.path !== path || damaged.left === 0 || damaged.skip-- > 0) return good
          damaged.left--
          return damage(d, good)
        })
        const logs: Array<string> = []
        const logger = Logger.layer([Logger.map(Logger.formatSimple, (line) => void logs.push(line))])
        const fiber = yield* Effect.gen(function* () {
          return yield* program(yield* ServiceClient, yield* RestClient)
        }).pipe(
          Effect.provide(Layer.fresh(Fake.connect(fake, options))),
          Effect.provide(logger),
          Effect.exit,
          Effect.forkChild
        )
        // Most are done at once, and every beat of a session that goes on costs as much as a call.
        for (const step of ["0 seconds", "2 seconds", "1 minute", "5 minutes", "2 hours"] as const) {
          if (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(step)
        }
        const what = `seed ${seed}, case ${nth}, damage to ${path}`
        if (fiber.pollUnsafe() === undefined) assert.fail(`${what}: it never ended`)
        const exit = yield* Fiber.join(fiber)
        assert.notInclude(logs.join("\n"), Fake.key, what)
        if (Exit.isSuccess(exit)) return "result"
        const [reason] = exit.cause.reasons
        if (exit.cause.reasons.length !== 1 || reason?._tag !== "Fail")
          assert.fail(`${what}: ${Cause.pretty(exit.cause)}`)
        const { error } = reason
        assert.instanceOf(error, Errors.TinkerError, what)
        assert.notInclude(error.message, Fake.key, what)
        assert.isBelow(error.message.length, longestMessage, what)
        const stored = JSON.stringify(yield* encodeError(error))
        assert.notInclude(stored, Fake.key, what)
        assert.isBelow(stored.length, 2 * longestMessage, what)
        return error.reason._tag
      })
      return Effect.gen(function* () {
        process.on("unhandledRejection", onUnhandled)
        const ends = new Map<string, number>()
        const all = [2, 3, 4].flatMap((part) => numbers(5, part))
        let settled = 0
        for (const [i, nth] of all.entries()) {
          if (i === Math.floor(all.length / 4)) settled = heapAfterCollection()
          const end = yield* one(nth)
          ends.set(end, (ends.get(end) ?? 0) + 1)
        }
        const grown = heapAfterCollection() - settled
        process.off("unhandledRejection", onUnhandled)
        assert.deepStrictEqual(unhandled, [])
        if (only !== undefined) return
        // What the later three quarters left behind.
        assert.isBelow(grown, 32 * 1024 * 1024)
        // The damage bites, in many ways, and not everywhere.
        assert.isAbove(ends.get("result") ?? 0, all.length / 10)
        assert.isAbove(ends.get("BadResponse") ?? 0, all.length / 20)
        assert.isAbove(ends.size, 8, JSON.stringify([...ends]))
        process.stdout.write(
          `${all.length} damaged answers, seed ${seed}: ${JSON.stringify(Object.fromEntries(ends))}\n`
        )
      })
    },
    900_000
  )
})
