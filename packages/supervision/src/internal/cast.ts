import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type * as Tracer from "effect/Tracer"
import type { Addressee } from "./addressee.ts"
import type { DeadlineList } from "./deadlines.ts"
import type { Operation } from "./definition.ts"

export interface Cast extends Effect.Effect<unknown, unknown> {
  readonly actor: Addressee
  readonly operation: Operation
  readonly payload: unknown
  readonly list: DeadlineList | undefined
}

/** Casts are the cheapest message there is, so they take the sender from the run loop instead of looking it up. */
export const Cast = function (
  this: { -readonly [K in "actor" | "operation" | "payload" | "list"]: Cast[K] },
  actor: Addressee,
  operation: Operation,
  payload: unknown,
  list: DeadlineList | undefined
) {
  this.actor = actor
  this.operation = operation
  this.payload = payload
  this.list = list
} as unknown as new (
  ...args: [actor: Addressee, operation: Operation, payload: unknown, list: DeadlineList | undefined]
) => Cast // a class could not take this prototype

Cast.prototype = Effectable.Prototype<Cast>({
  label: "ActorCast",
  evaluate(sender) {
    return this.actor.cast(sender, this.operation, this.payload, this.list) ?? Effect.void
  }
})

/** The span of the message that is being handled, for casts that its handler sends without a fiber. */
export const turn: { span: Tracer.AnySpan | undefined } = { span: undefined }

/** Whether an effect was a cast that could be sent at once: nothing of it is left to be run. */
export const sent = (effect: unknown): boolean =>
  effect instanceof Cast && effect.actor.castNow(effect.operation, effect.payload, turn.span)
