import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer } from "effect"
import { vi } from "vitest"
import { Tokenizer } from "../src/Tokenizer.ts"

// As on a machine without the optional package.
vi.mock("@huggingface/tokenizers", () => {
  throw new Error("Cannot find package")
})

describe("Tokenizer", () => {
  it.effect("layerDirectory: names the package that is missing", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* fs.makeTempDirectoryScoped()
      yield* fs.writeFileString(`${directory}/tokenizer.json`, "{}")
      const error = yield* Effect.flip(Layer.build(Tokenizer.layerDirectory(directory)))
      assert.strictEqual(error.reason._tag, "Unsupported")
      assert.include(error.message, "npm install @huggingface/tokenizers")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
