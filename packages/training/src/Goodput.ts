/**
 * Where the time of a run went, as its journal tells it. Guarantees:
 *
 * - **GP1 (P10)** `useful` and all of `wasted` add up to `elapsed`, to the millisecond: each moment between two records of the
 *   journal is counted once;
 * - **GP2** a step counts as useful when it is committed, and no longer once a restore goes back behind it;
 * - **GP3** the account is that of the run and not of a process: it goes on where the process before left off.
 *
 * It knows what is written down and no more: a save that slows a step down is part of that step.
 *
 * ```ts
 * import { Goodput } from "@tinkex/training"
 *
 * Goodput.share(Goodput.of(Goodput.empty)) // => 1
 * ```
 */
import type * as DateTime from "effect/DateTime"
import type * as Schema from "effect/Schema"
import type { JournalRecord } from "./JournalRecord.ts"

/**
 * - `starting`: until the first step may be sent
 * - `replayed`: steps that were committed and then lost to a restore
 * - `detecting`: from the last committed step to the incident
 * - `recovering`: from the incident to a model that takes steps again
 * - `paused`: the service let the run wait, or did not let it in (billing, a rate limit, a key that it refuses, nobody there when a
 *   restore asked for a model), until the next try
 * - `down`: no process was running it
 * - `evaluating`: evaluations
 * - `finishing`: from the last step to a final checkpoint that is sure
 */
export type Cause =
  | "starting"
  | "replayed"
  | "detecting"
  | "recovering"
  | "paused"
  | "down"
  | "evaluating"
  | "finishing"

const causes: ReadonlyArray<Cause> = [
  "starting",
  "replayed",
  "detecting",
  "recovering",
  "paused",
  "down",
  "evaluating",
  "finishing"
]

/** All in milliseconds. */
export interface Goodput {
  readonly useful: number
  readonly wasted: Readonly<Record<Cause, number>>
  readonly elapsed: number
  /** Incidents, pauses not among them. */
  readonly failures: number
}

/** The share of the time that was useful; 1 for a run that has not begun. */
export const share = ({ elapsed, useful }: Goodput): number => (elapsed === 0 ? 1 : useful / elapsed)

type Phase = "starting" | "training" | "recovering" | "evaluating" | "finishing" | "over"

/** An account that is being kept. */
export interface Account {
  readonly at: number | undefined
  readonly began: number
  readonly phase: Phase
  readonly paused: boolean
  readonly totalSteps: number
  readonly wasted: Readonly<Record<Cause, number>>
  /** Time since the last committed step, which is useful if another one follows. */
  readonly pending: number
  /** Time of the committed steps of the present lineage. */
  readonly useful: number
  /** Places behind steps that are not committed yet at which a save stands. */
  readonly saves: ReadonlyArray<number>
  /** What `useful` was at each place that was saved, oldest first: a restore can only go back to one of them. */
  readonly marks: ReadonlyArray<readonly [steps: number, millis: number]>
  readonly failures: number
}

export const empty: Account = {
  at: undefined,
  began: 0,
  phase: "starting",
  paused: false,
  totalSteps: 0,
  wasted: {
    starting: 0,
    replayed: 0,
    detecting: 0,
    recovering: 0,
    paused: 0,
    down: 0,
    evaluating: 0,
    finishing: 0
  },
  pending: 0,
  useful: 0,
  saves: [],
  marks: [[0, 0]],
  failures: 0
}

const waste = (account: Account, cause: Cause, millis: number): Account =>
  millis === 0 ? account : { ...account, wasted: { ...account.wasted, [cause]: account.wasted[cause] + millis } }

/** Counts the time up to `at` by what the run was doing; `down` says that no process was running it. */
const pass = (account: Account, at: number, down: boolean): Account => {
  // Clocks of two machines may differ: time never runs backwards here.
  const millis = Math.max(0, at - (account.at ?? at))
  const moved = { ...account, at: Math.max(at, account.at ?? at) }
  if (down) return waste(moved, "down", millis)
  if (account.paused) return waste(moved, "paused", millis)
  switch (account.phase) {
    case "training":
      return { ...moved, pending: account.pending + millis }
    case "over":
      return waste(moved, "down", millis)
    default:
      return waste(moved, account.phase, millis)
  }
}

const settle = (account: Account, cause: Cause): Account => ({ ...waste(account, cause, account.pending), pending: 0 })

/** Goes back to where `steps` were applied: what was done beyond it has to be done again. */
const rewind = (account: Account, steps: number): Account => {
  const marks = account.marks.filter(([mark]) => mark <= steps)
  const useful = marks.at(-1)?.[1] ?? 0
  return waste({ ...account, marks, useful, saves: [] }, "replayed", account.useful - useful)
}

const mark = (account: Account, steps: number): Account =>
  account.marks.some(([known]) => known === steps)
    ? account
    : { ...account, marks: [...account.marks, [steps, account.useful]] }

/** The account after one more record, written at `at` (milliseconds since the epoch). */
export const apply = (account: Account, at: number, record: JournalRecord): Account => {
  if (record._tag === "Snapshot") return restoreAccount(record.account) ?? account
  const started = account.at !== undefined
  const now = pass(started ? account : { ...account, at, began: at }, at, record._tag === "Epoch" && started)
  switch (record._tag) {
    case "Run":
      return { ...now, totalSteps: record.totalSteps }
    case "Epoch":
      return takenOver(now)
    case "Attempt": {
      const back = rewind(settle(now, "detecting"), record.fromStep)
      return { ...back, phase: back.phase === "starting" ? "starting" : "recovering", paused: false }
    }
    case "Started":
    case "Reattached":
      return { ...now, phase: "training", paused: false }
    case "Step":
      return record.save === null ? now : { ...now, saves: [...now.saves, record.save.binds] }
    case "Commit": {
      const steps = record.step + 1
      const done = steps >= now.totalSteps
      const next: Account = {
        ...now,
        useful: now.useful + now.pending,
        pending: 0,
        phase: done ? "finishing" : now.phase
      }
      return next.saves.includes(steps) ? mark({ ...next, saves: next.saves.filter((at) => at > steps) }, steps) : next
    }
    case "Save":
      return mark(now, record.binds)
    case "Evaluating":
      return { ...settle(now, "evaluating"), phase: "evaluating" }
    case "Evaluated":
      return { ...now, phase: now.phase === "evaluating" ? "training" : now.phase }
    case "Incident":
      return {
        ...settle(now, "detecting"),
        phase: "recovering",
        // Whoever was not let in waits; the next attempt ends it.
        paused: record.cause === "paused",
        failures: now.failures + (record.cause === "paused" ? 0 : 1)
      }
    case "Paused":
      return { ...now, paused: true }
    case "Resumed":
      return { ...now, paused: false }
    case "Completed":
    case "Ended":
      return { ...settle(now, "finishing"), phase: "over", paused: false }
    default:
      return now
  }
}

const takenOver = (account: Account): Account => ({
  ...settle(account, "down"),
  phase: account.phase === "starting" ? "starting" : "recovering",
  paused: false
})

/** A new process has the run from `at` on. */
export const taken = (account: Account, at: number): Account => takenOver(pass(account, at, true))

/** The sums so far. Time since the last committed step is useful for as long as nothing has gone wrong. */
export const of = (account: Account): Goodput => {
  const useful = account.useful + account.pending
  return {
    useful,
    wasted: account.wasted,
    elapsed: useful + causes.reduce((all, cause) => all + account.wasted[cause], 0),
    failures: account.failures
  }
}

/** The account of a journal. */
export const fold = (records: Iterable<{ readonly t: DateTime.Utc; readonly record: JournalRecord }>): Account => {
  let account = empty
  for (const { record, t } of records) account = apply(account, t.epochMilliseconds, record)
  return account
}

/** For a compacted journal. */
export const saveAccount = (account: Account): Schema.Json => JSON.parse(JSON.stringify(account))

const restoreAccount = (json: Schema.Json): Account | undefined => {
  // Written by `saveAccount` into a line whose checksum and version were checked.
  const account = json as unknown as Account
  return typeof account === "object" && account !== null && "marks" in account && "wasted" in account
    ? { ...account, at: account.at }
    : undefined
}
