/**
 * Numbers that remember how they were computed, so that the gradient of a result comes by itself.
 *
 * A `Vector` is a row of numbers, or one of them. Between a row and a single number every operation works number by number; two
 * rows must be equally long. Nothing here knows of models: `CustomLoss.differentiate` makes the vectors and asks for the gradient.
 */

/** What a row of numbers was computed from: adds its part to the gradients of its sources. */
type Back = (gradient: Float64Array) => void

/** See the top of this module. Made by `constant`, by `variable`, and by computing. */
export class Vector {
  readonly values: Float64Array
  /** What to follow back, oldest first; empty where nothing depends on a variable. */
  private readonly sources: ReadonlyArray<Vector>
  private readonly back: Back | undefined
  private gradient: Float64Array | undefined

  private constructor(values: Float64Array, sources: ReadonlyArray<Vector> = [], back?: Back) {
    this.values = values
    this.sources = sources
    this.back = back
  }

  /** Numbers that no gradient is wanted of. */
  static constant(values: ArrayLike<number> | number): Vector {
    return new Vector(typeof values === "number" ? Float64Array.of(values) : Float64Array.from(values))
  }

  /** Numbers that a gradient is wanted of. */
  static variable(values: ArrayLike<number>): Vector {
    return new Vector(Float64Array.from(values), [], () => {})
  }

  get length(): number {
    return this.values.length
  }

  /** The number of a vector that has one; the first of any other. */
  get value(): number {
    return this.values[0] ?? Number.NaN
  }

  add(other: Vector | number): Vector {
    return this.combine(other, (a, b) => a + b, one, one)
  }
  sub(other: Vector | number): Vector {
    return this.combine(
      other,
      (a, b) => a - b,
      one,
      () => -1
    )
  }
  mul(other: Vector | number): Vector {
    return this.combine(
      other,
      (a, b) => a * b,
      (_, b) => b,
      (a) => a
    )
  }
  div(other: Vector | number): Vector {
    return this.combine(
      other,
      (a, b) => a / b,
      (_, b) => 1 / b,
      (a, b) => -a / (b * b)
    )
  }
  /** The smaller of each two. Where they are equal, this one counts as the smaller. */
  min(other: Vector | number): Vector {
    return this.combine(
      other,
      Math.min,
      (a, b) => (a <= b ? 1 : 0),
      (a, b) => (a <= b ? 0 : 1)
    )
  }
  /** The larger of each two. Where they are equal, this one counts as the larger. */
  max(other: Vector | number): Vector {
    return this.combine(
      other,
      Math.max,
      (a, b) => (a >= b ? 1 : 0),
      (a, b) => (a >= b ? 0 : 1)
    )
  }
  /** Brought into the bounds; numbers beyond them have no gradient. */
  clamp(low: number, high: number): Vector {
    return this.map(
      (a) => Math.min(Math.max(a, low), high),
      (a) => (a >= low && a <= high ? 1 : 0)
    )
  }
  neg(): Vector {
    return this.map(
      (a) => -a,
      () => -1
    )
  }
  exp(): Vector {
    return this.map(Math.exp, (_, y) => y)
  }
  log(): Vector {
    return this.map(Math.log, (a) => 1 / a)
  }
  square(): Vector {
    return this.map(
      (a) => a * a,
      (a) => 2 * a
    )
  }
  abs(): Vector {
    return this.map(Math.abs, Math.sign)
  }
  /** 1 / (1 + e^-x). */
  sigmoid(): Vector {
    return this.map(sigmoid, (_, y) => y * (1 - y))
  }
  /** log(1 / (1 + e^-x)), without overflow. */
  logSigmoid(): Vector {
    return this.map(
      (a) => Math.min(a, 0) - Math.log1p(Math.exp(-Math.abs(a))),
      (a) => sigmoid(-a)
    )
  }
  /** The sum of all numbers, as one. */
  sum(): Vector {
    const { values } = this
    const total = values.reduce((sum, value) => sum + value, 0)
    return this.derive(Float64Array.of(total), [this], (gradient) =>
      this.receive((into) => {
        for (let i = 0; i < into.length; i++) into[i] = at(into, i) + at(gradient, 0)
      })
    )
  }
  /** The mean of all numbers, as one; of none it is no number. */
  mean(): Vector {
    return this.sum().div(this.length)
  }
  /** The same numbers, taken for constants. */
  stopGradient(): Vector {
    return Vector.constant(this.values)
  }

  /** The gradient of the first number of `result` with respect to each of `variables`. */
  static gradients(result: Vector, variables: ReadonlyArray<Vector>): ReadonlyArray<Float64Array> {
    const order: Array<Vector> = []
    const seen = new Set<Vector>()
    // Depth first without recursion: a loss over many datums is a chain as long as the batch.
    const stack: Array<{ readonly node: Vector; next: number }> = []
    const enter = (node: Vector) => {
      if (seen.has(node)) return
      seen.add(node)
      stack.push({ node, next: 0 })
    }
    enter(result)
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const source = top.node.sources[top.next++]
      if (source !== undefined) enter(source)
      else {
        order.push(top.node)
        stack.pop()
      }
    }
    for (const node of order) node.gradient = undefined
    result.gradient = new Float64Array(result.length)
    result.gradient[0] = 1
    for (const node of order.toReversed()) if (node.gradient !== undefined) node.back?.(node.gradient)
    return variables.map((variable) =>
      seen.has(variable) && variable.gradient !== undefined ? variable.gradient : new Float64Array(variable.length)
    )
  }

  private derive(values: Float64Array, sources: ReadonlyArray<Vector>, back: Back): Vector {
    const live = sources.filter((source) => source.back !== undefined)
    return live.length === 0 ? new Vector(values) : new Vector(values, live, back)
  }

  private receive(add: (into: Float64Array) => void): void {
    if (this.back === undefined) return
    this.gradient ??= new Float64Array(this.length)
    add(this.gradient)
  }

  private map(f: (a: number) => number, slope: (a: number, y: number) => number): Vector {
    const { values } = this
    const result = values.map((value) => f(value))
    return this.derive(result, [this], (gradient) =>
      this.receive((into) => {
        for (let i = 0; i < into.length; i++)
          into[i] = at(into, i) + at(gradient, i) * slope(at(values, i), at(result, i))
      })
    )
  }

  private combine(
    given: Vector | number,
    f: (a: number, b: number) => number,
    slope: (a: number, b: number) => number,
    otherSlope: (a: number, b: number) => number
  ): Vector {
    const other = typeof given === "number" ? Vector.constant(given) : given
    const [a, b] = [this.values, other.values]
    if (a.length !== b.length && a.length !== 1 && b.length !== 1) {
      throw new RangeError(`A vector of ${a.length} numbers cannot be combined with one of ${b.length}.`)
    }
    const length = a.length === 1 ? b.length : a.length
    // A single number stands for a row of it.
    const [stepA, stepB] = [a.length === 1 ? 0 : 1, b.length === 1 ? 0 : 1]
    const result = new Float64Array(length)
    for (let i = 0; i < length; i++) result[i] = f(at(a, i * stepA), at(b, i * stepB))
    return this.derive(result, [this, other], (gradient) => {
      this.receive((into) => {
        for (let i = 0; i < length; i++) {
          const to = i * stepA
          into[to] = at(into, to) + at(gradient, i) * slope(at(a, to), at(b, i * stepB))
        }
      })
      other.receive((into) => {
        for (let i = 0; i < length; i++) {
          const to = i * stepB
          into[to] = at(into, to) + at(gradient, i) * otherSlope(at(a, i * stepA), at(b, to))
        }
      })
    })
  }
}

const one = () => 1
const sigmoid = (a: number) => 1 / (1 + Math.exp(-a))
/** Every index in this module is below the length. */
const at = (values: Float64Array, i: number): number => values[i] as number

/** Numbers that no gradient is wanted of. */
export const constant = Vector.constant

/** The sum of vectors of any number, one of them or none. */
export const total = (vectors: ReadonlyArray<Vector>): Vector =>
  vectors.reduce((sum, vector) => sum.add(vector.sum()), Vector.constant(0))
