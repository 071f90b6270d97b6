/**
 * Brings the weights of a checkpoint to this machine.
 *
 * - **CA1** memory does not grow with the archive: bytes go from the network to the disk, and from the disk to the files;
 * - **CA2** a connection that is cut is taken up where it ended, where the server can do that, and else from the beginning;
 * - **CA3** nothing half is left behind: a folder appears whole and checked or not at all, and one that is to be replaced stays
 *   until then;
 * - **CA4** an archive is unpacked as if its author were hostile: no entry leaves the folder, none is a link or a device, none
 *   comes twice, and count, size and swelling are limited;
 * - **CA5** what is kept is complete: the service's mark is there, the adapter's settings, and weights whose header agrees with
 *   itself and with the length of their file.
 *
 * It does not say that the numbers in the weights are good. It is fastest over undici (`NodeHttpClient.layerUndici`): fetch and
 * `node:http` copy every piece once more.
 */
import * as Crypto from "node:crypto"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as BlockWriter from "./internal/blockWriter.ts"
import { localFile } from "./internal/localFile.ts"
import { unpack as unpackInto } from "./internal/unpack.ts"
import { type DownloadOptions, RestClient } from "./RestClient.ts"
import * as SafetensorsHeader from "./SafetensorsHeader.ts"
import { BadArchive, InvalidInput, LocalFile, TinkerError } from "./TinkerError.ts"

/** What an archive may come to when it is unpacked. */
export interface UnpackLimits {
  /** Files and folders. Default 10,000. */
  readonly maxEntries?: number | undefined
  /** Bytes of all files together. Default 256 GiB. */
  readonly maxBytes?: number | undefined
  /** How many times its size an archive of more than 16 MiB may swell to. Default 200. */
  readonly maxRatio?: number | undefined
}

export interface FileOptions extends DownloadOptions {
  /** Replace what is there; once all is here and good. Default: refuse, before anything is sent. */
  readonly overwrite?: boolean | undefined
}

export interface FolderOptions extends FileOptions, UnpackLimits {}

/** What a folder with the weights of a checkpoint holds. */
export interface Contents {
  readonly directory: string
  /** Of the adapter: the weights count `loraAlpha / rank` times. */
  readonly rank: number
  readonly loraAlpha: number
  readonly baseModel: Option.Option<string>
  /** `adapter_model.safetensors`, or `adapter_model.bin`, which nobody should load who does not trust it. */
  readonly weightsFile: string
  /** From the header of the safetensors; none of a `.bin`. */
  readonly tensors: ReadonlyMap<string, SafetensorsHeader.TensorInfo>
}

const AdapterConfig = Schema.Struct({
  r: Schema.Int.check(Schema.isGreaterThan(0)),
  lora_alpha: Schema.Finite,
  base_model_name_or_path: Schema.optionalKey(Schema.NullOr(Schema.String))
})

const readConfig = Schema.decodeUnknownEffect(Schema.fromJsonString(AdapterConfig))

type Files = FileSystem.FileSystem | Path.Path

const exists = (operation: string, path: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) =>
    fs.exists(path).pipe(Effect.mapError(localFile(operation, path, "looked at")))
  )

const refuseExisting = Effect.fnUntraced(function* (operation: string, path: string, overwrite: boolean) {
  if (overwrite || !(yield* exists(operation, path))) return
  const problem = "is there already; remove it, or say that it may be replaced (overwrite)"
  return yield* new TinkerError({ reason: new LocalFile({ operation, path, problem }) })
})

/** A name beside the target, so that the two are on one disk and a rename is all it takes. */
const beside = (target: string) => `${target.replace(/[/\\]+$/, "")}.${Crypto.randomBytes(4).toString("hex")}.part`

/** A path that is gone when the scope ends, unless it was renamed meanwhile. */
const temporary = (operation: string, target: string) =>
  Effect.acquireRelease(
    Effect.sync(() => beside(target)),
    (path) =>
      Effect.flatMap(FileSystem.FileSystem, (fs) => fs.remove(path, { recursive: true, force: true })).pipe(
        Effect.catch((error) => Effect.logWarning(`${operation} left ${path} behind: ${error.message}`))
      )
  )

const rounds = 3

/** The bytes of an archive in a file; begins again, a few times, where they cannot be continued. */
const fetchInto = Effect.fnUntraced(function* (
  operation: string,
  path: string,
  file: string,
  options: FileOptions
): Effect.fn.Return<number, TinkerError, FileSystem.FileSystem | RestClient> {
  const fs = yield* FileSystem.FileSystem
  const rest = yield* RestClient
  const whole = Effect.scoped(
    Effect.gen(function* () {
      const handle = yield* fs.open(file, { flag: "w" })
      let bytes = 0
      const writer = BlockWriter.make(handle)
      const write = (pieces: ReadonlyArray<Uint8Array>, release: () => void) => {
        for (const piece of pieces) bytes += piece.length
        return Effect.map(writer.write(pieces), release)
      }
      yield* rest.readCheckpointArchive(path, write, options)
      yield* writer.end
      return bytes
    })
  ).pipe(Effect.catchTag("PlatformError", (error) => Effect.fail(localFile(operation, file, "written")(error))))
  return yield* Effect.retry(whole, { times: rounds - 1, while: (error) => error.reason._tag === "Transport" })
})

/**
 * Downloads the archive of a checkpoint as it is, mostly a compressed tar, into a file; gives its length in bytes. `LocalFile`
 * where the file is there already, or the disk is full; what was downloaded so far is then removed.
 */
export const downloadFile = Effect.fn("CheckpointArchive.downloadFile")(function* (
  path: string,
  file: string,
  options: FileOptions = {}
): Effect.fn.Return<number, TinkerError, RestClient | Files> {
  const operation = `download the archive of ${path}`
  const fs = yield* FileSystem.FileSystem
  yield* refuseExisting(operation, file, options.overwrite === true)
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const part = yield* temporary(operation, file)
      const bytes = yield* fetchInto(operation, path, part, options)
      yield* fs.rename(part, file).pipe(Effect.mapError(localFile(operation, file, "written")))
      return bytes
    })
  )
})

const checkLimits = Effect.fnUntraced(function* (operation: string, given: UnpackLimits) {
  const limits = {
    maxEntries: given.maxEntries ?? 10_000,
    maxBytes: given.maxBytes ?? 256 * 1024 ** 3,
    maxRatio: given.maxRatio ?? 200
  }
  for (const [field, value] of Object.entries(limits)) {
    if (!Number.isFinite(value) || value < 1) {
      const problem = `is ${value} and must be a finite number, 1 or more`
      return yield* new TinkerError({ reason: new InvalidInput({ operation, field, problem }) })
    }
  }
  return limits
})

/**
 * Unpacks an archive (a tar, plain or compressed with gzip or zstd) into a folder that does not exist yet; gives its files. Where
 * anything is wrong (`BadArchive`) there is no folder afterwards either. Whether the files are a checkpoint: `inspect`.
 */
export const unpack = Effect.fn("CheckpointArchive.unpack")(function* (
  file: string,
  directory: string,
  options: UnpackLimits = {}
): Effect.fn.Return<ReadonlyArray<string>, TinkerError, Files> {
  const operation = `unpack ${file}`
  const fs = yield* FileSystem.FileSystem
  const limits = yield* checkLimits(operation, options)
  yield* refuseExisting(operation, directory, false)
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const part = yield* temporary(operation, directory)
      yield* fs.makeDirectory(part, { recursive: true }).pipe(Effect.mapError(localFile(operation, part, "made")))
      const files = yield* unpackInto({ operation, file, directory: part, limits })
      yield* fs.rename(part, directory).pipe(Effect.mapError(localFile(operation, directory, "made")))
      return files
    })
  )
})

/** Checks that a folder holds the whole of a checkpoint, and says what is in it. */
export const inspect = Effect.fn("CheckpointArchive.inspect")(function* (
  directory: string
): Effect.fn.Return<Contents, TinkerError, Files> {
  const operation = `inspect ${directory}`
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const bad = (problem: string) => new TinkerError({ reason: new BadArchive({ operation, problem }) })
  const has = (name: string) => exists(operation, path.join(directory, name))
  if (!(yield* has("checkpoint_complete"))) {
    return yield* bad("has no checkpoint_complete: it was made from a checkpoint that was still being written")
  }
  if (!(yield* has("adapter_config.json"))) return yield* bad("has no adapter_config.json")
  const text = yield* fs
    .readFileString(path.join(directory, "adapter_config.json"))
    .pipe(Effect.mapError(localFile(operation, directory, "read")))
  const config = yield* readConfig(text).pipe(
    Effect.mapError((error) =>
      bad(`has a wrong adapter_config.json: ${error.message.replace(/\s+/g, " ").slice(0, 200)}`)
    )
  )
  const safe = yield* has("adapter_model.safetensors")
  if (!safe && !(yield* has("adapter_model.bin"))) return yield* bad("has no weights")
  const weightsFile = path.join(directory, safe ? "adapter_model.safetensors" : "adapter_model.bin")
  const tensors = safe ? (yield* SafetensorsHeader.read(weightsFile)).tensors : new Map<string, never>()
  return {
    directory,
    rank: config.r,
    loraAlpha: config.lora_alpha,
    baseModel: Option.fromNullishOr(config.base_model_name_or_path),
    weightsFile,
    tensors
  }
})

/**
 * Downloads the archive of a checkpoint, unpacks it and checks it; gives what the folder then holds. A folder that is there is
 * refused before anything is sent, or, with `overwrite`, replaced at the end.
 */
export const download = Effect.fn("CheckpointArchive.download")(function* (
  path: string,
  directory: string,
  options: FolderOptions = {}
): Effect.fn.Return<Contents, TinkerError, RestClient | Files> {
  const operation = `download the archive of ${path}`
  const fs = yield* FileSystem.FileSystem
  const limits = yield* checkLimits(operation, options)
  yield* refuseExisting(operation, directory, options.overwrite === true)
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const file = yield* temporary(operation, `${directory}.archive`)
      yield* fetchInto(operation, path, file, options)
      const part = yield* temporary(operation, directory)
      yield* fs.makeDirectory(part, { recursive: true }).pipe(Effect.mapError(localFile(operation, part, "made")))
      yield* unpackInto({ operation, file, directory: part, limits })
      const contents = yield* inspect(part)
      yield* replace(operation, part, directory)
      return { ...contents, directory, weightsFile: contents.weightsFile.replace(part, directory) }
    })
  )
})

/** Puts a folder in the place of another, which comes back where that fails. */
const replace = Effect.fnUntraced(function* (operation: string, part: string, directory: string) {
  const fs = yield* FileSystem.FileSystem
  const written = localFile(operation, directory, "written")
  if (!(yield* exists(operation, directory))) {
    return yield* fs.rename(part, directory).pipe(Effect.mapError(written))
  }
  const old = beside(directory)
  yield* fs.rename(directory, old).pipe(Effect.mapError(written))
  yield* fs.rename(part, directory).pipe(
    Effect.tapError(() => Effect.ignore(fs.rename(old, directory))),
    Effect.mapError(written)
  )
  yield* fs
    .remove(old, { recursive: true, force: true })
    .pipe(Effect.catch((error) => Effect.logWarning(`${operation} left ${old} behind: ${error.message}`)))
}, Effect.uninterruptible)
