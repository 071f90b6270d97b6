/**
 * Learns which results of a sampling session have come, by one request for all instead of one for each. Services of later
 * revisions ask for it by their configuration.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { TinkerError } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as SamplingSession from "../wire/SamplingSession.ts"
import * as Status from "./status.ts"
import { billingPauseMillis, decodeJson, encodeJson, type Transport } from "./transport.ts"

export interface Completions {
  /** Waits until the result of a request is there, or until that cannot be learnt in this way. */
  readonly wait: (requestId: string) => Effect.Effect<void>
}

const holdSeconds = 30
const limitMillis = 45_000
const pauseMillis = 1000
/** A service that answers "nothing yet" faster than this does not hold the request. */
const heldMillis = 500
const badRequestsAllowed = 3
/** Results that came before somebody waited for them; what is older was abandoned. */
const mostKept = 10_000

export const make = (options: {
  readonly transport: Transport
  readonly samplingSessionId: string
  /** 0 for the process that made the session; another one numbers its requests from so many thousand millions on. */
  readonly clone: number
  readonly scope: Scope.Scope
  /** No good answer for so long, and each result is asked for by itself. */
  readonly toleranceMillis: number
}): Completions => {
  const { clone, samplingSessionId, scope, toleranceMillis, transport } = options
  const operation = `learn what sampler ${samplingSessionId} has finished`
  const waiting = new Map<string, Deferred.Deferred<void>>()
  const come = new Set<string>()
  let cursor = 0
  let asking = false
  /** After a refusal each result is asked for by itself, as earlier services want it. */
  let refused = false

  const release = (requestId: string) => {
    const waiter = waiting.get(requestId)
    if (waiter === undefined) {
      come.add(requestId)
      if (come.size > mostKept) come.delete(come.values().next().value ?? "")
      return
    }
    waiting.delete(requestId)
    Deferred.doneUnsafe(waiter, Effect.void)
  }

  const ask = Effect.suspend(() =>
    transport.send({
      operation,
      endpoint: Endpoint.retrieveFutures,
      body: encodeJson({
        target: { type: "sampling_session", sampling_session_id: samplingSessionId, cloned_sampler_id: clone },
        prev_cursor: cursor,
        timeout: holdSeconds
      }),
      timeoutMillis: limitMillis
    })
  )

  const giveUp = (why: string) =>
    Effect.andThen(
      Effect.logWarning(`Each sample is asked for by itself from now on: ${why}`),
      Effect.sync(() => {
        refused = true
        for (const requestId of waiting.keys()) release(requestId)
        come.clear()
      })
    )

  const isWanted = () => waiting.size > 0 && !refused

  /** The next question comes after a pause, unless there was no good answer for too long. */
  const pause = (silence: number) =>
    silence >= toleranceMillis
      ? giveUp(`no good answer for ${Math.round(silence / 1000)} s`)
      : Effect.sleep(Math.min(pauseMillis, toleranceMillis - silence))

  const work = Effect.gen(function* () {
    let badRequests = 0
    let goodAt = yield* Clock.currentTimeMillis
    while (isWanted()) {
      const began = yield* Clock.currentTimeMillis
      const outcome = yield* Effect.result(ask)
      const now = yield* Clock.currentTimeMillis
      if (Result.isFailure(outcome)) {
        if (outcome.failure.isRetryable) yield* pause(now - goodAt)
        else yield* giveUp(outcome.failure.message)
        continue
      }
      const reply = outcome.success
      if (Status.isOk(reply)) {
        const read = yield* Effect.result(decodeJson(operation, SamplingSession.RetrieveFutures)(reply))
        if (Result.isFailure(read)) {
          yield* giveUp(read.failure.message)
          continue
        }
        badRequests = 0
        goodAt = now
        cursor = read.success.cursor
        for (const { request_id } of read.success.completions) release(request_id)
        if (read.success.completions.length === 0 && now - began < heldMillis) yield* Effect.sleep(heldMillis)
      } else if (reply.status === 402) {
        goodAt = now
        yield* Effect.sleep(billingPauseMillis)
      } else if (Status.isTransient(reply) || (reply.status === 400 && badRequests++ < badRequestsAllowed)) {
        yield* pause(now - goodAt)
      } else {
        const reason = Status.reasonOf(operation, reply, Status.detailOf(reply), now)
        yield* giveUp(new TinkerError({ reason }).message)
      }
    }
    // In the same turn as the look at `waiting`: who comes now begins anew.
    asking = false
  }).pipe(
    Effect.catchDefect((defect) =>
      Effect.andThen(giveUp("asking for all of them broke"), Effect.logError(`${operation} broke`, defect))
    )
  )

  return {
    wait: (requestId) =>
      Effect.suspend(() => {
        if (refused || come.delete(requestId)) return Effect.void
        const waiter = Deferred.makeUnsafe<void>()
        waiting.set(requestId, waiter)
        const awaited = Effect.onInterrupt(Deferred.await(waiter), () => Effect.sync(() => waiting.delete(requestId)))
        if (asking) return awaited
        asking = true
        return Effect.andThen(Effect.forkIn(work, scope, { startImmediately: true }), awaited)
      })
  }
}
