import type * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import {
  AlreadyPresent,
  AlreadyStarted,
  NotFound,
  Restarting,
  Running,
  StartFailed,
  SupervisorError,
  type SupervisorErrorReason
} from "../SupervisorError.ts"
import type { Blueprint, Child } from "./child.ts"
import type { Children, Site } from "./children.ts"
import type { Answer, Steps } from "./supervisorInbox.ts"

/** The requests that change a supervisor's table of children. Each runs as one step of the supervisor. */
export class Administration {
  private readonly site: Site
  private readonly children: Children

  constructor(site: Site, children: Children) {
    this.site = site
    this.children = children
  }

  *startChild(blueprint: Blueprint, context: Context.Context<never>): Steps<Answer> {
    const { table } = this.children
    const { id } = blueprint
    const known = table.get(id)
    if (known !== undefined) {
      const about = { supervisor: this.site.path, child: id }
      return refused(known.status === "up" ? new AlreadyStarted(about) : new AlreadyPresent(about))
    }
    const child = blueprint.make(this.site, context)
    table.set(id, child)
    const exit = yield* this.children.bringUp(child)
    if (exit === undefined) return Exit.succeed(child.ref)
    table.delete(id)
    child.release()
    return refused(new StartFailed({ supervisor: this.site.path, child: id, exit }))
  }

  *terminateChild(id: string): Steps<Answer> {
    const child = this.children.table.get(id)
    if (child === undefined) return this.unknown(id)
    yield* this.children.stop(child)
    return Exit.void
  }

  *restartChild(id: string): Steps<Answer> {
    const child = this.children.table.get(id)
    if (child === undefined) return this.unknown(id)
    if (child.status !== "stopped") return this.busy(child)
    const exit = yield* this.children.bringUp(child)
    if (exit === undefined) return Exit.void
    child.release()
    return refused(new StartFailed({ supervisor: this.site.path, child: id, exit }))
  }

  *deleteChild(id: string): Steps<Answer> {
    const child = this.children.table.get(id)
    if (child === undefined) return this.unknown(id)
    if (child.status !== "stopped") return this.busy(child)
    this.children.table.delete(id)
    return Exit.void
  }

  private unknown(id: string): Answer {
    return refused(new NotFound({ supervisor: this.site.path, child: id }))
  }

  private busy(child: Child): Answer {
    const about = { supervisor: this.site.path, child: child.id }
    return refused(child.status === "restarting" ? new Restarting(about) : new Running(about))
  }
}

const refused = (reason: SupervisorErrorReason): Answer => Exit.fail(new SupervisorError({ reason }))
