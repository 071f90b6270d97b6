import * as NodeFs from "node:fs/promises"
import * as NodeOs from "node:os"
import * as NodePath from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "../src/index.ts"
import * as Api from "./api.ts"

const temporary = Effect.acquireRelease(
  Effect.promise(() => NodeFs.mkdtemp(NodePath.join(NodeOs.tmpdir(), "tinkex-emulator-"))),
  (directory) => Effect.promise(() => NodeFs.rm(directory, { recursive: true }))
)

describe("EM5: a restarted emulator", () => {
  it.effect("knows what was changed about a run by many at once", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const names = Array.from({ length: 24 }, (_, i) => `c${i}`)
      const model = yield* Effect.gen(function* () {
        const model = yield* Api.newModel
        yield* Effect.forEach(names, (name, i) => Api.settle(Api.saveWeights(model, i + 1, name)), {
          concurrency: "unbounded"
        })
        const answers = yield* Effect.forEach(
          names,
          (name) => Api.request("POST", `/api/v1/training_runs/${model}/checkpoints/weights/${name}/publish`),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          answers.map(({ status }) => status),
          names.map(() => 200)
        )
        return model
      }).pipe(Api.provided({ directory }))
      const { body } = yield* Api.get(`training_runs/${model}/checkpoints`).pipe(Api.provided({ directory }))
      assert.strictEqual(body.checkpoints?.length, names.length)
      assert.isTrue(body.checkpoints?.every((checkpoint) => checkpoint.public))
    }).pipe(Effect.scoped)
  )

  it.effect("lists runs and checkpoints and loads them bit for bit; its models are gone", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const before = yield* Effect.gen(function* () {
        const { control } = yield* Emulator
        const model = yield* Api.createModel(yield* Api.createSession, 0, { user_metadata: { run: "r" } })
        const seq = yield* Api.train(model, 1, 0, 3)
        const saved = yield* Api.settle(Api.saveWeights(model, seq, "three"))
        const pass = yield* Api.forwardBackward(model, seq + 1, Api.batches[0] ?? [])
        const accept = "application/x-protobuf"
        const result = yield* Api.poll(pass.body.request_id, accept)
        const failed = yield* Api.optimStep(model, seq + 3)
        yield* control.poison(model)
        const pending = yield* Api.optimStep(yield* Api.newModel, 2)
        return {
          model,
          path: saved.path ?? "",
          request: pending.body.request_id,
          failed: failed.body.request_id,
          pass: pass.body.request_id,
          result,
          json: (yield* Api.poll(pass.body.request_id)).body,
          hash: yield* control.stateHash(model),
          ledger: yield* control.ledger(model),
          run: (yield* Api.get(`training_runs/${model}`)).body,
          checkpoints: (yield* Api.get("checkpoints")).body
        }
      }).pipe(Api.provided({ directory }))

      yield* Effect.gen(function* () {
        const { control } = yield* Emulator
        const { model } = before
        assert.deepStrictEqual((yield* Api.get(`training_runs/${model}`)).body, before.run)
        assert.isTrue(before.run.corrupted)
        assert.deepStrictEqual((yield* Api.get("checkpoints")).body, before.checkpoints)
        assert.deepStrictEqual(yield* control.ledger(model), before.ledger)

        const refused = yield* Api.optimStep(model, 8)
        assert.strictEqual(refused.status, 400)
        assert.include(refused.body.detail, `Model ${model} not loaded`)
        // Finished results are still there, good or bad; what was not finished never will be.
        const again = yield* Api.poll(before.pass, "application/x-protobuf")
        assert.deepStrictEqual([again.type, [...again.bytes]], [before.result.type, [...before.result.bytes]])
        assert.deepStrictEqual((yield* Api.poll(before.pass)).body, before.json)
        assert.include((yield* Api.poll(before.failed)).body.error, "corrupted")
        assert.strictEqual((yield* Api.poll(before.request)).status, 410)
        const session = model.slice(0, model.indexOf(":"))
        assert.strictEqual((yield* Api.post("session_heartbeat", { session_id: session })).status, 404)
        assert.include((yield* Api.get("sessions")).body.sessions ?? [], session)
        assert.deepStrictEqual((yield* Api.get(`sessions/${session}`)).body.training_run_ids, [model])
        const filed = yield* Api.request("PUT", `/api/v1/sessions/${session}/project`, { json: { project_id: "p" } })
        assert.strictEqual(filed.status, 200)
        assert.strictEqual((yield* Api.get("training_runs?project_id=p")).body.training_runs?.length, 1)

        const copy = yield* Api.newModel
        assert.notStrictEqual(copy, model)
        yield* Api.settle(Api.loadWeights(copy, 1, before.path))
        assert.strictEqual(yield* control.stateHash(copy), before.hash)
        assert.deepStrictEqual(yield* control.ledger(copy), before.ledger)
      }).pipe(Api.provided({ directory }))
    })
  )

  it.effect("remembers what was deleted, what expires, and which checkpoint is bad", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const model = yield* Effect.gen(function* () {
        const model = yield* Api.newModel
        yield* Api.settle(Api.saveWeights(model, 1, "bad"))
        yield* Api.settle(Api.saveWeights(model, 2, "deleted"))
        yield* Api.settle(Api.saveWeights(model, 3, "short", { ttl_seconds: 60 }))
        yield* Api.request("DELETE", `/api/v1/training_runs/${model}/checkpoints/weights/deleted`)
        return model
      }).pipe(Api.provided({ directory, faults: FaultPlan.make([FaultPlan.checkpointPoisonedOnLoad({ save: 1 })]) }))

      yield* Effect.gen(function* () {
        const names = Effect.map(Api.get("checkpoints"), ({ body }) => (body.checkpoints ?? []).length)
        assert.strictEqual(yield* names, 2)
        yield* TestClock.adjust("61 seconds")
        assert.strictEqual(yield* names, 1)
        const copy = yield* Api.newModel
        assert.isUndefined((yield* Api.settle(Api.loadWeights(copy, 1, `tinker://${model}/weights/bad`))).error)
        assert.isTrue((yield* Api.get(`training_runs/${copy}`)).body.corrupted)
      }).pipe(Api.provided({ directory }))
    })
  )

  it.effect("the files of a checkpoint that expired are taken away, also of one that expired meanwhile", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const left = Effect.promise(async () => {
        const names = await NodeFs.readdir(NodePath.join(directory, "checkpoints"))
        return names.filter((name) => !name.startsWith(".")).length
      })
      // Files are moved by the operating system, which does not know the test's clock: at most 5,000 looks at them.
      const until = Effect.fnUntraced(function* (count: number) {
        for (let i = 0; i < 5000 && (yield* left) !== count; i++) yield* Effect.yieldNow
        assert.strictEqual(yield* left, count)
      })
      yield* Effect.gen(function* () {
        const model = yield* Api.newModel
        yield* Api.settle(Api.saveWeights(model, 1, "short", { ttl_seconds: 60 }))
        yield* Api.settle(Api.saveWeights(model, 2, "longer", { ttl_seconds: 3600 }))
        yield* Api.settle(Api.saveWeights(model, 3, "for-ever"))
        yield* until(3)
        yield* TestClock.adjust("10 minutes")
        yield* until(2)
      }).pipe(Api.provided({ directory }))
      yield* TestClock.adjust("1 hour")
      yield* until(1).pipe(Api.provided({ directory }))
    })
  )

  it.effect("a result that a fault took away does not come back with the next process", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const faults = FaultPlan.make([FaultPlan.expireFuture({ operation: "optim_step", occurrence: 1 })])
      const ids = yield* Effect.gen(function* () {
        const model = yield* Api.newModel
        const first = yield* Effect.flatMap(Api.optimStep(model, 1), Api.expectOk)
        const second = yield* Effect.flatMap(Api.optimStep(model, 2), Api.expectOk)
        assert.strictEqual((yield* Api.poll(first.body.request_id)).status, 410)
        assert.isObject((yield* Api.poll(second.body.request_id)).body.metrics)
        return [first.body.request_id, second.body.request_id] as const
      }).pipe(Api.provided({ directory, faults }))
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* Api.poll(ids[0])).status, 410)
        assert.isObject((yield* Api.poll(ids[1])).body.metrics)
      }).pipe(Api.provided({ directory }))
    })
  )

  it.effect("a result that is cut short was seen by nobody; one that is over does not come back", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const file = NodePath.join(directory, "results.ndjson")
      const ids = yield* Effect.gen(function* () {
        const model = yield* Api.newModel
        const first = yield* Effect.flatMap(Api.optimStep(model, 1), Api.expectOk)
        yield* Api.poll(first.body.request_id)
        yield* TestClock.adjust("30 minutes")
        const session = yield* Api.createSession
        const second = yield* Effect.flatMap(Api.post("create_model", Api.modelBody(session)), Api.expectOk)
        yield* Api.poll(second.body.request_id)
        return [first.body.request_id, second.body.request_id] as const
      }).pipe(Api.provided({ directory }))
      yield* TestClock.adjust("31 minutes")
      const append = (text: string) => Effect.promise(() => NodeFs.appendFile(file, text))
      yield* append('{"id":"req-')
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* Api.poll(ids[0])).status, 410)
        assert.strictEqual((yield* Api.poll(ids[1])).body.type, "create_model")
      }).pipe(Api.provided({ directory }))
      const kept = yield* Effect.promise(() => NodeFs.readFile(file, "utf8"))
      assert.strictEqual(kept.split("\n").length, 2)

      yield* append('{"id":"req-\n')
      const error = yield* Effect.flip(Effect.provide(Emulator, Emulator.layerHttpClient({ directory })))
      assert.include(error.message, "results.ndjson")
    })
  )

  it.effect("refuses to start on a table of runs that it cannot read, and names the file", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      yield* Effect.promise(() => NodeFs.mkdir(NodePath.join(directory, "runs")))
      const file = NodePath.join(directory, "runs", "x.json")
      yield* Effect.promise(() => NodeFs.writeFile(file, "{"))
      const error = yield* Effect.flip(Effect.provide(Emulator, Emulator.layerHttpClient({ directory })))
      assert.strictEqual(error.reason._tag, "StorageFailed")
      assert.include(error.message, file)
    })
  )
})
