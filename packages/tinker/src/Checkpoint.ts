import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Time } from "./Time.ts"

const option = <S extends Schema.Top>(schema: S) => Schema.OptionFromOptionalNullOr(schema)

/** A saved state of a training run, as the service lists it. Its type is `training` where it holds the optimizer too. */
export const Checkpoint = Schema.Struct({
  /** `weights/<name>` or `sampler_weights/<name>` */
  checkpointId: Schema.String,
  checkpointType: Schema.Literals(["training", "sampler"]),
  time: Time,
  tinkerPath: Schema.String,
  sizeBytes: option(Schema.Int),
  public: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  /** Absent: never. */
  expiresAt: option(Time)
}).pipe(
  Schema.encodeKeys({
    checkpointId: "checkpoint_id",
    checkpointType: "checkpoint_type",
    tinkerPath: "tinker_path",
    sizeBytes: "size_bytes",
    expiresAt: "expires_at"
  })
)
export type Checkpoint = typeof Checkpoint.Type
