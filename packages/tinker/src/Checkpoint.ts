import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { decodingTimes } from "./internal/decodingTimes.ts"
import * as Time from "./Time.ts"
import * as Json from "./wire/Json.ts"

/** `external` came after revision 0.25 of the API. A type that this version does not know is passed on. */
export type CheckpointType = "training" | "sampler" | "external" | (string & {})

const Type: Schema.Codec<CheckpointType> = Schema.String

const Model = Schema.toType(
  Schema.Struct({
    /** `weights/<name>` or `sampler_weights/<name>`. */
    checkpointId: Schema.String,
    checkpointType: Type,
    time: Time.Time,
    /** `tinker://<training run>/<checkpoint id>`. */
    tinkerPath: Schema.String,
    sizeBytes: Schema.Option(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
    /** Whether other accounts can read it. */
    public: Schema.Boolean,
    /** The labels that it was saved with, where the service keeps them. */
    userMetadata: Schema.Option(Schema.Record(Schema.String, Schema.String)),
    /** None: never. */
    expiresAt: Schema.Option(Time.Time)
  })
)

/** A saved state of a training run, as the service lists it. Its type is `training` where it holds the optimizer too. */
export type Checkpoint = typeof Model.Type

type Wire = typeof Json.Checkpoint.Type

/** @internal */
export const fromWire = (wire: Wire, readTime: (raw: unknown) => Time.Time): Checkpoint => ({
  checkpointId: wire.checkpoint_id,
  checkpointType: wire.checkpoint_type,
  time: readTime(wire.time),
  tinkerPath: wire.tinker_path,
  sizeBytes: Option.fromNullishOr(wire.size_bytes),
  public: wire.public,
  userMetadata: Option.fromNullishOr(wire.user_metadata),
  expiresAt: Option.map(Option.fromNullishOr(wire.expires_at), readTime)
})

/** @internal */
export const toWire = (checkpoint: Checkpoint): Wire => ({
  checkpoint_id: checkpoint.checkpointId,
  checkpoint_type: checkpoint.checkpointType,
  time: Time.toWire(checkpoint.time),
  tinker_path: checkpoint.tinkerPath,
  ...(Option.isSome(checkpoint.sizeBytes) ? { size_bytes: checkpoint.sizeBytes.value } : {}),
  public: checkpoint.public,
  ...(Option.isSome(checkpoint.userMetadata) ? { user_metadata: checkpoint.userMetadata.value } : {}),
  ...(Option.isSome(checkpoint.expiresAt) ? { expires_at: Time.toWire(checkpoint.expiresAt.value) } : {})
})

/** Codec between the service's JSON and `Checkpoint`. The renaming is by hand: lists of 100,000 runs are read with it. */
export const Checkpoint: Schema.Codec<Checkpoint, typeof Json.Checkpoint.Encoded> = Json.Checkpoint.pipe(
  Schema.decodeTo(Model, decodingTimes(fromWire, toWire))
)
