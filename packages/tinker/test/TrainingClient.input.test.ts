// Every rule that a client can check by itself is checked before anything is sent, and before a number is spent.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { CallOptions } from "../src/CallOptions.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import * as Tensor from "../src/TensorData.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import type { AdamParams, TrainingClient } from "../src/TrainingClient.ts"
import type { Chunk, Datum, ProvenanceSpan } from "../src/wire/Datum.ts"
import * as Fake from "./support/fakeService.ts"

const newClient = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "org/base", rank: 8 })
)

type Act = (client: TrainingClient) => Effect.Effect<unknown, TinkerError>

const targets = Tensor.int64([2, 3])
const withInputs =
  (lossFnInputs: Datum["lossFnInputs"], loss = "cross_entropy"): Act =>
  (client) =>
    client.forwardBackward([Fake.datum(1), { modelInput: Fake.datum(1, 2).modelInput, lossFnInputs }], { loss })
const withChunk =
  (chunk: Chunk): Act =>
  (client) =>
    client.forward([{ modelInput: { chunks: [chunk] }, lossFnInputs: {} }], { loss: "own" })
const withSpan =
  (span: Partial<ProvenanceSpan>): Act =>
  (client) => {
    const first = { from: "sampled", sequenceId: "s", length: 1, ...span } as const
    const data = [{ ...Fake.datum(1, 2), provenance: { modelInput: [first], lossFnInputs: [] } }]
    return client.forward(data, { loss: "cross_entropy" })
  }
const adam =
  (params: Partial<AdamParams>): Act =>
  (client) =>
    client.optimStep({ learningRate: 0.1, ...params })
const optioned =
  (options: CallOptions): Act =>
  (client) =>
    client.optimStep({ learningRate: 0.1 }, options)
/** What a program without types might hand over. */
const untyped = <A>(value: unknown): A => value as A

const image = { type: "image", data: Uint8Array.of(1), format: "png" } as const

const rules: ReadonlyArray<[field: string, problem: RegExp, act: Act]> = [
  ["data", /is empty/, (client) => client.forwardBackward([], { loss: "cross_entropy" })],
  ["loss", /is empty/, (client) => client.forward([Fake.datum(1)], { loss: "" })],
  [
    "lossConfig.beta",
    /is NaN and must be a finite number/,
    (client) => client.forward([Fake.datum(1)], { loss: "own", lossConfig: { beta: Number.NaN } })
  ],
  ["data[1].lossFnInputs.target_tokens", /is missing/, withInputs({})],
  ["data[0].lossFnInputs.logprobs", /is missing/, withInputs({ target_tokens: targets }, "ppo")],
  [
    "data[0].lossFnInputs.logprobs",
    /is missing/,
    (client) => client.forwardBackward([Fake.datum(1)], { loss: "importance_sampling" })
  ],
  [
    "data[1].lossFnInputs.target_tokens",
    /has 3 positions, and the model's input 2/,
    withInputs({ target_tokens: Tensor.int64([1, 2, 3]) })
  ],
  [
    "data[1].lossFnInputs.weights",
    /has 1 positions, and target_tokens 2/,
    withInputs({ target_tokens: targets, weights: Tensor.float32([1]) })
  ],
  [
    "data[1].lossFnInputs.weights",
    /has the dtype "float64"/,
    withInputs({ target_tokens: targets, weights: untyped({ dtype: "float64", data: [1, 1], shape: [2] }) })
  ],
  [
    "data[1].lossFnInputs.weights",
    /has 2 values and the shape \[3\]/,
    withInputs({ target_tokens: targets, weights: Tensor.float32([1, 1], [3]) })
  ],
  [
    "data[1].lossFnInputs.weights",
    /has the shape \[-2, -1\], which is none/,
    withInputs({ target_tokens: targets, weights: Tensor.float32([1, 1], [-2, -1]) })
  ],
  [
    "data[1].lossFnInputs.weights",
    /has row pointers and no column indices/,
    withInputs({
      target_tokens: targets,
      weights: untyped({ dtype: "float32", data: [1], shape: [2, 3], csr: { crow: [0, 0, 1] } })
    })
  ],
  [
    "data[1].lossFnInputs.weights",
    /must have rows and columns/,
    withInputs({ weights: { dtype: "float32", data: [1], shape: [6], csr: { crow: [0, 0, 1], col: [1] } } })
  ],
  [
    "data[1].lossFnInputs.weights",
    /1 values, 2 row pointers and 1 columns for 2 rows/,
    withInputs({ weights: { dtype: "float32", data: [1], shape: [2, 3], csr: { crow: [0, 1], col: [1] } } })
  ],
  [
    "data[1].lossFnInputs.target_tokens",
    /has 1\.5 at 1, which is no whole number/,
    withInputs({ target_tokens: Tensor.int64([1, 1.5]) })
  ],
  [
    "data[0].modelInput.chunks[0].tokens",
    /has -0\.5 at 0, which is no 32-bit/,
    withChunk({ type: "encoded_text", tokens: [-0.5] })
  ],
  ["data[0].modelInput.chunks[0].format", /is "gif" and must be/, withChunk(untyped({ ...image, format: "gif" }))],
  ["data[0].modelInput.chunks[0].expectedTokens", /is 1\.5/, withChunk({ ...image, expectedTokens: 1.5 })],
  [
    "data[0].modelInput.chunks[0]",
    /is an image_asset_pointer, which only prompts may hold/,
    withChunk({ type: "image_asset_pointer", location: "a.png", format: "png", expectedTokens: 1 })
  ],
  [
    "data[0].modelInput.chunks[0].dmel",
    /is no audio: its header is cut off/,
    withChunk({ type: "dmel", dmel: Uint8Array.of(1, 1) })
  ],
  ["learning_rate", /is NaN and must be a finite/, adam({ learningRate: Number.NaN })],
  ["learning_rate", /is -1 and must be 0 or above/, adam({ learningRate: -1 })],
  ["beta1", /is 1 and must be from 0 to below 1/, adam({ beta1: 1 })],
  ["beta2", /is -0.1/, adam({ beta2: -0.1 })],
  ["eps", /is -1e-8/, adam({ eps: -1e-8 })],
  ["weight_decay", /is Infinity/, adam({ weightDecay: Number.POSITIVE_INFINITY })],
  ["grad_clip_norm", /is -1 and must be 0 \(no clipping\) or above/, adam({ gradClipNorm: -1 })],
  ["data[0].provenance.modelInput", /covers 1 positions, and there are 2/, withSpan({})],
  ["data[0].provenance.modelInput[0].sequenceId", /is empty/, withSpan({ sequenceId: "", length: 2 })],
  ["data[0].provenance.modelInput[0].offset", /is -1 and must be a whole/, withSpan({ offset: -1, length: 2 })],
  ["data[0].provenance.lossFnInputs", /covers 0 positions, and there are 2/, withSpan({ length: 2 })],
  [
    "learning_rate",
    /is -1 and must be 0 or above/,
    (client) => client.optimStep({ optimizer: "dimuon", learningRate: -1 })
  ],
  ["beta1", /is 1 and must/, (client) => client.optimStep({ optimizer: "dimuon", learningRate: 1, beta1: 1 })],
  ["name", /"a\/b" must be/, (client) => client.saveState("a/b")],
  ["name", /"" must be/, (client) => client.saveWeightsForSampler("")],
  ["name", /"\.\." must be/, (client) => client.saveState("..")],
  ["ttl", /must be a whole number of seconds above 0/, (client) => client.saveState("a", { ttl: 0 })],
  ["ttl", /must be a whole/, (client) => client.saveWeightsForSampler("a", { ttl: "500 millis" })],
  ["ttl", /must be a whole/, (client) => client.saveWeightsEphemeral({ ttl: untyped("soon") })],
  ["path", /is not of the form tinker/, (client) => client.loadState("weights/a", { optimizer: true })],
  ["path", /is not of the form/, (client) => client.loadState("tinker://run/weights/a/b", { optimizer: true })],
  [
    "path",
    /can only be sampled from/,
    (client) => client.loadState("tinker://run/sampler_weights/a", { optimizer: true })
  ],
  ["options.deadline", /must be a finite duration above 0/, optioned({ deadline: 0 })],
  ["options.deadline", /must be a finite duration/, optioned({ deadline: "Infinity" })],
  ["options.retries", /is -1 and must be a whole number from 0 on/, optioned({ retries: -1 })],
  ["options.retries", /is 0\.5/, (client) => client.saveState("a", { retries: 0.5 })],
  ['options.headers["a b"]', /is no name of a header/, (client) => client.info({ headers: { "a b": "c" } })],
  [
    'options.headers["X-API-Key"]',
    /belongs to the client/,
    (client) => client.unload({ headers: { "X-API-Key": "c" } })
  ],
  [
    'options.headers["x-a"]',
    /cannot carry/,
    (client) => client.forward([Fake.datum(1)], { loss: "own", headers: { "x-a": "s3cret\r\n" } })
  ]
]

describe("what cannot be sent", () => {
  it.effect.each(rules.map((rule): [string, (typeof rules)[number]] => [`${rule[0]} ${rule[1].source}`, rule]))(
    "is refused with the name of the field, and takes no number: %s",
    ([, [field, problem, act]]) => {
      const fake = Fake.make()
      return Effect.gen(function* () {
        const client = yield* newClient
        const before = fake.seen.length
        const { message, reason } = yield* Effect.flip(act(client))
        assert.strictEqual(reason._tag, "InvalidInput")
        assert.strictEqual(reason._tag === "InvalidInput" ? reason.field : "", field)
        assert.match(message, problem)
        assert.notInclude(message, "s3cret")
        assert.strictEqual(fake.seen.length, before)
        assert.strictEqual(yield* client.nextSeq, 1)
        yield* (yield* client.optimStep({ learningRate: 0.1 })).result
        assert.strictEqual(fake.of("optim_step")[0]?.json["seq_id"], 1)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    }
  )

  it.effect("is a load behind another operation, which the service would refuse and everything behind it", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const client = yield* newClient
      yield* client.optimStep({ learningRate: 0.1 })
      const { message } = yield* Effect.flip(client.loadState("tinker://r/weights/a", { optimizer: true }))
      assert.include(message, "loadState would be operation 2 of its model, and services load only as the first")
      yield* client.optimStep({ learningRate: 0.1 })
      assert.strictEqual(fake.of("optim_step")[1]?.json["seq_id"], 2)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("is not confused with what merely looks odd", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const client = yield* newClient
      // A loss that this version does not know may want anything.
      yield* client.forward([{ modelInput: { chunks: [] }, lossFnInputs: { q: Tensor.float32([]) } }], { loss: "own" })
      // An image of unknown length has any number of targets; weights may be left out.
      yield* client.forward([{ modelInput: { chunks: [image] }, lossFnInputs: { target_tokens: targets } }], {
        loss: "cross_entropy"
      })
      // Several targets for each position.
      const rows = Tensor.int64([1, 2, 3, 4], [2, 2])
      yield* client.forward([{ modelInput: Fake.datum(1, 2).modelInput, lossFnInputs: { target_tokens: rows } }], {
        loss: "cross_entropy"
      })
      yield* client.optimStep({ learningRate: 0, beta1: 0, beta2: 0, eps: 0 })
      assert.strictEqual(yield* client.nextSeq, 5)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})

describe("the options of a call", () => {
  it.effect("bound its tries", () => {
    const fake = Fake.make((seen) => (seen.path === "optim_step" ? Fake.refused : undefined))
    return Effect.gen(function* () {
      const client = yield* newClient
      const fiber = yield* Effect.forkChild(Effect.flip(client.optimStep({ learningRate: 1 }, { retries: 2 })))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "Transport")
      assert.strictEqual(fake.of("optim_step").length, 3)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect.each([["5 seconds"], ["10 minutes"]] as const)("set its deadline, shorter or longer: %s", ([deadline]) => {
    const fake = Fake.make((seen) => (seen.path === "save_weights" ? Fake.failing(503) : undefined))
    return Effect.gen(function* () {
      const client = yield* newClient
      const short = deadline === "5 seconds"
      const fiber = yield* Effect.forkChild(Effect.flip(client.saveState("a", { deadline })))
      yield* TestClock.adjust(short ? "4 seconds" : "590 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "ServerFailure")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("send headers along, beside the client's own", () => {
    const fake = Fake.make((seen) =>
      seen.path === "client/config"
        ? { json: { proto_compress_fwdbwd: true } }
        : seen.path === "forward_backward"
          ? { json: { request_id: "forward_backward:1" } }
          : undefined
    )
    return Effect.gen(function* () {
      const client = yield* newClient
      const headers = { "X-Team": "blue" }
      yield* client.forward([Fake.datum(1)], { loss: "cross_entropy", headers })
      yield* client.optimStep({ learningRate: 1 }, { headers })
      yield* client.info({ headers })
      for (const path of ["forward_backward", "optim_step", "get_info"]) {
        assert.strictEqual(fake.of(path)[0]?.headers["x-team"], "blue", path)
        assert.strictEqual(fake.of(path)[0]?.headers["x-api-key"], Fake.key)
      }
      assert.strictEqual(fake.of("forward_backward")[0]?.headers["content-encoding"], "zstd")
      assert.isUndefined(fake.of("create_model")[0]?.headers["x-team"])
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})
