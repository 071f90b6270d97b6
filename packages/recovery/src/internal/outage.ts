import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { RestClient } from "@tinkex/tinker/RestClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { EventLog } from "./eventLog.ts"
import type { Pace } from "./pace.ts"
import { uptime } from "./uptime.ts"

/** Whether the service answers at all. */
export interface Outage {
  /** It did. */
  readonly answered: Effect.Effect<void>
  /** Nobody got an answer. */
  readonly unanswered: (error: TinkerError) => Effect.Effect<void>
  /** Asks, unless somebody has just asked. */
  readonly probe: Effect.Effect<Down | undefined>
  readonly current: Effect.Effect<Standing>
}

export interface Down {
  /** On the monotonic clock. */
  readonly since: number
  readonly tag: string
  readonly detail: string
}

export interface Standing {
  readonly down: Down | undefined
  /** When the service last answered, on the monotonic clock. */
  readonly lastAnswer: number | undefined
}

/** How long what a probe has found is taken for true. */
const freshMillis = 2_000
const probeLimit = "20 seconds"

/** Whether an error says that the service cannot be reached, or not with this key, rather than something about the request. */
export const isOutage = ({ isRetryable, reason }: TinkerError): boolean =>
  reason._tag === "Unauthorized" || (isRetryable && reason._tag !== "RateLimited")

/** What every event about no run in particular carries. */
export const everyRun = { run: "*", trainingRunId: "*", attempt: null, incident: null, try: 0 } as const

export const make = (log: EventLog, rest: RestClient["Service"], pace: Pace): Outage => {
  let down: Down | undefined
  let lastAnswer: number | undefined
  let asked: number | undefined
  let asking: Deferred.Deferred<void> | undefined

  const answered = Effect.flatMap(uptime, (now) => {
    const over = down
    lastAnswer = now
    down = undefined
    if (over === undefined) return Effect.void
    return log.emit({ _tag: "restored", ...everyRun, duration: Duration.millis(now - over.since) })
  })

  const unanswered = (error: TinkerError) =>
    Effect.flatMap(uptime, (now) => {
      const began = down === undefined
      down = { since: down?.since ?? lastAnswer ?? now, tag: error.reason._tag, detail: error.message }
      if (!began) return Effect.void
      const { detail, since, tag } = down
      return log.emit({ _tag: "degraded", ...everyRun, duration: Duration.millis(now - since), tag, detail })
    })

  const ask = pace.leave.pipe(
    Effect.andThen(rest.listRunFlags({ limit: 1, accessScope: "accessible", retries: 0, deadline: probeLimit })),
    Effect.matchEffect({
      onSuccess: () => answered,
      onFailure: (error) => (isOutage(error) ? unanswered(error) : answered)
    })
  )

  const probe = Effect.gen(function* () {
    if (asking !== undefined) yield* Deferred.await(asking)
    else if (asked === undefined || (yield* uptime) - asked >= freshMillis) {
      const done = Deferred.makeUnsafe<void>()
      asking = done
      yield* Effect.ensuring(
        ask,
        Effect.suspend(() => {
          asking = undefined
          return Deferred.succeed(done, undefined)
        })
      )
      asked = yield* uptime
    }
    return down
  })

  return { answered, unanswered, probe, current: Effect.sync(() => ({ down, lastAnswer })) }
}
