import { assert, describe, it } from "@effect/vitest"
import { create, toBinary } from "@bufbuild/protobuf"
import { Effect, Schema } from "effect"
import * as Pb from "../../src/wire/gen/tinker_public_pb.ts"
import * as SampleResponse from "../../src/wire/SampleResponse.ts"
import * as Tensor from "../../src/wire/Tensor.ts"

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"))
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")

// Made with the official client's codec.
const golden =
  "0a160801120805000000060000001a08000000bf000080bf12080000c07f000080be1a280a1000000000000000000b0000000c0000001210804fc3c7804fc3c7000080be000000c0180220022001"

// Made with the codec of revision 0.38.
const later =
  "0a400801120805000000060000001a08000000bf000080bf22280a10050000000900000006000000000000001210000000bf000000c0000080bf804fc3c718022002120c0000c07f000080be000040bf2a180a10000080be00000000000040bf000040c018012202020232340a180a100700000008000000090000000a00000018032202020212180a10000080bf000000c0000040c0000080c0180122020202"
const sparse =
  "2a32122a0a040000c0bf12180000000000000000000000000000000001000000000000001a080200000000000000180122020203"

const f32 = (...values: ReadonlyArray<number>) => new Uint8Array(Float32Array.from(values).buffer)
const i32 = (...values: ReadonlyArray<number>) => new Uint8Array(Int32Array.from(values).buffer)

/** As the generated code writes it, which shares nothing with ours. */
const generated = (init: Parameters<typeof create<typeof Pb.SampleResponseSchema>>[1]) =>
  toBinary(Pb.SampleResponseSchema, create(Pb.SampleResponseSchema, init))
const sequence = (init: Parameters<typeof create<typeof Pb.SampledSequenceSchema>>[1]) =>
  create(Pb.SampledSequenceSchema, init)
const topk = (init: Parameters<typeof create<typeof Pb.TopkPromptLogprobsSchema>>[1]) =>
  create(Pb.TopkPromptLogprobsSchema, init)

const problemOf = (message: Uint8Array) =>
  Effect.map(Effect.flip(SampleResponse.decode(message)), ({ problem }) => problem)

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Token = int(-(2 ** 31), 2 ** 31 - 1)
const AnySample = Schema.Struct({
  sequences: Schema.Array(
    Schema.Struct({ stop: Schema.Boolean, values: Schema.Boolean, topk: Schema.Boolean, tokens: Schema.Array(Token) })
  ),
  prompt: Schema.Array(Schema.NullOr(Schema.Number)),
  topk: Schema.Array(Schema.Array(int(1, 200_000))),
  hits: int(0, 2 ** 31 - 1)
})

// Nothing and an empty list are the same bytes.
const unlessEmpty = <A>(list: ReadonlyArray<A>) => (list.length === 0 ? undefined : list)

const toResponse = (any: typeof AnySample.Type): SampleResponse.SampleResponse => ({
  sequences: any.sequences.map(({ stop, tokens, topk, values }) => ({
    stopReason: stop ? "stop" : "length",
    tokens,
    logprobs: values ? unlessEmpty(tokens.map((token) => Math.fround(-token / 4))) : undefined,
    ...(topk && tokens.length > 0
      ? { topkLogprobs: tokens.map((token, i) => (token % 3 === 0 ? undefined : [[i + 1, -i] as const])) }
      : {})
  })),
  // NaN is how the wire spells absence.
  promptLogprobs: unlessEmpty(
    any.prompt.map((value) => (value === null || Number.isNaN(value) ? undefined : Math.fround(value)))
  ),
  topkPromptLogprobs: unlessEmpty(any.topk.map((row) => unlessEmpty(row.map((token) => [token, -token / 2] as const)))),
  promptCacheHitTokens: any.hits
})

describe("SampleResponse", () => {
  it.effect("reads and writes what the official codec wrote, byte for byte", () =>
    Effect.gen(function* () {
      const read = yield* SampleResponse.decode(bytes(golden))
      assert.deepStrictEqual(read, {
        sequences: [{ stopReason: "length", tokens: [5, 6], logprobs: [-0.5, -1] }],
        promptLogprobs: [undefined, -0.25],
        topkPromptLogprobs: [
          undefined,
          [
            [11, -0.25],
            [12, -2]
          ]
        ],
        promptCacheHitTokens: 1
      })
      assert.strictEqual(hex(SampleResponse.encode(read)), golden)
    })
  )

  it.effect("reads what later revisions added, as their own codec wrote it", () =>
    Effect.gen(function* () {
      const read = yield* SampleResponse.decode(bytes(later))
      assert.deepStrictEqual(read.sequences, [
        {
          stopReason: "length",
          tokens: [5, 6],
          logprobs: [-0.5, -1],
          topkLogprobs: [
            [
              [5, -0.5],
              [9, -2]
            ],
            [[6, -1]]
          ]
        }
      ])
      assert.deepStrictEqual(read.promptLogprobs, [undefined, -0.25, -0.75])
      const plain = (tensor = Tensor.float32([])) => ({ ...tensor, data: Array.from(tensor.data) })
      assert.deepStrictEqual(plain(read.targetPromptLogprobs), Tensor.float32([-0.25, 0, -0.75, -3], [2, 2]))
      assert.deepStrictEqual(plain(read.promptAltTokens?.tokens), Tensor.int64([7, 8, 9, 10], [2, 2]))
      assert.deepStrictEqual(plain(read.promptAltTokens?.logprobs), Tensor.float32([-1, -2, -3, -4], [2, 2]))
      // Tokens are written with 64 bits, which is the same to a reader.
      const again = yield* SampleResponse.decode(SampleResponse.encode(read))
      assert.deepStrictEqual(again, read)

      const targets = yield* SampleResponse.decode(bytes(sparse))
      assert.deepStrictEqual(Array.from(targets.targetPromptLogprobs?.csr?.col ?? []), [2])
      assert.strictEqual(hex(SampleResponse.encode(targets)), sparse)
    })
  )

  it.effect.prop(
    "reads back any result, ragged, empty or without numbers",
    [AnySample],
    ([any]) =>
      Effect.gen(function* () {
        const response = toResponse(any)
        assert.deepStrictEqual(yield* SampleResponse.decode(SampleResponse.encode(response)), response)
      }),
    { arbitrary: { size: 30, runs: 300 } }
  )

  it.effect.prop(
    "writes the bytes that the generated code writes",
    [AnySample],
    ([any]) =>
      Effect.sync(() => {
        // The generated code is of 0.25 and knows no such field of a sequence.
        const response = toResponse({ ...any, sequences: any.sequences.map((one) => ({ ...one, topk: false })) })
        const k = Math.max(1, ...(response.topkPromptLogprobs ?? []).map((row) => row?.length ?? 0))
        const cells = (response.topkPromptLogprobs ?? []).flatMap((row) =>
          Array.from({ length: k }, (_, i) => row?.[i] ?? ([0, -99_999] as const))
        )
        assert.strictEqual(
          hex(SampleResponse.encode(response)),
          hex(
            generated({
              sequences: response.sequences.map(({ logprobs, stopReason, tokens }) =>
                sequence({
                  stopReason: stopReason === "stop" ? 0 : 1,
                  tokens: i32(...tokens),
                  ...(logprobs === undefined ? {} : { logprobs: f32(...logprobs) })
                })
              ),
              ...(response.promptLogprobs === undefined
                ? {}
                : { promptLogprobs: f32(...response.promptLogprobs.map((value) => value ?? Number.NaN)) }),
              ...(response.topkPromptLogprobs === undefined
                ? {}
                : {
                    topkPromptLogprobs: topk({
                      tokenIds: i32(...cells.map(([token]) => token)),
                      logprobs: f32(...cells.map(([, logprob]) => logprob)),
                      k,
                      promptLength: response.topkPromptLogprobs.length
                    })
                  }),
              promptCacheHitTokens: response.promptCacheHitTokens
            })
          )
        )
      }),
    { arbitrary: { size: 30, runs: 200 } }
  )

  it.effect("takes empty arrays for absent ones, and cuts masked cells off", () =>
    Effect.gen(function* () {
      const read = yield* SampleResponse.decode(
        generated({
          sequences: [sequence({ tokens: i32(7), logprobs: new Uint8Array() })],
          promptLogprobs: new Uint8Array(),
          topkPromptLogprobs: topk({
            tokenIds: i32(3, 0, 0, 4, 0, 0),
            logprobs: f32(-1, -99_999, -99_999, -2, -99_999, -99_999),
            k: 2,
            promptLength: 3
          })
        })
      )
      assert.deepStrictEqual(read, {
        sequences: [{ stopReason: "stop", tokens: [7], logprobs: undefined }],
        promptLogprobs: undefined,
        // The second row begins with a masked cell, whatever follows.
        topkPromptLogprobs: [[[3, -1]], undefined, undefined],
        promptCacheHitTokens: 0
      })
    })
  )

  it.effect("reads no matrix where there are no rows or no columns", () =>
    Effect.gen(function* () {
      for (const empty of [topk({ k: 0, promptLength: 5 }), topk({ k: 5, promptLength: 0 })]) {
        const read = yield* SampleResponse.decode(generated({ topkPromptLogprobs: empty }))
        assert.isUndefined(read.topkPromptLogprobs)
      }
    })
  )

  it.effect("skips fields of later revisions", () =>
    Effect.gen(function* () {
      // Field 9: a submessage, a varint, eight bytes, four bytes; field 5 of a sequence: text.
      const later = `4a021001${"4805"}${"49"}${"00".repeat(8)}${"4d"}${"00".repeat(4)}`
      const read = yield* SampleResponse.decode(bytes(`0a0b${"1204"}${"05000000"}${"2a03616263"}${later}`))
      assert.deepStrictEqual(read.sequences, [{ stopReason: "stop", tokens: [5], logprobs: undefined }])
    })
  )

  it.effect("says what is wrong with a result that makes no sense", () =>
    Effect.gen(function* () {
      const problems: ReadonlyArray<readonly [Uint8Array, RegExp]> = [
        [generated({ sequences: [sequence({ stopReason: 2 })] }), /stop reason 2/],
        [generated({ sequences: [sequence({ tokens: i32(1, 2), logprobs: f32(-1) })] }), /2 tokens and 1 logprobs/],
        [generated({ sequences: [sequence({ tokens: new Uint8Array(5) })] }), /5 bytes, no multiple of 4/],
        [generated({ promptLogprobs: new Uint8Array(3) }), /prompt's logprobs has 3 bytes/],
        [
          generated({ topkPromptLogprobs: topk({ k: 4_000_000_000, promptLength: 4_000_000_000 }) }),
          /0 tokens and 0 logprobs for 4000000000 rows of 4000000000/
        ],
        // Field 4 of a sequence: one row of one cell, for no token.
        [bytes("0a1222100a04070000001204000000bf18012001"), /0 tokens and 1 rows of top-k/],
        // Field 6: tokens of the shape [1, 1], and no logprobs.
        [bytes("320e0a0c0a0401000000180322020101"), /lack tokens or logprobs/],
        [bytes("0d00000000"), /field 1 in the wire type 5/]
      ]
      for (const [message, problem] of problems) assert.match(yield* problemOf(message), problem)
    })
  )

  it("refuses to write half a token", () => {
    const sequences = [{ stopReason: "stop", tokens: [0.5], logprobs: undefined }] as const
    assert.throws(
      () =>
        SampleResponse.encode({
          sequences,
          promptLogprobs: undefined,
          topkPromptLogprobs: undefined,
          promptCacheHitTokens: 0
        }),
      /0\.5/
    )
  })

  it.effect("refuses every truncation, or reads a message from it, and never throws", () =>
    Effect.gen(function* () {
      let refused = 0
      for (const whole of [golden, later, sparse]) {
        for (let end = 0; end < whole.length / 2; end++) {
          const exit = yield* Effect.exit(SampleResponse.decode(bytes(whole.slice(0, 2 * end))))
          if (exit._tag === "Success") continue
          refused++
          assert.isTrue(exit.cause.reasons.every((reason) => reason._tag === "Fail"))
        }
      }
      assert.isAtLeast(refused, 200)
    })
  )

  it.effect("never throws, whatever the bytes", () =>
    Effect.gen(function* () {
      const seed = 20_261_125
      let state = seed
      const random = (below: number) => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
        return Math.floor((state / 2 ** 32) * below)
      }
      for (let round = 0; round < 3000; round++) {
        const bad =
          round % 3 === 2
            ? Uint8Array.from({ length: random(60) }, () => random(256))
            : bytes(round % 3 === 0 ? golden : later)
        for (let hits = random(4) + 1; hits > 0 && bad.length > 0; hits--) bad[random(bad.length)] = random(256)
        const exit = yield* Effect.exit(SampleResponse.decode(bad))
        if (exit._tag === "Success") continue
        assert.isTrue(
          exit.cause.reasons.every((reason) => reason._tag === "Fail"),
          `seed ${seed}, round ${round}: ${hex(bad)}`
        )
      }
    })
  )
})
