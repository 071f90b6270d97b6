/** What the cases of `python/official_sdk.py` print: the other half of that program. */

interface Outputs {
  readonly type: string
  readonly metrics: Readonly<Record<string, number>>
  readonly logprobs: ReadonlyArray<ReadonlyArray<number>>
  readonly shapes: ReadonlyArray<ReadonlyArray<number>>
}

type Logprobs = ReadonlyArray<ReadonlyArray<number>>

interface Sequence {
  readonly stop: string
  readonly tokens: ReadonlyArray<number>
  readonly logprobs: ReadonlyArray<number> | null
}

interface Refusal {
  readonly type: string
  readonly status: number | null
  readonly message: string
}

interface CheckpointSeen {
  readonly checkpoint_id: string
  readonly checkpoint_type: string
  readonly tinker_path: string
  readonly size_bytes: number
  readonly public: boolean
  readonly expires_at: string | null
}

interface Page {
  readonly names: ReadonlyArray<string>
  /** None where the list has no cursor. */
  readonly cursor: { readonly offset: number; readonly limit: number; readonly total_count: number } | null
}

/** A list in one page, in small pages up to the first short one, and far past its end. */
export interface Walked {
  readonly whole: ReadonlyArray<string>
  readonly pages: ReadonlyArray<Page>
  readonly past: Page
}

export interface Cases {
  readonly capabilities: ReadonlyArray<string>
  readonly model: { readonly model_id: string; readonly name: string; readonly rank: number; readonly lora: boolean }
  readonly losses: {
    readonly losses: Readonly<
      Record<string, { readonly forward: Outputs; readonly backward: Outputs; readonly update: Outputs["metrics"] }>
    >
    readonly after: Logprobs
  }
  readonly distillation: { readonly dense: Outputs; readonly sparse: Outputs }
  readonly chunks: {
    readonly count: number
    readonly metrics: Outputs["metrics"]
    readonly first: ReadonlyArray<number>
    readonly last: ReadonlyArray<number>
  }
  readonly state: { readonly path: string; readonly kept: string } & Readonly<
    Record<
      "saved" | "full" | "weights" | "saved_next" | "full_next" | "weights_next" | "loaded" | "loaded_weights",
      Logprobs
    >
  >
  readonly overwrite: { readonly same: boolean; readonly loads: boolean }
  readonly sampling: {
    readonly path: string
    readonly base_model: string
    readonly seeded: ReadonlyArray<ReadonlyArray<Sequence>>
    readonly stop_text?: ReadonlyArray<Sequence>
    readonly prompt_logprobs: ReadonlyArray<number | null>
    readonly computed: ReadonlyArray<number | null>
    readonly topk: ReadonlyArray<ReadonlyArray<readonly [token: number, logprob: number]> | null>
    readonly many: number
  } & Readonly<Record<"greedy" | "again" | "top_k" | "top_p" | "stop_token", ReadonlyArray<Sequence>>>
  readonly samplers: Readonly<Record<"base" | "fresh" | "trained", ReadonlyArray<Sequence>>> & {
    readonly sampler: { readonly base_model: string; readonly path: string | null } | null
  }
  readonly custom_loss: { readonly metrics: Outputs["metrics"]; readonly after: Logprobs }
  readonly runs: {
    readonly run: Readonly<Record<string, unknown>> & { readonly training_run_id: string }
    readonly by_path: string
    readonly walked: Walked
  }
  readonly checkpoints: {
    readonly own: ReadonlyArray<CheckpointSeen>
    readonly user: Walked
    readonly info: Readonly<Record<string, unknown>>
  }
  readonly care: {
    readonly seen: ReadonlyArray<{ readonly public: boolean; readonly expires: boolean } | null>
    readonly left: number
  }
  readonly archive:
    | { readonly absent: true }
    | {
        readonly expires: number
        readonly gzip: boolean
        readonly whole: boolean
        readonly names: ReadonlyArray<string>
        readonly config: { readonly r: number; readonly lora_alpha: number }
        readonly tensors: Readonly<Record<string, unknown>>
      }
  readonly sessions: {
    readonly session_id: string
    readonly model_id: string
    readonly runs: ReadonlyArray<string>
    readonly samplers: number
    readonly listed: Walked
    readonly project: ReadonlyArray<string>
    readonly trace: string
  }
  readonly accounts: {
    readonly usage: { readonly data: unknown; readonly sessions: unknown }
    readonly audit: unknown
  }
  readonly whoami: { readonly user_urn: string }
  readonly refusals: Readonly<Record<"model" | "run" | "path" | "loss" | "token" | "key", Refusal | null>>
  readonly later:
    | { readonly absent: true }
    | {
        readonly path: string
        readonly labels: ReadonlyArray<Readonly<Record<string, string>> | null>
        readonly sequence_id: string
        readonly tokens: ReadonlyArray<number>
        readonly logprobs: ReadonlyArray<number>
        readonly topk: ReadonlyArray<ReadonlyArray<readonly [token: number, logprob: number]>>
        readonly named: ReadonlyArray<number>
        readonly computed: ReadonlyArray<number | null>
        readonly tail: ReadonlyArray<number | null>
        readonly others: ReadonlyArray<ReadonlyArray<number>>
        readonly files: Readonly<Record<string, number>>
        readonly copied: string
        readonly usage: { readonly data: ReadonlyArray<unknown> }
      }
  readonly finish: unknown
}
