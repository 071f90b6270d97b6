// Starts a hundred thousand temporary children of one supervisor, and stops them all with it. OTP has two kinds of supervisor
// for that: `simple_one_for_one` starts faster and `one_for_one` stops faster, so each is the peer where it is best.
import { Effect, Exit, Scope } from "effect"
import { type Benches, type Peer, type Sample, compare, roundsOf } from "./kit.ts"
import { Counter, Holder, type Start, dynamic } from "./peers/actors.ts"
import { otp } from "./peers/erl/otp.ts"
import { perSecond, sampled, timed, warm } from "./sampling.ts"

const life = (phase: "start" | "stop", child: (start: Start, value: number) => Effect.Effect<unknown, unknown>) =>
  Effect.fnUntraced(function* (count: number) {
    const scope = yield* Scope.make()
    const start = yield* Effect.provideService(dynamic, Scope.Scope, scope)
    const starting = Effect.gen(function* () {
      for (let i = 0; i < count; i++) yield* child(start, i)
    })
    const millis = { start: yield* timed(starting), stop: yield* timed(Scope.close(scope, Exit.void)) }
    return perSecond(count, millis[phase])
  }, warm)

const sample = await sampled(import.meta, {
  start: life("start", (start, value) => start(Counter, value)),
  startHolders: life("start", (start, value) => start(Holder, value)),
  stop: life("stop", (start, value) => start(Counter, value))
})

const bench = (
  name: string,
  contenders: (count: number) => { readonly ours: Sample; readonly peers: ReadonlyArray<Peer> }
): Benches => ({
  [name]: (options) =>
    compare({
      benches: [name],
      unit: "children/s",
      better: "higher",
      rounds: roundsOf(options),
      ...contenders(options.quick ? 20_000 : 100_000)
    })
})

export const benches: Benches = {
  ...bench("start-100k-dynamic", (count) => ({
    ours: sample("start", count),
    peers: otp("start-simple_one_for_one", count, { variant: "simple_one_for_one", target: { atLeast: 5 } })
  })),
  ...bench("start-100k-dynamic-finalizer", (count) => ({
    ours: sample("startHolders", count),
    peers: otp("start-simple_one_for_one", count, { variant: "simple_one_for_one", target: { atLeast: 1 } })
  })),
  ...bench("stop-100k", (count) => ({
    ours: sample("stop", count),
    peers: otp("stop-one_for_one", count, { variant: "one_for_one", target: { atLeast: 3 } })
  }))
}
