/** Everything between one call of this package and the service: boot, credential, retries, errors. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { randomUUID } from "node:crypto"
import { BadResponse, BillingPaused, Timeout, TinkerError } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Header from "../wire/Headers.ts"
import * as Json from "../wire/Json.ts"
import * as ByteBudget from "./byteBudget.ts"
import * as CallLimits from "./callOptions.ts"
import * as Credential from "./credential.ts"
import type * as Http from "./http.ts"
import type { Reply, Request, RequestOptions } from "./request.ts"
import * as Status from "./status.ts"

/** The revision of the protocol that this client speaks, as the service wants it named. */
export const protocolVersion = "0.25.0"

export type ClientConfig = typeof Json.ClientConfig.Type
export type DynamicConfig = typeof Json.DynamicConfig.Type

export interface Outgoing {
  readonly operation: string
  readonly endpoint: { readonly method: string; readonly path: string }
  readonly body?: Uint8Array | undefined
  readonly contentType?: string | undefined
  readonly headers?: Record<string, string> | undefined
  /** Default: that of the transport. */
  readonly credential?: string | undefined
  readonly timeoutMillis?: number | undefined
  readonly retries?: "default" | "none" | undefined
  /** How often it may be sent again. Default: up to the deadline. */
  readonly maxRetries?: number | undefined
  /** What the caller allows, pauses for billing included. Default: the transport's, beside such pauses. */
  readonly deadlineMillis?: number | undefined
  /** The caller waits for the account's billing by itself. */
  readonly ownPauses?: boolean | undefined
  /** Other answers than 2xx that are a success. */
  readonly accepts?: ((reply: Reply, repeated: boolean) => boolean) | undefined
  /** A more telling error for a refusal. `repeated`: an earlier copy of the same request may have been applied. */
  readonly explain?: ((reply: Reply, detail: string, repeated: boolean) => TinkerError | undefined) | undefined
}

export interface Transport {
  /** One try with the current credential; any status is a success. */
  readonly send: (outgoing: Outgoing) => Effect.Effect<Reply, TinkerError>
  /** Tries until the deadline; the answer has a 2xx status. */
  readonly exchange: (outgoing: Outgoing) => Effect.Effect<Reply, TinkerError>
  readonly request: Request
  /** Files from addresses that the service hands out. */
  readonly open: Http.Open
  /** The service's limits and switches, fetched before anything else is sent. */
  readonly boot: Effect.Effect<ClientConfig, TinkerError>
  /** The same for one call, within what its caller allows. */
  readonly bootFor: (operation: string, limits: CallLimits.Limits) => Effect.Effect<ClientConfig, TinkerError>
  /** Switches that may change while the program runs; the defaults before the boot. */
  readonly dynamic: () => DynamicConfig
  /** Fetches them again and again, as often as the service wants; never ends. */
  readonly keepFresh: Effect.Effect<never, TinkerError>
  /** The access token that is held, for who wants to know whose it is. */
  readonly token: () => string | undefined
  /** Whether the service handed it out. */
  readonly exchanged: () => boolean
  /** Told of every call that fails for good; one listener. */
  readonly onFailure: (listener: (error: TinkerError) => Effect.Effect<void>) => void
  /** Tells it. */
  readonly failed: (error: TinkerError) => Effect.Effect<void>
  /** Blanks out credentials. */
  readonly scrub: (text: string) => string
  readonly deadlineMillis: number
  /** From now on this text is in no error and no log line. */
  readonly conceal: (secret: string) => void
  /** Results on their way; as large as the service has it, from the boot on. */
  readonly responses: () => ByteBudget.ByteBudget
  /** Batches on their way; likewise. */
  readonly batches: () => ByteBudget.ByteBudget
  /** When the service last answered anything with a status below 500; 0 before that. */
  readonly answeredAt: () => number
}

const retries = Metric.counter("tinkex.tinker.retries", { incremental: true })

const dynamicDefaults: DynamicConfig = {
  refresh_interval_sec: 300,
  sample_cancel_enabled: false,
  sample_cancel_max_batch_size: 64
}
const emptyRefusals = 3
export const billingPauseMillis = 5_000
const hastyMillis = 1_000

/** Whole milliseconds, doubling from `baseMillis` up to `capMillis`, less up to a quarter, so that clients that failed together do not return together. */
export const backoff = (n: number, baseMillis: number, capMillis: number): Effect.Effect<number> =>
  Effect.map(Random.next, (random) => Math.ceil(Math.min(baseMillis * 2 ** n, capMillis) * (1 - 0.25 * random)))

const encoder = new TextEncoder()
export const encodeJson = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value))

export const badResponse = (operation: string, problem: string): TinkerError =>
  new TinkerError({ reason: new BadResponse({ operation, problem }) })

/** A JSON object, or `BadResponse`. The content type is not asked: some servers leave it out. */
export const parseJson = (operation: string, reply: Reply): Effect.Effect<unknown, TinkerError> => {
  const parsed = Result.try((): unknown => JSON.parse(reply.text()))
  return Result.isSuccess(parsed)
    ? Effect.succeed(parsed.success)
    : Effect.fail(
        badResponse(
          operation,
          `expected JSON, got ${reply.headers["content-type"] ?? "no content type"} (${Status.detailOf(reply)})`
        )
      )
}

export const decodeValue =
  <A>(operation: string, schema: Schema.Decoder<A>) =>
  (value: unknown): Effect.Effect<A, TinkerError> =>
    Schema.decodeUnknownEffect(schema)(value).pipe(
      Effect.mapError((error) => badResponse(operation, error.message.replace(/\s+/g, " ").slice(0, 300)))
    )

export const decodeJson =
  <A>(operation: string, schema: Schema.Decoder<A>) =>
  (reply: Reply): Effect.Effect<A, TinkerError> =>
    Effect.flatMap(parseJson(operation, reply), decodeValue(operation, schema))

const withQuery = (path: string, query: Record<string, string | number | boolean | undefined> | undefined): string => {
  if (query === undefined) return path
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") search.set(name, String(value))
  }
  return search.size === 0 ? path : `${path}?${search}`
}

const reader = <A>(operation: string, decode: RequestOptions<A>["decode"]) =>
  // A schema may be a class, hence a function too: what is no schema is the caller's own reader.
  Schema.isSchema(decode)
    ? decodeJson(operation, decode as Schema.Decoder<A>)
    : (decode as (reply: Reply) => Effect.Effect<A, TinkerError>)

export const make = (options: {
  readonly http: Http.Send
  readonly open: Http.Open
  readonly apiKey: string | undefined
  /** Runs the command that prints a key, where there is one. */
  readonly command: Effect.Effect<string, TinkerError> | undefined
  /** Sent with every request. */
  readonly headers: Record<string, string>
  /** Limit of one try. */
  readonly timeoutMillis: number
  /** Where the renewal of the access token lives. */
  readonly scope: Scope.Scope
  /** Grows by each credential that is fetched, so that none of them is printed. */
  readonly secrets: Set<string>
  readonly deadlineMillis: number
}): Transport => {
  const { deadlineMillis, http } = options
  let answeredAt = 0
  let config: ClientConfig | undefined
  let dynamic: DynamicConfig = dynamicDefaults
  // Nothing is counted before the boot.
  let responses = ByteBudget.make(0)
  let batches = ByteBudget.make(0)

  const sendWith = (credential: Effect.Effect<string, TinkerError>) =>
    Effect.fnUntraced(function* (outgoing: Outgoing) {
      const call: Http.Call = {
        operation: outgoing.operation,
        method: outgoing.endpoint.method,
        path: outgoing.endpoint.path,
        headers: { ...options.headers, ...outgoing.headers },
        body: outgoing.body,
        contentType: outgoing.contentType ?? Header.json,
        limitMillis: outgoing.timeoutMillis ?? options.timeoutMillis
      }
      const used = outgoing.credential ?? (yield* credential)
      let reply = yield* http(call, used)
      if (outgoing.credential === undefined && reply.status === 401 && (yield* held.replace(used)))
        reply = yield* http(call, yield* credential)
      if (reply.status < 500) answeredAt = yield* Clock.currentTimeMillis
      return reply
    })

  const exchangeWith = (send: (outgoing: Outgoing) => Effect.Effect<Reply, TinkerError>) =>
    Effect.fnUntraced(function* (outgoing: Outgoing): Effect.fn.Return<Reply, TinkerError> {
      const { operation } = outgoing
      const timeoutMillis = outgoing.timeoutMillis ?? options.timeoutMillis
      const deadlineMillis = outgoing.deadlineMillis ?? options.deadlineMillis
      const strict = outgoing.deadlineMillis !== undefined
      const maxRetries = outgoing.retries === "none" ? 0 : (outgoing.maxRetries ?? Number.POSITIVE_INFINITY)
      const began = yield* Clock.currentTimeMillis
      let tries = 0
      let billing = 0
      let empty = 0
      let repeated = false
      let earlier: TinkerError | undefined
      // The same for every try, for those proxies and servers that look at it.
      const marks: Record<string, string> =
        outgoing.endpoint.method === "GET" ? {} : { [Header.idempotencyKey]: `tinkex-${randomUUID()}` }
      while (true) {
        const before = yield* Clock.currentTimeMillis
        const remaining = Math.max(1, deadlineMillis - (before - began - (strict ? 0 : billing)))
        const outcome = yield* Effect.result(
          send({
            ...outgoing,
            headers: { ...marks, [Header.retryCount]: String(tries), ...outgoing.headers },
            timeoutMillis: Math.min(timeoutMillis, remaining)
          })
        )
        const now = yield* Clock.currentTimeMillis
        let error: TinkerError
        let hint: number | undefined
        if (Result.isSuccess(outcome)) {
          const reply = outcome.success
          if (Status.isOk(reply) || outgoing.accepts?.(reply, repeated) === true) return reply
          const detail = Status.detailOf(reply)
          if (reply.status === 402 && outgoing.retries !== "none" && outgoing.ownPauses !== true) {
            const window = (config?.billing_exception_max_pause_duration_sec ?? 3600) * 1000
            const allowed = strict ? deadlineMillis - (now - began) : Number.POSITIVE_INFINITY
            if (billing >= window || allowed <= 0) {
              const waited = Duration.millis(billing)
              return yield* new TinkerError({ reason: new BillingPaused({ operation, detail, waited }) })
            }
            yield* Effect.logWarning(`${operation} waits for the account's billing: ${detail}`)
            yield* Effect.sleep(Math.min(billingPauseMillis, allowed))
            billing += (yield* Clock.currentTimeMillis) - before
            continue
          }
          const told = outgoing.explain?.(reply, detail, repeated)
          if (told !== undefined) return yield* told
          error = new TinkerError({ reason: Status.reasonOf(operation, reply, detail, now) })
          // A 400 without a word is a proxy's, not the service's.
          const byProxy = reply.status === 400 && reply.body.length === 0 && empty++ < emptyRefusals
          if (!Status.isTransient(reply) && !byProxy) return yield* error
          hint = Status.retryHintMillis(reply, now)
          if (reply.status !== 429) repeated = true
        } else {
          // What is left of the deadline may be too short for any answer: then the try before tells more.
          const hasty = outcome.failure.reason._tag === "Timeout" && remaining < hastyMillis
          error = hasty && earlier !== undefined ? earlier : outcome.failure
          if (!hasty && error.reason._tag !== "Transport" && error.reason._tag !== "Timeout") return yield* error
          repeated = true
        }
        earlier = error
        const left = deadlineMillis - (now - began - (strict ? 0 : billing))
        if (tries >= maxRetries || left <= 0) return yield* error
        const delay = hint ?? (yield* backoff(tries, 500, 10_000))
        tries++
        yield* Metric.update(retries, 1)
        yield* Effect.logDebug(`${operation} is tried again in ${Math.round(delay)} ms: ${error.message}`)
        yield* Effect.sleep(Math.min(delay, left))
      }
    })

  const held: Credential.Credential = Credential.make({
    apiKey: options.apiKey,
    command: options.command,
    secrets: options.secrets,
    exchange: (credential) => exchangeWith(sendWith(credential)),
    scope: options.scope
  })
  const rawExchange = exchangeWith(sendWith(held.key))
  const send = sendWith(held.current)
  const exchange = exchangeWith(send)

  const version = encodeJson({ sdk_version: protocolVersion })
  /** What cannot be had stays as it was. */
  const refresh = Effect.suspend(() => {
    const operation = "get dynamic config"
    return send({ operation, endpoint: Endpoint.dynamicConfig, body: version, timeoutMillis: 10_000 }).pipe(
      Effect.flatMap((reply) =>
        Status.isOk(reply)
          ? decodeJson(operation, Json.DynamicConfig)(reply)
          : Effect.fail(badResponse(operation, `it has status ${reply.status}`))
      ),
      Effect.map((fetched) => {
        dynamic = fetched
      }),
      Effect.catch((error) => Effect.logDebug(`The last known settings stand in: ${error.message}`))
    )
  })
  const keepFresh = Effect.forever(
    Effect.suspend(() =>
      Effect.andThen(Effect.sleep(Math.max(dynamic.refresh_interval_sec, 10) * 1000), Effect.andThen(boot, refresh))
    )
  )

  const lock = Semaphore.makeUnsafe(1)
  const bootWith = ({ deadlineMillis, maxRetries }: CallLimits.Limits): Effect.Effect<ClientConfig, TinkerError> =>
    Effect.suspend(() =>
      config !== undefined
        ? Effect.succeed(config)
        : Semaphore.withPermit(
            lock,
            Effect.gen(function* () {
              if (config !== undefined) return config
              const operation = "get client config"
              const endpoint = Endpoint.clientConfig
              const fetched = yield* rawExchange({
                operation,
                endpoint,
                body: version,
                deadlineMillis,
                maxRetries
              }).pipe(Effect.flatMap(decodeJson(operation, Json.ClientConfig)))
              yield* held.configure(fetched)
              // Servers may lack it: any answer will do.
              yield* refresh
              config = fetched
              responses = ByteBudget.make(fetched.inflight_response_bytes_semaphore_size)
              batches = ByteBudget.make(fetched.fwdbwd_dispatch_bytes_semaphore_size)
              return fetched
            })
          )
    )
  const boot = bootWith({})
  const bootFor: Transport["bootFor"] = (operation, limits) => {
    const { deadlineMillis } = limits
    if (deadlineMillis === undefined) return bootWith(limits)
    return Effect.timeoutOrElse(bootWith(limits), {
      // Its own request ends at the deadline and says why; this is for who waits for another's.
      duration: deadlineMillis + hastyMillis,
      orElse: () =>
        Effect.fail(new TinkerError({ reason: new Timeout({ operation, limit: Duration.millis(deadlineMillis) }) }))
    })
  }

  let listener: (error: TinkerError) => Effect.Effect<void> = () => Effect.void
  const failed = (error: TinkerError) => Effect.suspend(() => listener(error))

  const request: Request = (endpoint, options) =>
    Effect.gen(function* () {
      const { body, decode, operation, timeout } = options
      const limits = yield* CallLimits.parse(operation, options.call)
      const began = yield* Clock.currentTimeMillis
      yield* bootFor(operation, limits)
      const took = (yield* Clock.currentTimeMillis) - began
      const reply = yield* exchange({
        operation,
        endpoint: { method: endpoint.method, path: withQuery(endpoint.path, options.query) },
        body: body === undefined ? undefined : body instanceof Uint8Array ? body : encodeJson(body),
        contentType: options.contentType,
        accepts: options.accepts,
        credential: options.credential,
        ...limits,
        deadlineMillis: limits.deadlineMillis === undefined ? undefined : Math.max(1, limits.deadlineMillis - took),
        headers: { ...limits.headers, ...options.headers },
        timeoutMillis: timeout === undefined ? undefined : Duration.toMillis(timeout),
        retries: options.retries
      })
      return yield* reader(operation, decode)(reply)
    }).pipe(Effect.tapError(failed))

  return {
    send,
    exchange: (outgoing) => Effect.tapError(exchange(outgoing), failed),
    onFailure: (given) => {
      listener = given
    },
    failed,
    request,
    open: options.open,
    boot,
    bootFor,
    dynamic: () => dynamic,
    keepFresh,
    token: held.token,
    exchanged: held.exchanged,
    scrub: (text) => {
      let clean = text
      for (const secret of options.secrets) clean = clean.replaceAll(secret, "<redacted>")
      return clean
    },
    deadlineMillis,
    conceal: (secret) => {
      if (secret !== "") options.secrets.add(secret)
    },
    responses: () => responses,
    batches: () => batches,
    answeredAt: () => answeredAt
  }
}
