import { assert, describe, it } from "@effect/vitest"
import { RestartIntensity } from "@tinkex/supervision"
import { Duration, Schema } from "effect"

/** The rule as OTP states it, in milliseconds: drop what is older than the window, add now, compare the length. */
const listed = (restarts: number, window: number) => {
  let times: ReadonlyArray<number> = []
  return (now: number) => {
    const kept = [now, ...times.filter((time) => time >= now - window)]
    if (kept.length > restarts) return false
    times = kept
    return true
  }
}

describe("spend", () => {
  it.prop(
    "decides like a walk through the list of restarts",
    [
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 })),
      Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 })))
    ],
    ([restarts, steps]) => {
      const ring = RestartIntensity.make({ restarts, within: Duration.millis(50) })
      const list = listed(restarts, 50)
      let now = 0
      for (const step of steps) {
        now += step
        assert.strictEqual(ring.spend(now), list(now), `at ${now} of ${steps.join()}`)
      }
    },
    { arbitrary: { runs: 500 } }
  )

  it("the window is inclusive to the millisecond", () => {
    for (const [age, granted] of [
      [4999, false],
      [5000, false],
      [5001, true]
    ] as const) {
      const ring = RestartIntensity.make({ restarts: 1, within: Duration.seconds(5) })
      assert.isTrue(ring.spend(0))
      assert.strictEqual(ring.spend(age), granted)
    }
  })
})

describe("limitsOf", () => {
  it("fills in three restarts within five seconds", () => {
    const limits = RestartIntensity.limitsOf()
    assert.isTrue("restarts" in limits && limits.restarts === 3 && Duration.toMillis(limits.within) === 5000)
  })
})
