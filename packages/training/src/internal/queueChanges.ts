import * as Effect from "effect/Effect"
import type { QueueState } from "@tinkex/tinker/ApiFuture"

/** Passes on each change of what the service says, which is at first that nothing is held back. */
export const make = (
  tell: (state: QueueState) => Effect.Effect<void>
): ((state: QueueState) => Effect.Effect<void>) => {
  let known: QueueState["state"] = "active"
  return (state) =>
    Effect.suspend(() => {
      if (state.state === known) return Effect.void
      known = state.state
      return tell(state)
    })
}

export const active: QueueState = { state: "active", reason: undefined }
