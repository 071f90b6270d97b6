import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import { assert, describe, it } from "vitest"
import { Emulator } from "@tinkex/emulator"

const run = async (
  name: string,
  args: ReadonlyArray<string> = [],
  env: Readonly<Record<string, string>> = {}
): Promise<string> => {
  const file = fileURLToPath(new URL(`../../../examples/${name}.ts`, import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, ["--conditions=@tinkex/source", file, ...args], {
    env: { PATH: process.env["PATH"], ...env },
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
    assert.include(out, "400 samples, 0 prompts failed\nthe same sampler by its handle: true\n")
  })

  it("05: a preference that the service knows no loss for is learnt", { timeout: 60_000 }, async () => {
    const out = await run("05-preference-loss")
    assert.include(out, "gradient off by less than 1e-6: true")
    assert.match(out, /step 0: loss 2\.079, accuracy 0\n/)
    assert.match(out, /step 40: loss 0\.00\d, accuracy 1\n/)
  })

  it("06: a recovery without a service ends in the state of a run that never failed", { timeout: 60_000 }, async () => {
    const out = await run("06-offline-recovery")
    const [, old, next] = /the loop goes on at step 8 on (\S+):train:(\d)/.exec(out) ?? []
    assert.isDefined(old)
    assert.strictEqual(next, "2", "the new attempt has an id of its own")
    const [calm, stormy] = [/uninterrupted (\w{64})/, /recovered {5}(\w{64})/].map((line) => line.exec(out)?.[1])
    assert.isDefined(calm)
    assert.strictEqual(calm, stormy)
  })

  it(
    "07: a changed answer of the poll leads to a new attempt and a second checkpoint",
    { timeout: 60_000 },
    async () => {
      const out = await Effect.runPromise(
        Effect.gen(function* () {
          const { control, url } = yield* Emulator
          const env = { TINKER_API_KEY: "tml-test", TINKER_BASE_URL: url }
          const out = yield* Effect.promise(() => run("07-live-recovery", ["tiny/byte-lm-16"], env))
          const models = yield* control.models
          assert.isTrue(
            models.every(({ corrupted }) => !corrupted),
            "the service never flagged anything"
          )
          return out
        }).pipe(Effect.provide(Emulator.layer()), Effect.provide(NodeServices.layer), Effect.scoped)
      )
      assert.match(out, /poisoned, seen by sweep/)
      const [, first] = /first checkpoint {2}tinker:\/\/(\S+)\/weights\/first/.exec(out) ?? []
      const [, second] = /second checkpoint tinker:\/\/(\S+)\/weights\/second/.exec(out) ?? []
      assert.isDefined(second)
      assert.notStrictEqual(first, second)
    }
  )
})
