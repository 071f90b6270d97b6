import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, References, Schema } from "effect"
import { Checkpoint } from "../../src/Checkpoint.ts"
import * as PlainRuns from "../../src/internal/plainRuns.ts"
import * as Time from "../../src/Time.ts"
import { TrainingRun } from "../../src/TrainingRun.ts"
import * as Json from "../../src/wire/Json.ts"

const decodeRun = Schema.decodeUnknownEffect(TrainingRun)
const decodeCheckpoint = Schema.decodeUnknownEffect(Checkpoint)
const silent = Effect.provideService(References.MinimumLogLevel, "None")

const full = {
  training_run_id: "r",
  base_model: "org/base",
  model_owner: "u",
  is_lora: true,
  corrupted: true,
  lora_rank: 8,
  last_request_time: "2026-08-01T10:00:00.123456+02:00",
  last_checkpoint: {
    checkpoint_id: "weights/a",
    checkpoint_type: "training",
    time: "2026-08-01T10:00:00Z",
    tinker_path: "tinker://r/weights/a",
    size_bytes: 5,
    public: true,
    expires_at: "2026-08-01"
  },
  last_sampler_checkpoint: null,
  user_metadata: { a: "b" }
}

/** Whatever the schema says of a value, the short cut says the same or nothing. */
const agree = Effect.fnUntraced(function* (value: unknown) {
  // An answer is JSON: what is undefined is not there.
  const wire: unknown = value === undefined ? null : JSON.parse(JSON.stringify(value))
  const quick = PlainRuns.runs([wire])
  const slow = yield* Effect.exit(decodeRun(wire))
  if (quick !== undefined) assert.deepStrictEqual(slow._tag === "Success" ? slow.value : slow, quick[0])
  return quick !== undefined
})

const odd: ReadonlyArray<unknown> = [
  undefined,
  null,
  0,
  -1,
  1.5,
  2 ** 60,
  Number.NaN,
  "",
  "x",
  true,
  [],
  {},
  ["a"],
  { a: 1 }
]

describe("plainRuns", () => {
  it.effect("reads a run with everything, and one with the least, as the schema does", () =>
    Effect.gen(function* () {
      assert.isTrue(yield* agree(full))
      assert.isTrue(yield* agree({ ...full, surprise: [1], last_checkpoint: undefined, user_metadata: null }))
      const { base_model, is_lora, last_request_time, model_owner, training_run_id } = full
      assert.isTrue(yield* agree({ base_model, is_lora, last_request_time, model_owner, training_run_id }))
    })
  )

  it.effect("says the same as the schema, or nothing, for any value in any field", () =>
    Effect.gen(function* () {
      for (const value of odd) {
        yield* agree(value)
        for (const key of Object.keys(full)) yield* agree({ ...full, [key]: value })
        for (const key of Object.keys(full.last_checkpoint)) {
          const checkpoint = JSON.parse(JSON.stringify({ ...full.last_checkpoint, [key]: value }))
          yield* agree({ ...full, last_checkpoint: checkpoint })
          const quick = PlainRuns.checkpoints([checkpoint])
          if (quick !== undefined) assert.deepStrictEqual(yield* decodeCheckpoint(checkpoint), quick[0])
        }
      }
      yield* agree({ ...full, user_metadata: JSON.parse('{"__proto__": "x"}') })
      for (const list of odd.filter((one) => !Array.isArray(one))) assert.isUndefined(PlainRuns.runs(list))
      assert.isUndefined(PlainRuns.runs([full, { ...full, corrupted: "no" }]))
      assert.deepStrictEqual(PlainRuns.runs([]), [])
    }).pipe(silent)
  )

  it.effect.prop(
    "says the same as the schema for any run that there can be",
    [Schema.toType(Json.TrainingRun)],
    ([wire]) => agree(wire).pipe(Effect.asVoid, silent)
  )

  it.effect.prop(
    "reads the plain form of a time as it reads any other form of it",
    [Schema.Int.check(Schema.isBetween({ minimum: -62_000_000_000, maximum: 250_000_000_000 }))],
    ([seconds]) =>
      Effect.sync(() => {
        const plain = new Date(seconds * 1000).toISOString().replace(".000Z", "Z")
        assert.strictEqual(Time.toMillis(plain), Time.toMillis(plain.replace("Z", "+00:00")), plain)
        if (plain.length === 20) assert.strictEqual(Time.toMillis(plain), seconds * 1000, plain)
        for (let i = 0; i < plain.length - 1; i++) {
          for (const other of ["9", "x", "-", ":", "/"]) {
            const changed = plain.slice(0, i) + other + plain.slice(i + 1)
            assert.strictEqual(Time.toMillis(changed), Time.toMillis(changed.replace("Z", "+00:00")), changed)
          }
        }
        assert.isTrue(Option.isNone(Time.parse(plain.replace("Z", "z "))))
      })
  )
})
