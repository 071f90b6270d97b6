import { assert, describe, it } from "@effect/vitest"
import { Actor, Backoff, ChildSpec, DynamicSupervisor, Supervisor, type SupervisorError } from "@tinkex/supervision"
import { Effect } from "effect"

/** Programs without a compiler give anything. */
const untyped = <A>(value: unknown): A => value as A

const problemOf = (error: SupervisorError.SupervisorError): string => {
  const { reason } = error
  return reason._tag === "InvalidRequest" ? `${reason.field}: ${reason.problem}` : reason._tag
}

describe("values of a wrong type are refused by the name of their field", () => {
  for (const [options, expected] of [
    [{ backoff: "1 second" }, 'spec.backoff: it is "1 second"; make one with Backoff'],
    [{ backoff: {} }, "spec.backoff: it is {}; make one with Backoff"],
    [{ decide: "restart" }, 'spec.decide: it is "restart"; give a function, or one from Decision'],
    [{ names: "teller" }, "spec.names: give a list of names, each from Registry"],
    [{ names: ["teller"] }, "spec.names: give a list of names, each from Registry"],
    [{ names: [undefined] }, "spec.names: give a list of names, each from Registry"]
  ] as const) {
    it.effect(`${JSON.stringify(options)} of a child`, () =>
      Effect.gen(function* () {
        const spec = ChildSpec.effect("it", Effect.never, untyped<object>(options))
        const tree = yield* Supervisor.start({ children: [] })
        assert.strictEqual(problemOf(yield* Effect.flip(tree.startChild(spec))), expected)
        const workers = yield* DynamicSupervisor.start()
        assert.strictEqual(problemOf(yield* Effect.flip(workers.startChild(spec))), expected)
        yield* ChildSpec.validate([ChildSpec.effect("it", Effect.never, { backoff: "none", names: [] })])
      })
    )
  }

  for (const [options, expected] of [
    [{ backoff: 5 }, "backoff: it is 5; make one with Backoff"],
    [{ when: true }, "when: it is true; give an Effect of true or false"]
  ] as const) {
    it.effect(`${JSON.stringify(options)} of a supervisor`, () =>
      Effect.gen(function* () {
        const plain = yield* Effect.flip(Supervisor.start({ children: [], ...untyped<object>(options) }))
        assert.strictEqual(problemOf(plain), expected)
        assert.strictEqual(problemOf(yield* Effect.flip(DynamicSupervisor.start(untyped<object>(options)))), expected)
      })
    )
  }

  it("the policies of a mailbox", () => {
    const make = (mailbox: unknown) => () => Actor.make("Box", { init: () => 0, mailbox: untyped<object>(mailbox) })
    assert.throws(make({ overflow: "drop" }), /Actor "Box": mailbox.overflow is drop. Give one of suspend, reject/)
    assert.throws(make({ acrossRestart: true }), /Actor "Box": mailbox.acrossRestart is true. Give one of drop, keep/)
  })

  it("the numbers of a backoff", () => {
    for (const factor of [1, 0, -2, Number.NaN, Infinity]) {
      assert.throws(() => Backoff.exponential({ factor }), `factor is ${factor}. Give a number above 1.`)
    }
    for (const attempts of [-1, 1.5, Number.NaN]) {
      assert.throws(() => Backoff.exponential({ attempts }), `attempts is ${attempts}. Give a whole number from 0`)
    }
  })
})
