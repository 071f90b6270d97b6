/** Unpacks a tar as if its author were hostile. */
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import { Duplex } from "node:stream"
import * as Zlib from "node:zlib"
import { BadArchive, TinkerError } from "../TinkerError.ts"
import { localFile } from "./localFile.ts"

export interface Limits {
  readonly maxEntries: number
  readonly maxBytes: number
  readonly maxRatio: number
}

/** No ratio is asked of archives that unpack to less than this. */
const harmlessBytes = 16 * 1024 * 1024
const maxDepth = 16
const maxNameBytes = 255

/** The parts of an entry's path below the target, or why it has none. */
export const partsOf = (path: string): { readonly parts: ReadonlyArray<string> } | { readonly problem: string } => {
  if (/[\p{Cc}\\:]/u.test(path)) return { problem: "has a name with a control character, a backslash or a colon" }
  if (path.startsWith("/")) return { problem: "has an absolute path" }
  const parts = path.split("/").filter((part) => part !== "" && part !== ".")
  if (parts.includes("..")) return { problem: "climbs out of its folder" }
  if (parts.length > maxDepth) return { problem: `lies more than ${maxDepth} folders deep` }
  if (parts.some((part) => Buffer.byteLength(part) > maxNameBytes || /[ .]$/.test(part))) {
    return { problem: "has a name that some systems change or refuse" }
  }
  return { parts }
}

const decompressor = (head: Uint8Array): Duplex | undefined => {
  const begins = (...bytes: ReadonlyArray<number>) => bytes.every((byte, index) => head[index] === byte)
  if (begins(0x1f, 0x8b)) return Zlib.createGunzip()
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return Zlib.createZstdDecompress()
  return undefined
}

/** Writes what a file holds below an empty folder; gives the files, in their order in the archive. */
export const unpack = Effect.fnUntraced(function* (options: {
  readonly operation: string
  readonly file: string
  readonly directory: string
  readonly limits: Limits
}): Effect.fn.Return<ReadonlyArray<string>, TinkerError, FileSystem.FileSystem | Path.Path> {
  const { directory, file, limits, operation } = options
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path

  const bad = (problem: string, entry?: string) =>
    new TinkerError({ reason: new BadArchive({ operation, problem, ...(entry === undefined ? {} : { entry }) }) })
  const { head, size } = yield* Effect.scoped(
    Effect.gen(function* () {
      const handle = yield* fs.open(file)
      const size = Number((yield* handle.stat).size)
      return { size, head: Option.getOrElse(yield* handle.readAlloc(4), () => new Uint8Array()) }
    })
  ).pipe(Effect.mapError(localFile(operation, file, "read")))

  // Compressed bytes that swell to more than this are a bomb, whatever the headers say.
  const mostBytes = Math.min(
    // Headers and padding of the tar itself.
    limits.maxBytes + limits.maxEntries * 4096,
    Math.max(harmlessBytes, size * limits.maxRatio)
  )
  let inflated = 0
  const bounded = (bytes: Stream.Stream<Uint8Array, TinkerError>) =>
    Stream.mapEffect(bytes, (piece) => {
      inflated += piece.length
      return inflated > mostBytes
        ? Effect.fail(bad(`swells to more than ${mostBytes} bytes from ${size}: it may be a bomb`))
        : Effect.succeed(piece)
    })

  const packed = Stream.mapError(fs.stream(file, { chunkSize: 256 * 1024 }), localFile(operation, file, "read"))
  const transform = decompressor(head)
  const plain =
    transform === undefined
      ? packed
      : Stream.unwrap(
          Effect.map(Effect.context<never>(), (context) => {
            // The types of Node's web streams and of the platform's are the same thing twice.
            const pair = Duplex.toWeb(transform) as unknown as ReadableWritablePair<Uint8Array, Uint8Array>
            return Stream.fromReadableStream({
              evaluate: () => Stream.toReadableStreamWith(packed, context).pipeThrough(pair),
              onError: (cause) =>
                cause instanceof TinkerError
                  ? cause
                  : bad(`cannot be decompressed: ${cause instanceof Error ? cause.message : String(cause)}`)
            })
          })
        )

  const taken = new Map<string, "file" | "folder">()
  const files: Array<string> = []
  let entries = 0
  let bytes = 0

  /** Names that some file systems take for the same are the same here. */
  const take = (parts: ReadonlyArray<string>, kind: "file" | "folder"): string | undefined => {
    for (let depth = 1; depth <= parts.length; depth++) {
      const key = parts.slice(0, depth).join("/").normalize("NFC").toLowerCase()
      const wanted = depth < parts.length ? "folder" : kind
      const found = taken.get(key)
      if (found === undefined) taken.set(key, wanted)
      else if (found !== wanted || wanted === "file") return "comes twice, or as a file and as a folder"
    }
    return undefined
  }

  const write = Effect.fnUntraced(function* (entry: Tar.Entry<Tar.TarError | TinkerError>) {
    const { header } = entry
    const name = header.path
    if (++entries > limits.maxEntries) return yield* bad(`has more than ${limits.maxEntries} entries`)
    if (header.type !== "File" && header.type !== "Directory") {
      return yield* bad(`is neither a file nor a folder (${header.type})`, name)
    }
    // how Python's tarfile names the folder that it was told to pack without its name
    if (name === "/" && header.type === "Directory") return
    const checked = partsOf(name)
    if ("problem" in checked) return yield* bad(checked.problem, name)
    const { parts } = checked
    if (parts.length === 0) {
      return header.type === "Directory" ? undefined : yield* bad("has no name", name)
    }
    const clash = take(parts, header.type === "File" ? "file" : "folder")
    if (clash !== undefined) return yield* bad(clash, name)
    const target = path.join(directory, ...parts)
    if (header.type === "Directory") {
      return yield* fs
        .makeDirectory(target, { recursive: true })
        .pipe(Effect.mapError(localFile(operation, target, "made")))
    }
    bytes += header.size
    if (bytes > limits.maxBytes) return yield* bad(`brings the sum of sizes above ${limits.maxBytes} bytes`, name)
    const folder = path.dirname(target)
    yield* fs.makeDirectory(folder, { recursive: true }).pipe(Effect.mapError(localFile(operation, folder, "made")))
    yield* Effect.scoped(
      Effect.gen(function* () {
        const handle = yield* fs
          .open(target, { flag: "wx", mode: 0o644 })
          .pipe(Effect.mapError(localFile(operation, target, "written")))
        yield* Stream.runForEachArray(entry.body, (pieces) =>
          Effect.forEach(pieces, (piece) => handle.writeAll(piece), { discard: true }).pipe(
            Effect.mapError(localFile(operation, target, "written"))
          )
        )
      })
    )
    files.push(parts.join("/"))
  })

  yield* bounded(plain).pipe(
    Stream.pipeThroughChannel(Tar.decode<TinkerError>()),
    Stream.runForEach(write),
    Effect.mapError((error) => (Tar.isTarError(error) ? bad(`is no sound tar: ${error.message}`) : error))
  )
  if (files.length === 0) return yield* bad("holds no files")
  return files
})
