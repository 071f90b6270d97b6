/** `tinkex recover plan`: what a restore would do. Reads and never writes. */
import * as NodePath from "node:path"
import * as Command from "effect/cli/Command"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { RestClient } from "@tinkex/tinker/RestClient"
import type { Strategy } from "@tinkex/training/CheckpointSelector"
import { Journal } from "@tinkex/training/Journal"
import * as Restore from "@tinkex/training/Restore"
import * as CommandError from "../CommandError.ts"
import * as JournaledRuns from "../JournaledRuns.ts"
import { Output } from "../Output.ts"
import * as PlanView from "../output/PlanView.ts"
import * as Server from "../Server.ts"
import { recoverFlags, stepOf, strategyOf, usable } from "./recoverFlags.ts"

/** The plan for a training run that no journal knows: its candidates are what the server lists. */
export const planOfServer = Effect.fnUntraced(function* (
  run: string,
  options: { readonly strategy: Strategy; readonly journal: string }
) {
  yield* Server.check()
  const rest = yield* RestClient
  yield* rest.getTrainingRun(run).pipe(
    Effect.catchReasons("TinkerError", {
      NotFound: () => Effect.fail(unknown(run, options.journal)),
      InvalidInput: () => Effect.fail(unknown(run, options.journal))
    })
  )
  return Restore.plan({
    run,
    trainingRunId: Option.some(run),
    incident: Option.none(),
    candidates: yield* Restore.candidates(run, stepOf),
    quarantined: new Map(),
    strategy: options.strategy,
    committed: 0,
    baseAllowed: false,
    now: yield* DateTime.now
  })
})

const unknown = (run: string, journal: string) => CommandError.make(new CommandError.RunUnknown({ run, journal }))

export const recoverPlan = Command.make(
  "plan",
  recoverFlags,
  Effect.fnUntraced(function* ({ best, checkpoint, emulatorUrl, journal, run }) {
    const output = yield* Output
    const folder = NodePath.resolve(journal)
    const strategy = strategyOf({ checkpoint, best })
    const found = yield* JournaledRuns.find(run).pipe(Effect.provide(Journal.layerFileSystem(folder)))
    if (Option.isNone(found) && Option.isNone(emulatorUrl) && !(yield* Server.hasKey))
      return yield* unknown(run, folder)
    const plan = Option.isSome(found)
      ? Restore.planJournaled(found.value.state, { run: found.value.name, strategy, now: yield* DateTime.now })
      : yield* planOfServer(run, { strategy, journal: folder }).pipe(Effect.provide(Server.layerFor(emulatorUrl)))
    yield* usable(plan)
    const status = Option.getOrUndefined(Option.map(found, ({ state }) => JournaledRuns.statusOf(state)))
    yield* output.format === "json"
      ? output.emit(PlanView.json(plan, status))
      : Effect.forEach(PlanView.lines(plan, status), output.print, { discard: true })
  })
).pipe(
  Command.withDescription("Show which checkpoint a restore would use, what it would reject, and what would be replayed")
)
