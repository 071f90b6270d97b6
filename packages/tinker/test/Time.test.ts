import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, Schema } from "effect"
import { TestConsole } from "effect/testing"
import * as Time from "../src/Time.ts"

const decode = Schema.decodeUnknownEffect(Time.Time)
const encode = Schema.encodeEffect(Time.Time)
const noon = Date.UTC(2026, 7, 1, 12)

describe("Time", () => {
  it.effect("reads the forms in which services write a time, and writes each back to the letter", () =>
    Effect.gen(function* () {
      for (const [raw, millis] of [
        ["2026-08-01T12:00:00Z", noon],
        ["2026-08-01T12:00:00z", noon],
        ["2026-08-01t12:00:00Z", noon],
        ["2026-08-01T12:00:00", noon],
        ["2026-08-01 12:00:00", noon],
        ["2026-08-01T12:00Z", noon],
        ["2026-08-01T12:00:00.000Z", noon],
        ["2026-08-01T12:00:00.250Z", noon + 250],
        ["2026-08-01T12:00:00.123456+00:00", noon + 123],
        ["2026-08-01 12:00:00.1+00", noon + 100],
        ["2026-08-01T14:30:00+0230", noon],
        ["2026-08-01T07:00:00-05:00", noon],
        ["2026-08-01", Date.UTC(2026, 7, 1)],
        ["2024-02-29T00:00:00Z", Date.UTC(2024, 1, 29)]
      ] as const) {
        const time = yield* decode(raw)
        assert.isTrue(DateTime.isDateTime(time), raw)
        assert.deepStrictEqual(
          Option.map(Time.toOption(time), (found) => found.epochMilliseconds),
          Option.some(millis),
          raw
        )
        assert.strictEqual(yield* encode(time), raw)
      }
    })
  )

  it.effect("keeps what is no time, with a warning, and writes it back", () =>
    Effect.gen(function* () {
      for (const raw of [
        "",
        "soon",
        "2026",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2023-02-29",
        "2026-08-01T25:00:00Z",
        "2026-08-01T12:00:00 (local)",
        "1785585600",
        1785585600,
        null,
        { at: "noon" }
      ]) {
        const before = (yield* TestConsole.logLines).length
        const time = yield* decode(raw)
        assert.isTrue(time instanceof Time.UnparsedTime, JSON.stringify(raw))
        assert.isTrue(Option.isNone(Time.toOption(time)))
        assert.deepStrictEqual<unknown>(yield* encode(time), raw)
        assert.isAbove((yield* TestConsole.logLines).length, before, "a warning")
      }
    })
  )

  it.effect.prop(
    "writes any time so that it reads the same",
    [Schema.Int.check(Schema.isBetween({ minimum: Date.UTC(1000, 0), maximum: Date.UTC(9000, 0) }))],
    ([millis]) =>
      Effect.gen(function* () {
        const raw = yield* encode(DateTime.makeUnsafe(millis))
        const time = yield* decode(raw)
        assert.isTrue(DateTime.isDateTime(time) && time.epochMilliseconds === millis, String(raw))
        assert.strictEqual(yield* encode(time), raw)
      })
  )
})
