import { assert, describe, it } from "@effect/vitest"
import { Actor, type ActorRef } from "@tinkex/supervision"
import { Deferred, Effect, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { alive } from "./otp/memorySupport.ts"
import { one, pending, record, settle } from "./support.ts"

interface Box {
  readonly gate: Deferred.Deferred<void>
  readonly handled: Array<string>
}

const actorWith = (overflow: "suspend" | "reject" | "dropNewest" | "dropOldest") =>
  class extends Actor.make("Bounded", {
    init: (box: Box) => box,
    call: { ask: (self, text: string) => void self.state.handled.push(text) },
    cast: {
      tell: (self, text: string) => void self.state.handled.push(text),
      hold: (self) => Deferred.await(self.state.gate)
    },
    mailbox: { capacity: 2, overflow }
  }) {}

/** An actor that is busy until the gate opens, with two messages in a mailbox for two. */
const full = (overflow: "suspend" | "reject" | "dropNewest" | "dropOldest") =>
  Effect.gen(function* () {
    const box: Box = { gate: yield* Deferred.make<void>(), handled: [] }
    const { ref, tree } = yield* one(actorWith(overflow), box)
    const events = yield* record(tree.events)
    yield* ref.cast.hold()
    yield* settle
    const first = yield* Effect.forkChild(Effect.exit(ref.call.ask("1")))
    yield* settle
    yield* ref.cast.tell("2")
    const drain = Effect.andThen(Deferred.succeed(box.gate, undefined), settle)
    const losses = () =>
      events.flatMap((event) => (event._tag === "MessageDropped" ? [`${event.operation} ${event.why}`] : []))
    return { box, ref, tree, first, drain, losses }
  })

describe("overflow", () => {
  for (const overflow of ["reject", "dropNewest"] as const) {
    it.effect(`${overflow} turns the new message away: a call fails, a cast is reported`, () =>
      Effect.gen(function* () {
        const { box, ref, drain, losses } = yield* full(overflow)
        const error = yield* Effect.flip(ref.call.ask("3"))
        assert.strictEqual(error.reason._tag, "MailboxFull")
        assert.include(error.message, "holds 2 messages")
        yield* ref.cast.tell("4")
        yield* drain
        assert.deepStrictEqual(box.handled, ["1", "2"])
        assert.deepStrictEqual(losses(), ["tell mailbox_full"])
      })
    )
  }

  it.effect("dropOldest evicts what waited longest, and tells its caller", () =>
    Effect.gen(function* () {
      const { box, ref, first, drain, losses } = yield* full("dropOldest")
      yield* ref.cast.tell("3")
      yield* ref.cast.tell("4")
      assert.include(String(yield* Fiber.join(first)), "did not fit")
      yield* drain
      assert.deepStrictEqual(box.handled, ["3", "4"])
      assert.deepStrictEqual(losses(), ["ask mailbox_full", "tell mailbox_full"])
    })
  )

  it.effect("suspend makes senders wait for room, in order, and loses nothing", () =>
    Effect.gen(function* () {
      const { box, ref, drain, losses } = yield* full("suspend")
      const third = yield* Effect.forkChild(Effect.andThen(ref.cast.tell("3"), ref.cast.tell("4")))
      yield* settle
      const fifth = yield* Effect.forkChild(ref.call.ask("5"))
      yield* settle
      assert.deepStrictEqual([pending(third), pending(fifth)], [true, true])
      yield* drain
      assert.deepStrictEqual([pending(third), pending(fifth)], [false, false])
      assert.deepStrictEqual(box.handled, ["1", "2", "3", "5", "4"])
      assert.deepStrictEqual(losses(), [])
    })
  )

  it.effect("a withdrawn message makes room", () =>
    Effect.gen(function* () {
      const { ref, first } = yield* full("suspend")
      const third = yield* Effect.forkChild(ref.cast.tell("3"))
      yield* settle
      assert.isTrue(pending(third))
      yield* Fiber.interrupt(first)
      yield* settle
      assert.isFalse(pending(third))
    })
  )

  it.effect("a sender that waits for room can be interrupted, and then sends nothing", () =>
    Effect.gen(function* () {
      const { box, ref, drain } = yield* full("suspend")
      const third = yield* Effect.forkChild(ref.cast.tell("3"))
      const fourth = yield* Effect.forkChild(ref.cast.tell("4"))
      yield* settle
      yield* Fiber.interrupt(third)
      yield* drain
      assert.isFalse(pending(fourth))
      assert.deepStrictEqual(box.handled, ["1", "2", "4"])
    })
  )

  it.effect("a sender waits no longer than the limit of its ref; the loss is an event", () =>
    Effect.gen(function* () {
      const { box, ref, drain, losses } = yield* full("suspend")
      const third = yield* Effect.forkChild(ref.within("1 second").cast.tell("3"))
      yield* settle
      yield* TestClock.adjust(999)
      assert.isTrue(pending(third))
      yield* TestClock.adjust(1)
      assert.isFalse(pending(third))
      yield* drain
      assert.deepStrictEqual(box.handled, ["1", "2"])
      assert.deepStrictEqual(losses(), ["tell timeout"])
    })
  )

  it.effect("an actor never waits for room in its own mailbox", () =>
    Effect.gen(function* () {
      let tell: (n: number) => Effect.Effect<void> = () => Effect.void
      const handled: Array<number> = []
      class Self extends Actor.make("Self", {
        init: () => 0,
        cast: {
          note: (_self, n: number) => void handled.push(n),
          *flood() {
            for (let n = 0; n < 10; n++) yield* tell(n)
          }
        },
        mailbox: { capacity: 2 }
      }) {}
      const { ref } = yield* one(Self, undefined)
      tell = ref.cast.note
      yield* ref.cast.flood()
      yield* settle
      assert.deepStrictEqual(handled, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    })
  )

  it.effect("the default loses nothing when a sender is faster than the actor", () =>
    Effect.gen(function* () {
      class Sum extends Actor.make("Sum", {
        init: () => ({ n: 0 }),
        call: { read: (self) => self.state.n },
        cast: { tick: (self) => void self.state.n++ }
      }) {}
      const { ref } = yield* one(Sum, undefined)
      for (let i = 0; i < 10_000; i++) yield* ref.cast.tick()
      assert.strictEqual(yield* ref.call.read(), 10_000)
    })
  )

  it("a capacity that makes no sense is refused where the actor is made", () => {
    assert.throws(() => Actor.make("Bad", { init: () => 0, mailbox: { capacity: 0 } }), /mailbox.capacity is 0/)
  })
})

describe("senders that leave", () => {
  class Busy extends Actor.make("Busy", {
    init: (box: { readonly gate: Deferred.Deferred<void>; readonly handled: Array<number> }) => box,
    call: {
      ask: (self, { n }: { readonly n: number }) => void self.state.handled.push(n),
      hold: (self) => Deferred.await(self.state.gate)
    },
    cast: { tell: (self, n: number) => void self.state.handled.push(n) },
    mailbox: { capacity: 3 }
  }) {}

  /** Keeps an actor busy while `senders` come and go, then lets it go on. */
  const busy = <A>(senders: (ref: ActorRef.ActorRef<typeof Busy>) => Effect.Effect<A>) =>
    Effect.gen(function* () {
      const box = { gate: yield* Deferred.make<void>(), handled: new Array<number>() }
      const { ref } = yield* one(Busy, box)
      yield* Effect.forkChild(ref.call.hold())
      yield* settle
      const came = yield* senders(ref)
      yield* Deferred.succeed(box.gate, undefined)
      yield* settle
      return { came, handled: box.handled }
    })

  // a call, a cast, or the interruption of the sender that came so many places ago
  const moves = Schema.Array(
    Schema.Struct({
      what: Schema.Literals(["call", "cast", "leave"]),
      back: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 9 }))
    })
  )

  it.effect.prop(
    "whoever left is skipped, and the others are handled in the order in which they came",
    [moves],
    ([moves]) =>
      Effect.gen(function* () {
        const { came, handled } = yield* busy((ref) =>
          Effect.gen(function* () {
            const senders: Array<{ readonly n: number; readonly fiber: Fiber.Fiber<unknown, unknown> }> = []
            for (const [n, { back, what }] of moves.entries()) {
              if (what === "leave") {
                const [sender] = senders.splice(Math.max(0, senders.length - 1 - back), 1)
                // a cast that found room is on its way, and its sender has nothing to take back
                if (sender !== undefined && !pending(sender.fiber)) senders.push(sender)
                else if (sender !== undefined) yield* Fiber.interrupt(sender.fiber)
                senders.sort((one, other) => one.n - other.n)
              } else {
                const fiber = yield* Effect.forkChild(what === "call" ? ref.call.ask({ n }) : ref.cast.tell(n))
                senders.push({ n, fiber })
              }
              yield* settle
            }
            return senders
          })
        )
        assert.deepStrictEqual(
          handled,
          came.map(({ n }) => n)
        )
        for (const { fiber } of came) assert.isFalse(pending(fiber))
      }),
    { arbitrary: { size: 40, runs: 200 } }
  )

  it.effect("what they sent is let go of while the actor is still busy", () =>
    busy((ref) =>
      Effect.gen(function* () {
        yield* Effect.forkChild(ref.call.ask({ n: -1 }))
        yield* settle
        const sent: Array<WeakRef<object>> = []
        for (let n = 0; n < 1000; n++) {
          const question = { n }
          sent.push(new WeakRef(question))
          const sender = yield* Effect.forkChild(ref.call.ask(question))
          yield* Effect.yieldNow
          yield* Fiber.interrupt(sender)
        }
        assert.isBelow(yield* alive(sent), 100)
      })
    )
  )
})
