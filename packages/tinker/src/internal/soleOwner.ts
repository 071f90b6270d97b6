/// <reference lib="es2024.arraybuffer" />
/**
 * Gives the memory of what came over the network back at once.
 *
 * Pieces of a body lie outside the heap, and V8 goes through all that a program holds as soon as some megabytes of them have come
 * since it last did: at half a gigabyte a second that is many times a second, and takes longer than the download. Memory that
 * was given back does not count, and the next piece finds it in the processor's cache.
 *
 * Only pieces that nobody else can have are touched: those of a web stream of bytes, which gives its pieces away by the rules of
 * the web, and those that undici read from a socket into memory of their own, if no one else listens to it.
 */
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Result from "effect/Result"
import { Readable } from "node:stream"

/** A field of the object itself; one that borrows it from another may well give other pieces than that. */
const own = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && !Object.hasOwn(value, "stream")
    ? Object.getOwnPropertyDescriptor(value, name)?.value
    : undefined

/** What a client of Effect's has the body from; such a client puts every answer into another. */
const bodyOf = (response: HttpClientResponse.HttpClientResponse): unknown => {
  const source = own(own(response, "original") ?? response, "source")
  return source instanceof Response ? source.body : own(source, "body")
}

/** Only such a stream can be asked to read into memory of the reader's. */
const isByteStream = (body: unknown): boolean =>
  body instanceof ReadableStream && Result.isSuccess(Result.try(() => body.getReader({ mode: "byob" }).releaseLock()))

/** Whether the pieces of this body are, at this moment, nobody else's. */
const soleReader = (body: unknown): (() => boolean) => {
  if (body instanceof Readable) return () => body.listenerCount("data") === 0
  const bytes = isByteStream(body)
  return () => bytes
}

/** Frees pieces of the body of one answer, which is still to be read; the pieces are then empty. */
export const release = (
  response: HttpClientResponse.HttpClientResponse
): ((pieces: ReadonlyArray<Uint8Array>) => void) => {
  const isOurs = soleReader(bodyOf(response))
  return (pieces) => {
    if (!isOurs()) return
    for (const { buffer, byteLength } of pieces) {
      // Where it is a part, the rest is another piece, or still to be read.
      if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
    }
  }
}

/** Whether a piece was somebody else's as well, who has taken its memory. */
export const isTaken = ({ buffer }: Uint8Array): boolean => buffer instanceof ArrayBuffer && buffer.detached
