/** What a run tells while it goes on, and when it is over. */
import type * as Duration from "effect/Duration"
import type * as Checkpointer from "./Checkpointer.ts"
import type { Goodput } from "./Goodput.ts"
import type { Incident, IncidentCause, RestoreProgress } from "./RunGuard.ts"

/**
 * Why a run waits although nothing is wrong with it: the service has no room, or finds the account too busy or in debt, or
 * cannot be reached.
 */
export type PauseCause = "capacity" | "rate_limit" | "billing" | "unreachable"

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
  | { readonly _tag: "StepSkipped"; readonly step: number; readonly why: string }
  /** `step` is the number of steps applied when it was made. */
  | {
      readonly _tag: "Evaluated"
      readonly step: number
      readonly metrics: Record<string, number>
      readonly best: boolean
    }
  /** Told once a pause, however often the service changes its mind. */
  | { readonly _tag: "Paused"; readonly cause: PauseCause; readonly detail: string; readonly step: number }
  | { readonly _tag: "Resumed"; readonly cause: PauseCause; readonly lasted: Duration.Duration; readonly step: number }
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
  /** Where the time went, since the run was first begun. */
  readonly goodput: Goodput
  /** The run was complete before this process began. */
  readonly already: boolean
}
