import { assert, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { mutants } from "./mutants.ts"

const program = fileURLToPath(new URL("mutant.ts", import.meta.url))

/** T10: what a single fault exposes is exposed by the suite. Each one runs in a process of its own, on patched sources. */
describe("T10: the suite notices a rule that is switched off", () => {
  for (const { name, rule } of mutants) {
    it(`${name}: ${rule}`, async () => {
      const { stdout } = await promisify(execFile)(process.execPath, ["--conditions=@tinkex/source", program, name], {
        encoding: "utf8"
      })
      assert.match(stdout, /seed \d+: /)
    }, 240_000)
  }
})
