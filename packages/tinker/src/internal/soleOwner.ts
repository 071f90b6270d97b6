/// <reference lib="es2024.arraybuffer" />
/**
 * Gives the memory of what came over the network back at once.
 *
 * Pieces of a body lie outside the heap, and V8 goes through all that a program holds as soon as some megabytes of them have come
 * since it last did: at half a gigabyte a second that is many times a second, and takes longer than the download. Memory that
 * was given back does not count, and the next piece finds it in the processor's cache.
 *
 * Only pieces that nobody else can have are touched: those that undici read from a socket into memory of their own, and that no
 * one else listens to.
 */
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import { Readable } from "node:stream"

/** A field of the object itself; one that borrows it from another may well give other pieces than that. */
const own = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null && !Object.hasOwn(value, "stream")
    ? Object.getOwnPropertyDescriptor(value, name)?.value
    : undefined

/** Where undici's client has the body, if the answer came from it. Effect's client puts every answer into another. */
const bodyOf = (response: HttpClientResponse.HttpClientResponse): Readable | undefined => {
  const body = own(own(own(response, "original") ?? response, "source"), "body")
  return body instanceof Readable ? body : undefined
}

/** Frees pieces of the body of one answer; which are then empty. */
export const release = (
  response: HttpClientResponse.HttpClientResponse
): ((pieces: ReadonlyArray<Uint8Array>) => void) => {
  const body = bodyOf(response)
  if (body === undefined) return () => {}
  return (pieces) => {
    if (body.listenerCount("data") > 0) return
    for (const { buffer, byteLength } of pieces) {
      // Where it is a part, the rest is another piece, or still to be read.
      if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0)
    }
  }
}

/** Whether a piece was somebody else's as well, who has taken its memory. */
export const isTaken = ({ buffer }: Uint8Array): boolean => buffer instanceof ArrayBuffer && buffer.detached
