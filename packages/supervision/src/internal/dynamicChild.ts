import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as ExitReason from "../ExitReason.ts"
import type { CrashReport } from "../SupervisionEvent.ts"
import { Ignored, MaxChildren, NotFound, StartFailed, SupervisorError } from "../SupervisorError.ts"
import { Blueprint, type Child, type Owner, type Problem, type Settings, ignored } from "./child.ts"
import { type Answer, Overseer } from "./overseer.ts"
import { type CommonOptions, type Plan, commonPlan, invalid, significanceProblem } from "./plan.ts"
import { type Open, type Steps, settled, turn } from "./process.ts"
import { Restarts, type Roster, type Verdict, isSteps } from "./restarts.ts"
import type { Runnable, System } from "./system.ts"

/** What a dynamic supervisor is made of, checked. */
export interface DynamicPlan extends Plan {
  readonly maxChildren: number
}

export type DynamicFacade = (supervisor: DynamicChild) => unknown

/** The options of a dynamic supervisor; a problem fails its start. */
export const dynamicPlanOf = (
  supervisor: string,
  options: CommonOptions & { readonly maxChildren?: number | undefined }
): DynamicPlan | SupervisorError => {
  if ("children" in options) {
    const problem = "a dynamic supervisor begins without children; add them with startChild"
    return invalid(supervisor, { field: "children", problem })
  }
  const common = commonPlan(options)
  if ("field" in common) return invalid(supervisor, common)
  const { maxChildren = Infinity } = options
  if (maxChildren !== Infinity && !(Number.isSafeInteger(maxChildren) && maxChildren >= 0)) {
    const problem = `it is ${String(maxChildren)}; give a whole number from 0, or leave it out for no limit`
    return invalid(supervisor, { field: "maxChildren", problem })
  }
  return { ...common, strategy: "one_for_one", children: [], maxChildren }
}

export class DynamicBlueprint extends Blueprint {
  readonly kind = "supervisor"
  readonly plan: DynamicPlan | SupervisorError
  readonly facade: DynamicFacade

  constructor(
    id: string,
    settings: Settings,
    problem: Problem | undefined,
    plan: DynamicPlan | SupervisorError,
    facade: DynamicFacade
  ) {
    super(id, settings, problem)
    this.plan = plan
    this.facade = facade
  }

  override with(settings: Settings, id = this.id): Blueprint {
    return new DynamicBlueprint(id, settings, this.problem, this.plan, this.facade)
  }

  override make(owner: Owner, context: Context.Context<never>): Child {
    return new DynamicChild(owner, this, context, owner.system)
  }
}

const childrenPerTurn = 256

/**
 * A supervisor whose children are added at run time, are independent of each other, and are known by their handles. What it
 * does with one child never waits for another.
 */
export class DynamicChild extends Overseer implements Roster {
  readonly keepsStopped = false
  restarts: Restarts | undefined = undefined
  private limit = Infinity
  private readonly own: DynamicPlan | SupervisorError
  private readonly facade: DynamicFacade
  private readonly table = new Set<Child>()
  /** Those who wait for the end of a child that is being stopped. */
  private readonly stops = new Map<Child, Array<() => void>>()

  constructor(owner: Owner | undefined, blueprint: DynamicBlueprint, context: Context.Context<never>, system: System) {
    super(owner, blueprint, blueprint.plan, context, system)
    this.own = blueprint.plan
    this.facade = blueprint.facade
  }

  get ref(): unknown {
    return this.facade(this)
  }

  get maxChildren(): number {
    return this.limit
  }

  get size(): number {
    return this.table.size
  }

  adopt(blueprint: DynamicBlueprint): void {
    this.settings = blueprint.settings
  }

  members(): Iterable<Child> {
    return this.table
  }

  has(child: Child): boolean {
    return this.table.has(child)
  }

  forget(child: Child): void {
    this.table.delete(child)
  }

  later(child: Child, token: object, work: () => Verdict | Steps<Verdict>): void {
    if (this.stops.has(child) || !this.has(child)) {
      // somebody asked for its end while it was being started again
      this.children.retire(child)
      return this.gone(child)
    }
    this.system.soon(() => {
      if (child.extras?.retry === token && this.has(child) && !this.ends) this.doing(work())
    })
  }

  /** Does the next thing for one child, beside whatever is done for others. */
  private doing(work: Verdict | Steps<Verdict>): void {
    if (!isSteps(work)) return this.conclude(work)
    const process = this.system.run(work)
    process.addObserver((exit) => {
      // a step that throws is a defect of this supervisor, which therefore ends
      this.conclude(Exit.isSuccess(exit) ? (exit.value as Verdict) : ExitReason.fromExit(exit, false))
    })
  }

  protected *startAll(): Steps<undefined> {
    this.table.clear()
    this.stops.clear()
    if (!(this.own instanceof SupervisorError)) {
      this.plan = this.own
      this.limit = this.own.maxChildren
    }
    this.restarts = new Restarts(this, this.children, this)
    return undefined
  }

  protected *serve(): Steps<void> {
    while (!this.ends) yield this.idle
  }

  /** All are asked at once; each has its own limit. */
  protected *stopAll(): Steps<void> {
    const open: Array<Open> = []
    let stopped = 0
    for (const child of Array.from(this.table)) {
      if (!this.children.stopNow(child)) {
        const process = this.system.run(this.end(child))
        if (process.pollUnsafe() === undefined) open.push(process)
      }
      if (++stopped % childrenPerTurn === 0) yield turn
    }
    for (const process of open) yield* settled(this.system, process, Duration.infinity)
    this.table.clear()
  }

  private *end(child: Child): Steps<void> {
    if (this.children.stopNow(child)) return this.gone(child)
    if (this.stops.has(child) || this.children.isStarting(child)) {
      const others = this.stops.get(child) ?? []
      this.stops.set(child, others)
      this.children.abortStart(child)
      yield (wake) => others.push(wake)
      return
    }
    this.stops.set(child, [])
    yield* this.children.stop(child)
    this.gone(child)
  }

  private gone(child: Child): void {
    this.forget(child)
    const waiting = this.stops.get(child)
    this.stops.delete(child)
    if (waiting !== undefined) for (const wake of waiting) wake()
  }

  exited(child: Child, reason: ExitReason.ExitReason, cleanup: Open | undefined, report?: CrashReport): void {
    const { generation } = child
    this.children.ended(child, reason, cleanup, report, (reason) => {
      this.system.ready(new Departure(this, child, generation, reason))
    })
  }

  afterExit(child: Child, generation: number, reason: ExitReason.ExitReason): void {
    if (child.generation !== generation || child.status !== "down" || this.ends || this.restarts === undefined) return
    this.doing(this.restarts.decide(child, reason))
  }

  startChild<A>(blueprint: Blueprint, context: Context.Context<never>): Effect.Effect<A, SupervisorError> {
    return Effect.callback((resume) => {
      const settle = resume as (answer: Answer) => void // the ref that the spec's type names
      if (!this.isServing) return settle(Exit.fail(this.stoppedError))
      this.system.ready(new Start(this, blueprint, context, settle))
    })
  }

  start(blueprint: Blueprint, context: Context.Context<never>, settle: (answer: Answer) => void): void {
    const { path } = this
    const problem = blueprint.problem ?? significanceProblem(blueprint, this.settled.autoShutdown, blueprint.id)
    if (problem !== undefined) return settle(Exit.fail(invalid(path, problem)))
    if (!this.isServing) return settle(Exit.fail(this.stoppedError))
    if (this.table.size >= this.limit) {
      return settle(Exit.fail(this.error(new MaxChildren({ supervisor: path, limit: this.limit }))))
    }
    const child = blueprint.make(this, context)
    this.table.add(child)
    const begun = this.children.begin(child)
    if (this.children.cameUp(child, begun)) return settle(Exit.succeed(child.ref))
    const process = this.system.run(this.children.bringUp(child, begun))
    process.addObserver((exit) => {
      if (Exit.isSuccess(exit) && exit.value === undefined) return settle(Exit.succeed(child.ref))
      this.children.retire(child)
      this.gone(child)
      const about = { supervisor: path, child: child.id }
      // what bringUp returns
      const failure = Exit.isSuccess(exit)
        ? (exit.value as ExitReason.ExitReason | typeof ignored)
        : ExitReason.fromExit(exit, false)
      const reason = failure === ignored ? new Ignored(about) : new StartFailed({ ...about, exit: failure })
      settle(Exit.fail(this.error(reason)))
    })
  }

  /** The child of a handle; of anything else there is none. */
  private stranger(child: Child | undefined): SupervisorError | undefined {
    if (child === undefined) {
      return invalid(this.path, { field: "the child", problem: "it is no handle; give what startChild returned" })
    }
    return this.has(child) ? undefined : this.error(new NotFound({ supervisor: this.path, child: child.id }))
  }

  /** The stored spec of a child. */
  childSpec(child: Child): Effect.Effect<ChildSettings, SupervisorError> {
    const refused = this.stranger(child)
    return refused === undefined ? Effect.succeed(settingsOf(child)) : Effect.fail(refused)
  }

  terminateChild(child: Child): Effect.Effect<void, SupervisorError> {
    return Effect.callback((resume) => {
      if (!this.isServing) return resume(Exit.fail(this.stoppedError))
      this.system.post(() => {
        const refused = this.stranger(child)
        if (refused !== undefined) return resume(Exit.fail(refused))
        this.system
          .run(this.end(child))
          .addObserver((exit) => resume(Exit.isSuccess(exit) ? Exit.void : Exit.failCause(exit.cause as never)))
      })
    })
  }

  reconfigure(
    options: CommonOptions & { readonly maxChildren?: number | undefined }
  ): Effect.Effect<void, SupervisorError> {
    return Effect.suspend(() => {
      if (!this.isServing) return Effect.fail(this.stoppedError)
      const { settled } = this
      const { autoShutdown, backoff, giveUp, limits } = settled
      const present = { autoShutdown, backoff, giveUp, intensity: limits, maxChildren: this.limit }
      const plan = dynamicPlanOf(this.path, { ...present, ...options })
      if (plan instanceof SupervisorError) return Effect.fail(plan)
      this.plan = plan
      this.limit = plan.maxChildren
      this.restarts?.intensity.change(plan.limits)
      this.emit({ _tag: "Reconfigured", child: this.id })
      return Effect.void
    })
  }
}

/** A request to start a child, in the run queue. */
class Start implements Runnable {
  nextReady: Runnable | undefined = undefined
  private readonly supervisor: DynamicChild
  private readonly blueprint: Blueprint
  private readonly context: Context.Context<never>
  private readonly settle: (answer: Answer) => void

  constructor(
    supervisor: DynamicChild,
    blueprint: Blueprint,
    context: Context.Context<never>,
    settle: (answer: Answer) => void
  ) {
    this.supervisor = supervisor
    this.blueprint = blueprint
    this.context = context
    this.settle = settle
  }

  turn(): number {
    this.supervisor.start(this.blueprint, this.context, this.settle)
    return 1
  }
}

/** The end of a child, in the run queue. */
class Departure implements Runnable {
  nextReady: Runnable | undefined = undefined
  private readonly supervisor: DynamicChild
  private readonly child: Child
  private readonly generation: number
  private readonly reason: ExitReason.ExitReason

  constructor(supervisor: DynamicChild, child: Child, generation: number, reason: ExitReason.ExitReason) {
    this.supervisor = supervisor
    this.child = child
    this.generation = generation
    this.reason = reason
  }

  turn(): number {
    this.supervisor.afterExit(this.child, this.generation, this.reason)
    return 1
  }
}
