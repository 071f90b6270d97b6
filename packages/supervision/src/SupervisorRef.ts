/**
 * The handle of a supervisor, root or nested. Like an `ActorRef` it stays valid across restarts.
 *
 * **Details.** Requests are served one at a time, in order, and wait while a child starts or stops; a caller that is
 * interrupted withdraws a request that has not begun. Queries answer at once. A supervisor that has ended refuses with
 * `SupervisorStopped`.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { ChildSpec } from "./ChildSpec.ts"
import type { ExitReason } from "./ExitReason.ts"
import type { SupervisionEvent } from "./SupervisionEvent.ts"
import type { SupervisorError } from "./SupervisorError.ts"

/**
 * One entry of a supervisor. `restarting`: the last attempt to bring it back failed and the next is about to be made.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildInfo {
  readonly id: string
  readonly kind: "actor" | "effect" | "supervisor"
  readonly status: "running" | "starting" | "restarting" | "stopped"
  readonly restart: "permanent" | "transient" | "temporary"
  /** Incarnations so far. */
  readonly generation: number
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
 * @category models
 * @since 0.1.0
 */
export interface SupervisorRef<out Refs> {
  /** Where it stands in its tree: `root/workers`. It is the `supervisor` field of its events. */
  readonly path: string
  /** The handles of the listed children, by id. */
  readonly refs: Refs
  /**
   * Adds a child at the end and starts it. Refused with `AlreadyStarted` or `AlreadyPresent` when the id is taken, and
   * with `StartFailed` when it does not come up; nothing is kept then. Its services and its place in the program are
   * those of the caller, without the caller's span.
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
  /** All entries, the latest first. */
  readonly whichChildren: Effect.Effect<ReadonlyArray<ChildInfo>>
  readonly countChildren: Effect.Effect<ChildCounts>
  /**
   * What happens in this supervisor and below it. Begins with the latest 256 events of the tree, so that those of the
   * start are not lost; ends when the tree has ended. A reader that falls behind by more than 1024 loses the oldest and
   * is told by `EventsMissed`. While nobody reads, alarming events are logged as warnings.
   */
  readonly events: Stream.Stream<SupervisionEvent>
  /** Waits for the end of the supervisor, and says why it ended. */
  readonly exit: Effect.Effect<ExitReason>
  /** Waits for the end too; fails when the supervisor gave up, dies when it crashed. */
  readonly join: Effect.Effect<void, SupervisorError>
}
