import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import type { Self } from "../Actor.ts"
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
import * as ExitReason from "../ExitReason.ts"
import type { DropReason } from "../SupervisionEvent.ts"
import { Blueprint, Child, Initialising, type Owner, type Settings } from "./child.ts"
import type { DeadlineList } from "./deadlines.ts"
import type { Definition, Operation } from "./definition.ts"
import { type Busy, CurrentHandler, Link, circle } from "./link.ts"
import { CastMessage, Mailbox, type Message, type Target, WaitingMessage } from "./mailbox.ts"
import { makeRef } from "./refs.ts"
import type { Runnable } from "./system.ts"

type AnyEffect = Effect.Effect<unknown, unknown>
type AnyFiber = Fiber.Fiber<unknown, unknown>

/** What is fenced: the handlers of an incarnation only ever see their own. */
class Incarnation implements Self<unknown> {
  state: unknown
  readonly generation: number
  readonly #actor: ActorChild
  stopping = false

  constructor(actor: ActorChild, generation: number, state: unknown) {
    this.#actor = actor
    this.generation = generation
    this.state = state
  }

  get id(): string {
    return this.#actor.id
  }

  get stop(): Effect.Effect<void> {
    return Effect.sync(() => {
      this.stopping = true
      this.#actor.ready()
    })
  }
}

const stopOperation: Operation = { name: "stop", reply: true, run: () => undefined }

/** `idle`: nothing to do. `queued`: in the run queue. `busy`: on its turn, or a handler is suspended. */
type Activity = "idle" | "queued" | "busy"

export class ActorBlueprint extends Blueprint {
  readonly definition: Definition
  readonly arg: unknown

  constructor(id: string, settings: Settings, definition: Definition, arg: unknown) {
    super(id, settings)
    this.definition = definition
    this.arg = arg
  }

  override make(owner: Owner, context: Context.Context<never>): Child {
    return new ActorChild(owner, this, context)
  }
}

export class ActorChild extends Child implements Runnable, Busy, Target {
  readonly kind = "actor"
  declare readonly blueprint: ActorBlueprint
  private readonly mailbox: Mailbox
  private incarnation: Incarnation | undefined = undefined
  private activity: Activity = "idle"
  /** The handler, or the init, that is suspended. */
  private fiber: AnyFiber | undefined = undefined
  private finished: Exit.Exit<unknown, unknown> | undefined = undefined
  private scope: Scope.Closeable | undefined = undefined
  private handlers: Context.Context<never> | undefined = undefined
  current: Message | undefined = undefined
  nextReady: Runnable | undefined = undefined

  constructor(owner: Owner, blueprint: ActorBlueprint, context: Context.Context<never>) {
    super(owner, blueprint, context)
    this.mailbox = new Mailbox(blueprint.definition.capacity)
  }

  get definition(): Definition {
    return this.blueprint.definition
  }

  get ref(): unknown {
    return makeRef(this)
  }

  // -- life

  begin(): Exit.Exit<unknown, unknown> | AnyFiber {
    let out: unknown
    try {
      out = this.definition.init(this.blueprint.arg)
    } catch (error) {
      return Exit.die(error)
    }
    if (!Effect.isEffect(out)) return Exit.succeed(out)
    this.scope = Scope.makeUnsafe()
    const context = Context.add(Context.add(this.context, Scope.Scope, this.scope), Initialising, this)
    const fiber = this.owner.system.fork(context, out as AnyEffect) // its services were captured with the spec
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return exit
    this.fiber = fiber
    return fiber
  }

  complete(exit: Exit.Exit<unknown, unknown>): ExitReason.ExitReason | undefined {
    if (Exit.isFailure(exit)) return ExitReason.fromExit(exit, false)
    this.fiber = undefined
    if (this.scope?.state._tag === "Empty") this.scope = undefined
    this.generation++
    this.incarnation = new Incarnation(this, this.generation, exit.value)
    this.status = "up"
    return undefined
  }

  activate(): void {
    if (!this.mailbox.isEmpty) this.ready()
  }

  halt(reason: ExitReason.ExitReason): AnyFiber | undefined {
    const { current, fiber, scope } = this
    // fence first: interrupting and answering run other people's code
    this.incarnation = undefined
    this.fiber = undefined
    this.finished = undefined
    this.scope = undefined
    this.handlers = undefined
    this.current = undefined
    // busy means inside its own turn or suspended; queued must stay true as long as the run queue holds it
    if (this.activity === "busy") this.activity = "idle"
    const waiting = this.mailbox.drain()
    fiber?.interruptUnsafe()
    const cleanup = scope === undefined ? fiber : this.close(scope, fiber)
    if (current?.operation.reply === true) this.refuse(current, reason)
    for (const message of waiting) this.refuse(message, reason)
    return cleanup
  }

  private close(scope: Scope.Closeable, fiber: AnyFiber | undefined): AnyFiber | undefined {
    if (fiber === undefined || fiber.pollUnsafe() !== undefined) {
      const close = Scope.closeUnsafe(scope, Exit.void)
      return close === undefined ? fiber : this.owner.system.fork(this.context, close)
    }
    // finalizers of init come after the handler's own, as they would in one fiber
    const close = Effect.flatMap(Fiber.await(fiber), (exit) =>
      Effect.andThen(
        Scope.close(scope, Exit.void),
        Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? exit : Exit.void
      )
    )
    return this.owner.system.fork(this.context, close)
  }

  release(): void {
    for (const message of this.mailbox.drain()) this.refuse(message, undefined)
  }

  /** The only way in which an incarnation ends by itself. */
  private end(reason: ExitReason.ExitReason): void {
    this.status = "down"
    const cleanup = this.halt(reason)
    this.owner.exited(this, reason, cleanup)
  }

  // -- messages in

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
    sender: AnyFiber,
    operation: Operation,
    payload: unknown,
    list: DeadlineList | undefined
  ): AnyEffect | undefined {
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

  // -- turns

  turn(quantum: number): number {
    let handled = 0
    if (this.status !== "up") {
      this.activity = "idle"
      return handled
    }
    this.activity = "busy"
    const { finished, incarnation } = this
    if (incarnation === undefined) return handled
    if (finished !== undefined && this.current !== undefined) {
      this.finished = undefined
      this.fiber = undefined
      handled++
      if (!this.settle(incarnation, this.current, finished)) return handled
    }
    while (handled < quantum && this.incarnation === incarnation) {
      if (incarnation.stopping) {
        this.end(ExitReason.normal)
        return handled
      }
      const message = this.mailbox.shift()
      if (message === undefined) break
      handled++
      this.current = message
      const { operation } = message
      if (operation === stopOperation) {
        this.stopBy(message)
        return handled
      }
      let out: unknown
      try {
        out = operation.run(incarnation, message.payload)
      } catch (error) {
        if (this.incarnation === incarnation) this.end(ExitReason.crash(error))
        return handled
      }
      if (!Effect.isEffect(out)) {
        this.current = undefined
        if (operation.reply) this.reply(message, Exit.succeed(out))
      } else {
        const exit = Exit.isExit(out) ? out : this.run(incarnation, message, out as AnyEffect) // services: as for init
        if (exit === undefined) return handled
        if (!this.settle(incarnation, message, exit)) return handled
      }
    }
    if (this.incarnation !== incarnation) return handled
    if (this.mailbox.isEmpty && !incarnation.stopping) {
      this.activity = "idle"
    } else {
      this.activity = "queued"
      this.owner.system.ready(this)
    }
    return handled
  }

  /** Runs a handler's effect; undefined while it is suspended, which is the only time when an actor has a fiber. */
  private run(incarnation: Incarnation, message: Message, effect: AnyEffect): Exit.Exit<unknown, unknown> | undefined {
    if (this.handlers === undefined) {
      this.scope ??= Scope.makeUnsafe()
      this.handlers = Context.add(this.context, Scope.Scope, this.scope)
    }
    let context = Context.add(this.handlers, CurrentHandler, new Link(this, message, message.link))
    if (message.span !== undefined) context = Context.add(context, Tracer.ParentSpan, message.span)
    const fiber = this.owner.system.fork(context, effect)
    const exit = fiber.pollUnsafe()
    if (this.incarnation !== incarnation) {
      // the handler had its own actor stopped while it ran
      fiber.interruptUnsafe()
      return undefined
    }
    if (exit !== undefined) return exit
    this.fiber = fiber
    fiber.addObserver((exit) => {
      if (this.fiber !== fiber) return
      this.finished = exit
      this.activity = "queued"
      this.owner.system.ready(this)
    })
    return undefined
  }

  /** Answers. False when the outcome ended the incarnation. */
  private settle(incarnation: Incarnation, message: Message, exit: Exit.Exit<unknown, unknown>): boolean {
    if (this.incarnation !== incarnation) return false
    if (Exit.isFailure(exit) && !(message.operation.reply && exit.cause.reasons.every(Cause.isFailReason))) {
      this.end(ExitReason.fromExit(exit, false))
      return false
    }
    this.current = undefined
    if (message.operation.reply) this.reply(message, exit)
    return this.incarnation === incarnation
  }

  private reply(message: Message, exit: Exit.Exit<unknown, unknown>): void {
    if (message instanceof WaitingMessage && !message.answer(exit)) {
      const { owner, id } = this
      owner.system.emit({ _tag: "LateReply", supervisor: owner.path, child: id, operation: message.operation.name })
    }
  }

  /** The one who asked is answered when nothing of the incarnation is left. */
  private stopBy(message: Message): void {
    this.current = undefined
    this.status = "down"
    const cleanup = this.halt(ExitReason.normal)
    const answer = () => {
      if (message instanceof WaitingMessage) message.answer(Exit.void)
    }
    if (cleanup === undefined) answer()
    else cleanup.addObserver(answer)
    this.owner.exited(this, ExitReason.normal, cleanup)
  }

  // -- refusals

  private refuse(message: Message, reason: ExitReason.ExitReason | undefined): void {
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
