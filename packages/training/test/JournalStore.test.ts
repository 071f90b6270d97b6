import { assert, describe, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import { Journal } from "../src/Journal.ts"
import * as JournalStore from "../src/JournalStore.ts"
import * as RunState from "../src/RunState.ts"
import * as SeededRandom from "../src/SeededRandom.ts"
import { commit, header } from "./fixtures.ts"

const seeds = 60
const contenders = 16

describe("T7: sixteen contenders, leases that end by time, owners that wake up again", () => {
  it.effect(`no record of a lower epoch after a higher one, and one end (RP20, RP21, RP25): ${seeds} seeds`, () =>
    Effect.gen(function* () {
      let fenced = 0
      for (let seed = 1; seed <= seeds; seed++) {
        const store = JournalStore.memory()
        const random = SeededRandom.make(seed, 0)
        /** Works for a while, sleeps for a while, and ends the run if nobody has. */
        const contender = (n: number) =>
          Effect.gen(function* () {
            const naps = Array.from({ length: 40 }, () => random.int(30))
            yield* Effect.sleep(naps[0] ?? 0)
            for (let tries = 0; tries < 200; tries++) {
              const exit = yield* Effect.exit(
                Effect.scoped(
                  Effect.gen(function* () {
                    const open = yield* (yield* Journal).open("run")
                    const state = RunState.fold(open.records.map(({ record }) => record))
                    if (state.terminal !== undefined) return true
                    if (state.run === undefined) yield* open.append(header)
                    for (let k = 0; k < 10; k++) {
                      yield* Effect.sleep(naps[(tries + k) % naps.length] ?? 1)
                      yield* open.append(commit(n, k))
                    }
                    yield* open.append({ _tag: "Completed", path: null, step: 3, metrics: {} })
                    return true
                  })
                )
              )
              if (Exit.isSuccess(exit)) return
              if (String(exit.cause).includes("may not write any more")) fenced++
              yield* Effect.sleep(1 + (naps[tries % naps.length] ?? 0))
            }
          })
        const fibers = yield* Effect.forEach(
          Array.from({ length: contenders }, (_, n) => n + 1),
          (n) => Effect.forkChild(contender(n))
        ).pipe(Effect.provide(Journal.layerStore(store), { local: true }))
        for (let tick = 0; tick < 300; tick++) {
          if (random.int(4) === 0) store.expire("run")
          yield* TestClock.adjust(random.int(12))
        }
        yield* TestClock.adjust("1 hour")
        yield* Effect.forEach(fibers, Fiber.join)
        const records = yield* Effect.flatMap(Journal, (journal) => journal.read("run")).pipe(
          Effect.provide(Journal.layerStore(store), { local: true })
        )
        const told = `seed ${seed}`
        for (const [index, { epoch, n }] of records.entries()) {
          assert.strictEqual(n, index, told)
          assert.isAtLeast(epoch, records[index - 1]?.epoch ?? 0, told)
        }
        assert.strictEqual(records.filter(({ record }) => record._tag === "Run").length, 1, told)
        const ends = records.filter(({ record }) => record._tag === "Completed")
        assert.strictEqual(ends.length, 1, told)
      }
      assert.isAbove(fenced, 2 * seeds, "the scenarios have zombies in them")
    })
  )

  it.effect("a lease that merely ran out proves nothing of its owner (RP22)", () =>
    Effect.gen(function* () {
      const store = JournalStore.memory()
      const journal = yield* Effect.provide(Journal, Journal.layerStore(store), { local: true })
      const first = yield* Scope.make()
      const old = yield* journal.open("run").pipe(Scope.provide(first))
      store.expire("run")
      const next = yield* journal.open("run")
      assert.isFalse(next.formerOwnerDead)
      const error = yield* Effect.flip(old.append(commit(1, 0)))
      assert.strictEqual(error.reason._tag, "Fenced")
      // It takes nothing away from the one who has the run now when it goes.
      yield* Scope.close(first, Exit.void)
      yield* next.append(commit(1, 0))
      assert.strictEqual(Exit.isFailure(yield* Effect.exit(Effect.scoped(journal.open("run")))), true)
    }).pipe(Effect.scoped)
  )

  it.effect("an append that is not the next one in number writes nothing (ST2)", () =>
    Effect.gen(function* () {
      const store = JournalStore.memory()
      const { epoch } = yield* store.acquire("run", { host: "a", bootId: null, pid: 1, file: null })
      const journal = yield* Effect.provide(Journal, Journal.layerStore(store), { local: true })
      const at = (n: number) => ({ n, epoch, t: DateTime.makeUnsafe(0), record: header })
      yield* store.append("run", epoch, [at(0)])
      for (const n of [0, 2]) assert.isTrue(Exit.isFailure(yield* Effect.exit(store.append("run", epoch, [at(n)]))))
      assert.strictEqual((yield* journal.read("run")).length, 1)
      // The next number does not help a writer whose time is over.
      store.expire("run")
      yield* store.acquire("run", { host: "b", bootId: null, pid: 2, file: null })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(store.append("run", epoch, [at(1)]))))
    })
  )
})
