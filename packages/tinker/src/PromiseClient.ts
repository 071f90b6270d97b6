/**
 * The SDK for programs without Effect: promises, async iterables, `AbortSignal`, plain values. `@tinkex/tinker/promise`.
 *
 * It is the same client with the same guarantees; see `TrainingClient`, `SamplingClient` and `RestClient` for what each call does.
 * Calls take the same arguments, and a `signal` among their last options. They reject with `TinkerError` (`error.reason._tag`
 * says why, `error.isRetryable` whether to try again), or with the signal's reason when it is aborted. Where the Effect API gives
 * an `Option`, a `DateTime` or a `Redacted`, this one gives the value or `undefined`, a `Date`, and the plain text. Operations on
 * a model take their place in the order in which they are called, whether or not anything is awaited. Nothing rejects unheard:
 * an outcome that nobody asks for is dropped.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import type { HttpClient } from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { QueueState, ApiFuture } from "./ApiFuture.ts"
import type { CallOptions } from "./CallOptions.ts"
import * as CheckpointArchive from "./CheckpointArchive.ts"
import type { CustomLoss } from "./CustomLoss.ts"
import { RestClient } from "./RestClient.ts"
import type * as Sampling from "./SamplingClient.ts"
import type { Sampler } from "./Sampler.ts"
import * as Service from "./ServiceClient.ts"
import { Telemetry } from "./Telemetry.ts"
import { UnparsedTime } from "./Time.ts"
import { Tinker, type TinkerOptions } from "./Tinker.ts"
import { TinkerError, Unsupported } from "./TinkerError.ts"
import type * as Training from "./TrainingClient.ts"
import type { Datum, ModelInput } from "./wire/Datum.ts"

export { TinkerError } from "./TinkerError.ts"

/** What a caller can take back. */
export interface Abortable {
  /** Stops the wait, and the request where it has not been sent. What the service has accepted goes on there. */
  readonly signal?: AbortSignal | undefined
}

/** A value of the Effect API without Effect's types. */
export type Plain<A> =
  A extends Option.Option<infer B>
    ? Plain<B> | undefined
    : A extends DateTime.Utc
      ? Date
      : A extends Redacted.Redacted<infer B>
        ? B
        : A extends UnparsedTime
          ? UnparsedTime
          : A extends ReadonlyMap<unknown, unknown>
            ? A
            : A extends ReadonlyArray<infer B>
              ? ReadonlyArray<Plain<B>>
              : A extends object
                ? { readonly [K in keyof A]: Plain<A[K]> }
                : A

/** Arguments whose last one, the options, may hold a signal. */
type WithSignal<A extends ReadonlyArray<unknown>> =
  Required<A> extends readonly [...infer Head, infer Last]
    ? A extends Required<A>
      ? [...Head, Last & Abortable]
      : [...Head, ((Last & Abortable) | undefined)?]
    : A

/** A call of the Effect API as a function that gives a promise, or an async iterable. */
type Promised<F> = F extends (...args: infer A) => Effect.Effect<infer R, infer _E>
  ? (...args: WithSignal<A>) => Promise<Plain<R>>
  : F extends (...args: infer A) => Stream.Stream<infer R, infer _E>
    ? (...args: WithSignal<A>) => AsyncIterable<Plain<R>>
    : never

/** All calls of `RestClient`, but for the one whose sink is an Effect. */
export type Rest = {
  readonly [K in Exclude<keyof RestClient["Service"], "readCheckpointArchive">]: Promised<RestClient["Service"][K]>
}

/** An operation that has its place in the order of its model. `await` it for its result. */
export interface Operation<A> extends PromiseLike<A> {
  /** The service has accepted it: one id for each request that the call was split into. */
  readonly accepted: (options?: Abortable) => Promise<ReadonlyArray<string>>
  /** Any number of times, always the same. Aborting the wait leaves the operation as it is. */
  readonly result: (options?: Abortable) => Promise<A>
  /** What the service says while it is not done; ends with the result. */
  readonly queueState: () => AsyncIterable<QueueState>
}

export interface TrainingClient {
  readonly modelId: string
  readonly sessionId: string
  readonly forwardBackward: (
    data: ReadonlyArray<Datum>,
    options: Training.LossOptions
  ) => Operation<Training.ForwardBackwardOutput>
  readonly forward: (
    data: ReadonlyArray<Datum>,
    options: Training.LossOptions
  ) => Operation<Training.ForwardBackwardOutput>
  /** `loss` may also be asynchronous by way of an Effect. */
  readonly forwardBackwardCustom: (
    data: ReadonlyArray<Datum>,
    loss: CustomLoss<never, never>,
    options?: CallOptions & Abortable
  ) => Promise<Training.CustomOutput>
  readonly optimStep: (params: Training.OptimizerParams, options?: CallOptions) => Operation<Training.OptimStepResult>
  readonly saveState: (name: string, options?: Training.SaveStateOptions) => Operation<Training.SaveResult>
  readonly saveWeightsForSampler: (name: string, options?: Training.SaveOptions) => Operation<Training.SaveResult>
  readonly loadState: (path: string, options: Training.LoadOptions) => Operation<Plain<Training.LoadResult>>
  readonly info: (options?: CallOptions & Abortable) => Promise<Plain<Training.ModelInfo>>
  /** Frees the model on the service and ends this client. */
  readonly unload: (options?: CallOptions & Abortable) => Promise<void>
  /** Resolves, never rejects, with the first thing that ends this client or leaves its state in doubt. */
  readonly failure: (options?: Abortable) => Promise<TinkerError>
  /** From now on nothing is sent. */
  readonly fence: (why: string) => Promise<void>
  /** Ends this client and leaves its model on the service. */
  readonly close: () => Promise<void>
  /** The client that this one stands on. */
  readonly effect: Training.TrainingClient
}

/** What came of one of many prompts: a result or an error. */
export type Sampled =
  | { readonly index: number; readonly prompt: ModelInput; readonly response: Sampling.SampleResponse }
  | { readonly index: number; readonly prompt: ModelInput; readonly error: TinkerError }

export interface SamplingClient {
  readonly samplingSessionId: string
  readonly handle: Sampling.SamplingHandle
  readonly sample: (
    prompt: ModelInput,
    options?: Sampling.SampleOptions & Abortable
  ) => Promise<Sampling.SampleResponse>
  /** Results as they are ready; a prompt that fails stops nothing. */
  readonly sampleAll: (
    prompts: Iterable<ModelInput>,
    options?: Sampling.SampleAllOptions & Abortable
  ) => AsyncIterable<Sampled>
  readonly computeLogprobs: (
    prompt: ModelInput,
    options?: CallOptions & Abortable
  ) => Promise<ReadonlyArray<number | undefined>>
  readonly queueState: (options?: Abortable) => AsyncIterable<QueueState>
  readonly info: (options?: CallOptions & Abortable) => Promise<Plain<Sampler>>
}

/** The weights to draw from. */
export type SamplingSource =
  | Exclude<Sampling.SamplingSource, { readonly weightsOf: unknown }>
  | { readonly weightsOf: TrainingClient }

/** A connection to the service. Close it, or `await using` it, when it is not needed any more. */
export interface Client extends AsyncDisposable {
  readonly rest: Rest
  readonly createLoraTrainingClient: (options: Service.LoraOptions & Abortable) => Promise<TrainingClient>
  readonly createTrainingClientFromState: (
    path: string,
    options: Service.FromStateOptions & Abortable
  ) => Promise<TrainingClient>
  readonly attachTrainingClient: (options: Service.AttachOptions & Abortable) => Promise<TrainingClient>
  readonly createSamplingClient: (
    options: SamplingSource & Sampling.SamplerSettings & Abortable
  ) => Promise<SamplingClient>
  /** `ServiceClient.copyWeights`. */
  readonly copyWeights: (path: string, options?: Service.CopyOptions & Abortable) => Promise<string>
  /** `ServiceClient.finishSession`. */
  readonly finishSession: (options?: Service.FinishOptions & Abortable) => Promise<boolean>
  /** The id of the current session. */
  readonly session: (options?: Abortable) => Promise<string>
  /** `CheckpointArchive.download`. On Node, with the optional package `@effect/platform-node`, unless files were given. */
  readonly downloadCheckpoint: (
    path: string,
    directory: string,
    options?: CheckpointArchive.FolderOptions & Abortable
  ) => Promise<Plain<CheckpointArchive.Contents>>
  /** Resolves when what waits for the service is sent, or 30 seconds have passed. */
  readonly flushTelemetry: () => Promise<boolean>
  /** Ends all clients of this connection and its sessions' heartbeats; their models stay until the service unloads them. */
  readonly close: () => Promise<void>
}

export interface ConnectOptions extends Partial<TinkerOptions> {
  /** In place of fetch. The environment is then not read. What it fails with, `connect` rejects with. */
  readonly http?: Layer.Layer<HttpClient, unknown> | undefined
  /** Where archives are written. Default: the disk, through `@effect/platform-node`. */
  readonly files?: Layer.Layer<FileSystem.FileSystem | Path.Path, unknown> | undefined
}

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype

/** The types above say what this does. */
const plain = (value: unknown): unknown => {
  if (Option.isOption(value)) return Option.isSome(value) ? plain(value.value) : undefined
  if (DateTime.isDateTime(value)) return DateTime.toDateUtc(value)
  if (Redacted.isRedacted(value)) return Redacted.value(value)
  if (Array.isArray(value)) return value.map(plain)
  if (!isPlainObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, plain(field)]))
}

const abortReason = (signal: AbortSignal): unknown => signal.reason

/** What runs effects for one connection. */
const runner = (context: Context.Context<never>) => {
  const promise = <A, E>(effect: Effect.Effect<A, E>, signal: AbortSignal | undefined): Promise<A> => {
    if (signal?.aborted === true) return Promise.reject(abortReason(signal))
    return Effect.runPromiseExitWith(context)(effect, signal === undefined ? undefined : { signal }).then((exit) => {
      if (Exit.isSuccess(exit)) return exit.value
      // What else failed is not what the caller has to know.
      if (signal?.aborted === true && Cause.hasInterrupts(exit.cause)) throw abortReason(signal)
      throw Cause.squash(exit.cause)
    })
  }

  const iterable = <A, E>(stream: Stream.Stream<A, E>, signal: AbortSignal | undefined): AsyncIterable<A> => {
    if (signal === undefined) return Stream.toAsyncIterableWith(stream, context)
    const aborted = Effect.callback<never, unknown>((resume) => {
      const abort = () => resume(Effect.fail(abortReason(signal)))
      if (signal.aborted) return abort()
      signal.addEventListener("abort", abort, { once: true })
      return Effect.sync(() => signal.removeEventListener("abort", abort))
    })
    return Stream.toAsyncIterableWith(Stream.interruptWhen(stream, aborted), context)
  }

  return {
    promise,
    iterable,
    fork: <A, E>(effect: Effect.Effect<A, E>) => Effect.runForkWith(context)(effect)
  }
}

type Runner = ReturnType<typeof runner>

const signalIn = (args: ReadonlyArray<unknown>): AbortSignal | undefined => {
  const last = args.at(-1)
  return isPlainObject(last) && last.signal instanceof AbortSignal ? last.signal : undefined
}

const promisedRest = (run: Runner, rest: RestClient["Service"]): Rest => {
  const wrap =
    (call: (...args: ReadonlyArray<never>) => unknown) =>
    (...args: ReadonlyArray<unknown>) => {
      const signal = signalIn(args)
      // The mapped type `Rest` has checked the arguments, and what comes back is what its members say.
      const given = call(...(args as ReadonlyArray<never>))
      return Effect.isEffect(given)
        ? run.promise(Effect.map(given as Effect.Effect<unknown, TinkerError>, plain), signal)
        : run.iterable(Stream.map(given as Stream.Stream<unknown, TinkerError>, plain), signal)
    }
  return Object.fromEntries(
    Object.entries(rest)
      .filter(([name]) => name !== "readCheckpointArchive")
      .map(([name, call]) => [name, wrap(call)])
  ) as unknown as Rest
}

/** Gets into the line for a place now, and goes on in the background. */
const operation = <A>(run: Runner, submit: Effect.Effect<ApiFuture<A>, TinkerError>): Operation<A> => {
  const submitted = Effect.flatten(Fiber.join(run.fork(Effect.exit(submit))))
  const result = (options: Abortable = {}) =>
    run.promise(
      Effect.flatMap(submitted, (future) => future.result),
      options.signal
    )
  return {
    accepted: (options = {}) =>
      run.promise(
        Effect.map(submitted, (future) => future.requestIds),
        options.signal
      ),
    result,
    queueState: () => run.iterable(Stream.unwrap(Effect.map(submitted, (future) => future.queueState)), undefined),
    then: (onResult, onError) => result().then(onResult, onError)
  }
}

const trainingClient = (run: Runner, client: Training.TrainingClient, scope: Scope.Closeable): TrainingClient => ({
  modelId: client.modelId,
  sessionId: client.sessionId,
  forwardBackward: (data, options) => operation(run, client.forwardBackward(data, options)),
  forward: (data, options) => operation(run, client.forward(data, options)),
  forwardBackwardCustom: (data, loss, options) =>
    run.promise(
      Effect.flatMap(client.forwardBackwardCustom(data, loss, options), (future) => future.result),
      options?.signal
    ),
  optimStep: (params, options) => operation(run, client.optimStep(params, options)),
  saveState: (name, options) => operation(run, client.saveState(name, options)),
  saveWeightsForSampler: (name, options) => operation(run, client.saveWeightsForSampler(name, options)),
  loadState: (path, options) =>
    operation(
      run,
      Effect.map(client.loadState(path, options), (future) => ({
        ...future,
        result: Effect.map(future.result, plain as (loaded: Training.LoadResult) => Plain<Training.LoadResult>)
      }))
    ),
  info: (options) =>
    run.promise(
      Effect.map(client.info(options), plain as (info: Training.ModelInfo) => Plain<Training.ModelInfo>),
      options?.signal
    ),
  unload: (options) => run.promise(client.unload(options), options?.signal),
  failure: (options) => run.promise(client.failure, options?.signal),
  fence: (why) => run.promise(client.fence(why), undefined),
  close: () => run.promise(Scope.close(scope, Exit.void), undefined),
  effect: client
})

const samplingClient = (run: Runner, client: Sampling.SamplingClient): SamplingClient => ({
  samplingSessionId: client.samplingSessionId,
  handle: client.handle,
  sample: (prompt, options) => run.promise(client.sample(prompt, options), options?.signal),
  sampleAll: (prompts, options) =>
    run.iterable(
      Stream.map(client.sampleAll(prompts, options), ({ index, prompt, result }): Sampled =>
        result._tag === "Success"
          ? { index, prompt, response: result.success }
          : { index, prompt, error: result.failure }
      ),
      options?.signal
    ),
  computeLogprobs: (prompt, options) => run.promise(client.computeLogprobs(prompt, options), options?.signal),
  queueState: (options) => run.iterable(client.queueState, options?.signal),
  info: (options) =>
    run.promise(Effect.map(client.info(options), plain as (sampler: Sampler) => Plain<Sampler>), options?.signal)
})

const disk = Effect.tryPromise({
  try: () => import("@effect/platform-node/NodeServices"),
  catch: (cause) =>
    new TinkerError({
      reason: new Unsupported({
        feature: "Downloading to a folder",
        problem: `the package @effect/platform-node cannot be loaded (${String(cause)}); npm install @effect/platform-node`
      })
    })
}).pipe(Effect.map(({ layer }): Layer.Layer<FileSystem.FileSystem | Path.Path> => layer))

/**
 * Opens a connection: settings from the options, and what they leave open from the environment, as `Tinker.layerConfig` has it.
 * Sends nothing by itself. Rejects with `InvalidConfig` for a setting that cannot work.
 */
export const connect = async (options: ConnectOptions = {}): Promise<Client> => {
  const { files, http, ...settings } = options
  const layer = http === undefined ? Tinker.layerConfig(settings) : Tinker.layer(settings).pipe(Layer.provide(http))
  const scope = Scope.makeUnsafe()
  const context = await runner(Context.empty()).promise(Layer.buildWithScope(layer, scope), undefined)
  const run = runner(context)
  const service = Context.get(context, Service.ServiceClient)

  /** Each client ends by itself, or with the connection. */
  const trained = async (
    make: Effect.Effect<Training.TrainingClient, TinkerError, Scope.Scope>,
    signal: AbortSignal | undefined
  ) => {
    const own = await run.promise(Scope.fork(scope), undefined)
    const made = Effect.onError(Scope.provide(make, own), (cause) => Scope.close(own, Exit.failCause(cause)))
    return trainingClient(run, await run.promise(made, signal), own)
  }

  const close = () => run.promise(Scope.close(scope, Exit.void), undefined)
  return {
    rest: promisedRest(run, Context.get(context, RestClient)),
    createLoraTrainingClient: (given) => trained(service.createLoraTrainingClient(given), given.signal),
    createTrainingClientFromState: (path, given) =>
      trained(service.createTrainingClientFromState(path, given), given.signal),
    attachTrainingClient: (given) => trained(service.attachTrainingClient(given), given.signal),
    createSamplingClient: async (given) => {
      const source = "weightsOf" in given ? { ...given, weightsOf: given.weightsOf.effect } : given
      return samplingClient(run, await run.promise(service.createSamplingClient(source), given.signal))
    },
    finishSession: (given) => run.promise(service.finishSession(given), given?.signal),
    copyWeights: (path, given) => run.promise(service.copyWeights(path, given), given?.signal),
    session: (given) => run.promise(service.session, given?.signal),
    downloadCheckpoint: (path, directory, given) =>
      run.promise(
        Effect.flatMap(files === undefined ? disk : Effect.succeed(files), (layer) =>
          CheckpointArchive.download(path, directory, given).pipe(
            Effect.map(plain as (contents: CheckpointArchive.Contents) => Plain<CheckpointArchive.Contents>),
            Effect.provide(layer),
            Effect.provideContext(context)
          )
        ),
        given?.signal
      ),
    flushTelemetry: () => run.promise(Context.get(context, Telemetry).flush(), undefined),
    close,
    [Symbol.asyncDispose]: close
  }
}
