import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { RestoreProgress, RestoreRequest, RunGuard } from "@tinkex/training/RunGuard"
import { TrainingError } from "@tinkex/training/TrainingError"
import type { Executor, Progress } from "../Executor.ts"
import type { Monitor, Target } from "../Monitor.ts"
import type { RecoveryPolicy } from "../RecoveryPolicy.ts"
import * as Failures from "./failures.ts"

// the numbers of attempts are the trainer's own business
const toProgress = (progress: RestoreProgress): Progress => (progress._tag === "Fenced" ? { _tag: "Fenced" } : progress)

/** Guards the runs of a trainer: it knows how to restore and when its loop fails, we know the policy and sweep for the flag. */
export const make = (policy: RecoveryPolicy, monitor: Monitor, executor: Executor): RunGuard => ({
  watch: ({ attempt, client, run, trainingRunId }, report) => {
    // the loop knows best when it is stalled, so that is left to it
    const target: Target = { trainingRunId, run, attempt, onFlag: (detail) => report("poisoned", detail) }
    return Effect.acquireRelease(monitor.add(target), () => monitor.remove(target)).pipe(
      Effect.andThen(
        client.queueState.pipe(
          Stream.runForEach((state) => monitor.noteQueue(trainingRunId, state)),
          Effect.forkScoped
        )
      )
    )
  },

  recover: Effect.fnUntraced(function* (request: RestoreRequest) {
    const { incident } = request
    const sighting = yield* monitor.inspect(incident.trainingRunId)
    let last: TrainingError | undefined
    let tries = 0
    return yield* executor
      .recover({
        incident: {
          id: incident.id,
          run: incident.run,
          trainingRunId: incident.trainingRunId,
          attempt: incident.attempt,
          cause: incident.cause,
          detail: incident.detail,
          source: Option.exists(sighting, ({ flagged }) => flagged) ? "sweep" : "loop",
          lastSeenWell: Option.map(sighting, ({ seenWell }) => seenWell)
        },
        restore: (report) =>
          Effect.suspend(() => {
            tries++
            return request.restore({
              strategy: policy.strategy,
              optimizer: policy.restoreOptimizer,
              onProgress: (progress) => report(toProgress(progress))
            })
          }).pipe(
            Effect.tapError((error) => Effect.sync(() => (last = error))),
            Effect.mapError((error) => Failures.fromTraining(incident.trainingRunId, error))
          ),
        outcome: (restored) => ({
          newTrainingRunId: restored.client.modelId,
          path: restored.path,
          step: restored.step,
          quarantined: restored.quarantined
        })
      })
      .pipe(
        // What no further try can change is the trainer's own word; anything else is the end of ours.
        Effect.catch((error) =>
          last !== undefined && !last.isRetryable
            ? Effect.fail(last)
            : Effect.flatMap(request.plan, (plan) =>
                Effect.fail(
                  TrainingError.recoveryGivenUp(incident, plan, { tries, detail: last?.message ?? error.message })
                )
              )
        )
      )
  })
})
