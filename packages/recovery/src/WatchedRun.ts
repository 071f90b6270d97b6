/** What is agreed between the recovery and the owner of a loop. */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { Checkpoint } from "@tinkex/tinker/Checkpoint"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import type { RecoveryError } from "./RecoveryError.ts"
import type { RecoveryPolicy } from "./RecoveryPolicy.ts"

/** Tells the step of a checkpoint, where its owner can: the wire knows none. */
export type StepOf = (checkpoint: Checkpoint) => Option.Option<number>

/** Tells what was measured at a checkpoint, where its owner can: `RecoveryPolicy.best` goes by it. */
export type MetricsOf = (checkpoint: Checkpoint) => Readonly<Record<string, number>> | undefined

/** A run that was brought back. */
export interface Recovered {
  readonly previous: { readonly runId: string; readonly client: Option.Option<TrainingClient> }
  /** The new attempt; the same as `client.modelId`. */
  readonly runId: string
  /** Loaded, and at `step`. It lives in the scope of the watch, or of the caller who asked for the recovery. */
  readonly client: TrainingClient
  readonly checkpoint: CheckpointSelector.Candidate
  /** Steps applied in it, where `stepOf` could tell. */
  readonly step: Option.Option<number>
  readonly incident: string
  /** Checkpoints that turned out to be bad on the way. */
  readonly quarantined: ReadonlyArray<string>
}

/** A run to look after. */
export interface WatchOptions {
  readonly runId: string
  /**
   * What the run is called in the program's `Journal`, if there is one: by the same name, other processes that watch it leave a
   * recovery to one of them, and a process that died in the middle of one goes on with it. Default: `watched-` and `runId`,
   * which only does while everybody names the run by the same attempt.
   */
  readonly name?: string | undefined
  /** With its client a failure is noticed at the request that meets it, and the client is fenced before the restore. */
  readonly client?: TrainingClient | undefined
  /** Tells the step of a checkpoint. Without it the newest by time is taken. */
  readonly stepOf?: StepOf | undefined
  /** Tells what was measured at a checkpoint, for the strategies that go by it. */
  readonly metricsOf?: MetricsOf | undefined
  /**
   * A policy of its own for the recoveries of this run: tries, waits, deadline, limits of pauses and budget, strategy, optimizer
   * and callbacks. Whether anything is recovered at all, the sweeps and how many recoveries go on at once stay the layer's.
   * Made by `RecoveryPolicy.make`, which checks it. Default: the layer's.
   */
  readonly policy?: RecoveryPolicy | undefined
  /** Replaces the policy's strategy for this run. */
  readonly strategy?: CheckpointSelector.Strategy | undefined
  /** Handed the new client. May take as long as the policy's `callbackLimit`. */
  readonly onRecovered?: ((recovered: Recovered) => Effect.Effect<unknown, unknown>) | undefined
  /** Told when the run was given up, under the id of the attempt that could not be replaced. */
  readonly onFailure?:
    | ((failure: { readonly runId: string; readonly error: RecoveryError }) => Effect.Effect<unknown, unknown>)
    | undefined
}

/** How a run stands that this layer has heard of. */
export interface RunStatus {
  /** The current attempt. */
  readonly runId: string
  /** The attempts before it, oldest first. */
  readonly before: ReadonlyArray<string>
  /**
   * `idle`: not watched. `reported`: failed, but the policy is not enabled. `given_up`: no recovery succeeded; watching the run
   * again, or `recoverRun`, arms it anew.
   */
  readonly phase: "idle" | "watched" | "recovering" | "reported" | "given_up"
}
