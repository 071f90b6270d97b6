/**
 * The metrics of a run as a file of JSON lines, one for each committed step, in order. Guarantees:
 *
 * - **ML1** once a run is complete, line k holds step k: what failed, was lost or taken again in between leaves no trace;
 * - **ML2** a line names the attempt and the training run whose step it is: the lineage of the final state;
 * - **ML3** a process that dies between a step and its line loses nothing: the line is written from the journal by the next one.
 *
 * While a run goes on, a restore takes back the lines of the steps that it goes back behind. The file is flushed to the disk
 * from time to time and when the run is closed; in between the journal is what survives a power loss.
 *
 * ```ts ignore
 * Trainer.fineTune({ ... }).pipe(Effect.provide(MetricLog.layerFileSystem("./runs")))
 * // ./runs/support-tone-v3/metrics.jsonl: {"step":0,"attempt":1,"trainingRunId":"...","time":"...","metrics":{"loss:sum":52.1}}
 * ```
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import type * as Scope from "effect/Scope"
import { openAppendFile } from "./internal/appendFile.ts"
import { JournalError, JournalUnreadable, JournalUnwritable } from "./JournalError.ts"
import { TrainingError } from "./TrainingError.ts"

/** One committed step. */
export interface MetricLine {
  readonly step: number
  readonly attempt: number
  readonly trainingRunId: string
  readonly time: DateTime.Utc
  readonly metrics: Readonly<Record<string, number>>
}

/** The metrics of one run, open for writing until the scope closes. */
export interface OpenMetricLog {
  readonly append: (line: MetricLine) => Effect.Effect<void, TrainingError>
  /** Takes back the lines from this step on. */
  readonly rewind: (step: number) => Effect.Effect<void, TrainingError>
}

export interface MetricLog {
  /** `line` gives what the journal knows of a step; it is asked for the steps that are missing. */
  readonly open: (
    run: string,
    line: (step: number) => MetricLine | undefined
  ) => Effect.Effect<OpenMetricLog, TrainingError, Scope.Scope>
}

/** The metric log in force; none unless a layer sets one. */
export const MetricLog = Context.Reference<Option.Option<MetricLog>>("@tinkex/training/MetricLog", {
  defaultValue: Option.none
})

/** JSON has no word for a number that is none. */
const encode = ({ attempt, metrics, step, time, trainingRunId }: MetricLine): string => {
  const numbers = Object.entries(metrics).map(([name, value]) => [name, Number.isFinite(value) ? value : String(value)])
  const line = { step, attempt, trainingRunId, time: DateTime.formatIso(time), metrics: Object.fromEntries(numbers) }
  return `${JSON.stringify(line)}\n`
}

/** The lengths of the whole lines at the beginning that are those of steps 0, 1, 2 and so on. */
const wholeLines = (bytes: Uint8Array): Array<number> => {
  const ends: Array<number> = []
  for (let from = 0; ;) {
    const end = bytes.indexOf(10, from)
    if (end < 0) return ends
    const text = Buffer.from(bytes.buffer, bytes.byteOffset + from, end - from).toString()
    if (!text.startsWith(`{"step":${ends.length},`) || !text.endsWith("}")) return ends
    ends.push(end + 1)
    from = end + 1
  }
}

/** `metrics.jsonl` in a folder for each run below `directory`; that of the journal will do. */
export const layerFileSystem = (directory: string): Layer.Layer<never, never, FileSystem.FileSystem | Path.Path> =>
  Layer.effect(
    MetricLog,
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const open: MetricLog["open"] = Effect.fnUntraced(function* (run, line) {
        const folder = path.join(directory, run)
        const file = path.join(folder, "metrics.jsonl")
        const unwritable = (operation: string) => (error: { readonly message: string }) =>
          TrainingError.fromJournal(
            new JournalError({ reason: new JournalUnwritable({ path: file, operation, problem: error.message }) })
          )
        yield* fs.makeDirectory(folder, { recursive: true }).pipe(Effect.mapError(unwritable("create")))
        const bytes = yield* fs.readFile(file).pipe(
          Effect.catchIf(
            (error) => error.reason._tag === "NotFound",
            () => Effect.succeed(new Uint8Array())
          ),
          Effect.mapError((error) =>
            TrainingError.fromJournal(
              new JournalError({ reason: new JournalUnreadable({ path: file, problem: error.message }) })
            )
          )
        )
        const ends = wholeLines(bytes)
        const appending = yield* (yield* openAppendFile)(file).pipe(Effect.mapError(unwritable("open")))
        const cut = (length: number) => fs.truncate(file, length).pipe(Effect.mapError(unwritable("cut")))
        if ((ends.at(-1) ?? 0) < bytes.length) yield* cut(ends.at(-1) ?? 0)
        const write = (line: MetricLine) =>
          appending.write(encode(line)).pipe(
            Effect.map((written) => ends.push((ends.at(-1) ?? 0) + written)),
            // The journal, which could write lost lines again, keeps its newest thousand records whatever happens.
            Effect.flatMap((lines) => (lines % 250 === 0 ? appending.sync : Effect.void)),
            Effect.mapError(unwritable("write"))
          )
        const rewind = (step: number) =>
          Effect.suspend(() => {
            if (step >= ends.length) return Effect.void
            ends.length = step
            return cut(ends.at(-1) ?? 0)
          })
        /** Fills up to where the run stands. */
        const fill = Effect.fnUntraced(function* (steps: number) {
          for (let step = ends.length; step < steps; step++) {
            const known = line(step)
            if (known === undefined) return
            yield* write(known)
          }
        })
        yield* Effect.addFinalizer(() =>
          appending.sync.pipe(
            Effect.catch((error) => Effect.logWarning(`The metrics of run "${run}" were not flushed: ${error.message}`))
          )
        )
        return {
          append: (one) => Effect.andThen(rewind(one.step), write(one)),
          rewind: (step) => Effect.andThen(rewind(step), fill(step))
        }
      })
      return Option.some({ open })
    })
  )
