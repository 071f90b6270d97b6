import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Output from "../src/Output.ts"
import * as Progress from "../src/output/Progress.ts"

const recorded = (format: Output.Format, isTerminal: boolean) => {
  const out: Array<string> = []
  const err: Array<string> = []
  const output = Output.make({
    format,
    env: {},
    stdinIsTerminal: false,
    stdout: (text) => out.push(text),
    stderr: { isTerminal, columns: () => 100, write: (text) => err.push(text) }
  })
  return { output, out, err }
}

const steps = Effect.fnUntraced(function* (output: Output.OutputShape, total: number) {
  const progress = yield* Progress.make(output, () => 10)
  yield* progress.onEvent({ _tag: "RunOpened", run: "r", totalSteps: total, attempts: 0 })
  yield* progress.onEvent({
    _tag: "AttemptStarted",
    attempt: 1,
    trainingRunId: "m:train:0",
    path: null,
    step: 0,
    how: "base"
  })
  for (let step = 0; step < total; step++) {
    yield* TestClock.adjust("500 millis")
    yield* progress.onEvent({ _tag: "StepCommitted", step, metrics: { "loss:sum": 50 - step } })
  }
  return progress
})

describe("Progress", () => {
  it.effect("shows loss, rate and the time that is left on a terminal", () =>
    Effect.gen(function* () {
      const { err, output } = recorded("text", true)
      const progress = yield* steps(output, 40)
      const halfway = err.find((line) => line.includes("step 20/40")) ?? ""
      assert.include(halfway, "loss 3.100")
      assert.include(halfway, "2.0 steps/s")
      assert.include(halfway, "ETA 10s")
      assert.deepStrictEqual(progress.losses(), { first: 5, last: 1.1 })
    })
  )

  it.effect("logs about twenty lines without a terminal, the first and the last step among them", () =>
    Effect.gen(function* () {
      const { err, output } = recorded("text", false)
      yield* steps(output, 200)
      const lines = err.filter((line) => line.startsWith("step"))
      assert.isAtMost(lines.length, 21)
      assert.isAtLeast(lines.length, 20)
      assert.include(lines[0] ?? "", "step   1/200")
      assert.include(lines.at(-1) ?? "", "step 200/200")
    })
  )

  it.effect("is one object for each event in JSON", () =>
    Effect.gen(function* () {
      const { err, out, output } = recorded("json", true)
      yield* steps(output, 3)
      const events = out.map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
      assert.deepStrictEqual(
        events.map(({ event }) => event),
        ["run_opened", "attempt_started", "step", "step", "step"]
      )
      assert.deepInclude(events[2], { step: 0, loss: 5 })
      assert.deepStrictEqual(err, [])
    })
  )

  it("writes durations as people do", () => {
    assert.deepStrictEqual(
      [0, 59.6, 61, 3700].map((seconds) => Progress.clock(seconds)),
      ["0s", "1m 00s", "1m 01s", "1h 01m"]
    )
  })
})
