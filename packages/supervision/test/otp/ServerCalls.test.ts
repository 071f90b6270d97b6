import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorRef, CallError, ChildSpec, ExitReason, Supervisor } from "@tinkex/supervision"
import { Deferred, Duration, Effect, Exit, Fiber, Logger, Queue, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import { one, pending, record, settle, tags } from "../support.ts"
import { ends, reports } from "./serverSupport.ts"

/** Answers now, after a while, or when it is told to. */
class Desk extends Actor.make("Desk", {
  init: () => ({ total: 0, waiting: new Map<string, Actor.From<string, "refused">>() }),
  call: {
    add: (self, n: number) => (self.state.total += n),
    sleep: (_self, millis: number) => Effect.as(Effect.sleep(millis), `slept ${millis}`),
    ticket: (self, name: string) => Actor.later<string, "refused">((from) => void self.state.waiting.set(name, from)),
    /** Answers another caller, and says whether that one was still there. */
    serve: (self, name: string) => self.state.waiting.get(name)?.succeed(`served ${name}`) ?? false,
    refuse: (self, name: string) => self.state.waiting.get(name)?.fail("refused") ?? false,
    breaks: (): number => JSON.parse("{")
  },
  cast: {
    serve: (self, name: string) => void self.state.waiting.get(name)?.succeed(`served ${name}`)
  }
}) {}

const reasonOf = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), (error) =>
    error instanceof CallError.CallError ? error.reason : assert.fail(String(error))
  )

describe("calls", () => {
  it.effect("GC-01 an answer is given at once, or later from another message or fiber, or is a refusal", () =>
    Effect.gen(function* () {
      const { ref } = yield* one(Desk, undefined)
      assert.strictEqual(yield* ref.call.add(1), 1)
      const calls = yield* Effect.forEach(["a", "b", "c"], (name) =>
        Effect.forkChild(Effect.exit(ref.call.ticket(name)))
      )
      yield* settle
      assert.deepStrictEqual(calls.map(pending), [true, true, true])
      assert.strictEqual(yield* ref.call.add(1), 2, "the server goes on meanwhile")
      assert.isTrue(yield* ref.call.serve("b"))
      yield* ref.cast.serve("c")
      assert.isTrue(yield* ref.call.refuse("a"))
      assert.deepStrictEqual<ReadonlyArray<Exit.Exit<string, unknown>>>(yield* Effect.forEach(calls, Fiber.join), [
        Exit.fail("refused"),
        Exit.succeed("served b"),
        Exit.succeed("served c")
      ])
      assert.isFalse(yield* ref.call.serve("b"), "an answer is given once")
    })
  )

  it.effect("GC-02 a call that takes too long fails its caller and does not disturb the server", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* one(Desk, undefined)
      const slow = yield* Effect.forkChild(reasonOf(ref.within("1 second").call.sleep(3000)))
      yield* settle
      const behind = yield* Effect.forkChild(ref.call.add(5))
      yield* settle
      yield* TestClock.adjust(1000)
      assert.strictEqual((yield* Fiber.join(slow))._tag, "CallTimeout")
      assert.isTrue(pending(behind))
      yield* TestClock.adjust(2000)
      assert.strictEqual(yield* Fiber.join(behind), 5)
      assert.deepStrictEqual(
        (yield* tree.whichChildren).map((child) => child.generation),
        [1]
      )
    })
  )

  it.effect("GC-03 a handler that breaks ends the server, and its caller gets that very reason", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* one(Desk, undefined, { restart: "temporary" })
      const events = yield* record(tree.events)
      yield* Effect.forkChild(Effect.exit(ref.call.ticket("waits")))
      yield* settle
      const reason = yield* reasonOf(ref.call.breaks())
      assert.isTrue(
        reason._tag === "TargetExit" && reason.exit._tag === "Crash" && reason.exit.error instanceof SyntaxError
      )
      yield* settle
      const exited = events.find((event) => event._tag === "ChildExited")
      assert.deepStrictEqual(exited?._tag === "ChildExited" && exited.exit, reason._tag === "TargetExit" && reason.exit)
      assert.strictEqual((yield* reasonOf(ref.call.add(1)))._tag, "NoProcess")
    })
  )

  it.effect("GC-05 calling oneself fails at once, without waiting for any limit", () =>
    Effect.gen(function* () {
      let again: Effect.Effect<unknown, unknown> = Effect.void
      class Mirror extends Actor.make("Mirror", {
        init: () => 0,
        call: { look: () => Effect.flip(again), plain: () => "plain" }
      }) {}
      const { ref } = yield* one(Mirror, undefined)
      again = ref.within(Duration.infinity).call.plain()
      const call = yield* Effect.forkChild(ref.within(Duration.infinity).call.look())
      yield* settle
      const error = yield* Fiber.join(call)
      assert.isTrue(error instanceof CallError.CallError && error.reason._tag === "CallingSelf")
      assert.strictEqual(yield* ref.call.plain(), "plain")
    })
  )

  it.effect("GC-06 every failure tells the target, the request, and the limit where there was one", () =>
    Effect.gen(function* () {
      class Tight extends Actor.make("Tight", {
        init: () => ({ peer: Effect.void as Effect.Effect<unknown, unknown> }),
        call: {
          wait: () => Effect.never,
          ask: (self): Effect.Effect<unknown, unknown> => self.state.peer,
          dies: () => Effect.die("gone")
        },
        mailbox: { capacity: 1, overflow: "reject" }
      }) {}
      const tree = yield* Supervisor.start({
        name: "shop",
        children: ["a", "b", "busy"].map((id) => ChildSpec.actor(id, Tight, undefined))
      })
      const find = (id: string) => tree.refs[id] ?? assert.fail(id)
      const said = <A, E>(effect: Effect.Effect<A, E>) => Effect.map(Effect.flip(effect), (error) => String(error))
      const [a, b, busy] = [find("a"), find("b"), find("busy")]

      yield* a.replaceState(() => ({ peer: a.call.dies() }))
      assert.include(yield* said(a.call.ask()), `"shop/a" called its own "dies"`)
      yield* a.replaceState(() => ({ peer: b.call.ask() }))
      yield* b.replaceState(() => ({ peer: a.call.ask() }))
      assert.include(yield* said(a.call.ask()), `"ask" would wait for itself along shop/a -> shop/b -> shop/a`)
      assert.include(yield* said(a.call.dies()), `"shop/a" ended with crash (gone) before it answered "dies"`)

      const late = yield* Effect.forkChild(said(busy.within("2 seconds").call.wait()))
      yield* settle
      yield* Effect.forkChild(Effect.exit(busy.call.ask()))
      yield* settle
      assert.include(yield* said(busy.call.dies()), `"dies" did not fit: the mailbox of "shop/busy" holds 1 messages`)
      yield* TestClock.adjust("2 seconds")
      assert.include(yield* Fiber.join(late), `"wait" of "shop/busy" gave no answer within 2s`)
      yield* tree.terminateChild("busy")
      assert.include(yield* said(busy.call.wait()), `"wait" found no process: "shop/busy" is not running`)
    })
  )

  it.effect("GC-07 a crash is reported with request, state and client; shutdowns make no report", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      class Clerk extends Actor.make("Clerk", {
        init: (secret: string) => ({ secret, served: 3 }),
        call: {
          fail: (_self, _payload: string) => Effect.die(new Error("lost")),
          stop: (self, reason: ExitReason.ExitReason) => self.stop(reason)
        },
        describe: ({ served }) => ({ served, secret: "***" })
      }) {}
      class Client extends Actor.make("Client", {
        init: (_arg: void) => 0,
        call: { ask: (_self, ask: Effect.Effect<unknown, unknown>) => Effect.exit(ask) }
      }) {}
      yield* Effect.gen(function* () {
        const tree = yield* Supervisor.start({
          name: "shop",
          children: [ChildSpec.actor("client", Client, undefined)]
        })
        const clerk = () => tree.startChild(ChildSpec.actor("clerk", Clerk, "1234", { restart: "temporary" }))
        for (const reason of [ExitReason.shutdown, { _tag: "Shutdown", info: "lunch" }, ExitReason.normal] as const) {
          yield* (yield* clerk()).call.stop(reason)
          yield* settle
        }
        assert.deepStrictEqual(lines, [], "nobody is alarmed by a shutdown")
        yield* tree.refs.client.call.ask((yield* clerk()).call.fail("payload"))
        yield* settle
        assert.deepStrictEqual(lines, ["ChildExited shop/clerk: crash (Error: lost) in fail"])
        const events = yield* record(tree.events)
        yield* (yield* clerk()).call.stop(ExitReason.crash("asked to"))
        yield* settle
        yield* Effect.exit((yield* clerk()).call.fail("payload"))
        yield* settle
        assert.deepStrictEqual(ends(events), [
          "clerk shutdown",
          "clerk shutdown (lunch)",
          "clerk normal",
          "clerk crash (Error: lost)",
          "clerk crash (asked to)",
          "clerk crash (Error: lost)"
        ])
        const state = { served: 3, secret: "***" }
        const [, , , byActor, byItself, byFiber] = reports(events)
        assert.deepStrictEqual(reports(events).slice(0, 3), [undefined, undefined, undefined])
        assert.deepStrictEqual(byActor, { operation: "fail", client: "shop/client", state })
        assert.deepStrictEqual(byItself, { state })
        assert.deepStrictEqual({ ...byFiber, client: undefined }, { operation: "fail", client: undefined, state })
        assert.match(byFiber?.client ?? "", /^fiber/)
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  )

  it.effect("GC-09 an answer to a caller that has given up is dropped, and whoever gives it may know", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* one(Desk, undefined)
      const events = yield* record(tree.events)
      const late = yield* Effect.forkChild(reasonOf(ref.call.ticket("late")))
      yield* settle
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(late))._tag, "CallTimeout")
      const next = yield* Effect.forkChild(ref.call.ticket("next"))
      yield* settle
      assert.isFalse(yield* ref.call.serve("late"))
      yield* settle
      assert.isTrue(pending(next), "nobody else gets it")
      assert.isTrue(yield* ref.call.serve("next"))
      assert.strictEqual(yield* Fiber.join(next), "served next")
      assert.deepStrictEqual(tags(events), ["ChildStarted it", "LateReply it"])
    })
  )
})

describe("requests and their answers apart", () => {
  it.effect(
    "GC-10 a request is sent in one place and its answer awaited, polled for, or waited for with a limit in another",
    () =>
      Effect.gen(function* () {
        const { ref } = yield* one(Desk, undefined)
        const patient = ref.within(Duration.infinity)
        const awaited = yield* Effect.forkChild(ref.call.add(1), { startImmediately: true })
        const polled = yield* Effect.forkChild(patient.call.ticket("polled"), { startImmediately: true })
        const limited = yield* Effect.forkChild(patient.call.ticket("limited"), { startImmediately: true })
        assert.strictEqual(yield* Fiber.join(awaited), 1)
        assert.isUndefined(polled.pollUnsafe())
        const wait = yield* Effect.forkChild(Effect.timeoutOption(Fiber.await(limited), "1 second"))
        yield* settle
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(wait))._tag, "None")
        yield* ref.call.serve("polled")
        yield* settle
        assert.deepStrictEqual(polled.pollUnsafe(), Exit.succeed("served polled"))
      })
  )

  it.effect("GC-11 a wait that ran out can be continued, and the answer is not lost", () =>
    Effect.gen(function* () {
      const { ref } = yield* one(Desk, undefined)
      const request = yield* Effect.forkChild(ref.within(Duration.infinity).call.ticket("x"), {
        startImmediately: true
      })
      for (let attempt = 0; attempt < 2; attempt++) {
        const wait = yield* Effect.forkChild(Effect.timeoutOption(Fiber.await(request), "10 seconds"))
        yield* settle
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Fiber.join(wait))._tag, "None")
      }
      assert.isTrue(yield* ref.call.serve("x"))
      assert.strictEqual(yield* Fiber.join(request), "served x")
      assert.strictEqual(yield* Fiber.join(request), "served x", "and can be read again")
    })
  )

  /** Sends a ticket per label and puts the labelled answers where they come out in the order of completion. */
  const collect = Effect.fnUntraced(function* (ref: ActorRef.ActorRef<typeof Desk>, labels: ReadonlyArray<string>) {
    const answers = yield* Queue.unbounded<readonly [label: string, answer: string]>()
    const fibers = yield* Effect.forEach(labels, (label) =>
      ref
        .within(Duration.infinity)
        .call.ticket(label)
        .pipe(
          Effect.catch((reason) => Effect.succeed(String(reason))),
          Effect.flatMap((answer) => Queue.offer(answers, [label, answer] as const)),
          Effect.forkChild({ startImmediately: true })
        )
    )
    return { answers, fibers }
  })

  it.effect(
    "GC-13 many outstanding requests are collected with their labels in the order in which they are answered",
    () =>
      Effect.gen(function* () {
        const { ref } = yield* one(Desk, undefined)
        const { answers } = yield* collect(ref, ["a", "b", "c", "d"])
        yield* settle
        const results = yield* Effect.forkChild(Stream.runCollect(Stream.take(Stream.fromQueue(answers), 4)))
        for (const label of ["c", "a", "d"]) yield* ref.call.serve(label)
        yield* ref.call.refuse("b")
        assert.deepStrictEqual(yield* Fiber.join(results), [
          ["c", "served c"],
          ["a", "served a"],
          ["d", "served d"],
          ["b", "refused"]
        ])
      })
  )

  it.effect("GC-14 a collection that was abandoned when its time was over yields nothing later", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const handled: Array<string> = []
      class Busy extends Actor.make("Busy", {
        init: () => 0,
        call: {
          work: Effect.fnUntraced(function* (_self: Actor.Self<number>, label: string) {
            yield* Deferred.await(gate)
            handled.push(label)
            return label
          })
        }
      }) {}
      const { ref, tree } = yield* one(Busy, undefined)
      const events = yield* record(tree.events)
      const answers: Array<string> = []
      const collection = Effect.forEach(
        ["begun", "queued", "queued too"],
        (label) => Effect.map(ref.within(Duration.infinity).call.work(label), (answer) => void answers.push(answer)),
        { concurrency: "unbounded" }
      )
      const wait = yield* Effect.forkChild(Effect.timeoutOption(collection, "1 second"))
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(wait))._tag, "None")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(answers, [])
      assert.deepStrictEqual(handled, ["begun"], "a request that had not begun is withdrawn")
      assert.deepStrictEqual(tags(events), ["ChildStarted it", "LateReply it"])
    })
  )

  it.effect("GC-15 a collection that was only waited for can still be collected later", () =>
    Effect.gen(function* () {
      const { ref } = yield* one(Desk, undefined)
      const { answers, fibers } = yield* collect(ref, ["a", "b"])
      yield* settle
      yield* ref.call.serve("b")
      assert.deepStrictEqual(yield* Queue.take(answers), ["b", "served b"])
      const wait = yield* Effect.forkChild(Effect.timeoutOption(Queue.take(answers), "1 second"))
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(wait))._tag, "None")
      assert.deepStrictEqual(fibers.map(pending), [true, false])
      yield* ref.call.serve("a")
      assert.deepStrictEqual(yield* Queue.take(answers), ["a", "served a"])
    })
  )
})

describe("many targets", () => {
  it.effect("GC-18 one request to many servers gives the good answers and the list of those that did not answer", () =>
    Effect.gen(function* () {
      class Member extends Actor.make("Member", {
        init: (mood: "well" | "dead" | "dies" | "slow") => mood,
        call: {
          ask: (self): Effect.Effect<string> =>
            self.state === "dies" ? Effect.die("x") : self.state === "slow" ? Effect.never : Effect.succeed(self.id)
        }
      }) {}
      const moods = { a: "well", b: "dead", c: "dies", d: "slow", e: "well" } as const
      const tree = yield* Supervisor.start({
        children: Object.entries(moods).map(([id, mood]) => ChildSpec.actor(id, Member, mood))
      })
      yield* tree.terminateChild("b")
      const multicall = Effect.forEach(
        Object.entries(tree.refs),
        ([id, ref]) => Effect.map(Effect.result(ref.within("1 second").call.ask()), (answer) => [id, answer] as const),
        { concurrency: "unbounded" }
      )
      const asked = yield* Effect.forkChild(multicall)
      yield* settle
      yield* TestClock.adjust("1 second")
      const all = yield* Fiber.join(asked)
      assert.deepStrictEqual(
        all.flatMap(([, answer]) => (Result.isSuccess(answer) ? [answer.success] : [])),
        ["a", "e"]
      )
      assert.deepStrictEqual(
        all.flatMap(([id, answer]) => (Result.isFailure(answer) ? [`${id} ${answer.failure.reason._tag}`] : [])),
        ["b NoProcess", "c TargetExit", "d CallTimeout"]
      )
    })
  )
})
