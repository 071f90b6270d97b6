import { assert, describe, it } from "@effect/vitest"
import { Actor, ChildSpec, ExitReason, Supervisor, Watch } from "@tinkex/supervision"
import { Deferred, Effect, Exit, Fiber, Logger } from "effect"
import { TestClock } from "effect/testing"
import { pending, record, settle, tags, witness } from "../support.ts"
import {
  clockInUse,
  endless,
  fragile,
  health,
  lingering,
  median,
  opened,
  reasonOf,
  refusal,
  statuses,
  timed
} from "./strategySupport.ts"

describe("17. Rules that decide arguments", () => {
  for (const giveUp of ["crash", "shutdown"] as const) {
    const ending = giveUp === "shutdown" ? "a plain shutdown, as in OTP" : "a crash that names the reason, by default"
    it.effect(
      `XX-01 intensity N grants N restarts in the window; the next one ends the supervisor with ${ending}`,
      () =>
        Effect.gen(function* () {
          const tree = yield* Supervisor.start({
            intensity: { restarts: 3, within: "5 seconds" },
            giveUp: giveUp === "crash" ? undefined : giveUp,
            children: [witness("a", []), witness("b", [])]
          })
          for (let restart = 1; restart <= 3; restart++) {
            yield* tree.refs.b.cast.crash()
            yield* settle
            assert.strictEqual(yield* tree.refs.b.call.ping(), `b${restart + 1}`)
            assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
          }
          yield* tree.refs.b.cast.crash()
          const exit = yield* tree.exit
          if (giveUp === "shutdown") assert.deepStrictEqual(exit, ExitReason.shutdown)
          else assert.strictEqual(reasonOf(exit)?._tag, "MaxRestartsExceeded")
          assert.strictEqual((yield* Effect.flip(tree.refs.a.call.ping())).reason._tag, "NoProcess")
        })
    )
  }

  for (const [age, ends] of [
    [4999, true],
    [5000, true],
    [5001, false]
  ] as const) {
    it.effect(`XX-03 a restart ${age} ms old ${ends ? "still counts" : "no longer counts"} in a window of 5 s`, () =>
      Effect.gen(function* () {
        const tree = yield* Supervisor.start({
          intensity: { restarts: 1, within: "5 seconds" },
          children: [witness("a", [])]
        })
        const exit = yield* Effect.forkChild(tree.exit)
        // the age counts, not the phase within a second
        yield* TestClock.adjust(700)
        yield* tree.refs.a.cast.crash()
        yield* settle
        yield* TestClock.adjust(age)
        yield* tree.refs.a.cast.crash()
        yield* settle
        assert.strictEqual(!pending(exit), ends)
      })
    )
  }

  it.effect("XX-04 each failed attempt to restart costs one unit; restarts and stops by hand cost none", () =>
    Effect.gen(function* () {
      const arg = health()
      const tree = yield* Supervisor.start({ intensity: { restarts: 3 }, children: [fragile("f", arg)] })
      const spent = Effect.map(tree.snapshot, (node) => node.intensity?.spent)
      for (let i = 0; i < 10; i++) {
        yield* tree.terminateChild("f")
        yield* tree.restartChild("f")
      }
      yield* tree.terminateChild("f")
      arg.broken = true
      for (let i = 0; i < 10; i++) assert.strictEqual(yield* refusal(tree.restartChild("f")), "StartFailed")
      assert.strictEqual(yield* spent, 0)
      arg.broken = false
      yield* tree.restartChild("f")
      arg.broken = true
      arg.attempts = 0
      yield* tree.refs.f.cast.crash()
      assert.strictEqual(reasonOf(yield* tree.exit)?._tag, "MaxRestartsExceeded")
      assert.strictEqual(arg.attempts, 3)
    })
  )

  it.effect("XX-05 the child that used up the budget is forgotten first, then the others stop in reverse order", () =>
    Effect.gen(function* () {
      yield* clockInUse
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        name: "shop",
        intensity: { restarts: 0 },
        children: [
          witness("a", log),
          witness("b", log),
          witness("c", log),
          lingering("slow", log, "1 second"),
          witness("d", log)
        ]
      })
      const events = yield* record(tree.events)
      log.length = 0
      yield* tree.refs.b.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* statuses(tree), ["d stopped", "slow stopping", "c running", "a running"])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(reasonOf(yield* tree.exit)?._tag, "MaxRestartsExceeded")
      yield* settle
      assert.deepStrictEqual(log, ["-b", "-d", "-slow", "-c", "-a"])
      assert.deepStrictEqual(tags(events).slice(5), [
        "ChildExited b",
        "GaveUp b",
        "ChildStopped d",
        "ChildStopped slow",
        "ChildStopped c",
        "ChildStopped a",
        "SupervisorExited shop"
      ])
    })
  )

  it.effect("XX-07 a child that dies while later ones are starting is only restarted when all have started", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const die = yield* Deferred.make<void>()
      let runs = 0
      const first = ChildSpec.effect(
        "first",
        Effect.suspend(() => {
          log.push(`+first${++runs}`)
          return runs === 1 ? Effect.andThen(Deferred.await(die), Effect.die("crash")) : Effect.never
        })
      )
      const slow = ChildSpec.effect(
        "slow",
        Effect.andThen(Deferred.await(gate), Effect.andThen(ChildSpec.ready, Effect.never)),
        {
          readiness: "signalled"
        }
      )
      const start = yield* Effect.forkScoped(Supervisor.start({ children: [first, slow, witness("last", log)] }))
      yield* settle
      yield* Deferred.succeed(die, undefined)
      yield* settle
      assert.deepStrictEqual(log, ["+first1"])
      assert.isTrue(pending(start), "the start goes on")
      yield* Deferred.succeed(gate, undefined)
      const tree = yield* Fiber.join(start)
      yield* settle
      assert.deepStrictEqual(log, ["+first1", "+last", "+first2"])
      assert.deepStrictEqual(yield* statuses(tree), ["last running", "slow running", "first running"])
      assert.deepStrictEqual(tags(yield* record(tree.events)), [
        "ChildStarted first",
        "ChildExited first",
        "ChildStarted slow",
        "ChildStarted last",
        "ChildStarted first",
        "ChildRestarted first"
      ])
    })
  )

  for (const strategy of ["one_for_all", "rest_for_one"] as const) {
    it.effect(
      `XX-08 ${strategy}: a temporary sibling that was stopped in a group restart is forgotten; its id is free`,
      () =>
        Effect.gen(function* () {
          const log: Array<string> = []
          const tree = yield* Supervisor.start({
            strategy,
            children: [witness("a", log), witness("t", log, { restart: "temporary" }), witness("c", log)]
          })
          log.length = 0
          yield* tree.refs.a.cast.crash()
          yield* settle
          assert.deepStrictEqual(log, ["-a", "-c", "-t", "+a", "+c"])
          assert.deepStrictEqual(yield* statuses(tree), ["c running", "a running"])
          assert.strictEqual(yield* refusal(tree.restartChild("t")), "NotFound")
          const again = yield* tree.startChild(witness("t", log))
          assert.strictEqual(yield* again.call.ping(), "t1")
        })
    )
  }

  for (const restart of ["permanent", "transient", "temporary"] as const) {
    const isReported = restart === "permanent"
    it.effect(
      `XX-09 a ${restart} child that ends normally during a shutdown is ${isReported ? "" : "not "}reported as an error`,
      () =>
        Effect.gen(function* () {
          const done = yield* Deferred.make<void>()
          const log: Array<string> = []
          // the end of the later one lets the earlier one come to its own end, before its turn to be stopped
          const { tree, close } = yield* opened(
            Supervisor.start({
              children: [
                witness("first", log),
                ChildSpec.effect("early", Deferred.await(done), { restart }),
                ChildSpec.effect(
                  "late",
                  Effect.onInterrupt(Effect.never, () => Effect.andThen(Deferred.succeed(done, undefined), settle))
                )
              ]
            })
          )
          const events = yield* record(tree.events)
          yield* close
          yield* settle
          const reports = events.filter((event) => event._tag === "ShutdownError")
          assert.deepStrictEqual(
            reports.map(({ child, exit }) => [child, exit._tag]),
            isReported ? [["early", "Normal"]] : []
          )
          assert.deepStrictEqual(yield* tree.refs.early.exit, Exit.void)
          assert.deepStrictEqual(log, ["+first", "-first"])
        })
    )
  }

  it.effect("XX-11 the end of what a supervisor belongs to ends it with that reason, after its children", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const inner = ChildSpec.supervisor("inner", { children: [witness("x", log), witness("y", log)] })
      const { tree, closeWith } = yield* opened(
        Supervisor.start({ name: "root", children: [witness("a", log), inner] })
      )
      const events = yield* record(tree.events)
      log.length = 0
      yield* Effect.forkChild(
        Effect.andThen(
          tree.exit,
          Effect.sync(() => log.push("root ended"))
        )
      )
      yield* Effect.forkChild(
        Effect.andThen(
          tree.refs.inner.exit,
          Effect.sync(() => log.push("inner ended"))
        )
      )
      yield* settle
      yield* closeWith(Exit.fail("the program failed"))
      yield* settle
      assert.deepStrictEqual(log, ["-y", "-x", "inner ended", "-a", "root ended"])
      const exit = yield* tree.exit
      assert.isTrue(exit._tag === "Crash" && exit.error === "the program failed")
      assert.deepStrictEqual(yield* tree.refs.inner.exit, ExitReason.shutdown)
      const ends = events.flatMap((event) => (event._tag === "SupervisorExited" ? [[event.child, event.exit]] : []))
      assert.deepStrictEqual(ends, [
        ["inner", ExitReason.shutdown],
        ["root", exit]
      ])
    })
  )

  it.effect("XX-11 without a failure around it, a supervisor ends with a shutdown", () =>
    Effect.gen(function* () {
      const { tree, close } = yield* opened(Supervisor.start({ children: [witness("a", [])] }))
      yield* close
      assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
      const interrupted = yield* opened(Supervisor.start({ children: [witness("a", [])] }))
      yield* interrupted.closeWith(Exit.interrupt())
      assert.deepStrictEqual(yield* interrupted.tree.exit, ExitReason.shutdown)
    })
  )

  it.effect("XX-12 a message that reaches nobody is logged and dropped, and disturbs nobody", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      const logger = Logger.make(({ message }) => void lines.push(message))
      yield* Effect.gen(function* () {
        const tree = yield* Supervisor.start({ name: "shop", children: [witness("a", []), witness("b", [])] })
        yield* tree.terminateChild("b")
        yield* tree.refs.b.cast.crash()
        yield* settle
        assert.deepStrictEqual(lines.map(String), ["MessageDropped shop/b: crash (no_process)"])
        const events = yield* record(tree.events)
        yield* settle
        assert.strictEqual(events.at(-1)?._tag, "MessageDropped")
        assert.deepStrictEqual(yield* statuses(tree), ["b stopped", "a running"])
        assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  )

  it.effect("XX-12 a supervisor takes no messages, and the end of a stranger that is linked to it is not its own", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      // @ts-expect-error a supervisor has requests of its own and no protocol
      assert.isUndefined(tree.cast)
      const exit = yield* Effect.exit(Watch.link(tree)(Effect.die("stranger")))
      assert.isTrue(Exit.hasDies(exit))
      yield* settle
      assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
      assert.deepStrictEqual(yield* statuses(tree), ["a running"])
    })
  )

  it.effect("XX-13 while a start is under way requests wait, and queries answer at once from what is known", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      class Slow extends Actor.make("Slow", { init: (_arg: void) => Deferred.await(gate) }) {}
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      const slow = yield* Effect.forkChild(tree.startChild(ChildSpec.actor("slow", Slow, undefined)))
      yield* settle
      const added = yield* Effect.forkChild(tree.startChild(witness("b", [])))
      const stopped = yield* Effect.forkChild(tree.terminateChild("a"))
      yield* settle
      assert.deepStrictEqual([pending(slow), pending(added), pending(stopped)], [true, true, true])
      // where OTP makes queries wait too, ours answer
      assert.deepStrictEqual(yield* statuses(tree), ["slow starting", "a running"])
      assert.deepStrictEqual(yield* tree.countChildren, { specs: 2, active: 1, supervisors: 0, workers: 2 })
      assert.strictEqual((yield* tree.childSpec("slow")).restart, "permanent")
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.all([Fiber.join(slow), Fiber.join(added), Fiber.join(stopped)])
      assert.deepStrictEqual(yield* statuses(tree), ["b running", "slow running", "a stopped"])
    })
  )

  it.effect("XX-13 a request that arrives during a restart waits for that attempt and is served before the next", () =>
    Effect.gen(function* () {
      const gates: Array<Deferred.Deferred<void, string>> = []
      class Slow extends Actor.make("Slow", {
        *init(_arg: void) {
          const gate = yield* Deferred.make<void, string>()
          gates.push(gate)
          yield* Deferred.await(gate)
          return 0
        },
        cast: { crash: () => Effect.die("crash") }
      }) {}
      const tree = yield* Supervisor.start({ intensity: endless, children: [] })
      const start = yield* Effect.forkChild(tree.startChild(ChildSpec.actor("slow", Slow, undefined)))
      yield* settle
      yield* Deferred.succeed(gates[0] ?? assert.fail("no first start"), undefined)
      const slow = yield* Fiber.join(start)
      yield* slow.cast.crash()
      yield* settle
      const added = yield* Effect.forkChild(tree.startChild(witness("b", [])))
      yield* settle
      assert.strictEqual(gates.length, 2)
      assert.isTrue(pending(added), "an attempt is under way")
      yield* Deferred.fail(gates[1] ?? assert.fail("no second start"), "broken")
      yield* Fiber.join(added)
      assert.strictEqual(gates.length, 2, "served between the attempts")
      yield* settle
      assert.strictEqual(gates.length, 3)
      assert.deepStrictEqual(yield* statuses(tree), ["b running", "slow starting"])
    })
  )

  it.effect("XX-15 all_significant: children that are not running do not hold up the shutdown", () =>
    Effect.gen(function* () {
      class Idle extends Actor.make("Idle", { init: (_arg: void) => Actor.ignore }) {}
      const options = { restart: "transient", significant: true } as const
      const tree = yield* Supervisor.start({
        autoShutdown: "all_significant",
        children: [
          ChildSpec.actor("ignored", Idle, undefined, options),
          witness("terminated", [], options),
          witness("last", [], options),
          witness("other", [])
        ]
      })
      const exit = yield* Effect.forkChild(tree.exit)
      yield* tree.terminateChild("terminated")
      yield* settle
      assert.isTrue(pending(exit), "a stop by hand never triggers")
      assert.deepStrictEqual(yield* statuses(tree), [
        "other running",
        "last running",
        "terminated stopped",
        "ignored stopped"
      ])
      yield* tree.refs.last.stop
      assert.deepStrictEqual(yield* Fiber.join(exit), ExitReason.shutdown)
    })
  )

  it.effect("XX-15 all_significant: a child that waits for its restart still counts as running", () =>
    Effect.gen(function* () {
      const arg = health()
      const options = { restart: "transient", significant: true } as const
      const tree = yield* Supervisor.start({
        autoShutdown: "all_significant",
        intensity: endless,
        children: [fragile("looping", arg, options), witness("last", [], options)]
      })
      const exit = yield* Effect.forkChild(tree.exit)
      arg.broken = true
      yield* tree.refs.looping.cast.crash()
      yield* settle
      yield* tree.refs.last.stop
      yield* settle
      assert.isTrue(pending(exit))
      arg.broken = false
      yield* settle
      yield* tree.refs.looping.stop
      assert.deepStrictEqual(yield* Fiber.join(exit), ExitReason.shutdown)
    })
  )

  it.effect("XX-16 rest_for_one: the retry after a failed restart begins at the child that failed, and costs one", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = health()
      const tree = yield* Supervisor.start({
        strategy: "rest_for_one",
        intensity: { restarts: 4 },
        children: [witness("a", log), witness("b", log), fragile("f", arg), witness("z", log)]
      })
      log.length = 0
      arg.broken = true
      arg.attempts = 0
      yield* tree.refs.b.cast.crash()
      const exit = yield* tree.exit
      assert.strictEqual(reasonOf(exit)?._tag, "MaxRestartsExceeded")
      assert.strictEqual(arg.attempts, 4, "one with b, three by itself")
      assert.deepStrictEqual(log, ["-b", "-z", "+b", "-b", "-a"], "b was started again only once")
    })
  )

  it.effect("XX-16 rest_for_one: when the retry succeeds, those after the failed child come up too", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = health()
      const tree = yield* Supervisor.start({
        strategy: "rest_for_one",
        intensity: endless,
        children: [witness("a", log), witness("b", log), fragile("f", arg), witness("z", log)]
      })
      log.length = 0
      arg.broken = true
      yield* tree.refs.b.cast.crash()
      yield* settle
      arg.broken = false
      yield* settle
      assert.deepStrictEqual(log, ["-b", "-z", "+b", "+z"])
      assert.strictEqual(yield* tree.refs.z.call.ping(), "z2")
    })
  )

  it.effect("XX-17 the cost of a restart grows neither with the intensity nor with the restarts in the window", () =>
    Effect.gen(function* () {
      const burst = 500
      class Lean extends Actor.make("Lean", { init: (_arg: void) => 0, call: { ping: () => 0 } }) {}
      const crashing = Effect.fnUntraced(function* (restarts: number) {
        const tree = yield* Supervisor.start({
          intensity: { restarts },
          children: [ChildSpec.actor("a", Lean, undefined)]
        })
        const { a } = tree.refs
        return (count: number) =>
          Effect.gen(function* () {
            for (let i = 0; i < count; i++) {
              yield* a.kill
              yield* a.call.ping()
            }
          })
      })
      const few = yield* crashing(20 * burst)
      const many = yield* crashing(1_000_000)
      yield* many(50_000)
      yield* few(burst)
      const short: Array<number> = []
      const long: Array<number> = []
      // in turns, so that whatever else the machine does meanwhile slows down both
      for (let round = 0; round < 15; round++) {
        short.push(yield* timed(few(burst)))
        long.push(yield* timed(many(burst)))
      }
      const told = `${burst} restarts took ${median(short)} ms at first, and ${median(long)} ms after many`
      assert.isBelow(median(long) / median(short), 6, told)
    })
  )
})
