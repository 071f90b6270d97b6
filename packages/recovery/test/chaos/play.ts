/**
 * Plays one scenario against the emulator, on virtual time, and holds what came of it against I1 to I6 of the fault catalogue:
 *
 * - I1 the lineage of the final state has each batch exactly once, in order, and the state is that of a run that never failed;
 * - I2 one writer: epochs of the journal never fall, no request is repeated with other bytes, and the run completes once;
 * - I3 no checkpoint is deleted before a newer one is verified and proven;
 * - I4 every end is a result or a typed error that the scenario allows, and nothing hangs;
 * - I5 useful and wasted time add up to the time that has passed;
 * - I6 no secret in the journal, the events, the log or an error.
 */
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Layer, Logger, Option, Redacted, Stream } from "effect"
import { HttpClient } from "effect/http"
import { TestClock } from "effect/testing"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Recovery } from "@tinkex/recovery"
import { Tinker } from "@tinkex/tinker"
import {
  CheckpointPolicy,
  Journal,
  type JournalRecord,
  JournalStore,
  LearningRate,
  type RunReport,
  RunState,
  Trainer
} from "@tinkex/training"
import { JournalError, JournalUnwritable } from "@tinkex/training/JournalError"
import * as JournalFrame from "../../../training/src/internal/journalFrame.ts"
import { tinyLoop } from "../../../training/test/TinyLoop.ts"
import { data, finalState } from "../../../training/test/TinyRun.ts"
import { type Affliction, type Place, type Scenario, steps, type Where } from "./Scenario.ts"

const name = "chaos"
const secret = "tml-chaos-secret-4711"
/** No scenario takes longer, in virtual hours. */
const longestHours = 60

/** What came of a scenario. */
export interface Outcome {
  /** Whether what was to go wrong did. */
  readonly fired: boolean
  readonly processes: number
  readonly violations: ReadonlyArray<string>
}

interface Process {
  /** Where it stops, and what that means. */
  readonly affliction: Affliction | undefined
  readonly reached: Deferred.Deferred<void>
  readonly released: Deferred.Deferred<void>
  passed: number
  appends: number
  dead: boolean
}

const healthy = (affliction?: Affliction): Effect.Effect<Process> =>
  Effect.map(Effect.all([Deferred.make<void>(), Deferred.make<void>()]), ([reached, released]) => ({
    affliction,
    reached,
    released,
    passed: 0,
    appends: 0,
    dead: false
  }))

const gone = Effect.die(new Error("the process is dead"))

/** Every place where a process waits goes through here. */
const at = (process: Process, place: Place): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (process.dead) return gone
    const { affliction } = process
    if (affliction === undefined || affliction._tag === "FullDisk") return Effect.void
    if (!affliction.at.is(place) || ++process.passed !== affliction.at.nth) return Effect.void
    switch (affliction._tag) {
      case "Death":
      case "TornTail":
        process.dead = true
        return Effect.andThen(Deferred.succeed(process.reached, undefined), gone)
      case "Rival":
        return Effect.asVoid(Deferred.succeed(process.reached, undefined))
      case "Standstill":
        return Effect.andThen(Deferred.succeed(process.reached, undefined), Deferred.await(process.released))
    }
  })

const fullDisk = new JournalError({
  reason: new JournalUnwritable({
    path: "journal.log",
    operation: "append",
    problem: "ENOSPC: no space left on device"
  })
})

interface Disk {
  /** What was being written when the process died. */
  torn: ReadonlyArray<JournalRecord.Stamped>
  /** Requests that the emulator had seen when the disk was full. */
  fullAt: number | undefined
}

const storeOf = (
  store: JournalStore.JournalStore,
  process: Process,
  disk: Disk,
  requests: Effect.Effect<number>
): JournalStore.JournalStore => ({
  ...store,
  append: (run, epoch, records) => {
    const place = (when: Place["when"]): Place => ({
      what: "append",
      when,
      records: records.map(({ record }) => record._tag),
      url: ""
    })
    const full = Effect.suspend(() => {
      const { affliction } = process
      if (affliction?._tag !== "FullDisk" || ++process.appends < affliction.append) return Effect.void
      return Effect.andThen(
        Effect.tap(requests, (seen) => Effect.sync(() => (disk.fullAt ??= seen))),
        Effect.fail(fullDisk)
      )
    })
    return Effect.sync(() => {
      if (!process.dead) disk.torn = records
    }).pipe(
      Effect.andThen(at(process, place("before"))),
      Effect.andThen(full),
      Effect.andThen(store.append(run, epoch, records)),
      Effect.tap(() => at(process, place("after")))
    )
  }
})

/** An SDK with a session of its own, and a way to the journal. */
const layerOf = (store: JournalStore.JournalStore, process: Process, twice: Where | undefined) => {
  let seen = 0
  const http = Layer.effect(
    HttpClient.HttpClient,
    Effect.map(
      HttpClient.HttpClient,
      HttpClient.transform((response, { url }) => {
        const place = (when: Place["when"]): Place => ({ what: "request", when, records: [], url })
        const doubled = twice !== undefined && twice.is(place("before")) && ++seen === twice.nth
        return at(process, place("before")).pipe(
          Effect.andThen(doubled ? Effect.andThen(response, response) : response),
          Effect.tap(() => at(process, place("after")))
        )
      })
    )
  )
  return Layer.mergeAll(
    Layer.fresh(Tinker.layer({ apiKey: Redacted.make(secret) })).pipe(Layer.provide(http)),
    Layer.fresh(Journal.layerStore(store))
  )
}

const programOf = (scenario: Scenario, digest: string) => {
  const { every, horizon, keepLast, pace, pipelining, ttl } = scenario
  const common = {
    name,
    pipelining,
    capability: scenario.capability,
    checkpoints: CheckpointPolicy.everySteps(every, { keepLast, ...(ttl === undefined ? {} : { ttl }) }),
    model: { baseModel: "tiny/byte-lm-16", ...(scenario.model ?? { rank: 2 }) },
    ...(horizon === undefined ? {} : { horizon }),
    ...(scenario.divergence === undefined ? {} : { divergence: scenario.divergence })
  }
  if (scenario.rl) return tinyLoop({ ...common, steps })
  return Effect.gen(function* () {
    const dataset = yield* data(steps, digest)
    const probe = (yield* dataset.batch(0)).slice(0, 1)
    return yield* Trainer.fineTune({
      ...common,
      learningRate: LearningRate.linear({ peak: 0.05, warmup: 2 }),
      ...(scenario.probe === true ? { probe } : {}),
      data: Effect.succeed({
        ...dataset,
        batch: (k) =>
          dataset
            .batch(k)
            .pipe(Effect.delay(pace ?? 0), Effect.delay(scenario.idle?.step === k ? scenario.idle.lasts : 0))
      })
    })
  })
}

const jumping =
  ({ byMillis, everyMillis }: NonNullable<Scenario["jumps"]>) =>
  (clock: Clock.Clock): Clock.Clock => {
    const now = () => {
      const real = clock.currentTimeMillisUnsafe()
      return real + (Math.floor(real / everyMillis) % 2 === 0 ? 0 : byMillis)
    }
    return { ...clock, currentTimeMillisUnsafe: now, currentTimeMillis: Effect.sync(now) }
  }

const reasonOf = (error: unknown): string =>
  typeof error === "object" &&
  error !== null &&
  "reason" in error &&
  typeof error.reason === "object" &&
  error.reason !== null &&
  "_tag" in error.reason
    ? String(error.reason._tag)
    : String(error)

interface Calm {
  readonly steps: ReadonlyArray<number>
  readonly digests: ReadonlyArray<string>
  readonly hash: string
}

const calms = new Map<string, Calm>()

type Ended = Exit.Exit<RunReport.RunReport, { readonly message: string }>

const played = Effect.fnUntraced(function* (scenario: Scenario) {
  const { control } = yield* Emulator
  const violations: Array<string> = []
  const told: Array<string> = []
  const store = JournalStore.memory()
  const disk: Disk = { torn: [], fullAt: undefined }
  const requests = Effect.map(control.requests, (all) => all.length)
  const first = yield* healthy(scenario.affliction)

  const start = (process: Process, journal: JournalStore.JournalStore, digest = "chaos") => {
    const life = Effect.gen(function* () {
      const recovery = yield* Recovery
      yield* recovery.events.pipe(
        Stream.runForEach((event) => Effect.sync(() => told.push(JSON.stringify(event)))),
        Effect.forkScoped({ startImmediately: true })
      )
      return yield* programOf(scenario, digest)
    }).pipe(
      Effect.scoped,
      Effect.provide(Recovery.layer({ enabled: true, ...scenario.policy })),
      Effect.provide(layerOf(storeOf(journal, process, disk, requests), process, scenario.twice), { local: true }),
      Effect.updateService(Clock.Clock, scenario.jumps === undefined ? (clock) => clock : jumping(scenario.jumps))
    )
    const dies = Effect.andThen(
      Deferred.await(process.reached),
      Effect.suspend(() => (process.dead ? Effect.interrupt : Effect.never))
    )
    return Effect.forkChild(Effect.exit(Effect.raceFirst(life, dies)))
  }

  /** Lets time pass until it is so. */
  const until = Effect.fnUntraced(function* (is: () => boolean) {
    for (let seconds = 0; seconds < 120 && !is(); seconds++) yield* TestClock.adjust("1 second")
    for (let minutes = 0; minutes < 60 * longestHours && !is(); minutes++) yield* TestClock.adjust("1 minute")
    return is()
  })
  const ended = Effect.fnUntraced(function* (fiber: Fiber.Fiber<Ended>) {
    if (yield* until(() => fiber.pollUnsafe() !== undefined)) return yield* Fiber.join(fiber)
    yield* Effect.forkDetach(Fiber.interrupt(fiber))
    return undefined
  })

  let processes = 1
  let journal: JournalStore.JournalStore & { readonly expire?: (run: string) => void } = store
  let last: Ended | undefined
  const next = Effect.fnUntraced(function* () {
    processes++
    return yield* ended(yield* start(yield* healthy(), journal))
  })
  const fiber = yield* start(first, store)

  switch (scenario.affliction?._tag) {
    case "Rival": {
      yield* until(() => Deferred.isDoneUnsafe(first.reached) || fiber.pollUnsafe() !== undefined)
      const rival = yield* start(yield* healthy(), store)
      const refused = yield* ended(rival)
      last = yield* ended(fiber)
      const reason = refused?._tag === "Failure" ? reasonOf(Option.getOrUndefined(Exit.findErrorOption(refused))) : ""
      const late = refused?._tag === "Success"
      if (!late && reason !== "LeaseHeld") violations.push(`I2: the second process ended as ${reason}`)
      break
    }
    case "Standstill": {
      yield* until(() => Deferred.isDoneUnsafe(first.reached) || fiber.pollUnsafe() !== undefined)
      if (fiber.pollUnsafe() !== undefined) {
        last = yield* ended(fiber)
        break
      }
      store.expire(name)
      last = yield* next()
      yield* Deferred.succeed(first.released, undefined)
      const woken = yield* ended(fiber)
      const reason =
        woken?._tag === "Failure" ? reasonOf(Option.getOrUndefined(Exit.findErrorOption(woken))) : "success"
      if (woken === undefined) violations.push("I4: the process that woke up hangs")
      else if (reason !== "Fenced") violations.push(`I2: the process that woke up ended as ${reason}`)
      break
    }
    default: {
      last = yield* ended(fiber)
      const { affliction } = scenario
      if (first.dead) {
        if (affliction?._tag === "Death" && affliction.unproven) store.expire(name)
        if (affliction?._tag === "TornTail") journal = yield* tear(store, disk, affliction, violations)
        if (scenario.otherProgram === true) {
          processes++
          const other = yield* ended(yield* start(yield* healthy(), journal, "other data"))
          const reason =
            other?._tag === "Failure" ? reasonOf(Option.getOrUndefined(Exit.findErrorOption(other))) : "success"
          if (reason !== "ConfigChanged" && !scenario.rl) violations.push(`I4: another program ended as ${reason}`)
        }
        last = yield* next()
      }
    }
  }
  for (let starts = processes; starts < 5 && last?._tag === "Failure"; starts++) {
    const error = Option.getOrUndefined(Exit.findErrorOption(last))
    if (error === undefined) {
      violations.push(`I4: it died of ${Cause.pretty(last.cause).slice(0, 400)}`)
      break
    }
    told.push(error.message)
    const reason = reasonOf(error)
    if (scenario.forGood?.includes(reason) === true) break
    if (scenario.ends?.includes(reason) !== true) {
      violations.push(`I4: it ended as ${reason}: ${error.message}`)
      break
    }
    last = yield* next()
  }
  if (last === undefined) violations.push("I4: it hangs")

  const stamped = Option.getOrElse(yield* journal.read(name), () => [])
  const state = RunState.fold(stamped.map(({ record }) => record))
  if (last?._tag === "Success") {
    const found = yield* finalState(last.value.trainingRunId)
    const calm = yield* calmOf(scenario)
    if (found.steps.join() !== calm.steps.join()) violations.push(`I1: the ledger is ${found.steps.join(" ")}`)
    else if (found.digests.join() !== calm.digests.join()) violations.push("I1: a step has other data")
    else if (found.hash !== calm.hash) violations.push("I1: the state is another one")
    const { path } = last.value
    const delivered = (yield* control.checkpoints).find((checkpoint) => checkpoint.path === path)
    // A rehearsal takes no step: what only a step shows is the next run's to find.
    if (delivered === undefined || (delivered.damage !== null && delivered.damage !== "poisonedOnStep")) {
      violations.push(`I1: the checkpoint that it ends with is ${delivered?.damage ?? "not there"}`)
    }
    const { elapsed, useful, wasted } = last.value.goodput
    const passed = (stamped.at(-1)?.t.epochMilliseconds ?? 0) - (stamped[0]?.t.epochMilliseconds ?? 0)
    const sum = Object.values(wasted).reduce((all, one) => all + one, useful)
    if (Math.abs(sum - elapsed) > 1 || (scenario.jumps === undefined && Math.abs(elapsed - passed) > 1)) {
      violations.push(`I5: ${sum} ms are accounted for, ${passed} ms have passed`)
    }
  }
  const attempts = state.attempts.length
  if (scenario.affliction === undefined && attempts > (scenario.mostAttempts ?? 4)) {
    violations.push(`${attempts} attempts`)
  }
  const fired = (yield* control.firedFaults).length > 0
  if (fired && state.incidents.length < (scenario.leastIncidents ?? 0)) violations.push("nobody has noticed")
  const bad = new Set(
    (yield* control.checkpoints).filter(({ damage }) => shown.has(damage ?? "")).map(({ path }) => path)
  )
  violations.push(...(yield* oneWriter(stamped)), ...deletions(stamped, bad), ...attached(stamped))
  const everything = JSON.stringify(stamped) + told.join("\n")
  if (everything.includes(secret)) violations.push("I6: the key was written down")
  const happened =
    fired ||
    first.passed >=
      (scenario.affliction !== undefined && "at" in scenario.affliction ? scenario.affliction.at.nth : 1e9) ||
    disk.fullAt !== undefined ||
    scenario.jumps !== undefined ||
    scenario.twice !== undefined ||
    scenario.idle !== undefined
  const outcome: Outcome = { fired: happened, processes, violations }
  return { outcome, told }
})

const isStep = /forward_backward|optim_step|save_weights/

/** What is sent to a model of the run is written down first, epochs never fall, the run completes once, and what is sent again under its number is the same. */
const oneWriter = Effect.fnUntraced(function* (stamped: ReadonlyArray<JournalRecord.Stamped>) {
  const { control } = yield* Emulator
  const found: Array<string> = []
  let epoch = 0
  for (const record of stamped) {
    if (record.epoch < epoch) found.push(`I2: writer ${record.epoch} wrote after writer ${epoch}`)
    epoch = Math.max(epoch, record.epoch)
  }
  if (stamped.filter(({ record }) => record._tag === "Completed").length > 1) found.push("I2: it completed twice")
  const models = new Map<number, string>()
  const begins = new Map<string, number>()
  const written = new Set<string>()
  for (const { record } of stamped) {
    if (record._tag === "Started") {
      models.set(record.attempt, record.trainingRunId)
      begins.set(record.trainingRunId, record.nextSeq)
    }
    const ops = record._tag === "Step" ? record.ops : record._tag === "Save" ? [record.op] : []
    for (const { seqIds } of ops) {
      for (const seq of seqIds) written.add(`${"attempt" in record ? models.get(record.attempt) : ""}/${seq}`)
    }
  }
  const bytes = new Map<string, string>()
  for (const { digest, endpoint, modelId, seqId } of yield* control.requests) {
    if (digest === undefined || seqId === undefined) continue
    const place = `${modelId}/${seqId}`
    // What comes before its first step has made the model ready.
    const begin = begins.get(modelId ?? "") ?? Number.POSITIVE_INFINITY
    if (isStep.test(endpoint) && seqId >= begin && !written.has(place)) {
      found.push(`I2: ${endpoint} ${place} was sent and never written down`)
    }
    if ((bytes.get(place) ?? digest) !== digest) found.push(`I2: ${place} was sent with other bytes`)
    bytes.set(place, digest)
  }
  return found
})

/** What a load shows; what does not show there is nobody's to find. */
const shown = new Set(["truncated", "missing", "empty", "poisonedOnLoad", "absent"])

/** What the run believes has to be true as well: `bad` are the checkpoints that the server knows cannot be loaded. */
const deletions = (stamped: ReadonlyArray<JournalRecord.Stamped>, bad: ReadonlySet<string>): ReadonlyArray<string> => {
  const found: Array<string> = []
  let state = RunState.empty
  for (const { record } of stamped) {
    if (record._tag === "DeleteIntent") {
      const victim = state.verified.find(({ path }) => path === record.path)
      const newer = RunState.candidates(state).some(
        ({ path, step }) => step > (victim?.step ?? 0) && state.proven.has(path) && !bad.has(path)
      )
      if (!newer) found.push(`I3: ${record.path} was deleted, and no newer one can be loaded`)
    }
    state = RunState.apply(state, record)
  }
  return found
}

/** A server that executes an operation twice must not be sent one twice: a model with unresolved steps is left behind (RP23). */
const attached = (stamped: ReadonlyArray<JournalRecord.Stamped>): ReadonlyArray<string> => {
  const found: Array<string> = []
  let state = RunState.empty
  for (const { record } of stamped) {
    state = RunState.apply(state, record)
    if (record._tag !== "Reattached" || state.run?.capability === "D3") continue
    const { committed = 0, steps = new Map() } = state.attempts.at(-1) ?? {}
    if ([...steps.keys()].some((step) => step >= committed)) found.push("I1: steps of unknown outcome were sent again")
  }
  return found
}

const line = ({ epoch, n, record, t }: JournalRecord.Stamped) =>
  JournalFrame.encode(n, epoch, t.epochMilliseconds, record)

/** The journal as the disk has it after a death in the middle of a write, opened as a folder is. */
const tear = Effect.fnUntraced(function* (
  store: JournalStore.JournalStore,
  { torn }: Disk,
  { filling, share }: Extract<Affliction, { readonly _tag: "TornTail" }>,
  violations: Array<string>
) {
  const kept = Option.getOrElse(yield* store.read(name), () => [])
  const writing = Buffer.from(torn.map(line).join(""))
  const part = writing.subarray(0, Math.min(writing.length - 1, Math.floor((writing.length * share) / 100)))
  const parsed = JournalFrame.parse(Buffer.concat([Buffer.from(kept.map(line).join("")), part, Buffer.from(filling)]))
  if (parsed.damage?.torn === false) violations.push(`I4: a torn tail was taken for damage: ${parsed.damage.problem}`)
  if (parsed.records.length < kept.length) violations.push("I1: a durable record was cut off")
  const fresh = JournalStore.memory()
  const claim = yield* fresh.acquire(name, { host: "here", pid: 1, bootId: null, file: null })
  for (const { record, t } of parsed.records) {
    yield* fresh.append(name, claim.epoch, [{ n: yield* count(fresh), epoch: claim.epoch, t, record }])
  }
  yield* fresh.release(name, claim.epoch)
  return fresh
})

const count = (store: JournalStore.JournalStore) =>
  Effect.map(store.read(name), (records) => Option.getOrElse(records, () => []).length)

const worldOf = (spec: string) =>
  Layer.unwrap(Effect.map(FaultPlan.parse(spec), (faults) => Emulator.layerHttpClient({ faults, seed: 3 })))

const quiet = <A, E, R>(effect: Effect.Effect<A, E, R>, told: Array<string>) =>
  effect.pipe(
    Effect.provide(Logger.layer([Logger.make(({ message }) => void told.push(JSON.stringify(message) ?? ""))])),
    Effect.provide(TestClock.layer({ warningDelay: "1 hour" }))
  )

/** The same run without the fault. */
const calmOf = (scenario: Scenario): Effect.Effect<Calm> =>
  Effect.suspend(() => {
    const key = JSON.stringify([scenario.rl, scenario.model ?? null])
    const known = calms.get(key)
    if (known !== undefined) return Effect.succeed(known)
    return Effect.gen(function* () {
      const plain: Scenario = {
        spec: "",
        pipelining: 1,
        every: 3,
        keepLast: 10,
        capability: "D0",
        rl: scenario.rl,
        ...(scenario.model === undefined ? {} : { model: scenario.model })
      }
      const process = yield* healthy()
      const store = JournalStore.memory()
      const fiber = yield* Effect.forkChild(
        programOf(plain, "chaos").pipe(Effect.provide(layerOf(store, process, undefined), { local: true }))
      )
      for (let i = 0; i < 600 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("1 second")
      const calm: Calm = yield* finalState((yield* Fiber.join(fiber)).trainingRunId)
      calms.set(key, calm)
      return calm
    }).pipe(Effect.provide(worldOf(""), { local: true }), (effect) => quiet(effect, []), Effect.orDie)
  })

/** Never fails: whatever goes wrong is a violation. */
export const play = (scenario: Scenario): Effect.Effect<Outcome> =>
  Effect.suspend(() => {
    const logged: Array<string> = []
    return played(scenario).pipe(
      Effect.provide(worldOf(scenario.spec), { local: true }),
      (effect) => quiet(effect, logged),
      Effect.map(({ outcome }) =>
        logged.some((text) => text.includes(secret))
          ? { ...outcome, violations: [...outcome.violations, "I6: the key was logged"] }
          : outcome
      ),
      Effect.catchCause((cause) =>
        Effect.succeed({ fired: true, processes: 0, violations: [`it broke: ${Cause.pretty(cause).slice(0, 600)}`] })
      )
    )
  })

/** A scenario as a line that says all of it. */
export const told = (scenario: Scenario): string =>
  JSON.stringify(scenario, (_, value: unknown) => (typeof value === "function" ? String(value) : value))
