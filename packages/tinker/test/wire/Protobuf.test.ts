import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Datum from "../../src/wire/Datum.ts"
import * as Protobuf from "../../src/wire/Protobuf.ts"
import * as Tensor from "../../src/wire/Tensor.ts"

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"))
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const plain = (tensor: Tensor.TensorData) => ({ ...tensor, data: Array.from(tensor.data) })

// Made with the official client's codec.
const request =
  "0a09733a747261696e3a3010031a380a0c0a0a0a08070000000800000012280a0d7461726765745f746f6b656e7312170a10080000000000000009000000000000001802220102220370706f2a1d0a12636c69705f6c6f775f7468726573686f6c6411000000000000e03f3001"
const sparse = "122a0a040000c03f12180000000000000000000000000000000001000000000000001a080200000000000000180122020203"
const sample =
  "0a160801120805000000060000001a08000000bf000080bf12080000c07f000080be1a280a1000000000000000000b0000000c0000001210804fc3c7804fc3c7000080be000000c0180220022001"
const output =
  "0a17706b672e6d6f643a546f7263684c6f737352657475726e124b0a0f546f7263684c6f737352657475726e12360a086c6f6770726f6273122a0a0c000080bf000000c0000040c01218000000000000000008000000000000000c00000000000000180118021a130a086c6f73733a73756d110000000000000440"

const asked: Protobuf.ForwardBackwardRequest = {
  modelId: "s:train:0",
  seqId: 3,
  data: [{ modelInput: Datum.fromTokens([7, 8]), lossFnInputs: { target_tokens: Tensor.int64([8, 9]) } }],
  lossFn: "ppo",
  lossFnConfig: { clip_low_threshold: 0.5 },
  forwardOnly: true
}

describe("Protobuf", () => {
  it("writes a forward_backward request byte for byte", () => {
    assert.strictEqual(hex(Protobuf.encodeForwardBackwardRequest(asked)), request)
  })

  it.effect("reads a forward_backward request", () =>
    Effect.gen(function* () {
      const read = yield* Protobuf.decodeForwardBackwardRequest(bytes(request))
      assert.strictEqual(read.seqId, 3)
      assert.isTrue(read.forwardOnly)
      assert.deepStrictEqual(read.lossFnConfig, { clip_low_threshold: 0.5 })
      const datum = read.data[0]
      assert.deepStrictEqual(plain(datum?.lossFnInputs["target_tokens"] ?? Tensor.int64([])), {
        dtype: "int64",
        data: [8, 9],
        shape: [2]
      })
    })
  )

  it.effect("reads a body that is a view into a larger buffer, at any address", () =>
    Effect.gen(function* () {
      for (const before of [0, 1, 2, 3, 5, 8]) {
        const pool = Buffer.concat([Buffer.alloc(before, 0xff), Buffer.from(request, "hex"), Buffer.alloc(64, 0xff)])
        const read = yield* Protobuf.decodeForwardBackwardRequest(pool.subarray(before, before + request.length / 2))
        const datum = read.data[0]
        assert.deepStrictEqual(plain(datum?.lossFnInputs["target_tokens"] ?? Tensor.int64([])).data, [8, 9])
        const chunk = datum?.modelInput.chunks[0]
        assert.deepStrictEqual(chunk?.type === "encoded_text" ? Array.from(chunk.tokens) : [], [7, 8])
      }
    })
  )

  it("writes a sparse tensor byte for byte", () => {
    const weights: Tensor.TensorData = {
      dtype: "float32",
      data: [1.5],
      shape: [2, 3],
      csr: { crow: [0, 0, 1], col: [2] }
    }
    const body = Protobuf.encodeForwardBackwardRequest({
      ...asked,
      data: [{ modelInput: { chunks: [] }, lossFnInputs: { weights } }]
    })
    assert.include(hex(body), sparse)
  })

  it.effect("reads and writes a sampling result", () =>
    Effect.gen(function* () {
      const read = yield* Protobuf.decodeSampleResponse(bytes(sample))
      assert.deepStrictEqual(read, {
        sequences: [{ stopReason: "length", tokens: [5, 6], logprobs: [-0.5, -1] }],
        promptLogprobs: [null, -0.25],
        topkPromptLogprobs: [
          null,
          [
            [11, -0.25],
            [12, -2]
          ]
        ],
        promptCacheHitTokens: 1
      })
      assert.strictEqual(hex(Protobuf.encodeSampleResponse(read)), sample)
    })
  )

  it.effect("reads a forward_backward result", () =>
    Effect.gen(function* () {
      const read = yield* Protobuf.decodeForwardBackwardOutput(bytes(output))
      assert.strictEqual(read.lossFnOutputType, "TorchLossReturn")
      assert.deepStrictEqual(read.metrics, { "loss:sum": 2.5 })
      assert.deepStrictEqual(
        read.lossFnOutputs.map((datum) => plain(datum["logprobs"] ?? Tensor.float32([]))),
        [
          { dtype: "float32", data: [-1, -2], shape: [2] },
          { dtype: "float32", data: [-3], shape: [1] }
        ]
      )
      const written = Protobuf.encodeForwardBackwardOutput({ ...read, lossFnOutputType: "pkg.mod:TorchLossReturn" })
      assert.strictEqual(hex(written), output)
    })
  )

  it.effect("keeps the count of datums whose outputs were stripped", () =>
    Effect.gen(function* () {
      const stripped = Protobuf.encodeForwardBackwardOutput({
        lossFnOutputType: "",
        lossFnOutputs: [{}, {}, {}],
        metrics: {}
      })
      const read = yield* Protobuf.decodeForwardBackwardOutput(stripped)
      assert.deepStrictEqual(read.lossFnOutputs, [{}, {}, {}])
      assert.strictEqual(read.lossFnOutputType, "ArrayRecord")
    })
  )

  it.effect("refuses every truncation of a message, or reads a message from it, and never throws", () =>
    Effect.gen(function* () {
      for (const [whole, decode] of [
        [request, Protobuf.decodeForwardBackwardRequest],
        [output, Protobuf.decodeForwardBackwardOutput],
        [sample, Protobuf.decodeSampleResponse]
      ] as const) {
        let refused = 0
        for (let end = 0; end < whole.length / 2; end++) {
          const exit = yield* Effect.exit(decode(bytes(whole.slice(0, 2 * end))) as Effect.Effect<unknown, unknown>)
          if (exit._tag === "Failure") {
            refused++
            assert.isTrue(exit.cause.reasons.every((reason) => reason._tag === "Fail"))
          }
        }
        assert.isAbove(refused, whole.length / 4)
      }
    })
  )

  it.effect("refuses offsets outside the data, and a count that its bytes cannot back", () =>
    Effect.gen(function* () {
      for (const broken of [
        output.replace("0c00000000000000180118", "ff00000000000000180118"),
        output.replace("18021a13", "18091a13")
      ]) {
        assert.notStrictEqual(broken, output)
        const error = yield* Effect.flip(Protobuf.decodeForwardBackwardOutput(bytes(broken)))
        assert.match(error.message, /forward_backward result is not as the API has it/)
      }
    })
  )

  it.effect("widens int32 and bfloat16", () =>
    Effect.gen(function* () {
      // dtype 3 (int32) and then 4 (bfloat16: 0x3fc0 is 1.5), as a tensor of a request.
      const int32 = request.replace("100800000000000000090000000000000018022201 02".replaceAll(" ", ""), "")
      assert.notStrictEqual(int32, request)
      const tensor = (dtype: number, data: string) => {
        const dense = data.length / 2
        const body = `0a${dense.toString(16).padStart(2, "0")}${data}180${dtype}`
        const entry = `0a01741${"2"}${(body.length / 2).toString(16).padStart(2, "0")}${body}`
        const datum = `12${(entry.length / 2).toString(16).padStart(2, "0")}${entry}`
        return bytes(`1a${(datum.length / 2).toString(16).padStart(2, "0")}${datum}`)
      }
      const wide = yield* Protobuf.decodeForwardBackwardRequest(tensor(3, "feffffff05000000"))
      assert.deepStrictEqual(plain(wide.data[0]?.lossFnInputs["t"] ?? Tensor.int64([])).data, [-2, 5])
      const half = yield* Protobuf.decodeForwardBackwardRequest(tensor(4, "c03f80bf"))
      assert.deepStrictEqual(plain(half.data[0]?.lossFnInputs["t"] ?? Tensor.int64([])).data, [1.5, -1])
    })
  )

  it.effect.prop(
    "reads back what it wrote",
    [
      Schema.Array(
        Schema.Struct({
          tokens: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200_000 }))),
          weights: Schema.Array(Schema.Number),
          ids: Schema.Array(
            Schema.Int.check(Schema.isBetween({ minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }))
          )
        })
      )
    ],
    ([rows]) =>
      Effect.gen(function* () {
        const data = rows.map((row) => ({
          modelInput: Datum.fromTokens(row.tokens),
          lossFnInputs: { weights: Tensor.float32(row.weights.map(Math.fround)), ids: Tensor.int64(row.ids) }
        }))
        const read = yield* Protobuf.decodeForwardBackwardRequest(
          Protobuf.encodeForwardBackwardRequest({ ...asked, data })
        )
        assert.strictEqual(read.data.length, data.length)
        for (const [i, datum] of data.entries()) {
          const back = read.data[i]?.lossFnInputs ?? {}
          assert.deepStrictEqual(plain(back["weights"] ?? Tensor.int64([])), plain(datum.lossFnInputs.weights))
          assert.deepStrictEqual(plain(back["ids"] ?? Tensor.int64([])), plain(datum.lossFnInputs.ids))
        }
      })
  )
})
