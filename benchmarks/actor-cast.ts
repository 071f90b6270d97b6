// One sender, one supervised actor with a bounded mailbox; the clock stops when all messages have been handled.
import { Effect } from "effect"
import { type BenchOptions, type BenchResult, compare, main, rate } from "./kit.ts"
import { counter } from "./peers/counter.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"

export const run = async ({ quick = false }: BenchOptions): Promise<ReadonlyArray<BenchResult>> => {
  const count = quick ? 200_000 : 1_000_000
  const sending = (send: () => Effect.Effect<unknown>, read: Effect.Effect<number, unknown>) =>
    Effect.gen(function* () {
      const before = yield* read
      for (let i = 0; i < count; i++) yield* send()
      if ((yield* read) !== before + count) throw new Error("messages were lost")
    })
  const program = Effect.gen(function* () {
    const ref = yield* counter
    const actor = yield* EffectActor.make
    const sample = (send: () => Effect.Effect<unknown>, read: Effect.Effect<number, unknown>) => () =>
      rate(count, () => Effect.runPromise(sending(send, read)))
    return yield* Effect.promise(() =>
      compare({
        bench: "actor-cast",
        unit: "casts/s",
        better: "higher",
        rounds: quick ? 3 : 9,
        ours: sample(ref.cast.tick, ref.call.read()),
        peers: [
          ...otp("cast", count),
          { name: "Effect queue and fiber", sample: sample(() => EffectActor.cast(actor), EffectActor.read(actor)) }
        ]
      })
    )
  })
  return Effect.runPromise(Effect.scoped(program))
}

await main(import.meta, run)
