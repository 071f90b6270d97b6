/**
 * The number of an operation whose body cannot be read. A refused number counts as done, so that what comes behind it does not
 * wait for it; that holds for a body that is broken in some other place as well.
 */
import * as Effect from "effect/Effect"
import * as Execution from "../execution.ts"
import { type Caller, maxBodyBytes, type Refused } from "../reply.ts"
import type { World } from "../world.ts"

interface Numbered {
  readonly modelId: string
  readonly seqId: number
}

const ofJson = (bytes: Uint8Array): Numbered | undefined => {
  const text = new TextDecoder().decode(bytes)
  const modelId = /"model_id"\s*:\s*"([^"\\]+)"/.exec(text)?.[1]
  const seqId = /"seq_id"\s*:\s*(\d{1,15})(?![\d.eE])/.exec(text)?.[1]
  return modelId === undefined || seqId === undefined ? undefined : { modelId, seqId: Number(seqId) }
}

/** Reads fields 1 (text) and 2 (number) of a message, as far as it can be read at all. */
const ofProtobuf = (bytes: Uint8Array): Numbered | undefined => {
  let at = 0
  let modelId: string | undefined
  let seqId: number | undefined
  const varint = (): number => {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = bytes[at++] ?? 0
      value += (byte & 127) * 2 ** shift
      if (byte < 128) break
    }
    return value
  }
  while (at < bytes.length && (modelId === undefined || seqId === undefined)) {
    const tag = varint()
    const [field, wire] = [tag >>> 3, tag & 7]
    if (wire === 0) {
      const value = varint()
      if (field === 2) seqId = value
    } else if (wire === 2) {
      const length = varint()
      if (field === 1) modelId = new TextDecoder().decode(bytes.subarray(at, at + length))
      at += length
    } else return undefined
  }
  return modelId === undefined || seqId === undefined ? undefined : { modelId, seqId }
}

/** Refuses a body as it is refused anyway, and its number along with it where that can still be read. */
export const refusingItsNumber =
  (world: World, request: Caller, form: "json" | "protobuf", bytes: Uint8Array = request.body) =>
  <A>(read: Effect.Effect<A, Refused>): Effect.Effect<A, Refused> =>
    Effect.catch(read, (refusal) => {
      const found = bytes.length > maxBodyBytes ? undefined : form === "json" ? ofJson(bytes) : ofProtobuf(bytes)
      const model = found === undefined ? undefined : world.models.get(found.modelId)
      return found === undefined || model === undefined || model.run.owner !== request.user || found.seqId < 1
        ? Effect.fail(refusal)
        : Execution.refuse(world, model, found.seqId, refusal)
    })
