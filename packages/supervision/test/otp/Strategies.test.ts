import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Registry,
  Supervisor,
  SupervisorRef
} from "@tinkex/supervision"
import { Effect, Option, Stream } from "effect"
import { record, settle, tags, witness } from "../support.ts"
import { endless, fragile, health, reasonOf, statuses } from "./strategySupport.ts"

/** How a supervisor that gives up ends, by default and as OTP has it. */
const endings = [
  [undefined, "MaxRestartsExceeded"],
  ["shutdown", "plain shutdown"]
] as const

const endingOf = (tree: Pick<SupervisorRef.Supervising, "exit">) =>
  Effect.map(tree.exit, (exit) =>
    exit._tag === "Shutdown" && exit.info === undefined ? "plain shutdown" : reasonOf(exit)?._tag
  )

const crash = (ref: { readonly cast: { readonly crash: () => Effect.Effect<void> } }) =>
  Effect.andThen(ref.cast.crash(), settle)

const noProcess = <A>(effect: Effect.Effect<A, { readonly reason: { readonly _tag: string } }>) =>
  Effect.map(Effect.flip(effect), (error) => assert.strictEqual(error.reason._tag, "NoProcess"))

describe("6. Strategies", () => {
  for (const [giveUp, ending] of endings) {
    it.effect(`SG-02 one_for_one: with intensity 2 the third crash in the window ends the supervisor (${ending})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const tree = yield* Supervisor.start({
          intensity: { restarts: 2 },
          giveUp,
          children: [witness("a", log), witness("b", log)]
        })
        yield* crash(tree.refs.a)
        yield* crash(tree.refs.a)
        assert.strictEqual(yield* tree.refs.a.call.ping(), "a3")
        assert.strictEqual(yield* tree.refs.b.call.ping(), "b1")
        log.length = 0
        yield* crash(tree.refs.a)
        assert.strictEqual(yield* endingOf(tree), ending)
        assert.deepStrictEqual(log, ["-a", "-b"])
        yield* noProcess(tree.refs.b.call.ping())
      })
    )

    it.effect(`SG-03 one_for_one: failed attempts to start a child again use up the budget (${ending})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const arg = health()
        const tree = yield* Supervisor.start({
          intensity: { restarts: 4 },
          giveUp,
          children: [fragile("f", arg), witness("sibling", log)]
        })
        arg.broken = true
        arg.attempts = 0
        yield* tree.refs.f.cast.crash()
        assert.strictEqual(yield* endingOf(tree), ending)
        assert.strictEqual(arg.attempts, 4)
        assert.deepStrictEqual(log, ["+sibling", "-sibling"])
        assert.deepStrictEqual(yield* statuses(tree), ["sibling stopped"], "who used it up is forgotten")
      })
    )

    it.effect(`SG-06 one_for_all: a sibling that cannot start again ends the supervisor (${ending})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const arg = health()
        const tree = yield* Supervisor.start({
          strategy: "one_for_all",
          intensity: { restarts: 3 },
          giveUp,
          children: [witness("a", log), fragile("f", arg), witness("c", log)]
        })
        arg.broken = true
        arg.attempts = 0
        log.length = 0
        yield* tree.refs.c.cast.crash()
        assert.strictEqual(yield* endingOf(tree), ending)
        assert.strictEqual(arg.attempts, 3)
        assert.deepStrictEqual(log, ["-c", "-a", "+a", "-a", "+a", "-a", "+a", "-a"])
      })
    )

    it.effect(`SG-10 rest_for_one: three crashes of different children use up a budget of two (${ending})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const tree = yield* Supervisor.start({
          strategy: "rest_for_one",
          intensity: { restarts: 2 },
          giveUp,
          children: [witness("a", log), witness("b", log), witness("c", log)]
        })
        log.length = 0
        yield* crash(tree.refs.b)
        assert.deepStrictEqual(log, ["-b", "-c", "+b", "+c"])
        log.length = 0
        yield* crash(tree.refs.c)
        assert.deepStrictEqual(log, ["-c", "+c"])
        assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
        log.length = 0
        yield* crash(tree.refs.a)
        assert.strictEqual(yield* endingOf(tree), ending)
        assert.deepStrictEqual(log, ["-a", "-c", "-b"])
      })
    )

    it.effect(`SG-11 rest_for_one: a later child that cannot start again ends the supervisor (${ending})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const arg = health()
        const tree = yield* Supervisor.start({
          strategy: "rest_for_one",
          intensity: { restarts: 3 },
          giveUp,
          children: [witness("first", log), witness("b", log), fragile("f", arg)]
        })
        arg.broken = true
        arg.attempts = 0
        log.length = 0
        yield* tree.refs.b.cast.crash()
        assert.strictEqual(yield* endingOf(tree), ending)
        assert.strictEqual(arg.attempts, 3)
        assert.deepStrictEqual(log, ["-b", "+b", "-b", "-first"])
      })
    )

    it.effect(`SG-14 dynamic: all instances share one budget (${ending})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const tree = yield* DynamicSupervisor.start({ intensity: { restarts: 2 }, giveUp })
        const [one, two, three] = yield* Effect.all([
          tree.startChild(witness("one", log)),
          tree.startChild(witness("two", log)),
          tree.startChild(witness("three", log))
        ])
        yield* crash(one)
        yield* crash(two)
        assert.deepStrictEqual(yield* tree.countChildren, { specs: 3, active: 3, supervisors: 0, workers: 3 })
        assert.strictEqual(yield* three.call.ping(), "three1")
        log.length = 0
        yield* crash(three)
        assert.strictEqual(yield* endingOf(tree), ending)
        assert.deepStrictEqual(log.toSorted(), ["-one", "-three", "-two"])
      })
    )

    it.effect(`SG-16 dynamic: an instance that cannot start again ends the supervisor and the others (${ending})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const arg = health()
        const tree = yield* DynamicSupervisor.start({ intensity: { restarts: 3 }, giveUp })
        const bad = yield* tree.startChild(fragile("bad", arg))
        const good = yield* tree.startChild(witness("good", log))
        arg.broken = true
        arg.attempts = 0
        yield* bad.cast.crash()
        assert.strictEqual(yield* endingOf(tree), ending)
        assert.strictEqual(arg.attempts, 3)
        assert.deepStrictEqual(log, ["+good", "-good"])
        yield* noProcess(good.call.ping())
      })
    )
  }

  it.effect("SG-04 one_for_all: one crash replaces all children, and no old handle stays good", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        children: [witness("a", log), witness("b", log), witness("c", log)]
      })
      const refs = Object.values(tree.refs)
      const old = yield* Effect.forEach(refs, (ref) => ref.incarnation)
      log.length = 0
      yield* crash(tree.refs.b)
      assert.deepStrictEqual(log, ["-b", "-c", "-a", "+a", "+b", "+c"])
      for (const incarnation of old) yield* noProcess(incarnation.call.ping())
      assert.deepStrictEqual(yield* Effect.forEach(refs, (ref) => ref.call.ping()), ["a2", "b2", "c2"])
      assert.deepStrictEqual(yield* statuses(tree), ["c running", "b running", "a running"])
    })
  )

  it.effect("SG-07 one_for_all: those that had come up again are stopped before the next attempt", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      let attempts = 0
      class Flaky extends Actor.make("Flaky", {
        init: (_arg: void) =>
          Effect.suspend(() => {
            log.push("?f")
            return ++attempts === 2 || attempts === 3 ? Effect.fail("broken") : Effect.void
          })
      }) {}
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        children: [witness("a", log), witness("b", log), ChildSpec.actor("f", Flaky, undefined), witness("d", log)]
      })
      log.length = 0
      yield* crash(tree.refs.b)
      const tries = ["-b -d -a +a +b ?f", "-b -a +a +b ?f", "-b -a +a +b ?f +d"]
      assert.strictEqual(log.join(" "), tries.join(" "))
      assert.deepStrictEqual(yield* statuses(tree), ["d running", "f running", "b running", "a running"])
    })
  )

  it.effect("SG-08 one_for_all: the next attempt begins with the first child, whichever failed", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = health()
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        intensity: { restarts: 2 },
        children: [witness("a", log), witness("b", log), fragile("f", arg)]
      })
      const events = yield* record(tree.events)
      log.length = 0
      arg.broken = true
      yield* tree.refs.b.cast.crash()
      yield* tree.exit
      yield* settle
      assert.deepStrictEqual(log, ["-b", "-a", "+a", "+b", "-b", "-a", "+a", "+b", "-b", "-a"])
      assert.deepStrictEqual(tags(events).slice(3, 14), [
        "ChildExited b",
        "ChildStopped f",
        "ChildStopped a",
        "ChildStarted a",
        "ChildStarted b",
        "StartFailed f",
        "ChildStopped b",
        "ChildStopped a",
        "ChildStarted a",
        "ChildStarted b",
        "StartFailed f"
      ])
    })
  )

  it.effect("SG-12 rest_for_one: the next attempt begins at the child that failed; those before it stay", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = health()
      const tree = yield* Supervisor.start({
        strategy: "rest_for_one",
        intensity: endless,
        children: [witness("a", log), witness("b", log), witness("c", log), fragile("f", arg), witness("z", log)]
      })
      log.length = 0
      arg.broken = true
      arg.attempts = 0
      yield* crash(tree.refs.b)
      assert.isAbove(arg.attempts, 2)
      assert.deepStrictEqual(log, ["-b", "-z", "-c", "+b", "+c"])
      assert.deepStrictEqual(yield* statuses(tree), [
        "z stopped",
        "f restarting",
        "c running",
        "b running",
        "a running"
      ])
      const held = yield* tree.refs.c.incarnation
      arg.broken = false
      yield* settle
      assert.deepStrictEqual(log, ["-b", "-z", "-c", "+b", "+c", "+z"])
      assert.strictEqual(yield* held.call.ping(), "c2", "it was not touched again")
      assert.strictEqual(yield* tree.refs.f.call.generation(), 2)
    })
  )

  it.effect("SG-15 dynamic: an instance whose start tells something besides is restarted in the same way", () =>
    Effect.gen(function* () {
      let port = 8000
      class Server extends Actor.make("Server", {
        init: (name: string) => Effect.sync(() => Actor.withInfo({ name }, { port: ++port })),
        call: { ping: (self) => `${self.state.name}${self.generation}` },
        cast: { crash: () => Effect.die("crash") }
      }) {}
      const tree = yield* DynamicSupervisor.start()
      const one = yield* tree.startChild(ChildSpec.actor("server", Server, "one"))
      const two = yield* tree.startChild(ChildSpec.actor("server", Server, "two"))
      const infos = Effect.map(tree.whichChildren, (children) => children.map(({ info }) => info))
      assert.deepStrictEqual(yield* infos, [{ port: 8002 }, { port: 8001 }])
      const old = yield* one.incarnation
      yield* crash(one)
      yield* noProcess(old.call.ping())
      assert.strictEqual(yield* one.call.ping(), "one2")
      assert.strictEqual(yield* two.call.ping(), "two1")
      assert.deepStrictEqual(yield* infos, [{ port: 8002 }, { port: 8003 }], "and tells anew")
    })
  )
})

describe("6. Strategies in a tree", () => {
  /** One for all at the top, above two supervisors with two workers each. */
  const forest = (log: Array<string>) =>
    Supervisor.start({
      name: "root",
      strategy: "one_for_all",
      children: [
        ChildSpec.supervisor("left", {
          intensity: { restarts: 1 },
          children: [witness("l1", log), witness("l2", log)]
        }),
        ChildSpec.supervisor("right", { strategy: "one_for_all", children: [witness("r1", log), witness("r2", log)] })
      ]
    })

  it.effect("SG-18 only the leaf that crashed is replaced; the other subtrees keep their identity", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { left, right } = (yield* forest(log)).refs
      const kept = yield* Effect.all([left.refs.l2.incarnation, right.refs.r1.incarnation, right.refs.r2.incarnation])
      log.length = 0
      yield* crash(left.refs.l1)
      assert.deepStrictEqual(log, ["-l1", "+l1"])
      assert.deepStrictEqual(yield* Effect.forEach(kept, (incarnation) => incarnation.call.ping()), [
        "l21",
        "r11",
        "r21"
      ])
      assert.strictEqual(yield* left.refs.l1.call.ping(), "l12")
    })
  )

  it.effect("SG-19 a subtree that exceeds its budget is replaced by its parent, here with its siblings", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* forest(log)
      const { left, right } = tree.refs
      const old = yield* Effect.all([left.refs.l2.incarnation, right.refs.r1.incarnation])
      yield* crash(left.refs.l1)
      log.length = 0
      const events = yield* record(tree.events)
      yield* crash(left.refs.l1)
      yield* settle
      assert.deepStrictEqual(log, ["-l1", "-l2", "-r2", "-r1", "+l1", "+l2", "+r1", "+r2"])
      for (const incarnation of old) yield* noProcess(incarnation.call.ping())
      assert.strictEqual(yield* left.refs.l2.call.ping(), "l22", "what names a child stays good")
      assert.deepStrictEqual(
        (yield* tree.whichChildren).map(({ id, generation, status }) => [id, generation, status]),
        [
          ["right", 2, "running"],
          ["left", 2, "running"]
        ]
      )
      const told = events.filter(({ supervisor }) => supervisor === "root").map(({ _tag, child }) => `${_tag} ${child}`)
      assert.deepStrictEqual(told.slice(2), [
        "ChildExited left",
        "ChildStopped right",
        "ChildStarted left",
        "ChildStarted right",
        "ChildRestarted left"
      ])
      yield* crash(left.refs.l1)
      assert.strictEqual(yield* left.refs.l1.call.ping(), "l14", "the new life has a new budget")
    })
  )

  it.effect("SG-20 what was added to a subtree is gone after its restart; what is listed is back", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* forest(log)
      const { left, right } = tree.refs
      const added = yield* right.startChild(witness("added", log))
      assert.deepStrictEqual(yield* right.countChildren, { specs: 3, active: 3, supervisors: 0, workers: 3 })
      yield* right.terminateChild("r1")
      yield* right.deleteChild("r1")
      yield* left.kill
      yield* settle
      assert.deepStrictEqual(yield* statuses(right), ["r2 running", "r1 running"])
      assert.deepStrictEqual(yield* tree.countChildren, { specs: 2, active: 2, supervisors: 2, workers: 0 })
      yield* noProcess(added.call.ping())
      assert.strictEqual(yield* right.refs.r1.call.ping(), "r12")
    })
  )
})

describe("6. Strategies and names", () => {
  class Named extends Actor.make("Named", {
    init: (_arg: void) => 0,
    call: { generation: (self) => self.generation }
  }) {}

  /** A worker with a name, two supervisors down. */
  const company = Effect.gen(function* () {
    const registry = yield* Registry.make(Named)
    const tree = yield* Supervisor.start({
      name: "root",
      children: [
        ChildSpec.supervisor("middle", {
          children: [ChildSpec.actor("worker", Named, undefined, { names: [registry.name("boss")] })]
        })
      ]
    })
    const owner = Effect.flatMap(registry.lookup("boss"), (entry) =>
      Option.isSome(entry) ? Effect.succeed(entry.value.ref) : Effect.die("nobody has the name")
    )
    return { tree, middle: tree.refs.middle, boss: registry.ref("boss"), owner, registry }
  })

  it.effect("SG-22 a middle supervisor that is killed is back with its worker, under the same names", () =>
    Effect.gen(function* () {
      const { boss, middle, owner, registry, tree } = yield* company
      const old = yield* owner
      const events: Array<Registry.RegistryEvent<string>> = []
      yield* registry.events.pipe(
        Stream.runForEach((event) => Effect.sync(() => events.push(event))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* middle.kill
      yield* settle
      assert.deepStrictEqual(
        (yield* tree.whichChildren).map(({ generation, status }) => [generation, status]),
        [[2, "running"]]
      )
      assert.deepStrictEqual(yield* statuses(middle), ["worker running"])
      yield* noProcess(old.call.generation())
      assert.strictEqual((yield* owner).generation, 2)
      assert.strictEqual(yield* boss.call.generation(), 2)
      assert.strictEqual(yield* registry.count, 1)
      assert.deepStrictEqual(events, [
        { _tag: "Unregistered", key: "boss", owner: "root/middle/worker" },
        { _tag: "Registered", key: "boss", owner: "root/middle/worker" }
      ])
    })
  )

  it.effect("SG-23 after a kill of the worker alone the name is still good", () =>
    Effect.gen(function* () {
      const { boss, middle, owner, tree } = yield* company
      const old = yield* owner
      yield* boss.kill
      yield* settle
      yield* noProcess(old.call.generation())
      assert.strictEqual(yield* boss.call.generation(), 2)
      assert.strictEqual((yield* owner).generation, 2)
      assert.deepStrictEqual(yield* statuses(middle), ["worker running"])
      assert.deepStrictEqual(
        (yield* tree.whichChildren).map(({ generation }) => generation),
        [1],
        "its supervisor is untouched"
      )
    })
  )

  it.effect("SG-24 a permanent worker that ends normally is started again under the same name", () =>
    Effect.gen(function* () {
      const { boss, middle, owner } = yield* company
      const events = yield* record(middle.events)
      const old = yield* owner
      yield* boss.stop
      yield* settle
      const end = events.find((event) => event._tag === "ChildExited")
      assert.isTrue(end?._tag === "ChildExited" && end.exit._tag === ExitReason.normal._tag)
      yield* noProcess(old.call.generation())
      assert.strictEqual((yield* owner).generation, 2)
      assert.strictEqual(yield* boss.call.generation(), 2)
    })
  )
})
