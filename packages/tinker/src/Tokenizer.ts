/**
 * Text to token ids and back, and chats to text. The service works on ids alone, so the tokenizer is the client's, and it must be
 * the model's own: nothing on the wire would tell the difference. Nothing is fetched: a tokenizer comes from a folder.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import { InvalidConfig, InvalidInput, TinkerError, Unsupported } from "./TinkerError.ts"

/** One turn of a chat. Templates may want more of it, tool calls for instance; what is given is handed to them as it is. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, `tool`, or what the template knows besides. */
  readonly role: string
  readonly content: string | ReadonlyArray<Readonly<Record<string, unknown>>>
  readonly [field: string]: unknown
}

export interface ChatOptions {
  /** End with what makes the model answer. Default false. */
  readonly addGenerationPrompt?: boolean | undefined
  /** Which of the model's templates, where it has several. Default `default`, or with tools `tool_use` where there is one. */
  readonly template?: string | undefined
  /** Descriptions of functions that the model may call, as its template wants them. */
  readonly tools?: ReadonlyArray<Readonly<Record<string, unknown>>> | undefined
  /** Whatever else the template asks for, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>> | undefined
}

export class Tokenizer extends Context.Service<
  Tokenizer,
  {
    /** Ids of a text, without special tokens. */
    readonly encode: (text: string) => Effect.Effect<ReadonlyArray<number>, TinkerError>
    /** Text of ids; special tokens are left out. An id outside the vocabulary fails with `InvalidInput`. */
    readonly decode: (tokens: ReadonlyArray<number>) => Effect.Effect<string, TinkerError>
    /**
     * The text of a chat, by the model's own template; its special tokens are in the text, and `encode` knows them. `Unsupported`
     * for a tokenizer without a template, `InvalidInput` for messages that the template refuses.
     */
    readonly applyChatTemplate: (
      messages: ReadonlyArray<ChatMessage>,
      options?: ChatOptions
    ) => Effect.Effect<string, TinkerError>
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
      applyChatTemplate: () => Effect.fail(noTemplate("these bytes are no model's")),
      vocabSize: 259,
      bosToken: Option.some(256),
      eosToken: Option.some(257)
    })
  })

  /**
   * Whose tokenizer a model uses: an id on the Hugging Face hub, from what `TrainingClient.info` or `SamplingClient.info` say.
   * Suffixes of variants are cut off, and Llama 3's is replaced by a copy that needs no permission. `Unsupported` for the models
   * of Thinking Machines' own, whose tokenizers come in a package that is not public.
   */
  static readonly resolveId = (model: {
    readonly modelName: string
    readonly tokenizerId?: string | undefined
  }): Effect.Effect<string, TinkerError> => resolveId(model.modelName, model.tokenizerId)

  /**
   * The tokenizer of a model's folder: `tokenizer.json` and, where they are there, `tokenizer_config.json` and
   * `chat_template.jinja`. Needs the package `@huggingface/tokenizers`, and `@huggingface/jinja` for a model with a chat
   * template. Fails with `InvalidConfig` for a folder that is no tokenizer's.
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

const noTemplate = (problem: string) =>
  new TinkerError({ reason: new Unsupported({ feature: "A chat template", problem }) })

const resolveId = (modelName: string, tokenizerId: string | undefined): Effect.Effect<string, TinkerError> => {
  const name = modelName.split(":")[0] ?? ""
  const parts = name.split("/")
  const id =
    tokenizerId !== undefined && tokenizerId !== ""
      ? (tokenizerId.split(":")[0] ?? "")
      : name.startsWith("meta-llama/Llama-3")
        ? "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"
        : parts.length === 3
          ? parts.slice(0, 2).join("/")
          : name
  if (id === "") {
    return Effect.fail(
      new TinkerError({
        reason: new InvalidInput({ operation: "resolve a tokenizer", field: "modelName", problem: "is empty" })
      })
    )
  }
  return id.startsWith("TML/") || id.startsWith("thinkingmachines/")
    ? Effect.fail(
        new TinkerError({
          reason: new Unsupported({
            feature: `The tokenizer ${id}`,
            problem: "it comes in a package that is not public"
          })
        })
      )
    : Effect.succeed(id)
}

/** A model's templates by name, as its folder has them: one text, or several with names, or a file of their own. */
const templatesOf = (
  config: Readonly<Record<string, unknown>>,
  file: string | undefined
): ReadonlyMap<string, string> => {
  const templates = new Map<string, string>()
  const { chat_template } = config
  if (typeof chat_template === "string") templates.set("default", chat_template)
  for (const entry of isNamed(chat_template) ? chat_template : []) templates.set(entry.name, entry.template)
  if (file !== undefined) templates.set("default", file)
  return templates
}

const NamedTemplates = Schema.Array(Schema.Struct({ name: Schema.String, template: Schema.String }))
const isNamed = Schema.is(NamedTemplates)

/** What templates call by name: the special tokens, as text. */
const specialTexts = (config: Readonly<Record<string, unknown>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(config).flatMap(([name, value]) =>
      name.endsWith("_token") && isSpecial(value) ? [[name, typeof value === "string" ? value : value.content]] : []
    )
  )

const chatTemplates = Effect.fnUntraced(function* (
  config: Readonly<Record<string, unknown>>,
  templates: ReadonlyMap<string, string>
) {
  if (templates.size === 0) {
    return () =>
      Effect.fail(noTemplate("the tokenizer's folder has none, in tokenizer_config.json or chat_template.jinja"))
  }
  const { Template } = yield* Effect.tryPromise({
    try: () => import("@huggingface/jinja"),
    catch: (cause) =>
      noTemplate(`the package @huggingface/jinja cannot be loaded (${String(cause)}); npm install @huggingface/jinja`)
  })
  const compiled = new Map<string, InstanceType<typeof Template>>()
  for (const [name, text] of templates) {
    const template = yield* Effect.try({
      try: () => new Template(text),
      catch: (cause) => badFolder(`has a chat template "${name}" that is malformed: ${String(cause)}`)
    })
    compiled.set(name, template)
  }
  const texts = specialTexts(config)
  return (messages: ReadonlyArray<ChatMessage>, options: ChatOptions = {}) => {
    const { addGenerationPrompt = false, tools, variables } = options
    const wanted = options.template ?? (tools !== undefined && compiled.has("tool_use") ? "tool_use" : "default")
    const template = compiled.get(wanted)
    const refuse = (field: string, problem: string) =>
      new TinkerError({ reason: new InvalidInput({ operation: "apply the chat template", field, problem }) })
    if (template === undefined) {
      return Effect.fail(refuse("template", `is "${wanted}", and there are ${[...compiled.keys()].join(", ")}`))
    }
    if (messages.length === 0) return Effect.fail(refuse("messages", "are empty"))
    return Effect.try({
      try: () =>
        template.render({
          ...texts,
          ...variables,
          messages,
          add_generation_prompt: addGenerationPrompt,
          ...(tools === undefined ? {} : { tools })
        }),
      catch: (cause) =>
        refuse("messages", `are refused by the template: ${cause instanceof Error ? cause.message : String(cause)}`)
    })
  }
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
  const templateFile = path.join(directory, "chat_template.jinja")
  const template = (yield* fs.exists(templateFile).pipe(Effect.orElseSucceed(() => false)))
    ? yield* fs
        .readFileString(templateFile)
        .pipe(Effect.mapError((error) => badFolder(`cannot be read: ${templateFile}: ${error.message}`)))
    : undefined
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
    applyChatTemplate: yield* chatTemplates(config, templatesOf(config, template)),
    vocabSize: tokenizer.get_vocab().size,
    bosToken: special("bos_token"),
    eosToken: special("eos_token")
  })
})
