import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { AuditLog } from "../AuditLog.ts"
import { BillingUsage } from "../BillingUsage.ts"
import { Checkpoint } from "../Checkpoint.ts"
import type { CallOptions } from "../CallOptions.ts"
import type {
  AllRuns,
  ArchiveOptions,
  ArchiveUrl,
  Cursor,
  ListCheckpoints,
  ListRuns,
  ListSessions,
  RestClient,
  RunFlag,
  Scoped
} from "../RestClient.ts"
import { Sampler } from "../Sampler.ts"
import * as Time from "../Time.ts"
import {
  BadResponse,
  ExportFailed,
  InvalidInput,
  NotFound,
  ServerFailure,
  TinkerError,
  Unsupported
} from "../TinkerError.ts"
import { TrainingRun } from "../TrainingRun.ts"
import * as CheckpointPath from "../wire/CheckpointPath.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Header from "../wire/Headers.ts"
import * as Json from "../wire/Json.ts"
import * as Rest from "../wire/Rest.ts"
import * as ArchiveStream from "./archiveStream.ts"
import { claimsOf } from "./credential.ts"
import type { Reply, Request, RequestOptions } from "./request.ts"
import * as PlainRuns from "./plainRuns.ts"
import * as Status from "./status.ts"
import { decodeJson, decodeValue, parseJson, type Transport } from "./transport.ts"

const RunsCursor = Schema.Struct({ cursor: Json.Cursor })
const Runs = Schema.Struct({ training_runs: Schema.Array(TrainingRun), ...RunsCursor.fields })
const CheckpointsCursor = Schema.Struct({ cursor: Schema.optionalKey(Schema.NullOr(Json.Cursor)) })
const Checkpoints = Schema.Struct({ checkpoints: Schema.Array(Checkpoint), ...CheckpointsCursor.fields })
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

const checkId = (operation: string, field: string, id: string) =>
  CheckpointPath.isSegment(id)
    ? Effect.succeed(id)
    : Effect.fail(invalid(operation, field, `"${id}" can be no id: it is empty or would change the address`))

/** `limit` and `offset` as the service takes them. */
const checkPage = (operation: string, limit: number, offset: number, most: number) =>
  !Number.isInteger(limit) || limit < 1 || limit > most
    ? Effect.fail(invalid(operation, "limit", `is ${limit} and must be a whole number from 1 to ${most}`))
    : !Number.isSafeInteger(offset) || offset < 0
      ? Effect.fail(invalid(operation, "offset", `is ${offset} and must be a whole number, 0 or more`))
      : Effect.void

const succeeded = () => Effect.void

/** The end of a wait, in milliseconds from now. */
const checkLimit = (operation: string, field: string, given: Duration.Input) => {
  const parsed = Option.map(Duration.fromInput(given), Duration.toMillis)
  return Option.isSome(parsed) && Number.isFinite(parsed.value) && parsed.value > 0
    ? Effect.succeed(parsed.value)
    : Effect.fail(invalid(operation, field, 'must be a finite duration above 0, such as "10 minutes"'))
}

const hourMillis = 3_600_000
const longestWindowMillis = 14 * 24 * hourMillis

const checkWindow = Effect.fnUntraced(function* (
  operation: string,
  window: { readonly from: DateTime.DateTime.Input; readonly until: DateTime.DateTime.Input }
) {
  const hour = (field: "from" | "until") => {
    const time = DateTime.make(window[field])
    if (Option.isNone(time)) return Effect.fail(invalid(operation, field, "is no time"))
    const millis = DateTime.toEpochMillis(time.value)
    return millis % hourMillis === 0
      ? Effect.succeed(millis)
      : Effect.fail(invalid(operation, field, `is ${new Date(millis).toISOString()} and must be a whole hour in UTC`))
  }
  const from = yield* hour("from")
  const until = yield* hour("until")
  if (until <= from) return yield* invalid(operation, "until", "must come after from")
  if (until - from > longestWindowMillis) return yield* invalid(operation, "until", "is more than 14 days after from")
  if (from > (yield* Clock.currentTimeMillis)) return yield* invalid(operation, "from", "lies in the future")
  const text = (millis: number) => new Date(millis).toISOString().replace(".000Z", "Z")
  return { starting_on: text(from), ending_before: text(until) }
})

/** Between two looks at something that the service is making and gives no hint about. */
const archivePauseMillis = 30_000
const tracePauseMillis = 5_000
const buildLimit: Duration.Input = "30 minutes"
/** An address that comes without an end is taken to be good for so long. */
const addressMillis = 15 * 60_000

const isAddress = (text: string): boolean => {
  const url = Result.try(() => new URL(text))
  return Result.isSuccess(url) && (url.success.protocol === "https:" || url.success.protocol === "http:")
}

/** An HTTP date, or any other time; one without a zone is UTC. */
const expiryOf = (text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  const time = Time.parse(text)
  if (Option.isSome(time)) return DateTime.toEpochMillis(time.value)
  const millis = Date.parse(/(?:GMT|UTC|Z|[+-]\d\d:?\d\d)$/i.test(text.trim()) ? text : `${text} GMT`)
  return Number.isNaN(millis) ? undefined : millis
}

const readArchiveUrl = (operation: string) => (reply: Reply) =>
  Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    let url = reply.headers[Header.location]
    let expires = expiryOf(reply.headers[Header.expires])
    if (Status.isOk(reply)) {
      const body = yield* decodeJson(operation, Rest.ArchiveUrl)(reply)
      url = body.url
      expires = typeof body.expires === "string" ? expiryOf(body.expires) : undefined
    }
    if (url === undefined || !isAddress(url)) {
      const problem = url === undefined ? "it is a redirect without an address" : "its address is no http(s) URL"
      return yield* new TinkerError({ reason: new BadResponse({ operation, problem }) })
    }
    const found: ArchiveUrl = {
      url: Redacted.make(url, { label: "archive" }),
      expires: DateTime.makeUnsafe(expires ?? now + addressMillis)
    }
    return Option.some(found)
  })

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

/** By hand: a schema takes twenty times as long, and this is read for a hundred thousand runs every half minute. */
const readFlags = (operation: string) => (reply: Reply) =>
  Effect.suspend(() => {
    const bad = (problem: string) => Effect.fail(new TinkerError({ reason: new BadResponse({ operation, problem }) }))
    const body = Result.try((): unknown => JSON.parse(utf8.decode(reply.body)))
    if (Result.isFailure(body)) return bad("it is no JSON")
    const page = body.success
    if (!isObject(page) || !Array.isArray(page["training_runs"])) return bad('it has no list "training_runs"')
    const runs: Array<RunFlag> = []
    for (const run of page["training_runs"] as ReadonlyArray<unknown>) {
      if (!isObject(run) || typeof run["training_run_id"] !== "string") continue
      const flag = run["corrupted"] === undefined ? false : run["corrupted"]
      runs.push({
        trainingRunId: run["training_run_id"],
        corrupted: typeof flag === "boolean" ? flag : undefined,
        lastRequestMillis: Time.toMillis(run["last_request_time"])
      })
    }
    const cursor = page["cursor"]
    const total = isObject(cursor) ? cursor["total_count"] : undefined
    return Effect.succeed({ runs, totalCount: typeof total === "number" ? total : undefined })
  })

const utf8 = new TextDecoder()

/** A change that was asked for before, and whose answer was lost, is made where the service now says that there is nothing left to do. */
const madeBefore = (status: number) => (reply: Reply, repeated: boolean) => repeated && reply.status === status

/** One page of a list, read by hand where it is plain and by its schema where it is not. */
const readPage =
  <A, B extends { readonly [K in Field]: ReadonlyArray<A> }, Rest extends object, Field extends string>(options: {
    readonly operation: string
    readonly field: Field
    readonly plain: (list: unknown) => ReadonlyArray<A> | undefined
    /** All but the list. */
    readonly rest: Schema.Decoder<Rest>
    readonly whole: Schema.Decoder<B & Rest>
  }) =>
  (reply: Reply): Effect.Effect<{ readonly list: ReadonlyArray<A>; readonly rest: Rest }, TinkerError> =>
    Effect.flatMap(parseJson(options.operation, reply), (value) => {
      const list = isObject(value) ? options.plain(value[options.field]) : undefined
      return list === undefined
        ? Effect.map(decodeValue(options.operation, options.whole)(value), (whole) => ({
            list: whole[options.field],
            rest: whole
          }))
        : Effect.map(decodeValue(options.operation, options.rest)(value), (rest) => ({ list, rest }))
    })

const readRuns = (operation: string) =>
  readPage({ operation, field: "training_runs", plain: PlainRuns.runs, rest: RunsCursor, whole: Runs })

const readCheckpoints = (operation: string) =>
  readPage({
    operation,
    field: "checkpoints",
    plain: PlainRuns.checkpoints,
    rest: CheckpointsCursor,
    whole: Checkpoints
  })

/** The client over a connection. */
export const make = (
  transport: Pick<Transport, "boot" | "token" | "exchanged" | "open" | "deadlineMillis"> & { readonly request: Request }
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

  const getCheckpointArchiveUrl = Effect.fn("RestClient.getCheckpointArchiveUrl")(function* (
    path: string,
    options: ArchiveOptions = {}
  ) {
    const operation = `get the archive of ${path}`
    const parsed = yield* checkPath(operation, path)
    const limit = yield* checkLimit(operation, "buildLimit", options.buildLimit ?? buildLimit)
    const began = yield* Clock.currentTimeMillis
    while (true) {
      const found = yield* request(Endpoint.checkpointArchive(parsed.runId, CheckpointPath.checkpointId(parsed)), {
        operation,
        call: options,
        accepts: ({ status }) => status === 302 || status === 503,
        decode: (reply): Effect.Effect<Option.Option<ArchiveUrl> | Reply, TinkerError> =>
          reply.status === 503 ? Effect.succeed(reply) : readArchiveUrl(operation)(reply)
      })
      if (Option.isOption(found)) return yield* Effect.fromOption(found).pipe(Effect.orDie)
      const now = yield* Clock.currentTimeMillis
      const detail = Status.detailOf(found)
      const left = limit - (now - began)
      if (left <= 0) {
        return yield* new TinkerError({ reason: new ServerFailure({ operation, status: found.status, detail }) })
      }
      yield* Effect.logInfo(
        `The archive of ${path} is being built, for ${Math.round((now - began) / 1000)} s: ${detail}`
      )
      yield* Effect.sleep(Math.min(Status.retryHintMillis(found, now) ?? archivePauseMillis, left))
    }
  })

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
      const given = ttl === null ? undefined : Option.map(Duration.fromInput(ttl), Duration.toSeconds)
      const seconds = given === undefined ? null : Option.getOrElse(given, () => Number.NaN)
      if (seconds !== null && (!Number.isSafeInteger(seconds) || seconds < 1)) {
        const problem = `is ${seconds} s and must be a whole number of seconds above 0, or null for no end`
        return yield* invalid(`${verb} ${path}`, "ttl", problem)
      }
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
      const limit = yield* checkLimit(operation, "buildLimit", options.buildLimit ?? buildLimit)
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
          if (typeof found.url === "string" && isAddress(found.url)) return Redacted.make(found.url, { label: "trace" })
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
    whoami: Effect.fn("RestClient.whoami")(function* () {
      yield* transport.boot
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
