import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ChildSpec,
  Decision,
  ExitReason,
  SupervisionEvent,
  Supervisor,
  SupervisorError,
  Watch
} from "@tinkex/supervision"
import { Cause, Effect, Exit, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { ends } from "./otp/serverSupport.ts"
import { record, settle, tags, witness } from "./support.ts"

class Flaky extends Schema.TaggedError<Flaky>()("Flaky", { code: Schema.Number }) {}
class Revoked extends Schema.TaggedError<Revoked>()("Revoked", {}) {}

const failure = (error: unknown): Decision.Crash => ({ _tag: "Crash", error, cause: Cause.fail(error) })
const defect = (error: unknown): Decision.Crash => ({ _tag: "Crash", error, cause: Cause.die(error) })

describe("byTag", () => {
  const decide = Decision.byTag({ Flaky: "resume", Revoked: "stop" }, { otherwise: "escalate", defect: "stop" })

  it("decides a typed failure by its tag, and the rest as it is told", () => {
    assert.deepStrictEqual(
      [failure(new Flaky({ code: 1 })), failure(new Revoked({})), failure({ _tag: "Other" }), defect("x")].map(decide),
      ["resume", "stop", "escalate", "stop"]
    )
  })

  it("restarts what it was not told about", () => {
    const plain = Decision.byTag({ Flaky: "resume" })
    assert.deepStrictEqual([failure(new Revoked({})), defect(new Flaky({ code: 1 }))].map(plain), [
      "restart",
      "restart"
    ])
  })

  it("takes whatever fails: without a tag, with one that every object has, or no object at all", () => {
    const odd = [
      new Error("plain"),
      "text",
      7,
      undefined,
      null,
      { _tag: "toString" },
      { _tag: "constructor" },
      { _tag: 1 }
    ]
    assert.deepStrictEqual(
      odd.map((error) => decide(failure(error))),
      odd.map(() => "escalate")
    )
  })

  it("calls a failure with a defect beside it a defect", () => {
    const cause = Cause.combine(Cause.fail(new Flaky({ code: 1 })), Cause.die("finalizer"))
    const crash = ExitReason.fromExit(Exit.failCause(cause), false)
    assert.isTrue(crash._tag === "Crash" && Decision.isDefect(crash) && decide(crash) === "stop")
    assert.isFalse(Decision.isDefect(failure(new Flaky({ code: 1 }))))
  })
})

/** Fails as it is told to; cleans up in a second when it is slow. */
class Worker extends Actor.make("Worker", {
  *init({ log, slow }: { readonly log: Array<string>; readonly slow: boolean }) {
    log.push("+")
    if (slow) yield* Effect.addFinalizer(() => Effect.sleep("1 second"))
    return { log, total: 0 }
  },
  call: {
    total: (self) => self.state.total,
    generation: (self) => self.generation,
    refuse: () => new Flaky({ code: 7 }),
    timer: (self) => self.timers.start("t", "1 second", () => new Flaky({ code: 8 })),
    goOn: (self) => self.continue(() => new Flaky({ code: 9 })),
    link: (self, peer: Watch.Watchable) => self.link(peer),
    breaks: (): number => {
      throw new Error("in a call")
    }
  },
  cast: {
    add: (self, n: number) => void (self.state.total += n),
    flaky: () => new Flaky({ code: 1 }),
    revoked: () => new Revoked({}),
    defect: () => Effect.die(new Error("defect")),
    quit: (self) => self.stop(),
    finish: () => new ExitReason.Stop({ info: "done" })
  },
  terminate: (self) => void self.state.log.push("-")
}) {}

const tree = Effect.fnUntraced(function* (
  decide: Decision.Decide,
  options: ChildSpec.ChildOptions = {},
  supervisor: Omit<Parameters<typeof Supervisor.start>[0], "children"> = {}
) {
  const log: Array<string> = []
  const seen: Array<Decision.Crash> = []
  const asked: Decision.Decide = (crash) => {
    seen.push(crash)
    return decide(crash)
  }
  const started = yield* Supervisor.start({
    intensity: { restarts: 100 },
    ...supervisor,
    children: [
      witness("before", []),
      ChildSpec.actor("it", Worker, { log, slow: false }, { decide: asked, ...options }),
      witness("after", [])
    ]
  })
  const events = yield* record(started.events)
  return { log, seen, tree: started, ref: started.refs.it, events }
})

const statusOf = (supervisor: {
  readonly whichChildren: Effect.Effect<ReadonlyArray<{ readonly id: string; readonly status: string }>>
}) => Effect.map(supervisor.whichChildren, (children) => children.find(({ id }) => id === "it")?.status)

const flaky = Decision.byTag({ Flaky: "resume" })

describe("when a decision is asked for", () => {
  it.effect("once per crash, with the failure and its whole cause", () =>
    Effect.gen(function* () {
      const { ref, seen } = yield* tree(() => "restart")
      yield* ref.cast.flaky()
      yield* settle
      yield* ref.cast.defect()
      yield* settle
      assert.deepStrictEqual(
        seen.map((crash) => [String(crash.error), Decision.isDefect(crash), Cause.squash(crash.cause) === crash.error]),
        [
          ["Flaky", false, true],
          ["Error: defect", true, true]
        ]
      )
      assert.strictEqual(yield* ref.call.generation(), 3)
    })
  )

  it.effect("not for an answer that is a failure, a clean end, a kill, or a stop that somebody asked for", () =>
    Effect.gen(function* () {
      const { ref, seen, tree: supervisor } = yield* tree(() => "stop")
      assert.instanceOf(yield* Effect.flip(ref.call.refuse()), Flaky)
      for (const end of [ref.cast.quit(), ref.cast.finish(), ref.kill, ref.stop]) {
        yield* end
        yield* settle
      }
      assert.strictEqual(yield* ref.call.generation(), 5)
      yield* supervisor.terminateChild("it")
      assert.deepStrictEqual(seen, [])
    })
  )

  it.effect("for an end that came over a link, and for the end of an effect", () =>
    Effect.gen(function* () {
      const { ref, seen, tree: supervisor } = yield* tree(() => "stop")
      const peer = yield* supervisor.startChild(
        ChildSpec.actor("peer", Worker, { log: [], slow: false }, { restart: "temporary" })
      )
      yield* ref.call.link(peer)
      yield* peer.cast.flaky()
      yield* settle
      assert.deepStrictEqual(
        seen.map(({ error }) => error),
        [new Flaky({ code: 1 })]
      )
      assert.strictEqual(yield* statusOf(supervisor), "stopped")

      let runs = 0
      yield* supervisor.startChild(
        ChildSpec.effect(
          "effect",
          Effect.suspend(() => Effect.fail(++runs < 3 ? new Flaky({ code: runs }) : new Revoked({}))),
          {
            decide: Decision.byTag({ Flaky: "resume", Revoked: "stop" })
          }
        )
      )
      yield* settle
      assert.strictEqual(runs, 3, "to resume an effect is to restart it")
      assert.deepStrictEqual((yield* supervisor.whichChildren)[0]?.status, "stopped")
    })
  )

  it.effect("a decision that throws is an event, and the crash is answered by a restart", () =>
    Effect.gen(function* () {
      const { events, ref } = yield* tree(() => assert.fail("undecided"))
      yield* ref.cast.flaky()
      yield* settle
      assert.strictEqual(yield* ref.call.generation(), 2)
      assert.deepStrictEqual(tags(events).slice(3), [
        "CallbackFailed it",
        "ChildExited it",
        "ChildStarted it",
        "ChildRestarted it"
      ])
      const failed = events.find((event) => event._tag === "CallbackFailed")
      assert.strictEqual(
        failed !== undefined && SupervisionEvent.format(failed),
        "CallbackFailed supervisor/it: decide crash (AssertionError: undecided)"
      )
    })
  )

  it.effect("what was decided about one crash is not applied to another end", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const supervisor = yield* Supervisor.start({
        strategy: "one_for_all",
        children: [ChildSpec.actor("it", Worker, { log, slow: true }, { decide: () => "stop" }), witness("sibling", [])]
      })
      const { it, sibling } = supervisor.refs
      yield* it.cast.flaky()
      yield* settle
      assert.deepStrictEqual(log, ["+", "-"])
      // while it still cleans up, its sibling drags it into a restart
      yield* sibling.cast.crash()
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* it.call.generation(), 2)
      yield* it.kill
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* statusOf(supervisor), "running", "a kill is not decided about")
      const stopped = yield* Effect.forkChild(supervisor.terminateChild("it"))
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopped)
    })
  )
})

describe("resume", () => {
  it.effect("keeps the incarnation, its state and its timers, runs no clean-up, and costs nothing", () =>
    Effect.gen(function* () {
      const { events, log, ref } = yield* tree(
        flaky,
        { budget: { restarts: 0 } },
        { intensity: { restarts: 0 }, strategy: "one_for_all" }
      )
      yield* ref.cast.add(5)
      for (let n = 0; n < 10; n++) yield* ref.cast.flaky()
      yield* ref.call.timer()
      yield* ref.call.goOn()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* ref.call.total(), yield* ref.call.generation(), log], [5, 1, ["+"]])
      const resumed = events.flatMap((event) => (event._tag === "ChildResumed" ? [event] : []))
      assert.strictEqual(resumed.length, 12)
      assert.deepStrictEqual(
        resumed.slice(-2).map((event) => [event.operation, event.generation, ExitReason.format(event.exit)]),
        [
          ["continue", 1, "crash (Flaky: )"],
          ["timer t", 1, "crash (Flaky: )"]
        ]
      )
      assert.deepStrictEqual(ends(events), [])
    })
  )

  it.effect("of a defect in a call means a restart, and its caller gets the reason", () =>
    Effect.gen(function* () {
      const { ref } = yield* tree(() => "resume")
      const error = yield* Effect.flip(ref.call.breaks())
      assert.strictEqual(error.reason._tag, "TargetExit")
      assert.strictEqual(yield* ref.call.generation(), 2)
    })
  )

  it.effect("keeps a temporary actor too", () =>
    Effect.gen(function* () {
      const { ref } = yield* tree(flaky, { restart: "temporary" })
      yield* ref.cast.flaky()
      yield* ref.cast.add(1)
      assert.strictEqual(yield* ref.call.total(), 1)
      yield* ref.cast.revoked()
      yield* settle
      assert.strictEqual((yield* Effect.flip(ref.call.total())).reason._tag, "NoProcess")
    })
  )
})

describe("stop", () => {
  const decide = Decision.byTag({ Revoked: "stop" })

  for (const strategy of ["one_for_one", "rest_for_one", "one_for_all"] as const) {
    it.effect(`keeps a permanent child down, costs nothing, and leaves its siblings alone: ${strategy}`, () =>
      Effect.gen(function* () {
        const { events, ref, tree: supervisor } = yield* tree(decide, {}, { strategy, intensity: { restarts: 0 } })
        yield* ref.cast.revoked()
        yield* settle
        assert.strictEqual(yield* statusOf(supervisor), "stopped")
        assert.deepStrictEqual(tags(events).slice(3), ["ChildExited it"])
        yield* supervisor.restartChild("it")
        assert.strictEqual(yield* ref.call.generation(), 2)
        assert.strictEqual(yield* supervisor.refs.after.call.ping(), "after1")
      })
    )
  }

  it.effect("forgets a temporary child, and counts as the end of a significant one", () =>
    Effect.gen(function* () {
      const { ref, tree: supervisor } = yield* tree(decide, { restart: "temporary" })
      yield* ref.cast.revoked()
      yield* settle
      assert.strictEqual(yield* statusOf(supervisor), undefined)
      const significant = yield* tree(
        decide,
        { restart: "transient", significant: true },
        { autoShutdown: "any_significant" }
      )
      yield* significant.ref.cast.flaky()
      yield* settle
      assert.strictEqual(yield* significant.ref.call.generation(), 2)
      yield* significant.ref.cast.revoked()
      assert.deepStrictEqual(yield* significant.tree.exit, ExitReason.shutdown)
      yield* settle
      assert.include(tags(significant.events), "AutoShutdown it")
    })
  )
})

describe("escalate", () => {
  const decide = Decision.byTag({ Revoked: "escalate" })

  it.effect("ends the supervisor at once, its other children in reverse order, with the reason of the crash", () =>
    Effect.gen(function* () {
      for (const restart of ["permanent", "transient", "temporary"] as const) {
        const { events, ref, tree: supervisor } = yield* tree(decide, { restart })
        yield* ref.cast.revoked()
        const error = yield* Effect.flip(supervisor.join)
        assert.isTrue(
          error.reason._tag === "Escalated" &&
            error.reason.child === "it" &&
            error.reason.exit._tag === "Crash" &&
            error.reason.exit.error instanceof Revoked
        )
        yield* settle
        assert.deepStrictEqual(tags(events).slice(3), [
          "ChildExited it",
          "GaveUp it",
          "ChildStopped after",
          "ChildStopped before",
          "SupervisorExited supervisor"
        ])
      }
    })
  )

  it.effect("is a plain shutdown where the supervisor gives up that way", () =>
    Effect.gen(function* () {
      const { ref, tree: supervisor } = yield* tree(decide, {}, { giveUp: "shutdown" })
      yield* ref.cast.revoked()
      assert.deepStrictEqual(yield* supervisor.exit, ExitReason.shutdown)
    })
  )

  it.effect("goes up one step: the parent restarts a nested supervisor, or decides about it in turn", () =>
    Effect.gen(function* () {
      const nested = (decideAbove: Decision.Decide | undefined) =>
        Supervisor.start({
          name: "root",
          children: [
            ChildSpec.supervisor("inner", {
              decide: decideAbove,
              children: [ChildSpec.actor("it", Worker, { log: [], slow: false }, { decide })]
            })
          ]
        })
      const plain = yield* nested(undefined)
      yield* plain.refs.inner.refs.it.cast.revoked()
      yield* settle
      assert.strictEqual(yield* plain.refs.inner.refs.it.call.generation(), 2)

      const asked: Array<string> = []
      const above = yield* nested((crash) => {
        asked.push(
          crash.error instanceof SupervisorError.SupervisorError ? crash.error.reason._tag : String(crash.error)
        )
        return "escalate"
      })
      yield* above.refs.inner.refs.it.cast.revoked()
      const error = yield* Effect.flip(above.join)
      assert.deepStrictEqual(asked, ["Escalated"])
      assert.include(error.message, `"root" ended because its child "inner" escalated crash (`)
      assert.include(error.message, `its child "it" escalated crash (Revoked`)
    })
  )
})
