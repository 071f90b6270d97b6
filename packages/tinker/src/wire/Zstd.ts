import * as Effect from "effect/Effect"
import { zstdCompress, zstdCompressSync, zstdDecompressSync } from "node:zlib"
import { WireError } from "./WireError.ts"

/** One zstd frame. */
export const compress = (bytes: Uint8Array): Uint8Array => zstdCompressSync(bytes)

const smallBytes = 65_536

/** Whether the header of a frame says how much is in it: some readers take no other. */
const saysSize = (frame: Uint8Array): boolean => ((frame[4] ?? 0) & 0b1110_0000) !== 0

/** The same on another thread, unless there is too little to be worth the way: five megabytes take tens of milliseconds. */
export const compressAside = (bytes: Uint8Array): Effect.Effect<Uint8Array> =>
  bytes.byteLength <= smallBytes
    ? Effect.sync(() => compress(bytes))
    : Effect.callback((resume) => {
        zstdCompress(bytes, { pledgedSrcSize: bytes.byteLength }, (error, frame) =>
          resume(
            // Older runtimes do not know the option.
            error === null ? Effect.sync(() => (saysSize(frame) ? frame : compress(bytes))) : Effect.die(error)
          )
        )
      })

/**
 * The content of a frame; fails with `WireError` for anything that is none, that is cut off, or that would grow beyond
 * `maxBytes`. What follows the frame is ignored.
 */
export const decompress = (
  bytes: Uint8Array,
  options: { readonly maxBytes: number }
): Effect.Effect<Uint8Array, WireError> =>
  Effect.try({
    try: () => zstdDecompressSync(bytes, { maxOutputLength: options.maxBytes }),
    catch: (cause) =>
      new WireError({
        what: "a zstd body",
        problem:
          cause instanceof Error && "code" in cause && cause.code === "ERR_BUFFER_TOO_LARGE"
            ? `it holds more than ${options.maxBytes} bytes`
            : String(cause)
      })
  })
