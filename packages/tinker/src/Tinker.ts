/**
 * The connection to a Tinker service, and the layers that bring the SDK's services together.
 *
 * Building a layer sends nothing; the first request is preceded by what the service wants to be asked first. A setting that
 * cannot work fails the layer with `InvalidConfig`. The key is never part of an error, a log line or a span.
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import { HttpClient } from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Http from "./internal/http.ts"
import type { Request } from "./internal/request.ts"
import * as Service from "./internal/serviceClient.ts"
import * as Transport from "./internal/transport.ts"
import * as Rest from "./RestClient.ts"
import { ServiceClient } from "./ServiceClient.ts"
import { InvalidConfig, TinkerError } from "./TinkerError.ts"

/** Where the public service is. */
export const defaultBaseUrl = "https://tinker.thinkingmachines.dev/services/tinker-prod"

export interface TinkerOptions {
  /** `tml-…`, or a JWT (`eyJ…`). */
  readonly apiKey: Redacted.Redacted | string
  /** A path in it is kept as the prefix of every request. Default: the public service. */
  readonly baseUrl?: string | undefined
  /** How long one operation may be sent again for want of a good answer. Default 5 minutes. */
  readonly deadline?: Duration.Input | undefined
  /** How long the result of an accepted operation may be asked for without any good answer. Default 5 minutes. */
  readonly pollTolerance?: Duration.Input | undefined
  /** Between two heartbeats of a session. Default 10 seconds; services unload models after missed ones. */
  readonly heartbeat?: Duration.Input | undefined
  /** The project that sessions are booked on. */
  readonly projectId?: string | undefined
  /** Labels of the sessions. */
  readonly tags?: ReadonlyArray<string> | undefined
  readonly userMetadata?: Record<string, string> | undefined
}

/** How the connection was set up; the key is not part of it. */
export interface Settings {
  readonly baseUrl: string
  readonly deadline: Duration.Duration
  readonly pollTolerance: Duration.Duration
  readonly heartbeat: Duration.Duration
}

/** The connection's settings and the one way to send anything. */
export class Tinker extends Context.Service<Tinker, { readonly config: Settings; readonly request: Request }>()(
  "@tinkex/tinker/Tinker"
) {
  /** All services of the SDK over any HTTP client. */
  static readonly layer = (
    options: TinkerOptions
  ): Layer.Layer<Tinker | ServiceClient | Rest.RestClient, TinkerError, HttpClient> =>
    Layer.effectContext(connect(options))

  /**
   * The same with fetch and the environment: `TINKER_API_KEY` (required), `TINKER_BASE_URL`, `TINKER_PROJECT_ID`,
   * `TINKER_TAGS` (separated by commas). An empty variable counts as unset; what is given here wins.
   */
  static readonly layerConfig = (
    options: Partial<TinkerOptions> = {}
  ): Layer.Layer<Tinker | ServiceClient | Rest.RestClient, TinkerError> =>
    Layer.unwrap(Effect.map(fromEnvironment(options), Tinker.layer)).pipe(Layer.provide(FetchHttpClient.layer))
}

const invalid = (field: string, problem: string) => new TinkerError({ reason: new InvalidConfig({ field, problem }) })

const fromEnvironment = Effect.fnUntraced(function* (options: Partial<TinkerOptions>) {
  const read = (name: string) =>
    Config.option(Config.String(name)).pipe(
      Effect.map((value) => Option.getOrUndefined(Option.filter(value, (text) => text.trim() !== ""))),
      // Whatever its message says, it may quote the value.
      Effect.mapError(() => invalid(name, "cannot be read from the environment"))
    )
  const apiKey = options.apiKey ?? (yield* read("TINKER_API_KEY"))
  if (apiKey === undefined) return yield* invalid("TINKER_API_KEY", "is not set; it is the key of your account, tml-…")
  const tags = options.tags ?? (yield* read("TINKER_TAGS"))?.split(",")
  return {
    ...options,
    apiKey,
    baseUrl: options.baseUrl ?? (yield* read("TINKER_BASE_URL")),
    projectId: options.projectId ?? (yield* read("TINKER_PROJECT_ID")),
    tags: tags?.map((tag) => tag.trim()).filter((tag) => tag !== "")
  }
})

const connect = Effect.fnUntraced(function* (options: TinkerOptions) {
  const apiKey = yield* checkKey(options.apiKey)
  const config: Settings = {
    baseUrl: yield* checkUrl(options.baseUrl || defaultBaseUrl),
    deadline: yield* checkDuration("deadline", options.deadline ?? "5 minutes"),
    pollTolerance: yield* checkDuration("pollTolerance", options.pollTolerance ?? "5 minutes"),
    heartbeat: yield* checkDuration("heartbeat", options.heartbeat ?? "10 seconds")
  }
  const secrets = new Set([apiKey])
  const transport = Transport.make({
    http: Http.make(yield* HttpClient, config.baseUrl, secrets),
    apiKey,
    secrets,
    deadlineMillis: Duration.toMillis(config.deadline)
  })
  const { request } = transport
  const rest = Rest.make(request)
  const service = yield* Service.make({
    transport,
    rest,
    tags: [...new Set(options.tags)],
    userMetadata: options.userMetadata ?? {},
    projectId: options.projectId || undefined,
    heartbeatMillis: Duration.toMillis(config.heartbeat),
    toleranceMillis: Duration.toMillis(config.pollTolerance)
  })
  return Context.make(Tinker, { config, request }).pipe(
    Context.add(ServiceClient, service),
    Context.add(Rest.RestClient, rest)
  )
})

const checkKey = (given: Redacted.Redacted | string): Effect.Effect<string, TinkerError> => {
  const key = typeof given === "string" ? given : Redacted.value(given)
  if (key === "")
    return Effect.fail(invalid("apiKey", "is empty; set TINKER_API_KEY to the key of your account, tml-…"))
  if (!/^(?:tml-|eyJ)./.test(key)) {
    return Effect.fail(invalid("apiKey", "must begin with tml- (an API key) or eyJ (a JWT)"))
  }
  // A header cannot carry it, and the error of the platform would quote it.
  if (!/^[\x21-\x7e]+$/.test(key)) {
    return Effect.fail(invalid("apiKey", "holds white space or characters that a header cannot carry"))
  }
  return Effect.succeed(key)
}

const checkUrl = (given: string): Effect.Effect<string, TinkerError> => {
  const parsed = Result.try(() => new URL(given))
  const refuse = (problem: string) => Effect.fail(invalid("baseUrl", problem))
  if (Result.isFailure(parsed)) return refuse("is no URL; it should look like https://host/prefix")
  const url = parsed.success
  if (url.protocol !== "https:" && url.protocol !== "http:") return refuse(`must be http or https, not ${url.protocol}`)
  if (url.username !== "" || url.password !== "") return refuse("must not hold a user name or a password")
  if (url.search !== "" || url.hash !== "") return refuse("must not hold a query or a fragment")
  return Effect.succeed(url.origin + url.pathname.replace(/\/+$/, ""))
}

const checkDuration = (field: string, given: Duration.Input): Effect.Effect<Duration.Duration, TinkerError> => {
  const parsed = Duration.fromInput(given)
  return Option.isSome(parsed) && Duration.isFinite(parsed.value) && Duration.toMillis(parsed.value) > 0
    ? Effect.succeed(parsed.value)
    : Effect.fail(invalid(field, `must be a finite duration above 0, such as "30 seconds"`))
}
