import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as ExitReason from "../ExitReason.ts"
import { type Child, type Ending, type Owner, type Report, ignored } from "./child.ts"
import { StartTimeout } from "../SupervisorError.ts"
import type { Emitted } from "./eventHub.ts"
import { takeNames } from "./names.ts"
import { type AnyExit, type Open, type Steps, isOpen, settled } from "./process.ts"

/** The supervisor, as its parts see it. */
export interface Site extends Owner {
  readonly stopping: boolean
  readonly emit: (event: Emitted) => void
  /** Nothing is left of an incarnation that ended by itself. */
  readonly gone: (child: Child, generation: number, reason: ExitReason.ExitReason) => void
  /** A child that must not be left behind does not stop. */
  readonly stuck: (child: Child, limit: Duration.Duration) => void
}

/** How the children of one supervisor are started and stopped. */
export class Children {
  private readonly site: Site
  private readonly starting = new Map<Child, () => void>()
  /** Children that were told to stop and are about to be waited for. */
  private readonly halted = new Map<Child, Open>()

  constructor(site: Site) {
    this.site = site
  }

  /** Gives up a start that is under way, of this child or of any: one that hangs must not hold up the request to end it. */
  abortStart(child?: Child): void {
    if (child !== undefined) this.starting.get(child)?.()
    else for (const abort of Array.from(this.starting.values())) abort()
  }

  /** The first step of a start, for a child that needs nothing before its init; for any other, nothing happens yet. */
  begin(child: Child): AnyExit | Open | undefined {
    const { extras } = child
    if (extras?.adopted !== undefined) {
      child.context = extras.adopted
      extras.adopted = undefined
    }
    const { layer, names } = child.settings
    if (layer !== undefined || names.length > 0) return undefined
    child.status = "starting"
    return child.begin()
  }

  /** Completes a start that had not to wait. False when it did not simply come up. */
  cameUp(child: Child, begun: AnyExit | Open | undefined): boolean {
    if (begun === undefined || isOpen(begun) || Exit.isFailure(begun) || begun.value === ignored) return false
    child.complete(begun)
    this.up(child)
    return true
  }

  private up(child: Child): void {
    const { site } = this
    const { system } = site
    const { generation, id } = child
    const { time } = system
    child.since = system.tick
    system.counters.children++
    system.emit({ _tag: "ChildStarted", supervisor: site.path, child: id, time, generation })
    child.activate()
  }

  /** Nothing when it is up, `ignored` when it has nothing to run, else why it did not come up. */
  *bringUp(
    child: Child,
    begun: AnyExit | Open | undefined = this.begin(child)
  ): Steps<ExitReason.ExitReason | typeof ignored | undefined> {
    let exit: AnyExit
    if (begun === undefined) exit = yield* this.prepared(child)
    else exit = isOpen(begun) ? yield* this.outcome(child, begun) : begun
    const outcome = child.complete(exit)
    if (outcome === undefined) {
      this.up(child)
      return undefined
    }
    const reason = outcome === ignored ? ExitReason.normal : outcome
    yield* this.dispose(child, this.halt(child, reason))
    child.status = "stopped"
    child.neverCame(reason)
    if (outcome === ignored) this.site.emit({ _tag: "ChildIgnored", child: child.id })
    else this.site.emit({ _tag: "StartFailed", child: child.id, exit: outcome })
    return outcome
  }

  /** The start of a child that takes names or gets layers before its init. */
  private *prepared(child: Child): Steps<AnyExit> {
    child.status = "starting"
    const { layer } = child.settings
    const taken = takeNames(child)
    if (taken !== undefined) return Exit.fail(taken)
    if (layer !== undefined) {
      const built = yield* this.build(child, layer)
      if (Exit.isFailure(built)) return built
    }
    const begun = child.begin()
    return isOpen(begun) ? yield* this.outcome(child, begun) : begun
  }

  /** Builds the layers of a child anew: what they hold is as young as the incarnation. */
  private *build(child: Child, layer: Layer.Layer<unknown, unknown>): Steps<AnyExit> {
    const scope = Scope.makeUnsafe()
    const base = child.context
    const building = Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope)
    const fiber = this.site.system.fork(base, building)
    child.rare.layers = { scope, base, building: fiber }
    const exit = fiber.pollUnsafe() ?? (yield* this.outcome(child, fiber))
    if (exit._tag === "Success") child.context = Context.merge(base, exit.value as Context.Context<never>)
    else fiber.interruptUnsafe()
    return exit
  }

  /** Waits for a start that takes its time, unless the supervisor, or this child, is to stop meanwhile. */
  *outcome(child: Child, open: Open, operation = "init"): Steps<AnyExit> {
    const { startLimit } = child.settings
    const { site, starting } = this
    let aborted = site.stopping
    let forget: (() => void) | undefined
    let timer: { readonly cancel: () => void } | undefined
    if (open.pollUnsafe() === undefined && !aborted) {
      yield (wake) => {
        starting.set(child, () => {
          aborted = true
          wake()
        })
        timer = site.system.timer(startLimit, wake)
        forget = open.addObserver(wake)
      }
      timer?.cancel()
      forget?.()
      starting.delete(child)
    }
    if (aborted) return Exit.interrupt()
    const late = () => new StartTimeout({ target: child.path, operation, limit: startLimit })
    return open.pollUnsafe() ?? Exit.die(late())
  }

  *stop(child: Child): Steps<void> {
    if (this.stopNow(child)) return
    yield* this.takeDown(child)
    this.retire(child)
  }

  /** Stops a child that leaves nothing to wait for; false when it is not one. */
  stopNow(child: Child): boolean {
    if (child.status !== "up") return false
    child.status = "stopping"
    const open = this.halt(child, ExitReason.shutdown)
    if (open !== undefined) {
      this.halted.set(child, open)
      return false
    }
    this.wasStopped(child, ExitReason.shutdown)
    this.retire(child)
    return true
  }

  private wasStopped(child: Child, reason: ExitReason.ExitReason): void {
    const { path, system } = this.site
    const { generation, id } = child
    system.counters.children--
    system.emit({ _tag: "ChildStopped", supervisor: path, child: id, time: system.time, generation })
    child.departed(reason)
  }

  /** The child stays down unless somebody asks for it. */
  retire(child: Child): void {
    this.forgetRetry(child)
    child.status = "stopped"
    child.neverCame(ExitReason.shutdown)
    child.release()
  }

  /** An attempt that was to come, or is already on its way to the supervisor, does nothing any more. */
  private forgetRetry({ extras }: Child): void {
    if (extras?.retry === undefined) return
    extras.retry.cancel()
    extras.retry = undefined
  }

  /** Ends the incarnation, if there is one. Between this and a start, messages wait; `retire` turns them away. */
  *takeDown(child: Child): Steps<void> {
    const { ending } = child
    const halted = this.halted.get(child)
    this.halted.delete(child)
    if (child.status === "up" || halted !== undefined) {
      child.status = "stopping"
      const open = halted ?? this.halt(child, ExitReason.shutdown)
      const exit = yield* this.dispose(child, open)
      if (exit === undefined) {
        // one that was left behind is dead to everybody else
        this.wasStopped(child, open === undefined ? ExitReason.shutdown : ExitReason.killed)
      } else {
        const reason = child.stopped(exit)
        this.reportStop(child, reason)
        this.wasStopped(child, ExitReason.isClean(reason) && reason._tag !== "Normal" ? reason : ExitReason.shutdown)
      }
    } else if (ending !== undefined) {
      child.status = "stopping"
      child.ending = undefined
      yield* this.dispose(child, ending.open)
      const reason = this.final(child, ending.reason, ending.open)
      this.departed(child, reason, ending.report)
      this.reportEarly(child, reason)
    } else if (child.status === "down") {
      this.reportEarly(child, child.lastExit)
    }
    this.forgetRetry(child)
    child.status = "starting"
  }

  /** An incarnation ended by itself: it is gone when nothing is left of it, unless a stop waits for that instead. */
  ended(child: Child, reason: ExitReason.ExitReason, cleanup: Open | undefined, report: Report | undefined): void {
    const open = this.closing(child, cleanup)
    if (open === undefined || open.pollUnsafe() !== undefined) return this.gone(child, reason, open, report)
    const ending = (child.ending = { reason, open, report })
    this.site.system.run(this.awaitEnd(child, ending))
  }

  private *awaitEnd(child: Child, ending: Ending): Steps<void> {
    const current = () => child.ending === ending
    yield* this.dispose(child, ending.open, current)
    if (!current()) return
    child.ending = undefined
    this.gone(child, ending.reason, ending.open, ending.report)
  }

  private gone(child: Child, reason: ExitReason.ExitReason, open: Open | undefined, report: Report | undefined): void {
    const { generation } = child
    const final = this.final(child, reason, open)
    this.departed(child, final, report)
    this.site.gone(child, generation, final)
  }

  private departed(child: Child, exit: ExitReason.ExitReason, report: Report | undefined): void {
    const { path: supervisor, system } = this.site
    const { id, generation } = child
    system.counters.children--
    const event = { _tag: "ChildExited", supervisor, child: id, time: system.time, generation, exit } as const
    const told = typeof report !== "function" ? report : exit._tag === "Crash" ? report() : undefined
    system.emit(told === undefined ? event : { ...event, report: told })
    child.departed(exit)
  }

  /** A finalizer that dies turns a clean end into a crash, and is reported beside any other. */
  private final(child: Child, reason: ExitReason.ExitReason, open: Open | undefined): ExitReason.ExitReason {
    const exit = open?.pollUnsafe()
    if (exit === undefined || Exit.isSuccess(exit)) return reason
    const failure = ExitReason.fromExit(exit, true)
    if (ExitReason.isClean(failure)) return reason
    if (ExitReason.isClean(reason)) return failure
    this.site.emit({ _tag: "ShutdownError", child: child.id, exit: failure })
    return reason
  }

  private reportStop(child: Child, reason: ExitReason.ExitReason): void {
    if (ExitReason.isClean(reason) && !(reason._tag === "Normal" && child.settings.restart === "permanent")) return
    this.site.emit({ _tag: "ShutdownError", child: child.id, exit: reason })
  }

  /** A child that ended by itself before its turn to be stopped came; a crash has been told already. */
  private reportEarly(child: Child, reason: ExitReason.ExitReason | undefined): void {
    if (reason?._tag === "Normal") this.reportStop(child, reason)
  }

  halt(child: Child, reason: ExitReason.ExitReason): Open | undefined {
    return this.closing(child, child.halt(reason))
  }

  /** The layers are closed when nothing of the child is left. */
  private closing(child: Child, cleanup: Open | undefined): Open | undefined {
    const { extras } = child
    const layers = extras?.layers
    if (extras === undefined || layers === undefined) return cleanup
    extras.layers = undefined
    child.context = layers.base
    const before = cleanup ?? layers.building
    const awaited = Effect.callback<AnyExit>((resume) => {
      before.addObserver((exit) => resume(Effect.succeed(exit)))
    })
    const close = Effect.flatMap(awaited, (exit) => Effect.andThen(Scope.close(layers.scope, Exit.void), exit))
    return this.site.system.fork(layers.base, close)
  }

  /** Waits as long as the child's shutdown allows for what is left of an incarnation; then its spec says what to do. */
  private *dispose(
    child: Child,
    open: Open | undefined,
    current: () => boolean = () => true
  ): Steps<AnyExit | undefined> {
    if (open === undefined) return undefined
    const { shutdown, stuck } = child.settings
    const { generation } = child
    const { site } = this
    const { system } = site
    const limit = shutdown === "brutal" ? Duration.zero : shutdown
    let exit = open.pollUnsafe()
    if (exit === undefined && Duration.toMillis(limit) > 0) exit = yield* settled(system, open, limit)
    if (exit !== undefined || !current()) return exit
    const { rare } = child
    rare.zombies++
    system.counters.zombies++
    site.emit({ _tag: "Zombie", child: child.id, generation, limit })
    open.addObserver((exit) => {
      rare.zombies--
      system.counters.zombies--
      const reason = child.stopped(exit)
      site.emit({ _tag: "ZombieEnded", child: child.id, generation, exit: reason })
    })
    if (stuck === "wait") return yield* settled(system, open, Duration.infinity)
    if (stuck === "fail") site.stuck(child, limit)
    return undefined
  }
}
