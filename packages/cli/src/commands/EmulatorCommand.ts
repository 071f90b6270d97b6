/** `tinkex emulator`: a Tinker server on this machine, until it is interrupted. */
import * as NodePath from "node:path"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Emulator } from "@tinkex/emulator/Emulator"
import * as FaultPlan from "@tinkex/emulator/FaultPlan"
import { Output } from "../Output.ts"
import * as flags from "./flags.ts"

export const emulator = Command.make(
  "emulator",
  {
    host: Flag.String("host").pipe(
      Flag.withDescription("Address to listen on (default: 127.0.0.1)"),
      Flag.withDefault("127.0.0.1")
    ),
    port: flags.count("port", "Port; 0 means any free one", [0, 65_535], 0),
    directory: Flag.String("directory").pipe(
      Flag.withDescription("Keep checkpoints and runs here (default: in memory)"),
      Flag.optional
    ),
    inject: flags.inject,
    seed: flags.count("seed", "Of ids, of models without one, and of ranges in --inject", [0, 2_147_483_647], 1)
  },
  Effect.fnUntraced(function* ({ directory, host, inject, port, seed }) {
    const output = yield* Output
    const faults = Option.isSome(inject) ? yield* FaultPlan.parse(inject.value, seed) : undefined
    yield* Emulator.serve({
      host,
      port,
      seed,
      faults,
      directory: Option.getOrUndefined(Option.map(directory, (folder) => NodePath.resolve(folder))),
      onReady: (url) =>
        output.format === "json"
          ? output.emit({ event: "listening", schemaVersion: 1, url })
          : Effect.andThen(
              output.print(url),
              output.note(`Emulator listens. Use --emulator-url ${url}, or TINKER_BASE_URL=${url} with any key tml-...`)
            )
    }).pipe(Effect.onInterrupt(() => output.note("Emulator closed.")))
  })
).pipe(Command.withDescription("Run an emulated Tinker server, with faults on demand, until it is interrupted"))
