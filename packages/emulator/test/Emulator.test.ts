import * as Json from "@tinkex/tinker/wire/Json"
import * as Protobuf from "@tinkex/tinker/wire/Protobuf"
import * as Zstd from "@tinkex/tinker/wire/Zstd"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "../src/index.ts"
import * as Api from "./api.ts"

const [first = [], second = []] = Api.batches

const decodes = <A, I>(schema: Schema.Codec<A, I>, body: unknown) => Schema.decodeUnknownEffect(schema)(body)

describe("credentials", () => {
  it.effect("a key is needed everywhere but on healthz, and must look like one", () =>
    Effect.gen(function* () {
      const status = (key: string | null) =>
        Effect.map(Api.request("GET", "/api/v1/training_runs", { key }), (answer) => answer.status)
      assert.strictEqual(yield* status(null), 401)
      assert.strictEqual(yield* status("secret"), 401)
      assert.strictEqual(yield* status("tml-x"), 200)
      assert.strictEqual(yield* status("eyJ.x.y"), 200)
      assert.strictEqual((yield* Api.request("GET", "/api/v1/healthz", { key: null })).status, 200)
    }).pipe(Api.provided())
  )

  it.effect("with a list of keys another one is forbidden", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* Api.request("GET", "/api/v1/training_runs", { key: "tml-a" })).status, 200)
      assert.strictEqual((yield* Api.request("GET", "/api/v1/training_runs", { key: "tml-b" })).status, 403)
    }).pipe(Api.provided({ apiKeys: ["tml-a"] }))
  )
})

describe("configuration and sessions", () => {
  it.effect("answers in the shapes of the contract", () =>
    Effect.gen(function* () {
      const config = yield* Api.post("client/config", { sdk_version: "x" })
      assert.isFalse((yield* decodes(Json.ClientConfig, config.body)).pjwt_auth_enabled)
      yield* decodes(Json.DynamicConfig, (yield* Api.post("client/dynamic_config", { sdk_version: "x" })).body)
      const capabilities = yield* decodes(Json.ServerCapabilities, (yield* Api.get("get_server_capabilities")).body)
      assert.deepInclude(
        capabilities.supported_models.map((model) => model.model_name),
        "tiny/byte-lm-16"
      )
      const model = yield* Api.newModel
      const info = yield* Api.post("get_info", { model_id: model })
      assert.deepInclude(yield* decodes(Json.ModelInfo, info.body), { model_id: model, lora_rank: 4, is_lora: true })
      const sessionId = model.slice(0, model.indexOf(":"))
      const session = yield* Api.get(`sessions/${sessionId}`)
      assert.deepStrictEqual((yield* decodes(Json.SessionInfo, session.body)).training_run_ids, [model])
    }).pipe(Api.provided())
  )

  it.effect("client/config can be replaced in parts", () =>
    Effect.gen(function* () {
      const config = yield* Api.post("client/config", { sdk_version: "x" })
      const { fwdbwd_max_chunk_len, parallel_fwdbwd_chunks } = yield* decodes(Json.ClientConfig, config.body)
      assert.deepStrictEqual([fwdbwd_max_chunk_len, parallel_fwdbwd_chunks], [2, true])
    }).pipe(Api.provided({ clientConfig: { fwdbwd_max_chunk_len: 2 } }))
  )

  it.effect("a session lives by its heartbeats; when it ends its models are unloaded", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const beat = Api.post("session_heartbeat", { session_id: session })
      for (let i = 0; i < 5; i++) {
        yield* TestClock.adjust("200 seconds")
        assert.strictEqual((yield* beat).status, 200)
      }
      // Something is waiting for number 1 when the session ends.
      const waiting = yield* Api.optimStep(model, 2)
      yield* TestClock.adjust("301 seconds")
      assert.deepInclude((yield* control.models)[0], { status: "unloaded", corrupted: false })
      assert.strictEqual((yield* beat).status, 404)
      const failed = (yield* Api.poll(waiting.body.request_id)).body
      assert.include(failed.error, `Model ${model} not loaded`)
      assert.strictEqual(failed.category, "server")
      const refused = yield* Api.optimStep(model, 1)
      assert.strictEqual(refused.status, 400)
      assert.include(refused.body.detail, "not loaded")
      assert.strictEqual((yield* Api.post("create_model", Api.modelBody(session, 1))).status, 404)
    }).pipe(Api.provided())
  )

  it.effect("a heartbeat on an unknown session is 404", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* Api.post("session_heartbeat", { session_id: "nobody" })).status, 404)
    }).pipe(Api.provided())
  )
})

describe("models", () => {
  it.effect("refuses what it cannot create, naming what is wrong", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const create = (more: Record<string, unknown>) => Api.post("create_model", Api.modelBody(session, 0, more))
      const unknown = yield* create({ base_model: "Qwen/Qwen3-8B" })
      assert.strictEqual(unknown.status, 400)
      assert.include(unknown.body.detail, "tiny/byte-lm-16")
      assert.strictEqual((yield* create({ base_model: "" })).body.detail, "base_model is required")
      const rank = (rank: number) =>
        Effect.map(create({ lora_config: { rank } }), ({ body, status }) => `${status} ${String(body.detail)}`)
      assert.strictEqual(yield* rank(0), "400 lora_config.rank must be positive")
      assert.strictEqual(yield* rank(12), "400 lora_config.rank must be a power of 2")
      assert.match(yield* rank(1e9), /^400 /)
      const none = { rank: 4, train_mlp: false, train_attn: false, train_unembed: false }
      assert.strictEqual((yield* create({ lora_config: none })).status, 400)
      assert.strictEqual((yield* create({ lora_config: { rank: 4 } })).status, 200)
    }).pipe(Api.provided())
  )

  it.effect("serves more names on request", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session, 0, { base_model: "Qwen/Qwen3-8B" })
      assert.strictEqual((yield* Api.get(`training_runs/${model}`)).body.base_model, "Qwen/Qwen3-8B")
    }).pipe(Api.provided({ models: { "Qwen/Qwen3-8B": "tiny/byte-lm-16" } }))
  )

  it.effect("unload ends the model; asked again it says the same", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      for (let i = 0; i < 2; i++) {
        assert.strictEqual((yield* Api.settle(Api.post("unload_model", { model_id: model }))).model_id, model)
      }
      assert.include((yield* Api.optimStep(model, 1)).body.detail, "not loaded")
    }).pipe(Api.provided())
  )
})

describe("training", () => {
  it.effect("the loss falls, and forward changes nothing", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const loss = (seqId: number, forwardOnly: boolean) =>
        Effect.map(
          Api.settle(Api.forwardBackward(model, seqId, first, { forwardOnly })),
          (result) => result.metrics?.["loss:sum"] ?? Number.NaN
        )
      const before = yield* loss(1, true)
      const hash = yield* control.stateHash(model)
      assert.strictEqual(yield* loss(2, true), before)
      assert.strictEqual(yield* control.stateHash(model), hash)
      for (let seqId = 3; seqId < 23; seqId += 2) {
        yield* loss(seqId, false)
        yield* Api.settle(Api.optimStep(model, seqId + 1))
      }
      assert.isBelow(yield* loss(23, true), before * 0.8)
    }).pipe(Api.provided())
  )

  it.effect("results are protobuf where asked for, JSON otherwise, and the same every time", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const sent = yield* Api.forwardBackward(model, 1, first)
      const json = (yield* Api.poll(sent.body.request_id)).body
      const raw = yield* Api.poll(sent.body.request_id, "application/x-protobuf")
      const again = yield* Api.poll(sent.body.request_id, "application/x-protobuf, application/json")
      assert.include(raw.type, "application/x-protobuf")
      assert.deepStrictEqual(again.bytes, raw.bytes)
      const output = yield* Protobuf.decodeForwardBackwardOutput(raw.bytes)
      assert.strictEqual(output.lossFnOutputs.length, 2)
      assert.strictEqual(output.metrics["loss:sum"], json.metrics?.["loss:sum"])
      const logprobs = Array.from(output.lossFnOutputs[0]?.["logprobs"]?.data ?? [])
      assert.deepStrictEqual(logprobs, [...(json.loss_fn_outputs?.[0]?.["logprobs"]?.data ?? [])])
      assert.strictEqual(logprobs.length, "the quick brown fox".length - 1)
      // The loss is the sum of what the outputs say, in single precision.
      const sum = output.lossFnOutputs.flatMap((datum) => Array.from(datum["logprobs"]?.data ?? []))
      assert.closeTo(-sum.reduce((a, b) => a + b, 0), json.metrics?.["loss:sum"] ?? 0, 1e-3)
    }).pipe(Api.provided())
  )

  it.effect("a failed operation is a JSON reply whatever was accepted", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const sent = yield* Api.forwardBackward(model, 1, first, { loss: "no_such_loss" })
      const answer = yield* Api.poll(sent.body.request_id, "application/x-protobuf")
      assert.include(answer.type, "application/json")
      assert.strictEqual(answer.status, 200)
      assert.include(answer.body.error, "no_such_loss")
      assert.strictEqual(answer.body.category, "user")
      assert.isUndefined((yield* Api.settle(Api.forwardBackward(model, 2, first))).error)
    }).pipe(Api.provided())
  )

  it.effect("bodies may be zstd, or the JSON of older clients, on either path", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const plain = yield* Api.createModel(session, 0)
      const zstd = yield* Api.createModel(session, 1)
      const json = yield* Api.createModel(session, 2)
      yield* Api.settle(Api.forwardBackward(plain, 1, first))
      const request = { modelId: zstd, seqId: 1, data: first, lossFn: "cross_entropy", lossFnConfig: {} }
      yield* Api.settle(
        Api.request("POST", "/api/v1/forward_backward", {
          bytes: Zstd.compress(Protobuf.encodeForwardBackwardRequest({ ...request, forwardOnly: false })),
          headers: { "content-encoding": "zstd" }
        })
      )
      const input = {
        data: first.map(({ lossFnInputs, modelInput }) => ({
          model_input: {
            chunks: modelInput.chunks.map((chunk) => ({
              tokens: chunk.type === "encoded_text" ? Array.from(chunk.tokens) : []
            }))
          },
          loss_fn_inputs: Object.fromEntries(
            Object.entries(lossFnInputs).map(([key, { data, dtype }]) => [key, { data: Array.from(data), dtype }])
          )
        })),
        loss_fn: "cross_entropy"
      }
      yield* Api.settle(Api.post("forward_backward", { forward_backward_input: input, model_id: json, seq_id: 1 }))
      for (const model of [plain, zstd, json]) yield* Api.settle(Api.optimStep(model, 2))
      const hash = yield* control.stateHash(plain)
      assert.strictEqual(yield* control.stateHash(zstd), hash)
      assert.strictEqual(yield* control.stateHash(json), hash)
      const forward = yield* Api.settle(Api.post("forward", { forward_input: input, model_id: json, seq_id: 3 }))
      assert.isNumber(forward.metrics?.["loss:sum"])
      assert.strictEqual(yield* control.stateHash(json), hash)
    }).pipe(Api.provided())
  )

  it.effect("several targets a position, dense or sparse, give a matrix of logprobs", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const tensor = (dtype: "int64" | "float32", data: ReadonlyArray<number>, shape: ReadonlyArray<number>) => ({
        dtype,
        data,
        shape
      })
      const csr = { crow: [0, 2, 2, 3], col: [0, 1, 1] }
      const dense = {
        target_tokens: tensor("int64", [98, 7, 0, 0, 0, 9], [3, 2]),
        weights: tensor("float32", [1, 0.5, 0, 0, 0, 2], [3, 2])
      }
      const sparse = {
        target_tokens: { ...tensor("int64", [98, 7, 9], [3, 2]), csr },
        weights: { ...tensor("float32", [1, 0.5, 2], [3, 2]), csr }
      }
      const results = yield* Effect.forEach([dense, sparse], (lossFnInputs, i) =>
        Effect.gen(function* () {
          const datum = { ...Api.datum("abcd"), lossFnInputs }
          const submitted = yield* Effect.flatMap(Api.forwardBackward(model, 1 + i, [datum]), Api.expectOk)
          const answer = yield* Api.poll(submitted.body.request_id, "application/x-protobuf")
          return yield* Protobuf.decodeForwardBackwardOutput(answer.bytes)
        })
      )
      const [first, second] = results
      assert.deepStrictEqual(first, second)
      assert.deepStrictEqual(first?.lossFnOutputs[0]?.["logprobs"]?.shape, [3, 2])
      const logprobs = first?.lossFnOutputs[0]?.["logprobs"]?.data ?? []
      const expected = -(logprobs[0] ?? 0) - 0.5 * (logprobs[1] ?? 0) - 2 * (logprobs[5] ?? 0)
      assert.closeTo(first?.metrics["loss:sum"] ?? 0, expected, 1e-5)

      const legacy = (crow: ReadonlyArray<number>, col: ReadonlyArray<number>) => ({
        model_id: model,
        seq_id: 3,
        forward_input: {
          loss_fn: "cross_entropy",
          data: [
            {
              model_input: { chunks: [{ tokens: [97, 98, 99] }] },
              loss_fn_inputs: {
                target_tokens: {
                  data: [98, 7, 9],
                  dtype: "int64",
                  shape: [3, 2],
                  sparse_crow_indices: crow,
                  sparse_col_indices: col
                }
              }
            }
          ]
        }
      })
      for (const [i, [crow, col]] of (
        [
          [[0, 2, 2, 1e15], csr.col],
          [[0, 3, 2, 3], csr.col],
          [csr.crow, [0, 1, 2]],
          [csr.crow, [0, -1, 1]],
          [csr.crow, [0]]
        ] as const
      ).entries()) {
        const json = { ...legacy(crow, col), seq_id: 3 + i }
        assert.include((yield* Api.settle(Api.post("forward", json))).error, "do not fit its shape 3 x 2", `case ${i}`)
      }

      const huge = {
        dtype: "int64" as const,
        data: [],
        shape: [2000, 1024],
        csr: { crow: Array.from({ length: 2001 }, () => 0), col: [] }
      }
      const claims = Array.from({ length: 20 }, () => ({
        ...Api.datum("a".repeat(2001)),
        lossFnInputs: { target_tokens: huge }
      }))
      const refusal = yield* Api.settle(Api.forwardBackward(model, 8, claims))
      assert.include(refusal.error, "the sparse inputs have 40960000 entries")

      const wrong = { ...Api.datum("abcd"), lossFnInputs: { ...dense, weights: tensor("float32", [1, 1, 1], [3]) } }
      const failed = yield* Api.settle(Api.forwardBackward(model, 9, [wrong]))
      assert.include(failed.error, "weights is 3; this server takes one value for each of the 3 x 2 targets")
      assert.strictEqual(failed.category, "user")
    }).pipe(Api.provided())
  )

  it.effect("a compressed body that would grow beyond bounds is refused", () =>
    Effect.gen(function* () {
      const bytes = Zstd.compress(new Uint8Array(256 * 1024 * 1024 + 1))
      assert.isBelow(bytes.length, 100_000)
      const headers = { "content-encoding": "zstd" }
      const answer = yield* Api.request("POST", "/api/v1/forward_backward", { bytes, headers })
      assert.strictEqual(answer.status, 422)
      assert.include(answer.body.detail, "more than 268435456 bytes")
    }).pipe(Api.provided())
  )

  it.effect("compute none answers with the right shapes and keeps the ledger", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const result = yield* Api.settle(Api.forwardBackward(model, 1, first))
      assert.deepStrictEqual(
        result.loss_fn_outputs?.map((output) => output["logprobs"]?.data.length),
        [18, 9]
      )
      yield* Api.settle(Api.optimStep(model, 2))
      assert.strictEqual((yield* control.ledger(model)).length, 1)
      const saved = yield* Api.settle(Api.saveWeights(model, 3, "a"))
      const session = yield* Api.createSession
      const other = yield* Api.createModel(session)
      yield* Api.settle(Api.loadWeights(other, 1, saved.path ?? ""))
      assert.strictEqual(yield* control.stateHash(other), yield* control.stateHash(model))
    }).pipe(Api.provided({ compute: "none" }))
  )
})

describe("polling", () => {
  it.effect("waits for the result, at most as long as a poll may take", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const early = yield* Api.optimStep(model, 2)
      const first = yield* Effect.forkChild(Api.poll(early.body.request_id))
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual((yield* Fiber.join(first)).body, {
        type: "try_again",
        request_id: early.body.request_id,
        queue_state: "active"
      })
      const second = yield* Effect.forkChild(Api.poll(early.body.request_id))
      yield* TestClock.adjust("10 seconds")
      yield* Api.optimStep(model, 1)
      assert.isObject((yield* Fiber.join(second)).body.metrics)
    }).pipe(Api.provided())
  )

  it.effect("several polls of one promise may overlap", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const early = yield* Api.optimStep(model, 2)
      const polls = yield* Effect.forkChild(
        Effect.all([Api.poll(early.body.request_id), Api.poll(early.body.request_id)], { concurrency: 2 })
      )
      yield* TestClock.adjust("1 seconds")
      yield* Api.optimStep(model, 1)
      const [a, b] = yield* Fiber.join(polls)
      assert.isObject(a.body.metrics)
      assert.deepStrictEqual(a.body, b.body)
    }).pipe(Api.provided())
  )

  it.effect("a result can be had until its time is over, then it is gone; what was never promised is unknown", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const sent = yield* Api.optimStep(model, 1)
      const { request_id } = sent.body
      for (let i = 0; i < 3; i++) assert.isObject((yield* Api.poll(request_id)).body.metrics)
      yield* TestClock.adjust("61 minutes")
      assert.strictEqual((yield* Api.poll(request_id)).status, 410)
      assert.strictEqual((yield* Api.poll("req-other-0")).status, 410)
      assert.strictEqual((yield* Api.poll("nonsense")).status, 404)
    }).pipe(Api.provided({ sessionTimeout: "2 hours" }))
  )
})

describe("checkpoints", () => {
  it.effect("a save is a snapshot at its place in the sequence", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      yield* Api.train(model, 1, 0, 2)
      const hash = yield* control.stateHash(model)
      // Sent in one go: the save must not see what is behind it.
      const save = yield* Api.saveWeights(model, 5, "two")
      yield* Api.forwardBackward(model, 6, second)
      const last = yield* Api.optimStep(model, 7)
      yield* Api.poll(last.body.request_id)
      assert.notStrictEqual(yield* control.stateHash(model), hash)
      const path = (yield* Api.poll(save.body.request_id)).body.path ?? ""
      assert.strictEqual(path, `tinker://${model}/weights/two`)
      const copy = yield* Api.createModel(session, 1, { lora_config: { rank: 4 } })
      const loaded = yield* Api.settle(Api.loadWeights(copy, 1, path))
      assert.deepInclude(loaded, { path, model_id: copy })
      assert.strictEqual(yield* control.stateHash(copy), hash)
      assert.deepStrictEqual(yield* control.ledger(copy), (yield* control.ledger(model)).slice(0, 2))
      // The lineage goes on where the checkpoint stood.
      yield* Api.settle(Api.forwardBackward(copy, 2, second))
      yield* Api.settle(Api.optimStep(copy, 3))
      assert.deepInclude((yield* control.ledger(copy))[2], { step: 2, seqId: 3, modelId: copy })
      assert.strictEqual(yield* control.stateHash(copy), yield* control.stateHash(model))
    }).pipe(Api.provided())
  )

  it.effect("without the optimizer the weights are the same and the next step is another", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 3)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "three"))).path ?? ""
      const copy = yield* Api.createModel(session, 1)
      yield* Api.settle(Api.loadWeights(copy, 1, path, false))
      assert.strictEqual(yield* control.weightsHash(copy), yield* control.weightsHash(model))
      assert.notStrictEqual(yield* control.stateHash(copy), yield* control.stateHash(model))
      yield* Api.train(model, seq + 1, 3, 4)
      yield* Api.train(copy, 2, 3, 4)
      assert.notStrictEqual(yield* control.weightsHash(copy), yield* control.weightsHash(model))
    }).pipe(Api.provided())
  )

  it.effect("a load is the first in its sequence, also where what follows it arrives before it", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 1)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "a"))).path ?? ""
      const copy = yield* Api.createModel(session, 1)
      const early = yield* Api.forwardBackward(copy, 2, second, { forwardOnly: true })
      assert.isUndefined((yield* Api.settle(Api.loadWeights(copy, 1, path))).error)
      assert.isUndefined((yield* Api.poll(early.body.request_id)).body.error)
      assert.strictEqual(yield* control.stateHash(copy), yield* control.stateHash(model))
    }).pipe(Api.provided())
  )

  it.effect("a load makes a model of its own where a session and a number are given", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 2)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "a"))).path
      const load = Api.post("load_weights", { session_id: session, model_seq_id: 1, path, optimizer: true })
      const copy = (yield* Api.settle(load)).model_id ?? ""
      assert.strictEqual(copy, `${session}:train:1`)
      assert.strictEqual(yield* control.stateHash(copy), yield* control.stateHash(model))
      assert.strictEqual(yield* Api.train(copy, 1, 2, 3), 3)
      assert.strictEqual((yield* control.ledger(copy)).length, 3)
    }).pipe(Api.provided())
  )

  it.effect("a load that is not the first request of its model, or does not fit it, is refused", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 1)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "a"))).path ?? ""
      const late = yield* Api.loadWeights(model, seq + 1, path)
      assert.strictEqual(late.status, 400)
      assert.include(late.body.detail, `not permitted with seq_id ${seq + 1}`)
      // The refused number is spent; the model goes on behind it.
      assert.isUndefined((yield* Api.settle(Api.optimStep(model, seq + 2))).error)

      const gap = yield* Api.createModel(session, 4)
      assert.strictEqual((yield* Api.loadWeights(gap, 2, path)).status, 400)

      const other = yield* Api.createModel(session, 1, { lora_config: { rank: 8 } })
      const misfit = yield* Api.loadWeights(other, 1, path)
      assert.strictEqual(misfit.status, 400)
      assert.include(misfit.body.detail, "rank 8")
      const absent = yield* Api.createModel(session, 2)
      assert.strictEqual((yield* Api.loadWeights(absent, 1, `tinker://${model}/weights/none`)).status, 404)
      const bad = yield* Api.createModel(session, 3)
      assert.strictEqual((yield* Api.loadWeights(bad, 1, "s3://bucket/x")).status, 400)
    }).pipe(Api.provided())
  )

  it.effect("a name is saved once unless it may be overwritten", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      yield* Api.settle(Api.saveWeights(model, 1, "a"))
      const again = yield* Api.settle(Api.saveWeights(model, 2, "a"))
      assert.include(again.error, "ResourceAlreadyExists")
      assert.strictEqual(again.category, "user")
      const seq = yield* Api.train(model, 3, 0, 1)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "a", { overwrite: true }))).path ?? ""
      const copy = yield* Api.createModel(session, 1)
      yield* Api.settle(Api.loadWeights(copy, 1, path))
      assert.strictEqual(yield* control.stateHash(copy), yield* control.stateHash(model))
      assert.strictEqual((yield* Api.saveWeights(model, seq + 1, "a/b")).status, 422)
    }).pipe(Api.provided())
  )

  it.effect("lists, describes, deletes, and lets expire", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      for (const [index, name] of ["a", "b", "c"].entries()) {
        yield* TestClock.adjust("1 seconds")
        yield* Api.settle(Api.saveWeights(model, index + 1, name, name === "c" ? { ttl_seconds: 60 } : {}))
      }
      const names = (answer: Api.Answer) => (answer.body.checkpoints ?? []).map((one) => one.checkpoint_id)
      const listing = yield* Api.get(`training_runs/${model}/checkpoints`)
      const { checkpoints } = yield* decodes(Json.Checkpoints, listing.body)
      assert.deepStrictEqual(names(listing), ["weights/c", "weights/b", "weights/a"])
      assert.isAbove(checkpoints[0]?.size_bytes ?? 0, 1000)
      assert.isNotNull(checkpoints[0]?.expires_at)
      assert.isNull(checkpoints[1]?.expires_at)

      const run = yield* decodes(Json.TrainingRun, (yield* Api.get(`training_runs/${model}`)).body)
      assert.strictEqual(run.last_checkpoint?.checkpoint_id, "weights/c")
      const info = yield* Api.post("weights_info", { tinker_path: `tinker://${model}/weights/b` })
      assert.deepInclude(yield* decodes(Json.WeightsInfo, info.body), { base_model: "tiny/byte-lm-16", lora_rank: 4 })

      yield* TestClock.adjust("60 seconds")
      assert.deepStrictEqual(names(yield* Api.get(`training_runs/${model}/checkpoints`)), ["weights/b", "weights/a"])
      const page = yield* Api.get("checkpoints?limit=1&offset=1")
      assert.deepStrictEqual(names(page), ["weights/a"])
      assert.deepStrictEqual(page.body.cursor, { offset: 1, limit: 1, total_count: 2 })

      const of = (name: string) => `/api/v1/training_runs/${model}/checkpoints/${name}`
      assert.strictEqual((yield* Api.request("DELETE", of("a"))).status, 400)
      assert.strictEqual((yield* Api.request("DELETE", of("weights/a"))).status, 200)
      assert.strictEqual((yield* Api.request("DELETE", of("weights/a"))).status, 404)
      const gone = yield* Api.post("weights_info", { tinker_path: `tinker://${model}/weights/a` })
      assert.strictEqual(gone.status, 404)

      const ttl = (seconds: number | null) =>
        Effect.map(
          Api.request("PUT", `${of("weights/b")}/ttl`, { json: { ttl_seconds: seconds } }),
          ({ status }) => status
        )
      assert.strictEqual(yield* ttl(0), 400)
      // Its end would be no time, and no list could be written with it.
      assert.strictEqual(yield* ttl(2 ** 50), 400)
      assert.strictEqual((yield* Api.saveWeights(model, 4, "late", { ttl_seconds: 2 ** 50 })).status, 422)
      assert.strictEqual(yield* ttl(10), 200)
      assert.strictEqual(yield* ttl(null), 200)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(names(yield* Api.get("checkpoints")), ["weights/b"])
      assert.strictEqual(yield* ttl(10), 200)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(names(yield* Api.get("checkpoints")), [])
    }).pipe(Api.provided())
  )

  it.effect("lists runs newest first, in pages", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const models: Array<string> = []
      for (let n = 0; n < 3; n++) {
        yield* TestClock.adjust("1 seconds")
        models.push(yield* Api.createModel(session, n, { user_metadata: { n: `${n}` } }))
      }
      const page = yield* Api.get("training_runs?limit=2&offset=0")
      const { cursor, training_runs } = yield* decodes(Json.TrainingRuns, page.body)
      assert.deepStrictEqual(
        training_runs.map((run) => run.training_run_id),
        [models[2], models[1]]
      )
      assert.deepStrictEqual(training_runs[0]?.user_metadata, { n: "2" })
      assert.deepStrictEqual(cursor, { offset: 0, limit: 2, total_count: 3 })
      const past = yield* Api.get("training_runs?offset=9")
      assert.deepStrictEqual(past.body.training_runs, [])
      assert.strictEqual(past.body.cursor?.total_count, 3)
      assert.strictEqual((yield* Api.get("training_runs/nobody")).status, 404)
      assert.strictEqual((yield* Api.get("training_runs?limit=x")).status, 422)
    }).pipe(Api.provided())
  )
})

describe("poison", () => {
  it.effect("EM4: flags the run, fails what waits and what comes, and leaves its checkpoints usable", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 1)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "good"))).path ?? ""
      const hash = yield* control.stateHash(model)
      const waiting = yield* Api.optimStep(model, seq + 2)
      yield* control.poison(model)
      assert.isTrue((yield* Api.get(`training_runs/${model}`)).body.corrupted)
      const expected = { error: `Model ${model} is corrupted; nothing more can be done with it`, category: "server" }
      assert.deepStrictEqual((yield* Api.poll(waiting.body.request_id)).body, { ...expected } as never)
      assert.deepStrictEqual(yield* Api.settle(Api.optimStep(model, seq + 1)), { ...expected } as never)
      assert.deepStrictEqual(yield* Api.settle(Api.saveWeights(model, seq + 3, "late")), { ...expected } as never)
      assert.strictEqual((yield* control.ledger(model)).length, 1)

      const fresh = yield* Api.createModel(session, 1)
      yield* Api.settle(Api.loadWeights(fresh, 1, path))
      assert.strictEqual(yield* control.stateHash(fresh), hash)
      assert.isFalse((yield* Api.get(`training_runs/${fresh}`)).body.corrupted)
    }).pipe(Api.provided())
  )

  it.effect("a corrupted run whose model is unloaded stays flagged", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      yield* control.poison(model)
      yield* TestClock.adjust("400 seconds")
      assert.isTrue((yield* Api.get(`training_runs/${model}`)).body.corrupted)
    }).pipe(Api.provided())
  )
})

describe("malformed requests", () => {
  it.effect("are 4xx with a detail, and the server lives on", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const status = (answer: Api.Answer) => {
        assert.property(answer.body, "detail")
        return answer.status
      }
      assert.strictEqual(status(yield* Api.get("nothing")), 404)
      assert.strictEqual(status(yield* Api.request("GET", "/")), 404)
      assert.strictEqual(status(yield* Api.request("PUT", "/api/v1/optim_step")), 404)
      for (const json of ["{", "[]", "null", "3", '"x"', "{}", "\u0000", '{"model_id":3}']) {
        for (const path of ["create_session", "create_model", "optim_step", "save_weights", "load_weights"]) {
          assert.strictEqual(status(yield* Api.post(path, json)), 422, `${path} ${json}`)
        }
      }
      const bad = yield* Api.post("optim_step", { model_id: model, seq_id: "one", adam_params: {} })
      assert.deepInclude(JSON.stringify(bad.body.detail), '"loc":["body","seq_id"]')
      for (const seq of [-1, 0, 1.5, 1e30]) {
        assert.strictEqual(status(yield* Api.optimStep(model, seq)), 422, `seq_id ${seq}`)
      }
      const proto = (bytes: Uint8Array, headers = {}) =>
        Api.request("POST", "/api/v1/forward_backward", { bytes, headers })
      assert.strictEqual(status(yield* proto(Uint8Array.of(255, 255, 255))), 422)
      assert.strictEqual(status(yield* proto(Uint8Array.of(1, 2, 3), { "content-encoding": "zstd" })), 422)
      assert.strictEqual(status(yield* proto(Uint8Array.of(1), { "content-encoding": "br" })), 415)
      assert.strictEqual(status(yield* proto(new Uint8Array(0))), 400)
      assert.strictEqual(status(yield* Api.forwardBackward(model, 0, first)), 422)
      for (const later of ["asample", "create_sampling_session", "save_weights_for_sampler"]) {
        assert.strictEqual(status(yield* Api.post(later, {})), 422, later)
      }
      assert.strictEqual(yield* Api.train(model, 1, 0, 1), 3)
    }).pipe(Api.provided())
  )

  it.effect.prop(
    "any bytes as a forward_backward are 4xx",
    [Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))],
    ([bytes]) =>
      Effect.gen(function* () {
        const answer = yield* Api.request("POST", "/api/v1/forward_backward", { bytes: Uint8Array.from(bytes) })
        assert.isTrue(answer.status >= 400 && answer.status < 500, `${answer.status}`)
      }).pipe(Api.provided())
  )
})

describe("options", () => {
  it.effect("bad ones are typed errors that name the option", () =>
    Effect.gen(function* () {
      const problem = (options: Parameters<typeof Emulator.layerHttpClient>[0]) =>
        Effect.map(Effect.flip(Effect.provide(Emulator, Emulator.layerHttpClient(options))), (error) =>
          error.reason._tag === "InvalidOption" ? error.reason.option : error.reason._tag
        )
      assert.strictEqual(yield* problem({ port: 70_000 }), "port")
      assert.strictEqual(yield* problem({ seed: 0.5 }), "seed")
      assert.strictEqual(yield* problem({ seed: Number.NaN }), "seed")
      assert.strictEqual(yield* problem({ models: { a: "b" } }), "models")
      assert.strictEqual(yield* problem({ samplingCapacity: 0 }), "samplingCapacity")
      // A caller without types, or one that reads a setting.
      const soon = "soon" as "1 second"
      for (const option of ["longPoll", "sessionTimeout", "resultRetention", "tokenLifetime", "buildTime"]) {
        assert.strictEqual(yield* problem({ [option]: soon }), option)
      }
      assert.strictEqual(yield* problem({ metadataOnlyAbove: Number.NaN }), "metadataOnlyAbove")
      assert.strictEqual(yield* problem({ directory: "/dev/null/x" }), "StorageFailed")
    })
  )

  it.effect("the same seed gives the same ids and the same model", () =>
    Effect.gen(function* () {
      const run = (seed: number) =>
        Effect.gen(function* () {
          const { control } = yield* Emulator
          const session = yield* Api.createSession
          const model = yield* Api.createModel(session, 0, { lora_config: { rank: 4 } })
          return [model, yield* control.stateHash(model)]
        }).pipe(Api.provided({ seed }))
      assert.deepStrictEqual(yield* run(5), yield* run(5))
      assert.notDeepEqual(yield* run(5), yield* run(6))
    })
  )

  it.effect("a request takes well under 0.3 ms of processor time in process", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const beat = Api.post("session_heartbeat", { session_id: session })
      for (let i = 0; i < 500; i++) yield* beat
      const start = process.cpuUsage()
      for (let i = 0; i < 1000; i++) yield* beat
      const { system, user } = process.cpuUsage(start)
      const millis = Duration.toMillis(Duration.micros(BigInt(user + system))) / 1000
      assert.isBelow(millis, 0.3)
    }).pipe(Api.provided({ faults: FaultPlan.none }))
  )
})
