import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ActorRef,
  Backoff,
  CallError,
  ChildSpec,
  DeadLetter,
  SupervisionEvent,
  Supervisor
} from "@tinkex/supervision"
import { Deferred, Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { one, pending, record, settle } from "./support.ts"

/** What the gate of a handler says: go on, or crash. */
type Gate = Deferred.Deferred<"go on" | "crash">

interface Box {
  gate: Gate
  readonly handled: Array<string>
}

const boom = new Error("boom")
const backoff = Backoff.fixed("10 seconds")

/** Handles one message after the other, each when its gate opens. */
const actorWith = (mailbox: Actor.MailboxOptions) => {
  const work = (self: Actor.Self<Box>, text: string) =>
    Effect.suspend(() => {
      self.state.handled.push(`${text} begins`)
      return Effect.flatMap(Deferred.await(self.state.gate), (what) => {
        if (what === "crash") return Effect.die(boom)
        self.state.handled.push(`${text} ends`)
        return Effect.succeed(`${text} answered by ${self.generation}`)
      })
    })
  return class extends Actor.make("Gated", {
    init: (box: Box) => box,
    call: { ask: work },
    cast: {
      tell: (self, text: string) => Effect.asVoid(work(self, text)),
      note: (self, text: string) => void self.state.handled.push(text),
      bare: () => {}
    },
    mailbox
  }) {}
}

const losses = (events: ReadonlyArray<SupervisionEvent.SupervisionEvent>) =>
  events.flatMap((event) => (event._tag === "MessageDropped" ? [`${event.operation} ${event.why}`] : []))

const readLetters = (tree: { readonly deadLetters: Stream.Stream<DeadLetter.DeadLetter> }) =>
  Effect.gen(function* () {
    const letters: Array<DeadLetter.DeadLetter> = []
    yield* tree.deadLetters.pipe(
      Stream.runForEach((letter) => Effect.sync(() => letters.push(letter))),
      Effect.forkScoped({ startImmediately: true })
    )
    return letters
  })

const short = (letters: ReadonlyArray<DeadLetter.DeadLetter>) =>
  letters.map(({ operation, payload, why }) => [operation, payload, why])

const desk = (mailbox: Actor.MailboxOptions, options: ChildSpec.ChildOptions = { backoff }) =>
  Effect.gen(function* () {
    const box: Box = { gate: yield* Deferred.make<"go on" | "crash">(), handled: [] }
    const { ref, tree } = yield* one(actorWith(mailbox), box, options)
    const open = Effect.fnUntraced(function* (what: "go on" | "crash") {
      const { gate } = box
      box.gate = yield* Deferred.make<"go on" | "crash">()
      yield* Deferred.succeed(gate, what)
      yield* settle
    })
    /** Lets everything go on from here. */
    const openAll = Effect.suspend(() => Effect.andThen(Deferred.succeed(box.gate, "go on"), settle))
    const events = yield* record(tree.events)
    const letters = yield* readLetters(tree)
    return { box, events, letters, open, openAll, ref, tree }
  })

const asking = <E>(call: Effect.Effect<string, E>) => Effect.tap(Effect.forkChild(Effect.exit(call)), () => settle)

const reasonOf = (exit: Exit.Exit<unknown, CallError.CallError>): CallError.CallErrorReason | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  for (const reason of exit.cause.reasons) {
    if (reason._tag === "Fail") return reason.error.reason
  }
  return undefined
}

describe("drop", () => {
  it.effect("what waits at a crash is lost, one by one and with notice; callers hear of the crash at once", () =>
    Effect.gen(function* () {
      const { box, events, letters, open, openAll, ref } = yield* desk({})
      const working = yield* asking(ref.call.ask("1"))
      const waiting = yield* asking(ref.call.ask("2"))
      yield* ref.cast.note("3")
      yield* ref.cast.bare()
      yield* open("crash")
      for (const fiber of [working, waiting]) {
        const reason = reasonOf(yield* Fiber.join(fiber))
        assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Crash" && reason.exit.error === boom)
      }
      yield* TestClock.adjust("10 seconds")
      yield* openAll
      assert.deepStrictEqual(box.handled, ["1 begins"])
      assert.deepStrictEqual(losses(events), ["note exit", "bare exit"])
      assert.deepStrictEqual(short(letters), [
        ["note", "3", "exit"],
        ["bare", undefined, "exit"]
      ])
    })
  )

  it.effect("what comes after the crash waits for the next incarnation", () =>
    Effect.gen(function* () {
      const { box, events, open, ref } = yield* desk({})
      yield* ref.cast.tell("1")
      yield* settle
      yield* open("crash")
      yield* ref.cast.note("2")
      yield* ref.cast.note("3")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(box.handled, ["1 begins", "2", "3"])
      assert.deepStrictEqual(losses(events), [])
    })
  )
})

describe("keepOthers", () => {
  it.effect("what waits at a crash is handled afterwards, in order; what crashed is not, and its caller knows", () =>
    Effect.gen(function* () {
      const { box, events, letters, open, openAll, ref } = yield* desk({ acrossRestart: "keepOthers" })
      const working = yield* asking(ref.call.ask("1"))
      const waiting = yield* asking(ref.within("1 minute").call.ask("2"))
      yield* ref.cast.note("3")
      yield* open("crash")
      assert.strictEqual(reasonOf(yield* Fiber.join(working))?._tag, "TargetExit")
      yield* ref.cast.note("4")
      assert.isTrue(pending(waiting))
      yield* openAll
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(waiting), Exit.succeed("2 answered by 2"))
      yield* settle
      assert.deepStrictEqual(box.handled, ["1 begins", "2 begins", "2 ends", "3", "4"])
      assert.deepStrictEqual([losses(events), letters], [[], []])
    })
  )

  it.effect("a start that fails, or takes several attempts, loses none of them either", () =>
    Effect.gen(function* () {
      const handled: Array<string> = []
      const arg = { broken: false }
      class Fragile extends Actor.make("Fragile", {
        init: ({ broken }: { broken: boolean }) => (broken ? Effect.fail("broken") : Effect.succeed(handled)),
        cast: { crash: () => Effect.die(boom), note: (self, text: string) => void self.state.push(text) },
        mailbox: { acrossRestart: "keepOthers" }
      }) {}
      const { ref } = yield* one(Fragile, arg, { backoff })
      arg.broken = true
      yield* ref.cast.crash()
      yield* ref.cast.note("1")
      yield* settle
      for (let attempt = 0; attempt < 3; attempt++) {
        yield* TestClock.adjust("10 seconds")
        yield* ref.cast.note(`${attempt + 2}`)
      }
      arg.broken = false
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(handled, ["1", "2", "3", "4"])
    })
  )

  it.effect("what is kept is turned away when the actor stays down after all", () =>
    Effect.gen(function* () {
      const { box, events, letters, open, ref, tree } = yield* desk({ acrossRestart: "keepOthers" })
      yield* ref.cast.tell("1")
      yield* settle
      const waiting = yield* asking(ref.call.ask("2"))
      yield* ref.cast.note("3")
      yield* open("crash")
      assert.isTrue(pending(waiting))
      yield* tree.terminateChild("it")
      assert.strictEqual(reasonOf(yield* Fiber.join(waiting))?._tag, "NoProcess")
      yield* settle
      assert.deepStrictEqual(box.handled, ["1 begins"])
      assert.deepStrictEqual(losses(events), ["note no_process"])
      assert.deepStrictEqual(short(letters), [["note", "3", "no_process"]])
    })
  )
})

describe("keep", () => {
  it.effect("what crashed is handled again, before the others; its caller waits and gets one answer", () =>
    Effect.gen(function* () {
      const { box, events, letters, open, openAll, ref } = yield* desk({ acrossRestart: "keep" })
      const working = yield* asking(ref.within("1 minute").call.ask("1"))
      yield* ref.cast.note("2")
      yield* open("crash")
      assert.isTrue(pending(working))
      yield* openAll
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(working), Exit.succeed("1 answered by 2"))
      assert.deepStrictEqual(box.handled, ["1 begins", "1 begins", "1 ends", "2"])
      assert.deepStrictEqual([losses(events), letters], [[], []])
    })
  )

  it.effect("a message that crashes its actor again and again is set aside, with its payload; the others go on", () =>
    Effect.gen(function* () {
      const { box, events, letters, open, openAll, ref } = yield* desk({ acrossRestart: "keep" })
      yield* TestClock.setTime(1000)
      yield* ref.cast.tell("poison")
      yield* ref.cast.note("after")
      yield* settle
      for (let crash = 1; crash <= 3; crash++) {
        assert.deepStrictEqual(losses(events), [])
        yield* open("crash")
        yield* TestClock.adjust("10 seconds")
      }
      yield* openAll
      assert.deepStrictEqual(losses(events), ["tell quarantined"])
      assert.deepStrictEqual(short(letters), [["tell", "poison", "quarantined"]])
      assert.deepStrictEqual(
        letters.map(({ target, time }) => [target, time.epochMilliseconds]),
        [["supervisor/it", 21_000]]
      )
      assert.deepStrictEqual(box.handled, ["poison begins", "poison begins", "poison begins", "after"])
    })
  )

  it.effect("the caller of a message that is set aside hears of the last crash", () =>
    Effect.gen(function* () {
      const { box, letters, open, openAll, ref } = yield* desk({ acrossRestart: "keep", quarantineAfter: 2 })
      const working = yield* asking(ref.within(Duration.infinity).call.ask("poison"))
      yield* open("crash")
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(pending(working))
      yield* open("crash")
      const reason = reasonOf(yield* Fiber.join(working))
      assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Crash" && reason.exit.error === boom)
      yield* openAll
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(short(letters), [["ask", "poison", "quarantined"]])
      assert.deepStrictEqual(box.handled, ["poison begins", "poison begins"])
    })
  )

  it.effect("a quarantine after one crash handles nothing twice", () =>
    Effect.gen(function* () {
      const { box, letters, open, openAll, ref } = yield* desk({ acrossRestart: "keep", quarantineAfter: 1 })
      yield* ref.cast.tell("1")
      yield* ref.cast.note("2")
      yield* settle
      yield* open("crash")
      yield* openAll
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(box.handled, ["1 begins", "2"])
      assert.deepStrictEqual(short(letters), [["tell", "1", "quarantined"]])
    })
  )

  it.effect("only crashes in a row over one message count: kills do not, and others begin a count of their own", () =>
    Effect.gen(function* () {
      const { box, letters, open, openAll, ref } = yield* desk({ acrossRestart: "keep", quarantineAfter: 2 })
      yield* ref.cast.tell("1")
      yield* settle
      for (let kill = 0; kill < 3; kill++) {
        yield* ref.kill
        yield* settle
        yield* TestClock.adjust("10 seconds")
      }
      yield* open("crash")
      yield* TestClock.adjust("10 seconds")
      yield* open("go on")
      yield* ref.cast.tell("2")
      yield* settle
      yield* open("crash")
      yield* TestClock.adjust("10 seconds")
      yield* openAll
      assert.deepStrictEqual(letters, [])
      assert.deepStrictEqual(box.handled, [
        ...Array.from({ length: 5 }, () => "1 begins"),
        "1 ends",
        "2 begins",
        "2 begins",
        "2 ends"
      ])
    })
  )

  for (const acrossRestart of ["drop", "keep"] as const) {
    it.effect(`a handler that ends its actor on its own stack loses nothing silently, with ${acrossRestart}`, () =>
      Effect.gen(function* () {
        let kill = () => {}
        const handled: Array<string> = []
        class Suicidal extends Actor.make("Suicidal", {
          init: () => 0,
          call: {
            ask: (self, text: string) => {
              handled.push(`${text} ${self.generation}`)
              if (self.generation === 1) kill()
              return text
            }
          },
          mailbox: { acrossRestart }
        }) {}
        const { ref } = yield* one(Suicidal, undefined)
        kill = () => Effect.runSync(ref.kill)
        const answer = yield* Effect.exit(ref.call.ask("1"))
        if (acrossRestart === "keep") {
          assert.deepStrictEqual(answer, Exit.succeed("1"))
          assert.deepStrictEqual(handled, ["1 1", "1 2"])
        } else {
          const reason = reasonOf(answer)
          assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Killed")
          assert.deepStrictEqual(handled, ["1 1"])
        }
        yield* settle
        assert.strictEqual(yield* ref.call.ask("2"), "2")
      })
    )
  }

  it.effect("a request that had begun is told from one that had not when the actor stays down", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* desk({ acrossRestart: "keep" })
      const working = yield* asking(ref.call.ask("1"))
      const waiting = yield* asking(ref.call.ask("2"))
      yield* tree.terminateChild("it")
      const reason = reasonOf(yield* Fiber.join(working))
      assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Shutdown", String(reason))
      assert.strictEqual(reasonOf(yield* Fiber.join(waiting))?._tag, "NoProcess")
    })
  )

  it.effect("a crash over what the actor told itself is not repeated", () =>
    Effect.gen(function* () {
      let runs = 0
      class Told extends Actor.make("Told", {
        init: () => 0,
        call: {
          timer: (self) =>
            self.timers.start("t", "1 second", () => {
              runs++
              throw boom
            }),
          generation: (self) => self.generation
        },
        mailbox: { acrossRestart: "keep" }
      }) {}
      const { ref } = yield* one(Told, undefined)
      yield* ref.call.timer()
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* ref.call.generation(), 2)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs, 1)
    })
  )
})

describe("callers of kept messages", () => {
  it.effect("a caller whose time is over, or who leaves, takes its request with it", () =>
    Effect.gen(function* () {
      const { box, open, openAll, ref } = yield* desk({ acrossRestart: "keep" })
      const working = yield* asking(ref.within("5 seconds").call.ask("1"))
      const leaves = yield* asking(ref.within("1 minute").call.ask("2"))
      const late = yield* asking(ref.within("8 seconds").call.ask("3"))
      const stays = yield* asking(ref.within("1 minute").call.ask("4"))
      yield* open("crash")
      yield* Fiber.interrupt(leaves)
      yield* TestClock.adjust("8 seconds")
      assert.strictEqual(reasonOf(yield* Fiber.join(working))?._tag, "CallTimeout")
      assert.strictEqual(reasonOf(yield* Fiber.join(late))?._tag, "CallTimeout")
      yield* openAll
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* Fiber.join(stays), Exit.succeed("4 answered by 2"))
      assert.deepStrictEqual(box.handled, ["1 begins", "4 begins", "4 ends"])
    })
  )

  for (const acrossRestart of ["drop", "keepOthers", "keep"] as const) {
    it.effect(`${acrossRestart}: every call settles exactly once, whatever happens to the actor`, () =>
      Effect.gen(function* () {
        const settled = new Map<string, number>()
        const outcomes: Array<string> = []
        const { open, openAll, ref, tree } = yield* desk({ acrossRestart, quarantineAfter: 2 })
        const ask = (name: string, limit: Duration.Input) =>
          ref
            .within(limit)
            .call.ask(name)
            .pipe(
              Effect.onExit((exit) =>
                Effect.sync(() => {
                  settled.set(name, (settled.get(name) ?? 0) + 1)
                  outcomes.push(
                    `${name} ${Exit.isSuccess(exit) ? "answered" : (reasonOf(exit)?._tag ?? "interrupted")}`
                  )
                })
              ),
              Effect.exit,
              Effect.forkChild
            )
        const names = Array.from({ length: 12 }, (_, index) => `${index}`)
        const fibers = yield* Effect.forEach(names, (name, index) =>
          ask(name, index % 3 === 0 ? "15 seconds" : "1 day")
        )
        yield* settle
        yield* open("go on")
        yield* open("crash")
        yield* Fiber.interrupt(fibers[4] ?? assert.fail())
        yield* TestClock.adjust("10 seconds")
        yield* open("crash")
        yield* TestClock.adjust("5 seconds")
        const late = yield* ask("late", "1 day")
        yield* settle
        yield* TestClock.adjust("5 seconds")
        yield* open("go on")
        yield* open("go on")
        yield* tree.terminateChild("it")
        yield* openAll
        yield* TestClock.adjust("1 hour")
        yield* Effect.forEach([...fibers, late], Fiber.await)
        assert.deepStrictEqual(
          [...names, "late"].map((name) => [name, settled.get(name)]),
          [...names, "late"].map((name) => [name, 1])
        )
        assert.include(outcomes, "0 answered")
        assert.include(outcomes, acrossRestart === "drop" ? "4 TargetExit" : "4 interrupted")
        assert.include(outcomes, acrossRestart === "drop" ? "9 TargetExit" : "9 CallTimeout")
        assert.include(outcomes, "1 TargetExit")
      })
    )
  }
})

describe("exact addresses", () => {
  for (const acrossRestart of ["drop", "keepOthers", "keep"] as const) {
    it.effect(
      `${acrossRestart}: a message to one incarnation never reaches the next, and its caller need not wait for it`,
      () =>
        Effect.gen(function* () {
          const { box, events, letters, open, openAll, ref } = yield* desk({ acrossRestart })
          const incarnation: ActorRef.IncarnationRef<ReturnType<typeof actorWith>> = yield* ref.incarnation
          const working = yield* asking(incarnation.call.ask("1"))
          const waiting = yield* asking(incarnation.call.ask("2"))
          yield* incarnation.cast.note("3")
          yield* open("crash")
          assert.deepStrictEqual([pending(working), pending(waiting)], [false, false])
          assert.strictEqual(reasonOf(yield* Fiber.join(working))?._tag, "TargetExit")
          assert.strictEqual(reasonOf(yield* Fiber.join(waiting))?._tag, "TargetExit")
          yield* incarnation.cast.note("4")
          assert.strictEqual(reasonOf(yield* Effect.exit(incarnation.call.ask("5")))?._tag, "NoProcess")
          yield* ref.cast.note("6")
          yield* openAll
          yield* TestClock.adjust("10 seconds")
          yield* incarnation.cast.note("7")
          yield* settle
          assert.deepStrictEqual(box.handled, ["1 begins", "6"])
          assert.deepStrictEqual(losses(events), ["note exit", "note no_process", "note no_process"])
          assert.deepStrictEqual(
            letters.map(({ payload }) => payload),
            ["3", "4", "7"]
          )
        })
    )
  }
})

describe("a bounded mailbox", () => {
  it.effect("what an ended incarnation told itself takes no room from those who send meanwhile", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      class Ticks extends Actor.make("Ticks", {
        init: (handled: Array<string>) => handled,
        started: (self) => self.timers.every("tick", "1 second", (self) => void self.state.push("tick")),
        cast: {
          note: (self, text: string) => void self.state.push(text),
          crash: () => Effect.andThen(Deferred.await(gate), Effect.die(boom))
        },
        mailbox: { capacity: 4, overflow: "reject", acrossRestart: "keepOthers" }
      }) {}
      const handled: Array<string> = []
      const { ref, tree } = yield* one(Ticks, handled, { backoff: Backoff.fixed("900 millis") })
      const events = yield* record(tree.events)
      yield* ref.cast.crash()
      yield* TestClock.adjust("4 seconds")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      for (const text of ["1", "2", "3", "4"]) yield* ref.cast.note(text)
      yield* TestClock.adjust("900 millis")
      assert.deepStrictEqual([handled, losses(events)], [["1", "2", "3", "4"], []])
    })
  )

  it.effect("senders that wait for room wait on across the restart, in order", () =>
    Effect.gen(function* () {
      const { box, events, open, openAll, ref } = yield* desk({ acrossRestart: "keep", capacity: 2 })
      yield* ref.cast.tell("0")
      yield* settle
      yield* ref.cast.note("1")
      yield* ref.cast.note("2")
      const third = yield* Effect.forkChild(ref.within("1 minute").cast.note("3"))
      const fourth = yield* Effect.forkChild(ref.within("1 minute").cast.note("4"))
      yield* settle
      yield* open("crash")
      assert.deepStrictEqual([pending(third), pending(fourth)], [true, true])
      yield* openAll
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([pending(third), pending(fourth)], [false, false])
      assert.deepStrictEqual(box.handled, ["0 begins", "0 begins", "0 ends", "1", "2", "3", "4"])
      assert.deepStrictEqual(losses(events), [])
    })
  )
})

describe("dead letters", () => {
  it.effect("a reader gets what is lost from then on, below its own supervisor, until the tree ends", () =>
    Effect.gen(function* () {
      class Sink extends Actor.make("Sink", { init: () => 0, cast: { note: (_self, _text: string) => {} } }) {}
      const scope = yield* Scope.make()
      const tree = yield* Supervisor.start({
        name: "root",
        children: [
          ChildSpec.actor("here", Sink, undefined),
          ChildSpec.supervisor("inner", { children: [ChildSpec.actor("there", Sink, undefined)] })
        ]
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const { here, inner } = tree.refs
      yield* tree.terminateChild("here")
      yield* inner.terminateChild("there")
      yield* here.cast.note("before anybody reads")
      const all = yield* Effect.forkChild(Stream.runCollect(tree.deadLetters))
      const below = yield* Effect.forkChild(Stream.runCollect(inner.deadLetters))
      yield* settle
      yield* here.cast.note("1")
      yield* inner.refs.there.cast.note("2")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(
        (yield* Fiber.join(all)).map(({ payload, target }) => [target, payload]),
        [
          ["root/here", "1"],
          ["root/inner/there", "2"]
        ]
      )
      assert.deepStrictEqual(
        (yield* Fiber.join(below)).map(({ payload }) => payload),
        ["2"]
      )
    })
  )

  it.effect("events say which message was lost and never what was in it", () =>
    Effect.gen(function* () {
      const { events, letters, ref, tree } = yield* desk({})
      yield* tree.terminateChild("it")
      yield* ref.cast.note("a secret")
      yield* settle
      assert.deepStrictEqual(short(letters), [["note", "a secret", "no_process"]])
      assert.deepStrictEqual(losses(events), ["note no_process"])
      assert.notInclude(JSON.stringify(events), "a secret")
    })
  )
})
