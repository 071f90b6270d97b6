/** What is said of models that can do no more, and of things that are somebody else's. */
import type { Model } from "./entities.ts"
import type { Result } from "./futures.ts"
import { type Audit, refused, type Refused } from "./reply.ts"

/** What is said of every operation of a model that can do no more. */
export const deathOf = (model: Model): string | undefined => {
  if (model.unloaded) return notLoaded(model.id)
  if (model.run.corrupted) return corrupted(model.id)
  return model.broken ? broken(model.id) : undefined
}

/** Somebody else's. */
export const noAccess = (audit?: Audit): Refused => refused(403, "You do not have access to this model", audit)

export const notLoaded = (modelId: string) => `Model ${modelId} not loaded`

/** The result of an operation of a model that can do no more. */
export const dead = (model: Model): Result => ({
  _tag: "Failed",
  error: deathOf(model) ?? "it ended",
  category: "server"
})

export const broken = (modelId: string) => `Model ${modelId} failed before; nothing more can be done with it`

export const corrupted = (modelId: string) => `Model ${modelId} is corrupted; nothing more can be done with it`
