/**
 * The view from behind the counter: what a test may know and do that no client of the API can.
 *
 * Read-only but for `poison` and `inject`. The same over HTTP under `/emulator/v1` for tests in other processes; see
 * `Emulator`.
 */
import * as Rest from "@tinkex/tinker/wire/Rest"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { EmulatorError } from "./EmulatorError.ts"
import * as FaultPlan from "./FaultPlan.ts"

/**
 * One `optim_step` that was applied, in the order of application. `step` is its index in the lineage, from 0: a model loaded
 * from a checkpoint begins with the entries of the checkpoint. `digest` covers the data, losses and loss settings whose
 * gradients the step applied, however the batch was cut into requests; a step on no gradients has the digest of nothing.
 */
export const LedgerEntry = Schema.Struct({
  seqId: Schema.Int,
  step: Schema.Int,
  digest: Schema.String,
  /** Examples whose gradients were applied. */
  datums: Schema.Int,
  modelId: Schema.String
})
export type LedgerEntry = typeof LedgerEntry.Type

/** A model in memory, or one that was. */
export const ModelSnapshot = Schema.Struct({
  modelId: Schema.String,
  sessionId: Schema.String,
  baseModel: Schema.String,
  loraRank: Schema.Int,
  status: Schema.Literals(["loaded", "unloaded"]),
  corrupted: Schema.Boolean,
  /** Steps applied in the lineage. */
  steps: Schema.Int,
  /** The sequence number that would be executed next. */
  nextSeqId: Schema.Int
})
export type ModelSnapshot = typeof ModelSnapshot.Type

/** One HTTP request as it was answered. `status` 0: the connection was dropped instead of a reply. */
export const RequestRecord = Schema.Struct({
  at: Schema.Number,
  endpoint: Schema.String,
  modelId: Schema.optionalKey(Schema.String),
  /** The sampling session of a request to sample. */
  samplerId: Schema.optionalKey(Schema.String),
  seqId: Schema.optionalKey(Schema.Int),
  /** Of the payload of a sequenced operation; equal for equal payloads. */
  digest: Schema.optionalKey(Schema.String),
  /** The operation had been accepted before. */
  duplicate: Schema.optionalKey(Schema.Boolean),
  status: Schema.Int
})
export type RequestRecord = typeof RequestRecord.Type

/** A checkpoint with what a listing does not tell. */
export const CheckpointSnapshot = Schema.Struct({
  path: Schema.String,
  runId: Schema.String,
  steps: Schema.Int,
  sizeBytes: Schema.Int,
  damage: Schema.NullOr(Schema.String)
})
export type CheckpointSnapshot = typeof CheckpointSnapshot.Type

/** One event that a client reported about itself, as it was sent. */
export const TelemetryRecord = Schema.Struct({
  /** `sessionless-...` where the client has none. */
  sessionId: Schema.String,
  event: Rest.TelemetryEvent
})
export type TelemetryRecord = typeof TelemetryRecord.Type

/** A fault that has fired; `at` in milliseconds since the epoch on the emulator's clock. */
export const FiredFault = Schema.Struct({
  fault: FaultPlan.Fault,
  at: Schema.Number,
  modelId: Schema.optionalKey(Schema.String),
  samplerId: Schema.optionalKey(Schema.String),
  seqId: Schema.optionalKey(Schema.Int)
})
export type FiredFault = typeof FiredFault.Type

/** What an emulator lets its owner see and do. */
export interface EmulatorControl {
  /** Every model of this process, oldest first. */
  readonly models: Effect.Effect<ReadonlyArray<ModelSnapshot>>
  /** The lineage of a model, also of one that is unloaded or corrupted. `ModelNotFound` for one that never was. */
  readonly ledger: (modelId: string) => Effect.Effect<ReadonlyArray<LedgerEntry>, EmulatorError>
  /** Sha-256 (hex) over configuration, weights and optimizer. */
  readonly stateHash: (modelId: string) => Effect.Effect<string, EmulatorError>
  /** Sha-256 (hex) over configuration and weights. */
  readonly weightsHash: (modelId: string) => Effect.Effect<string, EmulatorError>
  readonly checkpoints: Effect.Effect<ReadonlyArray<CheckpointSnapshot>>
  /** Flags the model's run corrupted and fails everything it still has to do. */
  readonly poison: (modelId: string) => Effect.Effect<void, EmulatorError>
  /** Arms more faults. Occurrences and saves are counted from now on; steps are absolute. */
  readonly inject: (plan: FaultPlan.FaultPlan) => Effect.Effect<void>
  /** The faults that have fired, oldest first. */
  readonly firedFaults: Effect.Effect<ReadonlyArray<FiredFault>>
  /** The newest 100,000 events of telemetry, oldest first. */
  readonly telemetry: Effect.Effect<ReadonlyArray<TelemetryRecord>>
  /** The newest 100,000 requests, oldest first. */
  readonly requests: Effect.Effect<ReadonlyArray<RequestRecord>>
}
