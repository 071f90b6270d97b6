// A service that answers with what is not of the protocol, over real sockets: each ends in one typed error, in bounded time and
// memory, and tells nobody the key.
import { assert, describe, it } from "@effect/vitest"
import { create, toBinary } from "@bufbuild/protobuf"
import { Clock, Duration, Effect, identity, Logger, Schema } from "effect"
import { FetchHttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import * as Layer from "effect/Layer"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import * as Http from "../src/internal/http.ts"
import { ServiceClient } from "../src/ServiceClient.ts"
import { Tinker } from "../src/Tinker.ts"
import * as Errors from "../src/TinkerError.ts"
import type { TrainingClient } from "../src/TrainingClient.ts"
import * as Pb from "../src/wire/gen/tinker_public_pb.ts"
import * as Protobuf from "../src/wire/Protobuf.ts"
import * as Fake from "./support/fakeService.ts"

type Answer = (request: IncomingMessage, response: ServerResponse) => void

const json = (response: ServerResponse, value: unknown) => {
  response.setHeader("content-type", "application/json")
  response.end(JSON.stringify(value))
}
const text =
  (status: number, body: string | Uint8Array, contentType?: string): Answer =>
  (_, response) => {
    response.statusCode = status
    if (contentType !== undefined) response.setHeader("content-type", contentType)
    response.end(body)
  }
const value = (body: unknown): Answer => text(200, JSON.stringify(body), "application/json")

/** A service of which one path answers as given, up to the last byte. */
const serve = (path: string, answer: Answer) =>
  Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const at = (request.url ?? "").replace("/api/v1/", "")
          const body = Buffer.concat(chunks)
          const asked = at === "retrieve_future" ? String(JSON.parse(body.toString())["request_id"]) : ""
          // Only the result of the operation itself is malformed, not that of the model's making.
          if (at === path && !asked.startsWith("create")) return answer(request, response)
          if (at === "client/config") return json(response, {})
          if (at === "create_session") return json(response, { session_id: "s" })
          if (at === "create_model") return json(response, { request_id: "create" })
          if (asked === "create") return json(response, { model_id: "s:train:0" })
          if (asked !== "") return json(response, { metrics: {} })
          return json(response, { request_id: "x", type: "x" })
        })
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )

/** Pauses and limits take a twentieth of their time: a result is read again after seconds. */
const hurried = Effect.updateService(Clock.Clock, (clock): Clock.Clock => ({
  currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
  currentTimeMillis: clock.currentTimeMillis,
  currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
  currentTimeNanos: clock.currentTimeNanos,
  monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
  monotonicTimeNanos: clock.monotonicTimeNanos,
  sleep: (duration) => clock.sleep(Duration.times(duration, 1 / 20))
}))

const ending = (
  path: string,
  answer: Answer,
  use: (client: TrainingClient) => Effect.Effect<unknown, Errors.TinkerError>
) =>
  Effect.gen(function* () {
    const server = yield* serve(path, answer)
    // A server that listens on TCP has an address of a host and a port.
    const { port } = server.address() as AddressInfo
    const polled = path === "retrieve_future"
    const layer = Tinker.layer({
      apiKey: Fake.key,
      baseUrl: `http://127.0.0.1:${port}`,
      deadline: polled ? "20 seconds" : "1 second",
      pollTolerance: "1 second"
    }).pipe(Layer.provide(FetchHttpClient.layer))
    const before = process.memoryUsage().rss
    const error = yield* Effect.flatMap(ServiceClient, (service) =>
      Effect.flatMap(service.createLoraTrainingClient({ baseModel: "b" }), use)
    ).pipe(
      Effect.scoped,
      Effect.provide(layer),
      polled ? hurried : identity,
      Effect.provide(Logger.layer([])),
      Effect.flip,
      Effect.timeout("20 seconds")
    )
    const grown = process.memoryUsage().rss - before
    assert.instanceOf(error, Errors.TinkerError)
    const stored = JSON.stringify(yield* Schema.encodeEffect(Schema.toCodecJson(Errors.TinkerError))(error))
    assert.notInclude(stored + error.message + String(error.stack), Fake.key)
    assert.isBelow(error.message.length, 1000)
    assert.isBelow(grown, 200 * 1024 * 1024)
    // Reading changes nothing, so it is done again; the operation is not.
    if (polled && error.reason._tag === "BadResponse") assert.strictEqual(error.reason.tries, 4)
    return error
  })

const step = (client: TrainingClient) => Effect.flatMap(client.optimStep({ learningRate: 0.1 }), ({ result }) => result)
const pass = (client: TrainingClient) =>
  Effect.flatMap(client.forward([Fake.datum(1, 2)], { loss: "cross_entropy" }), ({ result }) => result)

const output = Protobuf.encodeForwardBackwardOutput({
  lossFnOutputType: "T",
  lossFnOutputs: [{ logprobs: { dtype: "float32", data: [-1, -2], shape: [2] } }],
  metrics: { "loss:sum": 1 }
})
/** An output of an unknown type, under a name that is the key and then some. */
const keyed = toBinary(
  Pb.ForwardBackwardOutputSchema,
  create(Pb.ForwardBackwardOutputSchema, {
    lossFnOutputs: [
      create(Pb.ArrayRecordSchema, {
        numDatums: 1n,
        fields: {
          [Fake.key + "x".repeat(100_000)]: create(Pb.BatchedTensorSchema, { offsets: new Uint8Array(16), dtype: 99 })
        }
      })
    ]
  })
)
const protobuf = "application/x-protobuf"
const tenMegabytes = 10 * 1024 * 1024

const cut: Answer = (_, response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": "1000" })
  response.write('{"request_id": "x"')
  setTimeout(() => response.destroy(), 20)
}
const endless: Answer = (_, response) => {
  response.writeHead(500, { "content-type": "text/html" })
  const chunk = "x".repeat(1 << 20)
  const more = () => {
    while (!response.destroyed && response.write(chunk));
  }
  response.on("drain", more)
  more()
}

const cases: ReadonlyArray<[string, string, Answer, typeof step, string, RegExp]> = [
  ["a wrong type", "optim_step", value({ request_id: 7 }), step, "BadResponse", /request_id/],
  ["a missing field", "optim_step", value({ model_id: "m" }), step, "BadResponse", /request_id/],
  ["null for an object", "optim_step", value(null), step, "BadResponse", /makes no sense/],
  ["a list for an object", "create_session", value([]), step, "BadResponse", /makes no sense/],
  [
    "HTML with a good status",
    "optim_step",
    text(200, `<html>${Fake.key}</html>`, "text/html"),
    step,
    "BadResponse",
    /expected JSON, got text\/html/
  ],
  ["nothing", "optim_step", text(200, ""), step, "BadResponse", /expected JSON, got no content type/],
  [
    "half a JSON",
    "optim_step",
    text(200, '{"request_id": "x', "application/json"),
    step,
    "BadResponse",
    /expected JSON/
  ],
  ["a body that is cut off", "optim_step", cut, step, "Transport", /got no answer/],
  ["a result of a wrong type", "retrieve_future", value({ metrics: { a: "b" } }), step, "BadResponse", /metrics/],
  ["a result that is no object", "retrieve_future", value(["a"]), step, "BadResponse", /makes no sense/],
  [
    "JSON where protobuf is due",
    "retrieve_future",
    value({ metrics: {} }),
    pass,
    "BadResponse",
    /where protobuf was due/
  ],
  [
    "protobuf where JSON is due",
    "retrieve_future",
    text(200, output, protobuf),
    step,
    "BadResponse",
    /where JSON was due/
  ],
  [
    "half a protobuf",
    "retrieve_future",
    text(200, output.subarray(0, output.length - 5), protobuf),
    pass,
    "BadResponse",
    /forward_backward result/
  ],
  [
    "protobuf that holds the key",
    "retrieve_future",
    text(200, keyed, protobuf),
    pass,
    "BadResponse",
    /output <redacted>xxx/
  ],
  [
    "protobuf under another type",
    "retrieve_future",
    text(200, output, "application/octet-stream"),
    pass,
    "BadResponse",
    /expected JSON/
  ],
  [
    "text under protobuf's type",
    "retrieve_future",
    text(200, `{"key": "${Fake.key}"}`, protobuf),
    pass,
    "BadResponse",
    /forward_backward result/
  ],
  [
    "a huge number",
    "optim_step",
    text(200, '{"request_id": 1e999}', "application/json"),
    step,
    "BadResponse",
    /request_id/
  ],
  [
    "a huge size",
    "retrieve_future",
    text(200, '{"status":"complete_metadata","response_payload_size":1e999}', "application/json"),
    step,
    "BadResponse",
    /response_payload_size/
  ],
  [
    "a size and nothing else",
    "retrieve_future",
    value({ status: "complete_metadata", response_payload_size: 5 }),
    step,
    "BadResponse",
    /announced twice/
  ],
  [
    "a failure that is no text",
    "retrieve_future",
    value({ error: { code: 7, key: Fake.key } }),
    step,
    "RequestFailed",
    /"code":7/
  ],
  [
    "a failure of ten megabytes",
    "retrieve_future",
    value({ error: "x".repeat(tenMegabytes) }),
    step,
    "RequestFailed",
    /xxx…/
  ],
  [
    "an error page of ten megabytes",
    "optim_step",
    text(422, Fake.key.repeat(tenMegabytes / 20), "text/html"),
    step,
    "BadRequest",
    /422/
  ],
  [
    "an error page of ten megabytes, over and over",
    "optim_step",
    text(500, "y".repeat(tenMegabytes), "text/html"),
    step,
    "ServerFailure",
    /500/
  ],
  ["an error page without end", "optim_step", endless, step, "ServerFailure", /500/],
  [
    "a page of ten megabytes with a good status",
    "optim_step",
    text(200, "z".repeat(tenMegabytes), "text/html"),
    step,
    "BadResponse",
    /expected JSON/
  ],
  [
    "a thousand lists in each other",
    "optim_step",
    text(200, "[".repeat(100_000), "application/json"),
    step,
    "BadResponse",
    /expected JSON/
  ],
  [
    "more than any answer may be",
    "optim_step",
    (_, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": String(2 ** 31) })
      response.write("{")
    },
    step,
    "BadResponse",
    /it is larger than 1073741824 bytes/
  ],
  [
    "a redirect to another host",
    "optim_step",
    (_, response) => response.writeHead(307, { location: "http://127.0.0.1:1/x" }).end(),
    step,
    "BadResponse",
    /leads elsewhere/
  ],
  ["no client config", "client/config", value("x"), step, "BadResponse", /makes no sense/]
]

describe("an answer that is not of the protocol", () => {
  it.live.each(cases.map((one): [string, (typeof cases)[number]] => [one[0], one]))(
    "is one typed error: %s",
    ([, [, path, answer, use, tag, words]]) =>
      Effect.gen(function* () {
        const error = yield* ending(path, answer, use)
        assert.strictEqual(error.reason._tag, tag, error.message)
        assert.match(error.message, words)
      }).pipe(Effect.scoped)
  )
})

describe("an answer of unknown length", () => {
  const response = (...chunks: ReadonlyArray<string>) =>
    HttpClientResponse.fromWeb(
      HttpClientRequest.get("http://service.test"),
      new Response(new Blob([...chunks]).stream(), { headers: { "content-encoding": "identity" } })
    )

  it.effect("is read up to a limit", () =>
    Effect.gen(function* () {
      const read = yield* Http.whole(response("abc", "def"), "op", 6)
      assert.strictEqual(new TextDecoder().decode(read), "abcdef")
      assert.strictEqual((yield* Http.whole(response(), "op", 6)).byteLength, 0)
      const error = yield* Effect.flip(Http.whole(response("abc", "defg"), "op", 6))
      assert.match(error.message, /op got an answer that makes no sense: it is larger than 6 bytes/)
    })
  )

  it.live("may come in pieces", () =>
    Effect.gen(function* () {
      const server = yield* serve("optim_step", (_, answer) => {
        answer.writeHead(200, { "content-type": "application/json" })
        answer.write('{"request_')
        setTimeout(() => answer.end('id":"x"}'), 10)
      })
      const { port } = server.address() as AddressInfo
      const layer = Tinker.layer({ apiKey: Fake.key, baseUrl: `http://127.0.0.1:${port}` }).pipe(
        Layer.provide(FetchHttpClient.layer)
      )
      const metrics = yield* Effect.flatMap(ServiceClient, (service) =>
        Effect.flatMap(service.createLoraTrainingClient({ baseModel: "b" }), step)
      ).pipe(Effect.scoped, Effect.provide(layer))
      assert.deepStrictEqual(metrics, { metrics: {} })
    }).pipe(Effect.scoped)
  )
})
