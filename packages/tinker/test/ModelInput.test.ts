import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as ModelInput from "../src/ModelInput.ts"

const image = { type: "image", data: Uint8Array.of(1, 2, 3), format: "png" } as const
const audio = { type: "dmel", dmel: Uint8Array.of(0, 2, 5, 80) } as const

describe("ModelInput", () => {
  it("grows by chunks and tokens without changing what it grew from", () => {
    const text = ModelInput.fromTokens([1, 2])
    const more = ModelInput.appendToken(ModelInput.append(text, { ...image, expectedTokens: 4 }), 7)
    assert.deepStrictEqual(
      more.chunks.map(({ type }) => type),
      ["encoded_text", "image", "encoded_text"]
    )
    assert.strictEqual(text.chunks.length, 1)
    assert.strictEqual(ModelInput.empty.chunks.length, 0)
  })

  it("is as long as its chunks are together", () => {
    const length = (...chunks: ReadonlyArray<ModelInput.Chunk>) => Result.getOrThrow(ModelInput.length({ chunks }))
    assert.strictEqual(length(), 0)
    assert.strictEqual(length({ type: "encoded_text", tokens: [1, 2] }, { ...image, expectedTokens: 4 }, audio), 11)
    const pointer = { type: "image_asset_pointer", location: "a/b.png", format: "png" } as const
    assert.strictEqual(length({ ...pointer, expectedTokens: 3 }), 3)
    for (const [chunk, words] of [
      [image, /chunks\[1\] is no use: its length is unknown without expectedTokens/],
      [pointer, /chunks\[1\] .*expectedTokens/],
      [{ ...audio, dmel: Uint8Array.of(9) }, /chunks\[1\] .*unknown dtype 9/]
    ] as const) {
      const result = ModelInput.length({ chunks: [{ type: "encoded_text", tokens: [] }, chunk] })
      assert.match(Result.isFailure(result) ? result.failure.message : "", words)
    }
  })

  it("gives its tokens where it is all text", () => {
    const text = ModelInput.appendToken(ModelInput.fromTokens(Int32Array.of(1, 2)), 3)
    assert.deepStrictEqual(Result.getOrThrow(ModelInput.toTokens(text)), [1, 2, 3])
    const mixed = ModelInput.toTokens(ModelInput.append(text, image))
    assert.match(Result.isFailure(mixed) ? mixed.failure.message : "", /chunks\[2\] is of type image, not text/)
  })
})
