import { Effect, Layer, Redacted } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Datum, TensorData, Tinker } from "@tinkex/tinker"
import { CheckpointPolicy, Dataset, Journal, Trainer } from "@tinkex/training"

const texts = ["abcabcabc", "aabbccaab", "abcdabcd", "ddccbbaa", "acacacac"]

const datum = (text: string): Datum.Datum => {
  const tokens = [256, ...Buffer.from(text)]
  const targets = tokens.slice(1)
  return {
    modelInput: Datum.fromTokens(tokens.slice(0, -1)),
    lossFnInputs: { target_tokens: TensorData.int64(targets), weights: TensorData.float32(targets.map(() => 1)) }
  }
}

/** Batch k is a function of k. */
export const batch = (k: number) => [0, 1].map((i) => datum(texts[(2 * k + i) % texts.length] ?? ""))

/** A run of twelve steps that saves after every third. */
export const tiny = (options: Partial<Trainer.FineTuneOptions<never, never>> = {}) =>
  Trainer.fineTune({
    name: "tiny",
    model: { baseModel: "tiny/byte-lm-16", rank: 2, seed: 1 },
    learningRate: 0.05,
    checkpoints: CheckpointPolicy.everySteps(3, { keepLast: 10 }),
    data: Dataset.make({ totalSteps: 12, digest: "tiny", batch: (k) => Effect.succeed(batch(k)) }),
    ...options
  })

/** An emulator without a socket, the SDK connected to it, and a journal of its own. */
export const world = (
  faults: string,
  options: Parameters<typeof Emulator.layerHttpClient>[0] = {},
  sdk: { readonly telemetry?: boolean } = {}
) =>
  Layer.unwrap(
    Effect.map(FaultPlan.parse(faults), (plan) =>
      Tinker.layer({ apiKey: Redacted.make("tml-test"), ...sdk }).pipe(
        Layer.provideMerge(Emulator.layerHttpClient({ seed: 7, ...options, faults: plan }))
      )
    )
  ).pipe(Layer.merge(Layer.fresh(Journal.layerMemory)))
