import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Stamped } from "../JournalRecord.ts"
import { MetricLog, type MetricLine, type OpenMetricLog } from "../MetricLog.ts"
import type { TrainingError } from "../TrainingError.ts"

/** What a run writes its metrics to, whether or not anybody wants them. */
export interface RunMetrics {
  readonly append: (line: Omit<MetricLine, "time">) => Effect.Effect<void, TrainingError>
  readonly rewind: OpenMetricLog["rewind"]
}

const nowhere: RunMetrics = { append: () => Effect.void, rewind: () => Effect.void }

/** `records` are those of the processes before. */
export const open = Effect.fnUntraced(function* (
  run: string,
  records: ReadonlyArray<Stamped>
): Effect.fn.Return<RunMetrics, TrainingError, Scope.Scope> {
  const log = yield* MetricLog
  if (Option.isNone(log)) return nowhere
  let known: Map<number, MetricLine> | undefined
  const open = yield* log.value.open(run, (step) => (known ??= committed(records)).get(step))
  return {
    append: (line) => Effect.flatMap(DateTime.now, (time) => open.append({ ...line, time })),
    rewind: open.rewind
  }
})

/** The newest commit of each step: later attempts overwrite what they take again. */
const committed = (records: ReadonlyArray<Stamped>): Map<number, MetricLine> => {
  const models = new Map<number, string>()
  const lines = new Map<number, MetricLine>()
  for (const { record, t } of records) {
    if (record._tag === "Created" || record._tag === "Started") models.set(record.attempt, record.trainingRunId)
    if (record._tag !== "Commit") continue
    const { attempt, metrics, step } = record
    lines.set(step, { step, attempt, trainingRunId: models.get(attempt) ?? "", time: t, metrics })
  }
  return lines
}
