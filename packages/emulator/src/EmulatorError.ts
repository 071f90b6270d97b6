/**
 * Why an emulator could not start or could not answer its control plane.
 *
 * Nothing here travels over the Tinker API: a client of the emulated service sees HTTP statuses and in-band failures.
 */
import * as Schema from "effect/Schema"

/** The address could not be bound: taken, not local, or not allowed. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", {
  host: Schema.String,
  port: Schema.Int,
  problem: Schema.String
}) {
  get isRetryable() {
    return true
  }
  override get message() {
    return `Cannot listen on ${this.host}:${this.port}: ${this.problem}. Choose another port, or 0 for any free one.`
  }
}

/** A control request named a model that this emulator does not hold in memory. */
export class ModelNotFound extends Schema.TaggedError<ModelNotFound>()("ModelNotFound", { modelId: Schema.String }) {
  get isRetryable() {
    return false
  }
  override get message() {
    return `No model "${this.modelId}" is loaded. List the loaded ones with control.models.`
  }
}

/** A fault plan, or the text of one, that means nothing. */
export class InvalidFaultPlan extends Schema.TaggedError<InvalidFaultPlan>()("InvalidFaultPlan", {
  part: Schema.String,
  problem: Schema.String
}) {
  get isRetryable() {
    return false
  }
  override get message() {
    return `Fault "${this.part}": ${this.problem}`
  }
}

/** An option with a value that cannot work. */
export class InvalidOption extends Schema.TaggedError<InvalidOption>()("InvalidOption", {
  option: Schema.String,
  problem: Schema.String
}) {
  get isRetryable() {
    return false
  }
  override get message() {
    return `Emulator option ${this.option}: ${this.problem}`
  }
}

/** The directory of checkpoints and runs could not be read or written. */
export class StorageFailed extends Schema.TaggedError<StorageFailed>()("StorageFailed", {
  path: Schema.String,
  problem: Schema.String
}) {
  get isRetryable() {
    return false
  }
  override get message() {
    return `Cannot use "${this.path}": ${this.problem}. Check the directory, or leave it out to keep everything in memory.`
  }
}

/** The closed set of reasons. */
export const Reason = Schema.Union([ListenFailed, ModelNotFound, InvalidFaultPlan, InvalidOption, StorageFailed])

/** The one error of this package; match it with `Effect.catchReason("EmulatorError", "ListenFailed", ...)`. */
export class EmulatorError extends Schema.TaggedError<EmulatorError>()("EmulatorError", { reason: Reason }) {
  get isRetryable() {
    return this.reason.isRetryable
  }
  override get message() {
    return this.reason.message
  }
}
