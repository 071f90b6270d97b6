import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as LanguageModel from "../src/LanguageModel.ts"
import * as Optimizer from "../src/Optimizer.ts"

const config: LanguageModel.ModelConfig = {
  baseModel: "tiny/byte-lm-16",
  rank: 3,
  seed: 5,
  trainAttn: true,
  trainMlp: true,
  trainUnembed: true
}

const batch = (text: string): LanguageModel.PassOptions => {
  const bytes = LanguageModel.encodeText(text)
  return {
    data: [{ tokens: bytes.slice(0, -1), lossInputs: { target_tokens: bytes.slice(1) } }],
    loss: "cross_entropy"
  }
}

const flat = (model: LanguageModel.LanguageModel): Array<number> =>
  Object.values(model.factors).flatMap((values) => Array.from(values))

const flatGradients = (model: LanguageModel.LanguageModel): Array<number> =>
  Object.values(LanguageModel.factorGradientsOf(model)).flatMap((values) => Array.from(values))

/** Adam for one number, from the textbook: the history of gradients in, the weight after each of them out. */
const scalarAdam = (
  start: number,
  history: ReadonlyArray<number>,
  p: Required<Optimizer.AdamParams>
): Array<number> => {
  const { beta1, beta2, eps, learningRate, weightDecay } = p as { readonly [K in keyof typeof p]: number }
  const out: Array<number> = []
  let weight = start
  for (let t = 1; t <= history.length; t++) {
    // Moments as explicit weighted sums over the history instead of a recurrence.
    let first = 0
    let second = 0
    for (let s = 1; s <= t; s++) {
      first += (1 - beta1) * beta1 ** (t - s) * history[s - 1]!
      second += (1 - beta2) * beta2 ** (t - s) * history[s - 1]! ** 2
    }
    weight -= learningRate * weightDecay * weight
    weight -= (learningRate * first) / (1 - beta1 ** t) / (Math.sqrt(second / (1 - beta2 ** t)) + eps)
    out.push(weight)
  }
  return out
}

const defaults = { learningRate: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-12, weightDecay: 0, gradClipNorm: 0 }

describe("step", () => {
  const cases: ReadonlyArray<readonly [string, Optimizer.AdamParams, Required<Optimizer.AdamParams>]> = [
    ["with the defaults of the wire contract", {}, defaults],
    [
      "with other rates",
      { learningRate: 3e-3, beta1: 0.8, beta2: 0.99, eps: 1e-8 },
      { ...defaults, learningRate: 3e-3, beta1: 0.8, beta2: 0.99, eps: 1e-8 }
    ],
    [
      "with weight decay",
      { learningRate: 1e-2, weightDecay: 0.1 },
      { ...defaults, learningRate: 1e-2, weightDecay: 0.1 }
    ],
    ["with clipping", { learningRate: 1e-2, gradClipNorm: 5 }, { ...defaults, learningRate: 1e-2, gradClipNorm: 5 }]
  ]
  for (const [name, given, full] of cases) {
    it.effect(`is Adam ${name}`, () =>
      Effect.gen(function* () {
        const model = yield* LanguageModel.make(config)
        const start = flat(model)
        const history: Array<Array<number>> = []
        const clip = full.gradClipNorm ?? 0
        for (const text of ["hello there", "general text", "", "once more"]) {
          // The third step has no gradients: momentum alone.
          if (text !== "") yield* LanguageModel.forwardBackward(model, batch(text))
          const raw = flatGradients(model)
          const norm = Math.hypot(...raw)
          if (clip > 0 && text !== "") assert.isAbove(norm, clip, "the case is meant to clip")
          const scale = clip > 0 && norm > clip ? clip / norm : 1
          history.push(raw.map((g) => g * scale))
          const metrics = yield* Optimizer.step(model, given)
          assert.closeTo(metrics.gradientNorm, norm, 1e-9 * norm)
          assert.closeTo(metrics.clipScale, scale, 1e-12)
          assert.strictEqual(metrics.step, history.length)
          assert.strictEqual(metrics.learningRate, full.learningRate)
          const now = flat(model)
          for (let i = 0; i < now.length; i++) {
            const expected = scalarAdam(
              start[i]!,
              history.map((gradient) => gradient[i]!),
              full
            ).at(-1)!
            assert.closeTo(now[i]!, expected, 1e-11, `weight ${i} after step ${history.length}`)
          }
        }
      })
    )
  }

  it.effect("applies the accumulated gradients once and clears them", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(config)
      yield* LanguageModel.forwardBackward(model, batch("hello"))
      assert.isTrue(flatGradients(model).some((g) => g !== 0))
      yield* Optimizer.step(model, {})
      assert.isTrue(flatGradients(model).every((g) => g === 0))
    })
  )

  it.effect("without any gradients ever leaves the weights where they are and counts", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(config)
      const before = LanguageModel.weightsHash(model)
      const metrics = yield* Optimizer.step(model, { learningRate: 1 })
      assert.deepStrictEqual(metrics, { step: 1, learningRate: 1, gradientNorm: 0, clipScale: 1 })
      assert.strictEqual(LanguageModel.weightsHash(model), before)
      assert.strictEqual(model.adam.t, 1)
    })
  )

  it.effect("does not clip below the limit", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(config)
      const other = LanguageModel.clone(model)
      yield* LanguageModel.forwardBackward(model, batch("hello"))
      yield* LanguageModel.forwardBackward(other, batch("hello"))
      yield* Optimizer.step(model, { gradClipNorm: 1e9 })
      yield* Optimizer.step(other, {})
      assert.strictEqual(LanguageModel.stateHash(model), LanguageModel.stateHash(other))
    })
  )

  const refusals: ReadonlyArray<Optimizer.AdamParams> = [
    { learningRate: Number.NaN },
    { learningRate: -1 },
    { beta1: 1 },
    { beta2: 1.2 },
    { eps: 0 },
    { weightDecay: -0.1 },
    { gradClipNorm: Number.POSITIVE_INFINITY }
  ]
  for (const params of refusals) {
    const [field, value] = Object.entries(params)[0]!
    it.effect(`refuses ${field} ${value} and changes nothing`, () =>
      Effect.gen(function* () {
        const model = yield* LanguageModel.make(config)
        yield* LanguageModel.forwardBackward(model, batch("hello"))
        const before = LanguageModel.stateHash(model)
        const gradients = flatGradients(model)
        const refused = yield* Effect.flip(Optimizer.step(model, params))
        assert.include(refused.message, `${field} is ${value}`)
        assert.strictEqual(LanguageModel.stateHash(model), before)
        assert.deepStrictEqual(flatGradients(model), gradients)
      })
    )
  }
})
