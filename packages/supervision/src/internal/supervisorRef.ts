import * as Effect from "effect/Effect"
import type { ChildSpec } from "../ChildSpec.ts"
import * as ExitReason from "../ExitReason.ts"
import { NotFound, SupervisorError } from "../SupervisorError.ts"
import type { SupervisorRef } from "../SupervisorRef.ts"
import { Blueprint, type Child } from "./child.ts"
import { infoOf } from "./childInfo.ts"
import type { Overseer } from "./overseer.ts"
import { blueprintOf, invalid } from "./plan.ts"
import { snapshotOf } from "./snapshot.ts"
import type { SupervisorChild } from "./supervisorChild.ts"
import { detached } from "./system.ts"
import { TargetId } from "./target.ts"

const countsOf = (children: Iterable<Child>) => {
  const counts = { specs: 0, active: 0, supervisors: 0, workers: 0 }
  for (const child of children) {
    counts.specs++
    if (child.status === "up") counts.active++
    if (child.kind === "supervisor") counts.supervisors++
    else counts.workers++
  }
  return counts
}

/** What the refs of all kinds of supervisors offer. */
export const observe = (supervisor: Overseer) => {
  const { path, system } = supervisor
  return {
    [TargetId]: supervisor,
    id: supervisor.id,
    path,
    whichChildren: Effect.sync(() => Array.from(supervisor.members()).toReversed().map(infoOf)),
    countChildren: Effect.sync(() => countsOf(supervisor.members())),
    snapshot: Effect.sync(() => snapshotOf(supervisor)),
    events: system.hub.events(path),
    deadLetters: system.deadLetters.stream(
      ({ target }) => target.startsWith(`${path}/`),
      (letters) => letters
    ),
    kill: Effect.sync(() => supervisor.kill(ExitReason.killed)),
    exit: supervisor.exit,
    join: Effect.flatMap(supervisor.exit, (reason) => {
      if (reason._tag !== "Crash") return Effect.void
      return reason.error instanceof SupervisorError ? Effect.fail(reason.error) : Effect.die(reason.error)
    })
  }
}

/** A spec that was handed over at run time, and the context that its child will live in. */
export const checked = <A>(
  path: string,
  spec: ChildSpec<string, unknown, unknown>,
  use: (blueprint: Blueprint, context: ReturnType<typeof detached>) => Effect.Effect<A, SupervisorError>
): Effect.Effect<A, SupervisorError> => {
  const blueprint = blueprintOf(spec, "spec")
  if (!(blueprint instanceof Blueprint)) return Effect.fail(invalid(path, blueprint))
  return Effect.contextWith((context) => use(blueprint, detached(context)))
}

export const makeSupervisorRef = (supervisor: SupervisorChild): SupervisorRef<Record<string, unknown>> => {
  const { administration, path, table } = supervisor
  return {
    ...observe(supervisor),
    refs: Object.fromEntries(supervisor.listed.map((child) => [child.id, child.ref])),
    startChild: <Id extends string, Ref, R>(spec: ChildSpec<Id, Ref, R>) =>
      checked(path, spec, (blueprint, context) =>
        supervisor.request<Ref>(() => administration.startChild(blueprint, context))
      ),
    terminateChild: (id) => supervisor.request(() => administration.terminateChild(id), id),
    restartChild: (id) => Effect.asVoid(supervisor.request(() => administration.restartChild(id))),
    deleteChild: (id) => supervisor.request(() => administration.deleteChild(id)),
    reconfigure: (options) =>
      Effect.contextWith((context) => supervisor.request(() => administration.reconfigure(options, detached(context)))),
    childSpec: (id) =>
      Effect.suspend(() => {
        const child = table.get(id)
        if (child !== undefined) return Effect.succeed(settingsOf(child))
        return Effect.fail(new SupervisorError({ reason: new NotFound({ supervisor: path, child: String(id) }) }))
      })
  }
}

export const settingsOf = ({ id, kind, settings }: Child) => {
  const { restart, shutdown, significant, startLimit, stuck } = settings
  return { id, kind, restart, shutdown, significant, startLimit, stuck }
}
