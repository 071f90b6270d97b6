import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CallOptions } from "../CallOptions.ts"
import { InvalidInput, TinkerError } from "../TinkerError.ts"
import type { Outgoing } from "./transport.ts"

/** What a call's options come to for the transport. */
export type Limits = Pick<Outgoing, "deadlineMillis" | "maxRetries" | "headers">

/** Names that the client sets by itself: a second value would either be lost or make the request another one. */
const own = new Set([
  "accept",
  "authorization",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "host",
  "transfer-encoding",
  "x-api-key"
])

/** Checked before anything is sent, and before an operation takes its place. */
export const parse = (operation: string, options: CallOptions | undefined): Effect.Effect<Limits, TinkerError> => {
  if (options === undefined) return Effect.succeed({})
  const refuse = (field: string, problem: string) =>
    Effect.fail(new TinkerError({ reason: new InvalidInput({ operation, field: `options.${field}`, problem }) }))
  const { deadline, headers, retries } = options
  let deadlineMillis: number | undefined
  if (deadline !== undefined) {
    const given = Duration.fromInput(deadline)
    deadlineMillis = given._tag === "Some" ? Duration.toMillis(given.value) : Number.NaN
    if (!Number.isFinite(deadlineMillis) || deadlineMillis <= 0) {
      return refuse("deadline", 'must be a finite duration above 0, such as "30 seconds"')
    }
  }
  if (retries !== undefined && (!Number.isSafeInteger(retries) || retries < 0)) {
    return refuse("retries", `is ${retries} and must be a whole number from 0 on`)
  }
  for (const [name, value] of Object.entries(headers ?? {})) {
    const field = `headers["${name.slice(0, 80)}"]`
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) return refuse(field, "is no name of a header")
    if (own.has(name.toLowerCase())) return refuse(field, "belongs to the client and cannot be set")
    // The value is not repeated: it may be a secret.
    if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) return refuse(field, "holds characters that a header cannot carry")
  }
  return Effect.succeed({
    ...(deadlineMillis === undefined ? {} : { deadlineMillis }),
    ...(retries === undefined ? {} : { maxRetries: retries }),
    ...(headers === undefined
      ? {}
      : { headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])) })
  })
}
