import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as LearningRate from "../src/LearningRate.ts"

const unit = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const peakRate = Schema.Finite.check(Schema.isBetween({ minimum: 1e-9, maximum: 1 }))
const steps = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 60 }))

const kinds = {
  linear: LearningRate.linear,
  cosine: LearningRate.cosine,
  constant: ({ peak, warmup }: LearningRate.DecayOptions) => LearningRate.constant(peak, { warmup })
}

for (const [name, make] of Object.entries(kinds)) {
  describe(`LearningRate.${name}`, () => {
    it.effect.prop(
      "stays between its ends, rises while it warms up, never rises after",
      [peakRate, unit, steps, steps],
      ([peak, fraction, warmup, total]) =>
        Effect.sync(() => {
          const final = name === "constant" ? peak : peak * fraction
          const schedule = make({ peak, warmup, final })
          assert.strictEqual(schedule.invalid, undefined)
          const rates = Array.from({ length: total + 1 }, (_, k) => schedule.at(k, total))
          for (const [k, rate] of rates.entries()) {
            const before = rates[k - 1] ?? 0
            assert.isAtLeast(rate, k < warmup ? 0 : final * (1 - 1e-12))
            assert.isAtMost(rate, peak * (1 + 1e-12))
            if (k <= warmup) assert.isAtLeast(rate, before)
            else assert.isAtMost(rate, before + 1e-12)
          }
          if (total > warmup) {
            assert.strictEqual(rates[warmup], peak)
            assert.closeTo(rates[total] ?? Number.NaN, final, 1e-12)
            assert.isAbove(rates[total - 1] ?? 0, 0, "the last step is not wasted")
          }
        })
    )
  })
}

describe("LearningRate", () => {
  it("follows the formulas", () => {
    const linear = LearningRate.linear({ peak: 8, warmup: 3 })
    assert.deepStrictEqual(
      [0, 1, 2, 3, 5, 7, 11].map((k) => linear.at(k, 11)),
      [2, 4, 6, 8, 6, 4, 0]
    )
    const cosine = LearningRate.cosine({ peak: 3, final: 1 })
    for (const [k, rate] of [
      [0, 3],
      [5, 2],
      [10, 1]
    ] as const)
      assert.closeTo(cosine.at(k, 10), rate, 1e-12)
    assert.strictEqual(LearningRate.constant(0.5).at(7, 8), 0.5)
  })

  it("stands still outside of the run", () => {
    const linear = LearningRate.linear({ peak: 8, final: 2 })
    assert.strictEqual(linear.at(-3, 10), 8)
    assert.strictEqual(linear.at(30, 10), 2)
  })

  it("names an option that makes no sense", () => {
    assert.include(LearningRate.constant(Number.NaN).invalid?.message, "learningRate.peak")
    assert.include(LearningRate.linear({ peak: 1, final: 2 }).invalid?.message, "from 0 to the peak (1), but is 2")
    assert.include(LearningRate.cosine({ peak: 1, warmup: -1 }).invalid?.message, "learningRate.warmup")
  })
})
