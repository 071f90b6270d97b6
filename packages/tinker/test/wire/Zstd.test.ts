import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Zstd from "../../src/wire/Zstd.ts"

describe("Zstd", () => {
  it.effect("gives back what it compressed", () =>
    Effect.gen(function* () {
      const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i % 7)
      const frame = Zstd.compress(bytes)
      assert.isBelow(frame.length, 200)
      assert.deepStrictEqual([...(yield* Zstd.decompress(frame, { maxBytes: 10_000 }))], [...bytes])
    })
  )

  it.live("writes the same frame on another thread", () =>
    Effect.gen(function* () {
      for (const size of [0, 65_536, 65_537, 1_000_000]) {
        const bytes = Uint8Array.from({ length: size }, (_, i) => (i * i) % 251)
        assert.isTrue(Buffer.from(yield* Zstd.compressAside(bytes)).equals(Zstd.compress(bytes)), `${size}`)
      }
    })
  )

  it.effect(
    "refuses a frame that is cut off, wherever, and one whose bytes were changed without harm to its reader",
    () =>
      Effect.gen(function* () {
        const frame = Zstd.compress(Uint8Array.from({ length: 300 }, (_, i) => (i * 7919) % 251))
        for (let end = 0; end < frame.length; end++) {
          const error = yield* Effect.flip(Zstd.decompress(frame.subarray(0, end), { maxBytes: 10_000 }))
          assert.strictEqual(error._tag, "WireError")
        }
        for (let i = 0; i < frame.length; i++) {
          const exit = yield* Effect.exit(
            Zstd.decompress(
              frame.map((byte, at) => (at === i ? byte ^ 0x55 : byte)),
              { maxBytes: 10_000 }
            )
          )
          if (exit._tag === "Failure") assert.isTrue(exit.cause.reasons.every((reason) => reason._tag === "Fail"))
        }
      })
  )

  it.effect("refuses garbage, and a frame that grows beyond the limit", () =>
    Effect.gen(function* () {
      const garbage = yield* Effect.flip(Zstd.decompress(Uint8Array.of(1, 2, 3, 4), { maxBytes: 10 }))
      assert.match(garbage.message, /a zstd body is not as the API has it/)
      const bomb = Zstd.compress(new Uint8Array(1_000_000))
      const error = yield* Effect.flip(Zstd.decompress(bomb, { maxBytes: 1000 }))
      assert.match(error.message, /more than 1000 bytes/)
    })
  )
})
