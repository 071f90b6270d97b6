/**
 * The result of an operation that the service has accepted and may not have finished.
 *
 * Its result is fetched from the moment of acceptance, whether or not anybody waits. Errors while fetching repeat the fetch,
 * never the operation.
 */
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { TinkerError } from "./TinkerError.ts"

/** What the service says about an operation that is not finished. Being paused is not a failure: the wait goes on. */
export interface QueueState {
  readonly state: "active" | "paused_capacity" | "paused_rate_limit" | "unknown"
  readonly reason: string | undefined
}

/** An accepted operation. */
export interface ApiFuture<A> {
  /** One id for each request that the call was split into. */
  readonly requestIds: ReadonlyArray<string>
  /** Awaits the result; any number of times, always the same. Interrupting the wait leaves the operation as it is. */
  readonly result: Effect.Effect<A, TinkerError>
  /** The newest queue state, `active` until the service says otherwise, and each change of it; ends with the result. */
  readonly queueState: Stream.Stream<QueueState>
}
