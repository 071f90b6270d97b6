/**
 * When a run saves, and which of its checkpoints it keeps. Both are pure functions. What retention guarantees (RP13):
 *
 * - **CP1** the newest proven checkpoint, and everything newer, is never deletable;
 * - **CP2** nothing is deletable until a checkpoint newer than it is proven, that is, has been loaded once and worked: a listing
 *   and a size are not enough to throw away what came before;
 * - **CP3** at least `keepLast` checkpoints stay.
 *
 * The final checkpoint of a run is made by the trainer, whatever the policy says.
 */
import type * as Schema from "effect/Schema"
import { type InvalidOption, invalidOption } from "./JournalError.ts"

/** What retention needs to know of a checkpoint. */
export interface Kept {
  readonly path: string
  /** Steps applied in it. */
  readonly step: number
  /** Loaded once, and worked. */
  readonly proven: boolean
}

export interface Retention {
  /** May be deleted now, oldest first. */
  readonly deletable: ReadonlyArray<string>
  /** Proving this one would make more of them deletable; absent when nothing is too many. */
  readonly prove: string | undefined
}

export interface CheckpointPolicy {
  /** Whether a save follows step `step` (0 is the first). */
  readonly dueAfter: (step: number) => boolean
  /** What may go. `verified` are the checkpoints that could be restored, in any order. */
  readonly retain: (verified: ReadonlyArray<Kept>) => Retention
  /** The policy as data, for the journal and for people. */
  readonly config: Schema.Json
  /** What is wrong with the options, if anything is; the trainer refuses such a policy. */
  readonly invalid: InvalidOption | undefined
}

const isCount = (value: number) => Number.isSafeInteger(value) && value >= 1

/** Saves after every `steps` steps and keeps the newest `keepLast` (default 3, at least 1). */
export const everySteps = (
  steps: number,
  options: { readonly keepLast?: number | undefined } = {}
): CheckpointPolicy => {
  const keepLast = options.keepLast ?? 3
  return {
    dueAfter: (step) => (step + 1) % steps === 0,
    retain: retainNewest(keepLast),
    config: { kind: "every_steps", steps, keepLast },
    invalid: !isCount(steps)
      ? invalidOption("checkpoints.everySteps", steps, "must be a whole number above 0")
      : !isCount(keepLast)
        ? invalidOption("checkpoints.keepLast", keepLast, "must be a whole number above 0")
        : undefined
  }
}

/** No saves but the final one, and no deletions. A failure then costs the whole run. */
export const none: CheckpointPolicy = {
  dueAfter: () => false,
  retain: () => ({ deletable: [], prove: undefined }),
  config: { kind: "none" },
  invalid: undefined
}

/**
 * The one to prove is the oldest of those that stay: it lets go of everything that is too many, and of the candidates it had
 * the most time to show that its run was damaged when it was saved.
 */
const retainNewest =
  (keepLast: number) =>
  (verified: ReadonlyArray<Kept>): Retention => {
    const newestFirst = verified.toSorted((a, b) => b.step - a.step)
    const excess = newestFirst.slice(keepLast)
    const proven = newestFirst.find((kept) => kept.proven)
    const deletable = excess.filter((kept) => proven !== undefined && kept.step < proven.step)
    const guardian = newestFirst[keepLast - 1]
    return {
      deletable: deletable.map((kept) => kept.path).toReversed(),
      prove: deletable.length < excess.length && guardian?.proven === false ? guardian.path : undefined
    }
  }
