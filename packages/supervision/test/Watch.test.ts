import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  type ActorRef,
  CallError,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Supervisor,
  TaskSupervisor,
  Watch
} from "@tinkex/supervision"
import { Deferred, Effect, Exit, Fiber, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { closable, woundUp } from "./otp/dynamicSupport.ts"
import { pending, settle, witness } from "./support.ts"

const temporary = { restart: "temporary" } as const

const words = (exit: ExitReason.ExitReason | undefined) => (exit === undefined ? "noproc" : ExitReason.format(exit))

const ended = (down: Effect.Effect<Actor.Down>) => Effect.map(down, ({ exit }) => words(exit))

/** Links, watches and ends as it is told; what it hears of is written down. */
const handlers = {
  call: {
    ping: (self: { readonly generation: number }) => self.generation,
    link: (self: Actor.Self<Array<string>>, target: Actor.Watchable) => self.link(target),
    unlink: (self: Actor.Self<Array<string>>, target: Actor.Watchable) => self.unlink(target),
    unwatch: (self: Actor.Self<Array<string>>, target: Actor.Watchable) => self.unwatch(target),
    watch: (self: Actor.Self<Array<string>>, target: Actor.Watchable) =>
      self.watch(target, ({ state }, down) => {
        state.push(`${down.target} ${down.generation} ${words(down.exit)}`)
      }),
    *busy(self: Actor.Self<Array<string>>, gate: Deferred.Deferred<void>) {
      yield* Deferred.await(gate)
      self.state.push("not busy any more")
    }
  },
  cast: {
    end: (self: Actor.Self<Array<string>>, reason: ExitReason.ExitReason) => self.stop(reason),
    crash: () => Effect.die("crash"),
    note: (self: Actor.Self<Array<string>>, text: string) => void self.state.push(text)
  }
}

class Peer extends Actor.make("Peer", { init: (log: Array<string>) => log, ...handlers }) {}

/** The same, with an `exit` handler: it is told instead of ended. */
class Trapping extends Actor.make("Trapping", {
  init: (log: Array<string>) => log,
  ...handlers,
  exit: (self, { exit, from }) => void self.state.push(`${from} ${words(exit)}`)
}) {}

const setup = Effect.gen(function* () {
  const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 1_000_000 } })
  const log: Array<string> = []
  const peer = (id: string, options: ChildSpec.ChildOptions = temporary) =>
    pool.startChild(ChildSpec.actor(id, Peer, log, options))
  const trapping = (id: string) => pool.startChild(ChildSpec.actor(id, Trapping, log, temporary))
  return { pool, log, peer, trapping }
})

const reasons: ReadonlyArray<readonly [ExitReason.ExitReason, string]> = [
  [ExitReason.normal, "normal"],
  [ExitReason.shutdown, "shutdown"],
  [{ _tag: "Shutdown", info: "info" }, "shutdown (info)"],
  [ExitReason.crash("oops"), "crash (oops)"],
  [ExitReason.killed, "killed"]
]

describe("monitor and down", () => {
  it.effect("W1: they tell how the incarnation ended, whatever it is an incarnation of", () =>
    Effect.gen(function* () {
      const { pool, peer } = yield* setup
      for (const [reason, expected] of reasons) {
        const ref = yield* peer("a")
        const monitor = yield* Watch.monitor(ref)
        const down = yield* Effect.forkChild(Watch.down(ref))
        yield* settle
        assert.isTrue(pending(down))
        yield* ref.stopWith(reason)
        const expectation = { target: "supervisor/a", generation: 1, exit: reason }
        assert.deepStrictEqual(yield* monitor.down, expectation, expected)
        assert.deepStrictEqual(yield* Fiber.join(down), expectation)
      }
      const gate = yield* Deferred.make<void, string>()
      const effect = yield* pool.startChild(ChildSpec.effect("effect", Deferred.await(gate), temporary))
      const nested = yield* pool.startChild(ChildSpec.supervisor("nested", { children: [], ...temporary }))
      const dynamic = yield* pool.startChild(DynamicSupervisor.childSpec("dynamic", temporary))
      const monitors = yield* Effect.forEach([effect, nested, dynamic], Watch.monitor)
      yield* Deferred.fail(gate, "failed")
      yield* nested.kill
      yield* pool.terminateChild(dynamic)
      assert.deepStrictEqual(yield* Effect.forEach(monitors, ({ down }) => ended(down)), [
        "crash (failed)",
        "killed",
        "shutdown"
      ])
    })
  )

  it.effect("W1: they tell of the end of a root supervisor too", () =>
    Effect.gen(function* () {
      const { it: tree, close } = yield* closable(Supervisor.start({ children: [] }))
      const monitor = yield* Watch.monitor(tree)
      yield* close
      assert.strictEqual(yield* ended(monitor.down), "shutdown")
      assert.strictEqual(yield* ended(Watch.down(tree)), "noproc")
    })
  )

  it.effect("W1: where there is nothing to watch they say so at once", () =>
    Effect.gen(function* () {
      const { peer } = yield* setup
      const ref = yield* peer("a")
      yield* ref.stop
      yield* settle
      const nothing = { target: "supervisor/a", generation: 1, exit: undefined }
      assert.deepStrictEqual(yield* Watch.down(ref), nothing)
      const monitor = yield* Watch.monitor(ref)
      assert.deepStrictEqual(yield* Effect.all([monitor.down, monitor.down]), [nothing, nothing])
    })
  )

  it.effect("W1: a monitor can be awaited by many, before and after, and always says the same", () =>
    Effect.gen(function* () {
      const { peer } = yield* setup
      const ref = yield* peer("a", { restart: "permanent" })
      const monitor = yield* Watch.monitor(ref)
      const early = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(ended(monitor.down)))
      yield* settle
      yield* Fiber.interrupt(early[0] ?? Effect.runFork(Effect.never))
      yield* ref.cast.end(ExitReason.crash("first"))
      yield* settle
      yield* ref.cast.end(ExitReason.crash("second"))
      yield* settle
      assert.deepStrictEqual(yield* Effect.forEach(early.slice(1), Fiber.join), ["crash (first)", "crash (first)"])
      assert.strictEqual(yield* ended(monitor.down), "crash (first)")
    })
  )

  it.effect("W3: what was stopped watching, by hand or by the end of its scope, hears nothing more", () =>
    Effect.gen(function* () {
      const { peer } = yield* setup
      const ref = yield* peer("a")
      const byHand = yield* Watch.monitor(ref)
      const scope = yield* Scope.make()
      const byScope = yield* Effect.provideService(Watch.monitor(ref), Scope.Scope, scope)
      const waiting = yield* Effect.forEach([byHand, byScope], ({ down }) => Effect.forkChild(down))
      yield* settle
      yield* byHand.demonitor
      yield* Scope.close(scope, Exit.void)
      yield* ref.kill
      yield* settle
      assert.deepStrictEqual(waiting.map(pending), [true, true])
    })
  )

  it.effect("W4: a restart is an end; whoever wants to follow watches again", () =>
    Effect.gen(function* () {
      const { peer } = yield* setup
      const ref = yield* peer("a", { restart: "permanent" })
      const ends: Array<string> = []
      yield* Watch.down(ref).pipe(
        Effect.tap((down) => Effect.sync(() => ends.push(`${down.generation} ${words(down.exit)}`))),
        Effect.andThen(settle),
        Effect.repeat({ times: 2 }),
        Effect.forkChild({ startImmediately: true })
      )
      for (const text of ["x", "y", "z"]) {
        yield* ref.cast.end(ExitReason.crash(text))
        yield* Effect.andThen(settle, settle)
      }
      assert.deepStrictEqual(ends, ["1 crash (x)", "2 crash (y)", "3 crash (z)"])
    })
  )

  it.effect("the handle of one incarnation is not that of the next", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const ref = yield* peer("a", { restart: "permanent" })
      const other = yield* peer("other")
      const first = yield* ref.incarnation
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* ended(Watch.down(first)), "noproc")
      assert.strictEqual((yield* Effect.flip(Watch.link(first)(Effect.never))).reason._tag, "NoProcess")
      yield* other.call.watch(first)
      yield* settle
      assert.deepStrictEqual(log, ["supervisor/a 2 noproc"])
      const second = yield* ref.incarnation
      const monitor = yield* Watch.monitor(second)
      yield* ref.kill
      assert.strictEqual(yield* ended(monitor.down), "killed")
    })
  )

  it.effect("finalizers come first: an end is told when nothing is left", () =>
    Effect.gen(function* () {
      yield* woundUp
      class Slow extends Actor.make("Slow", {
        *init(_arg: void) {
          yield* Effect.addFinalizer(() => Effect.sleep("2 seconds"))
          return 0
        }
      }) {}
      const ref = yield* Actor.start(Slow, undefined)
      const down = yield* Effect.forkChild(ended(Watch.down(ref)))
      yield* settle
      yield* ref.kill
      yield* TestClock.adjust(1999)
      yield* settle
      assert.isTrue(pending(down))
      assert.strictEqual(yield* ended(Watch.down(ref)), "noproc", "it can no longer be watched")
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(down), "killed")
    })
  )

  it.effect("whoever watches a sibling that was to be started again, and is not, hears of it", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let starts = 0
      const wayward = Effect.suspend(() =>
        ++starts === 1
          ? Effect.andThen(ChildSpec.ready, Effect.never)
          : Effect.andThen(Deferred.await(gate), Effect.fail("no"))
      )
      const tree = yield* Supervisor.start({
        strategy: "one_for_all",
        intensity: { restarts: 1 },
        children: [ChildSpec.effect("first", wayward, { readiness: "signalled" }), witness("second", [])]
      })
      yield* tree.refs.first.kill
      yield* settle
      const down = yield* Effect.forkChild(ended(Watch.down(tree.refs.second)))
      yield* settle
      assert.isTrue(pending(down))
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(down), "shutdown")
    })
  )
})

describe("link of a fiber", () => {
  const linked = (target: Watch.Watchable, log: Array<string>) =>
    Effect.never.pipe(
      Effect.onInterrupt(() => Effect.sync(() => log.push("interrupted"))),
      Watch.link(target),
      Effect.exit,
      Effect.forkChild({ startImmediately: true })
    )

  for (const [reason, expected] of reasons.slice(1)) {
    it.effect(`an end with ${expected} interrupts the effect, which fails with it`, () =>
      Effect.gen(function* () {
        const { log, peer } = yield* setup
        const ref = yield* peer("a")
        const fiber = yield* linked(ref, log)
        yield* ref.stopWith(reason)
        const error = Option.getOrThrow(Exit.findErrorOption(yield* Fiber.join(fiber)))
        assert.deepStrictEqual(
          error.reason,
          new CallError.TargetExit({ target: "supervisor/a", operation: "link", exit: reason })
        )
        assert.deepStrictEqual(log, ["interrupted"])
      })
    )
  }

  it.effect("a normal end concerns nobody, and the effect goes on", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const ref = yield* peer("a")
      const fiber = yield* linked(ref, log)
      yield* ref.stop
      yield* settle
      assert.isTrue(pending(fiber))
    })
  )

  it.effect("to nobody fails at once, and the effect is not run", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const ref = yield* peer("a")
      yield* ref.stop
      const fiber = yield* linked(ref, log)
      yield* settle
      const error = Option.getOrThrow(Exit.findErrorOption(yield* Fiber.join(fiber)))
      assert.strictEqual(error.reason._tag, "NoProcess")
      assert.deepStrictEqual(log, [])
    })
  )

  it.effect("what the effect ends with is its result, and ends the target too, except success", () =>
    Effect.gen(function* () {
      const { peer, pool } = yield* setup
      const one = yield* peer("one")
      assert.strictEqual(yield* Watch.link(one)(Effect.succeed(1)), 1)
      assert.strictEqual(yield* one.call.ping(), 1)

      const monitor = yield* Watch.monitor(one)
      const failing = Effect.andThen(Effect.yieldNow, Effect.fail("failed"))
      assert.strictEqual(yield* Effect.flip(Watch.link(one)(failing)), "failed")
      assert.strictEqual(yield* ended(monitor.down), "crash (failed)")

      const two = yield* pool.startChild(ChildSpec.effect("two", Effect.never, temporary))
      const second = yield* Watch.monitor(two)
      const fiber = yield* Effect.never.pipe(Watch.link(two), Effect.forkChild({ startImmediately: true }))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* ended(second.down), "killed")
    })
  )

  it.effect("a target that traps exits is told, and a supervisor does not mind", () =>
    Effect.gen(function* () {
      const { log, pool, trapping } = yield* setup
      const told = yield* trapping("told")
      yield* Effect.flip(Watch.link(told)(Effect.fail("failed")))
      yield* settle
      assert.lengthOf(log, 1)
      assert.match(log[0] ?? "", /^fiber \d+ crash \(failed\)$/)
      yield* Effect.flip(Watch.link(pool)(Effect.fail("failed")))
      yield* settle
      assert.strictEqual((yield* pool.snapshot).status, "running")
    })
  )

  for (const when of ["while that starts", "when that is up"]) {
    it.effect(`an effect that is slow to end does not hit the target's successor, ${when}`, () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const startGate = yield* Deferred.make<void>()
        let starts = 0
        const up = Effect.andThen(ChildSpec.ready, Effect.never)
        const work = Effect.suspend(() => (++starts === 1 ? up : Effect.andThen(Deferred.await(startGate), up)))
        const pool = yield* DynamicSupervisor.start()
        const ref = yield* pool.startChild(ChildSpec.effect("it", work, { readiness: "signalled" }))
        const fiber = yield* Effect.uninterruptible(Effect.andThen(Deferred.await(gate), Effect.fail("late"))).pipe(
          Watch.link(ref),
          Effect.exit,
          Effect.forkChild({ startImmediately: true })
        )
        yield* ref.kill
        yield* settle
        if (when === "when that is up") yield* Deferred.succeed(startGate, undefined)
        yield* settle
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(fiber)
        yield* Deferred.succeed(startGate, undefined)
        yield* settle
        assert.strictEqual(starts, 2)
        assert.deepStrictEqual(
          (yield* pool.whichChildren).map(({ generation, status }) => [generation, status]),
          [[2, "running"]]
        )
      })
    )
  }

  it.effect("a link that is made while the target starts again holds for the incarnation that comes up", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let starts = 0
      class Late extends Actor.make("Late", {
        init: (_arg: void) => (++starts === 2 ? Effect.as(Deferred.await(gate), 0) : 0),
        call: { ping: (self) => self.generation }
      }) {}
      const pool = yield* DynamicSupervisor.start()
      const ref = yield* pool.startChild(ChildSpec.actor("it", Late, undefined))
      yield* ref.kill
      yield* settle
      const failing = yield* Deferred.make<never, string>()
      const fiber = yield* Deferred.await(failing).pipe(
        Watch.link(ref),
        Effect.exit,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* ref.call.ping(), 2)
      yield* Deferred.fail(failing, "failed")
      assert.deepStrictEqual(yield* Fiber.join(fiber), Exit.fail("failed"))
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), 3, "it ended with the effect, and came back")
    })
  )
})

describe("self.watch", () => {
  it.effect("tells once, with target, generation and reason", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const watcher = yield* peer("watcher")
      for (const [reason, expected] of reasons) {
        const ref = yield* peer("a")
        yield* watcher.call.watch(ref)
        yield* watcher.call.watch(ref)
        yield* ref.stopWith(reason)
        yield* settle
        assert.deepStrictEqual(log.splice(0), [`supervisor/a 1 ${expected}`])
      }
      const gone = yield* peer("gone")
      yield* gone.stop
      yield* watcher.call.watch(gone)
      yield* settle
      assert.deepStrictEqual(log, ["supervisor/gone 1 noproc"])
    })
  )

  it.effect("W3: unwatch takes back the notice, also one that waits in the mailbox", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const watcher = yield* peer("watcher")
      const [early, late, kept] = [yield* peer("early"), yield* peer("late"), yield* peer("kept")]
      for (const ref of [early, late, kept]) yield* watcher.call.watch(ref)
      yield* watcher.call.unwatch(early)
      yield* early.kill
      const gate = yield* Deferred.make<void>()
      yield* Effect.forkChild(watcher.call.busy(gate))
      yield* settle
      const unwatch = yield* Effect.forkChild(watcher.call.unwatch(late))
      yield* settle
      yield* late.kill
      yield* kept.kill
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(unwatch)
      yield* settle
      assert.deepStrictEqual(log, ["not busy any more", "supervisor/kept 1 killed"])
    })
  )

  it.effect("W2: the notice is handled in turn with the messages, after those that were there before", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const watcher = yield* peer("watcher")
      const ref = yield* peer("a")
      yield* watcher.call.watch(ref)
      const gate = yield* Deferred.make<void>()
      yield* Effect.forkChild(watcher.call.busy(gate))
      yield* settle
      yield* watcher.cast.note("before")
      yield* ref.kill
      yield* watcher.cast.note("after")
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(log, ["not busy any more", "before", "supervisor/a 1 killed", "after"])
    })
  )

  it.effect("what it runs may be a plain function, an effect or a generator, and a failure in it is a crash", () =>
    Effect.gen(function* () {
      const { pool, peer } = yield* setup
      const seen: Array<string> = []
      class Watcher extends Actor.make("Watcher", {
        init: (_arg: void) => 0,
        call: {
          plain: (self, target: Actor.Watchable) => self.watch(target, () => void seen.push("plain")),
          effect: (self, target: Actor.Watchable) =>
            self.watch(target, () =>
              Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => seen.push("effect"))
              )
            ),
          generator: (self, target: Actor.Watchable) =>
            self.watch(target, function* (self, { exit }) {
              yield* Effect.yieldNow
              seen.push(`generator ${words(exit)} ${self.generation}`)
            }),
          failing: (self, target: Actor.Watchable) => self.watch(target, () => Effect.fail("in the notice")),
          ping: (self) => self.generation
        }
      }) {}
      const watcher = yield* pool.startChild(ChildSpec.actor("watcher", Watcher, undefined))
      for (const how of ["plain", "effect", "generator", "failing"] as const) {
        const ref = yield* peer("a")
        yield* watcher.call[how](ref)
        yield* ref.kill
        yield* settle
      }
      assert.deepStrictEqual(seen, ["plain", "effect", "generator killed 1"])
      assert.strictEqual(yield* watcher.call.ping(), 2)
    })
  )

  it.effect("the notice of an incarnation does not reach the next one", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const watcher = yield* peer("watcher", { restart: "permanent" })
      const ref = yield* peer("a")
      yield* watcher.call.watch(ref)
      yield* watcher.cast.crash()
      yield* settle
      assert.strictEqual(yield* watcher.call.ping(), 2)
      yield* ref.kill
      yield* settle
      assert.deepStrictEqual(log, [])
    })
  )

  it.effect("works across trees", () =>
    Effect.gen(function* () {
      const { log, peer } = yield* setup
      const other = yield* TaskSupervisor.start({ name: "other" })
      const task = yield* other.asyncNolink(Effect.never)
      const watcher = yield* peer("watcher")
      yield* watcher.call.watch(task)
      yield* other.terminateChild(task)
      yield* settle
      assert.deepStrictEqual(log, ["other/task 1 shutdown"])
    })
  )
})

describe("self.link", () => {
  for (const [reason, expected] of reasons) {
    const clean = reason._tag === "Normal"
    it.effect(
      `an end with ${expected} ${clean ? "does not end the other" : "ends the other with the same reason"}`,
      () =>
        Effect.gen(function* () {
          const { peer } = yield* setup
          for (const direction of ["from one to the other", "the other way round"]) {
            const [one, other] = [yield* peer("one"), yield* peer("other")]
            yield* one.call.link(other)
            const [ending, following] = direction === "from one to the other" ? [one, other] : [other, one]
            const down = yield* Effect.forkChild(ended(Watch.down(following)))
            yield* settle
            yield* ending.stopWith(reason)
            yield* settle
            if (clean) assert.strictEqual(yield* following.call.ping(), 1, direction)
            else assert.strictEqual(yield* Fiber.join(down), expected, direction)
            yield* following.kill
          }
        })
    )
  }

  it.effect("one that traps exits is told of every end, also a normal one, and lives on", () =>
    Effect.gen(function* () {
      const { log, peer, trapping } = yield* setup
      const told = yield* trapping("told")
      for (const [reason] of reasons) {
        const ref = yield* peer("a")
        yield* told.call.link(ref)
        yield* ref.stopWith(reason)
        yield* settle
      }
      assert.deepStrictEqual(
        log,
        reasons.map(([, expected]) => `supervisor/a ${expected}`)
      )
      assert.strictEqual(yield* told.call.ping(), 1)
      const monitor = yield* Watch.monitor(told)
      yield* told.kill
      assert.strictEqual(yield* ended(monitor.down), "killed", "a kill is not trapped")
    })
  )

  it.effect("a link to nobody ends the one who made it, or is told", () =>
    Effect.gen(function* () {
      const { log, peer, trapping } = yield* setup
      const gone = yield* peer("gone")
      yield* gone.stop
      const one = yield* peer("one")
      const monitor = yield* Watch.monitor(one)
      yield* one.call.link(gone)
      assert.strictEqual(yield* ended(monitor.down), "crash (no process)")
      const told = yield* trapping("told")
      yield* told.call.link(gone)
      yield* settle
      assert.deepStrictEqual(log, ["supervisor/gone crash (no process)"])
    })
  )

  it.effect("a second link to the same is the first; a link to itself is none", () =>
    Effect.gen(function* () {
      const { log, peer, trapping } = yield* setup
      const told = yield* trapping("told")
      const ref = yield* peer("a")
      yield* told.call.link(ref)
      yield* told.call.link(ref)
      yield* ref.call.link(told)
      yield* told.call.link(told)
      yield* ref.kill
      yield* settle
      assert.deepStrictEqual(log, ["supervisor/a killed"])
    })
  )

  it.effect("a link ends with the incarnation on either side; the successors are not linked", () =>
    Effect.gen(function* () {
      const { peer } = yield* setup
      const permanent = { restart: "permanent" } as const
      const [one, other] = [yield* peer("one", permanent), yield* peer("other", permanent)]
      yield* one.call.link(other)
      yield* one.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* Effect.all([one.call.ping(), other.call.ping()]), [2, 2])
      yield* one.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* Effect.all([one.call.ping(), other.call.ping()]), [3, 2])
      yield* other.call.link(one)
      yield* one.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* Effect.all([one.call.ping(), other.call.ping()]), [4, 3])
    })
  )

  it.effect("both ends at the same time: each ends once, and the successors are left alone", () =>
    Effect.gen(function* () {
      const { peer } = yield* setup
      const permanent = { restart: "permanent" } as const
      const [one, other] = [yield* peer("one", permanent), yield* peer("other", permanent)]
      yield* one.call.link(other)
      yield* Effect.all([one.kill, other.kill])
      yield* settle
      assert.deepStrictEqual(yield* Effect.all([one.call.ping(), other.call.ping()]), [2, 2])
    })
  )

  it.effect("a caller learns that its actor ended with what that was linked to", () =>
    Effect.gen(function* () {
      const { peer } = yield* setup
      const [one, other] = [yield* peer("one"), yield* peer("other")]
      yield* one.call.link(other)
      const gate = yield* Deferred.make<void>()
      const caller = yield* Effect.forkChild(Effect.flip(one.call.busy(gate)))
      yield* settle
      yield* other.stopWith(ExitReason.crash("far away"))
      const { reason } = yield* Fiber.join(caller)
      assert.isTrue(reason._tag === "TargetExit" && words(reason.exit) === "crash (far away)")
    })
  )

  it.effect("an effect child ends with the reason too; a supervisor does not mind, but its end is told", () =>
    Effect.gen(function* () {
      const { pool, peer } = yield* setup
      const one = yield* peer("one")
      const effect = yield* pool.startChild(ChildSpec.effect("effect", Effect.never, temporary))
      const nested = yield* pool.startChild(ChildSpec.supervisor("nested", { children: [], ...temporary }))
      yield* one.call.link(effect)
      yield* one.call.link(nested)
      const monitor = yield* Watch.monitor(effect)
      yield* one.stopWith(ExitReason.crash("oops"))
      assert.strictEqual(yield* ended(monitor.down), "crash (oops)")
      yield* settle
      assert.strictEqual((yield* nested.snapshot).status, "running")
      const other = yield* peer("other")
      yield* other.call.link(nested)
      const end = yield* Watch.monitor(other)
      yield* pool.terminateChild(nested)
      assert.strictEqual(yield* ended(end.down), "shutdown")
    })
  )

  const many = 10_000

  const crowd = (count: number) =>
    Effect.gen(function* () {
      const { pool, peer } = yield* setup
      const refs = yield* Effect.forEach(Array.from({ length: count }), (_, n) => peer(`p${n}`))
      const at = (n: number) => refs[n] ?? assert.fail("no such peer")
      return { pool, refs, at }
    })

  const gone = (pool: DynamicSupervisor.DynamicSupervisorRef) =>
    settle.pipe(
      Effect.andThen(pool.countChildren),
      Effect.repeat({ until: ({ specs }) => specs === 0, times: 100 }),
      Effect.map(({ specs }) => specs)
    )

  const linkAll = (pairs: Iterable<readonly [ActorRef.ActorRef<typeof Peer>, ActorRef.ActorRef<typeof Peer>]>) =>
    Effect.forEach(pairs, ([one, other]) => one.call.link(other), { discard: true })

  it.effect("a chain of 10,000 links ends link by link, to its last, without a deep stack", () =>
    Effect.gen(function* () {
      const { at, pool, refs } = yield* crowd(many)
      yield* linkAll(refs.slice(1).map((ref, n) => [ref, at(n)] as const))
      const last = yield* Watch.monitor(at(many - 1))
      yield* at(0).stopWith(ExitReason.crash("the first"))
      assert.strictEqual(yield* ended(last.down), "crash (the first)")
      assert.strictEqual(yield* gone(pool), 0)
    })
  )

  it.effect("10,000 links to one, and a ring of 10,000, end as a whole", () =>
    Effect.gen(function* () {
      const star = yield* crowd(many)
      yield* linkAll(star.refs.slice(1).map((ref) => [ref, star.at(0)] as const))
      yield* star.at(many - 1).kill
      assert.strictEqual(yield* gone(star.pool), 0)
      const ring = yield* crowd(many)
      yield* linkAll(ring.refs.map((ref, n) => [ref, ring.at((n + 1) % many)] as const))
      yield* ring.at(4711).kill
      assert.strictEqual(yield* gone(ring.pool), 0)
    })
  )
})
