// Keeps many operations of one training client in flight at once, round after round, and prints the CPU time that one of them
// took this process, in microseconds: user and system time together, after as many rounds to warm up.
//
//   node … futuresClient.ts URL CONCURRENT ROUNDS
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer, References } from "effect"
import { ServiceClient, Tinker } from "@tinkex/tinker"

const [url = ""] = process.argv.slice(2)
const [concurrent = 0, rounds = 0] = process.argv.slice(3).map(Number)
if (!(concurrent > 0) || !(rounds > 0)) throw new Error("give a URL and two numbers")

const program = Effect.gen(function* () {
  const service = yield* ServiceClient
  const client = yield* service.createLoraTrainingClient({ baseModel: "tiny/byte-lm-16", rank: 8 })
  const round = Effect.gen(function* () {
    const sent = Array.from({ length: concurrent }, () => client.optimStep({ learningRate: 1e-4 }))
    const futures = yield* Effect.all(sent, { concurrency: "unbounded" })
    for (const future of futures) yield* future.result
  })
  const all = Effect.repeat(round, { times: rounds - 1 })
  yield* all
  const before = process.cpuUsage()
  yield* all
  const { system, user } = process.cpuUsage(before)
  console.log((system + user) / (concurrent * rounds))
}).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))

const Live = Tinker.layer({ apiKey: "tml-bench", baseUrl: url }).pipe(Layer.provide(NodeHttpClient.layerUndici))

await Effect.runPromise(Effect.provide(program, Live))
process.exit(0)
