import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Tracer from "effect/Tracer"
import {
  CallCycle,
  CallError,
  type CallErrorReason,
  CallTimeout,
  CallingSelf,
  MailboxFull,
  NoProcess,
  TargetExit
} from "../CallError.ts"
import type * as ExitReason from "../ExitReason.ts"
import type { DropReason } from "../SupervisionEvent.ts"
import { type Cast, messageOf } from "./cast.ts"
import type { DeadlineList } from "./deadlines.ts"
import type { Definition, Operation } from "./definition.ts"
import type { Incarnation } from "./incarnation.ts"
import { type Busy, CurrentHandler, circle } from "./link.ts"
import { Mailbox, type Message, OwnMessage, type Target, WaitingMessage } from "./mailbox.ts"
import type { Runnable } from "./system.ts"

/** The payload is the reason. */
export const stopOperation: Operation = {
  name: "stop",
  reply: true,
  run: () => undefined,
  generation: undefined,
  special: true
}

/** `idle`: nothing to do. `queued`: in the run queue. `busy`: on its turn, or a handler is suspended. */
type Activity = "idle" | "queued" | "busy"

/**
 * The side of an actor that its senders meet: what they send is admitted to the mailbox or refused, now or later.
 */
export abstract class Addressee extends Mailbox implements Runnable, Busy, Target {
  protected incarnation: Incarnation | undefined = undefined
  protected activity: Activity = "idle"
  nextReady: Runnable | undefined = undefined
  /** The message whose handler is suspended, or is just being settled. */
  current: Message | undefined = undefined

  abstract readonly definition: Definition

  protected get capacity(): number {
    return this.definition.capacity
  }

  abstract turn(quantum: number): number

  call(
    operation: Operation,
    payload: unknown,
    list: DeadlineList | undefined,
    settle: (exit: Exit.Exit<unknown, unknown>) => void
  ): WaitingMessage | undefined {
    const sender = Fiber.getCurrent()
    const link = sender?.getRef(CurrentHandler)
    if (link !== undefined) {
      const path = circle(link, this)
      if (path !== undefined) {
        settle(Exit.fail(new CallError({ reason: this.selfCall(operation, path) })))
        return undefined
      }
    }
    if (!this.accepts(operation)) {
      settle(this.failure(new NoProcess({ target: this.path, operation: operation.name })))
      return undefined
    }
    if (this.isFull && !this.makeRoom(operation)) {
      settle(this.failure(this.full(operation)))
      return undefined
    }
    const message = new WaitingMessage(this, operation, payload, link, sender?.cache.span, list, settle)
    this.enqueue(message)
    return message
  }

  /** Sends a cast on behalf of a handler without a fiber; false when there is more to it than room in the mailbox. */
  castNow(cast: Cast, span: Tracer.AnySpan | undefined): boolean {
    if (this.status !== "up" || cast.operation.generation !== undefined || this.isFull) return false
    this.post(cast, span)
    return true
  }

  /** Sends a cast; the result is undefined unless the sender has to wait for room. */
  cast(sender: Fiber.Fiber<unknown, unknown>, cast: Cast): Effect.Effect<unknown, unknown> | undefined {
    const { operation, payload } = cast
    if (!this.accepts(operation)) {
      this.dropped(operation, payload, "no_process")
      return undefined
    }
    if (this.isFull) {
      if (this.definition.overflow !== "suspend") {
        if (!this.makeRoom(operation)) {
          this.dropped(operation, payload, "mailbox_full")
          return undefined
        }
      } else if (circle(sender.getRef(CurrentHandler), this) === undefined) {
        // an actor that waited for room in its own mailbox would wait for ever, so only others are suspended
        const { span } = sender.cache
        return Effect.callback<unknown, unknown>((settle) => {
          // the sender may have been preempted on its way here, and nobody would tell it of room that there was before
          if (!this.isFull || !this.accepts(operation)) {
            this.cast(sender, cast)
            return settle(Exit.void)
          }
          const message = new WaitingMessage(this, operation, payload, undefined, span, cast.ref.list, settle)
          this.enqueue(message)
          return message
        })
      }
    }
    this.post(cast, sender.cache.span)
    return undefined
  }

  private post(cast: Cast, span: Tracer.AnySpan | undefined): void {
    const message = messageOf(cast)
    if (span !== undefined) message.span = span
    this.enqueue(message)
  }

  /** Whether a message for this operation may wait here: for any incarnation, or for the one that it names. */
  private accepts(operation: Operation): boolean {
    if (this.status === "stopped" || this.status === "stopping") return false
    const { generation } = operation
    return generation === undefined || (generation === this.generation && this.incarnation !== undefined)
  }

  stop(
    reason: ExitReason.ExitReason,
    generation: number | undefined,
    settle: (exit: Exit.Exit<unknown, unknown>) => void
  ): WaitingMessage | undefined {
    const operation = { ...stopOperation, generation }
    if (circle(Fiber.getCurrent()?.getRef(CurrentHandler), this) !== undefined) {
      settle(this.failure(new CallingSelf({ target: this.path, operation: "stop" })))
      return undefined
    }
    if (!this.accepts(operation)) {
      settle(this.failure(new NoProcess({ target: this.path, operation: "stop" })))
      return undefined
    }
    const message = new WaitingMessage(this, operation, reason, undefined, undefined, undefined, settle)
    this.enqueue(message)
    return message
  }

  /** Stops an actor that has nothing to do and nothing to clean up, at once; false when there is more to it. */
  abstract stopNow(
    sender: Fiber.Fiber<unknown, unknown>,
    reason: ExitReason.ExitReason,
    generation: number | undefined
  ): boolean

  /** Asks beside the mailbox: such requests are served first, also while the actor is suspended. */
  ask(
    operation: Operation,
    payload: unknown,
    list: DeadlineList | undefined,
    settle: (exit: Exit.Exit<unknown, unknown>) => void
  ): WaitingMessage | undefined {
    const sender = Fiber.getCurrent()
    const link = sender?.getRef(CurrentHandler)
    if (circle(link, this) !== undefined) {
      settle(this.failure(new CallingSelf({ target: this.path, operation: operation.name })))
      return undefined
    }
    if (!this.accepts(operation)) {
      settle(this.failure(new NoProcess({ target: this.path, operation: operation.name })))
      return undefined
    }
    const message = new WaitingMessage(this, operation, payload, link, undefined, list, settle)
    message.place = "beside"
    const { rare } = this
    ;(rare.lane ??= []).push(message)
    this.ready()
    return message
  }

  deliver(message: OwnMessage): void {
    if (message.incarnation === this.incarnation) this.enqueue(message)
  }

  withdraw(message: WaitingMessage): void {
    this.remove(message)
  }

  expire(message: WaitingMessage): void {
    this.remove(message)
    const { operation } = message
    if (!operation.reply) {
      this.dropped(operation, message.payload, "timeout")
      message.answer(Exit.void)
    } else {
      const limit = message.list?.limit ?? Duration.infinity
      message.answer(this.failure(new CallTimeout({ target: this.path, operation: operation.name, limit })))
    }
  }

  private enqueue(message: Message): void {
    this.push(message)
    this.ready()
  }

  ready(): void {
    if (this.activity !== "idle" || this.status !== "up") return
    this.activity = "queued"
    this.owner.system.ready(this)
  }

  private makeRoom(operation: Operation): boolean {
    if (this.definition.overflow === "suspend") return operation.reply
    if (this.definition.overflow !== "dropOldest") return false
    const oldest = this.shift()
    if (oldest === undefined) return false
    if (oldest.operation.run === stopOperation.run) {
      if (this.incarnation !== undefined) this.incarnation.stopping = oldest.payload as ExitReason.ExitReason // as sent
      this.refuse(oldest, undefined)
      return true
    }
    if (oldest instanceof OwnMessage) return true
    this.dropped(oldest.operation, oldest.payload, "mailbox_full")
    if (oldest instanceof WaitingMessage) oldest.answer(this.failure(this.full(oldest.operation)))
    return true
  }

  /** Turns away a message for which there is no incarnation (any longer). What an incarnation told itself goes with it. */
  protected refuse(message: Message, reason: ExitReason.ExitReason | undefined): void {
    const { operation } = message
    if (message instanceof OwnMessage) return
    if (operation.run === stopOperation.run) {
      if (message instanceof WaitingMessage) message.answer(Exit.void)
      return
    }
    if (!operation.reply) {
      this.dropped(operation, message.payload, reason === undefined ? "no_process" : "exit")
      if (message instanceof WaitingMessage) message.answer(Exit.void)
      return
    }
    if (!(message instanceof WaitingMessage) || !message.waiting) return
    const about = { target: this.path, operation: operation.name }
    message.answer(
      this.failure(reason === undefined ? new NoProcess(about) : new TargetExit({ ...about, exit: reason }))
    )
  }

  protected dropped(operation: Operation, payload: unknown, why: DropReason): void {
    const { owner, id } = this
    const { system } = owner
    const { time } = system
    system.emit({ _tag: "MessageDropped", supervisor: owner.path, child: id, time, operation: operation.name, why })
    if (!system.deadLetters.hasReaders) return
    system.deadLetters.push({ target: this.path, operation: operation.name, payload, why, time })
  }

  protected failure(reason: CallErrorReason): Exit.Exit<never, CallError> {
    return Exit.fail(new CallError({ reason }))
  }

  private full(operation: Operation): MailboxFull {
    return new MailboxFull({ target: this.path, operation: operation.name, capacity: this.definition.capacity })
  }

  private selfCall(operation: Operation, path: ReadonlyArray<string>): CallingSelf | CallCycle {
    const about = { target: this.path, operation: operation.name }
    return path.length > 2 ? new CallCycle({ ...about, path }) : new CallingSelf(about)
  }
}
