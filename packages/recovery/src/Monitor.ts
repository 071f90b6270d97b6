/**
 * Watches training runs for the `corrupted` flag with one poller for all of them.
 *
 * - **M1** a run is looked at right after it was added, and then once in each `pollInterval`;
 * - **M2** what goes wrong with one run (an error, a defect, an answer that takes too long) is a `poll_error` of that run and
 *   touches no other one; nothing of it ends the poller;
 * - **M3** a flag is told once, and a flagged run is not asked about again;
 * - **M4** the list of watched runs belongs to the layer, not to the poller: one that crashed goes on where it was.
 *
 * Few runs are read one by one, many from the pages of the list, which hold the same flag. Reading is all it does.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { RestClient } from "@tinkex/tinker/RestClient"
import * as Time from "@tinkex/tinker/Time"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { TrainingRun } from "@tinkex/tinker/TrainingRun"
import type { EventLog } from "./internal/eventLog.ts"
import type { RecoveryPolicy } from "./RecoveryPolicy.ts"

/** A run to look after. */
export interface Target {
  readonly trainingRunId: string
  /** The name that its events carry. */
  readonly run: string
  readonly attempt: number | null
  /** Told once. It must not take long: the sweep waits for it. */
  readonly onFlag: (detail: string) => Effect.Effect<void>
}

/** What the sweeps know of a run. */
export interface Sighting {
  /** When the service last showed it without a flag, in milliseconds of the clock; before that, when it was added. */
  readonly seenWell: number
  readonly flagged: boolean
}

export interface Monitor {
  /** Adds a run, or takes over the one of this id. */
  readonly add: (target: Target) => Effect.Effect<void>
  /** Removes it, unless another one has taken its place. */
  readonly remove: (target: Target) => Effect.Effect<void>
  readonly inspect: (trainingRunId: string) => Effect.Effect<Option.Option<Sighting>>
  /** The poller. Never returns. */
  readonly run: Effect.Effect<never>
}

interface Entry {
  readonly target: Target
  seenWell: number
  flagged: boolean
  errors: number
  /** The `lastRequestTime` that was reported as a stall, so that each one is reported once. */
  stall: number | undefined
}

/** Up to this many runs are read one by one. */
const few = 20
const pageSize = 100
const concurrency = 8
const readLimit = Duration.seconds(60)

export const make = Effect.fnUntraced(function* (
  policy: RecoveryPolicy,
  log: EventLog,
  rest: RestClient["Service"]
): Effect.fn.Return<Monitor> {
  const entries = new Map<string, Entry>()
  const arrivals = yield* Queue.unbounded<Entry>()

  const common = ({ target }: Entry, duration: Duration.Duration | null = null) => ({
    run: target.run,
    trainingRunId: target.trainingRunId,
    attempt: target.attempt,
    incident: null,
    try: 0,
    duration
  })

  const live = (entry: Entry) => entries.get(entry.target.trainingRunId) === entry && !entry.flagged

  const checkStall = (entry: Entry, run: TrainingRun, now: number) => {
    const last = Option.getOrUndefined(Time.toOption(run.lastRequestTime))?.epochMilliseconds
    if (last === undefined || last === entry.stall || now - last < Duration.toMillis(policy.stalledAfter)) {
      return Effect.void
    }
    entry.stall = last
    return log.emit({ _tag: "stalled", ...common(entry, Duration.millis(now - last)) })
  }

  const seen = Effect.fnUntraced(function* (entry: Entry, run: TrainingRun) {
    if (!live(entry)) return
    const now = yield* Clock.currentTimeMillis
    entry.errors = 0
    if (!run.corrupted) {
      entry.seenWell = now
      return yield* checkStall(entry, run, now)
    }
    entry.flagged = true
    yield* Effect.suspend(() => entry.target.onFlag(`the service flags ${run.trainingRunId} as corrupted`)).pipe(
      // whoever could not be told is told again by the next sweep
      Effect.onError(() => Effect.sync(() => (entry.flagged = false)))
    )
  })

  const failed = (entry: Entry, cause: Cause.Cause<TinkerError>) => {
    if (!live(entry)) return Effect.void
    entry.errors++
    const error = Option.getOrUndefined(Cause.findErrorOption(cause))
    const [tag, detail] =
      error === undefined ? ["Defect", String(Cause.squash(cause))] : [error.reason._tag, error.message]
    return log.emit({ _tag: "poll_error", ...common(entry), tag, detail, consecutive: entry.errors })
  }

  const isolated = (entry: Entry, effect: () => Effect.Effect<void, TinkerError>) =>
    Effect.suspend(effect).pipe(
      Effect.catchCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.interrupt : failed(entry, cause)))
    )

  const readOne = (entry: Entry) =>
    isolated(entry, () =>
      rest.getTrainingRun(entry.target.trainingRunId).pipe(
        Effect.timeoutOrElse({
          duration: readLimit,
          orElse: () => Effect.die(`no answer within ${Duration.format(readLimit)}`)
        }),
        Effect.flatMap((run) => seen(entry, run))
      )
    )

  /** Sees what the newest pages of the list show of these runs, and gives back those that are not on them. */
  const readPages = Effect.fnUntraced(function* (due: ReadonlyArray<Entry>) {
    const missing = new Map(due.map((entry) => [entry.target.trainingRunId, entry]))
    // a page is worth ten single reads
    const most = Math.ceil(due.length / 10) * pageSize
    yield* rest.streamTrainingRuns({ accessScope: "accessible" }).pipe(
      Stream.take(most),
      Stream.runForEachWhile((run) => {
        const entry = missing.get(run.trainingRunId)
        if (entry === undefined) return Effect.succeed(true)
        missing.delete(run.trainingRunId)
        return Effect.as(
          isolated(entry, () => seen(entry, run)),
          missing.size > 0
        )
      }),
      Effect.timeoutOption(readLimit),
      // what the list could not tell is asked one by one, and errors are reported there
      Effect.catchCause((cause) => (Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.void))
    )
    return [...missing.values()]
  })

  const look = Effect.fnUntraced(function* (entries: ReadonlyArray<Entry>) {
    const due = entries.filter(live)
    const rest = due.length > few ? yield* readPages(due) : due
    yield* Effect.forEach(rest, readOne, { concurrency, discard: true })
  })

  const run = Effect.gen(function* () {
    let next = yield* Clock.currentTimeMillis
    const interval = Duration.toMillis(policy.pollInterval)
    while (true) {
      const now = yield* Clock.currentTimeMillis
      if (now >= next) {
        yield* Queue.clear(arrivals)
        yield* look([...entries.values()])
        next = Math.max(next + interval, yield* Clock.currentTimeMillis)
        continue
      }
      const arrival = yield* Effect.timeoutOption(Queue.take(arrivals), Duration.millis(next - now))
      if (Option.isSome(arrival)) yield* look([arrival.value, ...(yield* Queue.clear(arrivals))])
    }
  })

  return {
    add: (target) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const entry: Entry = { target, seenWell: now, flagged: false, errors: 0, stall: undefined }
        entries.set(target.trainingRunId, entry)
        return Queue.offer(arrivals, entry)
      }),
    remove: (target) =>
      Effect.sync(() => {
        if (entries.get(target.trainingRunId)?.target === target) entries.delete(target.trainingRunId)
      }),
    inspect: (trainingRunId) =>
      Effect.sync(() =>
        Option.map(Option.fromNullishOr(entries.get(trainingRunId)), ({ flagged, seenWell }) => ({ flagged, seenWell }))
      ),
    run
  }
})
