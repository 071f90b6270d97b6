import type { ForwardBackwardOutput } from "@tinkex/tinker/TrainingClient"

/** Log-probabilities of a probe, rounded to what a float of 32 bits holds; `undefined` where the service gives none. */
export const read = (output: ForwardBackwardOutput): ReadonlyArray<number> | undefined => {
  const values: Array<number> = []
  for (const { logprobs } of output.lossFnOutputs) {
    if (logprobs === undefined) return undefined
    for (let i = 0; i < logprobs.data.length; i++) values.push(Math.fround(Number(logprobs.data[i])))
  }
  return values.every(Number.isFinite) ? values : undefined
}

/** Kernels may sum in another order from one machine to the next; a wrong weight moves more than that. */
const tolerance = 1e-3

/** What speaks against the weights being those that were saved. */
export const mismatch = (saved: ReadonlyArray<number>, loaded: ReadonlyArray<number>): string | undefined => {
  if (saved.length !== loaded.length) {
    return `a probe has ${loaded.length} log-probabilities and had ${saved.length} when it was saved`
  }
  let worst = 0
  let at = 0
  for (const [i, before] of saved.entries()) {
    const off = Math.abs((loaded[i] ?? Number.NaN) - before)
    if (!(off <= worst)) {
      worst = off
      at = i
    }
  }
  const scale = Math.max(1, Math.abs(saved[at] ?? 0))
  return worst <= tolerance * scale
    ? undefined
    : `the log-probability ${at} of a probe is off by ${worst.toPrecision(3)} from what it was when it was saved`
}
