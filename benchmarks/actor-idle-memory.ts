// What an idle supervised actor costs: its entry in the supervisor, its mailbox, its state, and the ref that reaches it.
import { Effect, type Scope } from "effect"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { Counter, Holder, dynamic } from "./peers/actors.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"
import { bytesPerItem, sampled } from "./sampling.ts"

const keeping = (start: (value: number) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  Effect.fnUntraced(function* (count: number) {
    const kept: Array<unknown> = []
    for (let i = 0; i < count; i++) kept.push(yield* start(i))
    return kept
  })

const sample = await sampled(import.meta, {
  plain: (count) =>
    Effect.flatMap(dynamic, (start) =>
      bytesPerItem(
        count,
        keeping((value) => start(Counter, value))
      )
    ),
  finalizer: (count) =>
    Effect.flatMap(dynamic, (start) =>
      bytesPerItem(
        count,
        keeping((value) => start(Holder, value))
      )
    ),
  effect: (count) =>
    bytesPerItem(
      count,
      keeping(() => EffectActor.make)
    )
})

const bench = (name: string, kind: "plain" | "finalizer", budget: number): Benches => ({
  [name]: (options) => {
    const count = options.quick ? 20_000 : 100_000
    return compare({
      benches: [name],
      unit: "bytes",
      better: "lower",
      rounds: Math.min(5, roundsOf(options)), // they hardly differ
      ours: sample(kind, count),
      peers: [
        { name: "budget", sample: async () => [budget], target: { atMost: 1 } },
        ...otp("idle", count),
        { name: EffectActor.name, sample: sample("effect", count) }
      ]
    })
  }
})

export const benches: Benches = {
  ...bench("idle-memory", "plain", 512),
  ...bench("idle-memory-finalizer", "finalizer", 1200)
}
