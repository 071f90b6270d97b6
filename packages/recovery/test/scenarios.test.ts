import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery, type RecoveryEvent, type Recovered, type RecoveryPolicy } from "@tinkex/recovery"
import { type Checkpoint, RestClient, ServiceClient, Telemetry, type TrainingClient } from "@tinkex/tinker"
import { batch, tiny, world } from "./tinyRun.ts"

const record = Effect.gen(function* () {
  const recovery = yield* Recovery
  const events: Array<RecoveryEvent.RecoveryEvent> = []
  yield* recovery.events.pipe(
    Stream.runForEach((event) => Effect.sync(() => events.push(event))),
    Effect.forkScoped({ startImmediately: true })
  )
  return events
})

const recovering = (options: RecoveryPolicy.RecoveryPolicyOptions = {}) =>
  Effect.provide(Recovery.layer({ enabled: true, jitter: false, ...options }))

const finalState = Effect.fnUntraced(function* (trainingRunId: string) {
  const { control } = yield* Emulator
  const ledger = yield* control.ledger(trainingRunId)
  return { steps: ledger.map(({ step }) => step), hash: yield* control.stateHash(trainingRunId) }
})

const undisturbed = Effect.gen(function* () {
  return yield* finalState((yield* tiny()).trainingRunId)
}).pipe(Effect.provide(world("")))

describe("a trainer's run", () => {
  it.effect("that is poisoned goes on and ends in the state of a run that never failed", () =>
    Effect.gen(function* () {
      const expected = yield* undisturbed
      yield* Effect.gen(function* () {
        const events = yield* record
        const report = yield* tiny()
        assert.deepStrictEqual(yield* finalState(report.trainingRunId), expected)
        assert.strictEqual(report.incidents.length, 1)
        const own = events.filter((event) => event.incident === report.incidents[0]?.id)
        assert.deepStrictEqual(
          own.map((event) => event._tag),
          ["detected", "started", "fenced", "checkpoint_selected", "client_created", "resumed", "completed"]
        )
        assert.isTrue(own.every((event) => event.run === "tiny" && event.attempt === 1))
        const done = own.at(-1)
        assert.isTrue(done?._tag === "completed" && done.newTrainingRunId === report.trainingRunId && done.step === 6)
      }).pipe(recovering(), Effect.provide(world("corrupt@8")))
    })
  )

  it.effect(
    "finds its newest checkpoint lost behind its listing and the next poisoned on load, and goes on from the third",
    () =>
      Effect.gen(function* () {
        const expected = yield* undisturbed
        yield* Effect.gen(function* () {
          const events = yield* record
          const report = yield* tiny()
          assert.deepStrictEqual(yield* finalState(report.trainingRunId), expected)
          const bad = events.filter((event) => event._tag === "quarantined").map((event) => event.path)
          assert.strictEqual(bad.length, 2)
          assert.match(bad[0] ?? "", /-s9-auto$/)
          assert.match(bad[1] ?? "", /-s6-auto$/)
          assert.match(report.incidents[0]?.path ?? "", /-s3-auto$/)
          assert.strictEqual(events.filter((event) => event._tag === "started").length, 1)
        }).pipe(recovering(), Effect.provide(world("corrupt@11,missing@9,poison-load@6")))
      })
  )

  it.effect("that waits for nothing is found by the sweep", () =>
    Effect.gen(function* () {
      const events = yield* record
      const { control } = yield* Emulator
      const paused = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        tiny({
          onEvent: (event) =>
            event._tag === "StepCommitted" && event.step === 4 ? Effect.asVoid(Deferred.await(paused)) : Effect.void
        }),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second").pipe(Effect.repeat({ times: 30 }))
      const model = (yield* control.models)[0]
      yield* control.poison(model?.modelId ?? "")
      yield* TestClock.adjust("60 seconds")
      const first = events.find((event) => event._tag === "detected")
      assert.strictEqual(first?.source, "sweep")
      assert.strictEqual(first?.cause, "poisoned")
      yield* Deferred.succeed(paused, undefined)
      yield* TestClock.adjust("1 minute").pipe(Effect.repeat({ times: 30 }))
      const report = yield* Fiber.join(fiber)
      assert.strictEqual(report.incidents.length, 1)
    }).pipe(recovering(), Effect.provide(world("")))
  )

  it.effect("P7: nothing recovers without `enabled`", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(tiny())
      assert.isTrue(error._tag === "TrainingError" && error.reason._tag === "RunFailed")
    }).pipe(recovering({ enabled: false }), Effect.provide(world("corrupt@8")))
  )

  it.effect("is planned from its journal and the service's lists, by its name or by any attempt's id", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const rest = yield* RestClient
      const { control } = yield* Emulator
      yield* Effect.flip(tiny())
      const model = (yield* control.models)[0]?.modelId ?? ""
      const before = (yield* control.requests).length
      const plan = yield* recovery.plan("tiny")
      assert.deepStrictEqual(yield* recovery.plan(model), plan)
      const reads = (yield* control.requests).slice(before).map(({ endpoint }) => endpoint)
      assert.deepStrictEqual([...new Set(reads)], ["run_checkpoints"])
      const chosen = Option.getOrThrow(plan.chosen)
      assert.deepInclude(chosen, { verified: true, source: "journal", step: Option.some(6) })
      assert.deepStrictEqual(plan.replay, Option.some({ from: 6, to: plan.committed }))
      yield* rest.deleteCheckpoint(chosen.path)
      const after = yield* recovery.plan("tiny")
      assert.deepStrictEqual(Option.getOrThrow(after.chosen).step, Option.some(3))
      assert.deepStrictEqual(
        after.rejected.map(({ candidate, reason }) => [candidate.path, reason]),
        [[chosen.path, "the service does not list it any more"]]
      )
    }).pipe(recovering({ enabled: false }), Effect.provide(world("corrupt@8")))
  )

  it.effect("whose restores never get an answer ends with a typed error after its deadlines", () =>
    Effect.gen(function* () {
      const events = yield* record
      const { control } = yield* Emulator
      const fiber = yield* Effect.forkChild(
        Effect.flip(
          tiny({
            onEvent: (event) =>
              event._tag === "IncidentDetected"
                ? control.inject(
                    FaultPlan.make([FaultPlan.httpBurst({ operation: "create_model", status: 503, count: 9999 })])
                  )
                : Effect.void
          })
        )
      )
      yield* TestClock.adjust("1 minute").pipe(Effect.repeat({ times: 40 }))
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "TrainingError")
      assert.strictEqual(events.filter((event) => event._tag === "failed").length, 3)
      assert.strictEqual(events.at(-1)?._tag, "exhausted")
    }).pipe(recovering({ attemptDeadline: "2 minutes" }), Effect.provide(world("corrupt@8")))
  )
})

/** The loop of somebody who owns it: no journal, a save after every third step. */
const steps = (client: TrainingClient.TrainingClient, from: number, to: number) =>
  Effect.gen(function* () {
    for (let step = from; step < to; step++) {
      const pass = yield* client.forwardBackward(batch(step), { loss: "cross_entropy" })
      const update = yield* client.optimStep({ learningRate: 0.05 })
      yield* pass.result
      yield* update.result
      if ((step + 1) % 3 === 0) yield* (yield* client.saveState(`step-${step + 1}`)).result
    }
  })

const stepOf = (checkpoint: Checkpoint.Checkpoint) => Option.some(Number(checkpoint.checkpointId.split("-").at(-1)))

const create = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "tiny/byte-lm-16", rank: 2, seed: 1 })
)

describe("an owned loop", () => {
  it.effect("is handed a client by a failure in band, and ends in the state of one that never failed", () =>
    Effect.gen(function* () {
      const expected = yield* Effect.gen(function* () {
        const client = yield* create
        yield* steps(client, 0, 12)
        return yield* finalState(client.modelId)
      }).pipe(Effect.scoped, Effect.provide(world("")))
      yield* Effect.gen(function* () {
        const recovery = yield* Recovery
        const client = yield* create
        const handed = yield* Deferred.make<Recovered>()
        yield* recovery.watch({
          runId: client.modelId,
          client,
          stepOf,
          onRecovered: (recovered) => Deferred.succeed(handed, recovered)
        })
        const error = yield* Effect.flip(steps(client, 0, 12))
        assert.strictEqual(error._tag, "TinkerError")
        const recovered = yield* Deferred.await(handed)
        assert.deepStrictEqual(recovered.step, Option.some(6))
        // the old client has ended: the fence came before the new model
        yield* Effect.flip(client.optimStep({ learningRate: 0 }))
        yield* steps(recovered.client, 6, 12)
        assert.deepStrictEqual(yield* finalState(recovered.client.modelId), expected)
      }).pipe(Effect.scoped, recovering(), Effect.provide(world("corrupt@7")))
    })
  )

  it.effect("R2: a plan leaves no trace but reads on the wire", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const { control } = yield* Emulator
      const client = yield* create
      yield* steps(client, 0, 8)
      yield* control.poison(client.modelId)
      const before = yield* control.requests
      const plan = yield* recovery.plan(client.modelId, { stepOf, committed: 8 })
      assert.deepStrictEqual(plan.replay, Option.some({ from: 6, to: 8 }))
      const after = (yield* control.requests).slice(before.length)
      assert.deepStrictEqual(
        after.map(({ endpoint }) => endpoint),
        ["training_run", "run_checkpoints", "weights_info"]
      )
    }).pipe(Effect.scoped, recovering(), Effect.provide(world("")))
  )

  it.effect("finds its newest checkpoint truncated and the next poisoned on load, and goes on from the third", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const events = yield* record
      const client = yield* create
      yield* Effect.flip(steps(client, 0, 12))
      const recovered = yield* recovery.recoverRun(client.modelId, { stepOf })
      assert.deepStrictEqual(recovered.step, Option.some(3))
      assert.deepStrictEqual(
        recovered.quarantined.map((path) => path.split("/").at(-1)),
        ["step-9", "step-6"]
      )
      assert.deepStrictEqual(
        events.filter((event) => event._tag === "quarantined").map((event) => event.path),
        recovered.quarantined
      )
      yield* steps(recovered.client, 3, 5)
    }).pipe(Effect.scoped, recovering(), Effect.provide(world("corrupt@11,truncate@9,poison-load@6")))
  )

  it.effect("a manual recovery of a healthy run fences nothing it was not told of, and restores in full", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const { control } = yield* Emulator
      const client = yield* create
      yield* steps(client, 0, 6)
      const saved = yield* control.stateHash(client.modelId)
      const recovered = yield* recovery.recoverRun(client.modelId, { stepOf })
      assert.strictEqual(yield* control.stateHash(recovered.client.modelId), saved)
      const weights = yield* recovery.recoverFromCheckpoint(recovered.checkpoint.path, { restoreOptimizer: false })
      assert.notStrictEqual(yield* control.stateHash(weights.client.modelId), saved)
      assert.strictEqual(
        yield* control.weightsHash(weights.client.modelId),
        yield* control.weightsHash(recovered.client.modelId)
      )
    }).pipe(Effect.scoped, recovering({ enabled: false }), Effect.provide(world("")))
  )

  it.effect("D63: a service that is told of sessions is told of incidents too, without names or messages", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const { control } = yield* Emulator
      const telemetry = yield* Telemetry
      const client = yield* create
      yield* Effect.flip(steps(client, 0, 12))
      const recovered = yield* recovery.recoverRun(client.modelId, { stepOf })
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* telemetry.flush("1 second"))
      const told = (yield* control.telemetry).flatMap(({ event }) =>
        event.event === "GENERIC_EVENT" && event.event_name.startsWith("recovery_") ? [event] : []
      )
      assert.deepStrictEqual(
        told.map((event) => event.event_name),
        [
          "recovery_detected",
          "recovery_started",
          "recovery_checkpoint_selected",
          "recovery_client_created",
          "recovery_resumed",
          "recovery_completed"
        ]
      )
      assert.deepInclude(told.at(-1), { severity: "INFO" })
      assert.deepInclude(told.at(-1)?.event_data, {
        training_run_id: client.modelId,
        new_training_run_id: recovered.client.modelId
      })
      for (const { event_data } of told) assert.notProperty(event_data, "detail")
      yield* recovery.recoverFromCheckpoint(recovered.checkpoint.path)
      assert.isTrue(yield* telemetry.flush("1 second"))
      const all = (yield* control.telemetry).filter(({ event }) => event.event === "GENERIC_EVENT")
      assert.isAbove(all.length, told.length)
      assert.notInclude(JSON.stringify(all), "weights/", "a checkpoint has a name of the program's")
    }).pipe(Effect.scoped, recovering({ enabled: false }), Effect.provide(world("corrupt@8", {}, { telemetry: true })))
  )

  it.effect("X4: a key that the service has never taken ends at once what somebody asks for", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const events = yield* record
      for (const asked of [
        Effect.asVoid(recovery.recoverRun("run:train:0")),
        Effect.asVoid(recovery.recoverFromCheckpoint("tinker://run:train:0/weights/first"))
      ]) {
        const error = yield* Effect.flip(asked)
        assert.strictEqual(error.reason._tag, "RestoreFailed")
        assert.isFalse(error.isRetryable)
        assert.include(error.message, "TINKER_API_KEY")
      }
      assert.notInclude(
        events.map(({ _tag }) => _tag),
        "paused"
      )
    }).pipe(Effect.scoped, recovering(), Effect.provide(world("burst:401:any@1x9999")))
  )

  it.effect("X6: a key that was taken before is waited for, also by somebody who asks", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const { control } = yield* Emulator
      const client = yield* create
      yield* steps(client, 0, 6)
      yield* recovery.watch({ runId: client.modelId, client, stepOf })
      yield* TestClock.adjust("1 minute")
      yield* control.inject(yield* FaultPlan.parse("burst:401:any@1x20"))
      const asked = yield* Effect.forkChild(recovery.recoverRun(client.modelId, { stepOf }))
      for (let minutes = 0; minutes < 60 && asked.pollUnsafe() === undefined; minutes++) {
        yield* TestClock.adjust("1 minute")
      }
      assert.deepStrictEqual((yield* Fiber.join(asked)).step, Option.some(6))
    }).pipe(Effect.scoped, recovering(), Effect.provide(world("")))
  )

  it.effect("X6: waits for a service without room as long as it has none, in one try", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const events = yield* record
      const client = yield* create
      yield* steps(client, 0, 6)
      yield* TestClock.adjust("2 seconds")
      const asked = yield* Effect.forkChild(recovery.recoverRun(client.modelId, { stepOf }))
      for (let minutes = 0; minutes < 181; minutes++) yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* Fiber.join(asked)).step, Option.some(6))
      assert.deepStrictEqual(
        events
          .filter(({ _tag }) => _tag === "paused" || _tag === "started" || _tag === "failed")
          .map(({ _tag }) => _tag),
        ["started", "paused"]
      )
    }).pipe(Effect.scoped, recovering(), Effect.provide(world("pause@1s=3h")))
  )

  it.effect("a lost session is recovered in a new one", () =>
    Effect.gen(function* () {
      const recovery = yield* Recovery
      const client = yield* create
      const handed = yield* Deferred.make<Recovered>()
      yield* recovery.watch({
        runId: client.modelId,
        client,
        stepOf,
        onRecovered: (recovered) => Deferred.succeed(handed, recovered)
      })
      const loop = yield* Effect.forkChild(Effect.flip(steps(client, 0, 12)))
      yield* TestClock.adjust("10 seconds").pipe(Effect.repeat({ times: 30 }))
      yield* Fiber.join(loop)
      const fiber = yield* Effect.forkChild(Deferred.await(handed))
      yield* TestClock.adjust("10 seconds").pipe(Effect.repeat({ times: 6 }))
      const recovered = yield* Fiber.join(fiber)
      assert.notStrictEqual(recovered.client.sessionId, client.sessionId)
    }).pipe(Effect.scoped, recovering(), Effect.provide(world("lose-session@7")))
  )
})
