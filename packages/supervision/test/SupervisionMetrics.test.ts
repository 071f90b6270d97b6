import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  SupervisionEvent,
  SupervisionMetrics,
  Supervisor
} from "@tinkex/supervision"
import { Deferred, Effect, Exit, Metric, Scope } from "effect"
import { TestClock } from "effect/testing"
import { record, settle, witness } from "./support.ts"

/** Each program here counts for itself. */
const measured = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map())

const gauge = (metric: typeof SupervisionMetrics.children) => Effect.map(Metric.value(metric), ({ value }) => value)
const counter = (metric: Metric.Metric<number, Metric.CounterState<number>>) =>
  Effect.map(Metric.value(metric), ({ count }) => count)

const children = gauge(SupervisionMetrics.children)
const zombies = gauge(SupervisionMetrics.zombies)
const messages = counter(SupervisionMetrics.messages)
const events = (event: SupervisionEvent.SupervisionEvent["_tag"]) =>
  counter(Metric.withAttributes(SupervisionMetrics.events, { event }))

class Worker extends Actor.make("Worker", {
  init: () => 0,
  call: { ping: () => "pong" },
  cast: { note: () => {}, crash: () => Effect.die(new Error("crash")) },
  mailbox: { capacity: 1, overflow: "dropNewest" }
}) {}

const worker = <const Id extends string>(id: Id, options?: ChildSpec.ChildOptions) =>
  ChildSpec.actor(id, Worker, undefined, options)

describe("events", () => {
  it.effect("are counted by tag, as many as were told", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const tree = yield* Supervisor.start({
        intensity: { restarts: 100 },
        children: [worker("a"), worker("b", { backoff: Backoff.fixed("1 second") })]
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const told = yield* record(tree.events)
      for (let n = 0; n < 3; n++) {
        yield* tree.refs.a.cast.crash()
        yield* settle
      }
      yield* tree.refs.b.cast.crash()
      yield* settle
      for (let n = 0; n < 3; n++) yield* tree.refs.b.cast.note()
      yield* TestClock.adjust("1 second")
      yield* Scope.close(scope, Exit.void)
      yield* settle
      const expected = [
        ["ChildStarted", 6],
        ["ChildExited", 4],
        ["ChildRestarted", 4],
        ["RestartDelayed", 1],
        ["MessageDropped", 2],
        ["ChildStopped", 2],
        ["SupervisorExited", 1],
        ["GaveUp", 0]
      ] as const
      for (const [tag, count] of expected) {
        assert.strictEqual(yield* events(tag), count, tag)
        assert.strictEqual(told.filter(({ _tag }) => _tag === tag).length, count, tag)
      }
    }).pipe(measured)
  )

  it.effect("reach the metrics once per turn of the event loop, not one by one", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [worker("a")] })
      yield* settle
      assert.strictEqual(yield* events("ChildStarted"), 1)
      const before = yield* Metric.dump
      yield* tree.terminateChild("a")
      assert.strictEqual(yield* Metric.dump, before)
      yield* settle
      assert.strictEqual(yield* events("ChildStopped"), 1)
    }).pipe(measured)
  )

  it.effect("of all trees of a program add up, and those of another program do not", () =>
    Effect.gen(function* () {
      for (let n = 0; n < 3; n++) yield* Supervisor.start({ name: `tree ${n}`, children: [worker("a"), worker("b")] })
      yield* measured(Supervisor.start({ children: [worker("elsewhere")] }))
      yield* settle
      assert.deepStrictEqual([yield* events("ChildStarted"), yield* children], [6, 6])
    }).pipe(measured)
  )
})

describe("messages", () => {
  it.effect("that were handled are counted, at the latest when the tree ends", () =>
    Effect.gen(function* () {
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tree = yield* Supervisor.start({ children: [worker("a"), worker("b")] })
          for (let n = 0; n < 5; n++) yield* tree.refs.a.call.ping()
          yield* tree.refs.b.cast.note()
          yield* settle
        })
      )
      assert.strictEqual(yield* messages, 6)
    }).pipe(measured)
  )
})

describe("children", () => {
  it.effect("that are up are counted through starts, crashes, delays and stops, supervisors too", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const tree = yield* Supervisor.start({
        children: [
          worker("a"),
          worker("delayed", { backoff: Backoff.fixed("1 second") }),
          worker("temporary", { restart: "temporary" }),
          ChildSpec.supervisor("inner", { intensity: { restarts: 0 }, children: [worker("c"), worker("d")] }),
          DynamicSupervisor.childSpec("pool")
        ]
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const { inner, pool } = tree.refs
      const now = Effect.andThen(settle, children)
      assert.strictEqual(yield* now, 7)
      const child = yield* pool.startChild(witness("w", []))
      assert.strictEqual(yield* now, 8)
      yield* tree.refs.a.cast.crash()
      assert.strictEqual(yield* now, 8, "it is back")
      yield* tree.refs.delayed.cast.crash()
      assert.strictEqual(yield* now, 7)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* now, 8)
      yield* tree.refs.temporary.stop
      assert.strictEqual(yield* now, 7)
      yield* inner.refs.c.cast.crash()
      assert.strictEqual(yield* now, 7, "a supervisor that gave up came back with its children")
      yield* inner.terminateChild("c")
      assert.strictEqual(yield* now, 6)
      yield* tree.terminateChild("inner")
      assert.strictEqual(yield* now, 4)
      yield* pool.terminateChild(child)
      assert.strictEqual(yield* now, 3)
      assert.strictEqual((yield* tree.countChildren).active, 3)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* now, 0)
    }).pipe(measured)
  )

  it.effect("that did not come up are not counted, nor those of a tree that gave up", () =>
    Effect.gen(function* () {
      class Broken extends Actor.make("Broken", { init: (_arg: void) => Effect.fail("broken") }) {}
      yield* Effect.exit(Supervisor.start({ children: [worker("a"), ChildSpec.actor("b", Broken, undefined)] }))
      yield* settle
      assert.deepStrictEqual([yield* children, yield* events("StartFailed")], [0, 1])
      const tree = yield* Supervisor.start({ intensity: { restarts: 0 }, children: [worker("a"), worker("b")] })
      yield* tree.refs.a.cast.crash()
      yield* tree.exit
      yield* settle
      assert.deepStrictEqual([yield* children, yield* events("GaveUp")], [0, 1])
    }).pipe(measured)
  )
})

describe("zombies", () => {
  it.effect("are counted until they end, whatever became of their supervisor", () =>
    Effect.gen(function* () {
      const gates = [yield* Deferred.make<void>(), yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const stuck = (index: number) =>
        ChildSpec.effect(`${index}`, Effect.uninterruptible(Deferred.await(gates[index] ?? assert.fail())), {
          shutdown: "brutal"
        })
      const now = Effect.andThen(settle, Effect.all([zombies, children]))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tree = yield* Supervisor.start({ children: [stuck(0), stuck(1), stuck(2)] })
          yield* tree.terminateChild("0")
          assert.deepStrictEqual(yield* now, [1, 2], "it is not up any more")
          yield* Deferred.succeed(gates[0] ?? assert.fail(), undefined)
          assert.deepStrictEqual(yield* now, [0, 2])
          yield* tree.terminateChild("1")
        })
      )
      assert.deepStrictEqual(yield* now, [2, 0])
      yield* Deferred.succeed(gates[1] ?? assert.fail(), undefined)
      assert.deepStrictEqual(yield* now, [1, 0])
      yield* Deferred.succeed(gates[2] ?? assert.fail(), undefined)
      assert.deepStrictEqual(yield* now, [0, 0])
      assert.deepStrictEqual([yield* events("Zombie"), yield* events("ZombieEnded")], [3, 3])
    }).pipe(measured)
  )
})
