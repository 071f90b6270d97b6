import { Effect, Layer, Redacted } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Datum, TensorData, Tinker } from "@tinkex/tinker"
import { CheckpointPolicy, Dataset, Journal, LearningRate, Trainer } from "../src/index.ts"

/** Short texts over four letters: enough for a loss that falls. Batch k is a function of k. */
const texts = ["abcabcabc", "aabbccaab", "abcdabcd", "ddccbbaa", "acacacac"]

const datum = (text: string): Datum.Datum => {
  const tokens = [256, ...Buffer.from(text)]
  const targets = tokens.slice(1)
  return {
    modelInput: Datum.fromTokens(tokens.slice(0, -1)),
    lossFnInputs: {
      target_tokens: TensorData.int64(targets),
      weights: TensorData.float32(targets.map(() => 1))
    }
  }
}

export const data = (totalSteps: number, digest = "tiny-1") =>
  Dataset.make({
    totalSteps,
    digest,
    batch: (k) => Effect.succeed([0, 1].map((i) => datum(texts[(2 * k + i) % texts.length] ?? "")))
  })

export interface TinyOptions extends Partial<Omit<Trainer.FineTuneOptions<never, never>, "data">> {
  readonly steps?: number
  readonly every?: number
  readonly keepLast?: number
  readonly digest?: string
}

/** A run of `steps` steps that saves every `every`. */
export const tiny = ({ digest, every = 5, keepLast = 10, steps = 12, ...options }: TinyOptions = {}) =>
  Trainer.fineTune({
    name: "tiny",
    model: { baseModel: "tiny/byte-lm-16", rank: 2 },
    learningRate: LearningRate.linear({ peak: 0.05, warmup: 2 }),
    checkpoints: CheckpointPolicy.everySteps(every, { keepLast }),
    ...options,
    data: data(steps, digest)
  })

/** An emulator without a socket, with the SDK connected to it. */
export const world = (spec: string, options: Parameters<typeof Emulator.layerHttpClient>[0] = {}) =>
  Layer.unwrap(
    Effect.map(FaultPlan.parse(spec), (faults) =>
      Tinker.layer({ apiKey: Redacted.make("tml-test") }).pipe(
        Layer.provideMerge(Emulator.layerHttpClient({ ...options, faults }))
      )
    )
  )

/** The ledger of a model as the indices of its steps, and the hash of its state. */
export const finalState = Effect.fn(function* (trainingRunId: string) {
  const { control } = yield* Emulator
  const ledger = yield* control.ledger(trainingRunId)
  return {
    steps: ledger.map((entry) => entry.step),
    digests: ledger.map((entry) => entry.digest),
    hash: yield* control.stateHash(trainingRunId)
  }
})

/** A journal of its own wherever it is provided. */
export const memory = Layer.fresh(Journal.layerMemory)
