// What it costs to make one record of a run survive a power loss: an append to the journal, alone and awaited, against writing
// as many bytes to a file and flushing them. Both on the same disk, in turn.
import { closeSync, fdatasync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { NodeServices } from "@effect/platform-node"
import { Effect, Exit, Layer, Scope } from "effect"
import { Journal, type JournalRecord } from "@tinkex/training"
import { type Benches, compare, median, percentile, roundsOf } from "./kit.ts"

const flush = promisify(fdatasync)

/** As a step of a run writes it. */
const record = (step: number): JournalRecord.JournalRecord => ({
  _tag: "Step",
  attempt: 1,
  step,
  ops: [
    { kind: "forward_backward", seqIds: [2 * step + 1], digest: "f".repeat(64) },
    { kind: "optim_step", seqIds: [2 * step + 2], digest: "0".repeat(64) }
  ],
  save: null,
  userState: null
})

const measure = async (appends: number, rounds: number) => {
  const directory = mkdtempSync(join(tmpdir(), "tinkex-bench-"))
  const scope = await Effect.runPromise(Scope.make())
  try {
    const context = await Effect.runPromise(
      Layer.buildWithScope(Journal.layerFileSystem(directory).pipe(Layer.provide(NodeServices.layer)), scope)
    )
    const open = await Effect.runPromise(
      Effect.flatMap(Journal, (journal) => journal.open("bench")).pipe(Effect.provide(context), Scope.provide(scope))
    )
    await Effect.runPromise(open.append(record(0)))
    const line =
      readFileSync(join(directory, "bench", "journal.log"), "latin1")
        .trimEnd()
        .split("\n")
        .at(-1) ?? ""
    const fd = openSync(join(directory, "bare.log"), "a")

    const timed = async (work: (step: number) => Promise<unknown>) => {
      const millis: Array<number> = []
      for (let step = 1; step <= appends; step++) {
        const began = performance.now()
        await work(step)
        millis.push(performance.now() - began)
      }
      return [median(millis), percentile(millis, 0.99)]
    }
    const journal = () =>
      // One program for all, as in a run: what is measured is the append and not the start of a fiber.
      Effect.runPromise(
        Effect.gen(function* () {
          const millis: Array<number> = []
          for (let step = 1; step <= appends; step++) {
            const began = performance.now()
            yield* open.append(record(step))
            millis.push(performance.now() - began)
          }
          return [median(millis), percentile(millis, 0.99)]
        })
      )
    const bare = () =>
      timed((_step) => {
        writeSync(fd, `${line}\n`)
        return flush(fd)
      })
    await journal()
    await bare()
    const results = await compare({
      benches: ["journal-append", "journal-append-p99"],
      unit: "ms an append",
      better: "lower",
      rounds,
      ours: journal,
      peers: [{ name: "a bare write and fdatasync", sample: bare, target: { atMost: 1.5 } }]
    })
    closeSync(fd)
    // The tail belongs to the disk; it is shown and not judged.
    const untold = { target: undefined, met: undefined }
    return results.map((result) => (result.bench === "journal-append" ? result : Object.assign(result, untold)))
  } finally {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    rmSync(directory, { recursive: true, force: true })
  }
}

export const benches: Benches = {
  "journal-append": async (options) => measure(options.quick ? 150 : 500, roundsOf(options))
}
