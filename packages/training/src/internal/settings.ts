import * as Effect from "effect/Effect"
import type { AdamParams } from "@tinkex/tinker/TrainingClient"
import * as CheckpointPolicy from "../CheckpointPolicy.ts"
import type { Dataset } from "../Dataset.ts"
import type { OpenJournal } from "../Journal.ts"
import type { Capability, ModelConfig } from "../JournalRecord.ts"
import * as LearningRate from "../LearningRate.ts"
import type { TrainerEvent } from "../RunReport.ts"
import type { FineTuneOptions } from "../Trainer.ts"
import { TrainingError } from "../TrainingError.ts"
import * as Digest from "./digest.ts"
import type { RunLog } from "./runLog.ts"

/** Checked options, without gaps. */
export interface Settings {
  readonly name: string
  readonly model: ModelConfig
  readonly learningRate: LearningRate.LearningRate
  readonly adam: Omit<AdamParams, "learningRate">
  readonly checkpoints: CheckpointPolicy.CheckpointPolicy
  readonly pipelining: number
  readonly programVersion: string
  readonly capability: Capability
  readonly force: boolean
  readonly rehearse: boolean
  readonly userMetadata: Record<string, string>
  readonly onEvent: (event: TrainerEvent) => Effect.Effect<void>
}

export const validate = Effect.fnUntraced(function* <E, R>(options: FineTuneOptions<E, R>) {
  const rank = options.model.rank ?? 32
  const pipelining = options.pipelining ?? 1
  const refuse = (field: string, value: unknown, problem: string) => TrainingError.invalidOption(field, value, problem)
  if (!Number.isInteger(rank) || rank < 1) return yield* refuse("model.rank", rank, "must be a whole number above 0")
  if (!Number.isInteger(pipelining) || pipelining < 0 || pipelining > 8) {
    return yield* refuse("pipelining", pipelining, "must be a whole number from 0 to 8")
  }
  if (options.model.baseModel.trim() === "")
    return yield* refuse("model.baseModel", options.model.baseModel, "is empty")
  const learningRate =
    typeof options.learningRate === "number" ? LearningRate.constant(options.learningRate) : options.learningRate
  const { onEvent } = options
  const checkpoints = options.checkpoints ?? CheckpointPolicy.everySteps(50)
  const invalid = learningRate.invalid ?? checkpoints.invalid
  if (invalid !== undefined) return yield* new TrainingError({ reason: invalid })
  const settings: Settings = {
    name: options.name,
    model: {
      baseModel: options.model.baseModel,
      rank,
      seed: options.model.seed ?? 0,
      trainMlp: options.model.trainMlp ?? true,
      trainAttn: options.model.trainAttn ?? true,
      trainUnembed: options.model.trainUnembed ?? true
    },
    learningRate,
    adam: options.adam ?? {},
    checkpoints,
    pipelining,
    programVersion: options.programVersion ?? "1",
    capability: options.capability ?? "D0",
    force: options.force ?? false,
    rehearse: options.rehearse ?? true,
    userMetadata: options.userMetadata ?? {},
    onEvent: (event) =>
      onEvent === undefined
        ? Effect.void
        : onEvent(event).pipe(
            Effect.catchDefect((defect) => Effect.logWarning(`onEvent died on ${event._tag}`, defect))
          )
  }
  return settings
})

/** The part of the settings that decides the result: a change of it makes another run. */
const identity = (settings: Settings, dataset: Dataset) => ({
  model: settings.model,
  learningRate: settings.learningRate.config,
  adam: Object.fromEntries(Object.entries(settings.adam).map(([name, value]) => [name, value ?? null])),
  data: dataset.config,
  totalSteps: dataset.totalSteps
})

/** Writes the header of a new run, or holds the settings against the one that is there. Gives the run's hash. */
export const openRun = Effect.fnUntraced(function* (
  settings: Settings,
  dataset: Dataset,
  open: OpenJournal,
  log: RunLog
) {
  const config = identity(settings, dataset)
  const header = log.state().run
  const now = {
    configDigest: Digest.ofJson(config),
    dataDigest: dataset.digest,
    programVersion: settings.programVersion
  }
  if (header === undefined) {
    const journalId = crypto.randomUUID()
    const runHash = Digest.ofText(`${settings.name}\n${journalId}`).slice(0, 8)
    yield* log.append({
      _tag: "Run",
      journalId,
      run: open.run,
      runHash,
      config,
      ...now,
      totalSteps: dataset.totalSteps,
      seed: settings.model.seed,
      capability: settings.capability,
      model: settings.model
    })
    return runHash
  }
  const diff = [
    ...Digest.diff(header.config, config),
    ...(header.dataDigest === now.dataDigest ? [] : [`data: its contents have changed`]),
    ...(header.programVersion === now.programVersion
      ? []
      : [`programVersion: ${header.programVersion} -> ${now.programVersion}`])
  ]
  if (diff.length > 0 && !settings.force) return yield* TrainingError.configChanged(settings.name, diff)
  return header.runHash
})
