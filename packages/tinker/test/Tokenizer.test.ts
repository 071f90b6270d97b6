import { assert, describe, it } from "@effect/vitest"
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem, Layer, Option, Schema } from "effect"
import { Tokenizer } from "../src/Tokenizer.ts"

// A byte-level BPE with one merge, written for this test.
const alphabet = ["h", "e", "l", "o", "Ġ", "w", "r", "d", "he"]
const tokenizerJson = JSON.stringify({
  version: "1.0",
  added_tokens: [
    { id: 9, content: "<s>", special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
    { id: 10, content: "</s>", special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }
  ],
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: null,
  decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: { type: "BPE", vocab: Object.fromEntries(alphabet.map((piece, id) => [piece, id])), merges: ["h e"] }
})

const folder = (files: Record<string, string>) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const directory = yield* fs.makeTempDirectoryScoped()
    for (const [name, text] of Object.entries(files)) yield* fs.writeFileString(`${directory}/${name}`, text)
    return directory
  })

const load = (directory: string) =>
  Layer.build(Tokenizer.layerDirectory(directory)).pipe(Effect.flatMap((context) => Effect.provide(Tokenizer, context)))

describe("Tokenizer", () => {
  it.effect("layerBytes: a byte a token, and back", () =>
    Effect.gen(function* () {
      const tokenizer = yield* Tokenizer
      const tokens = yield* tokenizer.encode("né")
      assert.deepStrictEqual(tokens, [0x6e, 0xc3, 0xa9])
      assert.strictEqual(yield* tokenizer.decode([256, ...tokens, 257]), "né")
      const error = yield* Effect.flip(tokenizer.decode([999]))
      assert.include(error.message, "999")
    }).pipe(Effect.provide(Tokenizer.layerBytes))
  )

  it.effect.prop("layerBytes: gives any text back, a byte order mark too", [Schema.String], ([any]) =>
    Effect.gen(function* () {
      const tokenizer = yield* Tokenizer
      // UTF-8 has no half of a surrogate pair.
      const text = `\uFEFF${Buffer.from(any).toString()}`
      assert.strictEqual(yield* tokenizer.decode(yield* tokenizer.encode(text)), text)
    }).pipe(Effect.provide(Tokenizer.layerBytes))
  )

  it.effect("layerDirectory: reads a folder as it comes with a model", () =>
    Effect.gen(function* () {
      const directory = yield* folder({
        "tokenizer.json": tokenizerJson,
        "tokenizer_config.json": JSON.stringify({ bos_token: "<s>", eos_token: { content: "</s>" } })
      })
      const tokenizer = yield* load(directory)
      const tokens = yield* tokenizer.encode("hello world")
      assert.deepStrictEqual(tokens, [8, 2, 2, 3, 4, 5, 3, 6, 2, 7])
      assert.strictEqual(yield* tokenizer.decode(tokens), "hello world")
      assert.strictEqual(yield* tokenizer.decode([9, ...tokens, 10]), "hello world")
      assert.deepStrictEqual(yield* tokenizer.encode(""), [])
      assert.strictEqual(yield* tokenizer.decode([]), "")
      assert.strictEqual(tokenizer.vocabSize, 11)
      for (const wrong of [11, -1, 1.5, Number.NaN]) {
        const error = yield* Effect.flip(tokenizer.decode([8, wrong]))
        assert.strictEqual(error.reason._tag, "InvalidInput")
        assert.include(error.message, `has ${wrong}`)
      }
      assert.deepStrictEqual(tokenizer.bosToken, Option.some(9))
      assert.deepStrictEqual(tokenizer.eosToken, Option.some(10))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.effect("layerDirectory: says what is wrong with a folder", () =>
    Effect.gen(function* () {
      for (const [files, problem] of [
        [{}, "cannot be read"],
        [{ "tokenizer.json": "{" }, "no JSON object"],
        [{ "tokenizer.json": "{}" }, "is malformed"],
        [{ "tokenizer.json": "[]" }, "no JSON object"],
        [{ "tokenizer.json": tokenizerJson.replace('"ByteLevel"', '"Nope"') }, "Unknown PreTokenizer type: Nope"],
        [{ "tokenizer.json": tokenizerJson, "tokenizer_config.json": "nonsense" }, "tokenizer_config.json"]
      ] as const) {
        const error = yield* Effect.flip(load(yield* folder(files)))
        assert.strictEqual(error.reason._tag, "InvalidConfig")
        assert.include(error.message, problem)
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )
})
