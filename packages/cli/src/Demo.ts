/**
 * The promise, shown: a run that is poisoned on the way and recovers by itself ends with the weights and the optimizer of one
 * that never failed. What is claimed is read from the server, not from the client that claims it.
 */
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { Emulator } from "@tinkex/emulator/Emulator"
import type { LedgerEntry } from "@tinkex/emulator/EmulatorControl"
import * as FaultPlan from "@tinkex/emulator/FaultPlan"
import * as LanguageModel from "@tinkex/emulator/LanguageModel"
import type { IncidentReport } from "@tinkex/training/RunReport"
import { Output } from "./Output.ts"
import type { Ending } from "./output/Report.ts"
import * as Training from "./Training.ts"
import type { TrainSettings } from "./TrainSettings.ts"

/** One claim, whether it holds, and the figures behind it. */
export interface Check {
  readonly claim: string
  readonly holds: boolean
  readonly figures: string
}

export interface DemoResult {
  readonly calm: Ending
  readonly stormy: Ending
  readonly incident: IncidentReport | undefined
  /** Steps that the server had applied on the poisoned model after the checkpoint, by its own ledger. */
  readonly replayed: number
  /** The most that may be: the save interval, and what was sent ahead. */
  readonly bound: number
  readonly hashes: { readonly calm: string; readonly stormy: string }
  readonly checks: ReadonlyArray<Check>
}

const saveEvery = 10
const pipelining = 2
const poisonedAt = 47

const data = fileURLToPath(new URL("../../../examples/data/support-tone.jsonl", import.meta.url))

const settings = (name: string, url: string): TrainSettings => ({
  schemaVersion: 1,
  name,
  data,
  target: { _tag: "Remote", url },
  model: LanguageModel.baseModels[0]?.name ?? "",
  tokenizer: null,
  rank: 8,
  seed: 7,
  batchSize: 4,
  epochs: 8,
  steps: null,
  learningRate: 0.02,
  warmup: 3,
  schedule: "linear",
  saveEvery,
  keepLast: 3,
  pipelining
})

const isOnceInOrder = (ledger: ReadonlyArray<LedgerEntry>, like: ReadonlyArray<LedgerEntry>, steps: number): boolean =>
  ledger.length === steps &&
  like.length === steps &&
  ledger.every((entry, i) => entry.step === i && entry.digest === like[i]?.digest)

/** Both runs and the checks; fails only where a run does not end. */
export const run = Effect.gen(function* () {
  const output = yield* Output
  const { control, url } = yield* Emulator
  const fs = yield* FileSystem.FileSystem
  const journal = yield* fs.makeTempDirectoryScoped({ prefix: "tinkex-demo-" })
  const train = (name: string) =>
    Training.execute(settings(name, url), {
      journal,
      recovery: { baseDelay: "1 second" },
      force: false,
      faults: undefined
    })

  yield* output.note(`A Tinker server runs at ${url}.\n\nRun A, uninterrupted`)
  const calm = yield* train("calm")
  yield* control.inject(FaultPlan.make([FaultPlan.corrupt({ atStep: poisonedAt })]))
  yield* output.note(`\nRun B, the same, but its backend fails at step ${poisonedAt}`)
  const stormy = yield* train("stormy")

  const [incident] = stormy.report.incidents
  const ledger = yield* control.ledger(stormy.report.trainingRunId)
  const likeIt = yield* control.ledger(calm.report.trainingRunId)
  const lost = incident === undefined ? [] : yield* control.ledger(incident.trainingRunId)
  const replayed = Math.max(0, lost.length - (incident?.resumedAt ?? lost.length))
  const bound = saveEvery + pipelining
  const hashes = {
    calm: yield* control.stateHash(calm.report.trainingRunId),
    stormy: yield* control.stateHash(stormy.report.trainingRunId)
  }
  const { steps } = stormy.report
  const { first, last } = stormy.losses
  const resumedAt = incident?.resumedAt ?? 0
  const checks: ReadonlyArray<Check> = [
    {
      claim: "the loss fell",
      holds: first !== undefined && last !== undefined && last < first,
      figures: `${first?.toFixed(3)} -> ${last?.toFixed(3)} for one token`
    },
    {
      claim: "run B recovered from a checkpoint",
      holds: stormy.report.incidents.length === 1 && resumedAt > 0,
      figures: `step ${resumedAt}, ${incident?.path ?? "none"}`
    },
    {
      claim: "no more was replayed than the save interval and what was sent ahead",
      holds: replayed <= bound,
      figures: `${replayed} of at most ${saveEvery} + ${pipelining} steps, by the server's ledger`
    },
    {
      claim: "every step was applied exactly once, in order",
      holds: isOnceInOrder(ledger, likeIt, steps),
      figures: `${ledger.length} entries in the server's ledger of the final lineage, ${steps} steps`
    },
    {
      claim: "both final states are the same, bit for bit",
      holds: hashes.calm === hashes.stormy,
      figures: `A ${hashes.calm.slice(0, 16)}  B ${hashes.stormy.slice(0, 16)}`
    }
  ]
  const result: DemoResult = { calm, stormy, incident, replayed, bound, hashes, checks }
  return result
}).pipe(Effect.scoped, Effect.provide(Emulator.layer()))
