import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ChildSpec,
  DynamicSupervisor,
  PartitionSupervisor,
  Supervisor,
  TaskSupervisor
} from "@tinkex/supervision"
import { Duration, Effect } from "effect"
import { settle, witness } from "../support.ts"
import { counts, problem, refusal, statuses } from "./dynamicSupport.ts"

class Plain extends Actor.make("Plain", { init: (_arg: void) => 0 }) {}

describe("Supervisor", () => {
  it.effect("SU-01 a spec is made from an actor, an effect or a supervisor of any kind, and each takes overrides", () =>
    Effect.gen(function* () {
      const own = { restart: "transient", shutdown: "7 seconds", startLimit: "9 seconds" } as const
      const list = { children: [witness("leaf", [])] }
      const parts = { partitions: 2, child: () => witness("part", []) }
      const tree = yield* Supervisor.start({
        children: [
          ChildSpec.actor("actor", Plain, undefined),
          ChildSpec.actor("own actor", Plain, undefined, own),
          ChildSpec.effect("effect", Effect.never),
          ChildSpec.effect("own effect", Effect.never, own),
          ChildSpec.supervisor("supervisor", list),
          ChildSpec.supervisor("own supervisor", { ...list, ...own }),
          DynamicSupervisor.childSpec("dynamic"),
          DynamicSupervisor.childSpec("own dynamic", own),
          PartitionSupervisor.childSpec("partitions", parts),
          PartitionSupervisor.childSpec("own partitions", { ...parts, ...own }),
          TaskSupervisor.childSpec("tasks"),
          TaskSupervisor.childSpec("own tasks", own)
        ]
      })
      const worker = { shutdown: Duration.seconds(5), startLimit: Duration.seconds(30) }
      const supervisor = { shutdown: Duration.infinity, startLimit: Duration.infinity }
      for (const [id, kind, usual] of [
        ["actor", "actor", worker],
        ["effect", "effect", worker],
        ["supervisor", "supervisor", supervisor],
        ["dynamic", "supervisor", supervisor],
        ["partitions", "supervisor", supervisor],
        ["tasks", "supervisor", supervisor]
      ] as const) {
        const rest = { kind, significant: false, stuck: "abandon" }
        assert.deepEqual(yield* tree.childSpec(id), { id, restart: "permanent", ...usual, ...rest } as never)
        const overridden = { shutdown: Duration.seconds(7), startLimit: Duration.seconds(9) }
        assert.deepEqual(yield* tree.childSpec(`own ${id}`), {
          id: `own ${id}`,
          restart: "transient",
          ...overridden,
          ...rest
        } as never)
      }
      assert.deepStrictEqual(yield* tree.countChildren, counts(12, 12, 8, 4))
    })
  )

  it.effect("SU-02 without options it is one for one and grants 3 restarts in 5 seconds", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [witness("a", log), witness("b", log)] })
      assert.deepStrictEqual((yield* tree.snapshot).intensity, { spent: 0, restarts: 3, within: 5000 })
      log.length = 0
      yield* tree.refs.a.cast.crash()
      yield* settle
      assert.deepStrictEqual(log, ["-a", "+a"], "the other is left alone")
      for (const id of ["b", "a"] as const) yield* Effect.andThen(tree.refs[id].cast.crash(), settle)
      assert.strictEqual((yield* tree.snapshot).status, "running")
      yield* tree.refs.b.cast.crash()
      assert.strictEqual((yield* tree.exit)._tag, "Crash")
    })
  )

  it.effect("SU-04 a name that could not be told from a path is refused, with what is accepted", () =>
    Effect.gen(function* () {
      const accepted = 'give a name without "/"'
      for (const name of ["", "a/b", "/", 1, {}]) {
        const untyped = name as string // as an untyped program may call it
        for (const words of [
          yield* problem(Supervisor.start({ name: untyped, children: [] })),
          yield* problem(DynamicSupervisor.start({ name: untyped })),
          yield* problem(TaskSupervisor.start({ name: untyped })),
          yield* problem(PartitionSupervisor.start({ name: untyped, partitions: 1, child: () => witness("a", []) }))
        ]) {
          assert.include(words, `refused name: it is ${JSON.stringify(name)}`)
          assert.include(words, accepted)
        }
        for (const spec of [
          witness(untyped, []),
          ChildSpec.effect(untyped, Effect.never),
          ChildSpec.supervisor(untyped, { children: [] }),
          DynamicSupervisor.childSpec(untyped),
          TaskSupervisor.childSpec(untyped),
          PartitionSupervisor.childSpec(untyped, { partitions: 1, child: () => witness("a", []) })
        ]) {
          const words = yield* problem(Supervisor.start({ children: [spec] }))
          assert.include(words, "refused children[0].id: ")
          assert.include(words, accepted)
        }
        assert.include(yield* problem(Actor.start(Plain, undefined, { id: untyped })), accepted)
      }
    })
  )

  it.effect("SU-05 a child is added, listed, counted, kept while it runs, stopped, started again and deleted", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const tree = yield* Supervisor.start({ children: [] })
      assert.deepStrictEqual(yield* tree.countChildren, counts(0, 0, 0, 0))
      const ref = yield* tree.startChild(witness("a", log))
      const first = yield* ref.incarnation
      assert.deepStrictEqual(statuses(yield* tree.whichChildren), ["a running"])
      assert.deepStrictEqual(yield* tree.countChildren, counts(1, 1, 0, 1))
      assert.strictEqual(yield* refusal(tree.startChild(witness("a", log))), "AlreadyStarted")
      assert.strictEqual(yield* refusal(tree.restartChild("a")), "Running")
      assert.strictEqual(yield* refusal(tree.deleteChild("a")), "Running")
      yield* tree.terminateChild("a")
      assert.deepStrictEqual(yield* tree.countChildren, counts(1, 0, 0, 1))
      assert.strictEqual(yield* refusal(tree.startChild(witness("a", log))), "AlreadyPresent")
      yield* tree.restartChild("a")
      assert.strictEqual(yield* ref.call.ping(), "a2")
      assert.strictEqual((yield* Effect.flip(first.call.ping())).reason._tag, "NoProcess")
      yield* tree.terminateChild("a")
      yield* tree.terminateChild("a")
      yield* tree.deleteChild("a")
      assert.deepStrictEqual(yield* tree.countChildren, counts(0, 0, 0, 0))
      for (const request of [tree.terminateChild("a"), tree.restartChild("a"), tree.deleteChild("a")]) {
        assert.strictEqual(yield* refusal(request), "NotFound")
      }
      assert.deepStrictEqual(log, ["+a", "-a", "+a", "-a"])
    })
  )
})
