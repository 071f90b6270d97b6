import * as Option from "effect/Option"

/** `tinker://<training run>/<kind>/<name>`. A run's id may hold colons, a name holds no slash. */
export interface CheckpointPath {
  readonly runId: string
  readonly kind: "weights" | "sampler_weights"
  readonly name: string
}

export const format = ({ kind, name, runId }: CheckpointPath): string => `tinker://${runId}/${kind}/${name}`

/** Reads a path; none for any other text. */
export const parse = (path: string): Option.Option<CheckpointPath> => {
  if (!path.startsWith("tinker://")) return Option.none()
  const [runId, kind, name, ...rest] = path.slice("tinker://".length).split("/")
  if (!runId || !name || rest.length > 0) return Option.none()
  return kind === "weights" || kind === "sampler_weights" ? Option.some({ runId, kind, name }) : Option.none()
}

/** The two-part id that lists and routes use: `weights/<name>`. */
export const checkpointId = ({ kind, name }: CheckpointPath): string => `${kind}/${name}`
