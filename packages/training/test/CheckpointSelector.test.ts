import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, Schema } from "effect"
import { CheckpointSelector } from "../src/index.ts"

const now = DateTime.makeUnsafe(1_000_000)

const candidate = (
  step: number | undefined,
  options: Partial<CheckpointSelector.Candidate> = {}
): CheckpointSelector.Candidate => ({
  path: `tinker://run/weights/s${step ?? "x"}`,
  name: `s${step ?? "x"}`,
  step: Option.fromUndefinedOr(step),
  verified: true,
  proven: false,
  sizeBytes: Option.none(),
  expiresAt: Option.none(),
  savedAt: Option.none(),
  source: "journal",
  ...options
})

const select = (
  candidates: ReadonlyArray<CheckpointSelector.Candidate>,
  options: Partial<Parameters<typeof CheckpointSelector.select>[0]> = {}
) =>
  CheckpointSelector.select({
    candidates,
    quarantined: new Map(),
    strategy: CheckpointSelector.latest,
    now,
    ...options
  })

describe("CheckpointSelector", () => {
  it("takes the newest verified one and falls back to older ones", () => {
    const { chosen, order } = select([candidate(5), candidate(15), candidate(10), candidate(20, { verified: false })])
    assert.strictEqual(Option.getOrThrow(chosen).name, "s15")
    assert.deepStrictEqual(
      order.map(({ name }) => name),
      ["s15", "s10", "s5", "s20"]
    )
  })

  it("says of each one that it does not take why", () => {
    const expiresAt = Option.some(DateTime.makeUnsafe(999_999))
    const { order, rejected } = select(
      [
        candidate(1),
        candidate(2),
        candidate(3),
        candidate(4, { expiresAt }),
        candidate(5, { path: "tinker://run/sampler_weights/s5" })
      ],
      {
        quarantined: new Map([["tinker://run/weights/s2", "truncated"]]),
        deleted: new Set(["tinker://run/weights/s3"])
      }
    )
    assert.deepStrictEqual(
      order.map(({ name }) => name),
      ["s1"]
    )
    assert.deepStrictEqual(
      rejected.map(({ candidate, reason }) => [candidate.name, reason]),
      [
        ["s2", "quarantined: truncated"],
        ["s3", "deleted, or about to be"],
        ["s4", "expired at 1970-01-01T00:16:39.999Z"],
        ["s5", "a sampler checkpoint holds no optimizer state"]
      ]
    )
  })

  it("a named checkpoint has no fallback, and a quarantined one stays refused", () => {
    const strategy = CheckpointSelector.specific("tinker://run/weights/s1")
    assert.strictEqual(select([candidate(1), candidate(2)], { strategy }).order.length, 1)
    const quarantined = new Map([["tinker://run/weights/s1", "bad"]])
    assert.isTrue(Option.isNone(select([candidate(1), candidate(2)], { strategy, quarantined }).chosen))
  })

  it.effect.prop(
    "CS1-CS3: every candidate is ordered or rejected, verified and newer ones first, nothing bad in the order",
    [
      Schema.Array(
        Schema.Struct({
          step: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20 })),
          verified: Schema.Boolean,
          bad: Schema.Boolean
        })
      )
    ],
    ([rows]) =>
      Effect.sync(() => {
        const candidates = rows.map(({ step, verified }, i) =>
          candidate(step, { verified, path: `tinker://run/weights/c${i}` })
        )
        const quarantined = new Map(
          candidates.filter((_, i) => rows[i]?.bad === true).map(({ path }) => [path, "bad"] as const)
        )
        const { order, rejected } = select(candidates, { quarantined })
        assert.sameMembers([...order, ...rejected.map(({ candidate }) => candidate)], candidates)
        assert.isFalse(order.some(({ path }) => quarantined.has(path)))
        const rank = ({ step, verified }: CheckpointSelector.Candidate) =>
          (verified ? 1000 : 0) + Option.getOrElse(step, () => -1)
        for (let i = 1; i < order.length; i++) {
          const [a, b] = [order[i - 1], order[i]]
          assert.isTrue(a !== undefined && b !== undefined && rank(a) >= rank(b))
        }
      })
  )
})
