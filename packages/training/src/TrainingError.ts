import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { TinkerError } from "@tinkex/tinker/TinkerError"
import { whatHappened } from "./internal/whatHappened.ts"
import { invalidOption, JournalReason, type JournalError } from "./JournalError.ts"
import { type Incident, IncidentCause } from "./RunGuard.ts"
import type { RunState } from "./RunState.ts"

/** The training data cannot be used. */
export class DataInvalid extends Schema.TaggedError<DataInvalid>()("DataInvalid", {
  path: Schema.String,
  /** Counts from 1; `null` where the file as a whole is meant. */
  line: Schema.NullOr(Schema.Int),
  problem: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Training data ${this.path}${this.line === null ? "" : `, line ${this.line}`}: ${this.problem}.`
  }
}

/** The program asks for another run than the one that its journal describes. */
export class ConfigChanged extends Schema.TaggedError<ConfigChanged>()("ConfigChanged", {
  run: Schema.String,
  /** One entry for each difference, `field: before -> now`. */
  diff: Schema.Array(Schema.String)
}) {
  readonly isRetryable = false
  override get message() {
    return `Run "${this.run}" was started with other settings: ${this.diff.join("; ")}. Put them back, give the run a new name, or pass force to go on with the new ones.`
  }
}

/** An attempt failed and nobody is there to recover it. */
export class RunFailed extends Schema.TaggedError<RunFailed>()("RunFailed", {
  run: Schema.String,
  trainingRunId: Schema.String,
  incident: Schema.String,
  cause: IncidentCause,
  detail: Schema.String,
  /** Steps committed when it failed. */
  step: Schema.Int,
  /** Where it would go on; `null` is the base model. */
  checkpoint: Schema.NullOr(Schema.String)
}) {
  readonly isRetryable = true
  override get message() {
    const from = this.checkpoint === null ? "the base model" : this.checkpoint
    return `Run "${this.run}" failed after ${this.step} steps on ${this.trainingRunId} (${this.cause}): ${this.detail}. Run the same program again to go on from ${from}, or provide Recovery.layer({ enabled: true }) to have that done for you.`
  }
}

/** An attempt failed, and whoever guards the run could not bring it back. */
export class RecoveryGivenUp extends Schema.TaggedError<RecoveryGivenUp>()("RecoveryGivenUp", {
  run: Schema.String,
  trainingRunId: Schema.String,
  incident: Schema.String,
  cause: IncidentCause,
  /** Why the last try failed. */
  detail: Schema.String,
  tries: Schema.Int,
  /** Steps committed when the attempt failed. */
  step: Schema.Int,
  /** Where it would go on; `null` is the base model. */
  checkpoint: Schema.NullOr(Schema.String)
}) {
  readonly isRetryable = true
  override get message() {
    const from = this.checkpoint === null ? "the base model" : this.checkpoint
    const tries = this.tries === 1 ? "1 try" : `${this.tries} tries`
    return `Run "${this.run}" failed after ${this.step} steps on ${this.trainingRunId} (${this.cause}) and was not brought back in ${tries}: ${this.detail.replace(/[.!]*$/, ".")} Run the same program once the service is well again: it goes on from ${from}.`
  }
}

/** The journal says that the run ended before. */
export class RunEnded extends Schema.TaggedError<RunEnded>()("RunEnded", {
  run: Schema.String,
  tag: Schema.String,
  detail: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Run "${this.run}" has ended with ${this.tag}: ${this.detail} Pass force to try it once more, or start a run under a new name.`
  }
}

/** No checkpoint is left that could be restored. */
export class NoCheckpoint extends Schema.TaggedError<NoCheckpoint>()("NoCheckpoint", {
  run: Schema.String,
  rejected: Schema.Array(Schema.Struct({ path: Schema.String, reason: Schema.String }))
}) {
  readonly isRetryable = false
  override get message() {
    const shown = this.rejected.slice(0, 5).map(({ path, reason }) => `${path} (${reason})`)
    const more = this.rejected.length > 5 ? ` and ${this.rejected.length - 5} more` : ""
    const why = shown.length === 0 ? "none was ever verified" : `rejected: ${shown.join(", ")}${more}`
    return `Run "${this.run}" has no checkpoint to go on from; ${why}. Start it under a new name, or name a checkpoint that you trust.`
  }
}

/** Attempt after attempt ended before it had committed a step beyond the best one. */
export class NoProgress extends Schema.TaggedError<NoProgress>()("NoProgress", {
  run: Schema.String,
  attempts: Schema.Int,
  /** The most steps ever committed. */
  step: Schema.Int,
  /** The newest incidents, oldest first. */
  incidents: Schema.Array(Schema.String)
}) {
  readonly isRetryable = false
  override get message() {
    const last = this.incidents.length === 0 ? "" : ` Last failures: ${this.incidents.join("; ")}.`
    return `Run "${this.run}" was given up: ${this.attempts} attempts in a row committed nothing beyond step ${this.step}.${last} Mend the cause, then pass force to try it once more.`
  }
}

/** The loss is no number any more, or has left its course, and the run's policy says to stop. */
export class Diverged extends Schema.TaggedError<Diverged>()("Diverged", {
  run: Schema.String,
  /** The first bad step. */
  step: Schema.Int,
  detail: Schema.String,
  /** Rollbacks that were tried before. */
  rollbacks: Schema.Int,
  /** The newest checkpoint from before; `null` is the base model. */
  checkpoint: Schema.NullOr(Schema.String)
}) {
  readonly isRetryable = false
  override get message() {
    const tried =
      this.rollbacks === 0 ? "" : ` after ${this.rollbacks} ${this.rollbacks === 1 ? "rollback" : "rollbacks"}`
    const from = this.checkpoint === null ? "It has no checkpoint from before." : `Before it: ${this.checkpoint}.`
    return `Run "${this.run}" diverged${tried}: ${this.detail}. ${from} Look at the batch of step ${this.step}, lower the learning rate under a new name, or let the run leave the batch out (divergence: { notFinite: "skip" }).`
  }
}

/** The journal is a copy, and the server shows that the run went on elsewhere. */
export class ForeignJournal extends Schema.TaggedError<ForeignJournal>()("ForeignJournal", {
  run: Schema.String,
  /** The attempt that this journal does not know. */
  trainingRunId: Schema.String,
  attempt: Schema.Int,
  /** Of the writer that made it, and the newest in this journal. */
  epoch: Schema.Int,
  known: Schema.Int
}) {
  readonly isRetryable = false
  override get message() {
    return `Run "${this.run}" has gone on elsewhere: attempt ${this.attempt} (${this.trainingRunId}) was made by writer ${this.epoch}, and this journal ends with writer ${this.known}. Go on there, or pass takeOver to go on from here and leave the other one behind.`
  }
}

/** The steps are done, but the server keeps no final checkpoint. */
export class NotSaved extends Schema.TaggedError<NotSaved>()("NotSaved", { run: Schema.String, tries: Schema.Int }) {
  readonly isRetryable = true
  override get message() {
    return `Run "${this.run}" has taken all its steps, but none of ${this.tries} final saves could be confirmed. Run the program again: it goes on from the newest checkpoint.`
  }
}

/** The model that was being made ready for the run was lost before it could take a step. */
export class RestoreLost extends Schema.TaggedError<RestoreLost>()("RestoreLost", {
  run: Schema.String,
  detail: Schema.String
}) {
  readonly isRetryable = true
  override get message() {
    return `A new model for run "${this.run}" was lost before it could take a step: ${this.detail}. Run the same program again: it tries another one.`
  }
}

/** The service refused something that a restore does not mend. */
export class Service extends Schema.TaggedError<Service>()("Service", { error: TinkerError }) {
  override get message() {
    return this.error.message
  }
  get isRetryable() {
    return this.error.isRetryable
  }
}

/** Why a training run did not reach its end. */
export const TrainingReason = Schema.Union([
  ...JournalReason.members,
  DataInvalid,
  ConfigChanged,
  RunFailed,
  RecoveryGivenUp,
  RunEnded,
  NoCheckpoint,
  NoProgress,
  Diverged,
  ForeignJournal,
  NotSaved,
  RestoreLost,
  Service
])
export type TrainingReason = typeof TrainingReason.Type

/**
 * The one error of this package. `reason` says what happened, `message` also what to do about it. `isRetryable` is true where
 * the same program, started again with nothing changed, may get further.
 */
export class TrainingError extends Schema.TaggedError<TrainingError>()("TrainingError", { reason: TrainingReason }) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }

  static invalidOption(field: string, value: unknown, problem: string) {
    return new TrainingError({ reason: invalidOption(field, value, problem) })
  }
  static dataInvalid(path: string, line: number | null, problem: string) {
    return new TrainingError({ reason: new DataInvalid({ path, line, problem }) })
  }
  static configChanged(run: string, diff: ReadonlyArray<string>) {
    return new TrainingError({ reason: new ConfigChanged({ run, diff }) })
  }
  static runFailed(
    incident: Omit<Incident, "attempt" | "detectedAt">,
    plan: { readonly chosen: Option.Option<{ readonly path: string }> }
  ) {
    const { cause, detail, run, step, trainingRunId } = incident
    const checkpoint = plan.chosen._tag === "Some" ? plan.chosen.value.path : null
    return new TrainingError({
      reason: new RunFailed({ run, trainingRunId, incident: incident.id, cause, detail, step, checkpoint })
    })
  }
  static recoveryGivenUp(
    incident: Omit<Incident, "attempt" | "detectedAt">,
    plan: { readonly chosen: Option.Option<{ readonly path: string }> },
    end: { readonly tries: number; readonly detail: string }
  ) {
    const { cause, run, step, trainingRunId } = incident
    const checkpoint = plan.chosen._tag === "Some" ? plan.chosen.value.path : null
    return new TrainingError({
      reason: new RecoveryGivenUp({ run, trainingRunId, incident: incident.id, cause, step, checkpoint, ...end })
    })
  }
  static ended(run: string, end: { readonly tag: string; readonly detail: string }) {
    return new TrainingError({ reason: new RunEnded({ run, tag: end.tag, detail: end.detail }) })
  }
  static noCheckpoint(
    run: string,
    rejected: ReadonlyArray<{ readonly candidate: { readonly path: string }; readonly reason: string }>
  ) {
    return new TrainingError({
      reason: new NoCheckpoint({
        run,
        rejected: rejected.map(({ candidate, reason }) => ({ path: candidate.path, reason }))
      })
    })
  }
  static noProgress(run: string, state: RunState) {
    return new TrainingError({
      reason: new NoProgress({
        run,
        attempts: state.attemptsWithoutProgress,
        step: state.highWater,
        incidents: state.incidents.slice(-3).map(({ cause, detail }) => `${cause} (${detail})`)
      })
    })
  }
  static diverged(
    run: string,
    finding: { readonly step: number; readonly detail: string },
    rollbacks: number,
    plan: { readonly chosen: Option.Option<{ readonly path: string }> }
  ) {
    const checkpoint = plan.chosen._tag === "Some" ? plan.chosen.value.path : null
    return new TrainingError({
      reason: new Diverged({ run, step: finding.step, detail: finding.detail, rollbacks, checkpoint })
    })
  }
  static foreignJournal(fields: {
    readonly run: string
    readonly trainingRunId: string
    readonly attempt: number
    readonly epoch: number
    readonly known: number
  }) {
    return new TrainingError({ reason: new ForeignJournal(fields) })
  }
  static notSaved(run: string, tries: number) {
    return new TrainingError({ reason: new NotSaved({ run, tries }) })
  }
  /** What an error means that came up while a model was being made ready. */
  static whileRestoring(run: string, error: TinkerError) {
    switch (error.reason._tag) {
      case "RunLost":
      case "SessionLost":
      case "PromiseExpired":
      case "SubmissionRefused":
      case "BadResponse":
        return new TrainingError({ reason: new RestoreLost({ run, detail: whatHappened(error) }) })
      default:
        return TrainingError.service(error)
    }
  }
  static service(error: TinkerError) {
    return new TrainingError({ reason: new Service({ error }) })
  }
  static fromJournal(error: JournalError) {
    return new TrainingError({ reason: error.reason })
  }
}
