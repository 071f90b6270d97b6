/** `npm run chaos`: every fault of the catalogue, and pairs of them, from many seeds. */
import { fork } from "node:child_process"
import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { catalogue } from "./catalogue.ts"
import { named, pairNames } from "./pairs.ts"
import { play, told } from "./play.ts"

const usage = `npm run chaos                                  200 seeds of each fault, 2,000 pairs
npm run chaos -- --seeds 1000 --pairs 10000
npm run chaos -- --soak                        further seeds without end
npm run chaos -- --fault F44                   200 seeds of this one
npm run chaos -- --fault F44 --seed 17         one scenario, told in full
npm run chaos -- --fault F44+F19 --seed 17     one pair`

const { values } = parseArgs({
  options: {
    fault: { type: "string" },
    seed: { type: "string" },
    seeds: { type: "string", default: "200" },
    pairs: { type: "string", default: "2000" },
    from: { type: "string", default: "1" },
    workers: { type: "string", default: String(Math.min(4, availableParallelism())) },
    soak: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
    shard: { type: "string" }
  }
})

/** Whole numbers only: a seed that is none would be another one. */
const whole = (name: string, text: string): number => {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  console.error(`--${name} must be a whole number, but is "${text}"`)
  process.exit(2)
}

const seeds = whole("seeds", values.seeds)
const pairs = whole("pairs", values.pairs)
const from = whole("from", values.from)
const workers = Math.max(1, whole("workers", values.workers))

interface Job {
  readonly name: string
  readonly seed: number
}

interface Done extends Job {
  readonly fired: boolean
  readonly violations: ReadonlyArray<string>
}

const scenarioOf = (name: string, seed: number) => {
  const scenario = named(name, seed)
  if (scenario !== undefined) return scenario
  console.error(`there is no fault "${name}". Known: ${catalogue.map(({ id }) => id).join(" ")}`)
  process.exit(2)
}

const run = async ({ name, seed }: Job): Promise<Done> => {
  const { fired, violations } = await Effect.runPromise(play(scenarioOf(name, seed)))
  return { name, seed, fired, violations }
}

/** All that there is between two seeds, or all of one fault. */
const jobs = (first: number, count: number, pairCount: number): ReadonlyArray<Job> => {
  const of = (name: string) => Array.from({ length: count }, (_, i) => ({ name, seed: first + i }))
  if (values.fault !== undefined) return of(values.fault)
  return [
    ...catalogue.flatMap(({ id }) => of(id)),
    ...pairNames(first, pairCount).map((name, i) => ({ name, seed: first + i }))
  ]
}

const replay = async (name: string, seed: number) => {
  const { fired, violations } = await run({ name, seed })
  console.log(told(scenarioOf(name, seed)))
  console.log(fired ? "it happened" : "it did not come to it")
  for (const violation of violations) console.log(violation)
  console.log(violations.length === 0 ? "no violation" : `${violations.length} violations`)
  process.exitCode = violations.length === 0 ? 0 : 1
}

const shard = async (text: string) => {
  const [index = 0, of = 1] = text.split("/").map(Number)
  const mine = jobs(from, seeds, pairs).filter((_, i) => i % of === index)
  for (const job of mine) {
    const done = await run(job)
    if (process.send !== undefined) process.send(done)
  }
  process.disconnect?.()
}

interface Sum {
  played: number
  fired: number
  bad: number
}

const round = (first: number): Promise<Map<string, Sum>> =>
  new Promise((resolve, reject) => {
    const sums = new Map<string, Sum>()
    let left = workers
    for (let index = 0; index < workers; index++) {
      const args = [
        "--shard",
        `${index}/${workers}`,
        "--from",
        String(first),
        "--seeds",
        String(seeds),
        "--pairs",
        String(pairs)
      ]
      if (values.fault !== undefined) args.push("--fault", values.fault)
      const worker = fork(fileURLToPath(import.meta.url), args, { execArgv: ["--conditions=@tinkex/source"] })
      worker.on("message", ({ fired, name, seed, violations }: Done) => {
        const key = name.includes("+") ? "pairs" : name
        const sum = sums.get(key) ?? { played: 0, fired: 0, bad: 0 }
        sums.set(key, sum)
        sum.played++
        if (fired) sum.fired++
        if (violations.length === 0) return
        sum.bad++
        console.log(`${violations.join("; ")}\n  again: npm run chaos -- --fault ${name} --seed ${seed}`)
      })
      worker.on("exit", (code) => {
        if (code !== 0) reject(new Error(`a worker ended with ${code}`))
        else if (--left === 0) resolve(sums)
      })
    }
  })

const all = async () => {
  const began = performance.now()
  for (let first = from; ; first += Math.max(1, seeds)) {
    const sums = await round(first)
    let played = 0
    let bad = 0
    for (const key of [...catalogue.map(({ id }) => id), "pairs"]) {
      const sum = sums.get(key)
      if (sum === undefined) continue
      played += sum.played
      bad += sum.bad
      // A scenario that its fault mostly misses shows nothing.
      if (2 * sum.fired < sum.played) process.exitCode = 1
      console.log(`${key.padEnd(6)} ${sum.played} played, ${sum.fired} with the fault, ${sum.bad} with a violation`)
    }
    const seconds = ((performance.now() - began) / 1000).toFixed(0)
    console.log(
      `seeds ${first} to ${first + seeds - 1}: ${played} scenarios, ${bad} with a violation, ${seconds} s so far`
    )
    if (bad > 0) process.exitCode = 1
    if (!values.soak) return
  }
}

if (values.help) {
  console.log(usage)
} else if (values.shard !== undefined) await shard(values.shard)
else if (values.fault !== undefined && values.seed !== undefined) await replay(values.fault, whole("seed", values.seed))
else {
  if (values.fault !== undefined) scenarioOf(values.fault, from)
  await all()
}
