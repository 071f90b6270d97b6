/** Gives a whole number from 0 to below its argument. */
export type Below = (n: number) => number

/** A small generator (mulberry32): name and seed are the whole story of a scenario. */
export const draw = (name: string, seed: number): Below => {
  let state = seed >>> 0
  for (const char of name) state = Math.imul(state ^ char.charCodeAt(0), 0x01000193) >>> 0
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) % n
  }
}

export const pick = <A>(below: Below, values: readonly [A, ...Array<A>]): A => values[below(values.length)] ?? values[0]
