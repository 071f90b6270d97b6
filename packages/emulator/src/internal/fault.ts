/** The shapes of faults. `FaultPlan` says what each does. */
import * as Schema from "effect/Schema"

/** Operations that the future-based faults can name. `forward` is a `forward_backward` with `forward_only`. */
export const Operation = Schema.Literals([
  "create_model",
  "forward",
  "forward_backward",
  "optim_step",
  "save_weights",
  "save_weights_for_sampler",
  "load_weights",
  "unload_model",
  "asample"
])
export type Operation = typeof Operation.Type

/** Everything that can be refused or lost on the wire. */
export const Request = Schema.Literals([
  ...Operation.literals,
  "retrieve_future",
  "auth_token",
  "client_config",
  "dynamic_config",
  "create_session",
  "session_heartbeat",
  "session",
  "get_info",
  "weights_info",
  "create_sampling_session",
  "sampler",
  "training_run",
  "training_runs",
  "run_checkpoints",
  "checkpoints",
  "delete_checkpoint",
  "checkpoint_ttl",
  "publish_checkpoint",
  "unpublish_checkpoint",
  "archive",
  "download",
  "session_project",
  "trace_export",
  "telemetry",
  "audit",
  "billing_usage",
  "server_capabilities",
  "later"
])
export type Request = typeof Request.Type

/** One kind of request, or every request. */
export const Target = Schema.Literals([...Request.literals, "any"])
export type Target = typeof Target.Type

const Step = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const times = Schema.optionalKey(Count)
// At most a year: longer is a mistake in the unit.
const Millis = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 31_536_000_000 }))

/** A checkpoint by the steps applied when it was saved, or as the n-th save. */
export const SaveSite = Schema.Union([Schema.Struct({ step: Step }), Schema.Struct({ save: Count })])
export type SaveSite = typeof SaveSite.Type

/** The flag of the run stays down: only failing operations tell. */
const unflagged = Schema.optionalKey(Schema.Literal(true))

const Paused = Schema.Literals(["paused_capacity", "paused_rate_limit"])
export const Category = Schema.Literals(["user", "server", "unknown"])
export const Moment = Schema.Literals(["before", "during", "after"])
export type Moment = typeof Moment.Type
export const Manner = Schema.Literals(["cut", "garbage", "html", "huge", "empty", "mistyped", "mixup"])
export type Manner = typeof Manner.Type

const Corrupt = Schema.TaggedStruct("Corrupt", { atStep: Step, unflagged, times })
const CorruptAfter = Schema.TaggedStruct("CorruptAfter", { millis: Millis, unflagged })
const Poison = Schema.TaggedStruct("Poison", {
  operation: Operation,
  occurrence: Count,
  /** Default before. */
  when: Schema.optionalKey(Moment),
  unflagged,
  times
})
const LoseSession = Schema.TaggedStruct("LoseSession", { atStep: Step, times })
const LoseSessionAfter = Schema.TaggedStruct("LoseSessionAfter", { millis: Millis })
const LoseResponse = Schema.TaggedStruct("LoseResponse", { operation: Target, occurrence: Count, times })
const DropRequest = Schema.TaggedStruct("DropRequest", { operation: Target, occurrence: Count, times })
const HttpBurst = Schema.TaggedStruct("HttpBurst", {
  operation: Target,
  /** The first request, counting every request of this kind, that is refused. */
  occurrence: Count,
  status: Schema.Int.check(Schema.isBetween({ minimum: 400, maximum: 599 })),
  count: Count,
  retryAfterMillis: Schema.optionalKey(Millis),
  /** No body at all, as a proxy would answer. */
  bare: Schema.optionalKey(Schema.Literal(true))
})
const SlowResponse = Schema.TaggedStruct("SlowResponse", {
  operation: Target,
  occurrence: Count,
  millis: Millis,
  times
})
const Trickle = Schema.TaggedStruct("Trickle", {
  operation: Target,
  occurrence: Count,
  /** Between one byte of the body and the next. */
  millis: Millis,
  times
})
const MangleResponse = Schema.TaggedStruct("MangleResponse", {
  operation: Target,
  occurrence: Count,
  manner: Manner,
  times
})
const Partition = Schema.TaggedStruct("Partition", { afterMillis: Millis, millis: Millis })
const Pause = Schema.TaggedStruct("Pause", { afterMillis: Millis, millis: Millis, queueState: Paused })
const DelayResult = Schema.TaggedStruct("DelayResult", {
  operation: Operation,
  occurrence: Count,
  millis: Millis,
  /** What polls report meanwhile. Default `active`; `alternating` is active and paused_rate_limit by turns. */
  queueState: Schema.optionalKey(Schema.Literals(["active", ...Paused.literals, "alternating"])),
  times
})
const ExpireFuture = Schema.TaggedStruct("ExpireFuture", { operation: Operation, occurrence: Count, times })
const ForgetFuture = Schema.TaggedStruct("ForgetFuture", { operation: Operation, occurrence: Count, times })
const SoftFail = Schema.TaggedStruct("SoftFail", {
  operation: Operation,
  occurrence: Count,
  /** Default server. */
  category: Schema.optionalKey(Category),
  times
})
const SpoilResult = Schema.TaggedStruct("SpoilResult", {
  operation: Schema.Literals(["forward", "forward_backward"]),
  occurrence: Count,
  /** What the loss is multiplied by. Default: it is no number, and neither are the logprobs. */
  factor: Schema.optionalKey(Schema.Int),
  times
})
const DamageCheckpoint = Schema.TaggedStruct("DamageCheckpoint", {
  damage: Schema.Literals([
    "truncated",
    "empty",
    "missing",
    "vanishing",
    "altered",
    "poisonedOnLoad",
    "poisonedOnStep",
    "absent"
  ]),
  at: SaveSite,
  times
})
export type Damage = (typeof DamageCheckpoint.Type)["damage"]
const WrongTotal = Schema.TaggedStruct("WrongTotal", {
  operation: Schema.Literals(["training_runs", "checkpoints"]),
  occurrence: Count,
  /** What is added to the true count. */
  by: Schema.Int,
  times
})

/** One thing that goes wrong. */
export const Fault = Schema.Union([
  Corrupt,
  CorruptAfter,
  Poison,
  LoseSession,
  LoseSessionAfter,
  LoseResponse,
  DropRequest,
  HttpBurst,
  SlowResponse,
  Trickle,
  MangleResponse,
  Partition,
  Pause,
  DelayResult,
  ExpireFuture,
  ForgetFuture,
  SoftFail,
  SpoilResult,
  DamageCheckpoint,
  WrongTotal
])
export type Fault = typeof Fault.Type

export type Of<T extends Fault["_tag"]> = Extract<Fault, { readonly _tag: T }>

/** A number, or a range (both ends included) from which the seed draws one. */
export type Position = number | readonly [from: number, to: number]

/** A fault whose positions may still be ranges. `make` turns drafts into faults. */
export interface Draft {
  readonly resolve: (draw: (position: Position) => number) => Fault
}

export const optional = <K extends string, A>(key: K, value: A | undefined): { readonly [P in K]?: A } =>
  // The computed key widens to string; the value is present exactly when the key is.
  (value === undefined ? {} : { [key]: value }) as { readonly [P in K]?: A }
