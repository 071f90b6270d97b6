/**
 * What can go wrong in the command itself. Everything else is an error of the package that it comes from; `output/Failure`
 * turns both into the same two or three lines.
 */
import * as Schema from "effect/Schema"

/** A value that an option cannot have, or options that do not go together. */
export class BadOption extends Schema.TaggedError<BadOption>()("BadOption", {
  option: Schema.String,
  problem: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${this.option} ${this.problem}. ${this.hint}`
  }
}

/** A setting that comes from the environment is missing or cannot be right. */
export class BadSetting extends Schema.TaggedError<BadSetting>()("BadSetting", {
  setting: Schema.String,
  problem: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${this.setting} ${this.problem}. ${this.hint}`
  }
}

/** The server does not offer this model. */
export class UnknownModel extends Schema.TaggedError<UnknownModel>()("UnknownModel", {
  model: Schema.String,
  server: Schema.String,
  known: Schema.Array(Schema.String)
}) {
  override get message() {
    const shown = this.known.slice(0, 8).join(", ")
    return `${this.server} has no base model "${this.model}". It offers: ${shown}${this.known.length > 8 ? ", ..." : ""}.`
  }
}

/** A checkpoint was named that cannot be had. */
export class UnknownCheckpoint extends Schema.TaggedError<UnknownCheckpoint>()("UnknownCheckpoint", {
  path: Schema.String,
  run: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `${this.path} cannot be used for ${this.run}: ${this.why}. See what there is with tinkex recover plan ${this.run}.`
  }
}

/** Nobody answers at the address. */
export class Unreachable extends Schema.TaggedError<Unreachable>()("Unreachable", {
  url: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `No answer from ${this.url}: ${this.problem}. Check the address and the network, then give the same command again.`
  }
}

/** Neither a run of the journal nor a training run of the server has this name. */
export class RunUnknown extends Schema.TaggedError<RunUnknown>()("RunUnknown", {
  run: Schema.String,
  journal: Schema.String
}) {
  override get message() {
    return `There is no run "${this.run}": not in ${this.journal}, and the server does not know it. List what there is with tinkex run list.`
  }
}

/** The journal is there, but not the settings that `tinkex train` keeps beside it. */
export class SettingsMissing extends Schema.TaggedError<SettingsMissing>()("SettingsMissing", {
  run: Schema.String,
  path: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `The settings of run "${this.run}" cannot be read from ${this.path}: ${this.problem}. Give its tinkex train command again: that goes on with it.`
  }
}

/** A run failed while recovery is off. */
export class RunStopped extends Schema.TaggedError<RunStopped>()("RunStopped", {
  run: Schema.String,
  trainingRunId: Schema.String,
  incident: Schema.String,
  cause: Schema.String,
  detail: Schema.String,
  step: Schema.Int,
  /** The newest usable one; `null` is the base model. */
  checkpoint: Schema.NullOr(Schema.String),
  /** What recovers the run. */
  command: Schema.String
}) {
  override get message() {
    return `Run "${this.run}" failed after ${this.step} steps (${this.cause}): ${this.detail}`
  }
}

/** A run failed, and recovery did not bring it back. */
export class RecoveryGivenUp extends Schema.TaggedError<RecoveryGivenUp>()("RecoveryGivenUp", {
  run: Schema.String,
  trainingRunId: Schema.String,
  incident: Schema.String,
  cause: Schema.String,
  detail: Schema.String,
  tries: Schema.Int,
  step: Schema.Int,
  /** What tries once more. */
  command: Schema.String
}) {
  override get message() {
    return `Run "${this.run}" failed after ${this.step} steps (${this.cause}) and was not brought back in ${this.tries === 1 ? "1 try" : `${this.tries} tries`}: ${this.detail}`
  }
}

/** A question cannot be asked, or was answered with no. */
export class NotConfirmed extends Schema.TaggedError<NotConfirmed>()("NotConfirmed", {
  action: Schema.String,
  asked: Schema.Boolean
}) {
  override get message() {
    return this.asked
      ? `Not done: ${this.action}. Nothing was changed.`
      : `Cannot ask whether to ${this.action}: there is no terminal. Pass --yes to do it without a question.`
  }
}

/** What the demo set out to show did not hold. */
export class DemoFailed extends Schema.TaggedError<DemoFailed>()("DemoFailed", {
  checks: Schema.Array(Schema.String)
}) {
  override get message() {
    return `The demo did not hold: ${this.checks.join("; ")}. Run it again with --log-level debug and report what you see.`
  }
}

export const Reason = Schema.Union([
  BadOption,
  BadSetting,
  UnknownModel,
  UnknownCheckpoint,
  Unreachable,
  RunUnknown,
  SettingsMissing,
  RunStopped,
  RecoveryGivenUp,
  NotConfirmed,
  DemoFailed
])
export type Reason = typeof Reason.Type

/** The one error of this package. */
export class CommandError extends Schema.TaggedError<CommandError>()("CommandError", { reason: Reason }) {
  override get message() {
    return this.reason.message
  }
  /** The same command may get further without a change. */
  get isRetryable() {
    return ["Unreachable", "RunStopped", "RecoveryGivenUp"].includes(this.reason._tag)
  }
}

/** Wraps a reason. */
export const make = (reason: Reason): CommandError => new CommandError({ reason })
