import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { FetchHttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "../src/index.ts"
import * as Api from "./api.ts"

const [first = []] = Api.batches

const served = (text: string) => {
  const emulator = Layer.unwrap(Effect.map(FaultPlan.parse(text), (faults) => Emulator.layer({ faults })))
  return Effect.provide(Layer.merge(emulator, FetchHttpClient.layer))
}

const inProcess = (text: string) =>
  Effect.provide(Layer.unwrap(Effect.map(FaultPlan.parse(text), (faults) => Emulator.layerHttpClient({ faults }))))

const names = Effect.flatMap(Emulator, ({ control }) =>
  Effect.map(control.firedFaults, (fired) => fired.map(({ fault }) => FaultPlan.formatFault(fault)))
)

/** Submits a pass and gives its poll. */
const passed = Effect.fnUntraced(function* (seqId = 1) {
  const model = yield* Api.newModel
  const submitted = yield* Effect.flatMap(Api.forwardBackward(model, seqId, first), Api.expectOk)
  return Api.poll(submitted.body.request_id)
})

describe("replies on their way", () => {
  it.live("a reply is cut in the middle over a real connection; the result can be fetched again", () =>
    Effect.gen(function* () {
      const poll = yield* passed()
      const error = yield* Effect.flip(poll)
      assert.include(["TransportError", "DecodeError"], error.reason._tag)
      assert.isDefined((yield* poll).body.metrics)
      assert.deepStrictEqual(yield* names, ["mangle:retrieve_future:cut@2"])
    }).pipe(served("mangle:retrieve_future:cut@2"))
  )

  it.live("a reply comes byte by byte over a real connection, and whole", () =>
    Effect.gen(function* () {
      const began = Date.now()
      const health = yield* Api.get("training_runs")
      assert.deepStrictEqual(health.body.training_runs, [])
      assert.isAtLeast(Date.now() - began, 60)
      assert.strictEqual((yield* Api.get("training_runs")).status, 200)
    }).pipe(served("trickle:training_runs@1=1ms"))
  )

  it.effect("cut, garbage, empty, mistyped, an error page of 10 MB, another's reply", () =>
    Effect.gen(function* () {
      const poll = yield* passed()
      const raw = Effect.map(poll, ({ bytes, status, type }) => ({ size: bytes.length, status, type }))
      const whole = yield* raw
      assert.deepStrictEqual([whole.status, whole.type], [200, "application/json"])
      assert.strictEqual((yield* Effect.flip(poll)).reason._tag, "TransportError")
      const thrown = (yield* Effect.exit(poll))._tag
      assert.strictEqual(thrown, "Failure")
      assert.deepStrictEqual(yield* raw.pipe(Effect.catchDefect(() => Effect.succeed("not JSON"))), "not JSON")
      assert.deepStrictEqual(yield* raw, { ...whole, type: "application/x-protobuf" })
      assert.deepStrictEqual(yield* raw, { size: 10_000_000, status: 502, type: "text/html" })
      assert.deepStrictEqual(yield* raw, whole)
    }).pipe(
      inProcess(
        "mangle:retrieve_future:cut@3,mangle:retrieve_future:garbage@4,mangle:retrieve_future:empty@5," +
          "mangle:retrieve_future:mistyped@6,mangle:retrieve_future:huge@7"
      )
    )
  )

  it.effect("mixup gives the reply to another request", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const one = yield* Api.optimStep(model, 1)
      const two = yield* Api.optimStep(model, 2)
      assert.strictEqual(two.body.request_id, one.body.request_id)
      const again = yield* Api.optimStep(model, 2)
      assert.notStrictEqual(again.body.request_id, one.body.request_id)
    }).pipe(inProcess("mangle:optim_step:mixup@2"))
  )

  it.effect("slow holds a reply back by the clock", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(Api.get("checkpoints"))
      yield* TestClock.adjust("19 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
    }).pipe(inProcess("slow:checkpoints@1=20s"))
  )

  it.effect("a dropped request was never looked at; a bare refusal has no body", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      for (let i = 0; i < 2; i++) {
        assert.strictEqual((yield* Effect.flip(Api.optimStep(model, 1))).reason._tag, "TransportError")
      }
      assert.deepStrictEqual(yield* control.ledger(model), [])
      const submitted = yield* Api.optimStep(model, 1)
      const bare = yield* Api.poll(submitted.body.request_id)
      assert.deepStrictEqual([bare.status, bare.bytes.length], [400, 0])
      assert.strictEqual((yield* Api.poll(submitted.body.request_id)).status, 200)
    }).pipe(inProcess("drop:optim_step@1x2,bare:400:retrieve_future@2"))
  )

  it.effect("any is every request; a partition lets nothing through while it lasts", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* Api.get("sessions")).status, 401)
      assert.strictEqual((yield* Api.get("checkpoints")).status, 401)
      assert.strictEqual((yield* Api.get("sessions")).status, 200)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* Effect.flip(Api.get("sessions"))).reason._tag, "TransportError")
      assert.strictEqual((yield* Effect.flip(Api.get("healthz"))).reason._tag, "TransportError")
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual((yield* Api.get("sessions")).status, 200)
      assert.deepStrictEqual(yield* names, ["burst:401:any@1x2", "burst:401:any@1x2", "partition@30000ms=300000ms"])
    }).pipe(inProcess("burst:401:any@1x2,partition@30s=5m"))
  )
})

describe("results that are late", () => {
  it.effect("a pause executes nothing, says why, and ends by itself", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      yield* TestClock.adjust("10 seconds")
      const { body } = yield* Api.optimStep(model, 1)
      const polling = yield* Effect.forkChild(Api.poll(body.request_id))
      yield* TestClock.adjust("30 seconds")
      const told = (yield* Fiber.join(polling)).body
      assert.deepInclude(told, { type: "try_again", queue_state: "paused_capacity", request_id: body.request_id })
      assert.isString(told.queue_state_reason)
      assert.deepStrictEqual(yield* control.ledger(model), [])
      yield* TestClock.adjust("31 seconds")
      assert.isUndefined((yield* Api.poll(body.request_id)).body.error)
      assert.strictEqual((yield* control.ledger(model)).length, 1)
    }).pipe(inProcess("pause@10s=1m"))
  )

  it.effect("a pending poll may be a 408, and the state of the queue may change with every poll", () =>
    Effect.gen(function* () {
      const faults = yield* FaultPlan.parse("delay:optim_step@1=10m:alternating")
      yield* Effect.gen(function* () {
        const model = yield* Api.newModel
        const { body } = yield* Api.optimStep(model, 1)
        const states: Array<unknown> = []
        for (let i = 0; i < 3; i++) {
          const polling = yield* Effect.forkChild(Api.poll(body.request_id))
          yield* TestClock.adjust("30 seconds")
          const answer = yield* Fiber.join(polling)
          assert.strictEqual(answer.status, 408)
          states.push(answer.body.queue_state)
        }
        assert.deepStrictEqual(states, ["paused_rate_limit", "active", "paused_rate_limit"])
      }).pipe(Api.provided({ faults, pendingReply: "408" }))
    })
  )

  it.effect("a large result is told by its size first, to those who allow it", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      const submitted = yield* Effect.flatMap(Api.forwardBackward(model, 1, first), Api.expectOk)
      const ask = (allow_metadata_only: boolean) =>
        Api.post(
          "retrieve_future",
          { request_id: submitted.body.request_id, allow_metadata_only },
          { accept: "application/x-protobuf" }
        )
      const told = yield* ask(true)
      const whole = yield* ask(false)
      assert.deepStrictEqual<unknown>(told.body, {
        status: "complete_metadata",
        response_payload_size: whole.bytes.length
      })
      assert.strictEqual(whole.type, "application/x-protobuf")
      assert.isUndefined((yield* Api.settle(Api.optimStep(model, 2))).status)
    }).pipe(Api.provided({ metadataOnlyAbove: 10 }))
  )

  it.effect("more samples than there is room for are 429", () =>
    Effect.gen(function* () {
      const faults = yield* FaultPlan.parse("pause@0s=1m")
      yield* Effect.gen(function* () {
        const ask = { base_model: "tiny/byte-lm-16", prompt: { chunks: [{ tokens: [1] }] } }
        const sample = Effect.map(
          Api.post("asample", { ...ask, sampling_params: { max_tokens: 1 } }),
          ({ status }) => status
        )
        assert.deepStrictEqual([yield* sample, yield* sample, yield* sample], [200, 200, 429])
        yield* TestClock.adjust("61 seconds")
        assert.strictEqual(yield* sample, 200)
      }).pipe(Api.provided({ faults, samplingCapacity: 2 }))
    })
  )
})

describe("operations and models", () => {
  it.effect("forget never executes, answers 410, and lets the next one go on", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const submitted = yield* Api.optimStep(model, 1)
      assert.strictEqual((yield* Api.poll(submitted.body.request_id)).status, 410)
      assert.isUndefined((yield* Api.settle(Api.optimStep(model, 2))).error)
      assert.deepStrictEqual(
        (yield* control.ledger(model)).map(({ seqId }) => seqId),
        [2]
      )
    }).pipe(inProcess("forget:optim_step@1"))
  )

  it.effect("nan and spike spoil the report, not the gradients", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const session = yield* Api.createSession
      const [spoiled, whole] = [yield* Api.createModel(session, 0), yield* Api.createModel(session, 1)]
      const losses: Array<unknown> = []
      for (const model of [spoiled, whole]) {
        for (let seq = 1; seq < 5; seq += 2) {
          const result = yield* Api.settle(Api.forwardBackward(model, seq, first))
          losses.push(result.metrics?.["loss:sum"])
          yield* Api.settle(Api.optimStep(model, seq + 1))
        }
      }
      assert.isNull(losses[0])
      assert.strictEqual(losses[1], 8 * Number(losses[3]))
      assert.strictEqual(yield* control.stateHash(spoiled), yield* control.stateHash(whole))
    }).pipe(inProcess("nan:forward_backward@1,spike:forward_backward@2=8"))
  )

  it.effect("an unflagged corruption fails everything and is never told", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      yield* Api.train(model, 1, 0, 1)
      assert.strictEqual((yield* Api.settle(Api.optimStep(model, 3))).category, "server")
      assert.isString((yield* Api.settle(Api.forwardBackward(model, 4, first))).error)
      assert.isString((yield* Api.settle(Api.saveWeights(model, 5, "x"))).error)
      assert.isFalse((yield* Api.get(`training_runs/${model}`)).body.corrupted)
    }).pipe(inProcess("corrupt-unflagged@1"))
  )

  for (const [when, acknowledged, listed] of [
    ["before", false, 0],
    ["during", false, 1],
    ["after", true, 1]
  ] as const) {
    it.effect(`a run that is poisoned ${when} a save: acknowledged ${acknowledged}, listed ${listed}`, () =>
      Effect.gen(function* () {
        const model = yield* Api.newModel
        const { error } = yield* Api.settle(Api.saveWeights(model, 1, "x"))
        assert.strictEqual(error === undefined, acknowledged)
        assert.isTrue((yield* Api.get(`training_runs/${model}`)).body.corrupted)
        assert.strictEqual((yield* Api.get("checkpoints")).body.checkpoints?.length, listed)
        assert.isString((yield* Api.settle(Api.optimStep(model, 2))).error)
      }).pipe(inProcess(`poison:save_weights:${when}@1`))
    )
  }

  it.effect("a session is lost at a time, with the model used last", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* Api.optimStep(model, 1)).status, 400)
      assert.deepStrictEqual(yield* names, ["lose-session@30000ms"])
    }).pipe(inProcess("lose-session@30s"))
  )
})

describe("EM3: a plan is replayable", () => {
  it.effect("the same plan, drawn with the same seed, does the same to the same requests", () =>
    Effect.gen(function* () {
      const text =
        "corrupt@2..9,soft-fail:forward_backward@1..4,nan:forward_backward@2..5,delay:optim_step@1..3=5s," +
        "expire:optim_step@4..6,mangle:retrieve_future:garbage@2..9,burst:503:save_weights@1..2,truncate@1..4"
      const story = Effect.fnUntraced(function* (seed: number) {
        const faults = yield* FaultPlan.parse(text, seed)
        return yield* Effect.gen(function* () {
          const { control } = yield* Emulator
          const model = yield* Api.newModel
          const told: Array<string> = []
          for (let seq = 1; seq < 30; seq += 3) {
            const requests = [
              Api.forwardBackward(model, seq, first),
              Api.optimStep(model, seq + 1),
              Api.saveWeights(model, seq + 2, `save-${seq}`)
            ]
            for (const request of requests) {
              let submitted = yield* request
              for (; submitted.status === 503; submitted = yield* request) told.push("503")
              const polling = Api.raw("POST", "/api/v1/retrieve_future", {
                bytes: new TextEncoder().encode(JSON.stringify({ request_id: submitted.body.request_id })),
                headers: { "content-type": "application/json" }
              })
              const poll = yield* Effect.forkChild(polling)
              yield* TestClock.adjust("10 seconds")
              const { status, text } = yield* Fiber.join(poll)
              told.push(`${status} ${text.replaceAll(/req-[^"]*|[0-9a-f]{8}-[^"/:]*/g, "id")}`)
            }
          }
          const ledger = (yield* control.ledger(model)).map(({ digest, seqId }) => `${seqId} ${digest}`)
          return [...(yield* names), ...told, ...ledger]
        }).pipe(Api.provided({ faults }))
      })
      for (let seed = 1; seed <= 8; seed++) {
        assert.deepStrictEqual(yield* story(seed), yield* story(seed), `seed ${seed}`)
      }
      assert.notDeepEqual(yield* story(1), yield* story(2))
    })
  )
})

describe("checkpoints", () => {
  const saved = Effect.gen(function* () {
    const session = yield* Api.createSession
    const model = yield* Api.createModel(session)
    const seq = yield* Api.train(model, 1, 0, 2)
    const path = (yield* Api.settle(Api.saveWeights(model, seq, "two"))).path ?? ""
    const copy = yield* Api.createModel(session, 1)
    return { copy, model, path }
  })

  it.effect("empty: listed with no bytes, and cannot be loaded", () =>
    Effect.gen(function* () {
      const { copy, path } = yield* saved
      assert.strictEqual((yield* Api.get("checkpoints")).body.checkpoints?.[0]?.size_bytes, 0)
      assert.isString((yield* Api.settle(Api.loadWeights(copy, 1, path))).error)
    }).pipe(inProcess("empty@2"))
  )

  it.effect("vanishing: listed, and gone when it is asked for", () =>
    Effect.gen(function* () {
      const { path } = yield* saved
      assert.strictEqual((yield* Api.get("checkpoints")).body.checkpoints?.length, 1)
      assert.strictEqual((yield* Api.post("weights_info", { tinker_path: path })).status, 404)
      assert.strictEqual((yield* Api.get("checkpoints")).body.checkpoints?.length, 0)
    }).pipe(inProcess("vanish@2"))
  )

  it.effect("altered: loads without complaint, and the model answers differently", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const { copy, model, path } = yield* saved
      assert.isUndefined((yield* Api.settle(Api.loadWeights(copy, 1, path))).error)
      assert.notStrictEqual(yield* control.weightsHash(copy), yield* control.weightsHash(model))
      const losses = yield* Effect.forEach([[model, 6] as const, [copy, 2] as const], ([id, seq]) =>
        Api.settle(Api.forwardBackward(id, seq, first, { forwardOnly: true }))
      )
      assert.notStrictEqual(losses[0]?.metrics?.["loss:sum"], losses[1]?.metrics?.["loss:sum"])
    }).pipe(inProcess("alter@2"))
  )

  it.effect("poisoned on step: loads, and its first step corrupts the model", () =>
    Effect.gen(function* () {
      const { copy, path } = yield* saved
      assert.isUndefined((yield* Api.settle(Api.loadWeights(copy, 1, path))).error)
      assert.isFalse((yield* Api.get(`training_runs/${copy}`)).body.corrupted)
      assert.isString((yield* Api.settle(Api.optimStep(copy, 2))).error)
      assert.isTrue((yield* Api.get(`training_runs/${copy}`)).body.corrupted)
    }).pipe(inProcess("poison-step@2"))
  )

  it.effect("a listing may lie about its total", () =>
    Effect.gen(function* () {
      yield* saved
      assert.strictEqual((yield* Api.get("training_runs")).body.cursor?.total_count, 7)
      assert.strictEqual((yield* Api.get("training_runs")).body.cursor?.total_count, 2)
    }).pipe(inProcess("total:training_runs@1=5"))
  )
})
