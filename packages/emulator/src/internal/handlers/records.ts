/** What is kept about users and their use: telemetry, audit, billing. */
import * as Rest from "@tinkex/tinker/wire/Rest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type Caller, ok, refused, type Refused } from "../reply.ts"
import { hourMillis, type UsageEvent } from "../usage.ts"
import type { World } from "../world.ts"
import { jsonBody } from "./body.ts"
import type { Handler } from "./session.ts"

const readTelemetry = jsonBody(
  Schema.Struct({
    ...Rest.TelemetryRequest.fields,
    events: Rest.TelemetryRequest.fields.events.check(Schema.isBetweenLength(1, 100))
  })
)
export const telemetry: Handler = (world, request) =>
  Effect.map(readTelemetry(request), ({ events, session_id: sessionId }) => {
    for (const event of events) world.records.keepTelemetry({ sessionId, event })
    return ok({ status: "accepted" })
  })

const dayMillis = 24 * hourMillis

export const audit: Handler = (world, request) => {
  const kind = request.query.get("event_type") ?? "all"
  if (kind !== "all" && kind !== "checkpoints") {
    return Effect.fail(refused(422, `event_type is "${kind}"; give all or checkpoints`))
  }
  const day = request.query.get("day") ?? new Date(world.now()).toISOString().slice(0, 10)
  const from = /^\d{4}-\d\d-\d\d$/.test(day) ? Date.parse(`${day}T00:00:00Z`) : Number.NaN
  if (Number.isNaN(from)) return Effect.fail(refused(422, `day is "${day}"; write YYYY-MM-DD`))
  const entries = world.records.deeds
    .filter(({ at, path }) => at >= from && at < from + dayMillis && (kind === "all" || path !== undefined))
    .map(({ at, event, modelId, path, purpose }) => ({
      timestamp: new Date(at).toISOString(),
      event,
      model_id: modelId,
      tinker_path: path,
      purpose
    }))
  return Effect.succeed(ok({ entries }))
}

const readHour = (request: Caller, name: string): Effect.Effect<number, Refused> => {
  const text = request.query.get(name) ?? ""
  const at = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(at) || at % hourMillis !== 0
    ? Effect.fail(refused(400, `${name} is "${text}"; give the start of an hour in UTC, such as 2026-01-31T13:00:00Z`))
    : Effect.succeed(at)
}

const usageWire = ({ consumer, hour, info }: UsageEvent) => ({
  bucket_start: new Date(hour * hourMillis).toISOString(),
  bucket_end: new Date((hour + 1) * hourMillis).toISOString(),
  base_model: consumer.baseModel,
  user_id: consumer.user,
  user_name: consumer.user,
  session_id: consumer.sessionId,
  project_id: consumer.projectId,
  event_info: info
})

/** Of the checkpoints that are there now: what was deleted before its hour was asked for is not charged. */
const storageOf = (world: World, from: number, before: number): ReadonlyArray<UsageEvent> => {
  const events: Array<UsageEvent> = []
  const end = Math.min(before, world.now())
  for (const run of world.catalog.runs.values()) {
    const consumer = { user: run.owner, sessionId: null, projectId: run.projectId, baseModel: run.baseModel }
    for (let hour = from; hour < end; hour += hourMillis) {
      let gigabyteHours = 0
      for (const { savedAt, sizeBytes } of run.checkpoints) {
        const stored = Math.max(0, Math.min(hour + hourMillis, end) - Math.max(hour, savedAt))
        gigabyteHours += (sizeBytes / 1e9) * (stored / hourMillis)
      }
      const info = { type: "storage" as const, gigabyte_hours: gigabyteHours }
      if (gigabyteHours > 0) events.push({ hour: hour / hourMillis, consumer, info })
    }
  }
  return events
}

export const billingUsage: Handler = (world, request) =>
  Effect.gen(function* () {
    const from = yield* readHour(request, "starting_on")
    const before = yield* readHour(request, "ending_before")
    const problem =
      before <= from
        ? "ending_before must be after starting_on"
        : before - from > 14 * dayMillis
          ? "the window is longer than 14 days"
          : from > world.now()
            ? "starting_on is in the future"
            : undefined
    if (problem !== undefined) return yield* Effect.fail(refused(400, problem))
    const events = [...world.records.usage.between(from, before), ...storageOf(world, from, before)]
      .filter(({ consumer }) => consumer.user === request.user)
      .toSorted((a, b) => a.hour - b.hour)
    const sessions: Record<string, { readonly user_metadata: Readonly<Record<string, string>> | null }> = {}
    for (const { consumer } of events) {
      const session = world.sessions.get(consumer.sessionId ?? "")
      if (session !== undefined) sessions[session.id] = { user_metadata: session.userMetadata }
    }
    return ok({ data: events.map(usageWire), sessions })
  })
