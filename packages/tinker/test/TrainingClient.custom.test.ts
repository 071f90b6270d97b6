import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Context, Effect, Schema } from "effect"
import type { ApiFuture } from "../src/ApiFuture.ts"
import * as CustomLoss from "../src/CustomLoss.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import * as Tensor from "../src/TensorData.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import type { CustomOutput, TrainingClient } from "../src/TrainingClient.ts"
import type { Datum } from "../src/wire/Datum.ts"
import * as Protobuf from "../src/wire/Protobuf.ts"
import * as Vector from "../src/Vector.ts"
import * as Fake from "./support/fakeService.ts"

const newClient = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "org/base", rank: 8 })
)

const requests = (fake: Fake.Fake) =>
  Effect.forEach(fake.of("forward_backward"), (seen) => Protobuf.decodeForwardBackwardRequest(seen.body))

/** Answers a pass with log-probabilities of the given values, one row of them for each datum. */
const answering = (rows: ReadonlyArray<ReadonlyArray<number>>, metrics: Record<string, number> = { "loss:sum": 9 }) =>
  Fake.make((seen) =>
    seen.path === "retrieve_future" && String(seen.json["request_id"]).startsWith("forward_backward")
      ? {
          bytes: Protobuf.encodeForwardBackwardOutput({
            lossFnOutputType: "T",
            lossFnOutputs: rows.map((row) => ({ logprobs: Tensor.float32(row) })),
            metrics
          }),
          headers: { "content-type": "application/x-protobuf" }
        }
      : undefined
  )

const bare = (targets: Tensor.TensorData, more: Record<string, Tensor.TensorData> = {}): Datum => ({
  modelInput: { chunks: [{ type: "encoded_text", tokens: Array.from({ length: targets.shape[0] ?? 0 }, () => 1) }] },
  lossFnInputs: { target_tokens: targets, ...more }
})

const numbers = (tensor: Tensor.TensorData | undefined) => Array.from(tensor?.data ?? [])

describe("forwardBackwardCustom", () => {
  it.effect("asks for log-probabilities, then sends minus the gradient as the weights of a cross-entropy", () => {
    const fake = answering([[-1, -2], [-0.5]])
    return Effect.gen(function* () {
      const client = yield* newClient
      const data = [bare(Tensor.int64([8, 9])), Fake.datum(5)]
      const pass = yield* client.forwardBackwardCustom(
        data,
        CustomLoss.differentiate((batch) => ({
          loss: Vector.total(batch.map(({ logprobs }) => logprobs.square())),
          metrics: { margin: 3, "loss:sum": 7 }
        }))
      )
      const [forward, backward, ...more] = yield* requests(fake)
      assert.strictEqual(more.length, 0)
      assert.deepStrictEqual([forward?.forwardOnly, backward?.forwardOnly], [true, false])
      assert.deepStrictEqual([forward?.seqId, backward?.seqId], [1, 2])
      assert.deepStrictEqual([forward?.lossFn, backward?.lossFn], ["cross_entropy", "cross_entropy"])
      // Weights are 0 where there were none, and as they were where there were some.
      assert.deepStrictEqual(numbers(forward?.data[0]?.lossFnInputs["weights"]), [0, 0])
      assert.deepStrictEqual(numbers(forward?.data[1]?.lossFnInputs["weights"]), [1])
      assert.deepStrictEqual(numbers(backward?.data[0]?.lossFnInputs["weights"]), [2, 4])
      assert.deepStrictEqual(numbers(backward?.data[1]?.lossFnInputs["weights"]), [1])
      assert.deepStrictEqual(numbers(backward?.data[0]?.lossFnInputs["target_tokens"]), [8, 9])
      const output = yield* pass.result
      assert.strictEqual(output.loss, 5.25)
      assert.deepStrictEqual(output.metrics, { "loss:sum": 7, margin: 3 })
      assert.isUndefined(data[0]?.lossFnInputs["weights"], "the caller's datum is as it was")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("keeps rows and columns, and gives the loss the caller's own data", () => {
    const fake = answering([[-1, -2, -3, -4]])
    return Effect.gen(function* () {
      const client = yield* newClient
      const data = [bare(Tensor.int64([1, 2, 3, 4], [2, 2]))]
      yield* client.forwardBackwardCustom(data, (batch) => {
        assert.strictEqual(batch[0]?.datum, data[0])
        assert.deepStrictEqual(batch[0]?.shape, [2, 2])
        return { loss: 0, gradients: [[0, 0, 0, 0.5]] }
      })
      const [forward, backward] = yield* requests(fake)
      assert.deepStrictEqual(forward?.data[0]?.lossFnInputs["weights"]?.shape, [2, 2])
      assert.deepStrictEqual(backward?.data[0]?.lossFnInputs["weights"]?.shape, [2, 2])
      // No -0 where there is no gradient.
      assert.deepStrictEqual(numbers(backward?.data[0]?.lossFnInputs["weights"]), [0, 0, 0, -0.5])
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("waits for a loss that asks somebody, and fails as it fails", () => {
    class NoReward extends Schema.TaggedError<NoReward>()("NoReward", {}) {}
    const fake = answering([[-1]])
    return Effect.gen(function* () {
      const client = yield* newClient
      const error = yield* Effect.flip(
        client.forwardBackwardCustom([bare(Tensor.int64([1]))], () => Effect.fail(new NoReward()))
      )
      assert.strictEqual(error._tag, "NoReward")
      assert.strictEqual(fake.of("forward_backward").length, 1)
      yield* (yield* client.optimStep({ learningRate: 1 })).result
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it("fails as the loss fails and needs what it needs, and nothing else", () => {
    class Judge extends Context.Service<Judge, { readonly score: Effect.Effect<number, "unfair"> }>()("test/Judge") {}
    const check = (client: TrainingClient) => {
      const plain = client.forwardBackwardCustom([], () => ({ loss: 0, gradients: [] }))
      expectTypeOf(plain).toEqualTypeOf<Effect.Effect<ApiFuture<CustomOutput>, TinkerError>>()
      const judged = client.forwardBackwardCustom([], () =>
        Effect.flatMap(Judge, ({ score }) => Effect.map(score, (loss) => ({ loss, gradients: [] })))
      )
      expectTypeOf(judged).toEqualTypeOf<Effect.Effect<ApiFuture<CustomOutput>, TinkerError | "unfair", Judge>>()
      // @ts-expect-error a loss without a gradient
      void client.forwardBackwardCustom([], () => ({ loss: 0 }))
    }
    assert.isFunction(check)
  })

  it.effect.each<[string, Datum, string]>([
    ["another input", bare(Tensor.int64([1]), { x: Tensor.int64([1]) }), "data[0].lossFnInputs.x is unknown"],
    [
      "another input",
      { modelInput: { chunks: [] }, lossFnInputs: {} },
      "data[0].lossFnInputs.target_tokens is missing"
    ],
    [
      "sparse targets",
      bare({ dtype: "int64", data: [1], shape: [1, 9], csr: { crow: [0, 1], col: [3] } }),
      "data[0].lossFnInputs.target_tokens is sparse"
    ]
  ])("refuses what it cannot judge before anything is sent: %s", ([, datum, words]) => {
    const fake = answering([[-1]])
    return Effect.gen(function* () {
      const client = yield* newClient
      const error = yield* Effect.flip(client.forwardBackwardCustom([datum], () => ({ loss: 0, gradients: [[0]] })))
      assert.include(error.message, words)
      assert.strictEqual(yield* client.nextSeq, 1)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect.each<[string, CustomLoss.LossValue, string]>([
    ["too few", { loss: 0, gradients: [] }, "gradients has 0 entries, and must have one for each of 1 datums"],
    ["too short", { loss: 0, gradients: [[1]] }, "gradients[0] has 1 numbers, and must have one for each of 2"],
    ["no number", { loss: 0, gradients: [[1, Number.NaN]] }, "gradients[0][1] is NaN"],
    ["beyond float32", { loss: 0, gradients: [[1e300, 0]] }, "gradients[0][0] is 1e+300"],
    ["no loss", { loss: Number.NaN, gradients: [[1, 1]] }, "loss came to NaN"]
  ])("refuses a gradient that would damage the model: %s", ([, value, words]) => {
    const fake = answering([[-1, -2]])
    return Effect.gen(function* () {
      const client = yield* newClient
      const error = yield* Effect.flip(client.forwardBackwardCustom([bare(Tensor.int64([1, 2]))], () => value))
      assert.include(error.message, words)
      assert.strictEqual(fake.of("forward_backward").length, 1)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect.each<[string, ReadonlyArray<ReadonlyArray<number>>]>([
    ["of another count", [[-1]]],
    ["of more datums", [[-1, -2], [-1], [-1]]],
    [
      "of another length",
      [
        [-1, -2],
        [-1, -2]
      ]
    ]
  ])("takes no log-probabilities %s for those of the batch", ([, rows]) => {
    const fake = answering(rows)
    return Effect.gen(function* () {
      const client = yield* newClient
      const data = [bare(Tensor.int64([1, 2])), bare(Tensor.int64([1]))]
      const error = yield* Effect.flip(client.forwardBackwardCustom(data, () => ({ loss: 0, gradients: [] })))
      assert.strictEqual(error.reason._tag, "BadResponse")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})
