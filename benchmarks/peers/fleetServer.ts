// A service that keeps `RUNS` healthy runs and nothing else, in a process of its own. Prints its URL and serves until its
// standard input ends; for every line there it prints how many requests it has answered since the last one.
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { createInterface } from "node:readline"

const total = Number(process.argv[2] ?? 100_000)
const idOf = (n: number) => `5f0c9e1a-0000-4000-8000-${String(n).padStart(12, "0")}:train:0`

const row = (n: number) =>
  JSON.stringify({
    training_run_id: idOf(n),
    base_model: "Qwen/Qwen3-8B",
    model_owner: `user-${n % 50}`,
    is_lora: true,
    corrupted: false,
    lora_rank: 32,
    last_request_time: "2026-08-01T10:00:00.123456+00:00",
    last_checkpoint: {
      checkpoint_id: `weights/step-${n}`,
      checkpoint_type: "training",
      time: "2026-08-01T10:00:00Z",
      tinker_path: `tinker://${idOf(n)}/weights/step-${n}`,
      size_bytes: 1_000_000 + n,
      public: false,
      expires_at: null
    },
    last_sampler_checkpoint: null,
    user_metadata: { team: "blue" }
  })

let answered = 0
const server = createServer((request, response) => {
  const url = new URL(request.url ?? "", "http://localhost")
  response.setHeader("content-type", "application/json")
  if (url.pathname.endsWith("/training_runs")) {
    answered++
    const offset = Number(url.searchParams.get("offset") ?? 0)
    const limit = Number(url.searchParams.get("limit") ?? 20)
    const rows = Array.from({ length: Math.max(0, Math.min(limit, total - offset)) }, (_, i) => row(offset + i))
    const cursor = JSON.stringify({ offset, limit, total_count: total })
    return response.end(`{"training_runs":[${rows.join()}],"cursor":${cursor}}`)
  }
  if (url.pathname.includes("/training_runs/")) {
    answered++
    return response.end(row(Number(decodeURIComponent(url.pathname).slice(-20, -8))))
  }
  response.end("{}")
})

createInterface({ input: process.stdin })
  .on("line", () => {
    console.log(answered)
    answered = 0
  })
  .on("close", () => process.exit(0))
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
