import { type InvalidOption, invalidOption } from "../JournalError.ts"

/** What an attempt waits for, each with a limit of its own. */
export type Section = "step" | "forward_backward" | "optim_step" | "save" | "evaluation"

export interface Limits {
  /** Milliseconds after which such a wait is suspicious; `Infinity` while nothing is known. */
  readonly of: (section: Section) => number
  readonly observe: (section: Section, millis: number) => void
}

export interface LimitsOptions {
  /** No limit is shorter, in milliseconds. */
  readonly floor: number
  /** How many times the longest wait of late. */
  readonly factor: number
  /** In milliseconds, for the first few waits of a section on the service. */
  readonly warmup: number
}

export const invalid = ({ factor, floor, warmup }: LimitsOptions): InvalidOption | undefined => {
  if (!(factor >= 1 && Number.isFinite(factor))) return invalidOption("stall.factor", factor, "must be 1 or more")
  if (!(floor > 0)) return invalidOption("stall.floor", floor, "must be a time above 0")
  return warmup > 0 ? undefined : invalidOption("stall.warmup", warmup, "must be a time above 0")
}

/** So many waits must have been seen before a section's limit is its own. */
const enough = 5
/** What was long once is forgotten by half after some 350 waits. */
const decay = 0.998

/** The limits of one run; they outlive its attempts. What the program itself does in a step or an evaluation has none at first. */
export const make = ({ factor, floor, warmup }: LimitsOptions): Limits => {
  const seen = new Map<Section, { count: number; longest: number }>()
  return {
    of: (section) => {
      const known = seen.get(section)
      if (known !== undefined && known.count >= enough) return Math.max(floor, factor * known.longest)
      return section === "step" || section === "evaluation" ? Number.POSITIVE_INFINITY : Math.max(floor, warmup)
    },
    observe: (section, millis) => {
      const known = seen.get(section) ?? { count: 0, longest: 0 }
      known.count++
      known.longest = Math.max(millis, known.longest * decay)
      seen.set(section, known)
    }
  }
}
