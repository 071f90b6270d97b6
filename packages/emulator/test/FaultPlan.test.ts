import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as FaultPlan from "../src/FaultPlan.ts"

const parsed = (text: string, seed?: number) => Effect.map(FaultPlan.parse(text, seed), (plan) => plan.faults)

const problem = (text: string) =>
  Effect.map(Effect.flip(FaultPlan.parse(text)), (error) =>
    error.reason._tag === "InvalidFaultPlan" ? { part: error.reason.part, message: error.message } : undefined
  )

describe("FaultPlan.parse", () => {
  it.effect("reads every form of the table in the module's description", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* parsed(
          "corrupt@57, corrupt@57x3, corrupt@30s, lose-session@20, lose:optim_step@12, lose:retrieve_future@3," +
            "burst:503:optim_step@4x3, burst:429:create_model@1x2=5s, delay:optim_step@3=30s," +
            "delay:optim_step@3=30s:paused_capacity, expire:optim_step@9, soft-fail:forward_backward@7," +
            "truncate@40, missing@40, poison-load@40, absent@40, truncate@#3"
        ),
        [
          { _tag: "Corrupt", atStep: 57 },
          { _tag: "Corrupt", atStep: 57, times: 3 },
          { _tag: "CorruptAfter", millis: 30_000 },
          { _tag: "LoseSession", atStep: 20 },
          { _tag: "LoseResponse", operation: "optim_step", occurrence: 12 },
          { _tag: "LoseResponse", operation: "retrieve_future", occurrence: 3 },
          { _tag: "HttpBurst", operation: "optim_step", status: 503, count: 3, occurrence: 4 },
          {
            _tag: "HttpBurst",
            operation: "create_model",
            status: 429,
            count: 2,
            occurrence: 1,
            retryAfterMillis: 5000
          },
          { _tag: "DelayResult", operation: "optim_step", occurrence: 3, millis: 30_000 },
          {
            _tag: "DelayResult",
            operation: "optim_step",
            occurrence: 3,
            millis: 30_000,
            queueState: "paused_capacity"
          },
          { _tag: "ExpireFuture", operation: "optim_step", occurrence: 9 },
          { _tag: "SoftFail", operation: "forward_backward", occurrence: 7 },
          { _tag: "DamageCheckpoint", damage: "truncated", at: { step: 40 } },
          { _tag: "DamageCheckpoint", damage: "missing", at: { step: 40 } },
          { _tag: "DamageCheckpoint", damage: "poisonedOnLoad", at: { step: 40 } },
          { _tag: "DamageCheckpoint", damage: "absent", at: { step: 40 } },
          { _tag: "DamageCheckpoint", damage: "truncated", at: { save: 3 } }
        ]
      )
    })
  )

  it.effect("reads the forms of transport, time and damage", () =>
    Effect.gen(function* () {
      const site = { occurrence: 3 }
      assert.deepStrictEqual(
        yield* parsed(
          "corrupt-unflagged@57, corrupt-unflagged@5s, poison:save_weights@3, poison:optim_step:after@3x2," +
            "poison-unflagged:optim_step:during@3, lose-session@30s, drop:any@3, bare:400:retrieve_future@1," +
            "slow:checkpoints@3=20s, trickle:retrieve_future@3=100ms, mangle:retrieve_future:cut@3," +
            "partition@30s=5m, pause@30s=6h, pause@0s=1m:paused_rate_limit, delay:asample@3=1s:alternating," +
            "forget:optim_step@3, nan:forward@3, spike:forward_backward@3x3=8, total:training_runs@3=-5," +
            "empty@40, vanish@40, alter@#2, poison-step@40"
        ),
        [
          { _tag: "Corrupt", atStep: 57, unflagged: true },
          { _tag: "CorruptAfter", millis: 5000, unflagged: true },
          { _tag: "Poison", operation: "save_weights", ...site },
          { _tag: "Poison", operation: "optim_step", ...site, when: "after", times: 2 },
          { _tag: "Poison", operation: "optim_step", ...site, when: "during", unflagged: true },
          { _tag: "LoseSessionAfter", millis: 30_000 },
          { _tag: "DropRequest", operation: "any", ...site },
          { _tag: "HttpBurst", operation: "retrieve_future", status: 400, count: 1, occurrence: 1, bare: true },
          { _tag: "SlowResponse", operation: "checkpoints", ...site, millis: 20_000 },
          { _tag: "Trickle", operation: "retrieve_future", ...site, millis: 100 },
          { _tag: "MangleResponse", operation: "retrieve_future", ...site, manner: "cut" },
          { _tag: "Partition", afterMillis: 30_000, millis: 300_000 },
          { _tag: "Pause", afterMillis: 30_000, millis: 21_600_000, queueState: "paused_capacity" },
          { _tag: "Pause", afterMillis: 0, millis: 60_000, queueState: "paused_rate_limit" },
          { _tag: "DelayResult", operation: "asample", ...site, millis: 1000, queueState: "alternating" },
          { _tag: "ForgetFuture", operation: "optim_step", ...site },
          { _tag: "SpoilResult", operation: "forward", ...site },
          { _tag: "SpoilResult", operation: "forward_backward", ...site, times: 3, factor: 8 },
          { _tag: "WrongTotal", operation: "training_runs", ...site, by: -5 },
          { _tag: "DamageCheckpoint", damage: "empty", at: { step: 40 } },
          { _tag: "DamageCheckpoint", damage: "vanishing", at: { step: 40 } },
          { _tag: "DamageCheckpoint", damage: "altered", at: { save: 2 } },
          { _tag: "DamageCheckpoint", damage: "poisonedOnStep", at: { step: 40 } }
        ]
      )
    })
  )

  it.effect("the newest checkpoint truncated and the second newest poisoned on load can be said", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* parsed("corrupt@57,truncate@50,poison-load@40"),
        FaultPlan.make([
          FaultPlan.corrupt({ atStep: 57 }),
          FaultPlan.checkpointTruncated({ step: 50 }),
          FaultPlan.checkpointPoisonedOnLoad({ step: 40 })
        ]).faults
      )
    })
  )

  for (const [text, part, hint] of [
    ["corrupt@57,explode@3", "explode@3", 'no fault "explode"'],
    ["corrupt", "corrupt", "no position"],
    ["corrupt@minus", "corrupt@minus", "no position"],
    ["corrupt@9..3", "corrupt@9..3", "no range"],
    ["corrupt@#3", "corrupt@#3", "save number"],
    ["corrupt:optim_step@3", "corrupt:optim_step@3", "no operation"],
    ["corrupt@3=4s", "corrupt@3=4s", "means nothing"],
    ["lose@3", "lose@3", "no operation is named"],
    ["lose:nothing@3", "lose:nothing@3", '"nothing" is no operation'],
    ["lose:optim_step@0", "lose:optim_step@0", "counted from 1"],
    ["expire:get_info@1", "expire:get_info@1", "no operation"],
    ["burst:200:optim_step@1", "burst:200:optim_step@1", "no status"],
    ["burst:500:optim_step:x@1", "burst:500:optim_step:x@1", "too much"],
    ["delay:optim_step@1", "delay:optim_step@1", "no delay"],
    ["delay:optim_step@1=5s:asleep", "delay:optim_step@1=5s:asleep", "no queue state"],
    ["soft-fail:optim_step:sad@1", "soft-fail:optim_step:sad@1", "no category"],
    ["poison:optim_step:never@3", "poison:optim_step:never@3", "no moment"],
    ["mangle:optim_step@3", "mangle:optim_step@3", "no manner"],
    ["slow:optim_step@3", "slow:optim_step@3", "no duration"],
    ["spike:forward@3=big", "spike:forward@3=big", "no factor"],
    ["nan:optim_step@3", "nan:optim_step@3", '"optim_step" is no operation'],
    ["partition@30s", "partition@30s", "no window"],
    ["pause@3s=1m:active", "pause@3s=1m:active", "no queue state"],
    ["truncate@3x0", "truncate@3x0", "never fire"]
  ] as const) {
    it.effect(`names the bad part of "${text}"`, () =>
      Effect.gen(function* () {
        const found = yield* problem(text)
        assert.strictEqual(found?.part, part)
        assert.include(found?.message, hint)
        assert.include(found?.message, part)
      })
    )
  }

  it.effect("draws ranges from the seed: the same seed draws the same, the range is kept", () =>
    Effect.gen(function* () {
      const drawn = new Set<string>()
      for (let seed = 0; seed < 50; seed++) {
        const first = yield* FaultPlan.parse("corrupt@40..60", seed)
        const second = yield* FaultPlan.parse("corrupt@40..60", seed)
        assert.deepStrictEqual(first, second)
        const [fault] = first.faults
        assert.isTrue(fault?._tag === "Corrupt" && fault.atStep >= 40 && fault.atStep <= 60)
        drawn.add(FaultPlan.format(first))
      }
      assert.isAbove(drawn.size, 5)
    })
  )
})

describe("FaultPlan.format", () => {
  it.effect.prop("parse takes back what format printed", [FaultPlan.FaultPlan], ([plan]) =>
    Effect.gen(function* () {
      // Said or left out, the default is the same.
      const normal = (faults: ReadonlyArray<FaultPlan.Fault>) =>
        faults.map((fault) =>
          Object.fromEntries(
            Object.entries(fault).filter(
              ([key, value]) => !(key === "times" && value === 1) && !(key === "queueState" && value === "active")
            )
          )
        )
      const text = FaultPlan.format(plan)
      // A plan is data, and neither JSON nor this text has a -0.
      const given = normal(plan.faults).map((fault) => JSON.parse(JSON.stringify(fault)))
      assert.deepStrictEqual(normal((yield* FaultPlan.parse(text)).faults), given)
    })
  )

  it("is data: it survives JSON", () => {
    const plan = FaultPlan.make([FaultPlan.corrupt({ atStep: [1, 9] }), FaultPlan.saveAbsent({ save: 2 })], 7)
    const codec = Schema.fromJsonString(FaultPlan.FaultPlan)
    assert.deepStrictEqual(Schema.decodeSync(codec)(Schema.encodeSync(codec)(plan)), plan)
  })
})
