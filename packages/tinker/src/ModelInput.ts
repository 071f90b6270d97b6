/** What goes into a model: chunks of text, images or audio, in order. Inputs are values; nothing here changes one in place. */
import * as Result from "effect/Result"
import { InvalidInput, TinkerError } from "./TinkerError.ts"
import { type Chunk, chunkLength, type ModelInput } from "./wire/Datum.ts"

export { type Chunk, fromTokens, type ModelInput } from "./wire/Datum.ts"

/** An input of nothing. */
export const empty: ModelInput = { chunks: [] }

/** The input and one more chunk behind it. */
export const append = (input: ModelInput, chunk: Chunk): ModelInput => ({ chunks: [...input.chunks, chunk] })

/** The input and one more token behind it, as a chunk of its own. */
export const appendToken = (input: ModelInput, token: number): ModelInput =>
  append(input, { type: "encoded_text", tokens: [token] })

/**
 * Positions that the input takes. Fails with `InvalidInput`, naming the chunk, for an image without `expectedTokens` and for audio
 * whose header cannot be read.
 */
export const length = (input: ModelInput): Result.Result<number, TinkerError> => {
  let total = 0
  for (const [i, chunk] of input.chunks.entries()) {
    const size = chunkLength(chunk)
    if (Result.isFailure(size)) return invalid(`chunks[${i}]`, `is no use: ${size.failure.problem}`)
    total += size.success
  }
  return Result.succeed(total)
}

/** The tokens of an input that is text throughout; fails with `InvalidInput`, naming the chunk, for any other. */
export const toTokens = (input: ModelInput): Result.Result<ReadonlyArray<number>, TinkerError> => {
  const tokens: Array<number> = []
  for (const [i, chunk] of input.chunks.entries()) {
    if (chunk.type !== "encoded_text") return invalid(`chunks[${i}]`, `is of type ${chunk.type}, not text`)
    for (let at = 0; at < chunk.tokens.length; at++) tokens.push(chunk.tokens[at] as number) // the index is below the length
  }
  return Result.succeed(tokens)
}

const invalid = (field: string, problem: string) =>
  Result.fail(new TinkerError({ reason: new InvalidInput({ operation: "An input", field, problem }) }))
