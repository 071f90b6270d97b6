import { assert, describe, it } from "@effect/vitest"
import { Actor, ChildSpec, ExitReason, Supervisor, SupervisorError } from "@tinkex/supervision"
import { Clock, Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Logger, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { pending, record, settle, tags, witness } from "./support.ts"

/** A fiber child that writes down its life and ends when it is told to. */
const job = (id: string, log: Array<string>, end: Deferred.Deferred<void, string>) =>
  Effect.gen(function* () {
    log.push(`+${id}`)
    yield* Effect.addFinalizer(() => Effect.sync(() => log.push(`-${id}`)))
    return yield* Deferred.await(end)
  })

/** Starts as long as `broken` is not set. */
class Fragile extends Actor.make("Fragile", {
  init: (arg: { broken: boolean; attempts: number }) =>
    Effect.suspend(() => {
      arg.attempts++
      return arg.broken ? Effect.fail("broken") : Effect.succeed(arg)
    }),
  call: { ping: (self) => self.generation },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

const reasonOf = (exit: ExitReason.ExitReason) =>
  exit._tag === "Crash" && exit.error instanceof SupervisorError.SupervisorError ? exit.error.reason : undefined

const refusal = <A>(effect: Effect.Effect<A, SupervisorError.SupervisorError>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason._tag)

const statuses = Effect.fnUntraced(function* (tree: {
  readonly whichChildren: Effect.Effect<ReadonlyArray<{ readonly id: string; readonly status: string }>>
}) {
  return (yield* tree.whichChildren).map(({ id, status }) => `${id} ${status}`)
})

describe("start and stop", () => {
  it.effect("S1: children start in order and stop in exact reverse order", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      yield* Effect.scoped(Supervisor.start({ children: [witness("z", log), witness("a", log), witness("m", log)] }))
      assert.deepStrictEqual(log, ["+z", "+a", "+m", "-m", "-a", "-z"])
    })
  )

  it.effect("S1: a child that fails to start stops those before it in reverse; nothing is retried", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = { broken: true, attempts: 0 }
      const error = yield* Effect.flip(
        Supervisor.start({
          name: "shop",
          children: [witness("a", log), witness("b", log), ChildSpec.actor("c", Fragile, arg), witness("d", log)]
        })
      )
      assert.deepStrictEqual(log, ["+a", "+b", "-b", "-a"])
      assert.strictEqual(arg.attempts, 1)
      assert.strictEqual(error.reason._tag, "StartFailed")
      assert.include(error.message, `"shop" could not start its child "c": crash (broken)`)
    })
  )

  it.effect("interrupting the starter stops what had been started", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Slow extends Actor.make("Slow", {
        init: (_arg: void) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("slow interrupted")))
      }) {}
      const scope = yield* Scope.make()
      const start = yield* Supervisor.start({
        children: [witness("a", log), ChildSpec.actor("slow", Slow, undefined), witness("b", log)]
      }).pipe(Effect.provideService(Scope.Scope, scope), Effect.forkChild)
      yield* settle
      yield* Fiber.interrupt(start)
      assert.deepStrictEqual(log, ["+a", "slow interrupted", "-a"])
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.effect("the scope ends the tree; its exit is a shutdown; later requests and calls are refused", () =>
    Effect.gen(function* () {
      const tree = yield* Effect.scoped(Supervisor.start({ children: [witness("a", [])] }))
      assert.strictEqual((yield* tree.exit)._tag, "Shutdown")
      yield* tree.join
      assert.strictEqual(yield* refusal(tree.startChild(witness("b", []))), "SupervisorStopped")
      assert.strictEqual((yield* Effect.flip(tree.refs.a.call.ping())).reason._tag, "NoProcess")
    })
  )

  it.effect("a start limit turns an init that hangs into a failed start", () =>
    Effect.gen(function* () {
      class Hangs extends Actor.make("Hangs", { init: (_arg: void) => Effect.never }) {}
      const start = yield* Effect.forkChild(
        Effect.flip(
          Supervisor.start({ children: [ChildSpec.actor("h", Hangs, undefined, { startLimit: "2 seconds" })] })
        )
      )
      yield* settle
      yield* TestClock.adjust(1999)
      assert.isTrue(pending(start))
      yield* TestClock.adjust(1)
      assert.include((yield* Fiber.join(start)).message, `"init" of "supervisor/h" gave no answer within 2s`)
    })
  )

  it.effect("messages that arrive while an init takes its time are handled afterwards", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      class Late extends Actor.make("Late", {
        init: (_arg: void) => Effect.as(Deferred.await(gate), { ready: true }),
        call: { ready: (self) => self.state.ready },
        cast: { crash: () => Effect.die("crash") }
      }) {}
      yield* Deferred.succeed(gate, undefined)
      const tree = yield* Supervisor.start({ children: [ChildSpec.actor("late", Late, undefined)] })
      yield* tree.refs.late.cast.crash()
      yield* settle
      assert.isTrue(yield* tree.refs.late.call.ready())
    })
  )

  it.effect("options that make no sense are refused by name, in a nested supervisor too", () =>
    Effect.gen(function* () {
      const problem = <A, R>(start: Effect.Effect<A, SupervisorError.SupervisorError, R>) =>
        Effect.map(Effect.flip(start), (error) => `${error.reason._tag}: ${error.message}`)
      const negative = yield* problem(Supervisor.start({ intensity: { restarts: -1 }, children: [] }))
      assert.include(negative, "InvalidRequest")
      assert.include(negative, "intensity.restarts: it is -1")
      const none = yield* problem(Supervisor.start({ intensity: { within: 0 }, children: [] }))
      assert.include(none, "intensity.within: it is 0")
      const endless = yield* problem(Supervisor.start({ intensity: { within: Duration.infinity }, children: [] }))
      assert.include(endless, "intensity.within: it is Infinity")
      const twice = yield* problem(Supervisor.start({ children: [witness("a", []), witness("a", [])] }))
      assert.include(twice, `two children have the id "a"`)
      const nested = ChildSpec.supervisor("inner", { intensity: { restarts: 0.5 }, children: [] })
      assert.include(yield* problem(Supervisor.start({ children: [nested] })), "intensity.restarts: it is 0.5")
    })
  )

  it.effect("a layer starts and stops with the program; its services reach every incarnation", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Name extends Context.Service<Name, string>()("test/Name") {}
      class Named extends Actor.make("Named", {
        *init(_arg: void) {
          const name = yield* Name
          log.push(`+${name}`)
          yield* Effect.addFinalizer(() => Effect.sync(() => log.push(`-${name}`)))
          return 0
        }
      }) {}
      const live = Supervisor.layer({ children: [ChildSpec.actor("n", Named, undefined)] })
      yield* Effect.provide(Effect.void, Layer.provide(live, Layer.succeed(Name, "x")))
      assert.deepStrictEqual(log, ["+x", "-x"])
    })
  )
})

describe("restart types", () => {
  const cases = [
    ["permanent", "clean", 2],
    ["permanent", "crash", 2],
    ["transient", "clean", 1],
    ["transient", "crash", 2],
    ["temporary", "clean", 1],
    ["temporary", "crash", 1]
  ] as const
  for (const [restart, how, starts] of cases) {
    it.effect(`${restart} after a ${how} end starts ${starts === 2 ? "again" : "no more"}`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        let end = yield* Deferred.make<void, string>()
        const tree = yield* Supervisor.start({
          children: [
            ChildSpec.effect(
              "job",
              Effect.suspend(() => job("job", log, end)),
              { restart }
            )
          ]
        })
        const previous = end
        end = yield* Deferred.make<void, string>()
        yield* how === "clean" ? Deferred.succeed(previous, undefined) : Deferred.fail(previous, "boom")
        yield* settle
        assert.strictEqual(log.filter((line) => line === "+job").length, starts)
        const left = yield* tree.countChildren
        assert.deepStrictEqual(left, {
          specs: restart === "temporary" ? 0 : 1,
          active: starts - 1,
          supervisors: 0,
          workers: restart === "temporary" ? 0 : 1
        })
      })
    )
  }

  it.effect("a child that fails with Stop ended cleanly", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        children: [ChildSpec.effect("job", new ExitReason.Stop({ info: "enough" }), { restart: "transient" })]
      })
      const events = yield* record(tree.events)
      yield* settle
      const exit = events.find((event) => event._tag === "ChildExited")
      assert.isTrue(exit?._tag === "ChildExited" && exit.exit._tag === "Shutdown" && exit.exit.info === "enough")
      assert.deepStrictEqual(yield* statuses(tree), ["job stopped"])
    })
  )
})

describe("effect children", () => {
  it.effect("a temporary child added later is observed to its end, with its typed exit", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [] })
      const end = yield* Deferred.make<number, "no">()
      const ref = yield* tree.startChild(ChildSpec.effect("work", Deferred.await(end), { restart: "temporary" }))
      const exit = yield* Effect.forkChild(ref.exit)
      yield* settle
      assert.isTrue(pending(exit))
      yield* Deferred.succeed(end, 42)
      assert.deepStrictEqual(yield* Fiber.join(exit), Exit.succeed(42))
      assert.deepStrictEqual(yield* ref.exit, Exit.succeed(42), "it can be awaited again")
      assert.strictEqual((yield* tree.countChildren).specs, 0)
    })
  )

  it.effect("a failure, and a stop by the supervisor, are exits too", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [] })
      const fails = yield* tree.startChild(ChildSpec.effect("f", Effect.fail("no"), { restart: "temporary" }))
      assert.deepStrictEqual(yield* fails.exit, Exit.fail("no"))
      const runs = yield* tree.startChild(ChildSpec.effect("r", Effect.never, { restart: "temporary" }))
      yield* tree.terminateChild("r")
      const exit = yield* runs.exit
      assert.isTrue(Exit.isFailure(exit) && Exit.hasInterrupts(exit))
    })
  )

  it.effect("the exit of a restarted child waits for its last end", () =>
    Effect.gen(function* () {
      let runs = 0
      const tree = yield* Supervisor.start({
        children: [
          ChildSpec.effect(
            "twice",
            Effect.suspend(() => (++runs < 3 ? Effect.fail("again") : Effect.succeed(runs))),
            {
              restart: "transient"
            }
          )
        ]
      })
      assert.deepStrictEqual(yield* tree.refs.twice.exit, Exit.succeed(3))
    })
  )
})

describe("strategies", () => {
  const run = (strategy: "one_for_one" | "one_for_all" | "rest_for_one") =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        strategy,
        children: [witness("a", log), witness("b", log), witness("c", log)]
      })
      const events = yield* record(tree.events)
      log.length = 0
      yield* tree.refs.b.cast.crash()
      yield* settle
      return { log, tree, events }
    })

  it.effect("one_for_one replaces the crashed child only", () =>
    Effect.gen(function* () {
      const { log, tree } = yield* run("one_for_one")
      assert.deepStrictEqual(log, ["-b", "+b"])
      const generations = yield* Effect.forEach(["a", "b", "c"] as const, (id) => tree.refs[id].call.ping())
      assert.deepStrictEqual(generations, ["a1", "b2", "c1"])
    })
  )

  it.effect("rest_for_one stops those after it in reverse, then starts them in order", () =>
    Effect.gen(function* () {
      const { log } = yield* run("rest_for_one")
      assert.deepStrictEqual(log, ["-b", "-c", "+b", "+c"])
    })
  )

  it.effect("one_for_all stops all others in reverse, then starts all in order", () =>
    Effect.gen(function* () {
      const { log, events } = yield* run("one_for_all")
      assert.deepStrictEqual(log, ["-b", "-c", "-a", "+a", "+b", "+c"])
      assert.deepStrictEqual(tags(events).slice(3), [
        "ChildExited b",
        "ChildStopped c",
        "ChildStopped a",
        "ChildStarted a",
        "ChildStarted b",
        "ChildStarted c",
        "ChildRestarted b"
      ])
    })
  )

  it.effect("the order of children survives a restart", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tree = yield* Supervisor.start({ children: [witness("a", log), witness("b", log), witness("c", log)] })
          yield* tree.refs.a.cast.crash()
          yield* settle
          log.length = 0
        })
      )
      assert.deepStrictEqual(log, ["-c", "-b", "-a"])
    })
  )

  it.effect("a group restart forgets temporary siblings and brings back those that were down", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        children: [witness("a", log), witness("t", log, { restart: "temporary" }), witness("b", log)]
      })
      yield* tree.terminateChild("b")
      log.length = 0
      yield* tree.refs.a.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-a", "-t", "+a", "+b"])
      assert.deepStrictEqual(yield* statuses(tree), ["b running", "a running"])
      yield* tree.startChild(witness("t", log))
    })
  )

  it.effect("one_for_all: when a later child fails to restart, the next attempt begins with the first", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = { broken: false, attempts: 0 }
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        intensity: { restarts: 2 },
        children: [witness("a", log), ChildSpec.actor("f", Fragile, arg), witness("c", log)]
      })
      log.length = 0
      arg.broken = true
      yield* tree.refs.a.cast.crash()
      const exit = yield* tree.exit
      assert.strictEqual(reasonOf(exit)?._tag, "MaxRestartsExceeded")
      assert.deepStrictEqual(log, ["-a", "-c", "+a", "-a", "+a", "-a"])
      assert.strictEqual(arg.attempts, 3)
    })
  )

  it.effect("one_for_all: those after a child that cannot restart are down until somebody asks for them", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = { broken: false, attempts: 0 }
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        intensity: { restarts: 1_000_000 },
        children: [witness("a", log), ChildSpec.actor("f", Fragile, arg), witness("c", log)]
      })
      arg.broken = true
      yield* tree.refs.a.cast.crash()
      yield* settle
      yield* tree.terminateChild("f")
      assert.deepStrictEqual(yield* statuses(tree), ["c stopped", "f stopped", "a running"])
      const refused = yield* Effect.flip(tree.refs.c.call.ping())
      assert.strictEqual(refused.reason._tag, "NoProcess", "nobody waits for a child that will not come")
      yield* tree.restartChild("c")
      assert.strictEqual(yield* tree.refs.c.call.ping(), "c2")
    })
  )

  it.effect("rest_for_one: when a later child fails to restart, the earlier ones stay up", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const arg = { broken: false, attempts: 0 }
      const tree = yield* Supervisor.start({
        strategy: "rest_for_one",
        intensity: { restarts: 2 },
        children: [witness("a", log), ChildSpec.actor("f", Fragile, arg), witness("c", log)]
      })
      log.length = 0
      arg.broken = true
      yield* tree.refs.a.cast.crash()
      yield* tree.exit
      assert.deepStrictEqual(log, ["-a", "-c", "+a", "-a"])
    })
  )
})

describe("intensity", () => {
  const crashing = (restarts: number) =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        name: "shop",
        intensity: { restarts, within: "5 seconds" },
        children: [witness("a", log), witness("b", log)]
      })
      return { log, tree, crash: Effect.andThen(tree.refs.b.cast.crash(), settle) }
    })

  it.effect("S3: N restarts are granted, the next ends the supervisor; the others stop; the history tells", () =>
    Effect.gen(function* () {
      const { log, tree, crash } = yield* crashing(2)
      const events = yield* record(tree.events)
      yield* crash
      yield* crash
      assert.strictEqual(yield* tree.refs.b.call.ping(), "b3")
      log.length = 0
      yield* crash
      assert.deepStrictEqual(log, ["-b", "-a"])
      const reason = reasonOf(yield* tree.exit)
      assert.isTrue(reason?._tag === "MaxRestartsExceeded" && reason.history.length === 3 && reason.child === "b")
      assert.include(reason?.message ?? "", `"shop" gave up: more than 2 restarts within 5s`)
      assert.strictEqual((yield* Effect.flip(tree.join)).reason._tag, "MaxRestartsExceeded")
      assert.strictEqual((yield* Effect.flip(tree.refs.a.call.ping())).reason._tag, "NoProcess")
      assert.deepStrictEqual(tags(events).slice(-4), [
        "ChildExited b",
        "GaveUp b",
        "ChildStopped a",
        "SupervisorExited shop"
      ])
    })
  )

  it.effect("none at all ends it at the first crash", () =>
    Effect.gen(function* () {
      const { tree, crash } = yield* crashing(0)
      yield* crash
      assert.strictEqual(reasonOf(yield* tree.exit)?._tag, "MaxRestartsExceeded")
    })
  )

  for (const [age, ends] of [
    [5000, true],
    [5001, false]
  ] as const) {
    it.effect(`a restart that is ${age} ms old ${ends ? "still counts" : "is forgotten"}`, () =>
      Effect.gen(function* () {
        const { tree, crash } = yield* crashing(1)
        const exit = yield* Effect.forkChild(tree.exit)
        yield* crash
        yield* TestClock.adjust(age)
        yield* crash
        assert.strictEqual(pending(exit), !ends)
      })
    )
  }

  it.effect("S2: failed attempts cost; manual stops and starts do not", () =>
    Effect.gen(function* () {
      const arg = { broken: false, attempts: 0 }
      const tree = yield* Supervisor.start({
        intensity: { restarts: 3 },
        children: [ChildSpec.actor("f", Fragile, arg)]
      })
      for (let i = 0; i < 5; i++) {
        yield* tree.terminateChild("f")
        yield* tree.restartChild("f")
      }
      assert.strictEqual(arg.attempts, 6)
      arg.broken = true
      yield* tree.refs.f.cast.crash()
      const reason = reasonOf(yield* tree.exit)
      assert.isTrue(reason?._tag === "MaxRestartsExceeded" && reason.history.length === 4)
      assert.strictEqual(arg.attempts, 9)
    })
  )

  it.effect("a group restart costs one, however many children it touches", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        intensity: { restarts: 1 },
        children: [witness("a", []), witness("b", []), witness("c", [])]
      })
      yield* tree.refs.a.cast.crash()
      yield* settle
      assert.strictEqual(yield* tree.refs.c.call.ping(), "c2")
    })
  )
})

describe("shutdown", () => {
  const stubborn = (gate: Deferred.Deferred<void>) => Effect.uninterruptible(Deferred.await(gate))

  it.effect("S4: what does not stop within its limit is fenced, reported, and reported again when it ends", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const scope = yield* Scope.make()
      const tree = yield* Supervisor.start({
        children: [
          witness("a", log),
          ChildSpec.effect("stuck", stubborn(gate), { shutdown: "2 seconds" }),
          witness("c", log)
        ]
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const events = yield* record(tree.events)
      const close = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* settle
      assert.deepStrictEqual(log, ["+a", "+c", "-c"])
      yield* TestClock.adjust(1999)
      assert.isTrue(pending(close))
      yield* TestClock.adjust(1)
      yield* Fiber.join(close)
      assert.deepStrictEqual(log, ["+a", "+c", "-c", "-a"])
      yield* settle
      assert.deepStrictEqual(tags(events).slice(3), [
        "ChildStopped c",
        "Zombie stuck",
        "ChildStopped stuck",
        "ChildStopped a",
        "SupervisorExited supervisor"
      ])
    })
  )

  it.effect("brutal waits for nothing; infinity waits for ever", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const tree = yield* Supervisor.start({
        children: [
          ChildSpec.effect("brutal", stubborn(gate), { shutdown: "brutal" }),
          ChildSpec.effect("patient", stubborn(gate), { shutdown: "infinity" })
        ]
      })
      const events = yield* record(tree.events)
      yield* tree.terminateChild("brutal")
      const stop = yield* Effect.forkChild(tree.terminateChild("patient"))
      yield* settle
      yield* TestClock.adjust("1 day")
      assert.isTrue(pending(stop))
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(stop)
      yield* settle
      assert.include(tags(events), "Zombie brutal")
      assert.include(tags(events), "ZombieEnded brutal")
      assert.notInclude(tags(events), "Zombie patient")
    })
  )

  it.effect("a finalizer that dies is a shutdown error, and disturbs nobody else", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Bad extends Actor.make("Bad", {
        *init(_arg: void) {
          yield* Effect.addFinalizer(() => Effect.die("finalizer"))
          return 0
        }
      }) {}
      const scope = yield* Scope.make()
      const tree = yield* Supervisor.start({
        children: [witness("a", log), ChildSpec.actor("bad", Bad, undefined)]
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const events = yield* record(tree.events)
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.include(tags(events), "ShutdownError bad")
      assert.deepStrictEqual(log, ["+a", "-a"])
    })
  )

  it.effect("a crash waits for its own finalizers, within the limit, before the restart", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Slow extends Actor.make("Slow", {
        *init(_arg: void) {
          log.push("+")
          yield* Effect.addFinalizer(() => Effect.map(Effect.sleep("3 seconds"), () => log.push("-")))
          return 0
        },
        cast: { crash: () => Effect.die("crash") },
        call: { ping: () => "pong" }
      }) {}
      const tree = yield* Supervisor.start({ children: [ChildSpec.actor("s", Slow, undefined)] })
      yield* tree.refs.s.cast.crash()
      yield* settle
      const ping = yield* Effect.forkChild(tree.refs.s.call.ping())
      yield* settle
      yield* TestClock.adjust(2999)
      assert.deepStrictEqual(log, ["+"])
      yield* TestClock.adjust(1)
      yield* settle
      assert.deepStrictEqual(log, ["+", "-", "+"])
      assert.strictEqual(yield* Fiber.join(ping), "pong", "the message waited for the new incarnation")
      yield* Effect.forkChild(tree.terminateChild("s"))
      yield* settle
      yield* TestClock.adjust("3 seconds")
    })
  )
})

describe("administration", () => {
  it.effect("every refusal has its name", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      assert.strictEqual(yield* refusal(tree.startChild(witness("a", []))), "AlreadyStarted")
      assert.strictEqual(yield* refusal(tree.terminateChild("x")), "NotFound")
      assert.strictEqual(yield* refusal(tree.restartChild("x")), "NotFound")
      assert.strictEqual(yield* refusal(tree.deleteChild("x")), "NotFound")
      assert.strictEqual(yield* refusal(tree.restartChild("a")), "Running")
      assert.strictEqual(yield* refusal(tree.deleteChild("a")), "Running")
      yield* tree.terminateChild("a")
      yield* tree.terminateChild("a")
      assert.strictEqual(yield* refusal(tree.startChild(witness("a", []))), "AlreadyPresent")
      assert.deepStrictEqual(yield* tree.countChildren, { specs: 1, active: 0, supervisors: 0, workers: 1 })
      yield* tree.restartChild("a")
      assert.strictEqual(yield* tree.refs.a.call.ping(), "a2")
      yield* tree.terminateChild("a")
      yield* tree.deleteChild("a")
      assert.deepStrictEqual(yield* tree.whichChildren, [])
      const again = yield* tree.startChild(witness("a", []))
      assert.strictEqual(yield* again.call.ping(), "a1")
    })
  )

  it.effect("a child that cannot start is not kept; a known one that cannot stays stopped", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [] })
      const arg = { broken: true, attempts: 0 }
      assert.strictEqual(yield* refusal(tree.startChild(ChildSpec.actor("f", Fragile, arg))), "StartFailed")
      assert.deepStrictEqual(yield* tree.whichChildren, [])
      arg.broken = false
      yield* tree.startChild(ChildSpec.actor("f", Fragile, arg))
      yield* tree.terminateChild("f")
      arg.broken = true
      assert.strictEqual(yield* refusal(tree.restartChild("f")), "StartFailed")
      assert.deepStrictEqual(yield* statuses(tree), ["f stopped"])
    })
  )

  it.effect("children are listed with the latest first", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", []), witness("b", [])] })
      yield* tree.startChild(witness("c", []))
      assert.deepStrictEqual(
        (yield* tree.whichChildren).map((child) => child.id),
        ["c", "b", "a"]
      )
    })
  )

  it.effect("a restart loop is interruptible by requests, and ends when its child is terminated", () =>
    Effect.gen(function* () {
      const arg = { broken: false, attempts: 0 }
      const tree = yield* Supervisor.start({
        intensity: { restarts: 1_000_000 },
        children: [ChildSpec.actor("f", Fragile, arg), witness("w", [])]
      })
      arg.broken = true
      yield* tree.refs.f.cast.crash()
      yield* settle
      assert.isAbove(arg.attempts, 2)
      assert.strictEqual(yield* refusal(tree.restartChild("f")), "Restarting")
      assert.strictEqual(yield* refusal(tree.deleteChild("f")), "Restarting")
      assert.strictEqual(yield* refusal(tree.startChild(ChildSpec.actor("f", Fragile, arg))), "AlreadyPresent")
      assert.deepStrictEqual(yield* statuses(tree), ["w running", "f restarting"])
      yield* tree.terminateChild("f")
      const { attempts } = arg
      yield* settle
      assert.strictEqual(arg.attempts, attempts)
      arg.broken = false
      yield* tree.restartChild("f")
      assert.strictEqual(yield* tree.refs.f.call.ping(), 2)
    })
  )

  it.effect("terminating a child whose start hangs ends the start", () =>
    Effect.gen(function* () {
      class Hangs extends Actor.make("Hangs", { init: (_arg: void) => Effect.never }) {}
      const tree = yield* Supervisor.start({ children: [] })
      const start = yield* Effect.forkChild(refusal(tree.startChild(ChildSpec.actor("h", Hangs, undefined))))
      yield* settle
      assert.deepStrictEqual(yield* statuses(tree), ["h starting"])
      yield* Effect.exit(tree.terminateChild("h"))
      assert.strictEqual(yield* Fiber.join(start), "StartFailed")
    })
  )

  it.effect("a request whose caller left before its turn is not served", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      class Gated extends Actor.make("Gated", { init: (_arg: void) => Deferred.await(gate) }) {}
      const tree = yield* Supervisor.start({ children: [] })
      yield* Effect.forkChild(tree.startChild(ChildSpec.actor("g", Gated, undefined)))
      yield* settle
      const second = yield* Effect.forkChild(tree.startChild(witness("w", [])))
      yield* settle
      yield* Fiber.interrupt(second)
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(yield* statuses(tree), ["g running"])
    })
  )

  it.effect("an init that asks its own supervisor is refused at once", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [] })
      class Asks extends Actor.make("Asks", {
        init: (_arg: void) => refusal(tree.startChild(witness("w", []))),
        call: { answer: (self) => self.state }
      }) {}
      const ref = yield* tree.startChild(ChildSpec.actor("asks", Asks, undefined))
      assert.strictEqual(yield* ref.call.answer(), "InvalidRequest")
    })
  )
})

describe("nested supervisors", () => {
  const nested = (log: Array<string>, restart: "permanent" | "transient") =>
    Supervisor.start({
      name: "root",
      children: [
        witness("first", log),
        ChildSpec.supervisor("inner", {
          restart,
          intensity: { restarts: 0 },
          children: [witness("x", log), witness("y", log)]
        })
      ]
    })

  for (const restart of ["permanent", "transient"] as const) {
    it.effect(`a ${restart} one that gave up comes back with its listed children; added ones are gone`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const tree = yield* nested(log, restart)
        const { inner } = tree.refs
        yield* inner.startChild(witness("added", log))
        const events = yield* record(tree.events)
        log.length = 0
        yield* inner.refs.y.cast.crash()
        yield* settle
        assert.deepStrictEqual(log, ["-y", "-added", "-x", "+x", "+y"])
        assert.strictEqual(yield* inner.refs.x.call.ping(), "x2", "the ref of a grandchild survives too")
        assert.deepStrictEqual(yield* statuses(inner), ["y running", "x running"])
        const gaveUp = events.find((event) => event._tag === "GaveUp")
        assert.strictEqual(gaveUp?.supervisor, "root/inner")
      })
    )
  }

  it.effect("stopping the root stops the whole tree in reverse; inner events are the inner's alone", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const tree = yield* Effect.provideService(nested(log, "permanent"), Scope.Scope, scope)
      const inner = yield* record(tree.refs.inner.events)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(log.slice(3), ["-y", "-x", "-first"])
      assert.strictEqual((yield* tree.refs.inner.exit)._tag, "Shutdown")
      yield* settle
      assert.deepStrictEqual(tags(inner), [
        "ChildStarted x",
        "ChildStarted y",
        "ChildStopped y",
        "ChildStopped x",
        "SupervisorExited inner"
      ])
    })
  )

  it.effect("a failing start of an inner child fails the outer start and says why", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const error = yield* Effect.flip(
        Supervisor.start({
          children: [
            witness("a", log),
            ChildSpec.supervisor("inner", {
              children: [witness("b", log), ChildSpec.actor("f", Fragile, { broken: true, attempts: 0 })]
            })
          ]
        })
      )
      assert.deepStrictEqual(log, ["+a", "+b", "-b", "-a"])
      assert.include(error.message, `"supervisor/inner" could not start its child "f"`)
    })
  )
})

describe("defects of the supervisor itself", () => {
  it.effect("S5: it reports a crash and leaves no child behind", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const clock = yield* Clock.clockWith(Effect.succeed)
      let broken = false
      const faulty: Clock.Clock = {
        ...clock,
        monotonicTimeNanosUnsafe: () => {
          // the run queue reads the clock too; only the supervisor's own reading is to fail
          if (broken && new Error().stack?.includes("restart") === true) throw new Error("the clock broke")
          return clock.monotonicTimeNanosUnsafe()
        }
      }
      const tree = yield* Effect.provideService(
        Supervisor.start({ children: [witness("a", log), witness("b", log)] }),
        Clock.Clock,
        faulty
      )
      broken = true
      yield* tree.refs.a.cast.crash()
      const exit = yield* tree.exit
      assert.isTrue(exit._tag === "Crash" && exit.error instanceof Error && exit.error.message === "the clock broke")
      assert.deepStrictEqual(log, ["+a", "+b", "-a", "-b"])
      assert.isTrue(Exit.hasDies(yield* Effect.exit(tree.join)))
    })
  )
})

describe("events", () => {
  it.effect("a late reader sees the start, and the stream ends with the tree", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const tree = yield* Effect.provideService(
        Supervisor.start({ name: "r", children: [witness("a", [])] }),
        Scope.Scope,
        scope
      )
      const all = yield* Effect.forkChild(Stream.runCollect(tree.events))
      yield* settle
      yield* TestClock.adjust(5)
      yield* Scope.close(scope, Exit.void)
      const events = yield* Fiber.join(all)
      assert.deepStrictEqual(tags(events), ["ChildStarted a", "ChildStopped a", "SupervisorExited r"])
      assert.strictEqual(events[1]?.supervisor, "r")
      assert.strictEqual(events[1]?.time.epochMilliseconds, 5)
    })
  )

  it.effect("S6: a reader that falls behind is told how much it missed, and holds up nobody", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      const gate = yield* Deferred.make<void>()
      const seen: Array<string> = []
      yield* tree.events.pipe(
        Stream.runForEach((event) =>
          Effect.map(Deferred.await(gate), () =>
            seen.push(event._tag === "EventsMissed" ? `missed ${event.count}` : event._tag)
          )
        ),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* tree.terminateChild("a")
      for (let i = 0; i < 8192 + 475; i++) yield* tree.refs.a.cast.crash()
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(seen.slice(0, 3), ["ChildStarted", "missed 476", "MessageDropped"])
      assert.strictEqual(seen.length, 1 + 1 + 8192)
    })
  )
})

describe("what a child inherits", () => {
  it.effect("services of the one who added it, but not that one's span", () =>
    Effect.gen(function* () {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      const tree = yield* Supervisor.start({ children: [] })
      const look = Effect.all([Name, Effect.exit(Effect.currentSpan)])
      const ref = yield* tree
        .startChild(ChildSpec.effect("look", look, { restart: "temporary" }))
        .pipe(Effect.withSpan("request"), Effect.provideService(Name, "caller"))
      const [name, span] = yield* Effect.flatten(ref.exit)
      assert.strictEqual(name, "caller")
      assert.isTrue(Exit.isFailure(span))
    })
  )
})

describe("alarms", () => {
  it.effect("P6: a crash that nobody reads about is logged; one that somebody reads about is not", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      const logger = Logger.make(({ message }) => void lines.push(message))
      yield* Effect.gen(function* () {
        const tree = yield* Supervisor.start({ name: "shop", children: [witness("a", [])] })
        yield* tree.refs.a.cast.crash()
        yield* settle
        assert.deepStrictEqual(lines.map(String), ["ChildExited shop/a: crash (Error: crash) in crash"])
        yield* record(tree.events)
        yield* tree.refs.a.cast.crash()
        yield* settle
        assert.strictEqual(lines.length, 1)
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  )
})
