/**
 * Carries recoveries out: each in a supervised fiber of its own, a bounded number of tries at the same time.
 *
 * - **X1** one recovery per training run: a second request is refused with `AlreadyRecovering`;
 * - **X2** every request ends, with a result or a typed error: a try has a deadline, the tries are counted, pauses are limited,
 *   a cancelled, crashed or shut-down worker settles its request;
 * - **X3** a detected incident is followed by exactly one `completed` or `exhausted`;
 * - **X4** errors that another try would repeat end the recovery at once;
 * - **X5** no more than `maxConcurrent` tries run at once. Waits between tries hold no place, and a run that comes back for its
 *   next try goes before one that has not had its first.
 *
 * It keeps nothing on disk: when the process dies, its recoveries die with it, and the resumed run finds its own way.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Tracer from "effect/Tracer"
import * as ChildSpec from "@tinkex/supervision/ChildSpec"
import type { SupervisorRef } from "@tinkex/supervision/SupervisorRef"
import type { EventLog } from "./internal/eventLog.ts"
import * as Failures from "./internal/failures.ts"
import * as Slots from "./internal/slots.ts"
import {
  AlreadyRecovering,
  AttemptTimedOut,
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
  /** When the run was last seen well, in milliseconds of the clock. */
  readonly lastSeenWell: Option.Option<number>
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
  readonly restore: (report: (progress: Progress) => Effect.Effect<void>) => Effect.Effect<A, RecoveryError>
  readonly outcome: (restored: A) => Outcome
}

export interface Executor {
  /** Tries until it works or cannot. Interrupting it cancels the recovery. */
  readonly recover: <A>(request: Request<A>) => Effect.Effect<A, RecoveryError>
  /** Ends the recovery of a training run, if there is one; its request fails with `Cancelled`. */
  readonly cancel: (trainingRunId: string, why: string) => Effect.Effect<void>
  /** The incidents that are being recovered, oldest first. */
  readonly running: Effect.Effect<ReadonlyArray<{ readonly incident: Incident; readonly tries: number }>>
}

interface Job {
  readonly incident: Incident
  readonly detectedAt: number
  readonly cancelled: Deferred.Deferred<never, RecoveryError>
  readonly history: Array<string>
  begun: boolean
  tries: number
}

const unseen = (incident: Incident, detectedAt: number) =>
  Option.match(incident.lastSeenWell, {
    onNone: () => null,
    onSome: (at) => Duration.millis(Math.max(0, detectedAt - at))
  })

/** Tells of an incident that nobody is going to recover. */
export const announce = (log: EventLog, incident: Incident): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => log.emit(detected(incident, now)))

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
  policy: RecoveryPolicy.RecoveryPolicy,
  log: EventLog,
  supervisor: Pick<SupervisorRef<unknown>, "startChild">
): Executor => {
  const jobs = new Map<string, Job>()
  const slots = Slots.make(policy.maxConcurrent)
  let serial = 0

  const since = (millis: number) =>
    Effect.map(Clock.currentTimeMillis, (now) => Duration.millis(Math.max(0, now - millis)))

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

  const reporter = (job: Job, began: number, span: Tracer.Span) => (progress: Progress) =>
    Effect.flatMap(since(began), (elapsed) => {
      switch (progress._tag) {
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

  const tryOnce = <A>(job: Job, request: Request<A>, span: Tracer.Span) =>
    Effect.gen(function* () {
      job.tries++
      const began = yield* Clock.currentTimeMillis
      const waited = Duration.millis(began - job.detectedAt)
      yield* log.emit({ _tag: "started", ...common(job, waited), maxAttempts: policy.maxAttempts }, span)
      const restored = yield* Effect.suspend(() => request.restore(reporter(job, began, span))).pipe(
        Effect.timeoutOrElse({
          duration: policy.attemptDeadline,
          orElse: () =>
            Effect.fail(
              refuse(new AttemptTimedOut({ runId: job.incident.trainingRunId, limit: policy.attemptDeadline }))
            )
        }),
        Effect.catchDefect((defect) => Effect.fail(Failures.fromDefect(job.incident.trainingRunId, defect))),
        Effect.result
      )
      return { restored, took: yield* since(began) }
    }).pipe(slots.hold(job.tries > 0))

  const tries = Effect.fnUntraced(function* <A>(job: Job, request: Request<A>, span: Tracer.Span) {
    const { incident } = job
    const nextDelay = yield* Schedule.toStep(RecoveryPolicy.schedule(policy))
    let paused = Duration.zero
    while (true) {
      const { restored, took } = yield* tryOnce(job, request, span)
      if (Result.isSuccess(restored)) return restored.success
      const error = restored.failure
      const tag = "tag" in error.reason ? error.reason.tag : error.reason._tag
      const pause = Failures.pauseOf(error, policy.maxDelay)
      if (pause !== undefined && Duration.isLessThan(paused, policy.pauseLimit)) {
        const wait = Duration.min(pause, Duration.subtract(policy.pauseLimit, paused))
        yield* log.emit({ _tag: "paused", ...common(job, wait), tag, detail: error.message }, span)
        job.tries--
        paused = Duration.sum(paused, wait)
        yield* Effect.sleep(wait)
        continue
      }
      job.history.push(error.message)
      const wait =
        error.isRetryable && job.tries < policy.maxAttempts
          ? yield* nextDelay(yield* Clock.currentTimeMillis, error).pipe(
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
        })
      )
    )

  const recover = Effect.fnUntraced(function* <A>(request: Request<A>) {
    const { incident } = request
    const { trainingRunId } = incident
    const done = yield* Deferred.make<A, RecoveryError>()
    const job: Job = {
      incident,
      detectedAt: yield* Clock.currentTimeMillis,
      cancelled: yield* Deferred.make<never, RecoveryError>(),
      history: [],
      begun: false,
      tries: 0
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
    const rival = jobs.get(trainingRunId)
    if (rival !== undefined) {
      return yield* refuse(new AlreadyRecovering({ runId: trainingRunId, incident: rival.incident.id }))
    }
    jobs.set(trainingRunId, job)
    return yield* supervisor.startChild(spec).pipe(
      Effect.onExit(() => Effect.sync(() => (job.begun ? undefined : jobs.delete(trainingRunId)))),
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
    running: Effect.sync(() => [...jobs.values()].map(({ incident, tries }) => ({ incident, tries })))
  }
}
