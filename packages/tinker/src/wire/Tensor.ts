/**
 * A tensor as the API knows it: values in C order, a type and a shape. `csr` is present for a sparse matrix: `data` then holds
 * only the stored values, and `shape` is the dense one.
 */
export interface TensorData {
  readonly dtype: "float32" | "int64"
  readonly data: ArrayLike<number>
  readonly shape: ReadonlyArray<number>
  readonly csr?: { readonly crow: ArrayLike<number>; readonly col: ArrayLike<number> } | undefined
}

/** A float32 tensor; one-dimensional unless a shape is given. */
export const float32 = (data: ArrayLike<number>, shape: ReadonlyArray<number> = [data.length]): TensorData => ({
  dtype: "float32",
  data,
  shape
})

/** An int64 tensor of exact whole numbers (below 2^53); one-dimensional unless a shape is given. */
export const int64 = (data: ArrayLike<number>, shape: ReadonlyArray<number> = [data.length]): TensorData => ({
  dtype: "int64",
  data,
  shape
})
