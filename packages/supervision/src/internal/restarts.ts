import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import type { Backoff } from "../Backoff.ts"
import type { Decision } from "../Decision.ts"
import * as ExitReason from "../ExitReason.ts"
import * as RestartIntensity from "../RestartIntensity.ts"
import {
  ChildGivenUp,
  Escalated,
  MaxRestartsExceeded,
  type RestartRecord,
  SupervisorError,
  type SupervisorErrorReason
} from "../SupervisorError.ts"
import { type Child, ignored } from "./child.ts"
import type { Children, Site } from "./children.ts"
import { timeOf } from "./eventHub.ts"
import type { Plan } from "./plan.ts"
import { type AnyExit, type Open, type Steps } from "./process.ts"

const historyLength = 32

/** Why a supervisor ends, if it does. */
export type Verdict = ExitReason.ExitReason | undefined

/** A supervisor's books, as its restarts see them. */
export interface Roster {
  readonly settled: Plan
  readonly members: () => Iterable<Child>
  readonly has: (child: Child) => boolean
  readonly forget: (child: Child) => void
  /** Does these steps after everything that waits already, so that a loop of restarts leaves room for requests. */
  readonly later: (child: Child, token: object, work: () => Verdict | Steps<Verdict>) => void
  /** Whether a child that is not running stays listed. */
  readonly keepsStopped: boolean
}

/** The steps of work that may have been done already. */
export function* steps(work: Verdict | Steps<Verdict>): Steps<Verdict> {
  return isSteps(work) ? yield* work : work
}

export const isSteps = (work: Verdict | Steps<Verdict>): work is Steps<Verdict> => work !== undefined && "next" in work

interface Crashed {
  readonly child: string
  readonly exit: ExitReason.ExitReason
  readonly millis: number
}

/** What one life of a supervisor does about children that end by themselves, and how often it has done it. */
export class Restarts {
  private readonly site: Site
  private readonly children: Children
  private readonly roster: Roster
  readonly intensity: RestartIntensity.RestartIntensity
  private readonly crashes: Array<Crashed> = []
  private oldest = 0

  constructor(site: Site, children: Children, roster: Roster) {
    this.site = site
    this.children = children
    this.roster = roster
    this.intensity = RestartIntensity.make(roster.settled.limits)
  }

  /** A child ended by itself: brings it back if its spec says so. Whatever has to wait is left as steps to be done. */
  decide(child: Child, reason: ExitReason.ExitReason): Verdict | Steps<Verdict> {
    const { restart } = child.settings
    const decision = ExitReason.isClean(reason) ? "restart" : this.decision(child, reason)
    if (decision === "escalate") {
      return this.giveUp(child, reason, new Escalated({ supervisor: this.site.path, child: child.id, exit: reason }))
    }
    const comesBack = restart === "permanent" || (restart === "transient" && !ExitReason.isClean(reason))
    if (comesBack && decision !== "stop") {
      this.afterQuiet(child)
      return this.restart(child, reason)
    }
    return this.drop(child)
  }

  private decision(child: Child, reason: ExitReason.ExitReason): Decision {
    const { extras } = child
    const { decide } = child.settings
    const taken = extras?.decision
    if (extras !== undefined) extras.decision = undefined
    if (taken !== undefined) return taken
    if (decide === undefined || reason._tag !== "Crash") return "restart"
    return this.site.system.attempt(this.site.path, child.id, "decide", () => decide(reason), "restart")
  }

  /** The child stays down for good, which may be what its supervisor waited for. */
  private drop(child: Child): Verdict {
    if (child.settings.restart === "temporary" || !this.roster.keepsStopped) this.roster.forget(child)
    this.children.retire(child)
    if (!child.settings.significant) return undefined
    const { autoShutdown } = this.roster.settled
    if (autoShutdown === "never") return undefined
    if (autoShutdown === "all_significant") {
      for (const member of this.roster.members()) {
        if (member.settings.significant && member.status !== "stopped") return undefined
      }
    }
    this.site.emit({ _tag: "AutoShutdown", child: child.id })
    return ExitReason.shutdown
  }

  private restart(child: Child, reason: ExitReason.ExitReason): Verdict | Steps<Verdict> {
    const { budget } = child.settings
    this.remember(child, reason)
    if (budget !== undefined) {
      const { rare } = child
      const own = (rare.budget ??= RestartIntensity.make(budget.limits))
      if (!own.spend(this.now)) return this.givenUp(child, reason, budget.limits.restarts)
    }
    const backoff = child.settings.backoff ?? this.roster.settled.backoff
    if (backoff !== undefined && backoff !== "none") return this.withBackoff(child, reason, backoff)
    if (!this.intensity.spend(this.now)) return this.exceeded(child, reason)
    return this.attempt(child)
  }

  private get now(): number {
    return Math.floor(this.site.system.now())
  }

  private exceeded(child: Child, reason: ExitReason.ExitReason): Verdict {
    const { restarts, within } = this.roster.settled.limits
    const about = { supervisor: this.site.path, child: child.id, restarts, within, history: this.history() }
    return this.giveUp(child, reason, new MaxRestartsExceeded(about))
  }

  private *withBackoff(child: Child, reason: ExitReason.ExitReason, backoff: Backoff): Steps<Verdict> {
    const delay = yield* this.nextDelay(child, backoff, reason)
    if (!this.roster.has(child) || this.site.stopping) return undefined
    if (delay === undefined) return this.givenUp(child, reason, child.rare.attempts)
    if (!this.intensity.spend(this.now)) return this.exceeded(child, reason)
    if (Duration.toMillis(delay) <= 0) return yield* steps(this.attempt(child))
    const { attempts } = child.rare
    this.site.emit({ _tag: "RestartDelayed", child: child.id, delay, attempt: attempts })
    for (const member of yield* this.prepare(child)) if (member !== child) this.children.retire(member)
    child.status = "restarting"
    const token = { cancel: () => timer?.cancel() }
    const timer = this.site.system.timer(delay, () => this.roster.later(child, token, () => this.attempt(child)))
    child.rare.retry = token
    return undefined
  }

  private attempt(child: Child): Verdict | Steps<Verdict> {
    if (!this.roster.has(child)) return undefined
    const { rare } = child
    rare.retry = undefined
    rare.restarts++
    if (this.roster.settled.strategy !== "one_for_one") return this.restartGroup(child)
    const begun = this.children.begin(child)
    if (!this.children.cameUp(child, begun)) return this.restartAll(child, [child], begun)
    this.restarted(child)
    return undefined
  }

  private restarted(child: Child): void {
    if (child.status === "up") this.site.emit({ _tag: "ChildRestarted", child: child.id, generation: child.generation })
  }

  private *restartGroup(child: Child): Steps<Verdict> {
    const group = yield* this.prepare(child)
    return yield* this.restartAll(child, group, undefined)
  }

  /** Starts what a crash has taken down, in order. The first may have begun already. */
  private *restartAll(child: Child, group: ReadonlyArray<Child>, begun: AnyExit | Open | undefined): Steps<Verdict> {
    for (const [index, member] of group.entries()) {
      if (this.site.stopping) return undefined
      const failure = yield* this.children.bringUp(member, index === 0 ? begun : undefined)
      if (failure === undefined) continue
      if (failure === ignored) {
        if (!this.roster.keepsStopped || member.settings.restart === "temporary") this.roster.forget(member)
        this.children.retire(member)
        continue
      }
      member.status = "restarting"
      for (const later of group.slice(index + 1)) this.children.retire(later)
      const token = { cancel: () => {} }
      member.rare.retry = token
      this.roster.later(member, token, () => this.restart(member, failure))
      return undefined
    }
    this.restarted(child)
    return undefined
  }

  /** Stops what the strategy drags along, in reverse start order, and lists what is to be started, in start order. */
  private *prepare(child: Child): Steps<ReadonlyArray<Child>> {
    const { roster } = this
    const { strategy } = roster.settled
    if (strategy === "one_for_one") return [child]
    const all = Array.from(roster.members())
    const group = strategy === "one_for_all" ? all : all.slice(all.indexOf(child))
    for (const member of group.toReversed()) {
      if (member !== child) yield* this.children.takeDown(member)
      if (member.settings.restart !== "temporary" || member === child) continue
      roster.forget(member)
      this.children.retire(member)
    }
    return group.filter((member) => roster.has(member))
  }

  /** A child that was up for long enough begins its delays anew. */
  private afterQuiet(child: Child): void {
    const { extras } = child
    const backoff = child.settings.backoff ?? this.roster.settled.backoff
    if (extras === undefined || backoff === undefined || backoff === "none") return
    if (this.site.system.now() - child.since < Duration.toMillis(backoff.resetAfter)) return
    extras.attempts = 0
    extras.next = undefined
  }

  private *nextDelay(
    child: Child,
    backoff: Backoff,
    reason: ExitReason.ExitReason
  ): Steps<Duration.Duration | undefined> {
    const { rare } = child
    const { clock } = this.site.system
    rare.attempts++
    if (rare.next === undefined) {
      const stepped = yield* this.run(child, Schedule.toStep(backoff.schedule))
      if (Exit.isFailure(stepped)) return this.broken(child, stepped.cause)
      const step = stepped.value
      rare.next = function* (this: Restarts, reason: ExitReason.ExitReason): Steps<Duration.Duration | undefined> {
        const exit = yield* this.run(child, step(clock.currentTimeMillisUnsafe(), reason))
        if (Exit.isSuccess(exit)) return exit.value[1]
        return exit.cause.reasons.some((reason) => Cause.isFailReason(reason) && Cause.isDone(reason.error))
          ? undefined
          : this.broken(child, exit.cause)
      }.bind(this)
    }
    return yield* rare.next(reason)
  }

  /** Runs a part of a schedule, for no longer than a start may take, and not while its child is to stop. */
  private *run<A, E>(child: Child, effect: Effect.Effect<A, E>): Steps<Exit.Exit<A, E>> {
    const fiber = this.site.system.fork(child.context, effect)
    const exit = fiber.pollUnsafe() ?? (yield* this.children.outcome(child, fiber, "backoff"))
    fiber.interruptUnsafe()
    return exit as Exit.Exit<A, E> // the fiber's own exit, which a step only knows as some exit
  }

  /** A schedule that fails costs the delay and not the restart. */
  private broken(child: Child, cause: Cause.Cause<unknown>): Duration.Duration {
    const exit = ExitReason.fromExit(Exit.failCause(cause) as AnyExit, false)
    this.site.emit({ _tag: "CallbackFailed", child: child.id, callback: "backoff", exit })
    return Duration.zero
  }

  /** The child has used up what its own spec allows. */
  private givenUp(child: Child, reason: ExitReason.ExitReason, attempts: number): Verdict {
    if (child.settings.budget?.exceeded === "stop") {
      this.site.emit({ _tag: "ChildGivenUp", child: child.id, exit: reason })
      return this.drop(child)
    }
    const about = { supervisor: this.site.path, child: child.id, attempts, history: this.history() }
    return this.giveUp(child, reason, new ChildGivenUp(about))
  }

  private giveUp(child: Child, reason: ExitReason.ExitReason, why: SupervisorErrorReason): Verdict {
    this.site.emit({ _tag: "GaveUp", child: child.id, exit: reason })
    this.roster.forget(child)
    this.children.retire(child)
    if (this.roster.settled.giveUp === "shutdown") return ExitReason.shutdown
    return ExitReason.fromExit(Exit.fail(new SupervisorError({ reason: why })), false)
  }

  private remember(child: Child, exit: ExitReason.ExitReason): void {
    const crashed = { child: child.id, exit, millis: this.site.system.clock.currentTimeMillisUnsafe() }
    if (this.crashes.length < historyLength) {
      this.crashes.push(crashed)
    } else {
      this.crashes[this.oldest] = crashed
      this.oldest = (this.oldest + 1) % historyLength
    }
  }

  private history(): ReadonlyArray<RestartRecord> {
    const crashes = [...this.crashes.slice(this.oldest), ...this.crashes.slice(0, this.oldest)]
    return crashes.map(({ child, exit, millis }) => ({ child, exit, time: timeOf(millis) }))
  }
}
