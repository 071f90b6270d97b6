/** Reading of request bodies; whatever is wrong with one is a 4xx. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { type ApiRequest, Refused, refused } from "../reply.ts"

const decoder = new TextDecoder("utf-8", { fatal: true })
const format = SchemaIssue.makeFormatterStandardSchemaV1()

export const parseJson = (bytes: Uint8Array): Effect.Effect<unknown, Refused> =>
  Effect.try({
    try: (): unknown => (bytes.length === 0 ? {} : JSON.parse(decoder.decode(bytes))),
    catch: () => refused(422, "The body is not JSON")
  })

/** Decodes a value, or refuses it with the list of what is wrong and where. */
export const decode = <A, I>(schema: Schema.Codec<A, I>): ((value: unknown) => Effect.Effect<A, Refused>) => {
  const run = Schema.decodeUnknownEffect(schema)
  return (value) =>
    Effect.mapError(
      run(value),
      (error) =>
        new Refused({
          status: 422,
          detail: format(error.issue).issues.map((issue) => ({
            loc: ["body", ...(issue.path ?? [])],
            msg: issue.message,
            type: "value_error"
          }))
        })
    )
}

/** A reader of JSON bodies of one shape. */
export const jsonBody = <A, I>(schema: Schema.Codec<A, I>): ((request: ApiRequest) => Effect.Effect<A, Refused>) => {
  const run = decode(schema)
  return (request) => Effect.flatMap(parseJson(request.body), run)
}

/** A hundred years: ends beyond that are no times any more, and would spoil every list that they are in. */
const longestTtl = 3_155_760_000

/** What is wrong with how long something is to be kept, in seconds; nothing is for ever. */
export const problemOfTtl = (ttlSeconds: number | null | undefined): string | undefined =>
  ttlSeconds == null || (ttlSeconds > 0 && ttlSeconds <= longestTtl)
    ? undefined
    : `ttl_seconds is ${ttlSeconds}; give 1 to ${longestTtl}, or none`

/** A whole number of the query, or its default. */
export const queryInt = (request: ApiRequest, name: string, fallback: number): Effect.Effect<number, Refused> => {
  const text = request.query.get(name)
  if (text === null || text === "") return Effect.succeed(fallback)
  const value = Number(text)
  return Number.isSafeInteger(value) && value >= 0
    ? Effect.succeed(value)
    : Effect.fail(refused(422, `${name} is "${text}"; give a whole number from 0`))
}
