// A thousand supervised actors in a ring pass one message on; the clock stops when it has made its hops.
import { Effect, type Scope } from "effect"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { dynamic, ring } from "./peers/actors.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"
import { rate, sampled } from "./sampling.ts"

const size = 1000

/** A ring as what sends a message around it. */
type Ring = (arrived: () => void) => Effect.Effect<(hops: number) => Effect.Effect<unknown>, unknown, Scope.Scope>

const passing = (ring: Ring) => (hops: number) =>
  Effect.gen(function* () {
    let arrived = () => {}
    const go = yield* ring(() => arrived())
    const journey = Effect.callback<void>((resume) => {
      arrived = () => resume(Effect.void)
    })
    return yield* rate(hops, Effect.andThen(go(hops), journey))
  })

const sample = await sampled(import.meta, {
  ours: passing((arrived) =>
    Effect.flatMap(dynamic, (start) => Effect.map(ring(start, size, arrived), (first) => first.cast.pass))
  ),
  effect: passing((arrived) => EffectActor.ring(size, arrived))
})

export const benches: Benches = {
  ring: (options) => {
    const hops = options.quick ? 400_000 : 4_000_000
    return compare({
      benches: ["ring"],
      unit: "hops/s",
      better: "higher",
      rounds: roundsOf(options),
      ours: sample("ours", hops),
      peers: [
        ...otp("ring", hops, { target: { atLeast: 4 } }),
        { name: EffectActor.name, sample: sample("effect", hops / 40) }
      ]
    })
  }
}
