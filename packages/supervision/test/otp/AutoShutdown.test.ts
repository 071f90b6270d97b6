import { assert, describe, it } from "@effect/vitest"
import {
  type ActorRef,
  ChildSpec,
  DynamicSupervisor,
  ExitReason,
  Supervisor,
  type SupervisorRef
} from "@tinkex/supervision"
import { Effect } from "effect"
import { type Witness, record, settle, tags, witness } from "../support.ts"
import { refusal, statuses } from "./strategySupport.ts"

type Ref = ActorRef.ActorRef<typeof Witness>

const temporary = { restart: "temporary", significant: true } as const
const transient = { restart: "transient", significant: true } as const

const ends = {
  "a kill": (ref: Ref) => ref.kill,
  "a crash": (ref: Ref) => ref.cast.crash(),
  "a normal end": (ref: Ref) => Effect.orDie(ref.stop),
  "a shutdown of its own": (ref: Ref) => Effect.orDie(ref.stopWith(ExitReason.shutdown))
}

const waysToEnd = Object.entries(ends)

/** Asserts that it has ended by itself, cleanly, because of this child. */
const triggered = (tree: Pick<SupervisorRef.Supervising, "exit" | "events">, child: string) =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* tree.exit, ExitReason.shutdown)
    const events = yield* record(tree.events)
    yield* settle
    assert.include(tags(events), `AutoShutdown ${child}`)
  })

/** Asserts that it goes on, and who is left in it. */
const untouched = (tree: Pick<SupervisorRef.Supervising, "events" | "whichChildren">, ...left: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    yield* settle
    assert.deepStrictEqual(yield* statuses(tree), left)
    const events = yield* record(tree.events)
    yield* settle
    assert.isFalse(events.some(({ _tag }) => _tag === "AutoShutdown" || _tag === "SupervisorExited"))
  })

describe("8. Automatic shutdown", () => {
  for (const autoShutdown of ["never", "any_significant", "all_significant"] as const) {
    it.effect(`AS-01 ${autoShutdown}: a temporary child that is not significant never triggers, however it ends`, () =>
      Effect.gen(function* () {
        for (const [, end] of waysToEnd) {
          const tree = yield* Supervisor.start({
            autoShutdown,
            children: [witness("sibling", []), witness("t", [], { restart: "temporary" })]
          })
          yield* end(tree.refs.t)
          yield* untouched(tree, "sibling running")
        }
        const tree = yield* Supervisor.start({
          autoShutdown,
          children: [witness("sibling", []), witness("t", [], { restart: "temporary" })]
        })
        yield* tree.terminateChild("t")
        yield* untouched(tree, "sibling running")
        assert.strictEqual(yield* tree.refs.sibling.call.ping(), "sibling1")
      })
    )
  }

  it.effect("AS-03 any_significant: terminating a significant child by request does not trigger", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        autoShutdown: "any_significant",
        children: [witness("sibling", []), witness("temporary", [], temporary), witness("transient", [], transient)]
      })
      yield* tree.terminateChild("temporary")
      yield* untouched(tree, "transient running", "sibling running")
      yield* tree.terminateChild("transient")
      yield* untouched(tree, "transient stopped", "sibling running")
    })
  )

  for (const [way, end] of waysToEnd) {
    const id = way === "a kill" ? "AS-04" : "AS-05"
    it.effect(
      `${id} any_significant: ${way} of a temporary significant child ends the supervisor and its siblings`,
      () =>
        Effect.gen(function* () {
          const log: Array<string> = []
          const tree = yield* Supervisor.start({
            name: "job",
            autoShutdown: "any_significant",
            children: [
              witness("a", log),
              witness("trainer", log, temporary),
              witness("b", log),
              witness("c", log, transient)
            ]
          })
          log.length = 0
          yield* end(tree.refs.trainer)
          yield* triggered(tree, "trainer")
          assert.deepStrictEqual(log, ["-trainer", "-c", "-b", "-a"])
          assert.strictEqual((yield* Effect.flip(tree.refs.a.call.ping())).reason._tag, "NoProcess")
          assert.strictEqual(yield* refusal(tree.startChild(witness("late", []))), "SupervisorStopped")
          yield* tree.join
        })
    )
  }

  for (const options of [temporary, transient]) {
    it.effect(`AS-07 all_significant: only the last of several ${options.restart} significant children triggers`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const tree = yield* Supervisor.start({
          autoShutdown: "all_significant",
          children: [
            witness("one", log, options),
            witness("two", log, options),
            witness("other", log, { restart: "temporary" }),
            witness("sibling", log)
          ]
        })
        yield* tree.refs.one.stop
        yield* settle
        assert.strictEqual(yield* tree.refs.two.call.ping(), "two1")
        yield* tree.refs.other.stop
        yield* settle
        assert.strictEqual(yield* tree.refs.two.call.ping(), "two1", "those that are not significant do not count")
        yield* tree.refs.two.stop
        yield* triggered(tree, "two")
        assert.deepStrictEqual(log.slice(4), ["-one", "-other", "-two", "-sibling"])
      })
    )
  }

  it.effect(
    "AS-08 any_significant: a kill or crash of a transient significant child restarts it and does not trigger",
    () =>
      Effect.gen(function* () {
        const tree = yield* Supervisor.start({
          autoShutdown: "any_significant",
          children: [witness("sibling", []), witness("t", [], transient)]
        })
        yield* tree.refs.t.kill
        yield* untouched(tree, "t running", "sibling running")
        assert.strictEqual(yield* tree.refs.t.call.ping(), "t2")
        yield* tree.refs.t.cast.crash()
        yield* untouched(tree, "t running", "sibling running")
        assert.strictEqual(yield* tree.refs.t.call.ping(), "t3")
      })
  )

  for (const [way, end] of waysToEnd.slice(2)) {
    it.effect(`AS-09 any_significant: ${way} of a transient significant child triggers`, () =>
      Effect.gen(function* () {
        const log: Array<string> = []
        const tree = yield* Supervisor.start({
          autoShutdown: "any_significant",
          children: [witness("sibling", log), witness("t", log, transient)]
        })
        yield* end(tree.refs.t)
        yield* triggered(tree, "t")
        assert.deepStrictEqual(log.slice(2), ["-t", "-sibling"])
      })
    )
  }

  it.effect("AS-11 dynamic, any_significant: the first instance that ends takes the others along", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* DynamicSupervisor.start({ autoShutdown: "any_significant" })
      const one = yield* tree.startChild(witness("one", log, temporary))
      const two = yield* tree.startChild(witness("two", log, temporary))
      yield* one.stop
      yield* triggered(tree, "one")
      assert.deepStrictEqual(log.slice(2), ["-one", "-two"])
      assert.strictEqual((yield* Effect.flip(two.call.ping())).reason._tag, "NoProcess")
    })
  )

  it.effect("AS-11 dynamic, any_significant: a termination by request and the end of another do not trigger", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start({ autoShutdown: "any_significant" })
      const one = yield* tree.startChild(witness("one", [], temporary))
      const two = yield* tree.startChild(witness("two", [], { restart: "temporary" }))
      yield* tree.startChild(witness("three", [], transient))
      yield* tree.terminateChild(one)
      yield* two.stop
      yield* untouched(tree, "three running")
    })
  )

  it.effect("AS-12 dynamic, all_significant: only the last instance that ends triggers", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start({ autoShutdown: "all_significant" })
      const refs = yield* Effect.forEach(["one", "two", "three"], (id) => tree.startChild(witness(id, [], temporary)))
      const [one, two, three] = refs
      assert.isDefined(one)
      yield* one.stop
      yield* untouched(tree, "three running", "two running")
      assert.isDefined(two)
      yield* two.cast.crash()
      yield* untouched(tree, "three running")
      assert.isDefined(three)
      yield* three.kill
      yield* triggered(tree, "three")
    })
  )

  for (const autoShutdown of ["any_significant", "all_significant"] as const) {
    for (const strategy of ["one_for_all", "rest_for_one"] as const) {
      it.effect(
        `AS-13 ${autoShutdown}: a significant child that is stopped for a sibling does not trigger (${strategy})`,
        () =>
          Effect.gen(function* () {
            const tree = yield* Supervisor.start({
              autoShutdown,
              strategy,
              children: [witness("a", []), witness("transient", [], transient), witness("temporary", [], temporary)]
            })
            yield* tree.refs.a.cast.crash()
            yield* untouched(tree, "transient running", "a running")
            assert.strictEqual(yield* tree.refs.transient.call.ping(), "transient2")
            yield* tree.refs.transient.stop
            yield* triggered(tree, "transient")
          })
      )
    }
  }

  const inner = (restart: ChildSpec.ChildOptions["restart"], significant: boolean) =>
    Supervisor.start({
      name: "root",
      autoShutdown: "any_significant",
      children: [
        witness("sibling", []),
        ChildSpec.supervisor("inner", {
          restart,
          significant,
          autoShutdown: "any_significant",
          children: [witness("leaf", [], temporary)]
        })
      ]
    })

  for (const [restart, left] of [
    ["permanent", ["inner running", "sibling running"]],
    ["transient", ["inner stopped", "sibling running"]],
    ["temporary", ["sibling running"]]
  ] as const) {
    it.effect(`AS-15 the end of a ${restart} inner supervisor that is not significant leaves the outer one up`, () =>
      Effect.gen(function* () {
        const tree = yield* inner(restart, false)
        yield* tree.refs.inner.refs.leaf.stop
        yield* settle
        assert.deepStrictEqual(yield* statuses(tree), [...left])
        assert.strictEqual(yield* tree.refs.sibling.call.ping(), "sibling1")
        const events = yield* record(tree.events)
        yield* settle
        const shutdowns = events.filter(({ _tag }) => _tag === "AutoShutdown")
        assert.deepStrictEqual(
          shutdowns.map(({ supervisor }) => supervisor),
          ["root/inner"]
        )
      })
    )
  }

  for (const restart of ["transient", "temporary"] as const) {
    it.effect(`AS-15 the end of a ${restart} inner supervisor that is significant ends the outer one in turn`, () =>
      Effect.gen(function* () {
        const tree = yield* inner(restart, true)
        yield* tree.refs.inner.refs.leaf.stop
        yield* triggered(tree, "inner")
        assert.strictEqual((yield* Effect.flip(tree.refs.sibling.call.ping())).reason._tag, "NoProcess")
      })
    )
  }

  it.effect("AS-16 after a change from never to any_significant, significant specs are taken and effective", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({ children: [witness("sibling", [])] })
      assert.strictEqual(yield* refusal(tree.startChild(witness("t", [], temporary))), "InvalidRequest")
      yield* tree.reconfigure({ autoShutdown: "any_significant" })
      yield* untouched(tree, "sibling running")
      const added = yield* tree.startChild(witness("t", [], temporary))
      yield* added.stop
      yield* triggered(tree, "t")
    })
  )

  it.effect("AS-16 the same change of a dynamic supervisor", () =>
    Effect.gen(function* () {
      const tree = yield* DynamicSupervisor.start()
      assert.strictEqual(yield* refusal(tree.startChild(witness("t", [], temporary))), "InvalidRequest")
      yield* tree.reconfigure({ autoShutdown: "any_significant" })
      const added = yield* tree.startChild(witness("t", [], temporary))
      yield* added.stop
      yield* triggered(tree, "t")
    })
  )

  for (const [id, mode] of [
    ["AS-17", "any_significant"],
    ["AS-19", "all_significant"]
  ] as const) {
    it.effect(
      `${id} after a change from ${mode} to never, nothing triggers and new significant specs are refused`,
      () =>
        Effect.gen(function* () {
          const tree = yield* Supervisor.start({
            autoShutdown: mode,
            children: [witness("sibling", []), witness("one", [], temporary), witness("two", [], transient)]
          })
          yield* tree.reconfigure({ autoShutdown: "never" })
          assert.isTrue((yield* tree.childSpec("one")).significant, "the specs are what they were")
          yield* tree.refs.one.stop
          yield* tree.refs.two.stop
          yield* untouched(tree, "two stopped", "sibling running")
          assert.strictEqual(yield* refusal(tree.startChild(witness("three", [], temporary))), "InvalidRequest")
          yield* tree.reconfigure({ autoShutdown: mode })
          const three = yield* tree.startChild(witness("three", [], temporary))
          yield* three.stop
          yield* triggered(tree, "three")
        })
    )
  }

  it.effect(
    "AS-20 after a change from any_significant to all_significant, the first of two ends no longer triggers",
    () =>
      Effect.gen(function* () {
        const tree = yield* Supervisor.start({
          autoShutdown: "any_significant",
          children: [witness("one", [], temporary), witness("two", [], temporary)]
        })
        yield* tree.reconfigure({ autoShutdown: "all_significant" })
        yield* tree.refs.one.stop
        yield* untouched(tree, "two running")
        yield* tree.refs.two.stop
        yield* triggered(tree, "two")
      })
  )

  it.effect("AS-21 after a change from all_significant to any_significant, the first end triggers", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        autoShutdown: "all_significant",
        children: [witness("one", [], temporary), witness("two", [], temporary)]
      })
      yield* tree.reconfigure({ autoShutdown: "any_significant" })
      yield* tree.refs.one.stop
      yield* triggered(tree, "one")
    })
  )

  it.effect("AS-23 a running child that is made significant triggers at its next end, and not before", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        autoShutdown: "any_significant",
        children: [witness("sibling", []), witness("t", [], { restart: "transient" })]
      })
      yield* tree.reconfigure({ children: [witness("t", [], transient)] })
      assert.isTrue((yield* tree.childSpec("t")).significant)
      assert.strictEqual(yield* tree.refs.t.call.ping(), "t1", "the running one is untouched")
      yield* tree.refs.t.stop
      yield* triggered(tree, "t")
    })
  )

  it.effect("AS-23 a running child that is made insignificant again does not trigger at its next end", () =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        autoShutdown: "any_significant",
        children: [witness("sibling", []), witness("t", [], transient)]
      })
      yield* tree.reconfigure({ children: [witness("t", [], { restart: "transient" })] })
      assert.isFalse((yield* tree.childSpec("t")).significant)
      assert.strictEqual(yield* tree.refs.t.call.ping(), "t1")
      yield* tree.refs.t.stop
      yield* untouched(tree, "t stopped", "sibling running")
    })
  )
})
