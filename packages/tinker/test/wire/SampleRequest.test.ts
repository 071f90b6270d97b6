import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as SampleRequest from "../../src/wire/SampleRequest.ts"
import * as Tensor from "../../src/wire/Tensor.ts"

const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
const bytesOf = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value))
const problemOf = (body: unknown) =>
  Effect.map(Effect.flip(SampleRequest.decode(bytesOf(body))), ({ problem }) => problem)

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const optional = <S extends Schema.Top>(schema: S) => Schema.UndefinedOr(schema)

const Picture = {
  format: Schema.Literals(["png", "jpeg"]),
  expectedTokens: optional(int(0, 5000))
}
const Bytes = Schema.Array(int(0, 255))
const AnyRequest = Schema.Struct({
  samplingSessionId: optional(Schema.String),
  baseModel: optional(Schema.String),
  modelPath: optional(Schema.String),
  seqId: optional(Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: 0n, maximum: 10n ** 18n }))),
  numSamples: int(1, 1000),
  chunks: Schema.Array(
    Schema.Union([
      Schema.Struct({ type: Schema.Literal("encoded_text"), tokens: Schema.Array(int(0, 200_000)) }),
      Schema.Struct({ type: Schema.Literal("image"), data: Bytes, ...Picture }),
      Schema.Struct({ type: Schema.Literal("dmel"), dmel: Bytes }),
      Schema.Struct({ type: Schema.Literal("image_asset_pointer"), location: Schema.String, ...Picture })
    ])
  ),
  maxTokens: optional(int(1, 2 ** 31 - 1)),
  seed: optional(Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: -(2n ** 63n), maximum: 2n ** 64n - 1n }))),
  stop: optional(
    Schema.Union([Schema.NonEmptyString, Schema.Array(Schema.NonEmptyString), Schema.Array(int(0, 2 ** 31 - 1))])
  ),
  temperature: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1e6 })),
  topK: Schema.Union([Schema.Literal(-1), int(1, 2 ** 31 - 1)]),
  topP: Schema.Finite.check(Schema.isBetween({ minimum: 1e-9, maximum: 1 })),
  promptLogprobs: Schema.Boolean,
  topkPromptLogprobs: int(0, 100),
  topkSampleLogprobs: optional(int(0, 100)),
  promptLogprobsLastN: optional(int(0, 100)),
  targets: optional(Schema.Array(int(-1, 200_000))),
  sparse: Schema.Boolean,
  promptAltTokensK: optional(int(0, 100)),
  recordStabilityInfo: optional(Schema.Boolean)
})

/** One row of targets, with as many columns, or with all of them in the last column of a wider one. */
const targetsOf = ({ sparse, targets }: typeof AnyRequest.Type): Tensor.TensorData | undefined => {
  if (targets === undefined) return undefined
  const count = targets.length
  return sparse
    ? { ...Tensor.int64(targets, [1, 9]), csr: { crow: [0, count], col: targets.map(() => 8) } }
    : Tensor.int64(targets, [1, count])
}

/** A seed that a number holds is read as one. */
const narrow = (seed: bigint | undefined) =>
  seed !== undefined && Number.isSafeInteger(Number(seed)) ? Number(seed) : seed

const withoutUndefined = <A extends object>(record: A): A =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as A

/** UTF-8 has no half of a surrogate pair, and a request is text. */
const wellFormed = <A>(value: A): A =>
  typeof value === "string"
    ? (Buffer.from(value).toString() as A)
    : Array.isArray(value)
      ? (value.map(wellFormed) as A)
      : value

const toRequest = (any: typeof AnyRequest.Type) => ({
  samplingSessionId: wellFormed(any.samplingSessionId),
  baseModel: wellFormed(any.baseModel),
  modelPath: wellFormed(any.modelPath),
  seqId: any.seqId,
  numSamples: any.numSamples,
  prompt: {
    chunks: any.chunks.map((chunk) => {
      if (chunk.type === "image") return withoutUndefined({ ...chunk, data: Uint8Array.from(chunk.data) })
      if (chunk.type === "dmel") return { ...chunk, dmel: Uint8Array.from(chunk.dmel) }
      return chunk.type === "image_asset_pointer"
        ? withoutUndefined({ ...chunk, location: wellFormed(chunk.location) })
        : chunk
    })
  },
  params: {
    maxTokens: any.maxTokens,
    seed: narrow(any.seed),
    stop: wellFormed(any.stop),
    temperature: any.temperature + 0, // JSON has no -0
    topK: any.topK,
    topP: any.topP
  },
  promptLogprobs: any.promptLogprobs,
  topkPromptLogprobs: any.topkPromptLogprobs,
  ...withoutUndefined({
    topkSampleLogprobs: any.topkSampleLogprobs,
    promptLogprobsLastN: any.promptLogprobsLastN,
    targetPromptLogprobs: targetsOf(any),
    promptAltTokensK: any.promptAltTokensK,
    recordStabilityInfo: any.recordStabilityInfo
  })
})

describe("SampleRequest", () => {
  it("writes the body that the official client writes, key for key", () => {
    const body = SampleRequest.encode({
      samplingSessionId: "5f0c:sample:0",
      seqId: 0n,
      numSamples: 2,
      prompt: { chunks: [{ type: "encoded_text", tokens: Int32Array.of(5, 6) }] },
      params: { maxTokens: 4, stop: ["\n"] },
      promptLogprobs: false,
      topkPromptLogprobs: 0
    })
    assert.deepStrictEqual(JSON.parse(textOf(body)), {
      num_samples: 2,
      prompt: { chunks: [{ tokens: [5, 6], type: "encoded_text" }] },
      sampling_params: { max_tokens: 4, stop: ["\n"], temperature: 1, top_k: -1, top_p: 1 },
      sampling_session_id: "5f0c:sample:0",
      seq_id: 0,
      prompt_logprobs: false,
      topk_prompt_logprobs: 0,
      type: "sample"
    })
  })

  it.effect("keeps every digit of a number and a seed beyond 2^53", () =>
    Effect.gen(function* () {
      const request = {
        samplingSessionId: "s",
        seqId: 500_658_873_000_000_001n,
        numSamples: 1,
        prompt: { chunks: [] },
        params: { seed: 2n ** 64n - 1n },
        promptLogprobs: false,
        topkPromptLogprobs: 0
      }
      const body = SampleRequest.encode(request)
      assert.include(textOf(body), `"seq_id":500658873000000001,`)
      assert.include(textOf(body), `"seed":18446744073709551615,`)
      const read = yield* SampleRequest.decode(body)
      assert.strictEqual(read.seqId, request.seqId)
      assert.strictEqual(read.params.seed, request.params.seed)
    })
  )

  it.effect.prop(
    "reads back any request",
    [AnyRequest],
    ([any]) =>
      Effect.gen(function* () {
        const request = toRequest(any)
        assert.deepStrictEqual(yield* SampleRequest.decode(SampleRequest.encode(request)), request)
      }),
    { arbitrary: { size: 20, runs: 300 } }
  )

  it.effect("fills in what a client may leave out, and guesses the kind of a chunk", () =>
    Effect.gen(function* () {
      const read = yield* SampleRequest.decode(
        bytesOf({
          prompt: { chunks: [{ tokens: [1] }, { dmel: "AAE=" }, { location: "a", format: "png" }] },
          sampling_params: { max_tokens: null, stop: null },
          prompt_logprobs: null
        })
      )
      assert.deepStrictEqual(read.prompt.chunks, [
        { type: "encoded_text", tokens: [1] },
        { type: "dmel", dmel: Uint8Array.of(0, 1) },
        { type: "image_asset_pointer", location: "a", format: "png" }
      ])
      assert.deepStrictEqual(read.params, {
        maxTokens: undefined,
        seed: undefined,
        stop: undefined,
        temperature: 1,
        topK: -1,
        topP: 1
      })
      assert.deepStrictEqual(
        [read.seqId, read.numSamples, read.promptLogprobs, read.topkPromptLogprobs],
        [undefined, 1, false, 0]
      )
    })
  )

  it.effect("names the key that makes no sense", () =>
    Effect.gen(function* () {
      const good = { prompt: { chunks: [] }, sampling_params: {} }
      const problems: ReadonlyArray<readonly [unknown, RegExp]> = [
        ["{", /JSON/],
        ["[]", /no JSON object/],
        [{ ...good, seq_id: -1 }, /^seq_id/],
        [`{"seq_id":1.5,"prompt":{"chunks":[]},"sampling_params":{}}`, /^seq_id/],
        [{ ...good, num_samples: 0 }, /^num_samples/],
        [{ ...good, prompt: { chunks: [{ type: "video" }] } }, /unknown type "video"/],
        [{ ...good, prompt: { chunks: [{ type: "encoded_text", tokens: [0.5] }] } }, /^tokens/],
        [{ ...good, prompt: {} }, /^prompt/],
        [{ prompt: { chunks: [] } }, /^sampling_params is missing/],
        [{ ...good, sampling_params: { max_tokens: "4" } }, /max_tokens is no number/],
        [{ ...good, sampling_params: { stop: [1, "a"] } }, /stop/],
        [{ ...good, sampling_params: { top_p: 0 } }, /topP/],
        [{ ...good, prompt_logprobs: "yes" }, /^prompt_logprobs/],
        [{ ...good, target_prompt_logprobs: 5 }, /^target_prompt_logprobs is no object/],
        [{ ...good, target_prompt_logprobs: { data: [1], dtype: "int8" } }, /dtype "int8"/],
        [{ ...good, target_prompt_logprobs: { data: [1], dtype: "int64", shape: [2, 2] } }, /1 values and the shape/],
        [
          {
            ...good,
            target_prompt_logprobs: {
              data: [1],
              dtype: "int64",
              shape: [2, 2],
              sparse_crow_indices: [0],
              sparse_col_indices: [0]
            }
          },
          /indices do not fit/
        ]
      ]
      for (const [body, problem] of problems) assert.match(yield* problemOf(body), problem)
    })
  )

  it("weighs a prompt by the rule of the API", () => {
    const prompt = {
      chunks: [
        { type: "encoded_text", tokens: [1, 2, 3] },
        { type: "image", data: new Uint8Array(100), format: "png" },
        { type: "dmel", dmel: new Uint8Array(7) },
        { type: "image_asset_pointer", location: "s3://x", format: "png" }
      ]
    } as const
    assert.strictEqual(SampleRequest.estimateBytes(prompt), 30 + 100 + 7 + 6)
  })
})
