import * as Duration from "effect/Duration"
import { RateLimited } from "@tinkex/tinker/TinkerError"
import type { TinkerError } from "@tinkex/tinker/TinkerError"
import type { TrainingError } from "@tinkex/training/TrainingError"
import { Died, make, type RecoveryError, RestoreFailed } from "../RecoveryError.ts"

/**
 * Each try makes a new model, so what ended the last model or session does not end the next one. `creating`: the error comes from
 * making that model; not found is then its session, which the next try replaces. A key that is refused may have been replaced when
 * the next try reads it; as long as it is not, the service counts as away and no try is made.
 */
const worthAnotherTry = (error: TinkerError, creating: boolean): boolean =>
  error.isRetryable ||
  error.category !== "user" ||
  error.reason._tag === "Unauthorized" ||
  (creating && error.reason._tag === "NotFound")

export const fromTinker = (runId: string, error: TinkerError, creating = false): RecoveryError =>
  make(
    new RestoreFailed({
      runId,
      tag: error.reason._tag,
      detail: error.message,
      isRetryable: worthAnotherTry(error, creating),
      retryAfter: error.reason instanceof RateLimited ? error.reason.retryAfter : undefined
    })
  )

export const fromTraining = (runId: string, error: TrainingError): RecoveryError =>
  error.reason._tag === "Service"
    ? fromTinker(runId, error.reason.error, true)
    : make(new RestoreFailed({ runId, tag: error.reason._tag, detail: error.message, isRetryable: error.isRetryable }))

export const fromDefect = (runId: string, defect: unknown): RecoveryError =>
  make(new Died({ runId, defect: defect instanceof Error ? `${defect.name}: ${defect.message}` : String(defect) }))

/** How long the service asks us to stay away, if that is what an error says. */
export const pauseOf = (error: RecoveryError, usual: Duration.Duration): Duration.Duration | undefined => {
  const { reason } = error
  if (reason._tag !== "RestoreFailed") return undefined
  if (reason.tag === "BillingPaused") return usual
  if (reason.tag !== "RateLimited") return undefined
  return reason.retryAfter === undefined ? usual : Duration.max(usual, reason.retryAfter)
}

const unreachable = new Set(["ServerFailure", "Transport", "Timeout", "Unauthorized"])

/** Whether a try may have failed for no other reason than that the service is away. */
export const looksLikeOutage = ({ reason }: RecoveryError): boolean =>
  reason._tag === "AttemptTimedOut" || (reason._tag === "RestoreFailed" && unreachable.has(reason.tag))

export const isKeyRefused = ({ reason }: RecoveryError): boolean =>
  reason._tag === "RestoreFailed" && reason.tag === "Unauthorized"

/** The same, where another try would repeat it after all. */
export const forGood = (error: RecoveryError): RecoveryError => {
  const { reason } = error
  if (reason._tag !== "RestoreFailed") return error
  const { detail, runId, tag } = reason
  return make(new RestoreFailed({ runId, tag, detail, isRetryable: false, retryAfter: undefined }))
}
