import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { Checkpoints, Divergence, Journal, RunGuard, type RunReport, RunState } from "../src/index.ts"
import { finalState, memory, tiny, world } from "./TinyRun.ts"

const upTo = (steps: number) => Array.from({ length: steps }, (_, k) => k)

const judgeAll = (options: Divergence.DivergenceOptions, losses: ReadonlyArray<number>) => {
  const detector = Divergence.detector(Divergence.resolve(options))
  for (const [step, loss] of losses.entries()) {
    const finding = detector.judge(step, { "loss:sum": loss }, 1)
    if (finding !== undefined) return finding
  }
  return undefined
}

const noisy = (step: number) => 10 - step / 50 + Math.sin(step * 1.7)

describe("Divergence.detector", () => {
  it("F12: a loss that is no number is found at once, unless it is to be ignored", () => {
    assert.deepInclude(judgeAll({}, [3, 2, Number.NaN]), { action: "stop", step: 2 })
    assert.deepInclude(judgeAll({ notFinite: "skip" }, [3, Number.POSITIVE_INFINITY]), { action: "skip", step: 1 })
    assert.strictEqual(judgeAll({ notFinite: "ignore" }, [3, Number.NaN, 2]), undefined)
  })

  it("F13: a spike is one that lasts so many steps, and began at the first of them", () => {
    const spike = { action: "rollBack", sigmas: 5, steps: 3 } as const
    const calm = Array.from({ length: 200 }, (_, step) => noisy(step))
    assert.strictEqual(judgeAll({ spike }, calm), undefined)
    const leap = (from: number, length: number) =>
      calm.map((loss, step) => (step >= from && step < from + length ? 8 * loss : loss))
    assert.strictEqual(judgeAll({ spike }, leap(100, 2)), undefined)
    assert.deepInclude(judgeAll({ spike }, leap(100, 3)), { action: "rollBack", step: 100 })
    assert.strictEqual(judgeAll({ spike }, leap(5, 3)), undefined, "not while it warms up")
  })

  it("a sum is judged per position, so that a larger batch is no spike", () => {
    const detector = Divergence.detector(Divergence.resolve({ spike: { action: "stop", steps: 1 } }))
    for (let step = 0; step < 60; step++) {
      const positions = step === 50 ? 10_000 : 100 + (step % 7)
      assert.strictEqual(detector.judge(step, { "loss:sum": positions * noisy(step) }, positions), undefined)
    }
  })
})

const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}

const stateOf = Effect.flatMap(Journal, (journal) => journal.read("tiny")).pipe(
  Effect.map((records) => RunState.fold(records.map(({ record }) => record)))
)

describe("Trainer, a loss that diverges", () => {
  it.effect("DV1: ends the run by default, with the step, the value and the checkpoint from before", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(tiny({ pipelining: 4 }))
      if (error._tag !== "TrainingError" || error.reason._tag !== "Diverged") return assert.fail(error.message)
      assert.strictEqual(error.reason.step, 7)
      assert.match(error.reason.checkpoint ?? "", /-s5-auto$/)
      assert.include(error.message, "NaN")
      const state = yield* stateOf
      assert.strictEqual(state.attempts.at(-1)?.committed, 7, "the step does not count")
    }).pipe(Effect.provide([world("nan:forward_backward@8"), memory]))
  )

  it.effect("DV2: is rolled back without a guard where the policy says so, and ends as if nothing had been", () =>
    Effect.gen(function* () {
      const calm = yield* Effect.gen(function* () {
        return yield* finalState((yield* tiny()).trainingRunId)
      }).pipe(Effect.provide([world("", { seed: 3 }), memory]))
      const report = yield* tiny({ divergence: { notFinite: "rollBack" } })
      assert.strictEqual(report.incidents[0]?.cause, "diverged")
      assert.strictEqual(report.incidents[0]?.resumedAt, 5)
      assert.deepStrictEqual(yield* finalState(report.trainingRunId), calm)
    }).pipe(Effect.provide([world("nan:forward_backward@8", { seed: 3 }), memory]))
  )

  it.effect("DV3: leaves the batch out for good, and says so", () =>
    Effect.gen(function* () {
      const skipped: Array<RunReport.TrainerEvent> = []
      const report = yield* tiny({
        divergence: { notFinite: "skip" },
        onEvent: (event) => Effect.sync(() => void (event._tag === "StepSkipped" && skipped.push(event)))
      }).pipe(Effect.provideService(RunGuard.RunGuard, Option.some(eager)))
      const calm = upTo(12).filter((step) => step !== 7)
      const { steps } = yield* finalState(report.trainingRunId)
      // The server counts the steps that it took: one less than the run has.
      assert.deepStrictEqual(steps, upTo(calm.length))
      assert.strictEqual(report.steps, 12)
      assert.deepStrictEqual([...(yield* stateOf).skipped.keys()], [7])
      assert.strictEqual(skipped.length, 1)
      // A later attempt, for another reason, leaves it out as well.
      assert.strictEqual(report.incidents.length, 2)
    }).pipe(Effect.provide([world("nan:forward_backward@8,corrupt@9"), memory]))
  )

  it.effect("DV4: after so many rollbacks it stops", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(tiny({ divergence: { notFinite: "rollBack", limit: 2 } }))
      if (error._tag !== "TrainingError" || error.reason._tag !== "Diverged") return assert.fail(error.message)
      assert.strictEqual(error.reason.rollbacks, 2)
    }).pipe(Effect.provide([world("nan:forward_backward@8x99"), memory]))
  )

  it.effect("DV4: an end is no rollback, for whoever starts the run again with a policy that has some", () =>
    Effect.gen(function* () {
      for (const start of ["the first", "the second"]) {
        const error = yield* Effect.flip(tiny({ pipelining: 0, divergence: { notFinite: "stop" } }))
        if (error._tag !== "TrainingError" || error.reason._tag !== "Diverged") return assert.fail(error.message)
        assert.strictEqual(error.reason.rollbacks, 0, start)
      }
      const report = yield* tiny({ pipelining: 0, divergence: { notFinite: "rollBack", limit: 1 } })
      assert.deepStrictEqual(
        report.incidents.map(({ cause, resumedAt }) => ({ cause, resumedAt })),
        [{ cause: "diverged", resumedAt: 5 }]
      )
    }).pipe(Effect.provide([world("nan:forward_backward@8x3"), memory]))
  )

  it.effect("F13: a spike goes back behind its first step, past checkpoints that hold it", () =>
    Effect.gen(function* () {
      const report = yield* tiny({
        steps: 30,
        every: 2,
        divergence: { spike: { action: "rollBack", warmup: 5, steps: 3 } }
      })
      assert.strictEqual(report.incidents.length, 1)
      assert.strictEqual(report.incidents[0]?.resumedAt, 20)
      assert.include(report.incidents[0]?.detail, "3 steps")
    }).pipe(Effect.provide([world("spike:forward_backward@22x3=50"), memory]))
  )

  for (const keepLast of [1, 2]) {
    it.effect(`F13, CP2: with ${keepLast} kept, one from before a spike is there when it is noticed`, () =>
      Effect.gen(function* () {
        const report = yield* tiny({
          steps: 30,
          every: 1,
          keepLast,
          horizon: 0,
          // No step is waited for longer than it takes to keep, to prove and to delete what was saved.
          onEvent: ({ _tag }) =>
            _tag === "StepCommitted" ? Effect.repeat(Effect.yieldNow, { times: 400 }) : Effect.void,
          divergence: { spike: { action: "rollBack", warmup: 5, steps: 4 } }
        })
        assert.strictEqual(report.incidents.length, 1)
        assert.strictEqual(report.incidents[0]?.resumedAt, 21)
        const state = yield* stateOf
        assert.isAtLeast(state.deleted.size, 15, "what is older has gone all the same")
      }).pipe(Effect.provide([world("spike:forward_backward@22x4=50"), memory]))
    )
  }

  it.effect("DV2: a run that stops at a spike names a checkpoint from before it, and is taken up from there", () =>
    Effect.gen(function* () {
      const spiky = {
        steps: 30,
        every: 1,
        capability: "D3",
        divergence: { spike: { action: "stop", warmup: 5, steps: 3 } }
      } as const
      const error = yield* Effect.flip(tiny(spiky))
      if (error._tag !== "TrainingError" || error.reason._tag !== "Diverged") return assert.fail(error.message)
      assert.strictEqual(error.reason.step, 21)
      const held = (yield* Checkpoints.list("tiny")).filter(({ unusable }) => unusable === undefined)
      assert.strictEqual(error.reason.checkpoint, held.at(-1)?.path)
      assert.isTrue(held.every(({ step }) => step <= 21))
      const report = yield* tiny(spiky)
      assert.strictEqual(report.startedAt, 21)
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(30))
    }).pipe(Effect.provide([world("spike:forward_backward@22x3=50"), memory]))
  )

  it.effect("DV2, DV3: no later restore comes back to what holds a batch that is left out", () =>
    Effect.gen(function* () {
      const report = yield* tiny({
        steps: 30,
        every: 1,
        divergence: { spike: { action: "skip", warmup: 5, steps: 3 } }
      }).pipe(Effect.provideService(RunGuard.RunGuard, Option.some(eager)))
      assert.deepStrictEqual(
        report.incidents.map(({ cause, resumedAt }) => ({ cause, resumedAt })),
        [
          { cause: "diverged", resumedAt: 21 },
          { cause: "poisoned", resumedAt: 21 }
        ]
      )
      const { steps } = yield* finalState(report.trainingRunId)
      assert.strictEqual(steps.length, 29, "the batch of step 21 is left out")
      const held = (yield* Checkpoints.list("tiny")).filter(({ attempt, step }) => attempt === 1 && step > 21)
      assert.isNotEmpty(held)
      for (const { unusable } of held) assert.include(unusable, "it holds step 21")
    }).pipe(Effect.provide([world("spike:forward_backward@22x3=50,poison:forward_backward@26"), memory]))
  )

  it.effect("options that make no sense are refused", () =>
    Effect.gen(function* () {
      for (const divergence of [
        { limit: -1 },
        { spike: { action: "stop", steps: 0 } },
        { spike: { action: "stop", sigmas: 0 } }
      ] as const) {
        const error = yield* Effect.flip(tiny({ divergence }))
        assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : error._tag, "InvalidOption")
      }
    }).pipe(Effect.provide([world(""), memory]))
  )
})
