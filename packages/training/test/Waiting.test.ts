import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { Emulator } from "@tinkex/emulator"
import { CheckpointPolicy, Goodput, RunGuard, type RunReport } from "../src/index.ts"
import { data, finalState, memory, tiny, type TinyOptions, world } from "./TinyRun.ts"

const upTo = (steps: number) => Array.from({ length: steps }, (_, k) => k)

const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}

/** Runs in virtual time, a minute at a turn, and keeps what is told. */
const observed = (options: TinyOptions, limit: Duration.Input = "24 hours") =>
  Effect.gen(function* () {
    const events: Array<RunReport.TrainerEvent> = []
    const fiber = yield* Effect.forkChild(
      tiny({ ...options, onEvent: (event) => Effect.sync(() => void events.push(event)) }).pipe(
        Effect.provideService(RunGuard.RunGuard, Option.some(eager))
      )
    )
    const minutes = Duration.toMinutes(Duration.fromInputUnsafe(limit))
    for (let minute = 0; minute < minutes && fiber.pollUnsafe() === undefined; minute++) {
      yield* TestClock.adjust("1 minute")
    }
    const exit = yield* Fiber.await(fiber).pipe(Effect.timeout("1 second"))
    return { events, exit }
  })

const reportOf = ({ exit }: Effect.Success<ReturnType<typeof observed>>) =>
  exit._tag === "Success" ? exit.value : assert.fail(String(exit.cause))

const told = (events: ReadonlyArray<RunReport.TrainerEvent>, tag: RunReport.TrainerEvent["_tag"]) =>
  events.filter((event) => event._tag === tag)

describe("RP19: a pause is not a failure", () => {
  it.effect(
    "F27: six hours without capacity: no restart, one alert, time to live renewed, the session alive",
    () =>
      Effect.gen(function* () {
        const run = yield* observed({
          steps: 30,
          checkpoints: CheckpointPolicy.everySteps(5, { ttl: "2 hours" })
        })
        const report = reportOf(run)
        assert.strictEqual(report.attempts, 1)
        assert.strictEqual(report.incidents.length, 0)
        assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(30))
        const pauses = told(run.events, "Paused")
        assert.strictEqual(pauses.length, 1)
        assert.deepInclude(pauses[0], { cause: "capacity" })
        assert.strictEqual(told(run.events, "Resumed").length, 1)
        // Every quarter of its two hours the newest one is looked after.
        const renewed = run.events.filter((event) => event._tag === "Checkpoint" && event.outcome._tag === "Renewed")
        assert.isAtLeast(renewed.length, 4)
        const { control } = yield* Emulator
        const beats = (yield* control.requests).filter(({ endpoint }) => endpoint.includes("heartbeat"))
        assert.isAtLeast(beats.length, 6 * 60)
        const { elapsed, useful, wasted } = report.goodput
        assert.isAtLeast(wasted.paused, Duration.toMillis("350 minutes"))
        assert.strictEqual(useful + Object.values(wasted).reduce((a, b) => a + b, 0), elapsed)
      }).pipe(Effect.provide([world("delay:optim_step@9=5s,delay:optim_step@10=6h:paused_capacity"), memory])),
    60_000
  )

  it.effect("F28: a state that changes with every poll is one pause, told once", () =>
    Effect.gen(function* () {
      const run = yield* observed({ steps: 12 })
      assert.strictEqual(reportOf(run).incidents.length, 0)
      assert.isAtMost(told(run.events, "Paused").length, 1)
    }).pipe(Effect.provide([world("delay:optim_step@7=20m:alternating"), memory]))
  )

  it.effect("a pause that outlasts its limit ends the attempt as paused, and costs no attempt", () =>
    Effect.gen(function* () {
      const run = yield* observed({ steps: 12, pauseLimit: "1 hour" })
      const report = reportOf(run)
      assert.strictEqual(report.incidents[0]?.cause, "paused")
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(12))
      assert.strictEqual(report.goodput.failures, 0)
    }).pipe(Effect.provide([world("delay:optim_step@7=6h:paused_capacity"), memory]))
  )
})

describe("stalls", () => {
  it.effect(
    "F6: a server that stays silent and raises no flag: found by what its answers used to take, then restored",
    () =>
      Effect.gen(function* () {
        const run = yield* observed({ steps: 20, stall: { floor: "1 minute", warmup: "10 minutes" } })
        const report = reportOf(run)
        assert.strictEqual(report.incidents[0]?.cause, "stalled")
        // One limit, a question, and one more limit; a minute of it is the step of this clock.
        assert.isAtMost(Duration.toMinutes(report.incidents[0]?.timeToDetect ?? Duration.infinity), 4)
        assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(20))
      }).pipe(Effect.provide([world("delay:optim_step@12=100h"), memory]))
  )

  it.effect("G7: what is slow from the beginning has time to warm up", () =>
    Effect.gen(function* () {
      const run = yield* observed({ steps: 6, stall: { floor: "1 minute", warmup: "30 minutes" } })
      assert.strictEqual(reportOf(run).incidents.length, 0)
    }).pipe(Effect.provide([world("delay:forward_backward@1=20m"), memory]))
  )

  it.effect("G7: steps that grow slower together raise no alarm", () =>
    Effect.gen(function* () {
      const run = yield* observed({ steps: 12, stall: { floor: "10 seconds", warmup: "10 minutes" } })
      assert.strictEqual(reportOf(run).incidents.length, 0)
    }).pipe(
      Effect.provide([
        world(
          upTo(12)
            .map((k) => `delay:optim_step@${k + 1}=${20 + 4 * k}s`)
            .join(",")
        ),
        memory
      ])
    )
  )

  it.effect("options that make no sense are refused", () =>
    Effect.gen(function* () {
      for (const stall of [{ factor: 0.5 }, { floor: 0 }, { warmup: 0 }]) {
        const error = yield* Effect.flip(tiny({ stall }))
        assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : error._tag, "InvalidOption")
      }
    }).pipe(Effect.provide([world(""), memory]))
  )
})

describe("RP27: the end of a run", () => {
  it.effect("waits for a flag that rises late, and then trains on what was saved before it", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      let poisoned = false
      const events: Array<RunReport.TrainerEvent> = []
      const fiber = yield* Effect.forkChild(
        tiny({
          horizon: "2 minutes",
          onEvent: (event) =>
            Effect.gen(function* () {
              events.push(event)
              if (event._tag !== "Checkpoint" || event.outcome._tag !== "Verified" || event.outcome.step !== 12) return
              if (poisoned) return
              poisoned = true
              const [model] = yield* control.models
              yield* Effect.orDie(control.poison(model?.modelId ?? ""))
            })
        }).pipe(Effect.provideService(RunGuard.RunGuard, Option.some(eager)))
      )
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(fiber.pollUnsafe(), "it does not count as complete yet")
      for (let minute = 0; minute < 10; minute++) yield* TestClock.adjust("1 minute")
      const report = yield* Fiber.join(fiber)
      assert.strictEqual(report.incidents[0]?.cause, "poisoned")
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(12))
      assert.notStrictEqual(told(events, "AttemptStarted").length, 1)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("by default that costs a hundredth of the run's time", () =>
    Effect.gen(function* () {
      const run = yield* observed({ steps: 12, stall: { floor: "1 hour" } })
      const { goodput } = reportOf(run)
      // 20 minutes and a little: a hundredth of it, and up to a minute of this clock.
      assert.isAtLeast(goodput.wasted.finishing, 12_000)
      assert.isAtMost(goodput.wasted.finishing, 72_000)
      assert.isAtLeast(Goodput.share(goodput), 0.9)
    }).pipe(Effect.provide([world("delay:optim_step@7=20m"), memory]))
  )
})

describe("F14: a probe", () => {
  it.effect("finds wrong weights before they are trained on, and the next older checkpoint is used", () =>
    Effect.gen(function* () {
      const [probe] = yield* (yield* data(4)).batch(0)
      if (probe === undefined) return assert.fail("no datum")
      const report = yield* tiny({ steps: 16, probe: [probe] }).pipe(
        Effect.provideService(RunGuard.RunGuard, Option.some(eager))
      )
      const [incident] = report.incidents
      assert.match(incident?.quarantined[0] ?? "", /-s10-auto$/)
      assert.strictEqual(incident?.resumedAt, 5)
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(16))
    }).pipe(Effect.provide([world("alter@10,corrupt@13"), memory]))
  )

  it.effect("without one nobody notices: that is what it is for", () =>
    Effect.gen(function* () {
      const report = yield* tiny({ steps: 16 }).pipe(Effect.provideService(RunGuard.RunGuard, Option.some(eager)))
      assert.strictEqual(report.incidents[0]?.resumedAt, 10)
    }).pipe(Effect.provide([world("alter@10,corrupt@13"), memory]))
  )

  it.effect("that is met costs one pass at each save and one at each load, and changes nothing", () =>
    Effect.gen(function* () {
      const probe = (yield* (yield* data(4)).batch(0)).slice(0, 1)
      const run = (options: TinyOptions, spec: string) =>
        Effect.gen(function* () {
          const report = yield* tiny({ steps: 12, ...options }).pipe(
            Effect.provideService(RunGuard.RunGuard, Option.some(eager))
          )
          return yield* finalState(report.trainingRunId)
        }).pipe(Effect.provide([world(spec, { seed: 2 }), memory]))
      assert.deepStrictEqual((yield* run({ probe }, "corrupt@8")).hash, (yield* run({}, "")).hash)
    })
  )
})
