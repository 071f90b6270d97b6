import * as Model from "./Model.ts"
import * as View from "./View.ts"

/** Numbers that look random and depend on a seed only. */
export class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  /** From 0, below 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number from 0, below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<A>(...items: readonly [A, ...Array<A>]): A {
    return items[this.below(items.length)] ?? items[0]
  }

  pickFrom<A>(items: ReadonlyArray<A>): A | undefined {
    return items[this.below(items.length)]
  }
}

/** A tree, what its first starts come to, and what is done to it. It is data, so that it can be printed and run again. */
export interface Case {
  readonly tree: Model.SupervisorSpec
  readonly scripts: Model.State["scripts"]
  readonly actions: ReadonlyArray<Model.Action>
}

/**
 * What happens in a tree. Only a `wild` one has everything at once: where several things overlap in time, their order is
 * nobody's promise, so that there is nothing to compare with.
 */
type Flavour = "plain" | "bursts" | "flashes" | "delays" | "slow" | "wild"

const deepest = 3

class Source {
  readonly random: Random
  readonly flavour: Flavour
  private count = 0
  private focus: string | undefined = undefined

  constructor(random: Random, flavour: Flavour) {
    this.random = random
    this.flavour = flavour
  }

  private has(flavour: Flavour): boolean {
    return this.flavour === flavour || this.flavour === "wild"
  }

  /** Permanent children make trees that last; the others make those that end. */
  private restart(): Model.Restart {
    return this.random.pick("permanent", "permanent", "transient", "temporary")
  }

  private common(letter: string, parent: Model.SupervisorSpec | undefined) {
    const { random } = this
    const id = `${letter}${++this.count}`
    const mayBeSignificant = parent !== undefined && parent.autoShutdown !== "never"
    const restart = mayBeSignificant && random.chance(0.5) ? random.pick("transient", "temporary") : this.restart()
    const budget: Model.Budget = {
      restarts: random.below(3),
      within: random.pick(100, 1000),
      exceeded: random.pick("stop", "escalate")
    }
    return {
      id,
      restart,
      significant: mayBeSignificant && restart !== "permanent" && random.chance(0.6),
      ...(parent !== undefined && random.chance(0.15) ? { budget } : {})
    }
  }

  private delay(probability: number) {
    const { random } = this
    return this.has("delays") && random.chance(probability) ? { delay: random.pick(0, 40, 150, 1000, 3000) } : {}
  }

  worker(parent: Model.SupervisorSpec | undefined): Model.WorkerSpec {
    const { random } = this
    const kind = random.chance(0.7) ? "actor" : "effect"
    return {
      kind,
      ...this.common(kind === "actor" ? "a" : "e", parent),
      ...this.delay(0.3),
      ...(this.has("slow") && random.chance(0.6) ? { slow: true } : {})
    }
  }

  supervisor(parent: Model.SupervisorSpec | undefined, depth: number): Model.SupervisorSpec {
    const { random } = this
    const kind = random.chance(0.2) ? "dynamic" : "supervisor"
    const spec: Model.SupervisorSpec = {
      kind,
      ...this.common(kind === "dynamic" ? "d" : "s", parent),
      strategy: kind === "dynamic" ? "one_for_one" : random.pick("one_for_one", "one_for_all", "rest_for_one"),
      restarts: random.pick(0, 1, 2, 3, 5),
      within: random.pick(100, 1000),
      autoShutdown: random.pick("never", "never", "any_significant", "all_significant"),
      giveUp: random.pick("crash", "crash", "shutdown"),
      ...this.delay(0.6),
      ...(kind === "dynamic" && random.chance(0.5) ? { maxChildren: random.below(4) } : {}),
      children: []
    }
    if (kind === "dynamic") return spec
    const children = Array.from({ length: random.below(5) }, () => this.child(spec, depth + 1))
    return { ...spec, children }
  }

  child(parent: Model.SupervisorSpec, depth: number): Model.Spec {
    return depth < deepest && this.random.chance(0.3) ? this.supervisor(parent, depth) : this.worker(parent)
  }

  outcomes(spec: Model.Spec): ReadonlyArray<Model.Outcome> {
    const { random } = this
    if (this.has("flashes") && spec.kind === "actor" && random.chance(0.5)) {
      return random.chance(0.5) ? ["flash"] : ["fail", "flash"]
    }
    if (spec.kind !== "effect" && random.chance(0.3)) return random.chance(0.5) ? ["ignore"] : ["fail", "ignore"]
    return Array.from({ length: 1 + random.below(3) }, () => "fail" as const)
  }

  /** Something to do in this state, maybe after a preparation; whether it is applicable remains to be seen. */
  actions(state: Model.State): ReadonlyArray<Model.Action> {
    const action = this.action(state)
    if (action === undefined) return []
    if (action.do === "reconfigure" && this.random.chance(0.3)) return [this.reconfigure(action.in), action]
    const starts = action.do === "start" ? specsOf(action.spec) : []
    const restarts = action.do === "restart" ? Model.find(state, action.id)?.spec : undefined
    const about = this.random.pickFrom(restarts === undefined ? starts : [restarts])
    if (about === undefined || this.random.chance(action.do === "start" ? 0.75 : 0.4)) return [action]
    const ignores = about.kind !== "effect" && this.random.chance(0.4)
    return [{ do: "script", id: about.id, outcomes: ignores ? ["ignore"] : this.outcomes(about) }, action]
  }

  private action(state: Model.State): Model.Action | undefined {
    const { random } = this
    const all = Model.everyone(state.root)
    const below = all.slice(1)
    const supervisor = this.supervisorIn(all)
    const near = random.chance(0.6) ? (supervisor?.children ?? []) : below
    const kind = random.below(100)
    if (kind < 30) {
      const workers = near.filter(({ spec, status }) => status === "running" && !Model.isSupervisor(spec))
      const id = random.pickFrom(workers)?.spec.id
      if (id === undefined) return undefined
      if (this.has("bursts") && random.chance(0.6)) return this.burst(state)
      return { do: random.pick("crash", "crash", "clean", "kill"), id }
    }
    if (kind < 34) {
      const id = supervisor?.spec.id
      return id === undefined || (supervisor === state.root && random.chance(0.9)) ? undefined : { do: "kill", id }
    }
    if (kind < 46) {
      const child = random.pickFrom(near)
      return child === undefined ? undefined : { do: "script", id: child.spec.id, outcomes: this.outcomes(child.spec) }
    }
    if (kind < 64) return { do: "advance", millis: this.pause(state) }
    if (supervisor === undefined) return undefined
    const { id } = supervisor.spec
    if (kind < 69) return this.reconfigure(id)
    if (kind < 81) return this.start(supervisor, all)
    const { children } = supervisor
    const down = children.filter(({ status }) => status !== "running")
    const others = random.chance(0.1) ? below : children
    const own = random.pickFrom(random.chance(0.5) && down.length > 0 ? down : others)?.spec.id ?? "nobody"
    return { do: random.pick("terminate", "terminate", "restart", "restart", "delete", "look"), in: id, id: own }
  }

  /** Often the one that was looked at before, because little follows from what happens far apart. */
  private supervisorIn(all: ReadonlyArray<Model.Child>): Model.Child | undefined {
    const { random } = this
    const supervisors = all.filter(({ spec }) => Model.isSupervisor(spec))
    const before = supervisors.find(({ spec }) => spec.id === this.focus)
    const others = supervisors.filter(({ status }) => status === "running" || random.chance(0.2))
    const supervisor = before !== undefined && random.chance(0.5) ? before : random.pickFrom(others)
    this.focus = supervisor?.spec.id
    return supervisor
  }

  private reconfigure(id: string): Model.Action {
    const { random } = this
    const strategy = random.pick<Model.Strategy>("one_for_one", "one_for_all", "rest_for_one")
    return { do: "reconfigure", in: id, restarts: random.below(4), within: random.pick(100, 300, 1000), strategy }
  }

  private burst(state: Model.State): Model.Action {
    const supervisor = this.random.pickFrom(Model.everyone(state.root).filter(({ children }) => children.length > 0))
    const actors = (supervisor?.children ?? []).filter(({ spec }) => spec.kind === "actor")
    const ids = actors.map(({ spec }) => ({ id: spec.id, key: this.random.next() }))
    return { do: "burst", ids: ids.toSorted((one, other) => one.key - other.key).map(({ id }) => id) }
  }

  private start(supervisor: Model.Child, all: ReadonlyArray<Model.Child>): Model.Action | undefined {
    const { random } = this
    const { spec } = supervisor
    if (!Model.isSupervisor(spec)) return undefined
    const known = spec.kind === "supervisor" && random.chance(0.4) ? random.pickFrom(supervisor.children) : undefined
    if (known !== undefined) return { do: "start", in: spec.id, spec: known.spec }
    const path = all.filter((other) => Model.everyone(other).includes(supervisor))
    const added = this.child(spec, path.length)
    // now and then one that cannot be accepted
    return { do: "start", in: spec.id, spec: random.chance(0.05) ? { ...added, significant: true } : added }
  }

  /** Mostly to where something ends: a window, or a wait. */
  private pause(state: Model.State): number {
    const { random } = this
    const all = Model.everyone(state.root)
    const edges = all.flatMap(edgesOf)
    const edge = random.pickFrom(edges)
    if (edge === undefined || random.chance(0.2)) return random.pick(1, 7, 99, 500)
    return Math.max(1, edge - state.now + random.pick(-1, 0, 1))
  }
}

/** When a restart stops to count, and when an attempt is due. */
const edgesOf = ({ due, granted, spec, spent, within }: Model.Child): ReadonlyArray<number> => {
  const windows = granted.map((time) => time + within).concat(spent.map((time) => time + (spec.budget?.within ?? 0)))
  return due === undefined ? windows : [...windows, due.at]
}

const comparable = ["plain", "plain", "bursts", "flashes", "delays", "delays", "delays", "slow"] as const

/** A tree and up to 16 things to do to it, each chosen for the state in which the model is by then. */
export const generate = (random: Random, wild = false): Case => {
  const source = new Source(random, wild ? "wild" : random.pick(...comparable))
  const tree = { ...source.supervisor(undefined, 0), restart: "temporary" as const, significant: false }
  const scripts: Record<string, ReadonlyArray<Model.Outcome>> = {}
  for (const spec of specsOf(tree).slice(1)) {
    if (random.chance(0.04)) scripts[spec.id] = source.outcomes(spec)
  }
  let [state] = Model.boot(Model.initial(tree, scripts))
  const actions: Array<Model.Action> = []
  const length = 4 + random.below(13)
  let afterwards = 2
  for (let tries = 0; actions.length < length && tries < 60 && afterwards > 0; tries++) {
    for (const action of source.actions(state)) {
      if (!(wild || View.applicable(state, action))) continue
      if (state.ended !== undefined) afterwards--
      actions.push(action)
      state = Model.step(state, action)[0]
    }
    if (source.flavour === "delays" && random.chance(0.4)) {
      const pause: Model.Action = { do: "advance", millis: 1 + random.below(20) }
      actions.push(pause)
      state = Model.step(state, pause)[0]
    }
    if (state.ambiguous && !wild) break
  }
  return { tree, scripts, actions }
}

const specsOf = (spec: Model.Spec): ReadonlyArray<Model.Spec> => [
  spec,
  ...(Model.isSupervisor(spec) ? spec.children.flatMap(specsOf) : [])
]

const without = <A>(list: ReadonlyArray<A>, from: number, count: number): ReadonlyArray<A> => [
  ...list.slice(0, from),
  ...list.slice(from + count)
]

/** The same tree with one listed child fewer, in every way. */
const smallerTrees = (spec: Model.SupervisorSpec): ReadonlyArray<Model.SupervisorSpec> => {
  const trees = spec.children.map((_, index) => withChildren(spec, without(spec.children, index, 1)))
  for (const [index, child] of spec.children.entries()) {
    if (!Model.isSupervisor(child)) continue
    for (const smaller of smallerTrees(child)) trees.push(withChildren(spec, spec.children.with(index, smaller)))
  }
  return trees
}

const withChildren = (spec: Model.SupervisorSpec, children: ReadonlyArray<Model.Spec>): Model.SupervisorSpec => ({
  ...spec,
  children
})

/** Cases that are a little smaller, the smallest first. */
export const smaller = (known: Case): ReadonlyArray<Case> => {
  const { actions, scripts, tree } = known
  const cases: Array<Case> = []
  for (const size of [8, 4, 2, 1]) {
    for (let from = 0; from + size <= actions.length; from++) {
      cases.push({ ...known, actions: without(actions, from, size) })
    }
  }
  for (const smaller of smallerTrees(tree)) cases.push({ ...known, tree: smaller })
  for (const id of Object.keys(scripts)) {
    const { [id]: _, ...others } = scripts
    cases.push({ ...known, scripts: others })
  }
  return cases
}
