import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { AuditLog } from "../AuditLog.ts"
import { BillingUsage } from "../BillingUsage.ts"
import type { CallOptions } from "../CallOptions.ts"
import type { AllRuns, ListCheckpoints, ListRuns, ListSessions, RestClient, Scoped } from "../RestClient.ts"
import { Sampler } from "../Sampler.ts"
import * as Time from "../Time.ts"
import { BadResponse, ExportFailed, NotFound, TinkerError, Unsupported } from "../TinkerError.ts"
import { TrainingRun } from "../TrainingRun.ts"
import * as CheckpointPath from "../wire/CheckpointPath.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Json from "../wire/Json.ts"
import * as Rest from "../wire/Rest.ts"
import * as ArchiveAddress from "./archiveAddress.ts"
import * as ArchiveStream from "./archiveStream.ts"
import { checkId, checkLimit, checkPage, checkPath, checkTtl, checkWindow, invalid } from "./arguments.ts"
import * as CallLimits from "./callOptions.ts"
import { claimsOf } from "./credential.ts"
import type { Reply, Request, RequestOptions } from "./request.ts"
import { readCheckpoints, readFlags, readRuns, toCursor } from "./pages.ts"
import type { Transport } from "./transport.ts"

/** Between two looks at a trace that is being put together. */
const tracePauseMillis = 5_000

const succeeded = () => Effect.void

/** A change that was asked for before, and whose answer was lost, is made where the service now says that there is nothing left to do. */
const madeBefore = (status: number) => (reply: Reply, repeated: boolean) => repeated && reply.status === status

/** The client over a connection. */
export const make = (
  transport: Pick<Transport, "bootFor" | "token" | "exchanged" | "open" | "deadlineMillis"> & {
    readonly request: Request
  }
): RestClient["Service"] => {
  const { request } = transport

  const listTrainingRuns = Effect.fn("RestClient.listTrainingRuns")(function* (options: ListRuns = {}) {
    const { accessScope = "owned", limit = 20, offset = 0, projectId } = options
    const operation = "list training runs"
    yield* checkPage(operation, limit, offset, 100)
    const page = yield* request(Endpoint.trainingRuns, {
      operation,
      query: { limit, offset, access_scope: accessScope, project_id: projectId },
      call: options,
      decode: readRuns(operation)
    })
    return { runs: page.list, cursor: toCursor(page.rest.cursor) }
  })

  const listRunFlags = Effect.fn("RestClient.listRunFlags")(function* (options: ListRuns = {}) {
    const { accessScope = "owned", limit = 20, offset = 0, projectId } = options
    const operation = "list training runs"
    yield* checkPage(operation, limit, offset, 100)
    return yield* request(Endpoint.trainingRuns, {
      operation,
      query: { limit, offset, access_scope: accessScope, project_id: projectId },
      call: options,
      decode: readFlags(operation)
    })
  })

  const checkpointPage = Effect.fnUntraced(function* (options: ListCheckpoints = {}) {
    const { limit = 100, offset = 0 } = options
    const operation = "list checkpoints"
    yield* checkPage(operation, limit, offset, 1000)
    return yield* request(Endpoint.checkpoints, {
      operation,
      query: { limit, offset },
      call: options,
      decode: readCheckpoints(operation)
    })
  })

  const listSessions = Effect.fn("RestClient.listSessions")(function* (options: ListSessions = {}) {
    const { accessScope = "owned", limit = 20, offset = 0 } = options
    const operation = "list sessions"
    yield* checkPage(operation, limit, offset, 100)
    const found = yield* request(Endpoint.sessions, {
      operation,
      query: { limit, offset, access_scope: accessScope },
      call: options,
      decode: Rest.Sessions
    })
    return found.sessions
  })

  const listCheckpoints = Effect.fn("RestClient.listCheckpoints")(function* (runId: string, options?: CallOptions) {
    const operation = `list the checkpoints of ${runId}`
    const found = yield* request(Endpoint.runCheckpoints(yield* checkId(operation, "runId", runId)), {
      operation,
      call: options,
      decode: readCheckpoints(operation)
    })
    return found.list
  })

  const getTrainingRun = Effect.fn("RestClient.getTrainingRun")(function* (runId: string, options: Scoped = {}) {
    const operation = `get training run ${runId}`
    return yield* request(Endpoint.trainingRun(yield* checkId(operation, "runId", runId)), {
      operation,
      query: { access_scope: options.accessScope },
      call: options,
      decode: TrainingRun
    })
  })

  /** A request about one checkpoint whose answer says nothing. */
  const change = Effect.fnUntraced(function* (
    verb: string,
    path: string,
    endpoint: (runId: string, checkpointId: string) => Endpoint.Endpoint,
    options: CallOptions | undefined,
    more: Pick<RequestOptions<void>, "body" | "accepts"> = {}
  ) {
    const operation = `${verb} ${path}`
    const parsed = yield* checkPath(operation, path)
    yield* request(endpoint(parsed.runId, CheckpointPath.checkpointId(parsed)), {
      operation,
      call: options,
      decode: succeeded,
      ...more
    })
  })

  const getCheckpointArchiveUrl = ArchiveAddress.make(request)
  const archives = ArchiveStream.make({
    open: transport.open,
    address: getCheckpointArchiveUrl,
    deadlineMillis: transport.deadlineMillis
  })

  return {
    getTrainingRun,
    getTrainingRunByPath: Effect.fn("RestClient.getTrainingRunByPath")(function* (path, options) {
      const { runId } = yield* checkPath(`get the training run of ${path}`, path)
      return yield* getTrainingRun(runId, options)
    }),
    listTrainingRuns,
    listRunFlags,
    streamTrainingRuns: ({ corrupted, ...options }: AllRuns = {}) => {
      const all = Stream.paginate(0, (offset: number) =>
        listTrainingRuns({ ...options, limit: 100, offset }).pipe(
          Effect.map(({ cursor, runs }) => {
            const next = offset + runs.length
            const more = runs.length > 0 && next < cursor.totalCount
            return [runs, more ? Option.some(next) : Option.none<number>()] as const
          })
        )
      )
      return corrupted === undefined ? all : Stream.filter(all, (run) => run.corrupted === corrupted)
    },
    listCheckpoints,
    listUserCheckpoints: Effect.fn("RestClient.listUserCheckpoints")(function* (options) {
      return (yield* checkpointPage(options)).list
    }),
    streamUserCheckpoints: (options) =>
      Stream.paginate(0, (offset: number) =>
        checkpointPage({ ...options, limit: 1000, offset }).pipe(
          Effect.map(({ list: checkpoints, rest: { cursor } }) => {
            const next = offset + checkpoints.length
            // A service may leave the cursor out; then a page that is not full is the last.
            const more = checkpoints.length > 0 && (cursor ? next < cursor.total_count : checkpoints.length === 1000)
            return [checkpoints, more ? Option.some(next) : Option.none<number>()] as const
          })
        )
      ),
    getCheckpoint: Effect.fn("RestClient.getCheckpoint")(function* (path, options) {
      const operation = `get ${path}`
      const { runId } = yield* checkPath(operation, path)
      const found = (yield* listCheckpoints(runId, options)).find((checkpoint) => checkpoint.tinkerPath === path)
      if (found !== undefined) return found
      const detail = "it is not in the list of its run"
      return yield* new TinkerError({ reason: new NotFound({ operation, status: 404, detail }) })
    }),
    weightsInfo: Effect.fn("RestClient.weightsInfo")(function* (path, options) {
      const operation = `describe ${path}`
      yield* checkPath(operation, path)
      const info = yield* request(Endpoint.weightsInfo, {
        operation,
        body: { tinker_path: path },
        call: options,
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
    deleteCheckpoint: Effect.fn("RestClient.deleteCheckpoint")((path, options) =>
      change("delete", path, Endpoint.deleteCheckpoint, options, { accepts: madeBefore(404) })
    ),
    publishCheckpoint: Effect.fn("RestClient.publishCheckpoint")((path, options) =>
      change("publish", path, Endpoint.publishCheckpoint, options, { accepts: madeBefore(409) })
    ),
    unpublishCheckpoint: Effect.fn("RestClient.unpublishCheckpoint")((path, options) =>
      change("unpublish", path, Endpoint.unpublishCheckpoint, options, { accepts: madeBefore(409) })
    ),
    setCheckpointTtl: Effect.fn("RestClient.setCheckpointTtl")(function* (path, ttl, options) {
      const verb = "set the time to live of"
      const seconds = ttl === null ? null : yield* checkTtl(`${verb} ${path}`, ttl)
      return yield* change(verb, path, Endpoint.checkpointTtl, options, { body: { ttl_seconds: seconds } })
    }),
    getCheckpointArchiveUrl,
    readCheckpointArchive: archives.read,
    streamCheckpointArchive: archives.stream,
    getSampler: Effect.fn("RestClient.getSampler")(function* (samplerId, options) {
      const operation = `get sampler ${samplerId}`
      return yield* request(Endpoint.sampler(yield* checkId(operation, "samplerId", samplerId)), {
        operation,
        call: options,
        decode: Sampler
      })
    }),
    getSession: Effect.fn("RestClient.getSession")(function* (sessionId, options = {}) {
      const operation = `get session ${sessionId}`
      const found = yield* request(Endpoint.session(yield* checkId(operation, "sessionId", sessionId)), {
        operation,
        query: { access_scope: options.accessScope },
        call: options,
        decode: Json.SessionInfo
      })
      return { trainingRunIds: found.training_run_ids, samplerIds: found.sampler_ids }
    }),
    listSessions,
    streamSessions: (options) =>
      Stream.paginate(0, (offset: number) =>
        listSessions({ ...options, limit: 100, offset }).pipe(
          Effect.map((ids) => {
            const more = ids.length === 100 ? Option.some(offset + ids.length) : Option.none<number>()
            return [ids, more] as const
          })
        )
      ),
    assignSessionProject: Effect.fn("RestClient.assignSessionProject")(function* (sessionId, projectId, options) {
      const operation = `book session ${sessionId} on project ${projectId}`
      yield* checkId(operation, "sessionId", sessionId)
      if (projectId.trim() === "") return yield* invalid(operation, "projectId", "is empty")
      yield* request(Endpoint.sessionProject(sessionId), {
        operation,
        body: { project_id: projectId },
        call: options,
        decode: succeeded
      })
    }),
    exportSessionTrace: Effect.fn("RestClient.exportSessionTrace")(function* (sessionId, options = {}) {
      const operation = `export the trace of session ${sessionId}`
      yield* checkId(operation, "sessionId", sessionId)
      const limit = yield* checkLimit(operation, "buildLimit", options.buildLimit ?? ArchiveAddress.buildLimit)
      const began = yield* Clock.currentTimeMillis
      while (true) {
        const found = yield* request(Endpoint.sessionTrace(sessionId), {
          operation,
          call: options,
          decode: Rest.TraceExport
        })
        if (found.status === "failed") {
          const detail = found.error ?? "no further words"
          return yield* new TinkerError({ reason: new ExportFailed({ operation, detail }) })
        }
        if (found.status === "ready") {
          if (typeof found.url === "string" && ArchiveAddress.isAddress(found.url))
            return Redacted.make(found.url, { label: "trace" })
          const problem = "it says that the trace is ready and has no address of it"
          return yield* new TinkerError({ reason: new BadResponse({ operation, problem }) })
        }
        const left = limit - ((yield* Clock.currentTimeMillis) - began)
        if (left <= 0) {
          const detail = `it was still being put together after ${Duration.format(Duration.millis(limit))}`
          return yield* new TinkerError({ reason: new ExportFailed({ operation, detail }) })
        }
        yield* Effect.sleep(Math.min(tracePauseMillis, left))
      }
    }),
    getAuditLog: Effect.fn("RestClient.getAuditLog")(function* (options = {}) {
      const { day, eventType = "all" } = options
      const operation = "get the audit log"
      if (day !== undefined && (!/^\d{4}-\d\d-\d\d$/.test(day) || Option.isNone(Time.parse(day)))) {
        return yield* invalid(operation, "day", `is "${day.slice(0, 40)}" and must be a day as YYYY-MM-DD`)
      }
      return yield* request(Endpoint.audit, {
        operation,
        query: { event_type: eventType, day },
        call: options,
        decode: AuditLog
      })
    }),
    getBillingUsage: Effect.fn("RestClient.getBillingUsage")(function* (window, options) {
      const operation = "get the billing usage"
      return yield* request(Endpoint.billingUsage, {
        operation,
        query: yield* checkWindow(operation, window),
        call: options,
        decode: BillingUsage
      })
    }),
    getStorageUsage: Effect.fn("RestClient.getStorageUsage")(function* (options) {
      const found = yield* request(Endpoint.storageUsage, {
        operation: "get the storage usage",
        call: options,
        decode: Rest.StorageUsage
      })
      return found.data.map((one) => ({
        projectId: Option.fromNullishOr(one.project_id),
        userUrn: Option.fromNullishOr(one.org_user_urn),
        userEmail: Option.fromNullishOr(one.user_email),
        userName: Option.fromNullishOr(one.user_name),
        checkpoints: one.checkpoint_count,
        bytes: one.size_bytes,
        estimatedMonthlyCost: Option.fromNullishOr(one.estimated_monthly_cost_usd)
      }))
    }),
    getServerCapabilities: Effect.fn("RestClient.getServerCapabilities")(function* (options) {
      const capabilities = yield* request(Endpoint.serverCapabilities, {
        operation: "get server capabilities",
        call: options,
        decode: Json.ServerCapabilities
      })
      return capabilities.supported_models.map((model) => ({
        modelName: Option.fromNullishOr(model.model_name),
        maxContextLength: Option.fromNullishOr(model.max_context_length)
      }))
    }),
    health: Effect.fn("RestClient.health")(function* (options) {
      yield* request(Endpoint.healthz, {
        operation: "check health",
        call: { retries: 0, ...options },
        decode: Json.Health
      })
    }),
    whoami: Effect.fn("RestClient.whoami")(function* (options) {
      yield* transport.bootFor("whoami", yield* CallLimits.parse("whoami", options))
      const claims = claimsOf(transport.token() ?? "")
      // A token that the service did not hand out may be of anybody's making; the service's own say so.
      const trusted = transport.exchanged() || (typeof claims?.iss === "string" && claims.iss.startsWith("passport-"))
      if (!trusted || typeof claims?.sub !== "string" || claims.sub === "") {
        const problem = "the connection holds a plain key and no access token that says whose it is"
        return yield* new TinkerError({ reason: new Unsupported({ feature: "whoami", problem }) })
      }
      const { email } = claims
      return {
        userUrn: claims.sub,
        email: typeof email === "string" && email !== "" ? Option.some(email) : Option.none<string>()
      }
    })
  }
}
