import * as Schema from "effect/Schema"

/** An option that cannot be used. */
export class InvalidOption extends Schema.TaggedError<InvalidOption>()("InvalidOption", {
  field: Schema.String,
  value: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Option ${this.field} ${this.problem}, but is ${this.value}. Correct it and run again.`
  }
}

/** Names the value that was refused, whatever it is. */
export const invalidOption = (field: string, value: unknown, problem: string): InvalidOption => {
  const text = typeof value === "string" ? JSON.stringify(value) : String(value)
  return new InvalidOption({ field, value: text.length > 200 ? `${text.slice(0, 200)}...` : text, problem })
}

/** Another process, or another place in this one, is running the run. */
export class LeaseHeld extends Schema.TaggedError<LeaseHeld>()("LeaseHeld", {
  run: Schema.String,
  owner: Schema.NullOr(Schema.Struct({ host: Schema.String, pid: Schema.Int }))
}) {
  readonly isRetryable = true
  override get message() {
    const by = this.owner === null ? "another process" : `process ${this.owner.pid} on ${this.owner.host}`
    return `Run "${this.run}" is already being run by ${by}. Let it finish or end it: the run is free at that moment. A second run needs another name.`
  }
}

/** Another writer has taken over. */
export class Fenced extends Schema.TaggedError<Fenced>()("Fenced", {
  run: Schema.String,
  epoch: Schema.Int,
  why: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Writer ${this.epoch} of run "${this.run}" may not write any more: ${this.why}. Nothing was written. Whoever has the run now goes on with it.`
  }
}

/** The journal is damaged where a power loss cannot have damaged it. */
export class JournalCorrupt extends Schema.TaggedError<JournalCorrupt>()("JournalCorrupt", {
  path: Schema.String,
  /** Bytes from the start of the file. */
  offset: Schema.Int,
  /** The number of the record that should stand there. */
  record: Schema.Int,
  problem: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `Journal ${this.path} is damaged at byte ${this.offset} (record ${this.record}): ${this.problem}. Nothing was changed. Restore the file from a copy, or start the run again under a new name.`
  }
}

/** The journal could not be written; whether the last records are on the disk is unknown. */
export class JournalUnwritable extends Schema.TaggedError<JournalUnwritable>()("JournalUnwritable", {
  path: Schema.String,
  operation: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `The journal cannot be written (${this.operation} on ${this.path}: ${this.problem}). Check the free space and the permissions there, then run the program again.`
  }
}

/** The journal could not be read. */
export class JournalUnreadable extends Schema.TaggedError<JournalUnreadable>()("JournalUnreadable", {
  path: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable = false
  override get message() {
    return `The journal at ${this.path} cannot be read: ${this.problem}. Check that the path is right and that you may read it.`
  }
}

/** No run of this name has a journal. */
export class RunNotFound extends Schema.TaggedError<RunNotFound>()("RunNotFound", {
  run: Schema.String,
  /** Where it was looked for. */
  where: Schema.String,
  known: Schema.Array(Schema.String)
}) {
  readonly isRetryable = false
  override get message() {
    const shown = this.known.slice(0, 10).join(", ")
    const hint =
      this.known.length === 0
        ? "There is no run at all."
        : `There is: ${shown}${this.known.length > 10 ? ", ..." : ""}.`
    return `There is no run "${this.run}" in ${this.where}. ${hint}`
  }
}

/** What can go wrong with a journal. */
export const JournalReason = Schema.Union([
  InvalidOption,
  LeaseHeld,
  Fenced,
  JournalCorrupt,
  JournalUnwritable,
  JournalUnreadable,
  RunNotFound
])
export type JournalReason = typeof JournalReason.Type

/** A journal could not be opened, read or written. */
export class JournalError extends Schema.TaggedError<JournalError>()("JournalError", { reason: JournalReason }) {
  override get message() {
    return this.reason.message
  }
  /** Trying again, without changing anything, may work. */
  get isRetryable() {
    return this.reason.isRetryable
  }
}
