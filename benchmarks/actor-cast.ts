// One sender, one supervised actor with a bounded mailbox; the clock stops when all messages have been handled.
import { Effect, type Scope } from "effect"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { counter } from "./peers/actors.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"
import { rate, sampled } from "./sampling.ts"

interface Subject {
  readonly send: () => Effect.Effect<unknown>
  readonly read: () => Effect.Effect<number, unknown>
}

const sending = (subject: Effect.Effect<Subject, unknown, Scope.Scope>) => (count: number) =>
  Effect.flatMap(subject, ({ read, send }) =>
    rate(
      count,
      Effect.gen(function* () {
        const before = yield* read()
        for (let i = 0; i < count; i++) yield* send()
        if ((yield* read()) !== before + count) throw new Error("messages were lost")
      })
    )
  )

const sample = await sampled(import.meta, {
  ours: sending(Effect.map(counter, (ref) => ({ send: ref.cast.tick, read: ref.call.read }))),
  effect: sending(
    Effect.map(EffectActor.make, (actor) => ({
      send: () => EffectActor.cast(actor),
      read: () => EffectActor.read(actor)
    }))
  )
})

export const benches: Benches = {
  cast: (options) => {
    const count = options.quick ? 200_000 : 1_000_000
    return compare({
      benches: ["cast"],
      unit: "casts/s",
      better: "higher",
      rounds: roundsOf(options),
      ours: sample("ours", count),
      peers: [
        ...otp("cast", count, { target: { atLeast: 0.8 } }),
        { name: EffectActor.name, sample: sample("effect", count) }
      ]
    })
  }
}
