import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ChildSpec,
  DynamicSupervisor,
  PartitionSupervisor,
  Supervisor,
  type SupervisorError,
  TaskSupervisor
} from "@tinkex/supervision"
import { Duration, Effect } from "effect"
import { Witness, settle, witness } from "../support.ts"
import { counts, refusal, statuses, untyped } from "./childSupport.ts"

const restarts = ["permanent", "transient", "temporary"] as const
const modes = ["never", "any_significant", "all_significant"] as const
const misspelt = "permanet" as never // untyped input
const nothing = undefined as never // untyped input

/** `field: problem` of a refusal that is about the request itself. */
const problem = <A, R>(request: Effect.Effect<A, SupervisorError.SupervisorError, R>) =>
  Effect.map(refusal(request), (reason) =>
    reason._tag === "InvalidRequest" ? `${reason.field}: ${reason.problem}` : reason._tag
  )

/** The problem of a spec, which must be the same however it is handed over. */
const flawOf = (spec: ChildSpec.ChildSpec<string, unknown, never>) =>
  Effect.gen(function* () {
    const tree = yield* Supervisor.start({ children: [] })
    const dynamic = yield* DynamicSupervisor.start()
    const checked = yield* problem(ChildSpec.validate([spec]))
    assert.strictEqual(yield* problem(Supervisor.start({ children: [spec] })), checked)
    const added = checked.replace("children[0]", "spec")
    assert.strictEqual(yield* problem(tree.startChild(spec)), added)
    assert.strictEqual(yield* problem(dynamic.startChild(spec)), added)
    assert.strictEqual(yield* counts(tree), "0/0/0/0")
    return added
  })

describe("validation of flags and specs", () => {
  it.effect("VA-01 what cannot be started is refused", () =>
    Effect.gen(function* () {
      assert.include(yield* flawOf(untyped(ChildSpec.actor("x", nothing, nothing))), "spec.actor: it is undefined")
      const noActor = Date as never // untyped input
      assert.include(yield* flawOf(untyped(ChildSpec.actor("x", noActor, nothing))), "spec.actor: it is function Date")
      const noEffect = (() => 42) as never // untyped input
      assert.include(yield* flawOf(untyped(ChildSpec.effect("x", noEffect))), "spec.effect: it is () => 42")
      const noInit = { init: 42 } as never // untyped input
      assert.throws(() => Actor.make("Broken", noInit), `Actor "Broken": init is 42`)
    })
  )

  it.effect("VA-02 a misspelt restart type is refused and quoted", () =>
    Effect.gen(function* () {
      const expected = `spec.restart: it is "permanet"; give one of permanent, transient, temporary`
      assert.strictEqual(yield* flawOf(witness("x", [], { restart: misspelt })), expected)
      assert.strictEqual(yield* flawOf(ChildSpec.effect("x", Effect.never, { restart: misspelt })), expected)
      const inner = ChildSpec.supervisor("x", { restart: misspelt, children: [] })
      assert.strictEqual(yield* flawOf(inner), expected)
      assert.strictEqual(yield* flawOf(DynamicSupervisor.childSpec("x", { restart: misspelt })), expected)
    })
  )

  it.effect("VA-03 a negative shutdown time is refused; zero is allowed", () =>
    Effect.gen(function* () {
      for (const [shutdown, shown] of [
        [-1, "-1"],
        ["-1 seconds", "-1 seconds"],
        [Number.NaN, "NaN"],
        ["brutally", "brutally"],
        [Number.NEGATIVE_INFINITY, "-Infinity"]
      ] as const) {
        const given = shutdown as Duration.Input // untyped input, in parts
        const expected = `spec.shutdown: it is ${shown}; give a duration from 0`
        assert.strictEqual(yield* flawOf(witness("x", [], { shutdown: given })), expected)
        assert.strictEqual(yield* flawOf(ChildSpec.supervisor("x", { shutdown: given, children: [] })), expected)
      }
      yield* ChildSpec.validate([witness("x", [], { shutdown: 0 }), witness("y", [], { shutdown: Duration.zero })])
      const tree = yield* Supervisor.start({ children: [witness("x", [], { shutdown: 0 })] })
      yield* tree.terminateChild("x")
      assert.deepStrictEqual(yield* statuses(tree), ["x stopped"])
    })
  )

  it.effect("VA-06 the offline checker wants a list and reports the first problem in it", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      yield* ChildSpec.validate([])
      yield* ChildSpec.validate([witness("a", log), witness("b", log)])
      for (const noList of [witness("a", log), undefined, "children", { 0: witness("a", log), length: 1 }]) {
        assert.include(yield* problem(ChildSpec.validate(noList as never)), "give a list of child specs") // untyped input
      }
      const first = yield* problem(
        ChildSpec.validate([
          witness("a", log),
          witness("b", log, { shutdown: -1 }),
          witness("c", log, { restart: misspelt }),
          witness("a", log)
        ])
      )
      assert.strictEqual(first, "children[1].shutdown: it is -1; give a duration from 0")
      const twice = yield* problem(ChildSpec.validate([witness("a", log), witness("b", log), witness("a", log)]))
      assert.strictEqual(twice, `children[2].id: two children have the id "a"; give each its own`)
      assert.deepStrictEqual(log, [], "nothing was started")
    })
  )

  it.effect("VA-07 every combination of restart type, shutdown and kind of child passes, and is stored as given", () =>
    Effect.gen(function* () {
      for (const restart of restarts) {
        for (const [shutdown, stored] of [
          ["brutal", "brutal"],
          ["infinity", Duration.infinity],
          [0, Duration.zero],
          ["1 minute", Duration.minutes(1)],
          [Duration.seconds(3), Duration.seconds(3)]
        ] as const) {
          const options = { restart, shutdown }
          const specs = [
            witness("actor", [], options),
            ChildSpec.effect("effect", Effect.never, options),
            ChildSpec.supervisor("supervisor", { ...options, children: [] }),
            DynamicSupervisor.childSpec("dynamic", options)
          ] as const
          yield* ChildSpec.validate(specs)
          yield* Effect.scoped(
            Effect.gen(function* () {
              const tree = yield* Supervisor.start({ children: specs })
              for (const { id } of specs) {
                const spec = yield* tree.childSpec(id)
                assert.strictEqual(spec.restart, restart)
                assert.deepStrictEqual(spec.shutdown, stored)
              }
            })
          )
        }
      }
    })
  )

  it.effect("VA-09 a faulty spec fails the supervisor's start with the problem that the checker reports", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const faulty = [witness("a", log), witness("b", log, { startLimit: -1 })] as const
      const checked = yield* problem(ChildSpec.validate(faulty))
      assert.strictEqual(checked, "children[1].startLimit: it is -1; give a duration from 0")
      assert.strictEqual(yield* problem(Supervisor.start({ children: faulty })), checked)
      assert.deepStrictEqual(log, [], "not even the children before it were started")
      const inner = ChildSpec.supervisor("inner", { children: faulty })
      const nested = yield* refusal(Supervisor.start({ children: [witness("c", log), inner] }))
      assert.include(nested.message, "children[1].startLimit: it is -1")
      assert.deepStrictEqual(log.length % 2, 0, "what had been started was stopped again")
    })
  )

  it.effect("VA-10 a dynamic supervisor takes no templates: neither an empty list nor two", () =>
    Effect.gen(function* () {
      const spec = witness("w", [])
      for (const children of [[], [spec], [spec, spec]]) {
        const options = { children }
        const start = yield* problem(DynamicSupervisor.start(options as DynamicSupervisor.RootOptions)) // untyped input
        assert.include(start, "children: a dynamic supervisor begins without children")
      }
      const tree = yield* DynamicSupervisor.start()
      assert.include(yield* problem(tree.startChild(untyped(undefined))), "undefined is no child spec")
      assert.include(yield* problem(tree.startChild(untyped([spec, spec]))), "is no child spec")
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
    })
  )

  it.effect("VA-11 a missing id is reported before other problems, whatever the child", () =>
    Effect.gen(function* () {
      const options = { restart: misspelt, shutdown: -1, significant: true }
      for (const [id, shown] of [
        [nothing, "undefined"],
        ["", `""`],
        ["a/b", `"a/b"`],
        [7 as never, "7"]
      ] as const) {
        const child = () => witness("w", [])
        for (const spec of [
          untyped(ChildSpec.actor(id, nothing, nothing, options)),
          untyped(ChildSpec.effect(id, nothing, options)),
          untyped(ChildSpec.supervisor(id, { ...options, intensity: { restarts: -1 }, children: [] })),
          untyped(DynamicSupervisor.childSpec(id, { ...options, maxChildren: -1 })),
          untyped(TaskSupervisor.childSpec(id, { ...options, maxChildren: -1 })),
          untyped(PartitionSupervisor.childSpec(id, { ...options, partitions: 0, child }))
        ]) {
          assert.strictEqual(yield* flawOf(spec), `spec.id: it is ${shown}; give a name without "/"`)
        }
      }
    })
  )

  it.effect("VA-13 a significant child does not go with a supervisor that never shuts down by itself", () =>
    Effect.gen(function* () {
      const spec = witness("x", [], { significant: true, restart: "transient" })
      const expected = "children[0].significant: autoShutdown is never, so no child can be significant"
      assert.strictEqual(yield* problem(ChildSpec.validate([spec])), expected)
      assert.strictEqual(yield* problem(ChildSpec.validate([spec], { autoShutdown: "never" })), expected)
      assert.strictEqual(yield* problem(Supervisor.start({ children: [spec] })), expected)
      assert.strictEqual(yield* problem(Supervisor.start({ autoShutdown: "never", children: [spec] })), expected)
      const tree = yield* Supervisor.start({ children: [] })
      assert.include(yield* problem(tree.startChild(spec)), "autoShutdown is never")
      const dynamic = yield* DynamicSupervisor.start()
      assert.include(yield* problem(dynamic.startChild(spec)), "autoShutdown is never")
      assert.strictEqual(yield* counts(tree), "0/0/0/0")
    })
  )

  it.effect("VA-14 a permanent child cannot be significant, also when it is permanent by default", () =>
    Effect.gen(function* () {
      for (const autoShutdown of modes) {
        for (const options of [{ significant: true }, { significant: true, restart: "permanent" as const }]) {
          const children = [witness("x", [], options)] as const
          const found = yield* problem(ChildSpec.validate(children, { autoShutdown }))
          assert.include(found, "children[0].significant: a permanent child never ends for good")
          assert.strictEqual(yield* problem(Supervisor.start({ autoShutdown, children })), found)
        }
      }
    })
  )

  it.effect("VA-15 every other combination of significance, restart type and automatic shutdown passes", () =>
    Effect.gen(function* () {
      for (const autoShutdown of modes) {
        for (const restart of restarts) {
          for (const significant of [false, true]) {
            if (significant && (restart === "permanent" || autoShutdown === "never")) continue
            const spec = witness("x", [], { restart, significant })
            yield* ChildSpec.validate([spec], { autoShutdown })
            yield* Effect.scoped(
              Effect.gen(function* () {
                const tree = yield* Supervisor.start({ autoShutdown, children: [spec] })
                assert.strictEqual((yield* tree.childSpec("x")).significant, significant)
                assert.deepStrictEqual(yield* statuses(tree), ["x running"])
              })
            )
          }
        }
      }
    })
  )

  const starts = (intensity: object) => [
    Effect.map(Supervisor.start({ intensity, children: [] }), ({ snapshot }) => snapshot),
    Effect.map(DynamicSupervisor.start({ intensity }), ({ snapshot }) => snapshot)
  ]

  it.effect("VA-17 the intensity is a whole number from 0; infinity is refused", () =>
    Effect.gen(function* () {
      for (const value of [-1, 0.5, Number.POSITIVE_INFINITY, Number.NaN, "3", null]) {
        for (const start of starts({ restarts: value })) {
          assert.strictEqual(
            yield* problem(start),
            `intensity.restarts: it is ${String(value)}; give a whole number from 0`
          )
        }
      }
      for (const restarts of [0, 1, 1_000_000]) {
        for (const start of starts({ restarts })) {
          assert.strictEqual((yield* yield* start).intensity?.restarts, restarts)
        }
      }
    })
  )

  it.effect("VA-18 the window of the intensity is a finite time above zero", () =>
    Effect.gen(function* () {
      for (const within of [0, -1, Duration.zero, Duration.infinity, Number.POSITIVE_INFINITY, "soon", Number.NaN]) {
        for (const start of starts({ within })) {
          const found = yield* problem(start)
          assert.match(found, /^intensity\.within: it is .*; give a finite time above zero$/)
        }
      }
      for (const [within, millis] of [
        [1, 1],
        ["5 seconds", 5000],
        [Duration.days(1), 86_400_000]
      ] as const) {
        for (const start of starts({ within })) {
          assert.strictEqual((yield* yield* start).intensity?.within, millis)
        }
      }
    })
  )

  it.effect("VA-19 an unknown mode of automatic shutdown is refused and quoted", () =>
    Effect.gen(function* () {
      const expected = `autoShutdown: it is "sometimes"; give one of never, any_significant, all_significant`
      const options = { autoShutdown: "sometimes" as never, children: [] } // untyped input
      assert.strictEqual(yield* problem(Supervisor.start(options)), expected)
      assert.strictEqual(yield* problem(DynamicSupervisor.start({ autoShutdown: options.autoShutdown })), expected)
      const nested = yield* refusal(Supervisor.start({ children: [ChildSpec.supervisor("inner", options)] }))
      assert.include(nested.message, expected)
      const strategy = yield* problem(Supervisor.start({ strategy: "one_for_none" as never, children: [] })) // untyped
      assert.strictEqual(strategy, `strategy: it is "one_for_none"; give one of one_for_one, one_for_all, rest_for_one`)
    })
  )

  it.effect("VA-21 options that nobody knows are tolerated", () =>
    Effect.gen(function* () {
      const options = { children: [ChildSpec.actor("a", Witness, { id: "a", log: [] })], flavour: "vanilla" } as const
      const tree = yield* Supervisor.start(options)
      assert.strictEqual(yield* tree.refs.a.call.ping(), "a1")
      const inner = yield* tree.startChild(ChildSpec.supervisor("inner", options))
      yield* inner.refs.a.cast.crash()
      yield* settle
      assert.strictEqual(yield* inner.refs.a.call.ping(), "a2")
      const pool = { maxChildren: 1, flavour: "vanilla" }
      const dynamic = yield* DynamicSupervisor.start(pool)
      yield* dynamic.startChild(witness("b", []))
      assert.deepStrictEqual(yield* statuses(dynamic), ["b running"])
    })
  )
})
