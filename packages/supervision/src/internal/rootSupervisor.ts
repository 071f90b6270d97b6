import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Context from "effect/Context"
import * as ExitReason from "../ExitReason.ts"
import { Ignored, SupervisorError } from "../SupervisorError.ts"
import { ignored } from "./child.ts"
import type { Overseer } from "./overseer.ts"
import { invalid } from "./plan.ts"
import type { AnyExit, Open } from "./process.ts"
import { idProblem } from "./settings.ts"
import { System, detached } from "./system.ts"

const awaitOpen = (open: Open): Effect.Effect<AnyExit> =>
  Effect.callback((resume) => Effect.sync(open.addObserver((exit) => resume(Effect.succeed(exit)))))

/** Starts a supervisor without a supervisor: it belongs to the surrounding scope and stops with it. */
export const startRoot = <S extends Overseer>(
  make: (context: Context.Context<never>, system: System) => S
): Effect.Effect<S, SupervisorError, Scope.Scope> =>
  Effect.flatMap(Effect.context<never>(), (context) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const system = new System(context)
        const supervisor = make(detached(context), system)
        const problem = idProblem(supervisor.id)
        if (problem !== undefined) return yield* invalid(String(supervisor.id), { ...problem, field: "name" })
        const stop = (reason: ExitReason.ExitReason) =>
          Effect.suspend(() => {
            const rest = supervisor.halt(reason)
            return rest === undefined ? Effect.void : Effect.asVoid(awaitOpen(rest))
          })
        yield* Effect.addFinalizer((exit) =>
          stop(Exit.isSuccess(exit) ? ExitReason.shutdown : ExitReason.fromExit(exit, true))
        )
        const begun = supervisor.begin()
        const exit = Exit.isExit(begun)
          ? begun
          : yield* Effect.onInterrupt(restore(awaitOpen(begun)), () => stop(ExitReason.shutdown))
        supervisor.since = Math.floor(system.now())
        const outcome = supervisor.complete(exit)
        // the only failure of a start is the SupervisorError that begin reports
        if (Exit.isFailure(exit)) return yield* exit as Exit.Exit<never, SupervisorError>
        if (outcome === ignored) {
          const reason = new Ignored({ supervisor: supervisor.path, child: supervisor.id })
          return yield* Exit.fail(new SupervisorError({ reason }))
        }
        supervisor.activate()
        return supervisor
      })
    )
  )
