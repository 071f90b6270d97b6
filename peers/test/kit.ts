/** Our SDK as the tests of foreign servers use it. */
import { NodeHttpClient, NodeServices } from "@effect/platform-node"
import { Datum, ModelInput, RestClient, ServiceClient, TensorData, Tinker, type TrainingClient } from "@tinkex/tinker"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import { Effect, Layer, Result, type Scope } from "effect"
import type { HttpClient } from "effect/http/HttpClient"
import { assert } from "vitest"

export const bytes = (text: string): ReadonlyArray<number> => Array.from(new TextEncoder().encode(text))

export const weighted = (text: string): Datum.Datum => {
  const tokens = bytes(text)
  return {
    modelInput: ModelInput.fromTokens(tokens.slice(0, -1)),
    lossFnInputs: {
      target_tokens: TensorData.int64(tokens.slice(1)),
      weights: TensorData.float32(new Float32Array(tokens.length - 1).fill(1))
    }
  }
}

/** Of one length, so that a server which compiles for shapes does so once. */
const words = ["hello world", "quick brown", "lazy doggos", "over jumped"]
export const batch = (step: number): ReadonlyArray<Datum.Datum> =>
  [0, 1].map((row) => weighted(words[(step + row) % words.length] ?? ""))

export type Options = Partial<Parameters<typeof Tinker.layer>[0]>
type Services = Tinker | ServiceClient | RestClient

/** One connection for everything: what comes next is on it as soon as it is free. */
export const oneSocket = NodeHttpClient.layerUndiciOptions({ connections: 1 })

export const connected = (
  url: string,
  options: Options = {},
  http: Layer.Layer<HttpClient> = NodeHttpClient.layerUndici
): Layer.Layer<Services, TinkerError> =>
  Tinker.layer({ apiKey: "tml-peer", baseUrl: url, heartbeat: "2 seconds", deadline: "30 seconds", ...options }).pipe(
    Layer.provide(http)
  )

/** Runs a program on a connection of its own. */
export const using = <A, E>(
  url: string,
  program: Effect.Effect<A, E, Services | Scope.Scope>,
  options: Options = {},
  http?: Layer.Layer<HttpClient>
): Promise<A> =>
  Effect.runPromise(
    program.pipe(Effect.scoped, Effect.provide(connected(url, options, http)), Effect.provide(NodeServices.layer))
  )

const adam = { learningRate: 0.01 }

/** What a pass gave, to the bit. */
export const logprobsOf = ({ lossFnOutputs }: TrainingClient.ForwardBackwardOutput) =>
  lossFnOutputs.map(({ logprobs }) => Array.from(logprobs?.data ?? [], Number))

/** A step of the lineage, awaited. */
export const step = Effect.fnUntraced(function* (client: TrainingClient.TrainingClient, at: number) {
  const pass = yield* client.forwardBackward(batch(at), { loss: "cross_entropy" })
  const update = yield* client.optimStep(adam)
  const logprobs = logprobsOf(yield* pass.result)
  return { logprobs, metrics: (yield* update.result).metrics }
})

export const steps = (client: TrainingClient.TrainingClient, from: number, to: number) =>
  Effect.forEach(
    Array.from({ length: to - from }, (_, i) => from + i),
    (at) => step(client, at)
  )

export const save = (client: TrainingClient.TrainingClient, name: string) =>
  Effect.flatMap(client.saveState(name), (future) => Effect.map(future.result, ({ path }) => path))

/** The error of a program that has to fail, and how long it took to, in seconds. */
export const failure = <A, E, R>(program: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const began = performance.now()
    return Effect.map(Effect.result(program), (result) => {
      assert.isTrue(Result.isFailure(result), "it did not fail")
      if (!Result.isFailure(result)) throw new Error("it did not fail")
      return { error: result.failure, seconds: (performance.now() - began) / 1000 }
    })
  })
