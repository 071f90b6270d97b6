/*
 * Products with a matrix W (outs x ins) for many rows at once. Rows come in blocks of four and outputs or columns in pairs: each
 * number that is read takes part in several products, which is worth more here than fewer operations. The result for a row does
 * not depend on the other rows, down to the last bit. `rows` must be a multiple of `block`; outs and ins must be even.
 */

export const block = 4

/** y[r] = W x[r] */
export const apply = (
  w: Float64Array,
  outs: number,
  ins: number,
  rows: number,
  x: Float64Array,
  xAt: number,
  y: Float64Array,
  yAt: number
): void => {
  for (let r = 0; r < rows; r += block) {
    const x0 = xAt + r * ins
    const x1 = x0 + ins
    const x2 = x1 + ins
    const x3 = x2 + ins
    const y0 = yAt + r * outs
    const y1 = y0 + outs
    const y2 = y1 + outs
    const y3 = y2 + outs
    for (let o = 0, w0 = 0; o < outs; o += 2, w0 += 2 * ins) {
      const w1 = w0 + ins
      let a0 = 0
      let a1 = 0
      let a2 = 0
      let a3 = 0
      let b0 = 0
      let b1 = 0
      let b2 = 0
      let b3 = 0
      for (let i = 0; i < ins; i++) {
        const a = w[w0 + i]!
        const b = w[w1 + i]!
        const v0 = x[x0 + i]!
        const v1 = x[x1 + i]!
        const v2 = x[x2 + i]!
        const v3 = x[x3 + i]!
        a0 += a * v0
        a1 += a * v1
        a2 += a * v2
        a3 += a * v3
        b0 += b * v0
        b1 += b * v1
        b2 += b * v2
        b3 += b * v3
      }
      y[y0 + o] = a0
      y[y1 + o] = a1
      y[y2 + o] = a2
      y[y3 + o] = a3
      y[y0 + o + 1] = b0
      y[y1 + o + 1] = b1
      y[y2 + o + 1] = b2
      y[y3 + o + 1] = b3
    }
  }
}

/** dx[r] = W' dy[r] */
export const applyTransposed = (
  w: Float64Array,
  outs: number,
  ins: number,
  rows: number,
  dy: Float64Array,
  dyAt: number,
  dx: Float64Array,
  dxAt: number
): void => {
  for (let r = 0; r < rows; r += block) {
    const y0 = dyAt + r * outs
    const y1 = y0 + outs
    const y2 = y1 + outs
    const y3 = y2 + outs
    const x0 = dxAt + r * ins
    const x1 = x0 + ins
    const x2 = x1 + ins
    const x3 = x2 + ins
    for (let i = 0; i < ins; i += 2) {
      let a0 = 0
      let a1 = 0
      let a2 = 0
      let a3 = 0
      let b0 = 0
      let b1 = 0
      let b2 = 0
      let b3 = 0
      for (let o = 0, at = i; o < outs; o++, at += ins) {
        const a = w[at]!
        const b = w[at + 1]!
        const c0 = dy[y0 + o]!
        const c1 = dy[y1 + o]!
        const c2 = dy[y2 + o]!
        const c3 = dy[y3 + o]!
        a0 += a * c0
        a1 += a * c1
        a2 += a * c2
        a3 += a * c3
        b0 += b * c0
        b1 += b * c1
        b2 += b * c2
        b3 += b * c3
      }
      dx[x0 + i] = a0
      dx[x1 + i] = a1
      dx[x2 + i] = a2
      dx[x3 + i] = a3
      dx[x0 + i + 1] = b0
      dx[x1 + i + 1] = b1
      dx[x2 + i + 1] = b2
      dx[x3 + i + 1] = b3
    }
  }
}

/** G += the sum of dy[r] x[r]' over the rows, block after block; nothing where G is absent. */
export const accumulate = (
  g: Float64Array | undefined,
  outs: number,
  ins: number,
  rows: number,
  dy: Float64Array,
  dyAt: number,
  x: Float64Array,
  xAt: number
): void => {
  if (g === undefined) return
  for (let r = 0; r < rows; r += block) {
    const y0 = dyAt + r * outs
    const y1 = y0 + outs
    const y2 = y1 + outs
    const y3 = y2 + outs
    const x0 = xAt + r * ins
    const x1 = x0 + ins
    const x2 = x1 + ins
    const x3 = x2 + ins
    for (let o = 0, g0 = 0; o < outs; o += 2, g0 += 2 * ins) {
      const g1 = g0 + ins
      const a0 = dy[y0 + o]!
      const a1 = dy[y1 + o]!
      const a2 = dy[y2 + o]!
      const a3 = dy[y3 + o]!
      const b0 = dy[y0 + o + 1]!
      const b1 = dy[y1 + o + 1]!
      const b2 = dy[y2 + o + 1]!
      const b3 = dy[y3 + o + 1]!
      for (let i = 0; i < ins; i++) {
        const v0 = x[x0 + i]!
        const v1 = x[x1 + i]!
        const v2 = x[x2 + i]!
        const v3 = x[x3 + i]!
        g[g0 + i]! += a0 * v0 + a1 * v1 + (a2 * v2 + a3 * v3)
        g[g1 + i]! += b0 * v0 + b1 * v1 + (b2 * v2 + b3 * v3)
      }
    }
  }
}
