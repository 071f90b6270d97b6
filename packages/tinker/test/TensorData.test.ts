import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as TensorData from "../src/TensorData.ts"

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

const made = (dtype: "float32" | "int64", values: TensorData.Values) =>
  Result.getOrThrow(TensorData.make(dtype, values))
const problem = (result: Result.Result<TensorData.TensorData, Error>) =>
  Result.isFailure(result) ? result.failure.message : "none"

describe("TensorData", () => {
  it("takes the shape of nested lists", () => {
    const shapes = (values: TensorData.Values) => made("float32", values).shape
    assert.deepStrictEqual(shapes([1, 2, 3]), [3])
    assert.deepStrictEqual(shapes([]), [0])
    assert.deepStrictEqual(
      shapes([
        [1, 2, 3],
        [4, 5, 6]
      ]),
      [2, 3]
    )
    assert.deepStrictEqual(shapes([[], []]), [2, 0])
    assert.deepStrictEqual(shapes([[[1], [2]]]), [1, 2, 1])
    assert.deepStrictEqual(
      Array.from(
        made("int64", [
          [1, 2],
          [3, 4]
        ]).data
      ),
      [1, 2, 3, 4]
    )
  })

  it("refuses ragged lists, and what is no number", () => {
    for (const ragged of [
      [[1], [1, 2]],
      [[1], 2],
      [1, [2]],
      [[[1]], [[1, 2]]],
      [[[1]], [2]]
    ]) {
      assert.include(problem(TensorData.make("float32", ragged)), "ragged nested lists are not supported")
    }
    const text: ReadonlyArray<unknown> = [1, "2"]
    assert.include(problem(TensorData.make("float32", text as ReadonlyArray<number>)), "has 2 at 1, which is no number")
  })

  it("narrows typed arrays to the two types of the API, and refuses unsigned ones", () => {
    for (const floats of [Float32Array.of(1.5), Float64Array.of(1.5)]) {
      assert.strictEqual(Result.getOrThrow(TensorData.fromTyped(floats)).dtype, "float32")
      assert.include(problem(TensorData.make("int64", floats)), "float32 where int64 is due")
    }
    for (const whole of [Int8Array.of(-1), Int16Array.of(-1), Int32Array.of(-1), BigInt64Array.of(-1n)]) {
      const tensor = Result.getOrThrow(TensorData.fromTyped(whole))
      assert.deepStrictEqual([tensor.dtype, tensor.data[0], tensor.exact], ["int64", -1, undefined])
    }
    const unsigned = [Uint8Array, Uint8ClampedArray, Uint16Array, Uint32Array, BigUint64Array]
    for (const kind of unsigned) {
      assert.include(problem(TensorData.fromTyped(new kind(1))), `is a ${kind.name}, and must hold floats or signed`)
    }
  })

  it("uses what fits as it is, and writes into nothing that it was given", () => {
    const floats = Float32Array.of(1, 0, 2, 0, 0, 0, 0, 0)
    assert.strictEqual(made("float32", floats).data, floats)
    const list = Object.freeze([1, 2])
    assert.strictEqual(made("int64", list).data, list)
    const rows = Object.freeze([Object.freeze([1, 2]), Object.freeze([3, 4])])
    made("float32", rows)
    const before = floats.slice()
    TensorData.toSparse(TensorData.float32(floats, [1, 8]))
    assert.deepStrictEqual(floats, before)
  })

  it("widens bfloat16", () => {
    const wide = TensorData.bfloat16(Uint16Array.of(0x3fc0, 0xbf80, 0x7fc0, 0x7f80), [2, 2])
    assert.deepStrictEqual(Array.from(wide.data), [1.5, -1, Number.NaN, Number.POSITIVE_INFINITY])
    assert.deepStrictEqual(wide.shape, [2, 2])
  })

  it("keeps 64-bit numbers whole", () => {
    const big = 2n ** 62n + 1n
    assert.deepStrictEqual(TensorData.int64(BigInt64Array.of(big)).exact, BigInt64Array.of(big))
    assert.isUndefined(TensorData.int64(BigInt64Array.of(7n)).exact)
  })

  it("stays dense where both are equally long", () => {
    // 1 row: 2 pointers and 2 numbers for each value that is stored.
    assert.isUndefined(TensorData.toSparse(TensorData.int64([0, 7, 0, 0], [1, 4])).csr)
    assert.isDefined(TensorData.toSparse(TensorData.int64([0, 7, 0, 0, 0], [1, 5])).csr)
  })

  it.effect.prop(
    "is sparse only where that is shorter, and dense again the same",
    [int(0, 6), int(0, 6), Schema.Array(int(-2, 2)).check(Schema.isMaxLength(36)), int(0, 3)],
    ([rows, columns, values, zeros]) =>
      Effect.sync(() => {
        const size = rows * columns
        const data = Array.from({ length: size }, (_, i) => (i % 4 < zeros ? 0 : (values[i % values.length] ?? 0)) || 0)
        const dense = TensorData.int64(data, [rows, columns])
        const packed = TensorData.toSparse(dense)
        const stored = data.filter((value) => value !== 0).length
        assert.strictEqual(packed.csr !== undefined, rows + 1 + 2 * stored < size)
        if (packed.csr !== undefined) assert.strictEqual(packed.data.length, stored)
        const back = TensorData.toDense(packed)
        assert.deepStrictEqual([Array.from(back.data), back.shape, back.csr], [data, [rows, columns], undefined])
      })
  )
})
