import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Supervisor,
  SupervisorError,
  Watch
} from "@tinkex/supervision"
import { Duration, Effect, Fiber, Scheduler } from "effect"
import { TestClock } from "effect/testing"
import { pending, record, settle, tags, witness } from "../support.ts"
import {
  type Mood,
  Moody,
  closable,
  counts,
  mind,
  problem,
  refusal,
  rootOf,
  statuses,
  woundUp
} from "./dynamicSupport.ts"

const temporary = { restart: "temporary" } as const
const transient = { restart: "transient" } as const

/** An effect that notices its end only after a while, and then ends with what `last` says. */
const slow = (delay: Duration.Input, last: Effect.Effect<void, unknown> = Effect.void) =>
  Effect.never.pipe(Effect.onInterrupt(() => Effect.andThen(Effect.sleep(delay), Effect.orDie(last))))

/** How what is monitored ended, in words. */
const downs = (monitors: ReadonlyArray<Watch.Monitor>) =>
  Effect.forEach(monitors, ({ down }) =>
    Effect.map(down, ({ exit }) => (exit === undefined ? "noproc" : ExitReason.format(exit)))
  )

describe("starting a dynamic supervisor", () => {
  it.effect("DY-01 it can be listed as a child, and takes children of its own from there", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { it: tree, close } = yield* closable(
        Supervisor.start({ children: [DynamicSupervisor.childSpec("pool"), witness("after", log)] })
      )
      const ref = yield* tree.refs.pool.startChild(witness("a", log))
      assert.strictEqual(yield* ref.call.ping(), "a1")
      assert.strictEqual(ref.path, "supervisor/pool/a")
      assert.deepStrictEqual(yield* tree.countChildren, counts(2, 2, 1, 1))
      yield* close
      assert.deepStrictEqual(log, ["+after", "+a", "-after", "-a"])
    })
  )

  it.effect("DY-02 several live under one parent, told apart by their ids; the same id again is already started", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        children: [DynamicSupervisor.childSpec("one"), DynamicSupervisor.childSpec("two")]
      })
      yield* tree.refs.one.startChild(witness("a", []))
      assert.deepStrictEqual(yield* tree.refs.one.countChildren, counts(1, 1, 0, 1))
      assert.deepStrictEqual(yield* tree.refs.two.countChildren, counts(0, 0, 0, 0))
      assert.strictEqual(yield* refusal(tree.startChild(DynamicSupervisor.childSpec("two"))), "AlreadyStarted")
      const twice = Supervisor.start({
        children: [DynamicSupervisor.childSpec("one"), DynamicSupervisor.childSpec("one")]
      })
      assert.include(yield* problem(twice), `two children have the id "one"`)
    })
  )

  it.effect("DY-04 by default it is one for one, grants 3 restarts in 5 seconds, and has no limit on children", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const pool = yield* DynamicSupervisor.start()
      const { intensity } = yield* pool.snapshot
      assert.deepStrictEqual(intensity, { spent: 0, restarts: 3, within: 5000 })
      const refs = yield* Effect.forEach(Array.from({ length: 2000 }), (_, n) => pool.startChild(witness(`w${n}`, log)))
      assert.strictEqual((yield* pool.countChildren).active, 2000)
      log.length = 0
      for (const ref of refs.slice(0, 3)) yield* Effect.andThen(ref.cast.crash(), settle)
      assert.deepStrictEqual(log, ["-w0", "+w0", "-w1", "+w1", "-w2", "+w2"])
      // no time has passed, so the fourth is one too many
      yield* refs[3]?.cast.crash() ?? Effect.die("no such child")
      assert.strictEqual((yield* pool.exit)._tag, "Crash")
    })
  )

  it.effect("DY-05 options that make no sense are refused by name", () =>
    Effect.gen(function* () {
      const refused = (options: object, field: string) =>
        Effect.gen(function* () {
          const words = yield* problem(DynamicSupervisor.start(options))
          assert.include(words, "InvalidRequest")
          assert.include(words, `refused ${field}: `)
        })
      for (const strategy of ["one_for_all", "rest_for_one", "unknown", 1]) yield* refused({ strategy }, "strategy")
      for (const restarts of [-1, 0.5, "3", NaN, Infinity]) {
        yield* refused({ intensity: { restarts } }, "intensity.restarts")
      }
      for (const within of [0, -1, Infinity, "soon"]) yield* refused({ intensity: { within } }, "intensity.within")
      for (const maxChildren of [-1, 1.5, "many", null, NaN]) yield* refused({ maxChildren }, "maxChildren")
      yield* refused({ autoShutdown: "sometimes" }, "autoShutdown")
      yield* refused({ giveUp: "quietly" }, "giveUp")
      yield* refused({ children: [] }, "children")
      // @ts-expect-error there are no extra arguments: a function that makes specs has its own
      const extra: DynamicSupervisor.DynamicSupervisorOptions = { extraArguments: [1] }
      // @ts-expect-error there is no other strategy
      const strategy: DynamicSupervisor.DynamicSupervisorOptions = { strategy: "one_for_all" }
      assert.isDefined([extra, strategy])
      yield* DynamicSupervisor.start({ intensity: { restarts: 0, within: 1 }, maxChildren: 0 })
    })
  )

  it.effect("DY-06 one that has nothing to run says so to its starter; an answer that is none fails the start", () =>
    Effect.gen(function* () {
      const idle = { when: Effect.succeed(false) }
      assert.strictEqual(yield* refusal(DynamicSupervisor.start(idle)), "Ignored")
      const tree = yield* Supervisor.start({ children: [] })
      assert.strictEqual(yield* refusal(tree.startChild(DynamicSupervisor.childSpec("pool", idle))), "Ignored")
      assert.deepStrictEqual(statuses(yield* tree.whichChildren), ["pool stopped"])
      // @ts-expect-error only a boolean is an answer
      const nonsense: DynamicSupervisor.DynamicSupervisorOptions = { when: Effect.succeed("perhaps") }
      const failed = yield* Effect.flip(tree.startChild(DynamicSupervisor.childSpec("odd", nonsense)))
      assert.isTrue(failed.reason._tag === "StartFailed" && failed.reason.exit._tag === "Crash")
      assert.include(failed.message, "perhaps")
      assert.include(yield* problem(DynamicSupervisor.start(nonsense)), "refused when: it answered perhaps")
    })
  )

  it.effect("DY-08 what the starter has set for its fibers holds for those of the child, in each incarnation", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      class Reader extends Actor.make("Reader", {
        *init(_arg: void) {
          return yield* Scheduler.MaxOpsBeforeYield
        },
        call: {
          read: (self) => Effect.map(Scheduler.MaxOpsBeforeYield, (here) => [self.state, here] as const)
        },
        cast: { crash: () => Effect.die("crash") }
      }) {}
      const ref = yield* Effect.provideService(
        pool.startChild(ChildSpec.actor("reader", Reader, undefined)),
        Scheduler.MaxOpsBeforeYield,
        17
      )
      assert.deepStrictEqual(yield* ref.call.read(), [17, 17])
      yield* ref.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* ref.call.read(), [17, 17])
    })
  )
})

describe("reconfiguring a dynamic supervisor", () => {
  it.effect("DY-09 limits that make no sense are refused while it runs, and change nothing", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ maxChildren: 1, intensity: { restarts: 7 } })
      yield* pool.startChild(witness("a", []))
      for (const [options, field] of [
        [{ maxChildren: -1 }, "maxChildren"],
        [{ maxChildren: 5, intensity: { restarts: -1 } }, "intensity.restarts"],
        [{ maxChildren: 5, intensity: { within: 0 } }, "intensity.within"]
      ] as const) {
        assert.include(yield* problem(pool.reconfigure(options)), `refused ${field}: `)
      }
      assert.strictEqual((yield* pool.snapshot).intensity?.restarts, 7)
      assert.strictEqual(yield* refusal(pool.startChild(witness("b", []))), "MaxChildren")
    })
  )

  it.effect("DY-10 a limit below the present count keeps the children and refuses new ones until there is room", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ maxChildren: 3 })
      const refs = yield* Effect.forEach(["a", "b", "c"] as const, (id) => pool.startChild(witness(id, [])))
      yield* pool.reconfigure({ maxChildren: 2 })
      assert.deepStrictEqual(yield* pool.countChildren, counts(3, 3, 0, 3))
      for (const [index, ref] of refs.slice(0, 2).entries()) {
        assert.strictEqual(yield* refusal(pool.startChild(witness("d", []))), "MaxChildren", `with ${3 - index}`)
        yield* pool.terminateChild(ref)
      }
      yield* pool.startChild(witness("d", []))
      assert.deepStrictEqual(yield* pool.countChildren, counts(2, 2, 0, 2))
    })
  )
})

describe("adding children", () => {
  it.effect("DY-12 a function that makes specs puts what all children share in front of their own arguments", () =>
    Effect.gen(function* () {
      class Worker extends Actor.make("Worker", {
        init: (args: ReadonlyArray<string>) => args,
        call: { args: (self) => self.state }
      }) {}
      const specOf =
        (...shared: ReadonlyArray<string>) =>
        (...own: ReadonlyArray<string>) =>
          ChildSpec.actor("worker", Worker, [...shared, ...own])
      const worker = specOf("shared", "too")
      const pool = yield* DynamicSupervisor.start()
      const none = yield* pool.startChild(worker())
      const some = yield* pool.startChild(worker("own"))
      assert.deepStrictEqual(yield* none.call.args(), ["shared", "too"])
      assert.deepStrictEqual(yield* some.call.args(), ["shared", "too", "own"])
    })
  )

  it.effect("DY-13 an invalid spec is refused before the supervisor is asked at all", () =>
    Effect.gen(function* () {
      const { it: pool, close } = yield* closable(DynamicSupervisor.start({ maxChildren: 0 }))
      const invalid = [
        witness("a/b", []),
        witness("", []),
        witness("a", [], { shutdown: -1 }),
        witness("a", [], { significant: true }),
        // @ts-expect-error there is no such restart type
        witness("a", [], { restart: "sometimes" }),
        {} as ReturnType<typeof witness>, // what an untyped program may hand over
        "a" as unknown as ReturnType<typeof witness> // the same
      ]
      // @ts-expect-error the argument of init is missing
      assert.isDefined(ChildSpec.actor("a", Moody))
      const refusals = Effect.forEach(invalid, (spec) => refusal(pool.startChild(spec)))
      const all = invalid.map(() => "InvalidRequest")
      assert.deepStrictEqual(yield* refusals, all, "it has no room, and says nothing of that")
      assert.strictEqual(yield* refusal(pool.startChild(witness("a", []))), "MaxChildren")
      yield* close
      assert.deepStrictEqual(yield* refusals, all, "it has ended, and says nothing of that")
      assert.strictEqual(yield* refusal(pool.startChild(witness("a", []))), "SupervisorStopped")
    })
  )

  it.effect("DY-14 each outcome of a start reaches the one who asked as what it is", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      const start = (mood: Mood) => pool.startChild(ChildSpec.actor(mood, Moody, mind(mood)))
      assert.strictEqual(yield* (yield* start("ok")).call.ping(), 1)
      assert.strictEqual(yield* (yield* start("info")).call.ping(), 1)
      assert.deepStrictEqual(
        (yield* pool.whichChildren).map(({ id, info }) => [id, info]),
        [
          ["info", "start 1"],
          ["ok", undefined]
        ]
      )
      const failures = yield* Effect.forEach(["ignore", "error", "throw"] as const, (mood) => Effect.flip(start(mood)))
      assert.deepStrictEqual(
        failures.map(({ reason }) => reason._tag),
        ["Ignored", "StartFailed", "StartFailed"]
      )
      const [, error, nonsense] = failures.map(({ reason }) =>
        reason._tag === "StartFailed" ? rootOf(reason.exit) : undefined
      )
      assert.strictEqual(error, "no good")
      assert.strictEqual(String(nonsense), "Error: nonsense")
      assert.deepStrictEqual(yield* pool.countChildren, counts(2, 2, 0, 2), "those leave nothing behind")
    })
  )

  it.effect("DY-16 a limit of none refuses the first child", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ maxChildren: 0 })
      const error = yield* Effect.flip(pool.startChild(witness("a", [])))
      assert.isTrue(error.reason._tag === "MaxChildren" && error.reason.limit === 0)
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
    })
  )
})

describe("children that end by themselves", () => {
  const endings = {
    normal: ExitReason.normal,
    shutdown: ExitReason.shutdown,
    "shutdown with info": { _tag: "Shutdown", info: "enough" },
    crash: ExitReason.crash("boom"),
    killed: ExitReason.killed
  } as const

  it.effect("DY-17 a temporary child is forgotten however it ends", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const pool = yield* DynamicSupervisor.start()
      for (const ending of Object.values(endings)) {
        const ref = yield* pool.startChild(witness("t", log, temporary))
        yield* ref.stopWith(ending)
        yield* settle
        assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0), ending._tag)
        assert.strictEqual(yield* refusal(pool.terminateChild(ref)), "NotFound")
      }
      assert.strictEqual(log.filter((line) => line === "+t").length, 5, "none was started again")
    })
  )

  it.effect("DY-18 a transient child is forgotten when it ends cleanly, and replaced when it crashes", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      for (const ending of Object.values(endings)) {
        const ref = yield* pool.startChild(witness("t", [], transient))
        const before = yield* ref.incarnation
        yield* ref.stopWith(ending)
        yield* settle
        if (ExitReason.isClean(ending)) {
          assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0), ExitReason.format(ending))
          continue
        }
        assert.deepStrictEqual(yield* pool.countChildren, counts(1, 1, 0, 1), ExitReason.format(ending))
        assert.strictEqual(yield* ref.call.ping(), "t2")
        assert.strictEqual((yield* Effect.flip(before.call.ping())).reason._tag, "NoProcess")
        yield* pool.terminateChild(ref)
      }
    })
  )

  const restarted = (mood: Mood) =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ backoff: Backoff.fixed("1 second"), intensity: { restarts: 1000 } })
      const thoughts = mind()
      const ref = yield* pool.startChild(ChildSpec.actor("it", Moody, thoughts))
      thoughts.mood = mood
      yield* ref.cast.crash()
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(thoughts.starts, 2)
      return { pool, ref, children: yield* pool.whichChildren }
    })

  it.effect("DY-20 a restart that comes up replaces the child, with its new info if it has one", () =>
    Effect.gen(function* () {
      const plain = yield* restarted("ok")
      assert.deepStrictEqual(statuses(plain.children), ["it running"])
      assert.strictEqual(yield* plain.ref.call.ping(), 2)
      const informed = yield* restarted("info")
      assert.deepStrictEqual(statuses(informed.children), ["it running"])
      assert.strictEqual(informed.children[0]?.info, "start 2")
    })
  )

  it.effect("DY-20 a restart that has nothing to run removes the child", () =>
    Effect.gen(function* () {
      const { children, pool, ref } = yield* restarted("ignore")
      assert.deepStrictEqual(children, [])
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      assert.strictEqual(yield* refusal(pool.terminateChild(ref)), "NotFound")
      assert.strictEqual((yield* Effect.flip(ref.call.ping())).reason._tag, "NoProcess")
    })
  )

  for (const mood of ["error", "throw"] as const) {
    it.effect(`DY-20 a restart that ends with ${mood} leaves the child listed as restarting`, () =>
      Effect.gen(function* () {
        const { children, pool } = yield* restarted(mood)
        assert.deepStrictEqual(statuses(children), ["it restarting"])
        assert.deepStrictEqual(yield* pool.countChildren, counts(1, 0, 0, 1))
      })
    )
  }

  it.effect("DY-21 a child that fails to start again still takes up its place", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ maxChildren: 1, intensity: { restarts: 1_000_000 } })
      const thoughts = mind()
      const ref = yield* pool.startChild(ChildSpec.actor("it", Moody, thoughts))
      thoughts.mood = "error"
      yield* ref.cast.crash()
      yield* settle
      assert.isAbove(thoughts.starts, 2, "it keeps trying")
      assert.strictEqual(yield* refusal(pool.startChild(witness("other", []))), "MaxChildren")
      assert.deepStrictEqual(yield* pool.countChildren, counts(1, 0, 0, 1))
      yield* pool.terminateChild(ref)
      yield* pool.startChild(witness("other", []))
    })
  )

  it.effect("DY-22 a child that was started again has the place that it had", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ maxChildren: 1 })
      const ref = yield* pool.startChild(witness("it", []))
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it2")
      assert.deepStrictEqual(yield* pool.countChildren, counts(1, 1, 0, 1))
      assert.strictEqual(yield* refusal(pool.startChild(witness("other", []))), "MaxChildren")
    })
  )

  it.effect("DY-24 after a failed attempt a later one succeeds without help from outside", () =>
    Effect.gen(function* () {
      const thoughts = mind()
      class Second extends Actor.make("Second", {
        init: (arg: typeof thoughts) => (++arg.starts === 2 ? Effect.fail("not yet") : Effect.succeed(arg.starts)),
        call: { start: (self) => self.state },
        cast: { crash: () => Effect.die("crash") }
      }) {}
      const pool = yield* DynamicSupervisor.start()
      const ref = yield* pool.startChild(ChildSpec.actor("it", Second, thoughts))
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* ref.call.start(), 3)
      assert.deepStrictEqual(yield* pool.countChildren, counts(1, 1, 0, 1))
      assert.strictEqual((yield* pool.snapshot).intensity?.spent, 2)
    })
  )

  for (const giveUp of ["shutdown", "crash"] as const) {
    const words = giveUp === "shutdown" ? "ends it with a shutdown, if told so" : "ends it with a crash that says why"
    const ended = (exit: ExitReason.ExitReason) =>
      giveUp === "shutdown"
        ? assert.deepStrictEqual(exit, ExitReason.shutdown)
        : assert.isTrue(
            exit._tag === "Crash" &&
              exit.error instanceof SupervisorError.SupervisorError &&
              exit.error.reason._tag === "MaxRestartsExceeded"
          )

    it.effect(`DY-25 one crash more than is granted ${words}`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 1 }, giveUp })
        const ref = yield* pool.startChild(witness("a", log))
        yield* pool.startChild(witness("b", log))
        yield* ref.cast.crash()
        yield* settle
        assert.strictEqual(yield* ref.call.ping(), "a2")
        yield* ref.cast.crash()
        ended(yield* pool.exit)
        assert.deepStrictEqual(log, ["+a", "+b", "-a", "+a", "-a", "-b"])
      })
    )

    it.effect(`DY-26 failed attempts that use up what is granted are the same: that ${words}`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 4 }, giveUp })
        const thoughts = mind()
        const ref = yield* pool.startChild(ChildSpec.actor("it", Moody, thoughts))
        yield* pool.startChild(witness("b", log))
        thoughts.mood = "error"
        yield* ref.cast.crash()
        ended(yield* pool.exit)
        assert.strictEqual(thoughts.starts, 5)
        assert.deepStrictEqual(log, ["+b", "-b"])
      })
    )
  }
})

describe("stopping", () => {
  const stopping = (children: ReadonlyArray<readonly [Effect.Effect<unknown, unknown>, ChildSpec.ChildOptions]>) =>
    Effect.gen(function* () {
      const { it: pool, close } = yield* closable(DynamicSupervisor.start())
      const events = yield* record(pool.events)
      const refs = yield* Effect.forEach(children, ([effect, options], index) =>
        pool.startChild(ChildSpec.effect(`c${index}`, effect, options))
      )
      const monitors = yield* Effect.forEach(refs, Watch.monitor)
      yield* woundUp
      const closing = yield* Effect.forkChild(close)
      yield* settle
      return { closing, events, monitors, pool, refs }
    })

  it.effect("DY-28 it waits for children without a limit, which end with a shutdown", () =>
    Effect.gen(function* () {
      const { closing, monitors, pool } = yield* stopping([
        [slow("1 day"), { shutdown: "infinity" }],
        [slow("2 days"), { shutdown: Duration.infinity }]
      ])
      yield* TestClock.adjust(Duration.days(2).pipe(Duration.subtract(Duration.millis(1))))
      yield* settle
      assert.isTrue(pending(closing))
      yield* TestClock.adjust(1)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* downs(monitors), ["shutdown", "shutdown"])
      assert.deepStrictEqual(yield* pool.exit, ExitReason.shutdown)
    })
  )

  it.effect("DY-29 children that end with a shutdown of their own while being stopped are in order", () =>
    Effect.gen(function* () {
      const own = Effect.uninterruptible(Effect.andThen(Effect.sleep("1 second"), new ExitReason.Stop({ info: "own" })))
      const { closing, events, monitors } = yield* stopping([
        [own, { shutdown: "infinity" }],
        [own, { shutdown: "infinity", ...temporary }]
      ])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* downs(monitors), ["shutdown (own)", "shutdown (own)"])
      assert.notInclude(tags(events).join(), "ShutdownError")
    })
  )

  it.effect("DY-30 children that end within their limit end with a shutdown", () =>
    Effect.gen(function* () {
      const { closing, events, monitors } = yield* stopping([
        [slow("900 millis"), { shutdown: "1 second" }],
        [Effect.never, { shutdown: "1 second" }]
      ])
      yield* TestClock.adjust("900 millis")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* downs(monitors), ["shutdown", "shutdown"])
      assert.notInclude(tags(events).join(), "Zombie")
    })
  )

  it.effect("DY-32 a child that does not end within its limit is left behind, fenced and reported; others end", () =>
    Effect.gen(function* () {
      const { closing, events, monitors, pool } = yield* stopping([
        [slow("1 hour"), { shutdown: "1 second" }],
        [slow("500 millis"), { shutdown: "1 second" }]
      ])
      yield* TestClock.adjust(999)
      yield* settle
      assert.isTrue(pending(closing))
      yield* TestClock.adjust(1)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* pool.exit, ExitReason.shutdown)
      assert.deepStrictEqual(yield* downs(monitors), ["killed", "shutdown"])
      assert.deepStrictEqual(tags(events).slice(2), [
        "ChildStopped c1",
        "Zombie c0",
        "ChildStopped c0",
        "SupervisorExited supervisor"
      ])
    })
  )

  it.effect("DY-33 a permanent child that ends normally while all are stopped is seen and reported as such", () =>
    Effect.gen(function* () {
      class Leaving extends Actor.make("Leaving", {
        *init(_arg: void) {
          yield* Effect.addFinalizer(() => Effect.sleep("1 second"))
          return 0
        }
      }) {}
      const { it: pool, close } = yield* closable(DynamicSupervisor.start())
      const events = yield* record(pool.events)
      const ref = yield* pool.startChild(ChildSpec.actor("normal", Leaving, undefined))
      yield* pool.startChild(ChildSpec.effect("slow", slow("2 seconds")))
      const monitor = yield* Watch.monitor(ref)
      yield* woundUp
      yield* Effect.forkChild(ref.stop)
      yield* settle
      const closing = yield* Effect.forkChild(close)
      yield* settle
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* downs([monitor]), ["normal"])
      const exit = events.find((event) => event._tag === "ChildExited")
      assert.isTrue(exit?.child === "normal" && exit._tag === "ChildExited" && exit.exit._tag === "Normal")
      assert.deepStrictEqual(yield* pool.exit, ExitReason.shutdown)
    })
  )

  it.effect("DY-34 different limits side by side: each child has its own, and all run at the same time", () =>
    Effect.gen(function* () {
      const { closing, events, pool } = yield* stopping([
        [slow("1 hour"), { shutdown: "3 seconds" }],
        [slow("1 hour"), { shutdown: "1 second" }],
        [slow("4 seconds"), { shutdown: "infinity" }],
        [slow("1 hour"), { shutdown: "brutal" }],
        [slow("1 hour"), { shutdown: "2 seconds" }]
      ])
      const left: Array<ReadonlyArray<string>> = []
      const zombies = () => tags(events.filter((event) => event._tag === "Zombie"))
      left.push(zombies())
      for (let second = 1; second <= 4; second++) {
        assert.isTrue(pending(closing))
        yield* TestClock.adjust("1 second")
        yield* settle
        left.push(zombies().slice(left.flat().length))
      }
      assert.deepStrictEqual(left, [["Zombie c3"], ["Zombie c1"], ["Zombie c4"], ["Zombie c0"], []])
      yield* Fiber.join(closing)
      assert.deepStrictEqual(yield* pool.exit, ExitReason.shutdown)
    })
  )

  it.effect("DY-36 a terminated child ends with a shutdown, and is unknown from then on", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const pool = yield* DynamicSupervisor.start()
      const ref = yield* pool.startChild(witness("a", log, { shutdown: "1 second" }))
      yield* pool.startChild(witness("b", log))
      const monitor = yield* Watch.monitor(ref)
      yield* pool.terminateChild(ref)
      assert.deepStrictEqual(yield* downs([monitor]), ["shutdown"])
      assert.deepStrictEqual(log, ["+a", "+b", "-a"])
      assert.strictEqual(yield* refusal(pool.terminateChild(ref)), "NotFound")
      assert.deepStrictEqual(yield* pool.countChildren, counts(1, 1, 0, 1))
    })
  )

  it.effect("DY-37 a child that is being restarted can be terminated by the handle of the incarnation that ended", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 1_000_000 } })
      const thoughts = mind()
      const ref = yield* pool.startChild(ChildSpec.actor("it", Moody, thoughts))
      const ended = yield* ref.incarnation
      thoughts.mood = "error"
      yield* ref.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* pool.countChildren, counts(1, 0, 0, 1))
      yield* pool.terminateChild(ended)
      const { starts } = thoughts
      yield* settle
      assert.strictEqual(thoughts.starts, starts, "it is not tried any more")
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      assert.strictEqual(yield* refusal(pool.terminateChild(ended)), "NotFound")
    })
  )

  it.effect("DY-37 such a handle does not reach the incarnation that came after", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      const ref = yield* pool.startChild(witness("it", []))
      const first = yield* ref.incarnation
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* refusal(pool.terminateChild(first)), "NotFound")
      assert.strictEqual(yield* ref.call.ping(), "it2")
      yield* pool.terminateChild(yield* ref.incarnation)
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
    })
  )
})
