import { assert, describe, it } from "@effect/vitest"
import { DateTime, Deferred, Effect, Exit, Fiber, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Recovery, type RecoveryError, type RecoveryEvent, RecoveryPolicy, type Recovered } from "@tinkex/recovery"
import type { Checkpoint } from "@tinkex/tinker"
import { BillingPaused, Forbidden, RequestFailed, RunLost } from "@tinkex/tinker/TinkerError"
import { Duration } from "effect"
import { broken, fail, FakeTinker, unavailable } from "./fakeTinker.ts"

const stepOf = (checkpoint: Checkpoint.Checkpoint) => Option.some(Number(checkpoint.checkpointId.split("-").at(-1)))

/** Lets every fiber that can go on go on. */
const settle = TestClock.adjust(0).pipe(Effect.repeat({ times: 20 }))

const record = Effect.gen(function* () {
  const recovery = yield* Recovery
  const seen: Array<RecoveryEvent.RecoveryEvent> = []
  yield* recovery.events.pipe(
    Stream.runForEach((event) => Effect.sync(() => seen.push(event))),
    Effect.forkScoped({ startImmediately: true })
  )
  return { seen, tags: () => seen.map((event) => event._tag) }
})

/** A program with its own fake service and recovery layer. */
const scenario = <A, E>(
  policy: RecoveryPolicy.RecoveryPolicyOptions,
  body: (fake: FakeTinker) => Effect.Effect<A, E, Recovery | Scope.Scope>
) =>
  Effect.suspend(() => {
    const fake = new FakeTinker()
    return body(fake).pipe(Effect.provide(Recovery.layer({ jitter: false, ...policy })), Effect.provide(fake.layer))
  })

describe("watch", () => {
  it.effect("R3: the sweep sees the flag and hands the owner a client at the newest checkpoint", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen, tags } = yield* record
        fake.addRun("run-1", [10, 20])
        const got = yield* Deferred.make<Recovered>()
        yield* recovery.watch({
          runId: "run-1",
          client: fake.client("run-1"),
          stepOf,
          onRecovered: (recovered) => Deferred.succeed(got, recovered)
        })
        yield* TestClock.adjust("29 seconds")
        fake.poison("run-1")
        assert.notInclude(tags(), "detected")
        yield* TestClock.adjust("1 second")
        const recovered = yield* Deferred.await(got)
        assert.strictEqual(recovered.previous.runId, "run-1")
        assert.strictEqual(recovered.client.modelId, "new-1")
        assert.strictEqual(recovered.checkpoint.path, "tinker://run-1/weights/step-20")
        assert.deepStrictEqual(recovered.step, Option.some(20))
        assert.deepStrictEqual(tags(), [
          "detected",
          "started",
          "fenced",
          "checkpoint_selected",
          "client_created",
          "resumed",
          "completed"
        ])
        assert.deepStrictEqual(
          seen.map((event) => event.n),
          [0, 1, 2, 3, 4, 5, 6]
        )
        assert.strictEqual(recovered.incident, seen[0]?.incident)
        assert.strictEqual(new Set(seen.map((event) => event.incident)).size, 1)
        assert.deepStrictEqual(
          fake.requests.filter((request) => request === "create" || request.startsWith("fence")),
          ["fence run-1", "create"]
        )
        assert.strictEqual(fake.runs.get("new-1")?.metadata["tinkex.recovered_from"], "run-1")
        const first = seen[0]
        assert.isTrue(first?._tag === "detected" && first.source === "sweep" && first.cause === "poisoned")
        // seen well for the last time by the first sweep, at 0 s
        assert.strictEqual(first?.duration === null ? null : Duration.toSeconds(first?.duration ?? 0), 30)
      })
    )
  )

  it.effect("R6: the new attempt is watched in turn, and its lineage knows the older checkpoints", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const got: Array<Recovered> = []
        fake.addRun("run-1", [10, 20])
        yield* recovery.watch({
          runId: "run-1",
          stepOf,
          onRecovered: (recovered) => Effect.sync(() => got.push(recovered))
        })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        fake.poison("new-1")
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(
          got.map(({ client, previous, step }) => [previous.runId, client.modelId, Option.getOrNull(step)]),
          [
            ["run-1", "new-1", 20],
            ["new-1", "new-2", 20]
          ]
        )
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(got.length, 2, "the old attempts stay flagged and are not recovered again")
        assert.deepStrictEqual(yield* recovery.status, [
          { runId: "new-2", before: ["run-1", "new-1"], phase: "watched" }
        ])
      })
    )
  )

  it.effect("watching the old id of a recovered run again recovers nothing again", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        yield* recovery.watch({ runId: "run-1" })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        for (let i = 0; i < 5; i++) {
          yield* Effect.scoped(Effect.andThen(recovery.watch({ runId: "run-1" }), TestClock.adjust("31 seconds")))
        }
        assert.strictEqual(fake.made, 1)
      })
    )
  )

  it.effect("R3: a failure in band opens the incident at once, and the flag that follows opens none", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen, tags } = yield* record
        fake.addRun("run-1", [10])
        yield* recovery.watch({ runId: "run-1", client: fake.client("run-1") })
        yield* settle
        yield* fake.breakClient("run-1", fail(new RunLost({ runId: "run-1", detail: "model is not loaded" })))
        fake.poison("run-1")
        yield* settle
        assert.strictEqual(tags().at(-1), "completed")
        const first = seen[0]
        assert.isTrue(first?._tag === "detected" && first.source === "client" && first.cause === "lost")
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(tags().filter((tag) => tag === "detected").length, 1)
      })
    )
  )

  it.effect("R3: a second sign while the recovery goes on changes nothing", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { tags } = yield* record
        const told: Array<string> = []
        fake.addRun("run-1", [10])
        fake.onLoad = () => Effect.sleep("10 seconds")
        yield* recovery.watch({
          runId: "run-1",
          client: fake.client("run-1"),
          onRecovered: () => Effect.sync(() => told.push("recovered")),
          onFailure: () => Effect.sync(() => told.push("failed"))
        })
        yield* TestClock.adjust("29 seconds")
        yield* fake.breakClient("run-1", fail(new RunLost({ runId: "run-1", detail: "model is not loaded" })))
        fake.poison("run-1")
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(told, ["recovered"])
        assert.strictEqual(tags().filter((tag) => tag === "detected").length, 1)
        assert.strictEqual((yield* recovery.status)[0]?.phase, "watched")
      })
    )
  )

  it.effect("what the user's own input broke is not restored, since it would break again", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const told = yield* Deferred.make<string>()
        fake.addRun("run-1", [10])
        yield* recovery.watch({
          runId: "run-1",
          client: fake.client("run-1"),
          onFailure: ({ error }) => Deferred.succeed(told, error.reason._tag)
        })
        yield* fake.breakClient(
          "run-1",
          fail(new RequestFailed({ operation: "forward_backward", requestId: "r", category: "user", detail: "bad" }))
        )
        assert.strictEqual(yield* Deferred.await(told), "NotRecoverable")
        assert.strictEqual(fake.made, 0)
      })
    )
  )

  it.effect("R1: without `enabled` a failure is told once and nothing is touched", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { tags } = yield* record
        fake.addRun("run-1", [10])
        yield* recovery.watch({ runId: "run-1", client: fake.client("run-1") })
        fake.poison("run-1")
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(tags(), ["detected"])
        assert.isTrue(fake.requests.every((request) => request === "get run-1"))
        const recovered = yield* recovery.recoverRun("run-1", { stepOf })
        assert.strictEqual(recovered.client.modelId, "new-1")
      })
    )
  )

  it.effect("R7: callbacks that fail, die, throw or hang are events and change nothing", () =>
    scenario({ enabled: true, callbackLimit: "10 seconds" }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen } = yield* record
        const bad: Record<string, () => Effect.Effect<unknown, unknown>> = {
          fails: () => Effect.fail("no"),
          dies: () => Effect.die(new Error("boom")),
          throws: () => {
            throw new Error("thrown")
          },
          hangs: () => Effect.never
        }
        for (const [id, onRecovered] of Object.entries(bad)) {
          fake.addRun(id, [10])
          yield* recovery.watch({ runId: id, onRecovered })
          fake.poison(id)
        }
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(seen.filter((event) => event._tag === "completed").length, 4)
        yield* TestClock.adjust("10 seconds")
        const failures = seen.filter((event) => event._tag === "callback_failed")
        assert.sameMembers(
          failures.map((event) => event.run),
          Object.keys(bad)
        )
        assert.isTrue(failures.every((event) => event.callback === "onRecovered" && event.detail !== ""))
        assert.isTrue((yield* recovery.status).every(({ phase }) => phase === "watched"))
      })
    )
  )

  it.effect("R7: a callback may use the recovery itself", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { tags } = yield* record
        const scope = yield* Effect.scope
        fake.addRun("run-1", [10])
        yield* recovery.watch({
          runId: "run-1",
          onRecovered: ({ runId }) => recovery.watch({ runId }).pipe(Scope.provide(scope))
        })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        fake.poison("new-1")
        yield* TestClock.adjust("31 seconds")
        assert.strictEqual(fake.made, 2)
        assert.notInclude(tags(), "callback_failed")
      })
    )
  )

  it.effect("unwatch cancels the recovery that goes on, and the try leaves no model behind", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen } = yield* record
        fake.addRun("run-1", [10])
        fake.onLoad = () => Effect.never
        yield* recovery.watch({ runId: "run-1" })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        assert.strictEqual(fake.made, 1)
        yield* recovery.unwatch("run-1")
        yield* settle
        assert.include(fake.requests, "unload new-1")
        assert.include(fake.requests, "closed new-1")
        const last = seen.at(-1)
        assert.isTrue(last?._tag === "exhausted" && last.tag === "Cancelled")
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(fake.made, 1)
      })
    )
  )

  it.effect("unwatch between two tries ends the recovery, and no other try is made", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen, tags } = yield* record
        fake.addRun("run-1", [10])
        fake.onLoad = () => Effect.fail(unavailable)
        yield* recovery.watch({ runId: "run-1" })
        fake.poison("run-1")
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual(tags().at(-1), "failed", "it waits for its second try")
        yield* recovery.unwatch("run-1")
        yield* settle
        assert.deepInclude(seen.at(-1), { _tag: "exhausted", tag: "Cancelled" })
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(fake.made, 1)
        assert.include(fake.requests, "unload new-1")
      })
    )
  )

  it.effect("a run whose scope ends while its recovery waits its turn is not restored", () =>
    scenario({ enabled: true, maxConcurrent: 1 }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen } = yield* record
        const scope = yield* Scope.make()
        fake.addRun("run-1", [10])
        fake.addRun("run-2", [10])
        fake.onLoad = () => Effect.sleep("5 minutes")
        yield* recovery.watch({ runId: "run-1" })
        yield* recovery.watch({ runId: "run-2" }).pipe(Scope.provide(scope))
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        fake.poison("run-2")
        yield* TestClock.adjust("31 seconds")
        const about = (run: string) => seen.flatMap((event) => (event.run === run ? [event._tag] : []))
        assert.deepStrictEqual(about("run-2"), ["detected"])
        yield* Scope.close(scope, Exit.void)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(about("run-2"), ["detected", "exhausted"])
        assert.include(about("run-1"), "completed")
        assert.strictEqual(fake.made, 1)
      })
    )
  )

  it.effect("the end of the watch's scope is an unwatch", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        yield* Effect.scoped(recovery.watch({ runId: "run-1" }))
        fake.poison("run-1")
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(fake.made, 0)
        assert.deepStrictEqual(yield* recovery.status, [{ runId: "run-1", before: [], phase: "idle" }])
      })
    )
  )

  it.effect("a run that was given up is told to its owner, left alone, and armed again by a new watch", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const told: Array<string> = []
        fake.addRun("run-1", [10])
        fake.onCreate = () => Effect.fail(unavailable)
        const options = {
          runId: "run-1",
          onFailure: ({ error }: { readonly error: { readonly message: string } }) =>
            Effect.sync(() => told.push(error.message))
        }
        yield* recovery.watch(options)
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(told.length, 1)
        assert.include(told[0] ?? "", "3 tries")
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(told.length, 1)
        assert.deepStrictEqual((yield* recovery.status)[0]?.phase, "given_up")
        fake.onCreate = () => Effect.void
        yield* recovery.watch(options)
        yield* settle
        assert.strictEqual(fake.made, 1)
      })
    )
  )

  it.effect("X5: a hundred poisoned runs are recovered, never more than maxConcurrent at once", () =>
    scenario({ enabled: true, maxConcurrent: 4 }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { tags } = yield* record
        for (let i = 0; i < 100; i++) {
          fake.addRun(`run-${i}`, [10])
          yield* recovery.watch({ runId: `run-${i}` })
        }
        yield* settle
        fake.onCreate = () => Effect.sleep("2 seconds")
        for (let i = 0; i < 100; i++) fake.poison(`run-${i}`)
        const before = fake.requests.length
        yield* TestClock.adjust("31 seconds")
        assert.isFalse(fake.requests.slice(before).includes("get run-50"), "read from pages, not one by one")
        yield* TestClock.adjust("1 minute").pipe(Effect.repeat({ times: 3 }))
        assert.strictEqual(tags().filter((tag) => tag === "completed").length, 100)
        assert.strictEqual(fake.mostBusy, 4)
      })
    )
  )
})

describe("restore", () => {
  it.effect("R5: newest truncated, second poisoned by its load: the third is used and both are quarantined", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen, tags } = yield* record
        const got = yield* Deferred.make<Recovered>()
        fake.addRun("run-1", [10, 20, 30])
        fake.onLoad = (path, modelId) => {
          if (path.endsWith("step-30")) return Effect.fail(broken(path))
          if (path.endsWith("step-20")) fake.poison(modelId)
          return Effect.void
        }
        yield* recovery.watch({ runId: "run-1", stepOf, onRecovered: (recovered) => Deferred.succeed(got, recovered) })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        const recovered = yield* Deferred.await(got)
        assert.strictEqual(recovered.checkpoint.name, "step-10")
        assert.deepStrictEqual(recovered.quarantined, [
          "tinker://run-1/weights/step-30",
          "tinker://run-1/weights/step-20"
        ])
        const bad = seen.filter((event) => event._tag === "quarantined")
        assert.deepStrictEqual(
          bad.map((event) => event.path),
          recovered.quarantined
        )
        assert.isTrue(bad.every((event) => event.why !== "" && event.try === 1))
        assert.strictEqual(tags().filter((tag) => tag === "started").length, 1, "a bad checkpoint costs no try")
        assert.include(fake.requests, "unload new-1")
        assert.include(fake.requests, "unload new-2")
        fake.poison("new-3")
        fake.onLoad = () => Effect.void
        yield* TestClock.adjust("31 seconds")
        const plan = yield* recovery.plan("run-1")
        assert.strictEqual(Option.getOrThrow(plan.chosen).name, "step-10", "quarantined for the whole lineage")
      })
    )
  )

  it.effect("R5: a checkpoint found bad in one try is not loaded again by the next", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10, 20])
        let loads = 0
        fake.onLoad = (path) => {
          if (path.endsWith("step-20")) return Effect.fail(broken(path))
          return ++loads === 1 ? Effect.fail(unavailable) : Effect.void
        }
        const fiber = yield* Effect.forkChild(recovery.recoverRun("run-1", { stepOf }))
        yield* settle
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual((yield* Fiber.join(fiber)).checkpoint.name, "step-10")
        const paths = fake.requests.filter((request) => request.startsWith("load"))
        assert.deepStrictEqual(
          paths.map((path) => path.split("/").at(-1)),
          ["step-20", "step-10", "step-10"]
        )
      })
    )
  )

  it.effect("a lost connection or a busy service never condemns a checkpoint", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen } = yield* record
        fake.addRun("run-1", [10, 20])
        let loads = 0
        fake.onLoad = () => (++loads === 1 ? Effect.fail(unavailable) : Effect.void)
        const recovered = yield* recovery.recoverRun("run-1", { stepOf }).pipe(Effect.forkChild)
        yield* settle
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual((yield* Fiber.join(recovered)).checkpoint.name, "step-20")
        const failed = seen.find((event) => event._tag === "failed")
        assert.strictEqual(failed?.tag, "ServerFailure")
        assert.strictEqual(Duration.toSeconds(failed?.nextTryIn ?? 0), 5)
      })
    )
  )

  it.effect("X4: a permanent error ends at once, failed and then exhausted", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { tags } = yield* record
        fake.addRun("run-1", [10])
        fake.onCreate = () => Effect.fail(fail(new Forbidden({ operation: "create", status: 403, detail: "no" })))
        const error = yield* Effect.flip(recovery.recoverRun("run-1"))
        assert.strictEqual(error.reason._tag, "RestoreFailed")
        assert.deepStrictEqual(tags().slice(-2), ["failed", "exhausted"])
        assert.strictEqual(tags().filter((tag) => tag === "started").length, 1)
      })
    )
  )

  it.effect("tries are counted and their history is kept", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        fake.onCreate = () => Effect.fail(unavailable)
        const fiber = yield* Effect.forkChild(Effect.flip(recovery.recoverRun("run-1")))
        yield* settle
        yield* TestClock.adjust("5 seconds")
        yield* TestClock.adjust("9999 millis")
        assert.strictEqual(fake.requests.filter((request) => request === "create").length, 2)
        yield* TestClock.adjust("1 millis")
        const { reason } = yield* Fiber.join(fiber)
        assert.isTrue(reason._tag === "Exhausted" && reason.tries === 3 && reason.history.length === 3)
      })
    )
  )

  it.effect("a run with a policy of its own has its own tries, waits, deadline and budget", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen } = yield* record
        const policy = yield* RecoveryPolicy.make({
          maxAttempts: 2,
          baseDelay: "1 minute",
          maxDelay: "1 minute",
          jitter: false,
          attemptDeadline: "10 seconds",
          maxRecoveries: 1
        })
        for (const [runId, own] of [
          ["run-1", policy],
          ["run-2", undefined]
        ] as const) {
          fake.addRun(runId, [10])
          yield* recovery.watch({ runId, policy: own })
          fake.poison(runId)
        }
        fake.onCreate = () => Effect.never
        for (let minutes = 0; minutes < 50; minutes++) yield* TestClock.adjust("1 minute")
        const failures = (run: string) =>
          seen.flatMap((event) =>
            event._tag === "failed" && event.run === run
              ? [{ took: event.duration && Duration.toSeconds(event.duration), wait: event.nextTryIn }]
              : []
          )
        assert.deepStrictEqual(failures("run-1"), [
          { took: 10, wait: Duration.minutes(1) },
          { took: 10, wait: null }
        ])
        assert.deepStrictEqual(failures("run-2"), [
          { took: 900, wait: Duration.seconds(5) },
          { took: 900, wait: Duration.seconds(10) },
          { took: 900, wait: null }
        ])
        yield* recovery.watch({ runId: "run-1", policy })
        yield* TestClock.adjust("1 minute")
        const ends = seen.flatMap((event) => (event._tag === "exhausted" && event.run === "run-1" ? [event.tag] : []))
        assert.deepStrictEqual(ends, ["Exhausted", "BudgetSpent"])
      })
    )
  )

  it.effect("a try that hangs is stopped at its deadline", () =>
    scenario({ attemptDeadline: "1 minute", maxAttempts: 1 }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        fake.onLoad = () => Effect.never
        const fiber = yield* Effect.forkChild(Effect.flip(recovery.recoverRun("run-1")))
        yield* settle
        yield* TestClock.adjust("1 minute")
        const { reason } = yield* Fiber.join(fiber)
        assert.isTrue(reason._tag === "Exhausted" && (reason.history[0] ?? "").includes("1m"))
        assert.include(fake.requests, "closed new-1")
      })
    )
  )

  it.effect("billing and rate limits pause a recovery without using up a try, and not for ever", () =>
    scenario({ maxAttempts: 1, pauseLimit: "3 minutes" }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { tags } = yield* record
        fake.addRun("run-1", [10])
        fake.onCreate = () =>
          Effect.fail(fail(new BillingPaused({ operation: "create", detail: "pay", waited: Duration.zero })))
        const fiber = yield* Effect.forkChild(Effect.flip(recovery.recoverRun("run-1")))
        yield* settle
        yield* TestClock.adjust("3 minutes")
        const { reason } = yield* Fiber.join(fiber)
        assert.isTrue(reason._tag === "Exhausted" && reason.tries === 1)
        assert.strictEqual(tags().filter((tag) => tag === "paused").length, 3)
        assert.strictEqual(tags().filter((tag) => tag === "failed").length, 1)
      })
    )
  )

  it.effect("no checkpoint left is a typed end that says why each was rejected", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        fake.onLoad = (path) => Effect.fail(broken(path))
        const error = yield* Effect.flip(recovery.recoverRun("run-1"))
        assert.strictEqual(error.reason._tag, "NoCheckpoint")
        assert.include(error.message, "truncated")
        fake.addRun("run-2")
        assert.include((yield* Effect.flip(recovery.recoverRun("run-2"))).message, "lists none")
      })
    )
  )

  it.effect("X1: a second recovery of the same run is refused while the first goes on", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        fake.onLoad = () => Effect.sleep("1 second")
        const first = yield* Effect.forkChild(recovery.recoverRun("run-1"))
        yield* settle
        const second = yield* Effect.flip(recovery.recoverRun("run-1"))
        assert.strictEqual(second.reason._tag, "AlreadyRecovering")
        assert.strictEqual((yield* recovery.status)[0]?.phase, "recovering")
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(first)).client.modelId, "new-1")
        assert.strictEqual(fake.made, 1)
      })
    )
  )

  it.effect("interrupting the caller cancels the recovery and frees the run", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        fake.onLoad = () => Effect.never
        const first = yield* Effect.forkChild(recovery.recoverRun("run-1"))
        yield* settle
        yield* Fiber.interrupt(first)
        yield* settle
        assert.include(fake.requests, "closed new-1")
        fake.onLoad = () => Effect.void
        assert.strictEqual((yield* recovery.recoverRun("run-1")).client.modelId, "new-2")
      })
    )
  )

  it.effect("a client that was asked for lives in the caller's scope", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        const scope = yield* Scope.make()
        yield* recovery.recoverRun("run-1").pipe(Scope.provide(scope))
        assert.notInclude(fake.requests, "closed new-1")
        yield* Scope.close(scope, Exit.void)
        assert.include(fake.requests, "closed new-1")
      })
    )
  )

  it.effect("a specific checkpoint must be the run's own; a foreign one takes recoverFromCheckpoint", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10, 20])
        fake.addRun("run-2", [99])
        const own = { _tag: "Specific", path: "tinker://run-1/weights/step-10" } as const
        const foreign = { _tag: "Specific", path: "tinker://run-2/weights/step-99" } as const
        assert.strictEqual(
          (yield* Effect.flip(recovery.recoverRun("run-1", { strategy: foreign }))).reason._tag,
          "NoCheckpoint"
        )
        assert.strictEqual((yield* recovery.recoverRun("run-1", { strategy: own, stepOf })).checkpoint.name, "step-10")
        const after = yield* recovery.plan("run-1")
        assert.strictEqual(Option.getOrThrow(after.chosen).name, "step-10", "20 is of a branch that was left")
        const again = yield* recovery.recoverFromCheckpoint(foreign.path, { restoreOptimizer: false })
        assert.strictEqual(again.client.modelId, "new-2")
        fake.onLoad = (path) => Effect.fail(broken(path))
        const refused = yield* Effect.flip(recovery.recoverFromCheckpoint(foreign.path))
        assert.strictEqual(refused.reason._tag, "CheckpointRefused")
      })
    )
  )
})

describe("plan", () => {
  it.effect("R2: says what would be done, and only reads", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10, 20])
        const run = fake.runs.get("run-1")
        run?.checkpoints.push({
          checkpointId: "sampler_weights/step-25",
          checkpointType: "sampler",
          userMetadata: Option.none(),
          time: run.checkpoints[0]!.time,
          tinkerPath: "tinker://run-1/sampler_weights/step-25",
          sizeBytes: Option.none(),
          public: false,
          expiresAt: Option.none()
        })
        const plan = yield* recovery.plan("run-1", { stepOf, committed: 24 })
        assert.strictEqual(Option.getOrThrow(plan.chosen).name, "step-20")
        assert.deepStrictEqual(plan.replay, Option.some({ from: 20, to: 24 }))
        assert.deepStrictEqual(
          plan.fallbacks.map(({ name }) => name),
          ["step-10"]
        )
        assert.match(plan.rejected[0]?.reason ?? "", /sampler/)
        assert.isTrue(Option.isNone((yield* recovery.plan("run-1", { stepOf })).replay))
        assert.isTrue(fake.requests.every((request) => /^(get|list|weightsInfo) /.test(request)))
        const dying = yield* Effect.flip(
          recovery.plan("run-1", {
            stepOf: () => {
              throw new Error("oops")
            }
          })
        )
        assert.strictEqual(dying.reason._tag, "Died")
      })
    )
  )

  it.effect("takes the best by a metric that the owner knows, or what a function of the owner picks", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10, 20, 30])
        const loss: Record<string, number> = { "weights/step-10": 0.7, "weights/step-20": 0.3, "weights/step-30": 0.5 }
        const metricsOf = ({ checkpointId }: Checkpoint.Checkpoint) => ({ loss: loss[checkpointId] ?? Number.NaN })
        const names = ({ chosen, fallbacks }: Effect.Success<ReturnType<typeof recovery.plan>>) =>
          [...Option.toArray(chosen), ...fallbacks].map(({ name }) => name)
        const best = yield* recovery.plan("run-1", { metricsOf, strategy: RecoveryPolicy.best("loss", "min") })
        assert.deepStrictEqual(names(best), ["step-20", "step-30", "step-10"])
        const oldest = RecoveryPolicy.custom("oldest", (usable) => usable.toReversed().slice(0, 1))
        const custom = yield* recovery.plan("run-1", { stepOf, strategy: oldest })
        assert.deepStrictEqual(names(custom), ["step-10"])
        assert.deepStrictEqual(
          custom.rejected.map(({ candidate, reason }) => [candidate.name, reason]),
          [
            ["step-20", "left out by oldest"],
            ["step-30", "left out by oldest"]
          ]
        )
        const recovered = yield* recovery.recoverRun("run-1", { stepOf, strategy: oldest })
        assert.deepStrictEqual(recovered.step, Option.some(10))
      })
    )
  )

  it.effect("rejects a checkpoint of another shape before anything is made, and says why", () =>
    scenario({}, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10, 20, 30])
        fake.ranks.set("tinker://run-1/weights/step-30", 16)
        fake.ranks.set("tinker://run-1/weights/step-20", "unknown")
        const plan = yield* recovery.plan("run-1", { stepOf })
        assert.strictEqual(Option.getOrThrow(plan.chosen).name, "step-10")
        assert.deepStrictEqual(
          plan.rejected.map(({ reason }) => reason),
          ["the service does not know it", "it has rank 16, the run 8"]
        )
        assert.notInclude(fake.requests, "create")
      })
    )
  )

  it.effect("F53: tries last what was saved after the run was last seen well", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const run = fake.addRun("run-1", [10, 20, 40])
        const got = yield* Deferred.make<Recovered>()
        // the service's clock is ten years ahead of ours: only its own times are compared with each other
        const ahead = Duration.toMillis("3650 days")
        for (const [i, one] of run.checkpoints.entries()) {
          const time = DateTime.makeUnsafe(ahead + [10_000, 20_000, 40_000][i]!)
          run.checkpoints[i] = { ...one, time }
        }
        run.lastRequest = ahead + 25_000
        yield* recovery.watch({ runId: "run-1", stepOf, onRecovered: (found) => Deferred.succeed(got, found) })
        yield* TestClock.adjust("1 second")
        run.lastRequest = ahead + 50_000
        fake.poison("run-1")
        yield* TestClock.adjust("30 seconds")
        assert.deepStrictEqual((yield* Deferred.await(got)).step, Option.some(20))
      })
    )
  )
})

describe("a run that recovery cannot help", () => {
  it.effect("ends typed after three attempts that saved nothing new, and goes on as long as they do", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        const failures: Array<string> = []
        yield* recovery.watch({
          runId: "run-1",
          stepOf,
          onFailure: ({ error }) => Effect.sync(() => failures.push(error.reason._tag))
        })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        for (let i = 1; i <= 5; i++) {
          const run = fake.runs.get(`new-${i}`)
          run?.checkpoints.push(fake.checkpoint(`new-${i}`, 10 + i))
          fake.poison(`new-${i}`)
          yield* TestClock.adjust("31 seconds")
        }
        assert.deepStrictEqual(failures, [])
        assert.strictEqual(fake.made, 6)
        for (let i = 6; i <= 9; i++) {
          fake.poison(`new-${i}`)
          yield* TestClock.adjust("31 seconds")
        }
        assert.deepStrictEqual(failures, ["NoProgress"])
        assert.strictEqual(fake.made, 8, "the last one that made progress, and two that did not")
      })
    )
  )

  it.effect("is recovered by one cause only so often within the window", () =>
    scenario({ enabled: true, maxRecoveries: 2, recoveryWindow: "10 minutes" }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [1])
        const failures: Array<RecoveryError> = []
        yield* recovery.watch({
          runId: "run-1",
          stepOf,
          onFailure: ({ error }) => Effect.sync(() => failures.push(error))
        })
        const fail = (id: string, n: number) => {
          fake.runs.get(id)?.checkpoints.push(fake.checkpoint(id, n))
          fake.poison(id)
          return TestClock.adjust("31 seconds")
        }
        yield* fail("run-1", 2)
        yield* fail("new-1", 3)
        yield* TestClock.adjust("10 minutes")
        yield* fail("new-2", 4)
        yield* fail("new-3", 5)
        assert.deepStrictEqual(failures, [])
        yield* fail("new-4", 6)
        assert.deepStrictEqual(
          failures.map(({ reason }) => reason._tag),
          ["BudgetSpent"]
        )
        assert.include(failures[0]?.message ?? "", "2 times in 10m")
      })
    )
  )

  it.effect("with its ten newest checkpoints bad goes on from the eleventh; each bad one is tried once", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun(
          "run-1",
          Array.from({ length: 15 }, (_, i) => i + 1)
        )
        fake.onLoad = (path) => (Number(path.split("-").at(-1)) > 5 ? Effect.fail(broken(path)) : Effect.void)
        const recovered = yield* recovery.recoverRun("run-1", { stepOf })
        assert.deepStrictEqual(recovered.step, Option.some(5))
        assert.strictEqual(recovered.quarantined.length, 10)
        const again = yield* recovery.recoverRun("run-1", { stepOf })
        assert.deepStrictEqual(again.step, Option.some(5))
        const loads = fake.requests.filter((request) => request.startsWith("load "))
        assert.strictEqual(loads.length, 10 + 2)
      })
    )
  )

  it.effect("with all of them bad ends with the list, each tried once, and keeps no model", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun(
          "run-1",
          Array.from({ length: 12 }, (_, i) => i + 1)
        )
        fake.onLoad = (path) => Effect.fail(broken(path))
        const error = yield* Effect.flip(recovery.recoverRun("run-1", { stepOf }))
        assert.isTrue(error.reason._tag === "NoCheckpoint" && error.reason.rejected.length === 12)
        assert.strictEqual(fake.requests.filter((request) => request.startsWith("load ")).length, 12)
        assert.strictEqual(fake.requests.filter((request) => request.startsWith("unload new-")).length, 12)
        assert.isFalse(error.isRetryable)
      })
    )
  )

  it.effect("flagged at its first steps after a restore falls back to the checkpoint before, once", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10, 20])
        const steps: Array<number | null> = []
        yield* recovery.watch({
          runId: "run-1",
          client: fake.client("run-1"),
          stepOf,
          onRecovered: ({ step }) => Effect.sync(() => steps.push(Option.getOrNull(step)))
        })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        fake.sent.set("new-1", 2)
        fake.poison("new-1")
        yield* TestClock.adjust("31 seconds")
        // this one trains for long: what it began from is not to blame
        fake.sent.set("new-2", 500)
        fake.poison("new-2")
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(steps, [20, 10, 10])
      })
    )
  )

  it.effect("flagged at its first steps on the only checkpoint gets a second try on it, and no third", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        fake.addRun("run-1", [10])
        const told: Array<number | string | null> = []
        yield* recovery.watch({
          runId: "run-1",
          client: fake.client("run-1"),
          stepOf,
          onRecovered: ({ step }) => Effect.sync(() => told.push(Option.getOrNull(step))),
          onFailure: ({ error }) => Effect.sync(() => told.push(error.reason._tag))
        })
        fake.poison("run-1")
        yield* TestClock.adjust("31 seconds")
        for (const runId of ["new-1", "new-2"]) {
          fake.sent.set(runId, 2)
          fake.poison(runId)
          yield* TestClock.adjust("31 seconds")
        }
        assert.deepStrictEqual(told, [10, 10, "NoCheckpoint"])
      })
    )
  )
})

describe("detection in band", () => {
  it.effect("asks nobody anything", () =>
    scenario({ enabled: false }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen } = yield* record
        fake.addRun("run-1", [10])
        yield* recovery.watch({ runId: "run-1", client: fake.client("run-1"), stepOf })
        yield* settle
        const before = fake.requests.length
        yield* fake.breakClient("run-1", fail(new RunLost({ runId: "run-1", detail: "gone" })))
        yield* settle
        const [event] = seen
        assert.isTrue(event?._tag === "detected" && event.source === "client" && event.cause === "lost")
        assert.strictEqual(fake.requests.length, before)
      })
    )
  )
})

describe("a service that is away", () => {
  it.effect("costs no try: the recovery waits until it answers", () =>
    scenario({ enabled: true, pollInterval: "30 seconds" }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen, tags } = yield* record
        fake.addRun("run-1", [10])
        const client = fake.client("run-1")
        yield* recovery.watch({ runId: "run-1", client, stepOf })
        yield* TestClock.adjust("1 second")
        const down = () => Effect.fail(unavailable)
        fake.onRead = down
        fake.onList = down
        yield* fake.breakClient("run-1", fail(new RunLost({ runId: "run-1", detail: "gone" })))
        yield* TestClock.adjust("6 hours")
        assert.notInclude(tags(), "exhausted")
        assert.strictEqual(seen.filter((event) => event._tag === "paused").length, 1)
        const health = yield* recovery.health
        assert.deepInclude(health, { live: true, ready: false, degraded: true, recovering: 1 })
        assert.match(health.reasons.join(), /has not answered for/)
        fake.onRead = () => Effect.void
        fake.onList = () => Effect.void
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(tags().filter((tag) => tag === "completed").length, 1)
        assert.isTrue(seen.every((event) => event.try <= 1))
        assert.deepInclude(yield* recovery.health, { live: true, ready: true, degraded: false, reasons: [] })
      })
    )
  )

  it.effect("a pause of six hours is one alert and no restart", () =>
    scenario({ enabled: true }, (fake) =>
      Effect.gen(function* () {
        const recovery = yield* Recovery
        const { seen } = yield* record
        const run = fake.addRun("run-1", [10])
        run.lastRequest = 1
        yield* recovery.watch({ runId: "run-1", client: fake.client("run-1"), stepOf })
        yield* settle
        yield* fake.holdBack("run-1", "paused_capacity")
        yield* TestClock.adjust("6 hours")
        assert.deepStrictEqual(
          seen.map((event) => event._tag),
          ["backpressure"]
        )
        assert.notInclude(fake.requests, "create")
      })
    )
  )
})

describe("shutdown", () => {
  it.effect(
    "lets recoveries end, saves what is watched, says what it could not do, and takes no longer than it may",
    () =>
      scenario({ enabled: true }, (fake) =>
        Effect.gen(function* () {
          const recovery = yield* Recovery
          for (const id of ["quick", "slow", "well", "stuck", "bad"]) {
            fake.addRun(id, [10])
            yield* recovery.watch({ runId: id, client: fake.client(id), stepOf })
          }
          yield* settle
          fake.onLoad = (path) => (path.includes("slow") ? Effect.never : Effect.sleep("5 seconds"))
          for (const id of ["quick", "slow"]) {
            yield* fake.breakClient(id, fail(new RunLost({ runId: id, detail: "gone" })))
          }
          yield* settle
          const fiber = yield* Effect.forkChild(
            recovery.shutdown({
              limit: "1 minute",
              save: ({ runId }) =>
                runId === "stuck" ? Effect.never : runId === "bad" ? Effect.fail(unavailable) : Effect.sleep("1 second")
            })
          )
          yield* TestClock.adjust("10 seconds")
          const refused = yield* Effect.flip(recovery.recoverRun("well", { stepOf }))
          assert.strictEqual(refused.reason._tag, "Cancelled")
          assert.isFalse((yield* recovery.health).ready)
          yield* TestClock.adjust("50 seconds")
          const report = yield* Fiber.join(fiber)
          assert.deepStrictEqual(report.cancelled, ["slow"])
          assert.includeMembers([...report.saved], ["new-1"])
          assert.deepStrictEqual(report.notSaved.map(({ runId }) => runId).toSorted(), ["bad", "stuck"])
        })
      )
  )
})
