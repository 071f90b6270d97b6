import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { ExitReason } from "../ExitReason.ts"
import type { System } from "./system.ts"

export type Restart = "permanent" | "transient" | "temporary"

/** What a child needs from its supervisor. */
export interface Owner {
  readonly path: string
  readonly system: System
  /** An incarnation ended by itself. `cleanup` still runs its finalizers. */
  readonly exited: (child: Child, reason: ExitReason, cleanup: Fiber.Fiber<unknown, unknown> | undefined) => void
}

/** The settings of a child spec, with every default filled in. */
export interface Settings {
  readonly restart: Restart
  readonly shutdown: Duration.Duration | "brutal"
  readonly startLimit: Duration.Duration | undefined
}

/** The untyped content of a child spec: one per child, so the settings are shared where they can be. */
export abstract class Blueprint {
  readonly id: string
  readonly settings: Settings

  constructor(id: string, settings: Settings) {
    this.id = id
    this.settings = settings
  }

  abstract make(owner: Owner, context: Context.Context<never>): Child
}

/**
 * `starting`, `up`, `restarting` (a restart failed, the next attempt is queued) and `down` (ended by itself, the supervisor
 * has not decided yet) accept messages; `stopping` and `stopped` do not.
 */
export type Status = "starting" | "up" | "down" | "restarting" | "stopping" | "stopped"

/**
 * One entry of a supervisor, over all its incarnations. The supervisor drives it: `begin`, then `complete` with the outcome
 * of the start, then `activate`; `halt` at any time; `release` once it is known that nothing will start it again.
 */
export abstract class Child {
  readonly owner: Owner
  readonly blueprint: Blueprint
  readonly context: Context.Context<never>
  status: Status = "starting"
  generation = 0
  /** What still runs of an incarnation that ended by itself. */
  cleanup: Fiber.Fiber<unknown, unknown> | undefined = undefined

  constructor(owner: Owner, blueprint: Blueprint, context: Context.Context<never>) {
    this.owner = owner
    this.blueprint = blueprint
    this.context = context
  }

  get id(): string {
    return this.blueprint.id
  }

  get settings(): Settings {
    return this.blueprint.settings
  }

  get path(): string {
    return `${this.owner.path}/${this.blueprint.id}`
  }

  abstract readonly kind: "actor" | "effect" | "supervisor"
  abstract readonly ref: unknown

  /** Starts an incarnation; a fiber when the outcome is still open. */
  abstract begin(): Exit.Exit<unknown, unknown> | Fiber.Fiber<unknown, unknown>
  /** Takes the outcome: nothing when it is up, else why it is not. */
  abstract complete(exit: Exit.Exit<unknown, unknown>): ExitReason | undefined
  abstract activate(): void
  /** Fences the incarnation at once; the fiber is what remains to be waited for. */
  abstract halt(reason: ExitReason): Fiber.Fiber<unknown, unknown> | undefined
  abstract release(): void
}

/** The child on whose init a fiber works. While it starts, its supervisor waits for it and can do nothing else. */
export const Initialising = Context.Reference<Child | undefined>("@tinkex/supervision/Initialising", {
  defaultValue: () => undefined
})
