import * as Result from "effect/Result"

/*
 * The safetensors layout: u64 little-endian header length, a JSON header, then the tensors back to back. Only F64 is written and
 * read: the point of these files is to give back the very bits that went in.
 */

export interface Tensor {
  readonly shape: ReadonlyArray<number>
  readonly data: Float64Array
}

export interface Contents {
  readonly tensors: ReadonlyMap<string, Tensor>
  readonly metadata: ReadonlyMap<string, string>
}

/** A header longer than this is taken for garbage before it is parsed. */
const maxHeaderBytes = 1_000_000

export const encode = (contents: Contents): Uint8Array<ArrayBuffer> => {
  const entries: Array<[string, unknown]> = [["__metadata__", Object.fromEntries(contents.metadata)]]
  let offset = 0
  for (const [name, { data, shape }] of contents.tensors) {
    entries.push([name, { dtype: "F64", shape, data_offsets: [offset, offset + data.byteLength] }])
    offset += data.byteLength
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)))
  // Padded with spaces, as the format allows, so that the tensors are aligned for readers that map the file.
  const headerLength = Math.ceil(json.length / 8) * 8
  const out = new Uint8Array(8 + headerLength + offset)
  new DataView(out.buffer).setBigUint64(0, BigInt(headerLength), true)
  out.fill(0x20, 8, 8 + headerLength)
  out.set(json, 8)
  let at = 8 + headerLength
  for (const { data } of contents.tensors.values()) {
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at)
    at += data.byteLength
  }
  return out
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0

const parseHeader = (bytes: Uint8Array): unknown => {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
  } catch {
    return undefined
  }
}

interface Extent extends Pick<Tensor, "shape"> {
  readonly name: string
  readonly begin: number
  readonly end: number
}

const extent = (name: string, entry: unknown): Result.Result<Extent, string> => {
  const of = `tensor ${JSON.stringify(name)}`
  if (!isRecord(entry)) return Result.fail(`${of} is not described by an object`)
  const { data_offsets: offsets, dtype, shape } = entry
  if (dtype !== "F64") return Result.fail(`${of} has dtype ${JSON.stringify(dtype)}, expected F64`)
  if (!Array.isArray(shape) || !shape.every(isCount)) return Result.fail(`${of} has a malformed shape`)
  if (!Array.isArray(offsets) || offsets.length !== 2) return Result.fail(`${of} has malformed offsets`)
  const [begin, end]: ReadonlyArray<unknown> = offsets
  if (!isCount(begin) || !isCount(end)) return Result.fail(`${of} has malformed offsets`)
  const expected = shape.reduce((product, size) => product * size, 8)
  if (end - begin !== expected) return Result.fail(`${of} takes ${end - begin} bytes, its shape needs ${expected}`)
  return Result.succeed({ name, shape, begin, end })
}

/** Reads a file that nobody vouches for. Tensors must be F64, lie inside the file, not overlap and leave no hole. */
export const decode = (bytes: Uint8Array): Result.Result<Contents, string> => {
  if (bytes.length < 8) return Result.fail(`${bytes.length} bytes are too few for a header length`)
  const declared = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true)
  if (declared > BigInt(Math.min(maxHeaderBytes, bytes.length - 8))) {
    return Result.fail(`the header claims ${declared} bytes of a file of ${bytes.length}`)
  }
  const start = 8 + Number(declared)
  const header = parseHeader(bytes.subarray(8, start))
  if (!isRecord(header)) return Result.fail("the header is not a JSON object")
  const metadata = new Map<string, string>()
  const extents: Array<Extent> = []
  for (const [name, entry] of Object.entries(header)) {
    if (name !== "__metadata__") {
      const found = extent(name, entry)
      if (Result.isFailure(found)) return Result.fail(found.failure)
      extents.push(found.success)
      continue
    }
    if (!isRecord(entry)) return Result.fail("__metadata__ is not an object")
    for (const [key, value] of Object.entries(entry)) {
      if (typeof value !== "string") return Result.fail(`__metadata__.${key} is not a string`)
      metadata.set(key, value)
    }
  }
  const tensors = new Map<string, Tensor>()
  let at = 0
  // An empty tensor begins where its neighbour does, so the end decides between them.
  for (const { begin, end, name, shape } of extents.toSorted((x, y) => x.begin - y.begin || x.end - y.end)) {
    if (begin !== at) return Result.fail(`tensor ${JSON.stringify(name)} begins at ${begin}, expected ${at}`)
    if (start + end > bytes.length) return Result.fail(`tensor ${JSON.stringify(name)} ends after the end of the file`)
    const data = new Float64Array((end - begin) / 8)
    // Copied by hand: `slice` of a Node Buffer, which a file may come as, shares the memory of its pool.
    new Uint8Array(data.buffer).set(bytes.subarray(start + begin, start + end))
    tensors.set(name, { shape, data })
    at = end
  }
  if (start + at !== bytes.length) return Result.fail(`${bytes.length - start - at} bytes follow the last tensor`)
  return Result.succeed({ tensors, metadata })
}
