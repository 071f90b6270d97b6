import { assert, describe, it } from "@effect/vitest"
import { Actor, ChildSpec, DynamicSupervisor, ExitReason, Supervisor, Watch } from "@tinkex/supervision"
import { Deferred, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { pending, record, settle, tags, witness } from "../support.ts"
import { stoppable } from "./childSupport.ts"

const restarts = ["permanent", "transient", "temporary"] as const

/** A child that takes its time to clean up. */
const slow = <const Id extends string>(
  id: Id,
  log: Array<string>,
  time: Duration.Input,
  options?: ChildSpec.ChildOptions
) => {
  const work = Effect.gen(function* () {
    log.push(`+${id}`)
    // a sleep of the test clock lets itself be interrupted, even in a finalizer
    const farewell = Effect.uninterruptible(Effect.map(Effect.sleep(time), () => log.push(`-${id}`)))
    yield* Effect.addFinalizer(() => farewell)
    return yield* Effect.never
  })
  return ChildSpec.effect(id, work, options)
}

/** A child that does not react until the gate opens. */
const deaf = <const Id extends string>(id: Id, gate: Deferred.Deferred<void>, options?: ChildSpec.ChildOptions) =>
  ChildSpec.effect(id, Effect.uninterruptible(Deferred.await(gate)), options)

/** How each of them ends. */
const endsOf = (targets: Record<string, Watch.Watchable>) =>
  Effect.map(
    Effect.forEach(Object.entries(targets), ([id, target]) =>
      Effect.map(Watch.monitor(target), ({ down }) => [id, down] as const)
    ),
    (monitors) =>
      Effect.map(
        Effect.forEach(monitors, ([id, down]) =>
          Effect.map(down, ({ exit }) => [id, exit === undefined ? "none" : ExitReason.format(exit)] as const)
        ),
        Object.fromEntries<string>
      )
  )

const countOf = (log: ReadonlyArray<string>, line: string) => log.filter((one) => one === line).length

describe("stopping a supervisor", () => {
  it.effect(
    "ST-01 children that may take for ever, worker or supervisor, end with a shutdown however long it takes",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const { tree, stop } = yield* stoppable(
          Supervisor.start({
            children: [
              slow("worker", log, "1 day", { shutdown: "infinity" }),
              ChildSpec.supervisor("inner", { children: [slow("deep", log, "1 day", { shutdown: "infinity" })] })
            ]
          })
        )
        const events = yield* record(tree.events)
        const ends = yield* endsOf({ ...tree.refs, deep: tree.refs.inner.refs.deep })
        const stopping = yield* Effect.forkChild(stop)
        yield* settle
        yield* TestClock.adjust("1 day")
        yield* settle
        assert.deepStrictEqual(log.slice(2), ["-deep"])
        yield* TestClock.adjust(Duration.subtract(Duration.days(1), Duration.millis(1)))
        assert.isTrue(pending(stopping))
        yield* TestClock.adjust(1)
        yield* Fiber.join(stopping)
        assert.deepStrictEqual(log.slice(2), ["-deep", "-worker"])
        assert.deepStrictEqual(yield* ends, { worker: "shutdown", inner: "shutdown", deep: "shutdown" })
        yield* settle
        assert.deepStrictEqual(tags(events).slice(3), [
          "ChildStopped deep",
          "SupervisorExited inner",
          "ChildStopped inner",
          "ChildStopped worker",
          "SupervisorExited supervisor"
        ])
      })
  )

  it.effect("ST-02 a cooperative child ends with a shutdown inside its time budget", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { tree, stop } = yield* stoppable(
        Supervisor.start({ children: [slow("a", log, "1999 millis", { shutdown: "2 seconds" })] })
      )
      const events = yield* record(tree.events)
      const ends = yield* endsOf(tree.refs)
      const stopping = yield* Effect.forkChild(stop)
      yield* settle
      yield* TestClock.adjust(1998)
      assert.isTrue(pending(stopping))
      yield* TestClock.adjust(1)
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(log, ["+a", "-a"])
      assert.deepStrictEqual(yield* ends, { a: "shutdown" })
      yield* settle
      assert.deepStrictEqual(tags(events), ["ChildStarted a", "ChildStopped a", "SupervisorExited supervisor"])
    })
  )

  it.effect("ST-03 a child that does not react inside its budget is left behind on time, and disturbs no sibling", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const { tree, stop } = yield* stoppable(
        Supervisor.start({
          children: [
            slow("before", log, "1 second"),
            deaf("deaf", gate, { shutdown: "2 seconds" }),
            slow("after", log, "1 second")
          ]
        })
      )
      const events = yield* record(tree.events)
      const { before, after } = tree.refs
      const ends = yield* endsOf({ before, after })
      const stopping = yield* Effect.forkChild(stop)
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log.slice(2), ["-after"])
      yield* TestClock.adjust(1999)
      assert.notInclude(tags(events), "Zombie deaf")
      yield* TestClock.adjust(1)
      yield* settle
      const zombie = events.find((event) => event._tag === "Zombie")
      assert.isTrue(zombie?._tag === "Zombie" && zombie.child === "deaf" && zombie.generation === 1)
      assert.deepStrictEqual(zombie?._tag === "Zombie" ? zombie.limit : undefined, Duration.seconds(2))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(log.slice(2), ["-after", "-before"])
      assert.deepStrictEqual(yield* ends, { before: "shutdown", after: "shutdown" })
      assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
    })
  )

  it.effect("ST-05 a brutal child is not waited for, next to a sibling that is; its finalizers run all the same", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { tree, stop } = yield* stoppable(
        Supervisor.start({
          children: [
            slow("brutal", log, "10 seconds", { shutdown: "brutal" }),
            slow("graceful", log, "1 second", { shutdown: "2 seconds" })
          ]
        })
      )
      const events = yield* record(tree.events)
      const stopping = yield* Effect.forkChild(stop)
      yield* settle
      yield* TestClock.adjust(999)
      assert.isTrue(pending(stopping))
      yield* TestClock.adjust(1)
      yield* Fiber.join(stopping)
      yield* settle
      assert.deepStrictEqual(tags(events).slice(2), [
        "ChildStopped graceful",
        "Zombie brutal",
        "ChildStopped brutal",
        "SupervisorExited supervisor"
      ])
      assert.deepStrictEqual(log.slice(2), ["-graceful"])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(log.slice(2), ["-graceful", "-brutal"])
    })
  )

  it.effect("ST-06 ten brutal instances of a dynamic supervisor are not waited for", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { tree, stop } = yield* stoppable(DynamicSupervisor.start())
      const events = yield* record(tree.events)
      for (let i = 0; i < 10; i++) yield* tree.startChild(slow("b", log, "10 seconds", { shutdown: "brutal" }))
      const stopping = yield* Effect.forkChild(stop)
      yield* settle
      yield* Fiber.join(stopping)
      yield* settle
      assert.strictEqual(countOf(tags(events), "Zombie b"), 10)
      assert.strictEqual(countOf(tags(events), "ChildStopped b"), 10)
      assert.strictEqual(countOf(log, "-b"), 0)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(countOf(log, "-b"), 10)
    })
  )

  for (const restart of restarts) {
    it.effect(`ST-07 ${restart} children that end on their own while the supervisor stops do not disturb it`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const { tree, stop } = yield* stoppable(
          Supervisor.start({
            intensity: { restarts: 0 },
            children: [
              witness("normal", log, { restart }),
              witness("shutdown", log, { restart }),
              witness("info", log, { restart }),
              witness("crash", log, { restart }),
              slow("last", log, "1 second")
            ]
          })
        )
        const events = yield* record(tree.events)
        const stopping = yield* Effect.forkChild(stop)
        yield* settle
        yield* tree.refs.normal.stop
        yield* tree.refs.shutdown.stopWith(ExitReason.shutdown)
        yield* tree.refs.info.stopWith({ _tag: "Shutdown", info: "enough" })
        yield* tree.refs.crash.cast.crash()
        yield* settle
        assert.isTrue(pending(stopping))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(stopping)
        assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
        assert.deepStrictEqual(log.slice(5), ["-normal", "-shutdown", "-info", "-crash", "-last"], "none came back")
        yield* settle
        const exits = events.flatMap((event) => (event._tag === "ChildExited" ? [ExitReason.format(event.exit)] : []))
        assert.deepStrictEqual(exits, ["normal", "shutdown", "shutdown (enough)", "crash (Error: crash)"])
        const reported = tags(events).filter((tag) => tag.startsWith("ShutdownError"))
        assert.deepStrictEqual(reported, restart === "permanent" ? ["ShutdownError normal"] : [])
        assert.strictEqual(tags(events).at(-1), "SupervisorExited supervisor")
      })
    )

    it.effect(`ST-07 ${restart} children that end in the moment in which the stop begins do not disturb it`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const { tree, stop } = yield* stoppable(
          Supervisor.start({
            children: [witness("a", log, { restart }), witness("b", log, { restart }), witness("c", log, { restart })]
          })
        )
        yield* tree.refs.a.cast.crash()
        yield* Effect.forkChild(tree.refs.b.stop)
        yield* tree.refs.c.kill
        yield* stop
        yield* settle
        assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
        for (const id of ["a", "b", "c"]) assert.strictEqual(countOf(log, `-${id}`), countOf(log, `+${id}`))
      })
    )
  }

  it.effect("ST-09 the child that was started first is still stopped last when others vanish meanwhile", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { tree, stop } = yield* stoppable(
        Supervisor.start({
          children: [
            witness("first", log),
            witness("gone", log),
            witness("stays", log),
            witness("crashed", log),
            slow("last", log, "1 second")
          ]
        })
      )
      const stopping = yield* Effect.forkChild(stop)
      yield* settle
      yield* tree.refs.gone.stop
      yield* tree.refs.crashed.cast.crash()
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(log.slice(5), ["-gone", "-crashed", "-last", "-stays", "-first"])
    })
  )

  for (const restart of restarts) {
    it.effect(`ST-10 a dynamic supervisor stops although ${restart} instances end with other reasons`, () =>
      Effect.gen(function* () {
        let runs = 0
        const gate = yield* Deferred.make<void>()
        const { tree, stop } = yield* stoppable(DynamicSupervisor.start({ intensity: { restarts: 0 } }))
        const events = yield* record(tree.events)
        const begun = Effect.andThen(
          Effect.sync(() => void runs++),
          Deferred.await(gate)
        )
        const instance = <E>(id: string, end: Effect.Effect<void, E>) =>
          tree.startChild(ChildSpec.effect(id, Effect.uninterruptible(Effect.andThen(begun, end)), { restart }))
        yield* instance("normal", Effect.void)
        yield* instance("info", Effect.fail(new ExitReason.Stop({ info: "enough" })))
        yield* instance("failure", Effect.fail("failure"))
        yield* instance("defect", Effect.die("defect"))
        const stopping = yield* Effect.forkChild(stop)
        yield* settle
        assert.isTrue(pending(stopping))
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(stopping)
        assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
        assert.strictEqual(runs, 4, "none came back")
        yield* settle
        const reported = events.flatMap((event) => (event._tag === "ShutdownError" ? [event.child] : []))
        // an interruption that was pending wins over a success, so "normal" is seen as a shutdown
        assert.sameMembers(reported, ["failure", "defect"])
      })
    )
  }

  it.effect("ST-11 instances stop in parallel: it takes as long as the slowest may take, not the sum", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const { tree, stop } = yield* stoppable(DynamicSupervisor.start())
      for (let i = 1; i <= 10; i++)
        yield* tree.startChild(slow(`s${i}`, log, Duration.seconds(i), { shutdown: "1 day" }))
      yield* tree.startChild(deaf("deaf", gate, { shutdown: "12 seconds" }))
      const stopping = yield* Effect.forkChild(stop)
      yield* settle
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(log.slice(-2), ["-s9", "-s10"])
      yield* TestClock.adjust(1999)
      assert.isTrue(pending(stopping))
      yield* TestClock.adjust(1)
      yield* settle
      assert.isFalse(pending(stopping))
    })
  )

  it.effect("ST-13 a child that never completes its end cannot hang the supervisor that terminates it", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Endless extends Actor.make("Endless", {
        *init(_arg: void) {
          yield* Effect.addFinalizer(() => Effect.never)
          return 0
        },
        call: { hang: () => Effect.uninterruptible(Effect.never) }
      }) {}
      const { tree, stop } = yield* stoppable(
        Supervisor.start({
          children: [
            witness("a", log),
            ChildSpec.effect("deaf", Effect.uninterruptible(Effect.never)),
            ChildSpec.actor("cleaning", Endless, undefined),
            ChildSpec.actor("handling", Endless, undefined)
          ]
        })
      )
      const caller = yield* Effect.forkChild(Effect.flip(tree.refs.handling.within("1 hour").call.hang()))
      yield* settle
      for (const id of ["deaf", "cleaning", "handling"] as const) {
        const terminate = yield* Effect.forkChild(tree.terminateChild(id))
        yield* settle
        yield* TestClock.adjust(4999)
        assert.isTrue(pending(terminate), id)
        yield* TestClock.adjust(1)
        yield* Fiber.join(terminate)
      }
      const { reason } = yield* Fiber.join(caller)
      assert.strictEqual(reason._tag, "TargetExit", "who waited for it is told")
      const { children } = yield* tree.snapshot
      assert.deepStrictEqual(
        children.map(({ id, status, zombies }) => `${id} ${status} ${zombies}`),
        ["a running 0", "deaf stopped 1", "cleaning stopped 1", "handling stopped 1"]
      )
      yield* tree.restartChild("cleaning")
      assert.strictEqual(yield* tree.refs.a.call.ping(), "a1", "the supervisor and its other children go on")
      const stopping = yield* Effect.forkChild(stop)
      yield* settle
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(log, ["+a", "-a"])
    })
  )

  it.effect("ST-14 children start in the order of the list, whatever their ids", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const ids = ["b", "10", "a", "9", "__proto__", "2", "B"]
      const { stop } = yield* stoppable(Supervisor.start({ children: ids.map((id) => witness(id, log)) }))
      assert.deepStrictEqual(
        log,
        ids.map((id) => `+${id}`)
      )
      log.length = 0
      yield* stop
      assert.deepStrictEqual(
        log,
        ids.toReversed().map((id) => `-${id}`)
      )
    })
  )

  it.effect("ST-15 in a partial restart the children after the crashed one stop in reverse start order", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        strategy: "rest_for_one",
        children: [witness("a", log), witness("z", log), witness("m", log), witness("b", log), witness("y", log)]
      })
      log.length = 0
      yield* tree.refs.z.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-z", "-y", "-b", "-m", "+z", "+m", "+b", "+y"])
    })
  )

  it.effect("ST-17 a stop stops every child in exact reverse start order, restarted and added ones included", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { tree, stop } = yield* stoppable(
        Supervisor.start({
          children: [
            witness("a", log),
            ChildSpec.supervisor("inner", { children: [witness("x", log), witness("y", log)] }),
            witness("b", log),
            witness("c", log)
          ]
        })
      )
      yield* tree.startChild(witness("d", log))
      yield* tree.refs.a.cast.crash()
      yield* settle
      yield* tree.terminateChild("b")
      yield* tree.restartChild("b")
      log.length = 0
      yield* stop
      assert.deepStrictEqual(log, ["-d", "-c", "-b", "-y", "-x", "-a"])
    })
  )
})
