/** `tinkex emulator`: a Tinker server on this machine, until it is interrupted. */
import * as NodePath from "node:path"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
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
    model: Flag.KeyValuePair("model").pipe(
      Flag.withDescription("Serve one of the small models under another name: Qwen/Qwen3-8B=tiny/byte-lm-16"),
      Flag.withDefault<Record<string, string>>({})
    ),
    keys: flags.keys,
    tokenExchange: Flag.Boolean("token-exchange").pipe(
      Flag.withDescription("Keys are good for a token only, as on a service with token authentication"),
      Flag.withDefault(false)
    ),
    api: Flag.Literals("api", ["0.25", "0.38"]).pipe(
      Flag.withDescription("Revision of the API, by the version of the official client (default: 0.25)"),
      Flag.withDefault("0.25" as const)
    ),
    compute: Flag.Literals("compute", ["model", "none"]).pipe(
      Flag.withDescription("none: answer at once with zeros, to measure the protocol (default: model)"),
      Flag.withDefault("model" as const)
    ),
    sessionTimeout: flags.duration(
      "session-timeout",
      "A session ends after so long without a heartbeat (default: 5 minutes)"
    ),
    longPoll: flags.duration("long-poll", "A poll waits so long for its result (default: 30 seconds)"),
    retention: flags.duration("result-retention", "A result can be fetched for so long (default: 1 hour)"),
    buildTime: flags.duration("build-time", "An archive or a trace takes so long to be made (default: none)"),
    seed: flags.count("seed", "Of ids, of models without one, and of ranges in --inject", [0, 2_147_483_647], 1)
  },
  Effect.fnUntraced(function* ({ directory, host, inject, keys, model, port, seed, ...settings }) {
    const output = yield* Output
    const faults = Option.isSome(inject) ? yield* FaultPlan.parse(inject.value, seed) : undefined
    yield* Emulator.serve({
      host,
      port,
      seed,
      faults,
      models: model,
      apiKeys:
        keys.length === 0 ? undefined : Object.fromEntries(keys.map(([key, user]) => [Redacted.value(key), user])),
      tokenExchange: settings.tokenExchange,
      api: settings.api,
      compute: settings.compute,
      sessionTimeout: Option.getOrUndefined(settings.sessionTimeout),
      longPoll: Option.getOrUndefined(settings.longPoll),
      resultRetention: Option.getOrUndefined(settings.retention),
      buildTime: Option.getOrUndefined(settings.buildTime),
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
