import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Chunks from "../../src/internal/chunks.ts"
import { estimateBytes } from "../../src/wire/Datum.ts"
import { datum } from "../support/fakeService.ts"

const output = (count: number, metrics: Record<string, number>, type = "T") => ({
  lossFnOutputType: type,
  lossFnOutputs: Array.from({ length: count }, () => ({})),
  metrics
})

describe("split", () => {
  it.effect.prop(
    "keeps the order, stays within both limits, and closes no request too early",
    [
      Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 }))).check(Schema.isMaxLength(30)),
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 6 })),
      Schema.Int.check(Schema.isBetween({ minimum: 16, maximum: 600 }))
    ],
    ([lengths, maxLength, maxBytes]) =>
      Effect.sync(() => {
        const data = lengths.map((length) => datum(...Array.from({ length }, (_, i) => i)))
        const chunks = Chunks.split(data, { maxLength, maxBytes })
        assert.deepStrictEqual(chunks.flat(), data)
        const bytes = chunks.map((chunk) => chunk.reduce((total, one) => total + estimateBytes(one), 0))
        for (const [i, chunk] of chunks.entries()) {
          assert.isNotEmpty(chunk)
          assert.isAtMost(chunk.length, maxLength)
          assert.isTrue((bytes[i] ?? 0) <= maxBytes || chunk.length === 1)
          const next = chunks[i + 1]?.[0]
          if (next === undefined) continue
          assert.isTrue(chunk.length === maxLength || (bytes[i] ?? 0) + estimateBytes(next) > maxBytes)
        }
      })
  )
})

describe("combine", () => {
  it("concatenates in order, with the type of the first", () => {
    const joined = Chunks.combine([output(2, {}, "A"), output(1, {}, "B")])
    assert.strictEqual(joined.lossFnOutputType, "A")
    assert.strictEqual(joined.lossFnOutputs.length, 3)
  })

  it("reduces each metric by its suffix", () => {
    const { metrics } = Chunks.combine([
      output(3, {
        "a:mean": 1,
        "a:sum": 1,
        "a:min": 1,
        "a:max": 1,
        "a:slack": 3,
        "a:unique": 7,
        "a:median": 9,
        "a:constructor": 9,
        a: 1,
        "b:c:sum": 1
      }),
      output(1, {
        "a:mean": 5,
        "a:sum": 4,
        "a:min": 5,
        "a:max": 5,
        "a:slack": 1,
        "a:unique": 8,
        "a:median": 9,
        "a:constructor": 9,
        a: 1,
        "b:c:sum": 1
      })
    ])
    assert.deepStrictEqual(metrics, {
      "a:mean": 2,
      "a:sum": 5,
      "a:min": 1,
      "a:max": 5,
      "a:slack": 0.5,
      "a:unique": 7,
      "a:unique_1": 8
    })
  })

  it("drops what is missing from a request, or not in the first", () => {
    const { metrics } = Chunks.combine([output(1, { "a:sum": 1, "b:sum": 1 }), output(1, { "a:sum": 2, "c:sum": 3 })])
    assert.deepStrictEqual(metrics, { "a:sum": 3 })
  })

  it("reduces a single request too, and counts requests where the service returned no outputs", () => {
    assert.deepStrictEqual(Chunks.combine([output(2, { "a:slack": 3, odd: 1 })]).metrics, { "a:slack": 0 })
    assert.deepStrictEqual(Chunks.combine([output(0, { "a:mean": 1 }), output(0, { "a:mean": 3 })]).metrics, {
      "a:mean": 2
    })
  })

  it("hashes without regard to the order of the requests", () => {
    const hash = (...values: ReadonlyArray<number>) =>
      Chunks.combine(values.map((value) => output(1, { "h:hash_unordered": value }))).metrics["h:hash_unordered"]
    assert.strictEqual(hash(1, 2, 3), hash(3, 1, 2))
    assert.notStrictEqual(hash(1, 2, 3), hash(1, 2, 4))
  })
})
