import { assert, describe, it } from "@effect/vitest"
import { Actor, CallError, ChildSpec, DynamicSupervisor, Supervisor } from "@tinkex/supervision"
import { Deferred, Duration, Effect, Exit, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { AsyncLocalStorage } from "node:async_hooks"
import { one, pending, record, settle, tags } from "./support.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {}

interface Gates {
  readonly open: Deferred.Deferred<void>
  readonly log: Array<string>
}

/** Handles what it is told, and stops at the gate when it is told to. */
class Desk extends Actor.make("Desk", {
  init: (gates: Gates) => ({ ...gates, total: 0 }),
  call: {
    add: (self, n: number) => (self.state.total += n),
    *wait(self) {
      self.state.log.push("waiting")
      yield* Deferred.await(self.state.open)
      return (self.state.total += 100)
    },
    sleep: (_self, millis: number) => Effect.as(Effect.sleep(millis), millis),
    *refuse(self, why: string) {
      self.state.total++
      return yield* new Refused({ why })
    },
    throws: (): number => {
      throw new Error("thrown")
    },
    dies: () => Effect.die("died"),
    interrupts: () => Effect.interrupt,
    nothing: () => undefined,
    late: () => Exit.succeed("exit")
  },
  cast: {
    note: (self, text: string) => {
      self.state.log.push(text)
    },
    fails: () => new Refused({ why: "cast" }),
    *pause(self) {
      yield* Deferred.await(self.state.open)
    }
  }
}) {}

const desk = (options?: ChildSpec.ChildOptions) =>
  Effect.gen(function* () {
    const gates: Gates = { open: yield* Deferred.make<void>(), log: [] }
    return { gates, ...(yield* one(Desk, gates, options)) }
  })

describe("call", () => {
  it.effect("answers with a value, an effect's value, a generator's value and an exit", () =>
    Effect.gen(function* () {
      const { gates, ref } = yield* desk()
      assert.strictEqual(yield* ref.call.add(2), 2)
      assert.strictEqual(yield* ref.call.sleep(0), 0)
      assert.isUndefined(yield* ref.call.nothing())
      assert.strictEqual(yield* ref.call.late(), "exit")
      yield* Deferred.succeed(gates.open, undefined)
      assert.strictEqual(yield* ref.call.wait(), 102)
    })
  )

  it.effect("is a description: it sends each time it runs, and its methods can be passed around", () =>
    Effect.gen(function* () {
      const { ref } = yield* desk()
      const { add } = ref.call
      const twice = add(1)
      yield* twice
      yield* twice
      assert.deepStrictEqual(yield* Effect.forEach([1, 1], add), [3, 4])
    })
  )

  it.effect("A2: a typed failure is an answer; the actor and its state live on", () =>
    Effect.gen(function* () {
      const { ref } = yield* desk()
      const error = yield* Effect.flip(ref.call.refuse("no"))
      assert.instanceOf(error, Refused)
      assert.strictEqual(yield* ref.call.add(0), 1)
    })
  )

  for (const [name, text] of [
    ["throws", "thrown"],
    ["dies", "died"]
  ] as const) {
    it.effect(
      `A2: a handler that ${name} ends the incarnation; the caller gets TargetExit, the next one a new state`,
      () =>
        Effect.gen(function* () {
          const { ref } = yield* desk()
          yield* ref.call.add(5)
          const error = yield* Effect.flip(ref.call[name]())
          assert.strictEqual(error.reason._tag, "TargetExit")
          assert.include(error.message, text)
          assert.strictEqual(yield* ref.call.add(0), 0)
        })
    )
  }

  it.effect("A2: a handler interrupted by itself was killed", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* desk()
      const events = yield* record(tree.events)
      const error = yield* Effect.flip(ref.call.interrupts())
      assert.isTrue(error.reason._tag === "TargetExit" && error.reason.exit._tag === "Killed")
      yield* settle
      assert.include(tags(events), "ChildRestarted it")
    })
  )

  it.effect("A1: one message at a time, in the order of each sender", () =>
    Effect.gen(function* () {
      const { gates, ref } = yield* desk()
      const first = yield* Effect.forkChild(ref.call.wait())
      yield* settle
      const second = yield* Effect.forkChild(ref.call.add(1))
      yield* ref.cast.note("a")
      yield* ref.cast.note("b")
      yield* settle
      assert.deepStrictEqual(gates.log, ["waiting"])
      assert.isTrue(pending(second))
      yield* Deferred.succeed(gates.open, undefined)
      assert.strictEqual(yield* Fiber.join(first), 100)
      assert.strictEqual(yield* Fiber.join(second), 101)
      yield* settle
      assert.deepStrictEqual(gates.log, ["waiting", "a", "b"])
    })
  )

  it.effect("the caller's span is the parent of the handler's", () =>
    Effect.gen(function* () {
      class Traced extends Actor.make("Traced", {
        init: () => 0,
        call: { parent: () => Effect.map(Effect.currentSpan, (span) => span.name) }
      }) {}
      const { ref } = yield* one(Traced, undefined)
      assert.strictEqual(yield* ref.call.parent().pipe(Effect.withSpan("outer")), "outer")
      const alone = yield* Effect.exit(ref.call.parent())
      assert.isTrue(Exit.isFailure(alone))
    })
  )
})

describe("deadlines", () => {
  it.effect("R2: a call fires at its limit of 5000 ms and not at 4999", () =>
    Effect.gen(function* () {
      const { ref } = yield* desk()
      const call = yield* Effect.forkChild(Effect.flip(ref.call.wait()))
      yield* settle
      yield* TestClock.adjust(4999)
      assert.isTrue(pending(call))
      yield* TestClock.adjust(1)
      const error = yield* Fiber.join(call)
      assert.strictEqual(error.reason._tag, "CallTimeout")
      assert.include(error.message, `"wait" of "supervisor/it" gave no answer within 5s`)
    })
  )

  it.effect("R2: within changes the limit of one ref only; limits expire apart; infinity never does", () =>
    Effect.gen(function* () {
      const { gates, ref } = yield* desk()
      const slow = yield* Effect.forkChild(Effect.exit(ref.call.wait()))
      yield* settle
      const fast = yield* Effect.forkChild(Effect.flip(ref.within("200 millis").call.add(1)))
      const never = yield* Effect.forkChild(ref.within(Duration.infinity).call.add(1))
      yield* settle
      yield* TestClock.adjust(199)
      assert.isTrue(pending(fast))
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(fast)).reason._tag, "CallTimeout")
      assert.isTrue(pending(slow))
      yield* TestClock.adjust("1 day")
      assert.isFalse(pending(slow))
      assert.isTrue(pending(never))
      yield* Deferred.succeed(gates.open, undefined)
      assert.strictEqual(yield* Fiber.join(never), 101, "the expired add was never handled")
    })
  )

  it.effect("calls with one limit expire in the order in which they were made, each at its own time", () =>
    Effect.gen(function* () {
      const { ref } = yield* desk()
      yield* Effect.forkChild(ref.call.wait())
      yield* settle
      const first = yield* Effect.forkChild(Effect.exit(ref.call.add(1)))
      yield* settle
      yield* TestClock.adjust(1000)
      const second = yield* Effect.forkChild(Effect.exit(ref.call.add(1)))
      yield* settle
      yield* TestClock.adjust(4000)
      assert.deepStrictEqual([pending(first), pending(second)], [false, true])
      yield* TestClock.adjust(999)
      assert.isTrue(pending(second))
      yield* TestClock.adjust(1)
      assert.isFalse(pending(second))
    })
  )

  it.effect("A4: an answer that comes after its caller gave up is dropped and reported", () =>
    Effect.gen(function* () {
      const { gates, ref, tree } = yield* desk()
      const events = yield* record(tree.events)
      const call = yield* Effect.forkChild(Effect.exit(ref.call.wait()))
      yield* settle
      yield* TestClock.adjust(5000)
      assert.isFalse(pending(call))
      yield* Deferred.succeed(gates.open, undefined)
      assert.strictEqual(yield* ref.call.add(0), 100, "the handler was not disturbed")
      yield* settle
      assert.include(tags(events), "LateReply it")
    })
  )

  it.effect("an answered call leaves no deadline behind", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* desk()
      const events = yield* record(tree.events)
      yield* ref.call.add(1)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* ref.call.add(1), 2)
      assert.deepStrictEqual(tags(events), ["ChildStarted it"])
    })
  )
})

describe("interrupting a caller", () => {
  it.effect("R3: a request that still waits is withdrawn", () =>
    Effect.gen(function* () {
      const { gates, ref } = yield* desk()
      yield* Effect.forkChild(ref.call.wait())
      yield* settle
      const queued = yield* Effect.forkChild(ref.call.add(7))
      yield* settle
      yield* Fiber.interrupt(queued)
      yield* Deferred.succeed(gates.open, undefined)
      assert.strictEqual(yield* ref.call.add(0), 100)
    })
  )

  it.effect("does not interrupt a handler that has begun", () =>
    Effect.gen(function* () {
      const { gates, ref } = yield* desk()
      const call = yield* Effect.forkChild(ref.call.wait())
      yield* settle
      yield* Fiber.interrupt(call)
      yield* Deferred.succeed(gates.open, undefined)
      assert.strictEqual(yield* ref.call.add(0), 100)
    })
  )
})

describe("finalizers and fencing", () => {
  it.effect("A3: finalizers of init run at a crash, before the next init, and at the stop", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Holder extends Actor.make("Holder", {
        *init() {
          log.push("acquire")
          yield* Effect.addFinalizer(() => Effect.sync(() => log.push("release")))
          return 0
        },
        call: {
          throws: (): void => {
            throw new Error("x")
          },
          generation: (self) => self.generation
        }
      }) {}
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { ref } = yield* one(Holder, undefined)
          yield* Effect.exit(ref.call.throws())
          assert.strictEqual(yield* ref.call.generation(), 2)
          assert.deepStrictEqual(log, ["acquire", "release", "acquire"])
        })
      )
      assert.deepStrictEqual(log, ["acquire", "release", "acquire", "release"])
    })
  )

  it.effect("A3: a resource that a handler acquires lives as long as the incarnation", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      class Lazy extends Actor.make("Lazy", {
        init: () => 0,
        call: {
          open: () => Effect.addFinalizer(() => Effect.sync(() => log.push("closed"))),
          state: (self) => self.state
        }
      }) {}
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { ref } = yield* one(Lazy, undefined)
          yield* ref.call.open()
          yield* ref.call.state()
          assert.deepStrictEqual(log, [])
        })
      )
      assert.deepStrictEqual(log, ["closed"])
    })
  )

  it.effect("A4: a zombie's late write lands in its own self, its late answer nowhere", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      class Stubborn extends Actor.make("Stubborn", {
        init: () => ({ value: "fresh" }),
        call: {
          write: (self) =>
            Effect.uninterruptible(
              Effect.map(Deferred.await(gate), () => {
                self.state = { value: "zombie" }
                return "answer of a zombie"
              })
            ),
          read: (self) => self.state.value
        }
      }) {}
      const { ref, tree } = yield* one(Stubborn, undefined, { shutdown: "1 second" })
      const events = yield* record(tree.events)
      const call = yield* Effect.forkChild(Effect.flip(ref.call.write()))
      yield* settle
      const stop = yield* Effect.forkChild(tree.terminateChild("it"))
      yield* settle
      assert.strictEqual((yield* Fiber.join(call)).reason._tag, "TargetExit", "the caller does not wait for the zombie")
      assert.isTrue(pending(stop))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stop)
      yield* tree.restartChild("it")
      assert.strictEqual(yield* ref.call.read(), "fresh")
      assert.notInclude(tags(events), "ZombieEnded it")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.strictEqual(yield* ref.call.read(), "fresh")
      assert.include(tags(events), "Zombie it")
      assert.include(tags(events), "ZombieEnded it")
    })
  )
})

describe("a zombie and its successor", () => {
  it.effect("A4: the end of a zombie does not answer what its successor is working on", () =>
    Effect.gen(function* () {
      const gates = [yield* Deferred.make<string>(), yield* Deferred.make<string>()] as const
      class Stubborn extends Actor.make("Stubborn", {
        init: () => 0,
        call: { wait: (_self, gate: 0 | 1) => Effect.uninterruptible(Deferred.await(gates[gate])) }
      }) {}
      const { ref, tree } = yield* one(Stubborn, undefined, { shutdown: "brutal" })
      yield* Effect.forkChild(Effect.exit(ref.call.wait(0)))
      yield* settle
      yield* tree.terminateChild("it")
      yield* tree.restartChild("it")
      const call = yield* Effect.forkChild(ref.call.wait(1))
      yield* settle
      yield* Deferred.succeed(gates[0], "zombie")
      yield* settle
      assert.isTrue(pending(call))
      yield* Deferred.succeed(gates[1], "successor")
      assert.strictEqual(yield* Fiber.join(call), "successor")
    })
  )
})

describe("casts", () => {
  it.effect("A2: a typed failure of a cast is a crash, for nobody would hear of it", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* desk()
      const events = yield* record(tree.events)
      yield* ref.cast.fails()
      yield* settle
      const crash = events.find((event) => event._tag === "ChildExited")
      assert.isTrue(crash?._tag === "ChildExited" && crash.exit._tag === "Crash" && crash.exit.error instanceof Refused)
    })
  )

  it.effect("R5: a cast to an actor that is down succeeds, and its loss is an event", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* desk()
      const events = yield* record(tree.events)
      yield* tree.terminateChild("it")
      yield* ref.cast.note("lost")
      yield* settle
      const lost = events.find((event) => event._tag === "MessageDropped")
      assert.isTrue(lost?._tag === "MessageDropped" && lost.why === "no_process" && lost.operation === "note")
      assert.strictEqual((yield* Effect.flip(ref.call.add(1))).reason._tag, "NoProcess")
    })
  )

  it.effect("messages that waited when the incarnation crashed are lost one by one, each with notice", () =>
    Effect.gen(function* () {
      const { gates, ref, tree } = yield* desk()
      const events = yield* record(tree.events)
      const call = yield* Effect.forkChild(Effect.flip(ref.call.wait()))
      yield* settle
      const behind = yield* Effect.forkChild(Effect.flip(ref.call.add(1)))
      yield* settle
      yield* ref.cast.note("behind")
      yield* Deferred.die(gates.open, new Error("crash"))
      assert.strictEqual((yield* Fiber.join(call)).reason._tag, "TargetExit")
      assert.strictEqual((yield* Fiber.join(behind)).reason._tag, "TargetExit")
      yield* settle
      assert.deepStrictEqual(gates.log, ["waiting"])
      const lost = events.find((event) => event._tag === "MessageDropped")
      assert.isTrue(lost?._tag === "MessageDropped" && lost.why === "exit" && lost.operation === "note")
    })
  )

  it.effect("a caller that learns of the crash can call again at once", () =>
    Effect.gen(function* () {
      const { ref } = yield* desk()
      const first = yield* Effect.forkChild(Effect.flip(ref.call.dies()))
      const again = ref.call.add(1).pipe(Effect.catchReason("CallError", "TargetExit", () => ref.call.add(10)))
      const second = yield* Effect.forkChild(again)
      yield* Fiber.join(first)
      assert.strictEqual(yield* Fiber.join(second), 10)
    })
  )
})

describe("stop", () => {
  it.effect("ends the actor after what waits, with reason normal, and returns when it is gone", () =>
    Effect.gen(function* () {
      const { gates, ref, tree } = yield* desk({ restart: "transient" })
      const events = yield* record(tree.events)
      const before = yield* Effect.forkChild(ref.call.wait())
      yield* settle
      const stop = yield* Effect.forkChild(ref.stop)
      yield* settle
      assert.isTrue(pending(stop))
      yield* Deferred.succeed(gates.open, undefined)
      assert.strictEqual(yield* Fiber.join(before), 100)
      yield* Fiber.join(stop)
      yield* settle
      const exit = events.find((event) => event._tag === "ChildExited")
      assert.isTrue(exit?._tag === "ChildExited" && exit.exit._tag === "Normal")
      assert.strictEqual((yield* Effect.flip(ref.call.add(1))).reason._tag, "NoProcess")
    })
  )

  for (const [restart, listed, added] of [
    ["temporary", [], 0],
    ["transient", ["it stopped"], 0],
    ["permanent", ["it running"], 1]
  ] as const) {
    it.effect(`a supervisor knows that its ${restart} actor was stopped before the one who asked does`, () =>
      Effect.gen(function* () {
        class Plain extends Actor.make("Plain", { init: () => 0 }) {}
        const spec = ChildSpec.actor("it", Plain, undefined, { restart })
        const tree = yield* Supervisor.start({ children: [spec] })
        yield* tree.refs.it.stop
        const children = yield* tree.whichChildren
        assert.deepStrictEqual(
          children.map(({ id, status }) => `${id} ${status}`),
          [...listed]
        )
        const pool = yield* DynamicSupervisor.start()
        const ref = yield* pool.startChild(spec)
        yield* ref.stop
        assert.strictEqual((yield* pool.countChildren).specs, added)
      })
    )
  }

  it.effect("a permanent actor that is stopped comes back", () =>
    Effect.gen(function* () {
      const { ref } = yield* desk()
      yield* ref.call.add(3)
      yield* ref.stop
      assert.strictEqual(yield* ref.call.add(0), 0)
    })
  )

  it.effect("self.stop ends the actor once the message is answered", () =>
    Effect.gen(function* () {
      class Once extends Actor.make("Once", {
        init: () => 0,
        call: {
          last: (self) => {
            self.stop()
            return "bye"
          }
        }
      }) {}
      const { ref, tree } = yield* one(Once, undefined, { restart: "temporary" })
      assert.strictEqual(yield* ref.call.last(), "bye")
      yield* settle
      assert.strictEqual((yield* Effect.flip(ref.call.last())).reason._tag, "NoProcess")
      assert.strictEqual((yield* tree.countChildren).specs, 0)
    })
  )
})

describe("circles", () => {
  interface Ring {
    readonly next: () => Effect.Effect<unknown, unknown>
  }
  class Node extends Actor.make("Node", {
    init: (ring: Ring) => ring,
    call: {
      forward: (self) => self.state.next(),
      detached: (self) => Effect.as(Effect.forkDetach(Effect.exit(self.state.next())), "sent"),
      plain: () => "plain"
    }
  }) {}

  it.effect("R4: calling oneself fails at once", () =>
    Effect.gen(function* () {
      let again: Effect.Effect<unknown, unknown> = Effect.void
      const { ref } = yield* one(Node, { next: () => again })
      again = ref.call.plain()
      const error = yield* Effect.flip(ref.call.forward())
      assert.isTrue(error instanceof CallError.CallError && error.reason._tag === "CallingSelf")
    })
  )

  it.effect("R4: a circle through two actors fails at once, with its path", () =>
    Effect.gen(function* () {
      let [toA, toB]: Array<Effect.Effect<unknown, unknown>> = []
      const tree = yield* Supervisor.start({
        children: [
          ChildSpec.actor("a", Node, { next: () => toB ?? Effect.void }),
          ChildSpec.actor("b", Node, { next: () => toA ?? Effect.void })
        ]
      })
      toA = tree.refs.a.call.forward()
      toB = tree.refs.b.call.forward()
      const error = yield* Effect.flip(tree.refs.a.call.forward())
      assert.isTrue(error instanceof CallError.CallError && error.reason._tag === "CallCycle")
      assert.include(String(error), "supervisor/a -> supervisor/b -> supervisor/a")
    })
  )

  it.effect("a chain that is no circle works, and so does a fiber left behind by an earlier message", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let next: Effect.Effect<unknown, unknown> = Effect.void
      const { ref } = yield* one(Node, { next: () => Effect.andThen(Deferred.await(gate), next) })
      const back = yield* Deferred.make<unknown, unknown>()
      next = Effect.exit(ref.call.plain()).pipe(Effect.tap((exit) => Deferred.succeed(back, exit)))
      yield* ref.call.detached()
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Deferred.await(back), Exit.succeed("plain"))
    })
  )
})

describe("fairness and context", () => {
  it.live("a ring of actors that never stops still lets a timer fire", () =>
    Effect.gen(function* () {
      const refs: Array<() => Effect.Effect<void>> = []
      let hops = 0
      let going = true
      class Hop extends Actor.make("Hop", {
        init: (index: number) => index,
        cast: {
          go: (self) => {
            // a pump that starved the timer would otherwise never come back to report it
            if (++hops > 20_000_000) going = false
            return going ? (refs[(self.state + 1) % 3]?.() ?? Effect.void) : Effect.void
          }
        }
      }) {}
      const tree = yield* Supervisor.start({
        children: [ChildSpec.actor("0", Hop, 0), ChildSpec.actor("1", Hop, 1), ChildSpec.actor("2", Hop, 2)]
      })
      refs.push(tree.refs["0"].cast.go, tree.refs["1"].cast.go, tree.refs["2"].cast.go)
      yield* tree.refs["0"].cast.go()
      yield* Effect.callback<void>((resume) => {
        setTimeout(() => resume(Effect.void), 1)
      })
      assert.isTrue(going)
      going = false
      assert.isAbove(hops, 3)
    })
  )

  it.live("the async context of one caller does not leak into the handler of another", () =>
    Effect.gen(function* () {
      const storage = new AsyncLocalStorage<string>()
      class Peek extends Actor.make("Peek", {
        init: () => 0,
        call: { plain: () => storage.getStore(), effect: () => Effect.sync(() => storage.getStore()) }
      }) {}
      const tree = yield* Supervisor.start({
        children: [ChildSpec.actor("a", Peek, undefined), ChildSpec.actor("b", Peek, undefined)]
      })
      const ask = (name: string, call: Effect.Effect<string | undefined, unknown>) =>
        storage.run(name, () => Effect.runPromise(Effect.map(call, (seen) => [seen, storage.getStore()])))
      const { a, b } = tree.refs
      for (const operation of ["plain", "effect"] as const) {
        const answers = yield* Effect.promise(() =>
          Promise.all([ask("alice", a.call[operation]()), ask("bob", b.call[operation]())])
        )
        assert.deepStrictEqual(answers, [
          [undefined, "alice"],
          [undefined, "bob"]
        ])
      }
    })
  )
})
