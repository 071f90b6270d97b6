/** Training runs and checkpoints as they are listed and managed. */
import * as Json from "@tinkex/tinker/wire/Json"
import * as Effect from "effect/Effect"
import type { CheckpointKind, CheckpointRecord, Run } from "../catalog.ts"
import * as Operations from "../operations.ts"
import { type Caller, ok, refused, type Refused } from "../reply.ts"
import type { World } from "../world.ts"
import { jsonBody, problemOfTtl, queryInt } from "./body.ts"
import { type Handler, inScope } from "./session.ts"

const iso = (millis: number) => new Date(millis).toISOString()

const typeNames = { weights: "training", sampler_weights: "sampler", external_weights: "external" }

const checkpointWire = (run: Run, record: CheckpointRecord) => ({
  checkpoint_id: `${record.kind}/${record.name}`,
  checkpoint_type: typeNames[record.kind],
  time: iso(record.savedAt),
  tinker_path: Operations.pathOf(run.id, record),
  size_bytes: record.sizeBytes,
  public: record.public,
  expires_at: record.expiresAt === null ? null : iso(record.expiresAt),
  ...(record.userMetadata === null ? {} : { user_metadata: record.userMetadata })
})

/** What a listing shows of a run, newest first. */
const listed = (world: World, run: Run) =>
  run.checkpoints
    .filter((record) => Operations.findCheckpoint(world, run, record.kind, record.name) !== undefined)
    .toReversed()
    .map((record) => ({ savedAt: record.savedAt, kind: record.kind, wire: checkpointWire(run, record) }))

const newest = (world: World, run: Run, kind: CheckpointKind) =>
  listed(world, run).find((entry) => entry.kind === kind)?.wire ?? null

const runWire = (world: World, run: Run) => ({
  training_run_id: run.id,
  base_model: run.baseModel,
  model_owner: run.owner,
  is_lora: true,
  corrupted: run.corrupted,
  lora_rank: run.rank,
  last_request_time: iso(run.lastRequestAt),
  last_checkpoint: newest(world, run, "weights"),
  last_sampler_checkpoint: newest(world, run, "sampler_weights"),
  user_metadata: run.userMetadata
})

const findRun = (world: World, request: Caller, id: string): Effect.Effect<Run, Refused> =>
  Effect.flatMap(inScope(request), (includes) => {
    const run = world.catalog.runs.get(id)
    return run === undefined || !includes(run.owner)
      ? Effect.fail(refused(404, `Training run ${id} not found`))
      : Effect.succeed(run)
  })

export const trainingRun: Handler = (world, request, [id = ""]) =>
  Effect.map(findRun(world, request, id), (run) => ok(runWire(world, run), { audit: { modelId: run.id } }))

export const trainingRuns: Handler = (world, request) =>
  Effect.gen(function* () {
    const includes = yield* inScope(request)
    const limit = yield* queryInt(request, "limit", 20)
    const offset = yield* queryInt(request, "offset", 0)
    const project = request.query.get("project_id")
    const runs = [...world.catalog.runs.values()]
      .filter((run) => includes(run.owner) && (project === null || run.projectId === project))
      .toSorted((a, b) => b.createdAt - a.createdAt)
    return ok({
      training_runs: runs.slice(offset, offset + limit).map((run) => runWire(world, run)),
      cursor: { offset, limit, total_count: Math.max(0, runs.length + world.faults.total("training_runs")) }
    })
  })

export const runCheckpoints: Handler = (world, request, [id = ""]) =>
  Effect.map(findRun(world, request, id), (run) => {
    const checkpoints = listed(world, run).map(({ wire }) => wire)
    return ok({ checkpoints, cursor: { offset: 0, limit: checkpoints.length, total_count: checkpoints.length } })
  })

export const checkpoints: Handler = (world, request) =>
  Effect.gen(function* () {
    const limit = yield* queryInt(request, "limit", 100)
    const offset = yield* queryInt(request, "offset", 0)
    const all = [...world.catalog.runs.values()]
      .filter((run) => run.owner === request.user)
      .flatMap((run) => listed(world, run))
      .toSorted((a, b) => b.savedAt - a.savedAt)
    return ok({
      checkpoints: all.slice(offset, offset + limit).map(({ wire }) => wire),
      cursor: { offset, limit, total_count: Math.max(0, all.length + world.faults.total("checkpoints")) }
    })
  })

interface Found {
  readonly run: Run
  readonly record: CheckpointRecord
}

/** A checkpoint by the two parts of its id. Somebody else's is not there unless it is public and only looked at. */
const findRecord = (
  world: World,
  request: Caller,
  [id = "", kind = "", name = ""]: ReadonlyArray<string>,
  access: "own" | "read"
): Effect.Effect<Found, Refused> => {
  if (kind !== "weights" && kind !== "sampler_weights" && kind !== "external_weights") {
    return Effect.fail(refused(400, `"${kind}" is no kind of checkpoint; write weights/<name>`))
  }
  const run = world.catalog.runs.get(id)
  const record = run === undefined ? undefined : Operations.findCheckpoint(world, run, kind, name)
  const visible = run?.owner === request.user || (access === "read" && record?.public === true)
  return run === undefined || record === undefined || !visible
    ? Effect.fail(refused(404, `Checkpoint ${kind}/${name} of ${id} not found`))
    : Effect.succeed({ run, record })
}

/** For those who hand out what is inside. */
export const readable = (world: World, request: Caller, parameters: ReadonlyArray<string>) =>
  findRecord(world, request, parameters, "read")

export const deleteCheckpoint: Handler = (world, request, parameters) =>
  Effect.flatMap(findRecord(world, request, parameters, "own"), ({ record, run }) => {
    world.records.did("checkpoint_deleted", run, record)
    return Effect.as(world.removeCheckpoint(run, record), ok({}))
  })

/** A name without its kind is refused, as upstream does. */
export const bareCheckpoint: Handler = (_world, _request, [, name = ""]) =>
  Effect.fail(refused(400, `"${name}" lacks its kind; write weights/${name}`))

const change = (world: World, event: string, { record, run }: Found, to: Partial<CheckpointRecord>) => {
  world.records.did(event, run, record)
  run.checkpoints = run.checkpoints.map((other) => (other === record ? { ...record, ...to } : other))
  return Effect.as(world.persist(run), ok({}))
}

const readTtl = jsonBody(Json.CheckpointTtlRequest)
export const checkpointTtl: Handler = (world, request, parameters) =>
  Effect.flatMap(readTtl(request), ({ ttl_seconds }) =>
    Effect.flatMap(findRecord(world, request, parameters, "own"), (found) => {
      const problem = problemOfTtl(ttl_seconds)
      if (problem !== undefined) return Effect.fail(refused(400, problem))
      const expiresAt = ttl_seconds === null ? null : world.now() + ttl_seconds * 1000
      return change(world, "checkpoint_ttl_set", found, { expiresAt })
    })
  )

const setPublic =
  (to: boolean): Handler =>
  (world, request, parameters) =>
    Effect.flatMap(findRecord(world, request, parameters, "own"), (found) =>
      found.record.public === to
        ? Effect.fail(refused(409, `The checkpoint is already ${to ? "public" : "private"}`))
        : change(world, to ? "checkpoint_published" : "checkpoint_unpublished", found, { public: to })
    )

export const publish = setPublic(true)
export const unpublish = setPublic(false)
