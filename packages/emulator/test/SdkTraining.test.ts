// The training half of the SDK against the emulator: every loss, losses of the caller's own, batches cut into requests, saves.
import { assert, describe, it } from "@effect/vitest"
import { CustomLoss, Datum, ServiceClient, TensorData, Tinker, type TrainingClient, Vector } from "@tinkex/tinker"
import { Effect, Layer } from "effect"
import { FetchHttpClient } from "effect/http"
import { Emulator, type EmulatorOptions } from "../src/index.ts"
import { batches } from "./api.ts"

type Client = TrainingClient.TrainingClient

/** Over real sockets: what a test takes is milliseconds, and nothing waits for the clock. */
const served = (options: EmulatorOptions = {}) =>
  Effect.provide(
    Layer.unwrap(Effect.map(Emulator, ({ url }) => Tinker.layer({ apiKey: "tml-test", baseUrl: url }))).pipe(
      Layer.provideMerge(Layer.merge(Emulator.layer(options), FetchHttpClient.layer)),
      Layer.fresh
    )
  )

const create = Effect.flatMap(ServiceClient, (service) =>
  service.createLoraTrainingClient({ baseModel: "tiny/byte-lm-16", rank: 4, seed: 7 })
)
const stateHash = (client: Client) => Effect.flatMap(Emulator, ({ control }) => control.stateHash(client.modelId))

type Pass = (
  client: Client,
  data: ReadonlyArray<Datum.Datum>
) => Effect.Effect<{ readonly result: Effect.Effect<TrainingClient.ForwardBackwardOutput, unknown> }, unknown>

/** The state after three steps of a pass of the given kind. */
const after = (pass: Pass, options: EmulatorOptions = {}) =>
  Effect.gen(function* () {
    const client = yield* create
    for (const data of batches.slice(0, 3)) {
      const submitted = yield* pass(client, data)
      const update = yield* client.optimStep({ learningRate: 0.05 })
      yield* submitted.result
      yield* update.result
    }
    return yield* stateHash(client)
  }).pipe(Effect.scoped, served(options))

const crossEntropy: Pass = (client, data) => client.forwardBackward(data, { loss: "cross_entropy" })

const weightOf = ({ lossFnInputs }: Datum.Datum, at: number) => lossFnInputs["weights"]?.data[at] ?? 1
const bare = (data: ReadonlyArray<Datum.Datum>): ReadonlyArray<Datum.Datum> =>
  data.map(({ lossFnInputs: { target_tokens = TensorData.int64([]) }, modelInput }) => ({
    modelInput,
    lossFnInputs: { target_tokens }
  }))

describe("the SDK trains", () => {
  it.live("the same by a loss of the caller's own as by the service's, bit for bit", () =>
    Effect.gen(function* () {
      const builtIn = yield* after(crossEntropy)
      const perToken: Pass = (client, data) =>
        client.forwardBackwardCustom(
          data,
          CustomLoss.perToken((p, { datum, index }) => ({
            loss: -weightOf(datum, index) * p,
            slope: -weightOf(datum, index)
          }))
        )
      assert.strictEqual(yield* after(perToken), builtIn)
      const differentiated: Pass = (client, data) =>
        client.forwardBackwardCustom(
          data,
          CustomLoss.differentiate((batch) => ({
            loss: Vector.total(
              batch.map(({ datum, logprobs }) =>
                logprobs.mul(Vector.constant(datum.lossFnInputs["weights"]?.data ?? [])).neg()
              )
            )
          }))
        )
      assert.strictEqual(yield* after(differentiated), builtIn)
    })
  )

  it.live("with a loss that the service does not have, which falls", () =>
    Effect.gen(function* () {
      const client = yield* create
      const [data = []] = batches
      // How far each token's log-probability is from -1.
      const loss = CustomLoss.differentiate((batch) => ({
        loss: Vector.total(batch.map(({ logprobs }) => logprobs.add(1).square()))
      }))
      const losses: Array<number> = []
      for (let step = 0; step < 12; step++) {
        const pass = yield* client.forwardBackwardCustom(bare(data), loss)
        const update = yield* client.optimStep({ learningRate: 0.05 })
        losses.push((yield* pass.result).loss)
        yield* update.result
      }
      assert.isBelow(losses.at(-1) ?? 0, (losses[0] ?? 0) * 0.7)
    }).pipe(Effect.scoped, served())
  )

  it.live("the same however a batch is cut into requests, compressed or not", () =>
    Effect.gen(function* () {
      const whole = yield* after(crossEntropy)
      for (const clientConfig of [
        { fwdbwd_max_chunk_len: 1 },
        { fwdbwd_max_chunk_len: 1, parallel_fwdbwd_chunks: false },
        { fwdbwd_max_chunk_bytes_count: 300, proto_compress_fwdbwd: true },
        { fwdbwd_max_chunk_len: 1, fwdbwd_dispatch_bytes_semaphore_size: 1, inflight_response_bytes_semaphore_size: 1 }
      ]) {
        assert.strictEqual(yield* after(crossEntropy, { clientConfig }), whole, JSON.stringify(clientConfig))
      }
    })
  )

  it.live.each<[TrainingClient.LossFn]>([["importance_sampling"], ["ppo"], ["cispo"], ["dro"]])(
    "with each loss: %s",
    ([loss]) =>
      Effect.gen(function* () {
        const client = yield* create
        const [data = []] = batches
        const sampled = yield* (yield* client.forward(data, { loss: "cross_entropy" })).result
        const scored = yield* Effect.forEach(data, (datum, i) => {
          const logprobs = sampled.lossFnOutputs[i]?.["logprobs"] ?? TensorData.float32([])
          return Datum.make({
            modelInput: datum.modelInput,
            lossFnInputs: {
              target_tokens: datum.lossFnInputs["target_tokens"] ?? [],
              logprobs,
              advantages: Array.from(logprobs.data, (_, at) => weightOf(datum, at))
            }
          })
        })
        const lossConfig: Record<string, number> = loss === "dro" ? { beta: 0.05 } : {}
        const before = yield* stateHash(client)
        const pass = yield* client.forwardBackward(scored, { loss, lossConfig })
        const update = yield* client.optimStep({ learningRate: 0.002 })
        const output = yield* pass.result
        yield* update.result
        assert.notStrictEqual(yield* stateHash(client), before)
        assert.isTrue(Number.isFinite(output.metrics["loss:sum"]))
        assert.strictEqual(output.lossFnOutputs.length, data.length)
        // All advantages are good, so what was sampled becomes likelier.
        const now = yield* (yield* client.forward(data, { loss: "cross_entropy" })).result
        assert.isBelow(now.metrics["loss:sum"] ?? 0, sampled.metrics["loss:sum"] ?? 0)
      }).pipe(Effect.scoped, served())
  )

  it.live("a loss's setting that is a text arrives as one, and these losses have none", () =>
    Effect.gen(function* () {
      const client = yield* create
      const pass = yield* client.forward(batches[0] ?? [], {
        loss: "cross_entropy",
        lossConfig: { steps: 3, mode: "strict" }
      })
      const { reason } = yield* Effect.flip(pass.result)
      assert.strictEqual(reason._tag === "RequestFailed" && reason.category, "user")
      assert.include(reason.message, 'setting mode of cross_entropy is "strict", no number')
    }).pipe(Effect.scoped, served())
  )

  it.live("several targets for each position, dense or sparse", () =>
    Effect.gen(function* () {
      const client = yield* create
      const tokens = [5, 6, 7]
      const rows = tokens.map((token) => [token + 1, ...Array.from({ length: 7 }, () => 0)])
      const weights = tokens.map(() => [1, ...Array.from({ length: 7 }, () => 0)])
      const flat = (matrix: ReadonlyArray<ReadonlyArray<number>>) => ({ data: matrix.flat(), shape: [3, 8] })
      const dense = yield* Datum.make({ tokens, lossFnInputs: { target_tokens: rows, weights } })
      const sparse = yield* Datum.make({
        tokens,
        lossFnInputs: {
          target_tokens: { dtype: "int64", ...flat(rows) },
          weights: { dtype: "float32", ...flat(weights) }
        }
      })
      assert.isUndefined(dense.lossFnInputs["weights"]?.csr)
      assert.isDefined(sparse.lossFnInputs["weights"]?.csr)
      const single = yield* Datum.make({ tokens, lossFnInputs: { target_tokens: [6, 7, 8], weights: [1, 1, 1] } })
      const losses = yield* Effect.forEach([single, dense, sparse], (datum) =>
        Effect.flatMap(client.forward([datum], { loss: "cross_entropy" }), ({ result }) =>
          Effect.map(result, ({ metrics }) => metrics["loss:sum"] ?? Number.NaN)
        )
      )
      assert.approximately(losses[1] ?? 0, losses[0] ?? 1, 1e-5)
      assert.approximately(losses[2] ?? 0, losses[0] ?? 1, 1e-5)
    }).pipe(Effect.scoped, served())
  )

  it.live("and keeps what it trained, in every form", () =>
    Effect.gen(function* () {
      const client = yield* create
      const full = yield* (yield* client.saveState("full", { ttl: "1 hour" })).result
      const thin = yield* (yield* client.saveWeightsForSampler("thin")).result
      const none = yield* (yield* client.saveWeightsEphemeral()).result
      assert.strictEqual(full.path, `tinker://${client.modelId}/weights/full`)
      assert.strictEqual(thin.path, `tinker://${client.modelId}/sampler_weights/thin`)
      assert.match(none.samplingSessionId, /:sample:\d+$/)
      const again = yield* Effect.flip(Effect.flatMap(client.saveState("full"), ({ result }) => result))
      assert.include(["Conflict", "BadRequest", "RequestFailed"], again.reason._tag)
    }).pipe(Effect.scoped, served())
  )
})
