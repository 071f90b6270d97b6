// The little that every benchmark needs: interleaved samples, medians, and one way to print.
//
// Samples of all contenders are taken in turn, round after round, so that a busy machine slows all of them alike; what is
// reported is the ratio of the medians. Absolute numbers belong to the machine that measured them.
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

export interface BenchOptions {
  readonly format: "json" | "text"
  /** Fewer and shorter samples. */
  readonly quick?: boolean
}

/** One comparison. `ratio` above 1 means that ours is better, whichever way the unit counts. */
export interface BenchResult {
  readonly bench: string
  readonly ours: number
  readonly peer: number
  readonly peerName: string
  readonly ratio: number
  readonly unit: string
}

export type Run = (options: BenchOptions) => Promise<ReadonlyArray<BenchResult>>

export const median = (samples: ReadonlyArray<number>): number => {
  const sorted = samples.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

export interface Contender {
  readonly name: string
  readonly sample: () => Promise<number>
}

const warmUps = 3

/**
 * Measures ours against every peer, in turn with each: ours is measured anew, for what one contender leaves in the compiler's
 * caches slows down the next. The first rounds of each only warm up.
 */
export const compare = async (options: {
  readonly bench: string
  readonly unit: string
  readonly better: "higher" | "lower"
  readonly rounds: number
  readonly ours: Contender["sample"]
  readonly peers: ReadonlyArray<Contender>
}): Promise<ReadonlyArray<BenchResult>> => {
  const { bench, better, ours, peers, rounds, unit } = options
  const results: Array<BenchResult> = []
  for (const { name, sample } of peers) {
    const mine: Array<number> = []
    const theirs: Array<number> = []
    for (let round = -warmUps; round < rounds; round++) {
      const pair = [await ours(), await sample()] as const
      if (round < 0) continue
      mine.push(pair[0])
      theirs.push(pair[1])
    }
    const [a, b] = [median(mine), median(theirs)]
    results.push({ bench, ours: a, peer: b, peerName: name, ratio: better === "higher" ? a / b : b / a, unit })
  }
  return results
}

/** Operations per second of `work`, which performs `count` of them. */
export const rate = async (count: number, work: () => Promise<unknown>): Promise<number> => {
  const began = performance.now()
  await work()
  return (count * 1000) / (performance.now() - began)
}

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void // the flag above is what defines it

/** Bytes on the heap per item, with everything else collected. `make` returns what keeps the items alive. */
export const heapPerItem = async (count: number, make: () => Promise<unknown>): Promise<number> => {
  const settle = async () => {
    for (let i = 0; i < 3; i++) {
      collect()
      await new Promise((resolve) => setImmediate(resolve))
    }
    return process.memoryUsage().heapUsed
  }
  const before = await settle()
  const kept = await make()
  const after = await settle()
  if (kept === undefined) throw new Error("nothing was kept alive, so nothing was measured")
  return (after - before) / count
}

export const print = (format: BenchOptions["format"], result: BenchResult): void => {
  const { bench, ours, peer, peerName, ratio, unit } = result
  const round = (value: number) => Number(value.toPrecision(4))
  if (format === "json") {
    const rounded = { bench, ours: round(ours), peer: round(peer), peerName, ratio: round(ratio), unit }
    console.log(JSON.stringify(rounded))
  } else {
    const amount = (value: number) => round(value).toLocaleString("en")
    console.log(`${bench}: ${round(ratio)} x ${peerName} (${amount(ours)} against ${amount(peer)} ${unit})`)
  }
}

/** Runs a benchmark when its file is the program. Takes `--format json|text` and `--quick`. */
export const main = async (meta: { readonly main?: boolean }, run: Run): Promise<void> => {
  if (meta.main !== true) return
  const format = process.argv.includes("json") ? "json" : "text"
  for (const result of await run({ format, quick: process.argv.includes("--quick") })) print(format, result)
}
