/**
 * The bytes of an archive, across cut connections and addresses that run out.
 *
 * They are handed to a sink, in the fiber that reads them: a stream with a limit on each pull would start a fiber for every
 * piece, and every one of those waits for its turn on a busy machine.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import type { ArchiveOptions, ArchiveSink, ArchiveUrl, DownloadOptions } from "../RestClient.ts"
import { Timeout, TinkerError, Transport } from "../TinkerError.ts"
import * as CallLimits from "./callOptions.ts"
import * as Http from "./http.ts"
import * as SoleOwner from "./soleOwner.ts"
import * as Status from "./status.ts"
import { backoff } from "./transport.ts"

/** An address with less than this to live is replaced before it is used. */
const shortMillis = 10_000
/** A connection that gives nothing for so long is given up. */
const stallMillis = 60_000

const contentRange = /^bytes (\d+)-(\d+)\/(\d+|\*)$/

/** What the server says of the file, to tell whether it is still the same. A weak tag does not promise the same bytes. */
const validatorOf = (response: HttpClientResponse.HttpClientResponse): string | undefined => {
  const { etag } = response.headers
  return etag !== undefined && !etag.startsWith("W/") ? etag : response.headers["last-modified"]
}

const lengthOf = (response: HttpClientResponse.HttpClientResponse): number | undefined => {
  const length = Number(response.headers["content-length"] ?? Number.NaN)
  return Number.isSafeInteger(length) && length >= 0 ? length : undefined
}

/** Addresses end, and servers that sign them say so in several ways. */
const isRefusal = (status: number): boolean => status === 401 || status === 403 || status === 404 || status === 410

/** What the sink says, which no repetition of a request mends. */
class SinkFailed<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

export const make = (options: {
  readonly open: Http.Open
  readonly address: (path: string, options: ArchiveOptions) => Effect.Effect<ArchiveUrl, TinkerError>
  readonly deadlineMillis: number
}) => {
  const { address, open } = options

  const read = Effect.fnUntraced(function* <E, R>(
    path: string,
    sink: ArchiveSink<E, R>,
    given: DownloadOptions = {}
  ): Effect.fn.Return<void, TinkerError | E, R> {
    const operation = `download the archive of ${path}`
    const limits = yield* CallLimits.parse(operation, given)
    const deadlineMillis = limits.deadlineMillis ?? options.deadlineMillis
    const maxRetries = limits.maxRetries ?? Number.POSITIVE_INFINITY
    const clock = yield* Clock.Clock
    let held: ArchiveUrl | undefined
    let fresh = false
    let received = 0
    let total: number | undefined
    let validator: string | undefined
    let failures = 0
    let progressAt = clock.currentTimeMillisUnsafe()

    const cut = (problem: string) => new TinkerError({ reason: new Transport({ operation, problem }) })

    /** What was given out cannot be taken back: whoever reads has to begin again. */
    const changed = (problem: string) =>
      Effect.suspend(() => {
        failures = Number.POSITIVE_INFINITY
        return Effect.fail(cut(`it was cut after ${received} bytes, and ${problem}`))
      })

    const addressed = Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      if (held !== undefined && DateTime.toEpochMillis(held.expires) - now >= shortMillis) return held
      held = yield* address(path, given)
      fresh = true
      return held
    })

    /** Asks for what is missing. None where nothing is. */
    const request = Effect.gen(function* () {
      const { url } = yield* addressed
      const secret = Redacted.value(url)
      const response = yield* open({
        operation,
        url: secret,
        // Compressed on its way it would have other offsets.
        headers: {
          accept: "*/*",
          "accept-encoding": "identity",
          // A cache in the client would keep the pieces, which are given back here.
          "cache-control": "no-store",
          ...(received === 0 ? {} : { range: `bytes=${received}-` }),
          ...(received === 0 || validator === undefined ? {} : { "if-range": validator })
        },
        limitMillis: stallMillis
      })
      const { status } = response
      if (isRefusal(status) && !fresh) {
        held = undefined
        return yield* cut(`its address is not accepted any more (${status})`)
      }
      fresh = false
      if (status === 416 && received === total) return Option.none()
      if (status === 206 && received > 0) {
        const [, start, , whole] = contentRange.exec(response.headers["content-range"] ?? "") ?? []
        if (Number(start) !== received || (whole !== "*" && total !== undefined && Number(whole) !== total)) {
          return yield* changed("the server continues at another place than it was asked for")
        }
        return Option.some({ response, secret })
      }
      if (status === 200) {
        if (received > 0) return yield* changed("the server cannot continue in the middle")
        total = lengthOf(response)
        validator = validatorOf(response)
        return Option.some({ response, secret })
      }
      const now = yield* Clock.currentTimeMillis
      const reply = { status, headers: response.headers, body: new Uint8Array(), text: () => "" }
      const reason = Status.reasonOf(operation, reply, `the place where the archive is kept answers ${status}`, now)
      return yield* new TinkerError({ reason })
    })

    const pour = Effect.fnUntraced(function* (response: HttpClientResponse.HttpClientResponse, secret: string) {
      /** When anything last came over this connection. */
      let movedAt = clock.currentTimeMillisUnsafe()
      let sinking = false
      const free = SoleOwner.release(response)
      /** Fails when nothing has come for too long; one look now and then is cheaper than a timer for each piece. */
      const stalled = Effect.gen(function* () {
        while (true) {
          const idle = sinking ? 0 : clock.currentTimeMillisUnsafe() - movedAt
          if (idle >= stallMillis) {
            return yield* new TinkerError({ reason: new Timeout({ operation, limit: Duration.millis(stallMillis) }) })
          }
          yield* Effect.sleep(stallMillis - idle)
        }
      })
      const all = Stream.runForEachArray(
        Stream.mapError(response.stream, (error) => Http.unread(operation, secret, error)),
        (pieces): Effect.Effect<void, TinkerError | SinkFailed<E>, R> => {
          if (pieces.some(SoleOwner.isTaken)) return changed("what came then was taken by another reader of the answer")
          for (const piece of pieces) received += piece.length
          failures = 0
          sinking = true
          return Effect.map(
            Effect.mapError(
              sink(pieces, () => free(pieces)),
              (error) => new SinkFailed(error)
            ),
            () => {
              sinking = false
              progressAt = movedAt = clock.currentTimeMillisUnsafe()
              given.onProgress?.({ received, total: Option.fromUndefinedOr(total) })
            }
          )
        }
      )
      yield* Effect.raceFirst(all, stalled)
      if (total !== undefined && received < total) return yield* cut(`it ended after ${received} of ${total} bytes`)
    })

    while (true) {
      const error = yield* Effect.flatMap(
        request,
        Option.match({ onNone: () => Effect.void, onSome: ({ response, secret }) => pour(response, secret) })
      ).pipe(Effect.as(undefined), Effect.catch(Effect.succeed))
      if (error === undefined) return
      if (error instanceof SinkFailed) return yield* Effect.fail(error.error)
      const left = deadlineMillis - ((yield* Clock.currentTimeMillis) - progressAt)
      if (!error.isRetryable || failures >= maxRetries || left <= 0) return yield* error
      const delay = yield* backoff(failures++, 500, 10_000)
      yield* Effect.logDebug(`${error.message} It goes on from byte ${received} in ${delay} ms`)
      yield* Effect.sleep(Math.min(delay, left))
    }
  })

  const stream = (path: string, given?: DownloadOptions): Stream.Stream<Uint8Array, TinkerError> =>
    Stream.callback<Uint8Array, TinkerError>(
      (queue) =>
        read(path, (pieces) => Effect.asVoid(Queue.offerAll(queue, pieces)), given).pipe(
          Effect.andThen(Queue.end(queue))
        ),
      { bufferSize: 16, strategy: "suspend" }
    )

  return { read, stream }
}
