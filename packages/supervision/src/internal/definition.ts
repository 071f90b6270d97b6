import * as Effect from "effect/Effect"

/**
 * How many messages may wait, and what happens to one more.
 *
 * @category options
 * @since 0.1.0
 */
export interface MailboxOptions {
  /** Messages that may wait, a whole number from 1, or `"unbounded"`. Default 1024. */
  readonly capacity?: number | "unbounded" | undefined
  /** What a full mailbox does with one more message. Default `"suspend"`. */
  readonly overflow?: "suspend" | "reject" | "dropNewest" | "dropOldest" | undefined
}

/** The engine's view of a handler: the protocol's types stay outside. */
export interface Operation {
  readonly name: string
  readonly reply: boolean
  readonly run: (self: unknown, payload: unknown) => unknown
}

export interface Definition {
  readonly name: string
  readonly init: (arg: unknown) => unknown
  readonly calls: ReadonlyArray<Operation>
  readonly casts: ReadonlyArray<Operation>
  readonly capacity: number
  readonly overflow: "suspend" | "reject" | "dropNewest" | "dropOldest"
}

type Untyped = (self: unknown, payload?: unknown) => unknown
type AnyGenerator = Generator<Effect.Effect<unknown, unknown, unknown>, unknown, never>

const GeneratorFunction = Object.getPrototypeOf(function* () {}).constructor as new () => unknown // has no global name

/** Generator handlers are lifted once per class, so that a message costs one small closure and not a new function object. */
const lift = (handler: Untyped): Untyped =>
  handler instanceof GeneratorFunction
    ? (self, payload) => Effect.gen(() => handler(self, payload) as AnyGenerator) // just tested
    : handler

const operations = (handlers: object | undefined, reply: boolean): ReadonlyArray<Operation> =>
  Object.entries(handlers ?? {}).map(([name, handler]) => ({ name, reply, run: lift(handler) }))

export const define = (
  name: string,
  options: {
    readonly init: unknown
    readonly call?: object
    readonly cast?: object
    readonly mailbox?: MailboxOptions | undefined
  }
): Definition => {
  const capacity = options.mailbox?.capacity ?? 1024
  if (capacity !== "unbounded" && !(Number.isSafeInteger(capacity) && capacity > 0)) {
    throw new RangeError(
      `Actor "${name}": mailbox.capacity is ${capacity}. Give a whole number from 1, or "unbounded".`
    )
  }
  const init = options.init as Untyped // the argument is checked where the child spec is made
  return {
    name,
    init: lift(init),
    calls: operations(options.call, true),
    casts: operations(options.cast, false),
    capacity: capacity === "unbounded" ? Infinity : capacity,
    overflow: options.mailbox?.overflow ?? "suspend"
  }
}
