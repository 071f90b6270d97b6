import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import { CheckpointPolicy, Journal, JournalStore, RunGuard, RunState } from "../src/index.ts"
import type { JournalRecord } from "../src/JournalRecord.ts"
import { attempt, commit, header, incident, started, step } from "./fixtures.ts"
import { finalState, tiny, world } from "./TinyRun.ts"

/**
 * What a server did and what its client came to know, step by step. A soft failure leaves a step out of the ledger although the
 * steps and saves behind it succeed; the client stops believing at the first failure that it reads.
 */
const row = Schema.Struct({ applied: Schema.Boolean, saved: Schema.Boolean })
const rows = Schema.Array(row).check(Schema.isMinLength(1), Schema.isMaxLength(12))
const answersRead = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 12 }))

describe("T5: adoption of saves whose answer was lost", () => {
  it.effect.prop(
    "an adopted save holds the steps that it says and no others, whatever failed softly before it (RP11)",
    [rows, answersRead, Schema.Boolean],
    ([history, read, told]) =>
      Effect.sync(() => {
        const records: Array<JournalRecord> = [header, attempt(1), started(1)]
        for (const [k, { saved }] of history.entries()) records.push(step(1, k, saved ? `s${k + 1}` : null))
        const firstFailure = history.findIndex(({ applied }) => !applied)
        const readable = firstFailure < 0 ? history.length : firstFailure
        for (let k = 0; k < Math.min(read, readable); k++) records.push(commit(1, k))
        // The client may have read the failure before it died, or not have got so far.
        if (firstFailure >= 0 && read > firstFailure && told) {
          records.push({ ...incident(1, firstFailure), cause: "failed" } as JournalRecord) // an Incident stays one
        }
        for (const { binds } of RunState.adoptable(RunState.fold(records))) {
          const ledger = history.slice(0, binds).filter(({ applied }) => applied)
          assert.strictEqual(ledger.length, binds)
        }
      }),
    { arbitrary: { size: 30 } }
  )

  it.effect("the state of the loop and the metrics of its step come with it", () =>
    Effect.gen(function* () {
      const userState = { seen: 7 }
      const state = RunState.fold([
        header,
        attempt(1),
        started(1),
        { ...step(1, 0, "s1"), userState } as JournalRecord, // a Step stays one
        commit(1, 0, { loss: 0.25 })
      ])
      assert.deepStrictEqual(RunState.adoptable(state), [{ name: "s1", binds: 1, userState, metrics: { loss: 0.25 } }])
    })
  )

  for (const [name, survives] of [
    ["is used, and is not made again", true],
    ["that the server does not have is dead for ever", false]
  ] as const) {
    it.effect(`F54: a save whose answer nobody lived to read ${name}`, () =>
      Effect.gen(function* () {
        const store = JournalStore.memory()
        const dead = yield* Deferred.make<void>()
        let over = false
        /** The process dies when it has learnt that the save of step 10 is there, before it writes that down. */
        const mortal: JournalStore.JournalStore = {
          ...store,
          append: (run, epoch, records) =>
            Effect.suspend(() => {
              const last = records.findIndex(
                ({ record }) =>
                  (record._tag === "Verified" && record.step === 10) ||
                  (record._tag === "SaveDead" && record.name.includes("-s10-"))
              )
              if (over || last < 0) return over ? Effect.die("dead") : store.append(run, epoch, records)
              over = true
              return store
                .append(run, epoch, records.slice(0, last))
                .pipe(Effect.andThen(Deferred.succeed(dead, undefined)), Effect.andThen(Effect.die("dead")))
            })
        }
        const inStore = (store: JournalStore.JournalStore) => Effect.provide(Layer.fresh(Journal.layerStore(store)))
        const checkpoints = CheckpointPolicy.everySteps(5, { keepLast: 10, ttl: "2 hours" })
        yield* Effect.raceFirst(Effect.exit(tiny({ checkpoints })), Deferred.await(dead)).pipe(inStore(mortal))
        const fiber = yield* Effect.forkChild(tiny({ checkpoints }).pipe(inStore(store)))
        yield* TestClock.adjust("1 minute")
        const report = yield* Fiber.join(fiber)
        const records = yield* Effect.flatMap(Journal, (journal) => journal.read("tiny")).pipe(inStore(store))
        const state = RunState.fold(records.map(({ record }) => record))
        assert.strictEqual(
          state.verified.some(({ attempt, step }) => attempt === 1 && step === 10),
          survives
        )
        // Else nobody would renew it.
        const expiring = state.verified.filter(({ path, step }) => step !== 12 && state.expires.has(path))
        assert.deepStrictEqual(
          expiring.map(({ step }) => step),
          [5, 10]
        )
        assert.strictEqual(state.saveDead.size, survives ? 0 : 1)
        assert.strictEqual(report.startedAt, survives ? 10 : 5)
        assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, [...Array(12).keys()])
      }).pipe(
        Effect.provideService(RunGuard.RunGuard, Option.none()),
        Effect.provide(world(survives ? "" : "absent@10"))
      )
    )
  }
})
