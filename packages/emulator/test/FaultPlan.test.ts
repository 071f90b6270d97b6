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
      assert.deepStrictEqual(normal((yield* FaultPlan.parse(text)).faults), normal(plan.faults))
    })
  )

  it("is data: it survives JSON", () => {
    const plan = FaultPlan.make([FaultPlan.corrupt({ atStep: [1, 9] }), FaultPlan.saveAbsent({ save: 2 })], 7)
    const codec = Schema.fromJsonString(FaultPlan.FaultPlan)
    assert.deepStrictEqual(Schema.decodeSync(codec)(Schema.encodeSync(codec)(plan)), plan)
  })
})
