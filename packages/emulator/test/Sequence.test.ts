import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Sequence } from "../src/internal/sequence.ts"

describe("Sequence", () => {
  it.effect.prop(
    "SQ1: any order of arrival is handed out in order, once",
    [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 12 })))],
    ([arrivals]) =>
      Effect.sync(() => {
        const sequence = new Sequence<number>(0)
        const out: Array<number> = []
        const claimed = new Set<number>()
        for (const seqId of arrivals) {
          const claim = sequence.find(seqId, `digest ${seqId}`)
          assert.strictEqual(claim._tag, claimed.has(seqId) ? "Duplicate" : "Accepted")
          if (claim._tag === "Accepted") sequence.claim(seqId, `digest ${seqId}`, seqId)
          claimed.add(seqId)
          for (let next = sequence.take(); next !== undefined; next = sequence.take()) out.push(next)
        }
        const contiguous = Array.from({ length: 14 }, (_, i) => i).findIndex((i) => !claimed.has(i))
        assert.deepStrictEqual(
          out,
          Array.from({ length: contiguous }, (_, i) => i)
        )
      })
  )

  it("SQ2: a number stays with its first payload, before and after its turn", () => {
    const sequence = new Sequence<string>(1)
    sequence.claim(1, "a", "first")
    assert.deepStrictEqual(sequence.find(1, "a"), { _tag: "Duplicate", entry: "first" })
    assert.deepStrictEqual(sequence.find(1, "b"), { _tag: "Conflict" })
    assert.strictEqual(sequence.take(), "first")
    assert.deepStrictEqual(sequence.find(1, "a"), { _tag: "Duplicate", entry: "first" })
    assert.deepStrictEqual(sequence.find(1, "b"), { _tag: "Conflict" })
    assert.deepStrictEqual(sequence.find(0, "x"), { _tag: "Conflict" })
  })

  it("SQ3: a refused number holds up nothing, and may be claimed until its turn has passed", () => {
    const sequence = new Sequence<string>(1)
    sequence.claim(2, "b", "second")
    assert.strictEqual(sequence.take(), undefined)
    sequence.refuse(1)
    assert.strictEqual(sequence.take(), "second")
    assert.deepStrictEqual(sequence.find(1, "a"), { _tag: "Conflict" })
    sequence.refuse(3)
    assert.deepStrictEqual(sequence.find(3, "c"), { _tag: "Accepted" })
  })

  it("tells what waits, in order", () => {
    const sequence = new Sequence<number>(1)
    for (const seqId of [5, 3, 1, 2]) sequence.claim(seqId, "", seqId)
    sequence.refuse(4)
    assert.strictEqual(sequence.take(), 1)
    assert.deepStrictEqual(sequence.waiting, [2, 3, 5])
  })
})
