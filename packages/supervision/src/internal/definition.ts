import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { ExitReason } from "../ExitReason.ts"
import { sent } from "./cast.ts"
import { type Handlers, callsOf, castsOf } from "./refs.ts"

/**
 * How many messages may wait, what happens to one more, and what happens to those that wait when the actor is restarted.
 *
 * @category options
 * @since 0.1.0
 */
export interface MailboxOptions {
  /** Messages that may wait, a whole number from 1, or `"unbounded"`. Default 1024. */
  readonly capacity?: number | "unbounded" | undefined
  /** What a full mailbox does with one more message. Default `"suspend"`. */
  readonly overflow?: "suspend" | "reject" | "dropNewest" | "dropOldest" | undefined
  /**
   * What the next incarnation finds in the mailbox: nothing (`drop`, default; each loss is told), all that waited but not
   * the message during which the last one ended (`keepOthers`), or that one again too (`keep`: at least once).
   */
  readonly acrossRestart?: "drop" | "keep" | "keepOthers" | undefined
  /**
   * With `keep`: crashes in a row over one and the same message until it is set aside as a dead letter. A whole number from
   * 1. Default 3.
   */
  readonly quarantineAfter?: number | undefined
}

/** The engine's view of a handler: the protocol's types stay outside. */
export interface Operation {
  readonly name: string
  readonly reply: boolean
  readonly run: (self: unknown, payload: unknown) => unknown
  /** Set when it may only reach this incarnation. */
  readonly generation: number | undefined
  /** Not simply a handler of the actor: the few tests that only such messages need are not made for all. */
  readonly special: boolean
}

export interface Definition {
  readonly name: string
  readonly init: (arg: unknown) => unknown
  readonly started: ((self: unknown) => unknown) | undefined
  readonly exit: ((self: unknown, signal: unknown) => unknown) | undefined
  readonly terminate: ((self: unknown, reason: ExitReason) => unknown) | undefined
  readonly describe: ((state: unknown) => unknown) | undefined
  readonly calls: ReadonlyArray<Operation>
  readonly casts: ReadonlyArray<Operation>
  readonly capacity: number
  readonly overflow: "suspend" | "reject" | "dropNewest" | "dropOldest"
  readonly acrossRestart: "drop" | "keep" | "keepOthers"
  readonly quarantineAfter: number
  readonly traced: boolean
  readonly Calls: Handlers
  readonly Casts: Handlers
}

/** Whether two definitions are of one actor class, whatever makes their states. */
export const sameActor = (one: Definition, other: Definition | undefined): boolean => one.calls === other?.calls

type Untyped = (self: unknown, payload?: unknown) => unknown
type AnyGenerator = Generator<Effect.Effect<unknown, unknown, unknown>, unknown, unknown>
type State = IteratorResult<Effect.Effect<unknown, unknown, unknown>, unknown>

const GeneratorFunction = Object.getPrototypeOf(function* () {}).constructor as new () => unknown // has no global name

/** Works through a generator for as long as it yields outcomes; what has to be run goes on as an Effect. */
const advance = (generator: AnyGenerator): Effect.Effect<unknown, unknown, unknown> => {
  let state: State = generator.next()
  while (state.done !== true) {
    const effect = state.value
    if (Exit.isExit(effect)) {
      if (effect._tag === "Failure") return effect
      state = generator.next(effect.value)
    } else {
      if (!sent(effect)) return Effect.gen(() => resumed(generator, state))
      state = generator.next(undefined)
    }
  }
  return Exit.succeed(state.value)
}

/** The generator from where it is, for `Effect.gen`, which only ever calls `next`. */
const resumed = (generator: AnyGenerator, state: State): Generator<Effect.Effect<unknown, unknown>, unknown, never> => {
  let first: State | undefined = state
  const next = (value: unknown): State => {
    if (first === undefined) return generator.next(value)
    const current = first
    first = undefined
    return current
  }
  return { next } as unknown as Generator<Effect.Effect<unknown, unknown>, unknown, never> // the other members are unused
}

/** Generator handlers are lifted once per class, so that a message costs a generator and no new function. */
export const lift = (handler: Untyped): Untyped =>
  handler instanceof GeneratorFunction
    ? (self, payload) => advance(handler(self, payload) as AnyGenerator) // just tested
    : handler

/** The same for a handler that is written where it is used. */
export const perform = (work: Untyped, self: unknown, payload?: unknown): unknown =>
  work instanceof GeneratorFunction ? advance(work(self, payload) as AnyGenerator) : work(self, payload)

/** What an incarnation told itself to do. */
export const ownOperation = (name: string, run: Operation["run"]): Operation => ({
  name,
  reply: false,
  run,
  generation: undefined,
  special: true
})

const operations = (handlers: object | undefined, reply: boolean): ReadonlyArray<Operation> =>
  Object.entries(handlers ?? {}).map(([name, handler]) => ({
    name,
    reply,
    run: lift(handler),
    generation: undefined,
    special: false
  }))

const count = (actor: string, field: string, value: number, alternative: string): number => {
  if (Number.isSafeInteger(value) && value > 0) return value
  throw new RangeError(`Actor "${actor}": ${field} is ${value}. Give a whole number from 1${alternative}.`)
}

const choice = (actor: string, field: string, value: unknown, allowed: ReadonlyArray<string>): void => {
  if (value === undefined || (typeof value === "string" && allowed.includes(value))) return
  throw new TypeError(`Actor "${actor}": ${field} is ${String(value)}. Give one of ${allowed.join(", ")}.`)
}

export const define = (
  name: string,
  options: {
    readonly init: unknown
    readonly started?: unknown
    readonly exit?: unknown
    readonly terminate?: unknown
    readonly describe?: unknown
    readonly call?: object
    readonly cast?: object
    readonly mailbox?: MailboxOptions | undefined
    readonly traced?: boolean | undefined
  }
): Definition => {
  const { capacity = 1024, quarantineAfter = 3, overflow, acrossRestart } = options.mailbox ?? {}
  choice(name, "mailbox.overflow", overflow, ["suspend", "reject", "dropNewest", "dropOldest"])
  choice(name, "mailbox.acrossRestart", acrossRestart, ["drop", "keep", "keepOthers"])
  // what the handlers take and give was checked where the actor was written
  const optional = (handler: unknown) => (handler === undefined ? undefined : lift(handler as Untyped))
  if (typeof options.init !== "function") {
    throw new TypeError(`Actor "${name}": init is ${String(options.init)}. Give a function that makes the state.`)
  }
  const calls = operations(options.call, true)
  const casts = operations(options.cast, false)
  return {
    name,
    init: lift(options.init as Untyped),
    started: optional(options.started),
    exit: optional(options.exit),
    terminate: optional(options.terminate) as Definition["terminate"],
    describe: options.describe as Definition["describe"],
    calls,
    casts,
    capacity: capacity === "unbounded" ? Infinity : count(name, "mailbox.capacity", capacity, `, or "unbounded"`),
    overflow: overflow ?? "suspend",
    acrossRestart: acrossRestart ?? "drop",
    quarantineAfter: count(name, "mailbox.quarantineAfter", quarantineAfter, ""),
    traced: options.traced ?? false,
    Calls: callsOf(calls),
    Casts: castsOf(casts)
  }
}
