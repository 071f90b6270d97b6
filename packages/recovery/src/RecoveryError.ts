/**
 * Why a recovery was refused, or did not bring a run back.
 *
 * One class with a closed set of reasons. `isRetryable` says whether the same request may succeed later without anybody
 * changing something. Messages come from errors of the packages below, which hold no keys.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/** An option of the policy, or a `TINKEX_RECOVERY_*` variable, makes no sense. */
export class InvalidPolicy extends Schema.TaggedError<InvalidPolicy>()("InvalidPolicy", {
  field: Schema.String,
  value: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Recovery policy: ${this.field} is ${this.value}, but ${this.problem}. Correct it or leave it out for the default.`
  }
}

/** The run is being recovered at this moment. */
export class AlreadyRecovering extends Schema.TaggedError<AlreadyRecovering>()("AlreadyRecovering", {
  runId: Schema.String,
  incident: Schema.String
}) {
  readonly isRetryable = true
  override get message() {
    return `Run ${this.runId} is being recovered already (incident ${this.incident}). Wait for its end, or unwatch the run to cancel it.`
  }
}

/** Nothing is left to restore from. */
export class NoCheckpoint extends Schema.TaggedError<NoCheckpoint>()("NoCheckpoint", {
  runId: Schema.String,
  rejected: Schema.Array(Schema.Struct({ path: Schema.String, reason: Schema.String }))
}) {
  readonly isRetryable = false
  override get message() {
    const shown = this.rejected.slice(0, 5).map(({ path, reason }) => `${path} (${reason})`)
    const more = this.rejected.length > 5 ? ` and ${this.rejected.length - 5} more` : ""
    const why = shown.length === 0 ? "the server lists none" : `rejected: ${shown.join(", ")}${more}`
    return `Run ${this.runId} has no usable checkpoint; ${why}. Name one that you trust with recoverFromCheckpoint, or start again.`
  }
}

/** A checkpoint named by its path cannot be restored. */
export class CheckpointRefused extends Schema.TaggedError<CheckpointRefused>()("CheckpointRefused", {
  path: Schema.String,
  why: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Checkpoint ${this.path} cannot be restored: ${this.why}. Choose another one.`
  }
}

/** A request of a restore failed. */
export class RestoreFailed extends Schema.TaggedError<RestoreFailed>()("RestoreFailed", {
  runId: Schema.String,
  /** The reason's tag in the package that it comes from, for example `ServerFailure`. */
  tag: Schema.String,
  detail: Schema.String,
  isRetryable: Schema.Boolean,
  /** When the service wants to hear from us again. */
  retryAfter: Schema.optional(Schema.Duration)
}) {
  override get message() {
    const advice = this.isRetryable ? "It may work later." : "Trying again does not help: mend the cause first."
    return `Restoring ${this.runId} failed (${this.tag}): ${this.detail} ${advice}`
  }
}

/** One try took longer than the policy allows and was stopped. */
export class AttemptTimedOut extends Schema.TaggedError<AttemptTimedOut>()("AttemptTimedOut", {
  runId: Schema.String,
  limit: Schema.Duration
}) {
  readonly isRetryable = true
  override get message() {
    return `A try to restore ${this.runId} was stopped after ${Duration.format(this.limit)}. If restores of this size need longer, raise attemptDeadline.`
  }
}

/** The run failed by something that a restore would only repeat. */
export class NotRecoverable extends Schema.TaggedError<NotRecoverable>()("NotRecoverable", {
  runId: Schema.String,
  cause: Schema.String,
  detail: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Run ${this.runId} failed (${this.cause}) in a way that a restore would repeat: ${this.detail} Mend the cause, then call recoverRun.`
  }
}

/** Every try failed. */
export class Exhausted extends Schema.TaggedError<Exhausted>()("Exhausted", {
  runId: Schema.String,
  incident: Schema.String,
  tries: Schema.Int,
  /** One message for each failed try, oldest first. */
  history: Schema.Array(Schema.String)
}) {
  readonly isRetryable = true
  override get message() {
    const last = this.history.at(-1)
    return `Run ${this.runId} was not brought back in ${this.tries} tries (incident ${this.incident})${last === undefined ? "" : `; the last one: ${last}`} Call recoverRun once the service is well again.`
  }
}

/** The run was recovered so often by one cause that something else is wrong. */
export class BudgetSpent extends Schema.TaggedError<BudgetSpent>()("BudgetSpent", {
  runId: Schema.String,
  cause: Schema.String,
  recoveries: Schema.Int,
  window: Schema.Duration
}) {
  readonly isRetryable = true
  override get message() {
    return `Run ${this.runId} has been recovered ${this.recoveries} times in ${Duration.format(this.window)} (${this.cause}), which is all that the policy allows. Find out why it fails, then call recoverRun, or raise maxRecoveries.`
  }
}

/** Restoring does not help: the run fails again and again without getting any further. */
export class NoProgress extends Schema.TaggedError<NoProgress>()("NoProgress", {
  runId: Schema.String,
  attempts: Schema.Int,
  path: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Run ${this.runId} failed ${this.attempts} times in a row without a new checkpoint, the last time after a restore from ${this.path}. Restore an older one by its path with recoverFromCheckpoint, or look for the cause in its data.`
  }
}

/** Another process has this run: it recovers it, or the right to do so was taken from this one meanwhile. */
export class OwnedElsewhere extends Schema.TaggedError<OwnedElsewhere>()("OwnedElsewhere", {
  runId: Schema.String,
  why: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Run ${this.runId} is somebody else's to recover: ${this.why} Nothing was done here; \`status\` shows what became of the run.`
  }
}

/** The journal of a run could not be read or written. */
export class JournalFailed extends Schema.TaggedError<JournalFailed>()("JournalFailed", {
  runId: Schema.String,
  detail: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Run ${this.runId} was not recovered, since its journal is not to be relied on: ${this.detail}`
  }
}

/** The recovery was ended from outside: its run was unwatched, or the layer closed. */
export class Cancelled extends Schema.TaggedError<Cancelled>()("Cancelled", {
  runId: Schema.String,
  why: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `The recovery of ${this.runId} was cancelled: ${this.why}.`
  }
}

/** The recovery itself is broken. */
export class Died extends Schema.TaggedError<Died>()("Died", { runId: Schema.String, defect: Schema.String }) {
  readonly isRetryable = false
  override get message() {
    return `The recovery of ${this.runId} died: ${this.defect}. This is a mistake in a program; please report it.`
  }
}

export const RecoveryReason = Schema.Union([
  InvalidPolicy,
  AlreadyRecovering,
  NoCheckpoint,
  CheckpointRefused,
  RestoreFailed,
  AttemptTimedOut,
  NotRecoverable,
  Exhausted,
  BudgetSpent,
  NoProgress,
  OwnedElsewhere,
  JournalFailed,
  Cancelled,
  Died
])
export type RecoveryReason = typeof RecoveryReason.Type

/** The one error of this package. */
export class RecoveryError extends Schema.TaggedError<RecoveryError>()("RecoveryError", { reason: RecoveryReason }) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }
}

/** Wraps a reason. */
export const make = (reason: RecoveryReason): RecoveryError => new RecoveryError({ reason })
