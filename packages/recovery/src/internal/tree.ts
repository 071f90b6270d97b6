import type * as Effect from "effect/Effect"
import * as ChildSpec from "@tinkex/supervision/ChildSpec"
import * as Supervisor from "@tinkex/supervision/Supervisor"

/** The executor's workers first, then the monitor: a monitor that crashes leaves recoveries running. */
export const start = (monitor: Effect.Effect<never>) =>
  Supervisor.start({
    name: "recovery",
    strategy: "rest_for_one",
    children: [ChildSpec.supervisor("executor", { children: [] }), ChildSpec.effect("monitor", monitor)]
  })
