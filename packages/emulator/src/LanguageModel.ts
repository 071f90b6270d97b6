/**
 * A small causal language model over bytes with LoRA factors and exact gradients, so that a loopback server has something real
 * to train: the loss falls, the optimizer state matters, and the whole state has a hash.
 *
 * Guaranteed: on one machine and one Node version the same configuration and the same calls in the same order give the same
 * bits; models share nothing that can change; accumulating two batches equals one batch of their concatenation bit for bit; a
 * refused batch leaves no trace. Not guaranteed: equal bits across Node versions (`Math.exp` and `Math.log` are the engine's), and
 * two operations on one model at the same time - the caller runs the operations of a model one after another.
 *
 * @since 0.1.0
 */
import { createHash } from "node:crypto"

import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

import {
  adapterList,
  adapters,
  effectiveWeights,
  factorGradients,
  type Factors,
  factorShapes,
  freshFactors,
  loraAlpha as alpha
} from "./internal/lmAdapter.ts"
import {
  type LossConfig,
  type LossInputs,
  type LossName,
  lossNames,
  type TokenLoss,
  tokenLoss
} from "./internal/lmLoss.ts"
import { runSequence, type Targets, workspace } from "./internal/lmNetwork.ts"
import {
  type BaseModel,
  baseModels as bases,
  baseWeights,
  mapModules,
  moduleKeys,
  type ModuleTable,
  vocabSize as vocabulary
} from "./internal/lmShape.ts"

/** Number of token ids: 256 bytes, then `bosToken`, `eosToken` and `padToken`. @since 0.1.0 */
export const vocabSize = vocabulary
/** Begin of sequence. @since 0.1.0 */
export const bosToken = 256
/** End of sequence. @since 0.1.0 */
export const eosToken = 257
/** Padding. It is an ordinary token to the model; give it weight 0. @since 0.1.0 */
export const padToken = 258
/** The numerator of the LoRA scale `loraAlpha / rank`, the same for every model. @since 0.1.0 */
export const loraAlpha = alpha
/** Greatest rank that `make` accepts. @since 0.1.0 */
export const maxRank = 64

/** The base models that `make` knows, smallest first. @since 0.1.0 */
export const baseModels: ReadonlyArray<BaseModel> = bases

/** Seed and shape of one model. `rank` is 1 to 64, `seed` draws the A factors; at least one group must be trained. @since 0.1.0 */
export const ModelConfig = Schema.Struct({
  baseModel: Schema.String,
  rank: Schema.Number,
  seed: Schema.Number,
  trainAttn: Schema.Boolean,
  trainMlp: Schema.Boolean,
  trainUnembed: Schema.Boolean
})
/** @since 0.1.0 */
export type ModelConfig = typeof ModelConfig.Type

/** The base model asked for does not exist here. @since 0.1.0 */
export class UnknownBaseModel extends Schema.TaggedError<UnknownBaseModel>()("UnknownBaseModel", {
  baseModel: Schema.String,
  known: Schema.Array(Schema.String)
}) {
  override get message() {
    return `base model ${JSON.stringify(this.baseModel)} is unknown. Use one of ${this.known.join(", ")}.`
  }
  get isRetryable() {
    return false
  }
}

/** A number of a model configuration or of an optimizer step is outside its range. @since 0.1.0 */
export class InvalidParameter extends Schema.TaggedError<InvalidParameter>()("InvalidParameter", {
  field: Schema.String,
  value: Schema.String,
  expected: Schema.String
}) {
  override get message() {
    return `${this.field} is ${this.value}. Give ${this.expected}.`
  }
  get isRetryable() {
    return false
  }
}

/** A token id that the vocabulary does not have. @since 0.1.0 */
export class InvalidToken extends Schema.TaggedError<InvalidToken>()("InvalidToken", {
  datum: Schema.Number,
  input: Schema.Literals(["tokens", "target_tokens"]),
  position: Schema.Number,
  token: Schema.Number
}) {
  override get message() {
    return `datum ${this.datum}: ${this.input}[${this.position}] is ${this.token}, outside the vocabulary. Token ids are integers from 0 to ${vocabSize - 1}.`
  }
  get isRetryable() {
    return false
  }
}

/** A batch that the model cannot be trained on, for another reason than a token id. @since 0.1.0 */
export class InvalidBatch extends Schema.TaggedError<InvalidBatch>()("InvalidBatch", {
  datum: Schema.Number,
  problem: Schema.String
}) {
  override get message() {
    return `datum ${this.datum}: ${this.problem}. Nothing of this batch was applied; correct it and send it again.`
  }
  get isRetryable() {
    return false
  }
}

/** A snapshot of a model of another base, rank or set of trained modules. @since 0.1.0 */
export class IncompatibleSnapshot extends Schema.TaggedError<IncompatibleSnapshot>()("IncompatibleSnapshot", {
  problem: Schema.String
}) {
  override get message() {
    return `the snapshot does not fit this model: ${this.problem}. Create a model with the configuration of the snapshot.`
  }
  get isRetryable() {
    return false
  }
}

/** Everything that can be wrong with a request to the model; `reason` says which. @since 0.1.0 */
export class LanguageModelError extends Schema.TaggedError<LanguageModelError>()("LanguageModelError", {
  reason: Schema.Union([UnknownBaseModel, InvalidParameter, InvalidToken, InvalidBatch, IncompatibleSnapshot])
}) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }
}

/** First and second moments of Adam by factor name, and the number of steps taken. @since 0.1.0 */
export interface AdamState {
  readonly t: number
  readonly m: Readonly<Record<string, Float64Array>>
  readonly v: Readonly<Record<string, Float64Array>>
}

/**
 * One model. `factors` holds the LoRA pairs of the trained modules by their PEFT names; modules that are not trained have none. The
 * fields are replaced or written by the operations of this module and of `Optimizer`; treat them as read-only.
 *
 * @since 0.1.0
 */
export interface LanguageModel {
  readonly config: ModelConfig
  factors: Factors
  adam: AdamState
  /** Gradients of the effective weights since the last optimizer step; `undefined` for frozen modules. */
  gradients: ModuleTable<Float64Array | undefined>
}

/** A frozen copy of weights and, for a training checkpoint, of the optimizer. Accumulated gradients are not part of it. @since 0.1.0 */
export interface Snapshot {
  readonly config: ModelConfig
  readonly factors: Factors
  readonly adam: AdamState | undefined
}

/** @since 0.1.0 */
export type { BaseModel, Factors, LossConfig, LossInputs, LossName }

const failure = (reason: LanguageModelError["reason"]) => new LanguageModelError({ reason })

const lookup = (name: string): Result.Result<BaseModel, LanguageModelError> => {
  const base = bases.find((candidate) => candidate.name === name)
  return base === undefined
    ? Result.fail(failure(new UnknownBaseModel({ baseModel: name, known: bases.map((known) => known.name) })))
    : Result.succeed(base)
}

const baseOf = (config: ModelConfig): BaseModel => Result.getOrThrow(lookup(config.baseModel))

const checkConfig = (config: ModelConfig): Result.Result<BaseModel, LanguageModelError> => {
  const wrong = (field: string, value: unknown, expected: string) =>
    Result.fail(failure(new InvalidParameter({ field, value: String(value), expected })))
  if (!Number.isInteger(config.rank) || config.rank < 1 || config.rank > maxRank) {
    return wrong("rank", config.rank, `an integer from 1 to ${maxRank}`)
  }
  if (!Number.isSafeInteger(config.seed)) return wrong("seed", config.seed, "an integer below 2^53")
  if (!config.trainAttn && !config.trainMlp && !config.trainUnembed) {
    return wrong("train_attn, train_mlp and train_unembed", false, "true for at least one of them")
  }
  return lookup(config.baseModel)
}

const noGradients = (base: BaseModel, config: ModelConfig): LanguageModel["gradients"] =>
  mapModules(adapters(base, config), (adapter) =>
    adapter === undefined ? undefined : new Float64Array(adapter.shape.rows * adapter.shape.ins)
  )

const copied = (arrays: Factors): Factors =>
  Object.fromEntries(Object.entries(arrays).map(([name, values]) => [name, values.slice()]))

const zeroed = (arrays: Factors): Factors =>
  Object.fromEntries(Object.entries(arrays).map(([name, values]) => [name, new Float64Array(values.length)]))

/**
 * Creates a model: the frozen base of that name, A factors drawn from `seed`, B factors zero, fresh optimizer. Fails with
 * `UnknownBaseModel` (lists the known ones) or `InvalidParameter`.
 *
 * @since 0.1.0
 */
export const make = (config: ModelConfig): Effect.Effect<LanguageModel, LanguageModelError> =>
  Effect.fromResult(
    Result.map(checkConfig(config), (base) => {
      const factors = freshFactors(base, config)
      return {
        config,
        factors,
        adam: { t: 0, m: zeroed(factors), v: zeroed(factors) },
        gradients: noGradients(base, config)
      }
    })
  )

/** An independent copy, accumulated gradients included. @since 0.1.0 */
export const clone = (model: LanguageModel): LanguageModel => ({
  config: model.config,
  factors: copied(model.factors),
  adam: { t: model.adam.t, m: copied(model.adam.m), v: copied(model.adam.v) },
  gradients: mapModules(model.gradients, (gradient) => gradient?.slice())
})

/** Copies the weights and, with `optimizer`, the Adam state. @since 0.1.0 */
export const snapshot = (model: LanguageModel, options: { readonly optimizer: boolean }): Snapshot => ({
  config: model.config,
  factors: copied(model.factors),
  adam: options.optimizer ? { t: model.adam.t, m: copied(model.adam.m), v: copied(model.adam.v) } : undefined
})

const misfit = (base: BaseModel, config: ModelConfig, given: Snapshot): string | undefined => {
  for (const key of ["baseModel", "rank", "trainAttn", "trainMlp", "trainUnembed"] as const) {
    if (config[key] !== given.config[key]) return `${key} is ${given.config[key]} there and ${config[key]} here`
  }
  const shapes = factorShapes(base, config)
  for (const [what, arrays] of Object.entries({ factors: given.factors, m: given.adam?.m, v: given.adam?.v })) {
    if (arrays === undefined) continue
    for (const { columns, name, rows } of shapes) {
      if (arrays[name]?.length !== rows * columns) return `${what} ${name} is not ${rows} x ${columns}`
    }
    if (Object.keys(arrays).length !== shapes.length) return `${what} has tensors that no module owns`
  }
  return undefined
}

/**
 * Replaces the weights of a model by those of a snapshot and drops its accumulated gradients. With `optimizer` the Adam state
 * comes along (the snapshot must have one), without it Adam starts afresh, which leads to other weights from the next step on. The
 * seed may differ; anything else in the configuration must not (`IncompatibleSnapshot`).
 *
 * @since 0.1.0
 */
export const restore = (
  model: LanguageModel,
  from: Snapshot,
  options: { readonly optimizer: boolean }
): Effect.Effect<void, LanguageModelError> =>
  Effect.suspend(() => {
    const base = baseOf(model.config)
    const problem =
      options.optimizer && from.adam === undefined ? "it has no optimizer state" : misfit(base, model.config, from)
    if (problem !== undefined) return Effect.fail(failure(new IncompatibleSnapshot({ problem })))
    const adam = options.optimizer ? from.adam : undefined
    model.factors = copied(from.factors)
    model.adam =
      adam === undefined
        ? { t: 0, m: zeroed(from.factors), v: zeroed(from.factors) }
        : { t: adam.t, m: copied(adam.m), v: copied(adam.v) }
    model.gradients = noGradients(base, model.config)
    return Effect.void
  })

const hashOf = (config: ModelConfig, parts: ReadonlyArray<Factors>, t: number | undefined): string => {
  const base = baseOf(config)
  const hash = createHash("sha256")
  const { baseModel, rank, seed, trainAttn, trainMlp, trainUnembed } = config
  hash.update(JSON.stringify([baseModel, rank, seed, trainAttn, trainMlp, trainUnembed, t ?? null]))
  for (const arrays of parts) {
    for (const { columns, name, rows } of factorShapes(base, config)) {
      hash.update(JSON.stringify([name, rows, columns]))
      const values = arrays[name]!
      hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    }
  }
  return hash.digest("hex")
}

/** Sha-256 (hex) over configuration, weights and Adam state. Accumulated gradients do not count. @since 0.1.0 */
export const stateHash = (model: LanguageModel): string =>
  hashOf(model.config, [model.factors, model.adam.m, model.adam.v], model.adam.t)

/** Sha-256 (hex) over configuration and weights only. @since 0.1.0 */
export const weightsHash = (model: { readonly config: ModelConfig; readonly factors: Factors }): string =>
  hashOf(model.config, [model.factors], undefined)

/**
 * One training example. Position `i` of `tokens` predicts `lossInputs.target_tokens[i]`. Further inputs by loss: `cross_entropy`
 * takes `weights` (default 1.0 each); the others need `logprobs` and `advantages`. All are as long as `tokens`, or, with `width`
 * targets a position, that many times as long: a matrix, row after row, whose every entry has a loss of its own.
 *
 * @since 0.1.0
 */
export interface Datum {
  readonly tokens: ArrayLike<number>
  readonly lossInputs: LossInputs
  /** Targets of each position. Default 1, at most 1024. */
  readonly width?: number | undefined
}

/** A batch and the loss to apply, under their names on the wire. @since 0.1.0 */
export interface PassOptions {
  readonly data: ReadonlyArray<Datum>
  /** `cross_entropy`, `importance_sampling`, `ppo`, `cispo` or `dro`. */
  readonly loss: string
  /** Settings of the loss, e.g. `clip_low_threshold`. */
  readonly lossConfig?: LossConfig | undefined
}

/** Per datum the log-probability of each target, in the order of the targets, and the loss summed over tokens and datums. @since 0.1.0 */
export interface Pass {
  readonly logprobs: ReadonlyArray<Float64Array>
  readonly loss: number
}

const isLossName = (name: string): name is LossName => lossNames.some((known) => known === name)

const badToken = (datum: number, input: "tokens" | "target_tokens", tokens: ArrayLike<number>) => {
  for (let position = 0; position < tokens.length; position++) {
    const token = tokens[position]!
    if (!Number.isInteger(token) || token < 0 || token >= vocabSize) {
      return failure(new InvalidToken({ datum, input, position, token }))
    }
  }
  return undefined
}

/** Targets of one position at most: more is a mistake in a shape. */
const maxWidth = 1024

interface Checked {
  readonly tokens: ArrayLike<number>
  readonly targets: Targets
  readonly loss: TokenLoss
}

const check = (base: BaseModel, options: PassOptions): Result.Result<ReadonlyArray<Checked>, LanguageModelError> => {
  if (!isLossName(options.loss)) {
    const expected = `one of ${lossNames.join(", ")}`
    return Result.fail(failure(new InvalidParameter({ field: "loss_fn", value: options.loss, expected })))
  }
  const checked: Array<Checked> = []
  for (const [index, datum] of options.data.entries()) {
    const wrong = (problem: string) => Result.fail(failure(new InvalidBatch({ datum: index, problem })))
    const targets = datum.lossInputs["target_tokens"]
    if (targets === undefined) return wrong("target_tokens are missing")
    const length = datum.tokens.length
    const width = datum.width ?? 1
    if (!Number.isInteger(width) || width < 1 || width > maxWidth) {
      return wrong(`${width} targets a position; give 1 to ${maxWidth}`)
    }
    if (targets.length !== length * width) {
      return wrong(`${length} tokens but ${targets.length} target_tokens${width === 1 ? "" : `, ${width} a position`}`)
    }
    if (length === 0) return wrong("it has no tokens")
    if (length > base.maxContextLength) {
      return wrong(`${length} tokens; ${base.name} reads at most ${base.maxContextLength}`)
    }
    const bad = badToken(index, "tokens", datum.tokens) ?? badToken(index, "target_tokens", targets)
    if (bad !== undefined) return Result.fail(bad)
    const loss = tokenLoss(options.loss, options.lossConfig ?? {}, datum.lossInputs, targets.length)
    if (Result.isFailure(loss)) return wrong(loss.failure)
    checked.push({ tokens: datum.tokens, targets: { tokens: targets, width }, loss: loss.success })
  }
  return Result.succeed(checked)
}

/** Tokens after which a pass lets other fibers run; keeps the event loop free of long pauses. */
const sliceTokens = 64

const pass = Effect.fnUntraced(function* (
  model: LanguageModel,
  options: PassOptions,
  gradients: LanguageModel["gradients"] | undefined
) {
  const base = baseOf(model.config)
  const checked = yield* Effect.fromResult(check(base, options))
  const frozen = baseWeights(base)
  const table = adapters(base, model.config)
  const weights = effectiveWeights(frozen.modules, table, model.config.rank, model.factors)
  const space = workspace(base, Math.max(0, ...checked.map((datum) => datum.tokens.length)))
  const logprobs: Array<Float64Array> = []
  let total = 0
  let sinceYield = 0
  for (const { loss, targets, tokens } of checked) {
    if (sinceYield + tokens.length > sliceTokens && sinceYield > 0) {
      yield* Effect.yieldNow
      sinceYield = 0
    }
    sinceYield += tokens.length
    const out = new Float64Array(targets.tokens.length)
    total += runSequence({ base, frozen, weights, workspace: space, tokens, targets, loss, logprobs: out, gradients })
    logprobs.push(out)
  }
  return { logprobs, loss: total }
})

/**
 * Computes log-probabilities and loss without touching the model. Fails with `InvalidToken`, `InvalidBatch` or, for an unknown
 * loss, `InvalidParameter`.
 *
 * @since 0.1.0
 */
export const forward = Effect.fn("LanguageModel.forward")(
  (model: LanguageModel, options: PassOptions): Effect.Effect<Pass, LanguageModelError> =>
    pass(model, options, undefined)
)

/**
 * Like `forward`, and adds the gradients of the loss to those that wait for the next optimizer step. They are added all at once
 * when the whole batch is done: a refused or interrupted call leaves the model as it was.
 *
 * @since 0.1.0
 */
export const forwardBackward = Effect.fn("LanguageModel.forwardBackward")(function* (
  model: LanguageModel,
  options: PassOptions
) {
  const gradients = mapModules(model.gradients, (gradient) => gradient?.slice())
  const result: Pass = yield* pass(model, options, gradients)
  model.gradients = gradients
  return result
})

/** The accumulated gradients by factor name, in the order of hashing. @since 0.1.0 */
export const factorGradientsOf = (model: LanguageModel): Factors => {
  const table = adapters(baseOf(model.config), model.config)
  const out: Record<string, Float64Array> = {}
  for (const key of moduleKeys) {
    const adapter = table[key]
    const gradient = model.gradients[key]
    if (adapter === undefined || gradient === undefined) continue
    const pair = factorGradients(adapter, model.config.rank, model.factors, gradient)
    out[adapter.a] = pair.a
    out[adapter.b] = pair.b
  }
  return out
}

/** Forgets the accumulated gradients. @since 0.1.0 */
export const clearGradients = (model: LanguageModel): void => {
  for (const key of moduleKeys) model.gradients[key]?.fill(0)
}

/** Names and shapes (rows x columns) of the factors of a configuration, in the order of hashing. @since 0.1.0 */
export const shapes = (
  config: ModelConfig
): Effect.Effect<
  ReadonlyArray<{ readonly name: string; readonly rows: number; readonly columns: number }>,
  LanguageModelError
> => Effect.fromResult(Result.map(checkConfig(config), (base) => factorShapes(base, config)))

/** The PEFT names of the trained modules of a configuration, without the `base_model.model.` prefix. @since 0.1.0 */
export const trainedModules = (config: ModelConfig): Effect.Effect<ReadonlyArray<string>, LanguageModelError> =>
  Effect.fromResult(
    Result.map(checkConfig(config), (base) => adapterList(base, config).map((adapter) => adapter.shape.name))
  )

/** The bytes of a text in UTF-8, as token ids. @since 0.1.0 */
export const encodeText = (text: string): Array<number> => Array.from(new TextEncoder().encode(text))
