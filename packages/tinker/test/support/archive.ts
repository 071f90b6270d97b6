// Archives made for tests, and a place that keeps them and misbehaves on demand.
import { Effect, Layer, Stream } from "effect"
import * as Tar from "effect/encoding/Tar"
import { HttpClient, HttpClientResponse } from "effect/http"
import { gzipSync } from "node:zlib"
import { RestClient } from "../../src/RestClient.ts"
import * as Service from "./fakeService.ts"

/** A safetensors file. */
export const safetensors = (
  tensors: Record<
    string,
    { readonly dtype: string; readonly shape: ReadonlyArray<number>; readonly bytes: Uint8Array }
  >,
  change: (header: Record<string, unknown>) => unknown = (header) => header
): Buffer => {
  let offset = 0
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } }
  for (const [name, { bytes, dtype, shape }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, (offset += bytes.length)] }
  }
  const text = Buffer.from(JSON.stringify(change(header)))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([length, text, ...Object.values(tensors).map(({ bytes }) => bytes)])
}

export const weights = safetensors({
  "base_model.model.layer.lora_A.weight": { dtype: "F32", shape: [2, 3], bytes: Buffer.alloc(24, 1) },
  "base_model.model.layer.lora_B.weight": { dtype: "BF16", shape: [3, 2], bytes: Buffer.alloc(12, 2) }
})

export const checkpointFiles = (): Array<Tar.Entry> => [
  Tar.file("adapter_config.json", JSON.stringify({ r: 2, lora_alpha: 32, base_model_name_or_path: "org/base" })),
  Tar.file("adapter_model.safetensors", weights),
  Tar.file("checkpoint_complete", "")
]

export const tar = (entries: ReadonlyArray<Tar.Entry>) =>
  Stream.fromIterable(entries).pipe(
    Stream.pipeThroughChannel(Tar.encode()),
    Stream.runCollect,
    Effect.map((chunks) => Buffer.concat(chunks))
  )

export const archive = (entries: ReadonlyArray<Tar.Entry> = checkpointFiles()) =>
  Effect.map(tar(entries), (bytes): Buffer => gzipSync(bytes))

/** What one request for the file gets. */
export interface Serving {
  readonly status?: number
  /** The connection breaks after so many bytes of what it was to send. */
  readonly cutAfter?: number
  /** Nothing comes after so many bytes. */
  readonly stallAfter?: number
  /** A piece after so many bytes has lost its memory, as one that somebody else has transferred. */
  readonly takenAfter?: number
  readonly ignoreRange?: boolean
  readonly etag?: string | null
  readonly bytes?: Uint8Array
  /** Sent in place of what the range says. */
  readonly contentRange?: string
}

export const address = "https://files.test/archive.tar.gz?token=hunter2"

/** The service, and beside it the place that its archives are at. Every request for the file is handed to `serve`. */
export const withFile = (
  file: Uint8Array,
  serve: (nth: number, headers: Record<string, string | undefined>) => Serving,
  expires?: (nth: number) => string
) => {
  const fake = Service.make((seen) =>
    seen.path.endsWith("/archive")
      ? {
          status: 302,
          text: "",
          headers: {
            location: `${address}&n=${seen.nth}`,
            ...(expires === undefined ? {} : { expires: expires(seen.nth) })
          }
        }
      : undefined
  )
  const requests: Array<{ readonly url: string; readonly headers: Record<string, string | undefined> }> = []
  const files = HttpClient.make((request, url) =>
    Effect.sync(() => {
      const headers: Record<string, string | undefined> = { ...request.headers }
      const how = serve(requests.length, headers)
      requests.push({ url: url.href, headers })
      const all = how.bytes ?? file
      const etag = how.etag === undefined ? '"v1"' : how.etag
      const from = Number(/^bytes=(\d+)-$/.exec(headers["range"] ?? "")?.[1] ?? 0)
      const sameFile = headers["if-range"] === undefined || headers["if-range"] === etag
      const ranged = from > 0 && how.ignoreRange !== true && sameFile
      const body = how.status !== undefined && how.status >= 300 ? new Uint8Array() : ranged ? all.subarray(from) : all
      const stop = how.cutAfter ?? how.stallAfter
      const sent = stop === undefined ? body : body.subarray(0, stop)
      let offset = 0
      const stream = new ReadableStream<Uint8Array>({
        pull(controller) {
          if (offset < sent.length) {
            const piece = Uint8Array.from(sent.subarray(offset, (offset += 16)))
            if (offset - 16 === how.takenAfter) structuredClone(piece.buffer, { transfer: [piece.buffer] })
            controller.enqueue(piece)
            return undefined
          }
          if (how.cutAfter !== undefined) {
            controller.error(new TypeError("terminated", { cause: new Error("other side closed") }))
            return undefined
          }
          if (how.stallAfter !== undefined) return new Promise(() => {})
          controller.close()
          return undefined
        }
      })
      return HttpClientResponse.fromWeb(
        request,
        new Response(stream, {
          status: how.status ?? (ranged ? 206 : 200),
          headers: {
            "content-length": String(body.length),
            ...(etag === null ? {} : { etag }),
            ...(ranged ? { "content-range": how.contentRange ?? `bytes ${from}-${all.length - 1}/${all.length}` } : {})
          }
        })
      )
    })
  )
  const service = Effect.map(HttpClient.HttpClient, (client) =>
    HttpClient.make((request, url) => (url.host === "files.test" ? files.execute(request) : client.execute(request)))
  ).pipe(Effect.provide(fake.layer))
  const layer = Layer.effect(HttpClient.HttpClient, service)
  return {
    requests,
    fake,
    layer,
    provide: Effect.provide(Service.connect({ ...fake, layer }, { deadline: "2 minutes" }))
  }
}

export const stream = (path: string, options?: Parameters<RestClient["Service"]["streamCheckpointArchive"]>[1]) =>
  Stream.unwrap(Effect.map(RestClient, (rest) => rest.streamCheckpointArchive(path, options)))
