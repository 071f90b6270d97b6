import { assert, describe, it } from "@effect/vitest"
import { Actor, CallError, ChildSpec, ExitReason, Supervisor, TaskSupervisor, Watch } from "@tinkex/supervision"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { pending, record, settle, tags } from "../support.ts"
import { counts, refusal } from "./dynamicSupport.ts"

class Broken extends Schema.TaggedError<Broken>()("Broken", { part: Schema.String }) {}

/** A fiber that starts a linked task, tells of it, and then does something else for ever. */
const owner = <A, E>(tasks: TaskSupervisor.TaskSupervisorRef, work: Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const started = yield* Deferred.make<TaskSupervisor.Task<A, E>>()
    const fiber = yield* Effect.scoped(
      Effect.gen(function* () {
        yield* Deferred.succeed(started, yield* tasks.async(work))
        return yield* Effect.never
      })
    ).pipe(Effect.forkChild)
    return { fiber, task: yield* Deferred.await(started) }
  })

const callReason = <A, E>(effect: Effect.Effect<A, E | CallError.CallError>) =>
  Effect.map(Effect.flip(effect), (error) => (error instanceof CallError.CallError ? error.reason : undefined))

describe("TaskSupervisor", () => {
  it.effect("TS-01 a task is a child, its result arrives, and then the notice of its end", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<number>()
      const task = yield* tasks.async(Deferred.await(gate))
      assert.deepStrictEqual(yield* tasks.countChildren, counts(1, 1, 0, 1))
      assert.deepStrictEqual(
        (yield* tasks.whichChildren).map(({ kind, restart }) => [kind, restart]),
        [["effect", "temporary"]]
      )
      const monitor = yield* Watch.monitor(task)
      const waiting = yield* Effect.forkChild(Effect.all([task.await, task.await], { concurrency: "unbounded" }))
      yield* settle
      assert.isTrue(pending(waiting))
      yield* Deferred.succeed(gate, 42)
      assert.deepStrictEqual(yield* Fiber.join(waiting), [42, 42])
      assert.deepStrictEqual((yield* monitor.down).exit, { _tag: "Normal", value: 42 })
      assert.strictEqual(yield* task.await, 42, "it is the same however late one asks")
      assert.deepStrictEqual(yield* tasks.countChildren, counts(0, 0, 0, 0))
    })
  )

  it.effect("TS-01 it is linked to its caller both ways: a crash ends the caller, the caller's end ends it", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<void>()
      const crashing = yield* owner(tasks, Effect.andThen(Deferred.await(gate), new Broken({ part: "a" })))
      yield* Deferred.succeed(gate, undefined)
      const exit = yield* Fiber.await(crashing.fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))

      const clean = yield* owner(tasks, Effect.void)
      yield* settle
      assert.isTrue(pending(clean.fiber), "a clean end concerns nobody")
      yield* Fiber.interrupt(clean.fiber)

      const left = yield* owner(tasks, Effect.never)
      assert.deepStrictEqual(yield* tasks.countChildren, counts(1, 1, 0, 1))
      yield* Fiber.interrupt(left.fiber)
      assert.deepStrictEqual(yield* tasks.countChildren, counts(0, 0, 0, 0))
      const reason = yield* callReason(left.task.await)
      assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Shutdown")
    })
  )

  it.effect("TS-03 at the limit a start fails at the one who asked", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start({ maxChildren: 1 })
      const first = yield* tasks.async(Effect.never)
      assert.strictEqual(yield* refusal(tasks.async(Effect.void)), "MaxChildren")
      assert.strictEqual(yield* refusal(tasks.asyncNolink(Effect.void)), "MaxChildren")
      assert.strictEqual(yield* refusal(tasks.startChild(Effect.void)), "MaxChildren")
      yield* tasks.terminateChild(first)
      assert.strictEqual(yield* (yield* tasks.async(Effect.succeed(1))).await, 1)
    })
  )

  it.effect("TS-04 a task knows on whose behalf it runs, the nearest first, which is not who supervises it", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ name: "shop", children: [TaskSupervisor.childSpec("tasks")] })
      const { tasks } = tree.refs
      class Clerk extends Actor.make("Clerk", {
        init: (_arg: void) => 0,
        call: {
          *chain() {
            const outer = yield* tasks.async(
              Effect.scoped(
                Effect.flatMap(tasks.async(TaskSupervisor.callers), (inner) =>
                  Effect.all([TaskSupervisor.callers, inner.await])
                )
              )
            )
            return yield* outer.await
          }
        }
      }) {}
      const clerk = yield* tree.startChild(ChildSpec.actor("clerk", Clerk, undefined))
      assert.deepStrictEqual(yield* clerk.call.chain(), [["shop/clerk"], ["shop/tasks/task", "shop/clerk"]])
      const alone = yield* Effect.flatMap(tasks.async(TaskSupervisor.callers), (task) => task.await)
      assert.lengthOf(alone, 1)
      assert.match(alone[0] ?? "", /^fiber \d+$/)
      assert.deepStrictEqual(yield* TaskSupervisor.callers, [], "outside a task there are none")
    })
  )

  it.effect("TS-05 without a link the caller survives the crash, and still gets the notice of the end", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<void>()
      const task = yield* tasks.asyncNolink(Effect.andThen(Deferred.await(gate), new Broken({ part: "a" })))
      const monitor = yield* Watch.monitor(task)
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      const { exit } = yield* monitor.down
      assert.isTrue(exit?._tag === "Crash" && exit.error instanceof Broken)
      assert.deepStrictEqual(yield* Effect.flip(task.await), new Broken({ part: "a" }))
    })
  )

  it.effect("TS-07 one task can be terminated, once", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const one = yield* tasks.asyncNolink(Effect.never)
      const other = yield* tasks.asyncNolink(Effect.never)
      const plain = yield* tasks.startChild(Effect.never)
      yield* tasks.terminateChild(one)
      assert.strictEqual(yield* refusal(tasks.terminateChild(one)), "NotFound")
      assert.deepStrictEqual(yield* tasks.countChildren, counts(2, 2, 0, 2))
      assert.isTrue(Option.isNone(yield* other.yield()))
      yield* tasks.terminateChild(plain)
      assert.strictEqual(yield* refusal(tasks.terminateChild(plain)), "NotFound")
      const reason = yield* callReason(one.await)
      assert.isTrue(reason?._tag === "TargetExit" && reason.exit._tag === "Shutdown")
    })
  )

  it.effect("TS-08 who gives up to wait hears nothing later, and the task goes on", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const gate = yield* Deferred.make<number>()
      const task = yield* tasks.asyncNolink(Deferred.await(gate))
      const waiting = yield* task.await.pipe(Effect.timeoutOption("1 second"), Effect.forkChild)
      const looking = yield* Effect.forkChild(task.yield("1 second"))
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.isTrue(Option.isNone(yield* Fiber.join(waiting)))
      assert.isTrue(Option.isNone(yield* Fiber.join(looking)))
      assert.isTrue(Option.isNone(yield* task.yield()))
      yield* Deferred.succeed(gate, 7)
      yield* settle
      assert.deepStrictEqual(yield* task.yield(), Option.some(Exit.succeed(7)))
      assert.strictEqual(yield* task.await, 7)
    })
  )

  it.effect(
    "TS-08 who has given up to wait for a linked task is interrupted by its crash, like one who never did",
    () =>
      Effect.gen(function* () {
        const tasks = yield* TaskSupervisor.start()
        const gate = yield* Deferred.make<void>()
        const fiber = yield* Effect.scoped(
          Effect.gen(function* () {
            const task = yield* tasks.async(Effect.andThen(Deferred.await(gate), new Broken({ part: "a" })))
            yield* Effect.timeoutOption(task.await, "1 second")
            return yield* Effect.never
          })
        ).pipe(Effect.forkChild)
        yield* settle
        yield* TestClock.adjust("1 second")
        yield* settle
        assert.isTrue(pending(fiber))
        yield* Deferred.succeed(gate, undefined)
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      })
  )

  it.effect(
    "TS-09 a crash surfaces where the task is awaited, with its cause, and an end from outside with the task",
    () =>
      Effect.gen(function* () {
        const tasks = yield* TaskSupervisor.start()
        const gate = yield* Deferred.make<void>()
        const after = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.gen(function* () {
            const task = yield* tasks.async(Effect.andThen(Deferred.await(gate), effect))
            return yield* Effect.forkChild(Effect.exit(task.await))
          })
        const failed = yield* after(new Broken({ part: "typed" }))
        const defect = new Error("thrown")
        const died = yield* after(
          Effect.sync(() => {
            throw defect
          })
        )
        const killed = yield* after(Effect.interrupt)
        yield* settle
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* Fiber.join(failed), Exit.fail(new Broken({ part: "typed" })))
        const exit = yield* Fiber.join(died)
        assert.isTrue(
          Exit.isFailure(exit) && exit.cause.reasons.some((r) => Cause.isDieReason(r) && r.defect === defect)
        )
        const error = Exit.findErrorOption(yield* Fiber.join(killed))
        const { reason } = Option.getOrThrow(error) as CallError.CallError // the only failure there can be
        assert.deepStrictEqual(
          reason,
          new CallError.TargetExit({ target: "supervisor/task", operation: "await", exit: ExitReason.killed })
        )
      })
  )

  it.effect("TS-11 a crash ends a linked stream; in the other it is the exit of its item", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const work = (n: number) => (n === 2 ? Effect.fail(new Broken({ part: "2" })) : Effect.succeed(n))
      const options = { concurrency: 1 }
      const seen: Array<number> = []
      const linked = tasks
        .stream([1, 2, 3], work, options)
        .pipe(Stream.runForEach((n) => Effect.sync(() => seen.push(n))))
      assert.deepStrictEqual(yield* Effect.exit(linked), Exit.fail(new Broken({ part: "2" })))
      assert.deepStrictEqual(seen, [1])
      const exits = yield* Stream.runCollect(tasks.streamNolink([1, 2, 3], work, options))
      assert.deepStrictEqual(exits, [Exit.succeed(1), Exit.fail(new Broken({ part: "2" })), Exit.succeed(3)])
      const defects = tasks.streamNolink([1], () => Effect.die("thrown"))
      const [died] = yield* Stream.runCollect(defects)
      assert.isTrue(died !== undefined && Exit.hasDies(died))
      assert.deepStrictEqual(yield* tasks.countChildren, counts(0, 0, 0, 0))
    })
  )

  it.effect("TS-12 when the consumer stops early, what was started is stopped, and nothing is left", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start()
      const events = yield* record(tasks.events)
      const log: Array<string> = []
      const work = (n: number) =>
        n === 0
          ? Effect.succeed(n)
          : Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push(`interrupted ${n}`)))
      const first = yield* tasks
        .stream([1, 2, 0, 3, 4, 5], work, { concurrency: 4, ordered: false })
        .pipe(Stream.take(1), Stream.runCollect)
      assert.deepStrictEqual(first, [0])
      yield* settle
      const stopped = log.length
      assert.deepStrictEqual(yield* tasks.countChildren, counts(0, 0, 0, 0))
      const started = tags(events).filter((tag) => tag.startsWith("ChildStarted")).length
      assert.strictEqual(stopped, started - 1, "all that were started, but the one that ended by itself")
      assert.includeMembers(log, ["interrupted 1", "interrupted 2"])
      yield* settle
      assert.strictEqual(log.length, stopped, "no more were started")
    })
  )

  it.effect("TS-13 reaching the limit fails the stream, and stops what it had started", () =>
    Effect.gen(function* () {
      const tasks = yield* TaskSupervisor.start({ maxChildren: 2 })
      const log: Array<string> = []
      const work = (n: number) =>
        Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push(`interrupted ${n}`)))
      for (const stream of [tasks.stream, tasks.streamNolink]) {
        log.length = 0
        const error = yield* Effect.flip(Stream.runDrain(stream([1, 2, 3], work, { concurrency: 3 })))
        assert.strictEqual(error.reason._tag, "MaxChildren")
        assert.sameMembers(log, ["interrupted 1", "interrupted 2"])
        assert.deepStrictEqual(yield* tasks.countChildren, counts(0, 0, 0, 0))
      }
    })
  )
})
