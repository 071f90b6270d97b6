/**
 * What shall go wrong, where, and how often: a plan that is data, so that a failure found once can be had again.
 *
 * Two ways to say where:
 *
 * - **a step** is the index of an `optim_step` in its lineage, from 0. A model loaded from a checkpoint goes on counting
 *   where the checkpoint stood, so step 57 means the same after a restore. A fault with `times: 1` (the default) does not
 *   fire when the step is reached again;
 * - **an occurrence** is the n-th distinct operation of one kind that the emulator accepted, from 1. A resubmission of an
 *   operation is not a new occurrence. With `times: n` the n operations from there on are hit.
 *
 * A checkpoint is named by the number of steps that were applied when it was saved (`{ step: 40 }`) or as the n-th save
 * (`{ save: 3 }`).
 *
 * The text form, for command lines; parts are joined with commas:
 *
 * | Text | Effect |
 * | --- | --- |
 * | `corrupt@57` `corrupt@57x3` | step 57 is not applied: the model is flagged corrupted, all it still has to do fails |
 * | `corrupt@30s` | the same 30 seconds after the start, on the model used last |
 * | `lose-session@20` | at step 20 the model's session is gone and its models are unloaded |
 * | `lose:optim_step@12` | accepted and executed, but the connection drops before the reply |
 * | `lose:retrieve_future@3` | the third finished result is dropped on its way |
 * | `burst:503:optim_step@4x3` `burst:429:create_model@1x2=5s` | three requests from the fourth on get that status; `=5s` is a Retry-After |
 * | `delay:optim_step@3=30s` `delay:optim_step@3=30s:paused_capacity` | the result shows up 30 seconds late |
 * | `expire:optim_step@9` | executed, but its future answers 410 |
 * | `soft-fail:forward_backward@7` `soft-fail:forward_backward:user@7` | this operation fails in band and changes nothing; the model lives on |
 * | `truncate@40` `missing@40` `poison-load@40` `absent@40` | the checkpoint of step 40 is cut short · lost behind its listing · poisons whoever loads it · was acknowledged and never written |
 * | `truncate@#3` | the same for the third save |
 *
 * A position may be a range, `corrupt@40..60`: `make` and `parse` draw one value from the plan's seed, and `format` prints
 * what was drawn.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { EmulatorError, InvalidFaultPlan } from "./EmulatorError.ts"

/** Operations that the future-based faults can name. `forward` is a `forward_backward` with `forward_only`. */
export const Operation = Schema.Literals([
  "create_model",
  "forward",
  "forward_backward",
  "optim_step",
  "save_weights",
  "save_weights_for_sampler",
  "load_weights",
  "unload_model",
  "asample"
])
export type Operation = typeof Operation.Type

/** Everything that can be refused or lost on the wire. */
export const Request = Schema.Literals([
  ...Operation.literals,
  "retrieve_future",
  "auth_token",
  "client_config",
  "dynamic_config",
  "create_session",
  "session_heartbeat",
  "session",
  "get_info",
  "weights_info",
  "create_sampling_session",
  "sampler",
  "training_run",
  "training_runs",
  "run_checkpoints",
  "checkpoints",
  "delete_checkpoint",
  "checkpoint_ttl",
  "publish_checkpoint",
  "unpublish_checkpoint",
  "archive",
  "download",
  "session_project",
  "trace_export",
  "telemetry",
  "audit",
  "billing_usage",
  "server_capabilities"
])
export type Request = typeof Request.Type

const Step = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const times = Schema.optionalKey(Count)
// At most a year: longer is a mistake in the unit.
const Millis = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 31_536_000_000 }))

/** A checkpoint by the steps applied when it was saved, or as the n-th save. */
export const SaveSite = Schema.Union([Schema.Struct({ step: Step }), Schema.Struct({ save: Count })])
export type SaveSite = typeof SaveSite.Type

const Corrupt = Schema.TaggedStruct("Corrupt", { atStep: Step, times })
const CorruptAfter = Schema.TaggedStruct("CorruptAfter", { millis: Millis })
const LoseSession = Schema.TaggedStruct("LoseSession", { atStep: Step, times })
const LoseResponse = Schema.TaggedStruct("LoseResponse", { operation: Request, occurrence: Count, times })
const HttpBurst = Schema.TaggedStruct("HttpBurst", {
  operation: Request,
  /** The first request, counting every request of this kind, that is refused. */
  occurrence: Count,
  status: Schema.Int.check(Schema.isBetween({ minimum: 400, maximum: 599 })),
  count: Count,
  retryAfterMillis: Schema.optionalKey(Millis)
})
const DelayResult = Schema.TaggedStruct("DelayResult", {
  operation: Operation,
  occurrence: Count,
  millis: Millis,
  /** What polls report meanwhile. Default `active`. */
  queueState: Schema.optionalKey(Schema.Literals(["active", "paused_capacity", "paused_rate_limit"])),
  times
})
const ExpireFuture = Schema.TaggedStruct("ExpireFuture", { operation: Operation, occurrence: Count, times })
const Category = Schema.Literals(["user", "server", "unknown"])
const SoftFail = Schema.TaggedStruct("SoftFail", {
  operation: Operation,
  occurrence: Count,
  /** Default server. */
  category: Schema.optionalKey(Category),
  times
})
const DamageCheckpoint = Schema.TaggedStruct("DamageCheckpoint", {
  damage: Schema.Literals(["truncated", "missing", "poisonedOnLoad", "absent"]),
  at: SaveSite,
  times
})

/** One thing that goes wrong. */
export const Fault = Schema.Union([
  Corrupt,
  CorruptAfter,
  LoseSession,
  LoseResponse,
  HttpBurst,
  DelayResult,
  ExpireFuture,
  SoftFail,
  DamageCheckpoint
])
export type Fault = typeof Fault.Type

/** Faults with concrete positions, and the seed that their ranges were drawn with. */
export const FaultPlan = Schema.Struct({ faults: Schema.Array(Fault), seed: Schema.Int })
export type FaultPlan = typeof FaultPlan.Type

/** A number, or a range (both ends included) from which the seed draws one. */
export type Position = number | readonly [from: number, to: number]

/** A fault whose positions may still be ranges. `make` turns drafts into faults. */
export interface Draft {
  readonly resolve: (draw: (position: Position) => number) => Fault
}

const optional = <K extends string, A>(key: K, value: A | undefined): { readonly [P in K]?: A } =>
  // The computed key widens to string; the value is present exactly when the key is.
  (value === undefined ? {} : { [key]: value }) as { readonly [P in K]?: A }

const millisOf = (duration: Duration.Input) =>
  Math.min(31_536_000_000, Math.round(Duration.toMillis(Duration.fromInputUnsafe(duration))))

/** Poisons the model whose lineage is about to apply this step, or, with `after`, the model used last at that time. */
export const corrupt = (
  at: { readonly atStep: Position; readonly times?: number | undefined } | { readonly after: Duration.Input }
): Draft => ({
  resolve: (draw) =>
    "after" in at
      ? { _tag: "CorruptAfter", millis: millisOf(at.after) }
      : { _tag: "Corrupt", atStep: draw(at.atStep), ...optional("times", at.times) }
})

/** Ends the session of the model that is about to apply this step. */
export const loseSession = (at: { readonly atStep: Position; readonly times?: number | undefined }): Draft => ({
  resolve: (draw) => ({ _tag: "LoseSession", atStep: draw(at.atStep), ...optional("times", at.times) })
})

/** Executes the operation and drops the reply to its submission (or, for `retrieve_future`, the n-th finished result). */
export const loseResponse = (at: {
  readonly operation: Request
  readonly occurrence: Position
  readonly times?: number | undefined
}): Draft => ({
  resolve: (draw) => ({
    _tag: "LoseResponse",
    operation: at.operation,
    occurrence: draw(at.occurrence),
    ...optional("times", at.times)
  })
})

/** Refuses `count` requests in a row with a status, beginning with the request numbered `occurrence` (default 1). */
export const httpBurst = (at: {
  readonly operation: Request
  readonly status: number
  readonly count?: number | undefined
  readonly occurrence?: Position | undefined
  readonly retryAfter?: Duration.Input | undefined
}): Draft => ({
  resolve: (draw) => ({
    _tag: "HttpBurst",
    operation: at.operation,
    status: at.status,
    count: at.count ?? 1,
    occurrence: draw(at.occurrence ?? 1),
    ...optional("retryAfterMillis", at.retryAfter === undefined ? undefined : millisOf(at.retryAfter))
  })
})

/** Executes the operation on its turn and shows its result `by` later. */
export const delayResult = (at: {
  readonly operation: Operation
  readonly occurrence: Position
  readonly by: Duration.Input
  readonly queueState?: "active" | "paused_capacity" | "paused_rate_limit" | undefined
  readonly times?: number | undefined
}): Draft => ({
  resolve: (draw) => ({
    _tag: "DelayResult",
    operation: at.operation,
    occurrence: draw(at.occurrence),
    millis: millisOf(at.by),
    ...optional("queueState", at.queueState),
    ...optional("times", at.times)
  })
})

/** Executes the operation and forgets its future: every poll answers 410. */
export const expireFuture = (at: {
  readonly operation: Operation
  readonly occurrence: Position
  readonly times?: number | undefined
}): Draft => ({
  resolve: (draw) => ({
    _tag: "ExpireFuture",
    operation: at.operation,
    occurrence: draw(at.occurrence),
    ...optional("times", at.times)
  })
})

/** Fails this operation in band without executing it; operations behind it are not touched. */
export const softFail = (at: {
  readonly operation: Operation
  readonly occurrence: Position
  readonly category?: "user" | "server" | "unknown" | undefined
  readonly times?: number | undefined
}): Draft => ({
  resolve: (draw) => ({
    _tag: "SoftFail",
    operation: at.operation,
    occurrence: draw(at.occurrence),
    ...optional("category", at.category),
    ...optional("times", at.times)
  })
})

type SaveDraft = ({ readonly step: Position } | { readonly save: Position }) & { readonly times?: number | undefined }

const damage =
  (kind: (typeof DamageCheckpoint.Type)["damage"]) =>
  (at: SaveDraft): Draft => ({
    resolve: (draw) => ({
      _tag: "DamageCheckpoint",
      damage: kind,
      at: "step" in at ? { step: draw(at.step) } : { save: draw(at.save) },
      ...optional("times", at.times)
    })
  })

/** The checkpoint is listed with the size that is left of it, and cannot be loaded. */
export const checkpointTruncated = damage("truncated")
/** The checkpoint is listed with its full size, and cannot be loaded. */
export const checkpointMissing = damage("missing")
/** The checkpoint loads, and the model that loaded it is corrupted at once. Every load of it, not only the first. */
export const checkpointPoisonedOnLoad = damage("poisonedOnLoad")
/** The save is acknowledged with a path that never appears. */
export const saveAbsent = damage("absent")

/** Plans faults. Ranges are drawn with `seed` (default 1), in the order given. */
export const make = (faults: ReadonlyArray<Draft | Fault>, seed = 1): FaultPlan => {
  const next = mulberry32(seed)
  const draw = (position: Position) =>
    typeof position === "number" ? position : position[0] + Math.floor(next() * (position[1] - position[0] + 1))
  return { faults: faults.map((fault) => ("resolve" in fault ? fault.resolve(draw) : fault)), seed }
}

/** Nothing goes wrong. */
export const none: FaultPlan = { faults: [], seed: 1 }

/** Both plans; the seed of the first. */
export const concat = (a: FaultPlan, b: FaultPlan): FaultPlan => ({
  faults: [...a.faults, ...b.faults],
  seed: a.seed
})

// A small generator with 32 bits of state: all that drawing a few positions needs.
const mulberry32 = (seed: number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** Reads the text form. A part that means nothing is an `InvalidFaultPlan` that quotes it. */
export const parse = (text: string, seed = 1): Effect.Effect<FaultPlan, EmulatorError> =>
  Effect.suspend(() => {
    const drafts: Array<Draft> = []
    for (const raw of text.split(",")) {
      const part = raw.trim()
      if (part === "") continue
      const draft = parsePart(part)
      if (typeof draft === "string") {
        return Effect.fail(new EmulatorError({ reason: new InvalidFaultPlan({ part, problem: draft }) }))
      }
      drafts.push(draft)
    }
    return Effect.succeed(make(drafts, seed))
  })

const atPattern = /^(?<save>#?)(?<from>\d+)(?:\.\.(?<to>\d+))?(?:x(?<times>\d+))?(?:=(?<value>.+))?$/

interface At {
  readonly save: boolean
  readonly position: Position
  readonly times: number | undefined
  readonly value: string | undefined
}

// A string is the problem.
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

const parseDuration = (text: string): Duration.Duration | undefined => {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text)
  if (match === null) return undefined
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match[2] ?? "ms"] ?? 1
  return Duration.millis(Number(match[1]) * unit)
}

const names =
  "corrupt, lose-session, lose:OP, burst:STATUS:OP, delay:OP, expire:OP, soft-fail:OP, truncate, missing, poison-load, absent"

const damages = {
  truncate: checkpointTruncated,
  missing: checkpointMissing,
  "poison-load": checkpointPoisonedOnLoad,
  absent: saveAbsent
}

const least = (position: Position) => (typeof position === "number" ? position : position[0])

const parsePart = (part: string): Draft | string => {
  const separator = part.indexOf("@")
  const head = separator < 0 ? part : part.slice(0, separator)
  const tail = separator < 0 ? undefined : part.slice(separator + 1)
  const [name = "", first, second, ...rest] = head.split(":")

  if (name === "corrupt" && first === undefined && tail !== undefined) {
    const after = parseDuration(tail)
    if (after !== undefined) return corrupt({ after })
  }
  const known = ["corrupt", "lose-session", "lose", "burst", "delay", "expire", "soft-fail", ...Object.keys(damages)]
  if (!known.includes(name)) return `there is no fault "${name}". Known: ${names}.`
  const at = parseAt(tail)
  if (typeof at === "string") return at
  if (at.value !== undefined && name !== "delay" && name !== "burst") return `"=${at.value}" means nothing here.`

  const takesOperation = ["lose", "burst", "delay", "expire", "soft-fail"].includes(name)
  if (!takesOperation) {
    if (first !== undefined) return `"${name}" takes no operation. Write ${name}@position.`
    if (name === "corrupt" || name === "lose-session") {
      if (at.save) return "a save number means nothing here. Write a step, without #."
      const site = { atStep: at.position, times: at.times }
      return name === "corrupt" ? corrupt(site) : loseSession(site)
    }
    if (at.save && least(at.position) < 1) return "saves are counted from 1."
    const site = at.save ? { save: at.position } : { step: at.position }
    // The list of names above is made of these keys.
    return damages[name as keyof typeof damages]({ ...site, times: at.times })
  }

  if (at.save) return "a save number means nothing here. Write an occurrence, without #."
  if (least(at.position) < 1) return "occurrences are counted from 1."
  const operation = name === "burst" ? second : first
  const extra = name === "burst" ? rest[0] : second
  if (extra !== undefined && name !== "soft-fail") return `":${extra}" is too much before the @.`
  const domain = name === "lose" || name === "burst" ? Request : Operation
  if (!Schema.is(domain)(operation)) {
    return `${operation === undefined ? "no operation is named" : `"${operation}" is no operation`}. Known: ${domain.literals.join(", ")}.`
  }
  const site = { occurrence: at.position, times: at.times }
  switch (name) {
    case "lose":
      return loseResponse({ ...site, operation })
    case "burst": {
      const status = Number(first)
      if (!(Number.isInteger(status) && status >= 400 && status <= 599))
        return `"${first}" is no status from 400 to 599.`
      const retryAfter = at.value === undefined ? undefined : parseDuration(at.value)
      if (at.value !== undefined && retryAfter === undefined)
        return `"${at.value}" is no duration. Write 500ms, 2s, 1m.`
      return httpBurst({ operation, status, occurrence: at.position, count: at.times, retryAfter })
    }
    case "delay": {
      if (!Schema.is(Operation)(operation)) return `"${operation}" has no result to delay.`
      const [length = "", queueState] = (at.value ?? "").split(":")
      const by = parseDuration(length)
      if (by === undefined) return "says no delay. Write delay:OP@3=30s."
      if (queueState !== undefined && queueState !== "paused_capacity" && queueState !== "paused_rate_limit") {
        return `"${queueState}" is no queue state. Write paused_capacity or paused_rate_limit.`
      }
      return delayResult({ ...site, operation, by, queueState })
    }
    default: {
      if (!Schema.is(Operation)(operation)) return `"${operation}" has no future.`
      if (name === "expire") return expireFuture({ ...site, operation })
      return extra === undefined || Schema.is(Category)(extra)
        ? softFail({ ...site, operation, category: extra })
        : `"${extra}" is no category. Write user, server or unknown.`
    }
  }
}

/** The text form of a plan, with drawn positions: `parse(format(plan))` has the same faults. */
export const format = (plan: FaultPlan): string => plan.faults.map(formatFault).join(",")

const multiple = (count: number | undefined) => (count === undefined || count === 1 ? "" : `x${count}`)

const damageNames = { truncated: "truncate", missing: "missing", poisonedOnLoad: "poison-load", absent: "absent" }

/** The text form of one fault. */
export const formatFault = (fault: Fault): string => {
  switch (fault._tag) {
    case "Corrupt":
      return `corrupt@${fault.atStep}${multiple(fault.times)}`
    case "CorruptAfter":
      return `corrupt@${fault.millis}ms`
    case "LoseSession":
      return `lose-session@${fault.atStep}${multiple(fault.times)}`
    case "LoseResponse":
      return `lose:${fault.operation}@${fault.occurrence}${multiple(fault.times)}`
    case "HttpBurst": {
      const hint = fault.retryAfterMillis === undefined ? "" : `=${fault.retryAfterMillis}ms`
      return `burst:${fault.status}:${fault.operation}@${fault.occurrence}${multiple(fault.count)}${hint}`
    }
    case "DelayResult": {
      const state = fault.queueState === undefined || fault.queueState === "active" ? "" : `:${fault.queueState}`
      return `delay:${fault.operation}@${fault.occurrence}${multiple(fault.times)}=${fault.millis}ms${state}`
    }
    case "ExpireFuture":
      return `expire:${fault.operation}@${fault.occurrence}${multiple(fault.times)}`
    case "SoftFail":
      return `soft-fail:${fault.operation}${fault.category === undefined ? "" : `:${fault.category}`}@${fault.occurrence}${multiple(fault.times)}`
    case "DamageCheckpoint": {
      const site = "step" in fault.at ? `${fault.at.step}` : `#${fault.at.save}`
      return `${damageNames[fault.damage]}@${site}${multiple(fault.times)}`
    }
  }
}
