// What a sample costs the process that asks for it: CPU time a request, 2,000 of them at once, against a server in a process of
// its own that computes nothing. A floor stands beside it: the same requests over the same transport, without any client.
import { join } from "node:path"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { official } from "./peers/python/official.ts"
import { withEmulator } from "./peers/server.ts"
import { numbersOf } from "./sampling.ts"

const concurrent = 2000

const bench = "sample-client-cpu"
const client = join(import.meta.dirname, "peers", "sampleClient.ts")
const args = [...process.execArgv, client]

export const benches: Benches = {
  [bench]: (options) =>
    withEmulator((url) => {
      const rounds = options.quick ? 1 : 3
      const sample = (name: string) => () =>
        numbersOf(process.execPath, [...args, name, url, String(concurrent), String(rounds)], 300)
      return compare({
        benches: [bench],
        unit: "µs of CPU a request",
        better: "lower",
        rounds: options.quick ? 3 : roundsOf({ quick: true }) + 2,
        ours: sample("sdk"),
        peers: [
          { name: "no client at all", sample: sample("bare") },
          ...official("sample", [url, concurrent, 1], { target: { atMost: 1 / 3 } })
        ]
      })
    })
}
