/**
 * What a run looks like while it goes on: a status line where it can be redrawn, otherwise a plain line now and then, or one
 * JSON object for each event.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { TrainerEvent } from "@tinkex/training/RunReport"
import type { OutputShape } from "../Output.ts"

/** `61` seconds are `1m 01s`. */
export const clock = (seconds: number): string => {
  const s = Math.max(0, Math.round(seconds))
  const two = (n: number) => String(n).padStart(2, "0")
  return s < 60
    ? `${s}s`
    : s < 3600
      ? `${Math.floor(s / 60)}m ${two(s % 60)}s`
      : `${Math.floor(s / 3600)}h ${two(Math.floor(s / 60) % 60)}m`
}

export const amount = (value: number): string =>
  !Number.isFinite(value) ? String(value) : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(4)

const bar = (done: number, total: number, width: number): string => {
  const full = total === 0 ? width : Math.floor((done / total) * width)
  return `${"━".repeat(full)}${"─".repeat(width - full)}`
}

export interface Standing {
  readonly done: number
  readonly total: number
  readonly loss: number | undefined
  readonly stepsPerSecond: number
}

/** The figures of a status line. */
export const figures = ({ done, loss, stepsPerSecond, total }: Standing): string =>
  [
    `step ${String(done).padStart(String(total).length)}/${total}`,
    ...(loss === undefined ? [] : [`loss ${amount(loss)}`]),
    ...(stepsPerSecond > 0 ? [`${stepsPerSecond.toFixed(1)} steps/s`] : []),
    ...(stepsPerSecond > 0 && done < total ? [`ETA ${clock((total - done) / stepsPerSecond)}`] : [])
  ].join("  ")

/** Whether a plain log mentions this step: about twenty times in a run, and always at its start and end. */
export const mentions = (done: number, total: number): boolean =>
  done === 1 || done === total || done % Math.max(1, Math.ceil(total / 20)) === 0

const name = (path: string | null) => (path === null ? "the base model" : path.slice(path.lastIndexOf("/") + 1))

/** One line for the events that a person should see whatever the output looks like; steps are not among them. */
export const describe = (event: TrainerEvent): string | undefined => {
  switch (event._tag) {
    case "RunOpened":
      return `run ${event.run}: ${event.totalSteps} steps${event.attempts === 0 ? "" : `, taken up after ${event.attempts} ${event.attempts === 1 ? "attempt" : "attempts"}`}`
    case "AttemptStarted":
      return event.how === "reattached"
        ? `goes on with the live model ${event.trainingRunId} at step ${event.step}`
        : `attempt ${event.attempt} on ${event.trainingRunId}, from ${name(event.path)} at step ${event.step}`
    case "IncidentDetected":
      return `! ${event.incident.cause} at step ${event.incident.step} (${event.incident.id}): ${event.incident.detail}`
    case "RestoreProgress": {
      const { progress } = event
      switch (progress._tag) {
        case "CheckpointSelected":
          return progress.path === null ? undefined : `  restoring ${name(progress.path)} (step ${progress.step})`
        case "Quarantined":
          return `  ${name(progress.path)} cannot be used: ${progress.why}`
        default:
          return undefined
      }
    }
    case "Checkpoint":
    case "Completed":
    case "StepCommitted":
      return undefined
  }
}

/** The event as data: the same names, with ids instead of live objects. */
export const json = (event: TrainerEvent, loss: number | undefined): unknown => {
  switch (event._tag) {
    case "RunOpened":
      return {
        event: "run_opened",
        schemaVersion: 1,
        run: event.run,
        totalSteps: event.totalSteps,
        attempts: event.attempts
      }
    case "AttemptStarted": {
      const { attempt, how, path, step, trainingRunId } = event
      return { event: "attempt_started", attempt, trainingRunId, path, step, how }
    }
    case "StepCommitted":
      return { event: "step", step: event.step, loss: loss ?? null, metrics: event.metrics }
    case "Checkpoint":
      return { event: "checkpoint", ...event.outcome }
    case "IncidentDetected": {
      const { attempt, cause, detail, id, step, trainingRunId } = event.incident
      return { event: "incident", incident: id, attempt, trainingRunId, cause, detail, step }
    }
    case "RestoreProgress":
      return { event: "restore", ...event.progress }
    case "Completed":
      return undefined
  }
}

/** Follows a run. `weightOf` is the number of tokens that a step learns from, where known: the loss is shown for one token. */
export const make = Effect.fnUntraced(function* (
  output: OutputShape,
  weightOf: (step: number) => number | undefined = () => undefined
) {
  let total = 0
  let began: number | undefined
  let base = 0
  let first: number | undefined
  let last: number | undefined
  let done = 0

  const onStep = Effect.fnUntraced(function* (event: Extract<TrainerEvent, { readonly _tag: "StepCommitted" }>) {
    const now = yield* Clock.currentTimeMillis
    done = event.step + 1
    last = lossOf(event.metrics, weightOf(event.step))
    first ??= last
    if (output.format === "json") return yield* output.emit(json(event, last))
    // The rate is that of this attempt; its first step pays for the start.
    if (began === undefined) {
      began = now
      base = done
    }
    const seconds = (now - began) / 1000
    const standing: Standing = { done, total, loss: last, stepsPerSecond: seconds > 0 ? (done - base) / seconds : 0 }
    if (output.animated) yield* output.status(`${bar(done, total, 20)} ${figures(standing)}`)
    else if (mentions(done, total)) yield* output.note(figures(standing))
  })

  const onEvent = Effect.fnUntraced(function* (event: TrainerEvent) {
    if (event._tag === "RunOpened") total = event.totalSteps
    if (event._tag === "AttemptStarted") began = undefined
    if (event._tag === "StepCommitted") return yield* onStep(event)
    if (event._tag === "Completed") yield* output.status("")
    const line = describe(event)
    if (output.format === "json") {
      const value = json(event, undefined)
      if (value !== undefined) yield* output.emit(value)
    } else if (line !== undefined) yield* output.note(line)
  })

  return {
    onEvent,
    done: () => done,
    losses: () => ({ first, last })
  }
})

/** The loss of one token, if the server tells the sum and `weight` is known; otherwise what the server tells. */
export const lossOf = (metrics: Readonly<Record<string, number>>, weight: number | undefined): number | undefined => {
  const sum = metrics["loss:sum"]
  if (sum !== undefined && weight !== undefined && weight > 0) return sum / weight
  return metrics["loss:mean"] ?? metrics["loss"] ?? sum
}

/** A duration for a report: milliseconds below a second. */
export const span = (duration: Duration.Duration): string => {
  const millis = Duration.toMillis(duration)
  return millis < 1000
    ? `${Math.round(millis)} ms`
    : millis < 10_000
      ? `${(millis / 1000).toFixed(1)} s`
      : clock(millis / 1000)
}
