import { assert, describe, it } from "@effect/vitest"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { Journal } from "../src/Journal.ts"

const holdRun = fileURLToPath(new URL("programs/holdRun.ts", import.meta.url))
const contend = fileURLToPath(new URL("programs/contend.ts", import.meta.url))

/** A process of our own, killed when the test ends. */
const spawned = (program: string, ...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--conditions=@tinkex/source", program, ...args], {
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    kill
  )

/** Tries to hold the run; its first line says how that went. */
const contender = (directory: string) => spawned(holdRun, directory, "run")

const firstLine = (child: ChildProcess) =>
  Effect.promise(async () => {
    for await (const chunk of child.stdout ?? []) return String(chunk).trim()
    return "nothing"
  }).pipe(Effect.timeout("30 seconds"))

const kill = (child: ChildProcess) =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, "exit")
    child.kill("SIGKILL")
    await exit
  })

const inDirectory = <A, E>(body: (directory: string) => Effect.Effect<A, E, Journal | FileSystem.FileSystem>) =>
  Effect.gen(function* () {
    const directory = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped({ prefix: "tinkex lease " })
    return yield* body(directory).pipe(Effect.provide(Journal.layerFileSystem(directory)))
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

describe("the lease, between processes", () => {
  it.live(
    "is held by a living process and free at the moment it is killed, with what it wrote (J3)",
    () =>
      inDirectory((directory) =>
        Effect.scoped(
          Effect.gen(function* () {
            const journal = yield* Journal
            const child = yield* contender(directory)
            assert.strictEqual(yield* firstLine(child), "open 1")
            // Twice: a failed try of this process must not loosen the lock of the other.
            for (const _ of [1, 2]) {
              const { reason } = yield* Effect.flip(Effect.scoped(journal.open("run")))
              assert.strictEqual(reason._tag, "LeaseHeld")
              assert.include(reason.message, `process ${child.pid} on `)
            }
            yield* kill(child)
            const open = yield* journal.open("run")
            assert.strictEqual(open.epoch, 2)
            assert.strictEqual(open.formerOwnerDead, process.platform === "linux")
            const tags = open.records.map(({ record }) => record._tag)
            assert.deepStrictEqual(tags.slice(0, 2), ["Epoch", "Step"])
            // And the other way round: a refused try here must not free the run for another process.
            assert.strictEqual((yield* Effect.flip(Effect.scoped(journal.open("run")))).reason._tag, "LeaseHeld")
            assert.strictEqual(yield* firstLine(yield* contender(directory)), "LeaseHeld")
          })
        )
      ),
    60_000
  )

  it.live(
    "goes to exactly one of 16 processes that begin together (J3)",
    () =>
      inDirectory((directory) =>
        Effect.scoped(
          Effect.gen(function* () {
            const children = yield* Effect.forEach(Array.from({ length: 16 }), () => contender(directory))
            const lines = yield* Effect.forEach(children, firstLine, { concurrency: "unbounded" })
            assert.deepStrictEqual(lines.toSorted(), [...Array.from({ length: 15 }, () => "LeaseHeld"), "open 1"])
          })
        )
      ),
    120_000
  )

  it.live(
    "goes to exactly one of several that try at the same instant, never to none (J3)",
    () =>
      inDirectory((directory) =>
        Effect.scoped(
          Effect.gen(function* () {
            const rounds = 400
            const start = Date.now() + 2000
            const rivals = yield* Effect.forEach(Array.from({ length: availableParallelism() }), () =>
              spawned(contend, directory, String(start), String(rounds), "2")
            )
            const lines = yield* Effect.forEach(rivals, firstLine, { concurrency: "unbounded" })
            const won = lines.flatMap((line) => (line === "" ? [] : line.split(" ").map(Number)))
            assert.deepStrictEqual(
              won.toSorted((a, b) => a - b),
              Array.from({ length: rounds }, (_, round) => round)
            )
          })
        )
      ),
    60_000
  )
})
