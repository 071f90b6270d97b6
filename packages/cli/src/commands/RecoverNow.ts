/** `tinkex recover now`: goes on with a run of the journal, or restores a training run to a new model. */
import * as NodePath from "node:path"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Recovery } from "@tinkex/recovery/Recovery"
import type { Strategy } from "@tinkex/training/CheckpointSelector"
import { Journal } from "@tinkex/training/Journal"
import * as CommandError from "../CommandError.ts"
import * as JournaledRuns from "../JournaledRuns.ts"
import { Output } from "../Output.ts"
import * as Server from "../Server.ts"
import * as Training from "../Training.ts"
import * as TrainSettings from "../TrainSettings.ts"
import { confirm } from "./confirm.ts"
import { planOfServer } from "./RecoverPlan.ts"
import { recoverFlags, stepOf, strategyOf, usable } from "./recoverFlags.ts"

/** Runs it to its end, with the settings that its command has left. */
const continueRun = Effect.fnUntraced(function* (name: string, journal: string, force: boolean) {
  const settings = yield* TrainSettings.load(journal, name)
  yield* Training.announce(yield* Training.execute(settings, { journal, recovery: {}, force, faults: undefined }))
})

/** Nobody knows its loop, so a new model that holds the checkpoint is all that can be done. */
const restoreRun = Effect.fnUntraced(
  function* (run: string, strategy: Strategy) {
    const output = yield* Output
    const recovery = yield* Recovery
    const restored = yield* recovery.recoverRun(run, { stepOf, strategy })
    const step = Option.getOrNull(restored.step)
    const { checkpoint: used, runId } = restored
    if (output.format === "json") {
      return yield* output.emit({
        schemaVersion: 1,
        previous: run,
        trainingRunId: runId,
        checkpoint: used.path,
        step,
        incident: restored.incident,
        quarantined: restored.quarantined
      })
    }
    yield* output.print(`✓ ${run} lives on as ${runId}`)
    yield* output.print(`checkpoint   ${used.path} (${step === null ? "step unknown" : `step ${step}`})`)
    for (const path of restored.quarantined) yield* output.print(`not usable   ${path}`)
    yield* output.note("Connect to it soon: a model whose session nobody keeps alive is unloaded after some minutes.")
  },
  Effect.scoped,
  Effect.provide(Recovery.layerConfig({ enabled: false }))
)

export const recoverNow = Command.make(
  "now",
  {
    ...recoverFlags,
    yes: Flag.Boolean("yes").pipe(Flag.withDescription("Do not ask"), Flag.withDefault(false)),
    force: Flag.Boolean("force").pipe(
      Flag.withDescription("Go on with a run that has ended for good, or whose data has changed"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ best, checkpoint, emulatorUrl, force, journal, run, yes }) {
    const folder = NodePath.resolve(journal)
    const found = yield* JournaledRuns.find(run).pipe(Effect.provide(Journal.layerFileSystem(folder)))
    if (Option.isSome(found)) {
      if (Option.isSome(checkpoint) || Option.isSome(best)) {
        const option = Option.isSome(checkpoint) ? "--checkpoint" : "--best"
        const hint = `Run ${found.value.name} chooses by itself, so that no step is lost or repeated.`
        const problem = "is for training runs that no journal knows"
        return yield* CommandError.make(new CommandError.BadOption({ option, problem, hint }))
      }
      yield* confirm(yes, `go on with run ${found.value.name} to its end`)
      return yield* continueRun(found.value.name, folder, force)
    }
    if (Option.isNone(emulatorUrl) && !(yield* Server.hasKey)) {
      return yield* CommandError.make(new CommandError.RunUnknown({ run, journal: folder }))
    }
    yield* Effect.gen(function* () {
      const strategy = strategyOf({ checkpoint, best })
      yield* usable(yield* planOfServer(run, { strategy, journal: folder }))
      yield* confirm(yes, `restore ${run} to a new model`)
      yield* restoreRun(run, strategy)
    }).pipe(Effect.provide(Server.layerFor(emulatorUrl)))
  })
).pipe(Command.withDescription("Recover a run: a journaled one runs to its end, any other is restored to a new model"))
