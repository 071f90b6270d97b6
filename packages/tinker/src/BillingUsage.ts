import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { decodingTimes } from "./internal/decodingTimes.ts"
import * as Time from "./Time.ts"
import * as Rest from "./wire/Rest.ts"

const Info = Schema.Union([
  Schema.TaggedStruct("training", { tokenCount: Schema.Int }),
  Schema.TaggedStruct("sampling_prefill", { cached: Schema.Boolean, tokenCount: Schema.Int }),
  Schema.TaggedStruct("sampling_sample", { tokenCount: Schema.Int }),
  Schema.TaggedStruct("checkpoint", { count: Schema.Int }),
  Schema.TaggedStruct("storage", { gigabyteHours: Schema.Finite }),
  /** What a newer service charges for, as it says it. */
  Schema.TaggedStruct("other", { raw: Schema.Record(Schema.String, Schema.Unknown) })
])

const Event = Schema.Struct({
  /** The hour: from here, up to `bucketEnd`. */
  bucketStart: Time.Time,
  bucketEnd: Time.Time,
  baseModel: Schema.Option(Schema.String),
  userId: Schema.Option(Schema.String),
  userName: Schema.Option(Schema.String),
  sessionId: Schema.Option(Schema.String),
  projectId: Schema.Option(Schema.String),
  info: Info
})

const Model = Schema.toType(
  Schema.Struct({
    events: Schema.Array(Event),
    /** Labels of the sessions that the events name. */
    sessions: Schema.Record(Schema.String, Schema.Option(Schema.Record(Schema.String, Schema.String)))
  })
)

/** What was used in one hour: tokens, checkpoints or storage. */
export type UsageEvent = typeof Event.Type

/** What an account used, hour by hour, and the labels of the sessions that used it. */
export type BillingUsage = typeof Model.Type

type Wire = typeof Rest.BillingUsage.Type

const isKnown = Schema.is(Rest.UsageInfo)

const readInfo = (wire: Wire["data"][number]["event_info"]): UsageEvent["info"] => {
  if (!isKnown(wire)) return { _tag: "other", raw: wire }
  switch (wire.type) {
    case "training":
      return { _tag: "training", tokenCount: wire.token_count }
    case "sampling_prefill":
      return { _tag: "sampling_prefill", cached: wire.cached, tokenCount: wire.token_count }
    case "sampling_sample":
      return { _tag: "sampling_sample", tokenCount: wire.token_count }
    case "checkpoint":
      return { _tag: "checkpoint", count: wire.count }
    case "storage":
      return { _tag: "storage", gigabyteHours: wire.gigabyte_hours }
  }
}

const writeInfo = (info: UsageEvent["info"]): Wire["data"][number]["event_info"] => {
  switch (info._tag) {
    case "training":
      return { type: "training", token_count: info.tokenCount }
    case "sampling_prefill":
      return { type: "sampling_prefill", cached: info.cached, token_count: info.tokenCount }
    case "sampling_sample":
      return { type: "sampling_sample", token_count: info.tokenCount }
    case "checkpoint":
      return { type: "checkpoint", count: info.count }
    case "storage":
      return { type: "storage", gigabyte_hours: info.gigabyteHours }
    case "other":
      return info.raw
  }
}

const some = <K extends string, A>(key: K, value: Option.Option<A>) =>
  (Option.isSome(value) ? { [key]: value.value } : {}) as { readonly [Key in K]?: A }

const fromWire = (wire: Wire, readTime: (raw: unknown) => Time.Time): BillingUsage => ({
  events: wire.data.map((event) => ({
    bucketStart: readTime(event.bucket_start),
    bucketEnd: readTime(event.bucket_end),
    baseModel: Option.fromNullishOr(event.base_model),
    userId: Option.fromNullishOr(event.user_id),
    userName: Option.fromNullishOr(event.user_name),
    sessionId: Option.fromNullishOr(event.session_id),
    projectId: Option.fromNullishOr(event.project_id),
    info: readInfo(event.event_info)
  })),
  sessions: Object.fromEntries(
    Object.entries(wire.sessions).map(([id, { user_metadata }]) => [id, Option.fromNullishOr(user_metadata)])
  )
})

const toWire = (usage: BillingUsage): Wire => ({
  data: usage.events.map((event) => ({
    bucket_start: Time.toWire(event.bucketStart),
    bucket_end: Time.toWire(event.bucketEnd),
    ...some("base_model", event.baseModel),
    ...some("user_id", event.userId),
    ...some("user_name", event.userName),
    ...some("session_id", event.sessionId),
    ...some("project_id", event.projectId),
    event_info: writeInfo(event.info)
  })),
  sessions: Object.fromEntries(
    Object.entries(usage.sessions).map(([id, labels]) => [id, some("user_metadata", labels)])
  )
})

/** Codec between the service's JSON and `BillingUsage`. */
export const BillingUsage: Schema.Codec<BillingUsage, typeof Rest.BillingUsage.Encoded> = Rest.BillingUsage.pipe(
  Schema.decodeTo(Model, decodingTimes(fromWire, toWire))
)
