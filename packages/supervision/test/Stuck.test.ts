import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Registry,
  SupervisionEvent,
  SupervisionMetrics,
  SupervisionTree,
  Supervisor,
  SupervisorError
} from "@tinkex/supervision"
import { Deferred, Duration, Effect, Exit, Fiber, Metric, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { one, pending, record, settle, tags, witness } from "./support.ts"

const stuckUntil = <A>(gate: Deferred.Deferred<A>) => Effect.uninterruptible(Deferred.await(gate))

/** Does something when the gate opens, whoever has interrupted it by then. */
const lateAfter = <A>(gate: Deferred.Deferred<void> | undefined, late: () => A) =>
  Effect.uninterruptible(Effect.map(gate === undefined ? assert.fail("no gate") : Deferred.await(gate), late))

interface Box {
  readonly log: Array<string>
  /** One per incarnation. */
  readonly gates: ReadonlyArray<Deferred.Deferred<void>>
}

type Late = (self: Actor.Self<{ readonly box: Box; value: string }>) => unknown

/** Cannot be interrupted while it lingers. Then it does what it was told to. */
class Stubborn extends Actor.make("Stubborn", {
  init: (box: Box) => {
    box.log.push("+")
    return { box, value: "fresh" }
  },
  call: {
    read: (self) => self.state.value,
    generation: (self) => self.generation,
    linger: (self, late: Late) => lateAfter(self.state.box.gates[self.generation - 1], () => late(self))
  },
  cast: {
    write: (self, value: string) => void (self.state.value = value),
    crash: () => Effect.die(new Error("crash"))
  },
  terminate: (self) => void self.state.box.log.push(`-${self.generation}`)
}) {}

const boxOf = (gates: number) =>
  Effect.map(
    Effect.forEach(Array.from({ length: gates }), () => Deferred.make<void>()),
    (gates): Box => ({ gates, log: [] })
  )

const stubborn = Effect.fnUntraced(function* (options: ChildSpec.ChildOptions, gates = 3) {
  const box = yield* boxOf(gates)
  const { ref, tree } = yield* one(Stubborn, box, options)
  const events = yield* record(tree.events)
  const linger = (late: Late = () => undefined) =>
    Effect.tap(Effect.forkChild(Effect.exit(ref.within("1 day").call.linger(late))), () => settle)
  const open = (index: number) => Effect.andThen(Deferred.succeed(box.gates[index] ?? assert.fail(), undefined), settle)
  return { box, events, linger, open, ref, tree }
})

/** Its finalizer waits for the gate. */
class Sticky extends Actor.make("Sticky", {
  *init(box: Box) {
    box.log.push("+")
    const gate = box.gates[box.log.filter((line) => line === "+").length - 1] ?? assert.fail()
    yield* Effect.addFinalizer(() => Effect.map(Deferred.await(gate), () => box.log.push("-")))
    return box
  },
  call: { generation: (self) => self.generation },
  cast: { crash: () => Effect.die(new Error("crash")) }
}) {}

const zombies = (tree: SupervisionTree.Observable) =>
  Effect.map(SupervisionTree.snapshot(tree), (root) => root.children[0]?.zombies)

const counted = Effect.map(Metric.value(SupervisionMetrics.zombies), ({ value }) => value)

const ownMetrics = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map())

const chronicle = (events: ReadonlyArray<SupervisionEvent.SupervisionEvent>) =>
  events.flatMap((event) =>
    "generation" in event && event.child === "it" ? [`${event._tag} ${event.generation}`] : []
  )

describe("abandon", () => {
  it.effect("a stop takes no longer than its limit; the rest is a zombie, counted until it has ended", () =>
    Effect.gen(function* () {
      const { events, linger, open, tree } = yield* stubborn({ shutdown: "2 seconds" })
      for (const generation of [1, 2]) {
        yield* linger()
        const stop = yield* Effect.forkChild(tree.terminateChild("it"))
        yield* settle
        yield* TestClock.adjust(1999)
        assert.deepStrictEqual([pending(stop), yield* zombies(tree)], [true, generation - 1])
        yield* TestClock.adjust(1)
        yield* Fiber.join(stop)
        yield* settle
        assert.deepStrictEqual([yield* zombies(tree), yield* counted], [generation, generation])
        yield* tree.restartChild("it")
      }
      yield* open(1)
      assert.deepStrictEqual([yield* zombies(tree), yield* counted], [1, 1])
      yield* open(0)
      assert.deepStrictEqual([yield* zombies(tree), yield* counted], [0, 0])
      assert.deepStrictEqual(chronicle(events), [
        "ChildStarted 1",
        "Zombie 1",
        "ChildStopped 1",
        "ChildStarted 2",
        "Zombie 2",
        "ChildStopped 2",
        "ChildStarted 3",
        "ZombieEnded 2",
        "ZombieEnded 1"
      ])
      const zombie = events.find((event) => event._tag === "Zombie")
      assert.strictEqual(zombie?._tag === "Zombie" && Duration.toMillis(zombie.limit), 2000)
    }).pipe(ownMetrics)
  )

  it.effect("the default limit is five seconds; brutal is none at all; infinity leaves nobody behind", () =>
    Effect.gen(function* () {
      for (const [options, limit] of [
        [{}, 5000],
        [{ shutdown: "brutal" }, 0],
        [{ shutdown: 0 }, 0]
      ] as const) {
        const { linger, open, tree } = yield* stubborn(options)
        yield* linger()
        const stop = yield* Effect.forkChild(tree.terminateChild("it"))
        yield* settle
        if (limit > 0) {
          yield* TestClock.adjust(limit - 1)
          assert.isTrue(pending(stop))
          yield* TestClock.adjust(1)
        }
        yield* settle
        assert.deepStrictEqual([pending(stop), yield* zombies(tree)], [false, 1])
        yield* open(0)
      }
      const { linger, open, tree } = yield* stubborn({ shutdown: "infinity" })
      yield* linger()
      const stop = yield* Effect.forkChild(tree.terminateChild("it"))
      yield* settle
      yield* TestClock.adjust("365 days")
      assert.deepStrictEqual([pending(stop), yield* zombies(tree)], [true, 0])
      yield* open(0)
      yield* Fiber.join(stop)
    })
  )

  it.effect("a crash whose clean-up takes too long is left behind, and its successor starts", () =>
    Effect.gen(function* () {
      const box = yield* boxOf(2)
      const { ref, tree } = yield* one(Sticky, box, { shutdown: "3 seconds" })
      const events = yield* record(tree.events)
      yield* ref.cast.crash()
      const next = yield* Effect.forkChild(ref.within("1 hour").call.generation())
      yield* settle
      yield* TestClock.adjust(2999)
      assert.isTrue(pending(next))
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(next), 2)
      assert.deepStrictEqual([box.log, yield* zombies(tree)], [["+", "+"], 1])
      yield* Deferred.succeed(box.gates[0] ?? assert.fail(), undefined)
      yield* settle
      assert.deepStrictEqual([box.log, yield* zombies(tree)], [["+", "+", "-"], 0])
      assert.deepStrictEqual(chronicle(events).slice(1), [
        "Zombie 1",
        "ChildExited 1",
        "ChildStarted 2",
        "ChildRestarted 2",
        "ZombieEnded 1"
      ])
      yield* Deferred.succeed(box.gates[1] ?? assert.fail(), undefined)
    })
  )

  it.effect(
    "a temporary child is forgotten, but its zombie is not: it is counted, also after the end of its tree",
    () =>
      Effect.gen(function* () {
        const box = yield* boxOf(1)
        const gate = yield* Deferred.make<void>()
        yield* Effect.scoped(
          Effect.gen(function* () {
            const tree = yield* Supervisor.start({ children: [] })
            const ref = yield* tree.startChild(
              ChildSpec.actor("it", Stubborn, box, { restart: "temporary", shutdown: "brutal" })
            )
            yield* tree.startChild(ChildSpec.effect("effect", stuckUntil(gate), { shutdown: "brutal" }))
            yield* Effect.forkChild(Effect.exit(ref.call.linger(() => undefined)))
            yield* settle
            yield* tree.terminateChild("it")
            yield* settle
            const { children } = yield* SupervisionTree.snapshot(tree)
            assert.deepStrictEqual([children.map(({ id }) => id), yield* counted], [["effect"], 1])
          })
        )
        yield* settle
        assert.strictEqual(yield* counted, 2)
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        assert.strictEqual(yield* counted, 1)
        yield* Deferred.succeed(box.gates[0] ?? assert.fail(), undefined)
        yield* settle
        assert.strictEqual(yield* counted, 0)
      }).pipe(ownMetrics)
  )

  it.effect("an init that cannot be interrupted fails its start after both limits, and ends as a zombie", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const log: Array<string> = []
      class Hangs extends Actor.make("Hangs", {
        *init(_arg: void) {
          yield* Effect.addFinalizer(() => Effect.sync(() => log.push("released")))
          yield* stuckUntil(gate)
          log.push("late")
          return 0
        }
      }) {}
      const tree = yield* Supervisor.start({ children: [] })
      const events = yield* record(tree.events)
      const spec = ChildSpec.actor("it", Hangs, undefined, { startLimit: "2 seconds", shutdown: "1 second" })
      const start = yield* Effect.forkChild(Effect.flip(tree.startChild(spec)))
      yield* settle
      yield* TestClock.adjust(2999)
      assert.isTrue(pending(start))
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(start)).reason._tag, "StartFailed")
      assert.deepStrictEqual(log, [])
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(log, ["released"], "it does not go on, and cleans up")
      assert.deepStrictEqual(tags(events), ["Zombie it", "StartFailed it", "ZombieEnded it"])
    })
  )

  it.effect("who waits for the end of a stuck effect does not wait for the zombie", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<string>()
      const tree = yield* Supervisor.start({
        children: [ChildSpec.effect("it", stuckUntil(gate), { shutdown: "1 second" })]
      })
      const exit = yield* Effect.forkChild(tree.refs.it.exit)
      yield* Effect.forkChild(tree.terminateChild("it"))
      yield* settle
      assert.isTrue(pending(exit))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.join(exit)))
      yield* Deferred.succeed(gate, "too late")
      yield* settle
      assert.isTrue(Exit.hasInterrupts(yield* tree.refs.it.exit))
    })
  )

  it.effect("stuck children of a dynamic supervisor are waited for together, each as long as its own limit", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      const pool = yield* DynamicSupervisor.start().pipe(Effect.provideService(Scope.Scope, scope))
      const events = yield* record(pool.events)
      for (const seconds of [3, 1, 2]) {
        const shutdown = Duration.seconds(seconds)
        yield* pool.startChild(ChildSpec.effect(`${seconds}`, stuckUntil(gate), { shutdown }))
      }
      const close = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* settle
      yield* TestClock.adjust("2500 millis")
      assert.deepStrictEqual(tags(events).slice(3), ["Zombie 1", "ChildStopped 1", "Zombie 2", "ChildStopped 2"])
      assert.isTrue(pending(close))
      yield* TestClock.adjust(500)
      yield* Fiber.join(close)
      yield* Deferred.succeed(gate, undefined)
    })
  )
})

describe("wait", () => {
  it.effect("a stop waits until the child has ended, however long that takes; its zombie is told meanwhile", () =>
    Effect.gen(function* () {
      const { events, linger, open, ref, tree } = yield* stubborn({ shutdown: "1 second", stuck: "wait" })
      yield* linger()
      const stop = yield* Effect.forkChild(tree.terminateChild("it"))
      const restart = yield* Effect.forkChild(tree.restartChild("it"))
      yield* settle
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual([pending(stop), pending(restart), yield* zombies(tree)], [true, true, 1])
      assert.deepStrictEqual(chronicle(events), ["ChildStarted 1", "Zombie 1"])
      yield* open(0)
      yield* Fiber.join(stop)
      yield* Fiber.join(restart)
      assert.strictEqual(yield* ref.call.generation(), 2)
      assert.deepStrictEqual(chronicle(events).slice(2), ["ZombieEnded 1", "ChildStopped 1", "ChildStarted 2"])
      assert.strictEqual(yield* zombies(tree), 0)
    })
  )

  it.effect("the successor of a crash starts when the clean-up is over and not before", () =>
    Effect.gen(function* () {
      const box = yield* boxOf(2)
      const { ref } = yield* one(Sticky, box, { shutdown: "1 second", stuck: "wait" })
      yield* ref.cast.crash()
      const next = yield* Effect.forkChild(ref.within("2 days").call.generation())
      yield* settle
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual([pending(next), box.log], [true, ["+"]])
      yield* Deferred.succeed(box.gates[0] ?? assert.fail(), undefined)
      assert.strictEqual(yield* Fiber.join(next), 2)
      assert.deepStrictEqual(box.log, ["+", "-", "+"])
      yield* Deferred.succeed(box.gates[1] ?? assert.fail(), undefined)
    })
  )

  it.effect("the end of the tree waits too", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const log: Array<string> = []
      const scope = yield* Scope.make()
      yield* Supervisor.start({
        children: [
          witness("a", log),
          ChildSpec.effect("port", stuckUntil(gate), { shutdown: "brutal", stuck: "wait" }),
          witness("b", log)
        ]
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const close = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* settle
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual([pending(close), log], [true, ["+a", "+b", "-b"]])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(close)
      assert.deepStrictEqual(log, ["+a", "+b", "-b", "-a"])
    })
  )
})

describe("fail", () => {
  const failing = (gate: Deferred.Deferred<void>) =>
    ChildSpec.effect("it", stuckUntil(gate), { shutdown: "1 second", stuck: "fail" })

  it.effect("a child that must not be left behind ends its supervisor when it does not stop, and nobody hangs", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [witness("a", log), failing(gate), witness("b", log)] })
      const stop = yield* Effect.forkChild(Effect.exit(tree.terminateChild("it")))
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stop)
      const error = yield* Effect.flip(tree.join)
      assert.isTrue(error.reason._tag === "ChildStuck" && Duration.toMillis(error.reason.limit) === 1000)
      assert.include(error.message, `The child "it" of "supervisor" did not stop within 1s`)
      assert.deepStrictEqual(log, ["+a", "+b", "-b", "-a"])
      yield* Deferred.succeed(gate, undefined)
    })
  )

  it.effect("a clean-up after a crash that does not end does the same", () =>
    Effect.gen(function* () {
      const box = yield* boxOf(1)
      const { ref, tree } = yield* one(Sticky, box, { shutdown: "1 second", stuck: "fail" })
      yield* ref.cast.crash()
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Effect.flip(tree.join)).reason._tag, "ChildStuck")
      assert.deepStrictEqual(box.log, ["+"], "no successor beside it")
      yield* Deferred.succeed(box.gates[0] ?? assert.fail(), undefined)
    })
  )

  it.effect("a nested supervisor that ends so has crashed, and its parent starts it anew", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        children: [
          ChildSpec.supervisor("inner", { restart: "transient", children: [witness("a", log), failing(gate)] })
        ]
      })
      const { inner } = tree.refs
      yield* Effect.forkChild(Effect.exit(inner.terminateChild("it")))
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["+a", "-a", "+a"])
      assert.strictEqual(yield* inner.refs.a.call.ping(), "a2")
      yield* Deferred.succeed(gate, undefined)
    })
  )

  it.effect("an orderly end of the tree stays one", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      const tree = yield* Supervisor.start({ children: [failing(gate)] }).pipe(
        Effect.provideService(Scope.Scope, scope)
      )
      const close = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(close)
      assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
      yield* Deferred.succeed(gate, undefined)
    })
  )
})

describe("a zombie", () => {
  it.effect("writes to nobody: its state, its stop, what it tells itself and its answer miss the successor", () =>
    Effect.gen(function* () {
      const { box, events, linger, open, ref, tree } = yield* stubborn({ shutdown: "brutal" })
      let late = false
      const call = yield* linger((self) => {
        late = true
        self.state.value = "mutated by a zombie"
        self.state = { box, value: "replaced by a zombie" }
        self.continue((self) => void box.log.push(`continued by ${self.generation}`))
        self.timers.start("t", 0, (self) => void box.log.push(`timer of ${self.generation}`))
        self.stop(ExitReason.crash("zombie"))
        return "answer of a zombie"
      })
      yield* tree.terminateChild("it")
      const exit = yield* Fiber.join(call)
      assert.include(String(exit), `ended with shutdown before it answered "linger"`, "its caller does not wait for it")
      yield* tree.restartChild("it")
      yield* ref.cast.write("by the successor")
      yield* open(0)
      assert.isTrue(late)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([yield* ref.call.read(), yield* ref.call.generation()], ["by the successor", 2])
      assert.deepStrictEqual(box.log, ["+", "+", "-1"])
      assert.deepStrictEqual(chronicle(events), [
        "ChildStarted 1",
        "Zombie 1",
        "ChildStopped 1",
        "ChildStarted 2",
        "ZombieEnded 1"
      ])
    })
  )

  it.effect("that dies is told as such, and does not touch its successor", () =>
    Effect.gen(function* () {
      const { events, linger, open, ref, tree } = yield* stubborn({ shutdown: "brutal" })
      yield* linger(() => assert.fail("a zombie dies"))
      yield* tree.terminateChild("it")
      yield* tree.restartChild("it")
      yield* open(0)
      const ended = events.find((event) => event._tag === "ZombieEnded")
      assert.match(
        ended === undefined ? "" : SupervisionEvent.format(ended),
        /^ZombieEnded supervisor\/it: crash .*a zombie dies/
      )
      assert.strictEqual(yield* ref.call.generation(), 2)
    })
  )

  it.effect("reports no progress for its successor", () =>
    Effect.gen(function* () {
      const backoff = Backoff.exponential({ from: 1000, to: 60_000, jitter: false, resetAfter: "1 day" })
      const { events, linger, open, ref, tree } = yield* stubborn({ shutdown: "brutal", backoff })
      let late = false
      yield* linger((self) => {
        late = true
        self.progress()
      })
      yield* tree.terminateChild("it")
      yield* tree.restartChild("it")
      yield* ref.cast.crash()
      yield* TestClock.adjust("1 second")
      yield* open(0)
      assert.isTrue(late)
      yield* ref.cast.crash()
      yield* settle
      assert.deepStrictEqual(
        events.flatMap((event) => (event._tag === "RestartDelayed" ? [Duration.toMillis(event.delay)] : [])),
        [1000, 2000]
      )
    })
  )

  it.effect("takes and gives back no names", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const outcomes: Array<string> = []
      interface Names {
        readonly drop: () => Effect.Effect<boolean>
        readonly take: () => Effect.Effect<void, SupervisorError.SupervisorError>
      }
      class Named extends Actor.make("Named", {
        init: (names: Names) => names,
        call: { generation: (self) => self.generation },
        cast: {
          linger: (self) =>
            Effect.uninterruptible(
              Effect.gen(function* () {
                yield* Deferred.await(gate)
                outcomes.push(String(yield* self.state.drop()))
                outcomes.push((yield* Effect.flip(self.state.take())).reason._tag)
              })
            )
        }
      }) {}
      const registry = yield* Registry.make(Named)
      const names: Names = { drop: () => registry.unregister("name"), take: () => registry.register("another") }
      const { ref, tree } = yield* one(Named, names, { shutdown: "brutal", names: [registry.name("name")] })
      yield* ref.cast.linger()
      yield* settle
      yield* tree.terminateChild("it")
      assert.isTrue(Option.isNone(yield* registry.lookup("name")), "a zombie is nobody's owner")
      yield* tree.restartChild("it")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(outcomes, ["false", "InvalidRequest"])
      assert.strictEqual(yield* registry.ref("name").call.generation(), 2)
      assert.isTrue(Option.isNone(yield* registry.lookup("another")))
    })
  )

  it.effect("cannot answer for its successor: an address that was kept for later is dead", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const outcomes: Array<boolean> = []
      class Keeper extends Actor.make("Keeper", {
        init: () => ({ from: undefined as Actor.From<string, never> | undefined }),
        call: {
          ask: (self) => Actor.later<string>((from) => void (self.state.from = from)),
          generation: (self) => self.generation
        },
        cast: {
          linger: (self) => lateAfter(gate, () => outcomes.push(self.state.from?.succeed("from a zombie") ?? true))
        }
      }) {}
      const { ref, tree } = yield* one(Keeper, undefined, { shutdown: "brutal" })
      const first = yield* Effect.forkChild(Effect.flip(ref.call.ask()))
      yield* settle
      yield* ref.cast.linger()
      yield* settle
      yield* tree.terminateChild("it")
      assert.strictEqual((yield* Fiber.join(first)).reason._tag, "TargetExit")
      yield* tree.restartChild("it")
      const second = yield* Effect.forkChild(ref.call.ask())
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual([outcomes, pending(second)], [[false], true])
      yield* Fiber.interrupt(second)
    })
  )
})
