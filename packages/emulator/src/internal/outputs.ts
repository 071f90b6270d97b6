/** Results that are protobuf for those who ask for it, and JSON for older clients. */
import * as Protobuf from "@tinkex/tinker/wire/Protobuf"
import * as SampleResponse from "@tinkex/tinker/wire/SampleResponse"
import type { TensorData } from "@tinkex/tinker/wire/Tensor"
import * as Effect from "effect/Effect"
import type * as FaultPlan from "../FaultPlan.ts"
import type { Result } from "./futures.ts"

export type Output = Extract<Result, { readonly _tag: "Output" }>

/** JSON has no other numbers than finite ones. */
const finite = (value: number | undefined): number | null =>
  value === undefined || !Number.isFinite(value) ? null : Math.fround(value)

const passJson = ({ lossFnOutputs, lossFnOutputType, metrics }: Protobuf.ForwardBackwardOutput) => ({
  loss_fn_output_type: lossFnOutputType,
  loss_fn_outputs: lossFnOutputs.map((datum) =>
    Object.fromEntries(Object.entries(datum).map(([name, tensor]) => [name, tensorJson(tensor)]))
  ),
  metrics
})

const topJson = (row: ReadonlyArray<SampleResponse.TokenLogprob> | undefined) =>
  row?.map(([token, logprob]) => [token, finite(logprob)]) ?? null

const tensorJson = ({ csr, data, dtype, shape }: TensorData) => ({
  data: dtype === "float32" ? Array.from(data, finite) : Array.from(data),
  dtype,
  shape,
  ...(csr === undefined ? {} : { sparse_crow_indices: Array.from(csr.crow), sparse_col_indices: Array.from(csr.col) })
})

const sampleJson = ({
  promptAltTokens,
  promptLogprobs,
  sequences,
  targetPromptLogprobs,
  topkPromptLogprobs
}: SampleResponse.SampleResponse) => ({
  type: "sample",
  sequences: sequences.map(({ logprobs, stopReason, tokens, topkLogprobs }) => ({
    stop_reason: stopReason,
    tokens,
    logprobs: logprobs?.map(finite) ?? null,
    ...(topkLogprobs === undefined ? {} : { topk_logprobs: topkLogprobs.map(topJson) })
  })),
  prompt_logprobs: promptLogprobs?.map(finite) ?? null,
  topk_prompt_logprobs: topkPromptLogprobs?.map(topJson) ?? null,
  ...(targetPromptLogprobs === undefined ? {} : { target_prompt_logprobs: tensorJson(targetPromptLogprobs) }),
  ...(promptAltTokens === undefined
    ? {}
    : {
        prompt_alt_tokens: {
          tokens: tensorJson(promptAltTokens.tokens),
          logprobs: tensorJson(promptAltTokens.logprobs)
        }
      })
})

export const pass = (output: Protobuf.ForwardBackwardOutput): Output => ({
  _tag: "Output",
  protobuf: () => Protobuf.encodeForwardBackwardOutput(output),
  json: () => passJson(output),
  spoiled: (factor) =>
    pass({
      ...output,
      metrics: Object.fromEntries(
        Object.entries(output.metrics).map(([name, value]) => [name, value * (factor ?? Number.NaN)])
      ),
      lossFnOutputs:
        factor === undefined
          ? output.lossFnOutputs.map((datum) =>
              Object.fromEntries(
                Object.entries(datum).map(([name, tensor]) => [
                  name,
                  { ...tensor, data: Float32Array.from(tensor.data, () => Number.NaN) }
                ])
              )
            )
          : output.lossFnOutputs
    })
})

export const sample = (response: SampleResponse.SampleResponse): Output => ({
  _tag: "Output",
  protobuf: () => SampleResponse.encode(response),
  json: () => sampleJson(response)
})

/** A result of an earlier process; its bytes were written by this module. */
export const stored = (operation: FaultPlan.Operation, bytes: Uint8Array): Output => ({
  _tag: "Output",
  protobuf: () => bytes,
  json: () =>
    operation === "asample"
      ? sampleJson(Effect.runSync(SampleResponse.decode(bytes)))
      : passJson(Effect.runSync(Protobuf.decodeForwardBackwardOutput(bytes)))
})
