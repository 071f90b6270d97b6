import { assert, describe, it } from "@effect/vitest"
import { Actor, Backoff, ChildSpec, Decision, SupervisionEvent, Supervisor } from "@tinkex/supervision"
import { Deferred, Duration, Effect, Fiber, Random, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { one, pending, record, settle, tags, witness } from "../support.ts"
import { ends, refusal } from "./serverSupport.ts"

class Flaky extends Schema.TaggedError<Flaky>()("Flaky", {}) {}
class Broken extends Schema.TaggedError<Broken>()("Broken", {}) {}

/** Fails as it is told to, and writes down what it handles and how it ends. */
class Worker extends Actor.make("Worker", {
  init: (log: Array<string>) => {
    log.push("+")
    return { log, sum: 0 }
  },
  call: { sum: (self) => self.state.sum, generation: (self) => self.generation },
  cast: {
    add: (self, n: number) => void (self.state.sum += n),
    flaky: () => new Flaky(),
    broken: () => new Broken(),
    defect: () => {
      throw new Error("defect")
    }
  },
  terminate: (self) => void self.state.log.push(`- ${self.state.sum}`)
}) {}

const worker = (options: ChildSpec.ChildOptions) =>
  Effect.gen(function* () {
    const log: Array<string> = []
    const tree = yield* Supervisor.start({
      intensity: { restarts: 1000 },
      children: [ChildSpec.actor("it", Worker, log, options), witness("sibling", [])]
    })
    return { log, tree, ref: tree.refs.it, events: yield* record(tree.events) }
  })

const statusOf = (tree: { readonly whichChildren: Effect.Effect<ReadonlyArray<{ id: string; status: string }>> }) =>
  Effect.map(tree.whichChildren, (children) => children.find(({ id }) => id === "it")?.status)

const delays = (events: ReadonlyArray<SupervisionEvent.SupervisionEvent>) =>
  events.flatMap((event) => (event._tag === "RestartDelayed" ? [Duration.toMillis(event.delay)] : []))

describe("what a failure means", () => {
  const decide = Decision.byTag({ Flaky: "restart" }, { otherwise: "stop", defect: "stop" })

  it.effect("PK-02 a failure that the decision does not name stops the actor", () =>
    Effect.gen(function* () {
      for (const how of ["broken", "defect"] as const) {
        const { ref, tree } = yield* worker({ decide })
        yield* ref.cast[how]()
        yield* settle
        assert.strictEqual(yield* statusOf(tree), "stopped")
        assert.strictEqual((yield* Effect.flip(ref.call.sum())).reason._tag, "NoProcess")
        assert.strictEqual(yield* tree.refs.sibling.call.ping(), "sibling1")
      }
    })
  )

  it.effect(
    "PK-03 a failure that is to be answered by a restart runs the clean-up, and then the state is the first one",
    () =>
      Effect.gen(function* () {
        const { log, ref } = yield* worker({ decide })
        yield* ref.cast.add(7)
        yield* ref.cast.flaky()
        yield* settle
        assert.strictEqual(yield* ref.call.sum(), 0)
        assert.deepStrictEqual(log, ["+", "- 7", "+"])
        assert.strictEqual(yield* ref.call.generation(), 2)
      })
  )

  it.effect("PK-04 a failure that is to be passed over keeps the state and costs only its message", () =>
    Effect.gen(function* () {
      const { log, ref, events } = yield* worker({ decide: Decision.byTag({ Flaky: "resume" }) })
      yield* ref.cast.add(7)
      yield* ref.cast.flaky()
      yield* ref.cast.add(1)
      assert.strictEqual(yield* ref.call.sum(), 8)
      yield* settle
      assert.deepStrictEqual(log, ["+"])
      assert.deepStrictEqual(tags(events).slice(2), ["ChildResumed it"])
      const resumed = events.find((event) => event._tag === "ChildResumed")
      assert.isTrue(
        resumed?._tag === "ChildResumed" &&
          resumed.operation === "flaky" &&
          resumed.exit._tag === "Crash" &&
          resumed.exit.error instanceof Flaky
      )
    })
  )

  it.effect("PK-06 a defect is not passed over by any decision, and may be its supervisor's affair", () =>
    Effect.gen(function* () {
      const anything = Decision.byTag({}, { otherwise: "resume", defect: "resume" })
      for (const decide of [anything, () => "resume" as const]) {
        const { ref, events } = yield* worker({ decide })
        yield* ref.cast.add(7)
        yield* ref.cast.defect()
        yield* settle
        assert.strictEqual(yield* ref.call.sum(), 0)
        assert.notInclude(tags(events), "ChildResumed it")
        yield* ref.kill
        yield* settle
        assert.strictEqual(yield* ref.call.generation(), 3, "a kill is no failure to decide about")
      }
      const { ref, tree } = yield* worker({ decide: Decision.byTag({}, { otherwise: "resume", defect: "escalate" }) })
      yield* ref.cast.defect()
      const error = yield* Effect.flip(tree.join)
      assert.strictEqual(error.reason._tag, "Escalated")
      assert.include(error.message, `its child "it" escalated crash (Error: defect)`)
    })
  )
})

describe("how many restarts", () => {
  const budget = { restarts: 2, within: "10 seconds" } as const

  it.effect("PK-07 an actor has its restarts within the time, and the next failure stops it, or its supervisor", () =>
    Effect.gen(function* () {
      const { ref, tree, events } = yield* worker({ budget: { ...budget, exceeded: "stop" } })
      for (const generation of [2, 3]) {
        yield* ref.cast.flaky()
        yield* settle
        assert.strictEqual(yield* ref.call.generation(), generation)
      }
      yield* ref.cast.flaky()
      yield* settle
      assert.strictEqual(yield* statusOf(tree), "stopped")
      assert.include(tags(events), "ChildGivenUp it")
      assert.strictEqual(yield* tree.refs.sibling.call.ping(), "sibling1")

      const strict = yield* worker({ budget })
      for (let n = 0; n < 3; n++) yield* Effect.andThen(strict.ref.cast.flaky(), settle)
      const error = yield* Effect.flip(strict.tree.join)
      assert.isTrue(error.reason._tag === "ChildGivenUp" && error.reason.attempts === 2)
    })
  )

  for (const [quiet, comesBack] of [
    [10_000, false],
    [10_001, true]
  ] as const) {
    it.effect(
      `PK-08 ${quiet} ms after its restarts an actor ${comesBack ? "has all of them again" : "has none left"}`,
      () =>
        Effect.gen(function* () {
          const { ref, tree } = yield* worker({ budget: { ...budget, exceeded: "stop" } })
          const fail = Effect.andThen(ref.cast.flaky(), settle)
          yield* fail
          yield* fail
          yield* TestClock.adjust(quiet)
          yield* fail
          assert.strictEqual(yield* statusOf(tree), comesBack ? "running" : "stopped")
          yield* fail
          assert.strictEqual(yield* statusOf(tree), comesBack ? "running" : "stopped")
          yield* fail
          assert.strictEqual(yield* statusOf(tree), "stopped")
        })
    )
  }
})

describe("children of an actor", () => {
  interface Family {
    readonly log: Array<string>
    broken: boolean
    /** Whether a child takes a second to end. */
    slow: boolean
  }

  const family = (): Family => ({ log: [], broken: false, slow: true })

  class Kid extends Actor.make("Kid", {
    *init({ id, family }: { readonly id: string; readonly family: Family }) {
      const { log } = family
      log.push(`+${id}`)
      yield* Effect.addFinalizer(() =>
        Effect.map(family.slow ? Effect.sleep("1 second") : Effect.void, () => log.push(`-${id}`))
      )
      return id
    },
    call: { id: (self) => self.state }
  }) {}

  const kids = (family: Family) => ["a", "b"].map((id) => ChildSpec.actor(id, Kid, { id, family }))

  /** Its children live in a supervisor that belongs to the scope of its init. */
  class Parent extends Actor.make("Parent", {
    *init(family: Family) {
      const children = yield* Supervisor.start({ name: "kids", children: kids(family) })
      if (family.broken) return yield* new Broken()
      family.log.push("+parent")
      return { log: family.log, children }
    },
    started: (self) => {
      const kid = self.state.children.refs["a"]
      if (kid !== undefined) self.watch(kid, (self) => void self.state.log.push("down"))
    },
    call: { ping: (self) => self.generation, kid: (self) => Effect.fromNullishOr(self.state.children.refs["a"]) },
    cast: { crash: () => new Flaky() }
  }) {}

  for (const [name, backoff, wait] of [
    ["at once", undefined, 0],
    ["with a backoff", Backoff.fixed("5 seconds"), 5000]
  ] as const) {
    it.effect(`PK-10 a restart ${name} stops the children first, and messages wait until they are gone`, () =>
      Effect.gen(function* () {
        const ours = family()
        const { log } = ours
        const { ref } = yield* one(Parent, ours, { backoff })
        assert.deepStrictEqual(log, ["+a", "+b", "+parent"])
        log.length = 0
        yield* ref.cast.crash()
        yield* settle
        const ping = yield* Effect.forkChild(ref.within("1 minute").call.ping())
        yield* settle
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([log, pending(ping)], [["-b"], true])
        yield* TestClock.adjust("1 second")
        if (wait > 0) {
          yield* TestClock.adjust(wait - 1)
          assert.deepStrictEqual([log, pending(ping)], [["-b", "-a"], true])
          yield* TestClock.adjust(1)
        }
        assert.strictEqual(yield* Fiber.join(ping), 2)
        assert.deepStrictEqual(log, ["-b", "-a", "+a", "+b", "+parent"])
        ours.slow = false
      })
    )
  }

  it.effect("PK-11 children that stand beside the actor live on across its restart", () =>
    Effect.gen(function* () {
      const ours = family()
      ours.slow = false
      class Loner extends Actor.make("Loner", {
        init: (_arg: void) => 0,
        call: { ping: (self) => self.generation },
        cast: { crash: () => new Flaky() }
      }) {}
      const tree = yield* Supervisor.start({
        children: [ChildSpec.supervisor("kids", { children: kids(ours) }), ChildSpec.actor("loner", Loner, undefined)]
      })
      yield* tree.refs.loner.cast.crash()
      yield* settle
      assert.strictEqual(yield* tree.refs.loner.call.ping(), 2)
      assert.deepStrictEqual(ours.log, ["+a", "+b"])
      const kid = yield* (tree.refs.kids.refs["a"] ?? assert.fail()).incarnation
      assert.strictEqual(kid.generation, 1)
    })
  )

  it.effect("PK-12 a restart tells nobody of the ends of the children that it stopped itself", () =>
    Effect.gen(function* () {
      const ours = family()
      const { log } = ours
      const { ref } = yield* one(Parent, ours)
      yield* ref.cast.crash()
      yield* settle
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* ref.call.ping(), 2)
      assert.notInclude(log, "down")
      const kid = yield* ref.call.kid()
      yield* kid.kill
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.include(log, "down", "the watch of the new incarnation works")
      ours.slow = false
    })
  )

  it.effect("PK-14 a set-up that fails, the first or a later one, stops the children that it had started", () =>
    Effect.gen(function* () {
      const ours = family()
      const { log } = ours
      ours.broken = true
      const first = yield* Effect.forkChild(Effect.flip(one(Parent, ours)))
      yield* settle
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(refusal(yield* Fiber.join(first)), "StartFailed: crash (Broken: )")
      assert.deepStrictEqual(log, ["+a", "+b", "-b", "-a"])

      log.length = 0
      ours.broken = false
      const { ref, tree } = yield* one(Parent, ours, { backoff: Backoff.fixed("10 seconds") })
      ours.broken = true
      yield* ref.cast.crash()
      yield* settle
      yield* TestClock.adjust("12 seconds")
      assert.deepStrictEqual(log, ["+a", "+b", "+parent", "-b", "-a", "+a", "+b"], "the children of the second set-up")
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(log.slice(-2), ["-b", "-a"])
      assert.deepStrictEqual(
        (yield* tree.whichChildren).map((child) => child.status),
        ["restarting"]
      )
    })
  )
})

describe("delays", () => {
  const backoff = (options: Backoff.ExponentialOptions) => Backoff.exponential({ jitter: false, ...options })

  /** A mailbox for three that loses what does not fit. */
  const mailboxOf = (acrossRestart: "drop" | "keepOthers", capacity: number) =>
    class extends Actor.make("Queue", {
      init: (handled: Array<number>) => handled,
      call: { ask: (self, n: number) => void self.state.push(n) },
      cast: {
        tell: (self, n: number) => void self.state.push(n),
        crashAfter: (_self, gate: Effect.Effect<void>) => Effect.andThen(gate, new Flaky())
      },
      mailbox: { capacity, overflow: "dropNewest", acrossRestart }
    }) {}

  it.effect(
    "PK-15 while an actor backs off messages wait as far as there is room; the rest is dropped and published",
    () =>
      Effect.gen(function* () {
        const handled: Array<number> = []
        const { ref, tree } = yield* one(mailboxOf("drop", 3), handled, { backoff: Backoff.fixed("5 seconds") })
        const letters: Array<readonly [string, unknown, string]> = []
        yield* tree.deadLetters.pipe(
          Stream.runForEach(({ operation, payload, why }) =>
            Effect.sync(() => letters.push([operation, payload, why]))
          ),
          Effect.forkScoped({ startImmediately: true })
        )
        yield* ref.cast.crashAfter(Effect.void)
        yield* settle
        for (let n = 0; n < 5; n++) yield* ref.cast.tell(n)
        assert.strictEqual((yield* Effect.flip(ref.call.ask(9))).reason._tag, "MailboxFull")
        yield* settle
        assert.deepStrictEqual(letters, [
          ["tell", 3, "mailbox_full"],
          ["tell", 4, "mailbox_full"]
        ])
        yield* TestClock.adjust(4999)
        assert.deepStrictEqual(handled, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(handled, [0, 1, 2])
      })
  )

  /** Crashes as often as there are delays, and makes sure that each restart comes after its delay and not before. */
  const crashes = Effect.fnUntraced(function* (options: ChildSpec.ChildOptions, expected: ReadonlyArray<number>) {
    const { ref, tree, events } = yield* worker(options)
    for (const delay of expected) {
      yield* ref.cast.flaky()
      yield* settle
      yield* TestClock.adjust(delay - 1)
      assert.strictEqual(yield* statusOf(tree), "restarting")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* statusOf(tree), "running")
    }
    assert.deepStrictEqual(delays(events), expected)
    return events
  })

  it.effect("PK-16 delays double up to the longest; with jitter each is near its value and none is longer", () =>
    Effect.gen(function* () {
      const resetAfter = "1 hour"
      const events = yield* crashes(
        { backoff: backoff({ from: 200, to: 1500, resetAfter }) },
        [200, 400, 800, 1500, 1500]
      )
      const attempts = events.flatMap((event) => (event._tag === "RestartDelayed" ? [event.attempt] : []))
      assert.deepStrictEqual(attempts, [1, 2, 3, 4, 5])
      yield* crashes({ backoff: backoff({ from: 100, to: 10_000, factor: 3, resetAfter }) }, [100, 300, 900, 2700])

      const jittered = yield* Effect.gen(function* () {
        const { ref, events } = yield* worker({
          backoff: Backoff.exponential({ from: 1000, to: 8000, resetAfter })
        })
        for (let n = 0; n < 8; n++) {
          yield* ref.cast.flaky()
          yield* settle
          yield* TestClock.adjust("10 seconds")
        }
        return delays(events)
      }).pipe(Random.withSeed("backoff"))
      assert.strictEqual(jittered.length, 8)
      for (const [index, delay] of jittered.entries()) {
        const nominal = Math.min(1000 * 2 ** index, 8000)
        assert.isAtLeast(delay, index < 4 ? 0.8 * nominal : 0.8 * 8000)
        assert.isAtMost(delay, Math.min(1.2 * nominal, 8000))
      }
      assert.isAbove(new Set(jittered.slice(0, 3).map((delay, index) => delay / 2 ** index)).size, 1)
    })
  )

  const quietFor = Effect.fnUntraced(function* (given: Backoff.Backoff, quiet: number) {
    const { ref, events } = yield* worker({ backoff: given })
    yield* ref.cast.flaky()
    yield* settle
    yield* TestClock.adjust("1 second")
    yield* TestClock.adjust(quiet)
    yield* ref.cast.flaky()
    yield* settle
    return delays(events)
  })

  it.effect("PK-18 a quiet time makes the delays begin anew", () =>
    Effect.gen(function* () {
      const given = backoff({ from: "1 second", to: "1 minute", resetAfter: "20 seconds" })
      assert.deepStrictEqual(yield* quietFor(given, 19_999), [1000, 2000])
      assert.deepStrictEqual(yield* quietFor(given, 20_000), [1000, 1000])
    })
  )

  it.effect("PK-19 unless told otherwise the quiet time is the mean of the shortest and the longest delay", () =>
    Effect.gen(function* () {
      const given = backoff({ from: "1 second", to: "3 seconds" })
      assert.strictEqual(Duration.toMillis(given.resetAfter), 2000)
      assert.deepStrictEqual(yield* quietFor(given, 1999), [1000, 2000])
      assert.deepStrictEqual(yield* quietFor(given, 2000), [1000, 1000])
    })
  )
})

describe("set-up", () => {
  it.effect(
    "PK-20 a first start that fails is not tried again, backoff or not; a set-up that may be goes into started",
    () =>
      Effect.gen(function* () {
        const options = [
          {},
          { backoff: Backoff.fixed("1 second") },
          { budget: { restarts: 5 } },
          { backoff: Backoff.fixed("1 second"), budget: { restarts: 5 } }
        ]
        for (const option of options) {
          let attempts = 0
          class Unready extends Actor.make("Unready", {
            init: (_arg: void) => Effect.suspend(() => (++attempts, Effect.fail("not ready")))
          }) {}
          const error = yield* Effect.flip(one(Unready, undefined, option))
          assert.strictEqual(refusal(error), "StartFailed: crash (not ready)")
          yield* TestClock.adjust("1 hour")
          assert.strictEqual(attempts, 1)
        }
        let attempts = 0
        class Ready extends Actor.make("Ready", {
          init: () => ({ ready: false }),
          *started(self) {
            if (++attempts < 3) return yield* new Flaky()
            self.state.ready = true
          },
          call: { ready: (self) => self.state.ready }
        }) {}
        const { ref } = yield* one(Ready, undefined, { backoff: Backoff.fixed("1 second") })
        yield* settle
        assert.strictEqual(attempts, 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(attempts, 2)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(attempts, 3)
        assert.isTrue(yield* ref.call.ready())
      })
  )

  it.effect("PK-22 messages that come before, during and after a crash are handled after the restart, in order", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const closing = yield* Deferred.make<void>()
      class Keeps extends Actor.make("Keeps", {
        *init(handled: Array<number>) {
          yield* Effect.addFinalizer(() => Deferred.await(closing))
          return handled
        },
        cast: {
          tell: (self, n: number) => void self.state.push(n),
          crash: () => Effect.andThen(Deferred.await(gate), new Flaky())
        },
        mailbox: { acrossRestart: "keepOthers" }
      }) {}
      const handled: Array<number> = []
      const { ref, tree } = yield* one(Keeps, handled, { backoff: Backoff.fixed("5 seconds") })
      const events = yield* record(tree.events)
      yield* ref.cast.tell(0)
      yield* ref.cast.crash()
      yield* ref.cast.tell(1)
      yield* settle
      yield* ref.cast.tell(2)
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      yield* ref.cast.tell(3)
      yield* Deferred.succeed(closing, undefined)
      yield* settle
      assert.deepStrictEqual(ends(events), ["it crash (Flaky: )"])
      yield* ref.cast.tell(4)
      yield* TestClock.adjust(4999)
      yield* ref.cast.tell(5)
      assert.deepStrictEqual(handled, [0])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(handled, [0, 1, 2, 3, 4, 5])
      assert.notInclude(tags(events), "MessageDropped it")
    })
  )

  it.effect("PK-23 the set-up runs when the actor is started, not at its first message", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      yield* one(Worker, log)
      assert.deepStrictEqual(log, ["+"])
    })
  )
})
