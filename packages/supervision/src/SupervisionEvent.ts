/**
 * What a supervision tree tells about itself.
 *
 * Every event carries the path of its supervisor (`root/workers`), the id of the child it is about, and the wall time.
 *
 * | event | when | beyond the common fields |
 * | --- | --- | --- |
 * | `ChildStarted` | an incarnation is up | `generation` |
 * | `ChildExited` | an incarnation ended by itself | `generation`, `exit` |
 * | `ChildStopped` | the supervisor stopped it | `generation` |
 * | `ChildRestarted` | the supervisor brought it back after a crash | `generation` |
 * | `StartFailed` | an init failed, at start or during a restart | `exit` |
 * | `GaveUp` | the intensity was exceeded; all children are being stopped | `exit` of the child that was one too many |
 * | `SupervisorExited` | a supervisor ended; `child` is its own id | `exit` |
 * | `ShutdownError` | a child, or a finalizer, failed while it was being stopped | `exit` |
 * | `Zombie` | a child did not stop within its limit; it was fenced and left behind | `generation`, `limit` |
 * | `ZombieEnded` | such a child ended at last | `generation`, `exit` |
 * | `MessageDropped` | a message got lost, or a call was evicted | `operation`, `why` |
 * | `LateReply` | an answer came after its caller had left | `operation` |
 * | `EventsMissed` | the reader was too slow | `count` of the events it missed |
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as ExitReason from "./ExitReason.ts"

const common = { supervisor: Schema.String, child: Schema.String, time: Schema.DateTimeUtc }
const generation = Schema.Number
const exit = ExitReason.ExitReason

/**
 * Why a message was lost: the mailbox was full, the actor ended with the message in its queue, there was no actor, or
 * the sender waited for room longer than its limit.
 *
 * @category models
 * @since 0.1.0
 */
export const DropReason = Schema.Literals(["mailbox_full", "exit", "no_process", "timeout"])

/**
 * @category models
 * @since 0.1.0
 */
export type DropReason = typeof DropReason.Type

/**
 * @category models
 * @since 0.1.0
 */
export const SupervisionEvent = Schema.TaggedUnion({
  ChildStarted: { ...common, generation },
  ChildExited: { ...common, generation, exit },
  ChildStopped: { ...common, generation },
  ChildRestarted: { ...common, generation },
  StartFailed: { ...common, exit },
  GaveUp: { ...common, exit },
  SupervisorExited: { ...common, exit },
  ShutdownError: { ...common, exit },
  Zombie: { ...common, generation, limit: Schema.Duration },
  ZombieEnded: { ...common, generation, exit },
  MessageDropped: { ...common, operation: Schema.String, why: DropReason },
  LateReply: { ...common, operation: Schema.String },
  EventsMissed: { ...common, count: Schema.Number }
})

/**
 * @category models
 * @since 0.1.0
 */
export type SupervisionEvent = typeof SupervisionEvent.Type

/**
 * Whether somebody should know: crashes, failed starts, zombies and losses. These are logged when nobody reads the
 * tree's events.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isAlarming = (event: SupervisionEvent): boolean => {
  switch (event._tag) {
    case "ChildExited":
    case "SupervisorExited":
      return !ExitReason.isClean(event.exit)
    case "StartFailed":
    case "GaveUp":
    case "ShutdownError":
    case "Zombie":
    case "MessageDropped":
      return true
    default:
      return false
  }
}

/**
 * One line for a log.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (event: SupervisionEvent): string => {
  const about = `${event._tag} ${event.supervisor}/${event.child}`
  if ("exit" in event) return `${about}: ${ExitReason.format(event.exit)}`
  if ("operation" in event) return `${about}: ${event.operation}${"why" in event ? ` (${event.why})` : ""}`
  return about
}
