/**
 * Actors: state behind a mailbox, one message at a time.
 *
 * An actor is a class made from a record of handlers; its protocol is inferred from them. It usually runs as a child of
 * a `Supervisor`, which restarts it; `Actor.start` runs one alone, as on this page. `// =>` shows what an expression
 * returns.
 *
 * ```ts
 * import { Actor } from "@tinkex/supervision"
 * import { Effect, Schema } from "effect"
 * import { TestClock } from "effect/testing"
 *
 * class NotEnough extends Schema.TaggedError<NotEnough>()("NotEnough", { missing: Schema.Number }) {}
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: {
 *     balance: (self) => self.state.balance,
 *     *withdraw(self, amount: number) {
 *       const missing = amount - self.state.balance
 *       if (missing > 0) return yield* new NotEnough({ missing })
 *       return (self.state.balance -= amount)
 *     }
 *   },
 *   cast: {
 *     deposit: (self, amount: number) => void (self.state.balance += amount)
 *   }
 * }) {}
 * ```
 *
 * **Messages.** A call waits for an answer, at most 5 seconds unless `within` says otherwise; a cast waits for nothing
 * but room in the mailbox. A handler is a plain function, a function that returns an Effect, or a generator method,
 * with at most one payload. Its typed failures and services are in the types of the caller and of the tree.
 *
 * ```ts
 * const talk = Effect.gen(function* () {
 *   const account = yield* Actor.start(Account, 100)
 *   yield* account.cast.deposit(30)
 *   yield* account.within("1 second").call.withdraw(50) // => 80
 *   const refused = yield* Effect.flip(account.call.withdraw(500))
 *   refused._tag // => "NotEnough"
 *   yield* account.stop // returns when it is gone
 *   const gone = yield* Effect.flip(account.call.balance())
 *   gone.reason._tag // => "NoProcess"
 * })
 * ```
 *
 * **Beyond messages.** `init` may be an Effect with finalizers, which run when the incarnation ends. `started` runs
 * before the first message. Through `self` a handler starts timers (`timers.start`, `every`, `idle`, `state`), watches
 * and links others (`watch`, `link`), puts work in front of the next message (`continue`), reports progress, and stops
 * the actor. What is to be done later is handled in turn like a message, and ends with the incarnation.
 *
 * ```ts
 * const log: Array<string> = []
 *
 * class Savings extends Actor.make("Savings", {
 *   *init(opening: number) {
 *     yield* Effect.addFinalizer(() => Effect.sync(() => log.push("books closed")))
 *     return { balance: opening }
 *   },
 *   started: (self) => self.timers.every("interest", "1 day", (self) => void (self.state.balance *= 2)),
 *   call: { balance: (self) => self.state.balance },
 *   terminate: (self, exit) => void log.push(`${exit._tag} with ${self.state.balance}`)
 * }) {}
 *
 * const patience = Effect.gen(function* () {
 *   const savings = yield* Actor.start(Savings, 100)
 *   yield* TestClock.adjust("1 day")
 *   yield* savings.call.balance() // => 200
 *   yield* savings.stop
 *   log.join(", ") // => "Normal with 200, books closed"
 * }).pipe(Effect.provide(TestClock.layer()))
 * ```
 *
 * A handler that answers later, or lets another answer, returns `Actor.later`; an init with nothing to run answers
 * `Actor.ignore`, and one that has something to tell besides its state, `Actor.withInfo`. `Actor.enter` turns the
 * present fiber into an actor.
 *
 * **What ends an incarnation.** Whether it is followed by another is up to the supervisor.
 *
 * | what happens | reason of the end | who waits for that message gets |
 * | --- | --- | --- |
 * | a call fails with a typed error | none: it lives on | the error |
 * | a cast, timer or `started` fails with a typed error | `Crash` | |
 * | a handler throws or dies | `Crash` | `TargetExit` |
 * | a handler is interrupted by a stranger, or `ref.kill` | `Killed` | `TargetExit` |
 * | a handler fails with `ExitReason.Stop` in a cast | `Shutdown` | |
 * | `self.stop()`, `ref.stop` | `Normal`, or the reason given | the answer |
 * | something it is linked to ends, and it has no `exit` handler | the reason of that, unless normal | `TargetExit` |
 * | its supervisor stops it | `Shutdown` | `TargetExit` |
 *
 * Others whose messages wait get `TargetExit` too, and lost casts are `MessageDropped` events, unless the mailbox is
 * kept:
 *
 * | `mailbox` | values | default |
 * | --- | --- | --- |
 * | `capacity` | messages that may wait, from 1, or `"unbounded"` | 1024 |
 * | `overflow` | `suspend`: senders wait for room | `suspend` |
 * | | `reject`, `dropNewest`: the new message is turned away | |
 * | | `dropOldest`: the message that waited longest is | |
 * | `acrossRestart` | what the next incarnation finds. `drop`: nothing | `drop` |
 * | | `keepOthers`: all but the message that was being handled | |
 * | | `keep`: that one too, which may be handled twice | |
 * | `quarantineAfter` | with `keep`: crashes in a row over one message until it is set aside, from 1 | 3 |
 *
 * A call that is turned away fails with `MailboxFull`, a cast is dropped. With `suspend` a call that finds no room
 * keeps its place in the line, and its limit runs. Requests beside the mailbox (`getState`, `suspend`, ...) need no
 * room. `Actor.make` throws a `RangeError` when a number here makes no sense.
 *
 * **Guarantees.** Messages of one sender are handled in the order in which they were sent, never two at a time (A1). A
 * handler that fails with a typed error answers with it and lives on; a defect, a foreign interruption, or any failure
 * of a cast ends the incarnation (A2). Finalizers of `init` run at every end (A3). An ended incarnation is fenced: what
 * it still writes lands in its own `self`, and its late answers are dropped (A4). An idle actor holds no fiber (A5).
 *
 * **Not guaranteed.** A typed failure does not roll `self.state` back: change state last. A message that was being
 * handled, or waiting, when its incarnation crashed is lost, unless `mailbox.acrossRestart` says otherwise; its caller
 * learns of it by `TargetExit`. With `keep` a message may be handled twice. A handler that never yields cannot be
 * stopped, and blocks the thread.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ActorRef } from "./ActorRef.ts"
import type * as ExitReason from "./ExitReason.ts"
import { ignored } from "./internal/child.ts"
import { type Definition, type MailboxOptions, define } from "./internal/definition.ts"
import { type From, Later as Answering, Started } from "./internal/later.ts"
import type { Registration } from "./internal/names.ts"
import { enterAlone, startAlone } from "./internal/standalone.ts"
import type { Target } from "./internal/target.ts"
import type { SupervisorError } from "./SupervisorError.ts"

/**
 * Brand of actor classes.
 *
 * @category type ids
 * @since 0.1.0
 */
export const TypeId = "~@tinkex/supervision/Actor" as const

/**
 * The end of an incarnation that was watched. `exit` is undefined when there was none to watch: OTP's `noproc`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Down {
  readonly target: string
  readonly generation: number
  readonly exit: ExitReason.ExitReason | undefined
}

/**
 * The end of something that an actor is linked to, for actors that have an `exit` handler.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExitSignal {
  /** The path of the one that ended. */
  readonly from: string
  readonly exit: ExitReason.ExitReason
}

/**
 * Something that an actor tells itself to do: a plain function, a function that returns an Effect, or a generator. It is
 * handled like a cast, so a failure is a crash. It takes services from `self.state`, where `init` put them.
 *
 * @category models
 * @since 0.1.0
 */
export type Work<S> = (
  self: Self<S>
) =>
  | void
  | Effect.Effect<unknown, unknown, Scope.Scope>
  | Generator<Effect.Effect<unknown, unknown, Scope.Scope>, unknown, never>

/**
 * Timers of one incarnation. What they start is handled in turn with the messages; when the incarnation ends, or the timer
 * is cancelled, it is not handled at all, even if it was already waiting in the mailbox.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timers<S> {
  /** Once, after `delay`. A timer with the same key is replaced. */
  readonly start: (key: unknown, delay: Duration.Input, run: Work<S>) => void
  /** Again and again. A timer with the same key is replaced. */
  readonly every: (key: unknown, interval: Duration.Input, run: Work<S>) => void
  /** Whether there was one. */
  readonly cancel: (key: unknown) => boolean
  readonly isActive: (key: unknown) => boolean
  /** Once, unless any message comes before; requests beside the mailbox (`getState`) do not count. Replaces the last one. */
  readonly idle: (delay: Duration.Input, run: Work<S>) => void
  /** Once, unless `self.state` has been replaced by another value by then. Replaces the last one. */
  readonly state: (delay: Duration.Input, run: Work<S>) => void
}

/**
 * What a handler sees of its actor. `state` may be replaced or mutated; `id` is the child id, `path` where it stands in its
 * tree; `generation` counts the incarnations from 1.
 *
 * @category models
 * @since 0.1.0
 */
export interface Self<S> {
  state: S
  readonly id: string
  readonly path: string
  readonly generation: number
  /** Ends the actor, by default with reason normal, once the present message is answered. */
  readonly stop: (reason?: ExitReason.ExitReason) => void
  /** Does this next, before any message that waits. Several are done in order. */
  readonly continue: (run: Work<S>) => void
  readonly timers: Timers<S>
  /** Says that all is well: the delays and the budget of the child begin anew. */
  readonly progress: () => void
  /** Tells once of the end of the present incarnation of `target`, after all messages that it sent before. */
  readonly watch: (target: Watchable, notify: (self: Self<S>, down: Down) => ReturnType<Work<S>>) => void
  /** From now on nothing is told, not even what waits in the mailbox already. */
  readonly unwatch: (target: Watchable) => void
  /**
   * Shares ends: when the present incarnation of `target` ends for any reason but normal, this actor ends with the same
   * reason, and the other way round. An actor with an `exit` handler is told instead.
   */
  readonly link: (target: Watchable) => void
  readonly unlink: (target: Watchable) => void
}

/**
 * The handle of an actor, an effect child or a supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export type Watchable = Target

/**
 * The answer of an `init` that has nothing to run: the child does not come up, and that is no failure.
 *
 * @category models
 * @since 0.1.0
 */
export const ignore: Ignore = ignored as unknown as Ignore // the symbol is made where the engine looks for it

declare const Ignoring: unique symbol

/**
 * @category models
 * @since 0.1.0
 */
export interface Ignore {
  readonly [Ignoring]: true
}

/**
 * A state with something that the starter wants to know, as the port that a server got. It is the `info` of the child in
 * `whichChildren`.
 *
 * @category models
 * @since 0.1.0
 */
export interface WithInfo<out S> {
  readonly state: S
  readonly info: unknown
}

/**
 * @category constructors
 * @since 0.1.0
 */
export const withInfo = <S>(state: S, info: unknown): WithInfo<S> => new Started(state, info) as WithInfo<S> // it holds them

/**
 * The answer of a call handler that answers later, or lets others answer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Later<out A, out E> {
  readonly register: (from: From<never, never>) => void
  readonly "~answer"?: A
  readonly "~failure"?: E
}

/**
 * Keeps the caller waiting until its address is used, by any handler or fiber. When the incarnation ends before, the caller
 * gets `TargetExit`.
 *
 * **Example** (A queue whose takers wait)
 *
 * ```ts
 * import { Actor } from "@tinkex/supervision"
 *
 * class Items extends Actor.make("Items", {
 *   init: () => ({ items: [] as Array<string>, takers: [] as Array<Actor.From<string, never>> }),
 *   call: {
 *     take: (self) =>
 *       Actor.later<string>((from) => {
 *         const item = self.state.items.shift()
 *         if (item === undefined) self.state.takers.push(from)
 *         else from.succeed(item)
 *       })
 *   },
 *   cast: {
 *     put: (self, item: string) => {
 *       const taker = self.state.takers.shift()
 *       if (taker === undefined || !taker.succeed(item)) self.state.items.push(item)
 *     }
 *   }
 * }) {}
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const later = <A, E = never>(register: (from: From<A, E>) => void): Later<A, E> =>
  new Answering(register as (from: From<never, never>) => void) as Later<A, E> // the engine hands an address for both

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
  T extends Effect.Effect<infer A, infer _E, infer _R>
    ? Answer<A>
    : T extends Generator<infer _Y, infer A, never>
      ? Answer<A>
      : Answer<T>

type Answer<T> = T extends Later<infer A, infer _E> ? A : T

/**
 * The state that an `init` makes.
 *
 * @category type-level
 * @since 0.1.0
 */
export type State<I> = Exclude<Unwrapped<Reply<I>>, Ignore>

type Unwrapped<T> = T extends WithInfo<infer S> ? S : T

/**
 * The typed failures of a handler or `init`.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Failure<T> =
  T extends Effect.Effect<infer A, infer E, infer _R>
    ? E | LaterFailure<A>
    : T extends Generator<infer Y, infer A, never>
      ? GeneratorFailure<Y> | LaterFailure<A>
      : LaterFailure<T>

type GeneratorFailure<Y> = Y extends Effect.Effect<infer _A, infer E, infer _R> ? E : never
type LaterFailure<T> = T extends Later<infer _A, infer E> ? E : never

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
 * The state of an actor.
 *
 * @category type-level
 * @since 0.1.0
 */
export type StateOf<A extends AnyActor> = Returned<A[typeof TypeId]["state"]>

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
 * finalizers run at the end of the incarnation. `started` runs after it and before any message that already waits. `call`
 * handlers answer their caller; `cast` handlers answer nobody, so a failure in one is a crash. `exit` is told of the ends of
 * what the actor is linked to, which otherwise are its own. `terminate` runs at every end, before the finalizers; it is
 * shared by all instances, where a finalizer costs each of them a scope. `describe` shows the state in crash reports, without
 * its secrets; by default no state is shown. `traced` (default false) gives `init` and handlers
 * that are effects a span each, below the caller's.
 *
 * `mailbox` bounds the queue: `capacity` in messages (default 1024), `overflow` (default `"suspend"`): `suspend` makes
 * senders wait for room, `reject` and `dropNewest` turn the new message away (a call fails with `MailboxFull`, a cast is
 * dropped), `dropOldest` evicts the message that waited longest. `acrossRestart` says what becomes of waiting messages when
 * the actor is restarted. Every dropped message is an event.
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
export const make = <Arg, I, C extends Handlers<State<I>>, K extends Handlers<State<I>>>(
  name: string,
  options: {
    readonly init: (arg: Arg) => I
    readonly started?: Work<State<I>> | undefined
    readonly call?: C
    readonly cast?: K
    readonly exit?: ((self: Self<State<I>>, signal: ExitSignal) => ReturnType<Work<State<I>>>) | undefined
    readonly terminate?: ((self: Self<State<I>>, exit: ExitReason.ExitReason) => ReturnType<Work<State<I>>>) | undefined
    readonly describe?: ((state: State<I>) => unknown) | undefined
    readonly mailbox?: MailboxOptions | undefined
    readonly traced?: boolean | undefined
  }
): ActorClass<
  Arg,
  State<I>,
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

/**
 * @category options
 * @since 0.1.0
 */
export interface StartOptions {
  /** Its id; its path is `actor/` and this. Default: the name of the actor. */
  readonly id?: string | undefined
  /** How long its start may take. Default 30 seconds. */
  readonly startLimit?: Duration.Input | undefined
  /** Names that it has from before its init until it ends. */
  readonly names?: ReadonlyArray<Registration> | undefined
}

/**
 * Starts an actor without a supervisor: nobody restarts it. It belongs to the surrounding scope. Returns once its init is
 * done; fails with `StartFailed` when that fails or takes too long, and with `Ignored` when it has nothing to run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = <A extends AnyActor>(
  actor: A,
  arg: Argument<A>,
  options: StartOptions = {}
): Effect.Effect<ActorRef<A>, SupervisorError, Services<A> | Scope.Scope> =>
  startAlone(actor.definition, arg, options) as Effect.Effect<ActorRef<A>, SupervisorError, Services<A> | Scope.Scope> // its own

/**
 * Makes the present fiber live as an actor from here on, with a state that it has prepared itself: OTP's `enter_loop`. Returns
 * when the actor ends cleanly, and fails or dies as it did. `announce` gets the ref, since nobody else knows it.
 *
 * **Example** (An effect that becomes a server)
 *
 * ```ts
 * import { Actor, ChildSpec } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Counter extends Actor.make("Counter", {
 *   init: (start: number) => ({ total: start }),
 *   call: { add: (self, n: number) => (self.state.total += n) }
 * }) {}
 *
 * const spec = ChildSpec.effect(
 *   "warm",
 *   Effect.gen(function* () {
 *     yield* Effect.sleep("1 second") // its own initialisation
 *     yield* Actor.enter(Counter, { total: 7 }, { announce: (ref) => Effect.asVoid(ref.call.add(1)) })
 *   })
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const enter = <A extends AnyActor, E = never, R = never>(
  actor: A,
  state: StateOf<A>,
  options: StartOptions & { readonly announce?: ((ref: ActorRef<A>) => Effect.Effect<void, E, R>) | undefined } = {}
): Effect.Effect<void, SupervisorError | E, Services<A> | R> => {
  const entered = { ...actor.definition, init: () => state }
  const announce = options.announce as ((ref: unknown) => Effect.Effect<void, E, R>) | undefined // the ref is of this actor
  return enterAlone(entered, options, announce) as Effect.Effect<void, SupervisorError | E, Services<A> | R> // its own
}

export type { From, MailboxOptions }
