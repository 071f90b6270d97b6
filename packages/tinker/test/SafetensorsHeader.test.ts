import { assert, describe, it } from "@effect/vitest"
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem, Result, Schema } from "effect"
import * as SafetensorsHeader from "../src/SafetensorsHeader.ts"
import { safetensors } from "./support/archive.ts"

const tensors = {
  a: { dtype: "F32", shape: [2, 2], bytes: Buffer.alloc(16) },
  b: { dtype: "I64", shape: [1], bytes: Buffer.alloc(8) }
}

const read = (bytes: Uint8Array) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const file = yield* fs.makeTempFileScoped()
    yield* fs.writeFile(file, bytes)
    return yield* SafetensorsHeader.read(file)
  })

describe("SafetensorsHeader", () => {
  it.effect("reads names, types, shapes, places and labels", () =>
    Effect.gen(function* () {
      const header = yield* read(
        safetensors({ ...tensors, none: { dtype: "F16", shape: [0, 5], bytes: new Uint8Array() } })
      )
      assert.deepStrictEqual(
        [...header.tensors],
        [
          ["a", { dtype: "F32", shape: [2, 2], begin: 0, end: 16 }],
          ["b", { dtype: "I64", shape: [1], begin: 16, end: 24 }],
          ["none", { dtype: "F16", shape: [0, 5], begin: 24, end: 24 }]
        ]
      )
      assert.deepStrictEqual(header.metadata, { format: "pt" })
      // A scalar has no lengths and one element.
      const scalar = yield* read(safetensors({ s: { dtype: "F64", shape: [], bytes: Buffer.alloc(8) } }))
      assert.deepStrictEqual(scalar.tensors.get("s")?.shape, [])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  const changed = (name: string, fields: Record<string, unknown>) =>
    safetensors(tensors, (header) => ({ ...header, [name]: { ...Object(header[name]), ...fields } }))

  it.effect.each<[string, Uint8Array, string]>([
    ["nothing", new Uint8Array(), "0 bytes long"],
    ["a length beyond the file", Buffer.from("ffffff0000000000", "hex"), "16777215 bytes long"],
    ["a length beyond every file", Buffer.alloc(8, 0xff), "bytes long"],
    ["no JSON", Buffer.from("0300000000000000616263", "hex"), "no JSON"],
    ["a list", safetensors({}, () => []), "no JSON object"],
    ["bytes that nobody describes", Buffer.concat([safetensors(tensors), Buffer.alloc(1)]), "25 bytes of tensors"],
    ["fewer bytes than described", safetensors(tensors).subarray(0, -1), "23 bytes of tensors"],
    ["an unknown type", changed("a", { dtype: "F128" }), "unknown type F128"],
    ["a shape that needs more", changed("a", { shape: [2, 3] }), "needs 24"],
    ["a negative length", changed("a", { shape: [-2, -2] }), "another way"],
    ["half an element", changed("a", { shape: [2.5] }), "another way"],
    ["an overlap", changed("b", { data_offsets: [8, 16] }), "overlaps"],
    ["a gap", changed("b", { data_offsets: [17, 25] }), "gap"],
    ["an end before its begin", changed("b", { data_offsets: [24, 16] }), "-8 bytes"],
    ["a product beyond all numbers", changed("a", { shape: Array.from({ length: 40 }, () => 2 ** 50) }), "needs"],
    ["labels that are no texts", safetensors(tensors, (header) => ({ ...header, __metadata__: { a: 1 } })), "labels"]
  ])("refuses %s", ([, bytes, problem]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(read(bytes))
      assert.strictEqual(error.reason._tag, "BadArchive")
      assert.include(error.message, problem)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
  )

  it.effect.prop("never throws, whatever the header says", [Schema.Record(Schema.String, Schema.Json)], ([header]) =>
    Effect.sync(() => {
      const text = JSON.stringify(header)
      assert.strictEqual(Result.isResult(SafetensorsHeader.parse(text, 0)), true)
      assert.isTrue(Result.isFailure(SafetensorsHeader.parse(text.slice(0, -1), 0)))
    })
  )
})
