import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Output from "../src/Output.ts"

const terminal = (options: {
  readonly format?: Output.Format
  readonly env?: Record<string, string>
  readonly isTerminal?: boolean
  readonly columns?: number
  readonly stdinIsTerminal?: boolean
}) => {
  const out: Array<string> = []
  const err: Array<string> = []
  const output = Output.make({
    format: options.format ?? "text",
    env: options.env ?? {},
    stdinIsTerminal: options.stdinIsTerminal ?? true,
    stdout: (text) => out.push(text),
    stderr: {
      isTerminal: options.isTerminal ?? true,
      columns: () => options.columns ?? 40,
      write: (text) => err.push(text)
    }
  })
  return { output, out, err }
}

// oxlint-disable-next-line no-control-regex
const control = /[\r\u001B]/

describe("Output", () => {
  it.effect("redraws the status line on a terminal and keeps it below what is written", () =>
    Effect.gen(function* () {
      const { err, out, output } = terminal({})
      yield* output.status("step 1")
      yield* output.note("saved")
      yield* output.print("done")
      assert.deepStrictEqual(out, ["done\n"])
      assert.strictEqual(err.join(""), `${"\r\u001B[2K"}step 1\r\u001B[2Ksaved\nstep 1\r\u001B[2Kstep 1`)
      yield* output.status("x".repeat(100))
      assert.strictEqual(err.at(-1), `\r\u001B[2K${"x".repeat(39)}`)
    })
  )

  it.effect("takes a terminal of unknown width for a usual one", () =>
    Effect.gen(function* () {
      const { err, output } = terminal({ columns: 0 })
      yield* output.status("x".repeat(100))
      assert.strictEqual(err.at(-1), `\r\u001B[2K${"x".repeat(79)}`)
    })
  )

  const plain = [
    ["no terminal", { isTerminal: false }],
    ["NO_COLOR", { env: { NO_COLOR: "1" } }],
    ["CI", { env: { CI: "true" } }],
    ["TERM=dumb", { env: { TERM: "dumb" } }],
    ["JSON", { format: "json" as const }]
  ] as const
  for (const [name, options] of plain) {
    it.effect(`never writes an escape code or a carriage return: ${name}`, () =>
      Effect.gen(function* () {
        const { err, out, output } = terminal(options)
        yield* output.status("step 1")
        yield* output.note("saved")
        yield* output.emit({ event: "step" })
        assert.notMatch([...out, ...err].join(""), control)
        assert.isFalse(output.animated)
        assert.deepStrictEqual(out, ['{"event":"step"}\n'])
        assert.deepStrictEqual(err, ["saved\n"])
      })
    )
  }

  it("asks nothing without a terminal on both sides", () => {
    assert.isTrue(terminal({}).output.canPrompt)
    assert.isFalse(terminal({ stdinIsTerminal: false }).output.canPrompt)
    assert.isFalse(terminal({ isTerminal: false }).output.canPrompt)
  })

  it("knows the format before the command line is parsed", () => {
    assert.strictEqual(Output.formatOf(["train", "--format", "json", "--nonsense"]), "json")
    assert.strictEqual(Output.formatOf(["--format=json"]), "json")
    assert.strictEqual(Output.formatOf(["recover", "plan", "x", "--json"]), "json")
    assert.strictEqual(Output.formatOf(["train", "--format", "text"]), "text")
  })
})
