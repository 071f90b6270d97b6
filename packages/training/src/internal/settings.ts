import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type { Datum } from "@tinkex/tinker/Datum"
import * as CheckpointPolicy from "../CheckpointPolicy.ts"
import * as Divergence from "../Divergence.ts"
import type { OpenJournal } from "../Journal.ts"
import type { Capability, ModelConfig } from "../JournalRecord.ts"
import { type InvalidOption, invalidOption } from "../JournalError.ts"
import type { TrainerEvent } from "../RunReport.ts"
import type { RunOptions } from "../RunOptions.ts"
import { TrainingError } from "../TrainingError.ts"
import * as Digest from "./digest.ts"
import type { RunLog } from "./runLog.ts"
import * as SectionLimits from "./sectionLimits.ts"

/** Checked options, without gaps. */
export interface Settings {
  readonly name: string
  readonly model: ModelConfig
  readonly checkpoints: CheckpointPolicy.CheckpointPolicy
  readonly pipelining: number
  readonly programVersion: string
  readonly capability: Capability
  readonly force: boolean
  readonly takeOver: boolean
  readonly rehearse: boolean
  readonly probe: ReadonlyArray<Datum> | undefined
  /** In milliseconds: what was asked for, if anything was. */
  readonly horizon: number | undefined
  readonly divergence: Divergence.Divergence
  readonly stall: SectionLimits.LimitsOptions
  /** In milliseconds. */
  readonly pauseLimit: number
  readonly userMetadata: Record<string, string>
  readonly onEvent: (event: TrainerEvent) => Effect.Effect<void>
}

const defaults = {
  stallFloor: Duration.minutes(2),
  stallWarmup: Duration.minutes(30),
  stallFactor: 5,
  pauseLimit: Duration.hours(24)
}

export const validate = Effect.fnUntraced(function* (options: RunOptions, evaluates: boolean) {
  const rank = options.model.rank ?? 32
  const pipelining = options.pipelining ?? 1
  let problem: InvalidOption | undefined
  const refuse = (field: string, value: unknown, why: string) => {
    problem ??= invalidOption(field, value, why)
  }
  const millis = (field: string, input: Duration.Input | undefined, fallback: Duration.Duration) => {
    const duration = input === undefined ? Option.some(fallback) : Duration.fromInput(input)
    const value = Option.match(duration, { onNone: () => Number.NaN, onSome: Duration.toMillis })
    if (!(value >= 0)) refuse(field, input, "must be a time, 0 or more")
    return value
  }
  if (!Number.isInteger(rank) || rank < 1) refuse("model.rank", rank, "must be a whole number above 0")
  if (!Number.isInteger(pipelining) || pipelining < 0 || pipelining > 8) {
    refuse("pipelining", pipelining, "must be a whole number from 0 to 8")
  }
  if (options.model.baseModel.trim() === "") refuse("model.baseModel", options.model.baseModel, "is empty")
  if (options.probe?.length === 0) refuse("probe", "[]", "must hold a datum")
  const { onEvent } = options
  const checkpoints = options.checkpoints ?? CheckpointPolicy.everySteps(50)
  const divergence = Divergence.resolve(options.divergence)
  const stall = {
    floor: millis("stall.floor", options.stall?.floor, defaults.stallFloor),
    factor: options.stall?.factor ?? defaults.stallFactor,
    warmup: millis("stall.warmup", options.stall?.warmup, defaults.stallWarmup)
  }
  if (checkpoints.needsEvaluation && !evaluates) {
    refuse("checkpoints", "on_improvement", "needs an evaluation that it can go by (evaluate)")
  }
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
    checkpoints,
    pipelining,
    programVersion: options.programVersion ?? "1",
    capability: options.capability ?? "D0",
    force: options.force ?? false,
    takeOver: options.takeOver ?? false,
    rehearse: options.rehearse ?? true,
    probe: options.probe,
    horizon: options.horizon === undefined ? undefined : millis("horizon", options.horizon, Duration.zero),
    divergence,
    stall,
    pauseLimit: millis("pauseLimit", options.pauseLimit, defaults.pauseLimit),
    userMetadata: options.userMetadata ?? {},
    onEvent: (event) =>
      onEvent === undefined
        ? Effect.void
        : onEvent(event).pipe(
            Effect.catchDefect((defect) => Effect.logWarning(`onEvent died on ${event._tag}`, defect))
          )
  }
  const invalid = problem ?? checkpoints.invalid ?? Divergence.invalid(divergence) ?? SectionLimits.invalid(stall)
  if (invalid !== undefined) return yield* new TrainingError({ reason: invalid })
  return settings
})

/** What decides the result of a run, beside its name. */
export interface Identity {
  /** As data: a change of it makes another run. The model is added. */
  readonly config: Readonly<Record<string, Schema.Json>>
  readonly dataDigest: string
  readonly totalSteps: number
}

/** Writes the header of a new run, or holds the settings against the one that is there. Gives the run's hash. */
export const openRun = Effect.fnUntraced(function* (
  settings: Settings,
  identity: Identity,
  open: OpenJournal,
  log: RunLog
) {
  const { dataDigest, totalSteps } = identity
  const config = { model: settings.model, ...identity.config, totalSteps }
  const header = log.state().run
  const now = {
    configDigest: Digest.ofJson(config),
    dataDigest,
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
      totalSteps,
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
