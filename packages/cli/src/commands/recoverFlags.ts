import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Checkpoint } from "@tinkex/tinker/Checkpoint"
import * as CheckpointName from "@tinkex/training/CheckpointName"
import * as CheckpointSelector from "@tinkex/training/CheckpointSelector"
import type { Plan } from "@tinkex/training/Restore"
import * as CommandError from "../CommandError.ts"
import * as flags from "./flags.ts"

/** What `recover plan` and `recover now` have in common. */
export const recoverFlags = {
  run: Argument.String("RUN").pipe(Argument.withDescription("Name of a run of the journal, or id of a training run")),
  checkpoint: Flag.String("checkpoint").pipe(
    Flag.filter(
      (path) => path.startsWith("tinker://"),
      (path) => `--checkpoint must be a path such as tinker://<run>/weights/<name>, but is ${path}`
    ),
    Flag.withDescription("Exactly this checkpoint (default: the newest usable one)"),
    Flag.optional
  ),
  journal: flags.journal,
  emulatorUrl: flags.emulatorUrl
}

/** The wire knows no step; the names that the trainer gives do. */
export const stepOf = (checkpoint: Checkpoint): Option.Option<number> =>
  Option.map(
    CheckpointName.parse(checkpoint.checkpointId.slice(checkpoint.checkpointId.indexOf("/") + 1)),
    ({ step }) => step
  )

/** A plan that may only use one checkpoint, and cannot, is no plan. */
export const usable = (plan: Plan): Effect.Effect<Plan, CommandError.CommandError> => {
  const { rejected, run, strategy } = plan
  if (strategy._tag !== "Specific" || Option.isSome(plan.chosen)) return Effect.succeed(plan)
  const why = rejected.find(({ candidate }) => candidate.path === strategy.path)?.reason ?? "it has no such checkpoint"
  return Effect.fail(
    CommandError.make(new CommandError.UnknownCheckpoint({ path: strategy.path, run, why: why.replace(/\.$/, "") }))
  )
}

export const strategyOf = (checkpoint: Option.Option<string>): CheckpointSelector.Strategy =>
  Option.match(checkpoint, { onNone: () => CheckpointSelector.latest, onSome: CheckpointSelector.specific })
