import * as NodeHttp from "node:http"
import * as NodeNet from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { FetchHttpClient } from "effect/http"
import { Emulator, type EmulatorOptions, FaultPlan } from "../src/index.ts"
import * as Api from "./api.ts"

const served = (options: EmulatorOptions = {}) =>
  Effect.provide(Layer.merge(Emulator.layer(options), FetchHttpClient.layer))

const [first = []] = Api.batches

describe("over loopback HTTP", () => {
  it.live("trains, saves, loads and lists like the server in process", () =>
    Effect.gen(function* () {
      const { control, url } = yield* Emulator
      assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/)
      const session = yield* Api.createSession
      const model = yield* Api.createModel(session)
      const seq = yield* Api.train(model, 1, 0, 2)
      const path = (yield* Api.settle(Api.saveWeights(model, seq, "a"))).path ?? ""
      const copy = yield* Api.createModel(session, 1)
      yield* Api.settle(Api.loadWeights(copy, 1, path))
      assert.strictEqual(yield* control.stateHash(copy), yield* control.stateHash(model))
      assert.strictEqual((yield* Api.get("training_runs")).body.training_runs?.length, 2)
      const deleted = yield* Api.request("DELETE", `/api/v1/training_runs/${model}/checkpoints/weights/a`)
      assert.strictEqual(deleted.status, 200)
      assert.strictEqual((yield* Api.get("nothing")).status, 404)
      assert.strictEqual((yield* Api.request("GET", "/api/v1/training_runs/%ZZ")).status, 400)
      assert.strictEqual((yield* Api.request("GET", "/api/v1/training_runs", { key: null })).status, 401)

      const inProcess = yield* Effect.gen(function* () {
        const emulator = yield* Emulator
        const model = yield* Api.newModel
        yield* Api.train(model, 1, 0, 2)
        return yield* emulator.control.stateHash(model)
      }).pipe(Api.provided())
      assert.strictEqual(yield* control.stateHash(model), inProcess)
    }).pipe(served())
  )

  it.live("ids may come percent-encoded", () =>
    Effect.gen(function* () {
      const model = yield* Api.newModel
      assert.strictEqual((yield* Api.get(`training_runs/${encodeURIComponent(model)}`)).status, 200)
    }).pipe(served())
  )

  it.live("a lost response breaks the connection, and the operation stands", () =>
    Effect.gen(function* () {
      const { control } = yield* Emulator
      const model = yield* Api.newModel
      const error = yield* Effect.flip(Api.optimStep(model, 1))
      assert.strictEqual(error.reason._tag, "TransportError")
      yield* Api.settle(Api.optimStep(model, 1))
      yield* Api.settle(Api.optimStep(model, 2))
      assert.strictEqual((yield* control.ledger(model)).length, 2)
    }).pipe(served({ faults: FaultPlan.make([FaultPlan.loseResponse({ operation: "optim_step", occurrence: 1 })]) }))
  )

  it.live("many connections at once", () =>
    Effect.gen(function* () {
      const session = yield* Api.createSession
      const losses = yield* Effect.forEach(
        Array.from({ length: 8 }, (_, n) => n),
        Effect.fnUntraced(function* (n) {
          const model = yield* Api.createModel(session, n)
          const sent = yield* Effect.all(
            [Api.optimStep(model, 2), Api.forwardBackward(model, 1, first), Api.optimStep(model, 3)],
            { concurrency: 3 }
          )
          return (yield* Api.poll(sent[1].body.request_id)).body.metrics?.["loss:sum"]
        }),
        { concurrency: 8 }
      )
      assert.strictEqual(new Set(losses).size, 1)
      assert.isNumber(losses[0])
    }).pipe(served())
  )
})

describe("the address", () => {
  it.live("a port in use and a host that is not here are typed errors", () =>
    Effect.gen(function* () {
      const { url } = yield* Emulator
      const problem = (options: EmulatorOptions) =>
        Effect.map(Effect.flip(Effect.scoped(Layer.build(Emulator.layer(options)))), (error) => [
          error.reason._tag,
          error.message
        ])
      const port = Number(new URL(url).port)
      const [tag, message] = yield* problem({ port })
      assert.strictEqual(tag, "ListenFailed")
      assert.include(message, `127.0.0.1:${port}`)
      assert.include(message, "in use")
      const [other, text] = yield* problem({ host: "192.0.2.1" })
      assert.strictEqual(other, "ListenFailed")
      assert.include(text, "no address of this machine")
      assert.strictEqual((yield* Api.get("healthz")).status, 200)
    }).pipe(served())
  )

  it.live(
    "closing answers the polls that wait and does not hang on open connections; the port is free afterwards",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const context = yield* Scope.provide(Layer.build(Emulator.layer({ longPoll: "40 seconds" })), scope)
        const emulator = Context.get(context, Emulator)
        const { hostname, port } = new URL(emulator.url)
        const here = Effect.provide(Layer.merge(Layer.succeed(Emulator, emulator), FetchHttpClient.layer))

        const model = yield* here(Api.newModel)
        const waiting = yield* here(Api.optimStep(model, 2))
        const poll = yield* Effect.forkChild(here(Api.poll(waiting.body.request_id)))
        // A client that never finishes its request.
        const socket = NodeNet.connect(Number(port), hostname)
        yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
        socket.on("error", () => {})
        socket.write("POST /api/v1/create_session HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        yield* Effect.sleep("50 millis")

        const start = performance.now()
        yield* Scope.close(scope, Exit.void)
        assert.isBelow(performance.now() - start, 3000)
        assert.strictEqual((yield* Fiber.join(poll)).body.type, "try_again")
        const again = yield* Effect.scoped(Layer.build(Emulator.layer({ port: Number(port) })))
        assert.strictEqual(Context.get(again, Emulator).url, emulator.url)
      })
  )
})

describe("the control plane over HTTP", () => {
  const control = (method: "GET" | "POST", path: string, json?: unknown) =>
    Effect.gen(function* () {
      const { url } = yield* Emulator
      const response = yield* Effect.promise(() =>
        fetch(`${url}/emulator/v1/${path}`, json === undefined ? { method } : { method, body: JSON.stringify(json) })
      )
      return { status: response.status, body: yield* Effect.promise((): Promise<unknown> => response.json()) }
    })

  it.live("shows and does what the service does", () =>
    Effect.gen(function* () {
      const emulator = yield* Emulator
      const model = yield* Api.newModel
      const seq = yield* Api.train(model, 1, 0, 1)
      yield* Api.settle(Api.saveWeights(model, seq, "a"))
      assert.deepStrictEqual((yield* control("GET", "models")).body, yield* emulator.control.models)
      assert.deepStrictEqual(
        (yield* control("GET", `models/${model}/ledger`)).body,
        yield* emulator.control.ledger(model)
      )
      assert.deepStrictEqual((yield* control("GET", `models/${model}/hash`)).body, {
        stateHash: yield* emulator.control.stateHash(model),
        weightsHash: yield* emulator.control.weightsHash(model)
      })
      assert.deepStrictEqual((yield* control("GET", "checkpoints")).body, yield* emulator.control.checkpoints)
      assert.deepStrictEqual((yield* control("GET", "requests")).body, yield* emulator.control.requests)

      const plan = FaultPlan.make([FaultPlan.softFail({ operation: "optim_step", occurrence: 1 })])
      assert.strictEqual((yield* control("POST", "faults", plan)).status, 200)
      assert.isString((yield* Api.settle(Api.optimStep(model, seq + 1))).error)
      assert.deepStrictEqual((yield* control("GET", "faults")).body, yield* emulator.control.firedFaults)
      assert.strictEqual((yield* control("POST", "faults", { faults: [{ _tag: "Nope" }] })).status, 422)

      assert.strictEqual((yield* control("POST", `models/${model}/poison`)).status, 200)
      assert.isTrue((yield* Api.get(`training_runs/${model}`)).body.corrupted)
      assert.strictEqual((yield* control("GET", "models/nobody/ledger")).status, 404)
      assert.strictEqual((yield* control("GET", "nothing")).status, 404)
    }).pipe(served())
  )

  it.live("is not there when it is turned off", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* control("GET", "models")).status, 404)
    }).pipe(served({ control: false }))
  )
})

describe("Emulator.serve", () => {
  it.live("tells its address and runs until it is interrupted", () =>
    Effect.gen(function* () {
      const ready = yield* Deferred.make<string>()
      const fiber = yield* Effect.forkChild(
        Emulator.serve({ onReady: (url) => Effect.asVoid(Deferred.succeed(ready, url)) })
      )
      const url = yield* Deferred.await(ready)
      const status = () =>
        Effect.callback<number>((resume) => {
          NodeHttp.get(`${url}/api/v1/healthz`, (response) => {
            response.resume()
            resume(Effect.succeed(response.statusCode ?? 0))
          }).on("error", () => resume(Effect.succeed(-1)))
        })
      assert.strictEqual(yield* status(), 200)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* status(), -1)
    })
  )
})
