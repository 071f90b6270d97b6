/**
 * Reads and manages what the service keeps: training runs, checkpoints, sessions, samplers, usage. Nothing here needs a session.
 *
 * Every call is one request, repeated by the connection's own rules, takes `CallOptions` among its last argument, and fails with
 * `TinkerError`. A change that is asked for again because its answer was lost counts as made where the service says that it
 * already is (a checkpoint that is gone, that is public). The lists that come as streams fetch a page when it is asked for;
 * their pages are no snapshot: what moves in the list meanwhile may come twice or, until the next time, not at all. Collect a
 * list before deleting what is in it.
 */
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type * as Stream from "effect/Stream"
import type { AuditLog } from "./AuditLog.ts"
import type { BillingUsage } from "./BillingUsage.ts"
import type { CallOptions } from "./CallOptions.ts"
import type { Checkpoint } from "./Checkpoint.ts"
import type { Sampler } from "./Sampler.ts"
import type { TinkerError } from "./TinkerError.ts"
import type { TrainingRun } from "./TrainingRun.ts"

/** Where a page stands in its list. */
export interface Cursor {
  readonly offset: number
  readonly limit: number
  readonly totalCount: number
}

/** Which runs and sessions: one's own, or all that one may see. */
export type AccessScope = "owned" | "accessible"

export interface Scoped extends CallOptions {
  /** Default `owned`. */
  readonly accessScope?: AccessScope | undefined
}

export interface AllRuns extends Scoped {
  readonly projectId?: string | undefined
  /** Only runs whose backend failed, or only such as are well. Default: all. The service is asked for all in any case. */
  readonly corrupted?: boolean | undefined
}

export interface ListRuns extends Scoped {
  /** Runs a page, 1 to 100. Default 20. */
  readonly limit?: number | undefined
  /** Default 0. */
  readonly offset?: number | undefined
  readonly projectId?: string | undefined
}

/** What of a run tells whether it is well. */
export interface RunFlag {
  readonly trainingRunId: string
  /** The run's backend failed; `undefined` where the service says anything but true, false or nothing. */
  readonly corrupted: boolean | undefined
  /** When the service last heard of the run, in milliseconds since 1970 by its clock; `undefined` where it does not say. */
  readonly lastRequestMillis: number | undefined
}

export interface ListCheckpoints extends CallOptions {
  /** Checkpoints a page, 1 to 1000. Default 100. */
  readonly limit?: number | undefined
  /** Default 0. */
  readonly offset?: number | undefined
}

export interface ListSessions extends Scoped {
  /** Ids a page, 1 to 100. Default 20. */
  readonly limit?: number | undefined
  /** Default 0. */
  readonly offset?: number | undefined
}

/** What a checkpoint needs of the model that it is loaded into. */
export interface WeightsInfo {
  readonly baseModel: string
  readonly isLora: boolean
  readonly loraRank: Option.Option<number>
  readonly trainMlp: Option.Option<boolean>
  readonly trainAttn: Option.Option<boolean>
  readonly trainUnembed: Option.Option<boolean>
}

export interface SupportedModel {
  readonly modelName: Option.Option<string>
  /** Tokens. */
  readonly maxContextLength: Option.Option<number>
}

/** What was made in a session. */
export interface SessionInfo {
  readonly trainingRunIds: ReadonlyArray<string>
  readonly samplerIds: ReadonlyArray<string>
}

/** Where an archive can be fetched, by anybody who has the address, for a while. */
export interface ArchiveUrl {
  readonly url: Redacted.Redacted
  /** A quarter of an hour from now where the service does not say. */
  readonly expires: DateTime.Utc
}

export interface ArchiveOptions extends CallOptions {
  /** How long to wait while the service builds the archive. Default 30 minutes. */
  readonly buildLimit?: Duration.Input | undefined
}

/** How far a download is. */
export interface Progress {
  /** Bytes. */
  readonly received: number
  /** None where the server does not say. */
  readonly total: Option.Option<number>
}

/**
 * `deadline` is how long the download may stand still, `retries` how often in a row it may be taken up again without a further
 * byte. The place where the archive is kept gets none of `headers`.
 */
export interface DownloadOptions extends ArchiveOptions {
  /** Called after each piece, some 64 kB. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/**
 * Takes the next pieces of an archive. A sink that has copied them, or has no more use for them, may call `release`: their memory
 * is then given back at once, and they are empty, unless somebody else may have them. A download is then faster, up to twice
 * as fast over undici (`NodeHttpClient.layerUndici`), since less of it is left to the garbage collector.
 */
export type ArchiveSink<E = never, R = never> = (
  pieces: ReadonlyArray<Uint8Array>,
  release: () => void
) => Effect.Effect<void, E, R>

export interface TraceOptions extends CallOptions {
  /** How long to wait while the service puts the trace together. Default 30 minutes. */
  readonly buildLimit?: Duration.Input | undefined
}

export interface AuditOptions extends CallOptions {
  /** Default `all`. */
  readonly eventType?: "all" | "checkpoints" | undefined
  /** `YYYY-MM-DD`, in UTC. Default: the service's, today. */
  readonly day?: string | undefined
}

/** What the checkpoints of one project, or of one user outside of all projects, take up. */
export interface StorageUsage {
  readonly projectId: Option.Option<string>
  readonly userUrn: Option.Option<string>
  readonly userEmail: Option.Option<string>
  readonly userName: Option.Option<string>
  readonly checkpoints: number
  readonly bytes: number
  /** US dollars a month, at the service's present rate. */
  readonly estimatedMonthlyCost: Option.Option<number>
}

/** Whose token the connection holds. */
export interface Identity {
  readonly userUrn: string
  readonly email: Option.Option<string>
}

export class RestClient extends Context.Service<
  RestClient,
  {
    readonly getTrainingRun: (runId: string, options?: Scoped) => Effect.Effect<TrainingRun, TinkerError>
    /** The run that a checkpoint is of. */
    readonly getTrainingRunByPath: (path: string, options?: Scoped) => Effect.Effect<TrainingRun, TinkerError>
    /** One page of runs, newest first. */
    readonly listTrainingRuns: (
      options?: ListRuns
    ) => Effect.Effect<{ readonly runs: ReadonlyArray<TrainingRun>; readonly cursor: Cursor }, TinkerError>
    /**
     * One page of runs, newest first, as little of each as tells whether it is well: for those who look at a hundred thousand
     * again and again. An answer that is no list of runs is a `BadResponse`; one run that makes no sense spoils no other one.
     */
    readonly listRunFlags: (
      options?: ListRuns
    ) => Effect.Effect<{ readonly runs: ReadonlyArray<RunFlag>; readonly totalCount: number | undefined }, TinkerError>
    /** All runs, newest first, 100 to a request. */
    readonly streamTrainingRuns: (options?: AllRuns) => Stream.Stream<TrainingRun, TinkerError>
    /** All checkpoints of a run, both kinds. */
    readonly listCheckpoints: (
      runId: string,
      options?: CallOptions
    ) => Effect.Effect<ReadonlyArray<Checkpoint>, TinkerError>
    /** One page of the checkpoints of all runs, newest first. */
    readonly listUserCheckpoints: (options?: ListCheckpoints) => Effect.Effect<ReadonlyArray<Checkpoint>, TinkerError>
    /** The checkpoints of all runs, newest first, 1000 to a request. */
    readonly streamUserCheckpoints: (options?: CallOptions) => Stream.Stream<Checkpoint, TinkerError>
    /** The checkpoint with this path, from the list of its run; `NotFound` where it is not in it. */
    readonly getCheckpoint: (path: string, options?: CallOptions) => Effect.Effect<Checkpoint, TinkerError>
    /** Works for public checkpoints of others too. */
    readonly weightsInfo: (path: string, options?: CallOptions) => Effect.Effect<WeightsInfo, TinkerError>
    readonly deleteCheckpoint: (path: string, options?: CallOptions) => Effect.Effect<void, TinkerError>
    /** Lets other accounts read a checkpoint. `Conflict` where they already can. */
    readonly publishCheckpoint: (path: string, options?: CallOptions) => Effect.Effect<void, TinkerError>
    /** The reverse. `Conflict` where it is private already. */
    readonly unpublishCheckpoint: (path: string, options?: CallOptions) => Effect.Effect<void, TinkerError>
    /** Counted from now, in whole seconds; `null` keeps it for ever. */
    readonly setCheckpointTtl: (
      path: string,
      ttl: Duration.Input | null,
      options?: CallOptions
    ) => Effect.Effect<void, TinkerError>
    /** Waits while the service builds the archive, by its hints or half a minute at a time. See `CheckpointArchive`. */
    readonly getCheckpointArchiveUrl: (path: string, options?: ArchiveOptions) => Effect.Effect<ArchiveUrl, TinkerError>
    /**
     * Hands the bytes of an archive, mostly a compressed tar, to `sink`, which is waited for. A connection that is cut, or that
     * stands still for a minute, is taken up where it ended, if need be at a new address; where the server cannot continue in the
     * middle, or has another file there meanwhile, it fails with a `Transport` that may be retried from the beginning. See
     * `CheckpointArchive`.
     */
    readonly readCheckpointArchive: <E = never, R = never>(
      path: string,
      sink: ArchiveSink<E, R>,
      options?: DownloadOptions
    ) => Effect.Effect<void, TinkerError | E, R>
    /** The same as a stream, which takes somewhat longer. */
    readonly streamCheckpointArchive: (
      path: string,
      options?: DownloadOptions
    ) => Stream.Stream<Uint8Array, TinkerError>
    readonly getSampler: (samplerId: string, options?: CallOptions) => Effect.Effect<Sampler, TinkerError>
    readonly getSession: (sessionId: string, options?: Scoped) => Effect.Effect<SessionInfo, TinkerError>
    /** One page of ids, newest first. */
    readonly listSessions: (options?: ListSessions) => Effect.Effect<ReadonlyArray<string>, TinkerError>
    /** All ids, newest first, 100 to a request; ends with the first page that is not full. */
    readonly streamSessions: (options?: Scoped) => Stream.Stream<string, TinkerError>
    /** Books a session, and what is made in it, on a project. There is no way to take it off all projects again. */
    readonly assignSessionProject: (
      sessionId: string,
      projectId: string,
      options?: CallOptions
    ) => Effect.Effect<void, TinkerError>
    /** Has the trace of a session written, waits for it, and gives its address, good for about an hour (a Perfetto file). */
    readonly exportSessionTrace: (
      sessionId: string,
      options?: TraceOptions
    ) => Effect.Effect<Redacted.Redacted, TinkerError>
    /** Needs an administrator's key. */
    readonly getAuditLog: (options?: AuditOptions) => Effect.Effect<AuditLog, TinkerError>
    /** Whole hours in UTC, at most 14 days, not beginning in the future. Needs the right to see bills. */
    readonly getBillingUsage: (
      window: { readonly from: DateTime.DateTime.Input; readonly until: DateTime.DateTime.Input },
      options?: CallOptions
    ) => Effect.Effect<BillingUsage, TinkerError>
    /** As it is now. After 0.25: `NotFound` from services that do not know it. */
    readonly getStorageUsage: (options?: CallOptions) => Effect.Effect<ReadonlyArray<StorageUsage>, TinkerError>
    readonly getServerCapabilities: (options?: CallOptions) => Effect.Effect<ReadonlyArray<SupportedModel>, TinkerError>
    /** One request, not repeated unless `retries` says so. */
    readonly health: (options?: CallOptions) => Effect.Effect<void, TinkerError>
    /** Read from the access token; no request of its own. `Unsupported` where the connection holds a plain key. */
    readonly whoami: (options?: CallOptions) => Effect.Effect<Identity, TinkerError>
  }
>()("@tinkex/tinker/RestClient") {}
