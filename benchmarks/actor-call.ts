// One caller, one supervised actor, one request at a time, each with its deadline and withdrawal.
import { Effect, type Scope } from "effect"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { counter } from "./peers/actors.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"
import { rate, sampled } from "./sampling.ts"

type Ask = (value: number) => Effect.Effect<number, unknown>

const asking = (subject: Effect.Effect<Ask, unknown, Scope.Scope>) => (count: number) =>
  Effect.flatMap(subject, (ask) =>
    rate(
      count,
      Effect.gen(function* () {
        for (let i = 0; i < count; i++) if ((yield* ask(i)) !== i) throw new Error(`answer ${i} is wrong`)
      })
    )
  )

const sample = await sampled(import.meta, {
  plain: asking(Effect.map(counter, (ref) => ref.call.echo)),
  generator: asking(Effect.map(counter, (ref) => ref.call.generate)),
  effect: asking(Effect.map(EffectActor.make, (actor) => (value) => EffectActor.call(actor, value)))
})

const bench = (name: string, handler: "plain" | "generator", atLeast: number): Benches => ({
  [name]: (options) => {
    const count = options.quick ? 100_000 : 400_000
    return compare({
      benches: [name],
      unit: "calls/s",
      better: "higher",
      rounds: roundsOf(options),
      ours: sample(handler, count),
      peers: [
        ...otp("call", count, { target: { atLeast } }),
        ...otp("call-forever", count, { variant: "without deadlines" }),
        { name: EffectActor.name, sample: sample("effect", count) }
      ]
    })
  }
})

export const benches: Benches = { ...bench("call", "plain", 1.5), ...bench("call-generator", "generator", 0.8) }
