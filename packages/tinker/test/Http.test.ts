// What only a socket can show: where the key goes, what a broken connection looks like, and that a reply has an end.
import { NodeHttpClient, NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { FetchHttpClient, HttpClient } from "effect/http"
import { randomBytes } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Readable } from "node:stream"
import * as CheckpointArchive from "../src/CheckpointArchive.ts"
import { RestClient } from "../src/RestClient.ts"
import { Tinker } from "../src/Tinker.ts"
import type { TinkerError } from "../src/TinkerError.ts"
import { key } from "./support/fakeService.ts"

interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage["headers"]
  readonly body: string
}

const serve = (answer: (seen: Seen, response: ServerResponse) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly seen: Array<Seen>; readonly stop: () => void }>((resume) => {
      const seen: Array<Seen> = []
      const server = createServer((request, response) => {
        let body = ""
        request.on("data", (piece) => (body += String(piece)))
        request.on("end", () => {
          const one = { method: request.method ?? "", url: request.url ?? "", headers: request.headers, body }
          seen.push(one)
          if (one.url.endsWith("client/config") || one.url.endsWith("dynamic_config")) return void response.end("{}")
          answer(one, response)
        })
      }).listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo // it listens on a port
        const stop = () => {
          server.close()
          server.closeAllConnections()
        }
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, seen, stop }))
      })
    }),
    ({ stop }) => Effect.sync(stop)
  )

const over = (http: Layer.Layer<HttpClient.HttpClient>, url: string) =>
  Tinker.layer({ apiKey: key, baseUrl: url, deadline: "10 seconds" }).pipe(Layer.provide(http), Layer.fresh)

/** What is in the file when an archive was brought to the disk. */
const downloaded = (layer: Layer.Layer<RestClient, TinkerError>) =>
  Effect.gen(function* () {
    const folder = mkdtempSync(join(tmpdir(), "zz-http-"))
    yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(folder, { recursive: true })))
    const bytes = yield* CheckpointArchive.downloadFile("tinker://r/weights/a", join(folder, "a"))
    const file = readFileSync(join(folder, "a"))
    assert.strictEqual(bytes, file.length)
    return file
  }).pipe(Effect.provide(layer), Effect.provide(NodeServices.layer))

const clients: ReadonlyArray<[string, Layer.Layer<HttpClient.HttpClient>]> = [
  ["fetch", FetchHttpClient.layer],
  ["undici", NodeHttpClient.layerUndici],
  ["node:http", NodeHttpClient.layerNodeHttp]
]

describe.each(clients)("over %s", (_, http) => {
  it.live("a redirect to another host is not followed, and the key does not get there", () =>
    Effect.gen(function* () {
      const elsewhere = yield* serve((_, response) => void response.end("{}"))
      for (const status of [301, 302, 303, 307, 308]) {
        const service = yield* serve(
          (seen, response) =>
            void response.writeHead(status, { location: `${elsewhere.url}${seen.url}?token=hunter2` }).end()
        )
        const error = yield* Effect.flatMap(RestClient, (rest) => rest.weightsInfo("tinker://r/weights/a")).pipe(
          Effect.flip,
          Effect.provide(over(http, service.url))
        )
        assert.strictEqual(error.reason._tag, "BadResponse")
        assert.include(error.message, elsewhere.url)
        assert.notInclude(error.message, "hunter2")
      }
      assert.deepStrictEqual(elsewhere.seen, [])
    }).pipe(Effect.scoped)
  )

  it.live("a redirect on the same host is, with the same request; a circle has an end", () =>
    Effect.gen(function* () {
      const service = yield* serve((seen, response) => {
        if (seen.url.startsWith("/moved/")) {
          return void response.end(JSON.stringify({ base_model: "org/base", is_lora: true, lora_rank: 4 }))
        }
        if (seen.url.includes("circle")) return void response.writeHead(307, { location: seen.url }).end()
        response.writeHead(308, { location: `/moved${seen.url}` }).end()
      })
      const rest = Context.get(yield* Layer.build(over(http, service.url)), RestClient)
      assert.strictEqual((yield* rest.weightsInfo("tinker://r/weights/a")).baseModel, "org/base")
      const [first, second] = service.seen.filter((seen) => seen.url.includes("weights_info"))
      assert.deepStrictEqual(
        [second?.method, second?.body, second?.headers["x-api-key"]],
        [first?.method, first?.body, key]
      )
      const error = yield* Effect.flip(rest.getTrainingRun("circle"))
      assert.strictEqual(error.reason._tag, "BadResponse")
      assert.isAtMost(service.seen.filter((seen) => seen.url.includes("circle")).length, 6)
    }).pipe(Effect.scoped)
  )

  it.live("the address of an archive is read, not followed", () =>
    Effect.gen(function* () {
      const elsewhere = yield* serve((_, response) => void response.end("archive"))
      const service = yield* serve(
        (_, response) => void response.writeHead(302, { location: `${elsewhere.url}/file` }).end()
      )
      const rest = Context.get(yield* Layer.build(over(http, service.url)), RestClient)
      const { url } = yield* rest.getCheckpointArchiveUrl("tinker://r/weights/a")
      assert.strictEqual(Redacted.value(url), `${elsewhere.url}/file`)
      assert.deepStrictEqual(elsewhere.seen, [])
    }).pipe(Effect.scoped)
  )

  it.live("an archive is taken up where the connection broke, by its range, and nobody there sees the key", () =>
    Effect.gen(function* () {
      const file = randomBytes(3_000_000)
      let requests = 0
      const place = yield* serve((seen, response) => {
        const from = Number(/^bytes=(\d+)-$/.exec(seen.headers.range ?? "")?.[1] ?? 0)
        response.writeHead(from === 0 ? 200 : 206, {
          etag: '"1"',
          "content-length": file.length - from,
          ...(from === 0 ? {} : { "content-range": `bytes ${from}-${file.length - 1}/${file.length}` })
        })
        if (requests++ > 0) return void response.end(file.subarray(from))
        response.write(file.subarray(0, 1_000_000), () => setImmediate(() => response.destroy()))
      })
      const service = yield* serve((_, response) => void response.writeHead(302, { location: `${place.url}/f` }).end())
      assert.isTrue((yield* downloaded(over(http, service.url))).equals(file))
      assert.strictEqual(place.seen.length, 2)
      assert.match(place.seen[1]?.headers.range ?? "", /^bytes=[1-9]\d*-$/)
      assert.isTrue(place.seen.every((seen) => seen.headers["x-api-key"] === undefined))
    }).pipe(Effect.scoped)
  )

  it.live("an archive of pieces that share their memory arrives whole", () =>
    Effect.gen(function* () {
      const file = randomBytes(3_000_000)
      const place = yield* serve((_, response) => {
        // Without a length it comes in chunks of HTTP, several to a read of the socket.
        let sent = 0
        const more = () => {
          while (sent < file.length) {
            if (!response.write(file.subarray(sent, (sent += 5_000)))) return void response.once("drain", more)
          }
          response.end()
        }
        more()
      })
      const service = yield* serve((_, response) => void response.writeHead(302, { location: `${place.url}/f` }).end())
      assert.isTrue((yield* downloaded(over(http, service.url))).equals(file))
    }).pipe(Effect.scoped)
  )

  it.live("an error page without end is read no further than its beginning", () =>
    Effect.gen(function* () {
      let sent = 0
      const service = yield* serve((_, response) => {
        response.writeHead(404, { "content-type": "text/html" })
        const piece = Buffer.alloc(65_536, "x")
        const more = () => {
          while (!response.destroyed && response.write(piece)) sent += piece.length
          sent += piece.length
        }
        response.on("drain", more)
        more()
      })
      const rest = Context.get(yield* Layer.build(over(http, service.url)), RestClient)
      const error = yield* Effect.flip(rest.getTrainingRun("r"))
      assert.strictEqual(error.reason._tag, "NotFound")
      assert.isBelow(sent, 64_000_000)
    }).pipe(Effect.scoped)
  )
})

describe("the pieces of an archive", () => {
  const file = randomBytes(1_000_000)

  /** Reads an archive as `sink` says; gives what every piece holds in the end, beside what it held when it came. */
  const pieces = (http: Layer.Layer<HttpClient.HttpClient>, release: boolean) =>
    Effect.gen(function* () {
      const place = yield* serve((_, response) => void response.end(file))
      const service = yield* serve((_, response) => void response.writeHead(302, { location: `${place.url}/f` }).end())
      const came: Array<Uint8Array> = []
      const copies: Array<Buffer> = []
      yield* Effect.flatMap(RestClient, (rest) =>
        rest.readCheckpointArchive("tinker://r/weights/a", (some, done) =>
          Effect.sync(() => {
            came.push(...some)
            copies.push(...some.map((piece) => Buffer.from(piece)))
            if (release) done()
          })
        )
      ).pipe(Effect.provide(over(http, service.url)))
      assert.isTrue(Buffer.concat(copies).equals(file))
      return {
        left: came.reduce((bytes, piece) => bytes + piece.length, 0),
        came,
        caching: place.seen[0]?.headers["cache-control"]
      }
    }).pipe(Effect.scoped)

  it.live.each(clients.slice(0, 2))("are given back over %s when the sink says so, unless they share it", ([, http]) =>
    Effect.gen(function* () {
      const { caching, came, left } = yield* pieces(http, true)
      assert.isBelow(left, file.length / 2)
      for (const piece of came) assert.isTrue(piece.length === 0 || piece.length < piece.buffer.byteLength)
      assert.strictEqual(caching, "no-store") // so that no cache in the client has them too
    })
  )

  it.live.each(clients)("are left alone over %s while the sink says nothing", ([, http]) =>
    Effect.gen(function* () {
      assert.strictEqual((yield* pieces(http, false)).left, file.length)
    })
  )

  it.live("are left alone where a stream may have kept them", () =>
    Effect.gen(function* () {
      const kept: Array<Uint8Array> = []
      const keeping = new TransformStream<Uint8Array, Uint8Array>({
        transform: (piece, controller) => {
          kept.push(piece)
          controller.enqueue(piece)
        }
      })
      const fetching: typeof fetch = async (input, init) => {
        const response = await fetch(input, init)
        return response.url.endsWith("/f") ? new Response(response.body?.pipeThrough(keeping)) : response
      }
      const http = FetchHttpClient.layer.pipe(Layer.provide(Layer.succeed(FetchHttpClient.Fetch, fetching)))
      assert.strictEqual((yield* pieces(http, true)).left, file.length)
      assert.isTrue(Buffer.concat(kept).equals(file))
    })
  )

  it.live("are left alone where somebody else listens to the body", () =>
    Effect.gen(function* () {
      const heard: Array<Uint8Array> = []
      const tapped = Layer.effect(
        HttpClient.HttpClient,
        Effect.map(
          HttpClient.HttpClient,
          HttpClient.tap((response) =>
            Effect.sync(() => {
              if (!response.request.url.endsWith("/f")) return
              const { original } = response as unknown as {
                readonly original: { readonly source: { readonly body: Readable } }
              } // as it is over undici
              original.source.body.on("data", (piece: Uint8Array) => heard.push(piece))
            })
          )
        )
      ).pipe(Layer.provide(NodeHttpClient.layerUndici))
      assert.strictEqual((yield* pieces(tapped, true)).left, file.length)
      assert.isTrue(Buffer.concat(heard).equals(file))
    })
  )
})
