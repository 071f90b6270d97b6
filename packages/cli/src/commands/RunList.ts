/** `tinkex run list`: the runs of the journal and those of the server. */
import * as NodePath from "node:path"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { RestClient } from "@tinkex/tinker/RestClient"
import { Journal } from "@tinkex/training/Journal"
import * as JournaledRuns from "../JournaledRuns.ts"
import { Output } from "../Output.ts"
import * as RunsView from "../output/RunsView.ts"
import * as Server from "../Server.ts"
import * as flags from "./flags.ts"

/** `undefined` where there is no server to ask. */
const fromServer = Effect.fnUntraced(function* (emulatorUrl: Option.Option<string>) {
  if (Option.isNone(emulatorUrl) && !(yield* Server.hasKey)) return undefined
  return yield* Effect.gen(function* () {
    yield* Server.check()
    const rest = yield* RestClient
    return (yield* Stream.runCollect(rest.streamTrainingRuns())).map(RunsView.served)
  }).pipe(Effect.provide(Server.layerFor(emulatorUrl)))
})

export const runList = Command.make(
  "list",
  {
    corrupted: Flag.Boolean("corrupted").pipe(
      Flag.withDescription("Only runs that have failed"),
      Flag.withDefault(false)
    ),
    journal: flags.journal,
    emulatorUrl: flags.emulatorUrl
  },
  Effect.fnUntraced(function* ({ corrupted, emulatorUrl, journal }) {
    const output = yield* Output
    const folder = NodePath.resolve(journal)
    const { runs, unreadable } = yield* JournaledRuns.list.pipe(Effect.provide(Journal.layerFileSystem(folder)))
    const all = yield* fromServer(emulatorUrl)
    const mine = runs.map(RunsView.journaled).filter(({ status }) => !corrupted || status === "failed")
    const theirs = all?.filter((run) => !corrupted || run.corrupted)
    for (const problem of unreadable) yield* output.note(`! ${problem}`)
    if (theirs === undefined)
      yield* output.note("Only runs of the journal: for those of the service set TINKER_API_KEY.")
    if (output.format === "json") {
      return yield* output.emit({ schemaVersion: 1, journaled: mine, server: theirs ?? null })
    }
    yield* Effect.forEach(RunsView.lines(mine, theirs), output.print, { discard: true })
  })
).pipe(
  Command.withDescription("List runs: those of the journal and, with a key or --emulator-url, those of the server")
)
