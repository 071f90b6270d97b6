import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, Schema } from "effect"
import { UnparsedTime } from "../src/Time.ts"
import * as TrainingRun from "../src/TrainingRun.ts"

const wire = (fields: Record<string, unknown> = {}) => ({
  training_run_id: "5f0c:train:0",
  base_model: "Qwen/Qwen3-8B",
  model_owner: "u1",
  is_lora: true,
  last_request_time: "2026-08-01T10:00:00Z",
  ...fields
})
const decode = Schema.decodeUnknownEffect(TrainingRun.TrainingRun)
const encode = Schema.encodeEffect(TrainingRun.TrainingRun)

describe("TrainingRun", () => {
  it.effect("reads a run without optional fields, and one where they are null", () =>
    Effect.gen(function* () {
      for (const fields of [{}, { lora_rank: null, last_checkpoint: null, user_metadata: null, surprise: 1 }]) {
        const run = yield* decode(wire(fields))
        assert.isFalse(run.corrupted)
        assert.isTrue(Option.isNone(run.loraRank))
        assert.isTrue(Option.isNone(run.lastCheckpoint))
      }
    })
  )

  it.effect("never reads a flag that is no boolean as healthy", () =>
    Effect.gen(function* () {
      assert.isTrue((yield* decode(wire({ corrupted: true }))).corrupted)
      for (const corrupted of ["true", 1, "yes", null]) {
        const exit = yield* Effect.exit(decode(wire({ corrupted })))
        assert.strictEqual(exit._tag, "Failure")
      }
    })
  )

  it.effect("does not let a bad timestamp hide the flag, and keeps its text", () =>
    Effect.gen(function* () {
      const run = yield* decode(wire({ corrupted: true, last_request_time: "yesterday-ish" }))
      assert.isTrue(run.corrupted)
      assert.deepStrictEqual(run.lastRequestTime, new UnparsedTime({ raw: "yesterday-ish" }))
      assert.strictEqual((yield* encode(run)).last_request_time, "yesterday-ish")
    })
  )

  it.effect("reads a time without a zone as UTC and writes every text back as it was", () =>
    Effect.gen(function* () {
      for (const raw of [
        "2026-08-01T10:00:00Z",
        "2026-08-01T10:00:00",
        "2026-08-01 10:00:00",
        "2026-08-01T10:00:00.000000+00:00",
        "2026-08-01T12:00:00+02:00"
      ]) {
        const run = yield* decode(wire({ last_request_time: raw }))
        assert.isTrue(DateTime.isDateTime(run.lastRequestTime), raw)
        assert.strictEqual(
          DateTime.isDateTime(run.lastRequestTime) ? run.lastRequestTime.epochMilliseconds : 0,
          Date.UTC(2026, 7, 1, 10),
          raw
        )
        assert.strictEqual((yield* encode(run)).last_request_time, raw)
      }
    })
  )

  it.effect("round-trips nested checkpoints", () =>
    Effect.gen(function* () {
      const checkpoint = {
        checkpoint_id: "weights/0001",
        checkpoint_type: "training",
        time: "2026-08-01T10:00:00Z",
        tinker_path: "tinker://5f0c:train:0/weights/0001",
        size_bytes: 12,
        public: false,
        expires_at: "2026-09-01T10:00:00Z"
      }
      const whole = wire({ corrupted: false, lora_rank: 8, last_checkpoint: checkpoint, user_metadata: { a: "b" } })
      assert.deepStrictEqual<unknown>(yield* encode(yield* decode(whole)), whole)
    })
  )

  it.effect("does not let a timestamp that is missing or no text hide the flag", () =>
    Effect.gen(function* () {
      for (const last_request_time of [undefined, null, 1785585600, {}]) {
        const { last_request_time: _, ...others } = wire({ corrupted: true })
        const run = yield* decode(last_request_time === undefined ? others : { ...others, last_request_time })
        assert.isTrue(run.corrupted)
        assert.deepStrictEqual(run.lastRequestTime, new UnparsedTime({ raw: last_request_time ?? null }))
      }
      const checkpoint = {
        checkpoint_id: "weights/1",
        checkpoint_type: "training",
        tinker_path: "tinker://r/weights/1",
        public: null,
        size_bytes: null,
        expires_at: "never"
      }
      const run = yield* decode(wire({ corrupted: true, last_checkpoint: checkpoint }))
      assert.isTrue(run.corrupted)
      const last = Option.getOrThrow(run.lastCheckpoint)
      assert.deepStrictEqual(last.time, new UnparsedTime({ raw: null }))
      assert.deepStrictEqual(last.expiresAt, Option.some(new UnparsedTime({ raw: "never" })))
      assert.isFalse(last.public)
    })
  )

  it.effect.prop("reads what it wrote", [Schema.toType(TrainingRun.TrainingRun)], ([run]) =>
    Effect.gen(function* () {
      // An expiry of null is how the wire says that there is none.
      const text = JSON.stringify(yield* encode(run)).replaceAll(',"expires_at":null', "")
      const read = yield* decode(JSON.parse(text))
      assert.strictEqual(JSON.stringify(yield* encode(read)), text)
      assert.strictEqual(read.corrupted, run.corrupted)
      assert.deepStrictEqual(read.userMetadata, run.userMetadata)
      for (const key of ["lastCheckpoint", "lastSamplerCheckpoint"] as const) {
        assert.deepStrictEqual(
          Option.map(read[key], ({ checkpointId, tinkerPath }) => [checkpointId, tinkerPath]),
          Option.map(run[key], ({ checkpointId, tinkerPath }) => [checkpointId, tinkerPath])
        )
      }
    })
  )
})
