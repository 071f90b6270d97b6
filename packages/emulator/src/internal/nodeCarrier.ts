/**
 * The HTTP server that carries the handlers; the one place that knows the server modules of Effect and Node.
 *
 * A dropped reply destroys the socket, as a broken connection would. Closing wakes the long polls first, then gives
 * connections a moment, then cuts them, so that it always ends.
 */
import * as NodeHttp from "node:http"
import type { Socket } from "node:net"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import { MaxBodySize } from "effect/http/HttpIncomingMessage"
import type { ServeError } from "effect/http/HttpServerError"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { EmulatorError, ListenFailed } from "../EmulatorError.ts"
import { type ApiRequest, decodePath, json, malformedPath, maxBodyBytes, type Reply } from "./reply.ts"

const problemOf = (error: ServeError): string => {
  const { cause } = error
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined
  if (code === "EADDRINUSE") return "the port is in use"
  if (code === "EACCES") return "this port needs rights that the process does not have"
  if (code === "EADDRNOTAVAIL" || code === "ENOTFOUND") return "the host is no address of this machine"
  return cause instanceof Error ? cause.message : String(cause)
}

const toRequest = (request: HttpServerRequest.HttpServerRequest, body: ArrayBuffer): ApiRequest | undefined => {
  const mark = request.url.indexOf("?")
  const path = decodePath(mark < 0 ? request.url : request.url.slice(0, mark))
  return path === undefined
    ? undefined
    : {
        method: request.method,
        path,
        query: new URLSearchParams(mark < 0 ? "" : request.url.slice(mark)),
        header: (name) => request.headers[name],
        body: new Uint8Array(body)
      }
}

// Also what a client is answered that went away before it was done; it does not hear it.
const tooLarge = json(
  413,
  { detail: `The body is larger than ${maxBodyBytes} bytes, or was not sent to its end` },
  { headers: { connection: "close" } }
)

const toResponse = (reply: Reply): HttpServerResponse.HttpServerResponse => {
  const options = { status: reply.status, contentType: reply.contentType, headers: reply.headers }
  return typeof reply.body === "string"
    ? HttpServerResponse.text(reply.body, options)
    : HttpServerResponse.uint8Array(reply.body, options)
}

const headOf = ({ body, contentType, headers, status }: Reply): string => {
  const fields = Object.entries({
    "content-type": contentType,
    "content-length": `${Buffer.byteLength(body)}`,
    connection: "close",
    ...headers
  })
  const reason = NodeHttp.STATUS_CODES[status] ?? ""
  return `HTTP/1.1 ${status} ${reason}\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`
}

const write = (socket: Socket, bytes: string | Uint8Array): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.destroyed) resume(Effect.void)
    else socket.write(bytes, () => resume(Effect.void))
  })

/** The head and the first half of the body, then the end of the connection. */
const breakOff = Effect.fnUntraced(function* (socket: Socket, reply: Reply) {
  const body = Buffer.from(reply.body)
  yield* write(socket, headOf(reply))
  yield* write(socket, body.subarray(0, body.length >> 1))
  socket.destroy()
})

const trickle = Effect.fnUntraced(function* (socket: Socket, reply: Reply, millis: number) {
  yield* write(socket, headOf(reply))
  for (const byte of Buffer.from(reply.body)) {
    if (socket.destroyed) break
    yield* Effect.sleep(millis)
    yield* write(socket, Uint8Array.of(byte))
  }
  yield* Effect.callback<void>((resume) => {
    if (socket.destroyed) resume(Effect.void)
    else socket.end(() => resume(Effect.sync(() => void socket.destroy())))
  })
})

/** Real milliseconds: a connection does not know the Clock service. */
const drainMillis = 250

const close = (node: NodeHttp.Server): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => node.closeAllConnections(), drainMillis)
    node.close(() => {
      clearTimeout(timer)
      resume(Effect.void)
    })
  })

export const serve = Effect.fnUntraced(function* (options: {
  readonly host: string
  readonly port: number
  readonly handle: (request: ApiRequest) => Effect.Effect<Reply>
  readonly wake: Effect.Effect<void>
}): Effect.fn.Return<{ readonly url: string }, EmulatorError, Scope.Scope> {
  const { handle, host, port, wake } = options
  const node = NodeHttp.createServer({ requestTimeout: 0, keepAliveTimeout: 60_000 })
  const server = yield* NodeHttpServer.make(() => node, { host, port }).pipe(
    Effect.mapError(
      (error) => new EmulatorError({ reason: new ListenFailed({ host, port, problem: problemOf(error) }) })
    )
  )
  yield* server.serve(
    Effect.gen(function* () {
      const request = yield* HttpServerRequest.HttpServerRequest
      const body = yield* Effect.option(
        Effect.provideService(request.arrayBuffer, MaxBodySize, ByteSize.bytes(maxBodyBytes))
      )
      if (Option.isNone(body)) return toResponse(tooLarge)
      const received = toRequest(request, body.value)
      const reply = received === undefined ? malformedPath : yield* handle(received)
      const { socket } = NodeHttpServerRequest.toIncomingMessage(request)
      if (reply.dropped === true) socket.destroy()
      else if (reply.cut === true) yield* breakOff(socket, reply)
      else if (reply.trickleMillis !== undefined) yield* trickle(socket, reply, reply.trickleMillis)
      // A socket that was written to by hand is closed by now, and takes nothing more.
      return toResponse(reply)
    })
  )
  // Runs before the server's own finalizers, which would wait for a client that never finishes its request.
  yield* Effect.addFinalizer(() => Effect.andThen(wake, close(node)))

  const address = node.address()
  const bound = typeof address === "object" && address !== null ? address.port : port
  const name = host.includes(":") ? `[${host}]` : host
  return { url: `http://${name}:${bound}` }
})
