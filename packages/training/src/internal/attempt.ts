import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Schema from "effect/Schema"
import type { Datum } from "@tinkex/tinker/Datum"
import type { RestClient } from "@tinkex/tinker/RestClient"
import { TinkerError } from "@tinkex/tinker/TinkerError"
import type { ForwardBackwardOutput, TrainingClient } from "@tinkex/tinker/TrainingClient"
import type { Checkpointer } from "../Checkpointer.ts"
import type { Moment } from "../CheckpointPolicy.ts"
import { JournalError } from "../JournalError.ts"
import type { JournalRecord } from "../JournalRecord.ts"
import type { IncidentCause } from "../RunGuard.ts"
import type { StepClient } from "../StepClient.ts"
import { TrainingError } from "../TrainingError.ts"
import * as Probe from "./probe.ts"
import * as Recorder from "./recorder.ts"
import type { RunLog } from "./runLog.ts"
import type { Section } from "./sectionLimits.ts"
import type { Vigil } from "./vigil.ts"
import { whatHappened } from "./whatHappened.ts"

/** Ends an attempt, not the run. */
export class AttemptFailed extends Data.TaggedError("AttemptFailed")<{
  readonly cause: IncidentCause
  readonly detail: string
  /** What was saved after so many steps may hold the damage. */
  readonly onset?: number | undefined
  /** The flag rose while every request still succeeded: how long it had been due, nobody knows. */
  readonly late?: boolean | undefined
  /** What ends the run where nobody waits for it to pass. */
  readonly otherwise?: TinkerError | undefined
}> {}

/** A model that is ready for step `next`; steps below `next` are part of it. */
export interface Attempt {
  readonly number: number
  readonly client: TrainingClient
  readonly path: string | null
  readonly fromStep: number
  /** The state of the loop at `fromStep`. */
  readonly state: Schema.Json
  /** Steps that a dead process wrote down and may have sent; they are sent again under the same sequence numbers. */
  readonly resend: ReadonlyMap<number, StepRecord>
  /** A save of the last committed step that may not have been sent. */
  readonly resendSave: StepRecord | undefined
  readonly reported: Deferred.Deferred<never, AttemptFailed>
}

export type StepRecord = Extract<JournalRecord, { readonly _tag: "Step" }>

/** What a step has come to. */
export interface StepOutcome {
  /** The state of the loop after it. */
  readonly state: Schema.Json
  /** Beside those of the service. */
  readonly metrics: Readonly<Record<string, number>>
}

/** What is known of the place behind a step when it is decided whether a save takes it. */
export type Place = Omit<Moment, "observed">

/** What the steps of a run ask of the server. */
export interface StepProgram<E, R> {
  readonly totalSteps: number
  readonly pipelining: number
  /** Steps that are made ready and written down with one flush; more than 1 only where a step asks for no result. */
  readonly lookAhead: number
  /** Takes a step through the client that it is given. */
  readonly take: (context: {
    readonly client: StepClient
    readonly step: number
    readonly state: Schema.Json
  }) => Effect.Effect<StepOutcome, E | TinkerError | TrainingError, R>
  /** Why the batch of this step is left out, if it is. */
  readonly skipped: (step: number) => string | undefined
  readonly epochsAt: (steps: number) => { readonly epochs: number; readonly epochEnded: boolean }
  /** The name of the save that takes this place, if one is due. */
  readonly saveAt: (attempt: number, place: Place) => string | undefined
  /** How long a save is kept by the server, in whole seconds. */
  readonly ttlSeconds: number | undefined
  /** A small batch whose log-probabilities are asked for behind every save. */
  readonly probe: ReadonlyArray<Datum> | undefined
  readonly evaluation: EvaluationProgram<E, R> | undefined
  /** Told of every committed step in its order; a failure ends the attempt before the step counts. */
  readonly judge: (
    step: number,
    metrics: Record<string, number>,
    tokens: number
  ) => Effect.Effect<void, AttemptFailed | TrainingError | JournalError>
  readonly onCommit: (step: number, metrics: Record<string, number>) => Effect.Effect<void, TrainingError>
  /** Makes sure of the final checkpoint once every step is committed and every save is answered. */
  readonly finish: (
    state: Schema.Json
  ) => Effect.Effect<string, AttemptFailed | TrainingError | TinkerError | JournalError>
}

export interface EvaluationProgram<E, R> {
  /** Whether it is due when so many steps are applied and none is on its way. */
  readonly due: (steps: number) => boolean
  readonly run: (context: {
    readonly client: StepClient
    readonly steps: number
    readonly state: Schema.Json
  }) => Effect.Effect<Record<string, number>, E | TinkerError | TrainingError, R>
  /** Told of the result; gives whether it is the best so far. */
  readonly done: (steps: number, metrics: Record<string, number>) => Effect.Effect<boolean>
}

interface Ready {
  readonly step: number
  readonly recorder: Recorder.Recorder | undefined
  readonly ops: number
  readonly save: PlacedSave | undefined
  readonly outcome: StepOutcome
  readonly tokens: number
}

interface PlacedSave {
  readonly name: string
  readonly binds: number
  readonly userState: Schema.Json
  readonly op: Recorder.Recorded
  readonly probe: Recorder.Recorded | undefined
}

type Unit = { readonly _tag: "Step"; readonly ready: Ready } | { readonly _tag: "Save"; readonly save: PlacedSave }

const sectionOf = (kind: Recorder.Recorded["kind"]): Section =>
  kind === "optim_step" ? "optim_step" : kind.startsWith("save") ? "save" : "forward_backward"

/** Of several passes in one step sums are added up; of anything else the last word counts. */
const merge = (into: Record<string, number>, metrics: Readonly<Record<string, number>>) => {
  for (const [name, value] of Object.entries(metrics)) {
    into[name] = name.endsWith(":sum") && into[name] !== undefined ? into[name] + value : value
  }
}

const pathIn = (result: unknown): string =>
  typeof result === "object" && result !== null && "path" in result ? String(result.path) : ""

const metricsIn = (result: unknown): Readonly<Record<string, number>> =>
  typeof result === "object" && result !== null && "metrics" in result
    ? // Results with metrics are those of passes and optimizer steps, whose metrics the client has decoded as numbers.
      (result.metrics as Readonly<Record<string, number>>)
    : {}

/**
 * Drives one attempt until every step is committed and the final checkpoint is sure; its path is the result. Operations are
 * written down before their first byte is sent (RP1), submitted in order (RP2), a save takes the place right behind its step (RP3), and results count
 * strictly in that order: the first one that is missing ends the attempt and nothing after it is believed (RP4).
 */
export const drive = <E, R>(
  attempt: Attempt,
  program: StepProgram<E, R>,
  log: RunLog,
  checkpointer: Checkpointer,
  rest: RestClient["Service"],
  vigil: Vigil
): Effect.Effect<string, AttemptFailed | TrainingError | E, R> => {
  const { client } = attempt
  const classify = classifyFor(attempt, rest)
  const { evaluation, totalSteps } = program

  // Where the newest placed save stands, and what has happened since.
  let savedAt = attempt.fromStep
  let tokensSince = 0
  let saveMillis = 0
  let saveCost: number | undefined
  let pausedBefore = 0
  let saving = 0

  const place = Effect.fnUntraced(function* (steps: number, improved: boolean) {
    const now = yield* Clock.currentTimeMillis
    return {
      steps,
      ...program.epochsAt(steps),
      tokens: tokensSince,
      elapsed: now - saveMillis - (vigil.paused() - pausedBefore),
      saving: saving > 0,
      improved,
      saveCost
    }
  })

  const placed = Effect.fnUntraced(function* (steps: number) {
    savedAt = steps
    tokensSince = 0
    saveMillis = yield* Clock.currentTimeMillis
    pausedBefore = vigil.paused()
    saving++
  })

  const journalFailure = <A>(effect: Effect.Effect<A, JournalError>) =>
    Effect.mapError(effect, (error) => TrainingError.fromJournal(error))

  const awaiting: Recorder.Awaiting = (kind, future, result) => vigil.wait(sectionOf(kind), future, result)

  /** Reserves a save, and the probe behind it, in the sequence of a recorder. */
  const reserveSave = Effect.fnUntraced(function* (
    recorder: Recorder.Recorder,
    name: string,
    binds: number,
    userState: Schema.Json
  ) {
    const save = yield* client.prepare.saveState(
      name,
      program.ttlSeconds === undefined || binds === totalSteps ? {} : { ttl: `${program.ttlSeconds} seconds` }
    )
    recorder.add(save)
    const op = recorder.ops.at(-1)
    let probe: Recorder.Recorded | undefined
    if (program.probe !== undefined) {
      recorder.add(yield* client.prepare.forward(program.probe, { loss: "cross_entropy" }))
      probe = recorder.ops.at(-1)
    }
    yield* placed(binds)
    // `add` has just put it there.
    return { name, binds, userState, op: op as Recorder.Recorded, probe }
  })

  /** Takes a step as far as it can be taken without sending anything; with an eye on what a dead process has written down. */
  const reserve = Effect.fnUntraced(function* (step: number, state: Schema.Json) {
    if (program.skipped(step) !== undefined) {
      const ready: Ready = {
        step,
        recorder: undefined,
        ops: 0,
        save: undefined,
        outcome: { state, metrics: {} },
        tokens: 0
      }
      return { ready, record: undefined }
    }
    const journaled = attempt.resend.get(step)
    const agrees = (ops: StepRecord["ops"]) =>
      journaled === undefined ||
      JSON.stringify(ops.slice(0, journaled.ops.length)) === JSON.stringify(journaled.ops.slice(0, ops.length))
    const different = new AttemptFailed({
      cause: "ambiguous",
      detail: `step ${step} would not be sent as it was written down before the process died`
    })
    const write = (ops: ReadonlyArray<Recorder.Recorded>) => {
      const written = ops.map((op) => op.written)
      if (!agrees(written)) return Effect.andThen(Deferred.fail(attempt.reported, different), Effect.never)
      if (journaled !== undefined && written.length <= journaled.ops.length) return Effect.void
      return journalFailure(
        log.append({
          _tag: "Step",
          attempt: attempt.number,
          step,
          ops: written,
          save: null,
          userState: state,
          open: true
        })
      )
    }
    const recorder = Recorder.make(client, write, awaiting)
    const outcome = yield* program.take({ client: recorder.client, step, state })
    recorder.close()
    const ops = recorder.ops.length
    const tokens = recorder.ops.reduce((sum, op) => sum + op.tokens, 0)
    tokensSince += tokens
    const name =
      journaled === undefined || journaled.open === true
        ? program.saveAt(attempt.number, yield* place(step + 1, false))
        : journaled.save?.name
    const save = name === undefined ? undefined : yield* reserveSave(recorder, name, step + 1, outcome.state)
    const written = recorder.ops.map((op) => op.written)
    if (!agrees(written)) return yield* different
    if (journaled !== undefined && journaled.open !== true && journaled.ops.length !== written.length) {
      return yield* different
    }
    const record: StepRecord = {
      _tag: "Step",
      attempt: attempt.number,
      step,
      ops: written,
      save: name === undefined ? null : { name, binds: step + 1 },
      userState: outcome.state
    }
    return {
      ready: { step, recorder, ops, save, outcome, tokens },
      record: journaled === undefined || journaled.open === true ? record : undefined
    }
  })

  /** Takes some steps and writes them down with one flush. */
  const intend = Effect.fnUntraced(function* (from: number, state: Schema.Json, until: number) {
    const intents: Array<Ready> = []
    const records: Array<StepRecord> = []
    let after = state
    for (let step = from; step < Math.min(from + program.lookAhead, until); step++) {
      const { ready, record } = yield* reserve(step, after)
      intents.push(ready)
      after = ready.outcome.state
      if (record !== undefined) records.push(record)
    }
    for (const record of records.slice(0, -1)) yield* log.appendLazy(record)
    const last = records.at(-1)
    if (last !== undefined) yield* log.append(last)
    return { intents, state: after }
  })

  const submit = (recorder: Recorder.Recorder) =>
    Effect.forEach(
      recorder.ops.filter((op) => op.future === undefined),
      (op) => op.submit,
      { discard: true }
    )

  /** The result of an operation that was sent. */
  const resultOf = (op: Recorder.Recorded) =>
    op.future === undefined
      ? Effect.die(new Error("an operation was awaited that was not sent"))
      : vigil.wait(sectionOf(op.kind), op.future, op.future.result)

  const commit = Effect.fnUntraced(function* ({ ops, outcome, recorder, step, tokens }: Ready) {
    const metrics: Record<string, number> = {}
    for (const op of recorder?.ops.slice(0, ops) ?? []) merge(metrics, metricsIn(yield* resultOf(op)))
    Object.assign(metrics, outcome.metrics)
    yield* program.judge(step, metrics, tokens)
    yield* log.appendLazy({ _tag: "Commit", attempt: attempt.number, step, metrics })
    yield* program.onCommit(step, metrics)
    return metrics
  })

  const settleSave = Effect.fnUntraced(function* (save: PlacedSave, metrics: Record<string, number> | undefined) {
    const began = yield* Clock.currentTimeMillis
    const saved = yield* Effect.result(resultOf(save.op))
    const now = yield* Clock.currentTimeMillis
    // Requests are carried out in order, so this is what the save has held the steps behind it up for.
    const cost = now - began
    saveCost = saveCost === undefined ? cost : 0.7 * saveCost + 0.3 * cost
    saving--
    const probe = save.probe === undefined ? undefined : yield* Effect.result(resultOf(save.probe))
    if (saved._tag === "Failure") {
      if (endsAttempt(saved.failure)) return yield* saved.failure
      return yield* checkpointer.lost(save.name, saved.failure.message)
    }
    if (probe?._tag === "Failure" && endsAttempt(probe.failure)) return yield* probe.failure
    yield* checkpointer.saved({
      name: save.name,
      binds: save.binds,
      path: pathIn(saved.success),
      userState: save.userState,
      metrics,
      probe: probe?._tag === "Success" ? Probe.read(probe.success as ForwardBackwardOutput) : undefined, // a forward pass
      savedAt: now,
      expiresAt:
        program.ttlSeconds === undefined || save.binds === totalSteps ? undefined : now + program.ttlSeconds * 1000
    })
  })

  /** With nothing on its way: the model has applied exactly `steps` steps. */
  const evaluate = Effect.fnUntraced(function* (program: EvaluationProgram<E, R>, steps: number, state: Schema.Json) {
    yield* log.append({ _tag: "Evaluating", attempt: attempt.number, step: steps })
    const recorder = Recorder.make(client, () => Effect.void, awaiting)
    const metrics = yield* vigil.wait(
      "evaluation",
      undefined,
      Effect.tap(program.run({ client: recorder.client, steps, state }), () => recorder.flush)
    )
    recorder.close()
    for (const op of recorder.ops) yield* resultOf(op)
    yield* log.append({
      _tag: "Evaluated",
      attempt: attempt.number,
      step: steps,
      metrics,
      nextSeq: yield* client.nextSeq
    })
    return yield* program.done(steps, metrics)
  })

  /** A save where no step has just been placed. */
  const saveHere = Effect.fnUntraced(function* (name: string, binds: number, state: Schema.Json) {
    const recorder = Recorder.make(client, () => Effect.void, awaiting)
    const save = yield* reserveSave(recorder, name, binds, state)
    yield* log.append({
      _tag: "Save",
      attempt: attempt.number,
      name,
      binds,
      op: save.op.written,
      userState: state
    })
    yield* submit(recorder)
    return save
  })

  const loop = Effect.gen(function* () {
    const inflight: Array<Unit> = []
    saveMillis = yield* Clock.currentTimeMillis
    let next = attempt.fromStep
    let done = attempt.fromStep
    let state = attempt.state
    let evaluated = -1
    let newest: Record<string, number> = {}
    const pending = attempt.resendSave
    if (pending?.save != null) {
      const recorder = Recorder.make(client, () => Effect.void, awaiting)
      const save = yield* reserveSave(recorder, pending.save.name, pending.save.binds, pending.userState)
      yield* submit(recorder)
      inflight.push({ _tag: "Save", save })
    }
    // While steps are on their way, the next ones are made ready and written down: the disk is not waited for.
    let ready: Array<Ready> = []
    let ahead:
      | Fiber.Fiber<Effect.Success<ReturnType<typeof intend>>, Effect.Error<ReturnType<typeof intend>>>
      | undefined
    /** An evaluation wants every step below it applied and none above it sent. */
    const barrier = () => {
      if (evaluation === undefined) return totalSteps
      let at = next
      while (at < totalSteps && !(at > evaluated && evaluation.due(at))) at++
      return at
    }
    let wall = barrier()
    const finish = Effect.fnUntraced(function* (unit: Unit) {
      if (unit._tag === "Save") return yield* settleSave(unit.save, unit.save.binds === done ? newest : undefined)
      newest = yield* commit(unit.ready)
      done = unit.ready.step + 1
    })
    /** A step that fails by itself speaks for none of those before it: they are brought to their end. */
    const orderly = <A, E2>(effect: Effect.Effect<A, E2 | AttemptFailed | TinkerError | JournalError, R>) =>
      Effect.catch(effect, (error) =>
        error instanceof AttemptFailed || error instanceof TinkerError || error instanceof JournalError
          ? Effect.fail(error)
          : Effect.gen(function* () {
              for (let unit = inflight.shift(); unit !== undefined; unit = inflight.shift()) yield* finish(unit)
              yield* checkpointer.settle
              return yield* Effect.fail(error)
            })
      )
    while (true) {
      if (next < wall && next - done <= program.pipelining) {
        if (ready.length === 0) {
          const intent =
            ahead === undefined
              ? yield* orderly(vigil.wait("step", undefined, intend(next, state, wall)))
              : yield* orderly(Fiber.join(ahead))
          ahead = undefined
          ready = intent.intents
          state = intent.state
        }
        // `intend` gives at least the step that it was asked for.
        const one = ready.shift() as Ready
        next++
        if (ready.length === 0 && next < wall && program.lookAhead > 1) {
          ahead = yield* Effect.forkChild(intend(next, state, wall))
        }
        if (one.recorder !== undefined) yield* submit(one.recorder)
        inflight.push({ _tag: "Step", ready: one })
        if (one.save !== undefined) inflight.push({ _tag: "Save", save: one.save })
        continue
      }
      const unit = inflight.shift()
      if (unit !== undefined) {
        yield* finish(unit)
        continue
      }
      if (evaluation !== undefined && next > evaluated && next > 0 && evaluation.due(next)) {
        evaluated = next
        const improved = yield* evaluate(evaluation, next, state)
        const name =
          next === totalSteps || savedAt === next
            ? undefined
            : program.saveAt(attempt.number, yield* place(next, improved))
        if (improved && name !== undefined) {
          inflight.push({ _tag: "Save", save: yield* saveHere(name, next, state) })
        }
        wall = barrier()
        continue
      }
      return yield* program.finish(state)
    }
  })

  return loop.pipe(
    Effect.catch((error) => {
      if (error instanceof TinkerError) return classify(error)
      if (error instanceof JournalError) return Effect.fail(TrainingError.fromJournal(error))
      return Effect.fail(error)
    }),
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
      case "BillingPaused":
      case "RateLimited":
        return failed("paused")
      // Read anew and refused again: the key may be about to be replaced.
      case "Unauthorized":
        return Effect.fail(new AttemptFailed({ cause: "paused", detail: whatHappened(error), otherwise: error }))
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
