import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Cause } from "effect"
import * as EmulatorError from "@tinkex/emulator/EmulatorError"
import * as TinkerError from "@tinkex/tinker/TinkerError"
import { TrainingError } from "@tinkex/training/TrainingError"
import * as CommandError from "../src/CommandError.ts"
import * as ExitCode from "../src/ExitCode.ts"
import * as Failure from "../src/output/Failure.ts"

const of = (error: unknown) => Failure.ofCause(Cause.fail(error))

describe("Failure", () => {
  const refused = { operation: "create model", status: 401, detail: "bad key" }
  const unauthorized = new TinkerError.TinkerError({ reason: new TinkerError.Unauthorized(refused) })

  it("keeps to a few lines: what happened, what to do, ids", () => {
    const failed = new TinkerError.RequestFailed({
      operation: "load weights",
      requestId: "req_1",
      category: "user",
      detail: "no such file"
    })
    const failure = of(new TinkerError.TinkerError({ reason: failed }))
    assert.strictEqual(failure.code, 1)
    assert.deepStrictEqual(Failure.lines(failure), [
      "✗ load weights failed (user, request req_1): no such file.",
      "  Correct the input.",
      "  requestId req_1"
    ])
  })

  it("gives each kind its exit code, also through the error of a higher package", () => {
    const codes = [
      unauthorized,
      TrainingError.service(unauthorized),
      new TinkerError.TinkerError({ reason: new TinkerError.NotFound({ ...refused, status: 404 }) }),
      new TinkerError.TinkerError({ reason: new TinkerError.Transport({ operation: "x", problem: "reset" }) }),
      TrainingError.dataInvalid("x.jsonl", 3, "is not JSON"),
      TrainingError.noCheckpoint("r", []),
      new EmulatorError.EmulatorError({
        reason: new EmulatorError.ListenFailed({ host: "127.0.0.1", port: 80, problem: "taken" })
      }),
      CommandError.make(new CommandError.DemoFailed({ checks: ["x"] }))
    ].map((error) => of(error).code)
    assert.deepStrictEqual(codes, [3, 3, 4, 5, 2, 6, 3, 1])
  })

  it("names the command that recovers a run whose recovery is off", () => {
    const failure = of(
      CommandError.make(
        new CommandError.RunStopped({
          run: "r",
          trainingRunId: "m:train:0",
          incident: "inc-1",
          cause: "poisoned",
          detail: "the backend failed",
          step: 7,
          checkpoint: "tinker://m:train:0/weights/c5",
          command: "tinkex recover now r --yes"
        })
      )
    )
    assert.deepStrictEqual(Failure.lines(failure), [
      '✗ Run "r" failed after 7 steps (poisoned): the backend failed',
      "  Newest usable checkpoint: tinker://m:train:0/weights/c5",
      "  Try:  tinkex recover now r --yes",
      "  run r  ·  trainingRunId m:train:0  ·  incident inc-1"
    ])
    assert.deepInclude(Failure.json(failure), { error: "RunStopped", exitCode: 1 })
  })

  it("has the exit codes that the README lists", () => {
    const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8")
    const rows = [...readme.matchAll(/^\|\s*(\d+)\s*\|\s*(.*?)\s*\|$/gm)].map(([, code, meaning]) => [
      Number(code),
      meaning
    ])
    assert.deepEqual<ReadonlyArray<unknown>>(rows, ExitCode.table)
  })

  it("calls what is not expected a mistake of its own", () => {
    const failure = Failure.ofCause(Cause.die(new Error("oops")))
    assert.isTrue(failure.defect)
    assert.strictEqual(failure.code, 1)
  })
})
