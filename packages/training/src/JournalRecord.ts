/**
 * What a run writes down. The records of one run, in order, are all that a later process needs to go on with it.
 *
 * A record is durable before the action that it announces, except for those marked lazy: losing a lazy record only makes the
 * next process know less, and so choose an older checkpoint, never a wrong one.
 *
 * | record | durable | says |
 * | --- | --- | --- |
 * | `Run` | yes | header: what the run is; a changed one is refused |
 * | `Epoch` | yes | a new writer has the lease; every lower epoch is fenced |
 * | `Attempt` | yes | a model is about to be made for the run |
 * | `Created` | yes | the model exists, but is not ready yet |
 * | `Started` | yes | the model is loaded and may be sent steps |
 * | `Reattached` | yes | this writer goes on with a model of a dead one |
 * | `Step` | yes | a step is about to be sent, with its places in the sequence and the digest of each payload; with `open`, the part of it that its function has asked for so far |
 * | `Commit` | lazy | every result of the step is in |
 * | `Skipped` | yes | this step's batch is left out, by every later attempt too |
 * | `Spooled`, `Unspooled` | yes, lazy | what a step has gathered is kept in a file of its own, so that it is not gathered again · it is gone |
 * | `Evaluating`, `Evaluated` | yes | an evaluation uses the model after so many steps · what it found |
 * | `Save` | yes | a save of its own, not behind a step, is about to be sent |
 * | `Verified` | yes | a checkpoint may be restored from |
 * | `Renewed` | lazy | the server keeps it until then |
 * | `Pinned` | yes | it is never deleted, or may be again |
 * | `Proven` | lazy | it was loaded once, and worked |
 * | `SaveDead` | yes | this save is never believed again |
 * | `Incident` | yes | the attempt is over, and why |
 * | `Quarantine` | yes | the checkpoint is never picked again |
 * | `DeleteIntent`, `Deleted` | yes, lazy | from the intent on it is no candidate |
 * | `Paused`, `Resumed` | lazy | accounting only |
 * | `Completed`, `Ended` | yes | the run is over |
 * | `Snapshot` | yes | what all records before it add up to; they are gone |
 */
import type * as DateTime from "effect/DateTime"
import * as Schema from "effect/Schema"
import { IncidentCause } from "./RunGuard.ts"

/** A whole number, 0 or more. */
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const Metrics = Schema.Record(Schema.String, Schema.Number)

/** The shape of the model: a restored one must agree with it. */
export const ModelConfig = Schema.Struct({
  baseModel: Schema.String,
  rank: Count,
  seed: Schema.Int,
  trainMlp: Schema.Boolean,
  trainAttn: Schema.Boolean,
  trainUnembed: Schema.Boolean
})
export type ModelConfig = typeof ModelConfig.Type

/**
 * What the server does with an operation that it receives a second time: D0 executes it again, D1 refuses it, D2 returns the
 * original while its future lives, D3 for the life of the model.
 */
export const Capability = Schema.Literals(["D0", "D1", "D2", "D3"])
export type Capability = typeof Capability.Type

/**
 * The process that writes a journal. `bootId` names one boot of one kernel, `file` the journal's own device and inode; each is
 * `null` where the system does not tell.
 */
export const Owner = Schema.Struct({
  host: Schema.String,
  bootId: Schema.NullOr(Schema.String),
  pid: Count,
  file: Schema.NullOr(Schema.String)
})
export type Owner = typeof Owner.Type

/** One request of a step: its places in the model's sequence and the SHA-256 of its payload. */
export const Operation = Schema.Struct({
  kind: Schema.Literals([
    "forward_backward",
    "forward",
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "load_weights"
  ]),
  seqIds: Schema.Array(Count),
  digest: Schema.String
})
export type Operation = typeof Operation.Type

export const Run = Schema.TaggedStruct("Run", {
  journalId: Schema.String,
  run: Schema.String,
  /** 8 hexadecimal digits that name the run inside checkpoint names. */
  runHash: Schema.String,
  /** The whole configuration, to show what has changed. */
  config: Schema.Json,
  configDigest: Schema.String,
  dataDigest: Schema.String,
  programVersion: Schema.String,
  totalSteps: Count,
  seed: Schema.Int,
  capability: Capability,
  model: ModelConfig
})

export const Epoch = Schema.TaggedStruct("Epoch", { owner: Owner, formerOwnerDead: Schema.Boolean })

export const Attempt = Schema.TaggedStruct("Attempt", {
  attempt: Count,
  /** The checkpoint; `null` is the base model. */
  from: Schema.NullOr(Schema.String),
  fromStep: Count,
  /** The incident that made it necessary, if one did. */
  incident: Schema.NullOr(Schema.String)
})

export const Created = Schema.TaggedStruct("Created", {
  attempt: Count,
  trainingRunId: Schema.String,
  sessionId: Schema.String
})

export const Started = Schema.TaggedStruct("Started", {
  attempt: Count,
  trainingRunId: Schema.String,
  sessionId: Schema.String,
  nextSeq: Count
})

export const Reattached = Schema.TaggedStruct("Reattached", { attempt: Count })

export const Step = Schema.TaggedStruct("Step", {
  attempt: Count,
  step: Count,
  ops: Schema.Array(Operation),
  /** The save queued right behind the step; it holds `binds` steps. */
  save: Schema.NullOr(Schema.Struct({ name: Schema.String, binds: Count })),
  /** The state of the loop after the step. */
  userState: Schema.Json,
  /** More operations of this step follow; a later record of it replaces this one. */
  open: Schema.optionalKey(Schema.Boolean)
})

export const Skipped = Schema.TaggedStruct("Skipped", { step: Count, why: Schema.String })

export const Spooled = Schema.TaggedStruct("Spooled", {
  attempt: Count,
  step: Count,
  /** What the step's function calls it. */
  name: Schema.String,
  /** SHA-256 of the contents, which is the name of the file. */
  digest: Schema.String
})

/** What the step had gathered is gone: no restore can come back to it. */
export const Unspooled = Schema.TaggedStruct("Unspooled", { step: Count })

export const Evaluating = Schema.TaggedStruct("Evaluating", { attempt: Count, step: Count })

export const Evaluated = Schema.TaggedStruct("Evaluated", {
  attempt: Count,
  /** Steps applied when it was made. */
  step: Count,
  metrics: Metrics,
  /** The model's next place in its sequence afterwards. */
  nextSeq: Count
})

export const Save = Schema.TaggedStruct("Save", {
  attempt: Count,
  name: Schema.String,
  /** Steps applied in it. */
  binds: Count,
  op: Operation,
  userState: Schema.Json
})

export const Commit = Schema.TaggedStruct("Commit", { attempt: Count, step: Count, metrics: Metrics })

export const Verified = Schema.TaggedStruct("Verified", {
  path: Schema.String,
  name: Schema.String,
  attempt: Count,
  /** Steps applied in it. */
  step: Count,
  sizeBytes: Schema.NullOr(Count),
  userState: Schema.Json,
  metrics: Schema.optionalKey(Metrics),
  /** Log-probabilities of a small batch, as the model gave them right behind the save. */
  probe: Schema.optionalKey(Schema.Array(Schema.Number)),
  /** When it was acknowledged, in milliseconds since the epoch, by the writer's clock. */
  savedAt: Schema.optionalKey(Schema.Number),
  /** When the server drops it, in milliseconds since the epoch; absent: never. */
  expiresAt: Schema.optionalKey(Schema.Number)
})

export const Renewed = Schema.TaggedStruct("Renewed", {
  path: Schema.String,
  /** Milliseconds since the epoch; `null` keeps it for ever. */
  expiresAt: Schema.NullOr(Schema.Number)
})

export const Pinned = Schema.TaggedStruct("Pinned", { path: Schema.String, pinned: Schema.Boolean })

export const Proven = Schema.TaggedStruct("Proven", { path: Schema.String })

export const SaveDead = Schema.TaggedStruct("SaveDead", { name: Schema.String, why: Schema.String })

export const Incident = Schema.TaggedStruct("Incident", {
  id: Schema.String,
  attempt: Count,
  cause: IncidentCause,
  detail: Schema.String,
  /** Steps committed when it was detected. */
  step: Count,
  /** What was saved after so many steps may hold the damage, where it is known. */
  onset: Schema.optionalKey(Count),
  /** The run ended there by its own policy; absent where a restore was to follow. */
  stopped: Schema.optionalKey(Schema.Literal(true)),
  /** When it was detected, in milliseconds since the epoch. */
  at: Schema.optionalKey(Schema.Number),
  /** What was saved later may hold the damage: the flag may have been due since then. Milliseconds since the epoch. */
  wellUntil: Schema.optionalKey(Schema.Number)
})

export const Quarantine = Schema.TaggedStruct("Quarantine", { path: Schema.String, why: Schema.String })

export const DeleteIntent = Schema.TaggedStruct("DeleteIntent", { path: Schema.String })

export const Deleted = Schema.TaggedStruct("Deleted", { path: Schema.String })

export const Paused = Schema.TaggedStruct("Paused", { cause: Schema.String })

export const Resumed = Schema.TaggedStruct("Resumed", { cause: Schema.String })

export const Completed = Schema.TaggedStruct("Completed", {
  path: Schema.NullOr(Schema.String),
  step: Count,
  metrics: Metrics
})

export const Ended = Schema.TaggedStruct("Ended", { tag: Schema.String, detail: Schema.String })

/** What a compacted journal begins with: the fold of all that stood before, and its account of time. */
export const Snapshot = Schema.TaggedStruct("Snapshot", { state: Schema.Json, account: Schema.Json })

export const JournalRecord = Schema.Union([
  Run,
  Epoch,
  Attempt,
  Created,
  Started,
  Reattached,
  Step,
  Commit,
  Skipped,
  Spooled,
  Unspooled,
  Evaluating,
  Evaluated,
  Save,
  Verified,
  Renewed,
  Pinned,
  Proven,
  SaveDead,
  Incident,
  Quarantine,
  DeleteIntent,
  Deleted,
  Paused,
  Resumed,
  Completed,
  Ended,
  Snapshot
])
export type JournalRecord = typeof JournalRecord.Type

/** A record with its place in the journal. */
export interface Stamped {
  /** Counts from 0 without a gap. */
  readonly n: number
  /** The writer; a higher one fences all lower ones. */
  readonly epoch: number
  /** Wall-clock time of the writer, for people: nothing is decided by it. */
  readonly t: DateTime.Utc
  readonly record: JournalRecord
}
