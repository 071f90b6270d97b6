/** Saving and loading, checkpoints, training runs. */
import * as CheckpointPath from "@tinkex/tinker/wire/CheckpointPath"
import * as Json from "@tinkex/tinker/wire/Json"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { CheckpointKind, CheckpointRecord, Run } from "../catalog.ts"
import * as Digest from "../digest.ts"
import * as Operations from "../operations.ts"
import { ok, refused, type Refused, type Reply } from "../reply.ts"
import type { Model, Session, Work, World } from "../world.ts"
import { jsonBody, queryInt } from "./body.ts"
import { beginModel, type Handler } from "./session.ts"
import { reservedSeqId } from "./training.ts"

const problemOfName = (name: string): string | undefined =>
  /^[A-Za-z0-9_-]{1,128}$/.test(name)
    ? undefined
    : `path "${name}" is no checkpoint name; use 1 to 128 letters, digits, _ and -`

const problemOfTtl = (ttlSeconds: number | null | undefined): string | undefined =>
  ttlSeconds == null || ttlSeconds > 0
    ? undefined
    : `ttl_seconds is ${ttlSeconds}; give a positive number or leave it out`

const readSaveWeights = jsonBody(Json.SaveWeightsRequest)
export const saveWeights: Handler = (world, request) =>
  Effect.flatMap(readSaveWeights(request), (body) =>
    Effect.flatMap(world.model(body.model_id), (model) => {
      const { path: name, seq_id, ttl_seconds } = body
      if (seq_id < 1) return Effect.fail(reservedSeqId)
      const refuse = (status: number, detail: string) =>
        world.refuse(model, seq_id, refused(status, detail, { modelId: model.id, seqId: seq_id }))
      const problem = problemOfName(name) ?? problemOfTtl(ttl_seconds)
      if (problem !== undefined) return refuse(422, problem)
      const options = { name, ttlSeconds: ttl_seconds ?? undefined, overwrite: body.overwrite ?? false }
      return world.submit(model, {
        operation: "save_weights",
        seqId: seq_id,
        digest: Digest.ofJson(["save_weights", options]),
        work: Operations.saveWeights(world, options)
      })
    })
  )

const Unnamed = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const readSaveForSampler = jsonBody(
  Schema.Struct({
    model_id: Schema.String,
    seq_id: Unnamed,
    path: Schema.optionalKey(Schema.NullOr(Schema.String)),
    sampling_session_seq_id: Schema.optionalKey(Schema.NullOr(Unnamed)),
    ttl_seconds: Schema.optionalKey(Schema.NullOr(Schema.Int))
  })
)
export const saveWeightsForSampler: Handler = (world, request) =>
  Effect.flatMap(readSaveForSampler(request), (body) =>
    Effect.flatMap(world.model(body.model_id), (model) => {
      const { path: name, sampling_session_seq_id: samplingSeqId, seq_id: seqId, ttl_seconds } = body
      if (seqId < 1) return Effect.fail(reservedSeqId)
      const refuse = (detail: string) => world.refuse(model, seqId, refused(422, detail, { modelId: model.id, seqId }))
      const submit = (digest: string, work: Work) =>
        world.submit(model, { operation: "save_weights_for_sampler", seqId, digest, work })
      const ttlProblem = problemOfTtl(ttl_seconds)
      if (ttlProblem !== undefined) return refuse(ttlProblem)
      if (name == null) {
        if (samplingSeqId == null) return refuse("give path, or sampling_session_seq_id for a save without a name")
        // A client counts sampling_session_seq_id on with every try of the same save: it is no part of what is asked for.
        const digest = Digest.ofJson(["save_weights_for_sampler", null])
        return submit(digest, Operations.sampleFromHere(world, { samplingSeqId, digest: `${model.id}:${seqId}` }))
      }
      const problem = problemOfName(name)
      if (problem !== undefined) return refuse(problem)
      const options = { name, ttlSeconds: ttl_seconds ?? undefined }
      return submit(Digest.ofJson(["save_weights_for_sampler", options]), Operations.saveForSampler(world, options))
    })
  )

/** The checkpoint that a path names. */
export const locate = (
  world: World,
  path: string
): Effect.Effect<{ readonly run: Run; readonly record: CheckpointRecord }, Refused> => {
  const parsed = Option.getOrUndefined(CheckpointPath.parse(path))
  if (parsed === undefined) {
    return Effect.fail(refused(400, `"${path}" is no checkpoint path; write tinker://<run>/weights/<name>`))
  }
  const run = world.catalog.runs.get(parsed.runId)
  const record = run === undefined ? undefined : Operations.findCheckpoint(world, run, parsed.kind, parsed.name)
  return run === undefined || record === undefined
    ? Effect.fail(refused(404, `Checkpoint ${path} does not exist`))
    : Effect.succeed({ run, record })
}

/** The training checkpoint that a path names. */
const locateTraining = (world: World, path: string) =>
  Effect.filterOrFail(
    locate(world, path),
    ({ record }) => record.kind === "weights",
    () => refused(400, `${path} is a sampler checkpoint, which cannot be trained on; load one of weights/<name>`)
  )

const readLoadWeights = jsonBody(Json.LoadWeightsRequest)
export const loadWeights: Handler = (world, request) =>
  Effect.flatMap(readLoadWeights(request), (body) => {
    const digest = Digest.ofJson({ ...body, type: "load_weights" })
    const { model_id: modelId, model_seq_id: modelSeqId, seq_id: seqId, session_id: sessionId } = body
    const intoModel = modelId != null && seqId != null
    const asNewModel = sessionId != null && modelSeqId != null
    if (intoModel === asNewModel) {
      return Effect.fail(refused(422, "give model_id with seq_id, or session_id with model_seq_id, and not both"))
    }
    if (intoModel) {
      return Effect.flatMap(world.model(modelId), (model) => loadInto(world, { ...body, model, seqId, digest }))
    }
    return asNewModel
      ? Effect.flatMap(world.session(sessionId), (session) =>
          loadAsNew(world, {
            ...body,
            session,
            modelSeqId,
            digest,
            baseModel: body.base_model ?? undefined,
            userMetadata: body.user_metadata ?? null
          })
        )
      : Effect.die("one of the two addresses was found to be complete")
  })

const loadInto = (
  world: World,
  options: {
    readonly model: Model
    readonly seqId: number
    readonly path: string
    readonly optimizer: boolean
    readonly digest: string
  }
): Effect.Effect<Reply, Refused> =>
  Effect.gen(function* () {
    const { digest, model, optimizer, path, seqId } = options
    const refuse = (status: number, detail: string) =>
      world.refuse(model, seqId, refused(status, detail, { modelId: model.id, seqId }))
    const submit = (work: Work) => world.submit(model, { operation: "load_weights", seqId, digest, work })
    // What was accepted before is not judged again: its checkpoint may be gone by now.
    if (model.sequence.find(seqId, digest)._tag !== "Accepted") return yield* submit(Operations.settled)
    if (seqId !== 1) {
      return yield* refuse(
        400,
        `LoadWeights is not permitted with seq_id ${seqId}: it must be the first request of a model`
      )
    }
    const { record, run: source } = yield* Effect.catch(locateTraining(world, path), (error) =>
      world.refuse(model, seqId, error)
    )
    if (!isAlike(world, model.run, source)) {
      return yield* refuse(
        400,
        `The checkpoint is of ${source.baseModel}, rank ${source.rank}, the model of ${model.run.baseModel}, rank ${model.run.rank}, or other modules are trained. Create the model as weights_info describes it.`
      )
    }
    return yield* submit(Operations.loadWeights(world, { source, name: record.name, optimizer }))
  })

const isAlike = (world: World, a: Run, b: Run) =>
  world.baseOf(a.baseModel) === world.baseOf(b.baseModel) &&
  a.rank === b.rank &&
  a.trainAttn === b.trainAttn &&
  a.trainMlp === b.trainMlp &&
  a.trainUnembed === b.trainUnembed

const loadAsNew = (
  world: World,
  options: {
    readonly session: Session
    readonly modelSeqId: number
    readonly path: string
    readonly optimizer: boolean
    readonly baseModel: string | undefined
    readonly userMetadata: Readonly<Record<string, string>> | null
    readonly digest: string
  }
): Effect.Effect<Reply, Refused> => {
  const { digest, modelSeqId, optimizer, path, session, userMetadata } = options
  const begin = Effect.gen(function* () {
    const { record, run: source } = yield* locateTraining(world, path)
    const { rank, seed, trainAttn, trainMlp, trainUnembed } = source
    const baseModel = options.baseModel ?? source.baseModel
    if (world.baseOf(baseModel) !== world.baseOf(source.baseModel)) {
      return yield* Effect.fail(refused(400, `The checkpoint is of ${source.baseModel}, not of ${baseModel}`))
    }
    return {
      run: { baseModel, rank, seed, trainAttn, trainMlp, trainUnembed, userMetadata },
      work: Operations.loadWeights(world, { source, name: record.name, optimizer })
    }
  })
  return beginModel(world, { session, modelSeqId, digest, operation: "load_weights", begin })
}

const readWeightsInfo = jsonBody(Json.WeightsInfoRequest)
export const weightsInfo: Handler = (world, request) =>
  Effect.flatMap(readWeightsInfo(request), (body) =>
    Effect.map(locate(world, body.tinker_path), ({ run }) =>
      ok({
        base_model: run.baseModel,
        is_lora: true,
        lora_rank: run.rank,
        train_unembed: run.trainUnembed,
        train_mlp: run.trainMlp,
        train_attn: run.trainAttn
      })
    )
  )

const iso = (millis: number) => new Date(millis).toISOString()

const checkpointWire = (run: Run, record: CheckpointRecord) => ({
  checkpoint_id: `${record.kind}/${record.name}`,
  checkpoint_type: record.kind === "weights" ? "training" : "sampler",
  time: iso(record.savedAt),
  tinker_path: CheckpointPath.format({ runId: run.id, kind: record.kind, name: record.name }),
  size_bytes: record.sizeBytes,
  public: false,
  expires_at: record.expiresAt === null ? null : iso(record.expiresAt)
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
  model_owner: "emulator",
  is_lora: true,
  corrupted: run.corrupted,
  lora_rank: run.rank,
  last_request_time: iso(run.lastRequestAt),
  last_checkpoint: newest(world, run, "weights"),
  last_sampler_checkpoint: newest(world, run, "sampler_weights"),
  user_metadata: run.userMetadata
})

const findRun = (world: World, id: string): Effect.Effect<Run, Refused> => {
  const run = world.catalog.runs.get(id)
  return run === undefined ? Effect.fail(refused(404, `Training run ${id} not found`)) : Effect.succeed(run)
}

export const trainingRun: Handler = (world, _, [id = ""]) =>
  Effect.map(findRun(world, id), (run) => ok(runWire(world, run), { audit: { modelId: run.id } }))

export const trainingRuns: Handler = (world, request) =>
  Effect.gen(function* () {
    const limit = yield* queryInt(request, "limit", 20)
    const offset = yield* queryInt(request, "offset", 0)
    const project = request.query.get("project_id")
    const runs = [...world.catalog.runs.values()]
      .filter((run) => project === null || run.projectId === project)
      .toSorted((a, b) => b.createdAt - a.createdAt)
    return ok({
      training_runs: runs.slice(offset, offset + limit).map((run) => runWire(world, run)),
      cursor: { offset, limit, total_count: runs.length }
    })
  })

export const runCheckpoints: Handler = (world, _, [id = ""]) =>
  Effect.map(findRun(world, id), (run) => ok({ checkpoints: listed(world, run).map(({ wire }) => wire) }))

export const checkpoints: Handler = (world, request) =>
  Effect.gen(function* () {
    const limit = yield* queryInt(request, "limit", 100)
    const offset = yield* queryInt(request, "offset", 0)
    const all = [...world.catalog.runs.values()]
      .flatMap((run) => listed(world, run))
      .toSorted((a, b) => b.savedAt - a.savedAt)
    return ok({
      checkpoints: all.slice(offset, offset + limit).map(({ wire }) => wire),
      cursor: { offset, limit, total_count: all.length }
    })
  })

const findRecord = (world: World, id: string, kind: string, name: string) =>
  Effect.flatMap(findRun(world, id), (run) => {
    if (kind !== "weights" && kind !== "sampler_weights") {
      return Effect.fail(refused(400, `"${kind}" is no kind of checkpoint; write weights/<name>`))
    }
    const record = Operations.findCheckpoint(world, run, kind, name)
    return record === undefined
      ? Effect.fail(refused(404, `Checkpoint ${kind}/${name} of ${id} not found`))
      : Effect.succeed({ run, record })
  })

export const deleteCheckpoint: Handler = (world, _, [id = "", kind = "", name = ""]) =>
  Effect.flatMap(findRecord(world, id, kind, name), ({ record, run }) => {
    run.checkpoints = run.checkpoints.filter((other) => other !== record)
    const remove = world.store.remove(Operations.storeId(run.id, record.kind, record.name)).pipe(
      // Nothing was stored where nothing is computed, or the fault plan took it already.
      Effect.catchReason("CheckpointStoreError", "NotFound", () => Effect.void),
      Effect.orDie
    )
    return Effect.as(Effect.andThen(world.persist(run), remove), ok({}))
  })

/** A name without its kind is refused, as upstream does. */
export const bareCheckpoint: Handler = (_world, _request, [, name = ""]) =>
  Effect.fail(refused(400, `"${name}" lacks its kind; write weights/${name}`))

const readTtl = jsonBody(Json.CheckpointTtlRequest)
export const checkpointTtl: Handler = (world, request, [id = "", kind = "", name = ""]) =>
  Effect.flatMap(readTtl(request), ({ ttl_seconds }) =>
    Effect.flatMap(findRecord(world, id, kind, name), ({ record, run }) => {
      if (ttl_seconds !== null && ttl_seconds <= 0) {
        return Effect.fail(refused(400, `ttl_seconds is ${ttl_seconds}; give a positive number or null`))
      }
      const expiresAt = ttl_seconds === null ? null : world.now() + ttl_seconds * 1000
      run.checkpoints = run.checkpoints.map((other) => (other === record ? { ...record, expiresAt } : other))
      return Effect.as(world.persist(run), ok({}))
    })
  )
