/**
 * The connection to a Tinker service, and the layers that bring the SDK's services together.
 *
 * Building a layer sends nothing; the first request is preceded by what the service wants to be asked first. A setting that
 * cannot work fails the layer with `InvalidConfig`. The key is never part of an error, a log line or a span.
 */
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import { HttpClient } from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as CallLimits from "./internal/callOptions.ts"
import { commandVariable, problemOf as credentialProblem, run as runCommand } from "./internal/credentialCommand.ts"
import * as Http from "./internal/http.ts"
import * as Rest from "./internal/restClient.ts"
import type { Request } from "./internal/request.ts"
import * as Service from "./internal/serviceClient.ts"
import * as Reporter from "./internal/telemetry.ts"
import * as Transport from "./internal/transport.ts"
import { RestClient } from "./RestClient.ts"
import { ServiceClient } from "./ServiceClient.ts"
import { Telemetry } from "./Telemetry.ts"
import { InvalidConfig, TinkerError } from "./TinkerError.ts"
import * as Header from "./wire/Headers.ts"

/** Where the public service is. */
export const defaultBaseUrl = "https://tinker.thinkingmachines.dev/services/tinker-prod"

export interface TinkerOptions {
  /** `tml-…`, or a JWT (`eyJ…`). Without one, `credentialCommand` prints it. */
  readonly apiKey?: Redacted.Redacted | string | undefined
  /**
   * A shell command that prints a key. Where a key is given too, it runs only for services that want it for the exchange of
   * tokens. What it prints is used for 5 minutes, or until a minute before its end where it is a JWT.
   */
  readonly credentialCommand?: string | undefined
  /** A path in it is kept as the prefix of every request. Default: the public service. */
  readonly baseUrl?: string | undefined
  /** Sent with every request to the service, beside the client's own; credentials among them are yours to keep from logs. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** The service token of a Cloudflare Access gateway before the service. */
  readonly cloudflareAccess?:
    | { readonly clientId: string; readonly clientSecret: Redacted.Redacted | string }
    | undefined
  /** Limit of one try of a request that has no limit of its own. Default 60 seconds. */
  readonly timeout?: Duration.Input | undefined
  /** How long one request may be sent again for want of a good answer, pauses for billing not counted. Default 5 minutes. */
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
  /**
   * Whether to tell the service how a session begins and ends and which errors it meets; see `Telemetry`. Default here: no.
   * `layerConfig` does as the official client and tells, unless `TINKER_TELEMETRY` is set to anything but 1, true, yes or on;
   * set to nothing, it is off.
   */
  readonly telemetry?: boolean | undefined
}

/** How the connection was set up; the key is not part of it. */
export interface Settings {
  readonly baseUrl: string
  readonly timeout: Duration.Duration
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
  ): Layer.Layer<Tinker | ServiceClient | RestClient | Telemetry, TinkerError, HttpClient> =>
    Layer.effectContext(connect(options))

  /**
   * The same with fetch and the environment: `TINKER_API_KEY` or `TINKER_CREDENTIAL_CMD` (one of them is required),
   * `TINKER_BASE_URL`, `TINKER_PROJECT_ID`, `TINKER_TAGS` (separated by commas), `TINKER_TELEMETRY`,
   * `CLOUDFLARE_ACCESS_CLIENT_ID` and `CLOUDFLARE_ACCESS_CLIENT_SECRET`. An empty variable counts as unset, and
   * an empty `TINKER_TELEMETRY` as no; what is given here wins.
   */
  static readonly layerConfig = (
    options: Partial<TinkerOptions> = {}
  ): Layer.Layer<Tinker | ServiceClient | RestClient | Telemetry, TinkerError> =>
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
  const credentialCommand = options.credentialCommand ?? (yield* read(commandVariable))
  if (apiKey === undefined && credentialCommand === undefined) {
    const problem = `is not set; it is the key of your account, tml-…, or let ${commandVariable} print one`
    return yield* invalid("TINKER_API_KEY", problem)
  }
  const clientId = yield* read("CLOUDFLARE_ACCESS_CLIENT_ID")
  const clientSecret = yield* read("CLOUDFLARE_ACCESS_CLIENT_SECRET")
  const tells = yield* wantsTelemetry
  const tags = options.tags ?? (yield* read("TINKER_TAGS"))?.split(",")
  return {
    ...options,
    apiKey,
    credentialCommand,
    cloudflareAccess:
      options.cloudflareAccess ??
      (clientId === undefined || clientSecret === undefined ? undefined : { clientId, clientSecret }),
    telemetry: options.telemetry ?? tells,
    baseUrl: options.baseUrl ?? (yield* read("TINKER_BASE_URL")),
    projectId: options.projectId ?? (yield* read("TINKER_PROJECT_ID")),
    tags: tags?.map((tag) => tag.trim()).filter((tag) => tag !== "")
  }
})

/** Configuration has no empty texts, so whether a variable without one is there is asked of the names that begin alike. */
const wantsTelemetry = Effect.gen(function* () {
  const provider = yield* ConfigProvider.ConfigProvider
  const told = yield* Config.option(Config.String("TINKER_TELEMETRY"))
  if (Option.isSome(told)) return /^(?:1|true|yes|on)$/i.test(told.value.trim())
  const names = yield* provider.load(["TINKER"])
  return !(names?._tag === "Record" && names.keys.has("TELEMETRY"))
  // What cannot be read is not consent.
}).pipe(Effect.orElseSucceed(() => false))

const connect = Effect.fnUntraced(function* (options: TinkerOptions) {
  const { credentialCommand } = options
  const apiKey = options.apiKey === undefined ? undefined : yield* checkKey(options.apiKey)
  if (apiKey === undefined && credentialCommand === undefined) {
    return yield* invalid("apiKey", "is missing; give it, or a credentialCommand that prints it")
  }
  if (credentialCommand?.trim() === "") return yield* invalid("credentialCommand", "is empty")
  const access = options.cloudflareAccess
  const accessSecret = access === undefined ? undefined : plain(access.clientSecret)
  const config: Settings = {
    baseUrl: yield* checkUrl(options.baseUrl || defaultBaseUrl),
    timeout: yield* checkDuration("timeout", options.timeout ?? "60 seconds"),
    deadline: yield* checkDuration("deadline", options.deadline ?? "5 minutes"),
    pollTolerance: yield* checkDuration("pollTolerance", options.pollTolerance ?? "5 minutes"),
    heartbeat: yield* checkDuration("heartbeat", options.heartbeat ?? "10 seconds")
  }
  const headers = yield* checkHeaders({
    ...options.headers,
    ...(access === undefined
      ? {}
      : { [Header.cloudflareId]: access.clientId, [Header.cloudflareSecret]: accessSecret ?? "" })
  })
  const secrets = new Set([apiKey ?? "", accessSecret ?? ""].filter((secret) => secret !== ""))
  const scope = yield* Effect.scope
  const client = yield* HttpClient
  const transport = Transport.make({
    http: Http.make(client, config.baseUrl, secrets),
    open: Http.opener(client),
    apiKey,
    command: credentialCommand === undefined ? undefined : runCommand(credentialCommand),
    secrets,
    headers,
    timeoutMillis: Duration.toMillis(config.timeout),
    deadlineMillis: Duration.toMillis(config.deadline),
    scope
  })
  const { request } = transport
  const rest = Rest.make(transport)
  const reporter = options.telemetry === true ? yield* Reporter.make(transport) : Reporter.silent
  transport.onFailure(reporter.telemetry.error)
  const service = yield* Service.make({
    transport,
    rest,
    reporter,
    tags: [...new Set(options.tags)],
    userMetadata: options.userMetadata ?? {},
    projectId: options.projectId || undefined,
    heartbeatMillis: Duration.toMillis(config.heartbeat),
    toleranceMillis: Duration.toMillis(config.pollTolerance)
  })
  return Context.make(Tinker, { config, request }).pipe(
    Context.add(ServiceClient, service),
    Context.add(RestClient, rest),
    Context.add(Telemetry, reporter.telemetry)
  )
})

const plain = (secret: Redacted.Redacted | string): string =>
  typeof secret === "string" ? secret : Redacted.value(secret)

const checkKey = (given: Redacted.Redacted | string): Effect.Effect<string, TinkerError> => {
  const key = plain(given)
  if (key === "")
    return Effect.fail(invalid("apiKey", "is empty; set TINKER_API_KEY to the key of your account, tml-…"))
  const problem = credentialProblem(key)
  return problem === undefined ? Effect.succeed(key) : Effect.fail(invalid("apiKey", problem))
}

const checkHeaders = (given: Record<string, string>): Effect.Effect<Record<string, string>, TinkerError> =>
  CallLimits.parse("connect", { headers: given }).pipe(
    Effect.map(({ headers = {} }) => headers),
    Effect.mapError(({ reason }) =>
      reason._tag === "InvalidInput"
        ? invalid(reason.field.replace("options.", ""), reason.problem)
        : new TinkerError({ reason })
    )
  )

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
