/** The two ordinary passes that a loss of the caller's comes to. */
import * as Effect from "effect/Effect"
import type { DatumLogprobs, LossValue } from "../CustomLoss.ts"
import { InvalidInput, TinkerError } from "../TinkerError.ts"
import type { CustomOutput, ForwardBackwardOutput } from "../TrainingClient.ts"
import type { Datum } from "../wire/Datum.ts"
import * as Tensor from "../wire/Tensor.ts"
import { badResponse } from "./transport.ts"

const operation = "forward_backward_custom"

const invalid = (field: string, problem: string) =>
  new TinkerError({ reason: new InvalidInput({ operation, field, problem }) })

const allowed = new Set(["target_tokens", "weights"])

/** The batch of the first pass: the caller's, with weights of 0 where it has none. */
export const forwardData = Effect.fnUntraced(function* (
  data: ReadonlyArray<Datum>
): Effect.fn.Return<ReadonlyArray<Datum>, TinkerError> {
  const filled: Array<Datum> = []
  for (const [i, datum] of data.entries()) {
    const field = `data[${i}].lossFnInputs`
    const stranger = Object.keys(datum.lossFnInputs).find((name) => !allowed.has(name))
    if (stranger !== undefined) {
      return yield* invalid(`${field}.${stranger}`, "is unknown to it: only target_tokens and weights can be given")
    }
    const targets = datum.lossFnInputs["target_tokens"]
    if (targets === undefined) return yield* invalid(`${field}.target_tokens`, "is missing")
    if (targets.csr !== undefined) {
      return yield* invalid(`${field}.target_tokens`, "is sparse, which has no gradient for each value: make it dense")
    }
    filled.push(
      datum.lossFnInputs["weights"] === undefined
        ? withWeights(datum, targets, new Float32Array(targets.data.length))
        : datum
    )
  }
  return filled
})

/** What the loss is called with. */
export const batchOf = Effect.fnUntraced(function* (
  data: ReadonlyArray<Datum>,
  output: ForwardBackwardOutput
): Effect.fn.Return<ReadonlyArray<DatumLogprobs>, TinkerError> {
  if (output.lossFnOutputs.length !== data.length) {
    return yield* badResponse(operation, `it has outputs of ${output.lossFnOutputs.length} datums, not ${data.length}`)
  }
  const batch: Array<DatumLogprobs> = []
  for (const [i, datum] of data.entries()) {
    const targets = datum.lossFnInputs["target_tokens"]
    const logprobs = output.lossFnOutputs[i]?.["logprobs"]
    if (targets === undefined || logprobs?.data.length !== targets.data.length) {
      return yield* badResponse(
        operation,
        `datum ${i} has ${logprobs?.data.length ?? "no"} logprobs for ${targets?.data.length ?? 0} targets`
      )
    }
    batch.push({ datum, logprobs: logprobs.data, shape: targets.shape })
  }
  return batch
})

/**
 * The batch of the second pass. Cross-entropy is the sum of -weight · logprob, so weights of minus the gradient make its
 * gradient that of the caller's loss.
 */
export const backwardData = Effect.fnUntraced(function* (
  batch: ReadonlyArray<DatumLogprobs>,
  { gradients, loss }: LossValue
): Effect.fn.Return<ReadonlyArray<Datum>, TinkerError> {
  if (!Number.isFinite(loss)) return yield* invalid("loss", `came to ${loss}`)
  if (gradients.length !== batch.length) {
    return yield* invalid(
      "gradients",
      `has ${gradients.length} entries, and must have one for each of ${batch.length} datums`
    )
  }
  const weighted: Array<Datum> = []
  for (const [i, { datum, logprobs }] of batch.entries()) {
    const gradient: ArrayLike<number> | undefined = gradients[i]
    const targets = datum.lossFnInputs["target_tokens"]
    if (gradient?.length !== logprobs.length || targets === undefined) {
      const problem = `has ${gradient?.length ?? "no"} numbers, and must have one for each of ${logprobs.length} log-probabilities`
      return yield* invalid(`gradients[${i}]`, problem)
    }
    const weights = new Float32Array(gradient.length)
    for (let at = 0; at < weights.length; at++) {
      const slope = gradient[at] as number // the index is below the length
      weights[at] = slope === 0 ? 0 : -slope
      if (!Number.isFinite(weights[at])) return yield* invalid(`gradients[${i}][${at}]`, `is ${slope}`)
    }
    weighted.push(withWeights(datum, targets, weights))
  }
  return weighted
})

export const outputOf =
  ({ loss, metrics }: LossValue) =>
  (output: ForwardBackwardOutput): CustomOutput => ({ ...output, metrics: { ...output.metrics, ...metrics }, loss })

const withWeights = (datum: Datum, targets: Tensor.TensorData, weights: Float32Array): Datum => ({
  ...datum,
  lossFnInputs: { ...datum.lossFnInputs, weights: Tensor.float32(weights, targets.shape) }
})
