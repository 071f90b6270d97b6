/**
 * What a supervision tree tells about itself.
 *
 * Every event carries the path of its supervisor (`root/workers`), the id of the child it is about, and the wall time.
 *
 * | event | when | beyond the common fields |
 * | --- | --- | --- |
 * | `ChildStarted` | an incarnation is up | `generation` |
 * | `ChildIgnored` | an init answered that there is nothing to run | |
 * | `ChildExited` | an incarnation ended by itself, finalizers included | `generation`, `exit`, for a crashed actor `report` |
 * | `ChildStopped` | the supervisor stopped it | `generation` |
 * | `ChildRestarted` | the supervisor brought it back after its end; of a group, only the child that had ended | `generation` |
 * | `ChildResumed` | an actor went on after a failure, by decision | `generation`, `operation`, `exit` |
 * | `RestartDelayed` | the next attempt waits for its backoff | `delay`, `attempt` |
 * | `StartFailed` | an init failed, at start or during a restart | `exit` |
 * | `ChildGivenUp` | its own budget or schedule is used up; it stays down, the others go on | `exit` |
 * | `GaveUp` | intensity or a child's own allowance is used up, or one escalated; all are being stopped | `exit` of that child |
 * | `AutoShutdown` | a significant child ended, and its supervisor with it | |
 * | `SupervisorExited` | a supervisor ended; `child` is its own id | `exit` |
 * | `Reconfigured` | a supervisor took new options; `child` is its own id | |
 * | `ShutdownError` | a child, or a finalizer, failed while being stopped, or a permanent one ended normally then | `exit` |
 * | `Zombie` | a child did not stop within its limit; it was fenced and left behind | `generation`, `limit` |
 * | `ZombieEnded` | such a child ended at last | `generation`, `exit` |
 * | `MessageDropped` | a message got lost, or a call was evicted | `operation`, `why` |
 * | `LateReply` | an answer came after its caller had left | `operation` |
 * | `CallbackFailed` | a decision, schedule or callback of the program threw; its default was used | `callback`, `exit` |
 * | `EventsMissed` | the reader was too slow | `count` of the events it missed |
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"
import * as ExitReason from "./ExitReason.ts"

const common = { supervisor: Schema.String, child: Schema.String, time: Schema.DateTimeUtc }
const generation = Schema.Number
const exit = ExitReason.ExitReason

/**
 * Why a message was lost: the mailbox was full, the actor ended with the message in its queue, there was no actor, the
 * sender waited for room longer than its limit, or the message crashed the actor too often.
 *
 * @category models
 * @since 0.1.0
 */
export const DropReason = Schema.Literals(["mailbox_full", "exit", "no_process", "timeout", "quarantined"])

/**
 * @category models
 * @since 0.1.0
 */
export type DropReason = typeof DropReason.Type

/**
 * What a crashed actor was doing: the operation, on whose behalf (the path of an actor, or `fiber`) if somebody waited, and its state as
 * the actor's own `describe` shows it. Without a `describe` there is no state in it, because states hold secrets.
 *
 * @category models
 * @since 0.1.0
 */
export const CrashReport = Schema.Struct({
  operation: Schema.optionalKey(Schema.String),
  client: Schema.optionalKey(Schema.String),
  state: Schema.optionalKey(Schema.Unknown)
})

/**
 * @category models
 * @since 0.1.0
 */
export type CrashReport = typeof CrashReport.Type

/**
 * @category models
 * @since 0.1.0
 */
export const SupervisionEvent = Schema.TaggedUnion({
  ChildStarted: { ...common, generation },
  ChildIgnored: common,
  ChildExited: { ...common, generation, exit, report: Schema.optionalKey(CrashReport) },
  ChildStopped: { ...common, generation },
  ChildRestarted: { ...common, generation },
  ChildResumed: { ...common, generation, operation: Schema.String, exit },
  RestartDelayed: { ...common, delay: Schema.Duration, attempt: Schema.Number },
  StartFailed: { ...common, exit },
  ChildGivenUp: { ...common, exit },
  GaveUp: { ...common, exit },
  AutoShutdown: common,
  SupervisorExited: { ...common, exit },
  Reconfigured: common,
  ShutdownError: { ...common, exit },
  Zombie: { ...common, generation, limit: Schema.Duration },
  ZombieEnded: { ...common, generation, exit },
  MessageDropped: { ...common, operation: Schema.String, why: DropReason },
  LateReply: { ...common, operation: Schema.String },
  CallbackFailed: { ...common, callback: Schema.String, exit },
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
export const isAlarming = (event: {
  readonly _tag: SupervisionEvent["_tag"]
  readonly exit?: ExitReason.ExitReason
}): boolean => {
  switch (event._tag) {
    case "ChildExited":
    case "SupervisorExited":
      return event.exit !== undefined && !ExitReason.isClean(event.exit)
    case "StartFailed":
    case "ChildGivenUp":
    case "GaveUp":
    case "ShutdownError":
    case "Zombie":
    case "MessageDropped":
    case "CallbackFailed":
      return true
    default:
      return false
  }
}

/**
 * @category options
 * @since 0.1.0
 */
export interface FormatOptions {
  /** The whole cause and the crash report, each on lines of their own. Default false: one line. */
  readonly multiline?: boolean | undefined
  /** Characters that the text may have; what is cut off is replaced by `…`. Default: no limit. */
  readonly limit?: number | undefined
}

const cut = (text: string, limit: number): string => {
  if (text.length <= limit) return text
  return limit < 1 ? "" : `${text.slice(0, limit - 1)}…`
}

const oneLine = (text: string): string => text.replaceAll(/\s*\n\s*/g, " ")

/**
 * An event as text for a log.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (event: SupervisionEvent, options: FormatOptions = {}): string => {
  const { limit = Infinity, multiline = false } = options
  const about = `${event._tag} ${event.supervisor}/${event.child}`
  const parts: Array<string> = []
  if ("operation" in event) parts.push(event.operation)
  if ("callback" in event) parts.push(event.callback)
  if ("exit" in event) parts.push(ExitReason.format(event.exit))
  if ("why" in event) parts.push(`(${event.why})`)
  const report = event._tag === "ChildExited" ? event.report : undefined
  if (report?.operation !== undefined) parts.push(`in ${report.operation}`)
  const line = parts.length === 0 ? about : `${about}: ${parts.join(" ")}`
  if (!multiline) return cut(oneLine(line), limit)
  const lines = [line]
  if (report?.client !== undefined) lines.push(`  client: ${report.client}`)
  if (report !== undefined && "state" in report) lines.push(`  state: ${show(report.state)}`)
  if ("exit" in event && event.exit._tag === "Crash") {
    lines.push(
      ...Cause.pretty(event.exit.cause)
        .split("\n")
        .map((text) => `  ${text}`)
    )
  }
  return cut(lines.join("\n"), limit)
}

const show = (state: unknown): string => {
  try {
    return typeof state === "string" ? state : (JSON.stringify(state) ?? String(state))
  } catch {
    return String(state)
  }
}

/**
 * Many events in one line per supervisor, tag and reason: `ShutdownError root/pool: killed (12 children)`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const summarize = (events: Iterable<SupervisionEvent>, options: FormatOptions = {}): string => {
  const groups = new Map<string, number>()
  for (const event of events) {
    const reason = "exit" in event ? `: ${ExitReason.format(event.exit)}` : ""
    const line = oneLine(`${event._tag} ${event.supervisor}${reason}`)
    groups.set(line, (groups.get(line) ?? 0) + 1)
  }
  const lines = Array.from(groups, ([line, count]) => `${line} (${count} ${count === 1 ? "child" : "children"})`)
  return cut(lines.join("\n"), options.limit ?? Infinity)
}
