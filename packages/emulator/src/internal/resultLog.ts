/**
 * Finished results on disk, so that they can still be fetched after the process was killed: one line each, written before
 * anybody is told that there is a result. What had not finished is not here, and answers 410.
 *
 * A last line that is cut short is that of a result which nobody has seen; it is left out. Anything else that cannot be read stops
 * the start.
 */
import * as NodeFs from "node:fs"
import * as NodePath from "node:path"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { EmulatorError, StorageFailed } from "../EmulatorError.ts"
import { Operation } from "./fault.ts"
import type { Finished, Result } from "./futures.ts"
import * as Outputs from "./outputs.ts"

const Category = Schema.Literals(["user", "server", "unknown"])

const Line = Schema.Struct({
  id: Schema.String,
  operation: Operation,
  place: Schema.Struct({
    modelId: Schema.optionalKey(Schema.String),
    samplerId: Schema.optionalKey(Schema.String),
    seqId: Schema.optionalKey(Schema.Int),
    user: Schema.String,
    samples: Schema.optionalKey(Schema.Int)
  }),
  settledAt: Schema.Number,
  result: Schema.Union([
    Schema.TaggedStruct("Json", { body: Schema.Record(Schema.String, Schema.Json) }),
    Schema.TaggedStruct("Failed", { error: Schema.String, category: Category }),
    Schema.TaggedStruct("Output", { protobuf: Schema.String })
  ])
})

const decodeLine = Schema.decodeUnknownSync(Schema.fromJsonString(Line))

const written = (result: Result) =>
  result._tag === "Output" ? { _tag: "Output", protobuf: Buffer.from(result.protobuf()).toString("base64") } : result

const read = ({ result, ...line }: typeof Line.Type): Finished => ({
  ...line,
  result: result._tag === "Output" ? Outputs.stored(line.operation, Buffer.from(result.protobuf, "base64")) : result
})

const encode = ({ id, operation, place, result, settledAt }: Finished): string =>
  `${JSON.stringify({ id, operation, place, settledAt, result: written(result) })}\n`

export interface ResultLog {
  /** What earlier processes have left, oldest first. */
  readonly earlier: ReadonlyArray<Finished>
  /** Returns when the line is in the hands of the operating system. */
  readonly append: (finished: Finished) => void
}

export const none: ResultLog = { earlier: [], append: () => undefined }

const readAll = (file: string): ReadonlyArray<Finished> => {
  if (!NodeFs.existsSync(file)) return []
  const text = NodeFs.readFileSync(file, "utf8")
  return text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => read(decodeLine(line)))
}

/** Opens the log and leaves out of it what nobody may fetch any more. */
export const open = (directory: string, oldest: number): Effect.Effect<ResultLog, EmulatorError, Scope.Scope> => {
  const file = NodePath.join(directory, "results.ndjson")
  const opening = Effect.try({
    try: () => {
      const earlier = readAll(file).filter(({ settledAt }) => settledAt > oldest)
      const aside = `${file}.new`
      NodeFs.writeFileSync(aside, earlier.map(encode).join(""))
      NodeFs.renameSync(aside, file)
      return { earlier, descriptor: NodeFs.openSync(file, "a") }
    },
    catch: (cause) =>
      new EmulatorError({
        reason: new StorageFailed({ path: file, problem: cause instanceof Error ? cause.message : String(cause) })
      })
  })
  return Effect.acquireRelease(opening, ({ descriptor }) => Effect.sync(() => NodeFs.closeSync(descriptor))).pipe(
    Effect.map(({ descriptor, earlier }) => ({
      earlier,
      append: (finished) => void NodeFs.writeSync(descriptor, encode(finished))
    }))
  )
}
