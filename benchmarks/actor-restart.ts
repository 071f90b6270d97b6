// From the end of a supervised actor until the `init` of its replacement has run, the median of 10,000 restarts in a row. OTP's
// supervisor walks its history of restarts at each of them; it is cleared now and then, so that the restart alone is
// compared, except in the burst, where it grows as it would in a storm. Ours is never cleared.
import { Actor, type ActorRef, ChildSpec, Supervisor } from "@tinkex/supervision"
import { Effect, Queue, Scope } from "effect"
import { type Benches, compare, percentile, roundsOf } from "./kit.ts"
import { watch } from "./peers/actors.ts"
import * as EffectActor from "./peers/effectActor.ts"
import { otp } from "./peers/erl/otp.ts"
import { sampled, warm } from "./sampling.ts"

/** Starts an actor that tells whenever it has come up; the result ends its incarnation. */
type Victim = (up: () => void) => Effect.Effect<Effect.Effect<unknown>, unknown, Scope.Scope>

const restarting = (victim: Victim) =>
  Effect.fnUntraced(
    function* (count: number) {
      const arrivals: Array<number> = []
      let wake = () => {}
      const end = yield* victim(() => {
        arrivals.push(performance.now())
        queueMicrotask(() => wake()) // the next end comes when this init has returned
      })
      const arrival = Effect.callback<void>((resume) => {
        wake = () => resume(Effect.void)
      })
      const micros: Array<number> = []
      for (let i = 1; i <= count; i++) {
        const began = performance.now()
        yield* end
        while (arrivals.length <= i) yield* arrival
        micros.push(((arrivals[i] ?? Number.NaN) - began) * 1000)
      }
      if (arrivals.length !== count + 1) throw new Error(`${arrivals.length} arrivals after ${count} ends`)
      return percentile(micros, 0.5)
    },
    Effect.scoped,
    warm
  )

class Mortal extends Actor.make("Mortal", {
  init: (up: () => void) => {
    up()
    return {}
  },
  cast: {
    crash: () => {
      throw new Error("boom")
    }
  }
}) {}

type Ref = ActorRef.ActorRef<typeof Mortal>

/** As `exit(Pid, kill)`. */
const kill = (ref: Ref) => ref.kill

const supervised =
  (end: (ref: Ref) => Effect.Effect<void>): Victim =>
  (up) =>
    Effect.gen(function* () {
      const tree = yield* Supervisor.start({
        intensity: { restarts: 100_000_000, within: "1 second" },
        children: [ChildSpec.actor("mortal", Mortal, up)]
      })
      yield* watch(tree)
      return end(tree.refs.mortal)
    })

/** There is no supervisor in Effect: whoever observes the end of the fiber starts the next. */
const observed =
  (end: (actor: EffectActor.EffectActor<void>) => Effect.Effect<unknown>): Victim =>
  (up) =>
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const spawn = Effect.provideService(
        EffectActor.spawn<void>(() => Effect.die(new Error("boom"))),
        Scope.Scope,
        scope
      )
      let actor: EffectActor.EffectActor<void> | undefined
      const start = () => {
        if (scope.state._tag === "Closed") return
        actor = Effect.runSync(spawn)
        up()
        actor.fiber.addObserver(start)
      }
      start()
      return Effect.suspend(() => (actor === undefined ? Effect.void : end(actor)))
    })

const sample = await sampled(import.meta, {
  kill: restarting(supervised(kill)),
  throw: restarting(supervised((ref) => ref.cast.crash())),
  effectKill: restarting(observed(({ fiber }) => Effect.sync(() => fiber.interruptUnsafe()))),
  effectThrow: restarting(observed(({ inbox }) => Queue.offer(inbox, undefined)))
})

type Name = Parameters<typeof sample>[0]

const bench = (name: string, ours: Name, atLeast: number, effect: Name | undefined): Benches => ({
  [name]: (options) => {
    const count = 10_000 // also when in a hurry, for it makes the burst
    return compare({
      benches: [name],
      unit: "us p50",
      better: "lower",
      rounds: roundsOf(options),
      ours: sample(ours, count),
      peers: [
        ...otp(name, count, { target: { atLeast } }),
        ...(effect === undefined ? [] : [{ name: EffectActor.name, sample: sample(effect, count) }])
      ]
    })
  }
})

export const benches: Benches = {
  ...bench("restart-kill", "kill", 2, "effectKill"),
  ...bench("restart-throw", "throw", 0.7, "effectThrow"),
  ...bench("restart-burst", "kill", 30, undefined)
}
