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

  // The turns of ChatML, as many models have them, with what their templates use of Jinja.
  const chatml = `{%- if tools %}{{- '<|tools|>' + (tools | tojson) + '\n' }}{%- endif %}
{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}{{- '<|im_start|>system\n' + (default_system | default('Be kind.')) + '<|im_end|>\n' }}{%- endif %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}{{- raise_exception('no role ' + message.role) }}{%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + (message.content | trim) + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}`

  const chats = (config: Record<string, unknown>, files: Record<string, string> = {}) =>
    Effect.flatMap(
      folder({ "tokenizer.json": tokenizerJson, "tokenizer_config.json": JSON.stringify(config), ...files }),
      load
    )

  it.effect("applyChatTemplate: writes a chat as the model's template has it", () =>
    Effect.gen(function* () {
      const tokenizer = yield* chats({ chat_template: chatml, bos_token: "<s>" })
      const question = [{ role: "user", content: " hello " }]
      assert.strictEqual(
        yield* tokenizer.applyChatTemplate(question, { addGenerationPrompt: true }),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
      )
      assert.strictEqual(
        yield* tokenizer.applyChatTemplate(question, {
          tools: [{ name: "f" }],
          variables: { default_system: "Be brief." }
        }),
        '<|tools|>[{"name": "f"}]\n<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n'
      )
      const refused = yield* Effect.flip(tokenizer.applyChatTemplate([{ role: "wizard", content: "x" }]))
      assert.strictEqual(refused.reason._tag, "InvalidInput")
      assert.include(refused.message, "no role wizard")
      const empty = yield* Effect.flip(tokenizer.applyChatTemplate([]))
      assert.strictEqual(empty.reason._tag === "InvalidInput" && empty.reason.field, "messages")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.effect(
    "applyChatTemplate: knows named templates, a file of its own, and the special tokens, which encode reads back",
    () =>
      Effect.gen(function* () {
        const named = yield* chats({
          bos_token: { content: "<s>" },
          eos_token: "</s>",
          chat_template: [
            { name: "default", template: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}" },
            { name: "tool_use", template: "{{ tools | length }}" }
          ]
        })
        const question = [{ role: "user", content: "hello" }]
        const text = yield* named.applyChatTemplate(question)
        assert.strictEqual(text, "<s>hello</s>")
        assert.deepStrictEqual(yield* named.encode(text), [9, 8, 2, 2, 3, 10])
        assert.strictEqual(yield* named.applyChatTemplate(question, { tools: [{}, {}] }), "2")
        const unknown = yield* Effect.flip(named.applyChatTemplate(question, { template: "rag" }))
        assert.include(unknown.message, "default, tool_use")
        const filed = yield* chats({ chat_template: "old" }, { "chat_template.jinja": "new" })
        assert.strictEqual(yield* filed.applyChatTemplate(question), "new")
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.effect("applyChatTemplate: says where there is no template, or a malformed one", () =>
    Effect.gen(function* () {
      const question = [{ role: "user", content: "hello" }]
      const none = yield* Effect.flip(Effect.flatMap(chats({}), (tokenizer) => tokenizer.applyChatTemplate(question)))
      assert.strictEqual(none.reason._tag, "Unsupported")
      const bytes = yield* Effect.flip(
        Effect.flatMap(Tokenizer, (tokenizer) => tokenizer.applyChatTemplate(question)).pipe(
          Effect.provide(Tokenizer.layerBytes)
        )
      )
      assert.strictEqual(bytes.reason._tag, "Unsupported")
      const malformed = yield* Effect.flip(chats({ chat_template: "{% for x in" }))
      assert.strictEqual(malformed.reason._tag, "InvalidConfig")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.effect.each<[string, string | undefined, string]>([
    ["Qwen/Qwen3-8B", undefined, "Qwen/Qwen3-8B"],
    ["Qwen/Qwen3-8B:peft:262144", undefined, "Qwen/Qwen3-8B"],
    ["org/model/variant", undefined, "org/model"],
    ["org/model/variant:x", undefined, "org/model"],
    ["a/b/c/d", undefined, "a/b/c/d"],
    ["meta-llama/Llama-3.1-8B", undefined, "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"],
    ["meta-llama/Llama-2-7b", undefined, "meta-llama/Llama-2-7b"],
    ["meta-llama/Llama-3.1-8B", "org/own:rev", "org/own"],
    ["org/model", "", "org/model"]
  ])("resolveId: %s with %s", ([modelName, tokenizerId, expected]) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Tokenizer.resolveId({ modelName, tokenizerId }), expected)
    })
  )

  it.effect("resolveId: refuses what is not public, and nothing", () =>
    Effect.gen(function* () {
      for (const modelName of ["TML/x", "thinkingmachines/y"]) {
        assert.strictEqual((yield* Effect.flip(Tokenizer.resolveId({ modelName }))).reason._tag, "Unsupported")
      }
      assert.strictEqual((yield* Effect.flip(Tokenizer.resolveId({ modelName: "" }))).reason._tag, "InvalidInput")
    })
  )
})
