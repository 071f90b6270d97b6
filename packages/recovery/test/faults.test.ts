import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Emulator } from "@tinkex/emulator"
import { Recovery, type RecoveryEvent } from "@tinkex/recovery"
import { tiny, world } from "./tinyRun.ts"

const record = Effect.gen(function* () {
  const recovery = yield* Recovery
  const events: Array<RecoveryEvent.RecoveryEvent> = []
  yield* recovery.events.pipe(
    Stream.runForEach((event) => Effect.sync(() => events.push(event))),
    Effect.forkScoped({ startImmediately: true })
  )
  return events
})

const finalState = Effect.fnUntraced(function* (trainingRunId: string) {
  const { control } = yield* Emulator
  const ledger = yield* control.ledger(trainingRunId)
  return { steps: ledger.map(({ step }) => step), hash: yield* control.stateHash(trainingRunId) }
})

/** Lets virtual time pass until a fiber ends, a day at the most. */
const live = Effect.fnUntraced(function* <A, E>(fiber: Fiber.Fiber<A, E>) {
  for (let seconds = 0; seconds < 86_400 && fiber.pollUnsafe() === undefined; seconds += 10) {
    yield* TestClock.adjust("10 seconds")
  }
  assert.isDefined(fiber.pollUnsafe(), "it still runs after a day")
  return yield* Fiber.join(fiber)
})

const guarded = (faults: string, options: Parameters<typeof tiny>[0] = {}) =>
  Effect.gen(function* () {
    const events = yield* record
    const report = yield* live(yield* Effect.forkChild(tiny(options), { startImmediately: true }))
    const { control } = yield* Emulator
    const made = (yield* control.requests).filter(({ endpoint }) => endpoint === "create_model").length
    return { events, made, report, state: yield* finalState(report.trainingRunId) }
  }).pipe(
    Effect.provide(Recovery.layer({ enabled: true, jitter: false })),
    Effect.provide(world(faults)),
    Effect.scoped
  )

const undisturbed = Effect.gen(function* () {
  const report = yield* live(yield* Effect.forkChild(tiny(), { startImmediately: true }))
  return yield* finalState(report.trainingRunId)
}).pipe(Effect.provide(world("")), Effect.scoped)

describe("with Recovery.layer({ enabled: true }) a run ends in the state of one that never failed", () => {
  // id of the fault, what happens, and the least number of incidents that it must lead to
  it.effect.each([
    ["F1", "corrupt@8", 1],
    ["F2", "poison:optim_step:after@7", 1],
    ["F3", "poison:save_weights:during@2", 1],
    ["F6", "corrupt-unflagged@8", 1],
    ["F8", "soft-fail:forward_backward@7", 1],
    ["F17", "expire:forward_backward@7", 1],
    ["F18", "forget:optim_step@7", 1],
    ["F19", "lose:optim_step@7", 0],
    ["F26", "burst:503:optim_step@4x3", 0],
    ["F33", "partition@0s=5m", 0],
    ["F37", "lose-session@8", 1],
    ["F41", "corrupt@8,absent@6", 1],
    ["F43", "corrupt@11,truncate@9", 1],
    ["F44", "corrupt@11,poison-step@9", 2],
    ["F47", "corrupt@11,vanish@9", 1],
    ["F66", "corrupt@5,corrupt@8,corrupt@11", 3]
  ] as const)("%s: %s", ([id, faults, incidents]) =>
    Effect.gen(function* () {
      const expected = yield* undisturbed
      const { report, state } = yield* guarded(faults)
      assert.deepStrictEqual(state, expected, id)
      assert.isAtLeast(report.incidents.length, incidents, id)
      if (incidents === 0) assert.strictEqual(report.incidents.length, 0, "nothing that a resend mends is an incident")
    })
  )

  it.effect("F27: a pause of six hours is one alert and no restart", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed
      const { events, report, state } = yield* guarded("pause@25s=6h", {
        onEvent: ({ _tag }) => (_tag === "StepCommitted" ? Effect.sleep("5 seconds") : Effect.void)
      })
      assert.deepStrictEqual(state, expected)
      assert.strictEqual(report.incidents.length, 0)
      assert.deepStrictEqual(
        events.flatMap((event) => (event._tag === "backpressure" ? [event.state] : [])).slice(0, 1),
        ["paused_capacity"]
      )
      assert.strictEqual(events.filter((event) => event._tag === "backpressure" && event.state !== "active").length, 1)
      assert.isFalse(events.some((event) => event._tag === "detected" || event._tag === "stalled"))
    })
  )

  it.effect("F46: a restore that the service has no room for waits as long as the pause, in one try", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed
      const { events, report, state } = yield* guarded("pause@20s=3h,corrupt@30s", {
        onEvent: ({ _tag }) => (_tag === "StepCommitted" ? Effect.sleep("5 seconds") : Effect.void)
      })
      assert.deepStrictEqual(state, expected)
      assert.strictEqual(report.attempts, 2)
      const { paused, recovering } = report.goodput.wasted
      assert.isAbove(paused, Duration.toMillis("178 minutes"), "the pause is accounted for as what it is")
      assert.isBelow(recovering, Duration.toMillis("2 minutes"))
      const told = events.map(({ _tag }) => _tag)
      assert.strictEqual(told.filter((tag) => tag === "paused").length, 1)
      assert.strictEqual(told.filter((tag) => tag === "started").length, 1)
      assert.notInclude(told, "failed")
    })
  )

  it.effect(
    "F31, RP19: a key that is refused for an hour is waited out, with one alert and no model made meanwhile",
    () =>
      Effect.gen(function* () {
        const expected = yield* undisturbed
        const { events, made, report, state } = yield* guarded("burst:401:any@30x700")
        assert.deepStrictEqual(state, expected)
        assert.strictEqual(report.incidents.length, 1)
        assert.strictEqual(report.incidents[0]?.cause, "paused")
        assert.isAtLeast(
          report.incidents[0] === undefined ? 0 : Duration.toMinutes(report.incidents[0].timeToRecover),
          20
        )
        const { paused, recovering } = report.goodput.wasted
        assert.isAbove(paused, Duration.toMillis("19 minutes"), "the wait is accounted for as what it is")
        assert.isBelow(recovering, Duration.toMillis("2 minutes"))
        assert.deepInclude(
          events.find(({ _tag }) => _tag === "paused"),
          { tag: "Unauthorized" }
        )
        assert.strictEqual(events.filter(({ _tag }) => _tag === "paused").length, 1)
        assert.strictEqual(made, 3, "the run, the restore, the rehearsal")
      })
  )
})
