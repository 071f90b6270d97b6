import type * as Schema from "effect/Schema"
import type { RunState } from "../RunState.ts"

/** A run's state as JSON and back. What JSON has no word for is an object with one of these as its only key. */
const marks = new Set(["$set", "$map", "$number", "$none", "$object"])

export const save = (state: RunState): Schema.Json => encode(state)

const encode = (value: unknown): Schema.Json => {
  if (value === undefined) return { $none: true }
  if (value instanceof Map) return { $map: [...value].map((pair) => pair.map(encode)) }
  if (value instanceof Set) return { $set: [...value].map(encode) }
  if (Array.isArray(value)) return value.map(encode)
  if (typeof value === "number") return Number.isFinite(value) ? value : { $number: String(value) }
  if (typeof value === "string" || typeof value === "boolean" || value === null) return value
  if (typeof value !== "object") return null
  const entries = Object.entries(value).map(([key, inner]) => [key, encode(inner)] as const)
  return entries.length === 1 && marks.has(entries[0]?.[0] ?? "")
    ? { $object: entries.map(([key, inner]) => [key, inner]) }
    : Object.fromEntries(entries)
}

/** `undefined` for what `save` has not written. */
export const restore = (json: Schema.Json): RunState | undefined => {
  const state = decode(json)
  return isState(state) ? state : undefined
}

// The journal's line is whole and of this version, so that a few fields tell a state from anything else.
const isState = (value: unknown): value is RunState =>
  typeof value === "object" &&
  value !== null &&
  "attempts" in value &&
  Array.isArray(value.attempts) &&
  "verified" in value &&
  Array.isArray(value.verified) &&
  "deleted" in value &&
  value.deleted instanceof Set

const decode = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(decode)
  if (typeof value !== "object" || value === null) return value
  const entries = Object.entries(value)
  const [only] = entries
  if (entries.length !== 1 || only === undefined || !marks.has(only[0])) {
    return Object.fromEntries(entries.map(([key, inner]) => [key, decode(inner)]))
  }
  const [mark, inner] = only
  if (mark === "$none") return undefined
  if (mark === "$number") return Number(inner)
  if (!Array.isArray(inner)) return undefined
  if (mark === "$set") return new Set(inner.map(decode))
  const pairs = inner.map((pair): readonly [unknown, unknown] => [decode(pair[0]), decode(pair[1])])
  return mark === "$map" ? new Map(pairs) : Object.fromEntries(pairs)
}
