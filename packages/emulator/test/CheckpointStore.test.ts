import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, PlatformError, Result, Schema } from "effect"
import { CheckpointStore } from "../src/CheckpointStore.ts"
import * as Safetensors from "../src/internal/safetensors.ts"
import * as LanguageModel from "../src/LanguageModel.ts"
import * as Optimizer from "../src/Optimizer.ts"

const config: LanguageModel.ModelConfig = {
  baseModel: "tiny/byte-lm-16",
  rank: 3,
  seed: 5,
  trainAttn: true,
  trainMlp: true,
  trainUnembed: true
}

const train = Effect.fnUntraced(function* (model: LanguageModel.LanguageModel, steps: number) {
  const bytes = LanguageModel.encodeText("what is saved must come back")
  const data = [{ tokens: bytes.slice(0, -1), lossInputs: { target_tokens: bytes.slice(1) } }]
  for (let step = 0; step < steps; step++) {
    yield* LanguageModel.forwardBackward(model, { data, loss: "cross_entropy" })
    yield* Optimizer.step(model, { learningRate: 1e-2 })
  }
})

const trained = Effect.fnUntraced(function* (steps: number, from: LanguageModel.ModelConfig = config) {
  const model = yield* LanguageModel.make(from)
  yield* train(model, steps)
  return model
})

const id = "5f0c:train:0/weights/step-0001.final"
const meta = { step: 3, ledger: [{ seqId: 1, digest: "ab" }], expiresAt: null }

const saveTrained = Effect.fnUntraced(function* (name: string, optimizer = true) {
  const store = yield* CheckpointStore
  const model = yield* trained(3)
  yield* store.save({ id: name, snapshot: LanguageModel.snapshot(model, { optimizer }), meta })
  return model
})

const reasonOf = Effect.fnUntraced(function* <R>(
  effect: Effect.Effect<unknown, { readonly reason: { readonly _tag: string }; readonly message: string }, R>
) {
  const error = yield* Effect.flip(effect)
  return { tag: error.reason._tag, message: error.message }
})

const temporary = Effect.flatMap(FileSystem.FileSystem, (fs) =>
  fs.makeTempDirectoryScoped({ prefix: "tinkex-checkpoints-" })
)

const layerTemporary = Layer.unwrap(Effect.map(temporary, CheckpointStore.layerFileSystem)).pipe(
  Layer.provide(NodeFileSystem.layer)
)

for (const [name, layer] of [
  ["layerMemory", CheckpointStore.layerMemory],
  ["layerFileSystem", layerTemporary]
] as const) {
  describe(name, () => {
    const test = <E>(title: string, effect: Effect.Effect<void, E, CheckpointStore>) =>
      it.effect(title, () => Effect.provide(effect, layer))

    test(
      "gives a training checkpoint back bit for bit, and training continues as if nothing had happened",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        const model = yield* saveTrained(id)
        const hash = LanguageModel.stateHash(model)
        const loaded = yield* store.load(id)
        assert.deepStrictEqual(loaded.snapshot, LanguageModel.snapshot(model, { optimizer: true }))
        assert.deepStrictEqual(loaded.meta, meta)
        const other = yield* LanguageModel.make(config)
        yield* LanguageModel.restore(other, loaded.snapshot, { optimizer: true })
        assert.strictEqual(LanguageModel.stateHash(other), hash)
        yield* train(model, 2)
        yield* train(other, 2)
        assert.strictEqual(LanguageModel.stateHash(other), LanguageModel.stateHash(model))
      })
    )

    test(
      "keeps every bit pattern: negative zero, subnormals, infinities",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        const model = yield* trained(1)
        const first = Object.values(model.factors)[0]!
        first.set([-0, Number.MIN_VALUE, -Number.MAX_VALUE, Number.POSITIVE_INFINITY, 1 / 3])
        yield* store.save({ id, snapshot: LanguageModel.snapshot(model, { optimizer: true }), meta })
        const { snapshot } = yield* store.load(id)
        assert.strictEqual(LanguageModel.weightsHash(snapshot), LanguageModel.weightsHash(model))
      })
    )

    test(
      "stores a sampler checkpoint without the optimizer",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        yield* saveTrained(id, false)
        const loaded = yield* store.load(id)
        assert.isUndefined(loaded.snapshot.adam)
        assert.isFalse(loaded.hasOptimizer)
        const whole = yield* saveTrained("whole").pipe(Effect.andThen(store.describe("whole")))
        assert.isTrue(whole.hasOptimizer)
        assert.isAbove(whole.sizeBytes, 2 * loaded.sizeBytes)
      })
    )

    test(
      "keeps a snapshot as it was, whatever the model does afterwards",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        const model = yield* trained(2)
        const before = LanguageModel.weightsHash(model)
        yield* store.save({ id, snapshot: { config, factors: model.factors, adam: undefined }, meta })
        yield* train(model, 1)
        assert.strictEqual(LanguageModel.weightsHash((yield* store.load(id)).snapshot), before)
      })
    )

    test(
      "never overwrites, and lists, describes and removes what is there",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        yield* saveTrained("b/weights/2")
        yield* saveTrained("a/weights/1")
        assert.strictEqual((yield* reasonOf(saveTrained("b/weights/2"))).tag, "AlreadyExists")
        const { checkpoints, unreadable } = yield* store.list
        assert.deepStrictEqual(
          checkpoints.map((checkpoint) => checkpoint.id),
          ["a/weights/1", "b/weights/2"]
        )
        assert.deepStrictEqual(unreadable, [])
        assert.deepStrictEqual(yield* store.describe("a/weights/1"), checkpoints[0])
        yield* store.remove("a/weights/1")
        assert.strictEqual((yield* store.list).checkpoints.length, 1)
        for (const gone of [
          store.load("a/weights/1"),
          store.describe("a/weights/1"),
          store.remove("a/weights/1"),
          store.files("a/weights/1"),
          store.updateMeta("a/weights/1", null)
        ]) {
          assert.strictEqual((yield* reasonOf(gone)).tag, "NotFound")
        }
        yield* saveTrained("a/weights/1")
      })
    )

    test(
      "replaces the saver's data and nothing else",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        const model = yield* saveTrained(id)
        assert.deepStrictEqual((yield* store.updateMeta(id, { public: true })).meta, { public: true })
        const loaded = yield* store.load(id)
        assert.deepStrictEqual(loaded.meta, { public: true })
        assert.strictEqual(LanguageModel.weightsHash(loaded.snapshot), LanguageModel.weightsHash(model))
      })
    )

    test(
      "refuses a truncated checkpoint but still describes it",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        yield* saveTrained(id)
        yield* store.truncate(id)
        for (const read of [store.load(id), store.files(id)]) {
          const { message, tag } = yield* reasonOf(read)
          assert.strictEqual(tag, "Damaged")
          assert.include(message, "adapter_model.safetensors: has ")
        }
        assert.deepStrictEqual((yield* store.describe(id)).meta, meta)
      })
    )

    test(
      "refuses ids that are no names",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        for (const bad of ["", "with space", "tab\t", "ümlaut", "\ud800", "x".repeat(251)]) {
          assert.strictEqual((yield* reasonOf(store.load(bad))).tag, "InvalidId", JSON.stringify(bad))
        }
      })
    )

    test(
      "hands out an archive in the PEFT layout",
      Effect.gen(function* () {
        const store = yield* CheckpointStore
        const model = yield* saveTrained(id)
        const files = new Map((yield* store.files(id)).map((file) => [file.name, file.bytes]))
        assert.deepStrictEqual(Array.from(files.keys()), [
          "adapter_config.json",
          "adapter_model.safetensors",
          "checkpoint_complete"
        ])
        const parsed: unknown = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")))
        const { lora_alpha, r, base_model_name_or_path } = Schema.decodeUnknownSync(
          Schema.Struct({ lora_alpha: Schema.Number, r: Schema.Number, base_model_name_or_path: Schema.String })
        )(parsed)
        assert.deepStrictEqual([r, lora_alpha, base_model_name_or_path], [3, 32, "tiny/byte-lm-16"])
        const { tensors } = Result.getOrThrow(Safetensors.decode(files.get("adapter_model.safetensors")!))
        const prefix = "base_model.model.model.unembed_tokens"
        assert.deepStrictEqual(tensors.get(`${prefix}.lora_A.weight`)!.shape, [3, 16])
        assert.deepStrictEqual(tensors.get(`${prefix}.lora_B.weight`)!.shape, [259, 3])
        assert.deepStrictEqual(tensors.get(`${prefix}.lora_B.weight`)!.data, model.factors[`${prefix}.lora_B.weight`])
      })
    )
  })
}

describe("files on disk", () => {
  const test = <E>(
    title: string,
    body: (context: {
      readonly fs: FileSystem.FileSystem
      readonly root: string
    }) => Effect.Effect<void, E, FileSystem.FileSystem>
  ) =>
    it.effect(title, () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        yield* body({ fs, root: `${yield* temporary}/store` })
      }).pipe(Effect.provide(NodeFileSystem.layer))
    )

  /** Each use opens the directory anew, as another process would. */
  const opened = (root: string) => Effect.provide(CheckpointStore.layerFileSystem(root), { local: true })

  const directoryOf = Effect.fnUntraced(function* (fs: FileSystem.FileSystem, root: string) {
    const entries = yield* fs.readDirectory(root)
    assert.strictEqual(entries.length, 1)
    return `${root}/${entries[0]}`
  })

  test("survive a restart", ({ root }) =>
    Effect.gen(function* () {
      const model = yield* saveTrained(id).pipe(opened(root))
      const loaded = yield* CheckpointStore.use((store) => store.load(id)).pipe(opened(root))
      assert.deepStrictEqual(loaded.snapshot, LanguageModel.snapshot(model, { optimizer: true }))
      assert.deepStrictEqual(loaded.meta, meta)
    }))

  test("of a save that was cut short are never seen, and are gone after the next start", ({ fs, root }) =>
    Effect.gen(function* () {
      yield* saveTrained("whole").pipe(opened(root))
      yield* fs.makeDirectory(`${root}/.writing-x1/half`, { recursive: true })
      yield* fs.writeFileString(`${root}/.writing-x1/half/adapter_model.safetensors`, "half")
      const listed = yield* CheckpointStore.use((store) => store.list).pipe(opened(root))
      assert.deepStrictEqual(
        listed.checkpoints.map((checkpoint) => checkpoint.id),
        ["whole"]
      )
      assert.deepStrictEqual(yield* fs.readDirectory(root), ["whole"])
    }))

  for (const failing of ["optimizer.safetensors", "checkpoint_complete"]) {
    test(`leave nothing behind when writing ${failing} fails`, ({ fs, root }) =>
      Effect.gen(function* () {
        const full: FileSystem.FileSystem = {
          ...fs,
          writeFile: (path, data, options) =>
            path.endsWith(failing)
              ? Effect.fail(PlatformError.systemError({ _tag: "WriteZero", module: "FileSystem", method: "writeFile" }))
              : fs.writeFile(path, data, options)
        }
        const { message, tag } = yield* reasonOf(
          saveTrained(id).pipe(opened(root), Effect.provideService(FileSystem.FileSystem, full))
        )
        assert.strictEqual(tag, "StorageFailed")
        assert.include(message, "is writable and has room")
        assert.deepStrictEqual(yield* fs.readDirectory(root), [])
      }))
  }

  for (const [what, file, change] of [
    [
      "a single changed bit in the weights",
      "adapter_model.safetensors",
      (bytes: Uint8Array) => ((bytes[5000]! ^= 1), bytes)
    ],
    [
      "a single changed bit in the optimizer",
      "optimizer.safetensors",
      (bytes: Uint8Array) => ((bytes[5000]! ^= 1), bytes)
    ],
    ["an optimizer cut short", "optimizer.safetensors", (bytes: Uint8Array) => bytes.subarray(0, -8)],
    ["an altered configuration", "adapter_config.json", (bytes: Uint8Array) => ((bytes[0] = 0x5b), bytes)],
    ["a broken description", "meta.json", (bytes: Uint8Array) => bytes.subarray(0, 40)],
    ["a missing file", "optimizer.safetensors", () => undefined],
    ["a missing marker", "checkpoint_complete", () => undefined]
  ] as const) {
    test(`are refused with ${what}`, ({ fs, root }) =>
      Effect.gen(function* () {
        yield* saveTrained(id).pipe(opened(root))
        const path = `${yield* directoryOf(fs, root)}/${file}`
        const changed = change(yield* fs.readFile(path))
        yield* changed === undefined ? fs.remove(path) : fs.writeFile(path, changed)
        const { message, tag } = yield* reasonOf(CheckpointStore.use((store) => store.load(id)).pipe(opened(root)))
        assert.strictEqual(tag, "Damaged")
        assert.include(message, file)
      }))
  }

  test("that have no readable description are reported next to the others", ({ fs, root }) =>
    Effect.gen(function* () {
      yield* saveTrained(id).pipe(opened(root))
      yield* fs.writeFileString(`${yield* directoryOf(fs, root)}/meta.json`, "{}")
      yield* fs.makeDirectory(`${root}/lost+found`)
      yield* saveTrained("good").pipe(opened(root))
      const listed = yield* CheckpointStore.use((store) => store.list).pipe(opened(root))
      assert.deepStrictEqual(
        listed.checkpoints.map((checkpoint) => checkpoint.id),
        ["good"]
      )
      assert.deepStrictEqual(
        listed.unreadable.map((error) => error.reason._tag),
        ["Damaged", "Damaged"]
      )
    }))

  test("stay in their directory whatever the id looks like", ({ fs, root }) =>
    Effect.gen(function* () {
      const ids = ["..", ".", "../../escape", "/etc/x", "a/../b", ".writing-x", "%2E%2E", "a\\b"]
      yield* Effect.forEach(ids, (name) => saveTrained(name)).pipe(opened(root))
      const listed = yield* CheckpointStore.use((store) => store.list).pipe(opened(root))
      assert.sameMembers(
        listed.checkpoints.map((checkpoint) => checkpoint.id),
        ids
      )
      assert.strictEqual((yield* fs.readDirectory(root)).length, ids.length)
      assert.strictEqual((yield* fs.readDirectory(`${root}/..`)).length, 1)
    }))

  test("need a directory that can be made", ({ fs, root }) =>
    Effect.gen(function* () {
      yield* fs.makeDirectory(root)
      yield* fs.writeFileString(`${root}/file`, "")
      const { tag } = yield* reasonOf(CheckpointStore.use((store) => store.list).pipe(opened(`${root}/file/store`)))
      assert.strictEqual(tag, "StorageFailed")
    }))
})

describe("safetensors", () => {
  const withHeader = (header: string, body = 0, declared = header.length) => {
    const bytes = new Uint8Array(8 + header.length + body)
    new DataView(bytes.buffer).setBigUint64(0, BigInt(declared), true)
    bytes.set(new TextEncoder().encode(header), 8)
    return bytes
  }
  const tensor = (shape: unknown, offsets: unknown, dtype = "F64") => ({ dtype, shape, data_offsets: offsets })
  const file = (header: unknown, body: number) => withHeader(JSON.stringify(header), body)

  const Value = Schema.Number
  it.effect.prop(
    "give back what went in",
    [Schema.Array(Schema.Array(Value)), Schema.Record(Schema.String, Schema.String)],
    ([arrays, metadata]) =>
      Effect.sync(() => {
        const tensors = new Map(
          arrays.map((values, i) => [`t${i}`, { shape: [1, values.length], data: Float64Array.from(values) }])
        )
        const bytes = Safetensors.encode({ tensors, metadata: new Map(Object.entries(metadata)) })
        const back = Result.getOrThrow(Safetensors.decode(bytes))
        assert.strictEqual(back.tensors.size, tensors.size)
        for (const [name, value] of tensors) assert.deepStrictEqual(back.tensors.get(name), value)
        assert.sameDeepMembers(Array.from(back.metadata), Object.entries(metadata))
        for (let cut = 0; cut < bytes.length; cut += 7) {
          assert.isTrue(Result.isFailure(Safetensors.decode(bytes.subarray(0, cut))), `${cut} of ${bytes.length}`)
        }
      })
  )

  it("are read at any offset of a larger buffer", () => {
    const bytes = Safetensors.encode({
      tensors: new Map([["t", { shape: [2], data: Float64Array.of(1, 2) }]]),
      metadata: new Map()
    })
    const shifted = new Uint8Array(bytes.length + 3)
    shifted.set(bytes, 3)
    const back = Result.getOrThrow(Safetensors.decode(shifted.subarray(3)))
    assert.deepStrictEqual(back.tensors.get("t")!.data, Float64Array.of(1, 2))
  })

  for (const [what, bytes, problem] of [
    ["nothing", new Uint8Array(0), "too few"],
    ["a header longer than the file", withHeader("{}", 0, 3), "claims 3 bytes"],
    ["a header of 2^63 bytes", withHeader("{}", 0, 2 ** 63), "claims 9223372036854775808 bytes"],
    ["a header that is no JSON", withHeader("{]"), "not a JSON object"],
    ["a header that is no object", withHeader("[]"), "not a JSON object"],
    ["another dtype", file({ a: tensor([1], [0, 4], "F32") }, 4), 'dtype "F32"'],
    ["a negative size", file({ a: tensor([-1], [0, 8]) }, 8), "malformed shape"],
    ["a size that is no number", file({ a: tensor(["1"], [0, 8]) }, 8), "malformed shape"],
    ["offsets that are not a pair", file({ a: tensor([1], [0]) }, 8), "malformed offsets"],
    ["offsets that run backwards", file({ a: tensor([1], [8, 0]) }, 8), "takes -8 bytes"],
    ["a shape that does not fit", file({ a: tensor([2], [0, 8]) }, 8), "needs 16"],
    ["a shape that overflows", file({ a: tensor([2 ** 40, 2 ** 40], [0, 8]) }, 8), "its shape needs"],
    ["tensors that overlap", file({ a: tensor([2], [0, 16]), b: tensor([2], [8, 24]) }, 24), "begins at 8"],
    ["a hole", file({ a: tensor([1], [0, 8]), b: tensor([1], [16, 24]) }, 24), "begins at 16"],
    ["a tensor beyond the end", file({ a: tensor([2], [0, 16]) }, 8), "after the end"],
    ["bytes that no tensor owns", file({ a: tensor([1], [0, 8]) }, 9), "1 bytes follow"],
    ["a tensor that is no object", file({ a: 1 }, 0), "not described"],
    ["metadata that is no text", file({ __metadata__: { a: 1 } }, 0), "not a string"]
  ] as const) {
    it(`are refused with ${what}`, () => {
      const result = Safetensors.decode(bytes)
      assert.isTrue(Result.isFailure(result))
      if (Result.isFailure(result)) assert.include(result.failure, problem)
    })
  }
})
