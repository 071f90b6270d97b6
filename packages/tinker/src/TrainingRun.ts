import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Checkpoint from "./Checkpoint.ts"
import { decodingTimes } from "./internal/decodingTimes.ts"
import * as Time from "./Time.ts"
import * as Json from "./wire/Json.ts"

const Model = Schema.toType(
  Schema.Struct({
    /** The same as the id of the run's model. */
    trainingRunId: Schema.String,
    baseModel: Schema.String,
    modelOwner: Schema.String,
    isLora: Schema.Boolean,
    /** The run's backend failed, and its state cannot be trusted any more. */
    corrupted: Schema.Boolean,
    loraRank: Schema.Option(Schema.Int),
    lastRequestTime: Time.Time,
    lastCheckpoint: Schema.Option(Checkpoint.Checkpoint),
    lastSamplerCheckpoint: Schema.Option(Checkpoint.Checkpoint),
    userMetadata: Schema.Option(Schema.Record(Schema.String, Schema.String))
  })
)

/**
 * A training run as the service knows it. A missing `corrupted` flag reads as false; anything but a boolean is an error and
 * never read as healthy.
 */
export type TrainingRun = typeof Model.Type

type Wire = typeof Json.TrainingRun.Type

const fromWire = (wire: Wire, readTime: (raw: unknown) => Time.Time): TrainingRun => {
  const checkpoint = (found: typeof Json.Checkpoint.Type) => Checkpoint.fromWire(found, readTime)
  return {
    trainingRunId: wire.training_run_id,
    baseModel: wire.base_model,
    modelOwner: wire.model_owner,
    isLora: wire.is_lora,
    corrupted: wire.corrupted,
    loraRank: Option.fromNullishOr(wire.lora_rank),
    lastRequestTime: readTime(wire.last_request_time),
    lastCheckpoint: Option.map(Option.fromNullishOr(wire.last_checkpoint), checkpoint),
    lastSamplerCheckpoint: Option.map(Option.fromNullishOr(wire.last_sampler_checkpoint), checkpoint),
    userMetadata: Option.fromNullishOr(wire.user_metadata)
  }
}

const toWire = (run: TrainingRun): Wire => ({
  training_run_id: run.trainingRunId,
  base_model: run.baseModel,
  model_owner: run.modelOwner,
  is_lora: run.isLora,
  corrupted: run.corrupted,
  ...(Option.isSome(run.loraRank) ? { lora_rank: run.loraRank.value } : {}),
  last_request_time: Time.toWire(run.lastRequestTime),
  ...(Option.isSome(run.lastCheckpoint) ? { last_checkpoint: Checkpoint.toWire(run.lastCheckpoint.value) } : {}),
  ...(Option.isSome(run.lastSamplerCheckpoint)
    ? { last_sampler_checkpoint: Checkpoint.toWire(run.lastSamplerCheckpoint.value) }
    : {}),
  ...(Option.isSome(run.userMetadata) ? { user_metadata: run.userMetadata.value } : {})
})

/** Codec between the service's JSON and `TrainingRun`. */
export const TrainingRun: Schema.Codec<TrainingRun, typeof Json.TrainingRun.Encoded> = Json.TrainingRun.pipe(
  Schema.decodeTo(Model, decodingTimes(fromWire, toWire))
)
