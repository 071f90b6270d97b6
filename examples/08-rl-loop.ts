// A loop of one's own: reinforcement learning that survives. Each step draws from the present weights, rewards the letter a, and
// trains on that; the run is poisoned on the way, restored, and what had been drawn before is used again, not drawn again.
//
//   npm run example examples/08-rl-loop.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Schema } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { Datum, ModelInput, ServiceClient, TensorData, Tinker } from "@tinkex/tinker"
import { CheckpointPolicy, Goodput, Journal, type StepClient, Trainer } from "@tinkex/training"

const Groups = Schema.Array(
  Schema.Struct({
    tokens: Schema.Array(Schema.Int),
    logprobs: Schema.Array(Schema.Number),
    reward: Schema.Number
  })
)
type Groups = typeof Groups.Type

const prompt = [256, ...Buffer.from("say ")]
const wanted = "a".charCodeAt(0)
const average = (values: ReadonlyArray<number>) => values.reduce((a, b) => a + b, 0) / values.length

/** Sixteen samples of the weights as they are. */
const rollouts = Effect.fn(function* (client: StepClient.StepClient, seed: number) {
  const service = yield* ServiceClient
  const saved = yield* client.saveWeightsEphemeral()
  const { samplingSessionId } = yield* saved.result
  const sampler = yield* service.createSamplingClient({ handle: { sessionId: client.sessionId, samplingSessionId } })
  const { sequences } = yield* sampler.sample(ModelInput.fromTokens(prompt), { maxTokens: 8, numSamples: 16, seed })
  return sequences.map(({ logprobs, tokens }) => ({
    tokens: [...tokens],
    logprobs: [...(logprobs ?? [])],
    reward: tokens.filter((token) => token === wanted).length / 8
  }))
})

/** What importance sampling takes: the prompt is given, and a sample is as good as it is better than the others. */
const toBatch = (groups: Groups): ReadonlyArray<Datum.Datum> => {
  const baseline = average(groups.map(({ reward }) => reward))
  return groups.map(({ logprobs, reward, tokens }) => {
    const all = [...prompt, ...tokens]
    const given = Array.from({ length: prompt.length - 1 }, () => 0)
    return {
      modelInput: ModelInput.fromTokens(all.slice(0, -1)),
      lossFnInputs: {
        target_tokens: TensorData.int64(all.slice(1)),
        logprobs: TensorData.float32([...given, ...logprobs]),
        advantages: TensorData.float32([...given, ...tokens.map(() => reward - baseline)])
      }
    }
  })
}

let drawn = 0
const run = Trainer.loop({
  name: "say-a",
  model: { baseModel: "tiny/byte-lm-16", rank: 8 },
  checkpoints: CheckpointPolicy.everySteps(10, { keepLast: 2, keepBest: 1, metric: "reward", mode: "max" }),
  until: 40,
  state: Schema.Struct({ samples: Schema.Int }),
  initial: { samples: 0 },
  step: ({ client, once, random, state }) =>
    Effect.gen(function* () {
      const draw = Effect.tap(rollouts(client, random.int(1_000_000)), () => Effect.sync(() => drawn++))
      const groups = yield* once("rollouts", Groups, draw)
      yield* client.forwardBackward(toBatch(groups), { loss: "importance_sampling" })
      yield* client.optimStep({ learningRate: 0.03 })
      return {
        state: { samples: state.samples + groups.length },
        metrics: { reward: average(groups.map(({ reward }) => reward)), samples: state.samples + groups.length }
      }
    })
})

const program = Effect.gen(function* () {
  const report = yield* run
  for (const { cause, replayed, resumedAt, step } of report.incidents) {
    yield* Console.log(`${cause} at step ${step}, back at step ${resumedAt}: ${replayed} steps are taken again`)
  }
  const { first, goodput, last, steps } = report
  yield* Console.log(`reward ${first["reward"]?.toFixed(2)} -> ${last["reward"]?.toFixed(2)} in ${steps} steps`)
  yield* Console.log(`${drawn} rounds of rollouts, ${last["samples"]} samples`)
  yield* Console.log(`${(100 * Goodput.share(goodput)).toFixed(0)} % of the time was useful`)
  if (drawn !== steps) return yield* Effect.die(new Error("something was drawn twice, or never"))
})

const faults = FaultPlan.make([FaultPlan.corrupt({ atStep: 27 })])
const Offline = Tinker.layer({ apiKey: "tml-offline" }).pipe(Layer.provideMerge(Emulator.layerHttpClient({ faults })))

program.pipe(
  Effect.provide(Recovery.layer({ enabled: true })),
  Effect.provide([Offline, Journal.layerMemory]),
  NodeRuntime.runMain
)
