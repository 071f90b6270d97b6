import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { TestClock } from "effect/testing"
import type { ApiFuture } from "../src/ApiFuture.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import type { SaveResult, TrainingClient } from "../src/TrainingClient.ts"
import * as Fake from "./support/fakeService.ts"

const newClient = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "org/base", rank: 8 })
)

const failing = <A, R>(effect: Effect.Effect<A, TinkerError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

const listing = (...ids: ReadonlyArray<string>): Fake.Answer => ({
  json: {
    checkpoints: ids.map((checkpoint_id) => ({
      checkpoint_id,
      checkpoint_type: checkpoint_id.startsWith("sampler") ? "sampler" : "training",
      time: "2026-08-01T10:00:00Z",
      tinker_path: `tinker://s0:train:0/${checkpoint_id}`
    }))
  }
})

/** The answer to the first try is lost; to the second the service says that the name is taken. */
const takenAfterLoss = (path: string, list: (nth: number) => Fake.Answer): Fake.Fake =>
  Fake.make((seen) => {
    if (seen.path === path) return seen.nth === 0 ? Fake.refused : Fake.failing(409, "checkpoint a already exists")
    return seen.path === "training_runs/s0:train:0/checkpoints" ? list(seen.nth) : undefined
  })

type Save = (client: TrainingClient) => Effect.Effect<ApiFuture<SaveResult>, TinkerError>
const kinds: ReadonlyArray<[string, string, Save]> = [
  ["save_weights", "weights", (client) => client.saveState("a")],
  ["save_weights_for_sampler", "sampler_weights", (client) => client.saveWeightsForSampler("a")]
]

describe("saves", () => {
  it.effect("say all that a save can say", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const client = yield* newClient
      yield* client.saveState("full", { ttl: "2 hours", overwrite: true, userMetadata: { step: "7" } })
      const named = yield* client.saveWeightsForSampler("thin", { ttl: "1 minute" })
      const unnamed = yield* client.saveWeightsEphemeral()
      const another = yield* client.saveWeightsEphemeral({ ttl: "1 hour" })
      const about = { model_id: "s0:train:0" }
      assert.deepStrictEqual(fake.of("save_weights")[0]?.json, {
        ...about,
        path: "full",
        ttl_seconds: 7200,
        overwrite: true,
        user_metadata: { step: "7" },
        seq_id: 1,
        type: "save_weights"
      })
      const type = "save_weights_for_sampler"
      assert.deepStrictEqual(
        fake.of(type).map(({ json }) => json),
        [
          { ...about, path: "thin", ttl_seconds: 60, seq_id: 2, type },
          { ...about, sampling_session_seq_id: 0, seq_id: 3, type },
          { ...about, sampling_session_seq_id: 1, ttl_seconds: 3600, seq_id: 4, type }
        ]
      )
      assert.deepStrictEqual(yield* named.result, { path: "tinker://run/sampler_weights/thin" })
      assert.deepStrictEqual(yield* unnamed.result, { samplingSessionId: "s0:sample:0" })
      assert.deepStrictEqual(yield* another.result, { samplingSessionId: "s0:sample:1" })
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("repeat an unnamed one with the same number, so that it can be known for the same", () => {
    const fake = Fake.make((seen) =>
      seen.path === "save_weights_for_sampler" && seen.nth < 2 ? Fake.refused : undefined
    )
    return Effect.gen(function* () {
      const client = yield* newClient
      const fiber = yield* Effect.forkChild(client.saveWeightsEphemeral())
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      const copies = fake.of("save_weights_for_sampler").map(({ body }) => Buffer.from(body).toString())
      assert.deepStrictEqual([copies.length, new Set(copies).size], [3, 1])
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("fail where the service keeps back what was asked for", () => {
    const fake = Fake.make((seen) =>
      seen.path === "retrieve_future" && seen.nth > 0 ? { json: { type: "save_weights_for_sampler" } } : undefined
    )
    return Effect.gen(function* () {
      const client = yield* newClient
      const named = yield* client.saveWeightsForSampler("a")
      const unnamed = yield* client.saveWeightsEphemeral()
      // Each is read four times.
      yield* TestClock.adjust("10 seconds")
      assert.include((yield* failing(named.result)).message, "it has no path")
      assert.include((yield* failing(unnamed.result)).message, "it has no sampling_session_id")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  describe("of a name that is taken (409)", () => {
    it.effect.each(kinds)(
      "succeed where only an earlier try of theirs can have taken it, once it is there: %s",
      ([path, kind, save]) => {
        const fake = takenAfterLoss(path, (nth) =>
          nth < 2 ? listing("weights/b", kind === "weights" ? "sampler_weights/a" : "weights/a") : listing(`${kind}/a`)
        )
        return Effect.gen(function* () {
          const client = yield* newClient
          const fiber = yield* Effect.forkChild(Effect.flatMap(save(client), ({ result }) => result))
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* Fiber.join(fiber), { path: `tinker://s0:train:0/${kind}/a` })
          assert.strictEqual(fake.of("training_runs/s0:train:0/checkpoints").length, 3)
          yield* (yield* client.optimStep({ learningRate: 1 })).result
          assert.strictEqual(fake.of("optim_step")[0]?.json["seq_id"], 2)
        }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
      }
    )

    it.effect("succeed too where a server numbers its refusals, and lists names without their kind", () => {
      const fake = Fake.make((seen) => {
        if (seen.path === "save_weights") {
          return seen.nth === 0 ? Fake.refused : Fake.failing(409, "Invalid seq_id: expected 2, got 1")
        }
        if (!seen.path.endsWith("/checkpoints")) return undefined
        const kind = seen.nth === 0 ? "sampler" : "training"
        const tinker_path = `tinker://s0:train:0/${seen.nth === 0 ? "sampler_" : ""}weights/a`
        const entry = { time: "2026-08-01T10:00:00Z", tinker_path, checkpoint_id: "a", checkpoint_type: kind }
        return { json: { checkpoints: [entry] } }
      })
      return Effect.gen(function* () {
        const client = yield* newClient
        const fiber = yield* Effect.forkChild(Effect.flatMap(client.saveState("a"), ({ result }) => result))
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(yield* Fiber.join(fiber), { path: "tinker://s0:train:0/weights/a" })
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("fail where nothing of theirs was lost before", () => {
      const fake = Fake.make((seen) =>
        seen.path === "save_weights"
          ? Fake.failing(409, "checkpoint a already exists")
          : seen.path.endsWith("/checkpoints")
            ? listing("weights/a")
            : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        assert.strictEqual((yield* failing(client.saveState("a")))._tag, "Conflict")
        assert.strictEqual(fake.of("save_weights").length, 1)
        assert.strictEqual((yield* failing(client.saveState("b")))._tag, "SubmissionRefused")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("fail where this client saved under that name before", () => {
      const fake = Fake.make((seen) =>
        seen.path === "save_weights" && seen.nth > 0
          ? seen.nth === 1
            ? Fake.refused
            : Fake.failing(409, "checkpoint a already exists")
          : undefined
      )
      return Effect.gen(function* () {
        const client = yield* newClient
        yield* client.saveState("a")
        const fiber = yield* Effect.forkChild(failing(client.saveState("a")))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "Conflict")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("fail where another process may have saved under that name", () => {
      const fake = takenAfterLoss("save_weights", () => listing("weights/a"))
      return Effect.gen(function* () {
        const service = yield* ServiceClient
        const session = yield* service.session
        const client = yield* service.attachTrainingClient({
          modelId: "s0:train:0",
          sessionId: session,
          nextSeq: 7
        })
        const fiber = yield* Effect.forkChild(failing(client.saveState("a")))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "Conflict")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("fail after some time where the checkpoint never appears, and cost no client", () => {
      const fake = takenAfterLoss("save_weights", () => listing())
      return Effect.gen(function* () {
        const client = yield* newClient
        const fiber = yield* Effect.forkChild(failing(Effect.flatMap(client.saveState("a"), ({ result }) => result)))
        yield* TestClock.adjust("4 minutes")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "Conflict")
        yield* (yield* client.optimStep({ learningRate: 1 })).result
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })

    it.effect("fail without a name to look for", () => {
      const fake = takenAfterLoss("save_weights_for_sampler", () => listing())
      return Effect.gen(function* () {
        const client = yield* newClient
        const fiber = yield* Effect.forkChild(failing(client.saveWeightsEphemeral()))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "Conflict")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    })
  })
})

describe("loads", () => {
  it.effect("may show a token of the checkpoint's owner, which nothing tells afterwards", () => {
    const token = "eyJowner.secret.token"
    const fake = Fake.make((seen) =>
      seen.path === "load_weights" ? Fake.failing(403, `${token} may not read this`) : undefined
    )
    return Effect.gen(function* () {
      const client = yield* newClient
      const reason = yield* failing(
        client.loadState("tinker://other/weights/a", { optimizer: false, weightsAccessToken: Redacted.make(token) })
      )
      assert.strictEqual(fake.of("load_weights")[0]?.json["weights_access_token"], token)
      assert.strictEqual(reason._tag, "Forbidden")
      assert.notInclude(JSON.stringify(reason) + reason.message, token)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})
