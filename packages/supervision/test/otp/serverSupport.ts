import { ExitReason, SupervisionEvent, SupervisorError } from "@tinkex/supervision"
import { Effect, Metric } from "effect"

type Event = SupervisionEvent.SupervisionEvent

/** The ends of incarnations, in words: `it normal`. */
export const ends = (events: ReadonlyArray<Event>) =>
  events.flatMap((event) => (event._tag === "ChildExited" ? [`${event.child} ${ExitReason.format(event.exit)}`] : []))

/** The crash reports that came with them. */
export const reports = (events: ReadonlyArray<Event>) =>
  events.flatMap((event) => (event._tag === "ChildExited" ? [event.report] : []))

/** What a start failed with, in words, and what was refused below it. */
export const refusal = (error: SupervisorError.SupervisorError): string => {
  const { reason } = error
  if (reason._tag !== "StartFailed") return reason._tag
  const { exit } = reason
  if (exit._tag === "Crash" && exit.error instanceof SupervisorError.SupervisorError) {
    return `StartFailed: ${refusal(exit.error)}`
  }
  return `StartFailed: ${ExitReason.format(exit)}`
}

/** Counts the fibers that are alive, of those that run with `here` around them. */
export const countFibers = () => {
  let alive = 0
  const here = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, Metric.FiberRuntimeMetrics, {
      recordFiberStart: () => void alive++,
      recordFiberEnd: () => void alive--
    })
  return { here, alive: () => alive }
}
