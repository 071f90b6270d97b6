import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { readFileSync } from "node:fs"
import { RecoveryEvent } from "@tinkex/recovery"

const tags = [
  "detected",
  "started",
  "checkpoint_selected",
  "client_created",
  "completed",
  "failed",
  "exhausted",
  "poll_error",
  "paused",
  "stalled",
  "quarantined",
  "fenced",
  "resumed",
  "callback_failed",
  "backpressure",
  "degraded",
  "restored",
  "superseded"
]

describe("RecoveryEvent", () => {
  it("has the eight events of old and ten more, each with a row in the table", () => {
    assert.sameMembers(Object.keys(RecoveryEvent.RecoveryEvent.cases), tags)
    const doc = readFileSync(new URL("../src/RecoveryEvent.ts", import.meta.url), "utf8")
    for (const tag of tags) assert.include(doc, `| \`${tag}\` |`)
  })

  it.effect.prop("survives JSON", [Arbitrary.schema(RecoveryEvent.RecoveryEvent)], ([event]) =>
    Effect.gen(function* () {
      const json = JSON.stringify(yield* Schema.encodeEffect(RecoveryEvent.RecoveryEvent)(event))
      const back = yield* Schema.decodeUnknownEffect(RecoveryEvent.RecoveryEvent)(JSON.parse(json))
      assert.strictEqual(back._tag, event._tag)
      assert.strictEqual(JSON.stringify(yield* Schema.encodeEffect(RecoveryEvent.RecoveryEvent)(back)), json)
      assert.include(RecoveryEvent.format(event), event.run)
    })
  )
})
