import { assert, describe, it } from "@effect/vitest"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, FileSystem, Layer } from "effect"
import { Emulator } from "@tinkex/emulator"
import { Journal, type RunReport } from "../src/index.ts"
import { finalState, tiny, type TinyOptions, world } from "./TinyRun.ts"

const upTo = (steps: number) => Array.from({ length: steps }, (_, k) => k)

const inFolder = (directory: string) => Layer.fresh(Journal.layerFileSystem(directory))

/** Stops after so many steps, as a process that is told to end. */
const until = (steps: number, options: TinyOptions = {}) => {
  let committed = 0
  const onEvent = (event: RunReport.TrainerEvent) =>
    event._tag === "StepCommitted" && ++committed === steps ? Effect.interrupt : Effect.void
  return Effect.exit(tiny({ ...options, onEvent }))
}

const folders = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const here = yield* fs.makeTempDirectoryScoped({ prefix: "tinkex fork a " })
  const there = yield* fs.makeTempDirectoryScoped({ prefix: "tinkex fork b " })
  /** As `scp -r` would: what is in the files, and not the files. */
  const copy = fs.readFile(`${here}/tiny/journal.log`).pipe(
    Effect.tap(() => fs.makeDirectory(`${there}/tiny`, { recursive: true })),
    Effect.flatMap((bytes) => fs.writeFile(`${there}/tiny/journal.log`, bytes))
  )
  return { here, there, copy }
})

const test = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  body.pipe(Effect.scoped, Effect.provide([world("", { seed: 4 }), NodeServices.layer]))

describe("RP26: a folder that was moved, and a folder that was copied", () => {
  it.effect("a moved folder goes on where it is, with a new attempt, and ends as it would have", () =>
    test(
      Effect.gen(function* () {
        const { copy, here, there } = yield* folders
        yield* until(7, { capability: "D3" }).pipe(Effect.provide(inFolder(here)))
        yield* copy
        const report = yield* tiny({ capability: "D3" }).pipe(Effect.provide(inFolder(there)))
        assert.strictEqual(
          report.startedAt,
          5,
          "nothing proves that the former owner is dead: no live model is continued"
        )
        assert.strictEqual(report.attempts, 2)
        assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(12))
      })
    )
  )

  it.effect(
    "a copy that is started after the original has gone on is refused, and so is the original after its copy",
    () =>
      test(
        Effect.gen(function* () {
          const { copy, here, there } = yield* folders
          yield* until(6).pipe(Effect.provide(inFolder(here)))
          yield* copy
          yield* until(2).pipe(Effect.provide(inFolder(there)))
          const error = yield* Effect.flip(tiny().pipe(Effect.provide(inFolder(here))))
          if (error._tag !== "TrainingError" || error.reason._tag !== "ForeignJournal")
            return assert.fail(error.message)
          assert.include(error.message, "takeOver")
          const { control } = yield* Emulator
          assert.strictEqual((yield* control.models).length, 2, "nothing was made")
          const goneOn = yield* tiny().pipe(Effect.provide(inFolder(there)))
          assert.strictEqual(goneOn.steps, 12)
          // Whoever insists has a run of its own from there on.
          const taken = yield* tiny({ takeOver: true }).pipe(Effect.provide(inFolder(here)))
          assert.deepStrictEqual((yield* finalState(taken.trainingRunId)).steps, upTo(12))
        })
      )
  )

  it.effect(
    "models that the run itself has made, and such of which it does not know how they ended, are no strangers",
    () =>
      test(
        Effect.gen(function* () {
          const { here } = yield* folders
          for (const steps of [3, 4, 5]) yield* until(steps).pipe(Effect.provide(inFolder(here)))
          const report = yield* tiny().pipe(Effect.provide(inFolder(here)))
          assert.strictEqual(report.steps, 12)
        })
      )
  )
})
