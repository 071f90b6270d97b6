import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  SupervisionEvent,
  Supervisor,
  type SupervisorError
} from "@tinkex/supervision"
import { Context, DateTime, Deferred, Duration, Effect, Exit } from "effect"
import { TestClock } from "effect/testing"
import { pending, record, settle, tags, witness } from "../support.ts"
import { median, opened, refusal, statuses, timed } from "./strategySupport.ts"

/** An actor whose argument can be seen from outside, and whose end is written down. */
class Server extends Actor.make("Server", {
  init: ({ version }: { readonly version: number; readonly log?: Array<string> }) => ({ version }),
  call: { version: (self) => self.state.version },
  cast: { crash: () => Effect.die("crash") }
}) {}

const server = <const Id extends string>(id: Id, version: number, options?: ChildSpec.ChildOptions) =>
  ChildSpec.actor(id, Server, { version }, options)

describe("9. Reconfiguration: options", () => {
  it.effect("CC-01 the strategy is changed while everything runs", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        name: "shop",
        children: [witness("a", log), witness("b", log), witness("c", log)]
      })
      const events = yield* record(tree.events)
      log.length = 0
      yield* tree.reconfigure({ strategy: "rest_for_one" })
      assert.deepStrictEqual(log, [], "nothing is touched by the change itself")
      yield* tree.refs.b.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-b", "-c", "+b", "+c"])
      log.length = 0
      yield* tree.reconfigure({ strategy: "one_for_all" })
      yield* tree.refs.b.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-b", "-c", "-a", "+a", "+b", "+c"])
      log.length = 0
      yield* tree.reconfigure({ strategy: "one_for_one" })
      yield* tree.refs.b.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-b", "+b"])
      assert.strictEqual(tags(events).filter((tag) => tag === "Reconfigured shop").length, 3)
    })
  )

  const supervisors = {
    ordinary: Effect.map(
      Supervisor.start({ intensity: { restarts: 1, within: "10 seconds" }, children: [witness("a", [])] }),
      (tree) => ({
        tree,
        ref: tree.refs.a,
        change: (options: DynamicSupervisor.DynamicSupervisorOptions) => tree.reconfigure(options)
      })
    ),
    dynamic: Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start({ intensity: { restarts: 1, within: "10 seconds" } })
      const ref = yield* tree.startChild(witness("a", []))
      return { tree, ref, change: (options: DynamicSupervisor.DynamicSupervisorOptions) => tree.reconfigure(options) }
    })
  }

  for (const [kind, start] of Object.entries(supervisors)) {
    it.effect(`CC-01 more restarts are granted from the change on; those before it still count (${kind})`, () =>
      Effect.gen(function* () {
        const { tree, ref, change } = yield* start
        const exit = yield* Effect.forkChild(tree.exit)
        const crash = Effect.andThen(ref.cast.crash(), settle)
        yield* crash
        yield* change({ intensity: { restarts: 3 } })
        yield* crash
        yield* crash
        assert.strictEqual(yield* ref.call.ping(), "a4")
        yield* crash
        assert.isFalse(pending(exit), "three within the window, the first of them before the change")
      })
    )

    it.effect(`CC-01 what is left out of the intensity stays, too (${kind})`, () =>
      Effect.gen(function* () {
        const { tree, ref, change } = yield* start
        const exit = yield* Effect.forkChild(tree.exit)
        yield* change({ intensity: { restarts: 2 } })
        yield* Effect.andThen(ref.cast.crash(), settle)
        yield* Effect.andThen(ref.cast.crash(), settle)
        yield* TestClock.adjust("9 seconds")
        assert.deepStrictEqual((yield* tree.snapshot).intensity, { spent: 2, restarts: 2, within: 10_000 })
        yield* Effect.andThen(ref.cast.crash(), settle)
        assert.isFalse(pending(exit), "the window is still one of ten seconds")
      })
    )

    it.effect(`CC-01 a shorter window forgets what is older (${kind})`, () =>
      Effect.gen(function* () {
        const { ref, change } = yield* start
        yield* Effect.andThen(ref.cast.crash(), settle)
        yield* TestClock.adjust("3 seconds")
        yield* change({ intensity: { restarts: 1, within: "2 seconds" } })
        yield* Effect.andThen(ref.cast.crash(), settle)
        assert.strictEqual(yield* ref.call.ping(), "a3")
      })
    )

    it.effect(`CC-01 a backoff, and how it gives up, are changed while everything runs (${kind})`, () =>
      Effect.gen(function* () {
        const { tree, ref, change } = yield* start
        yield* change({ giveUp: "shutdown", backoff: Backoff.fixed("1 second") })
        yield* Effect.andThen(ref.cast.crash(), settle)
        assert.deepStrictEqual(yield* statuses(tree), ["a restarting"])
        yield* TestClock.adjust("1 second")
        yield* settle
        assert.deepStrictEqual(yield* statuses(tree), ["a running"])
        yield* ref.cast.crash()
        assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
      })
    )

    it.effect(`CC-01 an option that is given as undefined is left out (${kind})`, () =>
      Effect.gen(function* () {
        const { tree, ref, change } = yield* start
        yield* change({ giveUp: "shutdown", autoShutdown: "any_significant", backoff: Backoff.fixed("1 second") })
        yield* change({
          giveUp: undefined,
          autoShutdown: undefined,
          backoff: undefined,
          intensity: { restarts: undefined, within: undefined }
        })
        yield* change({ intensity: undefined })
        yield* Effect.andThen(ref.cast.crash(), settle)
        assert.deepStrictEqual(yield* statuses(tree), ["a restarting"], "the backoff is still there")
        yield* TestClock.adjust("1 second")
        yield* settle
        assert.deepStrictEqual((yield* tree.snapshot).intensity, { spent: 1, restarts: 1, within: 10_000 })
        yield* ref.cast.crash()
        assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
      })
    )
  }

  it.effect("CC-01 a supervisor that has ended refuses; one that is restarted begins with its own options again", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { tree, close } = yield* opened(
        Supervisor.start({
          children: [ChildSpec.supervisor("inner", { children: [witness("x", log), witness("y", log)] })]
        })
      )
      const { inner } = tree.refs
      yield* inner.reconfigure({ strategy: "one_for_all" })
      yield* inner.kill
      yield* settle
      log.length = 0
      yield* inner.refs.x.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-x", "+x"])
      yield* close
      assert.strictEqual(yield* refusal(tree.reconfigure({ strategy: "one_for_all" })), "SupervisorStopped")
      assert.strictEqual(yield* refusal(inner.reconfigure({ strategy: "one_for_all" })), "SupervisorStopped")
    })
  )
})

describe("9. Reconfiguration: specs", () => {
  it.effect("CC-02 options and specs that make no sense are refused by name, and all stays as it was", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        name: "shop",
        strategy: "rest_for_one",
        children: [server("s", 1, { restart: "transient" }), witness("a", log), witness("b", log)]
      })
      const before = yield* tree.snapshot
      const spec = yield* tree.childSpec("s")
      const problem = (change: Effect.Effect<void, SupervisorError.SupervisorError>) =>
        Effect.map(Effect.flip(change), ({ message, reason }) => {
          assert.strictEqual(reason._tag, "InvalidRequest")
          return message
        })
      const good = [server("s", 2, { restart: "permanent" }), witness("new", log)] as const
      const strategy = "one_for_all"
      assert.include(
        yield* problem(tree.reconfigure({ strategy, children: [...good, witness("bad", log, { shutdown: -1 })] })),
        `"shop" refused children[2].shutdown: it is -1`
      )
      assert.include(
        yield* problem(tree.reconfigure({ strategy, children: [...good, witness("s", log)] })),
        `children[2].id: two children have the id "s"`
      )
      assert.include(
        yield* problem(
          tree.reconfigure({
            strategy,
            children: [...good, witness("t", log, { restart: "temporary", significant: true })]
          })
        ),
        "children[2].significant: autoShutdown is never"
      )
      assert.include(
        yield* problem(tree.reconfigure({ strategy, children: [...good, ChildSpec.effect("a", Effect.never)] })),
        "children[2]"
      )
      assert.include(
        yield* problem(
          tree.reconfigure({
            strategy,
            children: [...good, ChildSpec.supervisor("n", { intensity: { restarts: -1 }, children: [] })]
          })
        ),
        "intensity.restarts: it is -1"
      )
      assert.include(
        yield* problem(tree.reconfigure({ strategy, intensity: { restarts: 0.5 } })),
        "intensity.restarts: it is 0.5"
      )
      // @ts-expect-error there is no such strategy
      assert.include(yield* problem(tree.reconfigure({ strategy: "none_for_all" })), `strategy: it is "none_for_all"`)
      // @ts-expect-error a child spec is made with ChildSpec
      assert.include(yield* problem(tree.reconfigure({ strategy, children: [{ id: "x" }] })), "children[0]")

      assert.deepStrictEqual(yield* tree.snapshot, before)
      assert.deepStrictEqual(yield* tree.childSpec("s"), spec)
      log.length = 0
      yield* tree.refs.a.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-a", "-b", "+a", "+b"], "the strategy is the old one")
      yield* tree.terminateChild("s")
      yield* tree.restartChild("s")
      assert.strictEqual(yield* tree.refs.s.call.version(), 1, "and so is the spec")
    })
  )

  it.effect(
    "CC-02 a spec for another actor, or another kind of supervisor, is no change of a child but another child",
    () =>
      Effect.gen(function* () {
        const tree = yield* Supervisor.start({
          children: [server("s", 1), ChildSpec.supervisor("inner", { children: [] })]
        })
        assert.strictEqual(yield* refusal(tree.reconfigure({ children: [witness("s", [])] })), "InvalidRequest")
        assert.strictEqual(
          yield* refusal(tree.reconfigure({ children: [DynamicSupervisor.childSpec("inner")] })),
          "InvalidRequest"
        )
        assert.strictEqual(yield* tree.refs.s.call.version(), 1)
        yield* tree.terminateChild("s")
        yield* tree.deleteChild("s")
        yield* tree.reconfigure({ children: [witness("s", [])] })
        yield* tree.restartChild("s")
        assert.deepStrictEqual(yield* statuses(tree), ["s running", "inner running"])
      })
  )

  it.effect("CC-04 a changed spec replaces the old one without touching the child that runs", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [server("s", 1), server("t", 1)] })
      const running = yield* tree.refs.s.incarnation
      yield* tree.reconfigure({ children: [server("s", 2, { restart: "transient", shutdown: "1 second" })] })
      const spec = yield* tree.childSpec("s")
      assert.strictEqual(spec.restart, "transient")
      assert.deepStrictEqual(spec.shutdown, Duration.seconds(1))
      assert.strictEqual(yield* running.call.version(), 1)
      yield* running.stop
      yield* settle
      assert.deepStrictEqual(yield* statuses(tree), ["t running", "s stopped"], "it has its new restart type at once")
      yield* tree.restartChild("s")
      assert.strictEqual(yield* tree.refs.s.call.version(), 2)
      yield* tree.refs.s.cast.crash()
      yield* settle
      assert.strictEqual(yield* tree.refs.s.call.version(), 2)
      assert.strictEqual(yield* tree.refs.t.call.version(), 1)
    })
  )

  it.effect("CC-04 an effect child goes on with the old effect, and comes back with the new one and its services", () =>
    Effect.gen(function* () {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const old = Effect.andThen(
        Deferred.await(gate),
        Effect.flatMap(Name, (name) => Effect.sync(() => log.push(`old ${name}`)))
      )
      const next = Effect.andThen(
        Effect.flatMap(Name, (name) => Effect.sync(() => log.push(`new ${name}`))),
        Effect.never
      )
      const tree = yield* Supervisor.start({ children: [ChildSpec.effect("job", old)] }).pipe(
        Effect.provideService(Name, "starter")
      )
      yield* tree
        .reconfigure({ children: [ChildSpec.effect("job", next)] })
        .pipe(Effect.provideService(Name, "reconfigurer"))
      yield* settle
      assert.deepStrictEqual(log, [])
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(log, ["old starter", "new reconfigurer"])
    })
  )

  it.effect("CC-04 a changed actor spec brings the services that its next incarnation needs", () =>
    Effect.gen(function* () {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      class Greeter extends Actor.make("Greeter", {
        init: (_arg: void) => Effect.map(Name, (name) => ({ name })),
        call: {
          name: (self) => self.state.name,
          present: () => Effect.flatMap(Name, (name) => Effect.succeed(name))
        }
      }) {}
      const spec = ChildSpec.actor("g", Greeter, undefined)
      const tree = yield* Effect.provideService(Supervisor.start({ children: [spec] }), Name, "one")
      yield* Effect.provideService(tree.reconfigure({ children: [spec] }), Name, "two")
      assert.deepStrictEqual(yield* Effect.all([tree.refs.g.call.name(), tree.refs.g.call.present()]), ["one", "one"])
      yield* tree.refs.g.kill
      yield* settle
      assert.deepStrictEqual(yield* Effect.all([tree.refs.g.call.name(), tree.refs.g.call.present()]), ["two", "two"])
    })
  )

  it.effect("CC-04 an inner supervisor goes on with its children, and begins its next life with the new ones", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        children: [ChildSpec.supervisor("inner", { children: [server("s", 1), witness("x", log)] }), witness("a", log)]
      })
      const ref = tree.refs.inner
      yield* tree.reconfigure({
        children: [
          ChildSpec.supervisor("inner", {
            strategy: "one_for_all",
            children: [witness("first", log), server("s", 2), witness("y", log)]
          })
        ]
      })
      assert.deepStrictEqual(yield* statuses(ref), ["x running", "s running"])
      assert.strictEqual(yield* ref.refs.s.call.version(), 1)
      log.length = 0
      yield* ref.kill
      yield* settle
      assert.deepStrictEqual(log, ["-x", "+first", "+y"])
      assert.deepStrictEqual(yield* statuses(ref), ["y running", "s running", "first running"])
      assert.strictEqual(yield* ref.refs.s.call.version(), 2, "what names a child stays good")
      log.length = 0
      yield* ref.refs.s.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-y", "-first", "+first", "+y"], "the strategy is the new one")
    })
  )

  it.effect("CC-04 an inner dynamic supervisor has its new options from its next life on", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [DynamicSupervisor.childSpec("pool", { maxChildren: 2 })] })
      const { pool } = tree.refs
      yield* pool.startChild(witness("a", []))
      yield* tree.reconfigure({ children: [DynamicSupervisor.childSpec("pool", { maxChildren: 1 })] })
      yield* pool.startChild(witness("b", []))
      assert.deepStrictEqual(yield* statuses(pool), ["b running", "a running"])
      yield* pool.kill
      yield* settle
      yield* pool.startChild(witness("c", []))
      assert.strictEqual(yield* refusal(pool.startChild(witness("d", []))), "MaxChildren")
    })
  )

  it.effect("CC-05 children that the new configuration does not list are kept; new ones are listed, not started", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [witness("a", log), witness("b", log)] })
      yield* tree.startChild(witness("added", log))
      yield* tree.terminateChild("a")
      log.length = 0
      yield* tree.reconfigure({ children: [witness("b", log), witness("new", log)] })
      assert.deepStrictEqual(log, [])
      assert.deepStrictEqual(yield* statuses(tree), ["new stopped", "added running", "b running", "a stopped"])
      assert.deepStrictEqual(yield* tree.countChildren, { specs: 4, active: 2, supervisors: 0, workers: 4 })
      yield* tree.restartChild("new")
      yield* tree.restartChild("a")
      assert.deepStrictEqual(log, ["+new", "+a"])
      assert.deepStrictEqual(yield* statuses(tree), ["new running", "added running", "b running", "a running"])
    })
  )

  it.effect("CC-06 a change that has nothing to say, or nothing to run, leaves everything as it was", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        intensity: { restarts: 7, within: "1 minute" },
        children: [witness("a", log), witness("b", log)]
      })
      const before = yield* tree.snapshot
      yield* tree.reconfigure({})
      yield* tree.reconfigure({ when: Effect.succeed(false) })
      assert.deepStrictEqual(yield* tree.snapshot, before)
      log.length = 0
      yield* tree.refs.a.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-a", "-b", "+a", "+b"])
      assert.deepStrictEqual((yield* tree.snapshot).intensity, { spent: 1, restarts: 7, within: 60_000 })
    })
  )

  it.effect("CC-08 a dynamic supervisor takes other options, keeps its children, and has no list to add to", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start({ name: "pool", maxChildren: 5 })
      const one = yield* tree.startChild(server("s", 1))
      const two = yield* tree.startChild(server("s", 1))
      yield* tree.reconfigure({ maxChildren: 1 })
      assert.deepStrictEqual(yield* statuses(tree), ["s running", "s running"])
      assert.strictEqual(yield* refusal(tree.startChild(server("s", 2))), "MaxChildren")
      yield* tree.terminateChild(one)
      yield* tree.terminateChild(two)
      // each child brings its own spec, so that of the next one may be another
      const next = yield* tree.startChild(server("s", 2, { restart: "temporary" }))
      assert.strictEqual(yield* next.call.version(), 2)
      const before = yield* tree.snapshot
      // @ts-expect-error a dynamic supervisor has no list of children
      assert.strictEqual(yield* refusal(tree.reconfigure({ maxChildren: 9, children: [] })), "InvalidRequest")
      assert.strictEqual(yield* refusal(tree.reconfigure({ maxChildren: -1 })), "InvalidRequest")
      assert.strictEqual(yield* refusal(tree.reconfigure({ intensity: { within: 0 } })), "InvalidRequest")
      assert.deepStrictEqual(yield* tree.snapshot, before)
      assert.strictEqual(yield* refusal(tree.startChild(server("s", 2))), "MaxChildren", "the limit is still one")
    })
  )
})

describe("9. Scale", () => {
  class Idle extends Actor.make("Idle", { init: (_arg: void) => 0 }) {}

  /**
   * How much more a child costs among many than among few. Both are measured in turns, and the few as often as it takes to
   * come near the many, so that a collection of garbage, or whatever else the machine does, hits both.
   */
  const compare = Effect.fnUntraced(function* (
    few: number,
    many: number,
    cost: (size: number) => Effect.Effect<number>
  ) {
    const repeats = Math.ceil(many / few / 8)
    const small: Array<number> = []
    const large: Array<number> = []
    yield* cost(few * 2)
    for (let round = 0; round < 3; round++) {
      let total = 0
      for (let repeat = 0; repeat < repeats; repeat++) total += yield* cost(few)
      small.push(total / repeats / few)
      large.push((yield* cost(many)) / many)
    }
    const micros = (millis: number) => `${(millis * 1000).toFixed(2)} µs`
    const told = `a child costs ${micros(median(small))} among ${few}, and ${micros(median(large))} among ${many}`
    return { ratio: median(large) / median(small), told }
  })

  it.effect("SC-01 ending ten times as many temporary children takes a small multiple of ten times as long", () =>
    Effect.gen(function* () {
      const ending = (size: number) =>
        Effect.scoped(
          Effect.gen(function* () {
            const tree = yield* DynamicSupervisor.start()
            const refs = yield* Effect.forEach(Array.from({ length: size }), () =>
              tree.startChild(ChildSpec.actor("t", Idle, undefined, { restart: "temporary" }))
            )
            assert.strictEqual((yield* tree.countChildren).active, size)
            const left = Effect.map(tree.countChildren, ({ specs }) => specs)
            return yield* timed(
              Effect.andThen(
                Effect.forEach(refs, (ref) => ref.kill, { discard: true }),
                Effect.andThen(Effect.yieldNow, left).pipe(Effect.repeat({ until: (specs) => specs === 0 }))
              )
            )
          })
        ).pipe(Effect.orDie)
      const { ratio, told } = yield* compare(1000, 10_000, ending)
      assert.isBelow(ratio, 5, told)
    })
  )

  it.effect("SC-02 starting and stopping a hundred times as many children takes about a hundred times as long", () =>
    Effect.gen(function* () {
      const whole = (size: number) => {
        const children = Array.from({ length: size }, (_, index) => ChildSpec.actor(`child ${index}`, Idle, undefined))
        return timed(
          Effect.scoped(
            Effect.map(
              Effect.flatMap(Supervisor.start({ children }), (tree) => tree.countChildren),
              ({ active }) => assert.strictEqual(active, size)
            )
          )
        ).pipe(Effect.orDie)
      }
      const { ratio, told } = yield* compare(1000, 100_000, whole)
      assert.isBelow(ratio, 6, told)
    })
  )

  it.effect("SC-02 so does adding and terminating them one by one", () =>
    Effect.gen(function* () {
      const whole = (size: number) =>
        Effect.scoped(
          Effect.gen(function* () {
            const tree = yield* Supervisor.start({ children: [] })
            return yield* timed(
              Effect.gen(function* () {
                for (let index = 0; index < size; index++) {
                  yield* tree.startChild(ChildSpec.actor(`child ${index}`, Idle, undefined))
                }
                assert.strictEqual((yield* tree.countChildren).active, size)
                for (let index = 0; index < size; index++) {
                  yield* tree.terminateChild(`child ${index}`)
                  yield* tree.deleteChild(`child ${index}`)
                }
                assert.strictEqual((yield* tree.countChildren).specs, 0)
              })
            )
          })
        ).pipe(Effect.orDie)
      const { ratio, told } = yield* compare(300, 12_000, whole)
      assert.isBelow(ratio, 6, told)
    })
  )
})

describe("9. Reports", () => {
  const time = DateTime.makeUnsafe(0)
  const at = (child: string) => ({ supervisor: "root/pool", child, time })
  const exit = ExitReason.fromExit(Exit.die(new Error("the disk\n  is full")), false)
  const crashed: SupervisionEvent.SupervisionEvent = {
    _tag: "ChildExited",
    ...at("worker"),
    generation: 3,
    exit,
    report: { operation: "save", client: "root/web", state: { pages: 7 } }
  }

  it.effect("LG-02 an event in one line says who, what and why, whatever lines the reason has", () =>
    Effect.sync(() => {
      const line = "ChildExited root/pool/worker: crash (Error: the disk is full) in save"
      assert.strictEqual(SupervisionEvent.format(crashed), line)
      assert.strictEqual(SupervisionEvent.format(crashed, { multiline: false }), line)
      assert.strictEqual(
        SupervisionEvent.format({ _tag: "ChildStarted", ...at("worker"), generation: 1 }),
        "ChildStarted root/pool/worker"
      )
      assert.strictEqual(
        SupervisionEvent.format({ _tag: "MessageDropped", ...at("worker"), operation: "save", why: "mailbox_full" }),
        "MessageDropped root/pool/worker: save (mailbox_full)"
      )
      assert.strictEqual(
        SupervisionEvent.format({ _tag: "ShutdownError", ...at("worker"), exit: ExitReason.killed }),
        "ShutdownError root/pool/worker: killed"
      )
    })
  )

  it.effect("LG-02 in several lines it adds the client, the state that may be shown, and the whole cause", () =>
    Effect.sync(() => {
      const lines = SupervisionEvent.format(crashed, { multiline: true }).split("\n")
      assert.include(lines[0], "ChildExited root/pool/worker: crash (Error: the disk")
      assert.include(lines, "  client: root/web")
      assert.include(lines, `  state: {"pages":7}`)
      assert.isTrue(
        lines.some((line) => line.includes("Reconfiguration.test.ts")),
        "where it was thrown"
      )
      const bare = SupervisionEvent.format({ ...crashed, report: {} }, { multiline: true })
      assert.notInclude(bare, "client:")
      assert.notInclude(bare, "state:")
    })
  )

  it.effect("LG-02 a limit on the characters holds for every form, and shows that something is missing", () =>
    Effect.sync(() => {
      for (const multiline of [false, true]) {
        const whole = SupervisionEvent.format(crashed, { multiline })
        for (const limit of [1, 2, 20, whole.length - 1]) {
          const text = SupervisionEvent.format(crashed, { multiline, limit })
          assert.strictEqual(text.length, limit)
          assert.strictEqual(text, `${whole.slice(0, limit - 1)}…`)
        }
        for (const limit of [whole.length, whole.length + 1]) {
          assert.strictEqual(SupervisionEvent.format(crashed, { multiline, limit }), whole)
        }
        assert.isAtMost(SupervisionEvent.format(crashed, { multiline, limit: 0 }).length, 0)
      }
      const many = Array.from({ length: 50 }, (_, index) => ({ ...crashed, supervisor: `root/pool${index}` }))
      const summary = SupervisionEvent.summarize(many, { limit: 100 })
      assert.strictEqual(summary.length, 100)
      assert.isTrue(summary.endsWith("…"))
    })
  )

  it.effect("LG-02 what happened to many children in the same way is one line that counts them", () =>
    Effect.sync(() => {
      const killed = Array.from({ length: 12 }, (_, index) => ({
        _tag: "ShutdownError" as const,
        ...at(String(index)),
        exit: ExitReason.killed
      }))
      const lines = SupervisionEvent.summarize([...killed.slice(0, 5), crashed, ...killed.slice(5)]).split("\n")
      assert.strictEqual(lines.length, 2)
      assert.strictEqual(lines[0], "ShutdownError root/pool: killed (12 children)")
      assert.strictEqual(lines[1], "ChildExited root/pool: crash (Error: the disk is full) (1 child)")
      const elsewhere = { ...crashed, supervisor: "root/other" }
      assert.strictEqual(SupervisionEvent.summarize([crashed, elsewhere]).split("\n").length, 2)
      assert.strictEqual(SupervisionEvent.summarize([]), "")
    })
  )

  it.effect("LG-02 the events of a pool that is stopped are summarized with one line per reason", () =>
    Effect.gen(function* () {
      class Bad extends Actor.make("Bad", {
        *init(_arg: void) {
          yield* Effect.addFinalizer(() => Effect.die("no"))
          return 0
        }
      }) {}
      const { tree, close } = yield* opened(DynamicSupervisor.start({ name: "pool" }))
      for (let index = 0; index < 3; index++) yield* tree.startChild(ChildSpec.actor(`bad${index}`, Bad, undefined))
      const events = yield* record(tree.events)
      yield* close
      yield* settle
      const errors = events.filter(({ _tag }) => _tag === "ShutdownError")
      assert.strictEqual(SupervisionEvent.summarize(errors), "ShutdownError pool: crash (no) (3 children)")
    })
  )
})
