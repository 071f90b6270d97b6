/**
 * The JSON of a sampling request. It is put together and taken apart by hand: numbers of requests, and seeds, go beyond what a
 * JavaScript number holds exactly, and prompts have thousands of tokens.
 */
import * as Effect from "effect/Effect"
import { Malformed } from "../internal/packed.ts"
import type { Chunk, ModelInput } from "./Datum.ts"
import * as SamplingParams from "./SamplingParams.ts"
import type { TensorData } from "./Tensor.ts"
import * as TensorJson from "./TensorJson.ts"
import { WireError } from "./WireError.ts"

export interface SampleRequest {
  /** Either this, or one of the next two. */
  readonly samplingSessionId?: string | undefined
  readonly baseModel?: string | undefined
  readonly modelPath?: string | undefined
  /** The same number in the same session is the same request. */
  readonly seqId?: bigint | undefined
  readonly numSamples: number
  readonly prompt: ModelInput
  readonly params: SamplingParams.SamplingParams
  readonly promptLogprobs: boolean
  /** Likeliest tokens for each position of the prompt; 0: none. */
  readonly topkPromptLogprobs: number
  /** After 0.25: the likeliest tokens for each place of a sample. */
  readonly topkSampleLogprobs?: number | undefined
  /** After 0.25: of the prompt only so many tokens from its end on. */
  readonly promptLogprobsLastN?: number | undefined
  /** After 0.25: tokens whose log-probabilities are wanted, a row for each place of the prompt but the first; -1 for none. */
  readonly targetPromptLogprobs?: TensorData | undefined
  /** After 0.25: draws so many tokens in each place of the prompt but the first. */
  readonly promptAltTokensK?: number | undefined
  /** After 0.25: the service remembers how stable each sample was, for losses that ask for it. */
  readonly recordStabilityInfo?: boolean | undefined
}

const numbersOf = (tokens: ArrayLike<number>): string =>
  JSON.stringify(Array.isArray(tokens) ? tokens : Array.from(tokens))
const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64")
const expected = ({ expectedTokens }: { readonly expectedTokens?: number | undefined }): string =>
  expectedTokens === undefined ? "" : `"expected_tokens":${expectedTokens},`

const chunkJson = (chunk: Chunk): string => {
  switch (chunk.type) {
    case "encoded_text":
      return `{"tokens":${numbersOf(chunk.tokens)},"type":"encoded_text"}`
    case "image":
      return `{"data":"${base64(chunk.data)}","format":"${chunk.format}",${expected(chunk)}"type":"image"}`
    case "dmel":
      return `{"dmel":"${base64(chunk.dmel)}","type":"dmel"}`
    case "image_asset_pointer":
      return `{"format":"${chunk.format}","location":${JSON.stringify(chunk.location)},${expected(chunk)}"type":"image_asset_pointer"}`
  }
}

/** A model's input as JSON: `{"chunks":[…]}`. */
export const promptJson = (prompt: ModelInput): string => `{"chunks":[${prompt.chunks.map(chunkJson).join(",")}]}`

const encoder = new TextEncoder()

/**
 * Everything but the number, so that the same request can be sent under another one without being written anew; the result
 * makes the body.
 */
export const prepare = (request: Omit<SampleRequest, "seqId">): ((seqId: bigint | undefined) => Uint8Array) => {
  const { baseModel, modelPath, samplingSessionId } = request
  const address =
    (samplingSessionId === undefined ? "" : `"sampling_session_id":${JSON.stringify(samplingSessionId)},`) +
    (baseModel === undefined ? "" : `"base_model":${JSON.stringify(baseModel)},`) +
    (modelPath === undefined ? "" : `"model_path":${JSON.stringify(modelPath)},`)
  const { promptAltTokensK, recordStabilityInfo, targetPromptLogprobs: targets } = request
  const later =
    (targets === undefined ? "" : `"target_prompt_logprobs":${TensorJson.toJson(targets)},`) +
    (promptAltTokensK === undefined ? "" : `"prompt_alt_tokens_k":${promptAltTokensK},`) +
    (recordStabilityInfo === undefined ? "" : `"record_stability_info":${recordStabilityInfo},`) +
    (request.topkSampleLogprobs === undefined ? "" : `"topk_sample_logprobs":${request.topkSampleLogprobs},`) +
    (request.promptLogprobsLastN === undefined ? "" : `"prompt_logprobs_last_n":${request.promptLogprobsLastN},`)
  const content =
    `${address}"num_samples":${request.numSamples},"prompt":${promptJson(request.prompt)},` +
    `"sampling_params":${SamplingParams.toJson(request.params)},"prompt_logprobs":${request.promptLogprobs},` +
    `"topk_prompt_logprobs":${request.topkPromptLogprobs},${later}"type":"sample"}`
  return (seqId) => encoder.encode(seqId === undefined ? `{${content}` : `{"seq_id":${seqId},${content}`)
}

/** The whole body. */
export const encode = (request: SampleRequest): Uint8Array => prepare(request)(request.seqId)

/** `JSON.parse`, with bigints for whole numbers that a number does not hold. */
const parse = (text: string): unknown => {
  const reviver = (_: string, value: unknown, context?: { readonly source?: string }) => {
    const source = context?.source
    return typeof value === "number" && source !== undefined && /^-?\d{16,}$/.test(source)
      ? Number.isSafeInteger(value)
        ? value
        : BigInt(source)
      : value
  }
  return /\d{16}/.test(text) ? JSON.parse(text, reviver) : JSON.parse(text)
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Absent and null are the same. */
const optional = <A>(
  record: Record<string, unknown>,
  key: string,
  is: (value: unknown) => value is A,
  what: string
): A | undefined => {
  const value = record[key] ?? undefined
  if (value === undefined || is(value)) return value
  throw new Malformed(`${key} is not ${what}`)
}

const isText = (value: unknown): value is string => typeof value === "string"
const isFlag = (value: unknown): value is boolean => typeof value === "boolean"
const isCount = (value: unknown): value is number => typeof value === "number" && (value | 0) === value && value >= 0
const isSeq = (value: unknown): value is number | bigint =>
  typeof value === "bigint" ? value >= 0n : Number.isSafeInteger(value) && Number(value) >= 0
const isFormat = (value: unknown): value is "png" | "jpeg" => value === "png" || value === "jpeg"
const isTokens = (value: unknown): value is ReadonlyArray<number> =>
  Array.isArray(value) && value.every((token) => (token | 0) === token)

const needed = <A>(value: A | undefined, what: string): A => {
  if (value === undefined) throw new Malformed(`${what} is missing`)
  return value
}

const bytesOf = (chunk: Record<string, unknown>, key: string): Uint8Array =>
  new Uint8Array(Buffer.from(needed(optional(chunk, key, isText, "base64"), `${key} of a chunk`), "base64"))

const pictureOf = (chunk: Record<string, unknown>) => {
  const expectedTokens = optional(chunk, "expected_tokens", isCount, "a whole number")
  return {
    format: needed(optional(chunk, "format", isFormat, "png or jpeg"), "format of an image"),
    ...(expectedTokens === undefined ? {} : { expectedTokens })
  }
}

/** Old clients leave the type out; the keys tell it. */
const kindOf = (chunk: Record<string, unknown>): unknown =>
  chunk["type"] ??
  ("tokens" in chunk
    ? "encoded_text"
    : "location" in chunk
      ? "image_asset_pointer"
      : "dmel" in chunk
        ? "dmel"
        : "data" in chunk
          ? "image"
          : undefined)

const readChunk = (chunk: unknown): Chunk => {
  if (!isRecord(chunk)) throw new Malformed("a chunk is no object")
  switch (kindOf(chunk)) {
    case "encoded_text":
      return {
        type: "encoded_text",
        tokens: needed(optional(chunk, "tokens", isTokens, "a list of tokens"), "tokens of a chunk")
      }
    case "image":
      return { type: "image", data: bytesOf(chunk, "data"), ...pictureOf(chunk) }
    case "dmel":
      return { type: "dmel", dmel: bytesOf(chunk, "dmel") }
    case "image_asset_pointer":
      return {
        type: "image_asset_pointer",
        location: needed(optional(chunk, "location", isText, "text"), "location of an image"),
        ...pictureOf(chunk)
      }
    default:
      throw new Malformed(`a chunk has the unknown type ${JSON.stringify(chunk["type"])}`)
  }
}

/** A model's input from parsed JSON; throws what is made a `WireError` of. */
const readPrompt = (value: unknown): ModelInput => {
  if (!isRecord(value) || !Array.isArray(value["chunks"])) throw new Malformed("prompt has no list of chunks")
  return { chunks: value["chunks"].map(readChunk) }
}

/** With the defaults of the API filled in. */
export interface FullSampleRequest extends SampleRequest {
  readonly params: SamplingParams.FullSamplingParams
}

/** Reads a body; fails with `WireError` for what is none, naming the key. */
export const decode = (bytes: Uint8Array): Effect.Effect<FullSampleRequest, WireError> =>
  Effect.try({
    try: (): FullSampleRequest => {
      const body = parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
      if (!isRecord(body)) throw new Malformed("it is no JSON object")
      const seqId = optional(body, "seq_id", isSeq, "a whole number, 0 or more")
      const params = needed(optional(body, "sampling_params", isRecord, "an object"), "sampling_params")
      const numSamples = optional(body, "num_samples", isCount, "a whole number") ?? 1
      if (numSamples < 1) throw new Malformed("num_samples is 0")
      const topkSampleLogprobs = optional(body, "topk_sample_logprobs", isCount, "a whole number, 0 or more")
      const targets = body["target_prompt_logprobs"] ?? undefined
      const promptAltTokensK = optional(body, "prompt_alt_tokens_k", isCount, "a whole number, 0 or more")
      const recordStabilityInfo = optional(body, "record_stability_info", isFlag, "true or false")
      const promptLogprobsLastN = optional(body, "prompt_logprobs_last_n", isCount, "a whole number, 0 or more")
      return {
        samplingSessionId: optional(body, "sampling_session_id", isText, "text"),
        baseModel: optional(body, "base_model", isText, "text"),
        modelPath: optional(body, "model_path", isText, "text"),
        seqId: seqId === undefined ? undefined : BigInt(seqId),
        numSamples,
        prompt: readPrompt(body["prompt"]),
        params: SamplingParams.fromJson(params),
        promptLogprobs: optional(body, "prompt_logprobs", isFlag, "true or false") ?? false,
        topkPromptLogprobs: optional(body, "topk_prompt_logprobs", isCount, "a whole number, 0 or more") ?? 0,
        ...(topkSampleLogprobs === undefined ? {} : { topkSampleLogprobs }),
        ...(promptLogprobsLastN === undefined ? {} : { promptLogprobsLastN }),
        ...(targets === undefined
          ? {}
          : { targetPromptLogprobs: TensorJson.fromJson(targets, "target_prompt_logprobs") }),
        ...(promptAltTokensK === undefined ? {} : { promptAltTokensK }),
        ...(recordStabilityInfo === undefined ? {} : { recordStabilityInfo })
      }
    },
    catch: (cause) =>
      new WireError({ what: "a sampling request", problem: cause instanceof Error ? cause.message : String(cause) })
  })

const textBytes = 10

/** What a prompt weighs where bytes are counted, by the API's own rule: 10 a token, the raw bytes of anything else. */
export const estimateBytes = (prompt: ModelInput): number => {
  let bytes = 0
  for (const chunk of prompt.chunks) {
    bytes +=
      chunk.type === "encoded_text"
        ? textBytes * chunk.tokens.length
        : chunk.type === "image"
          ? chunk.data.byteLength
          : chunk.type === "dmel"
            ? chunk.dmel.byteLength
            : chunk.location.length
  }
  return bytes
}
