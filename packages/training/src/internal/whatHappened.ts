import type { TinkerError } from "@tinkex/tinker/TinkerError"

/**
 * What an error says about a model or a checkpoint, for a sentence of ours: without the advice of its message, which is to do by
 * hand what is being done here.
 */
export const whatHappened = (error: TinkerError): string => {
  const { reason } = error
  switch (reason._tag) {
    case "RunLost":
      return reason.detail.includes(reason.runId) ? bare(reason.detail) : `run ${reason.runId}: ${bare(reason.detail)}`
    case "SessionLost":
      return reason.detail.includes(reason.sessionId)
        ? bare(reason.detail)
        : `session ${reason.sessionId}: ${bare(reason.detail)}`
    case "RequestFailed":
      return `${reason.operation} failed (${reason.category}, request ${reason.requestId}): ${bare(reason.detail)}`
    case "NotFound":
    case "BadRequest":
    case "Conflict":
      return `${reason.operation}: ${reason.status} ${bare(reason.detail)}`
    default:
      return bare(error.message)
  }
}

const bare = (text: string): string => text.trim().replace(/[.!]+$/, "")
