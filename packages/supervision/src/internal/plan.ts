import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { Backoff } from "../Backoff.ts"
import * as RestartIntensity from "../RestartIntensity.ts"
import { InvalidRequest, SupervisorError } from "../SupervisorError.ts"
import { Blueprint, type Problem } from "./child.ts"

export type Strategy = "one_for_one" | "one_for_all" | "rest_for_one"
export type AutoShutdown = "never" | "any_significant" | "all_significant"
export type GiveUp = "crash" | "shutdown"

/** What a supervisor is made of, checked. */
export interface Plan {
  readonly strategy: Strategy
  readonly limits: RestartIntensity.Limits
  readonly autoShutdown: AutoShutdown
  readonly backoff: Backoff | undefined
  readonly giveUp: GiveUp
  readonly when: Effect.Effect<boolean> | undefined
  readonly children: ReadonlyArray<Blueprint>
}

/**
 * What every kind of supervisor can be told.
 *
 * @category options
 * @since 0.1.0
 */
export interface CommonOptions {
  /** Restarts granted before the supervisor gives up. Default 3 within 5 seconds. */
  readonly intensity?: RestartIntensity.RestartIntensityOptions | undefined
  /**
   * Whether the supervisor ends, with a shutdown, when one (`any_significant`) or the last (`all_significant`) of its
   * significant children has ended and will not be restarted. Default `never`.
   */
  readonly autoShutdown?: AutoShutdown | undefined
  /** The delay before each restart, for all children that name none of their own. Default: none. */
  readonly backoff?: Backoff | undefined
  /**
   * How a supervisor that gives up ends: as a `crash` with the reason and its history (default), so that a parent restarts it
   * also when it is transient; or with a plain `shutdown`, as in OTP.
   */
  readonly giveUp?: GiveUp | undefined
  /** Asked before anything starts; on false there is nothing to run. Default: always. */
  readonly when?: Effect.Effect<boolean> | undefined
}

/**
 * @category options
 * @since 0.1.0
 */
export interface SupervisorOptions<Children> extends CommonOptions {
  /**
   * Which children a crash drags along: none (`one_for_one`, default), all (`one_for_all`), or those started after it
   * (`rest_for_one`).
   */
  readonly strategy?: Strategy | undefined
  /** In start order; they are stopped in reverse. */
  readonly children: Children
}

/** A refusal. An id of a wrong type is among the problems, so it may be what the supervisor is called. */
export const invalid = (supervisor: string, { field, problem }: Problem): SupervisorError =>
  new SupervisorError({ reason: new InvalidRequest({ supervisor: String(supervisor), field, problem }) })

export const quote = (value: unknown): string => {
  try {
    return typeof value === "string" ? `"${value}"` : (JSON.stringify(value) ?? String(value))
  } catch {
    return String(value)
  }
}

/** A problem when a value that is set is not one of these. */
export const oneOf = (field: string, value: unknown, allowed: ReadonlyArray<string>): Problem | undefined =>
  value === undefined || (typeof value === "string" && allowed.includes(value))
    ? undefined
    : { field, problem: `it is ${quote(value)}; give one of ${allowed.join(", ")}` }

/** A problem when what is to be a backoff is none. */
export const backoffProblem = (backoff: unknown): Problem | undefined => {
  if (
    backoff === undefined ||
    (typeof backoff === "object" && backoff !== null && "schedule" in backoff && Schedule.isSchedule(backoff.schedule))
  )
    return undefined
  return { field: "backoff", problem: `it is ${quote(backoff)}; make one with Backoff` }
}

/** The blueprint of something that should be a child spec. */
export const blueprintOf = (spec: unknown, field: string): Blueprint | Problem => {
  const blueprint = typeof spec === "object" && spec !== null && "blueprint" in spec ? spec.blueprint : undefined
  if (!(blueprint instanceof Blueprint))
    return { field, problem: `${quote(spec)} is no child spec; make one with ChildSpec` }
  if (blueprint.problem === undefined) return blueprint
  return { field: `${field}.${blueprint.problem.field}`, problem: blueprint.problem.problem }
}

/** A problem when a child's significance does not go with its supervisor. */
export const significanceProblem = (
  { settings }: Blueprint,
  autoShutdown: AutoShutdown,
  field: string
): Problem | undefined => {
  if (!settings.significant || autoShutdown !== "never") return undefined
  return { field: `${field}.significant`, problem: "autoShutdown is never, so no child can be significant" }
}

/** Options over those that are in force: what is left out stays. */
export const commonOver = (
  { autoShutdown, backoff, giveUp, limits, when }: Plan,
  options: CommonOptions
): CommonOptions => ({
  autoShutdown: options.autoShutdown ?? autoShutdown,
  backoff: options.backoff ?? backoff,
  giveUp: options.giveUp ?? giveUp,
  when: options.when ?? when,
  intensity: {
    restarts: options.intensity?.restarts ?? limits.restarts,
    within: options.intensity?.within ?? limits.within
  }
})

/** Checks the options that all supervisors share. */
export const commonPlan = (options: CommonOptions): Omit<Plan, "strategy" | "children"> | Problem => {
  const limits = RestartIntensity.limitsOf(options.intensity)
  if ("field" in limits) return limits
  const problem =
    oneOf("autoShutdown", options.autoShutdown, ["never", "any_significant", "all_significant"]) ??
    oneOf("giveUp", options.giveUp, ["crash", "shutdown"]) ??
    backoffProblem(options.backoff) ??
    (options.when === undefined || Effect.isEffect(options.when)
      ? undefined
      : { field: "when", problem: `it is ${quote(options.when)}; give an Effect of true or false` })
  if (problem !== undefined) return problem
  const { autoShutdown = "never", backoff, giveUp = "crash", when } = options
  return { limits, autoShutdown, backoff, giveUp, when }
}

/** Checks a list of specs: each is one, makes sense by itself, and has an id of its own. */
export const blueprintsOf = (
  specs: ReadonlyArray<unknown>,
  autoShutdown: AutoShutdown | undefined
): ReadonlyArray<Blueprint> | Problem => {
  if (!Array.isArray(specs)) return { field: "children", problem: `it is ${quote(specs)}; give a list of child specs` }
  const ids = new Set<string>()
  const blueprints: Array<Blueprint> = []
  for (const [index, spec] of specs.entries()) {
    const field = `children[${index}]`
    const blueprint = blueprintOf(spec, field)
    if (!(blueprint instanceof Blueprint)) return blueprint
    const problem = autoShutdown === undefined ? undefined : significanceProblem(blueprint, autoShutdown, field)
    if (problem !== undefined) return problem
    const { id } = blueprint
    if (ids.has(id)) return { field: `${field}.id`, problem: `two children have the id "${id}"; give each its own` }
    ids.add(id)
    blueprints.push(blueprint)
  }
  return blueprints
}

/** Checks the options. A problem is kept and fails the start, so that making a spec never throws. */
export const planOf = (
  supervisor: string,
  options: SupervisorOptions<ReadonlyArray<unknown>>
): Plan | SupervisorError => {
  const common = commonPlan(options)
  if ("field" in common) return invalid(supervisor, common)
  const problem = oneOf("strategy", options.strategy, ["one_for_one", "one_for_all", "rest_for_one"])
  if (problem !== undefined) return invalid(supervisor, problem)
  const children = blueprintsOf(options.children, common.autoShutdown)
  if ("field" in children) return invalid(supervisor, children)
  return { ...common, strategy: options.strategy ?? "one_for_one", children }
}
