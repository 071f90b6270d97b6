import { assert, describe, it } from "@effect/vitest"
import { Actor, Backoff, ChildSpec, Supervisor } from "@tinkex/supervision"
import { FaultyChild, SeededScheduler, TestingError } from "@tinkex/supervision/testing"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"

class Notes extends Actor.make("Notes", {
  init: (_arg: void) => ({ lines: [] as Array<string> }),
  call: {
    all: (self) => [...self.state.lines],
    sleep: (_self, millis: number) => Effect.as(Effect.sleep(millis), millis)
  },
  cast: { add: (self, line: string) => void self.state.lines.push(line) }
}) {}

const startNotes = Effect.map(
  Supervisor.start({ children: [ChildSpec.actor("notes", Notes, undefined)] }),
  (tree) => tree.refs.notes
)

/** Three senders with three messages each; the order in which they were handled. */
const threeSenders = Effect.gen(function* () {
  const notes = yield* startNotes
  const send = (sender: string) => Effect.forEach([0, 1, 2], (n) => notes.cast.add(`${sender}${n}`), { discard: true })
  const senders = yield* Effect.forEach(["a", "b", "c"], (sender) => Effect.forkChild(send(sender)))
  yield* Effect.forEach(senders, Fiber.join)
  return yield* notes.call.all()
})

/** Who came first, of two fibers that write at the same time. */
const race = Effect.gen(function* () {
  const order: Array<string> = []
  const writer = (name: string) => Effect.sync(() => order.push(name))
  yield* Effect.all([Effect.forkChild(writer("a")), Effect.forkChild(writer("b"))])
  yield* SeededScheduler.settle
  return order.join("")
})

const stalledOf = (exit: Exit.Exit<unknown, unknown>) => {
  const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
  return defect instanceof TestingError.TestingError && defect.reason._tag === "Stalled" ? defect.reason : undefined
}

describe("interleavings", () => {
  it.effect("I1, I2: fifty seeds give many orders of three senders, and keep the order of each", () =>
    Effect.gen(function* () {
      const orders = yield* SeededScheduler.explore(threeSenders, { seeds: 50 })
      assert.isAtLeast(new Set(orders.map((order) => order.join(" "))).size, 25)
      for (const order of orders) {
        for (const sender of ["a", "b", "c"]) {
          const own = order.filter((line) => line.startsWith(sender))
          assert.deepStrictEqual(own, [`${sender}0`, `${sender}1`, `${sender}2`])
        }
      }
    })
  )

  it.effect("I1: a seed gives the same steps each time, whatever ran before it", () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < 50; seed++) {
        const first = yield* SeededScheduler.record(seed, threeSenders)
        yield* SeededScheduler.run(seed + 1, threeSenders)
        const second = yield* SeededScheduler.record(seed, threeSenders)
        assert.strictEqual(SeededScheduler.format(second), SeededScheduler.format(first), `seed ${seed}`)
        assert.deepStrictEqual(second.exit, first.exit)
        assert.deepStrictEqual(yield* SeededScheduler.run(seed, threeSenders), first.exit, "recording changes nothing")
      }
    })
  )

  it.effect("I1: two runs at the same time do not disturb each other", () =>
    Effect.gen(function* () {
      const alone = yield* SeededScheduler.record(3, threeSenders)
      const [one, other] = yield* Effect.all(
        [SeededScheduler.record(3, threeSenders), SeededScheduler.record(4, threeSenders)],
        { concurrency: "unbounded" }
      )
      assert.strictEqual(SeededScheduler.format(one), SeededScheduler.format(alone))
      assert.notStrictEqual(SeededScheduler.format(other), SeededScheduler.format(alone))
    })
  )

  it.effect("either of two fibers may be the first, and a fiber may be preempted between two operations", () =>
    Effect.gen(function* () {
      assert.sameMembers(Array.from(new Set(yield* SeededScheduler.explore(race, { seeds: 40 }))), ["ab", "ba"])
      let shared = 0
      const increment = Effect.gen(function* () {
        const seen = yield* Effect.sync(() => shared)
        yield* Effect.sync(() => (shared = seen + 1))
      })
      const lost = Effect.gen(function* () {
        shared = 0
        yield* Effect.all([increment, increment], { concurrency: "unbounded" })
        return shared
      })
      const totals = yield* SeededScheduler.explore(lost, { seeds: 40 })
      assert.sameMembers(Array.from(new Set(totals)), [1, 2], "an update is lost under some seeds only")
    })
  )

  it.effect("seeds beyond 32 bits and below zero are seeds of their own", () =>
    Effect.gen(function* () {
      const texts = yield* Effect.forEach([5, 5 + 2 ** 32, -5], (seed) =>
        Effect.map(SeededScheduler.record(seed, threeSenders), SeededScheduler.format)
      )
      assert.strictEqual(new Set(texts).size, 3)
    })
  )

  it.effect("a recording shows fibers, turns and marks, one step in a line", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const notes = yield* startNotes
        yield* SeededScheduler.mark("sent")
        yield* notes.cast.add("x")
        yield* notes.call.all()
      })
      const recording = yield* SeededScheduler.record(11, program)
      assert.strictEqual(recording.seed, 11)
      assert.strictEqual(recording.steps.flatMap((step) => step.marks).join(), "sent")
      assert.isAtLeast(recording.steps.flatMap((step) => step.turns).length, 2, "the message and the call")
      const text = SeededScheduler.format(recording)
      assert.strictEqual(text.split("\n").length, recording.steps.length)
      assert.match(text, /^0: 0\/1 f1/)
      assert.match(text, /"sent"/)
    })
  )

  it.effect("outside a run, marks and settle are harmless, and there is no seed", () =>
    Effect.gen(function* () {
      yield* SeededScheduler.mark("nothing")
      assert.isUndefined(yield* SeededScheduler.seed)
      let ran = false
      yield* Effect.forkChild(
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => (ran = true))
        )
      )
      yield* SeededScheduler.settle
      assert.isTrue(ran)
      assert.deepStrictEqual(yield* SeededScheduler.run(9, SeededScheduler.seed), Exit.succeed(9))
    })
  )
})

describe("time", () => {
  it.effect("I3: a deadline fires at its time and not before, under every seed", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const notes = yield* startNotes
        const slow = yield* Effect.forkChild(Effect.flip(notes.call.sleep(60_000)))
        yield* TestClock.adjust(4999)
        assert.isUndefined(slow.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.isDefined(slow.pollUnsafe())
        return (yield* Fiber.join(slow)).message
      })
      const messages = yield* SeededScheduler.explore(program, { seeds: 60 })
      assert.strictEqual(new Set(messages).size, 1)
      assert.include(messages[0], "gave no answer within 5s")
    })
  )

  it.effect("I3: a backoff waits for its time and not longer, under every seed", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const worker = FaultyChild.make("worker", {}, { backoff: Backoff.fixed("1 second") })
        const tree = yield* Supervisor.start({ children: [worker.spec] })
        yield* tree.refs.worker.cast.crash()
        yield* TestClock.adjust(999)
        assert.deepStrictEqual(worker.lines, ["1 up", "1 crashed", "1 finalized"])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(worker.lines.slice(3), ["2 up"])
        assert.strictEqual(worker.history.at(-1)?.time, 1000)
      })
      yield* SeededScheduler.explore(program, { seeds: 60 })
    })
  )

  it.effect("I3: sleeps in a chain of fibers end at their instants, however the fibers were delayed before", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const times: Array<number> = []
        const sleeper = (millis: number) =>
          Effect.yieldNow.pipe(
            Effect.repeat({ times: 5 }),
            Effect.andThen(Effect.sleep(millis)),
            Effect.andThen(Clock.currentTimeMillis),
            Effect.andThen((now) => Effect.sync(() => times.push(now)))
          )
        yield* Effect.forEach([30, 10, 20], (millis) => Effect.forkChild(sleeper(millis)))
        yield* TestClock.adjust(30)
        return times
      })
      for (const times of yield* SeededScheduler.explore(program, { seeds: 60 }))
        assert.deepStrictEqual(times, [10, 20, 30])
    })
  )

  it.effect("I4: Random repeats with the seed, in every run of it, and differs between seeds", () =>
    Effect.gen(function* () {
      const draw = Effect.all([Random.next, Random.nextIntBetween(1, 1_000_000)])
      const first = yield* SeededScheduler.run(5, draw)
      assert.deepStrictEqual(yield* SeededScheduler.run(5, draw), first)
      assert.notDeepEqual(yield* SeededScheduler.run(6, draw), first)
    })
  )
})

describe("settle", () => {
  const promised = Effect.promise(async () => {
    for (let hop = 0; hop < 30; hop++) await Promise.resolve()
  })

  it.effect("waits for chains of fibers of any length, and for promises that are settled already", () =>
    Effect.gen(function* () {
      const chain = (length: number): Effect.Effect<void> =>
        length === 0 ? Effect.void : Effect.flatMap(Effect.forkChild(chain(length - 1)), Fiber.join)
      for (const work of [chain(50), promised]) {
        const program = Effect.gen(function* () {
          const working = yield* Effect.forkChild(work)
          yield* SeededScheduler.settle
          return working.pollUnsafe() !== undefined
        })
        const done = yield* SeededScheduler.explore(program, { seeds: 30 })
        assert.deepStrictEqual(new Set(done), new Set([true]))
      }
    })
  )

  it.effect("I3: an adjustment of the clock waits for everything that it sets going, promises included", () =>
    Effect.gen(function* () {
      const program = Effect.gen(function* () {
        const working = yield* Effect.forkChild(Effect.andThen(Effect.sleep("1 second"), promised))
        yield* TestClock.adjust("1 second")
        return working.pollUnsafe() !== undefined
      })
      const done = yield* SeededScheduler.explore(program, { seeds: 30 })
      assert.deepStrictEqual(new Set(done), new Set([true]))
    })
  )
})

describe("ends", () => {
  it.effect("gives the exit of the effect, whatever it is, and closes its scope", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* SeededScheduler.run(1, Effect.succeed(1)), Exit.succeed(1))
      assert.deepStrictEqual(yield* SeededScheduler.run(1, Effect.fail("no")), Exit.fail("no"))
      let closed = false
      const scoped = Effect.addFinalizer(() => Effect.sync(() => (closed = true)))
      yield* SeededScheduler.run(1, scoped)
      assert.isTrue(closed)
    })
  )

  it.effect("an exploration names the seed that failed, what failed, and how to have it again", () =>
    Effect.gen(function* () {
      const seeds: Array<number | undefined> = []
      const picky = Effect.gen(function* () {
        const order = yield* race
        seeds.push(yield* SeededScheduler.seed)
        if (order === "ba") return yield* Effect.die(new Error("b was first"))
      })
      const { reason, message } = yield* Effect.flip(SeededScheduler.explore(picky, { from: 100, seeds: 50 }))
      assert.strictEqual(reason._tag, "SeedFailed")
      if (reason._tag !== "SeedFailed") return
      assert.strictEqual(reason.seed, seeds.at(-1))
      assert.strictEqual(reason.seed, 100 + reason.tried - 1)
      assert.include(message, `SeededScheduler.run(${reason.seed}, effect)`)
      assert.include(message, "b was first")
      assert.isTrue(Exit.isFailure(yield* SeededScheduler.run(reason.seed, picky)), "it fails again under its seed")
    })
  )

  it.effect("I5: an effect that waits for nothing that comes is stalled, and what it had is closed", () =>
    Effect.gen(function* () {
      let closed = false
      const stuck = Effect.onInterrupt(Effect.never, () => Effect.sync(() => (closed = true)))
      const stalled = stalledOf(yield* SeededScheduler.run(1, stuck, { patience: "1 millis" }))
      assert.strictEqual(stalled?.kind, "deadlock")
      assert.isTrue(closed)
      const forgotten = yield* SeededScheduler.run(1, Effect.sleep("1 second"), { patience: "1 millis" })
      assert.include(stalledOf(forgotten)?.message, "a clock that nobody adjusts")
    })
  )

  it.effect("I5: an effect that never waits is stalled, even one that cannot be interrupted", () =>
    Effect.gen(function* () {
      const busy = Effect.forever(Effect.yieldNow)
      const stalled = stalledOf(yield* SeededScheduler.run(1, busy, { maxSteps: 500 }))
      assert.deepStrictEqual([stalled?.kind, stalled?.steps], ["livelock", 500])
      const stubborn = yield* SeededScheduler.run(1, Effect.uninterruptible(busy), { maxSteps: 500 })
      assert.strictEqual(stalledOf(stubborn)?.kind, "livelock")
    })
  )

  it.effect("an effect may wait for something outside", () =>
    Effect.gen(function* () {
      const outside = yield* Deferred.make<string>()
      const waits = yield* Effect.forkChild(SeededScheduler.run(1, Deferred.await(outside)))
      yield* SeededScheduler.settle
      yield* Deferred.succeed(outside, "came")
      assert.deepStrictEqual(yield* Fiber.join(waits), Exit.succeed("came"))
    })
  )

  it.effect("interrupting a run interrupts its effect and waits for the end of it", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const effect = Effect.onInterrupt(Effect.never, () =>
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => log.push("closed"))
        )
      )
      const run = yield* Effect.forkChild(SeededScheduler.run(1, effect))
      yield* SeededScheduler.settle
      yield* Fiber.interrupt(run)
      assert.deepStrictEqual(log, ["closed"])
    })
  )

  it.effect("what was left behind ends before the next run begins, as far as it can", () =>
    Effect.gen(function* () {
      let late = 0
      const leaves = Effect.forkDetach(
        Effect.andThen(
          Effect.repeat(Effect.yieldNow, { times: 50 }),
          Effect.sync(() => late++)
        )
      )
      yield* SeededScheduler.explore(leaves, { seeds: 10 })
      assert.strictEqual(late, 10)
      const endless = Effect.forkDetach(
        Effect.forever(
          Effect.andThen(
            Effect.sync(() => late++),
            Effect.yieldNow
          )
        )
      )
      yield* SeededScheduler.run(1, endless)
      const after = late
      yield* SeededScheduler.settle
      assert.strictEqual(late, after, "what goes on for ever is cut off")
    })
  )
})
