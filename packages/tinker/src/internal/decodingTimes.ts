import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Time from "../Time.ts"

/** Both ways between a wire form and its model; what is no time is reported once for the whole value. */
export const decodingTimes = <Wire, Model>(
  read: (wire: Wire, readTime: (raw: unknown) => Time.Time) => Model,
  write: (model: Model) => Wire
) => ({
  decode: SchemaGetter.transformEffect((wire: Wire): Effect.Effect<Model> => {
    const unparsed: Array<Schema.Json> = []
    const model = read(wire, (raw) => {
      const time = Time.fromWire(raw)
      if (time instanceof Time.UnparsedTime) unparsed.push(time.raw)
      return time
    })
    return unparsed.length === 0 ? Effect.succeed(model) : Effect.as(Time.warnUnparsed(unparsed), model)
  }),
  encode: SchemaGetter.transform(write)
})
