/** The JSON of sampling sessions and of what later revisions added around them. */
import * as Schema from "effect/Schema"

const optional = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** At least one of `base_model` and `model_path`. The number makes the request one and the same when it is repeated. */
export const CreateSamplingSessionRequest = Schema.Struct({
  session_id: Schema.String,
  sampling_session_seq_id: Count,
  base_model: optional(Schema.String),
  model_path: optional(Schema.String),
  type: optional(Schema.String)
})
export const CreateSamplingSession = Schema.Struct({ sampling_session_id: Schema.String })

/** After 0.25: a number of its own for another process that samples from a session; its maker has 0. */
export const JoinSamplingSessionRequest = Schema.Struct({
  sampling_session_id: Schema.String,
  type: optional(Schema.String)
})
export const JoinSamplingSession = Schema.Struct({ client_counter: Count })

/** The answer to a sample; `sample_sequence_ids`, after 0.25, names the samples beforehand. */
export const SampleSubmitted = Schema.Struct({
  request_id: Schema.String,
  sample_sequence_ids: optional(Schema.Array(Schema.String))
})

/** After 0.25: which results of a sampling session have come since a cursor, which acknowledges what lies before it. */
export const RetrieveFuturesRequest = Schema.Struct({
  target: Schema.Struct({
    type: Schema.Literal("sampling_session"),
    sampling_session_id: Schema.String,
    cloned_sampler_id: Count
  }),
  prev_cursor: Count,
  timeout: optional(Schema.Finite)
})
export const RetrieveFutures = Schema.Struct({
  completions: Schema.Array(
    Schema.Struct({
      state: Schema.Literals(["finished", "failed"]),
      request_id: Schema.String,
      response_payload_uncompressed_size: optional(Count)
    })
  ),
  cursor: Count
})

/** After 0.25: nobody waits for this result any more. */
export const CancelFutureRequest = Schema.Struct({ request_id: Schema.String })
