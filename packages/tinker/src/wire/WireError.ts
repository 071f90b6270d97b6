import * as Schema from "effect/Schema"

/** Bytes or values that do not follow the contract. */
export class WireError extends Schema.TaggedError<WireError>()("WireError", {
  /** What was being read or written. */
  what: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `${this.what} is not as the API has it: ${this.problem}.`
  }
}
