import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import {
  Actor,
  ActorRef,
  CallError,
  ChildSpec,
  DynamicSupervisor,
  EffectRef,
  ExitReason,
  PartitionSupervisor,
  Registry,
  Supervisor,
  SupervisorError
} from "@tinkex/supervision"
import { Context, Effect, Exit, Layer, Option, Schema, Scope } from "effect"

class Audit extends Context.Service<Audit, { readonly write: (line: string) => Effect.Effect<void> }>()("test/Audit") {}
class Vault extends Context.Service<Vault, { readonly open: Effect.Effect<string> }>()("test/Vault") {}
class Key extends Context.Service<Key, { readonly turn: Effect.Effect<void> }>()("test/Key") {}
class Empty extends Schema.TaggedError<Empty>()("Empty", {}) {}
class Full extends Schema.TaggedError<Full>()("Full", { capacity: Schema.Number }) {}

type Call<A extends Actor.AnyActor> = ActorRef.ActorRef<A>["call"]
type Cast<A extends Actor.AnyActor> = ActorRef.ActorRef<A>["cast"]
type Answer<A, E = never> = Effect.Effect<A, E | CallError.CallError>

interface Numbers {
  readonly numbers: ReadonlyArray<number>
}
const numbers: Numbers = { numbers: [] }

describe("handlers", () => {
  it("infer alike as plain functions, effects, generators and exits", () => {
    class Alike extends Actor.make("Alike", {
      init: (): Numbers => numbers,
      call: {
        plain: (self, at: number) => self.state.numbers[at] ?? 0,
        effect: (self, at: number) => Effect.succeed(self.state.numbers[at] ?? 0),
        function: Effect.fnUntraced(function* (self: Actor.Self<Numbers>, at: number) {
          yield* Effect.void
          return self.state.numbers[at] ?? 0
        }),
        *generator(self, at: number) {
          yield* Effect.void
          return self.state.numbers[at] ?? 0
        },
        exit: (self, at: number) => Exit.succeed(self.state.numbers[at] ?? 0)
      },
      cast: {
        plainly: (self, text: string) => void [self.state, text],
        effectful: (_self, text: string) => Effect.log(text),
        *generating(_self, text: string) {
          yield* Effect.log(text)
        }
      }
    }) {}
    type Method = (at: number) => Answer<number>
    expectTypeOf<Call<typeof Alike>["plain"]>().toEqualTypeOf<Method>()
    expectTypeOf<Call<typeof Alike>["effect"]>().toEqualTypeOf<Method>()
    expectTypeOf<Call<typeof Alike>["function"]>().toEqualTypeOf<Method>()
    expectTypeOf<Call<typeof Alike>["generator"]>().toEqualTypeOf<Method>()
    expectTypeOf<Call<typeof Alike>["exit"]>().toEqualTypeOf<Method>()
    type Telling = (text: string) => Effect.Effect<void>
    expectTypeOf<Cast<typeof Alike>["plainly"]>().toEqualTypeOf<Telling>()
    expectTypeOf<Cast<typeof Alike>["effectful"]>().toEqualTypeOf<Telling>()
    expectTypeOf<Cast<typeof Alike>["generating"]>().toEqualTypeOf<Telling>()
    expectTypeOf<Actor.Services<typeof Alike>>().toEqualTypeOf<never>()
  })

  it("have the failures of what they yield, alike as effects and generators", () => {
    class Failing extends Actor.make("Failing", {
      init: () => 0,
      call: {
        effect: (self) => (self.state > 0 ? Effect.succeed("x") : Effect.fail(new Empty())),
        *generator(self) {
          if (self.state < 0) yield* new Full({ capacity: 1 })
          if (self.state === 0) return yield* new Empty()
          return "x"
        },
        always: () => new Empty()
      },
      cast: { fails: () => new Full({ capacity: 1 }) }
    }) {}
    expectTypeOf<Call<typeof Failing>["effect"]>().toEqualTypeOf<() => Answer<string, Empty>>()
    expectTypeOf<Call<typeof Failing>["generator"]>().toEqualTypeOf<() => Answer<string, Empty | Full>>()
    expectTypeOf<Call<typeof Failing>["always"]>().toEqualTypeOf<() => Answer<never, Empty>>()
    // nobody is told of the failure of a cast
    expectTypeOf<Cast<typeof Failing>["fails"]>().toEqualTypeOf<() => Effect.Effect<void>>()
  })

  it("need what they yield, without their scope; each need of init, calls and casts counts", () => {
    class Needing extends Actor.make("Needing", {
      *init(name: string) {
        const audit = yield* Audit
        yield* Effect.addFinalizer(() => audit.write("closed"))
        return { name }
      },
      call: {
        open: () => Effect.flatMap(Vault, (vault) => vault.open),
        scoped: () => Effect.as(Scope.Scope, 1)
      },
      cast: {
        *turn() {
          const key = yield* Key
          yield* key.turn
        }
      }
    }) {}
    expectTypeOf<Actor.Services<typeof Needing>>().toEqualTypeOf<Audit | Vault | Key>()
    expectTypeOf<Actor.Argument<typeof Needing>>().toEqualTypeOf<string>()
    expectTypeOf<Actor.StateOf<typeof Needing>>().toEqualTypeOf<{ name: string }>()
    const spec = ChildSpec.actor("it", Needing, "x")
    expectTypeOf(spec).toEqualTypeOf<
      ChildSpec.ChildSpec<"it", ActorRef.ActorRef<typeof Needing>, Audit | Vault | Key>
    >()
    const started = Actor.start(Needing, "x")
    expectTypeOf(started).toEqualTypeOf<
      Effect.Effect<
        ActorRef.ActorRef<typeof Needing>,
        SupervisorError.SupervisorError,
        Audit | Vault | Key | Scope.Scope
      >
    >()
  })

  it("take a payload that callers must give, may give, or cannot give", () => {
    class Taking extends Actor.make("Taking", {
      init: () => 0,
      call: {
        none: () => 0,
        some: (_self, payload: { readonly n: number }) => payload.n,
        maybe: (_self, n?: number) => n,
        either: (_self, n: number | undefined) => n
      },
      cast: { note: (_self, _line: string) => {} }
    }) {}
    expectTypeOf<Call<typeof Taking>["none"]>().parameters.toEqualTypeOf<[]>()
    expectTypeOf<Call<typeof Taking>["some"]>().parameters.toEqualTypeOf<[payload: { readonly n: number }]>()
    expectTypeOf<Call<typeof Taking>["maybe"]>().parameters.toEqualTypeOf<[n?: number | undefined]>()
    expectTypeOf<Call<typeof Taking>["either"]>().parameters.toEqualTypeOf<[n: number | undefined]>()

    // compiled, never run
    const wrong = (ref: ActorRef.ActorRef<typeof Taking>) => {
      // @ts-expect-error it takes nothing
      ref.call.none(1)
      // @ts-expect-error a number is no object
      ref.call.some(1)
      // @ts-expect-error the field is a number
      ref.call.some({ n: "1" })
      // @ts-expect-error no such field
      ref.call.some({ n: 1, m: 2 })
      // @ts-expect-error the payload is missing
      ref.call.some()
      // @ts-expect-error the payload may be undefined, but not missing
      ref.call.either()
      // @ts-expect-error null is not undefined
      ref.call.maybe(null)
      // @ts-expect-error the line is missing
      ref.cast.note()
      // @ts-expect-error one payload too many
      ref.cast.note("a", "b")
      // @ts-expect-error a cast is no call
      ref.call.note("a")
      // @ts-expect-error a call is no cast
      ref.cast.none()
    }
    void wrong
  })

  it("see their own state, and nothing else in it", () => {
    Actor.make("Own", {
      init: () => ({ total: 0 }),
      call: {
        read: (self) => {
          expectTypeOf(self).toEqualTypeOf<Actor.Self<{ total: number }>>()
          // @ts-expect-error no such field
          return self.state.sum
        },
        *add(self, n: number) {
          // @ts-expect-error a text is no number
          self.state.total = String(n)
          yield* Effect.void
        }
      },
      cast: {
        replace: (self) => {
          // @ts-expect-error the field is missing
          self.state = {}
          // @ts-expect-error who it is, is not its own to change
          self.id = "other"
        }
      }
    })
  })
})

describe("Actor.later", () => {
  it("stands for what is answered later, and for its failures", () => {
    class Queue extends Actor.make("Queue", {
      init: () => ({ takers: [] as Array<Actor.From<string, Empty>> }),
      call: {
        take: (self) => Actor.later<string, Empty>((from) => self.state.takers.push(from)),
        safe: () => Actor.later<number>((from) => from.succeed(1)),
        *sometimes(self, wait: boolean) {
          yield* Effect.void
          if (wait) return Actor.later<string, Empty>((from) => self.state.takers.push(from))
          if (self.state.takers.length > 9) return yield* new Full({ capacity: 9 })
          return self.state.takers.length
        },
        effect: (self) =>
          Effect.as(
            Vault,
            Actor.later<string, Empty>((from) => self.state.takers.push(from))
          )
      }
    }) {}
    expectTypeOf<Call<typeof Queue>["take"]>().toEqualTypeOf<() => Answer<string, Empty>>()
    expectTypeOf<Call<typeof Queue>["safe"]>().toEqualTypeOf<() => Answer<number>>()
    expectTypeOf<Call<typeof Queue>["sometimes"]>().toEqualTypeOf<
      (wait: boolean) => Answer<string | number, Empty | Full>
    >()
    expectTypeOf<Call<typeof Queue>["effect"]>().toEqualTypeOf<() => Answer<string, Empty>>()
    expectTypeOf<Actor.Services<typeof Queue>>().toEqualTypeOf<Vault>()
  })

  it("lets its address take only what was promised", () => {
    const promised = Actor.later<string, Empty>((from) => {
      expectTypeOf(from).toEqualTypeOf<Actor.From<string, Empty>>()
      // @ts-expect-error a number is not what was promised
      from.succeed(1)
      // @ts-expect-error another failure
      from.fail(new Full({ capacity: 1 }))
    })
    expectTypeOf(promised).toEqualTypeOf<Actor.Later<string, Empty>>()
    Actor.later<string>((from) => {
      // @ts-expect-error no failure was promised
      from.fail(new Empty())
    })
    // an address that takes more serves where one is wanted that takes less
    expectTypeOf<Actor.From<string | number, Empty>>().toExtend<Actor.From<string, never>>()
    expectTypeOf<Actor.From<string, never>>().not.toExtend<Actor.From<string | number, never>>()
  })
})

describe("the state", () => {
  it("is what init makes, plainly, as an effect, or as a generator", () => {
    const plain = Actor.make("Plain", { init: (n: number) => ({ n }) })
    const effect = Actor.make("Effect", { init: (n: number) => Effect.succeed({ n }) })
    const generator = Actor.make("Generator", {
      *init(n: number) {
        yield* Effect.void
        return { n }
      }
    })
    expectTypeOf<Actor.StateOf<typeof plain>>().toEqualTypeOf<{ n: number }>()
    expectTypeOf<Actor.StateOf<typeof effect>>().toEqualTypeOf<{ n: number }>()
    expectTypeOf<Actor.StateOf<typeof generator>>().toEqualTypeOf<{ n: number }>()
  })

  it("has no trace of Actor.ignore", () => {
    const plain = Actor.make("Plain", {
      init: (on: boolean) => (on ? { n: 1 } : Actor.ignore),
      call: { read: (self) => self.state.n }
    })
    const effect = Actor.make("Effect", {
      init: (on: boolean) => Effect.map(Audit, () => (on ? { n: 1 } : Actor.ignore)),
      call: { read: (self) => self.state.n }
    })
    const generator = Actor.make("Generator", {
      *init(on: boolean) {
        yield* Audit
        if (!on) return Actor.ignore
        return { n: 1 }
      },
      call: { read: (self) => self.state.n }
    })
    expectTypeOf<Actor.StateOf<typeof plain>>().toEqualTypeOf<{ n: number }>()
    expectTypeOf<Actor.StateOf<typeof effect>>().toEqualTypeOf<{ n: number }>()
    expectTypeOf<Actor.StateOf<typeof generator>>().toEqualTypeOf<{ n: number }>()
    expectTypeOf<Actor.Services<typeof generator>>().toEqualTypeOf<Audit>()
    expectTypeOf<ActorRef.ActorRef<typeof effect>["getState"]>().toEqualTypeOf<Answer<{ n: number }>>()
  })

  it("has no trace of Actor.withInfo", () => {
    const plain = Actor.make("Plain", {
      init: (port: number) => Actor.withInfo({ port }, { listening: port }),
      call: { port: (self) => self.state.port }
    })
    const effect = Actor.make("Effect", {
      init: (port: number) => Effect.succeed(Actor.withInfo({ port }, port)),
      call: { port: (self) => self.state.port }
    })
    const both = Actor.make("Both", {
      *init(port: number) {
        yield* Effect.void
        if (port === 0) return Actor.ignore
        return port > 1024 ? Actor.withInfo({ port }, port) : { port }
      },
      call: { port: (self) => self.state.port }
    })
    expectTypeOf<Actor.StateOf<typeof plain>>().toEqualTypeOf<{ port: number }>()
    expectTypeOf<Actor.StateOf<typeof effect>>().toEqualTypeOf<{ port: number }>()
    expectTypeOf<Actor.StateOf<typeof both>>().toEqualTypeOf<{ port: number }>()
    expectTypeOf<Call<typeof both>["port"]>().toEqualTypeOf<() => Answer<number>>()
  })

  it("may be a union whose members handlers tell apart", () => {
    type Door = { readonly _tag: "Open"; readonly since: number } | { readonly _tag: "Closed" }
    const door = Actor.make("Door", {
      init: (): Door => ({ _tag: "Closed" }),
      call: { since: (self) => (self.state._tag === "Open" ? Option.some(self.state.since) : Option.none()) },
      cast: {
        open: (self, now: number) => {
          self.state = { _tag: "Open", since: now }
        }
      }
    })
    expectTypeOf<Actor.StateOf<typeof door>>().toEqualTypeOf<Door>()
    expectTypeOf<Call<typeof door>["since"]>().toEqualTypeOf<() => Answer<Option.Option<number>>>()
  })
})

describe("the other functions of an actor", () => {
  it("have the state of init as theirs", () => {
    interface State {
      readonly n: number
    }
    type Self = Actor.Self<State>
    const actor = Actor.make("Whole", {
      *init(n: number) {
        yield* Effect.void
        if (n < 0) return Actor.ignore
        const state: State = { n }
        return Actor.withInfo(state, n)
      },
      *started(self) {
        expectTypeOf(self).toEqualTypeOf<Self>()
        yield* Effect.void
      },
      exit: (self, signal) => {
        expectTypeOf(self).toEqualTypeOf<Self>()
        expectTypeOf(signal).toEqualTypeOf<Actor.ExitSignal>()
        expectTypeOf(signal.exit).toEqualTypeOf<ExitReason.ExitReason>()
      },
      terminate: (self, reason) => {
        expectTypeOf(self).toEqualTypeOf<Self>()
        expectTypeOf(reason).toEqualTypeOf<ExitReason.ExitReason>()
        return Effect.log(self.state.n)
      },
      describe: (state) => {
        expectTypeOf(state).toEqualTypeOf<State>()
        return state.n
      },
      call: {
        work: (self, target: Actor.Watchable) => {
          expectTypeOf(self).toEqualTypeOf<Self>()
          self.continue((self) => void expectTypeOf(self).toEqualTypeOf<Self>())
          self.timers.start("once", "1 second", (self) => void expectTypeOf(self).toEqualTypeOf<Self>())
          self.timers.idle("1 second", function* (self) {
            expectTypeOf(self).toEqualTypeOf<Self>()
            yield* Effect.void
          })
          self.watch(target, (self, down) => {
            expectTypeOf(self).toEqualTypeOf<Self>()
            expectTypeOf(down).toEqualTypeOf<Actor.Down>()
          })
        }
      }
    })
    expectTypeOf<Actor.StateOf<typeof actor>>().toEqualTypeOf<State>()
    expectTypeOf<Call<typeof actor>["work"]>().toEqualTypeOf<(target: Actor.Watchable) => Answer<void>>()
  })

  it("cannot use what is not in the state", () => {
    Actor.make("Wrong", {
      init: () => ({ n: 0 }),
      started: (self) => {
        // @ts-expect-error no such field
        void self.state.m
      },
      exit: (self) => {
        // @ts-expect-error no such field
        void self.state.m
      },
      terminate: (self) => {
        // @ts-expect-error no such field
        void self.state.m
      },
      describe: (state) => {
        // @ts-expect-error no such field
        return state.m
      }
    })
    Actor.make("Needy", {
      init: () => 0,
      // @ts-expect-error services are taken in init, and put in the state
      started: () => Effect.flatMap(Vault, (vault) => vault.open)
    })
    Actor.make("Needier", {
      init: () => 0,
      // @ts-expect-error services are taken in init, and put in the state
      terminate: () => Effect.flatMap(Vault, (vault) => vault.open)
    })
  })
})

class Counter extends Actor.make("Counter", {
  init: (start: number) => ({ total: start }),
  call: { add: (self, n: number) => (self.state.total += n) },
  cast: { reset: (self) => void (self.state.total = 0) }
}) {}
class Other extends Actor.make("Other", { init: () => "", call: { read: (self) => self.state } }) {}

type Ref = ActorRef.ActorRef<typeof Counter>
type Exact = ActorRef.IncarnationRef<typeof Counter>

describe("addresses", () => {
  it("are of two kinds that do not pass for each other", () => {
    expectTypeOf<Exact>().not.toExtend<Ref>()
    expectTypeOf<Ref>().not.toExtend<Exact>()
    expectTypeOf<Ref>().toExtend<ActorRef.Address<typeof Counter>>()
    expectTypeOf<Exact>().toExtend<ActorRef.Address<typeof Counter>>()
    expectTypeOf<Ref["incarnation"]>().toEqualTypeOf<Answer<Exact>>()
    expectTypeOf<Ref["within"]>().returns.toEqualTypeOf<Ref>()
    expectTypeOf<Exact["within"]>().returns.toEqualTypeOf<Exact>()
    expectTypeOf<Exact["generation"]>().toEqualTypeOf<number>()
    expectTypeOf<Ref>().not.toHaveProperty("generation")
    expectTypeOf<Exact>().not.toHaveProperty("incarnation")
    expectTypeOf<Exact["call"]>().toEqualTypeOf<Ref["call"]>()
  })

  it("are of one actor", () => {
    expectTypeOf<ActorRef.ActorRef<typeof Other>>().not.toExtend<Ref>()
    expectTypeOf<Ref>().not.toExtend<ActorRef.ActorRef<typeof Other>>()
    const enter = Actor.enter(Counter, { total: 1 }, { announce: (ref) => Effect.asVoid(ref.call.add(1)) })
    expectTypeOf(enter).toEqualTypeOf<Effect.Effect<void, SupervisorError.SupervisorError | CallError.CallError>>()
    // @ts-expect-error a state of another actor
    Actor.enter(Counter, "")
    // @ts-expect-error an argument of another actor
    Actor.start(Counter, "")
    // @ts-expect-error the argument is missing
    Actor.start(Counter)
  })

  it("change the state to a state only", () => {
    // compiled, never run
    const change = (ref: Ref) => {
      expectTypeOf(ref.replaceState((state) => ({ total: state.total + 1 }))).toEqualTypeOf<Answer<{ total: number }>>()
      // @ts-expect-error no state of this actor
      ref.replaceState(() => ({ sum: 1 }))
    }
    void change
  })
})

describe("specs", () => {
  const job = ChildSpec.effect(
    "job",
    Effect.gen(function* () {
      const audit = yield* Audit
      const vault = yield* Vault
      yield* audit.write(yield* vault.open)
      return 7
    })
  )
  const audit = Layer.succeed(Audit, { write: () => Effect.void })
  const vault = Layer.effect(
    Vault,
    Effect.map(Key, (key) => ({ open: Effect.as(key.turn, "open") }))
  )
  const key = Layer.succeed(Key, { turn: Effect.void })
  type Needs<Spec extends ChildSpec.Any> = ChildSpec.Requirements<[Spec]>

  it("need less with every layer that is provided", () => {
    expectTypeOf<Needs<typeof job>>().toEqualTypeOf<Audit | Vault>()
    const audited = job.pipe(ChildSpec.provide(audit))
    expectTypeOf<Needs<typeof audited>>().toEqualTypeOf<Vault>()
    const keyed = audited.pipe(ChildSpec.provide(vault))
    expectTypeOf<Needs<typeof keyed>>().toEqualTypeOf<Key>()
    const whole = keyed.pipe(ChildSpec.provide(key))
    expectTypeOf<Needs<typeof whole>>().toEqualTypeOf<never>()
    // the id and the handle stay
    expectTypeOf(whole).toEqualTypeOf<ChildSpec.ChildSpec<"job", EffectRef.EffectRef<number, never>, never>>()
  })
  it("of actors, supervisors and partitions hand their needs on", () => {
    class Needing extends Actor.make("Needing", { init: (n: number) => Effect.as(Audit, n) }) {}
    const actor = ChildSpec.actor("actor", Needing, 1)
    const inner = ChildSpec.supervisor("inner", { children: [actor, job] })
    expectTypeOf<Needs<typeof inner>>().toEqualTypeOf<Audit | Vault>()
    const provided = ChildSpec.supervisor("inner", {
      children: [actor.pipe(ChildSpec.provide(audit)), job.pipe(ChildSpec.provide(audit))]
    })
    expectTypeOf<Needs<typeof provided>>().toEqualTypeOf<Vault>()
    const around = inner.pipe(ChildSpec.provide(audit))
    expectTypeOf<Needs<typeof around>>().toEqualTypeOf<Vault>()

    const start = Supervisor.start({ children: [actor.pipe(ChildSpec.provide(audit))] })
    expectTypeOf<Effect.Services<typeof start>>().toEqualTypeOf<Scope.Scope>()
    const partitions = PartitionSupervisor.start({ partitions: 2, child: () => actor })
    expectTypeOf<Effect.Services<typeof partitions>>().toEqualTypeOf<Audit | Scope.Scope>()
    type Partition = Effect.Success<typeof partitions>["partitions"][number]
    expectTypeOf<Partition>().toEqualTypeOf<ActorRef.ActorRef<typeof Needing>>()
  })

  it("keep their ids and handles in a tree", () => {
    const start = Supervisor.start({
      children: [
        ChildSpec.actor("counter", Counter, 1),
        ChildSpec.supervisor("inner", { children: [ChildSpec.actor("other", Other, undefined)] }),
        DynamicSupervisor.childSpec("dynamic")
      ]
    })
    type Refs = Effect.Success<typeof start>["refs"]
    expectTypeOf<keyof Refs>().toEqualTypeOf<"counter" | "inner" | "dynamic">()
    expectTypeOf<Refs["counter"]>().toEqualTypeOf<Ref>()
    expectTypeOf<Refs["inner"]["refs"]["other"]>().toEqualTypeOf<ActorRef.ActorRef<typeof Other>>()
    expectTypeOf<Refs["dynamic"]>().toEqualTypeOf<DynamicSupervisor.DynamicSupervisorRef>()

    // compiled, never run
    const added = (tree: DynamicSupervisor.DynamicSupervisorRef) => {
      expectTypeOf(tree.startChild(job)).toEqualTypeOf<
        Effect.Effect<EffectRef.EffectRef<number, never>, SupervisorError.SupervisorError, Audit | Vault>
      >()
      // @ts-expect-error an id is no handle
      tree.terminateChild("job")
    }
    void added
    expectTypeOf<Registry.Registry<typeof Counter, string, void>["ref"]>().returns.toEqualTypeOf<Ref>()
  })

  it("refuse arguments and options that make no sense", () => {
    // @ts-expect-error the argument of init is a number
    ChildSpec.actor("it", Counter, "1")
    // @ts-expect-error the argument is missing
    ChildSpec.actor("it", Counter)
    // @ts-expect-error no such restart type
    ChildSpec.actor("it", Counter, 1, { restart: "always" })
    // @ts-expect-error no such option
    ChildSpec.effect("it", Effect.void, { readyness: "signalled" })
    // @ts-expect-error no spec
    Supervisor.start({ children: [Counter] })
    // @ts-expect-error no such overflow
    assert.throws(() => Actor.make("Wrong", { init: () => 0, mailbox: { overflow: "wait" } }))
  })
})
