import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber, Logger, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { QueueState } from "../src/ApiFuture.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import type { TinkerOptions } from "../src/Tinker.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import type { TrainingClient } from "../src/TrainingClient.ts"
import * as Fake from "./support/fakeService.ts"

const adam = { learningRate: 0.01 }
const batch = [Fake.datum(1, 2)]
const loss = { loss: "cross_entropy" }

/** Answers of the polls of the first operation, in their order; `undefined` stands for the result, and the last one repeats. */
const polling = (...answers: ReadonlyArray<Fake.Answer | undefined | "slow">) => {
  let polls = 0
  const fake = Fake.make((seen) => {
    if (seen.path !== "retrieve_future" || String(seen.json.request_id).startsWith("create")) return undefined
    const answer = answers[Math.min(polls++, answers.length - 1)]
    return answer === "slow" ? Effect.as(Effect.sleep("30 seconds"), tryAgain) : answer
  })
  return { fake, polls: () => fake.of("retrieve_future").slice(1) }
}

const tryAgain: Fake.Answer = { json: { type: "try_again", request_id: "x", queue_state: "active" } }
const paused: Fake.Answer = {
  json: { type: "try_again", request_id: "x", queue_state: "paused_capacity", queue_state_reason: "full house" }
}

/** Submits, lets time pass and gives the result with the seconds that it took. */
const resultOf = <A>(
  fake: Fake.Fake,
  submit: (client: TrainingClient) => Effect.Effect<{ readonly result: Effect.Effect<A, TinkerError> }, TinkerError>,
  options: Partial<TinkerOptions> & { readonly limitSeconds?: number } = {}
) =>
  Effect.gen(function* () {
    const service = yield* ServiceClient
    const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
    const began = yield* Clock.currentTimeMillis
    const future = yield* submit(client)
    const fiber = yield* Effect.forkChild(future.result)
    const limit = options.limitSeconds ?? 1000
    yield* TestClock.adjust(0)
    for (let i = 0; i < limit && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("1 second")
    const exit = fiber.pollUnsafe()
    if (exit === undefined) return assert.fail(`no end after ${limit} s`)
    return {
      exit,
      seconds: ((yield* Clock.currentTimeMillis) - began) / 1000,
      again: yield* Effect.exit(future.result)
    }
  }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake, options)))

const update = (client: TrainingClient) => client.optimStep(adam)
const pass = (client: TrainingClient) => client.forwardBackward(batch, loss)

const reasonOf = (exit: Exit.Exit<unknown, TinkerError>) => {
  const first = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  return first?._tag === "Fail" ? first.error.reason : assert.fail("it did not fail with a TinkerError")
}

describe("ApiFuture.result", () => {
  it.effect("polls with the iteration and the type of the request, and is the same for everybody", () => {
    const { fake, polls } = polling("slow", undefined)
    return Effect.gen(function* () {
      const { again, exit } = yield* resultOf(fake, pass)
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(again, exit)
      assert.deepStrictEqual(
        polls().map((seen) => [
          seen.headers["x-tinker-request-iteration"],
          seen.headers["x-tinker-request-type"],
          seen.headers.accept,
          seen.json.allow_metadata_only
        ]),
        [
          ["0", "ForwardBackward", "application/x-protobuf", true],
          ["1", "ForwardBackward", "application/x-protobuf", true]
        ]
      )
    })
  })

  it.effect("waits as long as the service says so, at its pace", () => {
    const { fake, polls } = polling(...Array.from({ length: 100 }, () => "slow" as const), undefined)
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, update, { limitSeconds: 4000 })
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(seconds, 3000)
      assert.strictEqual(polls().length, 101)
    })
  })

  it.effect.each<[string, Fake.Answer]>([
    ["try again", tryAgain],
    ["408", { status: 408, json: { queue_state: "active" } }],
    ["408 without a word", { status: 408, text: "" }],
    ["500", Fake.failing(500)],
    ["502 of a proxy", { status: 502, text: "<html>bad gateway</html>" }]
  ])("does not spin when the service answers at once: %s", ([, answer]) => {
    const { fake, polls } = polling(...Array.from({ length: 200 }, () => answer))
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
      yield* client.optimStep(adam)
      yield* TestClock.adjust("60 seconds")
      assert.isAtLeast(polls().length, 5)
      assert.isAtMost(polls().length, 60)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect.each<[string, Fake.Answer, string]>([
    ["refused connections", Fake.refused, "Transport"],
    ["5xx", Fake.failing(503), "ServerFailure"]
  ])("survives an outage of minutes and gives up one that does not end: %s", ([, answer, tag]) =>
    Effect.gen(function* () {
      const short = polling(...Array.from({ length: 10 }, () => answer), undefined)
      const survived = yield* resultOf(short.fake, update)
      assert.isTrue(Exit.isSuccess(survived.exit))
      assert.isAtLeast(survived.seconds, 60)
      // The operation itself was sent once.
      assert.strictEqual(short.fake.of("optim_step").length, 1)
    }).pipe(
      Effect.andThen(
        Effect.gen(function* () {
          const long = polling(answer)
          const ended = yield* resultOf(long.fake, update)
          assert.strictEqual(reasonOf(ended.exit)._tag, tag)
          assert.isAtLeast(ended.seconds, 299)
          assert.isAtMost(ended.seconds, 302)
        })
      )
    )
  )

  it.effect("counts an outage from the last good answer", () => {
    const storm = Array.from({ length: 11 }, () => Fake.failing(500))
    const { fake } = polling(...storm, tryAgain, ...storm, tryAgain, ...storm, undefined)
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, update)
      assert.isTrue(Exit.isSuccess(exit))
      assert.isAtLeast(seconds, 300)
    })
  })

  it.effect("does not hold a poll that is kept too long against a service that answers its heartbeats", () => {
    const { fake } = polling(...Array.from({ length: 12 }, () => "silence" as const), undefined)
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, update)
      assert.isTrue(Exit.isSuccess(exit))
      assert.isAtLeast(seconds, 540)
    })
  })

  it.effect("gives up polls that are kept too long when nothing else answers either", () => {
    const { fake } = polling("silence")
    const inner = fake.script
    const others = new Set(["session_heartbeat", "client/dynamic_config"])
    fake.script = (seen) => (others.has(seen.path) ? Fake.refused : inner(seen))
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, update)
      assert.strictEqual(reasonOf(exit)._tag, "Timeout")
      assert.isAtMost(seconds, 400)
    })
  })

  it.effect("is gone with 410, and the operation is not sent again", () => {
    const { fake, polls } = polling(Fake.failing(410, "expired"))
    return Effect.gen(function* () {
      const { exit } = yield* resultOf(fake, update)
      const reason = reasonOf(exit)
      assert.strictEqual(reason._tag === "PromiseExpired" && reason.requestId, "optim_step:1")
      assert.strictEqual(polls().length, 1)
      assert.strictEqual(fake.of("optim_step").length, 1)
    })
  })

  it.effect("waits for billing, within the service's window", () => {
    const { fake, polls } = polling(Fake.failing(402, "unpaid"), Fake.failing(402, "unpaid"), undefined)
    const never = polling(Fake.failing(402, "unpaid"))
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, update)
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(seconds, 10)
      assert.strictEqual(polls().length, 3)
    }).pipe(
      Effect.andThen(
        Effect.gen(function* () {
          const { exit, seconds } = yield* resultOf(never.fake, update, { limitSeconds: 4000 })
          assert.strictEqual(reasonOf(exit)._tag, "BillingPaused")
          assert.strictEqual(seconds, 3600)
        })
      )
    )
  })

  it.effect("honours Retry-After of a 429, however often it comes", () => {
    const { fake } = polling(
      ...Array.from({ length: 30 }, () => Fake.failing(429, "slow", { "retry-after": "20" })),
      undefined
    )
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, update)
      assert.isTrue(Exit.isSuccess(exit))
      assert.strictEqual(seconds, 600)
    })
  })

  it.effect("repeats a 400 three times, unless it says that the model is gone", () => {
    const some = polling(Fake.failing(400), Fake.failing(400), Fake.failing(400), undefined)
    const many = polling(Fake.failing(400, "no such thing"))
    const lost = polling(Fake.failing(400, "Model s0:train:0 not loaded"))
    return Effect.gen(function* () {
      assert.isTrue(Exit.isSuccess((yield* resultOf(some.fake, update)).exit))
    }).pipe(
      Effect.andThen(
        Effect.gen(function* () {
          assert.strictEqual(reasonOf((yield* resultOf(many.fake, update)).exit)._tag, "BadRequest")
          assert.strictEqual(many.polls().length, 4)
        })
      ),
      Effect.andThen(
        Effect.gen(function* () {
          assert.strictEqual(reasonOf((yield* resultOf(lost.fake, update)).exit)._tag, "RunLost")
          assert.strictEqual(lost.polls().length, 1)
        })
      )
    )
  })

  it.effect.each<[number, string]>([
    [401, "Unauthorized"],
    [403, "Forbidden"],
    [404, "NotFound"],
    [409, "Conflict"],
    [422, "BadRequest"]
  ])("fails with %i at once", ([status, tag]) => {
    const { fake, polls } = polling(Fake.failing(status))
    return Effect.gen(function* () {
      assert.strictEqual(reasonOf((yield* resultOf(fake, update)).exit)._tag, tag)
      assert.strictEqual(polls().length, 1)
    })
  })

  it.effect("fetches a large result after it was announced, and only once", () => {
    const announced: Fake.Answer = { json: { status: "complete_metadata", response_payload_size: 1_000_000 } }
    const { fake, polls } = polling(announced, undefined)
    const twice = polling(announced)
    return Effect.gen(function* () {
      assert.isTrue(Exit.isSuccess((yield* resultOf(fake, pass)).exit))
      assert.deepStrictEqual(
        polls().map((seen) => seen.json.allow_metadata_only),
        [true, false]
      )
    }).pipe(
      Effect.andThen(
        Effect.gen(function* () {
          assert.strictEqual(reasonOf((yield* resultOf(twice.fake, pass)).exit)._tag, "BadResponse")
        })
      )
    )
  })

  it.effect("leaves a large result on the service while more bytes are on their way than it allows", () => {
    let reading = 0
    let most = 0
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { inflight_response_bytes_semaphore_size: 1000 } }
      if (seen.path !== "retrieve_future" || String(seen.json.request_id).startsWith("create")) return undefined
      if (seen.json.allow_metadata_only === true) {
        return { json: { status: "complete_metadata", response_payload_size: 600 } }
      }
      return Effect.gen(function* () {
        most = Math.max(most, ++reading)
        yield* Effect.sleep("1 second")
        reading--
        return undefined
      })
    })
    return Effect.gen(function* () {
      const client = yield* (yield* ServiceClient).createLoraTrainingClient({ baseModel: "org/base" })
      const passes = yield* Effect.forEach([1, 2, 3, 4, 5], () => client.forward([Fake.datum(1)], loss))
      const fibers = yield* Effect.forEach(passes, ({ result }) => Effect.forkChild(result))
      yield* TestClock.adjust("10 seconds")
      for (const fiber of fibers) yield* Fiber.join(fiber)
      // One may overdraw the budget, so there are two at once and not five.
      assert.strictEqual(most, 2)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("tells the log why it takes its time, once a minute", () => {
    const paused = (queue_state: string, queue_state_reason?: string): Fake.Answer => ({
      status: 408,
      json: { queue_state, ...(queue_state_reason === undefined ? {} : { queue_state_reason }) }
    })
    const { fake } = polling(
      paused("active"),
      paused("paused_rate_limit"),
      paused("paused_capacity"),
      ...Array.from({ length: 80 }, () => paused("paused_rate_limit", "two models too many")),
      paused("paused_capacity"),
      undefined
    )
    const told: Array<string> = []
    const logger = Logger.layer([Logger.make(({ message }) => void told.push(String(message)))])
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, update)
      assert.isTrue(Exit.isSuccess(exit))
      const [first, ...later] = told
      assert.strictEqual(first, "optim_step 1 waits: more training clients are at work than the service allows at once")
      assert.deepStrictEqual([...new Set(later)], ["optim_step 1 waits: two models too many"])
      assert.strictEqual(told.length, 1 + Math.floor(seconds / 60))
    }).pipe(Effect.provide(logger))
  })

  const bytes = (answer: Fake.Answer) =>
    typeof answer === "object" && "bytes" in answer ? answer.bytes : assert.fail()
  const protobuf = { "content-type": "application/x-protobuf" }

  const spoilt: ReadonlyArray<[string, Fake.Answer]> = [
    ["protobuf that was cut", { bytes: bytes(Fake.output()).slice(0, 20), headers: protobuf }],
    ["noise", { bytes: Uint8Array.from([255, 255, 255, 7]), headers: protobuf }],
    ["JSON in place of protobuf", { json: { loss_fn_outputs: [], metrics: {} } }],
    ["an HTML page", { text: "<html>Sign in</html>", headers: { "content-type": "text/html" } }],
    ["an empty body", { text: "" }],
    ["half a JSON", { text: '{"type": "try_' }],
    ["a bare number", { json: 7 }],
    ["a size that is none", { json: { status: "complete_metadata", response_payload_size: -1 } }]
  ]

  it.effect.each(spoilt)("reads again what it could not read, and never repeats the operation: %s", ([, answer]) => {
    const { fake, polls } = polling(answer, answer, answer, undefined)
    return Effect.gen(function* () {
      const { exit, seconds } = yield* resultOf(fake, pass)
      assert.deepStrictEqual(Exit.isSuccess(exit) && exit.value.metrics, { "loss:sum": 1 })
      assert.strictEqual(polls().length, 4)
      assert.deepStrictEqual(
        polls().map((seen) => seen.headers["x-tinker-request-iteration"]),
        ["0", "1", "2", "3"]
      )
      assert.strictEqual(fake.of("forward_backward").length, 1)
      // With pauses between, each longer than the one before.
      assert.isAtLeast(seconds, 3)
      assert.isAtMost(seconds, 5)
    })
  })

  it.effect.each(spoilt)(
    "says what is wrong with an answer that stays unreadable, and how often it was read: %s",
    ([, answer]) => {
      const { fake, polls } = polling(answer)
      return Effect.gen(function* () {
        const reason = reasonOf((yield* resultOf(fake, pass)).exit)
        assert.strictEqual(reason._tag === "BadResponse" && reason.tries, 4)
        assert.match(reason.message, /^forward_backward.* got an answer that makes no sense, 4 times in a row: /)
        assert.strictEqual(polls().length, 4)
        assert.strictEqual(fake.of("forward_backward").length, 1)
      })
    }
  )

  it.effect("counts unreadable answers in a row: one that can be read starts anew", () => {
    const bad: Fake.Answer = { text: "" }
    const { fake, polls } = polling(bad, bad, bad, tryAgain, bad, bad, bad, tryAgain, undefined)
    return Effect.gen(function* () {
      assert.isTrue(Exit.isSuccess((yield* resultOf(fake, pass)).exit))
      assert.strictEqual(polls().length, 9)
    })
  })

  it.effect("reads the content of a large result again, not its size", () => {
    const announced: Fake.Answer = { json: { status: "complete_metadata", response_payload_size: 1_000_000 } }
    const { fake, polls } = polling(announced, { text: "" }, undefined)
    return Effect.gen(function* () {
      assert.isTrue(Exit.isSuccess((yield* resultOf(fake, pass)).exit))
      assert.deepStrictEqual(
        polls().map((seen) => seen.json.allow_metadata_only),
        [true, false, false]
      )
    })
  })

  it.effect("is gone with 410 where the service forgot the result between two readings", () => {
    const { fake } = polling({ text: "" }, Fake.failing(410, "expired"))
    return Effect.gen(function* () {
      assert.strictEqual(reasonOf((yield* resultOf(fake, update)).exit)._tag, "PromiseExpired")
    })
  })

  it.effect.each<[string, Fake.Answer]>([
    ["protobuf in place of JSON", Fake.output()],
    ["metrics that are no numbers", { json: { metrics: { a: "x" } } }]
  ])("of an optimizer step too: %s", ([, answer]) => {
    const { fake } = polling(answer)
    const once = polling(answer, undefined)
    return Effect.gen(function* () {
      assert.strictEqual(reasonOf((yield* resultOf(fake, update)).exit)._tag, "BadResponse")
    }).pipe(
      Effect.andThen(
        Effect.gen(function* () {
          assert.isTrue(Exit.isSuccess((yield* resultOf(once.fake, update)).exit))
          assert.strictEqual(once.fake.of("optim_step").length, 1)
        })
      )
    )
  })

  it.effect("takes a metric that JSON cannot say for not a number, and no metrics for none", () => {
    const nan = polling({ json: { metrics: { grad_norm: null, lr: 1 } } })
    const none = polling({ json: { type: "optim_step" } })
    return Effect.gen(function* () {
      const { exit } = yield* resultOf(nan.fake, update)
      assert.deepStrictEqual(Exit.isSuccess(exit) && exit.value.metrics, { grad_norm: Number.NaN, lr: 1 })
    }).pipe(
      Effect.andThen(
        Effect.gen(function* () {
          const { exit } = yield* resultOf(none.fake, update)
          assert.deepStrictEqual(Exit.isSuccess(exit) && exit.value.metrics, {})
        })
      )
    )
  })
})

describe("ApiFuture.queueState", () => {
  it.effect("shows a pause, which is no failure however long, and ends with the result", () => {
    const { fake } = polling(...Array.from({ length: 400 }, () => paused), undefined)
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
      const future = yield* client.optimStep(adam)
      const states = yield* Effect.forkChild(Stream.runCollect(future.queueState))
      const ofClient: Array<QueueState["state"]> = []
      yield* client.queueState.pipe(
        Stream.runForEach(({ state }) => Effect.sync(() => ofClient.push(state))),
        Effect.forkScoped
      )
      const result = yield* Effect.forkChild(future.result)
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined(result.pollUnsafe())
      yield* TestClock.adjust("20 minutes")
      assert.isDefined(yield* Fiber.join(result))
      const seen: ReadonlyArray<QueueState> = yield* Fiber.join(states)
      assert.deepStrictEqual(seen, [{ state: "paused_capacity", reason: "full house" }])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(ofClient.slice(-2), ["paused_capacity", "active"], "the client's own view ends active")
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })

  it.effect("calls a state that it does not know unknown, and reads the one of a 408", () => {
    const { fake } = polling(
      { status: 408, json: { queue_state: "paused_for_lunch", queue_state_reason: "noon" } },
      ...Array.from({ length: 30 }, () => tryAgain)
    )
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel: "org/base" })
      const future = yield* client.optimStep(adam)
      const states = yield* Effect.forkChild(Stream.runCollect(Stream.take(future.queueState, 2)))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(states), [
        { state: "unknown", reason: "noon" },
        { state: "active", reason: undefined }
      ])
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(fake)))
  })
})
