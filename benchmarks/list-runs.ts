// A list of 100,000 runs, page by page, from the bytes of the service's answers to runs with times, checkpoints and labels. Ours
// is the whole client over a service in its own process; the official SDK's decoder gets the same bytes.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { RestClient, Tinker } from "@tinkex/tinker"
import { Effect, Layer } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import { type Benches, compare, median, roundsOf } from "./kit.ts"
import { official } from "./peers/python/official.ts"
import { numbersOf } from "./sampling.ts"

const pageSize = 100

const time = (n: number) => `2026-08-${String((n % 28) + 1).padStart(2, "0")}T10:${String(n % 60).padStart(2, "0")}:00Z`

const run = (n: number) => {
  const checkpoint = (kind: "weights" | "sampler_weights", type: string) => ({
    checkpoint_id: `${kind}/step-${n}`,
    checkpoint_type: type,
    time: time(n),
    tinker_path: `tinker://5f0c9e1a-${n}:train:0/${kind}/step-${n}`,
    size_bytes: 1_000_000 + n,
    public: false,
    expires_at: n % 3 === 0 ? time(n + 7) : null
  })
  return {
    training_run_id: `5f0c9e1a-${n}:train:0`,
    base_model: "Qwen/Qwen3-8B",
    model_owner: `user-${n % 50}`,
    is_lora: true,
    corrupted: n % 97 === 0,
    lora_rank: 32,
    last_request_time: time(n),
    last_checkpoint: n % 2 === 0 ? checkpoint("weights", "training") : null,
    last_sampler_checkpoint: n % 4 === 0 ? checkpoint("sampler_weights", "sampler") : null,
    user_metadata: n % 5 === 0 ? { team: "blue", attempt: `${n}` } : null
  }
}

const pagesOf = (runs: number) =>
  Array.from({ length: runs / pageSize }, (_, page) => ({
    training_runs: Array.from({ length: pageSize }, (_, i) => run(page * pageSize + i)),
    cursor: { offset: page * pageSize, limit: pageSize, total_count: runs }
  }))

/** Milliseconds that all pages take. */
const list = async (file: string, rounds: number) => {
  const pages = (JSON.parse(readFileSync(file, "utf8")) as ReadonlyArray<unknown>).map((page) => JSON.stringify(page))
  const service = HttpClient.make((request, url) => {
    const offset = Number(url.searchParams.get("offset") ?? Number.NaN)
    const text = url.pathname.endsWith("/training_runs") ? pages[offset / pageSize] : "{}"
    const response = new Response(text ?? null, { headers: { "content-type": "application/json" } })
    return Effect.succeed(HttpClientResponse.fromWeb(request, response))
  })
  const all = Effect.gen(function* () {
    const rest = yield* RestClient
    let runs = 0
    let lost = 0
    for (let page = 0; page < pages.length; page++) {
      const found = yield* rest.listTrainingRuns({ limit: pageSize, offset: page * pageSize })
      runs += found.runs.length
      for (const one of found.runs) if (one.corrupted) lost++
    }
    if (runs !== pages.length * pageSize || lost === 0) throw new Error(`${runs} runs, ${lost} of them lost`)
  })
  const measured = Effect.gen(function* () {
    const taken: Array<number> = []
    for (let round = 0; round <= rounds; round++) {
      globalThis.gc?.()
      const began = performance.now()
      yield* all
      if (round > 0) taken.push(performance.now() - began)
    }
    return median(taken)
  })
  const live = Tinker.layer({ apiKey: "tml-bench" }).pipe(Layer.provide(Layer.succeed(HttpClient.HttpClient, service)))
  return Effect.runPromise(Effect.provide(measured, live))
}

if (import.meta.main) {
  const [file = "", rounds = ""] = process.argv.slice(2)
  console.log(await list(file, Number(rounds)))
  process.exit(0)
}

export const benches: Benches = {
  "list-runs": async (options) => {
    const folder = mkdtempSync(join(tmpdir(), "tinkex-bench-"))
    const file = join(folder, "pages.json")
    writeFileSync(file, JSON.stringify(pagesOf(options.quick ? 20_000 : 100_000)))
    const rounds = options.quick ? 2 : 5
    try {
      return await compare({
        benches: ["list-runs"],
        unit: "ms",
        better: "lower",
        rounds: options.quick ? 3 : roundsOf({ quick: true }) + 2,
        ours: () =>
          numbersOf(process.execPath, [...process.execArgv, "--expose-gc", import.meta.filename, file, `${rounds}`]),
        peers: official("runs", [file, rounds], { target: { atLeast: 1 } })
      })
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
