/**
 * Losses that the caller computes from the log-probabilities of a model, for `TrainingClient.forwardBackwardCustom`.
 *
 * A loss is a function of what the forward pass gave for each datum. It returns its value and, for each datum, its gradient with
 * respect to the log-probabilities, in the same order; the service carries that gradient on into the weights. There are three ways
 * to one: `differentiate` works the gradient out by itself, `perToken` asks for a slope at each token, and a plain function gives
 * the gradient as it likes. `weighted` adds losses up, and `gradientError` holds a hand-made gradient against the loss itself.
 * `examples/05-preference-loss.ts` is direct preference optimisation from start to end.
 */
import * as Effect from "effect/Effect"
import type { Datum } from "./wire/Datum.ts"
import { Vector } from "./Vector.ts"

/** What the forward pass gave for one datum. */
export interface DatumLogprobs {
  /** As the caller gave it. */
  readonly datum: Datum
  /** The model's log-probability of each target, in the order of `target_tokens`; row by row where those have rows. */
  readonly logprobs: ArrayLike<number>
  /** The shape of `target_tokens`. */
  readonly shape: ReadonlyArray<number>
}

/** What a loss comes to on a batch. */
export interface LossValue {
  readonly loss: number
  /** For each datum ∂loss/∂logprobs: as many finite numbers as it has log-probabilities. */
  readonly gradients: ReadonlyArray<ArrayLike<number>>
  /** Reported with the result, under any name. */
  readonly metrics?: Readonly<Record<string, number>> | undefined
}

/** A loss over a whole batch; it may be an effect, where it has to ask somebody. */
export interface CustomLoss<E = never, R = never> {
  (batch: ReadonlyArray<DatumLogprobs>): LossValue | Effect.Effect<LossValue, E, R>
}

/** One token of a datum, for `perToken`. */
export interface Place {
  readonly datum: Datum
  /** Which datum of the batch. */
  readonly datumIndex: number
  /** Which of the datum's log-probabilities. */
  readonly index: number
}

/** A loss that is a sum over tokens: `f` gives for each log-probability what it adds, and the slope of that. */
export const perToken =
  (f: (logprob: number, place: Place) => { readonly loss: number; readonly slope: number }) =>
  (batch: ReadonlyArray<DatumLogprobs>): LossValue => {
    let loss = 0
    const gradients = batch.map(({ datum, logprobs }, datumIndex) =>
      Float64Array.from(logprobs, (logprob, index) => {
        const told = f(logprob, { datum, datumIndex, index })
        loss += told.loss
        return told.slope
      })
    )
    return { loss, gradients }
  }

/** What the forward pass gave for one datum, ready to compute with. */
export interface DatumVector {
  readonly datum: Datum
  readonly logprobs: Vector
  readonly shape: ReadonlyArray<number>
}

/**
 * A loss without a gradient of its own: `f` computes one number from the log-probabilities with the operations of `Vector`, and
 * the gradient follows from that.
 */
export const differentiate =
  (
    f: (batch: ReadonlyArray<DatumVector>) => {
      readonly loss: Vector
      readonly metrics?: Readonly<Record<string, number>> | undefined
    }
  ) =>
  (batch: ReadonlyArray<DatumLogprobs>): LossValue => {
    const vectors = batch.map((one) => ({ ...one, logprobs: Vector.variable(one.logprobs) }))
    const { loss, metrics } = f(vectors)
    const gradients = Vector.gradients(
      loss,
      vectors.map(({ logprobs }) => logprobs)
    )
    return { loss: loss.value, gradients, metrics }
  }

/** One of several losses that are added up. */
export interface Term<E = never, R = never> {
  readonly weight: number
  readonly loss: CustomLoss<E, R>
}

/**
 * The sum of several losses, each times its weight. The metrics tell of each the loss before weighting, under its name, and its own
 * metrics under `<name>/<metric>`.
 */
export const weighted =
  <E = never, R = never>(terms: Readonly<Record<string, Term<E, R>>>) =>
  (batch: ReadonlyArray<DatumLogprobs>): Effect.Effect<LossValue, E, R> =>
    Effect.gen(function* () {
      let sum = 0
      const metrics: Record<string, number> = {}
      const gradients = batch.map(({ logprobs }) => new Float64Array(logprobs.length))
      for (const [name, { loss, weight }] of Object.entries(terms)) {
        const told = loss(batch)
        const value = Effect.isEffect(told) ? yield* told : told
        sum += weight * value.loss
        metrics[name] = value.loss
        for (const [key, metric] of Object.entries(value.metrics ?? {})) metrics[`${name}/${key}`] = metric
        for (const [i, gradient] of gradients.entries()) {
          const part: ArrayLike<number> = value.gradients[i] ?? []
          // A part of another length makes numbers that are none, which the pass refuses with their place.
          for (let at = 0; at < gradient.length; at++) {
            gradient[at] = (gradient[at] as number) + weight * (part[at] ?? Number.NaN)
          }
        }
      }
      return { loss: sum, gradients, metrics }
    })

/**
 * How far a loss's gradient is from the differences that the loss itself shows when each log-probability moves by `step` (default
 * 1e-4): the largest deviation, relative to the larger of 1 and the slope. Asks for the loss twice for each number: use small
 * batches. A right gradient of a smooth loss stays below about 1e-5.
 */
export const gradientError = <E = never, R = never>(
  loss: CustomLoss<E, R>,
  batch: ReadonlyArray<DatumLogprobs>,
  step = 1e-4
): Effect.Effect<number, E, R> => {
  const evaluate = (at: ReadonlyArray<DatumLogprobs>) => {
    const told = loss(at)
    return Effect.isEffect(told) ? told : Effect.succeed(told)
  }
  return Effect.gen(function* () {
    const { gradients } = yield* evaluate(batch)
    let worst = 0
    for (const [d, one] of batch.entries()) {
      for (let i = 0; i < one.logprobs.length; i++) {
        const moved = (by: number) =>
          batch.map((other, o) =>
            o === d
              ? { ...other, logprobs: Float64Array.from(other.logprobs, (p, at) => (at === i ? p + by : p)) }
              : other
          )
        const up = yield* evaluate(moved(step))
        const down = yield* evaluate(moved(-step))
        const slope = (up.loss - down.loss) / (2 * step)
        const told = gradients[d]?.[i] ?? Number.NaN
        const error = Math.abs(told - slope) / Math.max(1, Math.abs(slope))
        worst = Number.isNaN(error) ? Number.NaN : Math.max(worst, error)
      }
    }
    return worst
  })
}
