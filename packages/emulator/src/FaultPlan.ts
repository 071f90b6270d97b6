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
 * | `corrupt-unflagged@57` | all it still has to do fails, and the flag never rises |
 * | `poison:save_weights@2` `poison:save_weights:during@2` `poison:optim_step:after@9` | the model is corrupted at that operation: before it was carried out · it was, and is reported as failed · after it was acknowledged. Also `poison-unflagged` |
 * | `lose-session@20` `lose-session@30s` | at step 20, or after 30 seconds, the session is gone and its models are unloaded |
 * | `lose:optim_step@12` | accepted and executed, but the connection drops before the reply |
 * | `lose:retrieve_future@3` | the third finished result is dropped on its way |
 * | `drop:optim_step@12x3` | the connection drops before the request was looked at |
 * | `burst:503:optim_step@4x3` `burst:429:create_model@1x2=5s` | three requests from the fourth on get that status; `=5s` is a Retry-After |
 * | `bare:400:retrieve_future@1` | the same without a body, as from a proxy |
 * | `slow:checkpoints@1=20s` `trickle:retrieve_future@3=100ms` | the reply leaves that much later · its body leaves byte by byte |
 * | `mangle:retrieve_future:cut@3` | the reply breaks off in the middle. Also `garbage`, `html` (an error page), `huge` (one of 10 MB), `empty`, `mistyped` (another content type), `mixup` (the reply to another request) |
 * | `partition@30s=5m` | nothing gets through from 30 seconds after the start on, for 5 minutes |
 * | `pause@30s=6h` `pause@30s=1m:paused_rate_limit` | nothing is executed meanwhile, and polls say so |
 * | `delay:optim_step@3=30s` `delay:optim_step@3=30s:paused_capacity` | the result shows up 30 seconds late; `alternating` changes the state with every poll |
 * | `expire:optim_step@9` `forget:optim_step@9` | executed, but its future answers 410 · the same, and never executed |
 * | `soft-fail:forward_backward@7` `soft-fail:forward_backward:user@7` | this operation fails in band and changes nothing; the model lives on |
 * | `nan:forward_backward@5` `spike:forward_backward@5x3=8` | the reported loss and logprobs are no numbers · the reported loss is 8 times what it is; the gradients are right |
 * | `truncate@40` `missing@40` `poison-load@40` `absent@40` | the checkpoint of step 40 is cut short · lost behind its listing · poisons whoever loads it · was acknowledged and never written |
 * | `empty@40` `vanish@40` `alter@40` `poison-step@40` | it has a size of 0 · is gone when it is first asked for · loads with one wrong weight · poisons whoever loaded it at the first step |
 * | `truncate@#3` | the same for the third save |
 * | `total:training_runs@1=-5` | the first listing of runs says 5 fewer than there are |
 *
 * Where a request is named, `any` is every request.
 *
 * A position may be a range, `corrupt@40..60`: `make` and `parse` draw one value from the plan's seed, and `format` prints
 * what was drawn.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { EmulatorError, InvalidFaultPlan } from "./EmulatorError.ts"
import {
  type Damage,
  type Draft,
  Fault,
  type Manner,
  type Moment,
  Operation,
  optional,
  type Position,
  Request,
  SaveSite,
  Target
} from "./internal/fault.ts"
import * as Text from "./internal/faultText.ts"

export { Fault, Operation, Request, SaveSite, Target }
export type { Draft, Manner, Position }

/** Faults with concrete positions, and the seed that their ranges were drawn with. */
export const FaultPlan = Schema.Struct({ faults: Schema.Array(Fault), seed: Schema.Int })
export type FaultPlan = typeof FaultPlan.Type

const millisOf = (duration: Duration.Input) =>
  Math.min(31_536_000_000, Math.round(Duration.toMillis(Duration.fromInputUnsafe(duration))))

interface Counted<A> {
  readonly operation: A
  readonly occurrence: Position
  readonly times?: number | undefined
}

const counted = <A extends string>(
  { occurrence, operation, times }: Counted<A>,
  draw: (position: Position) => number
) => ({
  operation,
  occurrence: draw(occurrence),
  ...optional("times", times)
})

const silent = (unflagged: boolean | undefined) =>
  optional("unflagged", unflagged === true ? (true as const) : undefined)

/**
 * Poisons the model whose lineage is about to apply this step, or, with `after`, the model used last at that time. `unflagged`
 * leaves the run's flag down.
 */
export const corrupt = (
  at: ({ readonly atStep: Position; readonly times?: number | undefined } | { readonly after: Duration.Input }) & {
    readonly unflagged?: boolean | undefined
  }
): Draft => ({
  resolve: (draw) =>
    "after" in at
      ? { _tag: "CorruptAfter", millis: millisOf(at.after), ...silent(at.unflagged) }
      : { _tag: "Corrupt", atStep: draw(at.atStep), ...silent(at.unflagged), ...optional("times", at.times) }
})

/**
 * Poisons the model at an operation: `before` it is carried out (the default), `during` it (carried out, reported as failed), or
 * `after` it was acknowledged.
 */
export const poison = (
  at: Counted<Operation> & { readonly when?: Moment | undefined; readonly unflagged?: boolean | undefined }
): Draft => ({
  resolve: (draw) => ({
    _tag: "Poison",
    ...counted(at, draw),
    ...optional("when", at.when),
    ...silent(at.unflagged)
  })
})

/** Ends the session of the model that is about to apply this step, or, with `after`, the session used last at that time. */
export const loseSession = (
  at: { readonly atStep: Position; readonly times?: number | undefined } | { readonly after: Duration.Input }
): Draft => ({
  resolve: (draw) =>
    "after" in at
      ? { _tag: "LoseSessionAfter", millis: millisOf(at.after) }
      : { _tag: "LoseSession", atStep: draw(at.atStep), ...optional("times", at.times) }
})

/** Executes the operation and drops the reply to its submission (or, for `retrieve_future`, the n-th finished result). */
export const loseResponse = (at: Counted<Target>): Draft => ({
  resolve: (draw) => ({ _tag: "LoseResponse", ...counted(at, draw) })
})

/** Drops the connection before the request is looked at. */
export const dropRequest = (at: Counted<Target>): Draft => ({
  resolve: (draw) => ({ _tag: "DropRequest", ...counted(at, draw) })
})

/** Refuses `count` requests in a row with a status, beginning with the request numbered `occurrence` (default 1). */
export const httpBurst = (at: {
  readonly operation: Target
  readonly status: number
  readonly count?: number | undefined
  readonly occurrence?: Position | undefined
  readonly retryAfter?: Duration.Input | undefined
  /** Without a body, as from a proxy. Default false. */
  readonly bare?: boolean | undefined
}): Draft => ({
  resolve: (draw) => ({
    _tag: "HttpBurst",
    operation: at.operation,
    status: at.status,
    count: at.count ?? 1,
    occurrence: draw(at.occurrence ?? 1),
    ...optional("retryAfterMillis", at.retryAfter === undefined ? undefined : millisOf(at.retryAfter)),
    ...optional("bare", at.bare === true ? (true as const) : undefined)
  })
})

/** Sends the reply `by` later. */
export const slowResponse = (at: Counted<Target> & { readonly by: Duration.Input }): Draft => ({
  resolve: (draw) => ({ _tag: "SlowResponse", ...counted(at, draw), millis: millisOf(at.by) })
})

/** Sends the body of the reply byte by byte, with this much time in between. */
export const trickle = (at: Counted<Target> & { readonly every: Duration.Input }): Draft => ({
  resolve: (draw) => ({ _tag: "Trickle", ...counted(at, draw), millis: millisOf(at.every) })
})

/** Spoils the reply on its way. For `retrieve_future` only finished results count. */
export const mangleResponse = (at: Counted<Target> & { readonly manner: Manner }): Draft => ({
  resolve: (draw) => ({ _tag: "MangleResponse", ...counted(at, draw), manner: at.manner })
})

/** Lets nothing through for a while: every connection drops before its request is looked at. */
export const partition = (at: { readonly after: Duration.Input; readonly length: Duration.Input }): Draft => ({
  resolve: () => ({ _tag: "Partition", afterMillis: millisOf(at.after), millis: millisOf(at.length) })
})

/** Executes nothing for a while; polls report `queueState`, by default `paused_capacity`. */
export const pause = (at: {
  readonly after: Duration.Input
  readonly length: Duration.Input
  readonly queueState?: "paused_capacity" | "paused_rate_limit" | undefined
}): Draft => ({
  resolve: () => ({
    _tag: "Pause",
    afterMillis: millisOf(at.after),
    millis: millisOf(at.length),
    queueState: at.queueState ?? "paused_capacity"
  })
})

/** Executes the operation on its turn and shows its result `by` later. */
export const delayResult = (
  at: Counted<Operation> & {
    readonly by: Duration.Input
    readonly queueState?: "active" | "paused_capacity" | "paused_rate_limit" | "alternating" | undefined
  }
): Draft => ({
  resolve: (draw) => ({
    _tag: "DelayResult",
    ...counted(at, draw),
    millis: millisOf(at.by),
    ...optional("queueState", at.queueState)
  })
})

/** Executes the operation and forgets its future: every poll answers 410. */
export const expireFuture = (at: Counted<Operation>): Draft => ({
  resolve: (draw) => ({ _tag: "ExpireFuture", ...counted(at, draw) })
})

/** Never executes the operation, though it was accepted: every poll answers 410. What comes behind it goes on. */
export const forgetFuture = (at: Counted<Operation>): Draft => ({
  resolve: (draw) => ({ _tag: "ForgetFuture", ...counted(at, draw) })
})

/** Fails this operation in band without executing it; operations behind it are not touched. */
export const softFail = (
  at: Counted<Operation> & { readonly category?: "user" | "server" | "unknown" | undefined }
): Draft => ({
  resolve: (draw) => ({ _tag: "SoftFail", ...counted(at, draw), ...optional("category", at.category) })
})

/** Reports a loss that is `factor` (a whole number) times what it is, or, without a factor, no number at all. */
export const spoilResult = (
  at: Counted<"forward" | "forward_backward"> & { readonly factor?: number | undefined }
): Draft => ({
  resolve: (draw) => ({ _tag: "SpoilResult", ...counted(at, draw), ...optional("factor", at.factor) })
})

/** Adds `by` to the total that a listing reports. */
export const wrongTotal = (at: Counted<"training_runs" | "checkpoints"> & { readonly by: number }): Draft => ({
  resolve: (draw) => ({ _tag: "WrongTotal", ...counted(at, draw), by: at.by })
})

type SaveDraft = ({ readonly step: Position } | { readonly save: Position }) & { readonly times?: number | undefined }

const damage =
  (kind: Damage) =>
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
/** The checkpoint is listed with a size of 0, and cannot be loaded. */
export const checkpointEmpty = damage("empty")
/** The checkpoint is listed with its full size, and cannot be loaded. */
export const checkpointMissing = damage("missing")
/** The checkpoint is listed until somebody asks for it or loads it, and is gone by then. */
export const checkpointVanishing = damage("vanishing")
/** The checkpoint loads without complaint, and one of its weights is wrong. */
export const checkpointAltered = damage("altered")
/** The checkpoint loads, and the model that loaded it is corrupted at once. Every load of it, not only the first. */
export const checkpointPoisonedOnLoad = damage("poisonedOnLoad")
/** The checkpoint loads, and the model that loaded it is corrupted at its first step. Every load of it. */
export const checkpointPoisonedOnStep = damage("poisonedOnStep")
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
      const draft = Text.parsePart(part)
      if (typeof draft === "string") {
        return Effect.fail(new EmulatorError({ reason: new InvalidFaultPlan({ part, problem: draft }) }))
      }
      drafts.push(draft)
    }
    return Effect.succeed(make(drafts, seed))
  })

/** The text form of a plan, with drawn positions: `parse(format(plan))` has the same faults. */
export const format = (plan: FaultPlan): string => plan.faults.map(formatFault).join(",")

/** The text form of one fault. */
export const formatFault = (fault: Fault): string => Text.format(fault)
