import * as RestartIntensity from "../RestartIntensity.ts"
import { InvalidRequest, SupervisorError } from "../SupervisorError.ts"
import type { Blueprint } from "./child.ts"

export type Strategy = "one_for_one" | "one_for_all" | "rest_for_one"

/** What a supervisor is made of, checked. */
export interface Plan {
  readonly strategy: Strategy
  readonly limits: RestartIntensity.Limits
  readonly children: ReadonlyArray<Blueprint>
}

/**
 * @category options
 * @since 0.1.0
 */
export interface SupervisorOptions<Children> {
  /**
   * Which children a crash drags along: none (`one_for_one`, default), all (`one_for_all`), or those started after it
   * (`rest_for_one`).
   */
  readonly strategy?: Strategy | undefined
  /** Restarts granted before the supervisor gives up. Default 3 within 5 seconds. */
  readonly intensity?: RestartIntensity.RestartIntensityOptions | undefined
  /** In start order; they are stopped in reverse. */
  readonly children: Children
}

/** Checks the options. A problem is kept and fails the start, so that making a spec never throws. */
export const planOf = (
  supervisor: string,
  options: SupervisorOptions<ReadonlyArray<{ readonly id: string; readonly blueprint: Blueprint }>>
): Plan | SupervisorError => {
  const refuse = (problem: string) => new SupervisorError({ reason: new InvalidRequest({ supervisor, problem }) })
  const limits = RestartIntensity.limitsOf(options.intensity)
  if (typeof limits === "string") return refuse(limits)
  const ids = new Set<string>()
  for (const { id } of options.children) {
    if (ids.has(id)) return refuse(`two children have the id "${id}"; give each its own`)
    ids.add(id)
  }
  return {
    strategy: options.strategy ?? "one_for_one",
    limits,
    children: options.children.map((child) => child.blueprint)
  }
}
