/** Runs of the journal and of the server, as rows. */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Time from "@tinkex/tinker/Time"
import type { TrainingRun } from "@tinkex/tinker/TrainingRun"
import * as JournaledRuns from "../JournaledRuns.ts"
import * as Table from "./Table.ts"

/** A run of the journal, for a program. */
export const journaled = ({ name, state }: JournaledRuns.JournaledRun) => ({
  name,
  status: JournaledRuns.statusOf(state),
  steps: state.highWater,
  totalSteps: state.run?.totalSteps ?? null,
  incidents: state.incidents.length,
  trainingRunId: state.attempts.at(-1)?.trainingRunId ?? null
})

/** A training run of the server, for a program. */
export const served = (run: TrainingRun) => ({
  trainingRunId: run.trainingRunId,
  baseModel: run.baseModel,
  corrupted: run.corrupted,
  lastRequest: Option.getOrNull(Option.map(Time.toOption(run.lastRequestTime), DateTime.formatIso)),
  lastCheckpoint: Option.getOrNull(Option.map(run.lastCheckpoint, (checkpoint) => checkpoint.tinkerPath)),
  run: Option.getOrNull(Option.flatMap(run.userMetadata, (labels) => Option.fromUndefinedOr(labels["tinkex.run"])))
})

/** For a person. `server` is `undefined` where none was asked. */
export const lines = (
  mine: ReadonlyArray<ReturnType<typeof journaled>>,
  server: ReadonlyArray<ReturnType<typeof served>> | undefined
): ReadonlyArray<string> => {
  const ofJournal = Table.render(
    ["RUN", "STATUS", "STEPS", "INCIDENTS", "TRAINING RUN"],
    mine.map((run) => [
      run.name,
      run.status,
      `${run.steps}/${run.totalSteps ?? "?"}`,
      String(run.incidents),
      run.trainingRunId ?? "-"
    ])
  )
  if (server === undefined) return ofJournal
  const ofServer = Table.render(
    ["TRAINING RUN", "CORRUPTED", "BASE MODEL", "LAST CHECKPOINT", "RUN"],
    server.map((run) => [
      run.trainingRunId,
      run.corrupted ? "yes" : "no",
      run.baseModel,
      run.lastCheckpoint ?? "-",
      run.run ?? "-"
    ])
  )
  return [...ofJournal, "", ...ofServer]
}
