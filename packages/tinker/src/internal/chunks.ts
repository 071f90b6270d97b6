/** One call as several requests, and several results as one. */
import type { ForwardBackwardOutput } from "../TrainingClient.ts"
import { type Datum, estimateBytes } from "../wire/Datum.ts"

/** Splits a batch in order: a request ends before the datum that would exceed a limit; an oversized datum travels alone. */
export const split = (
  data: ReadonlyArray<Datum>,
  limits: { readonly maxLength: number; readonly maxBytes: number }
): ReadonlyArray<ReadonlyArray<Datum>> => {
  const chunks: Array<Array<Datum>> = []
  let current: Array<Datum> = []
  let bytes = 0
  for (const datum of data) {
    const size = estimateBytes(datum)
    if (current.length > 0 && (bytes + size > limits.maxBytes || current.length >= limits.maxLength)) {
      chunks.push(current)
      current = []
      bytes = 0
    }
    current.push(datum)
    bytes += size
  }
  if (current.length > 0) chunks.push(current)
  return chunks
}

/** Joins the results of the requests of one call, in their order. */
export const combine = (outputs: ReadonlyArray<ForwardBackwardOutput>): ForwardBackwardOutput => ({
  lossFnOutputType: outputs[0]?.lossFnOutputType ?? "",
  lossFnOutputs: outputs.length === 1 ? (outputs[0]?.lossFnOutputs ?? []) : outputs.flatMap((o) => o.lossFnOutputs),
  metrics: reduce(outputs)
})

interface Part {
  readonly value: number
  readonly weight: number
}

/**
 * A metric is called `name:reduction`. One that is missing from any request, or that asks for a reduction which is not known,
 * is dropped.
 */
const reduce = (outputs: ReadonlyArray<ForwardBackwardOutput>): Record<string, number> => {
  const reduced: Record<string, number> = {}
  for (const key of Object.keys(outputs[0]?.metrics ?? {})) {
    const parts: Array<Part> = []
    for (const output of outputs) {
      const value = output.metrics[key]
      if (value !== undefined) parts.push({ value, weight: output.lossFnOutputs.length })
    }
    if (parts.length < outputs.length) continue
    const [, reduction, ...rest] = key.split(":")
    if (reduction === undefined || rest.length > 0) continue
    if (reduction === "unique") {
      for (const [i, part] of parts.entries()) reduced[i === 0 ? key : `${key}_${i}`] = part.value
      continue
    }
    if (isReduction(reduction)) reduced[key] = reductions[reduction](parts)
  }
  return reduced
}

/** Weighted by the datums of each request; where the server gave none at all, each request counts the same. */
const mean = (parts: ReadonlyArray<Part>): number => {
  let weighted = 0
  let weight = 0
  let plain = 0
  for (const part of parts) {
    weighted += part.value * part.weight
    weight += part.weight
    plain += part.value
  }
  return weight > 0 ? weighted / weight : plain / parts.length
}

const max = (parts: ReadonlyArray<Part>): number => parts.reduce((most, part) => Math.max(most, part.value), -Infinity)

/** How a metric of several requests becomes one; `unique` is not among them, since it becomes several. */
type Reduction = "mean" | "max" | "sum" | "min" | "slack" | "hash_unordered"

const isReduction = (name: string): name is Reduction => Object.hasOwn(reductions, name)

const reductions: Record<Reduction, (parts: ReadonlyArray<Part>) => number> = {
  mean,
  max,
  sum: (parts) => parts.reduce((total, part) => total + part.value, 0),
  min: (parts) => parts.reduce((least, part) => Math.min(least, part.value), Infinity),
  slack: (parts) => max(parts) - mean(parts),
  // Any hash will do that does not depend on the order of the requests.
  hash_unordered: (parts) => {
    let hash = 0x811c9dc5
    for (const value of parts.map((part) => Math.trunc(part.value)).toSorted((a, b) => a - b)) {
      hash = Math.imul(hash ^ (value | 0), 0x01000193) >>> 0
    }
    return hash
  }
}
