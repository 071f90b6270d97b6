import { assert, describe, it } from "@effect/vitest"
import { Effect, References, Schema } from "effect"
import { deepStrictEqual } from "node:assert"
import * as AuditLog from "../../src/AuditLog.ts"
import * as BillingUsage from "../../src/BillingUsage.ts"
import * as Sampler from "../../src/Sampler.ts"
import * as Rest from "../../src/wire/Rest.ts"

const silent = Effect.provideService(References.MinimumLogLevel, "None")

describe("wire/Rest", () => {
  const bodies: Record<string, Schema.Codec<unknown, unknown>> = {
    Sessions: Rest.Sessions,
    SessionProjectRequest: Rest.SessionProjectRequest,
    TraceExport: Rest.TraceExport,
    Sampler: Rest.Sampler,
    ArchiveUrl: Rest.ArchiveUrl,
    Audit: Rest.Audit,
    BillingUsage: Rest.BillingUsage,
    CopyWeights: Rest.CopyWeights,
    StorageUsage: Rest.StorageUsage,
    TelemetryRequest: Rest.TelemetryRequest,
    Telemetry: Rest.Telemetry
  }
  for (const [name, body] of Object.entries(bodies)) {
    it.effect.prop(`${name} goes through JSON and back`, [Schema.toType(body)], ([value]) =>
      Effect.gen(function* () {
        const text = JSON.stringify(yield* Schema.encodeEffect(body)(value))
        const read = yield* Schema.decodeUnknownEffect(body)(JSON.parse(text))
        const again = JSON.stringify(yield* Schema.encodeEffect(body)(read))
        // member by member: their order says nothing, and a record does not keep it for every set of keys
        deepStrictEqual(JSON.parse(again), JSON.parse(text))
      })
    )
  }

  const models: Record<string, Schema.Codec<unknown, unknown>> = {
    AuditLog: AuditLog.AuditLog,
    Sampler: Sampler.Sampler
  }
  for (const [name, model] of Object.entries(models)) {
    it.effect.prop(`the model ${name} is what was written of it`, [Schema.toType(model)], ([value]) =>
      Effect.gen(function* () {
        const text = JSON.stringify(yield* Schema.encodeEffect(model)(value))
        const read = yield* Schema.decodeUnknownEffect(model)(JSON.parse(text))
        const again = JSON.stringify(yield* Schema.encodeEffect(model)(read))
        deepStrictEqual(JSON.parse(again), JSON.parse(text))
      }).pipe(silent)
    )
  }

  it.effect("a bill is written as it was read, whatever it is for", () =>
    Effect.gen(function* () {
      const infos: ReadonlyArray<Record<string, unknown>> = [
        { type: "training", token_count: 0 },
        { type: "sampling_prefill", cached: false, token_count: 2 ** 40 },
        { type: "sampling_sample", token_count: 1 },
        { type: "checkpoint", count: 3 },
        { type: "storage", gigabyte_hours: 0.25 },
        { type: "moon_dust", grams: [1, null] },
        {}
      ]
      const optional = { base_model: "b", user_id: "u", user_name: "n", session_id: "s", project_id: "p" }
      const bill = {
        data: infos.flatMap((event_info) =>
          [{}, optional].map((more) =>
            Object.assign({ bucket_start: "2026-08-01T10:00:00Z", bucket_end: "later", event_info }, more)
          )
        ),
        sessions: { s: { user_metadata: { a: "b" } }, t: {} }
      }
      const read = yield* Schema.decodeUnknownEffect(BillingUsage.BillingUsage)(bill)
      assert.deepStrictEqual<unknown>(yield* Schema.encodeEffect(BillingUsage.BillingUsage)(read), bill)
    }).pipe(silent)
  )

  it.effect.each<[string, Record<string, unknown>]>([
    ["a negative count", { type: "training", token_count: -1 }],
    ["half a token", { type: "training", token_count: 0.5 }],
    ["a count as text", { type: "checkpoint", count: "3" }],
    ["no count", { type: "sampling_sample" }],
    ["hours that are no number", { type: "storage", gigabyte_hours: null }]
  ])("a known kind of usage with %s is refused, not taken for an unknown one", ([, event_info]) =>
    Effect.gen(function* () {
      const bill = { data: [{ event_info }], sessions: {} }
      assert.strictEqual((yield* Effect.exit(Schema.decodeUnknownEffect(Rest.BillingUsage)(bill)))._tag, "Failure")
    })
  )
})
