import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  type ActorRef,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Registry,
  Supervisor,
  SupervisorError,
  Watch
} from "@tinkex/supervision"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Option, Schema, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { closable, problem, refusal, rootOf, woundUp } from "./otp/dynamicSupport.ts"
import { pending, settle } from "./support.ts"

/** What an actor does with names of its own. */
interface Own {
  readonly register: (key: string, value: object) => Effect.Effect<void, SupervisorError.SupervisorError>
  readonly unregister: (key: string) => Effect.Effect<boolean>
  readonly update: (key: string, change: (value: object) => object) => Effect.Effect<boolean>
}

class Names extends Context.Service<Names, Own>()("test/Names") {}

/** What the starts of a `Body` do; it is changed while a test runs. */
interface Script {
  /** Run by the init, with what the registry offers. */
  init: (names: Own) => Effect.Effect<unknown, unknown, Scope.Scope>
}

const script = (init: Script["init"] = () => Effect.void): Script => ({ init })

class Body extends Actor.make("Body", {
  *init(script: Script) {
    const names = yield* Names
    yield* script.init(names)
    return { names }
  },
  call: {
    ping: (self) => self.generation,
    register: (self, key: string) => self.state.names.register(key, {}),
    unregister: (self, key: string) => self.state.names.unregister(key),
    /** Whatever it is told, as its handler. */
    *run(self, work: (names: Own) => Effect.Effect<unknown, unknown>) {
      return yield* Effect.exit(work(self.state.names))
    }
  },
  cast: {
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

const temporary = { restart: "temporary" } as const

const setup = Effect.gen(function* () {
  const names = yield* Registry.make<typeof Body, string, object>(Body)
  const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 1000 } })
  const events: Array<string> = []
  yield* names.events.pipe(
    Stream.runForEach(({ _tag, key, owner }) => Effect.sync(() => events.push(`${_tag} ${key} ${owner}`))),
    Effect.forkScoped({ startImmediately: true })
  )
  const spec = (id: string, script: Script, options?: ChildSpec.ChildOptions) =>
    ChildSpec.actor(id, Body, script, options).pipe(ChildSpec.provide(Layer.succeed(Names, names)))
  const start = (id: string, script: Script, options?: ChildSpec.ChildOptions) =>
    pool.startChild(spec(id, script, options))
  const owner = (key: string) =>
    Effect.map(names.lookup(key), (entry) =>
      Option.getOrUndefined(Option.map(entry, ({ ref }) => `${ref.id}${ref.generation}`))
    )
  return { names, pool, events, spec, start, owner }
})

const reasonOf = (exit: Exit.Exit<unknown, unknown>) => {
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  return error instanceof SupervisorError.SupervisorError ? error.reason._tag : exit._tag
}

describe("a late fiber of an old incarnation", () => {
  /** What a fiber that an init left behind comes to when the incarnation has been replaced. */
  const late = (work: (names: Own) => Effect.Effect<unknown, unknown>, keeps: boolean) =>
    Effect.gen(function* () {
      const world = yield* setup
      const gate = yield* Deferred.make<void>()
      const outcome = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      let starts = 0
      const body = script((names) => {
        if (++starts > 1) return names.register("key", { by: "second" })
        const behind = Deferred.await(gate).pipe(
          Effect.andThen(Effect.exit(work(names))),
          Effect.flatMap((exit) => Deferred.succeed(outcome, exit)),
          Effect.forkDetach
        )
        return keeps
          ? Effect.andThen(
              behind,
              Effect.addFinalizer(() => Effect.void)
            )
          : behind
      })
      const ref = yield* world.start("body", body)
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), 2)
      yield* Deferred.succeed(gate, undefined)
      return { ...world, ref, exit: yield* Deferred.await(outcome) }
    })

  for (const keeps of [false, true]) {
    const init = keeps ? "an init with something to clean up" : "an init with nothing to clean up"

    it.effect(`N3: of ${init} takes no name, neither for itself nor for its successor`, () =>
      Effect.gen(function* () {
        const { exit, names } = yield* late((names) => names.register("late", {}), keeps)
        assert.strictEqual(reasonOf(exit), "InvalidRequest")
        assert.isTrue(Option.isNone(yield* names.lookup("late")))
      })
    )

    it.effect(`N3: of ${init} gives no name of its successor back, and changes no value`, () =>
      Effect.gen(function* () {
        const work = (names: Own) => Effect.all([names.unregister("key"), names.update("key", () => ({ by: "first" }))])
        const { exit, names, owner } = yield* late(work, keeps)
        assert.deepStrictEqual(exit, Exit.succeed([false, false]))
        assert.strictEqual(yield* owner("key"), "body2")
        assert.deepStrictEqual(Option.getOrThrow(yield* names.lookup("key")).value, { by: "second" })
      })
    )
  }

  it.effect("N3: a handler that was left behind as a zombie has no name and takes none", () =>
    Effect.gen(function* () {
      const { owner, start } = yield* setup
      const gate = yield* Deferred.make<void>()
      const outcome = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const ref = yield* start(
        "body",
        script((names) => names.register("key", {})),
        { shutdown: "brutal" }
      )
      const work = (names: Own) =>
        Effect.uninterruptible(
          Effect.gen(function* () {
            yield* Deferred.await(gate)
            const gone = yield* names.unregister("key")
            const exit = yield* Effect.exit(names.register("late", {}))
            yield* Deferred.succeed(outcome, gone ? Exit.void : exit)
          })
        )
      yield* Effect.forkChild(Effect.exit(ref.call.run(work)))
      yield* settle
      yield* ref.kill
      yield* settle
      assert.strictEqual(yield* owner("key"), "body2")
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(reasonOf(yield* Deferred.await(outcome)), "InvalidRequest")
      assert.strictEqual(yield* owner("key"), "body2")
      assert.isUndefined(yield* owner("late"))
    })
  )

  it.effect("N3: the late finalizers of the old incarnation take no name from the new one", () =>
    Effect.gen(function* () {
      yield* woundUp
      const { names, owner, start } = yield* setup
      const body = script((names) =>
        Effect.addFinalizer(() => Effect.andThen(Effect.sleep("9 seconds"), names.unregister("key")))
      )
      const ref = yield* start("body", body, { names: [names.name("key", {})], shutdown: "2 seconds" })
      yield* ref.cast.crash()
      yield* settle
      assert.isUndefined(yield* owner("key"), "it is nobody's while the old one ends")
      body.init = () => Effect.void
      yield* TestClock.adjust("2 seconds")
      yield* settle
      assert.strictEqual(yield* owner("key"), "body2")
      yield* TestClock.adjust("7 seconds")
      yield* settle
      assert.strictEqual(yield* owner("key"), "body2")
    })
  )

  it.effect("N3: the end of one that gave its name back leaves the one who took it alone", () =>
    Effect.gen(function* () {
      const { owner, pool, start } = yield* setup
      const [one, other] = [yield* start("one", script()), yield* start("other", script())]
      yield* one.call.register("key")
      assert.isTrue(yield* one.call.unregister("key"))
      assert.isFalse(yield* one.call.unregister("key"))
      yield* other.call.register("key")
      assert.isFalse(yield* one.call.unregister("key"), "it is not its own")
      yield* pool.terminateChild(one)
      assert.strictEqual(yield* owner("key"), "other1")
    })
  )
})

describe("a start that fails", () => {
  const failures: Record<string, Script["init"]> = {
    "a typed failure": () => Effect.fail("no good"),
    "a defect": () => Effect.die("defect"),
    "a failure after names were taken": (names) => Effect.andThen(names.register("more", {}), Effect.fail("no good")),
    "an interruption": () => Effect.interrupt
  }

  for (const [words, init] of Object.entries(failures)) {
    it.effect(`N2: with ${words} has given its names back when it returns`, () =>
      Effect.gen(function* () {
        const { events, names, start } = yield* setup
        const options = { names: [names.name("a", {}), names.name("b", {})] }
        assert.strictEqual(yield* refusal(start("body", script(init), options)), "StartFailed")
        assert.strictEqual(yield* names.count, 0)
        yield* start("other", script(), options)
        yield* settle
        assert.strictEqual(events.filter((event) => event.startsWith("Registered a")).length, 2)
      })
    )
  }

  it.effect("N2: has given its names back before its finalizers are done", () =>
    Effect.gen(function* () {
      yield* woundUp
      const { names, start } = yield* setup
      const init = () =>
        Effect.andThen(
          Effect.addFinalizer(() => Effect.sleep("2 seconds")),
          Effect.fail("no good")
        )
      const starting = yield* Effect.forkChild(
        Effect.exit(start("body", script(init), { names: [names.name("a", {})] }))
      )
      yield* settle
      assert.isTrue(pending(starting))
      assert.strictEqual(yield* names.count, 0)
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(starting)
    })
  )

  it.effect("N2: because it takes too long gives them back, and a late success of its init takes none", () =>
    Effect.gen(function* () {
      const { names, start } = yield* setup
      const gate = yield* Deferred.make<void>()
      const outcome = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const init = (own: Own) =>
        Effect.uninterruptible(
          Deferred.await(gate).pipe(
            Effect.andThen(Effect.exit(own.register("late", {}))),
            Effect.flatMap((exit) => Deferred.succeed(outcome, exit))
          )
        )
      const starting = yield* Effect.forkChild(
        Effect.exit(start("body", script(init), { names: [names.name("a", {})], startLimit: 1000, shutdown: "brutal" }))
      )
      yield* settle
      assert.strictEqual(yield* names.count, 1)
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(starting)))
      assert.strictEqual(yield* names.count, 0)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(reasonOf(yield* Deferred.await(outcome)), "InvalidRequest")
      assert.strictEqual(yield* names.count, 0)
    })
  )

  it.effect("N2: because one of its names is taken has taken none of the others, and its init never ran", () =>
    Effect.gen(function* () {
      const { names, owner, start } = yield* setup
      yield* start("owner", script(), { names: [names.name("b", {})] })
      let ran = false
      const body = script(() => Effect.sync(() => void (ran = true)))
      const error = yield* Effect.flip(
        start("body", body, { names: [names.name("a", {}), names.name("b", {}), names.name("c", {})] })
      )
      assert.isTrue(error.reason._tag === "StartFailed" && rootOf(error.reason.exit) === "AlreadyRegistered")
      assert.isFalse(ran)
      assert.deepStrictEqual(yield* Effect.forEach(["a", "b", "c"], owner), [undefined, "owner1", undefined])
    })
  )

  it.effect("N2: while its starter is interrupted, as part of a tree, leaves no name taken", () =>
    Effect.gen(function* () {
      const { names, spec } = yield* setup
      const children = [
        spec("up", script(), { names: [names.name("up", {})] }),
        spec(
          "hangs",
          script(() => Effect.never),
          { names: [names.name("hangs", {})] }
        )
      ]
      const starting = yield* Effect.forkChild(Effect.scoped(Supervisor.start({ children })))
      yield* settle
      assert.strictEqual(yield* names.count, 2)
      yield* Fiber.interrupt(starting)
      assert.strictEqual(yield* names.count, 0)
    })
  )

  it.effect("a restart that finds its name taken meanwhile fails, and tries again until it is free", () =>
    Effect.gen(function* () {
      const { names, owner, pool, start } = yield* setup
      const gate = yield* Deferred.make<void>()
      const body = script(() => Effect.addFinalizer(() => Deferred.await(gate)))
      const ref = yield* start("body", body, { names: [names.name("key", {})], shutdown: "infinity" })
      yield* ref.cast.crash()
      yield* settle
      const thief = yield* start("thief", script(), { names: [names.name("key", {})] })
      body.init = () => Effect.void
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      assert.strictEqual(yield* owner("key"), "thief1")
      assert.include(
        (yield* pool.whichChildren).map(({ id, status }) => `${id} ${status}`),
        "body restarting"
      )
      yield* pool.terminateChild(thief)
      yield* settle
      assert.strictEqual(yield* owner("key"), "body2")
    })
  )
})

describe("who may take a name", () => {
  it.effect("N1: two live incarnations never have one unique key, and the owner does not have it twice", () =>
    Effect.gen(function* () {
      const { owner, start } = yield* setup
      const [one, other] = [yield* start("one", script()), yield* start("other", script())]
      yield* one.call.register("key")
      const failed = yield* Effect.flip(other.call.register("key"))
      assert.isTrue(failed instanceof SupervisorError.SupervisorError && failed.reason._tag === "AlreadyRegistered")
      assert.include(failed.message, `"supervisor/one"`)
      const twice = yield* Effect.flip(one.call.register("key"))
      assert.isTrue(twice instanceof SupervisorError.SupervisorError && twice.reason._tag === "AlreadyRegistered")
      assert.strictEqual(yield* owner("key"), "one1")
    })
  )

  it.effect("nobody but an actor of the registry's class: no fiber, no effect child, no other actor", () =>
    Effect.gen(function* () {
      const { names, pool } = yield* setup
      assert.strictEqual(yield* refusal(names.register("key", {})), "InvalidRequest")
      assert.isFalse(yield* names.unregister("key"))
      const effect = yield* pool.startChild(ChildSpec.effect("effect", names.register("key", {}), temporary))
      assert.strictEqual(reasonOf(yield* effect.exit), "InvalidRequest")
      class Other extends Actor.make("Other", {
        init: (_arg: void) => 0,
        call: { register: () => Effect.exit(names.register("key", {})) }
      }) {}
      const other = yield* pool.startChild(ChildSpec.actor("other", Other, undefined))
      assert.strictEqual(reasonOf(yield* other.call.register()), "InvalidRequest")
      const listed = ChildSpec.actor("listed", Other, undefined, { names: [names.name("key", {})] })
      assert.include(yield* problem(pool.startChild(listed)), "names[0]: it is of a registry for other actors")
      assert.strictEqual(yield* names.count, 0)
    })
  )

  it.effect("an actor without a supervisor too, and actors of different trees in one registry", () =>
    Effect.gen(function* () {
      const { names, owner, start } = yield* setup
      const { it: alone, close } = yield* closable(
        Effect.provideService(
          Actor.start(Body, script(), { id: "alone", names: [names.name("key", {})] }),
          Names,
          names
        )
      )
      assert.strictEqual(yield* owner("key"), "alone1")
      const body = yield* start("body", script())
      yield* Effect.flip(body.call.register("key"))
      assert.strictEqual(yield* alone.call.ping(), 1)
      yield* close
      assert.isUndefined(yield* owner("key"))
      yield* body.call.register("key")
      assert.strictEqual(yield* owner("key"), "body1")
    })
  )
})

describe("what a registry tells", () => {
  it.effect("the keys of an actor, and of one incarnation of it", () =>
    Effect.gen(function* () {
      const { names, start } = yield* setup
      const ref = yield* start("body", script(), { names: [names.name("listed", {})] })
      yield* ref.call.register("taken")
      const first = yield* ref.incarnation
      assert.deepStrictEqual(yield* names.keys(first), ["listed", "taken"])
      yield* ref.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* names.keys(ref), ["listed"])
      assert.deepStrictEqual(yield* names.keys(first), [])
      assert.deepStrictEqual(yield* names.keys(yield* ref.incarnation), ["listed"])
      assert.deepStrictEqual(yield* names.keys(names.ref("nobody")), [])
    })
  )

  it.effect("each event in order, to every reader from when it began to read", () =>
    Effect.gen(function* () {
      const { events, names, pool, start } = yield* setup
      const ref = yield* start(
        "body",
        script((names) => names.register("from init", {})),
        {
          names: [names.name("listed", {})]
        }
      )
      yield* settle
      const late: Array<string> = []
      yield* names.events.pipe(
        Stream.runForEach(({ _tag, key }) => Effect.sync(() => late.push(`${_tag} ${key}`))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* ref.cast.crash()
      yield* settle
      yield* pool.terminateChild(ref)
      yield* settle
      const life = ["Registered listed", "Registered from init", "Unregistered listed", "Unregistered from init"]
      assert.deepStrictEqual(
        events,
        [...life, ...life].map((event) => `${event} supervisor/body`)
      )
      assert.deepStrictEqual(late, [...life.slice(2), ...life])
    })
  )

  it.effect("an entry is a picture: it does not change with what happens later, and its ref is exact", () =>
    Effect.gen(function* () {
      const { names, start } = yield* setup
      const ref = yield* start("body", script(), { names: [names.name("key", { value: 1 })] })
      const entry = Option.getOrThrow(yield* names.lookup("key"))
      const changed = yield* ref.call.run((names) => names.update("key", () => ({ value: 2 })))
      assert.deepStrictEqual(changed, Exit.succeed(true))
      yield* ref.cast.crash()
      yield* settle
      assert.deepStrictEqual(entry.value, { value: 1 })
      assert.strictEqual((yield* Effect.flip(entry.ref.call.ping())).reason._tag, "NoProcess")
      const next = Option.getOrThrow(yield* names.lookup("key"))
      assert.deepStrictEqual(next.value, { value: 1 }, "a restarted child has the value of its spec")
      assert.strictEqual(yield* next.ref.call.ping(), 2)
    })
  )

  it.effect("the end of a named one to those who watch it by name, once", () =>
    Effect.gen(function* () {
      const { names, start } = yield* setup
      const ref = yield* start("body", script(), { names: [names.name("key", {})] })
      const byName = names.ref("key")
      const monitor = yield* Watch.monitor(byName)
      yield* ref.kill
      yield* settle
      assert.strictEqual(yield* byName.call.ping(), 2)
      assert.deepStrictEqual(yield* monitor.down, {
        target: "supervisor/body",
        generation: 1,
        exit: ExitReason.killed
      })
    })
  )
})

describe("what a registry keeps", () => {
  it.effect("nothing of a name that was given back, however long its former owner lives", () =>
    Effect.gen(function* () {
      const { start } = yield* setup
      const ref = yield* start("body", script())
      const kept: Array<WeakRef<object>> = []
      yield* ref.call.run((names) =>
        Effect.forEach(Array.from({ length: 50 }), (_, n) =>
          Effect.suspend(() => {
            const value = { n }
            kept.push(new WeakRef(value))
            return Effect.andThen(names.register("key", value), names.unregister("key"))
          })
        )
      )
      setFlagsFromString("--expose-gc")
      const collect: () => void = runInNewContext("gc")
      yield* settle
      collect()
      assert.isAtMost(kept.filter((value) => value.deref() !== undefined).length, 1)
      assert.strictEqual(yield* ref.call.ping(), 1)
    })
  )
})

describe("everything at once", () => {
  const Op = Schema.Struct({
    what: Schema.Literals(["start", "take", "take", "give back", "crash", "kill", "stop", "terminate", "settle"]),
    key: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3 })),
    which: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 })),
    listed: Schema.Boolean
  })

  it.effect.prop(
    "N1, N4: the owner of a key is always alive, and each key has one; in the end none is left",
    [Schema.Array(Op).check(Schema.isMaxLength(60))],
    ([ops]) =>
      Effect.gen(function* () {
        const world = yield* setup
        const { it: pool, close } = yield* closable(DynamicSupervisor.start({ intensity: { restarts: 100_000 } }))
        const owners = new Map<string, string>()
        const problems: Array<string> = []
        yield* world.names.events.pipe(
          Stream.runForEach(({ _tag, key, owner }) =>
            Effect.sync(() => {
              const known = owners.get(key)
              if (known !== (_tag === "Unregistered" ? owner : undefined)) {
                problems.push(`${_tag} ${key} ${owner}, and its owner was ${known ?? "nobody"}`)
              }
              if (_tag === "Unregistered") owners.delete(key)
              else owners.set(key, owner)
            })
          ),
          Effect.forkScoped({ startImmediately: true })
        )
        const refs: Array<ActorRef.ActorRef<typeof Body>> = []
        for (const [index, { key, listed, what, which }] of ops.entries()) {
          const name = `key ${key}`
          const ref = refs[which % Math.max(1, refs.length)]
          if (what === "settle") yield* settle
          else if (what === "start") {
            const names = listed ? [world.names.name(name, {})] : []
            const exit = yield* Effect.exit(pool.startChild(world.spec(`body ${index}`, script(), { names })))
            if (Exit.isSuccess(exit)) refs.push(exit.value)
          } else if (ref === undefined) continue
          else if (what === "take") yield* Effect.forkChild(Effect.exit(ref.call.register(name)))
          else if (what === "give back") yield* Effect.forkChild(Effect.exit(ref.call.unregister(name)))
          else if (what === "crash") yield* ref.cast.crash()
          else if (what === "kill") yield* ref.kill
          else if (what === "stop") yield* Effect.forkChild(Effect.exit(ref.stop))
          else yield* Effect.forkChild(Effect.exit(pool.terminateChild(ref)))
          const entries = yield* world.names.select()
          assert.strictEqual(new Set(entries.map(({ key }) => key)).size, entries.length)
          for (const entry of entries) {
            const { status } = (yield* pool.whichChildren).find(({ id }) => id === entry.ref.id) ?? { status: "gone" }
            assert.include(["running", "starting"], status)
          }
        }
        yield* close
        yield* settle
        assert.strictEqual(yield* world.names.count, 0)
        assert.strictEqual(owners.size, 0)
        assert.deepStrictEqual(problems, [])
      }),
    { arbitrary: { runs: 100, size: 60 } }
  )
})
