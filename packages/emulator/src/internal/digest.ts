/** Digests of what a request means, independent of its encoding, of the model and of how a batch was cut into requests. */
import { createHash } from "node:crypto"
import type { Datum } from "@tinkex/tinker/wire/Datum"
import type { LossFnConfig } from "@tinkex/tinker/wire/Protobuf"
import type { TensorData } from "@tinkex/tinker/wire/Tensor"

const canonical = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, field]) => [key, canonical(field)])
  )
}

/** Sha-256 (hex) of JSON whose keys may come in any order. */
export const ofJson = (value: unknown): string =>
  createHash("sha256")
    .update(JSON.stringify(canonical(value)))
    .digest("hex")

/** Sha-256 (hex) of the bytes of a body: a client that repeats a request repeats its bytes. */
export const ofBytes = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const bytesOf = (values: ArrayLike<number>): Uint8Array => {
  const numbers = values instanceof Float64Array ? values : Float64Array.from(values)
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength)
}

const ofDatum = (datum: Datum, context: string): Buffer => {
  const hash = createHash("sha256").update(context)
  for (const chunk of datum.modelInput.chunks) {
    if (chunk.type === "encoded_text") hash.update(`t${chunk.tokens.length}:`).update(bytesOf(chunk.tokens))
    else hash.update(JSON.stringify(chunk))
  }
  for (const key of Object.keys(datum.lossFnInputs).toSorted()) {
    // The key comes from the object itself.
    const tensor = datum.lossFnInputs[key] as TensorData
    hash.update(`|${key}:${tensor.dtype}:${tensor.shape.join("x")}:`).update(bytesOf(tensor.data))
    if (tensor.csr !== undefined) hash.update(bytesOf(tensor.csr.crow)).update(bytesOf(tensor.csr.col))
  }
  return hash.digest()
}

/** One digest per datum, concatenated: joining those of the requests of one batch gives those of the batch. */
export const ofData = (data: ReadonlyArray<Datum>, lossFn: string, lossFnConfig: LossFnConfig): Buffer => {
  const context = JSON.stringify([lossFn, canonical(lossFnConfig)])
  return Buffer.concat(data.map((datum) => ofDatum(datum, context)))
}

/** Sha-256 (hex) over bytes, in order. */
export const ofParts = (parts: ReadonlyArray<Uint8Array | string>): string => {
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  return hash.digest("hex")
}
