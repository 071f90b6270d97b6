import { assert, describe, it } from "@effect/vitest"
import { Actor, ChildSpec, DynamicSupervisor, PartitionSupervisor, Registry, Supervisor } from "@tinkex/supervision"
import { Effect } from "effect"
import { settle } from "../support.ts"
import { closable, counts, problem, statuses } from "./dynamicSupport.ts"

class Worker extends Actor.make("Worker", {
  init: (args: ReadonlyArray<string | number>) => ({ args, seen: 0 }),
  call: {
    args: (self) => self.state.args,
    where: (self) => self.id,
    hit: (self) => ++self.state.seen
  }
}) {}

const worker = (partition: number) => ChildSpec.actor("worker", Worker, [partition])

describe("PartitionSupervisor", () => {
  it.effect(
    "PA-01 there are as many partitions as processors; keys are spread, and each leads to a running child",
    () =>
      Effect.gen(function* () {
        const workers = yield* PartitionSupervisor.start({ child: worker })
        assert.lengthOf(workers.partitions, globalThis.navigator.hardwareConcurrency)
        const four = yield* PartitionSupervisor.start({ partitions: 4, child: worker })
        const keys = Array.from({ length: 400 }, (_, n) => `key ${n}`)
        const hits = new Map<string, number>()
        for (const key of keys) {
          const ref = four.route(key)
          hits.set(yield* ref.call.where(), yield* ref.call.hit())
          assert.strictEqual(four.route(key), ref, "a key always leads to the same partition")
        }
        assert.strictEqual(
          [...hits.values()].reduce((sum, hit) => sum + hit, 0),
          keys.length
        )
        assert.lengthOf(
          [...hits.values()].filter((hit) => hit > 50),
          4,
          "no partition gets less than half its share"
        )
      })
  )

  it.effect("PA-01 the child of a key can itself be a supervisor, under which the key's own child is started", () =>
    Effect.gen(function* () {
      const pools = yield* PartitionSupervisor.start({
        partitions: 3,
        child: () => DynamicSupervisor.childSpec("pool")
      })
      for (const key of ["a", "b", "c", "d"]) {
        const ref = yield* pools.route(key).startChild(ChildSpec.actor(key, Worker, [key]))
        assert.deepStrictEqual(yield* ref.call.args(), [key])
      }
      const active = yield* Effect.forEach(pools.partitions, (pool) => pool.countChildren)
      assert.strictEqual(
        active.reduce((sum, pool) => sum + pool.active, 0),
        4
      )
    })
  )

  it.effect(
    "PA-03 each partition has arguments of its own; a whole number leads to its remainder, a negative one too",
    () =>
      Effect.gen(function* () {
        const workers = yield* PartitionSupervisor.start({
          partitions: 3,
          child: (partition) => ChildSpec.actor("worker", Worker, ["shared", partition * 10])
        })
        const args = yield* Effect.forEach(workers.partitions, (ref) => ref.call.args())
        assert.deepStrictEqual(args, [
          ["shared", 0],
          ["shared", 10],
          ["shared", 20]
        ])
        for (const [key, partition] of [
          [0, 0],
          [1, 1],
          [2, 2],
          [3, 0],
          [11, 2],
          [-1, 1],
          [-3, 0],
          [-5, 2],
          [-0, 0],
          [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER % 3],
          [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER % 3]
        ] as const) {
          assert.strictEqual(yield* workers.route(key).call.where(), String(partition), String(key))
        }
      })
  )

  it.effect("PA-03 anything can be a key, and what is equal leads to the same partition", () =>
    Effect.gen(function* () {
      const workers = yield* PartitionSupervisor.start({ partitions: 7, child: worker })
      for (const key of [1.5, NaN, Infinity, -Infinity, 2 ** 60, "", "x", 1n, true, null, undefined, Symbol.for("s")]) {
        assert.include(workers.partitions, workers.route(key), String(key))
      }
      assert.strictEqual(workers.route({ user: 1 }), workers.route({ user: 1 }))
      assert.strictEqual(workers.route([1, "a"]), workers.route([1, "a"]))
    })
  )

  it.effect(
    "PA-04 a missing spec, no partitions, and what is no function from an index to a spec are each refused",
    () =>
      Effect.gen(function* () {
        const refused = (options: object, field: string) =>
          Effect.gen(function* () {
            const untyped = options as PartitionSupervisor.PartitionSupervisorOptions<unknown, never> // as JavaScript may
            assert.include(yield* problem(PartitionSupervisor.start(untyped)), `refused ${field}: `)
            const listed = PartitionSupervisor.childSpec("parts", untyped)
            assert.include(yield* problem(Supervisor.start({ children: [listed] })), `refused ${field}: `)
          })
        yield* refused({ partitions: 2 }, "child")
        yield* refused({ partitions: 2, child: worker(0) }, "child")
        yield* refused({ partitions: 2, child: () => "nonsense" }, "child")
        yield* refused(
          { partitions: 2, child: () => ChildSpec.actor("a", Worker, [], { shutdown: -1 }) },
          "child.shutdown"
        )
        const throws = () => {
          throw new Error("no such partition")
        }
        yield* refused({ partitions: 2, child: throws }, "child")
        for (const partitions of [0, -1, 1.5, NaN, "two"]) yield* refused({ partitions, child: worker }, "partitions")
        const start = PartitionSupervisor.start<unknown, unknown>
        // @ts-expect-error it is asked for one index, not for two
        assert.isDefined(start({ child: (partition: number, other: number) => worker(partition + other) }))
        assert.include(yield* problem(PartitionSupervisor.start({ name: "", child: worker })), "refused name: ")
      })
  )

  it.effect("PA-05 when a stop has returned, names and ids are free again", () =>
    Effect.gen(function* () {
      const names = yield* Registry.make<typeof Worker, number>(Worker)
      const named = (partition: number) =>
        ChildSpec.actor("worker", Worker, [partition], { names: [names.name(partition, undefined)] })
      const options = { partitions: 3, child: named }
      for (let round = 0; round < 3; round++) {
        const { it: workers, close } = yield* closable(PartitionSupervisor.start({ name: "workers", ...options }))
        assert.strictEqual(yield* names.count, 3)
        assert.strictEqual(yield* names.ref(2).call.where(), "2")
        yield* close
        assert.strictEqual(yield* names.count, 0)
        assert.strictEqual((yield* workers.exit)._tag, "Shutdown")
      }
      const tree = yield* Supervisor.start({ children: [PartitionSupervisor.childSpec("workers", options)] })
      assert.strictEqual(yield* names.count, 3)
      yield* tree.terminateChild("workers")
      assert.strictEqual(yield* names.count, 0)
      yield* tree.deleteChild("workers")
      yield* tree.startChild(PartitionSupervisor.childSpec("workers", options))
      assert.strictEqual(yield* names.count, 3)
    })
  )

  it.effect("PA-07 there is one entry per partition, with the index as its id; counts follow the kind of child", () =>
    Effect.gen(function* () {
      const workers = yield* PartitionSupervisor.start({ partitions: 3, child: worker })
      assert.deepStrictEqual(statuses(yield* workers.whichChildren), ["2 running", "1 running", "0 running"])
      assert.deepStrictEqual(yield* workers.countChildren, counts(3, 3, 0, 3))
      assert.deepStrictEqual(
        workers.partitions.map(({ id, path }) => [id, path]),
        [
          ["0", "supervisor/0"],
          ["1", "supervisor/1"],
          ["2", "supervisor/2"]
        ]
      )
      const pools = yield* PartitionSupervisor.start({
        partitions: 2,
        child: () => DynamicSupervisor.childSpec("pool")
      })
      assert.deepStrictEqual(yield* pools.countChildren, counts(2, 2, 2, 0))
      yield* workers.partitions[1]?.kill ?? Effect.die("no such partition")
      yield* settle
      assert.deepStrictEqual(yield* workers.countChildren, counts(3, 3, 0, 3))
      assert.deepStrictEqual(
        (yield* workers.whichChildren).map(({ generation }) => generation),
        [1, 2, 1],
        "only the one that was killed is replaced"
      )
    })
  )
})
