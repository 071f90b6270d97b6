import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Layer, Option, Schema } from "effect"
import { Emulator } from "@tinkex/emulator"
import {
  CheckpointPolicy,
  Journal,
  RunGuard,
  type RunReport,
  RunState,
  type StepClient,
  Trainer
} from "../src/index.ts"
import { tinyLoop } from "./TinyLoop.ts"
import { data, finalState, memory, tiny, world } from "./TinyRun.ts"

const upTo = (steps: number) => Array.from({ length: steps }, (_, k) => k)

const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}
const guarded = Effect.provideService(RunGuard.RunGuard, Option.some(eager))

const stateOf = (name: string) =>
  Effect.flatMap(Journal, (journal) => journal.read(name)).pipe(
    Effect.map((records) => RunState.fold(records.map(({ record }) => record)))
  )

describe("Trainer.loop", () => {
  it.effect("takes every step once, in order, and hands the state from one to the next", () =>
    Effect.gen(function* () {
      const gathered: Array<number> = []
      const committed: Array<number> = []
      const report = yield* tinyLoop({
        onRollouts: (step) => void gathered.push(step),
        onEvent: (event) =>
          Effect.sync(() => {
            if (event._tag === "StepCommitted") committed.push(event.metrics["seen"] ?? 0)
          })
      })
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(10))
      assert.deepStrictEqual(gathered, upTo(10))
      assert.deepStrictEqual(
        committed,
        upTo(10).map((step) => 3 * (step + 1))
      )
      assert.strictEqual(report.steps, 10)
      assert.match(report.path, /-s10-final$/)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect(
    "P1, P2, RP29: poisoned at any step, it ends in the same state, and what it had gathered was gathered once",
    () =>
      Effect.gen(function* () {
        const run = (spec: string) =>
          Effect.gen(function* () {
            const gathered: Array<number> = []
            const report = yield* guarded(tinyLoop({ onRollouts: (step) => void gathered.push(step) }))
            return { gathered, incidents: report.incidents.length, state: yield* finalState(report.trainingRunId) }
          }).pipe(Effect.provide([world(spec, { seed: 5 }), memory]))
        const calm = yield* run("")
        for (let at = 0; at < 10; at++) {
          const { gathered, incidents, state } = yield* run(`corrupt@${at}`)
          assert.strictEqual(incidents, 1, `poisoned at ${at}`)
          assert.deepStrictEqual(state, calm.state, `poisoned at ${at}`)
          assert.deepStrictEqual(gathered, upTo(10), `poisoned at ${at}`)
        }
      }),
    60_000
  )

  it.effect("the state of the loop comes back with the checkpoint, in another process too", () =>
    Effect.gen(function* () {
      const failed = yield* Effect.flip(tinyLoop())
      assert.strictEqual(failed._tag === "TrainingError" ? failed.reason._tag : "", "RunFailed")
      const seen: Array<number> = []
      const report = yield* tinyLoop({
        onEvent: (event) =>
          Effect.sync(() => {
            if (event._tag === "StepCommitted") seen.push(event.metrics["seen"] ?? 0)
          })
      })
      assert.strictEqual(report.startedAt, 4)
      assert.deepStrictEqual(
        seen,
        upTo(10)
          .slice(4)
          .map((step) => 3 * (step + 1))
      )
    }).pipe(Effect.provide([world("corrupt@6"), memory]))
  )

  it.effect("what was gathered is given up once no restore can come back to it", () =>
    Effect.gen(function* () {
      yield* tinyLoop({ checkpoints: CheckpointPolicy.everySteps(2, { keepLast: 1 }), horizon: 0 })
      const state = yield* stateOf("tiny-rl")
      assert.isAtMost(state.spooled.size, 2)
      assert.isAbove(state.deleted.size, 0)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("a step may await its results, decide by them, and train several times", () =>
    Effect.gen(function* () {
      const dataset = yield* data(6)
      const seen: Array<number> = []
      const loop = Trainer.loop({
        name: "awaiting",
        model: { baseModel: "tiny/byte-lm-16", rank: 2 },
        checkpoints: CheckpointPolicy.everySteps(2),
        until: 6,
        state: Schema.Null,
        initial: null,
        step: ({ client, step }) =>
          Effect.gen(function* () {
            const batch = yield* dataset.batch(step)
            const before = yield* client.forward(batch, { loss: "cross_entropy" })
            const loss = (yield* before.result).metrics["loss:sum"] ?? 0
            seen.push(loss)
            yield* client.forwardBackward(batch, { loss: "cross_entropy" })
            if (step % 2 === 0) yield* client.forwardBackward(batch, { loss: "cross_entropy" })
            yield* client.optimStep({ learningRate: loss > 1 ? 0.05 : 0.01 })
            return { state: null, metrics: { before: loss } }
          })
      })
      const report = yield* guarded(loop)
      assert.strictEqual(report.incidents.length, 1)
      const { steps } = yield* finalState(report.trainingRunId)
      assert.deepStrictEqual(steps, upTo(6))
      assert.strictEqual(report.last["before"], seen.at(-1))
      // Sums of several passes are added up: forward, and in even steps two passes more.
      assert.closeTo(report.last["loss:sum"] ?? 0, 2 * (seen.at(-1) ?? 0), 1e-3)
    }).pipe(Effect.provide([world("corrupt@3"), memory]))
  )

  it.effect("an error of the step ends the run as it is; running it again goes on", () =>
    Effect.gen(function* () {
      class NoSuchTool extends Data.TaggedError("NoSuchTool")<{ readonly step: number }> {}
      const dataset = yield* data(6)
      const loop = (broken: boolean) =>
        Trainer.loop({
          name: "tools",
          model: { baseModel: "tiny/byte-lm-16", rank: 2 },
          checkpoints: CheckpointPolicy.everySteps(2),
          until: 6,
          state: Schema.Int,
          initial: 0,
          step: ({ client, state, step }) =>
            Effect.gen(function* () {
              if (broken && step === 3) return yield* new NoSuchTool({ step })
              yield* client.forwardBackward(yield* dataset.batch(step), { loss: "cross_entropy" })
              yield* client.optimStep({ learningRate: 0.05 })
              return { state: state + 1, metrics: { state } }
            })
        })
      const error = yield* Effect.flip(loop(true))
      assert.strictEqual(error._tag, "NoSuchTool")
      const report = yield* loop(false)
      assert.strictEqual(report.startedAt, 3, "the steps before it were brought to their end")
      assert.strictEqual(report.last["state"], 5)
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(6))
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("SC3: the client of a step works only while the step runs", () =>
    Effect.gen(function* () {
      const dataset = yield* data(3)
      let escaped: StepClient.StepClient | undefined
      const exit = yield* Effect.exit(
        Trainer.loop({
          name: "escape",
          model: { baseModel: "tiny/byte-lm-16", rank: 2 },
          until: 3,
          state: Schema.Null,
          initial: null,
          step: ({ client, step }) =>
            Effect.gen(function* () {
              if (escaped !== undefined) yield* escaped.optimStep({ learningRate: 1 })
              escaped = client
              yield* client.forwardBackward(yield* dataset.batch(step), { loss: "cross_entropy" })
              yield* client.optimStep({ learningRate: 0.05 })
              return { state: null }
            })
        })
      )
      assert.include(String(exit), "after the step had ended")
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("an endless loop, or none at all, is refused", () =>
    Effect.gen(function* () {
      for (const until of [0, 1.5, () => false]) {
        const error = yield* Effect.flip(
          Trainer.loop({
            name: "none",
            model: { baseModel: "tiny/byte-lm-16", rank: 2 },
            until,
            state: Schema.Null,
            initial: null,
            step: () => Effect.succeed({ state: null })
          })
        )
        assert.strictEqual(error._tag === "TrainingError" ? error.reason._tag : "", "InvalidOption")
      }
    }).pipe(Effect.provide([world(""), memory]))
  )
})

const evaluation = (seen: Array<number>, losses: (step: number) => number = (step) => 1 / step) => ({
  every: 3,
  run: ({ client, step }: { readonly client: StepClient.StepClient; readonly step: number }) =>
    Effect.gen(function* () {
      const dataset = yield* data(4)
      const pass = yield* client.forward(yield* dataset.batch(1), { loss: "cross_entropy" })
      const { metrics } = yield* pass.result
      seen.push(step)
      return { "eval/loss": losses(step), held: metrics["loss:sum"] ?? Number.NaN }
    })
})

describe("Trainer, evaluation", () => {
  it.effect("sees the model after exactly so many steps, whatever the pipelining", () =>
    Effect.gen(function* () {
      const values: Array<ReadonlyArray<number>> = []
      for (const pipelining of [0, 4]) {
        const held: Array<number> = []
        const seen: Array<number> = []
        const report = yield* tiny({
          steps: 10,
          pipelining,
          evaluate: evaluation(seen),
          onEvent: (event) =>
            Effect.sync(() => {
              if (event._tag === "Evaluated") held.push(event.metrics["held"] ?? 0)
            })
        }).pipe(Effect.provide(Layer.mergeAll(memory, world("", { seed: 1 }))))
        assert.deepStrictEqual(seen, [3, 6, 9, 10])
        assert.strictEqual(report.steps, 10)
        values.push(held)
      }
      assert.deepStrictEqual(values[0], values[1])
    })
  )

  it.effect("R59, R63: the best is saved at its very step, kept, and known as the best", () =>
    Effect.gen(function* () {
      const quality = new Map([
        [3, 0.5],
        [6, 0.2],
        [9, 0.9],
        [10, 0.8]
      ])
      const policy = CheckpointPolicy.onImprovement({ keepLast: 1, metric: "eval/loss" })
      const best: Array<number> = []
      yield* tiny({
        steps: 10,
        checkpoints: policy,
        horizon: 0,
        evaluate: evaluation([], (step) => quality.get(step) ?? 1),
        onEvent: (event) =>
          Effect.sync(() => {
            if (event._tag === "Evaluated" && event.best) best.push(event.step)
          })
      })
      assert.deepStrictEqual(best, [3, 6])
      const state = yield* stateOf("tiny")
      const names = state.verified.map(({ name }) => name.slice(name.indexOf("-s") + 1))
      assert.deepStrictEqual(names, ["s3-best", "s6-best", "s10-final"])
      const left = RunState.candidates(state).map(({ name }) => name.slice(name.indexOf("-s") + 1))
      assert.deepStrictEqual(left, ["s6-best", "s10-final"])
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("is made again where a restore goes back behind it, and only there", () =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      const report = yield* guarded(tiny({ steps: 10, every: 5, evaluate: evaluation(seen) }))
      assert.strictEqual(report.incidents[0]?.resumedAt, 5)
      assert.deepStrictEqual(seen, [3, 6, 6, 9, 10])
      assert.deepStrictEqual((yield* finalState(report.trainingRunId)).steps, upTo(10))
    }).pipe(Effect.provide([world("corrupt@7"), memory]))
  )

  it.effect("a policy that goes by evaluations is refused where there is none", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(tiny({ checkpoints: CheckpointPolicy.onImprovement() }))
      assert.include(error.message, "needs an evaluation")
      const zero = yield* Effect.flip(tiny({ evaluate: { every: 0, run: () => Effect.succeed({}) } }))
      assert.include(zero.message, "evaluate.every")
    }).pipe(Effect.provide([world(""), memory]))
  )
})

describe("Trainer, what the policy says", () => {
  it.effect("R65: a format that the server cannot give is refused before anything is asked of it", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(tiny({ checkpoints: CheckpointPolicy.fromTrainingIr({ format: "gguf" }) }))
      assert.include(error.message, "safetensors")
      const { control } = yield* Emulator
      assert.strictEqual((yield* control.models).length, 0)
    }).pipe(Effect.provide([world(""), memory]))
  )

  it.effect("R58: saves at the ends of epochs, with the metrics of the step before", () =>
    Effect.gen(function* () {
      const dataset = yield* data(12)
      const metrics: Array<RunReport.TrainerEvent> = []
      yield* Trainer.fineTune({
        name: "epochs",
        model: { baseModel: "tiny/byte-lm-16", rank: 2 },
        data: Effect.succeed({ ...dataset, stepsPerEpoch: 4 }),
        learningRate: 0.05,
        checkpoints: CheckpointPolicy.everyEpochs(1),
        onEvent: (event) => Effect.sync(() => metrics.push(event))
      })
      const state = yield* stateOf("epochs")
      assert.deepStrictEqual(
        state.verified.map(({ step }) => step),
        [4, 8, 12]
      )
      for (const { metrics: saved, step } of state.verified) {
        const committed = metrics.find((event) => event._tag === "StepCommitted" && event.step === step - 1)
        assert.deepStrictEqual(saved, committed?._tag === "StepCommitted" ? committed.metrics : undefined)
      }
    }).pipe(Effect.provide([world(""), memory]))
  )
})
