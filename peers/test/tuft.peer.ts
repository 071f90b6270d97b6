/**
 * Our SDK against TuFT in its CPU test mode: the strict protocol of the SDK 0.25 with a toy behind it, keys of several users, and
 * runs that are really flagged as corrupted. The titles that begin with T and a number are the cases of the same number.
 */
import { Deferred, Effect, Fiber, Layer, Option, Ref, Stream } from "effect"
import { Emulator } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import type { Recovered } from "@tinkex/recovery/WatchedRun"
import { CheckpointPath, ModelInput, RestClient, ServiceClient, type TrainingClient } from "@tinkex/tinker"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { environment, pinned } from "../environments.ts"
import type { Cases } from "./cases.ts"
import { compare } from "./divergences.ts"
import { batch, bytes, connected, failure, save, step, steps, using } from "./kit.ts"
import { drive } from "./officialSdk.ts"
import * as Proxy from "./proxy.ts"
import * as Tuft from "./tuft.ts"

const env = environment("tuft-0.2")
const title = `TuFT ${pinned("tuft-0.2", "tuft")}`

const create = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: Tuft.model, rank: 4, seed: 7 })
)

const describeServer = env._tag === "Ready" ? describe : describe.skip
describeServer(env._tag === "Ready" ? title : `${title}: ${env.reason}`, () => {
  let server: Tuft.Tuft
  let url = ""

  beforeAll(async () => {
    if (env._tag === "Missing") return
    server = await Tuft.open(env)
    url = server.url
  }, 180_000)
  afterAll(() => server?.[Symbol.asyncDispose]())

  const post = async (path: string, body: string, headers: Record<string, string> = {}) => {
    const response = await fetch(`${url}/api/v1/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": Tuft.keys.peer, ...headers },
      body
    })
    return { status: response.status, text: await response.text() }
  }

  it("T1 T2 T3 T4 creates, trains by protobuf, saves and resumes", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* create
        const done = yield* steps(client, 0, 3)
        const pass = yield* client.forward(batch(0), { loss: "cross_entropy" })
        assert.isAbove((yield* pass.result).metrics["loss:sum"] ?? 0, 0)
        assert.strictEqual(done.at(-1)?.metrics["step:max"], 3)
        const path = yield* save(client, "three")
        assert.strictEqual(path, `tinker://${client.modelId}/weights/three`)
        const service = yield* ServiceClient
        const resumed = yield* service.createTrainingClientFromState(path, { optimizer: true })
        assert.notStrictEqual(resumed.modelId, client.modelId)
        yield* steps(resumed, 3, 5)
      })
    )
    const json = JSON.stringify({
      forward_backward_input: { data: [], loss_fn: "cross_entropy" },
      model_id: "m",
      seq_id: 1
    })
    assert.strictEqual((await post("forward_backward", json)).status, 415)
  })

  it("T8 samples from a path of three segments and from weights that are saved nowhere", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* create
        yield* steps(client, 0, 1)
        const { path } = yield* Effect.flatMap(client.saveWeightsForSampler("smp"), (future) => future.result)
        assert.isTrue(Option.isSome(CheckpointPath.parse(path)), path)
        const service = yield* ServiceClient
        for (const source of [{ modelPath: path }, { weightsOf: client }]) {
          const sampler = yield* service.createSamplingClient(source)
          const { sequences } = yield* sampler.sample(ModelInput.fromTokens(bytes("hello")), {
            maxTokens: 4,
            numSamples: 2
          })
          assert.deepStrictEqual(
            sequences.map(({ logprobs, tokens }) => [tokens.length, logprobs?.length]),
            [
              [4, 4],
              [4, 4]
            ]
          )
        }
      })
    )
  })

  it("T11 keeps the order of thirty steps in flight", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* create
        const updates = yield* Effect.forEach(
          Array.from({ length: 30 }, (_, at) => at),
          (at) =>
            Effect.andThen(
              client.forwardBackward(batch(at), { loss: "cross_entropy" }),
              client.optimStep({ learningRate: 0.01 })
            )
        )
        const counts = yield* Effect.forEach(updates, (update) => update.result)
        assert.deepStrictEqual(
          counts.map(({ metrics }) => metrics["step:max"]),
          counts.map((_, at) => (counts[0]?.metrics["step:max"] ?? 0) + at)
        )
      })
    )
  })

  it("T23 waits for a step that takes longer than the server holds a poll, and reads what it says then", async () => {
    await using proxy = await Proxy.open(url)
    await using(
      proxy.url,
      Effect.gen(function* () {
        const client = yield* create
        yield* (yield* client.forwardBackward(batch(0), { loss: "cross_entropy" })).result
        server.busy(true)
        const update = yield* Effect.ensuring(
          Effect.gen(function* () {
            const update = yield* client.optimStep({ learningRate: 0.01 })
            const [id = ""] = update.requestIds
            const began = performance.now()
            // Our own polls are cut after 45 s and begin anew, so that only somebody more patient hears what the server says.
            const held = yield* Effect.promise(() => post("retrieve_future", JSON.stringify({ request_id: id })))
            const seconds = (performance.now() - began) / 1000
            assert.isAtLeast(seconds, 110)
            assert.isAtMost(seconds, 140)
            const { queue_state, type } = JSON.parse(held.text)
            assert.deepStrictEqual([held.status, type, queue_state], [200, "try_again", "active"], held.text)
            // From here on our client hears the same words.
            yield* Effect.promise(() => proxy.answer("/retrieve_future", 3, held.text)).pipe(
              Effect.timeout("60 seconds")
            )
            return update
          }),
          Effect.sync(() => server.busy(false))
        )
        yield* update.result
        assert.strictEqual(proxy.passed.filter(({ path }) => path.endsWith("/optim_step")).length, 1)
        yield* steps(client, 1, 2)
      })
    )
  })

  it("T24 is told of a key that nobody knows, and of a run that is another's, without asking for ever", async () => {
    const list = Effect.flatMap(RestClient, (rest) => rest.listTrainingRuns())
    const unknown = await using(url, failure(list), { apiKey: "tml-nobody" })
    assert.include(["Unauthorized", "Forbidden"], unknown.error.reason._tag)
    assert.isBelow(unknown.seconds, 5)
    const modelId = await using(
      url,
      Effect.map(create, (client) => client.modelId)
    )
    const foreign = await using(url, failure(Effect.flatMap(RestClient, (rest) => rest.getTrainingRun(modelId))), {
      apiKey: Tuft.keys.other,
      deadline: "5 seconds"
    })
    assert.include(["Forbidden", "NotFound", "ServerFailure"], foreign.error.reason._tag)
    assert.isBelow(foreign.seconds, 10)
  })

  it("T25 T26 pages past the end, and takes no archive that is not on the web", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const rest = yield* RestClient
        const past = yield* rest.listTrainingRuns({ offset: 10_000 })
        assert.deepStrictEqual(past.runs, [])
        assert.isAtLeast(past.cursor.totalCount, 1)
        const client = yield* create
        const { path } = yield* Effect.flatMap(client.saveWeightsForSampler("archived"), (future) => future.result)
        const { error } = yield* failure(rest.getCheckpointArchiveUrl(path))
        assert.strictEqual(error.reason._tag, "BadResponse", error.message)
      })
    )
  })

  it("differs from the service and from other servers as it did when the table of divergences was written", async () => {
    const { known, seen } = await using(
      url,
      Effect.flatMap(create, (client) => compare("tuft", client, url, Tuft.keys.peer))
    )
    assert.deepStrictEqual(seen, known)
  })

  it("lets the official SDK compute a custom loss with the real PyTorch, as the stand-in for it does", async () => {
    if (env._tag === "Missing") return
    await Effect.runPromise(
      Effect.gen(function* () {
        const { url: emulated } = yield* Emulator
        const run = (standIn: boolean) =>
          Effect.map(
            Effect.promise(() => drive(env, emulated, ["custom_loss"], { standIn })),
            (seen) => {
              const { error, saw } = seen.get("custom_loss") ?? {}
              assert.strictEqual(error, undefined)
              return saw as Cases["custom_loss"] // the driver is ours
            }
          )
        const [real, standIn] = [yield* run(false), yield* run(true)]
        assert.deepStrictEqual(real.after, standIn.after)
        assert.strictEqual(real.metrics["loss:sum"], standIn.metrics["loss:sum"])
        assert.approximately(real.metrics["squares"] ?? 0, standIn.metrics["squares"] ?? 1, 1e-3) // adds up in another order
      }).pipe(Effect.provide(Emulator.layer()))
    )
  })

  it("T21 says of operations that a killed server forgot that nobody knows whether they were applied", async () => {
    await using proxy = await Proxy.open(url)
    const before = await using(
      proxy.url,
      Effect.gen(function* () {
        const client = yield* create
        yield* steps(client, 0, 1)
        const path = yield* save(client, "kept")
        proxy.lose("/retrieve_future", 1_000_000) // what the client does not hear before the server dies
        const update = yield* client.optimStep({ learningRate: 0.01 })
        const waiting = yield* Effect.forkChild(failure(update.result))
        yield* Effect.promise(() => server.restart({ kill: true }))
        proxy.lose("", 0)
        const { error } = yield* Fiber.join(waiting)
        assert.strictEqual(error.reason._tag, "PromiseExpired", error.message)
        return { path, modelId: client.modelId }
      }),
      { pollTolerance: "3 minutes" }
    )
    await using(
      url,
      Effect.gen(function* () {
        const rest = yield* RestClient
        const paths = (yield* rest.listCheckpoints(before.modelId)).map(({ tinkerPath }) => tinkerPath)
        assert.include(paths, before.path)
        assert.isFalse((yield* rest.getTrainingRun(before.modelId)).corrupted)
        const service = yield* ServiceClient
        const resumed = yield* service.createTrainingClientFromState(before.path, { optimizer: true })
        yield* steps(resumed, 1, 3)
      })
    )
  })

  /** Watches a run until it was brought back; what it took, and the client that goes on. */
  const brought = <E, R>(
    runId: string,
    client: TrainingClient.TrainingClient | undefined,
    whatHappens: Effect.Effect<unknown, E, R>
  ) =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const told = yield* Ref.make<ReadonlyArray<string>>([])
      const back = yield* Deferred.make<Recovered, Error>()
      yield* recovery.events.pipe(
        Stream.runForEach((event) => Ref.update(told, (before) => [...before, event._tag])),
        Effect.forkScoped
      )
      yield* recovery.watch({
        runId,
        client,
        onRecovered: (recovered) => Deferred.succeed(back, recovered),
        onFailure: ({ error }) => Deferred.fail(back, new Error(error.message))
      })
      yield* whatHappens
      const recovered = yield* Deferred.await(back).pipe(Effect.timeout("60 seconds"))
      yield* step(recovered.client, 2)
      return { path: recovered.checkpoint.path, events: yield* Ref.get(told) }
    }).pipe(Effect.provide(Recovery.layer({ enabled: true, pollInterval: "1 second", baseDelay: "1 second" })))

  it("T20 T22 ends a failed operation and a corrupted run in the same state: brought back from the newest checkpoint", async () => {
    const failed = await Effect.runPromise(
      Effect.gen(function* () {
        const client = yield* create
        yield* steps(client, 0, 2)
        const path = yield* save(client, "two")
        const poison = { loss: "cross_entropy", lossConfig: { raise_missing_input: 1 } }
        const happens = failure(Effect.flatMap(client.forwardBackward(batch(2), poison), (future) => future.result))
        const { events, path: from } = yield* brought(client.modelId, client, happens)
        assert.strictEqual(from, path)
        const old = yield* failure(step(client, 2))
        assert.strictEqual(old.error.reason._tag, "Fenced")
        return events
      }).pipe(Effect.scoped, Effect.provide(connected(url)))
    )
    const { modelId, path } = await using(
      url,
      Effect.gen(function* () {
        const client = yield* create
        yield* steps(client, 0, 2)
        return { modelId: client.modelId, path: yield* save(client, "two") }
      })
    )
    // A scale that the run was not trained with: the server flags it, and the flag stays when the scale is as it was.
    await server.restart({ loraAlphaRatio: 4 })
    await server.restart({ loraAlphaRatio: 2 })
    const corrupted = await Effect.runPromise(
      Effect.gen(function* () {
        const rest = yield* RestClient
        assert.isTrue((yield* rest.getTrainingRun(modelId)).corrupted)
        const listed = (yield* rest.listCheckpoints(modelId)).map(({ tinkerPath }) => tinkerPath)
        assert.include(listed, path)
        const { events, path: from } = yield* brought(modelId, undefined, Effect.void)
        assert.strictEqual(from, path)
        return events
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(connected(url))))
    )
    const essential = (events: ReadonlyArray<string>) => events.filter((event) => event !== "fenced")
    assert.deepStrictEqual(essential(corrupted), essential(failed))
    assert.strictEqual(corrupted.at(-1), "completed")
  }, 240_000)
})
