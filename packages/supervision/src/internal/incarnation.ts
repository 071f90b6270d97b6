import * as ExitReason from "../ExitReason.ts"
import type { Down, Self, Timers } from "../Actor.ts"
import { type Target, childOf } from "./target.ts"
import { perform } from "./definition.ts"
import { type Body, Life, type Work } from "./life.ts"
import { bind, bindToNobody, isThere, unbind } from "./relations.ts"

/** What is fenced: the handlers of an incarnation only ever see their own. */
export class Incarnation implements Self<unknown> {
  state: unknown
  readonly generation: number
  readonly #body: Body
  /** Set when the actor is to end after the present message. */
  stopping: ExitReason.ExitReason | undefined = undefined
  life: Life | undefined = undefined

  constructor(body: Body, generation: number, state: unknown) {
    this.#body = body
    this.generation = generation
    this.state = state
  }

  get id(): string {
    return this.#body.id
  }

  get path(): string {
    return this.#body.path
  }

  get begun(): Life {
    return (this.life ??= new Life(this.#body, this))
  }

  stop(reason: ExitReason.ExitReason = ExitReason.normal): void {
    this.stopping = reason
    this.#body.activate()
  }

  continue(run: Work): void {
    this.begun.continue(run)
    this.#body.activate()
  }

  get timers(): Timers<unknown> {
    return this.begun
  }

  progress(): void {
    if (this.#isCurrent) this.#body.progress()
  }

  watch(target: Target, notify: (self: Self<unknown>, down: Down) => unknown): void {
    const child = childOf(target)
    this.begun.watch(
      child,
      isThere(target),
      (self, generation, exit) =>
        perform(notify as (self: unknown, down: unknown) => unknown, self, { target: child.path, generation, exit }) // as typed above
    )
  }

  unwatch(target: Target): void {
    this.life?.unwatch(childOf(target))
  }

  link(target: Target): void {
    const body = this.#body
    const child = childOf(target)
    if (!this.#isCurrent || child === body) return
    if (isThere(target)) bind(body, child)
    else bindToNobody(body, child, noProcess)
  }

  unlink(target: Target): void {
    unbind(this.#body, childOf(target))
  }

  get #isCurrent(): boolean {
    const body = this.#body
    return body.generation === this.generation && body.status === "up"
  }
}

/** The reason that reaches whoever links to something that is not there. */
export const noProcess = ExitReason.crash("no process")
