/**
 * What revisions after 0.25 added, as far as it is known. Nothing here is offered to clients of 0.25; configuration flags
 * stay as they are until `clientConfig` and `dynamicConfig` raise them.
 */
import * as SamplingWire from "@tinkex/tinker/wire/SamplingSession"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type Run, storeId } from "../catalog.ts"
import * as Digest from "../digest.ts"
import * as Execution from "../execution.ts"
import * as Operations from "../operations.ts"
import { type Caller, json, ok, refused, type Reply } from "../reply.ts"
import type { Completion, SamplingSession } from "../entities.ts"
import type { World } from "../world.ts"
import { jsonBody, problemOfTtl } from "./body.ts"
import { readable } from "./checkpoints.ts"
import type { Handler } from "./session.ts"
import { locate } from "./weights.ts"

const optional = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const noContent: Reply = { status: 204, contentType: "text/plain", body: "" }

const readFinish = jsonBody(
  Schema.Struct({
    reason: Schema.Struct({ type: Schema.Literals(["success", "errored", "interrupted"]) }),
    detail: optional(Schema.String)
  })
)
/** The first call ends the session with everything in it; later ones change nothing. */
export const finishSession: Handler = (world, request, [id = ""]) =>
  Effect.gen(function* () {
    yield* readFinish(request)
    const session = world.sessions.get(id)
    if (session === undefined) return yield* Effect.fail(refused(404, `Session ${id} not found`))
    if (session.owner !== request.user) return yield* Effect.fail(refused(403, "Invalid session_id"))
    session.finished = true
    world.expire(session)
    return ok({})
  })

const readJoin = jsonBody(SamplingWire.JoinSamplingSessionRequest)
/** The original client is number 0; each that joins gets the next number, and with it a block of its own for its requests. */
export const joinSamplingSession: Handler = (world, request) =>
  Effect.flatMap(readJoin(request), (body) =>
    Effect.map(world.sampler(body.sampling_session_id, request.user), (sampler) =>
      ok({ client_counter: ++sampler.clients, type: "join_sampling_session" })
    )
  )

/** Requests of one client of a sampling session have numbers of one block. */
const block = 1_000_000_000n

const completionsSince = (sampler: SamplingSession, cursor: number, clone: number): ReadonlyArray<Completion> =>
  sampler.completions.slice(cursor).filter(({ seqId }) => BigInt(seqId) / block === BigInt(clone))

const readFutures = jsonBody(SamplingWire.RetrieveFuturesRequest)
export const retrieveFutures: Handler = (world, request) =>
  Effect.gen(function* () {
    const { prev_cursor, target, timeout } = yield* readFutures(request)
    const sampler = yield* world.sampler(target.sampling_session_id, request.user)
    const found = () => completionsSince(sampler, prev_cursor, target.cloned_sampler_id)
    const millis = Math.min(timeout == null ? Number.POSITIVE_INFINITY : timeout * 1000, world.settings.longPollMillis)
    const until = world.now() + millis
    while (found().length === 0 && world.now() < until) {
      yield* Effect.timeoutOption(Deferred.await(sampler.news), until - world.now())
    }
    return ok({
      completions: found().map(({ failed, requestId, size }) =>
        failed
          ? { state: "failed", request_id: requestId }
          : { state: "finished", request_id: requestId, response_payload_uncompressed_size: size }
      ),
      cursor: Math.max(prev_cursor, sampler.completions.length)
    })
  })

const readCancel = jsonBody(SamplingWire.CancelFutureRequest)
export const cancelFuture: Handler = (world, request) =>
  Effect.flatMap(readCancel(request), ({ request_id }) =>
    Effect.as(Execution.cancel(world, request_id, request.user), noContent)
  )

const readCopy = jsonBody(
  Schema.Struct({
    session_id: optional(Schema.String),
    model_seq_id: optional(Count),
    destination_project_id: optional(Schema.String),
    source_path: Schema.String,
    ttl_seconds: optional(Schema.Int),
    weights_access_token: optional(Schema.String)
  })
)
/** Where a copy goes: a number of a session, or a project, in which the same source is copied once. */
const destination = Effect.fnUntraced(function* (
  world: World,
  user: string,
  body: Effect.Success<ReturnType<typeof readCopy>>
) {
  const { destination_project_id: project, model_seq_id: modelSeqId, session_id: sessionId } = body
  if (sessionId != null && modelSeqId != null) {
    const session = yield* world.session(sessionId, user)
    return { id: `${session.id}:train:${modelSeqId}`, owner: session.owner, projectId: session.projectId }
  }
  if (project == null) {
    return yield* Effect.fail(refused(422, "give session_id with model_seq_id, or destination_project_id"))
  }
  const id = `copy-${Digest.ofJson([user, project, body.source_path]).slice(0, 16)}:train:0`
  return { id, owner: user, projectId: project }
})

/** The copy is a run of its own, which has this checkpoint and nothing else. */
export const copyWeights: Handler = (world, request) =>
  Effect.gen(function* () {
    const body = yield* readCopy(request)
    const problem = problemOfTtl(body.ttl_seconds)
    if (problem !== undefined) return yield* Effect.fail(refused(422, problem))
    const to = yield* destination(world, request.user, body)
    const source = yield* locate(world, request.user, body.source_path, body.weights_access_token)
    const { kind, name } = source.record
    const reply = ok({ tinker_path: Operations.pathOf(to.id, source.record) })
    const existing = world.catalog.runs.get(to.id)
    if (existing !== undefined && Operations.findCheckpoint(world, existing, kind, name) !== undefined) return reply
    if (world.models.has(to.id) || (existing !== undefined && existing.checkpoints.length > 0)) {
      return yield* Effect.fail(refused(409, `${to.id} is another run: give a model_seq_id that was not used`))
    }
    if (world.settings.compute !== "none") {
      const stored = yield* Effect.mapError(world.store.load(storeId(source.run.id, kind, name)), (error) =>
        refused(404, error.message)
      )
      const copy = { id: storeId(to.id, kind, name), snapshot: stored.snapshot, meta: { steps: source.record.steps } }
      yield* Effect.mapError(Operations.storeFiles(world, copy), ({ error }) => refused(500, error))
    }
    const now = world.now()
    const expiresAt = body.ttl_seconds == null ? null : now + body.ttl_seconds * 1000
    const run: Run = {
      ...source.run,
      ...to,
      userMetadata: null,
      createdAt: now,
      lastRequestAt: now,
      corrupted: false,
      ledger: source.run.ledger.slice(0, source.record.steps),
      checkpoints: [{ ...source.record, savedAt: now, expiresAt, public: false }]
    }
    world.catalog.runs.set(to.id, run)
    world.records.did("checkpoint_copied", run, source.record)
    yield* world.persist(run)
    return reply
  })

/** How long the URLs of a checkpoint's files are good for. */
const externalMillis = 15 * 60_000

export const externalWeightsUrls: Handler = (world, request, [id = "", name = ""]) =>
  Effect.gen(function* () {
    const { record, run } = yield* readable(world, request, [id, "external_weights", name])
    const stored = storeId(run.id, record.kind, record.name)
    const files = yield* Effect.mapError(world.store.files(stored), (error) => refused(404, error.message))
    const urls: Record<string, string> = {}
    let expires = new Date(0)
    for (const file of files) {
      const key = `${world.gate.sign(`${stored}|${record.savedAt}`)}.${file.name}`
      world.downloads.put(key, { bytes: file.bytes, contentType: "application/octet-stream" })
      const signed = world.downloads.sign(request, key, externalMillis)
      urls[file.name] = signed.url
      expires = signed.expires
    }
    return ok({ urls, expires: expires.toISOString() })
  })

/** What the checkpoints of each project take up now. Nothing costs anything here. */
export const currentCheckpoints: Handler = (world, request) =>
  Effect.sync(() => {
    const projects = new Map<string | null, { count: number; bytes: number }>()
    for (const run of world.catalog.runs.values()) {
      if (run.owner !== request.user) continue
      const sum = projects.get(run.projectId) ?? { count: 0, bytes: 0 }
      for (const { sizeBytes } of run.checkpoints) {
        sum.count++
        sum.bytes += sizeBytes
      }
      projects.set(run.projectId, sum)
    }
    return ok({ data: Array.from(projects, ([project, sum]) => currentWire(request, project, sum)) })
  })

const currentWire = (
  request: Caller,
  projectId: string | null,
  { bytes, count }: { readonly bytes: number; readonly count: number }
) => ({
  project_id: projectId,
  user_name: request.user,
  checkpoint_count: count,
  size_bytes: bytes,
  size_gigabytes: bytes / 1e9
})

/** A route of a later revision, where only those of 0.25 are served. */
export const absent: Reply = json(404, { detail: "Not Found" })

/** Whether later revisions are served at all. */
export const isServed = (world: World): boolean => world.settings.api !== "0.25"
