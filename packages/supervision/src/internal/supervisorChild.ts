import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { CallTimeout } from "../CallError.ts"
import * as ExitReason from "../ExitReason.ts"
import * as RestartIntensity from "../RestartIntensity.ts"
import type { SupervisionEvent } from "../SupervisionEvent.ts"
import {
  AlreadyPresent,
  AlreadyStarted,
  InvalidRequest,
  MaxRestartsExceeded,
  NotFound,
  type RestartRecord,
  Restarting,
  Running,
  StartFailed,
  SupervisorError,
  type SupervisorErrorReason,
  SupervisorStopped
} from "../SupervisorError.ts"
import { Blueprint, Child, Initialising, type Owner, type Settings } from "./child.ts"
import { timeOf } from "./eventHub.ts"
import { makeSupervisorRef } from "./supervisorRef.ts"
import type { Runnable, System } from "./system.ts"

export type Strategy = "one_for_one" | "one_for_all" | "rest_for_one"

/** What a supervisor is made of, checked. */
export interface Plan {
  readonly strategy: Strategy
  readonly limits: RestartIntensity.Limits
  readonly children: ReadonlyArray<Blueprint>
}

export class SupervisorBlueprint extends Blueprint {
  readonly plan: Plan | SupervisorError

  constructor(id: string, settings: Settings, plan: Plan | SupervisorError) {
    super(id, settings)
    this.plan = plan
  }

  override make(owner: Owner, context: Context.Context<never>): Child {
    return new SupervisorChild(owner, this, context, owner.system)
  }
}

type AnyFiber = Fiber.Fiber<unknown, unknown>
type Steps<A> = Generator<Effect.Effect<unknown>, A, never>
type Answer = Exit.Exit<unknown, SupervisorError>

type Inbox = End | Request

/** A child ended by itself, or an attempt to bring it back failed. */
interface End {
  readonly kind: "exit" | "retry"
  readonly child: Child
  readonly generation: number
  readonly reason: ExitReason.ExitReason
  next: Inbox | undefined
}

interface Request {
  readonly kind: "request"
  readonly run: () => Steps<Answer>
  readonly settle: (answer: Answer) => void
  withdrawn: boolean
  next: Inbox | undefined
}

const messagesPerTurn = 256
const historyLength = 32

/**
 * A supervisor: one fiber that takes its exits, retries and requests one by one from an inbox. Whatever happens to a child
 * only enqueues here, so the table of children is never changed from inside somebody else's step.
 */
export class SupervisorChild extends Child implements Owner, Runnable {
  readonly kind = "supervisor"
  readonly system: System
  readonly children = new Map<string, Child>()
  nextReady: Runnable | undefined = undefined
  verdict: ExitReason.ExitReason | undefined = undefined
  declare readonly blueprint: SupervisorBlueprint
  private readonly listed: ReadonlyArray<Child>
  private readonly place: string
  private readonly isRoot: boolean
  private intensity: RestartIntensity.RestartIntensity
  private readonly plan: Plan
  private history: Array<RestartRecord> = []
  private inbox: Inbox | undefined = undefined
  private newest: Inbox | undefined = undefined
  private loop: AnyFiber | undefined = undefined
  private wake: ((effect: Effect.Effect<void>) => void) | undefined = undefined
  private queued = false
  private serving = false
  private stopping = false
  private starting: { readonly child: Child; readonly abort: () => void } | undefined = undefined
  private readonly watchers = new Set<(reason: Effect.Effect<ExitReason.ExitReason>) => void>()

  constructor(
    owner: Owner | undefined,
    blueprint: SupervisorBlueprint,
    context: Context.Context<never>,
    system: System
  ) {
    super(owner ?? root(system), blueprint, context)
    this.system = system
    this.isRoot = owner === undefined
    this.plan = blueprint.plan instanceof SupervisorError ? nothing : blueprint.plan
    this.intensity = RestartIntensity.make(this.plan.limits)
    this.place = owner === undefined ? blueprint.id : `${owner.path}/${blueprint.id}`
    this.listed = this.plan.children.map((child) => child.make(this, context))
  }

  override get path(): string {
    return this.place
  }

  get ref(): unknown {
    return makeSupervisorRef(this, this.listed)
  }

  // -- life, as a child

  begin(): Exit.Exit<unknown, unknown> | AnyFiber {
    if (this.blueprint.plan instanceof SupervisorError) return Exit.fail(this.blueprint.plan)
    this.children.clear()
    for (const child of this.listed) {
      child.status = "starting"
      this.children.set(child.id, child)
    }
    this.intensity = RestartIntensity.make(this.plan.limits)
    this.history = []
    this.inbox = undefined
    this.newest = undefined
    this.stopping = false
    this.verdict = undefined
    let started: Exit.Exit<unknown, unknown> | undefined
    let resume: ((exit: Exit.Exit<unknown, unknown>) => void) | undefined
    const report = (failure: SupervisorError | undefined) => {
      started = failure === undefined ? Exit.void : Exit.fail(failure)
      resume?.(started)
    }
    const loop = Effect.catchCause(
      Effect.gen(() => this.main(report)),
      (cause) => {
        // a defect of the supervisor itself: its children must not be left without an owner
        this.verdict = ExitReason.fromExit(Exit.failCause(cause), false)
        return Effect.gen(() => this.stopAll())
      }
    )
    this.loop = this.system.fork(this.context, loop)
    this.loop.addObserver(() => this.finish())
    return (
      started ??
      this.system.fork(
        this.context,
        Effect.callback<unknown, unknown>((settle) => {
          if (started === undefined) resume = settle
          else settle(started)
        })
      )
    )
  }

  complete(exit: Exit.Exit<unknown, unknown>): ExitReason.ExitReason | undefined {
    if (Exit.isFailure(exit)) return ExitReason.fromExit(exit, this.stopping)
    this.generation++
    this.status = "up"
    return undefined
  }

  activate(): void {
    if (this.verdict !== undefined) this.ended(this.verdict)
  }

  halt(): AnyFiber | undefined {
    const { loop } = this
    if (loop === undefined) return undefined
    this.stopping = true
    this.starting?.abort()
    this.notify()
    return loop
  }

  release(): void {
    const reason = this.verdict ?? ExitReason.shutdown
    for (const child of this.listed) child.release()
    for (const resume of this.watchers) resume(Effect.succeed(reason))
    this.watchers.clear()
  }

  get exit(): Effect.Effect<ExitReason.ExitReason> {
    return Effect.callback((resume) => {
      if (this.status === "stopped" && this.verdict !== undefined) return resume(Effect.succeed(this.verdict))
      this.watchers.add(resume)
      return Effect.sync(() => this.watchers.delete(resume))
    })
  }

  // -- the loop

  private *main(report: (failure: SupervisorError | undefined) => void): Steps<void> {
    const failure = yield* this.startAll()
    if (failure === undefined) {
      this.serving = true
      report(undefined)
      yield* this.serve()
    }
    this.verdict ??= ExitReason.shutdown
    yield* this.stopAll()
    if (failure !== undefined) report(failure)
  }

  private *startAll(): Steps<SupervisorError | undefined> {
    for (const child of this.children.values()) {
      const exit = yield* this.bringUp(child)
      if (this.stopping) return this.stopped()
      if (exit === undefined) continue
      this.verdict = exit
      return this.error(new StartFailed({ supervisor: this.path, child: child.id, exit }))
    }
    return undefined
  }

  private *serve(): Steps<void> {
    let handled = 0
    while (!this.stopping && this.verdict === undefined) {
      const message = this.take()
      if (message === undefined) {
        yield* this.idle
        continue
      }
      if (++handled % messagesPerTurn === 0) yield* Effect.yieldNow
      if (message.kind === "request") {
        if (!message.withdrawn) message.settle(yield* message.run())
      } else if (message.generation === message.child.generation) {
        if (message.kind === "retry" && message.child.status === "restarting") {
          yield* this.restart(message.child, message.reason)
        } else if (message.kind === "exit" && message.child.status === "down") {
          yield* this.decide(message.child, message.reason)
        }
      }
    }
  }

  private readonly idle = Effect.callback<void>((resume) => {
    this.wake = resume
  })

  private notify(): void {
    if (this.queued) return
    this.queued = true
    this.system.ready(this)
  }

  turn(): number {
    this.queued = false
    const { wake } = this
    this.wake = undefined
    wake?.(Effect.void)
    return 1
  }

  private send(message: Inbox): void {
    if (this.newest === undefined) this.inbox = message
    else this.newest.next = message
    this.newest = message
    this.notify()
  }

  private take(): Inbox | undefined {
    const message = this.inbox
    if (message === undefined) return undefined
    this.inbox = message.next
    if (this.inbox === undefined) this.newest = undefined
    return message
  }

  private *stopAll(): Steps<void> {
    for (const child of Array.from(this.children.values()).toReversed()) yield* this.stop(child)
    for (let message = this.take(); message !== undefined; message = this.take()) {
      if (message.kind === "request") message.settle(Exit.fail(this.stopped()))
    }
  }

  /** Runs when the loop's fiber has ended, however it ended. */
  private finish(): void {
    this.loop = undefined
    this.verdict ??= ExitReason.crash(new Error(`The loop of supervisor "${this.path}" was interrupted.`))
    if (this.serving) this.emit({ _tag: "SupervisorExited", child: this.id, exit: this.verdict })
    this.serving = false
    if (this.isRoot) {
      this.status = "stopped"
      this.release()
      this.system.close()
    } else if (this.status === "up" && !this.stopping) {
      this.ended(this.verdict)
    }
  }

  private ended(reason: ExitReason.ExitReason): void {
    this.status = "down"
    this.owner.exited(this, reason, undefined)
  }

  // -- decisions

  exited(child: Child, reason: ExitReason.ExitReason, cleanup: AnyFiber | undefined): void {
    const { generation } = child
    this.emit({ _tag: "ChildExited", child: child.id, generation, exit: reason })
    const message: Inbox = { kind: "exit", child, generation, reason, next: undefined }
    if (cleanup === undefined || cleanup.pollUnsafe() !== undefined) {
      this.reportCleanup(child, cleanup)
      this.send(message)
      return
    }
    child.cleanup = cleanup
    this.system.fork(
      this.context,
      Effect.gen(() => this.awaitCleanup(child, cleanup, message))
    )
  }

  private *awaitCleanup(child: Child, cleanup: AnyFiber, message: Inbox): Steps<void> {
    yield* this.dispose(child, cleanup, () => child.cleanup === cleanup)
    if (child.cleanup !== cleanup) return
    child.cleanup = undefined
    this.send(message)
  }

  private *decide(child: Child, reason: ExitReason.ExitReason): Steps<void> {
    const { restart } = child.settings
    if (restart === "permanent" || (restart === "transient" && !ExitReason.isClean(reason))) {
      yield* this.restart(child, reason)
    } else {
      child.status = "stopped"
      if (restart === "temporary") this.children.delete(child.id)
      child.release()
    }
  }

  private *restart(child: Child, reason: ExitReason.ExitReason): Steps<void> {
    this.remember(child, reason)
    if (!this.intensity.spend(Math.floor(this.system.now()))) return this.giveUp(child, reason)
    const group = yield* this.prepare(child)
    for (const member of group) {
      if (this.stopping) return
      const failure = yield* this.bringUp(member)
      if (failure === undefined) continue
      member.status = "restarting"
      for (const later of group.slice(group.indexOf(member) + 1)) {
        later.status = "stopped"
        later.release()
      }
      const { generation } = member
      this.send({ kind: "retry", child: member, generation, reason: failure, next: undefined })
      return
    }
    this.emit({ _tag: "ChildRestarted", child: child.id, generation: child.generation })
  }

  /** Stops what the strategy drags along, in reverse start order, and lists what is to be started, in start order. */
  private *prepare(child: Child): Steps<ReadonlyArray<Child>> {
    if (this.plan.strategy === "one_for_one") return [child]
    const all = Array.from(this.children.values())
    const group = this.plan.strategy === "one_for_all" ? all : all.slice(all.indexOf(child))
    for (const member of group.toReversed()) {
      if (member !== child) yield* this.takeDown(member)
      if (member.settings.restart === "temporary") {
        member.status = "stopped"
        this.children.delete(member.id)
        member.release()
      }
    }
    return group.filter((member) => this.children.has(member.id))
  }

  private giveUp(child: Child, reason: ExitReason.ExitReason): void {
    this.emit({ _tag: "GaveUp", child: child.id, exit: reason })
    child.status = "stopped"
    this.children.delete(child.id)
    child.release()
    const { restarts, within } = this.plan.limits
    const about = { supervisor: this.path, child: child.id, restarts, within, history: this.history }
    const error = this.error(new MaxRestartsExceeded(about))
    this.verdict = ExitReason.fromExit(Exit.fail(error), false)
  }

  private remember(child: Child, exit: ExitReason.ExitReason): void {
    if (this.history.length >= historyLength) this.history.shift()
    this.history.push({ child: child.id, exit, time: timeOf(this.system.clock.currentTimeMillisUnsafe()) })
  }

  // -- starting and stopping one child

  private *bringUp(child: Child): Steps<ExitReason.ExitReason | undefined> {
    child.status = "starting"
    const begun = child.begin()
    const exit = Exit.isExit(begun) ? begun : yield* this.await(child, begun)
    const failure = child.complete(exit)
    if (failure === undefined) {
      this.emit({ _tag: "ChildStarted", child: child.id, generation: child.generation })
      child.activate()
      return undefined
    }
    yield* this.dispose(child, child.halt(failure))
    child.status = "stopped"
    this.emit({ _tag: "StartFailed", child: child.id, exit: failure })
    return failure
  }

  /** Waits for a start that takes its time, unless the supervisor, or this child, is to stop meanwhile. */
  private *await(child: Child, fiber: AnyFiber): Steps<Exit.Exit<unknown, unknown>> {
    const { startLimit } = child.settings
    const outcome = Effect.callback<Exit.Exit<unknown, unknown>>((resume) => {
      this.starting = { child, abort: () => resume(Effect.succeed(Exit.interrupt())) }
      if (this.stopping) this.starting.abort()
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

  private *stop(child: Child): Steps<void> {
    yield* this.takeDown(child)
    child.status = "stopped"
    if (child.settings.restart === "temporary") this.children.delete(child.id)
    child.release()
  }

  /** Ends the incarnation, if there is one. Between this and a start, messages wait; `release` turns them away. */
  private *takeDown(child: Child): Steps<void> {
    const running = child.status === "up"
    if (running || child.status === "down") {
      child.status = "stopping"
      const cleanup = child.halt(ExitReason.shutdown) ?? child.cleanup
      child.cleanup = undefined
      yield* this.dispose(child, cleanup)
      if (running) this.emit({ _tag: "ChildStopped", child: child.id, generation: child.generation })
    }
    child.status = "starting"
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
    this.emit({ _tag: "Zombie", child: child.id, generation, limit })
    cleanup.addObserver((exit) => {
      this.emit({ _tag: "ZombieEnded", child: child.id, generation, exit: ExitReason.fromExit(exit, true) })
    })
  }

  private reportCleanup(child: Child, cleanup: AnyFiber | undefined): void {
    const exit = cleanup?.pollUnsafe()
    if (exit === undefined || Exit.isSuccess(exit)) return
    const reason = ExitReason.fromExit(exit, true)
    if (!ExitReason.isClean(reason)) this.emit({ _tag: "ShutdownError", child: child.id, exit: reason })
  }

  // -- requests

  /** Queues a request. `ends` names the child that it is about to end. */
  request<A>(run: () => Steps<Answer>, ends?: string): Effect.Effect<A, SupervisorError> {
    return Effect.callback((resume) => {
      const settle = resume as (answer: Answer) => void // each request below answers with what its method promises
      const initialising = Fiber.getCurrent()?.getRef(Initialising)
      if (initialising?.owner === this && initialising.status === "starting") {
        const problem = "an init asked its own supervisor, which waits for that init"
        return settle(Exit.fail(this.error(new InvalidRequest({ supervisor: this.path, problem }))))
      }
      if (this.loop === undefined || this.stopping || this.verdict !== undefined)
        return settle(Exit.fail(this.stopped()))
      const request: Request = { kind: "request", run, settle, withdrawn: false, next: undefined }
      this.send(request)
      // a start that hangs must not hold up the request to end it
      if (ends !== undefined && this.starting?.child.id === ends) this.starting.abort()
      return Effect.sync(() => {
        request.withdrawn = true
      })
    })
  }

  *startChild(blueprint: Blueprint, context: Context.Context<never>): Steps<Answer> {
    const { id } = blueprint
    const known = this.children.get(id)
    if (known !== undefined) {
      const about = { supervisor: this.path, child: id }
      return this.refused(known.status === "up" ? new AlreadyStarted(about) : new AlreadyPresent(about))
    }
    const child = blueprint.make(this, context)
    this.children.set(id, child)
    const exit = yield* this.bringUp(child)
    if (exit === undefined) return Exit.succeed(child.ref)
    this.children.delete(id)
    child.release()
    return this.refused(new StartFailed({ supervisor: this.path, child: id, exit }))
  }

  *terminateChild(id: string): Steps<Answer> {
    const child = this.children.get(id)
    if (child === undefined) return this.unknown(id)
    yield* this.stop(child)
    return Exit.void
  }

  *restartChild(id: string): Steps<Answer> {
    const child = this.children.get(id)
    if (child === undefined) return this.unknown(id)
    if (child.status !== "stopped") return this.busy(child)
    const exit = yield* this.bringUp(child)
    if (exit === undefined) return Exit.void
    child.release()
    return this.refused(new StartFailed({ supervisor: this.path, child: id, exit }))
  }

  *deleteChild(id: string): Steps<Answer> {
    const child = this.children.get(id)
    if (child === undefined) return this.unknown(id)
    if (child.status !== "stopped") return this.busy(child)
    this.children.delete(id)
    return Exit.void
  }

  private unknown(id: string): Answer {
    return this.refused(new NotFound({ supervisor: this.path, child: id }))
  }

  private busy(child: Child): Answer {
    const about = { supervisor: this.path, child: child.id }
    return this.refused(child.status === "restarting" ? new Restarting(about) : new Running(about))
  }

  private stopped(): SupervisorError {
    return this.error(new SupervisorStopped({ supervisor: this.path }))
  }

  private refused(reason: SupervisorErrorReason): Answer {
    return Exit.fail(this.error(reason))
  }

  private error(reason: SupervisorErrorReason): SupervisorError {
    return new SupervisorError({ reason })
  }

  private emit<E extends Omit<SupervisionEvent, "time" | "supervisor">>(event: E): void {
    this.system.emit({ ...event, supervisor: this.path })
  }
}

const nothing: Plan = { strategy: "one_for_one", limits: { restarts: 0, within: Duration.zero }, children: [] }

/** Nobody is told of the end of a root but those who wait for it. */
const root = (system: System): Owner => ({ path: "", system, exited: () => {} })
