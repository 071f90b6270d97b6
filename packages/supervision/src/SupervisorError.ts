/**
 * Why a supervisor refused a request, failed to start, or gave up.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as ExitReason from "./ExitReason.ts"

const fields = { supervisor: Schema.String, child: Schema.String }

/**
 * A child did not come up: its init failed, crashed, or took longer than its start limit.
 *
 * @category errors
 * @since 0.1.0
 */
export class StartFailed extends Schema.TaggedError<StartFailed>()("StartFailed", {
  ...fields,
  exit: ExitReason.ExitReason
}) {
  override get message() {
    return `"${this.supervisor}" could not start its child "${this.child}": ${ExitReason.format(this.exit)}. Repair its init; what had been started before it was stopped again.`
  }
  get isRetryable() {
    return true
  }
}

/**
 * A child with this id is running.
 *
 * @category errors
 * @since 0.1.0
 */
export class AlreadyStarted extends Schema.TaggedError<AlreadyStarted>()("AlreadyStarted", fields) {
  override get message() {
    return `"${this.supervisor}" already runs a child "${this.child}". Choose another id, or terminate it first.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * A child with this id is known but not running.
 *
 * @category errors
 * @since 0.1.0
 */
export class AlreadyPresent extends Schema.TaggedError<AlreadyPresent>()("AlreadyPresent", fields) {
  override get message() {
    return `"${this.supervisor}" keeps a child "${this.child}" that is not running. Restart it, or delete it first.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * No child has this id.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", fields) {
  override get message() {
    return `"${this.supervisor}" has no child "${this.child}". A temporary child is forgotten when it ends.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * The request needs a child that is not running.
 *
 * @category errors
 * @since 0.1.0
 */
export class Running extends Schema.TaggedError<Running>()("Running", fields) {
  override get message() {
    return `The child "${this.child}" of "${this.supervisor}" is running. Terminate it first.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * The child is between two attempts to start it again.
 *
 * @category errors
 * @since 0.1.0
 */
export class Restarting extends Schema.TaggedError<Restarting>()("Restarting", fields) {
  override get message() {
    return `The child "${this.child}" of "${this.supervisor}" is being restarted. Wait for it, or terminate it to end the attempts.`
  }
  get isRetryable() {
    return true
  }
}

/**
 * The supervisor has ended, or is ending.
 *
 * @category errors
 * @since 0.1.0
 */
export class SupervisorStopped extends Schema.TaggedError<SupervisorStopped>()("SupervisorStopped", {
  supervisor: Schema.String
}) {
  override get message() {
    return `The supervisor "${this.supervisor}" is not running. Look at its exit for the reason.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * An option makes no sense, two children of the list have one id, or an init asked its own supervisor to wait for it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  supervisor: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `"${this.supervisor}" refused a request: ${this.problem}.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * One entry of the history of a supervisor that gave up.
 *
 * @category models
 * @since 0.1.0
 */
export const RestartRecord = Schema.Struct({
  child: Schema.String,
  exit: ExitReason.ExitReason,
  time: Schema.DateTimeUtc
})

/**
 * @category models
 * @since 0.1.0
 */
export type RestartRecord = typeof RestartRecord.Type

/**
 * The supervisor had more crashes than its intensity allows and stopped all its children. `history` holds the latest
 * crashes, at most 32, the fatal one last. OTP ends with a plain shutdown here, so that a transient parent's entry stays
 * down unnoticed; this reason counts as a crash instead.
 *
 * @category errors
 * @since 0.1.0
 */
export class MaxRestartsExceeded extends Schema.TaggedError<MaxRestartsExceeded>()("MaxRestartsExceeded", {
  ...fields,
  restarts: Schema.Number,
  within: Schema.Duration,
  history: Schema.Array(RestartRecord)
}) {
  override get message() {
    const last = this.history.at(-1)
    return `"${this.supervisor}" gave up: more than ${this.restarts} restarts within ${Duration.format(this.within)}, the last of "${this.child}"${last === undefined ? "" : ` after ${ExitReason.format(last.exit)}`}. Repair the child, or allow more restarts.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * @category models
 * @since 0.1.0
 */
export type SupervisorErrorReason = (typeof Reason)["Type"]

const Reason = Schema.Union([
  StartFailed,
  AlreadyStarted,
  AlreadyPresent,
  NotFound,
  Running,
  Restarting,
  SupervisorStopped,
  InvalidRequest,
  MaxRestartsExceeded
])

/**
 * The error of this package's supervisors.
 *
 * @category errors
 * @since 0.1.0
 */
export class SupervisorError extends Schema.TaggedError<SupervisorError>()("SupervisorError", { reason: Reason }) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }
}
