/**
 * What a crash means for the child that had it.
 *
 * Without a decision every crash is answered by the child's restart type. A decision looks at the error first. Here a
 * booking that makes no sense costs the message and not the account, and a revoked licence closes it. `// =>` shows
 * what an expression returns.
 *
 * ```ts
 * import { Actor, ChildSpec, Decision, Supervisor } from "@tinkex/supervision"
 * import { Effect, Schema } from "effect"
 *
 * class Nonsense extends Schema.TaggedError<Nonsense>()("Nonsense", { amount: Schema.Number }) {}
 * class Revoked extends Schema.TaggedError<Revoked>()("Revoked", {}) {}
 *
 * class Account extends Actor.make("Account", {
 *   init: (opening: number) => ({ balance: opening }),
 *   call: { balance: (self) => self.state.balance },
 *   cast: {
 *     *book(self, amount: number) {
 *       if (Number.isNaN(amount)) return yield* new Nonsense({ amount })
 *       self.state.balance += amount
 *     },
 *     *revoke() {
 *       return yield* new Revoked()
 *     }
 *   }
 * }) {}
 *
 * const decide = Decision.byTag({ Nonsense: "resume", Revoked: "stop" }, { defect: "escalate" })
 *
 * const bank = Effect.gen(function* () {
 *   const tree = yield* Supervisor.start({ children: [ChildSpec.actor("alice", Account, 100, { decide })] })
 *   const { alice } = tree.refs
 *   yield* alice.cast.book(30)
 *   yield* alice.cast.book(NaN)
 *   yield* alice.call.balance() // => 130
 *   yield* alice.cast.revoke()
 *   yield* Effect.ignore(alice.call.balance())
 *   const closed = yield* Effect.flip(alice.call.balance())
 *   closed.reason._tag // => "NoProcess"
 * })
 * ```
 *
 * | decision | what follows |
 * | --- | --- |
 * | `restart` | what the restart type says |
 * | `resume` | an actor keeps its state and goes on with the next message; only the failing one is lost |
 * | `stop` | the child stays down, as if it had ended cleanly |
 * | `escalate` | its supervisor gives up at once, with `Escalated` |
 *
 * A typed failure of a call is an answer and no crash, so nobody decides about it. Neither does anybody about an init
 * that fails, about a kill, or about an end that is no crash.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type { ExitReason } from "./ExitReason.ts"

/**
 * `restart`: as the restart type says. `resume`: an actor keeps its state and goes on with the next message; only the
 * failing one is lost. `stop`: the child stays down, as if it had ended cleanly. `escalate`: its supervisor gives up at once.
 *
 * A defect is never resumed from, since nobody knows what state it left behind, and neither is the end of an effect child:
 * for both, `resume` means `restart`.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision = "restart" | "resume" | "stop" | "escalate"

/**
 * @category models
 * @since 0.1.0
 */
export type Crash = Extract<ExitReason, { readonly _tag: "Crash" }>

/**
 * A pure function of the crash. When it throws, that is a `CallbackFailed` event, and the decision is `restart`.
 *
 * @category models
 * @since 0.1.0
 */
export type Decide = (crash: Crash) => Decision

/**
 * Whether the crash was a defect rather than a typed failure.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isDefect = (crash: Crash): boolean => crash.cause.reasons.some(Cause.isDieReason)

/**
 * Decides typed failures by their `_tag`. `otherwise` (default `restart`) is for tags that are not listed, `defect`
 * (default `restart`) for whatever was thrown.
 *
 * **Example** (A rate limit is no reason to forget)
 *
 * ```ts
 * import { Decision } from "@tinkex/supervision"
 *
 * const decide = Decision.byTag({ RateLimited: "resume", Revoked: "stop" }, { defect: "escalate" })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const byTag =
  (
    cases: { readonly [tag: string]: Decision },
    rest: { readonly otherwise?: Decision | undefined; readonly defect?: Decision | undefined } = {}
  ): Decide =>
  (crash) => {
    if (isDefect(crash)) return rest.defect ?? "restart"
    const { error } = crash
    const tag = typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : ""
    return (Object.hasOwn(cases, tag) ? cases[tag] : undefined) ?? rest.otherwise ?? "restart"
  }
