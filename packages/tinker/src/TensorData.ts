/**
 * Values with a type and a shape, as losses take and give them.
 *
 * The API knows two types. Numbers of JavaScript become either by what they stand for; typed arrays by what they hold: floats
 * become float32, signed whole numbers int64, and unsigned ones and booleans are refused, since nobody can tell what was meant.
 * A typed array of the right kind is used as it is; nothing is ever written into what was given.
 */
import * as Result from "effect/Result"
import { InvalidInput, TinkerError } from "./TinkerError.ts"
import { float32, int64, type TensorData } from "./wire/Tensor.ts"

export * from "./wire/Tensor.ts"

/** Numbers, or lists of them that are equally long, or lists of such lists, and so on. */
export type Nested = number | ReadonlyArray<Nested>

/** Whatever can become a tensor without being told a shape. */
export type Values =
  | ReadonlyArray<Nested>
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array

/**
 * A tensor of the given type; of lists of lists it has as many dimensions. Fails with `InvalidInput` for ragged lists, for what is
 * no number, and for types that the API does not know.
 */
export const make = (dtype: TensorData["dtype"], values: Values): Result.Result<TensorData, TinkerError> => {
  if (ArrayBuffer.isView(values)) {
    const told = fromTyped(values)
    if (Result.isFailure(told) || told.success.dtype === dtype) return told
    return invalid(`is an array of ${told.success.dtype} where ${dtype} is due: convert it`)
  }
  const shape = shapeOf(values)
  if (typeof shape === "string") return invalid(shape)
  const data: ReadonlyArray<unknown> = shape.length === 1 ? values : flatten(values)
  const wrong = data.findIndex((value) => typeof value !== "number")
  if (wrong >= 0) return invalid(`has ${String(data[wrong])} at ${wrong}, which is no number`)
  // Each was found to be a number.
  const numbers = data as ReadonlyArray<number>
  return Result.succeed(dtype === "int64" ? int64(numbers, shape) : float32(numbers, shape))
}

/** The tensor that a typed array is, one-dimensional unless a shape is given. Fails with `InvalidInput` for unsigned numbers. */
export const fromTyped = (
  values: ArrayBufferView,
  shape?: ReadonlyArray<number>
): Result.Result<TensorData, TinkerError> => {
  if (values instanceof Float32Array) return Result.succeed(float32(values, shape))
  if (values instanceof Float64Array) return Result.succeed(float32(values, shape))
  if (values instanceof BigInt64Array) return Result.succeed(int64(values, shape))
  if (values instanceof Int32Array || values instanceof Int16Array || values instanceof Int8Array) {
    return Result.succeed(int64(values, shape))
  }
  const name = Object.prototype.toString.call(values).slice(8, -1)
  return invalid(`is a ${name}, and must hold floats or signed whole numbers (Int32Array, BigInt64Array, Float32Array)`)
}

/** The same matrix with only the values that are not 0, where it has two dimensions and that makes it smaller. */
export const toSparse = (tensor: TensorData): TensorData => {
  const [rows, columns] = tensor.shape
  if (tensor.csr !== undefined || tensor.exact !== undefined || rows === undefined || columns === undefined)
    return tensor
  if (tensor.shape.length !== 2 || tensor.data.length !== rows * columns) return tensor
  let stored = 0
  // Every index here is below the length.
  for (let i = 0; i < tensor.data.length; i++) if (tensor.data[i] !== 0) stored++
  if (rows + 1 + 2 * stored >= rows * columns) return tensor
  const data = new Float64Array(stored)
  const col = new Int32Array(stored)
  const crow = new Int32Array(rows + 1)
  let at = 0
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = tensor.data[row * columns + column] as number
      if (value === 0) continue
      data[at] = value
      col[at++] = column
    }
    crow[row + 1] = at
  }
  return { dtype: tensor.dtype, data, shape: tensor.shape, csr: { crow, col } }
}

/** The same matrix with every value. */
export const toDense = (tensor: TensorData): TensorData => {
  const { csr, data, dtype, exact, shape } = tensor
  if (csr === undefined) return tensor
  const [rows = 0, columns = 0] = shape
  const dense = new Float64Array(rows * columns)
  const wide = exact === undefined ? undefined : new BigInt64Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    // Row pointers and columns are as many as the wire checks them to be.
    for (let i = csr.crow[row] as number; i < (csr.crow[row + 1] as number); i++) {
      const at = row * columns + (csr.col[i] as number)
      dense[at] = data[i] as number
      if (wide !== undefined) wide[at] = exact?.[i] ?? 0n
    }
  }
  return { dtype, data: dense, shape, ...(wide === undefined ? {} : { exact: wide }) }
}

const flatten = (values: ReadonlyArray<unknown>): ReadonlyArray<unknown> => values.flat(Number.POSITIVE_INFINITY)

/** The lengths of nested lists, outermost first, or what is wrong with them. */
const shapeOf = (values: ReadonlyArray<Nested>): ReadonlyArray<number> | string => {
  const shape = [values.length]
  let level = values
  while (level.some(Array.isArray)) {
    const lists = level.filter((one): one is ReadonlyArray<Nested> => Array.isArray(one))
    const size = lists[0]?.length ?? 0
    if (lists.length < level.length || lists.some((list) => list.length !== size)) {
      return "is a ragged list: ragged nested lists are not supported, every row must be equally long"
    }
    shape.push(size)
    level = lists.flat(1)
  }
  return shape
}

const invalid = (problem: string) =>
  Result.fail(new TinkerError({ reason: new InvalidInput({ operation: "A tensor", field: "values", problem }) }))
