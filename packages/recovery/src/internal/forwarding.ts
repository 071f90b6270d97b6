import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Severity, Telemetry } from "@tinkex/tinker/Telemetry"
import * as Restore from "@tinkex/training/Restore"
import type { RecoveryEvent } from "../RecoveryEvent.ts"

const severityOf = ({ _tag }: RecoveryEvent): Severity => {
  switch (_tag) {
    case "exhausted":
      return "ERROR"
    case "detected":
    case "failed":
    case "quarantined":
    case "callback_failed":
      return "WARNING"
    default:
      return "INFO"
  }
}

/** What the service can make use of: its own ids and our words. Names and messages of the program stay here. */
const dataOf = (event: RecoveryEvent): Record<string, unknown> => ({
  incident: event.incident,
  // Somebody may have asked for a checkpoint, whose path has a name of the program's in it.
  training_run_id: Restore.runOf(event.trainingRunId),
  attempt: event.attempt,
  try: event.try,
  ...(event.duration === null ? {} : { duration_seconds: Duration.toSeconds(event.duration) }),
  ...("cause" in event ? { cause: event.cause } : {}),
  ...("tag" in event ? { tag: event.tag } : {}),
  ...("newTrainingRunId" in event ? { new_training_run_id: event.newTrainingRunId } : {})
})

/** Tells the service of every incident, in the order of its events. Never returns. */
export const forward = (telemetry: Telemetry["Service"], events: Stream.Stream<RecoveryEvent>): Effect.Effect<void> =>
  Stream.runForEach(events, (event) =>
    event.incident === null
      ? Effect.void
      : telemetry.event(`recovery_${event._tag}`, { severity: severityOf(event), data: dataOf(event) })
  )
