import { assert, describe, it } from "@effect/vitest"
import { Option } from "effect"
import * as CheckpointPath from "../../src/wire/CheckpointPath.ts"

describe("CheckpointPath", () => {
  it("reads both kinds, with colons in the run and dots in the name, and writes them back", () => {
    for (const [path, expected] of [
      ["tinker://5f0c:train:0/weights/0001", { runId: "5f0c:train:0", kind: "weights", name: "0001" }],
      ["tinker://r/sampler_weights/step-1.final", { runId: "r", kind: "sampler_weights", name: "step-1.final" }]
    ] as const) {
      const read = Option.getOrThrow(CheckpointPath.parse(path))
      assert.deepStrictEqual<unknown>(read, expected)
      assert.strictEqual(CheckpointPath.format(read), path)
      assert.strictEqual(CheckpointPath.checkpointId(read), `${expected.kind}/${expected.name}`)
    }
  })

  it("reads nothing else, above all nothing that would change the meaning of a URL", () => {
    for (const text of [
      "",
      "tinker://",
      "tinker://r/weights",
      "tinker://r/weights/",
      "tinker:///weights/a",
      "tinker://r/weights/a/b",
      "tinker://r/adapters/a",
      "Tinker://r/weights/a",
      "https://r/weights/a",
      "tinker://../weights/a",
      "tinker://r/weights/..",
      "tinker://r/weights/.",
      "tinker://r/weights/%2e%2e",
      "tinker://r/weights/a?b",
      "tinker://r/weights/a#b",
      "tinker://r/weights/a\\b",
      "tinker://r/weights/a b",
      "tinker://r/weights/a\n",
      "tinker://r\u0000/weights/a"
    ]) {
      assert.isTrue(Option.isNone(CheckpointPath.parse(text)), JSON.stringify(text))
    }
  })
})
