/**
 * Any failure as two or three lines for a person, one object for a program, and an exit code.
 *
 * The tables below name every reason of every package, so a reason that is added there does not compile until it has a code.
 */
import * as Cause from "effect/Cause"
import * as CliError from "effect/cli/CliError"
import * as Option from "effect/Option"
import { EmulatorError, type Reason as EmulatorReason } from "@tinkex/emulator/EmulatorError"
import { RecoveryError, type RecoveryReason } from "@tinkex/recovery/RecoveryError"
import { InvalidConfig, type Reason as TinkerReason, TinkerError } from "@tinkex/tinker/TinkerError"
import { JournalError } from "@tinkex/training/JournalError"
import { TrainingError, type TrainingReason } from "@tinkex/training/TrainingError"
import { CommandError, type Reason as CommandReason } from "../CommandError.ts"
import * as ExitCode from "../ExitCode.ts"

export interface Failure {
  readonly code: number
  /** The reason's tag, for programs. */
  readonly error: string
  readonly summary: string
  readonly hints: ReadonlyArray<string>
  /** What to quote when asking for help: ids of the request, run, incident. */
  readonly ids: Readonly<Record<string, string>>
  /** Only of a defect: a mistake in the program. */
  readonly defect: boolean
}

type Codes<Reason extends { readonly _tag: string }> = Readonly<Record<Reason["_tag"], number>>

const { configuration, exhausted, failed, notFound, service, usage } = ExitCode

const command: Codes<CommandReason> = {
  BadOption: usage,
  BadSetting: configuration,
  UnknownModel: notFound,
  UnknownCheckpoint: notFound,
  Unreachable: service,
  RunUnknown: notFound,
  SettingsMissing: notFound,
  RunStopped: failed,
  RecoveryGivenUp: exhausted,
  NotConfirmed: usage,
  DemoFailed: failed
}

const tinker: Codes<TinkerReason> = {
  InvalidConfig: configuration,
  InvalidInput: usage,
  Unsupported: configuration,
  Unauthorized: configuration,
  Forbidden: configuration,
  NotFound: notFound,
  Conflict: failed,
  BadRequest: failed,
  RateLimited: service,
  BillingPaused: service,
  ServerFailure: service,
  Transport: service,
  Timeout: service,
  BadResponse: service,
  BadArchive: service,
  ExportFailed: service,
  LocalFile: configuration,
  RequestFailed: failed,
  PromiseExpired: failed,
  RunLost: failed,
  SessionLost: failed,
  SubmissionRefused: failed,
  Stuck: failed,
  Fenced: failed
}

const training: Codes<TrainingReason> = {
  InvalidOption: usage,
  LeaseHeld: failed,
  Fenced: failed,
  JournalCorrupt: failed,
  JournalUnwritable: configuration,
  JournalUnreadable: configuration,
  RunNotFound: notFound,
  DataInvalid: usage,
  ConfigChanged: usage,
  RunFailed: failed,
  RecoveryGivenUp: exhausted,
  RunEnded: failed,
  NoCheckpoint: exhausted,
  NoProgress: exhausted,
  Diverged: failed,
  ForeignJournal: failed,
  NotSaved: service,
  RestoreLost: service,
  Service: service
}

const recovery: Codes<RecoveryReason> = {
  InvalidPolicy: usage,
  AlreadyRecovering: failed,
  NoCheckpoint: exhausted,
  CheckpointRefused: notFound,
  RestoreFailed: exhausted,
  AttemptTimedOut: exhausted,
  NotRecoverable: failed,
  Exhausted: exhausted,
  BudgetSpent: exhausted,
  NoProgress: exhausted,
  OwnedElsewhere: failed,
  JournalFailed: configuration,
  Cancelled: failed,
  Died: failed
}

const emulator: Codes<typeof EmulatorReason.Type> = {
  ListenFailed: configuration,
  ModelNotFound: notFound,
  InvalidFaultPlan: usage,
  InvalidOption: usage,
  StorageFailed: configuration
}

/** What a person can do in this command about reasons whose own message speaks to a programmer. */
const advice: Readonly<Record<string, string>> = {
  ConfigChanged: "Put the settings back, choose another --name, or pass --force to go on with the new ones.",
  RunEnded: "Mend the cause and pass --force to try once more, or start under another --name.",
  NoProgress: "Mend the cause and pass --force to try once more.",
  InvalidFaultPlan: "Write --inject like corrupt@12 or lose:optim_step@3; see tinkex emulator --help.",
  ListenFailed: "Choose another --port, or 0 for any free one."
}

const quoted = new Set(["requestId", "run", "runId", "trainingRunId", "sessionId", "incident"])

const idsOf = (reason: object): Record<string, string> =>
  Object.fromEntries(
    Object.entries(reason).filter(
      (entry): entry is [string, string] => quoted.has(entry[0]) && typeof entry[1] === "string"
    )
  )

/** The first sentence says what happened, the rest what to do. */
const sentences = (message: string): readonly [string, ReadonlyArray<string>] => {
  const end = /[.!?](?=\s+[A-Z"])/.exec(message)
  return end === null ? [message, []] : [message.slice(0, end.index + 1), [message.slice(end.index + 1).trim()]]
}

const made = (code: number, reason: { readonly _tag: string; readonly message: string }): Failure => {
  const [summary, rest] = sentences(reason.message)
  const hint = advice[reason._tag]
  return {
    code,
    error: reason._tag,
    summary,
    hints: hint === undefined ? rest : [hint],
    ids: idsOf(reason),
    defect: false
  }
}

const ofCommand = (reason: CommandReason): Failure => {
  const failure = made(command[reason._tag], reason)
  const again = "command" in reason ? [`Try:  ${reason.command}`] : failure.hints
  switch (reason._tag) {
    case "RunStopped": {
      const newest = `Newest usable checkpoint: ${reason.checkpoint ?? "none, it would begin again"}`
      return { ...failure, summary: reason.message, hints: [newest, ...again] }
    }
    case "RecoveryGivenUp":
      return { ...failure, summary: reason.message, hints: again }
    default:
      return failure
  }
}

/** Our own checks say the whole sentence. */
const sentence = (error: CliError.CliError): string =>
  error._tag === "InvalidValue" && error.expected.startsWith("--")
    ? `${error.expected}.`
    : error.message.replaceAll(/\s*\n\s*/g, " ").trim()

const ofUsage = (error: CliError.CliError): Failure => {
  const errors = error._tag === "ShowHelp" ? error.errors : [error]
  const [first, ...more] = errors.map(sentence)
  const path = error._tag === "ShowHelp" ? error.commandPath.join(" ") : "tinkex"
  return {
    code: usage,
    error: errors[0]?._tag ?? "Usage",
    summary: first ?? "Which command?",
    hints: [...more, `See ${path} --help.`],
    ids: {},
    defect: false
  }
}

/** A person knows the settings by the names of their variables. */
const variables: Readonly<Record<string, string>> = {
  apiKey: "TINKER_API_KEY",
  baseUrl: "TINKER_BASE_URL",
  projectId: "TINKER_PROJECT_ID",
  tags: "TINKER_TAGS"
}

const ofTinker = (reason: TinkerReason): Failure => {
  if (reason._tag !== "InvalidConfig") return made(tinker[reason._tag], reason)
  const { field, problem } = reason
  return made(configuration, new InvalidConfig({ field: variables[field] ?? field, problem }))
}

/** What to say about an expected failure; `undefined` for anything else. */
export const describe = (error: unknown): Failure | undefined => {
  if (error instanceof CommandError) return ofCommand(error.reason)
  if (error instanceof TinkerError) return ofTinker(error.reason)
  if (error instanceof TrainingError) {
    return error.reason._tag === "Service"
      ? describe(error.reason.error)
      : made(training[error.reason._tag], error.reason)
  }
  if (error instanceof JournalError) return made(training[error.reason._tag], error.reason)
  if (error instanceof RecoveryError) return made(recovery[error.reason._tag], error.reason)
  if (error instanceof EmulatorError) return made(emulator[error.reason._tag], error.reason)
  if (CliError.isCliError(error)) return ofUsage(error)
  return undefined
}

/** The same for a whole cause. An interrupted program is no failure to describe. */
export const ofCause = (cause: Cause.Cause<unknown>): Failure => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  const known = error === undefined ? undefined : describe(error)
  return (
    known ?? {
      code: failed,
      error: "Defect",
      summary: "This is a mistake in tinkex, not in what you did.",
      hints: ["Please report it with the lines below."],
      ids: {},
      defect: true
    }
  )
}

/** A key or a token that came in an argument which is not for keys is quoted as any other argument would be, but for this. */
export const withoutKeys = (text: string): string => text.replaceAll(/\b(tml-|eyJ)[\w-][\w.~+/=-]{4,}/g, "$1<redacted>")

/** For a person. */
export const lines = (failure: Failure): ReadonlyArray<string> => {
  const ids = Object.entries(failure.ids).map(([name, id]) => `${name} ${id}`)
  return [
    `✗ ${failure.summary}`,
    ...failure.hints.map((hint) => `  ${hint}`),
    ...(ids.length === 0 ? [] : [`  ${ids.join("  ·  ")}`])
  ]
}

/** For a program. */
export const json = ({ code, error, hints, ids, summary }: Failure) => ({
  schemaVersion: 1,
  error,
  exitCode: code,
  message: summary,
  hints,
  ids
})
