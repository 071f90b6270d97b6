import { assert, describe, it } from "@effect/vitest"
import { Backoff, ChildSpec, DynamicSupervisor, ExitReason, Supervisor, type SupervisorRef } from "@tinkex/supervision"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { record, settle, witness } from "../support.ts"
import { Fragile, type Health, endless, fragile, health, opened, refusal, statuses } from "./strategySupport.ts"

/** A loop without a pause between its attempts, and one whose attempts are a minute apart. */
const loops = [
  ["without a delay", undefined],
  ["with a backoff", Backoff.fixed("1 minute")]
] as const

const idle: SupervisorRef.ChildCounts = { specs: 2, active: 1, supervisors: 0, workers: 2 }

describe("7. Restart loops that do not succeed", () => {
  for (const [kind, backoff] of loops) {
    /** A supervisor in the middle of the loop, beside a child that is well. */
    const looping = (arg: Health) =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const { tree, close } = yield* opened(
          Supervisor.start({
            intensity: endless,
            backoff,
            children: [fragile("f", arg), witness("w", log)]
          })
        )
        arg.broken = true
        yield* tree.refs.f.cast.crash()
        yield* settle
        return { tree, close, log }
      })

    it.effect(`RL-01 between two attempts the supervisor answers and takes requests (${kind})`, () =>
      Effect.gen(function* () {
        const arg = health()
        const { tree } = yield* looping(arg)
        const before = arg.attempts
        assert.strictEqual((yield* tree.childSpec("f")).restart, "permanent")
        const added = yield* tree.startChild(witness("added", []))
        assert.strictEqual(yield* added.call.ping(), "added1")
        yield* tree.terminateChild("added")
        yield* tree.deleteChild("added")
        for (let minute = 0; minute < 3; minute++) yield* Effect.andThen(TestClock.adjust("1 minute"), settle)
        assert.isAtLeast(arg.attempts, before + 3, "and the loop goes on")
        assert.deepStrictEqual(yield* statuses(tree), ["w running", "f restarting"])
      })
    )

    it.effect(`RL-02 its id counts as present; a restart by hand and a deletion are refused (${kind})`, () =>
      Effect.gen(function* () {
        const arg = health()
        const { tree } = yield* looping(arg)
        assert.strictEqual(yield* refusal(tree.startChild(fragile("f", arg))), "AlreadyPresent")
        assert.strictEqual(yield* refusal(tree.restartChild("f")), "Restarting")
        assert.strictEqual(yield* refusal(tree.deleteChild("f")), "Restarting")
        assert.deepStrictEqual(yield* statuses(tree), ["w running", "f restarting"])
      })
    )

    it.effect(`RL-03 it is listed as restarting and counted as inactive (${kind})`, () =>
      Effect.gen(function* () {
        const arg = health()
        const { tree } = yield* looping(arg)
        assert.deepStrictEqual(
          (yield* tree.whichChildren).map(({ id, status, generation }) => [id, status, generation]),
          [
            ["w", "running", 1],
            ["f", "restarting", 1]
          ]
        )
        assert.deepStrictEqual(yield* tree.countChildren, idle)
        const node = (yield* tree.snapshot).children[0]
        assert.strictEqual(node?.status, "restarting")
      })
    )

    it.effect(`RL-05 terminated in the loop, it is started by hand once the cause is gone (${kind})`, () =>
      Effect.gen(function* () {
        const arg = health()
        const { tree } = yield* looping(arg)
        yield* tree.terminateChild("f")
        const { attempts } = arg
        yield* TestClock.adjust("1 hour")
        yield* settle
        assert.strictEqual(arg.attempts, attempts, "the loop has ended")
        assert.strictEqual(yield* refusal(tree.restartChild("f")), "StartFailed")
        assert.deepStrictEqual(yield* statuses(tree), ["w running", "f stopped"])
        arg.broken = false
        yield* tree.restartChild("f")
        assert.strictEqual(yield* tree.refs.f.call.generation(), 2)
        assert.deepStrictEqual(yield* tree.countChildren, { ...idle, active: 2 })
      })
    )

    it.effect(`RL-05 it also comes up by itself once the cause is gone (${kind})`, () =>
      Effect.gen(function* () {
        const arg = health()
        const { tree } = yield* looping(arg)
        arg.broken = false
        yield* TestClock.adjust("1 minute")
        yield* settle
        assert.strictEqual(yield* tree.refs.f.call.generation(), 2)
        assert.deepStrictEqual(yield* statuses(tree), ["w running", "f running"])
      })
    )

    it.effect(`RL-06 the supervisor can be stopped in the middle of the loop (${kind})`, () =>
      Effect.gen(function* () {
        const arg = health()
        const { tree, close, log } = yield* looping(arg)
        const events = yield* record(tree.events)
        yield* close
        assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
        assert.deepStrictEqual(log, ["+w", "-w"])
        const { attempts } = arg
        arg.broken = false
        yield* TestClock.adjust("1 hour")
        yield* settle
        assert.strictEqual(arg.attempts, attempts, "no attempt comes after the end")
        assert.strictEqual(events.at(-1)?._tag, "SupervisorExited")
      })
    )

    it.effect(`RL-07 rest_for_one: those after it show as not running, those before it go on (${kind})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const arg = health()
        const { tree, close } = yield* opened(
          Supervisor.start({
            strategy: "rest_for_one",
            intensity: endless,
            backoff,
            children: [witness("first", log), fragile("f", arg), witness("y", log), witness("z", log)]
          })
        )
        arg.broken = true
        yield* tree.refs.f.cast.crash()
        yield* settle
        assert.deepStrictEqual(yield* statuses(tree), ["z stopped", "y stopped", "f restarting", "first running"])
        assert.deepStrictEqual(yield* tree.countChildren, { specs: 4, active: 1, supervisors: 0, workers: 4 })
        assert.strictEqual(yield* tree.refs.first.call.ping(), "first1")
        assert.strictEqual(yield* refusal(tree.restartChild("f")), "Restarting")
        assert.strictEqual(yield* refusal(tree.deleteChild("f")), "Restarting")
        assert.strictEqual(yield* refusal(tree.startChild(fragile("f", arg))), "AlreadyPresent")
        assert.strictEqual(yield* refusal(tree.startChild(witness("z", log))), "AlreadyPresent")
        yield* tree.terminateChild("f")
        arg.broken = false
        yield* tree.restartChild("f")
        assert.deepStrictEqual(yield* statuses(tree), ["z stopped", "y stopped", "f running", "first running"])
        yield* tree.restartChild("y")
        assert.strictEqual(yield* tree.refs.y.call.ping(), "y2")
        log.length = 0
        yield* close
        assert.deepStrictEqual(log, ["-y", "-first"])
      })
    )

    it.effect(`RL-07 rest_for_one: when it comes up by itself, so do those after it (${kind})`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const arg = health()
        const tree = yield* Supervisor.start({
          strategy: "rest_for_one",
          intensity: endless,
          backoff,
          children: [witness("first", log), fragile("f", arg), witness("z", log)]
        })
        arg.broken = true
        yield* tree.refs.f.cast.crash()
        yield* settle
        arg.broken = false
        yield* TestClock.adjust("1 minute")
        yield* settle
        assert.deepStrictEqual(yield* statuses(tree), ["z running", "f running", "first running"])
        assert.deepStrictEqual(log, ["+first", "+z", "-z", "+z"])
      })
    )

    /** A dynamic supervisor in the middle of the loop, and the handle of the instance that cannot come up. */
    const loopingInstance = (arg: Health) =>
      Effect.gen(function* () {
        const { tree, close } = yield* opened(DynamicSupervisor.start({ intensity: endless, backoff }))
        const looping = yield* tree.startChild(fragile("f", arg))
        const well = yield* tree.startChild(witness("w", []))
        const dead = yield* looping.incarnation
        arg.broken = true
        yield* looping.cast.crash()
        yield* settle
        return { tree, close, looping, well, dead }
      })

    it.effect(
      `RL-09 dynamic: an instance shows as restarting; there is no restart and no deletion by hand (${kind})`,
      () =>
        Effect.gen(function* () {
          const arg = health()
          const { tree, close, well } = yield* loopingInstance(arg)
          assert.deepStrictEqual(yield* statuses(tree), ["w running", "f restarting"])
          assert.deepStrictEqual(yield* tree.countChildren, idle)
          // @ts-expect-error instances are not restarted by hand
          assert.isUndefined(tree.restartChild)
          // @ts-expect-error instances are not kept, so there is nothing to delete
          assert.isUndefined(tree.deleteChild)
          const another = yield* tree.startChild(ChildSpec.actor("f", Fragile, health()))
          assert.strictEqual(yield* another.call.generation(), 1, "requests are served, and ids may repeat")
          assert.strictEqual(yield* well.call.ping(), "w1")
          yield* close
          assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
          const { attempts } = arg
          yield* TestClock.adjust("1 hour")
          yield* settle
          assert.strictEqual(arg.attempts, attempts)
        })
    )

    it.effect(`RL-10 dynamic: terminating by the handle of the dead incarnation ends the loop (${kind})`, () =>
      Effect.gen(function* () {
        const arg = health()
        const { tree, dead, looping } = yield* loopingInstance(arg)
        yield* tree.terminateChild(dead)
        assert.deepStrictEqual(yield* statuses(tree), ["w running"])
        const { attempts } = arg
        arg.broken = false
        yield* TestClock.adjust("1 hour")
        yield* settle
        assert.strictEqual(arg.attempts, attempts)
        assert.strictEqual(yield* refusal(tree.terminateChild(looping)), "NotFound")
        assert.strictEqual((yield* Effect.flip(looping.call.generation())).reason._tag, "NoProcess")
      })
    )
  }

  it.effect("RL-01 with a backoff the next attempt comes neither earlier nor later than it says", () =>
    Effect.gen(function* () {
      const arg = health()
      const tree = yield* Supervisor.start({
        intensity: endless,
        backoff: Backoff.fixed("10 seconds"),
        children: [fragile("f", arg)]
      })
      arg.broken = true
      yield* tree.refs.f.cast.crash()
      yield* settle
      assert.strictEqual(arg.attempts, 1)
      for (const attempts of [2, 3, 4]) {
        yield* TestClock.adjust(9999)
        yield* settle
        assert.strictEqual(arg.attempts, attempts - 1)
        yield* TestClock.adjust(1)
        yield* settle
        assert.strictEqual(arg.attempts, attempts)
      }
    })
  )
})
