/**
 * The binary bodies of training: forward_backward requests, and the results of forward and forward_backward. Packed
 * arrays are little-endian. Reading is total: bytes that do not follow the contract fail with `WireError` and never throw.
 * Writing throws an `Error` for values that the wire cannot hold (half a token, a shape that does not fit) instead of bending
 * them: the caller decides whose mistake that is.
 *
 * Source: the public message table of the official client; the byte vectors in the tests were made with its own codec.
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import type { Chunk, Datum, ProvenanceSpan } from "./Datum.ts"
import * as DatumWriter from "../internal/datumWriter.ts"
import { allSafe, i64Bytes, Malformed, readBf16, readBigI64, readF32, readI32, readI64 } from "../internal/packed.ts"
import * as Pb from "./gen/tinker_public_pb.ts"
import { fromBigInts, type TensorData } from "./Tensor.ts"
import { WireError } from "./WireError.ts"

/** Settings of a loss. Texts came after revision 0.25 of the API. */
export type LossFnConfig = Readonly<Record<string, number | string>>

export interface ForwardBackwardRequest {
  readonly modelId: string
  readonly seqId: number
  readonly data: ReadonlyArray<Datum>
  readonly lossFn: string
  readonly lossFnConfig: LossFnConfig
  readonly forwardOnly: boolean
}

export interface ForwardBackwardOutput {
  readonly lossFnOutputType: string
  /** One map per datum, in the order of the input. */
  readonly lossFnOutputs: ReadonlyArray<Readonly<Record<string, TensorData>>>
  readonly metrics: Readonly<Record<string, number>>
}

const DType = { float32: 1, int64: 2, int32: 3, bfloat16: 4 } as const
const itemBytes: Record<number, number> = { 1: 4, 2: 8, 3: 4, 4: 2 }

/** Most datums without any output that a result may count: nothing else in the message backs such a number. */
const maxStripped = 1_000_000

const decoding = <A>(what: string, decode: () => A): Effect.Effect<A, WireError> =>
  Effect.try({
    try: decode,
    catch: (cause) =>
      // Names that the other side made up may be of any length.
      new WireError({ what, problem: (cause instanceof Error ? cause.message : String(cause)).slice(0, 300) })
  })

type Values = Pick<TensorData, "dtype" | "data" | "exact">

const readDense = (bytes: Uint8Array, dtype: number, what: string): Values => {
  switch (dtype) {
    case DType.float32:
      return { dtype: "float32", data: readF32(bytes, what) }
    case DType.int64:
      return {
        dtype: "int64",
        ...(bytes.byteLength % 8 === 0 && !allSafe(bytes)
          ? fromBigInts(readBigI64(bytes, what))
          : { data: readI64(bytes, what) })
      }
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

/** Row pointers that rise from 0 to the count of stored values, and columns within the shape. */
const checkSparse = (tensor: TensorData, csr: NonNullable<TensorData["csr"]>, what: string): void => {
  const [rows, columns] = tensor.shape
  const { col, crow } = csr
  const stored = tensor.data.length
  let fits = tensor.shape.length === 2 && crow.length === Number(rows) + 1 && col.length === stored && crow[0] === 0
  for (let i = 1; fits && i < crow.length; i++) fits = Number(crow[i]) >= Number(crow[i - 1])
  for (let i = 0; fits && i < col.length; i++) fits = Number(col[i]) >= 0 && Number(col[i]) < Number(columns)
  if (!fits || crow[crow.length - 1] !== stored) {
    throw new Malformed(`${what} is sparse and its indices do not fit its shape [${tensor.shape.join(", ")}]`)
  }
}

const checkShape = (tensor: TensorData, what: string): TensorData => {
  const { csr, data, shape } = tensor
  if (csr !== undefined) checkSparse(tensor, csr, what)
  else if (product(shape) !== data.length) {
    throw new Malformed(`${what} has ${data.length} values and the shape [${shape.join(", ")}]`)
  }
  return tensor
}

const fromTensor = (tensor: Pb.Tensor, name: string): TensorData => {
  const what = `tensor ${name}`
  const shape = readShape(tensor.shape, what)
  if (tensor.encoding.case === "sparseCsr") {
    const { colIndices, crowIndices, values } = tensor.encoding.value
    const csr = { crow: readI64(crowIndices, what), col: readI64(colIndices, what) }
    return checkShape({ ...readDense(values, tensor.dtype, what), shape, csr }, what)
  }
  const dense = readDense(tensor.encoding.value ?? new Uint8Array(), tensor.dtype, what)
  return checkShape({ ...dense, shape: shape.length === 0 ? [dense.data.length] : shape }, what)
}

/** A tensor message by itself, as a result of sampling holds it; throws for what is none. @internal */
export const readTensor = (bytes: Uint8Array, name: string): TensorData =>
  fromTensor(fromBinary(Pb.TensorSchema, bytes), name)

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

const fromSpan = ({ span }: Pb.ProvenanceSpan): ProvenanceSpan => {
  if (span.case === undefined) throw new Malformed("a span is empty")
  const { length, offset, sequenceId } = span.value
  const [start = 0, size = 0] = readShape([offset, length], "a span")
  return { from: span.case === "promptTokens" ? "prompt" : "sampled", sequenceId, offset: start, length: size }
}

const fromSpans = ({ lossFnInputSpans, modelInputSpans }: Pb.Datum): Pick<Datum, "provenance"> =>
  modelInputSpans.length === 0 && lossFnInputSpans.length === 0
    ? {}
    : { provenance: { modelInput: modelInputSpans.map(fromSpan), lossFnInputs: lossFnInputSpans.map(fromSpan) } }

/**
 * The field of a request that holds its data, alone; fields may be put together in any number of pieces. Room for others before and
 * behind it saves copying it to where they are.
 */
export const encodeData = (
  data: ReadonlyArray<Datum>,
  room?: { readonly before: number; readonly after: number }
): Uint8Array => DatumWriter.write(data, checkShape, room)

/**
 * Numbers in the place that every service reads. A text has only the newer place, and a service that finds anything there looks
 * nowhere else, so then the numbers stand there too.
 */
const toConfig = (config: LossFnConfig) => {
  const entries = Object.entries(config)
  const texts = entries.some(([, value]) => typeof value === "string")
  return {
    lossFnConfig: Object.fromEntries(
      entries.flatMap(([name, value]): Array<[string, number]> => (typeof value === "number" ? [[name, value]] : []))
    ),
    lossFnConfigV2: Object.fromEntries(
      (texts ? entries : []).map(([name, value]) => [
        name,
        { value: typeof value === "number" ? { case: "number" as const, value } : { case: "text" as const, value } }
      ])
    )
  }
}

const fromConfig = ({ lossFnConfig, lossFnConfigV2 }: Pb.ForwardBackwardRequest): LossFnConfig => {
  const entries = Object.entries(lossFnConfigV2)
  if (entries.length === 0) return lossFnConfig
  return Object.fromEntries(
    entries.map(([name, { value }]) => {
      if (value.case === undefined) throw new Malformed(`setting ${name} of the loss has no value`)
      return [name, value.value]
    })
  )
}

export const encodeForwardBackwardRequest = (request: ForwardBackwardRequest): Uint8Array => {
  const { data, forwardOnly, lossFn, lossFnConfig, modelId, seqId } = request
  const partial = (fields: MessageInitShape<typeof Pb.ForwardBackwardRequestSchema>) =>
    toBinary(Pb.ForwardBackwardRequestSchema, create(Pb.ForwardBackwardRequestSchema, fields))
  return Buffer.concat([
    partial({ modelId, seqId }),
    encodeData(data),
    partial({ lossFn, ...toConfig(lossFnConfig), forwardOnly })
  ])
}

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
        ),
        ...fromSpans(datum)
      })),
      lossFn: request.lossFn,
      lossFnConfig: fromConfig(request),
      forwardOnly: request.forwardOnly
    }
  })

type Outputs = ForwardBackwardOutput["lossFnOutputs"][number]

const toBatched = (tensors: ReadonlyArray<TensorData>, name: string): Pb.BatchedTensor => {
  const what = `output ${name}`
  const parts: Array<Uint8Array> = []
  const offsets = [0]
  let end = 0
  for (const tensor of tensors) {
    if (tensor.csr !== undefined) throw new Malformed(`${what} is sparse, which results cannot be`)
    const part = DatumWriter.valueBytes(checkShape(tensor, what), what)
    parts.push(part)
    offsets.push((end += part.byteLength))
  }
  return create(Pb.BatchedTensorSchema, {
    data: Buffer.concat(parts),
    offsets: i64Bytes(offsets, what),
    dtype: DType[tensors[0]?.dtype ?? "float32"],
    trailingShape: (tensors[0]?.shape ?? []).slice(1).map(BigInt)
  })
}

/** What all datums of one record share. */
const layoutOf = (outputs: Outputs): string =>
  JSON.stringify(
    Object.keys(outputs)
      .toSorted()
      .map((name) => [name, outputs[name]?.dtype, outputs[name]?.shape.slice(1)])
  )

const toRecord = (datums: ReadonlyArray<Outputs>, typeTag: string): Pb.ArrayRecord =>
  create(Pb.ArrayRecordSchema, {
    typeTag,
    fields: Object.fromEntries(
      Object.keys(datums[0] ?? {}).map((name) => [
        name,
        // Datums of one layout have the same names.
        toBatched(
          datums.map((datum) => datum[name] as TensorData),
          name
        )
      ])
    ),
    numDatums: BigInt(datums.length)
  })

const shortType = (type: string): string => type.slice(type.lastIndexOf(":") + 1)

/** One record for each row of datums with the same fields, types and trailing shapes; a rank of 0 becomes 1. */
export const encodeForwardBackwardOutput = (output: ForwardBackwardOutput): Uint8Array => {
  const records: Array<Array<Outputs>> = []
  let current = ""
  for (const datum of output.lossFnOutputs) {
    const layout = layoutOf(datum)
    if (layout === current) records.at(-1)?.push(datum)
    else records.push([datum])
    current = layout
  }
  return toBinary(
    Pb.ForwardBackwardOutputSchema,
    create(Pb.ForwardBackwardOutputSchema, {
      lossFnOutputType: output.lossFnOutputType,
      lossFnOutputs: records.map((datums) => toRecord(datums, shortType(output.lossFnOutputType))),
      metrics: { ...output.metrics }
    })
  )
}

/** How many datums a record has: as it says, or else as many as its first field. */
const countOf = (record: Pb.ArrayRecord): number => {
  const [first] = Object.values(record.fields)
  return record.numDatums > 0n ? Number(record.numDatums) : (first?.offsets.byteLength ?? 8) / 8 - 1
}

const fromRecord = (record: Pb.ArrayRecord): ReadonlyArray<Outputs> => {
  const count = countOf(record)
  const fields = Object.entries(record.fields).map(([name, field]) => {
    const offsets = readI64(field.offsets, `output ${name}`)
    if (offsets.length !== count + 1) {
      throw new Malformed(`output ${name} has ${offsets.length} offsets for ${count} datums`)
    }
    return { name, field, offsets }
  })
  const datums: Array<Record<string, TensorData>> = Array.from({ length: count }, () => ({}))
  for (const { field, name, offsets } of fields) {
    const what = `output ${name}`
    const item = itemBytes[field.dtype]
    if (item === undefined) throw new Malformed(`${what} has the unknown dtype ${field.dtype}`)
    const trailing = readShape(field.trailingShape, what)
    const row = product(trailing)
    for (const [i, datum] of datums.entries()) {
      const [start, end] = [offsets[i] as number, offsets[i + 1] as number] // both exist: the length was checked
      if (start < 0 || end < start || end > field.data.byteLength || start % item !== 0) {
        throw new Malformed(`${what} has the offsets ${start} to ${end} in ${field.data.byteLength} bytes`)
      }
      const dense = readDense(field.data.subarray(start, end), field.dtype, what)
      const rows = row === 0 ? 0 : dense.data.length / row
      if (!Number.isInteger(rows))
        throw new Malformed(`${what} has rows that are not of the shape [${trailing.join(", ")}]`)
      datum[name] = checkShape({ ...dense, shape: [rows, ...trailing] }, what)
    }
  }
  return datums
}

export const decodeForwardBackwardOutput = (bytes: Uint8Array): Effect.Effect<ForwardBackwardOutput, WireError> =>
  decoding("a forward_backward result", () => {
    const output = fromBinary(Pb.ForwardBackwardOutputSchema, bytes)
    const { lossFnOutputs: records, lossFnOutputType } = output
    const count = records.reduce((total, record) => total + countOf(record), 0)
    if (count > maxStripped + bytes.byteLength) throw new Malformed(`it claims ${count} datums`)
    return {
      lossFnOutputType: (records.length === 0 ? lossFnOutputType : shortType(lossFnOutputType)) || "ArrayRecord",
      lossFnOutputs: records.flatMap(fromRecord),
      metrics: output.metrics
    }
  })
