/** Watches what an attempt waits for: a pause of the service is waited out and told, a silence that is too long ends the attempt. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ApiFuture } from "@tinkex/tinker/ApiFuture"
import type { RestClient } from "@tinkex/tinker/RestClient"
import type { JournalError } from "../JournalError.ts"
import type { IncidentCause } from "../RunGuard.ts"
import type { PauseCause } from "../RunReport.ts"
import type { RunLog } from "./runLog.ts"
import type { Limits, Section } from "./sectionLimits.ts"

export interface Vigil {
  /** Waits for something of this section; time that the service says it is paused does not count. */
  readonly wait: <A, E, R>(
    section: Section,
    future: ApiFuture<unknown> | undefined,
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E, R>
  /** How long the attempt has been paused so far, in milliseconds. */
  readonly paused: () => number
}

interface Head {
  readonly section: Section
  readonly future: ApiFuture<unknown> | undefined
  /** Since when it is waited for without a pause, in milliseconds. */
  since: number
  /** It was asked about once, and the service was alive. */
  confirmed: boolean
  queue: Fiber.Fiber<void> | undefined
}

/** How often what is waited for is looked at. */
const tick = Duration.seconds(1)
/** How long the service may take to answer whether the run is well; one that is paused for billing takes longer. */
const askLimit = Duration.seconds(15)
/** A pause that begins so soon after another is the same one to whoever is told. */
const sameMillis = 60_000

/** Lives as long as the scope. `fail` is told once. */
export const make = Effect.fnUntraced(function* (options: {
  readonly trainingRunId: string
  readonly limits: Limits
  /** How long a pause may last, in milliseconds. */
  readonly pauseLimit: number
  readonly log: RunLog
  readonly rest: RestClient["Service"]
  readonly fail: (cause: IncidentCause, detail: string) => Effect.Effect<void>
  readonly onPause: (cause: PauseCause, detail: string) => Effect.Effect<void>
  readonly onResume: (cause: PauseCause, lasted: Duration.Duration) => Effect.Effect<void>
}): Effect.fn.Return<Vigil, never, Scope.Scope> {
  const { fail, limits, log, rest, trainingRunId } = options
  /** Inside a step its own waits come on top of it. */
  const heads: Array<Head> = []
  const newest = () => heads.at(-1)
  let pause: { readonly cause: PauseCause; readonly since: number; told: boolean } | undefined
  let resumedAt = Number.NEGATIVE_INFINITY
  let pausedMillis = 0

  const journal = (effect: Effect.Effect<void, JournalError>) =>
    effect.pipe(Effect.catchTag("JournalError", (error) => fail("ambiguous", error.message)))

  const begin = Effect.fnUntraced(function* (cause: PauseCause, detail: string) {
    if (pause !== undefined) return
    const now = yield* Clock.currentTimeMillis
    const told = now - resumedAt >= sameMillis
    pause = { cause, since: now, told }
    yield* journal(log.appendLazy({ _tag: "Paused", cause }))
    if (told) yield* options.onPause(cause, detail)
  })

  const end = Effect.suspend(() => {
    const over = pause
    if (over === undefined) return Effect.void
    pause = undefined
    return Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      pausedMillis += now - over.since
      resumedAt = now
      for (const head of heads) {
        head.since = now
        head.confirmed = false
      }
      yield* journal(log.appendLazy({ _tag: "Resumed", cause: over.cause }))
      if (over.told) yield* options.onResume(over.cause, Duration.millis(now - over.since))
    })
  })

  const follow = (future: ApiFuture<unknown>) =>
    Stream.runForEach(future.queueState, ({ reason, state }) =>
      state === "paused_capacity"
        ? begin("capacity", reason ?? "the service has no room for the run at present")
        : state === "paused_rate_limit"
          ? begin("rate_limit", reason ?? "the account asks for more than it may")
          : end
    )

  /** Whether the run is alive is asked before anybody is alarmed. */
  const confirm = Effect.fnUntraced(function* (waiting: Head, now: number) {
    const limit = limits.of(waiting.section)
    const silent = `no ${waiting.section.replace("_", " ")} has come to its end in ${Duration.format(Duration.millis(now - waiting.since))}`
    if (waiting.future === undefined) {
      return yield* fail("stalled", `${silent}, with ${Duration.format(Duration.millis(limit))} allowed`)
    }
    const answer = yield* Effect.result(
      rest.getTrainingRun(trainingRunId, { retries: 0 }).pipe(Effect.timeout(askLimit))
    )
    if (newest() !== waiting) return
    if (Result.isFailure(answer)) {
      const error = answer.failure
      if (error._tag === "TinkerError" && error.reason._tag === "NotFound") {
        return yield* fail("lost", `${silent}, and the service does not know the run any more`)
      }
      const cause =
        error._tag === "TinkerError" && error.reason._tag === "BillingPaused"
          ? "billing"
          : error._tag === "TinkerError" && error.reason._tag === "RateLimited"
            ? "rate_limit"
            : "unreachable"
      return yield* begin(cause, error.message)
    }
    if (answer.success.corrupted) return yield* fail("poisoned", `${silent}, and the run is flagged as corrupted`)
    if (pause !== undefined && pause.cause !== "capacity" && pause.cause !== "rate_limit") return yield* end
    if (!waiting.confirmed) {
      waiting.confirmed = true
      waiting.since = now
      return
    }
    yield* fail("stalled", `${silent}, twice, with ${Duration.format(Duration.millis(limit))} allowed`)
  })

  const look = Effect.gen(function* () {
    const waiting = newest()
    if (waiting === undefined) return
    const now = yield* Clock.currentTimeMillis
    if (waiting.future !== undefined && waiting.queue === undefined && now - waiting.since >= 1000) {
      waiting.queue = yield* Effect.forkChild(follow(waiting.future))
    }
    if (pause !== undefined) {
      const lasted = now - pause.since
      if (lasted > options.pauseLimit) {
        const told = Duration.format(Duration.millis(lasted))
        return yield* fail("paused", `the service has kept the run waiting for ${told} (${pause.cause})`)
      }
      // The queue tells when it goes on; whether a server can be reached again has to be asked.
      if (pause.cause === "billing" || pause.cause === "unreachable") yield* confirm(waiting, now)
    } else if (now - waiting.since > limits.of(waiting.section)) yield* confirm(waiting, now)
  })

  yield* Effect.sleep(tick).pipe(Effect.andThen(look), Effect.forever, Effect.forkScoped)

  return {
    wait: (section, future, effect) =>
      Effect.gen(function* () {
        const began = yield* Clock.currentTimeMillis
        const pausedBefore = pausedMillis
        const waiting: Head = { section, future, since: began, confirmed: false, queue: undefined }
        heads.push(waiting)
        const result = yield* effect.pipe(
          Effect.ensuring(
            Effect.suspend(() => {
              heads.splice(heads.indexOf(waiting), 1)
              return waiting.queue === undefined ? Effect.void : Fiber.interrupt(waiting.queue)
            })
          )
        )
        if (pause !== undefined) yield* end
        const now = yield* Clock.currentTimeMillis
        limits.observe(section, now - began - (pausedMillis - pausedBefore))
        const outer = newest()
        if (outer !== undefined) outer.since = now
        return result
      }),
    paused: () => pausedMillis
  }
})
