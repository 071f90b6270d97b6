/** P1, P2: `kill -9` at any moment, then the same command again, ends in the state of a run that nobody disturbed. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Emulator, FaultPlan } from "@tinkex/emulator"
import { Journal } from "@tinkex/training"
import type { JournalRecord } from "@tinkex/training/JournalRecord"
import { type Ended, objects, start, supportTone, temporaryFolder } from "./kit.ts"

const steps = 20
const seed = Number(process.env["KILL_SEED"] ?? 20_261_124)

const random = (() => {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
})()
const between = (low: number, high: number) => low + Math.floor(random() * (high - low + 1))

type Kind = "anywhere" | "in a save" | "in a recovery"

interface Moment {
  readonly name: string
  readonly kind: Kind
  /** The journal has come so far. */
  readonly reached: (records: ReadonlyArray<JournalRecord>) => boolean
  /** How long to wait from then on, in milliseconds. */
  readonly wait: number
  readonly faults: string
}

const isSave = (record: JournalRecord) => record._tag === "Step" && record.save !== null

const inSave = (records: ReadonlyArray<JournalRecord>): boolean => {
  const open = records.flatMap((record) => (record._tag === "Step" && record.save !== null ? [record.save.name] : []))
  return open.some(
    (name) => !records.some((other) => (other._tag === "Verified" || other._tag === "SaveDead") && other.name === name)
  )
}

const inRecovery = (records: ReadonlyArray<JournalRecord>): boolean => {
  const last = records.findLastIndex(({ _tag }) => _tag === "Incident")
  return last >= 0 && !records.slice(last).some(({ _tag }) => _tag === "Started")
}

/** A run without a failure writes about this many records. */
const usual = 2 * steps + 9

const draw = (kind: Kind): Moment => {
  switch (kind) {
    case "anywhere": {
      const count = between(1, Math.floor(usual * 0.85))
      const faults = random() < 0.5 ? `corrupt@${between(2, steps - 2)}` : ""
      return { name: `after ${count} records`, kind, reached: (all) => all.length >= count, wait: 0, faults }
    }
    case "in a save": {
      const nth = between(1, 4)
      const wait = between(0, 300)
      return {
        name: `${wait} ms into save ${nth}`,
        kind,
        reached: (all) => all.filter(isSave).length >= nth,
        wait,
        faults: `delay:save_weights@${nth}=1500ms`
      }
    }
    case "in a recovery": {
      const at = between(4, steps - 2)
      const wait = between(0, 400)
      return {
        name: `${wait} ms into the recovery from step ${at}`,
        kind,
        reached: (all) => all.some(({ _tag }) => _tag === "Incident"),
        wait,
        faults: `corrupt@${at},delay:create_model@2=700ms,delay:load_weights@1=700ms`
      }
    }
  }
}

const moments: ReadonlyArray<Moment> = [
  ...Array.from({ length: 13 }, () => draw("anywhere")),
  ...Array.from({ length: 6 }, () => draw("in a save")),
  ...Array.from({ length: 6 }, () => draw("in a recovery"))
]

const options = "--json --name run --batch-size 2 --save-every 4 --pipelining 2".split(" ")

const command = (url: string, journal: string) => {
  const where = ["--emulator-url", url, "--journal", journal]
  return ["train", supportTone, ...where, "--steps", String(steps), "--recovery-base-delay", "100 millis", ...options]
}

/** What the run has written so far; nothing before it begins. */
const readRun = (folder: string) =>
  existsSync(join(folder, "run", "journal.log"))
    ? Journal.use((journal) => journal.read("run")).pipe(
        Effect.map((stamped) => stamped.map(({ record }) => record)),
        Effect.provide(Journal.layerFileSystem(folder), { local: true })
      )
    : Effect.succeed<ReadonlyArray<JournalRecord>>([])

const finished = Effect.fnUntraced(function* (ended: Ended) {
  assert.strictEqual(ended.code, 0, ended.stderr)
  const report = objects(ended.stdout).at(-1)
  assert.strictEqual(report?.["event"], "report")
  const { control } = yield* Emulator
  const id = String(report?.["trainingRunId"])
  const ledger = yield* control.ledger(id)
  return { report, hash: yield* control.stateHash(id), order: ledger.map(({ step }) => step) }
})

const undisturbed = Effect.gen(function* () {
  const { url } = yield* Emulator
  return yield* finished(yield* Effect.promise(() => start(command(url, temporaryFolder())).ended))
}).pipe(Effect.provide(Emulator.layer()))

/** Kills the command at the moment, gives it again, and tells what became of the run. */
const kill = (moment: Moment) =>
  Effect.gen(function* () {
    const { url } = yield* Emulator
    const folder = temporaryFolder()
    const first = start(command(url, folder))
    while (first.isRunning() && !moment.reached(yield* readRun(folder))) yield* Effect.sleep("3 millis")
    yield* Effect.sleep(moment.wait)
    first.kill("SIGKILL")
    const { signal } = yield* Effect.promise(() => first.ended)
    const left = yield* readRun(folder)
    const again = yield* finished(yield* Effect.promise(() => start(command(url, folder)).ended))
    const had = left.some(({ _tag }) => _tag === "Verified")
    return { moment, killed: signal === "SIGKILL", left, had, ...again }
  }).pipe(
    Effect.provide(Layer.unwrap(Effect.map(FaultPlan.parse(moment.faults), (faults) => Emulator.layer({ faults }))), {
      local: true
    })
  )

describe("kill -9", () => {
  it.live(
    `at 25 moments drawn with seed ${seed}: the same command again ends in the same state`,
    () =>
      Effect.gen(function* () {
        const expected = yield* undisturbed
        const inOrder = Array.from({ length: steps }, (_, step) => step)
        assert.deepStrictEqual(expected.order, inOrder)

        const runs = yield* Effect.forEach(moments, kill, { concurrency: 2 })
        for (const { had, hash, killed, moment, order, report } of runs) {
          const where = `seed ${seed}: ${moment.kind}, ${moment.name}, faults "${moment.faults}"`
          assert.isTrue(killed, `${where}: was over before it could be killed`)
          assert.strictEqual(hash, expected.hash, where)
          assert.deepStrictEqual(order, inOrder, where)
          if (had) assert.isAbove(Number(report?.["startedAt"]), 0, where)
        }
        const saves = runs.filter(({ left }) => inSave(left)).length
        const recoveries = runs.filter(({ left }) => inRecovery(left)).length
        const fromCheckpoint = runs.filter(({ had }) => had).length
        console.log(
          `seed ${seed}: ${runs.length} kills, ${saves} in a save, ${recoveries} in a recovery, ${fromCheckpoint} with a checkpoint to go on from`
        )
        assert.isAtLeast(runs.length, 25)
        assert.isAtLeast(saves, 5)
        assert.isAtLeast(recoveries, 5)
        assert.isAtLeast(fromCheckpoint, 10)
      }).pipe(Effect.provide(NodeServices.layer)),
    300_000
  )
})
