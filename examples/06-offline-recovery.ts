// A recovery from end to end without a service, a network or a key: a loop of its own trains, the service flags its run, the
// recovery restores the newest checkpoint with its optimizer on a fresh model and hands the new client over, and the loop ends in the very
// state of one that never failed.
//
//   npm run example examples/06-offline-recovery.ts
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Option, Queue, Stream } from "effect"
import { Emulator } from "@tinkex/emulator"
import { type Recovered, Recovery, RecoveryEvent } from "@tinkex/recovery"
import { type Checkpoint, Datum, ServiceClient, TensorData, Tinker, type TrainingClient } from "@tinkex/tinker"

const total = 12
const sentences = ["the cat sat on the mat", "the dog lay by the fire", "the bird sang in the tree"]

const batch = (step: number) => {
  const tokens = [256, ...Buffer.from(sentences[step % sentences.length] ?? "")]
  const targets = tokens.slice(1)
  return [
    {
      modelInput: Datum.fromTokens(tokens.slice(0, -1)),
      lossFnInputs: { target_tokens: TensorData.int64(targets), weights: TensorData.float32(targets.map(() => 1)) }
    }
  ]
}

// The wire knows no step, so the names of our checkpoints say it.
const stepOf = (checkpoint: Checkpoint.Checkpoint) => Option.some(Number(checkpoint.checkpointId.split("-").at(-1)))

/** Trains to the end; `before` is done before each step. */
const loop = (client: TrainingClient.TrainingClient, from: number, before: (step: number) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    for (let step = from; step < total; step++) {
      yield* before(step)
      const pass = yield* client.forwardBackward(batch(step), { loss: "cross_entropy" })
      const update = yield* client.optimStep({ learningRate: 0.02 })
      yield* pass.result
      yield* update.result
      if ((step + 1) % 4 === 0) yield* (yield* client.saveState(`step-${step + 1}`)).result
    }
    return client.modelId
  })

const program = Effect.gen(function* () {
  const service = yield* ServiceClient
  const recovery = yield* Recovery
  const { control } = yield* Emulator
  const model = { baseModel: "tiny/byte-lm-16", rank: 4, seed: 1 }

  const calm = yield* loop(yield* service.createLoraTrainingClient(model), 0, () => Effect.void)
  yield* Console.log(`uninterrupted ${yield* control.stateHash(calm)}`)

  yield* recovery.events.pipe(
    Stream.runForEach((event) => Console.log(`  ${RecoveryEvent.format(event)}`)),
    Effect.forkScoped({ startImmediately: true })
  )
  const handed = yield* Queue.unbounded<Recovered>()
  const client = yield* service.createLoraTrainingClient(model)
  yield* recovery.watch({
    runId: client.modelId,
    client,
    stepOf,
    onRecovered: (recovered) => Queue.offer(handed, recovered)
  })
  const failing = (step: number) => (step === 10 ? Effect.orDie(control.poison(client.modelId)) : Effect.void)
  const stormy = yield* loop(client, 0, failing).pipe(
    Effect.catchTag("TinkerError", (error) =>
      Effect.gen(function* () {
        yield* Console.log(`the loop: ${error.message}`)
        const recovered = yield* Queue.take(handed)
        const step = Option.getOrThrow(recovered.step)
        yield* Console.log(`the loop goes on at step ${step} on ${recovered.runId}`)
        return yield* loop(recovered.client, step, () => Effect.void)
      })
    )
  )
  yield* Console.log(`recovered     ${yield* control.stateHash(stormy)}`)
}).pipe(Effect.scoped)

const Live = Recovery.layer({ enabled: true }).pipe(
  Layer.provideMerge(Tinker.layer({ apiKey: "tml-offline" })),
  Layer.provideMerge(Emulator.layerHttpClient())
)

program.pipe(Effect.provide(Live), NodeRuntime.runMain)
