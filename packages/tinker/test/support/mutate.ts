// Damage for answers and requests, drawn from a seed.

/** A random source of its own, so that a case can be repeated from its seed. */
export interface Dice {
  /** A whole number from 0 to below `below`. */
  readonly below: (below: number) => number
  readonly pick: <A>(list: ReadonlyArray<A>) => A
}

export const dice = (seed: number): Dice => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (limit: number) => Math.floor(next() * limit)
  return { below, pick: <A>(list: ReadonlyArray<A>) => list[below(list.length)] as A }
}

/** Bytes with some of them changed, cut off, doubled or put in. */
export const bytes = (d: Dice, whole: Uint8Array): Uint8Array => {
  let out = Buffer.from(whole)
  for (let hits = d.below(4) + 1; hits > 0; hits--) {
    const at = d.below(out.length + 1)
    switch (d.below(7)) {
      case 0:
        out = Buffer.from(out.subarray(0, at))
        break
      case 1:
        out = Buffer.concat([out.subarray(0, at), Buffer.from([d.below(256), d.below(256)]), out.subarray(at)])
        break
      case 2:
        out = Buffer.concat([out, out.subarray(at)])
        break
      case 3:
        out = Buffer.concat([out.subarray(0, at), out.subarray(Math.min(out.length, at + 1 + d.below(8)))])
        break
      case 4:
        // A length or a count that promises far more than follows.
        out = Buffer.concat([out.subarray(0, at), Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f]), out.subarray(at)])
        break
      default:
        if (out.length > 0) out[d.below(out.length)] = d.below(256)
    }
  }
  return new Uint8Array(out)
}

const strange: ReadonlyArray<unknown> = [
  null,
  true,
  false,
  0,
  -1,
  0.5,
  1e308,
  2 ** 53,
  2 ** 63,
  "",
  "try_again",
  "\u0000\ud800",
  "NaN",
  "2026-13-45T99:99:99Z",
  [],
  [[]],
  {},
  { error: "broken" },
  { type: "try_again" },
  { constructor: 1, __proto__: null }
]

/** A value with something in it taken out, renamed, replaced or added. */
export const json = (d: Dice, value: unknown): unknown => {
  if (d.below(6) === 0) return d.pick(strange)
  if (Array.isArray(value)) {
    const list: Array<unknown> = [...value]
    const at = d.below(list.length + 1)
    if (at === list.length) list.push(d.pick(strange))
    else if (d.below(3) === 0) list.splice(at, 1)
    else list[at] = json(d, list[at])
    return list
  }
  if (typeof value !== "object" || value === null) return d.pick(strange)
  const entries = Object.entries(value)
  const at = d.below(entries.length + 1)
  const entry = entries[at]
  if (entry === undefined)
    return { ...value, [d.pick(["error", "type", "status", "detail", "__proto__", "x"])]: d.pick(strange) }
  const [key, inner] = entry
  switch (d.below(4)) {
    case 0:
      entries.splice(at, 1)
      break
    case 1:
      entries[at] = [key.toUpperCase(), inner]
      break
    default:
      entries[at] = [key, json(d, inner)]
  }
  return Object.fromEntries(entries)
}

/** JSON text that is damaged as text, or that holds what JSON can and numbers cannot. */
export const jsonText = (d: Dice, value: unknown): string => {
  const text = JSON.stringify(d.below(2) === 0 ? value : json(d, value)) ?? ""
  switch (d.below(8)) {
    case 0:
      return text.slice(0, d.below(text.length + 1))
    case 1:
      return text.replace(/\d+|"[^"]*"/, d.pick(["1e400", "-1e400", "1".repeat(400), "9007199254740993", "NaN", "0x1"]))
    case 2:
      return `${text}${text}`
    case 3:
      return "[".repeat(2000) + text
    case 4:
      return text.replaceAll('"', '\\"')
    default:
      return text
  }
}
