/**
 * One model on the service, and the only writer to it.
 *
 * What a client guarantees:
 *
 * - **T1** operations leave in the order in which they were prepared, each after its predecessor was accepted; where a batch is
 *   cut into several requests, the first of them leaves last, so that a service which works in order has all of it or nothing;
 * - **T2** an operation that had no readable answer is sent again with the same sequence number and the same bytes;
 * - **T3** a number is never skipped: after a submission that was refused or given up, nothing more is sent;
 * - **T4** interrupting a caller changes neither order nor content: what was submitted is sent, and a prepared operation whose
 *   fiber fails before it submits fences the client;
 * - **T5** every wait ends: with a result, a typed error, or the fence.
 *
 * It does not promise that a server treats a repeated operation as one: that is a property of the server.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Stream from "effect/Stream"
import type { ApiFuture, QueueState } from "./ApiFuture.ts"
import type { CallOptions } from "./CallOptions.ts"
import type { CustomLoss } from "./CustomLoss.ts"
import type { TinkerError } from "./TinkerError.ts"
import type { Datum } from "./wire/Datum.ts"
import type { TensorData } from "./wire/Tensor.ts"

/** A loss that the service computes. Names that this version does not know are passed on. */
export type LossFn =
  | "cross_entropy"
  | "importance_sampling"
  | "ppo"
  | "cispo"
  | "dro"
  | "gspo"
  | "stable_reinforce"
  | (string & {})

/** How a batch is judged. */
export interface LossOptions extends CallOptions {
  readonly loss: LossFn
  /**
   * Parameters of the loss, such as `clip_low_threshold`. Default: the service's. Texts came after revision 0.25 of the API:
   * services that do not know them pass over them.
   */
  readonly lossConfig?: Readonly<Record<string, number | string>> | undefined
}

/** How a checkpoint is kept. */
export interface SaveOptions extends CallOptions {
  /** How long from now on, in whole seconds. Default: for ever. */
  readonly ttl?: Duration.Input | undefined
  /** Labels that are listed with the checkpoint. Services older than revision 0.31 of the API ignore or refuse them. */
  readonly userMetadata?: Readonly<Record<string, string>> | undefined
}

/** How the whole state is kept. */
export interface SaveStateOptions extends SaveOptions {
  /** Replace a checkpoint of that name. Default false: a name that is taken fails with `Conflict`. */
  readonly overwrite?: boolean | undefined
}

/** What of a checkpoint is loaded, and with whose leave. */
export interface LoadOptions extends CallOptions {
  /** Restore the optimizer's state too. */
  readonly optimizer: boolean
  /** Needed for a checkpoint of another account. */
  readonly weightsAccessToken?: Redacted.Redacted | string | undefined
}

/** AdamW for one step. */
export interface AdamParams {
  readonly optimizer?: "adamw" | undefined
  readonly learningRate: number
  /** Default 0.9. */
  readonly beta1?: number | undefined
  /** Default 0.95. */
  readonly beta2?: number | undefined
  /** Default 1e-12. */
  readonly eps?: number | undefined
  /** Decoupled. Default 0. */
  readonly weightDecay?: number | undefined
  /** Global norm above which gradients are scaled down; 0, the default, never. */
  readonly gradClipNorm?: number | undefined
}

/** One step of Dimuon, for a model that was made with it. */
export interface DimuonParams {
  readonly optimizer: "dimuon"
  readonly learningRate: number
  /** Of the momentum. Default 0.9. */
  readonly beta1?: number | undefined
  /** Global norm above which gradients are scaled down; 0, the default, never. */
  readonly gradClipNorm?: number | undefined
}

/** One step of the optimizer that the model was made with: AdamW unless it says otherwise. */
export type OptimizerParams = AdamParams | DimuonParams

/** What a pass over a batch gives: one map of tensors per datum, in order, and metrics reduced over the chunks. */
export interface ForwardBackwardOutput {
  readonly lossFnOutputType: string
  readonly lossFnOutputs: ReadonlyArray<Record<string, TensorData>>
  readonly metrics: Record<string, number>
}

/** What a pass with a loss of the caller's gives; `metrics` holds the service's and the caller's, which win. */
export interface CustomOutput extends ForwardBackwardOutput {
  /** As the caller's function gave it. */
  readonly loss: number
}

/** What an optimizer step gives. */
export interface OptimStepResult {
  readonly metrics: Record<string, number>
}

/** What a save gives: where it is, `tinker://<run>/weights/<name>`, or `…/sampler_weights/<name>`. */
export interface SaveResult {
  readonly path: string
}

/** What a save without a name gives: the sampling session that has the weights. They are gone with it. */
export interface EphemeralSaveResult {
  readonly samplingSessionId: string
}

/** What a load gives. */
export interface LoadResult {
  /** Where the service says what it has loaded. */
  readonly path: Option.Option<string>
}

/** What the service says about a model. */
export interface ModelInfo {
  readonly modelId: string
  readonly modelName: Option.Option<string>
  /** Whose tokenizer the model uses, without any variant suffix. */
  readonly tokenizerId: Option.Option<string>
  readonly arch: Option.Option<string>
  readonly isLora: Option.Option<boolean>
  readonly loraRank: Option.Option<number>
}

export type OperationKind =
  | "forward_backward"
  | "forward"
  | "optim_step"
  | "save_weights"
  | "save_weights_for_sampler"
  | "load_weights"

/** An operation that has its place in the sequence and has not been sent. */
export interface Prepared<A> {
  readonly kind: OperationKind
  /** Consecutive wire numbers; more than one where a batch is split. */
  readonly seqIds: ReadonlyArray<number>
  /** SHA-256, hex, of what the operation says; the same for another model, another process, another split. */
  readonly digest: string
  /**
   * Sends the operation when its turn has come and returns once the service has accepted it. A second call awaits the same
   * acceptance. Interrupting the wait does not take the operation back.
   */
  readonly submit: Effect.Effect<ApiFuture<A>, TinkerError>
}

/** The operations of a client, in the two forms in which it offers them. */
export interface Operations<
  Wrap extends {
    readonly pass: unknown
    readonly update: unknown
    readonly save: unknown
    readonly ephemeral: unknown
    readonly load: unknown
  }
> {
  /** Adds the gradients of a batch to those that wait for the next `optimStep`. */
  readonly forwardBackward: (
    data: ReadonlyArray<Datum>,
    options: LossOptions
  ) => Effect.Effect<Wrap["pass"], TinkerError>
  /** The same pass without gradients. */
  readonly forward: (data: ReadonlyArray<Datum>, options: LossOptions) => Effect.Effect<Wrap["pass"], TinkerError>
  /** Applies the accumulated gradients and clears them. */
  readonly optimStep: (params: OptimizerParams, options?: CallOptions) => Effect.Effect<Wrap["update"], TinkerError>
  /** Saves weights and optimizer under a name that is new in this run. */
  readonly saveState: (name: string, options?: SaveStateOptions) => Effect.Effect<Wrap["save"], TinkerError>
  /** Saves the weights alone, for sampling, under a name that is new among this run's of that kind. */
  readonly saveWeightsForSampler: (name: string, options?: SaveOptions) => Effect.Effect<Wrap["save"], TinkerError>
  /** Makes a sampling session of the present weights, which are written down nowhere. */
  readonly saveWeightsEphemeral: (options?: SaveOptions) => Effect.Effect<Wrap["ephemeral"], TinkerError>
  /** Loads a checkpoint; services allow it only as a model's first operation. */
  readonly loadState: (path: string, options: LoadOptions) => Effect.Effect<Wrap["load"], TinkerError>
}

/** See the top of this module. Made by `ServiceClient`; lives in the scope that it was made in. */
export interface TrainingClient extends Operations<{
  pass: ApiFuture<ForwardBackwardOutput>
  update: ApiFuture<OptimStepResult>
  save: ApiFuture<SaveResult>
  ephemeral: ApiFuture<EphemeralSaveResult>
  load: ApiFuture<LoadResult>
}> {
  readonly modelId: string
  readonly sessionId: string
  /** The number that the next operation will get. A model's first is 1. */
  readonly nextSeq: Effect.Effect<number>
  /** Reserves the place of an operation without sending it, for those who write down first what they are going to send. */
  readonly prepare: Operations<{
    pass: Prepared<ForwardBackwardOutput>
    update: Prepared<OptimStepResult>
    save: Prepared<SaveResult>
    ephemeral: Prepared<EphemeralSaveResult>
    load: Prepared<LoadResult>
  }>
  /**
   * A pass with a loss of your own: the service computes the log-probabilities, `loss` gives for each datum the gradient with
   * respect to them, and a second pass sends that back through the model. Returns once the second pass is submitted; the first
   * is awaited before `loss` is called, so that operations which other fibers submit meanwhile may come between the two.
   */
  readonly forwardBackwardCustom: <E = never, R = never>(
    data: ReadonlyArray<Datum>,
    loss: CustomLoss<E, R>,
    options?: CallOptions
  ) => Effect.Effect<ApiFuture<CustomOutput>, TinkerError | E, R>
  readonly info: (options?: CallOptions) => Effect.Effect<ModelInfo, TinkerError>
  /** Frees the model on the service and ends this client. What is saved stays. */
  readonly unload: (options?: CallOptions) => Effect.Effect<void, TinkerError>
  /**
   * Completes with the first thing that ends this client, or that leaves its state in doubt: an operation that failed after it
   * was accepted (a failed save or forward pass only where the run itself is lost), a lost run or session, an expired result,
   * a refused submission, the fence.
   */
  readonly failure: Effect.Effect<TinkerError>
  /** What the service says of the operations that wait: `active`, or that one of them is held back. The present state first. */
  readonly queueState: Stream.Stream<QueueState>
  /** From now on nothing is sent, and whatever is waited for fails with `Fenced`. Idempotent. */
  readonly fence: (why: string) => Effect.Effect<void>
}
