/** Makes training and sampling clients; what they share, the session and its heartbeats, lives as long as the layer. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { QueueState } from "./ApiFuture.ts"
import type { CallOptions } from "./CallOptions.ts"
import type { RestClient } from "./RestClient.ts"
import type { SamplingClient, SamplingOptions } from "./SamplingClient.ts"
import type { TinkerError } from "./TinkerError.ts"
import type { TrainingClient } from "./TrainingClient.ts"

/** A new LoRA model on a base model. */
export interface LoraOptions extends CallOptions {
  readonly baseModel: string
  /** Default 32. The service takes powers of 2 only. */
  readonly rank?: number | undefined
  /** Seed of the LoRA factors. Default: the service's choice. */
  readonly seed?: number | undefined
  /** Default true, as the next two; one of the three must be. */
  readonly trainMlp?: boolean | undefined
  readonly trainAttn?: boolean | undefined
  readonly trainUnembed?: boolean | undefined
  /** Labels stored with the training run. */
  readonly userMetadata?: Record<string, string> | undefined
  /** Fixed for the life of the model; its steps have the same. Default AdamW. Dimuon came after revision 0.25 of the API. */
  readonly optimizer?: "adamw" | "dimuon" | undefined
  /** Told with each poll what the service says while the model is not made yet, such as that there is no room for it. */
  readonly onQueueState?: ((state: QueueState) => Effect.Effect<void>) | undefined
}

/** A new model that starts as a checkpoint. */
export interface FromStateOptions extends CallOptions {
  /** Restore the optimizer's state too. */
  readonly optimizer: boolean
  /** Default: the checkpoint's. */
  readonly baseModel?: string | undefined
  readonly userMetadata?: Record<string, string> | undefined
  /** Needed for a checkpoint of another account: a key (`tml-…`) or a token (`eyJ…`) of that account. */
  readonly weightsAccessToken?: Redacted.Redacted | string | undefined
}

/** A copy of a checkpoint. */
export interface CopyOptions extends CallOptions {
  /** How long the copy is kept, in whole seconds; the end of the original is not taken over. Default: for ever. */
  readonly ttl?: Duration.Input | undefined
  /** Needed for a checkpoint of another account that is not public. */
  readonly weightsAccessToken?: Redacted.Redacted | string | undefined
}

/** How a session ended. */
export interface FinishOptions extends CallOptions {
  /** Default `success`. */
  readonly outcome?: "success" | "errored" | "interrupted" | undefined
  /** Why, for people. */
  readonly detail?: string | undefined
}

/** A live model whose former client is dead. Two clients on one model break its order: make sure of the death. */
export interface AttachOptions {
  readonly modelId: string
  readonly sessionId: string
  /** The number that the first operation gets. */
  readonly nextSeq: number
}

/** Closing a scope stops the clients made in it and leaves their models on the service. */
export class ServiceClient extends Context.Service<
  ServiceClient,
  {
    /**
     * `create_model` in the current session; returns when the model is ready. Interrupting the wait unloads the model as soon as
     * there is one. A `deadline` is for each request of it.
     */
    readonly createLoraTrainingClient: (options: LoraOptions) => Effect.Effect<TrainingClient, TinkerError, Scope.Scope>
    /** A fresh model, loaded from `tinker://<run>/weights/<name>`; returns when it is loaded. */
    readonly createTrainingClientFromState: (
      path: string,
      options: FromStateOptions
    ) => Effect.Effect<TrainingClient, TinkerError, Scope.Scope>
    /** Goes on with a live model and keeps its session alive. Sends no operation by itself, but heartbeats. */
    readonly attachTrainingClient: (options: AttachOptions) => Effect.Effect<TrainingClient, TinkerError, Scope.Scope>
    /** A sampler of a base model, of a checkpoint, of a training client's weights as they are, or of another process. */
    readonly createSamplingClient: (options: SamplingOptions) => Effect.Effect<SamplingClient, TinkerError>
    /**
     * Copies a checkpoint, of either kind, into the current session and with it into its project; gives the path of the copy.
     * After 0.25: `NotFound` from services that do not know it.
     */
    readonly copyWeights: (path: string, options?: CopyOptions) => Effect.Effect<string, TinkerError>
    /**
     * Tells the service that the current session is over, and how: its models are freed at once instead of after missed heartbeats,
     * and neither this process nor another one can go on with them. Wait for your results before; checkpoints stay. Its clients end
     * with `SessionLost`, and whatever is asked for next opens another session. Gives whether the service has heard of it: false where
     * there is no session, and from services that do not know it (it came after 0.25), where it ends here alone. Nothing calls it by
     * itself.
     */
    readonly finishSession: (options?: FinishOptions) => Effect.Effect<boolean, TinkerError>
    readonly rest: RestClient["Service"]
    /** The id of the current session: created when first asked for, and anew after it was found dead. */
    readonly session: Effect.Effect<string, TinkerError>
  }
>()("@tinkex/tinker/ServiceClient") {}
