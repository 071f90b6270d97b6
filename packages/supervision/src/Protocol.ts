/**
 * Schemas for the operations of an actor, so that its messages can leave the process.
 *
 * An actor is written with plain types. A protocol stands beside it: one schema for each payload, answer and typed failure,
 * compared with the handlers by the compiler. `serve` is the end that has the actor, `client` the end that wants it, and
 * what lies between (a socket, a worker, a cluster entity) is a function from a request to its outcome. The handlers stay
 * as they are.
 *
 * **Guarantees.** Requests and outcomes are JSON (W1). Whatever it is given, `serve` succeeds with one outcome, a tagged
 * value that has a schema, within the limit of its ref (W2). Only operations that the protocol lists can be reached (W3).
 * Details of crashes stay where they happened: of the end of an actor only its kind crosses, and of an answer that cannot
 * be written only that there was one (W4). A message of a client settles within its limit: with the answer, the handler's
 * typed failure, a `CallError`, a `ProtocolError`, or the failure of the transport (W5). Interrupting `serve` withdraws a
 * request that still waits (W6).
 *
 * **Not guaranteed.** Order and delivery are the transport's: a request that arrives twice is handled twice. A client that
 * is interrupted, or no longer waits, tells the far end only if the transport does. Typed failures cross as their schema
 * writes them, with all that is in them. Neither side looks for versions: both have the same schemas. Actors that wait for
 * each other over a transport are not found out, and end by their limits. A schema whose own transformation waits makes
 * `serve` wait.
 *
 * | outcome | when |
 * | --- | --- |
 * | `Success` | `value` is the answer; null for a cast, and for a call that answers nothing |
 * | `Failure` | `error` is the typed failure of the handler |
 * | `CallError` | what a local caller would get, without the details of a crash |
 * | `MalformedRequest` | it is not a request at all |
 * | `UnknownOperation` | the protocol has no such operation |
 * | `UndecodablePayload` | the payload does not fit the schema; no handler ran |
 * | `UnencodableAnswer` | the answer does not fit the schema, or was a defect; the handler did run |
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { AnyActor } from "./Actor.ts"
import type { Address, Calls, Casts } from "./ActorRef.ts"
import { CallError, CallTimeout, TargetExit } from "./CallError.ts"
import * as ExitReason from "./ExitReason.ts"

/**
 * Brand of protocols.
 *
 * @category type ids
 * @since 0.1.0
 */
export const TypeId = "~@tinkex/supervision/Protocol" as const

/** Loose, so that it is `Checked` that says what is wrong, where it is wrong. */
interface Shape {
  readonly call?: { readonly [operation: string]: { readonly [field: string]: unknown } }
  readonly cast?: { readonly [operation: string]: { readonly [field: string]: unknown } }
}

type Taken<M> = M extends (...payload: infer P) => unknown ? P : never
type Answered<M> = M extends (...payload: never) => Effect.Effect<infer A, infer _E> ? A : never
type Failed<M> = M extends (...payload: never) => Effect.Effect<infer _A, infer E> ? Exclude<E, CallError> : never

/** What was decoded is new, so it makes no difference whether an array in it is readonly. */
type Frozen<T> = T extends (...args: never) => unknown
  ? T
  : T extends object
    ? { readonly [K in keyof T]: Frozen<T[K]> }
    : T

interface Mismatch<Handler, Schema> {
  readonly "the type of this schema is not that of the handler": { readonly handler: Handler; readonly schema: Schema }
}

type Fits<T, S extends Schema.Constraint> = [S["DecodingServices"] | S["EncodingServices"]] extends [never]
  ? [T, S["Type"]] extends [S["Type"], Frozen<T>]
    ? S
    : Mismatch<T, S["Type"]>
  : "the schema needs services"

type Field<Name extends string, T, S> = {
  readonly [K in Name]: S extends { readonly [_ in Name]: infer Found extends Schema.Constraint }
    ? Fits<T, Found>
    : Schema.Codec<T, unknown>
}
type Without<Name extends PropertyKey, Why> = { readonly [K in Name]?: Why }

type CheckedPayload<P, S> = P extends readonly []
  ? Without<"payload", "the handler takes no payload">
  : P extends readonly [(infer T)?]
    ? Field<"payload", T, S>
    : "a handler takes at most one payload"
type CheckedSuccess<A, S> = [A] extends [void]
  ? Without<"success", Schema.Codec<void, unknown> | Schema.Codec<undefined, unknown>>
  : Field<"success", A, S>
type CheckedError<E, S> = [E] extends [never]
  ? Without<"error", "the handler has no typed failure">
  : Field<"error", E, S>

type CheckedCall<M, S> = CheckedPayload<Taken<M>, S> &
  CheckedSuccess<Answered<M>, S> &
  CheckedError<Failed<M>, S> &
  Without<Exclude<keyof S, "payload" | "success" | "error">, "a call has payload, success and error">
type CheckedCast<M, S> = CheckedPayload<Taken<M>, S> &
  Without<Exclude<keyof S, "payload">, "a cast has a payload and nothing else">

type CheckedCalls<M, S> = {
  readonly [Op in keyof M | keyof S]: Op extends keyof M
    ? CheckedCall<M[Op], S[Op & keyof S]>
    : "the actor has no such call"
}
type CheckedCasts<M, S> = {
  readonly [Op in keyof M | keyof S]: Op extends keyof M
    ? CheckedCast<M[Op], S[Op & keyof S]>
    : "the actor has no such cast"
}
type Part<Name extends string, M, Found> = [keyof M] extends [never]
  ? { readonly [K in Name]?: Found }
  : { readonly [K in Name]: Found }
type At<S, Name extends string> = S extends { readonly [_ in Name]: infer Found } ? Found : {}

/**
 * What the compiler demands of the schemas of an actor. A field that does not fit has a type that says why.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Checked<A extends AnyActor, S> = Part<
  "call",
  Calls<A["call"]>,
  CheckedCalls<Calls<A["call"]>, At<S, "call">>
> &
  Part<"cast", Casts<A["cast"]>, CheckedCasts<Casts<A["cast"]>, At<S, "cast">>>

/**
 * An actor and the schemas of its operations.
 *
 * @category models
 * @since 0.1.0
 */
export interface Protocol<in out A extends AnyActor, out S> {
  readonly [TypeId]: typeof TypeId
  readonly actor: A
  readonly schemas: S
  /** @internal */
  readonly operations: Operations
}

/**
 * A message on its way to an actor. `_tag` is the operation; a `payload` that is missing counts as null. A `kind` that is
 * missing means the call of this name or, if there is none, the cast. Fields besides these are the transport's.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Request = Schema.Struct({
  _tag: Schema.String,
  kind: Schema.optionalKey(Schema.Literals(["call", "cast"])),
  payload: Schema.optionalKey(Schema.Json)
})

/**
 * @category schemas
 * @since 0.1.0
 */
export type Request = typeof Request.Type

/**
 * What arrived is not a request.
 *
 * @category errors
 * @since 0.1.0
 */
export class MalformedRequest extends Schema.TaggedError<MalformedRequest>()("MalformedRequest", {
  problem: Schema.String
}) {
  override get message() {
    return `The request was not understood: ${this.problem}. Send what Protocol.client sends, unchanged.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * The far end has no such operation.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownOperation extends Schema.TaggedError<UnknownOperation>()("UnknownOperation", {
  operation: Schema.String
}) {
  override get message() {
    return `There is no operation "${this.operation}" at the far end. Give both ends the same protocol.`
  }
  get isRetryable() {
    return false
  }
}

const about = { operation: Schema.String, problem: Schema.String }

/**
 * The payload does not fit the schema of the far end. No handler ran.
 *
 * @category errors
 * @since 0.1.0
 */
export class UndecodablePayload extends Schema.TaggedError<UndecodablePayload>()("UndecodablePayload", about) {
  override get message() {
    return `The far end cannot read the payload of "${this.operation}": ${this.problem}. Give both ends the same protocol.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * The handler ran, and its answer cannot be sent: it does not fit its schema, or is a defect. What it is stays at the far
 * end, which logs it.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnencodableAnswer extends Schema.TaggedError<UnencodableAnswer>()("UnencodableAnswer", {
  operation: Schema.String
}) {
  override get message() {
    return `"${this.operation}" was handled, but its answer cannot be sent. The log of the far end says why.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * The payload does not fit its schema, as a number that breaks a check. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnencodablePayload extends Schema.TaggedError<UnencodablePayload>()("UnencodablePayload", about) {
  override get message() {
    return `The payload of "${this.operation}" cannot be sent: ${this.problem}. Check it against the schema of the protocol.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * What the transport brought back is no outcome, or one that does not fit the schemas. The handler may have run.
 *
 * @category errors
 * @since 0.1.0
 */
export class UndecodableAnswer extends Schema.TaggedError<UndecodableAnswer>()("UndecodableAnswer", about) {
  override get message() {
    return `The answer to "${this.operation}" was not understood: ${this.problem}. Give both ends the same protocol.`
  }
  get isRetryable() {
    return false
  }
}

const refusals = [MalformedRequest, UnknownOperation, UndecodablePayload, UnencodableAnswer] as const
type Refusal = MalformedRequest | UnknownOperation | UndecodablePayload | UnencodableAnswer

/**
 * @category models
 * @since 0.1.0
 */
export type ProtocolErrorReason = Refusal | UnencodablePayload | UndecodableAnswer

/**
 * Two ends that do not understand each other.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProtocolError extends Schema.TaggedError<ProtocolError>()("ProtocolError", {
  reason: Schema.Union([...refusals, UnencodablePayload, UndecodableAnswer])
}) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }
}

/**
 * What becomes of a request. `value` and `error` are written by the schemas of the operation.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Outcome = Schema.Union([
  Schema.TaggedStruct("Success", { value: Schema.Json }),
  Schema.TaggedStruct("Failure", { error: Schema.Json }),
  CallError,
  ...refusals
])

/**
 * @category schemas
 * @since 0.1.0
 */
export type Outcome = typeof Outcome.Type

type Code = (value: unknown) => Effect.Effect<unknown, Schema.SchemaError>

/** Both directions of one schema. What `encode` gives is JSON. */
interface Coder {
  readonly encode: Code
  readonly decode: Code
}

interface Operation {
  readonly name: string
  readonly kind: "call" | "cast"
  readonly payload: Coder | undefined
  readonly success: Coder | undefined
  readonly error: Coder | undefined
}

interface Operations {
  readonly call: ReadonlyMap<string, Operation>
  readonly cast: ReadonlyMap<string, Operation>
}

const checkJson: Code = Schema.decodeUnknownEffect(Schema.Json)

const coderOf = <T>(schema: Schema.ConstraintCodec<T, unknown>): Coder => {
  const codec = Schema.toCodecJson(schema)
  const encode = Schema.encodeUnknownEffect(codec)
  return {
    // a schema may have a codec of its own that does not write JSON
    encode: (value) => Effect.flatMap(encode(value), checkJson),
    decode: Schema.decodeUnknownEffect(codec)
  }
}

const requests = coderOf(Request)
const outcomes = coderOf(Outcome)

const operationsOf = (kind: "call" | "cast", schemas: Shape["call"] = {}): ReadonlyMap<string, Operation> => {
  const optional = (schema: unknown) =>
    schema === undefined ? undefined : coderOf(schema as Schema.ConstraintCodec<unknown, unknown>) // as checked by `Checked`
  return new Map(
    Object.entries(schemas).map(([name, { payload, success, error }]) => [
      name,
      { name, kind, payload: optional(payload), success: optional(success), error: optional(error) }
    ])
  )
}

/**
 * Gives schemas to the operations of an actor, all of them. A call has `payload`, `success` and `error` exactly as its
 * handler takes a payload, answers something and has typed failures; a cast has at most `payload`. The type of each schema
 * is the one that the handler has, except that it makes no difference whether arrays are readonly. A `CallError` of a
 * handler that calls others needs no schema: it crosses as what it is.
 *
 * **Details.** Values cross as `Schema.toCodecJson` writes them, so dates, durations, options and classes need no care.
 * The schemas stay readable as `protocol.schemas`, for adapters that want to declare them elsewhere.
 *
 * **Example** (An account that can be reached from outside)
 *
 * ```ts
 * import { Actor, Protocol } from "@tinkex/supervision"
 * import { Schema } from "effect"
 *
 * class NotEnough extends Schema.TaggedError<NotEnough>()("NotEnough", { missing: Schema.Number }) {}
 *
 * class Account extends Actor.make("Account", {
 *   init: (balance: number) => ({ balance }),
 *   call: {
 *     balance: (self) => self.state.balance,
 *     *withdraw(self, amount: number) {
 *       const missing = amount - self.state.balance
 *       if (missing > 0) return yield* new NotEnough({ missing })
 *       return (self.state.balance -= amount)
 *     }
 *   },
 *   cast: { reset: (self) => void (self.state.balance = 0) }
 * }) {}
 *
 * const AccountProtocol = Protocol.make(Account, {
 *   call: {
 *     balance: { success: Schema.Number },
 *     withdraw: { payload: Schema.Number, success: Schema.Number, error: NotEnough }
 *   },
 *   cast: { reset: {} }
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A extends AnyActor, const S extends Shape>(
  actor: A,
  schemas: S & Checked<A, S>
): Protocol<A, S> => ({
  [TypeId]: TypeId,
  actor,
  schemas,
  operations: { call: operationsOf("call", schemas.call), cast: operationsOf("cast", schemas.cast) }
})

/** Reads or writes a value; the failure is typed even when the schema's own code throws. */
const attempt = <E>(code: Code, value: unknown, onProblem: (problem: string) => E): Effect.Effect<unknown, E> =>
  Effect.catchCause(
    Effect.suspend(() => code(value)),
    (cause) => {
      const [reason] = cause.reasons
      const known = reason !== undefined && Cause.isFailReason(reason)
      return Effect.fail(onProblem(known ? reason.error.message : "its schema has a defect"))
    }
  )

const bareExit = (exit: ExitReason.ExitReason): ExitReason.ExitReason => {
  switch (exit._tag) {
    case "Normal":
      return ExitReason.normal
    case "Shutdown":
      return ExitReason.shutdown
    case "Crash":
      return ExitReason.crash("its details are not sent")
    case "Killed":
      return ExitReason.killed
  }
}

const bare = (error: CallError): CallError => {
  const { reason } = error
  if (reason._tag !== "TargetExit") return error
  const { target, operation, exit } = reason
  return new CallError({ reason: new TargetExit({ target, operation, exit: bareExit(exit) }) })
}

type Methods = Record<string, (payload: unknown) => Effect.Effect<unknown, unknown>>

/**
 * The end that has the actor: a function from a request to its outcome, both JSON. Give it what arrived, parsed and
 * otherwise unseen, and send back what it returns.
 *
 * **Details.** The limit is that of the ref: `Protocol.serve(protocol, ref.within("1 minute"))`. A cast has its outcome when
 * it is in the mailbox, or was dropped. A payload for an operation that takes none is ignored.
 *
 * **Example** (Serving lines of text)
 *
 * ```ts
 * import { Actor, Protocol } from "@tinkex/supervision"
 * import { Effect, Schema } from "effect"
 *
 * class Counter extends Actor.make("Counter", {
 *   init: (start: number) => ({ total: start }),
 *   call: { add: (self, n: number) => (self.state.total += n) }
 * }) {}
 *
 * const CounterProtocol = Protocol.make(Counter, {
 *   call: { add: { payload: Schema.Number, success: Schema.Number } }
 * })
 *
 * const program = Effect.gen(function* () {
 *   const counter = yield* Actor.start(Counter, 1)
 *   const answer = Protocol.serve(CounterProtocol, counter)
 *   const line = '{ "_tag": "add", "payload": 2 }'
 *   return JSON.stringify(yield* answer(JSON.parse(line))) // {"_tag":"Success","value":3}
 * })
 * ```
 *
 * @category serving
 * @since 0.1.0
 */
export const serve = <A extends AnyActor>(
  protocol: Protocol<A, unknown>,
  ref: Pick<Address<NoInfer<A>>, "call" | "cast">
): ((request: unknown) => Effect.Effect<Schema.Json>) => {
  const { call, cast } = protocol.operations
  // a ref has a method for every operation of its protocol, and each gets what its own schema decoded
  const methods = ref as unknown as Record<"call" | "cast", Methods>

  const unencodable = ({ name }: Operation, why: unknown) =>
    Effect.andThen(
      Effect.logError(`"${protocol.actor.definition.name}" has an answer to "${name}" that cannot be sent`, why),
      new UnencodableAnswer({ operation: name })
    )

  const write = (operation: Operation, { encode }: Coder, value: unknown) =>
    Effect.catch(
      attempt(encode, value, (problem) => problem),
      (problem) => unencodable(operation, problem)
    )

  const outcome = Effect.fnUntraced(function* (given: unknown): Effect.fn.Return<unknown, Refusal | CallError> {
    const decoded = yield* attempt(requests.decode, given, (problem) => new MalformedRequest({ problem }))
    const { _tag, kind, payload = null } = decoded as Request // by its schema
    const operation = (kind === "cast" ? undefined : call.get(_tag)) ?? (kind === "call" ? undefined : cast.get(_tag))
    if (operation === undefined) return yield* new UnknownOperation({ operation: _tag })
    const { name, success, error } = operation
    const unreadable = (problem: string) => new UndecodablePayload({ operation: name, problem })
    const reader = operation.payload
    const value = reader === undefined ? undefined : yield* attempt(reader.decode, payload, unreadable)
    const exit = yield* Effect.exit(Effect.suspend(() => methods[operation.kind][name]!(value)))
    if (exit._tag === "Success") {
      return { _tag: "Success", value: success === undefined ? null : yield* write(operation, success, exit.value) }
    }
    const { reasons } = exit.cause
    const [reason] = reasons
    if (reason === undefined || !Cause.isFailReason(reason) || !reasons.every(Cause.isFailReason)) {
      return yield* unencodable(operation, exit.cause)
    }
    if (reason.error instanceof CallError) return yield* bare(reason.error)
    if (error === undefined) return yield* unencodable(operation, exit.cause)
    return { _tag: "Failure", error: yield* write(operation, error, reason.error) }
  })

  const refused = (refusal: Refusal | CallError) => Effect.orDie(outcomes.encode(refusal)) // they hold text and numbers
  // each part of an outcome comes from a coder
  return (request) => Effect.catch(outcome(request), refused) as Effect.Effect<Schema.Json>
}

/**
 * The methods of a ref, with more that can go wrong.
 *
 * @category type-level
 * @since 0.1.0
 */
export type Remote<Methods, E> = {
  readonly [Op in keyof Methods]: Methods[Op] extends (...payload: infer P) => Effect.Effect<infer A, infer F>
    ? (...payload: P) => Effect.Effect<A, F | E>
    : never
}

/**
 * An actor at the far end of a transport that fails with `E`. Unlike those of a ref its casts can fail: what is known of
 * their fate is told. An outcome means that the far end has it, not that it was handled.
 *
 * @category models
 * @since 0.1.0
 */
export interface Client<A extends AnyActor, out E> {
  readonly call: Remote<Calls<A["call"]>, ProtocolError | E>
  readonly cast: Remote<Casts<A["cast"]>, CallError | ProtocolError | E>
  /** The same client with another limit. Infinity means no limit. */
  readonly within: (limit: Duration.Input) => Client<A, E>
}

/**
 * @category options
 * @since 0.1.0
 */
export interface ClientOptions {
  /** What errors call the far end. Default: the name of the actor. */
  readonly target?: string | undefined
  /**
   * How long a message may be under way until its outcome is there; then it fails with `CallTimeout`. Default 10 seconds,
   * more than the 5 of a ref, so that the far end can say itself that it was too late.
   */
  readonly limit?: Duration.Input | undefined
}

/**
 * The end that wants the actor: its methods, as they are at a ref, each a request to `send`, which brings back what `serve`
 * returned at the other end. What `send` fails with is what the method fails with.
 *
 * **Details.** `send` gets one JSON object per message and sees to it that it gets the outcome of just this one. A transport
 * on which casts go one way brings back undefined for them. At the limit `send` is interrupted; a `send` that cannot be
 * interrupted is waited for.
 *
 * **Example** (A client of an actor in the same process)
 *
 * ```ts
 * import { Actor, Protocol } from "@tinkex/supervision"
 * import { Effect, Schema } from "effect"
 *
 * class Counter extends Actor.make("Counter", {
 *   init: (start: number) => ({ total: start }),
 *   call: { add: (self, n: number) => (self.state.total += n) }
 * }) {}
 *
 * const CounterProtocol = Protocol.make(Counter, {
 *   call: { add: { payload: Schema.Number, success: Schema.Number } }
 * })
 *
 * const program = Effect.gen(function* () {
 *   const answer = Protocol.serve(CounterProtocol, yield* Actor.start(Counter, 1))
 *   const counter = Protocol.client(CounterProtocol, answer)
 *   return yield* counter.call.add(2) // 3
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const client = <A extends AnyActor, E = never>(
  protocol: Protocol<A, unknown>,
  send: (request: Request) => Effect.Effect<unknown, E>,
  options: ClientOptions = {}
): Client<A, E> => {
  const target = options.target ?? protocol.actor.definition.name
  const limit = Duration.fromInputUnsafe(options.limit ?? "10 seconds")

  const limited = <B, F>(operation: string, effect: Effect.Effect<B, F>): Effect.Effect<B, F | CallError> =>
    Duration.isFinite(limit)
      ? Effect.timeoutOrElse(effect, {
          duration: limit,
          orElse: () => new CallError({ reason: new CallTimeout({ target, operation, limit }) })
        })
      : effect

  const message = Effect.fnUntraced(function* (
    { error, kind, name, success, payload: writer }: Operation,
    value: unknown
  ): Effect.fn.Return<unknown, unknown> {
    const unwritable = (problem: string) =>
      new ProtocolError({ reason: new UnencodablePayload({ operation: name, problem }) })
    const unread = (problem: string) =>
      new ProtocolError({ reason: new UndecodableAnswer({ operation: name, problem }) })
    const written = writer === undefined ? undefined : yield* attempt(writer.encode, value, unwritable)
    const payload = written as Schema.Json // as encoded
    const request = writer === undefined ? { _tag: name, kind } : { _tag: name, kind, payload }
    const answer = yield* limited(
      name,
      Effect.suspend(() => send(request))
    )
    if (kind === "cast" && answer === undefined) return undefined
    const outcome = (yield* attempt(outcomes.decode, answer, unread)) as Outcome // by its schema
    switch (outcome._tag) {
      case "Success":
        return success === undefined ? undefined : yield* attempt(success.decode, outcome.value, unread)
      case "Failure":
        if (error === undefined) return yield* unread("it is a failure, and the protocol knows none")
        return yield* Effect.fail(yield* attempt(error.decode, outcome.error, unread))
      case "CallError":
        return yield* outcome
      default:
        return yield* new ProtocolError({ reason: outcome })
    }
  })

  const methods = (operations: ReadonlyMap<string, Operation>) =>
    Object.fromEntries(
      Array.from(operations.values(), (operation) => [
        operation.name,
        (payload: unknown) => message(operation, payload)
      ])
    )
  // the handlers' types and the schemas were compared where the protocol was written
  return {
    call: methods(protocol.operations.call),
    cast: methods(protocol.operations.cast),
    within: (limit: Duration.Input) => client(protocol, send, { ...options, limit })
  } as Client<A, E>
}
