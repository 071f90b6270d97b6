/** One try of one request; with the download of files, the only module that knows Effect's HTTP client. */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Headers from "effect/http/Headers"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import { isHttpMethod } from "effect/http/HttpMethod"
import * as UrlParams from "effect/http/UrlParams"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { BadResponse, InvalidInput, Timeout, TinkerError, Transport } from "../TinkerError.ts"
import * as Header from "../wire/Headers.ts"
import type { Reply } from "./request.ts"

export interface Call {
  readonly operation: string
  readonly method: string
  /** Below the base URL, with a leading slash; may hold a query. */
  readonly path: string
  readonly headers: Record<string, string>
  readonly body: Uint8Array | undefined
  readonly contentType: string
  readonly limitMillis: number
}

/** Sends once and reads the whole answer, whatever its status. Fails with `Transport` or `Timeout`, or with `BadResponse` for one without end. */
export type Send = (call: Call, credential: string) => Effect.Effect<Reply, TinkerError>

const userAgent = "Tinkex/TypeScript 0.1.0"

/** Of an answer that is no success, which is only read for its message. */
const maxErrorBytes = 256 * 1024
/** Of an answer that is one: more than any of the service's. */
const maxAnswerBytes = 2 ** 30
const maxRedirects = 5

/**
 * Fetch would follow a redirect to any host and hand it the key with it, since it only knows `Authorization` for a secret. Other
 * clients do not follow redirects at all.
 */
export const withoutRedirects = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.context<never>(), (context) =>
    Effect.provideService(effect, FetchHttpClient.RequestInit, {
      ...Context.getOrUndefined(context, FetchHttpClient.RequestInit),
      redirect: "manual"
    })
  )

const always = () => true

/** What lets a request through a gateway is as secret as the key, which traces leave out by themselves. */
const withoutGateway = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Headers.CurrentRedactedNames, (names) =>
    Effect.provideService(effect, Headers.CurrentRedactedNames, [
      ...names,
      Header.cloudflareId,
      Header.cloudflareSecret
    ])
  )

/** Of an address that may be signed, in whatever way, a trace gets no parameter. */
const withoutParameters = Effect.provideService(UrlParams.CurrentRedactedNames, [/^/])

/** Where no tracer is installed nobody sees the spans of single tries, and they are a good part of what a request costs. */
const untracedUnlessWanted = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.context<never>(), (context) =>
    Context.getOrUndefined(context, Tracer.Tracer) === undefined
      ? Effect.provideService(effect, HttpClient.TracerDisabledWhen, always)
      : withoutGateway(effect)
  )

/** Where a redirect leads, if that is a place on the same host and the request may be repeated there as it is. */
const within = (url: string, method: string, response: HttpClientResponse.HttpClientResponse): string | undefined => {
  const { status } = response
  const keeps = status === 307 || status === 308 || (method === "GET" && (status === 301 || status === 302))
  const target = keeps ? Result.try(() => new URL(response.headers["location"] ?? "", url)) : undefined
  return target !== undefined && Result.isSuccess(target) && target.success.origin === new URL(url).origin
    ? target.success.href
    : undefined
}

const concat = (chunks: ReadonlyArray<Uint8Array>): Uint8Array =>
  chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)

/** The beginning of a body that may be endless: as many bytes as are wanted, and what came with the last of them. */
const beginning = (response: HttpClientResponse.HttpClientResponse, wanted: number) => {
  let bytes = 0
  return response.stream.pipe(
    Stream.takeUntil((chunk) => (bytes += chunk.length) >= wanted),
    Stream.runCollect,
    Effect.map(concat),
    Effect.catchReason("HttpClientError", "EmptyBodyError", () => Effect.succeed(new Uint8Array()))
  )
}

/** The whole body, unless it is larger than `maxBytes`; one that is compressed only tells when it is read. */
export const whole = (
  response: HttpClientResponse.HttpClientResponse,
  operation: string,
  maxBytes: number
): Effect.Effect<Uint8Array, HttpClientError.HttpClientError | TinkerError> => {
  const tooLarge = Effect.suspend(() =>
    Effect.fail(
      new TinkerError({ reason: new BadResponse({ operation, problem: `it is larger than ${maxBytes} bytes` }) })
    )
  )
  const length = Number(response.headers["content-length"] ?? Number.NaN)
  if (Number.isFinite(length) && response.headers["content-encoding"] === undefined) {
    return length > maxBytes
      ? tooLarge
      : Effect.map(response.arrayBuffer, (buffer): Uint8Array => new Uint8Array(buffer))
  }
  return Effect.flatMap(beginning(response, maxBytes + 1), (bytes) =>
    bytes.byteLength > maxBytes ? tooLarge : Effect.succeed(bytes)
  )
}

/** `secrets` never leave in an error or in a reply's text. */
export const make = (client: HttpClient.HttpClient, baseUrl: string, secrets: ReadonlySet<string>): Send => {
  const scrub = (text: string): string => {
    let clean = text
    for (const secret of secrets) clean = clean.replaceAll(secret, "<redacted>")
    return clean
  }

  return (call, credential) => {
    const { body, limitMillis, operation } = call
    const { method } = call
    if (!isHttpMethod(method)) return Effect.die(new Error(`no HTTP method: ${method}`))
    const send = (url: string, hops: number): Effect.Effect<Reply, HttpClientError.HttpClientError | TinkerError> =>
      client
        .execute(
          HttpClientRequest.make(method)(url, {
            headers: {
              accept: Header.json,
              "user-agent": userAgent,
              ...call.headers,
              [Header.apiKey]: credential
            },
            ...(method === "GET" ? {} : { body: HttpBody.uint8Array(body ?? new Uint8Array(), call.contentType) })
          })
        )
        .pipe(
          Effect.flatMap((response) => {
            // The archive endpoint answers with a redirect that is not to be followed, but read.
            const next =
              hops < maxRedirects && !call.path.endsWith("/archive") ? within(url, method, response) : undefined
            if (next !== undefined) return send(next, hops + 1)
            const { status } = response
            const read =
              status >= 200 && status < 300
                ? whole(response, operation, maxAnswerBytes)
                : beginning(response, maxErrorBytes)
            return Effect.map(read, (bytes): Reply => ({
              status,
              headers: response.headers,
              body: bytes,
              text: () => scrub(new TextDecoder().decode(bytes))
            }))
          })
        )
    return untracedUnlessWanted(withoutRedirects(send(baseUrl + call.path, 0))).pipe(
      Effect.timeout(limitMillis),
      Effect.mapError((error) => {
        if (Cause.isTimeoutError(error)) {
          return new TinkerError({ reason: new Timeout({ operation, limit: Duration.millis(limitMillis) }) })
        }
        if (error instanceof TinkerError) return error
        if (error.reason._tag === "InvalidUrlError") {
          const problem = `"${scrub(call.path)}" makes no valid URL`
          return new TinkerError({ reason: new InvalidInput({ operation, field: "path", problem }) })
        }
        return new TinkerError({ reason: new Transport({ operation, problem: scrub(describe(error)) }) })
      })
    )
  }
}

/** The innermost messages say more than the outer ones ("fetch failed"), and neither holds the request. */
export const describe = (error: HttpClientError.HttpClientError): string => {
  const parts: Array<string> = []
  const { reason } = error
  if ("description" in reason && reason.description !== undefined) parts.push(reason.description)
  let cause: unknown = "cause" in reason ? reason.cause : undefined
  for (let depth = 0; cause !== undefined && depth < 4; depth++) {
    parts.push(cause instanceof Error ? cause.message : typeof cause === "string" ? cause : typeof cause)
    cause = cause instanceof Error ? cause.cause : undefined
  }
  return parts.filter((part) => part !== "").join(": ") || reason._tag
}

/** Fetches a file from an address that needs no credential, perhaps from its middle on; the body is still to be read. */
export type Open = (file: {
  readonly operation: string
  readonly url: string
  readonly headers: Record<string, string>
  readonly limitMillis: number
}) => Effect.Effect<HttpClientResponse.HttpClientResponse, TinkerError>

/** No header of the service's is sent along, and the address, which may be signed, is in no error. */
export const opener = (client: HttpClient.HttpClient): Open => {
  const following = HttpClient.followRedirects(client, maxRedirects)
  return ({ headers, limitMillis, operation, url }) =>
    untracedUnlessWanted(
      withoutRedirects(
        withoutParameters(
          following.execute(HttpClientRequest.make("GET")(url, { headers: { "user-agent": userAgent, ...headers } }))
        )
      )
    ).pipe(
      Effect.timeout(limitMillis),
      Effect.mapError((error) =>
        Cause.isTimeoutError(error)
          ? new TinkerError({ reason: new Timeout({ operation, limit: Duration.millis(limitMillis) }) })
          : unread(operation, url, error)
      )
    )
}

/** Why a file could not be read to its end. */
export const unread = (operation: string, url: string, error: HttpClientError.HttpClientError): TinkerError =>
  new TinkerError({ reason: new Transport({ operation, problem: describe(error).replaceAll(url, "<address>") }) })
