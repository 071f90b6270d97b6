import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  Backoff,
  ChildSpec,
  DynamicSupervisor,
  SupervisionTree,
  Supervisor,
  TaskSupervisor
} from "@tinkex/supervision"
import { Deferred, Effect, Exit, Fiber, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { record, settle, witness } from "./support.ts"

interface Box {
  readonly secret: string
  readonly gate: Deferred.Deferred<void>
}

class Worker extends Actor.make("Worker", {
  init: (box: Box) => box,
  call: {
    wait: (self) => Deferred.await(self.state.gate),
    stuck: (self) => Effect.uninterruptible(Deferred.await(self.state.gate))
  },
  cast: {
    crash: () => Effect.die(new Error("crash")),
    quit: (self) => self.stop(),
    note: (_self, _text: string) => {}
  },
  mailbox: { capacity: 8 }
}) {}

class Endless extends Actor.make("Endless", { init: () => 0, mailbox: { capacity: "unbounded" } }) {}

const boxed = Effect.map(Deferred.make<void>(), (gate): Box => ({ secret: "1234", gate }))

const child = (node: SupervisionTree.Node, id: string): SupervisionTree.Node =>
  SupervisionTree.flatten(node).find((each) => each.id === id) ?? assert.fail(`no ${id}`)

const look = (tree: SupervisionTree.Observable, id: string) =>
  Effect.map(SupervisionTree.snapshot(tree), (root) => child(root, id))

/** A tree with one of everything. */
const zoo = Effect.gen(function* () {
  const box = yield* boxed
  const tree = yield* Supervisor.start({
    name: "root",
    intensity: { restarts: 5, within: "10 seconds" },
    children: [
      ChildSpec.actor("worker", Worker, box, { restart: "transient" }),
      ChildSpec.actor("endless", Endless, undefined),
      ChildSpec.supervisor("inner", { children: [ChildSpec.effect("job", Effect.never, { restart: "temporary" })] }),
      DynamicSupervisor.childSpec("pool"),
      TaskSupervisor.childSpec("tasks")
    ]
  })
  yield* tree.refs.pool.startChild(witness("b", []))
  yield* tree.refs.pool.startChild(witness("a", []))
  return { box, tree }
})

const usual = { status: "running", restart: "permanent", generation: 1, age: 0, restarts: 0, zombies: 0, children: [] }
const budget = { spent: 0, restarts: 3, within: 5000 }

describe("snapshot", () => {
  it.effect("is the whole tree, parents and their children in start order", () =>
    Effect.gen(function* () {
      const { tree } = yield* zoo
      const member = (id: string) => ({
        ...usual,
        path: `root/pool/${id}`,
        id,
        kind: "actor",
        mailbox: { depth: 0, capacity: 1024 }
      })
      assert.deepStrictEqual<unknown>(yield* SupervisionTree.snapshot(tree), {
        ...usual,
        path: "root",
        id: "root",
        kind: "supervisor",
        restart: "temporary",
        intensity: { spent: 0, restarts: 5, within: 10_000 },
        children: [
          {
            ...usual,
            path: "root/worker",
            id: "worker",
            kind: "actor",
            restart: "transient",
            mailbox: { depth: 0, capacity: 8 }
          },
          {
            ...usual,
            path: "root/endless",
            id: "endless",
            kind: "actor",
            mailbox: { depth: 0, capacity: "unbounded" }
          },
          {
            ...usual,
            path: "root/inner",
            id: "inner",
            kind: "supervisor",
            intensity: budget,
            children: [{ ...usual, path: "root/inner/job", id: "job", kind: "effect", restart: "temporary" }]
          },
          {
            ...usual,
            path: "root/pool",
            id: "pool",
            kind: "supervisor",
            intensity: budget,
            children: [member("b"), member("a")]
          },
          { ...usual, path: "root/tasks", id: "tasks", kind: "supervisor", intensity: budget }
        ]
      })
      assert.deepStrictEqual(yield* SupervisionTree.snapshot(tree.refs.inner), yield* look(tree, "inner"))
      assert.deepStrictEqual(yield* SupervisionTree.snapshot(tree.refs.pool), yield* look(tree, "pool"))
    })
  )

  it.effect(
    "says for how long an incarnation has been up, how often it was restarted, and how the last one ended",
    () =>
      Effect.gen(function* () {
        const { tree } = yield* zoo
        const { worker } = tree.refs
        yield* TestClock.adjust(1500)
        yield* worker.cast.crash()
        yield* settle
        yield* TestClock.adjust(250)
        const after = yield* look(tree, "worker")
        assert.deepStrictEqual(
          [after.generation, after.age, after.restarts, after.lastExit, after.status],
          [2, 250, 1, "crash (Error: crash)", "running"]
        )
        assert.deepStrictEqual([(yield* look(tree, "root")).age, (yield* look(tree, "endless")).restarts], [1750, 0])

        yield* worker.cast.quit()
        yield* settle
        const down = yield* look(tree, "worker")
        assert.deepStrictEqual([down.status, down.lastExit, down.restarts], ["stopped", "normal", 1])
        assert.notProperty(down, "age")
      })
  )

  it.effect("counts the attempts to restart, as the intensity does", () =>
    Effect.gen(function* () {
      const arg = { failures: 0 }
      class Fragile extends Actor.make("Fragile", {
        init: (arg: { failures: number }) =>
          Effect.suspend(() => (arg.failures-- > 0 ? Effect.fail("not yet") : Effect.succeed(0))),
        cast: { crash: () => Effect.die(new Error("crash")) }
      }) {}
      const tree = yield* Supervisor.start({ children: [ChildSpec.actor("it", Fragile, arg)] })
      arg.failures = 2
      yield* tree.refs.it.cast.crash()
      yield* settle
      const it = yield* look(tree, "it")
      assert.deepStrictEqual([it.status, it.generation, it.restarts], ["running", 2, 3])
      assert.strictEqual((yield* look(tree, "supervisor")).intensity?.spent, 3)
    })
  )

  it.effect("says how much of its intensity a supervisor has spent within the window", () =>
    Effect.gen(function* () {
      const { tree } = yield* zoo
      for (let n = 0; n < 2; n++) {
        yield* tree.refs.worker.cast.crash()
        yield* settle
        yield* TestClock.adjust("4 seconds")
      }
      const spent = Effect.map(look(tree, "root"), ({ intensity }) => intensity?.spent)
      assert.strictEqual(yield* spent, 2)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* spent, 2)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* spent, 1)
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* spent, 0)
      assert.strictEqual((yield* look(tree, "inner")).intensity?.spent, 0)
    })
  )

  it.effect("tells starting from running, waiting, stopping and stopped", () =>
    Effect.gen(function* () {
      const up = yield* Deferred.make<void>()
      const gone = yield* Deferred.make<void>()
      class Slow extends Actor.make("Slow", {
        *init(_arg: void) {
          yield* Deferred.await(up)
          yield* Effect.addFinalizer(() => Deferred.await(gone))
          return 0
        },
        cast: { crash: () => Effect.die(new Error("crash")) }
      }) {}
      const tree = yield* Supervisor.start({ children: [] })
      const status = Effect.map(look(tree, "it"), ({ attempt, status }) => [status, attempt])
      const start = yield* Effect.forkChild(
        tree.startChild(
          ChildSpec.actor("it", Slow, undefined, {
            backoff: Backoff.exponential({ from: 1000, jitter: false, resetAfter: "1 hour" })
          })
        )
      )
      yield* settle
      assert.deepStrictEqual(yield* status, ["starting", undefined])
      yield* Deferred.succeed(up, undefined)
      const ref = yield* Fiber.join(start)
      assert.deepStrictEqual(yield* status, ["running", undefined])
      const stop = yield* Effect.forkChild(tree.terminateChild("it"))
      yield* settle
      assert.deepStrictEqual(yield* status, ["stopping", undefined])
      yield* Deferred.succeed(gone, undefined)
      yield* Fiber.join(stop)
      assert.deepStrictEqual(yield* status, ["stopped", undefined])
      yield* tree.restartChild("it")
      for (const [attempt, delay] of [
        [1, 1000],
        [2, 2000],
        [3, 4000]
      ] as const) {
        yield* ref.cast.crash()
        yield* settle
        assert.deepStrictEqual(yield* status, ["restarting", attempt])
        yield* TestClock.adjust(delay)
        assert.deepStrictEqual(yield* status, ["running", undefined])
      }
    })
  )

  it.effect("shows what waits in a mailbox, who is suspended, and who was left behind", () =>
    Effect.gen(function* () {
      const { box, tree } = yield* zoo
      const { endless, worker } = tree.refs
      const call = yield* Effect.forkChild(Effect.exit(worker.call.stuck()))
      yield* settle
      for (const text of ["a", "b", "c"]) yield* worker.cast.note(text)
      yield* endless.suspend
      const now = yield* SupervisionTree.snapshot(tree)
      assert.deepStrictEqual(child(now, "worker").mailbox, { depth: 3, capacity: 8 })
      assert.deepStrictEqual([child(now, "endless").suspended, child(now, "worker").suspended], [true, undefined])
      yield* endless.resume
      assert.notProperty(yield* look(tree, "endless"), "suspended")

      yield* Effect.forkChild(tree.terminateChild("worker"))
      yield* settle
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual((yield* look(tree, "worker")).zombies, 1)
      yield* Fiber.await(call)
      yield* Deferred.succeed(box.gate, undefined)
      yield* settle
      assert.strictEqual((yield* look(tree, "worker")).zombies, 0)
    })
  )

  it.effect("forgets what the supervisor forgets, and stays readable after the end", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { tree } = yield* Effect.provideService(zoo, Scope.Scope, scope)
      yield* tree.refs.inner.terminateChild("job")
      assert.deepStrictEqual((yield* look(tree, "inner")).children, [])
      yield* Scope.close(scope, Exit.void)
      const last = yield* SupervisionTree.snapshot(tree)
      assert.deepStrictEqual(
        SupervisionTree.flatten(last).map(({ path, status }) => `${path} ${status}`),
        [
          "root stopped",
          "root/worker stopped",
          "root/endless stopped",
          "root/inner stopped",
          "root/pool stopped",
          "root/tasks stopped"
        ]
      )
    })
  )
})

describe("json", () => {
  it.effect("a snapshot survives the way through text, and nothing of a state or a message is in it", () =>
    Effect.gen(function* () {
      const { tree } = yield* zoo
      yield* tree.refs.worker.cast.crash()
      yield* settle
      yield* tree.refs.worker.suspend
      yield* tree.refs.worker.cast.note("a secret message")
      const snapshot = yield* SupervisionTree.snapshot(tree)
      const text = yield* Schema.encodeEffect(SupervisionTree.json)(snapshot)
      assert.deepStrictEqual(yield* Schema.decodeEffect(SupervisionTree.json)(text), snapshot)
      assert.deepStrictEqual(JSON.parse(text), snapshot)
      assert.notInclude(text, "1234")
      assert.notInclude(text, "a secret message")
    })
  )

  it.effect("what is no snapshot is refused", () =>
    Effect.gen(function* () {
      const { tree } = yield* zoo
      const snapshot = yield* SupervisionTree.snapshot(tree)
      const [first] = snapshot.children
      for (const broken of [
        { ...snapshot, status: "asleep" },
        { ...snapshot, generation: 1.5 },
        { ...snapshot, children: [{ ...first, kind: "thread" }] },
        { ...snapshot, children: undefined },
        []
      ]) {
        const decoded = yield* Effect.exit(Schema.decodeEffect(SupervisionTree.json)(JSON.stringify(broken)))
        assert.isTrue(Exit.isFailure(decoded), JSON.stringify(broken))
      }
    })
  )
})

describe("changes", () => {
  const follow = Effect.fnUntraced(function* (tree: SupervisionTree.Observable) {
    const seen: Array<SupervisionTree.Node> = []
    const fiber = yield* SupervisionTree.changes(tree).pipe(
      Stream.runForEach((node) => Effect.sync(() => seen.push(node))),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* settle
    return { fiber, seen, latest: () => seen.at(-1) ?? assert.fail("nothing yet") }
  })

  it.effect("begins with the tree as it is, follows every structural change, and ends with the tree", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { tree } = yield* Effect.provideService(zoo, Scope.Scope, scope)
      const before = yield* SupervisionTree.snapshot(tree)
      const { fiber, latest, seen } = yield* follow(tree)
      assert.deepStrictEqual(seen[0], before)

      yield* tree.refs.worker.cast.crash()
      yield* settle
      assert.deepStrictEqual(latest(), yield* SupervisionTree.snapshot(tree))
      assert.strictEqual(child(latest(), "worker").generation, 2)
      yield* tree.startChild(witness("new", []))
      yield* settle
      assert.strictEqual(child(latest(), "new").status, "running")
      yield* tree.refs.inner.terminateChild("job")
      yield* settle
      assert.deepStrictEqual(child(latest(), "inner").children, [])
      yield* tree.terminateChild("new")
      yield* settle
      assert.strictEqual(child(latest(), "new").status, "stopped")
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(fiber)
      assert.isTrue(SupervisionTree.flatten(latest()).every(({ status }) => status === "stopped"))
    })
  )

  it.effect("passes over what nobody could see, and does not wake for messages", () =>
    Effect.gen(function* () {
      const { tree } = yield* zoo
      const { seen } = yield* follow(tree)
      const before = seen.length
      for (let n = 0; n < 20; n++) yield* tree.refs.worker.cast.note("x")
      yield* settle
      assert.strictEqual(seen.length, before)
      const events = yield* record(tree.events)
      yield* settle
      const told = events.length
      for (const { kill } of [tree.refs.worker, tree.refs.endless, tree.refs.inner]) yield* kill
      yield* settle
      assert.isAtLeast(events.length - told, 9, "an end, a start and a restart for each")
      assert.isAbove(seen.length, before)
      assert.isBelow(seen.length - before, events.length - told)
    })
  )

  it.effect("of a nested supervisor follow that one alone", () =>
    Effect.gen(function* () {
      const { tree } = yield* zoo
      const { latest, seen } = yield* follow(tree.refs.inner)
      const before = seen.length
      yield* tree.refs.worker.cast.crash()
      yield* settle
      assert.strictEqual(seen.length, before)
      yield* tree.refs.inner.startChild(witness("w", []))
      yield* settle
      assert.deepStrictEqual(
        SupervisionTree.flatten(latest()).map(({ path }) => path),
        ["root/inner", "root/inner/job", "root/inner/w"]
      )
    })
  )
})

describe("flatten and format", () => {
  it.effect("lists parents before their children", () =>
    Effect.gen(function* () {
      const { tree } = yield* zoo
      assert.deepStrictEqual(
        SupervisionTree.flatten(yield* SupervisionTree.snapshot(tree)).map(({ path }) => path),
        [
          "root",
          "root/worker",
          "root/endless",
          "root/inner",
          "root/inner/job",
          "root/pool",
          "root/pool/b",
          "root/pool/a",
          "root/tasks"
        ]
      )
    })
  )

  it.effect("writes one line per child, indented, with what is worth telling", () =>
    Effect.gen(function* () {
      const { box, tree } = yield* zoo
      yield* tree.refs.worker.cast.crash()
      yield* settle
      yield* Effect.forkChild(Effect.exit(tree.refs.worker.call.wait()))
      yield* settle
      yield* tree.refs.worker.cast.note("x")
      const text = SupervisionTree.format(yield* SupervisionTree.snapshot(tree))
      assert.deepStrictEqual(text.split("\n"), [
        "root (running)",
        "  worker (running, 1 restarts, 1 waiting, last: crash (Error: crash))",
        "  endless (running)",
        "  inner (running)",
        "    job (running)",
        "  pool (running)",
        "    b (running)",
        "    a (running)",
        "  tasks (running)"
      ])
      yield* Deferred.succeed(box.gate, undefined)
      yield* settle
      const [worker] = (yield* SupervisionTree.snapshot(tree)).children
      assert.strictEqual(
        SupervisionTree.format({ ...(worker ?? assert.fail()), zombies: 2, restarts: 0 }, "> "),
        "> worker (running, 2 zombies, last: crash (Error: crash))"
      )
    })
  )
})
