import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as ExitReason from "../ExitReason.ts"
import type { SupervisionEvent } from "../SupervisionEvent.ts"
import {
  ChildStuck,
  InvalidRequest,
  SupervisorError,
  type SupervisorErrorReason,
  SupervisorStopped
} from "../SupervisorError.ts"
import { Blueprint, Child, type Owner, type Problem, type Report, type Settings, ignored } from "./child.ts"
import { Children, type Site } from "./children.ts"
import type { Emitted } from "./eventHub.ts"
import type { Plan } from "./plan.ts"
import { CurrentPlace } from "./place.ts"
import { type AnyExit, type Open, Outcome, type Steps, type Wait } from "./process.ts"
import type { Restarts } from "./restarts.ts"
import { type Branch, spentOf } from "./snapshot.ts"
import type { System } from "./system.ts"

export type Answer = Exit.Exit<unknown, SupervisorError>

/** The spec of a supervisor: its checked options, and how its ref looks to those who have it. */
export abstract class OverseerBlueprint<P extends Plan, Facade> extends Blueprint {
  readonly plan: P | SupervisorError
  readonly facade: Facade

  constructor(id: string, settings: Settings, problem: Problem | undefined, plan: P | SupervisorError, facade: Facade) {
    super(id, settings, problem)
    this.plan = plan
    this.facade = facade
  }

  get kind(): "supervisor" {
    return "supervisor"
  }

  override get flaw(): SupervisorError | undefined {
    return this.plan instanceof SupervisorError ? this.plan : undefined
  }
}

/** What all supervisors have in common: a life from start to the end of the last child, and the reason of that end. */
export abstract class Overseer extends Child implements Site {
  get kind(): "supervisor" {
    return "supervisor"
  }

  readonly system: System
  readonly children = new Children(this)
  stopping = false
  plan: Plan | SupervisorError
  protected verdict: ExitReason.ExitReason | undefined = undefined
  private readonly place: string
  private readonly isRoot: boolean
  private life: Outcome | undefined = undefined
  private serving = false
  private wake: (() => void) | undefined = undefined
  private readonly awaiting = new Set<(reason: Effect.Effect<ExitReason.ExitReason>) => void>()

  constructor(
    owner: Owner | undefined,
    blueprint: Blueprint,
    plan: Plan | SupervisorError,
    context: Context.Context<never>,
    system: System
  ) {
    super(owner ?? root(system), blueprint, context)
    this.system = system
    this.plan = plan
    this.isRoot = owner === undefined
    this.place = owner === undefined ? blueprint.id : `${owner.path}/${blueprint.id}`
  }

  override get path(): string {
    return this.place
  }

  /** Starts what is listed. The exit is why that failed. */
  protected abstract startAll(): Steps<Exit.Exit<never, SupervisorError> | undefined>
  /** Works until `ends`. */
  protected abstract serve(): Steps<void>
  protected abstract stopAll(): Steps<void>
  /** All children, in start order. */
  abstract members(): Iterable<Child>
  abstract readonly restarts: Restarts | undefined

  get intensity(): Branch["intensity"] {
    const { plan, restarts, system } = this
    return plan instanceof SupervisorError ? undefined : spentOf(restarts?.intensity, plan.limits, system.now())
  }

  /** The checked options of a supervisor that has started. */
  get settled(): Plan {
    if (this.plan instanceof SupervisorError) throw this.plan
    return this.plan
  }

  protected get ends(): boolean {
    return this.stopping || this.verdict !== undefined
  }

  /** Whether a request is served, now or once it has started. */
  get isServing(): boolean {
    return this.life !== undefined && this.life.pollUnsafe() === undefined && !this.ends
  }

  begin(): AnyExit | Open {
    const { plan } = this
    if (plan instanceof SupervisorError) return Exit.fail(plan)
    this.stopping = false
    this.verdict = undefined
    const started = new Outcome()
    const life = (this.life = new Outcome())
    this.system.run(this.main(plan, started)).addObserver((exit) => {
      if (Exit.isSuccess(exit)) return this.finish(life)
      // a defect of the supervisor itself: its children must not be left without an owner
      this.verdict = ExitReason.fromExit(exit, false)
      this.system.run(this.stopAll()).addObserver(() => {
        started.settle(exit)
        this.finish(life)
      })
    })
    return started.pollUnsafe() ?? started
  }

  private *main(plan: Plan, started: Outcome): Steps<void> {
    if (plan.when !== undefined) {
      const exit = yield* this.asked(plan.when)
      if (exit?._tag !== "Success" || exit.value !== true) {
        this.verdict = ExitReason.normal
        started.settle(exit ?? Exit.interrupt())
        return
      }
    }
    const failure = yield* this.startAll()
    if (failure === undefined) {
      this.serving = true
      started.settle(Exit.void)
      yield* this.serve()
    }
    this.verdict ??= ExitReason.shutdown
    yield* this.stopAll()
    if (failure !== undefined) started.settle(failure)
  }

  /** Whether there is something to run, `ignored` if not; undefined when the supervisor is to end before the answer. */
  private *asked(when: Effect.Effect<boolean>): Steps<AnyExit | undefined> {
    const fiber = this.system.fork(this.context, when)
    if (fiber.pollUnsafe() === undefined) {
      yield (wake) => {
        this.wake = wake
        fiber.addObserver(wake)
      }
    }
    const exit = fiber.pollUnsafe()
    if (exit === undefined) fiber.interruptUnsafe()
    if (exit?._tag !== "Success" || exit.value === true) return exit
    if (exit.value === false) return Exit.succeed(ignored)
    const problem = `it answered ${String(exit.value)}; give an effect that answers true or false`
    return Exit.fail(this.error(new InvalidRequest({ supervisor: this.path, field: "when", problem })))
  }

  complete(exit: AnyExit): ExitReason.ExitReason | typeof ignored | undefined {
    if (Exit.isFailure(exit)) return ExitReason.fromExit(exit, this.stopping)
    if (exit.value === ignored) return ignored
    this.generation++
    this.status = "up"
    return undefined
  }

  activate(): void {
    // it may have ended while it started
    if (this.verdict === undefined || this.life?.pollUnsafe() === undefined) return
    if (this.isRoot) this.status = "stopped"
    else this.ended(this.verdict)
  }

  /** A root that is stopped by its scope ends with the reason of that scope. */
  halt(reason: ExitReason.ExitReason = ExitReason.shutdown): Open | undefined {
    const { life } = this
    if (life === undefined || life.pollUnsafe() !== undefined) return undefined
    this.stopping = true
    this.verdict ??= reason
    this.children.abortStart()
    this.notify()
    return life
  }

  stopped(exit: AnyExit): ExitReason.ExitReason {
    return Exit.isSuccess(exit) ? ExitReason.shutdown : ExitReason.fromExit(exit, true)
  }

  release(): void {
    const reason = this.verdict ?? ExitReason.shutdown
    for (const child of this.members()) child.release()
    for (const resume of this.awaiting) resume(Effect.succeed(reason))
    this.awaiting.clear()
  }

  kill(reason: ExitReason.ExitReason): void {
    if (this.isServing) this.conclude(reason)
  }

  linkedExit(): void {}

  stuck(child: Child, limit: Duration.Duration): void {
    const reason = new ChildStuck({ supervisor: this.path, child: child.id, limit })
    this.conclude(ExitReason.fromExit(Exit.fail(this.error(reason)), false))
  }

  /** Ends this supervisor for this reason, unless it ends already. */
  protected conclude(verdict: ExitReason.ExitReason | undefined): void {
    if (verdict === undefined) return
    this.verdict ??= verdict
    this.children.abortStart()
    this.notify()
  }

  /** Waits until `notify`. */
  protected readonly idle: Wait = (wake) => {
    this.wake = wake
  }

  protected notify(): void {
    const { wake } = this
    this.wake = undefined
    wake?.()
  }

  get exit(): Effect.Effect<ExitReason.ExitReason> {
    return Effect.callback((resume) => {
      if (this.status === "stopped" && this.verdict !== undefined) return resume(Effect.succeed(this.verdict))
      this.awaiting.add(resume)
      return Effect.sync(() => this.awaiting.delete(resume))
    })
  }

  private finish(life: Outcome): void {
    const reason = (this.verdict ??= ExitReason.shutdown)
    if (this.serving) this.emit({ _tag: "SupervisorExited", child: this.id, exit: reason })
    this.serving = false
    if (this.isRoot) {
      this.status = "stopped"
      this.departed(reason)
      this.release()
      this.system.close()
    }
    life.settle(Exit.void)
    if (!this.isRoot && this.status === "up" && !this.stopping) this.ended(reason)
  }

  private ended(reason: ExitReason.ExitReason): void {
    this.status = "down"
    this.owner.exited(this, reason, undefined)
  }

  exited(child: Child, reason: ExitReason.ExitReason, cleanup: Open | undefined, report?: Report): void {
    this.children.ended(child, reason, cleanup, report)
  }

  abstract gone(child: Child, generation: number, reason: ExitReason.ExitReason): void

  /** Refuses a request from an init that this supervisor waits for. */
  protected get asksItself(): SupervisorError | undefined {
    const place = Fiber.getCurrent()?.getRef(CurrentPlace)
    if (place?.child.owner !== this || place.child.status !== "starting") return undefined
    const problem = "an init asked its own supervisor, which waits for that init"
    return this.error(new InvalidRequest({ supervisor: this.path, field: "the request", problem }))
  }

  protected get stoppedError(): SupervisorError {
    return this.error(new SupervisorStopped({ supervisor: this.path }))
  }

  protected error(reason: SupervisorErrorReason): SupervisorError {
    return new SupervisorError({ reason })
  }

  emit(event: Emitted): void {
    // an emitted event lacks exactly the two that are added
    this.system.emit({ ...event, supervisor: this.path, time: this.system.time } as SupervisionEvent)
  }
}

/** Nobody is told of the end of a root but those who wait for it. */
const root = (system: System): Owner => ({ path: "", system, exited: () => {} })
