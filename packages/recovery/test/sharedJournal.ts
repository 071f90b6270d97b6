import { DateTime, Effect, Layer, Option } from "effect"
import { Journal, type JournalRecord } from "@tinkex/training"
import { Fenced, JournalError, LeaseHeld, RunNotFound } from "@tinkex/training/JournalError"

interface Log {
  readonly records: Array<JournalRecord.Stamped>
  epoch: number
  holder: number | undefined
}

/** A journal that several processes share: compare-and-append by epoch, and a lease that can be lost without its holder's knowledge. */
export class SharedJournal {
  readonly logs = new Map<string, Log>()
  refused = 0
  /** Called before each record is kept; a failure here is the death of the writer. */
  onAppend: (run: string, record: JournalRecord.JournalRecord) => Effect.Effect<void> = () => Effect.void

  /** What a lease that times out does: the next one may take the run, and whoever had it is not told. */
  revoke(run: string) {
    const log = this.logs.get(run)
    if (log !== undefined) log.holder = undefined
  }

  started(run: string): ReadonlyArray<string> {
    const records = this.logs.get(run)?.records ?? []
    return records.flatMap(({ record }) => (record._tag === "Started" ? [record.trainingRunId] : []))
  }

  get layer(): Layer.Layer<Journal> {
    const spool = { put: () => Effect.die("unused"), get: () => Effect.succeed(Option.none()), drop: () => Effect.void }
    return Layer.succeed(Journal, {
      open: (run) =>
        Effect.gen({ self: this }, function* () {
          const log = this.logs.get(run) ?? { records: [], epoch: 0, holder: undefined }
          this.logs.set(run, log)
          if (log.holder !== undefined) {
            return yield* new JournalError({ reason: new LeaseHeld({ run, owner: null }) })
          }
          const records = [...log.records]
          const epoch = ++log.epoch
          log.holder = epoch
          yield* Effect.addFinalizer(() =>
            Effect.sync(() => {
              if (log.holder === epoch) log.holder = undefined
            })
          )
          const append = Effect.fnUntraced({ self: this }, function* (record: JournalRecord.JournalRecord) {
            yield* this.onAppend(run, record)
            if (epoch !== log.epoch) {
              this.refused++
              const why = `writer ${log.epoch} has taken over`
              return yield* new JournalError({ reason: new Fenced({ run, epoch, why }) })
            }
            log.records.push({ n: log.records.length, epoch, t: yield* DateTime.now, record })
          })
          return { run, epoch, records, formerOwnerDead: false, foreign: false, spool, append, appendLazy: append }
        }),
      read: (run) => {
        const log = this.logs.get(run)
        return log === undefined
          ? Effect.fail(new JournalError({ reason: new RunNotFound({ run, where: "here", known: [] }) }))
          : Effect.succeed([...log.records])
      },
      list: Effect.sync(() => [...this.logs.keys()])
    })
  }
}
