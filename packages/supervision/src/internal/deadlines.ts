import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"

/** Something with a deadline. The links are its place in the list of its limit. */
export interface Timed {
  due: number
  earlier: Timed | undefined
  later: Timed | undefined
  readonly expire: () => void
}

/** Rounding of the clock's nanoseconds, in milliseconds. */
const tolerance = 0.0005

/**
 * All waits with one and the same limit. They expire in the order in which they began, so a linked list and a single
 * sleeper replace a timer per wait.
 */
export class DeadlineList {
  private readonly clock: Clock.Clock
  private readonly context: Context.Context<never>
  readonly limit: Duration.Duration
  private readonly millis: number
  private first: Timed | undefined = undefined
  private last: Timed | undefined = undefined
  private sleeper: Fiber.Fiber<void> | undefined = undefined
  private readonly sleep: Effect.Effect<void>

  constructor(context: Context.Context<never>, clock: Clock.Clock, limit: Duration.Duration) {
    this.clock = clock
    this.context = context
    this.limit = limit
    this.millis = Duration.toMillis(limit)
    this.sleep = Effect.whileLoop({
      while: () => this.first !== undefined,
      body: () => clock.sleep(Duration.millis(Math.max(0, (this.first?.due ?? 0) - this.now()))),
      step: () => this.expireDue()
    })
  }

  private now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  add(timed: Timed): void {
    timed.due = this.now() + this.millis
    timed.earlier = this.last
    if (this.last === undefined) this.first = timed
    else this.last.later = timed
    this.last = timed
    if (this.sleeper === undefined) {
      const sleeper = Effect.runForkWith(this.context)(this.sleep)
      this.sleeper = sleeper
      sleeper.addObserver(() => {
        this.sleeper = undefined
      })
    }
  }

  remove(timed: Timed): void {
    const { earlier, later } = timed
    if (earlier === undefined && this.first !== timed) return
    if (earlier === undefined) this.first = later
    else earlier.later = later
    if (later === undefined) this.last = earlier
    else later.earlier = earlier
    timed.earlier = undefined
    timed.later = undefined
  }

  private expireDue(): void {
    const now = this.now() + tolerance
    while (this.first !== undefined && this.first.due <= now) {
      const timed = this.first
      this.remove(timed)
      timed.expire()
    }
  }

  close(): void {
    this.sleeper?.interruptUnsafe()
  }
}
