import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { isDefect } from "../Decision.ts"
import * as ExitReason from "../ExitReason.ts"
import type { CrashReport } from "../SupervisionEvent.ts"
import { Addressee, stopOperation } from "./addressee.ts"
import { Blueprint, type Child, type Owner, type Problem, type Settings, ignored } from "./child.ts"
import { type Definition, ownOperation, sameActor } from "./definition.ts"
import { sent, turn } from "./cast.ts"
import { Incarnation } from "./incarnation.ts"
import { Later, Started, fromOf } from "./later.ts"
import { CurrentHandler, Link } from "./link.ts"
import { type Message, OwnMessage, WaitingMessage } from "./mailbox.ts"
import { CurrentPlace, Place } from "./place.ts"
import type { AnyExit, Open } from "./process.ts"
import { makeRef } from "./refs.ts"
import { type Bond, relationsOf } from "./relations.ts"
import type { System } from "./system.ts"

type AnyEffect = Effect.Effect<unknown, unknown>
type AnyFiber = Fiber.Fiber<unknown, unknown>

export class ActorBlueprint extends Blueprint {
  get kind(): "actor" {
    return "actor"
  }

  readonly definition: Definition
  readonly arg: unknown

  constructor(id: string, settings: Settings, problem: Problem | undefined, definition: Definition, arg: unknown) {
    super(id, settings, problem)
    this.definition = definition
    this.arg = arg
  }

  override with(settings: Settings, id = this.id): Blueprint {
    return new ActorBlueprint(id, settings, this.problem, this.definition, this.arg)
  }

  override make(owner: Owner, context: Context.Context<never>): Child {
    return new ActorChild(owner, this, context)
  }
}

/** Whether a message is for one incarnation only. */
const isBound = (message: Message): boolean =>
  message instanceof OwnMessage || message.operation.generation !== undefined

/** The life of an actor, and the turns in which it works through its mailbox. */
export class ActorChild extends Addressee {
  get kind(): "actor" {
    return "actor"
  }

  definition: Definition
  private finished: AnyExit | undefined = undefined
  private arg: unknown
  /** The handler, or the init, that is suspended. */
  private fiber: AnyFiber | undefined = undefined
  private scope: Scope.Closeable | undefined = undefined
  private handlers: Context.Context<never> | undefined = undefined
  private place: Place | undefined = undefined

  constructor(owner: Owner, blueprint: ActorBlueprint, context: Context.Context<never>) {
    super(owner, blueprint, context)
    this.definition = blueprint.definition
    this.arg = blueprint.arg
  }

  get ref(): unknown {
    return makeRef(this)
  }

  get system(): System {
    return this.owner.system
  }

  fits(blueprint: Blueprint): boolean {
    return blueprint instanceof ActorBlueprint && sameActor(this.definition, blueprint.definition)
  }

  adopt(blueprint: ActorBlueprint): void {
    this.settings = blueprint.settings
    this.definition = blueprint.definition
    this.arg = blueprint.arg
  }

  begin(): AnyExit | AnyFiber {
    let out: unknown
    try {
      out = this.definition.init(this.arg)
    } catch (error) {
      return Exit.die(error)
    }
    if (!Effect.isEffect(out)) return Exit.succeed(out)
    if (Exit.isExit(out)) return out
    const { definition } = this
    // its services were captured with the spec
    const init = definition.traced ? Effect.withSpan(out as AnyEffect, `${definition.name}.init`) : (out as AnyEffect)
    const fiber = this.system.fork(this.inside(), init)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return exit
    this.fiber = fiber
    return fiber
  }

  /** The context in which this incarnation's effects run. */
  private inside(): Context.Context<never> {
    if (this.handlers === undefined) {
      this.scope = Scope.makeUnsafe()
      this.place ??= new Place(this)
      this.handlers = Context.add(Context.add(this.context, Scope.Scope, this.scope), CurrentPlace, this.place)
    }
    return this.handlers
  }

  complete(exit: AnyExit): ExitReason.ExitReason | typeof ignored | undefined {
    if (Exit.isFailure(exit)) return ExitReason.fromExit(exit, false)
    this.fiber = undefined
    if (exit.value === ignored) return ignored
    if (this.scope?.state._tag === "Empty" && this.handlers !== undefined) {
      // most inits leave nothing to clean up; the place stays, because a fiber that init left behind may have it
      this.scope = undefined
      this.handlers = undefined
    }
    let state: unknown = exit.value
    if (state instanceof Started) {
      this.rare.info = state.info
      state = state.state
    } else if (this.extras !== undefined) {
      this.extras.info = undefined
    }
    // what was decided about an end that a stop overtook
    if (this.extras !== undefined) this.extras.decision = undefined
    this.generation++
    const incarnation = (this.incarnation = new Incarnation(this, this.generation, state))
    this.status = "up"
    if (this.settings.restart === "temporary") this.arg = undefined
    const { started } = this.definition
    if (started !== undefined) incarnation.continue(started)
    return undefined
  }

  activate(): void {
    if (this.hasWork) this.ready()
  }

  private get hasWork(): boolean {
    const { extras, incarnation } = this
    if (incarnation === undefined) return false
    if (incarnation.stopping !== undefined || (incarnation.life?.continuations.length ?? 0) > 0) return true
    if (extras !== undefined) {
      if (extras.lane !== undefined && extras.lane.length > 0) return true
      if (extras.suspended) return false
    }
    return !this.isEmpty
  }

  stopNow(sender: AnyFiber, reason: ExitReason.ExitReason, generation: number | undefined): boolean {
    const { definition, incarnation, owner, scope } = this
    if (
      this.status !== "up" ||
      this.activity !== "idle" ||
      incarnation === undefined ||
      (generation !== undefined && generation !== incarnation.generation) ||
      scope !== undefined ||
      definition.terminate !== undefined ||
      this.extras !== undefined ||
      !this.isEmpty ||
      !owner.system.isIdle ||
      !ExitReason.isClean(reason) ||
      sender.getRef(CurrentHandler) !== undefined
    ) {
      return false
    }
    incarnation.stopping = reason
    owner.system.inside(this.endAsAsked, this)
    return true
  }

  private endAsAsked(): void {
    this.end(this.incarnation?.stopping ?? ExitReason.normal)
  }

  halt(reason: ExitReason.ExitReason): Open | undefined {
    const { current, definition, extras, fiber, incarnation, scope } = this
    const context = this.handlers ?? this.context
    // fence first: interrupting and answering run other people's code
    this.releaseNames()
    this.incarnation = undefined
    this.fiber = undefined
    this.finished = undefined
    this.scope = undefined
    this.handlers = undefined
    this.current = undefined
    if (this.place !== undefined) {
      this.place.live = false
      this.place = undefined
    }
    // busy means inside its own turn or suspended; queued must stay true as long as the run queue holds it
    if (this.activity === "busy") this.activity = "idle"
    const life = incarnation?.life
    life?.close()
    const lane = extras?.lane
    if (extras !== undefined) {
      extras.lane = undefined
      extras.suspended = false
    }
    const drops = definition.acrossRestart === "drop"
    const waiting = drops ? this.drain() : this.take(isBound)
    const kept = current !== undefined && !drops && this.keep(current, reason)
    fiber?.interruptUnsafe()
    const nothingLeft = fiber === undefined && scope === undefined && definition.terminate === undefined
    const cleanup = nothingLeft ? undefined : this.cleanUp(context, incarnation, fiber, scope, reason)
    if (current?.operation.reply === true && !kept) this.refuse(current, reason)
    if (life !== undefined) for (const message of life.deferred) this.refuse(message, reason)
    if (lane !== undefined) for (const message of lane) this.refuse(message, reason)
    for (const message of waiting) this.refuse(message, reason)
    return cleanup
  }

  /** Whether the message during which the incarnation ends stays in the mailbox for the next one. */
  private keep(message: Message, reason: ExitReason.ExitReason): boolean {
    const { acrossRestart, quarantineAfter } = this.definition
    if (acrossRestart !== "keep" || isBound(message) || message.operation.run === stopOperation.run) return false
    const { rare } = this
    const before = rare.suspect?.message === message ? rare.suspect.times : 0
    const times = reason._tag === "Crash" ? before + 1 : before
    if (times >= quarantineAfter) {
      rare.suspect = undefined
      this.dropped(message.operation, message.payload, "quarantined")
      return false
    }
    rare.suspect = { message, times }
    this.unshift(message)
    return true
  }

  /** What is still to be done for an incarnation: end its handler, then `terminate`, then the finalizers of its scope. */
  private cleanUp(
    context: Context.Context<never>,
    incarnation: Incarnation | undefined,
    fiber: AnyFiber | undefined,
    scope: Scope.Closeable | undefined,
    reason: ExitReason.ExitReason
  ): Open | undefined {
    const { terminate } = this.definition
    const last = incarnation === undefined || terminate === undefined ? undefined : () => terminate(incarnation, reason)
    const ended = fiber?.pollUnsafe()
    if (fiber === undefined || ended !== undefined) {
      let farewell: unknown
      try {
        farewell = last?.()
      } catch (error) {
        farewell = Exit.die(error)
      }
      if (!Effect.isEffect(farewell)) {
        const close = scope === undefined ? undefined : Scope.closeUnsafe(scope, Exit.void)
        return close === undefined ? fiber : this.system.fork(this.context, close)
      }
      const close = scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
      return this.system.fork(context, Effect.ensuring(farewell as AnyEffect, close)) // it takes what handlers take
    }
    // finalizers of init come after the handler's own, as they would in one fiber
    const farewell = Effect.suspend(() => {
      const out = last?.()
      return Effect.isEffect(out) ? (out as AnyEffect) : Effect.void
    })
    const close = scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
    const whole = Effect.flatMap(Fiber.await(fiber), (exit) =>
      Effect.andThen(
        Effect.ensuring(farewell, close),
        Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? exit : Exit.void
      )
    )
    return this.system.fork(context, whole)
  }

  stopped(exit: AnyExit): ExitReason.ExitReason {
    return Exit.isSuccess(exit) ? ExitReason.shutdown : ExitReason.fromExit(exit, true)
  }

  release(): void {
    const { extras } = this
    for (const message of this.drain()) {
      // of a message that was begun nobody knows whether it had an effect
      this.refuse(message, extras?.suspect?.message === message ? this.lastExit : undefined)
    }
  }

  kill(reason: ExitReason.ExitReason): void {
    if (this.status === "up") this.end(reason)
    else if (this.status === "starting") (this.fiber ?? this.extras?.layers?.building)?.interruptUnsafe()
  }

  linkedExit(from: { readonly path: string }, reason: ExitReason.ExitReason, bond?: Bond): void {
    const { exit } = this.definition
    const { incarnation } = this
    if (incarnation === undefined) return
    if (exit !== undefined) {
      const signal = { from: from.path, exit: reason }
      if (bond !== undefined) relationsOf(this).bonds.add(bond) // it can still be cut
      const operation = ownOperation("exit", (self) => {
        if (bond !== undefined) relationsOf(this).bonds.delete(bond)
        return exit(self, signal)
      })
      this.deliver(new OwnMessage(operation, incarnation, bond ?? { live: true }))
    } else if (reason._tag !== "Normal") {
      this.end(reason)
    }
  }

  /** The only way in which an incarnation ends by itself. */
  private end(reason: ExitReason.ExitReason): void {
    this.status = "down"
    const { describe } = this.definition
    const report = reason._tag === "Crash" ? this.report() : describe === undefined ? undefined : this.reportLater()
    const cleanup = this.halt(reason)
    this.owner.exited(this, reason, cleanup, report)
  }

  /** For a clean end whose clean-up may break: by then the incarnation is gone. */
  private reportLater(): () => CrashReport {
    const { incarnation } = this
    return () => this.report(undefined, incarnation)
  }

  private report(current = this.current, incarnation = this.incarnation): CrashReport {
    const { definition, owner, id } = this
    const { describe } = definition
    const client = current?.link?.actor.path ?? (current?.waiting === true ? "fiber" : undefined)
    return {
      ...(current === undefined ? {} : { operation: current.operation.name }),
      ...(client === undefined ? {} : { client }),
      ...(describe === undefined || incarnation === undefined
        ? {}
        : {
            state: this.system.attempt(
              owner.path,
              id,
              "describe",
              () => describe(incarnation.state),
              "(describe failed)"
            )
          })
    }
  }

  turn(quantum: number): number {
    const handled = this.work(quantum)
    this.system.counters.messages += handled
    return handled
  }

  private work(quantum: number): number {
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
      if (incarnation.stopping !== undefined) {
        this.end(incarnation.stopping)
        return handled
      }
      const message = this.next(incarnation)
      if (message === undefined) {
        this.activity = "idle"
        return handled
      }
      handled++
      if (!this.handle(incarnation, message)) return handled
    }
    if (this.incarnation !== incarnation) return handled
    if (this.hasWork) {
      this.activity = "queued"
      this.system.ready(this)
    } else {
      this.activity = "idle"
    }
    return handled
  }

  /** Continuations come first, then requests beside the mailbox, then messages. */
  private next(incarnation: Incarnation): Message | undefined {
    const { extras } = this
    const { life } = incarnation
    if (life !== undefined && life.continuations.length > 0) return life.continuations.shift()
    if (extras !== undefined) {
      const request = extras.lane?.shift()
      if (request !== undefined) return request
      if (extras.suspended) return undefined
    }
    return this.shift()
  }

  /** False when the turn is over: the handler is suspended, or the incarnation has ended. */
  private handle(incarnation: Incarnation, message: Message): boolean {
    const { operation } = message
    if (operation.special) {
      const outcome = this.admits(incarnation, message)
      if (outcome !== undefined) return outcome
    }
    incarnation.life?.touched(message)
    turn.span = message.span
    let out: unknown
    try {
      out = operation.run(incarnation, message.payload)
    } catch (error) {
      if (this.incarnation !== incarnation) return this.overtaken(message)
      this.current = message
      return this.settle(incarnation, message, Exit.die(error))
    }
    if (this.incarnation !== incarnation) return this.overtaken(message)
    // most handlers only change the state, or pass something on
    if (out === undefined && !operation.reply) return true
    if (sent(out)) {
      if (operation.reply) this.reply(message, Exit.void)
      return true
    }
    if (!Effect.isEffect(out)) return !operation.reply || this.answer(incarnation, message, out)
    this.current = message
    const exit = Exit.isExit(out) ? out : this.run(incarnation, message, out as AnyEffect) // services: as for init
    return exit !== undefined && this.settle(incarnation, message, exit)
  }

  /** The incarnation ended while its handler was on the stack: the handler ran something that ended it. */
  private overtaken(message: Message): false {
    const ended = this.status === "stopped" || this.status === "stopping"
    const reason = ended ? ExitReason.shutdown : (this.lastExit ?? ExitReason.shutdown)
    const kept = !ended && this.definition.acrossRestart !== "drop" && this.keep(message, reason)
    if (kept) this.ready()
    else if (message.operation.reply) this.refuse(message, reason)
    return false
  }

  /** Looks at a message that is not for just any incarnation; undefined when it is to be handled like the others. */
  private admits(incarnation: Incarnation, message: Message): boolean | undefined {
    const { generation, run } = message.operation
    if (message instanceof OwnMessage) {
      return message.incarnation === incarnation && message.token.live ? undefined : true
    }
    if (generation !== undefined && generation !== incarnation.generation) {
      this.refuse(message, undefined)
      return true
    }
    if (run !== stopOperation.run) return undefined
    this.stopBy(message)
    return false
  }

  /** Runs a handler's effect; undefined while it is suspended, which is the only time when an actor has a fiber. */
  private run(incarnation: Incarnation, message: Message, effect: AnyEffect): AnyExit | undefined {
    let context = Context.add(this.inside(), CurrentHandler, new Link(this, message, message.link))
    if (message.span !== undefined) context = Context.add(context, Tracer.ParentSpan, message.span)
    const { definition } = this
    const traced = definition.traced ? Effect.withSpan(effect, `${definition.name}.${message.operation.name}`) : effect
    const fiber = this.system.fork(context, traced)
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
      this.system.ready(this)
    })
    return undefined
  }

  /** Answers. False when the outcome ended the incarnation. */
  private settle(incarnation: Incarnation, message: Message, exit: AnyExit): boolean {
    if (this.incarnation !== incarnation) return false
    if (Exit.isFailure(exit) && !(message.operation.reply && exit.cause.reasons.every(Cause.isFailReason))) {
      const reason = ExitReason.fromExit(exit, false)
      if (this.resumes(message, reason)) {
        this.current = undefined
        return true
      }
      if (this.incarnation === incarnation) this.end(reason)
      return false
    }
    this.current = undefined
    if (message.operation.reply) {
      if (Exit.isFailure(exit)) this.reply(message, exit)
      else if (!this.answer(incarnation, message, exit.value)) return false
    }
    return this.incarnation === incarnation
  }

  /** Whether the program decided that a crash costs the message and not the state. */
  private resumes(message: Message, reason: ExitReason.ExitReason): boolean {
    const { decide } = this.settings
    if (reason._tag !== "Crash" || decide === undefined) return false
    const { owner, id, generation } = this
    const decision = this.system.attempt(owner.path, id, "decide", () => decide(reason), "restart")
    if (decision === "resume" && !isDefect(reason)) {
      const operation = message.operation.name
      const about = { supervisor: owner.path, child: id, time: this.system.time }
      this.system.emit({ _tag: "ChildResumed", ...about, generation, operation, exit: reason })
      return true
    }
    this.rare.decision = decision
    return false
  }

  /** Answers now, or keeps the caller for later. False when that ended the incarnation. */
  private answer(incarnation: Incarnation, message: Message, value: unknown): boolean {
    if (!(value instanceof Later)) {
      this.reply(message, Exit.succeed(value))
      return true
    }
    if (!(message instanceof WaitingMessage)) return true
    const { deferred } = incarnation.begun
    deferred.add(message)
    const from = fromOf((exit) => {
      deferred.delete(message)
      return this.reply(message, exit)
    })
    try {
      value.register(from as never) // the handler's own types say what it may answer
      return true
    } catch (error) {
      deferred.delete(message)
      this.current = message
      return this.settle(incarnation, message, Exit.die(error))
    }
  }

  private reply(message: Message, exit: AnyExit): boolean {
    if (!(message instanceof WaitingMessage)) return false
    if (message.answer(exit)) return true
    const { owner, id } = this
    const about = { supervisor: owner.path, child: id, time: this.system.time }
    this.system.emit({ _tag: "LateReply", ...about, operation: message.operation.name })
    return false
  }

  /** The one who asked is answered when nothing of the incarnation is left. */
  private stopBy(message: Message): void {
    this.status = "down"
    const reason = message.payload as ExitReason.ExitReason // what stop sends
    const report = this.definition.describe === undefined ? undefined : this.reportLater()
    const cleanup = this.halt(reason)
    this.owner.exited(this, reason, cleanup, report)
    // on a turn of its own: its supervisor knows of the end before the one who asked does
    const answer = () => {
      this.system.post(() => message instanceof WaitingMessage && message.answer(Exit.void))
    }
    const rest = this.ending?.open ?? cleanup // with its layers
    if (rest === undefined) answer()
    else rest.addObserver(answer)
  }
}
