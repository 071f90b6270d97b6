import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option } from "effect"
import { Emulator } from "@tinkex/emulator"
import { RestClient } from "@tinkex/tinker"
import { CheckpointSelector, Restore } from "../src/index.ts"
import { data, memory, tiny, world } from "./TinyRun.ts"

const shape = {
  baseModel: "tiny/byte-lm-16",
  rank: 2,
  seed: 0,
  trainMlp: true,
  trainAttn: true,
  trainUnembed: true
}

const saved = Effect.gen(function* () {
  const report = yield* tiny({ steps: 10, rehearse: false })
  return { report, runId: report.trainingRunId, path: report.path }
})

describe("Restore", () => {
  it.effect("loads a checkpoint into a fresh model, optimizer included", () =>
    Effect.gen(function* () {
      const { path, runId } = yield* saved
      const { control } = yield* Emulator
      const client = yield* Restore.fromCheckpoint(path, { optimizer: true, expected: shape })
      assert.notStrictEqual(client.modelId, runId)
      assert.strictEqual(yield* control.stateHash(client.modelId), yield* control.stateHash(runId))
      assert.strictEqual(yield* client.nextSeq, 2)
    }).pipe(Effect.scoped, Effect.provide([world(""), memory]))
  )

  it.effect("RS3: refuses a checkpoint of another shape before it makes a model", () =>
    Effect.gen(function* () {
      const { path } = yield* saved
      const { control } = yield* Emulator
      const before = (yield* control.models).length
      for (const [expected, text] of [
        [{ ...shape, rank: 4 }, "it has rank 2, the run 4"],
        [{ ...shape, baseModel: "tiny/byte-lm-32" }, "of base model tiny/byte-lm-16"],
        [{ ...shape, trainMlp: false }, "it trains the MLP, the run does not"]
      ] as const) {
        const error = yield* Effect.flip(Restore.fromCheckpoint(path, { optimizer: true, expected }))
        assert.strictEqual(error._tag, "CheckpointRefused")
        assert.include(error.message, text)
      }
      assert.strictEqual((yield* control.models).length, before)
    }).pipe(Effect.scoped, Effect.provide([world(""), memory]))
  )

  it.effect("RS4, RS5: a checkpoint that poisons whoever loads it is refused, and its model is not kept", () =>
    Effect.gen(function* () {
      const { path } = yield* saved
      const { control } = yield* Emulator
      const error = yield* Effect.flip(Restore.fromCheckpoint(path, { optimizer: true, expected: shape }))
      assert.strictEqual(error._tag, "CheckpointRefused")
      const left = (yield* control.models).filter(({ status }) => status === "loaded")
      assert.strictEqual(left.length, 1)
    }).pipe(Effect.scoped, Effect.provide([world("poison-load@10"), memory]))
  )

  it.effect("RS4: a checkpoint that is gone is refused", () =>
    Effect.gen(function* () {
      const { path } = yield* saved
      const rest = yield* RestClient
      yield* rest.deleteCheckpoint(path)
      const error = yield* Effect.flip(Restore.fromCheckpoint(path, { optimizer: true }))
      assert.strictEqual(error._tag, "CheckpointRefused")
    }).pipe(Effect.scoped, Effect.provide([world(""), memory]))
  )

  it.effect("prove passes a good checkpoint, refuses a bad one, and leaves no model behind", () =>
    Effect.gen(function* () {
      const { path, runId } = yield* saved
      const { control } = yield* Emulator
      const probe = yield* (yield* data(10)).batch(0)
      yield* Restore.prove(path, { expected: shape, probe })
      const older = path.replace(/-s10-final$/, "-s5-auto")
      const error = yield* Effect.flip(Restore.prove(older, { expected: shape, probe }))
      assert.strictEqual(error._tag, "CheckpointRefused")
      const left = (yield* control.models).filter(({ status }) => status === "loaded")
      assert.deepStrictEqual(
        left.map(({ modelId }) => modelId),
        [runId]
      )
    }).pipe(Effect.provide([world("truncate@5"), memory]))
  )

  it.effect("RS1: a plan from the server's list reads and never writes", () =>
    Effect.gen(function* () {
      const { runId } = yield* saved
      const { control } = yield* Emulator
      const before = (yield* control.requests).length
      const candidates = yield* Restore.candidates(runId, ({ checkpointId }) =>
        Option.map(Option.fromNullishOr(/-s(\d+)-/.exec(checkpointId)?.[1]), Number)
      )
      const plan = Restore.plan({
        run: runId,
        trainingRunId: Option.some(runId),
        incident: Option.none(),
        candidates,
        quarantined: new Map(),
        strategy: CheckpointSelector.latest,
        committed: 12,
        baseAllowed: false,
        now: yield* DateTime.now
      })
      assert.deepStrictEqual(plan.replay, Option.some({ from: 10, to: 12 }))
      assert.strictEqual(plan.fallbacks.length, 1)
      const made = (yield* control.requests).slice(before)
      assert.deepStrictEqual(
        made.map(({ endpoint }) => endpoint),
        ["run_checkpoints"]
      )
    }).pipe(Effect.provide([world(""), memory]))
  )
})
