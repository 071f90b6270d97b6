import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Checkpoint } from "./Checkpoint.ts"
import { Time } from "./Time.ts"

const option = <S extends Schema.Top>(schema: S) => Schema.OptionFromOptionalNullOr(schema)

/**
 * A training run as the service knows it. `corrupted` says that its backend failed and that its state cannot be trusted any
 * more; absent means false, anything but a boolean is an error and never read as healthy.
 */
export const TrainingRun = Schema.Struct({
  /** The same as the id of the run's model. */
  trainingRunId: Schema.String,
  baseModel: Schema.String,
  modelOwner: Schema.String,
  isLora: Schema.Boolean,
  corrupted: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  loraRank: option(Schema.Int),
  lastRequestTime: Time,
  lastCheckpoint: option(Checkpoint),
  lastSamplerCheckpoint: option(Checkpoint),
  userMetadata: option(Schema.Record(Schema.String, Schema.String))
}).pipe(
  Schema.encodeKeys({
    trainingRunId: "training_run_id",
    baseModel: "base_model",
    modelOwner: "model_owner",
    isLora: "is_lora",
    loraRank: "lora_rank",
    lastRequestTime: "last_request_time",
    lastCheckpoint: "last_checkpoint",
    lastSamplerCheckpoint: "last_sampler_checkpoint",
    userMetadata: "user_metadata"
  })
)
export type TrainingRun = typeof TrainingRun.Type
