import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger, Redacted, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { QueueState } from "../src/ApiFuture.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import * as Fake from "./support/fakeService.ts"

const adam = { learningRate: 0.01 }
const failing = <A, R>(effect: Effect.Effect<A, TinkerError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)
const create = Effect.flatMap(ServiceClient, (service) => service.createLoraTrainingClient({ baseModel: "org/base" }))

describe("ServiceClient.createLoraTrainingClient", () => {
  it.effect("makes models side by side in one session, each with its own numbers", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const clients = yield* Effect.all([create, create, create], { concurrency: "unbounded" })
      assert.deepStrictEqual(clients.map((client) => client.modelId).toSorted(), [
        "s0:train:0",
        "s0:train:1",
        "s0:train:2"
      ])
      for (const client of clients) yield* client.optimStep(adam)
      assert.deepStrictEqual(
        fake.of("optim_step").map((seen) => seen.json.seq_id),
        [1, 1, 1]
      )
      assert.strictEqual(fake.of("create_session").length, 1)
      assert.deepInclude(fake.of("create_model")[0]?.json.lora_config, { rank: 32 })
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("unloads a model that nobody waits for any more, once it is there", () => {
    const fake = Fake.make((seen) =>
      seen.path === "retrieve_future" && seen.nth < 3 ? { json: { type: "try_again" } } : undefined
    )
    return Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(create)
      yield* TestClock.adjust("100 millis")
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(fake.of("unload_model").length, 0)
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        fake.of("unload_model").map(({ json }) => json),
        [{ model_id: "s0:train:0" }]
      )
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("tells that there is no room for a model yet", () => {
    const states = ["paused_capacity", "paused_capacity", "active"]
    const fake = Fake.make((seen) =>
      seen.path === "retrieve_future" && seen.nth < states.length
        ? { json: { type: "try_again", queue_state: states[seen.nth], queue_state_reason: "full house" } }
        : undefined
    )
    const told: Array<string> = []
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const onQueueState = ({ reason, state }: QueueState) => Effect.sync(() => void told.push(`${state}: ${reason}`))
      const fiber = yield* Effect.forkChild(service.createLoraTrainingClient({ baseModel: "org/base", onQueueState }), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        told,
        states.map((state) => `${state}: full house`)
      )
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("sends what the session and the model are labelled with", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      yield* service.createLoraTrainingClient({ baseModel: "org/base", userMetadata: { run: "7" } })
      assert.deepStrictEqual(fake.of("create_session")[0]?.json, {
        tags: ["a", "b"],
        user_metadata: { who: "me" },
        sdk_version: "0.25.0",
        project_id: "p1",
        type: "create_session"
      })
      assert.deepStrictEqual(fake.of("create_model")[0]?.json.user_metadata, { run: "7" })
    }).pipe(
      Effect.scoped,
      Effect.provide(Fake.connect(fake, { tags: ["a", "b", "a"], userMetadata: { who: "me" }, projectId: "p1" }))
    )
  })

  it.effect("resends the same pair of session and number when an answer is lost", () => {
    const fake = Fake.make((seen) => (seen.path === "create_model" && seen.nth === 0 ? Fake.refused : undefined))
    return Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(create)
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(fiber)
      const [first, second] = fake.of("create_model")
      assert.deepStrictEqual(first?.json, second?.json)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("replaces a session that is gone and that no heartbeat has found out about", () => {
    let gone = false
    const fake = Fake.make((seen) =>
      gone && seen.json.session_id === "s0" ? Fake.failing(404, "Session s0 not found") : undefined
    )
    return Effect.gen(function* () {
      const first = yield* create
      gone = true
      const second = yield* create
      assert.strictEqual(second.sessionId, "s1")
      assert.strictEqual(second.modelId, "s1:train:0")
      assert.strictEqual((yield* first.failure).reason._tag, "SessionLost")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("replaces a session that refuses and of which no heartbeat can tell whether it is alive", () => {
    let gone = false
    const fake = Fake.make((seen) => {
      if (!gone || seen.json.session_id !== "s0") return undefined
      return seen.path === "session_heartbeat" ? Fake.failing(503, "busy") : Fake.failing(404, "Session s0 not found")
    })
    return Effect.gen(function* () {
      yield* create
      gone = true
      const second = yield* create
      assert.strictEqual(second.modelId, "s1:train:0")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("does not blame the session for a refusal that has another reason", () => {
    const fake = Fake.make((seen) =>
      seen.path === "create_model" ? Fake.failing(400, "no such base model") : undefined
    )
    return Effect.gen(function* () {
      assert.strictEqual((yield* failing(create))._tag, "BadRequest")
      assert.strictEqual(fake.of("create_session").length, 1)
      assert.strictEqual(fake.of("create_model").length, 1)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("passes the service's refusal on", () => {
    const fake = Fake.make((seen) =>
      seen.path === "retrieve_future" ? { json: { error: "base model is not supported", category: "user" } } : undefined
    )
    return Effect.gen(function* () {
      const reason = yield* failing(create)
      assert.strictEqual(reason._tag === "RequestFailed" && reason.category, "user")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("refuses what cannot work before anything is sent", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      for (const options of [
        { baseModel: "" },
        { baseModel: "a", rank: 0 },
        { baseModel: "a", rank: 1.5 },
        { baseModel: "a", seed: Number.NaN },
        { baseModel: "a", seed: 2 ** 53 },
        { baseModel: "a", trainMlp: false, trainAttn: false, trainUnembed: false }
      ]) {
        assert.strictEqual((yield* failing(service.createLoraTrainingClient(options)))._tag, "InvalidInput")
      }
      assert.deepStrictEqual(fake.seen, [])
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})

describe("the session", () => {
  it.effect("is kept alive every ten seconds, from ten seconds on, whatever a heartbeat says", () => {
    const fake = Fake.make((seen) =>
      seen.path === "session_heartbeat"
        ? [Fake.failing(500), Fake.refused, Fake.failing(401), Fake.failing(429), { text: "<html>" } as const][seen.nth]
        : undefined
    )
    return Effect.gen(function* () {
      const client = yield* create
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(fake.of("session_heartbeat").length, 0)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(fake.of("session_heartbeat")[0]?.json, { session_id: "s0", type: "session_heartbeat" })
      yield* TestClock.adjust("90 seconds")
      assert.strictEqual(fake.of("session_heartbeat").length, 10)
      yield* client.optimStep(adam)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("that is not heard for two minutes is warned of", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn") lines.push(String(message))
    })
    const fake = Fake.make((seen) => (seen.path === "session_heartbeat" ? Fake.refused : undefined))
    return Effect.gen(function* () {
      yield* create
      yield* TestClock.adjust("115 seconds")
      assert.strictEqual(lines.length, 0)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(lines.length, 3)
      assert.include(lines[0], "120 s")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)), Effect.provide(Logger.layer([logger])))
  })

  it.effect.each([404, 410])(
    "that the service disowns with %i ends its clients; the next one gets a new one",
    (status) => {
      const fake = Fake.make((seen) =>
        seen.path === "session_heartbeat" && seen.json.session_id === "s0" && seen.nth === 1
          ? Fake.failing(status, "unknown session")
          : seen.path === "retrieve_future" && String(seen.json.request_id).startsWith("optim")
            ? "silence"
            : undefined
      )
      return Effect.gen(function* () {
        const service = yield* ServiceClient
        const client = yield* create
        const update = yield* client.optimStep(adam)
        const result = yield* Effect.forkChild(failing(update.result))
        const failure = yield* Effect.forkChild(client.failure)
        yield* TestClock.adjust("19 seconds")
        assert.isUndefined(failure.pollUnsafe())
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(result))._tag, "SessionLost")
        assert.strictEqual((yield* Fiber.join(failure)).reason._tag, "SessionLost")
        assert.strictEqual((yield* failing(client.optimStep(adam)))._tag, "SessionLost")
        const beats = fake.of("session_heartbeat").length
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(fake.of("session_heartbeat").length, beats)
        assert.strictEqual(yield* service.session, "s1")
        const next = yield* create
        assert.strictEqual(next.modelId, "s1:train:0")
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(fake.of("session_heartbeat").at(-1)?.json.session_id, "s1")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    }
  )

  it.effect("outlives its clients and ends with the layer", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      yield* Effect.gen(function* () {
        yield* Effect.scoped(create)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(fake.of("session_heartbeat").length, 3)
      }).pipe(Effect.provide(Fake.connect(fake)))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(fake.of("session_heartbeat").length, 3)
    })
  })
})

describe("ServiceClient.createTrainingClientFromState", () => {
  const path = "tinker://old:train:0/weights/step-40"

  it.effect("asks for the checkpoint, makes a model of its shape and loads it first", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createTrainingClientFromState(path, { optimizer: true })
      assert.deepStrictEqual(
        fake.seen.map((seen) => seen.path).filter((path) => path !== "retrieve_future" && !path.startsWith("client")),
        ["weights_info", "create_session", "create_model", "load_weights"]
      )
      assert.deepStrictEqual(fake.of("weights_info")[0]?.json, { tinker_path: path })
      assert.deepStrictEqual(fake.of("create_model")[0]?.json, {
        session_id: "s0",
        model_seq_id: 0,
        base_model: "org/base",
        lora_config: { rank: 16, train_unembed: true, train_mlp: false, train_attn: true },
        type: "create_model"
      })
      assert.deepStrictEqual(fake.of("load_weights")[0]?.json, {
        path,
        optimizer: true,
        model_id: "s0:train:0",
        seq_id: 1,
        type: "load_weights"
      })
      assert.strictEqual(yield* client.nextSeq, 2)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("does it in one request where the service prefers that", () => {
    const fake = Fake.make((seen) =>
      seen.path === "client/config" ? { json: { create_model_via_load_weights: true } } : undefined
    )
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createTrainingClientFromState(path, {
        optimizer: false,
        userMetadata: { run: "7" }
      })
      assert.deepStrictEqual(fake.of("load_weights")[0]?.json, {
        session_id: "s0",
        model_seq_id: 0,
        path,
        optimizer: false,
        user_metadata: { run: "7" },
        type: "load_weights"
      })
      assert.strictEqual(client.modelId, "s0:train:0")
      assert.strictEqual(yield* client.nextSeq, 1)
      assert.strictEqual(fake.of("create_model").length, 0)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect.each([[false], [true]])(
    "reads the checkpoint of another account with its token: in one request %s",
    ([atOnce]) => {
      const token = "tml-of-another-account"
      const fake = Fake.make((seen) =>
        seen.path === "client/config" ? { json: { create_model_via_load_weights: atOnce } } : undefined
      )
      return Effect.gen(function* () {
        const service = yield* ServiceClient
        const options = { optimizer: false, weightsAccessToken: Redacted.make(token), headers: { "x-team": "blue" } }
        yield* service.createTrainingClientFromState(path, options)
        assert.strictEqual(fake.of("load_weights")[0]?.json.weights_access_token, token)
        const keys = fake.seen.map((seen) => [seen.path, seen.headers["x-api-key"]])
        assert.deepStrictEqual(
          keys.filter(([, key]) => key !== Fake.key),
          atOnce ? [] : [["weights_info", token]]
        )
        for (const path of atOnce ? ["load_weights"] : ["weights_info", "create_model", "load_weights"]) {
          assert.strictEqual(fake.of(path)[0]?.headers["x-team"], "blue", path)
        }
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    }
  )

  it.effect("refuses a token that is none, without repeating it", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const reason = yield* failing(
        service.createTrainingClientFromState(path, { optimizer: false, weightsAccessToken: "hunter2" })
      )
      assert.include(reason.message, "weightsAccessToken must begin with tml-")
      assert.notInclude(reason.message, "hunter2")
      assert.strictEqual(fake.seen.length, 0)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("frees the model that could not be loaded, and says why it could not", () => {
    const fake = Fake.make((seen) =>
      seen.path === "retrieve_future" && seen.json.request_id === "load_weights:1"
        ? { json: { error: "checkpoint is truncated", category: "server" } }
        : undefined
    )
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const reason = yield* failing(service.createTrainingClientFromState(path, { optimizer: true }))
      assert.include(reason.message, "checkpoint is truncated")
      assert.strictEqual(fake.of("unload_model").length, 1)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect.each<[string, string, { readonly baseModel?: string }, string]>([
    ["a path of samplers", "tinker://run/sampler_weights/a", {}, "path"],
    ["no path", "run/weights/a", {}, "path"],
    ["an empty base model", path, { baseModel: " " }, "baseModel"]
  ])("refuses before it sends anything, also where the load makes the model: %s", ([, from, more, field]) => {
    const fake = Fake.make((seen) =>
      seen.path === "client/config" ? { json: { create_model_via_load_weights: true } } : undefined
    )
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const reason = yield* failing(service.createTrainingClientFromState(from, { optimizer: true, ...more }))
      assert.strictEqual(reason._tag === "InvalidInput" && reason.field, field)
      assert.strictEqual(fake.of("load_weights").length + fake.of("create_session").length, 0)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("refuses a checkpoint that is not LoRA", () => {
    const fake = Fake.make((seen) =>
      seen.path === "weights_info" ? { json: { base_model: "org/base", is_lora: false } } : undefined
    )
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const reason = yield* failing(service.createTrainingClientFromState(path, { optimizer: true }))
      assert.strictEqual(reason._tag, "InvalidInput")
      assert.strictEqual(fake.of("create_model").length, 0)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})

describe("ServiceClient.attachTrainingClient", () => {
  it.effect("goes on with the numbers and the session of a dead process", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const scope = yield* Scope.make()
      const client = yield* service
        .attachTrainingClient({ modelId: "old:train:3", sessionId: "old", nextSeq: 17 })
        .pipe(Scope.provide(scope))
      assert.deepStrictEqual([client.modelId, client.sessionId], ["old:train:3", "old"])
      assert.strictEqual(fake.of("create_session").length, 0)
      yield* client.optimStep(adam)
      assert.deepInclude(fake.of("optim_step")[0]?.json, { model_id: "old:train:3", seq_id: 17 })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(fake.of("session_heartbeat").at(-1)?.json.session_id, "old")
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(fake.of("session_heartbeat").length, 1)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("is told of the loss of that session", () => {
    const fake = Fake.make((seen) => (seen.path === "session_heartbeat" ? Fake.failing(404, "unknown") : undefined))
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.attachTrainingClient({ modelId: "m", sessionId: "old", nextSeq: 2 })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* client.failure).reason._tag, "SessionLost")
      assert.strictEqual(
        (yield* failing(service.attachTrainingClient({ modelId: "m", sessionId: "s", nextSeq: 0 })))._tag,
        "InvalidInput"
      )
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})

describe("ServiceClient.finishSession", () => {
  const finishing = (answer: Fake.Answer = { status: 204, text: "" }) =>
    Fake.make((seen) => (seen.path.endsWith("/finish") ? answer : undefined))

  it.effect("tells how it ended, ends its clients and heartbeats, and a new session takes its place", () => {
    const fake = finishing()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
      yield* TestClock.adjust("10 seconds")
      const beats = fake.of("session_heartbeat").length
      assert.isTrue(yield* service.finishSession({ outcome: "errored", detail: "the loss was NaN" }))
      assert.deepStrictEqual(
        fake.of("sessions/s0/finish").map(({ json }) => json),
        [{ reason: { type: "errored" }, detail: "the loss was NaN" }]
      )
      const failure = (yield* client.failure).reason
      assert.strictEqual(failure._tag, "SessionLost")
      assert.match(failure.message, /^Session s0 has ended: this client has finished it \(errored\)/)
      assert.strictEqual((yield* failing(client.optimStep({ learningRate: 1 })))._tag, "SessionLost")
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(fake.of("session_heartbeat").length, beats)
      // Once is enough, and there is nothing to end until there is another one.
      assert.isFalse(yield* service.finishSession())
      assert.strictEqual(fake.of("sessions/s0/finish").length, 1)
      assert.strictEqual(yield* service.session, "s1")
      assert.isTrue(yield* service.finishSession())
      assert.deepStrictEqual(fake.of("sessions/s1/finish")[0]?.json, { reason: { type: "success" } })
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("sends nothing where there was no session", () => {
    const fake = finishing()
    return Effect.gen(function* () {
      assert.isFalse(yield* (yield* ServiceClient).finishSession())
      assert.deepStrictEqual(fake.seen, [])
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect.each([404, 410])(
    "ends it here also where the service knows no such thing, or it any more: %i",
    (status) => {
      const fake = finishing(Fake.failing(status, "Not Found"))
      return Effect.gen(function* () {
        const service = yield* ServiceClient
        const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
        assert.isFalse(yield* service.finishSession())
        assert.strictEqual((yield* client.failure).reason._tag, "SessionLost")
      }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
    }
  )

  it.effect("takes no longer than its deadline, also while a session is being opened", () => {
    const fake = Fake.make((seen) => (seen.path.endsWith("create_session") ? Fake.failing(503, "busy") : undefined))
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      yield* Effect.forkChild(Effect.exit(service.session), { startImmediately: true })
      const finishing = yield* Effect.forkChild(failing(service.finishSession({ deadline: "5 seconds" })))
      yield* TestClock.adjust("6 seconds")
      assert.isDefined(finishing.pollUnsafe(), "it still waits")
      assert.strictEqual((yield* Fiber.join(finishing))._tag, "Timeout")
      assert.strictEqual((yield* failing(service.finishSession({ deadline: -1 })))._tag, "InvalidInput")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("leaves it as it is where the service could not be told", () => {
    const fake = finishing(Fake.failing(403, "not yours"))
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
      assert.strictEqual((yield* failing(service.finishSession()))._tag, "Forbidden")
      yield* (yield* client.optimStep({ learningRate: 1 })).result
      yield* TestClock.adjust("10 seconds")
      assert.isAbove(fake.of("session_heartbeat").length, 0)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})

describe("ServiceClient.copyWeights", () => {
  const copying = (answer: Fake.Answer = { json: { tinker_path: "tinker://s0:train:0/weights/a" } }) =>
    Fake.make((seen) => (seen.path === "copy_weights" ? answer : undefined))

  it.effect("copies into the session under a number of its own, and repeats a lost request as it was", () => {
    const fake = copying()
    const script = fake.script
    fake.script = (seen) => (seen.path === "copy_weights" && seen.nth === 0 ? Fake.refused : script(seen))
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const fiber = yield* Effect.forkChild(
        service.copyWeights("tinker://r/weights/a", { ttl: "2 minutes", weightsAccessToken: "tml-other" })
      )
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), "tinker://s0:train:0/weights/a")
      const body = {
        session_id: "s0",
        model_seq_id: 0,
        source_path: "tinker://r/weights/a",
        ttl_seconds: 120,
        weights_access_token: "tml-other"
      }
      assert.deepStrictEqual(
        fake.of("copy_weights").map(({ json }) => json),
        [body, body]
      )
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("refuses what cannot be right before anything is sent", () => {
    const fake = copying()
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      for (const [field, path, options] of [
        ["path", "weights/a", {}],
        ["ttl", "tinker://r/weights/a", { ttl: 0 }],
        ["ttl", "tinker://r/weights/a", { ttl: "1500 millis" }],
        ["weightsAccessToken", "tinker://r/weights/a", { weightsAccessToken: "hunter2" }]
      ] as const) {
        const { reason } = yield* Effect.flip(service.copyWeights(path, options))
        assert.strictEqual(reason._tag === "InvalidInput" && reason.field, field)
        assert.notInclude(reason.message, "hunter2")
      }
      assert.deepStrictEqual(fake.seen, [])
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("takes no answer for one without a path", () =>
    Effect.flatMap(ServiceClient, (service) => Effect.flip(service.copyWeights("tinker://r/weights/a"))).pipe(
      Effect.map(({ reason }) => assert.strictEqual(reason._tag, "BadResponse")),
      Effect.provide(Fake.connect(copying({ json: {} })))
    )
  )
})
