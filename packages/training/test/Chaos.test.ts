import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import { Emulator } from "@tinkex/emulator"
import { RunGuard } from "../src/index.ts"
import { data, finalState, memory, tiny, world } from "./TinyRun.ts"

const steps = 14
const seeds = Number(process.env["CHAOS_SEEDS"] ?? 60)

const from = Number(process.env["CHAOS_FROM"] ?? 1)

/** A small generator (mulberry32): the seed is the whole story of a scenario. */
const random = (seed: number) => {
  let state = seed >>> 0
  return (below: number) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

/** One of everything that a server can do to a run which a restore can mend. */
const fault = (below: (n: number) => number, every: number): string => {
  const occurrence = 1 + below(steps)
  const step = below(steps)
  const saved = every * (1 + below(Math.floor(steps / every)))
  const operation = ["forward_backward", "optim_step"][below(2)]
  const kinds = [
    `corrupt@${step}`,
    `lose-session@${step}`,
    `lose:${operation}@${occurrence}`,
    `lose:retrieve_future@${occurrence}`,
    `lose:save_weights@${1 + below(2)}`,
    `lose:create_model@1`,
    `burst:503:${operation}@${occurrence}x3`,
    `burst:429:retrieve_future@${occurrence}x2=5s`,
    `delay:${operation}@${occurrence}=90s:paused_capacity`,
    `expire:${operation}@${occurrence}`,
    `expire:save_weights@${1 + below(2)}`,
    `soft-fail:${operation}@${occurrence}`,
    `soft-fail:save_weights@${1 + below(2)}`,
    `truncate@${saved}`,
    `missing@${saved}`,
    `poison-load@${saved}`,
    `absent@${saved}`,
    // A server that never raises the flag, and one that raises it at any moment of an operation.
    `corrupt-unflagged@${step}`,
    `poison:${operation}:${["before", "during", "after"][below(3)]}@${occurrence}`,
    `poison-unflagged:${operation}:${["before", "during", "after"][below(3)]}@${occurrence}`,
    `poison:save_weights:${["before", "during", "after"][below(3)]}@${1 + below(2)}`,
    `corrupt@${below(20)}m`,
    `lose-session@${below(20)}m`,
    // Checkpoints that are bad in their own ways.
    `empty@${saved}`,
    `vanish@${saved}`,
    `poison-step@${saved}`,
    `alter@${saved}`,
    // The way there and back.
    `drop:${operation}@${occurrence}x2`,
    `bare:400:retrieve_future@${occurrence}`,
    `mangle:retrieve_future:${["cut", "garbage", "html", "empty", "mistyped", "mixup"][below(6)]}@${occurrence}`,
    `mangle:${operation}:${["cut", "garbage", "html", "empty"][below(4)]}@${occurrence}`,
    `trickle:retrieve_future@${occurrence}=50ms`,
    `slow:checkpoints@1=40s`,
    `burst:500:checkpoints@1x3`,
    `burst:504:${operation}@${occurrence}x4`,
    `burst:402:retrieve_future@${occurrence}x2`,
    `partition@${below(5)}m=4m`,
    `pause@${below(5)}m=3h`,
    `delay:${operation}@${occurrence}=30m:alternating`,
    `delay:${operation}@${occurrence}=9h`,
    `forget:${operation}@${occurrence}`,
    // What the loss tells.
    `nan:forward_backward@${occurrence}`
  ]
  return kinds[below(kinds.length)] ?? ""
}

/** Restores after ten seconds, as often as a try may be repeated. */
const patient: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request
      .restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
      .pipe(Effect.delay("10 seconds"), Effect.retry({ times: 3, while: (error) => error.isRetryable }))
}

/** Where the session ended between the final save and this look at it, the ledger still tells what was applied. */
const lastState = (trainingRunId: string) =>
  finalState(trainingRunId).pipe(
    Effect.catchTag("EmulatorError", () =>
      Effect.map(
        Effect.flatMap(Emulator, ({ control }) => control.ledger(trainingRunId)),
        (ledger) => ({ steps: ledger.map(({ step }) => step), digests: ledger.map(({ digest }) => digest), hash: "" })
      )
    )
  )

const run = (spec: string, options: { readonly pipelining: number; readonly every: number }) =>
  Effect.gen(function* () {
    const [probe] = yield* (yield* data(steps)).batch(0)
    const fiber = yield* Effect.forkChild(
      tiny({
        steps,
        divergence: { notFinite: "rollBack" },
        probe: probe === undefined ? undefined : [probe],
        ...options
      }).pipe(Effect.flatMap(({ trainingRunId }) => lastState(trainingRunId)))
    )
    for (let minute = 0; minute < 900 && fiber.pollUnsafe() === undefined; minute++) yield* TestClock.adjust("1 minute")
    return yield* Fiber.join(fiber).pipe(Effect.timeout("1 second"))
  }).pipe(
    Effect.provideService(RunGuard.RunGuard, Option.some(patient)),
    Effect.provide(Layer.mergeAll(world(spec, { seed: 3 }), memory))
  )

describe("P1, P2: whatever two things go wrong, the run ends as if nothing had", () => {
  it.effect(
    `${seeds} seeds from ${from} on`,
    () =>
      Effect.gen(function* () {
        const calm = yield* run("", { pipelining: 1, every: 3 })
        assert.deepStrictEqual(calm.steps, [...Array(steps).keys()])
        let ends = 0
        for (let seed = from; seed < from + seeds; seed++) {
          const below = random(seed)
          const options = { pipelining: below(5), every: 2 + below(4) }
          const spec = [fault(below, options.every), fault(below, options.every)].join(",")
          const told = `seed ${seed}: ${spec}, ${JSON.stringify(options)}`
          const result = yield* Effect.result(run(spec, options))
          if (result._tag === "Success") {
            const { hash } = result.success
            assert.deepStrictEqual(result.success, { ...calm, hash: hash === "" ? "" : calm.hash }, told)
            continue
          }
          // The one other legal end: every checkpoint that there was turned out to be bad, and the error lists them.
          const { failure } = result
          const bad =
            failure._tag === "TrainingError" && failure.reason._tag === "NoCheckpoint" ? failure.reason : undefined
          if (bad === undefined || !/truncate|missing|poison-load|poison-step|empty|vanish|alter/.test(spec))
            assert.fail(`${told}: ${failure.message}`)
          assert.isTrue(
            bad.rejected.length > 0 && bad.rejected.every(({ reason }) => reason.startsWith("quarantined")),
            told
          )
          ends++
        }
        assert.isBelow(ends, seeds / 10)
      }),
    1_200_000
  )
})
