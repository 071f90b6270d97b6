/**
 * Our SDK against SkyRL's server: a training service that shares no code with this project, with real LoRA training behind it.
 * The titles that begin with S and a number are the cases of the same number.
 */
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { Effect, Fiber, Layer, Option, Result } from "effect"
import { NodeServices } from "@effect/platform-node"
import { Recovery } from "@tinkex/recovery"
import { ModelInput, RestClient, ServiceClient, Tinker, type TrainingClient } from "@tinkex/tinker"
import * as CheckpointArchive from "@tinkex/tinker/CheckpointArchive"
import * as Endpoint from "@tinkex/tinker/wire/Endpoint"
import * as Protobuf from "@tinkex/tinker/wire/Protobuf"
import { CheckpointPolicy, Dataset, Journal, Trainer } from "@tinkex/training"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { environment, pinned } from "../environments.ts"
import { compare } from "./divergences.ts"
import { batch, bytes, connected, failure, logprobsOf, oneSocket, save, step, steps, using, weighted } from "./kit.ts"
import * as Proxy from "./proxy.ts"
import { until } from "./process.ts"
import * as SkyRl from "./skyrl.ts"

const env = environment("skyrl-0.4")
const title = `SkyRL ${pinned("skyrl-0.4", "skyrl")}`

const texts = ["hello world", "quick brown"]

/** Names are taken for ever on this server. */
let names = 0
const fresh = (name: string) => `${name}-${++names}`

const create = (seed = 7) =>
  Effect.flatMap(ServiceClient, (service) =>
    service.createLoraTrainingClient({ baseModel: SkyRl.model, rank: 4, seed })
  )

/** A model whose gradients are all applied, given back: the slots are few. */
const lent = Effect.acquireRelease(create(), (client) => Effect.ignore(client.unload()))

const restored = (path: string, optimizer = true) =>
  Effect.acquireRelease(
    Effect.flatMap(ServiceClient, (service) => service.createTrainingClientFromState(path, { optimizer })),
    (client) => Effect.ignore(client.unload())
  )

const post = async (url: string, path: string, body: unknown) => {
  const response = await fetch(`${url}/api/v1/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": "tml-peer" },
    body: JSON.stringify(body)
  })
  const text = await response.text()
  // What the server says is what these tests look at; one that reads what is not there fails by its value.
  const json = text.startsWith("{") ? (JSON.parse(text) as Readonly<Record<string, unknown>>) : {}
  return { status: response.status, json, text }
}

const describeServer = env._tag === "Ready" ? describe : describe.skip
describeServer(env._tag === "Ready" ? title : `${title}: ${env.reason}`, () => {
  let server: SkyRl.SkyRl
  let url = ""

  beforeAll(async () => {
    if (env._tag === "Missing") return
    server = await SkyRl.open(env, { sessionTimeout: 15 })
    url = server.url
    // The server compiles for each shape when it first meets it; that is none of the tests' time.
    const warmUp = Effect.gen(function* () {
      const client = yield* lent
      yield* steps(client, 0, 2)
      yield* (yield* client.forward(batch(0), { loss: "cross_entropy" })).result
      yield* step(yield* restored(yield* save(client, fresh("warm"))), 2)
    })
    await using(url, warmUp, { pollTolerance: "3 minutes" })
  }, 240_000)
  afterAll(() => server?.[Symbol.asyncDispose]())

  it("S1 shakes hands with a server that has no dynamic config", async () => {
    await using(
      url,
      Effect.flatMap(lent, (client) => client.info())
    )
    assert.strictEqual((await post(url, "client/dynamic_config", { sdk_version: "0" })).status, 404)
  })

  it("S2 S3 S4 resumes with the optimizer to the bit, by protobuf both ways, without any metrics", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* lent
        yield* steps(client, 0, 4)
        const path = yield* save(client, fresh("four"))
        const through = yield* steps(client, 4, 8)
        const resumed = yield* steps(yield* restored(path), 4, 8)
        assert.deepStrictEqual(resumed, through)
        const bare = yield* steps(yield* restored(path, false), 4, 8)
        assert.deepStrictEqual(bare[0]?.logprobs, through[0]?.logprobs)
        assert.notDeepEqual(bare.at(-1), through.at(-1))
        const pass = yield* client.forward(batch(0), { loss: "cross_entropy" })
        assert.deepStrictEqual((yield* pass.result).metrics, {})
      })
    )
  })

  it("S4 reads the numbers that the official Python SDK reads on a model like it", async () => {
    const ours = await using(
      url,
      Effect.gen(function* () {
        const client = yield* lent
        return logprobsOf(yield* (yield* client.forward(texts.map(weighted), { loss: "cross_entropy" })).result)
      })
    )
    const program = join(import.meta.dirname, "..", "python", "one_pass.py")
    const args = [program, url, SkyRl.model, "4", "7", ...texts]
    const python = env._tag === "Ready" ? env.python : ""
    const settings = {
      env: { ...process.env, TINKER_TELEMETRY: "0" },
      timeout: 150_000,
      killSignal: "SIGKILL"
    } as const
    const { stdout } = await promisify(execFile)(python, args, settings)
    const [printed = "", modelId] = [stdout.slice(0, stdout.lastIndexOf("]") + 1), stdout.trim().split(" ").at(-1)]
    await post(url, "unload_model", { model_id: modelId, type: "unload_model" })
    assert.deepStrictEqual(JSON.parse(printed), ours)
  })

  it("S5 S12 sends compressed batches where it is told to, and none before the model is there", async () => {
    {
      await using proxy = await Proxy.open(url)
      proxy.add("/client/config", { proto_compress_fwdbwd: true })
      await using(
        proxy.url,
        Effect.flatMap(lent, (client) => steps(client, 0, 2))
      )
      const passes = proxy.passed.filter(({ path }) => path.endsWith("/forward_backward"))
      assert.deepStrictEqual(
        passes.map(({ headers, status }) => [headers["content-encoding"], headers["content-type"], status]),
        [0, 1].map(() => ["zstd", "application/x-protobuf", 200])
      )
      const [created, passed] = ["/retrieve_future", "/forward_backward"].map((end) =>
        proxy.passed.findIndex(({ path, status }) => path.endsWith(end) && status === 200)
      )
      assert.isBelow(created ?? 0, passed ?? 0)
      const results = proxy.passed.filter(({ answerType }) => answerType.includes("x-protobuf"))
      assert.strictEqual(results.length, 2)
    }
  })

  it("S6 never steps twice where an answer was lost", async () => {
    const calm = await using(
      url,
      Effect.flatMap(lent, (client) => steps(client, 0, 4))
    )
    for (const path of ["/optim_step", "/forward_backward", "/retrieve_future"]) {
      {
        await using proxy = await Proxy.open(url)
        const stormy = await using(
          proxy.url,
          Effect.gen(function* () {
            const client = yield* lent
            const before = yield* step(client, 0)
            proxy.lose(path, 1)
            return [before, ...(yield* steps(client, 1, 4))]
          })
        )
        assert.strictEqual(proxy.passed.filter(({ lost }) => lost).length, 1, path)
        assert.deepStrictEqual(stormy, calm, path)
      }
    }
  })

  it("S7 gives up at once where a number was used for another request", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* lent
        yield* steps(client, 0, 1)
        const { sessionId, modelId } = client
        const second = yield* Effect.flatMap(ServiceClient, (service) =>
          service.attachTrainingClient({ modelId, sessionId, nextSeq: 1 })
        )
        const { error, seconds } = yield* failure(
          Effect.flatMap(second.forwardBackward(batch(3), { loss: "cross_entropy" }), (future) => future.result)
        )
        assert.include(["Conflict", "SubmissionRefused"], error.reason._tag)
        assert.isBelow(seconds, 10)
      })
    )
  })

  it("S8 samples from a path of two segments, and reads the one of three that the list has", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* lent
        yield* steps(client, 0, 1)
        const name = fresh("sampler")
        const { path } = yield* Effect.flatMap(client.saveWeightsForSampler(name), (future) => future.result)
        assert.strictEqual(path, `tinker://${client.modelId}/${name}`)
        const listed = yield* Effect.flatMap(RestClient, (rest) => rest.listCheckpoints(client.modelId))
        assert.include(
          listed.map(({ tinkerPath }) => tinkerPath),
          `tinker://${client.modelId}/sampler_weights/${name}`
        )
        const service = yield* ServiceClient
        const prompt = ModelInput.fromTokens(bytes("hello"))
        const settings = { maxTokens: 4, temperature: 0, seed: 1, promptLogprobs: true }
        const named = yield* (yield* service.createSamplingClient({ modelPath: path })).sample(prompt, settings)
        const live = yield* (yield* service.createSamplingClient({ weightsOf: client })).sample(prompt, settings)
        assert.strictEqual(named.sequences[0]?.tokens.length, 4)
        assert.deepStrictEqual(named, live)
        const pass = yield* client.forward([...batch(0)], { loss: "cross_entropy" })
        const own = logprobsOf(yield* pass.result)[0] ?? []
        // the same model, the same prompt, another way through it
        for (const [at, value] of (named.promptLogprobs ?? []).entries()) {
          if (value !== undefined) assert.approximately(value, own[at - 1] ?? Number.NaN, 1e-4)
        }
      }),
      { pollTolerance: "3 minutes" }
    )
  })

  it("S9 S25 reads times without a zone as UTC, and pages past the end", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const rest = yield* RestClient
        const client = yield* lent
        const path = yield* save(client, fresh("now"))
        const saved = (yield* rest.listCheckpoints(client.modelId)).find(({ tinkerPath }) => tinkerPath === path)
        const time = saved?.time
        assert.isTrue(time !== undefined && "epochMilliseconds" in time, "the time was not read")
        if (time === undefined || !("epochMilliseconds" in time)) return
        assert.approximately(time.epochMilliseconds, Date.now(), 120_000)
        const past = yield* rest.listTrainingRuns({ offset: 10_000 })
        assert.deepStrictEqual(past.runs, [])
      })
    )
  })

  it("S10 keeps the order of thirty steps in flight", async () => {
    const awaited = await using(
      url,
      Effect.flatMap(lent, (client) => steps(client, 0, 30))
    )
    const inFlight = await using(
      url,
      Effect.gen(function* () {
        const client = yield* lent
        const sent: Array<readonly [TrainingClient.ForwardBackwardOutput, Readonly<Record<string, number>>]> = []
        const futures = yield* Effect.forEach(
          Array.from({ length: 30 }, (_, at) => at),
          (at) =>
            Effect.gen(function* () {
              const pass = yield* client.forwardBackward(batch(at), { loss: "cross_entropy" })
              return [pass, yield* client.optimStep({ learningRate: 0.01 })] as const
            })
        )
        for (const [pass, update] of futures) sent.push([yield* pass.result, (yield* update.result).metrics])
        return sent.map(([pass, metrics]) => ({ logprobs: logprobsOf(pass), metrics }))
      })
    )
    assert.deepStrictEqual(inFlight, awaited)
  })

  it("S13 keeps a model alive by heartbeats; without them it is lost, and the client says so", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* lent
        yield* Effect.sleep("20 seconds")
        yield* step(client, 0)
      })
    )
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* create()
        yield* step(client, 0)
        const path = yield* save(client, fresh("before"))
        const one = yield* Effect.promise(() => post(url, "session_heartbeat", { session_id: client.sessionId }))
        assert.strictEqual(one.status, 200)
        yield* Effect.sleep("22 seconds")
        const { error, seconds } = yield* failure(step(client, 1))
        assert.strictEqual(error.reason._tag, "RunLost", error.message)
        assert.isBelow(seconds, 15)
        yield* step(yield* restored(path), 1)
      }),
      { heartbeat: "1 hour" }
    )
  })

  it("S16 hands numbers that are none on as such", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const client = yield* lent
        yield* (yield* client.forwardBackward(batch(0), { loss: "cross_entropy" })).result
        yield* (yield* client.optimStep({ learningRate: 1e38 })).result
        const pass = yield* client.forwardBackward(batch(0), { loss: "cross_entropy" })
        assert.isTrue(
          logprobsOf(yield* pass.result)
            .flat()
            .every(Number.isNaN)
        )
        yield* (yield* client.optimStep({ learningRate: 0 })).result
      })
    )
  })

  it("S17 goes on over another connection where the server drops one behind an error of its own", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const { request } = yield* Tinker
        const rest = yield* RestClient
        const client = yield* lent
        /** A pass without targets, which no check catches: ours would, the server answers 500 and hangs up. */
        let seqId = 1000
        const breaking = Effect.suspend(() =>
          request(Endpoint.forwardBackward, {
            operation: "break",
            body: Protobuf.encodeForwardBackwardRequest({
              modelId: client.modelId,
              seqId: seqId++,
              data: [{ modelInput: ModelInput.fromTokens(bytes("hello")), lossFnInputs: {} }],
              lossFn: "cross_entropy",
              lossFnConfig: {},
              forwardOnly: true
            }),
            contentType: "application/x-protobuf",
            retries: "none",
            decode: () => Effect.void
          })
        )
        const once = request(Endpoint.trainingRun(client.modelId), {
          operation: "look once",
          retries: "none",
          decode: () => Effect.void
        })
        const together = { concurrency: "unbounded" } as const
        let dropped = 0
        for (let i = 0; i < 5; i++) {
          const [{ error }, next] = yield* Effect.all([failure(breaking), Effect.result(once)], together)
          assert.strictEqual(error.reason._tag === "ServerFailure" && error.reason.status, 500, error.message)
          if (Result.isFailure(next)) {
            assert.strictEqual(next.failure.reason._tag, "Transport", next.failure.message)
            dropped++
          }
          const [, run] = yield* Effect.all([failure(breaking), rest.getTrainingRun(client.modelId)], together)
          assert.strictEqual(run.trainingRunId, client.modelId)
        }
        assert.isAbove(dropped, 0, "the server keeps its connections now, so this shows nothing any more")
        yield* step(client, 0)
      }),
      {},
      oneSocket
    )
  })

  it("S18 cuts a poll that hangs and asks again, while the server is paused", async () => {
    {
      await using proxy = await Proxy.open(url)
      await using(
        proxy.url,
        Effect.gen(function* () {
          const client = yield* lent
          yield* step(client, 0)
          const engine = server.enginePid()
          process.kill(engine, "SIGSTOP")
          const waiting = yield* Effect.forkChild(step(client, 1))
          yield* Effect.sleep("50 seconds")
          process.kill(engine, "SIGCONT")
          yield* Fiber.join(waiting)
        })
      )
    }
  })

  it("S19 samples again where a neighbour's bad request failed its whole batch", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const service = yield* ServiceClient
        const client = yield* lent
        yield* steps(client, 0, 1)
        const sampler = yield* service.createSamplingClient({ weightsOf: client })
        const prompt = ModelInput.fromTokens(bytes("hello"))
        const draw = sampler.sample(prompt, { maxTokens: 4, temperature: 0, seed: 1 })
        const alone = yield* draw
        const engine = server.enginePid()
        process.kill(engine, "SIGSTOP") // so that both are in one batch
        const ours = yield* Effect.forkChild(Effect.result(draw))
        yield* Effect.sleep("1 second")
        const bad = yield* Effect.promise(() =>
          post(url, "asample", {
            sampling_session_id: sampler.samplingSessionId,
            seq_id: 700,
            num_samples: 1,
            prompt: { chunks: [{ type: "encoded_text", tokens: bytes("hello") }] },
            sampling_params: { max_tokens: 4, seed: 2 ** 40 },
            type: "sample"
          })
        )
        process.kill(engine, "SIGCONT")
        assert.strictEqual(bad.status, 200, bad.text)
        const first = yield* Fiber.join(ours)
        if (Result.isFailure(first)) assert.include(["BadRequest", "RequestFailed"], first.failure.reason._tag)
        assert.deepStrictEqual(yield* draw, alone)
      }),
      { pollTolerance: "3 minutes" }
    )
  })

  it("S26 follows the redirect to an archive, and unpacks what the server packed", async () => {
    await using proxy = await Proxy.open(url)
    proxy.redirect("/sampler_weights/", "/") // this server knows its archives by their bare names
    const folder = mkdtempSync(join(tmpdir(), "tinkex-peers-"))
    try {
      await using(
        proxy.url,
        Effect.gen(function* () {
          const client = yield* lent
          yield* steps(client, 0, 1)
          const name = fresh("archived")
          yield* Effect.flatMap(client.saveWeightsForSampler(name), (future) => future.result)
          const path = `tinker://${client.modelId}/sampler_weights/${name}`
          const { expires } = yield* Effect.flatMap(RestClient, (rest) => rest.getCheckpointArchiveUrl(path))
          assert.isAbove(expires.epochMilliseconds, Date.now())
          yield* CheckpointArchive.downloadFile(path, join(folder, "archive.tar.gz"))
          const files = yield* CheckpointArchive.unpack(join(folder, "archive.tar.gz"), join(folder, "adapter"))
          assert.sameMembers([...files], ["adapter_config.json", "adapter_model.safetensors"])
          // this server marks nothing as complete, and what is not marked is not trusted
          const { error } = yield* failure(CheckpointArchive.inspect(join(folder, "adapter")))
          assert.strictEqual(error.reason._tag, "BadArchive")
        }).pipe(Effect.provide(NodeServices.layer))
      )
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  it("S27 deletes a checkpoint, which then cannot be loaded", async () => {
    await using(
      url,
      Effect.gen(function* () {
        const rest = yield* RestClient
        const client = yield* lent
        const path = yield* save(client, fresh("gone"))
        yield* rest.deleteCheckpoint(path)
        const listed = yield* rest.listCheckpoints(client.modelId)
        assert.notInclude(
          listed.map(({ tinkerPath }) => tinkerPath),
          path
        )
        const { error } = yield* failure(restored(path))
        assert.strictEqual(error.reason._tag, "NotFound", error.message)
      })
    )
  })

  it("differs from the service and from other servers as it did when the table of divergences was written", async () => {
    const { known, seen } = await using(
      url,
      Effect.flatMap(lent, (client) => compare("skyrl", client, url, "tml-peer"))
    )
    assert.deepStrictEqual(seen, known)
  })

  it("recovers a run whose model was lost, to the numbers of a run that nothing happened to", async () => {
    const train = (name: string, loseAt: number | undefined) =>
      Effect.gen(function* () {
        let attempt = ""
        let lost = false
        const report = yield* Trainer.fineTune({
          name: fresh(name),
          model: { baseModel: SkyRl.model, rank: 4, seed: 11 },
          learningRate: 0.01,
          checkpoints: CheckpointPolicy.everySteps(3, { keepLast: 4 }),
          pipelining: 0,
          data: Dataset.make({ totalSteps: 10, digest: "words", batch: (k) => Effect.succeed(batch(k)) }),
          onEvent: (event) =>
            Effect.promise(async () => {
              if (event._tag === "AttemptStarted") attempt = event.trainingRunId
              if (event._tag !== "StepCommitted" || event.step !== loseAt || lost) return
              lost = true
              const { json, status } = await post(url, "unload_model", { model_id: attempt, type: "unload_model" })
              assert.strictEqual(status, 200)
              await post(url, "retrieve_future", { request_id: json["request_id"] })
            })
        })
        const final = yield* restored(report.path)
        const pass = yield* final.forward(batch(0), { loss: "cross_entropy" })
        return { report, logprobs: logprobsOf(yield* pass.result), lost }
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Recovery.layer({ enabled: true }).pipe(
            Layer.provideMerge(connected(url)),
            Layer.provideMerge(Layer.fresh(Journal.layerMemory))
          )
        ),
        Effect.provide(NodeServices.layer)
      )
    const calm = await Effect.runPromise(train("calm", undefined))
    const stormy = await Effect.runPromise(train("stormy", 5))
    assert.deepStrictEqual([calm.lost, calm.report.attempts], [false, 1])
    assert.deepStrictEqual([stormy.lost, stormy.report.attempts], [true, 2])
    assert.strictEqual(stormy.report.incidents.length, 1)
    assert.deepStrictEqual(stormy.logprobs, calm.logprobs)
  }, 300_000)

  it("S14 S15 says of a killed engine that the server is lost, of the restarted one that the run is", async () => {
    const lost = await using(
      url,
      Effect.gen(function* () {
        const client = yield* create()
        yield* steps(client, 0, 2)
        const path = yield* save(client, fresh("last"))
        const through = yield* steps(client, 2, 4)
        yield* client.forwardBackward(batch(4), { loss: "cross_entropy" })
        // a save that the engine does not come to: its name is taken for ever
        process.kill(server.enginePid(), "SIGSTOP")
        const stuck = fresh("stuck")
        yield* client.saveState(stuck)
        process.kill(server.enginePid(), "SIGKILL")
        const down = yield* failure(step(client, 5))
        assert.include(["Transport", "Timeout", "ServerFailure", "SubmissionRefused"], down.error.reason._tag)
        assert.isBelow(down.seconds, 60)
        const { modelId, sessionId } = client
        return { path, through, stuck, modelId, sessionId, nextSeq: yield* client.nextSeq }
      }),
      { deadline: "15 seconds", pollTolerance: "15 seconds" }
    )
    await until("SkyRL has ended", 60, () => !server.api().running())
    await server.restart()
    await using(
      url,
      Effect.gen(function* () {
        const service = yield* ServiceClient
        const rest = yield* RestClient
        yield* steps(yield* lent, 0, 1) // the engine needs a minute until it works; that is not the client's time
        const again = yield* service.attachTrainingClient(lost)
        const { error, seconds } = yield* failure(step(again, 2))
        assert.strictEqual(error.reason._tag, "RunLost", error.message)
        assert.isBelow(seconds, 30)
        const stuck = `tinker://${lost.modelId}/weights/${lost.stuck}`
        const pending = yield* failure(restored(stuck))
        assert.isBelow(pending.seconds, 60)
        const newest = (yield* rest.listCheckpoints(lost.modelId)).map(({ tinkerPath }) => tinkerPath)
        assert.include(newest, lost.path)
        assert.notInclude(newest, stuck)
        const plan = yield* Effect.flatMap(Recovery, (recovery) => recovery.plan(lost.modelId)).pipe(
          Effect.provide(Recovery.layer({}))
        )
        assert.strictEqual(Option.getOrUndefined(plan.chosen)?.path, lost.path)
        const resumed = yield* restored(lost.path)
        assert.deepStrictEqual(yield* steps(resumed, 2, 4), lost.through)
        assert.isTrue(Option.isSome((yield* rest.weightsInfo(lost.path)).loraRank))
      }),
      { deadline: "20 seconds", pollTolerance: "2 minutes" }
    )
  }, 300_000)
})
