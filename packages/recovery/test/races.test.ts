import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Layer, Option, Random, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Recovery, type RecoveryEvent, type RecoveryPolicy } from "@tinkex/recovery"
import type { Checkpoint } from "@tinkex/tinker"
import { RunLost } from "@tinkex/tinker/TinkerError"
import { Journal } from "@tinkex/training"
import { JournalError, JournalUnwritable } from "@tinkex/training/JournalError"
import { fail, FakeTinker } from "./fakeTinker.ts"
import { SharedJournal } from "./sharedJournal.ts"

const monitors = 16
const races = Number(process.env["TINKEX_RACES"] ?? 200)
const seed = process.env["TINKEX_SEED"] ?? String(Date.now())

const stepOf = (checkpoint: Checkpoint.Checkpoint) => Option.some(Number(checkpoint.checkpointId.split("-").at(-1)))

const skewed =
  (millis: number) =>
  (clock: Clock.Clock): Clock.Clock => ({
    ...clock,
    currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
    currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis)
  })

/** A process of its own, with a clock of its own, over a service and a journal that all of them share. */
const launch = Effect.fnUntraced(function* (
  fake: FakeTinker,
  journal: SharedJournal,
  options: RecoveryPolicy.RecoveryPolicyOptions,
  skewMillis = 0
) {
  const scope = yield* Scope.make()
  const layer = Recovery.layer({ enabled: true, ...options }).pipe(
    Layer.provide(Layer.merge(fake.layer, journal.layer)),
    Layer.fresh
  )
  const context = yield* Layer.buildWithScope(layer, scope).pipe(Effect.updateService(Clock.Clock, skewed(skewMillis)))
  const recovery = Context.get(context, Recovery)
  const events: Array<RecoveryEvent.RecoveryEvent> = []
  yield* recovery.events.pipe(
    Stream.runForEach((event) => Effect.sync(() => events.push(event))),
    Effect.forkIn(scope, { startImmediately: true })
  )
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const watch = (options: Parameters<typeof recovery.watch>[0]) => Scope.provide(recovery.watch(options), scope)
  return { recovery, events, watch, kill: Scope.close(scope, Exit.void) }
})

describe("R9: one owner", () => {
  it.effect(
    `${monitors} monitors in ${races} races on one failure each, clocks skewed by up to 10 minutes (seed ${seed})`,
    () =>
      Effect.gen(function* () {
        const fake = new FakeTinker()
        const journal = new SharedJournal()
        const all = yield* Effect.forEach(Array.from({ length: monitors }), () =>
          Effect.gen(function* () {
            const skew = yield* Random.nextIntBetween(-600_000, 600_000)
            const interval = yield* Random.nextIntBetween(5_000, 30_000)
            return yield* launch(
              fake,
              journal,
              { pollInterval: interval, maxConcurrent: 64, maxRequestsPerSecond: 1000 },
              skew
            )
          })
        )
        const ids = Array.from({ length: races }, (_, i) => `run-${i}`)
        for (const id of ids) fake.addRun(id, [1, 2])
        for (const { watch } of all) {
          for (const id of ids) yield* watch({ runId: id, name: id, stepOf })
          yield* TestClock.adjust(yield* Random.nextIntBetween(0, 3_000))
        }
        // one in ten leaders stalls in the middle of its restore for longer than its lease lasts
        const stalling = new Set<string>()
        for (const id of ids) if ((yield* Random.next) < 0.1) stalling.add(`tinker://${id}/weights/step-2`)
        const stalled = new Set<string>()
        fake.onLoad = (path) =>
          Effect.gen(function* () {
            if (stalling.has(path) && !stalled.has(path)) {
              stalled.add(path)
              yield* Effect.sleep("2 minutes")
              return
            }
            yield* Effect.sleep(yield* Random.nextIntBetween(1, 20_000))
          })
        for (const id of ids) {
          fake.poison(id)
          if ((yield* Random.next) < 0.1) yield* TestClock.adjust(500)
        }
        yield* TestClock.adjust("1 second").pipe(Effect.repeat({ times: 60 }))
        for (const path of stalled) journal.revoke(path.slice("tinker://".length).split("/")[0] ?? "")
        yield* TestClock.adjust("5 seconds").pipe(Effect.repeat({ times: 60 }))

        const newest = new Map<string, string>()
        for (const id of ids) {
          const started = journal.started(id)
          assert.strictEqual(started.length, 2, `${id}: the first attempt and one new one, not ${started.join()}`)
          newest.set(id, started[1] ?? "")
        }
        const alive = [...fake.runs.keys()].filter(
          (id) => id.startsWith("new-") && !fake.requests.includes(`unload ${id}`)
        )
        assert.sameMembers(alive, [...newest.values()], "every other model was taken away again")
        assert.isAtLeast(journal.refused, stalled.size, "each stalled writer was refused")
        for (const { events, recovery } of all) {
          for (const { phase, runId } of yield* recovery.status) {
            assert.strictEqual(phase, "watched", runId)
            assert.isTrue([...newest.values()].includes(runId), `${runId} is followed by everybody`)
          }
          assert.isFalse(events.some((event) => event._tag === "callback_failed"))
        }
        const completed = all.flatMap(({ events }) => events.filter((event) => event._tag === "completed"))
        assert.strictEqual(completed.length, races)
      }).pipe(Effect.scoped, Random.withSeed(seed)),
    240_000
  )

  it.effect("a process that dies at any point of a recovery leaves it to be finished, once", () =>
    Effect.gen(function* () {
      let points = 0
      for (let point = 0; ; point++) {
        const fake = new FakeTinker()
        const journal = new SharedJournal()
        fake.addRun("run-1", [1, 2, 3])
        fake.onLoad = (path) =>
          path.endsWith("step-3") ? Effect.fail(fail(new RunLost({ runId: path, detail: "no" }))) : Effect.void
        // the newest one is bad in a way that condemns it
        fake.ranks.set("tinker://run-1/weights/step-3", 16)
        let awaited = 0
        const dead = Effect.never
        /** Every place where a recovery waits for somebody else. */
        const boundary = Effect.suspend(() => (awaited++ === point ? dead : Effect.void))
        journal.onAppend = () => boundary
        fake.onRead = () => boundary
        fake.onCreate = () => boundary
        const load = fake.onLoad
        fake.onLoad = (path, id) => Effect.andThen(boundary, load(path, id))
        const first = yield* launch(fake, journal, {})
        const client = fake.client("run-1")
        yield* first.watch({ runId: "run-1", name: "run", client, stepOf })
        yield* TestClock.adjust("1 second")
        yield* fake.breakClient("run-1", fail(new RunLost({ runId: "run-1", detail: "gone" })))
        yield* TestClock.adjust("10 seconds")
        const reached = awaited > point
        // it does not end, it just does nothing any more: nobody tidies up after a process that was killed
        journal.revoke("run")

        points++
        awaited = Number.NEGATIVE_INFINITY
        const second = yield* launch(fake, journal, {})
        // once the incident is written down the journal tells what failed; before that, only the flag can
        const written = journal.logs.get("run")?.records.some(({ record }) => record._tag === "Incident") === true
        if (!written) fake.poison("run-1")
        yield* second.watch({ runId: "run-1", name: "run", stepOf })
        yield* TestClock.adjust("1 second").pipe(Effect.repeat({ times: 90 }))
        const started = journal.started("run")
        assert.strictEqual(started.length, 2, `point ${point}: ${started.join()}`)
        const [status] = yield* second.recovery.status
        assert.deepStrictEqual([status?.runId, status?.phase], [started[1], "watched"], `point ${point}`)
        const left = [...fake.runs.keys()].filter(
          (id) => id.startsWith("new-") && id !== started[1] && !fake.requests.includes(`unload ${id}`)
        )
        // a model whose maker died before it could write down its id goes with its session
        const known = new Set(
          (journal.logs.get("run")?.records ?? []).flatMap(({ record }) =>
            record._tag === "Created" ? [record.trainingRunId] : []
          )
        )
        assert.deepStrictEqual(
          left.filter((id) => known.has(id)),
          [],
          `point ${point}: no known model is left over`
        )
        yield* first.kill
        yield* second.kill
        if (!reached) {
          const tags = (journal.logs.get("run")?.records ?? []).map(({ record }) => record._tag)
          assert.deepStrictEqual(tags.slice(0, 6), ["Attempt", "Started", "Incident", "Attempt", "Created", "Started"])
          break
        }
      }
      assert.isAbove(points, 10)
    }).pipe(Effect.scoped)
  )

  it.effect("F59: where the journal cannot be written nothing is made, and the end is typed", () =>
    Effect.gen(function* () {
      const fake = new FakeTinker()
      fake.addRun("run-1", [1])
      const full = new JournalError({
        reason: new JournalUnwritable({ path: "journal.log", operation: "write", problem: "no space left" })
      })
      const journal = Layer.succeed(Journal, {
        open: () => Effect.fail(full),
        read: () => Effect.fail(full),
        list: Effect.fail(full)
      })
      const layer = Recovery.layer({ enabled: true }).pipe(Layer.provide(Layer.merge(fake.layer, journal)))
      yield* Effect.gen(function* () {
        const recovery = yield* Recovery
        const failures: Array<string> = []
        yield* recovery.watch({
          runId: "run-1",
          stepOf,
          onFailure: ({ error }) => Effect.sync(() => failures.push(`${error.reason._tag} ${error.message}`))
        })
        fake.poison("run-1")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(failures.length, 1)
        assert.match(failures[0] ?? "", /^JournalFailed .*no space left/)
        assert.notInclude(fake.requests, "create")
      }).pipe(Effect.provide(layer))
    }).pipe(Effect.scoped)
  )
})
