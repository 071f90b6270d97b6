/** What every run can be told, whatever its steps do. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Datum } from "@tinkex/tinker/Datum"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type * as CheckpointPolicy from "./CheckpointPolicy.ts"
import type { DivergenceOptions } from "./Divergence.ts"
import type { Capability } from "./JournalRecord.ts"
import type { TrainerEvent } from "./RunReport.ts"
import type { StepClient } from "./StepClient.ts"
import type { TrainingError } from "./TrainingError.ts"

export interface RunOptions {
  /** The run's name, `[A-Za-z0-9._-]`, at most 120 characters. The same name continues the same run. */
  readonly name: string
  readonly model: {
    readonly baseModel: string
    /** LoRA rank. Default 32. */
    readonly rank?: number | undefined
    /** Seed of the LoRA factors and of the steps; fixed for the life of the run, so that a restart from the base model is the same model. Default 0. */
    readonly seed?: number | undefined
    readonly trainMlp?: boolean | undefined
    readonly trainAttn?: boolean | undefined
    readonly trainUnembed?: boolean | undefined
  }
  /** When to save and what to keep. Default: every 50 steps, the last 3. A final save is always made. */
  readonly checkpoints?: CheckpointPolicy.CheckpointPolicy | undefined
  /** Steps sent ahead of the oldest one that is not committed, 0 to 8. Default 1. */
  readonly pipelining?: number | undefined
  /** A label for the code of the steps and of the batches; a changed one is refused. Default "1". */
  readonly programVersion?: string | undefined
  /**
   * What the server does with an operation that it receives a second time from another process: D0 runs it again, D1 refuses
   * it, D2 answers with the original while its future lives, D3 for the life of the model. Default D0, the weakest.
   */
  readonly capability?: Capability | undefined
  /** Continue although the configuration, the data or the program version has changed, or the run has ended. Default false. */
  readonly force?: boolean | undefined
  /** Go on from this journal although the server shows that a copy of it has gone further. Default false. */
  readonly takeOver?: boolean | undefined
  /**
   * Load the final checkpoint into a scratch model and ask it for a forward pass before the run counts as complete. A loop, and
   * data that is read in order, need a `probe` for the pass. Default true.
   */
  readonly rehearse?: boolean | undefined
  /**
   * A small batch whose log-probabilities are asked for behind every save, and again after every load: a checkpoint that comes
   * back with other weights is set aside before it is trained on. Costs one forward pass for each. Default: none.
   */
  readonly probe?: ReadonlyArray<Datum> | undefined
  /**
   * How late the server may flag a run: so long after a save the flag must be clear before older checkpoints are deleted, and
   * after the final save before the run is complete. Default: 2 minutes for a deletion; at the end a hundredth of the time that
   * the run has taken, at most 2 minutes.
   */
  readonly horizon?: Duration.Input | undefined
  /** What is done about a loss that is no number, or that leaps. Default: the first ends the run. */
  readonly divergence?: DivergenceOptions | undefined
  /**
   * When a silence is too long: `factor` (default 5) times the longest wait of late, but no less than `floor` (default 2
   * minutes), and `warmup` (default 30 minutes) for the first five of a kind. The service is asked first, and a run that it has
   * paused is not silent.
   */
  readonly stall?:
    | {
        readonly floor?: Duration.Input | undefined
        readonly factor?: number | undefined
        readonly warmup?: Duration.Input | undefined
      }
    | undefined
  /** How long the service may keep the run waiting (capacity, rate limit, billing) before the attempt is given up. Default 24 hours. */
  readonly pauseLimit?: Duration.Input | undefined
  /** Labels stored with every model of the run, beside ours. */
  readonly userMetadata?: Record<string, string> | undefined
  /** Hears what happens. It cannot fail; one that dies is logged and changes nothing. */
  readonly onEvent?: ((event: TrainerEvent) => Effect.Effect<void>) | undefined
}

/** A look at the model from time to time. Steps wait for it: it sees the model as it is after exactly `step` steps. */
export interface Evaluation<S, E = never, R = never> {
  /** After every so many steps, and at the end. */
  readonly every: number
  /** Gives metrics; those that the checkpoint policy goes by are among them. It must not change the model. */
  readonly run: (context: {
    readonly client: StepClient
    readonly step: number
    readonly state: S
  }) => Effect.Effect<Record<string, number>, E | TinkerError | TrainingError, R>
}
