import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as CustomLoss from "../src/CustomLoss.ts"
import * as Vector from "../src/Vector.ts"
import { datum } from "./support/fakeService.ts"

const Rows = Schema.Array(
  Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 }))).check(Schema.isMaxLength(5))
).check(Schema.isMaxLength(4))

/** Log-probabilities between -4 and 0, away from each other and from the corners of what is tested. */
const batchOf = (rows: ReadonlyArray<ReadonlyArray<number>>): ReadonlyArray<CustomLoss.DatumLogprobs> =>
  rows.map((row, r) => ({
    datum: datum(...row),
    logprobs: row.map((value, i) => -value / 10 - 0.013 * (i + 1) - 0.0071 * r),
    shape: [row.length]
  }))

const losses: Record<string, (logprobs: Vector.Vector) => Vector.Vector> = {
  "cross-entropy": (p) => p.neg().sum(),
  "a mean": (p) => p.mean(),
  "clipped ratios": (p) => p.sub(-1.5).exp().min(p.sub(-1.5).exp().clamp(0.8, 1.2)).neg().sum(),
  entropy: (p) => p.exp().mul(p).sum(),
  "squares and quotients": (p) => p.square().div(p.abs().add(1)).sum(),
  preferences: (p) => p.sum().mul(0.3).logSigmoid().neg(),
  "sigmoid and log": (p) => p.sigmoid().log().max(-2.5).sum(),
  "a number on both sides": (p) => Vector.constant(2).sub(p).mul(p.sum()).sum(),
  "used twice": (p) => p.mul(p).sum().add(p.sum())
}

describe("differentiate", () => {
  for (const [name, loss] of Object.entries(losses)) {
    it.effect.prop(`has the slope of the loss itself: ${name}`, [Rows], ([rows]) =>
      Effect.gen(function* () {
        const batch = batchOf(rows.filter((row) => row.length > 0))
        const custom = CustomLoss.differentiate((all) => ({
          loss: Vector.total(all.map(({ logprobs }) => loss(logprobs)))
        }))
        assert.isBelow(yield* CustomLoss.gradientError(custom, batch), 1e-4)
      })
    )
  }

  it("takes stopped numbers for constants, and gives 0 where nothing depends on a datum", () => {
    const [first, second] = CustomLoss.differentiate((all) => {
      const p = all[0]?.logprobs ?? Vector.constant(0)
      return { loss: p.stopGradient().mul(p).sum() }
    })(batchOf([[10, 20], [30]])).gradients
    assert.deepStrictEqual(Array.from(first ?? []), batchOf([[10, 20]])[0]?.logprobs)
    assert.deepStrictEqual(Array.from(second ?? []), [0])
  })

  it("gives the same gradient however often it is asked", () => {
    const x = Vector.Vector.variable([2, 3])
    const y = x.mul(x).sum()
    for (let i = 0; i < 2; i++)
      assert.deepStrictEqual(
        Vector.Vector.gradients(y, [x]).map((g) => Array.from(g)),
        [[4, 6]]
      )
  })

  it("follows a chain of any length", () => {
    const rows = Array.from({ length: 20_000 }, () => [5])
    const { gradients, loss } = CustomLoss.differentiate((all) => ({
      loss: Vector.total(all.map(({ logprobs }) => logprobs))
    }))(batchOf(rows))
    assert.isBelow(loss, -9_999)
    assert.isTrue(gradients.every((gradient) => gradient[0] === 1))
  })

  it("says what cannot be combined", () => {
    assert.throws(
      () => Vector.constant([1, 2]).add(Vector.constant([1, 2, 3])),
      /2 numbers cannot be combined with one of 3/
    )
  })
})

describe("perToken", () => {
  it.effect("adds up over the tokens and knows where each is", () =>
    Effect.gen(function* () {
      const batch = batchOf([[10, 20], [30]])
      const places: Array<string> = []
      const loss = CustomLoss.perToken((p, place) => {
        places.push(`${place.datumIndex}:${place.index}:${place.datum.lossFnInputs["weights"]?.data[place.index]}`)
        return { loss: p * p, slope: 2 * p }
      })
      assert.approximately(loss(batch).loss, 1.013 ** 2 + 2.026 ** 2 + 3.0201 ** 2, 1e-9)
      assert.deepStrictEqual(places.slice(0, 3), ["0:0:1", "0:1:1", "1:0:1"])
      assert.isBelow(yield* CustomLoss.gradientError(loss, batch), 1e-6)
    })
  )
})

describe("weighted", () => {
  it.effect("adds losses and gradients, and reports each", () =>
    Effect.gen(function* () {
      const batch = batchOf([[10], [20]])
      const plain = CustomLoss.perToken((p) => ({ loss: -p, slope: -1 }))
      const asked = (b: ReadonlyArray<CustomLoss.DatumLogprobs>) =>
        Effect.succeed({ ...CustomLoss.perToken((p) => ({ loss: p * p, slope: 2 * p }))(b), metrics: { size: 2 } })
      const sum = CustomLoss.weighted({ nll: { weight: 1, loss: plain }, square: { weight: 0.5, loss: asked } })
      const value = yield* sum(batch)
      assert.isBelow(yield* CustomLoss.gradientError(sum, batch), 1e-6)
      assert.deepStrictEqual(Object.keys(value.metrics ?? {}), ["nll", "square", "square/size"])
      assert.approximately(value.loss, (value.metrics?.["nll"] ?? 0) + 0.5 * (value.metrics?.["square"] ?? 0), 1e-12)
    })
  )
})

describe("gradientError", () => {
  it.effect("finds a wrong sign, and a gradient that is too short", () =>
    Effect.gen(function* () {
      const batch = batchOf([[10, 20]])
      assert.isAbove(
        yield* CustomLoss.gradientError(
          CustomLoss.perToken((p) => ({ loss: p, slope: -1 })),
          batch
        ),
        1
      )
      assert.isNaN(yield* CustomLoss.gradientError(() => ({ loss: 1, gradients: [[1]] }), batch))
    })
  )
})
