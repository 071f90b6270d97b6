/**
 * Writes small pieces in large blocks, each while the next one fills. The pieces are copied at once and never kept: what lives
 * for longer than a moment costs the collector more than the copy costs the processor.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import type * as Scope from "effect/Scope"

/** So much stays in the cache of the processor from its copy to its write. */
const blockBytes = 256 * 1024

export interface BlockWriter {
  readonly write: (pieces: ReadonlyArray<Uint8Array>) => Effect.Effect<void, PlatformError.PlatformError, Scope.Scope>
  /** Writes what is left. */
  readonly end: Effect.Effect<void, PlatformError.PlatformError>
}

export const make = (file: FileSystem.File): BlockWriter => {
  let filling = new Uint8Array(blockBytes)
  let resting = new Uint8Array(blockBytes)
  let filled = 0
  let writing: Fiber.Fiber<void, PlatformError.PlatformError> | undefined

  const written = Effect.suspend(() => (writing === undefined ? Effect.void : Fiber.join(writing)))

  /** Of a full block. */
  const flush = Effect.gen(function* () {
    yield* written
    const block = filling
    filling = resting
    resting = block
    filled = 0
    writing = yield* Effect.forkScoped(file.writeAll(block), { startImmediately: true })
  })

  /** As much of a piece as there is room for; gives where the rest begins. */
  const fill = (piece: Uint8Array, from: number): number => {
    const part = piece.subarray(from, from + blockBytes - filled)
    filling.set(part, filled)
    filled += part.length
    return from + part.length
  }

  return {
    write: (pieces) => {
      let index = 0
      let offset = 0
      /** Copies until there is no room, or nothing left: then it is true. */
      const copied = (): boolean => {
        for (let piece = pieces[index]; piece !== undefined; piece = pieces[++index]) {
          offset = fill(piece, offset)
          if (offset < piece.length) return false
          offset = 0
        }
        return true
      }
      if (copied()) return Effect.void
      return Effect.gen(function* () {
        do yield* flush
        while (!copied())
      })
    },
    end: Effect.andThen(
      written,
      Effect.suspend(() => file.writeAll(filling.subarray(0, filled)))
    )
  }
}
