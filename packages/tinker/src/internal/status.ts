/** What the status of an answer means. */
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import {
  BadRequest,
  BadResponse,
  Conflict,
  Forbidden,
  NotFound,
  RateLimited,
  type Reason,
  RunLost,
  ServerFailure,
  TinkerError,
  Unauthorized
} from "../TinkerError.ts"
import * as Header from "../wire/Headers.ts"
import type { Reply } from "./request.ts"

export const isOk = (reply: Reply): boolean => reply.status >= 200 && reply.status < 300

/** 408, 429 and 5xx, unless the server says otherwise. */
export const isTransient = (reply: Reply): boolean => {
  const advice = reply.headers[Header.shouldRetry]
  if (advice === "true") return true
  if (advice === "false") return false
  return reply.status === 408 || reply.status === 429 || reply.status >= 500
}

const longestHintMillis = 60_000

/** The server's own idea of when to come back; one beyond a minute is not taken. */
export const retryHintMillis = (reply: Reply, now: number): number | undefined => {
  const millis = Number(reply.headers[Header.retryAfterMs])
  const text = reply.headers[Header.retryAfter]
  const seconds = Number(text)
  const hint = Number.isFinite(millis)
    ? millis
    : Number.isFinite(seconds)
      ? seconds * 1000
      : text === undefined
        ? Number.NaN
        : Date.parse(text) - now
  return hint > 0 && hint <= longestHintMillis ? Math.ceil(hint) : undefined
}

/** The beginning of a text of the service's, on one line. */
export const excerpt = (text: string): string => {
  const flat = text.replace(/\s+/g, " ").trim()
  return flat.length > 300 ? `${flat.slice(0, 300)}…` : flat
}

/** What the server says about itself: the `detail` of a JSON body, or the beginning of any other. */
export const detailOf = (reply: Reply): string => {
  const text = reply.text()
  const parsed = Result.try((): unknown => JSON.parse(text))
  if (Result.isSuccess(parsed) && typeof parsed.success === "object" && parsed.success !== null) {
    const body = parsed.success
    const told = "detail" in body ? body.detail : "error" in body ? body.error : "message" in body ? body.message : body
    return excerpt(typeof told === "string" ? told : JSON.stringify(told))
  }
  return text.trim() === "" ? "no further words" : excerpt(text)
}

/** The rest of an address may be signed. */
const hostOf = (address: string): string => {
  const parsed = Result.try(() => new URL(address))
  return Result.isSuccess(parsed) ? parsed.success.origin : "another place"
}

export const reasonOf = (operation: string, reply: Reply, detail: string, now: number): Reason => {
  const { status } = reply
  const refused = { operation, status, detail }
  switch (status) {
    case 401:
      return new Unauthorized(refused)
    case 403:
      return new Forbidden(refused)
    case 404:
      return new NotFound(refused)
    case 409:
      return new Conflict(refused)
    case 429: {
      const hint = retryHintMillis(reply, now)
      return new RateLimited({ operation, detail, retryAfter: hint === undefined ? undefined : Duration.millis(hint) })
    }
    default:
      if (status < 400) {
        const where = reply.headers[Header.location]
        const problem = `it leads elsewhere (${status}${where === undefined ? "" : ` to ${hostOf(where)}`}), where the key is not sent`
        return new BadResponse({ operation, problem })
      }
      return status >= 500 || status === 408 ? new ServerFailure(refused) : new BadRequest(refused)
  }
}

const notLoaded = /\b(?:not|no longer|never) (?:been )?loaded\b|\bunloaded\b/i
const damagedModel = /\b(?:model|run)\b.*\b(?:corrupt(?:ed)?|poisoned)\b/i
const damaged = /\b(?:corrupted|poisoned)\b/i

/**
 * Whether the text of a failure says that the model itself is gone or damaged. A load speaks of checkpoints too, and a user's
 * error of the user's input, so there the word alone proves nothing.
 */
export const saysLost = (detail: string, about: { readonly load: boolean; readonly byUser: boolean }): boolean =>
  notLoaded.test(detail) || (!about.byUser && (about.load ? damagedModel : damaged).test(detail))

const outOfOrder = /\bexpected\b\D{0,20}\d+.*\bgot\b\D{0,20}\d+/i

/** What a refused request on a model means for that model. */
export const lostModel =
  (runId: string, kind: string) =>
  (reply: Reply, detail: string, repeated: boolean): TinkerError | undefined => {
    const load = kind === "load_weights"
    const gone =
      (reply.status >= 400 && reply.status < 500 && saysLost(detail, { load, byUser: false })) ||
      // A number that the server does not expect from its only client: it has failed an operation and refuses the rest. On a
      // repeated request the same words only mean that the first copy was taken.
      (reply.status === 409 && !repeated && outOfOrder.test(detail)) ||
      (reply.status === 404 && !load)
    return gone ? new TinkerError({ reason: new RunLost({ runId, detail }) }) : undefined
  }
