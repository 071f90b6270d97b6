import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import type { Addressee } from "./addressee.ts"
import type { DeadlineList } from "./deadlines.ts"
import type { Operation } from "./definition.ts"

const defaultLimit = Duration.seconds(5)

class Call extends Effectable.Class<unknown, unknown> {
  private readonly actor: Addressee
  private readonly operation: Operation
  private readonly payload: unknown
  private readonly list: DeadlineList | undefined

  constructor(actor: Addressee, operation: Operation, payload: unknown, list: DeadlineList | undefined) {
    super()
    this.actor = actor
    this.operation = operation
    this.payload = payload
    this.list = list
  }

  override asEffect(): Effect.Effect<unknown, unknown> {
    return Effect.callback((settle) => this.actor.call(this.operation, this.payload, this.list, settle))
  }
}

interface Cast extends Effect.Effect<unknown, unknown> {
  readonly actor: Addressee
  readonly operation: Operation
  readonly payload: unknown
  readonly list: DeadlineList | undefined
}

/** Casts are the cheapest message there is, so they take the sender from the run loop instead of looking it up. */
const Cast = function (
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

type Client = Record<string, (payload: unknown) => Effect.Effect<unknown, unknown>>

/** The client objects are made at the first use: a ref that only travels costs nothing but itself. */
class Ref {
  readonly #actor: Addressee
  readonly #list: DeadlineList | undefined
  #call: Client | undefined = undefined
  #cast: Client | undefined = undefined

  constructor(actor: Addressee, limit: Duration.Duration) {
    this.#actor = actor
    this.#list = actor.owner.system.deadline(limit)
  }

  get id(): string {
    return this.#actor.id
  }

  get call(): Client {
    if (this.#call === undefined) {
      const [actor, list] = [this.#actor, this.#list]
      const client: Client = (this.#call = {})
      for (const operation of actor.definition.calls) {
        client[operation.name] = (payload) => new Call(actor, operation, payload, list)
      }
    }
    return this.#call
  }

  get cast(): Client {
    if (this.#cast === undefined) {
      const [actor, list] = [this.#actor, this.#list]
      const client: Client = (this.#cast = {})
      for (const operation of actor.definition.casts) {
        const bare = new Cast(actor, operation, undefined, list)
        client[operation.name] = (payload) => (payload === undefined ? bare : new Cast(actor, operation, payload, list))
      }
    }
    return this.#cast
  }

  within(limit: Duration.Input): Ref {
    return new Ref(this.#actor, Duration.fromInputUnsafe(limit))
  }

  get stop(): Effect.Effect<unknown, unknown> {
    return Effect.callback((settle) => this.#actor.stop(settle))
  }
}

export const makeRef = (actor: Addressee): unknown => new Ref(actor, defaultLimit)
