import { assert, describe, it } from "@effect/vitest"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Tokenizer } from "@tinkex/tinker/Tokenizer"
import type { Datum } from "@tinkex/tinker/Datum"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Dataset from "../src/Dataset.ts"
import { shuffled } from "../src/internal/shuffle.ts"
import type { TrainingError } from "../src/TrainingError.ts"

/** A file system with one file, handed out in small pieces so that lines and letters are cut anywhere. */
const fileSystem = (content: string | Uint8Array, pieces = 5) => {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content
  const parts = Array.from({ length: Math.ceil(bytes.length / pieces) }, (_, i) =>
    bytes.subarray(i * pieces, (i + 1) * pieces)
  )
  return FileSystem.layerNoop({ stream: () => Stream.fromIterable(parts) })
}

const read = (content: string | Uint8Array, options: Dataset.JsonlOptions = { batchSize: 1 }) =>
  Dataset.jsonl("data.jsonl", options).pipe(Effect.provide(Layer.merge(fileSystem(content), Tokenizer.layerBytes)))

const rows = (count: number) =>
  Array.from({ length: count }, (_, i) => `${JSON.stringify({ text: `row ${i}` })}\n`).join("")

const bytesOf = (text: string) => [...new TextEncoder().encode(text)]

const plain = (datum: Datum | undefined) => ({
  input: datum?.modelInput.chunks.flatMap((chunk) => (chunk.type === "encoded_text" ? Array.from(chunk.tokens) : [])),
  target: Array.from(datum?.lossFnInputs["target_tokens"]?.data ?? []),
  weights: Array.from(datum?.lossFnInputs["weights"]?.data ?? [])
})

const textOf = (datum: Datum) => String.fromCharCode(...(plain(datum).input ?? []).slice(1))

const order = (dataset: Dataset.Dataset) =>
  Effect.map(
    Effect.forEach(
      Array.from({ length: dataset.totalSteps }, (_, k) => k),
      dataset.batch
    ),
    (batches) => batches.map((batch) => batch.map(textOf))
  )

const problem = <A, R>(effect: Effect.Effect<A, TrainingError, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.message)

describe("Dataset.jsonl", () => {
  it.effect("learns every token of a text, each predicted from those before it", () =>
    Effect.gen(function* () {
      const dataset = yield* read(`{"text":"hé"}\n`)
      const [datum] = yield* dataset.batch(0)
      assert.deepStrictEqual(plain(datum), {
        input: [256, ...bytesOf("hé")],
        target: [...bytesOf("hé"), 257],
        weights: [1, 1, 1, 1]
      })
      const { target_tokens, weights } = datum?.lossFnInputs ?? {}
      assert.deepStrictEqual([target_tokens?.dtype, target_tokens?.shape], ["int64", [4]])
      assert.deepStrictEqual(
        [weights?.dtype, weights?.shape, weights?.data instanceof Float32Array],
        ["float32", [4], true]
      )
    })
  )

  it.effect("learns only the completion of a prompt", () =>
    Effect.gen(function* () {
      const dataset = yield* read(`{"prompt":"ab","completion":"cd","note":1}`)
      assert.deepStrictEqual(plain((yield* dataset.batch(0))[0]), {
        input: [256, ...bytesOf("abcd")],
        target: [...bytesOf("abcd"), 257],
        weights: [0, 0, 1, 1, 1]
      })
    })
  )

  it.effect("adds no begin or end token where the tokenizer has none", () =>
    Effect.gen(function* () {
      const bare = Layer.effect(
        Tokenizer,
        Effect.map(Tokenizer, (it) => ({ ...it, bosToken: Option.none(), eosToken: Option.none() }))
      ).pipe(Layer.provide(Tokenizer.layerBytes))
      const dataset = yield* Dataset.jsonl("data.jsonl", { batchSize: 2 }).pipe(
        Effect.provide(Layer.merge(fileSystem(`{"text":"abc"}\n{"prompt":"a","completion":"b"}`), bare))
      )
      assert.deepStrictEqual((yield* dataset.batch(0)).map(plain), [
        { input: bytesOf("ab"), target: bytesOf("bc"), weights: [1, 1] },
        { input: bytesOf("a"), target: bytesOf("b"), weights: [1] }
      ])
    })
  )

  it.effect("cuts a row at maxTokens", () =>
    Effect.gen(function* () {
      const dataset = yield* read(`{"text":"abcdef"}`, { batchSize: 1, maxTokens: 4 })
      const [datum] = yield* dataset.batch(0)
      assert.deepStrictEqual(plain(datum), { input: [256, 97, 98], target: [97, 98, 99], weights: [1, 1, 1] })
    })
  )

  it.effect(
    "uses each row once in an epoch, keeps the short last batch, and the order of the file without a seed",
    () =>
      Effect.gen(function* () {
        const dataset = yield* read(rows(5), { batchSize: 2, epochs: 2 })
        assert.strictEqual(dataset.totalSteps, 6)
        const epoch = [["row 0", "row 1"], ["row 2", "row 3"], ["row 4"]]
        assert.deepStrictEqual(yield* order(dataset), [...epoch, ...epoch])
      })
  )

  it.effect("shuffles each epoch anew, and always in the same way (DS1)", () =>
    Effect.gen(function* () {
      const options = { batchSize: 3, epochs: 3, shuffleSeed: 7 }
      const dataset = yield* read(rows(20), options)
      const all = yield* order(dataset)
      const epochs = [0, 1, 2].map((e) => all.slice(e * 7, e * 7 + 7).flat())
      for (const epoch of epochs) assert.strictEqual(new Set(epoch).size, 20)
      assert.strictEqual(new Set(epochs.map(String)).size, 3)
      assert.deepStrictEqual(yield* order(yield* read(rows(20), options)), all, "another process")
      for (const k of [20, 0, 13, 7, 19, 1]) {
        assert.deepStrictEqual((yield* dataset.batch(k)).map(textOf), all[k], `step ${k}, out of order`)
      }
      const other = yield* order(yield* read(rows(20), { ...options, shuffleSeed: 8 }))
      assert.notDeepEqual(other, all)
    })
  )

  it.effect("has no step before the first or after the last", () =>
    Effect.gen(function* () {
      const dataset = yield* read(rows(4), { batchSize: 2 })
      for (const k of [-1, 2]) assert.strictEqual((yield* Effect.exit(dataset.batch(k)))._tag, "Failure")
    })
  )

  it("keeps the order that earlier versions had, since runs are resumed with it", () => {
    assert.deepStrictEqual([...shuffled(8, 7, 0)], expectedOrder[0])
    assert.deepStrictEqual([...shuffled(8, 7, 1)], expectedOrder[1])
  })

  it("is fair: every order of three rows comes up as often as the others", () => {
    const counts = new Map<string, number>()
    for (let epoch = 0; epoch < 6000; epoch++) {
      const key = shuffled(3, 1, epoch).join("")
      counts.set(key, (counts.get(key) ?? 0) + 1)
    }
    assert.strictEqual(counts.size, 6)
    for (const [key, count] of counts) assert.closeTo(count, 1000, 150, key)
  })

  it.effect("has another digest for other bytes, options or tokenizer, and only then (DS2)", () =>
    Effect.gen(function* () {
      const options = { batchSize: 2, epochs: 1, shuffleSeed: 1 }
      const digest = (content: string, o: Dataset.JsonlOptions) => Effect.map(read(content, o), (set) => set.digest)
      const first = yield* digest(rows(4), options)
      assert.match(first, /^[0-9a-f]{64}$/)
      assert.strictEqual(yield* digest(rows(4), { ...options }), first)
      const others = [
        yield* digest(`${rows(4)}\n`, options),
        yield* digest(rows(4), { ...options, batchSize: 3 }),
        yield* digest(rows(4), { ...options, epochs: 2 }),
        yield* digest(rows(4), { ...options, shuffleSeed: 2 }),
        yield* digest(rows(4), { ...options, maxTokens: 100 })
      ]
      const shifted = Layer.effect(
        Tokenizer,
        Effect.map(Tokenizer, (it) => ({
          ...it,
          encode: (text: string) => Effect.map(it.encode(text), (ids) => ids.map((id) => (id + 1) % 256))
        }))
      ).pipe(Layer.provide(Tokenizer.layerBytes))
      const retokenized = yield* Dataset.jsonl("data.jsonl", options).pipe(
        Effect.provide(Layer.merge(fileSystem(rows(4)), shifted))
      )
      assert.strictEqual(new Set([first, ...others, retokenized.digest]).size, 7)
    })
  )

  it.effect("reads CRLF lines, blank lines and a last line without a line feed", () =>
    Effect.gen(function* () {
      const dataset = yield* read(`{"text":"a"}\r\n\r\n  \n{"text":"b"}`)
      assert.deepStrictEqual(yield* order(dataset), [["a"], ["b"]])
    })
  )

  for (const [name, content, expected] of [
    ["is not JSON", `{"text":"a"}\n{"text":`, "data.jsonl, line 2: the line is not JSON"],
    ["is no object", `{"text":"a"}\n\n[1]`, "line 3: the line is not a JSON object"],
    ["has no known field", `{"txt":"a"}`, `line 1: the row has neither "text" nor "prompt" and "completion"`],
    ["has a number for a text", `{"text":1}`, `line 1: "text" must be a string, but is a number`],
    [
      "has null for a completion",
      `{"prompt":"a","completion":null}`,
      `line 1: "completion" must be a string, but is null`
    ],
    ["lacks the completion", `{"prompt":"a"}`, `line 1: "completion" is missing`],
    ["lacks the prompt", `{"completion":"a"}`, `line 1: "prompt" is missing`],
    ["is both kinds", `{"text":"a","prompt":"b"}`, `line 1: the row has "text" beside "prompt"`]
  ] as const) {
    it.effect(`names file, line and problem of a row that ${name} (DS3)`, () =>
      Effect.gen(function* () {
        assert.include(yield* problem(read(content)), expected)
      })
    )
  }

  it.effect("refuses rows with nothing to learn (DS3)", () =>
    Effect.gen(function* () {
      const bare = Layer.effect(
        Tokenizer,
        Effect.map(Tokenizer, (it) => ({ ...it, bosToken: Option.none(), eosToken: Option.none() }))
      ).pipe(Layer.provide(Tokenizer.layerBytes))
      const bareRead = (content: string) =>
        Dataset.jsonl("data.jsonl", { batchSize: 1 }).pipe(Effect.provide(Layer.merge(fileSystem(content), bare)))
      assert.include(yield* problem(bareRead(`{"text":"a"}`)), "line 1: the row is too short")
      assert.include(yield* problem(bareRead(`{"prompt":"ab","completion":""}`)), "the completion is empty")
      const cut = read(`{"prompt":"abcdef","completion":"g"}`, { batchSize: 1, maxTokens: 4 })
      assert.include(yield* problem(cut), "nothing is left to learn after the cut to 4 tokens")
    })
  )

  it.effect("refuses a file that is missing, empty, a folder or not text (DS3)", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* fs.makeTempDirectoryScoped()
      const real = (path: string) =>
        problem(Dataset.jsonl(path, { batchSize: 1 }).pipe(Effect.provide(Tokenizer.layerBytes)))
      assert.strictEqual(
        yield* real(`${directory}/none.jsonl`),
        `Training data ${directory}/none.jsonl: there is no such file.`
      )
      assert.include(yield* real(directory), "the file cannot be read")
      yield* fs.writeFileString(`${directory}/empty.jsonl`, "\n\n")
      assert.include(yield* real(`${directory}/empty.jsonl`), "there is no row in it")
      assert.include(yield* problem(read(Uint8Array.of(123, 0xff, 0xfe, 125))), "line 1: the line is not UTF-8")
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect("names an option that makes no sense", () =>
    Effect.gen(function* () {
      for (const [options, expected] of [
        [{ batchSize: 0 }, "Option data.batchSize must be a whole number, 1 or more, but is 0."],
        [{ batchSize: 1, epochs: 1.5 }, "data.epochs must be a whole number, 1 or more, but is 1.5"],
        [{ batchSize: 1, maxTokens: 1 }, "data.maxTokens"],
        [{ batchSize: 1, shuffleSeed: -1 }, "data.shuffleSeed"]
      ] as const) {
        assert.include(yield* problem(read(rows(1), options)), expected)
      }
    })
  )

  it.effect("reads a large file from the disk", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = `${yield* fs.makeTempDirectoryScoped()}/data.jsonl`
      yield* fs.writeFileString(path, rows(30_000))
      const dataset = yield* Dataset.jsonl(path, { batchSize: 1000, shuffleSeed: 3 })
      assert.strictEqual(new Set((yield* order(dataset)).flat()).size, 30_000)
    }).pipe(Effect.provide(Layer.merge(NodeServices.layer, Tokenizer.layerBytes)))
  )
})

/** Worked out by a second implementation, in another language, from the description alone. */
const expectedOrder = [
  [4, 0, 5, 7, 6, 1, 2, 3],
  [1, 7, 5, 0, 6, 2, 4, 3]
]

describe("Dataset.make", () => {
  it.effect("takes any source, and refuses one without steps or digest", () =>
    Effect.gen(function* () {
      const batch = () => Effect.succeed([])
      const dataset = yield* Dataset.make({ totalSteps: 3, digest: "v1", batch })
      assert.deepStrictEqual([dataset.totalSteps, dataset.digest, dataset.config], [3, "v1", {}])
      assert.include(yield* problem(Dataset.make({ totalSteps: 0, digest: "v1", batch })), "data.totalSteps")
      assert.include(
        yield* problem(Dataset.make({ totalSteps: 1, digest: "", batch })),
        "data.digest must not be empty"
      )
    })
  )
})
