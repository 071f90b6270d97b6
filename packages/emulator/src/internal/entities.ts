/** What lives in an emulator: sessions, models with what they have to do, and weights to sample from. */
import type * as Deferred from "effect/Deferred"
import type * as Effect from "effect/Effect"
import type * as FaultPlan from "../FaultPlan.ts"
import type { Sampler } from "../Sampler.ts"
import type { Run } from "./catalog.ts"
import type { OperationFailed, Trainee } from "./compute.ts"
import type { OperationFaults } from "./faults.ts"
import type { Future, Result } from "./futures.ts"
import type { Slice } from "./perfetto.ts"
import type { Sequence } from "./sequence.ts"

export interface Session {
  readonly id: string
  readonly owner: string
  readonly openedAt: number
  readonly userMetadata: Readonly<Record<string, string>> | null
  projectId: string | null
  lastBeat: number
  expired: boolean
  readonly models: Map<number, Model>
  readonly samplers: Map<number, SamplingSession>
  /** Its client has said that it is done. */
  finished: boolean
  /** What it asked for, and how long that took; the first 10,000. */
  readonly trace: Array<Slice>
}

/** Weights under a name of their own, from which any number of requests may sample. */
export interface SamplingSession {
  readonly id: string
  readonly session: Session
  /** Of the request that opened it. */
  readonly digest: string
  readonly baseModel: string
  readonly modelPath: string | null
  /** The weights, read when they are first needed. */
  readonly sampler: Effect.Effect<Sampler, OperationFailed>
  /** Requests by their numbers, which may be beyond 2^53. */
  readonly requests: Map<string, { readonly digest: string; readonly future: Future }>
  /** Clients that have joined, besides the one that opened it. */
  clients: number
  /** Requests that have ended, in that order. */
  readonly completions: Array<Completion>
  /** Wakes those who wait for another completion; a new one each time. */
  news: Deferred.Deferred<void>
}

/** A request of a sampling session that has ended. */
export interface Completion {
  readonly requestId: string
  readonly seqId: string
  readonly failed: boolean
  readonly size: number
}

/** What an operation does when its turn comes. */
export type Work = (model: Model, seqId: number) => Effect.Effect<Result, OperationFailed>

export interface Op {
  readonly operation: FaultPlan.Operation
  readonly seqId: number
  readonly future: Future
  readonly faults: OperationFaults
  /** Taken away once it has run: a batch need not outlive its turn. */
  work: Work | undefined
}

export interface Model {
  readonly id: string
  readonly session: Session
  readonly run: Run
  readonly sequence: Sequence<Op>
  trainee: Trainee | undefined
  /** Digests of the examples whose gradients wait for the next step. */
  gradients: Array<Uint8Array>
  datums: number
  running: boolean
  unloaded: boolean
  /** Can do no more, and its run is not flagged. */
  broken: boolean
  /** Was loaded from a checkpoint that corrupts it at its first step. */
  tainted: boolean
  lastUsed: number
}
