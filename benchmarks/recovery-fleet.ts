// What it costs to guard a fleet: 100,000 healthy runs of a service in its own process, over sockets, swept every thirty
// seconds. Beside it stands what the Elixir original does: one read for each run, one after another (read for a part of the
// fleet and scaled up, for all of it would take minutes).
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer, Redacted } from "effect"
import { Recovery } from "@tinkex/recovery"
import { RestClient, Tinker } from "@tinkex/tinker"
import { type Benches, judge } from "./kit.ts"
import { numbersOf } from "./sampling.ts"

const idOf = (n: number) => `5f0c9e1a-0000-4000-8000-${String(n).padStart(12, "0")}:train:0`
const interval = 30

const start = async (runs: number) => {
  const server: ChildProcess = spawn(
    process.execPath,
    [...process.execArgv, new URL("peers/fleetServer.ts", import.meta.url).pathname, String(runs)],
    { stdio: ["pipe", "pipe", "inherit"] }
  )
  const { stdin, stdout } = server
  if (stdin === null || stdout === null) throw new Error("the server has no pipes")
  const lines = createInterface({ input: stdout })
  const [url] = (await once(lines, "line")) as [string]
  const asked = async () => {
    const line = once(lines, "line")
    stdin.write("\n")
    return Number(((await line) as [string])[0])
  }
  return { url, asked, stop: () => server.kill() }
}

const live = (url: string) =>
  Tinker.layer({ apiKey: Redacted.make("tml-bench"), baseUrl: url }).pipe(Layer.provide(NodeHttpClient.layerUndici))

const cpuSeconds = () => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1e6
}

/** Share of a core, requests a second and resident megabytes of a process that watches `runs` runs. */
const swept = async (runs: number) => {
  const server = await start(runs)
  let busiest = 0
  const program = Effect.gen(function* () {
    const recovery = yield* Recovery
    for (let n = 0; n < runs; n++) yield* recovery.watch({ runId: idOf(n) })
    // the first look at everything, and one sweep for the compiler to settle
    yield* Effect.sleep(`${2 * interval} seconds`)
    yield* Effect.promise(server.asked)
    const before = cpuSeconds()
    const began = performance.now()
    // over two sweeps, so that where they begin matters little
    for (let second = 0; second < 2 * interval; second++) {
      yield* Effect.sleep("1 second")
      busiest = Math.max(busiest, process.memoryUsage.rss())
    }
    const requests = yield* Effect.promise(server.asked)
    const seconds = (performance.now() - began) / 1000
    return [((cpuSeconds() - before) / seconds) * 100, requests / seconds, busiest / 2 ** 20]
  })
  try {
    return await Effect.runPromise(
      program.pipe(
        Effect.scoped,
        Effect.provide(Recovery.layer({ enabled: true, pollInterval: `${interval} seconds` })),
        Effect.provide(live(server.url))
      )
    )
  } finally {
    server.stop()
  }
}

/** The same of a process that reads each run by itself, from `sample` of them. */
const polled = async (runs: number, sample: number) => {
  const server = await start(runs)
  const program = Effect.gen(function* () {
    const rest = yield* RestClient
    for (let n = 0; n < 500; n++) yield* rest.getTrainingRun(idOf(n))
    const before = cpuSeconds()
    for (let n = 0; n < sample; n++) yield* rest.getTrainingRun(idOf(n))
    const share = ((cpuSeconds() - before) * (runs / sample)) / interval
    return [share * 100, runs / interval, process.memoryUsage.rss() / 2 ** 20]
  })
  try {
    return await Effect.runPromise(Effect.provide(program, live(server.url)))
  } finally {
    server.stop()
  }
}

if (import.meta.main) {
  const [how = "", runs = ""] = process.argv.slice(2)
  const numbers = how === "swept" ? swept(Number(runs)) : polled(Number(runs), Math.min(Number(runs), 3000))
  console.log((await numbers).join(" "))
  process.exit(0)
}

export const benches: Benches = {
  "fleet-sweep": async ({ quick }) => {
    const runs = quick ? 20_000 : 100_000
    const sample = (how: string, flags: ReadonlyArray<string> = []) =>
      numbersOf(process.execPath, [...process.execArgv, ...flags, import.meta.filename, how, String(runs)], 300)
    // what V8 does not need it keeps for later, unless told not to: the guide says the same to whoever guards a fleet
    const lean = ["--max-semi-space-size=2", "--max-old-space-size=160"]
    const ours = await sample("swept", lean)
    const peer = await sample("polled")
    const name = "one read for each run, as in the original"
    const rows = [
      ["fleet-cpu", "% of a core", 10],
      ["fleet-requests", "requests/s", 34],
      ["fleet-memory", "MiB resident", 256]
    ] as const
    return rows.flatMap(([bench, unit, limit], i) => {
      const scale = { unit, better: "lower" } as const
      const mine = [ours[i] ?? Number.NaN]
      return [
        judge(bench, scale, { name: "what is promised", target: { atMost: 1 } }, mine, [limit]),
        judge(bench, scale, { name }, mine, [peer[i] ?? Number.NaN])
      ]
    })
  }
}
