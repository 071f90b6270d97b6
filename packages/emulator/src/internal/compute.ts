/** What trains: the small language model, or nothing at all where only the protocol is of interest. */
import type { Datum } from "@tinkex/tinker/wire/Datum"
import type { LossFnConfig } from "@tinkex/tinker/wire/Protobuf"
import type { TensorData } from "@tinkex/tinker/wire/Tensor"
import * as Effect from "effect/Effect"
import * as LanguageModel from "../LanguageModel.ts"
import * as Optimizer from "../Optimizer.ts"
import type { Category } from "./futures.ts"

/** An operation that could not be carried out; it changed nothing. */
export interface OperationFailed {
  readonly _tag: "OperationFailed"
  readonly error: string
  readonly category: Category
}

export const failed = (error: string, category: Category): OperationFailed => ({
  _tag: "OperationFailed",
  error,
  category
})

export interface Pass {
  readonly data: ReadonlyArray<Datum>
  readonly lossFn: string
  readonly lossFnConfig: LossFnConfig
}

export interface PassResult {
  readonly logprobs: ReadonlyArray<ArrayLike<number>>
  readonly loss: number
}

const rejected = (error: LanguageModel.LanguageModelError) => failed(error.message, "user")

/** Greatest number of entries that the sparse matrices of a batch are spread out to. */
const maxDense = 16_777_216

const sizeOf = ({ shape }: TensorData): number => shape.reduce((product, length) => product * length, 1)

/** A few bytes can claim a matrix of any size. */
const checkSparseSizes = ({ data }: Pass): Effect.Effect<void, OperationFailed> => {
  let total = 0
  for (const { lossFnInputs } of data) {
    for (const tensor of Object.values(lossFnInputs)) if (tensor.csr !== undefined) total += sizeOf(tensor)
  }
  return total <= maxDense
    ? Effect.void
    : Effect.fail(failed(`the sparse inputs have ${total} entries; this server takes ${maxDense} in a batch`, "user"))
}

/** Whether row pointers and columns of a sparse matrix fit its shape; in JSON nobody has looked at them yet. */
const fitsItsShape = ({ csr, data, shape }: TensorData): boolean => {
  if (csr === undefined) return true
  const [rows = 0, columns = 0] = shape
  let rises = csr.crow.length === rows + 1 && csr.crow[0] === 0 && csr.crow[rows] === data.length
  for (let row = 0; rises && row < rows; row++) rises = (csr.crow[row] ?? 0) <= (csr.crow[row + 1] ?? 0)
  for (let i = 0; rises && i < data.length; i++) rises = (csr.col[i] ?? -1) >= 0 && (csr.col[i] ?? columns) < columns
  return rises && csr.col.length === data.length
}

/** The values of a matrix in rows, zeros included. */
const spread = ({ csr, data, shape }: TensorData): ArrayLike<number> => {
  if (csr === undefined) return data
  const [rows = 0, columns = 0] = shape
  const out = new Float64Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    for (let i = csr.crow[row] ?? 0; i < (csr.crow[row + 1] ?? 0); i++) {
      out[row * columns + (csr.col[i] ?? 0)] = data[i] ?? 0
    }
  }
  return out
}

const describe = (shape: ReadonlyArray<number>) => (shape.length === 0 ? "a scalar" : shape.join(" x "))

const toModelDatum = (datum: Datum, index: number): Effect.Effect<LanguageModel.Datum, OperationFailed> => {
  const tokens: Array<number> = []
  for (const chunk of datum.modelInput.chunks) {
    if (chunk.type !== "encoded_text") {
      return Effect.fail(failed(`datum ${index}: this server reads text only, not ${chunk.type} chunks`, "user"))
    }
    for (let i = 0; i < chunk.tokens.length; i++) tokens.push(chunk.tokens[i] ?? 0)
  }
  const targets = datum.lossFnInputs["target_tokens"]
  // One value per token, or a row of them.
  const isMatrix = targets?.shape.length === 2 && targets.shape[0] === tokens.length
  const width = isMatrix ? targets.shape[1] : 1
  const lossInputs: Record<string, ArrayLike<number>> = {}
  for (const [key, tensor] of Object.entries(datum.lossFnInputs)) {
    const { shape } = tensor
    const fits = isMatrix ? shape.join() === targets.shape.join() : shape.length === 1 && tensor.csr === undefined
    if (!fits) {
      const expected = isMatrix ? `one value for each of the ${describe(targets.shape)} targets` : "one value per token"
      const problem = `${key} is ${describe(shape)}; this server takes ${expected}`
      return Effect.fail(failed(`datum ${index}: ${problem}`, "user"))
    }
    if (!fitsItsShape(tensor)) {
      const problem = `${key} is sparse, and its indices do not fit its shape ${describe(shape)}`
      return Effect.fail(failed(`datum ${index}: ${problem}`, "user"))
    }
    lossInputs[key] = spread(tensor)
  }
  return Effect.succeed({ tokens, lossInputs, width })
}

/** The losses here have no setting that is a text. */
const toNumbers = ({ lossFn, lossFnConfig }: Pass): Effect.Effect<Record<string, number>, OperationFailed> =>
  Effect.map(
    Effect.forEach(Object.entries(lossFnConfig), ([key, value]) =>
      typeof value === "number"
        ? Effect.succeed([key, value] as const)
        : Effect.fail(failed(`setting ${key} of ${lossFn} is ${JSON.stringify(value.slice(0, 80))}, no number`, "user"))
    ),
    Object.fromEntries
  )

const toOptions = Effect.fnUntraced(function* (pass: Pass) {
  yield* checkSparseSizes(pass)
  const data = yield* Effect.forEach(pass.data, toModelDatum)
  return { data, loss: pass.lossFn, lossConfig: yield* toNumbers(pass) }
})

export interface AdamParams {
  readonly learning_rate: number
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  readonly weight_decay: number
  readonly grad_clip_norm: number
}

/** The state of one model in memory. Operations of one model never overlap. */
export interface Trainee {
  readonly config: LanguageModel.ModelConfig
  readonly pass: (pass: Pass, gradients: boolean) => Effect.Effect<PassResult, OperationFailed>
  readonly step: (adam: AdamParams) => Effect.Effect<Readonly<Record<string, number>>, OperationFailed>
  readonly snapshot: LanguageModel.Snapshot | undefined
  readonly stateHash: string
  readonly weightsHash: string
}

const ofModel = (model: LanguageModel.LanguageModel): Trainee => ({
  config: model.config,
  pass: (pass, gradients) =>
    Effect.flatMap(toOptions(pass), (options) =>
      Effect.mapError(
        gradients ? LanguageModel.forwardBackward(model, options) : LanguageModel.forward(model, options),
        rejected
      )
    ),
  step: (adam) =>
    Optimizer.step(model, {
      learningRate: adam.learning_rate,
      beta1: adam.beta1,
      beta2: adam.beta2,
      eps: adam.eps,
      weightDecay: adam.weight_decay,
      gradClipNorm: adam.grad_clip_norm
    }).pipe(
      Effect.map((metrics) => ({
        step: metrics.step,
        learning_rate: metrics.learningRate,
        grad_norm: metrics.gradientNorm,
        clip_scale: metrics.clipScale
      })),
      Effect.mapError(rejected)
    ),
  get snapshot() {
    return LanguageModel.snapshot(model, { optimizer: true })
  },
  get stateHash() {
    return LanguageModel.stateHash(model)
  },
  get weightsHash() {
    return LanguageModel.weightsHash(model)
  }
})

/** A fresh model. */
export const make = (config: LanguageModel.ModelConfig): Effect.Effect<Trainee, OperationFailed> =>
  Effect.mapBoth(LanguageModel.make(config), { onFailure: rejected, onSuccess: ofModel })

/** A model with the weights and, where asked for, the optimizer of a checkpoint; it takes over the checkpoint's seed. */
export const restore = (
  snapshot: LanguageModel.Snapshot,
  options: { readonly optimizer: boolean }
): Effect.Effect<Trainee, OperationFailed> =>
  LanguageModel.make(snapshot.config).pipe(
    Effect.tap((model) => LanguageModel.restore(model, snapshot, options)),
    Effect.mapBoth({ onFailure: (error) => failed(error.message, "server"), onSuccess: ofModel })
  )

/** Answers without computing: outputs of the right shape, all zero. `hash` stands in for the state. */
export const idle = (config: LanguageModel.ModelConfig, hash: () => string): Trainee => ({
  config,
  pass: (pass) =>
    Effect.map(checkSparseSizes(pass), () => ({
      loss: 0,
      logprobs: pass.data.map(({ lossFnInputs: { target_tokens: targets } }) => {
        const entries = targets?.csr === undefined ? targets?.data.length : sizeOf(targets)
        return new Float32Array(entries ?? 0)
      })
    })),
  step: (adam) => Effect.succeed({ learning_rate: adam.learning_rate }),
  snapshot: undefined,
  get stateHash() {
    return hash()
  },
  get weightsHash() {
    return hash()
  }
})
