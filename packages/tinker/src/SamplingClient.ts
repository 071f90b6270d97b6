/**
 * Draws samples, and the log-probabilities of prompts, from one set of weights.
 *
 * What a client guarantees:
 *
 * - **S1** a request without a readable answer is sent again with the same number and the same bytes, so that a service which
 *   knows its requests by their numbers draws once;
 * - **S2** no number stands for two requests of a client; processes that share a sampler have blocks of numbers, which the
 *   service hands out or which are drawn from a thousand million;
 * - **S3** overload is no failure: a 429 holds back all samplers of a `ServiceClient` together, for as long as the service wants,
 *   and what waits keeps its place;
 * - **S4** every wait ends, with a result or a typed error: where no sample at all has come for `progressTimeout`, while the
 *   service did not say that it is pausing, whatever waits fails with `Stuck`;
 * - **S5** results are complete: as many samples as were asked for, and a log-probability for each token of the prompt.
 *
 * It does not promise the same samples twice without a seed: after a result that was lost on the service's side (410, an outage
 * longer than the client's tolerance) the request is sent anew, under a new number. Samples change nothing on the service, so
 * that is safe.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { QueueState } from "./ApiFuture.ts"
import type { CallOptions } from "./CallOptions.ts"
import type { Sampler } from "./Sampler.ts"
import type { TinkerError } from "./TinkerError.ts"
import type { TrainingClient } from "./TrainingClient.ts"
import type { ModelInput } from "./wire/Datum.ts"
import type * as Wire from "./wire/SampleResponse.ts"
import type { SamplingParams } from "./wire/SamplingParams.ts"
import type { TensorData } from "./wire/Tensor.ts"

export type { PromptAltTokens, TokenLogprob, TopkLogprobs } from "./wire/SampleResponse.ts"
export type { SamplingParams } from "./wire/SamplingParams.ts"

/** Names a sampler to another process of the same account, which then draws from it too; it holds no secret. */
export const SamplingHandle = Schema.Struct({
  sessionId: Schema.String,
  samplingSessionId: Schema.String
})
export type SamplingHandle = typeof SamplingHandle.Type

/** The weights to draw from. */
export type SamplingSource =
  /** A model as it was before any training. */
  | { readonly baseModel: string }
  /** A checkpoint that was saved for sampling: `tinker://<run>/sampler_weights/<name>`. */
  | { readonly modelPath: string; readonly baseModel?: string | undefined }
  /** The weights of a client as they are when its operations so far are done. They are written down nowhere. */
  | { readonly weightsOf: TrainingClient }
  /** The sampler of another process. Its session is kept alive from here too, as long as the `ServiceClient` lives. */
  | { readonly handle: SamplingHandle }

/** One sample. */
export interface SampledSequence extends Wire.SampledSequence {
  /** The service's name of it, where it gives names. */
  readonly sequenceId: string | undefined
}

/** What a prompt gave. */
export interface SampleResponse extends Wire.SampleResponse {
  readonly sequences: ReadonlyArray<SampledSequence>
}

/** How a sampler behaves. */
export interface SamplerSettings extends CallOptions {
  /** How long no sample at all may come, while the service does not pause, before whatever waits is given up. Default 2 hours. */
  readonly progressTimeout?: Duration.Input | undefined
  /** Most requests at once, their wait for a result included; others wait for their turn. Default: the service's, 2,000. */
  readonly maxConcurrent?: number | undefined
}

export type SamplingOptions = SamplingSource & SamplerSettings

/**
 * What to draw from a prompt. A `deadline` covers the whole call; without one it ends as S4 has it. `retries` bounds how often one
 * submission is repeated, and how often a lost result is asked for anew; the answer 429 does not count.
 */
export interface SampleOptions extends SamplingParams, CallOptions {
  /** Samples of the prompt. Default 1. */
  readonly numSamples?: number | undefined
  /** Give the log-probability of each token of the prompt too. Default false. */
  readonly promptLogprobs?: boolean | undefined
  /** Give so many of the likeliest tokens for each place of the prompt. Default 0: none. */
  readonly topkPromptLogprobs?: number | undefined
  /** Give so many of the likeliest tokens for each place of a sample. Default 0: none. Services of 0.25 do not know it. */
  readonly topkSampleLogprobs?: number | undefined
  /**
   * Of the prompt's log-probabilities only those of so many tokens from its end on, which leaves a cached beginning alone; for
   * `promptLogprobs` and `topkPromptLogprobs`. Default: all. An answer of a service that does not know it is refused.
   */
  readonly promptLogprobsLastN?: number | undefined
  /**
   * Give the log-probabilities of these tokens in the places of the prompt: an int64 tensor with a row for each place but the first
   * and as many columns as are wanted, -1 for none; it may be sparse. Services of 0.25 do not know it.
   */
  readonly targetPromptLogprobs?: TensorData | undefined
  /** Draw so many tokens in each place of the prompt but the first, at `temperature`. Default 0: none. Not known to 0.25 either. */
  readonly promptAltTokensK?: number | undefined
  /** Let the service remember how stable each sample was, for losses that name samples by `sequenceId`. Default: its choice. */
  readonly recordStabilityInfo?: boolean | undefined
}

/** How to draw from many prompts; a `deadline` is that of each. */
export interface SampleAllOptions extends SampleOptions {
  /** Prompts at work at once. Default 100. */
  readonly concurrency?: number | undefined
}

/** What came of one of many prompts. */
export interface Sampled {
  /** The place of the prompt, from 0 on. */
  readonly index: number
  readonly prompt: ModelInput
  readonly result: Result.Result<SampleResponse, TinkerError>
}

/** See the top of this module. Made by `ServiceClient`; holds nothing that would have to be closed. */
export interface SamplingClient {
  readonly samplingSessionId: string
  /** The session whose heartbeats keep the sampler. */
  readonly sessionId: string
  /** For another process: `ServiceClient.createSamplingClient({ handle })`. */
  readonly handle: SamplingHandle
  /** Draws from one prompt. Interrupting it abandons the request, and tells the service where that wants to know. */
  readonly sample: (prompt: ModelInput, options?: SampleOptions) => Effect.Effect<SampleResponse, TinkerError>
  /**
   * Draws from many prompts, which are asked for as they are needed. Results come as they are ready, each with the place of its
   * prompt; a prompt that fails is a result too and stops nothing. Ending the stream abandons what is at work. It fails itself
   * only as `prompts` does, or with `InvalidInput` for a `concurrency` that is none.
   */
  readonly sampleAll: <E = never, R = never>(
    prompts: Iterable<ModelInput> | Stream.Stream<ModelInput, E, R>,
    options?: SampleAllOptions
  ) => Stream.Stream<Sampled, E | TinkerError, R>
  /** The log-probability of each token of a prompt, given those before it; `undefined` for the first, which has none. */
  readonly computeLogprobs: (
    prompt: ModelInput,
    options?: CallOptions
  ) => Effect.Effect<ReadonlyArray<number | undefined>, TinkerError>
  /** What the service says of this sampler's queue: the newest state, `active` until it says otherwise, and each change. */
  readonly queueState: Stream.Stream<QueueState>
  readonly info: (options?: CallOptions) => Effect.Effect<Sampler, TinkerError>
}
