import { assert, describe, it } from "@effect/vitest"
import { Actor, ChildSpec, DynamicSupervisor, ExitReason, Supervisor } from "@tinkex/supervision"
import { Effect, Exit } from "effect"
import { settle, witness } from "../support.ts"
import { counts, refusedAs, statuses } from "./childSupport.ts"
import { alive } from "./memorySupport.ts"

const enough: ExitReason.ExitReason = { _tag: "Shutdown", info: "enough" }

/** A tree with a child of this restart type, and a sibling to which nothing happens. */
const pair = (restart: "permanent" | "transient" | "temporary") =>
  Effect.gen(function* () {
    const log: Array<string> = []
    const tree = yield* Supervisor.start({ children: [witness("it", log, { restart }), witness("other", log)] })
    log.length = 0
    return { log, tree, ref: tree.refs.it }
  })

const intensitySpent = (tree: {
  readonly snapshot: Effect.Effect<{ readonly intensity?: { readonly spent: number } }>
}) => Effect.map(tree.snapshot, ({ intensity }) => intensity?.spent)

describe("restart types", () => {
  it.effect("RT-01 a permanent child that ends normally is restarted, and counts do not change", () =>
    Effect.gen(function* () {
      const { log, ref, tree } = yield* pair("permanent")
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
      yield* ref.stop
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it2")
      assert.deepStrictEqual(log, ["-it", "+it"])
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
    })
  )

  it.effect("RT-02 a permanent child that ends with a shutdown is restarted", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* pair("permanent")
      yield* ref.stopWith(ExitReason.shutdown)
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it2")
      yield* ref.stopWith(enough)
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it3")
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
    })
  )

  it.effect("RT-04 a permanent child that crashes is restarted", () =>
    Effect.gen(function* () {
      const { log, ref, tree } = yield* pair("permanent")
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it2")
      yield* ref.kill
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it3")
      assert.deepStrictEqual(log, ["-it", "+it", "-it", "+it"])
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
    })
  )

  it.effect("RT-05 a transient child that ends normally is not restarted, and its spec is kept", () =>
    Effect.gen(function* () {
      const { log, ref, tree } = yield* pair("transient")
      yield* ref.stop
      yield* settle
      assert.deepStrictEqual(log, ["-it"])
      assert.deepStrictEqual(yield* statuses(tree), ["other running", "it stopped"])
      assert.strictEqual(yield* counts(tree), "2/1/0/2")
      assert.strictEqual((yield* Effect.flip(ref.call.ping())).reason._tag, "NoProcess")
    })
  )

  it.effect("RT-06 a transient child that ends with a shutdown is not restarted, but can be by hand", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* pair("transient")
      for (const [index, reason] of [ExitReason.shutdown, enough].entries()) {
        yield* ref.stopWith(reason)
        yield* settle
        assert.deepStrictEqual(yield* statuses(tree), ["other running", "it stopped"])
        yield* tree.restartChild("it")
        assert.strictEqual(yield* ref.call.ping(), `it${index + 2}`)
      }
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
    })
  )

  it.effect("RT-08 a transient child that crashes is restarted", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* pair("transient")
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it2")
      yield* ref.kill
      yield* settle
      assert.strictEqual(yield* ref.call.ping(), "it3")
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
    })
  )

  it.effect("RT-09 a temporary child that ends normally is forgotten", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("it", [], { restart: "temporary" })] })
      assert.strictEqual(yield* counts(tree), "1/1/0/1")
      yield* tree.refs.it.stop
      yield* settle
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
      assert.strictEqual(yield* refusedAs(tree.restartChild("it")), "NotFound")
    })
  )

  it.effect("RT-10 a temporary child that ends with a shutdown is forgotten, and its id is free", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [] })
      for (const reason of [ExitReason.shutdown, enough]) {
        const ref = yield* tree.startChild(witness("it", log, { restart: "temporary" }))
        yield* ref.stopWith(reason)
        yield* settle
        assert.strictEqual(yield* counts(tree), "0/0/0/0")
      }
      assert.deepStrictEqual(log, ["+it", "-it", "+it", "-it"])
    })
  )

  for (const [id, strategy] of [
    ["RT-12", "one_for_all"],
    ["RT-13", "rest_for_one"]
  ] as const) {
    it.effect(`${id} a temporary sibling that ${strategy} stops is not restarted and does not cost intensity`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        class Grim extends Actor.make("Grim", {
          *init(_arg: void) {
            yield* Effect.addFinalizer(() => Effect.die("grim"))
            return 0
          }
        }) {}
        const tree = yield* Supervisor.start({
          strategy,
          intensity: { restarts: 1 },
          children: [
            witness("a", log),
            witness("t", log, { restart: "temporary" }),
            ChildSpec.actor("grim", Grim, undefined, { restart: "temporary" }),
            witness("b", log)
          ]
        })
        log.length = 0
        yield* tree.refs.a.cast.crash()
        yield* settle
        assert.deepStrictEqual(log, ["-a", "-b", "-t", "+a", "+b"])
        assert.deepStrictEqual(yield* statuses(tree), ["b running", "a running"])
        assert.strictEqual(yield* intensitySpent(tree), 1)
        const again = yield* tree.startChild(witness("t", log, { restart: "temporary" }))
        assert.strictEqual(yield* again.call.ping(), "t1", "its id is free")
      })
    )
  }

  it.effect("RT-16 a transient child is kept: restarted after a crash and a kill, idle after a normal end", () =>
    Effect.gen(function* () {
      const { ref, tree } = yield* pair("transient")
      yield* ref.cast.crash()
      yield* settle
      assert.deepStrictEqual(yield* statuses(tree), ["other running", "it running"])
      yield* ref.kill
      yield* settle
      assert.deepStrictEqual(yield* statuses(tree), ["other running", "it running"])
      yield* ref.stop
      yield* settle
      assert.deepStrictEqual(yield* statuses(tree), ["other running", "it stopped"])
      assert.strictEqual((yield* tree.childSpec("it")).restart, "transient")
      assert.strictEqual(yield* refusedAs(tree.startChild(witness("it", []))), "AlreadyPresent")
    })
  )

  it.effect("RT-17 a temporary child is forgotten after a crash, a kill and a normal end, and its id is free", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [witness("it", log, { restart: "temporary" })] })
      let ref = tree.refs.it
      for (const end of ["crash", "kill", "stop"] as const) {
        yield* end === "crash" ? ref.cast.crash() : ref[end]
        yield* settle
        assert.deepStrictEqual(yield* statuses(tree), [])
        assert.strictEqual(yield* refusedAs(tree.childSpec("it")), "NotFound")
        ref = yield* tree.startChild(witness("it", log, { restart: "temporary" }))
        assert.strictEqual(yield* ref.call.ping(), "it1", "it is a new child")
      }
      assert.strictEqual(log.length, 7)
    })
  )
})

describe("arguments of temporary children", () => {
  interface Payload {
    readonly bytes: Uint8Array
  }

  class Forgetful extends Actor.make("Forgetful", {
    init: ({ bytes }: Payload) => ({ size: bytes.length }),
    call: { size: (self) => self.state.size },
    cast: { crash: () => Effect.die("crash") }
  }) {}

  const amount = 20
  const ids = Array.from({ length: amount }, (_, index) => `${index}`)
  const strategies = ["one_for_one", "one_for_all", "rest_for_one", "dynamic"] as const
  const restarts = ["permanent", "transient", "temporary"] as const

  type Adding = Pick<DynamicSupervisor.DynamicSupervisorRef, "startChild">

  const startOf = (strategy: (typeof strategies)[number]) =>
    strategy === "dynamic" ? DynamicSupervisor.start() : Supervisor.start({ strategy, children: [] })

  /** Adds an actor whose argument nobody else has. */
  const addActor = (tree: Adding, id: string, options: ChildSpec.ChildOptions) =>
    Effect.suspend(() => {
      const arg = { bytes: new Uint8Array(10_000) }
      const held = new WeakRef<object>(arg)
      return Effect.map(tree.startChild(ChildSpec.actor(id, Forgetful, arg, options)), (ref) => ({ held, ref }))
    })

  /** Adds an effect that ends at once, with something in its closure that nobody else has. */
  const addEffect = (tree: Adding, id: string, options: ChildSpec.ChildOptions) =>
    Effect.suspend(() => {
      const arg = { bytes: new Uint8Array(10_000) }
      const held = new WeakRef<object>(arg)
      const work = Effect.sync(() => arg.bytes.length)
      return Effect.map(tree.startChild(ChildSpec.effect(id, work, options)), (ref) => ({ held, ref }))
    })

  for (const strategy of strategies) {
    it.effect(`RT-14 start arguments of temporary children are not kept, those of others are (${strategy})`, () =>
      Effect.gen(function* () {
        const tree: Adding = yield* startOf(strategy)
        for (const restart of restarts) {
          const added = yield* Effect.forEach(ids, (id) => addActor(tree, `${restart}${id}`, { restart }))
          assert.strictEqual(yield* alive(added.map(({ held }) => held)), restart === "temporary" ? 0 : amount, restart)
          for (const { ref } of added) assert.strictEqual(yield* ref.call.size(), 10_000, "it is running")
        }
      })
    )
  }

  it.effect("RT-14 what a temporary effect has in its closure is not kept after its end, though its handle is", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [] })
      for (const restart of ["transient", "temporary"] as const) {
        const added = yield* Effect.forEach(ids, (id) => addEffect(tree, `${restart}${id}`, { restart }))
        for (const { ref } of added) assert.deepStrictEqual(yield* ref.exit, Exit.succeed(10_000))
        assert.strictEqual(yield* alive(added.map(({ held }) => held)), restart === "temporary" ? 0 : amount, restart)
        for (const { ref } of added) assert.deepStrictEqual(yield* ref.exit, Exit.succeed(10_000))
      }
    })
  )

  it.effect("RT-18 arguments of later temporary instances are not kept either, after the first one has ended", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start()
      const first = yield* addActor(tree, "w", { restart: "temporary" })
      yield* first.ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
      const later = yield* Effect.forEach(ids, () => addActor(tree, "w", { restart: "temporary" }))
      assert.strictEqual(yield* alive([first, ...later].map(({ held }) => held)), 0)
      for (const { ref } of later) assert.strictEqual(yield* ref.call.size(), 10_000, "it is running")
      const kept = yield* addActor(tree, "w", { restart: "transient" })
      assert.strictEqual(yield* alive([kept.held]), 1, "one that may be restarted keeps them")
    })
  )
})
