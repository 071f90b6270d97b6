/**
 * Checkpoints as directories of files in the PEFT layout, on disk or in memory.
 *
 * Guaranteed: a checkpoint appears whole (marker included) or not at all, whenever the process is killed; what was saved comes back bit
 * for bit; every read compares sizes and sha-256 digests, so damage is an error and never a wrong weight. Not guaranteed: survival of
 * a power failure (files are not synced), nor two stores on one directory at the same time - the directory belongs to one emulator.
 *
 * Files of a checkpoint: `adapter_model.safetensors` (LoRA pairs, F64), `adapter_config.json`, `optimizer.safetensors` (training
 * checkpoints only), `meta.json` (sizes, digests and the saver's own data), `checkpoint_complete`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

import { type CheckpointFiles, inDirectory, inMemory } from "./internal/checkpointFiles.ts"
import * as Format from "./internal/checkpointFormat.ts"
import type { LanguageModelError, Snapshot } from "./LanguageModel.ts"

/** An id that cannot name a directory. @since 0.1.0 */
export class InvalidId extends Schema.TaggedError<InvalidId>()("InvalidId", { id: Schema.String }) {
  override get message() {
    return `checkpoint id ${JSON.stringify(this.id)} cannot be stored. Use printable ASCII without spaces, short enough for the name of a directory.`
  }
  get isRetryable() {
    return false
  }
}

/** A checkpoint of that id exists. @since 0.1.0 */
export class AlreadyExists extends Schema.TaggedError<AlreadyExists>()("AlreadyExists", { id: Schema.String }) {
  override get message() {
    return `checkpoint ${this.id} exists already. Choose another name or remove it first.`
  }
  get isRetryable() {
    return false
  }
}

/** No checkpoint of that id. @since 0.1.0 */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { id: Schema.String }) {
  override get message() {
    return `checkpoint ${this.id} does not exist. List the checkpoints to see what is there.`
  }
  get isRetryable() {
    return false
  }
}

/** A file of the checkpoint is missing, cut short, altered or not in the expected format. @since 0.1.0 */
export class Damaged extends Schema.TaggedError<Damaged>()("Damaged", {
  id: Schema.String,
  file: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `checkpoint ${this.id} is damaged: ${this.file}: ${this.problem}. Use an older checkpoint.`
  }
  get isRetryable() {
    return false
  }
}

/** The storage underneath failed. @since 0.1.0 */
export class StorageFailed extends Schema.TaggedError<StorageFailed>()("StorageFailed", {
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `checkpoint storage failed during ${this.operation}: ${String(this.cause)}. Check that the directory exists, is writable and has room.`
  }
  get isRetryable() {
    return true
  }
}

/** Everything that can go wrong with stored checkpoints; `reason` says which. @since 0.1.0 */
export class CheckpointStoreError extends Schema.TaggedError<CheckpointStoreError>()("CheckpointStoreError", {
  reason: Schema.Union([InvalidId, AlreadyExists, NotFound, Damaged, StorageFailed])
}) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }
}

/** A checkpoint without its weights. @since 0.1.0 */
export interface StoredCheckpoint {
  readonly id: string
  /** Bytes of weights, configuration and optimizer together. */
  readonly sizeBytes: number
  readonly hasOptimizer: boolean
  /** What the saver gave, as it is. */
  readonly meta: Schema.Json
}

/** One file of an archive. @since 0.1.0 */
export interface CheckpointFile {
  readonly name: string
  readonly bytes: Uint8Array
}

/** @since 0.1.0 */
export class CheckpointStore extends Context.Service<
  CheckpointStore,
  {
    /** Stores a snapshot under a new id (`AlreadyExists` otherwise). Fails as a `LanguageModelError` if its configuration is none. */
    readonly save: (options: {
      readonly id: string
      readonly snapshot: Snapshot
      readonly meta: Schema.Json
    }) => Effect.Effect<StoredCheckpoint, CheckpointStoreError | LanguageModelError>
    /** Reads and verifies everything. */
    readonly load: (
      id: string
    ) => Effect.Effect<StoredCheckpoint & { readonly snapshot: Snapshot }, CheckpointStoreError>
    /** Reads `meta.json` only: a checkpoint with damaged weights still has a description. */
    readonly describe: (id: string) => Effect.Effect<StoredCheckpoint, CheckpointStoreError>
    /** Replaces the saver's data, e.g. when a time to live changes. */
    readonly updateMeta: (id: string, meta: Schema.Json) => Effect.Effect<StoredCheckpoint, CheckpointStoreError>
    /** All checkpoints by id; what has no readable description is reported next to them. */
    readonly list: Effect.Effect<
      {
        readonly checkpoints: ReadonlyArray<StoredCheckpoint>
        readonly unreadable: ReadonlyArray<CheckpointStoreError>
      },
      CheckpointStoreError
    >
    readonly remove: (id: string) => Effect.Effect<void, CheckpointStoreError>
    /** The verified files that belong in a downloaded archive: adapter, its configuration, marker. */
    readonly files: (id: string) => Effect.Effect<ReadonlyArray<CheckpointFile>, CheckpointStoreError>
    /** Cuts the weights in half, for fault injection: the description stays good, loading fails with `Damaged`. */
    readonly truncate: (id: string) => Effect.Effect<void, CheckpointStoreError>
  }
>()("@tinkex/emulator/CheckpointStore") {
  /** Checkpoints that end with the layer. */
  static readonly layerMemory: Layer.Layer<CheckpointStore> = Layer.sync(CheckpointStore, () =>
    CheckpointStore.of(make(inMemory()))
  )

  /** Checkpoints under `directory`, which is created if need be. They outlive the process. */
  static readonly layerFileSystem = (
    directory: string
  ): Layer.Layer<CheckpointStore, CheckpointStoreError, FileSystem.FileSystem> =>
    Layer.effect(
      CheckpointStore,
      inDirectory(directory).pipe(Effect.mapError(storageFailed("opening")), Effect.map(make))
    )
}

const fail = (reason: CheckpointStoreError["reason"]) => new CheckpointStoreError({ reason })

const storageFailed = (operation: string) => (cause: PlatformError) => fail(new StorageFailed({ operation, cause }))

/** Ids hold slashes and colons. Dots are escaped as well: no id can be hidden or point upwards. */
const groupOf = (id: string): Effect.Effect<string, CheckpointStoreError> => {
  const group = /^[\x21-\x7e]+$/.test(id) ? encodeURIComponent(id).replaceAll(".", "%2E") : ""
  return group.length > 0 && group.length <= 250 ? Effect.succeed(group) : Effect.fail(fail(new InvalidId({ id })))
}

const stored = (meta: Format.Meta): StoredCheckpoint => ({
  id: meta.id,
  sizeBytes: Object.values(meta.files).reduce((sum, file) => sum + file.size, 0),
  hasOptimizer: Format.fileNames.optimizer in meta.files,
  meta: meta.meta
})

const make = (storage: CheckpointFiles): CheckpointStore["Service"] => {
  const { fileNames } = Format
  const damaged = (id: string, file: string, problem: string) => fail(new Damaged({ id, file, problem }))

  const read = (id: string, group: string, file: string) =>
    storage.read(group, file).pipe(
      Effect.mapError(storageFailed(`reading ${file} of ${id}`)),
      Effect.flatMap(
        Option.match({
          onNone: () => Effect.fail(damaged(id, file, "is missing")),
          onSome: (bytes: Uint8Array) => Effect.succeed(bytes)
        })
      )
    )

  const readMeta = Effect.fnUntraced(function* (id: string, group: string) {
    const found = yield* storage.exists(group).pipe(Effect.mapError(storageFailed(`looking for ${id}`)))
    if (!found) return yield* Effect.fail(fail(new NotFound({ id })))
    yield* read(id, group, fileNames.complete)
    const meta = Format.decodeMeta(yield* read(id, group, fileNames.meta))
    if (Result.isFailure(meta)) return yield* Effect.fail(damaged(id, fileNames.meta, meta.failure))
    if (meta.success.id !== id) {
      return yield* Effect.fail(damaged(id, fileNames.meta, `describes ${meta.success.id}`))
    }
    return meta.success
  })

  const readVerified = Effect.fnUntraced(function* (meta: Format.Meta, group: string, file: string) {
    const expected = meta.files[file]
    if (expected === undefined) return yield* Effect.fail(damaged(meta.id, file, "is not listed in meta.json"))
    const bytes = yield* read(meta.id, group, file)
    if (bytes.length !== expected.size) {
      return yield* Effect.fail(damaged(meta.id, file, `has ${bytes.length} bytes instead of ${expected.size}`))
    }
    if (Format.sha256(bytes) !== expected.sha256) {
      return yield* Effect.fail(damaged(meta.id, file, "does not have the digest it was saved with"))
    }
    return bytes
  })

  return {
    save: Effect.fn("CheckpointStore.save")(function* (options) {
      const group = yield* groupOf(options.id)
      const { files, meta } = yield* Format.encode(options)
      const created = yield* storage.create(group, files).pipe(Effect.mapError(storageFailed(`saving ${options.id}`)))
      if (!created) return yield* Effect.fail(fail(new AlreadyExists({ id: options.id })))
      return stored(meta)
    }),
    load: Effect.fn("CheckpointStore.load")(function* (id) {
      const group = yield* groupOf(id)
      const meta = yield* readMeta(id, group)
      const files = new Map<string, Uint8Array>()
      for (const file of Object.keys(meta.files)) files.set(file, yield* readVerified(meta, group, file))
      const snapshot = yield* Format.decode(files).pipe(
        Effect.mapError(({ file, problem }) => damaged(id, file, problem))
      )
      return { ...stored(meta), snapshot }
    }),
    describe: Effect.fn("CheckpointStore.describe")(function* (id) {
      return stored(yield* readMeta(id, yield* groupOf(id)))
    }),
    updateMeta: Effect.fn("CheckpointStore.updateMeta")(function* (id, data) {
      const group = yield* groupOf(id)
      const meta: Format.Meta = { ...(yield* readMeta(id, group)), meta: data }
      yield* storage
        .replace(group, fileNames.meta, Format.encodeMeta(meta))
        .pipe(Effect.mapError(storageFailed(`updating ${id}`)))
      return stored(meta)
    }),
    list: Effect.gen(function* () {
      const checkpoints: Array<StoredCheckpoint> = []
      const unreadable: Array<CheckpointStoreError> = []
      const groups = yield* storage.groups.pipe(Effect.mapError(storageFailed("listing")))
      for (const group of groups.toSorted()) {
        const meta = yield* Effect.result(readMeta(idOf(group), group))
        if (Result.isSuccess(meta)) checkpoints.push(stored(meta.success))
        else unreadable.push(meta.failure)
      }
      return { checkpoints, unreadable }
    }).pipe(Effect.withSpan("CheckpointStore.list")),
    remove: Effect.fn("CheckpointStore.remove")(function* (id) {
      const group = yield* groupOf(id)
      const found = yield* storage.exists(group).pipe(Effect.mapError(storageFailed(`looking for ${id}`)))
      if (!found) return yield* Effect.fail(fail(new NotFound({ id })))
      yield* storage.remove(group).pipe(Effect.mapError(storageFailed(`removing ${id}`)))
    }),
    files: Effect.fn("CheckpointStore.files")(function* (id) {
      const group = yield* groupOf(id)
      const meta = yield* readMeta(id, group)
      const files: Array<CheckpointFile> = []
      for (const name of [fileNames.adapterConfig, fileNames.adapter]) {
        files.push({ name, bytes: yield* readVerified(meta, group, name) })
      }
      files.push({ name: fileNames.complete, bytes: yield* read(id, group, fileNames.complete) })
      return files
    }),
    truncate: Effect.fn("CheckpointStore.truncate")(function* (id) {
      const group = yield* groupOf(id)
      yield* readMeta(id, group)
      const bytes = yield* read(id, group, fileNames.adapter)
      yield* storage
        .replace(group, fileNames.adapter, bytes.subarray(0, bytes.length >> 1))
        .pipe(Effect.mapError(storageFailed(`truncating ${id}`)))
    })
  }
}

/** For names in a listing; a directory that is not ours keeps its own name and is reported as unreadable. */
const idOf = (group: string): string => {
  try {
    return decodeURIComponent(group)
  } catch {
    return group
  }
}
