/** The commands against the emulator inside them, as somebody without an account uses them. */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { type Ended, objects, start, supportTone, temporaryFolder, tinkex, until } from "./kit.ts"

const journal = temporaryFolder()
const here = ["--journal", journal]
const options = "--batch-size 2 --steps 16 --save-every 4 --pipelining 2".split(" ")
const train = (name: string, ...args: ReadonlyArray<string>) => [
  "train",
  supportTone,
  "--emulator",
  ...here,
  "--name",
  name,
  ...options,
  ...args
]

const reportOf = (ended: Ended): Record<string, unknown> => {
  assert.strictEqual(ended.code, 0, ended.stderr)
  const report = objects(ended.stdout).at(-1) ?? {}
  assert.strictEqual(report["event"], "report")
  return report
}

// oxlint-disable-next-line no-control-regex
const control = /[\r\u001B]/

describe("tinkex train", () => {
  const calm = tinkex(train("calm", "--json"))

  it("tells the loss, the state and no more than a log needs, without escape codes", { timeout: 60_000 }, async () => {
    const ended = await tinkex(train("text"), { NO_COLOR: "" })
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.match(ended.stdout, /^✓ text: 16 steps in .*, 1 attempt$/m)
    assert.include(ended.stdout, `state hash   ${String(reportOf(await calm)["stateHash"])}`)
    assert.match(ended.stderr, /step 16\/16 {2}loss \d/)
    assert.notMatch(ended.stdout + ended.stderr, control)
  })

  it("writes one JSON object per line on standard output, a report last", { timeout: 60_000 }, async () => {
    const { stderr, stdout } = await calm
    const events = stdout.trimEnd().split("\n")
    assert.strictEqual(objects(stdout).length, events.length)
    assert.deepStrictEqual(
      objects(stdout).flatMap(({ event, step }) => (event === "step" ? [step] : [])),
      Array.from({ length: 16 }, (_, step) => step)
    )
    assert.strictEqual(stderr, "")
    const { loss } = reportOf(await calm)
    const { first, last } = loss as { readonly first: number; readonly last: number } // numbers of our own report
    assert.isBelow(last, first)
  })

  it("says that a finished run is finished", { timeout: 60_000 }, async () => {
    await calm
    assert.deepInclude(reportOf(await tinkex(train("calm", "--json"))), { already: true, steps: 16 })
  })

  it("recovers by itself and reports it", { timeout: 60_000 }, async () => {
    const report = reportOf(await tinkex(train("stormy", "--json", "--inject", "corrupt@10")))
    assert.strictEqual(report["stateHash"], reportOf(await calm)["stateHash"])
    const [incident] = report["incidents"] as ReadonlyArray<Record<string, unknown>> // of our own report
    assert.deepInclude(incident, { cause: "poisoned", resumedAt: 8 })
  })

  it(
    "without recovery ends with the command that recovers, which then brings the same state",
    { timeout: 90_000 },
    async () => {
      const ended = await tinkex(train("given-up", "--no-recovery", "--inject", "corrupt@10"))
      assert.strictEqual(ended.code, 1)
      assert.match(ended.stderr, /✗ Run "given-up" failed after \d+ steps \(poisoned\)/)
      const checkpoint = /Newest usable checkpoint: (tinker:\S+-s8-auto)/.exec(ended.stderr)?.[1] ?? "none"
      assert.match(ended.stderr, /run given-up.*trainingRunId \S+.*incident inc-/)

      const before = readFileSync(join(journal, "given-up", "journal.log"))
      const plan = JSON.parse((await tinkex(["recover", "plan", "given-up", "--json", ...here])).stdout)
      assert.deepInclude(plan.chosen, { path: checkpoint, step: 8 })
      assert.deepEqual(readFileSync(join(journal, "given-up", "journal.log")), before)
      const list = await tinkex(["run", "list", "--corrupted", "--json", ...here])
      assert.deepInclude(JSON.parse(list.stdout).journaled, {
        ...JSON.parse(list.stdout).journaled[0],
        name: "given-up",
        status: "failed"
      })

      const command = /Try: {2}tinkex (.*)$/m.exec(ended.stderr)?.[1]?.split(" ") ?? []
      assert.deepStrictEqual(command.slice(0, 4), ["recover", "now", "given-up", "--yes"])
      const report = reportOf(await tinkex([...command, "--json"]))
      assert.strictEqual(report["stateHash"], reportOf(await calm)["stateHash"])
      assert.strictEqual(report["startedAt"], 8)
    }
  )

  it("is given up with its own exit code when no try succeeds", { timeout: 60_000 }, async () => {
    const hopeless = "corrupt@10,burst:503:weights_info@1x1000,burst:503:create_model@2x1000"
    const quick = ["--recovery-attempts", "2", "--recovery-base-delay", "10 millis"]
    const env = { TINKEX_RECOVERY_ATTEMPT_DEADLINE: "1 second" }
    const ended = await tinkex(train("hopeless", "--inject", hopeless, ...quick), env)
    assert.strictEqual(ended.code, 6, ended.stderr)
    assert.include(ended.stderr, "was not brought back")
    assert.include(ended.stderr, "tinkex recover now hopeless")
  })

  it("stops gently when interrupted, says how to go on, and does", { timeout: 90_000 }, async () => {
    const slow = start(train("paused", "--json", "--inject", "delay:optim_step@11=60s"))
    await until("step 9", () => slow.stdout().includes('"step":9,'))
    slow.kill("SIGINT")
    const ended = await slow.ended
    assert.strictEqual(ended.code, 130, ended.stderr)
    assert.match(ended.stderr, /Interrupted after step \d+\. Give the same command again to go on\./)
    const report = reportOf(await tinkex(train("paused", "--json")))
    assert.isAtLeast(Number(report["startedAt"]), 8)
    assert.strictEqual(report["stateHash"], reportOf(await calm)["stateHash"])
  })
})

describe("tinkex emulator", () => {
  it("prints its address and closes when told to", { timeout: 60_000 }, async () => {
    for (const [signal, code] of [
      ["SIGTERM", 130],
      ["SIGINT", 130]
    ] as const) {
      const emulator = start(["emulator"])
      await until("the address", () => emulator.stdout().includes("\n"))
      const url = emulator.stdout().trim()
      assert.strictEqual((await fetch(`${url}/api/v1/healthz`)).status, 200)
      emulator.kill(signal)
      const ended = await emulator.ended
      assert.strictEqual(ended.code, code)
      assert.include(ended.stderr, "Emulator closed.")
    }
  })
})

describe("tinkex emulator with switches", () => {
  it(
    "knows its users, serves models under other names, and exchanges keys for tokens",
    { timeout: 60_000 },
    async () => {
      const words = "emulator --key tml-one=ann --key tml-two=bob --token-exchange --api 0.38 --session-timeout"
      const emulator = start([...words.split(" "), "1 minute", "--model", "Qwen/Qwen3-8B=tiny/byte-lm-16"])
      await until("the address", () => emulator.stdout().includes("\n"))
      const url = `${emulator.stdout().trim()}/api/v1`
      const call = async (path: string, key: string, method: "GET" | "POST") => {
        const headers = { "x-api-key": key, "content-type": "application/json" }
        const answer = await fetch(`${url}/${path}`, { method, headers, ...(method === "POST" ? { body: "{}" } : {}) })
        return { status: answer.status, text: await answer.text() }
      }
      assert.strictEqual((await call("auth/token", "tml-three", "POST")).status, 403)
      assert.strictEqual((await call("get_server_capabilities", "tml-one", "GET")).status, 401)
      const { jwt } = JSON.parse((await call("auth/token", "tml-one", "POST")).text) as { jwt: string } // shape of the contract
      assert.include((await call("get_server_capabilities", jwt, "GET")).text, "Qwen/Qwen3-8B")
      assert.strictEqual((await call("cancel_future", jwt, "POST")).status, 422)
      emulator.kill("SIGTERM")
      await emulator.ended

      const wrong = await tinkex(["emulator", "--model", "x=tiny/none"])
      assert.strictEqual(wrong.code, 2, wrong.stderr)
      assert.include(wrong.stderr, "tiny/none")
    }
  )
})

describe("tinkex emulator with a directory", () => {
  it(
    "still has runs and finished results after it was killed, and nothing that was not finished",
    { timeout: 60_000 },
    async () => {
      const folder = temporaryFolder()
      const open = async () => {
        const emulator = start(["emulator", "--directory", folder, "--long-poll", "10 seconds"])
        await until("the address", () => emulator.stdout().includes("\n"))
        const url = `${emulator.stdout().trim()}/api/v1`
        const post = async (path: string, body: unknown) => {
          const headers = { "x-api-key": "tml-x", "content-type": "application/json" }
          const answer = await fetch(`${url}/${path}`, { method: "POST", headers, body: JSON.stringify(body) })
          return { status: answer.status, body: (await answer.json()) as Record<string, unknown> } // JSON objects, by the contract
        }
        return { emulator, post }
      }
      const first = await open()
      const { session_id } = (await first.post("create_session", { tags: [], sdk_version: "x" })).body
      const model = { session_id, model_seq_id: 0, base_model: "tiny/byte-lm-16", lora_config: { rank: 4 } }
      const created = (await first.post("create_model", model)).body
      const result = await first.post("retrieve_future", { request_id: created["request_id"] })
      assert.strictEqual(result.body["type"], "create_model")
      const step = { model_id: result.body["model_id"], seq_id: 2, adam_params: {} }
      const pending = (await first.post("optim_step", step)).body
      first.emulator.kill("SIGKILL")
      await first.emulator.ended

      const second = await open()
      const again = await second.post("retrieve_future", { request_id: created["request_id"] })
      assert.deepStrictEqual(again, result)
      assert.strictEqual((await second.post("retrieve_future", { request_id: pending["request_id"] })).status, 410)
      const other = await second.post("optim_step", { ...step, seq_id: 1 })
      assert.strictEqual(other.status, 400)
      assert.include(String(other.body["detail"]), "not loaded")
      second.emulator.kill("SIGTERM")
      await second.emulator.ended
    }
  )
})

describe("tinkex demo", () => {
  it("holds, reads its claims from the server, and leaves nothing behind", { timeout: 120_000 }, async () => {
    const folder = temporaryFolder()
    const ended = await tinkex(["demo", "--json"], { TMPDIR: folder })
    assert.strictEqual(ended.code, 0, ended.stderr)
    const demo = objects(ended.stdout).at(-1) as Record<string, any> // oxlint-disable-line typescript/no-explicit-any -- the shape is asserted below
    assert.strictEqual(demo["event"], "demo")
    assert.strictEqual(demo["checks"].length, 5)
    assert.isTrue(demo["checks"].every((check: { readonly holds: boolean }) => check.holds))
    assert.strictEqual(demo["hashes"].calm, demo["hashes"].stormy)
    assert.isAtMost(demo["replayed"], demo["bound"])
    assert.isAbove(demo["stormy"].incidents[0].resumedAt, 0)
    assert.isFalse(existsSync(join(folder, "tinkex-demo-")))
  })
})
