/**
 * The header of the tensor that an audio chunk carries: an optional byte 254 (all values alike), a byte for the type, and as
 * LEB128 numbers the count of dimensions and each of them. What follows is the model's business.
 */
import * as Result from "effect/Result"
import { WireError } from "./WireError.ts"

const constantMarker = 254
const lastDtype = 7
/** More than any tensor has; a count of dimensions is not believed before they are read. */
const longestVarint = 9

/** The dimensions that the header names. */
export const shape = (bytes: Uint8Array): Result.Result<ReadonlyArray<number>, WireError> => {
  const wrong = (problem: string) => Result.fail(new WireError({ what: "an audio chunk", problem }))
  let at = bytes[0] === constantMarker ? 1 : 0
  const dtype = bytes[at++]
  if (dtype === undefined) return wrong("it is empty")
  if (dtype > lastDtype) return wrong(`it has the unknown dtype ${dtype}`)

  const varint = (): number | undefined => {
    let value = 0n
    for (let i = 0; i < longestVarint; i++) {
      const byte = bytes[at++]
      if (byte === undefined) return undefined
      value |= BigInt(byte & 0x7f) << BigInt(7 * i)
      if (byte < 0x80) return Number(value)
    }
    return Number.POSITIVE_INFINITY
  }

  const dimensions = varint()
  if (dimensions === undefined) return wrong("its header is cut off")
  const sizes: Array<number> = []
  for (let i = 0; i < dimensions; i++) {
    const size = varint()
    if (size === undefined) return wrong("its header is cut off")
    if (!Number.isSafeInteger(size)) return wrong(`its dimension ${i} is beyond 2^53`)
    sizes.push(size)
  }
  return Result.succeed(sizes)
}

/** Positions that the chunk takes in the input: its first dimension. */
export const length = (bytes: Uint8Array): Result.Result<number, WireError> =>
  Result.flatMap(shape(bytes), ([first]) =>
    first === undefined
      ? Result.fail(new WireError({ what: "an audio chunk", problem: "it has no dimension" }))
      : Result.succeed(first)
  )
