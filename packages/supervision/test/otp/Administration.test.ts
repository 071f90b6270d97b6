import { assert, describe, it } from "@effect/vitest"
import { Actor, Backoff, ChildSpec, DynamicSupervisor, ExitReason, Supervisor, Watch } from "@tinkex/supervision"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { record, settle, tags, witness } from "../support.ts"
import { Fragile, counts, refusal, refusedAs, statuses } from "./childSupport.ts"

/** Tells its starter something besides its state, another thing with every start. */
class Telling extends Actor.make("Telling", {
  init: (infos: Array<unknown>) => Actor.withInfo("state", infos.shift()),
  call: { state: (self) => self.state },
  cast: { crash: () => Effect.die("crash") }
}) {}

describe("child administration", () => {
  it.effect(
    "AD-01 adding a spec whose id is running is refused by the child's name, and the running one is untouched",
    () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const tree = yield* Supervisor.start({ name: "shop", children: [witness("a", log)] })
        const reason = yield* refusal(tree.startChild(witness("a", log)))
        assert.isTrue(reason._tag === "AlreadyStarted" && reason.supervisor === "shop" && reason.child === "a")
        assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
        assert.deepStrictEqual(log, ["+a"])
        assert.strictEqual(yield* counts(tree), "1/1/0/1")
      })
  )

  it.effect("AD-02 terminating an unknown id finds nothing", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ name: "shop", children: [witness("a", [])] })
      const reason = yield* refusal(tree.terminateChild("x"))
      assert.isTrue(reason._tag === "NotFound" && reason.supervisor === "shop" && reason.child === "x")
      assert.deepStrictEqual(yield* statuses(tree), ["a running"])
    })
  )

  it.effect("AD-04 terminating a running child stops it with a shutdown and keeps its spec as not running", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [witness("a", log), witness("b", log)] })
      const { down } = yield* Watch.monitor(tree.refs.a)
      yield* tree.terminateChild("a")
      assert.deepStrictEqual((yield* down).exit, ExitReason.shutdown)
      assert.deepStrictEqual(log, ["+a", "+b", "-a"])
      assert.deepStrictEqual(yield* statuses(tree), ["b running", "a stopped"])
      assert.strictEqual((yield* tree.childSpec("a")).restart, "permanent")
      assert.strictEqual((yield* Effect.flip(tree.refs.a.call.ping())).reason._tag, "NoProcess")
    })
  )

  it.effect("AD-05 terminating a child a second time succeeds", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      const events = yield* record(tree.events)
      yield* tree.terminateChild("a")
      yield* tree.terminateChild("a")
      assert.deepStrictEqual(yield* statuses(tree), ["a stopped"])
      yield* settle
      assert.deepStrictEqual(tags(events), ["ChildStarted a", "ChildStopped a"], "it was stopped once")
    })
  )

  it.effect("AD-06 adding a spec whose id is known but not running is refused as already present", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [witness("a", log)] })
      yield* tree.terminateChild("a")
      assert.strictEqual(yield* refusedAs(tree.startChild(witness("a", log))), "AlreadyPresent")
      assert.deepStrictEqual(log, ["+a", "-a"])
      assert.deepStrictEqual(yield* statuses(tree), ["a stopped"])
    })
  )

  it.effect("AD-08 a restart by hand of a running child is refused, and it goes on", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      assert.strictEqual(yield* refusedAs(tree.restartChild("a")), "Running")
      assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
    })
  )

  it.effect("AD-09 a restart by hand of an unknown id finds nothing", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      assert.strictEqual(yield* refusedAs(tree.restartChild("x")), "NotFound")
    })
  )

  it.effect("AD-10 deleting a running child is refused, and it goes on", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      assert.strictEqual(yield* refusedAs(tree.deleteChild("a")), "Running")
      assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
      assert.strictEqual(yield* refusedAs(tree.deleteChild("x")), "NotFound")
    })
  )

  it.effect("AD-12 terminating and then deleting a child removes its spec", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      yield* tree.terminateChild("a")
      yield* tree.deleteChild("a")
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
      assert.deepStrictEqual(yield* tree.whichChildren, [])
      assert.strictEqual(yield* refusedAs(tree.childSpec("a")), "NotFound")
      assert.strictEqual(yield* refusedAs(tree.terminateChild("a")), "NotFound")
    })
  )

  it.effect("AD-13 the same spec can be added again after it was deleted", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const spec = witness("a", log)
      const tree = yield* Supervisor.start({ children: [spec] })
      yield* tree.terminateChild("a")
      yield* tree.deleteChild("a")
      const again = yield* tree.startChild(spec)
      assert.strictEqual(yield* again.call.ping(), "a1", "it is a new child")
      assert.deepStrictEqual(log, ["+a", "-a", "+a"])
      assert.strictEqual(yield* counts(tree), "1/1/0/1")
    })
  )

  it.effect("AD-14 a handle is not accepted where an id is expected, and the child keeps running", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("a", [])] })
      const { a } = tree.refs
      const exact = yield* a.incarnation
      for (const handle of [a, exact, tree]) {
        // @ts-expect-error children of a list are known by their ids
        assert.strictEqual(yield* refusedAs(tree.terminateChild(handle)), "NotFound")
        // @ts-expect-error children of a list are known by their ids
        assert.strictEqual(yield* refusedAs(tree.restartChild(handle)), "NotFound")
        // @ts-expect-error children of a list are known by their ids
        assert.strictEqual(yield* refusedAs(tree.deleteChild(handle)), "NotFound")
        // @ts-expect-error children of a list are known by their ids
        assert.strictEqual(yield* refusedAs(tree.childSpec(handle)), "NotFound")
      }
      assert.strictEqual(yield* a.call.ping(), "a1")
      assert.deepStrictEqual(yield* statuses(tree), ["a running"])
    })
  )

  it.effect("AD-16 two instances of one spec are both listed and counted; their handles tell them apart", () =>
    Effect.gen(function* () {
      const spec = witness("w", [])
      const tree = yield* DynamicSupervisor.start()
      const first = yield* tree.startChild(spec)
      const second = yield* tree.startChild(spec)
      assert.deepStrictEqual(yield* statuses(tree), ["w running", "w running"])
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
      yield* second.cast.crash()
      yield* settle
      assert.strictEqual(yield* first.call.ping(), "w1")
      assert.strictEqual(yield* second.call.ping(), "w2")
    })
  )

  it.effect("AD-17 a dynamic supervisor refuses to terminate by id, and the child keeps running", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start()
      const ref = yield* tree.startChild(witness("w", []))
      // @ts-expect-error children of a dynamic supervisor are known by their handles
      const reason = yield* refusal(tree.terminateChild("w"))
      assert.isTrue(reason._tag === "InvalidRequest" && reason.problem.includes("no handle"))
      // @ts-expect-error children of a dynamic supervisor are known by their handles
      assert.strictEqual(yield* refusedAs(tree.childSpec("w")), "InvalidRequest")
      assert.strictEqual(yield* ref.call.ping(), "w1")
      assert.strictEqual(yield* counts(tree), "1/1/0/1")
    })
  )

  it.effect("AD-18 terminating by handle stops exactly that instance", () =>
    Effect.gen(function* () {
      const spec = ChildSpec.actor("f", Fragile, { broken: false, attempts: 0 })
      const tree = yield* DynamicSupervisor.start()
      const [one, two, three] = yield* Effect.all([tree.startChild(spec), tree.startChild(spec), tree.startChild(spec)])
      const { down } = yield* Watch.monitor(two)
      yield* tree.terminateChild(two)
      assert.deepStrictEqual((yield* down).exit, ExitReason.shutdown)
      assert.strictEqual(yield* one.call.ping(), 1)
      assert.strictEqual((yield* Effect.flip(two.call.ping())).reason._tag, "NoProcess")
      assert.strictEqual(yield* three.call.ping(), 1)
      assert.strictEqual(yield* counts(tree), "2/2/0/2")
    })
  )

  it.effect("AD-20 a live handle that is not of a child is not found, and its owner stays alive", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start()
      const other = yield* DynamicSupervisor.start()
      yield* tree.startChild(witness("w", []))
      const elsewhere = yield* other.startChild(witness("w", []))
      class Alone extends Actor.make("Alone", { init: (_arg: void) => 0, call: { ping: () => "pong" } }) {}
      const alone = yield* Actor.start(Alone, undefined)
      assert.strictEqual(yield* refusedAs(tree.terminateChild(elsewhere)), "NotFound")
      assert.strictEqual(yield* refusedAs(tree.terminateChild(alone)), "NotFound")
      assert.strictEqual(yield* refusedAs(tree.terminateChild(tree)), "NotFound")
      assert.strictEqual(yield* elsewhere.call.ping(), "w1")
      assert.strictEqual(yield* alone.call.ping(), "pong")
      assert.strictEqual(yield* counts(tree), "1/1/0/1")
    })
  )

  it.effect("AD-21 a dynamic supervisor has no restart by hand and nothing to delete", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start()
      const ref = yield* tree.startChild(witness("w", []))
      // @ts-expect-error whoever wants it again starts another
      assert.isUndefined(tree.restartChild)
      // @ts-expect-error what has ended is gone
      assert.isUndefined(tree.deleteChild)
      yield* tree.terminateChild(ref)
      assert.strictEqual(yield* refusedAs(tree.terminateChild(ref)), "NotFound")
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
    })
  )

  it.effect("AD-22 what an init tells besides its state reaches those who add and restart, unchanged", () =>
    Effect.gen(function* () {
      const infos = [{ port: 1 }, { port: 2 }, { port: 3 }] as const
      const tree = yield* Supervisor.start({ children: [] })
      const ref = yield* tree.startChild(ChildSpec.actor("t", Telling, [...infos]))
      const told = Effect.map(tree.whichChildren, ([child]) => child?.info)
      assert.strictEqual(yield* told, infos[0])
      assert.strictEqual(yield* ref.call.state(), "state", "the state is without it")
      yield* tree.terminateChild("t")
      yield* tree.restartChild("t")
      assert.strictEqual(yield* told, infos[1])
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* told, infos[2])
    })
  )

  it.effect("AD-22 an incarnation that tells nothing does not inherit what the one before it told", () =>
    Effect.gen(function* () {
      let starts = 0
      class Once extends Actor.make("Once", {
        init: (_arg: void) => (++starts === 1 ? Actor.withInfo("state", "first") : "state")
      }) {}
      const tree = yield* Supervisor.start({ children: [ChildSpec.actor("o", Once, undefined)] })
      assert.strictEqual((yield* tree.whichChildren)[0]?.info, "first")
      yield* tree.terminateChild("o")
      yield* tree.restartChild("o")
      assert.isUndefined((yield* tree.whichChildren)[0]?.info)
    })
  )

  it.effect("AD-24 counts follow every step of a child's life", () =>
    Effect.gen(function* () {
      const inner = ChildSpec.supervisor("inner", { children: [witness("x", [])] })
      const tree = yield* Supervisor.start({ children: [inner] })
      assert.strictEqual(yield* counts(tree), "1/1/1/0")
      yield* tree.startChild(ChildSpec.actor("t", Telling, ["info"]))
      assert.strictEqual(yield* counts(tree), "2/2/1/1")
      yield* tree.terminateChild("t")
      assert.strictEqual(yield* counts(tree), "2/1/1/1")
      yield* tree.restartChild("t")
      assert.strictEqual(yield* counts(tree), "2/2/1/1")
      yield* tree.terminateChild("inner")
      assert.strictEqual(yield* counts(tree), "2/1/1/1")
      yield* tree.deleteChild("inner")
      assert.strictEqual(yield* counts(tree), "1/1/0/1")
      yield* tree.terminateChild("t")
      assert.strictEqual(yield* counts(tree), "1/0/0/1")
      yield* tree.deleteChild("t")
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
    })
  )

  it.effect("AD-25 counts and lists agree with many instances, however often they are read", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start()
      for (const total of [1000, 2000]) {
        for (let i = total - 1000; i < total; i++)
          yield* tree.startChild(witness(`w${i}`, [], { restart: "temporary" }))
        for (const _ of ["once", "again"]) {
          const listed = yield* tree.whichChildren
          assert.strictEqual(listed.length, total)
          assert.strictEqual(new Set(listed.map(({ id }) => id)).size, total)
          assert.isTrue(listed.every(({ status }) => status === "running"))
          assert.strictEqual(yield* counts(tree), `${total}/${total}/0/${total}`)
          assert.strictEqual((yield* tree.snapshot).children.length, total)
        }
      }
    })
  )

  it.effect("AD-26 when all instances have been killed nothing is counted any more", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start()
      const refs = yield* Effect.forEach(Array.from({ length: 1000 }), () =>
        tree.startChild(witness("w", [], { restart: "temporary" }))
      )
      yield* Effect.forEach(refs, (ref) => ref.kill)
      yield* settle
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
      assert.deepStrictEqual(yield* tree.whichChildren, [])
    })
  )

  /** Instances that cannot be started again as long as `arg.broken` is set. */
  const failing = Effect.gen(function* () {
    const arg = { broken: false, attempts: 0 }
    const tree = yield* DynamicSupervisor.start({ intensity: { restarts: 1_000_000 } })
    const refs = yield* Effect.forEach(Array.from({ length: 3 }), () =>
      tree.startChild(ChildSpec.actor("f", Fragile, arg))
    )
    arg.broken = true
    for (const ref of refs) yield* ref.cast.crash()
    yield* settle
    return { arg, refs, tree }
  })

  it.effect("AD-28 instances that wait for a restart count as workers but not as active", () =>
    Effect.gen(function* () {
      const { arg, tree } = yield* failing
      assert.isAbove(arg.attempts, 6, "they are being tried")
      assert.strictEqual(yield* counts(tree), "3/0/0/3")
      assert.deepStrictEqual(yield* statuses(tree), ["f restarting", "f restarting", "f restarting"])
      const delayed = yield* DynamicSupervisor.start({ backoff: Backoff.fixed("1 second") })
      const ref = yield* delayed.startChild(witness("w", []))
      yield* ref.cast.crash()
      yield* settle
      assert.strictEqual(yield* counts(delayed), "1/0/0/1")
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(yield* counts(delayed), "1/1/0/1")
    })
  )

  it.effect("AD-29 instances become active again once they can be started", () =>
    Effect.gen(function* () {
      const { arg, refs, tree } = yield* failing
      arg.broken = false
      yield* settle
      assert.strictEqual(yield* counts(tree), "3/3/0/3")
      for (const ref of refs) assert.strictEqual(yield* ref.call.ping(), 2)
    })
  )

  it.effect("AD-30 terminating instances one by one brings the counts down one by one", () =>
    Effect.gen(function* () {
      const waiting = yield* failing
      const left: Array<string> = []
      for (const ref of waiting.refs) {
        yield* waiting.tree.terminateChild(ref)
        left.push(yield* counts(waiting.tree))
      }
      assert.deepStrictEqual(left, ["2/0/0/2", "1/0/0/1", "0/0/0/0"])
      const { attempts } = waiting.arg
      yield* settle
      assert.strictEqual(waiting.arg.attempts, attempts, "nobody tries any more")
      const tree = yield* DynamicSupervisor.start()
      const running = [yield* tree.startChild(witness("a", [])), yield* tree.startChild(witness("b", []))]
      for (const ref of running) {
        yield* tree.terminateChild(ref)
        left.push(yield* counts(tree))
      }
      assert.deepStrictEqual(left.slice(3), ["1/1/0/1", "0/0/0/0"])
    })
  )
})
