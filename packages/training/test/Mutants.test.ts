import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { CheckpointPolicy, Journal, JournalStore, RunState, SeededRandom } from "../src/index.ts"
import { commit, header } from "./fixtures.ts"

/**
 * T10: rules of the protocol that are taken away on purpose. Each must be missed by the check that guards it; a check that passes
 * without the rule would be worth nothing.
 */
const upTo = (steps: number) => Array.from({ length: steps }, (_, k) => k)

describe("a broken rule is noticed", () => {
  it.effect("RP20: a store that does not look at the epoch lets a zombie write", () =>
    Effect.gen(function* () {
      const store = JournalStore.memory()
      const all: Array<number> = []
      const careless: JournalStore.JournalStore = {
        ...store,
        append: (_run, epoch, records) => Effect.sync(() => void all.push(...records.map(() => epoch)))
      }
      const lowerAfterHigher = (store: JournalStore.JournalStore, expire: () => void) =>
        Effect.gen(function* () {
          const journal = yield* Effect.provide(Journal, Journal.layerStore(store), { local: true })
          const old = yield* journal.open("run")
          expire()
          const next = yield* journal.open("run")
          yield* next.append(header)
          return yield* Effect.exit(old.append(commit(1, 0)))
        }).pipe(Effect.scoped)
      const broken = yield* lowerAfterHigher(careless, () => store.expire("run"))
      assert.strictEqual(broken._tag, "Success")
      assert.isTrue(all.some((epoch, i) => epoch < (all[i - 1] ?? 0)))
      const sound = JournalStore.memory()
      assert.strictEqual((yield* lowerAfterHigher(sound, () => sound.expire("run")))._tag, "Failure")
    })
  )

  it.effect("RP13: retention without proof or without maturity deletes the last sound checkpoint", () =>
    Effect.sync(() => {
      const policy = CheckpointPolicy.everySteps(1, { keepLast: 1 })
      /** Saves once a tick; `sound` says which of them can be loaded, a damage is flagged `late` ticks after it. */
      const left = (seed: number, rules: { readonly proof: boolean; readonly maturity: boolean }) => {
        const random = SeededRandom.make(seed, 0)
        const damagedAt = 3 + random.int(8)
        const late = random.int(3)
        const sound = Array.from({ length: 12 }, (_, i) => i + 1 < damagedAt && random.int(3) > 0)
        let held: ReadonlyArray<CheckpointPolicy.Kept> = []
        for (let now = 1; now < damagedAt + late; now++) {
          held = held
            .concat({ path: `c${now}`, step: now, proven: !rules.proof })
            .map(({ path, proven, step }) => ({ path, step, proven, mature: !rules.maturity || now - step >= late }))
          for (let round = 0; round < 20; round++) {
            const { deletable, prove } = policy.retain(held)
            held = held.filter(({ path }) => !deletable.includes(path))
            if (prove === undefined) break
            // A load shows what cannot be loaded; it does not show what was damaged before it was saved.
            const loads = Number(prove.slice(1)) >= damagedAt || sound[Number(prove.slice(1)) - 1] === true
            held = loads
              ? held.map(({ mature, path, proven, step }) => ({ path, step, mature, proven: proven || path === prove }))
              : held.filter(({ path }) => path !== prove)
          }
        }
        const had = sound.slice(0, damagedAt + late - 1).includes(true)
        return !had || held.some(({ step }) => sound[step - 1] === true)
      }
      const lost = (rules: { readonly proof: boolean; readonly maturity: boolean }) =>
        upTo(300).filter((seed) => !left(seed, rules)).length
      assert.strictEqual(lost({ proof: true, maturity: true }), 0)
      assert.isAbove(lost({ proof: false, maturity: true }), 0)
      assert.isAbove(lost({ proof: true, maturity: false }), 0)
    })
  )

  it.effect("RP29: what was gathered before the steps below it came back would be used again", () =>
    Effect.sync(() => {
      const gathered = [
        header,
        { _tag: "Attempt", attempt: 1, from: null, fromStep: 0, incident: null },
        { _tag: "Spooled", attempt: 1, step: 0, name: "rollouts", digest: "a" },
        commit(1, 0),
        { _tag: "Spooled", attempt: 1, step: 1, name: "rollouts", digest: "b" },
        { _tag: "Spooled", attempt: 1, step: 2, name: "rollouts", digest: "c" },
        { _tag: "Attempt", attempt: 2, from: null, fromStep: 0, incident: null }
      ] as const
      assert.deepStrictEqual([...RunState.fold(gathered).spooled.keys()], [0, 1])
      // Had its step come back, it would have been of use.
      const late = [...gathered.slice(0, 6), commit(1, 1), ...gathered.slice(6)]
      assert.deepStrictEqual([...RunState.fold(late).spooled.keys()], [0, 1, 2])
    })
  )
})
