/** `+id` up, `-id` gone, `!id` failed to start, `~id` had nothing to run, `=id reason` a supervisor ended. */
export type Trace = ReadonlyArray<string | { readonly together: ReadonlyArray<Trace> }>

/** The parts of a trace that are about supervisors' ends, or all others. */
export const part = (trace: Trace, ends: boolean): Trace =>
  trace.flatMap((item): Trace => {
    if (typeof item !== "string") return [{ together: item.together.map((trace) => part(trace, ends)) }]
    return item.startsWith("=") === ends ? [item] : []
  })

/** Everything in a trace, in one of the orders that it allows. */
export const lines = (trace: Trace): ReadonlyArray<string> =>
  trace.flatMap((item) => (typeof item === "string" ? [item] : item.together.flatMap(lines)))

/** Whether a log is one of the orders that a trace allows. */
export const allows = (trace: Trace, log: ReadonlyArray<string>): boolean => {
  let at = 0
  for (const item of trace) {
    if (typeof item === "string") {
      if (log[at++] !== item) return false
      continue
    }
    const parts = item.together.map((trace) => [trace, new Set(lines(trace))] as const)
    const size = parts.reduce((sum, [trace]) => sum + lines(trace).length, 0)
    const slice = log.slice(at, at + size)
    at += size
    const known = slice.every((line) => parts.some(([, lines]) => lines.has(line)))
    if (
      !known ||
      !parts.every(([trace, lines]) =>
        allows(
          trace,
          slice.filter((line) => lines.has(line))
        )
      )
    )
      return false
  }
  return at === log.length
}
