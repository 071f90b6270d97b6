import type * as Clock from "effect/Clock"
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

/** A list that ran empty keeps its sleeper for as long as this, in milliseconds, for the next wait with the same limit. */
const patience = 10_000

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
  private readonly tell: (awake: boolean) => void

  constructor(
    context: Context.Context<never>,
    clock: Clock.Clock,
    limit: Duration.Duration,
    /** Whether somebody sleeps for it. Whoever has the list may use it again when nobody does any longer. */
    tell: (awake: boolean) => void
  ) {
    this.clock = clock
    this.context = context
    this.limit = limit
    this.tell = tell
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
    if (this.sleeper === undefined) this.watch()
  }

  private watch(): void {
    const sleeper = Effect.runForkWith(this.context)(this.sleep)
    this.sleeper = sleeper
    this.tell(true)
    sleeper.addObserver(() => {
      if (this.sleeper !== sleeper) return
      this.sleeper = undefined
      // a sleeper that was preempted on its way out did not see what was added meanwhile
      if (this.first !== undefined) this.watch()
      else this.tell(false)
    })
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
    if (this.first === undefined && this.millis > patience) this.close()
  }

  private expireDue(): void {
    const now = this.now() + tolerance
    while (this.first !== undefined && this.first.due <= now) {
      const timed = this.first
      const { later } = timed
      this.first = later
      if (later === undefined) this.last = undefined
      else later.earlier = undefined
      timed.later = undefined
      timed.expire()
    }
  }

  close(): void {
    const { sleeper } = this
    this.sleeper = undefined
    sleeper?.interruptUnsafe()
    this.tell(false)
  }
}

/** A wait for nothing but the time. */
export class Timer implements Timed {
  due = 0
  earlier: Timed | undefined = undefined
  later: Timed | undefined = undefined
  private readonly list: DeadlineList
  private readonly run: () => void

  constructor(list: DeadlineList, run: () => void) {
    this.list = list
    this.run = run
    list.add(this)
  }

  expire(): void {
    this.run()
  }

  cancel(): void {
    this.list.remove(this)
  }
}
