import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Monitor, type RecoveryEvent, RecoveryPolicy } from "@tinkex/recovery"
import { RestClient } from "@tinkex/tinker"
import * as EventLog from "../src/internal/eventLog.ts"
import { RateLimited } from "@tinkex/tinker/TinkerError"
import { fail, FakeTinker, unavailable } from "./fakeTinker.ts"

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

  it.effect("M3: a flag is told once, after a second read has shown it, and the run is not read again", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { flags, monitor, reads, target } = yield* start(fake)
      fake.addRun("a")
      fake.poison("a")
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(flags, ["a"])
      assert.strictEqual(reads("a"), 2)
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

  it.effect.each([
    ["fails", () => Effect.fail(unavailable), "3 seconds"],
    // As the client ends a read that gets no answer.
    ["times out", () => Effect.delay(Effect.fail(unavailable), "60 seconds"), "7 minutes"]
  ] as const)("a list that %s is replaced by single reads in the same sweep", ([, onList, within]) =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      fake.onList = onList
      const { flags, monitor, target } = yield* start(fake)
      for (let i = 0; i < 50; i++) {
        fake.addRun(`run-${i}`)
        yield* monitor.add(target(`run-${i}`))
      }
      fake.poison("run-7")
      yield* TestClock.adjust(within)
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

  it.effect("M3: a flag that a second read does not show is told to nobody but the log of errors", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, flags, monitor, target } = yield* start(fake)
      const run = fake.addRun("a")
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("1 second")
      run.corrupted = true
      let reading = 0
      fake.onRead = () => Effect.sync(() => void (run.corrupted = ++reading === 1))
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(flags, [])
      assert.deepStrictEqual(
        events.map((event) => (event._tag === "poll_error" ? event.tag : event._tag)),
        ["Unconfirmed"]
      )
    })
  )

  it.effect("M3: where the second read gets no answer, the next sweep confirms", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { flags, monitor, target } = yield* start(fake)
      fake.addRun("a")
      fake.poison("a")
      let reading = 0
      fake.onRead = () => (++reading === 2 ? Effect.fail(unavailable) : Effect.void)
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("29 seconds")
      assert.deepStrictEqual(flags, [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(flags, ["a"])
    })
  )

  const fleet = Effect.fnUntraced(function* (size: number, options: RecoveryPolicy.RecoveryPolicyOptions = {}) {
    const fake = new FakeTinker()
    const started = yield* start(fake, options)
    yield* TestClock.adjust("1 second")
    for (let i = 0; i < size; i++) {
      fake.addRun(`run-${i}`)
      yield* started.monitor.add(started.target(`run-${i}`))
    }
    yield* TestClock.adjust("28 seconds")
    return { fake, ...started }
  })

  it.effect("M5: reads a hundred runs with one request, and confirms many flags by their pages", () =>
    Effect.gen(function* () {
      const { fake, flags } = yield* fleet(3000)
      fake.requests.length = 0
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(fake.requests.length, 30)
      for (let i = 0; i < 1000; i++) fake.poison(`run-${i}`)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(flags.length, 1000)
      assert.strictEqual(fake.requests.length, 30 + 30 + 10, "ten pages held the thousand")
    })
  )

  it.effect("M5: no second sees more requests than the cap, and the sweep goes on behind it", () =>
    Effect.gen(function* () {
      const { fake } = yield* fleet(3000, { maxRequestsPerSecond: 4 })
      const seen = fake.requests.length
      for (let second = 0; second < 60; second++) {
        const before = fake.requests.length
        yield* TestClock.adjust("1 second")
        assert.isAtMost(fake.requests.length - before, 4)
      }
      assert.isAtLeast(fake.requests.length - seen, 60)
    })
  )

  it.effect("M5: a Retry-After keeps every request back", () =>
    Effect.gen(function* () {
      const { fake } = yield* fleet(300)
      let refused = 0
      fake.onList = () =>
        refused++ === 0
          ? Effect.fail(fail(new RateLimited({ operation: "list", detail: "slow", retryAfter: Duration.seconds(20) })))
          : Effect.void
      yield* TestClock.adjust("2 seconds")
      fake.requests.length = 0
      yield* TestClock.adjust("17 seconds")
      assert.deepStrictEqual(fake.requests, [])
      yield* TestClock.adjust("3 seconds")
      assert.isAbove(fake.requests.length, 2)
    })
  )

  it.effect("M6: under a list that shifts and pages that fail, no run goes unread for two sweeps", () =>
    Effect.gen(function* () {
      const { fake, flags, monitor } = yield* fleet(1500)
      const looked = new Map<string, number>()
      let calls = 0
      fake.onList = () => {
        calls++
        // another tenant's run appears at the head of the list, and one of ours moves to its end or is timed out with its page
        if (calls % 3 === 0) fake.addRun(`foreign-${calls}`)
        if (calls % 5 === 0) {
          const id = `run-${(calls * 37) % 1500}`
          const run = fake.runs.get(id)
          fake.runs.delete(id)
          if (run !== undefined) fake.runs.set(id, run)
        }
        return calls % 11 === 0 ? Effect.fail(unavailable) : Effect.void
      }
      for (let sweep = 0; sweep < 8; sweep++) {
        yield* TestClock.adjust("30 seconds")
        const now = Duration.toMillis("1 second") * (29 + 30 * (sweep + 1))
        for (let i = 0; i < 1500; i++) {
          const { seenWell } = Option.getOrThrow(yield* monitor.inspect(`run-${i}`))
          looked.set(`run-${i}`, Math.max(looked.get(`run-${i}`) ?? 0, now - seenWell))
        }
      }
      assert.deepStrictEqual(flags, [])
      assert.isAtMost(Math.max(...looked.values()), 2 * 30_000)
    })
  )

  it.effect("M7: a pause of six hours is told twice, and is no silence", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, monitor, target } = yield* start(fake, { stalledAfter: "10 minutes" })
      fake.addRun("a")
      yield* monitor.add(target("a"))
      yield* monitor.noteQueue("a", { state: "paused_capacity", reason: "full" })
      yield* TestClock.adjust("3 hours")
      // flickers for less than a minute, but over a sweep
      yield* monitor.noteQueue("a", { state: "active", reason: undefined })
      yield* TestClock.adjust("50 seconds")
      yield* monitor.noteQueue("a", { state: "paused_rate_limit", reason: undefined })
      yield* TestClock.adjust("3 hours")
      yield* monitor.noteQueue("a", { state: "active", reason: undefined })
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(
        events.map((event) => (event._tag === "backpressure" ? event.state : event._tag)),
        ["paused_capacity", "active"]
      )
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(events.at(-1)?._tag, "stalled")
    })
  )

  it.effect("M8: a service that is away is told once, and once when it is back; the poller lives", () =>
    Effect.gen(function* () {
      const { events, fake, flags } = yield* fleet(500)
      const down = () => Effect.fail(unavailable)
      fake.onList = down
      fake.onRead = down
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(
        events.filter((event) => event._tag !== "poll_error").map((event) => event._tag),
        ["degraded"]
      )
      fake.poison("run-3")
      fake.onList = () => Effect.void
      fake.onRead = () => Effect.void
      yield* TestClock.adjust("1 minute")
      const told = events.filter((event) => event._tag !== "poll_error")
      assert.deepStrictEqual(
        told.map((event) => [event._tag, event.run]),
        [
          ["degraded", "*"],
          ["restored", "*"]
        ]
      )
      assert.isAtLeast(Duration.toMinutes(told[1]?.duration ?? 0), 10)
      assert.deepStrictEqual(flags, ["run-3"])
    })
  )

  it.effect("a wall clock that jumps in either direction changes neither the pace nor the silences", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, monitor, reads, target } = yield* start(fake)
      fake.addRun("a")
      yield* monitor.add(target("a"))
      yield* TestClock.adjust("1 second")
      const skewed =
        (millis: number) =>
        (clock: Clock.Clock): Clock.Clock => ({
          ...clock,
          currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
          currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis)
        })
      for (const millis of [-3_600_000, 3_600_000]) {
        const before = reads("a")
        const poller = yield* monitor.run.pipe(Effect.updateService(Clock.Clock, skewed(millis)), Effect.forkScoped)
        yield* TestClock.adjust("5 minutes")
        assert.isAtLeast(reads("a") - before, 20)
        yield* Fiber.interrupt(poller)
      }
      assert.deepStrictEqual(events, [])
    })
  )

  it.effect("learns how quiet a run usually is, after it has been active for a while", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { events, monitor, target } = yield* start(fake, { pollInterval: "10 seconds", stalledAfter: "1 hour" })
      const run = fake.addRun("a")
      yield* monitor.add(target("a"))
      const step = Effect.gen(function* () {
        run.lastRequest += 60_000
        yield* TestClock.adjust("1 minute")
      })
      yield* Effect.repeat(step, { times: 3 })
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(events.length, 0, "still warming up")
      yield* Effect.repeat(step, { times: 10 })
      yield* TestClock.adjust("56 minutes")
      const [stall] = events
      assert.strictEqual(stall?._tag, "stalled")
      // five times the longest silence that the run has shown, which was the ten minutes
      assert.closeTo(Duration.toMinutes(stall?.duration ?? 0), 55, 1)
    })
  )

  it.effect("a silence leads to a recovery only where the policy says so", () =>
    Effect.gen(function* () {
      for (const [onStall, times] of [
        ["report", 0],
        ["recover", 1]
      ] as const) {
        const fake = new FakeTinker()
        const { monitor, target } = yield* start(fake, { onStall, stalledAfter: "10 minutes" })
        fake.addRun("a")
        let told = 0
        yield* monitor.add({ ...target("a"), onStall: () => Effect.sync(() => void told++) })
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(told, times, onStall)
      }
    })
  )

  it.effect("a run that the service does not know is asked about less and less", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const { monitor, reads, target } = yield* start(fake)
      yield* monitor.add(target("gone"))
      yield* TestClock.adjust("6 hours")
      assert.isAtMost(reads("gone"), 16)
      assert.isAtLeast(reads("gone"), 10)
    })
  )
})
