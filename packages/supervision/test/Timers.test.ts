import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorRef, ChildSpec, Supervisor } from "@tinkex/supervision"
import { Deferred, Duration, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { countFibers, ends, reports } from "./otp/serverSupport.ts"
import { one, record, settle } from "./support.ts"

interface Box {
  readonly log: Array<string>
  readonly gate: Deferred.Deferred<void>
}

type Self = Actor.Self<Box>

/** Does with its timers what it is told to. */
class Clerk extends Actor.make("Clerk", {
  init: (box: Box) => box,
  call: {
    do: (self, act: (self: Self) => unknown) => act(self),
    /** Is busy until the gate opens, and does something then. */
    busy: (self, act: (self: Self) => unknown) => Effect.map(Deferred.await(self.state.gate), () => act(self))
  },
  cast: { note: (self, text: string) => void self.state.log.push(text), crash: () => Effect.die(new Error("crash")) },
  mailbox: { acrossRestart: "keepOthers" }
}) {}

const clerk = (options?: ChildSpec.ChildOptions) =>
  Effect.gen(function* () {
    const box: Box = { log: [], gate: yield* Deferred.make<void>() }
    const { ref, tree } = yield* one(Clerk, box, options)
    return { ...box, ref, tree, events: yield* record(tree.events) }
  })

const busy = (ref: ActorRef.ActorRef<typeof Clerk>, act: (self: Self) => unknown = () => undefined) =>
  Effect.tap(Effect.forkChild(ref.within("1 hour").call.busy(act)), () => settle)

const push = (text: string) => (self: Self) => void self.state.log.push(text)

describe("timers.start", () => {
  it.effect("fires once, after its delay and not before, in turn with the messages", () =>
    Effect.gen(function* () {
      const { gate, log, ref } = yield* clerk()
      yield* ref.call.do((self) => self.timers.start("t", "2 seconds", push("timer")))
      yield* TestClock.adjust(1999)
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(log, ["timer"])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(log, ["timer"])

      yield* ref.call.do((self) => self.timers.start("t", "1 second", push("timer")))
      yield* busy(ref, push("worked"))
      yield* ref.cast.note("before")
      yield* TestClock.adjust("1 second")
      yield* ref.cast.note("after")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(log.slice(1), ["worked", "before", "timer", "after"])
    })
  )

  it.effect("a timer with the same key replaces the other, even one that waits in the mailbox already", () =>
    Effect.gen(function* () {
      const { gate, log, ref } = yield* clerk()
      yield* ref.call.do((self) => {
        self.timers.start("t", "1 second", push("first"))
        self.timers.start("t", "3 seconds", push("second"))
        self.timers.start("other", "1 second", push("other"))
      })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["other"])
      yield* busy(ref, (self) => self.timers.start("t", "1 second", push("third")))
      yield* TestClock.adjust("2 seconds")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(log, ["other"], "the second had fired, and was replaced before it was handled")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["other", "third"])
    })
  )

  it.effect("cancel says whether there was one, and takes back what was not handled yet", () =>
    Effect.gen(function* () {
      const { gate, log, ref } = yield* clerk()
      const key = { any: "value" }
      const cancel = ref.call.do((self) => [self.timers.isActive(key), self.timers.cancel(key)])
      assert.deepStrictEqual(yield* cancel, [false, false])
      yield* ref.call.do((self) => self.timers.start(key, "1 second", push("timer")))
      assert.deepStrictEqual(yield* cancel, [true, true])
      assert.deepStrictEqual(yield* cancel, [false, false])
      yield* ref.call.do((self) => self.timers.start(key, "1 second", push("timer")))
      const cancelled = yield* busy(ref, (self) => [self.timers.isActive(key), self.timers.cancel(key)])
      yield* TestClock.adjust("1 second")
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Fiber.join(cancelled), [true, true], "it counts until it is handled")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(log, [])
    })
  )

  it.effect("is not active any more in its own handler, which may start it again", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      const again = (self: Self): void => {
        self.state.log.push(`active ${self.timers.isActive("t")}`)
        if (self.state.log.length < 3) self.timers.start("t", "1 second", again)
      }
      yield* ref.call.do((self) => self.timers.start("t", "1 second", again))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(log, ["active false", "active false", "active false"])
    })
  )

  it.effect("timers of different delays fire in the order of their times", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      yield* ref.call.do((self) => {
        for (const seconds of [3, 1, 2]) self.timers.start(seconds, Duration.seconds(seconds), push(`${seconds}`))
        self.timers.start("never", Duration.infinity, push("never"))
      })
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(log, ["1", "2", "3"])
    })
  )

  it.effect("the work may take its time, as an effect or a generator; meanwhile messages wait", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      yield* ref.call.do((self) => {
        self.timers.start("effect", 1000, (self: Self) =>
          Effect.andThen(
            Effect.sleep("1 second"),
            Effect.sync(() => push("effect")(self))
          )
        )
        self.timers.start("generator", 3000, function* (self: Self) {
          yield* Effect.sleep("1 second")
          push("generator")(self)
        })
      })
      yield* TestClock.adjust(1000)
      yield* ref.cast.note("1")
      yield* TestClock.adjust(2000)
      yield* ref.cast.note("2")
      yield* TestClock.adjust(1000)
      assert.deepStrictEqual(log, ["effect", "1", "generator", "2"])
    })
  )

  it.effect("a failure of the work is a crash that names the timer", () =>
    Effect.gen(function* () {
      const { events, ref } = yield* clerk()
      for (const work of [() => Effect.fail("typed"), (): void => assert.fail("thrown")]) {
        yield* ref.call.do((self) => self.timers.start("poll", "1 second", work))
        yield* TestClock.adjust("1 second")
      }
      yield* settle
      assert.deepStrictEqual(ends(events), ["it crash (typed)", "it crash (AssertionError: thrown)"])
      assert.deepStrictEqual(
        reports(events).map((report) => report?.operation),
        ["timer poll", "timer poll"]
      )
    })
  )
})

describe("timers.every", () => {
  it.effect("fires at every interval until it is cancelled, also by its own work", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      yield* ref.call.do((self) => {
        self.timers.every("tick", "1 second", push("tick"))
        self.timers.every("thrice", "1 second", (self) => {
          self.state.log.push("one of three")
          if (self.state.log.filter((line) => line === "one of three").length === 3) self.timers.cancel("thrice")
        })
      })
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(log, ["tick", "one of three"])
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(log.filter((line) => line === "tick").length, 10)
      assert.strictEqual(log.filter((line) => line === "one of three").length, 3)
      assert.isTrue(yield* ref.call.do((self) => self.timers.cancel("tick")))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(log.length, 13)
    })
  )

  it.effect("keeps its pace when the work is slow, and leaves nothing behind when it is cancelled", () =>
    Effect.gen(function* () {
      const { gate, log, ref } = yield* clerk()
      yield* ref.call.do((self) => self.timers.every("tick", "1 second", push("tick")))
      yield* busy(ref)
      yield* TestClock.adjust("3500 millis")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(log, ["tick", "tick", "tick"], "those that were due are handled")
      yield* TestClock.adjust(500)
      assert.strictEqual(log.length, 4)
      yield* ref.suspend
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(log.length, 4)
      const cancelled = yield* Effect.forkChild(ref.call.do((self) => self.timers.cancel("tick")))
      yield* ref.replaceState((state) => state)
      yield* ref.resume
      assert.isTrue(yield* Fiber.join(cancelled))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(log.length, 9, "the five that came before the request to cancel")
    })
  )

  it.effect("an interval of no time is refused where it is asked for", () =>
    Effect.gen(function* () {
      const { events, ref } = yield* clerk()
      const exit = yield* Effect.exit(ref.call.do((self) => self.timers.every("busy", 0, push("never"))))
      assert.include(String(exit), "timers.every(busy): the interval is 0")
      yield* settle
      assert.strictEqual(ends(events).length, 1)
    })
  )
})

describe("timers.idle", () => {
  it.effect("fires once after a time without messages; any message, also a timer, ends the wait", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      const wait = ref.call.do((self) => self.timers.idle("10 seconds", push("idle")))
      yield* wait
      yield* TestClock.adjust("9 seconds")
      yield* ref.cast.note("message")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(log, ["message"])

      yield* wait
      yield* TestClock.adjust(9999)
      assert.deepStrictEqual(log, ["message"])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(log, ["message", "idle"])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(log, ["message", "idle"])

      yield* ref.call.do((self) => {
        self.timers.idle("10 seconds", push("idle"))
        self.timers.start("t", "5 seconds", push("timer"))
      })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(log, ["message", "idle", "timer"])
    })
  )

  it.effect("a message that waits before the notice takes it back", () =>
    Effect.gen(function* () {
      const { gate, log, ref } = yield* clerk()
      yield* busy(ref, (self) => self.timers.idle("1 second", push("never")))
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      yield* ref.suspend
      yield* ref.cast.note("message")
      yield* TestClock.adjust("1 minute")
      yield* ref.resume
      yield* settle
      assert.deepStrictEqual(log, ["message"])
    })
  )

  it.effect("a new one replaces the last, and its own work may ask for the next", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      const nap = (self: Self): void => {
        self.state.log.push("idle")
        self.timers.idle("2 seconds", nap)
      }
      yield* ref.call.do((self) => {
        self.timers.idle("1 second", push("replaced"))
        self.timers.idle("2 seconds", nap)
      })
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual(log, ["idle", "idle", "idle"])
    })
  )
})

describe("timers.state", () => {
  class Door extends Actor.make("Door", {
    init: (log: Array<string>) => ({ name: "open", log, knocks: 0 }),
    cast: {
      await: (self) => self.timers.state("5 seconds", (self) => void self.state.log.push(`still ${self.state.name}`)),
      close: (self) => void (self.state = { ...self.state, name: "closed" }),
      knock: (self) => void self.state.knocks++
    }
  }) {}

  it.effect("fires unless the state was replaced by then; messages and mutations do not matter", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { ref } = yield* one(Door, log)
      yield* ref.cast.await()
      yield* TestClock.adjust("4 seconds")
      yield* ref.cast.knock()
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(log, ["still open"])

      yield* ref.cast.await()
      yield* TestClock.adjust("4 seconds")
      yield* ref.cast.close()
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(log, ["still open"])

      yield* ref.cast.await()
      yield* TestClock.adjust("3 seconds")
      yield* ref.cast.await()
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(log.length, 1, "asking again begins anew")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["still open", "still closed"])
    })
  )

  it.effect("a state that was replaced from outside counts as replaced", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { ref } = yield* one(Door, log)
      yield* ref.cast.await()
      yield* settle
      yield* ref.replaceState((state) => ({ ...state }))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(log, [])
    })
  )
})

describe("the end of an incarnation", () => {
  const startAll = (self: Self): void => {
    self.timers.start("start", "1 second", push("start"))
    self.timers.every("every", "1 second", push("every"))
    self.timers.idle("1 second", push("idle"))
    self.timers.state("1 second", push("state"))
    self.continue(push("continued"))
  }

  it.effect("is the end of its timers; the next one begins without any", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      yield* ref.call.do(startAll)
      yield* settle
      assert.deepStrictEqual(log, ["continued"])
      yield* ref.cast.crash()
      yield* settle
      const active = yield* ref.call.do((self) => [self.generation, self.timers.isActive("start")])
      assert.deepStrictEqual(active, [2, false])
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(log, ["continued"])
    })
  )

  it.effect("also of those that had fired and were waiting in a mailbox that is kept", () =>
    Effect.gen(function* () {
      const { gate, log, ref } = yield* clerk()
      yield* ref.call.do((self) => {
        self.timers.start("start", "1 second", push("start"))
        self.timers.every("every", "1 second", push("every"))
      })
      const crash = yield* busy(ref, () => {
        throw new Error("crash")
      })
      yield* ref.cast.note("kept")
      yield* TestClock.adjust("5 seconds")
      yield* Deferred.succeed(gate, undefined)
      assert.isTrue(Exit.isFailure(yield* Fiber.await(crash)))
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(log, ["kept"])
    })
  )

  it.effect("a timer of the next incarnation with the same key is its own", () =>
    Effect.gen(function* () {
      const { log, ref } = yield* clerk()
      yield* ref.call.do((self) => self.timers.start("t", "2 seconds", push("old")))
      yield* TestClock.adjust("1 second")
      yield* ref.cast.crash()
      yield* settle
      yield* ref.call.do((self) => self.timers.start("t", "2 seconds", push("new")))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["new"])
    })
  )

  it.effect("what a zombie starts is no timer: it reaches nobody, and nothing ticks on for it", () =>
    Effect.gen(function* () {
      const { alive, here } = countFibers()
      const box: Box = { log: [], gate: yield* Deferred.make<void>() }
      const watched: Array<unknown> = []
      class Stubborn extends Actor.make("Stubborn", {
        init: (box: Box) => box,
        cast: {
          linger: (self) =>
            Effect.uninterruptible(
              Effect.map(Deferred.await(self.state.gate), () => {
                startAll(self)
                watched.push(self.timers.isActive("start"), self.timers.cancel("every"))
                self.timers.every("again", "1 second", push("again"))
              })
            )
        }
      }) {}
      const scope = yield* Scope.make()
      const tree = yield* here(
        Supervisor.start({ children: [ChildSpec.actor("it", Stubborn, box, { shutdown: "brutal" })] })
      ).pipe(Effect.provideService(Scope.Scope, scope))
      yield* tree.refs.it.cast.linger()
      yield* settle
      yield* tree.terminateChild("it")
      yield* tree.restartChild("it")
      yield* Deferred.succeed(box.gate, undefined)
      yield* settle
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([box.log, watched], [[], [false, false]])
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(alive(), 0)
    })
  )

  it.effect("what a zombie starts after the end of its tree keeps no fiber alive either", () =>
    Effect.gen(function* () {
      const { alive, here } = countFibers()
      const box: Box = { log: [], gate: yield* Deferred.make<void>() }
      class Stubborn extends Actor.make("Stubborn", {
        init: (box: Box) => box,
        cast: {
          linger: (self) => Effect.uninterruptible(Effect.map(Deferred.await(self.state.gate), () => startAll(self)))
        }
      }) {}
      yield* Effect.scoped(
        Effect.gen(function* () {
          const tree = yield* here(
            Supervisor.start({ children: [ChildSpec.actor("it", Stubborn, box, { shutdown: "brutal" })] })
          )
          yield* tree.refs.it.cast.linger()
          yield* settle
        })
      )
      assert.isAtLeast(alive(), 1, "the zombie")
      yield* Deferred.succeed(box.gate, undefined)
      yield* settle
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([alive(), box.log], [0, []])
    })
  )
})
