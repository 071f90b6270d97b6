/** Who opened which session, on disk. They are over when their process is; what is left of them is their description. */
import * as NodePath from "node:path"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { EmulatorError } from "../EmulatorError.ts"
import * as LineLog from "./lineLog.ts"

const Line = Schema.Struct({
  id: Schema.String,
  owner: Schema.String,
  projectId: Schema.NullOr(Schema.String),
  userMetadata: Schema.NullOr(Schema.Record(Schema.String, Schema.String)),
  openedAt: Schema.Number
})
/** A later description of a session replaces an earlier one. */
export type SessionRecord = typeof Line.Type

export type SessionLog = LineLog.LineLog<SessionRecord>

export const none: SessionLog = LineLog.none()

export const open = (directory: string): Effect.Effect<SessionLog, EmulatorError, Scope.Scope> =>
  LineLog.open({
    file: NodePath.join(directory, "sessions.ndjson"),
    line: Line,
    keep: (earlier) => [...new Map(earlier.map((session) => [session.id, session])).values()]
  })
