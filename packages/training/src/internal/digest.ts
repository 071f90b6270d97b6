import { createHash } from "node:crypto"

export const ofText = (text: string): string => createHash("sha256").update(text).digest("hex")

/** JSON with sorted keys, so that the order in which options were written does not make another run. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner
  ) ?? "null"

export const ofJson = (value: unknown): string => ofText(canonical(value))

const isRecord = (value: unknown): value is Record<string, unknown> =>
  value !== null && typeof value === "object" && !Array.isArray(value)

/** The leaves that differ, as `path: before -> after`. */
export const diff = (before: unknown, after: unknown, path = ""): ReadonlyArray<string> => {
  if (isRecord(before) && isRecord(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].toSorted()
    return keys.flatMap((key) => diff(before[key], after[key], path === "" ? key : `${path}.${key}`))
  }
  const [a, b] = [canonical(before), canonical(after)]
  return a === b ? [] : [`${path}: ${a} -> ${b}`]
}
