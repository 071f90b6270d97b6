/**
 * The address of an actor.
 *
 * A ref names a child of a supervisor, not one incarnation of it: it stays valid across restarts. While the actor is being
 * restarted, messages wait in its mailbox; when it is down for good, a call fails with `NoProcess` and a cast is dropped.
 *
 * **Guarantees.** A call settles exactly once: with the answer, the handler's typed error, or a `CallError` (R1). It never
 * waits longer than its limit, 5 seconds unless `within` says otherwise (R2). Interrupting a caller withdraws a request
 * that still waits (R3). A call that would wait for itself, directly or through other actors, fails at once with the path
 * (R4). A cast never fails; when it is lost, that is a `MessageDropped` event (R5).
 *
 * **Not guaranteed.** Interrupting a caller does not interrupt a handler that has begun. A fiber forked by a handler
 * counts as that handler while the message is being handled, so its calls back to the actor are refused until then.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { AnyActor, Failure, Payload, Reply, Returned } from "./Actor.ts"
import type { CallError } from "./CallError.ts"

type Declared<H> = string extends keyof H ? {} : H

/**
 * One method per call handler.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Calls<H> = {
  readonly [Op in keyof Declared<H>]: (
    ...payload: Payload<H[Op & keyof H]>
  ) => Effect.Effect<Reply<Returned<H[Op & keyof H]>>, Failure<Returned<H[Op & keyof H]>> | CallError>
}

/**
 * One method per cast handler.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Casts<H> = {
  readonly [Op in keyof Declared<H>]: (...payload: Payload<H[Op & keyof H]>) => Effect.Effect<void>
}

/**
 * `ref.call.op(payload)` asks and waits, `ref.cast.op(payload)` tells. Both are descriptions: running one twice sends
 * twice. `stop` ends the actor with reason normal after the messages that already wait, and returns once it is gone; a
 * permanent child is then restarted by its supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface ActorRef<A extends AnyActor> {
  /** The child id. */
  readonly id: string
  readonly call: Calls<A["call"]>
  readonly cast: Casts<A["cast"]>
  /** The same actor with another limit for calls, and for casts that wait for room. Infinity means no limit. */
  readonly within: (limit: Duration.Input) => ActorRef<A>
  readonly stop: Effect.Effect<void>
}
