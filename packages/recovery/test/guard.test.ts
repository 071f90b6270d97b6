import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, DateTime, Deferred, Effect, Fiber, Layer, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Recovery, type RecoveryEvent, type RecoveryPolicy } from "@tinkex/recovery"
import { type CheckpointSelector, RunGuard, TrainingError } from "@tinkex/training"
import { fail, FakeTinker, unavailable } from "./fakeTinker.ts"
import { NotFound } from "@tinkex/tinker/TinkerError"

const settle = TestClock.adjust(0).pipe(Effect.repeat({ times: 20 }))

/** The guard that a trainer would meet, and the fake service under it. */
const guarded = <A, E, R>(
  policy: RecoveryPolicy.RecoveryPolicyOptions,
  body: (
    guard: RunGuard.RunGuard,
    fake: FakeTinker,
    events: ReadonlyArray<RecoveryEvent.RecoveryEvent>
  ) => Effect.Effect<A, E, R>
) =>
  Effect.suspend(() => {
    const fake = new FakeTinker()
    return Effect.gen(function* () {
      const recovery = yield* Recovery
      const events: Array<RecoveryEvent.RecoveryEvent> = []
      yield* recovery.events.pipe(
        Stream.runForEach((event) => Effect.sync(() => events.push(event))),
        Effect.forkScoped({ startImmediately: true })
      )
      return yield* body(Option.getOrThrow(yield* RunGuard.RunGuard), fake, events)
    }).pipe(Effect.provide(Recovery.layer({ enabled: true, jitter: false, ...policy }).pipe(Layer.provide(fake.layer))))
  })

const request = (
  restore: (options: RunGuard.RestoreOptions) => Effect.Effect<RunGuard.Restored, TrainingError>
): RunGuard.RestoreRequest => ({
  incident: {
    id: "inc-1",
    run: "tone",
    attempt: 1,
    trainingRunId: "run-1",
    cause: "poisoned",
    detail: "flagged",
    step: 7,
    detectedAt: DateTime.makeUnsafe(0)
  },
  plan: Effect.succeed({
    run: "tone",
    trainingRunId: Option.some("run-1"),
    incident: Option.some("inc-1"),
    strategy: { _tag: "Latest" },
    chosen: Option.none(),
    fallbacks: [],
    rejected: [],
    suspect: [],
    fromBase: true,
    committed: 7,
    replay: Option.none()
  }),
  restore
})

const restored = (fake: FakeTinker): RunGuard.Restored => ({
  client: fake.client("run-2"),
  attempt: 2,
  path: null,
  step: 0,
  quarantined: []
})

describe("the guard", () => {
  it.effect("P7: is only there where the policy is enabled", () =>
    Effect.gen(function* () {
      const found = Effect.map(RunGuard.RunGuard, Option.isSome)
      const fake = new FakeTinker()
      const under = (options?: RecoveryPolicy.RecoveryPolicyOptions) =>
        Effect.provide(found, Recovery.layer(options).pipe(Layer.provide(fake.layer)))
      assert.isFalse(yield* found)
      assert.isFalse(yield* under())
      assert.isFalse(yield* under({ enabled: false }))
      assert.isTrue(yield* under({ enabled: true }))
    })
  )

  it.effect("a policy that makes no sense keeps the layer from starting", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const error = yield* Effect.flip(
        Effect.provide(Recovery, Recovery.layer({ maxAttempts: 0 }).pipe(Layer.provide(fake.layer)))
      )
      assert.strictEqual(error.reason._tag, "InvalidPolicy")
    })
  )

  it.effect("layerConfig reads the environment, and refuses a variable by its name", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      const under = (env: Record<string, string>) =>
        Effect.all([RunGuard.RunGuard, Recovery]).pipe(
          Effect.provide(Recovery.layerConfig({ maxConcurrent: 9 }).pipe(Layer.provide(fake.layer))),
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(env)))
        )
      const [guard, recovery] = yield* under({ TINKEX_RECOVERY_ENABLED: "true", TINKEX_RECOVERY_MAX_CONCURRENT: "2" })
      assert.isTrue(Option.isSome(guard))
      assert.strictEqual(recovery.policy.maxConcurrent, 9)
      const error = yield* Effect.flip(under({ TINKEX_RECOVERY_JITTER: "perhaps" }))
      assert.include(error.message, "TINKEX_RECOVERY_JITTER")
    })
  )

  it.effect("reports the flag of a watched attempt, and stops with its scope", () =>
    guarded({}, (guard, fake) =>
      Effect.gen(function* () {
        fake.addRun("run-1")
        fake.addRun("run-2")
        const reports: Array<string> = []
        const watch = (id: string) =>
          guard.watch({ run: "tone", attempt: 1, trainingRunId: id, client: fake.client(id) }, (cause) =>
            Effect.sync(() => reports.push(`${id} ${cause}`))
          )
        yield* watch("run-1")
        yield* Effect.scoped(watch("run-2"))
        yield* settle
        fake.poison("run-1")
        fake.poison("run-2")
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(reports, ["run-1 poisoned"])
      })
    )
  )

  it.effect("tries again by the policy what may be tried again, and passes strategy and optimizer on", () =>
    guarded(
      { restoreOptimizer: false, strategy: { _tag: "Specific", path: "tinker://run-1/weights/x" } },
      (guard, fake, events) =>
        Effect.gen(function* () {
          const seen: Array<[CheckpointSelector.Strategy, boolean]> = []
          const errors = [
            TrainingError.service(unavailable),
            TrainingError.service(fail(new NotFound({ operation: "create a model", status: 404, detail: "session" })))
          ]
          const fiber = yield* Effect.forkChild(
            guard.recover(
              request(({ onProgress, optimizer, strategy }) =>
                Effect.gen(function* () {
                  seen.push([strategy, optimizer])
                  yield* onProgress({ _tag: "ClientCreated", trainingRunId: "run-2", attempt: 2 })
                  const error = errors.shift()
                  return error === undefined ? restored(fake) : yield* error
                })
              )
            )
          )
          yield* settle
          yield* TestClock.adjust("5 seconds")
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual((yield* Fiber.join(fiber)).attempt, 2)
          assert.strictEqual(seen.length, 3)
          assert.deepStrictEqual(seen[0], [{ _tag: "Specific", path: "tinker://run-1/weights/x" }, false])
          assert.deepStrictEqual(
            events.map((event) => [event._tag, event.try]),
            [
              ["detected", 0],
              ...[1, 2].flatMap((n) => [
                ["started", n],
                ["client_created", n],
                ["failed", n]
              ]),
              ["started", 3],
              ["client_created", 3],
              ["completed", 3]
            ]
          )
          assert.isTrue(events.every((event) => event.run === "tone" && event.incident === "inc-1"))
        })
    )
  )

  it.effect("hands the trainer's own last error back, and ends at once on one that is final", () =>
    guarded({}, (guard, _fake, events) =>
      Effect.gen(function* () {
        const final = TrainingError.noCheckpoint("tone", [])
        assert.strictEqual(yield* Effect.flip(guard.recover(request(() => Effect.fail(final)))), final)
        assert.deepStrictEqual(
          events.map((event) => event._tag),
          ["detected", "started", "failed", "exhausted"]
        )
      })
    )
  )

  it.effect("gives a typed error of the run where no try ever answered", () =>
    guarded({ maxAttempts: 1, attemptDeadline: "1 minute" }, (guard) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.flip(guard.recover(request(() => Effect.never))))
        yield* settle
        yield* TestClock.adjust("1 minute")
        const { reason } = yield* Fiber.join(fiber)
        assert.isTrue(reason._tag === "RecoveryGivenUp" && reason.tries === 1 && reason.detail.includes("1m"))
      })
    )
  )

  it.effect("an interrupted trainer takes its recovery with it", () =>
    guarded({}, (guard) =>
      Effect.gen(function* () {
        const gone = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(
          guard.recover(request(() => Effect.onInterrupt(Effect.never, () => Deferred.succeed(gone, undefined))))
        )
        yield* settle
        yield* Fiber.interrupt(fiber)
        yield* Deferred.await(gone)
      })
    )
  )
})
