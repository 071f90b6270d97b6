import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ActorRef,
  ChildSpec,
  ExitReason,
  Registry,
  SupervisionEvent,
  SupervisionTree,
  Supervisor
} from "@tinkex/supervision"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { one, pending, record, settle, tags } from "../support.ts"
import { countFibers, ends, reports } from "./serverSupport.ts"

const because = (error: unknown) => ({ _tag: "Crash", error: String(error) })

/** How the actor `it` ended last, with the error in words. */
const lastEnd = (events: ReadonlyArray<SupervisionEvent.SupervisionEvent>) => {
  const event = events.findLast((event) => event._tag === "ChildExited")
  const exit = event?._tag === "ChildExited" ? event.exit : undefined
  return exit?._tag === "Crash" ? because(exit.error) : exit
}

describe("casts", () => {
  class Log extends Actor.make("Log", {
    init: (log: Array<string>) => log,
    call: { hang: () => Effect.never, size: (self) => self.state.length },
    cast: { note: (self, text: string) => void self.state.push(text) }
  }) {}

  it.effect("GX-01 a cast always succeeds, also to a server that is dead or was never there", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const registry = yield* Registry.make(Log)
      const ref = yield* Actor.start(Log, log, { names: [registry.name("log")] })
      const incarnation = yield* ref.incarnation
      const targets = [ref, incarnation, registry.ref("log"), registry.ref("nobody")]
      for (const [index, target] of targets.entries()) assert.isUndefined(yield* target.cast.note(`${index}`))
      yield* ref.call.size()
      assert.deepStrictEqual(log, ["0", "1", "2"])
      yield* ref.stop
      for (const target of targets) assert.deepStrictEqual(yield* Effect.exit(target.cast.note("late")), Exit.void)
      assert.deepStrictEqual(log, ["0", "1", "2"])
    })
  )

  it.effect("GX-02 a cast does not wait for a server that is dead, hangs, is suspended or is being started", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      class Opens extends Actor.make("Opens", {
        init: (log: Array<string>) => Effect.as(Deferred.await(gate), log),
        cast: { note: (self, text: string) => void self.state.push(text) }
      }) {}
      const names = yield* Registry.make(Opens)
      const log: Array<string> = []
      const tree = yield* Supervisor.start({
        children: ["dead", "hangs", "suspended"].map((id) => ChildSpec.actor(id, Log, log))
      })
      const find = (id: string) => tree.refs[id] ?? assert.fail(id)
      yield* tree.terminateChild("dead")
      yield* Effect.forkChild(Effect.exit(find("hangs").call.hang()))
      yield* find("suspended").suspend
      yield* Effect.forkChild(tree.startChild(ChildSpec.actor("opens", Opens, log, { names: [names.name("opens")] })))
      yield* settle
      let sent = 0
      const casts = yield* Effect.forkChild(
        Effect.gen(function* () {
          for (const id of ["dead", "hangs", "suspended"]) {
            for (let n = 0; n < 100; n++, sent++) yield* find(id).cast.note(id)
          }
          yield* names.ref("opens").cast.note("opens")
          sent++
        })
      )
      yield* settle
      assert.deepStrictEqual([pending(casts), sent], [false, 301])
      assert.deepStrictEqual(log, [])
      yield* Deferred.succeed(gate, undefined)
      yield* find("suspended").resume
      yield* settle
      assert.deepStrictEqual([log.length, log.includes("opens")], [101, true], "those that could be reached got it")
    })
  )

  it.effect("GX-03 the handler of a cast may answer a caller, take its time, or stop the server", () =>
    Effect.gen(function* () {
      class Works extends Actor.make("Works", {
        init: () => ({ callers: [] as Array<Actor.From<string, never>>, log: [] as Array<string> }),
        call: {
          ask: (self) => Actor.later<string>((from) => void self.state.callers.push(from)),
          log: (self) => self.state.log
        },
        cast: {
          answer: (self, text: string) => void self.state.callers.pop()?.succeed(text),
          *linger(self) {
            yield* Effect.sleep("1 second")
            self.state.log.push("lingered")
          },
          leave: (self) => self.stop()
        }
      }) {}
      const { ref, tree } = yield* one(Works, undefined, { restart: "temporary" })
      const events = yield* record(tree.events)
      const asked = yield* Effect.forkChild(ref.call.ask())
      yield* settle
      yield* ref.cast.answer("from a cast")
      assert.strictEqual(yield* Fiber.join(asked), "from a cast")
      yield* ref.cast.linger()
      const log = yield* Effect.forkChild(ref.call.log())
      yield* settle
      assert.isTrue(pending(log), "one message at a time")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(log), ["lingered"])
      yield* ref.cast.leave()
      yield* ref.cast.leave()
      yield* settle
      assert.deepStrictEqual(ends(events), ["it normal"])
    })
  )
})

describe("messages without a handler", () => {
  class Deaf extends Actor.make("Deaf", {
    init: () => ({ handled: 0 }),
    call: { ping: (self) => self.generation, link: (self, peer: Actor.Watchable) => self.link(peer) },
    cast: { count: (self) => void self.state.handled++ }
  }) {}
  class Peer extends Actor.make("Peer", { init: () => 0 }) {}

  it.effect(
    "GX-05 what a server does not know cannot be sent, an end that it need not know is dropped, and it lives on",
    () =>
      Effect.gen(function* () {
        const tree = yield* Supervisor.start({
          children: [
            ChildSpec.actor("deaf", Deaf, undefined),
            ChildSpec.actor("peer", Peer, undefined, { restart: "temporary" })
          ]
        })
        const { deaf, peer } = tree.refs
        // @ts-expect-error the actor has no such operation
        assert.throws(() => deaf.cast.unknown(), TypeError)
        // @ts-expect-error nor such a call
        assert.throws(() => deaf.call.unknown(), TypeError)
        yield* deaf.call.link(peer)
        yield* peer.stop
        yield* settle
        assert.strictEqual(yield* deaf.call.ping(), 1)
      })
  )

  it.effect("GX-06 a handler that is missing although it is listed ends the server, and the caller sees why", () =>
    Effect.gen(function* () {
      const missing = undefined as unknown as () => number // what a program without types may leave out
      const noWork: () => void = missing
      class Holes extends Actor.make("Holes", {
        init: () => 0,
        call: { ask: missing, plain: () => "plain", goOn: (self) => self.continue(noWork) },
        cast: { tell: missing }
      }) {}
      const { ref, tree } = yield* one(Holes, undefined)
      const events = yield* record(tree.events)
      const error = yield* Effect.flip(ref.call.ask())
      assert.include(String(error), `"supervisor/it" ended with crash (TypeError: `)
      yield* settle
      yield* ref.cast.tell()
      yield* settle
      yield* ref.call.goOn()
      yield* settle
      assert.deepStrictEqual(
        ends(events).map((end) => end.slice(0, 19)),
        ["it crash (TypeError", "it crash (TypeError", "it crash (TypeError"]
      )
      assert.deepStrictEqual(
        reports(events).map((report) => report?.operation),
        ["ask", "tell", "continue"]
      )
      assert.strictEqual(yield* ref.call.plain(), "plain")
    })
  )

  it.effect("GX-07 an error inside a handler of notices is that handler's own, not a message without a handler", () =>
    Effect.gen(function* () {
      const broken = (): void => (undefined as unknown as { f: () => void }).f() // as a careless handler does
      class Watches extends Actor.make("Watches", {
        init: () => 0,
        call: {
          watch: (self, peer: Actor.Watchable) => self.watch(peer, broken),
          link: (self, peer: Actor.Watchable) => self.link(peer),
          timer: (self) => self.timers.start("t", 0, broken)
        },
        exit: broken
      }) {}
      const tree = yield* Supervisor.start({ children: [ChildSpec.actor("it", Watches, undefined)] })
      const events = yield* record(tree.events)
      const peer = () => tree.startChild(ChildSpec.actor("peer", Peer, undefined, { restart: "temporary" }))
      yield* tree.refs.it.call.watch(yield* peer())
      yield* tree.terminateChild("peer")
      yield* settle
      yield* tree.refs.it.call.link(yield* peer())
      yield* tree.terminateChild("peer")
      yield* settle
      yield* tree.refs.it.call.timer()
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(
        reports(events).map((report) => report?.operation),
        ["down supervisor/peer", "exit", "timer t"]
      )
      assert.match(String(lastEnd(events)?._tag === "Crash" && ends(events).join()), /TypeError.*TypeError.*TypeError/)
    })
  )
})

describe("continuations", () => {
  interface Told {
    readonly log: Array<string>
    readonly gate?: Deferred.Deferred<void>
  }

  class Steps extends Actor.make("Steps", {
    *init({ gate, log }: Told) {
      if (gate !== undefined) yield* Deferred.await(gate)
      log.push("init")
      return { log, from: undefined as Actor.From<string, never> | undefined }
    },
    *started(self) {
      self.state.log.push("started")
      yield* Effect.yieldNow
      self.state.log.push("started later")
    },
    call: {
      reply: (self) => {
        self.continue((self) => void self.state.log.push("after reply"))
        return "reply"
      },
      noReply: (self) => {
        self.continue((self) => void self.state.from?.succeed("from the continuation"))
        return Actor.later<string>((from) => void (self.state.from = from))
      },
      timer: (self) =>
        self.timers.start("t", "1 second", (self) => {
          self.state.log.push("info")
          self.continue((self) => void self.state.log.push("after info"))
        }),
      chain: (self) => {
        const { log } = self.state
        log.push("before")
        self.continue((self) => {
          log.push("during 1")
          self.continue(() =>
            Effect.andThen(
              Effect.sleep("1 second"),
              Effect.sync(() => log.push("after 1"))
            )
          )
        })
        self.continue(function* () {
          yield* Effect.yieldNow
          log.push("during 2")
        })
        return "chained"
      }
    },
    cast: {
      note: (self, text: string) => void self.state.log.push(text),
      again: (self) => self.continue((self) => void self.state.log.push("after cast"))
    }
  }) {}

  it.effect("GX-09 what init leaves to be done is done before any message that already waits", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const registry = yield* Registry.make(Steps)
      const start = yield* Effect.forkChild(Actor.start(Steps, { log, gate }, { names: [registry.name("s")] }))
      yield* settle
      yield* registry.ref("s").cast.note("message 1")
      yield* registry.ref("s").cast.note("message 2")
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(start)
      yield* settle
      assert.deepStrictEqual(log, ["init", "started", "started later", "message 1", "message 2"])
    })
  )

  it.effect(
    "GX-10 a call with and without answer, a cast and a notice leave something to be done, and it is done next",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const { ref } = yield* one(Steps, { log })
        const both = <A, E>(effect: Effect.Effect<A, E>, next: string) =>
          Effect.gen(function* () {
            log.length = 0
            yield* ref.suspend
            const answer = yield* Effect.forkChild(effect)
            yield* settle
            yield* ref.cast.note(next)
            yield* ref.resume
            yield* settle
            return yield* Fiber.join(answer)
          })
        yield* settle
        assert.strictEqual(yield* both(ref.call.reply(), "next"), "reply")
        assert.deepStrictEqual(log, ["after reply", "next"])
        assert.strictEqual(yield* both(ref.call.noReply(), "next"), "from the continuation")
        yield* both(ref.cast.again(), "next")
        assert.deepStrictEqual(log, ["after cast", "next"])
        yield* ref.call.timer()
        yield* both(TestClock.adjust("1 second"), "next")
        assert.deepStrictEqual(log, ["info", "after info", "next"])
      })
  )

  it.effect("GX-11 what is left to be done may leave more; the order is before, during, after, and messages wait", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { ref } = yield* one(Steps, { log })
      yield* settle
      log.length = 0
      assert.strictEqual(yield* ref.call.chain(), "chained")
      yield* ref.cast.note("message")
      yield* settle
      assert.deepStrictEqual(log, ["before", "during 1", "during 2"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["before", "during 1", "during 2", "after 1", "message"])
    })
  )
})

describe("sleep", () => {
  class Sleeper extends Actor.make("Sleeper", {
    init: (log: Array<string>) => ({ log, n: 0 }),
    started: (self) => self.timers.idle("1 hour", (self) => void self.state.log.push("idle")),
    call: {
      add: (self, n: number) => (self.state.n += n),
      work: (self) => Effect.map(Effect.sleep("1 second"), () => ++self.state.n)
    },
    cast: {
      add: (self, n: number) => void (self.state.n += n),
      pause: (self, delay: number) => self.timers.start("pause", delay, (self) => void self.state.log.push("timer"))
    }
  }) {}

  it.effect("GX-13 a server that has nothing to do holds no fiber, and wakes with its state and its timers", () =>
    Effect.gen(function* () {
      const { alive, here } = countFibers()
      const logs = Array.from({ length: 50 }, (): Array<string> => [])
      const tree = yield* here(
        Supervisor.start({ children: logs.map((log, index) => ChildSpec.actor(`${index}`, Sleeper, log)) })
      )
      const refs = Object.values(tree.refs)
      yield* settle
      yield* TestClock.adjust(1)
      const asleep = alive()
      assert.isAtMost(asleep, 1, "one fiber sleeps for all the timers of a tree that have one length")

      for (const ref of refs) yield* ref.cast.add(1)
      yield* settle
      assert.isAtMost(alive(), asleep, "asleep after a cast")
      const working = yield* Effect.forEach(refs, (ref) => Effect.forkChild(ref.call.work()))
      yield* settle
      assert.isAtLeast(alive(), asleep + refs.length, "a handler that waits is a fiber")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        yield* Effect.forEach(working, Fiber.join),
        refs.map(() => 2)
      )
      for (const ref of refs) yield* ref.cast.pause(60_000)
      yield* settle
      assert.isAtMost(alive(), asleep + 2, "asleep after a call and with a timer; only deadlines are waited for")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        logs.map((log) => log.join()),
        refs.map(() => "timer")
      )
      assert.strictEqual(yield* (refs[7] ?? assert.fail()).call.add(0), 2)
    })
  )

  it.effect("GX-14 suspending, resuming and reading the state work during the sleep and do not end it", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { ref } = yield* one(Sleeper, log)
      yield* settle
      for (let minute = 0; minute < 59; minute++) {
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* ref.getState).n, 0)
        if (minute % 10 === 0) {
          yield* ref.suspend
          yield* ref.getState
          yield* ref.resume
        }
        yield* ref.replaceState((state) => state)
        yield* ref.incarnation
      }
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(log, ["idle"], "an hour without any message")
    })
  )

  it.effect(
    "GX-15 a server goes to sleep after a quiet time, which every message begins anew and no reading of the state",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const rest = (self: Actor.Self<{ cache: string | undefined }>) =>
          self.timers.idle("10 seconds", (self) => {
            log.push("asleep")
            self.state.cache = undefined
          })
        class Drowsy extends Actor.make("Drowsy", {
          init: () => ({ cache: undefined as string | undefined }),
          call: {
            use: (self, cache: string) => {
              rest(self)
              return (self.state.cache = cache)
            }
          },
          cast: { touch: (self) => rest(self) }
        }) {}
        const { ref } = yield* one(Drowsy, undefined)
        yield* ref.call.use("warm")
        yield* TestClock.adjust("6 seconds")
        yield* ref.cast.touch()
        yield* TestClock.adjust("6 seconds")
        assert.deepStrictEqual((yield* ref.getState).cache, "warm", "twelve seconds, but not without a message")
        yield* TestClock.adjust(3999)
        assert.deepStrictEqual([log, (yield* ref.getState).cache], [[], "warm"])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual([log, (yield* ref.getState).cache], [["asleep"], undefined])
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(log, ["asleep"], "it sleeps until the next message")
        assert.strictEqual(yield* ref.call.use("warm again"), "warm again")
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(log, ["asleep", "asleep"])
      })
  )
})

describe("looking in from outside", () => {
  class Version extends Actor.make("Version", {
    init: (version: number) => ({ version, entries: ["a"] }),
    call: {
      version: (self) => self.state.version,
      busy: (self) => Effect.as(Effect.sleep("1 second"), self.state.version)
    }
  }) {}

  it.effect("GX-17 the state can be replaced by a function of it, between two messages; the new one is returned", () =>
    Effect.gen(function* () {
      const { ref } = yield* one(Version, 1)
      const busy = yield* Effect.forkChild(ref.call.busy())
      yield* settle
      const replaced = yield* Effect.forkChild(ref.replaceState((state) => ({ ...state, version: state.version + 1 })))
      yield* settle
      assert.isTrue(pending(replaced))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(replaced), { version: 2, entries: ["a"] })
      assert.strictEqual(yield* Fiber.join(busy), 1)
      assert.strictEqual(yield* ref.call.version(), 2)
    })
  )

  it.effect("GX-18 when that function fails, the state stays and the failure is the asker's", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* one(Version, 1)
      const events = yield* record(tree.events)
      const boom = new Error("boom")
      const exit = yield* Effect.exit(
        ref.replaceState(() => {
          throw boom
        })
      )
      assert.deepStrictEqual(exit, Exit.die(boom))
      assert.deepStrictEqual(yield* ref.getState, { version: 1, entries: ["a"] })
      assert.deepStrictEqual(tags(events), ["ChildStarted it"])
    })
  )

  it.effect("GX-19 a migration of the state, or of the specs, that fails leaves the old server running", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* one(Version, 1)
      yield* ref.suspend
      const waiting = yield* Effect.forkChild(ref.call.version())
      const exit = yield* Effect.exit(
        ref.replaceState((state) => {
          if (state.entries.length < 2) throw new Error("cannot migrate")
          return { ...state, version: 2 }
        })
      )
      assert.isTrue(Exit.hasDies(exit))
      yield* ref.resume
      assert.strictEqual(yield* Fiber.join(waiting), 1)
      const error = yield* Effect.flip(tree.reconfigure({ children: [ChildSpec.effect("it", Effect.never)] }))
      assert.isTrue(error.reason._tag === "InvalidRequest" && error.reason.field === "children[0]")
      assert.strictEqual(yield* ref.call.version(), 1)
      assert.strictEqual((yield* ref.incarnation).generation, 1)
    })
  )

  it.effect("GX-21 a description that fails breaks neither the status nor the report", () =>
    Effect.gen(function* () {
      class Opaque extends Actor.make("Opaque", {
        init: () => ({ secret: "1234" }),
        call: { ping: () => "pong" },
        cast: { crash: () => Effect.die(new Error("crash")) },
        describe: () => {
          throw new Error("cannot describe")
        }
      }) {}
      const { ref, tree } = yield* one(Opaque, undefined)
      const events = yield* record(tree.events)
      yield* ref.cast.crash()
      yield* settle
      assert.deepStrictEqual(reports(events), [{ operation: "crash", state: "(describe failed)" }])
      const failed = events.find((event) => event._tag === "CallbackFailed")
      assert.strictEqual(
        failed?._tag === "CallbackFailed" && `${failed.callback}: ${ExitReason.format(failed.exit)}`,
        "describe: crash (Error: cannot describe)"
      )
      assert.strictEqual(yield* ref.call.ping(), "pong")
      const status = yield* SupervisionTree.snapshot(tree)
      assert.strictEqual(status.children[0]?.lastExit, "crash (Error: crash)")
      assert.notInclude(JSON.stringify([status, events]), "1234")
    })
  )

  for (const [how, stop] of [
    ["a stop from outside", (ref: ActorRef.ActorRef<typeof Teller>) => Effect.exit(ref.stop)],
    ["a stop by itself", (ref: ActorRef.ActorRef<typeof Teller>) => Effect.andThen(ref.cast.leave(), settle)]
  ] as const) {
    it.effect(`GX-22 a crash in the clean-up after ${how} is reported with the state as the actor shows it`, () =>
      Effect.gen(function* () {
        const { ref, tree } = yield* one(Teller, "1234", { restart: "temporary" })
        const events = yield* record(tree.events)
        yield* stop(ref)
        yield* settle
        assert.deepStrictEqual(ends(events), ["it crash (Error: in terminate)"])
        assert.deepStrictEqual(reports(events), [{ state: { secret: "***" } }])
        assert.notInclude(JSON.stringify(events), "1234")
      })
    )
  }

  class Teller extends Actor.make("Teller", {
    init: (secret: string) => ({ secret }),
    cast: { leave: (self) => self.stop() },
    describe: () => ({ secret: "***" }),
    terminate: () => Effect.die(new Error("in terminate"))
  }) {}

  it.effect(
    "GX-23 a report in words obeys its limits: one line unless asked, so many characters, one line per group",
    () =>
      Effect.gen(function* () {
        class Long extends Actor.make("Long", {
          init: () => ({ text: "x".repeat(10_000) }),
          cast: { crash: () => Effect.die(new Error(`first line\nsecond line ${"y".repeat(1000)}`)) },
          describe: (state) => state
        }) {}
        const { ref, tree } = yield* one(Long, undefined)
        const events = yield* record(tree.events)
        yield* ref.cast.crash()
        yield* settle
        const crash = events.find((event) => event._tag === "ChildExited") ?? assert.fail()
        const line = SupervisionEvent.format(crash)
        assert.match(line, /^ChildExited supervisor\/it: crash \(Error: first line second line y+\) in crash$/)
        assert.notInclude(line, "x".repeat(10), "no state in one line")
        const short = SupervisionEvent.format(crash, { limit: 40 })
        assert.strictEqual(short, `${line.slice(0, 39)}…`)
        const whole = SupervisionEvent.format(crash, { multiline: true })
        assert.include(whole, "x".repeat(10_000))
        assert.isAbove(whole.split("\n").length, 3)
        assert.strictEqual(SupervisionEvent.format(crash, { multiline: true, limit: 200 }).length, 200)
        const many = SupervisionEvent.summarize([crash, crash, crash], { limit: 60 })
        assert.isAtMost(many.length, 60)
        assert.include(SupervisionEvent.summarize([crash, crash, crash]), "(3 children)")
      })
  )
})
