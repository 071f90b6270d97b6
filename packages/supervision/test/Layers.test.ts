import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ChildSpec,
  DynamicSupervisor,
  PartitionSupervisor,
  Registry,
  Supervisor,
  SupervisorError,
  TaskSupervisor
} from "@tinkex/supervision"
import { Context, Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { closable, counts, rootOf, woundUp } from "./otp/dynamicSupport.ts"
import { pending, record, settle, tags } from "./support.ts"

/** What the whole program shares. */
class Shared extends Context.Service<Shared, { readonly name: string }>()("test/Shared") {}

/** What each incarnation has for itself. */
class Own extends Context.Service<Own, { readonly number: number; readonly shared: { readonly name: string } }>()(
  "test/Own"
) {}

/** Needs the other one. */
class Above extends Context.Service<Above, { readonly own: number }>()("test/Above") {}

interface Journal {
  readonly log: Array<string>
  built: number
  /** What the next build does after it has acquired something. */
  mood: "works" | "fails" | "dies" | "hangs"
}

const journal = (): Journal => ({ log: [], built: 0, mood: "works" })

const own = (journal: Journal, last: Effect.Effect<void> = Effect.void) =>
  Layer.effect(
    Own,
    Effect.gen(function* () {
      const shared = yield* Shared
      const number = ++journal.built
      yield* Effect.acquireRelease(
        Effect.sync(() => journal.log.push(`+layer ${number}`)),
        () =>
          Effect.andThen(
            last,
            Effect.sync(() => journal.log.push(`-layer ${number}`))
          )
      )
      if (journal.mood === "fails") return yield* Effect.fail("no good")
      if (journal.mood === "dies") return yield* Effect.die("defect")
      if (journal.mood === "hangs") return yield* Effect.never
      return { number, shared }
    })
  )

const above = (journal: Journal) =>
  Layer.effect(
    Above,
    Effect.gen(function* () {
      const { number } = yield* Own
      yield* Effect.acquireRelease(
        Effect.sync(() => journal.log.push(`+above ${number}`)),
        () => Effect.sync(() => journal.log.push(`-above ${number}`))
      )
      return { own: number }
    })
  )

class User extends Actor.make("User", {
  *init(journal: Journal) {
    const { number, shared } = yield* Own
    journal.log.push(`+user ${number}`)
    yield* Effect.addFinalizer(() => Effect.sync(() => journal.log.push(`-user ${number}`)))
    return { number, shared, journal }
  },
  call: {
    number: (self) => self.state.number,
    shared: (self) => self.state.shared,
    inHandler: () => Effect.map(Own, ({ number }) => number),
    hang: (self) =>
      Effect.ensuring(
        Effect.never,
        Effect.map(Own, ({ number }) => self.state.journal.log.push(`-handler ${number}`))
      )
  },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  },
  terminate: (self) => {
    self.state.journal.log.push(`terminate ${self.state.number}`)
  }
}) {}

const shared = { name: "shared" }
const program = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Shared, shared)

const user = (journal: Journal, options?: ChildSpec.ChildOptions, last?: Effect.Effect<void>) =>
  ChildSpec.actor("user", User, journal, options).pipe(ChildSpec.provide(own(journal, last)))

describe("a layer of a child", () => {
  it.effect("is built before the init and closed after everything that the child itself has to close", () =>
    Effect.gen(function* () {
      const diary = journal()
      yield* Effect.scoped(program(Supervisor.start({ children: [user(diary)] })))
      assert.deepStrictEqual(diary.log, ["+layer 1", "+user 1", "terminate 1", "-user 1", "-layer 1"])
    })
  )

  for (const how of ["crash", "kill", "stop"] as const) {
    it.effect(`is built anew for each incarnation, after the one before is closed (${how})`, () =>
      Effect.gen(function* () {
        const diary = journal()
        const tree = yield* program(Supervisor.start({ children: [user(diary)] }))
        const ref = tree.refs.user
        assert.strictEqual(yield* ref.call.number(), 1)
        if (how === "crash") yield* ref.cast.crash()
        if (how === "kill") yield* ref.kill
        if (how === "stop") yield* ref.stop
        yield* settle
        assert.strictEqual(diary.built, 2)
        assert.strictEqual(yield* ref.call.number(), 2)
        assert.strictEqual(yield* ref.call.inHandler(), 2, "a handler has what its init had")
        const first = ["+layer 1", "+user 1", "terminate 1", "-user 1", "-layer 1", "+layer 2", "+user 2"]
        assert.deepStrictEqual(diary.log, first)
      })
    )
  }

  it.effect("is still there for the end of a handler that is cut short", () =>
    Effect.gen(function* () {
      const diary = journal()
      const tree = yield* program(Supervisor.start({ children: [user(diary, { restart: "temporary" })] }))
      yield* Effect.forkChild(Effect.exit(tree.refs.user.call.hang()))
      yield* settle
      yield* tree.refs.user.kill
      yield* settle
      assert.deepStrictEqual(diary.log, ["+layer 1", "+user 1", "-handler 1", "terminate 1", "-user 1", "-layer 1"])
    })
  )

  it.effect("what the program shares is the same object in every incarnation and every child", () =>
    Effect.gen(function* () {
      const diaries = [journal(), journal()]
      let builds = 0
      const outer = Layer.effect(
        Shared,
        Effect.sync(() => ({ name: `build ${++builds}` }))
      )
      yield* Effect.gen(function* () {
        const pool = yield* DynamicSupervisor.start()
        const here = yield* Shared
        for (const diary of diaries) {
          const ref = yield* pool.startChild(user(diary))
          assert.strictEqual(yield* ref.call.shared(), here)
          yield* ref.cast.crash()
          yield* settle
          assert.strictEqual(yield* ref.call.number(), 2)
          assert.strictEqual(yield* ref.call.shared(), here)
        }
      }).pipe(Effect.provide(outer))
      assert.strictEqual(builds, 1)
    })
  )

  it.effect("which the program has built too is built again for the child all the same", () =>
    Effect.gen(function* () {
      const diary = journal()
      const layer = own(diary)
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* Own).number, 1)
        const tree = yield* Supervisor.start({
          children: [ChildSpec.actor("user", User, diary).pipe(ChildSpec.provide(layer))]
        })
        assert.strictEqual(yield* tree.refs.user.call.number(), 2)
        yield* tree.refs.user.cast.crash()
        yield* settle
        assert.strictEqual(yield* tree.refs.user.call.number(), 3)
        assert.strictEqual((yield* Own).number, 1, "and the program keeps its own")
        assert.notInclude(diary.log, "-layer 1")
      }).pipe(Effect.provide(layer), program)
    })
  )

  it.effect("two children with one layer have a build each", () =>
    Effect.gen(function* () {
      const diary = journal()
      const layer = own(diary)
      const spec = <const Id extends string>(id: Id) => ChildSpec.actor(id, User, diary).pipe(ChildSpec.provide(layer))
      const tree = yield* program(Supervisor.start({ children: [spec("a"), spec("b")] }))
      assert.deepStrictEqual(yield* Effect.all([tree.refs.a.call.number(), tree.refs.b.call.number()]), [1, 2])
    })
  )

  it.effect("may need another one that is provided after it; they are closed in reverse", () =>
    Effect.gen(function* () {
      const diary = journal()
      const spec = ChildSpec.effect(
        "both",
        Effect.gen(function* () {
          const both = [(yield* Above).own, (yield* Own).number]
          diary.log.push(`run ${both.join()}`)
          return yield* Effect.never
        })
      ).pipe(ChildSpec.provide(above(diary)), ChildSpec.provide(own(diary)))
      const tree = yield* program(Supervisor.start({ children: [spec] }))
      yield* tree.refs.both.kill
      yield* settle
      yield* tree.terminateChild("both")
      const life = (n: number) => [`+layer ${n}`, `+above ${n}`, `run ${n},${n}`, `-above ${n}`, `-layer ${n}`]
      assert.deepStrictEqual(diary.log, [...life(1), ...life(2)])
    })
  )

  it.effect("leaves the spec that it was provided to as it was", () =>
    Effect.gen(function* () {
      const [one, other] = [journal(), journal()]
      const bare = ChildSpec.actor("user", User, one)
      const first = ChildSpec.provide(own(one))(bare)
      const second = ChildSpec.provide(own(other))(bare)
      const pool = yield* DynamicSupervisor.start()
      yield* program(pool.startChild(first))
      yield* program(pool.startChild(second))
      assert.deepStrictEqual([one.built, other.built], [1, 1])
      yield* Effect.provideService(pool.startChild(bare), Own, { number: 7, shared })
      assert.deepStrictEqual([one.built, other.built], [1, 1])
    })
  )
})

describe("a build that fails", () => {
  for (const [mood, expected] of [
    ["fails", "no good"],
    ["dies", "defect"]
  ] as const) {
    it.effect(`and ${mood} is a failed start that says why, and closes what was built`, () =>
      Effect.gen(function* () {
        const diary = journal()
        diary.mood = mood
        const started = program(Supervisor.start({ children: [user(diary)] }))
        const { reason } = yield* Effect.flip(started)
        assert.isTrue(reason._tag === "StartFailed" && rootOf(reason.exit) === expected)
        assert.deepStrictEqual(diary.log, ["+layer 1", "-layer 1"], "and its init never ran")
        const pool = yield* DynamicSupervisor.start()
        const failed = yield* Effect.flip(program(pool.startChild(user(diary))))
        assert.strictEqual(failed.reason._tag, "StartFailed")
        assert.deepStrictEqual(yield* pool.countChildren, counts(0, 0, 0, 0))
      })
    )
  }

  it.effect("closes also what another layer of the same child had built", () =>
    Effect.gen(function* () {
      const diary = journal()
      const broken = Layer.effect(Above, Effect.andThen(Own, Effect.fail("broken")))
      const spec = ChildSpec.effect("both", Above).pipe(ChildSpec.provide(broken), ChildSpec.provide(own(diary)))
      const { reason } = yield* Effect.flip(program(Supervisor.start({ children: [spec] })))
      assert.isTrue(reason._tag === "StartFailed" && rootOf(reason.exit) === "broken")
      assert.deepStrictEqual(diary.log, ["+layer 1", "-layer 1"])
    })
  )

  it.effect("during a restart costs an attempt, and the next attempt builds again", () =>
    Effect.gen(function* () {
      const diary = journal()
      const tree = yield* program(Supervisor.start({ intensity: { restarts: 2 }, children: [user(diary)] }))
      const events = yield* record(tree.events)
      diary.mood = "fails"
      yield* tree.refs.user.cast.crash()
      const exit = yield* tree.exit
      assert.isTrue(exit._tag === "Crash" && exit.error instanceof SupervisorError.SupervisorError)
      assert.strictEqual(diary.built, 3)
      assert.deepStrictEqual(diary.log.slice(-4), ["+layer 2", "-layer 2", "+layer 3", "-layer 3"])
      assert.strictEqual(tags(events).filter((tag) => tag === "StartFailed user").length, 2)
    })
  )

  it.effect("that takes longer than the start limit, layer and init together, is given up", () =>
    Effect.gen(function* () {
      const diary = journal()
      diary.mood = "hangs"
      const starting = yield* Effect.forkChild(
        Effect.flip(program(Supervisor.start({ children: [user(diary, { startLimit: "2 seconds" })] })))
      )
      yield* settle
      yield* TestClock.adjust(1999)
      assert.isTrue(pending(starting))
      yield* TestClock.adjust(1)
      assert.include((yield* Fiber.join(starting)).message, "gave no answer within 2s")
      assert.deepStrictEqual(diary.log, ["+layer 1", "-layer 1"])
    })
  )

  it.effect("and cannot be interrupted just then is waited for within the shutdown limit, and told as a zombie", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const stubborn = Layer.effect(
        Above,
        Effect.acquireRelease(
          Effect.andThen(
            Deferred.await(gate),
            Effect.sync(() => ({ own: log.push("acquired") }))
          ),
          () => Effect.sync(() => log.push("released"))
        )
      )
      const { it: pool, close } = yield* closable(DynamicSupervisor.start())
      const events = yield* record(pool.events)
      const limits = { startLimit: "1 second", shutdown: "2 seconds" } as const
      const spec = ChildSpec.effect("slow", Above, limits).pipe(ChildSpec.provide(stubborn))
      const starting = yield* Effect.forkChild(Effect.exit(pool.startChild(spec)))
      yield* settle
      yield* TestClock.adjust(2999)
      yield* settle
      assert.isTrue(pending(starting))
      yield* TestClock.adjust(1)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(starting)))
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.deepStrictEqual(log, ["acquired", "released"], "what comes late is given back at once")
      assert.deepStrictEqual(tags(events), ["Zombie slow", "StartFailed slow", "ZombieEnded slow"])
      yield* close
    })
  )

  it.effect("gives the names of its child back", () =>
    Effect.gen(function* () {
      const diary = journal()
      diary.mood = "hangs"
      const names = yield* Registry.make(User)
      const pool = yield* DynamicSupervisor.start()
      const spec = () => user(diary, { names: [names.name("it", undefined)], startLimit: "1 second" })
      const starting = yield* Effect.forkChild(Effect.exit(program(pool.startChild(spec()))))
      yield* settle
      assert.strictEqual(yield* names.count, 1, "it has them before its layer is built")
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(starting)))
      assert.strictEqual(yield* names.count, 0)
      diary.mood = "works"
      yield* program(pool.startChild(spec()))
      assert.strictEqual(yield* names.ref("it").call.number(), 2)
    })
  )

  it.effect("in an init that has nothing to run closes the layer too", () =>
    Effect.gen(function* () {
      const diary = journal()
      class Idle extends Actor.make("Idle", {
        *init(_arg: void) {
          yield* Own
          return Actor.ignore
        }
      }) {}
      const tree = yield* program(
        Supervisor.start({
          children: [ChildSpec.actor("idle", Idle, undefined).pipe(ChildSpec.provide(own(diary)))]
        })
      )
      assert.deepStrictEqual(yield* tree.countChildren, counts(1, 0, 0, 1))
      assert.deepStrictEqual(diary.log, ["+layer 1", "-layer 1"])
    })
  )
})

describe("the end of a layer", () => {
  it.effect("that is still being built comes with a kill of its child, as that of an init does", () =>
    Effect.gen(function* () {
      const diary = journal()
      const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 10 } })
      const actor = yield* program(pool.startChild(user(diary)))
      const spec = ChildSpec.effect("effect", Effect.andThen(Own, Effect.never)).pipe(ChildSpec.provide(own(diary)))
      const effect = yield* program(pool.startChild(spec))
      for (const ref of [actor, effect]) {
        diary.mood = "hangs"
        yield* ref.kill
        yield* settle
        const { built } = diary
        assert.strictEqual(diary.log.at(-1), `+layer ${built}`)
        diary.mood = "works"
        yield* ref.kill
        yield* settle
        assert.include(diary.log, `-layer ${built}`)
        assert.strictEqual(diary.built, built + 1, "and the next attempt is made")
      }
      assert.deepStrictEqual(yield* pool.countChildren, counts(2, 2, 0, 2))
    })
  )
  it.effect("that takes its time is part of the stop, within the child's limit", () =>
    Effect.gen(function* () {
      yield* woundUp
      const diary = journal()
      const { it: tree, close } = yield* closable(
        program(Supervisor.start({ children: [user(diary, { shutdown: "5 seconds" }, Effect.sleep("3 seconds"))] }))
      )
      yield* woundUp
      const closing = yield* Effect.forkChild(close)
      yield* settle
      yield* TestClock.adjust(2999)
      yield* settle
      assert.isTrue(pending(closing))
      assert.deepStrictEqual(diary.log.slice(-2), ["terminate 1", "-user 1"])
      yield* TestClock.adjust(1)
      yield* Fiber.join(closing)
      assert.strictEqual(diary.log.at(-1), "-layer 1")
      assert.strictEqual((yield* tree.exit)._tag, "Shutdown")
    })
  )

  it.effect("is waited for by the one who stops the actor through its ref", () =>
    Effect.gen(function* () {
      const diary = journal()
      const spec = user(diary, { restart: "temporary" }, Effect.sleep("1 second"))
      const tree = yield* program(Supervisor.start({ children: [spec] }))
      yield* TestClock.adjust(0)
      const stopping = yield* Effect.forkChild(tree.refs.user.stop, { startImmediately: true })
      yield* settle
      assert.deepStrictEqual(diary.log, ["+layer 1", "+user 1", "terminate 1", "-user 1"])
      assert.isTrue(pending(stopping))
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(diary.log.at(-1), "-layer 1")
      assert.isFalse(pending(stopping))
    })
  )

  it.effect("comes before the next incarnation has its own, unless it takes too long", () =>
    Effect.gen(function* () {
      const diary = journal()
      const tree = yield* program(
        Supervisor.start({ children: [user(diary, { shutdown: "2 seconds" }, Effect.sleep("3 seconds"))] })
      )
      const events = yield* record(tree.events)
      yield* woundUp
      yield* tree.refs.user.cast.crash()
      yield* settle
      yield* TestClock.adjust(1999)
      yield* settle
      assert.strictEqual(diary.built, 1)
      yield* TestClock.adjust(1)
      yield* settle
      assert.strictEqual(yield* tree.refs.user.call.number(), 2)
      assert.include(tags(events), "Zombie user")
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.include(diary.log, "-layer 1")
      assert.notInclude(diary.log, "-layer 2", "the late end of the first closes nothing of the second")
      const close = yield* Effect.forkChild(tree.terminateChild("user"))
      yield* settle
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(close)
    })
  )

  it.effect("that dies makes a clean end a crash", () =>
    Effect.gen(function* () {
      const diary = journal()
      const tree = yield* program(
        Supervisor.start({
          children: [
            user(
              diary,
              { restart: "transient" },
              Effect.suspend(() => (diary.built === 1 ? Effect.die("close") : Effect.void))
            )
          ]
        })
      )
      const events = yield* record(tree.events)
      yield* tree.refs.user.stop
      yield* settle
      const exit = events.find((event) => event._tag === "ChildExited")
      assert.isTrue(exit?._tag === "ChildExited" && exit.exit._tag === "Crash" && exit.exit.error === "close")
      assert.strictEqual(yield* tree.refs.user.call.number(), 2, "so a transient child comes back")
    })
  )
})

describe("children of every kind", () => {
  it.effect("an effect has its layer from its first step to the end of its finalizers", () =>
    Effect.gen(function* () {
      const diary = journal()
      const work = Effect.gen(function* () {
        const { number } = yield* Own
        yield* Effect.addFinalizer(() => Effect.map(Own, (own) => void diary.log.push(`-work ${own.number}`)))
        diary.log.push(`+work ${number}`)
        if (number < 3) return yield* Effect.fail("again")
        return number
      })
      const pool = yield* DynamicSupervisor.start()
      const spec = ChildSpec.effect("work", work, { restart: "transient" }).pipe(ChildSpec.provide(own(diary)))
      const ref = yield* program(pool.startChild(spec))
      assert.deepStrictEqual(yield* ref.exit, Exit.succeed(3))
      const life = (n: number) => [`+layer ${n}`, `+work ${n}`, `-work ${n}`, `-layer ${n}`]
      assert.deepStrictEqual(diary.log, [...life(1), ...life(2), ...life(3)])
    })
  )

  it.effect("all children of a supervisor share its layer, which lives as long as it does", () =>
    Effect.gen(function* () {
      const diary = journal()
      const inner = ChildSpec.supervisor("inner", {
        children: [ChildSpec.actor("a", User, diary), ChildSpec.actor("b", User, diary)]
      }).pipe(ChildSpec.provide(own(diary)))
      const tree = yield* program(Supervisor.start({ children: [inner] }))
      const { refs } = tree.refs.inner
      const numbers = Effect.all([refs.a.call.number(), refs.b.call.number()])
      assert.deepStrictEqual(yield* numbers, [1, 1])
      yield* refs.a.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* numbers, [1, 1], "the restart of one child builds nothing")
      yield* tree.refs.inner.kill
      yield* settle
      assert.deepStrictEqual(yield* numbers, [2, 2])
      yield* tree.terminateChild("inner")
      const stop = ["terminate", "-user"]
      assert.deepStrictEqual(
        diary.log.slice(-5),
        [...stop, ...stop].map((line) => `${line} 2`).concat("-layer 2"),
        "it is closed after the last child"
      )
      assert.strictEqual(diary.log.filter((line) => line === "-layer 1").length, 1)
    })
  )

  it.effect("the partitions of a supervisor share its layer, or have one each", () =>
    Effect.gen(function* () {
      const diary = journal()
      const bare = { partitions: 3, child: () => ChildSpec.actor("part", User, diary) }
      const one = PartitionSupervisor.childSpec("one", bare).pipe(ChildSpec.provide(own(diary)))
      const each = PartitionSupervisor.childSpec("each", { partitions: 3, child: () => user(diary) })
      const tree = yield* program(Supervisor.start({ children: [one, each] }))
      const numbers = ({
        partitions
      }: {
        readonly partitions: ReadonlyArray<(typeof tree.refs.one.partitions)[number]>
      }) => Effect.forEach(partitions, (ref) => ref.call.number())
      assert.deepStrictEqual(yield* numbers(tree.refs.one), [1, 1, 1])
      assert.deepStrictEqual(yield* numbers(tree.refs.each), [2, 3, 4])
    })
  )

  it.effect("children that are added have their own, in a list, a pool and a pool in a tree", () =>
    Effect.gen(function* () {
      const diary = journal()
      const tree = yield* Supervisor.start({
        children: [DynamicSupervisor.childSpec("pool"), TaskSupervisor.childSpec("tasks")]
      })
      const listed = yield* program(tree.startChild(user(diary)))
      const pooled = yield* program(tree.refs.pool.startChild(user(diary)))
      assert.deepStrictEqual(yield* Effect.all([listed.call.number(), pooled.call.number()]), [1, 2])
      yield* tree.terminateChild("user")
      assert.strictEqual(diary.log.at(-1), "-layer 1")
      yield* tree.restartChild("user")
      assert.strictEqual(yield* listed.call.number(), 3)
      yield* tree.refs.pool.terminateChild(pooled)
      assert.strictEqual(diary.log.at(-1), "-layer 2")
      const task = yield* tree.refs.tasks.async(
        program(
          Effect.provide(
            Effect.map(Own, ({ number }) => number),
            own(diary)
          )
        )
      )
      assert.strictEqual(yield* task.await, 4, "a task provides what it needs itself")
      assert.strictEqual(diary.log.at(-1), "-layer 4")
    })
  )

  it.effect("a group restart closes the layers of all and builds them anew, in order", () =>
    Effect.gen(function* () {
      const diary = journal()
      const spec = <const Id extends string>(id: Id) =>
        ChildSpec.actor(id, User, diary).pipe(ChildSpec.provide(own(diary)))
      const tree = yield* program(Supervisor.start({ strategy: "one_for_all", children: [spec("a"), spec("b")] }))
      diary.log.length = 0
      yield* tree.refs.a.cast.crash()
      yield* settle
      const end = (n: number) => [`terminate ${n}`, `-user ${n}`, `-layer ${n}`]
      const begin = (n: number) => [`+layer ${n}`, `+user ${n}`]
      assert.deepStrictEqual(diary.log, [...end(1), ...end(2), ...begin(3), ...begin(4)])
    })
  )
})

describe("the types", () => {
  it.effect("a provided service is no longer asked of the program, what its layer needs is", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.start()
      // @ts-expect-error the layer needs Shared
      const lacking: Effect.Effect<unknown, unknown> = pool.startChild(user(journal()))
      const whole: Effect.Effect<unknown, unknown> = program(pool.startChild(user(journal())))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(lacking)))
      yield* whole
    })
  )
})
