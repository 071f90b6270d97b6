import * as Effect from "effect/Effect"
import type { Self } from "../Actor.ts"

/** What an incarnation needs from its actor. */
interface Host {
  readonly id: string
  readonly ready: () => void
}

/** What is fenced: the handlers of an incarnation only ever see their own. */
export class Incarnation implements Self<unknown> {
  state: unknown
  readonly generation: number
  readonly #actor: Host
  stopping = false

  constructor(actor: Host, generation: number, state: unknown) {
    this.#actor = actor
    this.generation = generation
    this.state = state
  }

  get id(): string {
    return this.#actor.id
  }

  get stop(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.stopping = true
      this.#actor.ready()
    })
  }
}
