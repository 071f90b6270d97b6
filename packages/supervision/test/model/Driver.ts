import {
  Actor,
  type ActorRef,
  Backoff,
  CallError,
  ChildSpec,
  DynamicSupervisor,
  type EffectRef,
  ExitReason,
  Registry,
  type SupervisionEvent,
  Supervisor,
  SupervisorError,
  type SupervisorRef
} from "@tinkex/supervision"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Metric, References, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Case } from "./Generator.ts"
import * as Model from "./Model.ts"
import * as Trace from "./Trace.ts"
import * as View from "./View.ts"

/** What the children of one run share with whoever drives it. */
interface World {
  readonly log: Array<string>
  readonly scripts: Record<string, ReadonlyArray<Model.Outcome>>
  /** How the present incarnation of an effect child is ended. */
  readonly ends: Map<string, Deferred.Deferred<void, string | ExitReason.Stop>>
  readonly names: Registry.Registry<typeof Body, string, void>
}

interface Role {
  readonly world: World
  readonly spec: Model.Spec
}

const next = ({ scripts }: World, id: string): Model.Outcome => {
  const [outcome = "ok", ...later] = scripts[id] ?? []
  scripts[id] = later
  return outcome
}

/** What a start comes to. A failing one has something to clean up, and only its clean-up is written down. */
const begin = Effect.fnUntraced(function* ({ spec, world }: Role) {
  const { id } = spec
  const pause = "slow" in spec && spec.slow === true ? Effect.yieldNow : Effect.void
  yield* pause
  const outcome = next(world, id)
  const write = (line: string) => Effect.sync(() => world.log.push(line))
  if (outcome === "ignore") {
    yield* write(`~${id}`)
    return outcome
  }
  yield* Effect.addFinalizer(() => Effect.andThen(pause, write(`${outcome === "fail" ? "!" : "-"}${id}`)))
  if (outcome === "fail") return yield* Effect.fail("broken")
  yield* write(`+${id}`)
  return outcome
})

class Body extends Actor.make("Body", {
  *init(role: Role) {
    const outcome = yield* begin(role)
    return outcome === "ignore" ? Actor.ignore : { outcome, id: role.spec.id }
  },
  started: (self) => {
    if (self.state.outcome === "flash") throw new Error("flash")
  },
  call: { ping: (self) => self.state.id },
  cast: {
    crash: () => {
      throw new Error("crash")
    },
    die: () => Effect.die("die")
  }
}) {}

const task = (role: Role) =>
  Effect.gen(function* () {
    const end = yield* Deferred.make<void, string | ExitReason.Stop>()
    yield* begin(role)
    role.world.ends.set(role.spec.id, end)
    yield* ChildSpec.ready
    yield* Deferred.await(end)
  })

type Handle =
  | ActorRef.ActorRef<typeof Body>
  | EffectRef.EffectRef<void, string | ExitReason.Stop>
  | SupervisorRef.SupervisorRef<{ readonly [id: string]: Handle }>
  | DynamicSupervisor.DynamicSupervisorRef

type AnySpec = ChildSpec.ChildSpec<string, Handle, never>

const supervisorOptions = (spec: Model.SupervisorSpec, world: World) => {
  const { autoShutdown, delay, giveUp, id, restarts, within } = spec
  return {
    intensity: { restarts, within },
    autoShutdown,
    giveUp,
    backoff: delay === undefined || delay === 0 ? undefined : Backoff.fixed(delay),
    when: Effect.suspend(() => {
      const outcome = next(world, id)
      if (outcome === "ok" || outcome === "flash") return Effect.succeed(true)
      world.log.push(`${outcome === "fail" ? "!" : "~"}${id}`)
      return outcome === "fail" ? Effect.die("broken") : Effect.succeed(false)
    })
  }
}

const specOf = (spec: Model.Spec, world: World): AnySpec => {
  const { budget, id, restart, significant } = spec
  const common = { restart, significant, budget }
  switch (spec.kind) {
    case "actor":
    case "effect": {
      const { delay } = spec
      const backoff = delay === undefined ? undefined : delay === 0 ? ("none" as const) : Backoff.fixed(delay)
      const role = { spec, world }
      return spec.kind === "actor"
        ? ChildSpec.actor(id, Body, role, { ...common, backoff, names: [world.names.name(id, undefined)] })
        : ChildSpec.effect(id, task(role), { ...common, backoff, readiness: "signalled" })
    }
    case "supervisor": {
      const children = spec.children.map((child) => specOf(child, world))
      return ChildSpec.supervisor(id, {
        ...supervisorOptions(spec, world),
        ...common,
        strategy: spec.strategy,
        children
      })
    }
    case "dynamic": {
      const { maxChildren } = spec
      return DynamicSupervisor.childSpec(id, { ...supervisorOptions(spec, world), ...common, maxChildren })
    }
  }
}

type Root = SupervisorRef.SupervisorRef<{ readonly [id: string]: Handle }> | DynamicSupervisor.DynamicSupervisorRef

const startRoot = (
  spec: Model.SupervisorSpec,
  world: World
): Effect.Effect<Root, SupervisorError.SupervisorError, Scope.Scope> => {
  const options = { ...supervisorOptions(spec, world), name: spec.id }
  if (spec.kind === "dynamic") return DynamicSupervisor.start({ ...options, maxChildren: spec.maxChildren })
  const children = spec.children.map((child) => specOf(child, world))
  return Supervisor.start({ ...options, strategy: spec.strategy, children })
}

/** The handle of a child, by way of its supervisor's when it was listed there. */
const resolve = (
  state: Model.State,
  root: Root,
  added: ReadonlyMap<string, Handle>,
  id: string
): Handle | undefined => {
  if (id === state.root.spec.id) return root
  const child = Model.find(state, id)
  if (child?.handle === false) return undefined
  if (child?.listed !== true) return added.get(id)
  const supervisor = Model.supervisorOf(state, child)
  const above = supervisor === undefined ? undefined : resolve(state, root, added, supervisor.spec.id)
  return above !== undefined && "refs" in above ? above.refs[id] : undefined
}

const reasonOf = (exit: ExitReason.ExitReason): string => {
  if (exit._tag !== "Crash") return exit._tag
  const { error } = exit
  return `Crash ${error instanceof SupervisorError.SupervisorError ? error.reason._tag : String(error)}`
}

/** The first difference between a tree and the model. */
export interface Difference {
  /** The action after which they differ: its index, or what happened before or after all of them. */
  readonly after: number | "start" | "close"
  readonly what: string
  readonly expected: unknown
  readonly actual: unknown
}

const same = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other)

/** A run of one case: the tree, and everything that it leaves behind. */
class Run {
  readonly world: World
  readonly sleeping: { readonly count: number }
  readonly fibers: { readonly count: number }
  readonly added = new Map<string, Handle>()
  readonly ends: Array<string> = []
  private seen = { log: 0, ends: 0 }

  constructor(world: World, sleeping: { readonly count: number }, fibers: { readonly count: number }) {
    this.world = world
    this.sleeping = sleeping
    this.fibers = fibers
  }

  /** Runs everything that can run without time, until nothing has been written for a while, or for ever and ever. */
  readonly settle = Effect.gen({ self: this }, function* () {
    let before = -1
    for (let quiet = 0, rounds = 0; quiet < 6 && rounds < 3000; quiet++, rounds++) {
      yield* Effect.yieldNow
      const now = this.world.log.length + this.ends.length
      if (now === before) continue
      before = now
      quiet = 0
    }
  })

  /** The exit of a request; nothing when it does not come to an end. */
  served<A, E>(request: Effect.Effect<A, E>): Effect.Effect<Exit.Exit<A, E> | undefined> {
    return Effect.gen({ self: this }, function* () {
      const fiber = yield* Effect.forkChild(request, { startImmediately: true })
      yield* this.settle
      return fiber.pollUnsafe()
    })
  }

  note(event: SupervisionEvent.SupervisionEvent): void {
    if (event._tag === "SupervisorExited") this.ends.push(`=${event.child} ${reasonOf(event.exit)}`)
  }

  /** Compares what has been written since the last time. */
  written(after: Difference["after"], trace: Trace.Trace): Difference | undefined {
    const { ends, seen, world } = this
    const [log, exits] = [world.log.slice(seen.log), ends.slice(seen.ends)]
    this.seen = { log: world.log.length, ends: ends.length }
    if (!Trace.allows(Trace.part(trace, false), log)) {
      return { after, what: "starts and stops", expected: Trace.part(trace, false), actual: log }
    }
    if (Trace.allows(Trace.part(trace, true), exits)) return undefined
    return { after, what: "ends of supervisors", expected: Trace.part(trace, true), actual: exits }
  }

  /** Everything that a tree must not leave behind. */
  readonly left = Effect.gen({ self: this }, function* () {
    const names = (yield* this.world.names.select()).map(({ key }) => key)
    return { unbalanced: unbalanced(this.world.log), sleeping: this.sleeping.count, fibers: this.fibers.count, names }
  })
}

const nothing = { unbalanced: [], sleeping: 0, fibers: 0, names: [] }

/** The children that did not end after they had started, or had two incarnations at a time. */
const unbalanced = (log: ReadonlyArray<string>): ReadonlyArray<string> => {
  const up = new Set<string>()
  const wrong = new Set<string>()
  for (const line of log) {
    const id = line.slice(1)
    if ((line.startsWith("+") && up.has(id)) || (line.startsWith("-") && !up.has(id))) wrong.add(id)
    if (line.startsWith("+")) up.add(id)
    if (line.startsWith("-")) up.delete(id)
  }
  return [...wrong, ...up]
}

const tagOf = (exit: Exit.Exit<unknown, unknown> | undefined): string => {
  if (exit === undefined) return "no answer"
  if (Exit.isSuccess(exit)) return "ok"
  for (const reason of exit.cause.reasons) {
    if (reason._tag !== "Fail") return `${reason._tag} ${Cause.pretty(exit.cause)}`
    const { error } = reason
    if (error instanceof SupervisorError.SupervisorError || error instanceof CallError.CallError) {
      return error.reason._tag
    }
  }
  return "another failure"
}

/** Does one action to the tree. `served` is how far a request is followed. */
const perform = (
  run: Run,
  action: Model.Action,
  handle: (id: string) => Handle | undefined,
  served: <A, E>(request: Effect.Effect<A, E>) => Effect.Effect<Exit.Exit<A, E> | undefined> = (request) =>
    run.served(request)
): Effect.Effect<string | undefined> => {
  const { added, world } = run
  const odd = world.log.length % 2 === 1
  const told = (effect: Effect.Effect<unknown, unknown>) =>
    Effect.map(served(effect), (exit) => (tagOf(exit) === "ok" ? undefined : tagOf(exit)))
  switch (action.do) {
    case "crash":
    case "clean": {
      const ref = handle(action.id)
      if (ref === undefined || "whichChildren" in ref) return Effect.succeed("no handle")
      if ("call" in ref) {
        if (action.do === "crash") return told(odd ? ref.cast.crash() : ref.cast.die())
        return told(odd ? ref.stop : ref.stopWith(ExitReason.shutdown))
      }
      const end = world.ends.get(action.id)
      if (end === undefined) return Effect.succeed("no end")
      if (action.do === "crash") return told(odd ? Deferred.fail(end, "crash") : Deferred.die(end, "die"))
      return told(odd ? Deferred.succeed(end, undefined) : Deferred.fail(end, new ExitReason.Stop({ info: "enough" })))
    }
    case "burst": {
      const refs = action.ids.flatMap((id) => handle(id) ?? [])
      return told(Effect.forEach(refs, (ref) => ("call" in ref ? ref.cast.crash() : Effect.die("no actor"))))
    }
    case "kill":
      return told(handle(action.id)?.kill ?? Effect.die("no handle"))
    case "script":
      world.scripts[action.id] = action.outcomes
      return Effect.succeed(undefined)
    case "advance":
      return told(TestClock.adjust(action.millis))
    case "close":
      return Effect.succeed(undefined)
    default: {
      const ref = handle(action.in)
      if (ref === undefined || !("whichChildren" in ref)) return Effect.succeed("no handle")
      return Effect.map(served(request(ref, action, added, world, handle)), tagOf)
    }
  }
}

const request = (
  ref: Root,
  action: Model.Request,
  added: Map<string, Handle>,
  world: World,
  handle: (id: string) => Handle | undefined
): Effect.Effect<unknown, SupervisorError.SupervisorError> => {
  const { restarts, strategy, within } = { strategy: undefined, restarts: 0, within: 1, ...action }
  switch (action.do) {
    case "start":
      return Effect.tap(ref.startChild(specOf(action.spec, world)), (child) =>
        Effect.sync(() => added.set(action.spec.id, child))
      )
    case "reconfigure":
      return "refs" in ref
        ? ref.reconfigure({ intensity: { restarts, within }, strategy })
        : ref.reconfigure({ intensity: { restarts, within } })
    default: {
      if (!("refs" in ref)) {
        const child = handle(action.id)
        return child === undefined ? Effect.die("no handle") : ref.terminateChild(child)
      }
      if (action.do === "terminate") return ref.terminateChild(action.id)
      if (action.do === "restart") return ref.restartChild(action.id)
      return action.do === "delete" ? ref.deleteChild(action.id) : ref.childSpec(action.id)
    }
  }
}

/** What the tree shows of itself, as the model does. */
const look = (run: Run, shown: View.View, handle: (id: string) => Handle | undefined): Effect.Effect<View.View> =>
  Effect.gen(function* () {
    const supervisors = yield* Effect.forEach(shown.supervisors, ({ id }) =>
      Effect.gen(function* () {
        const ref = handle(id)
        if (ref === undefined || !("whichChildren" in ref)) return yield* Effect.die(`no handle of ${id}`)
        const entries = (yield* ref.whichChildren).map(({ id, status }) => `${id} ${status}`)
        return { id, children: "refs" in ref ? entries : entries.toSorted(), counts: yield* ref.countChildren }
      })
    )
    const actors = (yield* run.world.names.select()).map(({ key }) => key).toSorted()
    return { supervisors, actors }
  })

/** Whether every actor can be reached that is up, and no other. Those that wait for a restart keep their callers waiting. */
const reach = (run: Run, state: Model.State, handle: (id: string) => Handle | undefined) =>
  Effect.gen(function* () {
    const pings = Model.everyone(state.root).flatMap(({ spec: { id }, status }) => {
      const ref = handle(id)
      return status === "waiting" || ref === undefined || !("call" in ref) ? [] : [{ id, status, ref }]
    })
    const answers = yield* run.served(
      Effect.forEach(pings, ({ id, ref }) => Effect.map(Effect.exit(ref.call.ping()), (exit) => `${id} ${tagOf(exit)}`))
    )
    const expected = pings.map(({ id, status }) => `${id} ${status === "running" ? "ok" : "NoProcess"}`)
    const actual = answers?._tag === "Success" ? answers.value : tagOf(answers)
    return same(actual, expected) ? undefined : { after: "close" as const, what: "calls", expected, actual }
  })

/** What is left of an action when time stops at the next thing that is due. */
const split = (state: Model.State, action: Model.Action): readonly [Model.Action, Model.Action | undefined] => {
  const until = Model.nextDue(state) - state.now
  if (action.do !== "advance" || action.millis <= until) return [action, undefined]
  return [
    { do: "advance", millis: until },
    { do: "advance", millis: action.millis - until }
  ]
}

/** Makes a run with a clock of its own, in which nothing is logged and every sleep and fiber is counted. */
const isolated = <A>(body: (run: Run) => Effect.Effect<A>, scripts: Case["scripts"]): Effect.Effect<A> => {
  const fibers = { count: 0 }
  const sleeping = { count: 0 }
  const metrics: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => void fibers.count++,
    recordFiberEnd: () => void fibers.count--
  }
  const counted = (clock: TestClock.TestClock): TestClock.TestClock => ({
    ...clock,
    sleep: (duration) =>
      Effect.suspend(() => {
        sleeping.count++
        return Effect.ensuring(
          clock.sleep(duration),
          Effect.sync(() => sleeping.count--)
        )
      })
  })
  return Effect.gen(function* () {
    const names = yield* Registry.make<typeof Body, string, void>(Body)
    const world: World = { log: [], scripts: { ...scripts }, ends: new Map(), names }
    return yield* body(new Run(world, sleeping, fibers))
  }).pipe(
    Effect.updateService(Clock.Clock, (clock) => counted(clock as TestClock.TestClock)), // the layer below provides it
    Effect.provideService(Metric.FiberRuntimeMetrics, metrics),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provide(TestClock.layer())
  )
}

/** Runs a case on a real tree and on the model, and compares them after every action. */
export const compare = ({ actions, scripts, tree }: Case): Effect.Effect<Difference | undefined> =>
  isolated(
    Effect.fnUntraced(function* (run: Run) {
      const { world } = run
      const scope = yield* Scope.make()
      let [state, expected] = Model.boot(Model.initial(tree, scripts))
      const started = yield* run.served(Effect.provideService(startRoot(tree, world), Scope.Scope, scope))
      if (tagOf(started) !== expected.answer) {
        return { after: "start" as const, what: "answer", expected: expected.answer, actual: tagOf(started) }
      }
      if (started?._tag !== "Success") {
        const trace = run.written("start", Trace.part(expected.trace, false))
        return (state.ambiguous ? undefined : trace) ?? (yield* empty(run, undefined))
      }
      const root = started.value
      yield* root.events.pipe(
        Stream.runForEach((event) => Effect.sync(() => run.note(event))),
        Effect.forkDetach({ startImmediately: true })
      )
      const exit = yield* Effect.forkDetach(root.exit, { startImmediately: true })
      yield* run.settle
      const first = run.written("start", expected.trace)
      if (first !== undefined && !state.ambiguous) return first

      const take = Effect.fnUntraced(function* (action: Model.Action, after: number | "close") {
        const previous = state
        const handle = (id: string) => resolve(previous, root, run.added, id) ?? resolve(state, root, run.added, id)
        ;[state, expected] = Model.step(state, action)
        const answer = yield* action.do === "close"
          ? Effect.map(run.served(Scope.close(scope, Exit.void)), (exit) => (exit === undefined ? "hangs" : undefined))
          : perform(run, action, handle)
        if (state.ambiguous) return undefined
        if (answer !== expected.answer) return { after, what: "answer", expected: expected.answer, actual: answer }
        const trace = run.written(after, expected.trace)
        if (trace !== undefined) return trace
        const ended = exit.pollUnsafe()
        const reason = ended?._tag === "Success" ? reasonOf(ended.value) : undefined
        if (reason !== state.ended) return { after, what: "end of the root", expected: state.ended, actual: reason }
        const shown = View.view(state)
        const actual = yield* look(run, shown, handle)
        return same(actual, shown) ? undefined : { after, what: "view", expected: shown, actual }
      })

      for (const [index, whole] of actions.entries()) {
        for (let rest: Model.Action | undefined = whole; rest !== undefined && !state.ambiguous;) {
          const [action, later]: ReturnType<typeof split> = split(state, rest)
          rest = later
          if (!View.applicable(state, action)) continue
          const difference = yield* take(action, index)
          if (difference !== undefined) return difference
        }
      }
      if (!state.ambiguous) {
        const unreachable = yield* reach(run, state, (id) => resolve(state, root, run.added, id))
        if (unreachable !== undefined) return unreachable
      }
      return (yield* take({ do: "close" }, "close")) ?? (yield* empty(run, root))
    }),
    scripts
  )

/** After the end: nothing is left, and whoever still asks is refused. */
const empty = (run: Run, root: Root | undefined): Effect.Effect<Difference | undefined> =>
  Effect.gen(function* () {
    const left = yield* run.left
    const difference = { after: "close" as const, what: "what is left", expected: nothing, actual: left }
    if (!same(left, nothing)) return difference
    const refused = root === undefined ? undefined : tagOf(yield* Effect.exit(root.reconfigure({})))
    if (refused === undefined || refused === "SupervisorStopped") return undefined
    return { ...difference, what: "a late request", expected: "SupervisorStopped", actual: refused }
  })

/** All handles that can be had from this one, by id. */
const collect = (id: string, ref: Handle, into: Map<string, Handle>): Map<string, Handle> => {
  into.set(id, ref)
  if ("refs" in ref) for (const [id, child] of Object.entries(ref.refs)) collect(id, child, into)
  return into
}

/**
 * Runs a case on a real tree without waiting for what an action leads to: starts, stops, crashes, requests and timers overlap
 * as they like. Nobody says what is to happen then, but only one incarnation of a child may live at a time, every request
 * is answered, and in the end nothing is left.
 */
export const overlap = ({ actions, scripts, tree }: Case): Effect.Effect<Difference | undefined> =>
  isolated(
    Effect.fnUntraced(function* (run: Run) {
      const scope = yield* Scope.make()
      const started = yield* run.served(Effect.provideService(startRoot(tree, run.world), Scope.Scope, scope))
      if (started?._tag !== "Success") return yield* empty(run, undefined)
      const root = started.value
      const handles = collect(tree.id, root, new Map())
      const open: Array<{ readonly action: Model.Action; readonly fiber: Fiber.Fiber<unknown, unknown> }> = []
      for (const [index, action] of actions.entries()) {
        const fiber = yield* Effect.forkDetach(
          perform(
            run,
            action,
            (id) => run.added.get(id) ?? handles.get(id),
            (effect) => Effect.exit(effect)
          ),
          { startImmediately: true }
        )
        // time only passes when somebody lets it, and so it must have passed before the next action
        if (action.do === "advance") yield* Fiber.await(fiber)
        open.push({ action, fiber })
        for (let turns = (run.world.log.length + index) % 4; turns > 0; turns--) yield* Effect.yieldNow
      }
      const closed = yield* run.served(Scope.close(scope, Exit.void))
      const pending = open.filter(({ fiber }) => fiber.pollUnsafe() === undefined).map(({ action }) => action)
      if (closed !== undefined && pending.length === 0) return yield* empty(run, root)
      const actual = { closed: closed !== undefined, pending }
      return { after: "close" as const, what: "requests", expected: { closed: true, pending: [] }, actual }
    }),
    scripts
  )
