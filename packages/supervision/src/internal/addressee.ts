import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
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
import { type Blueprint, Child, type Owner } from "./child.ts"
import type { DeadlineList } from "./deadlines.ts"
import type { Definition, Operation } from "./definition.ts"
import type { Incarnation } from "./incarnation.ts"
import { type Busy, CurrentHandler, circle } from "./link.ts"
import { CastMessage, Mailbox, type Message, type Target, WaitingMessage } from "./mailbox.ts"
import type { Runnable } from "./system.ts"

export const stopOperation: Operation = { name: "stop", reply: true, run: () => undefined }

/** `idle`: nothing to do. `queued`: in the run queue. `busy`: on its turn, or a handler is suspended. */
type Activity = "idle" | "queued" | "busy"

/**
 * The side of an actor that its senders meet: what they send is admitted to the mailbox or refused, now or later. It is
 * the base of the actor rather than a part of it, because a part would cost every actor one more object.
 */
export abstract class Addressee extends Child implements Runnable, Busy, Target {
  protected readonly mailbox: Mailbox
  protected incarnation: Incarnation | undefined = undefined
  protected activity: Activity = "idle"
  current: Message | undefined = undefined
  nextReady: Runnable | undefined = undefined

  constructor(owner: Owner, blueprint: Blueprint, context: Context.Context<never>, capacity: number) {
    super(owner, blueprint, context)
    this.mailbox = new Mailbox(capacity)
  }

  abstract readonly definition: Definition
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
    if (this.status === "stopped" || this.status === "stopping") {
      settle(this.failure(new NoProcess({ target: this.path, operation: operation.name })))
      return undefined
    }
    if (this.mailbox.isFull && !this.makeRoom(operation)) {
      settle(this.failure(this.full(operation)))
      return undefined
    }
    const message = new WaitingMessage(this, operation, payload, link, sender?.cache.span, list, settle)
    this.enqueue(message)
    return message
  }

  /** Sends a cast; the result is undefined unless the sender has to wait for room. */
  cast(
    sender: Fiber.Fiber<unknown, unknown>,
    operation: Operation,
    payload: unknown,
    list: DeadlineList | undefined
  ): Effect.Effect<unknown, unknown> | undefined {
    if (this.status === "stopped" || this.status === "stopping") {
      this.dropped(operation, "no_process")
      return undefined
    }
    if (this.mailbox.isFull) {
      if (this.definition.overflow !== "suspend") {
        if (!this.makeRoom(operation)) {
          this.dropped(operation, "mailbox_full")
          return undefined
        }
      } else if (circle(sender.getRef(CurrentHandler), this) === undefined) {
        // an actor that waited for room in its own mailbox would wait for ever, so only others are suspended
        const { span } = sender.cache
        return Effect.callback<unknown, unknown>((settle) => {
          const message = new WaitingMessage(this, operation, payload, undefined, span, list, settle)
          this.enqueue(message)
          return message
        })
      }
    }
    this.enqueue(new CastMessage(operation, payload, sender.cache.span))
    return undefined
  }

  stop(settle: (exit: Exit.Exit<unknown, unknown>) => void): WaitingMessage | undefined {
    const sender = Fiber.getCurrent()
    const path = circle(sender?.getRef(CurrentHandler), this)
    if (path !== undefined && this.incarnation !== undefined) {
      this.incarnation.stopping = true
      settle(Exit.void)
      return undefined
    }
    if (this.incarnation === undefined && this.status !== "starting" && this.status !== "stopping") {
      settle(Exit.void)
      return undefined
    }
    const message = new WaitingMessage(this, stopOperation, undefined, undefined, undefined, undefined, settle)
    this.enqueue(message)
    return message
  }

  withdraw(message: WaitingMessage): void {
    this.mailbox.remove(message)
  }

  expire(message: WaitingMessage): void {
    this.mailbox.remove(message)
    const { operation } = message
    if (!operation.reply) {
      this.dropped(operation, "timeout")
      message.answer(Exit.void)
    } else {
      const limit = message.list?.limit ?? Duration.infinity
      message.answer(this.failure(new CallTimeout({ target: this.path, operation: operation.name, limit })))
    }
  }

  private enqueue(message: Message): void {
    this.mailbox.push(message)
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
    const oldest = this.mailbox.shift()
    if (oldest === undefined) return false
    if (oldest.operation === stopOperation) {
      if (this.incarnation !== undefined) this.incarnation.stopping = true
      this.refuse(oldest, undefined)
      return true
    }
    this.dropped(oldest.operation, "mailbox_full")
    if (oldest instanceof WaitingMessage) oldest.answer(this.failure(this.full(oldest.operation)))
    return true
  }

  protected refuse(message: Message, reason: ExitReason.ExitReason | undefined): void {
    const { operation } = message
    if (operation === stopOperation) {
      if (message instanceof WaitingMessage) message.answer(Exit.void)
      return
    }
    if (!operation.reply) {
      this.dropped(operation, reason === undefined ? "no_process" : "exit")
      if (message instanceof WaitingMessage) message.answer(Exit.void)
      return
    }
    if (!(message instanceof WaitingMessage) || !message.waiting) return
    const about = { target: this.path, operation: operation.name }
    message.answer(
      this.failure(reason === undefined ? new NoProcess(about) : new TargetExit({ ...about, exit: reason }))
    )
  }

  private dropped(operation: Operation, why: DropReason): void {
    const { owner, id } = this
    owner.system.emit({ _tag: "MessageDropped", supervisor: owner.path, child: id, operation: operation.name, why })
  }

  private failure(reason: CallErrorReason): Exit.Exit<never, CallError> {
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
