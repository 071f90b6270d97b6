/**
 * Watches training runs for the `corrupted` flag with one poller for all of them.
 *
 * - **M1** a run is looked at right after it was added, and then once in each `pollInterval`;
 * - **M2** what goes wrong with one run (an error, a defect, an answer that takes too long) is a `poll_error` of that run and
 *   touches no other one; nothing of it ends the poller;
 * - **M3** a flag is believed when two reads have shown it, told once, and a flagged run is not asked about again;
 * - **M4** the list of watched runs belongs to the layer, not to the poller: one that crashed goes on where it was;
 * - **M5** up to twenty runs are read one by one, more from the pages of the list, a hundred to a request; no second sees more than
 *   `maxRequestsPerSecond` requests, and a `Retry-After` is kept. A sweep that this makes longer than the interval is followed
 *   by the next one at once;
 * - **M6** a run that no page has shown is read by itself within the same sweep, the longest unseen ones first, at most one read for each
 *   hundred runs (but fifty): none is missed twice for the sake of another;
 * - **M7** a pause (no capacity, rate limit) is no silence. It is told once it lasts a minute, and once when it is over; what
 *   flickers in between is one pause;
 * - **M8** while nothing answers there is one `degraded` and one `restored`, not an event for each run.
 *
 * Reading is all it does. Durations go by the monotonic clock, and the service's times are only compared with each other:
 * clocks that disagree change nothing.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type { QueueState } from "@tinkex/tinker/ApiFuture"
import type { RestClient, RunFlag } from "@tinkex/tinker/RestClient"
import * as Time from "@tinkex/tinker/Time"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { EventLog } from "./internal/eventLog.ts"
import * as Outage from "./internal/outage.ts"
import * as Pace from "./internal/pace.ts"
import * as RunList from "./internal/runList.ts"
import * as Silence from "./internal/silence.ts"
import { uptime } from "./internal/uptime.ts"
import type { RecoveryPolicy } from "./RecoveryPolicy.ts"

/** A run to look after. */
export interface Target {
  readonly trainingRunId: string
  /** The name that its events carry. */
  readonly run: string
  readonly attempt: number | null
  /** Told once. It must not take long: the sweep waits for it. */
  readonly onFlag: (detail: string) => Effect.Effect<void>
  /** Told once for each silence as long as the policy's `stalledAfter`, where the policy's `onStall` is `recover`. */
  readonly onStall?: ((detail: string) => Effect.Effect<void>) | undefined
}

/** What the sweeps know of a run. */
export interface Sighting {
  /** When the service last showed it without a flag, on the monotonic clock; before that, when it was added. */
  readonly seenWell: number
  /** The run's last request of which it is known that no flag followed, by the service's clock. */
  readonly wellUntil: number | undefined
  readonly flagged: boolean
  /** The service holds its operations back. */
  readonly paused: boolean
}

export interface Monitor {
  /** Adds a run, or takes over the one of this id. */
  readonly add: (target: Target) => Effect.Effect<void>
  /** Removes it, unless another one has taken its place. */
  readonly remove: (target: Target) => Effect.Effect<void>
  /** What the service says of a run's queue. */
  readonly noteQueue: (trainingRunId: string, state: QueueState) => Effect.Effect<void>
  readonly inspect: (trainingRunId: string) => Effect.Effect<Option.Option<Sighting>>
  /** Runs that are watched at this moment. */
  readonly size: Effect.Effect<number>
  /** When the last sweep ended, on the monotonic clock. */
  readonly lastSweep: Effect.Effect<number | undefined>
  readonly outage: Outage.Outage
  /** The poller. Never returns. */
  readonly run: Effect.Effect<never>
}

interface Pause {
  readonly since: number
  readonly state: QueueState
  /** Since when it looks over. */
  activeSince: number | undefined
  told: boolean
}

// Times are whole milliseconds since the monitor was made: small integers, which need no object of their own. One entry is all
// that the monitor keeps of each of a hundred thousand runs.
interface Entry extends Silence.Silence {
  readonly target: Target
  seenWell: number
  flagged: boolean
  /** One read has shown the flag. */
  suspected: boolean
  errors: number
  /** When it was last read, or tried to. */
  looked: number
  /** A run that the service does not know is asked about less and less. */
  notBefore: number
  pause: Pause | undefined
}

/** A run that shows the flag for the first time, and the page that showed it. */
interface Suspect {
  readonly entry: Entry
  readonly offset: number | undefined
}

/** Up to this many runs are read one by one. */
const few = 20
const concurrency = 8
const readLimit = Duration.seconds(60)
/** A pause or its end counts after so long. */
const settledMillis = 60_000
const longestBackoffMillis = 3_600_000

export const make = Effect.fnUntraced(function* (
  policy: RecoveryPolicy,
  log: EventLog,
  rest: RestClient["Service"]
): Effect.fn.Return<Monitor> {
  const entries = new Map<string, Entry>()
  let arrivals: Array<Entry> = []
  const arrival = yield* Latch.make()
  const madeAt = yield* uptime
  const clock = Effect.map(uptime, (now) => Math.round(now - madeAt))
  const pace = Pace.make(policy.maxRequestsPerSecond)
  const outage = Outage.make(log, rest, pace)
  const interval = Duration.toMillis(policy.pollInterval)
  let lastSweep: number | undefined

  const common = ({ target }: Entry, millis: number | null = null) => ({
    run: target.run,
    trainingRunId: target.trainingRunId,
    attempt: target.attempt,
    incident: null,
    try: 0,
    duration: millis === null ? null : Duration.millis(millis)
  })

  const live = (entry: Entry) => entries.get(entry.target.trainingRunId) === entry && !entry.flagged

  const pollError = (entry: Entry, tag: string, detail: string) => {
    entry.errors++
    return log.emit({ _tag: "poll_error", ...common(entry), tag, detail, consecutive: entry.errors })
  }

  const checkSilence = Effect.fnUntraced(function* (entry: Entry, now: number) {
    const { target } = entry
    if (entry.pause !== undefined) return Silence.restart(entry, now)
    const length = now - entry.since
    if (!entry.told && length >= Silence.limit(entry, policy)) {
      entry.told = true
      yield* log.emit({ _tag: "stalled", ...common(entry, length) })
    }
    if (policy.onStall === "recover" && !entry.acted && length >= Duration.toMillis(policy.stalledAfter)) {
      entry.acted = true
      const detail = `nothing was heard of ${target.trainingRunId} for ${Duration.format(Duration.millis(length))}`
      if (target.onStall !== undefined) yield* target.onStall(detail)
    }
  })

  const checkPause = (entry: Entry, now: number) => {
    const { pause } = entry
    if (pause === undefined) return Effect.void
    const { reason, state } = pause.state
    if (pause.activeSince !== undefined && now - pause.activeSince >= settledMillis) {
      entry.pause = undefined
      if (!pause.told) return Effect.void
      const lasted = pause.activeSince - pause.since
      return log.emit({ _tag: "backpressure", ...common(entry, lasted), state: "active", reason: null })
    }
    if (pause.told || now - pause.since < settledMillis) return Effect.void
    pause.told = true
    return log.emit({ _tag: "backpressure", ...common(entry, now - pause.since), state, reason: reason ?? null })
  }

  const believe = (entry: Entry) => {
    entry.flagged = true
    const { target } = entry
    return Effect.suspend(() => target.onFlag(`the service flags ${target.trainingRunId} as corrupted`)).pipe(
      // whoever could not be told is told again by the next sweep
      Effect.onError(() => Effect.sync(() => (entry.flagged = false)))
    )
  }

  /** One read of a run. Gives the run back where a second one has to confirm what it shows. */
  const seen = (entry: Entry, flag: Omit<RunFlag, "trainingRunId">, now: number): Effect.Effect<boolean> => {
    if (!live(entry)) return Effect.succeed(false)
    entry.looked = now
    if (flag.corrupted === undefined) {
      const problem = "the service says neither true nor false where its flag should be"
      return Effect.as(pollError(entry, "UnreadableFlag", problem), false)
    }
    entry.notBefore = 0
    if (flag.corrupted) {
      entry.errors = 0
      if (entry.suspected) return Effect.as(believe(entry), false)
      entry.suspected = true
      return Effect.succeed(true)
    }
    const doubted = entry.suspected
    entry.suspected = false
    entry.seenWell = now
    if (flag.lastRequestMillis !== undefined) Silence.hear(entry, flag.lastRequestMillis, now)
    if (!doubted) {
      entry.errors = 0
      // nothing to tell is the rule, and costs no fiber step for each of a hundred thousand runs
      if (entry.pause === undefined && now - entry.since < Silence.limit(entry, policy)) return quiet
      return Effect.as(Effect.andThen(checkPause(entry, now), checkSilence(entry, now)), false)
    }
    return Effect.as(pollError(entry, "Unconfirmed", "one read showed the flag and the next one did not"), false)
  }

  const failed = (entry: Entry, cause: Cause.Cause<TinkerError>) =>
    Effect.flatMap(clock, (now) => {
      if (!live(entry)) return Effect.void
      entry.looked = now
      const error = Option.getOrUndefined(Cause.findErrorOption(cause))
      if (error === undefined) return pollError(entry, "Defect", String(Cause.squash(cause)))
      if (error.category === "user") {
        entry.notBefore =
          now + Math.min(longestBackoffMillis, interval * 2 ** Math.min(entry.errors, 20)) - interval / 2
      }
      return pollError(entry, error.reason._tag, error.message)
    })

  const isolated = (entry: Entry, effect: () => Effect.Effect<boolean, TinkerError>): Effect.Effect<boolean> =>
    Effect.suspend(effect).pipe(
      Effect.catchCause((cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.interrupt : Effect.as(failed(entry, cause), false)
      )
    )

  /** Reads runs one by one and collects those that have to be confirmed. */
  const readSingly = Effect.fnUntraced(function* (
    due: ReadonlyArray<Entry>,
    suspects: Array<Suspect>,
    tally: { answers: number; error: TinkerError | undefined }
  ) {
    yield* Effect.forEach(
      due,
      (entry) =>
        isolated(entry, () =>
          pace.leave.pipe(
            Effect.andThen(
              rest.getTrainingRun(entry.target.trainingRunId, { retries: 0, accessScope: "accessible" }).pipe(
                Effect.timeoutOrElse({
                  duration: readLimit,
                  orElse: () => Effect.die(`no answer within ${Duration.format(readLimit)}`)
                })
              )
            ),
            Effect.tapError((error) => {
              if (Outage.isOutage(error)) tally.error = error
              else tally.answers++
              const { reason } = error
              return reason._tag === "RateLimited" && reason.retryAfter !== undefined
                ? pace.hush(reason.retryAfter)
                : Effect.void
            }),
            Effect.flatMap((run) => {
              tally.answers++
              const lastRequestMillis = Option.getOrUndefined(Time.toOption(run.lastRequestTime))?.epochMilliseconds
              return Effect.flatMap(clock, (now) => seen(entry, { corrupted: run.corrupted, lastRequestMillis }, now))
            })
          )
        ).pipe(
          Effect.map((suspected) => {
            if (suspected) suspects.push({ entry, offset: undefined })
          })
        ),
      { concurrency, discard: true }
    )
  })

  const seePage = Effect.fnUntraced(function* (runs: ReadonlyArray<RunFlag>, onSuspect: (entry: Entry) => void) {
    const now = yield* clock
    for (const flag of runs) {
      const entry = entries.get(flag.trainingRunId)
      if (entry === undefined) continue
      const suspected = yield* isolated(entry, () => seen(entry, flag, now))
      if (suspected) onSuspect(entry)
    }
  })

  /** A flag on a page may be a slip of the moment: the page, or the run, is read once more before anybody acts. */
  const confirm = Effect.fnUntraced(function* (
    suspects: ReadonlyArray<Suspect>,
    tally: { answers: number; error: TinkerError | undefined }
  ) {
    const offsets = new Set(suspects.flatMap(({ offset }) => (offset === undefined ? [] : [offset])))
    if (suspects.length > few) {
      yield* Effect.forEach(
        offsets,
        (offset) =>
          RunList.page(rest, pace, offset).pipe(
            Effect.flatMap(({ runs }) => seePage(runs, () => {})),
            // then the next sweep confirms it
            Effect.ignore
          ),
        { concurrency, discard: true }
      )
    }
    const open = suspects.filter(({ entry }) => entry.suspected && live(entry)).map(({ entry }) => entry)
    yield* readSingly(open.slice(0, singly(open.length)), [], tally)
  })

  const singly = (runs: number) => Math.max(50, Math.ceil(runs / RunList.pageSize))

  const look = Effect.fnUntraced(function* (all: ReadonlyArray<Entry>) {
    const began = yield* clock
    const due = all.filter((entry) => live(entry) && entry.notBefore <= began)
    const suspects: Array<Suspect> = []
    const tally: { answers: number; error: TinkerError | undefined } = { answers: 0, error: undefined }
    if (due.length <= few) yield* readSingly(due, suspects, tally)
    else {
      for (const entry of due) if (entry.looked === began) entry.looked = began - 1
      let found = 0
      // a page is worth ten single reads
      const { error, pages } = yield* RunList.walk(rest, pace, Math.ceil(due.length / 10), due.length, (runs, offset) =>
        seePage(runs, (entry) => suspects.push({ entry, offset })).pipe(
          Effect.map(() => {
            for (const { trainingRunId } of runs) if (entries.has(trainingRunId)) found++
            return due.length - found
          })
        )
      )
      tally.answers += pages
      tally.error = error
      const missed = due
        .filter((entry) => live(entry) && entry.looked < began)
        .toSorted((a, b) => a.looked - b.looked)
        .slice(0, singly(due.length))
      // where the list gave nothing, a few runs tell whether it is worth asking for the others
      const canaries = pages === 0 ? few : missed.length
      yield* readSingly(missed.slice(0, canaries), suspects, tally)
      if (tally.answers > 0) yield* readSingly(missed.slice(canaries), suspects, tally)
    }
    yield* confirm(suspects, tally)
    if (tally.answers > 0) yield* outage.answered
    else if (tally.error !== undefined) yield* outage.unanswered(tally.error)
    lastSweep = yield* uptime
  })

  const arrived = () => {
    const entries = arrivals
    arrivals = []
    return Effect.as(arrival.close, entries)
  }

  const run = Effect.gen(function* () {
    let next = yield* clock
    while (true) {
      const now = yield* clock
      if (now >= next) {
        yield* arrived()
        yield* look([...entries.values()])
        // nobody to read, but perhaps somebody who waits for the service to come back
        if ((yield* outage.current).down !== undefined) yield* outage.probe
        next = Math.max(next + interval, yield* clock)
        continue
      }
      yield* Effect.timeoutOption(arrival.await, Duration.millis(next - now))
      const added = yield* arrived()
      if (added.length > 0) yield* look(added)
    }
  })

  return {
    add: (target) =>
      Effect.flatMap(clock, (now) => {
        const entry: Entry = {
          target,
          heard: undefined,
          since: now,
          changes: 0,
          longest: 0,
          told: false,
          acted: false,
          seenWell: now,
          flagged: false,
          suspected: false,
          errors: 0,
          looked: -1,
          notBefore: 0,
          pause: undefined
        }
        entries.set(target.trainingRunId, entry)
        arrivals.push(entry)
        return arrival.open
      }),
    remove: (target) =>
      Effect.sync(() => {
        if (entries.get(target.trainingRunId)?.target === target) entries.delete(target.trainingRunId)
      }),
    noteQueue: (trainingRunId, state) =>
      Effect.map(clock, (now) => {
        const entry = entries.get(trainingRunId)
        if (entry === undefined) return
        if (state.state === "active") {
          if (entry.pause !== undefined) entry.pause.activeSince ??= now
        } else if (entry.pause === undefined) {
          entry.pause = { since: now, state, activeSince: undefined, told: false }
        } else entry.pause.activeSince = undefined
      }),
    inspect: (trainingRunId) =>
      Effect.sync(() =>
        Option.map(Option.fromNullishOr(entries.get(trainingRunId)), ({ flagged, heard, pause, seenWell }) => ({
          flagged,
          seenWell: madeAt + seenWell,
          wellUntil: heard,
          paused: pause !== undefined
        }))
      ),
    size: Effect.sync(() => entries.size),
    lastSweep: Effect.sync(() => lastSweep),
    outage,
    run
  }
})

const quiet = Effect.succeed(false)
