// Starts a hundred thousand supervised actors, then stops them one by one. OTP's are not even supervised.
import { Effect, Fiber, type Scope } from "effect"
import { type Benches, compare, roundsOf } from "./kit.ts"
import { Counter, dynamic } from "./peers/actors.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"
import { rate, sampled } from "./sampling.ts"

/** Starts an actor; the result stops it, and returns once it is gone. */
type Start = (value: number) => Effect.Effect<Effect.Effect<unknown, unknown>, unknown, Scope.Scope>

const living = (subject: Effect.Effect<Start, unknown, Scope.Scope>) => (count: number) =>
  Effect.flatMap(subject, (start) =>
    rate(
      count,
      Effect.gen(function* () {
        const stops: Array<Effect.Effect<unknown, unknown>> = []
        for (let i = 0; i < count; i++) stops.push(yield* start(i))
        for (const stop of stops) yield* stop
      })
    )
  )

const sample = await sampled(import.meta, {
  ours: living(Effect.map(dynamic, (start) => (value) => Effect.map(start(Counter, value), (ref) => ref.stop))),
  effect: living(Effect.succeed(() => Effect.map(EffectActor.make, ({ fiber }) => Fiber.interrupt(fiber))))
})

export const benches: Benches = {
  "start-stop-100k": (options) => {
    const count = options.quick ? 20_000 : 100_000
    return compare({
      benches: ["start-stop-100k"],
      unit: "actors/s",
      better: "higher",
      rounds: roundsOf(options),
      ours: sample("ours", count),
      peers: [
        // the target was set over this program; the next one is harder to beat: it has less to do, and is warm
        ...otp("start-stop-monitored", count, { variant: "with monitors", target: { atLeast: 8 } }),
        ...otp("start-stop", count, { variant: "without supervisor" }),
        { name: EffectActor.name, sample: sample("effect", count / 5) }
      ]
    })
  }
}
