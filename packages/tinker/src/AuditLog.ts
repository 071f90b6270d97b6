import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { decodingTimes } from "./internal/decodingTimes.ts"
import * as Time from "./Time.ts"
import * as Rest from "./wire/Rest.ts"

const Entry = Schema.Struct({
  time: Time.Time,
  /** What was done, in the service's words. */
  event: Schema.String,
  modelId: Schema.Option(Schema.String),
  tinkerPath: Schema.Option(Schema.String),
  purpose: Schema.Option(Schema.String)
})

const Model = Schema.toType(Schema.Array(Entry))

/** Who did what to a model or checkpoint, and when. */
export type AuditEntry = typeof Entry.Type

/** The entries of one day. */
export type AuditLog = typeof Model.Type

type Wire = typeof Rest.Audit.Type

const fromWire = (wire: Wire, readTime: (raw: unknown) => Time.Time): AuditLog =>
  wire.entries.map((entry) => ({
    time: readTime(entry.timestamp),
    event: entry.event,
    modelId: Option.fromNullishOr(entry.model_id),
    tinkerPath: Option.fromNullishOr(entry.tinker_path),
    purpose: Option.fromNullishOr(entry.purpose)
  }))

const toWire = (log: AuditLog): Wire => ({
  entries: log.map((entry) => ({
    timestamp: Time.toWire(entry.time),
    event: entry.event,
    ...(Option.isSome(entry.modelId) ? { model_id: entry.modelId.value } : {}),
    ...(Option.isSome(entry.tinkerPath) ? { tinker_path: entry.tinkerPath.value } : {}),
    ...(Option.isSome(entry.purpose) ? { purpose: entry.purpose.value } : {})
  }))
})

/** Codec between the service's JSON and `AuditLog`. */
export const AuditLog: Schema.Codec<AuditLog, typeof Rest.Audit.Encoded> = Rest.Audit.pipe(
  Schema.decodeTo(Model, decodingTimes(fromWire, toWire))
)
