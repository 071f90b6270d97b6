/**
 * What supervisors mean, as a pure function: `step(state, action)` is the next state and what is to be seen on the way.
 *
 * A step runs until nothing is left to do. It knows nothing of fibers, mailboxes, timers or promises; where the order of
 * two things is not laid down (children of a dynamic supervisor that stop at the same time), the trace says so.
 */

import type { Trace } from "./Trace.ts"

export type Restart = "permanent" | "transient" | "temporary"
export type Strategy = "one_for_one" | "one_for_all" | "rest_for_one"

/** What the next start of a child comes to. `flash`: it comes up, and crashes as soon as it is let. */
export type Outcome = "ok" | "fail" | "ignore" | "flash"

export interface Budget {
  readonly restarts: number
  readonly within: number
  readonly exceeded: "stop" | "escalate"
}

interface Common {
  /** Unique in the whole tree. */
  readonly id: string
  readonly restart: Restart
  readonly significant: boolean
  readonly budget?: Budget
}

export interface WorkerSpec extends Common {
  readonly kind: "actor" | "effect"
  /** Milliseconds before each restart. Default: its supervisor's. */
  readonly delay?: number
  /** It takes a few turns, but no time, to start and to stop. */
  readonly slow?: boolean
}

export interface SupervisorSpec extends Common {
  readonly kind: "supervisor" | "dynamic"
  readonly strategy: Strategy
  readonly restarts: number
  readonly within: number
  readonly autoShutdown: "never" | "any_significant" | "all_significant"
  readonly giveUp: "crash" | "shutdown"
  /** Milliseconds before each restart of a child that has no delay of its own. */
  readonly delay?: number
  /** Only of a dynamic one. */
  readonly maxChildren?: number
  readonly children: ReadonlyArray<Spec>
}

export type Spec = WorkerSpec | SupervisorSpec

export type Action =
  | { readonly do: "crash" | "kill" | "clean"; readonly id: string }
  /** Several workers of one supervisor crash before it can do anything. */
  | { readonly do: "burst"; readonly ids: ReadonlyArray<string> }
  /** From now on the starts of a child come to this, one after the other; later ones are ok. */
  | { readonly do: "script"; readonly id: string; readonly outcomes: ReadonlyArray<Outcome> }
  | { readonly do: "start"; readonly in: string; readonly spec: Spec }
  | { readonly do: "terminate" | "restart" | "delete" | "look"; readonly in: string; readonly id: string }
  | {
      readonly do: "reconfigure"
      readonly in: string
      readonly restarts: number
      readonly within: number
      readonly strategy: Strategy
    }
  | { readonly do: "advance"; readonly millis: number }
  /** The scope of the root is closed. */
  | { readonly do: "close" }

/** What is asked of a supervisor. */
export type Request = Extract<Action, { readonly in: string }>

export interface Expected {
  readonly trace: Trace
  /** The answer to a request: `ok`, or the tag of its refusal. */
  readonly answer: string | undefined
}

/** An entry of a supervisor, or the root. */
export interface Child {
  readonly spec: Spec
  /** In the spec of its supervisor, or added later. */
  readonly listed: boolean
  /** Somebody has its handle. Nobody gets that of a child that was added and had nothing to run. */
  handle: boolean
  /** `ended`: by itself, and its supervisor does not know yet. `waiting`: for the next attempt to start it. */
  status: "running" | "ended" | "waiting" | "stopped"
  /** Tells incarnations, and attempts, apart. */
  life: number
  /** When a delayed attempt is due; `order` tells which of several comes first. */
  due: { readonly at: number; readonly order: number } | undefined
  /** Times of the restarts that count against its own budget. */
  spent: Array<number>
  /** What only supervisors have: their children in start order, present options, and the restarts granted. */
  children: Array<Child>
  strategy: Strategy
  restarts: number
  within: number
  granted: Array<number>
}

export interface State {
  readonly now: number
  readonly root: Child
  readonly scripts: Readonly<Record<string, ReadonlyArray<Outcome>>>
  /** All that were ever added by a request. */
  readonly added: ReadonlyArray<string>
  /** Why the root ended, once it has. */
  readonly ended: string | undefined
  /**
   * Nobody says which comes first: two attempts that were due at the same instant in different places, or a crash and a stop
   * of the same child.
   */
  readonly ambiguous: boolean
}

export const isSupervisor = (spec: Spec): spec is SupervisorSpec =>
  spec.kind === "supervisor" || spec.kind === "dynamic"

const newChild = (spec: Spec, listed: boolean): Child => {
  const { strategy, restarts, within } = isSupervisor(spec) ? spec : noOptions
  const nothing = { life: 0, due: undefined, spent: [], children: [], granted: [] }
  return { spec, listed, handle: listed, status: "stopped", ...nothing, strategy, restarts, within }
}

const noOptions = { strategy: "one_for_one", restarts: 0, within: 0 } as const

/** The state before anything has started. */
export const initial = (spec: SupervisorSpec, scripts: State["scripts"]): State => ({
  now: 0,
  root: newChild(spec, true),
  scripts,
  added: [],
  ended: undefined,
  ambiguous: false
})

export const everyone = (child: Child): ReadonlyArray<Child> => [child, ...child.children.flatMap(everyone)]

export const find = (state: { readonly root: Child }, id: string): Child | undefined =>
  everyone(state.root).find(({ spec }) => spec.id === id)

export const supervisorOf = (state: { readonly root: Child }, child: Child): Child | undefined =>
  everyone(state.root).find(({ children }) => children.includes(child))

/** When the next delayed attempt is due. */
export const nextDue = ({ root }: { readonly root: Child }): number =>
  Math.min(...everyone(root).map(({ due }) => due?.at ?? Number.POSITIVE_INFINITY))

/** The state while a step changes its own copy of it. */
interface World {
  now: number
  root: Child
  scripts: Record<string, ReadonlyArray<Outcome>>
  trace: Array<Trace[number]>
  /** Crashes that are about to happen, and ends that supervisors are about to learn, in order. */
  news: Array<{ readonly child: Child; readonly life: number; readonly is: "flash" | "clean" | "crash" }>
  /** Attempts to be made when there are no news. Those that had to wait for a delay are `paid` already. */
  attempts: Array<{ readonly child: Child; readonly life: number; readonly paid: boolean }>
  ended: string | undefined
  ambiguous: boolean
}

const copyOf = (child: Child): Child => ({
  ...child,
  spent: child.spent.slice(),
  granted: child.granted.slice(),
  children: child.children.map(copyOf)
})

/** One start, whatever it comes to: the next outcome of the child's script, or else ok. */
const start = (world: World, child: Child): "up" | "failed" | "ignored" => {
  const { spec } = child
  const [outcome = "ok", ...later] = world.scripts[spec.id] ?? []
  world.scripts[spec.id] = later
  child.status = "stopped"
  child.due = undefined
  if (outcome === "fail" || outcome === "ignore") {
    world.trace.push(`${outcome === "fail" ? "!" : "~"}${spec.id}`)
    return outcome === "fail" ? "failed" : "ignored"
  }
  if (isSupervisor(spec) && !startChildren(world, child, spec)) return "failed"
  child.status = "running"
  child.life++
  if (!isSupervisor(spec)) world.trace.push(`+${spec.id}`)
  if (outcome === "flash") world.news.push({ child, life: child.life, is: "flash" })
  return "up"
}

/** One after the other; if one fails, those before it are stopped in reverse and nothing is retried. */
const startChildren = (world: World, supervisor: Child, spec: SupervisorSpec): boolean => {
  const { strategy, restarts, within } = spec
  Object.assign(supervisor, { strategy, restarts, within, granted: [] })
  supervisor.children = spec.children.map((child) => newChild(child, true))
  for (const child of supervisor.children.slice()) {
    const outcome = start(world, child)
    if (outcome === "failed") {
      stopChildren(world, supervisor)
      return false
    }
    if (outcome === "ignored") leave(supervisor, child)
  }
  return true
}

/** A child goes because somebody asked for it: that is no end that anybody decides about. */
const stop = (world: World, child: Child): void => {
  if (child.status === "running") {
    if (isSupervisor(child.spec)) {
      stopChildren(world, child)
      world.trace.push(`=${child.spec.id} Shutdown`)
    } else {
      world.trace.push(`-${child.spec.id}`)
    }
  }
  child.status = "stopped"
  child.due = undefined
}

const stopChildren = (world: World, supervisor: Child): void => {
  const { children } = supervisor
  const below = everyone(supervisor)
  if (world.news.some(({ child, is }) => is === "flash" && below.includes(child))) world.ambiguous = true
  if (supervisor.spec.kind === "dynamic") {
    const { trace } = world
    const traces = children.map((child) => {
      world.trace = []
      stop(world, child)
      return world.trace
    })
    world.trace = trace
    trace.push({ together: traces })
  } else {
    for (const child of children.toReversed()) stop(world, child)
  }
  supervisor.children = []
}

/** A supervisor ends by itself: its children first, then whoever waits for it learns why. */
const end = (world: World, supervisor: Child, reason: string): void => {
  stopChildren(world, supervisor)
  world.trace.push(`=${supervisor.spec.id} ${reason}`)
  supervisor.status = "ended"
  if (supervisor === world.root) world.ended = reason
  world.news.push({ child: supervisor, life: supervisor.life, is: reason === "Shutdown" ? "clean" : "crash" })
}

/** What is not running stays in the books, unless it was temporary or its supervisor knows its children by handle. */
const leave = (supervisor: Child, child: Child): void => {
  child.status = "stopped"
  child.due = undefined
  if (child.spec.restart === "temporary" || supervisor.spec.kind === "dynamic") remove(supervisor, child)
}

const remove = (supervisor: Child, child: Child): void => {
  supervisor.children = supervisor.children.filter((other) => other !== child)
}

/** What an end means depends on the restart type. */
const decide = (world: World, supervisor: Child, child: Child, is: "clean" | "crash"): void => {
  const { restart } = child.spec
  if (restart === "permanent" || (restart === "transient" && is === "crash")) bringBack(world, supervisor, child)
  else letGo(world, supervisor, child)
}

/** The child will not be restarted, which may be what its supervisor waited for. What is not running does not count. */
const letGo = (world: World, supervisor: Child, child: Child): void => {
  leave(supervisor, child)
  const { spec } = supervisor
  if (!child.spec.significant || !isSupervisor(spec) || spec.autoShutdown === "never") return
  const others = supervisor.children.some(({ spec, status }) => spec.significant && status !== "stopped")
  if (spec.autoShutdown === "any_significant" || !others) end(world, supervisor, "Shutdown")
}

/** Asks for one restart. One that is exactly as old as the window still counts. */
const spend = (times: Array<number>, now: number, limit: { restarts: number; within: number }): boolean => {
  const counted = times.filter((time) => time >= now - limit.within)
  times.splice(0, times.length, ...counted)
  if (counted.length >= limit.restarts) return false
  times.push(now)
  return true
}

/** A restart costs one unit, of the child's own budget and of its supervisor's, however many children it concerns. */
const bringBack = (world: World, supervisor: Child, child: Child): void => {
  const { spec } = child
  const { budget } = spec
  if (budget !== undefined && !spend(child.spent, world.now, budget)) {
    if (budget.exceeded === "stop") letGo(world, supervisor, child)
    else giveUp(world, supervisor, child, "ChildGivenUp")
    return
  }
  if (!spend(supervisor.granted, world.now, supervisor)) {
    giveUp(world, supervisor, child, "MaxRestartsExceeded")
    return
  }
  const delay = delayOf(supervisor, child)
  if (delay === 0) return attempt(world, supervisor, child)
  // those that the strategy drags along go down at once, and wait for the child
  for (const other of drag(world, supervisor, child)) if (other !== child) leave(supervisor, other)
  wait(world, supervisor, child, world.now + delay)
}

export const delayOf = (supervisor: Child, { spec }: Child): number => {
  const own = isSupervisor(spec) ? undefined : spec.delay
  return own ?? (isSupervisor(supervisor.spec) ? supervisor.spec.delay : undefined) ?? 0
}

const wait = (world: World, supervisor: Child, child: Child, at: number): void => {
  const others = everyone(world.root).filter(({ due }) => due !== undefined)
  for (const other of others) {
    const sameKind = supervisor.children.includes(other) && delayOf(supervisor, other) === delayOf(supervisor, child)
    // a supervisor with a list takes such attempts in turn; anybody else might be quicker
    if (other.due?.at === at && !(sameKind && supervisor.spec.kind === "supervisor")) world.ambiguous = true
  }
  child.status = "waiting"
  child.life++
  child.due = { at, order: Math.max(0, ...others.map(({ due }) => due?.order ?? 0)) + 1 }
}

/** The child goes first, then the others in reverse; a child that goes because of its supervisor costs nothing. */
const giveUp = (world: World, supervisor: Child, child: Child, why: string): void => {
  const { spec } = supervisor
  remove(supervisor, child)
  end(world, supervisor, isSupervisor(spec) && spec.giveUp === "shutdown" ? "Shutdown" : `Crash ${why}`)
}

/** Stops what a crash drags along, and lists what is to be started: all of it, even what was not running, but the temporary. */
const drag = (world: World, supervisor: Child, child: Child): ReadonlyArray<Child> => {
  const { children, strategy } = supervisor
  if (strategy === "one_for_one" || supervisor.spec.kind === "dynamic") return [child]
  const group = strategy === "one_for_all" ? children : children.slice(children.indexOf(child))
  for (const other of group.toReversed()) if (other !== child) stop(world, other)
  const kept = group.filter((other) => other === child || other.spec.restart !== "temporary")
  for (const other of group) if (!kept.includes(other)) remove(supervisor, other)
  return kept
}

/** One attempt. If a member fails, those before it stay up, those after it stay down, and the next begins with it. */
const attempt = (world: World, supervisor: Child, child: Child): void => {
  const group = drag(world, supervisor, child)
  for (const [index, member] of group.entries()) {
    const outcome = start(world, member)
    if (outcome === "ignored") leave(supervisor, member)
    if (outcome !== "failed") continue
    for (const later of group.slice(index + 1)) leave(supervisor, later)
    member.status = "waiting"
    member.life++
    world.attempts.push({ child: member, life: member.life, paid: false })
    return
  }
}

/** Works until nothing is left to do. Attempts leave room for everything else that waits. */
const settle = (world: World): void => {
  for (;;) {
    const news = world.news.shift()
    const retry = news === undefined ? world.attempts.shift() : undefined
    const { child, life } = news ?? retry ?? {}
    if (child === undefined) return
    const supervisor = supervisorOf(world, child)
    if (supervisor === undefined || child.life !== life) continue
    if (news?.is === "flash") exit(world, child, "crash")
    else if (news !== undefined && child.status === "ended") decide(world, supervisor, child, news.is)
    else if (retry?.paid === true && child.status === "waiting") attempt(world, supervisor, child)
    else if (retry !== undefined && child.status === "waiting") bringBack(world, supervisor, child)
  }
}

/** A worker ends by itself. */
const exit = (world: World, child: Child, is: "clean" | "crash"): void => {
  if (child.status !== "running") return
  world.trace.push(`-${child.spec.id}`)
  child.status = "ended"
  world.news.push({ child, life: child.life, is })
}

const advance = (world: World, millis: number): void => {
  const target = world.now + millis
  for (let at = nextDue(world); at <= target; at = nextDue(world)) {
    world.now = at
    const due = everyone(world.root).filter((child) => child.due?.at === at)
    for (const child of due.toSorted((one, other) => (one.due?.order ?? 0) - (other.due?.order ?? 0))) {
      child.due = undefined
      world.attempts.push({ child, life: child.life, paid: true })
    }
    settle(world)
  }
  world.now = target
}

const request = (world: World, action: Request): string => {
  const supervisor = find(world, action.in)
  if (supervisor?.status !== "running") return "SupervisorStopped"
  switch (action.do) {
    case "start":
      return startChild(world, supervisor, action.spec)
    case "reconfigure":
      supervisor.restarts = action.restarts
      supervisor.within = action.within
      supervisor.strategy = action.strategy
      return "ok"
    default: {
      const child = supervisor.children.find(({ spec }) => spec.id === action.id)
      return child === undefined ? "NotFound" : administrate(world, supervisor, child, action.do)
    }
  }
}

const startChild = (world: World, supervisor: Child, spec: Spec): string => {
  const { children } = supervisor
  if (!isSupervisor(supervisor.spec)) return "InvalidRequest"
  const { autoShutdown, kind, maxChildren = Number.POSITIVE_INFINITY } = supervisor.spec
  if (spec.significant && (spec.restart === "permanent" || autoShutdown === "never")) return "InvalidRequest"
  if (kind === "dynamic" && children.length >= maxChildren) return "MaxChildren"
  const known = kind === "dynamic" ? undefined : children.find((child) => child.spec.id === spec.id)
  if (known !== undefined) return known.status === "running" ? "AlreadyStarted" : "AlreadyPresent"
  const child = newChild(spec, false)
  children.push(child)
  const outcome = start(world, child)
  child.handle = outcome === "up"
  if (outcome === "failed") remove(supervisor, child)
  if (outcome === "ignored") leave(supervisor, child)
  return answers[outcome]
}

const answers = { up: "ok", failed: "StartFailed", ignored: "Ignored" } as const

const administrate = (
  world: World,
  supervisor: Child,
  child: Child,
  verb: "terminate" | "restart" | "delete" | "look"
): string => {
  if (verb === "look") return "ok"
  if (verb === "terminate") {
    stop(world, child)
    leave(supervisor, child)
    return "ok"
  }
  if (child.status === "waiting") return "Restarting"
  if (child.status === "running") return "Running"
  if (verb === "restart") return answers[start(world, child)]
  remove(supervisor, child)
  return "ok"
}

const act = (world: World, action: Action): string | undefined => {
  switch (action.do) {
    case "crash":
    case "clean":
    case "kill":
    case "burst": {
      for (const id of action.do === "burst" ? action.ids : [action.id]) {
        const child = find(world, id)
        if (child === undefined) continue
        if (isSupervisor(child.spec)) end(world, child, "Killed")
        else exit(world, child, action.do === "clean" ? "clean" : "crash")
      }
      return undefined
    }
    case "script":
      world.scripts[action.id] = action.outcomes
      return undefined
    case "advance":
      advance(world, action.millis)
      return undefined
    case "close":
      stop(world, world.root)
      world.ended ??= "Shutdown"
      return undefined
    default:
      return request(world, action)
  }
}

const run = (state: State, body: (world: World) => string | undefined): readonly [World, Expected] => {
  const { ambiguous, ended, now, root } = state
  const scripts = { ...state.scripts }
  const world: World = { now, root: copyOf(root), scripts, trace: [], news: [], attempts: [], ended, ambiguous }
  const answer = body(world)
  settle(world)
  return [world, { trace: world.trace, answer }]
}

/** The start of the tree. When it fails, nothing is left. */
export const boot = (state: State): readonly [State, Expected] => {
  const [{ trace: _, ...world }, expected] = run(state, (world) => {
    const outcome = start(world, world.root)
    if (outcome === "failed") world.ended = "StartFailed"
    return answers[outcome]
  })
  return [{ ...state, ...world }, expected]
}

export const step = (state: State, action: Action): readonly [State, Expected] => {
  const [{ trace: _, ...world }, expected] = run(state, (world) => act(world, action))
  const added = action.do === "start" && expected.answer === "ok" ? [...state.added, action.spec.id] : state.added
  return [{ ...state, ...world, added }, expected]
}
