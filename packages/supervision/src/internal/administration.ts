import type * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import {
  AlreadyPresent,
  AlreadyStarted,
  Ignored,
  NotFound,
  Restarting,
  Running,
  StartFailed,
  SupervisorError,
  type SupervisorErrorReason
} from "../SupervisorError.ts"
import { type Blueprint, type Child, ignored } from "./child.ts"
import type { Children, Site } from "./children.ts"
import type { Answer } from "./overseer.ts"
import {
  type Plan,
  type SupervisorOptions,
  blueprintsOf,
  commonOver,
  commonPlan,
  invalid,
  oneOf,
  significanceProblem
} from "./plan.ts"
import type { Steps } from "./process.ts"
import type { Restarts } from "./restarts.ts"

/** The supervisor whose table is administrated. */
interface Administrated extends Site {
  plan: Plan | SupervisorError
  readonly settled: Plan
  readonly table: Map<string, Child>
  readonly children: Children
  readonly restarts: Restarts | undefined
}

/** The requests that change a supervisor's table of children. Each runs as one step of the supervisor. */
export class Administration {
  private readonly site: Administrated

  constructor(site: Administrated) {
    this.site = site
  }

  *startChild(blueprint: Blueprint, context: Context.Context<never>): Steps<Answer> {
    const { children, path, settled, table } = this.site
    const { id } = blueprint
    const about = { supervisor: path, child: id }
    const problem = blueprint.problem ?? significanceProblem(blueprint, settled.autoShutdown, id)
    if (problem !== undefined) return Exit.fail(invalid(path, problem))
    const known = table.get(id)
    if (known !== undefined)
      return refused(known.status === "up" ? new AlreadyStarted(about) : new AlreadyPresent(about))
    const child = blueprint.make(this.site, context)
    table.set(id, child)
    const failure = yield* children.bringUp(child)
    if (failure === undefined) return Exit.succeed(child.ref)
    const stays = failure === ignored && child.settings.restart !== "temporary"
    if (!stays) table.delete(id)
    children.retire(child)
    return refused(failure === ignored ? new Ignored(about) : new StartFailed({ ...about, exit: failure }))
  }

  *terminateChild(id: string): Steps<Answer> {
    const { children, table } = this.site
    const child = table.get(id)
    if (child === undefined) return this.unknown(id)
    yield* children.stop(child)
    if (child.settings.restart === "temporary") table.delete(id)
    return Exit.void
  }

  *restartChild(id: string): Steps<Answer> {
    const { children, path, table } = this.site
    const child = table.get(id)
    if (child === undefined) return this.unknown(id)
    if (child.status !== "stopped") return this.busy(child)
    const failure = yield* children.bringUp(child)
    if (failure === undefined) return Exit.succeed(child.ref)
    children.retire(child)
    const about = { supervisor: path, child: id }
    return refused(failure === ignored ? new Ignored(about) : new StartFailed({ ...about, exit: failure }))
  }

  *deleteChild(id: string): Steps<Answer> {
    const { table } = this.site
    const child = table.get(id)
    if (child === undefined) return this.unknown(id)
    if (child.status !== "stopped") return this.busy(child)
    table.delete(id)
    return Exit.void
  }

  /**
   * Takes new options and specs, or none of them. Running children go on with what they were started with; a spec that is
   * new is listed and not started; a child whose spec is missing stays.
   */
  *reconfigure(
    options: Partial<SupervisorOptions<ReadonlyArray<unknown>>>,
    context: Context.Context<never>
  ): Steps<Answer> {
    const { path, restarts, settled, table } = this.site
    const common = commonPlan(commonOver(settled, options))
    if ("field" in common) return Exit.fail(invalid(path, common))
    const problem = oneOf("strategy", options.strategy, ["one_for_one", "one_for_all", "rest_for_one"])
    if (problem !== undefined) return Exit.fail(invalid(path, problem))
    const blueprints = blueprintsOf(options.children ?? [], common.autoShutdown)
    if ("field" in blueprints) return Exit.fail(invalid(path, blueprints))
    for (const [index, blueprint] of blueprints.entries()) {
      const { flaw, id, kind } = blueprint
      if (flaw !== undefined) return Exit.fail(flaw)
      const known = table.get(id)
      if (known === undefined || known.fits(blueprint)) continue
      const other = known.kind === kind ? `another ${kind} than the child "${id}"` : `no ${known.kind} like "${id}"`
      const problem = `it is ${other}; delete that child first`
      return Exit.fail(invalid(path, { field: `children[${index}]`, problem }))
    }
    this.site.plan = { ...common, strategy: options.strategy ?? settled.strategy, children: settled.children }
    restarts?.intensity.change(common.limits)
    for (const blueprint of blueprints) {
      const known = table.get(blueprint.id)
      if (known !== undefined) {
        known.adopt(blueprint)
        known.rare.adopted = context
        continue
      }
      const child = blueprint.make(this.site, context)
      child.status = "stopped"
      table.set(child.id, child)
    }
    this.site.emit({ _tag: "Reconfigured", child: path.slice(path.lastIndexOf("/") + 1) })
    return Exit.void
  }

  private unknown(id: string): Answer {
    return refused(new NotFound({ supervisor: this.site.path, child: String(id) }))
  }

  private busy(child: Child): Answer {
    const about = { supervisor: this.site.path, child: child.id }
    return refused(child.status === "restarting" ? new Restarting(about) : new Running(about))
  }
}

const refused = (reason: SupervisorErrorReason): Answer => Exit.fail(new SupervisorError({ reason }))
