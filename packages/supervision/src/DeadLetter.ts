/**
 * Messages that nobody handled, with what was in them.
 *
 * A `MessageDropped` event says that a message got lost, without its payload, since events are logged. A dead letter has
 * the payload, and goes only to programs that read `tree.deadLetters`.
 *
 * @since 0.1.0
 */
import type * as DateTime from "effect/DateTime"
import type { DropReason } from "./SupervisionEvent.ts"

/**
 * `target` is the path of the actor, `payload` is undefined for an operation without one.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  readonly target: string
  readonly operation: string
  readonly payload: unknown
  readonly why: DropReason
  readonly time: DateTime.Utc
}
