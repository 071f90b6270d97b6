/** `tinkex train`: fine-tunes on a JSON Lines file, whatever fails in between. */
import * as NodePath from "node:path"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Training from "../Training.ts"
import { observed } from "./observed.ts"
import { config, toSettings } from "./trainFlags.ts"

export const train = Command.make("train", config, (config) =>
  Effect.gen(function* () {
    const { faults, settings } = yield* toSettings(config)
    const ending = yield* Training.execute(settings, {
      journal: NodePath.resolve(config.journal),
      recovery: config.noRecovery
        ? undefined
        : {
            maxAttempts: Option.getOrUndefined(config.recoveryAttempts),
            baseDelay: Option.getOrUndefined(config.recoveryBaseDelay)
          },
      force: config.force,
      faults
    })
    yield* Training.announce(ending)
  }).pipe(observed(config.otel))
).pipe(
  Command.withDescription("Fine-tune a model; give the same command again to go on with an interrupted run"),
  Command.withExamples([
    { command: "tinkex train data.jsonl --emulator", description: "Try it without an account" },
    { command: "tinkex train data.jsonl --model Qwen/Qwen3-8B --tokenizer ./qwen3", description: "Train for real" }
  ])
)
