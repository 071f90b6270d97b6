import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Random, Schedule, Schema } from "effect"
import { RecoveryError, RecoveryPolicy } from "@tinkex/recovery"
import { Cancelled, type InvalidPolicy } from "@tinkex/recovery/RecoveryError"

const waits = (policy: RecoveryPolicy.RecoveryPolicy, n: number) =>
  Effect.gen(function* () {
    const step = yield* Schedule.toStep(RecoveryPolicy.schedule(policy))
    const error = new RecoveryError({ reason: new Cancelled({ runId: "r", why: "test" }) })
    const delays: Array<number> = []
    for (let i = 0; i < n; i++) delays.push(Duration.toSeconds((yield* step(0, error))[1]))
    return delays
  })

const refusal = (options: object) =>
  RecoveryPolicy.make(options).pipe(
    Effect.flip,
    Effect.map((error) => {
      assert.strictEqual(error.reason._tag, "InvalidPolicy")
      return error.reason as InvalidPolicy // the assertion above
    })
  )

const environment = (env: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromUnknown(env))

describe("make", () => {
  it.effect("defaults to nothing happening by itself", () =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.make()
      assert.isFalse(policy.enabled)
      assert.strictEqual(policy.maxAttempts, 3)
      assert.strictEqual(Duration.toSeconds(policy.baseDelay), 5)
      assert.strictEqual(Duration.toSeconds(policy.maxDelay), 60)
      assert.isTrue(policy.jitter)
      assert.strictEqual(Duration.toSeconds(policy.pollInterval), 30)
      assert.isTrue(policy.restoreOptimizer)
      assert.deepStrictEqual(policy.strategy, { _tag: "Latest" })
      assert.strictEqual(Duration.toMinutes(policy.attemptDeadline), 15)
      assert.strictEqual(policy.maxConcurrent, 4)
    })
  )

  it.effect("names the field and the value of each impossible option", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [object, string, string]> = [
        [{ maxAttempts: 0 }, "maxAttempts", "0"],
        [{ maxAttempts: 2.5 }, "maxAttempts", "2.5"],
        [{ maxAttempts: Number.NaN }, "maxAttempts", "NaN"],
        [{ maxConcurrent: "infinity" }, "maxConcurrent", '"infinity"'],
        [{ maxConcurrent: null }, "maxConcurrent", "null"],
        [{ baseDelay: "soon" }, "baseDelay", '"soon"'],
        [{ baseDelay: Duration.infinity }, "baseDelay", "Infinity"],
        [{ baseDelay: "2 minutes" }, "maxDelay", "undefined"],
        [{ maxDelay: "1 second" }, "maxDelay", '"1 second"'],
        [{ attemptDeadline: 0 }, "attemptDeadline", "0"],
        [{ pollInterval: null }, "pollInterval", "null"],
        [{ enabled: "true" }, "enabled", '"true"'],
        [{ restoreOptimizer: "false" }, "restoreOptimizer", '"false"'],
        [{ strategy: "newest" }, "strategy", '"newest"'],
        [{ strategy: { _tag: "Specific" } }, "strategy", "an object"],
        [{ schedule: 5 }, "schedule", "5"],
        [{ maxAttemps: 5 }, "maxAttemps", "5"]
      ]
      for (const [options, field, value] of cases) {
        const reason = yield* refusal(options)
        assert.strictEqual(reason.field, field, JSON.stringify(options))
        assert.strictEqual(reason.value, value, JSON.stringify(options))
        assert.include(reason.message, field)
      }
    })
  )

  it.effect("does not mistake undefined for a value", () =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.make({ maxAttempts: undefined, schedule: undefined, baseDelay: undefined })
      assert.strictEqual(policy.maxAttempts, 3)
    })
  )
})

describe("schedule", () => {
  it.effect("without jitter waits 5, 10, 20, 40, 60, 60 seconds", () =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.make({ jitter: false })
      assert.deepStrictEqual(yield* waits(policy, 6), [5, 10, 20, 40, 60, 60])
    })
  )

  it.effect("stays at the cap however often it is asked", () =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.make({ jitter: false })
      const last = (yield* waits(policy, 2000)).at(-1)
      assert.strictEqual(last, 60)
    })
  )

  it.effect.prop("jitter spreads each wait by a fifth and never exceeds the cap", [Schema.Int], ([seed]) =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.make()
      const delays = yield* waits(policy, 8).pipe(Random.withSeed(seed))
      const ideal = [5, 10, 20, 40, 60, 60, 60, 60]
      assert.isTrue(delays.every((delay, i) => delay >= 0.8 * (ideal[i] ?? 0) && delay <= 1.2 * (ideal[i] ?? 0)))
      assert.isTrue(
        delays.every((delay) => delay <= 60),
        `seed ${seed}: ${delays.join()}`
      )
      assert.isTrue(delays.some((delay, i) => delay !== ideal[i]))
    })
  )

  it.effect("a schedule of one's own replaces the waits", () =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.make({ schedule: Schedule.spaced("3 seconds") })
      assert.deepStrictEqual(yield* waits(policy, 3), [3, 3, 3])
    })
  )
})

describe("fromConfig", () => {
  it.effect("reads every variable", () =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.fromConfig()
      assert.isTrue(policy.enabled)
      assert.strictEqual(policy.maxAttempts, 7)
      assert.strictEqual(Duration.toSeconds(policy.baseDelay), 1)
      assert.strictEqual(Duration.toSeconds(policy.maxDelay), 9)
      assert.isFalse(policy.jitter)
      assert.strictEqual(Duration.toSeconds(policy.pollInterval), 2)
      assert.isFalse(policy.restoreOptimizer)
      assert.deepStrictEqual(policy.strategy, { _tag: "Specific", path: "tinker://run-1/weights/0001" })
      assert.strictEqual(Duration.toMinutes(policy.attemptDeadline), 3)
      assert.strictEqual(policy.maxConcurrent, 2)
      assert.strictEqual(Duration.toSeconds(policy.callbackLimit), 4)
      assert.strictEqual(Duration.toHours(policy.pauseLimit), 5)
      assert.strictEqual(Duration.toMinutes(policy.stalledAfter), 6)
    }).pipe(
      Effect.provide(
        environment({
          TINKEX_RECOVERY_ENABLED: "true",
          TINKEX_RECOVERY_MAX_ATTEMPTS: "7",
          TINKEX_RECOVERY_BASE_DELAY: "1 second",
          TINKEX_RECOVERY_MAX_DELAY: "9 seconds",
          TINKEX_RECOVERY_JITTER: "false",
          TINKEX_RECOVERY_POLL_INTERVAL: "2 seconds",
          TINKEX_RECOVERY_RESTORE_OPTIMIZER: "0",
          TINKEX_RECOVERY_STRATEGY: "tinker://run-1/weights/0001",
          TINKEX_RECOVERY_ATTEMPT_DEADLINE: "3 minutes",
          TINKEX_RECOVERY_MAX_CONCURRENT: "2",
          TINKEX_RECOVERY_CALLBACK_LIMIT: "4 seconds",
          TINKEX_RECOVERY_PAUSE_LIMIT: "5 hours",
          TINKEX_RECOVERY_STALLED_AFTER: "6 minutes"
        })
      )
    )
  )

  it.effect("takes absent and empty variables as the default, and overrides before both", () =>
    Effect.gen(function* () {
      const policy = yield* RecoveryPolicy.fromConfig({ enabled: false, maxAttempts: undefined })
      assert.isFalse(policy.enabled)
      assert.strictEqual(policy.maxAttempts, 8)
      assert.strictEqual(policy.maxConcurrent, 4)
    }).pipe(
      Effect.provide(
        environment({
          TINKEX_RECOVERY_ENABLED: "true",
          TINKEX_RECOVERY_MAX_ATTEMPTS: "8",
          TINKEX_RECOVERY_MAX_CONCURRENT: ""
        })
      )
    )
  )

  for (const [name, value] of [
    ["TINKEX_RECOVERY_ENABLED", "maybe"],
    ["TINKEX_RECOVERY_MAX_ATTEMPTS", "-1"],
    ["TINKEX_RECOVERY_BASE_DELAY", "soon"],
    ["TINKEX_RECOVERY_STRATEGY", "best"]
  ] as const) {
    it.effect(`refuses ${name}=${value} by name`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(RecoveryPolicy.fromConfig())
        assert.include(error.message, name)
        assert.include(error.message, value)
      }).pipe(Effect.provide(environment({ [name]: value })))
    )
  }
})
