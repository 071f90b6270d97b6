import * as ExitReason from "../ExitReason.ts"
import * as RestartIntensity from "../RestartIntensity.ts"
import { MaxRestartsExceeded, type RestartRecord, SupervisorError } from "../SupervisorError.ts"
import type { Child } from "./child.ts"
import type { Children, Site } from "./children.ts"
import { timeOf } from "./eventHub.ts"
import type { Plan } from "./plan.ts"
import type { Steps } from "./supervisorInbox.ts"

const historyLength = 32

/** What one life of a supervisor does about children that end by themselves, and how often it has done it. */
export class Restarts {
  private readonly site: Site
  private readonly children: Children
  private readonly plan: Plan
  /** Has a restart tried again, behind whatever else already waits. */
  private readonly retry: (child: Child, failure: ExitReason.ExitReason) => void
  private readonly intensity: RestartIntensity.RestartIntensity
  private readonly history: Array<RestartRecord> = []

  constructor(
    site: Site,
    children: Children,
    plan: Plan,
    retry: (child: Child, failure: ExitReason.ExitReason) => void
  ) {
    this.site = site
    this.children = children
    this.plan = plan
    this.retry = retry
    this.intensity = RestartIntensity.make(plan.limits)
  }

  /** Brings the child back if its spec says so. The error is why the supervisor gives up instead. */
  *decide(child: Child, reason: ExitReason.ExitReason): Steps<SupervisorError | undefined> {
    const { restart } = child.settings
    if (restart === "permanent" || (restart === "transient" && !ExitReason.isClean(reason))) {
      return yield* this.restart(child, reason)
    }
    this.children.retire(child)
    return undefined
  }

  *restart(child: Child, reason: ExitReason.ExitReason): Steps<SupervisorError | undefined> {
    this.remember(child, reason)
    if (!this.intensity.spend(Math.floor(this.site.system.now()))) return this.giveUp(child, reason)
    const group = yield* this.prepare(child)
    for (const member of group) {
      if (this.site.stopping) return undefined
      const failure = yield* this.children.bringUp(member)
      if (failure === undefined) continue
      member.status = "restarting"
      for (const later of group.slice(group.indexOf(member) + 1)) this.children.retire(later)
      this.retry(member, failure)
      return undefined
    }
    this.site.emit({ _tag: "ChildRestarted", child: child.id, generation: child.generation })
    return undefined
  }

  /** Stops what the strategy drags along, in reverse start order, and lists what is to be started, in start order. */
  private *prepare(child: Child): Steps<ReadonlyArray<Child>> {
    if (this.plan.strategy === "one_for_one") return [child]
    const { table } = this.children
    const all = Array.from(table.values())
    const group = this.plan.strategy === "one_for_all" ? all : all.slice(all.indexOf(child))
    for (const member of group.toReversed()) {
      if (member !== child) yield* this.children.takeDown(member)
      if (member.settings.restart === "temporary") this.children.retire(member)
    }
    return group.filter((member) => table.has(member.id))
  }

  private giveUp(child: Child, reason: ExitReason.ExitReason): SupervisorError {
    this.site.emit({ _tag: "GaveUp", child: child.id, exit: reason })
    this.children.table.delete(child.id)
    this.children.retire(child)
    const { restarts, within } = this.plan.limits
    const about = { supervisor: this.site.path, child: child.id, restarts, within, history: this.history }
    return new SupervisorError({ reason: new MaxRestartsExceeded(about) })
  }

  private remember(child: Child, exit: ExitReason.ExitReason): void {
    if (this.history.length >= historyLength) this.history.shift()
    this.history.push({ child: child.id, exit, time: timeOf(this.site.system.clock.currentTimeMillisUnsafe()) })
  }
}
