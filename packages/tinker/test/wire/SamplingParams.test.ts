import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as SamplingParams from "../../src/wire/SamplingParams.ts"

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Float32 = Schema.Finite.check(Schema.isBetween({ minimum: -3e38, maximum: 3e38 }))
const AnyParams = Schema.Struct({
  maxTokens: Schema.optionalKey(int(1, 2 ** 31 - 1)),
  seed: Schema.optionalKey(Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: 0n, maximum: 2n ** 64n - 1n }))),
  stop: Schema.optionalKey(
    Schema.Union([Schema.Array(Schema.NonEmptyString).check(Schema.isMinLength(1)), Schema.Array(int(0, 2 ** 31 - 1))])
  ),
  temperature: Schema.optionalKey(Float32),
  topK: Schema.optionalKey(int(-1, 2 ** 31 - 1)),
  topP: Schema.optionalKey(Float32)
})

describe("SamplingParams", () => {
  it("is written as the message table has it", () => {
    const params = { maxTokens: 4, seed: 2n ** 64n - 1n, temperature: 0.5, topK: -1, topP: 1 }
    const numbers = "080410ffffffffffffffffff011d0000003f20ffffffffffffffffff012d0000803f"
    assert.strictEqual(hex(SamplingParams.encode({ ...params, stop: "ab" })), `${numbers}32040a026162`)
    assert.strictEqual(hex(SamplingParams.encode({ ...params, stop: [1, 300] })), `${numbers}3a050a0301ac02`)
  })

  it.effect.prop(
    "reads back any parameters, floats with 32 bits",
    [AnyParams],
    ([any]) =>
      Effect.gen(function* () {
        const narrow = (seed: bigint) => (seed <= Number.MAX_SAFE_INTEGER ? Number(seed) : seed)
        const wellFormed = (stop: NonNullable<typeof any.stop>) =>
          stop.map((one) => (typeof one === "string" ? Buffer.from(one).toString() : one))
        assert.deepStrictEqual(yield* SamplingParams.decode(SamplingParams.encode(any)), {
          ...any,
          ...(any.seed === undefined ? {} : { seed: narrow(any.seed) }),
          ...(any.stop === undefined ? {} : { stop: wellFormed(any.stop) }),
          ...(any.temperature === undefined ? {} : { temperature: Math.fround(any.temperature) }),
          ...(any.topP === undefined ? {} : { topP: Math.fround(any.topP) })
        } as SamplingParams.SamplingParams)
      }),
    { arbitrary: { size: 20, runs: 300 } }
  )

  it.effect("reads stops one by one too, and refuses what is none", () =>
    Effect.gen(function* () {
      const decode = (text: string) => SamplingParams.decode(Uint8Array.from(Buffer.from(text, "hex")))
      assert.deepStrictEqual((yield* decode("3a0408010802")).stop, [1, 2])
      for (const bad of ["3a020a05", "0a00", "32020801", "1d00", "3a060a03ff"]) {
        assert.strictEqual((yield* Effect.flip(decode(bad)))._tag, "WireError", bad)
      }
    })
  )

  it("names what no service can take", () => {
    const problems: ReadonlyArray<readonly [SamplingParams.SamplingParams, string]> = [
      [{ maxTokens: 0 }, "maxTokens"],
      [{ maxTokens: 1.5 }, "maxTokens"],
      [{ maxTokens: 2 ** 31 }, "maxTokens"],
      [{ seed: 0.5 }, "seed"],
      [{ seed: Number.NaN }, "seed"],
      [{ seed: 2 ** 60 }, "seed"],
      [{ seed: 2n ** 64n }, "seed"],
      [{ seed: -(2n ** 63n) - 1n }, "seed"],
      [{ stop: "" }, "stop"],
      [{ stop: ["a", ""] }, "stop"],
      [{ stop: [1, -1] }, "stop"],
      [{ stop: [1, "a"] as unknown as ReadonlyArray<number> }, "stop"],
      [{ temperature: -0.1 }, "temperature"],
      [{ temperature: Number.NaN }, "temperature"],
      [{ temperature: Number.POSITIVE_INFINITY }, "temperature"],
      [{ topK: 0 }, "topK"],
      [{ topK: -2 }, "topK"],
      [{ topP: 0 }, "topP"],
      [{ topP: 1.01 }, "topP"],
      [{ topP: Number.NaN }, "topP"]
    ]
    for (const [params, field] of problems) assert.strictEqual(SamplingParams.problem(params)?.field, field)
    for (const good of [
      {},
      { maxTokens: 1, seed: 2n ** 63n, stop: ["a"], temperature: 0, topK: 1, topP: 1e-9 },
      { seed: -1, stop: [], topK: -1 },
      { stop: [0, 5] }
    ]) {
      assert.isUndefined(SamplingParams.problem(good))
    }
  })
})
