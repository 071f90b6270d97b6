import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { type } from "node:os"
import type { EventOptions, Severity, Telemetry } from "../Telemetry.ts"
import { TinkerError } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import type * as Rest from "../wire/Rest.ts"
import * as Status from "./status.ts"
import { backoff, encodeJson, protocolVersion, type Transport } from "./transport.ts"

type Event = typeof Rest.TelemetryEvent.Type

const batchSize = 100
const capacity = 10_000
const everyMillis = 10_000
const timeoutMillis = 5_000
const closingMillis = 5_000
const maxText = 2_000

/** One for all connections of this process. */
const processUuid = randomUUID()

export interface Reporter {
  readonly telemetry: Telemetry["Service"]
  /** A session has begun: what follows belongs to it. */
  readonly begin: (sessionId: string) => Effect.Effect<void>
}

/** What tells nothing. */
export const silent: Reporter = {
  telemetry: {
    isEnabled: Effect.succeed(false),
    event: () => Effect.void,
    error: () => Effect.void,
    flush: () => Effect.succeed(true)
  },
  begin: () => Effect.void
}

/** As the service expects it: `0:00:13.286146`. */
const clockTime = (millis: number): string => {
  const two = (n: number) => String(Math.floor(n)).padStart(2, "0")
  const seconds = millis / 1000
  const fraction = String(Math.round((millis % 1000) * 1000)).padStart(6, "0")
  return `${Math.floor(seconds / 3600)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}.${fraction}`
}

/** The failing status, where the error has one. */
const statusOf = (error: TinkerError): number | undefined =>
  "status" in error.reason && typeof error.reason.status === "number" ? error.reason.status : undefined

export const make = Effect.fnUntraced(function* (
  transport: Pick<Transport, "send" | "boot" | "scrub">
): Effect.fn.Return<Reporter, never, Scope.Scope> {
  const scope = yield* Effect.scope
  /** Whose events follow one another in the queue. */
  let source = { sessionId: `sessionless-${randomUUID()}`, index: 0, began: undefined as number | undefined }
  let queue: Array<{ readonly sessionId: string; readonly event: Event }> = []
  let dropped = 0
  let enabled = true
  let closed = false
  let loop: Fiber.Fiber<void> | undefined
  let woken = Deferred.makeUnsafe<void>()
  /** Completed when the queue is empty. */
  let emptied = Deferred.makeUnsafe<void>()

  const isOpen = () => enabled
  const wake = () => {
    Deferred.doneUnsafe(woken, Effect.void)
  }
  const clean = (text: string) => transport.scrub(text).slice(0, maxText)

  /** Deliveries of one batch until it is taken, or not wanted. */
  const deliver = Effect.fnUntraced(function* (batch: typeof queue) {
    const [first] = batch
    if (first === undefined) return
    const body = encodeJson({
      events: batch.map(({ event }) => event),
      platform: type(),
      sdk_version: protocolVersion,
      session_id: first.sessionId,
      process_uuid: processUuid
    })
    for (let tries = 0; ; tries++) {
      const delivered = yield* Effect.gen(function* () {
        yield* transport.boot
        const reply = yield* transport.send({
          operation: "telemetry",
          endpoint: Endpoint.telemetry,
          body,
          timeoutMillis
        })
        if (Status.isOk(reply)) return true
        if ((reply.status >= 400 && !Status.isTransient(reply)) || reply.status === 501) {
          enabled = false
          yield* Effect.logDebug(`The service takes no telemetry: ${reply.status}`)
        }
        return false
      }).pipe(Effect.catch((error) => Effect.as(Effect.logDebug(`Telemetry waits: ${error.message}`), false)))
      if (delivered || !enabled) return
      yield* Effect.sleep(yield* backoff(tries, 1000, 60_000))
    }
  })

  const drain = Effect.gen(function* () {
    while (isOpen() && queue.length > 0) {
      const { sessionId } = queue[0] ?? { sessionId: "" }
      const other = queue.findIndex((one) => one.sessionId !== sessionId)
      const batch = queue.slice(0, Math.min(batchSize, other === -1 ? queue.length : other))
      yield* deliver(batch)
      queue = queue.slice(batch.length)
    }
    if (!enabled) queue = []
    Deferred.doneUnsafe(emptied, Effect.void)
  })

  const run = Effect.gen(function* () {
    while (isOpen()) {
      yield* Effect.timeoutOption(Deferred.await(woken), everyMillis)
      woken = Deferred.makeUnsafe()
      yield* drain
    }
  }).pipe(Effect.catchDefect((defect) => Effect.logWarning("Telemetry has ended", defect)))

  const push = (name: Event["event"], severity: Severity, more: (now: number) => Record<string, unknown>) =>
    Effect.gen(function* () {
      if (!enabled) return
      if (queue.length >= capacity) {
        if (dropped++ === 0) yield* Effect.logWarning(`Telemetry drops events: ${capacity} are waiting to be sent.`)
        return
      }
      const now = yield* Clock.currentTimeMillis
      const event = {
        event: name,
        event_id: randomUUID(),
        event_session_index: source.index++,
        severity,
        timestamp: new Date(now).toISOString(),
        ...more(now)
        // The callers below give each kind its own fields.
      } as Event
      if (queue.length === 0) emptied = Deferred.makeUnsafe()
      queue.push({ sessionId: source.sessionId, event })
      if (loop === undefined && !closed) loop = yield* Effect.forkIn(run, scope)
      if (queue.length >= batchSize) wake()
    }).pipe(Effect.catchDefect((defect) => Effect.logWarning("Telemetry lost an event", defect)))

  const event = (name: string, { data = {}, severity = "INFO" }: EventOptions = {}) =>
    push("GENERIC_EVENT", severity, () => ({
      event_name: clean(name),
      // Through text, so that credentials are found wherever they are; what cannot be written is left out.
      event_data: JSON.parse(transport.scrub(JSON.stringify(data))) as Record<string, unknown>
    }))

  const end = Effect.suspend(() =>
    source.began === undefined
      ? Effect.void
      : push("SESSION_END", "INFO", (now) => ({ duration: clockTime(now - (source.began ?? now)) }))
  )

  const flush: Telemetry["Service"]["flush"] = (limit = "30 seconds") =>
    Effect.suspend(() => {
      if (queue.length === 0 || !enabled) return Effect.succeed(true)
      wake()
      return Effect.map(Effect.timeoutOption(Deferred.await(emptied), limit), (done) => done._tag === "Some")
    })

  // The loop has been interrupted by now.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closed = true
      return Effect.andThen(end, Effect.ignore(Effect.timeoutOption(Effect.interruptible(drain), closingMillis)))
    })
  )

  return {
    begin: (sessionId) =>
      Effect.gen(function* () {
        yield* end
        source = { sessionId, index: 0, began: yield* Clock.currentTimeMillis }
        yield* push("SESSION_START", "INFO", () => ({}))
      }),
    telemetry: {
      isEnabled: Effect.sync(() => enabled),
      event,
      error: (error) => {
        if (error instanceof TinkerError && error.category === "user") {
          const status = statusOf(error)
          return event("user_error", {
            severity: "WARNING",
            data: {
              error_type: error.reason._tag,
              message: error.message.slice(0, maxText),
              ...(status === undefined ? {} : { status_code: status })
            }
          })
        }
        const kind =
          error instanceof TinkerError ? error.reason._tag : error instanceof Error ? error.name : typeof error
        const message = error instanceof Error ? error.message : String(error)
        return push("UNHANDLED_EXCEPTION", "ERROR", () => ({ error_type: kind, error_message: clean(message) }))
      },
      flush
    }
  }
})
