// What an operation and the wait for its result cost the process that asks: CPU time, 1,000 of them in flight on one training
// client, against a server in a process of its own that computes nothing.
import { join } from "node:path"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { official } from "./peers/python/official.ts"
import { withEmulator } from "./peers/server.ts"
import { numbersOf } from "./sampling.ts"

const concurrent = 1000
const client = join(import.meta.dirname, "peers", "futuresClient.ts")

export const benches: Benches = {
  "futures-client-cpu": (options) =>
    withEmulator((url) => {
      const rounds = options.quick ? 1 : 3
      const args = [...process.execArgv, client, url, String(concurrent), String(rounds)]
      return compare({
        benches: ["futures-client-cpu"],
        unit: "µs of CPU a future",
        better: "lower",
        rounds: options.quick ? 3 : roundsOf({ quick: true }) + 2,
        ours: () => numbersOf(process.execPath, args, 300),
        peers: official("futures", [url, concurrent, 1], { target: { atMost: 1 / 3 } })
      })
    })
}
