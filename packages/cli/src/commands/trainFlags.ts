/** What can be said to `tinkex train`, and what it means. */
import * as NodePath from "node:path"
import * as Argument from "effect/cli/Argument"
import type * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as FaultPlan from "@tinkex/emulator/FaultPlan"
import * as LanguageModel from "@tinkex/emulator/LanguageModel"
import * as CommandError from "../CommandError.ts"
import type { Target, TrainSettings } from "../TrainSettings.ts"
import * as flags from "./flags.ts"

const most = 1_000_000

export const config = {
  data: Argument.String("DATA.jsonl").pipe(
    Argument.withDescription('Rows {"prompt": ..., "completion": ...} or {"text": ...}')
  ),
  emulator: Flag.Boolean("emulator").pipe(
    Flag.withDescription("Train on an emulated server inside this command: no key, no cost"),
    Flag.withDefault(false)
  ),
  emulatorUrl: flags.emulatorUrl,
  inject: flags.inject,
  model: Flag.String("model").pipe(Flag.withDescription("Base model; required without an emulator"), Flag.optional),
  tokenizer: Flag.String("tokenizer").pipe(
    Flag.withDescription("Folder with the model's tokenizer.json; required without an emulator"),
    Flag.optional
  ),
  name: Flag.String("name").pipe(
    Flag.filter(
      (name) => /^(?!\.)[A-Za-z0-9._-]{1,120}$/.test(name),
      (name) => `--name must be 1 to 120 of A-Z a-z 0-9 . _ -, and must not begin with a dot, but is "${name}"`
    ),
    Flag.withDescription("The same name continues the same run (default: the name of the data file)"),
    Flag.optional
  ),
  journal: flags.journal,
  batchSize: flags.count("batch-size", "Rows in a step", [1, 65_536], 4),
  epochs: flags.count("epochs", "How often the data is used", [1, 10_000], 3),
  steps: flags.maybeCount("steps", "Stop after so many steps (default: all epochs)", [1, 1_000_000_000]),
  learningRate: flags.positive("learning-rate", "Highest learning rate (default: 1e-4, emulator 0.02)", 100),
  warmup: flags.count("warmup", "Steps in which the rate rises", [0, most], 0),
  schedule: Flag.Literals("schedule", ["constant", "linear", "cosine"]).pipe(
    Flag.withDescription("How the rate falls (default: linear)"),
    Flag.withDefault("linear")
  ),
  rank: flags.maybeCount("rank", "LoRA rank (default: 32, emulator 8)", [1, 1024]),
  seed: flags.count("seed", "Of the LoRA factors and the order of the data", [0, 2_147_483_647], 1),
  saveEvery: flags.count("save-every", "Steps between two checkpoints", [1, most], 20),
  keepLast: flags.count("keep-last", "Checkpoints that are kept", [1, most], 3),
  pipelining: flags.count("pipelining", "Steps sent ahead of the one that is awaited", [0, 8], 1),
  noRecovery: Flag.Boolean("no-recovery").pipe(
    Flag.withDescription("End with an error when the run fails, instead of restoring it"),
    Flag.withDefault(false)
  ),
  recoveryAttempts: flags.maybeCount("recovery-attempts", "Tries for one failure (default: 3)", [1, 1000]),
  recoveryBaseDelay: flags.duration("recovery-base-delay", "Wait after the first failed try (default: 5 seconds)"),
  force: Flag.Boolean("force").pipe(
    Flag.withDescription("Go on although settings or data have changed, or the run has ended"),
    Flag.withDefault(false)
  ),
  otel: Flag.Boolean("otel").pipe(
    Flag.withDescription("Send spans to OTEL_EXPORTER_OTLP_ENDPOINT"),
    Flag.withDefault(false)
  )
}

type Config = Command.Command.Config.Infer<typeof config>

const bad = (option: string, problem: string, hint: string) =>
  Effect.fail(CommandError.make(new CommandError.BadOption({ option, problem, hint })))

const target = Effect.fnUntraced(function* (config: Config): Effect.fn.Return<Target, CommandError.CommandError> {
  if (Option.isSome(config.emulatorUrl)) {
    if (config.emulator) return yield* bad("--emulator", "cannot be combined with --emulator-url", "Choose one.")
    return { _tag: "Remote", url: config.emulatorUrl.value }
  }
  if (config.emulator) return { _tag: "Embedded" }
  for (const option of ["model", "tokenizer"] as const) {
    if (Option.isNone(config[option])) {
      return yield* bad(
        `--${option}`,
        "is missing",
        "The real service needs --model and --tokenizer; --emulator needs neither."
      )
    }
  }
  return { _tag: "Service" }
})

/** The settings that the flags mean. Refuses what does not go together before anything is read or sent. */
export const toSettings = Effect.fnUntraced(function* (config: Config) {
  const where = yield* target(config)
  const emulated = where._tag !== "Service"
  if (Option.isSome(config.inject) && where._tag !== "Embedded") {
    return yield* bad(
      "--inject",
      "needs --emulator",
      "An emulator of another process gets its faults when it is started."
    )
  }
  const faults = Option.isSome(config.inject) ? yield* FaultPlan.parse(config.inject.value) : undefined
  const data = NodePath.resolve(config.data)
  const fromData = NodePath.basename(data, ".jsonl")
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^\.+/, "")
    .slice(0, 120)
  const settings: TrainSettings = {
    schemaVersion: 1,
    name: Option.getOrElse(config.name, () => (fromData === "" ? "run" : fromData)),
    data,
    target: where,
    model: Option.getOrElse(config.model, () => LanguageModel.baseModels[0]?.name ?? ""),
    tokenizer: Option.getOrNull(Option.map(config.tokenizer, (folder) => NodePath.resolve(folder))),
    rank: Option.getOrElse(config.rank, () => (emulated ? 8 : 32)),
    seed: config.seed,
    batchSize: config.batchSize,
    epochs: config.epochs,
    steps: Option.getOrNull(config.steps),
    learningRate: Option.getOrElse(config.learningRate, () => (emulated ? 0.02 : 1e-4)),
    warmup: config.warmup,
    schedule: config.schedule,
    saveEvery: config.saveEvery,
    keepLast: config.keepLast,
    pipelining: config.pipelining
  }
  return { settings, faults }
})
