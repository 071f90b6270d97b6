import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Errors from "../src/TinkerError.ts"

describe("TinkerError", () => {
  it.effect.prop("survives a process boundary whole, and every reason has words", [Errors.Reason], ([reason]) =>
    Effect.gen(function* () {
      const codec = Schema.toCodecJson(Errors.TinkerError)
      const error = new Errors.TinkerError({ reason })
      const text = JSON.stringify(yield* Schema.encodeEffect(codec)(error))
      const back = yield* Schema.decodeUnknownEffect(codec)(JSON.parse(text))
      assert.strictEqual(back.reason._tag, reason._tag)
      assert.strictEqual(back.message, error.message)
      assert.strictEqual(back.isRetryable, error.isRetryable)
      assert.strictEqual(back.category, error.category)
      // Fields may be empty; what is left must still be a sentence of ours.
      assert.match(error.message, /[A-Za-z]{4}[^]*\.$/)
    })
  )

  it.effect("lets one reason be caught by its name", () =>
    Effect.gen(function* () {
      const lost = new Errors.TinkerError({ reason: new Errors.RunLost({ runId: "r", detail: "not loaded" }) })
      const caught = yield* Effect.fail(lost).pipe(
        Effect.catchReason("TinkerError", "RunLost", (reason) => Effect.succeed(reason.runId))
      )
      assert.strictEqual(caught, "r")
    })
  )
})
