import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Fiber, Option, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Goodput, Journal, RunGuard } from "../src/index.ts"
import { JournalRecord } from "../src/JournalRecord.ts"
import { attempt, commit, header, incident, started, step } from "./fixtures.ts"
import { memory, tiny, world } from "./TinyRun.ts"

const fold = (rows: ReadonlyArray<readonly [seconds: number, JournalRecord]>) =>
  Goodput.of(Goodput.fold(rows.map(([seconds, record]) => ({ t: DateTime.makeUnsafe(1000 * seconds), record }))))

const epoch: JournalRecord = {
  _tag: "Epoch",
  owner: { host: "a", bootId: null, pid: 1, file: null },
  formerOwnerDead: true
}

const notLetIn = (attempt: number): JournalRecord => ({
  _tag: "Incident",
  id: `inc-${attempt}`,
  attempt,
  cause: "paused",
  detail: "the key was not accepted",
  step: 1
})

const wasted = (goodput: Goodput.Goodput) =>
  Object.fromEntries(Object.entries(goodput.wasted).filter(([, millis]) => millis > 0))

describe("Goodput", () => {
  it("tells each cause apart, and takes back what a restore went behind", () => {
    const goodput = fold([
      [0, epoch],
      [0, header],
      [1, attempt(1)],
      [5, started(1)], //                                     5 s starting
      [6, step(1, 0)],
      [15, commit(1, 0)], //                                  10 s
      [16, step(1, 1, "s2")],
      [25, commit(1, 1)], //                                  10 s, saved here
      [30, commit(1, 2)], //                                  5 s, lost below
      [31, { _tag: "Paused", cause: "capacity" }], //         1 s pending
      [91, { _tag: "Resumed", cause: "capacity" }], //        60 s paused
      [99, incident(1, 3)], //                                8 s detecting, with the one before the pause
      [103, attempt(2, "s2", 2)],
      [110, started(2)], //                                   11 s recovering
      [120, commit(2, 2)], //                                 10 s
      [125, epoch], //                                        5 s nobody there
      [127, attempt(3, "s2", 2)],
      [130, started(3)], //                                   5 s recovering, 10 s replayed
      [135, commit(3, 2)],
      [140, commit(3, 3)],
      [145, commit(3, 4)],
      [150, commit(3, 5)], //                                 20 s, and the last
      [160, { _tag: "Completed", path: null, step: 6, metrics: {} }] // 10 s finishing
    ])
    assert.deepStrictEqual(wasted(goodput), {
      starting: 5000,
      replayed: 15_000,
      detecting: 9000,
      recovering: 16_000,
      paused: 60_000,
      down: 5000,
      finishing: 10_000
    })
    assert.strictEqual(goodput.useful, 40_000)
    assert.strictEqual(goodput.elapsed, 160_000)
    assert.strictEqual(goodput.failures, 1)
  })

  it.effect.prop(
    "GP1 (P10): useful and wasted time add up to the time that has passed, whatever the records say",
    [Schema.Array(Schema.Tuple([Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 })), JournalRecord]))],
    ([rows]) =>
      Effect.sync(() => {
        let at = 0
        let account = Goodput.empty
        let first: number | undefined
        for (const [gap, record] of rows) {
          if (record._tag === "Snapshot") continue
          at += gap
          first ??= at
          account = Goodput.apply(account, at, record)
          const { elapsed, useful, wasted } = Goodput.of(account)
          assert.strictEqual(elapsed, at - first)
          assert.strictEqual(useful + Object.values(wasted).reduce((a, b) => a + b, 0), elapsed)
          assert.isAtLeast(useful, 0)
          for (const millis of Object.values(wasted)) assert.isAtLeast(millis, 0)
        }
      }),
    { arbitrary: { size: 40 } }
  )

  it("who was not let in is paused until the next attempt begins, and has not failed", () => {
    const goodput = fold([
      [0, epoch],
      [0, header],
      [0, attempt(1)],
      [0, started(1)],
      [10, commit(1, 0)],
      [12, notLetIn(1)],
      [100, attempt(2, "s1", 1)],
      [103, notLetIn(2)], // the next try is refused as well
      [163, attempt(3, "s1", 1)],
      [170, started(3)],
      [180, commit(3, 1)]
    ])
    assert.deepInclude(goodput.wasted, { detecting: 2000, paused: 148_000, recovering: 10_000 })
    assert.strictEqual(goodput.failures, 0)
  })

  it("a clock that is set back takes nothing back", () => {
    const goodput = fold([
      [100, epoch],
      [110, attempt(1)],
      [50, started(1)],
      [120, commit(1, 0)]
    ])
    assert.strictEqual(goodput.elapsed, 20_000)
  })

  it.effect("a pause is over where what was waited for fails", () =>
    Effect.gen(function* () {
      const journal = yield* Journal
      const once: RunGuard.RunGuard = {
        watch: () => Effect.void,
        recover: (request) =>
          request
            .restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
            .pipe(Effect.retry({ times: 1, schedule: Schedule.spaced("30 minutes") }))
      }
      const running = yield* Effect.forkChild(tiny().pipe(Effect.provideService(RunGuard.RunGuard, Option.some(once))))
      for (let minutes = 0; minutes < 150; minutes++) yield* TestClock.adjust("1 minute")
      const { goodput } = yield* Fiber.join(running)
      const records = yield* journal.read("tiny")
      assert.isTrue(records.some(({ record }) => record._tag === "Paused"))
      assert.approximately(goodput.wasted.paused, 60 * 60_000, 60_000)
      assert.approximately(goodput.wasted.recovering, 30 * 60_000, 60_000)
    }).pipe(
      Effect.provide([world("corrupt@8,delay:create_model@2=1h:paused_capacity,soft-fail:create_model@2"), memory])
    )
  )

  it.effect("GP3: goes on from one process to the next, and is in the report", () =>
    Effect.gen(function* () {
      const eager: RunGuard.RunGuard = {
        watch: () => Effect.void,
        recover: (request) =>
          request
            .restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
            .pipe(Effect.delay("1 minute"))
      }
      let committed = 0
      yield* Effect.exit(
        tiny({
          onEvent: (event) => (event._tag === "StepCommitted" && ++committed === 3 ? Effect.interrupt : Effect.void)
        })
      )
      yield* TestClock.adjust("1 hour")
      const fiber = yield* Effect.forkChild(
        tiny({ stall: { floor: "1 hour" } }).pipe(Effect.provideService(RunGuard.RunGuard, Option.some(eager)))
      )
      for (let minute = 0; minute < 30; minute++) yield* TestClock.adjust("1 minute")
      const { goodput } = yield* Fiber.join(fiber)
      assert.strictEqual(goodput.wasted.down, Duration.toMillis("1 hour"))
      // A minute of it is the guard's; the new process needs a moment to find that nothing is left of the old one's session.
      assert.isAtLeast(goodput.wasted.recovering, Duration.toMillis("1 minute"))
      assert.isAtMost(goodput.wasted.recovering, Duration.toMillis("90 seconds"))
      assert.isAtLeast(goodput.useful, Duration.toMillis("9 minutes"))
      assert.strictEqual(goodput.failures, 1)
      const journal = yield* Journal
      const read = Goodput.of(Goodput.fold(yield* journal.read("tiny")))
      assert.deepStrictEqual(read, goodput)
    }).pipe(Effect.provide([world("delay:optim_step@6=10m,corrupt@8"), memory]))
  )
})
