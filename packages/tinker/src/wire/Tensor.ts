/**
 * A tensor as the API knows it: values in C order, a type and a shape. `csr` is present for a sparse matrix: `data` then holds
 * only the stored values, and `shape` is the dense one.
 */
export interface TensorData {
  readonly dtype: "float32" | "int64"
  readonly data: ArrayLike<number>
  readonly shape: ReadonlyArray<number>
  readonly csr?: { readonly crow: ArrayLike<number>; readonly col: ArrayLike<number> } | undefined
  /** The values of an int64 tensor of which some are beyond 2^53: `data` then holds the nearest numbers. */
  readonly exact?: BigInt64Array | undefined
}

/** A float32 tensor; one-dimensional unless a shape is given. */
export const float32 = (data: ArrayLike<number>, shape: ReadonlyArray<number> = [data.length]): TensorData => ({
  dtype: "float32",
  data,
  shape
})

/** An int64 tensor of whole numbers; one-dimensional unless a shape is given. Numbers beyond 2^53 need a `BigInt64Array`. */
export const int64 = (
  data: ArrayLike<number> | BigInt64Array,
  shape: ReadonlyArray<number> = [data.length]
): TensorData => ({ dtype: "int64", ...(data instanceof BigInt64Array ? fromBigInts(data) : { data }), shape })

/** 64-bit numbers as numbers, and beside them as they are where that loses something. */
export const fromBigInts = (exact: BigInt64Array): Pick<TensorData, "data" | "exact"> => {
  const data = Float64Array.from(exact, Number)
  return data.every(Number.isSafeInteger) ? { data } : { data, exact }
}

/** The sixteen upper bits of each float32, as bfloat16 has them; one-dimensional unless a shape is given. */
export const bfloat16 = (halves: Uint16Array, shape: ReadonlyArray<number> = [halves.length]): TensorData => {
  const words = new Uint32Array(halves.length)
  for (let i = 0; i < halves.length; i++) words[i] = (halves[i] as number) << 16 // the index is below the length
  return float32(new Float32Array(words.buffer), shape)
}
