/** Fetches the result of an accepted operation. Errors, and answers that cannot be read, repeat the fetch, never the operation. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import type { QueueState } from "../ApiFuture.ts"
import { BadResponse, BillingPaused, PromiseExpired, RequestFailed, RunLost, TinkerError } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Header from "../wire/Headers.ts"
import * as Json from "../wire/Json.ts"
import type { Reply } from "./request.ts"
import * as Status from "./status.ts"
import {
  backoff,
  badResponse,
  billingPauseMillis,
  decodeValue,
  encodeJson,
  parseJson,
  type Transport
} from "./transport.ts"

export interface Poll<A> {
  readonly operation: string
  readonly requestId: string
  /** What the service calls the operation, such as `OptimStep`. */
  readonly requestType: string
  readonly runId: string
  readonly kind: string
  /** `binary`: from the protobuf body; else from the JSON value. */
  readonly decode:
    | { readonly _tag: "binary"; readonly read: (bytes: Uint8Array) => Effect.Effect<A, TinkerError> }
    | { readonly _tag: "json"; readonly read: (value: unknown) => Effect.Effect<A, TinkerError> }
  readonly onState: (state: QueueState) => Effect.Effect<void>
  /** Asked before each poll; what it gives ends the fetch. */
  readonly giveUp?: (now: number) => TinkerError | undefined
  /** No good answer for so long ends the fetch. */
  readonly toleranceMillis: number
}

const polls = Metric.counter("tinkex.tinker.polls", { incremental: true })

const pollTimeoutMillis = 45_000
/** A server that answers "not yet" faster than this does not hold the request, so the client has to pause by itself. */
const heldMillis = 500
const badRequestRetries = 3
/** How often in a row an answer that cannot be read is asked for again: reading changes nothing on the service. */
const readAgain = 3

const states = new Set(["active", "paused_capacity", "paused_rate_limit"])

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

const queueState = (body: unknown): QueueState | undefined => {
  if (!isRecord(body)) return undefined
  const { queue_state: state, queue_state_reason: reason } = body
  if (typeof state !== "string" && typeof reason !== "string") return undefined
  return {
    // The set holds exactly the known states.
    state: typeof state === "string" && states.has(state) ? (state as QueueState["state"]) : "unknown",
    reason: typeof reason === "string" ? Status.excerpt(reason) : undefined
  }
}

export const retrieve = <A>(transport: Transport, poll: Poll<A>): Effect.Effect<A, TinkerError> =>
  Effect.tapError(fetch(transport, poll), transport.failed)

const fetch = Effect.fnUntraced(function* <A>(transport: Transport, poll: Poll<A>): Effect.fn.Return<A, TinkerError> {
  const { decode, operation, requestId, runId, toleranceMillis } = poll
  const explain = Status.lostModel(runId, poll.kind)
  let iteration = 0
  let failures = 0
  let quick = 0
  let badRequests = 0
  let unreadable = 0
  let billing = 0
  let goodAt = yield* Clock.currentTimeMillis

  const fetch = Effect.fnUntraced(function* (allowMetadataOnly: boolean): Effect.fn.Return<A, TinkerError> {
    while (true) {
      const started = yield* Clock.currentTimeMillis
      const over = poll.giveUp?.(started)
      if (over !== undefined) return yield* over
      const outcome = yield* Effect.result(
        transport.send({
          operation: `fetching ${operation}`,
          endpoint: Endpoint.retrieveFuture,
          body: encodeJson({ request_id: requestId, allow_metadata_only: allowMetadataOnly }),
          headers: {
            accept: decode._tag === "binary" ? Header.protobuf : Header.json,
            [Header.requestIteration]: String(iteration++),
            [Header.requestType]: poll.requestType
          },
          timeoutMillis: pollTimeoutMillis
        })
      )
      yield* Metric.update(polls, 1)
      const now = yield* Clock.currentTimeMillis

      if (Result.isFailure(outcome) || isOutage(outcome.success)) {
        const error = Result.isFailure(outcome)
          ? outcome.failure
          : new TinkerError({
              reason: Status.reasonOf(operation, outcome.success, Status.detailOf(outcome.success), now)
            })
        if (!error.isRetryable) return yield* error
        // A poll that was held too long says nothing against a server that answers others meanwhile.
        const alive = error.reason._tag === "Timeout" ? Math.max(goodAt, transport.answeredAt()) : goodAt
        const left = toleranceMillis - (now - alive)
        if (left <= 0) return yield* error
        const hint = Result.isSuccess(outcome) ? Status.retryHintMillis(outcome.success, now) : undefined
        const delay = hint ?? (yield* backoff(failures++, 500, 30_000))
        yield* Effect.logDebug(`${error.message} Next poll in ${Math.round(delay)} ms`)
        yield* Effect.sleep(Math.min(delay, left))
        continue
      }

      const reply = outcome.success
      goodAt = now
      switch (reply.status) {
        case 402: {
          const detail = Status.detailOf(reply)
          const config = yield* transport.boot
          if (billing >= config.billing_exception_max_pause_duration_sec * 1000) {
            const waited = Duration.millis(billing)
            return yield* new TinkerError({ reason: new BillingPaused({ operation, detail, waited }) })
          }
          yield* Effect.logWarning(`${operation} waits for the account's billing: ${detail}`)
          yield* Effect.sleep(billingPauseMillis)
          billing += billingPauseMillis
          continue
        }
        case 408: {
          const body = yield* Effect.option(parseJson(operation, reply))
          if (body._tag === "Some") yield* report(poll, body.value)
          failures = badRequests = billing = 0
          quick = yield* pace(quick, now - started)
          continue
        }
        case 410:
          return yield* new TinkerError({ reason: new PromiseExpired({ operation, requestId }) })
        case 429: {
          const delay = Status.retryHintMillis(reply, now) ?? (yield* backoff(failures++, 1000, 30_000))
          yield* Effect.sleep(delay)
          continue
        }
      }
      if (!Status.isOk(reply)) {
        const detail = Status.detailOf(reply)
        const told = reply.status === 404 ? undefined : explain(reply, detail, true)
        if (told !== undefined) return yield* told
        if (reply.status === 400 && badRequests < badRequestRetries) {
          yield* Effect.sleep(yield* backoff(badRequests++, 500, 10_000))
          continue
        }
        return yield* new TinkerError({ reason: Status.reasonOf(operation, reply, detail, now) })
      }

      failures = badRequests = billing = 0
      const read = yield* Effect.result(contentOf(transport, poll, reply, allowMetadataOnly))
      if (Result.isFailure(read)) {
        const { reason } = read.failure
        if (reason._tag !== "BadResponse") return yield* read.failure
        const { problem } = reason
        if (unreadable === readAgain) {
          const tries = unreadable + 1
          return yield* new TinkerError({ reason: new BadResponse({ operation: reason.operation, problem, tries }) })
        }
        const delay = yield* backoff(unreadable++, 500, 10_000)
        yield* Effect.logWarning(
          `${operation} has a result that makes no sense (${problem}): read again in ${delay} ms`
        )
        yield* Effect.sleep(delay)
        continue
      }
      unreadable = 0
      const content = read.success
      switch (content._tag) {
        case "result":
          return content.value
        case "pending":
          yield* report(poll, content.body)
          quick = yield* pace(quick, now - started)
          continue
        case "announced":
          // A large one waits until those before it are read.
          return yield* transport.responses().spend(content.size)(fetch(false))
      }
    }
  })
  return yield* fetch(true)
})

/** What came with a good status. */
type Content<A> =
  | { readonly _tag: "result"; readonly value: A }
  | { readonly _tag: "pending"; readonly body: Record<string, unknown> }
  | { readonly _tag: "announced"; readonly size: number }

/** Fails with `BadResponse` where it cannot be read, and with another reason where it says that the operation failed. */
const contentOf = Effect.fnUntraced(function* <A>(
  transport: Transport,
  poll: Poll<A>,
  reply: Reply,
  allowMetadataOnly: boolean
): Effect.fn.Return<Content<A>, TinkerError> {
  const { decode, operation } = poll
  const contentType = reply.headers["content-type"] ?? ""
  if (contentType.includes(Header.protobuf)) {
    if (decode._tag !== "binary") return yield* badResponse(operation, "it is protobuf where JSON was due")
    return { _tag: "result", value: yield* Effect.mapError(decode.read(reply.body), scrubbed(transport)) }
  }
  const body = yield* parseJson(operation, reply)
  if (!isRecord(body))
    return yield* badResponse(operation, `expected a JSON object, got ${Status.excerpt(JSON.stringify(body))}`)
  if (body.type === "try_again") return { _tag: "pending", body }
  if (body.status === "complete_metadata") {
    const { response_payload_size: size } = yield* decodeValue(operation, Json.CompleteMetadata)(body)
    if (!allowMetadataOnly) return yield* badResponse(operation, "its size was announced twice, without its content")
    return { _tag: "announced", size }
  }
  if ("error" in body) return yield* failed(poll, body)
  if (decode._tag !== "json")
    return yield* badResponse(operation, `it is JSON (${Status.excerpt(contentType)}) where protobuf was due`)
  return { _tag: "result", value: yield* decode.read(body) }
})

/** What a binary answer holds was not scrubbed as a text is. */
const scrubbed = (transport: Transport) => (error: TinkerError) =>
  error.reason._tag === "BadResponse"
    ? badResponse(error.reason.operation, transport.scrub(error.reason.problem))
    : error

const isOutage = (reply: Reply): boolean => reply.status >= 500

const report = <A>(poll: Poll<A>, body: unknown) => {
  const state = queueState(body)
  return state === undefined ? Effect.void : poll.onState(state)
}

/** The next count of quick answers in a row. */
const pace = Effect.fnUntraced(function* (quick: number, tookMillis: number) {
  if (tookMillis >= heldMillis) return 0
  yield* Effect.sleep(yield* backoff(quick, 100, 2000))
  return quick + 1
})

const failed = Effect.fnUntraced(function* <A>(poll: Poll<A>, body: Record<string, unknown>) {
  const { kind, operation, requestId, runId } = poll
  const detail = Status.excerpt(typeof body.error === "string" ? body.error : JSON.stringify(body.error))
  const category = body.category === "user" || body.category === "server" ? body.category : "unknown"
  const lost = Status.saysLost(detail, { load: kind === "load_weights", byUser: category === "user" })
  return yield* new TinkerError({
    reason: lost ? new RunLost({ runId, detail }) : new RequestFailed({ operation, requestId, category, detail })
  })
})
