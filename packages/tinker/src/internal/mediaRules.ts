/** What can be known to be wrong with an image or with audio before it is sent. */
import * as Result from "effect/Result"
import type { Chunk } from "../wire/Datum.ts"
import * as Dmel from "../wire/Dmel.ts"

/** A rule that an argument breaks. */
export interface Breach {
  /** Such as `data[2].lossFnInputs.weights`. */
  readonly field: string
  readonly problem: string
}

/** The first rule that a chunk which is no text breaks; `field` is that of the chunk. */
export const breach = (chunk: Exclude<Chunk, { readonly type: "encoded_text" }>): Breach | undefined => {
  if (chunk.type === "dmel") {
    const header = Dmel.length(chunk.dmel)
    return Result.isFailure(header) ? { field: "dmel", problem: `is no audio: ${header.failure.problem}` } : undefined
  }
  const { expectedTokens, format } = chunk
  if (format !== "png" && format !== "jpeg") {
    return { field: "format", problem: `is "${String(format)}" and must be "png" or "jpeg"` }
  }
  if (chunk.type === "image_asset_pointer" && chunk.location === "") return { field: "location", problem: "is empty" }
  return expectedTokens === undefined || (Number.isSafeInteger(expectedTokens) && expectedTokens >= 0)
    ? undefined
    : { field: "expectedTokens", problem: `is ${expectedTokens} and must be a whole number from 0 on` }
}
