import * as Effect from "effect/Effect"
import type { ChildSpec } from "../ChildSpec.ts"
import { SupervisorError } from "../SupervisorError.ts"
import type { ChildInfo, SupervisorRef } from "../SupervisorRef.ts"
import type { Child } from "./child.ts"
import type { SupervisorChild } from "./supervisorChild.ts"
import { detached } from "./system.ts"

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
  supervisor: SupervisorChild,
  listed: ReadonlyArray<Child>
): SupervisorRef<Record<string, unknown>> => {
  const { path } = supervisor
  return {
    path,
    refs: Object.fromEntries(listed.map((child) => [child.id, child.ref])),
    startChild: <Id extends string, Ref, R>(spec: ChildSpec<Id, Ref, R>) =>
      Effect.contextWith((context) =>
        supervisor.request<Ref>(() => supervisor.startChild(spec.blueprint, detached(context)))
      ),
    terminateChild: (id) => supervisor.request(() => supervisor.terminateChild(id), id),
    restartChild: (id) => supervisor.request(() => supervisor.restartChild(id)),
    deleteChild: (id) => supervisor.request(() => supervisor.deleteChild(id)),
    whichChildren: Effect.sync(() =>
      Array.from(supervisor.children.values())
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
      for (const child of supervisor.children.values()) {
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
