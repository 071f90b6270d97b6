import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { RunGuard } from "../src/index.ts"
import { finalState, memory, tiny, world } from "./TinyRun.ts"

const steps = 40
const every = 5

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
  for (const pipelining of [0, 1, 4]) {
    it.effect(
      `with ${pipelining} steps ahead`,
      () =>
        Effect.gen(function* () {
          const calm = yield* run("", pipelining)
          assert.deepStrictEqual(calm.state.steps, [...Array(steps).keys()])
          for (let at = 0; at < steps; at++) {
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
