/**
 * The JSON of what the service keeps beside runs and checkpoints: sessions, samplers, archives, telemetry, billing, audit.
 *
 * Source: the response types of the official client 0.25.
 */
import * as Schema from "effect/Schema"

const optional = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** Reading lets anything through, or nothing: a bad timestamp must not hide the fields beside it. */
const Timestamp = Schema.optionalKey(Schema.Unknown)

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** Ids only, newest first, and no cursor. */
export const Sessions = Schema.Struct({ sessions: Schema.Array(Schema.String) })

export const SessionProjectRequest = Schema.Struct({ project_id: Schema.String })

/** `url` comes with `ready`, `error` with `failed`. */
export const TraceExport = Schema.Struct({
  status: Schema.Literals(["pending", "ready", "failed"]),
  url: optional(Schema.String),
  error: optional(Schema.String)
})

export const Sampler = Schema.Struct({
  sampler_id: Schema.String,
  base_model: Schema.String,
  model_path: optional(Schema.String)
})

/** The body of a 200; a 302 says the same in its headers `Location` and `Expires`. */
export const ArchiveUrl = Schema.Struct({ url: Schema.String, expires: Timestamp })

export const AuditEntry = Schema.Struct({
  timestamp: Timestamp,
  event: Schema.String,
  model_id: optional(Schema.String),
  tinker_path: optional(Schema.String),
  purpose: optional(Schema.String)
})
export const Audit = Schema.Struct({ entries: Schema.Array(AuditEntry) })

export const UsageInfo = Schema.Union([
  Schema.Struct({ type: Schema.Literal("training"), token_count: Count }),
  Schema.Struct({ type: Schema.Literal("sampling_prefill"), cached: Schema.Boolean, token_count: Count }),
  Schema.Struct({ type: Schema.Literal("sampling_sample"), token_count: Count }),
  Schema.Struct({ type: Schema.Literal("checkpoint"), count: Count }),
  Schema.Struct({ type: Schema.Literal("storage"), gigabyte_hours: Schema.Finite })
])

const kinds = new Set<unknown>(["training", "sampling_prefill", "sampling_sample", "checkpoint", "storage"])

/** A kind that this version does not know stays as it is. */
const OtherUsage = Schema.Record(Schema.String, Schema.Unknown).check(
  Schema.makeFilter((info) => !kinds.has(info.type), { expected: "another kind of usage" })
)

export const UsageEvent = Schema.Struct({
  bucket_start: Timestamp,
  bucket_end: Timestamp,
  base_model: optional(Schema.String),
  user_id: optional(Schema.String),
  user_name: optional(Schema.String),
  session_id: optional(Schema.String),
  project_id: optional(Schema.String),
  event_info: Schema.Union([UsageInfo, OtherUsage])
})

export const BillingUsage = Schema.Struct({
  data: Schema.Array(UsageEvent),
  sessions: Schema.Record(
    Schema.String,
    Schema.Struct({ user_metadata: optional(Schema.Record(Schema.String, Schema.String)) })
  )
})

/** After 0.25: where a copied checkpoint is. */
export const CopyWeights = Schema.Struct({ tinker_path: Schema.String })

/** After 0.25: what the checkpoints of each project take up now. */
export const StorageUsage = Schema.Struct({
  effective_rate_usd_per_gigabyte_month: optional(Schema.Finite),
  data: Schema.Array(
    Schema.Struct({
      project_id: optional(Schema.String),
      org_user_urn: optional(Schema.String),
      user_email: optional(Schema.String),
      user_name: optional(Schema.String),
      checkpoint_count: Count,
      size_bytes: Count,
      size_gigabytes: Schema.Finite,
      estimated_monthly_cost_usd: optional(Schema.Finite)
    })
  )
})

const common = {
  event_id: Schema.String,
  /** From 0, one more with each event of a reporter. */
  event_session_index: Count,
  severity: Schema.Literals(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
  timestamp: Schema.String
}

export const TelemetryEvent = Schema.Union([
  Schema.Struct({ event: Schema.Literal("SESSION_START"), ...common }),
  Schema.Struct({ event: Schema.Literal("SESSION_END"), ...common, duration: Schema.String }),
  Schema.Struct({
    event: Schema.Literal("UNHANDLED_EXCEPTION"),
    ...common,
    error_type: Schema.String,
    error_message: Schema.String,
    traceback: optional(Schema.String)
  }),
  Schema.Struct({
    event: Schema.Literal("GENERIC_EVENT"),
    ...common,
    event_name: Schema.String,
    event_data: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown))
  })
])

export const TelemetryRequest = Schema.Struct({
  events: Schema.Array(TelemetryEvent),
  platform: Schema.String,
  sdk_version: Schema.String,
  session_id: Schema.String,
  process_uuid: Schema.String
})
export const Telemetry = Schema.Struct({ status: Schema.String })
