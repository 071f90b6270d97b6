import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { HttpClientError } from "effect/http"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "../src/index.ts"
import * as Api from "./api.ts"

const [first = [], second = []] = Api.batches

const planned = (...faults: Parameters<typeof FaultPlan.make>[0]) => Api.provided({ faults: FaultPlan.make(faults) })

const fired = Effect.gen(function* () {
  const { control } = yield* Emulator
  return (yield* control.firedFaults).map(({ fault }) => FaultPlan.formatFault(fault))
})

const isTransport = (error: unknown) =>
  error instanceof HttpClientError.HttpClientError && error.reason._tag === "TransportError"

describe("corrupt", () => {
  it.effect("hits the step in its lineage, once, and does not refire after a restore", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 2)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "two"))).path ?? ""
      yield* Api.settle(Api.forwardBackward(model, seq + 1, first))
      const failed = yield* Api.settle(Api.optimStep(model, seq + 2))
      assert.include(failed.error, "corrupted")
      assert.strictEqual(failed.category, "server")
      assert.isTrue((yield* Api.get(`training_runs/${model}`)).body.corrupted)
      assert.strictEqual((yield* control.ledger(model)).length, 2)

      const copy = yield* Api.createModel(session, 1)
      yield* Api.settle(Api.loadWeights(copy, 1, path))
      yield* Api.train(copy, 2, 2, 4)
      assert.strictEqual((yield* control.ledger(copy)).length, 4)
      assert.deepStrictEqual(yield* fired, ["corrupt@2"])
    }).pipe(planned(FaultPlan.corrupt({ atStep: 2 })))
  )

  it.effect("fires again at the same step if it shall", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      for (let n = 0; n < 3; n++) {
        const model = yield* Api.createModel(session, n)
        const { error } = yield* Api.settle(Api.optimStep(model, 1))
        assert.strictEqual(error === undefined, n === 2)
      }
      assert.deepStrictEqual(yield* fired, ["corrupt@0x2", "corrupt@0x2"])
    }).pipe(planned(FaultPlan.corrupt({ atStep: 0, times: 2 })))
  )

  it.effect("at a time, hits the model used last", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const idle = yield* Api.createModel(session, 0)
      yield* TestClock.adjust("10 seconds")
      const busy = yield* Api.createModel(session, 1)
      yield* TestClock.adjust("19 seconds")
      assert.deepStrictEqual(yield* fired, [])
      yield* TestClock.adjust("1 seconds")
      assert.isTrue((yield* Api.get(`training_runs/${busy}`)).body.corrupted)
      assert.isFalse((yield* Api.get(`training_runs/${idle}`)).body.corrupted)
      assert.deepStrictEqual(yield* fired, ["corrupt@30000ms"])
    }).pipe(planned(FaultPlan.corrupt({ after: "30 seconds" })))
  )
})

describe("loseSession", () => {
  it.effect("ends the session of the model at its step; nothing is flagged", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 1)
      assert.include((yield* Api.settle(Api.optimStep(model, seq))).error, "not loaded")
      assert.strictEqual((yield* Api.post("session_heartbeat", { session_id: session })).status, 404)
      assert.strictEqual((yield* Api.optimStep(model, seq + 1)).status, 400)
      assert.deepInclude((yield* control.models)[0], { corrupted: false, status: "unloaded", steps: 1 })
      assert.deepStrictEqual(yield* fired, ["lose-session@1"])
    }).pipe(planned(FaultPlan.loseSession({ atStep: 1 })))
  )
})

describe("loseResponse", () => {
  it.effect("the operation is applied, the reply is lost, the resubmission is answered, once", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      yield* Api.settle(Api.optimStep(model, 1))
      assert.isTrue(isTransport(yield* Effect.flip(Api.optimStep(model, 2))))
      assert.isObject((yield* Api.settle(Api.optimStep(model, 2))).metrics)
      yield* Api.settle(Api.optimStep(model, 3))
      assert.deepStrictEqual(
        (yield* control.ledger(model)).map(({ seqId }) => seqId),
        [1, 2, 3]
      )
      assert.deepStrictEqual(yield* fired, ["lose:optim_step@2"])
      const audit = (yield* control.requests).filter(({ endpoint }) => endpoint === "optim_step")
      assert.deepStrictEqual(
        audit.map(({ duplicate, seqId, status }) => [seqId, status, duplicate === true]),
        [
          [1, 200, false],
          [2, 0, false],
          [2, 200, true],
          [3, 200, false]
        ]
      )
    }).pipe(planned(FaultPlan.loseResponse({ operation: "optim_step", occurrence: 2 })))
  )

  it.effect("of retrieve_future, a finished result is lost and can be fetched again", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const sent = yield* Api.optimStep(model, 1)
      assert.isTrue(isTransport(yield* Effect.flip(Api.poll(sent.body.request_id))))
      assert.isObject((yield* Api.poll(sent.body.request_id)).body.metrics)
    }).pipe(planned(FaultPlan.loseResponse({ operation: "retrieve_future", occurrence: 2 })))
  )

  it.effect("of a synchronous request", () =>
    Effect.gen(function* () {
      assert.isTrue(isTransport(yield* Effect.flip(Api.createSession)))
      assert.isString(yield* Api.createSession)
    }).pipe(planned(FaultPlan.loseResponse({ operation: "create_session", occurrence: 1 })))
  )

  it.effect("of create_model: the same model is found by the resubmission", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      assert.isTrue(isTransport(yield* Effect.flip(Api.post("create_model", Api.modelBody(session)))))
      yield* Api.createModel(session)
      assert.strictEqual((yield* control.models).length, 1)
    }).pipe(planned(FaultPlan.loseResponse({ operation: "create_model", occurrence: 1 })))
  )
})

describe("httpBurst", () => {
  it.effect("refuses that many requests from that one on, and accepts nothing meanwhile", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const statuses: Array<number> = []
      for (let seqId = 1; seqId <= 3; seqId++) {
        let answer = yield* Api.optimStep(model, seqId)
        statuses.push(answer.status)
        while (answer.status !== 200) {
          assert.strictEqual(answer.headers["retry-after"], "2")
          assert.strictEqual((yield* control.ledger(model)).length, 1)
          answer = yield* Api.optimStep(model, seqId)
          statuses.push(answer.status)
        }
        yield* Api.poll(answer.body.request_id)
      }
      assert.deepStrictEqual(statuses, [200, 503, 503, 200, 200])
      assert.strictEqual((yield* fired).length, 2)
      assert.strictEqual((yield* control.ledger(model)).length, 3)
    }).pipe(
      planned(
        FaultPlan.httpBurst({
          operation: "optim_step",
          status: 503,
          occurrence: 2,
          count: 2,
          retryAfter: "2 seconds"
        })
      )
    )
  )
})

describe("delayResult", () => {
  it.effect("the operation is executed on its turn, the result is seen later, with the queue's state meanwhile", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const delayed = yield* Api.optimStep(model, 1)
      // What is behind it does not wait.
      assert.isObject((yield* Api.settle(Api.optimStep(model, 2))).metrics)
      assert.strictEqual((yield* control.ledger(model)).length, 2)
      const poll = yield* Effect.forkChild(Api.poll(delayed.body.request_id))
      yield* TestClock.adjust("30 seconds")
      assert.deepInclude((yield* Fiber.join(poll)).body, { type: "try_again", queue_state: "paused_capacity" })
      yield* TestClock.adjust("10 seconds")
      assert.isObject((yield* Api.poll(delayed.body.request_id)).body.metrics)
      assert.deepStrictEqual(yield* fired, ["delay:optim_step@1=40000ms:paused_capacity"])
    }).pipe(
      planned(
        FaultPlan.delayResult({
          operation: "optim_step",
          occurrence: 1,
          by: "40 seconds",
          queueState: "paused_capacity"
        })
      )
    )
  )
})

describe("expireFuture", () => {
  it.effect("the operation is executed and its promise is gone; a resubmission gets the same dead promise", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const sent = yield* Api.optimStep(model, 1)
      assert.strictEqual((yield* Api.poll(sent.body.request_id)).status, 410)
      assert.strictEqual((yield* control.ledger(model)).length, 1)
      const again = yield* Api.optimStep(model, 1)
      assert.strictEqual(again.body.request_id, sent.body.request_id)
      assert.strictEqual((yield* Api.poll(again.body.request_id)).status, 410)
      assert.isObject((yield* Api.settle(Api.optimStep(model, 2))).metrics)
    }).pipe(planned(FaultPlan.expireFuture({ operation: "optim_step", occurrence: 1 })))
  )
})

describe("softFail", () => {
  it.effect("only that operation fails; the step behind it goes on without its gradients", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const failed = yield* Api.settle(Api.forwardBackward(model, 1, first))
      assert.isString(failed.error)
      assert.strictEqual(failed.category, "user")
      yield* Api.settle(Api.optimStep(model, 2))
      yield* Api.settle(Api.forwardBackward(model, 3, second))
      yield* Api.settle(Api.optimStep(model, 4))
      assert.deepStrictEqual(
        (yield* control.ledger(model)).map(({ datums }) => datums),
        [0, 2]
      )
      assert.isFalse((yield* Api.get(`training_runs/${model}`)).body.corrupted)
    }).pipe(planned(FaultPlan.softFail({ operation: "forward_backward", occurrence: 1, category: "user" })))
  )

  it.effect("forward and forward_backward are counted apart", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const failed = (seqId: number, forwardOnly: boolean) =>
        Effect.map(Api.settle(Api.forwardBackward(model, seqId, first, { forwardOnly })), ({ error }) => error)
      assert.isUndefined(yield* failed(1, true))
      assert.isUndefined(yield* failed(2, false))
      assert.isString(yield* failed(3, true))
    }).pipe(planned(FaultPlan.softFail({ operation: "forward", occurrence: 2 })))
  )
})

describe("checkpoints", () => {
  for (const compute of ["model", "none"] as const) {
    it.effect(`the newest truncated, the second newest poisoned on load, the third good (compute ${compute})`, () =>
      Effect.gen(function* () {
        const { control } = yield* Emulator
        const session = yield* Api.createSession
        const model = yield* Api.createModel(session)
        let seq = 1
        const paths: Array<string> = []
        for (let step = 0; step < 3; step++) {
          seq = yield* Api.train(model, seq, step, step + 1)
          paths.push((yield* Api.settle(Api.saveWeights(model, seq++, `s${step + 1}`))).path ?? "")
        }
        const listed = (yield* Api.get(`training_runs/${model}/checkpoints`)).body.checkpoints ?? []
        assert.deepStrictEqual(
          listed.map((one) => one.checkpoint_id),
          ["weights/s3", "weights/s2", "weights/s1"]
        )
        assert.isBelow(listed[0]?.size_bytes ?? 0, listed[1]?.size_bytes ?? 0)

        const load = Effect.fnUntraced(function* (n: number, path = "") {
          const fresh = yield* Api.createModel(session, n)
          const result = yield* Api.settle(Api.loadWeights(fresh, 1, path))
          const run = (yield* Api.get(`training_runs/${fresh}`)).body
          return { fresh, error: result.error, corrupted: run.corrupted }
        })
        const truncated = yield* load(1, paths[2])
        assert.include(truncated.error, "damaged")
        assert.isFalse(truncated.corrupted)
        // Every load of a poisoned checkpoint poisons, not only the first.
        for (const n of [2, 3]) {
          const poisoned = yield* load(n, paths[1])
          assert.isUndefined(poisoned.error)
          assert.isTrue(poisoned.corrupted)
          assert.include((yield* Api.settle(Api.optimStep(poisoned.fresh, 2))).error, "corrupted")
        }
        const good = yield* load(4, paths[0])
        assert.isUndefined(good.error)
        assert.isFalse(good.corrupted)
        assert.strictEqual((yield* control.ledger(good.fresh)).length, 1)
        assert.deepStrictEqual(yield* fired, ["poison-load@2", "truncate@3"])
      }).pipe(
        Api.provided({
          compute,
          faults: FaultPlan.make([
            FaultPlan.checkpointTruncated({ step: 3 }),
            FaultPlan.checkpointPoisonedOnLoad({ step: 2 })
          ])
        })
      )
    )
  }

  it.effect("missing is listed at full size and cannot be loaded; absent is acknowledged and never listed", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const paths: Array<string> = []
      for (const [index, name] of ["a", "b", "c"].entries()) {
        const saved = yield* Api.settle(Api.saveWeights(model, index + 1, name))
        assert.isUndefined(saved.error)
        paths.push(saved.path ?? "")
      }
      const listed = (yield* Api.get(`training_runs/${model}/checkpoints`)).body.checkpoints ?? []
      assert.deepStrictEqual(
        listed.map((one) => one.checkpoint_id),
        ["weights/c", "weights/a"]
      )
      assert.strictEqual(listed[0]?.size_bytes, listed[1]?.size_bytes)
      const one = yield* Api.createModel(session, 1)
      assert.strictEqual((yield* Api.loadWeights(one, 1, paths[1] ?? "")).status, 404)
      const two = yield* Api.createModel(session, 2)
      assert.include((yield* Api.settle(Api.loadWeights(two, 1, paths[2] ?? ""))).error, "does not exist")
      assert.deepStrictEqual(yield* fired, ["absent@#2", "missing@#3"])
    }).pipe(planned(FaultPlan.saveAbsent({ save: 2 }), FaultPlan.checkpointMissing({ save: 3 })))
  )
})

describe("inject", () => {
  it.effect("counts occurrences from the moment of injection", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      yield* Api.settle(Api.optimStep(model, 1))
      yield* control.inject(FaultPlan.make([FaultPlan.softFail({ operation: "optim_step", occurrence: 1 })]))
      assert.isString((yield* Api.settle(Api.optimStep(model, 2))).error)
      assert.isUndefined((yield* Api.settle(Api.optimStep(model, 3))).error)
    }).pipe(Api.provided())
  )
})
