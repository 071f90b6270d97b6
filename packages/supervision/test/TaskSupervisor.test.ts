import { assert, describe, it } from "@effect/vitest"
import { Actor, CallError, ChildSpec, ExitReason, Supervisor, TaskSupervisor } from "@tinkex/supervision"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { census, closable, counts, refusal, woundUp } from "./otp/dynamicSupport.ts"
import { pending, record, settle, tags } from "./support.ts"

const interrupted = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)

const reasonOf = <A, E>(exit: Exit.Exit<A, E | CallError.CallError>) => {
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  return error instanceof CallError.CallError ? error.reason : undefined
}

const none = counts(0, 0, 0, 0)

describe("async", () => {
  const crashes = {
    "a typed failure": Effect.fail("no good"),
    "a defect": Effect.die("defect"),
    "an interruption by a stranger": Effect.interrupt
  }

  for (const [words, crash] of Object.entries(crashes)) {
    it.effect(`T2: ${words} while the owner does something else interrupts it; its finalizers run`, () =>
      Effect.gen(function* () {
        const tasks = yield* TaskSupervisor.start()
        const gate = yield* Deferred.make<void>()
        const log: Array<string> = []
        const owner = yield* Effect.scoped(
          Effect.gen(function* () {
            yield* Effect.addFinalizer(() => Effect.sync(() => log.push("finalized")))
            yield* tasks.async(Effect.andThen(Deferred.await(gate), crash))
            yield* tasks.async(
              Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("other task stopped")))
            )
            log.push("working")
            yield* Effect.never
          })
        ).pipe(Effect.forkChild)
        yield* settle
        assert.deepStrictEqual(log, ["working"])
        yield* Deferred.succeed(gate, undefined)
        assert.isTrue(interrupted(yield* Fiber.await(owner)))
        assert.deepStrictEqual(log, ["working", "other task stopped", "finalized"])
        assert.deepStrictEqual(yield* tasks.countChildren, none)
      })
    )
  }

  it.effect("T2: waiting for one task is no protection against the crash of another", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<void>()
      const owner = yield* Effect.scoped(
        Effect.gen(function* () {
          const waitedFor = yield* tasks.async(Effect.never)
          yield* tasks.async(Effect.andThen(Deferred.await(gate), Effect.fail("no good")))
          return yield* waitedFor.await
        })
      ).pipe(Effect.forkChild)
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      assert.isTrue(interrupted(yield* Fiber.await(owner)))
      assert.deepStrictEqual(yield* tasks.countChildren, none)
    })
  )

  it.effect("T2: who awaits it gets the failure, may handle it, and goes on", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<void>()
      const owner = yield* Effect.scoped(
        Effect.gen(function* () {
          const task = yield* tasks.async(Effect.andThen(Deferred.await(gate), Effect.fail("no good")))
          const error = yield* Effect.flip(task.await)
          yield* Effect.yieldNow
          return `handled ${String(error)}`
        })
      ).pipe(Effect.forkChild)
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(owner), "handled no good")
    })
  )

  it.effect("T2: the same for a task that crashes at once, before its owner could await it", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      for (const crash of [Effect.fail("no good"), Effect.andThen(Effect.yieldNow, Effect.fail("no good"))]) {
        const awaiting = yield* Effect.scoped(
          Effect.flatMap(tasks.async(crash), (task) => Effect.flip(task.await))
        ).pipe(Effect.forkChild)
        assert.strictEqual(yield* Fiber.join(awaiting), "no good")
      }
      const log: Array<string> = []
      const going = Effect.andThen(tasks.async(Effect.fail("no good")), Effect.yieldNow)
      const on = yield* Effect.forkChild(
        Effect.scoped(
          Effect.andThen(
            going,
            Effect.sync(() => log.push("went on"))
          )
        )
      )
      assert.isTrue(interrupted(yield* Fiber.await(on)))
      const leaving = Effect.scoped(Effect.asVoid(tasks.async(Effect.fail("no good"))))
      const left = yield* Effect.forkChild(
        Effect.andThen(
          leaving,
          Effect.sync(() => log.push("left"))
        )
      )
      assert.isTrue(interrupted(yield* Fiber.await(left)), "leaving its scope is no way to overlook it")
      assert.deepStrictEqual(log, [])
    })
  )

  it.effect("T2: an owner that cannot be interrupted just now is interrupted as soon as it can be", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<void>()
      const release = yield* Deferred.make<void>()
      const log: Array<string> = []
      const owner = yield* Effect.scoped(
        Effect.gen(function* () {
          yield* tasks.async(Effect.andThen(Deferred.await(gate), Effect.fail("no good")))
          yield* Effect.uninterruptible(
            Effect.andThen(
              Deferred.await(release),
              Effect.sync(() => log.push("finished what must be finished"))
            )
          )
          log.push("went on as if nothing had happened")
        })
      ).pipe(Effect.forkChild)
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.isTrue(pending(owner))
      yield* Deferred.succeed(release, undefined)
      assert.isTrue(interrupted(yield* Fiber.await(owner)))
      assert.deepStrictEqual(log, ["finished what must be finished"])
    })
  )

  it.effect("T1: a task does not outlive the scope in which it was started, and its end there is a shutdown", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const log: Array<string> = []
      const work = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("stopped")))
      const [linked, free] = yield* Effect.scoped(Effect.all([tasks.async(work), tasks.asyncNolink(work)]))
      assert.deepStrictEqual(log, ["stopped", "stopped"])
      for (const task of [linked, free]) {
        const reason = reasonOf(yield* Effect.exit(task.await))
        assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Shutdown")
      }
      assert.deepStrictEqual(yield* tasks.countChildren, none)
      const detached = yield* tasks.startChild(work)
      assert.deepStrictEqual(yield* tasks.countChildren, counts(1, 1, 0, 1), "one that nobody owns does")
      yield* tasks.terminateChild(detached)
    })
  )

  it.effect("T1: closing the scope waits for the finalizers of its tasks, within their limit", () =>
    Effect.gen(function* () {
      yield* woundUp
      const tasks = yield* TaskSupervisor.start()
      const events = yield* record(tasks.events)
      const scope = yield* Scope.make()
      const start = (seconds: number) =>
        tasks.asyncNolink(Effect.ensuring(Effect.never, Effect.sleep(seconds * 1000)), { shutdown: "2 seconds" })
      yield* Effect.provideService(start(1), Scope.Scope, scope)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* settle
      assert.isTrue(pending(closing))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closing)
      const other = yield* Scope.make()
      yield* Effect.provideService(start(60), Scope.Scope, other)
      const late = yield* Effect.forkChild(Scope.close(other, Exit.void))
      yield* settle
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(late)
      yield* settle
      assert.include(tags(events), "Zombie task")
    })
  )

  it.effect("T3: a result is settled once, whatever is done with the task later", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      let runs = 0
      const task = yield* tasks.asyncNolink(Effect.sync(() => ++runs))
      assert.deepStrictEqual(yield* Effect.all([task.await, task.await]), [1, 1])
      assert.deepStrictEqual(yield* task.shutdown, Option.some(Exit.succeed(1)))
      assert.strictEqual(yield* refusal(tasks.terminateChild(task)), "NotFound")
      assert.strictEqual(yield* task.await, 1)
      assert.strictEqual(runs, 1)
    })
  )

  it.effect("shutdown stops a task that runs, and returns what one that has ended ended with", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const runs = yield* tasks.asyncNolink(Effect.never)
      assert.deepStrictEqual(yield* runs.shutdown, Option.none())
      assert.strictEqual(reasonOf(yield* Effect.exit(runs.await))?._tag, "TargetExit")
      const gate = yield* Deferred.make<number, string>()
      const ends = yield* tasks.asyncNolink(Deferred.await(gate))
      yield* Deferred.fail(gate, "just in time")
      assert.deepStrictEqual(yield* ends.shutdown, Option.some(Exit.fail("just in time")))
      assert.deepStrictEqual(yield* tasks.countChildren, none)
    })
  )

  it.effect("yield looks without waiting, or waits for as long as it is told and not longer", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const task = yield* tasks.asyncNolink(Effect.as(Effect.sleep("3 seconds"), "done"))
      assert.deepStrictEqual(yield* task.yield(), Option.none())
      const short = yield* Effect.forkChild(task.yield("2999 millis"))
      const long = yield* Effect.forkChild(task.yield("3001 millis"))
      yield* settle
      yield* TestClock.adjust(2999)
      assert.deepStrictEqual(yield* Fiber.join(short), Option.none())
      assert.isTrue(pending(long))
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(long), Option.some(Exit.succeed("done")))
    })
  )

  it.effect("when the supervisor stops, whoever awaits is told so, and is not itself interrupted", () =>
    Effect.gen(function* () {
      const { it: tasks, close } = yield* closable(TaskSupervisor.start())
      const outcome = yield* Deferred.make<unknown>()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const linked = yield* tasks.async(Effect.never)
          const exit = yield* Effect.exit(linked.await)
          yield* Effect.yieldNow
          yield* Deferred.succeed(outcome, reasonOf(exit))
        })
      ).pipe(Effect.forkChild)
      yield* settle
      yield* close
      assert.deepStrictEqual(
        yield* Deferred.await(outcome),
        new CallError.TargetExit({ target: "supervisor/task", operation: "await", exit: ExitReason.shutdown })
      )
      assert.strictEqual(yield* refusal(tasks.async(Effect.void)), "SupervisorStopped")
      assert.strictEqual(yield* refusal(Stream.runDrain(tasks.streamNolink([1], Effect.succeed))), "SupervisorStopped")
    })
  )

  it.effect("a crash goes up a chain of linked tasks, one by one, and leaves nothing running", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<void>()
      let depth = 0
      const nested = (left: number): Effect.Effect<never, string> =>
        left === 0
          ? Effect.andThen(Deferred.await(gate), Effect.fail("at the bottom"))
          : Effect.scoped(
              Effect.suspend(() => {
                depth++
                return Effect.andThen(Effect.orDie(tasks.async(nested(left - 1))), Effect.never)
              })
            )
      const top = yield* tasks.asyncNolink(nested(50))
      assert.strictEqual(depth, 50)
      assert.strictEqual((yield* tasks.countChildren).active, 51)
      yield* Deferred.succeed(gate, undefined)
      const reason = reasonOf(yield* Effect.exit(top.await))
      assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Killed")
      yield* settle
      assert.deepStrictEqual(yield* tasks.countChildren, none)
    })
  )

  it.effect("a transient task is started again after a crash, and its result is that of its last run", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      let runs = 0
      const ref = yield* tasks.startChild(
        Effect.suspend(() => (++runs < 3 ? Effect.fail("again") : Effect.succeed(runs))),
        { restart: "transient" }
      )
      assert.deepStrictEqual(yield* ref.exit, Exit.succeed(3))
    })
  )
})

describe("stream", () => {
  const items = (count: number) => Array.from({ length: count }, (_, n) => n)

  it.effect("results come in the order of the items, or in that of their ends", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const work = (n: number) => Effect.as(Effect.sleep((3 - n) * 1000), n)
      const run = (ordered: boolean | undefined) =>
        Effect.gen(function* () {
          const fiber = yield* tasks
            .stream([0, 1, 2], work, { concurrency: 3, ordered })
            .pipe(Stream.runCollect, Effect.forkChild)
          yield* settle
          yield* TestClock.adjust("3 seconds")
          return yield* Fiber.join(fiber)
        })
      assert.deepStrictEqual(yield* run(undefined), [0, 1, 2])
      assert.deepStrictEqual(yield* run(true), [0, 1, 2])
      assert.deepStrictEqual(yield* run(false), [2, 1, 0])
    })
  )

  it.effect("no more items are worked on at a time than is said, with as many tasks", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      let active = 0
      let most = 0
      const work = (n: number) =>
        Effect.gen(function* () {
          most = Math.max(most, ++active)
          yield* Effect.sleep(1000)
          active--
          return n
        })
      const fiber = yield* tasks
        .stream(Stream.fromIterable(items(10)), work, { concurrency: 3 })
        .pipe(Stream.runCollect, Effect.forkChild)
      yield* settle
      assert.strictEqual((yield* tasks.countChildren).active, 3)
      for (let second = 0; second < 4; second++) yield* Effect.andThen(TestClock.adjust("1 second"), settle)
      assert.deepStrictEqual(yield* Fiber.join(fiber), items(10))
      assert.strictEqual(most, 3)
      assert.deepStrictEqual(yield* tasks.countChildren, none)
    })
  )

  it.effect("an item that takes longer than its limit is stopped, and told as late; the others keep their place", () =>
    Effect.gen(function* () {
      yield* woundUp
      const tasks = yield* TaskSupervisor.start()
      const log: Array<string> = []
      const work = (seconds: number) =>
        Effect.as(Effect.sleep(seconds * 1000), seconds).pipe(
          Effect.onInterrupt(() => Effect.sync(() => log.push(`stopped ${seconds}`)))
        )
      const options = { concurrency: 3, itemLimit: "2 seconds" } as const
      const fiber = yield* tasks.streamNolink([1, 9, 1.999], work, options).pipe(Stream.runCollect, Effect.forkChild)
      yield* settle
      yield* TestClock.adjust(1999)
      yield* settle
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust(1)
      const exits = yield* Fiber.join(fiber)
      assert.deepStrictEqual(log, ["stopped 9"])
      assert.deepStrictEqual([exits[0], exits[2]], [Exit.succeed(1), Exit.succeed(1.999)])
      const reason = exits[1] === undefined ? undefined : reasonOf(exits[1])
      assert.isTrue(reason?._tag === "CallTimeout" && reason.target === "supervisor/task")

      const linked = yield* tasks.stream([1, 9], work, options).pipe(Stream.runDrain, Effect.flip, Effect.forkChild)
      yield* settle
      yield* TestClock.adjust("2 seconds")
      const error = yield* Fiber.join(linked)
      assert.isTrue(error instanceof CallError.CallError && error.reason._tag === "CallTimeout")
      assert.deepStrictEqual(yield* tasks.countChildren, none)
    })
  )

  it.effect("each item has its own limit, from its own start", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const work = (seconds: number) => Effect.as(Effect.sleep(seconds * 1000), seconds)
      const fiber = yield* tasks
        .stream([2, 2, 2], work, { concurrency: 1, itemLimit: "3 seconds" })
        .pipe(Stream.runCollect, Effect.forkChild)
      for (let second = 0; second < 6; second++) yield* Effect.andThen(settle, TestClock.adjust("1 second"))
      assert.deepStrictEqual(yield* Fiber.join(fiber), [2, 2, 2])
    })
  )

  for (const how of ["take", "interrupt", "consumer fails"] as const) {
    it.effect(
      `T4: an early end of the consumer (${how}) stops what was started, waits for it, and starts no more`,
      () =>
        Effect.gen(function* () {
          yield* woundUp
          const { alive, here } = census()
          const tasks = yield* here(TaskSupervisor.start())
          const log: Array<string> = []
          const work = (n: number) =>
            n === 0
              ? Effect.succeed(n)
              : Effect.never.pipe(
                  Effect.ensuring(
                    Effect.andThen(
                      Effect.sleep("1 second"),
                      Effect.sync(() => log.push(`stopped ${n}`))
                    )
                  )
                )
          const stream = tasks.stream([1, 2, 0, 3, 4, 5, 6, 7, 8], work, { concurrency: 3, ordered: false })
          const run =
            how === "take"
              ? Stream.runDrain(Stream.take(stream, 1))
              : how === "interrupt"
                ? Stream.runDrain(stream)
                : Stream.runForEach(stream, () => Effect.fail("enough"))
          const fiber = yield* Effect.forkChild(here(run))
          yield* settle
          const ending = how === "interrupt" ? yield* Effect.forkChild(Fiber.interrupt(fiber)) : fiber
          yield* settle
          assert.isTrue(pending(ending), "the tasks are given the time to end")
          yield* TestClock.adjust("1 second")
          yield* Fiber.await(ending)
          yield* settle
          assert.isAtLeast(log.length, 2)
          assert.isAtMost(log.length, 3)
          assert.includeMembers(log, ["stopped 1", "stopped 2"])
          assert.deepStrictEqual(yield* tasks.countChildren, none)
          yield* TestClock.adjust("10 seconds") // the timer of a shutdown limit ends by itself
          assert.strictEqual(alive(), 0, "no fiber is left")
        })
    )
  }

  it.effect("a place in the supervisor is free again as soon as an item is done", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start({ maxChildren: 2 })
      const work = (n: number) => Effect.as(Effect.yieldNow, n)
      assert.deepStrictEqual(yield* Stream.runCollect(tasks.stream(items(50), work, { concurrency: 2 })), items(50))
    })
  )

  it.effect("work that throws before it is an effect is the crash of its item", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const work = (n: number): Effect.Effect<number> => {
        if (n === 1) throw new Error("thrown")
        return Effect.succeed(n)
      }
      const exits = yield* Stream.runCollect(tasks.streamNolink([0, 1, 2], work))
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, true])
      assert.isTrue(Exit.hasDies(yield* Effect.exit(Stream.runDrain(tasks.stream([0, 1, 2], work)))))
    })
  )

  it.effect("many items leave nothing behind", () =>
    Effect.gen(function* () {
      const { alive, here } = census()
      const tasks = yield* here(TaskSupervisor.start())
      const sum = yield* here(
        tasks
          .stream(items(5000), (n) => (n % 2 === 0 ? Effect.succeed(n) : Effect.as(Effect.yieldNow, n)), {
            concurrency: 16
          })
          .pipe(
            Stream.runFold(
              () => 0,
              (sum, n) => sum + n
            )
          )
      )
      assert.strictEqual(sum, (4999 * 5000) / 2)
      assert.deepStrictEqual(yield* tasks.countChildren, none)
      yield* settle
      assert.strictEqual(alive(), 0)
    })
  )
})

describe("on whose behalf", () => {
  it.effect("T5: the chain of callers goes over an actor, a task and a task of that task", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        name: "shop",
        children: [TaskSupervisor.childSpec("kitchen"), TaskSupervisor.childSpec("cellar")]
      })
      const { cellar, kitchen } = tree.refs
      const seen: Array<ReadonlyArray<string>> = []
      const note = Effect.tap(TaskSupervisor.callers, (callers) => Effect.sync(() => seen.push(callers)))
      class Cook extends Actor.make("Cook", {
        init: (_arg: void) => 0,
        call: {
          *dinner() {
            const roast = yield* kitchen.async(
              Effect.scoped(
                Effect.gen(function* () {
                  yield* note
                  const wine = yield* cellar.async(note)
                  return yield* wine.await
                })
              )
            )
            yield* roast.await
            yield* Stream.runDrain(cellar.stream([1], () => note))
          }
        },
        cast: {
          *order() {
            yield* kitchen.startChild(note)
          }
        }
      }) {}
      const cook = yield* tree.startChild(ChildSpec.actor("cook", Cook, undefined))
      yield* cook.call.dinner()
      yield* cook.cast.order()
      yield* settle
      assert.deepStrictEqual(seen, [["shop/cook"], ["shop/kitchen/task", "shop/cook"], ["shop/cook"], ["shop/cook"]])
    })
  )

  it.effect("T5: a fiber that a task forks has that task's callers, and starts tasks on the task's behalf", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const task = yield* tasks.async(
        Effect.scoped(
          Effect.gen(function* () {
            const fiber = yield* Effect.forkChild(TaskSupervisor.callers)
            const inner = yield* Effect.flatMap(tasks.async(TaskSupervisor.callers), (inner) => inner.await)
            return { outer: yield* Fiber.join(fiber), inner }
          })
        )
      )
      const { inner, outer } = yield* task.await
      assert.lengthOf(outer, 1)
      assert.deepStrictEqual(inner, ["supervisor/task", ...outer])
    })
  )

  it.effect("a task is below the span of the one who started it, also in a handler and in a stream", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const parent = Effect.map(Effect.currentParentSpan, (span) => (span._tag === "Span" ? span.name : "external"))
      const one = Effect.scoped(Effect.flatMap(tasks.async(parent), (task) => task.await))
      assert.strictEqual(yield* Effect.withSpan(one, "outer"), "outer")
      const inner = Effect.scoped(Effect.flatMap(tasks.async(Effect.withSpan(one, "inner")), (task) => task.await))
      assert.strictEqual(yield* Effect.withSpan(inner, "outer"), "inner")
      const streamed = Stream.runCollect(tasks.stream([1, 2], () => parent)).pipe(Effect.withSpan("stream"))
      assert.deepStrictEqual(yield* streamed, ["stream", "stream"])
      assert.isTrue(Exit.isFailure(yield* Effect.exit(one)), "where there is no span, there is none above the task")
      class Traced extends Actor.make("Traced", { init: (_arg: void) => 0, call: { ask: () => one }, traced: true }) {}
      const traced = yield* Actor.start(Traced, undefined)
      assert.strictEqual(yield* Effect.withSpan(traced.call.ask(), "outer"), "Traced.ask")
    })
  )
})
