/** The command as a whole: its tree, its logs, and how its failures reach a person. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Runtime from "effect/Runtime"
import { demo } from "./commands/Demo.ts"
import { emulator } from "./commands/EmulatorCommand.ts"
import * as flags from "./commands/flags.ts"
import { recoverNow } from "./commands/RecoverNow.ts"
import { recoverPlan } from "./commands/RecoverPlan.ts"
import { runList } from "./commands/RunList.ts"
import { train } from "./commands/Train.ts"
import * as ExitCode from "./ExitCode.ts"
import { Output } from "./Output.ts"
import * as Failure from "./output/Failure.ts"

const version = "0.1.0"

const run = Command.make("run").pipe(Command.withDescription("Look at runs"), Command.withSubcommands([runList]))

const recover = Command.make("recover").pipe(
  Command.withDescription("Bring failed runs back"),
  Command.withSubcommands([recoverPlan, recoverNow])
)

/** The whole tree. */
export const tinkex = Command.make("tinkex").pipe(
  Command.withDescription("Fine-tuning runs on Tinker that survive failure"),
  Command.withSubcommands([train, run, recover, emulator, demo]),
  Command.withGlobalFlags([flags.Format, flags.Json])
)

const exitCodes = [
  "EXIT CODES",
  ...ExitCode.table.map(([code, meaning]) => `  ${String(code).padEnd(4)}${meaning}`)
].join("\n")

/** Help ends with the exit codes; a wrong command line gets no help, but the error that `report` writes. */
const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.void
      : Effect.andThen(
          CliOutput.defaultPresenter.present(event),
          event._tag === "Help" ? Console.log(`\n${exitCodes}`) : Effect.void
        )
}

class Exited extends Data.TaggedError("Exited")<{ readonly code: number }> {
  override readonly [Runtime.errorExitCode] = this.code
  override readonly [Runtime.errorReported] = false
}

const isVerbose = (args: ReadonlyArray<string>): boolean =>
  args.some((arg, i) =>
    /^(?:debug|trace|all)$/.test(arg === "--log-level" ? (args[i + 1] ?? "") : arg.replace("--log-level=", ""))
  )

/** Says what went wrong on standard error, and ends with the code that belongs to it. */
const report = Effect.fnUntraced(function* (cause: Cause.Cause<unknown>, args: ReadonlyArray<string>) {
  const output = yield* Output
  const asked = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (CliError.isCliError(asked) && asked._tag === "ShowHelp" && asked.errors.length === 0) return
  const failure = Failure.ofCause(cause)
  const text = output.format === "json" ? [JSON.stringify(Failure.json(failure))] : [...Failure.lines(failure)]
  if (failure.defect || isVerbose(args)) text.push(Cause.pretty(cause))
  yield* Effect.forEach(text, (line) => output.note(Failure.withoutKeys(line)), { discard: true })
  return yield* new Exited({ code: failure.code })
})

/** Logs go to standard error, between the redraws of a status line. */
const logs = Layer.unwrap(
  Effect.map(Output, (output) =>
    Logger.layer([
      Logger.make(({ cause, logLevel, message }) => {
        const parts = Array.isArray(message) ? message : [message]
        const text = parts.map((part) => (typeof part === "string" ? part : Inspectable.toStringUnknown(part, 0)))
        const why = cause.reasons.length === 0 ? "" : ` ${Cause.pretty(cause)}`
        Effect.runSync(output.note(`${logLevel.toLowerCase()}: ${text.join(" ")}${why}`))
      })
    ])
  )
)

/** Runs a command line; fails with its exit code once everything is said. */
export const main = (args: ReadonlyArray<string>): Effect.Effect<void, Exited> =>
  Command.runWith(tinkex, { version })(args).pipe(
    Effect.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause as Cause.Cause<never>) : report(cause, args)
    ),
    Effect.provideService(CliOutput.Presenter, presenter),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Effect.provide(logs.pipe(Layer.provideMerge(Output.layer(args)), Layer.provideMerge(NodeServices.layer)))
  )
