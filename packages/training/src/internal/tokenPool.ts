export interface TokenRow {
  readonly tokens: ArrayLike<number>
  /** So many tokens at the beginning are given, not learned. */
  readonly given: number
}

/** Keeps rows of tokens in one piece of memory, since a million small arrays would cost more than what is in them. */
export const tokenPool = () => {
  let tokens = new Int32Array(1 << 14)
  const starts = [0]
  const givens: Array<number> = []
  return {
    get length() {
      return givens.length
    },
    add: (row: TokenRow): void => {
      const start = starts[givens.length] ?? 0
      const end = start + row.tokens.length
      if (end > tokens.length) {
        const larger = new Int32Array(Math.max(end, tokens.length * 2))
        larger.set(tokens)
        tokens = larger
      }
      tokens.set(row.tokens, start)
      starts.push(end)
      givens.push(row.given)
    },
    at: (index: number) => ({
      tokens: tokens.subarray(starts[index] ?? 0, starts[index + 1] ?? 0),
      given: givens[index] ?? 0
    })
  }
}
