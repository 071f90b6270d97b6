/**
 * A Tinker server of one's own: the wire of the real service, a small real language model behind it, and faults on demand.
 *
 * Guaranteed:
 *
 * - **EM1** operations of one model are executed in the order of their `seq_id`, whatever order they arrive in, each once:
 *   the same number with the same payload is answered with the original promise for the life of the model, with another
 *   payload by 409;
 * - **EM2** a save is a snapshot at its place in the sequence; a model that loads it, with the optimizer, has the same
 *   `stateHash`, bit for bit;
 * - **EM3** every fault of the plan fires where it says, as often as it says, and is listed in `control.firedFaults`;
 * - **EM4** a corrupted run is flagged before any client sees an operation of it fail, and stays so;
 * - **EM5** checkpoints, the tables of runs and sessions, and finished results in `directory` outlive the process, also one that
 *   is killed; a result that was not finished answers 410. Models do not, and sessions are over: a request on a model that died
 *   with its process, or with its session, is answered "not loaded";
 * - **EM6** a sample's log-probabilities are those of a forward pass over the same tokens, bit for bit, and the same seed on the
 *   same weights draws the same tokens;
 * - **EM7** whatever is sent is answered below 500, unless the plan says otherwise or an archive is being made, and disturbs
 *   nothing that follows;
 * - **EM8** what a user has is seen and used by nobody else, unless it is published or opened with a token of theirs.
 *
 * Not guaranteed: anything about the real service that is not public. Where its documentation is silent the choice made here
 * is the strict one (numbers are never skipped, a load is a model's first request).
 *
 * Time is the `Clock` service everywhere: long polls, expiry, delays.
 */
import * as NodePath from "node:path"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { CheckpointStore } from "./CheckpointStore.ts"
import type { EmulatorControl } from "./EmulatorControl.ts"
import { EmulatorError, InvalidOption, StorageFailed } from "./EmulatorError.ts"
import * as FaultPlan from "./FaultPlan.ts"
import * as Catalog from "./internal/catalog.ts"
import * as Control from "./internal/control.ts"
import { dispatch } from "./internal/dispatch.ts"
import { anybody } from "./internal/gate.ts"
import * as InProcess from "./internal/inProcessCarrier.ts"
import * as NodeCarrier from "./internal/nodeCarrier.ts"
import type { ApiRequest, Reply } from "./internal/reply.ts"
import * as ResultLog from "./internal/resultLog.ts"
import * as SessionLog from "./internal/sessionLog.ts"
import type { Settings } from "./internal/settings.ts"
import { World } from "./internal/world.ts"
import * as LanguageModel from "./LanguageModel.ts"

/** How to run an emulator. Everything has a default. */
export interface EmulatorOptions {
  /** Address to listen on. Default `127.0.0.1`. */
  readonly host?: string | undefined
  /** Default 0: any free port; read it from `Emulator.url`. */
  readonly port?: number | undefined
  /** Where checkpoints, the table of runs and finished results are kept. Default: in memory, gone with the layer. */
  readonly directory?: string | undefined
  /** What shall go wrong. Default: nothing. */
  readonly faults?: FaultPlan.FaultPlan | undefined
  /** Seed of ids, and of models whose creator gives none. Default 1. */
  readonly seed?: number | undefined
  /**
   * Keys that are let in. Default `"any"` that looks like one (`tml-` or `eyJ` in front). A record gives each key its user:
   * runs, checkpoints and sessions of another user are forbidden unless they are published. Otherwise all keys are one user.
   */
  readonly apiKeys?: "any" | ReadonlyArray<string> | Readonly<Record<string, string>> | undefined
  /** Keys must be exchanged for tokens at `auth/token`, and only a token opens anything else. Default false. */
  readonly tokenExchange?: boolean | undefined
  /** How long a token is good for. Default 1 hour. */
  readonly tokenLifetime?: Duration.Input | undefined
  /** `"none"` answers training operations at once, with zeros: for measuring the protocol. Default `"model"`. */
  readonly compute?: "model" | "none" | undefined
  /**
   * What a `seq_id` is answered with that was used for another request: `"refuse"` (409, the default), or `"original"`, the
   * promise of the first request, as a server does that looks at the number only.
   */
  readonly conflicts?: "refuse" | "original" | undefined
  /** A session without a heartbeat for this long is over, and its models are unloaded. Default 300 seconds. */
  readonly sessionTimeout?: Duration.Input | undefined
  /** How long a poll waits for a result. Default 30 seconds; clients give up after 45, and wait longer and longer after that. */
  readonly longPoll?: Duration.Input | undefined
  /** How long a result can be fetched, again and again; 410 after that. Default 1 hour. */
  readonly resultRetention?: Duration.Input | undefined
  /** How a poll is told that there is no result yet: `"try_again"` in a 200 (the default), or the same as a `"408"`. */
  readonly pendingReply?: "try_again" | "408" | undefined
  /**
   * Results of passes and samples with more bytes than this are first told by their size to polls that allow it. Default 1 MiB.
   */
  readonly metadataOnlyAbove?: number | undefined
  /** Samples that are drawn at the same time; more are refused with 429. Default: any number. */
  readonly samplingCapacity?: number | undefined
  /** How long an archive or a trace takes to be made; until then clients are asked to wait. Default 0. */
  readonly buildTime?: Duration.Input | undefined
  /** How the URL of an archive is given: a `"redirect"` (302, the default) or a `"json"` body. Clients must take both. */
  readonly archiveReply?: "redirect" | "json" | undefined
  /** More names to serve, each with the base model that stands behind it: `{ "Qwen/Qwen3-8B": "tiny/byte-lm-16" }`. */
  readonly models?: Readonly<Record<string, string>> | undefined
  /** Replaces parts of what `client/config` tells clients, in the names of the wire. */
  readonly clientConfig?: Readonly<Record<string, unknown>> | undefined
  /** The same for `client/dynamic_config`. */
  readonly dynamicConfig?: Readonly<Record<string, unknown>> | undefined
  /**
   * The revision of the API that is served, by the version of the official client that brought it. Default `"0.25"`. With
   * `"0.38"` the routes that came later are there as well, as far as they are known; what clients use only where the
   * configuration says so is still off until `clientConfig` or `dynamicConfig` raises its flag.
   */
  readonly api?: "0.25" | "0.38" | undefined
  /** Serve the control plane under `/emulator/v1`. Default: true where `host` is loopback. */
  readonly control?: boolean | undefined
}

const invalid = (option: string, problem: string) =>
  new EmulatorError({ reason: new InvalidOption({ option, problem }) })

const isList = (keys: ReadonlyArray<string> | Readonly<Record<string, string>>): keys is ReadonlyArray<string> =>
  Array.isArray(keys)

const settingsOf = (options: EmulatorOptions): Effect.Effect<Settings, EmulatorError> =>
  Effect.gen(function* () {
    const models = new Map(LanguageModel.baseModels.map(({ name }) => [name, name]))
    for (const [name, base] of Object.entries(options.models ?? {})) {
      if (!LanguageModel.baseModels.some((known) => known.name === base)) {
        const names = LanguageModel.baseModels.map((known) => known.name).join(", ")
        return yield* Effect.fail(invalid("models", `"${base}" is no base model. Use one of ${names}.`))
      }
      models.set(name, base)
    }
    const port = options.port ?? 0
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      return yield* Effect.fail(invalid("port", `${port} is no port. Use 0 to 65535.`))
    }
    const seed = options.seed ?? 1
    if (!Number.isSafeInteger(seed)) return yield* Effect.fail(invalid("seed", `${seed} is no whole number.`))
    const millis = (
      option: "longPoll" | "sessionTimeout" | "resultRetention" | "tokenLifetime" | "buildTime",
      otherwise: Duration.Input
    ) => {
      const given = Duration.fromInput(options[option] ?? otherwise)
      return Option.isSome(given)
        ? Effect.succeed(Duration.toMillis(given.value))
        : Effect.fail(invalid(option, 'it is no duration. Give one such as "30 seconds".'))
    }
    const { apiKeys = "any", metadataOnlyAbove = 1_048_576, samplingCapacity = Number.POSITIVE_INFINITY } = options
    if (!(metadataOnlyAbove >= 0)) {
      return yield* Effect.fail(invalid("metadataOnlyAbove", `${metadataOnlyAbove} is no number of bytes from 0.`))
    }
    if (!(samplingCapacity >= 1)) {
      return yield* Effect.fail(
        invalid("samplingCapacity", `${samplingCapacity} samples would never be drawn. Give 1 or more.`)
      )
    }
    const users =
      apiKeys === "any"
        ? apiKeys
        : new Map(isList(apiKeys) ? apiKeys.map((key) => [key, anybody]) : Object.entries(apiKeys))
    return {
      seed,
      models,
      longPollMillis: yield* millis("longPoll", "30 seconds"),
      sessionTimeoutMillis: yield* millis("sessionTimeout", "300 seconds"),
      retentionMillis: yield* millis("resultRetention", "1 hour"),
      gate: {
        apiKeys: users,
        tokenExchange: options.tokenExchange ?? false,
        tokenMillis: yield* millis("tokenLifetime", "1 hour")
      },
      compute: options.compute ?? "model",
      pendingReply: options.pendingReply ?? "try_again",
      metadataOnlyAbove,
      samplingCapacity,
      buildMillis: yield* millis("buildTime", 0),
      archiveReply: options.archiveReply ?? "redirect",
      conflicts: options.conflicts ?? "refuse",
      api: options.api ?? "0.25",
      clientConfig: options.clientConfig ?? {},
      dynamicConfig: options.dynamicConfig ?? {}
    }
  })

const openStore = (
  directory: string | undefined
): Effect.Effect<CheckpointStore["Service"], EmulatorError, Scope.Scope> => {
  if (directory === undefined) {
    return Effect.map(Layer.build(CheckpointStore.layerMemory), Context.get(CheckpointStore))
  }
  const path = NodePath.join(directory, "checkpoints")
  return Layer.build(Layer.provide(CheckpointStore.layerFileSystem(path), NodeFileSystem.layer)).pipe(
    Effect.map(Context.get(CheckpointStore)),
    Effect.mapError((error) => new EmulatorError({ reason: new StorageFailed({ path, problem: error.message }) }))
  )
}

const isLoopback = (host: string) => host === "localhost" || host === "::1" || host.startsWith("127.")

interface Running {
  readonly control: EmulatorControl
  readonly handle: (request: ApiRequest) => Effect.Effect<Reply>
  readonly wake: Effect.Effect<void>
}

const start = Effect.fnUntraced(function* (
  options: EmulatorOptions
): Effect.fn.Return<Running, EmulatorError, Scope.Scope> {
  const settings = yield* settingsOf(options)
  const { directory, faults: plan = FaultPlan.none } = options
  const catalog = directory === undefined ? Catalog.memory() : yield* Catalog.open(directory)
  const store = yield* openStore(directory)
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const oldest = clock.currentTimeMillisUnsafe() - settings.retentionMillis
  const results = directory === undefined ? ResultLog.none : yield* ResultLog.open(directory, oldest)
  const sessions = directory === undefined ? SessionLog.none : yield* SessionLog.open(directory)
  const world = new World({ settings, catalog, store, plan, clock, scope, results, sessions })

  yield* Control.startTimed(world, plan)
  const untilNext = Effect.suspend(() => Effect.sleep(world.nextExpiry))
  yield* world.background(Effect.forever(Effect.andThen(world.sweep, untilNext)))

  const control = Control.make(world)
  const api = dispatch(world)
  const controlRoute = Control.route(control)
  const exposed = options.control ?? isLoopback(options.host ?? "127.0.0.1")
  return {
    control,
    handle: exposed ? (request) => controlRoute(request) ?? api(request) : api,
    wake: Effect.sync(() => world.futures.wake())
  }
})

/** A running emulator: where it listens, and the view from behind its counter. */
export class Emulator extends Context.Service<
  Emulator,
  {
    /** Base URL for clients, without a slash at the end. */
    readonly url: string
    readonly control: EmulatorControl
  }
>()("@tinkex/emulator/Emulator") {
  /** A real HTTP server, as long as the layer lives. `ListenFailed` if the address cannot be bound. */
  static readonly layer = (options: EmulatorOptions = {}): Layer.Layer<Emulator, EmulatorError> =>
    Layer.effect(
      Emulator,
      Effect.gen(function* () {
        const { control, handle, wake } = yield* start(options)
        const { host = "127.0.0.1", port = 0 } = options
        const { url } = yield* NodeCarrier.serve({ host, port, handle, wake })
        return Emulator.of({ url, control })
      })
    )

  /**
   * The same server without a socket: an `HttpClient` that reaches it in process, at `http://emulator.local`. Nothing waits
   * for real time, so `TestClock` drives everything.
   */
  static readonly layerHttpClient = (
    options: EmulatorOptions = {}
  ): Layer.Layer<Emulator | HttpClient.HttpClient, EmulatorError> =>
    Layer.effectContext(
      Effect.map(start(options), ({ control, handle }) =>
        Context.make(Emulator, Emulator.of({ url: "http://emulator.local", control })).pipe(
          Context.add(HttpClient.HttpClient, InProcess.make(handle))
        )
      )
    )

  /** Runs a server until it is interrupted; `onReady` is told the URL once it listens. */
  static readonly serve = (
    options: EmulatorOptions & { readonly onReady?: ((url: string) => Effect.Effect<void>) | undefined } = {}
  ): Effect.Effect<never, EmulatorError> =>
    Effect.scoped(
      Effect.flatMap(Layer.build(Emulator.layer(options)), (context) =>
        Effect.andThen(options.onReady?.(Context.get(context, Emulator).url) ?? Effect.void, Effect.never)
      )
    )
}
