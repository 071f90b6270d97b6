/** What a run tells while it goes on, and when it is over. */
import type * as Duration from "effect/Duration"
import type * as Checkpointer from "./Checkpointer.ts"
import type { Incident, IncidentCause, RestoreProgress } from "./RunGuard.ts"

/** What a trainer tells its observer. */
export type TrainerEvent =
  | { readonly _tag: "RunOpened"; readonly run: string; readonly totalSteps: number; readonly attempts: number }
  | {
      readonly _tag: "AttemptStarted"
      readonly attempt: number
      readonly trainingRunId: string
      readonly path: string | null
      readonly step: number
      readonly how: "base" | "restored" | "reattached"
    }
  | { readonly _tag: "StepCommitted"; readonly step: number; readonly metrics: Record<string, number> }
  | { readonly _tag: "Checkpoint"; readonly outcome: Checkpointer.SaveOutcome }
  | { readonly _tag: "IncidentDetected"; readonly incident: Incident }
  | { readonly _tag: "RestoreProgress"; readonly progress: RestoreProgress }
  | { readonly _tag: "Completed"; readonly report: RunReport }

/** One failure that the run survived. */
export interface IncidentReport {
  readonly id: string
  readonly cause: IncidentCause
  readonly detail: string
  readonly attempt: number
  readonly trainingRunId: string
  /** Steps committed when it was detected. */
  readonly step: number
  /** From the last good answer to the detection. */
  readonly timeToDetect: Duration.Duration
  /** From the detection to a model that takes steps again. */
  readonly timeToRecover: Duration.Duration
  /** The checkpoint that was used; `null` for the base model. */
  readonly path: string | null
  /** The step at which the run went on. */
  readonly resumedAt: number
  /** Committed steps that had to be computed again. */
  readonly replayed: number
  readonly quarantined: ReadonlyArray<string>
}

/** How a run ended well. */
export interface RunReport {
  readonly run: string
  /** The training run that holds the final state. */
  readonly trainingRunId: string
  /** The final checkpoint. */
  readonly path: string
  readonly steps: number
  readonly attempts: number
  /** Failures survived by this process. */
  readonly incidents: ReadonlyArray<IncidentReport>
  /** The step at which this process took the run up; 0 for a new run. */
  readonly startedAt: number
  /** Metrics of the first and of the last step committed by this process. */
  readonly first: Record<string, number>
  readonly last: Record<string, number>
  readonly elapsed: Duration.Duration
  /** The run was complete before this process began. */
  readonly already: boolean
}
