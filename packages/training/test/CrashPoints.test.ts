import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Option, Redacted } from "effect"
import { HttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Tinker } from "@tinkex/tinker"
import { Journal, JournalStore, RunGuard, SeededRandom } from "../src/index.ts"
import { tinyLoop } from "./TinyLoop.ts"
import { finalState, tiny } from "./TinyRun.ts"

/**
 * A process can be stopped wherever it waits for somebody else: before and after each request, before and after each write of
 * its journal. What it only held in memory is lost with it, lazy records among that: so it is with `kill -9`, and with a power
 * loss, since what is not flushed does not count here. `CRASH_POINTS=all` stops at every one of them.
 */
const total = 200
const wanted = process.env["CRASH_POINTS"] ?? "4"
const seed = Number(process.env["CRASH_SEED"] ?? 1)
const faults = ["", "corrupt@117", "soft-fail:optim_step@61,absent@120"]

interface Death {
  /** Counts the places passed; the process stops at the one numbered `at`. */
  passed: number
  readonly at: number
  readonly dead: Deferred.Deferred<void>
}

const point = (death: Death): Effect.Effect<void> =>
  Effect.suspend(() =>
    death.passed >= death.at || ++death.passed === death.at
      ? Effect.andThen(Deferred.succeed(death.dead, undefined), Effect.die(new Error("the process is dead")))
      : Effect.void
  )

const mortalStore = (store: JournalStore.JournalStore, death: Death): JournalStore.JournalStore => ({
  ...store,
  append: (run, epoch, records) =>
    Effect.andThen(point(death), store.append(run, epoch, records)).pipe(Effect.tap(() => point(death))),
  put: (run, text) => Effect.andThen(point(death), store.put(run, text)).pipe(Effect.tap(() => point(death)))
})

/** A process of its own: an SDK with a session, and a way to the journal. */
const process_ = (store: JournalStore.JournalStore, death: Death) =>
  Layer.mergeAll(
    Layer.fresh(Tinker.layer({ apiKey: Redacted.make("tml-test") })).pipe(
      Layer.provide(
        Layer.effect(
          HttpClient.HttpClient,
          Effect.map(
            HttpClient.HttpClient,
            HttpClient.transform((response) =>
              Effect.andThen(point(death), response).pipe(Effect.tap(() => point(death)))
            )
          )
        )
      )
    ),
    Layer.fresh(Journal.layerStore(mortalStore(store, death)))
  )

const eager: RunGuard.RunGuard = {
  watch: () => Effect.void,
  recover: (request) =>
    request.restore({ strategy: { _tag: "Latest" }, optimizer: true, onProgress: () => Effect.void })
}

interface Setting {
  readonly capability: "D0" | "D3"
  readonly pipelining: number
}

type Program = (setting: Setting) => ReturnType<typeof tiny>

const sft: Program = (setting) => tiny({ ...setting, steps: total, every: 20, keepLast: 20, rehearse: false })

const rl: Program = (setting) => tinyLoop({ ...setting, steps: total, every: 20, rehearse: false })

/** Lets time pass until it is over. */
const settled = <A, E>(fiber: Fiber.Fiber<A, E>) =>
  Effect.gen(function* () {
    for (let seconds = 0; seconds < 600 && fiber.pollUnsafe() === undefined; seconds++) {
      yield* TestClock.adjust("1 second")
    }
    if (fiber.pollUnsafe() === undefined) assert.fail("it hangs")
    return yield* Fiber.join(fiber)
  })

/** Stops at a place, starts again, and looks at the end. */
const survive = (program: Program, at: number, spec: string, setting: Setting) =>
  Effect.gen(function* () {
    const store = JournalStore.memory()
    const death: Death = { passed: 0, at, dead: yield* Deferred.make<void>() }
    const run = program(setting).pipe(Effect.provideService(RunGuard.RunGuard, Option.some(eager)))
    const first = yield* Effect.forkChild(
      Effect.exit(Effect.raceFirst(run, Effect.andThen(Deferred.await(death.dead), Effect.interrupt))).pipe(
        Effect.provide(process_(store, death), { local: true })
      )
    )
    const exit = yield* settled(first)
    if (exit._tag === "Success") {
      return { passed: death.passed, died: false, state: yield* finalState(exit.value.trainingRunId) }
    }
    const forever: Death = { passed: 0, at: Number.POSITIVE_INFINITY, dead: yield* Deferred.make<void>() }
    const second = yield* Effect.forkChild(Effect.provide(run, process_(store, forever), { local: true }))
    const report = yield* settled(second)
    return { passed: death.passed, died: true, state: yield* finalState(report.trainingRunId) }
  }).pipe(
    Effect.provide(
      Layer.unwrap(Effect.map(FaultPlan.parse(spec), (faults) => Emulator.layerHttpClient({ faults, seed: 3 })))
    )
  )

/** All places, or some that are spread over all of them. */
const places = (all: number): ReadonlyArray<number> => {
  if (wanted === "all") return Array.from({ length: all }, (_, i) => i + 1)
  const random = SeededRandom.make(seed, 0)
  const some = Number(wanted)
  return Array.from({ length: some }, (_, i) => 1 + Math.floor((i * all) / some) + random.int(Math.ceil(all / some)))
}

describe(`T1, P2: a process that stops anywhere in a ${total}-step run (CRASH_POINTS=${wanted} CRASH_SEED=${seed})`, () => {
  for (const [name, program] of [
    ["fine-tuning", sft],
    ["reinforcement learning", rl]
  ] as const) {
    it.effect(
      name,
      () =>
        Effect.gen(function* () {
          const calm = yield* survive(program, Number.POSITIVE_INFINITY, "", { capability: "D0", pipelining: 1 })
          assert.deepStrictEqual(calm.state.steps, [...Array(total).keys()])
          for (const [index, at] of places(calm.passed).entries()) {
            const spec = faults[index % faults.length] ?? ""
            const setting: Setting = { capability: index % 2 === 0 ? "D0" : "D3", pipelining: index % 4 }
            const { died, state } = yield* survive(program, at, spec, setting)
            // With other settings there may be fewer places.
            if (!died) assert.isAbove(at, calm.passed / 2, "most places are reached")
            assert.deepStrictEqual(
              state,
              calm.state,
              `place ${at} of ${calm.passed}, ${JSON.stringify(setting)}, "${spec}"`
            )
          }
        }),
      86_400_000
    )
  }
})
