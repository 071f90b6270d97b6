/**
 * One training example: what goes into the model, and the tensors that the loss needs, each aligned with the input.
 *
 * Position i of the input predicts `target_tokens[i]`: inputs are a text's tokens without the last one, targets the same without
 * the first. `make` takes plain lists where their type is known by their name: `target_tokens` are int64; `weights`,
 * `advantages`, `logprobs`, `clip_low_threshold`, `clip_high_threshold` and `sequence_ratio_mask` are float32. Anything else is
 * given as `TensorData`.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Tensor from "./TensorData.ts"
import { InvalidInput, TinkerError } from "./TinkerError.ts"
import { type Datum, fromTokens, type ModelInput, type Provenance } from "./wire/Datum.ts"

export * from "./wire/Datum.ts"

/** What a datum is made of. */
export type DatumInput = {
  readonly lossFnInputs: Readonly<Record<string, Tensor.Values | Tensor.TensorData>>
  readonly provenance?: Provenance | undefined
} & ({ readonly tokens: ArrayLike<number> } | { readonly modelInput: ModelInput })

const dtypes = new Map<string, Tensor.TensorData["dtype"]>([
  ["target_tokens", "int64"],
  ["weights", "float32"],
  ["advantages", "float32"],
  ["logprobs", "float32"],
  ["clip_low_threshold", "float32"],
  ["clip_high_threshold", "float32"],
  ["sequence_ratio_mask", "float32"]
])

/** Tensors of two dimensions under these names are sent sparse where that is shorter; lists stay as they are. */
const sparse = new Set(["target_tokens", "weights"])

/** Fails with `InvalidInput`, naming the input, for a list of unknown meaning, a ragged one, or a type that the API does not have. */
export const make = (input: DatumInput): Effect.Effect<Datum, TinkerError> =>
  Effect.suspend(() => {
    const lossFnInputs: Record<string, Tensor.TensorData> = {}
    for (const [name, values] of Object.entries(input.lossFnInputs)) {
      const tensor = toTensor(name, values)
      if (Result.isFailure(tensor)) {
        const { reason } = tensor.failure
        const problem = reason._tag === "InvalidInput" ? reason.problem : reason.message
        return Effect.fail(invalid(`lossFnInputs.${name}`, problem))
      }
      lossFnInputs[name] = tensor.success
    }
    return Effect.succeed({
      modelInput: "tokens" in input ? fromTokens(input.tokens) : input.modelInput,
      lossFnInputs,
      ...(input.provenance === undefined ? {} : { provenance: input.provenance })
    })
  })

const isTensor = (values: Tensor.Values | Tensor.TensorData): values is Tensor.TensorData => "dtype" in values

const toTensor = (
  name: string,
  values: Tensor.Values | Tensor.TensorData
): Result.Result<Tensor.TensorData, TinkerError> => {
  if (isTensor(values)) return Result.succeed(sparse.has(name) ? Tensor.toSparse(values) : values)
  if (ArrayBuffer.isView(values)) return Tensor.fromTyped(values)
  const dtype = dtypes.get(name)
  return dtype === undefined
    ? Result.fail(invalid(name, "is a plain list, and nothing tells its type: give a TensorData or a typed array"))
    : Tensor.make(dtype, values)
}

const invalid = (field: string, problem: string) =>
  new TinkerError({ reason: new InvalidInput({ operation: "A datum", field, problem }) })
