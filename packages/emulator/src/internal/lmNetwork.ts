import type { TokenLoss } from "./lmLoss.ts"
import { type BaseModel, type BaseWeights, type ModuleTable, vocabSize } from "./lmShape.ts"

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
/** Output rows are computed for this many positions at a time: one read of a weight serves them all. */
const block = 4

/** Scratch memory for sequences up to `capacity` tokens. Nothing in it survives from one sequence to the next. */
export interface Workspace {
  readonly capacity: number
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
  readonly slopes: Float64Array
}

export const workspace = (base: BaseModel, longest: number): Workspace => {
  const capacity = Math.ceil(longest / block) * block
  const rows = (width: number) => new Float64Array(capacity * width)
  const d = base.dimension
  return {
    capacity,
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
    yScale: rows(1),
    yNormed: rows(d),
    dNormed: rows(d),
    dx: rows(d),
    dMixed: rows(d),
    dHidden: new Float64Array(base.hidden),
    dq: rows(d),
    dk: rows(d),
    dv: rows(d),
    memory: new Float64Array(d * d),
    logits: new Float64Array(block * vocabSize),
    slopes: new Float64Array(block)
  }
}

/** y[yo..] = W x[xo..] */
const apply = (
  w: Float64Array,
  outs: number,
  ins: number,
  x: Float64Array,
  xo: number,
  y: Float64Array,
  yo: number
): void => {
  for (let o = 0, at = 0; o < outs; o++) {
    let s0 = 0
    let s1 = 0
    let s2 = 0
    let s3 = 0
    for (let i = 0; i < ins; i += 4, at += 4) {
      s0 += w[at]! * x[xo + i]!
      s1 += w[at + 1]! * x[xo + i + 1]!
      s2 += w[at + 2]! * x[xo + i + 2]!
      s3 += w[at + 3]! * x[xo + i + 3]!
    }
    y[yo + o] = s0 + s1 + (s2 + s3)
  }
}

/** dx[dxo..] = W' dy[dyo..] */
const applyTransposed = (
  w: Float64Array,
  outs: number,
  ins: number,
  dy: Float64Array,
  dyo: number,
  dx: Float64Array,
  dxo: number
): void => {
  dx.fill(0, dxo, dxo + ins)
  for (let o = 0, at = 0; o < outs; o++) {
    const c = dy[dyo + o]!
    for (let i = 0; i < ins; i++, at++) dx[dxo + i]! += c * w[at]!
  }
}

/** G += dy x', summed over `length` positions in order. */
const accumulateOuter = (
  g: Float64Array | undefined,
  outs: number,
  ins: number,
  dy: Float64Array,
  dyo: number,
  x: Float64Array,
  xo: number
): void => {
  if (g === undefined) return
  for (let o = 0, at = 0; o < outs; o++) {
    const c = dy[dyo + o]!
    for (let i = 0; i < ins; i++, at++) g[at]! += c * x[xo + i]!
  }
}

/** y = x / rms(x); returns 1 / rms(x). */
const normalise = (x: Float64Array, y: Float64Array, at: number, d: number): number => {
  let sum = 0
  for (let i = at; i < at + d; i++) sum += x[i]! * x[i]!
  const scale = 1 / Math.sqrt(sum / d + epsilon)
  for (let i = at; i < at + d; i++) y[i] = x[i]! * scale
  return scale
}

/** dx (+)= the gradient through `normalise`, whose output was y with the given scale. */
const normaliseBackward = (
  dy: Float64Array,
  y: Float64Array,
  scale: number,
  dx: Float64Array,
  at: number,
  d: number,
  add: boolean
): void => {
  let dot = 0
  for (let i = at; i < at + d; i++) dot += dy[i]! * y[i]!
  dot /= d
  for (let i = at; i < at + d; i++) {
    const g = scale * (dy[i]! - y[i]! * dot)
    dx[i] = add ? dx[i]! + g : g
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
  const { a, k, memory, mixed, q, v, x } = ws
  const attend = 1 / Math.sqrt(d)
  memory.fill(0)
  for (let t = 0; t < tokens.length; t++) {
    const at = t * d
    const row = tokens[t]! * d
    for (let i = 0; i < d; i++) x[at + i] = frozen.embedding[row + i]!
    normalise(x, a, at, d)
    apply(w.q, d, d, a, at, q, at)
    apply(w.k, d, d, a, at, k, at)
    apply(w.v, d, d, a, at, v, at)
    mixed.fill(0, at, at + d)
    for (let i = 0, m = 0; i < d; i++) {
      const ki = k[at + i]!
      const qi = q[at + i]! * attend
      for (let j = 0; j < d; j++, m++) {
        const s = decay * memory[m]! + ki * v[at + j]!
        memory[m] = s
        mixed[at + j]! += qi * s
      }
    }
    // dNormed and pre are free until the backward pass, which does not need what is put here.
    apply(w.o, d, d, mixed, at, ws.dNormed, at)
    for (let i = at; i < at + d; i++) x[i]! += ws.dNormed[i]!
    ws.xScale[t] = normalise(x, ws.xNormed, at, d)
    apply(w.up, h, d, ws.xNormed, at, ws.pre, t * h)
    for (let i = t * h; i < (t + 1) * h; i++) ws.act[i] = ws.pre[i]! / (1 + Math.exp(-ws.pre[i]!))
    apply(w.down, d, h, ws.act, t * h, ws.dNormed, at)
    for (let i = at; i < at + d; i++) ws.dNormed[i]! += x[i]!
    ws.yScale[t] = normalise(ws.dNormed, ws.yNormed, at, d)
  }
  // Rows that fill up the last block: they are computed and never read.
  ws.yNormed.fill(0, tokens.length * d, Math.ceil(tokens.length / block) * block * d)
}

/** Log-probabilities of the targets, the summed loss and, with `gradients`, everything down to the normed output rows. */
const head = (
  d: number,
  w: Float64Array,
  ws: Workspace,
  targets: ArrayLike<number>,
  loss: TokenLoss,
  logprobs: Float64Array,
  back: { readonly gradient: Float64Array | undefined } | undefined
): number => {
  const { dNormed, logits, slopes, yNormed } = ws
  const length = targets.length
  let total = 0
  for (let first = 0; first < length; first += block) {
    const f0 = first * d
    const f1 = f0 + d
    const f2 = f1 + d
    const f3 = f2 + d
    for (let o = 0, at = 0; o < vocabSize; o++) {
      let s0 = 0
      let s1 = 0
      let s2 = 0
      let s3 = 0
      for (let i = 0; i < d; i++, at++) {
        const c = w[at]!
        s0 += c * yNormed[f0 + i]!
        s1 += c * yNormed[f1 + i]!
        s2 += c * yNormed[f2 + i]!
        s3 += c * yNormed[f3 + i]!
      }
      logits[o] = s0
      logits[vocabSize + o] = s1
      logits[2 * vocabSize + o] = s2
      logits[3 * vocabSize + o] = s3
    }
    let active = false
    for (let b = 0; b < block; b++) {
      slopes[b] = 0
      const t = first + b
      if (t >= length) continue
      const row = b * vocabSize
      const target = targets[t]!
      let max = -Infinity
      for (let o = row; o < row + vocabSize; o++) if (logits[o]! > max) max = logits[o]!
      const chosen = logits[row + target]!
      let sum = 0
      for (let o = row; o < row + vocabSize; o++) {
        const e = Math.exp(logits[o]! - max)
        logits[o] = e
        sum += e
      }
      const p = chosen - max - Math.log(sum)
      logprobs[t] = p
      total += loss.value(p, t)
      if (back === undefined) continue
      const slope = loss.slope(p, t)
      slopes[b] = slope
      if (slope === 0) continue
      active = true
      const share = slope / sum
      for (let o = row; o < row + vocabSize; o++) logits[o]! *= -share
      logits[row + target]! += slope
    }
    if (back === undefined) continue
    dNormed.fill(0, f0, f0 + block * d)
    if (!active) continue
    for (let b = 0; b < block; b++) {
      if (slopes[b] === 0) logits.fill(0, b * vocabSize, (b + 1) * vocabSize)
    }
    const g = back.gradient
    for (let o = 0; o < vocabSize; o++) {
      const c0 = logits[o]!
      const c1 = logits[vocabSize + o]!
      const c2 = logits[2 * vocabSize + o]!
      const c3 = logits[3 * vocabSize + o]!
      const at = o * d
      for (let i = 0; i < d; i++) {
        const c = w[at + i]!
        dNormed[f0 + i]! += c0 * c
        dNormed[f1 + i]! += c1 * c
        dNormed[f2 + i]! += c2 * c
        dNormed[f3 + i]! += c3 * c
      }
      if (g === undefined) continue
      for (let i = 0; i < d; i++) {
        g[at + i]! += c0 * yNormed[f0 + i]! + c1 * yNormed[f1 + i]! + (c2 * yNormed[f2 + i]! + c3 * yNormed[f3 + i]!)
      }
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
  const { a, dHidden, dMixed, dNormed, dk, dq, dv, dx, k, memory, q, v } = ws
  const attend = 1 / Math.sqrt(d)
  for (let t = 0; t < length; t++) {
    const at = t * d
    const ht = t * h
    normaliseBackward(dNormed, ws.yNormed, ws.yScale[t]!, dx, at, d, false)
    accumulateOuter(gradients.down, d, h, dx, at, ws.act, ht)
    applyTransposed(w.down, d, h, dx, at, dHidden, 0)
    for (let i = 0; i < h; i++) {
      const z = ws.pre[ht + i]!
      const sigmoid = 1 / (1 + Math.exp(-z))
      dHidden[i]! *= sigmoid * (1 + z * (1 - sigmoid))
    }
    accumulateOuter(gradients.up, h, d, dHidden, 0, ws.xNormed, at)
    applyTransposed(w.up, h, d, dHidden, 0, dNormed, at)
    normaliseBackward(dNormed, ws.xNormed, ws.xScale[t]!, dx, at, d, true)
    accumulateOuter(gradients.o, d, d, dx, at, ws.mixed, at)
    applyTransposed(w.o, d, d, dx, at, dMixed, at)
  }
  if (gradients.q === undefined) return
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
    dv.fill(0, at, at + d)
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
  for (let t = 0; t < length; t++) {
    const at = t * d
    accumulateOuter(gradients.q, d, d, dq, at, a, at)
    accumulateOuter(gradients.k, d, d, dk, at, a, at)
    accumulateOuter(gradients.v, d, d, dv, at, a, at)
  }
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
  readonly targets: ArrayLike<number>
  readonly loss: TokenLoss
  readonly logprobs: Float64Array
  readonly gradients: ModuleTable<Float64Array | undefined> | undefined
}): number => {
  const { base, gradients, weights, workspace: ws } = options
  forwardBody(base, options.frozen, weights, ws, options.tokens)
  const total = head(
    base.dimension,
    weights.unembed,
    ws,
    options.targets,
    options.loss,
    options.logprobs,
    gradients === undefined ? undefined : { gradient: gradients.unembed }
  )
  const below = gradients !== undefined && (gradients.q ?? gradients.up) !== undefined
  if (below) backwardBody(base, weights, gradients, ws, options.tokens.length)
  return total
}
