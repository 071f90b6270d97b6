import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { Journal, RunGuard } from "../src/index.ts"
import { finalState, memory, tiny, world } from "./TinyRun.ts"

const steps = 40
const every = 5
/** `CRASH_SWEEP=all` takes every point with every setting; otherwise every third, each time another third. */
const stride = process.env["CRASH_SWEEP"] === "all" ? 1 : 3

const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}

const run = (spec: string, pipelining: number) =>
  Effect.gen(function* () {
    const report = yield* tiny({ steps, every, pipelining, rehearse: false })
    return { report, state: yield* finalState(report.trainingRunId) }
  }).pipe(
    Effect.provideService(RunGuard.RunGuard, Option.some(eager)),
    Effect.provide(Layer.mergeAll(world(spec, { seed: 3 }), memory))
  )

describe("P1, P2: poison at every step of a 40-step run, saving every 5", () => {
  for (const [nth, pipelining] of [0, 1, 4].entries()) {
    it.effect(
      `with ${pipelining} steps ahead`,
      () =>
        Effect.gen(function* () {
          const calm = yield* run("", pipelining)
          assert.deepStrictEqual(calm.state.steps, [...Array(steps).keys()])
          for (let at = nth % stride; at < steps; at += stride) {
            const { report, state } = yield* run(`corrupt@${at}`, pipelining)
            assert.strictEqual(report.incidents.length, 1, `poisoned at ${at}`)
            assert.strictEqual(report.incidents[0]?.cause, "poisoned", `poisoned at ${at}`)
            assert.deepStrictEqual(state, calm.state, `poisoned at ${at}`)
          }
        }),
      120_000
    )
  }
})

/** The journal of a process that dies at its n-th record, just before or just after it is durable. */
const mortal =
  (crash: { at: number; after: boolean }) =>
  (journal: Journal["Service"]): Journal["Service"] => ({
    ...journal,
    open: (name) =>
      journal.open(name).pipe(
        Effect.map((open) => {
          const dying =
            (append: typeof open.append): typeof open.append =>
            (record) =>
              Effect.suspend(() => {
                if (--crash.at !== 0) return append(record)
                const death = Effect.die(new Error(`dead at ${record._tag}`))
                return crash.after ? Effect.andThen(append(record), death) : death
              })
          return { ...open, append: dying(open.append), appendLazy: dying(open.appendLazy) }
        })
      )
  })

const total = 12

const survive = (capability: "D0" | "D3", spec: string, crash: { at: number; after: boolean }) =>
  Effect.gen(function* () {
    const again = tiny({ steps: total, every: 3, pipelining: 2, capability, rehearse: false })
    const journal = mortal(crash)(yield* Journal)
    const first = yield* Effect.exit(again.pipe(Effect.provideService(Journal, journal)))
    // Whoever comes after finds the lease free and the models of the dead process alive.
    const report = yield* again
    return { died: crash.at <= 0, first, report, state: yield* finalState(report.trainingRunId) }
  }).pipe(
    Effect.provideService(RunGuard.RunGuard, Option.some(eager)),
    Effect.provide(Layer.mergeAll(world(spec, { seed: 3 }), memory))
  )

describe("P2: a process that dies at any record of its journal, and is started again", () => {
  for (const capability of ["D0", "D3"] as const) {
    for (const spec of ["", "corrupt@7"]) {
      it.effect(
        `on a server of class ${capability}${spec === "" ? "" : `, with ${spec}`}`,
        () =>
          Effect.gen(function* () {
            const calm = yield* survive(capability, "", { at: Number.MAX_SAFE_INTEGER, after: false })
            assert.deepStrictEqual(calm.state.steps, [...Array(total).keys()])
            let points = 0
            for (const after of [false, true]) {
              for (let at = after ? 1 : 2; ; at += stride) {
                const { died, report, state } = yield* survive(capability, spec, { at, after })
                if (!died) break
                points++
                assert.deepStrictEqual(state, calm.state, `record ${at}, ${after ? "after" : "before"}`)
                assert.strictEqual(report.steps, total)
              }
            }
            // Header, attempts, steps, commits and checkpoints, each met twice.
            assert.isAbove(points, (2 * (3 + 2 * total + total / 3)) / stride - 4)
          }),
        120_000
      )
    }
  }
})
