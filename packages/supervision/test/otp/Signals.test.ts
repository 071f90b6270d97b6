import { assert, describe, it } from "@effect/vitest"
import { Actor, type ActorRef, ChildSpec, DynamicSupervisor, ExitReason, Registry, Watch } from "@tinkex/supervision"
import { Deferred, Effect, Fiber } from "effect"
import { settle } from "../support.ts"

const temporary = { restart: "temporary" } as const

/** Writes down what arrives, in the order in which it is handled. */
class Receiver extends Actor.make("Receiver", {
  init: (log: Array<string>) => ({ log }),
  call: {
    link: (self, target: Actor.Watchable) => self.link(target),
    unlink: (self, target: Actor.Watchable) => self.unlink(target),
    watch: (self, target: Actor.Watchable) =>
      self.watch(target, (self, { exit }) => {
        self.state.log.push(`down ${exit === undefined ? "noproc" : ExitReason.format(exit)}`)
      }),
    *busy(_self, gate: Deferred.Deferred<void>) {
      yield* Deferred.await(gate)
    }
  },
  cast: {
    note: (self, text: string) => {
      self.state.log.push(text)
    }
  },
  exit: (self, { exit }) => {
    self.state.log.push(`exit ${ExitReason.format(exit)}`)
  }
}) {}

interface Burst {
  readonly to: ReadonlyArray<ActorRef.ActorRef<typeof Receiver>>
  readonly last: "stop" | "crash" | "kill itself" | "nothing"
}

/** Sends a burst of messages, and then ends. */
class Sender extends Actor.make("Sender", {
  init: (_arg: void) => 0,
  cast: {
    *burst(self, { last, to }: Burst) {
      for (let n = 1; n <= 5; n++) for (const receiver of to) yield* receiver.cast.note(`message ${n}`)
      if (last === "stop") self.stop({ _tag: "Shutdown", info: "done" })
      if (last === "crash") yield* Effect.die("crash")
      if (last === "kill itself") yield* Effect.interrupt
    }
  }
}) {}

const messages = ["message 1", "message 2", "message 3", "message 4", "message 5"]

const setup = Effect.gen(function* () {
  const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 100 } })
  const log: Array<string> = []
  const receiver = yield* pool.startChild(ChildSpec.actor("receiver", Receiver, log))
  const sender = yield* pool.startChild(ChildSpec.actor("sender", Sender, undefined, temporary))
  return { pool, log, receiver, sender }
})

const endings = [
  ["stop", "shutdown (done)"],
  ["crash", "crash (crash)"],
  ["kill itself", "killed"]
] as const

describe("signals", () => {
  for (const [last, words] of endings) {
    it.effect(
      `SI-01 messages and the exit of one sender arrive in the order in which they were sent, after ${last}`,
      () =>
        Effect.gen(function* () {
          const { log, receiver, sender } = yield* setup
          yield* receiver.call.link(sender)
          yield* sender.cast.burst({ to: [receiver], last })
          yield* settle
          assert.deepStrictEqual(log, [...messages, `exit ${words}`])
        })
    )
  }

  it.effect("SI-01 a request to stop is behind the messages that were sent before it", () =>
    Effect.gen(function* () {
      const { log, receiver } = yield* setup
      const gate = yield* Deferred.make<void>()
      yield* Effect.forkChild(receiver.call.busy(gate))
      yield* settle
      for (const message of messages) yield* receiver.cast.note(message)
      const stop = yield* Effect.forkChild(receiver.stop)
      yield* settle
      yield* receiver.cast.note("too late for this incarnation")
      assert.deepStrictEqual(log, [])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(stop)
      assert.deepStrictEqual(log, messages)
    })
  )

  it.effect("SI-03 after an unlink no exit of that one arrives, neither as an end nor as a message", () =>
    Effect.gen(function* () {
      const { log, receiver, sender } = yield* setup
      yield* receiver.call.link(sender)
      yield* receiver.call.unlink(sender)
      yield* sender.kill
      yield* settle
      assert.deepStrictEqual(log, [])
    })
  )

  it.effect("SI-03 an unlink also takes back the exit that waits in the mailbox", () =>
    Effect.gen(function* () {
      const { log, pool, receiver, sender } = yield* setup
      const other = yield* pool.startChild(ChildSpec.actor("other", Sender, undefined, temporary))
      yield* receiver.call.link(sender)
      yield* receiver.call.link(other)
      const gate = yield* Deferred.make<void>()
      const busy = yield* Effect.forkChild(receiver.call.busy(gate))
      const unlink = yield* Effect.forkChild(receiver.call.unlink(sender))
      yield* settle
      yield* sender.cast.burst({ to: [], last: "crash" })
      yield* other.cast.burst({ to: [], last: "stop" })
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.all([Fiber.join(busy), Fiber.join(unlink)])
      yield* settle
      assert.deepStrictEqual(log, ["exit shutdown (done)"], "of the other one it does arrive")
    })
  )

  it.effect("SI-03 an unlink in the very turn in which the other one ends is in time", () =>
    Effect.gen(function* () {
      const { pool, sender } = yield* setup
      class Cutting extends Actor.make("Cutting", {
        init: (_arg: void) => 0,
        call: {
          *cut(self, target: typeof sender) {
            self.link(target)
            yield* target.kill
            self.unlink(target)
          },
          cutNobody: (self, target: typeof sender) => {
            self.link(target)
            self.unlink(target)
          },
          generation: (self) => self.generation
        }
      }) {}
      const cutting = yield* pool.startChild(ChildSpec.actor("cutting", Cutting, undefined))
      yield* cutting.call.cut(sender)
      yield* settle
      assert.strictEqual(yield* cutting.call.generation(), 1, "one that is not told ends")
      yield* cutting.call.cutNobody(sender)
      yield* settle
      assert.strictEqual(yield* cutting.call.generation(), 1)
    })
  )

  it.effect("SI-03 a link that is made anew after an unlink holds", () =>
    Effect.gen(function* () {
      const { log, receiver, sender } = yield* setup
      yield* receiver.call.link(sender)
      yield* receiver.call.unlink(sender)
      yield* receiver.call.link(sender)
      yield* sender.kill
      yield* settle
      assert.deepStrictEqual(log, ["exit killed"])
    })
  )

  it.effect("SI-03 a link to the next incarnation holds, although the exit of the one before still waits", () =>
    Effect.gen(function* () {
      const { log, pool, receiver } = yield* setup
      const sender = yield* pool.startChild(ChildSpec.actor("permanent", Sender, undefined))
      yield* receiver.call.link(sender)
      const gate = yield* Deferred.make<void>()
      yield* Effect.forkChild(receiver.call.busy(gate))
      yield* settle
      const again = yield* Effect.forkChild(receiver.call.link(sender))
      yield* settle
      yield* sender.cast.burst({ to: [], last: "crash" })
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(again)
      yield* settle
      assert.deepStrictEqual(log, ["exit crash (crash)"])
      yield* sender.cast.burst({ to: [], last: "stop" })
      yield* settle
      assert.deepStrictEqual(log, ["exit crash (crash)", "exit shutdown (done)"])
    })
  )

  for (const [last, words] of endings) {
    it.effect(`SI-04 every monitor of one sender fires after the messages that it sent before, after ${last}`, () =>
      Effect.gen(function* () {
        const { log, pool, receiver, sender } = yield* setup
        const logs = [log, [], []] as ReadonlyArray<Array<string>>
        const others = yield* Effect.forEach(logs.slice(1), (log, n) =>
          pool.startChild(ChildSpec.actor(`receiver ${n}`, Receiver, log))
        )
        const to = [receiver, ...others]
        for (const one of to.toReversed()) yield* one.call.watch(sender)
        yield* sender.cast.burst({ to, last })
        yield* settle
        for (const log of logs) assert.deepStrictEqual(log, [...messages, `down ${words}`])
      })
    )
  }

  it.effect("SI-04 the monitors of one process fire in the order in which they were made", () =>
    Effect.gen(function* () {
      const { sender } = yield* setup
      const order: Array<number> = []
      for (const n of [1, 2, 3, 4]) {
        yield* Watch.down(sender).pipe(
          Effect.andThen(Effect.sync(() => order.push(n))),
          Effect.forkChild({ startImmediately: true })
        )
      }
      yield* sender.kill
      yield* settle
      assert.deepStrictEqual(order, [1, 2, 3, 4])
    })
  )

  it.effect("SI-05 watching by name, and then sending by name, keeps the order", () =>
    Effect.gen(function* () {
      const { log, pool, receiver } = yield* setup
      const names = yield* Registry.make(Sender)
      yield* pool.startChild(
        ChildSpec.actor("named", Sender, undefined, { ...temporary, names: [names.name("sender", undefined)] })
      )
      const sender = names.ref("sender")
      const monitor = yield* Watch.monitor(sender)
      yield* receiver.call.watch(sender)
      yield* sender.cast.burst({ to: [receiver], last: "nothing" })
      yield* sender.cast.burst({ to: [receiver], last: "crash" })
      yield* settle
      assert.deepStrictEqual(log, [...messages, ...messages, "down crash (crash)"])
      assert.deepInclude(yield* monitor.down, { target: "supervisor/named", generation: 1 })
      yield* receiver.call.watch(sender)
      yield* settle
      assert.strictEqual(log.at(-1), "down noproc", "the name is nobody's any more")
      assert.deepStrictEqual(yield* Watch.down(sender), { target: "sender", generation: 0, exit: undefined })
    })
  )
})
