/** What arguments have to be like, by their names. */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { InvalidInput, TinkerError } from "../TinkerError.ts"
import * as CheckpointPath from "../wire/CheckpointPath.ts"

export const invalid = (operation: string, field: string, problem: string) =>
  new TinkerError({ reason: new InvalidInput({ operation, field, problem }) })

export const checkPath = (operation: string, path: string) =>
  Option.match(CheckpointPath.parse(path), {
    onNone: () => Effect.fail(invalid(operation, "path", `"${path}" is not of the form tinker://<run>/weights/<name>`)),
    onSome: Effect.succeed
  })

/** The path of a training checkpoint, which alone can be loaded. */
export const checkTrainingPath = (operation: string, path: string) =>
  Option.match(CheckpointPath.parse(path), {
    onNone: () => Effect.fail(invalid(operation, "path", `"${path.slice(0, 80)}" is not of the form ${trainingForm}`)),
    onSome: (parsed) =>
      parsed.kind === "weights"
        ? Effect.succeed(parsed)
        : Effect.fail(
            invalid(
              operation,
              "path",
              `"${path.slice(0, 80)}" can only be sampled from: give one of the form ${trainingForm}`
            )
          )
  })

const trainingForm = "tinker://<run>/weights/<name>"

/** How long something is kept, in the seconds that the service counts. */
export const checkTtl = (operation: string, ttl: Duration.Input): Effect.Effect<number, TinkerError> => {
  const seconds = Option.match(Duration.fromInput(ttl), { onNone: () => Number.NaN, onSome: Duration.toSeconds })
  return Number.isSafeInteger(seconds) && seconds >= 1
    ? Effect.succeed(seconds)
    : Effect.fail(invalid(operation, "ttl", `is ${seconds} s and must be a whole number of seconds above 0`))
}

export const checkId = (operation: string, field: string, id: string) =>
  CheckpointPath.isSegment(id)
    ? Effect.succeed(id)
    : Effect.fail(invalid(operation, field, `"${id}" can be no id: it is empty or would change the address`))

/** `limit` and `offset` as the service takes them. */
export const checkPage = (operation: string, limit: number, offset: number, most: number) =>
  !Number.isInteger(limit) || limit < 1 || limit > most
    ? Effect.fail(invalid(operation, "limit", `is ${limit} and must be a whole number from 1 to ${most}`))
    : !Number.isSafeInteger(offset) || offset < 0
      ? Effect.fail(invalid(operation, "offset", `is ${offset} and must be a whole number, 0 or more`))
      : Effect.void

/** The end of a wait, in milliseconds from now. */
export const checkLimit = (operation: string, field: string, given: Duration.Input) => {
  const parsed = Option.map(Duration.fromInput(given), Duration.toMillis)
  return Option.isSome(parsed) && Number.isFinite(parsed.value) && parsed.value > 0
    ? Effect.succeed(parsed.value)
    : Effect.fail(invalid(operation, field, 'must be a finite duration above 0, such as "10 minutes"'))
}

const hourMillis = 3_600_000
const longestWindowMillis = 14 * 24 * hourMillis

/** Whole hours that the service has bills of. */
export const checkWindow = Effect.fnUntraced(function* (
  operation: string,
  window: { readonly from: DateTime.DateTime.Input; readonly until: DateTime.DateTime.Input }
) {
  const hour = (field: "from" | "until") => {
    const time = DateTime.make(window[field])
    if (Option.isNone(time)) return Effect.fail(invalid(operation, field, "is no time"))
    const millis = DateTime.toEpochMillis(time.value)
    return millis % hourMillis === 0
      ? Effect.succeed(millis)
      : Effect.fail(invalid(operation, field, `is ${new Date(millis).toISOString()} and must be a whole hour in UTC`))
  }
  const from = yield* hour("from")
  const until = yield* hour("until")
  if (until <= from) return yield* invalid(operation, "until", "must come after from")
  if (until - from > longestWindowMillis) return yield* invalid(operation, "until", "is more than 14 days after from")
  if (from > (yield* Clock.currentTimeMillis)) return yield* invalid(operation, "from", "lies in the future")
  const text = (millis: number) => new Date(millis).toISOString().replace(".000Z", "Z")
  return { starting_on: text(from), ending_before: text(until) }
})
