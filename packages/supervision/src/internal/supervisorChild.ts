import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as ExitReason from "../ExitReason.ts"
import type { SupervisionEvent } from "../SupervisionEvent.ts"
import {
  InvalidRequest,
  StartFailed,
  SupervisorError,
  type SupervisorErrorReason,
  SupervisorStopped
} from "../SupervisorError.ts"
import { Administration } from "./administration.ts"
import { Blueprint, Child, Initialising, type Owner, type Settings } from "./child.ts"
import { Children, type Site } from "./children.ts"
import type { Plan } from "./plan.ts"
import { Restarts } from "./restarts.ts"
import { type Answer, type Request, type Steps, SupervisorInbox } from "./supervisorInbox.ts"
import { makeSupervisorRef } from "./supervisorRef.ts"
import type { System } from "./system.ts"

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

const messagesPerTurn = 256

/**
 * A supervisor: one fiber that takes its exits, retries and requests one by one from an inbox. Whatever happens to a child
 * only enqueues here, so the table of children is never changed from inside somebody else's step.
 */
export class SupervisorChild extends Child implements Site {
  readonly kind = "supervisor"
  readonly system: System
  readonly children = new Children(this)
  readonly administration = new Administration(this, this.children)
  stopping = false
  declare readonly blueprint: SupervisorBlueprint
  private verdict: ExitReason.ExitReason | undefined = undefined
  private readonly listed: ReadonlyArray<Child>
  private readonly place: string
  private readonly isRoot: boolean
  private readonly plan: Plan
  private readonly inbox: SupervisorInbox
  private loop: AnyFiber | undefined = undefined
  private serving = false
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
    this.inbox = new SupervisorInbox(system)
    this.place = owner === undefined ? blueprint.id : `${owner.path}/${blueprint.id}`
    this.listed = this.plan.children.map((child) => child.make(this, context))
  }

  override get path(): string {
    return this.place
  }

  get ref(): unknown {
    return makeSupervisorRef(this, this.listed)
  }

  begin(): Exit.Exit<unknown, unknown> | AnyFiber {
    if (this.blueprint.plan instanceof SupervisorError) return Exit.fail(this.blueprint.plan)
    const { table } = this.children
    table.clear()
    for (const child of this.listed) {
      child.status = "starting"
      table.set(child.id, child)
    }
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
    this.children.abortStart()
    this.inbox.notify()
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
    for (const child of this.children.table.values()) {
      const exit = yield* this.children.bringUp(child)
      if (this.stopping) return this.stopped()
      if (exit === undefined) continue
      this.verdict = exit
      return this.error(new StartFailed({ supervisor: this.path, child: child.id, exit }))
    }
    return undefined
  }

  private *serve(): Steps<void> {
    const restarts = new Restarts(this, this.children, this.plan, (child, reason) => {
      this.inbox.send({ kind: "retry", child, generation: child.generation, reason, next: undefined })
    })
    let handled = 0
    while (!this.stopping && this.verdict === undefined) {
      const message = this.inbox.take()
      if (message === undefined) {
        yield* this.inbox.idle
        continue
      }
      if (++handled % messagesPerTurn === 0) yield* Effect.yieldNow
      if (message.kind === "request") {
        if (!message.withdrawn) message.settle(yield* message.run())
      } else if (message.generation === message.child.generation) {
        if (message.kind === "retry" && message.child.status === "restarting") {
          this.conclude(yield* restarts.restart(message.child, message.reason))
        } else if (message.kind === "exit" && message.child.status === "down") {
          this.conclude(yield* restarts.decide(message.child, message.reason))
        }
      }
    }
  }

  private conclude(failure: SupervisorError | undefined): void {
    if (failure !== undefined) this.verdict = ExitReason.fromExit(Exit.fail(failure), false)
  }

  private *stopAll(): Steps<void> {
    const { children, inbox } = this
    for (const child of Array.from(children.table.values()).toReversed()) yield* children.stop(child)
    for (let message = inbox.take(); message !== undefined; message = inbox.take()) {
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

  exited(child: Child, reason: ExitReason.ExitReason, cleanup: AnyFiber | undefined): void {
    const { generation } = child
    this.emit({ _tag: "ChildExited", child: child.id, generation, exit: reason })
    this.children.afterCleanup(child, cleanup, () => {
      this.inbox.send({ kind: "exit", child, generation, reason, next: undefined })
    })
  }

  /** Queues a request. `ends` names the child that it is about to end. */
  request<A>(run: () => Steps<Answer>, ends?: string): Effect.Effect<A, SupervisorError> {
    return Effect.callback((resume) => {
      const settle = resume as (answer: Answer) => void // each request answers with what the ref's method promises
      const initialising = Fiber.getCurrent()?.getRef(Initialising)
      if (initialising?.owner === this && initialising.status === "starting") {
        const problem = "an init asked its own supervisor, which waits for that init"
        return settle(Exit.fail(this.error(new InvalidRequest({ supervisor: this.path, problem }))))
      }
      if (this.loop === undefined || this.stopping || this.verdict !== undefined)
        return settle(Exit.fail(this.stopped()))
      const request: Request = { kind: "request", run, settle, withdrawn: false, next: undefined }
      this.inbox.send(request)
      if (ends !== undefined) this.children.abortStart(ends)
      return Effect.sync(() => {
        request.withdrawn = true
      })
    })
  }

  private stopped(): SupervisorError {
    return this.error(new SupervisorStopped({ supervisor: this.path }))
  }

  private error(reason: SupervisorErrorReason): SupervisorError {
    return new SupervisorError({ reason })
  }

  emit<E extends Omit<SupervisionEvent, "time" | "supervisor">>(event: E): void {
    this.system.emit({ ...event, supervisor: this.path })
  }
}

const nothing: Plan = { strategy: "one_for_one", limits: { restarts: 0, within: Duration.zero }, children: [] }

/** Nobody is told of the end of a root but those who wait for it. */
const root = (system: System): Owner => ({ path: "", system, exited: () => {} })
