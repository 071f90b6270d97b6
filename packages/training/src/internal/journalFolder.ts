import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import { hostname } from "node:os"
import {
  Fenced,
  JournalCorrupt,
  JournalError,
  JournalUnreadable,
  JournalUnwritable,
  LeaseHeld,
  RunNotFound
} from "../JournalError.ts"
import type { JournalRecord, Owner, Stamped } from "../JournalRecord.ts"
import { type AppendFile, openAppendFile } from "./appendFile.ts"
import type { Spool } from "../Journal.ts"
import * as Digest from "./digest.ts"
import * as folderLock from "./folderLock.ts"
import * as groupCommit from "./groupCommit.ts"
import * as journalFrame from "./journalFrame.ts"
import * as Goodput from "../Goodput.ts"
import * as RunState from "../RunState.ts"
import { isRunName, runName } from "./runName.ts"

/** How this process is named to others. */
export const thisProcess = { host: hostname(), pid: process.pid }

const unwritable = (path: string, operation: string) => (error: { readonly message: string }) =>
  new JournalError({ reason: new JournalUnwritable({ path, operation, problem: error.message }) })

const unreadable = (path: string) => (error: { readonly message: string }) =>
  new JournalError({ reason: new JournalUnreadable({ path, problem: error.message }) })

const corrupt = (path: string, { offset, problem, record }: journalFrame.Damage) =>
  new JournalError({ reason: new JournalCorrupt({ path, offset, record, problem }) })

const nothing: journalFrame.Parsed = { records: [], bytes: 0, damage: undefined }

const newestOwner = (records: ReadonlyArray<Stamped>): Owner | undefined => {
  const last = records.findLast(({ record }) => record._tag === "Epoch" || record._tag === "Snapshot")?.record
  if (last?._tag === "Epoch") return last.owner
  return last === undefined ? undefined : RunState.fold([last]).epoch?.owner
}

/** So many of the newest records are never folded: whoever reads along may not have got so far. */
const tail = 1000

/** The journals below `directory`. */
export const make = Effect.fnUntraced(function* (directory: string, compactAfter: number) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const fileOf = (run: string) => path.join(directory, run, "journal.log")

  /** As far as it can be read; `undefined` where there is none. */
  const load = (file: string) =>
    fs.readFile(file).pipe(
      Effect.map((bytes) => journalFrame.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))),
      Effect.catchIf(
        (error) => error.reason._tag === "NotFound",
        () => Effect.succeed(undefined)
      ),
      Effect.mapError(unreadable(file))
    )

  /** A new name is durable only once its directory is. Windows neither needs nor allows it. */
  const syncDirectory = (folder: string) =>
    process.platform === "win32"
      ? Effect.void
      : Effect.scoped(Effect.flatMap(fs.open(folder, { flag: "r" }), (handle) => handle.sync)).pipe(
          Effect.mapError(unwritable(folder, "sync"))
        )

  const bootId = fs.readFileString("/proc/sys/kernel/random/boot_id").pipe(
    Effect.map((text) => text.trim()),
    Effect.orElseSucceed(() => null)
  )

  /** Written beside, flushed and renamed, so that a name never stands for half a text. */
  const spoolIn = (folder: string): Spool => ({
    put: Effect.fnUntraced(function* (text) {
      const digest = Digest.ofText(text)
      const target = path.join(folder, digest)
      const part = `${target}.part`
      yield* Effect.gen(function* () {
        yield* fs.makeDirectory(folder, { recursive: true })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const handle = yield* fs.open(part, { flag: "w" })
            yield* handle.writeAll(Buffer.from(text))
            yield* handle.sync
          })
        )
        yield* fs.rename(part, target)
      }).pipe(Effect.mapError(unwritable(target, "write")))
      yield* syncDirectory(folder)
      return digest
    }),
    get: (digest) =>
      fs.readFileString(path.join(folder, digest)).pipe(
        Effect.map((text) => (Digest.ofText(text) === digest ? Option.some(text) : Option.none())),
        Effect.catchIf(
          (error) => error.reason._tag === "NotFound",
          () => Effect.succeed(Option.none())
        ),
        Effect.mapError(unreadable(path.join(folder, digest)))
      ),
    drop: (digest) =>
      fs
        .remove(path.join(folder, digest), { force: true })
        .pipe(Effect.mapError(unwritable(path.join(folder, digest), "remove")))
  })

  /**
   * Puts one record in the place of all but the newest ones: what they add up to. The new file is written beside the old one and
   * takes its name when it is on the disk, so that a crash leaves one of the two. Gives its length.
   */
  const compact = Effect.fnUntraced(function* (folder: string, file: string, records: ReadonlyArray<Stamped>) {
    const folded = records.slice(0, -tail)
    const last = folded.at(-1)
    if (last === undefined) return undefined
    const snapshot: JournalRecord = {
      _tag: "Snapshot",
      state: RunState.save(RunState.fold(folded.map(({ record }) => record))),
      account: Goodput.saveAccount(Goodput.fold(folded))
    }
    const kept = [{ ...last, record: snapshot }, ...records.slice(-tail)]
    const text = kept
      .map(({ epoch, n, record, t }) => journalFrame.encode(n, epoch, t.epochMilliseconds, record))
      .join("")
    const part = `${file}.part`
    yield* Effect.scoped(
      Effect.gen(function* () {
        const handle = yield* fs.open(part, { flag: "w" })
        yield* handle.writeAll(Buffer.from(text))
        yield* handle.sync
      })
    ).pipe(Effect.andThen(fs.rename(part, file)), Effect.mapError(unwritable(file, "compact")))
    yield* syncDirectory(folder)
    return Buffer.byteLength(text)
  })

  const open = Effect.fn("Journal.open")(function* (name: string) {
    const run = yield* runName(name)
    const folder = path.join(directory, run)
    const file = fileOf(run)
    yield* fs.makeDirectory(folder, { recursive: true }).pipe(Effect.mapError(unwritable(folder, "create")))
    if (!(yield* folderLock.acquire(path.join(folder, "lock.db")))) {
      const owner = newestOwner((yield* load(file))?.records ?? []) ?? null
      return yield* new JournalError({ reason: new LeaseHeld({ run, owner }) })
    }
    const existing = yield* load(file)
    const { bytes, damage, records } = existing ?? nothing
    if (damage?.torn === false) return yield* corrupt(file, damage)
    const handle = yield* fs.open(file, { flag: "a+" }).pipe(Effect.mapError(unwritable(file, "open")))
    if (damage !== undefined) {
      yield* handle.truncate(bytes).pipe(Effect.andThen(handle.sync), Effect.mapError(unwritable(file, "cut")))
      yield* Effect.logWarning(`Run "${run}" was cut off while it wrote record ${damage.record}: ${damage.problem}`)
    }
    const identity = (info: FileSystem.File.Info) =>
      Option.getOrNull(Option.map(info.ino, (ino) => `${info.dev}:${ino}`))
    const found: Owner = {
      ...thisProcess,
      bootId: yield* bootId,
      file: identity(yield* handle.stat.pipe(Effect.mapError(unreadable(file))))
    }
    const former = newestOwner(records)
    const formerOwnerDead = former === undefined || provenDead(former, found)
    const foreign =
      former !== undefined && (former.host !== found.host || (former.file !== null && former.file !== found.file))
    const compacted = bytes > compactAfter && records.length > tail ? yield* compact(folder, file, records) : undefined
    const owner: Owner =
      compacted === undefined
        ? found
        : { ...found, file: identity(yield* fs.stat(file).pipe(Effect.mapError(unreadable(file)))) }
    const epoch = (records.at(-1)?.epoch ?? 0) + 1
    let n = (records.at(-1)?.n ?? -1) + 1
    const appending = yield* (yield* openAppendFile)(file).pipe(Effect.mapError(unwritable(file, "open")))
    const sink = fileSink({ run, file, epoch, appending, size: compacted ?? bytes })
    const writer = yield* groupCommit.make(sink, (record: JournalRecord, millis) => {
      const line = journalFrame.encode(n, epoch, millis, record)
      n++
      return line
    })
    yield* writer.append({ _tag: "Epoch", owner, formerOwnerDead })
    if (existing === undefined) {
      yield* syncDirectory(folder)
      yield* syncDirectory(directory)
    }
    const spool = spoolIn(path.join(folder, "spool"))
    return {
      run,
      epoch,
      records,
      formerOwnerDead,
      foreign,
      spool,
      append: writer.append,
      appendLazy: writer.appendLazy
    }
  })

  const read = Effect.fn("Journal.read")(function* (name: string) {
    const run = yield* runName(name)
    const parsed = yield* load(fileOf(run))
    if (parsed === undefined) {
      return yield* new JournalError({ reason: new RunNotFound({ run, where: directory, known: yield* list }) })
    }
    // A torn tail is what a reader sees of a record that is just being written.
    return parsed.damage?.torn === false ? yield* corrupt(fileOf(run), parsed.damage) : parsed.records
  })

  const list = fs.readDirectory(directory).pipe(
    Effect.catchIf(
      (error) => error.reason._tag === "NotFound",
      () => Effect.succeed<Array<string>>([])
    ),
    Effect.flatMap((names) => Effect.filter(names.filter(isRunName), (run) => fs.exists(fileOf(run)))),
    Effect.map((runs) => runs.toSorted()),
    Effect.mapError(unreadable(directory)),
    Effect.withSpan("Journal.list")
  )

  return { open, read, list }
})

/**
 * That the lock was free proves that its owner is dead only where it was this kernel, since it booted, that watched over the
 * lock of this very file: another host, a reboot, or a copy of the folder prove nothing.
 */
const provenDead = (former: Owner, now: Owner): boolean =>
  former.bootId !== null && former.bootId === now.bootId && former.file !== null && former.file === now.file

const fileSink = (options: {
  readonly run: string
  readonly file: string
  readonly epoch: number
  readonly appending: AppendFile
  readonly size: number
}): groupCommit.Sink<string> => {
  const { appending, epoch, file, run } = options
  let { size } = options
  const fenced = (why: string) => new JournalError({ reason: new Fenced({ run, epoch, why }) })
  // The lease already keeps others away; the size shows a writer that came in past it, for instance over a deleted lock.
  const check = Effect.flatMap(Effect.mapError(appending.info, unreadable(file)), (info) =>
    info.size !== size
      ? Effect.fail(fenced("somebody else has changed its journal"))
      : info.links === 0
        ? Effect.fail(fenced("its journal was deleted"))
        : Effect.void
  )
  return {
    write: (lines) =>
      Effect.andThen(check, Effect.mapError(appending.write(lines.join("")), unwritable(file, "write"))).pipe(
        Effect.map((bytes) => void (size += bytes))
      ),
    sync: Effect.mapError(appending.sync, unwritable(file, "sync")),
    closed: fenced("it was closed"),
    broken: (problem) =>
      new JournalError({ reason: new JournalUnwritable({ path: file, operation: "write", problem }) })
  }
}
