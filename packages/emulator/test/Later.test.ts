import * as SamplingWire from "@tinkex/tinker/wire/SamplingSession"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "../src/index.ts"
import * as Api from "./api.ts"

const later = Api.provided({ api: "0.38" })

const openSampler = Effect.fnUntraced(function* (session: string) {
  const body = { session_id: session, sampling_session_seq_id: 0, base_model: "tiny/byte-lm-16" }
  return (yield* Effect.flatMap(Api.post("create_sampling_session", body), Api.expectOk)).body.sampling_session_id ?? ""
})

const sample = (sampler: string, seqId: number) =>
  Api.post("asample", {
    sampling_session_id: sampler,
    seq_id: seqId,
    num_samples: 2,
    prompt: { chunks: [{ tokens: [1] }] },
    sampling_params: { max_tokens: 2 }
  })

describe("api 0.25", () => {
  it.effect("knows nothing of what came later", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      for (const path of [
        `sessions/${session}/finish`,
        "retrieve_futures",
        "cancel_future",
        "join_sampling_session",
        "copy_weights",
        "save_weights_external"
      ]) {
        assert.strictEqual((yield* Api.post(path, {})).status, 404, path)
      }
      assert.strictEqual((yield* Api.get("billing/usage/checkpoints/current")).status, 404)
    }).pipe(Api.provided())
  )
})

describe("api 0.38", () => {
  it.effect("a session is finished by its client, once; heartbeats are 410 then", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const finish = (reason: unknown) => Api.post(`sessions/${session}/finish`, { reason })
      assert.strictEqual((yield* finish({ type: "success" })).status, 200)
      assert.strictEqual((yield* finish({ type: "errored" })).status, 200)
      assert.strictEqual((yield* finish("success")).status, 422)
      assert.strictEqual((yield* Api.post("session_heartbeat", { session_id: session })).status, 410)
      assert.strictEqual((yield* Api.optimStep(model, 1)).status, 400)
    }).pipe(later)
  )

  it.effect("completions of a sampling session are told by a cursor, for each of its clients", () =>
    Effect.gen(function* () {
      const sampler = yield* openSampler(yield* Api.createSession)
      const join = Effect.map(
        Api.post("join_sampling_session", { sampling_session_id: sampler }),
        ({ body }) => body.client_counter
      )
      assert.deepStrictEqual([yield* join, yield* join], [1, 2])
      const ask = Effect.fnUntraced(function* (prev_cursor: number, cloned_sampler_id = 0, timeout = 5) {
        const target = { type: "sampling_session", sampling_session_id: sampler, cloned_sampler_id }
        const answer = yield* Api.post("retrieve_futures", { target, prev_cursor, timeout })
        return yield* Schema.decodeUnknownEffect(SamplingWire.RetrieveFutures)(answer.body)
      })
      const first = yield* sample(sampler, 0)
      assert.deepStrictEqual<unknown>(first.body.sample_sequence_ids, [`${sampler}:0:0`, `${sampler}:0:1`])
      yield* Api.poll(first.body.request_id)
      const told = yield* ask(0)
      assert.deepInclude(told.completions[0], { state: "finished", request_id: `${sampler}:0` })
      assert.isAbove(told.completions[0]?.response_payload_uncompressed_size ?? 0, 10)

      const waiting = yield* Effect.forkChild(ask(told.cursor, 0, 5))
      const clone = yield* Effect.forkChild(ask(0, 1, 60))
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(waiting.pollUnsafe())
      yield* sample(sampler, 1)
      assert.strictEqual((yield* Fiber.join(waiting)).completions[0]?.state, "failed")
      yield* sample(sampler, 1_000_000_000)
      assert.deepStrictEqual(
        (yield* Fiber.join(clone)).completions.map(({ request_id }) => request_id),
        [`${sampler}:1000000000`]
      )
      const idle = yield* Effect.forkChild(ask(3, 0, 5))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* Fiber.join(idle), { completions: [], cursor: 3 })
    }).pipe(
      Api.provided({
        api: "0.38",
        faults: FaultPlan.make([FaultPlan.softFail({ operation: "asample", occurrence: 2 })])
      })
    )
  )

  it.effect("a request that nobody wants is cancelled; a finished one stays", () =>
    Effect.gen(function* () {
      const sampler = yield* openSampler(yield* Api.createSession)
      const submitted = yield* sample(sampler, 0)
      const cancel = (request_id: string) =>
        Effect.map(Api.post("cancel_future", { request_id }), ({ status }) => status)
      assert.strictEqual(yield* cancel(submitted.body.request_id), 204)
      assert.include((yield* Api.poll(submitted.body.request_id)).body.error, "cancelled")
      assert.strictEqual(yield* cancel("req-none"), 404)
      yield* TestClock.adjust("61 seconds")
      assert.include((yield* Api.poll(submitted.body.request_id)).body.error, "cancelled")
    }).pipe(
      Api.provided({
        api: "0.38",
        faults: FaultPlan.make([FaultPlan.pause({ after: 0, length: "1 minute" })])
      })
    )
  )

  it.effect("a checkpoint is copied into another session, and loads like the first", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const seq = yield* Api.train(model, 1, 0, 2)
      const { path } = yield* Api.settle(Api.saveWeights(model, seq, "two", { user_metadata: { note: "x" } }))
      const session = yield* Api.createSession
      const ask = { session_id: session, model_seq_id: 0, source_path: path, ttl_seconds: 60 }
      const copied = yield* Api.post("copy_weights", ask)
      assert.strictEqual(copied.body.tinker_path, `tinker://${session}:train:0/weights/two`)
      assert.deepStrictEqual((yield* Api.post("copy_weights", ask)).body, copied.body)
      const listed = (yield* Api.get("checkpoints")).body.checkpoints ?? []
      assert.deepStrictEqual(
        listed.map((checkpoint) => [checkpoint.tinker_path, checkpoint.expires_at]),
        [
          [path, null],
          [copied.body.tinker_path, "1970-01-01T00:01:00.000Z"]
        ]
      )
      const into = yield* Api.createModel(session, 1)
      // A number that is a model's already: its run stays what it is.
      assert.strictEqual((yield* Api.post("copy_weights", { ...ask, model_seq_id: 1 })).status, 409)
      assert.strictEqual((yield* Api.post("copy_weights", { ...ask, ttl_seconds: 2 ** 50 })).status, 422)
      yield* Api.settle(Api.loadWeights(into, 1, copied.body.tinker_path ?? ""))
      assert.strictEqual(yield* control.stateHash(into), yield* control.stateHash(model))
      assert.deepStrictEqual(yield* control.ledger(into), yield* control.ledger(model))
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual((yield* Api.get("checkpoints")).body.checkpoints?.length, 1)

      const project = { destination_project_id: "p", source_path: path }
      const filed = (yield* Api.post("copy_weights", project)).body.tinker_path ?? ""
      assert.strictEqual((yield* Api.post("copy_weights", project)).body.tinker_path, filed)
      const runs = (yield* Api.get("training_runs?project_id=p")).body.training_runs ?? []
      assert.strictEqual(runs.length, 1)
      assert.strictEqual(runs[0]?.last_checkpoint?.tinker_path, filed)
      assert.strictEqual((yield* Api.post("copy_weights", { source_path: path })).status, 422)
    }).pipe(later)
  )

  it.effect("weights for other programs are files of their own", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const ask = { model_id: model, seq_id: 1, path: "out" }
      const saved = yield* Api.settle(Api.post("save_weights_external", ask))
      assert.strictEqual(saved.path, `tinker://${model}/external_weights/out`)
      const encrypted = { ...ask, seq_id: 2, age_encryption_recipients: ["age1x"] }
      assert.strictEqual((yield* Api.post("save_weights_external", encrypted)).status, 422)
      const { urls = {} } = (yield* Api.get(
        `training_runs/${model}/checkpoints/external_weights/out/external_weights_urls`
      )).body
      assert.sameMembers(Object.keys(urls), ["adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"])
      const url = (urls["adapter_config.json"] ?? "").replace(/^http:\/\/[^/]+/, "")
      const config = yield* Api.request("GET", url, { key: null })
      assert.include(new TextDecoder().decode(config.bytes), "lora_alpha")
      const [usage] = (yield* Api.get("billing/usage/checkpoints/current")).body.data ?? []
      assert.deepInclude(usage, { checkpoint_count: 1 })
    }).pipe(later)
  )

  it.effect("a model may be created without a configuration of its adapter; the optimizer is adamw", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const body = { session_id: session, base_model: "tiny/byte-lm-16" }
      const created = yield* Api.settle(Api.post("create_model", { ...body, model_seq_id: 0 }))
      assert.strictEqual((yield* Api.get(`training_runs/${created.model_id}`)).body.lora_rank, 32)
      const other = { ...body, model_seq_id: 1, optimizer_config: { type: "dimuon", version: 1 } }
      assert.strictEqual((yield* Api.post("create_model", other)).status, 400)
    }).pipe(later)
  )
})
