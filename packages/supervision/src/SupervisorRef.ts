/**
 * The handle of a supervisor, root or nested. Like an `ActorRef` it stays valid across restarts.
 *
 * **Details.** Requests are served one at a time, in order, and wait while a child starts or stops; a caller that is
 * interrupted withdraws a request that has not begun. Queries answer at once. A supervisor that has ended refuses with
 * `SupervisorStopped`.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { Any, ChildSpec, Requirements } from "./ChildSpec.ts"
import type { DeadLetter } from "./DeadLetter.ts"
import type { ExitReason } from "./ExitReason.ts"
import type { SupervisorOptions } from "./internal/plan.ts"
import type { Target } from "./internal/target.ts"
import type { SupervisionEvent } from "./SupervisionEvent.ts"
import type { Node } from "./SupervisionTree.ts"
import type { SupervisorError } from "./SupervisorError.ts"

/**
 * One entry of a supervisor. `restarting`: it ended and waits for the next attempt. `info` is what its init told besides.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildInfo {
  readonly id: string
  readonly kind: "actor" | "effect" | "supervisor"
  readonly status: "running" | "starting" | "restarting" | "stopping" | "stopped"
  readonly restart: "permanent" | "transient" | "temporary"
  /** Incarnations so far. */
  readonly generation: number
  readonly info: unknown
}

/**
 * The spec of a child as it is stored, with every default filled in.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildSettings {
  readonly id: string
  readonly kind: "actor" | "effect" | "supervisor"
  readonly restart: "permanent" | "transient" | "temporary"
  readonly shutdown: Duration.Duration | "brutal"
  readonly significant: boolean
  readonly startLimit: Duration.Duration
  readonly stuck: "abandon" | "wait" | "fail"
}

/**
 * `specs` known, `active` of them running, and how many of the specs are supervisors and workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildCounts {
  readonly specs: number
  readonly active: number
  readonly supervisors: number
  readonly workers: number
}

/**
 * What the refs of all kinds of supervisors offer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Supervising extends Target {
  readonly id: string
  /** Where it stands in its tree: `root/workers`. It is the `supervisor` field of its events. */
  readonly path: string
  /** All entries, the latest first. */
  readonly whichChildren: Effect.Effect<ReadonlyArray<ChildInfo>>
  readonly countChildren: Effect.Effect<ChildCounts>
  /** The tree from here on down, as data. */
  readonly snapshot: Effect.Effect<Node>
  /**
   * What happens in this supervisor and below it. Begins with the latest 256 events of the tree, so that those of the
   * start are not lost; ends when the tree has ended. A reader that falls behind by more than 8192 loses the oldest and
   * is told by `EventsMissed`. While nobody reads, alarming events are logged as warnings, at most 16 a second.
   */
  readonly events: Stream.Stream<SupervisionEvent>
  /** Messages that got lost from now on, with their payload. A reader may fall behind by 8192. */
  readonly deadLetters: Stream.Stream<DeadLetter>
  /** Ends it with reason killed, its children first. A permanent or transient one is restarted by its own supervisor. */
  readonly kill: Effect.Effect<void>
  /** Waits for the end of the supervisor, and says why it ended. */
  readonly exit: Effect.Effect<ExitReason>
  /** Waits for the end too; fails when the supervisor gave up, dies when it crashed. */
  readonly join: Effect.Effect<void, SupervisorError>
}

/**
 * @category models
 * @since 0.1.0
 */
export interface SupervisorRef<out Refs> extends Supervising {
  /** The handles of the listed children, by id. */
  readonly refs: Refs
  /**
   * Adds a child at the end and starts it. Refused with `AlreadyStarted` or `AlreadyPresent` when the id is taken, with
   * `StartFailed` when it does not come up (nothing is kept then), and with `Ignored` when it has nothing to run. Its
   * services and its place in the program are those of the caller, without the caller's span.
   */
  readonly startChild: <Id extends string, Ref, R>(
    spec: ChildSpec<Id, Ref, R>
  ) => Effect.Effect<Ref, SupervisorError, R>
  /** Stops a child; also ends the attempts to restart it. Succeeds when it was not running. A temporary one is forgotten. */
  readonly terminateChild: (id: string) => Effect.Effect<void, SupervisorError>
  /** Starts a child that is not running. Refused with `Running` or `Restarting`. Costs no intensity. */
  readonly restartChild: (id: string) => Effect.Effect<void, SupervisorError>
  /** Forgets a child that is not running. Refused with `Running` or `Restarting`. */
  readonly deleteChild: (id: string) => Effect.Effect<void, SupervisorError>
  /** The stored spec of a child. */
  readonly childSpec: (id: string) => Effect.Effect<ChildSettings, SupervisorError>
  /**
   * Takes new options while everything runs. What is left out stays as it is. A spec with a known id replaces the old one
   * from the next incarnation on; a new spec is listed, not started; a child that is not in the list stays. Refused with
   * `InvalidRequest`, and nothing is changed, when an option makes no sense, or a spec is of another kind, or of another
   * actor, than the child of its id. A supervisor that is restarted begins with the options of its spec again.
   */
  readonly reconfigure: <const Children extends ReadonlyArray<Any> = readonly []>(
    options: Partial<SupervisorOptions<Children>>
  ) => Effect.Effect<void, SupervisorError, Requirements<Children>>
}
