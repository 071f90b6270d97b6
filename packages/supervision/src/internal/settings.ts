import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { Backoff } from "../Backoff.ts"
import type { Decide } from "../Decision.ts"
import * as RestartIntensity from "../RestartIntensity.ts"
import type { Problem, Restart, Settings, Stuck } from "./child.ts"
import { type Definition, sameActor } from "./definition.ts"
import type { Registration } from "./names.ts"
import { backoffProblem, oneOf, quote } from "./plan.ts"

/**
 * @category options
 * @since 0.1.0
 */
export interface ChildOptions {
  /**
   * `permanent` (default): restarted after every end. `transient`: restarted after a crash. `temporary`: never restarted,
   * forgotten at its end, and so are its arguments.
   */
  readonly restart?: Restart | undefined
  /**
   * How long a stop may take before the child is fenced and left behind: a duration, `"infinity"`, or `"brutal"` for no
   * wait at all. Default 5 seconds; infinity for supervisors.
   */
  readonly shutdown?: Duration.Input | "infinity" | "brutal" | undefined
  /** How long its start may take, layers included; then it counts as failed. Default 30 seconds; infinity for supervisors. */
  readonly startLimit?: Duration.Input | undefined
  /** Its end may end its supervisor, see `autoShutdown`. Not for permanent children. Default false. */
  readonly significant?: boolean | undefined
  /**
   * What follows when it does not stop within `shutdown`: it is left behind as a zombie (`abandon`, default); everything
   * waits until it has ended (`wait`: for a child whose port or file the next one needs); or it is left behind and its
   * supervisor ends with `ChildStuck` (`fail`).
   */
  readonly stuck?: Stuck | undefined
  /** The delay before each restart, or `"none"` where its supervisor has a backoff for all. Default: its supervisor's. */
  readonly backoff?: Backoff | "none" | undefined
  /**
   * Restarts that this child may have, besides the intensity that all children share. When they are used up, the supervisor
   * gives up (`escalate`, default), or only the child stays down (`stop`). Default: no limit of its own.
   */
  readonly budget?:
    | (RestartIntensity.RestartIntensityOptions & { readonly exceeded?: "stop" | "escalate" | undefined })
    | undefined
  /** What a crash means. Default: what the restart type says. */
  readonly decide?: Decide | undefined
  /** Names that it has from before its init until it ends; see `Registry`. Default: none. */
  readonly names?: ReadonlyArray<Registration> | undefined
}

const workerShutdown = Duration.seconds(5)
const workerStart = Duration.seconds(30)

const durationOf = (value: Duration.Input): Duration.Duration | undefined => {
  if (Number.isNaN(value)) return undefined
  const duration = Option.getOrUndefined(Duration.fromInput(value))
  return duration === undefined || Number.isNaN(Duration.toMillis(duration)) ? undefined : duration
}

const timeProblem = (field: string, value: unknown): Problem => ({
  field,
  problem: `it is ${String(value)}; give a duration from 0`
})

const settingsOf = (
  options: ChildOptions,
  usualShutdown: Duration.Duration,
  usualStart: Duration.Duration
): readonly [Settings, Problem | undefined] => {
  const { budget, restart = "permanent", significant = false, stuck } = options
  const given = options.shutdown ?? usualShutdown
  const shutdown = given === "brutal" ? given : given === "infinity" ? Duration.infinity : durationOf(given)
  const startLimit = durationOf(options.startLimit ?? usualStart)
  const limits = budget === undefined ? undefined : RestartIntensity.limitsOf(budget)
  let problem =
    oneOf("restart", restart, ["permanent", "transient", "temporary"]) ??
    oneOf("stuck", stuck, ["abandon", "wait", "fail"]) ??
    oneOf("budget.exceeded", budget?.exceeded, ["stop", "escalate"]) ??
    (options.backoff === "none" ? undefined : backoffProblem(options.backoff))
  if (options.decide !== undefined && typeof options.decide !== "function") {
    problem ??= { field: "decide", problem: `it is ${quote(options.decide)}; give a function, or one from Decision` }
  }
  const { names = none } = options
  if (
    !Array.isArray(names) ||
    names.some((name: Partial<Registration> | undefined) => typeof name?.take !== "function")
  ) {
    problem ??= { field: "names", problem: "give a list of names, each from Registry" }
  }
  if (shutdown === undefined || (shutdown !== "brutal" && Duration.toMillis(shutdown) < 0)) {
    problem ??= timeProblem("shutdown", options.shutdown)
  }
  if (startLimit === undefined || Duration.toMillis(startLimit) < 0) {
    problem ??= timeProblem("startLimit", options.startLimit)
  }
  if (typeof significant !== "boolean") {
    problem ??= { field: "significant", problem: `it is ${String(significant)}; give true or false` }
  }
  if (significant && restart === "permanent") {
    problem ??= { field: "significant", problem: "a permanent child never ends for good, so it cannot be significant" }
  }
  if (limits !== undefined && "field" in limits) {
    problem ??= { field: limits.field.replace("intensity", "budget"), problem: limits.problem }
  }
  return [
    {
      restart,
      shutdown: shutdown ?? usualShutdown,
      startLimit: startLimit ?? usualStart,
      significant,
      stuck: stuck ?? "abandon",
      backoff: options.backoff,
      budget:
        limits === undefined || "field" in limits ? undefined : { limits, exceeded: budget?.exceeded ?? "escalate" },
      decide: options.decide,
      names: Array.isArray(names) ? names : none,
      layer: undefined
    },
    problem
  ]
}

const none: ReadonlyArray<Registration> = []
const workerSettings = settingsOf({}, workerShutdown, workerStart)

const byRestart = new Map<unknown, readonly [Settings, Problem | undefined]>()

/** Most children that come and go say nothing but their restart type, and those share their settings. */
export const workerSettingsOf = (options: ChildOptions | undefined): readonly [Settings, Problem | undefined] => {
  if (options === undefined) return workerSettings
  for (const field in options) if (field !== "restart") return settingsOf(options, workerShutdown, workerStart)
  let known = byRestart.get(options.restart)
  if (known === undefined) {
    known = settingsOf(options, workerShutdown, workerStart)
    if (known[1] === undefined) byRestart.set(options.restart, known)
  }
  return known
}

export const supervisorSettingsOf = (options: ChildOptions): readonly [Settings, Problem | undefined] =>
  settingsOf(options, Duration.infinity, Duration.infinity)

export const idProblem = (id: unknown): Problem | undefined =>
  typeof id === "string" && id !== "" && !id.includes("/")
    ? undefined
    : { field: "id", problem: `it is ${quote(id)}; give a name without "/"` }

export const nameProblem = ({ names }: Settings, definition: Definition | undefined): Problem | undefined => {
  if (names.length === 0) return undefined
  const index = names.findIndex((name) => !sameActor(name.definition, definition))
  if (index < 0) return undefined
  return { field: `names[${index}]`, problem: "it is of a registry for other actors" }
}

/** The settings of a supervisor that is a child. The backoff among its options is for its own children. */
export const ownSettingsOf = (id: unknown, options: ChildOptions): readonly [Settings, Problem | undefined] => {
  const [settings, problem] = supervisorSettingsOf(options)
  return [{ ...settings, backoff: undefined }, idProblem(id) ?? problem]
}
