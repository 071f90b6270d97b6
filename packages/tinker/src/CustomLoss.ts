/**
 * Losses that the caller computes from the log-probabilities of a model, for `TrainingClient.forwardBackwardCustom`.
 *
 * A loss is a function of what the forward pass gave for each datum. It returns its value and, for each datum, its gradient with
 * respect to the log-probabilities, in the same order; the service carries that gradient on into the weights.
 */
import type * as Effect from "effect/Effect"
import type { Datum } from "./Datum.ts"

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
