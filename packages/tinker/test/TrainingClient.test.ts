import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Metric, Option, Schema, Scope, Tracer } from "effect"
import { TestClock } from "effect/testing"
import type { ApiFuture } from "../src/ApiFuture.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import type { TrainingClient } from "../src/TrainingClient.ts"
import { fromTokens } from "../src/wire/Datum.ts"
import * as Protobuf from "../src/wire/Protobuf.ts"
import * as Zstd from "../src/wire/Zstd.ts"
import * as Fake from "./support/fakeService.ts"

const adam = { learningRate: 0.01 }
const loss = { loss: "cross_entropy" }
const batch = [Fake.datum(1, 2)]

const newClient = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "org/base", rank: 8, seed: 3 })
)

const failing = <A, R>(effect: Effect.Effect<A, TinkerError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

const operations = new Set(["forward_backward", "optim_step", "save_weights", "load_weights"])
/** The operations as they came, repetitions left out. */
const sentOperations = (fake: Fake.Fake) => fake.seen.map((seen) => seen.path).filter((path) => operations.has(path))

/** Of each pass as it came: its number, and the first token of each datum. */
const sentTokens = (fake: Fake.Fake) =>
  Effect.forEach(fake.of("forward_backward"), (seen) =>
    Effect.map(Protobuf.decodeForwardBackwardRequest(seen.body), ({ data, seqId }) => [
      seqId,
      ...data.map(({ modelInput: { chunks } }) => (chunks[0]?.type === "encoded_text" ? chunks[0].tokens[0] : -1))
    ])
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

  it.effect("steps with another optimizer than AdamW where the model was made with it", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel: "org/base", optimizer: "dimuon" })
      yield* client.optimStep({ optimizer: "dimuon", learningRate: 0.02, gradClipNorm: 1 })
      assert.deepStrictEqual(fake.of("create_model")[0]?.json["optimizer_config"], { type: "dimuon", version: 1 })
      assert.deepStrictEqual(fake.of("optim_step")[0]?.json, {
        optimizer_params: { type: "dimuon", learning_rate: 0.02, grad_clip_norm: 1, beta1: 0.9 },
        model_id: "s0:train:0",
        seq_id: 1,
        type: "optim_step"
      })
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  describe("order (T1)", () => {
    it.effect("sends an operation only after its predecessor was accepted, whoever submits first", () => {
      const gate = Deferred.makeUnsafe<void>()
      const fake = Fake.make((seen) =>
        seen.path === "forward_backward" ? Effect.as(Deferred.await(gate), undefined) : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const pass = yield* client.prepare.forwardBackward(batch, loss)
        const update = yield* client.prepare.optimStep(adam)
        const save = yield* client.prepare.saveState("a")
        assert.deepStrictEqual([pass.seqIds, update.seqIds, save.seqIds], [[1], [2], [3]])
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(sentOperations(fake), [])
        const last = yield* Effect.forkChild(save.submit)
        const middle = yield* Effect.forkChild(update.submit)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(sentOperations(fake), [])
        const first = yield* Effect.forkChild(pass.submit)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(sentOperations(fake), ["forward_backward"])
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(first)
        yield* Fiber.join(middle)
        assert.deepStrictEqual(yield* (yield* Fiber.join(last)).result, { path: "tinker://run/weights/3" })
        assert.deepStrictEqual(sentOperations(fake), ["forward_backward", "optim_step", "save_weights"])
        assert.strictEqual(fake.of("forward_backward").length, 1)
        assert.strictEqual((yield* pass.submit).requestIds[0], "forward_backward:1")
        assert.strictEqual(fake.of("forward_backward").length, 1)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect.prop(
      "holds for any mix of operations and any delay",
      [Schema.Array(Schema.Literals(["pass", "update", "save"])).check(Schema.isMaxLength(12)), Schema.Int],
      ([kinds, seed]) => {
        const fake = Fake.make((seen) => Effect.as(Effect.sleep((Math.abs(seed) * 7 + seen.nth * 13) % 50), undefined))
        return Effect.gen(function* () {
          const building = yield* Effect.forkChild(newClient)
          yield* TestClock.adjust("5 seconds")
          const client = yield* Fiber.join(building)
          const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
          for (const [i, kind] of kinds.entries()) {
            const submitted: Effect.Effect<ApiFuture<unknown>, TinkerError> = kind === "pass"
              ? client.forwardBackward(batch, loss)
              : kind === "update"
                ? client.optimStep(adam)
                : client.saveState(`s${i}`)
            fibers.push(yield* Effect.forkChild(Effect.flatMap(submitted, ({ result }) => result)))
          }
          yield* TestClock.adjust("1 minute")
          for (const fiber of fibers) yield* Fiber.join(fiber)
          const path = { pass: "forward_backward", update: "optim_step", save: "save_weights" }
          assert.deepStrictEqual(
            sentOperations(fake),
            kinds.map((kind) => path[kind])
          )
          assert.deepStrictEqual(
            fake.seen.flatMap((seen) =>
              seen.path === "optim_step" || seen.path === "save_weights" ? [seen.json.seq_id] : []
            ),
            kinds.flatMap((kind, i) => (kind === "pass" ? [] : [i + 1]))
          )
        }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Fake.connect(fake))))
      }
    )
  })

  describe("resubmission (T2)", () => {
    it.effect("repeats a lost answer with the same number and the same bytes", () => {
      const fake = Fake.make((seen) =>
        (seen.path === "forward_backward" || seen.path === "optim_step") && seen.nth < 2 ? Fake.refused : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const fiber = yield* Effect.forkChild(
          Effect.gen(function* () {
            const pass = yield* client.forwardBackward(batch, loss)
            const update = yield* client.optimStep(adam)
            return [yield* pass.result, yield* update.result]
          })
        )
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
        for (const path of ["forward_backward", "optim_step"]) {
          const copies = fake.of(path).map((seen) => Buffer.from(seen.body).toString("hex"))
          assert.strictEqual(copies.length, 3)
          assert.strictEqual(new Set(copies).size, 1)
        }
        assert.strictEqual(yield* client.nextSeq, 3)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("takes a conflict on a repeated submission for what it is: accepted, and the answer lost", () => {
      const fake = Fake.make((seen) =>
        seen.path === "optim_step"
          ? seen.nth === 0
            ? Fake.refused
            : Fake.failing(409, "Invalid seq_id: expected 2, got 1")
          : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const fiber = yield* Effect.forkChild(failing(client.optimStep(adam)))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "Conflict")
        assert.strictEqual(fake.of("optim_step").length, 2)
        assert.strictEqual((yield* client.failure).reason._tag, "SubmissionRefused")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })
  })

  describe("refusals (T3)", () => {
    it.effect("freezes the client: nothing later is sent, what was accepted still arrives", () => {
      const fake = Fake.make((seen) =>
        seen.path === "optim_step"
          ? Fake.failing(422, "no such optimizer")
          : seen.path === "retrieve_future" && seen.json.request_id === "forward_backward:1" && seen.nth < 3
            ? { json: { type: "try_again", request_id: "x" } }
            : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const pass = yield* client.forwardBackward(batch, loss)
        const update = yield* client.prepare.optimStep(adam)
        const save = yield* client.prepare.saveState("later")
        const saving = yield* Effect.forkChild(Effect.exit(save.submit))
        const refusal = yield* failing(update.submit)
        assert.strictEqual(refusal._tag, "BadRequest")
        const blocked = yield* failing(save.submit)
        assert.strictEqual(blocked._tag, "SubmissionRefused")
        assert.include(blocked.message, "operation 2 was not accepted")
        assert.isTrue(Exit.isFailure(yield* Fiber.join(saving)))
        assert.strictEqual((yield* failing(client.optimStep(adam)))._tag, "SubmissionRefused")
        assert.strictEqual((yield* client.failure).reason._tag, "SubmissionRefused")
        const result = yield* Effect.forkChild(pass.result)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(result)).metrics["loss:sum"], 1)
        assert.strictEqual(fake.of("save_weights").length, 0)
        assert.strictEqual(fake.of("optim_step").length, 1)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect.each<[string, Fake.Answer, string]>([
      ["no connection", Fake.refused, "Transport"],
      ["silence", "silence", "Timeout"],
      ["5xx", Fake.failing(500), "ServerFailure"]
    ])("gives a submission up at the deadline and freezes: %s", ([, answer, tag]) => {
      const fake = Fake.make((seen) => (seen.path === "optim_step" ? answer : undefined))
      return Effect.gen(function* () {
        const client = yield* newClient
        const fiber = yield* Effect.forkChild(failing(client.optimStep(adam)))
        yield* TestClock.adjust("301 seconds")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, tag)
        assert.strictEqual((yield* failing(client.saveState("a")))._tag, "SubmissionRefused")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("takes an acceptance that cannot be read for a refusal", () => {
      const fake = Fake.make((seen) => (seen.path === "optim_step" ? { json: { id: "wrong field" } } : undefined))
      return Effect.gen(function* () {
        const client = yield* newClient
        assert.strictEqual((yield* failing(client.optimStep(adam)))._tag, "BadResponse")
        assert.strictEqual((yield* failing(client.optimStep(adam)))._tag, "SubmissionRefused")
        assert.strictEqual(fake.of("optim_step").length, 1)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })
  })

  describe("a lost run", () => {
    it.effect.each<[string, Fake.Answer]>([
      ["not loaded", Fake.failing(400, "Model s0:train:0 not loaded")],
      ["refusing every number", Fake.failing(409, "Sequence conflict: expected 1, got 2.")],
      ["unknown", Fake.failing(404, "No such model")],
      ["corrupted", Fake.failing(400, "Run s0:train:0 is corrupted")]
    ])("is told from the refusal of a submission: %s", ([, answer]) => {
      const fake = Fake.make((seen) => (seen.path === "optim_step" ? answer : undefined))
      return Effect.gen(function* () {
        const client = yield* newClient
        const reason = yield* failing(client.optimStep(adam))
        assert.strictEqual(reason._tag, "RunLost")
        assert.strictEqual((yield* client.failure).reason._tag, "RunLost")
        assert.strictEqual((yield* failing(client.forwardBackward(batch, loss)))._tag, "RunLost")
        assert.strictEqual(fake.of("forward_backward").length, 0)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect.each<[string, unknown, string]>([
      [
        "corrupted",
        { error: "Model s0:train:0 is corrupted; nothing more can be done", category: "server" },
        "RunLost"
      ],
      ["not loaded", { error: "Model s0:train:0 not loaded", category: "unknown" }, "RunLost"],
      ["a user's word", { error: "image is corrupted", category: "user" }, "RequestFailed"],
      ["another failure", { error: "NonFiniteInTensor", category: "server" }, "RequestFailed"],
      ["an unknown category", { error: "NonFiniteInTensor", category: "User" }, "RequestFailed"]
    ])("is told from the failure of an operation: %s", ([, body, tag]) => {
      const fake = Fake.make((seen) => (seen.path === "retrieve_future" && seen.nth > 0 ? { json: body } : undefined))
      return Effect.gen(function* () {
        const client = yield* newClient
        const update = yield* client.optimStep(adam)
        const reason = yield* failing(update.result)
        assert.strictEqual(reason._tag, tag)
        assert.strictEqual((yield* client.failure).reason._tag, tag)
        const next = yield* Effect.exit(client.saveState("after"))
        // Only a lost run ends a client: after another failure its owner decides.
        assert.strictEqual(Exit.isSuccess(next), tag !== "RunLost")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("leaves results that are on their way some time, then ends them", () => {
      const fake = Fake.make((seen) =>
        seen.path === "retrieve_future" && seen.json.request_id === "forward_backward:1"
          ? "silence"
          : seen.path === "optim_step"
            ? Fake.failing(400, "Model s0:train:0 not loaded")
            : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const pass = yield* client.forwardBackward(batch, loss)
        yield* failing(client.optimStep(adam))
        const fiber = yield* Effect.forkChild(failing(pass.result))
        yield* TestClock.adjust("29 seconds")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "RunLost")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("a failed save or forward pass costs no client", () => {
      const fake = Fake.make((seen) =>
        seen.path === "retrieve_future" && seen.nth > 0 && seen.nth < 3
          ? { json: { error: "disk full", category: "server" } }
          : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        assert.strictEqual(
          (yield* failing(Effect.flatMap(client.saveState("a"), (f) => f.result)))._tag,
          "RequestFailed"
        )
        assert.strictEqual(
          (yield* failing(Effect.flatMap(client.forward(batch, loss), (f) => f.result)))._tag,
          "RequestFailed"
        )
        const update = yield* client.optimStep(adam)
        yield* update.result
        const failure = yield* Effect.forkChild(client.failure)
        yield* TestClock.adjust("1 minute")
        assert.isUndefined(failure.pollUnsafe())
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })
  })

  describe("callers that go away (T4)", () => {
    it.effect("sends what was submitted although its caller was interrupted", () => {
      const fake = Fake.make((seen) =>
        seen.path === "forward_backward" && seen.nth === 0
          ? Effect.as(Effect.sleep("10 seconds"), undefined)
          : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const first = yield* Effect.forkChild(client.forwardBackward(batch, loss))
        const second = yield* Effect.forkChild(client.optimStep(adam))
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(second)
        yield* Fiber.interrupt(first)
        const third = yield* Effect.forkChild(Effect.flatMap(client.saveState("c"), (f) => f.result))
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(third)
        assert.deepStrictEqual(sentOperations(fake), ["forward_backward", "optim_step", "save_weights"])
        assert.strictEqual(fake.of("forward_backward").length, 1)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("fences the client when a fiber dies between preparing and submitting", () => {
      const fake = Fake.make()
      return Effect.gen(function* () {
        const client = yield* newClient
        const owner = yield* Effect.forkChild(Effect.andThen(client.prepare.optimStep(adam), Effect.never))
        yield* TestClock.adjust("1 second")
        const waiting = yield* Effect.forkChild(failing(client.saveState("behind")))
        yield* TestClock.adjust("1 second")
        assert.isUndefined(waiting.pollUnsafe())
        yield* Fiber.interrupt(owner)
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Fenced")
        assert.deepStrictEqual(sentOperations(fake), [])
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("fences the client when nobody submits what others wait for", () => {
      const fake = Fake.make()
      return Effect.gen(function* () {
        const client = yield* newClient
        yield* client.prepare.optimStep(adam)
        const waiting = yield* Effect.forkChild(failing(client.saveState("behind")))
        yield* TestClock.adjust("299 seconds")
        assert.isUndefined(waiting.pollUnsafe())
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Fenced")
        assert.deepStrictEqual(sentOperations(fake), [])
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })
  })

  describe("the fence (T5)", () => {
    it.effect("ends a submission, what queues behind it, and every result that is waited for", () => {
      const fake = Fake.make((seen) =>
        seen.path === "optim_step" || (seen.path === "retrieve_future" && seen.json.request_id === "forward_backward:1")
          ? "silence"
          : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const pass = yield* client.forwardBackward(batch, loss)
        const result = yield* Effect.forkChild(failing(pass.result))
        const inFlight = yield* Effect.forkChild(failing(client.optimStep(adam)))
        const queued = yield* Effect.forkChild(failing(client.saveState("q")))
        yield* TestClock.adjust("1 second")
        const sent = () =>
          fake.seen.filter(({ path }) => path !== "session_heartbeat" && path !== "client/dynamic_config").length
        const before = sent()
        yield* client.fence("the run moved on")
        yield* client.fence("again")
        const reasons = [yield* Fiber.join(result), yield* Fiber.join(inFlight), yield* Fiber.join(queued)]
        for (const reason of reasons) {
          assert.strictEqual(reason._tag, "Fenced")
          assert.include(reason.message, "the run moved on")
        }
        assert.include((yield* client.failure).message, "the run moved on")
        assert.strictEqual((yield* failing(client.prepare.optimStep(adam)))._tag, "Fenced")
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(sent(), before)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("comes with the end of the client's scope, and leaves the model alone", () => {
      const fake = Fake.make((seen) =>
        seen.path === "retrieve_future" && seen.nth > 0 ? { json: { type: "try_again" } } : undefined
      )
      return Effect.gen(function* () {
        const scope = yield* Scope.make()
        const client = yield* newClient.pipe(Scope.provide(scope))
        const pass = yield* client.forwardBackward(batch, loss)
        const result = yield* Effect.forkChild(failing(pass.result))
        yield* TestClock.adjust("1 second")
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(result))._tag, "Fenced")
        const polls = fake.of("retrieve_future").length
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(fake.of("retrieve_future").length, polls)
        assert.strictEqual(fake.of("unload_model").length, 0)
      }).pipe(Effect.provide(Fake.connect(fake)))
    })
  })

  describe("batches", () => {
    const config = (extra: object) => (seen: Fake.Seen) => (seen.path === "client/config" ? { json: extra } : undefined)

    it.effect("are split in order, one number each, and joined again", () => {
      const fake = Fake.make(config({ fwdbwd_max_chunk_len: 2 }))
      return Effect.gen(function* () {
        const client = yield* newClient
        const data = [1, 2, 3, 4, 5].map((token) => Fake.datum(token))
        const pass = yield* client.prepare.forwardBackward(data, loss)
        const update = yield* client.prepare.optimStep(adam)
        assert.deepStrictEqual([pass.seqIds, update.seqIds], [[1, 2, 3], [4]])
        const future = yield* pass.submit
        assert.deepStrictEqual(future.requestIds, ["forward_backward:1", "forward_backward:2", "forward_backward:3"])
        const output = yield* future.result
        assert.deepStrictEqual(output.metrics, { "loss:sum": 6 })
        assert.strictEqual(output.lossFnOutputs.length, 3)
        // The first of them goes last: a service that works in order begins with none before it has all.
        assert.deepStrictEqual(yield* sentTokens(fake), [
          [2, 3, 4],
          [3, 5],
          [1, 1, 2]
        ])
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("are sent one after the other where the service asks for it", () => {
      const fake = Fake.make(config({ fwdbwd_max_chunk_len: 2, parallel_fwdbwd_chunks: false }))
      return Effect.gen(function* () {
        const client = yield* newClient
        yield* client.forward(
          [1, 2, 3, 4, 5].map((token) => Fake.datum(token)),
          loss
        )
        assert.deepStrictEqual(yield* sentTokens(fake), [
          [1, 1, 2],
          [2, 3, 4],
          [3, 5]
        ])
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect.each<[boolean, Array<number>]>([
      [true, [2, 3, 2]],
      [false, [1, 2, 2]]
    ])(
      "that cannot be submitted whole end the client, and where possible leave the model alone: parallel %s",
      ([parallel, sent]) => {
        const fake = Fake.make((seen) =>
          seen.path === "forward_backward" &&
          Effect.runSync(Protobuf.decodeForwardBackwardRequest(seen.body)).seqId === 2
            ? seen.nth < 2
              ? Fake.refused
              : Fake.failing(422, "no")
            : config({ fwdbwd_max_chunk_len: 1, parallel_fwdbwd_chunks: parallel })(seen)
        )
        return Effect.gen(function* () {
          const client = yield* newClient
          const data = [1, 2, 3].map((token) => Fake.datum(token))
          const fiber = yield* Effect.forkChild(failing(client.forwardBackward(data, loss)))
          yield* TestClock.adjust("1 minute")
          assert.strictEqual((yield* Fiber.join(fiber))._tag, "BadRequest")
          assert.strictEqual((yield* failing(client.optimStep(adam)))._tag, "SubmissionRefused")
          assert.deepStrictEqual(
            (yield* sentTokens(fake)).map(([seqId]) => seqId),
            sent
          )
        }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
      }
    )

    it.effect("keep their place while they are written, and let others have a turn meanwhile", () => {
      const fake = Fake.make((seen) =>
        seen.path === "forward_backward" ? { json: { request_id: "forward_backward:1" } } : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const datum = { modelInput: fromTokens(new Int32Array(1_200_000)), lossFnInputs: {} }
        let turns = 0
        const others = yield* Effect.sync(() => void turns++).pipe(
          Effect.andThen(Effect.yieldNow),
          Effect.forever,
          Effect.forkChild
        )
        const large = yield* Effect.forkChild(client.prepare.forward([datum, datum, datum], { loss: "own" }), {
          startImmediately: true
        })
        const small = yield* Effect.forkChild(client.prepare.optimStep(adam), { startImmediately: true })
        assert.deepStrictEqual((yield* Fiber.join(small)).seqIds, [4])
        assert.deepStrictEqual((yield* Fiber.join(large)).seqIds, [1, 2, 3])
        assert.isAtLeast(turns, 2)
        yield* Fiber.interrupt(others)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("say whose they are, however long the name", () => {
      const fake = Fake.make()
      return Effect.gen(function* () {
        const service = yield* ServiceClient
        for (const length of [1, 400, 500, 510, 5000]) {
          const modelId = "m".repeat(length)
          const client = yield* service.attachTrainingClient({ modelId, sessionId: "s", nextSeq: 2 ** 30 + length })
          const lossConfig = { a: 1, mode: "strict" }
          const pass = yield* client.prepare.forward(batch, { loss: "own", lossConfig })
          const digest = pass.digest
          yield* pass.submit
          const sent = yield* Protobuf.decodeForwardBackwardRequest(
            fake.of("forward_backward").at(-1)?.body ?? new Uint8Array()
          )
          assert.deepStrictEqual([sent.modelId, sent.seqId], [modelId, 2 ** 30 + length])
          assert.deepStrictEqual([sent.lossFn, sent.lossFnConfig, sent.forwardOnly], ["own", lossConfig, true])
          assert.strictEqual(sent.data.length, 1)
          // What is sent does not change what it says.
          assert.strictEqual((yield* client.prepare.forward(batch, { loss: "own", lossConfig })).digest, digest)
        }
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("wait while more bytes are on their way than the service allows", () => {
      const gate = Deferred.makeUnsafe<void>()
      const fake = Fake.make((seen) =>
        seen.path === "forward_backward"
          ? Effect.as(Deferred.await(gate), undefined)
          : config({ fwdbwd_max_chunk_len: 1, fwdbwd_dispatch_bytes_semaphore_size: 250 })(seen)
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        const data = [1, 2, 3, 4, 5, 6, 7, 8].map((token) => Fake.datum(token))
        const fiber = yield* Effect.forkChild(client.forwardBackward(data, loss))
        yield* TestClock.adjust("1 second")
        const some = fake.of("forward_backward").length
        assert.isAbove(some, 1)
        assert.isBelow(some, 7)
        yield* Deferred.succeed(gate, undefined)
        yield* TestClock.adjust("1 second")
        yield* (yield* Fiber.join(fiber)).result
        assert.strictEqual(fake.of("forward_backward").length, 8)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("have one digest, whatever the model, the number, the split and the compression", () => {
      const digests = (extra: object, skip: number) => {
        const fake = Fake.make(config(extra))
        return Effect.gen(function* () {
          const service = yield* ServiceClient
          for (let i = 0; i < skip; i++) yield* service.createLoraTrainingClient({ baseModel: "org/base" })
          const client = yield* newClient
          for (let i = 0; i < skip; i++) yield* client.optimStep(adam)
          const data = [1, 2, 3].map((token) => Fake.datum(token))
          const ops = yield* Effect.all([
            client.prepare.forwardBackward(data, { loss: "own", lossConfig: { b: 2, a: 1 } }),
            client.prepare.forwardBackward(data, { loss: "own", lossConfig: { a: 1, b: 2 } }),
            client.prepare.forward(data, { loss: "own", lossConfig: { a: 1, b: 2 } }),
            client.prepare.forwardBackward(data.toReversed(), { loss: "own", lossConfig: { a: 1, b: 2 } }),
            client.prepare.forwardBackward(data, { loss: "own", lossConfig: { a: 1, b: 3 } }),
            client.prepare.optimStep(adam),
            client.prepare.optimStep({ ...adam, beta1: 0.8 }),
            client.prepare.saveState("a"),
            client.prepare.saveState("b")
          ])
          return ops.map((op) => op.digest)
        }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Fake.connect(fake))))
      }
      return Effect.gen(function* () {
        const plain = yield* digests({}, 0)
        assert.deepStrictEqual(yield* digests({ fwdbwd_max_chunk_len: 1, proto_compress_fwdbwd: true }, 2), plain)
        assert.strictEqual(plain[0], plain[1])
        assert.strictEqual(new Set(plain).size, plain.length - 1)
        // Written down in journals: a change of it makes every unfinished run refuse to continue.
        assert.strictEqual(plain[5], "41d7ca237bf253170649b9002e3c6b6ee37bdf207d488d23c780a79c9266e9cc")
        for (const digest of plain) assert.match(digest, /^[0-9a-f]{64}$/)
      })
    })

    it.effect("are compressed where the service asks for it", () => {
      const fake = Fake.make((seen) =>
        seen.path === "forward_backward"
          ? { json: { request_id: "forward_backward:1" } }
          : config({ proto_compress_fwdbwd: true })(seen)
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        yield* client.forward(batch, loss)
        const [seen] = fake.of("forward_backward")
        assert.strictEqual(seen?.headers["content-encoding"], "zstd")
        assert.strictEqual(seen?.headers["content-type"], "application/x-protobuf")
        const bytes = yield* Zstd.decompress(seen?.body ?? new Uint8Array(), { maxBytes: 1e6 })
        const request = yield* Protobuf.decodeForwardBackwardRequest(bytes)
        assert.isTrue(request.forwardOnly)
        assert.strictEqual(request.data.length, 1)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect.each<[string, (client: TrainingClient) => Effect.Effect<unknown, TinkerError>]>([
      ["no data", (client) => client.forwardBackward([], loss)],
      ["no loss", (client) => client.forwardBackward(batch, { loss: "" })],
      ["a rate that is no number", (client) => client.optimStep({ learningRate: Number.NaN })],
      ["a name with a slash", (client) => client.saveState("a/b")],
      ["half a second to live", (client) => client.saveState("a", { ttl: "500 millis" })],
      ["a path that is none", (client) => client.loadState("weights/a", { optimizer: true })]
    ])("and other arguments that cannot be sent take no number: %s", ([, act]) => {
      const fake = Fake.make()
      return Effect.gen(function* () {
        const client = yield* newClient
        assert.strictEqual((yield* failing(act(client)))._tag, "InvalidInput")
        assert.strictEqual(yield* client.nextSeq, 1)
        yield* client.optimStep(adam)
        assert.strictEqual(fake.of("optim_step")[0]?.json.seq_id, 1)
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })
  })

  describe("the model", () => {
    it.effect("is described and unloaded; after that nothing is sent", () => {
      const fake = Fake.make()
      return Effect.gen(function* () {
        const client = yield* newClient
        assert.deepStrictEqual(yield* client.info(), {
          modelId: "s0:train:0",
          modelName: Option.none(),
          tokenizerId: Option.some("org/tok"),
          arch: Option.none(),
          isLora: Option.none(),
          loraRank: Option.some(8)
        })
        yield* client.fence("enough")
        yield* client.unload()
        assert.deepStrictEqual(fake.of("unload_model")[0]?.json, { model_id: "s0:train:0" })
        assert.strictEqual((yield* failing(client.optimStep(adam)))._tag, "Fenced")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })
  })

  it.effect("counts what it submits, repeats and polls", () => {
    const fake = Fake.make((seen) => (seen.path === "optim_step" && seen.nth === 0 ? Fake.refused : undefined))
    const counts = Effect.map(Metric.snapshot, (metrics) =>
      ["submissions", "retries", "polls"].map((name) => {
        const found = metrics.find((metric) => metric.id === `tinkex.tinker.${name}`)
        return found?.type === "Counter" ? Number(found.state.count) : 0
      })
    )
    return Effect.gen(function* () {
      const client = yield* newClient
      const before = yield* counts
      const fiber = yield* Effect.forkChild(Effect.flatMap(client.optimStep(adam), ({ result }) => result))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(fiber)
      const after = yield* counts
      assert.deepStrictEqual(
        after.map((count, i) => count - (before[i] ?? 0)),
        [1, 1, 1]
      )
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("puts operations on the trace with the run and the number", () => {
    const spans: Array<[string, Record<string, unknown>]> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        const end = span.end.bind(span)
        span.end = (time, exit) => {
          spans.push([span.name, Object.fromEntries(span.attributes)])
          end(time, exit)
        }
        return span
      }
    })
    return Effect.gen(function* () {
      const client = yield* newClient
      yield* client.optimStep(adam)
      const own = spans.filter(([name]) => name.startsWith("TrainingClient"))
      assert.deepStrictEqual(own, [["TrainingClient.optimStep", { "tinker.run.id": "s0:train:0", "tinker.seq_id": 1 }]])
      assert.includeMembers(
        spans.map(([name]) => name),
        ["POST"]
      )
      assert.notInclude(JSON.stringify(spans), Fake.key)
    }).pipe(Effect.withTracer(tracer), Effect.scoped, Effect.provide(Fake.connect(Fake.make())))
  })
})
