import type { Child } from "./child.ts"

/** Under this key every handle of a child has the child itself. */
export const TargetId = "~@tinkex/supervision/Target" as const

/** Whatever can be watched and linked to: the handle of an actor, an effect or a supervisor. */
export interface Target {
  readonly [TargetId]: unknown
}

/** The incarnation that a handle means, if it means one. */
export const generationOf = (target: Target): number | undefined =>
  typeof target === "object" && "generation" in target && typeof target.generation === "number"
    ? target.generation
    : undefined

export const childOf = (target: Target): Child => target[TargetId] as Child // only the engine makes handles
