import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Result, Schema, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { QueueState } from "../src/ApiFuture.ts"
import * as ModelInput from "../src/ModelInput.ts"
import { SamplingHandle, type SampleOptions, type SamplingOptions } from "../src/SamplingClient.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import * as TensorData from "../src/TensorData.ts"
import type { TinkerOptions } from "../src/Tinker.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import * as SampleRequest from "../src/wire/SampleRequest.ts"
import * as Fake from "./support/fakeService.ts"

const prompt = ModelInput.fromTokens([1, 2, 3])
const base = { baseModel: "org/base" }

const newSampler = (options: SamplingOptions = base) =>
  Effect.flatMap(ServiceClient, (service) => service.createSamplingClient(options))

const over =
  (fake: Fake.Fake, options: Partial<TinkerOptions> = {}) =>
  <A, E>(effect: Effect.Effect<A, E, ServiceClient | Scope.Scope>) =>
    effect.pipe(Effect.scoped, Effect.provide(Fake.connect(fake, options)))

const reasonOf = <A, R>(effect: Effect.Effect<A, TinkerError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

/** Lets virtual time pass in small steps, and gives the end with the seconds that it took. */
const ending = <A, E, R>(effect: Effect.Effect<A, E, R>, limitSeconds = 1000, step: Duration.Input = "1 second") =>
  Effect.gen(function* () {
    const began = yield* Clock.currentTimeMillis
    const fiber = yield* Effect.forkChild(effect)
    yield* TestClock.adjust(0)
    const limit = began + limitSeconds * 1000
    while (fiber.pollUnsafe() === undefined && (yield* Clock.currentTimeMillis) < limit) yield* TestClock.adjust(step)
    const exit = fiber.pollUnsafe()
    if (exit === undefined) return assert.fail(`no end after ${limitSeconds} s`)
    return { exit, seconds: ((yield* Clock.currentTimeMillis) - began) / 1000 }
  })

const failureOf = (exit: Exit.Exit<unknown, TinkerError>) => {
  const first = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  return first?._tag === "Fail" ? first.error.reason : assert.fail("it did not fail with a TinkerError")
}

const seqIds = (fake: Fake.Fake) =>
  fake.of("asample").map((seen) => Effect.runSync(SampleRequest.decode(seen.body)).seqId)

const isPoll = (seen: Fake.Seen) => seen.path === "retrieve_future"
const tryAgain: Fake.Answer = { json: { type: "try_again", request_id: "x" } }
const paused: Fake.Answer = {
  json: { type: "try_again", request_id: "x", queue_state: "paused_capacity", queue_state_reason: "full house" }
}
const slow = (answer: Fake.Answer | undefined) => Effect.as(Effect.sleep("30 seconds"), answer)

describe("ServiceClient.createSamplingClient", () => {
  it.effect("samples from a base model", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const result = yield* sampler.sample(prompt, { maxTokens: 4, stop: ["\n"], numSamples: 2 })
      assert.deepStrictEqual(result.sequences, [
        { stopReason: "stop", tokens: [7], logprobs: [-0.5], sequenceId: undefined },
        { stopReason: "stop", tokens: [7], logprobs: [-0.5], sequenceId: undefined }
      ])
      assert.isUndefined(result.promptLogprobs)
      assert.strictEqual(sampler.samplingSessionId, "s0:sample:0")
      assert.deepStrictEqual(
        fake.seen.map((seen) => seen.path),
        [
          "client/config",
          "client/dynamic_config",
          "create_session",
          "create_sampling_session",
          "asample",
          "retrieve_future"
        ]
      )
      assert.deepStrictEqual(fake.of("create_sampling_session")[0]?.json, {
        session_id: "s0",
        sampling_session_seq_id: 0,
        base_model: "org/base",
        type: "create_sampling_session"
      })
      const [asked] = fake.of("asample")
      assert.deepStrictEqual(asked?.json, {
        num_samples: 2,
        prompt: { chunks: [{ tokens: [1, 2, 3], type: "encoded_text" }] },
        sampling_params: { max_tokens: 4, stop: ["\n"], temperature: 1, top_k: -1, top_p: 1 },
        sampling_session_id: "s0:sample:0",
        seq_id: 0,
        prompt_logprobs: false,
        topk_prompt_logprobs: 0,
        type: "sample"
      })
      assert.strictEqual(asked?.headers["x-tinker-sampling-backpressure"], "1")
      const [poll] = fake.of("retrieve_future")
      assert.strictEqual(poll?.headers.accept, "application/x-protobuf")
      assert.strictEqual(poll?.headers["x-tinker-request-type"], "Sample")
    }).pipe(over(fake))
  })

  it.effect("samples from a checkpoint, with numbers of its own in the session", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      yield* newSampler()
      const sampler = yield* newSampler({ modelPath: "tinker://run:train:0/sampler_weights/a", baseModel: "org/base" })
      assert.strictEqual(sampler.samplingSessionId, "s0:sample:1")
      assert.deepStrictEqual(fake.of("create_sampling_session")[1]?.json, {
        session_id: "s0",
        sampling_session_seq_id: 1,
        base_model: "org/base",
        model_path: "tinker://run:train:0/sampler_weights/a",
        type: "create_sampling_session"
      })
      // Each sampler counts its requests from 0.
      yield* sampler.sample(prompt)
      yield* sampler.sample(prompt)
      assert.deepStrictEqual(seqIds(fake), [0n, 1n])
    }).pipe(over(fake))
  })

  it.effect("samples from the weights of a training client as they are", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "save_weights_for_sampler") return { json: { request_id: "ephemeral:0" } }
      if (isPoll(seen) && seen.json.request_id === "ephemeral:0") {
        return { json: { sampling_session_id: "s0:sample:9", type: "save_weights_for_sampler" } }
      }
      return undefined
    })
    return Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient(base)
      const sampler = yield* service.createSamplingClient({ weightsOf: client })
      assert.strictEqual(sampler.samplingSessionId, "s0:sample:9")
      assert.strictEqual(fake.of("save_weights_for_sampler")[0]?.json.sampling_session_seq_id, 0)
      yield* sampler.sample(prompt)
      assert.strictEqual(fake.of("asample")[0]?.json.sampling_session_id, "s0:sample:9")
    }).pipe(over(fake))
  })

  it.effect("S2: lets another process draw, under numbers beyond 2^53 that keep every digit", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const first = yield* newSampler()
      const text = JSON.stringify(first.handle)
      const handle = yield* Schema.decodeUnknownEffect(SamplingHandle)(JSON.parse(text))
      const clones = [yield* newSampler({ handle }), yield* newSampler({ handle })]
      for (const clone of clones) {
        for (let i = 0; i < 3; i++) yield* clone.sample(prompt)
      }
      assert.strictEqual(fake.of("create_sampling_session").length, 1)
      const numbers = seqIds(fake)
      const [a, b] = [numbers[0] ?? 0n, numbers[3] ?? 0n]
      assert.isTrue(a >= 1_000_000_000n && a % 1_000_000_000n === 0n, String(a))
      assert.deepStrictEqual(numbers, [a, a + 1n, a + 2n, b, b + 1n, b + 2n])
      assert.notStrictEqual(a, b)
    }).pipe(over(fake))
  })

  it.effect("S2: asks a service that tells processes apart for the numbers", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { sample_join_sampling_session: true } }
      return seen.path === "join_sampling_session" ? { json: { client_counter: 1 + seen.nth } } : undefined
    })
    return Effect.gen(function* () {
      const { handle } = yield* newSampler()
      for (let i = 0; i < 2; i++) {
        const clone = yield* newSampler({ handle })
        yield* clone.sample(prompt)
      }
      assert.deepStrictEqual(seqIds(fake), [1_000_000_000n, 2_000_000_000n])
      assert.deepStrictEqual(fake.of("join_sampling_session")[0]?.json, {
        sampling_session_id: "s0:sample:0",
        type: "join_sampling_session"
      })
    }).pipe(over(fake))
  })

  it.effect("keeps the session of another process alive", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const handle = { sessionId: "far", samplingSessionId: "far:sample:0" }
      yield* newSampler({ handle })
      yield* newSampler({ handle })
      yield* TestClock.adjust("25 seconds")
      assert.deepStrictEqual(
        fake.of("session_heartbeat").map((seen) => seen.json.session_id),
        ["far", "far"]
      )
    }).pipe(over(fake))
  })

  it.effect.each<[string, object, string]>([
    ["no source", {}, "baseModel, modelPath, weightsOf, handle"],
    ["two sources", { baseModel: "b", handle: { sessionId: "a", samplingSessionId: "b" } }, "baseModel, handle"],
    ["an empty model", { baseModel: " " }, "baseModel"],
    ["a path that is none", { modelPath: "run/sampler_weights/a" }, "modelPath"],
    ["a checkpoint for training", { modelPath: "tinker://run/weights/a" }, "modelPath"],
    ["a handle that is none", { handle: { sessionId: "", samplingSessionId: "b" } }, "handle.sessionId"],
    ["no time at all", { ...base, progressTimeout: 0 }, "progressTimeout"],
    ["no time that can be read", { ...base, progressTimeout: "soon" }, "progressTimeout"],
    ["no request at all", { ...base, maxConcurrent: 0 }, "maxConcurrent"],
    ["a deadline in the past", { ...base, deadline: -1 }, "options.deadline"]
  ])("refuses before sending anything: %s", ([, options, field]) => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const reason = yield* reasonOf(newSampler(options as SamplingOptions))
      assert.strictEqual(reason._tag === "InvalidInput" ? reason.field : reason._tag, field)
      assert.deepStrictEqual(fake.seen, [])
    }).pipe(over(fake))
  })

  it.effect("begins a new session where the present one turns out to be dead", () => {
    let dead = false
    const fake = Fake.make((seen) => {
      const isOld = seen.json.session_id === "s0"
      return dead && isOld ? Fake.failing(404, "unknown session s0") : undefined
    })
    return Effect.gen(function* () {
      yield* newSampler()
      dead = true
      const sampler = yield* newSampler()
      assert.strictEqual(sampler.sessionId, "s1")
    }).pipe(over(fake))
  })
})

describe("SamplingClient.sample", () => {
  it.effect.each<[string, SampleOptions, string]>([
    ["numSamples 0", { numSamples: 0 }, "numSamples"],
    ["half a sample", { numSamples: 1.5 }, "numSamples"],
    ["a negative top-k", { topkPromptLogprobs: -1 }, "topkPromptLogprobs"],
    ["half a place", { topkSampleLogprobs: 0.5 }, "topkSampleLogprobs"],
    ["the end of nothing", { promptLogprobsLastN: 1 }, "promptLogprobsLastN"],
    ["an end as long as the prompt", { promptLogprobs: true, promptLogprobsLastN: 3 }, "promptLogprobsLastN"],
    ["targets of another prompt", { targetPromptLogprobs: TensorData.int64([1], [1, 1]) }, "targetPromptLogprobs"],
    [
      "targets that are no tokens",
      { targetPromptLogprobs: TensorData.float32([1, 2], [2, 1]) },
      "targetPromptLogprobs"
    ],
    ["half an alternative", { promptAltTokensK: 0.5 }, "promptAltTokensK"],
    ["no token to draw", { maxTokens: 0 }, "maxTokens"],
    ["a negative temperature", { temperature: -1 }, "temperature"],
    ["topK 0", { topK: 0 }, "topK"],
    ["topP above 1", { topP: 2 }, "topP"],
    ["an empty stop", { stop: [""] }, "stop"],
    ["a seed beyond 64 bits", { seed: 2n ** 64n }, "seed"],
    ["a seed that lost its digits", { seed: 2 ** 60 }, "seed"],
    ["retries that are none", { retries: -1 }, "options.retries"],
    ["a header of the client's own", { headers: { "X-API-Key": "x" } }, 'options.headers["X-API-Key"]']
  ])("refuses before sending, by the name of the field: %s", ([, options, field]) => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const reason = yield* reasonOf(sampler.sample(prompt, options))
      assert.strictEqual(reason._tag === "InvalidInput" ? reason.field : reason._tag, field)
      assert.deepStrictEqual(fake.of("asample"), [])
    }).pipe(over(fake))
  })

  it.effect("refuses a prompt that holds nothing, half a token, or what is neither image nor audio", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const fieldOf = (tokens: ReadonlyArray<number>) =>
        Effect.map(reasonOf(sampler.sample(ModelInput.fromTokens(tokens))), (reason) =>
          reason._tag === "InvalidInput" ? reason.field : reason._tag
        )
      assert.strictEqual(yield* fieldOf([]), "prompt")
      assert.strictEqual(yield* fieldOf([1, 0.5]), "prompt.chunks[0].tokens[1]")
      assert.strictEqual(yield* fieldOf([1, 2, -1]), "prompt.chunks[0].tokens[2]")
      assert.strictEqual(yield* fieldOf([2 ** 31]), "prompt.chunks[0].tokens[0]")
      for (const [chunk, field] of [
        [{ type: "image", data: new Uint8Array(1), format: "gif" }, "format"],
        [{ type: "image", data: new Uint8Array(1), format: "png", expectedTokens: 1.5 }, "expectedTokens"],
        [{ type: "image_asset_pointer", location: "", format: "png" }, "location"],
        [{ type: "dmel", dmel: new Uint8Array() }, "dmel"]
      ] as const) {
        const media = { chunks: [{ type: "encoded_text", tokens: [1] }, chunk] } as unknown as ModelInput.ModelInput
        const reason = yield* reasonOf(sampler.sample(media))
        assert.strictEqual(reason._tag === "InvalidInput" ? reason.field : reason._tag, `prompt.chunks[1].${field}`)
      }
      assert.deepStrictEqual(fake.of("asample"), [])
    }).pipe(over(fake))
  })

  it.effect("S1: sends a request without a readable answer again, number and bytes unchanged", () => {
    const answers = [Fake.refused, Fake.failing(503), { status: 408, text: "" } as const]
    const fake = Fake.make((seen) => (seen.path === "asample" ? answers[seen.nth] : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt, { seed: 5 }))
      assert.isTrue(Exit.isSuccess(exit))
      const bodies = fake.of("asample").map((seen) => Buffer.from(seen.body).toString())
      assert.strictEqual(bodies.length, 4)
      assert.strictEqual(new Set(bodies).size, 1)
    }).pipe(over(fake))
  })

  it.effect("asks anew, under a new number, where the result is gone", () => {
    const fake = Fake.make((seen) => (isPoll(seen) && seen.nth < 2 ? { status: 410, text: "" } : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt))
      assert.isTrue(Exit.isSuccess(exit))
      assert.deepStrictEqual(seqIds(fake), [0n, 1n, 2n])
    }).pipe(over(fake))
  })

  it.effect("asks anew where somebody else has used the number, and not for ever", () => {
    const fake = Fake.make((seen) => (seen.path === "asample" ? Fake.failing(409, "used for another") : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt))
      assert.strictEqual(failureOf(exit)._tag, "Conflict")
      assert.deepStrictEqual(seqIds(fake), [0n, 1n, 2n, 3n])
    }).pipe(over(fake))
  })

  it.effect("survives an outage that is longer than one submission may last", () => {
    let up = false
    const fake = Fake.make((seen) => (seen.path === "asample" && !up ? Fake.refused : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const fiber = yield* Effect.forkChild(sampler.sample(prompt))
      for (let i = 0; i < 600; i++) yield* TestClock.adjust("1 second")
      assert.isUndefined(fiber.pollUnsafe())
      up = true
      for (let i = 0; i < 20; i++) yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
    }).pipe(over(fake))
  })

  it.effect("gives lost results up where the service or the caller wants no repetition", () =>
    Effect.gen(function* () {
      for (const [config, options, sent] of [
        [{ sample_no_retries: true }, {}, 1],
        [{}, { retries: 0 }, 1],
        [{}, { retries: 2 }, 3]
      ] as const) {
        const fake = Fake.make((seen) => {
          if (seen.path === "client/config") return { json: config }
          return isPoll(seen) ? { status: 410, text: "" } : undefined
        })
        yield* Effect.gen(function* () {
          const sampler = yield* newSampler()
          const { exit } = yield* ending(sampler.sample(prompt, options))
          assert.strictEqual(failureOf(exit)._tag, "PromiseExpired")
          assert.strictEqual(fake.of("asample").length, sent)
        }).pipe(over(fake))
      }
    })
  )

  it.effect("gives the failure of an accepted request as it is, and does not repeat it", () => {
    const fake = Fake.make((seen) =>
      isPoll(seen) ? { json: { error: "PromptTooLong: 9 > 8", category: "user" } } : undefined
    )
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const reason = yield* reasonOf(sampler.sample(prompt))
      if (reason._tag !== "RequestFailed") return assert.fail(reason._tag)
      assert.strictEqual(reason.category, "user")
      assert.strictEqual(reason.requestId, "sample:0:1:0")
      assert.include(reason.message, "PromptTooLong")
      assert.strictEqual(fake.of("asample").length, 1)
    }).pipe(over(fake))
  })

  it.effect("names the session that is gone", () => {
    let dead = false
    const fake = Fake.make((seen) => {
      if (!dead) return undefined
      if (seen.path === "session_heartbeat") return Fake.failing(410, "session has expired")
      return seen.path === "asample" ? Fake.failing(404, "no sampler s0:sample:0") : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      dead = true
      const reason = yield* reasonOf(sampler.sample(prompt))
      if (reason._tag !== "SessionLost") return assert.fail(reason._tag)
      assert.strictEqual(reason.sessionId, "s0")
    }).pipe(over(fake))
  })

  it.effect("sends nothing to a session that is known to be gone", () => {
    const fake = Fake.make((seen) =>
      seen.path === "session_heartbeat" ? Fake.failing(410, "session has expired") : undefined
    )
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* reasonOf(sampler.sample(prompt)))._tag, "SessionLost")
      assert.deepStrictEqual(fake.of("asample"), [])
    }).pipe(over(fake))
  })

  it.effect("stops waiting for a result when a heartbeat finds the session gone", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "session_heartbeat") return Fake.failing(410, "session has expired")
      return isPoll(seen) ? slow(tryAgain) : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit, seconds } = yield* ending(sampler.sample(prompt))
      assert.strictEqual(failureOf(exit)._tag, "SessionLost")
      assert.isAtMost(seconds, 60)
    }).pipe(over(fake))
  })

  it.effect.each<[string, Fake.Answer, RegExp]>([
    ["no protobuf", { json: { type: "sample", sequences: [] } }, /JSON .* where protobuf was due/],
    ["no message", { bytes: Uint8Array.of(255), headers: { "content-type": "application/x-protobuf" } }, /sampling/],
    ["too few samples", Fake.sampled(1), /holds 1 samples, and 2 were asked for/],
    ["no prompt logprobs", Fake.sampled(2), /lacks the prompt's logprobs/],
    ["prompt logprobs of another prompt", Fake.sampled(2, { promptLogprobs: [-1] }), /1 logprobs for a prompt of 3/]
  ])("refuses an answer that makes no sense: %s", ([, answer, problem]) => {
    const fake = Fake.make((seen) => (isPoll(seen) ? answer : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt, { numSamples: 2, promptLogprobs: true }))
      const reason = failureOf(exit)
      assert.strictEqual(reason._tag, "BadResponse")
      assert.match(reason.message, problem)
      assert.strictEqual(fake.of("asample").length, 1)
    }).pipe(over(fake))
  })

  it.effect("names samples where the service does, and refuses names for others", () => {
    const names = [["a", "b"], ["a"]]
    const fake = Fake.make((seen) =>
      seen.path === "asample"
        ? { json: { request_id: `sample:${seen.nth}:2:0`, sample_sequence_ids: names[seen.nth] } }
        : undefined
    )
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { sequences } = yield* sampler.sample(prompt, { numSamples: 2 })
      assert.deepStrictEqual(
        sequences.map(({ sequenceId }) => sequenceId),
        ["a", "b"]
      )
      const reason = yield* reasonOf(sampler.sample(prompt, { numSamples: 2 }))
      assert.include(reason.message, "names 1 samples and gives 2")
    }).pipe(over(fake))
  })

  it.effect("asks for what later revisions added only where the caller does", () => {
    const fake = Fake.make((seen) =>
      isPoll(seen) && seen.nth === 1
        ? Fake.sampled(1, {
            sequences: [{ stopReason: "stop", tokens: [7], logprobs: [-0.5], topkLogprobs: [[[7, -0.5]]] }],
            promptLogprobs: [undefined, undefined, -2]
          })
        : undefined
    )
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      yield* sampler.sample(prompt)
      const asked = { topkSampleLogprobs: 1, promptLogprobs: true, promptLogprobsLastN: 1 }
      const sampled = yield* sampler.sample(prompt, asked)
      assert.deepStrictEqual(sampled.sequences[0]?.topkLogprobs, [[[7, -0.5]]])
      assert.deepStrictEqual(sampled.promptLogprobs, [undefined, undefined, -2])
      const [plain, later] = fake.of("asample").map(({ json }) => json)
      assert.doesNotHaveAnyKeys(plain, ["topk_sample_logprobs", "prompt_logprobs_last_n"])
      assert.deepInclude(later, { topk_sample_logprobs: 1, prompt_logprobs_last_n: 1 })
      // The healthy service of this test is of 0.25 and gives all of them.
      const reason = yield* reasonOf(sampler.sample(prompt, asked))
      assert.include(reason.message, "more than the last 1 logprobs")
    }).pipe(over(fake))
  })

  it.effect("gives the logprobs of named tokens, and draws in the prompt's places, where the service can", () => {
    const targetPromptLogprobs = TensorData.int64([5, -1, 6, 7], [2, 2])
    const found = {
      targetPromptLogprobs: TensorData.float32([-1, 0, -2, -3], [2, 2]),
      promptAltTokens: { tokens: TensorData.int64([8, 9], [2, 1]), logprobs: TensorData.float32([-1, -2], [2, 1]) }
    }
    const answers = [
      found,
      { promptAltTokens: found.promptAltTokens },
      { targetPromptLogprobs: found.targetPromptLogprobs }
    ]
    const fake = Fake.make((seen) => (isPoll(seen) ? Fake.sampled(1, answers[seen.nth]) : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const asked = { targetPromptLogprobs, promptAltTokensK: 1, recordStabilityInfo: true }
      const sampled = yield* sampler.sample(prompt, asked)
      assert.deepStrictEqual(Array.from(sampled.targetPromptLogprobs?.data ?? []), [-1, 0, -2, -3])
      assert.deepStrictEqual(Array.from(sampled.promptAltTokens?.tokens.data ?? []), [8, 9])
      assert.deepInclude(fake.of("asample")[0]?.json, {
        target_prompt_logprobs: { data: [5, -1, 6, 7], dtype: "int64", shape: [2, 2] },
        prompt_alt_tokens_k: 1,
        record_stability_info: true
      })
      // A service that does not know them leaves them out.
      assert.include((yield* reasonOf(sampler.sample(prompt, asked))).message, "logprobs of the targets")
      assert.include((yield* reasonOf(sampler.sample(prompt, asked))).message, "drawn in the prompt's places")
    }).pipe(over(fake))
  })

  it.effect("ends at the caller's deadline, and tells a service that wants to know", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/dynamic_config") return { json: { sample_cancel_enabled: true } }
      if (seen.path === "cancel_future") return { status: 204, text: "" }
      return isPoll(seen) ? "silence" : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit, seconds } = yield* ending(sampler.sample(prompt, { deadline: "7 seconds" }))
      const reason = failureOf(exit)
      assert.strictEqual(reason._tag, "Timeout")
      assert.include(reason.message, "7s")
      assert.strictEqual(seconds, 7)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        fake.of("cancel_future").map((seen) => seen.json),
        [{ request_id: "sample:0:1:0" }]
      )
    }).pipe(over(fake))
  })

  it.effect("does not tell a service that does not want to know", () => {
    const fake = Fake.make((seen) => (isPoll(seen) ? "silence" : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      yield* ending(sampler.sample(prompt, { deadline: "7 seconds" }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(fake.of("cancel_future"), [])
    }).pipe(over(fake))
  })

  it.effect("has no more requests at work than it may", () =>
    Effect.gen(function* () {
      for (const [config, options, most] of [
        [{}, { maxConcurrent: 3 }, 3],
        [{ sample_max_concurrent_requests: 2 }, { maxConcurrent: 3 }, 2]
      ] as const) {
        const fake = Fake.make((seen) => {
          if (seen.path === "client/config") return { json: config }
          return isPoll(seen) ? slow(undefined) : undefined
        })
        yield* Effect.gen(function* () {
          const sampler = yield* newSampler({ ...base, ...options })
          const fibers = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7], () => Effect.forkChild(sampler.sample(prompt)))
          yield* TestClock.adjust(0)
          assert.strictEqual(fake.of("asample").length, most)
          yield* TestClock.adjust("30 seconds")
          assert.strictEqual(fake.of("asample").length, 2 * most)
          // One that was waiting for its turn and is not wanted any more leaves the turn to others.
          yield* Fiber.interrupt(fibers[6] ?? assert.fail())
          for (let i = 0; i < 4; i++) yield* TestClock.adjust("30 seconds")
          assert.strictEqual(fake.of("asample").length, 6)
        }).pipe(over(fake))
      }
    })
  )
})

describe("overload", () => {
  const busy = (seen: Fake.Seen, times: number, headers?: Record<string, string>) =>
    seen.path === "asample" && seen.nth < times ? Fake.failing(429, "slow down", headers) : undefined

  it.effect.each<[string, number, Record<string, string> | undefined, number]>([
    ["one second for a small prompt", 3, undefined, 1],
    ["five for a large one", 20_000, undefined, 5],
    ["what the service says", 3, { "retry-after": "9" }, 9]
  ])("S3: a pause lasts %s", ([, tokens, headers, seconds]) => {
    const fake = Fake.make((seen) => busy(seen, 1, headers))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const ended = yield* ending(
        sampler.sample(ModelInput.fromTokens(Array.from({ length: tokens }, () => 1)), { retries: 0 }),
        100,
        "50 millis"
      )
      assert.isTrue(Exit.isSuccess(ended.exit))
      // Up to a quarter of a second more, so that not all come back at once.
      assert.isAtLeast(ended.seconds, seconds)
      assert.isAtMost(ended.seconds, seconds + 0.3)
      assert.deepStrictEqual(seqIds(fake), [0n, 0n])
    }).pipe(over(fake))
  })

  it.effect("S3: a pause holds back every sampler, and ends no earlier for a shorter one or a success", () => {
    const fake = Fake.make((seen) => {
      if (seen.path !== "asample") return undefined
      if (seen.nth === 0) return Effect.as(Effect.sleep("2 seconds"), Fake.failing(429, "busy", { "retry-after": "1" }))
      if (seen.nth === 1) return Fake.failing(429, "busy", { "retry-after": "20" })
      return seen.nth === 2 ? Effect.as(Effect.sleep("3 seconds"), undefined) : undefined
    })
    return Effect.gen(function* () {
      const one = yield* newSampler()
      const two = yield* newSampler()
      for (const sampler of [one, one, two]) yield* Effect.forkChild(sampler.sample(prompt))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(fake.of("asample").length, 3)
      const late = yield* Effect.forkChild(two.sample(prompt))
      for (let i = 0; i < 14; i++) yield* TestClock.adjust("1 second")
      assert.strictEqual(fake.of("asample").length, 3)
      for (let i = 0; i < 4; i++) yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(late)))
    }).pipe(over(fake))
  })

  it.effect("S3: after a pause few submissions are on their way at once, later many again", () => {
    let paused = true
    const fake = Fake.make((seen) => {
      if (seen.path !== "asample") return undefined
      if (seen.nth === 0) return Fake.failing(429)
      return paused ? "silence" : undefined
    })
    const waiting = (sampler: Effect.Success<ReturnType<typeof newSampler>>, count: number) =>
      Effect.forEach(Array.from({ length: count }), () => Effect.forkChild(sampler.sample(prompt)))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      yield* waiting(sampler, 1)
      yield* TestClock.adjust("2 seconds")
      yield* waiting(sampler, 50)
      yield* TestClock.adjust(0)
      // The first one has its place from before the pause.
      assert.strictEqual(fake.of("asample").length, 2 + 10)
      paused = false
      yield* TestClock.adjust("20 seconds")
      yield* TestClock.adjust("60 seconds")
      paused = true
      const before = fake.of("asample").length
      yield* waiting(sampler, 500)
      yield* TestClock.adjust(0)
      assert.strictEqual(fake.of("asample").length - before, 400)
    }).pipe(over(fake))
  })

  it.effect("sends no more bytes at once than the service allows, but always one request", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { sample_dispatch_bytes_semaphore_size: 100 } }
      return seen.path === "asample" ? Effect.as(Effect.sleep("1 second"), undefined) : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      // 60 bytes each: the second one overdraws the budget, and the third waits.
      const six = ModelInput.fromTokens([1, 2, 3, 4, 5, 6])
      for (let i = 0; i < 5; i++) yield* Effect.forkChild(sampler.sample(six))
      yield* TestClock.adjust(0)
      assert.strictEqual(fake.of("asample").length, 2)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(fake.of("asample").length, 4)
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      const huge = yield* Effect.forkChild(sampler.sample(ModelInput.fromTokens(Array.from({ length: 1000 }, () => 1))))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(huge)))
    }).pipe(over(fake))
  })

  it.effect("waits for the account's billing, all samplers together, for as long as the service allows", () => {
    let settled = false
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { billing_exception_max_pause_duration_sec: 600 } }
      return seen.path === "asample" && !settled ? Fake.failing(402, "card declined") : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const first = yield* Effect.forkChild(sampler.sample(prompt))
      for (let i = 0; i < 60; i++) yield* TestClock.adjust("1 second")
      // Every 5 seconds, and not once a request.
      const alone = fake.of("asample").length
      assert.isAtLeast(alone, 10)
      assert.isAtMost(alone, 13)
      settled = true
      for (let i = 0; i < 6; i++) yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(first)))
      settled = false
      yield* TestClock.adjust("10 minutes")
      const { exit, seconds } = yield* ending(sampler.sample(prompt))
      const reason = failureOf(exit)
      if (reason._tag !== "BillingPaused") return assert.fail(reason._tag)
      assert.isAtLeast(Duration.toSeconds(reason.waited), 600)
      assert.isAtLeast(seconds, 600)
      assert.isAtMost(seconds, 607)
    }).pipe(over(fake))
  })

  it.effect("S4: overload without end is given up as stuck", () => {
    const fake = Fake.make((seen) => busy(seen, Number.POSITIVE_INFINITY))
    return Effect.gen(function* () {
      const sampler = yield* newSampler({ ...base, progressTimeout: "10 minutes" })
      const { exit, seconds } = yield* ending(sampler.sample(prompt))
      const reason = failureOf(exit)
      if (reason._tag !== "Stuck") return assert.fail(reason._tag)
      assert.strictEqual(reason.requests, 1)
      assert.isAtLeast(seconds, 600)
      assert.isAtMost(seconds, 605)
    }).pipe(over(fake))
  })
})

describe("progress", () => {
  it.effect("S4: what gives no sample for two hours is stuck", () => {
    const fake = Fake.make((seen) => (isPoll(seen) ? slow(tryAgain) : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit, seconds } = yield* ending(sampler.sample(prompt), 8000, "30 seconds")
      const reason = failureOf(exit)
      assert.strictEqual(reason._tag, "Stuck")
      assert.include(reason.message, "s0:sample:0 gave no sample for 2h")
      assert.strictEqual(seconds, 7200)
    }).pipe(over(fake))
  })

  it.effect("a sample of anybody is progress for all, and so is a pause that the service speaks of", () => {
    const fake = Fake.make((seen) => {
      if (!isPoll(seen)) return undefined
      const first = String(seen.json.request_id).startsWith("sample:0:")
      if (!first) return undefined
      return Effect.flatMap(Clock.currentTimeMillis, (now) => slow(now < 9_000_000 ? tryAgain : paused))
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler({ ...base, progressTimeout: "1 hour" })
      const slowest = yield* Effect.forkChild(sampler.sample(prompt))
      for (let i = 0; i < 3; i++) {
        yield* TestClock.adjust("50 minutes")
        yield* sampler.sample(prompt)
      }
      for (let i = 0; i < 300; i++) yield* TestClock.adjust("30 seconds")
      assert.isUndefined(slowest.pollUnsafe())
      yield* Fiber.interrupt(slowest)
    }).pipe(over(fake))
  })

  it.effect("nothing is stuck for having been idle", () => {
    const fake = Fake.make((seen) => (isPoll(seen) && seen.nth === 0 ? slow(tryAgain) : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler({ ...base, progressTimeout: "1 hour" })
      yield* TestClock.adjust("5 hours")
      const { exit } = yield* ending(sampler.sample(prompt))
      assert.isTrue(Exit.isSuccess(exit))
    }).pipe(over(fake))
  })

  it.effect("a service may switch the watch off", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { sample_enable_stuck_detection: false } }
      return isPoll(seen) ? slow(tryAgain) : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler({ ...base, progressTimeout: "1 minute" })
      const fiber = yield* Effect.forkChild(sampler.sample(prompt))
      for (let i = 0; i < 20; i++) yield* TestClock.adjust("30 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* Fiber.interrupt(fiber)
    }).pipe(over(fake))
  })

  it.effect("shows the states of the queue as they change", () => {
    const answers = [paused, paused, undefined]
    const fake = Fake.make((seen) => (isPoll(seen) ? slow(answers[Math.min(seen.nth, 2)]) : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const states: Array<QueueState> = []
      yield* Effect.forkChild(
        Stream.runForEach(sampler.queueState, (state) => Effect.sync(() => void states.push(state)))
      )
      const fiber = yield* Effect.forkChild(sampler.sample(prompt))
      for (let i = 0; i < 4; i++) yield* TestClock.adjust("30 seconds")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
      assert.deepStrictEqual(states, [
        { state: "active", reason: undefined },
        { state: "paused_capacity", reason: "full house" },
        { state: "active", reason: undefined }
      ])
    }).pipe(over(fake))
  })
})

describe("SamplingClient.computeLogprobs", () => {
  it.effect("asks for one token and gives a log-probability for each of the prompt but the first", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      assert.deepStrictEqual(yield* sampler.computeLogprobs(prompt), [undefined, -1, -2])
      const { num_samples, prompt_logprobs, sampling_params } = fake.of("asample")[0]?.json ?? {}
      assert.deepStrictEqual([num_samples, prompt_logprobs], [1, true])
      assert.deepStrictEqual(sampling_params, { max_tokens: 1, temperature: 1, top_k: -1, top_p: 1 })
    }).pipe(over(fake))
  })

  it.effect("puts the missing first place back that some servers leave out", () => {
    const answers = [Fake.sampled(1, { promptLogprobs: [-1, -2] }), Fake.sampled(1)]
    const fake = Fake.make((seen) => (isPoll(seen) ? answers[seen.nth] : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      assert.deepStrictEqual(yield* sampler.computeLogprobs(prompt), [undefined, -1, -2])
      assert.deepStrictEqual(yield* sampler.computeLogprobs(ModelInput.fromTokens([1])), [undefined])
    }).pipe(over(fake))
  })

  it.effect("asks anew for lost results even where samples are not", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return { json: { sample_no_retries: true } }
      return isPoll(seen) && seen.nth === 0 ? { status: 410, text: "" } : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      assert.isTrue(Exit.isSuccess((yield* ending(sampler.computeLogprobs(prompt))).exit))
    }).pipe(over(fake))
  })
})

describe("SamplingClient.sampleAll", () => {
  const prompts = Array.from({ length: 20 }, (_, i) => ModelInput.fromTokens([i]))

  it.effect("draws from many prompts, so many at once, and takes them as it needs them", () => {
    const fake = Fake.make((seen) => (isPoll(seen) ? Effect.as(Effect.sleep("1 second"), undefined) : undefined))
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      let taken = 0
      const lazy = Stream.fromIterable(prompts).pipe(
        Stream.rechunk(1),
        Stream.tap(() => Effect.sync(() => taken++))
      )
      const fiber = yield* Effect.forkChild(Stream.runCollect(sampler.sampleAll(lazy, { concurrency: 4 })))
      yield* TestClock.adjust(0)
      assert.strictEqual(fake.of("asample").length, 4)
      assert.isAtMost(taken, 7)
      for (let i = 0; i < 5; i++) yield* TestClock.adjust("1 second")
      const all = yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        all.map(({ index }) => index).toSorted((a, b) => a - b),
        prompts.map((_, i) => i)
      )
      for (const { index, prompt, result } of all) {
        assert.strictEqual(prompt, prompts[index])
        assert.isTrue(Result.isSuccess(result))
      }
    }).pipe(over(fake))
  })

  it.effect("gives a failing prompt as a result among the others", () => {
    const fake = Fake.make((seen) => {
      const tokens =
        seen.path === "asample" ? Effect.runSync(SampleRequest.decode(seen.body)).prompt.chunks[0] : undefined
      const bad = tokens?.type === "encoded_text" && tokens.tokens[0] === 3
      return bad ? Fake.failing(400, "Prompt length plus max_tokens exceeds the model's context window") : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const all = yield* Stream.runCollect(sampler.sampleAll(prompts))
      const failed = all.filter(({ result }) => Result.isFailure(result))
      assert.strictEqual(all.length, 20)
      assert.deepStrictEqual(
        failed.map(({ index }) => index),
        [3]
      )
    }).pipe(over(fake))
  })

  it.effect("refuses to have nothing at work", () => {
    const fake = Fake.make()
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      for (const concurrency of [0, 1.5, Number.NaN]) {
        const reason = yield* reasonOf(Stream.runDrain(sampler.sampleAll(prompts, { concurrency })))
        assert.strictEqual(reason._tag === "InvalidInput" ? reason.field : reason._tag, "concurrency")
      }
    }).pipe(over(fake))
  })

  it.effect("abandons what is at work when nobody reads on", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/dynamic_config") return { json: { sample_cancel_enabled: true } }
      if (seen.path === "cancel_future") return { status: 204, text: "" }
      return isPoll(seen) && seen.nth > 0 ? "silence" : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const first = yield* Stream.runHead(sampler.sampleAll(prompts, { concurrency: 5 }))
      assert.strictEqual(first._tag, "Some")
      yield* TestClock.adjust(0)
      assert.isAtLeast(fake.of("cancel_future").length, 4)
      const before = fake.of("asample").length
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(fake.of("asample").length, before)
    }).pipe(over(fake))
  })
})

describe("one request for the results of all", () => {
  interface Target {
    readonly target: { readonly cloned_sampler_id: number }
    readonly prev_cursor: number
  }
  const wanted: Fake.Answer = { json: { sample_use_retrieve_futures: true } }

  it.effect("learns of results as they come, and fetches each once", () => {
    const finished: Array<string> = []
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      if (seen.path !== "retrieve_futures") return undefined
      const { prev_cursor } = seen.json as unknown as Target
      const completions = finished.slice(prev_cursor).map((request_id) => ({ state: "finished", request_id }))
      const answer: Fake.Answer = { json: { completions, cursor: finished.length } }
      return completions.length > 0 ? answer : Effect.as(Effect.sleep("30 seconds"), answer)
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const fibers = yield* Effect.forEach([0, 1, 2], () => Effect.forkChild(sampler.sample(prompt)))
      yield* TestClock.adjust(0)
      assert.strictEqual(fake.of("retrieve_futures").length, 1)
      assert.strictEqual(fake.of("retrieve_future").length, 0)
      assert.deepStrictEqual(fake.of("retrieve_futures")[0]?.json, {
        target: { type: "sampling_session", sampling_session_id: "s0:sample:0", cloned_sampler_id: 0 },
        prev_cursor: 0,
        timeout: 30
      })
      finished.push("sample:2:1:0", "sample:0:1:0", "sample:1:1:0")
      yield* TestClock.adjust("30 seconds")
      yield* TestClock.adjust(0)
      for (const fiber of fibers) assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
      assert.strictEqual(fake.of("retrieve_future").length, 3)
      // Nobody waits, nobody asks.
      const before = fake.of("retrieve_futures").length
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(fake.of("retrieve_futures").length, before)
    }).pipe(over(fake))
  })

  it.effect("keeps what it learns of a request before that is accepted, and learns nothing twice", () => {
    const news = [["sample:1:1:0"], ["sample:0:1:0"]]
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      if (seen.path === "asample" && seen.nth === 1) return Effect.as(Effect.sleep("10 seconds"), undefined)
      if (seen.path !== "retrieve_futures") return undefined
      const { prev_cursor } = seen.json as unknown as Target
      const completions = (news[prev_cursor] ?? []).map((request_id) => ({ state: "finished", request_id }))
      const wait = prev_cursor === 0 ? "1 second" : "30 seconds"
      return Effect.as(Effect.sleep(wait), { json: { completions, cursor: prev_cursor + 1 } })
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const first = yield* Effect.forkChild(sampler.sample(prompt))
      const second = yield* Effect.forkChild(sampler.sample(prompt))
      for (let i = 0; i < 10; i++) yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(second)))
      assert.isUndefined(first.pollUnsafe())
      for (let i = 0; i < 30; i++) yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(first)))
      assert.deepStrictEqual(
        fake.of("retrieve_futures").map(({ json }) => json.prev_cursor),
        [0, 1]
      )
    }).pipe(over(fake))
  })

  it.effect("names the block of another process", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      return seen.path === "retrieve_futures" ? "silence" : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler({ handle: { sessionId: "far", samplingSessionId: "far:sample:0" } })
      yield* Effect.forkChild(sampler.sample(prompt))
      yield* TestClock.adjust(0)
      const asked = fake.of("retrieve_futures")[0]?.json as unknown as Target
      assert.strictEqual(BigInt(asked.target.cloned_sampler_id), (seqIds(fake)[0] ?? 0n) / 1_000_000_000n)
      assert.isAtLeast(asked.target.cloned_sampler_id, 1)
    }).pipe(over(fake))
  })

  it.effect.each<[string, Fake.Answer]>([
    ["unknown there", Fake.failing(404)],
    ["makes no sense", { json: { completions: 5 } }],
    ["bad again and again", Fake.failing(400)]
  ])("asks for each by itself where that is %s", ([, answer]) => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      return seen.path === "retrieve_futures" ? answer : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt))
      assert.isTrue(Exit.isSuccess(exit))
      yield* sampler.sample(prompt)
      assert.isAtMost(fake.of("retrieve_futures").length, 4)
    }).pipe(over(fake))
  })

  it.effect("goes on asking through an outage", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      if (seen.path !== "retrieve_futures") return undefined
      return seen.nth < 20
        ? Fake.refused
        : { json: { completions: [{ state: "failed", request_id: "sample:0:1:0" }], cursor: 1 } }
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt))
      assert.isTrue(Exit.isSuccess(exit))
    }).pipe(over(fake))
  })

  it.effect.each<[string, Fake.Answer]>([
    ["an outage", Fake.refused],
    ["5xx", Fake.failing(503)]
  ])("leaves the end to each sample's own question in a long time of %s", ([, answer]) => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      return seen.path === "retrieve_futures" || isPoll(seen) ? answer : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt, { retries: 0 }), 1500)
      assert.isTrue(failureOf(exit).isRetryable)
    }).pipe(over(fake))
  })

  it.effect("asks for each by itself where that is never answered", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      return seen.path === "retrieve_futures" ? "silence" : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit } = yield* ending(sampler.sample(prompt))
      assert.isTrue(Exit.isSuccess(exit))
    }).pipe(over(fake))
  })

  it.effect("ends with the session", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      if (seen.path === "session_heartbeat") return seen.nth > 2 ? Fake.failing(410, "it is over") : undefined
      return seen.path === "retrieve_futures"
        ? Effect.as(Effect.sleep("30 seconds"), { json: { completions: [], cursor: 0 } })
        : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const { exit, seconds } = yield* ending(sampler.sample(prompt))
      assert.strictEqual(failureOf(exit)._tag, "SessionLost")
      assert.isAtMost(seconds, 120)
    }).pipe(over(fake))
  })

  it.effect("is given up as stuck when nothing ever comes", () => {
    const fake = Fake.make((seen) => {
      if (seen.path === "client/config") return wanted
      return seen.path === "retrieve_futures"
        ? Effect.as(Effect.sleep("30 seconds"), { json: { completions: [], cursor: 0 } })
        : undefined
    })
    return Effect.gen(function* () {
      const sampler = yield* newSampler({ ...base, progressTimeout: "10 minutes" })
      const { exit, seconds } = yield* ending(sampler.sample(prompt), 1500)
      assert.strictEqual(failureOf(exit)._tag, "Stuck")
      assert.isAtMost(seconds, 700)
    }).pipe(over(fake))
  })
})

describe("SamplingClient.info", () => {
  it.effect("says what the sampler samples from", () => {
    const fake = Fake.make((seen) =>
      seen.path === "samplers/s0:sample:0"
        ? { json: { sampler_id: "s0:sample:0", base_model: "org/base", model_path: null } }
        : undefined
    )
    return Effect.gen(function* () {
      const sampler = yield* newSampler()
      const info = yield* sampler.info()
      assert.strictEqual(info.baseModel, "org/base")
      assert.strictEqual(info.samplerId, "s0:sample:0")
    }).pipe(over(fake))
  })
})
