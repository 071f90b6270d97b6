import { assert, describe, it } from "@effect/vitest"
import { ServiceClient, Tinker, type TinkerError, type TrainingClient } from "@tinkex/tinker"
import { Effect, Fiber, Layer, Option } from "effect"
import { FetchHttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import { Emulator, type EmulatorOptions, FaultPlan } from "../src/index.ts"
import { batches } from "./api.ts"

type Client = TrainingClient.TrainingClient

const sdk = (options: EmulatorOptions = {}) =>
  Effect.provide(
    Layer.unwrap(Effect.map(Emulator, ({ url }) => Tinker.layer({ apiKey: "tml-test", baseUrl: url }))).pipe(
      Layer.provideMerge(Emulator.layerHttpClient(options))
    )
  )

/** Lets the test clock run until the effect is done: retries and heartbeats need time to pass. */
const whileTimePasses = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect)
    for (let i = 0; i < 5000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("200 millis")
    return yield* Fiber.join(fiber)
  })

const adam = { learningRate: 0.05 }
const cross = { loss: "cross_entropy" }

const create = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "tiny/byte-lm-16", rank: 4, seed: 7 })
)

/** Steps of the lineage, each awaited; gives the losses. */
const train = Effect.fnUntraced(function* (client: Client, from: number, to: number) {
  const losses: Array<number> = []
  for (let step = from; step < to; step++) {
    const pass = yield* client.forwardBackward(batches[step % batches.length] ?? [], cross)
    const update = yield* client.optimStep(adam)
    losses.push((yield* pass.result).metrics["loss:sum"] ?? Number.NaN)
    yield* update.result
  }
  return losses
})

const save = (client: Client, name: string) =>
  Effect.flatMap(client.saveState(name), (future) => Effect.map(future.result, ({ path }) => path))

const stateHash = (client: Client) => Effect.flatMap(Emulator, ({ control }) => control.stateHash(client.modelId))
const ledger = (client: Client) => Effect.flatMap(Emulator, ({ control }) => control.ledger(client.modelId))

/** The hash after that many steps of a run that nothing happens to. */
const undisturbed = (steps: number) =>
  Effect.gen(function* () {
    const client = yield* create
    yield* train(client, 0, steps)
    return yield* stateHash(client)
  }).pipe(Effect.scoped, sdk(), whileTimePasses)

describe("the SDK against the emulator", () => {
  it.effect("creates a model, trains it, and the loss falls", () =>
    Effect.gen(function* () {
      const client = yield* create
      assert.strictEqual(yield* client.nextSeq, 1)
      const losses = yield* train(client, 0, 12)
      assert.isBelow(losses[9] ?? 0, (losses[0] ?? 0) * 0.8)
      assert.strictEqual((yield* ledger(client)).length, 12)
      assert.deepInclude(yield* client.info(), { modelId: client.modelId, loraRank: Option.some(4) })
    }).pipe(Effect.scoped, sdk(), whileTimePasses)
  )

  it.effect("restores with the optimizer bit for bit; without it the weights are the same and the way is another", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const service = yield* ServiceClient
      const client = yield* create
      yield* train(client, 0, 4)
      const path = yield* save(client, "four")
      const hash = yield* stateHash(client)

      const full = yield* service.createTrainingClientFromState(path, { optimizer: true })
      assert.strictEqual(yield* stateHash(full), hash)
      assert.strictEqual(yield* full.nextSeq, 2)
      const weights = yield* service.createTrainingClientFromState(path, { optimizer: false })
      assert.notStrictEqual(yield* stateHash(weights), hash)
      assert.strictEqual(yield* control.weightsHash(weights.modelId), yield* control.weightsHash(client.modelId))

      yield* train(client, 4, 6)
      yield* train(full, 4, 6)
      yield* train(weights, 4, 6)
      assert.strictEqual(yield* stateHash(full), yield* stateHash(client))
      assert.notStrictEqual(yield* control.weightsHash(weights.modelId), yield* control.weightsHash(client.modelId))
      assert.strictEqual((yield* ledger(full)).length, 6)
    }).pipe(Effect.scoped, sdk(), whileTimePasses)
  )

  it.effect("restores where the server makes the model from the checkpoint", () =>
    Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* create
      yield* train(client, 0, 2)
      const copy = yield* service.createTrainingClientFromState(yield* save(client, "two"), { optimizer: true })
      assert.strictEqual(yield* stateHash(copy), yield* stateHash(client))
      yield* train(copy, 2, 3)
      yield* train(client, 2, 3)
      assert.strictEqual(yield* stateHash(copy), yield* stateHash(client))
    }).pipe(Effect.scoped, sdk({ clientConfig: { create_model_via_load_weights: true } }), whileTimePasses)
  )

  it.effect("a batch in chunks is the batch", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const client = yield* create
      yield* train(client, 0, 3)
      const passes = (yield* control.requests).filter(({ endpoint }) => endpoint === "forward_backward")
      assert.strictEqual(passes.length, 6)
      assert.strictEqual(yield* stateHash(client), yield* undisturbed(3))
    }).pipe(
      Effect.scoped,
      sdk({ clientConfig: { fwdbwd_max_chunk_len: 1, proto_compress_fwdbwd: true } }),
      whileTimePasses
    )
  )

  it.effect("operations submitted without waiting are executed in order", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const client = yield* create
      const updates: Array<Effect.Effect<unknown, TinkerError>> = []
      for (let step = 0; step < 10; step++) {
        const pass = yield* client.prepare.forwardBackward(batches[step % batches.length] ?? [], cross)
        const update = yield* client.prepare.optimStep(adam)
        // Submitted in the wrong order on purpose; prepared in the right one.
        const fiber = yield* Effect.forkChild(update.submit)
        yield* pass.submit
        updates.push(Effect.flatMap(Fiber.join(fiber), (future) => future.result))
      }
      yield* Effect.all(updates)
      assert.strictEqual(yield* stateHash(client), yield* undisturbed(10))
      const sent = (yield* control.requests).flatMap(({ endpoint, seqId }) =>
        endpoint === "retrieve_future" || seqId === undefined || seqId === 0 ? [] : [seqId]
      )
      assert.deepStrictEqual(
        sent,
        Array.from({ length: 20 }, (_, i) => i + 1)
      )
    }).pipe(Effect.scoped, sdk(), whileTimePasses)
  )

  for (const text of [
    "lose:optim_step@3",
    "lose:forward_backward@2x2",
    "lose:create_model@1",
    "lose:create_session@1",
    "lose:retrieve_future@4x3",
    "lose:client_config@1",
    "burst:503:optim_step@2x3",
    "burst:429:forward_backward@1x2=2s",
    "burst:408:retrieve_future@3x4",
    "burst:500:retrieve_future@3x4",
    "delay:optim_step@2=100s",
    "delay:forward_backward@2=100s:paused_capacity"
  ]) {
    it.effect(`a transient fault changes nothing: ${text}`, () =>
      Effect.gen(function* () {
        const faults = yield* FaultPlan.parse(text)
        yield* Effect.gen(function* () {
          const { control } = yield* Emulator
          const client = yield* create
          yield* train(client, 0, 5)
          assert.deepStrictEqual(
            (yield* ledger(client)).map(({ step }) => step),
            [0, 1, 2, 3, 4]
          )
          assert.strictEqual(yield* stateHash(client), yield* undisturbed(5))
          assert.isAbove((yield* control.firedFaults).length, 0)
          // What was sent again was the same.
          const digests = new Map<number, string>()
          for (const { digest, endpoint, seqId } of yield* control.requests) {
            if (endpoint === "retrieve_future" || seqId === undefined || digest === undefined) continue
            assert.strictEqual(digests.get(seqId) ?? digest, digest)
            digests.set(seqId, digest)
          }
        }).pipe(Effect.scoped, sdk({ faults }), whileTimePasses)
      })
    )
  }

  for (const [text, reason] of [
    ["corrupt@2", "RunLost"],
    ["lose-session@2", "RunLost"],
    ["expire:optim_step@3", "PromiseExpired"],
    ["soft-fail:optim_step@3", "RequestFailed"],
    ["soft-fail:forward_backward:user@3", "RequestFailed"],
    ["burst:400:optim_step@3", "SubmissionRefused"]
  ] as const) {
    it.effect(`what ends a client is said by its reason: ${text} is ${reason}`, () =>
      Effect.gen(function* () {
        const faults = yield* FaultPlan.parse(text)
        yield* Effect.gen(function* () {
          const client = yield* create
          const failure = yield* Effect.forkChild(client.failure)
          const error = yield* Effect.flip(train(client, 0, 5))
          const seen = yield* Fiber.join(failure)
          assert.include([error.reason._tag, seen.reason._tag], reason)
          if (reason === "RunLost") assert.strictEqual(error.reason._tag, reason)
          assert.isAtMost((yield* ledger(client)).length, 3)
        }).pipe(Effect.scoped, sdk({ faults }), whileTimePasses)
      })
    )
  }

  it.effect("heartbeats keep the session alive for as long as the client lives", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const client = yield* create
      yield* TestClock.adjust("1 hour")
      assert.deepInclude((yield* control.models)[0], { modelId: client.modelId, status: "loaded" })
      yield* whileTimePasses(train(client, 0, 1))
    }).pipe(Effect.scoped, sdk())
  )

  it.effect("reads runs and checkpoints", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const { rest } = yield* ServiceClient
      const client = yield* create
      const path = yield* save(client, "a")
      yield* control.poison(client.modelId)
      const run = yield* rest.getTrainingRun(client.modelId)
      assert.isTrue(run.corrupted)
      const checkpoints = yield* rest.listCheckpoints(client.modelId)
      assert.deepStrictEqual(
        checkpoints.map(({ tinkerPath }) => tinkerPath),
        [path]
      )
      assert.deepInclude(yield* rest.weightsInfo(path), { baseModel: "tiny/byte-lm-16" })
      yield* rest.deleteCheckpoint(path)
      assert.deepStrictEqual(yield* rest.listCheckpoints(client.modelId), [])
    }).pipe(Effect.scoped, sdk(), whileTimePasses)
  )

  it.live("the same over a socket, with a response lost on the way", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const client = yield* create
      yield* train(client, 0, 4)
      assert.strictEqual((yield* ledger(client)).length, 4)
      assert.strictEqual((yield* control.firedFaults).length, 1)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Layer.unwrap(Effect.map(Emulator, ({ url }) => Tinker.layer({ apiKey: "tml-test", baseUrl: url }))).pipe(
          Layer.provideMerge(
            Layer.merge(
              Emulator.layer({
                faults: FaultPlan.make([FaultPlan.loseResponse({ operation: "optim_step", occurrence: 2 })])
              }),
              FetchHttpClient.layer
            )
          )
        )
      )
    )
  )
})
