/**
 * Times as the service writes them: ISO 8601 text, now and then without a zone, which is then UTC. A text that is no time
 * decodes to `UnparsedTime` with a warning instead of an error, so that a bad timestamp never hides the `corrupted` flag beside
 * it. Encoding gives the original text back.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"

/** A text that should have been a time. */
export class UnparsedTime extends Schema.Class<UnparsedTime>("UnparsedTime")({ raw: Schema.String }) {}

/** A time, or the text that should have been one. */
export type Time = DateTime.Utc | UnparsedTime

// A value remembers the text it was read from: services write fractions and zones in more than one way.
const originals = new WeakMap<DateTime.Utc, string>()

const zoned = /(?:[zZ]|[+-]\d{2}:?\d{2})$/
const dated = /^\d{4}-\d{2}-\d{2}/

/** Reads a time; none for a text that is none. */
export const parse = (raw: string): Option.Option<DateTime.Utc> => {
  if (!dated.test(raw)) return Option.none()
  const text = raw.length > 10 && !zoned.test(raw) ? `${raw.replace(" ", "T")}Z` : raw.replace(" ", "T")
  const millis = Date.parse(text)
  if (Number.isNaN(millis)) return Option.none()
  const time = DateTime.makeUnsafe(millis)
  originals.set(time, raw)
  return Option.some(time)
}

/** Codec between the text on the wire and `Time`. */
export const Time: Schema.Codec<Time, string> = Schema.String.pipe(
  Schema.decodeTo(Schema.toType(Schema.Union([Schema.DateTimeUtc, UnparsedTime])), {
    decode: SchemaGetter.transformEffect((raw: string) =>
      Option.match(parse(raw), {
        onSome: (time): Effect.Effect<Time> => Effect.succeed(time),
        onNone: () =>
          Effect.logWarning(`The service sent "${raw.slice(0, 80)}" for a time; it is kept as text.`).pipe(
            Effect.as(new UnparsedTime({ raw }))
          )
      })
    ),
    encode: SchemaGetter.transform((time: Time) =>
      time instanceof UnparsedTime ? time.raw : (originals.get(time) ?? DateTime.formatIso(time))
    )
  })
)

/** The time, where there is one. */
export const toOption = (time: Time): Option.Option<DateTime.Utc> =>
  time instanceof UnparsedTime ? Option.none() : Option.some(time)
