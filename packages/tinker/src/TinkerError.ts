/**
 * Every way in which a call to the service can end badly.
 *
 * `reason` is a closed union, so `Effect.catchReason("TinkerError", "RunLost", ...)` picks one and the compiler knows the rest.
 * All of them are schemas: an error keeps its meaning in a journal or another process. No reason ever holds the key.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/** Who can mend it: the caller, the service, or nobody can tell. */
export const Category = Schema.Literals(["user", "server", "unknown"])
export type Category = typeof Category.Type

/** What a service said, ready for a full stop of ours. */
const told = (detail: string): string => detail.trim().replace(/[.!]+$/, "")

const operation = { operation: Schema.String }
const refused = { ...operation, status: Schema.Int, detail: Schema.String }

/** A setting that cannot work. The value itself is not repeated: it may be a secret. */
export class InvalidConfig extends Schema.TaggedError<InvalidConfig>()("InvalidConfig", {
  field: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `Setting ${this.field} ${this.problem}.`
  }
}

/** An argument that cannot be sent. */
export class InvalidInput extends Schema.TaggedError<InvalidInput>()("InvalidInput", {
  ...operation,
  field: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.operation} was not sent: ${this.field} ${this.problem}.`
  }
}

/** The service wants something that this client does not do. */
export class Unsupported extends Schema.TaggedError<Unsupported>()("Unsupported", {
  feature: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.feature} is not supported: ${this.problem}.`
  }
}

/** 401: the key is not accepted. */
export class Unauthorized extends Schema.TaggedError<Unauthorized>()("Unauthorized", refused) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.operation}: the key was not accepted (${this.status} ${this.detail}). Set TINKER_API_KEY to a valid one.`
  }
}

/** 403: the key is good, but not for this. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", refused) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.operation} is not allowed with this key: ${told(this.detail)}. Use a key of the owner.`
  }
}

/** 404: no such run, checkpoint or session. */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", refused) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.operation} found nothing: ${told(this.detail)}. Check the id; it may have been deleted or have expired.`
  }
}

/** 409: it contradicts what the service already has. On a repeated submission: the first copy was taken, its answer is lost. */
export class Conflict extends Schema.TaggedError<Conflict>()("Conflict", refused) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.operation} contradicts what the service has: ${told(this.detail)}. Look at its state before you go on.`
  }
}

/** Any other 4xx. */
export class BadRequest extends Schema.TaggedError<BadRequest>()("BadRequest", refused) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.operation} was refused: ${this.status} ${told(this.detail)}. Correct the request; sending it again will not help.`
  }
}

/** 429 until the deadline. */
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  ...operation,
  detail: Schema.String,
  retryAfter: Schema.optional(Schema.Duration)
}) {
  readonly isRetryable: boolean = true
  readonly category: Category = "server"
  override get message() {
    const when = this.retryAfter === undefined ? "later" : `in ${Duration.format(this.retryAfter)}`
    return `${this.operation} was put off by the service up to the deadline (429 ${this.detail}). Try again ${when}.`
  }
}

/** 402 for longer than the service's own billing window. */
export class BillingPaused extends Schema.TaggedError<BillingPaused>()("BillingPaused", {
  ...operation,
  detail: Schema.String,
  waited: Schema.Duration
}) {
  readonly isRetryable: boolean = true
  readonly category: Category = "user"
  override get message() {
    return `${this.operation} waited ${Duration.format(this.waited)} for the account's billing (402 ${this.detail}). Settle it, then go on.`
  }
}

/** 5xx until the deadline. */
export class ServerFailure extends Schema.TaggedError<ServerFailure>()("ServerFailure", refused) {
  readonly isRetryable: boolean = true
  readonly category: Category = "server"
  override get message() {
    return `${this.operation} failed on the service's side up to the deadline: ${this.status} ${told(this.detail)}. Try again later.`
  }
}

/** No answer: refused, reset or cut connections until the deadline. A request that changes state may have been applied. */
export class Transport extends Schema.TaggedError<Transport>()("Transport", { ...operation, problem: Schema.String }) {
  readonly isRetryable: boolean = true
  readonly category: Category = "unknown"
  override get message() {
    return `${this.operation} got no answer: ${this.problem}. Check the network and TINKER_BASE_URL.`
  }
}

/** No answer in time. A request that changes state may have been applied. */
export class Timeout extends Schema.TaggedError<Timeout>()("Timeout", { ...operation, limit: Schema.Duration }) {
  readonly isRetryable: boolean = true
  readonly category: Category = "unknown"
  override get message() {
    return `${this.operation} had no answer within ${Duration.format(this.limit)}. Try again, or allow more time.`
  }
}

/** An answer that is not of the protocol. */
export class BadResponse extends Schema.TaggedError<BadResponse>()("BadResponse", {
  ...operation,
  problem: Schema.String,
  /** How many such answers came in a row, where the operation's result was asked for again. Absent: one. */
  tries: Schema.optional(Schema.Int)
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "server"
  override get message() {
    const often = this.tries === undefined ? "" : `, ${this.tries} times in a row`
    return `${this.operation} got an answer that makes no sense${often}: ${told(this.problem)}. Check that TINKER_BASE_URL is a Tinker service.`
  }
}

/** What the service was to put together, a trace for instance, did not come about. */
export class ExportFailed extends Schema.TaggedError<ExportFailed>()("ExportFailed", {
  ...operation,
  detail: Schema.String
}) {
  readonly isRetryable: boolean = true
  readonly category: Category = "server"
  override get message() {
    return `${this.operation} failed: ${told(this.detail)}. Ask for it again later.`
  }
}

/** A downloaded archive that is not what it should be, or that is not safe to unpack. Nothing of it was kept. */
export class BadArchive extends Schema.TaggedError<BadArchive>()("BadArchive", {
  ...operation,
  /** The entry of the archive that is to blame, where it is one. */
  entry: Schema.optional(Schema.String),
  problem: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "server"
  override get message() {
    const where = this.entry === undefined ? "the archive" : `its entry ${JSON.stringify(this.entry.slice(0, 200))}`
    return `${this.operation} was given up: ${where} ${this.problem}. Download it again; if that does not help, the checkpoint is of no use.`
  }
}

/** A file or folder of this machine that cannot be read or written. */
export class LocalFile extends Schema.TaggedError<LocalFile>()("LocalFile", {
  ...operation,
  path: Schema.String,
  problem: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `${this.operation} was given up: ${this.path} ${told(this.problem)}.`
  }
}

/** The operation was accepted and then failed. */
export class RequestFailed extends Schema.TaggedError<RequestFailed>()("RequestFailed", {
  ...operation,
  requestId: Schema.String,
  category: Category,
  detail: Schema.String
}) {
  readonly isRetryable: boolean = false
  override get message() {
    const hint = this.category === "user" ? " Correct the input." : " Restore the newest checkpoint into a new model."
    return `${this.operation} failed (${this.category}, request ${this.requestId}): ${told(this.detail)}.${hint}`
  }
}

/** 410: the result is gone. Whether the operation was applied cannot be known. */
export class PromiseExpired extends Schema.TaggedError<PromiseExpired>()("PromiseExpired", {
  ...operation,
  requestId: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "server"
  override get message() {
    return `The result of ${this.operation} (request ${this.requestId}) expired before it was read. Restore the newest checkpoint.`
  }
}

/** The model is not loaded any more, or damaged: every further request on it is doomed. */
export class RunLost extends Schema.TaggedError<RunLost>()("RunLost", {
  runId: Schema.String,
  detail: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "server"
  override get message() {
    return `Run ${this.runId} is lost: ${told(this.detail)}. Restore its newest checkpoint into a new model.`
  }
}

/** The service does not know the session any more; its models are unloaded. */
export class SessionLost extends Schema.TaggedError<SessionLost>()("SessionLost", {
  sessionId: Schema.String,
  detail: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "server"
  override get message() {
    return `Session ${this.sessionId} has ended: ${told(this.detail)}. Create a new training client and restore the newest checkpoint.`
  }
}

/** An earlier operation of this client could not be submitted; nothing after it is sent, so that no step is skipped. */
export class SubmissionRefused extends Schema.TaggedError<SubmissionRefused>()("SubmissionRefused", {
  runId: Schema.String,
  seqId: Schema.Int,
  detail: Schema.String
}) {
  readonly isRetryable: boolean = false
  readonly category: Category = "unknown"
  override get message() {
    return `Nothing more is sent to run ${this.runId}, since its operation ${this.seqId} was not accepted (${this.detail}). Restore the newest checkpoint.`
  }
}

/** No sample has come for so long that none is to be expected. */
export class Stuck extends Schema.TaggedError<Stuck>()("Stuck", {
  samplingSessionId: Schema.String,
  /** How many requests of the client were waiting. */
  requests: Schema.Int,
  silence: Schema.Duration
}) {
  readonly isRetryable: boolean = true
  readonly category: Category = "server"
  override get message() {
    const silence = Duration.format(this.silence)
    return `Sampler ${this.samplingSessionId} gave no sample for ${silence} (${this.requests} requests wait). Make a new sampler, or allow a longer progressTimeout.`
  }
}

/** The client was told to stop. */
export class Fenced extends Schema.TaggedError<Fenced>()("Fenced", { runId: Schema.String, why: Schema.String }) {
  readonly isRetryable: boolean = false
  readonly category: Category = "user"
  override get message() {
    return `The client of run ${this.runId} has stopped: ${this.why}. To go on, make a new one.`
  }
}

/** The closed set of reasons. */
export const Reason = Schema.Union([
  InvalidConfig,
  InvalidInput,
  Unsupported,
  Unauthorized,
  Forbidden,
  NotFound,
  Conflict,
  BadRequest,
  RateLimited,
  BillingPaused,
  ServerFailure,
  Transport,
  Timeout,
  BadResponse,
  ExportFailed,
  BadArchive,
  LocalFile,
  RequestFailed,
  PromiseExpired,
  RunLost,
  SessionLost,
  SubmissionRefused,
  Stuck,
  Fenced
])
export type Reason = typeof Reason.Type

/**
 * The one error of this package. `isRetryable` is true where the same call may succeed later without any change; `category`
 * says who can mend it.
 */
export class TinkerError extends Schema.TaggedError<TinkerError>()("TinkerError", { reason: Reason }) {
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  get category(): Category {
    return this.reason.category
  }
  override get message() {
    return this.reason.message
  }
}
