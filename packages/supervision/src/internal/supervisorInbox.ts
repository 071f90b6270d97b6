import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { ExitReason } from "../ExitReason.ts"
import type { SupervisorError } from "../SupervisorError.ts"
import type { Child } from "./child.ts"
import type { Runnable, System } from "./system.ts"

/** A part of what the fiber of a supervisor does. */
export type Steps<A> = Generator<Effect.Effect<unknown>, A, never>
export type Answer = Exit.Exit<unknown, SupervisorError>

export type Inbound = End | Request

/** A child ended by itself, or an attempt to bring it back failed. */
export interface End {
  readonly kind: "exit" | "retry"
  readonly child: Child
  readonly generation: number
  readonly reason: ExitReason
  next: Inbound | undefined
}

export interface Request {
  readonly kind: "request"
  readonly run: () => Steps<Answer>
  readonly settle: (answer: Answer) => void
  withdrawn: boolean
  next: Inbound | undefined
}

/** What waits for a supervisor. Its fiber is woken from the run queue, never from inside the step of the one who sends. */
export class SupervisorInbox implements Runnable {
  nextReady: Runnable | undefined = undefined
  private readonly system: System
  private oldest: Inbound | undefined = undefined
  private newest: Inbound | undefined = undefined
  private wake: ((effect: Effect.Effect<void>) => void) | undefined = undefined
  private queued = false

  constructor(system: System) {
    this.system = system
  }

  send(message: Inbound): void {
    if (this.newest === undefined) this.oldest = message
    else this.newest.next = message
    this.newest = message
    this.notify()
  }

  take(): Inbound | undefined {
    const message = this.oldest
    if (message === undefined) return undefined
    this.oldest = message.next
    if (this.oldest === undefined) this.newest = undefined
    return message
  }

  readonly idle = Effect.callback<void>((resume) => {
    this.wake = resume
  })

  notify(): void {
    if (this.queued) return
    this.queued = true
    this.system.ready(this)
  }

  turn(): number {
    this.queued = false
    const { wake } = this
    this.wake = undefined
    wake?.(Effect.void)
    return 1
  }
}
