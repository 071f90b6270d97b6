import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, References, Schema } from "effect"
import * as Checkpoint from "../src/Checkpoint.ts"
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

  // Every field in every state that a service may leave it in: absent, null, and each kind of value. `undefined` is absent here.
  const times = [undefined, null, "2026-08-01T10:00:00Z", "2026-08-01T12:00:00.123456+02:00", "yesterday-ish", 17]
  const checkpoints = combinations({
    checkpoint_id: ["weights/a"],
    // The third came after revision 0.25, and a fourth may come any day.
    checkpoint_type: ["training", "sampler", "external", "astral"],
    time: times,
    tinker_path: ["tinker://r/weights/a"],
    size_bytes: [undefined, null, 0, 2 ** 52],
    public: [undefined, null, true, false],
    user_metadata: [undefined, null, {}, { by: "ann" }],
    expires_at: times
  })

  it.effect("reads and writes checkpoints in every combination of their fields", () =>
    Effect.gen(function* () {
      assert.strictEqual(checkpoints.length, 4 * 6 * 4 * 4 * 4 * 6)
      for (const wire of checkpoints) {
        const read = yield* Schema.decodeUnknownEffect(Checkpoint.Checkpoint)(wire)
        const written = yield* Schema.encodeEffect(Checkpoint.Checkpoint)(read)
        assert.deepStrictEqual<unknown>(written, canonicalCheckpoint(wire))
        assert.strictEqual(read.public, wire.public ?? false)
        assert.deepStrictEqual(read.sizeBytes, Option.fromNullishOr(wire.size_bytes))
        assert.deepStrictEqual(read.userMetadata, Option.fromNullishOr(wire.user_metadata))
        assert.deepStrictEqual<unknown>(read.checkpointType, wire.checkpoint_type)
        assert.strictEqual(Option.isSome(read.expiresAt), wire.expires_at !== undefined && wire.expires_at !== null)
        // What a consumer stores as text comes back as the same value, and is written as the same text.
        const again = yield* Schema.decodeUnknownEffect(Checkpoint.Checkpoint)(JSON.parse(JSON.stringify(written)))
        assert.deepStrictEqual(again, read)
        assert.deepStrictEqual(yield* Schema.encodeEffect(Checkpoint.Checkpoint)(again), written)
      }
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it.effect("reads and writes runs in every combination of their fields, and never loses the flag", () =>
    Effect.gen(function* () {
      const some = [undefined, null, checkpoints[0], checkpoints.at(-1)]
      const runs = combinations({
        training_run_id: ["r"],
        base_model: ["org/base"],
        model_owner: [""],
        is_lora: [true, false],
        corrupted: [undefined, true, false],
        lora_rank: [undefined, null, 8],
        last_request_time: times,
        last_checkpoint: some,
        last_sampler_checkpoint: some,
        user_metadata: [undefined, null, {}, { a: "b", __proto__x: "" }]
      })
      assert.strictEqual(runs.length, 2 * 3 * 3 * 6 * 4 * 4 * 4)
      for (const wire of runs) {
        const read = yield* decode(wire)
        assert.strictEqual(read.corrupted, wire.corrupted ?? false)
        const written = yield* encode(read)
        assert.deepStrictEqual<unknown>(written, {
          ...present(wire),
          corrupted: wire.corrupted ?? false,
          last_request_time: wire.last_request_time ?? null,
          ...(wire.last_checkpoint ? { last_checkpoint: canonicalCheckpoint(wire.last_checkpoint) } : {}),
          ...(wire.last_sampler_checkpoint
            ? { last_sampler_checkpoint: canonicalCheckpoint(wire.last_sampler_checkpoint) }
            : {})
        })
        const again = yield* decode(JSON.parse(JSON.stringify(written)))
        assert.deepStrictEqual(again, read)
      }
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
})

/** One object for every choice of a value for every field; a value that is `undefined` leaves its field out. */
function combinations<A extends Record<string, ReadonlyArray<unknown>>>(
  fields: A
): ReadonlyArray<{ readonly [K in keyof A]?: A[K][number] }> {
  let all: Array<Record<string, unknown>> = [{}]
  for (const [name, values] of Object.entries(fields)) {
    all = all.flatMap((one) =>
      values.map((value) => (value === undefined ? one : Object.assign({}, one, { [name]: value })))
    )
  }
  return all as Array<{ readonly [K in keyof A]?: A[K][number] }>
}

/** Fields that are neither absent nor null. */
function present(wire: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(wire).filter(([, value]) => value !== null))
}

/** What is written: no nulls but for a time that was not there, and the flag in any case. */
function canonicalCheckpoint(wire: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return { ...present(wire), time: wire.time ?? null, public: wire.public ?? false }
}
