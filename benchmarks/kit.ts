// What every benchmark needs: samples taken in turn, the judgement over them, and one way to print.
//
// Round after round each contender gives one sample, in changing order, so that a busy machine slows all of them alike.
// Absolute numbers belong to the machine that measured them; the ratio of a round belongs to the contenders.

export interface BenchOptions {
  /** Fewer and shorter samples. */
  readonly quick: boolean
}

/** What is asked of a ratio. */
export type Target = { readonly atLeast: number } | { readonly atMost: number }

/**
 * One comparison. `ratio` says how many times better ours is than the peer, whichever way the unit counts; where the target
 * is an upper limit, it is ours divided by the peer. It is the median over the rounds, `low` and `high` are its 90 % interval,
 * and a target is missed only if the better end of the interval misses it.
 */
export interface BenchResult {
  readonly bench: string
  readonly ours: number
  readonly peer: number
  readonly peerName: string
  readonly ratio: number
  readonly low: number
  readonly high: number
  readonly target: Target | undefined
  readonly met: boolean | undefined
  readonly unit: string
}

/** The benchmarks of one file, by name. */
export type Benches = Readonly<Record<string, (options: BenchOptions) => Promise<ReadonlyArray<BenchResult>>>>

/** One number for each of the benches that it is a sample of. */
export type Sample = () => Promise<ReadonlyArray<number>>

export interface Peer {
  readonly name: string
  readonly sample: Sample
  readonly target?: Target
}

interface Scale {
  readonly unit: string
  readonly better: "higher" | "lower"
}

export const roundsOf = ({ quick }: BenchOptions): number => (quick ? 3 : 11)

/** Samples ours and every peer, round after round. */
export const compare = async (
  comparison: Scale & {
    readonly benches: ReadonlyArray<string>
    readonly rounds: number
    readonly ours: Sample
    readonly peers: ReadonlyArray<Peer>
  }
): Promise<ReadonlyArray<BenchResult>> => {
  const { benches, ours, peers, rounds } = comparison
  if (peers.length === 0) return []
  const contenders = [ours, ...peers.map((peer) => peer.sample)]
  const samples = contenders.map((): Array<ReadonlyArray<number>> => [])
  for (let round = 0; round < rounds; round++) {
    const turns = contenders.map((sample, index) => async () => samples[index]?.push(await sample()))
    for (const turn of round % 2 === 0 ? turns : turns.toReversed()) await turn()
  }
  const [mine, ...theirs] = samples
  return benches.flatMap((bench, nth) => {
    const column = (rows: ReadonlyArray<ReadonlyArray<number>> = []) => rows.map((row) => row[nth] ?? Number.NaN)
    return peers.map((peer, index) => judge(bench, comparison, peer, column(mine), column(theirs[index])))
  })
}

/** Judges samples in pairs: those with the same index were taken in the same round. */
export const judge = (
  bench: string,
  { better, unit }: Scale,
  { name, target }: Pick<Peer, "name" | "target">,
  ours: ReadonlyArray<number>,
  theirs: ReadonlyArray<number>
): BenchResult => {
  const inverse = better === "lower" && !(target !== undefined && "atMost" in target)
  const ratios = ours.map((mine, round) => {
    const ratio = mine / (theirs[round] ?? Number.NaN)
    return inverse ? 1 / ratio : ratio
  })
  const [low, high] = interval(ratios)
  return {
    bench,
    ours: median(ours),
    peer: median(theirs),
    peerName: name,
    ratio: median(ratios),
    low,
    high,
    target,
    met: target === undefined ? undefined : "atMost" in target ? low <= target.atMost : high >= target.atLeast,
    unit
  }
}

/**
 * The 90 % interval of the median, by order statistics: it holds whatever the distribution and leaves nothing to chance.
 * Fewer than five samples do not reach it; then it spans all of them.
 */
const interval = (samples: ReadonlyArray<number>): readonly [low: number, high: number] => {
  const sorted = samples.toSorted((a, b) => a - b)
  const count = sorted.length
  let skipped = 0
  let chance = 0.5 ** count
  let tail = chance // that no more than `skipped` of the samples lie below the true median
  for (;;) {
    chance *= (count - skipped) / (skipped + 1)
    tail += chance
    if (2 * tail > 0.1) break
    skipped++
  }
  return [sorted[skipped] ?? Number.NaN, sorted[count - 1 - skipped] ?? Number.NaN]
}

export const median = (samples: ReadonlyArray<number>): number => {
  const sorted = samples.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

export const percentile = (samples: ReadonlyArray<number>, share: number): number => {
  const sorted = samples.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

export const print = (format: "json" | "text", result: BenchResult): void => {
  const { bench, met, peerName, target, unit } = result
  const round = (value: number) => Number(value.toPrecision(4))
  const [ours, peer, ratio, low, high] = [result.ours, result.peer, result.ratio, result.low, result.high].map(round)
  const [wanted = null, sense = null] =
    target === undefined ? [] : "atMost" in target ? [target.atMost, "at most"] : [target.atLeast, "at least"]
  if (format === "json") {
    const line = { bench, ours, peer, peerName, ratio, low, high, target: wanted, sense, met: met ?? null, unit }
    console.log(JSON.stringify(line))
  } else {
    const against = `${ours?.toLocaleString("en")} against ${peer?.toLocaleString("en")} ${unit}`
    const verdict = met === undefined ? "" : `; ${sense} ${wanted}: ${met ? "met" : "missed"}`
    console.log(`${bench}: ${ratio} x ${peerName} (${low} to ${high})${verdict}. ${against}`)
  }
}
