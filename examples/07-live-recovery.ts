// A recovery against the real service, of a run that is well: one answer of the poll is changed on its way in, so that the
// run looks corrupted, and everything after that is real. The run is restored from its checkpoint on a fresh model, takes a step and
// saves a second checkpoint. Costs two small models, two steps and two
// checkpoints, which the service drops after an hour.
//
//   TINKER_API_KEY=tml-... npm run example examples/07-live-recovery.ts [base model]
//
// Without a service: `tinkex emulator` in another terminal, and TINKER_BASE_URL set to what it prints.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, Layer, Ref, Stream } from "effect"
import { type Recovered, Recovery, RecoveryEvent } from "@tinkex/recovery"
import { Datum, RestClient, ServiceClient, TensorData, Tinker, type TrainingClient } from "@tinkex/tinker"

const [, , baseModel = "Qwen/Qwen3-8B"] = process.argv
const suffix = Date.now().toString(36)

const tokens = [1, 2, 3, 4, 5, 6, 7, 8]
const example = {
  modelInput: Datum.fromTokens(tokens.slice(0, -1)),
  lossFnInputs: {
    target_tokens: TensorData.int64(tokens.slice(1)),
    weights: TensorData.float32(tokens.slice(1).map(() => 1))
  }
}

const step = Effect.fnUntraced(function* (client: TrainingClient.TrainingClient) {
  const pass = yield* client.forwardBackward([example], { loss: "cross_entropy" })
  const update = yield* client.optimStep({ learningRate: 1e-4 })
  yield* update.result
  return (yield* pass.result).metrics["loss:sum"]
})

const save = (client: TrainingClient.TrainingClient, name: string) =>
  Effect.flatMap(client.saveState(`${name}-${suffix}`, { ttl: "1 hour" }), ({ result }) => result)

/** The run that the poll is to see as corrupted. */
const condemned = Ref.makeUnsafe("")

/** The service's word, but for the one flag. */
const Injected = Layer.effect(
  RestClient,
  Effect.map(RestClient, (rest) =>
    RestClient.of({
      ...rest,
      getTrainingRun: (runId, options) =>
        Effect.zipWith(rest.getTrainingRun(runId, options), Ref.get(condemned), (run, id) =>
          id === runId ? { ...run, corrupted: true } : run
        )
    })
  )
)

const program = Effect.gen(function* () {
  const service = yield* ServiceClient
  const recovery = yield* Recovery
  yield* recovery.events.pipe(
    Stream.runForEach((event) => Console.log(`  ${RecoveryEvent.format(event)}`)),
    Effect.forkScoped({ startImmediately: true })
  )
  const client = yield* service.createLoraTrainingClient({ baseModel, rank: 8 })
  yield* Console.log(`${client.modelId}: loss ${yield* step(client)}`)
  const first = yield* save(client, "first")
  yield* Console.log(`first checkpoint  ${first.path}`)

  const handed = yield* Deferred.make<Recovered>()
  yield* recovery.watch({
    runId: client.modelId,
    client,
    onRecovered: (recovered) => Deferred.succeed(handed, recovered)
  })
  yield* Ref.set(condemned, client.modelId)
  const recovered = yield* Deferred.await(handed).pipe(Effect.timeout("10 minutes"))
  yield* Console.log(`${recovered.runId}: loss ${yield* step(recovered.client)}`)
  const second = yield* save(recovered.client, "second")
  yield* Console.log(`second checkpoint ${second.path}`)
  // The service would unload the idle models by itself after a while, and drops the two checkpoints after an hour.
  yield* recovered.client.unload()
}).pipe(Effect.scoped)

const Live = Recovery.layer({ enabled: true, pollInterval: "5 seconds" }).pipe(
  Layer.provide(Injected),
  Layer.provideMerge(Tinker.layerConfig())
)

program.pipe(Effect.provide(Live), NodeRuntime.runMain)
