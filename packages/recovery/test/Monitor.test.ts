import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Monitor, type RecoveryEvent, RecoveryPolicy } from "@tinkex/recovery"
import { RestClient } from "@tinkex/tinker"
import * as EventLog from "../src/internal/eventLog.ts"
import { FakeTinker, unavailable } from "./fakeTinker.ts"

const start = Effect.fnUntraced(function* (fake: FakeTinker, options: RecoveryPolicy.RecoveryPolicyOptions = {}) {
  const policy = yield* RecoveryPolicy.make(options)
  const log = yield* EventLog.make
  const events: Array<RecoveryEvent.RecoveryEvent> = []
  yield* log.events.pipe(
    Stream.runForEach((event) => Effect.sync(() => events.push(event))),
    Effect.forkScoped({ startImmediately: true })
  )
  const monitor = yield* Monitor.make(policy, log, yield* Effect.provide(RestClient, fake.layer))
  const poller = yield* Effect.forkScoped(monitor.run)
  const flags: Array<string> = []
  const target = (id: string): Monitor.Target => ({
    trainingRunId: id,
    run: id,
    attempt: null,
    onFlag: () => Effect.sync(() => flags.push(id))
  })
  const reads = (id: string) => fake.requests.filter((request) => request === `get ${id}`).length
  return { monitor, poller, events, flags, target, reads }
})

describe("Monitor", () => {
  it.effect("M1: looks right after a run is added, then once an interval, whoever else comes and goes", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { monitor, reads, target } = yield* start(fake)
      for (const id of ["a", "b"]) fake.addRun(id)
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(reads("a"), 1)
      yield* monitor.add(target("b"))
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([reads("a"), reads("b")], [1, 1])
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual([reads("a"), reads("b")], [2, 2])
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual([reads("a"), reads("b")], [12, 12])
    })
  )

  it.effect("M2: errors, defects and silence of one run are its own, and the poller lives", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, flags, monitor, poller, target } = yield* start(fake)
      for (const id of ["fails", "dies", "hangs", "throws", "well"]) {
        fake.addRun(id)
        yield* monitor.add(target(id))
      }
      fake.onRead = (id) => {
        if (id === "fails") return Effect.fail(unavailable)
        if (id === "dies") return Effect.die(new Error("boom"))
        if (id === "hangs") return Effect.never
        if (id === "throws") throw new Error("thrown")
        return Effect.void
      }
      yield* TestClock.adjust("1 second")
      fake.poison("well")
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(flags, ["well"])
      const errors = events.filter((event) => event._tag === "poll_error")
      for (const id of ["fails", "dies", "hangs", "throws"]) {
        const own = errors.filter((event) => event.run === id)
        assert.deepStrictEqual(
          own.map((event) => event.consecutive),
          own.map((_, i) => i + 1),
          id
        )
        assert.isAbove(own.length, 0, id)
      }
      assert.isTrue(errors.some((event) => event.run === "fails" && event.tag === "ServerFailure"))
      assert.isTrue(errors.every((event) => event.run !== "well"))
      assert.isUndefined(poller.pollUnsafe())
    })
  )

  it.effect("a run that answers again counts its errors from the start", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, monitor, target } = yield* start(fake)
      fake.addRun("a")
      yield* monitor.add(target("a"))
      for (const broken of [true, true, false, true]) {
        fake.onRead = () => (broken ? Effect.fail(unavailable) : Effect.void)
        yield* TestClock.adjust("30 seconds")
      }
      const errors = events.filter((event) => event._tag === "poll_error")
      // one look at once, one in each interval
      assert.deepStrictEqual(
        errors.map((event) => event.consecutive),
        [1, 2, 3, 1]
      )
    })
  )

  it.effect("M3: a flag is told once and the run is not read again", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { flags, monitor, reads, target } = yield* start(fake)
      fake.addRun("a")
      fake.poison("a")
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(flags, ["a"])
      assert.strictEqual(reads("a"), 1)
      assert.isTrue(Option.getOrThrow(yield* monitor.inspect("a")).flagged)
    })
  )

  it.effect("M3: whoever could not be told is told again", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, monitor, target } = yield* start(fake)
      fake.addRun("a")
      fake.poison("a")
      let told = 0
      yield* monitor.add({
        ...target("a"),
        onFlag: () => (++told === 1 ? Effect.die(new Error("not now")) : Effect.void)
      })
      yield* TestClock.adjust("31 seconds")
      assert.strictEqual(told, 2)
      assert.strictEqual(events.filter((event) => event._tag === "poll_error").length, 1)
    })
  )

  it.effect("M4: a poller that crashed goes on with the same runs", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { flags, monitor, poller, target } = yield* start(fake)
      fake.addRun("a")
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(poller)
      fake.poison("a")
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(flags, [])
      yield* Effect.forkScoped(monitor.run)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(flags, ["a"])
    })
  )

  it.effect("many runs are read from pages, and those that no page shows one by one", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { flags, monitor, reads, target } = yield* start(fake)
      yield* TestClock.adjust("1 second")
      for (let i = 0; i < 50; i++) {
        fake.addRun(`run-${i}`)
        yield* monitor.add(target(`run-${i}`))
      }
      yield* monitor.add(target("deleted"))
      fake.poison("run-49")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(reads("run-1"), 0)
      assert.isAbove(reads("deleted"), 0)
      assert.deepStrictEqual(flags, ["run-49"])
    })
  )

  it.effect("a list that fails is replaced by single reads in the same sweep", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      fake.onList = () => Effect.fail(unavailable)
      const { flags, monitor, target } = yield* start(fake)
      for (let i = 0; i < 50; i++) {
        fake.addRun(`run-${i}`)
        yield* monitor.add(target(`run-${i}`))
      }
      fake.poison("run-7")
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(flags, ["run-7"])
    })
  )

  it.effect("each silence is reported once, with its length, and again after new activity", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, monitor, target } = yield* start(fake, { stalledAfter: "10 minutes" })
      const run = fake.addRun("a")
      yield* monitor.add(target("a"))
      const stalls = () => events.filter((event) => event._tag === "stalled")
      yield* TestClock.adjust("9 minutes")
      assert.strictEqual(stalls().length, 0)
      yield* TestClock.adjust("20 minutes")
      assert.strictEqual(stalls().length, 1)
      assert.strictEqual(Duration.toMinutes(stalls()[0]?.duration ?? 0), 10)
      run.lastRequest = Duration.toMillis("29 minutes")
      yield* TestClock.adjust("20 minutes")
      assert.strictEqual(stalls().length, 2)
    })
  )

  it.effect("a flag beside an unreadable time is still seen", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { flags, monitor, target } = yield* start(fake)
      fake.addRun("a").lastRequest = Number.NaN
      fake.poison("a")
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(flags, ["a"])
    })
  )

  it.effect("only the target that is in place can be removed", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { flags, monitor, target } = yield* start(fake)
      fake.addRun("a")
      const [old, current] = [target("a"), target("a")]
      yield* monitor.add(old)
      yield* monitor.add(current)
      yield* monitor.remove(old)
      fake.poison("a")
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(flags, ["a"])
      yield* monitor.remove(current)
      assert.isTrue(Option.isNone(yield* monitor.inspect("a")))
    })
  )
})
