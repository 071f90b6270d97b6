/**
 * Supervised one-off work with a typed result.
 *
 * A task is an effect child of a dynamic supervisor, temporary unless told otherwise. It belongs to the scope in which
 * it was started. In our bank, tasks write the statements while the accounts go on working. `// =>` shows what an
 * expression returns.
 *
 * ```ts
 * import { Actor, type ActorRef, ChildSpec, Supervisor, TaskSupervisor } from "@tinkex/supervision"
 * import { Effect, Exit, Option, Schema, Stream } from "effect"
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: { balance: (self) => self.state.balance }
 * }) {}
 *
 * class PrinterJam extends Schema.TaggedError<PrinterJam>()("PrinterJam", {}) {}
 *
 * const statement = (account: ActorRef.ActorRef<typeof Account>) =>
 *   Effect.map(account.call.balance(), (balance) => `${account.id} has ${balance}`)
 *
 * const bank = Supervisor.start({
 *   children: [
 *     ChildSpec.actor("alice", Account, 100),
 *     ChildSpec.actor("bob", Account, 50),
 *     TaskSupervisor.childSpec("office", { maxChildren: 100 })
 *   ]
 * })
 * ```
 *
 * Who starts a task decides how close they are. `async` links it to the caller: when the task crashes, the caller does
 * not go on as if nothing had happened. `asyncNolink` tells only who awaits it. `startChild` is fire and forget.
 *
 * ```ts
 * const evening = Effect.gen(function* () {
 *   const { alice, bob, office } = (yield* bank).refs
 *   const hers = yield* office.async(statement(alice))
 *   const his = yield* office.asyncNolink(Effect.andThen(new PrinterJam(), statement(bob)))
 *   yield* hers.await // => "alice has 100"
 *   yield* hers.await // => "alice has 100"
 *   const jam = yield* Effect.flip(his.await)
 *   jam._tag // => "PrinterJam"
 *   yield* office.startChild(Effect.log("lights off"), { restart: "transient" })
 * })
 * ```
 *
 * `yield` looks whether a task has ended, and `shutdown` stops it; what was finished by then is not lost.
 *
 * ```ts
 * const impatience = Effect.gen(function* () {
 *   const { office } = (yield* bank).refs
 *   const audit = yield* office.async(Effect.never)
 *   const soFar = yield* audit.yield("10 millis")
 *   Option.isNone(soFar) // => true
 *   const last = yield* audit.shutdown
 *   Option.isNone(last) // => true
 *   const stopped = yield* Effect.flip(audit.await)
 *   stopped.reason._tag // => "TargetExit"
 * })
 * ```
 *
 * A stream runs one task per item, a bounded number at a time. In `stream` the first failure ends the stream and stops
 * the other tasks; in `streamNolink` each item has its own exit.
 *
 * ```ts
 * const month = Effect.gen(function* () {
 *   const { alice, bob, office } = (yield* bank).refs
 *   const options = { concurrency: 2, itemLimit: "5 seconds" } as const
 *   yield* Stream.runCollect(office.stream([alice, bob], statement, options)) // => [ 'alice has 100', 'bob has 50' ]
 *   const print = (copy: number) => (copy === 2 ? Effect.fail(new PrinterJam()) : Effect.succeed(copy))
 *   const exits = yield* Stream.runCollect(office.streamNolink([1, 2, 3], print, options))
 *   exits.map(Exit.isSuccess) // => [ true, false, true ]
 * })
 * ```
 *
 * | option of a stream | meaning | default |
 * | --- | --- | --- |
 * | `concurrency` | items that are worked on at a time, a whole number from 1 | the processors that the runtime reports |
 * | `ordered` | whether results come in the order of the items | `true` |
 * | `itemLimit` | how long one item may take; then its task is stopped and its result is a `CallTimeout` | no limit |
 *
 * The options of the supervisor are those of `DynamicSupervisor`, those of a task those of `ChildSpec`, with `restart`
 * `temporary` by default. Starting a task is refused with `MaxChildren`, `StartFailed`, `InvalidRequest` or
 * `SupervisorStopped`, stopping one with `NotFound` when it has ended.
 *
 * **Guarantees.** A task belongs to the scope in which it was started, and does not outlive it; one of `startChild`
 * belongs to its supervisor (T1). The caller of `async` cannot go on after the task has crashed: a caller that awaits
 * gets the failure, any other is interrupted (T2). What `await` returns is settled once and can be awaited again (T3).
 * An early end of a stream's consumer stops what it had started (T4). A task knows on whose behalf it runs, see
 * `callers` (T5).
 *
 * **Not guaranteed.** A deadline interrupts the task, and an effect that is uninterruptible goes on behind the fence.
 * Any fiber may await a task: in Effect a time limit around `await` is one more fiber, so ownership is the scope, not
 * the fiber. The surrounding scope of a handler is that of its incarnation: `Effect.scoped` around the work ends its
 * tasks with it.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { CallError, CallTimeout, TargetExit } from "./CallError.ts"
import { type ChildOptions, type ChildSpec, type EffectOptions, effectBlueprint, specOf } from "./ChildSpec.ts"
import { ownSettingsOf } from "./internal/settings.ts"
import type { DynamicSupervisorOptions } from "./DynamicSupervisor.ts"
import type { EffectRef } from "./EffectRef.ts"
import * as ExitReason from "./ExitReason.ts"
import { callersOf } from "./internal/callers.ts"
import { DynamicBlueprint, type DynamicFacade, StartChild, dynamicPlanOf } from "./internal/dynamicChild.ts"
import { CurrentPlace } from "./internal/place.ts"
import { isPresent, relationsOf } from "./internal/relations.ts"
import { startDynamic } from "./internal/rootSupervisor.ts"
import { observe } from "./internal/supervisorRef.ts"
import { detached } from "./internal/system.ts"
import { type Target, childOf } from "./internal/target.ts"
import type { SupervisorError } from "./SupervisorError.ts"
import type { Supervising } from "./SupervisorRef.ts"

/**
 * A task that was started.
 *
 * @category models
 * @since 0.1.0
 */
export interface Task<out A, out E> extends Target {
  readonly id: string
  readonly path: string
  /**
   * Waits for the result. Fails with the task's typed failure, dies with its defect, and fails with `TargetExit` when it was
   * stopped or killed. Giving up to wait leaves the task alone.
   */
  readonly await: Effect.Effect<A, E | CallError>
  /** Waits for the exit, at most for `limit` (default: no time at all). */
  readonly yield: (limit?: Duration.Input) => Effect.Effect<Option.Option<Exit.Exit<A, E>>>
  /** Stops it, and returns the exit that it had before; nothing when it had none. */
  readonly shutdown: Effect.Effect<Option.Option<Exit.Exit<A, E>>>
}

/**
 * @category options
 * @since 0.1.0
 */
export interface StreamOptions {
  /** Items that are worked on at a time, a whole number from 1. Default: the processors that the runtime reports. */
  readonly concurrency?: number | undefined
  /** Whether results come in the order of the items. Default true. */
  readonly ordered?: boolean | undefined
  /** How long one item may take; then its task is stopped. Default: no limit. */
  readonly itemLimit?: Duration.Input | undefined
}

/**
 * The handle of a task supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskSupervisorRef extends Supervising {
  /** Starts a task linked to the caller: when it crashes, so does the caller. Stopped with the surrounding scope. */
  readonly async: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: ChildOptions
  ) => Effect.Effect<Task<A, E>, SupervisorError, R | Scope.Scope>
  /** Starts a task whose crash is only seen by whoever awaits it. Stopped with the surrounding scope. */
  readonly asyncNolink: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: ChildOptions
  ) => Effect.Effect<Task<A, E>, SupervisorError, R | Scope.Scope>
  /** Starts work that nobody waits for; it lives as long as it takes, or as its supervisor. */
  readonly startChild: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: EffectOptions
  ) => Effect.Effect<EffectRef<A, E>, SupervisorError, Exclude<R, Scope.Scope>>
  /** Stops a task. Refused with `NotFound` when it has ended. */
  readonly terminateChild: (task: Target) => Effect.Effect<void, SupervisorError>
  /** A task per item; the first failure ends the stream and stops the others. */
  readonly stream: <A, B, E, R>(
    items: Iterable<A> | Stream.Stream<A>,
    work: (item: A) => Effect.Effect<B, E, R>,
    options?: StreamOptions
  ) => Stream.Stream<B, E | CallError | SupervisorError, Exclude<R, Scope.Scope>>
  /** A task per item; a failure is the exit of that item, and the others go on. */
  readonly streamNolink: <A, B, E, R>(
    items: Iterable<A> | Stream.Stream<A>,
    work: (item: A) => Effect.Effect<B, E, R>,
    options?: StreamOptions
  ) => Stream.Stream<Exit.Exit<B, E | CallError>, SupervisorError, Exclude<R, Scope.Scope>>
}

/**
 * On whose behalf the present task runs, the nearest first: paths of actors and tasks, or `fiber 12` for a fiber that belongs
 * to none. Empty outside a task.
 *
 * @category accessors
 * @since 0.1.0
 */
export const callers: Effect.Effect<ReadonlyArray<string>> = Effect.map(CurrentPlace, (place) => place?.callers ?? [])

const stopped = (task: Target, operation: string): CallError => {
  const { lastExit: exit = ExitReason.shutdown, path } = childOf(task)
  return new CallError({
    reason: new TargetExit({ target: path, operation, exit })
  })
}

/** A task's exit as the result of whoever awaits it: an end from outside must not look like an interruption of the caller. */
const resultOf = <A, E>(task: Target, exit: Exit.Exit<A, E>): Exit.Exit<A, E | CallError> =>
  Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? Exit.fail(stopped(task, "await")) : exit

/** Who awaits a task just now, and whether anybody has got its result. */
interface Waiting {
  count: number
  told: boolean
}

const facade: DynamicFacade = (supervisor): TaskSupervisorRef => {
  const start = <A, E, R>(effect: Effect.Effect<A, E, R>, options: EffectOptions | undefined) =>
    Effect.contextWith((context: Context.Context<Exclude<R, Scope.Scope>>) => {
      const fiber = Fiber.getCurrent()
      const settings: EffectOptions = { restart: "temporary", ...options }
      const blueprint = effectBlueprint("task", effect, settings, callersOf(fiber))
      // a task is part of what its caller does, so it stays below the caller's span
      const span = Context.getOrUndefined(context, Tracer.ParentSpan)
      const own = detached(context)
      const place = span === undefined ? own : Context.add(own, Tracer.ParentSpan, span)
      // the ref of an effect child of this effect
      return new StartChild(supervisor, { blueprint }, place) as Effect.Effect<EffectRef<A, E>, SupervisorError>
    })

  const terminate = (task: Target) => Effect.suspend(() => supervisor.terminateChild(childOf(task)))

  const taskOf = <A, E>(ref: EffectRef<A, E>, waiting: Waiting): Task<A, E> => ({
    ...ref,
    await: Effect.suspend(() => {
      waiting.count++
      const result = Effect.flatMap(ref.exit, (exit) => {
        waiting.told = true
        return resultOf(ref, exit)
      })
      return Effect.ensuring(
        result,
        Effect.sync(() => waiting.count--)
      )
    }),
    yield: (limit = Duration.zero) => Effect.timeoutOption(ref.exit, limit),
    shutdown: Effect.suspend(() =>
      isPresent(childOf(ref))
        ? Effect.as(Effect.ignore(terminate(ref)), Option.none())
        : Effect.map(ref.exit, (exit) =>
            Cause.hasInterruptsOnly(Exit.isFailure(exit) ? exit.cause : Cause.empty) ? Option.none() : Option.some(exit)
          )
    )
  })

  /** Starts a task that ends with the surrounding scope. */
  const owned = <A, E, R>(effect: Effect.Effect<A, E, R>, options: ChildOptions | undefined) =>
    Effect.map(
      Effect.acquireRelease(start(effect, options), (ref) => Effect.ignore(terminate(ref))),
      (ref) => {
        const waiting: Waiting = { count: 0, told: false }
        return { ref, waiting, task: taskOf(ref, waiting) }
      }
    )

  const asyncNolink: TaskSupervisorRef["asyncNolink"] = (effect, options) =>
    Effect.map(owned(effect, options), ({ task }) => task)

  const async: TaskSupervisorRef["async"] = (effect, options) =>
    Effect.flatMap(owned(effect, options), ({ ref, task, waiting }) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const owner = Fiber.getCurrent()
          const child = childOf(ref)
          const crashed = () => {
            if (!waiting.told && waiting.count === 0) owner?.interruptUnsafe()
          }
          const watcher = {
            // on a later turn: the owner of a task that has crashed at once may be about to await it
            notify: (_: number, reason: ExitReason.ExitReason) => {
              if (!ExitReason.isClean(reason)) supervisor.system.post(crashed)
            }
          }
          if (isPresent(child)) relationsOf(child).watchers.add(watcher)
          else watcher.notify(child.generation, child.lastExit ?? ExitReason.normal)
          return { child, watcher }
        }),
        ({ child, watcher }) => Effect.sync(() => child.extras?.relations?.watchers.delete(watcher))
      ).pipe(Effect.as(task))
    )

  const perItem = <A, B, E, R, B2, E2>(
    items: Iterable<A> | Stream.Stream<A>,
    work: (item: A) => Effect.Effect<B, E, R>,
    { concurrency = globalThis.navigator?.hardwareConcurrency ?? 1, itemLimit, ordered = true }: StreamOptions,
    result: (exit: Exit.Exit<B, E | CallError>) => Effect.Effect<B2, E2>
  ): Stream.Stream<B2, E2 | SupervisorError, Exclude<R, Scope.Scope>> => {
    const limit = itemLimit === undefined ? Duration.infinity : Duration.fromInputUnsafe(itemLimit)
    const one = (item: A, running: Set<Target>) =>
      Effect.acquireUseRelease(
        Effect.tap(
          start(
            Effect.suspend(() => work(item)),
            undefined
          ),
          (ref) => Effect.sync(() => running.add(ref))
        ),
        (ref) =>
          Effect.flatMap(Effect.timeoutOption(ref.exit, limit), (exit) => {
            if (Option.isSome(exit)) return result(resultOf(ref, exit.value))
            const late = new CallTimeout({ target: ref.path, operation: "item", limit })
            return result(Exit.fail(new CallError({ reason: late })))
          }),
        (ref, exit) => {
          running.delete(ref)
          const stop = (task: Target) => Effect.ignore(terminate(task))
          if (Exit.isSuccess(exit) || !Cause.hasInterrupts(exit.cause)) return stop(ref)
          // a stream that ends early interrupts its items one after the other, but they are to end at the same time
          const all = [ref, ...running]
          running.clear()
          return Effect.forEach(all, stop, { concurrency: "unbounded", discard: true })
        }
      )
    return Stream.suspend(() => {
      const running = new Set<Target>()
      return (Stream.isStream(items) ? items : Stream.fromIterable(items)).pipe(
        Stream.mapEffect((item) => one(item, running), { concurrency, unordered: !ordered })
      )
    })
  }

  return {
    ...observe(supervisor),
    async,
    asyncNolink,
    startChild: (effect, options) => start(effect, options),
    terminateChild: terminate,
    stream: (items, work, options = {}) => perItem(items, work, options, (exit) => exit),
    streamNolink: (items, work, options = {}) => perItem(items, work, options, (exit) => Effect.succeed(exit))
  }
}

/**
 * Starts a task supervisor. It belongs to the surrounding scope and stops with it.
 *
 * **Example** (Two at a time)
 *
 * ```ts
 * import { TaskSupervisor } from "@tinkex/supervision"
 * import { Effect, Stream } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const tasks = yield* TaskSupervisor.start({ maxChildren: 100 })
 *   const answer = yield* tasks.async(Effect.succeed(41))
 *   const squares = yield* tasks
 *     .stream([1, 2, 3], (n) => Effect.succeed(n * n), { concurrency: 2, itemLimit: "1 second" })
 *     .pipe(Stream.runCollect)
 *   return [(yield* answer.await) + 1, ...squares] // [42, 1, 4, 9]
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const start = Effect.fn("TaskSupervisor.start")(function* (
  options: DynamicSupervisorOptions & { readonly name?: string | undefined } = {}
): Effect.fn.Return<TaskSupervisorRef, SupervisorError, Scope.Scope> {
  const name = options.name ?? "supervisor"
  const supervisor = yield* startDynamic(name, dynamicPlanOf(name, options), facade)
  return supervisor.ref as TaskSupervisorRef // the facade's
})

/**
 * A task supervisor as a child of another.
 *
 * @category constructors
 * @since 0.1.0
 */
export const childSpec = <const Id extends string>(
  id: Id,
  options: DynamicSupervisorOptions & ChildOptions = {}
): ChildSpec<Id, TaskSupervisorRef, never> => {
  const [settings, problem] = ownSettingsOf(id, options)
  return specOf(id, new DynamicBlueprint(id, settings, problem, dynamicPlanOf(id, options), facade))
}

/**
 * A task supervisor as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: DynamicSupervisorOptions & { readonly name?: string | undefined } = {}
): Layer.Layer<never, SupervisorError> => Layer.effectDiscard(start(options))
