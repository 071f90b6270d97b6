/**
 * Being told of ends, and sharing them.
 *
 * A monitor is one-way: it tells once how the present incarnation of an actor, an effect child or a supervisor ended. A
 * link goes both ways: whoever ends abnormally takes the other with it. This module is for fibers; actors have
 * `self.watch` and `self.link`, which tell by messages. `// =>` shows what an expression returns.
 *
 * ```ts
 * import { Actor, type ActorRef, ChildSpec, Supervisor, Watch } from "@tinkex/supervision"
 * import { Effect } from "effect"
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: { balance: (self) => self.state.balance },
 *   cast: {
 *     corrupt: () => {
 *       throw new Error("bit flip")
 *     }
 *   }
 * }) {}
 *
 * const bank = Supervisor.start({ name: "bank", children: [ChildSpec.actor("alice", Account, 100)] })
 *
 * const alarm = Effect.gen(function* () {
 *   const { alice } = (yield* bank).refs
 *   const monitor = yield* Watch.monitor(alice) // from here on, until the scope ends
 *   yield* alice.cast.corrupt()
 *   const { exit, generation, target } = yield* monitor.down
 *   const told = [target, generation, exit?._tag].join(" ") // => "bank/alice 1 Crash"
 *   yield* alice.call.balance() // => 100
 * })
 * ```
 *
 * **Inside an actor** the notice is a message, handled in turn with the others:
 *
 * ```ts
 * class Clerk extends Actor.make("Clerk", {
 *   init: (account: ActorRef.ActorRef<typeof Account>) => ({ account, notes: [] as Array<string> }),
 *   started: (self) =>
 *     self.watch(self.state.account, (self, { exit, target }) => {
 *       self.state.notes.push(`${target}: ${exit?._tag}`)
 *     }),
 *   call: { notes: (self) => self.state.notes.join(", ") }
 * }) {}
 *
 * const attention = Effect.gen(function* () {
 *   const tree = yield* bank
 *   const clerk = yield* tree.startChild(ChildSpec.actor("clerk", Clerk, tree.refs.alice))
 *   yield* tree.refs.alice.cast.corrupt()
 *   yield* tree.refs.alice.call.balance().pipe(Effect.retry({ times: 1 })) // => 100
 *   yield* clerk.call.notes() // => "bank/alice: Crash"
 * })
 * ```
 *
 * **Links.** `Watch.link` runs an effect that is of no use without its target. Here the vault stays open as long as the
 * account lives:
 *
 * ```ts
 * const vault = Effect.gen(function* () {
 *   const { alice } = (yield* bank).refs
 *   yield* Effect.forkChild(Effect.delay(alice.cast.corrupt(), "10 millis"))
 *   const closed = yield* Effect.never.pipe(Watch.link(alice), Effect.flip)
 *   closed.reason._tag // => "TargetExit"
 * })
 * ```
 *
 * | who ends | how | what the other side sees |
 * | --- | --- | --- |
 * | a watched child | in any way | `Down` with the exit; without one when there was nothing to watch |
 * | a linked child | normally | nothing |
 * | a linked child | in any other way | the effect is interrupted and fails with `TargetExit` |
 * | | | an actor ends with the same reason, or its `exit` handler is told |
 * | a linked effect | by failure or interruption | the child ends with the same reason; a supervisor does not |
 * | | | an actor with an `exit` handler is told instead |
 *
 * `link` fails with `NoProcess` when there is nothing to link to. A handle that names one incarnation
 * (`ref.incarnation`) is that incarnation and no later one.
 *
 * **Guarantees.** A monitor fires exactly once, also when there was nothing to watch (W1). What a handler sent to a
 * watching actor before its own end arrives before the notice (W2). When an unlink or unwatch has returned, nothing of
 * it arrives any more (W3). A restart is an end: who wants to follow it watches again (W4).
 *
 * **Not guaranteed.** Between two watches an incarnation can come and go unseen, and right after a notice there may be
 * nothing to watch yet: a call that was answered says that there is. `tree.events` misses no restart.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Down } from "./Actor.ts"
import { CallError, NoProcess, TargetExit } from "./CallError.ts"
import * as ExitReason from "./ExitReason.ts"
import { isThere, relationsOf } from "./internal/relations.ts"
import { type Target, childOf } from "./internal/target.ts"

/**
 * @category models
 * @since 0.1.0
 */
export interface Monitor {
  /** Waits for the end. It can be awaited any number of times. */
  readonly down: Effect.Effect<Down>
  /** Stops watching. `down` then waits for ever. */
  readonly demonitor: Effect.Effect<void>
}

const watch = (target: Target, tell: (down: Down) => void): (() => void) => {
  const child = childOf(target)
  const down = (generation: number, exit: ExitReason.ExitReason | undefined): Down => ({
    target: child.path,
    generation,
    exit
  })
  if (!isThere(target)) {
    tell(down(child.generation, undefined))
    return () => {}
  }
  const { watchers } = relationsOf(child)
  const watcher = { notify: (generation: number, exit: ExitReason.ExitReason) => tell(down(generation, exit)) }
  watchers.add(watcher)
  return () => watchers.delete(watcher)
}

/**
 * Waits for the end of the present incarnation of `target`. Interrupting it stops watching.
 *
 * @category effects
 * @since 0.1.0
 */
export const down = (target: Target): Effect.Effect<Down> =>
  Effect.callback((resume) => Effect.sync(watch(target, (down) => resume(Effect.succeed(down)))))

/**
 * Watches from now on, until the surrounding scope ends.
 *
 * @category effects
 * @since 0.1.0
 */
export const monitor = (target: Target): Effect.Effect<Monitor, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        let seen: Down | undefined
        const waiting = new Set<(down: Effect.Effect<Down>) => void>()
        const forget = watch(target, (down) => {
          seen = down
          for (const resume of waiting) resume(Effect.succeed(down))
          waiting.clear()
        })
        const down = Effect.callback<Down>((resume) => {
          if (seen !== undefined) return resume(Effect.succeed(seen))
          waiting.add(resume)
          return Effect.sync(() => waiting.delete(resume))
        })
        return { down, demonitor: Effect.sync(forget) }
      }),
      ({ demonitor }) => demonitor
    ),
    (monitor) => monitor
  )

/**
 * Runs an effect linked to the present incarnation of `target`. When that ends for any reason but normal, the effect is
 * interrupted and this fails with `TargetExit`, or with `NoProcess` when there was none. When the effect fails or is
 * interrupted, the target ends with the same reason, unless it is an actor that handles `exit`, or a supervisor.
 *
 * @category combinators
 * @since 0.1.0
 */
export const link =
  (target: Target) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | CallError, R> =>
    Effect.suspend(() => {
      const child = childOf(target)
      const about = { target: child.path, operation: "link" }
      if (!isThere(target)) return Effect.fail(new CallError({ reason: new NoProcess(about) }))
      const broken = Effect.flatMap(down(target), ({ exit }) => {
        if (exit === undefined) return Effect.fail(new CallError({ reason: new NoProcess(about) }))
        return exit._tag === "Normal"
          ? Effect.never
          : Effect.fail(new CallError({ reason: new TargetExit({ ...about, exit }) }))
      })
      const generation = child.status === "up" ? child.generation : child.generation + 1
      const own = Effect.onExit(effect, (exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit)) return
          const from = { path: `fiber ${Fiber.getCurrent()?.id ?? ""}` }
          // on a later turn, so that the effect's own failure is what this fails with
          child.owner.system.post(() => {
            if (child.generation !== generation || child.status !== "up") return
            child.linkedExit(from, ExitReason.fromExit(exit, false))
          })
        })
      )
      return Effect.raceFirst(own, broken)
    })

export type { Target as Watchable }
