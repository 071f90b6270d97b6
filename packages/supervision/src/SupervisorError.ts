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
 * The defect of a start that took longer than its `startLimit`: it is the `exit` of a `StartFailed`. `operation` is `init`, or
 * `backoff` for a schedule that did not say when to try again.
 *
 * @category errors
 * @since 0.1.0
 */
export class StartTimeout extends Schema.TaggedError<StartTimeout>()("StartTimeout", {
  target: Schema.String,
  operation: Schema.String,
  limit: Schema.Duration
}) {
  override get message() {
    return `"${this.operation}" of "${this.target}" gave no answer within ${Duration.format(this.limit)}. Raise the child's startLimit, or find out what it waits for.`
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
 * An option or a field of a child spec makes no sense, two children of the list have one id, or an init asked its own
 * supervisor to wait for it. `field` names it: `intensity.restarts`, `children[2].shutdown`.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  supervisor: Schema.String,
  field: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `"${this.supervisor}" refused ${this.field}: ${this.problem}.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * An init answered that there is nothing to run. A permanent or transient child of an ordinary supervisor stays listed as
 * not running; any other leaves nothing behind.
 *
 * @category errors
 * @since 0.1.0
 */
export class Ignored extends Schema.TaggedError<Ignored>()("Ignored", fields) {
  override get message() {
    return `The child "${this.child}" of "${this.supervisor}" has nothing to run: its init answered "ignore".`
  }
  get isRetryable() {
    return false
  }
}

/**
 * A dynamic supervisor runs as many children as it may. Those that wait for a restart count.
 *
 * @category errors
 * @since 0.1.0
 */
export class MaxChildren extends Schema.TaggedError<MaxChildren>()("MaxChildren", {
  supervisor: Schema.String,
  limit: Schema.Number
}) {
  override get message() {
    return `"${this.supervisor}" runs ${this.limit} children, which is its limit. Wait for one to end, or raise maxChildren.`
  }
  get isRetryable() {
    return true
  }
}

/**
 * A name that the child takes at its start belongs to somebody else. `owner` is the path of the actor that has it.
 *
 * @category errors
 * @since 0.1.0
 */
export class AlreadyRegistered extends Schema.TaggedError<AlreadyRegistered>()("AlreadyRegistered", {
  ...fields,
  key: Schema.String,
  owner: Schema.String
}) {
  override get message() {
    return `"${this.supervisor}/${this.child}" cannot have the name "${this.key}": it belongs to "${this.owner}". Choose another, or stop its owner.`
  }
  get isRetryable() {
    return true
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
 * The schedule of a child's backoff is done, or its own budget is used up, and its spec says that its supervisor gives up
 * then. `history` holds the latest crashes of all children, at most 32, the fatal one last.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChildGivenUp extends Schema.TaggedError<ChildGivenUp>()("ChildGivenUp", {
  ...fields,
  attempts: Schema.Number,
  history: Schema.Array(RestartRecord)
}) {
  override get message() {
    const last = this.history.at(-1)
    return `"${this.supervisor}" gave up on "${this.child}" after ${this.attempts} restarts of its own allowance${last === undefined ? "" : `, the last after ${ExitReason.format(last.exit)}`}. Repair the child, or allow it more.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * A child's crash was decided to be its supervisor's affair.
 *
 * @category errors
 * @since 0.1.0
 */
export class Escalated extends Schema.TaggedError<Escalated>()("Escalated", {
  ...fields,
  exit: ExitReason.ExitReason
}) {
  override get message() {
    return `"${this.supervisor}" ended because its child "${this.child}" escalated ${ExitReason.format(this.exit)}.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * A child whose spec says `stuck: "fail"` did not stop within its limit.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChildStuck extends Schema.TaggedError<ChildStuck>()("ChildStuck", {
  ...fields,
  limit: Schema.Duration
}) {
  override get message() {
    return `The child "${this.child}" of "${this.supervisor}" did not stop within ${Duration.format(this.limit)}, and must not be left behind. Find out what it waits for.`
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
  Ignored,
  MaxChildren,
  AlreadyRegistered,
  MaxRestartsExceeded,
  ChildGivenUp,
  Escalated,
  ChildStuck
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
