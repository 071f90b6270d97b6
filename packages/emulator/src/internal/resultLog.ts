/**
 * Finished results on disk, so that they can still be fetched after the process was killed. What had not finished is not here,
 * and answers 410.
 */
import * as NodePath from "node:path"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { EmulatorError } from "../EmulatorError.ts"
import { Operation } from "./fault.ts"
import type { Finished, Result } from "./futures.ts"
import * as LineLog from "./lineLog.ts"
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

type Line = typeof Line.Type

const written = (result: Result): Line["result"] => {
  if (result._tag === "Output") return { _tag: "Output", protobuf: Buffer.from(result.protobuf()).toString("base64") }
  // Bodies are made of what JSON has.
  return result as Exclude<Line["result"], { readonly _tag: "Output" }>
}

const read = ({ result, ...line }: Line): Finished => ({
  ...line,
  result: result._tag === "Output" ? Outputs.stored(line.operation, Buffer.from(result.protobuf, "base64")) : result
})

export interface ResultLog {
  readonly earlier: ReadonlyArray<Finished>
  readonly append: (finished: Finished) => void
}

export const none: ResultLog = LineLog.none()

/** Opens the log and leaves out of it what nobody may fetch any more. */
export const open = (directory: string, oldest: number): Effect.Effect<ResultLog, EmulatorError, Scope.Scope> =>
  LineLog.open({
    file: NodePath.join(directory, "results.ndjson"),
    line: Line,
    keep: (earlier) => earlier.filter(({ settledAt }) => settledAt > oldest)
  }).pipe(
    Effect.map(({ append, earlier }) => ({
      earlier: earlier.map(read),
      append: ({ result, ...finished }) => append({ ...finished, result: written(result) })
    }))
  )
