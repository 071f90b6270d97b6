import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as ExitReason from "../ExitReason.ts"
import { Ignored, MaxChildren, NotFound, StartFailed, SupervisorError } from "../SupervisorError.ts"
import { Blueprint, type Child, type Owner, type Settings, ignored } from "./child.ts"
import { type Answer, Overseer, OverseerBlueprint } from "./overseer.ts"
import {
  type CommonOptions,
  type Plan,
  blueprintOf,
  commonOver,
  commonPlan,
  invalid,
  oneOf,
  significanceProblem
} from "./plan.ts"
import { type AnyExit, type Open, type Steps, settled, turn } from "./process.ts"
import { Siblings } from "./siblings.ts"
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
  const strategy = "strategy" in options ? oneOf("strategy", options.strategy, ["one_for_one"]) : undefined
  if (strategy !== undefined) return invalid(supervisor, strategy)
  const common = commonPlan(options)
  if ("field" in common) return invalid(supervisor, common)
  const { maxChildren = Infinity } = options
  if (maxChildren !== Infinity && !(Number.isSafeInteger(maxChildren) && maxChildren >= 0)) {
    const problem = `it is ${String(maxChildren)}; give a whole number from 0, or leave it out for no limit`
    return invalid(supervisor, { field: "maxChildren", problem })
  }
  return { ...common, strategy: "one_for_one", children: [], maxChildren }
}

export class DynamicBlueprint extends OverseerBlueprint<DynamicPlan, DynamicFacade> {
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
  private own: DynamicPlan | SupervisorError
  private readonly facade: DynamicFacade
  private readonly listed = new Siblings()
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
    return this.listed.size
  }

  fits(blueprint: Blueprint): boolean {
    return blueprint instanceof DynamicBlueprint && blueprint.facade === this.facade
  }

  adopt(blueprint: DynamicBlueprint): void {
    this.settings = blueprint.settings
    this.own = blueprint.plan
  }

  override begin(): AnyExit | Open {
    this.plan = this.own
    return super.begin()
  }

  members(): Iterable<Child> {
    return this.listed
  }

  has(child: Child): boolean {
    return child.owner === this && this.listed.has(child)
  }

  forget(child: Child): void {
    this.listed.delete(child)
    if (this.stops.size === 0) return
    const waiting = this.stops.get(child)
    this.stops.delete(child)
    if (waiting !== undefined) for (const wake of waiting) wake()
  }

  later(child: Child, token: object, work: () => Verdict | Steps<Verdict>): void {
    if (this.stops.has(child) || !this.has(child)) {
      // somebody asked for its end while it was being started again
      this.children.retire(child)
      return this.forget(child)
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
    this.listed.clear()
    this.stops.clear()
    if (!(this.own instanceof SupervisorError)) this.limit = this.own.maxChildren
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
    for (const child of Array.from(this.listed)) {
      if (!this.children.stopNow(child)) {
        const process = this.system.run(this.end(child))
        if (process.pollUnsafe() === undefined) open.push(process)
      }
      if (++stopped % childrenPerTurn === 0) yield turn
    }
    for (const process of open) yield* settled(this.system, process, Duration.infinity)
    this.listed.clear()
  }

  private *end(child: Child): Steps<void> {
    if (this.children.stopNow(child)) return this.forget(child)
    this.children.abortStart(child)
    if (this.stops.has(child) || child.status === "starting") {
      const others = this.stops.get(child) ?? []
      this.stops.set(child, others)
      yield (wake) => others.push(wake)
      return
    }
    this.stops.set(child, [])
    yield* this.children.stop(child)
    this.forget(child)
  }

  gone(child: Child, generation: number, reason: ExitReason.ExitReason): void {
    // a child that is only to be forgotten needs no turn, since nothing else is run
    if (child.settings.restart === "temporary" && !child.settings.significant && ExitReason.isClean(reason)) {
      this.afterExit(child, generation, reason)
    } else {
      this.system.ready(new Departure(this, child, generation, reason))
    }
  }

  afterExit(child: Child, generation: number, reason: ExitReason.ExitReason): void {
    if (child.generation !== generation || child.status !== "down" || this.ends || this.restarts === undefined) return
    this.doing(this.restarts.decide(child, reason))
  }

  /** Starts a child: the answer, or the start that is still going on. */
  start(spec: unknown, context: Context.Context<never>): Answer | Start {
    const { path } = this
    const blueprint = blueprintOf(spec, "spec")
    if (!(blueprint instanceof Blueprint)) return Exit.fail(invalid(path, blueprint))
    const problem = blueprint.settings.significant
      ? significanceProblem(blueprint, this.settled.autoShutdown, blueprint.id)
      : undefined
    if (problem !== undefined) return Exit.fail(invalid(path, problem))
    if (!this.isServing) return Exit.fail(this.stoppedError)
    if (this.listed.size >= this.limit) {
      return Exit.fail(this.error(new MaxChildren({ supervisor: path, limit: this.limit })))
    }
    const child = blueprint.make(this, context)
    this.listed.add(child)
    const begun = this.children.begin(child)
    if (this.children.cameUp(child, begun)) return Exit.succeed(child.ref)
    return new Start(child, this.system.run(this.children.bringUp(child, begun)))
  }

  /** The answer of a start that went on. */
  started(child: Child, exit: AnyExit): Answer {
    if (Exit.isSuccess(exit) && exit.value === undefined) return Exit.succeed(child.ref)
    this.children.retire(child)
    this.forget(child)
    const about = { supervisor: this.path, child: child.id }
    // what bringUp returns
    const failure = Exit.isSuccess(exit)
      ? (exit.value as ExitReason.ExitReason | typeof ignored)
      : ExitReason.fromExit(exit, false)
    return Exit.fail(
      this.error(failure === ignored ? new Ignored(about) : new StartFailed({ ...about, exit: failure }))
    )
  }

  /** Why a handle is not one of a child here; what is no handle at all has no child. */
  notFound(child: Child | undefined, generation = child?.generation): SupervisorError | undefined {
    if (child === undefined) {
      return invalid(this.path, { field: "the child", problem: "it is no handle; give what startChild returned" })
    }
    const isHere = this.has(child) && child.generation === generation
    return isHere ? undefined : this.error(new NotFound({ supervisor: this.path, child: child.id }))
  }

  terminateChild(child: Child, generation?: number): Effect.Effect<void, SupervisorError> {
    return Effect.callback((resume) => {
      if (!this.isServing) return resume(Exit.fail(this.stoppedError))
      this.system.post(() => {
        const refused = this.notFound(child, generation)
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
      const { maxChildren = this.limit } = options
      const plan = dynamicPlanOf(this.path, { ...options, ...commonOver(this.settled, options), maxChildren })
      if (plan instanceof SupervisorError) return Effect.fail(plan)
      this.plan = plan
      this.limit = plan.maxChildren
      this.restarts?.intensity.change(plan.limits)
      this.emit({ _tag: "Reconfigured", child: this.id })
      return Effect.void
    })
  }
}

/** A start that goes on. */
class Start {
  readonly child: Child
  readonly process: Open

  constructor(child: Child, process: Open) {
    this.child = child
    this.process = process
  }
}

/** A request to start a child, as an effect. Children are started by the thousands, so it is no chain of smaller ones. */
export interface StartChild extends Effect.Effect<unknown, SupervisorError> {
  readonly supervisor: DynamicChild
  readonly spec: unknown
  readonly context: Context.Context<never> | undefined
}

/** The child lives in the context that is given, else in that of the fiber that starts it. */
export const StartChild = function (
  this: { -readonly [K in "supervisor" | "spec" | "context"]: StartChild[K] },
  supervisor: DynamicChild,
  spec: unknown,
  context?: Context.Context<never>
) {
  this.supervisor = supervisor
  this.spec = spec
  this.context = context
} as unknown as new (...args: [supervisor: DynamicChild, spec: unknown, context?: Context.Context<never>]) => StartChild // a class could not take this prototype

StartChild.prototype = Effectable.Prototype<StartChild>({
  label: "StartChild",
  evaluate(fiber) {
    const { spec, supervisor } = this
    const { system } = supervisor
    const request = new Requested(supervisor, spec, this.context ?? system.detach(fiber.context))
    if (system.isIdle) system.inside(request.turn, request)
    else system.ready(request)
    return request.answer ?? Effect.callback((resume) => request.settleWith(resume))
  }
})

/** A request to start a child, in the run queue. */
class Requested implements Runnable {
  nextReady: Runnable | undefined = undefined
  answer: Answer | undefined = undefined
  private readonly supervisor: DynamicChild
  private readonly spec: unknown
  private readonly context: Context.Context<never>
  private settle: ((answer: Answer) => void) | undefined = undefined

  constructor(supervisor: DynamicChild, spec: unknown, context: Context.Context<never>) {
    this.supervisor = supervisor
    this.spec = spec
    this.context = context
  }

  turn(): number {
    const { supervisor } = this
    const started = supervisor.start(this.spec, this.context)
    if (started instanceof Start)
      started.process.addObserver((exit) => this.done(supervisor.started(started.child, exit)))
    else this.done(started)
    return 1
  }

  settleWith(settle: (answer: Answer) => void): void {
    if (this.answer === undefined) this.settle = settle
    else settle(this.answer)
  }

  private done(answer: Answer): void {
    this.answer = answer
    this.settle?.(answer)
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
