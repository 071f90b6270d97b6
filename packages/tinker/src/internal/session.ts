import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { SessionLost, TinkerError } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Status from "./status.ts"
import { encodeJson, type Transport } from "./transport.ts"

/** A session of the service: what keeps the models of a process loaded, as long as its heart beats. */
export interface Session {
  readonly id: string
  readonly isLost: () => boolean
  /** Sends a heartbeat now, so that `isLost` is up to date; gives whether the service says that it is alive. */
  readonly check: Effect.Effect<boolean>
  /** Calls back once, when the service says that the session is gone; at once if it has. The result takes the request back. */
  readonly onLost: (listener: (error: TinkerError) => void) => () => void
  /** It is over by our own will: the same, and no heartbeat is sent any more. */
  readonly end: (why: string) => Effect.Effect<void>
  /** Numbers models from 0 on. */
  readonly nextModel: () => number
  /** Numbers sampling sessions, those of unnamed saves among them. */
  readonly nextSampler: () => number
}

const beatTimeoutMillis = 10_000
const silenceMillis = 120_000

/**
 * Keeps a session alive from the surrounding scope. Failing heartbeats never end the loop: only the service's own word, 404 or
 * 410, says that a session is gone.
 */
export const keep = Effect.fnUntraced(function* (
  transport: Transport,
  id: string,
  everyMillis: number,
  firstSampler = 0
): Effect.fn.Return<Session, never, Scope.Scope> {
  const listeners = new Set<(error: TinkerError) => void>()
  let lost: TinkerError | undefined
  let models = 0
  let samplers = firstSampler
  let beatAt = yield* Clock.currentTimeMillis

  const body = encodeJson({ session_id: id, type: "session_heartbeat" })
  const missed = Effect.fnUntraced(function* (why: string) {
    const silent = (yield* Clock.currentTimeMillis) - beatAt
    if (silent < silenceMillis) return yield* Effect.logDebug(`Session ${id} missed a heartbeat: ${why}`)
    yield* Effect.logWarning(
      `Session ${id} had no heartbeat for ${Math.round(silent / 1000)} s, the service may unload its models: ${why}`
    )
  })

  const over = (detail: string) => new TinkerError({ reason: new SessionLost({ sessionId: id, detail }) })

  /** The error that ends the session, if the service says that it has ended; else whether the service says that it has not. */
  const beat = Effect.gen(function* () {
    const reply = yield* transport.send({
      operation: `heartbeat of session ${id}`,
      endpoint: Endpoint.sessionHeartbeat,
      body,
      timeoutMillis: beatTimeoutMillis
    })
    if (reply.status === 404 || reply.status === 410) {
      return over(Status.detailOf(reply))
    }
    if (Status.isOk(reply)) beatAt = yield* Clock.currentTimeMillis
    else yield* missed(`${reply.status} ${Status.detailOf(reply)}`)
    return Status.isOk(reply)
  }).pipe(
    Effect.catch((error) => Effect.as(missed(error.message), false)),
    Effect.catchDefect((defect) => Effect.as(Effect.logError(`A heartbeat of session ${id} broke`, defect), false))
  )

  const lose = (gone: TinkerError) => {
    lost = gone
    for (const listener of listeners) listener(gone)
    listeners.clear()
  }

  const check = Effect.gen(function* () {
    const told = yield* beat
    if (lost !== undefined) return false
    if (typeof told === "boolean") return told
    yield* Effect.logWarning(told.message)
    lose(told)
    return false
  })

  yield* Effect.gen(function* () {
    while (true) {
      yield* Effect.sleep(everyMillis)
      if (lost === undefined) yield* check
      if (lost !== undefined) return
    }
  }).pipe(Effect.forkScoped)

  return {
    id,
    isLost: () => lost !== undefined,
    check,
    end: (why) =>
      Effect.sync(() => {
        if (lost === undefined) lose(over(why))
      }),
    onLost: (listener) => {
      if (lost !== undefined) listener(lost)
      else listeners.add(listener)
      return () => {
        listeners.delete(listener)
      }
    },
    nextModel: () => models++,
    nextSampler: () => samplers++
  }
})
