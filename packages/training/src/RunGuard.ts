/**
 * The seam through which somebody else decides *when* a live run is restored.
 *
 * A trainer that meets a failure it cannot resend its way out of freezes the attempt, writes the incident down and asks its
 * guard. There is none by default: the run then ends with a typed error that names the checkpoint to go on from. With a guard
 * (`@tinkex/recovery` provides one) the trainer hands over a `RestoreRequest` and waits for the new client. *How* a restore
 * is done stays here, in `Restore`, and is the same for a live run and for a restarted process.
 */
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { QueueState } from "@tinkex/tinker/ApiFuture"
import type { TrainingClient } from "@tinkex/tinker/TrainingClient"
import type * as CheckpointSelector from "./CheckpointSelector.ts"
import type { Plan } from "./Restore.ts"
import type { TrainingError } from "./TrainingError.ts"

/**
 * What ended an attempt.
 *
 * - `poisoned`: the server flagged the run as corrupted
 * - `failed`: an operation failed in band without the flag
 * - `lost`: the model is no longer loaded
 * - `session_lost`: the server forgot the session
 * - `ambiguous`: an operation may or may not have been applied, and the answer cannot be had any more
 * - `stalled`: nothing moved for longer than that kind of work has ever taken, several times over
 * - `diverged`: the loss is no number any more, or has left its course, and the run's policy asks for a restore
 * - `paused`: the service would not let the run go on (billing, rate limit) for longer than its own window, or refuses the key that it
 *   took before; nobody's fault
 */
export const IncidentCause = Schema.Literals([
  "poisoned",
  "failed",
  "lost",
  "session_lost",
  "ambiguous",
  "stalled",
  "diverged",
  "paused"
])
export type IncidentCause = typeof IncidentCause.Type

/** One detected failure of one attempt. Its id is a hash of run and attempt, so two observers make the same one. */
export interface Incident {
  readonly id: string
  readonly run: string
  readonly attempt: number
  readonly trainingRunId: string
  readonly cause: IncidentCause
  readonly detail: string
  /** Steps committed when it was detected. */
  readonly step: number
  readonly detectedAt: DateTime.Utc
}

/** Told to the guard when an attempt has started to send steps. */
export interface AttemptStarted {
  readonly run: string
  readonly attempt: number
  readonly trainingRunId: string
  readonly client: TrainingClient
}

/** What happens inside one try of a restore, in order. */
export type RestoreProgress =
  | { readonly _tag: "Fenced"; readonly trainingRunId: string }
  | {
      readonly _tag: "CheckpointSelected"
      readonly path: string | null
      readonly step: number
      readonly rejected: number
    }
  | { readonly _tag: "ClientCreated"; readonly trainingRunId: string; readonly attempt: number }
  /** What the service says of what is being waited for. A pause is nobody's fault, and counts against no limit. */
  | { readonly _tag: "QueueState"; readonly state: QueueState }
  | { readonly _tag: "Quarantined"; readonly path: string; readonly why: string }
  | { readonly _tag: "Resumed"; readonly trainingRunId: string; readonly step: number }

/** A run that was brought back: a live client whose next step is `step`. */
export interface Restored {
  readonly client: TrainingClient
  readonly attempt: number
  /** The checkpoint it came from; `null` where the run began again from its base model. */
  readonly path: string | null
  readonly step: number
  readonly quarantined: ReadonlyArray<string>
}

/** One try of a restore. */
export interface RestoreOptions {
  readonly strategy: CheckpointSelector.Strategy
  /** Whether Adam's moments are restored too; without them the run goes on, but not as if it had never failed. */
  readonly optimizer: boolean
  readonly onProgress: (progress: RestoreProgress) => Effect.Effect<void>
}

/** What a trainer hands to its guard. The trainer owns the scope of the new client and writes the journal itself. */
export interface RestoreRequest {
  readonly incident: Incident
  /** What a restore would do now. Reads, never writes. */
  readonly plan: Effect.Effect<Plan, TrainingError>
  /** One try. It may be repeated after an error whose `isRetryable` is true; any other error is final. */
  readonly restore: (options: RestoreOptions) => Effect.Effect<Restored, TrainingError>
}

export interface RunGuard {
  /**
   * Watches an attempt for failures that the loop cannot see by itself, and reports them. Lives as long as the scope, which
   * closes when the attempt ends. Reporting twice, or after the attempt ended, does nothing.
   */
  readonly watch: (
    attempt: AttemptStarted,
    report: (cause: IncidentCause, detail: string) => Effect.Effect<void>
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Decides whether, when and how often the restore is tried. */
  readonly recover: (request: RestoreRequest) => Effect.Effect<Restored, TrainingError>
}

/** The guard in force; none unless a layer sets one. */
export const RunGuard = Context.Reference<Option.Option<RunGuard>>("@tinkex/training/RunGuard", {
  defaultValue: Option.none
})
