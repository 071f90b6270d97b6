// A loss that the service does not have: direct preference optimisation, from pairs of a liked and a disliked answer.
//
//   npm run example examples/05-preference-loss.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { Emulator } from "@tinkex/emulator"
import { CustomLoss, Datum, ServiceClient, Tinker, Tokenizer, Vector } from "@tinkex/tinker"

const beta = 0.2
const pairs = [
  { prompt: "How are you? ", liked: "Very well, thank you!", disliked: "Go away." },
  { prompt: "Can you help? ", liked: "Gladly, what is it?", disliked: "No." },
  { prompt: "Thanks. ", liked: "You are welcome!", disliked: "Whatever." }
]

/** An answer behind its prompt: only the answer's tokens count. */
const answered = Effect.fnUntraced(function* (prompt: string, answer: string) {
  const tokenizer = yield* Tokenizer
  const before = yield* tokenizer.encode(prompt)
  const tokens = [...before, ...(yield* tokenizer.encode(answer))]
  return yield* Datum.make({
    tokens: tokens.slice(0, -1),
    lossFnInputs: {
      target_tokens: tokens.slice(1),
      weights: tokens.slice(1).map((_, i) => (i + 1 < before.length ? 0 : 1))
    }
  })
})

/** The log-probability of a whole answer. */
const answerOf = ({ datum, logprobs }: CustomLoss.DatumVector) =>
  logprobs.mul(Vector.constant(datum.lossFnInputs["weights"]?.data ?? [])).sum()

/** Liked and disliked answers take turns in the batch; `reference` holds what each was worth before any training. */
const preferences = (reference: ReadonlyArray<number>) =>
  CustomLoss.differentiate((batch) => {
    const gains = batch.map((one, i) => answerOf(one).sub(reference[i] ?? 0))
    const margins = pairs.map((_, i) => (gains[2 * i] ?? Vector.constant(0)).sub(gains[2 * i + 1] ?? 0))
    return {
      loss: Vector.total(margins.map((margin) => margin.mul(beta).logSigmoid().neg())),
      metrics: { accuracy: margins.filter(({ value }) => value > 0).length / margins.length }
    }
  })

const program = Effect.gen(function* () {
  const service = yield* ServiceClient
  const client = yield* service.createLoraTrainingClient({ baseModel: "tiny/byte-lm-16", rank: 8, seed: 1 })
  const data = yield* Effect.forEach(
    pairs.flatMap(({ disliked, liked, prompt }) => [[prompt, liked] as const, [prompt, disliked] as const]),
    ([prompt, answer]) => answered(prompt, answer)
  )

  // 1. What each answer is worth to the model as it is.
  const first = yield* client.forward(data, { loss: "cross_entropy" })
  const outputs = (yield* first.result).lossFnOutputs
  const batch = data.map((datum, i) => ({ datum, logprobs: outputs[i]?.["logprobs"]?.data ?? [], shape: [] }))
  const reference = batch.map((one) => answerOf({ ...one, logprobs: Vector.constant(one.logprobs) }).value)

  // 2. The gradient comes from the loss itself; seen from outside, the two agree.
  const loss = preferences(reference)
  yield* Console.log(`gradient off by less than 1e-6: ${(yield* CustomLoss.gradientError(loss, batch)) < 1e-6}`)

  // 3. Train on it.
  for (let step = 0; step <= 40; step++) {
    const pass = yield* client.forwardBackwardCustom(data, loss)
    const update = yield* client.optimStep({ learningRate: 0.002 })
    const output = yield* pass.result
    yield* update.result
    if (step % 20 === 0) {
      yield* Console.log(`step ${step}: loss ${output.loss.toFixed(3)}, accuracy ${output.metrics["accuracy"]}`)
    }
  }
}).pipe(Effect.scoped)

const Live = Tinker.layer({ apiKey: "tml-offline" }).pipe(
  Layer.provide(Emulator.layerHttpClient()),
  Layer.provideMerge(Tokenizer.layerBytes)
)

program.pipe(Effect.provide(Live), NodeRuntime.runMain)
