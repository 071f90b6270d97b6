// Everything of the SDK that is not training or sampling, over a real socket.
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  CheckpointArchive,
  Datum,
  RestClient,
  ServiceClient,
  Telemetry,
  TensorData,
  Tinker,
  type TinkerError
} from "@tinkex/tinker"
import { connect } from "@tinkex/tinker/promise"
import { DateTime, Effect, FileSystem, Layer, Option, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import { Emulator, type EmulatorOptions } from "../src/index.ts"

const baseModel = "tiny/byte-lm-16"

const over = (options: EmulatorOptions = {}, apiKey = "tml-test", telemetry = false) =>
  Effect.provide(
    Layer.unwrap(Effect.map(Emulator, ({ url }) => Tinker.layer({ apiKey, baseUrl: url, telemetry }))).pipe(
      Layer.provideMerge(Layer.mergeAll(Emulator.layer(options), FetchHttpClient.layer, NodeServices.layer))
    )
  )

const tokens = [...new TextEncoder().encode("the quick brown fox")]
const datum: Datum.Datum = {
  modelInput: Datum.fromTokens(tokens.slice(0, -1)),
  lossFnInputs: {
    target_tokens: TensorData.int64(tokens.slice(1)),
    weights: TensorData.float32(new Float32Array(tokens.length - 1).fill(1))
  }
}

/** A run with one step, a checkpoint of each kind, and what they are called. */
const trained = Effect.gen(function* () {
  const service = yield* ServiceClient
  const client = yield* service.createLoraTrainingClient({
    baseModel,
    rank: 4,
    seed: 7,
    trainUnembed: false,
    userMetadata: { team: "blue" }
  })
  yield* (yield* client.forwardBackward([datum], { loss: "cross_entropy" })).result
  yield* (yield* client.optimStep({ learningRate: 0.05 })).result
  const state = yield* Effect.flatMap(
    client.saveState("state", { userMetadata: { step: "1" } }),
    ({ result }) => result
  )
  const weights = yield* Effect.flatMap(client.saveWeightsForSampler("final"), ({ result }) => result)
  return { runId: client.modelId, state: state.path, weights: weights.path, sessionId: client.sessionId }
})

const reasonOf = <A, R>(effect: Effect.Effect<A, TinkerError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason._tag)

describe("RestClient", () => {
  it.live("reads runs, checkpoints and what they need, as they were made", () =>
    Effect.gen(function* () {
      const rest = yield* RestClient
      const { runId, state, weights } = yield* trained
      const run = yield* rest.getTrainingRun(runId)
      assert.deepStrictEqual(
        [run.baseModel, run.isLora, run.corrupted, run.loraRank, run.userMetadata],
        [baseModel, true, false, Option.some(4), Option.some({ team: "blue" })]
      )
      assert.deepStrictEqual(
        Option.map(run.lastCheckpoint, ({ tinkerPath }) => tinkerPath),
        Option.some(state)
      )
      assert.deepStrictEqual(yield* rest.getTrainingRunByPath(weights), run)
      assert.deepStrictEqual((yield* rest.listTrainingRuns()).runs, [run])
      assert.deepStrictEqual(yield* Stream.runCollect(rest.streamTrainingRuns({ corrupted: false })), [run])
      assert.deepStrictEqual(yield* Stream.runCollect(rest.streamTrainingRuns({ corrupted: true })), [])
      const checkpoints = yield* rest.listCheckpoints(runId)
      assert.deepStrictEqual(
        new Set(checkpoints.map((one) => [one.checkpointType, one.tinkerPath].join(" "))),
        new Set([`training ${state}`, `sampler ${weights}`])
      )
      assert.deepStrictEqual(yield* rest.listUserCheckpoints(), checkpoints)
      assert.deepStrictEqual(yield* Stream.runCollect(rest.streamUserCheckpoints()), checkpoints)
      assert.isTrue(Option.getOrElse((yield* rest.getCheckpoint(state)).sizeBytes, () => 0) > 0)
      assert.deepStrictEqual((yield* rest.getCheckpoint(state)).userMetadata, Option.some({ step: "1" }))
      assert.deepStrictEqual((yield* rest.getCheckpoint(weights)).userMetadata, Option.none())
      assert.deepStrictEqual(yield* rest.weightsInfo(state), {
        baseModel,
        isLora: true,
        loraRank: Option.some(4),
        trainMlp: Option.some(true),
        trainAttn: Option.some(true),
        trainUnembed: Option.some(false)
      })
      assert.strictEqual(yield* reasonOf(rest.getTrainingRun("nobody")), "NotFound")
      assert.strictEqual(yield* reasonOf(rest.getCheckpoint(`${state}x`)), "NotFound")
    }).pipe(Effect.scoped, over())
  )

  it.live("publishes, withdraws, limits, frees and deletes", () =>
    Effect.gen(function* () {
      const rest = yield* RestClient
      const { state } = yield* trained
      yield* rest.publishCheckpoint(state)
      assert.isTrue((yield* rest.getCheckpoint(state)).public)
      assert.strictEqual(yield* reasonOf(rest.publishCheckpoint(state)), "Conflict")
      yield* rest.unpublishCheckpoint(state)
      assert.strictEqual(yield* reasonOf(rest.unpublishCheckpoint(state)), "Conflict")
      yield* rest.setCheckpointTtl(state, "2 hours")
      const { expiresAt } = yield* rest.getCheckpoint(state)
      const end = Option.getOrThrow(expiresAt)
      assert.isTrue(DateTime.isDateTime(end) && Math.abs(DateTime.toEpochMillis(end) - Date.now() - 7_200_000) < 60_000)
      yield* rest.setCheckpointTtl(state, null)
      assert.isTrue(Option.isNone((yield* rest.getCheckpoint(state)).expiresAt))
      yield* rest.deleteCheckpoint(state)
      assert.strictEqual(yield* reasonOf(rest.deleteCheckpoint(state)), "NotFound")
    }).pipe(Effect.scoped, over())
  )

  it.live("reads sessions and samplers, books on a project, exports a trace", () =>
    Effect.gen(function* () {
      const rest = yield* RestClient
      const service = yield* ServiceClient
      const { runId, sessionId, weights } = yield* trained
      const sampling = yield* service.createSamplingClient({ modelPath: weights })
      assert.deepStrictEqual(yield* rest.listSessions(), [sessionId])
      assert.deepStrictEqual(yield* Stream.runCollect(rest.streamSessions()), [sessionId])
      assert.deepStrictEqual(yield* rest.getSession(sessionId), {
        trainingRunIds: [runId],
        samplerIds: [sampling.samplingSessionId]
      })
      assert.deepStrictEqual(yield* rest.getSampler(sampling.samplingSessionId), {
        samplerId: sampling.samplingSessionId,
        baseModel,
        modelPath: Option.some(weights)
      })
      yield* rest.assignSessionProject(sessionId, "p1")
      assert.strictEqual((yield* rest.listTrainingRuns({ projectId: "p1" })).runs.length, 1)
      assert.strictEqual((yield* rest.listTrainingRuns({ projectId: "p2" })).runs.length, 0)
      assert.isTrue((yield* rest.exportSessionTrace(sessionId)).toString().includes("redacted"))
    }).pipe(Effect.scoped, over({ buildTime: 0 }))
  )

  it.live("reads the bill, the audit log, the capabilities and the health", () =>
    Effect.gen(function* () {
      const rest = yield* RestClient
      const { state } = yield* trained
      yield* rest.deleteCheckpoint(state)
      const hour = Math.floor(Date.now() / 3_600_000) * 3_600_000
      const usage = yield* rest.getBillingUsage({ from: hour, until: hour + 3_600_000 })
      assert.isTrue(usage.events.some(({ info }) => info._tag === "training" && info.tokenCount > 0))
      assert.isTrue(usage.events.every(({ info }) => info._tag !== "other"))
      const log = yield* rest.getAuditLog({ eventType: "checkpoints" })
      assert.isTrue(log.some(({ tinkerPath }) => Option.contains(tinkerPath, state)))
      const models = yield* rest.getServerCapabilities()
      assert.isTrue(models.some(({ modelName }) => Option.contains(modelName, baseModel)))
      yield* rest.health()
    }).pipe(Effect.scoped, over())
  )

  it.live("copies checkpoints and says what they take up, where the service knows how", () =>
    Effect.gen(function* () {
      const rest = yield* RestClient
      const service = yield* ServiceClient
      const { state, weights } = yield* trained
      for (const path of [state, weights]) {
        const copy = yield* service.copyWeights(path, { ttl: "1 hour" })
        assert.notStrictEqual(copy, path)
        const [original, found] = [yield* rest.getCheckpoint(path), yield* rest.getCheckpoint(copy)]
        assert.deepStrictEqual([found.checkpointId, found.sizeBytes], [original.checkpointId, original.sizeBytes])
        assert.isTrue(Option.isSome(found.expiresAt))
      }
      const [usage] = yield* rest.getStorageUsage()
      assert.strictEqual(usage?.checkpoints, 4)
      assert.isAbove(usage?.bytes ?? 0, 0)
    }).pipe(Effect.scoped, over({ api: "0.38" }))
  )

  it.live("finishes its session, where the service knows how", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel, rank: 4 })
      assert.isTrue(yield* service.finishSession({ detail: "all done" }))
      assert.strictEqual((yield* client.failure).reason._tag, "SessionLost")
      // What was trained is freed at once, not only when heartbeats have been missed.
      assert.deepInclude((yield* control.models)[0], { modelId: client.modelId, status: "unloaded" })
      const next = yield* service.createLoraTrainingClient({ baseModel, rank: 4 })
      assert.notStrictEqual(next.sessionId, client.sessionId)
      yield* (yield* next.optimStep({ learningRate: 0.1 })).result
    }).pipe(Effect.scoped, over({ api: "0.38" }))
  )

  it.live("says of a service of 0.25 that it does not know them", () =>
    Effect.gen(function* () {
      const service = yield* ServiceClient
      assert.strictEqual(yield* reasonOf(service.copyWeights("tinker://r/weights/a")), "NotFound")
      assert.strictEqual(yield* reasonOf(service.rest.getStorageUsage()), "NotFound")
      yield* service.session
      assert.isFalse(yield* service.finishSession())
    }).pipe(over({ api: "0.25" }))
  )

  it.live("exchanges its key for a token, and says whose it is", () =>
    Effect.gen(function* () {
      const rest = yield* RestClient
      assert.deepStrictEqual(yield* rest.whoami(), {
        userUrn: "tml:user:ann",
        email: Option.some("ann@emulator.invalid")
      })
      assert.deepStrictEqual((yield* rest.listTrainingRuns()).runs, [])
      const { control } = yield* Emulator
      const statuses = (yield* control.requests).map(({ endpoint, status }) => `${endpoint} ${status}`)
      assert.isFalse(
        statuses.some((line) => line.endsWith("401")),
        statuses.join("\n")
      )
    }).pipe(over({ apiKeys: { "tml-ann": "ann" }, tokenExchange: true }, "tml-ann"))
  )

  it.live("brings an archive into a folder, whichever way its address comes, after the wait for it", () =>
    Effect.gen(function* () {
      const { state, weights } = yield* trained
      const fs = yield* FileSystem.FileSystem
      const parent = yield* fs.makeTempDirectoryScoped({ prefix: "zz-sdk-rest-" })
      for (const [index, path] of [state, weights].entries()) {
        const contents = yield* CheckpointArchive.download(path, `${parent}/${index}`)
        assert.strictEqual(contents.rank, 4)
        const [name, tensor] = [...contents.tensors][0] ?? []
        assert.match(name ?? "", /^base_model\.model\..*lora_A\.weight$/)
        assert.strictEqual(tensor?.shape[0], 4)
      }
    }).pipe(Effect.scoped, over({ archiveReply: "json" }))
  )

  it.live("tells how a session goes, where it is asked to", () =>
    Effect.gen(function* () {
      const telemetry = yield* Telemetry
      yield* (yield* ServiceClient).session
      yield* telemetry.event("mine", { data: { n: 1 } })
      assert.isTrue(yield* telemetry.flush("5 seconds"))
      const { control } = yield* Emulator
      const records = yield* control.telemetry
      assert.include(JSON.stringify(records), "SESSION_START")
      assert.include(JSON.stringify(records), "mine")
    }).pipe(over({}, "tml-test", true))
  )
})

describe("the SDK without Effect", () => {
  it.live("trains, samples, lists and downloads", () =>
    Effect.gen(function* () {
      const { url } = yield* Emulator
      yield* Effect.promise(async () => {
        await using tinker = await connect({ apiKey: "tml-test", baseUrl: url, http: FetchHttpClient.layer })
        const client = await tinker.createLoraTrainingClient({ baseModel, rank: 4 })
        const pass = client.forwardBackward([datum], { loss: "cross_entropy" })
        const update = client.optimStep({ learningRate: 0.05 })
        assert.isAbove((await pass).metrics["loss:sum"] ?? 0, 0)
        await update
        const { path } = await client.saveWeightsForSampler("final")
        const sampler = await tinker.createSamplingClient({ modelPath: path })
        const drawn = await sampler.sample(datum.modelInput, { maxTokens: 3, seed: 1 })
        assert.isAtMost(drawn.sequences[0]?.tokens.length ?? 9, 3)
        const runs = []
        for await (const run of tinker.rest.streamTrainingRuns()) runs.push(run.trainingRunId)
        assert.deepStrictEqual(runs, [client.modelId])
        assert.strictEqual((await tinker.rest.getCheckpoint(path)).checkpointType, "sampler")
      })
    }).pipe(Effect.provide(Emulator.layer()))
  )
})
