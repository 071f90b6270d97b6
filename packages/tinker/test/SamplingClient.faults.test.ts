// Samplers over a service that refuses, fails, loses answers and results, and is busy, as drawn from a seed.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as ModelInput from "../src/ModelInput.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import * as SampleRequest from "../src/wire/SampleRequest.ts"
import * as Fake from "./support/fakeService.ts"
import * as Mutate from "./support/mutate.ts"

interface Asked {
  readonly body: string
  /** The first of its prompt. */
  readonly token: number
  accepted: boolean
  last: Fate | "new"
}
type Fate = "refused" | "failed" | "busy" | "lost" | "taken"
const fates: ReadonlyArray<Fate> = ["refused", "failed", "busy", "lost", "taken", "taken", "taken", "taken"]

const pauseMillis = 3000

/** A service that knows its requests by their numbers. Whatever breaks one of the rules of S1 to S3 ends the test. */
const unruly = (dice: Mutate.Dice): Fake.Fake => {
  const asked = new Map<string, Asked>()
  let pausedUntil = 0

  const receive = (seen: Fake.Seen, now: number): Fate => {
    const { prompt, samplingSessionId, seqId } = Effect.runSync(SampleRequest.decode(seen.body))
    const id = `${samplingSessionId}#${seqId}`
    const body = Buffer.from(seen.body).toString()
    const [chunk] = prompt.chunks
    const token = chunk?.type === "encoded_text" ? (chunk.tokens[0] ?? -1) : -1
    const one = asked.get(id) ?? { body, token, accepted: false, last: "new" as const }
    asked.set(id, one)
    assert.strictEqual(one.body, body, `${id} stands for two requests`)
    // What had no answer is repeated at its own pace.
    if (one.last === "new" || one.last === "busy") assert.isAtLeast(now, pausedUntil, `${id} left in a pause`)
    one.last = dice.pick(fates)
    if (one.last === "lost" || one.last === "taken") one.accepted = true
    return one.last
  }

  const answerTo = (fate: Fate, seen: Fake.Seen, now: number): Fake.Answer => {
    switch (fate) {
      case "failed":
        return Fake.failing(503)
      case "busy":
        pausedUntil = Math.max(pausedUntil, now + pauseMillis)
        return Fake.failing(429, "busy", { "retry-after-ms": String(pauseMillis) })
      case "taken":
        return { json: { request_id: `${seen.json.sampling_session_id}#${seen.json.seq_id}` } }
      default:
        return Fake.refused
    }
  }

  const resultOf = (requestId: string): Fake.Answer => {
    switch (dice.below(9)) {
      case 0:
        return Fake.failing(500)
      case 1:
        return Fake.refused
      case 2:
        return { status: 410, text: "" }
      case 3:
        return { json: { type: "try_again", request_id: requestId, queue_state: "paused_capacity" } }
      case 4:
        return { status: 408, text: "" }
    }
    const one = asked.get(requestId)
    return one?.accepted === true
      ? Fake.sampled(1, { sequences: [{ stopReason: "stop", tokens: [one.token], logprobs: undefined }] })
      : Fake.failing(404)
  }

  return Fake.make((seen) => {
    if (seen.path !== "asample" && seen.path !== "retrieve_future") return undefined
    return Effect.gen(function* () {
      const fate = seen.path === "asample" ? receive(seen, yield* Clock.currentTimeMillis) : undefined
      yield* Effect.sleep(dice.below(3000))
      return fate === undefined
        ? resultOf(String(seen.json.request_id))
        : answerTo(fate, seen, yield* Clock.currentTimeMillis)
    })
  })
}

describe("samplers over an unruly service", () => {
  const seeds = Array.from({ length: 20 }, (_, i) => 20_261_125 + i)

  it.effect.each(seeds)("S1, S2, S3: every prompt gets its own sample (seed %i)", (seed) =>
    Effect.gen(function* () {
      const service = yield* ServiceClient
      const make = service.createSamplingClient({ baseModel: "org/base" })
      const samplers = [yield* make, yield* make]
      const tokens = Array.from({ length: 60 }, (_, token) => token)
      const all = yield* Effect.forkChild(
        Effect.forEach(
          tokens,
          (token) => {
            const sampler = samplers[token % samplers.length] ?? assert.fail("no sampler")
            return Effect.map(
              sampler.sample(ModelInput.fromTokens([token, 1])),
              ({ sequences }) => sequences[0]?.tokens[0]
            )
          },
          { concurrency: 20 }
        )
      )
      for (let i = 0; i < 3000 && all.pollUnsafe() === undefined; i++) yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(all), tokens)
    }).pipe(Effect.scoped, Effect.provide(Fake.connect(unruly(Mutate.dice(seed)))))
  )
})
