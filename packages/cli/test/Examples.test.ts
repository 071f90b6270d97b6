import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"

const run = async (name: string): Promise<string> => {
  const file = fileURLToPath(new URL(`../../../examples/${name}.ts`, import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, ["--conditions=@tinkex/source", file], {
    env: { PATH: process.env["PATH"] },
    timeout: 60_000
  })
  return stdout
}

describe("examples", () => {
  it("01: an application hears of its recovery and gets its run", { timeout: 60_000 }, async () => {
    const out = await run("01-recovery-layer")
    const heard = [...out.matchAll(/recovery: (\w+) \((\S+)\)/g)]
    assert.deepStrictEqual(
      heard.map(([, tag]) => tag),
      ["detected", "started", "fenced", "checkpoint_selected", "client_created", "resumed", "completed"]
    )
    assert.strictEqual(new Set(heard.map(([, , incident]) => incident)).size, 1)
    assert.match(out, /support-tone: 18 steps on 2 attempts, final state tinker:\/\/\S+-s18-final/)
  })

  it("02: both final states are equal", { timeout: 60_000 }, async () => {
    const out = await run("02-train-poison-recover")
    assert.match(out, /poisoned at step 13, .* back at step 10 .*-s10-auto/)
    const [calm, stormy] = [/uninterrupted (\w{64})/, /recovered {5}(\w{64})/].map((line) => line.exec(out)?.[1])
    assert.isDefined(calm)
    assert.strictEqual(calm, stormy)
  })

  it("03: an owner plans, restores by hand and branches off", { timeout: 60_000 }, async () => {
    const out = await run("03-manual-recovery")
    assert.match(out, /would use tinker:\/\/\S+\/weights\/step-6/)
    assert.match(out, /-> \S+:train:1, on at step 6/)
    assert.match(out, /branched off \S+\/step-9 as \S+:train:2/)
  })

  it("04: training makes a sentence likely, and samples finish it", { timeout: 60_000 }, async () => {
    const out = await run("04-sampling")
    const [, before, after] = /surprise (\d+) -> (\d+)/.exec(out) ?? []
    assert.isBelow(Number(after), Number(before) / 10)
    assert.include(out, `"the cat" + " sat on the mat." (stop)`)
    assert.include(out, "400 samples, 0 prompts failed\ntrue\n")
  })

  it("05: a preference that the service knows no loss for is learnt", { timeout: 60_000 }, async () => {
    const out = await run("05-preference-loss")
    assert.include(out, "gradient off by less than 1e-6: true")
    assert.match(out, /step 0: loss 2\.079, accuracy 0\n/)
    assert.match(out, /step 40: loss 0\.00\d, accuracy 1\n/)
  })
})
