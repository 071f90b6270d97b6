import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as ExitReason from "../ExitReason.ts"
import { Addressee, stopOperation } from "./addressee.ts"
import { Blueprint, type Child, Initialising, type Owner, type Settings } from "./child.ts"
import type { Definition } from "./definition.ts"
import { Incarnation } from "./incarnation.ts"
import { CurrentHandler, Link } from "./link.ts"
import { type Message, WaitingMessage } from "./mailbox.ts"
import { makeRef } from "./refs.ts"

type AnyEffect = Effect.Effect<unknown, unknown>
type AnyFiber = Fiber.Fiber<unknown, unknown>

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

/** The life of an actor, and the turns in which it works through its mailbox. */
export class ActorChild extends Addressee {
  readonly kind = "actor"
  declare readonly blueprint: ActorBlueprint
  /** The handler, or the init, that is suspended. */
  private fiber: AnyFiber | undefined = undefined
  private finished: Exit.Exit<unknown, unknown> | undefined = undefined
  private scope: Scope.Closeable | undefined = undefined
  private handlers: Context.Context<never> | undefined = undefined

  constructor(owner: Owner, blueprint: ActorBlueprint, context: Context.Context<never>) {
    super(owner, blueprint, context, blueprint.definition.capacity)
  }

  get definition(): Definition {
    return this.blueprint.definition
  }

  get ref(): unknown {
    return makeRef(this)
  }

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
}
