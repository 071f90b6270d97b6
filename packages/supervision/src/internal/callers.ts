import * as Fiber from "effect/Fiber"
import { CurrentHandler } from "./link.ts"
import { CurrentPlace } from "./place.ts"

/** On whose behalf the present fiber works: the child it belongs to, then those on whose behalf that works. */
export const callersOf = (fiber: Fiber.Fiber<unknown, unknown> | undefined): ReadonlyArray<string> => {
  if (fiber === undefined) return []
  const place = fiber.getRef(CurrentPlace)
  if (place !== undefined) return [place.child.path, ...place.callers]
  const handler = fiber.getRef(CurrentHandler)
  return [handler === undefined ? `fiber ${fiber.id}` : handler.actor.path]
}
