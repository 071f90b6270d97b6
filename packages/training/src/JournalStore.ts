/**
 * What a journal needs of a place that several machines share: a lease with a number that only grows, and an append that looks at
 * that number. `Journal.layerStore` makes a journal of it. What an implementation has to guarantee:
 *
 * - **ST1** `acquire` gives each writer of a run a higher epoch than any before it, and refuses (`LeaseHeld`) while another one's
 *   lease holds;
 * - **ST2** `append` is a compare-and-append: it writes all of the records, durably, if the epoch is the newest of the run and the
 *   first of them is the next one in number, and else nothing (`Fenced`). The two are one step: nothing comes between;
 * - **ST3** reading gives what was appended, in order.
 *
 * A lease may end by time, but then `formerOwnerDead` is false: a writer that merely fell silent may wake up, and its live model
 * may not be continued (RP22). Clocks decide about leases, never about ST2.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Digest from "./internal/digest.ts"
import { Fenced, JournalError, LeaseHeld, RunNotFound } from "./JournalError.ts"
import type { Owner, Stamped } from "./JournalRecord.ts"

/** What a writer has when it has taken a run. */
export interface Claim {
  readonly epoch: number
  /** What was appended before. */
  readonly records: ReadonlyArray<Stamped>
  /** There is proof that no earlier writer can still act for this run. */
  readonly formerOwnerDead: boolean
}

export interface JournalStore {
  /** Where it is, for messages. */
  readonly name: string
  /** Takes the run, or begins it. Does not wait. */
  readonly acquire: (run: string, owner: Owner) => Effect.Effect<Claim, JournalError>
  /** Returns when the records would survive a power loss. */
  readonly append: (run: string, epoch: number, records: ReadonlyArray<Stamped>) => Effect.Effect<void, JournalError>
  /** Gives the run up, if it is still this writer's. */
  readonly release: (run: string, epoch: number) => Effect.Effect<void>
  /** None for a run that nobody has begun. */
  readonly read: (run: string) => Effect.Effect<Option.Option<ReadonlyArray<Stamped>>, JournalError>
  readonly list: Effect.Effect<ReadonlyArray<string>, JournalError>
  readonly put: (run: string, text: string) => Effect.Effect<string, JournalError>
  readonly get: (run: string, digest: string) => Effect.Effect<Option.Option<string>, JournalError>
  readonly drop: (run: string, digest: string) => Effect.Effect<void, JournalError>
}

/** A store in memory; `expire` ends the lease of a run as time would, without the knowledge of its owner. */
export const memory = (): JournalStore & { readonly expire: (run: string) => void } => {
  interface Log {
    readonly records: Array<Stamped>
    readonly spool: Map<string, string>
    owner: { readonly epoch: number; readonly owner: Owner } | undefined
    epoch: number
    expired: boolean
  }
  const runs = new Map<string, Log>()
  const names = () => [...runs.keys()].toSorted()
  const known = (run: string): Effect.Effect<Log, JournalError> => {
    const log = runs.get(run)
    return log === undefined
      ? Effect.fail(new JournalError({ reason: new RunNotFound({ run, where: "memory", known: names() }) }))
      : Effect.succeed(log)
  }
  return {
    name: "memory",
    acquire: (run, owner) =>
      Effect.suspend(() => {
        const log = runs.get(run) ?? { records: [], spool: new Map(), owner: undefined, epoch: 0, expired: false }
        runs.set(run, log)
        if (log.owner !== undefined) {
          const { host, pid } = log.owner.owner
          return Effect.fail(new JournalError({ reason: new LeaseHeld({ run, owner: { host, pid } }) }))
        }
        const epoch = ++log.epoch
        log.owner = { epoch, owner }
        const formerOwnerDead = !log.expired
        log.expired = false
        return Effect.succeed({ epoch, records: [...log.records], formerOwnerDead })
      }),
    append: (run, epoch, records) =>
      Effect.flatMap(known(run), (log) => {
        const next = log.records.length
        if (epoch !== log.epoch || records[0]?.n !== next) {
          const why = epoch === log.epoch ? `record ${next} is due` : `writer ${log.epoch} has taken over`
          return Effect.fail(new JournalError({ reason: new Fenced({ run, epoch, why }) }))
        }
        log.records.push(...records)
        return Effect.void
      }),
    release: (run, epoch) =>
      Effect.sync(() => {
        const log = runs.get(run)
        if (log?.owner?.epoch === epoch) log.owner = undefined
      }),
    read: (run) => Effect.sync(() => Option.map(Option.fromUndefinedOr(runs.get(run)), ({ records }) => [...records])),
    list: Effect.sync(names),
    put: (run, text) =>
      Effect.map(known(run), ({ spool }) => {
        const digest = Digest.ofText(text)
        spool.set(digest, text)
        return digest
      }),
    get: (run, digest) => Effect.map(known(run), ({ spool }) => Option.fromUndefinedOr(spool.get(digest))),
    drop: (run, digest) => Effect.map(known(run), ({ spool }) => void spool.delete(digest)),
    expire: (run) => {
      const log = runs.get(run)
      if (log?.owner === undefined) return
      log.owner = undefined
      log.expired = true
    }
  }
}
