/**
 * The append-only record of a run. Guarantees:
 *
 * - **J1** `append` returns when the record, and everything before it, would survive a power loss; concurrent appends share one
 *   flush;
 * - **J2** the order of the records is the order of the calls, lazy ones included, and their numbers have no gap;
 * - **J3** one writer: a run that is open cannot be opened again, by this process or by another, and is free at the moment its
 *   writer dies, however it dies;
 * - **J4** a writer that is no longer the newest is refused (`Fenced`) and has written nothing;
 * - **J5** after a failed write or flush nothing more is written: every later append fails in the same way, since nobody can
 *   know what the disk holds;
 * - **J6** a tail that a crash has torn off is cut when the run is opened. Damage anywhere else stops with `JournalCorrupt`, and
 *   the file is left as it is.
 *
 * Not guaranteed: that the last record survives a disk that lies about a flush, or that J3 holds on a network file system
 * without locks.
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import type * as Scope from "effect/Scope"
import * as groupCommit from "./internal/groupCommit.ts"
import * as journalFolder from "./internal/journalFolder.ts"
import { runName } from "./internal/runName.ts"
import { Fenced, JournalError, JournalUnwritable, RunNotFound } from "./JournalError.ts"
import type { JournalRecord, Stamped } from "./JournalRecord.ts"
import * as JournalStore from "./JournalStore.ts"

export { JournalError } from "./JournalError.ts"

/** Contents that a run keeps beside its records, each under the SHA-256 of what is in it. */
export interface Spool {
  /** Returns when the text would survive a power loss; gives its digest. */
  readonly put: (text: string) => Effect.Effect<string, JournalError>
  /** None where it is gone or damaged. */
  readonly get: (digest: string) => Effect.Effect<Option.Option<string>, JournalError>
  readonly drop: (digest: string) => Effect.Effect<void, JournalError>
}

/** A run that is open for writing, until its scope closes. */
export interface OpenJournal {
  readonly run: string
  /** The number of this writer. Its `Epoch` record is written already. */
  readonly epoch: number
  /** What stood in the journal before this writer. */
  readonly records: ReadonlyArray<Stamped>
  /** There is proof that no other process can still act for this run, so that its live model may be continued (RP22). */
  readonly formerOwnerDead: boolean
  /** The one who wrote last was on another machine, or had another file: the journal was moved, or is a copy. */
  readonly foreign: boolean
  readonly spool: Spool
  /** Returns when the record is durable. */
  readonly append: (record: JournalRecord) => Effect.Effect<void, JournalError>
  /** Keeps the order and returns at once; written and durable with the next `append`, or when the run is closed. */
  readonly appendLazy: (record: JournalRecord) => Effect.Effect<void, JournalError>
}

/** Where the journals of all runs are kept. */
export class Journal extends Context.Service<
  Journal,
  {
    /**
     * Takes the run and reads what it has written. Does not wait: `LeaseHeld` if somebody else has it. A run is named by
     * 1 to 120 of `A-Z a-z 0-9 . _ -`, not beginning with a dot; one that does not exist is begun. Closing the scope makes the
     * rest durable and gives the run up.
     */
    readonly open: (run: string) => Effect.Effect<OpenJournal, JournalError, Scope.Scope>
    /** What a run has written so far. Takes no lease and writes nothing, so it may be called while the run is going on. */
    readonly read: (run: string) => Effect.Effect<ReadonlyArray<Stamped>, JournalError>
    /** The names of all runs, sorted. */
    readonly list: Effect.Effect<ReadonlyArray<string>, JournalError>
  }
>()("@tinkex/training/Journal") {
  /** Journals that live as long as the layer: for tests, and for runs that nobody wants to resume. */
  static readonly layerMemory: Layer.Layer<Journal> = Layer.sync(Journal, () => fromStore(JournalStore.memory()))

  /** A journal in a place that several machines share. What it needs of the place: `JournalStore`. */
  static readonly layerStore = (store: JournalStore.JournalStore): Layer.Layer<Journal> =>
    Layer.succeed(Journal, fromStore(store))

  /**
   * One folder for each run below `directory`, which is made when the first run is opened. A record is a line
   * `<CRC-32> <bytes> <JSON>` of the file `journal.log`, fit for `less` and `grep`; `lock.db` beside it is the lease, `spool` what
   * steps have gathered. A journal of more than `compactAfter` bytes (default 8 MiB) is compacted when it is opened: all but its
   * newest 1,000 records make room for what they add up to.
   */
  static readonly layerFileSystem = (
    directory: string,
    options: { readonly compactAfter?: number | undefined } = {}
  ): Layer.Layer<Journal, never, FileSystem.FileSystem | Path.Path> =>
    Layer.effect(Journal, Effect.map(journalFolder.make(directory, options.compactAfter ?? 8 * 1024 ** 2), Journal.of))
}

export const { layerFileSystem, layerMemory, layerStore } = Journal

const fromStore = (store: JournalStore.JournalStore): Journal["Service"] => {
  const open = Effect.fn("Journal.open")(function* (name: string) {
    const run = yield* runName(name)
    const owner = { ...journalFolder.thisProcess, bootId: null, file: null }
    const { epoch, formerOwnerDead, records } = yield* Effect.acquireRelease(store.acquire(run, owner), (claim) =>
      store.release(run, claim.epoch)
    )
    let n = (records.at(-1)?.n ?? -1) + 1
    const sink: groupCommit.Sink<Stamped> = {
      write: (lines) => store.append(run, epoch, lines),
      sync: Effect.void,
      closed: new JournalError({ reason: new Fenced({ run, epoch, why: "it was closed" }) }),
      broken: (problem) =>
        new JournalError({
          reason: new JournalUnwritable({ path: `${store.name}/${run}`, operation: "append", problem })
        })
    }
    const writer = yield* groupCommit.make(sink, (record: JournalRecord, millis): Stamped => {
      return { n: n++, epoch, t: DateTime.makeUnsafe(millis), record }
    })
    yield* writer.append({ _tag: "Epoch", owner, formerOwnerDead })
    return {
      run,
      epoch,
      records,
      formerOwnerDead,
      foreign: false,
      spool: {
        put: (text: string) => store.put(run, text),
        get: (digest: string) => store.get(run, digest),
        drop: (digest: string) => store.drop(run, digest)
      },
      append: writer.append,
      appendLazy: writer.appendLazy
    }
  })

  const read = Effect.fn("Journal.read")(function* (name: string) {
    const run = yield* runName(name)
    const records = yield* store.read(run)
    if (Option.isSome(records)) return records.value
    return yield* new JournalError({ reason: new RunNotFound({ run, where: store.name, known: yield* store.list }) })
  })

  return { open, read, list: store.list }
}
