/**
 * Sampling from the language model: temperature, top-k, top-p, seeds, stop rules and log-probabilities.
 *
 * Guaranteed: the same weights, prompt, parameters and seed give the same tokens on one Node version; log-probabilities are those
 * of the model itself (temperature 1, nothing cut off), and equal those that a forward pass computes for the same tokens bit for
 * bit. Sample `i` of several draws with seed `seed + i`, so that it is the first sample of that seed.
 *
 * A stop token, or the text that completes a stop string, is part of the returned tokens; the end-of-sequence token always stops.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { adapters, effectiveWeights } from "./internal/lmAdapter.ts"
import { Decoder } from "./internal/lmDecoder.ts"
import { uniformStream } from "./internal/lmRandom.ts"
import { type BaseModel, baseModels, type BaseWeights, baseWeights, type ModuleTable } from "./internal/lmShape.ts"
import { eosToken, type Factors, type ModelConfig, vocabSize } from "./LanguageModel.ts"

/** The frozen weights of one model, ready to be sampled from. @since 0.1.0 */
export interface Sampler {
  readonly base: BaseModel
  readonly frozen: BaseWeights
  readonly weights: ModuleTable<Float64Array>
}

const knownBase = (name: string): BaseModel => {
  const base = baseModels.find((candidate) => candidate.name === name)
  // The names of configurations and snapshots have been looked up before.
  if (base === undefined) throw new Error(`base model ${name} is unknown`)
  return base
}

/** A base model as it is, without any adapter. @since 0.1.0 */
export const ofBase = (baseModel: string): Sampler => {
  const base = knownBase(baseModel)
  const frozen = baseWeights(base)
  return { base, frozen, weights: frozen.modules }
}

/** The weights of a model or of a snapshot as they are now; later steps do not change them. @since 0.1.0 */
export const ofWeights = (from: { readonly config: ModelConfig; readonly factors: Factors }): Sampler => {
  const base = knownBase(from.config.baseModel)
  const frozen = baseWeights(base)
  const table = adapters(base, from.config)
  return { base, frozen, weights: effectiveWeights(frozen.modules, table, from.config.rank, from.factors) }
}

/** What to sample. Everything is trusted to be in range; `problemOf` says whether it is. @since 0.1.0 */
export interface SampleOptions {
  readonly prompt: ArrayLike<number>
  readonly samples: number
  /** Default: what the context has room for. */
  readonly maxTokens?: number | undefined
  /** Names the random numbers of sample `i`. */
  readonly stream: (sample: number) => string
  readonly stopTokens: ReadonlyArray<number>
  readonly stopStrings: ReadonlyArray<string>
  /** 0 always takes the likeliest token. */
  readonly temperature: number
  /** -1 or 0: no limit. */
  readonly topK: number
  readonly topP: number
  readonly promptLogprobs: boolean
  /** 0: none. */
  readonly topkPromptLogprobs: number
  /** Of the prompt only so many tokens from its end on are scored. Default: all. */
  readonly promptLogprobsLastN?: number | undefined
  /** The likeliest tokens for each place of a sample; 0, the default: none. */
  readonly topkSampleLogprobs?: number | undefined
  /** Tokens whose log-probabilities are wanted in the places of the prompt; row `i` is about token `i + 1`. */
  readonly targets?: ReadonlyArray<{ readonly row: number; readonly token: number }> | undefined
  /** Draws so many tokens in each place of the prompt but the first; 0, the default: none. */
  readonly alternatives?: number | undefined
}

/** @since 0.1.0 */
export interface SampledSequence {
  readonly tokens: ReadonlyArray<number>
  readonly logprobs: ReadonlyArray<number>
  readonly stopReason: "stop" | "length"
  /** For each token the likeliest ones in its place, where they were asked for. */
  readonly topkLogprobs?: ReadonlyArray<TopTokens>
}

/** Token ids with their log-probabilities, likeliest first. @since 0.1.0 */
export type TopTokens = ReadonlyArray<readonly [token: number, logprob: number]>

/** @since 0.1.0 */
export interface Sampled {
  readonly sequences: ReadonlyArray<SampledSequence>
  /** One entry per token of the prompt; the first has none. */
  readonly promptLogprobs: ReadonlyArray<number | undefined> | undefined
  readonly topkPromptLogprobs: ReadonlyArray<TopTokens | undefined> | undefined
  /** One for each target, in their order; 0 where the token is -1. */
  readonly targetLogprobs: Float32Array
  /** Row after row. */
  readonly alternatives: { readonly tokens: ReadonlyArray<number>; readonly logprobs: Float32Array }
}

/** What the model cannot read in a prompt. @since 0.1.0 */
export const problemOf = (prompt: ArrayLike<number>): string | undefined => {
  if (prompt.length === 0) return "the prompt is empty; give at least one token"
  for (let i = 0; i < prompt.length; i++) {
    const token = prompt[i]!
    if (!Number.isInteger(token) || token < 0 || token >= vocabSize) {
      return `prompt token ${i} is ${token}; token ids are integers from 0 to ${vocabSize - 1}`
    }
  }
  return undefined
}

const byLikelihood = (logits: Float64Array): Array<number> =>
  Array.from(logits.keys()).toSorted((a, b) => logits[b]! - logits[a]! || a - b)

const likeliest = (logits: Float64Array): number => {
  let best = 0
  for (let o = 1; o < vocabSize; o++) if (logits[o]! > logits[best]!) best = o
  return best
}

const draw = (
  logits: Float64Array,
  options: Pick<SampleOptions, "temperature" | "topK" | "topP">,
  uniform: () => number
): number => {
  const { temperature, topK, topP } = options
  if (temperature === 0 || topK === 1) return likeliest(logits)
  const limited = topK > 1 || topP < 1
  const order = limited ? byLikelihood(logits).slice(0, topK > 1 ? topK : vocabSize) : undefined
  const count = order?.length ?? vocabSize
  const at = (i: number) => (order === undefined ? i : order[i]!)
  const max = order === undefined ? logits[likeliest(logits)]! : logits[order[0]!]!
  const shares = new Float64Array(count)
  let sum = 0
  for (let i = 0; i < count; i++) sum += shares[i] = Math.exp((logits[at(i)]! - max) / temperature)
  // The smallest set of tokens that has the share top_p of what top_k left; never empty.
  let kept = count
  if (topP < 1) {
    let mass = 0
    kept = 0
    while (kept < count && (kept === 0 || mass < topP * sum)) mass += shares[kept++]!
    sum = mass
  }
  let left = ((uniform() + 1) / 2) * sum
  for (let i = 0; i < kept; i++) {
    left -= shares[i]!
    if (left < 0) return at(i)
  }
  return at(kept - 1)
}

const endsWith = (tokens: ReadonlyArray<number>, end: Uint8Array): boolean => {
  if (end.length === 0 || end.length > tokens.length) return false
  const start = tokens.length - end.length
  for (let i = 0; i < end.length; i++) if (tokens[start + i] !== end[i]) return false
  return true
}

const best = (logits: Float64Array, k: number, max: number, logSum: number): TopTokens =>
  byLikelihood(logits)
    .slice(0, k)
    .map((token) => [token, logits[token]! - max - logSum] as const)

/** Tokens after which a sample lets other fibers run. */
const sliceTokens = 64

/**
 * Reads the prompt once and draws the samples one after another; other fibers get their turn in between.
 *
 * @since 0.1.0
 */
export const sample = Effect.fn("Sampler.sample")(function* (sampler: Sampler, options: SampleOptions) {
  const { prompt, topkPromptLogprobs: k, topkSampleLogprobs: sampledK = 0 } = options
  const { alternatives = 0, targets = [] } = options
  const wanted = new Map<number, Array<number>>()
  for (const [i, { row, token }] of targets.entries()) {
    if (token < 0) continue
    const cells = wanted.get(row)
    if (cells === undefined) wanted.set(row, [i])
    else cells.push(i)
  }
  const targetLogprobs = new Float32Array(targets.length)
  const drawn: Array<readonly [token: number, logprob: number]> = []
  const anything = { temperature: options.temperature, topK: -1, topP: 1 }
  const alternativeUniform = uniformStream(`${options.stream(0)}|alternatives`)
  const scored = options.promptLogprobs || k > 0
  const scoredFrom = prompt.length - (options.promptLogprobsLastN ?? prompt.length)
  const read = new Decoder(sampler.base, sampler.frozen, sampler.weights)
  const promptLogprobs: Array<number | undefined> = [undefined]
  const topk: Array<TopTokens | undefined> = [undefined]
  let sinceYield = 0
  const breathe = Effect.suspend(() => {
    if (++sinceYield < sliceTokens) return Effect.void
    sinceYield = 0
    return Effect.yieldNow
  })
  for (let t = 0; t < prompt.length; t++) {
    yield* breathe
    read.read(prompt[t]!)
    const next = prompt[t + 1]
    if (next === undefined) continue
    const isScored = scored && t + 1 >= scoredFrom
    const cells = wanted.get(t) ?? []
    if (scored && !isScored) {
      promptLogprobs.push(undefined)
      topk.push(undefined)
    }
    if (!isScored && cells.length === 0 && alternatives === 0) continue
    read.project()
    const { logSum, max } = read.normaliser()
    const logprobOf = (token: number) => read.logits[token]! - max - logSum
    for (const cell of cells) targetLogprobs[cell] = logprobOf(targets[cell]!.token)
    for (let i = 0; i < alternatives; i++) {
      const token = draw(read.logits, anything, alternativeUniform)
      drawn.push([token, logprobOf(token)])
    }
    if (!isScored) continue
    promptLogprobs.push(logprobOf(next))
    if (k > 0) topk.push(best(read.logits, k, max, logSum))
  }
  read.project()

  const room = Math.max(0, sampler.base.maxContextLength - prompt.length)
  const limit = Math.min(options.maxTokens ?? room, room)
  const stopTokens = new Set([...options.stopTokens, eosToken])
  const stopStrings = options.stopStrings.map((text) => new TextEncoder().encode(text))
  const sequences: Array<SampledSequence> = []
  for (let i = 0; i < options.samples; i++) {
    const decoder = read.fork()
    const uniform = uniformStream(options.stream(i))
    const tokens: Array<number> = []
    const logprobs: Array<number> = []
    const topkLogprobs: Array<TopTokens> = []
    let stopReason: SampledSequence["stopReason"] = "length"
    while (tokens.length < limit) {
      yield* breathe
      const token = draw(decoder.logits, options, uniform)
      const { logSum, max } = decoder.normaliser()
      tokens.push(token)
      logprobs.push(decoder.logits[token]! - max - logSum)
      if (sampledK > 0) topkLogprobs.push(best(decoder.logits, sampledK, max, logSum))
      if (stopTokens.has(token) || stopStrings.some((text) => endsWith(tokens, text))) {
        stopReason = "stop"
        break
      }
      decoder.read(token)
      decoder.project()
    }
    sequences.push({ tokens, logprobs, stopReason, ...(sampledK > 0 ? { topkLogprobs } : {}) })
  }
  const result: Sampled = {
    sequences,
    promptLogprobs: options.promptLogprobs ? promptLogprobs : undefined,
    topkPromptLogprobs: k > 0 ? topk : undefined,
    targetLogprobs,
    alternatives: {
      tokens: drawn.map(([token]) => token),
      logprobs: Float32Array.from(drawn, ([, logprob]) => logprob)
    }
  }
  return result
})
