import { type Action, type Child, type State, everyone, find, isSupervisor, supervisorOf } from "./Model.ts"

/** All that can be reached by handles. */
const reachable = (child: Child): ReadonlyArray<Child> => [
  child,
  ...child.children.filter(({ handle }) => handle).flatMap(reachable)
]

/**
 * Whether an action makes sense now: it concerns somebody that there is, and what happens next is laid down. Messages to
 * somebody who is not running, for instance, may wait for the next incarnation, which is the business of mailboxes.
 */
export const applicable = (state: State, action: Action): boolean => {
  const known = (id: string) => reachable(state.root).find(({ spec }) => spec.id === id)
  const running = (id: string) => {
    const child = known(id)
    return child?.status === "running" ? child : undefined
  }
  switch (action.do) {
    case "crash":
    case "clean": {
      const child = running(action.id)
      return child !== undefined && !isSupervisor(child.spec)
    }
    case "kill":
      return running(action.id) !== undefined
    case "burst": {
      const [first, ...rest] = action.ids.map((id) => running(id))
      const supervisor = first === undefined ? undefined : supervisorOf(state, first)
      return (
        supervisor !== undefined &&
        rest.every((child) => child !== undefined && supervisor.children.includes(child)) &&
        [first, ...rest].every((child) => child?.spec.kind === "actor" && child.spec.slow !== true) &&
        !flashes(state.scripts)
      )
    }
    case "script":
      return (
        !action.outcomes.includes("flash") ||
        (action.outcomes.indexOf("flash") === action.outcomes.lastIndexOf("flash") && !flashes(state.scripts))
      )
    case "start": {
      const supervisor = known(action.in)
      const elsewhere = find(state, action.spec.id)
      if (supervisor === undefined || !isSupervisor(supervisor.spec)) return false
      // of two reasons to refuse it, either will do
      if (action.spec.significant && supervisor.status !== "running") return false
      if (elsewhere === undefined) return true
      return supervisor.spec.kind === "supervisor" && supervisor.children.includes(elsewhere)
    }
    case "terminate": {
      const supervisor = known(action.in)
      if (supervisor === undefined || !isSupervisor(supervisor.spec)) return false
      // where children are known by handle, there must be a handle
      return supervisor.spec.kind === "supervisor" || handles(state).has(action.id)
    }
    case "restart":
    case "delete":
      return known(action.in)?.spec.kind === "supervisor"
    case "look":
      return running(action.in)?.spec.kind === "supervisor"
    case "reconfigure": {
      const supervisor = known(action.in)
      return supervisor !== undefined && isSupervisor(supervisor.spec)
    }
    case "advance":
    case "close":
      return true
  }
}

const flashes = (scripts: State["scripts"]): boolean =>
  Object.values(scripts).some((outcomes) => outcomes.includes("flash"))

const handles = (state: State): ReadonlySet<string> =>
  new Set(
    [...state.added, ...reachable(state.root).map(({ spec }) => spec.id)].filter((id) => id !== state.root.spec.id)
  )

/** What the queries of all running supervisors answer, and which actors are up. */
export const view = ({ root }: State) => ({
  supervisors: reachable(root)
    .filter(({ spec, status }) => isSupervisor(spec) && status === "running")
    .map(({ spec, children }) => {
      const supervisors = children.filter(({ spec }) => isSupervisor(spec)).length
      const entries = children.toReversed().map(({ spec, status }) => `${spec.id} ${shown[status]}`)
      return {
        id: spec.id,
        children: spec.kind === "dynamic" ? entries.toSorted() : entries,
        counts: {
          specs: children.length,
          active: children.filter(({ status }) => status === "running").length,
          supervisors,
          workers: children.length - supervisors
        }
      }
    }),
  actors: everyone(root)
    .filter(({ spec, status }) => spec.kind === "actor" && status === "running")
    .map(({ spec }) => spec.id)
    .toSorted()
})

export type View = ReturnType<typeof view>

const shown = { running: "running", ended: "restarting", waiting: "restarting", stopped: "stopped" } as const
