/**
 * The table of contents of a safetensors file, read without its tensors: names, types, shapes, and where they are.
 *
 * A header that contradicts itself or the length of its file fails with `BadArchive`: offsets that overlap or leave gaps, a
 * tensor that needs another number of bytes than it has, a type that does not exist.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { localFile } from "./internal/localFile.ts"
import { BadArchive, TinkerError } from "./TinkerError.ts"

/** One tensor. */
export interface TensorInfo {
  /** `F32`, `BF16`, … */
  readonly dtype: string
  readonly shape: ReadonlyArray<number>
  /** From here, up to `end`, in bytes from the end of the header. */
  readonly begin: number
  readonly end: number
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: Readonly<Record<string, string>>
}

/** Bits of one element. */
const bits: Readonly<Record<string, number>> = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64
}

/** Longer headers are no headers; the format has the same limit. */
const maxHeaderBytes = 100_000_000

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Entry = Schema.Struct({
  dtype: Schema.String,
  shape: Schema.Array(Count),
  data_offsets: Schema.Tuple([Count, Count])
})
const isEntry = Schema.is(Entry)
const isMetadata = Schema.is(Schema.Record(Schema.String, Schema.String))

/** Reads a header from its text; `dataBytes` is what follows it in the file. Gives the problem of a wrong one. */
export const parse = (text: string, dataBytes: number): Result.Result<SafetensorsHeader, string> => {
  const parsed = Result.try((): unknown => JSON.parse(text))
  if (Result.isFailure(parsed)) return Result.fail("has a header that is no JSON")
  if (typeof parsed.success !== "object" || parsed.success === null || Array.isArray(parsed.success)) {
    return Result.fail("has a header that is no JSON object")
  }
  const tensors = new Map<string, TensorInfo>()
  let metadata: Record<string, string> = {}
  for (const [name, entry] of Object.entries<unknown>({ ...parsed.success })) {
    const quoted = JSON.stringify(name.slice(0, 100))
    if (name === "__metadata__") {
      if (!isMetadata(entry)) return Result.fail("has labels that are no texts")
      metadata = { ...entry }
      continue
    }
    if (!isEntry(entry)) return Result.fail(`describes tensor ${quoted} in another way than the format does`)
    const size = bits[entry.dtype]
    if (size === undefined) return Result.fail(`gives tensor ${quoted} the unknown type ${entry.dtype.slice(0, 40)}`)
    const [begin, end] = entry.data_offsets
    const needed = (entry.shape.reduce((product, length) => product * length, 1) * size) / 8
    if (end < begin || end - begin !== needed) {
      return Result.fail(`gives tensor ${quoted} ${end - begin} bytes where it needs ${needed}`)
    }
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, begin, end })
  }
  let offset = 0
  for (const [name, { begin, end }] of [...tensors].toSorted(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== offset) {
      const what = begin < offset ? "overlaps the one before it" : "leaves a gap before it"
      return Result.fail(`has tensor ${JSON.stringify(name.slice(0, 100))} at a place that ${what}`)
    }
    offset = end
  }
  return offset === dataBytes
    ? Result.succeed({ tensors, metadata })
    : Result.fail(`holds ${dataBytes} bytes of tensors where its header describes ${offset}`)
}

/** Reads the header of a file; no more of it than that. */
export const read = Effect.fn("SafetensorsHeader.read")(function* (
  file: string
): Effect.fn.Return<SafetensorsHeader, TinkerError, FileSystem.FileSystem> {
  const operation = `read ${file}`
  const fs = yield* FileSystem.FileSystem
  const bad = (problem: string) => new TinkerError({ reason: new BadArchive({ operation, problem }) })
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const handle = yield* fs.open(file)
      const size = Number((yield* handle.stat).size)
      const exactly = Effect.fnUntraced(function* (length: number) {
        const bytes = new Uint8Array(length)
        let filled = 0
        while (filled < length) {
          const part = yield* handle.readAlloc(length - filled)
          if (Option.isNone(part)) return yield* bad(`ends after ${filled} of ${length} bytes of its header`)
          bytes.set(part.value, filled)
          filled += part.value.length
        }
        return bytes
      })
      if (size < 8) return yield* bad(`is ${size} bytes long, less than the length of its header takes`)
      const head = yield* exactly(8)
      const length = Number(new DataView(head.buffer).getBigUint64(0, true))
      if (length > maxHeaderBytes || length > size - 8) {
        return yield* bad(`says that its header is ${length} bytes long, and is ${size} bytes long itself`)
      }
      const header = parse(new TextDecoder().decode(yield* exactly(length)), size - 8 - length)
      return Result.isSuccess(header) ? header.success : yield* bad(header.failure)
    })
  ).pipe(Effect.catchTag("PlatformError", (error) => Effect.fail(localFile(operation, file, "read")(error))))
})
