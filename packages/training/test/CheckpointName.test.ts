import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as CheckpointName from "../src/CheckpointName.ts"

const count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 999_999_999_999 }))
const Name = Schema.Struct({
  runHash: Schema.String.check(Schema.isPattern(/^[0-9a-f]{8}$/)),
  attempt: count,
  step: count,
  kind: Schema.Literals(["auto", "final", "user"]),
  retry: Schema.optionalKey(count)
})

describe("CheckpointName", () => {
  it("has the form that the protocol names", () => {
    const name = { runHash: "0a1b2c3d", attempt: 2, step: 150, kind: "auto" } as const
    assert.strictEqual(CheckpointName.make(name), "r0a1b2c3d-a2-s150-auto")
    assert.strictEqual(CheckpointName.make({ ...name, kind: "final", retry: 1 }), "r0a1b2c3d-a2-s150-final-r1")
  })

  it.effect.prop("is read back as it was made, and needs no escaping", [Name], ([name]) =>
    Effect.sync(() => {
      const text = CheckpointName.make(name)
      assert.match(text, /^[A-Za-z0-9_-]+$/)
      assert.deepStrictEqual(CheckpointName.parse(text), Option.some(name))
    })
  )

  it.effect.prop("differs wherever one field differs", [Name, Name], ([a, b]) =>
    Effect.sync(() => {
      const equal = JSON.stringify(Object.entries(a).toSorted()) === JSON.stringify(Object.entries(b).toSorted())
      assert.strictEqual(CheckpointName.make(a) === CheckpointName.make(b), equal)
    })
  )

  it("knows no other text", () => {
    for (const text of [
      "",
      "step-0001",
      "r0a1b2c3d-a2-s150",
      "r0a1b2c3d-a02-s150-auto",
      "xr0a1b2c3d-a2-s150-auto",
      "r0a1b2c3d-a2-s150-auto-r",
      "r0A1B2C3D-a2-s1-auto"
    ]) {
      assert.isTrue(Option.isNone(CheckpointName.parse(text)), text)
    }
  })
})
