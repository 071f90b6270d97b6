/** What can be known to be wrong with a prompt before it is sent. */
import type { Chunk, ModelInput } from "../wire/Datum.ts"
import * as MediaRules from "./mediaRules.ts"
import type { Breach } from "./mediaRules.ts"

/** A whole number from 0 on that 32 bits hold. */
export const isCount = (value: number): boolean => (value | 0) === value && value >= 0

/** Tokens of a prompt that is all text. */
export const tokensOf = (prompt: ModelInput): number | undefined => {
  let tokens = 0
  for (const chunk of prompt.chunks) {
    if (chunk.type !== "encoded_text") return undefined
    tokens += chunk.tokens.length
  }
  return tokens
}

/** The first rule that a prompt breaks. */
export const breach = (prompt: ModelInput): Breach | undefined => {
  if (tokensOf(prompt) === 0) return { field: "prompt", problem: "is empty: give at least one token" }
  for (const [i, chunk] of prompt.chunks.entries()) {
    const found = ofChunk(chunk)
    if (found !== undefined) return { field: `prompt.chunks[${i}].${found.field}`, problem: found.problem }
  }
  return undefined
}

const ofChunk = (chunk: Chunk): Breach | undefined => {
  if (chunk.type !== "encoded_text") return MediaRules.breach(chunk)
  const { tokens } = chunk
  for (let i = 0; i < tokens.length; i++) {
    // The index is below the length.
    if (!isCount(tokens[i] as number)) return { field: `tokens[${i}]`, problem: `is ${tokens[i]}, which is no token` }
  }
  return undefined
}
