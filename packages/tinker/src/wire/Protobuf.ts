/**
 * The binary bodies of the API: forward_backward requests, and the results of forward, forward_backward and sampling. Packed
 * arrays are little-endian. Reading is total: bytes that do not follow the contract fail with `WireError` and never throw.
 *
 * Source: the public message table of the official client; the byte vectors in the tests were made with its own codec.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import type { Chunk, Datum } from "./Datum.ts"
import * as Pb from "./gen/tinker_public_pb.ts"
import type { TensorData } from "./Tensor.ts"
import { WireError } from "./WireError.ts"

export interface ForwardBackwardRequest {
  readonly modelId: string
  readonly seqId: number
  readonly data: ReadonlyArray<Datum>
  readonly lossFn: string
  readonly lossFnConfig: Readonly<Record<string, number>>
  readonly forwardOnly: boolean
}

export interface ForwardBackwardOutput {
  readonly lossFnOutputType: string
  /** One map per datum, in the order of the input. */
  readonly lossFnOutputs: ReadonlyArray<Readonly<Record<string, TensorData>>>
  readonly metrics: Readonly<Record<string, number>>
}

export interface SampledSequence {
  readonly stopReason: "stop" | "length"
  readonly tokens: ReadonlyArray<number>
  readonly logprobs: ReadonlyArray<number> | null
}

export interface SampleResponse {
  readonly sequences: ReadonlyArray<SampledSequence>
  /** One entry per prompt token; `null` where none was computed. */
  readonly promptLogprobs: ReadonlyArray<number | null> | null
  /** For each prompt position the best tokens with their logprobs; `null` where none were computed. */
  readonly topkPromptLogprobs: ReadonlyArray<ReadonlyArray<readonly [token: number, logprob: number]> | null> | null
  readonly promptCacheHitTokens: number
}

const DType = { float32: 1, int64: 2, int32: 3, bfloat16: 4 } as const
const itemBytes: Record<number, number> = { 1: 4, 2: 8, 3: 4, 4: 2 }
const StopReason = ["stop", "length"] as const
const maskedLogprob = -99999

/** What `decode` throws inside; it never leaves this module. */
class Malformed extends Error {}

const decoding = <A>(what: string, decode: () => A): Effect.Effect<A, WireError> =>
  Effect.try({
    try: decode,
    catch: (cause) => new WireError({ what, problem: cause instanceof Error ? cause.message : String(cause) })
  })

const viewBytes = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

const f32Bytes = (values: ArrayLike<number>): Uint8Array =>
  viewBytes(values instanceof Float32Array ? values : Float32Array.from(values))

const i32Bytes = (values: ArrayLike<number>): Uint8Array =>
  viewBytes(values instanceof Int32Array ? values : Int32Array.from(values))

/** Two 32-bit halves a value: several times faster than BigInt64Array, and exact below 2^53. */
const i64Bytes = (values: ArrayLike<number>): Uint8Array => {
  const halves = new Int32Array(values.length * 2)
  for (let i = 0; i < values.length; i++) {
    // The index is below the length.
    const value = values[i] as number
    halves[2 * i] = value
    halves[2 * i + 1] = Math.floor(value / 4294967296)
  }
  return viewBytes(halves)
}

/** A copy that starts at an even address, as typed arrays need it; not by `slice`, which on a `Buffer` is a view. */
const aligned = (bytes: Uint8Array, item: number, what: string): ArrayBuffer => {
  if (bytes.byteLength % item !== 0) {
    throw new Malformed(`${what} has ${bytes.byteLength} bytes, no multiple of ${item}`)
  }
  return new Uint8Array(bytes).buffer
}

const readF32 = (bytes: Uint8Array, what: string): Float32Array => new Float32Array(aligned(bytes, 4, what))
const readI32 = (bytes: Uint8Array, what: string): Int32Array => new Int32Array(aligned(bytes, 4, what))

const readI64 = (bytes: Uint8Array, what: string): Float64Array => {
  const halves = new Int32Array(aligned(bytes, 8, what))
  const out = new Float64Array(halves.length / 2)
  for (let i = 0; i < out.length; i++) {
    const value = (halves[2 * i + 1] as number) * 4294967296 + ((halves[2 * i] as number) >>> 0) // both indices exist
    if (!Number.isSafeInteger(value)) throw new Malformed(`${what} holds a number beyond 2^53`)
    out[i] = value
  }
  return out
}

const readBf16 = (bytes: Uint8Array, what: string): Float32Array => {
  const halves = new Uint16Array(aligned(bytes, 2, what))
  const words = new Uint32Array(halves.length)
  for (let i = 0; i < halves.length; i++) words[i] = (halves[i] as number) << 16 // the index is below the length
  return new Float32Array(words.buffer)
}

const readDense = (bytes: Uint8Array, dtype: number, what: string): Pick<TensorData, "dtype" | "data"> => {
  switch (dtype) {
    case DType.float32:
      return { dtype: "float32", data: readF32(bytes, what) }
    case DType.int64:
      return { dtype: "int64", data: readI64(bytes, what) }
    case DType.int32:
      return { dtype: "int64", data: Float64Array.from(readI32(bytes, what)) }
    case DType.bfloat16:
      return { dtype: "float32", data: readBf16(bytes, what) }
    default:
      throw new Malformed(`${what} has the unknown dtype ${dtype}`)
  }
}

const readShape = (shape: ReadonlyArray<bigint>, what: string): ReadonlyArray<number> =>
  shape.map((size) => {
    const number = Number(size)
    if (!Number.isSafeInteger(number) || number < 0) throw new Malformed(`${what} has the dimension ${size}`)
    return number
  })

const product = (shape: ReadonlyArray<number>): number => shape.reduce((total, size) => total * size, 1)

const toTensor = (tensor: TensorData): Pb.Tensor => {
  const dtype = DType[tensor.dtype]
  const values = tensor.dtype === "float32" ? f32Bytes(tensor.data) : i64Bytes(tensor.data)
  return create(Pb.TensorSchema, {
    encoding:
      tensor.csr === undefined
        ? { case: "dense", value: values }
        : {
            case: "sparseCsr",
            value: create(Pb.SparseCsrSchema, {
              values,
              crowIndices: i64Bytes(tensor.csr.crow),
              colIndices: i64Bytes(tensor.csr.col)
            })
          },
    dtype,
    shape: tensor.shape.map(BigInt)
  })
}

const fromTensor = (tensor: Pb.Tensor, name: string): TensorData => {
  const what = `tensor ${name}`
  const shape = readShape(tensor.shape, what)
  if (tensor.encoding.case === "sparseCsr") {
    const { colIndices, crowIndices, values } = tensor.encoding.value
    const dense = readDense(values, tensor.dtype, what)
    const crow = readI64(crowIndices, what)
    const col = readI64(colIndices, what)
    if (shape.length !== 2 || crow.length !== (shape[0] as number) + 1 || col.length !== dense.data.length) {
      throw new Malformed(`${what} is sparse and its indices do not fit its shape [${shape.join(", ")}]`)
    }
    return { ...dense, shape, csr: { crow, col } }
  }
  const dense = readDense(tensor.encoding.value ?? new Uint8Array(), tensor.dtype, what)
  if (product(shape) !== dense.data.length && shape.length > 0) {
    throw new Malformed(`${what} has ${dense.data.length} values and the shape [${shape.join(", ")}]`)
  }
  return { ...dense, shape: shape.length === 0 ? [dense.data.length] : shape }
}

const toChunk = (chunk: Chunk): Pb.Chunk => {
  switch (chunk.type) {
    case "encoded_text":
      return create(Pb.ChunkSchema, {
        chunk: {
          case: "encodedText",
          value: create(Pb.EncodedTextChunkSchema, { tokens: i32Bytes(chunk.tokens) })
        }
      })
    case "image":
      return create(Pb.ChunkSchema, {
        chunk: {
          case: "image",
          value: create(Pb.ImageChunkSchema, {
            data: chunk.data,
            format: chunk.format,
            ...(chunk.expectedTokens === undefined ? {} : { expectedTokens: chunk.expectedTokens })
          })
        }
      })
    case "dmel":
      return create(Pb.ChunkSchema, {
        chunk: { case: "dmel", value: create(Pb.DmelChunkSchema, { dmel: chunk.dmel }) }
      })
  }
}

const fromChunk = ({ chunk }: Pb.Chunk): Chunk => {
  switch (chunk.case) {
    case "encodedText":
      return { type: "encoded_text", tokens: readI32(chunk.value.tokens, "a text chunk") }
    case "image": {
      const { data, expectedTokens, format } = chunk.value
      if (format !== "png" && format !== "jpeg") throw new Malformed(`an image has the unknown format "${format}"`)
      return { type: "image", data, format, ...(expectedTokens === undefined ? {} : { expectedTokens }) }
    }
    case "dmel":
      return { type: "dmel", dmel: chunk.value.dmel }
    default:
      throw new Malformed("a chunk is empty")
  }
}

export const encodeForwardBackwardRequest = (request: ForwardBackwardRequest): Uint8Array =>
  toBinary(
    Pb.ForwardBackwardRequestSchema,
    create(Pb.ForwardBackwardRequestSchema, {
      modelId: request.modelId,
      seqId: request.seqId,
      data: request.data.map((datum) =>
        create(Pb.DatumSchema, {
          modelInput: datum.modelInput.chunks.map(toChunk),
          lossFnInputs: Object.fromEntries(
            Object.entries(datum.lossFnInputs).map(([name, tensor]) => [name, toTensor(tensor)])
          )
        })
      ),
      lossFn: request.lossFn,
      lossFnConfig: { ...request.lossFnConfig },
      forwardOnly: request.forwardOnly
    })
  )

export const decodeForwardBackwardRequest = (bytes: Uint8Array): Effect.Effect<ForwardBackwardRequest, WireError> =>
  decoding("a forward_backward request", () => {
    const request = fromBinary(Pb.ForwardBackwardRequestSchema, bytes)
    if (request.seqId < 0) throw new Malformed(`seq_id is ${request.seqId}`)
    return {
      modelId: request.modelId,
      seqId: request.seqId,
      data: request.data.map((datum) => ({
        modelInput: { chunks: datum.modelInput.map(fromChunk) },
        lossFnInputs: Object.fromEntries(
          Object.entries(datum.lossFnInputs).map(([name, tensor]) => [name, fromTensor(tensor, name)])
        )
      })),
      lossFn: request.lossFn,
      lossFnConfig: request.lossFnConfig,
      forwardOnly: request.forwardOnly
    }
  })

const toBatched = (tensors: ReadonlyArray<TensorData>, name: string): Pb.BatchedTensor => {
  const dtype = tensors[0]?.dtype ?? "float32"
  const item = dtype === "float32" ? 4 : 8
  const parts: Array<Uint8Array> = []
  const offsets = [0]
  for (const tensor of tensors) {
    if (tensor.dtype !== dtype) throw new Error(`output ${name} mixes ${dtype} and ${tensor.dtype}`)
    parts.push(dtype === "float32" ? f32Bytes(tensor.data) : i64Bytes(tensor.data))
    offsets.push((offsets.at(-1) ?? 0) + tensor.data.length * item)
  }
  return create(Pb.BatchedTensorSchema, {
    data: Buffer.concat(parts),
    offsets: i64Bytes(offsets),
    dtype: DType[dtype],
    trailingShape: (tensors[0]?.shape ?? []).slice(1).map(BigInt)
  })
}

/** One record holds all datums; every datum must have the same fields, a field one type and one trailing shape. */
export const encodeForwardBackwardOutput = (output: ForwardBackwardOutput): Uint8Array => {
  const names = Object.keys(output.lossFnOutputs[0] ?? {})
  const fields = Object.fromEntries(
    names.map((name) => [
      name,
      toBatched(
        output.lossFnOutputs.map((datum) => datum[name]).filter((tensor) => tensor !== undefined),
        name
      )
    ])
  )
  return toBinary(
    Pb.ForwardBackwardOutputSchema,
    create(Pb.ForwardBackwardOutputSchema, {
      lossFnOutputType: output.lossFnOutputType,
      lossFnOutputs:
        output.lossFnOutputs.length === 0
          ? []
          : [
              create(Pb.ArrayRecordSchema, {
                typeTag: output.lossFnOutputType.slice(output.lossFnOutputType.lastIndexOf(":") + 1),
                fields,
                numDatums: BigInt(output.lossFnOutputs.length)
              })
            ],
      metrics: { ...output.metrics }
    })
  )
}

const fromRecord = (record: Pb.ArrayRecord): ReadonlyArray<Record<string, TensorData>> => {
  const names = Object.keys(record.fields)
  const first = names[0] === undefined ? undefined : record.fields[names[0]]
  const counted = Number(record.numDatums)
  const count = counted > 0 ? counted : Math.max(0, (first?.offsets.byteLength ?? 8) / 8 - 1)
  // A count that its own bytes cannot back must not make us allocate.
  if (!Number.isSafeInteger(count) || count > 10_000_000) throw new Malformed(`a record claims ${count} datums`)
  const datums: Array<Record<string, TensorData>> = Array.from({ length: count }, () => ({}))
  for (const name of names) {
    const what = `output ${name}`
    // The name comes from the map itself.
    const field = record.fields[name] as Pb.BatchedTensor
    const item = itemBytes[field.dtype]
    if (item === undefined) throw new Malformed(`${what} has the unknown dtype ${field.dtype}`)
    const trailing = readShape(field.trailingShape, what)
    const row = product(trailing)
    const offsets = readI64(field.offsets, what)
    if (offsets.length !== count + 1) throw new Malformed(`${what} has ${offsets.length} offsets for ${count} datums`)
    for (let i = 0; i < count; i++) {
      const [start, end] = [offsets[i] as number, offsets[i + 1] as number] // both exist: the length was checked
      if (start < 0 || end < start || end > field.data.byteLength || start % item !== 0) {
        throw new Malformed(`${what} has the offsets ${start} to ${end} in ${field.data.byteLength} bytes`)
      }
      const dense = readDense(field.data.subarray(start, end), field.dtype, what)
      const rows = row === 0 ? 0 : dense.data.length / row
      if (!Number.isInteger(rows))
        throw new Malformed(`${what} does not fit its trailing shape [${trailing.join(", ")}]`)
      ;(datums[i] as Record<string, TensorData>)[name] = { ...dense, shape: [rows, ...trailing] }
    }
  }
  return datums
}

export const decodeForwardBackwardOutput = (bytes: Uint8Array): Effect.Effect<ForwardBackwardOutput, WireError> =>
  decoding("a forward_backward result", () => {
    const output = fromBinary(Pb.ForwardBackwardOutputSchema, bytes)
    const type = output.lossFnOutputType.slice(output.lossFnOutputType.lastIndexOf(":") + 1)
    return {
      lossFnOutputType: type === "" ? "ArrayRecord" : type,
      lossFnOutputs: output.lossFnOutputs.flatMap(fromRecord),
      metrics: output.metrics
    }
  })

export const encodeSampleResponse = (response: SampleResponse): Uint8Array => {
  const topk = response.topkPromptLogprobs
  const k = topk === null ? 0 : Math.max(0, ...topk.map((row) => row?.length ?? 0))
  return toBinary(
    Pb.SampleResponseSchema,
    create(Pb.SampleResponseSchema, {
      sequences: response.sequences.map((sequence) =>
        create(Pb.SampledSequenceSchema, {
          stopReason: StopReason.indexOf(sequence.stopReason),
          tokens: i32Bytes(sequence.tokens),
          ...(sequence.logprobs === null ? {} : { logprobs: f32Bytes(sequence.logprobs) })
        })
      ),
      ...(response.promptLogprobs === null
        ? {}
        : { promptLogprobs: f32Bytes(response.promptLogprobs.map((value) => value ?? Number.NaN)) }),
      ...(topk === null
        ? {}
        : {
            topkPromptLogprobs: create(Pb.TopkPromptLogprobsSchema, {
              tokenIds: i32Bytes(topk.flatMap((row) => padded(row, k, (cell) => cell?.[0] ?? 0))),
              logprobs: f32Bytes(topk.flatMap((row) => padded(row, k, (cell) => cell?.[1] ?? maskedLogprob))),
              k,
              promptLength: topk.length
            })
          }),
      promptCacheHitTokens: response.promptCacheHitTokens
    })
  )
}

const padded = (
  row: ReadonlyArray<readonly [number, number]> | null,
  k: number,
  pick: (cell: readonly [number, number] | undefined) => number
): ReadonlyArray<number> => Array.from({ length: k }, (_, i) => pick(row?.[i]))

export const decodeSampleResponse = (bytes: Uint8Array): Effect.Effect<SampleResponse, WireError> =>
  decoding("a sampling result", () => {
    const response = fromBinary(Pb.SampleResponseSchema, bytes)
    const prompt = response.promptLogprobs
    const topk = response.topkPromptLogprobs
    return {
      sequences: response.sequences.map((sequence): SampledSequence => {
        const stopReason = StopReason[sequence.stopReason]
        if (stopReason === undefined) throw new Malformed(`a sequence has the stop reason ${sequence.stopReason}`)
        const tokens = [...readI32(sequence.tokens, "a sequence's tokens")]
        const logprobs = sequence.logprobs
        return {
          stopReason,
          tokens,
          logprobs: logprobs === undefined || logprobs.byteLength === 0 ? null : [...readF32(logprobs, "its logprobs")]
        }
      }),
      promptLogprobs:
        prompt === undefined || prompt.byteLength === 0
          ? null
          : [...readF32(prompt, "the prompt's logprobs")].map((value) => (Number.isNaN(value) ? null : value)),
      topkPromptLogprobs: topk === undefined || topk.k === 0 || topk.promptLength === 0 ? null : fromTopk(topk),
      promptCacheHitTokens: response.promptCacheHitTokens
    }
  })

const fromTopk = (topk: Pb.TopkPromptLogprobs) => {
  const ids = readI32(topk.tokenIds, "top-k tokens")
  const logprobs = readF32(topk.logprobs, "top-k logprobs")
  const cells = topk.k * topk.promptLength
  if (ids.length !== cells || logprobs.length !== cells) {
    throw new Malformed(`top-k has ${ids.length} tokens and ${logprobs.length} logprobs for ${cells} cells`)
  }
  const masked = (cell: number) => ids[cell] === 0 && logprobs[cell] === maskedLogprob
  return Array.from({ length: topk.promptLength }, (_, row) => {
    const start = row * topk.k
    if (masked(start)) return null
    let end = start + topk.k
    while (masked(end - 1)) end--
    // The cells were counted above.
    return Array.from(
      { length: end - start },
      (_, i) => [ids[start + i] as number, logprobs[start + i] as number] as const
    )
  })
}
