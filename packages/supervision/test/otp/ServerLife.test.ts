import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorRef, ChildSpec, ExitReason, Registry, Supervisor, Watch } from "@tinkex/supervision"
import { Deferred, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { one, pending, record, settle } from "../support.ts"
import { ends, refusal } from "./serverSupport.ts"

class Counter extends Actor.make("Counter", {
  init: (start: number) => ({ total: start }),
  call: {
    add: (self, n: number) => (self.state.total += n),
    generation: (self) => self.generation
  },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

interface Gate {
  readonly gate: Deferred.Deferred<void>
  readonly log: Array<string>
}

/** Its init and its finalizer write down when they are done. The init waits for the gate. */
class Slow extends Actor.make("Slow", {
  *init({ gate, log }: Gate) {
    yield* Effect.addFinalizer(() => Effect.sync(() => log.push("released")))
    log.push("init")
    yield* Deferred.await(gate)
    log.push("up")
    return { log }
  },
  call: { ping: () => "pong" }
}) {}

const gated = Effect.map(Deferred.make<void>(), (gate): Gate => ({ gate, log: [] }))

const noProcess = <A, E extends { readonly reason: { readonly _tag: string } }>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), (error) => assert.strictEqual(error.reason._tag, "NoProcess"))

describe("servers: start", () => {
  it.effect("GS-01 a start returns when init is done and not before, and a call right after it is answered", () =>
    Effect.gen(function* () {
      const box = yield* gated
      const start = yield* Effect.forkChild(Actor.start(Slow, box))
      yield* settle
      assert.deepStrictEqual([pending(start), box.log], [true, ["init"]])
      yield* Deferred.succeed(box.gate, undefined)
      const ref = yield* Fiber.join(start)
      assert.deepStrictEqual(box.log, ["init", "up"])
      assert.strictEqual(yield* ref.call.ping(), "pong")
    })
  )

  it.effect(
    "GS-02 an init that is slower than the start limit makes the start fail with a timeout, and nothing is left",
    () =>
      Effect.gen(function* () {
        const box = yield* gated
        const registry = yield* Registry.make(Slow)
        const options = { startLimit: "2 seconds", names: [registry.name("slow")] } as const
        const start = yield* Effect.forkChild(Effect.flip(Actor.start(Slow, box, options)))
        yield* settle
        assert.isTrue(Option.isSome(yield* registry.lookup("slow")), "the name is taken before init")
        yield* TestClock.adjust(1999)
        assert.isTrue(pending(start))
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(start)
        assert.include(refusal(error), "StartFailed: crash (StartTimeout: ")
        assert.include(error.message, `"init" of "actor/Slow" gave no answer within 2s`)
        yield* Deferred.succeed(box.gate, undefined)
        yield* settle
        assert.deepStrictEqual(box.log, ["init", "released"])
        assert.isTrue(Option.isNone(yield* registry.lookup("slow")))
        yield* noProcess(registry.ref("slow").call.ping())
      })
  )

  it.effect("GS-03 an init may answer ignore or stop with a reason, and the start reports exactly that", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Chooses extends Actor.make("Chooses", {
        *init(outcome: Effect.Effect<number | Actor.Ignore, string | ExitReason.Stop>) {
          yield* Effect.addFinalizer(() => Effect.sync(() => log.push("released")))
          return yield* outcome
        }
      }) {}
      const outcome = (init: Effect.Effect<number | Actor.Ignore, string | ExitReason.Stop>) =>
        Effect.map(Effect.flip(Actor.start(Chooses, init)), refusal)
      assert.strictEqual(yield* outcome(Effect.succeed(Actor.ignore)), "Ignored")
      assert.strictEqual(yield* outcome(Effect.fail("no room")), "StartFailed: crash (no room)")
      assert.strictEqual(
        yield* outcome(new ExitReason.Stop({ info: "not today" })),
        "StartFailed: shutdown (not today)"
      )
      assert.strictEqual(yield* outcome(Effect.die(new Error("defect"))), "StartFailed: crash (Error: defect)")
      assert.deepStrictEqual(
        log,
        Array.from({ length: 4 }, () => "released")
      )
      yield* Actor.start(Chooses, Effect.succeed(1))
    })
  )

  it.effect("GS-05 a start that is monitored from the first moment gives the handle, and the end notice arrives", () =>
    Effect.gen(function* () {
      class Brief extends Actor.make("Brief", {
        init: (_arg: void) => 0,
        started: () => {
          throw new Error("at once")
        }
      }) {}
      const brief = yield* Effect.flatMap(Actor.start(Brief, undefined), (ref) => Watch.monitor(ref))
      const first = yield* brief.down
      assert.strictEqual(first.exit?._tag === "Crash" && String(first.exit.error), "Error: at once")

      const { monitor, ref } = yield* Effect.flatMap(Actor.start(Counter, 1), (ref) =>
        Effect.map(Watch.monitor(ref), (monitor) => ({ ref, monitor }))
      )
      const down = yield* Effect.forkChild(monitor.down)
      assert.strictEqual(yield* ref.call.add(1), 2)
      yield* settle
      assert.isTrue(pending(down))
      yield* ref.kill
      const notice = yield* Fiber.join(down)
      assert.deepStrictEqual(notice, { target: ref.path, generation: 1, exit: ExitReason.killed })
    })
  )

  it.effect("GS-06 a name that is taken refuses the second start, tells the owner, and runs no second init", () =>
    Effect.gen(function* () {
      let inits = 0
      class Named extends Actor.make("Named", {
        init: (value: string) => {
          inits++
          return value
        },
        call: { value: (self) => self.state }
      }) {}
      const registry = yield* Registry.make(Named)
      const names = [registry.name("the one")]
      const { tree } = yield* one(Named, "first", { names })
      const error = yield* Effect.flip(Actor.start(Named, "second", { names }))
      assert.strictEqual(refusal(error), "StartFailed: AlreadyRegistered")
      assert.include(error.message, `it belongs to "supervisor/it"`)
      const sibling = yield* Effect.flip(tree.startChild(ChildSpec.actor("other", Named, "third", { names })))
      assert.strictEqual(refusal(sibling), "StartFailed: AlreadyRegistered")
      const same = yield* Effect.flip(tree.startChild(ChildSpec.actor("it", Named, "fourth")))
      assert.strictEqual(refusal(same), "AlreadyStarted", "a child id is the local kind of name")
      assert.strictEqual(inits, 1)
      const owner = yield* Effect.flatMap(registry.lookup("the one"), Effect.fromOption)
      assert.strictEqual(yield* owner.ref.call.value(), "first")
    })
  )

  it.effect("GS-07 a call to a server that has stopped fails at the caller with no process", () =>
    Effect.gen(function* () {
      const registry = yield* Registry.make(Counter)
      const ref = yield* Actor.start(Counter, 1, { names: [registry.name("counter")] })
      const incarnation = yield* ref.incarnation
      assert.strictEqual(yield* incarnation.call.add(1), 2)
      yield* ref.stop
      yield* noProcess(ref.call.add(1))
      yield* noProcess(incarnation.call.add(1))
      yield* noProcess(registry.ref("counter").call.add(1))
      yield* noProcess(registry.ref("nobody").call.add(1))
    })
  )

  it.effect(
    "GS-09 an actor without init cannot be made; an init that breaks fails its starter, and the starter's starter",
    () =>
      Effect.gen(function* () {
        // @ts-expect-error an actor has an init
        const make = () => Actor.make("Unborn", { call: {} })
        assert.throws(make, /Actor "Unborn": init is undefined/)

        class Broken extends Actor.make("Broken", {
          init: (missing: { readonly make?: () => number }) => (missing.make as () => number)() // what a program without types does
        }) {}
        class Outer extends Actor.make("Outer", {
          *init(_arg: void) {
            return yield* Actor.start(Broken, {})
          }
        }) {}
        const error = yield* Effect.flip(Actor.start(Broken, {}))
        assert.include(refusal(error), "StartFailed: crash (TypeError: ")
        const outer = yield* Effect.flip(Actor.start(Outer, undefined))
        assert.include(refusal(outer), "StartFailed: StartFailed: crash (TypeError: ")
      })
  )
})

describe("servers: stop", () => {
  /** Takes a second to clean up. */
  class Tidy extends Actor.make("Tidy", {
    *init(log: Array<string>) {
      yield* Effect.addFinalizer(() => Effect.map(Effect.sleep("1 second"), () => log.push("tidy")))
      return 0
    },
    call: { ping: () => "pong" }
  }) {}

  it.effect("GS-10 a stop by handle or by name returns when the server is gone; a second one finds no process", () =>
    Effect.gen(function* () {
      const registry = yield* Registry.make(Tidy)
      for (const way of ["handle", "name"] as const) {
        const log: Array<string> = []
        const ref = yield* Actor.start(Tidy, log, { names: [registry.name("tidy")] })
        const target = way === "handle" ? ref : registry.ref("tidy")
        const stop = yield* Effect.forkChild(target.stop)
        yield* settle
        yield* TestClock.adjust(999)
        assert.deepStrictEqual([pending(stop), log], [true, []])
        yield* TestClock.adjust(1)
        yield* Fiber.join(stop)
        assert.deepStrictEqual(log, ["tidy"])
        yield* noProcess(target.stop)
        assert.isTrue(Option.isNone(yield* registry.lookup("tidy")))
      }
      const plain = yield* Registry.make(Counter)
      const ref = yield* Actor.start(Counter, 1, { names: [plain.name("plain")] })
      yield* ref.stop
      yield* noProcess(ref.stop)
      yield* Actor.start(Counter, 2, { names: [plain.name("plain")] })
      assert.strictEqual(yield* plain.ref("plain").call.add(1), 3, "the name was free when the stop returned")
    })
  )

  it.effect("GS-11 a stop can give another reason, which is the one that everybody sees", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      class Last extends Actor.make("Last", {
        init: (_arg: void) => 0,
        terminate: (_self, reason) => void seen.push(ExitReason.format(reason))
      }) {}
      const tree = yield* Supervisor.start({ children: [] })
      const events = yield* record(tree.events)
      const reasons = [
        ExitReason.shutdown,
        { _tag: "Shutdown", info: "moving house" },
        ExitReason.crash(new Error("on demand"))
      ] satisfies ReadonlyArray<ExitReason.ExitReason>
      for (const reason of reasons) {
        const ref = yield* tree.startChild(ChildSpec.actor("it", Last, undefined, { restart: "temporary" }))
        const monitor = yield* Watch.monitor(ref)
        yield* ref.stopWith(reason)
        assert.deepStrictEqual((yield* monitor.down).exit, reason)
      }
      yield* settle
      assert.deepStrictEqual(seen, ["shutdown", "shutdown (moving house)", "crash (Error: on demand)"])
      assert.deepStrictEqual(
        ends(events),
        seen.map((reason) => `it ${reason}`)
      )
    })
  )

  it.effect("GS-17 without a clean-up callback the reason of the end is kept as it is", () =>
    Effect.gen(function* () {
      const boom = new Error("boom")
      class Bare extends Actor.make("Bare", {
        init: (_arg: void) => 0,
        cast: {
          throws: () => {
            throw boom
          },
          stops: (self) => self.stop({ _tag: "Shutdown", info: "done" }),
          quits: (self) => self.stop()
        }
      }) {}
      const tree = yield* Supervisor.start({ children: [] })
      const events = yield* record(tree.events)
      for (const how of ["throws", "stops", "quits"] as const) {
        const ref = yield* tree.startChild(ChildSpec.actor("it", Bare, undefined, { restart: "temporary" }))
        yield* ref.cast[how]()
        yield* settle
      }
      assert.deepStrictEqual(ends(events), ["it crash (Error: boom)", "it shutdown (done)", "it normal"])
      const crash = events.find((event) => event._tag === "ChildExited")
      assert.strictEqual(crash?._tag === "ChildExited" && crash.exit._tag === "Crash" && crash.exit.error, boom)
    })
  )

  for (const [kind, fails] of [
    [
      "throws",
      () => {
        throw new Error("in terminate")
      }
    ],
    ["dies", () => Effect.andThen(Effect.yieldNow, Effect.die(new Error("in terminate")))]
  ] as const) {
    it.effect(`GS-18 an error inside the clean-up that ${kind} becomes the reason of the end`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        class Untidy extends Actor.make("Untidy", {
          *init(_arg: void) {
            yield* Effect.addFinalizer(() => Effect.sync(() => log.push("finalizer")))
            return 0
          },
          cast: { crash: () => Effect.die(new Error("first")) },
          terminate: fails
        }) {}
        const { ref, tree } = yield* one(Untidy, undefined, { restart: "transient" })
        const events = yield* record(tree.events)
        const monitor = yield* Watch.monitor(ref)
        yield* ref.stop
        const { exit } = yield* monitor.down
        assert.strictEqual(exit?._tag === "Crash" && String(exit.error), "Error: in terminate")
        assert.deepStrictEqual(log, ["finalizer"], "what comes after the callback is not skipped")
        yield* settle
        assert.strictEqual((yield* ref.incarnation).generation, 2, "a transient child that ends so has crashed")
        // a crash that was there before stays the reason, with the other one beside it
        yield* ref.cast.crash()
        yield* settle
        assert.deepStrictEqual(ends(events), ["it crash (Error: in terminate)", "it crash (Error: first)"])
        const beside = events.find((event) => event._tag === "ShutdownError")
        assert.strictEqual(
          beside?._tag === "ShutdownError" && ExitReason.format(beside.exit),
          "crash (Error: in terminate)"
        )
      })
    )
  }

  it.effect(
    "GS-19 a server that is asked to stop itself through the synchronous call is refused instead of waiting",
    () =>
      Effect.gen(function* () {
        let stopMe: Effect.Effect<void, unknown> = Effect.void
        class Suicidal extends Actor.make("Suicidal", {
          init: (_arg: void) => 0,
          call: { stop: () => Effect.flip(stopMe) }
        }) {}
        const { ref } = yield* one(Suicidal, undefined)
        for (const stop of [ref.stop, ref.stopWith(ExitReason.shutdown)]) {
          stopMe = stop
          const error = yield* ref.call.stop()
          assert.include(String(error), `"supervisor/it" called its own "stop"`)
        }
        assert.strictEqual((yield* ref.incarnation).generation, 1)
      })
  )
})

describe("servers: becoming one", () => {
  it.effect("GS-14 a fiber does its own initialisation and then becomes a server; it ends as the server does", () =>
    Effect.gen(function* () {
      const refs: Array<ActorRef.ActorRef<typeof Counter>> = []
      const becomes = Effect.gen(function* () {
        yield* Effect.sleep("1 second")
        yield* Actor.enter(Counter, { total: 40 }, { announce: (ref) => Effect.sync(() => void refs.push(ref)) })
        return "afterwards"
      })
      const tree = yield* Supervisor.start({
        children: [ChildSpec.effect("warm", becomes, { restart: "transient" })]
      })
      assert.deepStrictEqual(refs, [])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* (refs[0] ?? assert.fail()).call.add(2), 42)
      yield* (refs[0] ?? assert.fail()).cast.crash()
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        yield* (refs[1] ?? assert.fail()).call.add(2),
        42,
        "its supervisor restarts it from the beginning"
      )
      yield* (refs[1] ?? assert.fail()).stop
      assert.deepStrictEqual(yield* tree.refs.warm.exit, Exit.succeed("afterwards"))
      yield* noProcess((refs[1] ?? assert.fail()).call.add(1))
    })
  )

  it.effect("GS-15 becoming a server under a name that somebody else owns is refused", () =>
    Effect.gen(function* () {
      const registry = yield* Registry.make(Counter)
      const names = [registry.name("counter")]
      const owner = yield* Actor.start(Counter, 1, { names })
      const error = yield* Effect.flip(Actor.enter(Counter, { total: 40 }, { names }))
      assert.strictEqual(refusal(error), "StartFailed: AlreadyRegistered")
      assert.strictEqual(yield* registry.ref("counter").call.add(1), 2, "the owner still has it")
      yield* owner.stop
      const entered = yield* Effect.forkChild(Actor.enter(Counter, { total: 40 }, { names }))
      yield* settle
      assert.strictEqual(yield* registry.ref("counter").call.add(1), 41, "and gives it up when it ends")
      yield* registry.ref("counter").stop
      yield* Fiber.join(entered)
    })
  )
})
