import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import type * as Tracer from "effect/Tracer"
import { Child } from "./child.ts"
import type { DeadlineList, Timed } from "./deadlines.ts"
import type { Operation } from "./definition.ts"
import type { Link } from "./link.ts"

/** Where a message is: not yet in the mailbox, within the capacity, waiting for room, taken out, or never in it. */
export type Place = "unsent" | "queued" | "outside" | "taken" | "beside"

export interface Message {
  readonly operation: Operation
  readonly payload: unknown
  next: Message | undefined
  readonly link: Link | undefined
  readonly span: Tracer.AnySpan | undefined
  /** Somebody waits for the outcome. */
  readonly waiting: boolean
  place: Place
}

type Settle = (exit: Exit.Exit<unknown, unknown>) => void

/** Something that an incarnation told itself to do later. It is handled by that incarnation or not at all. */
export class OwnMessage implements Message {
  readonly operation: Operation
  readonly incarnation: object
  /** Taken back when false. */
  readonly token: { readonly live: boolean }
  next: Message | undefined = undefined
  place: Place = "unsent"

  constructor(operation: Operation, incarnation: object, token: { readonly live: boolean }) {
    this.operation = operation
    this.incarnation = incarnation
    this.token = token
  }

  get payload(): undefined {
    return undefined
  }

  get link(): undefined {
    return undefined
  }

  get span(): undefined {
    return undefined
  }

  get waiting(): boolean {
    return false
  }
}

/** What a waiting message needs from the actor that it was sent to. */
export interface Target {
  readonly withdraw: (message: WaitingMessage) => void
  readonly expire: (message: WaitingMessage) => void
}

/**
 * A message whose sender waits: a call, a cast that waits for room, or a request to stop. It is also the Effect that runs
 * when the sender is interrupted, which saves a closure per call.
 */
export class WaitingMessage extends Effectable.Class<void> implements Message, Timed {
  readonly target: Target
  readonly operation: Operation
  readonly payload: unknown
  next: Message | undefined = undefined
  readonly link: Link | undefined
  readonly span: Tracer.AnySpan | undefined
  place: Place = "unsent"
  settle: Settle | undefined
  readonly list: DeadlineList | undefined
  due = 0
  earlier: Timed | undefined = undefined
  later: Timed | undefined = undefined

  constructor(
    target: Target,
    operation: Operation,
    payload: unknown,
    link: Link | undefined,
    span: Tracer.AnySpan | undefined,
    list: DeadlineList | undefined,
    settle: Settle
  ) {
    super()
    this.target = target
    this.operation = operation
    this.payload = payload
    this.link = link
    this.span = span
    this.list = list
    this.settle = settle
    list?.add(this)
  }

  get waiting(): boolean {
    return this.settle !== undefined
  }

  /** Answers the sender. False when it has left. */
  answer(exit: Exit.Exit<unknown, unknown>): boolean {
    const settle = this.settle
    if (settle === undefined) return false
    this.settle = undefined
    this.list?.remove(this)
    settle(exit)
    return true
  }

  expire(): void {
    this.target.expire(this)
  }

  override asEffect(): Effect.Effect<void> {
    this.settle = undefined
    this.list?.remove(this)
    this.target.withdraw(this)
    return Effect.void
  }
}

const nothing: ReadonlyArray<Message> = []
const all = () => true

/** Below this capacity a sender that waits gets the first free slot. */
const smallCapacity = 64

/** The first from here on that is still to be handled. */
const live = (message: Message | undefined): Message | undefined => {
  let at = message
  while (at?.place === "taken") at = at.next
  return at
}

/**
 * A queue linked through its messages. Those within `capacity` are admitted; later ones belong to senders that wait for
 * room, which is why one list keeps the order of every sender. A message that is taken back stays in the list until its turn
 * comes, or until there are more such gaps than messages. It is the base of the actor rather than a part of it, because a
 * part would cost every actor one more object.
 */
export abstract class Mailbox extends Child {
  /** The first message, never one that was taken back. */
  private head: Message | undefined = undefined
  /** The end of the list, where it is not the head too: most mailboxes never hold two, and are spared the write. */
  private tail: Message | undefined = undefined
  /** Messages that were admitted. */
  private size = 0
  /** The first message that waits for room. */
  private outside: Message | undefined = undefined
  /** Messages in the list that were taken back. */
  private gaps = 0

  protected abstract readonly capacity: number

  protected get isEmpty(): boolean {
    return this.head === undefined
  }

  protected get isFull(): boolean {
    return this.size >= this.capacity || this.outside !== undefined
  }

  /** Messages that wait, outside too. */
  get depth(): number {
    let depth = this.size
    for (let at = this.outside; at !== undefined; at = live(at.next)) depth++
    return depth
  }

  protected push(message: Message): void {
    message.place = "queued"
    const { head } = this
    if (head === undefined) {
      this.head = message
    } else {
      ;(this.tail ?? head).next = message
      this.tail = message
    }
    if (this.isFull) {
      message.place = "outside"
      this.outside ??= message
    } else {
      this.size++
    }
  }

  /** Puts a message back to where it was taken from. */
  protected unshift(message: Message): void {
    message.place = "queued"
    const { head } = this
    if (head !== undefined) {
      message.next = head
      this.tail ??= head
    }
    this.head = message
    this.size++
  }

  protected shift(): Message | undefined {
    const { head } = this
    if (head === undefined) return undefined
    this.size--
    this.leave(head)
    if (this.outside !== undefined) this.admit()
    return head
  }

  /** Takes out the head. */
  private leave(head: Message): void {
    const next = this.gaps === 0 ? head.next : this.skip(head.next)
    head.place = "taken"
    this.head = next
    if (head.next !== undefined) {
      head.next = undefined
      if (next === undefined || next === this.tail) this.tail = undefined
    }
  }

  private skip(from: Message | undefined): Message | undefined {
    const next = live(from)
    for (let at = from; at !== next; at = at?.next) this.gaps--
    return next
  }

  /** Empties the mailbox at once, so that what its senders do next does not meet a half-emptied one. */
  protected drain(): ReadonlyArray<Message> {
    return this.take(all)
  }

  /** Takes out what matches, wherever it waits. */
  protected take(matches: (message: Message) => boolean): ReadonlyArray<Message> {
    if (this.head === undefined) return nothing
    const taken: Array<Message> = []
    this.relink((message) => {
      if (!matches(message)) return true
      if (message.place === "queued") this.size--
      message.place = "taken"
      taken.push(message)
      return false
    })
    if (this.outside !== undefined) this.admit()
    return taken
  }

  protected remove(message: Message): void {
    const { place } = message
    if (place !== "queued" && place !== "outside") return
    if (place === "queued") this.size--
    else if (message === this.outside) this.outside = live(message.next)
    if (message === this.head) {
      this.leave(message)
    } else {
      message.place = "taken"
      if (++this.gaps > this.size + smallCapacity) this.relink(all)
    }
    if (this.outside !== undefined) this.admit()
  }

  /** Makes the list anew, of the messages that stay. */
  private relink(stays: (message: Message) => boolean): void {
    let at = this.head
    this.head = undefined
    this.tail = undefined
    this.outside = undefined
    this.gaps = 0
    while (at !== undefined) {
      const { next }: Message = at
      at.next = undefined
      if (at.place !== "taken" && stays(at)) {
        if (this.head === undefined) this.head = at
        else {
          ;(this.tail ?? this.head).next = at
          this.tail = at
        }
        if (at.place === "outside") this.outside ??= at
      }
      at = next
    }
  }

  /**
   * Lets in those who wait for room. A large mailbox first gets half empty: a sender that were woken for each slot would
   * send one message and wait again. Only a cast was waiting just for this.
   */
  private admit(): void {
    const { capacity } = this
    if (this.size > (capacity < smallCapacity ? capacity - 1 : capacity >> 1)) return
    while (this.outside !== undefined && this.size < capacity) {
      const message: Message = this.outside
      this.outside = live(message.next)
      message.place = "queued"
      this.size++
      if (!message.operation.reply && message instanceof WaitingMessage) message.answer(Exit.void)
    }
  }
}
