import { assert, describe, it } from "@effect/vitest"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, FileSystem, Option } from "effect"
import { Emulator } from "@tinkex/emulator"
import { CheckpointPolicy, Checkpoints, Journal } from "../src/index.ts"
import { memory, tiny, world } from "./TinyRun.ts"

const quality = new Map([
  [3, 0.5],
  [6, 0.2],
  [9, 0.9],
  [12, 0.8]
])

const trained = (policy = CheckpointPolicy.everySteps(3, { keepLast: 10 })) =>
  tiny({
    steps: 12,
    checkpoints: policy,
    horizon: 0,
    evaluate: { every: 3, run: ({ step }) => Effect.succeed({ quality: quality.get(step) ?? 1 }) }
  })

const stepsOf = (checkpoints: ReadonlyArray<Checkpoints.RunCheckpoint>) => checkpoints.map(({ step }) => step)

describe("Checkpoints", () => {
  it.effect("R63: knows the best by any metric in either direction", () =>
    Effect.gen(function* () {
      yield* trained()
      const best = (options: Checkpoints.BestOptions) =>
        Effect.map(Checkpoints.best("tiny", options), (found) => Option.getOrUndefined(found)?.step)
      assert.strictEqual(yield* best({ metric: "quality" }), 6)
      assert.strictEqual(yield* best({ metric: "quality", mode: "max" }), 9)
      assert.strictEqual(yield* best({ metric: "nobody measured this" }), undefined)
      const loss = (yield* Checkpoints.list("tiny")).map(({ metrics, step }) => [metrics["loss:sum"], step] as const)
      assert.strictEqual(yield* best({}), loss.toSorted((a, b) => (a[0] ?? 0) - (b[0] ?? 0))[0]?.[1])
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("a pinned checkpoint is not deleted by the run, and loses its time to live; an unpinned one is", () =>
    Effect.gen(function* () {
      const policy = CheckpointPolicy.everySteps(3, { keepLast: 1, ttl: "2 hours" })
      let committed = 0
      yield* Effect.exit(
        tiny({
          steps: 12,
          checkpoints: policy,
          horizon: 0,
          capability: "D3",
          onEvent: (event) => (event._tag === "StepCommitted" && ++committed === 5 ? Effect.interrupt : Effect.void)
        })
      )
      const [first] = yield* Checkpoints.list("tiny")
      if (first === undefined) return assert.fail("nothing was saved")
      yield* Checkpoints.pin("tiny", first.path)
      yield* tiny({ steps: 12, checkpoints: policy, horizon: 0, capability: "D3" })
      const usable = (yield* Checkpoints.list("tiny")).filter(({ unusable }) => unusable === undefined)
      assert.includeMembers(stepsOf(usable), [3, 12])
      assert.notInclude(stepsOf(usable), 6)
      assert.isTrue(usable.find(({ step }) => step === 3)?.pinned)
      yield* Checkpoints.unpin("tiny", first.path)
      assert.isFalse((yield* Checkpoints.list("tiny"))[0]?.pinned)
      const { control } = yield* Emulator
      const ttl = (yield* control.requests).filter(({ endpoint }) => endpoint.includes("ttl"))
      assert.strictEqual(ttl.length, 1)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("CH2: what is not there cannot be pinned, and neither can anything of a run that goes on", () =>
    Effect.gen(function* () {
      yield* trained()
      const error = yield* Effect.flip(Checkpoints.pin("tiny", "tinkex://nowhere"))
      assert.strictEqual(error.reason._tag, "InvalidOption")
      const [first] = yield* Checkpoints.list("tiny")
      const held = yield* Effect.scoped(
        Effect.andThen(
          Effect.flatMap(Journal, (journal) => journal.open("tiny")),
          Effect.flip(Checkpoints.pin("tiny", first?.path ?? ""))
        )
      )
      assert.strictEqual(held.reason._tag, "LeaseHeld")
      const nobody = yield* Effect.flip(Checkpoints.list("nobody"))
      assert.strictEqual(nobody.reason._tag, "RunNotFound")
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.live("R56: brings the best here as a folder that was checked", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const parent = yield* fs.makeTempDirectoryScoped({ prefix: "tinkex export " })
      yield* trained()
      const { checkpoint, contents } = yield* Checkpoints.exportBest("tiny", `${parent}/best`, { metric: "quality" })
      assert.strictEqual(checkpoint.step, 6)
      assert.strictEqual(contents.rank, 2)
      assert.isAbove(contents.tensors.size, 0)
      assert.isTrue(yield* fs.exists(`${parent}/best/adapter_model.safetensors`))
      const again = yield* Effect.flip(Checkpoints.exportBest("tiny", `${parent}/best`, { metric: "quality" }))
      assert.include(again.message, "is there already")
      const none = yield* Effect.flip(Checkpoints.exportBest("tiny", `${parent}/other`, { metric: "nothing" }))
      assert.strictEqual(none.reason._tag, "NoCheckpoint")
      assert.include(none.message, "nothing was not measured")
    }).pipe(Effect.scoped, Effect.provide([world(""), memory, NodeServices.layer]))
  )
})
