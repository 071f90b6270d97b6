/**
 * Actors: state behind a mailbox, one message at a time.
 *
 * An actor is written as a record of handlers, and its protocol is inferred from them. It runs as a child of a
 * `Supervisor` and is reached through an `ActorRef`.
 *
 * **Guarantees.** Messages of one sender are handled in the order in which they were sent, never two at a time (A1). A
 * handler that fails with a typed error answers with it and lives on; a defect, a foreign interruption, or any failure
 * of a cast ends the incarnation (A2). Finalizers of `init` run at every end (A3). An ended incarnation is fenced: what
 * it still writes lands in its own `self`, and its late answers are dropped (A4). An idle actor holds no fiber (A5).
 *
 * **Not guaranteed.** A typed failure does not roll `self.state` back: change state last. A message that was being
 * handled, or waiting, when its incarnation crashed is lost; its caller learns of it by `TargetExit`. A handler that never
 * yields cannot be stopped.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Definition, type MailboxOptions, define } from "./internal/definition.ts"

/**
 * Brand of actor classes.
 *
 * @category type ids
 * @since 0.1.0
 */
export const TypeId = "~@tinkex/supervision/Actor" as const

/**
 * What a handler sees of its actor. `state` may be replaced or mutated; `id` is the child id; `generation` counts the
 * incarnations from 1; `stop` ends the actor, with reason normal, once the current message is answered.
 *
 * @category models
 * @since 0.1.0
 */
export interface Self<S> {
  state: S
  readonly id: string
  readonly generation: number
  readonly stop: Effect.Effect<void>
}

/**
 * Handlers by operation: a plain function, a function that returns an Effect, or a generator method. At most one payload.
 * Write no inline `Effect.gen` here: it builds a function per message; a generator method costs a fraction of it.
 *
 * @category models
 * @since 0.1.0
 */
export type Handlers<S> = { readonly [operation: string]: (self: Self<S>, payload: never) => unknown }

/**
 * What a handler or `init` result stands for: the value itself, or the success of an Effect or generator.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Reply<T> =
  T extends Effect.Effect<infer A, infer _E, infer _R> ? A : T extends Generator<infer _Y, infer A, never> ? A : T

/**
 * The typed failures of a handler or `init`.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Failure<T> =
  T extends Effect.Effect<infer _A, infer E, infer _R>
    ? E
    : T extends Generator<infer Y, infer _A, never>
      ? Failure<Y>
      : never

/**
 * The services that a handler or `init` needs.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Needs<T> =
  T extends Effect.Effect<infer _A, infer _E, infer R>
    ? R
    : T extends Generator<infer Y, infer _A, never>
      ? Needs<Y>
      : never

/**
 * @category type-level
 * @since 0.1.0
 */
export type Returned<F> = F extends (...args: never) => infer T ? T : never

/**
 * The parameters that a caller passes: none, or the payload.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Payload<F> = F extends (self: never, ...payload: infer P) => unknown ? P : never

/**
 * An actor class: the protocol, the initial state and the mailbox. It is never constructed.
 *
 * @category models
 * @since 0.1.0
 */
export interface ActorClass<in out Arg, S, out C, out K, out R> {
  new (_: never): object
  readonly [TypeId]: { readonly services: (_: never) => R; readonly state: (_: never) => S }
  readonly init: (arg: Arg) => unknown
  readonly call: C
  readonly cast: K
  /** @internal */
  readonly definition: Definition
}

/**
 * Any actor class.
 *
 * @category models
 * @since 0.1.0
 */
export interface AnyActor {
  new (_: never): object
  readonly [TypeId]: { readonly services: (_: never) => unknown; readonly state: (_: never) => unknown }
  readonly init: (arg: never) => unknown
  readonly call: unknown
  readonly cast: unknown
  /** @internal */
  readonly definition: Definition
}

/**
 * The argument of an actor's `init`.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Argument<A extends AnyActor> = A["init"] extends (arg: infer Arg) => unknown ? Arg : never

/**
 * What `init` and the handlers need from the surrounding program.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Services<A extends AnyActor> = Returned<A[typeof TypeId]["services"]>

/**
 * Defines an actor: `class Account extends Actor.make("Account", { … }) {}`. The class form keeps hovers short.
 *
 * `init` makes the state from the argument of the child spec: a value, an Effect, or a generator method. It is scoped: its
 * finalizers run at the end of the incarnation. `call` handlers answer their caller; `cast` handlers answer nobody, so a
 * failure in one is a crash. `mailbox` bounds the queue: `capacity` in messages (default 1024), `overflow` (default
 * `"suspend"`): `suspend` makes senders wait for room, `reject` and `dropNewest` turn the new message away (a call fails
 * with `MailboxFull`, a cast is dropped), `dropOldest` evicts the message that waited longest. Every dropped message is
 * an event.
 *
 * **Example** (Counting)
 *
 * ```ts
 * import { Actor } from "@tinkex/supervision"
 *
 * class Counter extends Actor.make("Counter", {
 *   init: (start: number) => ({ total: start }),
 *   call: { add: (self, n: number) => (self.state.total += n) },
 *   cast: { reset: (self) => void (self.state.total = 0) }
 * }) {}
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Arg, I, C extends Handlers<Reply<I>>, K extends Handlers<Reply<I>>>(
  name: string,
  options: {
    readonly init: (arg: Arg) => I
    readonly call?: C
    readonly cast?: K
    readonly mailbox?: MailboxOptions | undefined
  }
): ActorClass<
  Arg,
  Reply<I>,
  C,
  K,
  Exclude<Needs<I> | Needs<Returned<C[keyof C]>> | Needs<Returned<K[keyof K]>>, Scope.Scope>
> => {
  const definition = define(name, options)
  // the phantom members exist for the compiler only, which is why the assembled class needs a name for its type
  return Object.assign(function () {}, {
    [TypeId]: {},
    init: options.init,
    call: options.call ?? {},
    cast: options.cast ?? {},
    definition
  }) as never
}

export type { MailboxOptions }
