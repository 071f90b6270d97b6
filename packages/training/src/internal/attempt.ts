import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { ApiFuture } from "@tinkex/tinker/ApiFuture"
import type { RestClient } from "@tinkex/tinker/RestClient"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { ForwardBackwardOutput, OptimStepResult, Prepared, TrainingClient } from "@tinkex/tinker/TrainingClient"
import type { Checkpointer } from "../Checkpointer.ts"
import type { JournalError } from "../Journal.ts"
import type { JournalRecord } from "../JournalRecord.ts"
import type { IncidentCause } from "../RunGuard.ts"
import { TrainingError } from "../TrainingError.ts"
import type { RunLog } from "./runLog.ts"
import { whatHappened } from "./whatHappened.ts"

/** Ends an attempt, not the run. */
export class AttemptFailed extends Data.TaggedError("AttemptFailed")<{
  readonly cause: IncidentCause
  readonly detail: string
}> {}

/** Steps that are written down with one flush before they are sent. */
const lookAhead = 2

/** A model that is ready for step `next`; steps below `next` are part of it. */
export interface Attempt {
  readonly number: number
  readonly client: TrainingClient
  readonly path: string | null
  readonly fromStep: number
  /** Steps that a dead process wrote down and may have sent; they are sent again under the same sequence numbers. */
  readonly resend: ReadonlyMap<number, StepRecord>
  /** A save of the last committed step that may not have been sent. */
  readonly resendSave: StepRecord | undefined
  readonly reported: Deferred.Deferred<never, AttemptFailed>
}

export type StepRecord = Extract<JournalRecord, { readonly _tag: "Step" }>

/** What one step asks of the server. */
export interface StepProgram {
  readonly totalSteps: number
  readonly pipelining: number
  /** Reserves the operations of a step in their order; nothing is sent. */
  readonly prepare: (
    client: TrainingClient,
    step: number
  ) => Effect.Effect<
    { readonly pass: Prepared<ForwardBackwardOutput>; readonly update: Prepared<OptimStepResult> },
    TinkerError | TrainingError
  >
  /** The name of the save that follows a step, if one is due. */
  readonly saveAfter: (attempt: number, step: number) => string | undefined
  readonly onCommit: (step: number, metrics: Record<string, number>) => Effect.Effect<void>
  /** Makes sure of the final checkpoint once every step is committed and every save is answered. */
  readonly finish: Effect.Effect<string, AttemptFailed | TrainingError | TinkerError | JournalError>
}

type IntentError = AttemptFailed | TrainingError | TinkerError | JournalError

type Unit =
  | {
      readonly _tag: "Step"
      readonly step: number
      readonly pass: ApiFuture<ForwardBackwardOutput>
      readonly update: ApiFuture<OptimStepResult>
    }
  | {
      readonly _tag: "Save"
      readonly name: string
      readonly binds: number
      readonly future: ApiFuture<{ path: string }>
    }

/**
 * Drives one attempt until every step is committed and the final checkpoint is sure; its path is the result. Steps are
 * written down before their first byte is sent (RP1), submitted in order (RP2), a save takes the place right behind its step (RP3), and results count
 * strictly in that order: the first one that is missing ends the attempt and nothing after it is believed (RP4).
 */
export const drive = (
  attempt: Attempt,
  program: StepProgram,
  log: RunLog,
  checkpointer: Checkpointer,
  rest: RestClient["Service"]
): Effect.Effect<string, AttemptFailed | TrainingError> => {
  const { client } = attempt
  const classify = classifyFor(attempt, rest)

  /** Reserves the operations of a step; nothing is sent. */
  const reserve = Effect.fnUntraced(function* (step: number) {
    const { pass, update } = yield* program.prepare(client, step)
    const journaled = attempt.resend.get(step)
    const name = journaled === undefined ? program.saveAfter(attempt.number, step) : journaled.save?.name
    const save = name === undefined ? undefined : yield* client.prepare.saveState(name)
    const ops = [pass, update, ...(save === undefined ? [] : [save])].map((op) => ({
      kind: op.kind,
      seqIds: op.seqIds,
      digest: op.digest
    }))
    if (journaled !== undefined && JSON.stringify(journaled.ops) !== JSON.stringify(ops)) {
      return yield* new AttemptFailed({
        cause: "ambiguous",
        detail: `step ${step} would not be sent as it was written down before the process died`
      })
    }
    const record: StepRecord = {
      _tag: "Step",
      attempt: attempt.number,
      step,
      ops,
      save: name === undefined ? null : { name, binds: step + 1 },
      userState: null
    }
    return {
      step,
      pass,
      update,
      save: name === undefined || save === undefined ? undefined : { name, op: save },
      record: journaled === undefined ? record : undefined
    }
  })

  /** Reserves some steps and writes them down with one flush. */
  const intend = Effect.fnUntraced(function* (from: number) {
    const intents: Array<Effect.Success<ReturnType<typeof reserve>>> = []
    for (let step = from; step < Math.min(from + lookAhead, program.totalSteps); step++) {
      intents.push(yield* reserve(step))
    }
    const records = intents.flatMap(({ record }) => (record === undefined ? [] : [record]))
    for (const record of records.slice(0, -1)) yield* log.appendLazy(record)
    const last = records.at(-1)
    if (last !== undefined) yield* log.append(last)
    return intents
  })

  const loop = Effect.gen(function* () {
    const inflight: Array<Unit> = []
    let next = attempt.fromStep
    let done = attempt.fromStep
    const pending = attempt.resendSave?.save
    if (pending != null) {
      const save = yield* client.prepare.saveState(pending.name)
      inflight.push({ _tag: "Save", name: pending.name, binds: pending.binds, future: yield* save.submit })
    }
    // While steps are on their way, the next ones are made ready and written down: the disk is not waited for.
    let ready: Effect.Success<ReturnType<typeof intend>> = []
    let ahead: Fiber.Fiber<typeof ready, IntentError> | undefined
    while (true) {
      if (next < program.totalSteps && next - done <= program.pipelining) {
        if (ready.length === 0) ready = yield* ahead === undefined ? intend(next) : Fiber.join(ahead)
        // `intend` gives at least the step that it was asked for.
        const { pass, save, step, update } = ready.shift() as (typeof ready)[number]
        next++
        if (ready.length === 0) ahead = next < program.totalSteps ? yield* Effect.forkChild(intend(next)) : undefined
        inflight.push({ _tag: "Step", step, pass: yield* pass.submit, update: yield* update.submit })
        if (save !== undefined) {
          inflight.push({ _tag: "Save", name: save.name, binds: step + 1, future: yield* save.op.submit })
        }
        continue
      }
      const unit = inflight.shift()
      if (unit === undefined) return yield* program.finish
      if (unit._tag === "Step") {
        const { metrics } = yield* unit.pass.result
        const update = yield* unit.update.result
        done = unit.step + 1
        const all = { ...update.metrics, ...metrics }
        yield* log.appendLazy({ _tag: "Commit", attempt: attempt.number, step: unit.step, metrics: all })
        yield* program.onCommit(unit.step, all)
      } else {
        const saved = yield* Effect.result(unit.future.result)
        if (saved._tag === "Success") {
          yield* checkpointer.saved({ name: unit.name, binds: unit.binds, path: saved.success.path })
        } else if (endsAttempt(saved.failure)) {
          return yield* saved.failure
        } else {
          yield* checkpointer.lost(unit.name, saved.failure.message)
        }
      }
    }
  })

  return loop.pipe(
    Effect.catchTag("TinkerError", classify),
    Effect.catchTag("JournalError", (error) => Effect.fail(TrainingError.fromJournal(error))),
    Effect.raceFirst(Deferred.await(attempt.reported)),
    Effect.ensuring(client.fence(`attempt ${attempt.number} has ended`))
  )
}

/** Whether the failure of a save says that the model itself is gone; any other one costs a checkpoint, not the attempt. */
export const endsAttempt = (error: TinkerError): boolean => {
  switch (error.reason._tag) {
    case "RunLost":
    case "SessionLost":
    case "Fenced":
    case "SubmissionRefused":
      return true
    default:
      return false
  }
}

/**
 * What a failing operation means for the attempt. An answer that cannot be had any more is `ambiguous`: the operation may
 * have been applied, so the only safe way on is a restore (RP5, RP6). What a restore cannot mend (a refused key, a batch that
 * the server calls wrong) ends the run instead.
 */
const classifyFor =
  (attempt: Attempt, rest: RestClient["Service"]) =>
  (error: TinkerError): Effect.Effect<never, AttemptFailed | TrainingError> => {
    const failed = (cause: IncidentCause) => Effect.fail(new AttemptFailed({ cause, detail: whatHappened(error) }))
    const byFlag = (otherwise: IncidentCause) =>
      rest
        .getTrainingRun(attempt.client.modelId)
        .pipe(
          Effect.timeout("10 seconds"),
          Effect.match({ onFailure: () => otherwise, onSuccess: (run) => (run.corrupted ? "poisoned" : otherwise) }),
          Effect.flatMap(failed)
        )
    switch (error.reason._tag) {
      case "RunLost":
        return byFlag("lost")
      case "SessionLost":
        return failed("session_lost")
      case "RequestFailed":
        return error.reason.category === "user" ? Effect.fail(TrainingError.service(error)) : byFlag("failed")
      case "Fenced":
        return Deferred.isDone(attempt.reported).pipe(
          Effect.flatMap((done) => (done ? Deferred.await(attempt.reported) : failed("lost")))
        )
      case "PromiseExpired":
      case "Conflict":
      case "Transport":
      case "Timeout":
      case "BadResponse":
      case "ServerFailure":
      case "SubmissionRefused":
        return byFlag("ambiguous")
      default:
        return Effect.fail(TrainingError.service(error))
    }
  }
