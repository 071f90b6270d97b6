import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, type Duration, Effect, Exit, Fiber, Layer, Logger, Redacted, Schema } from "effect"
import { TestClock } from "effect/testing"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { RestClient } from "../src/RestClient.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import { Tinker } from "../src/Tinker.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import * as Fake from "./support/fakeService.ts"

const ask = Effect.flatMap(Tinker, ({ request }) =>
  request(
    { method: "POST", path: "/api/v1/thing" },
    { operation: "ask", decode: Schema.Struct({ answer: Schema.Int }), body: { q: 1 } }
  )
)
const good: Fake.Answer = { json: { answer: 42 } }

const jwt = (n: number, expSeconds: number, claims: Record<string, unknown> = {}) =>
  `eyJh.${Buffer.from(JSON.stringify({ exp: expSeconds, n, ...claims })).toString("base64url")}.sig`

/** A service that hands out tokens, each ending at the next of these times, in seconds; none after the last. */
const service = (expSeconds: ReadonlyArray<number>, config = {}) =>
  Fake.make((seen) => {
    if (seen.path === "client/config") return { json: { pjwt_auth_enabled: true, ...config } }
    if (seen.path === "auth/token") {
      const exp = expSeconds[seen.nth]
      return exp === undefined ? Fake.failing(500) : { json: { jwt: jwt(seen.nth, exp) } }
    }
    return seen.path === "thing" ? good : undefined
  })

/** Lets so much virtual time pass meanwhile. */
const passing =
  (time: Duration.Input) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(Effect.forkChild(effect), (fiber) => Effect.andThen(TestClock.adjust(time), Fiber.join(fiber)))

const carried = (fake: Fake.Fake) => fake.of("thing").map((seen) => seen.headers["x-api-key"])

const reasonOf = (exit: Exit.Exit<unknown, TinkerError>) => {
  const error = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  return error?._tag === "Fail" ? error.error.reason : assert.fail("no failure")
}

/** A command that prints the lines one after the other, one each time it runs, and the last for ever. */
const printing = (...lines: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const folder = mkdtempSync(join(tmpdir(), "zz-credential-"))
      const script = join(folder, "print.cjs")
      writeFileSync(
        script,
        `const fs = require("node:fs"); const count = ${JSON.stringify(join(folder, "count"))}; let n = 0
         try { n = Number(fs.readFileSync(count, "utf8")) } catch {}
         fs.writeFileSync(count, String(n + 1)); const lines = ${JSON.stringify(lines)}
         console.log(lines[Math.min(n, lines.length - 1)])`
      )
      return {
        folder,
        command: `"${process.execPath}" "${script}"`,
        runs: () => {
          try {
            return Number(readFileSync(join(folder, "count"), "utf8"))
          } catch {
            return 0
          }
        }
      }
    }),
    ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )

describe("the access token", () => {
  it.effect("is fetched with the key and carried from then on", () => {
    const fake = service([3600])
    return Effect.gen(function* () {
      yield* ask
      const used = fake.seen.map((seen) => [seen.path, seen.headers["x-api-key"]])
      assert.deepStrictEqual(used, [
        ["client/config", Fake.key],
        ["auth/token", Fake.key],
        ["client/dynamic_config", jwt(0, 3600)],
        ["thing", jwt(0, 3600)]
      ])
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("is renewed in the background 300 s before it ends, and again a minute after a failure", () => {
    const fake = service([3600, 7200])
    return Effect.gen(function* () {
      yield* ask
      yield* TestClock.adjust("3299 seconds")
      assert.strictEqual(fake.of("auth/token").length, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(fake.of("auth/token").length, 2)
      yield* ask
      assert.strictEqual(carried(fake).at(-1), jwt(1, 7200))
      // From here on every renewal fails; the token goes on, and the next attempt is a minute away.
      yield* TestClock.adjust("3600 seconds")
      assert.strictEqual(fake.of("auth/token").length, 3)
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(fake.of("auth/token").length, 4)
      yield* ask
      assert.strictEqual(carried(fake).at(-1), jwt(1, 7200))
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("is renewed by one, however often the start was given up", () => {
    const fake = service([3600])
    const tokens = fake.script
    fake.script = (seen) => (seen.path === "client/dynamic_config" && seen.nth < 5 ? "silence" : tokens(seen))
    return Effect.gen(function* () {
      for (let i = 0; i < 5; i++) yield* Effect.timeoutOption(ask, "1 second").pipe(passing("1 second"))
      yield* ask
      assert.strictEqual(fake.of("auth/token").length, 1)
      yield* TestClock.adjust("3300 seconds")
      assert.strictEqual(fake.of("auth/token").length, 2)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("is renewed before a request in its last minute, once for all who wait, and kept when that fails", () => {
    // Too short for the background, which waits a minute at least.
    const fake = service([100, 200])
    return Effect.gen(function* () {
      yield* ask
      yield* TestClock.adjust("59 seconds")
      yield* Effect.all([ask, ask, ask], { concurrency: "unbounded" })
      assert.strictEqual(fake.of("auth/token").length, 1)
      yield* TestClock.adjust("1 second")
      yield* Effect.all([ask, ask, ask], { concurrency: "unbounded" })
      assert.strictEqual(fake.of("auth/token").length, 2)
      assert.strictEqual(carried(fake).at(-1), jwt(1, 200))
      yield* TestClock.adjust("20 minutes")
      yield* ask
      assert.strictEqual(carried(fake).at(-1), jwt(1, 200))
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("is replaced once when the service refuses it, and the request is sent again", () => {
    let revoked = new Set<string>()
    const fake = service([3600, 7200])
    const tokens = fake.script
    fake.script = (seen) =>
      revoked.has(seen.headers["x-api-key"] ?? "") && seen.path === "thing" ? Fake.failing(401) : tokens(seen)
    return Effect.gen(function* () {
      yield* ask
      revoked = new Set([jwt(0, 3600)])
      assert.deepStrictEqual(yield* ask, { answer: 42 })
      assert.deepStrictEqual(carried(fake).slice(-2), [jwt(0, 3600), jwt(1, 7200)])
      revoked.add(jwt(1, 7200))
      assert.strictEqual(reasonOf(yield* Effect.exit(ask))._tag, "Unauthorized")
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect.each<[string, Fake.Answer]>([
    ["no token in it", { json: {} }],
    ["a number", { json: { jwt: 5 } }],
    ["what no header carries", { json: { jwt: "eyJ\n" } }],
    ["no JSON", { text: "<html>" }]
  ])("fails the request where the exchange gives %s", ([, answer]) => {
    const fake = Fake.make((seen) =>
      seen.path === "client/config"
        ? { json: { pjwt_auth_enabled: true } }
        : seen.path === "auth/token"
          ? answer
          : undefined
    )
    return Effect.gen(function* () {
      assert.strictEqual(reasonOf(yield* Effect.exit(ask))._tag, "BadResponse")
      assert.deepStrictEqual(fake.of("thing"), [])
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("is not asked for where the key is a JWT", () => {
    const own = service([])
    return Effect.gen(function* () {
      yield* ask
      assert.strictEqual(own.of("auth/token").length, 0)
    }).pipe(Effect.provide(Fake.connect(own, { apiKey: "eyJh.e30.sig" })))
  })
})

describe("the credential command", () => {
  it.live("prints the key, and is asked again after 5 minutes, or once the key is refused", () =>
    Effect.gen(function* () {
      const printer = yield* printing("tml-first", "tml-second", "tml-third")
      let refused = ""
      const fake = Fake.make((seen) =>
        seen.path === "thing" ? (seen.headers["x-api-key"] === refused ? Fake.failing(401) : good) : undefined
      )
      yield* Effect.gen(function* () {
        yield* ask
        yield* ask
        assert.deepStrictEqual(carried(fake), ["tml-first", "tml-first"])
        assert.strictEqual(printer.runs(), 1)
        yield* TestClock.adjust("5 minutes")
        yield* ask
        refused = "tml-second"
        yield* ask
        assert.deepStrictEqual(carried(fake).slice(2), ["tml-second", "tml-second", "tml-third"])
        refused = "tml-third"
        assert.strictEqual(reasonOf(yield* Effect.exit(ask))._tag, "Unauthorized")
      }).pipe(
        Effect.provide(Fake.connect(fake, { apiKey: undefined, credentialCommand: printer.command })),
        Effect.provide(TestClock.layer())
      )
    }).pipe(Effect.scoped)
  )

  it.live("is what the exchange is made with, where the service wants that, although there is a key", () =>
    Effect.gen(function* () {
      const printer = yield* printing("tml-from-vault")
      const fake = service([3600], { credential_default_source: "credential_cmd" })
      yield* ask.pipe(Effect.provide(Fake.connect(fake, { credentialCommand: printer.command })))
      assert.strictEqual(fake.of("client/config")[0]?.headers["x-api-key"], Fake.key)
      assert.strictEqual(fake.of("auth/token")[0]?.headers["x-api-key"], "tml-from-vault")
      assert.strictEqual(carried(fake)[0], jwt(0, 3600))
    }).pipe(Effect.scoped)
  )

  it.live("may print a JWT, which is used as it is", () =>
    Effect.gen(function* () {
      const token = jwt(7, 9_999_999_999)
      const printer = yield* printing(token)
      const fake = service([], { credential_default_source: "credential_cmd" })
      yield* ask.pipe(Effect.provide(Fake.connect(fake, { credentialCommand: printer.command })))
      assert.deepStrictEqual([fake.of("auth/token").length, carried(fake)[0]], [0, token])
    }).pipe(Effect.scoped)
  )

  it.effect("is asked for by the name of its variable where the service wants one and there is none", () => {
    const fake = service([], { credential_default_source: "credential_cmd" })
    return Effect.gen(function* () {
      const reason = reasonOf(yield* Effect.exit(ask))
      assert.strictEqual(reason._tag === "InvalidConfig" && reason.field, "TINKER_CREDENTIAL_CMD")
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.live.each<[string, string, string]>([
    ["nothing", "true", "printed nothing"],
    ["a text that is no key", "echo hunter2-password", "must begin with tml-"],
    ["two lines", "echo tml-a; echo tml-hunter2-password", "white space"],
    ["its complaint only", "echo hunter2-password >&2; exit 3", "exit code 3"],
    ["a flood", "yes tml-hunter2-password", "more than 64 kB"]
  ])("says what is wrong with one that prints %s, and never what it printed", ([, command, problem]) =>
    Effect.gen(function* () {
      const fake = Fake.make()
      const exit = yield* Effect.exit(
        ask.pipe(Effect.provide(Fake.connect(fake, { apiKey: undefined, credentialCommand: command })))
      )
      const reason = reasonOf(exit)
      assert.strictEqual(reason._tag, "InvalidConfig")
      assert.include(reason.message, problem)
      assert.notInclude(JSON.stringify(exit), "hunter2")
      assert.deepStrictEqual(fake.seen, [])
    })
  )

  it.live("is read from the environment", () =>
    Effect.gen(function* () {
      const env = { TINKER_CREDENTIAL_CMD: "echo tml-env", TINKER_BASE_URL: "http://127.0.0.1:9" }
      const exit = yield* Effect.exit(
        Effect.flatMap(RestClient, (rest) => rest.health()).pipe(
          Effect.provide(Tinker.layerConfig({ deadline: "1 second" })),
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env })))
        )
      )
      // Nobody listens there, but the setting was taken.
      assert.strictEqual(reasonOf(exit)._tag, "Transport")
    })
  )

  it.effect("or a key: one of the two must be there", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(ask.pipe(Effect.provide(Tinker.layer({}).pipe(Layer.provide(Fake.make().layer)))))
      const reason = reasonOf(exit)
      assert.strictEqual(reason._tag === "InvalidConfig" && reason.field, "apiKey")
    })
  )
})

describe("headers of the connection", () => {
  it.effect("carry a Cloudflare service token and the program's own, and no error repeats the secret", () => {
    const secret = "cf-hunter2-secret"
    const fake = Fake.make((seen) => (seen.path === "thing" ? Fake.failing(403, `no access for ${secret}`) : undefined))
    const lines: Array<string> = []
    const logger = Logger.make((options) => {
      lines.push(JSON.stringify([options.message, options.cause]))
    })
    return Effect.gen(function* () {
      const reason = reasonOf(yield* Effect.exit(ask))
      assert.notInclude(reason.message + JSON.stringify(reason) + lines.join("\n"), "hunter2")
      for (const seen of fake.seen) {
        assert.strictEqual(seen.headers["cf-access-client-id"], "id.access")
        assert.strictEqual(seen.headers["cf-access-client-secret"], secret)
        assert.strictEqual(seen.headers["x-team"], "blue")
        assert.strictEqual(seen.headers["x-api-key"], Fake.key)
      }
    }).pipe(
      Effect.provide(
        Fake.connect(fake, {
          headers: { "X-Team": "blue" },
          cloudflareAccess: { clientId: "id.access", clientSecret: Redacted.make(secret) }
        })
      ),
      Effect.provide(Logger.layer([logger]))
    )
  })

  it.effect.each<[string, Record<string, string>]>([
    ["the key", { "X-API-Key": "tml-other" }],
    ["a name that is none", { "a b": "c" }],
    ["a value that no header carries", { a: "b\nc" }]
  ])("refuse %s", ([, headers]) =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(ask.pipe(Effect.provide(Fake.connect(Fake.make(), { headers }))))
      assert.strictEqual(reasonOf(exit)._tag, "InvalidConfig")
    })
  )

  it.effect("name a request that may come twice, the same for every try, and count the tries", () => {
    const fake = Fake.make((seen) => (seen.path === "thing" ? (seen.nth < 2 ? Fake.failing(500) : good) : undefined))
    return Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(ask)
      yield* TestClock.adjust("10 seconds")
      assert.isDefined(fiber.pollUnsafe())
      const marks = fake
        .of("thing")
        .map((seen) => [seen.headers["x-idempotency-key"], seen.headers["x-stainless-retry-count"]])
      assert.deepStrictEqual(
        marks.map(([, count]) => count),
        ["0", "1", "2"]
      )
      assert.strictEqual(new Set(marks.map(([key]) => key)).size, 1)
    }).pipe(Effect.provide(Fake.connect(fake)))
  })
})

describe("dynamic configuration", () => {
  it.effect(
    "is fetched again as often as the service wants, as long as there is a session; a failure changes nothing",
    () => {
      const fake = Fake.make((seen) =>
        seen.path === "client/dynamic_config"
          ? seen.nth === 1
            ? Fake.failing(500)
            : { json: { refresh_interval_sec: 60 } }
          : undefined
      )
      return Effect.gen(function* () {
        const service = yield* ServiceClient
        yield* service.rest.weightsInfo("tinker://run/weights/a")
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(fake.of("client/dynamic_config").length, 1)
        yield* service.session
        yield* TestClock.adjust("3 minutes")
        assert.strictEqual(fake.of("client/dynamic_config").length, 4)
      }).pipe(Effect.provide(Fake.connect(fake)))
    }
  )
})
