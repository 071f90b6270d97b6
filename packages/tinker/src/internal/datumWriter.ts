/**
 * Writes the data of a forward_backward request, field 3 of its message, into one buffer: what the generated code would write,
 * byte for byte, without a message object for each part and without growing. Passes are large, and nothing else is written often.
 */
import type { Chunk, Datum, ProvenanceSpan } from "../wire/Datum.ts"
import type { TensorData } from "../wire/Tensor.ts"
import { f32Bytes, i32Bytes, i64Bytes, Malformed, Scratch } from "./packed.ts"

/** A length-delimited field of a number below 16. */
const lengthDelimited = (field: number): number => (field << 3) | 2
const varintField = (field: number): number => field << 3

const dtypes = { float32: 1, int64: 2 } as const

const varintSize = (value: number): number => {
  let size = 1
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++
  return size
}

/** A field with its tag and its length. */
const fieldSize = (content: number): number => 1 + varintSize(content) + content
/** The same for bytes that are left out when there are none. */
const optionalSize = (content: number): number => (content === 0 ? 0 : fieldSize(content))

/** A tensor or a chunk, measured before it is written. */
interface Part {
  /** Bytes of the message, without its tag and length. */
  readonly size: number
  readonly write: (to: Writer) => void
}

class Writer {
  readonly bytes: Uint8Array
  /** What a field is made in before it is copied to its place, which may be at any address. */
  readonly scratch = new Scratch()
  private at: number

  constructor(size: number, room: Room) {
    // Filled by its writer; the room is filled or cut off by whoever asked for it.
    this.bytes = Buffer.allocUnsafeSlow(room.before + size + room.after)
    this.at = room.before
  }

  varint(value: number): void {
    let rest = value
    while (rest >= 128) {
      this.bytes[this.at++] = (rest % 128) | 128
      rest = Math.floor(rest / 128)
    }
    this.bytes[this.at++] = rest
  }
  open(field: number, size: number): void {
    this.bytes[this.at++] = lengthDelimited(field)
    this.varint(size)
  }
  field(field: number, content: Uint8Array): void {
    this.open(field, content.byteLength)
    this.bytes.set(content, this.at)
    this.at += content.byteLength
  }
  optional(field: number, content: Uint8Array): void {
    if (content.byteLength > 0) this.field(field, content)
  }
  number(field: number, value: number): void {
    this.bytes[this.at++] = varintField(field)
    this.varint(value)
  }
}

/** Bytes that are left to fill before and behind the data. */
interface Room {
  readonly before: number
  readonly after: number
}

/** A message that is a single field of bytes, left out when there are none, inside the chunk's oneof. */
const bytesChunk = (field: number, content: number, bytes: (scratch: Scratch) => Uint8Array): Part => {
  const inner = optionalSize(content)
  return {
    size: fieldSize(inner),
    write: (to) => {
      to.open(field, inner)
      to.optional(1, bytes(to.scratch))
    }
  }
}

const chunkPart = (chunk: Chunk): Part => {
  switch (chunk.type) {
    case "encoded_text":
      return bytesChunk(1, 4 * chunk.tokens.length, (scratch) => i32Bytes(chunk.tokens, "a text chunk", scratch))
    case "dmel":
      return bytesChunk(3, chunk.dmel.byteLength, () => chunk.dmel)
    case "image": {
      const { data, expectedTokens } = chunk
      const format = Buffer.from(chunk.format)
      if (expectedTokens !== undefined && ((expectedTokens | 0) !== expectedTokens || expectedTokens < 0)) {
        throw new Malformed(`an image has ${expectedTokens} expected tokens`)
      }
      const inner =
        optionalSize(data.byteLength) +
        optionalSize(format.byteLength) +
        (expectedTokens === undefined ? 0 : 1 + varintSize(expectedTokens))
      return {
        size: fieldSize(inner),
        write: (to) => {
          to.open(2, inner)
          to.optional(1, data)
          to.optional(2, format)
          if (expectedTokens !== undefined) to.number(3, expectedTokens)
        }
      }
    }
    case "image_asset_pointer":
      throw new Malformed("an image_asset_pointer chunk cannot be part of a pass, only of a prompt")
  }
}

/** The values of a tensor as the wire has them. */
export const valueBytes = ({ data, dtype, exact }: TensorData, what: string, scratch?: Scratch): Uint8Array => {
  if (dtype === "float32") return f32Bytes(data, scratch)
  if (exact === undefined) return i64Bytes(data, what, scratch)
  if (exact.length !== data.length) {
    throw new Malformed(`${what} has ${data.length} values, ${exact.length} of them exact`)
  }
  return new Uint8Array(exact.buffer, exact.byteOffset, exact.byteLength)
}

const tensorPart = (tensor: TensorData, what: string): Part => {
  const { csr, data, dtype, shape } = tensor
  if (shape.some((size) => !Number.isSafeInteger(size) || size < 0)) {
    throw new Malformed(`${what} has the shape [${shape.join(", ")}]`)
  }
  const code = dtypes[dtype]
  const values = data.length * (dtype === "float32" ? 4 : 8)
  const sparse =
    csr === undefined ? 0 : optionalSize(values) + optionalSize(8 * csr.crow.length) + optionalSize(8 * csr.col.length)
  const packed = shape.reduce((total, size) => total + varintSize(size), 0)
  return {
    size: fieldSize(csr === undefined ? values : sparse) + 1 + varintSize(code) + optionalSize(packed),
    write: (to) => {
      if (csr === undefined) to.field(1, valueBytes(tensor, what, to.scratch))
      else {
        to.open(2, sparse)
        to.optional(1, valueBytes(tensor, what, to.scratch))
        to.optional(2, i64Bytes(csr.crow, what, to.scratch))
        to.optional(3, i64Bytes(csr.col, what, to.scratch))
      }
      to.number(3, code)
      if (shape.length > 0) {
        to.open(4, packed)
        for (const size of shape) to.varint(size)
      }
    }
  }
}

const optionalNumber = (value: number): number => (value === 0 ? 0 : 1 + varintSize(value))

const spanPart = ({ from, length, offset = 0, sequenceId }: ProvenanceSpan): Part => {
  for (const number of [offset, length]) {
    if (!Number.isSafeInteger(number) || number < 0) throw new Malformed(`a span has the offset or length ${number}`)
  }
  const name = Buffer.from(sequenceId)
  const inner = optionalSize(name.byteLength) + optionalNumber(offset) + optionalNumber(length)
  return {
    size: fieldSize(inner),
    write: (to) => {
      to.open(from === "prompt" ? 1 : 2, inner)
      to.optional(1, name)
      if (offset > 0) to.number(2, offset)
      if (length > 0) to.number(3, length)
    }
  }
}

const datumPart = (datum: Datum, check: (tensor: TensorData, what: string) => void): Part => {
  const chunks = datum.modelInput.chunks.map(chunkPart)
  const tensors = Object.entries(datum.lossFnInputs).map(([name, tensor]) => {
    const what = `tensor ${name}`
    check(tensor, what)
    const key = Buffer.from(name)
    const part = tensorPart(tensor, what)
    return { key, part, size: fieldSize(key.byteLength) + fieldSize(part.size) }
  })
  const { provenance } = datum
  const spans = [
    { field: 3, parts: (provenance?.modelInput ?? []).map(spanPart) },
    { field: 4, parts: (provenance?.lossFnInputs ?? []).map(spanPart) }
  ]
  let size = 0
  for (const { parts } of spans) for (const part of parts) size += fieldSize(part.size)
  for (const chunk of chunks) size += fieldSize(chunk.size)
  for (const tensor of tensors) size += fieldSize(tensor.size)
  return {
    size,
    write: (to) => {
      for (const chunk of chunks) {
        to.open(1, chunk.size)
        chunk.write(to)
      }
      for (const { key, part, size } of tensors) {
        to.open(2, size)
        to.field(1, key)
        to.open(2, part.size)
        part.write(to)
      }
      for (const { field, parts } of spans) {
        for (const part of parts) {
          to.open(field, part.size)
          part.write(to)
        }
      }
    }
  }
}

const noRoom: Room = { before: 0, after: 0 }

/** `check` throws for a tensor that contradicts itself. */
export const write = (
  data: ReadonlyArray<Datum>,
  check: (tensor: TensorData, what: string) => void,
  room: Room = noRoom
): Uint8Array => {
  const parts = data.map((datum) => datumPart(datum, check))
  const to = new Writer(
    parts.reduce((total, part) => total + fieldSize(part.size), 0),
    room
  )
  for (const part of parts) {
    to.open(3, part.size)
    part.write(to)
  }
  return to.bytes
}
