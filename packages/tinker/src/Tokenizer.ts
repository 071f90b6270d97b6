/**
 * Text to token ids and back. The service works on ids alone, so the tokenizer is the client's, and it must be the model's own:
 * nothing on the wire would tell the difference.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import { InvalidConfig, InvalidInput, TinkerError, Unsupported } from "./TinkerError.ts"

export class Tokenizer extends Context.Service<
  Tokenizer,
  {
    /** Ids of a text, without special tokens. */
    readonly encode: (text: string) => Effect.Effect<ReadonlyArray<number>, TinkerError>
    /** Text of ids; special tokens are left out. An id outside the vocabulary fails with `InvalidInput`. */
    readonly decode: (tokens: ReadonlyArray<number>) => Effect.Effect<string, TinkerError>
    readonly vocabSize: number
    readonly bosToken: Option.Option<number>
    readonly eosToken: Option.Option<number>
  }
>()("@tinkex/tinker/Tokenizer") {
  /** One token a byte of UTF-8 (0 to 255), 256 begins a text, 257 ends it, 258 pads. What the emulator's models speak. */
  static readonly layerBytes: Layer.Layer<Tokenizer> = Layer.sync(Tokenizer, () => {
    const encoder = new TextEncoder()
    // Or it would swallow a byte order mark that was part of the text.
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
    return Tokenizer.of({
      encode: (text) => Effect.sync(() => [...encoder.encode(text)]),
      decode: (tokens) => {
        const wrong = tokens.find((token) => !Number.isInteger(token) || token < 0 || token > 258)
        return wrong === undefined
          ? Effect.sync(() => decoder.decode(Uint8Array.from(tokens.filter((token) => token < 256))))
          : Effect.fail(noToken(wrong))
      },
      vocabSize: 259,
      bosToken: Option.some(256),
      eosToken: Option.some(257)
    })
  })

  /**
   * The tokenizer of a model's folder: `tokenizer.json` and, where there is one, `tokenizer_config.json`. Needs the package
   * `@huggingface/tokenizers`. Fails with `InvalidConfig` for a folder that is no tokenizer's.
   */
  static readonly layerDirectory = (
    directory: string
  ): Layer.Layer<Tokenizer, TinkerError, FileSystem.FileSystem | Path.Path> =>
    Layer.effect(Tokenizer, fromDirectory(directory))
}

const noToken = (token: number) =>
  new TinkerError({
    reason: new InvalidInput({ operation: "decode", field: "tokens", problem: `has ${token}, which is no token` })
  })

const badFolder = (problem: string) => new TinkerError({ reason: new InvalidConfig({ field: "tokenizer", problem }) })

const Config = Schema.Record(Schema.String, Schema.Json)
const Special = Schema.Union([Schema.String, Schema.Struct({ content: Schema.String })])
const isSpecial = Schema.is(Special)

const fromDirectory = Effect.fn("Tokenizer.fromDirectory")(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const read = (name: string) =>
    fs.readFileString(path.join(directory, name)).pipe(
      Effect.mapError((error) => badFolder(`cannot be read: ${path.join(directory, name)}: ${error.message}`)),
      Effect.flatMap((text) =>
        Schema.decodeUnknownEffect(Schema.fromJsonString(Config))(text).pipe(
          Effect.mapError(() => badFolder(`is malformed: ${path.join(directory, name)} is no JSON object`))
        )
      )
    )
  const model = yield* read("tokenizer.json")
  const configured = yield* fs
    .exists(path.join(directory, "tokenizer_config.json"))
    .pipe(Effect.orElseSucceed(() => false))
  const config = configured ? yield* read("tokenizer_config.json") : {}
  const { Tokenizer: HuggingFace } = yield* Effect.tryPromise({
    try: () => import("@huggingface/tokenizers"),
    catch: (cause) =>
      new TinkerError({
        reason: new Unsupported({
          feature: "A tokenizer from a folder",
          problem: `the package @huggingface/tokenizers cannot be loaded (${String(cause)}); npm install @huggingface/tokenizers`
        })
      })
  })
  const tokenizer = yield* Effect.try({
    try: () => new HuggingFace(model, config),
    catch: (cause) => badFolder(`is malformed: ${directory}/tokenizer.json: ${String(cause)}`)
  })
  const failed = (operation: string, field: string) => (cause: unknown) =>
    new TinkerError({ reason: new InvalidInput({ operation, field, problem: `cannot be read: ${String(cause)}` }) })
  const special = (name: string) => {
    const value = config[name]
    if (!isSpecial(value)) return Option.none<number>()
    return Option.fromUndefinedOr(tokenizer.token_to_id(typeof value === "string" ? value : value.content))
  }
  return Tokenizer.of({
    encode: (text) =>
      Effect.try({
        try: () => tokenizer.encode(text, { add_special_tokens: false }).ids,
        catch: failed("encode", "text")
      }),
    decode: (tokens) => {
      const wrong = tokens.find((token) => tokenizer.id_to_token(token) === undefined)
      if (wrong !== undefined) return Effect.fail(noToken(wrong))
      // The package refuses an empty list.
      if (tokens.length === 0) return Effect.succeed("")
      return Effect.try({
        try: () => tokenizer.decode([...tokens], { skip_special_tokens: true }),
        catch: failed("decode", "tokens")
      })
    },
    vocabSize: tokenizer.get_vocab().size,
    bosToken: special("bos_token"),
    eosToken: special("eos_token")
  })
})
