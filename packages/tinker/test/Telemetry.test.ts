import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Exit, Layer, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { ServiceClient } from "../src/ServiceClient.ts"
import { Telemetry } from "../src/Telemetry.ts"
import { Tinker } from "../src/Tinker.ts"
import { NotFound, RunLost, TinkerError } from "../src/TinkerError.ts"
import * as Rest from "../src/wire/Rest.ts"
import * as Fake from "./support/fakeService.ts"

const accepted: Fake.Answer = { json: { status: "accepted" } }

const service = (answer: (nth: number) => Fake.Answer = () => accepted) =>
  Fake.make((seen) => (seen.path === "telemetry" ? answer(seen.nth) : undefined))

const decode = Schema.decodeUnknownSync(Rest.TelemetryRequest)

/** What was sent, request by request; every one must be as the API has it. */
const sent = (fake: Fake.Fake) => fake.of("telemetry").map(({ json }) => decode(json))
const events = (fake: Fake.Fake) => sent(fake).flatMap((request) => request.events)

const on = (fake: Fake.Fake) => Effect.provide(Fake.connect(fake, { telemetry: true, deadline: "5 seconds" }))

describe("Telemetry", () => {
  it.effect("is off unless it was asked for, and then nothing is sent", () => {
    const fake = service()
    return Effect.gen(function* () {
      const telemetry = yield* Telemetry
      yield* (yield* ServiceClient).session
      yield* telemetry.event("mine")
      yield* telemetry.error(new Error("x"))
      yield* TestClock.adjust("1 minute")
      assert.isFalse(yield* telemetry.isEnabled)
      assert.isTrue(yield* telemetry.flush())
      assert.deepStrictEqual(fake.of("telemetry"), [])
    }).pipe(Effect.provide(Fake.connect(fake)))
  })

  it.effect("tells that a session began and ended, with the program's events and errors between them in order", () => {
    const fake = service()
    return Effect.gen(function* () {
      const telemetry = yield* Telemetry
      yield* telemetry.event("before")
      yield* (yield* ServiceClient).session
      yield* telemetry.event("mine", { severity: "DEBUG", data: { n: 1 } })
      yield* telemetry.error(
        new TinkerError({ reason: new NotFound({ operation: "look", status: 404, detail: "nothing" }) })
      )
      yield* telemetry.error(new TinkerError({ reason: new RunLost({ runId: "r", detail: "gone" }) }))
      yield* telemetry.error(new RangeError("out"))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        sent(fake).map(({ session_id }) => session_id.replace(/^sessionless-[0-9a-f-]{36}$/, "sessionless")),
        ["sessionless", "s0"]
      )
      assert.deepStrictEqual(
        sent(fake)[1]?.events.map((event) => [event.event, event.severity, event.event_session_index]),
        [
          ["SESSION_START", "INFO", 0],
          ["GENERIC_EVENT", "DEBUG", 1],
          ["GENERIC_EVENT", "WARNING", 2],
          ["UNHANDLED_EXCEPTION", "ERROR", 3],
          ["UNHANDLED_EXCEPTION", "ERROR", 4]
        ]
      )
      const [, , user, lost, own] = sent(fake)[1]?.events ?? []
      assert.deepInclude(user, { event_name: "user_error" })
      assert.deepInclude(user?.event === "GENERIC_EVENT" ? user.event_data : {}, {
        error_type: "NotFound",
        status_code: 404
      })
      assert.deepInclude(lost, { error_type: "RunLost" })
      assert.deepInclude(own, { error_type: "RangeError", error_message: "out" })
      yield* TestClock.adjust("3661 seconds")
    }).pipe(
      on(fake),
      Effect.andThen(
        Effect.sync(() => {
          const last = events(fake).at(-1)
          assert.deepInclude(last, { event: "SESSION_END", duration: "1:01:11.000000" })
        })
      )
    )
  })

  it.effect("reports calls that failed for good, once, and without a credential in them", () => {
    const fake = service()
    const script = fake.script
    fake.script = (seen) =>
      seen.path === "weights_info" ? Fake.failing(seen.nth === 0 ? 503 : 403, `no, ${Fake.key}`) : script(seen)
    return Effect.gen(function* () {
      const client = yield* ServiceClient
      const fiber = yield* Effect.forkChild(Effect.exit(client.rest.weightsInfo("tinker://r/weights/a")))
      yield* TestClock.adjust("20 seconds")
      assert.isDefined(fiber.pollUnsafe())
      yield* TestClock.adjust("10 seconds")
      const failures = events(fake)
      assert.deepStrictEqual(
        failures.map((event) => (event.event === "GENERIC_EVENT" ? event.event_data?.error_type : event.event)),
        ["Forbidden"]
      )
      yield* (yield* Telemetry).event(Fake.key, { data: { [Fake.key]: [Fake.key] } })
      yield* TestClock.adjust("10 seconds")
      assert.notInclude(JSON.stringify(sent(fake)), Fake.key)
    }).pipe(on(fake))
  })

  it.effect("sends 100 to a request, as soon as there are so many", () => {
    const fake = service()
    return Effect.gen(function* () {
      const telemetry = yield* Telemetry
      for (let n = 0; n < 250; n++) yield* telemetry.event("mine", { data: { n } })
      yield* TestClock.adjust(0)
      assert.isTrue(yield* telemetry.flush())
      assert.deepStrictEqual(
        sent(fake).map((request) => request.events.length),
        [100, 100, 50]
      )
      assert.deepStrictEqual(
        events(fake).map((event) => event.event_session_index),
        Array.from({ length: 250 }, (_, n) => n)
      )
      assert.strictEqual(new Set(events(fake).map((event) => event.event_id)).size, 250)
      assert.strictEqual(new Set(sent(fake).map((request) => request.process_uuid)).size, 1)
    }).pipe(on(fake))
  })

  it.effect("keeps trying the same batch, ever more slowly, and holds no more than 10,000 events meanwhile", () => {
    let down = true
    const fake = service(() => (down ? Fake.failing(500) : accepted))
    return Effect.gen(function* () {
      const telemetry = yield* Telemetry
      for (let n = 0; n < 10_500; n++) yield* telemetry.event("mine")
      yield* TestClock.adjust("10 minutes")
      const tries = fake.of("telemetry").length
      assert.isAtLeast(tries, 10)
      assert.isAtMost(tries, 25)
      down = false
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(new Set(events(fake).map((event) => event.event_id)).size, 10_000)
    }).pipe(on(fake))
  })

  it.effect.each([401, 404, 422, 501])("leaves a service alone that answers %i", (status) => {
    const fake = service(() => Fake.failing(status))
    return Effect.gen(function* () {
      const telemetry = yield* Telemetry
      yield* telemetry.event("mine")
      yield* TestClock.adjust("1 minute")
      yield* telemetry.event("mine")
      yield* TestClock.adjust("1 minute")
      assert.isFalse(yield* telemetry.isEnabled)
      assert.strictEqual(fake.of("telemetry").length, 1)
    }).pipe(on(fake))
  })

  it.effect("never makes a caller wait, and closing waits 5 seconds at most for a service that says nothing", () => {
    const fake = service(() => "silence")
    return Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Fake.connect(fake, { telemetry: true }), scope)
      yield* Effect.flatMap(Telemetry, (telemetry) => telemetry.event("mine")).pipe(Effect.provide(context))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("4900 millis")
      assert.isUndefined(closing.pollUnsafe())
      yield* TestClock.adjust("100 millis")
      assert.isDefined(closing.pollUnsafe())
    })
  })

  it.effect("flush says whether all is gone within its limit", () => {
    const fake = service(() => "silence")
    return Effect.gen(function* () {
      const telemetry = yield* Telemetry
      yield* telemetry.event("mine")
      const fiber = yield* Effect.forkChild(telemetry.flush("3 seconds"))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(false))
      fake.script = (seen) => (seen.path === "telemetry" ? accepted : undefined)
      yield* TestClock.adjust("1 minute")
      assert.isTrue(yield* telemetry.flush())
    }).pipe(on(fake))
  })

  it.effect("data that is no JSON loses its event, not the program", () => {
    const fake = service()
    return Effect.gen(function* () {
      const telemetry = yield* Telemetry
      const circle: Record<string, unknown> = {}
      circle.self = circle
      yield* telemetry.event("circle", { data: circle })
      yield* telemetry.event("mine")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(
        events(fake).map((event) => event.event === "GENERIC_EVENT" && event.event_name),
        ["mine"]
      )
    }).pipe(on(fake))
  })

  it.effect.each<[string | undefined, boolean]>([
    [undefined, true],
    ["1", true],
    ["TRUE", true],
    ["yes", true],
    ["On", true],
    ["0", false],
    ["off", false],
    ["maybe", false],
    ["", false],
    [" ", false]
  ])("TINKER_TELEMETRY=%s", ([value, expected]) =>
    Effect.gen(function* () {
      const env = { TINKER_API_KEY: Fake.key, ...(value === undefined ? {} : { TINKER_TELEMETRY: value }) }
      const enabled = yield* Effect.flatMap(Telemetry, (telemetry) => telemetry.isEnabled).pipe(
        Effect.provide(Tinker.layerConfig()),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env })))
      )
      assert.strictEqual(enabled, expected)
    })
  )
})
