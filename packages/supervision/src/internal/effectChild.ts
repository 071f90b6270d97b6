import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as ExitReason from "../ExitReason.ts"
import { Blueprint, Child, type Owner, type Settings } from "./child.ts"

type AnyExit = Exit.Exit<unknown, unknown>

export class EffectBlueprint extends Blueprint {
  readonly effect: Effect.Effect<unknown, unknown>

  constructor(id: string, settings: Settings, effect: Effect.Effect<unknown, unknown>) {
    super(id, settings)
    this.effect = effect
  }

  override make(owner: Owner, context: Context.Context<never>): Child {
    return new EffectChild(owner, this, context)
  }
}

/** A child that is one fiber. It is up from its first step on. */
export class EffectChild extends Child {
  readonly kind = "effect"
  declare readonly blueprint: EffectBlueprint
  private fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private latest: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private outcome: AnyExit | undefined = undefined
  private watchers: Set<(exit: Effect.Effect<AnyExit>) => void> | undefined = undefined

  get ref(): unknown {
    const exit = Effect.callback<AnyExit>((resume) => {
      if (this.outcome !== undefined) return resume(Effect.succeed(this.outcome))
      const watchers = (this.watchers ??= new Set())
      watchers.add(resume)
      return Effect.sync(() => watchers.delete(resume))
    })
    return { id: this.id, exit }
  }

  begin(): AnyExit {
    this.outcome = undefined
    this.fiber = this.owner.system.fork(this.context, this.blueprint.effect)
    this.latest = this.fiber
    return Exit.void
  }

  complete(): undefined {
    this.generation++
    this.status = "up"
  }

  activate(): void {
    const { fiber } = this
    fiber?.addObserver((exit) => {
      if (this.fiber !== fiber) return
      this.fiber = undefined
      this.status = "down"
      this.owner.exited(this, ExitReason.fromExit(exit, false), undefined)
    })
  }

  halt(): Fiber.Fiber<unknown, unknown> | undefined {
    const { fiber } = this
    this.fiber = undefined
    fiber?.interruptUnsafe()
    return fiber
  }

  release(): void {
    const outcome = this.latest?.pollUnsafe() ?? Exit.failCause(Cause.interrupt())
    this.latest = undefined
    this.outcome ??= outcome
    const { watchers } = this
    this.watchers = undefined
    if (watchers !== undefined) for (const resume of watchers) resume(Effect.succeed(outcome))
  }
}
