// How fast failed runs are brought back, over sockets, from an emulator in its own process that computes nothing, so that all of the
// time is ours or the sockets'. For the mass of them every request is held up by 20 ms, as a network would. Beside it stands what the
// Elixir original does: one read for each run and one restore after another, of a part of the runs and scaled up.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { NodeHttpClient } from "@effect/platform-node"
import { Deferred, Effect, Fiber, Layer, Redacted, Stream } from "effect"
import { Recovery } from "@tinkex/recovery"
import { HttpClient } from "effect/http"
import { Datum, RestClient, ServiceClient, TensorData, Tinker, type TrainingClient } from "@tinkex/tinker"
import { Restore } from "@tinkex/training"
import { type Benches, type BenchResult, judge, percentile } from "./kit.ts"

const model = { baseModel: "tiny/byte-lm-16", rank: 2 }
const maxConcurrent = 32

const start = async () => {
  const server = spawn(
    process.execPath,
    [...process.execArgv, new URL("peers/poisonableEmulator.ts", import.meta.url).pathname],
    { stdio: ["pipe", "pipe", "inherit"] }
  )
  const lines = createInterface({ input: server.stdout })
  const [url] = (await once(lines, "line")) as [string]
  const poison = async () => {
    const line = once(lines, "line")
    server.stdin.write("\n")
    return Number(((await line) as [string])[0])
  }
  return { url, poison, stop: () => server.kill() }
}

const farAway = (millis: number) =>
  Layer.effect(
    HttpClient.HttpClient,
    Effect.map(HttpClient.HttpClient, (client) => HttpClient.tapRequest(client, () => Effect.sleep(millis)))
  ).pipe(Layer.provide(NodeHttpClient.layerUndici))

type Server = Awaited<ReturnType<typeof start>>

const withServer = async <A>(
  use: (server: Server) => Effect.Effect<A, unknown, Recovery | ServiceClient | RestClient>,
  pollInterval: `${number} seconds`,
  { enabled = true, latencyMillis = 0 }: { readonly enabled?: boolean; readonly latencyMillis?: number } = {}
) => {
  const server = await start()
  const live = Tinker.layer({ apiKey: Redacted.make("tml-bench"), baseUrl: server.url }).pipe(
    Layer.provide(latencyMillis === 0 ? NodeHttpClient.layerUndici : farAway(latencyMillis))
  )
  try {
    return await Effect.runPromise(
      Effect.suspend(() => use(server)).pipe(
        Effect.provide(Recovery.layer({ enabled, pollInterval, maxConcurrent, jitter: false })),
        Effect.provide(live)
      )
    )
  } finally {
    server.stop()
  }
}

/** A run with one checkpoint. */
const prepared = Effect.gen(function* () {
  const service = yield* ServiceClient
  const client = yield* service.createLoraTrainingClient(model)
  yield* (yield* client.saveState("step-1")).result
  return client
})

/** Seconds from the first sight of a failure to the last client that is handed over, and the most tries at once. */
const burst = (server: Server, runs: number) =>
  Effect.gen(function* () {
    const recovery = yield* Recovery
    const clients = yield* Effect.forEach(Array.from({ length: runs }), () => prepared, { concurrency: 32 })
    let first = Number.NaN
    let busy = 0
    let busiest = 0
    yield* recovery.events.pipe(
      Stream.runForEach(({ _tag }) =>
        Effect.sync(() => {
          if (_tag === "detected" && Number.isNaN(first)) first = performance.now()
          if (_tag === "started") busiest = Math.max(busiest, ++busy)
          if (_tag === "resumed" || _tag === "failed") busy--
        })
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    const done = yield* Deferred.make<void>()
    let left = runs
    for (const { modelId } of clients) {
      yield* recovery.watch({
        runId: modelId,
        onRecovered: () => Effect.suspend(() => (--left === 0 ? Deferred.succeed(done, undefined) : Effect.void))
      })
    }
    yield* Effect.sleep("3 seconds")
    yield* Effect.promise(server.poison)
    yield* Deferred.await(done)
    return [(performance.now() - first) / 1000, busiest] as const
  }).pipe(Effect.scoped)

/** The same by reads of single runs and one restore after another. */
const oneByOne = (server: Server, runs: number) =>
  Effect.gen(function* () {
    const rest = yield* RestClient
    const clients = yield* Effect.forEach(Array.from({ length: runs }), () => prepared, { concurrency: 32 })
    yield* Effect.promise(server.poison)
    const began = performance.now()
    for (const { modelId } of clients) {
      const { corrupted } = yield* rest.getTrainingRun(modelId)
      if (!corrupted) throw new Error(`${modelId} is not poisoned`)
      const [checkpoint] = yield* rest.listCheckpoints(modelId)
      if (checkpoint !== undefined) yield* Restore.fromCheckpoint(checkpoint.tinkerPath, { optimizer: true })
    }
    return (performance.now() - began) / 1000
  }).pipe(Effect.scoped)

const batch = [
  {
    modelInput: Datum.fromTokens([1, 2, 3]),
    lossFnInputs: { target_tokens: TensorData.int64([2, 3, 4]), weights: TensorData.float32([1, 1, 1]) }
  }
]

/** Milliseconds from the decision to recover to the acceptance of the first new step. */
const decisions = (times: number) =>
  Effect.gen(function* () {
    const recovery = yield* Recovery
    const step = Effect.fnUntraced(function* (client: TrainingClient.TrainingClient) {
      yield* client.forwardBackward(batch, { loss: "cross_entropy" })
      yield* client.optimStep({ learningRate: 0 })
    })
    const taken: Array<number> = []
    for (let n = 0; n < times; n++) {
      yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* prepared
          const began = performance.now()
          const recovered = yield* recovery.recoverRun(client.modelId)
          yield* step(recovered.client)
          taken.push(performance.now() - began)
        })
      )
    }
    return taken.slice(times / 5)
  })

/** Milliseconds from the failure of a client, as its owner sees it, to the event that tells of it. */
const inBand = (server: Server, times: number) =>
  Effect.gen(function* () {
    const recovery = yield* Recovery
    const taken: Array<number> = []
    for (let n = 0; n < times; n++) {
      yield* Effect.scoped(
        Effect.gen(function* () {
          const client = yield* prepared
          const seen = yield* Deferred.make<number>()
          yield* recovery.events.pipe(
            Stream.runForEach(({ _tag }) =>
              _tag === "detected" ? Deferred.succeed(seen, performance.now()) : Effect.void
            ),
            Effect.forkScoped({ startImmediately: true })
          )
          const failed = yield* Effect.forkChild(
            Effect.map(client.failure, () => performance.now()),
            { startImmediately: true }
          )
          yield* recovery.watch({ runId: client.modelId, client })
          yield* Effect.promise(server.poison)
          yield* Effect.ignore(client.optimStep({ learningRate: 0 }))
          taken.push(Math.max(0, (yield* Deferred.await(seen)) - (yield* Fiber.join(failed))))
        })
      )
    }
    return taken.slice(times / 5)
  })

/** Milliseconds that an event loop without work takes for one turn. */
const turns = async (times: number) => {
  const taken: Array<number> = []
  for (let n = 0; n < times; n++) {
    const began = performance.now()
    await new Promise((resolve) => setTimeout(resolve, 0))
    taken.push(performance.now() - began)
  }
  return taken
}

/** A number against what is promised of it. */
const within = (bench: string, unit: string, value: number, limit: number): BenchResult =>
  judge(bench, { unit, better: "lower" }, { name: "what is promised", target: { atMost: 1 } }, [value], [limit])

export const benches: Benches = {
  "mass-poison": async ({ quick }) => {
    const runs = quick ? 200 : 1000
    const part = quick ? 20 : 100
    const network = { latencyMillis: 20 }
    const [seconds, busiest] = await withServer((server) => burst(server, runs), "1 seconds", network)
    const peer = (await withServer((server) => oneByOne(server, part), "600 seconds", network)) * (runs / part)
    if (busiest > maxConcurrent) throw new Error(`${busiest} tries at once, where ${maxConcurrent} are allowed`)
    const name = `one restore after another, as in the original (${runs} runs)`
    return [
      within("mass-poison", "s", seconds, 30),
      judge("mass-poison", { unit: "s", better: "lower" }, { name }, [seconds], [peer])
    ]
  },
  "decision-to-step": async ({ quick }) => {
    const taken = await withServer(() => decisions(quick ? 50 : 300), "600 seconds")
    return [
      within("decision-to-step-p50", "ms", percentile(taken, 0.5), 50),
      within("decision-to-step-p99", "ms", percentile(taken, 0.99), 500)
    ]
  },
  "in-band-detection": async ({ quick }) => {
    const times = quick ? 50 : 300
    const idle = await turns(times * 5)
    const taken = await withServer((server) => inBand(server, times), "600 seconds", { enabled: false })
    const peer = { name: "one turn of an idle event loop, p99", target: { atMost: 3 } }
    const [ours, floor] = [percentile(taken, 0.99), percentile(idle, 0.99)]
    return [judge("in-band-detection-p99", { unit: "ms", better: "lower" }, peer, [ours], [floor])]
  }
}
