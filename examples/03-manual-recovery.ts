// Somebody who owns the loop: typed manual calls. The loop saves, the run is lost, and the owner asks for a plan, restores by
// hand and goes on at the step that the checkpoint holds.
//
//   npm run example examples/03-manual-recovery.ts
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer, Option } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { type Checkpoint, ServiceClient, Tinker, Tokenizer, type TrainingClient } from "@tinkex/tinker"
import { CheckpointSelector, Dataset } from "@tinkex/training"

const total = 12

// The wire knows no step, so the names of our checkpoints say it.
const stepOf = (checkpoint: Checkpoint.Checkpoint) => Option.some(Number(checkpoint.checkpointId.split("-").at(-1)))

const loop = (client: TrainingClient.TrainingClient, from: number) =>
  Effect.gen(function* () {
    const data = yield* Dataset.jsonl(new URL("data/support-tone.jsonl", import.meta.url).pathname, { batchSize: 4 })
    for (let step = from; step < Math.min(total, data.totalSteps); step++) {
      const pass = yield* client.forwardBackward(yield* data.batch(step), { loss: "cross_entropy" })
      const update = yield* client.optimStep({ learningRate: 0.02 })
      yield* pass.result
      yield* update.result
      if ((step + 1) % 3 === 0) yield* (yield* client.saveState(`step-${step + 1}`)).result
    }
    return client.modelId
  })

const program = Effect.gen(function* () {
  const service = yield* ServiceClient
  const recovery = yield* Recovery
  const client = yield* service.createLoraTrainingClient({ baseModel: "tiny/byte-lm-16", rank: 8, seed: 1 })

  const final = yield* loop(client, 0).pipe(
    Effect.catchReason("TinkerError", "RunLost", (lost) =>
      Effect.gen(function* () {
        yield* Console.log(`lost: ${lost.detail}`)

        // 1. What would happen? Reads, never writes.
        const plan = yield* recovery.plan(client.modelId, { stepOf })
        for (const { candidate, reason } of plan.rejected) yield* Console.log(`  not ${candidate.name}: ${reason}`)
        yield* Console.log(`  would use ${Option.getOrThrow(plan.chosen).path}`)

        // 2. The newest usable checkpoint, optimizer included, on a fresh model.
        const recovered = yield* recovery.recoverRun(client.modelId, { stepOf })
        const step = Option.getOrThrow(recovered.step)
        yield* Console.log(`  ${client.modelId} -> ${recovered.client.modelId}, on at step ${step}`)
        return yield* loop(recovered.client, step)
      })
    )
  )
  yield* Console.log(`done on ${final}`)

  // 3. One named checkpoint, here without the optimizer: a new run that starts from old weights.
  const plan = yield* recovery.plan(final, { stepOf, strategy: CheckpointSelector.latest })
  const { path } = Option.getOrThrow(plan.chosen)
  const branch = yield* recovery.recoverFromCheckpoint(path, { restoreOptimizer: false })
  yield* Console.log(`branched off ${path} as ${branch.client.modelId}`)
}).pipe(Effect.scoped)

const Live = Recovery.layer({ enabled: false }).pipe(
  Layer.provideMerge(Tinker.layer({ apiKey: "tml-offline" })),
  Layer.provide(Emulator.layerHttpClient({ faults: FaultPlan.make([FaultPlan.corrupt({ atStep: 8 })]) })),
  Layer.provideMerge(Layer.mergeAll(Tokenizer.layerBytes, NodeServices.layer))
)

program.pipe(Effect.provide(Live), NodeRuntime.runMain)
