/** Where archives are, and for how long. */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type { ArchiveOptions, ArchiveUrl } from "../RestClient.ts"
import * as Time from "../Time.ts"
import { BadResponse, ServerFailure, TinkerError } from "../TinkerError.ts"
import * as CheckpointPath from "../wire/CheckpointPath.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Header from "../wire/Headers.ts"
import * as Rest from "../wire/Rest.ts"
import { checkLimit, checkPath } from "./arguments.ts"
import type { Reply, Request } from "./request.ts"
import * as Status from "./status.ts"
import { decodeJson } from "./transport.ts"

/** Between two looks where the service gives no hint. */
const pauseMillis = 30_000
/** How long to wait for something that the service is making. */
export const buildLimit: Duration.Input = "30 minutes"
/** An address that comes without an end is taken to be good for so long. */
const addressMillis = 15 * 60_000

export const isAddress = (text: string): boolean => {
  const url = Result.try(() => new URL(text))
  return Result.isSuccess(url) && (url.success.protocol === "https:" || url.success.protocol === "http:")
}

/** An HTTP date, or any other time; one without a zone is UTC. */
const expiryOf = (text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  const time = Time.parse(text)
  if (Option.isSome(time)) return DateTime.toEpochMillis(time.value)
  const millis = Date.parse(/(?:GMT|UTC|Z|[+-]\d\d:?\d\d)$/i.test(text.trim()) ? text : `${text} GMT`)
  return Number.isNaN(millis) ? undefined : millis
}

const readArchiveUrl = (operation: string) => (reply: Reply) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    let url = reply.headers[Header.location]
    let expires = expiryOf(reply.headers[Header.expires])
    if (Status.isOk(reply)) {
      const body = yield* decodeJson(operation, Rest.ArchiveUrl)(reply)
      url = body.url
      expires = typeof body.expires === "string" ? expiryOf(body.expires) : undefined
    }
    if (url === undefined || !isAddress(url)) {
      const problem = url === undefined ? "it is a redirect without an address" : "its address is no http(s) URL"
      return yield* new TinkerError({ reason: new BadResponse({ operation, problem }) })
    }
    const found: ArchiveUrl = {
      url: Redacted.make(url, { label: "archive" }),
      expires: DateTime.makeUnsafe(expires ?? now + addressMillis)
    }
    return Option.some(found)
  })

/** Asks for the address of a checkpoint's archive until the service has made one. */
export const make = (request: Request) =>
  Effect.fn("RestClient.getCheckpointArchiveUrl")(function* (path: string, options: ArchiveOptions = {}) {
    const operation = `get the archive of ${path}`
    const parsed = yield* checkPath(operation, path)
    const limit = yield* checkLimit(operation, "buildLimit", options.buildLimit ?? buildLimit)
    const began = yield* Clock.currentTimeMillis
    while (true) {
      const found = yield* request(Endpoint.checkpointArchive(parsed.runId, CheckpointPath.checkpointId(parsed)), {
        operation,
        call: options,
        accepts: ({ status }) => status === 302 || status === 503,
        decode: (reply): Effect.Effect<Option.Option<ArchiveUrl> | Reply, TinkerError> =>
          reply.status === 503 ? Effect.succeed(reply) : readArchiveUrl(operation)(reply)
      })
      if (Option.isOption(found)) return yield* Effect.fromOption(found).pipe(Effect.orDie)
      const now = yield* Clock.currentTimeMillis
      const detail = Status.detailOf(found)
      const left = limit - (now - began)
      if (left <= 0) {
        return yield* new TinkerError({ reason: new ServerFailure({ operation, status: found.status, detail }) })
      }
      yield* Effect.logInfo(
        `The archive of ${path} is being built, for ${Math.round((now - began) / 1000)} s: ${detail}`
      )
      yield* Effect.sleep(Math.min(Status.retryHintMillis(found, now) ?? pauseMillis, left))
    }
  })
