import * as Effect from "effect/Effect"
import type { ChildSpec } from "../ChildSpec.ts"
import type { ExitReason } from "../ExitReason.ts"
import { SupervisorError } from "../SupervisorError.ts"
import type { ChildInfo, SupervisorRef } from "../SupervisorRef.ts"
import type { Administration } from "./administration.ts"
import type { Child } from "./child.ts"
import type { Children } from "./children.ts"
import type { Answer, Steps } from "./supervisorInbox.ts"
import { type System, detached } from "./system.ts"

/** What a ref needs from its supervisor. */
interface Supervisor {
  readonly path: string
  readonly system: System
  readonly children: Children
  readonly administration: Administration
  readonly exit: Effect.Effect<ExitReason>
  /** Queues a request. `ends` names the child that it is about to end. */
  readonly request: <A>(run: () => Steps<Answer>, ends?: string) => Effect.Effect<A, SupervisorError>
}

const statusOf = (child: Child): ChildInfo["status"] => {
  switch (child.status) {
    case "up":
      return "running"
    case "down":
    case "restarting":
      return "restarting"
    case "starting":
      return "starting"
    default:
      return "stopped"
  }
}

export const makeSupervisorRef = (
  supervisor: Supervisor,
  listed: ReadonlyArray<Child>
): SupervisorRef<Record<string, unknown>> => {
  const { administration, path } = supervisor
  const { table } = supervisor.children
  return {
    path,
    refs: Object.fromEntries(listed.map((child) => [child.id, child.ref])),
    startChild: <Id extends string, Ref, R>(spec: ChildSpec<Id, Ref, R>) =>
      Effect.contextWith((context) =>
        supervisor.request<Ref>(() => administration.startChild(spec.blueprint, detached(context)))
      ),
    terminateChild: (id) => supervisor.request(() => administration.terminateChild(id), id),
    restartChild: (id) => supervisor.request(() => administration.restartChild(id)),
    deleteChild: (id) => supervisor.request(() => administration.deleteChild(id)),
    whichChildren: Effect.sync(() =>
      Array.from(table.values())
        .toReversed()
        .map((child) => ({
          id: child.id,
          kind: child.kind,
          status: statusOf(child),
          restart: child.settings.restart,
          generation: child.generation
        }))
    ),
    countChildren: Effect.sync(() => {
      const counts = { specs: 0, active: 0, supervisors: 0, workers: 0 }
      for (const child of table.values()) {
        counts.specs++
        if (child.status === "up") counts.active++
        if (child.kind === "supervisor") counts.supervisors++
        else counts.workers++
      }
      return counts
    }),
    events: supervisor.system.hub.stream(
      (event) => event.supervisor === path || event.supervisor.startsWith(`${path}/`)
    ),
    exit: supervisor.exit,
    join: Effect.flatMap(supervisor.exit, (reason) => {
      if (reason._tag !== "Crash") return Effect.void
      return reason.error instanceof SupervisorError ? Effect.fail(reason.error) : Effect.die(reason.error)
    })
  }
}
