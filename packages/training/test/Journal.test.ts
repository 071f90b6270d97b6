import { assert, describe, it } from "@effect/vitest"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as PlatformError from "effect/PlatformError"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import { readdirSync } from "node:fs"
import { Journal, type JournalError } from "../src/Journal.ts"
import type { JournalRecord, Stamped } from "../src/JournalRecord.ts"
import { type AppendFile, openAppendFile } from "../src/internal/appendFile.ts"
import { attempt, commit, header, history, step } from "./fixtures.ts"

const records = (stamped: ReadonlyArray<Stamped>) => stamped.map(({ record }) => record)
const withoutEpochs = (stamped: ReadonlyArray<Stamped>) => records(stamped).filter(({ _tag }) => _tag !== "Epoch")

const writeHistory = (run: string, rows: ReadonlyArray<JournalRecord> = history) =>
  Effect.scoped(
    Effect.gen(function* () {
      const open = yield* (yield* Journal).open(run)
      for (const record of rows) yield* open.append(record)
    })
  )

const onDisk = <A, E>(
  body: (directory: string) => Effect.Effect<A, E, Journal | FileSystem.FileSystem | Scope.Scope>,
  wrap: (file: AppendFile) => AppendFile = (file) => file
) =>
  Effect.gen(function* () {
    const directory = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped({ prefix: "tinkex journal " })
    return yield* body(directory).pipe(
      Effect.provide(Journal.layerFileSystem(directory)),
      Effect.updateService(openAppendFile, (open) => (path) => Effect.map(open(path), wrap)),
      Effect.scoped
    )
  }).pipe(Effect.provide(NodeServices.layer))

const reasonOf = <A, R>(effect: Effect.Effect<A, JournalError, R>) => Effect.map(Effect.flip(effect), (e) => e.reason)

const suite = (
  name: string,
  run: <A, E>(
    body: Effect.Effect<A, E, Journal | Scope.Scope>
  ) => Effect.Effect<A, E | PlatformError.PlatformError, Scope.Scope>
) =>
  describe(name, () => {
    it.effect("gives back what was appended, in order, numbered without a gap (J2)", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          yield* writeHistory("run")
          const found = yield* journal.read("run")
          assert.deepStrictEqual(withoutEpochs(found), history)
          assert.deepStrictEqual(
            found.map(({ n }) => n),
            found.map((_, index) => index)
          )
        })
      )
    )

    it.effect("keeps the order of calls between lazy and durable appends of many fibers (J1, J2)", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          const count = 200
          yield* Effect.scoped(
            Effect.gen(function* () {
              const open = yield* journal.open("run")
              yield* Effect.forEach(
                Array.from({ length: count }, (_, i) => i),
                (i) => (i % 3 === 0 ? open.append(commit(1, i)) : open.appendLazy(commit(1, i))),
                { concurrency: "unbounded", discard: true }
              )
            })
          )
          const steps = withoutEpochs(yield* journal.read("run")).flatMap((r) => (r._tag === "Commit" ? [r.step] : []))
          assert.deepStrictEqual(
            steps,
            Array.from({ length: count }, (_, i) => i)
          )
        })
      )
    )

    it.effect("stamps with the clock and counts writers", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          yield* TestClock.setTime(1_000_000)
          yield* writeHistory("run", [header])
          const second = yield* Effect.scoped(
            Effect.map(journal.open("run"), ({ epoch, records }) => ({ epoch, records }))
          )
          assert.strictEqual(second.epoch, 2)
          assert.deepStrictEqual(
            records(second.records).map((r) => r._tag),
            ["Epoch", "Run"]
          )
          assert.strictEqual(second.records[1]?.t.epochMilliseconds, 1_000_000)
          assert.deepStrictEqual(
            (yield* journal.read("run")).map(({ epoch }) => epoch),
            [1, 1, 2]
          )
        })
      )
    )

    it.effect("lets one of 16 contenders have the run, and the next one once it is closed (J3)", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          const winner = yield* Scope.make()
          const exits = yield* Effect.forEach(
            Array.from({ length: 16 }, (_, i) => i),
            () => Effect.exit(journal.open("run").pipe(Scope.provide(winner))),
            { concurrency: "unbounded" }
          )
          assert.strictEqual(exits.filter(Exit.isSuccess).length, 1)
          const refused = yield* reasonOf(Effect.scoped(journal.open("run")))
          assert.strictEqual(refused._tag, "LeaseHeld")
          assert.include(refused.message, `process ${process.pid} on `)
          yield* Scope.close(winner, Exit.void)
          const next = yield* Effect.scoped(journal.open("run"))
          assert.strictEqual(next.epoch, 2)
          assert.isTrue(next.formerOwnerDead)
        })
      )
    )

    it.effect("gives the run up when the program that had it fails or is interrupted (RP25)", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          yield* Effect.exit(Effect.scoped(Effect.andThen(journal.open("run"), Effect.die("bug"))))
          const fiber = yield* Effect.forkChild(Effect.scoped(Effect.andThen(journal.open("run"), Effect.never)))
          yield* Effect.yieldNow
          yield* Fiber.interrupt(fiber)
          assert.isAtLeast((yield* Effect.scoped(journal.open("run"))).epoch, 2)
        })
      )
    )

    it.effect("refuses a writer whose scope is closed (J4)", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          const stale = yield* Effect.scoped(journal.open("run"))
          yield* writeHistory("run", [header])
          const before = yield* journal.read("run")
          assert.strictEqual((yield* reasonOf(stale.append(attempt(1))))._tag, "Fenced")
          assert.strictEqual((yield* reasonOf(stale.appendLazy(attempt(1))))._tag, "Fenced")
          assert.deepStrictEqual(yield* journal.read("run"), before)
        })
      )
    )

    it.effect("refuses names that could leave the directory, naming them", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          for (const name of ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a b", "é", "a\n", "x".repeat(121)]) {
            const reason = yield* reasonOf(Effect.scoped(journal.open(name)))
            assert.strictEqual(reason._tag, "InvalidOption", JSON.stringify(name))
            assert.strictEqual((yield* reasonOf(journal.read(name)))._tag, "InvalidOption")
          }
          yield* writeHistory("A-z_0.9" + "x".repeat(113), [header])
        })
      )
    )

    it.effect("lists the runs and says which there are when asked for another", () =>
      run(
        Effect.gen(function* () {
          const journal = yield* Journal
          assert.deepStrictEqual(yield* journal.list, [])
          yield* writeHistory("b", [header])
          yield* writeHistory("a", [header])
          assert.deepStrictEqual(yield* journal.list, ["a", "b"])
          const reason = yield* reasonOf(journal.read("c"))
          assert.strictEqual(reason._tag, "RunNotFound")
          assert.include(reason.message, "There is: a, b.")
        })
      )
    )
  })

suite("Journal.layerMemory", (body) => Effect.provide(body, Journal.layerMemory, { local: true }))
suite("Journal.layerFileSystem", (body) => onDisk(() => body))

describe("Journal on disk", () => {
  const fileOf = (directory: string) => `${directory}/run/journal.log`

  it.effect("is made of lines that a person can read", () =>
    onDisk((directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        yield* writeHistory("run", [header, step(1, 0)])
        const lines = (yield* fs.readFileString(fileOf(directory))).trimEnd().split("\n")
        assert.strictEqual(lines.length, 3)
        for (const line of lines) assert.match(line, /^[0-9a-f]{8} \d+ \{"v":1,"n":\d,"epoch":1,"t":"1970-01-01T/)
      })
    )
  )

  it.effect(
    "cut at any byte, opens with the records that were whole, and goes on from there (J6)",
    () =>
      onDisk((directory) =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const journal = yield* Journal
          yield* writeHistory("run", history.slice(9, 12))
          const whole = yield* fs.readFile(fileOf(directory))
          const all = yield* journal.read("run")
          for (let length = 0; length <= whole.length; length++) {
            yield* fs.writeFile(fileOf(directory), whole.subarray(0, length))
            const lines = whole.subarray(0, length).filter((byte) => byte === 10).length
            assert.deepStrictEqual(yield* journal.read("run"), all.slice(0, lines), `read, cut at ${length}`)
            const open = yield* Effect.scoped(
              Effect.tap(journal.open("run"), (open) => open.append({ _tag: "Paused", cause: "test" }))
            )
            assert.deepStrictEqual(open.records, all.slice(0, lines), `opened, cut at ${length}`)
            const after = yield* journal.read("run")
            assert.deepStrictEqual(
              after.map(({ n }) => n),
              after.map((_, index) => index)
            )
            assert.strictEqual(after.length, lines + 2)
          }
        })
      ),
    60_000
  )

  it.effect("cuts a tail of zeros, of noise, or of a record that was written twice (J6)", () =>
    onDisk((directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const journal = yield* Journal
        yield* writeHistory("run")
        const whole = yield* fs.readFile(fileOf(directory))
        const all = yield* journal.read("run")
        const last = whole.subarray(whole.lastIndexOf(10, whole.length - 2) + 1)
        const zeroed = Uint8Array.from(whole).fill(0, whole.length - last.length + 30)
        const tails: ReadonlyArray<readonly [string, Uint8Array, number]> = [
          ["zeros", Buffer.concat([whole, new Uint8Array(4096)]), all.length],
          ["noise", Buffer.concat([whole, Buffer.from("deadbeef 4 ab\n{}\n\n")]), all.length],
          ["twice", Buffer.concat([whole, last]), all.length],
          ["twice, two of them", Buffer.concat([whole, last, last]), all.length],
          ["zero-filled last record", zeroed, all.length - 1]
        ]
        for (const [name, bytes, kept] of tails) {
          yield* fs.writeFile(fileOf(directory), bytes)
          assert.deepStrictEqual((yield* Effect.scoped(journal.open("run"))).records, all.slice(0, kept), name)
          const { size } = yield* fs.stat(fileOf(directory))
          assert.isBelow(Number(size), whole.length + 300, `${name} is gone from the file`)
        }
      })
    )
  )

  it.effect(
    "stops at damage in the middle, wherever it is, and changes nothing (J6)",
    () =>
      onDisk((directory) =>
        Effect.gen(function* () {
          const fs = yield* FileSystem.FileSystem
          const journal = yield* Journal
          yield* writeHistory("run")
          const whole = yield* fs.readFile(fileOf(directory))
          const lastLine = whole.lastIndexOf(10, whole.length - 2) + 1
          for (let at = 0; at < lastLine; at += 23) {
            const damaged = Uint8Array.from(whole)
            damaged[at] = (damaged[at] ?? 0) ^ 0x20
            yield* fs.writeFile(fileOf(directory), damaged)
            const reason = yield* reasonOf(Effect.scoped(journal.open("run")))
            if (reason._tag !== "JournalCorrupt") return assert.fail(`byte ${at}: ${reason.message}`)
            const line = whole.subarray(0, at).filter((byte) => byte === 10).length
            assert.strictEqual(reason.record, line)
            assert.strictEqual(reason.offset, line === 0 ? 0 : whole.lastIndexOf(10, at - 1) + 1)
            assert.strictEqual((yield* reasonOf(journal.read("run")))._tag, "JournalCorrupt")
            assert.deepStrictEqual(yield* fs.readFile(fileOf(directory)), Buffer.from(damaged))
          }
        })
      ),
    60_000
  )

  it.effect("stops where a record is missing, and where a newer version has written", () =>
    onDisk((directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const journal = yield* Journal
        yield* writeHistory("run")
        const lines = (yield* fs.readFileString(fileOf(directory))).split("\n")
        yield* fs.writeFileString(fileOf(directory), lines.toSpliced(5, 1).join("\n"))
        const gap = yield* reasonOf(Effect.scoped(journal.open("run")))
        assert.include(gap.message, "record 6 stands in its place")
        const json = `{"v":2,"n":1,"epoch":1,"t":"2026-01-01T00:00:00.000Z","record":{"_tag":"Later"}}`
        const { crc32 } = yield* Effect.promise(() => import("node:zlib"))
        yield* fs.writeFileString(
          fileOf(directory),
          `${lines[0]}\n${crc32(json).toString(16).padStart(8, "0")} ${json.length} ${json}\n`
        )
        const newer = yield* reasonOf(Effect.scoped(journal.open("run")))
        assert.strictEqual(newer._tag, "JournalCorrupt")
        assert.include(newer.message, "newer version")
      })
    )
  )

  it.effect("is refused where somebody has written past the lease (J4)", () =>
    onDisk((directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const journal = yield* Journal
        const open = yield* journal.open("run")
        yield* open.append(header)
        yield* fs.writeFileString(fileOf(directory), "intruder\n", { flag: "a" })
        const before = yield* fs.readFile(fileOf(directory))
        assert.strictEqual((yield* reasonOf(open.append(attempt(1))))._tag, "Fenced")
        assert.strictEqual((yield* reasonOf(open.append(attempt(1))))._tag, "Fenced")
        assert.deepStrictEqual(yield* fs.readFile(fileOf(directory)), before)
      })
    )
  )

  it.effect("shares one flush between appends that wait together (J1)", () => {
    let syncs = 0
    return onDisk(
      () =>
        Effect.gen(function* () {
          const open = yield* (yield* Journal).open("run")
          const before = syncs
          yield* Effect.forEach(
            Array.from({ length: 100 }, (_, i) => i),
            (i) => open.append(commit(1, i)),
            { concurrency: "unbounded", discard: true }
          )
          assert.isAtLeast(syncs - before, 1)
          assert.isAtMost(syncs - before, 3)
        }),
      (file) => ({ ...file, sync: Effect.suspend(() => (syncs++, file.sync)) })
    )
  })

  it.effect("writes lazy records with the next durable one, in their order, or at the end", () => {
    let syncs = 0
    return onDisk(
      () =>
        Effect.gen(function* () {
          const journal = yield* Journal
          const scope = yield* Scope.make()
          const open = yield* journal.open("run").pipe(Scope.provide(scope))
          const before = syncs
          for (let i = 0; i < 5; i++) yield* open.appendLazy(commit(1, i))
          assert.strictEqual((yield* journal.read("run")).length, 1)
          yield* open.append(attempt(2))
          assert.strictEqual(syncs, before + 1)
          const tags = (yield* journal.read("run")).map(({ record }) => record._tag)
          assert.deepStrictEqual(tags, ["Epoch", ...Array<string>(5).fill("Commit"), "Attempt"])
          yield* open.appendLazy(commit(2, 0))
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual(syncs, before + 2)
          assert.strictEqual((yield* journal.read("run")).length, 8)
        }),
      (file) => ({ ...file, sync: Effect.suspend(() => (syncs++, file.sync)) })
    )
  })

  for (const operation of ["sync", "write"] as const) {
    it.effect(`after a failed ${operation} refuses every later append in the same way and flushes no more (J5)`, () => {
      let broken = false
      let calls = 0
      const failing = Effect.suspend(() => {
        calls++
        return Effect.fail(new Error("ENOSPC: no space left on device"))
      })
      return onDisk(
        () =>
          Effect.gen(function* () {
            const journal = yield* Journal
            const scope = yield* Scope.make()
            const open = yield* journal.open("run").pipe(Scope.provide(scope))
            broken = true
            const exits = yield* Effect.forEach([1, 2, 3], (n) => Effect.flip(open.append(attempt(n))), {
              concurrency: "unbounded"
            })
            broken = false
            const later = yield* Effect.flip(open.append(attempt(4)))
            const lazily = yield* Effect.flip(open.appendLazy(attempt(4)))
            for (const error of [...exits, later, lazily]) {
              assert.strictEqual(error.reason._tag, "JournalUnwritable")
              assert.strictEqual(error.message, later.message)
              assert.isFalse(error.isRetryable)
            }
            assert.include(later.message, "no space left")
            assert.strictEqual(calls, 1)
            yield* Scope.close(scope, Exit.void)
            const written = withoutEpochs(yield* journal.read("run"))
            assert.deepStrictEqual(written, operation === "sync" ? [attempt(1)] : [], "nothing after the failure")
          }),
        (file) => ({
          ...file,
          sync: Effect.suspend(() => (broken && operation === "sync" ? failing : file.sync)),
          write: (text) => (broken && operation === "write" ? failing : file.write(text))
        })
      )
    })
  }

  it.effect("writes an accepted append even if its caller is interrupted", () =>
    onDisk(() =>
      Effect.gen(function* () {
        const journal = yield* Journal
        yield* Effect.scoped(
          Effect.gen(function* () {
            const open = yield* journal.open("run")
            const fiber = yield* Effect.forkChild(open.append(header), { startImmediately: true })
            yield* Fiber.interrupt(fiber)
          })
        )
        assert.deepStrictEqual(withoutEpochs(yield* journal.read("run")), [header])
      })
    )
  )

  it.effect("takes a copied folder, or one of another boot, as no proof that its owner is dead (RP22)", () =>
    onDisk((directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const journal = yield* Journal
        yield* writeHistory("run", [header])
        yield* fs.copy(`${directory}/run`, `${directory}/copy`)
        assert.isFalse((yield* Effect.scoped(journal.open("copy"))).formerOwnerDead)
        assert.isTrue((yield* Effect.scoped(journal.open("run"))).formerOwnerDead)
      })
    )
  )

  it.effect.skipIf(process.platform !== "linux")("keeps no file open for a refused try", () =>
    onDisk(() =>
      Effect.gen(function* () {
        const journal = yield* Journal
        yield* journal.open("run")
        const before = readdirSync("/proc/self/fd").length
        for (let i = 0; i < 50; i++) yield* Effect.flip(Effect.scoped(journal.open("run")))
        assert.isBelow(readdirSync("/proc/self/fd").length, before + 25)
      })
    )
  )

  it.effect("says where it cannot write", () =>
    onDisk((directory) =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        yield* fs.writeFileString(`${directory}/run`, "a file where the folder should be")
        const reason = yield* reasonOf(Effect.scoped(Effect.flatMap(Journal, (journal) => journal.open("run"))))
        assert.strictEqual(reason._tag, "JournalUnwritable")
        assert.include(reason.message, `${directory}/run`)
      })
    )
  )
})
