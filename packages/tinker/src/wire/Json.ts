/**
 * The JSON bodies of the API, key for key as they are on the wire. Unknown fields are dropped on reading, so a server may add
 * some; an optional field may be absent or null.
 *
 * Source: the request and response types of the official client 0.25.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"

const optional = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** A value that stands in where the field is absent or null. */
const orElse = <S extends Schema.Schema<unknown> & Schema.Codec<S["Type"], S["Type"]>>(schema: S, value: S["Type"]) =>
  optional(schema).pipe(
    Schema.decodeTo(Schema.toType(schema), {
      decode: SchemaGetter.transformOptional((found) =>
        Option.some(Option.getOrElse(Option.filter(found, Predicate.isNotNullish), () => value))
      ),
      encode: SchemaGetter.passthrough({ strict: false })
    })
  )

/** A whole number from 0 on: ids in a sequence, counts, sizes. */
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * ISO 8601 text. Reading lets anything through, or nothing: a bad timestamp must not hide the fields beside it.
 */
const Timestamp = Schema.optionalKey(Schema.Unknown)

const Metadata = Schema.Record(Schema.String, Schema.String)

export const ClientConfigRequest = Schema.Struct({ sdk_version: Schema.String })

/** Limits and switches that the server sets for its clients. */
export const ClientConfig = Schema.Struct({
  pjwt_auth_enabled: orElse(Schema.Boolean, false),
  credential_default_source: orElse(Schema.String, "api_key"),
  parallel_fwdbwd_chunks: orElse(Schema.Boolean, true),
  proto_compress_fwdbwd: orElse(Schema.Boolean, false),
  fwdbwd_max_chunk_len: orElse(Schema.Int.check(Schema.isGreaterThan(0)), 1024),
  fwdbwd_max_chunk_bytes_count: orElse(Schema.Int.check(Schema.isGreaterThan(0)), 5_000_000),
  billing_exception_max_pause_duration_sec: orElse(Schema.Finite, 3600),
  /** Bytes of forward_backward bodies that may be on their way at once. */
  fwdbwd_dispatch_bytes_semaphore_size: orElse(Count, 50_000_000),
  /** Bytes of large results that may be on their way at once. */
  inflight_response_bytes_semaphore_size: orElse(Count, 52_428_800),
  /** Bytes of prompts, by estimate, that may be on their way at once. */
  sample_dispatch_bytes_semaphore_size: orElse(Count, 10_485_760),
  /** Samples of one sampler that may be awaited at once. */
  sample_max_concurrent_requests: orElse(Schema.Int.check(Schema.isGreaterThan(0)), 2000),
  /** A sample whose result is lost is not asked for anew. */
  sample_no_retries: orElse(Schema.Boolean, false),
  /** Samplers that give nothing for long are given up. */
  sample_enable_stuck_detection: orElse(Schema.Boolean, true),
  /** After 0.25: one request tells which samples are done. */
  sample_use_retrieve_futures: orElse(Schema.Boolean, false),
  /** After 0.25: processes that share a sampler are told apart by the service. */
  sample_join_sampling_session: orElse(Schema.Boolean, false),
  create_model_via_load_weights: orElse(Schema.Boolean, false)
})

/** What the server may change while its clients run. */
export const DynamicConfig = Schema.Struct({
  refresh_interval_sec: orElse(Schema.Finite, 300),
  /** After 0.25: abandoned samples may be cancelled, so many in one request. */
  sample_cancel_enabled: orElse(Schema.Boolean, false),
  sample_cancel_max_batch_size: orElse(Schema.Int.check(Schema.isGreaterThan(0)), 64)
})

export const AuthToken = Schema.Struct({ jwt: Schema.String })

export const CreateSessionRequest = Schema.Struct({
  tags: Schema.Array(Schema.String),
  user_metadata: optional(Metadata),
  sdk_version: Schema.String,
  project_id: optional(Schema.String),
  type: optional(Schema.String)
})
export const CreateSession = Schema.Struct({
  session_id: Schema.String,
  info_message: optional(Schema.String),
  warning_message: optional(Schema.String),
  error_message: optional(Schema.String)
})

export const SessionHeartbeatRequest = Schema.Struct({ session_id: Schema.String, type: optional(Schema.String) })

export const SessionInfo = Schema.Struct({
  training_run_ids: Schema.Array(Schema.String),
  sampler_ids: Schema.Array(Schema.String)
})

export const LoraConfig = Schema.Struct({
  rank: Schema.Int,
  seed: optional(Schema.Int),
  train_unembed: orElse(Schema.Boolean, true),
  train_mlp: orElse(Schema.Boolean, true),
  train_attn: orElse(Schema.Boolean, true)
})

export const CreateModelRequest = Schema.Struct({
  session_id: Schema.String,
  model_seq_id: Count,
  base_model: Schema.String,
  user_metadata: optional(Metadata),
  lora_config: LoraConfig,
  type: optional(Schema.String)
})
export const CreateModel = Schema.Struct({ model_id: Schema.String })

export const ModelRequest = Schema.Struct({ model_id: Schema.String, type: optional(Schema.String) })

export const ModelInfo = Schema.Struct({
  model_id: Schema.String,
  model_data: Schema.Struct({
    arch: optional(Schema.String),
    model_name: optional(Schema.String),
    tokenizer_id: optional(Schema.String)
  }),
  is_lora: optional(Schema.Boolean),
  lora_rank: optional(Schema.Int),
  model_name: optional(Schema.String)
})

/** Absent is the default; null is an error: it is what JSON makes of a number that is none. */
const orDefault = (value: number) => Schema.Finite.pipe(Schema.withDecodingDefaultKey(Effect.succeed(value)))

/** Adam's parameters; the defaults are the API's. `grad_clip_norm` 0 means no clipping. */
export const AdamParams = Schema.Struct({
  learning_rate: orDefault(1e-4),
  beta1: orDefault(0.9),
  beta2: orDefault(0.95),
  eps: orDefault(1e-12),
  weight_decay: orDefault(0),
  grad_clip_norm: orDefault(0)
})

export const OptimStepRequest = Schema.Struct({
  adam_params: AdamParams,
  model_id: Schema.String,
  seq_id: Count,
  type: optional(Schema.String)
})
export const OptimStep = Schema.Struct({
  metrics: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.NullOr(Schema.Number))))
})

export const SaveWeightsRequest = Schema.Struct({
  model_id: Schema.String,
  path: Schema.String,
  seq_id: Count,
  ttl_seconds: optional(Schema.Int),
  overwrite: orElse(Schema.Boolean, false),
  type: optional(Schema.String)
})
export const SaveWeights = Schema.Struct({ path: Schema.String })

/** Either a name in `path`, or `sampling_session_seq_id` for weights that are kept in a sampling session alone. */
export const SaveWeightsForSamplerRequest = Schema.Struct({
  model_id: Schema.String,
  path: optional(Schema.String),
  sampling_session_seq_id: optional(Count),
  seq_id: Count,
  ttl_seconds: optional(Schema.Int),
  type: optional(Schema.String)
})
export const SaveWeightsForSampler = Schema.Struct({
  path: optional(Schema.String),
  sampling_session_id: optional(Schema.String)
})

/** Either `model_id` with `seq_id`, or `session_id` with `model_seq_id`, which makes the model from the checkpoint. */
export const LoadWeightsRequest = Schema.Struct({
  path: Schema.String,
  optimizer: Schema.Boolean,
  model_id: optional(Schema.String),
  seq_id: optional(Count),
  session_id: optional(Schema.String),
  model_seq_id: optional(Count),
  base_model: optional(Schema.String),
  user_metadata: optional(Metadata),
  weights_access_token: optional(Schema.String),
  type: optional(Schema.String)
})
export const LoadWeights = Schema.Struct({ path: optional(Schema.String), model_id: optional(Schema.String) })

export const WeightsInfoRequest = Schema.Struct({ tinker_path: Schema.String })
export const WeightsInfo = Schema.Struct({
  base_model: Schema.String,
  is_lora: Schema.Boolean,
  lora_rank: optional(Schema.Int),
  train_unembed: optional(Schema.Boolean),
  train_mlp: optional(Schema.Boolean),
  train_attn: optional(Schema.Boolean)
})

/** The answer to every request whose result comes later. */
export const Submitted = Schema.Struct({ request_id: Schema.String, model_id: optional(Schema.String) })

export const RetrieveFutureRequest = Schema.Struct({
  request_id: Schema.String,
  allow_metadata_only: orElse(Schema.Boolean, false)
})

export const QueueState = Schema.Literals(["active", "paused_capacity", "paused_rate_limit"])

/** Not done yet. Also the body of a 408, where only the queue's state counts. */
export const TryAgain = Schema.Struct({
  type: Schema.Literal("try_again"),
  request_id: optional(Schema.String),
  queue_state: optional(Schema.String),
  queue_state_reason: optional(Schema.String)
})

export const CompleteMetadata = Schema.Struct({
  status: Schema.Literal("complete_metadata"),
  response_payload_size: Count
})

/** An operation that failed after it was accepted. */
export const RequestFailed = Schema.Struct({ error: Schema.String, category: optional(Schema.String) })

export const Checkpoint = Schema.Struct({
  checkpoint_id: Schema.String,
  checkpoint_type: Schema.String,
  time: Timestamp,
  tinker_path: Schema.String,
  size_bytes: optional(Count),
  public: orElse(Schema.Boolean, false),
  user_metadata: optional(Metadata),
  expires_at: Timestamp
})

export const TrainingRun = Schema.Struct({
  training_run_id: Schema.String,
  base_model: Schema.String,
  model_owner: Schema.String,
  is_lora: Schema.Boolean,
  /** Absent is false; null, like anything else that is no boolean, must not pass for healthy. */
  corrupted: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  lora_rank: optional(Schema.Int),
  last_request_time: Timestamp,
  last_checkpoint: optional(Checkpoint),
  last_sampler_checkpoint: optional(Checkpoint),
  user_metadata: optional(Metadata)
})

export const Cursor = Schema.Struct({ offset: Count, limit: Count, total_count: Count })

export const TrainingRuns = Schema.Struct({ training_runs: Schema.Array(TrainingRun), cursor: Cursor })

export const Checkpoints = Schema.Struct({ checkpoints: Schema.Array(Checkpoint), cursor: optional(Cursor) })

export const CheckpointTtlRequest = Schema.Struct({ ttl_seconds: Schema.NullOr(Schema.Int) })

export const ServerCapabilities = Schema.Struct({
  supported_models: Schema.Array(
    Schema.Struct({ model_name: optional(Schema.String), max_context_length: optional(Schema.Int) })
  )
})

export const Health = Schema.Struct({ status: Schema.String })

/** The shape of an error body. */
export const Detail = Schema.Struct({ detail: Schema.Unknown })
