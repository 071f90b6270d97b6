import { type BaseModel, type BaseWeights, type ModuleTable, vocabSize } from "./lmShape.ts"

/*
 * The network of lmNetwork one token at a time: the running sum over the past is all that a next token needs. Every number is
 * computed by the same operations in the same order, so that the log-probabilities are those of a pass, bit for bit.
 */

const decay = 0.8
const epsilon = 1e-6

const times = (w: Float64Array, outs: number, ins: number, x: Float64Array, y: Float64Array): void => {
  for (let o = 0, at = 0; o < outs; o++, at += ins) {
    let sum = 0
    for (let i = 0; i < ins; i++) sum += w[at + i]! * x[i]!
    y[o] = sum
  }
}

const normalise = (d: number, x: Float64Array, y: Float64Array): void => {
  let sum = 0
  for (let i = 0; i < d; i++) sum += x[i]! * x[i]!
  const scale = 1 / Math.sqrt(sum / d + epsilon)
  for (let i = 0; i < d; i++) y[i] = x[i]! * scale
}

/** Reads tokens one after another; `logits` then are those of the next one. */
export class Decoder {
  private readonly base: BaseModel
  private readonly frozen: BaseWeights
  private readonly weights: ModuleTable<Float64Array>
  private readonly memory: Float64Array
  private readonly x: Float64Array
  private readonly normed: Float64Array
  private readonly q: Float64Array
  private readonly k: Float64Array
  private readonly v: Float64Array
  private readonly mixed: Float64Array
  private readonly hidden: Float64Array
  private readonly y: Float64Array
  /** Of the next token, by token id; valid after `project`. */
  readonly logits = new Float64Array(vocabSize)

  constructor(base: BaseModel, frozen: BaseWeights, weights: ModuleTable<Float64Array>) {
    const d = base.dimension
    this.base = base
    this.frozen = frozen
    this.weights = weights
    this.memory = new Float64Array(d * d)
    this.x = new Float64Array(d)
    this.normed = new Float64Array(d)
    this.q = new Float64Array(d)
    this.k = new Float64Array(d)
    this.v = new Float64Array(d)
    this.mixed = new Float64Array(d)
    this.hidden = new Float64Array(base.hidden)
    this.y = new Float64Array(d)
  }

  /** A decoder that has read the same tokens and goes its own way from here. */
  fork(): Decoder {
    const copy = new Decoder(this.base, this.frozen, this.weights)
    copy.memory.set(this.memory)
    copy.normed.set(this.normed)
    copy.logits.set(this.logits)
    return copy
  }

  /** Reads one token, which is trusted to be in the vocabulary. */
  read(token: number): void {
    const { dimension: d, hidden: h } = this.base
    const { hidden, k, memory, mixed, normed, q, v, weights, x, y } = this
    const row = token * d
    for (let i = 0; i < d; i++) x[i] = this.frozen.embedding[row + i]!
    normalise(d, x, normed)
    times(weights.q, d, d, normed, q)
    times(weights.k, d, d, normed, k)
    times(weights.v, d, d, normed, v)
    const attend = 1 / Math.sqrt(d)
    mixed.fill(0)
    for (let i = 0, m = 0; i < d; i++) {
      const ki = k[i]!
      const qi = q[i]! * attend
      for (let j = 0; j < d; j++, m++) {
        const s = decay * memory[m]! + ki * v[j]!
        memory[m] = s
        mixed[j]! += qi * s
      }
    }
    times(weights.o, d, d, mixed, y)
    for (let i = 0; i < d; i++) x[i]! += y[i]!
    normalise(d, x, normed)
    times(weights.up, h, d, normed, hidden)
    for (let i = 0; i < h; i++) hidden[i] = hidden[i]! / (1 + Math.exp(-hidden[i]!))
    times(weights.down, d, h, hidden, y)
    for (let i = 0; i < d; i++) y[i]! += x[i]!
    normalise(d, y, normed)
  }

  /** Computes `logits`; a token that is only read does not need them. */
  project(): void {
    times(this.weights.unembed, vocabSize, this.base.dimension, this.normed, this.logits)
  }

  /** Log of the sum of the exponentials, as a pass computes it: add the greatest logit last. */
  normaliser(): { readonly max: number; readonly logSum: number } {
    const { logits } = this
    let max = -Infinity
    for (let o = 0; o < vocabSize; o++) if (logits[o]! > max) max = logits[o]!
    let sum = 0
    for (let o = 0; o < vocabSize; o++) sum += Math.exp(logits[o]! - max)
    return { max, logSum: Math.log(sum) }
  }
}
