import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  type ActorRef,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Registry,
  Supervisor,
  SupervisorError,
  Watch
} from "@tinkex/supervision"
import { Context, Duration, Effect, Exit, Fiber, Layer, Schedule, Schema, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { census, closable, counts, refusal, statuses, woundUp } from "./otp/dynamicSupport.ts"
import { pending, record, settle, tags, witness } from "./support.ts"

/** What the next starts of a `Slow` are like; times are in seconds. */
interface Plan {
  readonly log: Array<string>
  init: number
  last: number
  outcome: "up" | "fail" | "ignore"
}

const plan = (init = 0, last = 0, outcome: Plan["outcome"] = "up"): Plan => ({ log: [], init, last, outcome })

/** Takes its time to start and to end, and says how far it has come. */
class Slow extends Actor.make("Slow", {
  *init(plan: Plan) {
    const { init, last, outcome } = plan
    plan.log.push("init")
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        last === 0 ? Effect.void : Effect.sleep(last * 1000),
        Effect.sync(() => plan.log.push("finalized"))
      )
    )
    if (init > 0) yield* Effect.sleep(init * 1000)
    if (outcome === "fail") return yield* Effect.fail("no good")
    if (outcome === "ignore") return Actor.ignore
    plan.log.push("up")
    return { plan }
  },
  call: { ping: (self) => self.generation },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

const slow = (plan: Plan, options?: ChildSpec.ChildOptions) => ChildSpec.actor("slow", Slow, plan, options)

const temporary = { restart: "temporary" } as const

const seconds = (count: number) => Effect.andThen(TestClock.adjust(count * 1000), settle)

describe("stopping while a child starts", () => {
  it.effect("its init is interrupted, its finalizers are waited for, and its starter is told", () =>
    Effect.gen(function* () {
      yield* woundUp
      const { it: pool, close } = yield* closable(DynamicSupervisor.start())
      const arg = plan(60, 3)
      const starter = yield* Effect.forkChild(Effect.flip(pool.startChild(slow(arg))))
      yield* settle
      const closing = yield* Effect.forkChild(close)
      yield* seconds(2)
      assert.isTrue(pending(closing))
      assert.deepStrictEqual(arg.log, ["init"])
      yield* seconds(1)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(arg.log, ["init", "finalized"])
      assert.strictEqual((yield* Fiber.join(starter)).reason._tag, "StartFailed")
      assert.deepStrictEqual(yield* pool.exit, ExitReason.shutdown)
      assert.strictEqual(yield* refusal(pool.startChild(witness("late", []))), "SupervisorStopped")
    })
  )

  it.effect("a failed start that still cleans up is waited for", () =>
    Effect.gen(function* () {
      yield* woundUp
      const { it: pool, close } = yield* closable(DynamicSupervisor.start())
      const arg = plan(0, 3, "fail")
      const starter = yield* Effect.forkChild(Effect.flip(pool.startChild(slow(arg))))
      yield* settle
      assert.isTrue(pending(starter))
      const closing = yield* Effect.forkChild(close)
      yield* seconds(2)
      assert.isTrue(pending(closing))
      yield* seconds(1)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(arg.log, ["init", "finalized"])
      assert.strictEqual((yield* Fiber.join(starter)).reason._tag, "StartFailed")
    })
  )

  it.effect("a layer that is being built is taken back", () =>
    Effect.gen(function* () {
      yield* woundUp
      const { it: pool, close } = yield* closable(DynamicSupervisor.start())
      const log: Array<string> = []
      class First extends Context.Service<First, number>()("test/First") {}
      class Second extends Context.Service<Second, number>()("test/Second") {}
      const first = Layer.effect(
        First,
        Effect.acquireRelease(
          Effect.sync(() => log.push("+first")),
          () =>
            Effect.andThen(
              Effect.sleep("2 seconds"),
              Effect.sync(() => log.push("-first"))
            )
        )
      )
      const second = Layer.effect(
        Second,
        Effect.flatMap(First, () => Effect.never)
      )
      const spec = ChildSpec.effect("built", Effect.all([First, Second])).pipe(
        ChildSpec.provide(second),
        ChildSpec.provide(first)
      )
      const starter = yield* Effect.forkChild(Effect.exit(pool.startChild(spec)))
      yield* settle
      assert.deepStrictEqual(log, ["+first"])
      const closing = yield* Effect.forkChild(close)
      yield* seconds(1)
      assert.isTrue(pending(closing))
      yield* seconds(1)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(log, ["+first", "-first"])
      assert.isTrue(Exit.isFailure(yield* Fiber.join(starter)))
    })
  )

  it.effect("a restart that is under way is ended too, and no later attempt is made", () =>
    Effect.gen(function* () {
      yield* woundUp
      for (const options of [{}, { backoff: Backoff.fixed("1 second") }]) {
        const { it: pool, close } = yield* closable(DynamicSupervisor.start(options))
        const arg = plan()
        const ref = yield* pool.startChild(slow(arg))
        arg.init = 60
        yield* ref.cast.crash()
        yield* settle
        if ("backoff" in options) assert.deepStrictEqual(statuses(yield* pool.whichChildren), ["slow restarting"])
        else assert.deepStrictEqual(statuses(yield* pool.whichChildren), ["slow starting"])
        yield* close
        const { length } = arg.log
        yield* seconds(120)
        assert.lengthOf(arg.log, length)
        assert.strictEqual(
          arg.log.filter((line) => line === "init").length,
          arg.log.filter((l) => l === "finalized").length
        )
      }
    })
  )
})

describe("a schedule that hangs", () => {
  const hanging = Backoff.schedule(Schedule.modifyDelay(Schedule.forever, () => Effect.never))

  it.effect("keeps no pool, and no supervisor with a list, from stopping", () =>
    Effect.gen(function* () {
      const { alive, here } = census()
      const pool = yield* closable(here(DynamicSupervisor.start({ backoff: hanging })))
      const tree = yield* closable(here(Supervisor.start({ backoff: hanging, children: [witness("a", [])] })))
      const pooled = yield* here(pool.it.startChild(witness("a", [])))
      yield* Effect.all([pooled.cast.crash(), tree.it.refs.a.cast.crash()])
      yield* settle
      yield* pool.close
      yield* tree.close
      yield* settle
      assert.strictEqual(alive(), 0)
    })
  )

  it.effect("keeps nobody from terminating the child", () =>
    Effect.gen(function* () {
      const { alive, here } = census()
      const pool = yield* here(DynamicSupervisor.start({ backoff: hanging }))
      const ref = yield* here(pool.startChild(witness("a", [], { startLimit: Duration.infinity })))
      const tree = yield* here(Supervisor.start({ backoff: hanging, children: [witness("a", [])] }))
      yield* Effect.all([ref.cast.crash(), tree.refs.a.cast.crash()])
      yield* settle
      assert.deepStrictEqual(statuses(yield* pool.whichChildren), ["a restarting"])
      yield* pool.terminateChild(ref)
      yield* tree.terminateChild("a")
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      assert.deepStrictEqual(yield* tree.countChildren, counts(1, 0, 0, 1))
      yield* seconds(60)
      assert.strictEqual(alive(), 0)
    })
  )

  it.effect("is broken after the child's start limit, and costs the delay and not the restart", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start({ backoff: hanging })
      const events = yield* record(pool.events)
      const ref = yield* pool.startChild(witness("a", [], { startLimit: "3 seconds" }))
      yield* ref.cast.crash()
      yield* seconds(3)
      assert.strictEqual(yield* ref.call.ping(), "a2")
      assert.include(tags(events), "CallbackFailed a")
    })
  )
})

describe("terminating a child", () => {
  it.effect(
    "while it starts again: the attempt is given up, its finalizers are waited for, everybody who asked is told",
    () =>
      Effect.gen(function* () {
        yield* woundUp
        const pool = yield* DynamicSupervisor.start()
        const arg = plan()
        const ref = yield* pool.startChild(slow(arg))
        arg.init = 60
        arg.last = 3
        yield* ref.cast.crash()
        yield* settle
        const requests = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(pool.terminateChild(ref)))
        yield* seconds(2)
        assert.deepStrictEqual(requests.map(pending), [true, true, true])
        yield* seconds(1)
        assert.deepStrictEqual(requests.map(pending), [false, false, false])
        assert.deepStrictEqual(arg.log, ["init", "up", "finalized", "init", "finalized"])
        assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      })
  )

  for (const outcome of ["fail", "ignore"] as const) {
    it.effect(`while what is left of a start that ends with ${outcome} is cleaned up: it waits for that`, () =>
      Effect.gen(function* () {
        yield* woundUp
        const pool = yield* DynamicSupervisor.start()
        const arg = plan()
        const ref = yield* pool.startChild(slow(arg))
        arg.outcome = outcome
        arg.last = 3
        yield* ref.cast.crash()
        yield* settle
        assert.deepStrictEqual(statuses(yield* pool.whichChildren), ["slow starting"])
        const request = yield* Effect.forkChild(pool.terminateChild(ref))
        yield* seconds(2)
        assert.isTrue(pending(request))
        yield* seconds(1)
        yield* Fiber.join(request)
        yield* settle
        assert.deepStrictEqual(
          arg.log,
          ["init", "up", "finalized", "init", "finalized"],
          "and there is no other attempt"
        )
        assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      })
    )
  }

  it.effect("after its crash, while it cleans up: it is not started again", () =>
    Effect.gen(function* () {
      yield* woundUp
      const pool = yield* DynamicSupervisor.start()
      const arg = plan(0, 3)
      const ref = yield* pool.startChild(slow(arg))
      yield* ref.cast.crash()
      yield* seconds(1)
      const request = yield* Effect.forkChild(pool.terminateChild(ref))
      yield* seconds(1)
      assert.isTrue(pending(request))
      yield* seconds(1)
      yield* Fiber.join(request)
      yield* settle
      assert.deepStrictEqual(arg.log, ["init", "up", "finalized"])
    })
  )

  it.effect("in the same turn as its crash: whoever is first, it is gone afterwards", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      const log: Array<string> = []
      for (const order of ["crash first", "terminate first"]) {
        const ref = yield* pool.startChild(witness("a", log))
        const both = [ref.cast.crash(), pool.terminateChild(ref)]
        yield* Effect.all(order === "crash first" ? both : both.toReversed(), { concurrency: "unbounded" })
        yield* settle
        assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0), order)
        assert.strictEqual(log.filter((line) => line === "+a").length, log.filter((line) => line === "-a").length)
      }
    })
  )

  it.effect("which does not end: it is left behind within its limit, its place is free, its name too", () =>
    Effect.gen(function* () {
      yield* woundUp
      const names = yield* Registry.make(Slow)
      const pool = yield* DynamicSupervisor.start({ maxChildren: 1 })
      const events = yield* record(pool.events)
      const options = { shutdown: "2 seconds", names: [names.name("it", undefined)] } as const
      const ref = yield* pool.startChild(slow(plan(0, 60), options))
      const request = yield* Effect.forkChild(pool.terminateChild(ref))
      yield* settle
      assert.strictEqual(
        yield* refusal(pool.startChild(slow(plan(), options))),
        "MaxChildren",
        "it still has its place"
      )
      yield* seconds(2)
      yield* Fiber.join(request)
      const next = yield* pool.startChild(slow(plan(), options))
      assert.strictEqual(yield* names.ref("it").call.ping(), 1)
      yield* seconds(60)
      assert.strictEqual(yield* names.ref("it").call.ping(), 1, "the late end of the first takes nothing away")
      assert.deepStrictEqual(tags(events), [
        "ChildStarted slow",
        "Zombie slow",
        "ChildStopped slow",
        "ChildStarted slow",
        "ZombieEnded slow"
      ])
      yield* pool.terminateChild(next)
    })
  )

  it.effect("from its own handler: the handler is interrupted and the child is gone, nobody waits for himself", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      class Suicidal extends Actor.make("Suicidal", {
        init: (_arg: void) => ({ own: undefined as Actor.Watchable | undefined }),
        call: {
          know: (self, own: Actor.Watchable) => void (self.state.own = own),
          *end(self) {
            if (self.state.own !== undefined) yield* pool.terminateChild(self.state.own)
            return "still here"
          }
        }
      }) {}
      const ref = yield* pool.startChild(ChildSpec.actor("it", Suicidal, undefined))
      yield* ref.call.know(ref)
      const error = yield* Effect.flip(ref.call.end())
      assert.isTrue(error.reason._tag === "TargetExit" && error.reason.exit._tag === "Shutdown")
      yield* settle
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
    })
  )
})

describe("starting a child", () => {
  it.effect("from the init of another, which waits for it", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      const log: Array<string> = []
      class Parent extends Actor.make("Parent", {
        *init(depth: number): Generator<Effect.Effect<unknown, SupervisorError.SupervisorError>, number, never> {
          log.push(`+${depth}`)
          if (depth > 0) yield* pool.startChild(ChildSpec.actor("parent", Parent, depth - 1))
          log.push(`=${depth}`)
          return depth
        }
      }) {}
      yield* pool.startChild(ChildSpec.actor("parent", Parent, 3))
      assert.deepStrictEqual(log, ["+3", "+2", "+1", "+0", "=0", "=1", "=2", "=3"])
      assert.strictEqual((yield* pool.countChildren).active, 4)
    })
  )

  it.effect("slowly holds up no other child and no request", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      const starter = yield* Effect.forkChild(pool.startChild(slow(plan(10))))
      yield* settle
      const ref = yield* pool.startChild(witness("quick", []))
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "quick2")
      yield* pool.terminateChild(ref)
      assert.isTrue(pending(starter))
      assert.deepStrictEqual(yield* pool.countChildren, counts(1, 0, 0, 1))
      yield* seconds(10)
      yield* Fiber.join(starter)
    })
  )

  it.effect("that is not up yet takes up a place; one that fails gives it back", () =>
    Effect.gen(function* () {
      yield* woundUp
      const pool = yield* DynamicSupervisor.start({ maxChildren: 2 })
      const starts = yield* Effect.forEach([plan(1), plan(2, 0, "fail"), plan(3)], (plan) =>
        Effect.forkChild(Effect.exit(pool.startChild(slow(plan, temporary))))
      )
      yield* settle
      assert.deepStrictEqual(starts.map(pending), [true, true, false])
      const third = yield* Fiber.join(starts[2] ?? Effect.runFork(Effect.never))
      assert.isTrue(Exit.isFailure(third))
      yield* seconds(1)
      assert.strictEqual(yield* refusal(pool.startChild(slow(plan()))), "MaxChildren")
      yield* seconds(1)
      yield* pool.startChild(slow(plan()))
      assert.deepStrictEqual(yield* pool.countChildren, counts(2, 2, 0, 2))
    })
  )

  for (const outcome of ["up", "fail", "ignore"] as const) {
    it.effect(
      `goes on without the one who asked, and leaves ${outcome === "up" ? "a child" : "nothing"} after ${outcome}`,
      () =>
        Effect.gen(function* () {
          const pool = yield* DynamicSupervisor.start()
          const arg = plan(5, 0, outcome)
          const starter = yield* Effect.forkChild(Effect.exit(pool.startChild(slow(arg))))
          yield* settle
          yield* Fiber.interrupt(starter)
          assert.deepStrictEqual(statuses(yield* pool.whichChildren), ["slow starting"])
          yield* seconds(5)
          assert.deepStrictEqual(yield* pool.countChildren, outcome === "up" ? counts(1, 1, 0, 1) : counts(0, 0, 0, 0))
        })
    )
  }

  it.effect("that hangs fails at its start limit, and what it left is waited for", () =>
    Effect.gen(function* () {
      yield* woundUp
      const pool = yield* DynamicSupervisor.start()
      const arg = plan(60, 2)
      const starter = yield* Effect.forkChild(Effect.flip(pool.startChild(slow(arg, { startLimit: "3 seconds" }))))
      yield* seconds(4)
      assert.isTrue(pending(starter))
      yield* seconds(1)
      const error = yield* Fiber.join(starter)
      assert.include(error.message, `"init" of "supervisor/slow" gave no answer within 3s`)
      assert.deepStrictEqual(arg.log, ["init", "finalized"])
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
    })
  )
})

describe("ends that concern others", () => {
  it.effect("a killed pool in a tree ends all its children, comes back empty, and forgets their handles", () =>
    Effect.gen(function* () {
      yield* woundUp
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [DynamicSupervisor.childSpec("pool")] })
      const { pool } = tree.refs
      const ref = yield* pool.startChild(witness("a", log))
      const arg = plan(60, 1)
      const starter = yield* Effect.forkChild(Effect.exit(pool.startChild(slow(arg))))
      yield* settle
      yield* pool.kill
      yield* seconds(1)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(starter)))
      assert.deepStrictEqual(log, ["+a", "-a"])
      assert.deepStrictEqual(arg.log, ["init", "finalized"])
      assert.deepStrictEqual(yield* tree.countChildren, counts(1, 1, 1, 0))
      assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      assert.strictEqual(yield* refusal(pool.terminateChild(ref)), "NotFound")
      assert.strictEqual((yield* Effect.flip(ref.call.ping())).reason._tag, "NoProcess")
      yield* pool.startChild(witness("b", log))
    })
  )

  it.effect("a child that must not be left behind ends the pool when it does not stop", () =>
    Effect.gen(function* () {
      yield* woundUp
      const log: Array<string> = []
      const pool = yield* DynamicSupervisor.start()
      yield* pool.startChild(witness("a", log))
      const ref = yield* pool.startChild(slow(plan(0, 60), { shutdown: "1 second", stuck: "fail" }))
      yield* Effect.forkChild(Effect.exit(pool.terminateChild(ref)))
      yield* seconds(1)
      const exit = yield* pool.exit
      assert.isTrue(
        exit._tag === "Crash" &&
          exit.error instanceof SupervisorError.SupervisorError &&
          exit.error.reason._tag === "ChildStuck"
      )
      assert.deepStrictEqual(log, ["+a", "-a"])
    })
  )

  it.effect(
    "whoever watches a child while it starts again hears of the attempt that fails, or of the child's end",
    () =>
      Effect.gen(function* () {
        yield* woundUp
        const pool = yield* DynamicSupervisor.start()
        for (const how of ["fails", "terminated"]) {
          const arg = plan()
          const ref = yield* pool.startChild(slow(arg))
          arg.init = 2
          arg.outcome = "fail"
          yield* ref.cast.crash()
          yield* settle
          const down = yield* Effect.forkChild(Watch.down(ref))
          yield* settle
          assert.isTrue(pending(down))
          if (how === "fails") yield* seconds(2)
          else yield* pool.terminateChild(ref)
          const { exit, generation } = yield* Fiber.join(down)
          assert.deepStrictEqual([exit?._tag, generation], [how === "fails" ? "Crash" : "Killed", 2])
          yield* Effect.ignore(pool.terminateChild(ref))
        }
      })
  )
})

interface Setting {
  readonly held: Effect.Effect<unknown, never, Scope.Scope>
  readonly time: number
  readonly outcome: string
}

class Held extends Actor.make("Held", {
  *init({ held, outcome, time }: Setting) {
    yield* held
    if (outcome === "slow") yield* Effect.sleep(time * 700)
    if (outcome === "hanging") yield* Effect.never
    if (outcome === "failing") return yield* Effect.fail("failing")
    if (outcome === "ignored") return Actor.ignore
    return { time }
  },
  call: {
    *crash(self) {
      if (self.state.time > 1) yield* Effect.sleep(self.state.time * 100)
      return yield* Effect.die("crash")
    }
  }
}) {}

const Op = Schema.Struct({
  what: Schema.Literals(["start", "start", "start", "crash", "kill", "stop", "terminate", "wait"]),
  kind: Schema.Literals([
    "quick",
    "quick",
    "quick",
    "slow",
    "slow",
    "layered",
    "effect",
    "failing",
    "ignored",
    "hanging",
    "layered",
    "broken layer",
    "effect",
    "failing effect"
  ]),
  restart: Schema.Literals(["permanent", "transient", "temporary"]),
  which: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 50 })),
  time: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 }))
})

describe("everything at once", () => {
  class Resource extends Context.Service<Resource, number>()("test/Resource") {}

  it.effect.prop(
    "nothing hangs, nothing is left over, and there are never more children than are allowed",
    [Schema.Array(Op).check(Schema.isMaxLength(60))],
    ([ops]) =>
      Effect.gen(function* () {
        yield* woundUp
        const { alive, here } = census()
        let open = 0
        let most = 0
        const names = yield* Registry.make<typeof Held, number>(Held)
        const held = (time: number) =>
          Effect.acquireRelease(
            Effect.sync(() => open++),
            () =>
              Effect.andThen(
                time === 0 ? Effect.void : Effect.sleep(time * 500),
                Effect.sync(() => open--)
              )
          )
        const layer = (time: number, works: boolean) =>
          Layer.effect(
            Resource,
            Effect.gen(function* () {
              yield* held(time)
              yield* Effect.sleep(time * 500)
              return works ? 1 : yield* Effect.fail("broken layer")
            })
          )
        const options = { intensity: { restarts: 1_000_000 }, maxChildren: 5, backoff: Backoff.fixed("500 millis") }
        const { it: pool, close } = yield* closable(here(DynamicSupervisor.start(options)))
        const refs: Array<{ readonly kill: Effect.Effect<void> } & Actor.Watchable> = []
        const requests: Array<Fiber.Fiber<unknown, unknown>> = []
        const request = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.map(Effect.forkDetach(Effect.exit(effect), { startImmediately: true }), (fiber) =>
            requests.push(fiber)
          )
        const keep = (ref: (typeof refs)[number]) => Effect.sync(() => refs.push(ref))
        for (const [index, { kind, restart, time, what, which }] of ops.entries()) {
          const ref = refs[which % Math.max(1, refs.length)]
          const child = { restart, shutdown: time * 400, startLimit: "3 seconds" } as const
          const actor = (setting: Setting) =>
            pool.startChild(
              ChildSpec.actor("actor", Held, setting, {
                ...child,
                names: which % 3 === 0 ? [names.name(index, undefined)] : []
              })
            )
          const setting: Setting = { held: held(time), time, outcome: kind }
          if (what === "wait") yield* TestClock.adjust(time * 300)
          else if (what !== "start") {
            if (ref === undefined) continue
            if (what === "terminate") yield* request(pool.terminateChild(ref))
            else if (what === "kill" || !("stop" in ref)) yield* ref.kill
            else if (what === "crash") yield* request((ref as ActorRef.ActorRef<typeof Held>).call.crash())
            else yield* request((ref as ActorRef.ActorRef<typeof Held>).stop)
          } else if (kind === "layered" || kind === "broken layer") {
            const spec = ChildSpec.effect("layered", Effect.andThen(Resource, Effect.never), child)
            yield* request(
              Effect.tap(here(pool.startChild(ChildSpec.provide(layer(time, kind === "layered"))(spec))), keep)
            )
          } else if (kind === "effect" || kind === "failing effect") {
            const work = Effect.andThen(
              held(time),
              kind === "effect" ? Effect.never : Effect.andThen(Effect.sleep(time * 700), Effect.fail("no"))
            )
            yield* request(Effect.tap(here(pool.startChild(ChildSpec.effect("effect", work, child))), keep))
          } else {
            yield* request(Effect.tap(here(actor(setting)), keep))
          }
          most = Math.max(most, (yield* pool.countChildren).specs)
        }
        const closing = yield* Effect.forkChild(close)
        for (let second = 0; second < 30; second++) yield* seconds(1)
        assert.isFalse(pending(closing), "it has stopped")
        assert.isAtMost(most, 5)
        assert.deepStrictEqual(requests.filter(pending), [], "every request is settled")
        assert.strictEqual(yield* names.count, 0, "every name is free")
        assert.strictEqual(open, 0, "everything that was acquired is released")
        assert.strictEqual(alive(), 0, "no fiber is left")
        assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      }),
    { arbitrary: { runs: 150, size: 60 } }
  )
})
