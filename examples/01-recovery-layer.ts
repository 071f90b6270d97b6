// Recovery composed into an Effect application: the loop does not know that it is guarded, the program decides that it is.
//
//   npm run example examples/01-recovery-layer.ts
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer, Stream } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { Tinker, Tokenizer } from "@tinkex/tinker"
import { CheckpointPolicy, Dataset, Journal, LearningRate, Trainer } from "@tinkex/training"

const fineTune = Trainer.fineTune({
  name: "support-tone",
  model: { baseModel: "tiny/byte-lm-16", rank: 8 },
  data: Dataset.jsonl(new URL("data/support-tone.jsonl", import.meta.url).pathname, { batchSize: 4, epochs: 2 }),
  learningRate: LearningRate.linear({ peak: 0.02, warmup: 4 }),
  checkpoints: CheckpointPolicy.everySteps(4),
  pipelining: 1
})

// An application has more to do than to train: here it follows what its recovery does.
const app = Effect.gen(function* () {
  const recovery = yield* Recovery
  yield* recovery.events.pipe(
    Stream.runForEach((event) => Console.log(`recovery: ${event._tag} (${event.incident ?? "no incident"})`)),
    Effect.forkScoped
  )
  const report = yield* fineTune
  yield* Console.log(`${report.run}: ${report.steps} steps on ${report.attempts} attempts, final state ${report.path}`)
}).pipe(Effect.scoped)

// In production: Tinker.layerConfig() reads TINKER_API_KEY and TINKER_BASE_URL, and Journal.layerFileSystem("./runs") lets
// the run outlive the process. Here a server on this machine fails at step 10.
const TinkerLive = Tinker.layer({ apiKey: "tml-offline" }).pipe(
  Layer.provide(Emulator.layerHttpClient({ faults: FaultPlan.make([FaultPlan.corrupt({ atStep: 10 })]) }))
)

const Live = Recovery.layer({ enabled: true }).pipe(
  Layer.provideMerge(TinkerLive),
  Layer.provideMerge(Layer.mergeAll(Journal.layerMemory, Tokenizer.layerBytes, NodeServices.layer))
)

app.pipe(Effect.provide(Live), NodeRuntime.runMain)
