// An archive of 1 GB from a server of its own to a file on disk: how fast, against curl, and how much memory it takes. Both are
// processes; ours downloads a little first, so that its code is compiled and its buffers are there, as in a program that runs.
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { NodeHttpClient, NodeServices } from "@effect/platform-node"
import { CheckpointArchive, Tinker } from "@tinkex/tinker"
import { Effect, Layer } from "effect"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { numbersOf } from "./sampling.ts"

const execute = promisify(execFile)
const warmUpBytes = 64 * 1024 * 1024

const serve = async (bytes: number) => {
  const server = spawn(process.execPath, [new URL("./peers/archiveServer.ts", import.meta.url).pathname, `${bytes}`], {
    stdio: ["pipe", "pipe", "inherit"]
  })
  const [line] = await once(server.stdout, "data")
  return { url: String(line).trim(), stop: () => void server.stdin.end() }
}

/** Megabytes a second, and the growth of the resident set in megabytes while it goes on. */
const download = (url: string, bytes: number, folder: string) =>
  Effect.gen(function* () {
    const before = process.memoryUsage.rss()
    let peak = before
    let looks = 0
    const began = performance.now()
    const received = yield* CheckpointArchive.downloadFile("tinker://run/weights/a", join(folder, "archive"), {
      overwrite: true,
      onProgress: () => {
        if (looks++ % 256 === 0) peak = Math.max(peak, process.memoryUsage.rss())
      }
    })
    if (received !== bytes) throw new Error(`${received} of ${bytes} bytes arrived`)
    return [bytes / 1e3 / (performance.now() - began), Math.max(1, peak - before) / 1e6]
  }).pipe(
    Effect.provide(
      Tinker.layer({ apiKey: "tml-bench", baseUrl: url }).pipe(
        Layer.provide(NodeHttpClient.layerUndici),
        Layer.provideMerge(NodeServices.layer)
      )
    )
  )

if (import.meta.main) {
  const [small = "", large = "", bytes = "", folder = ""] = process.argv.slice(2)
  await Effect.runPromise(download(small, warmUpBytes, folder))
  console.log((await Effect.runPromise(download(large, Number(bytes), folder))).join(" "))
  process.exit(0)
}

export const benches: Benches = {
  "archive-download": async (options) => {
    const bytes = options.quick ? 250_000_000 : 1_000_000_000
    const folder = mkdtempSync(join(tmpdir(), "tinkex-bench-"))
    const [small, large] = await Promise.all([serve(warmUpBytes), serve(bytes)])
    const args = [...process.execArgv, import.meta.filename, small.url, large.url, String(bytes), folder]
    try {
      const results = await compare({
        benches: ["archive-download"],
        unit: "MB/s",
        better: "higher",
        rounds: roundsOf(options),
        ours: async () => (await numbersOf(process.execPath, args)).slice(0, 1),
        peers: [
          {
            name: "curl",
            target: { atLeast: 0.8 },
            sample: async () => {
              const file = join(folder, "curl")
              const { stdout } = await execute("curl", [
                "-sf",
                "-o",
                file,
                "-w",
                "%{speed_download}",
                `${large.url}/file`
              ])
              if (statSync(file).size !== bytes) throw new Error("curl did not get all of it")
              return [Number(stdout) / 1e6]
            }
          }
        ]
      })
      const memory = await compare({
        benches: ["archive-memory"],
        unit: "MB",
        better: "lower",
        rounds: options.quick ? 1 : 3,
        ours: async () => (await numbersOf(process.execPath, args)).slice(1),
        peers: [{ name: "64 MB", target: { atMost: 1 }, sample: () => Promise.resolve([64]) }]
      })
      return [...results, ...memory]
    } finally {
      small.stop()
      large.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
