/**
 * What can go wrong between a caller and an actor, as opposed to what the actor answers.
 *
 * Each reason names the target and the operation. `Effect.catchReason("CallError", "CallTimeout", …)` handles one of them.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as ExitReason from "./ExitReason.ts"

const fields = { target: Schema.String, operation: Schema.String }

/**
 * The actor is not running and nobody is about to start it.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoProcess extends Schema.TaggedError<NoProcess>()("NoProcess", fields) {
  override get message() {
    return `"${this.operation}" found no process: "${this.target}" is not running. Start it, or ask its supervisor why it ended.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * No answer came within the limit. The actor may still work on the request; its late answer is dropped and reported as an
 * event.
 *
 * @category errors
 * @since 0.1.0
 */
export class CallTimeout extends Schema.TaggedError<CallTimeout>()("CallTimeout", {
  ...fields,
  limit: Schema.Duration
}) {
  override get message() {
    return `"${this.operation}" of "${this.target}" gave no answer within ${Duration.format(this.limit)}. Raise its limit (ref.within, or itemLimit for a task), or look at what it is doing.`
  }
  get isRetryable() {
    return true
  }
}

/**
 * The actor ended before it answered. Whether the request had an effect is unknown.
 *
 * @category errors
 * @since 0.1.0
 */
export class TargetExit extends Schema.TaggedError<TargetExit>()("TargetExit", {
  ...fields,
  exit: ExitReason.ExitReason
}) {
  override get message() {
    return `"${this.target}" ended with ${ExitReason.format(this.exit)} before it answered "${this.operation}". Check whether the request took effect before you repeat it.`
  }
  get isRetryable() {
    return true
  }
}

/**
 * The mailbox was full, and its overflow policy refuses or evicts messages.
 *
 * @category errors
 * @since 0.1.0
 */
export class MailboxFull extends Schema.TaggedError<MailboxFull>()("MailboxFull", {
  ...fields,
  capacity: Schema.Number
}) {
  override get message() {
    return `"${this.operation}" did not fit: the mailbox of "${this.target}" holds ${this.capacity} messages. Send less, raise the capacity, or choose overflow "suspend".`
  }
  get isRetryable() {
    return true
  }
}

/**
 * An actor called itself from its own handler, which could only end by timeout.
 *
 * @category errors
 * @since 0.1.0
 */
export class CallingSelf extends Schema.TaggedError<CallingSelf>()("CallingSelf", fields) {
  override get message() {
    return `"${this.target}" called its own "${this.operation}" while handling a message, and would wait for itself. Change self.state directly, or use a cast.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * The call would close a circle of actors that wait for each other. `path` lists them, the target first and last.
 *
 * @category errors
 * @since 0.1.0
 */
export class CallCycle extends Schema.TaggedError<CallCycle>()("CallCycle", {
  ...fields,
  path: Schema.Array(Schema.String)
}) {
  override get message() {
    return `"${this.operation}" would wait for itself along ${this.path.join(" -> ")}. Replace one of these calls by a cast.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * @category models
 * @since 0.1.0
 */
export type CallErrorReason = NoProcess | CallTimeout | TargetExit | MailboxFull | CallingSelf | CallCycle

/**
 * The error of every `ref.call`.
 *
 * @category errors
 * @since 0.1.0
 */
export class CallError extends Schema.TaggedError<CallError>()("CallError", {
  reason: Schema.Union([NoProcess, CallTimeout, TargetExit, MailboxFull, CallingSelf, CallCycle])
}) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }
}
