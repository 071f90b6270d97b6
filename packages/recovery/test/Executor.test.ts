import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Metric, Option, Schedule, Schema, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { Executor, RecoveryError, type RecoveryEvent, RecoveryPolicy } from "@tinkex/recovery"
import { AttemptTimedOut, RestoreFailed } from "@tinkex/recovery/RecoveryError"
import * as EventLog from "../src/internal/eventLog.ts"
import * as Slots from "../src/internal/slots.ts"
import * as Tree from "../src/internal/tree.ts"

const settle = TestClock.adjust(0).pipe(Effect.repeat({ times: 20 }))

const incident = (id: string, changes: Partial<Executor.Incident> = {}): Executor.Incident => ({
  id: `inc-${id}`,
  run: id,
  trainingRunId: id,
  attempt: 1,
  cause: "poisoned",
  detail: "flagged",
  source: "sweep",
  lastSeenWell: Option.none(),
  ...changes
})

const request = (
  id: string,
  restore: Executor.Request<string>["restore"],
  changes: Partial<Executor.Incident> = {}
): Executor.Request<string> => ({
  incident: incident(id, changes),
  restore,
  outcome: (newTrainingRunId) => ({ newTrainingRunId, path: null, step: null, quarantined: [] })
})

const transient = (runId: string) =>
  new RecoveryError({ reason: new RestoreFailed({ runId, tag: "ServerFailure", detail: "503", isRetryable: true }) })

const start = Effect.fnUntraced(function* (
  options: RecoveryPolicy.RecoveryPolicyOptions = {},
  monitor: Effect.Effect<never> = Effect.never
) {
  const policy = yield* RecoveryPolicy.make({ jitter: false, ...options })
  const log = yield* EventLog.make
  const events: Array<RecoveryEvent.RecoveryEvent> = []
  yield* log.events.pipe(
    Stream.runForEach((event) => Effect.sync(() => events.push(event))),
    Effect.forkScoped({ startImmediately: true })
  )
  const tree = yield* Tree.start(monitor)
  return { executor: Executor.make(policy, log, tree.refs.executor), tree, events }
})

describe("Executor", () => {
  it.effect("X2: every kind of end settles its request and frees its run", () =>
    Effect.gen(function* () {
      const { events, executor } = yield* start({ maxAttempts: 1, attemptDeadline: "1 minute" })
      const ends: Record<string, [Executor.Request<string>["restore"], string]> = {
        fails: [() => Effect.fail(transient("x")), "Exhausted"],
        dies: [() => Effect.die(new Error("boom")), "Died"],
        throws: [
          () => {
            throw new Error("thrown")
          },
          "Died"
        ],
        hangs: [() => Effect.never, "Exhausted"],
        interrupts: [() => Effect.interrupt, "Cancelled"]
      }
      for (const [id, [restore, tag]] of Object.entries(ends)) {
        const fiber = yield* Effect.forkChild(Effect.flip(executor.recover(request(id, restore))))
        yield* settle
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, tag, id)
      }
      assert.deepStrictEqual(yield* executor.running, [])
      assert.deepStrictEqual(
        events.filter((event) => event._tag === "failed").map((event) => event.run),
        ["fails", "dies", "throws", "hangs"]
      )
    })
  )

  it.effect("X6: the deadline of a try stands still while the service holds it back, and that is told once", () =>
    Effect.gen(function* () {
      const { events, executor } = yield* start({ maxAttempts: 1, attemptDeadline: "1 minute", pauseLimit: "4 hours" })
      const restoring = yield* Effect.forkChild(
        executor.recover(
          request("a", (report) =>
            Effect.gen(function* () {
              for (let i = 0; i < 3; i++) {
                yield* Effect.sleep("10 seconds")
                yield* report({ _tag: "QueueState", state: { state: "paused_capacity", reason: "full" } })
                yield* Effect.sleep("1 hour")
                yield* report({ _tag: "QueueState", state: { state: "active", reason: undefined } })
              }
              yield* Effect.sleep("20 seconds")
              return "new"
            })
          )
        )
      )
      yield* settle
      for (let minutes = 0; minutes < 185; minutes++) yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Fiber.join(restoring), "new")
      const paused = events.filter(({ _tag }) => _tag === "paused")
      assert.deepInclude(paused[0], { tag: "paused_capacity", detail: "full", try: 1 })
      assert.strictEqual(paused.length, 1)
    })
  )

  it.effect("X2, X6: nobody is held back for longer than the pause limit, and time that is not paused counts", () =>
    Effect.gen(function* () {
      const { executor } = yield* start({ maxAttempts: 1, attemptDeadline: "1 minute", pauseLimit: "2 hours" })
      for (const [held, hours] of [
        [true, 2],
        [false, 0]
      ] as const) {
        const fiber = yield* Effect.forkChild(
          Effect.flip(
            executor.recover(
              request(`held-${held}`, (report) =>
                Effect.andThen(
                  report({
                    _tag: "QueueState",
                    state: { state: held ? "paused_rate_limit" : "unknown", reason: undefined }
                  }),
                  Effect.never
                )
              )
            )
          )
        )
        yield* settle
        yield* TestClock.adjust(Duration.hours(hours))
        yield* TestClock.adjust("59 seconds")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "Exhausted")
      }
    })
  )

  it.effect("X1: refuses a second recovery of a training run, whatever it is called", () =>
    Effect.gen(function* () {
      const { executor } = yield* start()
      const first = yield* Effect.forkChild(
        executor.recover(request("a", () => Effect.as(Effect.sleep("1 second"), "x")))
      )
      yield* settle
      const second = yield* Effect.flip(
        executor.recover(request("a", () => Effect.succeed("y"), { id: "inc-other", run: "b" }))
      )
      assert.isTrue(second.reason._tag === "AlreadyRecovering" && second.reason.incident === "inc-a")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(first), "x")
    })
  )

  it.effect("X3: each detected incident ends in exactly one completed or exhausted", () =>
    Effect.gen(function* () {
      const { events, executor } = yield* start({ maxAttempts: 2 })
      for (let i = 0; i < 30; i++) {
        let tries = 0
        const restore = () => {
          tries++
          if (i % 5 === 4) return Effect.die("boom")
          if (i % 3 === 0 || (i % 3 === 1 && tries === 1)) return Effect.fail(transient("x"))
          return Effect.succeed(`new-${i}`)
        }
        const fiber = yield* Effect.forkChild(executor.recover(request(`run-${i}`, restore)))
        yield* settle
        if (i % 7 === 6) yield* executor.cancel(`run-${i}`, "test")
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.await(fiber)
        const own = events.filter((event) => event.run === `run-${i}`).map((event) => event._tag)
        assert.strictEqual(own[0], "detected")
        assert.strictEqual(own.filter((tag) => tag === "completed" || tag === "exhausted").length, 1, own.join())
      }
    })
  )

  it.effect("X5: those who come back do not keep a newcomer out for ever", () =>
    Effect.gen(function* () {
      const slots = Slots.make(1)
      const order: Array<string> = []
      const work = (id: string, again: boolean) =>
        slots
          .hold(again)(() =>
            Effect.andThen(
              Effect.sync(() => order.push(id)),
              Effect.sleep("1 second")
            )
          )
          .pipe(Effect.forkChild({ startImmediately: true }))
      yield* work("first", false)
      for (const id of ["new-1", "new-2"]) yield* work(id, false)
      for (let i = 1; i <= 5; i++) yield* work(`again-${i}`, true)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(order, ["first", "again-1", "again-2", "again-3", "new-1", "again-4", "again-5", "new-2"])
    })
  )

  it.effect("X5: a run that comes back for its next try goes before one that has not had its first", () =>
    Effect.gen(function* () {
      const { executor } = yield* start({ maxConcurrent: 1, baseDelay: "1 second" })
      const order: Array<string> = []
      const work = (id: string, failing: boolean) =>
        executor.recover(
          request(id, () =>
            Effect.sync(() => order.push(id)).pipe(
              Effect.andThen(Effect.sleep("10 seconds")),
              Effect.andThen(
                Effect.suspend(() =>
                  failing && order.filter((x) => x === id).length === 1
                    ? Effect.fail(transient(id))
                    : Effect.succeed(id)
                )
              )
            )
          )
        )
      yield* Effect.forkChild(work("a", true))
      yield* settle
      for (const id of ["b", "c", "d"]) {
        yield* Effect.forkChild(work(id, false))
        yield* settle
      }
      yield* TestClock.adjust("1 minute").pipe(Effect.repeat({ times: 2 }))
      assert.deepStrictEqual(order, ["a", "b", "a", "c", "d"])
    })
  )

  it.effect("X5: waiting for the next try holds no place, and a cancelled waiter leaves the line", () =>
    Effect.gen(function* () {
      const { executor } = yield* start({ maxConcurrent: 1, baseDelay: "30 seconds" })
      yield* Effect.forkChild(Effect.ignore(executor.recover(request("a", () => Effect.fail(transient("a"))))))
      yield* settle
      assert.strictEqual(yield* executor.recover(request("b", () => Effect.succeed("new-b"))), "new-b")
      const gate = yield* Deferred.make<void>()
      yield* Effect.forkChild(executor.recover(request("c", () => Effect.as(Deferred.await(gate), "c"))))
      yield* settle
      const waiting = yield* Effect.forkChild(executor.recover(request("d", () => Effect.succeed("d"))))
      const after = yield* Effect.forkChild(executor.recover(request("e", () => Effect.succeed("e"))))
      yield* settle
      yield* Fiber.interrupt(waiting)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(after), "e")
    })
  )

  it.effect("X5: a try that the service has no room for lends its place, and goes on at once when there is some", () =>
    Effect.gen(function* () {
      const { executor } = yield* start({ maxConcurrent: 1 })
      const going = new Set<string>()
      const work = (id: string, held?: "paused_capacity" | "paused_rate_limit") =>
        Effect.gen(function* () {
          const go = yield* Deferred.make<void>()
          const end = yield* Deferred.make<void>()
          const fiber = yield* Effect.forkChild(
            executor.recover(
              request(id, (report) =>
                Effect.gen(function* () {
                  going.add(id)
                  if (held !== undefined) {
                    yield* report({ _tag: "QueueState", state: { state: held, reason: undefined } })
                    yield* Deferred.await(go)
                    yield* report({ _tag: "QueueState", state: { state: "active", reason: undefined } })
                  }
                  yield* Deferred.await(end)
                  going.delete(id)
                  return id
                })
              )
            )
          )
          yield* settle
          const set = (gate: Deferred.Deferred<void>) => Effect.andThen(Deferred.succeed(gate, undefined), settle)
          return { go: set(go), end: set(end), fiber }
        })
      const a = yield* work("a", "paused_capacity")
      const b = yield* work("b")
      const c = yield* work("c")
      assert.deepStrictEqual([...going], ["a", "b"], "one is at work while the other waits")
      yield* b.end
      assert.deepStrictEqual([...going], ["a", "c"])
      const d = yield* work("d", "paused_rate_limit")
      const e = yield* work("e")
      yield* a.go
      assert.deepStrictEqual([...going], ["a", "c"])
      yield* c.end
      assert.deepStrictEqual([...going], ["a"], "nobody else is let in for the one too many")
      yield* a.end
      assert.deepStrictEqual([...going], ["d"], "whoever asks for too much lends nothing")
      yield* Fiber.interrupt(d.fiber)
      yield* settle
      assert.include([...going], "e")
      yield* e.end
      for (const { fiber } of [a, b, c, e]) assert.isString(yield* Fiber.join(fiber))
    })
  )

  it.effect("X5: no more than ten wait for room for each place, whatever becomes of them", () =>
    Effect.gen(function* () {
      const { executor } = yield* start({ maxConcurrent: 2 })
      let waiting = 0
      const fibers = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, i) => `run-${i}`),
        (id) =>
          Effect.forkChild(
            executor.recover(
              request(id, (report) =>
                Effect.ensuring(
                  Effect.andThen(
                    report({ _tag: "QueueState", state: { state: "paused_capacity", reason: undefined } }),
                    Effect.suspend(() => {
                      waiting++
                      return Effect.never
                    })
                  ),
                  Effect.sync(() => waiting--)
                )
              )
            )
          )
      )
      yield* settle
      assert.strictEqual(waiting, 22)
      yield* Effect.forEach(fibers.slice(0, 30), Fiber.interrupt)
      yield* settle
      assert.strictEqual(waiting, 10, "those who are left have come in")
      yield* Effect.forEach(fibers, Fiber.interrupt)
      yield* settle
      let most = 0
      let now = 0
      yield* Effect.forEach(
        Array.from({ length: 6 }, (_, i) => `late-${i}`),
        (id) =>
          executor.recover(
            request(id, () =>
              Effect.gen(function* () {
                most = Math.max(most, ++now)
                yield* Effect.yieldNow
                now--
                return id
              })
            )
          ),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(most, 2, "all places are there again")
    })
  )

  it.effect("a user's schedule decides on the waits, and may end the tries", () =>
    Effect.gen(function* () {
      const { events, executor } = yield* start({
        maxAttempts: 100,
        schedule: Schedule.spaced("3 seconds").pipe(Schedule.upTo({ times: 2 }))
      })
      const fiber = yield* Effect.forkChild(
        Effect.flip(executor.recover(request("a", () => Effect.fail(transient("a")))))
      )
      yield* settle
      yield* TestClock.adjust("6 seconds")
      const { reason } = yield* Fiber.join(fiber)
      assert.isTrue(reason._tag === "Exhausted" && reason.tries === 3)
      assert.deepStrictEqual(
        events
          .filter((event) => event._tag === "failed")
          .map((event) => (event.nextTryIn === null ? null : Duration.toSeconds(event.nextTryIn))),
        [3, 3, null]
      )
    })
  )

  it.effect("a monitor that crashes leaves a running recovery alive", () =>
    Effect.gen(function* () {
      const crash = yield* Deferred.make<never>()
      let starts = 0
      const monitor = Effect.suspend(() => (++starts === 1 ? Deferred.await(crash) : Effect.never))
      const { executor } = yield* start({}, monitor)
      const fiber = yield* Effect.forkChild(
        executor.recover(request("a", () => Effect.as(Effect.sleep("10 seconds"), "new-a")))
      )
      yield* settle
      yield* Deferred.die(crash, new Error("monitor bug"))
      yield* settle
      assert.strictEqual(starts, 2)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), "new-a")
    })
  )

  it.effect("X2: workers that are shut down settle their requests", () =>
    Effect.gen(function* () {
      const { executor, tree } = yield* start()
      const fiber = yield* Effect.forkChild(Effect.flip(executor.recover(request("a", () => Effect.never))))
      yield* settle
      yield* tree.terminateChild("executor")
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "Cancelled")
      const refused = yield* Effect.flip(executor.recover(request("b", () => Effect.succeed("b"))))
      assert.strictEqual(refused.reason._tag, "Cancelled")
    })
  )

  it.effect("each worker is a child of the executor while it works", () =>
    Effect.gen(function* () {
      const { executor, tree } = yield* start()
      const fiber = yield* Effect.forkChild(
        executor.recover(request("a", () => Effect.as(Effect.sleep("1 second"), "x")))
      )
      yield* settle
      assert.deepStrictEqual(
        (yield* tree.refs.executor.whichChildren).map(({ id, status }) => [id, status]),
        [["inc-a-1", "running"]]
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(fiber)
      yield* settle
      assert.deepStrictEqual(yield* tree.refs.executor.whichChildren, [])
    })
  )

  it.effect("the incident is one span below the caller's, and its events stand on it", () =>
    Effect.gen(function* () {
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      yield* Effect.gen(function* () {
        const { executor } = yield* start({ maxAttempts: 2, baseDelay: "1 second" })
        let tries = 0
        const fiber = yield* executor
          .recover(
            request("a", (report) =>
              report({ _tag: "Quarantined", path: "p", why: "bad" }).pipe(
                Effect.andThen(++tries === 1 ? Effect.fail(transient("a")) : Effect.succeed("new")),
                Effect.withSpan("inner")
              )
            )
          )
          .pipe(Effect.withSpan("caller"), Effect.forkChild)
        yield* settle
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
      }).pipe(Effect.scoped, Effect.withTracer(tracer))
      const own = spans.filter((span) => span.name === "recovery.incident")
      assert.strictEqual(own.length, 1)
      assert.strictEqual(own[0]?.attributes.get("recovery.incident"), "inc-a")
      assert.deepStrictEqual(
        own[0]?.events.map(([name]) => name),
        ["detected", "started", "quarantined", "failed", "started", "quarantined", "completed"]
      )
      assert.strictEqual(
        Option.map(own[0]!.parent, (parent) => parent.spanId).pipe(Option.getOrNull),
        spans.find((span) => span.name === "caller")?.spanId
      )
      assert.isTrue(
        spans
          .filter((span) => span.name === "inner")
          .every((span) => Option.exists(span.parent, (parent) => parent.spanId === own[0]?.spanId))
      )
      assert.strictEqual(own[0]?.status._tag, "Ended")
    })
  )

  it.effect("counts events by name and measures how long detection and recovery took", () =>
    Effect.gen(function* () {
      const { executor } = yield* start()
      yield* TestClock.adjust("20 seconds")
      const fiber = yield* Effect.forkChild(
        executor.recover(
          request("a", () => Effect.as(Effect.sleep("7 seconds"), "x"), { lastSeenWell: Option.some(15_000) })
        )
      )
      yield* settle
      yield* TestClock.adjust("7 seconds")
      yield* Fiber.join(fiber)
      const snapshot = yield* Metric.snapshot
      const completed = snapshot.find(
        (metric) => metric.id === "tinkex_recovery_events" && metric.attributes?.["event"] === "completed"
      )
      assert.isTrue(completed?.type === "Counter" && completed.state.count === 1)
      for (const [id, seconds] of [
        ["tinkex_recovery_time_to_detect", 5],
        ["tinkex_recovery_time_to_recover", 7]
      ] as const) {
        const histogram = snapshot.find((metric) => metric.id === id)
        assert.isTrue(histogram?.type === "Histogram" && histogram.state.sum === seconds, id)
      }
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("a reader that falls behind sees the gap and holds nobody up", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.make
      const stuck = yield* Deferred.make<void>()
      const seen: Array<number> = []
      const reader = yield* log.events.pipe(
        Stream.runForEach((event) =>
          Effect.andThen(
            Effect.sync(() => seen.push(event.n)),
            Deferred.await(stuck)
          )
        ),
        Effect.forkChild({ startImmediately: true })
      )
      for (let i = 0; i < 5000; i++) {
        yield* log.emit({
          _tag: "stalled",
          run: "a",
          trainingRunId: "a",
          attempt: null,
          incident: null,
          try: 0,
          duration: null
        })
      }
      yield* Deferred.succeed(stuck, undefined)
      yield* settle
      assert.strictEqual(seen.at(-1), 4999)
      assert.isBelow(seen.length, 2100)
      yield* Fiber.interrupt(reader)
    })
  )
})

describe("RecoveryError", () => {
  it.effect("survives JSON with its message", () =>
    Effect.gen(function* () {
      const codec = Schema.toCodecJson(RecoveryError)
      const error = new RecoveryError({ reason: new AttemptTimedOut({ runId: "a", limit: Duration.minutes(15) }) })
      const json = JSON.stringify(yield* Schema.encodeEffect(codec)(error))
      const back = yield* Schema.decodeUnknownEffect(codec)(JSON.parse(json))
      assert.strictEqual(back.message, error.message)
      assert.isTrue(back.isRetryable)
    })
  )
})
