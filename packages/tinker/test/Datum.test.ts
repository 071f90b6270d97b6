import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Datum from "../src/Datum.ts"
import * as TensorData from "../src/TensorData.ts"

const inputs = (lossFnInputs: Datum.DatumInput["lossFnInputs"]) =>
  Effect.map(Datum.make({ tokens: [1, 2], lossFnInputs }), (datum) => datum.lossFnInputs)

describe("Datum.make", () => {
  it.effect("knows the type of a plain list by its name", () =>
    Effect.gen(function* () {
      const list = [1, 2]
      const names = ["weights", "advantages", "logprobs", "clip_low_threshold", "clip_high_threshold"]
      const made = yield* inputs(Object.fromEntries([["target_tokens", list], ...names.map((name) => [name, list])]))
      assert.strictEqual(made["target_tokens"]?.dtype, "int64")
      for (const name of names) assert.strictEqual(made[name]?.dtype, "float32", name)
    })
  )

  it.effect("refuses a plain list of unknown meaning, and takes a tensor under any name", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(inputs({ rewards: [1, 2] }))
      assert.strictEqual(
        error.message,
        "A datum was not sent: lossFnInputs.rewards is a plain list, and nothing tells its type: give a TensorData or a typed array."
      )
      const made = yield* inputs({ rewards: TensorData.float32([1, 2]), counts: Int32Array.of(3, 4) })
      assert.deepStrictEqual([made["rewards"]?.dtype, made["counts"]?.dtype], ["float32", "int64"])
    })
  )

  it.effect("names the input that is ragged or of no type", () =>
    Effect.gen(function* () {
      const ragged = yield* Effect.flip(inputs({ weights: [[1], [1, 2]] }))
      assert.match(ragged.message, /lossFnInputs\.weights is a ragged list/)
      const typed: unknown = Uint8Array.of(1, 2)
      const unsigned = yield* Effect.flip(inputs({ weights: typed as Float32Array }))
      assert.match(unsigned.message, /lossFnInputs\.weights is a Uint8Array/)
    })
  )

  it.effect("sends matrices of weights and targets sparse where that is shorter, tensors only", () =>
    Effect.gen(function* () {
      const row = Array.from({ length: 20 }, (_, i) => (i === 3 ? 1 : 0))
      const dense = TensorData.float32([...row, ...row], [2, 20])
      const made = yield* inputs({ weights: dense, advantages: dense })
      assert.isDefined(made["weights"]?.csr)
      assert.isUndefined(made["advantages"]?.csr)
      const listed = yield* inputs({ weights: [row, row] })
      assert.isUndefined(listed["weights"]?.csr)
      assert.deepStrictEqual(listed["weights"]?.shape, [2, 20])
    })
  )

  it.effect("takes an input of any chunks", () =>
    Effect.gen(function* () {
      const modelInput = Datum.fromTokens([9])
      assert.strictEqual((yield* Datum.make({ modelInput, lossFnInputs: {} })).modelInput, modelInput)
    })
  )
})
