import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { type Ended, start, supportTone, temporaryFolder, tinkex, until } from "./kit.ts"

// Three processes share two cores, so that a second of work may take several.
const seconds = (n: number) => ({ timeout: n * 2000 })

/** A refusal: its code, its words on standard error, nothing asked for on standard output, and no stack. */
const refused = (ended: Ended, code: number, ...words: ReadonlyArray<string | RegExp>) => {
  const said = `exit ${ended.code}\n${ended.stderr}`
  assert.strictEqual(ended.code, code, said)
  for (const word of words) {
    if (typeof word === "string") assert.include(ended.stderr, word)
    else assert.match(ended.stderr, word)
  }
  assert.match(ended.stderr, /^✗ /m)
  assert.notMatch(ended.stderr, /^\s+at /m, said)
  assert.notInclude(ended.stderr, "mistake in tinkex")
  const error = ended.stderr.slice(ended.stderr.indexOf("✗"))
  assert.isAtMost(error.trimEnd().split("\n").length, 4, said)
}

const folder = temporaryFolder()
const journal = join(folder, "runs")
const emulated = (...args: ReadonlyArray<string>) => ["train", supportTone, "--emulator", "--journal", journal, ...args]

const dataFile = (name: string, text: string): string => {
  const file = join(folder, name)
  writeFileSync(file, text)
  return file
}

describe.concurrent("options", () => {
  const cases: ReadonlyArray<readonly [ReadonlyArray<string>, ...ReadonlyArray<string>]> = [
    [["--batch-size", "0"], "--batch-size must be a whole number from 1 to 65536, but is 0"],
    [["--batch-size", "-4"], "--batch-size", "-4"],
    [["--batch-size", "many"], "--batch-size", "many"],
    [["--pipelining", "9"], "--pipelining must be a whole number from 0 to 8, but is 9"],
    [["--learning-rate", "-1"], "--learning-rate must be a number above 0", "-1"],
    [["--learning-rate", "NaN"], "--learning-rate", "NaN"],
    [["--rank", "0"], "--rank must be a whole number from 1", "0"],
    [["--save-every", "0"], "--save-every must be a whole number from 1", "0"],
    [["--keep-last", "0"], "--keep-last must be a whole number from 1", "0"],
    [["--epochs", "1e9"], "--epochs must be a whole number from 1 to 10000", "1000000000"],
    [["--steps", "0"], "--steps must be a whole number from 1", "0"],
    [["--seed", "-1"], "--seed", "-1"],
    [["--schedule", "sawtooth"], "--schedule", "sawtooth"],
    [["--recovery-base-delay", "soon"], "--recovery-base-delay", "soon"],
    [["--name", "../elsewhere"], "--name", "../elsewhere"],
    [["--inject", "corrupt@1,explode@3"], "explode@3", "there is no fault"],
    [["--inject", "corrupt"], "corrupt", "position"],
    [["--emulator-url", "not a url"], "--emulator-url must be a URL"],
    [["--rnak", "3"], "--rnak", "--rank"]
  ]
  for (const [args, ...words] of cases) {
    it(`refuses ${args.join(" ")}`, seconds(30), async () => {
      const ended = await tinkex(emulated(...args))
      refused(ended, 2, ...words)
      assert.strictEqual(ended.stdout, "")
    })
  }

  it(
    "refuses faults for the real service, and needs its model and tokenizer before anything is sent",
    seconds(30),
    async () => {
      const key = { TINKER_API_KEY: "tml-x", TINKER_BASE_URL: "http://127.0.0.1:9" }
      refused(await tinkex(["train", supportTone], key), 2, "--model is missing")
      refused(await tinkex(["train", supportTone, "--model", "m"], key), 2, "--tokenizer is missing")
      const real = ["train", supportTone, "--model", "m", "--tokenizer", folder]
      refused(await tinkex([...real, "--inject", "corrupt@3"], key), 2, "--inject needs --emulator")
    }
  )

  it("answers in JSON where that was asked for, even when the command line makes no sense", seconds(30), async () => {
    const ended = await tinkex(emulated("--json", "--rank", "0"))
    assert.strictEqual(ended.code, 2)
    assert.strictEqual(ended.stdout, "")
    assert.deepInclude(JSON.parse(ended.stderr), { schemaVersion: 1, error: "InvalidValue", exitCode: 2 })
  })
})

describe.concurrent("data", () => {
  const cases: ReadonlyArray<readonly [string, string, ...ReadonlyArray<string>]> = [
    ["empty.jsonl", "", "empty.jsonl", "there is no row in it"],
    ["blank.jsonl", "\n\n", "blank.jsonl", "there is no row in it"],
    ["malformed.jsonl", '{"text":"fine"}\n{"text": oops}\n', "malformed.jsonl, line 2", "not JSON"],
    ["wrong-type.jsonl", '{"text":"fine"}\n{"text":"fine"}\n{"text":42}\n', "line 3", '"text" must be a string'],
    ["no-field.jsonl", '{"question":"?"}\n', "line 1", '"prompt" and "completion"'],
    ["list.jsonl", "[1,2]\n", "line 1", "not a JSON object"],
    ["no-completion.jsonl", '{"prompt":"x"}\n', "line 1", '"completion" is missing']
  ]
  for (const [name, text, ...words] of cases) {
    it(`refuses ${name}`, seconds(30), async () => {
      refused(await tinkex(["train", dataFile(name, text), "--emulator", "--journal", journal]), 2, ...words)
    })
  }

  it("refuses a file that is not there", seconds(30), async () => {
    refused(
      await tinkex(["train", join(folder, "nowhere.jsonl"), "--emulator", "--journal", journal]),
      2,
      "nowhere.jsonl",
      "there is no such file"
    )
  })
})

describe.concurrent("credentials and services", () => {
  const tokenizer = join(folder, "tokenizer")
  const real = ["train", supportTone, "--model", "m", "--journal", journal, "--name", "real"]

  it("says which setting is missing or malformed, without repeating a key", seconds(90), async () => {
    refused(await tinkex([...real, "--tokenizer", tokenizer]), 3, "TINKER_API_KEY is not set")
    const bad = await tinkex(["run", "list"], { TINKER_API_KEY: "secret-oops" })
    refused(bad, 3, "TINKER_API_KEY must begin with tml-")
    assert.notInclude(bad.stderr, "secret-oops")
    const url = { TINKER_API_KEY: "tml-x", TINKER_BASE_URL: "ftp://somewhere" }
    refused(await tinkex(["run", "list"], url), 3, "TINKER_BASE_URL must be http or https")
  })

  it("never repeats a key from the command line, not even one in the wrong place", seconds(120), async () => {
    const rule = "--key must be a key, which begins with tml- or eyJ, then = and a user."
    const cases: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
      [["emulator", "--key", "tml-oopsoops"], rule],
      [["emulator", "--key", "tml-oopsoops=", "--log-level", "debug"], rule],
      [["emulator", "--key", "tml-first=ann", "--key", "oopsoops=ann", "--json"], rule],
      [["emulator", "--key"], "Missing value for flag --key"],
      [["emulator", "tml-oopsoops"], 'Unexpected positional argument: "tml-<redacted>'],
      [["emulator", "--api", "eyJoopsoops.x.y", "--log-level", "debug"], "--api"],
      [["run", "list", "--emulator-url", "ftp://ann:oopsoops@host"], "--emulator-url must be a URL such as"],
      [["run", "list", "--emulator-url", "http://ann:oopsoops@127.0.0.1:9"], "must not hold a user name or a password"]
    ]
    for (const [args, words] of cases) {
      const ended = await tinkex(args)
      assert.include([2, 3], ended.code, ended.stderr)
      assert.include(ended.stderr, words)
      assert.notInclude(ended.stderr + ended.stdout, "oops", args.join(" "))
    }
  })

  it("refuses a tokenizer that is none", seconds(30), async () => {
    refused(await tinkex([...real, "--tokenizer", tokenizer], { TINKER_API_KEY: "tml-x" }), 3, "tokenizer")
  })

  it("says within seconds that nobody answers", seconds(60), async () => {
    const ended = await tinkex([
      ...emulated("--name", "lonely").filter((arg) => arg !== "--emulator"),
      "--emulator-url",
      "http://127.0.0.1:9"
    ])
    refused(ended, 5, "No answer from http://127.0.0.1:9")
    const service = { TINKER_API_KEY: "tml-x", TINKER_BASE_URL: "http://127.0.0.1:9" }
    refused(await tinkex(["run", "list"], service), 5, "No answer from http://127.0.0.1:9")
  })

  it("names the models that there are", seconds(30), async () => {
    refused(
      await tinkex(emulated("--name", "which", "--model", "Qwen/Qwen3-8B")),
      4,
      'no base model "Qwen/Qwen3-8B"',
      "tiny/byte-lm"
    )
  })
})

describe("folders, ports, journals", () => {
  it("refuses a journal below a file", seconds(30), async () => {
    const file = dataFile("a-file", "x")
    const ended = await tinkex(["train", supportTone, "--emulator", "--journal", join(file, "runs")])
    refused(ended, 3, "journal cannot be written", "a-file")
  })

  it("says that a port is taken", seconds(30), async () => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve))
    const address = taken.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    try {
      refused(await tinkex(["emulator", "--port", String(port)]), 3, `127.0.0.1:${port}`, "--port")
    } finally {
      taken.close()
    }
  })

  it("leaves a run to the process that has it", seconds(60), async () => {
    const slow = ["--name", "shared", "--inject", "delay:optim_step@2=30s"]
    const first = start(emulated(...slow))
    await until("the first step", () => first.stderr().includes("loss"))
    refused(await tinkex(emulated("--name", "shared")), 1, `already being run by process ${first.pid}`)
    first.kill("SIGINT")
    assert.strictEqual((await first.ended).code, 130)
  })

  it("stops at a journal that is damaged in the middle, and leaves it as it is", seconds(60), async () => {
    assert.strictEqual((await tinkex(emulated("--name", "damaged", "--steps", "6"))).code, 0)
    const file = join(journal, "damaged", "journal.log")
    const bytes = readFileSync(file)
    const middle = Math.floor(bytes.length / 2)
    for (let i = 0; i < 4; i++) bytes[middle + i] = 0x21
    writeFileSync(file, bytes)
    refused(await tinkex(emulated("--name", "damaged", "--steps", "6")), 1, "is damaged at byte", "damaged/journal.log")
    refused(await tinkex(["recover", "plan", "damaged", "--journal", journal]), 1, "is damaged at byte")
    assert.deepStrictEqual(readFileSync(file), bytes)
    const list = await tinkex(["run", "list", "--journal", journal])
    assert.strictEqual(list.code, 0)
    assert.include(list.stderr, "is damaged at byte")
  })

  it("refuses other settings for the same run, and names them", seconds(60), async () => {
    assert.strictEqual((await tinkex(emulated("--name", "changed", "--steps", "4"))).code, 0)
    refused(await tinkex(emulated("--name", "changed", "--steps", "5")), 2, "steps: 4 -> 5", "--force")
  })
})

describe("recover", () => {
  let url = ""
  let server: ReturnType<typeof start> | undefined
  beforeAll(async () => {
    server = start(["emulator", "--json"])
    await until("the emulator", () => server?.stdout().includes("url") === true)
    url = JSON.parse(server.stdout()).url
  }, 30_000)
  afterAll(async () => {
    server?.kill("SIGTERM")
    await server?.ended
  })

  it("knows no such run, with a server and without one", seconds(30), async () => {
    refused(await tinkex(["recover", "plan", "nobody", "--journal", journal]), 4, 'no run "nobody"')
    const remote = ["--journal", journal, "--emulator-url", url]
    refused(await tinkex(["recover", "plan", "x:train:9", ...remote]), 4, 'no run "x:train:9"')
    refused(await tinkex(["recover", "now", "x:train:9", "--yes", ...remote]), 4, 'no run "x:train:9"')
  })

  it("asks nothing without a terminal, plans without writing, and knows no such checkpoint", seconds(90), async () => {
    const here = ["--journal", journal, "--emulator-url", url]
    const trained = await tinkex([
      "train",
      supportTone,
      ...here,
      "--name",
      "bare",
      "--steps",
      "6",
      "--save-every",
      "3",
      "--json"
    ])
    assert.strictEqual(trained.code, 0, trained.stderr)
    const report = JSON.parse(trained.stdout.trim().split("\n").at(-1) ?? "")
    const elsewhere = ["--journal", join(folder, "other"), "--emulator-url", url]

    refused(await tinkex(["recover", "now", report.trainingRunId, ...elsewhere]), 2, "--yes")
    refused(await tinkex(["recover", "now", "bare", ...here]), 2, "--yes")

    const plan = await tinkex(["recover", "plan", report.trainingRunId, ...elsewhere, "--json"])
    assert.deepInclude(JSON.parse(plan.stdout).chosen, { path: report.checkpoint, step: 6 })
    assert.notInclude(readdirSync(folder), "other")

    const nowhere = `tinker://${report.trainingRunId}/weights/nowhere`
    const asked = [report.trainingRunId, ...elsewhere, "--checkpoint", nowhere]
    refused(await tinkex(["recover", "plan", ...asked]), 4, nowhere)
    refused(await tinkex(["recover", "now", "--yes", ...asked]), 4, nowhere)
    refused(
      await tinkex(["recover", "plan", report.trainingRunId, "--checkpoint", "0004", ...elsewhere]),
      2,
      "--checkpoint"
    )

    refused(await tinkex(["recover", "plan", "bare", "--best", "loss", ...here]), 2, "loss:min")
    const best = await tinkex(["recover", "plan", "bare", "--best", "loss:sum:min", ...here])
    assert.strictEqual(best.code, 0, best.stderr)
    assert.match(best.stdout, /chosen {7}tinker:/)
    refused(await tinkex(["recover", "now", "bare", "--best", "loss:min", "--yes", ...here]), 2, "--best")
    const restored = await tinkex(["recover", "now", report.trainingRunId, "--yes", "--json", ...elsewhere])
    assert.strictEqual(restored.code, 0, restored.stderr)
    const result = JSON.parse(restored.stdout)
    assert.deepInclude(result, { previous: report.trainingRunId, checkpoint: report.checkpoint, step: 6 })
    assert.notStrictEqual(result.trainingRunId, report.trainingRunId)
  })
})
