import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as ExitReason from "../ExitReason.ts"
import { StartFailed, SupervisorError } from "../SupervisorError.ts"
import { Administration } from "./administration.ts"
import { Blueprint, type Child, type Owner, type Settings, ignored } from "./child.ts"
import { type Answer, Overseer, OverseerBlueprint } from "./overseer.ts"
import type { Plan } from "./plan.ts"
import { type AnyExit, type Open, type Steps, turn } from "./process.ts"
import { Restarts, type Roster, type Verdict, isSteps, steps } from "./restarts.ts"
import { makeSupervisorRef } from "./supervisorRef.ts"
import type { System } from "./system.ts"

/** How the ref of a supervisor looks to those who have it. */
export type Facade = (supervisor: SupervisorChild) => unknown

export class SupervisorBlueprint extends OverseerBlueprint<Plan, Facade> {
  override with(settings: Settings, id = this.id): Blueprint {
    return new SupervisorBlueprint(id, settings, this.problem, this.plan, this.facade)
  }

  override make(owner: Owner, context: Context.Context<never>): Child {
    return new SupervisorChild(owner, this, context, owner.system)
  }
}

const messagesPerTurn = 256

type Inbound =
  | {
      readonly kind: "exit"
      readonly child: Child
      readonly generation: number
      readonly reason: ExitReason.ExitReason
    }
  | {
      readonly kind: "later"
      readonly child: Child
      readonly token: object
      readonly work: () => Verdict | Steps<Verdict>
    }
  | Request

interface Request {
  readonly kind: "request"
  readonly run: () => Steps<Answer>
  readonly settle: (answer: Answer) => void
  withdrawn: boolean
}

/**
 * A supervisor with a list of children. It takes exits, retries and requests one by one from an inbox: whatever happens to a
 * child only enqueues here, so the table of children is never changed from inside somebody else's step.
 */
export class SupervisorChild extends Overseer implements Roster {
  readonly table = new Map<string, Child>()
  readonly administration = new Administration(this)
  readonly keepsStopped = true
  restarts: Restarts | undefined = undefined
  private readonly facade: Facade
  listed: ReadonlyArray<Child>
  private own: Plan | SupervisorError
  private blueprints: ReadonlyArray<Blueprint>
  private inbox: Array<Inbound> = []
  private taken = 0

  constructor(
    owner: Owner | undefined,
    blueprint: SupervisorBlueprint,
    context: Context.Context<never>,
    system: System
  ) {
    super(owner, blueprint, blueprint.plan, context, system)
    this.facade = blueprint.facade
    this.own = blueprint.plan
    this.blueprints = blueprint.plan instanceof SupervisorError ? [] : blueprint.plan.children
    this.listed = this.blueprints.map((child) => child.make(this, context))
  }

  get ref(): unknown {
    return this.facade(this)
  }

  fits(blueprint: Blueprint): boolean {
    return blueprint instanceof SupervisorBlueprint && blueprint.facade === this.facade
  }

  /** Its options are those of its next life; `reconfigure` changes the present one. */
  adopt(blueprint: SupervisorBlueprint): void {
    this.settings = blueprint.settings
    this.own = blueprint.plan
  }

  override begin(): AnyExit | Open {
    this.plan = this.own
    return super.begin()
  }

  members(): Iterable<Child> {
    return this.table.values()
  }

  has(child: Child): boolean {
    return this.table.get(child.id) === child
  }

  forget(child: Child): void {
    if (this.has(child)) this.table.delete(child.id)
  }

  later(child: Child, token: object, work: () => Verdict | Steps<Verdict>): void {
    this.system.soon(() => this.send({ kind: "later", child, token, work }))
  }

  private send(message: Inbound): void {
    this.inbox.push(message)
    this.notify()
  }

  private take(): Inbound | undefined {
    const message = this.inbox[this.taken]
    if (message === undefined) return undefined
    if (++this.taken === this.inbox.length) {
      this.inbox = []
      this.taken = 0
    }
    return message
  }

  protected *startAll(): Steps<Exit.Exit<never, SupervisorError> | undefined> {
    this.table.clear()
    this.inbox = []
    this.taken = 0
    this.listAnew()
    for (const [index, child] of this.listed.entries()) {
      const blueprint = this.blueprints[index]
      if (blueprint !== undefined) child.adopt(blueprint)
      if (child.extras !== undefined) child.extras.adopted = undefined
      // what it had used up of its own allowance belongs to the life before
      child.progress()
      child.context = this.context
      child.status = "starting"
      this.table.set(child.id, child)
    }
    for (const child of this.listed) {
      const failure = yield* this.children.bringUp(child)
      if (this.stopping) return Exit.fail(this.stoppedError)
      if (failure === undefined) continue
      if (failure === ignored) {
        if (child.settings.restart === "temporary") this.forget(child)
        this.children.retire(child)
        continue
      }
      this.verdict = failure
      return Exit.fail(this.error(new StartFailed({ supervisor: this.path, child: child.id, exit: failure })))
    }
    return undefined
  }

  /** Another spec may list other children. Those that stay in the list keep their handles. */
  private listAnew(): void {
    const { children } = this.settled
    if (children === this.blueprints) return
    const known = new Map(this.listed.map((child) => [child.id, child]))
    this.blueprints = children
    this.listed = children.map((blueprint) => {
      const child = known.get(blueprint.id)
      return child?.fits(blueprint) === true ? child : blueprint.make(this, this.context)
    })
  }

  protected *serve(): Steps<void> {
    const restarts = new Restarts(this, this.children, this)
    this.restarts = restarts
    let handled = 0
    while (!this.ends) {
      const message = this.take()
      if (message === undefined) {
        yield this.idle
        continue
      }
      if (++handled % messagesPerTurn === 0) yield turn
      if (message.kind === "request") {
        if (!message.withdrawn) message.settle(yield* message.run())
      } else if (message.kind === "later") {
        const { child, token, work } = message
        if (child.extras?.retry === token) this.conclude(yield* steps(work()))
      } else if (message.generation === message.child.generation && message.child.status === "down") {
        const work = restarts.decide(message.child, message.reason)
        this.conclude(isSteps(work) ? yield* work : work)
      }
    }
  }

  protected *stopAll(): Steps<void> {
    let stopped = 0
    for (const child of Array.from(this.table.values()).toReversed()) {
      yield* this.children.stop(child)
      if (child.settings.restart === "temporary") this.forget(child)
      if (++stopped % messagesPerTurn === 0) yield turn
    }
    for (let message = this.take(); message !== undefined; message = this.take()) {
      if (message.kind === "request") message.settle(Exit.fail(this.stoppedError))
    }
  }

  gone(child: Child, generation: number, reason: ExitReason.ExitReason): void {
    this.send({ kind: "exit", child, generation, reason })
  }

  /** Queues a request. `ends` names the child that it is about to end. */
  request<A>(run: () => Steps<Answer>, ends?: string): Effect.Effect<A, SupervisorError> {
    return Effect.callback((resume) => {
      const settle = resume as (answer: Answer) => void // each request answers with what the ref's method promises
      const itself = this.asksItself
      if (itself !== undefined) return settle(Exit.fail(itself))
      if (!this.isServing) return settle(Exit.fail(this.stoppedError))
      const request: Request = { kind: "request", run, settle, withdrawn: false }
      this.send(request)
      const starting = ends === undefined ? undefined : this.table.get(ends)
      if (starting !== undefined) this.children.abortStart(starting)
      return Effect.sync(() => {
        request.withdrawn = true
      })
    })
  }
}

/** The ref of an ordinary supervisor. */
export const plain: Facade = (supervisor) => makeSupervisorRef(supervisor)
