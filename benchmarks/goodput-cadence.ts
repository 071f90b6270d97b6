// How much of the time goes into useful steps when the adaptive policy decides about saves, on a clock that is only counted:
// steps of one second, saves that hold the run up for half a second, failures at random, ten seconds to notice one and a minute
// to restore. The policy is told nothing of that; it measures. Against the best fixed interval for the very same failures, found
// by trying them all, which nobody could know beforehand.
import { CheckpointPolicy, SeededRandom } from "@tinkex/training"
import { type Benches, judge } from "./kit.ts"

const step = 1000
const save = 500
const detect = 10_000
const restore = 60_000

/** Milliseconds of work between failures, exponentially distributed. */
const failures = (seed: number, mtbf: number, until: number): ReadonlyArray<number> => {
  const random = SeededRandom.make(seed, mtbf)
  const times: Array<number> = []
  for (let at = 0; at < until;) {
    at += -Math.log(1 - random.next()) * mtbf
    times.push(at)
  }
  return times
}

type Due = (moment: CheckpointPolicy.Moment) => boolean

/** The share of the time that ends up in steps which were not lost. */
const goodput = (due: Due, times: ReadonlyArray<number>, until: number): number => {
  let now = 0
  let useful = 0
  let unsaved = 0
  let elapsed = 0
  let saveCost: number | undefined
  let failed = 0
  let down = 0
  for (let steps = 1; now < until; steps++) {
    const failure = times[failed] ?? Number.POSITIVE_INFINITY
    const moment: CheckpointPolicy.Moment = {
      steps,
      epochEnded: false,
      epochs: 0,
      tokens: 0,
      elapsed: elapsed + step,
      saving: false,
      improved: false,
      saveCost,
      observed: { millis: now - down, failures: failed }
    }
    const saving = due(moment)
    const end = now + step + (saving ? save : 0)
    if (failure < end) {
      // What was not saved is done again.
      now = failure + detect + restore
      down += detect + restore
      failed++
      while ((times[failed] ?? Number.POSITIVE_INFINITY) < now) failed++
      unsaved = 0
      elapsed = 0
      continue
    }
    now = end
    unsaved += step
    elapsed += step
    if (saving) {
      useful += unsaved
      unsaved = 0
      elapsed = 0
      saveCost = save
    }
  }
  return (100 * (useful + unsaved)) / now
}

/** The best of all fixed intervals for these failures, by a grid that is finer than the noise. */
const optimum = (times: ReadonlyArray<number>, until: number): number => {
  let best = 0
  for (let interval = 4000; interval < 1_200_000; interval *= 1.12) {
    best = Math.max(
      best,
      goodput(({ elapsed }) => elapsed >= interval, times, until)
    )
  }
  return best
}

const bench = (name: string, mtbf: number, points: number) => ({
  [name]: async ({ quick }: { readonly quick: boolean }) => {
    const until = (quick ? 300 : 2000) * 1_000_000
    const policy = CheckpointPolicy.adaptive()
    const ours: Array<number> = []
    const peer: Array<number> = []
    for (let seed = 1; seed <= (quick ? 3 : 7); seed++) {
      const times = failures(seed, mtbf, until)
      ours.push(goodput(policy.due, times, until))
      peer.push(optimum(times, until))
    }
    const atLeast = 1 - points / (peer.reduce((a, b) => a + b, 0) / peer.length)
    return [
      judge(
        name,
        { unit: "% of the time", better: "higher" },
        { name: "best fixed interval", target: { atLeast } },
        ours,
        peer
      )
    ]
  }
})

export const benches: Benches = {
  ...bench("goodput-mtbf-6h", 21_600_000, 0.5),
  ...bench("goodput-mtbf-30m", 1_800_000, 0.5)
}
