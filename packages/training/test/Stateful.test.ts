import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { CheckpointPolicy, Dataset, Journal, RunGuard, SeededRandom, Trainer } from "../src/index.ts"
import { data, finalState, memory, world } from "./TinyRun.ts"

const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}

/** A source that can only be read on: where it stands is a hidden number. */
const source = (log: Array<string>) =>
  Effect.gen(function* () {
    const rows = yield* data(100)
    let position = 0
    return yield* Dataset.stateful({
      totalSteps: 10,
      digest: "stream-1",
      initial: { position: 0 },
      state: Effect.sync(() => ({ position })),
      restore: (state) =>
        Effect.sync(() => {
          const found = typeof state === "object" && state !== null && "position" in state ? state["position"] : 0
          position = Number(found)
          log.push(`restore ${position}`)
        }),
      next: Effect.suspend(() => {
        // Every third row is left out, so that the position does not follow from the step.
        position += position % 3 === 2 ? 2 : 1
        log.push(`read ${position}`)
        return rows.batch(position)
      })
    })
  })

const run = (spec: string, log: Array<string>) =>
  Effect.gen(function* () {
    const report = yield* Trainer.fineTune({
      name: "stream",
      model: { baseModel: "tiny/byte-lm-16", rank: 2 },
      data: source(log),
      learningRate: 0.05,
      checkpoints: CheckpointPolicy.everySteps(3),
      pipelining: 2
    })
    return { report, state: yield* finalState(report.trainingRunId) }
  }).pipe(
    Effect.provideService(RunGuard.RunGuard, Option.some(eager)),
    Effect.provide([world(spec, { seed: 2 }), memory])
  )

describe("Dataset.stateful", () => {
  it.effect("a source that is read in order goes back with the run, and no further than it must", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const calm = yield* run("", log)
      assert.deepStrictEqual(
        log.filter((line) => line.startsWith("restore")),
        ["restore 0"]
      )
      for (const at of [1, 4, 5, 8]) {
        const stormy: Array<string> = []
        const { report, state } = yield* run(`corrupt@${at}`, stormy)
        assert.strictEqual(report.incidents.length, 1)
        assert.deepStrictEqual(state, calm.state, `poisoned at ${at}`)
        assert.strictEqual(stormy.filter((line) => line.startsWith("restore")).length, 2)
      }
    })
  )

  it.effect("an error of the source ends the run, after the steps before it", () =>
    Effect.gen(function* () {
      let read = 0
      const broken = Dataset.stateful({
        totalSteps: 10,
        digest: "broken",
        initial: 0,
        state: Effect.sync(() => read),
        restore: () => Effect.void,
        next: Effect.suspend(() =>
          ++read === 5
            ? Effect.fail(new Error("the queue is closed"))
            : Effect.flatMap(data(10), (rows) => rows.batch(read))
        )
      })
      const error = yield* Effect.flip(
        Trainer.fineTune({
          name: "broken",
          model: { baseModel: "tiny/byte-lm-16", rank: 2 },
          data: broken,
          learningRate: 0.05,
          checkpoints: CheckpointPolicy.everySteps(2)
        })
      )
      assert.include(error.message, "the queue is closed")
      const records = yield* Effect.flatMap(Journal, (journal) => journal.read("broken"))
      assert.strictEqual(records.filter(({ record }) => record._tag === "Commit").length, 4)
    }).pipe(Effect.provide([world(""), memory]))
  )
})

describe("SeededRandom", () => {
  it("draws the same for the same seed and step, fixed for ever", () => {
    const draw = (seed: number, step: number) => {
      const random = SeededRandom.make(seed, step)
      return [random.int(1000), random.int(1000), random.next(), random.shuffle([1, 2, 3, 4, 5])]
    }
    assert.deepStrictEqual(draw(7, 3), draw(7, 3))
    assert.notDeepEqual(draw(7, 3), draw(7, 4))
    assert.notDeepEqual(draw(7, 3), draw(8, 3))
    const random = SeededRandom.make(0, 0)
    assert.deepStrictEqual([random.int(2 ** 32), random.int(2 ** 32)], [243421288, 3911395340])
  })

  it("numbers lie in their bounds and a shuffle loses nothing", () => {
    const random = SeededRandom.make(1, 1)
    for (let i = 0; i < 1000; i++) {
      assert.isBelow(random.int(7), 7)
      const next = random.next()
      assert.isTrue(next >= 0 && next < 1)
    }
    assert.deepStrictEqual(random.shuffle([3, 1, 2]).toSorted(), [1, 2, 3])
  })
})
