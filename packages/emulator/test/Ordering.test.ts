import * as Protobuf from "@tinkex/tinker/wire/Protobuf"
import { assert, describe, it } from "@effect/vitest"
import { fromTokens } from "@tinkex/tinker/wire/Datum"
import { Effect } from "effect"
import { Emulator } from "../src/index.ts"
import * as Api from "./api.ts"

const [first = [], second = [], third = []] = Api.batches

/** The hash and the ledger after the operations, arriving as given, are all done. */
const outcome = (arrival: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const { control } = yield* Emulator
    const model = yield* Api.newModel
    const operations = [
      Api.forwardBackward(model, 1, first),
      Api.forwardBackward(model, 2, second),
      Api.optimStep(model, 3),
      Api.forwardBackward(model, 4, third),
      Api.optimStep(model, 5)
    ]
    const pending: Array<string> = []
    for (const index of arrival) {
      const operation = operations[index]
      if (operation !== undefined) pending.push((yield* Effect.flatMap(operation, Api.expectOk)).body.request_id)
    }
    for (const id of pending) assert.isUndefined((yield* Api.poll(id)).body.error)
    const ledger = yield* control.ledger(model)
    return { hash: yield* control.stateHash(model), ledger: ledger.map(({ digest, seqId }) => ({ digest, seqId })) }
  }).pipe(Api.provided())

describe("EM1: order", () => {
  it.effect("any order of arrival has the outcome of the order of numbers", () =>
    Effect.gen(function* () {
      const expected = yield* outcome([0, 1, 2, 3, 4])
      assert.deepStrictEqual(
        expected.ledger.map(({ seqId }) => seqId),
        [3, 5]
      )
      for (const arrival of [
        [1, 0, 2, 3, 4],
        [4, 3, 2, 1, 0],
        [2, 4, 0, 3, 1]
      ]) {
        assert.deepStrictEqual(yield* outcome(arrival), expected)
      }
      // The test would see another order: the batches differ.
      assert.notStrictEqual(expected.ledger[0]?.digest, expected.ledger[1]?.digest)
    })
  )

  it.effect("what arrives early waits for its predecessor", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const early = yield* Api.forwardBackward(model, 2, second)
      yield* Effect.yieldNow
      assert.deepInclude((yield* control.models)[0], { nextSeqId: 1, steps: 0 })
      const late = yield* Api.forwardBackward(model, 1, first)
      assert.isUndefined((yield* Api.poll(late.body.request_id)).body.error)
      assert.isUndefined((yield* Api.poll(early.body.request_id)).body.error)
      assert.deepInclude((yield* control.models)[0], { nextSeqId: 3 })
    }).pipe(Api.provided())
  )

  it.effect("the digest of a step does not depend on how its batch was cut", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const whole = yield* Api.createModel(session, 0)
      const cut = yield* Api.createModel(session, 1)
      yield* Api.settle(Api.forwardBackward(whole, 1, [...first, ...second]))
      yield* Api.settle(Api.optimStep(whole, 2))
      yield* Api.settle(Api.forwardBackward(cut, 1, first))
      yield* Api.settle(Api.forwardBackward(cut, 2, second))
      yield* Api.settle(Api.optimStep(cut, 3))
      const digests = [
        ...(yield* control.ledger(whole)).map(({ digest, datums }) => ({ digest, datums })),
        ...(yield* control.ledger(cut)).map(({ digest, datums }) => ({ digest, datums }))
      ]
      assert.deepStrictEqual(digests[0], digests[1])
      assert.strictEqual(yield* control.stateHash(whole), yield* control.stateHash(cut))
    }).pipe(Api.provided())
  )

  it.effect("the digest of a step covers the gradients it applied, and nothing else", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      yield* Api.settle(Api.forwardBackward(model, 1, first))
      yield* Api.settle(Api.optimStep(model, 2))
      yield* Api.settle(Api.forwardBackward(model, 3, second, { forwardOnly: true }))
      yield* Api.settle(Api.optimStep(model, 4))
      yield* Api.settle(Api.forwardBackward(model, 5, first))
      yield* Api.settle(Api.optimStep(model, 6))
      const [once, none, again] = yield* control.ledger(model)
      assert.strictEqual(again?.digest, once?.digest)
      assert.notStrictEqual(none?.digest, once?.digest)
      assert.deepStrictEqual([once?.datums, none?.datums, again?.datums], [2, 0, 2])
    }).pipe(Api.provided())
  )

  it.effect("a submission that was refused holds up nothing", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      yield* Api.settle(Api.forwardBackward(model, 1, first))
      const behind = yield* Api.optimStep(model, 3)
      // By now the emulator has seen that number 2 is missing.
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow
      assert.strictEqual((yield* Api.forwardBackward(model, 2, [])).status, 400)
      assert.isUndefined((yield* Api.poll(behind.body.request_id)).body.error)
    }).pipe(Api.provided())
  )
})

describe("EM1: bodies that cannot be read", () => {
  it.effect("hold up nothing where their number can still be read", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const behind = yield* Api.optimStep(model, 6)
      const proto = Buffer.from(
        Protobuf.encodeForwardBackwardRequest({
          modelId: model,
          seqId: 1,
          data: first,
          lossFn: "cross_entropy",
          lossFnConfig: {},
          forwardOnly: false
        })
      )
      const bytes = proto.subarray(0, proto.length - 3)
      const statuses = [
        yield* Api.request("POST", "/api/v1/forward_backward", { bytes }),
        yield* Api.post("optim_step", `{"model_id":"${model}","seq_id":2,"adam_params":{"learning_rate":NaN}}`),
        yield* Api.post("optim_step", { model_id: model, seq_id: 3, adam_params: { learning_rate: null } }),
        yield* Api.post("save_weights", { model_id: model, seq_id: 4 }),
        yield* Api.post("load_weights", { model_id: model, seq_id: 5, path: 7 })
      ].map(({ status }) => status)
      assert.deepStrictEqual(statuses, [422, 422, 422, 422, 422])
      assert.isUndefined((yield* Api.poll(behind.body.request_id)).body.error)
    }).pipe(Api.provided())
  )
})

describe("EM1: duplicates", () => {
  it.effect("the same number and payload get the original promise, and nothing is done twice", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const sent = [
        yield* Api.forwardBackward(model, 1, first),
        yield* Api.optimStep(model, 2),
        yield* Api.saveWeights(model, 3, "a")
      ]
      yield* Api.poll(sent[2]?.body.request_id ?? "")
      const hash = yield* control.stateHash(model)
      const again = [
        yield* Api.forwardBackward(model, 1, first),
        yield* Api.optimStep(model, 2),
        yield* Api.saveWeights(model, 3, "a")
      ]
      assert.deepStrictEqual(
        again.map(({ body }) => body),
        sent.map(({ body }) => body)
      )
      assert.strictEqual(yield* control.stateHash(model), hash)
      assert.strictEqual((yield* control.ledger(model)).length, 1)
      const audit = (yield* control.requests).filter(({ duplicate }) => duplicate === true)
      assert.deepStrictEqual(
        audit.map(({ endpoint, seqId }) => [endpoint, seqId]),
        [
          ["forward_backward", 1],
          ["optim_step", 2],
          ["save_weights", 3]
        ]
      )
    }).pipe(Api.provided())
  )

  it.effect("a duplicate is known by its meaning, not by its bytes", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const sent = yield* Api.optimStep(model, 1, { learning_rate: 0.1, beta1: 0.9 })
      const again = yield* Api.optimStep(model, 1, { beta1: 0.9, learning_rate: 0.1 })
      assert.strictEqual(again.body.request_id, sent.body.request_id)
      const session = yield* Api.createSession
      const labels = [
        { a: "1", b: "2" },
        { b: "2", a: "1" }
      ]
      const created = yield* Effect.forEach(labels, (user_metadata) =>
        Api.post("create_model", Api.modelBody(session, 0, { user_metadata }))
      )
      assert.strictEqual(created[1]?.body.request_id, created[0]?.body.request_id)
    }).pipe(Api.provided())
  )

  it.effect("another payload, or another operation, under a used number is 409 and changes nothing", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      yield* Api.settle(Api.forwardBackward(model, 1, first))
      const hash = yield* control.stateHash(model)
      // The same targets behind other inputs.
      const altered = first.map((datum) => ({ ...datum, modelInput: fromTokens([1, 2, 3]) }))
      for (const conflict of [
        yield* Api.forwardBackward(model, 1, second),
        yield* Api.forwardBackward(model, 1, altered),
        yield* Api.forwardBackward(model, 1, first, { forwardOnly: true }),
        yield* Api.optimStep(model, 1)
      ]) {
        assert.strictEqual(conflict.status, 409)
        assert.include(conflict.body.detail, "seq_id 1")
        assert.strictEqual(conflict.headers["x-should-retry"], "false")
      }
      assert.strictEqual(yield* control.stateHash(model), hash)
    }).pipe(Api.provided())
  )

  it.effect("a load that was accepted is known again, although its checkpoint is gone", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const path = (yield* Api.settle(Api.saveWeights(model, 1, "a"))).path ?? ""
      yield* Api.createModel(session, 1)
      const asNew = Api.post("load_weights", { session_id: session, model_seq_id: 2, path, optimizer: true })
      const into = Api.loadWeights(`${session}:train:1`, 1, path)
      const sent = [yield* asNew, yield* into]
      for (const { body } of sent) assert.isUndefined((yield* Api.poll(body.request_id)).body.error)
      yield* Api.request("DELETE", `/api/v1/training_runs/${model}/checkpoints/weights/a`)
      const again = [yield* asNew, yield* into]
      assert.deepStrictEqual(
        again.map(({ body }) => body),
        sent.map(({ body }) => body)
      )
      const other = Api.post("load_weights", { session_id: session, model_seq_id: 2, path, optimizer: false })
      assert.strictEqual((yield* other).status, 409)
    }).pipe(Api.provided())
  )

  it.effect("create_model is one model per session and number", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const sent = yield* Api.post("create_model", Api.modelBody(session))
      const again = yield* Api.post("create_model", Api.modelBody(session))
      assert.strictEqual(again.body.request_id, sent.body.request_id)
      const other = yield* Api.post("create_model", Api.modelBody(session, 0, { lora_config: { rank: 8 } }))
      assert.strictEqual(other.status, 409)
      assert.strictEqual((yield* control.models).length, 1)
    }).pipe(Api.provided())
  )
})
