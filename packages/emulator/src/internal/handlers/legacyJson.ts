/** Batches as JSON, the way clients before protobuf sent them: chunk kinds may be left to be guessed from their keys. */
import type { Chunk, Datum } from "@tinkex/tinker/wire/Datum"
import type { TensorData } from "@tinkex/tinker/wire/Tensor"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { refused, type Refused } from "../reply.ts"
import { decode, parseJson } from "./body.ts"

const Ints = Schema.Array(Schema.Int)

const Tensor = Schema.Struct({
  data: Schema.Array(Schema.Finite),
  dtype: Schema.Literals(["int64", "float32"]),
  shape: Schema.optional(Schema.NullOr(Ints)),
  sparse_crow_indices: Schema.optional(Schema.NullOr(Ints)),
  sparse_col_indices: Schema.optional(Schema.NullOr(Ints))
})

const Input = Schema.Struct({
  data: Schema.Array(
    Schema.Struct({
      model_input: Schema.Struct({ chunks: Schema.Array(Schema.Struct({ tokens: Schema.optional(Ints) })) }),
      loss_fn_inputs: Schema.Record(Schema.String, Tensor)
    })
  ),
  loss_fn: Schema.String,
  loss_fn_config: Schema.optional(
    Schema.NullOr(Schema.Record(Schema.String, Schema.Union([Schema.Finite, Schema.String])))
  )
})

const common = { model_id: Schema.String, seq_id: Schema.Int }
const readForward = decode(Schema.Struct({ ...common, forward_input: Input }))
const readForwardBackward = decode(Schema.Struct({ ...common, forward_backward_input: Input }))

const toTensor = (tensor: typeof Tensor.Type): TensorData => ({
  dtype: tensor.dtype,
  data: tensor.data,
  shape: tensor.shape ?? [tensor.data.length],
  csr:
    tensor.sparse_crow_indices && tensor.sparse_col_indices
      ? { crow: tensor.sparse_crow_indices, col: tensor.sparse_col_indices }
      : undefined
})

const toData = (input: typeof Input.Type): Effect.Effect<ReadonlyArray<Datum>, Refused> =>
  Effect.forEach(input.data, (datum, index) => {
    const chunks: Array<Chunk> = []
    for (const { tokens } of datum.model_input.chunks) {
      if (tokens === undefined) {
        return Effect.fail(refused(400, `datum ${index}: this server reads chunks of text only`))
      }
      chunks.push({ type: "encoded_text", tokens })
    }
    const lossFnInputs: Record<string, TensorData> = {}
    for (const [key, given] of Object.entries(datum.loss_fn_inputs)) {
      const tensor = toTensor(given)
      const size = tensor.shape.reduce((product, length) => product * length, 1)
      if (tensor.csr === undefined && size !== tensor.data.length) {
        const problem = `${key} has ${tensor.data.length} values and the shape [${tensor.shape.join(", ")}]`
        return Effect.fail(refused(422, `datum ${index}: ${problem}`))
      }
      lossFnInputs[key] = tensor
    }
    return Effect.succeed({ modelInput: { chunks }, lossFnInputs })
  })

export const read = (bytes: Uint8Array, forwardOnly: boolean) =>
  Effect.gen(function* () {
    const value = yield* parseJson(bytes)
    const { input, model_id, seq_id } = forwardOnly
      ? yield* Effect.map(readForward(value), ({ forward_input: input, ...rest }) => ({ input, ...rest }))
      : yield* Effect.map(readForwardBackward(value), ({ forward_backward_input: input, ...rest }) => ({
          input,
          ...rest
        }))
    return {
      modelId: model_id,
      seqId: seq_id,
      data: yield* toData(input),
      lossFn: input.loss_fn,
      lossFnConfig: input.loss_fn_config ?? {},
      forwardOnly
    }
  })
