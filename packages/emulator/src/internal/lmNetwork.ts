import type { TokenLoss } from "./lmLoss.ts"
import { accumulate, apply, applyTransposed, block } from "./lmMatrix.ts"
import { type BaseModel, type BaseWeights, type ModuleTable, vocabRows, vocabSize } from "./lmShape.ts"

/*
 * The network, with e = embedding row, norm(x) = x / rms(x) and all matrices as out x in:
 *
 *   a = norm(e)            q, k, v = Wq a, Wk a, Wv a
 *   S = decay S + k v'     x = e + Wo S'q / sqrt(d)        (a running sum over the past: causal, linear in the length)
 *   y = x + Wdown silu(Wup norm(x))
 *   logits = Wunembed norm(y)
 *
 * Gradients are those of the effective weights (base plus low-rank product). The embedding is frozen and comes first, so the
 * backward pass ends at q, k and v.
 */

const decay = 0.8
const epsilon = 1e-6

/** Rows that a sequence takes up in memory. The rows beyond its length hold zeros and add zero to every gradient. */
const padded = (length: number): number => Math.ceil(length / block) * block

/** Scratch memory for sequences of a bounded length. Nothing in it survives from one sequence to the next. */
export interface Workspace {
  readonly a: Float64Array
  readonly q: Float64Array
  readonly k: Float64Array
  readonly v: Float64Array
  readonly mixed: Float64Array
  readonly x: Float64Array
  readonly xScale: Float64Array
  readonly xNormed: Float64Array
  readonly pre: Float64Array
  readonly act: Float64Array
  readonly y: Float64Array
  readonly yScale: Float64Array
  readonly yNormed: Float64Array
  readonly dNormed: Float64Array
  readonly dx: Float64Array
  readonly dMixed: Float64Array
  readonly dHidden: Float64Array
  readonly dq: Float64Array
  readonly dk: Float64Array
  readonly dv: Float64Array
  readonly memory: Float64Array
  readonly logits: Float64Array
}

export const workspace = (base: BaseModel, longest: number): Workspace => {
  const rows = (width: number) => new Float64Array(padded(longest) * width)
  const d = base.dimension
  return {
    a: rows(d),
    q: rows(d),
    k: rows(d),
    v: rows(d),
    mixed: rows(d),
    x: rows(d),
    xScale: rows(1),
    xNormed: rows(d),
    pre: rows(base.hidden),
    act: rows(base.hidden),
    y: rows(d),
    yScale: rows(1),
    yNormed: rows(d),
    dNormed: rows(d),
    dx: rows(d),
    dMixed: rows(d),
    dHidden: rows(base.hidden),
    dq: rows(d),
    dk: rows(d),
    dv: rows(d),
    memory: new Float64Array(d * d),
    logits: new Float64Array(block * vocabRows)
  }
}

/** y[r] = x[r] / rms(x[r]); the factors go to `scales`. */
const normalise = (d: number, rows: number, x: Float64Array, y: Float64Array, scales: Float64Array): void => {
  for (let r = 0; r < rows; r++) {
    const at = r * d
    let sum = 0
    for (let i = at; i < at + d; i++) sum += x[i]! * x[i]!
    const scale = 1 / Math.sqrt(sum / d + epsilon)
    for (let i = at; i < at + d; i++) y[i] = x[i]! * scale
    scales[r] = scale
  }
}

/** dx[r] += the gradient through `normalise`, whose output was y. */
const normaliseBackward = (
  d: number,
  rows: number,
  dy: Float64Array,
  y: Float64Array,
  scales: Float64Array,
  dx: Float64Array
): void => {
  for (let r = 0; r < rows; r++) {
    const at = r * d
    const scale = scales[r]!
    let dot = 0
    for (let i = at; i < at + d; i++) dot += dy[i]! * y[i]!
    dot /= d
    for (let i = at; i < at + d; i++) dx[i]! += scale * (dy[i]! - y[i]! * dot)
  }
}

const mix = (d: number, length: number, ws: Workspace): void => {
  const { k, memory, mixed, q, v } = ws
  const attend = 1 / Math.sqrt(d)
  memory.fill(0)
  mixed.fill(0, 0, padded(length) * d)
  for (let t = 0; t < length; t++) {
    const at = t * d
    for (let i = 0, m = 0; i < d; i++) {
      const ki = k[at + i]!
      const qi = q[at + i]! * attend
      for (let j = 0; j < d; j++, m++) {
        const s = decay * memory[m]! + ki * v[at + j]!
        memory[m] = s
        mixed[at + j]! += qi * s
      }
    }
  }
}

const mixBackward = (d: number, length: number, ws: Workspace): void => {
  const { dMixed, dk, dq, dv, k, memory, q, v } = ws
  const attend = 1 / Math.sqrt(d)
  for (const gradient of [dq, dk, dv]) gradient.fill(0, 0, padded(length) * d)
  // dq needs the memory of its own position, so it is run forward once more; dk and dv need what the future read.
  memory.fill(0)
  for (let t = 0; t < length; t++) {
    const at = t * d
    for (let i = 0, m = 0; i < d; i++) {
      const ki = k[at + i]!
      let sum = 0
      for (let j = 0; j < d; j++, m++) {
        const s = decay * memory[m]! + ki * v[at + j]!
        memory[m] = s
        sum += s * dMixed[at + j]!
      }
      dq[at + i] = sum * attend
    }
  }
  memory.fill(0)
  for (let t = length - 1; t >= 0; t--) {
    const at = t * d
    for (let i = 0, m = 0; i < d; i++) {
      const qi = q[at + i]! * attend
      const ki = k[at + i]!
      let sum = 0
      for (let j = 0; j < d; j++, m++) {
        const s = decay * memory[m]! + qi * dMixed[at + j]!
        memory[m] = s
        sum += s * v[at + j]!
        dv[at + j]! += s * ki
      }
      dk[at + i] = sum
    }
  }
}

const forwardBody = (
  base: BaseModel,
  frozen: BaseWeights,
  w: ModuleTable<Float64Array>,
  ws: Workspace,
  tokens: ArrayLike<number>
): void => {
  const d = base.dimension
  const h = base.hidden
  const rows = padded(tokens.length)
  const { act, pre, x, y } = ws
  for (let t = 0; t < tokens.length; t++) {
    const row = tokens[t]! * d
    for (let i = 0; i < d; i++) x[t * d + i] = frozen.embedding[row + i]!
  }
  x.fill(0, tokens.length * d, rows * d)
  normalise(d, rows, x, ws.a, ws.xScale)
  apply(w.q, d, d, rows, ws.a, 0, ws.q, 0)
  apply(w.k, d, d, rows, ws.a, 0, ws.k, 0)
  apply(w.v, d, d, rows, ws.a, 0, ws.v, 0)
  mix(d, tokens.length, ws)
  apply(w.o, d, d, rows, ws.mixed, 0, y, 0)
  for (let i = 0; i < rows * d; i++) x[i]! += y[i]!
  normalise(d, rows, x, ws.xNormed, ws.xScale)
  apply(w.up, h, d, rows, ws.xNormed, 0, pre, 0)
  for (let i = 0; i < rows * h; i++) act[i] = pre[i]! / (1 + Math.exp(-pre[i]!))
  apply(w.down, d, h, rows, act, 0, y, 0)
  for (let i = 0; i < rows * d; i++) y[i]! += x[i]!
  normalise(d, rows, y, ws.yNormed, ws.yScale)
}

/** Where a sequence stands in the loss: `width` targets for each position, row after row. */
export interface Targets {
  readonly tokens: ArrayLike<number>
  readonly width: number
}

/** Log-probabilities of the targets, the summed loss and, with `back`, everything down to the normed output rows. */
const head = (
  d: number,
  w: Float64Array,
  ws: Workspace,
  length: number,
  targets: Targets,
  loss: TokenLoss,
  logprobs: Float64Array,
  back: { readonly gradient: Float64Array | undefined } | undefined
): number => {
  const { dNormed, logits, yNormed } = ws
  const { tokens, width } = targets
  const chosen = new Float64Array(width)
  const slopes = new Float64Array(width)
  let total = 0
  for (let first = 0; first < length; first += block) {
    apply(w, vocabRows, d, block, yNormed, first * d, logits, 0)
    let active = false
    for (let b = 0; b < block; b++) {
      const t = first + b
      const row = b * vocabRows
      let slope = 0
      let sum = 1
      let flat = true
      if (t < length) {
        let max = -Infinity
        for (let o = row; o < row + vocabSize; o++) if (logits[o]! > max) max = logits[o]!
        for (let k = 0; k < width; k++) chosen[k] = logits[row + tokens[t * width + k]!]!
        sum = 0
        for (let o = row; o < row + vocabSize; o++) {
          const e = Math.exp(logits[o]! - max)
          logits[o] = e
          sum += e
        }
        for (let k = 0, i = t * width; k < width; k++, i++) {
          const p = chosen[k]! - max - Math.log(sum)
          logprobs[i] = p
          total += loss.value(p, i)
          if (back === undefined) continue
          const own = loss.slope(p, i)
          slopes[k] = own
          slope += own
          if (own !== 0) flat = false
        }
      }
      if (back === undefined) continue
      // From probabilities to the gradient: the sum of slope * (one-hot - softmax). Without a slope the row takes no part.
      if (flat) {
        logits.fill(0, row, row + vocabRows)
        continue
      }
      active = true
      const share = -slope / sum
      for (let o = row; o < row + vocabSize; o++) logits[o]! *= share
      for (let k = 0; k < width; k++) logits[row + tokens[t * width + k]!]! += slopes[k]!
      logits.fill(0, row + vocabSize, row + vocabRows)
    }
    if (back === undefined) continue
    if (active) {
      applyTransposed(w, vocabRows, d, block, logits, 0, dNormed, first * d)
      accumulate(back.gradient, vocabRows, d, block, logits, 0, yNormed, first * d)
    } else {
      dNormed.fill(0, first * d, (first + block) * d)
    }
  }
  return total
}

const backwardBody = (
  base: BaseModel,
  w: ModuleTable<Float64Array>,
  gradients: ModuleTable<Float64Array | undefined>,
  ws: Workspace,
  length: number
): void => {
  const d = base.dimension
  const h = base.hidden
  const rows = padded(length)
  const { dHidden, dNormed, dx, pre } = ws
  dx.fill(0, 0, rows * d)
  normaliseBackward(d, rows, dNormed, ws.yNormed, ws.yScale, dx)
  accumulate(gradients.down, d, h, rows, dx, 0, ws.act, 0)
  applyTransposed(w.down, d, h, rows, dx, 0, dHidden, 0)
  for (let i = 0; i < rows * h; i++) {
    const z = pre[i]!
    const sigmoid = 1 / (1 + Math.exp(-z))
    dHidden[i]! *= sigmoid * (1 + z * (1 - sigmoid))
  }
  accumulate(gradients.up, h, d, rows, dHidden, 0, ws.xNormed, 0)
  if (gradients.q === undefined) return
  applyTransposed(w.up, h, d, rows, dHidden, 0, dNormed, 0)
  normaliseBackward(d, rows, dNormed, ws.xNormed, ws.xScale, dx)
  accumulate(gradients.o, d, d, rows, dx, 0, ws.mixed, 0)
  applyTransposed(w.o, d, d, rows, dx, 0, ws.dMixed, 0)
  mixBackward(d, length, ws)
  accumulate(gradients.q, d, d, rows, ws.dq, 0, ws.a, 0)
  accumulate(gradients.k, d, d, rows, ws.dk, 0, ws.a, 0)
  accumulate(gradients.v, d, d, rows, ws.dv, 0, ws.a, 0)
}

/**
 * One sequence through the network. Adds the gradients of its loss to `gradients` when given, and returns the loss summed over
 * its positions. Tokens and targets are trusted to be in range.
 */
export const runSequence = (options: {
  readonly base: BaseModel
  readonly frozen: BaseWeights
  readonly weights: ModuleTable<Float64Array>
  readonly workspace: Workspace
  readonly tokens: ArrayLike<number>
  readonly targets: Targets
  readonly loss: TokenLoss
  readonly logprobs: Float64Array
  readonly gradients: ModuleTable<Float64Array | undefined> | undefined
}): number => {
  const { base, gradients, weights, workspace: ws } = options
  forwardBody(base, options.frozen, weights, ws, options.tokens)
  const back = gradients === undefined ? undefined : { gradient: gradients.unembed }
  const { logprobs, loss, targets, tokens } = options
  const total = head(base.dimension, weights.unembed, ws, tokens.length, targets, loss, logprobs, back)
  const below = gradients !== undefined && (gradients.q ?? gradients.up) !== undefined
  if (below) backwardBody(base, weights, gradients, ws, options.tokens.length)
  return total
}
