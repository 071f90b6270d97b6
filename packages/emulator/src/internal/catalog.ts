/**
 * Training runs and their checkpoints: what outlives a model, and, given a directory, the process.
 *
 * One JSON file per run, replaced as a whole (written aside, then renamed), so that a process that is killed leaves either
 * the old or the new description. A file that cannot be read stops the start: nothing is dropped silently.
 */
import * as NodeFs from "node:fs/promises"
import * as NodePath from "node:path"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { LedgerEntry } from "../EmulatorControl.ts"
import { EmulatorError, StorageFailed } from "../EmulatorError.ts"
import { anybody } from "./gate.ts"

// A save that is absent leaves no record.
const Damage = Schema.Literals([
  "truncated",
  "empty",
  "missing",
  "vanishing",
  "altered",
  "poisonedOnLoad",
  "poisonedOnStep"
])

/** Training checkpoints hold the optimizer too; the others are for sampling only, here or by other programs. */
const CheckpointKind = Schema.Literals(["weights", "sampler_weights", "external_weights"])
export type CheckpointKind = typeof CheckpointKind.Type

/** What a checkpoint is called where its files are kept. */
export const storeId = (runId: string, kind: CheckpointKind, name: string) => `${runId}/${kind}/${name}`

const CheckpointRecord = Schema.Struct({
  kind: CheckpointKind.pipe(Schema.withDecodingDefaultKey(Effect.succeed("weights" as const))),
  name: Schema.String,
  savedAt: Schema.Number,
  sizeBytes: Schema.Number,
  /** Steps of the lineage that it contains: a prefix of the run's ledger. */
  steps: Schema.Number,
  expiresAt: Schema.NullOr(Schema.Number),
  damage: Schema.NullOr(Damage),
  userMetadata: Schema.NullOr(Schema.Record(Schema.String, Schema.String)).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed(null))
  ),
  public: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false)))
})
export type CheckpointRecord = typeof CheckpointRecord.Type

const RunRecord = Schema.Struct({
  id: Schema.String,
  owner: Schema.String.pipe(Schema.withDecodingDefaultKey(Effect.succeed(anybody))),
  baseModel: Schema.String,
  rank: Schema.Number,
  seed: Schema.Number,
  trainMlp: Schema.Boolean,
  trainAttn: Schema.Boolean,
  trainUnembed: Schema.Boolean,
  userMetadata: Schema.NullOr(Schema.Record(Schema.String, Schema.String)),
  projectId: Schema.NullOr(Schema.String),
  createdAt: Schema.Number,
  lastRequestAt: Schema.Number,
  corrupted: Schema.Boolean,
  ledger: Schema.Array(LedgerEntry),
  checkpoints: Schema.Array(CheckpointRecord)
})

export interface Run extends Omit<
  typeof RunRecord.Type,
  "projectId" | "lastRequestAt" | "corrupted" | "ledger" | "checkpoints"
> {
  projectId: string | null
  lastRequestAt: number
  corrupted: boolean
  ledger: Array<LedgerEntry>
  checkpoints: Array<CheckpointRecord>
}

const RunFile = Schema.fromJsonString(RunRecord)
const decodeFile = Schema.decodeEffect(RunFile)
const Meta = Schema.fromJsonString(Schema.Struct({ boots: Schema.Number }))

const storageFailed = (path: string) => (cause: unknown) =>
  new EmulatorError({
    reason: new StorageFailed({ path, problem: cause instanceof Error ? cause.message : String(cause) })
  })

const attempt = <A>(path: string, run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: storageFailed(path) })

const replace = (file: string, text: string) =>
  attempt(file, async () => {
    const aside = `${file}.new`
    await NodeFs.writeFile(aside, text)
    await NodeFs.rename(aside, file)
  })

const isAbsent = (cause: unknown) => cause instanceof Error && "code" in cause && cause.code === "ENOENT"

export interface Catalog {
  readonly runs: Map<string, Run>
  /** How many emulators have used this directory before; 0 in memory. */
  readonly boot: number
  /** Returns when the description of the run is on disk (at once without a directory). */
  readonly persist: (run: Run) => Effect.Effect<void, EmulatorError>
}

export const memory = (): Catalog => ({ runs: new Map(), boot: 0, persist: () => Effect.void })

export const open = Effect.fnUntraced(function* (directory: string): Effect.fn.Return<Catalog, EmulatorError> {
  const folder = NodePath.join(directory, "runs")
  yield* attempt(folder, () => NodeFs.mkdir(folder, { recursive: true }))

  const metaFile = NodePath.join(directory, "emulator.json")
  const meta = yield* attempt(metaFile, () =>
    NodeFs.readFile(metaFile, "utf8").catch((cause: unknown) => {
      if (isAbsent(cause)) return `{"boots":0}`
      throw cause
    })
  )
  const { boots } = yield* Effect.mapError(Schema.decodeEffect(Meta)(meta), storageFailed(metaFile))
  yield* replace(metaFile, JSON.stringify({ boots: boots + 1 }))

  const runs = new Map<string, Run>()
  const names = yield* attempt(folder, () => NodeFs.readdir(folder))
  for (const name of names) {
    if (!name.endsWith(".json")) continue
    const file = NodePath.join(folder, name)
    const text = yield* attempt(file, () => NodeFs.readFile(file, "utf8"))
    const record = yield* Effect.mapError(decodeFile(text), storageFailed(file))
    runs.set(record.id, { ...record, ledger: [...record.ledger], checkpoints: [...record.checkpoints] })
  }
  /** One description of a run is written at a time, each as the run is when its turn comes. */
  const turns = new WeakMap<Run, Semaphore.Semaphore>()
  const turnOf = (run: Run) => {
    const turn = turns.get(run) ?? Semaphore.makeUnsafe(1)
    turns.set(run, turn)
    return turn
  }
  return {
    runs,
    boot: boots,
    persist: (run) => {
      const write = Effect.suspend(() =>
        replace(NodePath.join(folder, `${encodeURIComponent(run.id)}.json`), JSON.stringify(run))
      )
      // Who goes away meanwhile does not take the file along.
      return Effect.suspend(() => Semaphore.withPermit(turnOf(run), Effect.uninterruptible(write)))
    }
  }
})
