import * as Option from "effect/Option"

/**
 * `tinker://<training run>/<kind>/<name>`. A run's id may hold colons, a name holds no slash. Both go into URLs as they are, so
 * neither may hold what would end or climb out of a URL's path: `?`, `#`, `%`, a backslash, white space, `.` or `..`.
 */
export interface CheckpointPath {
  readonly runId: string
  readonly kind: "weights" | "sampler_weights"
  readonly name: string
}

export const format = ({ kind, name, runId }: CheckpointPath): string => `tinker://${runId}/${kind}/${name}`

const grammar = /^tinker:\/\/([^/]+)\/(weights|sampler_weights)\/([^/]+)$/

/** Whether a text can be one segment of a URL's path without changing its meaning. */
export const isSegment = (text: string): boolean => /^[^/\\?#%\s\p{Cc}]+$/u.test(text) && text !== "." && text !== ".."

/** Reads a path; none for any other text. */
export const parse = (path: string): Option.Option<CheckpointPath> => {
  const [, runId, kind, name] = grammar.exec(path) ?? []
  if (runId === undefined || name === undefined || !isSegment(runId) || !isSegment(name)) return Option.none()
  return Option.some({ runId, kind: kind === "weights" ? "weights" : "sampler_weights", name })
}

/** The two-part id that lists and routes use: `weights/<name>`. */
export const checkpointId = ({ kind, name }: CheckpointPath): string => `${kind}/${name}`
