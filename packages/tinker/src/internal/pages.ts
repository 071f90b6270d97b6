/** Pages of runs and of checkpoints, read as fast as may be. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Checkpoint } from "../Checkpoint.ts"
import type { Cursor, RunFlag } from "../RestClient.ts"
import * as Time from "../Time.ts"
import { BadResponse, TinkerError } from "../TinkerError.ts"
import { TrainingRun } from "../TrainingRun.ts"
import * as Json from "../wire/Json.ts"
import * as PlainRuns from "./plainRuns.ts"
import type { Reply } from "./request.ts"
import { decodeValue, parseJson } from "./transport.ts"

const RunsCursor = Schema.Struct({ cursor: Json.Cursor })
const Runs = Schema.Struct({ training_runs: Schema.Array(TrainingRun), ...RunsCursor.fields })
const CheckpointsCursor = Schema.Struct({ cursor: Schema.optionalKey(Schema.NullOr(Json.Cursor)) })
const Checkpoints = Schema.Struct({ checkpoints: Schema.Array(Checkpoint), ...CheckpointsCursor.fields })
export const toCursor = (cursor: typeof Json.Cursor.Type): Cursor => ({
  offset: cursor.offset,
  limit: cursor.limit,
  totalCount: cursor.total_count
})

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

/** By hand: a schema takes twenty times as long, and this is read for a hundred thousand runs every half minute. */
export const readFlags = (operation: string) => (reply: Reply) =>
  Effect.suspend(() => {
    const bad = (problem: string) => Effect.fail(new TinkerError({ reason: new BadResponse({ operation, problem }) }))
    const body = Result.try((): unknown => JSON.parse(utf8.decode(reply.body)))
    if (Result.isFailure(body)) return bad("it is no JSON")
    const page = body.success
    if (!isObject(page) || !Array.isArray(page["training_runs"])) return bad('it has no list "training_runs"')
    const runs: Array<RunFlag> = []
    for (const run of page["training_runs"] as ReadonlyArray<unknown>) {
      if (!isObject(run) || typeof run["training_run_id"] !== "string") continue
      const flag = run["corrupted"] === undefined ? false : run["corrupted"]
      runs.push({
        trainingRunId: run["training_run_id"],
        corrupted: typeof flag === "boolean" ? flag : undefined,
        lastRequestMillis: Time.toMillis(run["last_request_time"])
      })
    }
    const cursor = page["cursor"]
    const total = isObject(cursor) ? cursor["total_count"] : undefined
    return Effect.succeed({ runs, totalCount: typeof total === "number" ? total : undefined })
  })

const utf8 = new TextDecoder()

/** One page of a list, read by hand where it is plain and by its schema where it is not. */
const readPage =
  <A, B extends { readonly [K in Field]: ReadonlyArray<A> }, Rest extends object, Field extends string>(options: {
    readonly operation: string
    readonly field: Field
    readonly plain: (list: unknown) => ReadonlyArray<A> | undefined
    /** All but the list. */
    readonly rest: Schema.Decoder<Rest>
    readonly whole: Schema.Decoder<B & Rest>
  }) =>
  (reply: Reply): Effect.Effect<{ readonly list: ReadonlyArray<A>; readonly rest: Rest }, TinkerError> =>
    Effect.flatMap(parseJson(options.operation, reply), (value) => {
      const list = isObject(value) ? options.plain(value[options.field]) : undefined
      return list === undefined
        ? Effect.map(decodeValue(options.operation, options.whole)(value), (whole) => ({
            list: whole[options.field],
            rest: whole
          }))
        : Effect.map(decodeValue(options.operation, options.rest)(value), (rest) => ({ list, rest }))
    })

export const readRuns = (operation: string) =>
  readPage({ operation, field: "training_runs", plain: PlainRuns.runs, rest: RunsCursor, whole: Runs })

export const readCheckpoints = (operation: string) =>
  readPage({
    operation,
    field: "checkpoints",
    plain: PlainRuns.checkpoints,
    rest: CheckpointsCursor,
    whole: Checkpoints
  })
