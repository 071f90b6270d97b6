/**
 * Reads lists of runs and checkpoints whose fields are all as they should be, which is nearly every one of them, several times as
 * fast as their schemas do. Whatever is in any way unusual it leaves to the schema, which knows what to make of it.
 */
import * as Option from "effect/Option"
import type { Checkpoint } from "../Checkpoint.ts"
import * as Time from "../Time.ts"
import type { TrainingRun } from "../TrainingRun.ts"

/** Thrown away at the first field that is not plain. */
const unusual = Symbol("unusual")

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

const isAbsent = (value: unknown): value is null | undefined => value === undefined || value === null

const text = (value: unknown): string => {
  if (typeof value !== "string") throw unusual
  return value
}

const time = (value: unknown) => {
  const read = typeof value === "string" ? Time.parse(value) : Option.none()
  if (Option.isNone(read)) throw unusual
  return read.value
}

const flag = (value: unknown): boolean => {
  if (typeof value !== "boolean") throw unusual
  return value
}

const whole = (value: unknown): number => {
  if (!Number.isSafeInteger(value)) throw unusual
  // Just said so.
  return value as number
}

const labels = (value: unknown): Record<string, string> => {
  if (!isRecord(value) || Array.isArray(value)) throw unusual
  const copy: Record<string, string> = {}
  for (const key of Object.keys(value)) {
    if (key === "__proto__") throw unusual
    copy[key] = text(value[key])
  }
  return copy
}

const checkpoint = (wire: unknown): Checkpoint => {
  if (!isRecord(wire)) throw unusual
  const { expires_at, public: open, size_bytes, user_metadata } = wire
  const size = isAbsent(size_bytes) ? undefined : whole(size_bytes)
  if (size !== undefined && size < 0) throw unusual
  return {
    checkpointId: text(wire.checkpoint_id),
    checkpointType: text(wire.checkpoint_type),
    time: time(wire.time),
    tinkerPath: text(wire.tinker_path),
    sizeBytes: size === undefined ? Option.none() : Option.some(size),
    public: isAbsent(open) ? false : flag(open),
    userMetadata: isAbsent(user_metadata) ? Option.none() : Option.some(labels(user_metadata)),
    expiresAt: isAbsent(expires_at) ? Option.none() : Option.some(time(expires_at))
  }
}

const run = (wire: unknown): TrainingRun => {
  if (!isRecord(wire)) throw unusual
  const { corrupted, last_checkpoint, last_sampler_checkpoint, lora_rank, user_metadata } = wire
  return {
    trainingRunId: text(wire.training_run_id),
    baseModel: text(wire.base_model),
    modelOwner: text(wire.model_owner),
    isLora: flag(wire.is_lora),
    corrupted: corrupted === undefined ? false : flag(corrupted),
    loraRank: isAbsent(lora_rank) ? Option.none() : Option.some(whole(lora_rank)),
    lastRequestTime: time(wire.last_request_time),
    lastCheckpoint: isAbsent(last_checkpoint) ? Option.none() : Option.some(checkpoint(last_checkpoint)),
    lastSamplerCheckpoint: isAbsent(last_sampler_checkpoint)
      ? Option.none()
      : Option.some(checkpoint(last_sampler_checkpoint)),
    userMetadata: isAbsent(user_metadata) ? Option.none() : Option.some(labels(user_metadata))
  }
}

const all = <A>(list: unknown, read: (wire: unknown) => A): ReadonlyArray<A> | undefined => {
  if (!Array.isArray(list)) return undefined
  try {
    return list.map(read)
  } catch (error) {
    if (error === unusual) return undefined
    throw error
  }
}

/** The runs of a list, or `undefined` where any of them is for the schema to judge. */
export const runs = (list: unknown): ReadonlyArray<TrainingRun> | undefined => all(list, run)

/** Likewise. */
export const checkpoints = (list: unknown): ReadonlyArray<Checkpoint> | undefined => all(list, checkpoint)
