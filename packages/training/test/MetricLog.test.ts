import { assert, describe, it } from "@effect/vitest"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, FileSystem, Layer, Option } from "effect"
import { Journal, MetricLog, RunGuard, type RunReport } from "../src/index.ts"
import { tiny, type TinyOptions, world } from "./TinyRun.ts"

const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}

interface Line {
  readonly step: number
  readonly attempt: number
  readonly trainingRunId: string
  readonly time: string
  readonly metrics: Record<string, number | string>
}

/** A world, a folder for journals and metrics, and what stands in the metrics. */
const inFolder = <A, E>(
  spec: string,
  body: (tools: {
    readonly run: (options?: TinyOptions) => Effect.Effect<RunReport.RunReport, unknown>
    readonly lines: Effect.Effect<ReadonlyArray<Line>>
    readonly edit: (change: (text: string) => string) => Effect.Effect<void>
  }) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const directory = yield* fs.makeTempDirectoryScoped({ prefix: "tinkex metrics " })
    const context = yield* Layer.build(world(spec, { seed: 3 }))
    const file = `${directory}/tiny/metrics.jsonl`
    return yield* body({
      run: (options) =>
        tiny(options).pipe(
          Effect.provideService(RunGuard.RunGuard, Option.some(eager)),
          Effect.provide([
            Layer.fresh(Journal.layerFileSystem(directory)),
            Layer.fresh(MetricLog.layerFileSystem(directory))
          ]),
          Effect.provide(NodeServices.layer),
          Effect.provide(context)
        ),
      lines: Effect.orDie(fs.readFileString(file)).pipe(
        Effect.map((text) =>
          text
            .trimEnd()
            .split("\n")
            .map((line): Line => JSON.parse(line))
        )
      ),
      edit: (change) =>
        Effect.orDie(Effect.flatMap(fs.readFileString(file), (text) => fs.writeFileString(file, change(text))))
    })
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))

const steps = (lines: ReadonlyArray<Line>) => lines.map(({ step }) => step)
const upTo = (count: number) => Array.from({ length: count }, (_, k) => k)

const dieAfter = (count: number): TinyOptions => {
  let committed = 0
  return {
    onEvent: (event) => (event._tag === "StepCommitted" && ++committed === count ? Effect.interrupt : Effect.void)
  }
}

describe("MetricLog", () => {
  it.effect("ML1, ML2: one line a step, with the lineage of the final state, whatever happened in between", () =>
    Effect.gen(function* () {
      const calm = yield* inFolder("", ({ lines, run }) => Effect.andThen(run(), lines))
      assert.deepStrictEqual(steps(calm), upTo(12))
      yield* inFolder("corrupt@8", ({ lines, run }) =>
        Effect.gen(function* () {
          const report = yield* run({ pipelining: 4 })
          const all = yield* lines
          assert.deepStrictEqual(steps(all), upTo(12))
          assert.deepStrictEqual(
            all.map(({ metrics }) => metrics),
            calm.map(({ metrics }) => metrics)
          )
          assert.deepStrictEqual(
            all.map(({ attempt }) => attempt),
            upTo(12).map((step) => (step < 5 ? 1 : 2))
          )
          assert.strictEqual(all.at(-1)?.trainingRunId, report.trainingRunId)
        })
      )
    })
  )

  it.effect(
    "ML3: a process that dies after any step, and one whose last lines never reached the file, loses none and repeats none",
    () =>
      Effect.gen(function* () {
        for (let at = 1; at < 12; at += 2) {
          for (const lost of [0, 2]) {
            yield* inFolder("", ({ edit, lines, run }) =>
              Effect.gen(function* () {
                yield* Effect.exit(run(dieAfter(at)))
                // Whole lines that the disk never got, and half a one.
                yield* edit((text) => {
                  const all = text.split("\n").slice(0, -1)
                  const kept = all.slice(0, Math.max(0, all.length - lost)).map((line) => `${line}\n`)
                  return lost === 0 ? text : `${kept.join("")}{"step":`
                })
                yield* run()
                assert.deepStrictEqual(steps(yield* lines), upTo(12), `died after ${at}, lost ${lost}`)
              })
            )
          }
        }
      }),
    60_000
  )

  it.effect("lines of a run that went back behind them are taken back while it goes on", () =>
    inFolder("corrupt@9", ({ lines, run }) =>
      Effect.gen(function* () {
        let seen: ReadonlyArray<number> = []
        yield* run({
          onEvent: (event) =>
            event._tag === "AttemptStarted" && event.attempt === 2
              ? Effect.map(lines, (all) => void (seen = steps(all)))
              : Effect.void
        })
        assert.deepStrictEqual(seen, upTo(5))
      })
    )
  )

  it.effect("a loss that is no number is written as a word", () =>
    inFolder("nan:forward_backward@4", ({ lines, run }) =>
      Effect.gen(function* () {
        yield* run({ divergence: { notFinite: "ignore" } })
        assert.strictEqual((yield* lines)[3]?.metrics["loss:sum"], "NaN")
      })
    )
  )
})
