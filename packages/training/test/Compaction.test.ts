import { assert, describe, it } from "@effect/vitest"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { deepStrictEqual } from "node:assert"
import * as Goodput from "../src/Goodput.ts"
import { Journal } from "../src/Journal.ts"
import { JournalRecord, type Stamped } from "../src/JournalRecord.ts"
import * as RunState from "../src/RunState.ts"
import { attempt, commit, header, history, started, step, verified } from "./fixtures.ts"

const foldAll = (records: ReadonlyArray<Stamped>) => RunState.fold(records.map(({ record }) => record))

const snapshot = (records: ReadonlyArray<JournalRecord>): JournalRecord => {
  let account = Goodput.empty
  for (const [at, record] of records.entries()) account = Goodput.apply(account, 1000 * at, record)
  return { _tag: "Snapshot", state: RunState.save(RunState.fold(records)), account: Goodput.saveAccount(account) }
}

/** The way through the file. */
const throughJson = (record: JournalRecord): JournalRecord => {
  const codec = Schema.toCodecJson(JournalRecord)
  return Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(record))))
}

describe("RP28: compaction", () => {
  it.effect.prop(
    "T3: the fold of a snapshot and what follows is the fold of all, wherever it is cut",
    [Schema.Array(JournalRecord), Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 }))],
    ([random, at]) =>
      Effect.sync(() => {
        const records = [...history, ...random.filter(({ _tag }) => _tag !== "Snapshot").map(throughJson)]
        const cut = Math.min(at, records.length)
        const compacted = [throughJson(snapshot(records.slice(0, cut))), ...records.slice(cut)]
        // a metric may be called toString, over which the other comparison of maps stumbles
        deepStrictEqual(RunState.fold(compacted), RunState.fold(records))
      }),
    { arbitrary: { size: 20, runs: 500 } }
  )

  it("the account of time goes on where the snapshot left it", () => {
    const times = history.map((record, index) => [1000 * index, record] as const)
    const whole = times.reduce((account, [at, record]) => Goodput.apply(account, at, record), Goodput.empty)
    for (let cut = 1; cut < history.length; cut++) {
      const first = Goodput.apply(Goodput.empty, 0, throughJson(snapshot(history.slice(0, cut))))
      const rest = times.slice(cut).reduce((account, [at, record]) => Goodput.apply(account, at, record), first)
      assert.deepStrictEqual(Goodput.of(rest), Goodput.of(whole), `cut at ${cut}`)
    }
  })

  it("a state that looks like a mark stays what it is", () => {
    const userState = { $set: [1, { $map: [] }], deep: { $none: true, $number: "NaN" }, only: { $object: 1 } }
    const records = [header, attempt(1), started(1), { ...step(1, 0, "s1"), userState } as JournalRecord]
    assert.deepStrictEqual(RunState.fold([throughJson(snapshot(records))]), RunState.fold(records))
  })

  const onDisk = <A, E>(
    compactAfter: number,
    body: (directory: string) => Effect.Effect<A, E, Journal | FileSystem.FileSystem>
  ) =>
    Effect.gen(function* () {
      const directory = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped({ prefix: "tinkex compact " })
      return yield* Effect.provide(body(directory), Journal.layerFileSystem(directory, { compactAfter }))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

  const steps = 1200
  const write = Effect.scoped(
    Effect.gen(function* () {
      const open = yield* (yield* Journal).open("run")
      for (const record of [header, attempt(1), started(1)]) yield* open.append(record)
      for (let k = 0; k < steps; k++) {
        const name = (k + 1) % 100 === 0 ? `s${k + 1}` : null
        yield* open.appendLazy(step(1, k, name))
        yield* open.appendLazy(commit(1, k))
        if (name !== null) yield* open.append(verified(1, k + 1, name))
      }
    })
  )

  it.effect("a long journal becomes short when it is opened, keeps its newest records, and goes on in number", () =>
    onDisk(1, (directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const journal = yield* Journal
        yield* write
        const before = yield* journal.read("run")
        const size = (yield* fs.stat(`${directory}/run/journal.log`)).size
        const seen = yield* Effect.scoped(
          Effect.gen(function* () {
            const open = yield* journal.open("run")
            yield* open.append(commit(1, steps))
            return { records: open.records, dead: open.formerOwnerDead, foreign: open.foreign }
          })
        )
        assert.deepStrictEqual(seen.records, before, "who compacts has seen all of it")
        assert.deepStrictEqual([seen.dead, seen.foreign], [true, false])
        const after = yield* journal.read("run")
        assert.strictEqual(after[0]?.record._tag, "Snapshot")
        assert.deepStrictEqual(after.slice(1, 1001), before.slice(-1000))
        const first = after[0]?.n ?? -1
        assert.deepStrictEqual(
          after.map(({ n }) => n),
          after.map((_, index) => first + index)
        )
        assert.isBelow(Number((yield* fs.stat(`${directory}/run/journal.log`)).size), Number(size) / 2)
        assert.strictEqual(foldAll(after).attempts.at(-1)?.committed, steps + 1)
        assert.isFalse(yield* fs.exists(`${directory}/run/journal.log.part`))
        // Once more, by a writer who knows its former owner only from the snapshot.
        yield* write
        const again = yield* Effect.scoped(journal.open("run"))
        assert.deepStrictEqual([again.formerOwnerDead, again.foreign, again.epoch], [true, false, 4])
        assert.strictEqual(foldAll(again.records).highWater, steps + 1)
      })
    )
  )

  it.effect("a short one is left alone", () =>
    onDisk(1 << 20, () =>
      Effect.gen(function* () {
        const journal = yield* Journal
        yield* write
        yield* Effect.scoped(journal.open("run"))
        assert.strictEqual((yield* journal.read("run"))[0]?.record._tag, "Epoch")
      })
    )
  )

  it.effect("what a crash has left of a compaction does not matter", () =>
    onDisk(1, (directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const journal = yield* Journal
        yield* write
        const before = yield* journal.read("run")
        yield* fs.writeFileString(`${directory}/run/journal.log.part`, "0000 half a rec")
        assert.deepStrictEqual(yield* journal.read("run"), before)
        yield* Effect.scoped(journal.open("run"))
        assert.deepStrictEqual(foldAll(yield* journal.read("run")).verified, foldAll(before).verified)
      })
    )
  )

  it.effect("T4: a compacted journal is cut at a torn tail, and refused where its beginning is damaged", () =>
    onDisk(1, (directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const journal = yield* Journal
        const file = `${directory}/run/journal.log`
        yield* write
        yield* Effect.scoped(journal.open("run"))
        const whole = yield* fs.readFile(file)
        const all = yield* journal.read("run")
        yield* fs.writeFile(file, whole.subarray(0, whole.length - 5))
        assert.deepStrictEqual(yield* journal.read("run"), all.slice(0, -1))
        const damaged = Uint8Array.from(whole)
        damaged[40] = (damaged[40] ?? 0) ^ 1
        yield* fs.writeFile(file, damaged)
        const error = yield* Effect.flip(Effect.scoped(journal.open("run")))
        assert.strictEqual(error.reason._tag, "JournalCorrupt")
      })
    )
  )
})
