/**
 * Times as the service writes them: ISO 8601 text, now and then without a zone, which is then UTC. What is no such text reads as
 * `UnparsedTime` with a warning instead of an error, so that a bad timestamp never hides the `corrupted` flag beside it.
 * Writing gives the original back, to the letter.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"

/** What the service sent where a time should be; `null` where it sent nothing. */
export class UnparsedTime extends Schema.Class<UnparsedTime>("UnparsedTime")({ raw: Schema.Json }) {}

/** A time, or what should have been one. */
export type Time = DateTime.Utc | UnparsedTime

// Only for texts that `text` would write in another way: fractions of six digits, offsets, no zone.
const originals = new WeakMap<DateTime.Utc, string>()

const iso = /^(\d{4})-(\d\d)-(\d\d)(?:[T ]((?:[01]\d|2[0-3]):\d\d(?::\d\d(?:\.\d+)?)?) ?(Z|[+-]\d\d(?::?\d\d)?)?)?$/i

const offset = (zone: string | undefined): string =>
  zone === undefined || zone === "z" ? "Z" : zone.length === 3 ? `${zone}:00` : zone

/** JavaScript reads the 30th of February as the 2nd of March. */
const isDay = (year: string, month: string, day: string): boolean =>
  Number(day) <= 28 || new Date(Date.UTC(Number(year), Number(month) - 1, Number(day))).getUTCDate() === Number(day)

/** `2026-08-01T10:00:00Z`, as nearly all of them are, without a look at the calendar; `undefined` for any other text. */
const plainMillis = (raw: string): number | undefined => {
  if (raw.length !== 20) return undefined
  let digits = 0
  for (let i = 0; i < 20; i++) {
    const code = raw.charCodeAt(i)
    if (code !== pattern.charCodeAt(i)) {
      if (pattern.charCodeAt(i) !== 48 || code < 48 || code > 57) return undefined
      digits++
    } else if (code === 48) digits++
  }
  const part = (at: number) => (raw.charCodeAt(at) - 48) * 10 + raw.charCodeAt(at + 1) - 48
  const [year, month, day] = [part(0) * 100 + part(2), part(5), part(8)]
  const [hour, minute, second] = [part(11), part(14), part(17)]
  // The rest of the days, and years that `Date.UTC` takes for others, are for the calendar.
  const isEveryYears = month >= 1 && month <= 12 && day >= 1 && day <= 28 && year >= 100
  return digits === 14 && isEveryYears && hour <= 23 && minute <= 59 && second <= 59
    ? Date.UTC(year, month - 1, day, hour, minute, second)
    : undefined
}
const pattern = "0000-00-00T00:00:00Z"

/** The milliseconds of a time since 1970; `undefined` for what is no time. */
export const toMillis = (raw: unknown): number | undefined => {
  const plain = typeof raw === "string" ? plainMillis(raw) : undefined
  if (plain !== undefined) return plain
  const parts = typeof raw === "string" ? iso.exec(raw) : null
  if (parts === null) return undefined
  // The groups of the date always match.
  const [, year = "", month = "", day = "", clock = "00:00", zone] = parts
  const millis = Date.parse(`${year}-${month}-${day}T${clock}${offset(zone)}`)
  return Number.isNaN(millis) || !isDay(year, month, day) ? undefined : millis
}

/** Reads a time; none for a text that is none. */
export const parse = (raw: string): Option.Option<DateTime.Utc> => {
  const millis = toMillis(raw)
  if (millis === undefined) return Option.none()
  const time = DateTime.makeUnsafe(millis)
  const plain = raw.length === 20 && raw[10] === "T" && raw[19] === "Z"
  if (!plain) originals.set(time, raw)
  return Option.some(time)
}

/** What a time was read from, or its ISO text, without a fraction where there is none. */
const text = (time: DateTime.Utc): string => originals.get(time) ?? DateTime.formatIso(time).replace(".000Z", "Z")

const isJson = Schema.is(Schema.Json)

/** Reads anything; never fails. */
export const fromWire = (raw: unknown): Time => {
  if (typeof raw === "string") return Option.getOrElse(parse(raw), () => new UnparsedTime({ raw }))
  return new UnparsedTime({ raw: isJson(raw) ? raw : null })
}

export const toWire = (time: Time): Schema.Json => (time instanceof UnparsedTime ? time.raw : text(time))

/** The warning that goes with values that are no times. */
export const warnUnparsed = (raw: ReadonlyArray<Schema.Json>): Effect.Effect<void> =>
  Effect.logWarning(
    `The service sent ${raw.map((value) => JSON.stringify(value).slice(0, 80)).join(", ")} for a time; it is kept as it is.`
  )

const isTime = Schema.Union([Schema.DateTimeUtc, UnparsedTime]).pipe(Schema.toType)

/** Codec between what is on the wire and `Time`. */
export const Time: Schema.Codec<Time, unknown> = Schema.Unknown.pipe(
  Schema.decodeTo(isTime, {
    decode: SchemaGetter.transformEffect((raw: unknown): Effect.Effect<Time> => {
      const time = fromWire(raw)
      return time instanceof UnparsedTime ? Effect.as(warnUnparsed([time.raw]), time) : Effect.succeed(time)
    }),
    encode: SchemaGetter.transform(toWire)
  })
)

/** The time, where there is one. */
export const toOption = (time: Time): Option.Option<DateTime.Utc> =>
  time instanceof UnparsedTime ? Option.none() : Option.some(time)
