import { describe, expectTypeOf, it } from "@effect/vitest"
import {
  Actor,
  ActorRef,
  CallError,
  ChildSpec,
  EffectRef,
  Supervisor,
  SupervisorError,
  SupervisorRef
} from "@tinkex/supervision"
import { Context, Effect, Exit, Schema, type Scope } from "effect"

class Audit extends Context.Service<Audit, { readonly write: (line: string) => Effect.Effect<void> }>()("test/Audit") {}
class Vault extends Context.Service<Vault, { readonly open: Effect.Effect<void> }>()("test/Vault") {}
class NotEnough extends Schema.TaggedError<NotEnough>()("NotEnough", { missing: Schema.Number }) {}

class Account extends Actor.make("Account", {
  *init(opening: number) {
    const audit = yield* Audit
    yield* Effect.addFinalizer(() => audit.write("closed"))
    return { balance: opening, audit }
  },
  call: {
    balance: (self) => self.state.balance,
    deposit: (self, amount: number) => (self.state.balance += amount),
    *withdraw(self, amount: number) {
      const missing = amount - self.state.balance
      if (missing > 0) return yield* new NotEnough({ missing })
      yield* self.state.audit.write("withdraw")
      return (self.state.balance -= amount)
    },
    seal: Effect.fnUntraced(function* (self: Actor.Self<{ balance: number }>, why: string) {
      const vault = yield* Vault
      yield* vault.open
      return `${why} ${self.state.balance}`
    })
  },
  cast: {
    reset: (self) => {
      self.state.balance = 0
    }
  }
}) {}

class Plain extends Actor.make("Plain", { init: (_arg: void) => 0, call: { read: (self) => self.state } }) {}

const specs = [
  ChildSpec.actor("alice", Account, 100),
  ChildSpec.actor("plain", Plain, undefined),
  ChildSpec.effect("job", Effect.as(Vault, 7 as const), { restart: "temporary" }),
  ChildSpec.supervisor("inner", { children: [ChildSpec.actor("bob", Account, 1)] })
] as const

// compiled, never run
const program = Effect.gen(function* () {
  const tree = yield* Supervisor.start({ children: specs })
  const { alice, inner, job, plain } = tree.refs

  expectTypeOf(alice).toEqualTypeOf<ActorRef.ActorRef<typeof Account>>()
  expectTypeOf(alice.call.balance()).toEqualTypeOf<Effect.Effect<number, CallError.CallError>>()
  expectTypeOf(alice.call.deposit).parameters.toEqualTypeOf<[amount: number]>()
  expectTypeOf(alice.call.withdraw(1)).toEqualTypeOf<Effect.Effect<number, NotEnough | CallError.CallError>>()
  expectTypeOf(alice.call.seal("x")).toEqualTypeOf<Effect.Effect<string, CallError.CallError>>()
  expectTypeOf(alice.cast.reset()).toEqualTypeOf<Effect.Effect<void>>()
  expectTypeOf(alice.within("1 second")).toEqualTypeOf<ActorRef.ActorRef<typeof Account>>()
  expectTypeOf(plain.call.read()).toEqualTypeOf<Effect.Effect<number, CallError.CallError>>()
  expectTypeOf(plain.cast).toEqualTypeOf<{}>()
  expectTypeOf(job).toEqualTypeOf<EffectRef.EffectRef<7, never>>()
  expectTypeOf(job.exit).toEqualTypeOf<Effect.Effect<Exit.Exit<7>>>()
  expectTypeOf(inner).toExtend<SupervisorRef.SupervisorRef<object>>()
  expectTypeOf(inner.refs.bob).toEqualTypeOf<ActorRef.ActorRef<typeof Account>>()

  const added = yield* tree.startChild(ChildSpec.actor("carol", Account, 5))
  expectTypeOf(added).toEqualTypeOf<ActorRef.ActorRef<typeof Account>>()

  // @ts-expect-error a string is no amount
  alice.call.deposit("1")
  // @ts-expect-error the payload is missing
  alice.call.deposit()
  // @ts-expect-error one payload too many
  alice.call.balance(1)
  // @ts-expect-error no such operation
  alice.call.steal()
  // @ts-expect-error a cast is not a call
  alice.call.reset()
  // @ts-expect-error no such child
  void tree.refs.alise
  // @ts-expect-error no such child of the inner supervisor
  void inner.refs.alice
})

expectTypeOf(program).toEqualTypeOf<Effect.Effect<void, SupervisorError.SupervisorError, Audit | Vault | Scope.Scope>>()

// @ts-expect-error the argument of init is a number
ChildSpec.actor("alice", Account, "100")

// @ts-expect-error a misspelt restart type
ChildSpec.actor("alice", Account, 100, { restart: "always" })

// @ts-expect-error a misspelt strategy
Supervisor.start({ strategy: "one_for_none", children: [] })

Actor.make("Wrong", {
  init: () => ({ n: 0 }),
  call: {
    set: (self, text: string) => {
      // @ts-expect-error the state holds a number
      self.state.n = text
    }
  }
})

const audited = Supervisor.layer({ children: [ChildSpec.actor("alice", Account, 1)] })
expectTypeOf(audited).toExtend<{ readonly pipe: unknown }>()

describe("the protocol", () => {
  it("is inferred from the handlers", () => {
    expectTypeOf<Actor.Argument<typeof Account>>().toEqualTypeOf<number>()
    expectTypeOf<Actor.Services<typeof Account>>().toEqualTypeOf<Audit | Vault>()
  })
})
