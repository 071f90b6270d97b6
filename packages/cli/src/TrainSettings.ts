/**
 * What `tinkex train` was asked to do, kept as `train.json` beside the run's journal, so that `tinkex recover now` can go on
 * with a run without its command line. Holds no key, and no faults: those belong to one command, not to the run.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import { JournalError, JournalUnwritable } from "@tinkex/training/JournalError"
import * as CommandError from "./CommandError.ts"

/** Who trains. */
export const Target = Schema.TaggedUnion({
  /** The service of `TINKER_BASE_URL`. */
  Service: {},
  /** An emulator inside the command, its state in the run's folder. */
  Embedded: {},
  /** An emulator of another process. */
  Remote: { url: Schema.String }
})
export type Target = typeof Target.Type

export const TrainSettings = Schema.Struct({
  schemaVersion: Schema.Literal(1),
  name: Schema.String,
  /** Absolute. */
  data: Schema.String,
  target: Target,
  model: Schema.String,
  /** A folder; `null` means bytes, which is what emulated models speak. */
  tokenizer: Schema.NullOr(Schema.String),
  rank: Schema.Int,
  seed: Schema.Int,
  batchSize: Schema.Int,
  epochs: Schema.Int,
  /** Ends the run early; `null` for all epochs. */
  steps: Schema.NullOr(Schema.Int),
  learningRate: Schema.Finite,
  warmup: Schema.Int,
  schedule: Schema.Literals(["constant", "linear", "cosine"]),
  saveEvery: Schema.Int,
  keepLast: Schema.Int,
  pipelining: Schema.Int
})
export type TrainSettings = typeof TrainSettings.Type

const File = Schema.fromJsonString(TrainSettings)

const fileOf = Effect.fnUntraced(function* (journal: string, run: string) {
  const path = yield* Path.Path
  return path.join(journal, run, "train.json")
})

/** Makes the run's folder, so that a journal that cannot be written is known before anything is asked of a server. */
export const prepare = Effect.fnUntraced(function* (journal: string, run: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = path.join(journal, run)
  yield* fs.makeDirectory(folder, { recursive: true }).pipe(
    Effect.mapError(
      (error) =>
        new JournalError({
          reason: new JournalUnwritable({ path: folder, operation: "create", problem: error.message })
        })
    )
  )
  return folder
})

/** Replaces the file as a whole: whoever reads it finds the old settings or the new ones. */
export const store = Effect.fnUntraced(function* (journal: string, settings: TrainSettings) {
  const fs = yield* FileSystem.FileSystem
  const file = yield* fileOf(journal, settings.name)
  yield* fs.writeFileString(`${file}.new`, `${JSON.stringify(settings, null, 2)}\n`)
  yield* fs.rename(`${file}.new`, file)
})

/** Fails with `SettingsMissing` where there are none, or none that make sense. */
export const load = Effect.fnUntraced(function* (journal: string, run: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* fileOf(journal, run)
  const missing = (problem: string) =>
    CommandError.make(new CommandError.SettingsMissing({ run, path, problem: problem.replaceAll(/\s+/g, " ") }))
  const text = yield* fs.readFileString(path).pipe(Effect.mapError((error) => missing(error.message)))
  return yield* Schema.decodeEffect(File)(text).pipe(Effect.mapError((error) => missing(error.message)))
})
