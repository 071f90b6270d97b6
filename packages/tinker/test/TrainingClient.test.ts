import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { ServiceClient } from "../src/ServiceClient.ts"
import * as Protobuf from "../src/wire/Protobuf.ts"
import * as Zstd from "../src/wire/Zstd.ts"
import * as Fake from "./support/fakeService.ts"

const adam = { learningRate: 0.01 }
const loss = { loss: "cross_entropy" }
const batch = [Fake.datum(1, 2)]

const newClient = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "org/base", rank: 8, seed: 3 })
)

describe("TrainingClient", () => {
  it.effect("makes a model, trains it and saves it", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const client = yield* newClient
      assert.strictEqual(client.modelId, "s0:train:0")
      assert.strictEqual(yield* client.nextSeq, 1)
      const pass = yield* client.forwardBackward(batch, loss)
      const update = yield* client.optimStep(adam)
      const save = yield* client.saveState("first", { ttl: "1 hour" })
      assert.deepStrictEqual((yield* pass.result).metrics, { "loss:sum": 1 })
      assert.deepStrictEqual((yield* update.result).metrics, { grad_norm: 2 })
      assert.deepStrictEqual(yield* save.result, { path: "tinker://run/weights/3" })
      assert.strictEqual(yield* client.nextSeq, 4)
      assert.deepStrictEqual(
        fake.seen.map((seen) => seen.path).filter((path) => path !== "retrieve_future"),
        [
          "client/config",
          "client/dynamic_config",
          "create_session",
          "create_model",
          "forward_backward",
          "optim_step",
          "save_weights"
        ]
      )
      assert.strictEqual(fake.seen[0]?.url, "http://service.test/prefix/api/v1/client/config")
      assert.isTrue(fake.seen.every((seen) => seen.headers["x-api-key"] === Fake.key))
      assert.deepStrictEqual(fake.of("create_model")[0]?.json, {
        session_id: "s0",
        model_seq_id: 0,
        base_model: "org/base",
        lora_config: { rank: 8, seed: 3, train_unembed: true, train_mlp: true, train_attn: true },
        type: "create_model"
      })
      assert.deepStrictEqual(fake.of("optim_step")[0]?.json, {
        adam_params: { learning_rate: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-12, weight_decay: 0, grad_clip_norm: 0 },
        model_id: "s0:train:0",
        seq_id: 2,
        type: "optim_step"
      })
      assert.deepStrictEqual(fake.of("save_weights")[0]?.json, {
        path: "first",
        ttl_seconds: 3600,
        overwrite: false,
        model_id: "s0:train:0",
        seq_id: 3,
        type: "save_weights"
      })
      const sent = yield* Protobuf.decodeForwardBackwardRequest(
        fake.of("forward_backward")[0]?.body ?? new Uint8Array()
      )
      assert.strictEqual(sent.modelId, "s0:train:0")
      assert.strictEqual(sent.seqId, 1)
      assert.strictEqual(sent.lossFn, "cross_entropy")
      assert.isFalse(sent.forwardOnly)
      assert.deepStrictEqual(Array.from(sent.data[0]?.lossFnInputs.target_tokens?.data ?? []), [2, 3])
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})
