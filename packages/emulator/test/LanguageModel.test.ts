import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result, Schema } from "effect"
import * as LanguageModel from "../src/LanguageModel.ts"
import * as Optimizer from "../src/Optimizer.ts"

const everything = {
  baseModel: "tiny/byte-lm-16",
  rank: 4,
  seed: 7,
  trainAttn: true,
  trainMlp: true,
  trainUnembed: true
} satisfies LanguageModel.ModelConfig

const nothing = { ...everything, trainAttn: false, trainMlp: false, trainUnembed: false }

/** Uniform in [-1, 1), for test data only. */
const random = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 0x80000000 - 1
  }
}

const textDatum = (text: string, lossInputs: LanguageModel.LossInputs = {}): LanguageModel.Datum => {
  const bytes = LanguageModel.encodeText(text)
  return { tokens: bytes.slice(0, -1), lossInputs: { target_tokens: bytes.slice(1), ...lossInputs } }
}

/** B starts at zero, where half of the gradients vanish: give every factor something. */
const shaken = (model: LanguageModel.LanguageModel, seed: number): LanguageModel.LanguageModel => {
  const next = random(seed)
  for (const values of Object.values(model.factors)) {
    for (let i = 0; i < values.length; i++) values[i] = 0.12 * next()
  }
  return model
}

const pass = (model: LanguageModel.LanguageModel, data: ReadonlyArray<LanguageModel.Datum>) =>
  LanguageModel.forwardBackward(model, { data, loss: "cross_entropy" })

const sentences = [
  "the cat sat on the mat.",
  "a dog ate the hot soup",
  "rain falls in the spring; snow in winter",
  "no news is good news"
]

describe("gradients", () => {
  // |g - fd| <= 1e-6 * max(|g|, 1e-2 * max |g|). The stencil has an error of order h^4; h balances it against rounding.
  const h = 1e-3
  const check = Effect.fnUntraced(function* (
    config: LanguageModel.ModelConfig,
    options: LanguageModel.PassOptions,
    seed: number
  ) {
    const model = shaken(yield* LanguageModel.make(config), seed)
    yield* LanguageModel.forwardBackward(model, options)
    const gradients = LanguageModel.factorGradientsOf(model)
    const shapes = yield* LanguageModel.shapes(config)
    assert.deepStrictEqual(
      Object.keys(gradients),
      shapes.map((shape) => shape.name)
    )
    let checked = 0
    for (const { columns, name, rows } of shapes) {
      const values = model.factors[name]!
      const gradient = gradients[name]!
      assert.strictEqual(gradient.length, rows * columns)
      const greatest = gradient.reduce((max, g) => Math.max(max, Math.abs(g)), 0)
      assert.isAbove(greatest, 0, `${name} has no gradient at all (seed ${seed})`)
      for (let i = 0; i < values.length; i++) {
        const at = values[i]!
        const loss = (offset: number) => {
          values[i] = at + offset
          return Effect.map(LanguageModel.forward(model, options), (result) => result.loss)
        }
        const near = (yield* loss(h)) - (yield* loss(-h))
        const far = (yield* loss(2 * h)) - (yield* loss(-2 * h))
        values[i] = at
        const estimate = (8 * near - far) / (12 * h)
        const allowed = 1e-6 * Math.max(Math.abs(gradient[i]!), 1e-2 * greatest)
        assert.isAtMost(
          Math.abs(gradient[i]! - estimate),
          allowed,
          `${name}[${i}] (seed ${seed}): ${gradient[i]} against ${estimate}`
        )
        checked++
      }
    }
    return checked
  })

  const data = [
    textDatum("abcabd", { weights: [1, 0.5, 0, 2, 1] }),
    textDatum("xyxyz,", { weights: [0, 0, 1, 1, -0.5] })
  ]
  const combinations = [
    { trainAttn: true },
    { trainMlp: true },
    { trainUnembed: true },
    { trainAttn: true, trainMlp: true },
    { trainAttn: true, trainUnembed: true },
    { trainMlp: true, trainUnembed: true },
    { trainAttn: true, trainMlp: true, trainUnembed: true }
  ]
  for (const flags of combinations) {
    it.effect(`agree with central differences in every entry: ${Object.keys(flags).join(", ")}`, () =>
      Effect.gen(function* () {
        const config = { ...nothing, ...flags, rank: 2 }
        const checked = yield* check(config, { data, loss: "cross_entropy" }, 11)
        const shapes = yield* LanguageModel.shapes(config)
        assert.strictEqual(
          checked,
          shapes.reduce((sum, { columns, rows }) => sum + rows * columns, 0)
        )
      })
    )
  }

  it.effect("agree on the larger base model, whose sizes differ", () =>
    check(
      { ...everything, baseModel: "tiny/byte-lm-32", rank: 1 },
      { data: data.slice(0, 1), loss: "cross_entropy" },
      3
    )
  )

  for (const [loss, lossConfig] of [
    ["importance_sampling", {}],
    ["ppo", { clip_low_threshold: 0.5, clip_high_threshold: 1.5 }],
    ["dro", { beta: 0.3 }]
  ] as const) {
    it.effect(`agree for ${loss}`, () =>
      Effect.gen(function* () {
        // Sampler log-probabilities that put the ratios on both sides of the thresholds and away from the kinks.
        const config = { ...everything, rank: 1 }
        const model = shaken(yield* LanguageModel.make(config), 5)
        const plain = textDatum("abcabd")
        const { logprobs } = yield* LanguageModel.forward(model, { data: [plain], loss: "cross_entropy" })
        const ratios = [0.3, 0.3, 1.2, 2, 2]
        const datum = textDatum("abcabd", {
          logprobs: ratios.map((ratio, i) => logprobs[0]![i]! - Math.log(ratio)),
          advantages: [1, -1, 0.5, -2, 1.5]
        })
        yield* check(config, { data: [datum], loss, lossConfig }, 5)
      })
    )
  }

  it.effect("agree for cispo where every ratio is clipped, so that nothing is held constant but a constant", () =>
    Effect.gen(function* () {
      const config = { ...everything, rank: 1 }
      const model = shaken(yield* LanguageModel.make(config), 5)
      const { logprobs } = yield* LanguageModel.forward(model, { data: [textDatum("abcabd")], loss: "cross_entropy" })
      const ratios = [0.1, 0.2, 9, 9, 0.1]
      const datum = textDatum("abcabd", {
        logprobs: ratios.map((ratio, i) => logprobs[0]![i]! - Math.log(ratio)),
        advantages: [1, -1, 0.5, -2, 1.5]
      })
      const lossConfig = { clip_low_threshold: 0.5, clip_high_threshold: 4 }
      yield* check(config, { data: [datum], loss: "cispo", lossConfig }, 5)
    })
  )

  it.effect("agree for several targets a position, also where their weights cancel out", () =>
    check(
      { ...everything, rank: 1 },
      {
        data: [
          {
            tokens: [97, 98, 99],
            width: 3,
            lossInputs: {
              target_tokens: [98, 1, 2, 99, 99, 0, 100, 5, 6],
              weights: [1, -1, 0, 0.5, 0.25, 0, 0, 2, -0.5]
            }
          }
        ],
        loss: "cross_entropy"
      },
      7
    )
  )

  it.effect("of cispo are those of cross_entropy weighted by the clipped ratio", () =>
    Effect.gen(function* () {
      const model = shaken(yield* LanguageModel.make(everything), 5)
      const { logprobs } = yield* LanguageModel.forward(model, { data: [textDatum("abcabd")], loss: "cross_entropy" })
      const ratios = [0.3, 0.8, 1.2, 9, 1]
      const advantages = [1, -1, 0.5, -2, 1.5]
      const q = ratios.map((ratio, i) => logprobs[0]![i]! - Math.log(ratio))
      const other = LanguageModel.clone(model)
      yield* LanguageModel.forwardBackward(model, {
        data: [textDatum("abcabd", { logprobs: q, advantages })],
        loss: "cispo",
        lossConfig: { clip_low_threshold: 0.5, clip_high_threshold: 4 }
      })
      const weights = [0.5, 0.8, 1.2, 4, 1].map((clipped, i) => clipped * advantages[i]!)
      yield* pass(other, [textDatum("abcabd", { weights })])
      for (const [name, gradient] of Object.entries(LanguageModel.factorGradientsOf(model))) {
        const expected = LanguageModel.factorGradientsOf(other)[name]!
        gradient.forEach((g, i) => assert.closeTo(g, expected[i]!, 1e-10))
      }
    })
  )
})

describe("forward", () => {
  it.effect("gives log-probabilities of a distribution over the whole vocabulary", () =>
    Effect.gen(function* () {
      const model = shaken(yield* LanguageModel.make(everything), 1)
      let mass = 0
      for (let target = 0; target < LanguageModel.vocabSize; target++) {
        const datum = { tokens: [104, 105, 256], lossInputs: { target_tokens: [105, 32, target] } }
        const { logprobs } = yield* LanguageModel.forward(model, { data: [datum], loss: "cross_entropy" })
        mass += Math.exp(logprobs[0]![2]!)
      }
      assert.closeTo(mass, 1, 1e-12)
    })
  )

  it.effect("is causal: a later token never changes an earlier log-probability", () =>
    Effect.gen(function* () {
      const model = shaken(yield* LanguageModel.make(everything), 2)
      const next = random(9)
      const token = () => Math.floor((next() + 1) * 128)
      const tokens = Array.from({ length: 21 }, token)
      const targets = Array.from({ length: 21 }, token)
      const logprobs = (t: ReadonlyArray<number>, y: ReadonlyArray<number>) =>
        Effect.map(
          LanguageModel.forward(model, {
            data: [{ tokens: t, lossInputs: { target_tokens: y } }],
            loss: "cross_entropy"
          }),
          (result) => Array.from(result.logprobs[0]!)
        )
      const original = yield* logprobs(tokens, targets)
      for (let changed = 0; changed < tokens.length; changed++) {
        const altered = yield* logprobs(
          tokens.map((value, i) => (i === changed ? (value + 1) % 256 : value)),
          targets
        )
        assert.deepStrictEqual(altered.slice(0, changed), original.slice(0, changed))
        for (let i = changed; i < Math.min(changed + 3, tokens.length); i++) {
          assert.notStrictEqual(altered[i], original[i], `token ${changed} should be seen at ${i}`)
        }
        const cut = yield* logprobs(tokens.slice(0, changed + 1), targets.slice(0, changed + 1))
        assert.deepStrictEqual(cut, original.slice(0, changed + 1))
      }
    })
  )

  it.effect("sums the weighted loss over tokens and datums, with weight 1 where none is given", () =>
    Effect.gen(function* () {
      const model = shaken(yield* LanguageModel.make(everything), 2)
      const weights = [0, 2, 0.5, 1, 1]
      const data = [textDatum("abcdef", { weights }), textDatum("ghij")]
      const { logprobs, loss } = yield* LanguageModel.forward(model, { data, loss: "cross_entropy" })
      const expected =
        weights.reduce((sum, weight, i) => sum - weight * logprobs[0]![i]!, 0) - logprobs[1]!.reduce((x, y) => x + y)
      assert.closeTo(loss, expected, 1e-12)
    })
  )

  it.effect("leaves weights, optimizer and gradients alone", () =>
    Effect.gen(function* () {
      const model = shaken(yield* LanguageModel.make(everything), 2)
      const before = LanguageModel.stateHash(model)
      yield* LanguageModel.forward(model, { data: [textDatum("hello")], loss: "cross_entropy" })
      assert.strictEqual(LanguageModel.stateHash(model), before)
      for (const gradient of Object.values(LanguageModel.factorGradientsOf(model))) {
        assert.isTrue(gradient.every((g) => g === 0))
      }
    })
  )
})

describe("several targets a position", () => {
  const tokens = [97, 98, 99, 100]
  const firsts = [98, 99, 100, 101]
  const seconds = [1, 2, 3, 4]
  const both = firsts.flatMap((token, i) => [token, seconds[i]!])

  it.effect("have the losses and gradients of as many examples with one target each", () =>
    Effect.gen(function* () {
      const one = shaken(yield* LanguageModel.make(everything), 5)
      const two = LanguageModel.clone(one)
      const wide = { tokens, width: 2, lossInputs: { target_tokens: both, weights: [1, 0.5, 0, 1, 2, 2, -1, 0.25] } }
      const together = yield* pass(one, [wide])
      const apart = yield* pass(two, [
        { tokens, lossInputs: { target_tokens: firsts, weights: [1, 0, 2, -1] } },
        { tokens, lossInputs: { target_tokens: seconds, weights: [0.5, 1, 2, 0.25] } }
      ])
      assert.closeTo(together.loss, apart.loss, 1e-12)
      assert.deepStrictEqual(
        [...together.logprobs[0]!],
        [...apart.logprobs[0]!].flatMap((p, i) => [p, apart.logprobs[1]![i]!])
      )
      for (const [name, gradient] of Object.entries(LanguageModel.factorGradientsOf(one))) {
        const expected = LanguageModel.factorGradientsOf(two)[name]!
        gradient.forEach((g, i) => assert.closeTo(g, expected[i]!, 1e-10))
      }
    })
  )

  it.effect("one of them is the same as none but one, bit for bit", () =>
    Effect.gen(function* () {
      const one = shaken(yield* LanguageModel.make(everything), 5)
      const two = LanguageModel.clone(one)
      const lossInputs = { target_tokens: firsts }
      assert.deepStrictEqual(
        yield* pass(one, [{ tokens, width: 1, lossInputs }]),
        yield* pass(two, [{ tokens, lossInputs }])
      )
      yield* Optimizer.step(one, { learningRate: 0.1 })
      yield* Optimizer.step(two, { learningRate: 0.1 })
      assert.strictEqual(LanguageModel.stateHash(one), LanguageModel.stateHash(two))
    })
  )
})

describe("forwardBackward", () => {
  it.effect("teaches a repeated text", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make({ ...everything, rank: 8 })
      const data = sentences.map((text) => textDatum(text))
      const count = data.reduce((sum, datum) => sum + datum.tokens.length, 0)
      const losses: Array<number> = []
      for (let step = 0; step < 120; step++) {
        losses.push((yield* pass(model, data)).loss / count)
        yield* Optimizer.step(model, { learningRate: 1e-2 })
      }
      assert.closeTo(losses[0]!, Math.log(LanguageModel.vocabSize), 0.3)
      assert.isBelow(losses[20]!, losses[0]! - 2)
      assert.isBelow(losses[119]!, 0.3)
    })
  )

  it.effect("needs its memory: what follows a letter depends on the letters before it", () =>
    Effect.gen(function* () {
      // After "b" comes "x" or "y", by what stood before "b". A bigram table cannot get below ln 2 there.
      const data = [textDatum("abx"), textDatum("cby")]
      const only = { weights: [0, 1] }
      const probe = [textDatum("abx", only), textDatum("cby", only)]
      const model = yield* LanguageModel.make({ ...everything, rank: 8 })
      for (let step = 0; step < 200; step++) {
        yield* pass(model, data)
        yield* Optimizer.step(model, { learningRate: 1e-2 })
      }
      const { loss } = yield* LanguageModel.forward(model, { data: probe, loss: "cross_entropy" })
      assert.isBelow(loss, 0.2 * 2 * Math.LN2)
    })
  )

  it.effect("adds up: two passes are the pass of both batches, bit for bit", () =>
    Effect.gen(function* () {
      const one = shaken(yield* LanguageModel.make(everything), 4)
      const other = LanguageModel.clone(one)
      const [a, b, c, d] = sentences.map((text) => textDatum(text))
      yield* pass(one, [a!, b!])
      yield* pass(one, [c!, d!])
      yield* pass(other, [a!, b!, c!, d!])
      assert.deepStrictEqual(LanguageModel.factorGradientsOf(one), LanguageModel.factorGradientsOf(other))
      yield* Optimizer.step(one, { learningRate: 1e-2 })
      yield* Optimizer.step(other, { learningRate: 1e-2 })
      assert.strictEqual(LanguageModel.stateHash(one), LanguageModel.stateHash(other))
    })
  )

  it.effect("does not mix sequences of a batch, whatever their lengths and however much of them has no weight", () =>
    Effect.gen(function* () {
      const one = shaken(yield* LanguageModel.make(everything), 4)
      const other = LanguageModel.clone(one)
      const quiet = (text: string, count: number) =>
        textDatum(text, { weights: Array.from({ length: text.length - 1 }, (_, i) => (i < count ? 0 : 1)) })
      const data = [
        textDatum(sentences[2]!),
        quiet("ab", 1),
        quiet("abcdefghijk", 7),
        textDatum("abc"),
        quiet("abcdef", 4)
      ]
      const together = yield* pass(one, data)
      for (const [i, datum] of data.entries()) {
        assert.deepStrictEqual((yield* pass(other, [datum])).logprobs[0], together.logprobs[i])
      }
      assert.deepStrictEqual(LanguageModel.factorGradientsOf(one), LanguageModel.factorGradientsOf(other))
    })
  )

  it.effect("leaves no trace of a refused batch", () =>
    Effect.gen(function* () {
      const model = shaken(yield* LanguageModel.make(everything), 4)
      const bad = { tokens: [1, 2], lossInputs: { target_tokens: [2, 259] } }
      const refused = yield* Effect.flip(pass(model, [textDatum("good"), bad]))
      assert.strictEqual(refused.reason._tag, "InvalidToken")
      assert.include(refused.message, "datum 1: target_tokens[1] is 259")
      for (const gradient of Object.values(LanguageModel.factorGradientsOf(model))) {
        assert.isTrue(gradient.every((g) => g === 0))
      }
    })
  )

  it.effect("lets other fibers run during an ordinary batch, and an interrupted pass leaves no trace", () =>
    Effect.gen(function* () {
      const model = shaken(yield* LanguageModel.make(everything), 4)
      const data = Array.from({ length: 8 }, () => textDatum("x".repeat(65)))
      let turns = 0
      // `forever` gives way after each round, so every round is a turn that the pass allowed.
      const other = yield* Effect.forkChild(Effect.forever(Effect.sync(() => turns++)))
      yield* pass(LanguageModel.clone(model), data)
      assert.isAtLeast(turns, 6)
      yield* Fiber.interrupt(other)
      const running = yield* Effect.forkChild(pass(model, data))
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      yield* Fiber.interrupt(running)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(running)))
      for (const gradient of Object.values(LanguageModel.factorGradientsOf(model))) {
        assert.isTrue(gradient.every((g) => g === 0))
      }
    })
  )
})

describe("determinism", () => {
  const train = Effect.fnUntraced(function* (model: LanguageModel.LanguageModel, from: number, to: number) {
    for (let step = from; step < to; step++) {
      yield* pass(model, [textDatum(sentences[step % 4]!), textDatum(sentences[(step + 1) % 4]!)])
      yield* Optimizer.step(model, { learningRate: 1e-2, gradClipNorm: 50 })
    }
  })

  it.effect.prop(
    "same configuration, same batches: same state",
    [
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1000 })),
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 12 }))
    ],
    ([seed, rank]) =>
      Effect.gen(function* () {
        const config = { ...everything, seed, rank }
        const one = yield* LanguageModel.make(config)
        const other = yield* LanguageModel.make(config)
        yield* train(one, 0, 4)
        yield* train(other, 0, 4)
        assert.strictEqual(LanguageModel.stateHash(one), LanguageModel.stateHash(other))
        const third = yield* LanguageModel.make({ ...config, seed: seed + 1 })
        yield* train(third, 0, 4)
        assert.notStrictEqual(LanguageModel.weightsHash(third), LanguageModel.weightsHash(one))
      })
  )

  it.effect("models that train at the same time do not influence each other", () =>
    Effect.gen(function* () {
      const make = (seed: number) => LanguageModel.make({ ...everything, seed })
      const alone = [yield* make(1), yield* make(2)]
      for (const model of alone) yield* train(model, 0, 12)
      const together = [yield* make(1), yield* make(2)]
      yield* Effect.forEach(together, (model) => train(model, 0, 12), { concurrency: "unbounded" })
      assert.deepStrictEqual(together.map(LanguageModel.stateHash), alone.map(LanguageModel.stateHash))
    })
  )

  it.effect("a clone goes its own way", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(everything)
      yield* train(model, 0, 2)
      const copy = LanguageModel.clone(model)
      const before = LanguageModel.stateHash(model)
      assert.strictEqual(LanguageModel.stateHash(copy), before)
      yield* train(copy, 2, 4)
      assert.strictEqual(LanguageModel.stateHash(model), before)
      yield* train(model, 2, 4)
      assert.strictEqual(LanguageModel.stateHash(model), LanguageModel.stateHash(copy))
    })
  )

  it.effect("a full restore continues bit for bit; a weights-only restore ends elsewhere", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(everything)
      yield* train(model, 0, 5)
      const saved = LanguageModel.snapshot(model, { optimizer: true })
      yield* train(model, 5, 9)
      const full = yield* LanguageModel.make({ ...everything, seed: 99 })
      yield* pass(full, [textDatum("gradients from before the restore")])
      yield* LanguageModel.restore(full, saved, { optimizer: true })
      const bare = yield* LanguageModel.make(everything)
      yield* LanguageModel.restore(bare, saved, { optimizer: false })
      assert.deepStrictEqual(bare.factors, full.factors)
      yield* train(full, 5, 9)
      yield* train(bare, 5, 9)
      assert.deepStrictEqual(full.factors, model.factors)
      assert.deepStrictEqual(full.adam, model.adam)
      assert.notStrictEqual(LanguageModel.weightsHash(bare), LanguageModel.weightsHash(model))
    })
  )
})

describe("stateHash", () => {
  it.effect("changes with a single bit of weights or optimizer; weightsHash with weights only", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(everything)
      yield* pass(model, [textDatum("hello")])
      yield* Optimizer.step(model, {})
      const state = LanguageModel.stateHash(model)
      const weights = LanguageModel.weightsHash(model)
      const { name } = (yield* LanguageModel.shapes(everything)).at(-1)!
      const changes: ReadonlyArray<readonly [(copy: LanguageModel.LanguageModel) => void, boolean]> = [
        [(copy) => (copy.factors[name]![0]! += Number.EPSILON), true],
        [(copy) => (copy.adam.m[name]![0]! += Number.EPSILON), false],
        [(copy) => (copy.adam.v[name]![0]! += Number.EPSILON), false],
        [(copy) => (copy.adam = { ...copy.adam, t: copy.adam.t + 1 }), false]
      ]
      for (const [change, changesWeights] of changes) {
        const copy = LanguageModel.clone(model)
        change(copy)
        assert.notStrictEqual(LanguageModel.stateHash(copy), state)
        assert.strictEqual(LanguageModel.weightsHash(copy) !== weights, changesWeights)
      }
    })
  )
})

describe("make", () => {
  const reason = (config: LanguageModel.ModelConfig) =>
    Effect.map(Effect.flip(LanguageModel.make(config)), (error) => error.reason)

  it.effect("refuses an unknown base model and lists the known ones", () =>
    Effect.gen(function* () {
      const refused = yield* reason({ ...everything, baseModel: "Qwen/Qwen3-8B" })
      assert.strictEqual(refused._tag, "UnknownBaseModel")
      for (const { name } of LanguageModel.baseModels) assert.include(refused.message, name)
    })
  )

  it.effect("refuses a rank outside 1..64, a broken seed and a model that trains nothing", () =>
    Effect.gen(function* () {
      for (const rank of [0, 65, 1.5, -3, Number.NaN]) {
        const refused = yield* reason({ ...everything, rank })
        assert.include(refused.message, `rank is ${rank}`)
      }
      assert.include((yield* reason({ ...everything, seed: 0.5 })).message, "seed is 0.5")
      assert.include((yield* reason(nothing)).message, "at least one of them")
    })
  )

  it.effect("gives each factor the shape of its rank, for ranks beyond the model's width too", () =>
    Effect.gen(function* () {
      for (const rank of [1, 16, 64]) {
        const model = yield* LanguageModel.make({ ...everything, rank })
        for (const { columns, name, rows } of yield* LanguageModel.shapes(model.config)) {
          assert.strictEqual(name.includes("lora_A") ? rows : columns, rank)
          assert.strictEqual(model.factors[name]!.length, rows * columns)
        }
        yield* pass(model, [textDatum("hello")])
        yield* Optimizer.step(model, {})
      }
    })
  )

  it.effect("starts every model of a base at the base: a fresh adapter changes nothing", () =>
    Effect.gen(function* () {
      const logprobs = Effect.fnUntraced(function* (config: LanguageModel.ModelConfig) {
        const model = yield* LanguageModel.make(config)
        const result = yield* LanguageModel.forward(model, { data: [textDatum("hello")], loss: "cross_entropy" })
        return result.logprobs
      })
      const expected = yield* logprobs(everything)
      assert.deepStrictEqual(yield* logprobs({ ...nothing, trainMlp: true, seed: 1, rank: 64 }), expected)
      assert.notDeepEqual(yield* logprobs({ ...everything, baseModel: "tiny/byte-lm-32" }), expected)
    })
  )

  it.effect("draws the A factors from the seed, each from a stream of its own, and starts B at zero", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(everything)
      const other = yield* LanguageModel.make({ ...everything, seed: everything.seed + 1 })
      const alone = yield* LanguageModel.make({ ...nothing, trainUnembed: true })
      const drawn = Object.entries(model.factors).filter(([name]) => name.includes("lora_A"))
      for (const [i, [name, values]] of drawn.entries()) {
        assert.notDeepEqual(values, other.factors[name], name)
        for (const [, further] of drawn.slice(i + 1)) assert.notStrictEqual(values[0], further[0])
      }
      for (const [name, values] of Object.entries(alone.factors)) assert.deepStrictEqual(values, model.factors[name])
      for (const [name, values] of Object.entries(model.factors)) {
        assert.strictEqual(
          values.every((value) => value === 0),
          name.includes("lora_B")
        )
      }
    })
  )

  for (const [flag, module] of [
    ["trainAttn", "self_attn"],
    ["trainMlp", "mlp"],
    ["trainUnembed", "unembed_tokens"]
  ] as const) {
    it.effect(`trains only what ${flag} says when it stands alone, and everything else when it is off`, () =>
      Effect.gen(function* () {
        const alone = yield* LanguageModel.make({ ...nothing, [flag]: true })
        assert.isTrue(Object.keys(alone.factors).every((name) => name.includes(module)))
        const without = yield* LanguageModel.make({ ...everything, [flag]: false })
        assert.isFalse(Object.keys(without.factors).some((name) => name.includes(module)))
        for (const model of [alone, without]) {
          const names = Object.keys(model.factors)
          assert.isAbove(names.length, 0)
          const before = LanguageModel.snapshot(model, { optimizer: false })
          for (let step = 0; step < 2; step++) {
            yield* pass(model, [textDatum("hello world")])
            yield* Optimizer.step(model, { learningRate: 1e-2 })
          }
          assert.deepStrictEqual(Object.keys(model.factors), names)
          for (const name of names) assert.notDeepEqual(model.factors[name], before.factors[name], name)
        }
      })
    )
  }
})

describe("batches", () => {
  const target_tokens = [2, 3]
  const cases: ReadonlyArray<readonly [string, LanguageModel.PassOptions, string]> = [
    [
      "a token that is no integer",
      { loss: "cross_entropy", data: [{ tokens: [1, 2.5], lossInputs: { target_tokens } }] },
      "tokens[1] is 2.5"
    ],
    [
      "a negative token",
      { loss: "cross_entropy", data: [{ tokens: [-1, 2], lossInputs: { target_tokens } }] },
      "tokens[0] is -1"
    ],
    [
      "targets of another length",
      { loss: "cross_entropy", data: [{ tokens: [1], lossInputs: { target_tokens } }] },
      "1 tokens but 2 target_tokens"
    ],
    [
      "a row of targets that is incomplete",
      { loss: "cross_entropy", data: [{ tokens: [1, 2], width: 2, lossInputs: { target_tokens: [1, 2, 3] } }] },
      "2 tokens but 3 target_tokens, 2 a position"
    ],
    [
      "too many targets a position",
      { loss: "cross_entropy", data: [{ tokens: [1], width: 5000, lossInputs: { target_tokens } }] },
      "5000 targets a position"
    ],
    ["no targets", { loss: "cross_entropy", data: [{ tokens: [1], lossInputs: {} }] }, "target_tokens are missing"],
    [
      "an empty sequence",
      { loss: "cross_entropy", data: [{ tokens: [], lossInputs: { target_tokens: [] } }] },
      "no tokens"
    ],
    [
      "weights of another length",
      { loss: "cross_entropy", data: [{ tokens: [1, 2], lossInputs: { target_tokens, weights: [1] } }] },
      "weights has 1 entries for 2 targets"
    ],
    [
      "a weight that is no number",
      { loss: "cross_entropy", data: [{ tokens: [1, 2], lossInputs: { target_tokens, weights: [1, Number.NaN] } }] },
      "weights[1] is NaN"
    ],
    [
      "an input that the loss does not know",
      { loss: "ppo", data: [{ tokens: [1, 2], lossInputs: { target_tokens, mask: [1, 1] } }] },
      'ppo takes no input "mask"'
    ],
    [
      "a missing input",
      { loss: "ppo", data: [{ tokens: [1, 2], lossInputs: { target_tokens, logprobs: [0, 0] } }] },
      "needs the inputs logprobs and advantages"
    ],
    [
      "a setting that the loss does not know",
      { loss: "dro", lossConfig: { clip: 1 }, data: [{ tokens: [1, 2], lossInputs: { target_tokens } }] },
      'no setting "clip"'
    ],
    ["an unknown loss", { loss: "mse", data: [] }, "loss_fn is mse"],
    ["a sequence beyond the context", { loss: "cross_entropy", data: [textDatum("x".repeat(2050))] }, "at most 2048"]
  ]
  for (const [name, options, message] of cases) {
    it.effect(`are refused with ${name}`, () =>
      Effect.gen(function* () {
        const model = yield* LanguageModel.make(everything)
        const refused = yield* Effect.flip(LanguageModel.forwardBackward(model, options))
        assert.include(refused.message, message)
        assert.isFalse(refused.isRetryable)
      })
    )
  }
})

describe("restore", () => {
  it.effect("refuses a snapshot of another shape and one without optimizer when it is asked for", () =>
    Effect.gen(function* () {
      const model = yield* LanguageModel.make(everything)
      const saved = LanguageModel.snapshot(model, { optimizer: false })
      const before = LanguageModel.stateHash(model)
      const other = LanguageModel.snapshot(yield* LanguageModel.make({ ...everything, rank: 5 }), { optimizer: true })
      const cut = { ...saved, factors: { ...saved.factors, [Object.keys(saved.factors)[0]!]: new Float64Array(3) } }
      for (const [from, optimizer, message] of [
        [saved, true, "no optimizer state"],
        [other, true, "rank is 5 there and 4 here"],
        [cut, false, "is not 4 x 16"]
      ] as const) {
        const result = yield* Effect.result(LanguageModel.restore(model, from, { optimizer }))
        assert.isTrue(Result.isFailure(result) && result.failure.message.includes(message), message)
      }
      assert.strictEqual(LanguageModel.stateHash(model), before)
    })
  )
})
