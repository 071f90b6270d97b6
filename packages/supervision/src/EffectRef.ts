/**
 * The handle of an effect child.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { Target } from "./internal/target.ts"

/**
 * `exit` waits until the effect has ended and will not be started again, and gives its last exit: for a temporary child
 * the one exit it has; for a child that the supervisor stopped, an interruption. It can be awaited any number of times.
 *
 * @category models
 * @since 0.1.0
 */
export interface EffectRef<out A, out E> extends Target {
  /** The child id. */
  readonly id: string
  readonly path: string
  readonly exit: Effect.Effect<Exit.Exit<A, E>>
  /** Interrupts it as a stranger would: it ends with reason killed, and its restart type says what follows. */
  readonly kill: Effect.Effect<void>
}
