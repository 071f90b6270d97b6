import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import { Emulator } from "@tinkex/emulator"
import { Journal, RunGuard, RunState, type RunReport } from "../src/index.ts"
import { finalState, memory, tiny, world } from "./TinyRun.ts"

const upTo = (steps: number) => Array.from({ length: steps }, (_, k) => k)

/** What an undisturbed run of so many steps ends with. */
const undisturbed = (options: Parameters<typeof tiny>[0] = {}) =>
  Effect.gen(function* () {
    const report = yield* tiny(options)
    return yield* finalState(report.trainingRunId)
  }).pipe(Effect.provide([world("", { seed: 7 }), memory]))

/** The simplest guard: restores at once, whatever happened. */
const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}
const guarded = Effect.provideService(RunGuard.RunGuard, Option.some(eager))

describe("Trainer", () => {
  it.effect("takes every step once, in order, and the loss falls", () =>
    Effect.gen(function* () {
      const events: Array<RunReport.TrainerEvent> = []
      const report = yield* tiny({ steps: 24, onEvent: (event) => Effect.sync(() => events.push(event)) })
      const { steps } = yield* finalState(report.trainingRunId)
      assert.deepStrictEqual(steps, upTo(24))
      const losses = events.flatMap((event) =>
        event._tag === "StepCommitted" ? [event.metrics["loss:sum"] ?? Number.NaN] : []
      )
      assert.strictEqual(losses.length, 24)
      assert.isBelow(
        losses.slice(-5).reduce((a, b) => a + b),
        0.8 * losses.slice(0, 5).reduce((a, b) => a + b)
      )
      assert.match(report.path, /-s24-final$/)
      assert.strictEqual(report.attempts, 1)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("a finished run is not run again", () =>
    Effect.gen(function* () {
      const first = yield* tiny()
      const again = yield* tiny()
      assert.isTrue(again.already)
      assert.strictEqual(again.path, first.path)
      const { control } = yield* Emulator
      // The run's own model and the scratch one of the rehearsal.
      assert.strictEqual((yield* control.models).length, 2)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("P2: a poisoned attempt is restored and ends in the same state, bit for bit", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed()
      const report = yield* guarded(tiny())
      const actual = yield* finalState(report.trainingRunId)
      assert.deepStrictEqual(actual, expected)
      assert.strictEqual(report.incidents.length, 1)
      const incident = report.incidents[0]
      assert.strictEqual(incident?.cause, "poisoned")
      assert.strictEqual(incident?.resumedAt, 5)
      assert.match(incident?.path ?? "", /-a1-s5-auto$/)
    }).pipe(Effect.provide([world("corrupt@8", { seed: 7 }), memory]))
  )

  it.effect("P7: without a guard a poisoned run ends with an error that says how to go on, and going on works", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed()
      const error = yield* Effect.flip(tiny())
      assert.strictEqual(error._tag, "TrainingError")
      if (error._tag !== "TrainingError" || error.reason._tag !== "RunFailed") return assert.fail(error.message)
      assert.strictEqual(error.reason.cause, "poisoned")
      assert.match(error.reason.checkpoint ?? "", /-s5-auto$/)
      assert.include(error.message, error.reason.trainingRunId)
      const report = yield* tiny()
      assert.strictEqual(report.startedAt, 5)
      assert.deepStrictEqual(yield* finalState(report.trainingRunId), expected)
    }).pipe(Effect.provide([world("corrupt@8", { seed: 7 }), memory]))
  )

  it.effect("a restore of the weights alone goes on, and ends somewhere else: the optimizer counts", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed()
      const forgetful: RunGuard.RunGuard = {
        ...eager,
        recover: ({ restore }) =>
          restore({ strategy: { _tag: "Latest" }, optimizer: false, onProgress: () => Effect.void })
      }
      const report = yield* tiny().pipe(Effect.provideService(RunGuard.RunGuard, Option.some(forgetful)))
      const actual = yield* finalState(report.trainingRunId)
      assert.deepStrictEqual(actual.digests, expected.digests)
      assert.notStrictEqual(actual.hash, expected.hash)
    }).pipe(Effect.provide([world("corrupt@8", { seed: 7 }), memory]))
  )

  it.effect("P3: a second program on the same run is refused while the first one lives", () =>
    Effect.gen(function* () {
      const first = yield* Effect.forkChild(tiny())
      yield* Effect.yieldNow
      const error = yield* Effect.flip(tiny())
      assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : error._tag, "LeaseHeld")
      assert.strictEqual((yield* Fiber.join(first)).steps, 12)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect(
    "RP23: a run whose process died goes on with its live model where the server knows repeated operations",
    () =>
      Effect.gen(function* () {
        const expected = yield* undisturbed()
        let committed = 0
        const died = yield* Effect.exit(
          tiny({
            capability: "D3",
            onEvent: (event) => (event._tag === "StepCommitted" && ++committed === 7 ? Effect.interrupt : Effect.void)
          })
        )
        assert.strictEqual(died._tag, "Failure")
        const events: Array<RunReport.TrainerEvent> = []
        const report = yield* tiny({ capability: "D3", onEvent: (event) => Effect.sync(() => events.push(event)) })
        const started = events.find((event) => event._tag === "AttemptStarted")
        assert.strictEqual(started?.how, "reattached")
        assert.strictEqual(report.startedAt, 7)
        assert.strictEqual(report.attempts, 1)
        assert.deepStrictEqual(yield* finalState(report.trainingRunId), expected)
      }).pipe(Effect.provide([world("", { seed: 7 }), memory]))
  )

  it.effect("a save that was acknowledged and is not there is not restored from", () =>
    Effect.gen(function* () {
      const report = yield* guarded(tiny({ steps: 16 }))
      assert.strictEqual(report.incidents[0]?.resumedAt, 5)
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(16))
    }).pipe(Effect.provide([world("absent@10,corrupt@13"), memory]))
  )

  it.effect("RP16: the only checkpoint is not given up for a failure at the first step, which may be chance", () =>
    Effect.gen(function* () {
      const report = yield* guarded(tiny({ pipelining: 0 }))
      assert.deepStrictEqual(
        report.incidents.map(({ cause, resumedAt }) => ({ cause, resumedAt })),
        [
          { cause: "poisoned", resumedAt: 5 },
          { cause: "poisoned", resumedAt: 5 }
        ]
      )
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(12))
    }).pipe(Effect.provide([world("poison:optim_step@8x2"), memory]))
  )

  it.effect("RP16: with another one left, what a run was poisoned on at its first step is not used again", () =>
    Effect.gen(function* () {
      const report = yield* guarded(tiny({ pipelining: 0 }))
      assert.deepStrictEqual(
        report.incidents.map(({ resumedAt }) => resumedAt),
        [10, 5]
      )
    }).pipe(Effect.provide([world("poison:optim_step@11x2"), memory]))
  )

  it.effect(
    "RP14, RP16: newest checkpoint truncated, the one before poisoned on load: both quarantined, third used",
    () =>
      Effect.gen(function* () {
        const expected = yield* undisturbed({ steps: 20 })
        const report = yield* guarded(tiny({ steps: 20 }))
        const incident = report.incidents[0]
        assert.deepStrictEqual(
          incident?.quarantined.map((path) => path.slice(path.lastIndexOf("-s") + 1)),
          ["s15-auto", "s10-auto"]
        )
        assert.strictEqual(incident?.resumedAt, 5)
        assert.match(incident?.path ?? "", /-s5-auto$/)
        assert.deepStrictEqual(yield* finalState(report.trainingRunId), expected)
      }).pipe(Effect.provide([world("truncate@15,poison-load@10,corrupt@18", { seed: 7 }), memory]))
  )

  it.effect("all checkpoints bad: a typed end that lists them, and no fourth try with the base model", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(guarded(tiny({ steps: 20 })))
      if (error._tag !== "TrainingError" || error.reason._tag !== "NoCheckpoint") return assert.fail(error.message)
      assert.strictEqual(error.reason.rejected.length, 3)
    }).pipe(Effect.provide([world("truncate@15,poison-load@10,missing@5,corrupt@18"), memory]))
  )

  it.effect("a lost answer is asked for again and its step is applied once", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed()
      const fiber = yield* Effect.forkChild(tiny())
      yield* TestClock.adjust("2 minutes")
      const report = yield* Fiber.join(fiber)
      assert.strictEqual(report.incidents.length, 0)
      assert.deepStrictEqual(yield* finalState(report.trainingRunId), expected)
    }).pipe(Effect.provide([world("lose:optim_step@4,lose:forward_backward@7", { seed: 7 }), memory]))
  )

  it.effect("RP6: an expired result ends the attempt, since nobody can know whether the step was applied", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed()
      const report = yield* guarded(tiny())
      assert.strictEqual(report.incidents[0]?.cause, "ambiguous")
      assert.deepStrictEqual(yield* finalState(report.trainingRunId), expected)
    }).pipe(Effect.provide([world("expire:optim_step@8", { seed: 7 }), memory]))
  )

  it.effect("a lost session is replaced by a new one", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed()
      const report = yield* guarded(tiny())
      assert.include(["session_lost", "lost"], report.incidents[0]?.cause)
      const actual = yield* finalState(report.trainingRunId)
      assert.deepStrictEqual(actual, expected)
    }).pipe(Effect.provide([world("lose-session@8", { seed: 7 }), memory]))
  )

  it.effect("the final save is made again where it got lost", () =>
    Effect.gen(function* () {
      const report = yield* tiny()
      assert.match(report.path, /-s12-final-r1$/)
    }).pipe(Effect.provide([world("absent@12"), memory]))
  )

  it.effect("RP17: a program that is started again and again with a refused key uses up nothing of the run", () =>
    Effect.gen(function* () {
      for (let start = 0; start < 5; start++) {
        const error = yield* Effect.flip(tiny())
        assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : "", "Service")
      }
      const report = yield* tiny()
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(12))
    }).pipe(Effect.provide([world("burst:403:create_model@1x5"), memory]))
  )

  it.effect("a model that refuses every save at the end, without a flag, is replaced by another one", () =>
    Effect.gen(function* () {
      const report = yield* guarded(tiny())
      assert.strictEqual(report.incidents[0]?.cause, "failed")
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(12))
    }).pipe(Effect.provide([world("poison-unflagged:optim_step:after@12"), memory]))
  )

  it.effect("RP17: three attempts that commit nothing new end the run, for good", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(guarded(tiny()))
      assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : error._tag, "NoProgress")
      const again = yield* Effect.flip(guarded(tiny()))
      assert.strictEqual(again._tag === "TrainingError" ? again.reason._tag : again._tag, "RunEnded")
    }).pipe(Effect.provide([world("corrupt@7x9"), memory]))
  )

  it.effect("a changed configuration, data set or program is refused with what has changed, unless forced", () =>
    Effect.gen(function* () {
      yield* Effect.flip(tiny())
      for (const [change, text] of [
        [{ model: { baseModel: "tiny/byte-lm-16", rank: 4 } }, "model.rank: 2 -> 4"],
        [{ digest: "tiny-2" }, "data"],
        [{ programVersion: "2" }, "programVersion: 1 -> 2"]
      ] as const) {
        const error = yield* Effect.flip(tiny(change))
        assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : error._tag, "ConfigChanged")
        assert.include(error.message, text)
      }
      const forced = yield* tiny({ programVersion: "2", force: true })
      assert.strictEqual(forced.steps, 12)
    }).pipe(Effect.provide([world("corrupt@8"), memory]))
  )

  it.effect("bad options are refused before anything is asked of anybody", () =>
    Effect.gen(function* () {
      for (const [options, field] of [
        [{ pipelining: 9 }, "pipelining"],
        [{ pipelining: -1 }, "pipelining"],
        [{ model: { baseModel: "x", rank: 0 } }, "model.rank"],
        [{ learningRate: -1 }, "learningRate"],
        [{ every: 0 }, "checkpoints"],
        [{ name: "../x" }, "run"]
      ] as const) {
        const error = yield* Effect.flip(tiny(options))
        assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : error._tag, "InvalidOption", field)
      }
      const { control } = yield* Emulator
      assert.strictEqual((yield* control.models).length, 0)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("P4: nothing is deleted before a newer checkpoint was loaded and probed", () =>
    Effect.gen(function* () {
      const journal = yield* Journal
      const { control } = yield* Emulator
      yield* tiny({ steps: 20, every: 2, keepLast: 3, horizon: 0 })
      const state = RunState.fold((yield* journal.read("tiny")).map(({ record }) => record))
      assert.isAbove(state.deleted.size, 0)
      for (const path of state.deleted) {
        const step = state.verified.find((record) => record.path === path)?.step ?? 0
        const proven = state.verified.some((record) => record.step > step && state.proven.has(record.path))
        assert.isTrue(proven, path)
      }
      const left = yield* control.checkpoints
      assert.isAtLeast(left.length, 3)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("F52: a deletion that fails is tried again behind the next save, and written down once", () =>
    Effect.gen(function* () {
      const journal = yield* Journal
      const { control } = yield* Emulator
      const kept: Array<string> = []
      const running = yield* Effect.forkChild(
        tiny({
          steps: 30,
          every: 1,
          keepLast: 1,
          horizon: 0,
          onEvent: (event) =>
            event._tag === "Checkpoint" && event.outcome._tag === "Kept"
              ? Effect.sync(() => kept.push(event.outcome._tag))
              : event._tag === "StepCommitted"
                ? Effect.sleep("1 minute")
                : Effect.void
        })
      )
      for (let minutes = 0; minutes < 60; minutes++) yield* TestClock.adjust("1 minute")
      yield* Fiber.join(running)
      const records = (yield* journal.read("tiny")).map(({ record }) => record)
      const intents = records.flatMap((record) => (record._tag === "DeleteIntent" ? [record.path] : []))
      assert.isAbove(kept.length, 0, "it has failed")
      assert.isAbove(intents.length, 20)
      assert.strictEqual(new Set(intents).size, intents.length)
      const there = new Set((yield* control.checkpoints).map(({ path }) => path))
      assert.deepStrictEqual(
        intents.filter((path) => there.has(path)),
        []
      )
    }).pipe(Effect.provide([world("burst:503:delete_checkpoint@1x40"), memory]))
  )

  for (const pipelining of [0, 1, 4, 8]) {
    it.effect(`P1: with ${pipelining} steps ahead`, () =>
      Effect.gen(function* () {
        const report = yield* guarded(tiny({ pipelining, steps: 20 }))
        const { steps } = yield* finalState(report.trainingRunId)
        assert.deepStrictEqual(steps, upTo(20))
        assert.isAtMost(report.incidents[0]?.replayed ?? 0, 5 + pipelining)
      }).pipe(Effect.provide(Layer.mergeAll(world("corrupt@13"), memory)))
    )
  }
})
