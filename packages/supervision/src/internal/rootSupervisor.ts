import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Context from "effect/Context"
import * as ExitReason from "../ExitReason.ts"
import { Ignored, SupervisorError } from "../SupervisorError.ts"
import { ignored } from "./child.ts"
import { DynamicBlueprint, DynamicChild, type DynamicFacade, type DynamicPlan } from "./dynamicChild.ts"
import type { Overseer } from "./overseer.ts"
import { type Plan, invalid } from "./plan.ts"
import type { AnyExit, Open } from "./process.ts"
import { idProblem, supervisorSettingsOf } from "./settings.ts"
import { type Facade, SupervisorBlueprint, SupervisorChild } from "./supervisorChild.ts"
import { System, detached } from "./system.ts"

const awaitOpen = (open: Open): Effect.Effect<AnyExit> =>
  Effect.callback((resume) => Effect.sync(open.addObserver((exit) => resume(Effect.succeed(exit)))))

/** Starts a supervisor without a supervisor: it belongs to the surrounding scope and stops with it. */
const startRoot = <S extends Overseer>(
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

// nobody restarts a root, and it stops when it is told to
const [rootSettings] = supervisorSettingsOf({ restart: "temporary" })

/** Starts a supervisor with a list of children. */
export const startListed = (
  name: string,
  plan: Plan | SupervisorError,
  facade: Facade
): Effect.Effect<SupervisorChild, SupervisorError, Scope.Scope> => {
  const blueprint = new SupervisorBlueprint(name, rootSettings, undefined, plan, facade)
  return startRoot((context, system) => new SupervisorChild(undefined, blueprint, context, system))
}

/** Starts a supervisor whose children are added while it runs. */
export const startDynamic = (
  name: string,
  plan: DynamicPlan | SupervisorError,
  facade: DynamicFacade
): Effect.Effect<DynamicChild, SupervisorError, Scope.Scope> => {
  const blueprint = new DynamicBlueprint(name, rootSettings, undefined, plan, facade)
  return startRoot((context, system) => new DynamicChild(undefined, blueprint, context, system))
}
