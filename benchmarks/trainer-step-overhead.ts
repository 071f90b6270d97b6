// What a step costs beyond the requests themselves: a run of `Trainer` with its journal on disk, its checkpoints verified
// and its recovery on guard, against a bare loop over the SDK that keeps the same number of steps in flight. The server
// computes nothing and has a process of its own, so nothing hides the difference.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { NodeHttpClient, NodeServices } from "@effect/platform-node"
import { Effect, Exit, Layer, Redacted, Scope } from "effect"
import { Recovery } from "@tinkex/recovery"
import { Datum, ServiceClient, TensorData, Tinker, type TrainingClient } from "@tinkex/tinker"
import { CheckpointPolicy, Dataset, Journal, Trainer } from "@tinkex/training"
import { type Benches, judge } from "./kit.ts"
import { perSecond } from "./sampling.ts"

const pipelining = 2
const model = { baseModel: "tiny/byte-lm-16", rank: 8 }
const learningRate = 1e-3

const batch = Array.from({ length: 8 }, (_, row): Datum.Datum => {
  const tokens = Int32Array.from({ length: 128 }, (_, i) => (i * 7 + row) % 256)
  return {
    modelInput: Datum.fromTokens(tokens),
    lossFnInputs: {
      target_tokens: TensorData.int64(tokens),
      weights: TensorData.float32(new Float32Array(128).fill(1))
    }
  }
})

type Pair = readonly [
  Effect.Success<ReturnType<TrainingClient.TrainingClient["forwardBackward"]>>,
  Effect.Success<ReturnType<TrainingClient.TrainingClient["optimStep"]>>
]

const bare = (steps: number) =>
  Effect.gen(function* () {
    const service = yield* ServiceClient
    const client = yield* service.createLoraTrainingClient(model)
    const started = performance.now()
    const inflight: Array<Pair> = []
    for (let step = 0; step < steps || inflight.length > 0;) {
      if (step < steps && inflight.length <= pipelining) {
        const pass = yield* client.forwardBackward(batch, { loss: "cross_entropy" })
        inflight.push([pass, yield* client.optimStep({ learningRate })])
        step++
        continue
      }
      const [pass, update] = inflight.shift() as Pair // the loop's condition: something is in flight
      yield* pass.result
      yield* update.result
    }
    return perSecond(steps, performance.now() - started)
  }).pipe(Effect.scoped)

const trained = (steps: number, name: string) =>
  Effect.gen(function* () {
    let started = 0
    let ended = 0
    yield* Trainer.fineTune({
      name,
      model,
      learningRate,
      data: Dataset.make({ totalSteps: steps, digest: "constant", batch: () => Effect.succeed(batch) }),
      checkpoints: CheckpointPolicy.everySteps(100),
      pipelining,
      rehearse: false,
      onEvent: (event) =>
        Effect.sync(() => {
          if (event._tag === "AttemptStarted") started = performance.now()
          if (event._tag === "StepCommitted") ended = performance.now()
        })
    })
    return perSecond(steps, ended - started)
  })

/** Both sides share one process, for they share all that takes long to warm up: client, server and connections. */
const measure = async (rounds: number, steps: number) => {
  const directory = mkdtempSync(join(tmpdir(), "tinkex-bench-"))
  const server = spawn(
    process.execPath,
    [...process.execArgv, new URL("peers/emulator.ts", import.meta.url).pathname],
    { stdio: ["pipe", "pipe", "inherit"] }
  )
  const [line] = await once(server.stdout, "data")
  const url = String(line).trim()
  const program = Effect.gen(function* () {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(
      Recovery.layer({ enabled: true }).pipe(
        Layer.provideMerge(
          Tinker.layer({ apiKey: Redacted.make("tml-bench"), baseUrl: url }).pipe(
            Layer.provide(NodeHttpClient.layerUndici)
          )
        ),
        Layer.provideMerge(Journal.layerFileSystem(directory).pipe(Layer.provide(NodeServices.layer)))
      ),
      scope
    )
    const ours: Array<number> = []
    const peer: Array<number> = []
    yield* Effect.gen(function* () {
      // Hundreds of steps pass before the compiler has settled; a run has thousands.
      yield* bare(steps)
      yield* trained(steps, "warm-up")
      for (let round = 0; round < rounds; round++) {
        peer.push(yield* bare(steps))
        ours.push(yield* trained(steps, `round-${round}`))
      }
    }).pipe(Effect.provide(context), Effect.ensuring(Scope.close(scope, Exit.void)))
    return { ours, peer }
  })
  try {
    return await Effect.runPromise(program)
  } finally {
    server.kill()
    rmSync(directory, { recursive: true, force: true })
  }
}

export const benches: Benches = {
  "trainer-step-overhead": async ({ quick }) => {
    const { ours, peer } = await (quick ? measure(3, 300) : measure(7, 1000))
    const scale = { unit: "steps/s", better: "higher" } as const
    return [judge("trainer-step-overhead", scale, { name: "bare SDK loop" }, ours, peer)]
  }
}
