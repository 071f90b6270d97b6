import * as Effect from "effect/Effect"
import { zstdCompressSync, zstdDecompressSync } from "node:zlib"
import { WireError } from "./WireError.ts"

/** One zstd frame. */
export const compress = (bytes: Uint8Array): Uint8Array => zstdCompressSync(bytes)

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
