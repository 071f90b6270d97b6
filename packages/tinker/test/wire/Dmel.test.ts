import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import * as Dmel from "../../src/wire/Dmel.ts"

const varint = (value: number): ReadonlyArray<number> =>
  value < 128 ? [value] : [(value % 128) | 128, ...varint(Math.floor(value / 128))]
const header = (dimensions: ReadonlyArray<number>, before: ReadonlyArray<number> = [2]) =>
  Uint8Array.from([...before, ...varint(dimensions.length), ...dimensions.flatMap(varint), 1, 2, 3])
const problem = (bytes: ReadonlyArray<number>) => {
  const result = Dmel.shape(Uint8Array.from(bytes))
  return Result.isFailure(result) ? result.failure.problem : "none"
}

describe("Dmel", () => {
  it("reads two and three dimensions, with and without the mark of a constant", () => {
    for (const dimensions of [[127, 80], [128, 80], [16_383, 1], [16_384, 1], [1_000_000, 2, 3], [0], [2 ** 53 - 1]]) {
      for (const before of [[0], [7], [254, 3]]) {
        const bytes = header(dimensions, before)
        assert.deepStrictEqual(Result.getOrThrow(Dmel.shape(bytes)), dimensions)
        assert.strictEqual(Result.getOrThrow(Dmel.length(bytes)), dimensions[0])
      }
    }
  })

  it("refuses what is no header", () => {
    assert.strictEqual(problem([]), "it is empty")
    assert.strictEqual(problem([254]), "it is empty")
    assert.strictEqual(problem([8, 1, 1]), "it has the unknown dtype 8")
    assert.strictEqual(problem([254, 254, 1, 1]), "it has the unknown dtype 254")
    assert.strictEqual(problem([0]), "its header is cut off")
    assert.strictEqual(problem([0, 2, 5]), "its header is cut off")
    assert.strictEqual(problem([0, 1, 0x80]), "its header is cut off")
    assert.match(problem([0, 1, ...Array<number>(9).fill(0xff), 1]), /beyond 2\^53/)
    assert.match(problem([0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]), /beyond 2\^53/)
    assert.match(problem([0, ...Array<number>(10).fill(0xff)]), /cut off|beyond/)
    const none = Dmel.length(Uint8Array.of(0, 0))
    assert.strictEqual(Result.isFailure(none) ? none.failure.problem : "", "it has no dimension")
  })

  it.effect.prop(
    "never throws",
    [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))],
    ([bytes]) => Effect.sync(() => void Dmel.length(Uint8Array.from(bytes)))
  )
})
