import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Schema } from "effect"
import { readFileSync } from "node:fs"
import * as BlockWriter from "../../src/internal/blockWriter.ts"
import { localFile } from "../../src/internal/localFile.ts"

const written = (sizes: ReadonlyArray<ReadonlyArray<number>>) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* fs.makeTempFileScoped()
    const all: Array<Uint8Array> = []
    let next = 0
    yield* Effect.scoped(
      Effect.gen(function* () {
        const writer = BlockWriter.make(yield* fs.open(path, { flag: "w" }))
        for (const group of sizes) {
          const pieces = group.map((size) => Uint8Array.from({ length: size }, () => next++ * 31))
          all.push(...pieces.map((piece) => Uint8Array.from(piece)))
          yield* writer.write(pieces)
          // The socket may use its memory again.
          for (const piece of pieces) piece.fill(0)
        }
        yield* writer.end
      })
    )
    assert.isTrue(readFileSync(path).equals(Buffer.concat(all)), JSON.stringify(sizes))
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const block = 1024 * 1024

describe("blockWriter", () => {
  it.effect("writes what it was given, in order, whatever the pieces are", () =>
    Effect.forEach(
      [
        [],
        [[]],
        [[0, 0]],
        [[1]],
        [[block]],
        [[block - 1], [1]],
        [[block - 1, 2, 3]],
        [[block + 1]],
        [[3 * block + 5, 0, 1]],
        [[block, block, block], [7]],
        Array.from({ length: 40 }, () => [65_536, 3])
      ],
      written
    )
  )

  it.effect.prop(
    "whatever the pieces are, drawn",
    [Schema.Array(Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 700_000 }))))],
    ([sizes]) => written(sizes.slice(0, 4).map((group) => group.slice(0, 3))),
    { arbitrary: { runs: 20 } }
  )

  it.effect("says what the disk says", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const error = yield* Effect.scoped(
        Effect.gen(function* () {
          const writer = BlockWriter.make(yield* fs.open("/dev/full", { flag: "w" }))
          yield* writer.write([new Uint8Array(3 * block)])
          yield* writer.end
        })
      ).pipe(Effect.flip)
      assert.strictEqual(error._tag, "PlatformError")
      assert.include(
        localFile("download", "/dev/full", "written")(error).message,
        "/dev/full cannot be written: ENOSPC"
      )
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
