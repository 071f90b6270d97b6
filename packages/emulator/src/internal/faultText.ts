/** Faults as text: `name:word@position`, read and written. */
import * as Schema from "effect/Schema"
import * as Fault from "./fault.ts"
import { type Draft, optional, type Position } from "./fault.ts"

interface At {
  readonly save: boolean
  readonly position: Position
  readonly times: number | undefined
  readonly value: string | undefined
}

/** What a form reads: the words between its name and the `@`, and what comes behind that. */
interface Part {
  readonly name: string
  readonly words: ReadonlyArray<string>
  readonly tail: string | undefined
}

/** A string is the problem. */
type Form = (part: Part) => Draft | string

const atPattern = /^(?<save>#?)(?<from>\d+)(?:\.\.(?<to>\d+))?(?:x(?<times>\d+))?(?:=(?<value>.+))?$/

const parseAt = (text: string | undefined): At | string => {
  if (text === undefined) return "says no position. Write name@position."
  const groups = atPattern.exec(text)?.groups
  if (groups === undefined) return `"${text}" is no position. Write @57, @40..60, @#3 (third save) or @57x2 (twice).`
  const from = Number(groups.from)
  const to = groups.to === undefined ? undefined : Number(groups.to)
  const times = groups.times === undefined ? undefined : Number(groups.times)
  if (!Number.isSafeInteger(from) || (to !== undefined && (!Number.isSafeInteger(to) || to < from))) {
    return `"${text}" is no range of positions. Write it as low..high.`
  }
  if (times === 0) return "x0 would never fire. Leave the fault out."
  return { save: groups.save === "#", position: to === undefined ? from : [from, to], times, value: groups.value }
}

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
const longest = 31_536_000_000

/** Whole milliseconds, at most a year. */
const parseMillis = (text: string): number | undefined => {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text)
  if (match === null) return undefined
  // The pattern has no other units.
  return Math.min(longest, Math.round(Number(match[1]) * units[match[2] as keyof typeof units]))
}

const least = (position: Position) => (typeof position === "number" ? position : position[0])

/** A position that is a step or an occurrence, with nothing behind it unless a value is wanted. */
const place = (part: Part, what: "a step" | "an occurrence", wantsValue = false): At | string => {
  const at = parseAt(part.tail)
  if (typeof at === "string") return at
  if (at.save) return `a save number means nothing here. Write ${what}, without #.`
  if (at.value !== undefined && !wantsValue) return `"=${at.value}" means nothing here.`
  if (what === "an occurrence" && least(at.position) < 1) return "occurrences are counted from 1."
  return at
}

const noWords = ({ name, words }: Part) =>
  words.length === 0 ? undefined : `"${name}" takes no operation. Write ${name}@position.`

/** The first word as one of a set, and no more words than may be. */
const named = <A extends string>(
  words: ReadonlyArray<string>,
  domain: Schema.Schema<A> & { readonly literals: ReadonlyArray<string> },
  most: number
): { readonly operation: A } | string => {
  const [operation, ...rest] = words
  const extra = rest[most - 1]
  if (extra !== undefined) return `":${extra}" is too much before the @.`
  return Schema.is(domain)(operation)
    ? { operation }
    : `${operation === undefined ? "no operation is named" : `"${operation}" is no operation`}. Known: ${domain.literals.join(", ")}.`
}

/** `name:operation@occurrence`, the commonest form. */
const counted =
  <A extends string>(
    domain: Schema.Schema<A> & { readonly literals: ReadonlyArray<string> },
    make: (site: { readonly operation: A; readonly occurrence: number; readonly times?: number }) => Fault.Fault
  ): Form =>
  (part) => {
    const at = place(part, "an occurrence")
    if (typeof at === "string") return at
    const target = named(part.words, domain, 1)
    if (typeof target === "string") return target
    return {
      resolve: (draw) => make({ ...target, occurrence: draw(at.position), ...optional("times", at.times) })
    }
  }

/** `name:operation@occurrence=value`. */
const valued =
  <A extends string>(
    domain: Schema.Schema<A> & { readonly literals: ReadonlyArray<string> },
    make: (
      site: { readonly operation: A; readonly occurrence: number; readonly times?: number },
      value: number
    ) => Fault.Fault,
    read: { readonly parse: (text: string) => number | undefined; readonly missing: string }
  ): Form =>
  (part) => {
    const at = place(part, "an occurrence", true)
    if (typeof at === "string") return at
    const target = named(part.words, domain, 1)
    if (typeof target === "string") return target
    const value = at.value === undefined ? undefined : read.parse(at.value)
    if (value === undefined) return read.missing
    return {
      resolve: (draw) => make({ ...target, occurrence: draw(at.position), ...optional("times", at.times) }, value)
    }
  }

const corrupt =
  (unflagged?: true): Form =>
  (part) => {
    const millis = part.words.length === 0 ? parseMillis(part.tail ?? "") : undefined
    if (millis !== undefined) {
      return { resolve: () => ({ _tag: "CorruptAfter", millis, ...optional("unflagged", unflagged) }) }
    }
    const at = noWords(part) ?? place(part, "a step")
    if (typeof at === "string") return at
    return {
      resolve: (draw) => ({
        _tag: "Corrupt",
        atStep: draw(at.position),
        ...optional("unflagged", unflagged),
        ...optional("times", at.times)
      })
    }
  }

const poison =
  (unflagged?: true): Form =>
  (part) => {
    const at = place(part, "an occurrence")
    if (typeof at === "string") return at
    const target = named(part.words, Fault.Operation, 2)
    if (typeof target === "string") return target
    const [, when] = part.words
    if (when !== undefined && !Schema.is(Fault.Moment)(when)) {
      return `"${when}" is no moment. Write before, during or after.`
    }
    return {
      resolve: (draw) => ({
        _tag: "Poison",
        ...target,
        occurrence: draw(at.position),
        ...optional("when", when),
        ...optional("unflagged", unflagged),
        ...optional("times", at.times)
      })
    }
  }

const loseSession: Form = (part) => {
  const millis = part.words.length === 0 ? parseMillis(part.tail ?? "") : undefined
  if (millis !== undefined) return { resolve: () => ({ _tag: "LoseSessionAfter", millis }) }
  const at = noWords(part) ?? place(part, "a step")
  if (typeof at === "string") return at
  return {
    resolve: (draw) => ({ _tag: "LoseSession", atStep: draw(at.position), ...optional("times", at.times) })
  }
}

const burst =
  (bare?: true): Form =>
  ({ name, tail, words: [first, ...words] }) => {
    const at = place({ name, tail, words }, "an occurrence", true)
    if (typeof at === "string") return at
    const target = named(words, Fault.Target, 1)
    if (typeof target === "string") return target
    const status = Number(first)
    if (!(Number.isInteger(status) && status >= 400 && status <= 599)) {
      return `"${first}" is no status from 400 to 599.`
    }
    const retryAfterMillis = at.value === undefined ? undefined : parseMillis(at.value)
    if (at.value !== undefined && retryAfterMillis === undefined) {
      return `"${at.value}" is no duration. Write 500ms, 2s, 1m.`
    }
    return {
      resolve: (draw) => ({
        _tag: "HttpBurst",
        ...target,
        status,
        count: at.times ?? 1,
        occurrence: draw(at.position),
        ...optional("retryAfterMillis", retryAfterMillis),
        ...optional("bare", bare)
      })
    }
  }

const mangle: Form = (part) => {
  const at = place(part, "an occurrence")
  if (typeof at === "string") return at
  const target = named(part.words, Fault.Target, 2)
  if (typeof target === "string") return target
  const [, manner] = part.words
  if (!Schema.is(Fault.Manner)(manner)) {
    const given = manner === undefined ? "says no manner" : `"${manner}" is no manner`
    return `${given}. Write mangle:OP:cut@3. Known: ${Fault.Manner.literals.join(", ")}.`
  }
  return {
    resolve: (draw) => ({
      _tag: "MangleResponse",
      ...target,
      occurrence: draw(at.position),
      manner,
      ...optional("times", at.times)
    })
  }
}

const window = (tail: string | undefined) => {
  const [from = "", rest = ""] = (tail ?? "").split("=")
  const [length = "", word] = rest.split(":")
  return { afterMillis: parseMillis(from), millis: parseMillis(length), word }
}

const partition: Form = (part) => {
  const { afterMillis, millis, word } = window(part.tail)
  if (afterMillis === undefined || millis === undefined || word !== undefined) {
    return "says no window. Write partition@30s=5m."
  }
  return noWords(part) ?? { resolve: () => ({ _tag: "Partition", afterMillis, millis }) }
}

const pause: Form = (part) => {
  const { afterMillis, millis, word: queueState = "paused_capacity" } = window(part.tail)
  if (afterMillis === undefined || millis === undefined) return "says no window. Write pause@30s=6h."
  if (queueState !== "paused_capacity" && queueState !== "paused_rate_limit") {
    return `"${queueState}" is no queue state. Write paused_capacity or paused_rate_limit.`
  }
  return noWords(part) ?? { resolve: () => ({ _tag: "Pause", afterMillis, millis, queueState }) }
}

const delay: Form = (part) => {
  const at = place(part, "an occurrence", true)
  if (typeof at === "string") return at
  const target = named(part.words, Fault.Operation, 1)
  if (typeof target === "string") return target
  const [length = "", queueState] = (at.value ?? "").split(":")
  const millis = parseMillis(length)
  if (millis === undefined) return "says no delay. Write delay:OP@3=30s."
  if (
    queueState !== undefined &&
    queueState !== "paused_capacity" &&
    queueState !== "paused_rate_limit" &&
    queueState !== "alternating"
  ) {
    return `"${queueState}" is no queue state. Write paused_capacity, paused_rate_limit or alternating.`
  }
  return {
    resolve: (draw) => ({
      _tag: "DelayResult",
      ...target,
      occurrence: draw(at.position),
      millis,
      ...optional("queueState", queueState),
      ...optional("times", at.times)
    })
  }
}

const softFail: Form = (part) => {
  const at = place(part, "an occurrence")
  if (typeof at === "string") return at
  const target = named(part.words, Fault.Operation, 2)
  if (typeof target === "string") return target
  const [, category] = part.words
  if (category !== undefined && !Schema.is(Fault.Category)(category)) {
    return `"${category}" is no category. Write user, server or unknown.`
  }
  return {
    resolve: (draw) => ({
      _tag: "SoftFail",
      ...target,
      occurrence: draw(at.position),
      ...optional("category", category),
      ...optional("times", at.times)
    })
  }
}

const damage =
  (kind: Fault.Damage): Form =>
  (part) => {
    const at = noWords(part) ?? parseAt(part.tail)
    if (typeof at === "string") return at
    if (at.value !== undefined) return `"=${at.value}" means nothing here.`
    if (at.save && least(at.position) < 1) return "saves are counted from 1."
    return {
      resolve: (draw) => ({
        _tag: "DamageCheckpoint",
        damage: kind,
        at: at.save ? { save: draw(at.position) } : { step: draw(at.position) },
        ...optional("times", at.times)
      })
    }
  }

const Passes = Schema.Literals(["forward", "forward_backward"])
const Lists = Schema.Literals(["training_runs", "checkpoints"])

const wholeNumber = (text: string) => (/^-?\d{1,15}$/.test(text) ? Number(text) : undefined)
const inMillis = (example: string) => ({ parse: parseMillis, missing: `says no duration. Write ${example}.` })

const damageNames: Readonly<Record<Fault.Damage, string>> = {
  truncated: "truncate",
  empty: "empty",
  missing: "missing",
  vanishing: "vanish",
  altered: "alter",
  poisonedOnLoad: "poison-load",
  poisonedOnStep: "poison-step",
  absent: "absent"
}

const forms: ReadonlyMap<string, Form> = new Map<string, Form>([
  ["corrupt", corrupt()],
  ["corrupt-unflagged", corrupt(true)],
  ["poison", poison()],
  ["poison-unflagged", poison(true)],
  ["lose-session", loseSession],
  ["lose", counted(Fault.Target, (site) => ({ _tag: "LoseResponse", ...site }))],
  ["drop", counted(Fault.Target, (site) => ({ _tag: "DropRequest", ...site }))],
  ["burst", burst()],
  ["bare", burst(true)],
  [
    "slow",
    valued(Fault.Target, (site, millis) => ({ _tag: "SlowResponse", ...site, millis }), inMillis("slow:OP@3=5s"))
  ],
  [
    "trickle",
    valued(Fault.Target, (site, millis) => ({ _tag: "Trickle", ...site, millis }), inMillis("trickle:OP@3=100ms"))
  ],
  ["mangle", mangle],
  ["partition", partition],
  ["pause", pause],
  ["delay", delay],
  ["expire", counted(Fault.Operation, (site) => ({ _tag: "ExpireFuture", ...site }))],
  ["forget", counted(Fault.Operation, (site) => ({ _tag: "ForgetFuture", ...site }))],
  ["soft-fail", softFail],
  ["nan", counted(Passes, (site) => ({ _tag: "SpoilResult", ...site }))],
  [
    "spike",
    valued(Passes, (site, factor) => ({ _tag: "SpoilResult", ...site, factor }), {
      parse: wholeNumber,
      missing: "says no factor. Write spike:OP@3=8."
    })
  ],
  [
    "total",
    valued(Lists, (site, by) => ({ _tag: "WrongTotal", ...site, by }), {
      parse: wholeNumber,
      missing: "says no number. Write total:training_runs@1=-5."
    })
  ],
  ...Object.entries(damageNames).map(
    // The keys of the table are the kinds of damage.
    ([kind, name]) => [name, damage(kind as Fault.Damage)] as const
  )
])

/** Reads one part; a string says what is wrong with it. */
export const parsePart: (part: string) => Draft | string = (part) => {
  const separator = part.indexOf("@")
  const head = separator < 0 ? part : part.slice(0, separator)
  const tail = separator < 0 ? undefined : part.slice(separator + 1)
  const [name = "", ...words] = head.split(":")
  const form = forms.get(name)
  return form === undefined
    ? `there is no fault "${name}". Known: ${[...forms.keys()].join(", ")}.`
    : form({ name, words, tail })
}

const multiple = (count: number | undefined) => (count === undefined || count === 1 ? "" : `x${count}`)

const marked = (name: string, { unflagged }: { readonly unflagged?: true }) =>
  unflagged === true ? `${name}-unflagged` : name

const site = (fault: { readonly occurrence: number; readonly times?: number }) =>
  `@${fault.occurrence}${multiple(fault.times)}`

const word = (text: string | undefined) => (text === undefined ? "" : `:${text}`)

export const format = (fault: Fault.Fault): string => {
  switch (fault._tag) {
    case "Corrupt":
      return `${marked("corrupt", fault)}@${fault.atStep}${multiple(fault.times)}`
    case "CorruptAfter":
      return `${marked("corrupt", fault)}@${fault.millis}ms`
    case "Poison":
      return `${marked("poison", fault)}:${fault.operation}${word(fault.when)}${site(fault)}`
    case "LoseSession":
      return `lose-session@${fault.atStep}${multiple(fault.times)}`
    case "LoseSessionAfter":
      return `lose-session@${fault.millis}ms`
    case "LoseResponse":
      return `lose:${fault.operation}${site(fault)}`
    case "DropRequest":
      return `drop:${fault.operation}${site(fault)}`
    case "HttpBurst": {
      const hint = fault.retryAfterMillis === undefined ? "" : `=${fault.retryAfterMillis}ms`
      const name = fault.bare === true ? "bare" : "burst"
      return `${name}:${fault.status}:${fault.operation}@${fault.occurrence}${multiple(fault.count)}${hint}`
    }
    case "SlowResponse":
      return `slow:${fault.operation}${site(fault)}=${fault.millis}ms`
    case "Trickle":
      return `trickle:${fault.operation}${site(fault)}=${fault.millis}ms`
    case "MangleResponse":
      return `mangle:${fault.operation}:${fault.manner}${site(fault)}`
    case "Partition":
      return `partition@${fault.afterMillis}ms=${fault.millis}ms`
    case "Pause":
      return `pause@${fault.afterMillis}ms=${fault.millis}ms:${fault.queueState}`
    case "DelayResult": {
      const state = fault.queueState === "active" ? undefined : fault.queueState
      return `delay:${fault.operation}${site(fault)}=${fault.millis}ms${word(state)}`
    }
    case "ExpireFuture":
      return `expire:${fault.operation}${site(fault)}`
    case "ForgetFuture":
      return `forget:${fault.operation}${site(fault)}`
    case "SoftFail":
      return `soft-fail:${fault.operation}${word(fault.category)}${site(fault)}`
    case "SpoilResult":
      return fault.factor === undefined
        ? `nan:${fault.operation}${site(fault)}`
        : `spike:${fault.operation}${site(fault)}=${fault.factor}`
    case "DamageCheckpoint": {
      const at = "step" in fault.at ? `${fault.at.step}` : `#${fault.at.save}`
      return `${damageNames[fault.damage]}@${at}${multiple(fault.times)}`
    }
    case "WrongTotal":
      return `total:${fault.operation}${site(fault)}=${fault.by}`
  }
}
