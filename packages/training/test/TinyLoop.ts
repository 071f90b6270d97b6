import { Effect, Schema } from "effect"
import { Datum, ServiceClient, TensorData } from "@tinkex/tinker"
import { CheckpointPolicy, type StepClient, Trainer } from "../src/index.ts"

const Group = Schema.Struct({
  prompt: Schema.Array(Schema.Int),
  tokens: Schema.Array(Schema.Int),
  logprobs: Schema.Array(Schema.Number),
  advantage: Schema.Number
})
export const Groups = Schema.Array(Group)
export type Groups = typeof Groups.Type

const wanted = "a".charCodeAt(0)

/** Draws from the weights as they are and rewards the letter a. */
export const rollouts = Effect.fnUntraced(function* (client: StepClient.StepClient, seed: number) {
  const service = yield* ServiceClient
  const saved = yield* client.saveWeightsEphemeral()
  const { samplingSessionId } = yield* saved.result
  const sampler = yield* service.createSamplingClient({ handle: { sessionId: client.sessionId, samplingSessionId } })
  const prompt = [256, 98, 99]
  const { sequences } = yield* sampler.sample(Datum.fromTokens(prompt), { maxTokens: 5, numSamples: 3, seed })
  const rewards = sequences.map(({ tokens }) => [...tokens].filter((token) => token === wanted).length / 5)
  const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length
  return sequences.map(({ logprobs, tokens }, i) => ({
    prompt,
    tokens: [...tokens],
    logprobs: [...(logprobs ?? [])],
    advantage: (rewards[i] ?? 0) - mean
  }))
})

const toData = (groups: Groups): ReadonlyArray<Datum.Datum> =>
  groups.map(({ advantage, logprobs, prompt, tokens }) => {
    const all = [...prompt, ...tokens]
    const given = prompt.length - 1
    return {
      modelInput: Datum.fromTokens(all.slice(0, -1)),
      lossFnInputs: {
        target_tokens: TensorData.int64(all.slice(1)),
        logprobs: TensorData.float32([...Array.from({ length: given }, () => 0), ...logprobs]),
        advantages: TensorData.float32(all.slice(1).map((_, i) => (i < given ? 0 : advantage)))
      }
    }
  })

export interface LoopOptions extends Partial<
  Omit<Trainer.LoopOptions<{ readonly seen: number }, { readonly seen: number }, never, never>, "until" | "step">
> {
  readonly steps?: number
  readonly every?: number
  /** Hears of each time that rollouts were gathered. */
  readonly onRollouts?: (step: number) => void
}

/** Reinforcement learning: each step draws from the present weights, once in the life of the run, and trains on that. */
export const tinyLoop = ({ every = 4, onRollouts, steps = 10, ...options }: LoopOptions = {}) =>
  Trainer.loop({
    name: "tiny-rl",
    model: { baseModel: "tiny/byte-lm-16", rank: 2 },
    checkpoints: CheckpointPolicy.everySteps(every, { keepLast: 10 }),
    ...options,
    until: (step) => step === steps,
    state: Schema.Struct({ seen: Schema.Int }),
    initial: { seen: 0 },
    step: ({ client, once, random, state, step }) =>
      Effect.gen(function* () {
        const groups = yield* once(
          "rollouts",
          Groups,
          Effect.tap(rollouts(client, random.int(1_000_000)), () => Effect.sync(() => onRollouts?.(step)))
        )
        yield* client.forwardBackward(toData(groups), { loss: "importance_sampling" })
        yield* client.optimStep({ learningRate: 0.02 })
        return { state: { seen: state.seen + groups.length }, metrics: { seen: state.seen + groups.length } }
      })
  })
