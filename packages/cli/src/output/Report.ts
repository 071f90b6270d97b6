/** How a run ended, for a person and for a program. */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { IncidentReport, RunReport } from "@tinkex/training/RunReport"
import { amount, span } from "./Progress.ts"

export interface Ending {
  readonly report: RunReport
  readonly losses: { readonly first: number | undefined; readonly last: number | undefined }
  /** Of weights and optimizer, from the server itself, where it tells. */
  readonly stateHash: Option.Option<string>
}

const incident = (each: IncidentReport): ReadonlyArray<string> => [
  `  ${each.id}  ${each.cause} at step ${each.step} on ${each.trainingRunId}`,
  `    noticed after ${span(each.timeToDetect)}, back after ${span(each.timeToRecover)}`,
  `    from ${each.path ?? "the base model"} at step ${each.resumedAt}, ${each.replayed} steps computed again`,
  ...each.quarantined.map((path) => `    never used again: ${path}`)
]

/** For a person. */
export const lines = ({ losses, report, stateHash }: Ending): ReadonlyArray<string> => [
  report.already
    ? `✓ ${report.run} was complete already: ${report.steps} steps`
    : `✓ ${report.run}: ${report.steps} steps in ${span(report.elapsed)}, ${report.attempts} ${report.attempts === 1 ? "attempt" : "attempts"}${report.startedAt === 0 ? "" : `, taken up at step ${report.startedAt}`}`,
  ...(losses.first === undefined || losses.last === undefined
    ? []
    : [`loss         ${amount(losses.first)} -> ${amount(losses.last)}`]),
  `checkpoint   ${report.path}`,
  `run          ${report.trainingRunId}`,
  `state hash   ${Option.getOrElse(stateHash, () => "not told: the model is not loaded, or this server never tells")}`,
  `incidents    ${report.incidents.length}`,
  ...report.incidents.flatMap(incident)
]

/** For a program. Durations are milliseconds. */
export const json = ({ losses, report, stateHash }: Ending) => ({
  event: "report",
  schemaVersion: 1,
  run: report.run,
  trainingRunId: report.trainingRunId,
  checkpoint: report.path,
  steps: report.steps,
  startedAt: report.startedAt,
  attempts: report.attempts,
  already: report.already,
  elapsedMillis: Duration.toMillis(report.elapsed),
  loss: { first: losses.first ?? null, last: losses.last ?? null },
  stateHash: Option.getOrNull(stateHash),
  incidents: report.incidents.map((each) => ({
    incident: each.id,
    cause: each.cause,
    detail: each.detail,
    attempt: each.attempt,
    trainingRunId: each.trainingRunId,
    step: each.step,
    timeToDetectMillis: Duration.toMillis(each.timeToDetect),
    timeToRecoverMillis: Duration.toMillis(each.timeToRecover),
    checkpoint: each.path,
    resumedAt: each.resumedAt,
    replayed: each.replayed,
    quarantined: each.quarantined
  }))
})
