/**
 * The model as a step of a loop sees it.
 *
 * - **SC1** an operation is written down before it is sent: either when its step ends, with all others of the step, or at the
 *   moment at which somebody asks for its result or for that of a later one;
 * - **SC2** operations are sent in the order in which they were asked for;
 * - **SC3** it works only while its step runs; afterwards every call dies.
 *
 * A step that asks for no result costs one flush of the journal and lets the next step be prepared while its own is computed.
 */
import type * as Effect from "effect/Effect"
import type { CallOptions } from "@tinkex/tinker/CallOptions"
import type { Datum } from "@tinkex/tinker/Datum"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type {
  AdamParams,
  EphemeralSaveResult,
  ForwardBackwardOutput,
  LossOptions,
  OptimStepResult,
  SaveOptions,
  SaveResult
} from "@tinkex/tinker/TrainingClient"
import type { TrainingError } from "./TrainingError.ts"

/** An operation of a step. */
export interface StepFuture<A> {
  /** Sends what the step has asked for so far, if it has not been sent, and awaits the result; always the same one. */
  readonly result: Effect.Effect<A, TinkerError | TrainingError>
}

export interface StepClient {
  /** The server-side model that carries the run at present. */
  readonly modelId: string
  /** The session that the model belongs to. */
  readonly sessionId: string
  /** Adds the gradients of a batch to those that wait for the next `optimStep`. */
  readonly forwardBackward: (
    data: ReadonlyArray<Datum>,
    options: LossOptions
  ) => Effect.Effect<StepFuture<ForwardBackwardOutput>, TinkerError>
  /** The same pass without gradients. */
  readonly forward: (
    data: ReadonlyArray<Datum>,
    options: LossOptions
  ) => Effect.Effect<StepFuture<ForwardBackwardOutput>, TinkerError>
  /** Applies the accumulated gradients and clears them. A step does so once. */
  readonly optimStep: (
    params: AdamParams,
    options?: CallOptions
  ) => Effect.Effect<StepFuture<OptimStepResult>, TinkerError>
  /** Saves the weights for sampling. The name is new among the run's: attempts that repeat a step are told apart by `modelId`. */
  readonly saveWeightsForSampler: (
    name: string,
    options?: SaveOptions
  ) => Effect.Effect<StepFuture<SaveResult>, TinkerError>
  /**
   * Makes a sampling session of the present weights; `ServiceClient.createSamplingClient({ handle: { sessionId, samplingSessionId } })`
   * draws from it.
   */
  readonly saveWeightsEphemeral: (options?: SaveOptions) => Effect.Effect<StepFuture<EphemeralSaveResult>, TinkerError>
}
