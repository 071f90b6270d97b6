/** Promises of results: what was promised, what came of it, and for how long it can be fetched. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as FaultPlan from "../FaultPlan.ts"
import type { ResultLog } from "./resultLog.ts"

export type Category = "user" | "server" | "unknown"

export type Result =
  | { readonly _tag: "Json"; readonly body: Readonly<Record<string, unknown>> }
  | {
      readonly _tag: "Output"
      readonly json: () => unknown
      readonly protobuf: () => Uint8Array
      /** The same with a loss that is `factor` times what it is, or, without one, with no numbers in it. */
      readonly spoiled?: (factor: number | undefined) => Result
    }
  | { readonly _tag: "Failed"; readonly error: string; readonly category: Category }

/** Who a promise was given to, and for what. Without a number it is in nobody's sequence. */
export interface Place {
  readonly modelId?: string
  readonly samplerId?: string
  readonly seqId?: number
  readonly user: string
  /** Sequences of a sample. */
  readonly samples?: number
}

export type QueueState = "active" | "paused_capacity" | "paused_rate_limit"

export interface Future {
  readonly id: string
  readonly operation: FaultPlan.Operation
  readonly place: Place
  readonly createdAt: number
  /** Wakes polls: there is a result, or there will be none while this emulator lives. */
  readonly settled: Deferred.Deferred<void>
  result: Result | undefined
  /** The future answers 410 from now on. */
  expired: boolean
  queueState: QueueState | "alternating"
  /** Polls that were told to try again. */
  unanswered: number
  settledAt: number
}

/** A promise that was kept. */
export interface Finished {
  readonly id: string
  readonly operation: FaultPlan.Operation
  readonly place: Place
  readonly settledAt: number
  readonly result: Result
}

const forgotten: Result = { _tag: "Failed", error: "it was kept as long as results are kept", category: "server" }

const numbered = /^req-([0-9a-z]+)-(\d+)$/

export class Futures {
  private readonly byId = new Map<string, Future>()
  // Ids that are not numbered by this class, once their results are gone.
  private readonly gone = new Set<string>()
  // In the order of settling, which is the order of expiry.
  private readonly settledOrder: Array<Future> = []
  private forgotten = 0
  private count = 0
  private readonly boot: string
  private readonly retentionMillis: number
  private readonly log: ResultLog

  constructor(boot: string, retentionMillis: number, log: ResultLog) {
    this.boot = boot
    this.retentionMillis = retentionMillis
    this.log = log
    for (const { id, operation, place, result, settledAt } of log.earlier) {
      const future = this.create(operation, settledAt, place, id)
      future.result = result
      future.settledAt = settledAt
      this.settledOrder.push(future)
      Deferred.doneUnsafe(future.settled, Effect.void)
    }
  }

  create(operation: FaultPlan.Operation, now: number, place: Place, id = `req-${this.boot}-${this.count++}`): Future {
    const future: Future = {
      id,
      operation,
      createdAt: now,
      place,
      settled: Deferred.makeUnsafe<void>(),
      result: undefined,
      expired: false,
      queueState: "active",
      unanswered: 0,
      settledAt: 0
    }
    this.byId.set(future.id, future)
    return future
  }

  settle(future: Future, result: Result, now: number): void {
    if (future.result !== undefined) return
    const { expired, id, operation, place } = future
    // What answers 410 now must not come back with the next process.
    if (!expired) this.log.append({ id, operation, place, settledAt: now, result })
    future.result = result
    future.settledAt = now
    this.settledOrder.push(future)
    Deferred.doneUnsafe(future.settled, Effect.void)
    this.forget(now)
  }

  /** A promise of an earlier process is gone; one that nobody ever made is unknown. */
  find(id: string, now: number): Future | "gone" | "unknown" {
    this.forget(now)
    const future = this.byId.get(id)
    if (future !== undefined) return future.expired ? "gone" : future
    if (this.gone.has(id)) return "gone"
    const match = numbered.exec(id)
    if (match === null) return "unknown"
    return match[1] !== this.boot || Number(match[2]) < this.count ? "gone" : "unknown"
  }

  /** Lets every waiting poll answer at once that there is nothing yet. */
  wake(): void {
    for (const future of this.byId.values()) Deferred.doneUnsafe(future.settled, Effect.void)
  }

  private forget(now: number): void {
    let oldest = this.settledOrder[this.forgotten]
    while (oldest !== undefined && oldest.settledAt + this.retentionMillis <= now) {
      this.byId.delete(oldest.id)
      // The sequence that it has its number in keeps it for as long as there is the model.
      oldest.result = forgotten
      if (!numbered.test(oldest.id)) this.gone.add(oldest.id)
      this.forgotten++
      oldest = this.settledOrder[this.forgotten]
    }
    if (this.forgotten > 1024 && this.forgotten * 2 > this.settledOrder.length) {
      this.settledOrder.splice(0, this.forgotten)
      this.forgotten = 0
    }
  }
}
