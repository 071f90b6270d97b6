import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Emulator } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { CheckpointPolicy, Dataset } from "@tinkex/training"
import { batch, tiny, world } from "./tinyRun.ts"

const steps = 40
const every = 5

const run = (faults: string, pipelining: number) =>
  Effect.gen(function* () {
    const { control } = yield* Emulator
    const report = yield* tiny({
      data: Effect.orDie(Dataset.make({ totalSteps: steps, digest: "sweep", batch: (k) => Effect.succeed(batch(k)) })),
      checkpoints: CheckpointPolicy.everySteps(every, { keepLast: 10 }),
      pipelining,
      rehearse: false
    })
    const ledger = yield* control.ledger(report.trainingRunId)
    const hash = yield* control.stateHash(report.trainingRunId)
    return { incidents: report.incidents, order: ledger.map(({ step }) => step), hash }
  }).pipe(Effect.provide(Recovery.layer({ enabled: true })), Effect.provide(world(faults)))

describe("P1, P2: with Recovery.layer({ enabled: true }), poison at every step of a 40-step run that saves every 5", () => {
  for (const pipelining of [0, 1, 4]) {
    it.effect(`with ${pipelining} steps ahead`, () =>
      Effect.gen(function* () {
        const calm = yield* run("", pipelining)
        assert.deepStrictEqual(calm.order, [...Array(steps).keys()])
        for (let at = 0; at < steps; at++) {
          const { hash, incidents, order } = yield* run(`corrupt@${at}`, pipelining)
          assert.deepStrictEqual(order, calm.order, `poisoned at ${at}`)
          assert.strictEqual(hash, calm.hash, `poisoned at ${at}`)
          assert.strictEqual(incidents.length, 1, `poisoned at ${at}`)
          assert.isAtMost(incidents[0]?.replayed ?? 0, every + pipelining, `poisoned at ${at}`)
        }
      })
    )
  }
})
