import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  type CallError,
  ChildSpec,
  DynamicSupervisor,
  Registry,
  Supervisor,
  type SupervisorError
} from "@tinkex/supervision"
import { Context, Deferred, Effect, Fiber, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { pending, settle } from "../support.ts"
import { refusal, woundUp } from "./dynamicSupport.ts"

interface Setting {
  readonly id: string
  readonly log: Array<string>
}

/** What an actor does with names of its own. A registry is typed by its actor, which therefore cannot name that type. */
interface Own {
  readonly register: (key: string, value: number) => Effect.Effect<void, SupervisorError.SupervisorError>
  readonly unregister: (key: string) => Effect.Effect<boolean>
  readonly update: (key: string, change: (value: number) => number) => Effect.Effect<boolean>
}

class Rooms extends Context.Service<Rooms, Own>()("test/Rooms") {}

/** An actor that takes names, gives them back, and notes what it is told. */
class Room extends Actor.make("Room", {
  *init(setting: Setting) {
    const rooms = yield* Rooms
    yield* Effect.addFinalizer(() => Effect.sync(() => setting.log.push(`-${setting.id}`)))
    return { ...setting, rooms }
  },
  call: {
    id: (self) => self.state.id,
    ping: (self) => self.generation,
    hang: () => Actor.later<never>(() => {}),
    take: (self, { key, value }: { readonly key: string; readonly value: number }) =>
      self.state.rooms.register(key, value),
    giveBack: (self, key: string) => self.state.rooms.unregister(key),
    raise: (self, key: string) => self.state.rooms.update(key, (value) => value + 1)
  },
  cast: {
    note: (self, text: string) => {
      self.state.log.push(`${self.state.id} ${text}`)
    },
    crash: () => {
      throw new Error("crash")
    }
  }
}) {}

const temporary = { restart: "temporary" } as const

const setup = (keys: "unique" | "duplicate" = "unique") =>
  Effect.gen(function* () {
    const rooms = yield* Registry.make<typeof Room, string, number>(Room, { keys })
    const pool = yield* DynamicSupervisor.start({ intensity: { restarts: 100 } })
    const log: Array<string> = []
    const open = (id: string, options?: ChildSpec.ChildOptions) =>
      Effect.provideService(pool.startChild(ChildSpec.actor(id, Room, { id, log }, options)), Rooms, rooms)
    return { rooms, pool, log, open }
  })

const owner = <A extends Actor.AnyActor, K, V>(registry: Registry.Registry<A, K, V>, key: K) =>
  Effect.map(registry.lookup(key), (entry) => Option.getOrUndefined(Option.map(entry, ({ ref }) => ref.id)))

describe("Registry", () => {
  for (const how of ["crash", "kill", "stop", "terminate"] as const) {
    it.effect(`RG-02 after ${how} the key of the owner is free at once for whoever learns of the end`, () =>
      Effect.gen(function* () {
        const { open, pool, rooms } = yield* setup()
        const first = yield* open("first", { ...temporary, names: [rooms.name("key", 1)] })
        const second = yield* open("second")
        assert.strictEqual(yield* refusal(open("third", { names: [rooms.name("key", 2)] })), "StartFailed")
        // this fiber is resumed by the end itself, before anybody else has a turn
        const successor = yield* Effect.exit(first.call.hang()).pipe(
          Effect.andThen(owner(rooms, "key")),
          Effect.tap((found) => Effect.sync(() => assert.isUndefined(found))),
          Effect.andThen(second.call.take({ key: "key", value: 3 })),
          Effect.forkChild
        )
        yield* settle
        assert.strictEqual(yield* owner(rooms, "key"), "first")
        if (how === "crash") yield* first.cast.crash()
        if (how === "kill") yield* first.kill
        if (how === "terminate") yield* pool.terminateChild(first)
        if (how === "stop") yield* first.stop
        yield* Fiber.join(successor)
        assert.strictEqual(yield* owner(rooms, "key"), "second")
      })
    )
  }

  it.effect("RG-03 an owner that has ended is not found, however long its finalizers take", () =>
    Effect.gen(function* () {
      class Slow extends Actor.make("Slow", {
        *init(last: Effect.Effect<void>) {
          yield* Effect.addFinalizer(() => last)
          return 0
        },
        call: { ping: (self) => self.generation },
        cast: { crash: () => Effect.die("crash") }
      }) {}
      const names = yield* Registry.make(Slow)
      const pool = yield* DynamicSupervisor.start()
      const slow = (id: string, last: Effect.Effect<void>) =>
        pool.startChild(ChildSpec.actor(id, Slow, last, { ...temporary, names: [names.name("key", undefined)] }))
      const first = yield* slow("first", Effect.sleep("3 seconds"))
      yield* woundUp
      yield* first.cast.crash()
      yield* settle
      assert.deepStrictEqual(
        (yield* pool.whichChildren).map(({ id, status }) => [id, status]),
        [["first", "restarting"]],
        "it is not gone yet"
      )
      assert.isTrue(Option.isNone(yield* names.lookup("key")))
      assert.strictEqual((yield* Effect.flip(names.ref("key").call.ping())).reason._tag, "NoProcess")
      yield* slow("second", Effect.void)
      yield* TestClock.adjust("3 seconds")
      yield* settle
      assert.strictEqual(yield* owner(names, "key"), "second", "the late end of the first takes nothing away")
    })
  )

  it.effect("RG-04 the owner, and nobody else, can change the value that is stored with its key", () =>
    Effect.gen(function* () {
      const { open, rooms } = yield* setup()
      const first = yield* open("first", { names: [rooms.name("key", 1)] })
      const second = yield* open("second")
      const value = Effect.map(rooms.lookup("key"), (entry) => Option.getOrThrow(entry).value)
      assert.isTrue(yield* first.call.raise("key"))
      assert.strictEqual(yield* value, 2)
      assert.isFalse(yield* second.call.raise("key"))
      assert.isFalse(yield* first.call.raise("other"))
      assert.isFalse(yield* rooms.update("key", () => 99), "outside an actor there is nobody to have it")
      assert.strictEqual(yield* value, 2)
    })
  )

  it.effect("RG-06 names taken and given back can be observed", () =>
    Effect.gen(function* () {
      const { open, pool, rooms } = yield* setup()
      const seen: Array<string> = []
      yield* rooms.events.pipe(
        Stream.runForEach(({ _tag, key, owner }) => Effect.sync(() => seen.push(`${_tag} ${key} ${owner}`))),
        Effect.forkScoped({ startImmediately: true })
      )
      const first = yield* open("first", { names: [rooms.name("a", 1)] })
      yield* first.call.take({ key: "b", value: 2 })
      yield* first.call.giveBack("b")
      yield* first.call.take({ key: "b", value: 3 })
      yield* first.cast.crash()
      yield* settle
      yield* pool.terminateChild(first)
      yield* settle
      assert.deepStrictEqual(seen, [
        "Registered a supervisor/first",
        "Registered b supervisor/first",
        "Unregistered b supervisor/first",
        "Registered b supervisor/first",
        "Unregistered a supervisor/first",
        "Unregistered b supervisor/first",
        "Registered a supervisor/first",
        "Unregistered a supervisor/first"
      ])
    })
  )

  it.effect("RG-07 a registry names servers: they are started with a name, found, called and stopped by it", () =>
    Effect.gen(function* () {
      const { log, open, rooms } = yield* setup()
      const names = [rooms.name("kitchen", 1)]
      const started = yield* open("a", { ...temporary, names })
      const kitchen = rooms.ref("kitchen")
      assert.strictEqual(yield* kitchen.call.id(), "a")
      yield* kitchen.cast.note("by name")
      assert.strictEqual(yield* kitchen.call.id(), yield* started.call.id())
      assert.deepStrictEqual(log, ["a by name"])
      const error = yield* Effect.flip(open("b", { names }))
      assert.isTrue(error.reason._tag === "StartFailed")
      assert.include(error.message, `the name "kitchen": it belongs to "supervisor/a"`)
      assert.strictEqual((yield* kitchen.getState).id, "a")
      yield* kitchen.stop
      assert.deepStrictEqual(log, ["a by name", "-a"])
      yield* open("b", { names })
      assert.strictEqual(yield* kitchen.call.id(), "b", "the ref finds whoever has the name now")
    })
  )

  it.effect("RG-07 a name follows a restarted child, and waits for it in a supervision tree", () =>
    Effect.gen(function* () {
      const rooms = yield* Registry.make<typeof Room, string, number>(Room)
      const log: Array<string> = []
      const tree = yield* Effect.provideService(
        Supervisor.start({
          children: [ChildSpec.actor("a", Room, { id: "a", log }, { names: [rooms.name("kitchen", 1)] })]
        }),
        Rooms,
        rooms
      )
      yield* rooms.ref("kitchen").cast.crash()
      yield* settle
      assert.strictEqual(yield* rooms.ref("kitchen").call.ping(), 2)
      assert.deepStrictEqual(yield* rooms.keys(tree.refs.a), ["kitchen"])
      assert.strictEqual(yield* rooms.count, 1)
    })
  )

  it.effect("RG-08 with duplicate keys many have one key, and all of them are dispatched to, in order", () =>
    Effect.gen(function* () {
      const { log, open, pool, rooms } = yield* setup("duplicate")
      const names = [rooms.name("news", 1)]
      const a = yield* open("a", { names })
      const b = yield* open("b", { names: [rooms.name("news", 2), rooms.name("other", 0)] })
      yield* open("c")
      yield* b.call.take({ key: "news", value: 3 })
      const values = Effect.map(rooms.lookupAll("news"), (entries) =>
        entries.map(({ ref, value }) => `${ref.id}${value}`)
      )
      assert.deepStrictEqual(yield* values, ["a1", "b2", "b3"])
      const told: Array<string> = []
      yield* rooms.dispatch("news", ({ ref, value }) => {
        told.push(`${ref.id}${value}`)
        return ref.cast.note(`gets ${value}`)
      })
      assert.deepStrictEqual(told, ["a1", "b2", "b3"])
      yield* rooms.dispatch("nobody", () => Effect.die("it has no owner"))
      yield* settle
      assert.deepStrictEqual(log.toSorted(), ["a gets 1", "b gets 2", "b gets 3"])
      assert.deepStrictEqual(yield* rooms.keys(b), ["news", "news", "other"])
      yield* pool.terminateChild(a)
      assert.deepStrictEqual(yield* values, ["b2", "b3"])
      assert.deepStrictEqual(
        (yield* rooms.select(({ key }) => key === "other")).map(({ ref }) => ref.id),
        ["b"]
      )
    })
  )

  for (const keys of ["unique", "duplicate"] as const) {
    it.effect(`RG-10 all entries of an owner vanish with its crash, with ${keys} keys`, () =>
      Effect.gen(function* () {
        const { open, rooms } = yield* setup(keys)
        const many = Array.from({ length: 200 }, (_, n) => `key ${n}`)
        const crashing = yield* open("crashing", { ...temporary, names: many.map((key) => rooms.name(key, 0)) })
        const staying = yield* open("staying", { names: [rooms.name("own", 0)] })
        yield* crashing.call.take({ key: "late", value: 0 })
        if (keys === "duplicate") yield* staying.call.take({ key: "late", value: 1 })
        assert.strictEqual(yield* rooms.count, keys === "unique" ? 202 : 203)
        yield* crashing.cast.crash()
        yield* settle
        assert.deepStrictEqual(
          (yield* rooms.select()).map(({ key, ref }) => `${key} ${ref.id}`),
          keys === "unique" ? ["own staying"] : ["own staying", "late staying"]
        )
        assert.deepStrictEqual(yield* rooms.keys(crashing), [])
      })
    )
  }

  it.effect("RG-11 a message can be sent by key; for a key of nobody a call fails at the sender", () =>
    Effect.gen(function* () {
      const { log, open, rooms } = yield* setup()
      yield* open("a", { names: [rooms.name("known", 0)] })
      yield* rooms.ref("known").cast.note("hello")
      assert.strictEqual(yield* rooms.ref("known").call.id(), "a")
      const nobody = rooms.ref("unknown")
      const requests: ReadonlyArray<Effect.Effect<unknown, CallError.CallError>> = [
        nobody.call.id(),
        nobody.within("1 minute").call.id(),
        nobody.getState,
        nobody.stop,
        nobody.incarnation,
        nobody.suspend
      ]
      for (const request of requests) {
        const error = yield* Effect.flip(request)
        assert.strictEqual(error.reason._tag, "NoProcess")
        assert.include(error.message, `"unknown"`)
      }
      yield* nobody.cast.note("lost")
      yield* nobody.kill
      yield* settle
      assert.deepStrictEqual(log, ["a hello"])
    })
  )

  it.effect("RG-11 a key that becomes free while a call waits gives that caller the end of the owner", () =>
    Effect.gen(function* () {
      const { open, rooms } = yield* setup()
      const gate = yield* Deferred.make<void>()
      const first = yield* open("a", { ...temporary, names: [rooms.name("known", 0)] })
      const waiting = yield* Effect.flip(rooms.ref("known").call.hang()).pipe(
        Effect.ensuring(Deferred.succeed(gate, undefined)),
        Effect.forkChild
      )
      yield* settle
      assert.isTrue(pending(waiting))
      yield* first.kill
      yield* Deferred.await(gate)
      assert.strictEqual((yield* Fiber.join(waiting)).reason._tag, "TargetExit")
    })
  )
})
