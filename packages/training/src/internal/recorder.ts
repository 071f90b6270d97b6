import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import type { ApiFuture } from "@tinkex/tinker/ApiFuture"
import type { Datum } from "@tinkex/tinker/Datum"
import * as ModelInput from "@tinkex/tinker/ModelInput"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { OperationKind, Prepared, TrainingClient } from "@tinkex/tinker/TrainingClient"
import type { Operation } from "../JournalRecord.ts"
import type { StepClient, StepFuture } from "../StepClient.ts"
import type { TrainingError } from "../TrainingError.ts"

/** One operation that has its place in the sequence. */
export interface Recorded {
  readonly kind: OperationKind
  readonly written: Operation
  /** Positions of the batch; 0 where there is none. */
  readonly tokens: number
  /** Once it is sent. */
  future: ApiFuture<unknown> | undefined
  readonly submit: Effect.Effect<void, TinkerError>
}

export interface Recorder {
  readonly client: StepClient
  readonly ops: ReadonlyArray<Recorded>
  /** Takes a place behind all operations so far. */
  readonly add: <A>(prepared: Prepared<A>, tokens?: number) => StepFuture<A>
  /** Sends what has not been sent, after `write` has been told all of it. */
  readonly flush: Effect.Effect<void, TinkerError | TrainingError>
  /** What is asked for from now on is a fault of the program. */
  readonly close: () => void
}

const positions = (data: ReadonlyArray<Datum>): number => {
  let sum = 0
  for (const { modelInput } of data) sum += Result.getOrElse(ModelInput.length(modelInput), () => 0)
  return sum
}

/** Waits for the result of an operation that was sent. */
export type Awaiting = <A>(
  kind: OperationKind,
  future: ApiFuture<A>,
  result: Effect.Effect<A, TinkerError>
) => Effect.Effect<A, TinkerError>

/** `write` makes durable what is going to be sent; it is called before the first byte of it leaves (RP1). */
export const make = (
  model: TrainingClient,
  write: (ops: ReadonlyArray<Recorded>) => Effect.Effect<void, TinkerError | TrainingError>,
  awaiting: Awaiting
): Recorder => {
  const ops: Array<Recorded> = []
  const turn = Semaphore.makeUnsafe(1)
  let closed = false

  const flush = turn.withPermits(1)(
    Effect.suspend(() => {
      const unsent = ops.filter((op) => op.future === undefined)
      if (unsent.length === 0) return Effect.void
      return Effect.andThen(
        write(ops),
        Effect.forEach(unsent, (op) => op.submit, { discard: true })
      )
    })
  )

  const add = <A>(prepared: Prepared<A>, tokens = 0): StepFuture<A> => {
    let future: ApiFuture<A> | undefined
    const op: Recorded = {
      kind: prepared.kind,
      written: { kind: prepared.kind, seqIds: prepared.seqIds, digest: prepared.digest },
      tokens,
      future: undefined,
      submit: Effect.map(prepared.submit, (sent) => {
        future = sent
        op.future = sent
      })
    }
    ops.push(op)
    const sent: Effect.Effect<A, TinkerError> = Effect.suspend(() =>
      future === undefined
        ? Effect.die(new Error("the operation was not sent"))
        : awaiting(prepared.kind, future, future.result)
    )
    return { result: Effect.suspend(() => (future === undefined ? Effect.andThen(flush, sent) : sent)) }
  }

  const reserve = <A>(prepared: Effect.Effect<Prepared<A>, TinkerError>, tokens?: number) =>
    Effect.suspend(() =>
      closed
        ? Effect.die(new Error("The client of a step was used after the step had ended"))
        : Effect.map(prepared, (prepared) => add(prepared, tokens))
    )

  return {
    ops,
    add,
    flush,
    close: () => {
      closed = true
    },
    client: {
      modelId: model.modelId,
      sessionId: model.sessionId,
      forwardBackward: (data, options) => reserve(model.prepare.forwardBackward(data, options), positions(data)),
      forward: (data, options) => reserve(model.prepare.forward(data, options)),
      optimStep: (params, options) => reserve(model.prepare.optimStep(params, options)),
      saveWeightsForSampler: (name, options) => reserve(model.prepare.saveWeightsForSampler(name, options)),
      saveWeightsEphemeral: (options) => reserve(model.prepare.saveWeightsEphemeral(options))
    }
  }
}
