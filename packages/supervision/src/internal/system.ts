import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import * as Tracer from "effect/Tracer"
import { type SupervisionEvent, format, isAlarming } from "../SupervisionEvent.ts"
import { DeadlineList } from "./deadlines.ts"
import { EventHub, timeOf } from "./eventHub.ts"
import { Initialising } from "./child.ts"
import { CurrentHandler } from "./link.ts"

/** Something that waits for its turn. `turn` handles at most `quantum` messages and says how many it did. */
export interface Runnable {
  nextReady: Runnable | undefined
  readonly turn: (quantum: number) => number
}

const microtask = Promise.resolve()
const quantum = 16
const messagesPerDrain = 4096
const messagesPerClockCheck = 64
const millisPerDrain = 5

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
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private readonly deadlines = new Map<number, DeadlineList>()
  private readonly schedule: () => void
  private readonly resource = AsyncResource === undefined ? undefined : new AsyncResource("SupervisionTree")
  private first: Runnable | undefined = undefined
  private last: Runnable | undefined = undefined
  private scheduled = false

  constructor(context: Context.Context<never>) {
    this.context = detached(context)
    this.clock = Context.get(context, Clock.Clock)
    this.dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
    // of two callers, whoever happens to schedule the drain must not lend its async context to the other's handler
    this.schedule =
      this.resource === undefined ? () => this.drain() : () => this.resource?.runInAsyncScope(this.drain, this)
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
      list = new DeadlineList(this.context, this.clock, limit)
      this.deadlines.set(millis, list)
    }
    return list
  }

  fork<A, E>(context: Context.Context<never>, effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(context)(effect)
  }

  emit<E extends Omit<SupervisionEvent, "time">>(event: E): void {
    const { clock, hub } = this
    // every caller passes all fields of one event but its time, which the generic spread loses
    const complete = { ...event, time: timeOf(clock.currentTimeMillisUnsafe()) } as unknown as SupervisionEvent
    const alone = !hub.hasReaders
    hub.push(complete)
    if (alone && isAlarming(complete)) this.fork(this.context, Effect.logWarning(format(complete)))
  }

  ready(runnable: Runnable): void {
    if (this.last === undefined) this.first = runnable
    else this.last.nextReady = runnable
    this.last = runnable
    if (!this.scheduled) {
      this.scheduled = true
      // cheaper than queueMicrotask, which makes an async resource of its own each time
      void microtask.then(this.schedule)
    }
  }

  private drain(): void {
    const began = this.now()
    let handled = 0
    let checkAt = messagesPerClockCheck
    while (this.first !== undefined) {
      if (handled >= checkAt) {
        checkAt = handled + messagesPerClockCheck
        if (handled >= messagesPerDrain || this.now() - began > millisPerDrain) {
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

  close(): void {
    for (const list of this.deadlines.values()) list.close()
    this.hub.close()
  }
}

/** A child lives longer than the request that added it, so that request's span and handler must not become its own. */
export const detached = (context: Context.Context<never>): Context.Context<never> => {
  let clean = context
  if (Context.getOrUndefined(clean, Tracer.ParentSpan) !== undefined) clean = Context.omit(Tracer.ParentSpan)(clean)
  if (Context.get(clean, CurrentHandler) !== undefined) clean = Context.add(clean, CurrentHandler, undefined)
  if (Context.get(clean, Initialising) !== undefined) clean = Context.add(clean, Initialising, undefined)
  return clean
}
