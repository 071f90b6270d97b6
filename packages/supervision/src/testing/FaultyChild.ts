/**
 * Children that fail on purpose, and write down what happened to them.
 *
 * A faulty child is an actor with a small protocol of its own (`call.work`, `cast.tell`, `cast.crash`) and faults that its
 * maker chose. It stands in a test for the child that the program will have, where only its life matters.
 *
 * **Guarantees.** A fault occurs exactly where it was asked for, in as many incarnations as it was asked for (F1). Its crash is
 * a `Fault` that names the child, the incarnation and the fault, so that it cannot be taken for an accident (F2). The history
 * has every attempt to start and its outcome, every message, every crash and every end, in their order (F3).
 *
 * **Not guaranteed.** A child that refuses to stop does so until `release`; what is never released is a fiber for ever.
 *
 * **Example** (A worker that needs three attempts to come back)
 *
 * ```ts
 * import { Supervisor } from "@tinkex/supervision"
 * import { EventLog, FaultyChild } from "@tinkex/supervision/testing"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const worker = FaultyChild.make("worker", { failInits: 2, soundInits: 1 })
 *   const tree = yield* Supervisor.start({ intensity: { restarts: 5 }, children: [worker.spec] })
 *   const log = yield* EventLog.make(tree)
 *   yield* tree.refs.worker.cast.crash()
 *   yield* log.awaitEvent("ChildRestarted", "worker")
 *   return worker.lines.join(", ")
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // => 1 up, 1 crashed, 1 finalized, 2 failed, 3 failed, 4 up
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import * as Actor from "../Actor.ts"
import type { ActorRef } from "../ActorRef.ts"
import * as ChildSpec from "../ChildSpec.ts"

/**
 * What can be wrong with a child. Several faults may be chosen. Where attempts to start are counted, they are counted from 1
 * over the whole life of the child, those that failed included.
 *
 * @category options
 * @since 0.1.0
 */
export interface Faults {
  /** Crashes while it handles its n-th message, counted anew by each incarnation. Default: never. */
  readonly crashAfterMessages?: number | undefined
  /** Crashes this long after it came up. Default: never. */
  readonly crashAfter?: Duration.Input | undefined
  /** Inits that fail, after the sound ones. Default 0. */
  readonly failInits?: number | undefined
  /** Inits that never end until they are interrupted, after the sound ones and those that fail. Default 0. */
  readonly hangInits?: number | undefined
  /** Inits that succeed before any fails or hangs. Default 0. */
  readonly soundInits?: number | undefined
  /** Whether a stop waits, and cannot be interrupted, until `release`. Default false. */
  readonly refuseToStop?: boolean | undefined
  /** Whether its finalizer dies. Default false. */
  readonly dieInFinalizer?: boolean | undefined
  /** Incarnations with these faults, those of its inits apart; the later ones are sound. Default: all. */
  readonly incarnations?: number | undefined
}

/**
 * Why a faulty child crashed, or did not start.
 *
 * @category errors
 * @since 0.1.0
 */
export class Fault extends Schema.TaggedError<Fault>()("Fault", {
  child: Schema.String,
  attempt: Schema.Number,
  fault: Schema.Literals(["message", "time", "init", "finalizer", "asked"])
}) {
  override get message() {
    return `"${this.child}" failed on purpose in its attempt ${this.attempt}: ${wording[this.fault]}.`
  }
  get isRetryable() {
    return true
  }
}

const wording = {
  message: "it has handled its share of messages",
  time: "its time is up",
  init: "its init fails",
  finalizer: "its finalizer dies",
  asked: "it was asked to crash"
} as const

/**
 * What happened to a child.
 *
 * | what | when |
 * | --- | --- |
 * | `up` | its init was done |
 * | `failed` | its init failed |
 * | `hangs` | its init waits for nothing |
 * | `handled` | a message was handled; `text` is what was in it |
 * | `crashed` | it is about to crash |
 * | `stopping` | it was asked to end, and refuses |
 * | `released` | it no longer does |
 * | `interrupted` | its init was interrupted |
 * | `finalized` | its finalizer has run, or dies now |
 *
 * @category models
 * @since 0.1.0
 */
export interface Happening {
  readonly what:
    | "up"
    | "failed"
    | "hangs"
    | "handled"
    | "crashed"
    | "stopping"
    | "released"
    | "interrupted"
    | "finalized"
  /** The attempt to start, from 1, that this belongs to. */
  readonly attempt: number
  /** Milliseconds of the program's clock. */
  readonly time: number
  readonly text?: string
}

/**
 * A child spec and what happened to the child.
 *
 * @category models
 * @since 0.1.0
 */
export interface FaultyChild<out Id extends string> {
  readonly spec: ChildSpec.ChildSpec<Id, ActorRef<typeof Faulty>, never>
  /** The oldest first. */
  readonly history: ReadonlyArray<Happening>
  /** The same, each in a few words: `2 crashed`, `1 handled a`. */
  readonly lines: ReadonlyArray<string>
  /** Lets incarnations end that refuse to, now and later. */
  readonly release: Effect.Effect<void>
}

interface Plan {
  readonly id: string
  readonly faults: Faults
  readonly gate: Latch.Latch
  readonly history: Array<Happening>
  attempts: number
}

/** One incarnation. */
interface Life {
  readonly plan: Plan
  readonly attempt: number
  readonly clock: Clock.Clock
  readonly isFaulty: boolean
  messages: number
}

const write = ({ attempt, clock, plan }: Life, what: Happening["what"], text?: string): void => {
  const happening = { what, attempt, time: clock.currentTimeMillisUnsafe() }
  plan.history.push(text === undefined ? happening : { ...happening, text })
}

const crash = (life: Life, fault: Fault["fault"]): never => {
  write(life, "crashed")
  throw new Fault({ child: life.plan.id, attempt: life.attempt, fault })
}

const handle = (life: Life, text: string): number => {
  write(life, "handled", text)
  const count = ++life.messages
  if (life.isFaulty && count === life.plan.faults.crashAfterMessages) crash(life, "message")
  return count
}

const finalize = (life: Life): Effect.Effect<void> => {
  const { attempt, isFaulty, plan } = life
  const { dieInFinalizer = false, refuseToStop = false } = plan.faults
  const refuse = Effect.gen(function* () {
    write(life, "stopping")
    yield* Effect.uninterruptible(plan.gate.await)
    write(life, "released")
  })
  const finish = Effect.suspend(() => {
    write(life, "finalized")
    return isFaulty && dieInFinalizer
      ? Effect.die(new Fault({ child: plan.id, attempt, fault: "finalizer" }))
      : Effect.void
  })
  return isFaulty && refuseToStop ? Effect.andThen(refuse, finish) : finish
}

/**
 * The protocol of every faulty child. `work` and `tell` are messages; `work` answers how many this incarnation has handled.
 * `crash` ends the incarnation, whatever its faults are.
 *
 * @category models
 * @since 0.1.0
 */
export class Faulty extends Actor.make("Faulty", {
  *init(plan: Plan) {
    const attempt = ++plan.attempts
    const { failInits = 0, hangInits = 0, incarnations = Infinity, soundInits = 0 } = plan.faults
    const before = plan.history.filter(({ what }) => what === "up").length
    const life: Life = { plan, attempt, clock: yield* Clock.Clock, isFaulty: before < incarnations, messages: 0 }
    const index = attempt - soundInits
    if (index > 0 && index <= failInits) {
      write(life, "failed")
      return yield* new Fault({ child: plan.id, attempt, fault: "init" })
    }
    if (index > failInits && index <= failInits + hangInits) {
      write(life, "hangs")
      yield* Effect.onInterrupt(Effect.never, () => Effect.sync(() => write(life, "interrupted")))
    }
    // in one, or an interruption between the two would leave a history with only one of them
    yield* Effect.acquireRelease(
      Effect.sync(() => write(life, "up")),
      () => finalize(life)
    )
    return life
  },
  started: (self) => {
    const { crashAfter } = self.state.plan.faults
    if (crashAfter === undefined || !self.state.isFaulty) return
    self.timers.start("fault", crashAfter, ({ state }) => crash(state, "time"))
  },
  call: { work: (self, text: string) => handle(self.state, text) },
  cast: {
    tell: (self, text: string) => void handle(self.state, text),
    crash: (self) => crash(self.state, "asked")
  }
}) {}

/**
 * Makes a faulty child. Its spec takes the options of every child: `restart`, `shutdown`, `startLimit` and the others.
 *
 * **Example** (A child that is left behind)
 *
 * ```ts
 * import { Supervisor } from "@tinkex/supervision"
 * import { EventLog, FaultyChild } from "@tinkex/supervision/testing"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const stuck = FaultyChild.make("stuck", { refuseToStop: true }, { shutdown: "brutal" })
 *   const tree = yield* Supervisor.start({ children: [stuck.spec] })
 *   const log = yield* EventLog.make(tree)
 *   yield* tree.terminateChild("stuck")
 *   yield* stuck.release
 *   yield* log.awaitEvent("ZombieEnded", "stuck")
 *   yield* log.noZombies
 *   return stuck.lines.join(", ")
 * })
 *
 * console.log(await Effect.runPromise(Effect.scoped(program))) // => 1 up, 1 stopping, 1 released, 1 finalized
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Id extends string>(
  id: Id,
  faults: Faults = {},
  options?: ChildSpec.ChildOptions
): FaultyChild<Id> => {
  const plan: Plan = { id, faults, gate: Latch.makeUnsafe(), history: [], attempts: 0 }
  return {
    spec: ChildSpec.actor(id, Faulty, plan, options),
    get history() {
      return [...plan.history]
    },
    get lines() {
      return plan.history.map(({ attempt, text, what }) => `${attempt} ${what}${text === undefined ? "" : ` ${text}`}`)
    },
    release: Effect.asVoid(plan.gate.open)
  }
}
