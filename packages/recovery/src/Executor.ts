/**
 * Carries recoveries out: each in a supervised fiber of its own, a bounded number of tries at the same time.
 *
 * - **X1** one recovery per training run: a second request is refused with `AlreadyRecovering`;
 * - **X2** every request ends, with a result or a typed error: a try has a deadline, the tries are counted, pauses are limited,
 *   a cancelled, crashed or shut-down worker settles its request;
 * - **X3** a detected incident is followed by exactly one `completed` or `exhausted`;
 * - **X4** errors that another try would repeat end the recovery at once;
 * - **X5** no more than `maxConcurrent` tries run at once. Waits between tries hold no place, and a run that comes back for its
 *   next try goes before one that has not had its first, but for every fourth place. A try that the service has no room for lends
 *   its place until there is some, up to ten for each place; those that then go on at once use up what is given back next;
 * - **X6** a try that failed while the service was away altogether, or that was told to wait, is not counted: the recovery waits until
 *   the service answers, up to `pauseLimit` in all. While the service holds a try back its deadline stands still, up to the same limit;
 * - **X7** one run is recovered by one cause no more than `maxRecoveries` times within `recoveryWindow`, however each of them ended.
 *
 * It keeps nothing on disk: when the process dies, its recoveries die with it, and the resumed run finds its own way.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Tracer from "effect/Tracer"
import type { QueueState } from "@tinkex/tinker/ApiFuture"
import * as ChildSpec from "@tinkex/supervision/ChildSpec"
import type { SupervisorRef } from "@tinkex/supervision/SupervisorRef"
import type { EventLog } from "./internal/eventLog.ts"
import * as Deadline from "./internal/deadline.ts"
import * as Failures from "./internal/failures.ts"
import type { Outage } from "./internal/outage.ts"
import * as Slots from "./internal/slots.ts"
import { uptime } from "./internal/uptime.ts"
import {
  AlreadyRecovering,
  AttemptTimedOut,
  BudgetSpent,
  Cancelled,
  Exhausted,
  make as refuse,
  type RecoveryError
} from "./RecoveryError.ts"
import type * as RecoveryEvent from "./RecoveryEvent.ts"
import * as RecoveryPolicy from "./RecoveryPolicy.ts"

/** One detected failure. */
export interface Incident {
  readonly id: string
  readonly run: string
  /** The attempt that failed. */
  readonly trainingRunId: string
  readonly attempt: number | null
  readonly cause: RecoveryEvent.Cause
  readonly detail: string
  readonly source: RecoveryEvent.Source
  /** When the run was last seen well, in milliseconds of the monotonic clock. */
  readonly lastSeenWell: Option.Option<number>
  /** Up to when it is known to have been well by the service's clock, in milliseconds since 1970. */
  readonly wellUntil?: number | undefined
}

/** What a try reports while it goes on. */
export type Progress =
  | { readonly _tag: "Fenced" }
  | {
      readonly _tag: "CheckpointSelected"
      readonly path: string | null
      readonly step: number | null
      readonly rejected: number
    }
  | { readonly _tag: "ClientCreated"; readonly trainingRunId: string }
  | { readonly _tag: "QueueState"; readonly state: QueueState }
  | { readonly _tag: "Quarantined"; readonly path: string; readonly why: string }
  | { readonly _tag: "Resumed"; readonly trainingRunId: string; readonly step: number | null }

/** What the events say of a success. */
export interface Outcome {
  readonly newTrainingRunId: string
  readonly path: string | null
  readonly step: number | null
  readonly quarantined: ReadonlyArray<string>
}

/** A recovery to carry out. `restore` is one try; what it makes must live in a scope of the requester. */
export interface Request<A> {
  readonly incident: Incident
  /** For the tries, waits and limits of this recovery; how many go on at once stays the executor's. Default: the executor's. */
  readonly policy?: RecoveryPolicy.RecoveryPolicy | undefined
  readonly restore: (report: (progress: Progress) => Effect.Effect<void>) => Effect.Effect<A, RecoveryError>
  readonly outcome: (restored: A) => Outcome
}

export interface Executor {
  /** Tries until it works or cannot. Interrupting it cancels the recovery. */
  readonly recover: <A>(request: Request<A>) => Effect.Effect<A, RecoveryError>
  /** Ends the recovery of a training run, if there is one; its request fails with `Cancelled`. */
  readonly cancel: (trainingRunId: string, why: string) => Effect.Effect<void>
  /**
   * Takes no more requests (they fail with `Cancelled`), lets the running recoveries end for so long, and cancels the rest.
   * Gives the ids of those that it cancelled.
   */
  readonly drain: (limit: Duration.Duration) => Effect.Effect<ReadonlyArray<string>>
  /** The incidents that are being recovered, oldest first. */
  readonly running: Effect.Effect<ReadonlyArray<{ readonly incident: Incident; readonly tries: number }>>
}

interface Job {
  readonly incident: Incident
  readonly policy: RecoveryPolicy.RecoveryPolicy
  readonly detectedAt: number
  readonly cancelled: Deferred.Deferred<never, RecoveryError>
  readonly ended: Deferred.Deferred<void>
  readonly history: Array<string>
  begun: boolean
  tries: number
  /** How long the service has had it wait so far. */
  paused: Duration.Duration
  /** When the service last held it back, or let go of it. */
  heldAt: number | undefined
}

/** One try that goes on. */
interface Try {
  readonly began: number
  readonly deadline: Deadline.Deadline
  readonly place: Slots.Place
}

/** A pause that begins so soon after another is the same one to whoever is told. */
const sameMillis = 60_000

const shuttingDown = "the recovery is shutting down"

const unseen = (incident: Incident, detectedAt: number) =>
  Option.match(incident.lastSeenWell, {
    onNone: () => null,
    onSome: (at) => Duration.millis(Math.max(0, detectedAt - at))
  })

/** Tells of an incident that nobody is going to recover. */
export const announce = (log: EventLog, incident: Incident): Effect.Effect<void> =>
  Effect.flatMap(uptime, (now) => log.emit(detected(incident, now)))

const detected = (incident: Incident, detectedAt: number) => ({
  _tag: "detected" as const,
  run: incident.run,
  trainingRunId: incident.trainingRunId,
  attempt: incident.attempt,
  incident: incident.id,
  try: 0,
  duration: unseen(incident, detectedAt),
  cause: incident.cause,
  detail: incident.detail,
  source: incident.source
})

/** Workers become temporary children of `supervisor`. */
export const make = (
  standard: RecoveryPolicy.RecoveryPolicy,
  log: EventLog,
  supervisor: Pick<SupervisorRef<unknown>, "startChild">,
  outage?: Outage
): Executor => {
  const jobs = new Map<string, Job>()
  const slots = Slots.make(standard.maxConcurrent)
  /** When the recoveries of each run began, by cause, within the window. */
  const spent = new Map<string, Array<{ readonly cause: RecoveryEvent.Cause; readonly at: number }>>()
  let draining = false
  let serial = 0

  /** What somebody asked for is not counted. */
  const spend = ({ incident: { cause, run, trainingRunId }, policy }: Job) =>
    Effect.flatMap(uptime, (now) => {
      if (cause === "requested") return Effect.void
      const window = Duration.toMillis(policy.recoveryWindow)
      const recent = (spent.get(run) ?? []).filter(({ at }) => now - at < window)
      spent.set(run, recent)
      const recoveries = recent.filter((one) => one.cause === cause).length
      if (recoveries >= policy.maxRecoveries) {
        return Effect.fail(
          refuse(new BudgetSpent({ runId: trainingRunId, cause, recoveries, window: policy.recoveryWindow }))
        )
      }
      recent.push({ cause, at: now })
      return Effect.void
    })

  const since = (millis: number) => Effect.map(uptime, (now) => Duration.millis(Math.max(0, now - millis)))

  const cancelJob = (job: Job, why: string) =>
    Deferred.fail(job.cancelled, refuse(new Cancelled({ runId: job.incident.trainingRunId, why })))

  const common = (job: Job, duration: Duration.Duration | null = null) => ({
    run: job.incident.run,
    trainingRunId: job.incident.trainingRunId,
    attempt: job.incident.attempt,
    incident: job.incident.id,
    try: job.tries,
    duration
  })

  /** A pause is told once, however often the service changes its mind. */
  const queue = Effect.fnUntraced(function* (
    job: Job,
    { deadline, place }: Try,
    { reason, state }: QueueState,
    span: Tracer.Span
  ) {
    const paused = state === "paused_capacity" || state === "paused_rate_limit"
    const now = yield* uptime
    const before = job.heldAt
    if (paused || before !== undefined) job.heldAt = now
    yield* deadline.hold(paused)
    yield* state === "paused_capacity" ? place.lend : place.takeBack
    if (!paused || (before !== undefined && now - before < sameMillis)) return
    const detail = reason ?? "the service holds the restore back"
    yield* log.emit({ _tag: "paused", ...common(job), tag: state, detail }, span)
  })

  const reporter = (job: Job, one: Try, span: Tracer.Span) => (progress: Progress) =>
    Effect.flatMap(since(one.began), (elapsed) => {
      switch (progress._tag) {
        case "QueueState":
          return queue(job, one, progress.state, span)
        case "Fenced":
          return log.emit({ _tag: "fenced", ...common(job) }, span)
        case "CheckpointSelected": {
          const { path, rejected, step } = progress
          return log.emit({ _tag: "checkpoint_selected", ...common(job), path, step, rejected }, span)
        }
        case "ClientCreated":
          return log.emit(
            { _tag: "client_created", ...common(job, elapsed), newTrainingRunId: progress.trainingRunId },
            span
          )
        case "Quarantined":
          return log.emit({ _tag: "quarantined", ...common(job), path: progress.path, why: progress.why }, span)
        case "Resumed":
          return log.emit(
            { _tag: "resumed", ...common(job, elapsed), newTrainingRunId: progress.trainingRunId, step: progress.step },
            span
          )
      }
    })

  const leftToPause = (job: Job) => Duration.subtract(job.policy.pauseLimit, job.paused)

  const tryOnce = <A>(job: Job, request: Request<A>, span: Tracer.Span) =>
    slots.hold(job.tries > 0)(
      Effect.fnUntraced(function* (place: Slots.Place) {
        job.tries++
        const began = yield* uptime
        const waited = Duration.millis(began - job.detectedAt)
        yield* log.emit({ _tag: "started", ...common(job, waited), maxAttempts: job.policy.maxAttempts }, span)
        const { trainingRunId } = job.incident
        const deadline = yield* Deadline.make(
          Duration.toMillis(job.policy.attemptDeadline),
          Duration.toMillis(leftToPause(job))
        )
        const overdue = Effect.andThen(deadline.reached, () =>
          Effect.fail(refuse(new AttemptTimedOut({ runId: trainingRunId, limit: job.policy.attemptDeadline })))
        )
        const restored = yield* Effect.suspend(() =>
          request.restore(reporter(job, { began, deadline, place }, span))
        ).pipe(
          Effect.raceFirst(overdue),
          Effect.catchDefect((defect) => Effect.fail(Failures.fromDefect(trainingRunId, defect))),
          Effect.result
        )
        job.paused = Duration.sum(job.paused, Duration.millis(yield* deadline.stood))
        return { restored, took: yield* since(began) }
      })
    )

  /** Waits until the service answers, or for no longer than `left`; nothing if it has been answering all along. */
  const waitOut = Effect.fnUntraced(function* (job: Job, left: Duration.Duration, span: Tracer.Span) {
    if (outage === undefined) return undefined
    const { policy } = job
    let waited = Duration.zero
    while (Duration.isLessThan(waited, left)) {
      const down = yield* outage.probe
      if (down === undefined) break
      const wait = Duration.min(policy.maxDelay, Duration.subtract(left, waited))
      if (Duration.isZero(waited)) {
        yield* log.emit({ _tag: "paused", ...common(job, wait), tag: down.tag, detail: down.detail }, span)
      }
      waited = Duration.sum(waited, wait)
      yield* Effect.sleep(wait)
    }
    if (Duration.isZero(waited)) return undefined
    // those who waited together do not all return at once
    if (policy.jitter)
      yield* Effect.flatMap(Random.next, (share) => Effect.sleep(Duration.times(policy.baseDelay, share)))
    return waited
  })

  /** Somebody waits at a prompt, and the service has never taken this key: that does not pass by itself. */
  const isWrongKey = (job: Job, error: RecoveryError) =>
    outage === undefined || job.incident.cause !== "requested" || !Failures.isKeyRefused(error)
      ? Effect.succeed(false)
      : Effect.map(outage.current, ({ lastAnswer }) => lastAnswer === undefined)

  const tries = Effect.fnUntraced(function* <A>(job: Job, request: Request<A>, span: Tracer.Span) {
    const { incident, policy } = job
    yield* spend(job)
    const nextDelay = yield* Schedule.toStep(RecoveryPolicy.schedule(policy))
    // Who was not let in, or kept waiting, asks whether that is over before anything is made.
    const first = incident.cause === "paused" ? yield* waitOut(job, leftToPause(job), span) : undefined
    if (first !== undefined) job.paused = Duration.sum(job.paused, first)
    while (true) {
      const { restored, took } = yield* tryOnce(job, request, span)
      if (Result.isSuccess(restored)) return restored.success
      const wrongKey = yield* isWrongKey(job, restored.failure)
      const error = wrongKey ? Failures.forGood(restored.failure) : restored.failure
      const tag = "tag" in error.reason ? error.reason.tag : error.reason._tag
      const left = leftToPause(job)
      const pause = Failures.pauseOf(error, policy.maxDelay)
      if (pause !== undefined && Duration.isGreaterThan(left, Duration.zero)) {
        const wait = Duration.min(pause, left)
        yield* log.emit({ _tag: "paused", ...common(job, wait), tag, detail: error.message }, span)
        job.tries--
        job.paused = Duration.sum(job.paused, wait)
        yield* Effect.sleep(wait)
        continue
      }
      const waited = !wrongKey && Failures.looksLikeOutage(error) ? yield* waitOut(job, left, span) : undefined
      if (waited !== undefined) {
        job.tries--
        job.paused = Duration.sum(job.paused, waited)
        continue
      }
      job.history.push(error.message)
      const wait =
        error.isRetryable && job.tries < policy.maxAttempts
          ? yield* nextDelay(yield* uptime, error).pipe(
              Effect.map(([, delay]) => Option.some(delay)),
              Pull.catchDone(() => Effect.succeedNone)
            )
          : Option.none<Duration.Duration>()
      const nextTryIn = Option.getOrNull(wait)
      yield* log.emit({ _tag: "failed", ...common(job, took), tag, detail: error.message, nextTryIn }, span)
      if (Option.isSome(wait)) {
        yield* Effect.sleep(wait.value)
        continue
      }
      if (!error.isRetryable) return yield* error
      return yield* refuse(
        new Exhausted({
          runId: incident.trainingRunId,
          incident: incident.id,
          tries: job.tries,
          history: job.history
        })
      )
    }
  })

  const settled = (job: Job, exit: Exit.Exit<unknown, RecoveryError>): RecoveryError | undefined => {
    if (Exit.isSuccess(exit)) return undefined
    const { trainingRunId } = job.incident
    const typed = Cause.findErrorOption(exit.cause)
    if (Option.isSome(typed)) return typed.value
    return Cause.hasInterruptsOnly(exit.cause)
      ? refuse(new Cancelled({ runId: trainingRunId, why: "the executor was stopped" }))
      : Failures.fromDefect(trainingRunId, Cause.squash(exit.cause))
  }

  const worker = <A>(job: Job, request: Request<A>, done: Deferred.Deferred<A, RecoveryError>, span: Tracer.Span) =>
    Effect.gen(function* () {
      job.begun = true
      yield* log.emit(detected(job.incident, job.detectedAt), span)
      return yield* tries(job, request, span)
    }).pipe(
      Effect.raceFirst(Deferred.await(job.cancelled)),
      Effect.onExit((exit) =>
        Effect.gen(function* () {
          jobs.delete(job.incident.trainingRunId)
          const took = yield* since(job.detectedAt)
          const error = settled(job, exit)
          if (Exit.isSuccess(exit)) {
            yield* log.emit({ _tag: "completed", ...common(job, took), ...request.outcome(exit.value) }, span)
            yield* Deferred.succeed(done, exit.value)
          } else if (error !== undefined) {
            const { history } = job
            const tag = error.reason._tag
            yield* log.emit({ _tag: "exhausted", ...common(job, took), tag, detail: error.message, history }, span)
            yield* Deferred.fail(done, error)
          }
          yield* Deferred.succeed(job.ended, undefined)
        })
      )
    )

  const recover = Effect.fnUntraced(function* <A>(request: Request<A>) {
    const { incident } = request
    const { trainingRunId } = incident
    const done = yield* Deferred.make<A, RecoveryError>()
    const job: Job = {
      incident,
      policy: request.policy ?? standard,
      detectedAt: yield* uptime,
      cancelled: yield* Deferred.make<never, RecoveryError>(),
      ended: yield* Deferred.make<void>(),
      history: [],
      begun: false,
      tries: 0,
      paused: Duration.zero,
      heldAt: undefined
    }
    const parent = Option.getOrUndefined(yield* Effect.option(Effect.currentParentSpan))
    const body = Effect.useSpan(
      "recovery.incident",
      {
        ...(parent === undefined ? { root: true } : { parent }),
        attributes: {
          "recovery.incident": incident.id,
          "recovery.run": incident.run,
          "recovery.training_run": trainingRunId
        }
      },
      (span) => worker(job, request, done, span).pipe(Effect.withParentSpan(span))
    ).pipe(
      // the requester has the error; a worker that could not help is no crash
      Effect.catch(() => Effect.void),
      // one query finds all spans of an incident, down to its HTTP requests
      Effect.annotateSpans("recovery.incident", incident.id)
    )
    const spec = ChildSpec.effect(`${incident.id}-${++serial}`, body, {
      restart: "temporary",
      shutdown: "30 seconds"
    })
    if (draining) return yield* refuse(new Cancelled({ runId: trainingRunId, why: shuttingDown }))
    const rival = jobs.get(trainingRunId)
    if (rival !== undefined) {
      return yield* refuse(new AlreadyRecovering({ runId: trainingRunId, incident: rival.incident.id }))
    }
    jobs.set(trainingRunId, job)
    return yield* supervisor.startChild(spec).pipe(
      Effect.onExit(() =>
        Effect.suspend(() => {
          if (job.begun) return Effect.void
          jobs.delete(trainingRunId)
          return Deferred.succeed(job.ended, undefined)
        })
      ),
      Effect.mapError((error) => refuse(new Cancelled({ runId: trainingRunId, why: error.message }))),
      Effect.andThen(Deferred.await(done)),
      Effect.onInterrupt(() => cancelJob(job, "nobody waits for it any more"))
    )
  })

  return {
    recover,
    cancel: (trainingRunId, why) =>
      Effect.suspend(() => {
        const job = jobs.get(trainingRunId)
        return job === undefined ? Effect.void : Effect.asVoid(cancelJob(job, why))
      }),
    drain: (limit) =>
      Effect.gen(function* () {
        draining = true
        const open = [...jobs.values()]
        yield* Effect.forEach(open, ({ ended }) => Deferred.await(ended), {
          concurrency: "unbounded",
          discard: true
        }).pipe(Effect.timeoutOption(limit))
        const rest = [...jobs.values()]
        yield* Effect.forEach(rest, (job) => cancelJob(job, shuttingDown), { discard: true })
        return rest.map(({ incident }) => incident.trainingRunId)
      }),
    running: Effect.sync(() => [...jobs.values()].map(({ incident, tries }) => ({ incident, tries })))
  }
}
