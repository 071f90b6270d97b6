import { assert, describe, it } from "@effect/vitest"
import {
  Datum,
  ModelInput,
  type SamplingClient,
  ServiceClient,
  TensorData,
  Tinker,
  type TinkerError
} from "@tinkex/tinker"
import { Clock, type Duration, Effect, Fiber, Layer, Result, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import { Emulator, type EmulatorOptions, FaultPlan } from "../src/index.ts"
import { batches } from "./api.ts"

const baseModel = "tiny/byte-lm-16"
const text = (words: string) => ModelInput.fromTokens(new TextEncoder().encode(words))

const Sdk = Layer.unwrap(Effect.map(Emulator, ({ url }) => Tinker.layer({ apiKey: "tml-test", baseUrl: url })))

/** A server on a real socket, and the SDK over fetch. */
const overSockets = (options: EmulatorOptions = {}) =>
  Effect.provide(Sdk.pipe(Layer.provideMerge(Layer.merge(Emulator.layer(options), FetchHttpClient.layer))))

/** The same without a socket, so that faults which last minutes take no time. */
const inProcess = (options: EmulatorOptions = {}) =>
  Effect.provide(Sdk.pipe(Layer.provideMerge(Emulator.layerHttpClient(options))))

const whileTimePasses =
  (step: Duration.Input = "200 millis") =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(effect)
      for (let i = 0; i < 5000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust(step)
      return yield* Fiber.join(fiber)
    })

const newSampler = Effect.flatMap(ServiceClient, (service) => service.createSamplingClient({ baseModel }))

/** Each sample has a name of its own; what was drawn is the rest. */
const drawnIn = ({ sequences, ...rest }: SamplingClient.SampleResponse) => ({
  ...rest,
  sequences: sequences.map((sequence) => ({ ...sequence, sequenceId: undefined }))
})

const reasonOf = <A, R>(effect: Effect.Effect<A, TinkerError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

const samplesServed = Effect.gen(function* () {
  const { control } = yield* Emulator
  const requests = yield* control.requests
  return requests.filter(({ endpoint, status }) => endpoint.endsWith("asample") && status === 200)
})

/** Log-probabilities of the tokens of a text, given those before, as a training pass computes them. */
const byTraining = Effect.fnUntraced(function* (words: string) {
  const service = yield* ServiceClient
  const client = yield* service.createLoraTrainingClient({ baseModel, rank: 4, seed: 7 })
  const tokens = new TextEncoder().encode(words)
  const datum: Datum.Datum = {
    modelInput: Datum.fromTokens(tokens.slice(0, -1)),
    lossFnInputs: {
      target_tokens: TensorData.int64(tokens.slice(1)),
      weights: TensorData.float32(new Float32Array(tokens.length - 1).fill(1))
    }
  }
  const pass = yield* client.forward([datum], { loss: "cross_entropy" })
  const { lossFnOutputs } = yield* pass.result
  return Array.from(lossFnOutputs[0]?.["logprobs"]?.data ?? [])
})

describe("sampling with the SDK, over loopback HTTP", () => {
  it.live("draws what the same seed drew, with logprobs, prompt logprobs and the likeliest tokens", () =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      const ask = { maxTokens: 12, seed: 2n ** 63n + 1n, numSamples: 3, promptLogprobs: true, topkPromptLogprobs: 2 }
      const [one, two] = [yield* sampler.sample(text("the cat"), ask), yield* sampler.sample(text("the cat"), ask)]
      assert.deepStrictEqual(drawnIn(one), drawnIn(two))
      const names = [one, two].flatMap(({ sequences }) => sequences.map(({ sequenceId }) => sequenceId))
      assert.strictEqual(new Set(names).size, 6)
      assert.strictEqual(one.sequences.length, 3)
      for (const { logprobs, stopReason, tokens } of one.sequences) {
        assert.strictEqual(logprobs?.length, tokens.length)
        assert.isTrue(stopReason === "stop" || tokens.length === 12)
        assert.isTrue(logprobs?.every((value) => value <= 0))
      }
      assert.strictEqual(one.promptLogprobs?.length, 7)
      assert.isUndefined(one.promptLogprobs?.[0])
      assert.deepStrictEqual(
        one.topkPromptLogprobs?.map((row) => row?.length),
        [undefined, 2, 2, 2, 2, 2, 2]
      )
      for (const row of one.topkPromptLogprobs?.slice(1) ?? []) {
        assert.isAtLeast(row?.[0]?.[1] ?? assert.fail(), row?.[1]?.[1] ?? assert.fail())
      }
      const other = yield* sampler.sample(text("the cat"), { ...ask, seed: 2n ** 63n + 2n })
      assert.notDeepEqual(drawnIn(other).sequences, drawnIn(one).sequences)
    }).pipe(Effect.scoped, overSockets())
  )

  it.live("gives the likeliest tokens in a sample's places too, and the end of a prompt alone", () =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      const ask = { maxTokens: 6, temperature: 0, promptLogprobs: true }
      const whole = yield* sampler.sample(text("the cat"), ask)
      const end = yield* sampler.sample(text("the cat"), { ...ask, promptLogprobsLastN: 2, topkSampleLogprobs: 3 })
      const [drawn] = end.sequences
      assert.deepStrictEqual(drawn?.tokens, whole.sequences[0]?.tokens)
      // Without temperature the likeliest token is the one that is drawn.
      assert.deepStrictEqual(
        drawn?.topkLogprobs?.map((row) => row?.[0]),
        drawn?.tokens.map((token, i) => [token, drawn.logprobs?.[i] ?? Number.NaN] as const)
      )
      assert.deepStrictEqual(end.promptLogprobs, [
        ...Array.from({ length: 5 }, () => undefined),
        ...(whole.promptLogprobs?.slice(-2) ?? [])
      ])
    }).pipe(Effect.scoped, overSockets())
  )

  it.live("gives the logprobs of named tokens, dense or sparse, and draws in the prompt's places", () =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      const tokens = Array.from(new TextEncoder().encode("the cat"))
      const places = tokens.length - 1
      const named = tokens.slice(1)
      const ask = { maxTokens: 1, seed: 4, promptLogprobs: true }
      const dense = yield* sampler.sample(text("the cat"), {
        ...ask,
        targetPromptLogprobs: TensorData.int64(
          named.flatMap((token) => [token, -1]),
          [places, 2]
        ),
        promptAltTokensK: 3
      })
      const logprobs = dense.promptLogprobs?.slice(1)
      // Every other cell asks for nothing.
      assert.deepStrictEqual(
        Array.from(dense.targetPromptLogprobs?.data ?? []).filter((_, cell) => cell % 2 === 0),
        logprobs
      )
      const sparse = yield* sampler.sample(text("the cat"), {
        ...ask,
        targetPromptLogprobs: {
          ...TensorData.int64(named.slice(-1), [places, 5]),
          csr: { crow: [...named.map(() => 0), 1], col: [4] }
        }
      })
      assert.deepStrictEqual(Array.from(sparse.targetPromptLogprobs?.data ?? []), logprobs?.slice(-1))
      const { promptAltTokens } = dense
      assert.deepStrictEqual(promptAltTokens?.tokens.shape, [places, 3])
      assert.isTrue(Array.from(promptAltTokens?.logprobs.data ?? []).every((logprob) => logprob < 0))
    }).pipe(Effect.scoped, overSockets({ api: "0.38" }))
  )

  it.live("stops at tokens and texts", () =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      const whole = yield* sampler.sample(text("a"), { maxTokens: 40, seed: 3 })
      const [drawn] = whole.sequences
      const fifth = drawn?.tokens[4] ?? assert.fail("too short")
      const atToken = yield* sampler.sample(text("a"), { maxTokens: 40, seed: 3, stop: [fifth] })
      assert.strictEqual(atToken.sequences[0]?.stopReason, "stop")
      assert.strictEqual(atToken.sequences[0]?.tokens.at(-1), fifth)
      assert.isAtMost(atToken.sequences[0]?.tokens.length ?? 99, 5)
      const printable = drawn?.tokens.findIndex((token) => token >= 32 && token < 127) ?? -1
      if (printable < 0) return
      const stop = String.fromCharCode(drawn?.tokens[printable] ?? 0)
      const atText = yield* sampler.sample(text("a"), { maxTokens: 40, seed: 3, stop: [stop] })
      assert.strictEqual(atText.sequences[0]?.tokens.length, printable + 1)
    }).pipe(Effect.scoped, overSockets())
  )

  it.live("gives a prompt the log-probabilities that a training pass gives it, bit for bit", () =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      const [none, ...logprobs] = yield* sampler.computeLogprobs(text("hello world"))
      assert.isUndefined(none)
      // A LoRA adapter that was never trained adds nothing.
      assert.deepStrictEqual(logprobs, yield* byTraining("hello world"))
    }).pipe(Effect.scoped, overSockets())
  )

  it.live("samples from a trained client's weights: as they are, by their path, and from another process", () =>
    Effect.gen(function* () {
      const service = yield* ServiceClient
      const client = yield* service.createLoraTrainingClient({ baseModel, rank: 4, seed: 7 })
      for (let step = 0; step < 6; step++) {
        const pass = yield* client.forwardBackward(batches[step % batches.length] ?? [], { loss: "cross_entropy" })
        const update = yield* client.optimStep({ learningRate: 0.05 })
        yield* pass.result
        yield* update.result
      }
      const ephemeral = yield* service.createSamplingClient({ weightsOf: client })
      const { path } = yield* (yield* client.saveWeightsForSampler("six")).result
      assert.match(path, /^tinker:\/\/.+\/sampler_weights\/six$/)
      const named = yield* service.createSamplingClient({ modelPath: path })
      const elsewhere = yield* service.createSamplingClient({ handle: named.handle })
      const logprobs = yield* ephemeral.computeLogprobs(text("the cat sat"))
      assert.deepStrictEqual(yield* named.computeLogprobs(text("the cat sat")), logprobs)
      assert.deepStrictEqual(yield* elsewhere.computeLogprobs(text("the cat sat")), logprobs)
      const untrained = yield* newSampler
      assert.notDeepEqual(yield* untrained.computeLogprobs(text("the cat sat")), logprobs)
      assert.strictEqual((yield* named.info()).baseModel, baseModel)
      assert.strictEqual((yield* elsewhere.info()).samplerId, named.samplingSessionId)
    }).pipe(Effect.scoped, overSockets())
  )

  it.live("draws from hundreds of prompts at once", () =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      const prompts = Array.from({ length: 300 }, (_, i) => text(`prompt ${i}`))
      const all = yield* Stream.runCollect(sampler.sampleAll(prompts, { maxTokens: 4, seed: 1, concurrency: 300 }))
      assert.strictEqual(all.length, 300)
      assert.isTrue(all.every(({ result }) => Result.isSuccess(result)))
      const ids = (yield* samplesServed).map(({ seqId }) => seqId)
      assert.strictEqual(new Set(ids).size, 300)
    }).pipe(Effect.scoped, overSockets({ compute: "none" }))
  )

  it.live("learns of the results of all by one request, and gets numbers for another process from the server", () =>
    Effect.gen(function* () {
      const service = yield* ServiceClient
      const sampler = yield* newSampler
      const clone = yield* service.createSamplingClient({ handle: sampler.handle })
      const prompts = Array.from({ length: 50 }, (_, i) => text(`prompt ${i}`))
      const drawn = yield* Effect.forEach(
        [sampler, clone],
        (one) => Stream.runCollect(one.sampleAll(prompts, { maxTokens: 4, seed: 1, concurrency: 50 })),
        { concurrency: "unbounded" }
      )
      const tokensOf = (all: (typeof drawn)[number]) =>
        all
          .toSorted((a, b) => a.index - b.index)
          .map(({ result }) => Result.isSuccess(result) && result.success.sequences[0]?.tokens)
      assert.deepStrictEqual(tokensOf(drawn[0] ?? []), tokensOf(drawn[1] ?? []))
      const { control } = yield* Emulator
      const requests = yield* control.requests
      const numbers = requests.filter(({ endpoint }) => endpoint.endsWith("asample")).map(({ seqId = -1 }) => seqId)
      assert.deepStrictEqual(
        numbers.toSorted((a, b) => a - b),
        [0, 1_000_000_000].flatMap((first) => prompts.map((_, i) => first + i))
      )
      assert.isBelow(requests.filter(({ endpoint }) => endpoint.endsWith("retrieve_future")).length, 110)
    }).pipe(
      Effect.scoped,
      overSockets({
        api: "0.38",
        clientConfig: { sample_use_retrieve_futures: true, sample_join_sampling_session: true }
      })
    )
  )

  it.live("names what the server refuses", () =>
    Effect.gen(function* () {
      const service = yield* ServiceClient
      const sampler = yield* newSampler
      const tooLong = yield* reasonOf(sampler.sample(text("x"), { maxTokens: 1_000_000 }))
      assert.strictEqual(tooLong._tag, "BadRequest")
      assert.include(tooLong.message, "context window")
      const unknown = yield* reasonOf(service.createSamplingClient({ baseModel: "no/such-model" }))
      assert.strictEqual(unknown._tag, "BadRequest")
      const gone = yield* reasonOf(
        service.createSamplingClient({ modelPath: "tinker://nobody:train:0/sampler_weights/none" })
      )
      assert.strictEqual(gone._tag, "NotFound")
    }).pipe(Effect.scoped, overSockets())
  )

  it.live("S1: a lost connection costs no second sample", () =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      yield* sampler.sample(text("x"), { maxTokens: 2 })
      const { control } = yield* Emulator
      const futures = (yield* control.requests).filter(
        ({ duplicate, endpoint }) => endpoint.endsWith("asample") && duplicate
      )
      assert.strictEqual(futures.length, 1)
    }).pipe(
      Effect.scoped,
      overSockets({ faults: FaultPlan.make([FaultPlan.loseResponse({ operation: "asample", occurrence: 1 })]) })
    )
  )
})

describe("sampling with the SDK under faults", () => {
  const drawn = (faults: FaultPlan.FaultPlan, step?: Duration.Input) =>
    Effect.gen(function* () {
      const sampler = yield* newSampler
      const began = yield* Clock.currentTimeMillis
      const sampled = yield* Effect.result(sampler.sample(text("the "), { maxTokens: 6, seed: 9 }))
      return { sampled, seconds: ((yield* Clock.currentTimeMillis) - began) / 1000, served: yield* samplesServed }
    }).pipe(Effect.scoped, inProcess({ faults }), whileTimePasses(step))

  const at = { operation: "asample", occurrence: 1 } as const
  const polled = { operation: "retrieve_future", occurrence: 1 } as const

  it.effect.each<[string, Parameters<typeof FaultPlan.make>[0], Duration.Input?]>([
    ["nothing happens", []],
    ["dropped requests", [FaultPlan.dropRequest({ ...at, times: 3 })]],
    ["a lost answer", [FaultPlan.loseResponse(at)]],
    ["a lost result", [FaultPlan.loseResponse(polled)]],
    ["overload", [FaultPlan.httpBurst({ operation: "asample", status: 429, count: 4, retryAfter: "3 seconds" })]],
    ["failing servers", [FaultPlan.httpBurst({ operation: "asample", status: 503, count: 4 })]],
    ["failing polls", [FaultPlan.httpBurst({ operation: "retrieve_future", status: 500, count: 4 })]],
    ["a result that is late", [FaultPlan.delayResult({ ...at, by: "3 minutes" })]],
    ["a pause of hours", [FaultPlan.pause({ after: 0, length: "3 hours" })], "5 seconds"],
    ["a result that is gone", [FaultPlan.expireFuture(at)]],
    ["an outage", [FaultPlan.partition({ after: "1 second", length: "4 minutes" })]]
  ])("draws the same in spite of %s", ([, faults, step]) =>
    Effect.gen(function* () {
      const calm = yield* drawn(FaultPlan.make([]))
      const stormy = yield* drawn(FaultPlan.make(faults), step)
      assert.isTrue(Result.isSuccess(stormy.sampled), JSON.stringify(stormy.sampled))
      assert.deepStrictEqual(Result.map(stormy.sampled, drawnIn), Result.map(calm.sampled, drawnIn))
    })
  )

  it.effect("S3: an overload is waited for as long as the server wants", () =>
    Effect.gen(function* () {
      const burst = FaultPlan.httpBurst({ operation: "asample", status: 429, count: 3, retryAfter: "20 seconds" })
      const { sampled, seconds } = yield* drawn(FaultPlan.make([burst]))
      assert.isTrue(Result.isSuccess(sampled))
      assert.isAtLeast(seconds, 60)
      assert.isAtMost(seconds, 63)
    })
  )

  it.effect("a failure in band is told as it is, once", () =>
    Effect.gen(function* () {
      const { sampled, served } = yield* drawn(FaultPlan.make([FaultPlan.softFail(at)]))
      const reason = Result.isFailure(sampled) ? sampled.failure.reason : assert.fail("it did not fail")
      assert.strictEqual(reason._tag, "RequestFailed")
      assert.strictEqual(served.length, 1)
    })
  )

  it.effect("a session that is gone is named", () =>
    Effect.gen(function* () {
      const service = yield* ServiceClient
      // The fault strikes the session of the model that was used last.
      yield* service.createLoraTrainingClient({ baseModel, rank: 4 })
      const sampler = yield* newSampler
      yield* sampler.sample(text("x"), { maxTokens: 2 })
      yield* Effect.sleep("2 seconds")
      const reason = yield* reasonOf(sampler.sample(text("x"), { maxTokens: 2 }))
      assert.strictEqual(reason._tag, "SessionLost")
      // The next sampler has a new session.
      const again = yield* newSampler
      assert.notStrictEqual(again.sessionId, sampler.sessionId)
      yield* again.sample(text("x"), { maxTokens: 2 })
    }).pipe(
      Effect.scoped,
      inProcess({ faults: FaultPlan.make([FaultPlan.loseSession({ after: "1 second" })]) }),
      whileTimePasses()
    )
  )
})
