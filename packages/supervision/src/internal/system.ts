import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import * as Tracer from "effect/Tracer"
import type { DeadLetter } from "../DeadLetter.ts"
import * as ExitReason from "../ExitReason.ts"
import { type SupervisionEvent, isAlarming } from "../SupervisionEvent.ts"
import { Alarms } from "./alarms.ts"
import { Counters } from "./counters.ts"
import { DeadlineList, Timer } from "./deadlines.ts"
import { EventHub, Hub, timeOf } from "./eventHub.ts"
import { CurrentInterleaving, type Interleaving } from "./interleaving.ts"
import { CurrentHandler } from "./link.ts"
import { CurrentPlace } from "./place.ts"
import { Process, type Steps } from "./process.ts"

/** Something that waits for its turn. `turn` handles at most `quantum` messages and says how many it did. */
export interface Runnable {
  nextReady: Runnable | undefined
  readonly turn: (quantum: number) => number
}

const microtask = Promise.resolve()
const quantum = 16
const messagesPerDrain = 16_384
const messagesPerClockCheck = 128
const millisPerDrain = 1

const AsyncResource = globalThis.process?.getBuiltinModule?.("node:async_hooks").AsyncResource

/**
 * What a whole tree shares: the run queue, the deadlines, the clock and the events.
 *
 * The queue is per tree, not per actor, because only a common budget keeps a ring of actors from starving timers.
 */
export class System {
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  readonly hub = new EventHub()
  readonly deadLetters = new Hub<DeadLetter>()
  readonly counters: Counters
  private readonly alarms: Alarms
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private readonly interleaving: Interleaving | undefined
  private readonly deadlines = new Map<number, DeadlineList>()
  private readonly awake = new Set<DeadlineList>()
  private readonly schedule: () => void
  private readonly home = AsyncResource === undefined ? undefined : new AsyncResource("SupervisionTree")
  private first: Runnable | undefined = undefined
  private last: Runnable | undefined = undefined
  private scheduled = false
  private flushing = false
  private latest = Number.NaN
  /** `now()` when the time of an event was last asked for, in whole milliseconds. */
  tick = 0
  private attached: Context.Context<never> | undefined = undefined
  private clean: Context.Context<never>

  constructor(context: Context.Context<never>) {
    this.context = detached(context)
    this.clean = this.context
    this.clock = Context.get(context, Clock.Clock)
    this.dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
    this.interleaving = Context.get(context, CurrentInterleaving)
    this.counters = new Counters(this.context)
    this.alarms = new Alarms(this.context)
    const drain = this.interleaving === undefined ? this.drain : this.drawOne
    // of two callers, whoever happens to schedule the drain must not lend its async context to the other's handler
    this.schedule = () => this.inside(drain, this)
  }

  /** Nothing waits for its turn, so what is asked for now may as well be done now. Never true where turns are drawn. */
  get isIdle(): boolean {
    return !this.scheduled && this.interleaving === undefined
  }

  /** Runs something in the async context of the tree, which is nobody's in particular. */
  inside<This>(run: (this: This) => void, self: This): void {
    if (this.home === undefined) run.call(self)
    else this.home.runInAsyncScope(run, self)
  }

  /** `detached`, remembered: those who start many children do so from one context. */
  detach(context: Context.Context<never>): Context.Context<never> {
    if (this.attached !== context) {
      this.attached = context
      this.clean = detached(context)
    }
    return this.clean
  }

  /** Milliseconds of a clock that never goes back. */
  now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  deadline(limit: Duration.Duration): DeadlineList | undefined {
    const millis = Duration.toMillis(limit)
    if (millis === Infinity) return undefined
    let list = this.deadlines.get(millis)
    if (list === undefined) {
      const made = new DeadlineList(this.context, this.clock, limit, (awake) => {
        if (awake) {
          this.awake.add(made)
        } else {
          this.awake.delete(made)
          if (this.deadlines.get(millis) === made) this.deadlines.delete(millis)
        }
      })
      list = made
      this.deadlines.set(millis, list)
    }
    return list
  }

  /** Calls `run` after `limit`; never for an infinite one. */
  timer(limit: Duration.Duration, run: () => void): Timer | undefined {
    const list = this.deadline(limit)
    return list === undefined ? undefined : new Timer(list, run)
  }

  fork<A, E>(context: Context.Context<never>, effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(context)(effect)
  }

  /** The time of an event. */
  get time(): DateTime.Utc {
    const millis = this.clock.currentTimeMillisUnsafe()
    if (millis !== this.latest) {
      this.latest = millis
      this.tick = Math.floor(this.now())
    }
    return timeOf(millis)
  }

  emit(event: SupervisionEvent): void {
    const { hub } = this
    this.counters.count(event._tag)
    if (!this.flushing) this.flushSoon()
    if (!hub.hasReaders && isAlarming(event)) this.alarms.raise(event, this.now())
    hub.push(event)
  }

  /** Runs a callback of the program. One that throws is an event and gives `otherwise`. */
  attempt<A>(supervisor: string, child: string, callback: string, run: () => A, otherwise: A): A {
    try {
      return run()
    } catch (error) {
      const exit = ExitReason.crash(error)
      this.emit({ _tag: "CallbackFailed", supervisor, child, time: this.time, callback, exit })
      return otherwise
    }
  }

  private flushSoon(): void {
    this.flushing = true
    this.soon(() => {
      this.flushing = false
      this.counters.flush()
    })
  }

  /** Takes the first steps of sequential work now, and the others when they are due. */
  run<A>(steps: Steps<A>): Process<A> {
    return new Process(this, steps).start()
  }

  /** Runs `run` after everything that waits already, fibers and I/O included. */
  soon(run: () => void): void {
    this.dispatcher.scheduleTask(run, 0)
  }

  /** Runs `run` on a turn of its own. */
  post(run: () => void): void {
    this.ready({
      nextReady: undefined,
      turn: () => {
        run()
        return 1
      }
    })
  }

  ready(runnable: Runnable): void {
    if (this.last === undefined) this.first = runnable
    else this.last.nextReady = runnable
    this.last = runnable
    if (!this.scheduled) {
      this.scheduled = true
      if (this.interleaving !== undefined) this.dispatcher.scheduleTask(this.schedule, 0)
      // cheaper than queueMicrotask, which makes an async resource of its own each time
      else void microtask.then(this.schedule)
    }
  }

  private drain(): void {
    let began = 0
    let handled = 0
    let checkAt = messagesPerClockCheck
    while (this.first !== undefined) {
      if (handled >= checkAt) {
        // most drains end before they look at the clock
        const now = this.now()
        if (began === 0) began = now
        checkAt = handled + messagesPerClockCheck
        if (handled >= messagesPerDrain || now - began > millisPerDrain) {
          this.dispatcher.scheduleTask(this.schedule, 0)
          return
        }
      }
      const next = this.first
      this.first = next.nextReady
      if (this.first === undefined) this.last = undefined
      next.nextReady = undefined
      handled += next.turn(quantum) + 1
    }
    this.scheduled = false
  }

  /** One turn, of whoever is drawn, and then everybody else's fibers before the next. */
  private drawOne(): void {
    let waiting = 0
    for (let at = this.first; at !== undefined; at = at.nextReady) waiting++
    if (waiting > 0) {
      let before: Runnable | undefined
      let drawn = this.first
      for (let skip = this.interleaving?.pick(waiting) ?? 0; skip > 0; skip--) {
        before = drawn
        drawn = drawn?.nextReady
      }
      if (drawn !== undefined) {
        if (before === undefined) this.first = drawn.nextReady
        else before.nextReady = drawn.nextReady
        if (this.last === drawn) this.last = before
        drawn.nextReady = undefined
        drawn.turn(1)
      }
    }
    this.scheduled = this.first !== undefined
    if (this.scheduled) this.dispatcher.scheduleTask(this.schedule, 0)
  }

  close(): void {
    for (const list of Array.from(this.awake)) list.close()
    this.alarms.close()
    this.counters.children = 0
    this.counters.flush()
    this.hub.close()
    this.deadLetters.close()
  }
}

/** A child lives longer than the request that added it, so that request's span and handler must not become its own. */
export const detached = (context: Context.Context<never>): Context.Context<never> => {
  let clean = context
  if (Context.getOrUndefined(clean, Tracer.ParentSpan) !== undefined) clean = Context.omit(Tracer.ParentSpan)(clean)
  if (Context.get(clean, CurrentHandler) !== undefined) clean = Context.add(clean, CurrentHandler, undefined)
  if (Context.get(clean, CurrentPlace) !== undefined) clean = Context.add(clean, CurrentPlace, undefined)
  return clean
}
