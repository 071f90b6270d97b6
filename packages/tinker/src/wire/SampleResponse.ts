/**
 * The result of a sampling request, as protobuf. Packed arrays are little-endian. Reading is total, as in `wire/Protobuf`;
 * writing throws an `Error` for values that the wire cannot hold.
 *
 * It is read field by field instead of through the generated code: a client of thousands of samples reads little else, and the
 * messages are four small ones. The tests compare both.
 */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire"
import * as Effect from "effect/Effect"
import { f32Bytes, i32Bytes, i64Bytes, Malformed, readF32, readI32 } from "../internal/packed.ts"
import { readTensor } from "./Protobuf.ts"
import type { TensorData } from "./Tensor.ts"
import { WireError } from "./WireError.ts"

export interface SampledSequence {
  /** `stop`: it reached one of the stops or the model's own end; `length`: it has as many tokens as it may. */
  readonly stopReason: "stop" | "length"
  readonly tokens: ReadonlyArray<number>
  /** One for each token, where the service gave any. */
  readonly logprobs: ReadonlyArray<number> | undefined
  /** For each token the likeliest ones in its place, where they were asked for; after 0.25. */
  readonly topkLogprobs?: TopkLogprobs | undefined
}

/** A token that could have stood at a position of the prompt, and its natural-log probability. */
export type TokenLogprob = readonly [token: number, logprob: number]

/** For each place the likeliest tokens, best first; `undefined` where there are none. */
export type TopkLogprobs = ReadonlyArray<ReadonlyArray<TokenLogprob> | undefined>

export interface SampleResponse {
  readonly sequences: ReadonlyArray<SampledSequence>
  /** One for each token of the prompt, given those before it; `undefined` where there is none, as for the first. */
  readonly promptLogprobs: ReadonlyArray<number | undefined> | undefined
  /** For each token of the prompt the likeliest ones in its place. */
  readonly topkPromptLogprobs: TopkLogprobs | undefined
  /** Tokens of the prompt that the service had computed before; counted once, however many samples were drawn. */
  readonly promptCacheHitTokens: number
  /** After 0.25: the log-probabilities that were asked for by name, in the shape and layout of the request. */
  readonly targetPromptLogprobs?: TensorData | undefined
  /** After 0.25: tokens drawn in each place of the prompt but the first, with their log-probabilities; a row for each place. */
  readonly promptAltTokens?: PromptAltTokens | undefined
}

/** See `SampleResponse`. */
export interface PromptAltTokens {
  readonly tokens: TensorData
  readonly logprobs: TensorData
}

const stopReasons = ["stop", "length"] as const
/** Fills a row of the top-k matrix that has fewer entries than the widest. */
const masked: TokenLogprob = [0, -99_999]

/** The highest number of a field that these messages have; those above it belong to later revisions and are skipped. */
const known = 6

const fields = (
  bytes: Uint8Array,
  what: string,
  onBytes: (field: number, value: Uint8Array) => void,
  onVarint: (field: number, value: number) => void
): void => {
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag()
    if (type === WireType.LengthDelimited) onBytes(field, reader.bytes())
    else if (type === WireType.Varint) onVarint(field, reader.uint32())
    else if (field > known) reader.skip(type, field)
    else throw new Malformed(`${what} has its field ${field} in the wire type ${type}`)
  }
}

const readSequence = (bytes: Uint8Array): SampledSequence => {
  let stop = 0
  let tokens: ReadonlyArray<number> = []
  let logprobs: ReadonlyArray<number> | undefined
  let topkLogprobs: TopkLogprobs | undefined
  fields(
    bytes,
    "a sequence",
    (field, value) => {
      if (field === 2) tokens = Array.from(readI32(value, "a sequence's tokens"))
      else if (field === 3 && value.byteLength > 0) logprobs = Array.from(readF32(value, "a sequence's logprobs"))
      else if (field === 3) logprobs = undefined
      else if (field === 4) topkLogprobs = readTopk(value)
    },
    (field, value) => {
      if (field === 1) stop = value
    }
  )
  const stopReason = stopReasons[stop]
  if (stopReason === undefined) throw new Malformed(`a sequence has the stop reason ${stop}`)
  if (logprobs !== undefined && logprobs.length !== tokens.length) {
    throw new Malformed(`a sequence has ${tokens.length} tokens and ${logprobs.length} logprobs`)
  }
  if (topkLogprobs === undefined) return { stopReason, tokens, logprobs }
  if (topkLogprobs.length !== tokens.length) {
    throw new Malformed(`a sequence has ${tokens.length} tokens and ${topkLogprobs.length} rows of top-k`)
  }
  return { stopReason, tokens, logprobs, topkLogprobs }
}

const readTopk = (bytes: Uint8Array): TopkLogprobs | undefined => {
  let ids: Int32Array = new Int32Array()
  let logprobs: Float32Array = new Float32Array()
  let k = 0
  let rows = 0
  fields(
    bytes,
    "top-k",
    (field, value) => {
      if (field === 1) ids = readI32(value, "top-k tokens")
      else if (field === 2) logprobs = readF32(value, "top-k logprobs")
    },
    (field, value) => {
      if (field === 3) k = value
      else if (field === 4) rows = value
    }
  )
  if (k === 0 || rows === 0) return undefined
  if (ids.length !== k * rows || logprobs.length !== k * rows) {
    throw new Malformed(`top-k has ${ids.length} tokens and ${logprobs.length} logprobs for ${rows} rows of ${k}`)
  }
  const isMasked = (cell: number) => ids[cell] === masked[0] && logprobs[cell] === masked[1]
  return Array.from({ length: rows }, (_, row) => {
    const start = row * k
    if (isMasked(start)) return undefined
    let end = start + k
    while (isMasked(end - 1)) end--
    const cells: Array<TokenLogprob> = []
    // The cells were counted above.
    for (let cell = start; cell < end; cell++) cells.push([ids[cell] as number, logprobs[cell] as number])
    return cells
  })
}

const readAltTokens = (bytes: Uint8Array): PromptAltTokens => {
  let tokens: TensorData | undefined
  let logprobs: TensorData | undefined
  fields(
    bytes,
    "a drawing of alternatives",
    (field, value) => {
      if (field === 1) tokens = readTensor(value, "alternative tokens")
      else if (field === 2) logprobs = readTensor(value, "alternative logprobs")
    },
    () => {}
  )
  if (tokens === undefined || logprobs === undefined) throw new Malformed("alternatives lack tokens or logprobs")
  if (tokens.shape.join() !== logprobs.shape.join()) {
    throw new Malformed(`alternatives have the shapes [${tokens.shape.join(", ")}] and [${logprobs.shape.join(", ")}]`)
  }
  return { tokens, logprobs }
}

export const decode = (bytes: Uint8Array): Effect.Effect<SampleResponse, WireError> =>
  Effect.try({
    try: () => {
      const sequences: Array<SampledSequence> = []
      let promptLogprobs: SampleResponse["promptLogprobs"]
      let topkPromptLogprobs: SampleResponse["topkPromptLogprobs"]
      let promptCacheHitTokens = 0
      let targetPromptLogprobs: TensorData | undefined
      let promptAltTokens: PromptAltTokens | undefined
      fields(
        bytes,
        "it",
        (field, value) => {
          if (field === 1) sequences.push(readSequence(value))
          else if (field === 2) {
            const values = readF32(value, "the prompt's logprobs")
            promptLogprobs =
              values.length === 0 ? undefined : Array.from(values, (one) => (Number.isNaN(one) ? undefined : one))
          } else if (field === 3) topkPromptLogprobs = readTopk(value)
          else if (field === 5) targetPromptLogprobs = readTensor(value, "target logprobs")
          else if (field === 6) promptAltTokens = readAltTokens(value)
        },
        (field, value) => {
          if (field === 4) promptCacheHitTokens = value | 0
        }
      )
      return {
        sequences,
        promptLogprobs,
        topkPromptLogprobs,
        promptCacheHitTokens,
        ...(targetPromptLogprobs === undefined ? {} : { targetPromptLogprobs }),
        ...(promptAltTokens === undefined ? {} : { promptAltTokens })
      }
    },
    catch: (cause) =>
      new WireError({ what: "a sampling result", problem: cause instanceof Error ? cause.message : String(cause) })
  })

const writeBytes = (writer: BinaryWriter, field: number, bytes: Uint8Array | undefined): BinaryWriter =>
  bytes === undefined ? writer : writer.tag(field, WireType.LengthDelimited).bytes(bytes)

const writeNumber = (writer: BinaryWriter, field: number, value: number): BinaryWriter =>
  value === 0 ? writer : writer.tag(field, WireType.Varint).int32(value)

const sequenceBytes = ({ logprobs, stopReason, tokens, topkLogprobs }: SampledSequence): Uint8Array => {
  const writer = writeNumber(new BinaryWriter(), 1, stopReasons.indexOf(stopReason))
  if (tokens.length > 0) writeBytes(writer, 2, i32Bytes(tokens, "a sequence"))
  writeBytes(writer, 3, logprobs && f32Bytes(logprobs))
  return writeBytes(writer, 4, topkLogprobs && topkBytes(topkLogprobs)).finish()
}

const topkBytes = (rows: TopkLogprobs): Uint8Array => {
  // At least one cell a row, so that rows without any keep their place.
  const k = rows.reduce((most, row) => Math.max(most, row?.length ?? 0), 1)
  const cells = rows.flatMap((row) => Array.from({ length: k }, (_, i) => row?.[i] ?? masked))
  const writer = new BinaryWriter()
  if (cells.length > 0) {
    const ids = cells.map(([token]) => token)
    writeBytes(writer, 1, i32Bytes(ids, "top-k"))
    writeBytes(writer, 2, f32Bytes(cells.map(([, logprob]) => logprob)))
  }
  writeNumber(writer, 3, k)
  return writeNumber(writer, 4, rows.length).finish()
}

const dtypes = { float32: 1, int64: 2 } as const

const tensorBytes = (tensor: TensorData, what: string): Uint8Array => {
  const { csr, data, dtype, shape } = tensor
  const values = dtype === "float32" ? f32Bytes(data) : i64Bytes(data, what)
  const writer = new BinaryWriter()
  if (csr === undefined) writeBytes(writer, 1, values)
  else {
    const sparse = writeBytes(new BinaryWriter(), 1, values)
    writeBytes(sparse, 2, i64Bytes(csr.crow, what))
    writeBytes(writer, 2, writeBytes(sparse, 3, i64Bytes(csr.col, what)).finish())
  }
  writeNumber(writer, 3, dtypes[dtype]).tag(4, WireType.LengthDelimited).fork()
  for (const size of shape) writer.int64(size)
  return writer.join().finish()
}

const altTokenBytes = ({ logprobs, tokens }: PromptAltTokens): Uint8Array => {
  const writer = writeBytes(new BinaryWriter(), 1, tensorBytes(tokens, "alternative tokens"))
  return writeBytes(writer, 2, tensorBytes(logprobs, "alternative logprobs")).finish()
}

export const encode = (response: SampleResponse): Uint8Array => {
  const { promptCacheHitTokens, promptLogprobs: prompt, sequences, topkPromptLogprobs: topk } = response
  const writer = new BinaryWriter()
  for (const sequence of sequences) writeBytes(writer, 1, sequenceBytes(sequence))
  writeBytes(writer, 2, prompt && f32Bytes(prompt.map((value) => value ?? Number.NaN)))
  writeBytes(writer, 3, topk && topkBytes(topk))
  writeNumber(writer, 4, promptCacheHitTokens)
  const { promptAltTokens: alternatives, targetPromptLogprobs: targets } = response
  writeBytes(writer, 5, targets && tensorBytes(targets, "target logprobs"))
  return writeBytes(writer, 6, alternatives && altTokenBytes(alternatives)).finish()
}
