import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import type { RecoveryEvent, Unstamped } from "../RecoveryEvent.ts"

/** Where every event of one layer goes: to the readers, to the incident's span, and into the metrics. */
export interface EventLog {
  /** Never fails and never waits for a reader. */
  readonly emit: (event: Unstamped, span?: Tracer.Span) => Effect.Effect<void>
  readonly events: Stream.Stream<RecoveryEvent>
}

/** Events that a reader may fall behind before it loses the oldest. */
const capacity = 1024

const counted = Metric.counter("tinkex_recovery_events", {
  description: "Recovery events, by name",
  incremental: true
})
const boundaries = Metric.exponentialBoundaries({ start: 0.1, factor: 2, count: 18 })
const timeToDetect = Metric.histogram("tinkex_recovery_time_to_detect", {
  description: "Seconds from the last sign that a run was well to the detection of its failure",
  boundaries
})
const timeToRecover = Metric.histogram("tinkex_recovery_time_to_recover", {
  description: "Seconds from the detection of a failure to a client that takes steps again",
  boundaries
})

const measure = (event: RecoveryEvent) => {
  const count = Metric.update(Metric.withAttributes(counted, { event: event._tag }), 1)
  if (event.duration === null) return count
  const seconds = Duration.toSeconds(event.duration)
  if (event._tag === "detected") return Effect.andThen(count, Metric.update(timeToDetect, seconds))
  if (event._tag === "completed") return Effect.andThen(count, Metric.update(timeToRecover, seconds))
  return count
}

/** The fields of an event that a span or a metric can hold. */
const attributes = (event: RecoveryEvent): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(event).flatMap(([key, value]): Array<[string, unknown]> => {
      if (key === "_tag" || key === "time" || value === null) return []
      if (Duration.isDuration(value)) return [[`${key}_seconds`, Duration.toSeconds(value)]]
      return [[key, Array.isArray(value) ? value.join(", ") : value]]
    })
  )

export const make: Effect.Effect<EventLog> = Effect.gen(function* () {
  const hub = yield* PubSub.sliding<RecoveryEvent>(capacity)
  let n = 0
  return {
    emit: (event, span) =>
      Effect.flatMap(DateTime.now, (time) => {
        // the union survives the spread, but the compiler sees only its common part
        const stamped = { ...event, n: n++, time } as RecoveryEvent
        const nanos = BigInt(Math.trunc(time.epochMilliseconds)) * 1_000_000n
        span?.event(stamped._tag, nanos, attributes(stamped))
        return Effect.andThen(PubSub.publish(hub, stamped), measure(stamped))
      }),
    events: Stream.fromPubSub(hub)
  }
})
