/** One try of one request; the only module that knows Effect's HTTP client. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import { isHttpMethod } from "effect/http/HttpMethod"
import { InvalidInput, Timeout, TinkerError, Transport } from "../TinkerError.ts"
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

/** Sends once and reads the whole answer, whatever its status. Fails with `Transport` or `Timeout` only. */
export type Send = (call: Call, credential: string) => Effect.Effect<Reply, TinkerError>

const userAgent = "Tinkex/TypeScript 0.1.0"

/** `secrets` never leave in an error or in a reply's text. */
export const make = (client: HttpClient.HttpClient, baseUrl: string, secrets: ReadonlySet<string>): Send => {
  const scrub = (text: string): string => {
    let clean = text
    for (const secret of secrets) clean = clean.replaceAll(secret, "<redacted>")
    return clean
  }

  return (call, credential) => {
    const { body, limitMillis, operation } = call
    if (!isHttpMethod(call.method)) return Effect.die(new Error(`no HTTP method: ${call.method}`))
    const request = HttpClientRequest.make(call.method)(baseUrl + call.path, {
      headers: {
        accept: Header.json,
        "user-agent": userAgent,
        ...call.headers,
        [Header.apiKey]: credential
      },
      ...(call.method === "GET" ? {} : { body: HttpBody.uint8Array(body ?? new Uint8Array(), call.contentType) })
    })
    return client.execute(request).pipe(
      Effect.flatMap((response) =>
        Effect.map(response.arrayBuffer, (buffer): Reply => {
          const bytes = new Uint8Array(buffer)
          return {
            status: response.status,
            headers: response.headers,
            body: bytes,
            text: () => scrub(new TextDecoder().decode(bytes))
          }
        })
      ),
      Effect.timeout(limitMillis),
      Effect.mapError((error) => {
        if (Cause.isTimeoutError(error)) {
          return new TinkerError({ reason: new Timeout({ operation, limit: Duration.millis(limitMillis) }) })
        }
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
const describe = (error: HttpClientError.HttpClientError): string => {
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
