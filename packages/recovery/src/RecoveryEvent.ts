/**
 * What a recovery tells about itself: as a typed stream (`Recovery.events`), as span events on the incident's span, and as
 * metrics. Where the SDK tells the service of its sessions (`telemetry`), each event of an incident goes there too, as
 * `recovery_<event>` with ids and tags, without names and messages.
 *
 * Every event carries `n` (gapless per layer, so a reader that was too slow sees what it missed), `run` (the name of a trained
 * run, or the training run's own id where the loop is somebody else's; `*` where the event is about no run in particular),
 * `trainingRunId` (the attempt that failed), `attempt` (its number, where the run counts them), `incident`, `try` (0 before the
 * first), `duration` and `time`. Events encode to plain JSON.
 *
 * | event | when | `duration` | beyond the common fields |
 * | --- | --- | --- | --- |
 * | `detected` | an incident was opened; once per attempt | since the run was last seen well | `cause`, `detail`, `source` |
 * | `started` | a try begins | since detection | `maxAttempts` |
 * | `fenced` | the old client can send no more | | |
 * | `checkpoint_selected` | a try picked what to load | | `path` (`null`: base model), `step`, `rejected` |
 * | `client_created` | a fresh model exists | since the try began | `newTrainingRunId` |
 * | `quarantined` | a checkpoint turned out to be bad; the next older one follows | | `path`, `why` |
 * | `resumed` | the model is loaded and can take its next step | since the try began | `newTrainingRunId`, `step` |
 * | `completed` | the incident is over, the run goes on | since detection | `newTrainingRunId`, `path`, `step`, `quarantined` |
 * | `failed` | one try failed | of the try | `tag`, `detail`, `nextTryIn` (`null`: there is none) |
 * | `exhausted` | the incident is over, the run was given up or the recovery cancelled | since detection | `tag`, `detail`, `history` |
 * | `paused` | the service has no room for us; waiting uses up no try | of the wait, where it is known | `tag`, `detail` |
 * | `poll_error` | a sweep could not read a run | | `tag`, `detail`, `consecutive` |
 * | `stalled` | a watched run is silent for longer than is its habit | of the silence | |
 * | `backpressure` | the service has held a run's operations back for a minute (`state` says why), or does so no more (`active`) | of the pause | `state`, `reason` |
 * | `degraded` | a sweep got no answer at all: flags cannot be seen and recoveries wait; failures in band still are | since the last answer | `tag`, `detail` |
 * | `restored` | the service answers again | of the outage | |
 * | `superseded` | another process has recovered the run: this one follows the new attempt | | `newTrainingRunId` |
 * | `callback_failed` | `onRecovered` or `onFailure` failed, died or took too long | of the callback | `callback`, `detail` |
 *
 * | metric | kind | attributes |
 * | --- | --- | --- |
 * | `tinkex_recovery_events` | counter | `event` |
 * | `tinkex_recovery_time_to_detect` | histogram, seconds | |
 * | `tinkex_recovery_time_to_recover` | histogram, seconds | |
 *
 * The span of an incident is `recovery.incident` with the attributes `recovery.incident`, `recovery.run` and
 * `recovery.training_run`.
 */
import * as Schema from "effect/Schema"
import { IncidentCause } from "@tinkex/training/RunGuard"

const Millis = Schema.NullOr(Schema.DurationFromMillis)

const common = {
  n: Schema.Int,
  time: Schema.DateTimeUtcFromString,
  run: Schema.String,
  trainingRunId: Schema.String,
  attempt: Schema.NullOr(Schema.Int),
  incident: Schema.NullOr(Schema.String),
  try: Schema.Int,
  duration: Millis
}

/**
 * Who noticed: the sweep, the client of a watched run, the trainer's own loop, a person who asked for the recovery, or the
 * journal, in which somebody else's unfinished recovery was found.
 */
export const Source = Schema.Literals(["sweep", "client", "loop", "manual", "journal"])
export type Source = typeof Source.Type

/** The causes of an attempt's end, and `requested` for a recovery that somebody asked for. */
export const Cause = Schema.Union([IncidentCause, Schema.Literal("requested")])
export type Cause = typeof Cause.Type

export const RecoveryEvent = Schema.TaggedUnion({
  detected: { ...common, cause: Cause, detail: Schema.String, source: Source },
  started: { ...common, maxAttempts: Schema.Int },
  fenced: common,
  checkpoint_selected: {
    ...common,
    path: Schema.NullOr(Schema.String),
    step: Schema.NullOr(Schema.Int),
    rejected: Schema.Int
  },
  client_created: { ...common, newTrainingRunId: Schema.String },
  quarantined: { ...common, path: Schema.String, why: Schema.String },
  resumed: { ...common, newTrainingRunId: Schema.String, step: Schema.NullOr(Schema.Int) },
  completed: {
    ...common,
    newTrainingRunId: Schema.String,
    path: Schema.NullOr(Schema.String),
    step: Schema.NullOr(Schema.Int),
    quarantined: Schema.Array(Schema.String)
  },
  failed: { ...common, tag: Schema.String, detail: Schema.String, nextTryIn: Millis },
  exhausted: { ...common, tag: Schema.String, detail: Schema.String, history: Schema.Array(Schema.String) },
  paused: { ...common, tag: Schema.String, detail: Schema.String },
  poll_error: { ...common, tag: Schema.String, detail: Schema.String, consecutive: Schema.Int },
  stalled: common,
  backpressure: {
    ...common,
    state: Schema.Literals(["active", "paused_capacity", "paused_rate_limit", "unknown"]),
    reason: Schema.NullOr(Schema.String)
  },
  degraded: { ...common, tag: Schema.String, detail: Schema.String },
  restored: common,
  superseded: { ...common, newTrainingRunId: Schema.String },
  callback_failed: { ...common, callback: Schema.Literals(["onRecovered", "onFailure"]), detail: Schema.String }
})
export type RecoveryEvent = typeof RecoveryEvent.Type

/** The event without what the journal of events adds to it. */
export type Unstamped = RecoveryEvent extends infer E
  ? E extends RecoveryEvent
    ? Omit<E, "n" | "time">
    : never
  : never

/** One line for a log. */
export const format = (event: RecoveryEvent): string => {
  const about = `${event._tag} ${event.run}${event.incident === null ? "" : ` (${event.incident}, try ${event.try})`}`
  switch (event._tag) {
    case "detected":
      return `${about}: ${event.cause}, seen by ${event.source}: ${event.detail}`
    case "checkpoint_selected":
      return `${about}: ${event.path ?? "the base model"}`
    case "quarantined":
      return `${about}: ${event.path}: ${event.why}`
    case "client_created":
    case "resumed":
    case "completed":
    case "superseded":
      return `${about}: ${event.newTrainingRunId}`
    case "backpressure":
      return `${about}: ${event.state}${event.reason === null ? "" : `: ${event.reason}`}`
    case "failed":
    case "exhausted":
    case "paused":
    case "poll_error":
    case "degraded":
    case "callback_failed":
      return `${about}: ${event.detail}`
    default:
      return about
  }
}
