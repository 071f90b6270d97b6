/** Runs what `TrainSettings` describe to its end: shared by `train`, `recover now` and the demo. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { FaultPlan } from "@tinkex/emulator/FaultPlan"
import { Recovery } from "@tinkex/recovery/Recovery"
import type { RecoveryPolicyOptions } from "@tinkex/recovery/RecoveryPolicy"
import { Tokenizer } from "@tinkex/tinker/Tokenizer"
import * as CheckpointPolicy from "@tinkex/training/CheckpointPolicy"
import * as Dataset from "@tinkex/training/Dataset"
import { Journal } from "@tinkex/training/Journal"
import * as LearningRate from "@tinkex/training/LearningRate"
import * as Trainer from "@tinkex/training/Trainer"
import type { TrainingError } from "@tinkex/training/TrainingError"
import * as CommandError from "./CommandError.ts"
import { Output } from "./Output.ts"
import * as Progress from "./output/Progress.ts"
import * as Report from "./output/Report.ts"
import * as Server from "./Server.ts"
import * as TrainSettings from "./TrainSettings.ts"

export interface TrainingOptions {
  /** The folder of all journals. */
  readonly journal: string
  /** `undefined`: a failed run ends the command. */
  readonly recovery: RecoveryPolicyOptions | undefined
  readonly force: boolean
  readonly faults: FaultPlan | undefined
}

const learningRate = ({ learningRate, schedule, warmup }: TrainSettings.TrainSettings): LearningRate.LearningRate => {
  switch (schedule) {
    case "constant":
      return LearningRate.constant(learningRate, { warmup })
    case "linear":
      return LearningRate.linear({ peak: learningRate, warmup })
    case "cosine":
      return LearningRate.cosine({ peak: learningRate, warmup })
  }
}

/** The data, cut at `steps`; `weightOf` tells once, for each batch that was made, how many tokens it learns from. */
const openData = Effect.fnUntraced(function* (settings: TrainSettings.TrainSettings) {
  const { batchSize, data, epochs, seed, steps } = settings
  const dataset = yield* Dataset.jsonl(data, { batchSize, epochs, shuffleSeed: seed })
  const weights = new Map<number, number>()
  const cut: Dataset.Dataset = {
    digest: dataset.digest,
    totalSteps: Math.min(dataset.totalSteps, steps ?? dataset.totalSteps),
    config: { ...Object(dataset.config), steps },
    batch: (k) =>
      Effect.tap(dataset.batch(k), (batch) =>
        Effect.sync(() => {
          let weight = 0
          for (const { lossFnInputs } of batch) {
            const data = lossFnInputs["weights"]?.data
            for (let i = 0; i < (data?.length ?? 0); i++) weight += data?.[i] ?? 0
          }
          weights.set(k, weight)
        })
      )
  }
  const weightOf = (step: number) => {
    const weight = weights.get(step)
    weights.delete(step)
    return weight
  }
  return { dataset: cut, weightOf }
})

const shell = (text: string) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`)

/** The command that recovers a run. */
export const recoverCommand = (run: string, journal: string): string =>
  `tinkex recover now ${shell(run)} --yes --journal ${shell(journal)}`

/**
 * Trains, tells how it goes and how it ended. A run that fails while recovery is off fails with `RunStopped`; an interruption
 * leaves a note that says how to go on.
 */
export const execute = Effect.fn("Training.execute")(
  function* (settings: TrainSettings.TrainSettings, options: TrainingOptions) {
    const output = yield* Output
    const { dataset, weightOf } = yield* openData(settings)
    const folder = yield* TrainSettings.prepare(options.journal, settings.name)
    const progress = yield* Progress.make(output, weightOf)
    const context = yield* Effect.context<Effect.Services<ReturnType<typeof TrainSettings.store>>>()
    const stored = TrainSettings.store(options.journal, settings).pipe(
      Effect.provide(context),
      Effect.catch((error) => output.note(`! the settings could not be kept for recover now: ${error.message}`))
    )

    const trained = Effect.gen(function* () {
      yield* Server.check(settings.model)
      const report = yield* Trainer.fineTune({
        name: settings.name,
        model: { baseModel: settings.model, rank: settings.rank, seed: settings.seed },
        data: Effect.succeed(dataset),
        learningRate: learningRate(settings),
        checkpoints: CheckpointPolicy.everySteps(settings.saveEvery, { keepLast: settings.keepLast }),
        pipelining: settings.pipelining,
        capability: settings.target._tag === "Service" ? "D0" : "D3",
        force: options.force,
        onEvent: (event) =>
          // Only the holder of the lease, with settings that fit the journal, gets so far.
          event._tag === "RunOpened" ? Effect.andThen(stored, progress.onEvent(event)) : progress.onEvent(event)
      })
      const inspector = yield* Server.Inspector
      const stateHash = yield* inspector.stateHash(report.trainingRunId)
      return { report, losses: progress.losses(), stateHash }
    })

    const server = Server.layer(settings.target, { directory: folder, faults: options.faults })
    const guarded =
      options.recovery === undefined
        ? trained
        : Effect.provide(trained, Recovery.layerConfig({ ...options.recovery, enabled: true }))
    return yield* guarded.pipe(
      Effect.provide(server),
      Effect.ensuring(output.status("")),
      Effect.onInterrupt(() =>
        output.note(`Interrupted after step ${progress.done()}. Give the same command again to go on.`)
      ),
      Effect.catchTag("TrainingError", (error): Effect.Effect<never, CommandError.CommandError | TrainingError> => {
        const { reason } = error
        const command = recoverCommand(settings.name, options.journal)
        if (reason._tag === "RecoveryGivenUp") {
          const { cause, detail, incident, run, step, trainingRunId, tries } = reason
          const lost = { run, trainingRunId, incident, cause, detail, tries, step, command }
          return Effect.fail(CommandError.make(new CommandError.RecoveryGivenUp(lost)))
        }
        if (reason._tag !== "RunFailed") return Effect.fail(error)
        const { cause, checkpoint, detail, run, step, trainingRunId } = reason
        const stopped = { run, trainingRunId, incident: reason.incident, cause, detail, step, checkpoint, command }
        return Effect.fail(CommandError.make(new CommandError.RunStopped(stopped)))
      })
    )
  },
  (effect, settings, options) =>
    effect.pipe(
      Effect.provide(
        Layer.mergeAll(
          settings.tokenizer === null ? Tokenizer.layerBytes : Tokenizer.layerDirectory(settings.tokenizer),
          Journal.layerFileSystem(options.journal)
        )
      ),
      (ready) => (settings.target._tag === "Service" ? Effect.andThen(Server.requireKey, ready) : ready)
    )
)

/** The final report, where the output wants it. */
export const announce = Effect.fnUntraced(function* (ending: Report.Ending) {
  const output = yield* Output
  if (output.format === "json") return yield* output.emit(Report.json(ending))
  yield* Effect.forEach(Report.lines(ending), output.print, { discard: true })
})
