// Sampling: from a base model, from the weights that a client is training, and from many prompts at once.
//
//   npm run example examples/04-sampling.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Result, Stream } from "effect"
import { Emulator } from "@tinkex/emulator"
import { Datum, ModelInput, ServiceClient, TensorData, Tinker, Tokenizer } from "@tinkex/tinker"

const baseModel = "tiny/byte-lm-16"
const words = "the cat sat on the mat. "

const program = Effect.gen(function* () {
  const service = yield* ServiceClient
  const tokenizer = yield* Tokenizer
  const tokens = yield* tokenizer.encode(words)
  const prompt = ModelInput.fromTokens(tokens.slice(0, 7))

  // 1. How likely does the untrained model find the sentence? The first token has nothing before it.
  const base = yield* service.createSamplingClient({ baseModel })
  const surprise = (logprobs: ReadonlyArray<number | undefined>) =>
    (-logprobs.reduce<number>((total, logprob) => total + (logprob ?? 0), 0)).toFixed(0)
  const before = yield* base.computeLogprobs(ModelInput.fromTokens(tokens))

  // 2. Train on it, and draw from the weights as they are: nothing is saved.
  const client = yield* service.createLoraTrainingClient({ baseModel, rank: 8, seed: 1 })
  const datum: Datum.Datum = {
    modelInput: Datum.fromTokens(tokens.slice(0, -1)),
    lossFnInputs: {
      target_tokens: TensorData.int64(tokens.slice(1)),
      weights: TensorData.float32(tokens.slice(1).map(() => 1))
    }
  }
  for (let step = 0; step < 60; step++) {
    const pass = yield* client.forwardBackward([datum], { loss: "cross_entropy" })
    const update = yield* client.optimStep({ learningRate: 0.02 })
    yield* pass.result
    yield* update.result
  }
  const trained = yield* service.createSamplingClient({ weightsOf: client })
  const after = yield* trained.computeLogprobs(ModelInput.fromTokens(tokens))
  yield* Console.log(`surprise ${surprise(before)} -> ${surprise(after)}`)

  // 3. Several samples of one prompt: the same seed gives the same ones. Temperature 0 takes the likeliest token each time.
  const greedy = yield* trained.sample(prompt, { maxTokens: 20, temperature: 0, stop: ["."] })
  const [best] = greedy.sequences
  yield* Console.log(`"the cat" + "${yield* tokenizer.decode(best?.tokens ?? [])}" (${best?.stopReason})`)

  // 4. Many prompts: results come as they are ready, a failing prompt stops nothing, and 16 are at work at once.
  const prompts = Array.from({ length: 200 }, (_, i) => ModelInput.fromTokens(tokens.slice(0, 1 + (i % 20))))
  const counts = yield* trained.sampleAll(prompts, { maxTokens: 4, numSamples: 2, concurrency: 16 }).pipe(
    Stream.runFold(
      () => ({ samples: 0, failed: 0 }),
      ({ failed, samples }, { result }) =>
        Result.isSuccess(result)
          ? { failed, samples: samples + result.success.sequences.length }
          : { failed: failed + 1, samples }
    )
  )
  yield* Console.log(`${counts.samples} samples, ${counts.failed} prompts failed`)

  // 5. Another process draws from the same sampler by its handle, which holds no secret.
  const elsewhere = yield* service.createSamplingClient({ handle: trained.handle })
  yield* Console.log(
    `the same sampler by its handle: ${(yield* elsewhere.info()).samplerId === trained.samplingSessionId}`
  )
}).pipe(Effect.scoped)

const Live = Tinker.layer({ apiKey: "tml-offline" }).pipe(
  Layer.provide(Emulator.layerHttpClient()),
  Layer.provideMerge(Tokenizer.layerBytes)
)

program.pipe(Effect.provide(Live), NodeRuntime.runMain)
