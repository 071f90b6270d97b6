/**
 * Being told of ends, and sharing them.
 *
 * A monitor is one-way: it tells once how the present incarnation of an actor, an effect child or a supervisor ended. A link
 * goes both ways: whoever ends abnormally takes the other with it. Inside an actor, `self.watch` and `self.link` do the same
 * by messages; here they are for fibers.
 *
 * **Guarantees.** A monitor fires exactly once, also when there was nothing to watch (W1). What a handler sent to a watching
 * actor before its own end arrives before the notice (W2). When an unlink or unwatch has returned, nothing of it arrives any
 * more (W3). A restart is an end: who wants to follow it watches again (W4).
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
import { isPresent, relationsOf } from "./internal/relations.ts"
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
  if (!isPresent(child)) {
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
      const broken = Effect.flatMap(down(target), ({ exit }) => {
        if (exit === undefined) return Effect.fail(new CallError({ reason: new NoProcess(about) }))
        return exit._tag === "Normal"
          ? Effect.never
          : Effect.fail(new CallError({ reason: new TargetExit({ ...about, exit }) }))
      })
      const { generation } = child
      const own = Effect.onExit(effect, (exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit) || child.generation !== generation || !isPresent(child)) return
          child.linkedExit({ path: `fiber ${Fiber.getCurrent()?.id ?? ""}` }, ExitReason.fromExit(exit, false))
        })
      )
      return Effect.raceFirst(own, broken)
    })

export type { Target as Watchable }
