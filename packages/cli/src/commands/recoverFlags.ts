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

const bestOf = (text: string): CheckpointSelector.Strategy | undefined => {
  const [, metric, mode] = /^(.+):(min|max)$/.exec(text) ?? []
  return metric === undefined ? undefined : CheckpointSelector.best(metric, mode === "max" ? "max" : "min")
}

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
  best: Flag.String("best").pipe(
    Flag.filter(
      (text) => bestOf(text) !== undefined,
      (text) => `--best must be a metric and a direction such as loss:min or accuracy:max, but is ${text}`
    ),
    Flag.withDescription("The best checkpoint by a metric of the journal, e.g. loss:min (default: the newest)"),
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

/** `--checkpoint` wins over `--best`. */
export const strategyOf = (asked: {
  readonly checkpoint: Option.Option<string>
  readonly best: Option.Option<string>
}): CheckpointSelector.Strategy =>
  Option.match(asked.checkpoint, {
    onNone: () => Option.getOrUndefined(Option.map(asked.best, bestOf)) ?? CheckpointSelector.latest,
    onSome: CheckpointSelector.specific
  })
