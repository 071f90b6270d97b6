import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Json from "../../src/wire/Json.ts"

const { QueueState: _, ...bodies } = Json

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

// Null there is a mistake that must not turn into a default: a flag that is none, or a NaN on its way through JSON.
const strict = new Set([
  "TrainingRun.corrupted",
  ...["learning_rate", "beta1", "beta2", "eps", "weight_decay", "grad_clip_norm"].map((key) => `AdamParams.${key}`)
])

describe("Json", () => {
  for (const [name, body] of Object.entries(bodies)) {
    // The bodies differ in type; what is said of them here does not.
    const schema = body as unknown as Schema.Codec<unknown>
    const decode = Schema.decodeUnknownEffect(schema)
    const encode = Schema.encodeEffect(schema)

    it.effect.prop(
      `${name}: reads what it wrote, and drops what it does not know`,
      [Schema.toType(schema)],
      ([value]) =>
        Effect.gen(function* () {
          const wire = plain(yield* encode(value))
          assert.deepStrictEqual(plain(yield* encode(yield* decode(wire))), wire)
          assert.deepStrictEqual(plain(yield* encode(yield* decode({ ...Object(wire), surprise: [1] }))), wire)
        })
    )

    it.effect.prop(`${name}: takes null where a field may be absent`, [Schema.toType(schema)], ([value]) =>
      Effect.gen(function* () {
        const wire = plain(yield* encode(value))
        if (!isRecord(wire)) return
        for (const key of Object.keys(wire)) {
          const { [key]: _, ...without } = wire
          const absent = yield* Effect.exit(decode(without))
          if (absent._tag === "Success" && !strict.has(`${name}.${key}`)) yield* decode({ ...without, [key]: null })
        }
      })
    )
  }

  it.effect("fills in the API's defaults", () =>
    Effect.gen(function* () {
      const config = yield* Schema.decodeUnknownEffect(Json.ClientConfig)({ fwdbwd_max_chunk_len: 256 })
      assert.deepStrictEqual(config, {
        pjwt_auth_enabled: false,
        credential_default_source: "api_key",
        parallel_fwdbwd_chunks: true,
        proto_compress_fwdbwd: false,
        fwdbwd_max_chunk_len: 256,
        fwdbwd_max_chunk_bytes_count: 5_000_000,
        billing_exception_max_pause_duration_sec: 3600,
        fwdbwd_dispatch_bytes_semaphore_size: 50_000_000,
        inflight_response_bytes_semaphore_size: 52_428_800,
        sample_dispatch_bytes_semaphore_size: 10_485_760,
        sample_max_concurrent_requests: 2000,
        sample_no_retries: false,
        sample_enable_stuck_detection: true,
        sample_use_retrieve_futures: false,
        sample_join_sampling_session: false,
        create_model_via_load_weights: false
      })
      assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(Json.AdamParams)({}), {
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-12,
        weight_decay: 0,
        grad_clip_norm: 0
      })
    })
  )

  it.effect("does not train with a default in place of a number that JSON cannot hold", () =>
    Effect.gen(function* () {
      const sent = plain({ learning_rate: Number.NaN })
      assert.deepStrictEqual(sent, { learning_rate: null })
      const error = yield* Effect.flip(Schema.decodeUnknownEffect(Json.AdamParams)(sent))
      assert.include(error.message, "learning_rate")
    })
  )

  it.effect("refuses numbers in a sequence that are none", () =>
    Effect.gen(function* () {
      const request = { adam_params: {}, model_id: "m" }
      yield* Schema.decodeUnknownEffect(Json.OptimStepRequest)({ ...request, seq_id: 0 })
      for (const seq_id of [-1, 1.5, "1", 1e18, null]) {
        const error = yield* Effect.flip(Schema.decodeUnknownEffect(Json.OptimStepRequest)({ ...request, seq_id }))
        assert.include(error.message, "seq_id")
      }
    })
  )

  it.effect("tells the replies to a poll apart", () =>
    Effect.gen(function* () {
      const kinds = {
        TryAgain: Json.TryAgain,
        CompleteMetadata: Json.CompleteMetadata,
        RequestFailed: Json.RequestFailed
      }
      for (const [expected, reply] of [
        ["TryAgain", { type: "try_again", request_id: "r", queue_state: "paused_capacity", queue_state_reason: null }],
        ["CompleteMetadata", { status: "complete_metadata", response_payload_size: 12 }],
        ["RequestFailed", { error: "boom", category: "server" }],
        ["RequestFailed", { error: "boom" }],
        ["", { model_id: "s:train:0", type: "create_model" }]
      ] as const) {
        const found: Array<string> = []
        for (const [kind, schema] of Object.entries(kinds)) {
          const exit = yield* Effect.exit(Schema.decodeUnknownEffect(schema as Schema.Codec<unknown>)(reply))
          if (exit._tag === "Success") found.push(kind)
        }
        assert.deepStrictEqual(found.join(), expected)
      }
    })
  )
})
