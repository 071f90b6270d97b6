import * as Duration from "effect/Duration"
import type { ExitReason } from "../ExitReason.ts"
import type { Child } from "./child.ts"
import { ownOperation, perform } from "./definition.ts"
import type { Incarnation } from "./incarnation.ts"
import { type Message, OwnMessage, type WaitingMessage } from "./mailbox.ts"
import { type Watcher, relationsOf } from "./relations.ts"
import type { System } from "./system.ts"

export type Work = (self: Incarnation) => unknown

/** What an incarnation needs of its actor for what it does later. */
export interface Body extends Child {
  readonly system: System
  readonly deliver: (message: OwnMessage) => void
}

/** A timer of an actor, from its start until it was handled or taken back. */
class Alarm {
  live = true
  private readonly life: Life
  private readonly name: string
  private readonly delay: Duration.Duration
  private readonly run: Work
  private readonly again: boolean
  private timer: { readonly cancel: () => void } | undefined

  constructor(life: Life, name: string, delay: Duration.Duration, run: Work, again: boolean) {
    this.life = life
    this.name = name
    this.delay = delay
    this.run = run
    this.again = again
    this.arm()
  }

  private arm(): void {
    this.timer = this.life.body.system.timer(this.delay, () => {
      if (this.again) this.arm()
      this.life.deliver(this.name, this.run, this)
    })
  }

  cancel(): void {
    this.live = false
    this.timer?.cancel()
  }
}

interface Watching extends Watcher {
  live: boolean
}

/** What an incarnation has begun and not finished: continuations, timers, watches, links and answers that are due. */
export class Life {
  readonly body: Body
  private readonly incarnation: Incarnation
  readonly continuations: Array<OwnMessage> = []
  readonly deferred = new Set<WaitingMessage>()
  private readonly alarms = new Map<unknown, Alarm>()
  private readonly watching = new Map<Child, Watching>()
  private whenIdle: Alarm | undefined = undefined
  private whileState: Alarm | undefined = undefined

  constructor(body: Body, incarnation: Incarnation) {
    this.body = body
    this.incarnation = incarnation
  }

  /** What an incarnation begins after its end would never be handled. */
  private get closed(): boolean {
    const { body, incarnation } = this
    return body.status !== "up" || body.generation !== incarnation.generation
  }

  own(name: string, run: Work, token: { readonly live: boolean }): OwnMessage {
    return new OwnMessage(
      // its self is the incarnation
      ownOperation(name, (self) => perform(run as (self: unknown) => unknown, self)),
      this.incarnation,
      token
    )
  }

  deliver(name: string, run: Work, token: { readonly live: boolean }): void {
    this.body.deliver(this.own(name, run, token))
  }

  continue(run: Work): void {
    this.continuations.push(this.own("continue", run, always))
  }

  start(key: unknown, delay: Duration.Input, run: Work): void {
    this.cancel(key)
    if (this.closed) return
    const once: Work = (self) => {
      this.alarms.delete(key)
      return perform(run as (self: unknown) => unknown, self)
    }
    this.alarms.set(key, new Alarm(this, `timer ${String(key)}`, Duration.fromInputUnsafe(delay), once, false))
  }

  every(key: unknown, interval: Duration.Input, run: Work): void {
    this.cancel(key)
    const period = Duration.fromInputUnsafe(interval)
    if (Duration.toMillis(period) <= 0) {
      throw new RangeError(
        `timers.every(${String(key)}): the interval is ${Duration.format(period)}. Give one above zero.`
      )
    }
    if (this.closed) return
    this.alarms.set(key, new Alarm(this, `timer ${String(key)}`, period, run, true))
  }

  cancel(key: unknown): boolean {
    const alarm = this.alarms.get(key)
    alarm?.cancel()
    return this.alarms.delete(key)
  }

  isActive(key: unknown): boolean {
    return this.alarms.has(key)
  }

  idle(delay: Duration.Input, run: Work): void {
    this.whenIdle?.cancel()
    if (this.closed) return
    this.whenIdle = new Alarm(this, "idle", Duration.fromInputUnsafe(delay), run, false)
  }

  state(delay: Duration.Input, run: Work): void {
    this.whileState?.cancel()
    if (this.closed) return
    const { state } = this.incarnation
    const unchanged: Work = (self) =>
      self.state === state ? perform(run as (self: unknown) => unknown, self) : undefined
    this.whileState = new Alarm(this, "state timeout", Duration.fromInputUnsafe(delay), unchanged, false)
  }

  /** A message is about to be handled: whoever waited for silence waits no longer. */
  touched(message: Message): void {
    const { whenIdle } = this
    // a request beside the mailbox leaves the silence as it is
    if (whenIdle === undefined || message.place === "beside") return
    this.whenIdle = undefined
    if (!(message instanceof OwnMessage && message.token === whenIdle)) whenIdle.cancel()
  }

  watch(
    target: Child,
    isThere: boolean,
    run: (self: Incarnation, generation: number, reason: ExitReason | undefined) => unknown
  ): void {
    this.unwatch(target)
    if (this.closed) return
    const tell = (generation: number, reason: ExitReason | undefined) => {
      const once: Work = (self) => {
        this.watching.delete(target)
        return run(self, generation, reason)
      }
      this.deliver(`down ${target.path}`, once, watching)
    }
    const watching: Watching = { live: true, notify: tell }
    this.watching.set(target, watching)
    if (isThere) relationsOf(target).watchers.add(watching)
    else tell(target.generation, undefined)
  }

  unwatch(target: Child): void {
    const watching = this.watching.get(target)
    if (watching === undefined) return
    watching.live = false
    this.watching.delete(target)
    target.extras?.relations?.watchers.delete(watching)
  }

  close(): void {
    for (const alarm of this.alarms.values()) alarm.cancel()
    this.alarms.clear()
    this.whenIdle?.cancel()
    this.whileState?.cancel()
    for (const target of Array.from(this.watching.keys())) this.unwatch(target)
    this.continuations.length = 0
  }
}

const always = { live: true } as const
