/** What can be known to be wrong with a batch before it is sent. */
import * as Result from "effect/Result"
import type { LossOptions } from "../TrainingClient.ts"
import { type Chunk, chunkLength, type Datum, type ProvenanceSpan } from "../wire/Datum.ts"
import type { TensorData } from "../wire/Tensor.ts"
import * as MediaRules from "./mediaRules.ts"
import type { Breach } from "./mediaRules.ts"

const rl = ["target_tokens", "logprobs", "advantages"]

/** What the losses that this version knows cannot do without; all of it is aligned with the targets. */
const needed: Record<string, ReadonlyArray<string>> = {
  cross_entropy: ["target_tokens"],
  importance_sampling: rl,
  ppo: rl,
  cispo: rl,
  dro: rl
}

const perToken = ["weights", "logprobs", "advantages"]

/** The first rule that a batch breaks. */
export const breach = (data: ReadonlyArray<Datum>, options: LossOptions): Breach | undefined => {
  if (data.length === 0) return { field: "data", problem: "is empty: give at least one datum" }
  if (options.loss === "") return { field: "loss", problem: "is empty" }
  for (const [name, value] of Object.entries(options.lossConfig ?? {})) {
    if (typeof value !== "string" && !Number.isFinite(value))
      return { field: `lossConfig.${name}`, problem: `is ${value} and must be a finite number, or a text` }
  }
  for (const [i, datum] of data.entries()) {
    const found = ofDatum(datum, needed[options.loss] ?? [])
    if (found !== undefined) return { ...found, field: `data[${i}].${found.field}` }
  }
  return undefined
}

/**
 * The first value that the wire cannot hold: looked for only once writing has failed, for there are many values. `before` datums of
 * the batch stand before these.
 */
export const unwritable = (data: ReadonlyArray<Datum>, before: number): Breach | undefined => {
  for (const [i, { lossFnInputs, modelInput }] of data.entries()) {
    const d = before + i
    for (const [c, chunk] of modelInput.chunks.entries()) {
      if (chunk.type !== "encoded_text") continue
      const at = indexWhere(chunk.tokens, (token) => (token | 0) !== token)
      if (at >= 0) {
        const problem = `has ${chunk.tokens[at]} at ${at}, which is no 32-bit whole number`
        return { field: `data[${d}].modelInput.chunks[${c}].tokens`, problem }
      }
    }
    for (const [name, { data, dtype, exact }] of Object.entries(lossFnInputs)) {
      if (dtype !== "int64" || exact !== undefined) continue
      const at = indexWhere(data, (value) => !Number.isSafeInteger(value))
      if (at >= 0) {
        const problem = `has ${data[at]} at ${at}, which is no whole number below 2^53; larger ones need a BigInt64Array`
        return { field: `data[${d}].lossFnInputs.${name}`, problem }
      }
    }
  }
  return undefined
}

const indexWhere = (values: ArrayLike<number>, is: (value: number) => boolean): number => {
  for (let i = 0; i < values.length; i++) if (is(values[i] as number)) return i // the index is below the length
  return -1
}

const ofDatum = ({ lossFnInputs, modelInput, provenance }: Datum, names: ReadonlyArray<string>): Breach | undefined => {
  let length: number | undefined = 0
  for (const [i, chunk] of modelInput.chunks.entries()) {
    const found = ofChunk(chunk)
    if (found !== undefined) return { field: `modelInput.chunks[${i}]${found.field}`, problem: found.problem }
    const size = chunkLength(chunk)
    length = length === undefined || Result.isFailure(size) ? undefined : length + size.success
  }
  for (const [name, tensor] of Object.entries(lossFnInputs)) {
    const problem = ofTensor(tensor)
    if (problem !== undefined) return { field: `lossFnInputs.${name}`, problem }
  }
  if (provenance !== undefined) {
    const targets = lossFnInputs["target_tokens"]?.shape[0]
    const found =
      ofSpans(provenance.modelInput, length, "provenance.modelInput") ??
      ofSpans(provenance.lossFnInputs, targets, "provenance.lossFnInputs")
    if (found !== undefined) return found
  }
  for (const name of names) {
    if (lossFnInputs[name] === undefined) return { field: `lossFnInputs.${name}`, problem: "is missing" }
  }
  const targets = names.length === 0 ? undefined : lossFnInputs["target_tokens"]
  if (targets === undefined) return undefined
  const rows = targets.shape[0]
  if (length !== undefined && rows !== length) {
    return { field: "lossFnInputs.target_tokens", problem: `has ${rows} positions, and the model's input ${length}` }
  }
  for (const name of perToken) {
    const other = lossFnInputs[name]
    if (other !== undefined && other.shape[0] !== rows) {
      return { field: `lossFnInputs.${name}`, problem: `has ${other.shape[0]} positions, and target_tokens ${rows}` }
    }
  }
  return undefined
}

/** `length` is what the runs have to add up to, where it is known. */
const ofSpans = (
  spans: ReadonlyArray<ProvenanceSpan>,
  length: number | undefined,
  field: string
): Breach | undefined => {
  let total = 0
  for (const [i, span] of spans.entries()) {
    if (span.sequenceId === "") return { field: `${field}[${i}].sequenceId`, problem: "is empty" }
    for (const name of ["offset", "length"] as const) {
      const value = span[name] ?? 0
      if (!isCount(value)) {
        return { field: `${field}[${i}].${name}`, problem: `is ${value} and must be a whole number from 0 on` }
      }
    }
    total += span.length
  }
  return length === undefined || total === length
    ? undefined
    : { field, problem: `covers ${total} positions, and there are ${length}` }
}

const ofChunk = (chunk: Chunk): Breach | undefined => {
  if (chunk.type === "encoded_text") return undefined
  if (chunk.type === "image_asset_pointer") {
    return { field: "", problem: "is an image_asset_pointer, which only prompts may hold: send the image itself" }
  }
  const found = MediaRules.breach(chunk)
  return found && { ...found, field: `.${found.field}` }
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0

const ofTensor = ({ csr, data, dtype, shape }: TensorData): string | undefined => {
  if (dtype !== "float32" && dtype !== "int64") return `has the dtype "${String(dtype)}", and must be float32 or int64`
  if (shape.some((size) => !isCount(size))) return `has the shape [${shape.join(", ")}], which is none`
  if (csr === undefined) {
    const size = shape.reduce((total, one) => total * one, 1)
    return size === data.length ? undefined : `has ${data.length} values and the shape [${shape.join(", ")}]`
  }
  if (shape.length !== 2) return `is sparse and has the shape [${shape.join(", ")}]: it must have rows and columns`
  if (csr.col === undefined) return "has row pointers and no column indices"
  if (csr.crow.length !== Number(shape[0]) + 1 || csr.col.length !== data.length) {
    return `is sparse with ${data.length} values, ${csr.crow.length} row pointers and ${csr.col.length} columns for ${shape[0]} rows`
  }
  return undefined
}
