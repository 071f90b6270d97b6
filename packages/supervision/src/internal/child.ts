import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Backoff } from "../Backoff.ts"
import type { Decide, Decision } from "../Decision.ts"
import * as ExitReason from "../ExitReason.ts"
import type * as RestartIntensity from "../RestartIntensity.ts"
import type { CrashReport } from "../SupervisionEvent.ts"
import type { SupervisorError } from "../SupervisorError.ts"
import type { WaitingMessage } from "./mailbox.ts"
import type { Registration } from "./names.ts"
import type { AnyExit, Open, Steps } from "./process.ts"
import type { System } from "./system.ts"
import type { Bond, Relations } from "./relations.ts"

export type Restart = "permanent" | "transient" | "temporary"
export type Stuck = "abandon" | "wait" | "fail"

/** What a child needs from its supervisor. */
export interface Owner {
  readonly path: string
  readonly system: System
  /** An incarnation ended by itself. `cleanup` still runs its finalizers. */
  readonly exited: (child: Child, reason: ExitReason.ExitReason, cleanup: Open | undefined, report?: Report) => void
}

/** The report of a crash, or how to make one if the clean-up turns a clean end into a crash. */
export type Report = CrashReport | (() => CrashReport)

export interface Budget {
  readonly limits: RestartIntensity.Limits
  readonly exceeded: "stop" | "escalate"
}

/** The settings of a child spec, with every default filled in. */
export interface Settings {
  readonly restart: Restart
  readonly shutdown: Duration.Duration | "brutal"
  readonly startLimit: Duration.Duration
  readonly significant: boolean
  readonly stuck: Stuck
  readonly backoff: Backoff | "none" | undefined
  readonly budget: Budget | undefined
  readonly decide: Decide | undefined
  readonly names: ReadonlyArray<Registration>
  readonly layer: Layer.Layer<unknown, unknown> | undefined
}

/** A field of a spec or of options that makes no sense, and why. */
export interface Problem {
  readonly field: string
  readonly problem: string
}

/** The untyped content of a child spec. */
export abstract class Blueprint {
  readonly id: string
  readonly settings: Settings
  readonly problem: Problem | undefined

  constructor(id: string, settings: Settings, problem: Problem | undefined) {
    this.id = id
    this.settings = settings
    this.problem = problem
  }

  abstract readonly kind: Child["kind"]
  abstract with(settings: Settings, id?: string): Blueprint
  abstract make(owner: Owner, context: Context.Context<never>): Child

  /** Why it would never start, where that is known by now. */
  get flaw(): SupervisorError | undefined {
    return undefined
  }
}

/**
 * `starting`, `up`, `restarting` (waits for the next attempt) and `down` (ended by itself, the supervisor has not decided
 * yet) accept messages; `stopping` and `stopped` do not.
 */
export type Status = "starting" | "up" | "down" | "restarting" | "stopping" | "stopped"

/** What few children have, so that the others do not pay for it. */
export class Extras {
  attempts = 0
  /** The schedule of the backoff, as far as it has been stepped. */
  next: ((reason: ExitReason.ExitReason) => Steps<Duration.Duration | undefined>) | undefined = undefined
  /** Requests that are served before any message. */
  lane: Array<WaitingMessage> | undefined = undefined
  suspended = false
  /** The message that an actor was to keep when it ended, and how often in a row it crashed over it. */
  suspect: { readonly message: object; times: number } | undefined = undefined
  retry: { readonly cancel: () => void } | undefined = undefined
  budget: RestartIntensity.RestartIntensity | undefined = undefined
  restarts = 0
  zombies = 0
  /** What the program decided about the latest crash, where that was asked before the end. */
  decision: Decision | undefined = undefined
  info: unknown = undefined
  /** The context of a spec that was taken while an older one ran. */
  adopted: Context.Context<never> | undefined = undefined
  relations: Relations | undefined = undefined
  leases: Array<() => void> | undefined = undefined
  /** The scope of the layers that were built for this incarnation, the context without them, and who builds them. */
  layers:
    | {
        readonly scope: Scope.Closeable
        readonly base: Context.Context<never>
        readonly building: Fiber.Fiber<unknown, unknown>
      }
    | undefined = undefined
}

/**
 * One entry of a supervisor, over all its incarnations. The supervisor drives it: `begin`, then `complete` with the outcome
 * of the start, then `activate`; `halt` at any time; `release` once it is known that nothing will start it again.
 */
export abstract class Child {
  readonly id: string
  settings: Settings
  context: Context.Context<never>
  generation = 0
  /** When the present incarnation came up, in whole milliseconds of the system's clock. */
  since = 0
  ending: Ending | undefined = undefined
  lastExit: ExitReason.ExitReason | undefined = undefined
  /** Its neighbours among the children of a dynamic supervisor. */
  older: Child | undefined = undefined
  younger: Child | undefined = undefined
  // what every message looks at comes last, beside the mailbox, because fields lie in memory as they are declared
  readonly owner: Owner
  status: Status = "starting"
  extras: Extras | undefined = undefined

  constructor(owner: Owner, blueprint: Blueprint, context: Context.Context<never>) {
    this.owner = owner
    this.id = blueprint.id
    this.settings = blueprint.settings
    this.context = context
  }

  get path(): string {
    return `${this.owner.path}/${this.id}`
  }

  get rare(): Extras {
    return (this.extras ??= new Extras())
  }

  abstract readonly kind: "actor" | "effect" | "supervisor"
  abstract readonly ref: unknown

  /** Whether this may be another spec of the same child: the handles that there are stay good for it. */
  abstract fits(blueprint: Blueprint): boolean
  /** Takes another spec that fits; what runs goes on. */
  abstract adopt(blueprint: Blueprint): void
  /** Starts an incarnation; open when the outcome is. */
  abstract begin(): AnyExit | Open
  /** Takes the outcome: nothing when it is up, `ignored`, or why it is not. */
  abstract complete(exit: AnyExit): ExitReason.ExitReason | typeof ignored | undefined
  abstract activate(): void
  /** Fences the incarnation at once; what remains is to be waited for. */
  abstract halt(reason: ExitReason.ExitReason): Open | undefined
  /** The reason of an incarnation that was asked to stop and ended with `exit`. */
  abstract stopped(exit: AnyExit): ExitReason.ExitReason
  abstract release(): void
  /** Ends the incarnation from outside, as its own end. */
  abstract kill(reason: ExitReason.ExitReason): void
  /** Something that it is linked to has ended. */
  abstract linkedExit(from: { readonly path: string }, reason: ExitReason.ExitReason, bond?: Bond): void

  /** Tells that the child is doing well: its next crash counts as the first. */
  progress(): void {
    const { extras } = this
    if (extras === undefined) return
    extras.attempts = 0
    extras.next = undefined
    extras.budget = undefined
  }

  releaseNames(): void {
    const { extras } = this
    const leases = extras?.leases
    if (extras === undefined || leases === undefined) return
    extras.leases = undefined
    for (const release of leases) release()
  }

  /** The same for an incarnation that did not come up: whoever met it while it was starting. */
  neverCame(reason: ExitReason.ExitReason): void {
    this.extras?.relations?.ended(this, reason, this.generation + 1)
  }

  /** Tells those who watch this incarnation that it has ended, and passes its end on along its links. */
  departed(reason: ExitReason.ExitReason): void {
    this.lastExit = reason
    this.extras?.relations?.ended(this, reason)
  }
}

/** The outcome of an init that had nothing to run. */
export const ignored = Symbol.for("@tinkex/supervision/ignored")

/** The end of an incarnation whose finalizers still run. */
export interface Ending {
  readonly reason: ExitReason.ExitReason
  readonly open: Open
  readonly report: Report | undefined
}
