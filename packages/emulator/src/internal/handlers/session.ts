/** Configuration, sessions, models. */
import * as Json from "@tinkex/tinker/wire/Json"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as LanguageModel from "../../LanguageModel.ts"
import * as Digest from "../digest.ts"
import * as Execution from "../execution.ts"
import * as Operations from "../operations.ts"
import { type Caller, ok, refused, type Refused, type Reply } from "../reply.ts"
import type { Model, Session, Work } from "../entities.ts"
import type { World } from "../world.ts"
import { jsonBody, queryInt } from "./body.ts"

export type Handler = (
  world: World,
  request: Caller,
  parameters: ReadonlyArray<string>
) => Effect.Effect<Reply, Refused>

export const healthz: Handler = () => Effect.succeed(ok({ status: "ok" }))

const readClientConfig = jsonBody(Json.ClientConfigRequest)
export const clientConfig: Handler = (world, request) =>
  Effect.map(readClientConfig(request), () =>
    ok({
      pjwt_auth_enabled: world.settings.gate.tokenExchange,
      credential_default_source: "api_key",
      parallel_fwdbwd_chunks: true,
      proto_compress_fwdbwd: false,
      fwdbwd_max_chunk_len: 1024,
      fwdbwd_max_chunk_bytes_count: 5_000_000,
      create_model_via_load_weights: false,
      ...world.settings.clientConfig
    })
  )

export const authToken: Handler = (world, request) =>
  world.settings.gate.tokenExchange
    ? Effect.sync(() => ok({ jwt: world.gate.issue(request.user) }))
    : Effect.fail(refused(404, "This server takes keys as they are; pjwt_auth_enabled is false"))

export const dynamicConfig: Handler = (world) =>
  Effect.sync(() => ok({ refresh_interval_sec: 300, ...world.settings.dynamicConfig }))

export const serverCapabilities: Handler = (world) =>
  Effect.sync(() =>
    ok({
      supported_models: [...world.settings.models].map(([name, base]) => ({
        model_name: name,
        trainable: true,
        sampleable: true,
        max_context_length: LanguageModel.baseModels.find(({ name }) => name === base)?.maxContextLength
      }))
    })
  )

const readCreateSession = jsonBody(Json.CreateSessionRequest)
export const createSession: Handler = (world, request) =>
  Effect.map(readCreateSession(request), (body) => {
    const session = world.openSession({
      owner: request.user,
      projectId: body.project_id ?? null,
      userMetadata: body.user_metadata ?? null
    })
    return ok({ type: "create_session", session_id: session.id })
  })

const readHeartbeat = jsonBody(Json.SessionHeartbeatRequest)
export const sessionHeartbeat: Handler = (world, request) =>
  Effect.flatMap(readHeartbeat(request), (body) => {
    if (world.sessions.get(body.session_id)?.finished === true) {
      return Effect.fail(refused(410, `Session ${body.session_id} is finished`))
    }
    return Effect.map(world.session(body.session_id, request.user), (session) => {
      session.lastBeat = world.now()
      return ok({ type: "session_heartbeat" })
    })
  })

/** Whose things a query is about: the caller's own, or everybody's. */
export const inScope = (request: Caller): Effect.Effect<(owner: string) => boolean, Refused> => {
  const scope = request.query.get("access_scope") ?? "owned"
  if (scope === "accessible") return Effect.succeed(() => true)
  return scope === "owned"
    ? Effect.succeed((owner) => owner === request.user)
    : Effect.fail(refused(422, `access_scope is "${scope}"; give owned or accessible`))
}

const findSession = (world: World, request: Caller, id: string): Effect.Effect<Session, Refused> =>
  Effect.flatMap(inScope(request), (includes) => {
    const session = world.sessions.get(id)
    return session === undefined || !includes(session.owner)
      ? Effect.fail(refused(404, `Session ${id} not found`))
      : Effect.succeed(session)
  })

export const getSession: Handler = (world, request, [id = ""]) =>
  Effect.map(findSession(world, request, id), (session) =>
    ok({
      training_run_ids: world.runsOf(session).map((run) => run.id),
      sampler_ids: Array.from(session.samplers.values(), (sampler) => sampler.id),
      user_metadata: session.userMetadata
    })
  )

export const listSessions: Handler = (world, request) =>
  Effect.gen(function* () {
    const includes = yield* inScope(request)
    const limit = yield* queryInt(request, "limit", 20)
    const offset = yield* queryInt(request, "offset", 0)
    const ids = [...world.sessions.values()].filter(({ owner }) => includes(owner)).map(({ id }) => id)
    return ok({ sessions: ids.toReversed().slice(offset, offset + limit) })
  })

const readProject = jsonBody(Schema.Struct({ project_id: Schema.optionalKey(Schema.NullOr(Schema.String)) }))
export const assignProject: Handler = (world, request, [id = ""]) =>
  Effect.gen(function* () {
    const { project_id: projectId } = yield* readProject(request)
    if (projectId == null || projectId === "") {
      return yield* Effect.fail(refused(400, "project_id is missing; a session cannot be taken out of its project"))
    }
    const session = world.sessions.get(id)
    if (session === undefined) return yield* Effect.fail(refused(404, `Session ${id} not found`))
    if (session.owner !== request.user) return yield* Effect.fail(refused(403, "Invalid session_id"))
    session.projectId = projectId
    world.describe(session)
    for (const run of world.runsOf(session)) {
      run.projectId = projectId
      yield* world.persist(run)
    }
    return ok({})
  })

/** The model behind a name that this server serves. */
export const checkBaseModel = (world: World, name: string): Effect.Effect<void, Refused> => {
  if (name === "") return Effect.fail(refused(400, "base_model is required"))
  const { models } = world.settings
  return models.has(name)
    ? Effect.void
    : Effect.fail(refused(400, `base_model "${name}" is not served here. Use one of ${[...models.keys()].join(", ")}.`))
}

export interface NewRun {
  readonly baseModel: string
  readonly rank: number
  readonly seed: number
  readonly trainMlp: boolean
  readonly trainAttn: boolean
  readonly trainUnembed: boolean
  readonly userMetadata: Readonly<Record<string, string>> | null
}

/**
 * Begins a model under the number that the client chose for it. Its first operation, number 0, is the request itself; the
 * same request again gets the same promise.
 */
export const beginModel = (
  world: World,
  options: {
    readonly session: Session
    readonly modelSeqId: number
    readonly digest: string
    readonly operation: "create_model" | "load_weights"
    /** Judged only for a number that is new. */
    readonly begin: Effect.Effect<{ readonly run: NewRun; readonly work: Work }, Refused>
  }
): Effect.Effect<Reply, Refused> => {
  const { begin, digest, modelSeqId, operation, session } = options
  const submit = (model: Model, work: Work) => Execution.submit(world, model, { operation, seqId: 0, digest, work })
  const existing = session.models.get(modelSeqId)
  if (existing !== undefined) return submit(existing, Operations.settled)
  return Effect.flatMap(begin, ({ run, work }) => {
    const model = world.addModel(session, modelSeqId, {
      ...run,
      id: `${session.id}:train:${modelSeqId}`,
      owner: session.owner,
      projectId: session.projectId,
      createdAt: world.now(),
      lastRequestAt: world.now(),
      corrupted: false,
      ledger: [],
      checkpoints: []
    })
    return submit(model, work)
  })
}

/** In the service's words, but for the limit. */
const problemOfRank = (rank: number): string | undefined => {
  if (rank < 1) return "lora_config.rank must be positive"
  if (rank > LanguageModel.maxRank) return `lora_config.rank must be at most ${LanguageModel.maxRank} here`
  return Number.isInteger(Math.log2(rank)) ? undefined : "lora_config.rank must be a power of 2"
}

// Later clients may leave the configuration out, and say which optimizer they want.
const readCreateModel = jsonBody(
  Schema.Struct({
    ...Json.CreateModelRequest.fields,
    lora_config: Json.LoraConfig.pipe(Schema.withDecodingDefaultKey(Effect.succeed({ rank: 32 }))),
    optimizer_config: Schema.optionalKey(Schema.NullOr(Schema.Struct({ type: Schema.String })))
  })
)
export const createModel: Handler = (world, request) =>
  Effect.flatMap(readCreateModel(request), (body) =>
    Effect.flatMap(world.session(body.session_id, request.user), (session) => {
      const { rank, seed, train_attn, train_mlp, train_unembed } = body.lora_config
      const begin = Effect.gen(function* () {
        yield* checkBaseModel(world, body.base_model)
        const optimizer = body.optimizer_config?.type ?? "adamw"
        if (optimizer !== "adamw") {
          return yield* Effect.fail(refused(400, `optimizer "${optimizer}" is not offered here; use adamw`))
        }
        const problem =
          problemOfRank(rank) ??
          (train_attn || train_mlp || train_unembed
            ? undefined
            : "at least one of train_attn, train_mlp, train_unembed must be true")
        if (problem !== undefined) return yield* Effect.fail(refused(400, problem))
        const run: NewRun = {
          baseModel: body.base_model,
          rank,
          seed: seed ?? world.settings.seed,
          trainMlp: train_mlp,
          trainAttn: train_attn,
          trainUnembed: train_unembed,
          userMetadata: body.user_metadata ?? null
        }
        return { run, work: Operations.createModel(world) }
      })
      return beginModel(world, {
        session,
        modelSeqId: body.model_seq_id,
        digest: Digest.ofJson({ ...body, type: "create_model" }),
        operation: "create_model",
        begin
      })
    })
  )

const readModel = jsonBody(Json.ModelRequest)
export const getInfo: Handler = (world, request) =>
  Effect.flatMap(readModel(request), (body) =>
    Effect.map(world.model(body.model_id, request.user), ({ id, run }) =>
      ok(
        {
          type: "get_info",
          model_id: id,
          model_data: { arch: "byte-lm", model_name: run.baseModel, tokenizer_id: run.baseModel },
          model_name: run.baseModel,
          is_lora: true,
          lora_rank: run.rank
        },
        { audit: { modelId: id } }
      )
    )
  )

export const unloadModel: Handler = (world, request) =>
  Effect.flatMap(readModel(request), (body) => Execution.submitUnload(world, body.model_id, request.user))
