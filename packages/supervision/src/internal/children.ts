import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { CallTimeout } from "../CallError.ts"
import * as ExitReason from "../ExitReason.ts"
import type { SupervisionEvent } from "../SupervisionEvent.ts"
import type { Child, Owner } from "./child.ts"
import type { Steps } from "./supervisorInbox.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** The supervisor, as its parts see it. */
export interface Site extends Owner {
  readonly context: Context.Context<never>
  readonly stopping: boolean
  readonly emit: <E extends Omit<SupervisionEvent, "time" | "supervisor">>(event: E) => void
}

/** The children of one supervisor in start order, and how each of them is started and stopped. */
export class Children {
  readonly table = new Map<string, Child>()
  private readonly site: Site
  private starting: { readonly child: Child; readonly abort: () => void } | undefined = undefined

  constructor(site: Site) {
    this.site = site
  }

  /** Gives up a start that is under way, of this child or of any: one that hangs must not hold up the request to end it. */
  abortStart(id?: string): void {
    if (id === undefined || this.starting?.child.id === id) this.starting?.abort()
  }

  *bringUp(child: Child): Steps<ExitReason.ExitReason | undefined> {
    child.status = "starting"
    const begun = child.begin()
    const exit = Exit.isExit(begun) ? begun : yield* this.await(child, begun)
    const failure = child.complete(exit)
    if (failure === undefined) {
      this.site.emit({ _tag: "ChildStarted", child: child.id, generation: child.generation })
      child.activate()
      return undefined
    }
    yield* this.dispose(child, child.halt(failure))
    child.status = "stopped"
    this.site.emit({ _tag: "StartFailed", child: child.id, exit: failure })
    return failure
  }

  /** Waits for a start that takes its time, unless the supervisor, or this child, is to stop meanwhile. */
  private *await(child: Child, fiber: AnyFiber): Steps<Exit.Exit<unknown, unknown>> {
    const { startLimit } = child.settings
    const outcome = Effect.callback<Exit.Exit<unknown, unknown>>((resume) => {
      this.starting = { child, abort: () => resume(Effect.succeed(Exit.interrupt())) }
      if (this.site.stopping) this.starting.abort()
      return Effect.sync(fiber.addObserver((exit) => resume(Effect.succeed(exit))))
    })
    const exit = yield* startLimit === undefined
      ? outcome
      : Effect.timeoutOrElse(outcome, {
          duration: startLimit,
          orElse: () =>
            Effect.succeed(Exit.die(new CallTimeout({ target: child.path, operation: "init", limit: startLimit })))
        })
    this.starting = undefined
    return exit
  }

  *stop(child: Child): Steps<void> {
    yield* this.takeDown(child)
    this.retire(child)
  }

  /** The child stays down unless somebody asks for it; a temporary one is forgotten. */
  retire(child: Child): void {
    child.status = "stopped"
    if (child.settings.restart === "temporary") this.table.delete(child.id)
    child.release()
  }

  /** Ends the incarnation, if there is one. Between this and a start, messages wait; `release` turns them away. */
  *takeDown(child: Child): Steps<void> {
    const running = child.status === "up"
    if (running || child.status === "down") {
      child.status = "stopping"
      const cleanup = child.halt(ExitReason.shutdown) ?? child.cleanup
      child.cleanup = undefined
      yield* this.dispose(child, cleanup)
      if (running) this.site.emit({ _tag: "ChildStopped", child: child.id, generation: child.generation })
    }
    child.status = "starting"
  }

  /** Calls `done` when nothing is left of an incarnation that ended by itself, unless a stop waits for that instead. */
  afterCleanup(child: Child, cleanup: AnyFiber | undefined, done: () => void): void {
    if (cleanup === undefined || cleanup.pollUnsafe() !== undefined) {
      this.reportCleanup(child, cleanup)
      done()
      return
    }
    child.cleanup = cleanup
    this.site.system.fork(
      this.site.context,
      Effect.gen(() => this.awaitCleanup(child, cleanup, done))
    )
  }

  private *awaitCleanup(child: Child, cleanup: AnyFiber, done: () => void): Steps<void> {
    yield* this.dispose(child, cleanup, () => child.cleanup === cleanup)
    if (child.cleanup !== cleanup) return
    child.cleanup = undefined
    done()
  }

  /** Waits as long as the child's shutdown allows for what is left of an incarnation, then leaves it behind. */
  private *dispose(child: Child, cleanup: AnyFiber | undefined, current: () => boolean = () => true): Steps<void> {
    if (cleanup === undefined) return
    const { shutdown } = child.settings
    const { generation } = child
    if (cleanup.pollUnsafe() === undefined && shutdown !== "brutal") {
      yield* Duration.isFinite(shutdown) ? Effect.timeoutOption(Fiber.await(cleanup), shutdown) : Fiber.await(cleanup)
    }
    if (!current()) return
    if (cleanup.pollUnsafe() !== undefined) return this.reportCleanup(child, cleanup)
    const limit = shutdown === "brutal" ? Duration.zero : shutdown
    this.site.emit({ _tag: "Zombie", child: child.id, generation, limit })
    cleanup.addObserver((exit) => {
      this.site.emit({ _tag: "ZombieEnded", child: child.id, generation, exit: ExitReason.fromExit(exit, true) })
    })
  }

  private reportCleanup(child: Child, cleanup: AnyFiber | undefined): void {
    const exit = cleanup?.pollUnsafe()
    if (exit === undefined || Exit.isSuccess(exit)) return
    const reason = ExitReason.fromExit(exit, true)
    if (!ExitReason.isClean(reason)) this.site.emit({ _tag: "ShutdownError", child: child.id, exit: reason })
  }
}
