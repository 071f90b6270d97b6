/**
 * The address of an actor.
 *
 * An `ActorRef` names a child of a supervisor, not one incarnation of it: it stays valid across restarts. While the actor is
 * being restarted, messages wait in its mailbox; when it is down for good, a call fails with `NoProcess` and a cast is
 * dropped. An `IncarnationRef` names exactly one incarnation. The two are different types, so that nobody mixes them up.
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
import type { AnyActor, Failure, Payload, Reply, Returned, StateOf } from "./Actor.ts"
import type { CallError } from "./CallError.ts"
import type { ExitReason } from "./ExitReason.ts"
import type { Target } from "./internal/target.ts"

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
 * What both kinds of address offer. `ref.call.op(payload)` asks and waits, `ref.cast.op(payload)` tells. All of these are
 * descriptions: running one twice sends twice.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address<A extends AnyActor> extends Target {
  /** The child id. */
  readonly id: string
  /** Where it stands in its tree: `root/workers/alice`. */
  readonly path: string
  readonly call: Calls<A["call"]>
  readonly cast: Casts<A["cast"]>
  /**
   * Ends the actor with reason normal after the messages that already wait, and returns once it is gone, finalizers included.
   * A permanent child is then restarted by its supervisor. Fails with `NoProcess` when there is none, and with `CallingSelf`
   * in a handler of its own, where `self.stop()` is meant.
   */
  readonly stop: Effect.Effect<void, CallError>
  /** The same with another reason. */
  readonly stopWith: (reason: ExitReason) => Effect.Effect<void, CallError>
  /**
   * Ends the incarnation at once, with reason killed, whatever it is doing. Its finalizers still run: there is no way to end
   * a fiber without them.
   */
  readonly kill: Effect.Effect<void>
  /** The state, between two messages. For inspection: it is the actor's own object, not a copy. */
  readonly getState: Effect.Effect<StateOf<A>, CallError>
  /** Replaces the state between two messages, and returns the new one. When `change` throws, the caller dies of it and the state stays. */
  readonly replaceState: (change: (state: StateOf<A>) => StateOf<A>) => Effect.Effect<StateOf<A>, CallError>
  /** From now on messages wait. Only requests beside the mailbox, as this one, are served. */
  readonly suspend: Effect.Effect<void, CallError>
  readonly resume: Effect.Effect<void, CallError>
}

/**
 * A stable address: it names a child of a supervisor, over all its incarnations.
 *
 * @category models
 * @since 0.1.0
 */
export interface ActorRef<A extends AnyActor> extends Address<A> {
  /** The same actor with another limit for calls, and for casts that wait for room. Infinity means no limit. */
  readonly within: (limit: Duration.Input) => ActorRef<A>
  /** The exact address of the incarnation that is up now. */
  readonly incarnation: Effect.Effect<IncarnationRef<A>, CallError>
}

/**
 * An exact address: once this incarnation has ended, calls fail with `NoProcess` and casts are dropped, whoever came after
 * it. It is what OTP calls a pid.
 *
 * @category models
 * @since 0.1.0
 */
export interface IncarnationRef<A extends AnyActor> extends Address<A> {
  readonly generation: number
  readonly within: (limit: Duration.Input) => IncarnationRef<A>
}
