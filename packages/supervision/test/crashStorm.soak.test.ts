import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Registry,
  SupervisionTree,
  Supervisor
} from "@tinkex/supervision"
import { Deferred, Effect, Exit, Logger, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { settle } from "./support.ts"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void // the flag above is what defines it

/** Bytes that are still in use after everything else was collected. */
const heap = Effect.promise(async () => {
  for (let i = 0; i < 5; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed
})

const noise = Symbol("noise")

/** Has what an actor can have: a finalizer, timers, a name, continuations, and several ways to end. */
class Victim extends Actor.make("Victim", {
  *init(_arg: void) {
    yield* Effect.addFinalizer(() => Effect.void)
    return { handled: 0 }
  },
  started: (self) => {
    self.timers.every("tick", "10 seconds", (self) => void self.state.handled++)
    self.timers.start("late", "1 hour", () => {})
  },
  call: {
    *slow(self) {
      yield* Effect.sleep("1 second")
      return self.state.handled
    }
  },
  cast: {
    crash: () => {
      throw noise
    },
    *fail() {
      yield* Effect.sleep("1 second")
      return yield* Effect.fail("failed")
    },
    stop: (self) => self.stop(),
    touch: (self) => void self.state.handled++
  },
  mailbox: { capacity: 16, overflow: "dropOldest", acrossRestart: "keepOthers" }
}) {}

/** Does not end when it is asked to: it becomes a zombie, and ends when its gate opens. */
const stubborn = (gates: Set<Deferred.Deferred<void>>) =>
  Effect.gen(function* () {
    const gate = yield* Deferred.make<void>()
    gates.add(gate)
    yield* Effect.uninterruptible(Deferred.await(gate))
    gates.delete(gate)
  })

const hours = 24
const minutes = hours * 60

it.effect(
  `a day of crash storms: the heap does not grow after hour 2, and every zombie is accounted for until it ends`,
  () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const gates = new Set<Deferred.Deferred<void>>()
      const names = yield* Registry.make(Victim)
      const intensity = { restarts: 1000, within: "1 second" } as const
      const backoff = Backoff.exponential({ from: "100 millis", to: "5 seconds", jitter: true })
      const victim = <const Id extends string>(id: Id, options: ChildSpec.ChildOptions = {}) =>
        ChildSpec.actor(id, Victim, undefined, { names: [names.name(id, undefined)], ...options })
      const tree = yield* Supervisor.start({
        intensity,
        children: [
          ChildSpec.supervisor("all", { strategy: "one_for_all", intensity, children: [victim("a"), victim("b")] }),
          ChildSpec.supervisor("rest", { strategy: "rest_for_one", intensity, children: [victim("c"), victim("d")] }),
          victim("delayed", { backoff }),
          ChildSpec.effect("stubborn", stubborn(gates), { shutdown: "1 second" }),
          DynamicSupervisor.childSpec("pool", { intensity })
        ]
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const { all, delayed, pool, rest } = tree.refs
      yield* Effect.forkScoped(Stream.runDrain(tree.events))
      let restarts = 0
      let after2 = Number.NaN
      for (let minute = 1; minute <= minutes; minute++) {
        for (let i = 0; i < 4; i++) {
          yield* all.refs.a.cast.crash()
          yield* rest.refs.c.kill
          yield* rest.refs.d.cast.fail()
          yield* delayed.cast.crash()
          yield* Effect.forkChild(Effect.exit(all.refs.b.call.slow()))
          const come = yield* pool.startChild(ChildSpec.actor("come", Victim, undefined, { restart: "temporary" }))
          const go = yield* pool.startChild(ChildSpec.actor("go", Victim, undefined, { restart: "transient" }))
          for (let n = 0; n < 20; n++) yield* come.cast.touch()
          yield* come.cast.crash()
          yield* go.cast.stop()
          yield* TestClock.adjust("5 seconds")
          yield* settle
          restarts += 4
        }
        if (minute % 10 === 0) yield* Effect.forkChild(tree.terminateChild("stubborn"))
        yield* TestClock.adjust("40 seconds")
        yield* settle
        if (minute % 10 === 0) {
          const zombies = SupervisionTree.flatten(yield* tree.snapshot).reduce((sum, node) => sum + node.zombies, 0)
          assert.strictEqual(zombies, 1, "the one that was told to stop is counted while it runs")
          for (const gate of gates) yield* Deferred.succeed(gate, undefined)
          yield* settle
          yield* tree.restartChild("stubborn")
        }
        if (minute === 120) after2 = yield* heap
      }
      const after24 = yield* heap
      const nodes = SupervisionTree.flatten(yield* tree.snapshot)
      assert.deepStrictEqual(
        nodes.filter((node) => node.zombies > 0),
        []
      )
      assert.strictEqual((yield* pool.countChildren).specs, 0)
      const counted = nodes.reduce((sum, node) => sum + node.restarts, 0)
      assert.isAbove(counted, restarts / 2, "the storms took place")
      const growth = (after24 - after2) / after2
      assert.isAtMost(
        growth,
        0.05,
        `heap ${(after2 / 1e6).toFixed(1)} MB after 2 h, ${(after24 / 1e6).toFixed(1)} MB after ${hours} h`
      )
      for (const gate of gates) yield* Deferred.succeed(gate, undefined)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* names.count, 0)
      assert.isTrue(ExitReason.isClean(yield* tree.exit))
    }).pipe(Effect.provide(Logger.layer([]))),
  { timeout: 240_000 }
)
