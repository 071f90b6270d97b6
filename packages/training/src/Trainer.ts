/**
 * Fine-tunes a model and carries on, whatever fails in between.
 *
 * Running the same program again continues the run: everything that is needed stands in the `Journal`. What it guarantees
 * (the numbers are those of `docs/guarantees.md`):
 *
 * - **P1** the final state has applied every step exactly once, in order: an attempt that may have missed or repeated a step is
 *   given up, and the run goes on from a checkpoint that holds a known prefix;
 * - **P2** against a deterministic server the final weights, optimizer state and metrics are those of a run that never failed;
 * - **P3** one process at a time advances a run: a second one is refused by the journal's lease;
 * - **P5** every end is a result or a typed error, and every wait has a deadline or a watcher;
 * - **P7** without a guard (`@tinkex/recovery`) a failed attempt ends the program. Running it again is then what recovers.
 *
 * What it does not promise: that a server which says it restored the optimizer did so, or that damage which neither the flag
 * nor a failing request shows is found.
 */
import * as Effect from "effect/Effect"
import type { RestClient } from "@tinkex/tinker/RestClient"
import type { ServiceClient } from "@tinkex/tinker/ServiceClient"
import type { AdamParams } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointPolicy from "./CheckpointPolicy.ts"
import type { Dataset } from "./Dataset.ts"
import * as Run from "./internal/run.ts"
import * as Settings from "./internal/settings.ts"
import type { Journal, JournalError } from "./Journal.ts"
import type { Capability } from "./JournalRecord.ts"
import type * as LearningRate from "./LearningRate.ts"
import type { RunReport, TrainerEvent } from "./RunReport.ts"
import { TrainingError } from "./TrainingError.ts"

/** What to fine-tune, on what, and how. */
export interface FineTuneOptions<E = never, R = never> {
  /** The run's name, `[A-Za-z0-9._-]`, at most 120 characters. The same name continues the same run. */
  readonly name: string
  readonly model: {
    readonly baseModel: string
    /** LoRA rank. Default 32. */
    readonly rank?: number | undefined
    /** Seed of the LoRA factors; fixed for the life of the run, so that a restart from the base model is the same model. Default 0. */
    readonly seed?: number | undefined
    readonly trainMlp?: boolean | undefined
    readonly trainAttn?: boolean | undefined
    readonly trainUnembed?: boolean | undefined
  }
  /** The batches, for example `Dataset.jsonl("data.jsonl", { batchSize: 32 })`. */
  readonly data: Effect.Effect<Dataset, E, R>
  /** A function of the step, or a constant. */
  readonly learningRate: LearningRate.LearningRate | number
  /** Adam's other parameters; the server's defaults where absent. */
  readonly adam?: Omit<AdamParams, "learningRate"> | undefined
  /** When to save and what to keep. Default: every 50 steps, the last 3. A final save is always made. */
  readonly checkpoints?: CheckpointPolicy.CheckpointPolicy | undefined
  /** Steps sent ahead of the oldest one that is not committed, 0 to 8. Default 1. */
  readonly pipelining?: number | undefined
  /** A label for the code that makes the batches; a changed one is refused. Default "1". */
  readonly programVersion?: string | undefined
  /**
   * What the server does with an operation that it receives a second time from another process: D0 runs it again, D1 refuses
   * it, D2 answers with the original while its future lives, D3 for the life of the model. Default D0, the weakest.
   */
  readonly capability?: Capability | undefined
  /** Continue although the configuration, the data or the program version has changed. Default false. */
  readonly force?: boolean | undefined
  /** Load the final checkpoint into a scratch model and ask it for a forward pass before the run counts as complete. Default true. */
  readonly rehearse?: boolean | undefined
  /** Labels stored with every model of the run, beside ours. */
  readonly userMetadata?: Record<string, string> | undefined
  /** Hears what happens. It cannot fail; one that dies is logged and changes nothing. */
  readonly onEvent?: ((event: TrainerEvent) => Effect.Effect<void>) | undefined
}

/**
 * Runs supervised fine-tuning to its last step, from wherever the journal says it stands.
 *
 * Fails with `TrainingError`; a reason whose `isRetryable` is true means that running the program again may go further.
 *
 * ```ts ignore
 * Trainer.fineTune({
 *   name: "support-tone-v3",
 *   model: { baseModel: "Qwen/Qwen3-8B", rank: 32 },
 *   data: Dataset.jsonl("data.jsonl", { batchSize: 32, epochs: 3, shuffleSeed: 7 }),
 *   learningRate: LearningRate.linear({ peak: 1e-4, warmup: 20 })
 * })
 * ```
 */
export const fineTune = Effect.fn("Trainer.fineTune")(function* <E = never, R = never>(
  options: FineTuneOptions<E, R>
): Effect.fn.Return<RunReport, TrainingError | E, R | Journal | ServiceClient | RestClient> {
  const settings = yield* Settings.validate(options)
  yield* Effect.annotateCurrentSpan({ "tinkex.run": settings.name })
  const dataset = yield* options.data
  return yield* Effect.scoped(Run.run(settings, dataset)).pipe(
    Effect.catchTag("JournalError", (error: JournalError) => Effect.fail(TrainingError.fromJournal(error)))
  )
})
