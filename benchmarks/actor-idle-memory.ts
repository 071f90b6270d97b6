// What an idle supervised actor costs: its entry in the supervisor, its id, its mailbox and its state.
import { ChildSpec, Supervisor } from "@tinkex/supervision"
import { Effect, Exit, Scope } from "effect"
import { type BenchOptions, type BenchResult, compare, heapPerItem, main } from "./kit.ts"
import { Counter } from "./peers/counter.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"

export const run = async ({ quick = false }: BenchOptions): Promise<ReadonlyArray<BenchResult>> => {
  const count = quick ? 20_000 : 100_000
  const measure = (make: Effect.Effect<unknown, unknown, Scope.Scope>) => async () => {
    const scope = Scope.makeUnsafe()
    const bytes = await heapPerItem(count, () => Effect.runPromise(Effect.provideService(make, Scope.Scope, scope)))
    await Effect.runPromise(Scope.close(scope, Exit.void))
    return bytes
  }
  const ours = Effect.gen(function* () {
    const tree = yield* Supervisor.start({ children: [] })
    for (let i = 0; i < count; i++) yield* tree.startChild(ChildSpec.actor(`actor-${i}`, Counter, i))
    return tree
  })
  const theirs = Effect.gen(function* () {
    const actors: Array<EffectActor.EffectActor> = []
    for (let i = 0; i < count; i++) actors.push(yield* EffectActor.make)
    return actors
  })
  return compare({
    bench: "actor-idle-memory",
    unit: "bytes",
    better: "lower",
    rounds: quick ? 1 : 3,
    ours: measure(ours),
    peers: [...otp("idle", count), { name: "Effect queue and fiber", sample: measure(theirs) }]
  })
}

await main(import.meta, run)
