/** A tensor as JSON: what a sampling request holds, where requests to train are protobuf. */
import { Malformed } from "../internal/packed.ts"
import type { TensorData } from "./Tensor.ts"

const list = (values: ArrayLike<number>): string => JSON.stringify(Array.from(values))

/** A JSON object; whole numbers of any size are written digit by digit. */
export const toJson = ({ csr, data, dtype, exact, shape }: TensorData): string => {
  const values = exact === undefined ? list(data) : `[${exact.join(",")}]`
  const sparse =
    csr === undefined ? "" : `,"sparse_crow_indices":${list(csr.crow)},"sparse_col_indices":${list(csr.col)}`
  return `{"data":${values},"dtype":"${dtype}","shape":${list(shape)}${sparse}}`
}

const isNumbers = (value: unknown): value is ReadonlyArray<number> =>
  Array.isArray(value) && value.every((one) => typeof one === "number")
const isCounts = (value: unknown): value is ReadonlyArray<number> =>
  isNumbers(value) && value.every((one) => Number.isSafeInteger(one) && one >= 0)

/** From parsed JSON; throws for what is no tensor. Without a shape it has one dimension. @internal */
export const fromJson = (value: unknown, what: string): TensorData => {
  if (typeof value !== "object" || value === null) throw new Malformed(`${what} is no object`)
  const field = (key: string): unknown => Reflect.get(value, key) ?? undefined
  const data = field("data")
  const dtype = field("dtype")
  if (!isNumbers(data)) throw new Malformed(`${what} has no list of numbers`)
  if (dtype !== "int64" && dtype !== "float32") throw new Malformed(`${what} has the dtype ${JSON.stringify(dtype)}`)
  const shape = field("shape") ?? [data.length]
  if (!isCounts(shape)) throw new Malformed(`${what} has a shape that is none`)
  const crow = field("sparse_crow_indices")
  const col = field("sparse_col_indices")
  if (crow === undefined && col === undefined) {
    if (shape.reduce((all, one) => all * one, 1) === data.length) return { dtype, data, shape }
    throw new Malformed(`${what} has ${data.length} values and the shape [${shape.join(", ")}]`)
  }
  if (!isCounts(crow) || !isCounts(col) || col.length !== data.length || crow.length !== (shape[0] ?? 0) + 1) {
    throw new Malformed(`${what} is sparse and its indices do not fit`)
  }
  return { dtype, data, shape, csr: { crow, col } }
}
