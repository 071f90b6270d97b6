/**
 * Which checkpoint a run is restored from.
 *
 * Selection is a pure function: the same candidates give the same answer, nothing is read and nothing is written, so a
 * plan can be printed before anybody acts on it. Guarantees:
 *
 * - **CS1** every candidate is either in `order` or in `rejected` with a reason;
 * - **CS2** `order` follows the strategy (by default newest step first), a verified candidate always precedes an unverified
 *   one, and one saved after the run was last known to be well comes after all others (`suspect`);
 * - **CS3** nothing quarantined, deleted, expired, unfit or of the wrong kind is ever in `order`, whatever the strategy says.
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
  /** What was measured at its step, where known: `Best` goes by it. */
  readonly metrics?: Readonly<Record<string, number>> | undefined
  /** Why it cannot carry this run, for example because its shape is another one. */
  readonly unfit?: string | undefined
}

/** Newest first, falling back to older ones. */
export const Latest = Schema.TaggedStruct("Latest", {})

/** Exactly this checkpoint, without a fallback. */
export const Specific = Schema.TaggedStruct("Specific", { path: Schema.String })

/** The lowest (`min`) or highest (`max`) value of a metric first; those without the metric after them, newest first. */
export const Best = Schema.TaggedStruct("Best", { metric: Schema.String, mode: Schema.Literals(["min", "max"]) })

/** Picks and orders by a rule of one's own. */
export type Choose = (candidates: ReadonlyArray<Candidate>) => ReadonlyArray<Candidate>

/** What a function of the program makes of the usable candidates. `name` is for people. */
export const Custom = Schema.TaggedStruct("Custom", {
  name: Schema.String,
  choose: Schema.declare((u): u is Choose => typeof u === "function", { expected: "a function" })
})

/** How the checkpoint is picked: the newest usable one, one named by its path, the best by a metric, or by a function. */
export const Strategy = Schema.Union([Latest, Specific, Best, Custom])
export type Strategy = typeof Strategy.Type

export const latest: Strategy = { _tag: "Latest" }
export const specific = (path: string): Strategy => ({ _tag: "Specific", path })
export const best = (metric: string, mode: "min" | "max"): Strategy => ({ _tag: "Best", metric, mode })

/**
 * `choose` gets the usable candidates, newest first, and returns those that it wants, in the order in which to try them; it
 * must be pure. What it leaves out is rejected, what it makes up is ignored, and one that throws has chosen nothing.
 */
export const custom = (name: string, choose: Choose): Strategy => ({ _tag: "Custom", name, choose })

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
  /** Those of `order` that were saved after the run was last known to be well, and so may hold what spoilt it. */
  readonly suspect: ReadonlyArray<Candidate>
}

const when = (candidate: Candidate): number =>
  Option.match(candidate.savedAt, { onNone: () => 0, onSome: (time) => time.epochMilliseconds })

const newestFirst = (a: Candidate, b: Candidate): number =>
  Option.getOrElse(b.step, () => -1) - Option.getOrElse(a.step, () => -1) ||
  when(b) - when(a) ||
  (a.path < b.path ? 1 : -1)

/** A metric that was not measured, or is no number, is worse than any other value. */
const worth = ({ metrics }: Candidate, { metric, mode }: typeof Best.Type): number => {
  const value = metrics?.[metric]
  if (value === undefined || Number.isNaN(value)) return Number.NEGATIVE_INFINITY
  return mode === "max" ? value : -value
}

const preferred = (strategy: Strategy, usable: ReadonlyArray<Candidate>): ReadonlyArray<Candidate> => {
  switch (strategy._tag) {
    case "Best":
      // two that were not measured differ by NaN, which counts as no difference
      return usable.toSorted((a, b) => worth(b, strategy) - worth(a, strategy) || newestFirst(a, b))
    case "Custom":
      try {
        const known = new Set(usable)
        return [...new Set(strategy.choose(usable))].filter((candidate) => known.has(candidate))
      } catch {
        return []
      }
    default:
      return usable
  }
}

/** Why a candidate cannot be used whatever anybody prefers. */
const unusable = (
  candidate: Candidate,
  options: Pick<Parameters<typeof select>[0], "quarantined" | "deleted" | "now">
): string | undefined => {
  const why = options.quarantined.get(candidate.path)
  const expired = Option.filter(candidate.expiresAt, (at) => DateTime.isLessThanOrEqualTo(at, options.now))
  if (!candidate.path.includes("/weights/")) return "a sampler checkpoint holds no optimizer state"
  if (why !== undefined) return `quarantined: ${why}`
  if (options.deleted?.has(candidate.path) === true) return "deleted, or about to be"
  if (Option.isSome(expired)) return `expired at ${DateTime.formatIso(expired.value)}`
  return candidate.unfit
}

/**
 * Orders the candidates for a restore and says of each other one why it is not used.
 *
 * `quarantined` maps a path to why it must not be tried again, `now` decides what has expired. `wellUntil` is the newest time,
 * by the clock that stamps `savedAt`, at which the run is known to have been well; unverified candidates saved later come
 * last. A `Specific` strategy never falls back to another checkpoint, and a quarantined one stays refused even if it is named.
 */
export const select = (options: {
  readonly candidates: ReadonlyArray<Candidate>
  readonly quarantined: ReadonlyMap<string, string>
  readonly deleted?: ReadonlySet<string> | undefined
  readonly strategy: Strategy
  readonly now: DateTime.Utc
  readonly wellUntil?: DateTime.Utc | undefined
}): Selection => {
  const { strategy, wellUntil } = options
  const usable: Array<Candidate> = []
  const rejected: Array<Rejected> = []
  for (const candidate of options.candidates) {
    const reason =
      strategy._tag === "Specific" && candidate.path !== strategy.path
        ? `not the one asked for (${strategy.path})`
        : unusable(candidate, options)
    if (reason === undefined) usable.push(candidate)
    else rejected.push({ candidate, reason })
  }
  const chosen = preferred(strategy, usable.toSorted(newestFirst))
  if (strategy._tag === "Custom") {
    const kept = new Set(chosen)
    for (const candidate of usable) {
      if (!kept.has(candidate)) rejected.push({ candidate, reason: `left out by ${strategy.name}` })
    }
  }
  const suspicious = (candidate: Candidate): boolean =>
    wellUntil !== undefined &&
    !candidate.verified &&
    Option.exists(candidate.savedAt, (at) => DateTime.isGreaterThan(at, wellUntil))
  const rank = (candidate: Candidate) => (suspicious(candidate) ? 2 : candidate.verified ? 0 : 1)
  // sorting is stable: within a rank the strategy's order stands
  const order = chosen.toSorted((a, b) => rank(a) - rank(b))
  return { chosen: Option.fromUndefinedOr(order[0]), order, rejected, suspect: order.filter(suspicious) }
}
