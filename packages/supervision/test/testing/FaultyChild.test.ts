import { assert, describe, it } from "@effect/vitest"
import { type ActorRef, Supervisor } from "@tinkex/supervision"
import { EventLog, FaultyChild, SeededScheduler } from "@tinkex/supervision/testing"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"

const { settle } = SeededScheduler

/** A tree with one faulty child. */
const alone = Effect.fnUntraced(function* <const Id extends string>(child: FaultyChild.FaultyChild<Id>) {
  const tree = yield* Supervisor.start({ intensity: { restarts: 10 }, children: [child.spec] })
  const log = yield* EventLog.make(tree)
  return { tree, log }
})

const faultOf = (events: EventLog.Events) => {
  const [event] = events.filter({ _tag: "ChildExited" }).events
  const error = event?._tag === "ChildExited" && event.exit._tag === "Crash" ? event.exit.error : undefined
  return error instanceof FaultyChild.Fault ? error : undefined
}

describe("without faults", () => {
  it.effect("F3: is an actor that counts its messages and writes down its life", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { tree } = yield* alone(child)
          const ref: ActorRef.ActorRef<typeof FaultyChild.Faulty> = tree.refs.it
          yield* ref.cast.tell("a")
          assert.strictEqual(yield* ref.call.work("b"), 2)
        })
      )
      assert.deepStrictEqual(child.lines, ["1 up", "1 handled a", "1 handled b", "1 finalized"])
    })
  )

  it.effect("F2: crashes when it is asked to", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it")
      const { log, tree } = yield* alone(child)
      yield* tree.refs.it.cast.crash()
      yield* settle
      assert.deepStrictEqual(child.lines, ["1 up", "1 crashed", "1 finalized", "2 up"])
      const fault = faultOf(log)
      assert.deepStrictEqual([fault?.child, fault?.attempt, fault?.fault], ["it", 1, "asked"])
      assert.strictEqual(fault?.message, `"it" failed on purpose in its attempt 1: it was asked to crash.`)
    })
  )
})

describe("crashes", () => {
  it.effect("F1: after so many messages, in every incarnation anew", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { crashAfterMessages: 2 })
      const { log, tree } = yield* alone(child)
      const outcomes: Array<string> = []
      for (const text of ["a", "b", "c", "d"]) {
        const answer = yield* Effect.exit(tree.refs.it.call.work(text))
        outcomes.push(answer._tag)
        yield* settle
      }
      assert.deepStrictEqual(outcomes, ["Success", "Failure", "Success", "Failure"])
      assert.strictEqual(log.count("ChildRestarted it"), 2)
      assert.strictEqual(faultOf(log)?.fault, "message")
      const first = ["1 up", "1 handled a", "1 handled b", "1 crashed", "1 finalized", "2 up"]
      assert.deepStrictEqual(child.lines.slice(0, 6), first)
    })
  )

  it.effect("F1: after some time, exactly, and only in the first incarnations if so asked", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { crashAfter: "3 seconds", incarnations: 2 })
      const { log } = yield* alone(child)
      yield* TestClock.adjust(2999)
      assert.deepStrictEqual(child.lines, ["1 up"])
      yield* TestClock.adjust(1)
      yield* settle
      assert.deepStrictEqual(child.lines, ["1 up", "1 crashed", "1 finalized", "2 up"])
      assert.strictEqual(faultOf(log)?.fault, "time")
      assert.strictEqual(child.history[1]?.time, 3000)
      yield* TestClock.adjust("1 minute")
      yield* settle
      assert.deepStrictEqual(child.lines.slice(4), ["2 crashed", "2 finalized", "3 up"])
      assert.strictEqual(child.history[4]?.time, 6000)
    })
  )
})

describe("inits", () => {
  it.effect("F1: fail the first times, which fails the start of the tree", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { failInits: 1 })
      const error = yield* Effect.flip(alone(child))
      assert.include(error.message, "its init fails")
      yield* alone(child)
      assert.deepStrictEqual(child.lines, ["1 failed", "2 up"])
    })
  )

  it.effect("F1: fail after those that are sound, which are attempts to restart", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { soundInits: 2, failInits: 2 })
      const { log, tree } = yield* alone(child)
      yield* tree.refs.it.cast.crash()
      yield* log.awaitEvent("ChildRestarted", "it")
      yield* log.expectNone("StartFailed")
      yield* tree.refs.it.cast.crash()
      yield* log.awaitEvent("ChildRestarted", "it", { times: 2 })
      assert.strictEqual(log.count("StartFailed it"), 2)
      assert.deepStrictEqual(child.lines.slice(-5), ["2 crashed", "2 finalized", "3 failed", "4 failed", "5 up"])
    })
  )

  it.effect("F1: hang until the start limit, after those that fail", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { soundInits: 1, failInits: 1, hangInits: 1 }, { startLimit: "2 seconds" })
      const { log, tree } = yield* alone(child)
      yield* tree.refs.it.cast.crash()
      yield* settle
      assert.deepStrictEqual(child.lines.slice(3), ["2 failed", "3 hangs"])
      yield* TestClock.adjust("2 seconds")
      yield* log.awaitEvent("ChildRestarted", "it")
      assert.deepStrictEqual(child.lines.slice(5), ["3 interrupted", "4 up"])
      assert.strictEqual(log.count("StartFailed"), 2)
    })
  )
})

describe("ends", () => {
  it.effect("F1: refuses to stop until it is released by hand", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { refuseToStop: true }, { shutdown: "infinity" })
      const { log, tree } = yield* alone(child)
      const stop = yield* Effect.forkChild(tree.terminateChild("it"))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(stop.pollUnsafe())
      assert.deepStrictEqual(child.lines, ["1 up", "1 stopping"])
      yield* child.release
      yield* Fiber.join(stop)
      assert.deepStrictEqual(child.lines, ["1 up", "1 stopping", "1 released", "1 finalized"])
      yield* log.expectNone("Zombie")
    })
  )

  it.effect("F1: is left behind as a zombie after its limit; a released child stops at once from then on", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { refuseToStop: true }, { shutdown: "1 second" })
      const { log, tree } = yield* alone(child)
      const stop = yield* Effect.forkChild(tree.terminateChild("it"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stop)
      yield* log.expectInOrder(["Zombie it", "ChildStopped it"])
      yield* child.release
      yield* log.awaitEvent("ZombieEnded", "it")
      yield* tree.restartChild("it")
      yield* tree.terminateChild("it")
      assert.deepStrictEqual(child.lines.slice(-3), ["2 stopping", "2 released", "2 finalized"])
    })
  )

  it.effect("F1: dies in its finalizer, which is reported", () =>
    Effect.gen(function* () {
      const child = FaultyChild.make("it", { dieInFinalizer: true })
      const { log, tree } = yield* alone(child)
      yield* tree.terminateChild("it")
      yield* log.expectInOrder([{ _tag: "ShutdownError", child: "it", exit: "Crash" }, "ChildStopped it"])
      assert.deepStrictEqual(child.lines, ["1 up", "1 finalized"])
      const [event] = log.filter("ShutdownError").events
      const error = event?._tag === "ShutdownError" && event.exit._tag === "Crash" ? event.exit.error : undefined
      assert.strictEqual(error instanceof FaultyChild.Fault ? error.fault : undefined, "finalizer")
    })
  )
})
