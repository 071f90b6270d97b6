// Samples that are processes. Each does its work a few times to warm up, does the same work against the clock, prints its
// numbers and ends.
//
// OTP can hardly be measured in another way, and for the rest it is the better one too: in a shared process the types and the
// garbage that one contender leaves behind slow down the next, whereas a program runs its own actors for days. The full
// warm-up is for both sides: V8 compiles what is hot, OTP grows its heaps and tables.
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { Effect, References, type Scope } from "effect"
import type { Sample } from "./kit.ts"

const execute = promisify(execFile)

/** The numbers that a program prints. It is ended when it takes longer than it may. */
export const numbersOf = async (
  program: string,
  args: ReadonlyArray<string>,
  seconds = 120
): Promise<ReadonlyArray<number>> => {
  const { stdout } = await execute(program, args, { timeout: seconds * 1000, killSignal: "SIGKILL" })
  const numbers = stdout.trim().split(/\s+/).map(Number)
  if (!numbers.every((number) => number > 0))
    throw new Error(`${program} printed "${stdout.slice(0, 200)}" instead of numbers`)
  return numbers
}

/** Does so much of something that its numbers can be told. */
export type Work = (amount: number) => Effect.Effect<number | ReadonlyArray<number>, unknown, Scope.Scope>

/**
 * What a benchmark file can sample, by name. Where the file is the program itself, it takes the sample that its arguments
 * name; elsewhere the result starts that program.
 */
export const sampled = async <Name extends string>(
  { filename, main }: ImportMeta,
  works: Readonly<Record<Name, Work>>
): Promise<(name: Name, amount: number) => Sample> => {
  if (main) {
    const [name, amount] = process.argv.slice(2)
    const work = Object.entries<Work>(works).find((entry) => entry[0] === name)?.[1]
    if (work === undefined) throw new Error(`no sample "${name}"; there are ${Object.keys(works).join(", ")}`)
    const silent = Effect.provideService(work(Number(amount)), References.MinimumLogLevel, "None") // as OTP's logger is
    console.log([await Effect.runPromise(Effect.scoped(silent))].flat().join(" "))
    process.exit(0)
  }
  const args = [...process.execArgv, "--expose-gc", filename]
  return (name, amount) => () => numbersOf(process.execPath, [...args, name, String(amount)])
}

const collect = Effect.promise(async () => {
  if (globalThis.gc === undefined) throw new Error("a sample needs --expose-gc")
  for (let i = 0; i < 3; i++) {
    globalThis.gc()
    await new Promise((resolve) => setImmediate(resolve))
  }
})

const warmUps = 4

/**
 * The outcome of work that was warmed up: the same work, done several times before. Nothing is collected between the last
 * warm-up and the work, because a full collection throws away compiled code that mentions the objects of the last round, and
 * the clock would run while it is compiled again.
 */
export const warm = <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.andThen(collect, Effect.andThen(Effect.repeat(work, { times: warmUps - 1 }), work))

/** How long the work takes, in milliseconds. */
export const timed = <E, R>(work: Effect.Effect<unknown, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const began = performance.now()
    return Effect.map(work, () => performance.now() - began)
  })

export const perSecond = (count: number, millis: number): number => (count * 1000) / millis

/** Operations per second of warm `work`, which performs `count` of them. */
export const rate = <E, R>(count: number, work: Effect.Effect<unknown, E, R>): Effect.Effect<number, E, R> =>
  Effect.map(warm(timed(work)), (millis) => perSecond(count, millis))

/** Bytes per item, with everything else collected. `make` returns what keeps the items alive. */
export const bytesPerItem = <A extends object, E, R>(count: number, make: (count: number) => Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const settled = Effect.map(collect, () => {
      const { external, heapUsed } = process.memoryUsage()
      return heapUsed + external
    })
    const kept = [yield* make(1000)] // compiles the code, which is no part of an item
    const before = yield* settled
    kept.push(yield* make(count))
    const bytes = (yield* settled) - before
    if (kept.length !== 2) throw new Error("the items were not kept alive, so nothing was measured")
    return bytes / count
  })
