import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Actor, ActorRef, CallError, ExitReason, Protocol } from "@tinkex/supervision"
import {
  Cause,
  Context,
  Data,
  Deferred,
  Duration,
  Effect,
  Fiber,
  Option,
  Schema,
  SchemaGetter,
  type Scope
} from "effect"
import { TestClock } from "effect/testing"
import * as Net from "node:net"
import { one, pending, settle } from "./support.ts"

class NotEnough extends Schema.TaggedError<NotEnough>()("NotEnough", { missing: Schema.Number }) {}
class Odd extends Schema.TaggedError<Odd>()("Odd", { on: Schema.Date }) {}
class Owner extends Schema.Class<Owner>("Owner")({ name: Schema.String, since: Schema.Date }) {
  get initial() {
    return this.name.slice(0, 1)
  }
}

const Statement = Schema.Struct({
  owner: Owner,
  lines: Schema.Array(Schema.Struct({ amount: Schema.Number, after: Schema.Duration })),
  limit: Schema.Option(Schema.Number),
  note: Schema.optionalKey(Schema.String)
})

/** Everything that an answer can be. */
class Account extends Actor.make("Account", {
  init: (gate: Deferred.Deferred<void>) => ({ gate, balance: 100, log: [] as Array<string> }),
  call: {
    balance: (self) => self.state.balance,
    *withdraw(self, amount: number) {
      const missing = amount - self.state.balance
      if (missing > 0) return yield* new NotEnough({ missing })
      if (amount % 2 === 1) return yield* new Odd({ on: new Date(amount) })
      return (self.state.balance -= amount)
    },
    statement: (_self, owner: Owner) => ({
      owner,
      lines: [{ amount: -5, after: Duration.seconds(3) }],
      limit: Option.some(Infinity)
    }),
    clear: (self) => {
      self.state.balance = 0
    },
    log: (self) => self.state.log,
    both: () => "call",
    scale: (self, by?: number) => self.state.balance * (by ?? 10),
    half: (self) => self.state.balance / 2 + 0.5,
    wait: (self) => Effect.as(Deferred.await(self.state.gate), "waited"),
    crash: (_self, secret: string): number => {
      throw new Error(secret)
    },
    killed: () => Effect.interrupt,
    leave: (self, reason: "normal" | "shutdown") => {
      self.stop(reason === "normal" ? ExitReason.normal : { _tag: "Shutdown", info: { secret: "s3cret" } })
      return Actor.later<string>(() => {})
    },
    rots: (_self, how: "dies" | "fails and dies") =>
      Actor.later<string, NotEnough>((from) =>
        from.failCause(how === "dies" ? defect : Cause.combine(failure, defect))
      ),
    later: (_self, n: number) =>
      Actor.later<number, NotEnough>((from) => (n < 0 ? from.fail(new NotEnough({ missing: -n })) : from.succeed(n))),
    ask: (_self, other: string) =>
      new CallError.CallError({ reason: new CallError.NoProcess({ target: other, operation: "x" }) })
  },
  cast: {
    reset: (self) => {
      self.state.balance = 0
    },
    note: (self, line: string) => {
      self.state.log.push(line)
    },
    both: (self) => {
      self.state.log.push("cast")
    }
  }
}) {}

const defect = Cause.die(new Error("s3cret"))
const failure = Cause.fail(new NotEnough({ missing: 1 }))

const AccountProtocol = Protocol.make(Account, {
  call: {
    balance: { success: Schema.Number },
    withdraw: { payload: Schema.Number, success: Schema.Number, error: Schema.Union([NotEnough, Odd]) },
    statement: { payload: Owner, success: Statement },
    clear: {},
    log: { success: Schema.Array(Schema.String) },
    both: { success: Schema.String },
    scale: { payload: Schema.UndefinedOr(Schema.Number), success: Schema.Number },
    half: { success: Schema.Int },
    wait: { success: Schema.String },
    crash: { payload: Schema.String, success: Schema.Number },
    killed: {},
    leave: { payload: Schema.Literals(["normal", "shutdown"]), success: Schema.String },
    rots: { payload: Schema.Literals(["dies", "fails and dies"]), success: Schema.String, error: NotEnough },
    later: { payload: Schema.Int, success: Schema.Number, error: NotEnough },
    ask: { payload: Schema.String }
  },
  cast: { reset: {}, note: { payload: Schema.String }, both: {} }
})

type Serve = (request: unknown) => Effect.Effect<Schema.Json>

/** A transport that is text in both directions, and remembers it. */
const overText = (answer: Serve) => {
  const seen: Array<string> = []
  const send = (request: unknown) =>
    Effect.suspend(() => {
      seen.push(JSON.stringify(request))
      return Effect.map(answer(JSON.parse(JSON.stringify(request))), (outcome) => {
        seen.push(JSON.stringify(outcome))
        return JSON.parse(JSON.stringify(outcome)) as unknown
      })
    })
  return { seen, send }
}

const account = Effect.gen(function* () {
  const gate = yield* Deferred.make<void>()
  const { ref, tree } = yield* one(Account, gate)
  const answer = Protocol.serve(AccountProtocol, ref)
  const { seen, send } = overText(answer)
  return { gate, ref, tree, answer, seen, send, client: Protocol.client(AccountProtocol, send) }
})

const reasonOf = <A>(effect: Effect.Effect<A, CallError.CallError | Protocol.ProtocolError | NotEnough | Odd>) =>
  Effect.map(Effect.flip(effect), (error) =>
    error._tag === "CallError" || error._tag === "ProtocolError" ? error.reason : error
  )

describe("a round trip over text", () => {
  it.effect("brings back what the handler answers", () =>
    Effect.gen(function* () {
      const { client, ref, seen } = yield* account
      assert.strictEqual(yield* client.call.withdraw(10), 90)
      assert.strictEqual(yield* ref.call.balance(), 90)
      assert.isUndefined(yield* client.call.clear())
      assert.strictEqual(yield* client.call.balance(), 0)
      assert.strictEqual(yield* client.call.later(7), 7)
      assert.deepStrictEqual(seen.slice(0, 2), [
        '{"_tag":"withdraw","kind":"call","payload":10}',
        '{"_tag":"Success","value":90}'
      ])
      assert.deepStrictEqual(seen.slice(2, 4), ['{"_tag":"clear","kind":"call"}', '{"_tag":"Success","value":null}'])
    })
  )

  it.effect("brings classes, dates, durations and options back as what they are", () =>
    Effect.gen(function* () {
      const { client } = yield* account
      const owner = new Owner({ name: "Ada", since: new Date(1815, 11, 10) })
      const statement = yield* client.call.statement(owner)
      assert.instanceOf(statement.owner, Owner)
      assert.strictEqual(statement.owner.initial, "A")
      assert.deepStrictEqual(statement.owner.since, owner.since)
      assert.isTrue(Duration.equals(statement.lines[0]?.after ?? Duration.zero, Duration.seconds(3)))
      assert.deepStrictEqual(statement.limit, Option.some(Infinity))
    })
  )

  it.effect("brings back typed failures as instances of their classes, each as its own", () =>
    Effect.gen(function* () {
      const { client } = yield* account
      const broke = yield* Effect.flip(client.call.withdraw(142))
      assert.instanceOf(broke, NotEnough)
      assert.deepStrictEqual(broke, new NotEnough({ missing: 42 }))
      const odd = yield* Effect.flip(client.call.withdraw(3))
      assert.instanceOf(odd, Odd)
      assert.strictEqual(odd._tag === "Odd" ? odd.on.getTime() : 0, 3)
      const late = yield* Effect.flip(client.call.later(-2))
      assert.deepStrictEqual(late, new NotEnough({ missing: 2 }))
    })
  )

  it.effect("takes an optional payload, present or not", () =>
    Effect.gen(function* () {
      const { answer, client } = yield* account
      assert.strictEqual(yield* client.call.scale(3), 300)
      assert.strictEqual(yield* client.call.scale(), 1000)
      assert.strictEqual(yield* client.call.scale(undefined), 1000)
      assert.deepStrictEqual(yield* answer({ _tag: "scale" }), { _tag: "Success", value: 1000 })
    })
  )

  it.effect("keeps a call and a cast of one name apart", () =>
    Effect.gen(function* () {
      const { answer, client } = yield* account
      yield* client.cast.note("first")
      yield* client.cast.both()
      assert.strictEqual(yield* client.call.both(), "call")
      assert.deepStrictEqual(yield* client.call.log(), ["first", "cast"])
      // without a kind it is the call, or the cast if there is no such call
      assert.deepStrictEqual(yield* answer({ _tag: "both" }), { _tag: "Success", value: "call" })
      assert.deepStrictEqual(yield* answer({ _tag: "reset" }), { _tag: "Success", value: null })
      assert.strictEqual(yield* client.call.balance(), 0)
    })
  )

  it.effect("is one request each time that the effect runs, and none before", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* account
      const withdraw = client.call.withdraw(10)
      assert.lengthOf(seen, 0)
      assert.strictEqual(yield* withdraw, 90)
      assert.strictEqual(yield* withdraw, 80)
      assert.lengthOf(seen, 4)
    })
  )

  it.effect("ignores fields that the transport has added, and a payload where none is taken", () =>
    Effect.gen(function* () {
      const { answer } = yield* account
      const request = { _tag: "balance", kind: "call", id: 7, payload: { any: "thing" } }
      assert.deepStrictEqual(yield* answer(request), { _tag: "Success", value: 100 })
    })
  )

  it.effect("follows a restarted actor, or names one incarnation, as the ref does", () =>
    Effect.gen(function* () {
      const { client, ref } = yield* account
      const exact = Protocol.client(AccountProtocol, Protocol.serve(AccountProtocol, yield* ref.incarnation))
      yield* client.call.clear()
      yield* Effect.flip(client.call.crash("x"))
      assert.strictEqual(yield* client.call.balance(), 100)
      assert.strictEqual((yield* reasonOf(exact.call.balance()))._tag, "NoProcess")
    })
  )
})

describe("CallError", () => {
  const reasons: ReadonlyArray<CallError.CallErrorReason> = [
    new CallError.NoProcess({ target: "root/a", operation: "balance" }),
    new CallError.CallTimeout({ target: "root/a", operation: "balance", limit: Duration.millis(1500) }),
    new CallError.TargetExit({ target: "root/a", operation: "balance", exit: ExitReason.killed }),
    new CallError.MailboxFull({ target: "root/a", operation: "balance", capacity: 3 }),
    new CallError.CallingSelf({ target: "root/a", operation: "balance" }),
    new CallError.CallCycle({ target: "root/a", operation: "balance", path: ["root/a", "root/b", "root/a"] })
  ]
  for (const reason of reasons) {
    it.effect(`${reason._tag} crosses with its fields and its message`, () =>
      Effect.gen(function* () {
        const { ref } = yield* account
        const failing = { call: { ...ref.call, balance: () => new CallError.CallError({ reason }) }, cast: ref.cast }
        const client = Protocol.client(AccountProtocol, overText(Protocol.serve(AccountProtocol, failing)).send)
        const error = yield* Effect.flip(client.call.balance())
        assert.instanceOf(error, CallError.CallError)
        assert.deepStrictEqual(error.reason, reason)
        assert.strictEqual(error.message, reason.message)
      })
    )
  }

  it.effect("W4: a crash crosses without its details", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* account
      const reason = yield* reasonOf(client.call.crash("s3cret"))
      assert.isTrue(reason._tag === "TargetExit" && reason.exit._tag === "Crash")
      assert.include(reason.message, "crash")
      assert.include(seen[0], "s3cret") // it is in the request, so it would be seen in the outcome
      assert.notInclude(seen[1], "s3cret")
      assert.notInclude(seen[1], import.meta.filename)
    })
  )

  it.effect("W4: a clean end crosses with its kind only", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* account
      const stopped = yield* reasonOf(client.call.leave("shutdown"))
      assert.deepStrictEqual(stopped._tag === "TargetExit" ? stopped.exit : undefined, ExitReason.shutdown)
      const normal = yield* reasonOf(client.call.leave("normal"))
      assert.deepStrictEqual(normal._tag === "TargetExit" ? normal.exit : undefined, ExitReason.normal)
      const killed = yield* reasonOf(client.call.killed())
      assert.deepStrictEqual(killed._tag === "TargetExit" ? killed.exit : undefined, ExitReason.killed)
      assert.notInclude(seen.join(), "s3cret")
    })
  )

  it.effect("W2: a call that is not answered ends with the limit of the ref, on the far end", () =>
    Effect.gen(function* () {
      const { client, ref, seen } = yield* account
      const waiting = yield* Effect.forkChild(reasonOf(client.call.wait()))
      yield* TestClock.adjust("4 seconds")
      assert.isTrue(pending(waiting))
      yield* TestClock.adjust("1 second")
      const reason = yield* Fiber.join(waiting)
      assert.isTrue(reason._tag === "CallTimeout" && Duration.equals(reason.limit, Duration.seconds(5)))
      assert.include(seen[1], '"_tag":"CallTimeout"')
      const short = Protocol.client(AccountProtocol, Protocol.serve(AccountProtocol, ref.within("1 second")))
      const second = yield* Effect.forkChild(reasonOf(short.call.balance()))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(second))._tag, "CallTimeout")
    })
  )

  it.effect("is NoProcess when the actor is down for good; a cast is dropped, as it is by a ref", () =>
    Effect.gen(function* () {
      const { client, tree } = yield* account
      yield* tree.terminateChild("it")
      assert.strictEqual((yield* reasonOf(client.call.balance()))._tag, "NoProcess")
      assert.isUndefined(yield* client.cast.reset())
    })
  )

  it.effect("of a handler that calls others crosses without a schema", () =>
    Effect.gen(function* () {
      const { client } = yield* account
      const reason = yield* reasonOf(client.call.ask("root/other"))
      assert.isTrue(reason._tag === "NoProcess" && reason.target === "root/other")
    })
  )
})

describe("W6: interrupting serve", () => {
  it.effect("withdraws a request that still waits", () =>
    Effect.gen(function* () {
      const { answer, client, gate, ref } = yield* account
      const first = yield* Effect.forkChild(client.call.wait(), { startImmediately: true })
      const second = yield* Effect.forkChild(answer({ _tag: "clear" }), { startImmediately: true })
      yield* settle
      assert.isTrue(pending(first) && pending(second))
      yield* Fiber.interrupt(second)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(first), "waited")
      assert.strictEqual(yield* ref.call.balance(), 100)
    })
  )
})

describe("what serve refuses", () => {
  // W3: names that every object answers to are not operations
  for (const name of ["constructor", "__proto__", "toString", "hasOwnProperty", "", "Withdraw"]) {
    for (const kind of [undefined, "call", "cast"]) {
      it.effect(`W3: ${kind ?? "operation"} "${name}" is unknown`, () =>
        Effect.gen(function* () {
          const { send } = yield* account
          const outcome = yield* send({ _tag: name, ...(kind === undefined ? {} : { kind }), payload: 1 })
          assert.deepStrictEqual(outcome, { _tag: "UnknownOperation", operation: name })
        })
      )
    }
  }

  it.effect("W3: a call is no cast, a cast is no call, and the rest of a ref is neither", () =>
    Effect.gen(function* () {
      const { answer } = yield* account
      const unknown = (operation: string) => ({ _tag: "UnknownOperation", operation })
      assert.deepStrictEqual(yield* answer({ _tag: "balance", kind: "cast" }), unknown("balance"))
      assert.deepStrictEqual(yield* answer({ _tag: "reset", kind: "call" }), unknown("reset"))
      for (const name of ["kill", "stop", "getState", "call", "within"]) {
        assert.deepStrictEqual(yield* answer({ _tag: name }), unknown(name))
      }
    })
  )

  it.effect("W2: a payload that does not fit, before any handler runs", () =>
    Effect.gen(function* () {
      const { answer, ref } = yield* account
      const cases: ReadonlyArray<readonly [string, unknown]> = [
        ["withdraw", "10"],
        ["withdraw", null],
        ["withdraw", [10]],
        ["withdraw", undefined],
        ["later", 1.5],
        ["statement", { name: "Ada", since: "yesterday" }],
        ["note", 5]
      ]
      for (const [operation, payload] of cases) {
        const outcome = yield* answer({ _tag: operation, ...(payload === undefined ? {} : { payload }) })
        assert.deepInclude(outcome, { _tag: "UndecodablePayload", operation })
      }
      assert.deepInclude(yield* answer({ _tag: "withdraw" }), { _tag: "UndecodablePayload", operation: "withdraw" })
      assert.strictEqual(yield* ref.call.balance(), 100)
      assert.deepStrictEqual(yield* ref.call.log(), [])
    })
  )

  it.effect("W2: what is no request", () =>
    Effect.gen(function* () {
      const { answer } = yield* account
      const circular: Record<string, unknown> = { _tag: "note" }
      circular["payload"] = circular
      const hostile = {
        get _tag(): string {
          throw new Error("boo")
        }
      }
      const closed = new Proxy(
        {},
        {
          get: () => {
            throw new Error("boo")
          },
          ownKeys: () => {
            throw new Error("boo")
          }
        }
      )
      const cases = [
        undefined,
        null,
        1,
        "withdraw",
        [],
        {},
        { _tag: 1 },
        { _tag: null },
        { _tag: ["balance"] },
        { tag: "balance" },
        { _tag: "balance", kind: "info" },
        { _tag: "balance", kind: null },
        { _tag: "withdraw", payload: 1n },
        { _tag: "note", payload: () => "x" },
        Symbol("balance"),
        circular,
        hostile,
        closed
      ]
      for (const request of cases) {
        const outcome = yield* answer(request)
        assert.deepInclude(outcome, { _tag: "MalformedRequest" })
        assert.notInclude(JSON.stringify(outcome), "boo")
      }
    })
  )

  it.effect("W2: a payload that is nested as deep as a line can be long", () =>
    Effect.gen(function* () {
      const { answer } = yield* account
      const deep = JSON.parse(`${"[".repeat(200_000)}${"]".repeat(200_000)}`) as unknown
      const outcome = yield* answer({ _tag: "withdraw", payload: deep })
      assert.deepInclude(outcome, { _tag: "UndecodablePayload", operation: "withdraw" })
    })
  )

  it.effect("W4: an answer that does not fit its schema; the actor lives on", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* account
      assert.strictEqual((yield* reasonOf(client.call.half()))._tag, "UnencodableAnswer")
      assert.deepStrictEqual(seen[1], '{"_tag":"UnencodableAnswer","operation":"half"}')
      assert.strictEqual(yield* client.call.balance(), 100)
    })
  )

  it.effect("W4: an answer that is a defect, without its details", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* account
      for (const how of ["dies", "fails and dies"] as const) {
        assert.strictEqual((yield* reasonOf(client.call.rots(how)))._tag, "UnencodableAnswer")
        assert.strictEqual(seen.at(-1), '{"_tag":"UnencodableAnswer","operation":"rots"}')
      }
    })
  )
})

/** Schemas that misbehave in code of their own. */
const throwing = (when: "decode" | "encode") => {
  const throws = SchemaGetter.transform((): string => {
    throw new Error("s3cret")
  })
  const same = SchemaGetter.transform((text: string) => text)
  return Schema.String.pipe(
    Schema.decodeTo(Schema.String, {
      decode: when === "decode" ? throws : same,
      encode: when === "encode" ? throws : same
    })
  )
}

class Echo extends Actor.make("Echo", {
  init: () => 0,
  call: {
    text: (_self, text: string) => text,
    raw: (_self, _text: string): unknown => ({ n: 1n }),
    read: (_self, _text: string) => "read"
  }
}) {}

const EchoProtocol = Protocol.make(Echo, {
  call: {
    text: { payload: throwing("decode"), success: Schema.String },
    raw: { payload: throwing("encode"), success: Schema.Any },
    read: { payload: Schema.String, success: throwing("encode") }
  }
})

describe("schemas with defects", () => {
  it.effect("W2: are typed outcomes at the far end, and typed failures at the near one", () =>
    Effect.gen(function* () {
      const { ref } = yield* one(Echo, undefined)
      const answer = Protocol.serve(EchoProtocol, ref)
      const client = Protocol.client(EchoProtocol, answer)
      const text = yield* answer({ _tag: "text", payload: "x" })
      assert.deepInclude(text, { _tag: "UndecodablePayload", operation: "text" })
      assert.notInclude(JSON.stringify(text), "s3cret")
      assert.deepStrictEqual(yield* answer({ _tag: "read", payload: "x" }), {
        _tag: "UnencodableAnswer",
        operation: "read"
      })
      const unwritten = yield* reasonOf(client.call.raw("x"))
      assert.deepInclude(unwritten, { _tag: "UnencodablePayload", operation: "raw" })
    })
  )

  it.effect("W1: an answer that its own schema does not write as JSON is not sent", () =>
    Effect.gen(function* () {
      const { ref } = yield* one(Echo, undefined)
      const outcome = yield* Protocol.serve(EchoProtocol, ref)({ _tag: "raw", payload: "x" })
      assert.deepStrictEqual(outcome, { _tag: "UnencodableAnswer", operation: "raw" })
    })
  )
})

const outcomeOf = Schema.decodeUnknownEffect(Schema.toCodecJson(Protocol.Outcome))

describe("W2: every request has an outcome", () => {
  const Nearly = Schema.Struct({
    _tag: Schema.Union([
      Schema.Literals(["withdraw", "balance", "scale", "later", "note", "statement", "constructor"]),
      Schema.String
    ]),
    kind: Schema.optionalKey(Schema.Union([Schema.Literals(["call", "cast"]), Schema.Json])),
    payload: Schema.optionalKey(Schema.Union([Schema.Number, Schema.String, Schema.Json]))
  })

  it.effect.prop(
    "any JSON that is no request is malformed",
    [Schema.Json],
    ([json]) =>
      Effect.gen(function* () {
        const { send } = yield* account
        const outcome = yield* outcomeOf(yield* send(json))
        assert.strictEqual(outcome._tag, "MalformedRequest")
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 150 } }
  )

  it.effect.prop(
    "a request of any operation, kind and payload has an outcome that has a schema, and the actor lives",
    [Nearly],
    ([request]) =>
      Effect.gen(function* () {
        const { ref, send } = yield* account
        const outcome = yield* outcomeOf(yield* send(request))
        const kind = "kind" in request ? request.kind : "call"
        if (kind !== "call" && kind !== "cast") assert.strictEqual(outcome._tag, "MalformedRequest")
        else assert.notStrictEqual(outcome._tag, "MalformedRequest")
        if (request._tag === "constructor" && outcome._tag !== "MalformedRequest") {
          assert.strictEqual(outcome._tag, "UnknownOperation")
        }
        const { generation } = yield* ref.incarnation
        assert.strictEqual(generation, 1)
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 300 } }
  )
})

class Lost extends Data.TaggedError("Lost")<{ readonly why: string }> {}

describe("client", () => {
  it.effect("W5: fails with what the transport fails with, for calls and for casts", () =>
    Effect.gen(function* () {
      const client = Protocol.client(AccountProtocol, () => Effect.fail(new Lost({ why: "cut" })))
      assert.deepStrictEqual(yield* Effect.flip(client.call.balance()), new Lost({ why: "cut" }))
      assert.deepStrictEqual(yield* Effect.flip(client.cast.reset()), new Lost({ why: "cut" }))
    })
  )

  it.effect("W5: sends nothing when the payload does not fit its schema", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* account
      const reason = yield* reasonOf(client.call.later(0.5))
      assert.deepInclude(reason, { _tag: "UnencodablePayload", operation: "later" })
      assert.include(reason.message, '"later"')
      assert.lengthOf(seen, 0)
    })
  )

  it.effect("W5: tells of a far end with another protocol", () =>
    Effect.gen(function* () {
      const { ref } = yield* account
      class Newer extends Actor.make("Newer", {
        init: () => 0,
        call: { balance: () => "a lot", later: (_self, text: string) => text, extra: () => 1 },
        cast: { extra: () => {} }
      }) {}
      const NewerProtocol = Protocol.make(Newer, {
        call: {
          balance: { success: Schema.String },
          later: { payload: Schema.String, success: Schema.String },
          extra: { success: Schema.Number }
        },
        cast: { extra: {} }
      })
      const client = Protocol.client(NewerProtocol, Protocol.serve(AccountProtocol, ref))
      assert.deepInclude(yield* reasonOf(client.call.extra()), { _tag: "UnknownOperation", operation: "extra" })
      assert.deepInclude(yield* reasonOf(client.cast.extra()), { _tag: "UnknownOperation", operation: "extra" })
      assert.deepInclude(yield* reasonOf(client.call.balance()), { _tag: "UndecodableAnswer", operation: "balance" })
      assert.deepInclude(yield* reasonOf(client.call.later("x")), { _tag: "UndecodablePayload", operation: "later" })
    })
  )

  it.effect("W5: a failure where the protocol knows none, or another one, is an answer that was not understood", () =>
    Effect.gen(function* () {
      const client = Protocol.client(AccountProtocol, () =>
        Effect.succeed({ _tag: "Failure", error: { _tag: "Else" } })
      )
      assert.deepInclude(yield* reasonOf(client.call.balance()), { _tag: "UndecodableAnswer", operation: "balance" })
      assert.deepInclude(yield* reasonOf(client.call.withdraw(2)), { _tag: "UndecodableAnswer", operation: "withdraw" })
    })
  )

  it.effect.prop(
    "W5: any JSON that is no outcome is an answer that was not understood",
    [Schema.Json],
    ([json]) =>
      Effect.gen(function* () {
        const client = Protocol.client(AccountProtocol, () => Effect.succeed(json))
        assert.strictEqual((yield* reasonOf(client.call.withdraw(2)))._tag, "UndecodableAnswer")
        assert.strictEqual((yield* reasonOf(client.cast.reset()))._tag, "UndecodableAnswer")
      }),
    { arbitrary: { runs: 150 } }
  )

  it.effect("lets a transport send casts one way, but not calls", () =>
    Effect.gen(function* () {
      const sent: Array<Protocol.Request> = []
      const client = Protocol.client(AccountProtocol, (request) => Effect.sync(() => void sent.push(request)))
      assert.isUndefined(yield* client.cast.note("x"))
      assert.deepStrictEqual(sent, [{ _tag: "note", kind: "cast", payload: "x" }])
      assert.strictEqual((yield* reasonOf(client.call.clear()))._tag, "UndecodableAnswer")
    })
  )

  it.effect("W5: waits 10 seconds, or what its limit is, and interrupts the transport then", () =>
    Effect.gen(function* () {
      let interrupted = 0
      const silent = () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => void interrupted++))
      const client = Protocol.client(AccountProtocol, silent, { target: "far/account" })
      const call = yield* Effect.forkChild(reasonOf(client.call.balance()))
      const cast = yield* Effect.forkChild(reasonOf(client.cast.reset()))
      const short = yield* Effect.forkChild(reasonOf(client.within("2 seconds").call.balance()))
      const endless = yield* Effect.forkChild(reasonOf(client.within(Infinity).call.balance()))
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Fiber.join(short))._tag, "CallTimeout")
      yield* TestClock.adjust("7 seconds")
      assert.isTrue(pending(call) && pending(cast))
      yield* TestClock.adjust("1 second")
      const reason = yield* Fiber.join(call)
      assert.isTrue(reason._tag === "CallTimeout" && reason.target === "far/account" && reason.operation === "balance")
      assert.strictEqual((yield* Fiber.join(cast))._tag, "CallTimeout")
      assert.strictEqual(interrupted, 3)
      yield* TestClock.adjust("10 days")
      assert.isTrue(pending(endless))
    })
  )

  it.effect("can be served in turn, by an actor that stands in for the far one", () =>
    Effect.gen(function* () {
      const { client } = yield* account
      class Relay extends Actor.make("Relay", {
        init: (far: Protocol.Client<typeof Account, never>) => far,
        call: { withdraw: (self, amount: number) => self.state.call.withdraw(amount) }
      }) {}
      const error = Schema.Union([NotEnough, Odd, Protocol.ProtocolError])
      const RelayProtocol = Protocol.make(Relay, {
        call: { withdraw: { payload: Schema.Number, success: Schema.Number, error } }
      })
      const { ref } = yield* one(Relay, client)
      const near = Protocol.client(RelayProtocol, overText(Protocol.serve(RelayProtocol, ref)).send)
      assert.strictEqual(yield* near.call.withdraw(40), 60)
      assert.deepStrictEqual(yield* Effect.flip(near.call.withdraw(62)), new NotEnough({ missing: 2 }))
    })
  )
})

/** Hands each whole line to `use`. */
const eachLine = (socket: Net.Socket, use: (line: string) => void) => {
  let rest = ""
  socket.setEncoding("utf8")
  socket.on("data", (text) => {
    const lines = `${rest}${String(text)}`.split("\n")
    rest = lines.pop() ?? ""
    lines.forEach(use)
  })
}

interface Frame {
  readonly id: number
  readonly body: unknown
}

const frame = (id: number, body: unknown) => `${JSON.stringify({ id, body } satisfies Frame)}\n`
const parse = (line: string) => JSON.parse(line) as Frame // both ends are below

/** NDJSON with numbered lines on a socket of this machine. */
const overTcp = Effect.fnUntraced(function* (answer: Serve) {
  const fork = Effect.runForkWith(yield* Effect.context<Scope.Scope>())
  const sockets = new Set<Net.Socket>()
  const server = Net.createServer((socket) => {
    sockets.add(socket)
    socket.on("error", () => {})
    eachLine(socket, (line) => {
      const { id, body } = parse(line)
      fork(Effect.map(answer(body), (outcome) => socket.write(frame(id, outcome))))
    })
  })
  const port = yield* Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
      })
    }),
    () =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
  )
  const socket = yield* Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = Net.connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
  const waiting = new Map<number, (outcome: Effect.Effect<unknown, Lost>) => void>()
  eachLine(socket, (line) => {
    const { id, body } = parse(line)
    waiting.get(id)?.(Effect.succeed(body))
  })
  const lost = new Lost({ why: "the connection is closed" })
  socket.on("error", () => {})
  socket.on("close", () => {
    for (const resume of waiting.values()) resume(Effect.fail(lost))
  })
  let last = 0
  const send = (request: Protocol.Request) =>
    Effect.callback<unknown, Lost>((resume) => {
      if (socket.destroyed) return resume(Effect.fail(lost))
      const id = ++last
      waiting.set(id, (outcome) => {
        waiting.delete(id)
        resume(outcome)
      })
      socket.write(frame(id, request))
      return Effect.sync(() => waiting.delete(id))
    })
  return { send, cut: Effect.sync(() => sockets.forEach((socket) => socket.destroy())) }
})

describe("over a socket", () => {
  it.effect("an actor is at the other end of a TCP connection with one JSON text per line", () =>
    Effect.gen(function* () {
      const { answer, gate, ref } = yield* account
      const { cut, send } = yield* overTcp(answer)
      const client = Protocol.client(AccountProtocol, send)

      const owner = new Owner({ name: "Ада\nЛавлейс", since: new Date(0) })
      assert.deepStrictEqual((yield* client.call.statement(owner)).owner, owner)
      const left = yield* Effect.forEach([2, 4, 6, 8], (n) => client.call.withdraw(n), { concurrency: "unbounded" })
      assert.deepStrictEqual(left, [98, 94, 88, 80])
      yield* client.cast.note("one")
      yield* client.cast.note("two")
      assert.deepStrictEqual(yield* client.call.log(), ["one", "two"])
      assert.deepStrictEqual(yield* Effect.flip(client.call.withdraw(82)), new NotEnough({ missing: 2 }))
      const exit = yield* reasonOf(Effect.catchTag(client.call.crash("s3cret"), "Lost", Effect.die))
      assert.isTrue(exit._tag === "TargetExit" && exit.exit._tag === "Crash")
      assert.strictEqual(yield* client.call.balance(), 100)

      const waiting = yield* Effect.forkChild(Effect.flip(client.call.wait()), { startImmediately: true })
      const next = yield* Effect.forkChild(Effect.flip(client.call.balance()), { startImmediately: true })
      yield* cut
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "Lost")
      assert.strictEqual((yield* Fiber.join(next))._tag, "Lost")
      assert.strictEqual((yield* Effect.flip(client.cast.reset()))._tag, "Lost")
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* ref.call.balance(), 100)
    })
  )
})

class Translator extends Context.Service<Translator, (text: string) => string>()("test/Translator") {}

declare const Translated: Schema.Codec<string, string, Translator>

class Small extends Actor.make("Small", {
  init: () => ({ items: [] as Array<string> }),
  call: {
    items: (self) => self.state.items,
    put: (self, item: string) => self.state.items.push(item),
    *take(self) {
      const item = self.state.items.pop()
      if (item === undefined) return yield* new NotEnough({ missing: 1 })
      return item
    },
    clear: (self) => {
      self.state.items = []
    }
  },
  cast: { drop: (self, item: string) => void (self.state.items = self.state.items.filter((it) => it !== item)) }
}) {}

const call = {
  items: { success: Schema.Array(Schema.String) },
  put: { payload: Schema.String, success: Schema.Number },
  take: { success: Schema.String, error: NotEnough },
  clear: {}
} as const
const cast = { drop: { payload: Schema.String } } as const
const SmallProtocol = Protocol.make(Small, { call, cast })

// compiled, never run
const refused = (ref: ActorRef.ActorRef<typeof Small>, other: ActorRef.ActorRef<typeof Account>) => {
  Protocol.make(Small, {
    call: {
      ...call,
      put: {
        // @ts-expect-error the payload is a string
        payload: Schema.Number,
        success: Schema.Number
      }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      put: {
        // @ts-expect-error callers may pass any string
        payload: Schema.Literal("x"),
        success: Schema.Number
      }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error the payload is missing
      put: { success: Schema.Number }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error it takes no payload
      items: { payload: Schema.String, success: Schema.Array(Schema.String) }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      put: {
        payload: Schema.String,
        // @ts-expect-error the answer is a number
        success: Schema.String
      }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      put: {
        payload: Schema.String,
        // @ts-expect-error more than the handler answers, so that it might come back as something else
        success: Schema.Unknown
      }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error the answer is missing
      put: { payload: Schema.String }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error it answers nothing
      clear: { success: Schema.String }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      take: {
        success: Schema.String,
        // @ts-expect-error another failure
        error: Odd
      }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error the failure is missing
      take: { success: Schema.String }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error it cannot fail
      items: { success: Schema.Array(Schema.String), error: NotEnough }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error no such call
      steal: { success: Schema.String }
    },
    cast
  })
  Protocol.make(Small, {
    call,
    cast: {
      ...cast,
      // @ts-expect-error no such cast
      steal: {}
    }
  })
  Protocol.make(Small, {
    // @ts-expect-error three calls are missing
    call: { items: call.items },
    cast
  })
  // @ts-expect-error the casts are missing
  Protocol.make(Small, { call })
  Protocol.make(Small, {
    call,
    // @ts-expect-error a cast answers nothing
    cast: { drop: { payload: Schema.String, success: Schema.Void } }
  })
  Protocol.make(Small, {
    call: {
      ...call,
      // @ts-expect-error a misspelt field
      clear: { sucess: Schema.Void }
    },
    cast
  })
  Protocol.make(Small, {
    call: {
      ...call,
      put: {
        // @ts-expect-error it needs services
        payload: Translated,
        success: Schema.Number
      }
    },
    cast
  })
  // @ts-expect-error a ref of another actor
  Protocol.serve(SmallProtocol, other)
  const client = Protocol.client(SmallProtocol, Protocol.serve(SmallProtocol, ref))
  // @ts-expect-error a number is no item
  client.call.put(1)
  // @ts-expect-error a cast is not a call
  client.call.drop("x")
  // @ts-expect-error a transport needs nothing from the program
  Protocol.client(SmallProtocol, () => Translator)
}

describe("types", () => {
  it("a client has the methods of a ref, with what a transport adds", () => {
    void refused
    type Small$ = typeof Small
    type Far = Protocol.Client<Small$, Lost>
    type Trouble = CallError.CallError | Protocol.ProtocolError | Lost
    expectTypeOf<keyof Far["call"]>().toEqualTypeOf<keyof ActorRef.ActorRef<Small$>["call"]>()
    expectTypeOf<keyof Far["cast"]>().toEqualTypeOf<keyof ActorRef.ActorRef<Small$>["cast"]>()
    expectTypeOf<Far["call"]["put"]>().toEqualTypeOf<(item: string) => Effect.Effect<number, Trouble>>()
    expectTypeOf<Far["call"]["items"]>().toEqualTypeOf<() => Effect.Effect<Array<string>, Trouble>>()
    expectTypeOf<Far["call"]["take"]>().toEqualTypeOf<() => Effect.Effect<string, NotEnough | Trouble>>()
    expectTypeOf<Far["cast"]["drop"]>().toEqualTypeOf<(item: string) => Effect.Effect<void, Trouble>>()
    // what is written for a client works with a ref
    expectTypeOf<ActorRef.ActorRef<Small$>>().toExtend<Pick<Far, "call" | "cast">>()
    expectTypeOf(Protocol.client(SmallProtocol, () => Effect.succeed(1))).toEqualTypeOf<
      Protocol.Client<Small$, never>
    >()
  })

  it("schemas stay readable as they were given", () => {
    expectTypeOf(SmallProtocol.schemas.call.put.payload).toEqualTypeOf<typeof Schema.String>()
    assert.strictEqual(SmallProtocol.schemas.call.take.error, NotEnough)
    assert.strictEqual(SmallProtocol.actor, Small)
  })

  it("an actor without casts, or without calls, needs no schemas for them", () => {
    class Calls extends Actor.make("Calls", { init: () => 0, call: { read: (self) => self.state } }) {}
    class Casts extends Actor.make("Casts", { init: () => 0, cast: { poke: () => {} } }) {}
    expectTypeOf(Protocol.make(Calls, { call: { read: { success: Schema.Number } } }).actor).toEqualTypeOf<
      typeof Calls
    >()
    expectTypeOf(Protocol.make(Casts, { cast: { poke: {} } }).actor).toEqualTypeOf<typeof Casts>()
  })
})
