import { assert, describe, it } from "@effect/vitest"
import { Futures } from "../src/internal/futures.ts"

const noLog = { earlier: [], append: () => {} }

describe("Futures", () => {
  it("gives the memory of a result back when it cannot be fetched any more, whoever still knows its promise", () => {
    const futures = new Futures("1", 1000, noLog)
    const future = futures.create("forward_backward", 0, { user: "u", modelId: "m", seqId: 1 })
    const result = { _tag: "Output", json: () => ({}), protobuf: () => new Uint8Array(1_000_000) } as const
    futures.settle(future, result, 0)
    assert.strictEqual(futures.find(future.id, 999), future)
    assert.strictEqual(future.result, result)
    assert.strictEqual(futures.find(future.id, 1000), "gone")
    assert.strictEqual(future.result?._tag, "Failed")
  })
})
