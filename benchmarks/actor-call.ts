// One caller, one supervised actor, one request at a time, each with its deadline and withdrawal.
import { Effect } from "effect"
import { type BenchOptions, type BenchResult, compare, main, rate } from "./kit.ts"
import { counter } from "./peers/counter.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"

export const run = async ({ quick = false }: BenchOptions): Promise<ReadonlyArray<BenchResult>> => {
  const count = quick ? 100_000 : 400_000
  const rounds = quick ? 3 : 9
  const asking = (ask: (value: number) => Effect.Effect<number, unknown>) =>
    Effect.gen(function* () {
      for (let i = 0; i < count; i++) if ((yield* ask(i)) !== i) throw new Error(`answer ${i} is wrong`)
    })
  const program = Effect.gen(function* () {
    const ref = yield* counter
    const actor = yield* EffectActor.make
    const sample = (ask: (value: number) => Effect.Effect<number, unknown>) => () =>
      rate(count, () => Effect.runPromise(asking(ask)))
    const effect = { name: "Effect queue and fiber", sample: sample((value) => EffectActor.call(actor, value)) }
    const peers = [...otp("call", count), effect]
    const common = { unit: "calls/s", better: "higher", rounds, peers } as const
    return yield* Effect.promise(async () => [
      ...(await compare({ ...common, bench: "actor-call", ours: sample(ref.call.echo) })),
      ...(await compare({ ...common, bench: "actor-call-generator", ours: sample(ref.call.generate) }))
    ])
  })
  return Effect.runPromise(Effect.scoped(program))
}

await main(import.meta, run)
