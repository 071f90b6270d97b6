import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { create, toBinary } from "@bufbuild/protobuf"
import * as Datum from "../../src/wire/Datum.ts"
import * as Pb from "../../src/wire/gen/tinker_public_pb.ts"
import * as Protobuf from "../../src/wire/Protobuf.ts"
import * as Tensor from "../../src/wire/Tensor.ts"
import type { WireError } from "../../src/wire/WireError.ts"

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"))
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const plain = (tensor: Tensor.TensorData) => ({ ...tensor, data: Array.from(tensor.data) })

// Made with the official client's codec.
const request =
  "0a09733a747261696e3a3010031a380a0c0a0a0a08070000000800000012280a0d7461726765745f746f6b656e7312170a10080000000000000009000000000000001802220102220370706f2a1d0a12636c69705f6c6f775f7468726573686f6c6411000000000000e03f3001"
const sparse = "122a0a040000c03f12180000000000000000000000000000000001000000000000001a080200000000000000180122020203"
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

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Token = int(0, 200_000)

// Sizes and a few values, from which chunks and tensors of every kind are made.
const AnyDatum = Schema.Struct({
  chunks: Schema.Array(
    Schema.Struct({ kind: int(0, 3), tokens: Schema.Array(Token), expected: Schema.NullOr(int(0, 9)) })
  ),
  rows: int(0, 4),
  columns: int(1, 3),
  floats: Schema.Array(Schema.Number),
  whole: int(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  spans: Schema.Array(
    Schema.Struct({ prompt: Schema.Boolean, name: int(0, 999), offset: int(0, Number.MAX_SAFE_INTEGER), length: Token })
  )
})
const Metrics = Schema.Record(Schema.String, Schema.Number)
const toChunk = ({ expected, kind, tokens }: (typeof AnyDatum.Type)["chunks"][number]): Datum.Chunk => {
  const raw = Uint8Array.from(tokens)
  if (kind === 0) return { type: "dmel", dmel: raw }
  if (kind > 1) return { type: "encoded_text", tokens }
  const image = { type: "image", data: raw, format: "png" } as const
  return expected === null ? image : { ...image, expectedTokens: expected }
}

const tensors = (row: typeof AnyDatum.Type) => {
  const size = row.rows * row.columns
  const value = (i: number) => Math.fround(row.floats[i % row.floats.length] ?? Number.NaN)
  return {
    weights: Tensor.float32(row.floats.map(Math.fround)),
    // -0 is 0 to an integer.
    ids: Tensor.int64([row.whole || 0]),
    grid: Tensor.float32(
      Array.from({ length: size }, (_, i) => value(i)),
      [row.rows, row.columns]
    ),
    // One value in each row, in its last column.
    sparse: {
      dtype: "int64",
      data: Array.from({ length: row.rows }, (_, i) => i),
      shape: [row.rows, row.columns],
      csr: {
        crow: Array.from({ length: row.rows + 1 }, (_, i) => i),
        col: Array.from({ length: row.rows }, () => row.columns - 1)
      }
    } satisfies Tensor.TensorData
  }
}

/** The same datum through the generated code. */
const generatedDatum = (datum: Datum.Datum) => {
  const i64 = (values: ArrayLike<number>) => new Uint8Array(BigInt64Array.from(Array.from(values), BigInt).buffer)
  const f32 = (values: ArrayLike<number>) => new Uint8Array(Float32Array.from(values).buffer)
  const span = ({ from, length, offset = 0, sequenceId }: Datum.ProvenanceSpan) => {
    const value = create(Pb.TokenSpanSchema, { sequenceId, offset: BigInt(offset), length: BigInt(length) })
    return create(Pb.ProvenanceSpanSchema, {
      span: from === "prompt" ? { case: "promptTokens", value } : { case: "sampledTokens", value }
    })
  }
  return create(Pb.DatumSchema, {
    modelInputSpans: (datum.provenance?.modelInput ?? []).map(span),
    lossFnInputSpans: (datum.provenance?.lossFnInputs ?? []).map(span),
    modelInput: datum.modelInput.chunks.map((chunk) => {
      switch (chunk.type) {
        case "encoded_text":
          return create(Pb.ChunkSchema, {
            chunk: {
              case: "encodedText",
              value: create(Pb.EncodedTextChunkSchema, {
                tokens: new Uint8Array(Int32Array.from(chunk.tokens).buffer)
              })
            }
          })
        case "image":
          return create(Pb.ChunkSchema, {
            chunk: {
              case: "image",
              value: create(Pb.ImageChunkSchema, {
                data: chunk.data,
                format: chunk.format,
                ...(chunk.expectedTokens === undefined ? {} : { expectedTokens: chunk.expectedTokens })
              })
            }
          })
        case "dmel":
          return create(Pb.ChunkSchema, {
            chunk: { case: "dmel", value: create(Pb.DmelChunkSchema, { dmel: chunk.dmel }) }
          })
        case "image_asset_pointer":
          return assert.fail("a pass has none")
      }
    }),
    lossFnInputs: Object.fromEntries(
      Object.entries(datum.lossFnInputs).map(([name, { csr, data, dtype, shape }]) => {
        const values = dtype === "int64" ? i64(data) : f32(data)
        return [
          name,
          create(Pb.TensorSchema, {
            encoding:
              csr === undefined
                ? { case: "dense", value: values }
                : {
                    case: "sparseCsr",
                    value: create(Pb.SparseCsrSchema, { values, crowIndices: i64(csr.crow), colIndices: i64(csr.col) })
                  },
            dtype: dtype === "int64" ? 2 : 1,
            shape: shape.map(BigInt)
          })
        ]
      })
    )
  })
}

const plainTensors = (all: Readonly<Record<string, Tensor.TensorData>>) =>
  Object.fromEntries(
    Object.entries(all).map(([name, { csr, data, dtype, shape }]) => [
      name,
      {
        dtype,
        shape,
        data: Array.from(data),
        csr: csr === undefined ? null : [Array.from(csr.crow), Array.from(csr.col)]
      }
    ])
  )

const toDatum = (row: typeof AnyDatum.Type): Datum.Datum => {
  const spans = row.spans.map(({ length, name, offset, prompt }): Datum.ProvenanceSpan => ({
    from: prompt ? "prompt" : "sampled",
    sequenceId: `${name}`,
    offset,
    length
  }))
  return {
    modelInput: { chunks: row.chunks.map(toChunk) },
    lossFnInputs: tensors(row),
    ...(spans.length === 0 ? {} : { provenance: { modelInput: spans, lossFnInputs: spans.slice(1) } })
  }
}

const plainDatum = (datum: Datum.Datum) => ({
  chunks: datum.modelInput.chunks.map((chunk) =>
    chunk.type === "encoded_text"
      ? { ...chunk, tokens: Array.from(chunk.tokens) }
      : chunk.type === "image"
        ? { ...chunk, data: [...chunk.data] }
        : chunk.type === "dmel"
          ? { ...chunk, dmel: [...chunk.dmel] }
          : chunk
  ),
  tensors: plainTensors(datum.lossFnInputs),
  provenance: datum.provenance
})

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
        [output, Protobuf.decodeForwardBackwardOutput]
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

  it("refuses to write what the wire cannot hold", () => {
    const write = (lossFnInputs: Record<string, Tensor.TensorData>, tokens: ReadonlyArray<number> = []) => {
      Protobuf.encodeForwardBackwardRequest({
        ...asked,
        data: [{ modelInput: Datum.fromTokens(tokens), lossFnInputs }]
      })
    }
    assert.throws(() => write({}, [1, 1.5]), /a text chunk has 1.5 at 1/)
    assert.throws(() => write({}, [2 ** 31]), /2147483648 at 0/)
    assert.throws(() => write({ target_tokens: Tensor.int64([0, Number.NaN]) }), /tensor target_tokens has NaN at 1/)
    assert.throws(() => write({ ids: Tensor.int64([2 ** 53]) }), /no whole number below 2\^53/)
    assert.throws(() => write({ weights: Tensor.float32([1, 2, 3], [2, 2]) }), /has 3 values and the shape \[2, 2\]/)
    assert.throws(
      () => write({ weights: { dtype: "float32", data: [1], shape: [1, 2], csr: { crow: [0, 1], col: [2] } } }),
      /indices do not fit/
    )
  })

  it.effect("reads outputs of several records, each with its own type and trailing shape", () =>
    Effect.gen(function* () {
      const i32 = (...values: ReadonlyArray<number>) => new Uint8Array(Int32Array.from(values).buffer)
      const i64 = (...values: ReadonlyArray<number>) => new Uint8Array(BigInt64Array.from(values.map(BigInt)).buffer)
      const record = (numDatums: bigint, fields: Record<string, Pb.BatchedTensor>) =>
        create(Pb.ArrayRecordSchema, { typeTag: "T", numDatums, fields })
      const batched = (data: Uint8Array, offsets: Uint8Array, dtype: number, trailing: ReadonlyArray<bigint> = []) =>
        create(Pb.BatchedTensorSchema, { data, offsets, dtype, trailingShape: [...trailing] })
      const read = yield* Protobuf.decodeForwardBackwardOutput(
        toBinary(
          Pb.ForwardBackwardOutputSchema,
          create(Pb.ForwardBackwardOutputSchema, {
            lossFnOutputType: "a:b:T",
            lossFnOutputs: [
              // int32: offsets count the bytes before widening.
              record(2n, { ids: batched(i32(-1, 7, 9), i64(0, 4, 12), 3) }),
              record(1n, { ids: batched(bytes("c03f80bf0000803f"), i64(0, 8), 4, [2n]) }),
              // No count: as many as the first field has.
              record(0n, { ids: batched(i64(5), i64(0, 8, 8), 2) }),
              record(1n, {})
            ]
          })
        )
      )
      assert.strictEqual(read.lossFnOutputType, "T")
      assert.deepStrictEqual(
        read.lossFnOutputs.map((datum) => (datum["ids"] === undefined ? {} : plain(datum["ids"]))),
        [
          { dtype: "int64", data: [-1], shape: [1] },
          { dtype: "int64", data: [7, 9], shape: [2] },
          { dtype: "float32", data: [1.5, -1, 0, 1], shape: [2, 2] },
          { dtype: "int64", data: [5], shape: [1] },
          { dtype: "int64", data: [], shape: [0] },
          {}
        ]
      )
      const none = yield* Protobuf.decodeForwardBackwardOutput(bytes("0a03613a54"))
      assert.strictEqual(none.lossFnOutputType, "a:T", "as it is where there are no records")
      for (const wrong of [
        record(2n, { ids: batched(i32(1), i64(0, 4), 3) }), // one offset too few
        record(1n, { ids: batched(i32(1), i64(0, 2), 3) }), // half an item
        record(1n, { ids: batched(i32(1), i64(-4, 4), 3) }),
        record(1n, { ids: batched(i32(1), i64(4, 0), 3) }),
        record(1n, { ids: batched(i32(1), i64(0, 4), 9) }), // no such dtype
        record(1n, { ids: batched(i32(1, 2, 3), i64(0, 12), 3, [2n]) }), // one row and a half
        record(1n, { ids: batched(i32(1), i64(0, 4), 3, [-1n]) }),
        record(1n, { ids: batched(i32(1), bytes("00"), 3) }),
        record(1n, { ids: batched(i32(1), new Uint8Array(BigInt64Array.of(0n, 2n ** 60n).buffer), 3) }),
        record(2_000_000n, {}) // a few bytes must not make us allocate
      ]) {
        const message = create(Pb.ForwardBackwardOutputSchema, { lossFnOutputs: [wrong] })
        const error = yield* Effect.flip(
          Protobuf.decodeForwardBackwardOutput(toBinary(Pb.ForwardBackwardOutputSchema, message))
        )
        assert.strictEqual(error._tag, "WireError")
      }
    })
  )

  it.effect("says a loss's settings in words as the official client does; numbers alone stay as they were", () =>
    Effect.gen(function* () {
      // Made with the codec of revision 0.38.
      const golden =
        "0a09733a747261696e3a3010032210737461626c655f7265696e666f7263652a130a086b6c5f636f65666611000000000000e03f3a150a086b6c5f636f656666120909000000000000e03f3a100a046d6f646512081206737472696374"
      const told: Protobuf.ForwardBackwardRequest = {
        modelId: "s:train:0",
        seqId: 3,
        data: [],
        lossFn: "stable_reinforce",
        lossFnConfig: { kl_coeff: 0.5, mode: "strict" },
        forwardOnly: false
      }
      assert.strictEqual(hex(Protobuf.encodeForwardBackwardRequest(told)), golden)
      const read = yield* Protobuf.decodeForwardBackwardRequest(bytes(golden))
      assert.deepStrictEqual(read.lossFnConfig, told.lossFnConfig)
      // Services of 0.25 know no other place for numbers than the first one.
      const numbers = Protobuf.encodeForwardBackwardRequest({ ...told, lossFnConfig: { kl_coeff: 0.5 } })
      assert.strictEqual(hex(numbers), golden.slice(0, golden.indexOf("3a15")))
      // The newer place is believed where both say something, and a value that is neither is refused.
      const both = yield* Protobuf.decodeForwardBackwardRequest(bytes("2a0c0a016111000000000000f03f3a070a016112021200"))
      assert.deepStrictEqual(both.lossFnConfig, { a: "" })
      const neither = yield* Effect.flip(Protobuf.decodeForwardBackwardRequest(bytes("3a050a01611200")))
      assert.match(neither.message, /setting a of the loss has no value/)
    })
  )

  it.effect("says where tokens come from as the official client does", () =>
    Effect.gen(function* () {
      // Made with the codec of revision 0.38.
      const golden =
        "0a016d10011a680a100a0e0a0c07000000080000000900000012300a0d7461726765745f746f6b656e73121f0a18080000000000000009000000000000000a0000000000000018022201031a090a070a03733a3018011a0912070a03733a301802220c120a0a03733a3010ac021803220d63726f73735f656e74726f7079"
      const provenance: Datum.Provenance = {
        modelInput: [
          { from: "prompt", sequenceId: "s:0", offset: 0, length: 1 },
          { from: "sampled", sequenceId: "s:0", offset: 0, length: 2 }
        ],
        lossFnInputs: [{ from: "sampled", sequenceId: "s:0", offset: 300, length: 3 }]
      }
      const told: Protobuf.ForwardBackwardRequest = {
        modelId: "m",
        seqId: 1,
        data: [
          {
            modelInput: Datum.fromTokens([7, 8, 9]),
            lossFnInputs: { target_tokens: Tensor.int64([8, 9, 10]) },
            provenance
          }
        ],
        lossFn: "cross_entropy",
        lossFnConfig: {},
        forwardOnly: false
      }
      assert.strictEqual(hex(Protobuf.encodeForwardBackwardRequest(told)), golden)
      const read = yield* Protobuf.decodeForwardBackwardRequest(bytes(golden))
      assert.deepStrictEqual(read.data[0]?.provenance, provenance)
      for (const [span, words] of [
        ["1a00", /a span is empty/],
        ["1a0d0a0b10ffffffffffffffffff01", /dimension -1/]
      ] as const) {
        const body = bytes(`1a${(span.length / 2).toString(16).padStart(2, "0")}${span}`)
        assert.match((yield* Effect.flip(Protobuf.decodeForwardBackwardRequest(body))).message, words)
      }
    })
  )

  it.effect("passes over fields of later revisions, wherever they stand", () =>
    Effect.gen(function* () {
      // Field 8 as a map entry of a message, and field 99 as a number.
      const later = "42080a017812030a0131980601"
      const plainRequest = yield* Protobuf.decodeForwardBackwardRequest(bytes(request))
      for (const body of [request + later, later + request]) {
        assert.deepStrictEqual(yield* Protobuf.decodeForwardBackwardRequest(bytes(body)), plainRequest)
      }
      // The same inside a datum, whose length grows by as much.
      const datum = request.replace("1a380a0c", "1a45".concat(later, "0a0c"))
      assert.strictEqual((yield* Protobuf.decodeForwardBackwardRequest(bytes(datum))).data.length, 1)
      const plainOutput = yield* Protobuf.decodeForwardBackwardOutput(bytes(output))
      for (const body of [output + later, later + output]) {
        assert.deepStrictEqual(yield* Protobuf.decodeForwardBackwardOutput(bytes(body)), plainOutput)
      }
    })
  )

  it.effect("keeps 64-bit numbers beyond 2^53 to the last digit", () =>
    Effect.gen(function* () {
      for (const [values, exact] of [
        [[2n ** 53n - 1n, -(2n ** 53n) + 1n], false],
        [[2n ** 53n], true],
        [[-(2n ** 53n)], true],
        [[1n, 2n ** 63n - 1n, -(2n ** 63n)], true]
      ] as const) {
        const ids = Tensor.int64(BigInt64Array.from(values))
        const read = yield* Protobuf.decodeForwardBackwardRequest(
          Protobuf.encodeForwardBackwardRequest({
            ...asked,
            data: [{ modelInput: { chunks: [] }, lossFnInputs: { ids } }]
          })
        )
        const back = read.data[0]?.lossFnInputs["ids"]
        assert.deepStrictEqual(back?.exact === undefined ? undefined : [...back.exact], exact ? [...values] : undefined)
        assert.deepStrictEqual(Array.from(back?.data ?? []), values.map(Number))
      }
    })
  )

  it.effect("refuses a sparse tensor whose indices leave its shape", () =>
    Effect.gen(function* () {
      for (const [from, to] of [
        ["02000000000000001801", "03000000000000001801"], // a column beyond the last
        ["01000000000000001a08", "02000000000000001a08"], // more values than are stored
        ["01000000000000001a08", "ffffffffffffffff1a08"], // pointers that fall
        ["121800000000000000000000000000000000", "121801000000000000000100000000000000"], // pointers that start at 1
        ["22020203", "22020103"], // one row, two rows of pointers
        ["22020203", "22020206"] // as many columns again: still in range
      ] as const) {
        const broken = sparse.replace(from, to)
        assert.notStrictEqual(broken, sparse)
        const field = (tag: string, content: string) =>
          `${tag}${(content.length / 2).toString(16).padStart(2, "0")}${content}`
        const body = bytes(field("1a", field("12", `0a0177${field("12", broken)}`)))
        const exit = yield* Effect.exit(Protobuf.decodeForwardBackwardRequest(body))
        assert.strictEqual(exit._tag, to === "22020206" ? "Success" : "Failure", to)
      }
    })
  )

  it.effect("answers any damage of a message with a message or a WireError, soon", () =>
    Effect.gen(function* () {
      const seed = 20_260_801
      let state = seed
      const random = (below: number) => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
        return Math.floor((state / 2 ** 32) * below)
      }
      for (let round = 0; round < 3000; round++) {
        const damaged = bytes([request, output][round % 3] ?? "")
        const bad = round % 3 === 2 ? Uint8Array.from({ length: random(60) }, () => random(256)) : damaged
        for (let hits = random(4) + 1; hits > 0 && bad.length > 0; hits--) bad[random(bad.length)] = random(256)
        for (const decode of [Protobuf.decodeForwardBackwardRequest, Protobuf.decodeForwardBackwardOutput]) {
          const exit = yield* Effect.exit(decode(bad) as Effect.Effect<unknown, WireError>)
          if (exit._tag === "Failure") {
            assert.isTrue(
              exit.cause.reasons.every((reason) => reason._tag === "Fail" && reason.error._tag === "WireError"),
              `seed ${seed}, round ${round}: ${hex(bad)}`
            )
          }
        }
      }
    })
  )

  it.effect.prop("writes what the generated code would write, byte for byte", [Schema.Array(AnyDatum)], ([rows]) =>
    Effect.sync(() => {
      const data = rows.map(toDatum)
      const generated = toBinary(
        Pb.ForwardBackwardRequestSchema,
        create(Pb.ForwardBackwardRequestSchema, { data: data.map(generatedDatum) })
      )
      assert.strictEqual(hex(Protobuf.encodeData(data)), hex(generated))
    })
  )

  it.effect.prop(
    "widens outputs of 32-bit numbers and of halves, of any length",
    [Schema.Array(Schema.Array(int(-(2 ** 31), 2 ** 31 - 1)))],
    ([rows]) =>
      Effect.gen(function* () {
        const record = (dtype: number, item: number, data: ArrayBufferView) => {
          const ends = rows.map((_, i) => rows.slice(0, i + 1).flat().length * item)
          const tensor = create(Pb.BatchedTensorSchema, {
            data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
            offsets: new Uint8Array(BigInt64Array.from([0, ...ends].map(BigInt)).buffer),
            dtype
          })
          return toBinary(
            Pb.ForwardBackwardOutputSchema,
            create(Pb.ForwardBackwardOutputSchema, {
              lossFnOutputs: [create(Pb.ArrayRecordSchema, { numDatums: BigInt(rows.length), fields: { x: tensor } })]
            })
          )
        }
        const values = (bytes: Uint8Array) =>
          Effect.map(Protobuf.decodeForwardBackwardOutput(bytes), ({ lossFnOutputs }) =>
            lossFnOutputs.map(({ x }) => ({ dtype: x?.dtype, data: Array.from(x?.data ?? []) }))
          )
        if (rows.length === 0) return
        assert.deepStrictEqual(
          yield* values(record(3, 4, Int32Array.from(rows.flat()))),
          rows.map((row) => ({ dtype: "int64", data: [...row] }))
        )
        // The upper half of each float32 is the bfloat16 that it is rounded down to.
        const whole = Uint32Array.from(rows.flat()).map((bits) => bits & 0xffff0000)
        const wide = Array.from(new Float32Array(whole.buffer))
        assert.deepStrictEqual(
          (yield* values(
            record(
              4,
              2,
              Uint16Array.from(whole, (bits) => bits >>> 16)
            )
          )).flatMap(({ data }) => data),
          wide
        )
      })
  )

  it.effect.prop("reads back any request", [Schema.Array(AnyDatum)], ([rows]) =>
    Effect.gen(function* () {
      const data = rows.map(toDatum)
      const read = yield* Protobuf.decodeForwardBackwardRequest(
        Protobuf.encodeForwardBackwardRequest({ ...asked, data })
      )
      assert.deepStrictEqual(
        read.data.map(plainDatum),
        data.map((datum) => plainDatum(datum))
      )
    })
  )

  it.effect.prop("reads back any result, ragged or not", [Schema.Array(AnyDatum), Metrics], ([rows, any]) =>
    Effect.gen(function* () {
      // UTF-8 has no half of a surrogate pair.
      const metrics = Object.fromEntries(
        Object.entries(any).map(([name, value]) => [Buffer.from(name).toString(), value])
      )
      const lossFnOutputs = rows.map((row) => {
        const { sparse: _, ...dense } = tensors(row)
        return row.chunks.length === 0 ? {} : dense
      })
      const read = yield* Protobuf.decodeForwardBackwardOutput(
        Protobuf.encodeForwardBackwardOutput({ lossFnOutputType: "T", lossFnOutputs, metrics })
      )
      assert.deepStrictEqual(read.metrics, metrics)
      assert.deepStrictEqual(read.lossFnOutputs.map(plainTensors), lossFnOutputs.map(plainTensors))
    })
  )
})
