import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as CheckpointPolicy from "../src/CheckpointPolicy.ts"

const kept = (step: number, proven = false): CheckpointPolicy.Kept => ({ path: `c${step}`, step, proven })
const count = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5 }))
const flags = Schema.Array(Schema.Boolean).check(Schema.isMaxLength(12))

describe("CheckpointPolicy.everySteps", () => {
  it("saves after every n-th step", () => {
    const policy = CheckpointPolicy.everySteps(3)
    const due = Array.from({ length: 9 }, (_, k) => k).filter(policy.dueAfter)
    assert.deepStrictEqual(due, [2, 5, 8])
  })

  it.effect.prop(
    "never gives up the newest proven one, anything newer, or one of the last few (CP1, CP2, CP3)",
    [count, flags],
    ([keepLast, proven]) =>
      Effect.sync(() => {
        const all = proven.map((flag, index) => kept(index + 1, flag))
        const { deletable, prove } = CheckpointPolicy.everySteps(1, { keepLast }).retain(all)
        const newestProven = Math.max(0, ...all.filter((one) => one.proven).map((one) => one.step))
        for (const one of all.filter(({ path }) => deletable.includes(path))) {
          assert.isBelow(one.step, newestProven)
          assert.isAtMost(one.step, all.length - keepLast)
        }
        if (prove !== undefined) {
          const after = all.map((one) => (one.path === prove ? { ...one, proven: true } : one))
          const next = CheckpointPolicy.everySteps(1, { keepLast }).retain(after)
          assert.isAbove(next.deletable.length, deletable.length, "a proof must be worth its cost")
          assert.strictEqual(next.prove, undefined)
        }
        const order = { ...CheckpointPolicy.everySteps(1, { keepLast }).retain(all.toReversed()) }
        assert.deepStrictEqual(order, { deletable, prove }, "the order of the list does not matter")
      })
  )

  it.effect.prop(
    "leaves a sound one, whatever is hidden in the others, as long as proofs tell the truth (T6)",
    [count, flags],
    ([keepLast, sound]) =>
      Effect.sync(() => {
        const policy = CheckpointPolicy.everySteps(1, { keepLast })
        let held: ReadonlyArray<CheckpointPolicy.Kept> = []
        for (const [index] of sound.entries()) {
          held = held.concat(kept(index + 1))
          for (let round = 0; round < 20; round++) {
            const { deletable, prove } = policy.retain(held)
            held = held.filter(({ path }) => !deletable.includes(path))
            if (prove === undefined) break
            const ok = sound[Number(prove.slice(1)) - 1] === true
            // A proof that fails quarantines the checkpoint, which is then no candidate any more.
            held = ok
              ? held.map((one) => (one.path === prove ? { ...one, proven: true } : one))
              : held.filter(({ path }) => path !== prove)
          }
          if (sound.slice(0, index + 1).includes(true)) {
            assert.isTrue(
              held.some(({ step }) => sound[step - 1] === true),
              `none left after ${index + 1}`
            )
          }
        }
      })
  )

  it("deletes the oldest first and asks for one proof before it deletes", () => {
    const policy = CheckpointPolicy.everySteps(10, { keepLast: 2 })
    assert.deepStrictEqual(policy.retain([kept(10), kept(20)]), { deletable: [], prove: undefined })
    assert.deepStrictEqual(policy.retain([kept(10), kept(20), kept(30), kept(40)]), { deletable: [], prove: "c30" })
    assert.deepStrictEqual(policy.retain([kept(10), kept(20), kept(30, true), kept(40)]), {
      deletable: ["c10", "c20"],
      prove: undefined
    })
  })

  it("names an option that makes no sense", () => {
    assert.strictEqual(CheckpointPolicy.everySteps(1, { keepLast: 1 }).invalid, undefined)
    assert.include(
      CheckpointPolicy.everySteps(0).invalid?.message,
      "checkpoints.everySteps must be a whole number above 0, but is 0"
    )
    assert.include(CheckpointPolicy.everySteps(5, { keepLast: 1.5 }).invalid?.message, "checkpoints.keepLast")
  })
})

describe("CheckpointPolicy.none", () => {
  it("saves and deletes nothing", () => {
    assert.isFalse(CheckpointPolicy.none.dueAfter(0))
    assert.deepStrictEqual(CheckpointPolicy.none.retain([kept(1), kept(2, true)]).deletable, [])
  })
})
