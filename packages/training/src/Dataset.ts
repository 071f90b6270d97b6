/**
 * Where the batches of a run come from. Guarantees:
 *
 * - **DS1** `batch(k)` is a function of `k` alone: asked twice, or by another process after a restart, it gives the same batch;
 * - **DS2** `digest` changes whenever any batch might: the bytes of the file, the options and the tokenizer are in it;
 * - **DS3** a row that cannot be used fails the run before its first step, with the file and the line.
 *
 * In an epoch every row is used once; where the number of rows is not a multiple of the batch size its last batch is short.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { Datum } from "@tinkex/tinker/Datum"
import * as ModelInput from "@tinkex/tinker/ModelInput"
import { Tokenizer } from "@tinkex/tinker/Tokenizer"
import { createHash } from "node:crypto"
import { lineSplitter } from "./internal/lineSplitter.ts"
import { shuffled } from "./internal/shuffle.ts"
import { type TokenRow, tokenPool } from "./internal/tokenPool.ts"
import { TrainingError } from "./TrainingError.ts"

export interface Dataset {
  /** SHA-256 of everything that decides the batches. */
  readonly digest: string
  readonly totalSteps: number
  /** The batch of step `k`, from 0 to `totalSteps - 1`. */
  readonly batch: (k: number) => Effect.Effect<ReadonlyArray<Datum>, TrainingError>
  /** The options as data, for the journal and for people. */
  readonly config: Schema.Json
  /** Where epochs end; absent where the data knows none. */
  readonly stepsPerEpoch?: number | undefined
  /** For a source that is read in order: its position travels with every checkpoint. See `stateful`. */
  readonly cursor?: Cursor | undefined
}

/** A source whose batches follow from where it stands. The position is a JSON value. */
export interface Cursor {
  readonly initial: Schema.Json
  /** The batch at a position, and the position behind it: a function of the position alone. */
  readonly next: (
    position: Schema.Json
  ) => Effect.Effect<{ readonly batch: ReadonlyArray<Datum>; readonly position: Schema.Json }, TrainingError>
}

/**
 * A data set from your own source. `batch` must be a function of the step alone, and `digest` must change whenever a batch
 * does: a resumed run is refused if it differs. Fails with `InvalidOption` where `totalSteps` is not a whole number above 0 or
 * `digest` is empty.
 */
export const make = Effect.fnUntraced(function* (options: {
  readonly totalSteps: number
  readonly digest: string
  readonly batch: (k: number) => Effect.Effect<ReadonlyArray<Datum>, TrainingError>
  /** Shown when a changed run is refused. Default `{}`. */
  readonly config?: Schema.Json | undefined
  /** Default: no epochs. */
  readonly stepsPerEpoch?: number | undefined
}): Effect.fn.Return<Dataset, TrainingError> {
  yield* identified(options)
  const { batch, config = {}, digest, stepsPerEpoch, totalSteps } = options
  return { batch, config, digest, totalSteps, stepsPerEpoch }
})

const identified = Effect.fnUntraced(function* (options: {
  readonly totalSteps: number
  readonly digest: string
  readonly stepsPerEpoch?: number | undefined
}) {
  yield* atLeast("data.totalSteps", options.totalSteps, 1)
  if (options.stepsPerEpoch !== undefined) yield* atLeast("data.stepsPerEpoch", options.stepsPerEpoch, 1)
  if (options.digest === "") yield* TrainingError.invalidOption("data.digest", options.digest, "must not be empty")
})

/**
 * A data set from a source that has to be read in order: a stream, a shuffle buffer, a generator, a queue of rollouts. Its
 * `state` is kept with every checkpoint and given to `restore` when the run goes back, so that the batches that follow are those
 * that followed before. `restore` is called before the first batch too, with `initial`, and not while the source is read on.
 *
 * Errors of the source end the run. `digest` changes whenever the batches from `initial` on do.
 */
export const stateful = Effect.fnUntraced(function* <E>(options: {
  readonly totalSteps: number
  readonly digest: string
  readonly initial: Schema.Json
  /** Where the source stands, as JSON. */
  readonly state: Effect.Effect<Schema.Json, E>
  readonly restore: (state: Schema.Json) => Effect.Effect<void, E>
  /** The next batch; the source then stands behind it. */
  readonly next: Effect.Effect<ReadonlyArray<Datum>, E>
  readonly config?: Schema.Json | undefined
  readonly stepsPerEpoch?: number | undefined
}): Effect.fn.Return<Dataset, TrainingError> {
  yield* identified(options)
  const { config = {}, digest, initial, stepsPerEpoch, totalSteps } = options
  let standing: string | undefined
  const failed = (error: E) =>
    TrainingError.dataInvalid("the source", null, error instanceof Error ? error.message : String(error))
  const next = (position: Schema.Json) =>
    Effect.gen(function* () {
      const wanted = JSON.stringify(position)
      if (standing !== wanted) yield* options.restore(position)
      // Until the batch is there, nobody knows where the source stands.
      standing = undefined
      const batch = yield* options.next
      const behind = yield* options.state
      standing = JSON.stringify(behind)
      return { batch, position: behind }
    }).pipe(Effect.mapError(failed))
  return {
    config,
    digest,
    totalSteps,
    stepsPerEpoch,
    cursor: { initial, next },
    batch: (k) => Effect.die(new Error(`a source that is read in order was asked for batch ${k}`))
  }
})

export interface JsonlOptions {
  /** Rows in a batch. */
  readonly batchSize: number
  /** How often the whole file is used. Default 1. */
  readonly epochs?: number | undefined
  /** Shuffles the rows anew in each epoch. Absent: the order of the file. */
  readonly shuffleSeed?: number | undefined
  /** Longer rows are cut at their end to so many tokens. Default: no limit. */
  readonly maxTokens?: number | undefined
}

/**
 * Reads a JSON Lines file. A row is `{"text": ...}`, where every token is learned, or `{"prompt": ..., "completion": ...}`, where
 * only those of the completion are; other fields are ignored and so are blank lines. The tokenizer's begin and end tokens are
 * added where it has them. A row of n tokens becomes a datum with the first n - 1 as input, the last n - 1 as
 * `target_tokens` and a weight of 0 or 1 for each of those.
 *
 * The file is read as a stream; what stays in memory is 4 bytes for each token. Fails with `DataInvalid` (the file is missing
 * or empty, a line is not such a row, a row has nothing to learn), `InvalidOption`, or `Service` if the tokenizer fails.
 *
 * ```ts ignore
 * Dataset.jsonl("data.jsonl", { batchSize: 32, epochs: 3, shuffleSeed: 7 })
 * ```
 */
export const jsonl = Effect.fn("Dataset.jsonl")(function* (
  path: string,
  options: JsonlOptions
): Effect.fn.Return<Dataset, TrainingError, FileSystem.FileSystem | Tokenizer> {
  const { batchSize, epochs = 1, maxTokens, shuffleSeed } = options
  yield* atLeast("data.batchSize", batchSize, 1)
  yield* atLeast("data.epochs", epochs, 1)
  if (maxTokens !== undefined) yield* atLeast("data.maxTokens", maxTokens, 2)
  if (shuffleSeed !== undefined) yield* atLeast("data.shuffleSeed", shuffleSeed, 0)
  const { digest: fileDigest, rows } = yield* readRows(path, maxTokens)
  const batchesPerEpoch = Math.ceil(rows.length / batchSize)
  const totalSteps = epochs * batchesPerEpoch
  const config = {
    kind: "jsonl",
    rows: rows.length,
    batchSize,
    epochs,
    shuffleSeed: shuffleSeed ?? null,
    maxTokens: maxTokens ?? null
  }
  const identity = JSON.stringify([config, fileDigest, yield* tokenizerIdentity])

  let latest: { readonly epoch: number; readonly order: Uint32Array } | undefined
  const orderOf = (epoch: number, seed: number): Uint32Array => {
    if (latest?.epoch !== epoch) latest = { epoch, order: shuffled(rows.length, seed, epoch) }
    return latest.order
  }

  return {
    digest: createHash("sha256").update(identity).digest("hex"),
    totalSteps,
    config,
    stepsPerEpoch: batchesPerEpoch,
    batch: (k) =>
      Effect.sync(() => {
        if (k < 0 || k >= totalSteps)
          throw new RangeError(`There is no step ${k} in a data set of ${totalSteps} steps.`)
        const first = (k % batchesPerEpoch) * batchSize
        const order = shuffleSeed === undefined ? undefined : orderOf(Math.floor(k / batchesPerEpoch), shuffleSeed)
        const size = Math.min(batchSize, rows.length - first)
        return Array.from({ length: size }, (_, i) => toDatum(rows.at(order?.[first + i] ?? first + i)))
      })
  }
})

const atLeast = (field: string, value: number, least: number): Effect.Effect<void, TrainingError> =>
  Number.isSafeInteger(value) && value >= least
    ? Effect.void
    : Effect.fail(TrainingError.invalidOption(field, value, `must be a whole number, ${least} or more`))

const readRows = Effect.fnUntraced(function* (path: string, maxTokens: number | undefined) {
  const fs = yield* FileSystem.FileSystem
  const encode = yield* rowEncoder(path, maxTokens)
  const pool = tokenPool()
  const hash = createHash("sha256")
  const lines = lineSplitter()
  const decoder = new TextDecoder("utf-8", { fatal: true })
  let line = 0
  const add = Effect.fnUntraced(function* (bytes: Uint8Array) {
    line++
    const text = yield* Effect.try({
      try: () => decoder.decode(bytes),
      catch: () => TrainingError.dataInvalid(path, line, "the line is not UTF-8 text")
    })
    if (text.trim() !== "") pool.add(yield* encode(text, line))
  })
  yield* fs.stream(path).pipe(
    Stream.mapError((error) => TrainingError.dataInvalid(path, null, readProblem(error.reason._tag, error.message))),
    Stream.runForEach((bytes) => {
      hash.update(bytes)
      return Effect.forEach(lines.push(bytes), add, { discard: true })
    })
  )
  const rest = lines.end()
  if (rest !== undefined) yield* add(rest)
  if (pool.length === 0) {
    return yield* TrainingError.dataInvalid(path, null, "there is no row in it; each line is one JSON object")
  }
  return { digest: hash.digest("hex"), rows: pool }
})

const readProblem = (tag: string, message: string): string => {
  switch (tag) {
    case "NotFound":
      return "there is no such file"
    case "PermissionDenied":
      return "this file may not be read"
    default:
      return `the file cannot be read (${message})`
  }
}

const rowEncoder = Effect.fnUntraced(function* (path: string, maxTokens: number | undefined) {
  const tokenizer = yield* Tokenizer
  const begin = Option.toArray(tokenizer.bosToken)
  const end = Option.toArray(tokenizer.eosToken)
  const encode = (text: string) => tokenizer.encode(text).pipe(Effect.mapError((error) => TrainingError.service(error)))
  return Effect.fnUntraced(function* (text: string, line: number): Effect.fn.Return<TokenRow, TrainingError> {
    const row = parseRow(text)
    if (typeof row === "string") return yield* TrainingError.dataInvalid(path, line, row)
    const given = row.prompt === undefined ? [] : [...begin, ...(yield* encode(row.prompt))]
    const learned = yield* encode(row.learned)
    const all = [...(row.prompt === undefined ? begin : given), ...learned, ...end]
    const tokens = maxTokens === undefined ? all : all.slice(0, maxTokens)
    if (tokens.length < 2) {
      return yield* TrainingError.dataInvalid(
        path,
        line,
        "the row is too short: it takes at least 2 tokens to learn from"
      )
    }
    if (given.length >= tokens.length) {
      const why = given.length < all.length ? `after the cut to ${maxTokens} tokens` : "since the completion is empty"
      return yield* TrainingError.dataInvalid(path, line, `nothing is left to learn ${why}`)
    }
    return { tokens, given: given.length }
  })
})

/** The texts of a row, or what is wrong with it. */
const parseRow = (line: string): { readonly prompt: string | undefined; readonly learned: string } | string => {
  let row: unknown
  try {
    row = JSON.parse(line)
  } catch (error) {
    return `the line is not JSON (${error instanceof Error ? error.message : String(error)})`
  }
  if (typeof row !== "object" || row === null || Array.isArray(row)) return "the line is not a JSON object"
  const { completion, prompt, text } = row as Record<string, unknown> // an object, as just checked
  if (text !== undefined && (prompt !== undefined || completion !== undefined)) {
    return `the row has "text" beside "prompt" or "completion"; it must be the one or the other`
  }
  if (text !== undefined) return typeof text === "string" ? { prompt: undefined, learned: text } : notText("text", text)
  if (prompt === undefined && completion === undefined) {
    return `the row has neither "text" nor "prompt" and "completion"`
  }
  if (typeof prompt !== "string") return notText("prompt", prompt)
  return typeof completion === "string" ? { prompt, learned: completion } : notText("completion", completion)
}

const notText = (field: string, value: unknown): string =>
  value === undefined
    ? `"${field}" is missing`
    : `"${field}" must be a string, but is ${value === null ? "null" : Array.isArray(value) ? "an array" : `a ${typeof value}`}`

const toDatum = ({ given, tokens }: { readonly tokens: Int32Array; readonly given: number }): Datum => {
  const length = tokens.length - 1
  return {
    modelInput: ModelInput.fromTokens(tokens.subarray(0, length)),
    lossFnInputs: {
      target_tokens: { dtype: "int64", data: tokens.subarray(1), shape: [length] },
      weights: { dtype: "float32", data: new Float32Array(length).fill(1, Math.max(0, given - 1)), shape: [length] }
    }
  }
}

/** Tokenizers bear no name, so one is known by what it makes of a text in which they usually differ. */
const tokenizerIdentity = Effect.gen(function* () {
  const { bosToken, encode, eosToken, vocabSize } = yield* Tokenizer
  const sample = yield* encode("The quick brown fox, 1234.5 naïve 東京 \u{1F98A}\n\tfunction(){ return [0] }")
  return [vocabSize, Option.getOrNull(bosToken), Option.getOrNull(eosToken), ...sample]
}).pipe(Effect.mapError((error) => TrainingError.service(error)))
