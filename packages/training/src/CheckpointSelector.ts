/**
 * Which checkpoint a run is restored from.
 *
 * Selection is a pure function: the same candidates give the same answer, nothing is read and nothing is written, so a
 * plan can be printed before anybody acts on it. Guarantees:
 *
 * - **CS1** every candidate is either in `order` or in `rejected` with a reason;
 * - **CS2** `order` is newest step first, and a verified candidate always precedes an unverified one;
 * - **CS3** nothing quarantined, deleted, expired or of the wrong kind is ever in `order`.
 *
 * It does not prove that a chosen checkpoint can be loaded: only loading it does.
 */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** A checkpoint that might be restored, as the journal or the server's list knows it. */
export interface Candidate {
  /** `tinker://<training run>/weights/<name>` */
  readonly path: string
  readonly name: string
  /** Steps applied in it; unknown for a checkpoint that only the server lists. */
  readonly step: Option.Option<number>
  /** Seen on the server with a plausible size after everything before it had succeeded. */
  readonly verified: boolean
  /** Loaded at least once, and trained from or probed. */
  readonly proven: boolean
  readonly sizeBytes: Option.Option<number>
  readonly expiresAt: Option.Option<DateTime.Utc>
  /** When it was saved, where known: orders candidates whose step is unknown. */
  readonly savedAt: Option.Option<DateTime.Utc>
  readonly source: "journal" | "server"
}

/** Newest first, falling back to older ones. */
export const Latest = Schema.TaggedStruct("Latest", {})

/** Exactly this checkpoint, without a fallback. */
export const Specific = Schema.TaggedStruct("Specific", { path: Schema.String })

/** How the checkpoint is picked: the newest usable one, or one named by its path. */
export const Strategy = Schema.Union([Latest, Specific])
export type Strategy = typeof Strategy.Type

export const latest: Strategy = { _tag: "Latest" }
export const specific = (path: string): Strategy => ({ _tag: "Specific", path })

/** A candidate that is not used, and why, in words for a person. */
export interface Rejected {
  readonly candidate: Candidate
  readonly reason: string
}

export interface Selection {
  readonly chosen: Option.Option<Candidate>
  /** The chosen one, then its fallbacks. */
  readonly order: ReadonlyArray<Candidate>
  readonly rejected: ReadonlyArray<Rejected>
}

const when = (candidate: Candidate): number =>
  Option.match(candidate.savedAt, { onNone: () => 0, onSome: (time) => time.epochMilliseconds })

const newestFirst = (a: Candidate, b: Candidate): number =>
  Number(b.verified) - Number(a.verified) ||
  Option.getOrElse(b.step, () => -1) - Option.getOrElse(a.step, () => -1) ||
  when(b) - when(a) ||
  (a.path < b.path ? 1 : -1)

/**
 * Orders the candidates for a restore and says of each other one why it is not used.
 *
 * `quarantined` maps a path to why it must not be tried again, `now` decides what has expired. A `Specific` strategy never
 * falls back to another checkpoint, and a quarantined one stays refused even if it is named.
 */
export const select = (options: {
  readonly candidates: ReadonlyArray<Candidate>
  readonly quarantined: ReadonlyMap<string, string>
  readonly deleted?: ReadonlySet<string> | undefined
  readonly strategy: Strategy
  readonly now: DateTime.Utc
}): Selection => {
  const { strategy } = options
  const order: Array<Candidate> = []
  const rejected: Array<Rejected> = []
  for (const candidate of options.candidates) {
    const why = options.quarantined.get(candidate.path)
    const expired = Option.filter(candidate.expiresAt, (at) => DateTime.isLessThanOrEqualTo(at, options.now))
    if (strategy._tag === "Specific" && candidate.path !== strategy.path) {
      rejected.push({ candidate, reason: `not the one asked for (${strategy.path})` })
    } else if (!candidate.path.includes("/weights/")) {
      rejected.push({ candidate, reason: "a sampler checkpoint holds no optimizer state" })
    } else if (why !== undefined) {
      rejected.push({ candidate, reason: `quarantined: ${why}` })
    } else if (options.deleted?.has(candidate.path) === true) {
      rejected.push({ candidate, reason: "deleted, or about to be" })
    } else if (Option.isSome(expired)) {
      rejected.push({ candidate, reason: `expired at ${DateTime.formatIso(expired.value)}` })
    } else {
      order.push(candidate)
    }
  }
  order.sort(newestFirst)
  return { chosen: Option.fromUndefinedOr(order[0]), order, rejected }
}
