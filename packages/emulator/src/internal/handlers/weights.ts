/** Saving and loading, checkpoints, training runs. */
import * as CheckpointPath from "@tinkex/tinker/wire/CheckpointPath"
import * as Json from "@tinkex/tinker/wire/Json"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { CheckpointRecord, Run } from "../catalog.ts"
import * as Digest from "../digest.ts"
import * as Execution from "../execution.ts"
import * as Operations from "../operations.ts"
import { ok, refused, type Refused, type Reply } from "../reply.ts"
import { noAccess } from "../deaths.ts"
import type { Model, Session, Work } from "../entities.ts"
import type { World } from "../world.ts"
import { jsonBody, problemOfTtl } from "./body.ts"
import { beginModel, type Handler } from "./session.ts"
import { refusingItsNumber } from "./salvage.ts"
import { reservedSeqId } from "./training.ts"

const problemOfName = (name: string): string | undefined =>
  /^[A-Za-z0-9_-]{1,128}$/.test(name)
    ? undefined
    : `path "${name}" is no checkpoint name; use 1 to 128 letters, digits, _ and -`

const Metadata = Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.String)))
const readSaveWeights = jsonBody(Schema.Struct({ ...Json.SaveWeightsRequest.fields, user_metadata: Metadata }))
export const saveWeights: Handler = (world, request) =>
  Effect.flatMap(refusingItsNumber(world, request, "json")(readSaveWeights(request)), (body) =>
    Effect.flatMap(world.model(body.model_id, request.user), (model) => {
      const { path: name, seq_id, ttl_seconds } = body
      if (seq_id < 1) return Effect.fail(reservedSeqId)
      const refuse = (status: number, detail: string) =>
        Execution.refuse(world, model, seq_id, refused(status, detail, { modelId: model.id, seqId: seq_id }))
      const problem = problemOfName(name) ?? problemOfTtl(ttl_seconds)
      if (problem !== undefined) return refuse(422, problem)
      const userMetadata = body.user_metadata ?? null
      const options = { name, ttlSeconds: ttl_seconds ?? undefined, overwrite: body.overwrite ?? false, userMetadata }
      return Execution.submit(world, model, {
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
    ttl_seconds: Schema.optionalKey(Schema.NullOr(Schema.Int)),
    user_metadata: Metadata
  })
)
export const saveWeightsForSampler: Handler = (world, request) =>
  Effect.flatMap(refusingItsNumber(world, request, "json")(readSaveForSampler(request)), (body) =>
    Effect.flatMap(world.model(body.model_id, request.user), (model) => {
      const { path: name, sampling_session_seq_id: samplingSeqId, seq_id: seqId, ttl_seconds } = body
      if (seqId < 1) return Effect.fail(reservedSeqId)
      const refuse = (detail: string) =>
        Execution.refuse(world, model, seqId, refused(422, detail, { modelId: model.id, seqId }))
      const submit = (digest: string, work: Work) =>
        Execution.submit(world, model, { operation: "save_weights_for_sampler", seqId, digest, work })
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
      const options = { name, ttlSeconds: ttl_seconds ?? undefined, userMetadata: body.user_metadata ?? null }
      return submit(
        Digest.ofJson(["save_weights_for_sampler", options]),
        Operations.saveForSampler(world, "sampler_weights", options)
      )
    })
  )

const readSaveExternal = jsonBody(
  Schema.Struct({
    model_id: Schema.String,
    seq_id: Unnamed,
    path: Schema.String,
    ttl_seconds: Schema.optionalKey(Schema.NullOr(Schema.Int)),
    user_metadata: Metadata,
    age_encryption_recipients: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String)))
  })
)
/** After 0.25: a checkpoint whose files other programs fetch one by one. */
export const saveWeightsExternal: Handler = (world, request) =>
  Effect.flatMap(refusingItsNumber(world, request, "json")(readSaveExternal(request)), (body) =>
    Effect.flatMap(world.model(body.model_id, request.user), (model) => {
      const { path: name, seq_id: seqId, ttl_seconds } = body
      if (seqId < 1) return Effect.fail(reservedSeqId)
      const encrypted = (body.age_encryption_recipients ?? []).length > 0
      const problem =
        problemOfName(name) ??
        problemOfTtl(ttl_seconds) ??
        (encrypted ? "age_encryption_recipients are given; this server does not encrypt" : undefined)
      if (problem !== undefined) {
        return Execution.refuse(world, model, seqId, refused(422, problem, { modelId: model.id, seqId }))
      }
      const options = { name, ttlSeconds: ttl_seconds ?? undefined, userMetadata: body.user_metadata ?? null }
      return Execution.submit(world, model, {
        operation: "save_weights_for_sampler",
        seqId,
        digest: Digest.ofJson(["save_weights_external", options]),
        work: Operations.saveForSampler(world, "external_weights", options)
      })
    })
  )

/** The checkpoint that a path names, where the caller may use it: an own one, a public one, or one that a token opens. */
export const locate = (
  world: World,
  user: string,
  path: string,
  accessToken?: string | null
): Effect.Effect<{ readonly run: Run; readonly record: CheckpointRecord }, Refused> =>
  Effect.suspend(() => {
    const parsed = Option.getOrUndefined(CheckpointPath.parse(path))
    if (parsed === undefined) {
      return Effect.fail(refused(400, `"${path}" is no checkpoint path; write tinker://<run>/weights/<name>`))
    }
    const run = world.catalog.runs.get(parsed.runId)
    const record = run === undefined ? undefined : Operations.findCheckpoint(world, run, parsed.kind, parsed.name)
    if (run === undefined || record === undefined) {
      return Effect.fail(refused(404, `Checkpoint ${path} does not exist`))
    }
    if (record.damage === "vanishing") {
      const missing = refused(404, `Checkpoint ${path} does not exist`)
      return Effect.andThen(world.removeCheckpoint(run, record), Effect.fail(missing))
    }
    if (run.owner === user || record.public) return Effect.succeed({ run, record })
    if (accessToken == null) return Effect.fail(noAccess())
    const bearer = world.gate.userOf(accessToken, true)
    if (!("user" in bearer)) return Effect.fail(bearer)
    return bearer.user === run.owner ? Effect.succeed({ run, record }) : Effect.fail(noAccess())
  })

/** The training checkpoint that a path names. */
const locateTraining = (world: World, user: string, path: string, accessToken: string | null | undefined) =>
  Effect.filterOrFail(
    locate(world, user, path, accessToken),
    ({ record }) => record.kind === "weights",
    () => refused(400, `${path} is a sampler checkpoint, which cannot be trained on; load one of weights/<name>`)
  )

const readLoadWeights = jsonBody(
  Schema.Struct({
    ...Json.LoadWeightsRequest.fields,
    weights_access_token: Schema.optionalKey(Schema.NullOr(Schema.String))
  })
)
export const loadWeights: Handler = (world, request) =>
  Effect.flatMap(refusingItsNumber(world, request, "json")(readLoadWeights(request)), (body) => {
    // A token that was renewed between two tries does not make them different requests.
    const { weights_access_token: accessToken, ...asked } = body
    const digest = Digest.ofJson({ ...asked, type: "load_weights" })
    const from = { user: request.user, path: body.path, accessToken }
    const { model_id: modelId, model_seq_id: modelSeqId, seq_id: seqId, session_id: sessionId } = body
    const intoModel = modelId != null && seqId != null
    const asNewModel = sessionId != null && modelSeqId != null
    if (intoModel === asNewModel) {
      return Effect.fail(refused(422, "give model_id with seq_id, or session_id with model_seq_id, and not both"))
    }
    if (intoModel) {
      return Effect.flatMap(world.model(modelId, request.user), (model) =>
        loadInto(world, { optimizer: body.optimizer, from, model, seqId, digest })
      )
    }
    return asNewModel
      ? Effect.flatMap(world.session(sessionId, request.user), (session) =>
          loadAsNew(world, {
            optimizer: body.optimizer,
            from,
            session,
            modelSeqId,
            digest,
            baseModel: body.base_model ?? undefined,
            userMetadata: body.user_metadata ?? null
          })
        )
      : Effect.die("one of the two addresses was found to be complete")
  })

/** Which checkpoint is to be loaded, and with what right. */
interface Origin {
  readonly user: string
  readonly path: string
  readonly accessToken: string | null | undefined
}

const loadInto = (
  world: World,
  options: {
    readonly model: Model
    readonly seqId: number
    readonly from: Origin
    readonly optimizer: boolean
    readonly digest: string
  }
): Effect.Effect<Reply, Refused> =>
  Effect.gen(function* () {
    const { digest, from, model, optimizer, seqId } = options
    const refuse = (status: number, detail: string) =>
      Execution.refuse(world, model, seqId, refused(status, detail, { modelId: model.id, seqId }))
    const submit = (work: Work) => Execution.submit(world, model, { operation: "load_weights", seqId, digest, work })
    // What was accepted before is not judged again: its checkpoint may be gone by now.
    if (model.sequence.find(seqId, digest)._tag !== "Accepted") return yield* submit(Operations.settled)
    if (seqId !== 1) {
      return yield* refuse(
        400,
        `LoadWeights is not permitted with seq_id ${seqId}: it must be the first request of a model`
      )
    }
    const { record, run: source } = yield* Effect.catch(
      locateTraining(world, from.user, from.path, from.accessToken),
      (error) => Execution.refuse(world, model, seqId, error)
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
    readonly from: Origin
    readonly optimizer: boolean
    readonly baseModel: string | undefined
    readonly userMetadata: Readonly<Record<string, string>> | null
    readonly digest: string
  }
): Effect.Effect<Reply, Refused> => {
  const { digest, from, modelSeqId, optimizer, session, userMetadata } = options
  const begin = Effect.gen(function* () {
    const { record, run: source } = yield* locateTraining(world, from.user, from.path, from.accessToken)
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
    Effect.map(locate(world, request.user, body.tinker_path), ({ run }) =>
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
