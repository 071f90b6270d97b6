import { assert, describe, it } from "@effect/vitest"
import { Actor, ChildSpec, Registry, Supervisor, type SupervisorError } from "@tinkex/supervision"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Metric, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { pending, settle } from "./support.ts"

const steps = [0, 1, 2, 3, 4] as const

/** What a child writes down: `?` at its first step, `+` when it is up, `-` when it is gone. */
interface Notes {
  readonly log: Array<string>
  /** What the start of each child waits for. */
  readonly wait: (id: string) => Effect.Effect<void>
}

interface Arg extends Notes {
  readonly id: string
}

const life = ({ id, log, wait }: Arg) =>
  Effect.gen(function* () {
    log.push(`?${id}`)
    yield* Effect.addFinalizer(() => Effect.sync(() => log.push(`-${id}`)))
    yield* wait(id)
    log.push(`+${id}`)
  })

/** Has a timer that would run for ever, and a handler that would. */
class Ticker extends Actor.make("Ticker", {
  init: (arg: Arg) => Effect.as(life(arg), arg),
  started: (self) => {
    self.timers.every("tick", "1 second", () => {})
    self.continue(() => Effect.never)
  }
}) {}

class Resource extends Context.Service<Resource, string>()("test/Resource") {}

const makeNotes = (wait: Notes["wait"]) =>
  Effect.map(Registry.make(Ticker), (names) => ({ notes: { log: new Array<string>(), wait }, names }))

type Names = Registry.Registry<typeof Ticker, string, void>

const ticker = <const Id extends string>(id: Id, notes: Notes, names: Names, options?: ChildSpec.ChildOptions) =>
  ChildSpec.actor(id, Ticker, { ...notes, id }, { ...options, names: [names.name(id)] })

const effect = <const Id extends string>(id: Id, notes: Notes, options?: ChildSpec.EffectOptions) =>
  ChildSpec.effect(id, life({ ...notes, id }).pipe(Effect.andThen(ChildSpec.ready), Effect.andThen(Effect.never)), {
    ...options,
    readiness: "signalled"
  })

/** Waits in its layer, and has another one besides that opens at once. */
const layered = <const Id extends string>(id: Id, notes: Notes, options?: ChildSpec.ChildOptions) => {
  const slow = Layer.effect(Resource, Effect.as(life({ ...notes, id }), id))
  return ChildSpec.effect(id, Effect.andThen(Resource, Effect.never), options).pipe(ChildSpec.provide(slow))
}

type Options = ChildSpec.ChildOptions

const mixture = (notes: Notes, names: Names, options?: Options) =>
  Supervisor.start({
    children: [
      ticker("0", notes, names, options),
      layered("1", notes, options),
      effect("2", notes, options),
      layered("3", notes, options),
      ticker("4", notes, names, options)
    ]
  })

/** Trees of five children, `0` to `4` in the order of their starts. */
const trees: Record<
  string,
  (
    notes: Notes,
    names: Names,
    options?: Options
  ) => Effect.Effect<unknown, SupervisorError.SupervisorError, Scope.Scope>
> = {
  actors: (notes, names, options) =>
    Supervisor.start({ children: steps.map((id) => ticker(String(id), notes, names, options)) }),
  effects: (notes, _names, options) =>
    Supervisor.start({ children: steps.map((id) => effect(String(id), notes, options)) }),
  "children with layers": (notes, _names, options) =>
    Supervisor.start({ children: steps.map((id) => layered(String(id), notes, options)) }),
  "a mixture": mixture,
  "nested supervisors": (notes, names, options) =>
    Supervisor.start({
      children: [
        ticker("0", notes, names, options),
        ChildSpec.supervisor("inner", {
          strategy: "one_for_all",
          children: [
            effect("1", notes, options),
            ChildSpec.supervisor("deep", {
              children: [layered("2", notes, options), ticker("3", notes, names, options)]
            })
          ]
        }),
        ticker("4", notes, names, options)
      ]
    })
}

/** Counts what runs and what sleeps in a program. */
const counted = <A, E, R>(
  program: (count: { readonly fibers: () => number; readonly sleeps: () => number }) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function* () {
    let fibers = 0
    let sleeps = 0
    const clock = yield* Clock.clockWith(Effect.succeed)
    const counting: Clock.Clock = {
      ...clock,
      sleep: (duration) =>
        Effect.suspend(() => {
          sleeps++
          return Effect.ensuring(
            clock.sleep(duration),
            Effect.sync(() => sleeps--)
          )
        })
    }
    const metrics: Metric.FiberRuntimeMetricsService = {
      recordFiberStart: () => void fibers++,
      recordFiberEnd: () => void fibers--
    }
    return yield* program({ fibers: () => fibers, sleeps: () => sleeps }).pipe(
      Effect.provideService(Clock.Clock, counting),
      Effect.provideService(Metric.FiberRuntimeMetrics, metrics)
    )
  })

/** Whatever began is gone: each once, in exact reverse order, and nothing began after the first end. */
const undone = (log: ReadonlyArray<string>, message?: string) => {
  const noted = (sign: string) => log.filter((line) => line.startsWith(sign)).map((line) => line.slice(1))
  assert.deepStrictEqual(noted("-"), noted("?").toReversed(), `${message ?? ""}: ${log.join(" ")}`)
  assert.deepStrictEqual(noted("?"), steps.slice(0, noted("?").length).map(String))
  assert.deepStrictEqual(
    noted("+").filter((id) => !noted("?").includes(id)),
    []
  )
  const firstEnd = log.findIndex((line) => line.startsWith("-"))
  if (firstEnd >= 0)
    assert.isTrue(
      log.slice(firstEnd).every((line) => line.startsWith("-")),
      log.join(" ")
    )
}

/** The log of a start that is given up while child `last` is starting, or right after. */
const story = (last: number, isUp: boolean) => [
  ...steps.slice(0, last).flatMap((id) => [`?${id}`, `+${id}`]),
  `?${last}`,
  ...(isUp ? [`+${last}`] : []),
  ...steps.slice(0, last + 1).map((id) => `-${steps[last - id] ?? ""}`)
]

const gates = Effect.map(
  Effect.forEach(steps, () => Deferred.make<void>()),
  (all) => ({
    of: (id: string | number) => all[Number(id)] ?? assert.fail(`no gate ${id}`),
    open: (before: number) => Effect.forEach(all.slice(0, before), (gate) => Deferred.succeed(gate, undefined))
  })
)

describe("interrupting the starter", () => {
  for (const [kind, start] of Object.entries(trees)) {
    for (const last of steps) {
      it.effect(
        `${kind}: while child ${last} is starting, stops what was started, in reverse, and leaves nothing`,
        () =>
          counted(({ fibers, sleeps }) =>
            Effect.gen(function* () {
              const gate = yield* gates
              const { names, notes } = yield* makeNotes((id) => Deferred.await(gate.of(id)))
              const scope = yield* Scope.make()
              yield* gate.open(last)
              const before = fibers()
              const starter = yield* Effect.forkDetach(Effect.provideService(start(notes, names), Scope.Scope, scope))
              yield* settle
              assert.deepStrictEqual(notes.log.at(-1), `?${last}`)
              assert.isTrue(pending(starter))
              yield* Fiber.interrupt(starter)
              // the scope is still open: it is the start that has cleaned up
              assert.deepStrictEqual(notes.log, story(last, false))
              assert.strictEqual(yield* names.count, 0)
              assert.deepStrictEqual([fibers(), sleeps()], [before, 0])
              yield* gate.open(steps.length)
              yield* Scope.close(scope, Exit.void)
              yield* settle
              assert.deepStrictEqual(notes.log, story(last, false))
              assert.deepStrictEqual([fibers(), sleeps()], [before, 0])
            })
          )
      )

      for (const [order, isFirst] of [
        ["just before child", true],
        ["just after child", false]
      ] as const) {
        it.effect(`${kind}: ${order} ${last} has come up, in the same moment, leaves nothing either`, () =>
          counted(({ fibers, sleeps }) =>
            Effect.gen(function* () {
              const gate = yield* gates
              const { names, notes } = yield* makeNotes((id) => Deferred.await(gate.of(id)))
              yield* gate.open(last)
              const before = fibers()
              const starter = yield* Effect.forkDetach(Effect.scoped(start(notes, names)))
              yield* settle
              yield* Effect.sync(() => {
                if (isFirst) starter.interruptUnsafe()
                Deferred.doneUnsafe(gate.of(last), Exit.void)
                if (!isFirst) starter.interruptUnsafe()
              })
              yield* Fiber.await(starter)
              undone(notes.log)
              assert.include(notes.log, `-${last}`)
              // an inner supervisor hears of it a turn later
              const begun = kind === "nested supervisors" ? last + 2 : last + 1
              assert.notInclude(notes.log, `?${begun}`)
              assert.strictEqual(yield* names.count, 0)
              assert.deepStrictEqual([fibers(), sleeps()], [before, 0])
            })
          )
        )
      }
    }

    it.effect(`${kind}: at any of its steps, and of those of its children, leaves nothing`, () =>
      counted(({ fibers, sleeps }) =>
        Effect.gen(function* () {
          const sweep = Effect.fnUntraced(function* (step: number) {
            const { names, notes } = yield* makeNotes(() => Effect.repeat(Effect.yieldNow, { times: 2 }))
            const before = fibers()
            const starter = yield* Effect.forkDetach(Effect.scoped(Effect.andThen(start(notes, names), Effect.never)), {
              startImmediately: true
            })
            for (let i = 0; i < step; i++) yield* Effect.yieldNow
            const isDone = notes.log.length === 2 * steps.length
            yield* Fiber.interrupt(starter)
            undone(notes.log, `step ${step}`)
            assert.strictEqual(yield* names.count, 0)
            assert.deepStrictEqual([fibers(), sleeps()], [before, 0], `step ${step}`)
            return isDone
          })
          let step = 0
          while (!(yield* sweep(step))) step++
          // and when all have started
          for (const more of [1, 2, 3]) yield* sweep(step + more)
          assert.isAbove(step, 2 * steps.length, "there were steps to interrupt")
        })
      )
    )

    for (const last of steps) {
      it.effect(`${kind}: a start limit that ends the start of child ${last} leaves nothing`, () =>
        counted(({ fibers, sleeps }) =>
          Effect.gen(function* () {
            const gate = yield* gates
            const { names, notes } = yield* makeNotes((id) => Deferred.await(gate.of(id)))
            const scope = yield* Scope.make()
            yield* gate.open(last)
            const before = fibers()
            const options = { startLimit: "3 seconds" } as const
            const starter = yield* Effect.forkDetach(
              Effect.flip(Effect.provideService(start(notes, names, options), Scope.Scope, scope))
            )
            yield* settle
            yield* TestClock.adjust(2999)
            assert.isTrue(pending(starter))
            assert.deepStrictEqual(notes.log.at(-1), `?${last}`)
            yield* TestClock.adjust(1)
            assert.strictEqual((yield* Fiber.join(starter)).reason._tag, "StartFailed")
            assert.deepStrictEqual(notes.log, story(last, false))
            assert.strictEqual(yield* names.count, 0)
            assert.deepStrictEqual([fibers(), sleeps()], [before, 0])
            yield* gate.open(steps.length)
            yield* Scope.close(scope, Exit.void)
            assert.deepStrictEqual(notes.log, story(last, false))
          })
        )
      )
    }
  }

  it.effect("a start limit of an inner supervisor stops the part of it that had started", () =>
    counted(({ fibers, sleeps }) =>
      Effect.gen(function* () {
        for (const last of [1, 2, 3]) {
          const gate = yield* gates
          const { names, notes } = yield* makeNotes((id) => Deferred.await(gate.of(id)))
          yield* gate.open(last)
          const before = fibers()
          const starter = yield* Effect.forkDetach(
            Effect.flip(
              Effect.scoped(
                Supervisor.start({
                  children: [
                    ticker("0", notes, names),
                    ChildSpec.supervisor("inner", {
                      startLimit: "3 seconds",
                      children: [
                        effect("1", notes),
                        ChildSpec.supervisor("deep", { children: [layered("2", notes), ticker("3", notes, names)] })
                      ]
                    })
                  ]
                })
              )
            )
          )
          yield* settle
          yield* TestClock.adjust(2999)
          assert.isTrue(pending(starter))
          yield* TestClock.adjust(1)
          const { message, reason } = yield* Fiber.join(starter)
          assert.strictEqual(reason._tag, "StartFailed")
          assert.include(message, `"supervisor" could not start its child "inner"`)
          assert.deepStrictEqual(notes.log, story(last, false))
          assert.strictEqual(yield* names.count, 0)
          assert.deepStrictEqual([fibers(), sleeps()], [before, 0])
        }
      })
    )
  )

  it.effect("a time limit around the start is an interruption like any other", () =>
    counted(({ fibers, sleeps }) =>
      Effect.gen(function* () {
        const gate = yield* gates
        const { names, notes } = yield* makeNotes((id) => Deferred.await(gate.of(id)))
        yield* gate.open(3)
        const before = fibers()
        const starter = yield* Effect.forkDetach(Effect.timeoutOption(Effect.scoped(mixture(notes, names)), "1 second"))
        yield* settle
        yield* TestClock.adjust("1 second")
        assert.isTrue(Option.isNone(yield* Fiber.join(starter)))
        assert.deepStrictEqual(notes.log, story(3, false))
        assert.deepStrictEqual([fibers(), sleeps(), yield* names.count], [before, 0, 0])
      })
    )
  )

  it.effect("a layer that is given up while its tree starts leaves nothing", () =>
    counted(({ fibers, sleeps }) =>
      Effect.gen(function* () {
        const gate = yield* gates
        const { names, notes } = yield* makeNotes((id) => Deferred.await(gate.of(id)))
        yield* gate.open(2)
        const before = fibers()
        const live = Supervisor.layer({ children: steps.map((id) => ticker(String(id), notes, names)) })
        const program = yield* Effect.forkDetach(Effect.provide(Effect.never, live))
        yield* settle
        assert.deepStrictEqual(notes.log.at(-1), "?2")
        yield* Fiber.interrupt(program)
        assert.deepStrictEqual(notes.log, story(2, false))
        assert.deepStrictEqual([fibers(), sleeps(), yield* names.count], [before, 0, 0])
      })
    )
  )

  it.effect("while it is asked whether there is anything to run, starts nothing", () =>
    counted(({ fibers, sleeps }) =>
      Effect.gen(function* () {
        const { names, notes } = yield* makeNotes(() => Effect.void)
        const before = fibers()
        const starter = yield* Effect.forkDetach(
          Effect.scoped(Supervisor.start({ when: Effect.never, children: [ticker("0", notes, names)] }))
        )
        yield* settle
        yield* Fiber.interrupt(starter)
        assert.deepStrictEqual(notes.log, [])
        assert.deepStrictEqual([fibers(), sleeps(), yield* names.count], [before, 0, 0])
      })
    )
  )

  it.effect("waits for ends that take time, one after the other; a second interruption makes them no shorter", () =>
    counted(({ fibers, sleeps }) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        const log: Array<string> = []
        const slow = (id: string, hangs = false) =>
          ChildSpec.effect(
            id,
            Effect.gen(function* () {
              log.push(`?${id}`)
              yield* Effect.addFinalizer(() =>
                Effect.andThen(
                  Effect.sleep("1 second"),
                  Effect.sync(() => log.push(`-${id}`))
                )
              )
              if (hangs) yield* Effect.never
              yield* ChildSpec.ready
              return yield* Effect.never
            }),
            { readiness: "signalled" }
          )
        const before = fibers()
        const starter = yield* Effect.forkDetach(
          Effect.scoped(
            Supervisor.start({
              children: [
                slow("0"),
                ChildSpec.supervisor("inner", { children: [slow("1"), slow("2", true)] }),
                slow("3")
              ]
            })
          )
        )
        yield* settle
        const first = yield* Effect.forkDetach(Fiber.interrupt(starter))
        yield* settle
        const second = yield* Effect.forkDetach(Fiber.interrupt(starter))
        for (const expected of ["-2", "-1", "-0"]) {
          yield* settle
          yield* TestClock.adjust(999)
          assert.isTrue(pending(first) && pending(second))
          assert.notInclude(log, expected)
          yield* TestClock.adjust(1)
          yield* settle
          assert.strictEqual(log.at(-1), expected)
        }
        yield* Fiber.join(first)
        yield* Fiber.join(second)
        assert.deepStrictEqual(log, ["?0", "?1", "?2", "-2", "-1", "-0"])
        assert.deepStrictEqual([fibers(), sleeps()], [before, 0])
      })
    )
  )

  it.effect("a resource that cannot be given up half-way is waited for before what started earlier is stopped", () =>
    counted(({ fibers, sleeps }) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(0)
        const { names, notes } = yield* makeNotes(() => Effect.void)
        const { log } = notes
        const connection = Layer.effect(
          Resource,
          Effect.acquireRelease(
            Effect.gen(function* () {
              log.push("connecting")
              yield* Effect.sleep("1 second")
              log.push("connected")
              return "connection"
            }),
            () => Effect.sync(() => log.push("closed"))
          )
        )
        const user = ChildSpec.effect("user", Effect.andThen(Resource, Effect.never)).pipe(
          ChildSpec.provide(connection)
        )
        const before = fibers()
        const starter = yield* Effect.forkDetach(
          Effect.scoped(Supervisor.start({ children: [ticker("0", notes, names), user] }))
        )
        yield* settle
        const interrupt = yield* Effect.forkDetach(Fiber.interrupt(starter))
        yield* settle
        assert.isTrue(pending(interrupt))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(interrupt)
        assert.deepStrictEqual(log, ["?0", "+0", "connecting", "connected", "closed", "-0"])
        assert.deepStrictEqual([fibers(), sleeps(), yield* names.count], [before, 0, 0])
      })
    )
  )
})

describe("ending a tree while a part of it starts again", () => {
  for (const last of [1, 2, 3]) {
    it.effect(`closing the scope while an inner supervisor is starting child ${last} again leaves nothing`, () =>
      counted(({ fibers, sleeps }) =>
        Effect.gen(function* () {
          let gate = yield* gates
          const { names, notes } = yield* makeNotes((id) => Deferred.await(gate.of(id)))
          yield* gate.open(steps.length)
          const scope = yield* Scope.make()
          const before = fibers()
          const tree = yield* Effect.provideService(
            Supervisor.start({
              children: [
                ticker("0", notes, names),
                ChildSpec.supervisor("inner", {
                  children: [effect("1", notes), layered("2", notes), ticker("3", notes, names)]
                }),
                ticker("4", notes, names)
              ]
            }),
            Scope.Scope,
            scope
          )
          gate = yield* gates
          yield* gate.open(last)
          notes.log.length = 0
          yield* tree.refs.inner.kill
          yield* settle
          assert.strictEqual(notes.log.at(-1), `?${last}`)
          notes.log.length = 0
          yield* Scope.close(scope, Exit.void)
          const partial = steps.slice(1, last + 1).toReversed()
          // what was being started is the latest, so it goes first
          assert.deepStrictEqual(notes.log, [...partial.map((id) => `-${id}`), "-4", "-0"])
          assert.deepStrictEqual([fibers(), sleeps(), yield* names.count], [before, 0, 0])
        })
      )
    )
  }
})

describe("what a tree sleeps for ends with it", () => {
  class Quiet extends Actor.make("Quiet", { init: () => 0, call: { ask: (self) => self.state } }) {}

  it.effect("also where a ref was used again after nobody had called for longer than its limit", () =>
    counted(({ sleeps }) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const tree = yield* Scope.provide(
          Supervisor.start({ children: [ChildSpec.actor("quiet", Quiet, undefined)] }),
          scope
        )
        yield* tree.refs.quiet.call.ask()
        yield* TestClock.adjust("6 seconds")
        assert.strictEqual(sleeps(), 0)
        yield* tree.refs.quiet.call.ask()
        yield* settle
        assert.strictEqual(sleeps(), 1)
        yield* Scope.close(scope, Exit.void)
        yield* settle
        assert.strictEqual(sleeps(), 0)
      })
    )
  )
})
