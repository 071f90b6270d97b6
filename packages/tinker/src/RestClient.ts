/**
 * Reads and manages what the service keeps: training runs and checkpoints. Every call is one request, repeated by the
 * connection's own rules, and fails with `TinkerError`. Nothing here needs a session.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Checkpoint } from "./Checkpoint.ts"
import type { Request } from "./internal/request.ts"
import { InvalidInput, TinkerError } from "./TinkerError.ts"
import { TrainingRun } from "./TrainingRun.ts"
import * as CheckpointPath from "./wire/CheckpointPath.ts"
import * as Endpoint from "./wire/Endpoint.ts"
import * as Json from "./wire/Json.ts"

/** Where a page stands in its list. */
export interface Cursor {
  readonly offset: number
  readonly limit: number
  readonly totalCount: number
}

/** Which runs: one's own, or all that one may see. */
export type AccessScope = "owned" | "accessible"

export interface ListRuns {
  /** Runs a page, 1 to 100. Default 20. */
  readonly limit?: number | undefined
  /** Default 0. */
  readonly offset?: number | undefined
  /** Default `owned`. */
  readonly accessScope?: AccessScope | undefined
  readonly projectId?: string | undefined
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

const Runs = Schema.Struct({ training_runs: Schema.Array(TrainingRun), cursor: Json.Cursor })
const Checkpoints = Schema.Struct({ checkpoints: Schema.Array(Checkpoint) })
const toCursor = (cursor: typeof Json.Cursor.Type): Cursor => ({
  offset: cursor.offset,
  limit: cursor.limit,
  totalCount: cursor.total_count
})

const invalid = (operation: string, field: string, problem: string) =>
  new TinkerError({ reason: new InvalidInput({ operation, field, problem }) })

const checkPath = (operation: string, path: string) =>
  Option.match(CheckpointPath.parse(path), {
    onNone: () => Effect.fail(invalid(operation, "path", `"${path}" is not of the form tinker://<run>/weights/<name>`)),
    onSome: Effect.succeed
  })

const checkId = (operation: string, id: string) =>
  CheckpointPath.isSegment(id)
    ? Effect.succeed(id)
    : Effect.fail(invalid(operation, "runId", `"${id}" is no id of a training run`))

/** `limit` and `offset` as the service takes them. */
const checkPage = (operation: string, limit: number, offset: number, most: number) =>
  !Number.isInteger(limit) || limit < 1 || limit > most
    ? Effect.fail(invalid(operation, "limit", `is ${limit} and must be a whole number from 1 to ${most}`))
    : !Number.isInteger(offset) || offset < 0
      ? Effect.fail(invalid(operation, "offset", `is ${offset} and must be a whole number, 0 or more`))
      : Effect.void

const succeeded = () => Effect.void

/** The client over a connection. */
export const make = (request: Request) => {
  const listTrainingRuns = Effect.fn("RestClient.listTrainingRuns")(function* (options: ListRuns = {}) {
    const { accessScope = "owned", limit = 20, offset = 0, projectId } = options
    yield* checkPage("list training runs", limit, offset, 100)
    const page = yield* request(Endpoint.trainingRuns, {
      operation: "list training runs",
      query: { limit, offset, access_scope: accessScope, project_id: projectId },
      decode: Runs
    })
    return { runs: page.training_runs, cursor: toCursor(page.cursor) }
  })

  return RestClient.of({
    getTrainingRun: Effect.fn("RestClient.getTrainingRun")(function* (
      runId: string,
      options: { readonly accessScope?: AccessScope | undefined } = {}
    ) {
      const operation = `get training run ${runId}`
      return yield* request(Endpoint.trainingRun(yield* checkId(operation, runId)), {
        operation,
        query: { access_scope: options.accessScope },
        decode: TrainingRun
      })
    }),
    listTrainingRuns,
    streamTrainingRuns: (options = {}) =>
      Stream.paginate(0, (offset: number) =>
        listTrainingRuns({ ...options, limit: 100, offset }).pipe(
          Effect.map(({ cursor, runs }) => {
            const next = offset + runs.length
            const more = runs.length > 0 && next < cursor.totalCount
            return [runs, more ? Option.some(next) : Option.none<number>()] as const
          })
        )
      ),
    listCheckpoints: Effect.fn("RestClient.listCheckpoints")(function* (runId: string) {
      const operation = `list the checkpoints of ${runId}`
      const found = yield* request(Endpoint.runCheckpoints(yield* checkId(operation, runId)), {
        operation,
        decode: Checkpoints
      })
      return found.checkpoints
    }),
    listUserCheckpoints: Effect.fn("RestClient.listUserCheckpoints")(function* (
      options: { readonly limit?: number | undefined; readonly offset?: number | undefined } = {}
    ) {
      const { limit = 100, offset = 0 } = options
      yield* checkPage("list checkpoints", limit, offset, 1000)
      const found = yield* request(Endpoint.checkpoints, {
        operation: "list checkpoints",
        query: { limit, offset },
        decode: Checkpoints
      })
      return found.checkpoints
    }),
    weightsInfo: Effect.fn("RestClient.weightsInfo")(function* (path: string) {
      const operation = `describe ${path}`
      yield* checkPath(operation, path)
      const info = yield* request(Endpoint.weightsInfo, {
        operation,
        body: { tinker_path: path },
        decode: Json.WeightsInfo
      })
      return {
        baseModel: info.base_model,
        isLora: info.is_lora,
        loraRank: Option.fromNullishOr(info.lora_rank),
        trainMlp: Option.fromNullishOr(info.train_mlp),
        trainAttn: Option.fromNullishOr(info.train_attn),
        trainUnembed: Option.fromNullishOr(info.train_unembed)
      }
    }),
    deleteCheckpoint: Effect.fn("RestClient.deleteCheckpoint")(function* (path: string) {
      const operation = `delete ${path}`
      const parsed = yield* checkPath(operation, path)
      yield* request(Endpoint.deleteCheckpoint(parsed.runId, CheckpointPath.checkpointId(parsed)), {
        operation,
        decode: succeeded
      })
    }),
    setCheckpointTtl: Effect.fn("RestClient.setCheckpointTtl")(function* (path: string, ttl: Duration.Input | null) {
      const operation = `set the time to live of ${path}`
      const parsed = yield* checkPath(operation, path)
      const seconds = ttl === null ? null : Duration.toSeconds(Duration.fromInputUnsafe(ttl))
      if (seconds !== null && (!Number.isInteger(seconds) || seconds < 1)) {
        return yield* invalid(operation, "ttl", `is ${seconds} s and must be a whole number of seconds above 0`)
      }
      yield* request(Endpoint.checkpointTtl(parsed.runId, CheckpointPath.checkpointId(parsed)), {
        operation,
        body: { ttl_seconds: seconds },
        decode: succeeded
      })
    }),
    getServerCapabilities: request(Endpoint.serverCapabilities, {
      operation: "get server capabilities",
      decode: Json.ServerCapabilities
    }).pipe(
      Effect.map((capabilities) =>
        capabilities.supported_models.map((model) => ({
          modelName: Option.fromNullishOr(model.model_name),
          maxContextLength: Option.fromNullishOr(model.max_context_length)
        }))
      )
    ),
    health: request(Endpoint.healthz, { operation: "check health", decode: Json.Health, retries: "none" }).pipe(
      Effect.asVoid
    )
  })
}

export class RestClient extends Context.Service<
  RestClient,
  {
    readonly getTrainingRun: (
      runId: string,
      options?: { readonly accessScope?: AccessScope | undefined }
    ) => Effect.Effect<TrainingRun, TinkerError>
    /** One page of runs, newest first. */
    readonly listTrainingRuns: (
      options?: ListRuns
    ) => Effect.Effect<{ readonly runs: ReadonlyArray<TrainingRun>; readonly cursor: Cursor }, TinkerError>
    /**
     * All runs, fetched 100 at a time as they are asked for. The pages are no snapshot: a run that moves in the list meanwhile
     * may come twice or, until the next time, not at all.
     */
    readonly streamTrainingRuns: (
      options?: Omit<ListRuns, "limit" | "offset">
    ) => Stream.Stream<TrainingRun, TinkerError>
    /** All checkpoints of a run, both kinds. */
    readonly listCheckpoints: (runId: string) => Effect.Effect<ReadonlyArray<Checkpoint>, TinkerError>
    /** Checkpoints of all runs, newest first; `limit` 1 to 1000, default 100. */
    readonly listUserCheckpoints: (options?: {
      readonly limit?: number | undefined
      readonly offset?: number | undefined
    }) => Effect.Effect<ReadonlyArray<Checkpoint>, TinkerError>
    readonly weightsInfo: (path: string) => Effect.Effect<WeightsInfo, TinkerError>
    /** `NotFound` may also mean that a first try had deleted it and its answer was lost. */
    readonly deleteCheckpoint: (path: string) => Effect.Effect<void, TinkerError>
    /** Counted from now, in whole seconds; `null` keeps it for ever. */
    readonly setCheckpointTtl: (path: string, ttl: Duration.Input | null) => Effect.Effect<void, TinkerError>
    readonly getServerCapabilities: Effect.Effect<ReadonlyArray<SupportedModel>, TinkerError>
    /** One request, not repeated. */
    readonly health: Effect.Effect<void, TinkerError>
  }
>()("@tinkex/tinker/RestClient") {}
