/** What one scenario does to a run, as data where it can be. */
import type { Duration } from "effect"
import type { RecoveryPolicy } from "@tinkex/recovery"
import type { Divergence, JournalRecord } from "@tinkex/training"

/** Of every run in the suite. */
export const steps = 10

/** A place where a process waits for somebody else. */
export interface Place {
  readonly what: "append" | "request"
  readonly when: "before" | "after"
  /** Of the records that are being appended. */
  readonly records: ReadonlyArray<JournalRecord.JournalRecord["_tag"]>
  /** Of the request; empty for an append. */
  readonly url: string
}

/** The n-th place of a kind, from 1. */
export interface Where {
  readonly is: (place: Place) => boolean
  readonly nth: number
}

/** What the first process of a run goes through; the ones after it are left in peace. */
export type Affliction =
  /** It is gone, as after `kill -9`; with `unproven`, nobody can know that it is (another host, a reboot). */
  | { readonly _tag: "Death"; readonly at: Where; readonly unproven: boolean }
  /** It stands still; its lease ends, another one goes on to the end, and then it wakes up. */
  | { readonly _tag: "Standstill"; readonly at: Where }
  /** Its journal cannot be written from this append on. */
  | { readonly _tag: "FullDisk"; readonly append: number }
  /** A second process is started when it has come this far. */
  | { readonly _tag: "Rival"; readonly at: Where }
  /** It dies while it appends: of what it was writing, this share (of 100) has reached the disk, and then `filling`. */
  | { readonly _tag: "TornTail"; readonly at: Where; readonly share: number; readonly filling: string }

export interface Scenario {
  /** Faults of the server and of the wire, as a plan of the emulator. */
  readonly spec: string
  readonly pipelining: number
  readonly every: number
  readonly keepLast: number
  readonly capability: "D0" | "D3"
  /** Reinforcement learning instead of fine-tuning. */
  readonly rl: boolean
  /** How late a flag may be; short ones let checkpoints be deleted. */
  readonly horizon?: Duration.Input
  /** How long the program takes for a batch. Default: no time. */
  readonly pace?: Duration.Input
  /** Before this step the program itself is busy, or idle, for a while. */
  readonly idle?: { readonly step: number; readonly lasts: Duration.Input }
  readonly ttl?: Duration.Input
  readonly probe?: boolean
  readonly divergence?: Divergence.DivergenceOptions
  readonly model?: { readonly rank: number; readonly trainUnembed: boolean; readonly trainMlp: boolean }
  readonly policy?: RecoveryPolicy.RecoveryPolicyOptions
  readonly affliction?: Affliction
  /** This request reaches the server twice. */
  readonly twice?: Where
  /** The wall clock jumps by so much, again and again; the monotonic one does not. */
  readonly jumps?: { readonly everyMillis: number; readonly byMillis: number }
  /** The second process is another program: it has to be refused. */
  readonly otherProgram?: boolean
  /** Reasons that may end a process. The run is then started again, with nothing changed, and has to come to its end. */
  readonly ends?: ReadonlyArray<string>
  /** Reasons that may end the run for good. */
  readonly forGood?: ReadonlyArray<string>
  /** Attempts that there may be at the most, in a run that nobody kills. */
  readonly mostAttempts?: number
  /** Incidents that there have to be at the least, where the fault has fired. */
  readonly leastIncidents?: number
}
