/**
 * An HTTP client whose requests never leave the process. Answers are there as soon as the handler is done, without a promise
 * in between, so that the test clock sees every fiber that waits.
 */
import * as Effect from "effect/Effect"
import * as Cookies from "effect/http/Cookies"
import * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import { HttpClientError, StatusCodeError, DecodeError, TransportError } from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import * as UrlParams from "effect/http/UrlParams"
import * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import { pipeArguments } from "effect/Pipeable"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type ApiRequest, decodePath, malformedPath, type Reply } from "./reply.ts"

const encoder = new TextEncoder()
const decoder = new TextDecoder()

class Response extends Inspectable.Class implements HttpClientResponse.HttpClientResponse {
  readonly [HttpIncomingMessage.TypeId] = HttpIncomingMessage.TypeId
  readonly [HttpClientResponse.TypeId] = HttpClientResponse.TypeId
  readonly request: HttpClientRequest.HttpClientRequest
  readonly url: string
  readonly status: number
  readonly headers: Headers.Headers
  readonly cookies = Cookies.empty
  readonly remoteAddress = Option.none<string>()
  private readonly bytes: Uint8Array
  /** Before the body is there: it comes slowly, or breaks off. */
  private readonly received: Effect.Effect<void, HttpClientError>

  constructor(request: HttpClientRequest.HttpClientRequest, url: URL, reply: Reply) {
    super()
    this.request = request
    this.url = url.href
    this.status = reply.status
    this.bytes = typeof reply.body === "string" ? encoder.encode(reply.body) : reply.body
    this.received =
      reply.cut === true
        ? Effect.fail(
            new HttpClientError({ reason: new TransportError({ request, description: "the body broke off" }) })
          )
        : reply.trickleMillis === undefined
          ? Effect.void
          : Effect.sleep(reply.trickleMillis * this.bytes.byteLength)
    this.headers = Headers.fromInput({
      "content-type": reply.contentType,
      "content-length": `${this.bytes.byteLength}`,
      ...reply.headers
    })
  }

  pipe() {
    // Pipeable is written with the arguments object.
    // oxlint-disable-next-line prefer-rest-params
    return pipeArguments(this, arguments)
  }

  toJSON() {
    return { _id: "HttpClientResponse", request: this.request.toJSON(), status: this.status }
  }

  get text() {
    return Effect.map(this.received, () => decoder.decode(this.bytes))
  }

  get json(): Effect.Effect<Schema.Json, HttpClientError> {
    const parsed = Effect.try({
      // The type of JSON.parse is any; what it returns is JSON.
      try: () => (this.bytes.length === 0 ? null : (JSON.parse(decoder.decode(this.bytes)) as Schema.Json)),
      catch: (cause) =>
        new HttpClientError({ reason: new DecodeError({ request: this.request, response: this, cause }) })
    })
    return Effect.andThen(this.received, parsed)
  }

  get arrayBuffer(): Effect.Effect<ArrayBuffer, HttpClientError> {
    // A copy by hand: `slice` of a Node Buffer, which a body may be, shares the memory of its pool.
    return Effect.map(this.received, () => new Uint8Array(this.bytes).buffer)
  }

  get stream() {
    return Stream.fromEffect(Effect.as(this.received, this.bytes))
  }

  get urlParamsBody() {
    return Effect.map(this.text, (text) => UrlParams.fromInput(new URLSearchParams(text)))
  }

  private refuse(description: string): Effect.Effect<never, HttpClientError> {
    return Effect.fail(
      new HttpClientError({ reason: new StatusCodeError({ request: this.request, response: this, description }) })
    )
  }

  get formData(): Effect.Effect<FormData, HttpClientError> {
    return this.refuse("the emulator sends no forms")
  }

  get upgrade(): Effect.Effect<never, HttpClientError> {
    return this.refuse("the emulator upgrades no connection")
  }
}

const bodyOf = (request: HttpClientRequest.HttpClientRequest): Effect.Effect<Uint8Array, unknown> => {
  const { body } = request
  switch (body._tag) {
    case "Empty":
      return Effect.succeed(new Uint8Array(0))
    case "Uint8Array":
      return Effect.succeed(body.body)
    case "Raw":
      if (typeof body.body === "string") return Effect.succeed(encoder.encode(body.body))
      return body.body instanceof Uint8Array
        ? Effect.succeed(body.body)
        : Effect.fail(`a raw body of type ${typeof body.body}`)
    case "Stream":
      return Effect.map(Stream.runCollect(body.stream), (parts) => Uint8Array.from(Buffer.concat(parts)))
    default:
      return Effect.fail(`a ${body._tag} body`)
  }
}

export const make = (handle: (request: ApiRequest) => Effect.Effect<Reply>): HttpClient.HttpClient =>
  HttpClient.make((request, url) => {
    const lost = (description: string, cause?: unknown) =>
      new HttpClientError({ reason: new TransportError({ request, description, cause }) })
    return bodyOf(request).pipe(
      Effect.mapError((cause) => lost("the body cannot be sent", cause)),
      Effect.flatMap((body) => {
        const path = decodePath(url.pathname)
        if (path === undefined) return Effect.succeed(malformedPath)
        return handle({
          method: request.method,
          // Whatever service a client was told to talk to, it is this one: host and prefix do not count.
          path: path.replace(/^.*(?=\/api\/v1\/)/, ""),
          query: url.searchParams,
          header: (name) => request.headers[name],
          body
        })
      }),
      Effect.flatMap((reply) =>
        reply.dropped === true
          ? Effect.fail(lost("the connection was dropped before the response"))
          : Effect.succeed(new Response(request, url, reply))
      )
    )
  })
