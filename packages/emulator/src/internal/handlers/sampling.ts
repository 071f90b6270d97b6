/** Sampling sessions and samples. */
import * as SampleRequest from "@tinkex/tinker/wire/SampleRequest"
import type * as SampleResponse from "@tinkex/tinker/wire/SampleResponse"
import * as SamplingWire from "@tinkex/tinker/wire/SamplingSession"
import type { TensorData } from "@tinkex/tinker/wire/Tensor"
import * as Effect from "effect/Effect"
import * as LanguageModel from "../../LanguageModel.ts"
import * as Sampler from "../../Sampler.ts"
import type { OperationFailed } from "../compute.ts"
import * as Digest from "../digest.ts"
import * as Execution from "../execution.ts"
import * as Operations from "../operations.ts"
import * as Outputs from "../outputs.ts"
import { ok, refused, type Refused } from "../reply.ts"
import type { SamplingSession } from "../entities.ts"
import { submitted } from "../submitted.ts"
import type { World } from "../world.ts"
import { jsonBody } from "./body.ts"
import { checkBaseModel, type Handler } from "./session.ts"
import { locate } from "./weights.ts"

const readCreate = jsonBody(SamplingWire.CreateSamplingSessionRequest)

interface Source {
  readonly baseModel: string
  readonly modelPath: string | null
  readonly sampler: Effect.Effect<Sampler.Sampler, OperationFailed>
}

const sourceOf = Effect.fnUntraced(function* (
  world: World,
  user: string,
  given: { readonly baseModel?: string | undefined; readonly modelPath?: string | undefined }
): Effect.fn.Return<Source, Refused> {
  const { baseModel, modelPath } = given
  if (modelPath === undefined) {
    if (baseModel === undefined) return yield* Effect.fail(refused(400, "give model_path or base_model"))
    yield* checkBaseModel(world, baseModel)
    return { baseModel, modelPath: null, sampler: Effect.sync(() => Sampler.ofBase(world.baseOf(baseModel))) }
  }
  const { record, run } = yield* locate(world, user, modelPath)
  if (record.kind !== "sampler_weights") {
    return yield* Effect.fail(
      refused(400, `${modelPath} is a training checkpoint; sample from one of save_weights_for_sampler`)
    )
  }
  if (baseModel !== undefined && world.baseOf(baseModel) !== world.baseOf(run.baseModel)) {
    return yield* Effect.fail(refused(400, `${modelPath} is of ${run.baseModel}, not of ${baseModel}`))
  }
  // Read once, when it is first needed.
  const sampler = yield* Effect.cached(Operations.samplerOf(world, run, record.name))
  return { baseModel: run.baseModel, modelPath, sampler }
})

const opened = (sampler: SamplingSession) =>
  ok({ type: "create_sampling_session", sampling_session_id: sampler.id }, { audit: { samplerId: sampler.id } })

export const createSamplingSession: Handler = (world, request) =>
  Effect.gen(function* () {
    const body = yield* readCreate(request)
    const session = yield* world.session(body.session_id, request.user)
    const { sampling_session_seq_id: seqId } = body
    const given = { baseModel: body.base_model ?? undefined, modelPath: body.model_path ?? undefined }
    const digest = Digest.ofJson(given)
    const existing = session.samplers.get(seqId)
    if (existing !== undefined) {
      if (existing.digest === digest || world.settings.conflicts === "original") return opened(existing)
      const detail = `sampling_session_seq_id ${seqId} of session ${session.id} was used for another request`
      return yield* Effect.fail(refused(409, detail))
    }
    const source = yield* sourceOf(world, request.user, given)
    const id = Operations.samplerId(session.id, seqId)
    return opened(world.openSampler(seqId, { id, session, digest, ...source }))
  })

export const sampler: Handler = (world, request, [id = ""]) =>
  Effect.map(world.sampler(id, request.user), ({ baseModel, modelPath }) =>
    ok({ sampler_id: id, base_model: baseModel, model_path: modelPath }, { audit: { samplerId: id } })
  )

type Sample = SampleRequest.FullSampleRequest

const promptOf = (body: Sample): Effect.Effect<ReadonlyArray<number>, Refused> => {
  const tokens: Array<number> = []
  for (const [index, chunk] of body.prompt.chunks.entries()) {
    if (chunk.type !== "encoded_text") {
      return Effect.fail(refused(400, `prompt chunk ${index}: this server reads text only, not ${chunk.type} chunks`))
    }
    for (let i = 0; i < chunk.tokens.length; i++) tokens.push(chunk.tokens[i] ?? 0)
  }
  const problem = Sampler.problemOf(tokens)
  return problem === undefined ? Effect.succeed(tokens) : Effect.fail(refused(400, problem))
}

/** More alternatives of one place would be a mistake. */
const maxAlternatives = 1024

/** The cells of the matrix of targets that are there, row by row. */
const targetsOf = (
  tensor: TensorData | undefined,
  prompt: ReadonlyArray<number>
): Effect.Effect<Sampler.SampleOptions["targets"], Refused> => {
  if (tensor === undefined) return Effect.succeed(undefined)
  const wrong = (problem: string) => Effect.fail(refused(422, `target_prompt_logprobs ${problem}`))
  const { csr, data, shape } = tensor
  const [rows = 0, columns = 0] = shape
  if (shape.length !== 2 || rows !== prompt.length - 1 || columns < 1) {
    return wrong(`is ${shape.join(" x ")}; give ${prompt.length - 1} rows, one for each token but the first`)
  }
  const cells: Array<{ readonly row: number; readonly token: number }> = []
  for (let row = 0, i = 0; row < rows; row++) {
    const end = csr === undefined ? (row + 1) * columns : (csr.crow[row + 1] ?? 0)
    for (; i < end; i++) {
      const token = data[i] ?? Number.NaN
      if (!Number.isInteger(token) || token < -1 || token >= LanguageModel.vocabSize) {
        return wrong(`has ${token}; give token ids from 0 to ${LanguageModel.vocabSize - 1}, or -1`)
      }
      cells.push({ row, token })
    }
  }
  return cells.length === data.length ? Effect.succeed(cells) : wrong("has values that belong to no row")
}

/** The result of a request as later revisions have it, with what only those ask for. */
const responseOf = (
  sampled: Sampler.Sampled,
  body: Sample,
  prompt: ReadonlyArray<number>
): SampleResponse.SampleResponse => {
  const { promptAltTokensK: k = 0, targetPromptLogprobs: targets } = body
  const shape = [prompt.length - 1, k]
  return {
    sequences: sampled.sequences,
    promptLogprobs: sampled.promptLogprobs,
    topkPromptLogprobs: sampled.topkPromptLogprobs,
    promptCacheHitTokens: 0,
    ...(targets === undefined
      ? {}
      : { targetPromptLogprobs: { ...targets, dtype: "float32", data: sampled.targetLogprobs } }),
    ...(k === 0
      ? {}
      : {
          promptAltTokens: {
            tokens: { dtype: "int64", data: sampled.alternatives.tokens, shape },
            logprobs: { dtype: "float32", data: sampled.alternatives.logprobs, shape }
          }
        })
  }
}

const optionsOf = (
  body: Sample,
  prompt: ReadonlyArray<number>,
  targets: Sampler.SampleOptions["targets"],
  drawn: string
): Sampler.SampleOptions => {
  const { seed, stop = [], ...params } = body.params
  const stops: ReadonlyArray<string | number> = typeof stop === "string" ? [stop] : stop
  return {
    prompt,
    samples: body.numSamples,
    maxTokens: params.maxTokens,
    stream:
      seed === undefined
        ? (sample) => `sample|${drawn}|${sample}`
        : (sample) => `sample|${BigInt(seed) + BigInt(sample)}`,
    stopTokens: stops.filter((item) => typeof item === "number"),
    stopStrings: stops.filter((item) => typeof item === "string"),
    temperature: params.temperature,
    topK: params.topK,
    topP: params.topP,
    promptLogprobs: body.promptLogprobs,
    topkPromptLogprobs: Math.min(body.topkPromptLogprobs, LanguageModel.vocabSize),
    promptLogprobsLastN: body.promptLogprobsLastN,
    targets,
    alternatives: body.promptAltTokensK,
    topkSampleLogprobs: Math.min(body.topkSampleLogprobs ?? 0, LanguageModel.vocabSize)
  }
}

/** Where nothing is computed: as many tokens as were asked for, at most 16, all zero. */
const idleSample = (options: Sampler.SampleOptions): Sampler.Sampled => {
  const zeros = Array.from({ length: (options.alternatives ?? 0) * (options.prompt.length - 1) }, () => 0)
  const tokens = Array.from({ length: Math.min(options.maxTokens ?? 16, 16) }, () => 0)
  return {
    sequences: Array.from({ length: options.samples }, () => ({ tokens, logprobs: tokens, stopReason: "length" })),
    promptLogprobs: options.promptLogprobs
      ? Array.from(options.prompt, (_, i) => (i === 0 ? undefined : 0))
      : undefined,
    topkPromptLogprobs: options.topkPromptLogprobs > 0 ? Array.from(options.prompt, () => undefined) : undefined,
    targetLogprobs: new Float32Array(options.targets?.length ?? 0),
    alternatives: { tokens: zeros, logprobs: Float32Array.from(zeros) }
  }
}

/** More samples of one request would be a mistake. */
const maxSamples = 1024

export const asample: Handler = (world, request) =>
  Effect.gen(function* () {
    const body = yield* Effect.mapError(SampleRequest.decode(request.body), (error) => refused(422, error.message))
    const { samplingSessionId } = body
    const seqId = body.seqId?.toString()
    const session = samplingSessionId === undefined ? undefined : yield* world.sampler(samplingSessionId, request.user)
    if (session !== undefined && seqId === undefined) {
      return yield* Effect.fail(refused(422, "seq_id is missing; a sampling session counts its requests"))
    }
    const digest = Digest.ofBytes(request.body)
    const audit = {
      ...(session === undefined ? {} : { samplerId: session.id }),
      ...(seqId === undefined || !Number.isSafeInteger(Number(seqId)) ? {} : { seqId: Number(seqId) }),
      digest
    }
    const known = session === undefined || seqId === undefined ? undefined : session.requests.get(seqId)
    if (known !== undefined) {
      if (known.digest === digest || world.settings.conflicts === "original") {
        return submitted(known.future, { ...audit, duplicate: true }, false)
      }
      const detail = `seq_id ${seqId} of sampling session ${samplingSessionId} was used for another request`
      return yield* Effect.fail(refused(409, detail, audit))
    }
    const prompt = yield* promptOf(body)
    const source: Source = session ?? (yield* sourceOf(world, request.user, body))
    const limit = world.contextOf(source.baseModel)
    const wanted = body.params.maxTokens ?? 1
    if (prompt.length + wanted > limit) {
      const detail = `Prompt length plus max_tokens exceeds the model's context window: ${prompt.length} + ${wanted} > ${limit}`
      return yield* Effect.fail(refused(400, detail, audit))
    }
    const { promptLogprobsLastN: last } = body
    if (last !== undefined && (!body.promptLogprobs || last < 1 || last >= prompt.length)) {
      const detail = `prompt_logprobs_last_n is ${last}; it wants prompt_logprobs, and 1 to one less than the prompt has tokens`
      return yield* Effect.fail(refused(422, detail, audit))
    }
    if (body.numSamples > maxSamples) {
      return yield* Effect.fail(refused(400, `num_samples is ${body.numSamples}; at most ${maxSamples} here`, audit))
    }
    const targets = yield* targetsOf(body.targetPromptLogprobs, prompt)
    if ((body.promptAltTokensK ?? 0) > maxAlternatives) {
      return yield* Effect.fail(refused(422, `prompt_alt_tokens_k is above ${maxAlternatives}`, audit))
    }
    if (!Execution.hasRoom(world)) {
      return yield* Effect.fail(refused(429, "Too many samples are being drawn; send this one again later", audit))
    }
    return yield* Execution.submitSample(world, {
      audit,
      samples: body.numSamples,
      user: request.user,
      id: session === undefined ? undefined : `${session.id}:${seqId}`,
      register: (future) => {
        if (session !== undefined && seqId !== undefined) session.requests.set(seqId, { digest, future })
      },
      work: (futureId) => {
        const options = optionsOf(body, prompt, targets, `${world.settings.seed}|${futureId}`)
        const drawn =
          world.settings.compute === "none"
            ? Effect.sync(() => idleSample(options))
            : Effect.flatMap(source.sampler, (sampler) => Sampler.sample(sampler, options))
        return Effect.map(drawn, (sampled) => {
          const consumer =
            session === undefined
              ? { user: request.user, sessionId: null, projectId: null, baseModel: source.baseModel }
              : world.records.consumer(session.session, source.baseModel)
          const tokens = sampled.sequences.reduce((sum, sequence) => sum + sequence.tokens.length, 0)
          world.records.charge(consumer, { type: "sampling_prefill", cached: false, token_count: prompt.length })
          world.records.charge(consumer, { type: "sampling_sample", token_count: tokens })
          return Outputs.sample(responseOf(sampled, body, prompt))
        })
      }
    })
  })
