import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { JournalRecord } from "../src/JournalRecord.ts"
import * as RunState from "../src/RunState.ts"
import { attempt, commit, header, history, incident, pathOf, started, step, verified } from "./fixtures.ts"

const names = (state: RunState.RunState) => RunState.candidates(state).map((record) => record.name)
const adoptable = (state: RunState.RunState) => RunState.adoptable(state).map((save) => save.name)

const lazy = new Set(["Commit", "Proven", "Deleted", "Paused", "Resumed"])

/** Records about few attempts, steps, names and paths, so that they have to do with each other. */
const small = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 }))
const name = Schema.Literals(["a", "b", "c"])
const related = Schema.Array(
  Schema.Struct({
    tag: Schema.Literals([
      "Attempt",
      "Started",
      "Step",
      "Commit",
      "Verified",
      "SaveDead",
      "Incident",
      "Quarantine",
      "DeleteIntent"
    ]),
    attempt: small,
    step: small,
    name
  })
)
const record = (row: (typeof related.Type)[number]): JournalRecord => {
  switch (row.tag) {
    case "Attempt":
      return attempt(row.attempt, row.step === 0 ? null : row.name, row.step)
    case "Started":
      return started(row.attempt)
    case "Step":
      return step(row.attempt, row.step, row.name)
    case "Commit":
      return commit(row.attempt, row.step)
    case "Verified":
      return { ...verified(row.attempt, row.step, row.name), path: row.name } as JournalRecord // a Verified stays one
    case "SaveDead":
      return { _tag: "SaveDead", name: row.name, why: "test" }
    case "Incident":
      return incident(row.attempt, row.step, row.step % 2 === 0 ? "poisoned" : "session_lost")
    case "Quarantine":
    case "DeleteIntent":
      return { _tag: row.tag, path: row.name, why: "test" }
  }
}

describe("RunState.fold", () => {
  it.effect.prop("is total: any records in any order make a state (FS1)", [Schema.Array(JournalRecord)], ([records]) =>
    Effect.sync(() => {
      const state = RunState.fold(records)
      assert.isAtLeast(state.attemptsWithoutProgress, 0)
    })
  )

  it.effect.prop(
    "keeps its laws on every prefix of related records (FS1, FS3)",
    [related],
    ([rows]) =>
      Effect.sync(() => {
        const records = rows.map(record)
        let state = RunState.empty
        for (const [index, next] of records.entries()) {
          const before = structuredClone(state)
          const after = RunState.apply(state, next)
          assert.deepStrictEqual(state, before, "apply changed the state that it was given")
          assert.deepStrictEqual(after, RunState.fold(records.slice(0, index + 1)))
          assert.isAtLeast(after.highWater, state.highWater)
          for (const one of after.attempts) {
            assert.isAtLeast(one.committed, one.fromStep)
            if (one.committed > one.fromStep) assert.isAtLeast(after.highWater, one.committed)
          }
          state = after
        }
      }),
    { arbitrary: { size: 40 } }
  )

  it.effect.prop(
    "makes nothing restorable or adoptable by losing lazy records at the end (FS2)",
    [related],
    ([rows]) =>
      Effect.sync(() => {
        const records = rows.map(record)
        const keep = records.findLastIndex((one) => !lazy.has(one._tag)) + 1
        const whole = RunState.fold(records)
        for (let end = keep; end < records.length; end++) {
          const cut = RunState.fold(records.slice(0, end))
          assert.includeMembers(names(whole), names(cut))
          assert.includeMembers(adoptable(whole), adoptable(cut))
        }
      }),
    { arbitrary: { size: 40 } }
  )

  it("loses no knowledge with the lazy suffix of a real journal but commits, and gains none (FS2)", () => {
    for (let end = 0; end <= history.length; end++) {
      let durable = end
      while (durable > 0 && lazy.has(history[durable - 1]?._tag ?? "")) durable--
      const whole = RunState.fold(history.slice(0, end))
      const cut = RunState.fold(history.slice(0, durable))
      assert.deepStrictEqual(names(cut), names(whole))
      assert.includeMembers(adoptable(whole), adoptable(cut))
    }
  })

  it("adds up a run that lost a model", () => {
    const state = RunState.fold(history)
    assert.deepStrictEqual(
      state.attempts.map(({ attempt, closed, committed, fromStep, trainingRunId }) => ({
        attempt,
        closed: closed?.id,
        committed,
        fromStep,
        trainingRunId
      })),
      [
        { attempt: 1, closed: "inc-1", committed: 4, fromStep: 0, trainingRunId: "model-1" },
        { attempt: 2, closed: undefined, committed: 6, fromStep: 2, trainingRunId: "model-2" }
      ]
    )
    assert.deepStrictEqual(names(state), ["s4b", "s6"])
    assert.strictEqual(state.highWater, 6)
    assert.strictEqual(state.terminal?._tag, "Completed")
    assert.isTrue(state.proven.has(pathOf(1, "s2")), "attempt 2 trained from it")
  })

  it("counts only the next step as committed", () => {
    const state = RunState.fold([header, attempt(1), started(1), step(1, 0), step(1, 1), commit(1, 1), commit(1, 0)])
    assert.strictEqual(state.attempts[0]?.committed, 1)
  })

  it("keeps the size of a state independent of the number of steps", () => {
    let state = RunState.fold([header, attempt(1), started(1)])
    for (let k = 0; k < 10_000; k++) {
      const name = k % 100 === 99 ? `s${k + 1}` : null
      state = RunState.apply(RunState.apply(state, step(1, k, name)), commit(1, k))
      if (name !== null && k % 200 === 99) state = RunState.apply(state, verified(1, k + 1, name))
      if (name !== null && k % 200 === 199) state = RunState.apply(state, { _tag: "SaveDead", name, why: "absent" })
    }
    assert.deepStrictEqual([...(state.attempts[0]?.steps.keys() ?? [])], [9_999])
  })

  it("counts attempts without progress and gives one back for each checkpoint found bad (RP17)", () => {
    const count = (...records: ReadonlyArray<JournalRecord>) => RunState.fold(records).attemptsWithoutProgress
    assert.strictEqual(count(attempt(1), attempt(2), attempt(3)), 3)
    assert.strictEqual(count(attempt(1), started(1), step(1, 0), commit(1, 0)), 0)
    const replay = [attempt(1), step(1, 0), commit(1, 0), attempt(2), step(2, 0), commit(2, 0)]
    assert.strictEqual(count(...replay), 1, "a replayed step is no progress")
    const bad: JournalRecord = { _tag: "Quarantine", path: "x", why: "poisoned on load" }
    assert.strictEqual(count(attempt(1), bad, attempt(2), bad), 1, "once for each checkpoint")
  })
})

describe("RunState.adoptable", () => {
  const saved = [header, attempt(1), started(1), step(1, 0), commit(1, 0), step(1, 1, "s2")]

  it("wants every step up to the save committed (RP11)", () => {
    assert.deepStrictEqual(adoptable(RunState.fold(saved)), [])
    assert.deepStrictEqual(adoptable(RunState.fold([...saved, commit(1, 1)])), ["s2"])
  })

  it("wants the newest attempt, and one that was not poisoned (RP11)", () => {
    const whole = [...saved, commit(1, 1)]
    assert.deepStrictEqual(adoptable(RunState.fold([...whole, incident(1, 2, "session_lost")])), ["s2"])
    assert.deepStrictEqual(adoptable(RunState.fold([...whole, incident(1, 2, "poisoned")])), [])
    assert.deepStrictEqual(adoptable(RunState.fold([...whole, attempt(2)])), [])
  })

  it("is done with a save that is verified or dead", () => {
    const whole = [...saved, commit(1, 1)]
    assert.deepStrictEqual(adoptable(RunState.fold([...whole, verified(1, 2, "s2")])), [])
    assert.deepStrictEqual(adoptable(RunState.fold([...whole, { _tag: "SaveDead", name: "s2", why: "absent" }])), [])
  })
})
