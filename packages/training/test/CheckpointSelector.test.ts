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

  it("the best by a metric comes first in either direction; what was not measured follows, newest first", () => {
    const candidates = [
      candidate(1, { metrics: { loss: 0.5 } }),
      candidate(2, { metrics: { loss: Number.NaN } }),
      candidate(3, { metrics: { loss: 0.2 } }),
      candidate(4),
      candidate(5, { metrics: { loss: 0.9 } })
    ]
    const names = (mode: "min" | "max") =>
      select(candidates, { strategy: CheckpointSelector.best("loss", mode) }).order.map(({ name }) => name)
    assert.deepStrictEqual(names("min"), ["s3", "s1", "s5", "s4", "s2"])
    assert.deepStrictEqual(names("max"), ["s5", "s1", "s3", "s4", "s2"])
  })

  it("a function of the program sees only what is usable, newest first, and can neither add nor repeat anything", () => {
    const candidates = [candidate(1), candidate(2), candidate(3), candidate(4)]
    const quarantined = new Map([["tinker://run/weights/s3", "bad"]])
    let seen: ReadonlyArray<string> = []
    const even = CheckpointSelector.custom("even steps", (usable) => {
      seen = usable.map(({ name }) => name)
      const kept = usable.filter(({ step }) => Option.exists(step, (step) => step % 2 === 0))
      return [candidate(9), ...kept.toReversed(), ...kept]
    })
    const { order, rejected } = select(candidates, { strategy: even, quarantined })
    assert.deepStrictEqual(seen, ["s4", "s2", "s1"])
    assert.deepStrictEqual(
      order.map(({ name }) => name),
      ["s2", "s4"]
    )
    assert.deepStrictEqual(
      rejected.map(({ candidate, reason }) => [candidate.name, reason]),
      [
        ["s3", "quarantined: bad"],
        ["s1", "left out by even steps"]
      ]
    )
    const throws = CheckpointSelector.custom("broken", () => {
      throw new Error("boom")
    })
    assert.strictEqual(select(candidates, { strategy: throws }).rejected.length, 4)
  })

  it("F53: what was saved after the run was last known to be well comes last, unless it was verified", () => {
    const savedAt = (at: number) => Option.some(DateTime.makeUnsafe(at))
    const { order, suspect } = select(
      [
        candidate(1, { verified: false, savedAt: savedAt(100) }),
        candidate(2, { verified: false, savedAt: savedAt(200) }),
        candidate(3, { verified: false, savedAt: savedAt(201) }),
        candidate(4, { verified: true, savedAt: savedAt(999) })
      ],
      { wellUntil: DateTime.makeUnsafe(200) }
    )
    assert.deepStrictEqual(
      order.map(({ name }) => name),
      ["s4", "s2", "s1", "s3"]
    )
    assert.deepStrictEqual(
      suspect.map(({ name }) => name),
      ["s3"]
    )
  })

  it("what does not fit the run is rejected with its reason", () => {
    const unfit = "it has rank 16, the run 8"
    assert.deepStrictEqual(
      select([candidate(1, { unfit })]).rejected.map(({ reason }) => reason),
      [unfit]
    )
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
