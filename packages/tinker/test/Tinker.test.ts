import { assert, describe, it } from "@effect/vitest"
import { Clock, ConfigProvider, Effect, Exit, Fiber, Layer, Logger, Redacted, Schema } from "effect"
import { TestClock } from "effect/testing"
import { RestClient } from "../src/RestClient.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import { Tinker, type TinkerOptions } from "../src/Tinker.ts"
import { TinkerError } from "../src/TinkerError.ts"
import * as Fake from "./support/fakeService.ts"

const Answered = Schema.Struct({ answer: Schema.Int })
const endpoint = { method: "POST", path: "/api/v1/thing" }

const ask = Effect.flatMap(Tinker, ({ request }) =>
  request(endpoint, { operation: "ask", body: { q: 1 }, decode: Answered })
)

const reasonOf = (exit: Exit.Exit<unknown, TinkerError>) => {
  assert.isTrue(Exit.isFailure(exit))
  const error = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  assert.strictEqual(error?._tag, "Fail")
  return error?._tag === "Fail" ? error.error.reason : assert.fail()
}

/** Runs an effect and lets virtual time pass until it ends; fails where it outlives the limit. Gives the seconds it took. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>, limitSeconds = 4000) =>
  Effect.gen(function* () {
    const began = yield* Clock.currentTimeMillis
    const fiber = yield* Effect.forkChild(effect)
    yield* TestClock.adjust(0)
    for (let i = 0; i < limitSeconds * 10 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust(100)
    const exit = fiber.pollUnsafe()
    if (exit === undefined) return assert.fail(`still waiting after ${limitSeconds} s`)
    return { exit, seconds: ((yield* Clock.currentTimeMillis) - began) / 1000 }
  })

/** Answers of the one path that these tests are about; the last one repeats. */
const answering = (...answers: ReadonlyArray<Fake.Answer>) =>
  Fake.make((seen) => (seen.path === "thing" ? answers[Math.min(seen.nth, answers.length - 1)] : undefined))

const good: Fake.Answer = { json: { answer: 42, unknown: "is ignored" } }

describe("Tinker.layer", () => {
  const build = (options: TinkerOptions) =>
    Effect.exit(Effect.scoped(Layer.build(Tinker.layer(options).pipe(Layer.provide(Fake.make().layer)))))

  it.effect.each<[string, Partial<TinkerOptions>, string]>([
    ["an empty key", { apiKey: "" }, "apiKey"],
    ["a key of another service", { apiKey: "sk-123456" }, "apiKey"],
    ["the bare prefix", { apiKey: "tml-" }, "apiKey"],
    ["a key with a line end", { apiKey: "tml-abc\n" }, "apiKey"],
    ["a key that no header carries", { apiKey: "tml-äbc" }, "apiKey"],
    ["a URL that is none", { baseUrl: "not a url" }, "baseUrl"],
    ["a file URL", { baseUrl: "file:///etc/passwd" }, "baseUrl"],
    ["a URL with a password", { baseUrl: "https://me:pw@host/" }, "baseUrl"],
    ["a URL with a query", { baseUrl: "https://host/?a=1" }, "baseUrl"],
    ["no time at all", { deadline: 0 }, "deadline"],
    ["no end", { deadline: "Infinity" }, "deadline"],
    ["a negative tolerance", { pollTolerance: -1 }, "pollTolerance"],
    ["a heartbeat of zero", { heartbeat: "0 seconds" }, "heartbeat"]
  ])("refuses %s and does not repeat it", ([, options, field]) =>
    Effect.gen(function* () {
      const reason = reasonOf(yield* build({ apiKey: Fake.key, ...options }))
      assert.strictEqual(reason._tag, "InvalidConfig")
      assert.strictEqual(reason._tag === "InvalidConfig" && reason.field, field)
      for (const secret of ["sk-123456", "tml-abc", "pw@", Fake.key]) assert.notInclude(reason.message, secret)
    })
  )

  it.effect("sends nothing by itself, takes a redacted key, and an empty URL for none", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      assert.strictEqual((yield* Tinker).config.baseUrl, "https://tinker.thinkingmachines.dev/services/tinker-prod")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(fake.seen, [])
    }).pipe(Effect.provide(Fake.connect(fake, { apiKey: Redacted.make(Fake.key), baseUrl: "" })))
  })

  it.effect("keeps the prefix of the URL, slash at its end or not", () => {
    const fake = answering(good)
    return Effect.gen(function* () {
      yield* ask
      assert.strictEqual(fake.of("thing")[0]?.url, "https://host.test/a/b/api/v1/thing")
    }).pipe(Effect.provide(Fake.connect(fake, { baseUrl: "https://host.test/a/b/" })))
  })
})

describe("Tinker.layerConfig", () => {
  const build = (env: Record<string, string>, options?: Partial<TinkerOptions>) =>
    Effect.map(Tinker, ({ config }) => config).pipe(
      Effect.provide(Tinker.layerConfig(options)),
      Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env }))),
      Effect.exit
    )

  it.effect("reads the environment; what is given wins", () =>
    Effect.gen(function* () {
      const env = { TINKER_API_KEY: Fake.key, TINKER_BASE_URL: "http://env.test/p" }
      const read = yield* build(env)
      assert.strictEqual(Exit.isSuccess(read) && read.value.baseUrl, "http://env.test/p")
      const given = yield* build(env, { baseUrl: "http://given.test" })
      assert.strictEqual(Exit.isSuccess(given) && given.value.baseUrl, "http://given.test")
    })
  )

  it.effect("counts an empty variable as unset", () =>
    Effect.gen(function* () {
      const missing = reasonOf(yield* build({ TINKER_API_KEY: "" }))
      assert.strictEqual(missing._tag === "InvalidConfig" && missing.field, "TINKER_API_KEY")
      const read = yield* build({ TINKER_API_KEY: Fake.key, TINKER_BASE_URL: "" })
      assert.include(Exit.isSuccess(read) ? read.value.baseUrl : "", "thinkingmachines")
    })
  )
})

describe("Tinker.request", () => {
  it.effect("asks for the service's configuration once, then sends", () => {
    const fake = answering(good)
    return Effect.gen(function* () {
      const all = yield* Effect.all([ask, ask, ask], { concurrency: "unbounded" })
      assert.deepStrictEqual(all, [{ answer: 42 }, { answer: 42 }, { answer: 42 }])
      assert.deepStrictEqual(
        fake.seen.map((seen) => seen.path),
        ["client/config", "client/dynamic_config", "thing", "thing", "thing"]
      )
      assert.deepStrictEqual(fake.of("thing")[0]?.json, { q: 1 })
      assert.strictEqual(fake.of("thing")[0]?.headers["content-type"], "application/json")
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("leaves empty query values out and sends no content type with a GET", () => {
    const fake = answering(good)
    return Effect.gen(function* () {
      const { request } = yield* Tinker
      yield* request(
        { method: "GET", path: "/api/v1/thing" },
        { operation: "ask", query: { limit: 5, all: true, none: undefined, empty: "" }, decode: Answered }
      )
      const [seen] = fake.of("thing")
      assert.strictEqual(seen?.url, "http://service.test/prefix/api/v1/thing?limit=5&all=true")
      assert.isUndefined(seen?.headers["content-type"])
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("tries 5xx, 408, 429 and lost connections again, ever more slowly", () => {
    const fake = answering(
      Fake.failing(500),
      Fake.refused,
      Fake.failing(408),
      Fake.failing(429),
      Fake.failing(503),
      Fake.refused,
      good
    )
    return Effect.gen(function* () {
      const { exit, seconds } = yield* timed(ask)
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(fake.of("thing").length, 7)
      // 0.5 + 1 + 2 + 4 + 8 + 10, less up to a quarter.
      assert.isAtLeast(seconds, 25.5 * 0.75)
      assert.isAtMost(seconds, 25.5 + 1)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect.each<[string, Record<string, string>, number]>([
    ["retry-after in seconds", { "retry-after": "7" }, 7],
    ["retry-after in milliseconds", { "retry-after-ms": "2500" }, 2.5],
    ["retry-after as a date", { "retry-after": new Date(20_000).toUTCString() }, 20],
    ["none beyond a minute", { "retry-after": "3600" }, 0.5]
  ])("waits as told: %s", ([, headers, expected]) => {
    const fake = answering(Fake.failing(429, "slow down", headers), good)
    return Effect.gen(function* () {
      const { exit, seconds } = yield* timed(ask)
      assert.isTrue(Exit.isSuccess(exit))
      assert.isAtLeast(seconds, expected * 0.7)
      assert.isAtMost(seconds, expected + 0.2)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("lets x-should-retry decide", () => {
    const fake = answering(Fake.failing(503, "no", { "x-should-retry": "false" }))
    const again = answering(Fake.failing(409, "yes", { "x-should-retry": "true" }), good)
    return Effect.gen(function* () {
      const { exit } = yield* timed(ask.pipe(Effect.provide(Fake.connect(fake))))
      assert.strictEqual(reasonOf(exit)._tag, "ServerFailure")
      assert.strictEqual(fake.of("thing").length, 1)
      const repeated = yield* timed(ask.pipe(Effect.provide(Layer.fresh(Fake.connect(again)))))
      assert.isTrue(Exit.isSuccess(repeated.exit))
    })
  })

  it.effect.each<[string, Fake.Answer, string]>([
    ["5xx", Fake.failing(502), "ServerFailure"],
    ["429", Fake.failing(429), "RateLimited"],
    ["refused connections", Fake.refused, "Transport"],
    ["silence", "silence", "Timeout"]
  ])("gives up at the deadline: %s", ([, answer, tag]) => {
    const fake = answering(answer)
    return Effect.gen(function* () {
      const { exit, seconds } = yield* timed(ask)
      const reason = reasonOf(exit)
      assert.strictEqual(reason._tag, tag)
      assert.isTrue(reason.isRetryable)
      assert.isAtLeast(seconds, 90)
      assert.isAtMost(seconds, 91)
      assert.isAtMost(fake.of("thing").length, 20)
    }).pipe(Effect.provide(Fake.connect(fake, { deadline: "90 seconds" })))
  })

  it.effect.each<[number, string]>([
    [400, "BadRequest"],
    [401, "Unauthorized"],
    [403, "Forbidden"],
    [404, "NotFound"],
    [409, "Conflict"],
    [413, "BadRequest"],
    [422, "BadRequest"],
    [425, "BadRequest"]
  ])("does not try %i again", ([status, tag]) => {
    const fake = answering({ status, json: { detail: [{ loc: ["body"], msg: "field required" }] } })
    return Effect.gen(function* () {
      const reason = reasonOf(yield* Effect.exit(ask))
      assert.strictEqual(reason._tag, tag)
      assert.isFalse(reason.isRetryable)
      assert.include(reason.message, "field required")
      assert.strictEqual(fake.of("thing").length, 1)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("waits out a billing pause beside the deadline, but not for ever", () => {
    const paused = Fake.failing(402, "settle the bill")
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { billing_exception_max_pause_duration_sec: 300 } }
      return seen.path === "thing" ? (seen.nth < 30 ? paused : seen.nth < 33 ? Fake.failing(500) : good) : undefined
    })
    const never = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { billing_exception_max_pause_duration_sec: 300 } }
      return seen.path === "thing" ? paused : undefined
    })
    return Effect.gen(function* () {
      const { exit, seconds } = yield* timed(ask.pipe(Effect.provide(Fake.connect(fake, { deadline: "20 seconds" }))))
      assert.isTrue(Exit.isSuccess(exit))
      assert.isAtLeast(seconds, 150)
      assert.isAtMost(seconds, 155)
      const ended = yield* timed(ask.pipe(Effect.provide(Layer.fresh(Fake.connect(never)))))
      assert.strictEqual(reasonOf(ended.exit)._tag, "BillingPaused")
      assert.strictEqual(ended.seconds, 300)
    })
  })

  it.effect.each<[string, Fake.Answer, string]>([
    ["silence", "silence", "Timeout"],
    ["refused connections", Fake.refused, "Transport"],
    ["5xx", Fake.failing(503), "ServerFailure"]
  ])("counts what comes before the first request to its deadline: %s", ([, answer, tag]) => {
    const fake = Fake.make((seen) => (seen.path === "client/config" ? answer : undefined))
    return Effect.gen(function* () {
      const { request } = yield* Tinker
      const one = request(endpoint, { operation: "ask", decode: Answered, call: { deadline: "3 seconds" } })
      const first = yield* Effect.forkChild(ask)
      // It waits for the start that the other has begun.
      const { exit, seconds } = yield* timed(one)
      assert.strictEqual(reasonOf(exit)._tag, "Timeout")
      assert.isAtMost(seconds, 4.1)
      yield* Fiber.interrupt(first)
      const alone = yield* timed(one)
      assert.strictEqual(reasonOf(alone.exit)._tag, tag)
      assert.isAtMost(alone.seconds, 4.1)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("does not try what comes before the first request more often than the request", () => {
    const fake = Fake.make((seen) => (seen.path === "client/config" ? Fake.refused : undefined))
    return Effect.gen(function* () {
      const { health } = yield* RestClient
      const { exit, seconds } = yield* timed(health())
      assert.strictEqual(reasonOf(exit)._tag, "Transport")
      assert.strictEqual(seconds, 0)
      assert.strictEqual(fake.seen.length, 1)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("waits for the billing no longer than a call's own deadline", () => {
    const fake = answering(Fake.failing(402, "settle the bill"))
    return Effect.gen(function* () {
      const { request } = yield* Tinker
      const { exit, seconds } = yield* timed(
        request(endpoint, { operation: "ask", decode: Answered, call: { deadline: "12 seconds" } })
      )
      const reason = reasonOf(exit)
      assert.strictEqual(reason._tag, "BillingPaused")
      assert.include(reason.message, "settle the bill")
      assert.strictEqual(seconds, 12)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect.each<[string, Fake.Answer]>([
    [
      "an HTML page",
      { text: "<html><body>Welcome to the proxy</body></html>", headers: { "content-type": "text/html" } }
    ],
    ["nothing", { text: "" }],
    ["JSON that was cut", { text: '{"answer": 4', headers: { "content-type": "application/json" } }],
    ["a wrong type", { json: { answer: "forty-two" } }],
    ["a missing field", { json: {} }],
    ["a bare null", { json: null }]
  ])("says what is wrong with an answer: %s", ([, answer]) => {
    const fake = answering(answer)
    return Effect.gen(function* () {
      const reason = reasonOf(yield* Effect.exit(ask))
      assert.strictEqual(reason._tag, "BadResponse")
      assert.include(reason.message, "ask")
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("fails when the configuration cannot be had, and asks again the next time", () => {
    let broken = true
    const fake = Fake.make((seen) =>
      seen.path === "client/config" && broken ? Fake.failing(404) : seen.path === "thing" ? good : undefined
    )
    return Effect.gen(function* () {
      assert.strictEqual(reasonOf(yield* Effect.exit(ask))._tag, "NotFound")
      assert.strictEqual(fake.of("thing").length, 0)
      broken = false
      assert.deepStrictEqual(yield* ask, { answer: 42 })
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("never prints the key, whoever quotes it", () => {
    const lines: Array<string> = []
    const logger = Logger.make((options) => {
      lines.push(JSON.stringify([options.message, options.cause]))
    })
    const quoting: ReadonlyArray<Fake.Answer> = [
      Fake.failing(401, `the key ${Fake.key} is unknown`),
      { text: `<p>${Fake.key}</p>` },
      { json: { answer: Fake.key } },
      { refused: new TypeError("fetch failed", { cause: new Error(`invalid header value ${Fake.key}`) }) }
    ]
    return Effect.forEach(quoting, (answer) =>
      Effect.gen(function* () {
        const { exit } = yield* timed(ask)
        const reason = reasonOf(exit)
        const error = new TinkerError({ reason })
        const encoded = yield* Schema.encodeEffect(TinkerError)(error)
        for (const printed of [error.message, String(error.stack), JSON.stringify(encoded), JSON.stringify(error)]) {
          assert.notInclude(printed, Fake.key)
        }
      }).pipe(Effect.provide(Layer.fresh(Fake.connect(answering(answer), { deadline: "5 seconds" }))))
    ).pipe(
      Effect.andThen(Effect.sync(() => assert.notInclude(lines.join("\n"), Fake.key))),
      Effect.provide(Logger.layer([logger]))
    )
  })
})

describe("RestClient and ServiceClient", () => {
  it.effect("come with the same layer and share its connection", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const rest = yield* RestClient
      const service = yield* ServiceClient
      assert.strictEqual(service.rest, rest)
      assert.strictEqual((yield* rest.weightsInfo("tinker://run/weights/a")).baseModel, "org/base")
      const fiber = yield* Effect.forkChild(service.session)
      assert.strictEqual(yield* Fiber.join(fiber), "s0")
      assert.strictEqual(fake.of("client/config").length, 1)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })
})
