/** Finds the checkpoint of a save whose own answer is lost. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { TinkerError } from "../TinkerError.ts"
import * as Endpoint from "../wire/Endpoint.ts"
import * as Json from "../wire/Json.ts"
import { backoff, type Transport } from "./transport.ts"

export interface Wanted {
  readonly runId: string
  readonly kind: "weights" | "sampler_weights"
  readonly name: string
  readonly toleranceMillis: number
}

/** The path of a checkpoint once the service lists it; `otherwise` where it does not do so in time. */
export const find = Effect.fnUntraced(function* (
  transport: Transport,
  wanted: Wanted,
  otherwise: TinkerError
): Effect.fn.Return<string, TinkerError> {
  const { kind, name, runId, toleranceMillis } = wanted
  const began = yield* Clock.currentTimeMillis
  for (let tries = 0; ; tries++) {
    const { checkpoints } = yield* transport.request(Endpoint.runCheckpoints(runId), {
      operation: `look for ${kind}/${name} of ${runId}`,
      decode: Json.Checkpoints
    })
    const type = kind === "weights" ? "training" : "sampler"
    const found = checkpoints.find(
      // Some servers leave the kind out of the id.
      (one) => one.checkpoint_id === `${kind}/${name}` || (one.checkpoint_id === name && one.checkpoint_type === type)
    )
    if (found !== undefined) return found.tinker_path
    const left = toleranceMillis - ((yield* Clock.currentTimeMillis) - began)
    if (left <= 0) return yield* otherwise
    yield* Effect.sleep(Math.min(left, yield* backoff(tries, 500, 10_000)))
  }
})
