/**
 * Why a supervised child ended.
 *
 * Every end is exactly one of four reasons, and supervision looks at nothing else: `Normal` and `Shutdown` are clean
 * (only a permanent child is restarted), `Crash` and `Killed` are not (permanent and transient children are restarted).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"

/**
 * An error that means "I am done": a child that fails with it ends cleanly, with `info` as the reason, instead of
 * crashing. It is OTP's exit with `{shutdown, Info}`.
 *
 * @category errors
 * @since 0.1.0
 */
export class Stop extends Schema.TaggedError<Stop>()("Stop", { info: Schema.Unknown }) {
  override get message() {
    return `Asked to stop: ${String(this.info)}`
  }
}

/** JSON has no undefined: it is written as null, and null is read as undefined. */
const Told = Schema.Union([Schema.Undefined, Schema.Unknown])

/**
 * The reason of an end: `Normal` with the value of an effect child, `Shutdown` for a stop that was asked for (`info`
 * when the child asked for it itself with {@link Stop}), `Crash` with the failure or defect that matters and the whole
 * cause, `Killed` for an interruption that the supervisor did not ask for.
 *
 * @category models
 * @since 0.1.0
 */
export const ExitReason = Schema.TaggedUnion({
  Normal: { value: Told },
  Shutdown: { info: Told },
  Crash: { error: Schema.Defect(), cause: Schema.Cause(Schema.Defect(), Schema.Defect()) },
  Killed: {}
})

/**
 * @category models
 * @since 0.1.0
 */
export type ExitReason = typeof ExitReason.Type

/**
 * The reason of a stop that a supervisor asked for.
 *
 * @category constructors
 * @since 0.1.0
 */
export const shutdown: ExitReason = { _tag: "Shutdown", info: undefined }

/**
 * The reason of an interruption by a stranger.
 *
 * @category constructors
 * @since 0.1.0
 */
export const killed: ExitReason = { _tag: "Killed" }

/**
 * The reason of an actor that stopped because it was asked to by a message.
 *
 * @category constructors
 * @since 0.1.0
 */
export const normal: ExitReason = { _tag: "Normal", value: undefined }

/**
 * The reason for a thrown value or defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const crash = (error: unknown): ExitReason => ({ _tag: "Crash", error, cause: Cause.die(error) })

/**
 * Classifies the end of a fiber. `requested` says whether the supervisor itself asked for the interruption. The order of
 * the tests matters: a finalizer that dies hides the typed failure before it, so defects are looked for first; and an
 * interruption counts as a shutdown only if nothing else went wrong. Total: every exit has a reason.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromExit = (exit: Exit.Exit<unknown, unknown>, requested: boolean): ExitReason => {
  if (exit._tag === "Success") return { _tag: "Normal", value: exit.value }
  const reasons = exit.cause.reasons
  for (const reason of reasons) {
    if (Cause.isDieReason(reason)) return { _tag: "Crash", error: reason.defect, cause: exit.cause }
  }
  for (const reason of reasons) {
    if (!Cause.isFailReason(reason)) continue
    return reason.error instanceof Stop
      ? { _tag: "Shutdown", info: reason.error.info }
      : { _tag: "Crash", error: reason.error, cause: exit.cause }
  }
  return requested ? shutdown : killed
}

/**
 * Whether a transient child stays down after this reason.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isClean = (reason: ExitReason): boolean => reason._tag === "Normal" || reason._tag === "Shutdown"

/**
 * One line for a log or a message.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = (reason: ExitReason): string => {
  switch (reason._tag) {
    case "Normal":
      return "normal"
    case "Shutdown":
      return reason.info === undefined ? "shutdown" : `shutdown (${String(reason.info)})`
    case "Crash":
      return `crash (${reason.error instanceof Error ? `${reason.error.name}: ${reason.error.message}` : String(reason.error)})`
    case "Killed":
      return "killed"
  }
}
