// Train twice, once undisturbed and once with the run poisoned on the way, and compare the final states bit for bit.
//
//   npm run example examples/02-train-poison-recover.ts
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Duration, Effect, Layer } from "effect"
import { FetchHttpClient } from "effect/http"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { Tinker, Tokenizer } from "@tinkex/tinker"
import { CheckpointPolicy, Dataset, Journal, LearningRate, Trainer } from "@tinkex/training"

const fineTune = (name: string) =>
  Trainer.fineTune({
    name,
    model: { baseModel: "tiny/byte-lm-16", rank: 8 },
    data: Dataset.jsonl(new URL("data/support-tone.jsonl", import.meta.url).pathname, { batchSize: 4, epochs: 3 }),
    learningRate: LearningRate.cosine({ peak: 0.02, warmup: 4 }),
    checkpoints: CheckpointPolicy.everySteps(5),
    pipelining: 2
  })

/** Runs against a real server on loopback, over HTTP, and reads the hash of the final state from it. */
const finalState = (name: string, faults: FaultPlan.FaultPlan) =>
  Effect.gen(function* () {
    const emulator = yield* Emulator
    const report = yield* fineTune(name).pipe(
      Effect.provide(Recovery.layer({ enabled: true })),
      Effect.provide(
        Tinker.layer({ apiKey: "tml-offline", baseUrl: emulator.url }).pipe(Layer.provide(FetchHttpClient.layer))
      )
    )
    return { report, hash: yield* emulator.control.stateHash(report.trainingRunId) }
  }).pipe(Effect.provide(Emulator.layer({ faults })))

const program = Effect.gen(function* () {
  const calm = yield* finalState("calm", FaultPlan.make([]))
  const stormy = yield* finalState("stormy", FaultPlan.make([FaultPlan.corrupt({ atStep: 13 })]))
  for (const incident of stormy.report.incidents) {
    yield* Console.log(
      `${incident.cause} at step ${incident.step}, noticed after ${Duration.format(incident.timeToDetect)}, ` +
        `back at step ${incident.resumedAt} after ${Duration.format(incident.timeToRecover)} from ${incident.path}`
    )
  }
  yield* Console.log(`uninterrupted ${calm.hash}`)
  yield* Console.log(`recovered     ${stormy.hash}`)
  if (calm.hash !== stormy.hash) return yield* Effect.die(new Error("the final states differ"))
})

program.pipe(Effect.provide([Journal.layerMemory, Tokenizer.layerBytes, NodeServices.layer]), NodeRuntime.runMain)
