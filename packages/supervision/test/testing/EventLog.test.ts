import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Supervisor,
  type SupervisionEvent
} from "@tinkex/supervision"
import { EventLog, FaultyChild, SeededScheduler, TestingError } from "@tinkex/supervision/testing"
import { DateTime, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"

const { settle } = SeededScheduler

const problem = <A>(effect: Effect.Effect<A, TestingError.TestingError>) =>
  Effect.map(Effect.flip(effect), (error) => error.message)

/** A tree with one child that crashes once, and its log. */
const crashedOnce = Effect.gen(function* () {
  const worker = FaultyChild.make("worker")
  const tree = yield* Supervisor.start({ name: "shop", children: [worker.spec, FaultyChild.make("other").spec] })
  const log = yield* EventLog.make(tree)
  yield* tree.refs.worker.cast.crash()
  yield* settle
  return { tree, log }
})

type Told = readonly [tag: "ChildStarted" | "ChildExited" | "ChildStopped", child: string, generation: number]

/** Events that no tree would tell. */
const told = (...events: ReadonlyArray<Told>) => ({
  events: Stream.fromIterable(
    events.map(([_tag, child, generation]): SupervisionEvent.SupervisionEvent => {
      const about = { supervisor: "shop", child, generation, time: DateTime.makeUnsafe(0) }
      return Object.assign(about, _tag === "ChildExited" ? { _tag, exit: ExitReason.killed } : { _tag })
    })
  )
})

describe("events", () => {
  it.effect("L2: a log has the events of the start, and those that came since", () =>
    Effect.gen(function* () {
      const { log } = yield* crashedOnce
      assert.deepStrictEqual(log.lines, [
        "ChildStarted worker",
        "ChildStarted other",
        "ChildExited worker",
        "ChildStarted worker",
        "ChildRestarted worker"
      ])
      assert.deepStrictEqual(log.events.map(lineOf), log.lines)
      assert.isFalse(log.ended)
    })
  )

  it.effect("goes on to the end of the tree, beyond the scope in which it was made", () =>
    Effect.gen(function* () {
      const { log } = yield* Effect.scoped(crashedOnce)
      yield* settle
      assert.deepStrictEqual(log.lines.slice(-3), [
        "ChildStopped other",
        "ChildStopped worker",
        "SupervisorExited shop"
      ])
      assert.isTrue(log.ended)
    })
  )

  it.effect("filters by line, by fields, and by several of them; a filter goes on with the log", () =>
    Effect.gen(function* () {
      const { log, tree } = yield* crashedOnce
      const worker = log.filter({ child: "worker" })
      assert.strictEqual(worker.lines.length, 4)
      assert.strictEqual(log.count("ChildStarted"), 3)
      assert.strictEqual(log.count("ChildStarted worker"), 2)
      assert.strictEqual(log.count({ _tag: "ChildStarted", generation: 2 }), 1)
      assert.strictEqual(log.count({ supervisor: "shop" }), 5)
      assert.strictEqual(log.count({ exit: "Crash" }), 1)
      assert.strictEqual(log.count({ exit: "Killed" }), 0)
      assert.strictEqual(log.count({ operation: "crash" }), 0)
      assert.strictEqual(log.filter("ChildExited", "ChildRestarted").filter("ChildRestarted").lines.length, 1)
      yield* tree.refs.worker.kill
      yield* settle
      assert.strictEqual(worker.count({ exit: "Killed" }), 1)
    })
  )

  it.effect("tags and fields are checked by the compiler", () =>
    Effect.gen(function* () {
      const { log } = yield* crashedOnce
      // @ts-expect-error there is no such tag
      assert.strictEqual(log.count("ChildVanished"), 0)
      // @ts-expect-error there is no such kind of end
      assert.strictEqual(log.count({ exit: "Exploded" }), 0)
      const event = yield* log.awaitEvent("ChildExited")
      assert.strictEqual(event.exit._tag, "Crash")
    })
  )
})

describe("awaitEvent", () => {
  it.effect("gives an event that has come already, the n-th of its kind, and one that is still to come", () =>
    Effect.gen(function* () {
      const { log, tree } = yield* crashedOnce
      assert.strictEqual((yield* log.awaitEvent("ChildStarted", "worker")).generation, 1)
      assert.strictEqual((yield* log.awaitEvent("ChildStarted", "worker", { times: 2 })).generation, 2)
      const third = yield* Effect.forkChild(log.awaitEvent("ChildStarted", "worker", { times: 3 }))
      const fourth = yield* Effect.forkChild(log.awaitEvent("ChildStarted", "worker", { times: 4 }))
      yield* tree.refs.worker.kill
      assert.strictEqual((yield* Fiber.join(third)).generation, 3)
      assert.isUndefined(fourth.pollUnsafe())
      yield* tree.refs.worker.kill
      assert.strictEqual((yield* Fiber.join(fourth)).generation, 4)
    })
  )

  it.effect("whoever was told of a start finds the child in place, under every seed", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const { log, tree } = yield* crashedOnce
        const next = yield* Effect.forkChild(log.awaitEvent("ChildStarted", "worker", { times: 3 }))
        yield* tree.refs.worker.kill
        yield* Fiber.join(next)
        return yield* tree.refs.worker.call.work("x")
      })
      const answers = yield* SeededScheduler.explore(program, { seeds: 40 })
      assert.deepStrictEqual(new Set(answers), new Set([1]))
    })
  )

  it.effect("waits while the clock is adjusted", () =>
    Effect.gen(function* () {
      const worker = FaultyChild.make("worker", {}, { backoff: Backoff.fixed("1 minute") })
      const tree = yield* Supervisor.start({ children: [worker.spec] })
      const log = yield* EventLog.make(tree)
      const back = yield* Effect.forkChild(log.awaitEvent("ChildRestarted", "worker"))
      yield* tree.refs.worker.cast.crash()
      yield* settle
      assert.isUndefined(back.pollUnsafe())
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(back)).generation, 2)
    })
  )

  it.effect("L3: gives up at its limit, and says what came instead", () =>
    Effect.gen(function* () {
      const { log } = yield* crashedOnce
      const text = yield* problem(log.awaitEvent("ChildRestarted", "other", { within: "1 millis" }))
      assert.include(text, `"ChildRestarted other" did not happen`)
      assert.include(text, "ChildExited worker (generation 1, crash (Fault: ")
      const twice = yield* problem(log.awaitEvent("ChildRestarted", "worker", { within: 1, times: 2 }))
      assert.include(twice, `"ChildRestarted worker, 2 times" did not happen`)
    })
  )

  it.effect("gives up at once when the tree has ended, or ends", () =>
    Effect.gen(function* () {
      const { log, waits } = yield* Effect.scoped(
        Effect.gen(function* () {
          const { log } = yield* crashedOnce
          return { log, waits: yield* Effect.forkDetach(log.awaitEvent("GaveUp", undefined, { within: "1 hour" })) }
        })
      )
      assert.include(yield* problem(Fiber.join(waits)), `"GaveUp" did not happen`)
      assert.include(yield* problem(log.awaitEvent("GaveUp", undefined, { within: "1 hour" })), "SupervisorExited shop")
    })
  )
})

describe("expectations", () => {
  it.effect("in order means that others may lie between; exactly, that none may", () =>
    Effect.gen(function* () {
      const { log } = yield* crashedOnce
      yield* log.expectInOrder(["ChildStarted other", { _tag: "ChildExited", exit: "Crash" }, "ChildRestarted"])
      yield* log.expectInOrder([])
      const worker = log.filter({ child: "worker" })
      yield* worker.expectExactly([
        "ChildStarted worker",
        "ChildExited worker",
        { _tag: "ChildStarted", generation: 2 },
        "ChildRestarted"
      ])
      yield* log.expectNone("GaveUp")
    })
  )

  it.effect("L2: what was done just before is in the log that is checked", () =>
    Effect.gen(function* () {
      const { log, tree } = yield* crashedOnce
      yield* tree.terminateChild("other")
      yield* log.expectInOrder(["ChildStopped other"])
      yield* tree.terminateChild("worker")
      assert.include(yield* problem(log.expectNone("ChildStopped worker")), "ChildStopped worker (generation 2)")
    })
  )

  it.effect("L3: a wrong order fails with the difference, line by line", () =>
    Effect.gen(function* () {
      const { log } = yield* crashedOnce
      const error = yield* Effect.flip(
        log.expectInOrder(["ChildExited worker", "ChildRestarted", "ChildStarted worker"])
      )
      assert.strictEqual(error.reason._tag, "Unexpected")
      assert.deepStrictEqual(error.reason._tag === "Unexpected" ? error.reason.difference.map(withoutReason) : [], [
        "+ ChildStarted worker",
        "+ ChildStarted other",
        "  ChildExited worker",
        "- ChildRestarted",
        "  ChildStarted worker",
        "+ ChildRestarted worker"
      ])
      assert.include(error.message, "1 of 3 expected events did not come in this order")
    })
  )

  it.effect("L3: what was expected in vain, and what came besides, both show", () =>
    Effect.gen(function* () {
      const { log } = yield* crashedOnce
      const worker = log.filter("ChildExited", "ChildRestarted")
      const text = yield* problem(
        worker.expectExactly([{ _tag: "ChildExited", exit: "Killed" }, "ChildRestarted worker"])
      )
      assert.include(text, "1 expected events did not come, and 1 others did")
      assert.include(text, "- ChildExited (exit Killed)")
      assert.include(text, "+ ChildExited worker (generation 1, crash (Fault: ")
      assert.include(text, "  ChildRestarted worker (generation 2)")
    })
  )
})

describe("balance", () => {
  it.effect("a tree of every kind of supervisor balances when it has ended, and not before", () =>
    Effect.gen(function* () {
      const { log } = yield* Effect.scoped(
        Effect.gen(function* () {
          const inner = ChildSpec.supervisor("inner", {
            strategy: "one_for_all",
            children: [FaultyChild.make("a").spec]
          })
          const tree = yield* Supervisor.start({ children: [inner, DynamicSupervisor.childSpec("many")] })
          const log = yield* EventLog.make(tree)
          for (let n = 0; n < 3; n++) yield* tree.refs.many.startChild(FaultyChild.make("same").spec)
          yield* tree.refs.inner.refs.a.cast.crash()
          yield* settle
          assert.include(yield* problem(log.balanced), "the tree has not ended")
          return { log }
        })
      )
      yield* log.balanced
      assert.strictEqual(log.count("ChildStarted same"), 3)
    })
  )

  it.effect("an incarnation without an end, without a start, or with two ends does not", () =>
    Effect.gen(function* () {
      const log = yield* EventLog.make(
        told(["ChildStarted", "a", 1], ["ChildStarted", "b", 1], ["ChildExited", "b", 1], ["ChildStopped", "b", 1])
      )
      const text = yield* problem(log.balanced)
      assert.include(text, "shop/a, incarnation 1, started and did not end")
      assert.include(text, "shop/b, incarnation 1, ended without a start, or once too often: ChildStopped")
      const sound = yield* EventLog.make(told(["ChildStarted", "a", 1], ["ChildStopped", "a", 1]))
      yield* sound.balanced
    })
  )

  it.effect("a log that begins in the middle says so", () =>
    Effect.gen(function* () {
      class Idle extends Actor.make("Idle", { init: (_arg: void) => 0 }) {}
      const log = yield* Effect.scoped(
        Effect.gen(function* () {
          const children = Array.from({ length: 300 }, (_, n) => ChildSpec.actor(`c${n}`, Idle, undefined))
          return yield* EventLog.make(yield* Supervisor.start({ children }))
        })
      )
      assert.include(yield* problem(log.balanced), "the log begins in the middle")
    })
  )

  it.effect("a child that was left behind is a zombie until it ends", () =>
    Effect.gen(function* () {
      const stuck = FaultyChild.make("stuck", { refuseToStop: true }, { shutdown: "1 second" })
      const tree = yield* Supervisor.start({ children: [stuck.spec] })
      const log = yield* EventLog.make(tree)
      yield* log.noZombies
      const stop = yield* Effect.forkChild(tree.terminateChild("stuck"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stop)
      assert.include(yield* problem(log.noZombies), "supervisor/stuck, incarnation 1, was left behind and still runs")
      yield* stuck.release
      yield* log.awaitEvent("ZombieEnded", "stuck")
      yield* log.noZombies
    })
  )
})

const lineOf = (event: SupervisionEvent.SupervisionEvent) => `${event._tag} ${event.child}`

const withoutReason = (line: string) => line.replace(/ \(.*\)$/, "")
