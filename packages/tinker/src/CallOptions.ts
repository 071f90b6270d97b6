/**
 * How one call may differ from the settings of its client. Every call takes them last, and all of them may be left out.
 *
 * A call that is given up may have been carried out. An operation of a training client that is given up before it was accepted ends
 * that client, so that no step is skipped: give such operations less time only where that is better than waiting.
 */
import type * as Duration from "effect/Duration"

export interface CallOptions {
  /**
   * How long the call may take: what a connection asks before its first request, repetitions, and pauses between them, also those
   * for the account's billing; of an operation whose result comes later, how long until it is accepted. Default: the client's,
   * 5 minutes for each request, beside pauses for billing.
   */
  readonly deadline?: Duration.Input | undefined
  /** How often the request may be sent again for want of a good answer; 0 is one try. Default: up to the deadline. */
  readonly retries?: number | undefined
  /** Sent along with the client's own headers, which cannot be replaced. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}
