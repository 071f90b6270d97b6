/**
 * The names that a run gives to its checkpoints: `r<run hash>-a<attempt>-s<steps>-<kind>[-r<retry>]`.
 *
 * A name says what it holds, so that a save whose answer was lost can be told apart from any other: no two saves of a run
 * bear the same one (an attempt saves a step once for each kind, and a repeated save counts its retries), and two runs differ
 * in their hash. Names hold only letters, digits, `-` and `_`, which every server accepts.
 */
import * as Option from "effect/Option"

/** Why it was saved: on the policy's schedule, because an evaluation improved, at the end of the run, or by hand. */
export type Kind = "auto" | "best" | "final" | "user"

export interface CheckpointName {
  /** 8 hexadecimal digits of the run. */
  readonly runHash: string
  readonly attempt: number
  /** Steps applied in it. */
  readonly step: number
  readonly kind: Kind
  /** 1 for the first repetition of a lost save; absent for the save itself. */
  readonly retry?: number | undefined
}

export const make = ({ attempt, kind, retry, runHash, step }: CheckpointName): string =>
  `r${runHash}-a${attempt}-s${step}-${kind}${retry === undefined ? "" : `-r${retry}`}`

const count = "(0|[1-9][0-9]{0,14})"
const pattern = new RegExp(`^r([0-9a-f]{8})-a${count}-s${count}-(auto|best|final|user)(?:-r${count})?$`)

/** Reads a name that `make` has made; none for any other text. */
export const parse = (name: string): Option.Option<CheckpointName> => {
  const [, runHash, attempt, step, kind, retry] = pattern.exec(name) ?? []
  if (runHash === undefined || (kind !== "auto" && kind !== "best" && kind !== "final" && kind !== "user"))
    return Option.none()
  return Option.some({
    runHash,
    attempt: Number(attempt),
    step: Number(step),
    kind,
    ...(retry === undefined ? {} : { retry: Number(retry) })
  })
}
