/**
 * What a test that uses this kit found out.
 *
 * Every reason says what was expected and what happened instead, so that the message of a failed test is all that is needed
 * to begin with.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"

/**
 * Under this seed the effect failed. `tried` counts the seeds of the exploration so far, this one included.
 *
 * @category errors
 * @since 0.1.0
 */
export class SeedFailed extends Schema.TaggedError<SeedFailed>()("SeedFailed", {
  seed: Schema.Number,
  tried: Schema.Number,
  failure: Schema.Cause(Schema.Defect(), Schema.Defect())
}) {
  override get message() {
    const { failure, seed, tried } = this
    return `Seed ${seed} failed, the ${ordinal(tried)} that was tried. Replay it with SeededScheduler.run(${seed}, effect), or look at its steps with SeededScheduler.record(${seed}, effect).\n${Cause.pretty(failure)}`
  }
  get isRetryable() {
    return false
  }
}

/**
 * A run under a seed came to no end. Nothing was left that could run (`deadlock`), or there was no end of it (`livelock`).
 *
 * @category errors
 * @since 0.1.0
 */
export class Stalled extends Schema.TaggedError<Stalled>()("Stalled", {
  seed: Schema.Number,
  steps: Schema.Number,
  kind: Schema.Literals(["deadlock", "livelock"])
}) {
  override get message() {
    const { kind, seed, steps } = this
    return kind === "deadlock"
      ? `Under seed ${seed} nothing is left to run after ${steps} steps, and the effect has not ended. Find out what it waits for: a clock that nobody adjusts, a message that nobody sends, or something outside that takes longer than \`patience\`.`
      : `Under seed ${seed} the effect has not ended after ${steps} steps, and time stands still while it runs. Look for a loop that never waits, or raise \`maxSteps\`.`
  }
  get isRetryable() {
    return false
  }
}

/**
 * An event did not come within the limit. `seen` are the events that did, in one line each.
 *
 * @category errors
 * @since 0.1.0
 */
export class NeverHappened extends Schema.TaggedError<NeverHappened>()("NeverHappened", {
  expected: Schema.String,
  within: Schema.Duration,
  seen: Schema.Array(Schema.String)
}) {
  override get message() {
    return `"${this.expected}" did not happen. Adjust the clock if it needs time, and look at what did happen:\n${lines(this.seen)}`
  }
  get isRetryable() {
    return true
  }
}

/**
 * Events did not come as expected. `difference` has a line per event: `  ` before what was expected and came, `- ` before
 * what was expected and did not come there, `+ ` before what came and was not expected.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unexpected extends Schema.TaggedError<Unexpected>()("Unexpected", {
  problem: Schema.String,
  difference: Schema.Array(Schema.String)
}) {
  override get message() {
    return `${this.problem}:\n${lines(this.difference)}`
  }
  get isRetryable() {
    return false
  }
}

/**
 * The books of a tree do not balance: an incarnation that started has no end, or has two, or what was left behind still runs.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unbalanced extends Schema.TaggedError<Unbalanced>()("Unbalanced", {
  problems: Schema.Array(Schema.String)
}) {
  override get message() {
    return `The events of the tree do not balance:\n${lines(this.problems)}`
  }
  get isRetryable() {
    return false
  }
}

const lines = (texts: ReadonlyArray<string>) => (texts.length === 0 ? "  (nothing)" : `  ${texts.join("\n  ")}`)

const ordinal = (count: number): string => {
  const last = count % 100 > 10 && count % 100 < 14 ? 0 : count % 10
  return `${count}${["th", "st", "nd", "rd"][last] ?? "th"}`
}

/**
 * @category models
 * @since 0.1.0
 */
export type TestingErrorReason = SeedFailed | Stalled | NeverHappened | Unexpected | Unbalanced

/**
 * The error of this kit.
 *
 * @category errors
 * @since 0.1.0
 */
export class TestingError extends Schema.TaggedError<TestingError>()("TestingError", {
  reason: Schema.Union([SeedFailed, Stalled, NeverHappened, Unexpected, Unbalanced])
}) {
  override get message() {
    return this.reason.message
  }
  get isRetryable() {
    return this.reason.isRetryable
  }
}
