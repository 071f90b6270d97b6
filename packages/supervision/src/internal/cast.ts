import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Tracer from "effect/Tracer"
import type { Addressee } from "./addressee.ts"
import type { DeadlineList } from "./deadlines.ts"
import type { Operation } from "./definition.ts"
import type { Message, Place } from "./mailbox.ts"
import { TargetId } from "./target.ts"

/** The effect that sends a message which nobody waits for, and, the first time that it is run, the message itself. */
export interface Cast extends Effect.Effect<unknown, unknown>, Message {
  readonly ref: Sender
  /** A property of its own only where there is one: there are very many casts, and their size is their price. */
  span: Tracer.AnySpan | undefined
}

/** The ref through which it is sent. */
interface Sender {
  readonly [TargetId]: Addressee
  readonly list: DeadlineList | undefined
}

type Fields = "ref" | "operation" | "payload" | "next" | "place"

/** Casts are the cheapest message there is, so they take the sender from the run loop instead of looking it up. */
export const Cast = function (
  this: { -readonly [K in Fields]: Cast[K] },
  ref: Sender,
  operation: Operation,
  payload: unknown
) {
  this.ref = ref
  this.operation = operation
  this.payload = payload
  this.next = undefined
  this.place = "unsent" satisfies Place
} as unknown as new (ref: Sender, operation: Operation, payload: unknown) => Cast // a class could not take this prototype

Cast.prototype = Object.assign(
  Effectable.Prototype<Cast>({
    label: "ActorCast",
    evaluate(sender) {
      return this.ref[TargetId].cast(sender, this) ?? Effect.void
    }
  }),
  { link: undefined, span: undefined, waiting: false }
)

/** The message that a cast sends: itself, or another one if it is on its way already. */
export const messageOf = (cast: Cast): Cast =>
  cast.place === "unsent" ? cast : new Cast(cast.ref, cast.operation, cast.payload)

/** The span of the message that is being handled, for casts that its handler sends without a fiber. */
export const turn: { span: Tracer.AnySpan | undefined } = { span: undefined }

/** Whether an effect was a cast that could be sent at once: nothing of it is left to be run. */
export const sent = (effect: unknown): boolean =>
  effect instanceof Cast && effect.ref[TargetId].castNow(effect, turn.span)
