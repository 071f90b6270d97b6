import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as ExitReason from "../ExitReason.ts"
import { Blueprint, Child, type Owner, type Problem, type Settings } from "./child.ts"
import { CurrentPlace, Place } from "./place.ts"
import { type AnyExit, type Open, Outcome } from "./process.ts"
import { TargetId } from "./target.ts"

export interface EffectOptions {
  /** It is up when it says so, not at its first step. */
  readonly signalsReady: boolean
  readonly callers: ReadonlyArray<string>
}

export class EffectBlueprint extends Blueprint {
  get kind(): "effect" {
    return "effect"
  }

  readonly effect: Effect.Effect<unknown, unknown>
  readonly options: EffectOptions

  constructor(
    id: string,
    settings: Settings,
    problem: Problem | undefined,
    effect: Effect.Effect<unknown, unknown>,
    options: EffectOptions
  ) {
    super(id, settings, problem)
    this.effect = effect
    this.options = options
  }

  override with(settings: Settings, id = this.id): Blueprint {
    return new EffectBlueprint(id, settings, this.problem, this.effect, this.options)
  }

  override make(owner: Owner, context: Context.Context<never>): Child {
    return new EffectChild(owner, this, context)
  }
}

/** A child that is one fiber. */
export class EffectChild extends Child {
  get kind(): "effect" {
    return "effect"
  }

  private effect: Effect.Effect<unknown, unknown> | undefined
  private options: EffectOptions
  private fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private latest: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private place: Place | undefined = undefined
  private outcome: AnyExit | undefined = undefined
  /** Why it was killed, which its interruption alone does not tell. */
  private killed: ExitReason.ExitReason | undefined = undefined
  private ready: Outcome | undefined = undefined
  private waiting: Set<(exit: Effect.Effect<AnyExit>) => void> | undefined = undefined

  constructor(owner: Owner, blueprint: EffectBlueprint, context: Context.Context<never>) {
    super(owner, blueprint, context)
    this.effect = blueprint.effect
    this.options = blueprint.options
  }

  get ref(): unknown {
    const exit = Effect.callback<AnyExit>((resume) => {
      if (this.outcome !== undefined) return resume(Effect.succeed(this.outcome))
      const waiting = (this.waiting ??= new Set())
      waiting.add(resume)
      return Effect.sync(() => waiting.delete(resume))
    })
    return {
      [TargetId]: this,
      id: this.id,
      path: this.path,
      exit,
      kill: Effect.sync(() => this.kill(ExitReason.killed))
    }
  }

  fits(blueprint: Blueprint): boolean {
    return blueprint instanceof EffectBlueprint
  }

  adopt(blueprint: EffectBlueprint): void {
    this.settings = blueprint.settings
    this.effect = blueprint.effect
    this.options = blueprint.options
  }

  begin(): AnyExit | Open {
    const { callers, signalsReady } = this.options
    this.outcome = undefined
    this.killed = undefined
    const place = (this.place = new Place(this, callers))
    if (signalsReady) this.ready = new Outcome()
    const effect = this.effect ?? Effect.interrupt
    const fiber = (this.fiber = this.owner.system.fork(Context.add(this.context, CurrentPlace, place), effect))
    this.latest = fiber
    // kept for the next incarnation only if there may be one
    if (this.settings.restart === "temporary") this.effect = undefined
    if (this.ready === undefined || this.ready.pollUnsafe() !== undefined) return Exit.void
    const { ready } = this
    fiber.addObserver((exit) => ready.settle(Exit.isFailure(exit) ? exit : Exit.void))
    return ready
  }

  /** Told by the effect itself. */
  isReady(place: Place): void {
    if (place === this.place || this.place === undefined) this.ready?.settle(Exit.void)
  }

  complete(exit: AnyExit): ExitReason.ExitReason | undefined {
    this.ready = undefined
    if (Exit.isFailure(exit)) return ExitReason.fromExit(exit, false)
    this.generation++
    this.status = "up"
    return undefined
  }

  activate(): void {
    const { fiber } = this
    fiber?.addObserver((exit) => {
      if (this.fiber !== fiber) return
      this.fence()
      this.status = "down"
      const reason = ExitReason.fromExit(exit, false)
      this.owner.exited(this, reason._tag === "Killed" ? (this.killed ?? reason) : reason, undefined)
    })
  }

  private fence(): void {
    this.fiber = undefined
    if (this.place !== undefined) this.place.live = false
    this.place = undefined
  }

  halt(): Fiber.Fiber<unknown, unknown> | undefined {
    const { fiber } = this
    this.fence()
    fiber?.interruptUnsafe()
    return fiber
  }

  stopped(exit: AnyExit): ExitReason.ExitReason {
    return ExitReason.fromExit(exit, true)
  }

  release(): void {
    const outcome = this.latest?.pollUnsafe() ?? Exit.failCause(Cause.interrupt())
    this.latest = undefined
    this.outcome ??= outcome
    const { waiting } = this
    this.waiting = undefined
    if (waiting !== undefined) for (const resume of waiting) resume(Effect.succeed(outcome))
  }

  kill(reason: ExitReason.ExitReason): void {
    if (this.fiber === undefined) return this.extras?.layers?.building.interruptUnsafe()
    this.killed = reason
    this.fiber.interruptUnsafe()
  }

  linkedExit(_from: { readonly path: string }, reason: ExitReason.ExitReason): void {
    if (reason._tag !== "Normal") this.kill(reason)
  }
}
